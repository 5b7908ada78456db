// Inference and the double-DQN update, written once over a small set of operations that each backend supplies.
//
// A backend is a class `Ops`, constructed from (NetworkSpec, Plan, TrainerOptions), that owns all memory. Its types:
//   Activations  one buffer of a pass, [samples][features] in the backend's own layout: a cheap view
//   Block        all parameters, or something of that shape (gradients), in the backend's own layout: a cheap view
// and its operations, in the order an update calls them (see nn/cpu/reference.h for what each computes):
//   activations, part, align, block, write, read              memory, while the plan is built and between updates
//   row_memory       where rows may be put that stage then need not copy
//   stage            brings a batch and its controls, or rows, where the others read them
//   run              calls its argument; a device captures what that does and replays it
//   beside, join     beside calls its argument, which a device may compute beside what follows, up to join
//   load             gathers, stacks and scales rows
//   linear, conv2d, layer_norm, relu, dueling                 forward; *_gradient backward
//   td               target, loss, priorities, and the gradient of the loss with respect to Q
//   optimise         norm, finite check, clipping, optimiser, target
//   result           waits, and brings back what an update reports
//   save_optimizer, load_optimizer
// Between stage and result nothing is read by the host, and all that differs between two updates is in what stage
// brought or in the backend's memory. So a device can replay one captured graph. Up to `depth` batches may be staged
// and not yet taken back by result, which takes the oldest.
//
// Thread safety and ownership: as nn/backend.h says of Inference and QTrainer.
#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "nn/backend.h"
#include "nn/plan.h"

namespace qanat::nn {

// Throws InputError when `samples` stacked samples cannot be read from `rows`.
void check_rows(const NetworkSpec& spec, const ObservationRows& rows, std::int64_t samples);
void check_batch(const NetworkSpec& spec, const TrainerOptions& options, const QBatch& batch);
void check_size(const char* what, std::size_t seen, std::size_t wanted);
// Throws ConfigError naming the option that is out of range.
void check_options(const TrainerOptions& options);
void check_max_batch(std::int64_t max_batch);
// For a processor's backend, which has one precision and one set of kernels.
void check_plain(const std::string& backend, const std::string& precision, const std::string& kernels);
// Throws ConfigError when the network has an lstm.
[[nodiscard]] Plan feed_forward_plan(const NetworkSpec& spec);

// The buffers of one pass over `samples` samples: its values, or the gradients with respect to them. `input`, when
// given, is taken as buffer 0.
template <class Ops>
std::vector<typename Ops::Activations> make_pass(Ops& ops, const Plan& plan, std::int64_t samples, Holds holds,
                                                 const typename Ops::Activations* input = nullptr) {
  std::vector<typename Ops::Activations> buffers;
  for (std::size_t buffer = 0; buffer < plan.buffers.size(); ++buffer) {
    const bool given = buffer == 0 && input != nullptr;
    buffers.push_back(given ? *input : ops.activations(buffer, samples, holds));
  }
  return buffers;
}

template <class Ops>
void run_steps(Ops& ops, std::span<const Step> steps, const typename Ops::Block& parameters,
               std::vector<typename Ops::Activations>& pass, std::int64_t samples) {
  for (const Step& step : steps) {
    const auto& in = pass[step.in.buffer];
    auto& out = pass[step.out.buffer];
    switch (step.kind) {
      case StepKind::linear:
        ops.linear(step, parameters, in, out, samples);
        break;
      case StepKind::conv2d:
        ops.conv2d(step, parameters, in, out, samples);
        break;
      case StepKind::layer_norm:
        ops.layer_norm(step, parameters, in, out, samples);
        break;
      case StepKind::relu:
        ops.relu(step, in, out, samples);
        break;
      case StepKind::dueling:
        ops.dueling(step, in, out, samples);
        break;
      case StepKind::lstm:  // not one sample after the other: nn/sequence_engine.h
        assert(false);
        break;
    }
  }
}

template <class Ops>
void run_forward(Ops& ops, const Plan& plan, const typename Ops::Block& parameters,
                 std::vector<typename Ops::Activations>& pass, std::int64_t samples) {
  run_steps(ops, plan.steps, parameters, pass, samples);
}

// From gradients of the last buffer to gradients of every parameter. `deltas` are gradients with respect to the
// buffers of `pass`; where a buffer holds values after a relu, its delta is already masked.
template <class Ops>
void run_steps_backward(Ops& ops, std::span<const Step> steps, const typename Ops::Block& parameters,
                        const std::vector<typename Ops::Activations>& pass,
                        std::vector<typename Ops::Activations>& deltas, typename Ops::Block& gradients,
                        std::int64_t samples) {
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const auto& in = pass[step->in.buffer];
    const auto& out_delta = deltas[step->out.buffer];
    auto& in_delta = deltas[step->in.buffer];
    switch (step->kind) {
      case StepKind::linear:
        ops.linear_weight_gradient(*step, in, out_delta, gradients, samples);
        if (step->input_gradient) ops.linear_input_gradient(*step, parameters, in, out_delta, in_delta, samples);
        break;
      case StepKind::conv2d:
        ops.conv2d_weight_gradient(*step, in, out_delta, gradients, samples);
        if (step->input_gradient) ops.conv2d_input_gradient(*step, parameters, in, out_delta, in_delta, samples);
        break;
      case StepKind::layer_norm:
        ops.layer_norm_gradient(*step, parameters, in, out_delta, in_delta, gradients, samples);
        break;
      case StepKind::relu:  // only on the observation: nothing below it needs a gradient
        break;
      case StepKind::dueling:
        ops.dueling_gradient(*step, out_delta, in_delta, samples);
        break;
      case StepKind::lstm:
        assert(false);
        break;
    }
  }
}

