// What goes wrong in an environment or in what it is handed: every case is an Error that says where.
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "envs/vector_env.h"
#include "qanat/env.hpp"
#include "tests/envs/plugin/countdown.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

// Fails as told by the action: 1 throws, 2 throws something odd, 3 gives a NaN reward, 4 a NaN observation.
class Faulty {
 public:
  static constexpr const char* id = "faulty";
  explicit Faulty(const env::Options& options)
      : reset_fails_(options.boolean("reset_fails", false)), ends_(options.boolean("ends", false)) {
    if (options.boolean("create_fails", false)) throw std::runtime_error("no such level");
  }
  env::Spec spec() const {
    return {.observations = {{.name = "x", .dtype = env::DType::f64, .shape = {2}}},
            .action = env::Action::discrete(5)};
  }
  void reset(env::Rng&) {
    if (reset_fails_) throw std::runtime_error("cannot start");
    x_ = 0;
  }
  env::Outcome step(std::int32_t action) {
    if (action == 1) throw std::runtime_error("the ball is gone");
    if (action == 2) throw 17;
    if (action == 4) x_ = std::numeric_limits<double>::infinity();
    return {.reward = action == 3 ? std::nanf("") : 0.0f, .terminated = ends_};
  }
  void observe(const env::Row& row) const {
    row.at<double>()[0] = 1;
    row.at<double>()[1] = x_;
  }

 private:
  bool reset_fails_;
  bool ends_;
  double x_ = 0;
};

// Rewards show what arrived.
class Knobs {
 public:
  static constexpr const char* id = "knobs";
  env::Spec spec() const {
    return {.observations = {{.name = "none", .dtype = env::DType::u8}}, .action = env::Action::multi_discrete({2, 3})};
  }
  void reset(env::Rng&) {}
  env::Outcome step(std::span<const std::int32_t> action) {
    return {.reward = static_cast<float>(10 * action[0] + action[1])};
  }
  void observe(const env::Row& row) const { row.at<std::uint8_t>()[0] = 0; }
};

class Steering {
 public:
  static constexpr const char* id = "steering";
  env::Spec spec() const {
    return {.observations = {{.name = "none", .dtype = env::DType::i64}}, .action = env::Action::box({-1, 0}, {1, 10})};
  }
  void reset(env::Rng&) {}
  env::Outcome step(std::span<const float> action) { return {.reward = action[0] + action[1]}; }
  void observe(const env::Row& row) const { row.at<std::int64_t>()[0] = 0; }
};

template <class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

VectorEnv faulty(const std::string& options = "") {
  return VectorEnv(env::table_of<Faulty>, {.id = "faulty", .options = options}, 3);
}

const std::vector<std::uint64_t> seeds = {7, 8, 9};
using Actions = std::vector<std::int32_t>;

}  // namespace

TEST_CASE("errors: an unknown environment is named with the nearest and the list") {
  const std::string message = message_of([] { static_cast<void>(make({.id = "cartpole-v0"}, 1)); });
  CHECK_THAT(message, Contains("unknown environment \"cartpole-v0\"") && Contains("nearest: CartPole-v1") &&
                          Contains("MinAtar/breakout") && Contains("catch-pixels"));
  CHECK_THROWS_AS(make({.id = ""}, 1), ConfigError);
  CHECK_THROWS_AS(make({.id = "catch"}, 0), ConfigError);
  CHECK_THROWS_AS(make({.id = "catch", .max_episode_steps = -1}, 1), ConfigError);
}

