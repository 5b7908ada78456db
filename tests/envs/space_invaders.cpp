// MinAtar space_invaders against the numeric checks of its published rules.
#include "envs/games/space_invaders.h"

#include <bit>
#include <map>
#include <vector>

#include "tests/envs/trial.h"

using namespace qanat;
using namespace qanat::envs;
using namespace qanat::envs::minatar;

namespace {

using Game = Trial<SpaceInvaders>;
using State = SpaceInvaders::State;

std::uint16_t bit(int column) { return static_cast<std::uint16_t>(1U << column); }

void place(SpaceInvaders::Cells& cells, Cell cell) { cells[static_cast<std::size_t>(cell.first)] |= bit(cell.second); }

Game with_aliens(const std::vector<Cell>& aliens) {
  Game game;
  game.with([&](State& s) {
    s.aliens = {};
    for (const Cell& cell : aliens) place(s.aliens, cell);
  });
  return game;
}

// Plays a list over and over, but never under an enemy bullet that is about to land.
void play_guarded(Game& game, int steps) {
  static constexpr std::array<std::int32_t, 10> list = {5, 1, 3, 5, 3, 5, 1, 0, 3, 1};
  while (!game.ended() && game.steps() < steps) {
    const auto lands = [&](std::int32_t action) {
      const int cannon = moved(game.state().cannon, (action == right) - (action == left), 0, 9);
      return (game.state().enemy_bullets[8] & bit(cannon)) != 0;
    };
    std::int32_t action = list[static_cast<std::size_t>(game.steps()) % list.size()];
    if (lands(action)) {
      for (const std::int32_t other : {none, left, right}) {
        if (lands(other)) continue;
        action = other;
        break;
      }
    }
    game.step(action);
  }
}

}  // namespace

TEST_CASE("space_invaders: no-op: the group comes, shoots and ends the game in step 17") {
  Game game;
  CHECK(game.counts() == std::array<int, 6>{1, 24, 24, 0, 0, 0});
  while (game.steps() < 10) {
    game.step();
    REQUIRE(game.counts() == std::array<int, 6>{1, 24, 24, 0, 0, 0});
  }
  CHECK(game.play_to(11).cells(5) == std::vector<Cell>{{3, 5}});
  CHECK(game.play_to(12).cells(1).front() == Cell{0, 2});
  game.play_to(13);
  CHECK(game.cells(1).front() == Cell{0, 1});
  CHECK(game.cells(1).back() == Cell{3, 6});
  CHECK(game.play_out({none}) == 17);
  CHECK(game.total() == 0);
}

TEST_CASE("space_invaders: held and repeated actions pay and end as published") {
  const auto play = [](const std::vector<std::int32_t>& list) {
    Game game;
    game.play_out(list);
    return game;
  };
  const Game fire_held = play({fire});
  CHECK(fire_held.paid() == std::vector<int>{6, 12, 16});
  CHECK(fire_held.steps() == 18);

  const Game left_held = play({left});
  CHECK(left_held.steps() == 37);
  CHECK(left_held.total() == 0);
  CHECK(left_held.cells(1).front().first == 1);
  CHECK(left_held.cells(1).back().first == 4);
  CHECK(left_held.counts() == std::array<int, 6>{1, 24, 0, 24, 0, left_held.counts()[5]});

  const Game right_held = play({right});
  CHECK(right_held.steps() == 96);
  CHECK(right_held.total() == 0);

  const Game fire_left = play({fire, left});
  CHECK(fire_left.paid() == std::vector<int>{6, 12, 25, 32, 38});
  CHECK(fire_left.steps() == 39);

  const Game fire_right = play({fire, right});
  CHECK(fire_right.paid() == std::vector<int>{6, 85, 89, 96});
  CHECK(fire_right.steps() == 97);
}

TEST_CASE("space_invaders: the guarded list, ramping on") {
  Game game;
  for (const auto& [steps, total] :
       std::map<int, float>{{50, 9}, {100, 17}, {200, 22}, {300, 34}, {400, 42}, {500, 49}}) {
    play_guarded(game, steps);
    CHECK(game.total() == total);
  }
  play_guarded(game, 5000);
  CHECK(game.ended());
  CHECK(game.steps() == 667);
  CHECK(game.total() == 71);

  Game levels;
  std::vector<int> up_at;
  while (!levels.ended()) {
    const int before = levels.state().level;
    play_guarded(levels, levels.steps() + 1);
    if (levels.state().level > before) up_at.push_back(levels.steps());
  }
  CHECK(up_at == std::vector<int>{212, 491});
  // Rewards are whole aliens, one a step here, so the 28th is the 28th step that paid.
  CHECK(levels.paid().size() == 71);
  CHECK(levels.paid()[27] == 236);
}

