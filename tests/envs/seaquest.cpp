// MinAtar seaquest against the numeric checks of its published rules.
#include "envs/games/seaquest.h"

#include <map>
#include <vector>

#include "tests/envs/trial.h"

using namespace qanat;
using namespace qanat::envs;
using namespace qanat::envs::minatar;

namespace {

using Game = Trial<Seaquest>;
using State = Seaquest::State;
using Swimmer = Seaquest::Swimmer;

constexpr int front = 0, back = 1, own_bullet = 2, trail = 3, enemy_bullet = 4, fish = 5, submarine = 6, gauge = 7,
              diver_gauge = 8, diver = 9;

// A game into which nothing comes, with the player somewhere.
Game quiet(Cell place, int heading = -1) {
  Game game;
  game.with([&](State& s) {
    s.spawn_countdown = s.diver_countdown = 1'000'000;
    s.row = place.first;
    s.column = place.second;
    s.heading = heading;
    s.surfaced = place.first == 0;
  });
  return game;
}

Swimmer swimmer(Cell place, int heading, int move_countdown = 0, int shot_countdown = 0) {
  return {static_cast<std::int8_t>(place.first), static_cast<std::int8_t>(place.second),
          static_cast<std::int8_t>(heading), static_cast<std::int8_t>(move_countdown),
          static_cast<std::int8_t>(shot_countdown)};
}

int cells_of(const Game& game, int plane) { return game.counts()[static_cast<std::size_t>(plane)]; }

// At (1, 5) under the surface, with so much oxygen and so many divers, going up.
Game surfacing(int oxygen, int divers) {
  Game game = quiet({1, 5});
  game.with([&](State& s) {
    s.oxygen = oxygen;
    s.divers = divers;
  });
  game.step(up);
  return game;
}

}  // namespace

TEST_CASE("seaquest: a start, and no-ops at the surface do nothing for ever") {
  Game game;
  CHECK(game.cells(front) == std::vector<Cell>{{0, 5}});
  CHECK(game.cells(back) == std::vector<Cell>{{0, 6}});
  CHECK(game.counts() == std::array<int, 10>{1, 1, 0, 0, 0, 0, 0, 10, 0, 0});
  game.play_to(5000);
  CHECK(!game.ended());
  CHECK(game.total() == 0);
  CHECK(game.state().oxygen == 200);
}

TEST_CASE("seaquest: fire held shoots every five steps") {
  Game game = quiet({0, 5});
  std::vector<std::vector<Cell>> shown;
  while (game.steps() < 11) {
    game.step(fire);
    shown.push_back(game.cells(own_bullet));
  }
  for (const int round : {0, 5}) {
    for (int i = 0; i < 5; ++i) CHECK(shown[static_cast<std::size_t>(round + i)] == std::vector<Cell>{{0, 4 - i}});
  }
  CHECK(shown[10] == std::vector<Cell>{{0, 4}});
}

TEST_CASE("seaquest: moves keep to the water, and the back stays behind the front") {
  Game away = quiet({0, 5});
  away.step(down);
  CHECK(!away.ended());
  away.step(up);
  CHECK(away.ended());
  CHECK(cells_of(away, gauge) == 9);

  Game deep = quiet({0, 5});
  std::vector<int> rows;
  while (deep.steps() < 10) {
    deep.step(down);
    rows.push_back(deep.state().row);
    CHECK(cells_of(deep, gauge) == 9);
  }
  CHECK(rows == std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 8, 8});

  Game wide = quiet({0, 5});
  std::vector<int> fronts, backs;
  while (wide.steps() < 7) {
    wide.step(wide.steps() < 6 ? left : right);
    fronts.push_back(wide.cells(front)[0].second);
    backs.push_back(wide.cells(back)[0].second);
  }
  CHECK(fronts == std::vector<int>{4, 3, 2, 1, 0, 0, 1});
  CHECK(backs == std::vector<int>{5, 4, 3, 2, 1, 1, 0});
}

