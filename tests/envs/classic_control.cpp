// CartPole, MountainCar and Acrobot against Gymnasium: transitions written by gymnasium_compare.py, from injected
// states. A committed file of them is always compared; with QANAT_TEST_PYTHON naming a Python that has gymnasium, a
// larger set is made on the spot.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "envs/games/acrobot.h"
#include "envs/games/cartpole.h"
#include "envs/games/mountain_car.h"
#include "envs/vector_env.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;

namespace {

// One step evaluates a few sines and cosines, each within one unit in the last place (1e-16) of NumPy's, and at most
// some hundred operations. Acrobot has the largest numbers: accelerations up to 1e4 rad/s^2, integrated over 0.2 s in
// stages that magnify what came before at most some hundredfold: 1e-16 * 1e4 * 1e2 = 1e-10. A constant wrong in its
// fourth digit moves every state by more than 1e-6.
constexpr double step_tolerance = 1e-10;
// Free runs magnify rounding: CartPole's pole falls with a rate of about 4/s, over at most 2 s; MountainCar and the
// untorqued acrobot hardly at all.
constexpr double episode_tolerance = 1e-9;

template <class Game>
using Numbers = std::array<double, sizeof(typename Game::State) / sizeof(double)>;

template <class Game>
typename Game::State state_from(const std::vector<double>& numbers) {
  Numbers<Game> values{};
  REQUIRE(numbers.size() == values.size());
  std::copy(numbers.begin(), numbers.end(), values.begin());
  return std::bit_cast<typename Game::State>(values);
}

template <class Game>
std::vector<double> numbers_of(const typename Game::State& state) {
  const auto values = std::bit_cast<Numbers<Game>>(state);
  return {values.begin(), values.end()};
}

template <class Game>
std::vector<float> observation_of(const Game& game) {
  std::vector<float> out(static_cast<std::size_t>(game.spec().observations[0].shape[0]));
  void* base = out.data();
  const env::Row::Column column{env::DType::f32, out.size()};
  game.observe(env::Row(&base, &column, 0));
  return out;
}

struct Line {
  std::string kind, id, actions;
  std::vector<std::vector<double>> parts;  // what stands between the semicolons
};

Line parse(const std::string& line) {
  std::istringstream in(line);
  Line result;
  in >> result.kind >> result.id >> result.actions;
  std::string word;
  while (in >> word) {
    if (word == ";") {
      result.parts.emplace_back();
    } else {
      REQUIRE(!result.parts.empty());
      result.parts.back().push_back(std::strtod(word.c_str(), nullptr));
    }
  }
  return result;
}

double worst(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double result = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    result = difference <= result ? result : difference;  // NaN gets through, and then fails the comparison
  }
  return result;
}

template <class Game>
void compare_step(const Line& line) {
  REQUIRE(line.parts.size() == 4);
  Game game;
  game.set_state(state_from<Game>(line.parts[0]));
  const env::Outcome outcome = game.step(std::stoi(line.actions));
  CHECK(worst(numbers_of<Game>(game.state()), line.parts[1]) <= step_tolerance);
  const std::vector<float> observation = observation_of(game);
  REQUIRE(observation.size() == line.parts[2].size());
  for (std::size_t i = 0; i < observation.size(); ++i) {
    // Both sides round to single precision; a difference of 1e-10 before can tip it by one unit, 2^-23 relative.
    const double wanted = line.parts[2][i];
    CHECK(std::abs(static_cast<double>(observation[i]) - wanted) <= 0x1.0p-23 * std::abs(wanted) + step_tolerance);
  }
  CHECK(static_cast<double>(outcome.reward) == line.parts[3].at(0));
  CHECK(outcome.terminated == (line.parts[3].at(1) == 1));
  CHECK(!outcome.truncated);
}

template <class Game>
void compare_episode(const Line& line) {
  REQUIRE(line.parts.size() == 3);
  Game game;
  game.set_state(state_from<Game>(line.parts[0]));
  const auto limit = static_cast<std::size_t>(game.spec().max_episode_steps);
  double total = 0;
  for (std::size_t i = 0; i < line.actions.size(); ++i) {
    const env::Outcome outcome = game.step(line.actions[i] - '0');
    total += static_cast<double>(outcome.reward);
    const bool last = i + 1 == line.actions.size();
    CHECK(outcome.terminated == (last && line.parts[2].at(1) == 1));
  }
  CHECK(worst(numbers_of<Game>(game.state()), line.parts[1]) <= episode_tolerance);
  CHECK(total == line.parts[2].at(0));
  CHECK((line.actions.size() == limit) == (line.parts[2].at(2) == 1));
}

template <class Game>
void compare(const Line& line) {
  if (line.kind == "limit") {
    CHECK(std::stoll(line.actions) == Game().spec().max_episode_steps);
  } else if (line.kind == "step") {
    compare_step<Game>(line);
  } else {
    REQUIRE(line.kind == "episode");
    compare_episode<Game>(line);
  }
}

