// A thread beside its owner for what may wait for a disk: jobs, done one after the other in the order given.
//
// The owner never waits, but for the destructor: it asks full() before it makes a job whose memory is to be bounded,
// and idle() whether all is done. A job that throws ends the work: the jobs behind it are dropped, no more are taken,
// and each call of the owner from then on throws what the job threw. Whoever wants to go on makes a new IoThread.
// One owner; jobs run on the thread and touch nothing that the owner touches meanwhile. The thread takes no signals.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace qanat {

class IoThread {
 public:
  using Job = std::function<void()>;

  // `name`: of the thread, at most 15 characters. `most_bytes`: what the jobs not yet done may hold before full().
  // Throws SystemError when the system has no thread left.
  IoThread(const std::string& name, std::uint64_t most_bytes);
  // Returns when all jobs are done, or one has failed; what it threw is lost then.
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  // `bytes`: what the job holds in memory. Always taken, also when full: one whose data cannot stay where it is.
  void give(Job job, std::uint64_t bytes = 0);
  // Bytes of jobs not yet done.
  [[nodiscard]] std::uint64_t waiting_bytes();
  [[nodiscard]] bool full() { return waiting_bytes() >= most_bytes_; }
  // All that was given is done.
  [[nodiscard]] bool idle();
  // Waits until idle(): for an owner that has nothing else to do.
  void finish();

 private:
  struct Given {
    Job job;
    std::uint64_t bytes = 0;
  };

  void work();
  // Precondition: the mutex is held.
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

  const std::uint64_t most_bytes_;
  std::mutex mutex_;  // guards all below but the thread
  std::condition_variable given_, done_;
  std::deque<Given> jobs_;  // the first one is being done
  std::uint64_t bytes_ = 0;
  std::exception_ptr failure_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace qanat
