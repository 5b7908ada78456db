// The program's side of the host protocol against a child that breaks it (tests/envs/host/hostile.py), and environments
// of a C table in a process of their own.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "envs/host/hosted_env.h"
#include "envs/host/protocol.h"
#include "tests/envs/hosted_python.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

host::HostOptions hostile(const std::string& way) {
  host::HostOptions options;
  options.id = "hostile";
  options.arguments = {"python3", QANAT_TEST_FOLDER "/host/hostile.py", way};
  options.request = {{"slots", "2"}};
  options.slots = 2;
  options.start_limit = options.step_limit = options.reset_limit = Seconds(5);
  options.first_pause = Seconds(0.001);
  return options;
}

std::unique_ptr<VectorEnv> open(const std::string& way) {
  auto env = std::make_unique<VectorEnv>(host::create_hosted(hostile(way)), 2);
  const std::vector<std::uint64_t> seeds = {3, 4};
  env->reset(seeds);
  return env;
}

void step(VectorEnv& env, int times = 1) {
  const std::vector<std::int32_t> actions = {0, 1};
  for (int i = 0; i < times; ++i) env.step(actions);
}

host::Description described() {
  host::Description d;
  d.spec.id = "x";
  d.spec.observations = {{"a", 3, {2, 3}, -1, 1}, {"b", 0, {}, 0, 255}};
  d.spec.action_kind = QANAT_ENV_MULTI_DISCRETE;
  d.spec.nvec = {2, 3};
  d.spec.metrics = {"score"};
  d.protocol = {{"k", "v"}};
  return d;
}

// An environment of ours, with a process of its own.
EnvConfig isolated(const std::string& id, const std::string& options = "") {
  EnvConfig config{.id = id, .options = options};
  config.isolate = true;
  return config;
}

}  // namespace

TEST_CASE("host protocol: a well-behaved child is understood") {
  const auto env = open("good");
  step(*env, 3);
  CHECK(env->rewards()[1] == 1);
  CHECK(env->restarts() == 0);
}

TEST_CASE("host protocol: what a child says of its environment is checked before it is used") {
  const auto refused = [](const std::string& way) {
    try {
      (void)open(way);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  CHECK_THAT(refused("magic"), Contains("magic"));
  CHECK_THAT(refused("version"), Contains("it speaks version 7 of the host protocol"));
  CHECK_THAT(refused("dtype"), Contains("dtype number 9"));
  CHECK_THAT(refused("huge"), Contains("extent 1099511627776"));
  CHECK_THAT(refused("negative"), Contains("extent -1"));
  CHECK_THAT(refused("kind"), Contains("action kind 7"));
  CHECK_THAT(refused("no actions"), Contains("number of actions 0"));
  CHECK_THAT(refused("long message"), Contains("a message of 1099511627776 bytes"));
  CHECK_THAT(refused("half"), Contains("ended while the environment was being made"));
  CHECK_THAT(refused("noise"), Contains("magic"));
  CHECK_THAT(refused("tail"), Contains("1 bytes too many"));
  auto silent = hostile("silence");
  silent.start_limit = Seconds(0.3);
  CHECK_THROWS_WITH(host::create_hosted(silent),
                    Contains("making it took longer than") && Contains("(env.make_timeout_seconds"));
}

TEST_CASE("host protocol: values in the shared buffers are checked after they are copied") {
  const auto refused = [](const std::string& way) {
    const auto env = open(way);
    try {
      step(*env, 2);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  CHECK_THAT(refused("flag"), Contains("slot 1") && Contains("wrote 7 as terminated"));
  CHECK_THAT(refused("mask"), Contains("slot 1") && Contains("wrote 2 in the action mask"));
  CHECK_THAT(refused("resetting"), Contains("slot 0") && Contains("no episode has ended"));
  CHECK_THAT(refused("reset flag"), Contains("slot 1") && Contains("wrote 9 as resetting"));
  CHECK_THAT(refused("nan"), Contains("slot 1") && Contains("index 0 of 2"));
  CHECK_THAT(refused("error"), Contains("AAAA"));
  CHECK_THAT(refused("zero step"), Contains("the step that begins an episode gave reward 3, terminated 1"));
  // A broken answer is a broken process: it is replaced, until it is too much.
  CHECK_THAT(refused("number"), Contains("not refused"));
  CHECK_THAT(refused("bell"), Contains("not refused"));
}

TEST_CASE("host protocol: a child cannot take the memory away") {
  const auto env = open("shrink");
  step(*env, 2);
  CHECK(env->rewards()[0] == 1);
}

TEST_CASE("host protocol: a description cut anywhere is refused, and altered bytes are refused or harmless") {
  const auto good = host::encode(described());
  CHECK(host::encode(host::decode_description(good, "x")) == good);
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK_THROWS_AS(host::decode_description(std::span(good).first(size), "x"), InputError);
  }
  Rng rng(3);
  for (int i = 0; i < 20'000; ++i) {
    auto bad = good;
    for (int k = 0; k < 3; ++k) bad[rng.below(bad.size())] = static_cast<std::byte>(rng.below(256));
    try {
      (void)host::decode_description(bad, "x");
    } catch (const InputError&) {
    }
  }
}

TEST_CASE("isolate: an environment in its own process is the same environment") {
  for (const std::string id : {"CartPole-v1", "witness", "MinAtar/breakout"}) {
    INFO(id);
    const std::string options = id == "witness" ? "mask=true,columns=2" : "";
    const auto here = make({.id = id, .options = options, .max_episode_steps = 40}, 3);
    auto config = isolated(id, options);
    config.max_episode_steps = 40;
    const auto there = make(config, 3);
    const std::vector<std::uint64_t> seeds = {1, 2, 3};
    here->reset(seeds);
    there->reset(seeds);
    Rng rng(1);
    std::vector<std::int32_t> actions(3);
    for (int i = 0; i < 300; ++i) {
      for (auto& a : actions)
        a = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(here->spec().action.n)));
      if (i == 100) {
        here->reset_slot(1, 9);
        there->reset_slot(1, 9);
      }
      if (i == 200) there->restore(2, here->snapshot(2));
      here->step(actions);
      there->step(actions);
      for (std::size_t c = 0; c < here->spec().observations.size(); ++c) {
        REQUIRE(std::equal(here->observation(c).begin(), here->observation(c).end(), there->observation(c).begin()));
      }
      REQUIRE(std::equal(here->rewards().begin(), here->rewards().end(), there->rewards().begin()));
      REQUIRE(std::equal(here->terminated().begin(), here->terminated().end(), there->terminated().begin()));
      REQUIRE(std::equal(here->truncated().begin(), here->truncated().end(), there->truncated().begin()));
      REQUIRE(std::equal(here->action_mask().begin(), here->action_mask().end(), there->action_mask().begin()));
    }
    CHECK(here->snapshot(0) == there->snapshot(0));
  }
  CHECK_THROWS_WITH(make(isolated("nothing"), 1), Contains("unknown environment"));
  CHECK_THROWS_WITH(make(isolated("catch", "x=1"), 1), Contains("unknown option x"));
}
