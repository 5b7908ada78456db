#include "cli/run_records.h"

#include "cli/roles.h"
#include "cli/summary.h"
#include "core/bytes.h"
#include "core/error.h"
#include "core/files.h"
#include "learner/checkpoint.h"

namespace qanat::cli {
namespace {

namespace fs = std::filesystem;

}  // namespace

RunRecords::RunRecords(fs::path run_dir, Logger& log, const std::optional<MetricsStart>& start)
    : run_dir_(std::move(run_dir)), log_(log), metrics_(run_dir_, start) {}

void RunRecords::write(const control::HeadStatus& status) {
  write_metrics(status);
  write_status(status);
}

void RunRecords::write_metrics(const control::HeadStatus& status) {
  attempt(metrics_record_, [&] { metrics_.write(metrics_row(status, failed_)); });
}

void RunRecords::write_status(const control::HeadStatus& status) {
  attempt(status_record_, [&] { cli::write_status(run_dir_, status); });
}

void RunRecords::attempt(Record& record, const std::function<void()>& write) {
  try {
    write();
    if (record.failing) log_.info(record.what, " can be written again");
    record.failing = false;
  } catch (const SystemError& error) {
    ++failed_;
    if (!record.failing) log_.error(record.what, ": ", error.what(), "; the run goes on, and it is tried again");
    record.failing = true;
  }
}

control::HeadStatus status_of_checkpoint(const RunConfig& config, const fs::path& run_dir,
                                         const std::string& checkpoint) {
  wire::Context context;
  const SteadyClock clock;
  Logger log({.who = "head", .path = {}, .to_stderr = false});
  control::Head head(context, clock, log, head_options(config, run_dir.string()), {});
  const auto file = fs::path(checkpoint) / "head.bin";
  if (fs::exists(file)) {
    const auto bytes = read_file(file);
    ByteReader in(bytes, file.string());
    head.load(in);
  }
  auto status = head.status();
  status.updates = learner::read_manifest(checkpoint).updates;
  return status;
}

MetricsStart metrics_start(const control::HeadStatus& status) {
  return {status.wall_seconds, static_cast<std::int64_t>(status.env_steps), static_cast<std::int64_t>(status.updates)};
}

}  // namespace qanat::cli
