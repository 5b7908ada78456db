#include "core/tensor.h"

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
