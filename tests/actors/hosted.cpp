// What an actor stores of Python environments: the rows worked out by hand, whatever the autoreset mode and whatever
// happens to the process. The environment is tests/envs/host/scripted.py.
#include <array>

#include "actors/evaluation.h"
#include "tests/actors/small_run.h"
#include "tests/envs/hosted_python.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;

namespace {

constexpr std::int64_t slots = 4;

ActorOptions options_of(envs::EnvConfig environment) {
  ActorOptions options;
  options.member = member_options(wire::Role::actor, 77);
  options.actors.slots = slots;
  options.actors.chunk_steps = 4;
  options.actors.exploration.kind = "constant";
  options.actors.exploration.constant = 1;
  options.environment = std::move(environment);
  options.network.hidden = {8};
  options.network.input_scale = 1e-9;
  options.stack = 2;
  options.seed = 4;
  return options;
}

// Episodes of 3, 1 and 2 steps that end terminated, truncated and both, for ever; each with its last observation.
void check_rows(const StoredStream& stream, std::size_t& steps) {
  constexpr std::array<int, 3> lengths = {3, 1, 2};
  constexpr std::array<int, 3> ends = {replay::flag_terminated, replay::flag_truncated,
                                       replay::flag_terminated | replay::flag_truncated};
  int episode = 0;
  int t = 0;
  for (const auto& row : stream.rows) {
    const auto place = row.get<float>(0);
    INFO("episode " << episode << ", t " << t);
    REQUIRE(int(place[1]) == episode);
    REQUIRE(int(place[2]) == t);
    const int length = lengths[std::size_t(episode % 3)];
    if (t == length) {
      REQUIRE(row.flags() == replay::flag_last_observation);
      ++episode;
      t = 0;
      continue;
    }
    REQUIRE(row.get<float>(2)[0] == static_cast<float>(10 * episode + t + 1));
    REQUIRE(row.flags() ==
            ((t == 0 ? replay::flag_first : 0) | (t + 1 == length ? ends[std::size_t(episode % 3)] : 0)));
    ++t;
    ++steps;
  }
  REQUIRE(episode >= 6);
}

}  // namespace

TEST_CASE("actor: what it stores of a Python environment is the list worked out by hand, in every autoreset mode") {
  if (envs::test_python() == nullptr) return;
  for (const std::string mode : {"slots", "NextStep", "SameStep", "Disabled"}) {
    INFO(mode);
    const std::string ends = R"({"ends": ["terminated", "truncated", "both"])";
    const auto options =
        options_of(mode == "slots" ? envs::scripted("Script-v0", ends + "}")
                                   : envs::scripted("ScriptVector-v0", ends + ", \"mode\": \"" + mode + "\"}"));
    SmallRun run(1);
    Actor actor(run.context, run.clock, run.log, options);
    run.publish(network_of(options.network, envs::make(options.environment, 1)->spec(), options.stack), 1, 8);
    run.until(actor, [&] { return actor.steps() >= 100; });
    run.head.request_stop("enough");
    run.until(actor, [&] { return actor.finished(); });
    std::size_t steps = 0;
    CHECK(run.shards[0]->store.streams.size() == std::size_t(slots));
    for (const auto& [id, stream] : run.shards[0]->store.streams) check_rows(stream, steps);
    CHECK(steps == actor.steps());
  }
}

TEST_CASE("actor: while it waits for a step that hangs it goes on sending heartbeats") {
  if (envs::test_python() == nullptr) return;
  const envs::Once once;
  auto options =
      options_of(envs::scripted("Script-v0", R"({"at": [2, 1], "what": "hang", "once": ")" + once.text() + "\"}"));
  options.environment.step_timeout_seconds = 1;
  SmallRun run(1);
  const SteadyClock clock;  // heartbeats are due by the time that the environment takes
  Actor actor(run.context, clock, run.log, options);
  run.publish(network_of(options.network, envs::make(options.environment, 1)->spec(), options.stack), 1, 8);
  std::uint64_t most = 0;
  const auto seen_step = [&] {
    const auto before = run.head.traffic().messages_in;
    run.step();
    // What came in since the actor's last step; the others say little.
    most = std::max(most, run.head.traffic().messages_in - before);
    return actor.steps() >= 60;
  };
  run.until(actor, seen_step, 2'000'000);
  CHECK(most >= 6);  // 3 where it says nothing meanwhile
}

TEST_CASE("evaluation: episodes that broke off with their Python process are played again, and it is said") {
  if (envs::test_python() == nullptr) return;
  const envs::Once once;
  EvaluationOptions options;
  options.network.hidden = {8};
  options.network.input_scale = 1e-9;
  options.episodes = 4;
  options.players = 1;
  const auto returns = [&](const char* what) {
    options.environment =
        envs::scripted("Script-v0", text(R"({"at": [0, 2], "what": ")", what, R"(", "once": ")", once.text(), "\"}"));
    const EpisodePlayer player(options);
    nn::Weights weights;
    weights.parameters.resize(nn::parameter_count(player.network()));
    return evaluate(options, weights.view());
  };
  const auto broken = returns("kill");  // in the third step of an episode of three
  const auto whole = returns("kill");   // it has happened by now
  CHECK(broken.returns == whole.returns);
  CHECK(broken.lengths == whole.lengths);
  CHECK(broken.events.size() == 1);
  CHECK(whole.events.empty());
}

