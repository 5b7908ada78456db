// Atari through ale-py's vector environment, and the traps of its version 0.12. Needs a Python with ale-py.
#include <algorithm>
#include <cstring>
#include <map>

#include "core/error.h"
#include "tests/envs/hosted_python.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

EnvConfig game(const std::string& name, const std::string& preset, const std::string& kwargs = "") {
  EnvConfig config;
  config.gymnasium = "ALE/" + name + "-v5";
  config.python = test_python();
  config.atari.preset = preset;
  config.kwargs = kwargs;
  return config;
}

std::vector<std::byte> row(const VectorEnv& env, std::span<const std::byte> rows, std::size_t slot) {
  const auto bytes = env.spec().observations[0].tensor.bytes();
  return {rows.begin() + std::ptrdiff_t(slot * bytes), rows.begin() + std::ptrdiff_t((slot + 1) * bytes)};
}

bool has_ale() {
  if (test_python() == nullptr) return false;
  const std::string command = std::string(test_python()) + " -c 'import ale_py' 2>/dev/null";
  if (std::system(command.c_str()) == 0) return true;
  WARN("skipped: QANAT_TEST_PYTHON has no ale-py");
  return false;
}

constexpr std::int32_t fire = 1;
const std::vector<std::uint64_t> seeds = {11, 12};

}  // namespace

TEST_CASE("atari: every field of every preset is set, told, and as its paper has it") {
  if (!has_ale()) return;
  struct Wanted {
    std::string preset, frameskip, sticky, noops, life_loss, frames, frames_in_evaluation, fire;
    std::int64_t actions;  // of Pong
  };
  const std::vector<Wanted> all = {
      {"v5", "4", "0.25", "0", "False", "108000", "108000", "False", 6},
      {"dqn2015", "4", "0.0", "30", "True", "108000", "18000", "False", 6},
      {"machado2018", "5", "0.25", "0", "False", "18000", "18000", "False", 18},
      {"apex", "4", "0.0", "30", "True", "50000", "108000", "False", 6},
      {"btr", "4", "0.25", "30", "False", "108000", "108000", "False", 6},
      {"pqn", "4", "0.0", "30", "True", "108000", "108000", "True", 6},
      {"atari100k", "4", "0.0", "30", "True", "108000", "108000", "False", 6},
  };
  for (const auto& wanted : all) {
    INFO(wanted.preset);
    const auto env = make(game("Pong", wanted.preset), 1);
    const std::map<std::string, std::string> told(env->protocol().begin(), env->protocol().end());
    CHECK(told.at("preset") == wanted.preset);
    CHECK(told.at("game") == "pong");
    CHECK(told.at("frameskip") == wanted.frameskip);
    CHECK(told.at("repeat_action_probability") == wanted.sticky);
    CHECK(told.at("noop_max") == wanted.noops);
    CHECK(told.at("life_loss_ends_episode") == wanted.life_loss);
    CHECK(told.at("max_num_frames_per_episode") == wanted.frames);
    CHECK(told.at("maxpool") == "True");
    CHECK(told.at("reward_clipping") == "False");
    CHECK(told.at("use_fire_reset") == wanted.fire);
    CHECK(env->spec().action.n == wanted.actions);
    CHECK(env->spec().observations[0].tensor.shape == std::vector<std::int64_t>{1, 84, 84});
    CHECK(env->spec().observations[0].tensor.dtype == DType::u8);
    CHECK(env->spec().observations[0].high == 255);
    auto evaluation = game("Pong", wanted.preset);
    evaluation.evaluation = true;
    const auto evaluate = make(evaluation, 1);
    const std::map<std::string, std::string> there(evaluate->protocol().begin(), evaluate->protocol().end());
    CHECK(there.at("max_num_frames_per_episode") == wanted.frames_in_evaluation);
    CHECK(there.at("life_loss_ends_episode") == "False");
    CHECK(there.at("use_fire_reset") == wanted.fire);
  }
}

TEST_CASE("atari: FIRE is pressed where the protocol has it, at the start of a game and not of a life") {
  if (!has_ale()) return;
  // Without FIRE there is no ball in Breakout, and so no life to lose.
  const auto lives_lost = [](const std::string& preset) {
    const auto env = make(game("Breakout", preset, R"({"noop_max": 0})"), 1);
    env->reset(std::span(seeds).first(1));
    const std::vector<std::int32_t> nothing = {0};
    int lost = 0;
    for (int i = 0; i < 500; ++i) {
      env->step(nothing);
      lost += env->terminated()[0];
    }
    return lost;
  };
  CHECK(lives_lost("pqn") == 1);
  CHECK(lives_lost("dqn2015") == 0);
}

