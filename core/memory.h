// How much memory this process may still take, so that a run that cannot fit is refused before it starts.
//
// Thread safe: pure reads of /proc and /sys.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace qanat {

struct AvailableMemory {
  std::uint64_t bytes = 0;
  // What sets the bound: "the machine" or "the cgroup limit of /sys/fs/cgroup/job".
  std::string bound_by;
};

// The least of MemAvailable and, for this process's cgroup (v1 and v2) and every one above it, its limit less what
// is in use there; page cache that the kernel drops first (inactive_file) does not count as used. Reads
// ROOT/proc/meminfo, ROOT/proc/self/cgroup, ROOT/proc/self/mountinfo and the cgroup files; `root` is for tests.
// Throws SystemError without a readable MemAvailable; missing or odd cgroup files set no bound.
[[nodiscard]] AvailableMemory available_memory(const std::filesystem::path& root = "/");

// "1.5 GiB", "12.0 MiB", "999 B".
[[nodiscard]] std::string human_bytes(std::uint64_t bytes);

}  // namespace qanat