TEST_CASE("errors: options that are unknown, malformed or out of range are refused by name") {
  const auto refused = [](const char* id, const char* options) {
    return message_of([&] { static_cast<void>(make({.id = id, .options = options}, 2)); });
  };
  CHECK_THAT(refused("MinAtar/breakout", "stiky=0.1"), Contains("unknown option stiky") && Contains("sticky"));
  CHECK_THAT(refused("MinAtar/breakout", "sticky=1.5"), Contains("sticky=1.5"));
  CHECK_THAT(refused("MinAtar/breakout", "sticky=nan"), Contains("sticky=nan"));
  CHECK_THAT(refused("MinAtar/breakout", "sticky=0.1x"), Contains("sticky=0.1x"));
  CHECK_THAT(refused("MinAtar/breakout", "sticky=0.1,sticky=0.2"), Contains("twice"));
  CHECK_THAT(refused("MinAtar/breakout", "minimal_actions=maybe"), Contains("true or false"));
  CHECK_THAT(refused("MinAtar/breakout", "sticky"), Contains("key=value"));
  CHECK_THAT(refused("MinAtar/breakout", "sticky=0.1,"), Contains("key=value"));
  CHECK_THAT(refused("CartPole-v1", "gravity=1"), Contains("unknown option gravity") && Contains("has none"));
  CHECK_THAT(refused("witness", "episodes=random"), Contains("stochastic, scripted"));
  CHECK_THAT(refused("witness", "longest=0"), Contains("longest=0"));
  CHECK(refused("MinAtar/breakout", " sticky = 0.25 , minimal_actions = true ") == "no error");
}

TEST_CASE("errors: actions out of range are refused before any slot moves") {
  const auto env = make({.id = "CartPole-v1"}, 3);
  env->reset(seeds);
  env->step(Actions{0, 1, 0});
  const std::vector<std::byte> before(env->observation(0).begin(), env->observation(0).end());
  CHECK_THAT(message_of([&] {
               env->step(Actions{0, 2, 0});
             }),
             Contains("CartPole-v1") && Contains("slot 1") && Contains("step 2") && Contains("action 2") &&
                 Contains("0 to 1"));
  CHECK_THROWS_AS(env->step(Actions{0, 1, -1}), InputError);
  CHECK_THROWS_AS(env->step(Actions{0, 1}), InputError);
  CHECK_THROWS_AS(env->step(std::vector<float>{0, 1, 0}), InputError);
  CHECK(std::equal(before.begin(), before.end(), env->observation(0).begin()));
  env->step(Actions{0, 1, 0});  // and it goes on
}

TEST_CASE("errors: what an environment throws names environment, slot, seed, step and action") {
  VectorEnv env = faulty();
  env.reset(seeds);
  env.step(Actions{0, 0, 0});
  const std::string message = message_of([&] { env.step(Actions{0, 0, 1}); });
  CHECK_THAT(message, Contains("faulty") && Contains("slot 2") && Contains("seed 9") && Contains("step 2") &&
                          Contains("action 1") && Contains("the ball is gone"));
  // Only a reset helps.
  CHECK_THROWS_AS(env.step(Actions{0, 0, 0}), RunError);
  env.reset(seeds);
  env.step(Actions{0, 0, 0});
  CHECK_THAT(message_of([&] { env.step(Actions{0, 2, 0}); }), Contains("slot 1") && Contains("not a std::exception"));
}

TEST_CASE("errors: rewards and observations that are not finite stop at the source") {
  {
    VectorEnv env = faulty();
    env.reset(seeds);
    CHECK_THAT(message_of([&] {
                 env.step(Actions{0, 3, 0});
               }),
               Contains("slot 1") && Contains("reward is") && Contains("action 3"));
  }
  {
    VectorEnv env = faulty();
    env.reset(seeds);
    CHECK_THAT(message_of([&] {
                 env.step(Actions{0, 0, 4});
               }),
               Contains("slot 2") && Contains("observation x") && Contains("not finite"));
  }
  {
    VectorEnv env = faulty("ends=true");
    env.reset(seeds);
    CHECK_THAT(message_of([&] { env.step(Actions{4, 0, 0}); }), Contains("slot 0") && Contains("final observation x"));
  }
}

TEST_CASE("errors: a failing constructor is a configuration error, a failing reset names the slot") {
  CHECK_THROWS_AS(faulty("create_fails=true"), ConfigError);
  VectorEnv env = faulty("reset_fails=true");
  CHECK_THAT(message_of([&] { env.reset(seeds); }), Contains("slot 0") && Contains("cannot start"));
}

