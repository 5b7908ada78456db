// The check of environments: a sound one has no faults, and of each broken one the fault is named with its place.
#include "envs/check.h"

#include <algorithm>
#include <string>

#include "tests/envs/hosted_python.h"
#include "tests/envs/plugin/countdown.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

CheckReport checked(const EnvConfig& config, const CheckOptions& options = {.steps = 400}) {
  return check_environment(open_env, config, options);
}

EnvConfig broken(const char* id) { return {.id = id, .plugin = QANAT_TEST_BROKEN}; }

std::string all(const CheckReport& report) {
  std::string out;
  for (const auto& fault : report.faults) out += fault.name + ": " + fault.text + "\n";
  return out;
}

std::string lines(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& line : texts) out += line + "\n";
  return out;
}

// Exactly one fault, of this name.
std::string only(const char* id, const char* name, const CheckOptions& options = {.steps = 400}) {
  const auto report = checked(broken(id), options);
  INFO(id << "\n" << all(report));
  CHECK(report.faults.size() == 1);
  REQUIRE(!report.faults.empty());
  CHECK(report.faults[0].name == name);
  return report.faults[0].text;
}

}  // namespace

TEST_CASE("check: a sound plug-in has no faults, and the report says what was seen") {
  const auto report = checked(broken("sound"));
  CHECK(all(report) == "");
  CHECK(report.not_seen.empty());
  CHECK_THAT(lines(report.seen), Contains("discrete, 3, with a mask") && Contains("20 steps an episode") &&
                                     Contains("observation grid u8 [3, 3]: 0 to 1 seen, 0 to 1 stated") &&
                                     Contains("reward f32: 0 to 1 seen") && Contains("picture: 4 x 4") &&
                                     Contains("terminated") && Contains("400 steps of 8 slots"));
}

TEST_CASE("check: every built-in is sound") {
  for (const auto& id : builtin_ids()) {
    INFO(id);
    const auto report = checked({.id = id}, {.steps = 600});
    CHECK(all(report) == "");
  }
  CHECK(all(checked({.id = "witness", .options = "dtype=f32,columns=2,mask=true"})) == "");
  CHECK(all(checked({.id = "MinAtar/breakout", .options = "minimal_actions=true"})) == "");
  CHECK(all(checked({.id = "coin", .plugin = QANAT_TEST_PLUGIN})) == "");
}

TEST_CASE("check: what a Gymnasium vector class need not have is no fault, and is listed with the remedy") {
  if (test_python() == nullptr) return;
  EnvConfig config{.gymnasium = "CartPole-v1", .python = test_python()};
  const auto vector = checked(config, {.steps = 200});
  CHECK(all(vector) == "");
  CHECK_THAT(lines(vector.not_seen), Contains("resets of single slots: its vector class resets all or none; with "
                                              "--set env.vectorization=slots it can be tried") &&
                                         Contains("whether slots influence one another: its vector class has one"));
  config.vectorization = "slots";
  const auto single = checked(config, {.steps = 200});
  CHECK(all(single) == "");
  CHECK_THAT(lines(single.not_seen), !Contains("single slots") && !Contains("influence"));
  // A vector class that has both is held to both.
  const auto scripts = checked(scripted("ScriptVector-v0", R"({"mode": "SameStep"})"), {.steps = 200});
  CHECK_THAT(lines(scripts.not_seen), !Contains("single slots") && !Contains("influence"));
}

TEST_CASE("check: an environment that takes no limit from outside is told so") {
  const EnvConfig config{.id = "countdown"};
  const auto report = check_environment(
      [](const EnvConfig& wanted, std::size_t slots) { return create_env(countdown_table, wanted, slots); }, config,
      {.steps = 200});
  REQUIRE(report.faults.size() == 1);
  CHECK(report.faults[0].name == "limit-ignored");
  CHECK_THAT(lines(report.not_seen), Contains("no snapshots"));
}

TEST_CASE("check: values out of bounds are named with place, type, index and range") {
  CHECK_THAT(only("range", "range"), Contains("observation grid u8 [3, 3] at [2, 1] is 7, wanted 0 to 1") &&
                                         Contains("slot ") && Contains("seed ") && Contains("of its episode"));
  CHECK_THAT(only("nan-reward", "not-finite"), Contains("reward f32 is inf") && Contains("action "));
  CHECK_THAT(only("nan-observation", "not-finite"), Contains("observation cell f32 is nan"));
  CHECK_THAT(only("flag", "range"), Contains("terminated u8 is 255, wanted 0 to 1"));
  CHECK_THAT(only("odd-mask", "range"), Contains("action_mask u8 [3] at [1] is 255"));
  CHECK_THAT(only("empty-mask", "empty-mask"), Contains("allows none of 3 actions"));
}

