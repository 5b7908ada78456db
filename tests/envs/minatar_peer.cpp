// The MinAtar games against the Python package, step by step. With QANAT_TEST_PYTHON naming a Python that has the
// package, minatar_trace.py plays games through its public interface, and ours follow with the same actions: every
// observation, reward and end must be the same. What the package draws at random is not known, so where a step does
// not agree it is repeated with other draws of ours; that none agrees is a failure. How often each outcome is drawn is
// what the tests of the single games look at.
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "envs/games/asterix.h"
#include "envs/games/breakout.h"
#include "envs/games/freeway.h"
#include "envs/games/seaquest.h"
#include "envs/games/space_invaders.h"
#include "tests/envs/trial.h"

using namespace qanat;
using namespace qanat::envs;

namespace {

// Seaquest may draw an enemy and a diver in one step: the rarest outcome is one submarine of 48 with one diver of 16.
// 20,000 tries miss it with a chance of (1 - 1/768)^20000 < 1e-11.
constexpr int most_tries = 20'000;

std::vector<std::uint8_t> unpacked(const std::string& digits, int planes) {
  std::vector<std::uint8_t> out;
  for (const char c : digits) {
    const int value = c <= '9' ? c - '0' : c - 'a' + 10;
    for (int bit = 3; bit >= 0; --bit) out.push_back(static_cast<std::uint8_t>(value >> bit & 1));
  }
  out.resize(static_cast<std::size_t>(planes) * 100);
  return out;
}

// Freeway draws too much at a time to be guessed, but shows all of it: the speed by the plane of the trail, the
// direction by its side. `rested`: the steps for which the countdowns have run since the draw.
void adopt_draws(Trial<Freeway>& game, const std::vector<std::uint8_t>& seen, int rested) {
  game.with([&](Freeway::State& s) {
    for (std::size_t i = 0; i < s.cars.size(); ++i) {
      Freeway::Car& car = s.cars[i];
      for (std::size_t speed = 1; speed <= 5; ++speed) {
        const auto behind = [&](int offset) {
          return seen[(1 + speed) * 100 + (i + 1) * 10 + static_cast<std::size_t>((car.column + offset) % 10)] != 0;
        };
        if (!behind(1) && !behind(9)) continue;
        car.speed = static_cast<std::int8_t>(speed);
        car.heading = behind(9) ? 1 : -1;
        car.countdown = static_cast<std::int8_t>(car.speed - rested);
      }
    }
  });
}

struct Followed {
  int steps = 0, ends = 0, repeated = 0;
  float total = 0;
  std::string lost;  // the line that no draws of ours agree with; empty: none
};

// Follows a trace from its first line to its last, or to the first that is another game's.
template <class Game>
Followed follow(std::istream& trace, const char* options) {
  Trial<Game> game(options);
  Followed out;
  int try_seed = 0;
  // Runs play() until the board is the one wanted, each time with other draws.
  const auto until_same = [&](const std::vector<std::uint8_t>& wanted, int drawn_before, auto&& play) {
    const auto before = game.state();
    for (int tries = 0; tries < most_tries; ++tries) {
      if (tries > 0) game.game().set_state(before);
      game.rng() = env::Rng(static_cast<std::uint64_t>(++try_seed));
      const bool agrees = play();
      if constexpr (std::is_same_v<Game, Freeway>) {
        if (drawn_before >= 0) adopt_draws(game, wanted, drawn_before);
      }
      if (agrees && game.observation() == wanted) return true;
      ++out.repeated;
      if (std::is_same_v<Game, SpaceInvaders> || std::is_same_v<Game, Freeway>) break;  // nothing left to draw
    }
    return false;
  };
  for (std::string line; std::getline(trace, line);) {
    std::istringstream words(line);
    std::string kind, board;
    int action = 0, reward = 0, ended = 0;
    words >> kind;
    REQUIRE((kind == "reset" || kind == "step"));
    if (kind == "step") words >> action >> reward >> ended;
    words >> board;
    const auto wanted = unpacked(board, Game::planes);
    const bool same = kind == "reset" ? until_same(wanted, 0,
                                                   [&] {
                                                     game.game().reset(game.rng());
                                                     return true;
                                                   })
                                      : until_same(wanted, reward > 0 ? 1 : -1, [&] {
                                          const float paid = game.step(action);
                                          return paid == static_cast<float>(reward) && game.ended() == (ended != 0);
                                        });
    if (!same) {
      out.lost = text("step ", out.steps, ": ", line);
      return out;
    }
    out.steps += kind == "step";
    out.ends += ended;
    out.total += static_cast<float>(reward);
  }
  return out;
}

// What a command prints, and its exit code.
std::pair<std::string, int> output_of(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  std::array<char, 65536> buffer;
  for (std::size_t size = 0; (size = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.append(buffer.data(), size);
  }
  const int status = pclose(pipe);
  return {output, WIFEXITED(status) ? WEXITSTATUS(status) : -1};
}

// A line of a trace with the board of `game`.
template <class Game>
std::string line_of(const Trial<Game>& game, const std::string& head) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out = head + " ";
  const auto board = game.observation();
  for (std::size_t i = 0; i < board.size(); i += 4) {
    out += digits[board[i] * 8 + board[i + 1] * 4 + board[i + 2] * 2 + board[i + 3]];
  }
  return out + "\n";
}

}  // namespace

