// Python environments: spaces, errors, settings. The environments are those of tests/envs/host/scripted.py.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/error.h"
#include "tests/envs/hosted_python.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

std::unique_ptr<VectorEnv> shapes(const std::string& observation, const std::string& action = "discrete",
                                  const std::string& channels = "auto") {
  auto config = scripted("Shapes-v0", R"({"observation": ")" + observation + R"(", "action": ")" + action + "\"}");
  config.channels = channels;
  config.action_bins = 3;
  auto env = make(config, 2);
  const std::vector<std::uint64_t> seeds = {1, 2};
  env->reset(seeds);
  return env;
}

template <class T>
std::vector<T> second_row(const VectorEnv& env) {
  const auto bytes = env.spec().observations[0].tensor.bytes();
  std::vector<T> out(bytes / sizeof(T));
  std::memcpy(out.data(), env.observation(0).data() + bytes, bytes);
  return out;
}

using Shape = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("hosted: observations keep their numbers, whatever their space") {
  if (test_python() == nullptr) return;
  const auto check = [](const std::string& kind, DType dtype, const Shape& shape) {
    auto env = shapes(kind);
    INFO(kind);
    CHECK(env->spec().observations.size() == 1);
    CHECK(env->spec().observations[0].tensor.dtype == dtype);
    CHECK(env->spec().observations[0].tensor.shape == shape);
    return env;
  };
  const auto picture = check("picture", DType::u8, {3, 4, 5});
  const auto pixels = second_row<std::uint8_t>(*picture);
  for (int c = 0; c < 3; ++c) {
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 5; ++x) CHECK(int(pixels[std::size_t(c * 20 + y * 5 + x)]) == (y * 5 + x) * 3 + c);
    }
  }
  CHECK(picture->spec().observations[0].high == 255);
  CHECK(shapes("picture", "discrete", "first")->spec().observations[0].tensor.shape == Shape{4, 5, 3});
  CHECK(second_row<std::uint8_t>(*check("bool", DType::u8, {2, 2})) == std::vector<std::uint8_t>{1, 0, 0, 1});
  CHECK(second_row<float>(*check("double", DType::f32, {2})) == std::vector<float>{0.25F, -0.1F});
  // Declared u8, given i64 with 300 in it: what is given counts.
  CHECK(second_row<float>(*check("lie", DType::f32, {3})) == std::vector<float>{1, 300, 2});
  CHECK(second_row<float>(*check("scalar", DType::f32, {1})) == std::vector<float>{1.5F});
  CHECK(second_row<float>(*check("discrete", DType::f32, {4})) == std::vector<float>{0, 0, 0, 1});
  CHECK(second_row<float>(*check("multi", DType::f32, {5})) == std::vector<float>{0, 1, 0, 0, 1});
  CHECK(second_row<float>(*check("binary", DType::f32, {3})) == std::vector<float>{1, 0, 1});
  CHECK(second_row<float>(*check("nested", DType::f32, {6})) == std::vector<float>{7, 0.5F, -0.5F, 0, 1, 0});
  CHECK(second_row<float>(*check("volume", DType::f32, {16})) == std::vector<float>(16, 1));
  CHECK_THROWS_WITH(shapes("text"), Contains("observation space at ['words'] is Text"));
  // Pictures of real numbers are pictures too.
  const auto real = second_row<float>(*check("real picture", DType::f32, {3, 4, 5}));
  CHECK(real[0] == 0);
  CHECK(real[20] == 1.0F / 60);
  CHECK(real[1] == 3.0F / 60);
  CHECK_THROWS_WITH(shapes("double", "discrete", "last"),
                    Contains("env.channels is last, but its observation has shape (2,), three dimensions wanted"));
}

TEST_CASE("hosted: actions of every kind are numbered through and arrive as the space wants them") {
  if (test_python() == nullptr) return;
  const auto rewards = [](const std::string& kind, std::int64_t n) {
    const auto env = shapes("double", kind);
    INFO(kind);
    CHECK(env->spec().action.kind == ActionSpace::Kind::discrete);
    CHECK(env->spec().action.n == n);
    std::vector<float> out;
    for (std::int32_t a = 0; a < n; ++a) {
      const std::vector<std::int32_t> actions = {0, a};
      env->step(actions);
      out.push_back(env->rewards()[1]);
    }
    return out;
  };
  CHECK(rewards("discrete", 3) == std::vector<float>{5, 6, 7});
  CHECK(rewards("multi", 6) == std::vector<float>{0, 1, 2, 1, 2, 3});
  CHECK(rewards("binary", 4) == std::vector<float>{0, 1, 1, 2});
  // Bins -1, 0, 1 and 0, 2, 4.
  CHECK(rewards("box", 9) == std::vector<float>{-1, 1, 3, 0, 2, 4, 1, 3, 5});
  // Bins 0, 1.5, 3 of whole numbers.
  CHECK(rewards("whole box", 3) == std::vector<float>{0, 2, 3});
  CHECK_THROWS_WITH(shapes("double", "unbounded"), Contains("no bounds"));
  CHECK_THROWS_WITH(shapes("double", "tuple"), Contains("action space is Tuple"));
  CHECK_THROWS_WITH(shapes("double", "many"), Contains("2 numbers") && Contains("more than 4096"));
}

