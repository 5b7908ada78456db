// The replay-ratio ledger as a specification. Behaviours C17 to C20 and C23 of our list are adapted: our window is
// symmetric around the balance at which counting started, and steps inserted before that are free.
#include "control/ledger.h"

#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using control::Ledger;
using control::LedgerOptions;
using Side = Ledger::Side;

namespace {

constexpr std::uint64_t shard = 1;
constexpr std::uint64_t other_shard = 2;
constexpr std::uint64_t learner = 10;

// What a member may use in all after the ledger has given what it can.
std::uint64_t granted(Ledger& ledger, std::uint64_t member) {
  (void)ledger.grants();
  return ledger.granted(member);
}

// A ledger that counts from now on, with a shard and a learner that have used nothing.
Ledger counting(LedgerOptions options) {
  Ledger ledger(options);
  ledger.join(shard, Side::insert);
  ledger.join(learner, Side::draw);
  ledger.report(shard, 0, 0, options.min_size);
  return ledger;
}

Ledger reloaded(const Ledger& ledger) {
  ByteWriter out;
  ledger.save(out);
  Ledger fresh(ledger.options());
  ByteReader in(out.bytes(), "test");
  fresh.load(in);
  in.expect_end();
  return fresh;
}

}  // namespace

TEST_CASE("ledger: nothing is drawn before min_size items are drawable (C17)") {
  Ledger ledger({.ratio = 1, .min_size = 2, .window = 1e9});
  ledger.join(shard, Side::insert);
  ledger.join(learner, Side::draw);
  ledger.report(learner, 0, 1, 0);
  CHECK(granted(ledger, learner) == 0);
  ledger.report(shard, 1, 1, 1);
  CHECK(granted(ledger, learner) == 0);
  CHECK_FALSE(ledger.counting());
  ledger.report(shard, 2, 2, 2);
  CHECK(ledger.counting());
  CHECK(granted(ledger, learner) == 1);
}

TEST_CASE("ledger: min_size is a sum over shards") {
  Ledger ledger({.ratio = 1, .min_size = 10, .window = 100});
  ledger.join(shard, Side::insert);
  ledger.join(other_shard, Side::insert);
  ledger.report(shard, 6, 6, 6);
  CHECK_FALSE(ledger.counting());
  ledger.report(other_shard, 4, 4, 4);
  CHECK(ledger.counting());
}

TEST_CASE("ledger: inserts are free before counting, however narrow the window, and do not enter the balance") {
  Ledger ledger({.ratio = 1, .min_size = 1000, .window = 2});
  ledger.join(shard, Side::insert);
  ledger.report(shard, 0, 5000, 0);
  CHECK(granted(ledger, shard) == 5000);
  ledger.report(shard, 5000, 5000, 5000);
  CHECK(ledger.counting());
  CHECK(ledger.balance() == 0);
  CHECK(ledger.inserted_total() == 5000);
}

TEST_CASE("ledger: the window is exact on both sides (C18)") {
  // Window [-3, 3], 1.5 trained steps an insert.
  auto ledger = counting({.ratio = 1.5, .min_size = 2, .window = 6});
  ledger.report(shard, 0, 3, 2);
  CHECK(granted(ledger, shard) == 2);  // balance 3 when used; a third would be 4.5
  ledger.report(shard, 2, 3, 2);
  CHECK(ledger.balance() == 3);
  CHECK(granted(ledger, shard) == 2);
  ledger.report(learner, 1, 1, 0);
  CHECK(ledger.balance() == 2);
  CHECK(granted(ledger, shard) == 2);  // 3.5 would be outside
  ledger.report(learner, 2, 2, 0);
  CHECK(granted(ledger, shard) == 3);
}

TEST_CASE("ledger: the window's edge is inside (C19)") {
  auto ledger = counting({.ratio = 1.5, .min_size = 1, .window = 6});
  ledger.report(shard, 2, 2, 2);
  CHECK(ledger.balance() == 3);
  ledger.report(learner, 0, 100, 0);
  CHECK(granted(ledger, learner) == 6);
  ledger.report(learner, 6, 100, 0);
  CHECK(ledger.balance() == -3);
  CHECK(granted(ledger, learner) == 6);
}

