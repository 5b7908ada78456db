#include "nn/cpu/reference.h"

#include <cmath>
#include <cstring>

#include "nn/layer_norm.h"

namespace qanat::nn {

template <class Real>
ReferenceOps<Real>::ReferenceOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options)
    : CpuUpdate<Real>(options), spec_(spec), plan_(plan), mean_(plan.parameter_count), square_(plan.parameter_count) {}

template <class Real>
auto ReferenceOps<Real>::activations(std::size_t buffer, std::int64_t samples, Holds) -> Activations {
  const std::int64_t features = plan_.buffers[buffer];
  memory_.emplace_back(static_cast<std::size_t>(features * samples));
  return {memory_.back().data(), features};
}

template <class Real>
auto ReferenceOps<Real>::part(const Activations& whole, std::int64_t first, std::int64_t) const -> Activations {
  return {whole.data + first * whole.features, whole.features};
}

template <class Real>
auto ReferenceOps<Real>::block() -> Block {
  memory_.emplace_back(plan_.parameter_count);
  return {memory_.back().data()};
}

template <class Real>
void ReferenceOps<Real>::write(Block& block, std::span<const float> canonical) {
  for (std::size_t i = 0; i < canonical.size(); ++i) block.data[i] = canonical[i];
}

template <class Real>
void ReferenceOps<Real>::read(const Block& block, std::span<float> canonical) const {
  for (std::size_t i = 0; i < canonical.size(); ++i) canonical[i] = static_cast<float>(block.data[i]);
}

template <class Real>
void ReferenceOps<Real>::read(const Activations& from, std::int64_t samples, std::span<float> to) const {
  for (std::int64_t i = 0; i < samples * from.features; ++i) to[i] = static_cast<float>(from.data[i]);
}

template <class Real>
void ReferenceOps<Real>::load(const ObservationRows& rows, Activations& to, std::int64_t first, std::int64_t samples) {
  const auto row_features = static_cast<std::int64_t>(spec_.input.elements());
  const auto row_bytes = static_cast<std::int64_t>(spec_.input.bytes());
  for (std::int64_t b = 0; b < samples; ++b) {
    for (std::int64_t k = 0; k < spec_.stack; ++k) {
      const std::int64_t row = rows.index != nullptr ? rows.index[b * spec_.stack + k] : b;
      const std::byte* bytes = rows.data + row * row_bytes;
      Real* out = to.data + (first + b) * to.features + k * row_features;
      for (std::int64_t f = 0; f < row_features; ++f) {
        float value = 0;
        if (spec_.input.dtype == DType::u8) {
          value = static_cast<float>(bytes[f]);
        } else {
          std::memcpy(&value, bytes + f * 4, 4);
        }
        out[f] = static_cast<Real>(value) * static_cast<Real>(spec_.input_scale);
      }
    }
  }
}

template <class Real>
void ReferenceOps<Real>::td(const QBatch& batch, const Activations& q, const Activations& choosing_q,
                            const Activations& target_q, Activations& delta) {
  const std::int64_t actions = spec_.actions;
  this->td_batch(
      batch, actions, {q.data, choosing_q.data, target_q.data, delta.data}, [&](std::int64_t b) { return b * actions; },
      1);
}

template <class Real>
void ReferenceOps<Real>::optimise(Block& online, Block& target, Block& gradients) {
  double sum = 0;
  for (std::size_t i = 0; i < plan_.parameter_count; ++i) {
    sum += static_cast<double>(gradients.data[i]) * static_cast<double>(gradients.data[i]);
  }
  const auto scalars = this->begin_step(sum);
  if (!scalars) return;
  const TrainerOptions& options = this->options_;
  for (std::size_t i = 0; i < plan_.parameter_count; ++i) {
    if (options.optimizer == "adam") {
      adam_rule(online.data[i], gradients.data[i], mean_[i], square_[i], *scalars);
    } else {
      rmsprop_rule(online.data[i], gradients.data[i], mean_[i], square_[i], options.rms_centered, *scalars);
    }
    if (scalars->tau == Real(1)) {
      target.data[i] = online.data[i];
    } else {
      target.data[i] += scalars->tau * (online.data[i] - target.data[i]);
    }
  }
}

