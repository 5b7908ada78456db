#include "core/log.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using qanat::test::TemporaryDirectory;

namespace {

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::istringstream in(read_text_file(path));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

LogOptions quiet(const std::filesystem::path& path) { return {.who = "actor-3", .path = path, .to_stderr = false}; }

struct Unprintable {
  friend std::ostream& operator<<(std::ostream&, const Unprintable&) { throw std::runtime_error("no"); }
};

}  // namespace

TEST_CASE("log: a line holds the UTC time, the level, who speaks and the message") {
  const TemporaryDirectory dir;
  Logger log(quiet(dir / "log"));
  log.info("joined ", "tcp://head:", 5555);
  log.error("gone");
  const auto lines = lines_of(dir / "log");
  REQUIRE(lines.size() == 2);
  const std::string time = R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z )";
  CHECK(std::regex_match(lines[0], std::regex(time + "INFO  actor-3: joined tcp://head:5555")));
  CHECK(std::regex_match(lines[1], std::regex(time + "ERROR actor-3: gone")));
}

TEST_CASE("log: what is below the level is not written") {
  const TemporaryDirectory dir;
  auto options = quiet(dir / "log");
  options.level = LogLevel::warn;
  Logger log(options);
  log.debug("1");
  log.info("2");
  log.warn("3");
  log.error("4");
  CHECK(lines_of(dir / "log").size() == 2);
  CHECK(log.dropped() == 0);
}

TEST_CASE("log: a message cannot forge a second line") {
  const TemporaryDirectory dir;
  Logger log(quiet(dir / "log"));
  log.info("a\nb\x1b[2J\xc3\xa9");
  const auto lines = lines_of(dir / "log");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].substr(lines[0].find(": ") + 2) == "a\\nb\\x1b[2J\xc3\xa9");
}

TEST_CASE("log: bytes that are no UTF-8, as a stranger may send them, leave the log a text") {
  const TemporaryDirectory dir;
  Logger log(quiet(dir / "log"));
  log.info("role '\xff\xfe'");
  const auto lines = lines_of(dir / "log");
  REQUIRE(lines.size() == 1);
  CHECK(lines[0].substr(lines[0].find(": ") + 2) == "role '" + std::string(2, '?') + "'");
}

TEST_CASE("log: lines of several threads do not mix and none is lost") {
  const TemporaryDirectory dir;
  Logger log(quiet(dir / "log"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&log, t] {
      for (int i = 0; i < 500; ++i) log.info("<", t, '/', i, std::string(100, 'x'), ">");
    });
  }
  for (auto& thread : threads) thread.join();
  std::set<std::string> seen;
  for (const auto& line : lines_of(dir / "log")) {
    CHECK(line.back() == '>');
    seen.insert(line.substr(line.find('<')));
  }
  CHECK(seen.size() == 2000);
}

TEST_CASE("log: a killed process has lost nothing that it said") {
  const TemporaryDirectory dir;
  const pid_t child = ::fork();
  if (child == 0) {
    Logger log(quiet(dir / "log"));
    for (int i = 0; i < 100; ++i) log.info("line ", i);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFSIGNALED(status));
  CHECK(lines_of(dir / "log").size() == 100);
}

TEST_CASE("log: a line that cannot be written or formatted is counted, not thrown") {
  Logger log({.who = "actor-0", .path = "/dev/full", .to_stderr = false});
  log.info("one");
  CHECK(log.dropped() == 1);
  log.info(Unprintable{});
  CHECK(log.dropped() == 2);
}

TEST_CASE("log: a log that cannot be opened is an error that names it") {
  const TemporaryDirectory dir;
  CHECK_THROWS_WITH(Logger(quiet(dir / "no" / "log")), Catch::Matchers::Contains("/no/log"));
}
