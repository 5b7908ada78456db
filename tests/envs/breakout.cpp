// MinAtar breakout against the numeric checks of its published rules; tests/envs/minatar.cpp holds what all five share.
#include "envs/games/breakout.h"

#include <array>
#include <cmath>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;

namespace {

using Cell = std::pair<int, int>;  // (row, column)
constexpr std::int32_t none = 0, left = 1, right = 3;

// A game without sticky actions, with what the checks ask about.
class Game {
 public:
  Game() : game_(env::Options("sticky=0")) {}

  static Game started(bool from_left) {
    Game result;
    env::Rng rng(1);
    do result.game_.reset(rng);
    while ((result.game_.state().ball_column == 0) != from_left);
    return result;
  }

  static Game empty(Cell ball, int row_heading, int column_heading, int paddle) {
    Game result;
    Breakout::State state;
    std::tie(state.ball_row, state.ball_column) = ball;
    std::tie(state.trail_row, state.trail_column) = ball;
    state.row_heading = row_heading;
    state.column_heading = column_heading;
    state.paddle = paddle;
    result.game_.set_state(state);
    return result;
  }

  Game& with_brick(Cell cell) {
    Breakout::State state = game_.state();
    state.brick(cell.first, cell.second) = 1;
    game_.set_state(state);
    return *this;
  }

  float step(std::int32_t action = none) {
    REQUIRE(!ended_);
    const env::Outcome outcome = game_.step(action, rng_);
    ++steps_;
    total_ += outcome.reward;
    ended_ = outcome.terminated;
    return outcome.reward;
  }

  Game& steps_to(int last) {
    while (steps_ < last) step();
    return *this;
  }

  // The rule that never loses: one column towards the ball's present column.
  float follow() {
    const int to = ball().second;
    const int from = game_.state().paddle;
    return step(to < from ? left : to > from ? right : none);
  }

  [[nodiscard]] Cell ball() const { return {game_.state().ball_row, game_.state().ball_column}; }
  [[nodiscard]] Cell trail() const { return {game_.state().trail_row, game_.state().trail_column}; }
  [[nodiscard]] bool has_brick(Cell cell) const { return game_.state().has_brick(cell.first, cell.second); }
  [[nodiscard]] int steps() const { return steps_; }
  [[nodiscard]] float total() const { return total_; }
  [[nodiscard]] bool ended() const { return ended_; }
  Breakout& raw() { return game_; }

  [[nodiscard]] std::vector<std::uint8_t> observation() const {
    std::vector<std::uint8_t> out(400, 99);
    void* base = out.data();
    const env::Row::Column column{env::DType::u8, out.size()};
    game_.observe(env::Row(&base, &column, 0));
    return out;
  }

  // Set cells in each plane: paddle, ball, trail, bricks.
  [[nodiscard]] std::array<int, 4> cells() const {
    const auto board = observation();
    std::array<int, 4> result{};
    for (std::size_t i = 0; i < board.size(); ++i) result[i / 100] += board[i];
    return result;
  }

 private:
  Breakout game_;
  env::Rng rng_{7};
  int steps_ = 0;
  float total_ = 0;
  bool ended_ = false;
};

}  // namespace

TEST_CASE("breakout: left start, no-op: ends in step 6 with nothing") {
  Game game = Game::started(true);
  CHECK(game.ball() == Cell{3, 0});
  CHECK(game.trail() == Cell{3, 0});
  CHECK(game.raw().state().paddle == 4);
  CHECK(game.has_brick({3, 0}));
  game.steps_to(6);
  CHECK(game.ended());
  CHECK(game.total() == 0);
  CHECK(game.ball() == Cell{9, 6});
  CHECK(game.trail() == Cell{8, 5});
  CHECK(game.cells() == std::array<int, 4>{1, 1, 1, 30});
}

TEST_CASE("breakout: right start, no-op: the paddle's own column turns the ball, a brick pays in step 11") {
  Game game = Game::started(false);
  CHECK(game.ball() == Cell{3, 9});
  CHECK(game.steps_to(5).ball() == Cell{8, 4});
  CHECK(game.steps_to(6).ball() == Cell{8, 3});
  CHECK(game.steps_to(9).ball() == Cell{5, 0});
  CHECK(game.steps_to(10).ball() == Cell{4, 0});
  CHECK(game.step() == 1);
  CHECK(game.ball() == Cell{4, 1});
  game.steps_to(16);
  CHECK(game.ended());
  CHECK(game.ball() == Cell{9, 6});
  CHECK(game.total() == 1);
}

TEST_CASE("breakout: left start, right once: the ball turns in the paddle's column") {
  Game game = Game::started(true);
  game.step(right);
  CHECK(game.steps_to(6).ball() == Cell{8, 6});
  CHECK(game.steps_to(10).ball() == Cell{4, 9});
  CHECK(game.step() == 1);
  CHECK(game.ball() == Cell{4, 8});
  game.steps_to(16);
  CHECK(game.ended());
  CHECK(game.ball() == Cell{9, 3});
}

TEST_CASE("breakout: left start, right twice: met in the target column the ball goes back") {
  Game game = Game::started(true);
  game.step(right);
  game.step(right);
  CHECK(game.steps_to(6).ball() == Cell{8, 6});
  CHECK(game.steps_to(7).ball() == Cell{7, 5});
  game.steps_to(10);
  CHECK(game.step() == 1);
  CHECK(game.ball() == Cell{4, 1});
  game.steps_to(16);
  CHECK(game.ended());
  CHECK(game.ball() == Cell{9, 3});
}

