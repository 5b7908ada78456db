// MinAtar asterix against the numeric checks of its published rules.
#include "envs/games/asterix.h"

#include <vector>

#include "tests/envs/trial.h"

using namespace qanat;
using namespace qanat::envs;
using namespace qanat::envs::minatar;

namespace {

using Game = Trial<Asterix>;
using Entity = Asterix::Entity;

// A game into which nothing comes, with one entity.
Game with_entity(Entity::Kind kind, Cell place, int heading) {
  Game game;
  game.with([&](Asterix::State& s) {
    s.spawn_countdown = 1000;
    s.in_row(place.first) = {kind, static_cast<std::int8_t>(place.second), static_cast<std::int8_t>(heading)};
  });
  return game;
}

std::vector<int> places_after(std::int32_t action, int steps, bool rows) {
  Game game;
  std::vector<int> out;
  for (int i = 0; i < steps; ++i) {
    game.step(action);
    out.push_back(rows ? game.state().row : game.state().column);
  }
  return out;
}

// Steps of spawns and of group moves in so many steps, the entities being removed after each and the end undone.
struct Timetable {
  std::vector<int> spawns, moves;
};

Timetable timetable(const char* options, int steps) {
  Game game(options);
  Timetable out;
  for (int step = 1; step <= steps; ++step) {
    const bool move = game.state().move_countdown == 0;
    game.step();
    if (move) out.moves.push_back(step);
    bool spawned = false;
    for (const Entity& entity : game.state().lane) spawned |= entity.kind != Entity::empty;
    // A treasure that enters on the player's lane and a move to its cell: the player stands in column 5, so never.
    if (spawned) out.spawns.push_back(step);
    game.with([](Asterix::State& s) {
      s.lane = {};
      s.ended = 0;
    });
  }
  return out;
}

// For each gap below the first, the first step that follows its predecessor so closely.
std::vector<std::pair<int, int>> first_gaps(const std::vector<int>& steps) {
  std::vector<std::pair<int, int>> out;
  int least = steps[1] - steps[0];
  for (std::size_t i = 1; i < steps.size(); ++i) {
    const int gap = steps[i] - steps[i - 1];
    if (gap < least) out.emplace_back(gap, steps[i]);
    least = std::min(least, gap);
  }
  return out;
}

}  // namespace

TEST_CASE("asterix: the player stays in rows 1 to 8 and columns 0 to 9") {
  CHECK(places_after(up, 5, true) == std::vector<int>{4, 3, 2, 1, 1});
  CHECK(places_after(down, 4, true) == std::vector<int>{6, 7, 8, 8});
  CHECK(places_after(left, 6, false) == std::vector<int>{4, 3, 2, 1, 0, 0});
  CHECK(places_after(right, 5, false) == std::vector<int>{6, 7, 8, 9, 9});
  CHECK(places_after(fire, 2, false) == std::vector<int>{5, 5});
}

TEST_CASE("asterix: nothing but the player is there through step 10") {
  Game game;
  CHECK(game.cells(0) == std::vector<Cell>{{5, 5}});
  for (int step = 1; step <= 10; ++step) {
    game.step();
    CHECK(game.counts() == std::array<int, 4>{1, 0, 0, 0});
  }
  // The first spawn meets a move: the entity is first seen one column in.
  game.step();
  CHECK(game.counts()[1] + game.counts()[3] == 1);
  const auto seen = game.counts()[1] == 1 ? game.cells(1) : game.cells(3);
  CHECK((seen[0].second == 1 || seen[0].second == 8));
  CHECK(game.cells(2) == std::vector<Cell>{{seen[0].first, seen[0].second == 1 ? 0 : 9}});
}

TEST_CASE("asterix: an enemy that moves onto the player ends the game, a treasure pays") {
  Game enemy = with_entity(Entity::enemy, {5, 4}, 1);
  enemy.play_to(5);
  CHECK(!enemy.ended());
  CHECK(enemy.step() == 0);
  CHECK(enemy.ended());
  CHECK(enemy.cells(1) == std::vector<Cell>{{5, 5}});
  CHECK(enemy.cells(2) == std::vector<Cell>{{5, 4}});

  Game treasure = with_entity(Entity::treasure, {5, 6}, -1);
  treasure.play_to(20);
  CHECK(treasure.paid() == std::vector<int>{6});
  CHECK(treasure.total() == 1);
  CHECK(!treasure.ended());
}