template <class Real>
std::vector<std::byte> ReferenceOps<Real>::save_optimizer() const {
  const OptimizerState state{.steps = this->steps_,
                             .mean = std::vector<float>(mean_.begin(), mean_.end()),
                             .square = std::vector<float>(square_.begin(), square_.end())};
  return pack_optimizer(this->options_, state);
}

template <class Real>
void ReferenceOps<Real>::load_optimizer(std::span<const std::byte> bytes) {
  const OptimizerState state = unpack_optimizer(this->options_, bytes, plan_.parameter_count);
  this->steps_ = state.steps;
  std::copy(state.mean.begin(), state.mean.end(), mean_.begin());
  std::copy(state.square.begin(), state.square.end(), square_.begin());
}

// Layers. Sums run in f64 whatever the storage.

namespace {

// Written so that NaN stays NaN: a comparison with NaN is false.
template <class Real>
Real activate(const Step& step, double value) {
  return static_cast<Real>(step.relu && value < 0 ? 0.0 : value);
}

// Calls visit(output index, input index, weight index) for every product of a convolution of one sample.
template <class Visit>
void for_each_tap(const ConvShape& c, Visit visit) {
  for (std::int64_t o = 0; o < c.out_channels; ++o) {
    for (std::int64_t y = 0; y < c.out_height; ++y) {
      for (std::int64_t x = 0; x < c.out_width; ++x) {
        const std::int64_t out = (o * c.out_height + y) * c.out_width + x;
        for (std::int64_t i = 0; i < c.in_channels; ++i) {
          for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
            for (std::int64_t kx = 0; kx < c.kernel; ++kx) {
              const std::int64_t in = (i * c.in_height + y * c.stride + ky) * c.in_width + x * c.stride + kx;
              visit(out, in, ((o * c.in_channels + i) * c.kernel + ky) * c.kernel + kx);
            }
          }
        }
      }
    }
  }
}

}  // namespace

template <class Real>
void ReferenceOps<Real>::put_delta(const Step& step, Real value, Real input, Real& delta) {
  if (step.input_is_relu && !(input > Real(0))) value = 0;
  delta = step.accumulate ? delta + value : value;
}

template <class Real>
void ReferenceOps<Real>::linear(const Step& step, const Block& p, const Activations& in, Activations& out,
                                std::int64_t samples) {
  const Real* weight = parameter(p, step.weight);  // [in, out]
  const Real* bias = parameter(p, step.bias);
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* x = in.at(b, step.in);
    Real* y = out.at(b, step.out);
    for (std::int64_t o = 0; o < step.out.features; ++o) {
      double sum = bias[o];
      for (std::int64_t i = 0; i < step.in.features; ++i) {
        sum += static_cast<double>(x[i]) * static_cast<double>(weight[i * step.out.features + o]);
      }
      y[o] = activate<Real>(step, sum);
    }
  }
}

template <class Real>
void ReferenceOps<Real>::linear_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta,
                                                Block& gradients, std::int64_t samples) {
  Real* weight = parameter(gradients, step.weight);
  Real* bias = parameter(gradients, step.bias);
  for (std::int64_t o = 0; o < step.out.features; ++o) {
    for (std::int64_t i = 0; i < step.in.features; ++i) {
      double sum = 0;
      for (std::int64_t b = 0; b < samples; ++b) {
        sum += static_cast<double>(in.at(b, step.in)[i]) * static_cast<double>(out_delta.at(b, step.out)[o]);
      }
      weight[i * step.out.features + o] = static_cast<Real>(sum);
    }
    double sum = 0;
    for (std::int64_t b = 0; b < samples; ++b) sum += out_delta.at(b, step.out)[o];
    bias[o] = static_cast<Real>(sum);
  }
}