// Compares all lines; returns how many there were of each kind and game.
std::map<std::string, int> compare_all(std::istream& in) {
  const std::map<std::string, void (*)(const Line&)> games = {
      {CartPole::id, compare<CartPole>}, {MountainCar::id, compare<MountainCar>}, {Acrobot::id, compare<Acrobot>}};
  std::map<std::string, int> counts;
  for (std::string raw; std::getline(in, raw);) {
    if (raw.empty() || raw[0] == '#') continue;
    INFO(raw);
    const Line line = parse(raw);
    REQUIRE(games.contains(line.id));
    games.at(line.id)(line);
    ++counts[line.kind + " " + line.id];
  }
  return counts;
}

void require_all_kinds(const std::map<std::string, int>& counts, int steps) {
  for (const char* id : {CartPole::id, MountainCar::id, Acrobot::id}) {
    CHECK(counts.at(std::string("limit ") + id) == 1);
    CHECK(counts.at(std::string("step ") + id) >= steps);
    CHECK(counts.at(std::string("episode ") + id) >= 1);
  }
}

}  // namespace

TEST_CASE("classic control: the committed transitions of Gymnasium are reproduced") {
  std::ifstream file(QANAT_TEST_FOLDER "/classic_control_reference.txt");
  REQUIRE(file.good());
  require_all_kinds(compare_all(file), 60);
}

TEST_CASE("classic control: transitions of the Gymnasium installed here are reproduced") {
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr) {
    WARN("skipped: QANAT_TEST_PYTHON names no Python with gymnasium");
    return;
  }
  const std::string command =
      text("'", python, "' '" QANAT_TEST_FOLDER "/gymnasium_compare.py' --seed 2 --states 1000");
  std::FILE* pipe = popen(command.c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  std::array<char, 65536> buffer;
  for (std::size_t size = 0; (size = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    output.append(buffer.data(), size);
  }
  REQUIRE(pclose(pipe) == 0);
  std::istringstream lines(output);
  require_all_kinds(compare_all(lines), 2000);
}

TEST_CASE("classic control: a transition of another action is noticed") {
  CartPole game;
  game.set_state({0.01, 0.02, 0.03, 0.04});
  CartPole other = game;
  static_cast<void>(game.step(0));
  static_cast<void>(other.step(1));
  CHECK(worst(numbers_of<CartPole>(game.state()), numbers_of<CartPole>(other.state())) > 1e6 * step_tolerance);
}

TEST_CASE("classic control: starts are drawn from Gymnasium's ranges") {
  env::Rng rng(5);
  CartPole cartpole;
  MountainCar car;
  Acrobot acrobot;
  double low = 1;
  double high = -1;
  for (int i = 0; i < 1000; ++i) {
    cartpole.reset(rng);
    for (const double value : numbers_of<CartPole>(cartpole.state())) {
      CHECK(std::abs(value) <= 0.05);
      low = std::min(low, value);
      high = std::max(high, value);
    }
    car.reset(rng);
    CHECK((car.state().position >= -0.6 && car.state().position <= -0.4 && car.state().velocity == 0));
    acrobot.reset(rng);
    for (const double value : numbers_of<Acrobot>(acrobot.state())) CHECK(std::abs(value) <= 0.1);
  }
  // 4,000 draws: the chance that none is in an outer hundredth of the range is 0.99^4000 < 1e-17.
  CHECK(low < -0.049);
  CHECK(high > 0.049);
}

TEST_CASE("CartPole-v1: a pole kept upright is truncated, not terminated, after 500 steps") {
  const auto env = make({.id = "CartPole-v1"}, 1);
  env->reset(std::vector<std::uint64_t>{11});
  for (int step = 1; step <= 500; ++step) {
    std::array<float, 4> s{};
    std::memcpy(s.data(), env->observation(0).data(), sizeof s);
    // Push towards where the pole leans, with some weight on the cart's own speed and place.
    const std::int32_t action = s[2] + 0.5f * s[3] + 0.05f * s[0] + 0.1f * s[1] > 0 ? 1 : 0;
    env->step(std::array{action});
    REQUIRE(env->terminated()[0] == 0);
    REQUIRE(env->truncated()[0] == (step == 500));
  }
  CHECK(env->episode_returns()[0] == 500);
  CHECK(env->episode_lengths()[0] == 500);
}

TEST_CASE("MountainCar-v0: a car that never pushes is truncated after 200 steps with -200") {
  const auto env = make({.id = "MountainCar-v0"}, 1);
  env->reset(std::vector<std::uint64_t>{11});
  for (int step = 1; step <= 400; ++step) {
    env->step(std::array<std::int32_t, 1>{1});
    REQUIRE(env->terminated()[0] == 0);
    REQUIRE(env->truncated()[0] == (step % 200 == 0));
  }
  CHECK(env->episode_returns()[0] == -200);
}
