#include "core/helpers.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <set>
#include <thread>

#include "tests/support/catch.h"

using namespace qanat;

TEST_CASE("helpers: every piece is done once before run() returns, whoever does it") {
  for (const std::size_t threads : {0, 1, 3}) {
    Helpers helpers(threads);
    for (const std::size_t count : {0, 1, 2, 7, 1000}) {
      std::vector<int> done(count, 0);  // not atomic: run() orders what the helpers wrote before what is read here
      helpers.run(count, [&](std::size_t i) { ++done[i]; });
      CHECK(done == std::vector<int>(count, 1));
    }
  }
}

TEST_CASE("helpers: pieces that wait for each other end only if helpers take part") {
  Helpers helpers(2);
  std::atomic<int> here = 0;
  std::mutex mutex;
  std::set<std::thread::id> who;
  helpers.run(3, [&](std::size_t) {
    ++here;
    while (here < 3) std::this_thread::yield();
    const std::lock_guard lock(mutex);
    who.insert(std::this_thread::get_id());
  });
  CHECK(who.size() == 3);
  CHECK(who.count(std::this_thread::get_id()) == 1);
}

TEST_CASE("helpers: they take no signals") {
  static std::atomic<int> taken;
  taken = 0;
  struct sigaction before {
  }, mine{};
  mine.sa_handler = [](int) { ++taken; };
  sigaction(SIGUSR2, &mine, &before);
  Helpers helpers(3);
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
