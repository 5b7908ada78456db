#include "core/animation.h"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <span>
#include <string_view>

#include "core/error.h"

namespace qanat {
namespace {

constexpr std::array<std::uint8_t, 8> signature = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
constexpr std::uint8_t bits_a_channel = 8;
constexpr std::uint8_t colour_rgb = 2;
constexpr std::byte filter_up{2};

// Numbers in PNG are big-endian.
class Bytes {
 public:
  Bytes& u8(std::uint8_t value) {
    out_.push_back(static_cast<std::byte>(value));
    return *this;
  }
  Bytes& u16(std::uint16_t value) {
    return u8(static_cast<std::uint8_t>(value >> 8)).u8(static_cast<std::uint8_t>(value));
  }
  Bytes& u32(std::uint32_t value) {
    return u16(static_cast<std::uint16_t>(value >> 16)).u16(static_cast<std::uint16_t>(value));
  }
  Bytes& raw(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return out_; }

 private:
  std::vector<std::byte> out_;
};

// Length, type, data, and the checksum over type and data.
std::vector<std::byte> chunk(std::string_view type, const Bytes& data) {
  Bytes checked;
  checked.raw(std::as_bytes(std::span(type))).raw(data.bytes());
  const auto crc = crc32_z(0, reinterpret_cast<const Bytef*>(checked.bytes().data()), checked.bytes().size());
  Bytes out;
  out.u32(static_cast<std::uint32_t>(data.bytes().size())).raw(checked.bytes()).u32(static_cast<std::uint32_t>(crc));
  return out.bytes();
}

void append(std::vector<std::byte>& file, const std::vector<std::byte>& bytes) {
  file.insert(file.end(), bytes.begin(), bytes.end());
}

// Rows as differences from the row above: boards and screens are mostly zero then.
std::vector<std::byte> compressed(const Picture& picture) {
  const std::size_t row_bytes = 3 * static_cast<std::size_t>(picture.width);
  std::vector<std::byte> rows;
  rows.reserve(picture.rgb.size() + static_cast<std::size_t>(picture.height));
  for (std::size_t at = 0; at < picture.rgb.size(); ++at) {
    if (at % row_bytes == 0) rows.push_back(filter_up);
    const std::uint8_t above = at >= row_bytes ? picture.rgb[at - row_bytes] : std::uint8_t{0};
    rows.push_back(static_cast<std::byte>(picture.rgb[at] - above));
  }
  auto size = compressBound(rows.size());
  std::vector<std::byte> out(size);
  const int status = compress2(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(rows.data()),
                               rows.size(), Z_DEFAULT_COMPRESSION);
  if (status != Z_OK) throw SystemError(text("zlib cannot compress a picture of ", rows.size(), " bytes: ", status));
  out.resize(size);
  return out;
}

Bytes animation_control(std::size_t frames) {
  return Bytes().u32(static_cast<std::uint32_t>(frames)).u32(0);  // played for ever
}

}  // namespace

Picture enlarged(const Picture& picture, int longest) {
  const int factor = std::max(1, longest / std::max({picture.height, picture.width, 1}));
  Picture out{picture.height * factor, picture.width * factor, {}};
  out.rgb.reserve(3 * static_cast<std::size_t>(out.height) * static_cast<std::size_t>(out.width));
  for (int y = 0; y < out.height; ++y) {
    for (int x = 0; x < out.width; ++x) {
      const auto at = 3 * (static_cast<std::size_t>(y / factor) * static_cast<std::size_t>(picture.width) +
                           static_cast<std::size_t>(x / factor));
      out.rgb.insert(out.rgb.end(), picture.rgb.begin() + static_cast<std::ptrdiff_t>(at),
                     picture.rgb.begin() + static_cast<std::ptrdiff_t>(at) + 3);
    }
  }
  return out;
}

Animation::Animation(double frames_per_second)
    : milliseconds_(static_cast<std::uint16_t>(std::clamp(std::round(1000 / frames_per_second), 1.0, 65535.0))) {}

void Animation::begin(const Picture& first) {
  height_ = first.height;
  width_ = first.width;
  append(file_, Bytes().raw(std::as_bytes(std::span(signature))).bytes());
  append(file_, chunk("IHDR", Bytes()
                                  .u32(static_cast<std::uint32_t>(width_))
                                  .u32(static_cast<std::uint32_t>(height_))
                                  .u8(bits_a_channel)
                                  .u8(colour_rgb)
                                  .u8(0)
                                  .u8(0)
                                  .u8(0)));
  control_begins_ = file_.size();
  append(file_, chunk("acTL", animation_control(0)));  // written anew when the number is known
}

void Animation::add(const Picture& picture) {
  const auto wanted = 3 * static_cast<std::size_t>(picture.height) * static_cast<std::size_t>(picture.width);
  if (picture.height < 1 || picture.width < 1 || picture.rgb.size() != wanted) {
    throw InputError(text("a picture of ", picture.height, " x ", picture.width, " with ", picture.rgb.size(),
                          " bytes, wanted ", wanted, " and at least one pixel"));
  }
  if (frames_ == 0) begin(picture);
  if (picture.height != height_ || picture.width != width_) {
    throw InputError(text("frame ", frames_, " is ", picture.height, " x ", picture.width, ", wanted ", height_, " x ",
                          width_, " as the first"));
  }
  append(file_, chunk("fcTL", Bytes()
                                  .u32(sequence_++)
                                  .u32(static_cast<std::uint32_t>(width_))
                                  .u32(static_cast<std::uint32_t>(height_))
                                  .u32(0)
                                  .u32(0)
                                  .u16(milliseconds_)
                                  .u16(1000)
                                  .u8(0)
                                  .u8(0)));
  const auto data = compressed(picture);
  if (frames_ == 0) {
    append(file_, chunk("IDAT", Bytes().raw(data)));
  } else {
    append(file_, chunk("fdAT", Bytes().u32(sequence_++).raw(data)));
  }
  ++frames_;
}

std::vector<std::byte> Animation::finish() {
  if (frames_ == 0) throw InputError("an animation without a frame");
  const auto control = chunk("acTL", animation_control(frames_));
  std::copy(control.begin(), control.end(), file_.begin() + static_cast<std::ptrdiff_t>(control_begins_));
  append(file_, chunk("IEND", {}));
  return std::move(file_);
}

}  // namespace qanat
