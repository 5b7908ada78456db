// The recurrent update, written once over the operations of nn/engine.h and these, which a backend adds in a class
// `Ops`, constructed from (NetworkSpec, Plan, SequenceOptions). Its further type is Recurrence: what an lstm's forward
// pass keeps for its backward pass.
//   recurrence                   memory for one network
//   stage(SequenceBatch, ...)    as stage of a QBatch
//   begin                        loads the batch and does, for both networks, as many of the first steps as the backend
//                                does in a way of its own; returns the others
//   end                          the backward pass of what begin did
//   lstm                         both networks' passes over all steps (a device has room for both side by side)
//   lstm_gradient                from the last step back to the first after the burn-in
//   sequence_td                  targets, loss, priorities, and the gradient of the loss with respect to Q
// Samples are steps times sequences, time first, so that the steps after the burn-in are one run of samples.
//
// Thread safety and ownership: as nn/sequence.h says.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "nn/engine.h"
#include "nn/sequence.h"

namespace qanat::nn {

// One network's pass through the lstm.
template <class Ops>
struct LstmPass {
  typename Ops::Block parameters;
  typename Ops::Activations in, out;  // [T * B][features]
  typename Ops::Recurrence recurrence = {};
};

// One network's memory.
template <class Ops>
struct SequenceNetwork {
  typename Ops::Block block;
  std::vector<typename Ops::Activations> all;     // buffers of all steps, up to the lstm's output
  std::vector<typename Ops::Activations> learnt;  // of the steps after the burn-in: parts of `all`, then the head's own
  typename Ops::Recurrence recurrence = {};
};

template <class Ops>
class EngineSequenceTrainer final : public SequenceTrainer {
 public:
  template <class... Where>
  EngineSequenceTrainer(const NetworkSpec& spec, const SequenceOptions& options, const Where&... where)
      : spec_(spec), options_(options), plan_(make_plan(spec)), ops_(spec_, plan_, options_, where...) {
    const auto steps = std::span<const Step>(plan_.steps);
    const auto found = std::find_if(steps.begin(), steps.end(), [](const Step& s) { return s.kind == StepKind::lstm; });
    const auto lstm_at = static_cast<std::size_t>(found - steps.begin());
    lstm_ = &*found;
    before_ = steps.first(lstm_at);
    after_ = steps.subspan(lstm_at + 1);
    total_ = options_.steps() * options_.update.batch;
    learnt_ = options_.unroll * options_.update.batch;
    online_.block = ops_.block();
    target_.block = ops_.block();
    gradients_ = ops_.block();
    allocate(online_, nullptr);
    allocate(target_, &online_.all[0]);
    deltas_ = make_pass(ops_, plan_, learnt_, Holds::gradients);
    canonical_.resize(plan_.parameter_count);
  }

  std::size_t depth() const override { return Ops::depth; }

  void submit(const SequenceBatch& batch, const UpdateControls& controls) override {
    assert(in_flight_ < depth());
    check_sequence_batch(spec_, options_, batch);
    const auto& staged = ops_.stage(batch, controls);
    ops_.run([&] { update(staged); });
    ++in_flight_;
  }

  UpdateResult collect(std::span<float> priorities) override {
    assert(in_flight_ > 0);
    --in_flight_;
    check_size("priorities", priorities.size(), static_cast<std::size_t>(options_.update.batch));
    return ops_.result(priorities);
  }

  std::span<std::byte> row_memory(std::size_t bytes) override { return ops_.row_memory(bytes); }

  std::span<const float> parameters() override { return read(online_.block); }
  std::span<const float> target_parameters() override { return read(target_.block); }
  std::span<const float> gradients() override { return read(gradients_); }

  void set_parameters(std::span<const float> online, std::span<const float> target) override {
    check_size("online parameters", online.size(), plan_.parameter_count);
    check_size("target parameters", target.size(), plan_.parameter_count);
    ops_.write(online_.block, online);
    ops_.write(target_.block, target);
  }

  std::vector<std::byte> save_optimizer() const override { return ops_.save_optimizer(); }
  void load_optimizer(std::span<const std::byte> bytes) override { ops_.load_optimizer(bytes); }

 private:
  using Activations = typename Ops::Activations;

  using Network = SequenceNetwork<Ops>;

  // The buffers of a plan are in the order of its steps: those of the head come after the lstm's output.
  void allocate(Network& network, const Activations* input) {
    for (std::size_t i = 0; i < plan_.buffers.size(); ++i) {
      if (i > lstm_->out.buffer) {
        network.learnt.push_back(ops_.activations(i, learnt_, Holds::values));
        continue;
      }
      network.all.push_back(i == 0 && input != nullptr ? *input : ops_.activations(i, total_, Holds::values));
      network.learnt.push_back(ops_.part(network.all.back(), total_ - learnt_, learnt_));
    }
    network.recurrence = ops_.recurrence(*lstm_);
  }

  LstmPass<Ops> lstm_pass(const Network& network) const {
    return {network.block, network.all[lstm_->in.buffer], network.all[lstm_->out.buffer], network.recurrence};
  }

  template <class Batch>
  void update(const Batch& batch) {
    const std::span<const Step> below = ops_.begin(batch, before_, online_, target_);
    ops_.beside([&] { run_steps(ops_, below, target_.block, target_.all, total_); });
    run_steps(ops_, below, online_.block, online_.all, total_);
    ops_.join();
    ops_.lstm(*lstm_, batch, lstm_pass(online_), lstm_pass(target_));
    ops_.beside([&] { run_steps(ops_, after_, target_.block, target_.learnt, learnt_); });
    run_steps(ops_, after_, online_.block, online_.learnt, learnt_);
    ops_.join();
    const std::size_t q = plan_.q.buffer;
    ops_.sequence_td(batch, online_.learnt[q], target_.learnt[q], deltas_[q]);
    run_steps_backward(ops_, after_, online_.block, online_.learnt, deltas_, gradients_, learnt_);
    ops_.lstm_gradient(*lstm_, batch, lstm_pass(online_), deltas_[lstm_->out.buffer], deltas_[lstm_->in.buffer],
                       gradients_);
    run_steps_backward(ops_, below, online_.block, online_.learnt, deltas_, gradients_, learnt_);
    ops_.end(batch, before_, online_, deltas_, gradients_);
    ops_.optimise(online_.block, target_.block, gradients_);
  }

  std::span<const float> read(const typename Ops::Block& block) {
    ops_.read(block, canonical_);
    return canonical_;
  }

  NetworkSpec spec_;
  SequenceOptions options_;
  Plan plan_;
  Ops ops_;
  const Step* lstm_ = nullptr;
  std::span<const Step> before_, after_;  // the steps below and above the lstm
  std::int64_t total_ = 0, learnt_ = 0;   // samples: of all steps, of those after the burn-in
  Network online_, target_;
  typename Ops::Block gradients_;
  std::vector<Activations> deltas_;
  std::vector<float> canonical_;
  std::size_t in_flight_ = 0;
};

}  // namespace qanat::nn
