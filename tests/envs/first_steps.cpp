// What is refused before a run starts with an environment: faults of its first steps, each by its name.
#include "core/error.h"
#include "envs/trial.h"
#include "tests/envs/hosted_python.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

std::string refusal(const EnvConfig& config, const TrialOptions& options = {}) {
  try {
    (void)try_environment(config, options);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

// Some of the faults need some episodes to show.
std::string broken(const char* id) {
  return refusal({.id = id, .plugin = QANAT_TEST_BROKEN}, {.steps_after_an_end = 200, .seconds = 10});
}

}  // namespace

TEST_CASE("trial: sound environments pass, with an episode's end where one comes soon") {
  for (const auto& id : builtin_ids()) {
    INFO(id);
    const auto trial = try_environment({.id = id}, {.seconds = 10});
    CHECK(trial.out_of_bounds == "");
    CHECK(trial.spec.id == id);
    CHECK((trial.episodes > 0 || trial.steps == 200));
  }
  // Nine steps, the end with the last of them, and eight of the next episode.
  const auto trial = try_environment({.id = "catch"}, {.seconds = 10});
  CHECK(trial.steps == 17);
  CHECK(trial.episodes == 1);
  CHECK(try_environment({.id = "coin", .plugin = QANAT_TEST_PLUGIN}).steps > 0);
}

TEST_CASE("trial: it ends when its time is over, after a reset at least") {
  CHECK(try_environment({.id = "MinAtar/breakout"}, {.seconds = 0}).steps == 0);
}

TEST_CASE("trial: faults of the first steps are refused by the names of the check") {
  CHECK_THAT(broken("fails"), Contains("fails at once (step)") && Contains("the physics blew up"));
  CHECK_THAT(broken("fails-at-reset"), Contains("(reset)") && Contains("no start in the maze"));
  CHECK_THAT(broken("throws"), Contains("(exception)") && Contains("the dragon is loose"));
  CHECK_THAT(broken("create-fails"), Contains("the level file is missing"));
  CHECK_THAT(broken("no-environment"), Contains("succeeded and made none"));
  CHECK_THAT(broken("no-shape"), Contains("(spec)") && Contains("grid"));
  CHECK_THAT(broken("no-truncation"), Contains("(time-limit)") && Contains("its limit is 20"));
  CHECK_THAT(broken("overrun"), Contains("(overrun)") && Contains("beyond the end of reward f32"));
  CHECK_THAT(broken("late-write"), Contains("(changed-after-return)"));
  CHECK_THAT(broken("odd-mask"), Contains("(range)") && Contains("action_mask u8 [3] at [1] is 255, wanted 0 to 1"));
  CHECK_THAT(broken("nan-observation"), Contains("(not-finite)") && Contains("observation cell f32 is nan"));
  CHECK(broken("sound") == "");
}

TEST_CASE("trial: an observation outside its bounds trains, and is told") {
  EnvConfig config{.id = "range", .plugin = QANAT_TEST_BROKEN};
  CHECK_THAT(try_environment(config, {.steps_after_an_end = 200, .seconds = 10}).out_of_bounds,
             Contains("observation grid u8 [3, 3] at [2, 1] is 7, wanted 0 to 1"));
}

TEST_CASE("trial: what Python environments give at their first steps is refused, a crash without a second try") {
  if (test_python() == nullptr) return;
  const auto at_first = [](const char* what) {
    return refusal(scripted("Script-v0", text(R"({"at": [0, 1], "what": ")", what, "\"}")));
  };
  CHECK_THAT(at_first("raise"), Contains("fails at once (step)") && Contains("scripted failure at (0, 1)"));
  CHECK_THAT(at_first("nan_reward"), Contains("reward f32 is nan"));
  CHECK_THAT(at_first("nan"), Contains("is nan"));
  CHECK_THAT(at_first("shape"), Contains("(step)"));
  CHECK_THAT(at_first("flag"), Contains("terminated None of type NoneType"));
  CHECK_THAT(at_first("exit"), Contains("SystemExit"));
  CHECK_THAT(at_first("crash"), Contains("its process failed") && Contains("it ended with exit code 3"));
  CHECK_THAT(refusal(scripted("Script-v0", R"({"form": "old"})")), Contains("wanted observation, info"));
  CHECK(refusal(scripted("Script-v0", "{}")) == "");
  CHECK(refusal(scripted("ScriptVector-v0", R"({"mode": "NextStep"})")) == "");
}