TEST_CASE(
    "evaluation: a process that breaks while single slots are reset breaks off all episodes, and they are played") {
  if (envs::test_python() == nullptr) return;
  const envs::Once once;
  EvaluationOptions options;
  options.network.hidden = {8};
  options.network.input_scale = 1e-9;
  options.episodes = 5;
  options.slots = 2;
  options.players = 1;
  // Its own reset after an episode's end is the first that is not seeded: episode 1 of the slot.
  options.environment =
      envs::scripted("Script-v0", text(R"({"reset_what": "kill", "lengths": [2], "once": ")", once.text(), "\"}"));
  const EpisodePlayer player(options);
  nn::Weights weights;
  weights.parameters.resize(nn::parameter_count(player.network()));
  const auto result = evaluate(options, weights.view());
  CHECK(result.lengths == std::vector<std::int64_t>(5, 2));
  CHECK(result.returns == std::vector<double>(5, 3));
  CHECK(result.events.size() == 1);
}

TEST_CASE("evaluation: episodes are queued over slots in every autoreset mode") {
  if (envs::test_python() == nullptr) return;
  for (const std::string mode : {"slots", "NextStep", "SameStep", "Disabled"}) {
    INFO(mode);
    EvaluationOptions options;
    options.network.hidden = {8};
    options.network.input_scale = 1e-9;
    options.episodes = 5;
    options.slots = 2;
    options.players = 1;
    const std::string lengths = R"({"lengths": [3])";
    options.environment = mode == "slots"
                              ? envs::scripted("Script-v0", lengths + "}")
                              : envs::scripted("ScriptVector-v0", lengths + ", \"mode\": \"" + mode + "\"}");
    const EpisodePlayer player(options);
    nn::Weights weights;
    weights.parameters.resize(nn::parameter_count(player.network()));
    const auto result = evaluate(options, weights.view());
    CHECK(result.lengths == std::vector<std::int64_t>(5, 3));
    CHECK(result.returns == std::vector<double>(5, 6));
  }
}

TEST_CASE("evaluation: where a class resets all slots or none, each slot plays its share as the class begins them") {
  if (envs::test_python() == nullptr) return;
  EvaluationOptions options;
  options.network.hidden = {8};
  options.network.input_scale = 1e-9;
  options.episodes = 5;
  options.slots = 2;
  options.players = 1;
  options.environment = envs::scripted("Whole-v0", "{}");
  const EpisodePlayer player(options);
  nn::Weights weights;
  weights.parameters.resize(nn::parameter_count(player.network()));
  // Slot 0 plays episodes 0, 2 and 4 of the five, its own 0, 1 and 2: of 3, 1 and 2 steps. Slot 1 plays two.
  const auto result = evaluate(options, weights.view());
  CHECK(result.lengths == std::vector<std::int64_t>{3, 3, 1, 1, 2});
  CHECK(result.returns == std::vector<double>{6, 6, 11, 11, 43});
}

TEST_CASE("actor: a broken Python process leaves truncated episodes, and the run goes on") {
  if (envs::test_python() == nullptr) return;
  const envs::Once once;
  const auto options =
      options_of(envs::scripted("Script-v0", R"({"at": [2, 1], "what": "kill", "once": ")" + once.text() + "\"}"));
  SmallRun run(1);
  Actor actor(run.context, run.clock, run.log, options);
  run.publish(network_of(options.network, envs::make(options.environment, 1)->spec(), options.stack), 1, 8);
  run.until(actor, [&] { return actor.steps() >= 60; });
  run.head.request_stop("enough");
  run.until(actor, [&] { return actor.finished(); });
  int broken = 0;
  for (const auto& [id, stream] : run.shards[0]->store.streams) {
    for (std::size_t i = 0; i + 1 < stream.rows.size(); ++i) {
      const auto& row = stream.rows[i];
      if ((row.flags() & replay::flag_truncated) == 0) continue;
      // The step under way in (2, 1): no reward, and the episode's last observation is the one acted in.
      const auto place = row.get<float>(0);
      CHECK(int(place[1]) == 2);
      CHECK(int(place[2]) == 1);
      CHECK(row.get<float>(2)[0] == 0);
      CHECK(row.flags() == replay::flag_truncated);
      CHECK(stream.rows[i + 1].columns[0] == row.columns[0]);
      CHECK(stream.rows[i + 1].flags() == replay::flag_last_observation);
      ++broken;
    }
  }
  CHECK(broken == slots / 2);  // one group's process
}
