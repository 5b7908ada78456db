#include "actors/priority_window.h"

#include <cmath>
#include <limits>
#include <set>

#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;

namespace {

struct Played {
  std::uint64_t row;
  float best_q, taken_q, reward;
};

AgentView agent_of(std::int64_t n) {
  AgentView agent;
  agent.n_step = n;
  agent.gamma = 0.9;
  agent.priority_epsilon = 0.01;
  return agent;
}

// The definition, in double precision: |h(sum gamma^k clip(r_k) + gamma^m h^-1(Q)) - q| + epsilon.
double definition(const AgentView& agent, const std::vector<Played>& rows, std::size_t start, std::size_t steps,
                  bool terminal, double next_q) {
  double sum = 0;
  for (std::size_t k = 0; k < steps; ++k) {
    double reward = rows[start + k].reward;
    if (agent.reward_clip > 0) reward = std::max(-agent.reward_clip, std::min(agent.reward_clip, reward));
    sum += std::pow(agent.gamma, static_cast<double>(k)) * reward;
  }
  const double e = static_cast<double>(agent.td.rescale_epsilon);
  const auto sign = [](double x) { return x < 0 ? -1.0 : 1.0; };
  if (agent.td.rescale) {
    const double u = (std::sqrt(1 + 4 * e * (std::abs(next_q) + 1 + e)) - 1) / (2 * e);
    next_q = sign(next_q) * (u * u - 1);
  }
  if (!terminal) sum += std::pow(agent.gamma, static_cast<double>(steps)) * next_q;
  if (agent.td.rescale) sum = sign(sum) * (std::sqrt(std::abs(sum) + 1) - 1) + e * sum;
  return std::abs(sum - static_cast<double>(rows[start].taken_q)) + agent.priority_epsilon;
}

// One episode of `length` random steps; every item must come once, in order, with the defined priority.
std::vector<double> play_and_check(const AgentView& agent, std::size_t length, bool terminated, std::uint64_t seed) {
  PriorityWindows windows(agent, 3);
  const auto n = static_cast<std::size_t>(agent.n_step);
  Rng rng(seed);
  const auto number = [&] { return static_cast<float>(rng.uniform(-3, 3)); };
  std::vector<Played> rows;
  std::vector<double> priorities;
  constexpr std::uint64_t first_row = 100;
  const auto check = [&](const PricedItem& item, std::size_t start, std::size_t steps, bool terminal, double next_q) {
    REQUIRE(item.start_row == first_row + start);
    const double wanted = definition(agent, rows, start, steps, terminal, next_q);
    // A few f32 roundings of numbers below 32 (eight terms below 3, h^-1 of 3 is below 16).
    REQUIRE(std::abs(static_cast<double>(item.priority) - wanted) < 32 * 8 * 6e-8);
    priorities.push_back(wanted);
  };
  for (std::size_t t = 0; t < length; ++t) {
    const Played now{first_row + t, number(), number(), number()};
    const auto item = windows.step(1, now.row, now.best_q, now.taken_q, now.reward);
    REQUIRE(item.has_value() == (t >= n));
    if (item) check(*item, t - n, n, false, static_cast<double>(now.best_q));
    rows.push_back(now);
  }
  const float final_q = terminated ? std::numeric_limits<float>::quiet_NaN() : number();
  std::vector<PricedItem> out;
  windows.end(1, first_row + length, terminated, final_q, out);
  const auto open = std::min(n, length);
  REQUIRE(out.size() == open);
  for (std::size_t i = 0; i < open; ++i) {
    check(out[i], length - open + i, open - i, terminated, static_cast<double>(final_q));
  }
  REQUIRE(priorities.size() == length);  // one item a step
  return priorities;
}

}  // namespace