TEST_CASE("ledger: a ratio that doubles cannot hold does not shut a window that fits exactly") {
  // In doubles 0.1 * 3 is above 0.3, and 0.3 / 0.1 below 3: after some inserts and draws the room for exactly so
  // many steps comes out a little smaller.
  for (const double ratio : {0.1, 0.3, 0.7, 1.1}) {
    for (std::uint64_t steps = 10; steps < 60; ++steps) {
      auto ledger = counting({.ratio = ratio, .min_size = 1, .window = 2 * ratio * static_cast<double>(steps)});
      ledger.report(shard, 3, 1000, 1);
      CHECK(granted(ledger, shard) == steps);
    }
  }
}

TEST_CASE("ledger: below min_size again inserts are free again (C20) but counted, and a queued insert is no item") {
  auto ledger = counting({.ratio = 1, .min_size = 5, .window = 10});
  ledger.report(shard, 5, 100, 5);
  CHECK(granted(ledger, shard) == 5);
  ledger.report(shard, 5, 100, 4);  // items were lost
  CHECK(granted(ledger, shard) == 100);
  CHECK(ledger.counting());
  ledger.report(shard, 100, 200, 5);
  CHECK(granted(ledger, shard) == 100);
  CHECK(ledger.balance() == 100);  // which the learner has to make up for
  ledger.report(learner, 0, 1000, 0);
  CHECK(granted(ledger, learner) == 105);

  Ledger queued({.ratio = 1, .min_size = 5, .window = 10});
  queued.join(shard, Side::insert);
  queued.report(shard, 0, 100, 0);
  CHECK(granted(queued, shard) == 100);
  CHECK_FALSE(queued.counting());
}

TEST_CASE("ledger: options that would deadlock or mean nothing are refused (C23)") {
  CHECK_THROWS_AS(Ledger({.ratio = -1}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = std::nan("")}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = std::numeric_limits<double>::infinity()}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = 1, .min_size = 0}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = 1, .min_size = 1, .window = 0}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = 1, .min_size = 1, .window = 1.9}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = 8, .min_size = 1, .window = 15}), ConfigError);
  CHECK_THROWS_AS(Ledger({.ratio = 1, .min_size = 1, .window = std::nan("")}), ConfigError);
  CHECK_NOTHROW(Ledger({.ratio = 8, .min_size = 1, .window = 16}));
  CHECK_NOTHROW(Ledger({.ratio = 0, .min_size = 1, .window = 0}));  // no coupling: no window
}

TEST_CASE("ledger: with ratio 0 both sides run free once min_size is there") {
  Ledger ledger({.ratio = 0, .min_size = 1, .window = 2});
  ledger.join(shard, Side::insert);
  ledger.join(learner, Side::draw);
  ledger.report(learner, 0, 1000, 0);
  CHECK(granted(ledger, learner) == 0);
  ledger.report(shard, 1, 100'000, 1);
  CHECK(granted(ledger, learner) == 1000);
  CHECK(granted(ledger, shard) == 100'000);
}

TEST_CASE("ledger: both sides block at their edge, and each one's progress lets the other go on") {
  auto ledger = counting({.ratio = 2, .min_size = 1, .window = 40});
  std::uint64_t inserted = 0;
  std::uint64_t drawn = 0;
  for (int round = 0; round < 50; ++round) {
    ledger.report(shard, inserted, inserted + 1000, 1);
    inserted = granted(ledger, shard);
    ledger.report(shard, inserted, inserted + 1000, 1);
    CHECK(ledger.balance() == 20);
    CHECK(ledger.grants().empty());
    CHECK(ledger.waiting().find("the learner is behind") != std::string::npos);
    ledger.report(shard, inserted, inserted, 1);  // asks for nothing while the learner has its turn
    ledger.report(learner, drawn, drawn + 1000, 0);
    drawn = granted(ledger, learner);
    ledger.report(learner, drawn, drawn + 1000, 0);
    CHECK(ledger.balance() == -20);
    CHECK(ledger.grants().empty());
    CHECK(ledger.waiting().find("the actors are behind") != std::string::npos);
    ledger.report(learner, drawn, drawn, 0);
  }
  CHECK(ledger.actual_ratio() == Approx(2).epsilon(0.05));  // at most the window / 2 of 1990 drawn steps: 1 %
}

TEST_CASE("ledger: credits are shared among those who ask, and the rest is not lost") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 20});
  ledger.join(other_shard, Side::insert);
  ledger.join(3, Side::insert);
  ledger.report(shard, 0, 100, 1);
  ledger.report(other_shard, 0, 100, 0);
  ledger.report(3, 0, 1, 0);
  const auto grants = ledger.grants();
  REQUIRE(grants.size() == 3);
  CHECK(grants[0].member == shard);
  std::uint64_t sum = 0;
  for (const auto& grant : grants) {
    CHECK(grant.granted >= 1);
    sum += grant.granted;
  }
  CHECK(sum <= 10);
  (void)ledger.grants();  // what the third did not want
  CHECK(ledger.granted(shard) + ledger.granted(other_shard) + ledger.granted(3) == 10);
}

