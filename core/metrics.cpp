#include "core/metrics.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/utf8.h"

namespace qanat {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t first_tail_bytes = std::uint64_t{1} << 16;

// Written after the point at which the run goes on. What is no line of ours is taken along with what it stands among.
bool is_undone(std::string_view line, const MetricsStart& start) {
  const auto row = nlohmann::json::parse(line, nullptr, false);
  const auto number = [&](const char* name) {
    const auto found = row.find(name);
    return found != row.end() && found->is_number() ? found->get<double>() : 0.0;
  };
  if (!row.is_object()) return true;
  return number("time") > start.time_seconds || number("env_steps") > static_cast<double>(start.env_steps) ||
         number("updates") > static_cast<double>(start.updates);
}

std::string tail_of(const fs::path& file, std::uint64_t from) {
  std::ifstream in(file, std::ios::binary);
  in.seekg(static_cast<std::streamoff>(from));
  std::string out(std::istreambuf_iterator<char>(in), {});
  if (!in) throw SystemError(text("cannot read '", file.string(), "'"));
  return out;
}

// The undone lines at the end of `file`, which holds whole lines. Reads no more than about twice as much.
std::string undone_lines(const fs::path& file, const MetricsStart& start) {
  const auto size = static_cast<std::uint64_t>(fs::file_size(file));
  for (auto length = first_tail_bytes;; length *= 2) {
    const bool all = length >= size;
    const auto tail = tail_of(file, all ? 0 : size - length);
    // Only the part behind the first line end is sure to begin with a line.
    const auto first_end = tail.find('\n');
    if (!all && first_end == std::string::npos) continue;
    const std::size_t least = all ? 0 : first_end + 1;
    std::size_t kept = tail.size();
    while (kept > least) {
      const auto before = kept < 2 ? std::string::npos : tail.rfind('\n', kept - 2);
      const auto begin = before == std::string::npos ? 0 : before + 1;
      if (!is_undone(std::string_view(tail).substr(begin, kept - begin), start)) return tail.substr(kept);
      kept = begin;
    }
    if (all) return tail.substr(kept);
  }
}

AppendFile open_lines(const fs::path& directory, const std::optional<MetricsStart>& start) {
  const auto path = directory / "metrics.jsonl";
  AppendFile lines(path, AppendFile::Mode::append_lines);
  const auto undone = start ? undone_lines(path, *start) : std::string();
  if (undone.empty()) return lines;
  AppendFile(directory / "metrics.undone.jsonl", AppendFile::Mode::append_lines).append(bytes_of(undone));
  std::error_code error;
  fs::resize_file(path, fs::file_size(path) - undone.size(), error);
  if (error) throw_system_error("truncate", path, error.value());
  return lines;
}

// Events at the step of the checkpoint itself stay: they were written before it.
std::optional<std::int64_t> first_undone_step(const std::optional<MetricsStart>& start) {
  if (!start) return std::nullopt;
  return start->env_steps > 0 ? start->env_steps + 1 : 0;
}

}  // namespace

MetricsWriter::MetricsWriter(const fs::path& directory, const std::optional<MetricsStart>& start)
    : lines_(open_lines(directory, start)), events_(directory, first_undone_step(start)) {}

void MetricsWriter::write(const MetricsRow& row) {
  nlohmann::ordered_json line{{"time", row.time_seconds}, {"env_steps", row.env_steps}, {"updates", row.updates}};
  // Names may come from an environment's plug-in, so they are made UTF-8, which dump() insists on.
  for (const auto& metric : row.values) line[to_utf8(metric.name)] = metric.value;
  lines_.append(bytes_of(line.dump() + '\n'));  // dump() writes null for what is not finite
  events_.add(row.env_steps, row.values);
}

}  // namespace qanat