TEST_CASE("check: what was not written, or written where it must not be, is named to the element") {
  CHECK_THAT(only("unwritten", "unwritten"),
             Contains("reset, slot 0") && Contains("observation grid u8 [3, 3] at [1, 2] was not written"));
  CHECK_THAT(only("final-missing", "final-observation"),
             Contains("final_observation cell f32 was not written at the episode's end"));
  CHECK_THAT(only("final-is-next", "final-observation"), Contains("first one of the next"));
  CHECK_THAT(only("no-metrics", "unwritten"), Contains("metrics f64 [1] at [0]"));
  CHECK_THAT(only("stray-reward", "stray-write"), Contains("reward f32 of slot"));
  CHECK_THAT(only("stray-row", "stray-write"), Contains("observation cell f32 of slot"));
  CHECK_THAT(only("overrun", "overrun"), Contains("step wrote beyond the end of reward f32, 8 slots: 0 bytes after"));
  CHECK_THAT(only("underrun", "overrun"), Contains("before the beginning of terminated"));
}

TEST_CASE("check: a buffer that changes after the call has returned is named") {
  CHECK_THAT(only("late-write", "changed-after-return"), Contains("observation grid") && Contains("slot 0, element 4"));
  CHECK_THAT(only("thread-write", "changed-after-return"), Contains("observation grid"));
}

TEST_CASE("check: what a seed does not decide is named") {
  CHECK_THAT(only("not-repeatable", "not-repeatable"),
             Contains("the same seeds and actions gave") && Contains("in one batch and"));
  CHECK_THAT(only("slots-linked", "slots-linked"), Contains("slot 7") && Contains("wanted"));
  CHECK_THAT(only("keeps-state", "reset-keeps-state"), Contains("reset, slot 0") && Contains("wanted"));
  CHECK_THAT(lines(checked(broken("not-repeatable")).not_seen), Contains("what follows from the last fault"));
}

TEST_CASE("check: calls that fail, throw or take too long are named with the step") {
  CHECK_THAT(only("fails", "step"), Contains("step 10, slot 2") && Contains("the physics blew up"));
  CHECK_THAT(only("fails-at-reset", "reset"), Contains("slot 0") && Contains("no start in the maze"));
  CHECK_THAT(only("throws", "exception"), Contains("step") && Contains("the dragon is loose"));
  CHECK_THAT(only("slow", "timeout", {.steps = 400, .call_timeout_seconds = 0.05}),
             Contains("step (step 10 of the batch) took 0.06") && Contains("at most 0.05 s"));
  CHECK_THAT(only("create-fails", "create"), Contains("the level file is missing"));
  CHECK_THAT(only("no-environment", "spec"), Contains("succeeded and made none"));
}

TEST_CASE("check: limits that do not hold are named") {
  CHECK_THAT(only("no-truncation", "time-limit"), Contains("step 20 of its episode") && Contains("its limit is 20"));
  CHECK_THAT(only("limit-ignored", "limit-ignored"), Contains("max_episode_steps 3, the episode goes on"));
  CHECK_THAT(only("limit-unstated", "limit-ignored"), Contains("max_episode_steps 3, its spec says 20"));
}

TEST_CASE("check: snapshots that are not faithful are named") {
  CHECK_THAT(only("odd-snapshot", "snapshot"), Contains("equal states give equal bytes"));
  CHECK_THAT(only("forgets-chance", "snapshot"), Contains("is not the one restored"));
  CHECK_THAT(only("takes-anything", "restore"), Contains("lacks its last byte"));
  CHECK_THAT(only("refuses-all", "restore"), Contains("just taken is refused: wrong size"));
}

TEST_CASE("check: a broken spec, one that changes, and a picture of no size are named") {
  CHECK_THAT(only("no-shape", "spec"), Contains("grid"));
  CHECK_THAT(only("spec-changes", "spec"), Contains("not what it was at first"));
  CHECK_THAT(only("bad-render", "render"), Contains("0 x 0"));
}