TEST_CASE("seaquest: oxygen lasts for 200 steps under water") {
  Game game = quiet({0, 5});
  game.step(down);
  CHECK(cells_of(game, gauge) == 9);
  CHECK(cells_of(game.play_to(20), gauge) == 9);
  CHECK(cells_of(game.play_to(21), gauge) == 8);
  CHECK(cells_of(game.play_to(180), gauge) == 1);
  CHECK(cells_of(game.play_to(181), gauge) == 0);
  CHECK(game.play_out({none}) == 201);
  CHECK(game.total() == 0);
}

TEST_CASE("seaquest: surfacing with six divers pays by the oxygen left") {
  for (const auto& [oxygen, reward] : std::map<int, float>{{199, 9}, {137, 6}, {20, 1}, {19, 0}, {0, 0}}) {
    INFO(oxygen);
    const Game game = surfacing(oxygen, 6);
    CHECK(game.total() == reward);
    CHECK(game.ended() == (oxygen == 0));
    CHECK(cells_of(game, gauge) == 10);
    CHECK(cells_of(game, diver_gauge) == 0);
    CHECK(game.state().divers == -1);
  }
}

TEST_CASE("seaquest: after a rescue the count is -1, and surfacing goes on working") {
  Game game = surfacing(150, 6);
  std::vector<float> rewards = {game.total()};
  for (const std::int32_t action : {down, up, down, up}) rewards.push_back(game.step(action));
  CHECK(rewards == std::vector<float>{7, 0, 0, 0, 0});
  CHECK(!game.ended());
  CHECK(game.state().divers == -3);
  CHECK(game.state().oxygen == 200);
  CHECK(cells_of(game, diver_gauge) == 0);

  // The next diver makes it 0, and surfacing with exactly 0 ends the game.
  Game zero = surfacing(150, 6);
  zero.with([](State& s) { s.swimmers.add(swimmer({1, 5}, 1, 5)); });
  zero.step(down);
  CHECK(zero.state().divers == 0);
  CHECK(zero.cells(diver).empty());
  zero.step(up);
  CHECK(zero.ended());
}

TEST_CASE("seaquest: surfacing with one to five divers costs one") {
  for (const auto& [before, shown] : std::map<int, int>{{1, 0}, {3, 2}, {5, 4}}) {
    const Game game = surfacing(100, before);
    CHECK(game.total() == 0);
    CHECK(!game.ended());
    CHECK(cells_of(game, diver_gauge) == shown);
    CHECK(game.state().oxygen == 200);
  }
  CHECK(surfacing(100, 5).cells(diver_gauge) == std::vector<Cell>{{9, 5}, {9, 6}, {9, 7}, {9, 8}});
}

TEST_CASE("seaquest: surfacings make it harder, ramping on") {
  const auto intervals = [](const char* options, int surfacings) {
    Game game(options);
    std::vector<std::pair<int, int>> out;
    for (int i = 0; i < surfacings; ++i) {
      game.with([](State& s) {
        s = State{.divers = 5,
                  .surfaced = 0,
                  .spawn_interval = s.spawn_interval,
                  .spawn_countdown = 1000,
                  .move_interval = s.move_interval,
                  .level = s.level};
      });
      game.step();
      out.emplace_back(game.state().spawn_interval, game.state().move_interval);
    }
    return out;
  };
  const auto ramped = intervals("sticky=0", 25);
  CHECK(std::vector<std::pair<int, int>>(ramped.begin(), ramped.begin() + 6) ==
        std::vector<std::pair<int, int>>{{19, 5}, {18, 4}, {17, 4}, {16, 3}, {15, 3}, {14, 2}});
  CHECK(ramped[17] == std::pair{2, 2});
  CHECK(ramped[18] == std::pair{1, 2});
  CHECK(ramped[24] == std::pair{1, 2});
  CHECK(intervals("sticky=0, ramping=false", 3).back() == std::pair{20, 5});
}

