// Pictures, and files of them: PNG for one, animated PNG for several, which browsers and most viewers play. Others
// show the first frame.
//
// Formats: "Portable Network Graphics Specification, Third Edition" (W3C, 2025), which includes the animated kind.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace qanat {

struct Picture {
  int height = 0, width = 0;
  std::vector<std::uint8_t> rgb;  // [height, width, 3]
};

// One that is easier to see: each pixel a square, as many pixels as keep the longer side within `longest`.
[[nodiscard]] Picture enlarged(const Picture& picture, int longest);

// One owner. Frames are compressed as they come.
class Animation {
 public:
  // frames_per_second > 0.
  explicit Animation(double frames_per_second);

  // Throws InputError when the picture is empty, its bytes are not height * width * 3, or its size is not the first's.
  void add(const Picture& picture);
  [[nodiscard]] std::size_t frames() const { return frames_; }
  // The file. Throws InputError when there is no frame. Nothing may be added after.
  [[nodiscard]] std::vector<std::byte> finish();

 private:
  void begin(const Picture& first);

  std::vector<std::byte> file_;
  std::uint16_t milliseconds_;  // a frame
  int height_ = 0, width_ = 0;
  std::size_t frames_ = 0;
  std::uint32_t sequence_ = 0;      // of the animation's chunks
  std::size_t control_begins_ = 0;  // where the chunk with the number of frames stands
};

}  // namespace qanat
