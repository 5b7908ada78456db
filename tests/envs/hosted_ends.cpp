// Time limits of hosted environments, and what is left of their processes at each kind of end.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "core/clock.h"
#include "core/error.h"
#include "tests/envs/hosted_python.h"

using namespace qanat;
using namespace qanat::envs;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

EnvConfig slow(const std::string& kwargs) {
  auto config = scripted("Slow-v0", kwargs);
  config.make_timeout_seconds = config.reset_timeout_seconds = config.step_timeout_seconds = 30;
  return config;
}

void reset(VectorEnv& env) { env.reset(std::vector<std::uint64_t>(env.slots(), 3)); }

// An environment that starts processes, and what it wrote down.
class FamilyTree {
 public:
  explicit FamilyTree(const std::string& more = "")
      : kwargs_(R"({"folder": ")" + folder_.text() + R"(", "index": {index})" + more + "}") {
    fs::create_directory(folder_.text());
  }
  ~FamilyTree() { fs::remove_all(folder_.text()); }
  FamilyTree(const FamilyTree&) = delete;
  FamilyTree& operator=(const FamilyTree&) = delete;

  [[nodiscard]] EnvConfig config() const {
    auto out = scripted("Family-v0", kwargs_);
    out.first_index = 40;
    return out;
  }
  [[nodiscard]] bool has(const std::string& file) const { return fs::exists(fs::path(folder_.text()) / file); }
  [[nodiscard]] std::string read(const std::string& file) const {
    std::ifstream in(fs::path(folder_.text()) / file);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  // How many of the processes that two slots started are there.
  [[nodiscard]] int living() const {
    int count = 0;
    for (const char* file : {"pids-40", "pids-41"}) {
      std::ifstream in(fs::path(folder_.text()) / file);
      for (pid_t pid = 0; in >> pid;) count += fs::exists("/proc/" + std::to_string(pid)) ? 1 : 0;
    }
    return count;
  }
  [[nodiscard]] int living_soon() const {
    for (int i = 0; i < 500 && living() > 0; ++i) std::this_thread::sleep_for(Milliseconds(10));
    return living();
  }

 private:
  Once folder_;
  std::string kwargs_;
};

}  // namespace

TEST_CASE("hosted ends: a limit is for one slot's reset, however many come after each other") {
  if (test_python() == nullptr) return;
  // Together they take 5 s, at a reset and in a step; half a second a slot is only added where one call resets all.
  auto config = slow(R"({"reset_seconds": 1})");
  config.reset_timeout_seconds = config.step_timeout_seconds = 2.2;
  const auto env = make(config, 5);
  reset(*env);
  env->step(std::vector<std::int32_t>(5));
  CHECK(env->restarts() == 0);
  CHECK(env->take_events().empty());
}

TEST_CASE("hosted ends: an error says whose limit was passed and which setting it is") {
  if (test_python() == nullptr) return;
  auto config = slow(R"({"reset_seconds": 30})");
  config.reset_timeout_seconds = 0.5;
  config.trial = true;  // the first fault is the last
  const auto message = [&] {
    try {
      const auto env = make(config, 2);
      reset(*env);
    } catch (const RunError& error) {
      return std::string(error.what());
    }
    return std::string("no error");
  };
  // The first slot's first reset is quick.
  CHECK_THAT(message(), Contains("slot 0 (seed 3): reset took longer than 0.5 s (env.reset_timeout_seconds)") ||
                            Contains("slot 1 (seed 3): reset took longer than 0.5 s (env.reset_timeout_seconds)"));
  config = slow(R"({"make_seconds": 30})");
  config.make_timeout_seconds = 0.5;
  CHECK_THAT(message(), Contains("environment scripted:Slow-v0: making it took longer than 1.5 s") &&
                            Contains("(env.make_timeout_seconds, and half a second for each of its slots)"));
}

TEST_CASE("hosted ends: environments that are made one after the other have the limit each") {
  if (test_python() == nullptr) return;
  auto config = slow(R"({"make_seconds": 0.6})");
  config.make_timeout_seconds = 0.8;  // and half a second a slot: 6.8 s, twelve of them take 7.2 s
  CHECK(make(config, 12)->slots() == 12);
}

TEST_CASE("hosted ends: an orderly end closes each environment, then ends all that they started") {
  if (test_python() == nullptr) return;
  const FamilyTree family;
  {
    const auto env = make(family.config(), 2);
    reset(*env);
    CHECK(family.living() == 4);
    CHECK(family.read("index-40") == "40");
    CHECK(family.read("index-41") == "41");
    CHECK_FALSE(family.has("closed-40"));
  }
  CHECK(family.has("closed-40"));
  CHECK(family.has("closed-41"));
  CHECK(family.living() == 0);
}

TEST_CASE("hosted ends: a close() that takes too long is not waited for") {
  if (test_python() == nullptr) return;
  const FamilyTree family(R"(, "close_seconds": 60)");
  auto config = family.config();
  config.close_timeout_seconds = 0.3;
  SteadyClock clock;
  auto env = make(config, 2);
  reset(*env);
  const auto begin = clock.now();
  env.reset();
  CHECK(clock.now() - begin < std::chrono::seconds(20));
  CHECK_FALSE(family.has("closed-40"));
  CHECK(family.living() == 0);
}

TEST_CASE("hosted ends: when the role is killed, nothing that its environments started is left") {
  if (test_python() == nullptr) return;
  const FamilyTree family;
  int pipe_ends[2];
  REQUIRE(pipe(pipe_ends) == 0);
  const pid_t role = fork();
  REQUIRE(role >= 0);
  if (role == 0) {
    try {
      const auto env = make(family.config(), 2);
      if (write(pipe_ends[1], "1", 1) == 1) pause();
    } catch (const std::exception&) {
      // Then the other side reads no byte.
    }
    _exit(0);
  }
  close(pipe_ends[1]);
  char byte = 0;
  REQUIRE(read(pipe_ends[0], &byte, 1) == 1);
  CHECK(family.living() == 4);
  kill(role, SIGKILL);
  waitpid(role, nullptr, 0);
  CHECK(family.living_soon() == 0);
  close(pipe_ends[0]);
}