TEST_CASE("seaquest: own bullets meet fish and submarines one cell ahead at first") {
  const auto shoot = [](auto&& add) {
    Game game = quiet({1, 5});
    game.with(add);
    game.step(fire);
    while (!game.ended() && game.steps() < 8) game.step();
    return game;
  };
  const Game coming = shoot([](State& s) { s.fish.add(swimmer({1, 1}, 1, 5)); });
  CHECK(coming.paid() == std::vector<int>{4});
  CHECK(coming.cells(fish).empty());
  CHECK(coming.cells(own_bullet).empty());

  const Game touching = shoot([](State& s) { s.fish.add(swimmer({1, 5}, 1, 5)); });
  CHECK(touching.ended());
  CHECK(touching.steps() == 1);
  CHECK(touching.total() == 0);

  // The bullet shown at (1, 4) and the fish that steps there.
  const Game meeting = shoot([](State& s) { s.fish.add(swimmer({1, 3}, 1, 0)); });
  CHECK(meeting.paid() == std::vector<int>{1});

  const Game both = shoot([](State& s) {
    s.fish.add(swimmer({1, 4}, -1, 5));
    s.submarines.add(swimmer({1, 4}, -1, 5, 10));
  });
  CHECK(both.total() == 1);
  CHECK(cells_of(both, fish) == 0);
  CHECK(cells_of(both, submarine) == 1);
}

TEST_CASE("seaquest: a fresh submarine moves every six steps and shoots every eleven") {
  Game game = quiet({0, 5});
  game.with([](State& s) { s.submarines.add(swimmer({4, 0}, 1, 5, 10)); });
  std::vector<std::pair<int, int>> moves;  // step, column
  for (int column = 0; game.steps() < 24;) {
    game.step();
    const int now = game.cells(submarine).at(0).second;
    if (now != column) moves.emplace_back(game.steps(), now);
    column = now;
    const auto bullets = game.cells(enemy_bullet);
    if (game.steps() == 10 || game.steps() == 19 || game.steps() == 21) CHECK(bullets.empty());
    if (game.steps() == 11) CHECK(bullets == std::vector<Cell>{{4, 2}});
    if (game.steps() == 18) CHECK(bullets == std::vector<Cell>{{4, 9}});
    if (game.steps() == 22) CHECK(bullets == std::vector<Cell>{{4, 4}});
    if (game.steps() == 22) CHECK(game.cells(trail) == std::vector<Cell>{{4, 2}});
  }
  CHECK(moves == std::vector<std::pair<int, int>>{{6, 1}, {12, 2}, {18, 3}, {24, 4}});
}

TEST_CASE("seaquest: an enemy bullet ends the game before and after its move") {
  const std::vector<std::pair<int, std::int32_t>> cases = {{5, none}, {5, left}, {6, left}};
  for (const auto& [column, action] : cases) {
    Game game = quiet({1, column});
    game.with([](State& s) { s.enemy_bullets.add(swimmer({1, 4}, 1)); });
    game.step(action);
    CHECK(game.ended());
  }
}

TEST_CASE("seaquest: divers come aboard up to six, the others pass through") {
  Game game = quiet({3, 5});
  game.with([](State& s) {
    s.divers = 5;
    s.swimmers.add(swimmer({3, 5}, 1, 5));
    s.swimmers.add(swimmer({3, 5}, -1, 5));
  });
  CHECK(game.cells(trail) == std::vector<Cell>{{3, 4}, {3, 6}});
  game.step();
  CHECK(game.state().divers == 6);
  CHECK(game.cells(diver) == std::vector<Cell>{{3, 5}});
  CHECK(game.cells(diver_gauge).size() == 6);

  // Tested again after its own move.
  Game later = quiet({3, 5});
  later.with([](State& s) { s.swimmers.add(swimmer({3, 4}, 1, 5)); });
  later.play_to(5);
  CHECK(later.state().divers == 0);
  later.step();
  CHECK(later.state().divers == 1);
}

