#include "bench/learner/r2d2.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <set>
#include <span>
#include <vector>

#include "core/error.h"
#include "nn/sequence.h"

namespace {

using qanat::Rng;
namespace nn = qanat::nn;

constexpr std::int64_t hidden = 512;

nn::NetworkSpec r2d2_network() {
  nn::NetworkConfig config;
  config.preset = "custom";
  config.layers = {{.kind = "conv2d", .out = 32, .kernel = 8, .stride = 4},
                   {.kind = "relu"},
                   {.kind = "conv2d", .out = 64, .kernel = 4, .stride = 2},
                   {.kind = "relu"},
                   {.kind = "conv2d", .out = 64, .kernel = 3, .stride = 1},
                   {.kind = "relu"},
                   {.kind = "linear", .out = hidden},
                   {.kind = "relu"},
                   {.kind = "lstm", .out = hidden}};
  config.dueling = true;
  config.dueling_hidden = 512;
  const qanat::TensorSpec frame{.name = "observation", .dtype = qanat::DType::u8, .shape = {84, 84}};
  return nn::build_network(config, frame, 4, 255, 18);
}

// Sequences with frames of their own, each frame once. Where the trainer offers memory for rows, each of its buffers is
// filled when it is first met and goes over the bus again with every update: what a learner pays that has its frames
// sent straight there.
class Sequences {
 public:
  Sequences(const nn::NetworkSpec& spec, const nn::SequenceOptions& options, std::size_t count) : options_(options) {
    const auto size = static_cast<std::size_t>(options.update.batch);
    rows_ = size * (static_cast<std::size_t>(options.steps()) + 3);
    bytes_ = rows_ * spec.input.bytes();
    for (std::size_t i = 0; i < count; ++i) batches_.push_back(make(spec));
  }

  nn::SequenceBatch next(nn::SequenceTrainer& trainer) {
    const Batch& b = batches_[turn_++ % batches_.size()];
    std::span<std::byte> rows = trainer.row_memory(bytes_);
    if (rows.empty()) {
      own_.resize(bytes_);
      rows = own_;
    }
    if (filled_.insert(rows.data()).second) fill(rows);
    return {.size = options_.update.batch,
            .observations = {rows.data(), static_cast<std::int64_t>(rows_), b.index.data()},
            .previous_action = b.previous_action.data(),
            .previous_reward = b.previous_reward.data(),
            .action = b.action.data(),
            .reward = b.reward.data(),
            .length = b.length.data(),
            .end = b.end.data(),
            .hidden = b.hidden.data(),
            .cell = b.cell.data(),
            .weight = b.weight.data()};
  }
  double bytes() const { return static_cast<double>(bytes_); }

 private:
  struct Batch {
    std::vector<std::uint32_t> index;
    std::vector<std::int32_t> previous_action, action, length;
    std::vector<float> previous_reward, reward, hidden, cell, weight;
    std::vector<nn::SequenceEnd> end;
  };

  void fill(std::span<std::byte> rows) {
    for (std::size_t at = 0; at + 8 <= rows.size(); at += 8) {
      const std::uint64_t bits = rng_.next();
      std::memcpy(&rows[at], &bits, 8);
    }
  }

  Batch make(const nn::NetworkSpec& spec) {
    const auto size = static_cast<std::size_t>(options_.update.batch);
    const auto steps = static_cast<std::size_t>(options_.steps());
    const std::size_t per_sequence = steps + 3;
    Batch b;
    for (std::size_t t = 0; t < steps; ++t) {
      for (std::size_t s = 0; s < size; ++s) {
        for (std::size_t k = 0; k < 4; ++k) b.index.push_back(static_cast<std::uint32_t>(s * per_sequence + t + k));
        const auto actions = static_cast<std::uint64_t>(spec.actions);
        b.action.push_back(static_cast<std::int32_t>(rng_.below(actions)));
        b.previous_action.push_back(static_cast<std::int32_t>(rng_.below(actions)));
        b.reward.push_back(static_cast<float>(rng_.normal()));
        b.previous_reward.push_back(static_cast<float>(rng_.normal()));
      }
    }
    for (std::size_t s = 0; s < size; ++s) {
      b.length.push_back(static_cast<std::int32_t>(steps));
      b.end.push_back(nn::SequenceEnd::open);
      b.weight.push_back(static_cast<float>(rng_.uniform()));
    }
    for (std::size_t i = 0; i < size * hidden; ++i) {
      b.hidden.push_back(static_cast<float>(rng_.uniform(-0.5, 0.5)));
      b.cell.push_back(static_cast<float>(rng_.normal()));
    }
    return b;
  }

