// What a run's configuration makes of its parts together.
#include "cli/run_config.h"

#include <fstream>

#include "core/config_writer.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
namespace fs = std::filesystem;

TEST_CASE("run configuration: a plug-in's path is meant from the file's directory") {
  const test::TemporaryDirectory directory;
  const auto file = directory / "sub" / "run.yaml";
  fs::create_directory(directory / "sub");
  std::ofstream(file) << "env:\n  plugin: ../libmine.so\n";
  const auto wanted = (directory / "libmine.so").string();
  const auto config = cli::load_run_config(file.string(), {});
  CHECK(config.env.plugin == wanted);

  // However the file is called, and in the copy that a run keeps elsewhere.
  const auto from = fs::current_path();
  fs::current_path(directory.path());
  CHECK(cli::load_run_config("sub/run.yaml", {}).env.plugin == wanted);
  CHECK(cli::load_run_config("sub/run.yaml", {"env.plugin=./libother.so"}).env.plugin ==
        (directory / "libother.so").string());
  fs::current_path(from);
  CHECK(cli::parse_run_config(write_config(config), "copy").env.plugin == wanted);
}

TEST_CASE("run configuration: a Python environment's module is looked for beside the file, its interpreter by path") {
  const test::TemporaryDirectory directory;
  const auto file = (directory / "run.yaml").string();
  std::ofstream(file) << "env:\n  gymnasium: mine:Mine-v0\n  python: .venv/bin/python\n";
  const auto config = cli::load_run_config(file, {});
  CHECK(config.env.python_path == directory.path().string());
  CHECK(config.env.python == (directory / ".venv/bin/python").string());
  std::ofstream(file) << "env:\n  gymnasium: mine:Mine-v0\n  python_path: src\n";
  CHECK(cli::load_run_config(file, {}).env.python_path == (directory / "src").string());
  CHECK(cli::load_run_config(file, {}).env.python == "python3");
  std::ofstream(file) << "env:\n  id: catch\n";
  CHECK(cli::load_run_config(file, {}).env.python_path.empty());
}

TEST_CASE("run configuration: an absolute path stays, no path stays none") {
  const test::TemporaryDirectory directory;
  const auto file = (directory / "run.yaml").string();
  std::ofstream(file) << "env:\n  plugin: /opt/envs/libmine.so\n";
  CHECK(cli::load_run_config(file, {}).env.plugin == "/opt/envs/libmine.so");
  std::ofstream(file) << "env:\n  id: catch\n";
  CHECK(cli::load_run_config(file, {}).env.plugin.empty());
}

TEST_CASE("run configuration: a chunk that is too large a message for a shard is refused with the sum") {
  cli::RunConfig config;
  const wire::EnvironmentSchema environment{
      "camera", {{{"place", DType::f32, {3}}, -1, 1}, {{"picture", DType::u8, {3, 720, 960}}, 0, 255}}, 3, false, 0};
  config.actors.chunk_steps = 64;
  CHECK_NOTHROW(cli::check_messages(config, environment));  // 2 * 64 * 2073600 = 253.1 MiB
  config.actors.chunk_steps = 65;
  CHECK_THROWS_WITH(cli::check_messages(config, environment),
                    Catch::Matchers::Contains("2 * actors.chunk_steps = 130 rows") &&
                        Catch::Matchers::Contains("2073600 bytes (picture u8 [3, 720, 960]) = 257.1 MiB") &&
                        Catch::Matchers::Contains("replay.max_frame_megabytes = 256") &&
                        Catch::Matchers::Contains("at most 64 "));
  config.replay.max_frame_megabytes = 300;
  CHECK_NOTHROW(cli::check_messages(config, environment));
}
