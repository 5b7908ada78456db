#include "core/memory.h"

#include <charconv>
#include <cstdio>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/files.h"

namespace qanat {
namespace {

namespace fs = std::filesystem;

std::optional<std::uint64_t> number_in(std::string_view words) {
  const std::size_t first = words.find_first_not_of(" \t");
  if (first == std::string_view::npos) return std::nullopt;
  words.remove_prefix(first);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(words.data(), words.data() + words.size(), value);
  if (error != std::errc()) return std::nullopt;  // also "max": no limit
  return value;
}

std::string read_or_empty(const fs::path& path) {
  try {
    return read_text_file(path, 1 << 20);
  } catch (const SystemError&) {
    return "";  // not there, or not ours to read: sets no bound
  }
}

// The number behind `key` at the start of a line.
std::optional<std::uint64_t> value_of(const std::string& lines, std::string_view key) {
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(key)) return number_in(std::string_view(line).substr(key.size()));
  }
  return std::nullopt;
}

// The names of one version's files.
struct CgroupFiles {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // a key of memory.stat, over the whole subtree as usage is
};
constexpr CgroupFiles version_1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "};
constexpr CgroupFiles version_2{"memory.max", "memory.current", "inactive_file "};

// Where a hierarchy with memory limits is mounted: `mounted` of it is seen at `at`.
struct Mount {
  std::string mounted;
  std::string at;
  bool is_version_2;
};

bool has_word(std::string_view list, std::string_view word) {
  while (true) {
    const std::size_t comma = list.find(',');
    if (list.substr(0, comma) == word) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
}

// Lines as in proc(5): "36 35 98:0 /root /at options [optional ...] - type source super,options".
std::vector<Mount> memory_mounts(const std::string& mountinfo) {
  std::vector<Mount> mounts;
  std::istringstream in(mountinfo);
  for (std::string line; std::getline(in, line);) {
    std::istringstream words(line);
    std::string id, parent, device, mounted, at, word, type, source, options;
    words >> id >> parent >> device >> mounted >> at;
    while (words >> word && word != "-") {
    }
    words >> type >> source >> options;
    if (type == "cgroup2") mounts.push_back({mounted, at, true});
    if (type == "cgroup" && has_word(options, "memory")) mounts.push_back({mounted, at, false});
  }
  return mounts;
}

// This process's path in the hierarchy. Lines of /proc/self/cgroup: "4:memory:/path" (v1), "0::/path" (v2).
std::optional<std::string> own_path(const std::string& cgroup, bool is_version_2) {
  std::istringstream in(cgroup);
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':');
    if (first == std::string::npos) continue;
    const std::size_t second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (is_version_2 ? controllers.empty() : has_word(controllers, "memory")) return line.substr(second + 1);
  }
  return std::nullopt;
}

void lower(AvailableMemory& available, const fs::path& root, const fs::path& directory, const CgroupFiles& files) {
  const fs::path real = root / directory.relative_path();
  const auto limit = number_in(read_or_empty(real / files.limit));
  const auto usage = number_in(read_or_empty(real / files.usage));
  if (!limit || !usage) return;
  const std::uint64_t cache = value_of(read_or_empty(real / "memory.stat"), files.reclaimable).value_or(0);
  const std::uint64_t used = *usage > cache ? *usage - cache : 0;
  const std::uint64_t left = *limit > used ? *limit - used : 0;
  if (left < available.bytes) available = {left, "the cgroup limit of " + directory.string()};
}

}  // namespace

AvailableMemory available_memory(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  const auto kibibytes = value_of(read_text_file(meminfo), "MemAvailable:");
  if (!kibibytes) throw SystemError(text("cannot find MemAvailable in '", meminfo.string(), "'"));
  AvailableMemory available{*kibibytes * 1024, "the machine"};

  const std::string cgroup = read_or_empty(root / "proc/self/cgroup");
  for (const auto& mount : memory_mounts(read_or_empty(root / "proc/self/mountinfo"))) {
    const auto path = own_path(cgroup, mount.is_version_2);
    if (!path) continue;
    // In a container the mount shows only a part of the hierarchy, often just our own group.
    std::string below = *path;
    if (mount.mounted != "/") below = below.starts_with(mount.mounted) ? below.substr(mount.mounted.size()) : "";
    fs::path directory = fs::path(mount.at) / fs::path(below).relative_path();
    const auto depth = [](const fs::path& p) { return std::distance(p.begin(), p.end()); };
    const auto top = depth(fs::path(mount.at));
    for (; depth(directory) >= top; directory = directory.parent_path()) {
      lower(available, root, directory, mount.is_version_2 ? version_2 : version_1);
      if (directory == directory.parent_path()) break;
    }
  }
  return available;
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return text(bytes, " B");
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0 of the smaller unit.
  while (value >= 1023.95 && unit + 1 < std::size(units)) {
    value /= 1024;
    ++unit;
  }
  char out[32];
  std::snprintf(out, sizeof out, "%.1f %s", value, units[unit]);
  return out;
}

}  // namespace qanat
