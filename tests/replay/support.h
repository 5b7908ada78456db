// What several replay tests need.
#pragma once

#include <unistd.h>

#include <filesystem>

#include "core/error.h"
#include "replay/shard.h"

namespace qanat::test {

inline replay::ShardOptions options_of(std::int64_t stack, std::int64_t n_step, std::uint64_t capacity = 1009,
                                       double alpha = 0.6) {
  replay::ShardOptions options;
  options.capacity_rows = capacity;
  options.stack = stack;
  options.n_step = n_step;
  options.alpha = alpha;
  options.shard_index = 3;
  return options;
}

// A folder of this test's own, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "qanat-replay-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw SystemError("cannot make a temporary folder");
    path = name;
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder() { std::filesystem::remove_all(path); }

  std::filesystem::path path;
};

}  // namespace qanat::test
