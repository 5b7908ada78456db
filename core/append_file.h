// A file that grows by whole records.
//
// Not thread safe: one owner each. Every record is one write in append mode, so a SIGKILL leaves at most the last
// record torn, and readers that follow the file see records soon.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

#include "core/files.h"

namespace qanat {

class AppendFile {
 public:
  enum class Mode { create_new, append_lines };

  // create_new: throws SystemError when the file exists. append_lines: opens or creates it, and cuts off a last line
  // that has no line end, which a killed writer may have left.
  AppendFile(std::filesystem::path path, Mode mode);

  // On an error (SystemError: a full disk) what was written of the record is taken back.
  void append(std::span<const std::byte> record);

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  void cut_torn_line();

  std::filesystem::path path_;
  FileDescriptor file_;
};

}  // namespace qanat
