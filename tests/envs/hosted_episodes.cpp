// Episode edges of Python environments: whatever the autoreset mode and whatever breaks, the transitions that are
// taken over are those of a list worked out by hand. The environment is tests/envs/host/scripted.py.
#include <array>
#include <cstring>
#include <numeric>
#include <ostream>

#include "core/error.h"
#include "core/rng.h"
#include "tests/envs/hosted_python.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

constexpr const char* terminated = "terminated";
constexpr const char* truncated = "truncated";
constexpr const char* both = "both";

// One transition of one slot: (episode, t) acted in, reward, (episode, t) seen next, how it ended.
struct Transition {
  int episode, t;
  float reward;
  int next_episode, next_t;
  std::string end;

  friend bool operator==(const Transition&, const Transition&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Transition& x) {
    return out << "(" << x.episode << "," << x.t << ") " << x.reward << " (" << x.next_episode << "," << x.next_t
               << ") " << x.end;
  }
};

std::array<float, 3> place(std::span<const std::byte> rows, std::size_t slot) {
  std::array<float, 3> out{};
  std::memcpy(out.data(), rows.data() + slot * sizeof out, sizeof out);
  return out;
}

// Steps as an actor does: acts where there is a state, records what was a step.
std::vector<std::vector<Transition>> record(VectorEnv& env, int calls) {
  std::vector<std::vector<Transition>> out(env.slots());
  std::vector<std::int32_t> actions(env.slots());
  for (int call = 0; call < calls; ++call) {
    std::vector<std::array<float, 3>> before;
    std::vector<bool> acts;
    for (std::size_t s = 0; s < env.slots(); ++s) {
      acts.push_back(env.resetting()[s] == 0);
      before.push_back(place(env.observation(0), s));
      actions[s] = static_cast<std::int32_t>((static_cast<std::size_t>(call) + s) % 3);
    }
    env.step(actions);
    for (std::size_t s = 0; s < env.slots(); ++s) {
      REQUIRE((env.stepped()[s] != 0) == acts[s]);
      if (!acts[s]) continue;
      const bool ended = (env.terminated()[s] | env.truncated()[s]) != 0;
      const auto next = place(ended ? env.final_observation(0) : env.observation(0), s);
      const auto* end = env.terminated()[s] && env.truncated()[s] ? both
                        : env.terminated()[s]                     ? terminated
                        : env.truncated()[s]                      ? truncated
                                                                  : "";
      REQUIRE(next[0] == before[s][0]);
      out[s].push_back({int(before[s][1]), int(before[s][2]), env.rewards()[s], int(next[1]), int(next[2]), end});
      if (ended) {
        REQUIRE(env.episode_lengths()[s] == int(next[2]));
        const float e = next[1], t = next[2];
        REQUIRE(env.episode_returns()[s] == static_cast<double>(10 * e * t + t * (t + 1) / 2));
      }
    }
  }
  return out;
}

std::vector<std::uint64_t> seeds_from(std::uint64_t first, std::size_t count) {
  std::vector<std::uint64_t> seeds(count);
  std::iota(seeds.begin(), seeds.end(), first);
  return seeds;
}

// Episodes of 3, 1 and 2 steps, ending terminated, truncated and both: worked out by hand.
const std::vector<Transition> by_hand = {
    {0, 0, 1, 0, 1, ""},          {0, 1, 2, 0, 2, ""},         {0, 2, 3, 0, 3, terminated}, {1, 0, 11, 1, 1, truncated},
    {2, 0, 21, 2, 1, ""},         {2, 1, 22, 2, 2, both},      {3, 0, 31, 3, 1, ""},        {3, 1, 32, 3, 2, ""},
    {3, 2, 33, 3, 3, terminated}, {4, 0, 41, 4, 1, truncated}, {5, 0, 51, 5, 1, ""},        {5, 1, 52, 5, 2, both},
};
constexpr const char* ends = R"("ends": ["terminated", "truncated", "both"])";

void check_prefix(const std::vector<Transition>& seen, const std::vector<Transition>& wanted) {
  REQUIRE(seen.size() <= wanted.size());
  CHECK(seen == std::vector<Transition>(wanted.begin(), wanted.begin() + std::ptrdiff_t(seen.size())));
}

}  // namespace

TEST_CASE("hosted episodes: single environments give the transitions worked out by hand") {
  if (test_python() == nullptr) return;
  const auto env = make(scripted("Script-v0", std::string("{") + ends + "}"), 3);
  env->reset(seeds_from(5, 3));
  const auto seen = record(*env, 12);
  for (std::size_t s = 0; s < 3; ++s) {
    CHECK(place(env->observation(0), s)[0] == static_cast<float>(5 + s));
    CHECK(seen[s] == by_hand);
  }
}