TEST_CASE("seaquest: spawns come in their steps, as likely as the rules say, never against the row's direction") {
  // The player waits at the surface, where nothing comes.
  Game game("sticky=0", 3);
  int fishes = 0, submarines = 0, rightwards = 0, divers = 0;
  std::array<int, 8> rows{};
  constexpr int spawns = 20'000;
  for (int i = 0; i < spawns; ++i) {
    game.with([](State& s) {
      s.spawn_countdown = s.diver_countdown = 0;
      s.fish = {};
      s.submarines = {};
      s.enemy_bullets = {};
      s.swimmers = {};
    });
    game.step();
    REQUIRE(game.state().fish.size() + game.state().submarines.size() == 1);
    REQUIRE(game.state().spawn_countdown == 19);
    REQUIRE(game.state().diver_countdown == 29);
    const bool is_fish = game.state().fish.size() == 1;
    const Swimmer& enemy = is_fish ? game.state().fish[0] : game.state().submarines[0];
    ++(is_fish ? fishes : submarines);
    rightwards += enemy.heading == 1;
    ++rows[static_cast<std::size_t>(enemy.row - 1)];
    REQUIRE(enemy == swimmer({enemy.row, enemy.heading == 1 ? 0 : 9}, enemy.heading, 4, is_fish ? 0 : 9));
    divers += game.state().swimmers.size();
  }
  const auto near = [](int count, double p) {
    return std::abs(count - spawns * p) < 5 * std::sqrt(spawns * p * (1 - p));  // binomial, 5 standard errors
  };
  CHECK(near(submarines, 1.0 / 3));
  CHECK(near(rightwards, 0.5));
  for (const int row : rows) CHECK(near(row, 1.0 / 8));
  CHECK(divers == spawns);

  // Every row has a fish heading left: half of the spawns are refused.
  int came = 0;
  for (int i = 0; i < spawns; ++i) {
    game.with([](State& s) {
      s.spawn_countdown = 0;
      s.fish = {};
      s.submarines = {};
      s.enemy_bullets = {};
      for (int row = 1; row <= 8; ++row) s.fish.add(swimmer({row, 8}, -1, 5));
    });
    game.step();
    came += game.state().fish.size() + game.state().submarines.size() - 8;
    REQUIRE(game.state().spawn_countdown == 19);
  }
  CHECK(near(came, 0.5));
}

TEST_CASE("seaquest: the first spawns come in steps 21 and 31, then every 20 and 30") {
  Game game;
  std::vector<int> enemies, divers;
  while (game.steps() < 100) {
    game.with([](State& s) {
      s.fish = {};
      s.submarines = {};
      s.swimmers = {};
    });
    game.step();
    if (game.state().fish.size() + game.state().submarines.size() > 0) enemies.push_back(game.steps());
    if (game.state().swimmers.size() > 0) divers.push_back(game.steps());
  }
  CHECK(enemies == std::vector<int>{21, 41, 61, 81});
  CHECK(divers == std::vector<int>{31, 61, 91});
}

TEST_CASE("seaquest: a long game at the hardest level never fills its lists") {
  Game game("sticky=0", 11);
  game.with([](State& s) {
    s.spawn_interval = 1;
    s.spawn_countdown = 0;
    s.move_interval = 2;
    s.level = 19;
  });
  int most = 0;
  while (game.steps() < 100'000) {
    game.step();  // at the surface, where nothing can touch it
    const State& s = game.state();
    most = std::max({most, s.fish.size(), s.submarines.size(), s.enemy_bullets.size()});
    REQUIRE(s.swimmers.size() <= 3);
  }
  CHECK(!game.ended());
  CHECK(most > 10);
  CHECK(most <= 40);
}