TEST_CASE("atari: a lost life ends an episode, not the game; evaluation plays the whole game") {
  if (!has_ale()) return;
  const std::string still = R"({"noop_max": 0})";
  const auto train = make(game("Breakout", "dqn2015", still), 2);
  auto config = game("Breakout", "dqn2015", still);
  config.evaluation = true;
  const auto evaluate = make(config, 2);
  train->reset(seeds);
  evaluate->reset(seeds);
  const std::vector<std::int32_t> actions(2, fire);
  int lives_lost = 0;
  std::int64_t steps_of_lives = 0;
  double return_of_lives = 0;
  while (true) {
    train->step(actions);
    evaluate->step(actions);
    REQUIRE(steps_of_lives < 2000);
    // The same game on both sides, life for life.
    REQUIRE(row(*train, train->observation(0), 0) == row(*evaluate, evaluate->observation(0), 0));
    if (train->terminated()[0] == 0) {
      REQUIRE(evaluate->terminated()[0] == 0);
      continue;
    }
    ++lives_lost;
    steps_of_lives += train->episode_lengths()[0];
    return_of_lives += train->episode_returns()[0];
    const bool goes_on = row(*train, train->observation(0), 0) == row(*train, train->final_observation(0), 0);
    CHECK(goes_on == (lives_lost < 5));
    CHECK((evaluate->terminated()[0] != 0) == (lives_lost == 5));
    if (lives_lost == 5) break;
  }
  CHECK(evaluate->episode_lengths()[0] == steps_of_lives);
  CHECK(evaluate->episode_returns()[0] == return_of_lives);
}

TEST_CASE("atari: rewards are raw") {
  if (!has_ale()) return;
  const auto env = make(game("MsPacman", "v5"), 1);
  env->reset(std::span(seeds).first(1));
  const std::vector<std::int32_t> left = {3};
  float most = 0;
  for (int i = 0; i < 120; ++i) {
    env->step(left);
    most = std::max(most, env->rewards()[0]);
  }
  CHECK(most >= 10);  // a pellet
}

TEST_CASE("atari: the step limit counts env steps, not frames") {
  if (!has_ale()) return;
  auto config = game("Pong", "machado2018");
  config.max_episode_steps = 7;
  const auto env = make(config, 2);
  CHECK(env->spec().max_episode_steps == 7);
  env->reset(seeds);
  const std::vector<std::int32_t> actions(2, 0);
  for (int i = 1; i <= 21; ++i) {
    env->step(actions);
    CHECK(env->truncated()[0] == (i % 7 == 0));
    CHECK(env->terminated()[0] == 0);
    if (i % 7 == 0) CHECK(env->episode_lengths()[1] == 7);
  }
}

TEST_CASE("atari: a seed repeats a game, for one slot too, and slots are independent") {
  if (!has_ale()) return;
  const auto a = make(game("Breakout", "btr"), 2);
  const auto b = make(game("Breakout", "btr"), 2);
  const std::vector<std::uint64_t> others = {1, 2};
  a->reset(seeds);
  b->reset(others);
  const auto step = [](VectorEnv& env, int i) {
    const std::vector<std::int32_t> actions = {i % 4, i % 4};
    env.step(actions);
  };
  for (int i = 0; i < 20; ++i) step(*b, 3 * i);
  b->reset_slot(0, seeds[0]);
  b->reset_slot(1, seeds[1]);
  bool differ = false;
  for (int i = 0; i < 200; ++i) {
    step(*a, i);
    step(*b, i);
    for (std::size_t s = 0; s < 2; ++s) {
      REQUIRE(row(*a, a->observation(0), s) == row(*b, b->observation(0), s));
    }
    differ |= row(*a, a->observation(0), 0) != row(*a, a->observation(0), 1);
  }
  CHECK(differ);  // sticky actions and no-ops are drawn by each slot's own seed
}

TEST_CASE("atari: actions out of range never reach ale-py, where they would block it for ever") {
  if (!has_ale()) return;
  const auto env = make(game("Pong", "v5"), 1);
  env->reset(std::span(seeds).first(1));
  const std::vector<std::int32_t> outside = {6};
  CHECK_THROWS_WITH(env->step(outside), Contains("action 6 is out of range"));
  const std::vector<std::int32_t> inside = {5};
  env->step(inside);
}

TEST_CASE("atari: single fields of a preset are changed by kwargs, unknown ones and wrong kinds refused") {
  if (!has_ale()) return;
  const auto told = make(game("Pong", "pqn", R"({"noop_max": 3, "repeat_action_probability": 1})"), 1)->protocol();
  const std::map<std::string, std::string> fields(told.begin(), told.end());
  CHECK(fields.at("noop_max") == "3");
  CHECK(fields.at("repeat_action_probability") == "1");
  const auto refused = [](const EnvConfig& config, const std::string& why) {
    CHECK_THROWS_WITH(make(config, 1), Contains(why));
  };
  refused(game("Pong", "pqn", R"({"noop": 3})"), "'noop', which is no field of an Atari protocol");
  refused(game("Pong", "pqn", R"({"noop_max": "3"})"), "noop_max is '3', wanted int");
  refused(game("Pong", "pqn", R"({"img_height": 0})"), "img_height is 0, wanted 1 to 1024");
  refused(game("Pong", "pqn", R"({"repeat_action_probability": 2})"),
          "repeat_action_probability is 2, wanted 0.0 to 1.0");
  refused(game("Pong", "pqn", R"({"grayscale": false})"), "'grayscale'");
  refused(game("Pog", "pqn"), "Pog");
}
