// Which networks the fused kernels know, and where a canonical parameter lies in their private layout.
//
// Pure functions. Thread safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nn/cuda/nature/layout.h"
#include "nn/network.h"

namespace qanat::nn::nature {

// What in `spec` is not as the kernels need it; empty when they know it.
[[nodiscard]] std::string foreign_part(const NetworkSpec& spec);

// Precondition for both: foreign_part() is empty.
[[nodiscard]] Shape shape_of(const NetworkSpec& spec);
// [parameter_count]: canonical element -> element of the private layout.
[[nodiscard]] std::vector<std::uint32_t> private_places(const NetworkSpec& spec);

}  // namespace qanat::nn::nature
