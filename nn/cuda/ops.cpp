// Memory, staging, loss and optimiser of the general path; its layers are in ops_layers.cpp.
#include "nn/cuda/ops.h"

#include <algorithm>

#include "core/error.h"

namespace qanat::nn::cuda {
namespace {

// Column sums and layer norms of the widest layer. `samples` of the largest pass.
std::size_t scratch_floats(const NetworkLayout& layout, const Plan& plan, std::int64_t samples) {
  std::int64_t columns = 8;
  for (const Step& step : plan.steps) {
    if (step.kind == StepKind::linear) columns = std::max(columns, layout.linear(step).out.width());
    if (step.kind == StepKind::conv2d) columns = std::max(columns, layout.conv(step).out_channels);
  }
  return static_cast<std::size_t>(std::max(sums_scratch(columns), 2 * samples));
}

}  // namespace

template <class T>
CudaOps<T>::CudaOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options, const Device& device,
                    Precision precision)
    : CudaOps(spec, plan, options, device, precision, 0, false) {}

template <class T>
CudaOps<T>::CudaOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options, const Device& device,
                    Precision precision, std::int64_t steps, bool nature_torso)
    : spec_(spec),
      plan_(plan),
      options_(options),
      rule_(optimizer_rule(options)),
      device_((device.use(), device)),
      precision_(precision),
      layout_(spec, plan, nature_torso),
      staging_({.batch = options.batch,
                .steps = steps,
                .stack = spec.stack,
                .actions = spec.actions,
                .features = layout_.lstm().features,
                .row_bytes = static_cast<std::int64_t>(spec.input.bytes())}),
      elements_(plan.parameter_count),
      canonical_(plan.parameter_count),
      canonical_host_(plan.parameter_count),
      q_host_(static_cast<std::size_t>(options.batch * padded(spec.actions))),
      td_partial_(static_cast<std::size_t>(2 * td_blocks(options.batch))),
      norm_partial_(optimizer_blocks),
      clock_(1) {
  const std::int64_t samples = options.batch * std::max<std::int64_t>(steps, 1);
  bad_ = DeviceBuffer<std::int32_t>(static_cast<std::size_t>(2 * samples));
  for (Lane& lane : lanes_) {
    lane.scratch = DeviceBuffer<float>(scratch_floats(layout_, plan_, samples));
    lane.counter = DeviceBuffer<unsigned>(1);
  }
  upload(lanes_[0].stream, elements_.data(), layout_.elements().data(), plan_.parameter_count);
  lanes_[0].stream.synchronize();
  if constexpr (sizeof(T) == 2) {
    for (const Step& step : plan_.steps) {
      if (step.kind != StepKind::conv2d || nature_torso) continue;
      if (narrow_.count == NarrowSegments::most) {
        throw ConfigError(text("a network of more than ", NarrowSegments::most, " convolutions in bf16"));
      }
      const ConvLayout& c = layout_.conv(step);
      const auto begin = static_cast<std::int64_t>(layout_.offset(step.weight));
      narrow_.begin[narrow_.count] = begin;
      narrow_.end[narrow_.count++] = begin + c.out_channels * c.kernel * c.kernel * c.in_channels;
    }
  }
  for (const Step& step : plan_.steps) {
    const auto same = [&](const View& view) {
      return view.buffer == step.in.buffer && view.offset == step.in.offset && view.features == step.in.features;
    };
    const auto reads_it = [&](const Step& other) { return same(other.in); };
    const auto makes_it = [&](const Step& other) {
      return other.relu && same(other.out) && (other.kind == StepKind::linear || other.kind == StepKind::conv2d);
    };
    const auto maker = std::find_if(plan_.steps.begin(), plan_.steps.end(), makes_it);
    // Backward, the first step that reads it comes last.
    const bool completes = &*std::find_if(plan_.steps.begin(), plan_.steps.end(), reads_it) == &step;
    if (maker == plan_.steps.end() || !completes || step.kind == StepKind::layer_norm) continue;
    maker_of_[&step] = &*maker;
    biases_summed_.insert(&*maker);
  }
  mean_ = block();
  square_ = block();
}