template <class Ops>
void run_backward(Ops& ops, const Plan& plan, const typename Ops::Block& parameters,
                  const std::vector<typename Ops::Activations>& pass, std::vector<typename Ops::Activations>& deltas,
                  typename Ops::Block& gradients, std::int64_t samples) {
  run_steps_backward(ops, plan.steps, parameters, pass, deltas, gradients, samples);
}

template <class Ops>
class EngineInference final : public Inference {
 public:
  template <class... Where>
  EngineInference(const NetworkSpec& spec, std::int64_t max_batch, const Where&... where)
      : spec_(spec),
        max_batch_(max_batch),
        plan_(feed_forward_plan(spec)),
        ops_(spec_, plan_, TrainerOptions{.batch = max_batch}, where...) {
    parameters_ = ops_.block();
    pass_ = make_pass(ops_, plan_, max_batch, Holds::values);
  }

  void set_parameters(std::span<const float> parameters) override {
    check_size("parameters", parameters.size(), plan_.parameter_count);
    ops_.write(parameters_, parameters);
  }

  void forward(const ObservationRows& observations, std::int64_t batch, std::span<float> q) override {
    if (batch > max_batch_) throw InputError(text("a batch of ", batch, " is above the largest of ", max_batch_));
    check_rows(spec_, observations, batch);
    check_size("q", q.size(), static_cast<std::size_t>(batch * spec_.actions));
    if (batch == 0) return;
    const auto& staged = ops_.stage(observations, batch);
    // What is computed may be more: a device keeps to one size, whose sums have one order.
    const std::int64_t samples = ops_.pass_size(batch);
    ops_.run([&] {
      ops_.load(staged, pass_[0], 0, samples);
      run_forward(ops_, plan_, parameters_, pass_, samples);
    });
    ops_.read(pass_[plan_.q.buffer], batch, q);
  }

 private:
  NetworkSpec spec_;
  std::int64_t max_batch_;
  Plan plan_;
  Ops ops_;
  typename Ops::Block parameters_;
  std::vector<typename Ops::Activations> pass_;
};

template <class Ops>
class EngineTrainer final : public QTrainer {
 public:
  template <class... Where>
  EngineTrainer(const NetworkSpec& spec, const TrainerOptions& options, const Where&... where)
      : spec_(spec), options_(options), plan_(feed_forward_plan(spec)), ops_(spec_, plan_, options, where...) {
    online_ = ops_.block();
    target_ = ops_.block();
    gradients_ = ops_.block();
    // The online network reads [s; s'] in one pass. s' starts where the backend may begin a pass of its own: the
    // target network reads the same input from there.
    next_at_ = ops_.align(options.batch);
    online_pass_ = make_pass(ops_, plan_, next_at_ + options.batch, Holds::values);
    const auto next_input = ops_.part(online_pass_[0], next_at_, options.batch);
    target_pass_ = make_pass(ops_, plan_, options.batch, Holds::values, &next_input);
    deltas_ = make_pass(ops_, plan_, options.batch, Holds::gradients);
    canonical_.resize(plan_.parameter_count);
  }

