// The replay ratio from both sides: whoever is ahead waits, the head says why, and the ratio comes out.
#include <memory>
#include <string>
#include <vector>

#include "cli/roles.h"
#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

namespace qanat::system_test {
namespace {

constexpr double ratio = 2;

cli::RunConfig small_config() {
  cli::RunConfig config;
  config.seed = 9;
  config.env.id = "CartPole-v1";
  config.network.hidden = {8};
  config.agent.n_step = 3;
  config.replay.shards = 2;
  config.replay.capacity_steps = 4000;
  config.replay.min_size = 200;
  config.replay.ratio = ratio;
  config.actors.count = 2;
  config.actors.slots = 4;
  config.actors.chunk_steps = 4;
  config.learner.batch = 16;
  config.checkpoint.every_seconds = 0;
  return config;
}

// All roles in turn on a clock of their own. A role that is slowed is stepped once in many rounds.
class Race {
 public:
  Race() : log_({.who = "head-0", .path = directory_ / "head.log", .to_stderr = false}) {
    auto head = cli::head_options(config_, directory_.path().string());
    head.bind = {"inproc://head"};
    head_ = std::make_unique<control::Head>(context_, clock_, log_, head, nullptr);
    for (std::int64_t i = 0; i < 2; ++i) {
      shards_.push_back(cli::make_replay(parts(wire::Role::replay, i)));
      actors_.push_back(cli::make_actor(parts(wire::Role::actor, i)));
    }
    learner_ = cli::make_learner(parts(wire::Role::learner, 0), "");
  }

  // Until so many env steps are in. Every `..._every` rounds of 1 ms the role has its turn.
  void run(std::uint64_t env_steps, int actors_every, int learner_every) {
    for (int round = 0; head_->status().env_steps < env_steps; ++round) {
      REQUIRE(round < 2'000'000);
      clock_.advance(Milliseconds(1));
      head_->step();
      for (auto& shard : shards_) {
        shard->step();
        held_ += !shard->quiet();
      }
      for (auto& actor : actors_) {
        if (round % actors_every == 0) actor->step();
      }
      if (round % learner_every == 0) learner_->step();
      const auto& ledger = head_->ledger();
      if (!ledger.counting()) continue;
      lowest_ = std::min(lowest_, ledger.balance());
      highest_ = std::max(highest_, ledger.balance());
    }
  }

  [[nodiscard]] const control::Ledger& ledger() const { return head_->ledger(); }
  [[nodiscard]] std::uint64_t updates() const { return learner_->updates(); }
  [[nodiscard]] std::uint64_t held() const { return held_; }  // rounds times shards in which an insert was held
  [[nodiscard]] double lowest() const { return lowest_; }
  [[nodiscard]] double highest() const { return highest_; }
  [[nodiscard]] bool said(const std::string& words) const {
    return read_text_file(directory_ / "head.log").find(words) != std::string::npos;
  }
  [[nodiscard]] double batch() const { return static_cast<double>(config_.learner.batch); }

 private:
  cli::Parts parts(wire::Role role, std::int64_t index) {
    control::MemberOptions member;
    member.role = role;
    member.index = index;
    member.incarnation = static_cast<std::uint64_t>(100 * (1 + static_cast<int>(role)) + index);
    member.head = {"inproc://head"};
    return {context_, clock_, log_, config_, member, {text("inproc://", wire::name_of(role), '-', index)}};
  }

  test::TemporaryDirectory directory_;
  cli::RunConfig config_ = small_config();
  Logger log_;
  VirtualClock clock_;
  wire::Context context_{0};
  std::unique_ptr<control::Head> head_;
  std::vector<std::unique_ptr<replay::ShardServer>> shards_;
  std::vector<std::unique_ptr<actors::Actor>> actors_;
  std::unique_ptr<learner::Learner> learner_;
  std::uint64_t held_ = 0;
  double lowest_ = 0, highest_ = 0;
};

// Counted once a batch is handed to the learner, so what the learner has trained on is what the ledger says.
void check_ratio(const Race& race) {
  const auto& ledger = race.ledger();
  INFO("inserted " << ledger.inserted_total() << ", drawn " << ledger.drawn_total() << ", balance " << race.lowest()
                   << " to " << race.highest());
  CHECK(ledger.actual_ratio() == Approx(ratio).epsilon(0.02));
  CHECK(static_cast<double>(ledger.drawn_total()) ==
        Approx(static_cast<double>(race.updates()) * race.batch()).margin(64));
  // Leases given before counting began, a chunk a stream, may stand beside the window.
  const auto beside = ratio * 2 * 4 * 4 * 4;
  CHECK(race.lowest() >= -ledger.options().window / 2);
  CHECK(race.highest() <= ledger.options().window / 2 + beside);
}

}  // namespace

TEST_CASE("ratio: with a slowed learner inserts are held, the log says why, and the ratio comes out", "[ratio]") {
  Race race;
  race.run(20'000, 1, 40);
  CHECK(race.said("inserts are held, the learner is behind: ratio 2 * inserted "));
  CHECK_FALSE(race.said("the actors are behind"));
  CHECK(race.held() > 1000);
  check_ratio(race);
}

TEST_CASE("ratio: with slowed actors draws wait, the log says why, and the ratio comes out", "[ratio]") {
  Race race;
  race.run(20'000, 30, 1);
  CHECK(race.said("draws wait: "));  // first for min_size, then for the actors
  CHECK(race.said("draws wait, the actors are behind: ratio 2 * inserted "));
  CHECK_FALSE(race.said("the learner is behind"));
  check_ratio(race);
}

}  // namespace qanat::system_test
