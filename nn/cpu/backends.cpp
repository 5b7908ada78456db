#include "nn/cpu/backends.h"

#include <hwy/targets.h>

#include "nn/cpu/fast.h"
#include "nn/cpu/reference.h"
#include "nn/engine.h"

namespace qanat::nn {

std::unique_ptr<Backend> make_fast_backend() { return std::make_unique<EngineBackend<FastOps>>("cpu"); }

std::string fast_instruction_set() { return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()); }

std::unique_ptr<Backend> make_reference_backend() {
  return std::make_unique<EngineBackend<ReferenceOps<float>>>("reference");
}

std::unique_ptr<Backend> make_reference64_backend() {
  return std::make_unique<EngineBackend<ReferenceOps<double>>>("reference64");
}

}  // namespace qanat::nn