TEST_CASE("errors: calls in the wrong order or with wrong sizes") {
  const auto env = make({.id = "catch"}, 3);
  CHECK_THROWS_AS(env->step(Actions{1, 1, 1}), RunError);
  CHECK_THROWS_AS(env->snapshot(0), RunError);
  CHECK_THROWS_AS(env->reset(std::vector<std::uint64_t>{1, 2}), InputError);
  env->reset(seeds);
  CHECK_THROWS_AS(env->snapshot(3), InputError);
  CHECK_THROWS_AS(env->reset_slot(3, 1), InputError);
  VectorEnv plain = faulty();
  plain.reset(seeds);
  CHECK(!plain.spec().can_snapshot);
  CHECK_THROWS_AS(plain.snapshot(0), RunError);
  CHECK_THROWS_AS(plain.restore(0, {}), RunError);
}

TEST_CASE("actions: multi-discrete ones arrive in order and each number has its own range") {
  VectorEnv env(env::table_of<Knobs>, {.id = "knobs"}, 3);
  CHECK(env.spec().action.nvec == std::vector<std::int64_t>{2, 3});
  env.reset(seeds);
  env.step(Actions{1, 2, 0, 1, 1, 0});
  CHECK(std::vector<float>(env.rewards().begin(), env.rewards().end()) == std::vector<float>{12, 1, 10});
  CHECK_THAT(message_of([&] { env.step(Actions{1, 2, 2, 1, 1, 0}); }), Contains("slot 1") && Contains("number 0"));
  CHECK_THAT(message_of([&] { env.step(Actions{1, 2, 1, 1, 1, 3}); }), Contains("slot 2") && Contains("number 1"));
}

TEST_CASE("actions: box ones arrive in order, bounds are inclusive, NaN is out of range") {
  VectorEnv env(env::table_of<Steering>, {.id = "steering"}, 2);
  CHECK(env.spec().action.high == std::vector<float>{1, 10});
  env.reset(std::vector<std::uint64_t>{1, 2});
  env.step(std::vector<float>{-1, 10, 0.5f, 0.25f});
  CHECK(std::vector<float>(env.rewards().begin(), env.rewards().end()) == std::vector<float>{9, 0.75f});
  CHECK_THAT(message_of([&] {
               env.step(std::vector<float>{0, 0, 1.5f, 0});
             }),
             Contains("slot 1") && Contains("1.5") && Contains("number 0"));
  CHECK_THROWS_AS(env.step(std::vector<float>{0, std::nanf(""), 0, 0}), InputError);
  CHECK_THROWS_AS(env.step(Actions{0, 0, 0, 0}), InputError);
}

TEST_CASE("C interface: an environment in C99 works like any other") {
  VectorEnv env(countdown_table, {.id = "countdown"}, 2);
  CHECK(env.spec().observations[0].tensor == TensorSpec{"left", DType::i64, {}});
  env.reset(std::vector<std::uint64_t>{0, 1});
  std::vector<int> ends;
  for (int step = 1; step <= 12; ++step) {
    env.step(Actions{0, 0});
    ends.push_back(env.terminated()[0] + 2 * env.terminated()[1]);
  }
  CHECK(ends == std::vector<int>{0, 0, 1, 2, 0, 1, 0, 2, 1, 0, 0, 3});
  CHECK(env.episode_returns()[1] == 6);  // 3 + 2 + 1 + 0
  CHECK_THAT(message_of([] { VectorEnv(countdown_table, {.id = "countdown", .options = "a=1"}, 2); }),
             Contains("countdown") && Contains("no options are known"));
}

TEST_CASE("C interface: tables of another version or without a function are refused") {
  qanat_env_table table = countdown_table;
  const auto refused = [&] { return message_of([&] { VectorEnv(table, {.id = "countdown"}, 1); }); };
  table.abi_version = 2;
  CHECK_THAT(refused(), Contains("version 2") && Contains("this program has 1"));
  table = countdown_table;
  table.struct_size = 40;
  CHECK_THAT(refused(), Contains("40 bytes"));
  table = countdown_table;
  table.step = nullptr;
  CHECK_THAT(refused(), Contains("countdown") && Contains("step is missing"));
  table = countdown_table;
  table.id = nullptr;
  CHECK_THAT(refused(), Contains("no id"));
}

