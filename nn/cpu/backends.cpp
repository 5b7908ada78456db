#include "nn/cpu/backends.h"

#include <hwy/targets.h>

#include "nn/cpu/fast.h"
#include "nn/cpu/matrix_units.h"
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

// Updates are in f32; Q-values also in bf16, where the processor has matrix units.
class FastBackend final : public EngineBackend<FastOps> {
 public:
  using EngineBackend<FastOps>::EngineBackend;
  using Backend::inference;

  std::unique_ptr<Inference> inference(const NetworkSpec& spec, std::int64_t max_batch,
                                       const std::string& precision) override {
    if (precision != "bf16") return EngineBackend<FastOps>::inference(spec, max_batch, precision);
    check_max_batch(max_batch);
    if (const auto obstacle = matrix_obstacle(spec); !obstacle.empty())
      throw ConfigError("precision bf16: " + obstacle);
#if defined(__x86_64__)
    return std::make_unique<EngineInference<MatrixOps>>(spec, max_batch);
#else
    return nullptr;  // not reached: there is an obstacle
#endif
  }
};

}  // namespace

std::unique_ptr<Backend> make_fast_backend() { return std::make_unique<FastBackend>("cpu"); }

std::string fast_instruction_set() { return hwy::TargetName(hwy::SupportedAndGeneratedTargets().front()); }

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend<float>>("reference"); }

std::unique_ptr<Backend> make_reference64_backend() {
  return std::make_unique<ReferenceBackend<double>>("reference64");
}

}  // namespace qanat::nn