TEST_CASE("asterix: walking into an enemy about to move away ends the game") {
  Game game = with_entity(Entity::enemy, {5, 6}, -1);
  game.play_to(5);
  game.step(right);
  CHECK(game.ended());
  CHECK(game.cells(0) == std::vector<Cell>{{5, 6}});
  CHECK(game.cells(1) == std::vector<Cell>{{5, 5}});
  CHECK(game.cells(2) == std::vector<Cell>{{5, 6}});
}

TEST_CASE("asterix: entities leave at the edges, and a trail off the grid is not shown") {
  Game game = with_entity(Entity::enemy, {2, 9}, 1);
  game.with([](Asterix::State& s) { s.in_row(3) = {Entity::treasure, 0, 1}; });
  CHECK(game.cells(2) == std::vector<Cell>{{2, 8}});
  game.play_to(6);
  CHECK(game.counts() == std::array<int, 4>{1, 0, 1, 1});
  CHECK(game.cells(3) == std::vector<Cell>{{3, 1}});
}

TEST_CASE("asterix: spawns and moves come in the published steps") {
  const Timetable ramped = timetable("sticky=0", 1000);
  CHECK(std::vector<int>(ramped.spawns.begin(), ramped.spawns.begin() + 14) ==
        std::vector<int>{11, 21, 31, 41, 51, 61, 71, 81, 91, 101, 111, 120, 129, 138});
  CHECK(first_gaps(ramped.spawns) ==
        std::vector<std::pair<int, int>>{
            {9, 120}, {8, 218}, {7, 321}, {6, 418}, {5, 519}, {4, 618}, {3, 721}, {2, 819}, {1, 920}});
  CHECK(std::vector<int>(ramped.moves.begin(), ramped.moves.begin() + 4) == std::vector<int>{6, 11, 16, 21});
  CHECK(first_gaps(ramped.moves) == std::vector<std::pair<int, int>>{{4, 210}, {3, 413}, {2, 616}, {1, 819}});

  const Timetable level = timetable("sticky=0, ramping=false", 1000);
  CHECK(level.spawns.size() == 99);
  CHECK(level.moves.size() == 199);
}

TEST_CASE("asterix: ramps fire every 102 steps, nine in all") {
  Game game;
  std::vector<int> ramps;
  for (int step = 1; step <= 2000; ++step) {
    const int before = game.state().level;
    game.step();
    if (game.state().level > before) ramps.push_back(step);
    game.with([](Asterix::State& s) {
      s.lane = {};
      s.ended = 0;
    });
  }
  CHECK(ramps == std::vector<int>{102, 204, 306, 408, 510, 612, 714, 816, 918});
  CHECK(game.state().spawn_interval == 1);
  CHECK(game.state().move_interval == 1);
}

TEST_CASE("asterix: spawns are as likely as the rules say, and only in empty lanes") {
  // Draws from a board whose lanes 1 to 5 are taken. Counts are binomial: 5 standard errors each.
  Asterix game{env::Options("sticky=0")};
  env::Rng rng(5);
  constexpr int draws = 30'000;
  int rightwards = 0, treasures = 0;
  std::array<int, 3> lanes{};
  for (int i = 0; i < draws; ++i) {
    Asterix::State s;
    s.spawn_countdown = 0;
    for (int row = 1; row <= 5; ++row) s.in_row(row) = {Entity::enemy, 0, 1};
    game.set_state(s);
    static_cast<void>(game.step(none, rng));
    for (int row = 6; row <= 8; ++row) {
      const Entity& entity = game.state().lane[static_cast<std::size_t>(row - 1)];
      if (entity.kind == Entity::empty) continue;
      ++lanes[static_cast<std::size_t>(row - 6)];
      rightwards += entity.heading == 1;
      treasures += entity.kind == Entity::treasure;
      REQUIRE(entity.column == (entity.heading == 1 ? 0 : 9));
    }
  }
  const auto near = [](int count, double p) {
    return std::abs(count - draws * p) < 5 * std::sqrt(draws * p * (1 - p));
  };
  CHECK(near(rightwards, 0.5));
  CHECK(near(treasures, 1.0 / 3));
  CHECK(lanes[0] + lanes[1] + lanes[2] == draws);
  for (const int lane : lanes) CHECK(near(lane, 1.0 / 3));

  // No empty lane: nothing, and the countdown starts anew all the same.
  Asterix::State full;
  full.spawn_countdown = 0;
  for (Entity& entity : full.lane) entity = {Entity::enemy, 0, 1};
  game.set_state(full);
  static_cast<void>(game.step(none, rng));
  CHECK(game.state().lane == full.lane);
  CHECK(game.state().spawn_countdown == 9);
}
