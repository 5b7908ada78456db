// The constant that all layer norms share.
#pragma once

namespace qanat::nn {

// Added to the variance, as PyTorch does by default.
inline constexpr double layer_norm_epsilon = 1e-5;

}  // namespace qanat::nn