// f32 where heads end: a temporal difference is a small difference of large values.
template <class T>
bool CudaOps<T>::holds_f32(std::size_t buffer, Holds holds) const {
  const Step& last = plan_.steps.back();
  const bool duels = last.kind == StepKind::dueling;
  if (buffer == plan_.q.buffer) return holds == Holds::values || duels;
  return holds == Holds::values && duels && buffer == last.in.buffer;
}

template <class T>
auto CudaOps<T>::activations(std::size_t buffer, std::int64_t samples, Holds holds) -> Activations {
  device_.use();
  const std::int64_t width = layout_.width(buffer);
  if (buffer == 0 && holds == Holds::gradients) return {nullptr, width};  // nobody asks for the observation's
  const std::size_t element = holds_f32(buffer, holds) ? sizeof(float) : sizeof(T);
  memory_.emplace_back(static_cast<std::size_t>(width * samples) * element);
  return {memory_.back().data(), width, element};
}

template <class T>
auto CudaOps<T>::block() -> Block {
  device_.use();
  memory_.emplace_back(layout_.block_size() * sizeof(float));
  auto* master = reinterpret_cast<float*>(memory_.back().data());
  if constexpr (sizeof(T) == sizeof(float)) {
    return {master, master};
  } else {
    memory_.emplace_back(layout_.block_size() * sizeof(T));
    return {master, reinterpret_cast<T*>(memory_.back().data())};
  }
}

template <class T>
void CudaOps<T>::write(Block& block, std::span<const float> canonical) {
  device_.use();
  const Stream& stream = lanes_[0].stream;
  std::copy(canonical.begin(), canonical.end(), canonical_host_.data());
  upload(stream, canonical_.data(), canonical_host_.data(), canonical.size());
  scatter_elements(stream, canonical_.data(), elements_.data(), static_cast<std::int64_t>(canonical.size()),
                   block.master, block.copy);
  stream.synchronize();
}

template <class T>
void CudaOps<T>::read(const Block& block, std::span<float> canonical) const {
  device_.use();
  const Stream& stream = lanes_[0].stream;
  gather_elements(stream, block.master, elements_.data(), static_cast<std::int64_t>(canonical.size()),
                  canonical_.data());
  download(stream, canonical_host_.data(), canonical_.data(), canonical.size());
  stream.synchronize();
  std::copy_n(canonical_host_.data(), canonical.size(), canonical.begin());
}

// Of Q-values only: [samples, actions], padded on the device.
template <class T>
void CudaOps<T>::read(const Activations& from, std::int64_t samples, std::span<float> to) const {
  device_.use();
  const Stream& stream = lanes_[0].stream;
  download(stream, q_host_.data(), from.floats(), static_cast<std::size_t>(samples * from.width));
  stream.synchronize();
  for (std::int64_t b = 0; b < samples; ++b) {
    std::copy_n(q_host_.data() + b * from.width, spec_.actions, to.begin() + b * spec_.actions);
  }
}

template <class T>
auto CudaOps<T>::stage(const QBatch& batch, const UpdateControls& controls) -> Batch {
  device_.use();
  set_ = staging_.put(batch, controls);
  const DeviceBatch& staged = staging_.batch(set_);
  return {.device = staged,
          .state = {.data = &staged.head->state_rows, .index = staged.state_index},
          .next_state = {.data = &staged.head->next_rows, .index = staged.next_index}};
}

template <class T>
auto CudaOps<T>::stage(const ObservationRows& rows, std::int64_t samples) -> Rows {
  device_.use();
  set_ = staging_.put(rows, samples);
  const DeviceBatch& staged = staging_.batch(set_);
  return {.data = &staged.head->state_rows, .index = staged.state_index};
}

