#include "replay/schema.h"

#include <algorithm>

#include "core/error.h"

namespace qanat::replay {

std::vector<TensorSpec> Schema::columns() const {
  std::vector<TensorSpec> all = observations;
  all.push_back(action);
  all.push_back({"reward", DType::f32, {}});
  all.insert(all.end(), extras.begin(), extras.end());
  all.push_back({"flags", DType::u8, {}});
  return all;
}

std::size_t Schema::row_bytes() const {
  std::size_t bytes = 0;
  for (const TensorSpec& column : columns()) bytes += column.bytes();
  return bytes;
}

std::size_t item_bytes(const Schema& schema, std::uint32_t stack, std::uint32_t n_step) {
  std::size_t row = 0;
  for (const TensorSpec& column : schema.observations) row += column.bytes();
  for (const TensorSpec& column : schema.extras) row += column.bytes();
  // The state and the next state, which overlap where the window is shorter than the stack.
  return row * (stack + std::min(stack, n_step));
}

void Schema::check() const {
  if (observations.empty()) throw ConfigError("schema: wanted at least one observation column, saw none");
  for (const TensorSpec& column : columns()) {
    for (const std::int64_t size : column.shape) {
      if (size < 1) throw ConfigError(text("schema: column ", column.describe(), " has a size below 1"));
    }
  }
}

}  // namespace qanat::replay
