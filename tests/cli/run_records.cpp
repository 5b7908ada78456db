// What the head writes while a run goes on, on a disk that does not always take it.
#include "cli/run_records.h"

#include <sys/resource.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::cli;
using Catch::Matchers::Contains;
namespace fs = std::filesystem;

namespace {

// What this process may write into a file, while it lives: a full disk that needs no root.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(std::size_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit small{static_cast<rlim_t>(bytes), before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    (void)std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*handler_)(int);
  rlimit before_{};
};

control::HeadStatus at(double seconds) {
  control::HeadStatus status;
  status.wall_seconds = seconds;
  status.env_steps = static_cast<std::uint64_t>(seconds * 100);
  return status;
}

}  // namespace

TEST_CASE("records: a status that cannot be written is counted and said once, and written when it can be again") {
  const test::TemporaryDirectory place;
  const auto run = place / "run";
  make_directories(run);
  const auto log_file = place / "head.log";
  Logger log({.who = "head-0", .path = log_file, .to_stderr = false});
  RunRecords records(run, log, MetricsStart{});
  records.write(at(1));
  CHECK(records.failed_writes() == 0);
  fs::rename(run, place / "away");
  for (int i = 2; i < 6; ++i) CHECK_NOTHROW(records.write(at(i)));
  CHECK(records.failed_writes() == 4);
  CHECK(!fs::exists(run));
  fs::rename(place / "away", run);
  records.write(at(6));
  CHECK(records.failed_writes() == 4);
  CHECK(nlohmann::json::parse(read_text_file(run / "status.json"))["wall_seconds"] == 6);
  const auto said = read_text_file(log_file);
  CHECK_THAT(said, Contains("status.json: cannot create") && Contains("status.json can be written again"));
  CHECK(std::count(said.begin(), said.end(), '\n') == 2);
  CHECK_THAT(read_text_file(run / "metrics.jsonl"), Contains("\"failed_writes\":4"));
}

TEST_CASE("records: a disk that takes no more leaves whole lines, and the run goes on") {
  const test::TemporaryDirectory place;
  Logger log({.who = "head-0", .path = {}, .to_stderr = false});
  RunRecords records(place.path(), log, MetricsStart{});
  records.write(at(1));
  const auto before = read_text_file(place / "metrics.jsonl");
  {
    const FileSizeLimit limit(before.size() + 10);  // a part of a line fits
    for (int i = 2; i < 5; ++i) CHECK_NOTHROW(records.write(at(i)));
  }
  CHECK(records.failed_writes() >= 3);
  CHECK(read_text_file(place / "metrics.jsonl") == before);
  records.write(at(9));
  CHECK(read_text_file(place / "metrics.jsonl").starts_with(before + "{\"time\":9"));
  CHECK(nlohmann::json::parse(read_text_file(place / "status.json"))["wall_seconds"] == 9);
}
