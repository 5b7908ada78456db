#include "core/helpers.h"

#include <pthread.h>

#include <csignal>
#include <system_error>

namespace qanat {

Helpers::Helpers(std::size_t threads) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    for (std::size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this] { help(); });
      pthread_setname_np(threads_.back().native_handle(), "helper");
    }
  } catch (const std::system_error&) {  // those that there are do
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Helpers::~Helpers() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  begun_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void Helpers::run(std::size_t count, const std::function<void(std::size_t)>& piece) {
  std::unique_lock lock(mutex_);
  piece_ = &piece;
  count_ = count;
  next_ = finished_ = 0;
  if (count > 1) begun_.notify_all();
  work(lock);
  done_.wait(lock, [&] { return finished_ == count_; });
}

void Helpers::help() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    begun_.wait(lock, [&] { return stopping_ || next_ < count_; });
    work(lock);
  }
}

void Helpers::work(std::unique_lock<std::mutex>& lock) {
  while (next_ < count_) {
    const auto i = next_++;
    const auto& piece = *piece_;
    lock.unlock();
    piece(i);
    lock.lock();
    if (++finished_ == count_) done_.notify_one();
  }
}

}  // namespace qanat