template <class T>
void CudaOps<T>::fork() {
  forked_.record(lanes_[0].stream);
  lanes_[1].stream.wait(forked_);
  lane_ = &lanes_[1];
}

template <class T>
void CudaOps<T>::join() {
  joined_.record(lanes_[1].stream);
  lanes_[0].stream.wait(joined_);
}

template <class T>
void CudaOps<T>::load(const Rows& rows, Activations& to, std::int64_t first, std::int64_t samples) {
  const LoadRows load{.rows = rows.data,
                      .index = rows.index,
                      .samples = samples,
                      .stack = spec_.stack,
                      .row_elements = static_cast<std::int64_t>(spec_.input.elements()),
                      .bytes = spec_.input.dtype == DType::u8,
                      .scale = spec_.input_scale,
                      .input = layout_.input(),
                      .width = to.width,
                      .bad = bad_.data() + first};
  load_rows(lane_->stream, load, static_cast<T*>(to.data) + first * to.width);
}

template <class T>
void CudaOps<T>::td(const Batch& batch, const Activations& q, const Activations& choosing_q,
                    const Activations& target_q, Activations& delta) {
  const TdInputs inputs{.batch = batch.device,
                        .actions = spec_.actions,
                        .q_row = q.width,
                        .q = q.floats(),
                        .choosing = choosing_q.floats(),
                        .target = target_q.floats(),
                        .delta_row = delta.width,
                        .bad_state = bad_.data(),
                        .bad_next = bad_.data() + options_.batch,
                        .options = options_.td,
                        .td_abs = staging_.priorities(set_),
                        .report = staging_.report(set_),
                        .clock = clock_.data(),
                        .rule = rule_,
                        .partial = td_partial_.data(),
                        .counter = lane_->counter.data()};
  if (holds_f32(plan_.q.buffer, Holds::gradients)) {
    td_update(lane_->stream, inputs, delta.floats());
  } else {
    td_update(lane_->stream, inputs, static_cast<T*>(delta.data));
  }
}

template <class T>
void CudaOps<T>::optimise(Block& online, Block& target, Block& gradients) {
  join();  // weight gradients
  const OptimizerBlocks blocks{.count = static_cast<std::int64_t>(layout_.block_size()),
                               .gradient = gradients.master,
                               .parameter = online.master,
                               .mean = mean_.master,
                               .square = square_.master,
                               .target = target.master,
                               .clock = clock_.data(),
                               .partial = norm_partial_.data(),
                               .counter = lane_->counter.data()};
  gradient_norm(lane_->stream, blocks, narrow_, gradients.copy, staging_.head(set_), rule_, staging_.report(set_));
  optimizer_step(lane_->stream, blocks, rule_, online.copy, target.copy);
}

template <class T>
std::vector<std::byte> CudaOps<T>::save_optimizer() const {
  OptimizerState state{.steps = 0,
                       .mean = std::vector<float>(plan_.parameter_count),
                       .square = std::vector<float>(plan_.parameter_count)};
  device_.use();
  OptimizerClock clock;
  QANAT_CUDA(cudaMemcpy(&clock, clock_.data(), sizeof(clock), cudaMemcpyDeviceToHost));
  state.steps = clock.steps;
  read(mean_, state.mean);
  read(square_, state.square);
  return pack_optimizer(options_, state);
}

template <class T>
void CudaOps<T>::load_optimizer(std::span<const std::byte> bytes) {
  const OptimizerState state = unpack_optimizer(options_, bytes, plan_.parameter_count);
  device_.use();
  QANAT_CUDA(cudaMemcpy(&clock_.data()->steps, &state.steps, sizeof(state.steps), cudaMemcpyHostToDevice));
  write(mean_, state.mean);
  write(square_, state.square);
}

template class CudaOps<__nv_bfloat16>;
template class CudaOps<float>;

}  // namespace qanat::nn::cuda