  nn::SequenceOptions options_;
  Rng rng_{1};
  std::size_t rows_ = 0, bytes_ = 0, turn_ = 0;
  std::vector<std::byte> own_;
  std::set<const std::byte*> filled_;
  std::vector<Batch> batches_;
};

double product(const std::vector<std::int64_t>& shape) {
  double out = 1;
  for (const auto side : shape) out *= static_cast<double>(side);
  return out;
}

// Products of a step's pass: of the layers below the head, of the head, and of the first layer, which has no input
// gradient. Activations: elements a step.
struct Work {
  double trunk = 0, head = 0, first = 0, activations = 0;
};

Work work_of(const nn::NetworkSpec& spec) {
  Work work;
  work.activations = static_cast<double>(spec.stacked_features());
  const auto actions = static_cast<double>(spec.actions);
  const auto wide = static_cast<double>(spec.dueling_hidden);
  for (const nn::Layer& layer : spec.layers) {
    const double in = product(layer.in), out = product(layer.out);
    double products = 0;
    if (layer.kind == nn::LayerKind::conv2d)
      products = out * static_cast<double>(layer.in[0] * layer.kernel * layer.kernel);
    if (layer.kind == nn::LayerKind::linear) products = in * out;
    if (layer.kind == nn::LayerKind::lstm) products = (in + actions + 1 + out) * 4 * out;
    if (work.first == 0) work.first = products;
    work.trunk += products;
    if (layer.kind == nn::LayerKind::lstm) work.activations += 5 * out;  // gates and cells are kept
    if (layer.kind != nn::LayerKind::relu) work.activations += out;
  }
  work.head = 2 * static_cast<double>(spec.trunk_features()) * wide + wide * (1 + actions);
  work.activations += 2 * wide;
  return work;
}

}  // namespace

R2d2Times bench_r2d2(nn::Backend& backend, const R2d2Settings& settings) {
  using Clock = std::chrono::steady_clock;
  const nn::NetworkSpec spec = r2d2_network();
  nn::SequenceOptions options;  // the published lengths, n-step and discount
  options.update = {.batch = settings.sequences,
                    .td = {.huber = false, .rescale = true},
                    .epsilon = 1e-3,
                    .max_grad_norm = 40,
                    .precision = settings.precision,
                    .kernels = settings.kernels,
                    .capture = settings.capture};
  const auto trainer = backend.sequence_trainer(spec, options);
  std::vector<float> parameters(nn::parameter_count(spec));
  Rng rng(2);
  nn::initialise(spec, rng, parameters);
  trainer->set_parameters(parameters, parameters);
  Sequences sequences(spec, options, 3);
  std::vector<float> priorities(static_cast<std::size_t>(settings.sequences));
  std::vector<double> times;
  nn::UpdateResult result;
  std::size_t in_flight = 0;
  const auto take = [&] {
    result = trainer->collect(priorities);
    if (!result.finite) throw qanat::RunError("a recurrent update was not finite");
    times.push_back(1e3 * result.device_seconds);
    --in_flight;
  };
  const auto run = [&](int updates) {
    for (int i = 0; i < updates; ++i) {
      trainer->submit(sequences.next(*trainer), {.learning_rate = 1e-4});
      if (++in_flight == trainer->depth()) take();
    }
    while (in_flight > 0) take();
  };
  run(std::min(10, settings.updates));
  times.clear();
  const auto start = Clock::now();
  run(settings.updates);
  const double wall = std::chrono::duration<double, std::milli>(Clock::now() - start).count() / settings.updates;
  std::sort(times.begin(), times.end());

  const Work work = work_of(spec);
  const auto size = static_cast<double>(settings.sequences);
  const double all = size * static_cast<double>(options.steps());
  const double learnt = size * static_cast<double>(options.unroll);
  // Forward by two networks, the head on the learnt steps alone; back twice that, once, on the learnt steps. There each
  // activation and its gradient move once. Adam reads and writes parameter, both moments and gradient, and writes what
  // products read.
  return {
      .device_ms = times[times.size() / 2],
      .wall_ms = wall,
      .samples = all,
      .flops = 2 * (2 * (all * work.trunk + learnt * work.head) + learnt * (2 * (work.trunk + work.head) - work.first)),
      .bytes = (2 * all + 2 * learnt) * work.activations * 2 + 34 * static_cast<double>(parameters.size()),
      .bus_bytes = sequences.bytes(),
      .loss = result.loss};
}
