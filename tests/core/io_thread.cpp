#include "core/io_thread.h"

#include <atomic>
#include <future>
#include <memory>
#include <vector>

#include "core/error.h"
#include "tests/core/signals.h"
#include "tests/support/catch.h"

using namespace qanat;

namespace {

// Keeps a thread until it is opened, as a slow disk would.
struct Gate {
  std::promise<void> opened;
  std::shared_future<void> future = opened.get_future().share();

  [[nodiscard]] IoThread::Job job() const {
    return [opened = future] { opened.wait(); };
  }
  void open() { opened.set_value(); }
};

}  // namespace

TEST_CASE("io thread: jobs are done in the order given, and all of them before it is destroyed") {
  std::vector<int> done;
  {
    IoThread thread("disk", 1);
    for (int i = 0; i < 100; ++i) thread.give([&done, i] { done.push_back(i); });
  }
  REQUIRE(done.size() == 100);
  for (int i = 0; i < 100; ++i) CHECK(done[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("io thread: the owner goes on while a job waits, and is told how much memory waits with it") {
  Gate gate;
  IoThread thread("disk", 100);
  CHECK(thread.idle());
  thread.give(gate.job());
  thread.give([] {}, 60);
  CHECK_FALSE(thread.idle());
  CHECK_FALSE(thread.full());
  thread.give([] {}, 40);
  CHECK(thread.waiting_bytes() == 100);
  CHECK(thread.full());
  gate.open();
  thread.finish();
  CHECK(thread.idle());
  CHECK(thread.waiting_bytes() == 0);
}

TEST_CASE("io thread: the owner gets the first exception at every call, the jobs behind it are dropped") {
  Gate gate;
  std::atomic<bool> later = false;
  const auto held = std::make_shared<int>(0);
  {
    IoThread thread("disk", 100);
    thread.give(gate.job());
    thread.give([] { throw SystemError("the disk is full"); });
    thread.give([] { throw SystemError("never thrown"); });
    thread.give([&later, held] { later = true; }, 100);
    gate.open();
    CHECK_THROWS_WITH(thread.finish(), "the disk is full");
    CHECK_THROWS_WITH(thread.idle(), "the disk is full");
    CHECK_THROWS_WITH(thread.full(), "the disk is full");
    CHECK_THROWS_WITH(thread.give([&later] { later = true; }), "the disk is full");
  }
  CHECK_FALSE(later);
  CHECK(held.use_count() == 1);
}

TEST_CASE("io thread: one that failed unheard is destroyed without a word") {
  IoThread thread("disk", 100);
  thread.give([] { throw SystemError("nobody hears it"); });
}

TEST_CASE("io thread: it takes no signals") {
  test::check_takes_no_signals([] { return std::make_unique<IoThread>("disk", 100); });
}