TEST_CASE("breakout: of two bricks met in a row the second is passed and kept") {
  Game game = Game::empty({2, 3}, -1, 1, 0).with_brick({1, 4}).with_brick({3, 5});
  CHECK(game.step() == 1);
  CHECK(game.ball() == Cell{2, 4});
  CHECK(!game.has_brick({1, 4}));
  CHECK(game.step() == 0);
  CHECK(game.ball() == Cell{3, 5});
  CHECK(game.has_brick({3, 5}));
  CHECK(game.step() == 0);
  CHECK(game.ball() == Cell{4, 6});
}

TEST_CASE("breakout: corners, walls and the paddle at the edges") {
  {
    Game game = Game::empty({8, 0}, 1, -1, 0);
    game.step();
    CHECK(game.ball() == Cell{8, 0});
    game.step();
    CHECK(game.ball() == Cell{7, 1});
  }
  {
    Game game = Game::empty({8, 0}, 1, -1, 1);
    game.step();
    CHECK(game.ended());
    CHECK(game.ball() == Cell{9, 0});
  }
  {
    Game game = Game::empty({8, 8}, 1, 1, 9);
    game.step();
    CHECK(game.ball() == Cell{8, 9});
    game.step();
    CHECK(game.ball() == Cell{7, 8});
  }
  {
    Game game = Game::empty({0, 0}, -1, -1, 4);
    game.step();
    CHECK(game.ball() == Cell{0, 0});
    game.step();
    CHECK(game.ball() == Cell{1, 1});
  }
}

TEST_CASE("breakout: without bricks a missed ball ends the game with 30 of them") {
  Game game = Game::empty({8, 5}, 1, 1, 0);
  CHECK(game.cells()[3] == 0);
  game.step();
  CHECK(game.ended());
  CHECK(game.cells()[3] == 30);
}

TEST_CASE("breakout: following the ball pays in the published steps") {
  for (const bool from_left : {true, false}) {
    Game game = Game::started(from_left);
    std::vector<int> paid;
    const std::array<std::pair<int, float>, 6> returns = {
        {{100, 9}, {300, 25}, {500, 43}, {1000, 84}, {5000, 417}, {20000, 1668}}};
    for (const auto& [step, total] : returns) {
      while (game.steps() < step) {
        const float reward = game.follow();
        REQUIRE((reward == 0 || reward == 1));
        if (reward == 1) paid.push_back(game.steps());
      }
      CHECK(game.total() == total);
    }
    CHECK(!game.ended());
    CHECK(std::vector<int>(paid.begin(), paid.begin() + 10) ==
          std::vector<int>{11, 21, 32, 43, 53, 64, 75, 85, 96, 107});
    CHECK(paid[29] == 359);
    CHECK(paid[30] == 371);
  }
}

TEST_CASE("breakout: the planes show paddle, ball, trail and bricks, channel first") {
  Game game = Game::started(true);
  game.step(right);  // ball (4, 1), trail (3, 0), paddle 5
  std::vector<std::uint8_t> wanted(400, 0);
  wanted[9 * 10 + 5] = 1;
  wanted[100 + 4 * 10 + 1] = 1;
  wanted[200 + 3 * 10 + 0] = 1;
  for (std::size_t cell = 10; cell < 40; ++cell) wanted[300 + cell] = 1;
  CHECK(game.observation() == wanted);
}

TEST_CASE("breakout: actions that it does not use are none, and the minimal set is none, left, right") {
  Breakout full(env::Options("sticky=0"));
  CHECK(full.spec().action.n == 6);
  env::Rng rng(1);
  const std::array<int, 6> moves = {0, -1, 0, 1, 0, 0};
  for (std::int32_t action = 0; action < 6; ++action) {
    full.reset(rng);
    static_cast<void>(full.step(action, rng));
    CHECK(full.state().paddle == 4 + moves[static_cast<std::size_t>(action)]);
  }
  Breakout minimal(env::Options("sticky=0, minimal_actions=true"));
  CHECK(minimal.spec().action.n == 3);
  const std::array<int, 3> minimal_moves = {0, -1, 1};
  for (std::int32_t action = 0; action < 3; ++action) {
    minimal.reset(rng);
    static_cast<void>(minimal.step(action, rng));
    CHECK(minimal.state().paddle == 4 + minimal_moves[static_cast<std::size_t>(action)]);
  }
}

TEST_CASE("breakout: a sticky probability of 1 repeats none for ever") {
  Breakout always(env::Options("sticky=1"));
  env::Rng rng(1);
  always.reset(rng);
  for (int i = 0; i < 5; ++i) static_cast<void>(always.step(right, rng));
  CHECK(always.state().paddle == 4);  // the first remembered action is none
}

TEST_CASE("breakout: both starts are equally likely") {
  Breakout game{env::Options("")};
  env::Rng rng(21);
  int from_left = 0;
  for (int i = 0; i < 10'000; ++i) {
    game.reset(rng);
    from_left += game.state().ball_column == 0;
  }
  CHECK(std::abs(from_left - 5000) < 250);  // 5 standard errors of sqrt(10,000 / 4) = 50
}
