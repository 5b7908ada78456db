// A run's directory as it is begun, and the configuration in it.
#include "cli/new_run.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "cli/config_seal.h"
#include "cli/evaluate.h"
#include "core/config_writer.h"
#include "core/error.h"
#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"
#include "tests/support/message_of.h"

using namespace qanat;
using namespace qanat::cli;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

RunConfig catch_config() {
  RunConfig config;
  config.env.id = "catch";
  config.seed = 77;
  config.stop.updates = 1234;
  return config;
}

const std::string way_out = "go on with it";

}  // namespace

TEST_CASE("new run: its directory appears complete") {
  const test::TemporaryDirectory place;
  const auto run = place / "runs" / "mine";
  make_run(run, catch_config(), way_out, [&](const fs::path& made) {
    CHECK(fs::exists(made / "config.yaml"));
    CHECK(!fs::exists(run));
  });
  CHECK(list_directory(run) == std::vector<std::string>{"checkpoints", "config.yaml", "epoch", "logs"});
  CHECK(list_directory(run.parent_path()) == std::vector<std::string>{"mine"});
  CHECK(write_config(config_of_run(run)) == write_config(catch_config()));
}

TEST_CASE("new run: what goes wrong while it is made leaves nothing behind") {
  const test::TemporaryDirectory place;
  CHECK_THROWS_AS(make_run(place / "mine", catch_config(), way_out, [](const fs::path&) { throw RunError("no"); }),
                  RunError);
  CHECK(list_directory(place.path()).empty());
  write_file_atomically(place / "file", "x");
  CHECK_THROWS_AS(make_run(place / "file" / "mine", catch_config(), way_out), ConfigError);
}

TEST_CASE("new run: a name that is taken is refused with the way out, also when it was taken meanwhile") {
  const test::TemporaryDirectory place;
  make_run(place / "mine", catch_config(), way_out);
  const auto before = read_text_file(place / "mine" / "config.yaml");
  CHECK_THAT(message_of([&] { make_run(place / "mine", catch_config(), way_out); }),
             Contains("there is a run in") && Contains(way_out));
  CHECK(read_text_file(place / "mine" / "config.yaml") == before);
  make_directories(place / "other");
  CHECK_THAT(message_of([&] { make_run(place / "other", catch_config(), way_out); }),
             Contains("has no config.yaml") && Contains("Remove it"));
  CHECK_THAT(message_of([&] {
               make_run(place / "late", catch_config(), way_out,
                        [&](const fs::path&) { make_directories(place / "late"); });
             }),
             Contains("has no config.yaml"));
  CHECK(list_directory(place.path()) == std::vector<std::string>{"late", "mine", "other"});
}

TEST_CASE("new run: whenever a start is killed, there is a whole run or none, and the next start finds room") {
  const test::TemporaryDirectory place;
  const auto run = place / "mine";
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {  // killed in the middle
    make_run(run, catch_config(), way_out, [](const fs::path&) { kill(getpid(), SIGKILL); });
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(!fs::exists(run));
  REQUIRE(list_directory(place.path()).size() == 1);
  make_run(run, catch_config(), way_out);
  CHECK(list_directory(place.path()) == std::vector<std::string>{"mine"});
}

TEST_CASE("config seal: wherever a run's configuration is cut short, and whichever byte is damaged, it is refused") {
  const test::TemporaryDirectory place;
  const auto run = place / "mine";
  make_run(run, catch_config(), way_out);
  const auto file = (run / "config.yaml").string();
  const auto whole = read_text_file(file);
  REQUIRE_NOTHROW(load_run_config(file, {}));
  REQUIRE(whole.find("updates: 1234") != std::string::npos);
  const auto refused = [&](const std::string& content) {
    try {
      (void)parse_run_config(content, file);
      return false;
    } catch (const ConfigError&) {
      return true;
    }
  };
  CHECK(!refused(whole));
  for (std::size_t size = 1; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK(refused(whole.substr(0, size)));
  }
  for (std::size_t byte = 0; byte < whole.size(); byte += 3) {
    auto damaged = whole;
    damaged[byte] = damaged[byte] == '7' ? '8' : '7';
    CAPTURE(byte);
    if (byte >= std::string_view("# qanat run,").size()) CHECK(refused(damaged));
  }
  write_file_atomically(file, whole.substr(0, whole.size() / 2));
  for (const auto& message :
       {message_of([&] { (void)load_run_config(file, {}); }), message_of([&] { (void)config_of_run(run); })})
    CHECK_THAT(message, Contains(file) && Contains("cut short") && Contains("take out its first line") &&
                            Contains("config show"));
}

TEST_CASE("config seal: a user's own file and those of earlier runs need none, and an edited one is taken without it") {
  const auto yaml = write_config(catch_config());
  CHECK(parse_run_config(yaml, "earlier").stop.updates == 1234);
  CHECK(parse_run_config("# mine\nenv:\n  id: catch\n", "mine").env.id == "catch");
  auto edited = seal_config(yaml);
  edited.replace(edited.find("updates: 1234"), 13, "updates: 5678");
  CHECK_THROWS_AS(parse_run_config(edited, "edited"), ConfigError);
  CHECK(parse_run_config(edited.substr(edited.find('\n') + 1), "edited").stop.updates == 5678);
}