TEST_CASE("hosted: what goes wrong in an environment names place, seed, step, action and the line") {
  if (test_python() == nullptr) return;
  const auto error_of = [](const std::string& id, const std::string& what) {
    const auto env =
        make(scripted(id, R"({"lengths": [9], "at": [0, 2], "slot_seed": 6, "what": ")" + what + "\"}"), 2);
    const std::vector<std::uint64_t> seeds = {5, 6};
    env->reset(seeds);
    const std::vector<std::int32_t> actions = {0, 2};
    std::string message;
    try {
      for (int i = 0; i < 5; ++i) env->step(actions);
    } catch (const RunError& error) {
      message = error.what();
    }
    CHECK_THROWS_AS(env->step(actions), RunError);  // only reset() is allowed now
    env->reset(seeds);
    env->step(actions);
    CHECK(env->restarts() == 0);
    return message;
  };
  const auto place = Contains("scripted:Script-v0, slot 1 (seed 6), step 3 of its episode, action 2");
  CHECK_THAT(error_of("Script-v0", "raise"),
             place && Contains("ValueError: scripted failure at (0, 2)") && Contains("scripted.py:"));
  CHECK_THAT(error_of("Script-v0", "exit"), place && Contains("SystemExit: 4"));
  CHECK_THAT(error_of("Script-v0", "flag"), place && Contains("terminated None of type NoneType, wanted bool"));
  CHECK_THAT(error_of("Script-v0", "nan"), place && Contains("not finite, the first at index 1 of 3"));
  CHECK_THAT(error_of("Script-v0", "nan_reward"), place && Contains("reward is nan"));
  CHECK_THAT(error_of("Script-v0", "shape"), place && Contains("float32 (2,)"));
  CHECK_THAT(error_of("ScriptVector-v0", "raise"), Contains("ValueError: scripted failure"));
}

TEST_CASE("hosted: env.observations takes parts of a Dict, and an error says so where a part cannot be taken") {
  if (test_python() == nullptr) return;
  CHECK_THROWS_WITH(shapes("mission"), Contains("['words'] is Text") && Contains("env.observations: [image, way]"));
  const auto with = [](const std::vector<std::string>& parts, const std::string& kind = "mission") {
    auto config = scripted("Shapes-v0", R"({"observation": ")" + kind + "\"}");
    config.observations = parts;
    auto env = make(config, 2);
    const std::vector<std::uint64_t> seeds = {1, 2};
    env->reset(seeds);
    return env;
  };
  const auto image = with({"image"});
  CHECK(image->spec().observations[0].tensor.shape == Shape{3, 4, 5});
  CHECK(second_row<std::uint8_t>(*image)[20] == 1);
  const auto both = with({"image", "way"});
  CHECK(both->spec().observations[0].tensor.shape == Shape{64});
  const auto row = second_row<float>(*both);
  CHECK(row[59] == 59);
  CHECK(row[62] == 1);
  CHECK_THROWS_WITH(with({"picture"}), Contains("env.observations names 'picture'") && Contains("image, way, words"));
  CHECK_THROWS_WITH(with({"image"}, "double"), Contains("observation space is Box, a Dict wanted"));
}

TEST_CASE("hosted: types that drift without a loss are taken with one warning, others are refused by name") {
  if (test_python() == nullptr) return;
  const auto said = [](const std::string& what) {
    std::string words;
    try {
      const auto env = make(scripted("Drift-v0", R"({"what": ")" + what + "\"}"), 2);
      const std::vector<std::uint64_t> seeds = {5, 6};
      env->reset(seeds);
      const std::vector<std::int32_t> actions = {1, 1};
      for (int i = 0; i < 3; ++i) env->step(actions);
      for (const auto& line : env->take_events()) words += line + '\n';
    } catch (const Error& error) {
      words = text("refused: ", error.what());
    }
    INFO(what << ": " << words);
    CHECK(std::count(words.begin(), words.end(), '\n') <= 1);
    return words;
  };
  const auto warned = [&](const std::string& what, const std::string& wanted) {
    CHECK_THAT(said(what), Catch::Matchers::StartsWith("environment scripted:Drift-v0: ") && Contains(wanted));
  };
  warned("double", "observation is float64, the first one was float32; both become f32");
  warned("list", "observation is float64, the first one was int64; both become f32");
  warned("int", "observation is int32, the first one was int64; both become numbers of a choice");
  warned("wide", "observation is int64, the first one was uint8; both become bytes");
  warned("0-d flag", "terminated is array(True) of type ndarray, taken as True");
  warned("1 flag", "terminated is 1 of type int, taken as True");
  warned("one reward", "reward is an array of float64 (1,), its one number is taken");
  const auto refused = [&](const std::string& what, const std::string& wanted) {
    CHECK_THAT(said(what),
               Catch::Matchers::StartsWith("refused: environment scripted:Drift-v0, slot 0 (seed 5), step 1 of "
                                           "its episode, action 1: step failed: ") &&
                   Contains(wanted));
  };
  refused("too wide", "observation is int64 (2, 2), the first one was uint8 (2, 2); it is kept in bytes, whole");
  refused("real bytes", "observation is float32 (2, 2), the first one was uint8");
  refused("real choice", "observation is float64 (), the first one was int64 (); whole numbers wanted");
  refused("2 flag", "terminated 2 of type int, wanted bool");
  refused("vector reward", "step() returned reward an array of float64 (2,), wanted one number");
  refused("list reward", "step() returned reward a list of 2, wanted one number");
  refused("no reward", "step() returned reward None of type NoneType, wanted one number");
  refused("no observation", "observation is None of type NoneType, numbers wanted");
  refused("ragged", "observation is a list of 2, which makes no array; numbers of one shape wanted");
  refused("part", "observation is a dict of 1 with 'a', wanted a part 'b'");
  refused("four", "step() returned 4 values, wanted observation, reward, terminated, truncated, info");
  CHECK_THAT(said("empty"), Contains("its observation has shape (0,), at least one number wanted"));
  CHECK_THAT(said("no info"), Contains("reset() returned info None of type NoneType, wanted a dict"));
}

