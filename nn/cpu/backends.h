// The processor's backends, for make_backend().
#pragma once

#include <memory>
#include <string>

#include "nn/backend.h"

namespace qanat::nn {

[[nodiscard]] std::unique_ptr<Backend> make_fast_backend();
// For which the fast one's kernels are chosen on this processor.
[[nodiscard]] std::string fast_instruction_set();
[[nodiscard]] std::unique_ptr<Backend> make_reference_backend();
[[nodiscard]] std::unique_ptr<Backend> make_reference64_backend();

}  // namespace qanat::nn
