// The vector environment as actors see it: episode edges, seeds, snapshots.
#include "envs/vector_env.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>
#include <tuple>

#include "core/error.h"
#include "core/rng.h"
#include "envs/witness.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;

namespace {

std::vector<std::uint64_t> seeds_from(std::uint64_t first, std::size_t count) {
  std::vector<std::uint64_t> seeds(count);
  std::iota(seeds.begin(), seeds.end(), first);
  return seeds;
}

std::vector<std::int32_t> random_actions(const VectorEnv& env, Rng& rng) {
  std::vector<std::int32_t> actions(env.slots());
  for (auto& action : actions) {
    action = static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(env.spec().action.n)));
  }
  return actions;
}

template <class T>
std::vector<T> row(std::span<const std::byte> bytes, std::size_t slot, std::size_t elements) {
  std::vector<T> result(elements);
  std::memcpy(result.data(), bytes.data() + slot * elements * sizeof(T), elements * sizeof(T));
  return result;
}

std::vector<std::byte> row_bytes(const VectorEnv& env, std::span<const std::byte> bytes, std::size_t slot) {
  return row<std::byte>(bytes, slot, env.spec().observations[0].tensor.bytes());
}

// Everything that one slot shows after a step, to compare two histories by.
struct Moment {
  std::vector<std::byte> observation, last;
  float reward = 0;
  int terminated = 0, truncated = 0;
  double episode_return = 0;
  std::int64_t episode_length = 0;
  friend bool operator==(const Moment&, const Moment&) = default;
};

Moment moment(const VectorEnv& env, std::size_t slot) {
  Moment result{row_bytes(env, env.observation(0), slot),
                {},
                env.rewards()[slot],
                env.terminated()[slot],
                env.truncated()[slot],
                0,
                0};
  if (result.terminated + result.truncated > 0) {
    result.last = row_bytes(env, env.final_observation(0), slot);
    result.episode_return = env.episode_returns()[slot];
    result.episode_length = env.episode_lengths()[slot];
  }
  return result;
}

}  // namespace

TEST_CASE("witness: every step, end, reward and metric is the hand-worked one") {
  for (const bool scripted : {false, true}) {
    const witness::Rules rules{.scripted = scripted};
    constexpr std::size_t slots = 5;
    const std::string options = scripted ? "actor=3, episodes=scripted, columns=2" : "actor=3, columns=2";
    const auto env = make({.id = "witness", .options = options}, slots);
    const auto seeds = seeds_from(100, slots);
    env->reset(seeds);
    std::vector<std::int32_t> episode(slots, 0), t(slots, 0);
    std::vector<double> sum(slots, 0);
    std::map<std::tuple<std::int64_t, bool, bool>, int> seen;
    const auto who = [&](std::size_t slot) {
      return std::vector<std::int32_t>{3, static_cast<std::int32_t>(slot), episode[slot], t[slot]};
    };
    const std::vector<std::int32_t> actions(slots, 0);
    for (int step = 0; step < 2000; ++step) {
      for (std::size_t slot = 0; slot < slots; ++slot) {
        REQUIRE(row<std::int32_t>(env->observation(0), slot, 4) == who(slot));
        const auto low = row<std::uint8_t>(env->observation(1), slot, 4);
        REQUIRE(low[2] == episode[slot] % 256);
      }
      env->step(actions);
      for (std::size_t slot = 0; slot < slots; ++slot) {
        const auto s = static_cast<std::int64_t>(slot);
        REQUIRE(env->rewards()[slot] == witness::reward(s, episode[slot], t[slot]));
        sum[slot] += static_cast<double>(env->rewards()[slot]);
        ++t[slot];
        const std::int64_t length = witness::length(rules, seeds[slot], s, episode[slot]);
        if (t[slot] < length) {
          REQUIRE(env->terminated()[slot] + env->truncated()[slot] == 0);
          continue;
        }
        const witness::End end = witness::ending(rules, seeds[slot], s, episode[slot]);
        REQUIRE(env->terminated()[slot] == end.terminated);
        REQUIRE(env->truncated()[slot] == end.truncated);
        REQUIRE(row<std::int32_t>(env->final_observation(0), slot, 4) == who(slot));
        REQUIRE(env->episode_metrics(slot)[0] == episode[slot]);
        REQUIRE(env->episode_returns()[slot] == sum[slot]);
        REQUIRE(env->episode_lengths()[slot] == length);
        ++seen[{length, end.terminated, end.truncated}];
        ++episode[slot];
        t[slot] = 0;
        sum[slot] = 0;
      }
    }
    CHECK(seen.size() == 21);  // lengths 1 to 7, each with three ends
  }
}

