// Scalars in TensorBoard's event files, written without its libraries.
//
// An event file is a row of TFRecords (length, masked CRC-32C of the length, bytes, masked CRC-32C of the bytes),
// each an `Event` protocol buffer. A run that is resumed starts another file in the same directory; TensorBoard
// reads them all, in the order of their names. A SessionLog at its beginning says at which step it goes on, so that
// TensorBoard drops what earlier files have from that step on. Not thread safe: one owner each.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "core/append_file.h"

namespace qanat {

// The value of one named number.
struct Metric {
  std::string name;
  double value = 0;
};

class EventFile {
 public:
  // Makes DIRECTORY/events.out.tfevents.UNIXTIME.HOST.PID. UNIXTIME is later than that of any other in the directory.
  // Whatever earlier files have at `start` or later steps was undone; none: nothing was. Throws SystemError.
  EventFile(const std::filesystem::path& directory, std::optional<std::int64_t> start);

  // One event with all of `scalars`, stamped with the time of day. Values become f32; those that are not finite
  // are written as they are, TensorBoard marks them. Throws SystemError; the file is then as it was.
  void add(std::int64_t step, std::span<const Metric> scalars);

  [[nodiscard]] const std::filesystem::path& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace qanat