TEST_CASE("hosted: settings that cannot be are refused before anything runs") {
  const auto refused = [](EnvConfig config) {
    try {
      (void)make(config, 1);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string("not refused");
  };
  EnvConfig config;
  config.gymnasium = "CartPole-v1";
  config.python = "/nowhere/python";
  CHECK_THAT(refused(config), Contains("cannot run '/nowhere/python'"));
  config.python = "/bin/true";
  CHECK_THAT(refused(config),
             Contains("'/bin/true' ended while the environment was being made") && Contains("exit code 0"));
  config.python_path = "/nowhere";
  CHECK_THAT(refused(config), Contains("env.python_path is /nowhere, which is no folder"));
  config.python_path = "";
  config.atari.preset = "pqn";
  CHECK_THAT(refused(config), Contains("env.atari.preset is pqn") && Contains("env.gymnasium is CartPole-v1"));
  config.atari.preset = "v5";
  config.id = "catch";
  CHECK_THAT(refused(config), Contains("two environments are named, env.id catch and env.gymnasium CartPole-v1"));
  config.id = EnvConfig{}.id;
  config.options = "a=1";
  CHECK_THAT(refused(config), Contains("env.kwargs instead"));
  if (test_python() == nullptr) return;
  CHECK_THAT(refused(scripted("Nothing-v0")), Contains("Nothing"));
  auto plain = scripted("Nothing-v0");
  plain.gymnasium = "Nothing-v0";
  CHECK_THAT(refused(plain), Contains("MODULE:Nothing-v0 imports the module that registers it first"));
  CHECK_THAT(refused({.id = "catch", .kwargs = "{}"}), Contains("env.kwargs is for env.gymnasium"));
  CHECK_THAT(refused({.id = "catch", .channels = "last"}), Contains("env.channels is for env.gymnasium"));
  CHECK_THAT(refused(scripted("Script-v0", "[1]")), Contains("JSON object wanted"));
  CHECK_THAT(refused(scripted("Script-v0", R"({"no_such": 1})")), Contains("no_such"));
  CHECK_THAT(refused(scripted("Script-v0", R"({"form": "old"})")),
             Contains("reset() returned ndarray, wanted observation, info"));
  auto vector_only = scripted("ScriptVector-v0");
  vector_only.vectorization = "slots";
  CHECK_THAT(refused(vector_only), Contains("vector class only"));
  auto no_vector = scripted("Script-v0");
  no_vector.vectorization = "entry_point";
  CHECK_THAT(refused(no_vector), Contains("no vector class"));
  auto module = scripted("Script-v0");
  module.gymnasium = "no_such_module:X-v0";
  CHECK_THAT(refused(module), Contains("cannot import no_such_module"));
}

TEST_CASE("hosted: the same seeds and actions give the same episodes, whatever else was played before") {
  if (test_python() == nullptr) return;
  EnvConfig config;
  config.gymnasium = "CartPole-v1";
  config.python = test_python();
  config.vectorization = "slots";
  const auto a = make(config, 3);
  const auto b = make(config, 3);
  const std::vector<std::uint64_t> seeds = {7, 8, 9};
  const std::vector<std::uint64_t> others = {1, 2, 3};
  std::vector<std::int32_t> actions(3);
  b->reset(others);
  for (int i = 0; i < 30; ++i) b->step(actions);
  a->reset(seeds);
  b->reset(seeds);
  for (int i = 0; i < 200; ++i) {
    for (std::size_t s = 0; s < 3; ++s) actions[s] = static_cast<std::int32_t>((i / 2 + static_cast<int>(s)) % 2);
    a->step(actions);
    b->step(actions);
    REQUIRE(std::equal(a->observation(0).begin(), a->observation(0).end(), b->observation(0).begin()));
  }
}
