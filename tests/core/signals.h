// Whether threads that a class starts leave signals to the others.
#pragma once

#include <unistd.h>

#include <atomic>
#include <csignal>

#include "tests/support/catch.h"

namespace qanat::test {

// `start` returns an object with threads, which is to live for the whole check.
template <class Start>
void check_takes_no_signals(const Start& start) {
  static std::atomic<int> taken;
  taken = 0;
  struct sigaction before {
  }, mine{};
  mine.sa_handler = [](int) { ++taken; };
  sigaction(SIGUSR2, &mine, &before);
  const auto threads = start();
  // This thread takes none for a while: what is sent to the process goes to whichever thread does.
  sigset_t one, old;
  sigemptyset(&one);
  sigaddset(&one, SIGUSR2);
  pthread_sigmask(SIG_BLOCK, &one, &old);
  kill(getpid(), SIGUSR2);
  const timespec long_enough{.tv_sec = 10, .tv_nsec = 0};
  CHECK(sigtimedwait(&one, nullptr, &long_enough) == SIGUSR2);
  CHECK(taken == 0);
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  sigaction(SIGUSR2, &before, nullptr);
}

}  // namespace qanat::test
