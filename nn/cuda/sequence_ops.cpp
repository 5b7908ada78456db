#include "nn/cuda/sequence_ops.h"

#include <type_traits>

#include "core/error.h"

namespace qanat::nn::cuda {
namespace {

LstmShape lstm_shape(const NetworkSpec& spec, const NetworkLayout& layout, const SequenceOptions& options) {
  const LstmLayout& lstm = layout.lstm();
  return {.batch = options.update.batch,
          .steps = options.steps(),
          .burn_in = options.burn_in,
          .below = lstm.in.width(),
          .actions = spec.actions,
          .features = lstm.features,
          .row = lstm.row};
}

// Whether the torso's fused kernels run this network on this device.
template <class T>
bool fuses_torso(const NetworkSpec& spec, const SequenceOptions& options, const Device& device) {
  return std::is_same_v<T, __nv_bfloat16> && options.update.kernels != "general" && device.capability() == 90 &&
         begins_with_nature_torso(spec);
}

}  // namespace

template <class T>
CudaSequenceOps<T>::CudaSequenceOps(const NetworkSpec& spec, const Plan& plan, const SequenceOptions& options,
                                    const Device& device, Precision precision)
    : CudaOps<T>(spec, plan, options.update, device, precision, options.steps(), fuses_torso<T>(spec, options, device)),
      options_(options),
      lstm_(this->lanes_[0].blas, this->lanes_[0].stream, lstm_shape(spec, this->layout_, options),
            precision == Precision::tf32, options.update.kernels != "general"),
      terms_(static_cast<std::size_t>(options.unroll * options.update.batch)),
      partial_(static_cast<std::size_t>(3 * options.update.batch)) {
  if (fuses_torso<T>(spec, options, device)) {
    torso_.emplace(device, samples() - learnt(), learnt(), spec.input_scale);
    features_ = plan.steps[SequenceTorso::steps - 1].out.buffer;
  }
  if (options.update.kernels == "fused" && !(torso_ && lstm_.in_clusters())) {
    throw ConfigError(
        "there are no fused kernels for this recurrent network here (they take bf16, compute capability 9.0, the "
        "Nature "
        "torso, an lstm of 512 and a batch of a multiple of 8): set kernels to auto");
  }
}

template <class T>
auto CudaSequenceOps<T>::activations(std::size_t buffer, std::int64_t count, Holds holds) -> Activations {
  if (torso_ && buffer < features_) return {nullptr, this->layout_.width(buffer)};
  return CudaOps<T>::activations(buffer, count, holds);
}

template <class T>
auto CudaSequenceOps<T>::recurrence(const Step&) -> Recurrence {
  this->device_.use();
  recurrences_.push_back(lstm_.memory(recurrences_.empty()));
  return &recurrences_.back();
}

template <class T>
auto CudaSequenceOps<T>::stage(const SequenceBatch& batch, const UpdateControls& controls) -> Batch {
  this->device_.use();
  this->set_ = this->staging_.put(batch, controls);
  const DeviceSequences& staged = this->staging_.sequences(this->set_);
  return {.device = staged, .observations = {.data = &staged.head->state_rows, .index = staged.index}};
}

template <class T>
auto CudaSequenceOps<T>::begin(const Batch& batch, std::span<const Step> steps, Network& online, Network& target)
    -> std::span<const Step> {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (torso_) {
      torso_->forward(this->lane_->stream, batch.device, online.block.master, target.block.master,
                      static_cast<T*>(online.all[features_].data), static_cast<T*>(target.all[features_].data));
      return steps.subspan(SequenceTorso::steps);
    }
  }
  this->load(batch.observations, online.all[0], 0, samples());
  return steps;
}

template <class T>
void CudaSequenceOps<T>::end(const Batch& batch, std::span<const Step>, const Network& online,
                             const std::vector<Activations>& deltas, Block& gradients) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (!torso_) return;
    torso_->backward(this->lane_->stream, batch.device, static_cast<const T*>(online.learnt[features_].data),
                     static_cast<const T*>(deltas[features_].data), terms_.data(), gradients.master);
  }
}

