#include "nn/backend.h"

#include "core/error.h"
#include "nn/cpu/backends.h"

namespace qanat::nn {

std::unique_ptr<Backend> make_backend(std::string_view device) {
  if (device == "cpu") return make_fast_backend();
  if (device == "reference") return make_reference_backend();
  if (device == "reference64") return make_reference64_backend();
  throw ConfigError(text("device '", device, "' is none of cpu, reference, reference64"));
}

}  // namespace qanat::nn
