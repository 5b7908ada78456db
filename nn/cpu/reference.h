// The operations of nn/engine.h as plain loops that read like the maths: the oracle. In f32 storage or f64; sums are
// f64 in both. Activations are [samples][features], blocks are the canonical layout.
//
// Thread safety: one thread at a time. Views stay valid as long as the object that made them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "nn/backend.h"
#include "nn/cpu/update.h"
#include "nn/plan.h"

namespace qanat::nn {

template <class Real>
class ReferenceOps : public CpuUpdate<Real> {
 public:
  struct Activations {
    Real* data = nullptr;  // [samples][features]
    std::int64_t features = 0;

    Real* at(std::int64_t sample, const View& view) const { return data + sample * features + view.offset; }
  };
  struct Block {
    Real* data = nullptr;  // [parameter_count]
  };

  // `spec` and `plan` must outlive this object.
  ReferenceOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options);

  // Memory.
  Activations activations(std::size_t buffer, std::int64_t samples, Holds holds);
  Activations part(const Activations& whole, std::int64_t first, std::int64_t samples) const;
  std::int64_t align(std::int64_t samples) const { return samples; }
  Block block();
  void write(Block& block, std::span<const float> canonical);
  void read(const Block& block, std::span<float> canonical) const;
  void read(const Activations& from, std::int64_t samples, std::span<float> to) const;

  // One update, beside what CpuUpdate does.
  template <class Update>
  void run(Update update) {
    update();
  }
  void load(const ObservationRows& rows, Activations& to, std::int64_t first, std::int64_t samples);
  // choosing_q picks a*, target_q values it. delta := d loss / d q of the taken actions, 0 elsewhere.
  void td(const QBatch& batch, const Activations& q, const Activations& choosing_q, const Activations& target_q,
          Activations& delta);
  void optimise(Block& online, Block& target, Block& gradients);
  std::vector<std::byte> save_optimizer() const;
  void load_optimizer(std::span<const std::byte> bytes);

  // Layers, forward.
  void linear(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void conv2d(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void layer_norm(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void relu(const Step& step, const Activations& in, Activations& out, std::int64_t samples);
  void dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples);

  // Layers, backward. Gradients of parameters are written, not added to.
  void linear_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta, Block& gradients,
                              std::int64_t samples);
  void linear_input_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                             Activations& in_delta, std::int64_t samples);
  void conv2d_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta, Block& gradients,
                              std::int64_t samples);
  void conv2d_input_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                             Activations& in_delta, std::int64_t samples);
  void layer_norm_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                           Activations& in_delta, Block& gradients, std::int64_t samples);
  void dueling_gradient(const Step& step, const Activations& out_delta, Activations& in_delta, std::int64_t samples);

 protected:
  Real* parameter(const Block& block, std::size_t index) const { return block.data + plan_.parameters[index].offset; }
  // Stores or adds one element of a delta, masked by the relu its value went through.
  static void put_delta(const Step& step, Real value, Real input, Real& delta);

  const NetworkSpec& spec_;
  const Plan& plan_;

 private:
  std::deque<std::vector<Real>> memory_;  // a deque: growing it moves no vector
  std::vector<Real> mean_, square_;       // the optimiser's moments
};

extern template class ReferenceOps<float>;
extern template class ReferenceOps<double>;

}  // namespace qanat::nn