TEST_CASE("space_invaders: the guarded list, ramping off") {
  Game game("sticky=0, ramping=false");
  play_guarded(game, 5000);
  CHECK(game.steps() == 533);
  CHECK(game.total() == 47);
  CHECK(game.paid().size() == 47);
  CHECK(game.paid()[27] == 237);
}

TEST_CASE("space_invaders: hits are tested after bullets and aliens have moved") {
  Game hit = with_aliens({{4, 0}});
  hit.with([](State& s) {
    s.move_countdown = 0;
    place(s.bullets, {6, 0});
  });
  CHECK(hit.step() == 1);

  Game passed = with_aliens({{4, 0}});
  passed.with([](State& s) {
    s.move_countdown = 0;
    place(s.bullets, {5, 0});
  });
  CHECK(passed.step() == 0);
  CHECK(passed.cells(1) == std::vector<Cell>{{5, 0}});
  CHECK(passed.cells(4) == std::vector<Cell>{{4, 0}});
}

TEST_CASE("space_invaders: the fewer the aliens, the sooner they move") {
  const std::map<int, int> period = {{24, 12}, {12, 12}, {11, 11}, {5, 5}, {1, 1}};
  for (const auto& [aliens, wanted] : period) {
    INFO(aliens);
    Game game;
    game.with([n = aliens](State& s) {
      s.aliens = {};
      for (int i = 0; i < n; ++i) place(s.aliens, {i / 6, 2 + i % 6});
      s.cannon = 0;
    });
    std::vector<int> moves;
    for (int step = 1; step <= 13 + 3 * wanted; ++step) {
      const auto before = game.state().aliens;
      game.with([](State& s) { s.ended = 0; });
      game.step();
      if (game.state().aliens != before) moves.push_back(step);
    }
    CHECK(moves == std::vector<int>{13, 13 + wanted, 13 + 2 * wanted, 13 + 3 * wanted});
  }
}

TEST_CASE("space_invaders: a bullet that lands where the cannon has come ends the game, a spent one does not") {
  for (const auto& [row, ends] : std::map<int, bool>{{8, true}, {9, false}}) {
    Game game;
    game.with([r = row](State& s) { place(s.enemy_bullets, {r, 4}); });
    game.step(left);
    CHECK(game.ended() == ends);
  }
}

TEST_CASE("space_invaders: the shot comes from the lowest alien of the nearest column, of two the left one") {
  Game game = with_aliens({{2, 4}, {1, 4}, {3, 6}});
  game.with([](State& s) { s.shot_countdown = 0; });
  game.step();
  CHECK(game.cells(5) == std::vector<Cell>{{2, 4}});
  CHECK(game.state().shot_countdown == 9);
}

TEST_CASE("space_invaders: cleared waves bring faster ones, down to an interval of 6") {
  const auto clear_nine = [](const char* options) {
    Game game(options);
    std::vector<int> levels;
    for (int wave = 0; wave < 9; ++wave) {
      game.with([](State& s) {
        s.aliens = {};
        s.bullets = {};
        s.enemy_bullets = {};
        place(s.aliens, {4, 7});
        place(s.bullets, {5, 7});
        s.move_countdown = 5;
      });
      const State before = game.state();
      CHECK(game.step() == 1);
      CHECK(game.counts()[1] == 24);
      CHECK(game.state().heading == before.heading);
      CHECK(game.state().move_countdown == 4);
      levels.push_back(game.state().level);
    }
    return levels;
  };
  CHECK(clear_nine("sticky=0") == std::vector<int>{1, 2, 3, 4, 5, 6, 6, 6, 6});
  CHECK(clear_nine("sticky=0, ramping=false") == std::vector<int>(9, 0));
}

TEST_CASE("space_invaders: at the edge the group turns and goes down; from row 9 that ends the game") {
  Game game = with_aliens({{9, 0}, {3, 2}});
  game.with([](State& s) { s.move_countdown = 0; });
  game.step();
  CHECK(game.ended());
  CHECK(game.cells(1) == std::vector<Cell>{{0, 0}, {4, 2}});
  CHECK(game.counts() == std::array<int, 6>{1, 2, 0, 2, 0, 0});
  CHECK(game.state().move_countdown == 1);  // two aliens: 2, less one

  // Beside the cannon they do no harm until then.
  Game beside = with_aliens({{9, 4}, {3, 2}});
  beside.step();
  CHECK(!beside.ended());
}

TEST_CASE("space_invaders: nothing is random") {
  Game a("sticky=0", 1), b("sticky=0", 2);
  for (int step = 0; step < 200 && !a.ended(); ++step) {
    a.step(step % 6);
    b.step(step % 6);
    REQUIRE(a.state() == b.state());
  }
}