TEST_CASE("ledger: repeated and reordered reports change nothing") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 100});
  ledger.report(shard, 10, 20, 5);
  const auto before = granted(ledger, shard);
  const double balance = ledger.balance();
  ledger.report(shard, 10, 20, 5);
  ledger.report(shard, 3, 7, 1);  // an old one
  CHECK(granted(ledger, shard) == before);
  CHECK(ledger.balance() == balance);
  CHECK(ledger.drawable() == 5);
}

TEST_CASE("ledger: a random stream of reports ends the same in any order, with repeats") {
  Rng rng(11);
  for (int round = 0; round < 50; ++round) {
    auto straight = counting({.ratio = 2, .min_size = 1, .window = 1e6});
    auto shuffled = counting({.ratio = 2, .min_size = 1, .window = 1e6});
    struct Report {
      std::uint64_t member, used;
    };
    std::vector<Report> reports;
    for (std::uint64_t used = 1; used <= 20; ++used) {
      reports.push_back({shard, used * 7});
      reports.push_back({learner, used * 5});
    }
    for (const auto& [member, used] : reports) straight.report(member, used, used, 1);
    for (std::size_t i = reports.size(); i > 1; --i) std::swap(reports[i - 1], reports[rng.below(i)]);
    for (const auto& [member, used] : reports) {
      shuffled.report(member, used, used, 1);
      if (rng.chance(0.5)) shuffled.report(member, used, used, 1);
    }
    CHECK(shuffled.balance() == straight.balance());
    CHECK(shuffled.inserted_total() == 140);
    CHECK(shuffled.drawn_total() == 100);
  }
}

TEST_CASE("ledger: a silent peer's unused lease returns to the others, what it used stays counted") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 20});
  ledger.join(other_shard, Side::insert);
  ledger.report(shard, 0, 10, 1);
  CHECK(granted(ledger, shard) == 10);
  ledger.report(shard, 4, 10, 1);
  ledger.report(other_shard, 0, 10, 2);
  CHECK(granted(ledger, other_shard) == 0);
  ledger.leave(shard);
  CHECK(granted(ledger, other_shard) == 6);
  CHECK(ledger.inserted_total() == 4);
  CHECK(ledger.drawable() == 2);  // its own items are out of reach
  ledger.leave(shard);
  CHECK(ledger.inserted_total() == 4);
}

TEST_CASE("ledger: a member that comes back is not counted twice") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 1000});
  ledger.report(shard, 100, 100, 1);
  ledger.leave(shard);
  CHECK(ledger.inserted_total() == 100);
  ledger.report(shard, 110, 110, 1);  // while it is out, nobody listens
  CHECK(ledger.inserted_total() == 100);
  ledger.join(shard, Side::insert);
  ledger.report(shard, 120, 130, 1);
  CHECK(ledger.inserted_total() == 120);
  CHECK(ledger.balance() == 120);
  CHECK(granted(ledger, shard) == 130);
}

TEST_CASE("ledger: a lease that a member still believes in counts when it comes back") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 20});
  ledger.join(other_shard, Side::insert);
  ledger.report(shard, 0, 10, 1);
  CHECK(granted(ledger, shard) == 10);
  ledger.leave(shard);
  ledger.join(shard, Side::insert);
  ledger.report(shard, 0, 0, 1, 10);
  ledger.report(other_shard, 0, 10, 0);
  CHECK(granted(ledger, other_shard) == 0);  // all of the room is out
}