TEST_CASE("witness: masks allow two of three actions and follow the episode edges") {
  const auto env = make({.id = "witness", .options = "mask=true"}, 2);
  CHECK(env->spec().has_action_mask);
  env->reset(seeds_from(1, 2));
  const std::vector<std::int32_t> actions(2, 0);
  const auto check = [](std::span<const std::uint8_t> mask, std::size_t slot, const std::vector<std::int32_t>& who) {
    int allowed = 0;
    for (std::int64_t a = 0; a < witness::actions; ++a) {
      const int bit = mask[slot * 3 + static_cast<std::size_t>(a)];
      CHECK(bit == witness::allowed(who[1], who[2], who[3], a));
      allowed += bit;
    }
    CHECK(allowed == 2);
  };
  for (int step = 0; step < 50; ++step) {
    for (std::size_t slot = 0; slot < 2; ++slot) {
      check(env->action_mask(), slot, row<std::int32_t>(env->observation(0), slot, 4));
      if (env->terminated()[slot] + env->truncated()[slot] > 0) {
        check(env->final_action_mask(), slot, row<std::int32_t>(env->final_observation(0), slot, 4));
      }
    }
    env->step(actions);
  }
  CHECK(make({.id = "witness"}, 1)->action_mask().empty());
}

TEST_CASE("witness: f32 observations hold the same numbers") {
  const auto env = make({.id = "witness", .options = "dtype=f32,actor=9"}, 2);
  env->reset(seeds_from(1, 2));
  CHECK(env->spec().observations[0].tensor.dtype == DType::f32);
  CHECK(row<float>(env->observation(0), 1, 4) == std::vector<float>{9, 1, 0, 0});
}

TEST_CASE("catch: an episode has nine steps and pays one or minus one at its last") {
  const auto env = make({.id = "catch"}, 8);
  env->reset(seeds_from(1, 8));
  Rng rng(3);
  int caught = 0;
  for (int step = 1; step <= 90; ++step) {
    const auto before = std::vector<std::byte>(env->observation(0).begin(), env->observation(0).end());
    const auto actions = random_actions(*env, rng);
    env->step(actions);
    for (std::size_t slot = 0; slot < 8; ++slot) {
      const bool last = step % 9 == 0;
      REQUIRE(env->terminated()[slot] == last);
      REQUIRE(env->truncated()[slot] == 0);
      // The board shows two cells, one when the ball is caught.
      const auto board = row<std::uint8_t>(last ? env->final_observation(0) : env->observation(0), slot, 50);
      const int cells = std::accumulate(board.begin(), board.end(), 0);
      REQUIRE(cells == (last && env->rewards()[slot] == 1 ? 1 : 2));
      REQUIRE(std::abs(env->rewards()[slot]) == (last ? 1.0f : 0.0f));
      caught += env->rewards()[slot] == 1;
    }
  }
  CHECK(caught > 0);
  CHECK(caught < 80);
}

