// Threads that share the pieces of a job with the thread that has it.
//
// A helper that comes late finds nothing left to do and is not waited for: a busy machine costs speed alone. One owner;
// the helpers take no signals.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace qanat {

class Helpers {
 public:
  // Fewer when the system has no thread left. 0: the owner does everything.
  explicit Helpers(std::size_t threads);
  ~Helpers();
  Helpers(const Helpers&) = delete;
  Helpers& operator=(const Helpers&) = delete;

  // Calls piece(i) once for each i below `count`, on this thread and the helpers, and returns when all calls have. They
  // may not throw.
  void run(std::size_t count, const std::function<void(std::size_t)>& piece);

 private:
  void help();
  void work(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable begun_, done_;
  const std::function<void(std::size_t)>* piece_ = nullptr;
  std::size_t count_ = 0, next_ = 0, finished_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace qanat
