// Environments out of shared objects: which one a configuration names, and what is refused with which words.
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "envs/plugin.h"
#include "envs/vector_env.h"
#include "qanat/env.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;

namespace {

const std::string coin = QANAT_TEST_PLUGIN;
using Actions = std::vector<std::int32_t>;

std::string refused(const EnvConfig& config) {
  try {
    static_cast<void>(make(config, 1));
  } catch (const ConfigError& error) {
    return text("setting: ", error.what());
  } catch (const InputError& error) {
    return text("plug-in: ", error.what());
  }
  return "no error";
}

std::string refused_build(const char* reason) { return refused({.plugin = text(QANAT_TEST_REFUSED, reason, ".so")}); }

}  // namespace

TEST_CASE("plug-ins: a shared object built from the public headers alone is stepped like a built-in") {
  const auto env = make({.id = "coin", .plugin = coin, .options = "sides=3"}, 4);
  CHECK(env->spec().id == "coin");
  CHECK(env->spec().action.n == 3);
  env->reset(std::vector<std::uint64_t>{1, 2, 3, 4});
  for (int step = 1; step <= 30; ++step) {
    Actions guesses(4);
    for (std::size_t slot = 0; slot < 4; ++slot) {
      float shown = 0;
      std::memcpy(&shown, env->observation(0).data() + slot * sizeof shown, sizeof shown);
      guesses[slot] = static_cast<std::int32_t>(shown);
    }
    env->step(guesses);
    for (std::size_t slot = 0; slot < 4; ++slot) {
      CHECK(env->rewards()[slot] == 1);
      CHECK(env->truncated()[slot] == (step % 10 == 0));
    }
  }
}

TEST_CASE("plug-ins: the id selects one of several environments, and two batches of one plug-in are apart") {
  const auto six = make({.id = "six-sided", .plugin = coin}, 1);
  const auto two = make({.id = "coin", .plugin = coin}, 2);
  CHECK(six->spec().action.n == 6);
  CHECK(two->spec().action.n == 2);
  CHECK(load_plugin(coin).size() == 2);
}

TEST_CASE("plug-ins: an id that is missing or wrong is answered with those there are") {
  CHECK_THAT(refused({.plugin = coin}), Contains("setting: ") && Contains("holds 2 environments") &&
                                            Contains("env.id") && Contains("coin, six-sided"));
  CHECK_THAT(refused({.id = "six_sided", .plugin = coin}),
             Contains("has no environment \"six_sided\"") && Contains("nearest: six-sided") && Contains("coin"));
  CHECK_THAT(refused({.id = "CartPole-v1", .plugin = coin}), Contains("has no environment"));
  CHECK_THAT(refused({}), Contains("no environment is named") && Contains("env.plugin"));
}

TEST_CASE("plug-ins: a file that is missing, no file, or no shared object is named by its whole path") {
  const test::TemporaryDirectory directory;
  const auto path = [&](const char* name) { return (directory.path() / name).string(); };
  CHECK_THAT(refused({.plugin = path("none.so")}), Contains(path("none.so")) && Contains("no such file"));
  CHECK_THAT(refused({.plugin = directory.path().string()}), Contains("wanted a shared object"));
  std::ofstream(path("text.so")) << "not a library";
  CHECK_THAT(refused({.plugin = path("text.so")}), Contains("setting: ") && Contains("cannot be loaded"));
  // libc.so.6 would be found on the system's search path; here a bare name is a file in the working directory.
  CHECK_THAT(refused({.plugin = "libc.so.6"}), Contains("/libc.so.6") && Contains("no such file"));
}

TEST_CASE("plug-ins: what the loader refuses is named with the reason") {
  CHECK_THAT(refused_build("wrong_abi"), Contains("plug-in: ") && Contains("refused_wrong_abi.so") &&
                                             Contains("environment 0") && Contains("version 2") &&
                                             Contains("this program has 1"));
  // 88: what a table of the first version had. It may only grow.
  CHECK_THAT(refused_build("small_table"), Contains("40 bytes") && Contains("at least 88 wanted"));
  CHECK_THAT(refused_build("no_step"), Contains("function step is missing"));
  CHECK_THAT(refused_build("none"), Contains("setting: ") && Contains("holds no environments"));
  CHECK_THAT(refused_build("throws"), Contains("qanat_env_api(0) threw: no licence"));
  CHECK_THAT(refused_build("same_id"), Contains("two of its environments are called refused"));
  CHECK_THAT(refused_build("endless"), Contains("more than 1024 environments"));
  CHECK_THAT(refused_build("no_symbol"), Contains("exports no qanat_env_api") && Contains("QANAT_EXPORT_ENVIRONMENTS"));
  CHECK_THAT(refused_build("undefined"), Contains("cannot be loaded") && Contains("defined_nowhere"));
}

TEST_CASE("plug-ins: an exception that crosses the C interface is an error, not the end of the process") {
  qanat_env_table table = *load_plugin(coin).front();
  table.step = [](qanat_env*, const void*, const qanat_env_buffers*, qanat_env_error*) -> std::int32_t {
    throw std::runtime_error("the coin is lost");
  };
  VectorEnv env(table, {}, 1);
  env.reset(std::vector<std::uint64_t>{1});
  CHECK_THROWS_WITH(env.step(Actions{0}),
                    Contains("step failed") && Contains("crossed the C interface") && Contains("the coin is lost"));
  table.create = [](const qanat_env_config*, qanat_env**, qanat_env_error*) -> std::int32_t { throw 7; };
  CHECK_THROWS_AS(VectorEnv(table, {}, 1), ConfigError);
}
