// Bounds what the processes of a run write into logs/: their logs, and what they and their environments print.
//
// Whoever writes holds the file open, in append mode, and may be a program of the user's; so a file is cut, not
// renamed: its newest part is copied to FILE.1, over an older one, the file is made empty, and its first line then says
// how much went. What is written between the copy and the cut is lost; the line counts that too. Not thread safe.
#pragma once

#include <cstdint>
#include <filesystem>

#include "core/clock.h"

namespace qanat::cli {

class BoundedLogs {
 public:
  // All .log and .out files of the directory, each bounded to `most_bytes`, and as much again in its FILE.1.
  BoundedLogs(std::filesystem::path directory, std::uint64_t most_bytes);

  // Call often: looks at the files four times a second. What goes wrong (a full disk) is written into the cut file, if
  // that is possible, and never thrown.
  void look(Nanoseconds now);

 private:
  void cut(const std::filesystem::path& path) const;

  std::filesystem::path directory_;
  std::uint64_t most_bytes_;
  Nanoseconds next_ = Nanoseconds::min();
};

}  // namespace qanat::cli