TEST_CASE("priorities: every step of an episode gets the defined TD error, whatever n, length and ending are") {
  for (const std::int64_t n : {1, 3, 5}) {
    for (std::size_t length = 1; length <= 12; ++length) {
      for (const bool terminated : {true, false}) {
        play_and_check(agent_of(n), length, terminated, 17 * length + static_cast<std::size_t>(n));
      }
    }
  }
}

TEST_CASE("priorities: reward clipping and value rescaling count as in the learner") {
  auto agent = agent_of(3);
  agent.reward_clip = 0.7;
  play_and_check(agent, 20, false, 5);
  agent.td.rescale = true;
  play_and_check(agent, 20, false, 6);
  agent.reward_clip = 0;
  play_and_check(agent, 20, true, 7);
}

TEST_CASE("priorities: they differ from item to item") {
  const auto priorities = play_and_check(agent_of(3), 50, false, 3);
  CHECK(std::set<double>(priorities.begin(), priorities.end()).size() == 50);
}

TEST_CASE("priorities: a hand-worked one-step case") {
  PriorityWindows windows(agent_of(1), 1);
  CHECK_FALSE(windows.step(0, 0, 9, 2, 1.5F));
  const auto item = windows.step(0, 1, 4, 3, -1);  // |1.5 + 0.9 * 4 - 2| + 0.01
  REQUIRE(item);
  CHECK(item->start_row == 0);
  CHECK(item->priority == Approx(3.11).epsilon(1e-6));
  std::vector<PricedItem> out;
  windows.end(0, 2, true, 7, out);  // |-1 - 3| + 0.01
  REQUIRE(out.size() == 1);
  CHECK(out[0].start_row == 1);
  CHECK(out[0].priority == Approx(4.01).epsilon(1e-6));
}

TEST_CASE("priorities: nothing crosses into the next episode, nor into a new stream") {
  PriorityWindows windows(agent_of(3), 1);
  std::vector<PricedItem> out;
  for (std::uint64_t row = 0; row < 2; ++row) CHECK_FALSE(windows.step(0, row, 1, 1, 1));
  windows.end(0, 2, true, 0, out);
  CHECK(out.size() == 2);
  for (std::uint64_t row = 3; row < 6; ++row) CHECK_FALSE(windows.step(0, row, 1, 1, 1));
  windows.reset(0);
  for (std::uint64_t row = 0; row < 3; ++row) CHECK_FALSE(windows.step(0, row, 1, 1, 1));
  CHECK(windows.step(0, 3, 1, 1, 1)->start_row == 0);
}

TEST_CASE("priorities: one that is not a finite number is left to the shard") {
  PriorityWindows windows(agent_of(1), 1);
  CHECK_FALSE(windows.step(0, 0, 1, std::numeric_limits<float>::infinity(), 0));
  CHECK_FALSE(windows.step(0, 1, 1, 1, 0));
  std::vector<PricedItem> out;
  windows.end(0, 2, false, std::numeric_limits<float>::quiet_NaN(), out);
  CHECK(out.empty());
}

TEST_CASE("priorities: a saved and loaded window goes on as if nothing had been") {
  const auto agent = agent_of(3);
  PriorityWindows straight(agent, 2);
  for (std::uint64_t row = 0; row < 7; ++row) {
    const auto x = static_cast<float>(row);
    (void)straight.step(0, row, x, 1 + x, 2 - x);
    if (row < 2) (void)straight.step(1, row, -x, x, x);
  }
  ByteWriter bytes;
  straight.save(bytes);
  PriorityWindows loaded(agent, 2);
  ByteReader in(bytes.bytes(), "test");
  loaded.load(in);
  in.expect_end();
  for (std::uint64_t row = 7; row < 12; ++row) {
    const auto x = static_cast<float>(row);
    CHECK(straight.step(0, row, x, 3, 4) == loaded.step(0, row, x, 3, 4));
    CHECK(straight.step(1, row - 5, x, 3, 4) == loaded.step(1, row - 5, x, 3, 4));
  }
}