namespace {

qanat_env_tensor hostile_tensor;
qanat_env_spec hostile_spec;

// countdown with another spec: what a broken plug-in might claim.
std::string refused_spec() {
  qanat_env_table table = countdown_table;
  table.spec = [](const qanat_env*) -> const qanat_env_spec* { return &hostile_spec; };
  return message_of([&] { VectorEnv(table, {.id = "countdown"}, 1); });
}

void sound_spec() {
  hostile_tensor = {"left", QANAT_ENV_I64, 0, nullptr, 0, 6};
  hostile_spec = {};
  hostile_spec.struct_size = sizeof hostile_spec;
  hostile_spec.observation_count = 1;
  hostile_spec.tensor_size = sizeof hostile_tensor;
  hostile_spec.observations = &hostile_tensor;
  hostile_spec.action_n = 2;
}

}  // namespace

TEST_CASE("C interface: broken specs are refused with the field") {
  sound_spec();
  CHECK(refused_spec() == "no error");
  const auto broken = [](auto&& change) {
    sound_spec();
    change();
    return refused_spec();
  };
  static const std::int64_t huge[] = {std::int64_t{1} << 40, std::int64_t{1} << 40};
  static const std::int64_t zero[] = {0};
  static const float same[] = {1};
  CHECK_THAT(broken([] { hostile_spec.struct_size = 8; }), Contains("too small"));
  CHECK_THAT(broken([] { hostile_spec.observation_count = 9; }), Contains("9 observations"));
  CHECK_THAT(broken([] { hostile_spec.observation_count = 0; }), Contains("0 observations"));
  CHECK_THAT(broken([] { hostile_tensor.name = nullptr; }), Contains("has no name"));
  CHECK_THAT(broken([] { hostile_tensor.dtype = 9; }), Contains("dtype number 9"));
  CHECK_THAT(broken([] { hostile_tensor.rank = 1; }), Contains("rank 1"));
  CHECK_THAT(broken([] {
               hostile_tensor.rank = 2;
               hostile_tensor.shape = huge;
             }),
             Contains("extent"));
  CHECK_THAT(broken([] {
               hostile_tensor.rank = 1;
               hostile_tensor.shape = zero;
             }),
             Contains("extent 0"));
  CHECK_THAT(broken([] { hostile_tensor.low = std::nan(""); }), Contains("bounds"));
  CHECK_THAT(broken([] { hostile_spec.action_kind = 3; }), Contains("action kind 3"));
  CHECK_THAT(broken([] { hostile_spec.action_n = 0; }), Contains("number of actions 0"));
  CHECK_THAT(broken([] {
               hostile_spec.action_kind = QANAT_ENV_MULTI_DISCRETE;
               hostile_spec.action_dims = 2;
             }),
             Contains("action_nvec is missing"));
  CHECK_THAT(broken([] {
               hostile_spec.action_kind = QANAT_ENV_BOX;
               hostile_spec.action_dims = 1;
               hostile_spec.action_low = hostile_spec.action_high = same;
             }),
             Contains("action bounds"));
  CHECK_THAT(broken([] { hostile_spec.max_episode_steps = -1; }), Contains("max_episode_steps"));
  CHECK_THAT(broken([] { hostile_spec.metric_count = 1; }), Contains("1 metrics"));
}

TEST_CASE("random.hpp: the same sequence as the core's generator") {
  Rng ours(123);
  env::Rng theirs(123);
  for (int i = 0; i < 1000; ++i) {
    REQUIRE(ours.next() == theirs.next());
    REQUIRE(ours.below(1000) == theirs.below(1000));
    REQUIRE(ours.uniform() == theirs.uniform());
    REQUIRE(ours.normal() == theirs.normal());
  }
  CHECK(ours.state() == theirs.state());
}
