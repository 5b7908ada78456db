// The processor's backends, for make_backend().
#pragma once

#include <memory>

#include "nn/backend.h"

namespace qanat::nn {

[[nodiscard]] std::unique_ptr<Backend> make_fast_backend();
[[nodiscard]] std::unique_ptr<Backend> make_reference_backend();
[[nodiscard]] std::unique_ptr<Backend> make_reference64_backend();

}  // namespace qanat::nn
