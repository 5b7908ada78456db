#include "core/tensor.h"

#include <cstring>

#include "core/error.h"

namespace qanat {
namespace {

struct Entry {
  DType dtype;
  std::size_t bytes;
  std::string_view name;
};
constexpr Entry entries[] = {
    {DType::u8, 1, "u8"},   {DType::i32, 4, "i32"}, {DType::i64, 8, "i64"},
    {DType::f32, 4, "f32"}, {DType::f64, 8, "f64"},
};

}  // namespace

std::size_t size_of(DType dtype) { return entries[static_cast<std::size_t>(dtype)].bytes; }
std::string_view name_of(DType dtype) { return entries[static_cast<std::size_t>(dtype)].name; }

double value_at(DType dtype, const std::byte* bytes, std::size_t element) {
  const auto read = [&]<class T>(T value) {
    std::memcpy(&value, bytes + element * sizeof value, sizeof value);
    return static_cast<double>(value);
  };
  switch (dtype) {
    case DType::u8:
      return read(std::uint8_t{});
    case DType::i32:
      return read(std::int32_t{});
    case DType::i64:
      return read(std::int64_t{});
    case DType::f32:
      return read(float{});
    case DType::f64:
      return read(double{});
  }
  return 0;
}

std::size_t TensorSpec::elements() const {
  std::size_t count = 1;
  for (const auto extent : shape) count *= static_cast<std::size_t>(extent);
  return count;
}

std::string TensorSpec::describe() const {
  std::string out = text(name, ' ', name_of(dtype), " [");
  for (std::size_t i = 0; i < shape.size(); ++i) out += text(i ? ", " : "", shape[i]);
  return out + "]";
}

}  // namespace qanat
