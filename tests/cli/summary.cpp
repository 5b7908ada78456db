// What summary.json has of a run's last status.
#include "cli/summary.h"

#include "core/files.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;

TEST_CASE("summary: restarts of environments stand beside those of processes, and in every line of the metrics") {
  const test::TemporaryDirectory directory;
  control::HeadStatus status;
  status.env_restarts = 3;
  cli::write_status(directory.path(), status);
  {
    MetricsWriter metrics(directory.path(), {});
    metrics.write(cli::metrics_row(status, 0));
  }
  CHECK_THAT(read_text_file(directory / "metrics.jsonl"), Contains("\"env_restarts\":3"));
  cli::RunOutcome outcome;
  outcome.restarts = 2;
  const auto summary = cli::write_summary(directory.path(), outcome);
  CHECK_THAT(summary, Contains("\"restarts\": 2,\n  \"env_restarts\": 3,"));
  CHECK(read_text_file(directory / "summary.json") == summary);
}

TEST_CASE("summary: a run that never had a head had no restarts of environments") {
  const test::TemporaryDirectory directory;
  CHECK_THAT(cli::write_summary(directory.path(), {}), Contains("\"env_restarts\": 0"));
}

TEST_CASE("summary: a cause that is no UTF-8 does not keep the status or the summary from being written") {
  const test::TemporaryDirectory directory;
  control::HeadStatus status;
  status.stop_cause = "failure: \xff\xfe";
  status.metrics = {{"env/\xff", 1.0}};
  cli::write_status(directory.path(), status);
  CHECK_THAT(cli::write_summary(directory.path(), {}), Contains("\"stop_cause\": \"failure: "));
}