TEMPLATE_TEST_CASE("MinAtar: the Python package's games are followed step by step", "", Asterix, Breakout, Freeway,
                   Seaquest, SpaceInvaders) {
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr) {
    WARN("skipped: QANAT_TEST_PYTHON names no Python with minatar");
    return;
  }
  const std::string id = TestType::id;
  const std::string name = id.substr(id.find('/') + 1);
  const bool has_ramp = name != "breakout" && name != "freeway";
  for (const bool ramping : {true, false}) {
    if (!ramping && !has_ramp) continue;
    constexpr int steps = 8'000;
    const auto [trace, code] =
        output_of(text("'", python, "' '" QANAT_TEST_FOLDER "/minatar_trace.py' ", name, " --seed 3 --steps ", steps,
                       ramping ? "" : " --no-ramping", " 2>/dev/null"));
    if (code == 77) {
      WARN("skipped: " << python << " has no minatar");
      return;
    }
    REQUIRE(code == 0);
    std::istringstream lines(trace);
    const Followed followed = follow<TestType>(lines, ramping ? "sticky=0" : "sticky=0, ramping=false");
    INFO(name << ": lost at \"" << followed.lost << "\", " << followed.ends << " ends, return " << followed.total
              << ", " << followed.repeated << " tries repeated");
    CHECK(followed.lost.empty());
    CHECK(followed.steps == steps);
    CHECK(followed.ends >= 3);
    CHECK(followed.total > 0);
  }
}

TEST_CASE("MinAtar: a trace with one cell or one reward changed is not followed") {
  // A trace of our own, in which every step agrees with itself.
  Trial<SpaceInvaders> game;
  std::string trace = line_of(game, "reset");
  for (int i = 0; i < 6; ++i) {
    const float reward = game.step(minatar::fire);
    trace += line_of(game, text("step 5 ", reward, " 0"));
  }
  const auto lost = [](const std::string& lines) {
    std::istringstream in(lines);
    return follow<SpaceInvaders>(in, "sticky=0").lost;
  };
  CHECK(lost(trace).empty());
  std::string cell = trace;
  const std::size_t last_digit = cell.size() - 2;
  cell[last_digit] = cell[last_digit] == '0' ? '1' : '0';
  CHECK(lost(cell).starts_with("step 5: "));
  std::string reward = trace;
  const std::size_t third = reward.find("step 5 0", reward.find("step 5 0", reward.find("step 5 0") + 1) + 1);
  reward[third + 7] = '1';
  CHECK(lost(reward).starts_with("step 2: "));
}

TEST_CASE("MinAtar: a trace of asterix whose entity jumps is lost whatever is drawn") {
  // From the first spawn on: an entity one column further than it can be.
  Trial<Asterix> game;
  game.play_to(11);
  std::string trace;
  Trial<Asterix> start;
  trace = line_of(start, "reset");
  for (int i = 0; i < 10; ++i) trace += line_of(start, "step 0 0 0");
  game.with([](Asterix::State& s) {
    for (auto& entity : s.lane) entity.column = static_cast<std::int8_t>(entity.column + entity.heading);
  });
  trace += line_of(game, "step 0 0 0");
  std::istringstream in(trace);
  const Followed followed = follow<Asterix>(in, "sticky=0");
  CHECK(followed.lost.starts_with("step 10: "));
  CHECK(followed.repeated == most_tries);
}