template <class Real>
void ReferenceOps<Real>::linear_input_gradient(const Step& step, const Block& p, const Activations& in,
                                               const Activations& out_delta, Activations& in_delta,
                                               std::int64_t samples) {
  const Real* weight = parameter(p, step.weight);
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* dy = out_delta.at(b, step.out);
    for (std::int64_t i = 0; i < step.in.features; ++i) {
      double sum = 0;
      for (std::int64_t o = 0; o < step.out.features; ++o) {
        sum += static_cast<double>(weight[i * step.out.features + o]) * static_cast<double>(dy[o]);
      }
      put_delta(step, static_cast<Real>(sum), in.at(b, step.in)[i], in_delta.at(b, step.in)[i]);
    }
  }
}

template <class Real>
void ReferenceOps<Real>::conv2d(const Step& step, const Block& p, const Activations& in, Activations& out,
                                std::int64_t samples) {
  const Real* weight = parameter(p, step.weight);  // OIHW
  const Real* bias = parameter(p, step.bias);
  const std::int64_t pixels = step.conv.out_height * step.conv.out_width;
  std::vector<double> sums(static_cast<std::size_t>(step.out.features));
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* x = in.at(b, step.in);
    for (std::int64_t f = 0; f < step.out.features; ++f) sums[f] = bias[f / pixels];
    for_each_tap(step.conv, [&](std::int64_t o, std::int64_t i, std::int64_t w) {
      sums[o] += static_cast<double>(x[i]) * static_cast<double>(weight[w]);
    });
    for (std::int64_t f = 0; f < step.out.features; ++f) out.at(b, step.out)[f] = activate<Real>(step, sums[f]);
  }
}

template <class Real>
void ReferenceOps<Real>::conv2d_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta,
                                                Block& gradients, std::int64_t samples) {
  const std::int64_t pixels = step.conv.out_height * step.conv.out_width;
  std::vector<double> weight(plan_.parameters[step.weight].elements());
  std::vector<double> bias(static_cast<std::size_t>(step.conv.out_channels));
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* x = in.at(b, step.in);
    const Real* dy = out_delta.at(b, step.out);
    for_each_tap(step.conv, [&](std::int64_t o, std::int64_t i, std::int64_t w) {
      weight[w] += static_cast<double>(x[i]) * static_cast<double>(dy[o]);
    });
    for (std::int64_t f = 0; f < step.out.features; ++f) bias[f / pixels] += dy[f];
  }
  for (std::size_t i = 0; i < weight.size(); ++i) parameter(gradients, step.weight)[i] = static_cast<Real>(weight[i]);
  for (std::size_t i = 0; i < bias.size(); ++i) parameter(gradients, step.bias)[i] = static_cast<Real>(bias[i]);
}

template <class Real>
void ReferenceOps<Real>::conv2d_input_gradient(const Step& step, const Block& p, const Activations& in,
                                               const Activations& out_delta, Activations& in_delta,
                                               std::int64_t samples) {
  const Real* weight = parameter(p, step.weight);
  std::vector<double> sums(static_cast<std::size_t>(step.in.features));
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* dy = out_delta.at(b, step.out);
    sums.assign(sums.size(), 0);
    for_each_tap(step.conv, [&](std::int64_t o, std::int64_t i, std::int64_t w) {
      sums[i] += static_cast<double>(weight[w]) * static_cast<double>(dy[o]);
    });
    for (std::int64_t f = 0; f < step.in.features; ++f) {
      put_delta(step, static_cast<Real>(sums[f]), in.at(b, step.in)[f], in_delta.at(b, step.in)[f]);
    }
  }
}

namespace {

struct Moments {
  double mean = 0;
  double inverse_deviation = 0;
};

template <class Real>
Moments moments(const Real* x, std::int64_t features) {
  double mean = 0;
  for (std::int64_t f = 0; f < features; ++f) mean += x[f];
  mean /= static_cast<double>(features);
  double square = 0;
  for (std::int64_t f = 0; f < features; ++f) square += (x[f] - mean) * (x[f] - mean);
  return {mean, 1 / std::sqrt(square / static_cast<double>(features) + layer_norm_epsilon)};
}

}  // namespace