  std::size_t depth() const override { return Ops::depth; }

  std::span<std::byte> row_memory(std::size_t bytes) override { return ops_.row_memory(bytes); }

  void submit(const QBatch& batch, const UpdateControls& controls) override {
    assert(in_flight_ < depth());
    check_batch(spec_, options_, batch);
    const auto& staged = ops_.stage(batch, controls);
    ops_.run([&] { update(staged); });
    ++in_flight_;
  }

  UpdateResult collect(std::span<float> td_abs) override {
    assert(in_flight_ > 0);
    check_size("td_abs", td_abs.size(), static_cast<std::size_t>(options_.batch));
    --in_flight_;
    return ops_.result(td_abs);
  }

  std::span<const float> parameters() override { return read(online_); }
  std::span<const float> target_parameters() override { return read(target_); }
  std::span<const float> gradients() override { return read(gradients_); }

  void set_parameters(std::span<const float> online, std::span<const float> target) override {
    check_size("online parameters", online.size(), plan_.parameter_count);
    check_size("target parameters", target.size(), plan_.parameter_count);
    ops_.write(online_, online);
    ops_.write(target_, target);
  }

  std::vector<std::byte> save_optimizer() const override { return ops_.save_optimizer(); }
  void load_optimizer(std::span<const std::byte> bytes) override { ops_.load_optimizer(bytes); }

 private:
  template <class Batch>
  void update(const Batch& batch) {
    const std::int64_t size = options_.batch;
    ops_.load(batch.state, online_pass_[0], 0, size);
    ops_.load(batch.next_state, online_pass_[0], next_at_, size);
    ops_.beside([&] { run_forward(ops_, plan_, target_, target_pass_, size); });
    run_forward(ops_, plan_, online_, online_pass_, options_.td.double_q ? next_at_ + size : size);
    ops_.join();
    const auto& online_q = online_pass_[plan_.q.buffer];
    const auto& target_q = target_pass_[plan_.q.buffer];
    // a* is read from the online network's values of s', or from the target network's.
    const auto choosing_q = options_.td.double_q ? ops_.part(online_q, next_at_, size) : target_q;
    ops_.td(batch, online_q, choosing_q, target_q, deltas_[plan_.q.buffer]);
    run_backward(ops_, plan_, online_, online_pass_, deltas_, gradients_, size);
    ops_.optimise(online_, target_, gradients_);
  }

  std::span<const float> read(const typename Ops::Block& block) {
    ops_.read(block, canonical_);
    return canonical_;
  }

  NetworkSpec spec_;
  TrainerOptions options_;
  Plan plan_;
  Ops ops_;
  std::int64_t next_at_ = 0;
  typename Ops::Block online_, target_, gradients_;
  std::vector<typename Ops::Activations> online_pass_, target_pass_, deltas_;
  std::vector<float> canonical_;
  std::size_t in_flight_ = 0;
};

// Of a backend whose operations need no more than options.
template <class Ops>
class EngineBackend : public Backend {
 public:
  explicit EngineBackend(std::string name) : name_(std::move(name)) {}
  std::string name() const override { return name_; }

  using Backend::inference;
  std::unique_ptr<Inference> inference(const NetworkSpec& spec, std::int64_t max_batch,
                                       const std::string& precision) override {
    check_max_batch(max_batch);
    check_plain(name_, precision, "auto");
    return std::make_unique<EngineInference<Ops>>(spec, max_batch);
  }

  std::unique_ptr<QTrainer> trainer(const NetworkSpec& spec, const TrainerOptions& options) override {
    check_options(options);
    check_plain(name_, options.precision, options.kernels);
    return std::make_unique<EngineTrainer<Ops>>(spec, options);
  }

 private:
  std::string name_;
};

}  // namespace qanat::nn
