#include "nn/cpu/backends.h"

#include <hwy/targets.h>

#include "nn/cpu/fast.h"
#include "nn/cpu/reference.h"
#include "nn/cpu/reference_sequence.h"
#include "nn/engine.h"
#include "nn/sequence_engine.h"

namespace qanat::nn {
namespace {

// The oracle alone has a recurrent update on the processor.
template <class Real>
class ReferenceBackend final : public EngineBackend<ReferenceOps<Real>> {
 public:
  using EngineBackend<ReferenceOps<Real>>::EngineBackend;

  std::unique_ptr<SequenceTrainer> sequence_trainer(const NetworkSpec& spec, const SequenceOptions& options) override {
    check_sequence_options(spec, options);
    check_plain(this->name(), options.update.precision, options.update.kernels);
    return std::make_unique<EngineSequenceTrainer<ReferenceSequenceOps<Real>>>(spec, options);
  }
};

}  // namespace

std::unique_ptr<Backend> make_fast_backend() { return std::make_unique<EngineBackend<FastOps>>("cpu"); }

std::string fast_instruction_set() { return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()); }

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend<float>>("reference"); }

std::unique_ptr<Backend> make_reference64_backend() {
  return std::make_unique<ReferenceBackend<double>>("reference64");
}

}  // namespace qanat::nn