TEST_CASE("hosted episodes: every autoreset mode of Gymnasium gives the same transitions") {
  if (test_python() == nullptr) return;
  for (const std::string mode : {"NextStep", "SameStep", "Disabled"}) {
    INFO(mode);
    const auto env = make(scripted("ScriptVector-v0", std::string("{") + ends + ", \"mode\": \"" + mode + "\"}"), 3);
    env->reset(seeds_from(5, 3));
    const auto seen = record(*env, 12);
    for (const auto& slot : seen) {
      check_prefix(slot, by_hand);
      // Twelve calls hold twelve steps, or nine and the three resets after the ends of episodes 0, 1 and 2.
      CHECK(slot.size() == (mode == "NextStep" ? 9 : 12));
    }
  }
}

TEST_CASE("hosted episodes: slots that end at different times do not disturb each other") {
  if (test_python() == nullptr) return;
  for (const std::string mode : {"NextStep", "SameStep", "Disabled"}) {
    INFO(mode);
    const auto env = make(scripted("ScriptVector-v0", std::string("{") + ends + ", \"mode\": \"" + mode + "\"}"), 2);
    env->reset(seeds_from(5, 2));
    (void)record(*env, 2);
    env->reset_slot(1, 50);
    CHECK(place(env->observation(0), 1) == std::array<float, 3>{50, 0, 0});
    CHECK(place(env->observation(0), 0) == std::array<float, 3>{5, 0, 2});
    const auto seen = record(*env, 6);
    check_prefix(seen[0], {by_hand.begin() + 2, by_hand.end()});
    check_prefix(seen[1], by_hand);
  }
}

TEST_CASE("hosted episodes: episodes of one step in every mode") {
  if (test_python() == nullptr) return;
  const std::vector<Transition> wanted = {
      {0, 0, 1, 0, 1, terminated}, {1, 0, 11, 1, 1, terminated}, {2, 0, 21, 2, 1, terminated}};
  for (const std::string id : {"Script-v0", "ScriptVector-v0"}) {
    const auto env = make(scripted(id, R"({"lengths": [1]})"), 1);
    env->reset(seeds_from(1, 1));
    const auto seen = record(*env, id == "Script-v0" ? 3 : 5);
    CHECK(seen[0] == wanted);
  }
}

TEST_CASE("hosted episodes: a time limit truncates, and its own limit is told") {
  if (test_python() == nullptr) return;
  auto config = scripted("Script-v0", R"({"lengths": [5]})");
  config.max_episode_steps = 2;
  const auto env = make(config, 1);
  CHECK(env->spec().max_episode_steps == 2);
  env->reset(seeds_from(1, 1));
  const std::vector<Transition> wanted = {
      {0, 0, 1, 0, 1, ""}, {0, 1, 2, 0, 2, truncated}, {1, 0, 11, 1, 1, ""}, {1, 1, 12, 1, 2, truncated}};
  CHECK(record(*env, 4)[0] == wanted);
}

TEST_CASE("hosted episodes: action masks come from info or a key, for the last observation too") {
  if (test_python() == nullptr) return;
  for (const std::string id : {"Script-v0", "ScriptVector-v0"}) {
    for (const std::string kind : {"info", "key"}) {
      for (const std::string mode : {"NextStep", "SameStep", "Disabled"}) {
        if (id == "Script-v0" && mode != "NextStep") continue;
        INFO(id << " " << kind << " " << mode);
        const std::string more = id == "Script-v0" ? "" : ", \"mode\": \"" + mode + "\"";
        const auto env = make(scripted(id, R"({"lengths": [3], "mask": ")" + kind + "\"" + more + "}"), 2);
        REQUIRE(env->spec().has_action_mask);
        CHECK(env->spec().observations[0].tensor.shape == std::vector<std::int64_t>{3});
        env->reset(seeds_from(1, 2));
        const auto check = [&](std::span<const std::uint8_t> mask, std::span<const std::byte> rows, std::size_t s) {
          const bool odd = int(place(rows, s)[2]) % 2 == 1;
          CHECK(mask[3 * s] == 1);
          CHECK(mask[3 * s + 1] == odd);
          CHECK(mask[3 * s + 2] == !odd);
        };
        const std::vector<std::int32_t> actions(2, 0);
        int checked_ends = 0;
        for (int call = 0; call < 8; ++call) {
          for (std::size_t s = 0; s < 2; ++s) {
            if (env->resetting()[s] == 0) check(env->action_mask(), env->observation(0), s);
          }
          env->step(actions);
          for (std::size_t s = 0; s < 2; ++s) {
            if (env->terminated()[s] == 0) continue;
            check(env->final_action_mask(), env->final_observation(0), s);
            ++checked_ends;
          }
        }
        CHECK(checked_ends == 4);
      }
    }
  }
}

