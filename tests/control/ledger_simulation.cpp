// The ledger among shards and a learner whose messages are late, lost, repeated and overtake each other.
#include <algorithm>
#include <deque>
#include <limits>
#include <utility>
#include <vector>

#include "control/ledger.h"
#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using control::Ledger;

namespace {

struct Setting {
  std::uint64_t seed;
  double ratio;
  std::uint64_t shards;
  std::uint64_t streams;  // over all shards
  std::uint64_t chunk;
  std::uint64_t batch;
  std::uint64_t prefetch;
};

// A shard applies whole chunks, a learner trains whole batches; both know only the newest grant that reached them.
struct Peer {
  std::uint64_t id;
  bool learner;
  std::uint64_t piece;    // steps used at once
  std::uint64_t streams;  // chunks (or batches) that may wait at once
  std::uint64_t used = 0;
  std::uint64_t known_grant = 0;
  std::uint64_t waiting = 0;  // pieces at hand
};

struct Report {
  std::uint64_t member, used, wanted, drawable, known_grant;
};
struct Letter {
  int arrives;
  bool to_ledger;
  Report report;  // to a member: its `known_grant` is the grant
};

class Simulation {
 public:
  explicit Simulation(const Setting& setting)
      : setting_(setting),
        rng_(setting.seed),
        window_(std::max(2 * std::max(1.0, setting.ratio),
                         static_cast<double>(setting.batch * setting.prefetch) +
                             setting.ratio * static_cast<double>(setting.chunk * setting.streams))),
        ledger_({.ratio = setting.ratio, .min_size = 200, .window = window_}) {
    for (std::uint64_t i = 0; i < setting.shards; ++i) {
      const auto streams = setting.streams / setting.shards + (i < setting.streams % setting.shards);
      peers_.push_back({i + 1, false, setting.chunk, streams});
      ledger_.join(i + 1, Ledger::Side::insert);
    }
    peers_.push_back({1000, true, setting.batch, setting.prefetch});
    ledger_.join(1000, Ledger::Side::draw);
  }

  // Until `steps` were inserted after counting began, and as much drawn as that asks for. False: nothing moved for
  // very long, a deadlock.
  bool run(std::uint64_t steps) {
    int last_move = 0;
    for (now_ = 0; now_ - last_move < 5000; ++now_) {
      deliver();
      for (auto& peer : peers_) {
        if (work(peer)) last_move = now_;
        if (now_ % 20 == static_cast<int>(peer.id % 20)) say(peer);
      }
      for (const auto& grant : ledger_.grants()) send_grant(grant.member);
      if (ledger_.counting() && truly_inserted() - free_ >= steps) return true;
    }
    return false;
  }

  [[nodiscard]] double true_balance() const {
    return setting_.ratio * static_cast<double>(truly_inserted() - free_) - static_cast<double>(peers_.back().used);
  }
  [[nodiscard]] double true_ratio() const {
    return static_cast<double>(peers_.back().used) / static_cast<double>(truly_inserted() - free_);
  }
  [[nodiscard]] double window() const { return window_; }
  [[nodiscard]] double highest() const { return highest_; }
  [[nodiscard]] double lowest() const { return lowest_; }
  [[nodiscard]] double leased_at_start() const { return leased_at_start_; }

 private:
  [[nodiscard]] std::uint64_t truly_inserted() const {
    std::uint64_t sum = 0;
    for (const auto& peer : peers_) sum += peer.learner ? 0 : peer.used;
    return sum;
  }

  bool work(Peer& peer) {
    // New pieces come in bursts; every stream has at most one waiting.
    while (peer.waiting < peer.streams && rng_.chance(peer.learner ? 0.9 : 0.5)) ++peer.waiting;
    bool moved = false;
    while (peer.waiting > 0 && peer.known_grant - peer.used >= peer.piece && rng_.chance(0.7)) {
      peer.used += peer.piece;
      --peer.waiting;
      moved = true;
      if (rng_.chance(0.5)) say(peer);
    }
    if (ledger_.counting()) {
      highest_ = std::max(highest_, true_balance());
      lowest_ = std::min(lowest_, true_balance());
    }
    return moved;
  }