TEST_CASE("ledger: a learner that restarts goes on with what the old one drew in the balance") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 20});
  ledger.report(learner, 0, 100, 0);
  CHECK(granted(ledger, learner) == 10);
  ledger.report(learner, 7, 100, 0);
  ledger.leave(learner);
  ledger.join(learner + 1, Side::draw);
  ledger.report(learner + 1, 0, 100, 0);
  CHECK(granted(ledger, learner + 1) == 3);
  CHECK(ledger.drawn_total() == 7);
}

TEST_CASE("ledger: a shard that restarts under a new incarnation counts from 0 on top of what the old one did") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 1000});
  ledger.report(shard, 50, 50, 1);
  ledger.leave(shard);
  ledger.join(other_shard, Side::insert);
  ledger.report(other_shard, 0, 0, 0);
  ledger.report(other_shard, 5, 5, 0);
  CHECK(ledger.inserted_total() == 55);
}

TEST_CASE("ledger: a forgotten member stays in the sums") {
  auto ledger = counting({.ratio = 2, .min_size = 1, .window = 1000});
  ledger.report(shard, 50, 50, 1);
  ledger.report(learner, 30, 30, 0);
  ledger.forget(shard);
  ledger.forget(learner);
  ledger.forget(learner);
  CHECK(ledger.balance() == 70);
  CHECK(ledger.granted(shard) == 0);
}

TEST_CASE("ledger: strangers are ignored") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 100});
  ledger.report(99, 50, 60, 70);
  ledger.leave(99);
  CHECK(ledger.inserted_total() == 0);
  CHECK(ledger.granted(99) == 0);
}

TEST_CASE("ledger: when released everybody gets what they want, before counting as well") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 2});
  ledger.report(shard, 0, 1000, 1);
  ledger.report(learner, 0, 1000, 0);
  CHECK(granted(ledger, shard) == 1);
  ledger.release();
  CHECK(granted(ledger, shard) == 1000);
  CHECK(granted(ledger, learner) == 1000);
  CHECK(ledger.waiting().empty());

  Ledger early({.ratio = 1, .min_size = 100, .window = 2});
  early.join(learner, Side::draw);
  early.report(learner, 0, 5, 0);
  early.release();
  CHECK(granted(early, learner) == 5);
}

TEST_CASE("ledger: counts near the largest do not overflow a grant") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 100});
  ledger.release();
  ledger.report(shard, 0, ~std::uint64_t{0}, 1);
  CHECK(granted(ledger, shard) > 0);
  CHECK(ledger.granted(shard) <= std::uint64_t{1} << 53);
}

TEST_CASE("ledger: waits explain themselves") {
  Ledger ledger({.ratio = 1, .min_size = 7, .window = 100});
  ledger.join(learner, Side::draw);
  CHECK(ledger.waiting().empty());
  ledger.report(learner, 0, 1, 0);
  CHECK(ledger.waiting() == "draws wait: 0 items are drawable, 7 wanted");
}

TEST_CASE("ledger: saved and loaded it goes on, for members that live on and for a new set") {
  auto ledger = counting({.ratio = 1.5, .min_size = 1, .window = 60});
  ledger.report(shard, 20, 50, 3);
  ledger.report(learner, 12, 20, 0);
  (void)ledger.grants();
  ledger.join(other_shard, Side::insert);
  ledger.report(other_shard, 4, 4, 0);
  ledger.leave(other_shard);

  auto lives_on = reloaded(ledger);
  CHECK(lives_on.counting());
  CHECK(lives_on.balance() == ledger.balance());
  CHECK(lives_on.inserted_total() == 24);
  CHECK(lives_on.drawn_total() == 12);
  lives_on.join(shard, Side::insert);
  lives_on.report(shard, 25, 25, 3, 40);
  CHECK(lives_on.inserted_total() == 29);  // 25 of the shard, 4 of the one that left

  auto fresh_set = reloaded(reloaded(ledger));
  fresh_set.join(77, Side::insert);
  fresh_set.report(77, 5, 5, 3);
  CHECK(fresh_set.inserted_total() == 29);
}