TEST_CASE("hosted episodes: a process that crashes, hangs or is stopped costs its running episodes, as truncated") {
  if (test_python() == nullptr) return;
  for (const std::string what : {"crash", "kill", "hang", "stop"}) {
    INFO(what);
    const Once once;
    auto config = scripted("Script-v0", R"({"ends": ["terminated"], "at": [2, 1], "slot_seed": 6, "what": ")" + what +
                                            R"(", "once": ")" + once.text() + "\"}");
    config.step_timeout_seconds = 2;
    const auto env = make(config, 2);
    env->reset(seeds_from(5, 2));
    // Five steps go well; in the sixth, slot 1 breaks the process: both slots stood in (2, 1).
    std::vector<Transition> wanted(by_hand.begin(), by_hand.begin() + 5);
    for (auto& x : wanted) x.end = x.end.empty() ? "" : terminated;
    wanted.push_back({2, 1, 0, 2, 1, truncated});
    std::vector<std::vector<Transition>> seen(2);
    // The episode's return lacks what the broken step would have paid, so record() does not fit here.
    seen = record(*env, 5);
    const std::vector<std::int32_t> actions = {2, 1};
    env->step(actions);
    for (std::size_t s = 0; s < 2; ++s) {
      CHECK(place(env->final_observation(0), s) == std::array<float, 3>{static_cast<float>(5 + s), 2, 1});
      CHECK(env->rewards()[s] == 0);
      CHECK(env->terminated()[s] == 0);
      CHECK(env->truncated()[s] == 1);
      CHECK(env->episode_lengths()[s] == 2);
      CHECK(env->episode_returns()[s] == 21);
      seen[s].push_back({2, 1, env->rewards()[s], 2, 1, truncated});
      CHECK(seen[s] == wanted);
      const auto fresh = place(env->observation(0), s);
      CHECK(fresh[0] == static_cast<float>(derive_seed(5 + s, 1, s) & 0x7fffffff));
      CHECK(fresh[1] == 0);
      CHECK(fresh[2] == 0);
    }
    CHECK(env->restarts() == 1);
    const auto events = env->take_events();
    REQUIRE(events.size() == 1);
    CHECK_THAT(events[0], Contains("slot 1 (seed 6)") && Contains("last action 1") && Contains("scripted:Script-v0"));
    CHECK_THAT(events[0], Contains(what == "crash"  ? "exit code 3"
                                   : what == "kill" ? "signal 9"
                                   : what == "hang" ? "longer than 2 s (env.step_timeout_seconds); it was running"
                                                    : "longer than 2 s (env.step_timeout_seconds); it was stopped"));
    CHECK(env->take_events().empty());
    CHECK(record(*env, 3)[1][2].end == terminated);
  }
}

TEST_CASE("hosted episodes: who waits for a process is called meanwhile, who need not wait is not") {
  if (test_python() == nullptr) return;
  const Once once;
  auto config = scripted("Script-v0", R"({"at": [2, 1], "what": "hang", "once": ")" + once.text() + "\"}");
  config.step_timeout_seconds = 1;
  const auto env = make(config, 2);
  int calls = 0;
  env->while_waiting([&] { ++calls; });
  env->reset(seeds_from(5, 2));
  const std::vector<std::int32_t> actions(2, 0);
  env->step(actions);
  const int before = calls;  // none, but on a machine that is busy for a tenth of a second
  for (int i = 0; i < 5; ++i) env->step(actions);
  CHECK(env->restarts() == 1);
  // A second of waiting, and another process's start.
  CHECK(calls - before >= 5);
  CHECK(before <= 3);
}

TEST_CASE("hosted episodes: a slot that was between episodes when its process broke has no second end") {
  if (test_python() == nullptr) return;
  const Once once;
  // Slot 0 has ended and waits for its reset when slot 1, one step behind, breaks.
  const auto env = make(scripted("ScriptVector-v0", R"({"lengths": [2], "at": [0, 1], "slot_seed": 6, "what": "kill",
      "once": ")" + once.text() + "\"}"),
                        2);
  env->reset(seeds_from(5, 2));
  (void)record(*env, 1);
  env->reset_slot(1, 6);
  (void)record(*env, 1);
  REQUIRE(env->resetting()[0] == 1);
  REQUIRE(env->resetting()[1] == 0);
  const std::vector<std::int32_t> actions(2, 0);
  env->step(actions);
  CHECK(env->restarts() == 1);
  CHECK(env->stepped()[0] == 0);
  CHECK(env->truncated()[0] == 0);
  CHECK(env->stepped()[1] == 1);
  CHECK(env->truncated()[1] == 1);
  CHECK(env->resetting()[0] + env->resetting()[1] == 0);
}

TEST_CASE("hosted episodes: the fifth fault within ten minutes ends it with the first cause") {
  if (test_python() == nullptr) return;
  const auto env = make(scripted("Script-v0", R"({"lengths": [9], "at": [0, 2], "what": "crash"})"), 1);
  env->reset(seeds_from(5, 1));
  const std::vector<std::int32_t> actions = {1};
  const auto go = [&] {
    for (int i = 0; i < 20; ++i) env->step(actions);
  };
  CHECK_THROWS_WITH(go(),
                    Contains("failed 5 times within 10 minutes; the first time: slot 0 (seed 5), last action 1") &&
                        Contains("exit code 3"));
  CHECK(env->restarts() == 4);
}