TEST_CASE("catch: a paddle that follows the ball catches all, and pixels show the same game") {
  const auto small = make({.id = "catch"}, 4);
  const auto big = make({.id = "catch-pixels"}, 4);
  CHECK(big->spec().observations[0].tensor.shape == std::vector<std::int64_t>{1, 84, 84});
  small->reset(seeds_from(5, 4));
  big->reset(seeds_from(5, 4));
  for (int step = 0; step < 90; ++step) {
    std::vector<std::int32_t> actions(4, 1);
    for (std::size_t slot = 0; slot < 4; ++slot) {
      const auto board = row<std::uint8_t>(small->observation(0), slot, 50);
      const auto screen = row<std::uint8_t>(big->observation(0), slot, 84 * 84);
      std::array<int, 2> columns{};  // of the ball, seen above the last row, and of the paddle
      for (int r = 0; r < 10; ++r) {
        for (int c = 0; c < 5; ++c) {
          const bool set = board[static_cast<std::size_t>(r * 5 + c)] == 1;
          if (set) columns[r == 9] = c;
          // The middle of the cell's rectangle.
          const int y = (2 * r + 1) * 84 / 20;
          const int x = (2 * c + 1) * 84 / 10;
          REQUIRE(screen[static_cast<std::size_t>(y * 84 + x)] == (set ? 255 : 0));
        }
      }
      actions[slot] = columns[0] < columns[1] ? 0 : columns[0] > columns[1] ? 2 : 1;
    }
    small->step(actions);
    big->step(actions);
    for (std::size_t slot = 0; slot < 4; ++slot) {
      if (small->terminated()[slot] != 0) CHECK(small->rewards()[slot] == 1);
      CHECK(small->rewards()[slot] == big->rewards()[slot]);
    }
  }
}

TEST_CASE("time limits: truncated at the limit, with terminated too when both fall on one step") {
  const std::vector<std::int32_t> stay = {1};
  for (const std::int64_t limit : {1, 4, 9, 12}) {
    const auto env = make({.id = "catch", .max_episode_steps = limit}, 1);
    CHECK(env->spec().max_episode_steps == limit);
    env->reset(seeds_from(1, 1));
    const std::int64_t length = std::min<std::int64_t>(limit, 9);
    for (std::int64_t step = 1; step <= 3 * length; ++step) {
      env->step(stay);
      const bool last = step % length == 0;
      CHECK(env->terminated()[0] == (last && length == 9));
      CHECK(env->truncated()[0] == (last && limit <= 9));
      if (last) CHECK(env->episode_lengths()[0] == length);
    }
  }
  CHECK(make({.id = "CartPole-v1"}, 1)->spec().max_episode_steps == 500);
  CHECK(make({.id = "MountainCar-v0"}, 1)->spec().max_episode_steps == 200);
  CHECK(make({.id = "Acrobot-v1"}, 1)->spec().max_episode_steps == 500);
  CHECK(make({.id = "MinAtar/breakout"}, 1)->spec().max_episode_steps == 0);
}

TEST_CASE("seeds: what a slot does depends on its seed and actions, not on how many slots there are") {
  for (const std::string& id : builtin_ids()) {
    INFO(id);
    const auto few = make({.id = id, .max_episode_steps = 50}, 3);
    const auto many = make({.id = id, .max_episode_steps = 50}, 8);
    const auto other = make({.id = id, .max_episode_steps = 50}, 3);
    few->reset(seeds_from(40, 3));
    many->reset(seeds_from(40, 8));
    other->reset(seeds_from(90, 3));
    Rng rng(8);
    bool differs = false;
    for (int step = 0; step < 300; ++step) {
      const auto actions = random_actions(*many, rng);
      many->step(actions);
      few->step(std::span(actions).first(3));
      other->step(std::span(actions).first(3));
      for (std::size_t slot = 0; slot < 3; ++slot) {
        REQUIRE(moment(*few, slot) == moment(*many, slot));
        differs |= moment(*few, slot) != moment(*other, slot);
      }
    }
    CHECK(differs == (id != "bsuite/deep_sea"));  // which has no randomness by default
  }
}

TEST_CASE("seeds: a slot seeded again repeats itself whatever it did before, and leaves the others alone") {
  for (const std::string& id : builtin_ids()) {
    INFO(id);
    const auto fresh = make({.id = id, .max_episode_steps = 50}, 2);
    const auto used = make({.id = id, .max_episode_steps = 50}, 2);
    const auto witness_of_rest = make({.id = id, .max_episode_steps = 50}, 2);
    fresh->reset(seeds_from(1, 2));
    used->reset(seeds_from(77, 2));
    witness_of_rest->reset(seeds_from(77, 2));
    Rng rng(4);
    for (int step = 0; step < 83; ++step) {
      const auto actions = random_actions(*used, rng);
      used->step(actions);
      witness_of_rest->step(actions);
    }
    used->reset_slot(0, 1);
    CHECK(row_bytes(*used, used->observation(0), 0) == row_bytes(*fresh, fresh->observation(0), 0));
    for (int step = 0; step < 100; ++step) {
      const auto actions = random_actions(*used, rng);
      used->step(actions);
      fresh->step(actions);
      witness_of_rest->step(actions);
      REQUIRE(moment(*used, 0) == moment(*fresh, 0));
      REQUIRE(moment(*used, 1) == moment(*witness_of_rest, 1));
    }
  }
}