TEST_CASE("ledger: a saved ledger that is cut short or contradicts itself is refused") {
  auto ledger = counting({.ratio = 1, .min_size = 1, .window = 60});
  ledger.report(shard, 20, 20, 3);
  ByteWriter out;
  ledger.save(out);
  for (std::size_t size = 0; size < out.bytes().size(); ++size) {
    Ledger fresh(ledger.options());
    ByteReader in(out.bytes().first(size), "cut");
    CHECK_THROWS_AS(fresh.load(in), InputError);
  }
  ByteWriter wrong;
  for (const std::uint64_t value : {1, 0, 2}) wrong.put(value);  // 2 steps before counting, of 1 in all
  wrong.put(true);
  wrong.put(std::uint64_t{0});
  Ledger fresh(ledger.options());
  ByteReader in(wrong.bytes(), "wrong");
  CHECK_THROWS_AS(fresh.load(in), InputError);
}

namespace {

// Shards near the stop: each holds chunks that are inserted whole, and asks far ahead, as a shard does.
struct Stopping {
  static constexpr std::uint64_t stop = 5000;
  static constexpr std::uint64_t chunk = 50;
  static constexpr std::uint64_t ahead = 800;
  struct Inserting {
    std::uint64_t id;
    std::uint64_t used = 0;
    std::uint64_t next = 0;  // steps of the chunk at its front
  };

  Stopping() {
    for (auto& one : shards) {
      ledger.join(one.id, Side::insert);
      one.next = 1 + rng.below(chunk);
    }
  }
  // Applies what the lease covers, and says so. False: the shard must wait.
  bool turn(Inserting& one) {
    const bool fits = one.used + one.next <= ledger.granted(one.id);
    if (fits) {
      one.used += one.next;
      one.next = 1 + rng.below(chunk);
    }
    ledger.report(one.id, one.used, one.used + one.next + ahead, 1);
    (void)ledger.grants();
    return fits;
  }

  Rng rng{4};
  Ledger ledger{{.ratio = 0, .window = 1e9, .stop = stop, .chunk = chunk}};
  std::vector<Inserting> shards{{shard}, {other_shard}, {3}};
};

}  // namespace

TEST_CASE("ledger: inserts end at the stop, a chunk a shard further at most") {
  Stopping run;
  for (int idle = 0; idle < 10; ++idle) {
    for (auto& one : run.shards) {
      if (run.turn(one)) idle = 0;
    }
  }
  CHECK(run.ledger.inserted_total() >= Stopping::stop);
  CHECK(run.ledger.inserted_total() <= Stopping::stop + run.shards.size() * Stopping::chunk);
}

TEST_CASE("ledger: a shard that has credits and no use for them does not keep the others from the stop") {
  Stopping run;
  (void)run.turn(run.shards[0]);
  REQUIRE(run.ledger.granted(shard) > Stopping::chunk);
  for (int turns = 0; turns < 10'000 && run.ledger.inserted_total() < Stopping::stop; ++turns) {
    (void)run.turn(run.shards[1 + run.rng.below(2)]);
  }
  CHECK(run.ledger.inserted_total() >= Stopping::stop);
  CHECK(run.ledger.inserted_total() <= Stopping::stop + 2 * Stopping::chunk);
  CHECK(run.ledger.granted(shard) <= run.shards[0].used + Stopping::stop / (4 * run.shards.size()));
  const auto before = run.ledger.granted(other_shard);
  for (auto& one : run.shards) (void)run.turn(one);
  CHECK(run.ledger.granted(other_shard) == before);  // nobody gets any more
}

TEST_CASE("ledger: what could never be granted is told with the sum") {
  using control::never_granted;
  const LedgerOptions options{.ratio = 2, .window = 400, .batch = 32};
  CHECK(never_granted(options, 184).empty());
  CHECK(never_granted(options, 185).find("2 * 185 + 32 = 402 trained steps, and the ratio's window is 400") !=
        std::string::npos);
  CHECK(never_granted({.ratio = 0, .window = 400}, 1'000'000).empty());
  // The learner stops short of the window's end by less than a batch; what is allowed fits even then.
  auto ledger = counting(options);
  std::uint64_t drawn = 0;
  for (ledger.report(learner, 0, 320, 0); granted(ledger, learner) >= drawn + 32;) {
    drawn += 32;
    ledger.report(learner, drawn, drawn + 320, 0);
  }
  ledger.report(shard, 0, 184, 1);
  CHECK(granted(ledger, shard) == 184);
}
