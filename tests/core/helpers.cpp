#include "core/helpers.h"

#include <atomic>
#include <memory>
#include <set>
#include <thread>

#include "tests/core/signals.h"
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
  test::check_takes_no_signals([] { return std::make_unique<Helpers>(3); });
}
