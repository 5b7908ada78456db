#include "core/io_thread.h"

#include <pthread.h>

#include <csignal>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace qanat {

IoThread::IoThread(const std::string& name, std::uint64_t most_bytes) : most_bytes_(most_bytes) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { work(); });
  } catch (const std::system_error& error) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    throw SystemError(text("cannot start the thread '", name, "': ", error.code().message()));
  }
  pthread_setname_np(thread_.native_handle(), name.c_str());
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

IoThread::~IoThread() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  given_.notify_one();
  thread_.join();
}

void IoThread::give(Job job, std::uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    rethrow();
    jobs_.push_back({std::move(job), bytes});
    bytes_ += bytes;
  }
  given_.notify_one();
}

std::uint64_t IoThread::waiting_bytes() {
  const std::lock_guard lock(mutex_);
  rethrow();
  return bytes_;
}

bool IoThread::idle() {
  const std::lock_guard lock(mutex_);
  rethrow();
  return jobs_.empty();
}

void IoThread::finish() {
  std::unique_lock lock(mutex_);
  done_.wait(lock, [&] { return jobs_.empty(); });
  rethrow();
}

void IoThread::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    given_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Given next = std::move(jobs_.front());
    std::deque<Given> dropped;
    std::exception_ptr failure;
    lock.unlock();
    try {
      next.job();
    } catch (...) {
      failure = std::current_exception();
    }
    next.job = {};  // what it holds goes before anybody hears that it is done
    lock.lock();
    jobs_.pop_front();
    bytes_ -= next.bytes;
    if (failure) {
      failure_ = failure;
      dropped = std::exchange(jobs_, {});
      bytes_ = 0;
    }
    done_.notify_one();
    if (!failure) continue;
    lock.unlock();
    return;  // the dropped jobs' memory goes without the lock
  }
}

}  // namespace qanat