template <class Real>
void ReferenceOps<Real>::layer_norm(const Step& step, const Block& p, const Activations& in, Activations& out,
                                    std::int64_t samples) {
  const Real* gain = parameter(p, step.weight);
  const Real* bias = parameter(p, step.bias);
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* x = in.at(b, step.in);
    const Moments m = moments(x, step.in.features);
    for (std::int64_t f = 0; f < step.in.features; ++f) {
      const double normal = (x[f] - m.mean) * m.inverse_deviation;
      out.at(b, step.out)[f] = activate<Real>(step, gain[f] * normal + bias[f]);
    }
  }
}

// With n = (x - mean) / deviation and g = gain * dy:  dx = (g - mean(g) - n mean(g n)) / deviation.
template <class Real>
void ReferenceOps<Real>::layer_norm_gradient(const Step& step, const Block& p, const Activations& in,
                                             const Activations& out_delta, Activations& in_delta, Block& gradients,
                                             std::int64_t samples) {
  const std::int64_t features = step.in.features;
  const Real* gain = parameter(p, step.weight);
  std::vector<double> gain_gradient(static_cast<std::size_t>(features));
  std::vector<double> bias_gradient(static_cast<std::size_t>(features));
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* x = in.at(b, step.in);
    const Real* dy = out_delta.at(b, step.out);
    const Moments m = moments(x, features);
    double mean_g = 0;
    double mean_gn = 0;
    for (std::int64_t f = 0; f < features; ++f) {
      const double normal = (x[f] - m.mean) * m.inverse_deviation;
      const double g = static_cast<double>(gain[f]) * static_cast<double>(dy[f]);
      mean_g += g;
      mean_gn += g * normal;
      gain_gradient[f] += dy[f] * normal;
      bias_gradient[f] += dy[f];
    }
    mean_g /= static_cast<double>(features);
    mean_gn /= static_cast<double>(features);
    if (!step.input_gradient) continue;
    for (std::int64_t f = 0; f < features; ++f) {
      const double normal = (x[f] - m.mean) * m.inverse_deviation;
      const double g = static_cast<double>(gain[f]) * static_cast<double>(dy[f]);
      put_delta(step, static_cast<Real>((g - mean_g - normal * mean_gn) * m.inverse_deviation), x[f],
                in_delta.at(b, step.in)[f]);
    }
  }
  for (std::int64_t f = 0; f < features; ++f) {
    parameter(gradients, step.weight)[f] = static_cast<Real>(gain_gradient[f]);
    parameter(gradients, step.bias)[f] = static_cast<Real>(bias_gradient[f]);
  }
}

template <class Real>
void ReferenceOps<Real>::relu(const Step& step, const Activations& in, Activations& out, std::int64_t samples) {
  for (std::int64_t b = 0; b < samples; ++b) {
    for (std::int64_t f = 0; f < step.in.features; ++f) {
      out.at(b, step.out)[f] = activate<Real>(step, in.at(b, step.in)[f]);
    }
  }
}

// in: value, then advantages. q = value + advantage - mean(advantage).
template <class Real>
void ReferenceOps<Real>::dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples) {
  const std::int64_t actions = step.out.features;
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* x = in.at(b, step.in);
    double mean = 0;
    for (std::int64_t a = 0; a < actions; ++a) mean += x[1 + a];
    mean /= static_cast<double>(actions);
    for (std::int64_t a = 0; a < actions; ++a) out.at(b, step.out)[a] = static_cast<Real>(x[0] + (x[1 + a] - mean));
  }
}

template <class Real>
void ReferenceOps<Real>::dueling_gradient(const Step& step, const Activations& out_delta, Activations& in_delta,
                                          std::int64_t samples) {
  const std::int64_t actions = step.out.features;
  for (std::int64_t b = 0; b < samples; ++b) {
    const Real* dq = out_delta.at(b, step.out);
    Real* dx = in_delta.at(b, step.in);
    double sum = 0;
    for (std::int64_t a = 0; a < actions; ++a) sum += dq[a];
    dx[0] = static_cast<Real>(sum);
    for (std::int64_t a = 0; a < actions; ++a) {
      dx[1 + a] = static_cast<Real>(dq[a] - sum / static_cast<double>(actions));
    }
  }
}

template class ReferenceOps<float>;
template class ReferenceOps<double>;

}  // namespace qanat::nn
