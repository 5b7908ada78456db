// Element types and shapes: the words in which rooms talk about columns of numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qanat {

enum class DType : std::uint8_t { u8 = 0, i32 = 1, i64 = 2, f32 = 3, f64 = 4 };

[[nodiscard]] std::size_t size_of(DType dtype);
[[nodiscard]] std::string_view name_of(DType dtype);
// Element `element` of an array that need not be aligned. For messages and pictures, not for hot paths.
[[nodiscard]] double value_at(DType dtype, const std::byte* bytes, std::size_t element);

// One named column: what a single step holds of it. An empty shape is a scalar.
struct TensorSpec {
  std::string name;
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;

  [[nodiscard]] std::size_t elements() const;
  [[nodiscard]] std::size_t bytes() const { return elements() * size_of(dtype); }
  // "observation u8 [4, 10, 10]"
  [[nodiscard]] std::string describe() const;

  friend bool operator==(const TensorSpec&, const TensorSpec&) = default;
};

}  // namespace qanat