TEST_CASE("snapshots: a slot restored elsewhere goes on bit for bit") {
  for (const std::string& id : builtin_ids()) {
    INFO(id);
    const EnvConfig config{.id = id, .max_episode_steps = 60};
    const auto straight = make(config, 3);
    REQUIRE(straight->spec().can_snapshot);
    straight->reset(seeds_from(10, 3));
    Rng rng(6);
    for (int step = 0; step < 137; ++step) straight->step(random_actions(*straight, rng));
    const auto resumed = make(config, 3);
    resumed->reset(seeds_from(999, 3));
    resumed->step(random_actions(*resumed, rng));
    for (std::size_t slot = 0; slot < 3; ++slot) {
      const auto bytes = straight->snapshot(slot);
      CHECK(bytes == straight->snapshot(slot));
      resumed->restore(slot, bytes);
      CHECK(resumed->snapshot(slot) == bytes);
      CHECK(resumed->rewards()[slot] == 0);
      REQUIRE(row_bytes(*resumed, resumed->observation(0), slot) ==
              row_bytes(*straight, straight->observation(0), slot));
    }
    for (int step = 0; step < 300; ++step) {
      const auto actions = random_actions(*straight, rng);
      straight->step(actions);
      resumed->step(actions);
      for (std::size_t slot = 0; slot < 3; ++slot) REQUIRE(moment(*straight, slot) == moment(*resumed, slot));
    }
  }
}

TEST_CASE("snapshots: cut and altered bytes are refused or harmless") {
  for (const std::string& id : builtin_ids()) {
    INFO(id);
    const auto env = make({.id = id}, 1);
    const auto seeds = seeds_from(10, 1);
    env->reset(seeds);
    Rng rng(6);
    env->step(random_actions(*env, rng));
    const auto good = env->snapshot(0);
    for (std::size_t size = 0; size < good.size(); ++size) {
      env->reset(seeds);
      CHECK_THROWS_AS(env->restore(0, std::span(good).first(size)), InputError);
    }
    for (std::size_t at = 0; at < good.size(); ++at) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        auto bad = good;
        bad[at] ^= static_cast<std::byte>(flip);
        env->reset(seeds);
        try {
          env->restore(0, bad);
          for (int step = 0; step < 20; ++step) env->step(random_actions(*env, rng));
        } catch (const Error&) {
          // Refused at once, or when the numbers blew up: both name the place. What counts is that nothing else breaks.
        }
      }
    }
    env->reset(seeds);
    env->restore(0, good);
    CHECK(env->snapshot(0) == good);
  }
}

TEST_CASE("rendering: the grid games are shown, the others say that they cannot") {
  for (const char* id : {"catch", "MinAtar/asterix", "MinAtar/breakout", "MinAtar/freeway", "MinAtar/seaquest",
                         "MinAtar/space_invaders"}) {
    const auto env = make({.id = id}, 2);
    env->reset(seeds_from(1, 2));
    int height = 0;
    int width = 0;
    const auto picture = env->render(1, height, width);
    CHECK(height == 160);
    CHECK(picture.size() == static_cast<std::size_t>(3 * height * width));
    CHECK(*std::max_element(picture.begin(), picture.end()) == 255);
    CHECK(*std::min_element(picture.begin(), picture.end()) == 0);
  }
  const auto env = make({.id = "CartPole-v1"}, 1);
  env->reset(seeds_from(1, 1));
  int size = 0;
  CHECK(!env->spec().can_render);
  CHECK_THROWS_AS(env->render(0, size, size), RunError);
}
