// What the head writes down while a run goes on: metrics.jsonl, event files, status.json.
//
// Writing may fail (a full disk, one that became read-only, a folder that is gone): that is said once, counted in the
// metric `failed_writes`, and tried again with the next report. It never ends a run. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "cli/run_config.h"
#include "control/head.h"
#include "core/log.h"
#include "core/metrics.h"

namespace qanat::cli {

class RunRecords {
 public:
  // `start`: where the run begins or goes on; what was written after that by a process before is set aside. None: the
  // run's other processes have never stopped. Throws SystemError: a run that cannot write from the first is not begun.
  RunRecords(std::filesystem::path run_dir, Logger& log, const std::optional<MetricsStart>& start);

  // One line of metrics, and status.json.
  void write(const control::HeadStatus& status);
  void write_metrics(const control::HeadStatus& status);
  void write_status(const control::HeadStatus& status);

  [[nodiscard]] std::uint64_t failed_writes() const { return failed_; }

 private:
  // One of the things to be written.
  struct Record {
    const char* what;
    bool failing = false;
  };
  void attempt(Record& record, const std::function<void()>& write);

  std::filesystem::path run_dir_;
  Logger& log_;
  MetricsWriter metrics_;
  Record metrics_record_{"metrics"};
  Record status_record_{"status.json"};
  std::uint64_t failed_ = 0;
};

// The run as it stood at a checkpoint: the head's part and the manifest's updates. Throws InputError or SystemError.
[[nodiscard]] control::HeadStatus status_of_checkpoint(const RunConfig& config, const std::filesystem::path& run_dir,
                                                       const std::string& checkpoint);

[[nodiscard]] MetricsStart metrics_start(const control::HeadStatus& status);

}  // namespace qanat::cli
