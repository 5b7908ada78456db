// Running normalisation through whole runs: it repeats and resumes bit for bit, and it is what makes a badly scaled
// environment learnable.
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/lockstep.h"
#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"
#include "learner/checkpoint.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"

namespace qanat::system_test {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t half = 60;
constexpr std::int64_t batch = 16;

class Runs {
 public:
  // The configuration of all runs; `settings` are lines of YAML.
  explicit Runs(const std::string& settings) { std::ofstream(file()) << settings; }

  // Trains in lockstep to so many updates and returns the run's directory.
  fs::path train(const std::string& name, std::uint64_t updates, bool resume = false,
                 std::vector<std::string> overrides = {}) const {
    cli::TrainOptions options;
    options.config = file().string();
    options.runs_dir = (directory_ / "runs").string();
    options.name = name;
    options.lockstep = true;
    options.resume = resume;
    if (!resume) options.seed = 5;
    options.overrides = std::move(overrides);
    options.overrides.push_back(text("stop.updates=", updates));
    const auto run = cli::open_run(options);
    REQUIRE(cli::train_lockstep(options, run) == 0);
    return run.path;
  }
  [[nodiscard]] static fs::path checkpoint(const fs::path& run) {
    return *learner::newest_checkpoint(run / "checkpoints");
  }

 private:
  [[nodiscard]] fs::path file() const { return directory_ / "config.yaml"; }
  test::TemporaryDirectory directory_;
};

// All that the learner knows at a checkpoint: networks, optimiser, random numbers, statistics.
std::uint64_t state_of(const fs::path& run) { return checksum(read_file(Runs::checkpoint(run) / "learner.bin")); }

// What the run has gathered. The environment has four numbers.
nn::Normalization statistics_of(const fs::path& run) {
  nn::Normalization out({.observations = true, .rewards = true}, {"state", DType::f32, {4}});
  const auto file = Runs::checkpoint(run) / "learner.bin";
  out.load(learner::load_learner(file).statistics, file.string());
  return out;
}

std::string small_run() {
  return text("env: {id: CartPole-v1}\nnetwork: {hidden: [16]}\n",
              "agent: {stack: 2, normalize_observations: true, normalize_rewards: true}\n",
              "replay: {capacity_steps: 2000, min_size: 200, ratio: 1}\nactors: {count: 2, slots: 4, chunk_steps: 8}\n",
              "learner: {batch: ", batch, ", target_update_every: 20, publish_every: 10}\n",
              "evaluation: {final_episodes: 2}\ncheckpoint: {every_updates: ", half, "}\n");
}

std::string learnable(bool normalize) {
  const auto* word = normalize ? "true" : "false";
  return text("env: {id: scaled-CartPole, plugin: ", QANAT_TEST_SCALED_CARTPOLE, "}\n",
              "network: {hidden: [32, 32]}\nagent: {normalize_observations: ", word, ", normalize_rewards: ", word,
              "}\n", "replay: {capacity_steps: 50000, min_size: 500, ratio: 2}\n",
              "actors: {count: 2, slots: 8, chunk_steps: 8}\n",
              "learner: {batch: 32, target_update_every: 50, publish_every: 10, optimizer: {learning_rate: 2e-3}}\n",
              "evaluation: {final_episodes: 20}\n");
}

double final_score(const fs::path& run) {
  return nlohmann::json::parse(read_text_file(run / "summary.json", 1 << 20)).at("evaluation").at("mean");
}

}  // namespace

TEST_CASE("normalisation: lockstep runs repeat and resume bit for bit with the statistics, which count every draw",
          "[normalization]") {
  const Runs runs(small_run());
  const auto straight = runs.train("straight", 2 * half);
  CHECK(state_of(runs.train("again", 2 * half)) == state_of(straight));
  const auto halves = runs.train("halves", half);
  const auto at_half = statistics_of(halves).save();
  CHECK(state_of(halves) != state_of(straight));
  CHECK(state_of(runs.train("halves", 2 * half, true)) == state_of(straight));

  // Both runs above were built anew at half. That nothing was lost there shows in what was counted.
  const auto statistics = statistics_of(straight);
  CHECK(statistics.observation_moments().count() == 2 * half * batch);
  CHECK(statistics.return_moments().count() == 2 * half * batch);
  CHECK(statistics.save() != at_half);
  // CartPole pays 1 a step: G is 1 at least, and far from constant.
  CHECK(statistics.return_moments().mean(0) > 1);
  CHECK(statistics.return_moments().variance(0) > 1);
}

TEST_CASE("normalisation: what a run began with is wanted to its end", "[normalization]") {
  const Runs runs(small_run());
  runs.train("run", half);
  const auto resumed_with = [&](const std::string& setting) {
    return message_of([&] { runs.train("run", 2 * half, true, {setting}); });
  };
  CHECK_THAT(resumed_with("agent.normalize_observations=false"),
             Catch::Matchers::Contains("weights.bin: it was trained on normalised observations, but "
                                       "agent.normalize_observations is false"));
  CHECK_THAT(resumed_with("agent.normalize_rewards=false"), Catch::Matchers::Contains("agent.normalize_rewards"));
  const auto wanted = message_of([&] { runs.train("pixels", half, false, {"env.id=MinAtar/breakout"}); });
  CHECK_THAT(wanted, Catch::Matchers::Contains("agent.normalize_observations is true and the network reads"));
  const auto both = message_of([&] { runs.train("both", half, false, {"agent.reward_clip=1"}); });
  CHECK_THAT(both, Catch::Matchers::Contains("agent.reward_clip is 1, wanted 0 where agent.normalize_rewards is true"));
}

// Place and speed are in thousands, the angle that matters in ten-thousandths. With the statistics the pole stays up
// for 159 to 500 steps (seeds 5 to 10); without them the same run stays at 14 to 36, where chance makes some twenty.
TEST_CASE("normalisation: CartPole in units apart by a million is learned with it, and not without",
          "[normalization]") {
  constexpr std::uint64_t updates = 3000;
  const Runs with(learnable(true));
  const Runs without(learnable(false));
  const auto learned = final_score(with.train("run", updates));
  const auto raw = final_score(without.train("run", updates));
  INFO("mean return " << learned << " with normalisation, " << raw << " without");
  CHECK(learned > 100);
  CHECK(raw < 60);
}

}  // namespace qanat::system_test