  void say(const Peer& peer) {
    const auto wanted = peer.used + (peer.learner ? peer.streams : peer.waiting) * peer.piece;
    post({0, true, {peer.id, peer.used, wanted, peer.learner ? 0 : peer.used, peer.known_grant}});
  }

  void send_grant(std::uint64_t member) { post({0, false, {member, 0, 0, 0, ledger_.granted(member)}}); }

  void post(Letter letter) {
    if (rng_.chance(0.1)) return;  // lost
    for (int copies = rng_.chance(0.1) ? 2 : 1; copies > 0; --copies) {
      letter.arrives = now_ + 1 + static_cast<int>(rng_.below(30));
      letters_.push_back(letter);
    }
  }

  void deliver() {
    const auto under_way = std::exchange(letters_, {});  // what arrives may be answered, which adds letters
    for (const auto& letter : under_way) {
      if (letter.arrives > now_) {
        letters_.push_back(letter);
      } else if (letter.to_ledger) {
        take(letter.report);
      } else {
        auto& peer =
            *std::find_if(peers_.begin(), peers_.end(), [&](const Peer& p) { return p.id == letter.report.member; });
        peer.known_grant = std::max(peer.known_grant, letter.report.known_grant);
      }
    }
  }

  // As the head does.
  void take(const Report& report) {
    const bool before = ledger_.counting();
    ledger_.report(report.member, report.used, report.wanted, report.drawable, report.known_grant);
    if (!before && ledger_.counting()) {
      // What shards did that the ledger does not know yet, and may still do with their leases, counts from now on.
      free_ = ledger_.inserted_total();
      std::uint64_t leased = 0;
      for (const auto& peer : peers_) leased += peer.learner ? 0 : ledger_.granted(peer.id);
      leased_at_start_ = setting_.ratio * static_cast<double>(leased - free_);
    }
    if (ledger_.granted(report.member) > report.known_grant) send_grant(report.member);
  }

  Setting setting_;
  Rng rng_;
  double window_;
  Ledger ledger_;
  std::vector<Peer> peers_;
  std::deque<Letter> letters_;
  int now_ = 0;
  std::uint64_t free_ = 0;
  double highest_ = -std::numeric_limits<double>::infinity();
  double lowest_ = std::numeric_limits<double>::infinity();
  double leased_at_start_ = 0;
};

}  // namespace

TEST_CASE("ledger: no deadlock in the narrowest allowed window, the balance stays inside, the ratio is met") {
  std::uint64_t seed = 100;
  for (const double ratio : {0.1, 1.0, 1.5, 8.0}) {
    for (const std::uint64_t shards : {1, 5}) {
      for (const std::uint64_t chunk : {1, 16}) {
        for (const std::uint64_t batch : {1, 32}) {
          const Setting setting{++seed, ratio, shards, shards + 2, chunk, batch, 2};
          INFO("seed " << seed << ", ratio " << ratio << ", shards " << shards << ", chunk " << chunk << ", batch "
                       << batch);
          Simulation simulation(setting);
          // Enough that half the window is 1 % of what is drawn.
          const auto steps = static_cast<std::uint64_t>(50 * simulation.window() / ratio) + 1000;
          REQUIRE(simulation.run(steps));
          // A lease from before counting may step over the upper edge, and nothing else may. The slack of 1e-3 is
          // the millionth of a step that a grant forgives, and rounding.
          const double top = std::max(simulation.window() / 2, simulation.leased_at_start());
          CHECK(simulation.highest() <= top + 1e-3);
          CHECK(simulation.lowest() >= -simulation.window() / 2 - 1e-3);
          CHECK(simulation.true_ratio() == Approx(ratio).epsilon(0.02));
        }
      }
    }
  }
}