// The fused torso masks its output's gradients itself.
template <class T>
void CudaSequenceOps<T>::linear_input_gradient(const Step& step, const Block& p, const Activations& in,
                                               const Activations& out_delta, Activations& in_delta,
                                               std::int64_t count) {
  if (!torso_ || step.in.buffer != features_) {
    CudaOps<T>::linear_input_gradient(step, p, in, out_delta, in_delta, count);
    return;
  }
  Step unmasked = step;  // at another address, by which the base knows the steps that mask
  unmasked.input_is_relu = false;
  CudaOps<T>::linear_input_gradient(unmasked, p, in, out_delta, in_delta, count);
}

template <class T>
auto CudaSequenceOps<T>::lstm_pass(const Pass& pass) const -> typename Lstm<T>::Pass {
  const LstmLayout& layout = this->layout_.lstm();
  return {
      .weights = {.input = pass.parameters.copy + layout.input, .recurrent = pass.parameters.copy + layout.recurrent},
      .memory = pass.recurrence,
      .below = pass.in.at(layout.in),
      .hidden = static_cast<T*>(pass.out.data)};
}

template <class T>
void CudaSequenceOps<T>::lstm(const Step&, const Batch& batch, const Pass& online, const Pass& target) {
  const LstmColumns columns{.previous_action = batch.device.previous_action,
                            .previous_reward = batch.device.previous_reward,
                            .hidden = batch.device.hidden,
                            .cell = batch.device.cell};
  lstm_.forward(this->lane_->stream, columns, lstm_pass(online), lstm_pass(target));
}

template <class T>
void CudaSequenceOps<T>::lstm_gradient(const Step& step, const Batch&, const Pass& pass, const Activations& out_delta,
                                       Activations& in_delta, Block& gradients) {
  const LstmLayout& layout = this->layout_.lstm();
  lstm_.backward(this->lane_->stream, lstm_pass(pass),
                 {.hidden_delta = static_cast<const T*>(out_delta.data),
                  .below_delta = step.input_gradient ? in_delta.at(layout.in) : nullptr,
                  .input = gradients.master + layout.input,
                  .recurrent = gradients.master + layout.recurrent});
  if (!step.input_gradient) return;
  this->gradients_ = gradients;
  this->finish_delta(step, this->part(pass.in, samples() - learnt(), learnt()), in_delta, learnt());
}

template <class T>
void CudaSequenceOps<T>::sequence_td(const Batch& batch, const Activations& online_q, const Activations& target_q,
                                     Activations& delta) {
  const SequenceTdInputs inputs{.batch = batch.device,
                                .size = options_.update.batch,
                                .actions = this->spec_.actions,
                                .features = this->layout_.lstm().features,
                                .burn_in = options_.burn_in,
                                .unroll = options_.unroll,
                                .n_step = options_.n_step,
                                .gamma = static_cast<float>(options_.gamma),
                                .priority_eta = static_cast<float>(options_.priority_eta),
                                .td = options_.update.td,
                                .q_row = online_q.width,
                                .online_q = online_q.floats(),
                                .target_q = target_q.floats(),
                                .bad = this->bad_.data(),
                                .terms = terms_.data(),
                                .priorities = this->staging_.priorities(this->set_),
                                .report = this->staging_.report(this->set_),
                                .clock = this->clock_.data(),
                                .rule = this->rule_,
                                .partial = partial_.data(),
                                .counter = this->lane_->counter.data()};
  const cudaStream_t stream = this->lane_->stream;
  cuda::sequence_td(stream, inputs);
  if (this->holds_f32(this->plan_.q.buffer, Holds::gradients)) {
    sequence_delta(stream, inputs, delta.width, delta.floats());
  } else {
    sequence_delta(stream, inputs, delta.width, static_cast<T*>(delta.data));
  }
}

template class CudaSequenceOps<__nv_bfloat16>;
template class CudaSequenceOps<float>;

}  // namespace qanat::nn::cuda
