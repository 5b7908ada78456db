// Names that `qanat env new` takes, and those it refuses. That its templates build, train and are not written over is
// tried by env_commands.py and by the README's own commands.
#include "cli/env_new.h"

#include "core/error.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;

TEST_CASE("env new: names become class names") {
  CHECK(cli::class_name("my_env") == "MyEnv");
  CHECK(cli::class_name("maze") == "Maze");
  CHECK(cli::class_name("grid_2d_x") == "Grid2dX");
}

TEST_CASE("env new: names that cannot name files, a target and a module are refused with the reason") {
  for (const char* good : {"a", "my_env", "maze2", "x_1_y"}) CHECK_NOTHROW(cli::check_env_name(good));
  const auto refused = [](const std::string& name, const char* why) {
    CHECK_THROWS_WITH(cli::check_env_name(name), Contains(why) && Contains("\"" + name + "\""));
    CHECK_THROWS_AS(cli::check_env_name(name), ConfigError);
  };
  refused("", "wanted 1 to 40");
  refused(std::string(41, 'a'), "41 characters");
  refused("2d", "begin with a letter");
  refused("_x", "begin with a letter");
  refused("My", "begin with a letter");
  refused("my-env", "holds '-'");
  refused("my env", "holds ' '");
  refused("a/b", "holds '/'");
  refused("env\n", "holds '\n'");
  refused("env_", "end with _");
  refused("class", "means something");
  refused("numpy", "means something");
  refused("test", "means something");
}
