// One update on two backends, compared: outputs, td errors and every gradient, tensor by tensor.
#pragma once

#include "tests/nn/support.h"
#include "tests/support/catch.h"

#define NEEDS_GPU()                                     \
  if (!gpu_usable()) {                                  \
    WARN("skipped: no GPU: " + find_cuda().obstacle()); \
    return;                                             \
  }

namespace qanat::nn::test {

inline double cosine(std::span<const float> a, std::span<const float> b) {
  double product = 0, a_size = 0, b_size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * b[i];
    a_size += static_cast<double>(a[i]) * a[i];
    b_size += static_cast<double>(b[i]) * b[i];
  }
  return a_size == 0 && b_size == 0 ? 1 : product / std::sqrt(a_size * b_size);
}

struct Seen {
  std::vector<float> q, td_abs, gradients, parameters;
  UpdateResult result;
};

inline Seen one_update(const std::string& backend, const NetworkSpec& spec, const TrainerOptions& options,
                       const QBatch& batch, std::span<const float> online, std::span<const float> target) {
  Seen out;
  const auto inference = inference_on(backend, spec, batch.size);
  inference->set_parameters(online);
  out.q.resize(static_cast<std::size_t>(batch.size * spec.actions));
  inference->forward(batch.state, batch.size, out.q);
  const auto trainer = trainer_on(backend, spec, options);
  trainer->set_parameters(online, target);
  out.td_abs.resize(static_cast<std::size_t>(batch.size));
  trainer->submit(batch, {.learning_rate = 1e-3});
  out.result = trainer->collect(out.td_abs);
  out.gradients = copy(trainer->gradients());
  out.parameters = copy(trainer->parameters());
  return out;
}

struct Bounds {
  double error, cosine;
};

// Of what an update says of itself: the norm is that of its own gradients, the mean near the oracle's.
inline void require_report(const Seen& seen, const Seen& wanted, const Bounds& bounds) {
  double squares = 0, q_squares = 0;
  for (const float g : seen.gradients) squares += static_cast<double>(g) * g;
  for (const float q : wanted.q) q_squares += static_cast<double>(q) * q;
  CHECK(seen.result.finite);
  CHECK(seen.result.grad_norm == Approx(std::sqrt(squares)).epsilon(1e-4));
  CHECK(seen.result.grad_norm == Approx(wanted.result.grad_norm).epsilon(bounds.error));
  CHECK(seen.result.loss == Approx(wanted.result.loss).epsilon(2 * bounds.error));
  const double size = std::sqrt(q_squares / static_cast<double>(wanted.q.size()));
  CHECK(std::abs(seen.result.mean_q - wanted.result.mean_q) < bounds.error * size);
}

// Tensor by tensor.
inline void require_close_gradients(const NetworkSpec& spec, const std::vector<float>& seen,
                                    const std::vector<float>& wanted, const Bounds& bounds) {
  for (const ParameterInfo& info : parameter_layout(spec)) {
    CAPTURE(info.name);
    const auto cut = [&](const std::vector<float>& all) {
      return std::span(all).subspan(info.offset, info.elements());
    };
    CHECK(relative_error(cut(seen), cut(wanted)) < bounds.error);
    CHECK(cosine(cut(seen), cut(wanted)) > bounds.cosine);
  }
}

inline void require_close(const NetworkSpec& spec, const Seen& seen, const Seen& wanted, const Bounds& bounds) {
  CHECK(relative_error(seen.q, wanted.q) < bounds.error);
  CHECK(relative_error(seen.td_abs, wanted.td_abs) < bounds.error);
  require_report(seen, wanted, bounds);
  require_close_gradients(spec, seen.gradients, wanted.gradients, bounds);
}

// Where ten_steps() led, tensor by tensor; what f32 made of the parameters on the way does not count.
inline void require_same_way(const NetworkSpec& spec, const std::vector<float>& start, const std::vector<float>& seen,
                             const std::vector<float>& wanted, double error) {
  for (const ParameterInfo& info : parameter_layout(spec)) {
    CAPTURE(info.name);
    double off = 0, size = 0, parameters = 0;
    for (std::size_t i = info.offset; i < info.offset + info.elements(); ++i) {
      off += std::pow(static_cast<double>(seen[i]) - static_cast<double>(wanted[i]), 2);
      size += std::pow(static_cast<double>(wanted[i]), 2);
      parameters += std::pow(static_cast<double>(start[i]), 2);
    }
    CHECK(std::sqrt(off) < error * std::sqrt(size) + std::sqrt(10 * parameters) * 0x1p-24);
  }
}

// bf16 keeps 8 bits: each stored value is off by up to 2^-9, 1.1e-3 as a norm; four layers forward and back add up to a
// few of these. tf32 products keep 11 bits, and what is stored keeps 24.
inline const Bounds bf16{2e-2, 0.999};
inline const Bounds tf32{4e-3, 0.9999};
// f32 with sums of up to 25,600 terms in f32: sqrt(25600) * 2^-24 = 1e-5 before anything cancels.
inline const Bounds fp32{1e-4, 0.999999};

}  // namespace qanat::nn::test
