// Bytes of our own local state files: little-endian numbers, strings and vectors, one after another.
//
// ByteWriter appends; ByteReader takes back the same types in the same order. There are no tags: a file
// begins with its own magic and version (see each writer), and a checksum (core/checksum.h) guards the rest.
// The reader treats its bytes as hostile: every read is checked against what is left, every length against
// the caller's cap before anything is allocated. Not thread safe: one owner each.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/error.h"

namespace qanat {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie in memory");

namespace detail {
template <class T>
struct IsNumberArray : std::false_type {};
template <class T, std::size_t N>
struct IsNumberArray<std::array<T, N>> : std::bool_constant<std::is_arithmetic_v<T> && !std::is_same_v<T, bool>> {};
}  // namespace detail

// What is stored as its plain bytes: a number, or a std::array of numbers (an Rng state). Structs are left out
// because of their padding, enums because the reader has to check them: store the underlying number.
template <class T>
concept Number = (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) || detail::IsNumberArray<T>::value;

class ByteWriter {
 public:
  template <Number T>
  void put(T value) {
    append(&value, sizeof value);
  }
  // A template so that a pointer or an integer does not quietly become a bool.
  template <std::same_as<bool> T>
  void put(T value) {
    put<std::uint8_t>(value ? 1 : 0);
  }

  // u64 length, then the characters; any bytes are allowed.
  void put_string(std::string_view value) {
    put<std::uint64_t>(value.size());
    append(value.data(), value.size());
  }

  // u64 count, then the elements. Accepts vectors, arrays and spans of numbers.
  template <class Range>
  void put_vector(const Range& values) {
    const std::span items(values);
    static_assert(Number<std::remove_cv_t<typename decltype(items)::element_type>>);
    put<std::uint64_t>(items.size());
    append(items.data(), items.size_bytes());
  }

  // The bytes alone: the reader must know how many.
  void put_raw(std::span<const std::byte> bytes) { append(bytes.data(), bytes.size()); }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] std::vector<std::byte> take() { return std::exchange(bytes_, {}); }

 private:
  void append(const void* data, std::size_t size) {
    if (size == 0) return;
    const std::size_t before = bytes_.size();
    bytes_.resize(before + size);  // not insert(): inlined, it makes GCC 12 warn of an overflow that is not there
    std::memcpy(bytes_.data() + before, data, size);
  }

  std::vector<std::byte> bytes_;
};

// Borrows `bytes`, which must outlive it. `source` names them in errors, usually the file's path.
// Every function throws InputError naming source, field and offset when the bytes cannot be what is asked for;
// the position is then unchanged or just behind a length, and the reader should be dropped.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes, std::string source)
      : bytes_(bytes), source_(std::move(source)) {}

  template <Number T>
  [[nodiscard]] T get(std::string_view what) {
    T value;
    std::memcpy(&value, need(what, sizeof value), sizeof value);
    return value;
  }
  template <std::same_as<bool> T>
  [[nodiscard]] T get(std::string_view what) {
    const auto value = get<std::uint8_t>(what);
    if (value > 1) fail(what, text("saw ", static_cast<int>(value), ", wanted 0 or 1"));
    return value == 1;
  }

  // At most `max_bytes` characters.
  [[nodiscard]] std::string get_string(std::string_view what, std::uint64_t max_bytes) {
    const std::size_t size = get_count(what, max_bytes, 1);
    const auto* first = reinterpret_cast<const char*>(need(what, size));
    return std::string(first, size);
  }

  // At most `max_count` elements.
  template <Number T>
  [[nodiscard]] std::vector<T> get_vector(std::string_view what, std::uint64_t max_count) {
    const std::size_t count = get_count(what, max_count, sizeof(T));
    std::vector<T> values(count);
    if (count > 0) std::memcpy(values.data(), need(what, count * sizeof(T)), count * sizeof(T));
    return values;
  }

  // Exactly `into.size()` elements, into memory that the caller owns. The stored count must agree.
  template <Number T>
  void get_vector_into(std::string_view what, std::span<T> into) {
    const std::size_t count = get_count(what, into.size(), sizeof(T));
    if (count != into.size()) fail(what, text("saw ", count, " elements, wanted ", into.size()));
    if (count > 0) std::memcpy(into.data(), need(what, count * sizeof(T)), count * sizeof(T));
  }

  // A view of the next `size` bytes, unaligned; lives as long as the borrowed bytes.
  [[nodiscard]] std::span<const std::byte> get_raw(std::string_view what, std::size_t size) {
    return {need(what, size), size};
  }

  // The count in front of the caller's own list of records, each of at least `bytes_each` (> 0) bytes: a count
  // that the remaining bytes cannot hold is refused here, so that the caller may reserve it.
  [[nodiscard]] std::size_t get_count(std::string_view what, std::uint64_t max_count, std::size_t bytes_each) {
    const auto count = get<std::uint64_t>(what);
    if (count > max_count) fail(what, text("saw a length of ", count, ", wanted at most ", max_count));
    if (count > remaining() / bytes_each) {
      fail(what, text("saw a length of ", count, ", but only ", remaining(), " bytes are left"));
    }
    return static_cast<std::size_t>(count);
  }

  [[nodiscard]] std::size_t position() const { return position_; }
  [[nodiscard]] std::size_t remaining() const { return bytes_.size() - position_; }

  // Throws InputError when bytes are left over.
  void expect_end() const {
    if (remaining() != 0) fail("end", text("saw ", remaining(), " bytes too many"));
  }

  // For the caller's own checks: "PATH: FIELD at byte N: MESSAGE".
  [[noreturn]] void fail(std::string_view what, std::string_view message) const {
    throw InputError(text(source_, ": ", what, " at byte ", position_, ": ", message));
  }

 private:
  const std::byte* need(std::string_view what, std::size_t size) {
    if (size > remaining()) fail(what, text("wanted ", size, " bytes, only ", remaining(), " are left"));
    const std::byte* first = bytes_.data() + position_;
    position_ += size;
    return first;
  }

  std::span<const std::byte> bytes_;
  std::string source_;
  std::size_t position_ = 0;
};

}  // namespace qanat
