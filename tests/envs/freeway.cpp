// MinAtar freeway against the numeric checks of its published rules.
#include "envs/games/freeway.h"

#include <cstdlib>
#include <set>
#include <vector>

#include "tests/envs/trial.h"

using namespace qanat;
using namespace qanat::envs;
using namespace qanat::envs::minatar;

namespace {

using Game = Trial<Freeway>;
using Speeds = std::array<int, 8>;  // for rows 1 to 8; above 0 to the right

constexpr Speeds mixed = {1, -2, 3, -4, 5, -1, 2, -3};

Freeway::Car car_of(int signed_speed, int column) {
  const auto speed = static_cast<std::int8_t>(std::abs(signed_speed));
  return {static_cast<std::int8_t>(column), speed, static_cast<std::int8_t>(signed_speed > 0 ? 1 : -1), speed};
}

Game with_speeds(const Speeds& speeds) {
  Game game;
  game.with([&](Freeway::State& s) {
    for (std::size_t i = 0; i < speeds.size(); ++i) s.cars[i] = car_of(speeds[i], 0);
  });
  return game;
}

Speeds all(int speed) {
  Speeds speeds{};
  speeds.fill(speed);
  return speeds;
}

std::vector<int> columns(const Game& game) {
  std::vector<int> out;
  for (const Freeway::Car& car : game.state().cars) out.push_back(car.column);
  return out;
}

// With up held: the steps after which the chicken's row is another, with the row.
std::vector<std::pair<int, int>> walk(Game& game, int steps) {
  std::vector<std::pair<int, int>> out;
  for (int row = game.state().row; game.steps() < steps; row = game.state().row) {
    game.step(up);
    if (game.state().row != row) out.emplace_back(game.steps(), game.state().row);
  }
  return out;
}

}  // namespace

TEST_CASE("freeway: a start has one car a row in column 0 and the chicken at home") {
  Game game;
  CHECK(game.cells(0) == std::vector<Cell>{{9, 4}});
  CHECK(game.cells(1) == std::vector<Cell>{{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}});
  CHECK(game.state().move_countdown == 3);
  for (const Freeway::Car& car : game.state().cars) CHECK(car.countdown == car.speed);
}

TEST_CASE("freeway: cars of all speeds are where the rules say, for a whole episode") {
  Game game = with_speeds(mixed);
  CHECK(columns(game.play_to(3)) == std::vector<int>{1, 9, 0, 0, 0, 9, 1, 0});
  CHECK(columns(game.play_to(10)) == std::vector<int>{5, 7, 2, 8, 1, 5, 3, 8});
  CHECK(game.cells(2) == std::vector<Cell>{{1, 4}, {6, 6}});
  CHECK(game.cells(3) == std::vector<Cell>{{2, 8}, {7, 2}});
  CHECK(game.cells(4) == std::vector<Cell>{{3, 1}, {8, 9}});
  CHECK(game.cells(5) == std::vector<Cell>{{4, 9}});
  CHECK(game.cells(6) == std::vector<Cell>{{5, 0}});
  while (game.steps() < 1000) {
    game.step();
    REQUIRE(game.counts() == std::array<int, 7>{1, 8, 2, 2, 2, 1, 1});
  }
  CHECK(columns(game) == std::vector<int>{0, 7, 0, 0, 6, 0, 3, 0});
  CHECK(columns(game.play_to(2500)) == std::vector<int>{0, 7, 5, 0, 6, 0, 3, 5});
  CHECK(!game.ended());
  game.step();
  CHECK(game.ended());
  CHECK(game.total() == 0);
}

TEST_CASE("freeway: up held through mixed traffic") {
  Game game = with_speeds(mixed);
  CHECK(walk(game, 52) == std::vector<std::pair<int, int>>{{4, 8},
                                                           {7, 7},
                                                           {10, 6},
                                                           {12, 9},
                                                           {13, 8},
                                                           {16, 7},
                                                           {19, 6},
                                                           {22, 5},
                                                           {24, 9},
                                                           {31, 8},
                                                           {34, 7},
                                                           {37, 6},
                                                           {40, 5},
                                                           {43, 4},
                                                           {46, 3},
                                                           {49, 9},
                                                           {52, 8}});
}

TEST_CASE("freeway: up held through even traffic") {
  Game free = with_speeds(all(-5));
  free.play_to(28, up);
  CHECK(free.paid() == std::vector<int>{28});
  CHECK(free.state().row == 9);

  for (const int speed : {5, -3}) {
    Game game = with_speeds(all(speed));
    std::vector<int> hits;
    while (game.total() == 0) {
      const int row = game.state().row;
      const float reward = game.step(up);
      if (reward == 0 && row != 9 && game.state().row == 9) hits.push_back(game.steps());
    }
    CHECK(hits == std::vector<int>{24});
    CHECK(game.paid() == std::vector<int>{55});
  }

  Game fast = with_speeds(all(1));
  std::vector<int> hits;
  while (fast.steps() < 48) {
    const int row = fast.state().row;
    fast.step(up);
    // The step of a hit may be one of a move too.
    if (row <= 8 && fast.state().row == 9) hits.push_back(fast.steps());
  }
  CHECK(hits == std::vector<int>{8, 28, 48});
  CHECK(fast.total() == 0);
}

TEST_CASE("freeway: a move against the border uses up the move") {
  Game game;
  game.with([](Freeway::State& s) {
    for (auto& car : s.cars) car = car_of(5, 6);
  });
  std::vector<int> row_8;
  for (int step = 1; step <= 7; ++step) {
    game.step(step == 1 || step == 4 ? down : step >= 5 ? up : none);
    if (game.state().row == 8) row_8.push_back(step);
  }
  CHECK(row_8 == std::vector<int>{7});
}

TEST_CASE("freeway: a crossing draws the cars anew where they are") {
  Game game = with_speeds(all(-5));
  std::set<int> drawn;
  for (int crossing = 0; crossing < 40; ++crossing) {
    const auto before = columns(game);
    // One row below the goal, with the move due: it pays, and the winning step counts towards the new countdowns.
    game.with([](Freeway::State& s) {
      s.row = 1;
      s.move_countdown = 0;
      for (auto& car : s.cars) car.countdown = car.speed;
    });
    CHECK(game.step(up) == 1);
    CHECK(columns(game) == before);
    CHECK(game.state().row == 9);
    CHECK(game.state().move_countdown == 2);
    for (const Freeway::Car& car : game.state().cars) {
      CHECK(car.countdown == car.speed - 1);
      drawn.insert(car.speed * car.heading);
    }
  }
  CHECK(drawn == std::set<int>{-5, -4, -3, -2, -1, 1, 2, 3, 4, 5});
}

TEST_CASE("freeway: speeds and directions are drawn evenly") {
  Freeway game{env::Options("")};
  env::Rng rng(8);
  constexpr int resets = 4'000;
  std::array<int, 11> counts{};
  for (int i = 0; i < resets; ++i) {
    game.reset(rng);
    for (const auto& car : game.state().cars) ++counts[static_cast<std::size_t>(car.speed * car.heading + 5)];
  }
  const double cars = 8 * resets;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    if (i == 5) continue;
    CHECK(std::abs(counts[i] - cars / 10) < 5 * std::sqrt(cars * 0.1 * 0.9));  // binomial, 5 standard errors
  }
  CHECK(counts[5] == 0);
}
