#include "core/metrics.h"

#include <nlohmann/json.hpp>

#include "core/utf8.h"

namespace qanat {

MetricsWriter::MetricsWriter(const std::filesystem::path& directory)
    : lines_(directory / "metrics.jsonl", AppendFile::Mode::append_lines), events_(directory) {}

void MetricsWriter::write(const MetricsRow& row, std::int64_t tensorboard_step) {
  nlohmann::ordered_json line{{"time", row.time_seconds}, {"env_steps", row.env_steps}, {"updates", row.updates}};
  // Names may come from an environment's plug-in, so they are made UTF-8, which dump() insists on.
  for (const auto& metric : row.values) line[to_utf8(metric.name)] = metric.value;
  lines_.append(bytes_of(line.dump() + '\n'));  // dump() writes null for what is not finite
  events_.add(tensorboard_step, row.values);
}

}  // namespace qanat
