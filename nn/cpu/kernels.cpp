// The kernels of kernels.h, compiled once an instruction set (Highway includes this file again for each).
#include "nn/cpu/kernels.h"

#include <cmath>
#include <cstring>

#include "nn/layer_norm.h"

// On x86 these sets differ for f32 arithmetic: scalar or SSE4, AVX2 with FMA, AVX-512. SVE's vectors have no fixed
// size and cannot stand in arrays; Arm machines run NEON.
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nn/cpu/kernels.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "nn/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace qanat::nn::cpu::HWY_NAMESPACE {

void sum_lanes(const float* x, std::int64_t channels, std::int64_t pixels, std::int64_t panels, std::int64_t panel_step,
               float* sums) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t c = 0; c < channels; ++c) {
    Vector sum = hn::Zero(d);
    for (std::int64_t panel = 0; panel < panels; ++panel) {
      const float* at = x + panel * panel_step + c * pixels * panel_lanes;
      for (std::int64_t i = 0; i < pixels * panel_lanes; i += lanes) sum = hn::Add(sum, hn::Load(d, at + i));
    }
    sums[c] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

// 4 x 4 at a time, in vectors of four: two rounds of interleaving.
void transpose_panel(const float* in, std::int64_t features, float* out, std::int64_t out_row) {
  std::int64_t f = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  for (; f + 4 <= features; f += 4) {
    for (std::int64_t lane = 0; lane < panel_lanes; lane += 4) {
      const float* at = in + f * panel_lanes + lane;
      const auto r0 = hn::Load(d, at);
      const auto r1 = hn::Load(d, at + panel_lanes);
      const auto r2 = hn::Load(d, at + 2 * panel_lanes);
      const auto r3 = hn::Load(d, at + 3 * panel_lanes);
      const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
      const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
      const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
      const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
      float* to = out + lane * out_row + f;
      hn::Store(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + out_row);
      hn::Store(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + 2 * out_row);
      hn::Store(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + 3 * out_row);
    }
  }
#endif
  for (; f < features; ++f) {
    for (std::int64_t lane = 0; lane < panel_lanes; ++lane) out[lane * out_row + f] = in[f * panel_lanes + lane];
  }
}

// Four features of each row are one 32-bit word; a block of words, samples in the lanes, then unpacks with shifts.
void gather_u8(const std::uint8_t* const* rows, std::int64_t lanes_used, std::int64_t features, float scale,
               float* out) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const hn::RebindToSigned<F32> di;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Vector factor = hn::Set(d, scale);
  HWY_ALIGN std::uint32_t words[8][panel_lanes] = {};
  const std::int64_t whole = (lanes_used + lanes - 1) / lanes * lanes;
  std::int64_t f = 0;
  while (f + 4 <= features) {
    const std::int64_t count = (features - f) / 4 < 8 ? (features - f) / 4 : 8;
    for (std::int64_t lane = 0; lane < lanes_used; ++lane) {
      for (std::int64_t i = 0; i < count; ++i) std::memcpy(&words[i][lane], rows[lane] + f + 4 * i, 4);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t lane = 0; lane < whole; lane += lanes) {
        auto word = hn::Load(du, &words[i][lane]);
        for (std::int64_t k = 0; k < 4; ++k) {
          const auto value = hn::ConvertTo(d, hn::BitCast(di, hn::And(word, hn::Set(du, 0xff))));
          hn::Store(hn::Mul(value, factor), d, out + (f + 4 * i + k) * panel_lanes + lane);
          word = hn::ShiftRight<8>(word);
        }
      }
    }
    f += 4 * count;
  }
  for (; f < features; ++f) {
    for (std::int64_t lane = 0; lane < panel_lanes; ++lane) {
      out[f * panel_lanes + lane] = lane < lanes_used ? static_cast<float>(rows[lane][f]) * scale : 0.0f;
    }
  }
}

void gather_f32(const std::byte* const* rows, std::int64_t lanes_used, std::int64_t features, float scale, float* out) {
  for (std::int64_t lane = 0; lane < panel_lanes; ++lane) {
    for (std::int64_t f = 0; f < features; ++f) {
      float value = 0;
      if (lane < lanes_used) std::memcpy(&value, rows[lane] + 4 * f, 4);
      out[f * panel_lanes + lane] = value * scale;
    }
  }
}

void relu_panel(const float* x, std::int64_t features, float* y) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t i = 0; i < features * panel_lanes; i += lanes) {
    hn::Store(positive(d, hn::Load(d, x + i)), d, y + i);
  }
}

struct NormStatistics {
  Vector mean;
  Vector inverse_deviation;
};

// Of one vector of samples over all features; two passes, so that a large mean costs no digits of the spread.
HWY_INLINE NormStatistics statistics(F32 d, const LayerNormPanel& in, std::int64_t lane) {
  const Vector scale = hn::Set(d, 1.0f / static_cast<float>(in.features));
  Vector sum = hn::Zero(d);
  for (std::int64_t f = 0; f < in.features; ++f) sum = hn::Add(sum, hn::Load(d, in.x + f * panel_lanes + lane));
  const Vector mean = hn::Mul(sum, scale);
  Vector square = hn::Zero(d);
  for (std::int64_t f = 0; f < in.features; ++f) {
    const Vector away = hn::Sub(hn::Load(d, in.x + f * panel_lanes + lane), mean);
    square = hn::MulAdd(away, away, square);
  }
  const Vector variance = hn::MulAdd(square, scale, hn::Set(d, static_cast<float>(layer_norm_epsilon)));
  return {mean, hn::Div(hn::Set(d, 1.0f), hn::Sqrt(variance))};
}

void layer_norm_panel(const LayerNormPanel& in, bool relu, float* y) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t lane = 0; lane < panel_lanes; lane += lanes) {
    const NormStatistics s = statistics(d, in, lane);
    for (std::int64_t f = 0; f < in.features; ++f) {
      const std::int64_t at = f * panel_lanes + lane;
      const Vector normal = hn::Mul(hn::Sub(hn::Load(d, in.x + at), s.mean), s.inverse_deviation);
      const Vector value = hn::MulAdd(hn::Set(d, in.gain[f]), normal, hn::Set(d, in.bias[f]));
      hn::Store(relu ? positive(d, value) : value, d, y + at);
    }
  }
}

void layer_norm_gradient_panel(const LayerNormPanel& in, const float* dy, float* dx, bool mask, bool add,
                               float* gain_gradient, float* bias_gradient) {
  const F32 d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const Vector scale = hn::Set(d, 1.0f / static_cast<float>(in.features));
  for (std::int64_t lane = 0; lane < panel_lanes; lane += lanes) {
    const NormStatistics s = statistics(d, in, lane);
    Vector mean_g = hn::Zero(d);
    Vector mean_gn = hn::Zero(d);
    for (std::int64_t f = 0; f < in.features; ++f) {
      const std::int64_t at = f * panel_lanes + lane;
      const Vector normal = hn::Mul(hn::Sub(hn::Load(d, in.x + at), s.mean), s.inverse_deviation);
      const Vector delta = hn::Load(d, dy + at);
      const Vector g = hn::Mul(hn::Set(d, in.gain[f]), delta);
      mean_g = hn::MulAdd(g, scale, mean_g);
      mean_gn = hn::MulAdd(hn::Mul(g, normal), scale, mean_gn);
      gain_gradient[f] += hn::GetLane(hn::SumOfLanes(d, hn::Mul(delta, normal)));
      bias_gradient[f] += hn::GetLane(hn::SumOfLanes(d, delta));
    }
    if (dx == nullptr) continue;
    for (std::int64_t f = 0; f < in.features; ++f) {
      const std::int64_t at = f * panel_lanes + lane;
      const Vector x = hn::Load(d, in.x + at);
      const Vector normal = hn::Mul(hn::Sub(x, s.mean), s.inverse_deviation);
      const Vector g = hn::Mul(hn::Set(d, in.gain[f]), hn::Load(d, dy + at));
      Vector value = hn::Mul(hn::NegMulAdd(normal, mean_gn, hn::Sub(g, mean_g)), s.inverse_deviation);
      if (mask) value = hn::IfThenElseZero(hn::Gt(x, hn::Zero(d)), value);
      if (add) value = hn::Add(value, hn::Load(d, dx + at));
      hn::Store(value, d, dx + at);
    }
  }
}

double sum_of_squares(const float* x, std::size_t count) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  // Blocks of partial sums go into a double: the rounding error stays that of one block.
  constexpr std::size_t block = 4096;
  double total = 0;
  for (std::size_t start = 0; start < count; start += block) {
    const std::size_t end = start + block < count ? start + block : count;
    Vector even = hn::Zero(d);
    Vector odd = hn::Zero(d);
    std::size_t i = start;
    for (; i + 2 * lanes <= end; i += 2 * lanes) {
      const Vector a = hn::Load(d, x + i);
      const Vector b = hn::Load(d, x + i + lanes);
      even = hn::MulAdd(a, a, even);
      odd = hn::MulAdd(b, b, odd);
    }
    for (; i < end; i += lanes) {
      const Vector a = hn::Load(d, x + i);
      even = hn::MulAdd(a, a, even);
    }
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd))));
  }
  return total;
}

// target += tau (online - target), or exactly online when tau is 1; a target that stays is not touched.
HWY_INLINE void follow(F32 d, float tau, Vector online, float* target) {
  if (tau == 0) return;
  if (tau == 1) {
    hn::Store(online, d, target);
    return;
  }
  const Vector old = hn::Load(d, target);
  hn::Store(hn::MulAdd(hn::Set(d, tau), hn::Sub(online, old), old), d, target);
}

void adam_blocks(const OptimizerBlocks& b, const StepScalars<float>& s) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const Vector clip = hn::Set(d, s.clip);
  const Vector decay1 = hn::Set(d, s.decay1);
  const Vector decay2 = hn::Set(d, s.decay2);
  const Vector new1 = hn::Set(d, s.fresh1);
  const Vector new2 = hn::Set(d, s.fresh2);
  const Vector rate = hn::Set(d, s.rate);
  const Vector second_scale = hn::Set(d, s.second_scale);
  const Vector epsilon = hn::Set(d, s.epsilon);
  for (std::size_t i = 0; i < b.count; i += lanes) {
    const Vector g = hn::Mul(hn::Load(d, b.gradient + i), clip);
    const Vector mean = hn::MulAdd(decay1, hn::Load(d, b.mean + i), hn::Mul(new1, g));
    const Vector square = hn::MulAdd(decay2, hn::Load(d, b.square + i), hn::Mul(hn::Mul(new2, g), g));
    hn::Store(mean, d, b.mean + i);
    hn::Store(square, d, b.square + i);
    const Vector step = hn::Div(hn::Mul(rate, mean), hn::MulAdd(hn::Sqrt(square), second_scale, epsilon));
    const Vector parameter = hn::Sub(hn::Load(d, b.parameter + i), step);
    hn::Store(parameter, d, b.parameter + i);
    follow(d, s.tau, parameter, b.target + i);
  }
}

void rmsprop_blocks(const OptimizerBlocks& b, bool centered, const StepScalars<float>& s) {
  const F32 d;
  const std::size_t lanes = hn::Lanes(d);
  const Vector clip = hn::Set(d, s.clip);
  const Vector decay = hn::Set(d, s.decay2);
  const Vector fresh = hn::Set(d, s.fresh2);
  const Vector rate = hn::Set(d, s.rate);
  const Vector epsilon = hn::Set(d, s.epsilon);
  for (std::size_t i = 0; i < b.count; i += lanes) {
    const Vector g = hn::Mul(hn::Load(d, b.gradient + i), clip);
    const Vector square = hn::MulAdd(decay, hn::Load(d, b.square + i), hn::Mul(hn::Mul(fresh, g), g));
    hn::Store(square, d, b.square + i);
    Vector variance = square;
    if (centered) {
      const Vector mean = hn::MulAdd(decay, hn::Load(d, b.mean + i), hn::Mul(fresh, g));
      hn::Store(mean, d, b.mean + i);
      variance = positive(d, hn::NegMulAdd(mean, mean, square));
    }
    const Vector step = hn::Div(hn::Mul(rate, g), hn::Add(hn::Sqrt(variance), epsilon));
    const Vector parameter = hn::Sub(hn::Load(d, b.parameter + i), step);
    hn::Store(parameter, d, b.parameter + i);
    follow(d, s.tau, parameter, b.target + i);
  }
}

}  // namespace qanat::nn::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qanat::nn::cpu {

HWY_EXPORT(run_tiles);
HWY_EXPORT(run_dots);
HWY_EXPORT(sum_lanes);
HWY_EXPORT(transpose_panel);
HWY_EXPORT(gather_u8);
HWY_EXPORT(gather_f32);
HWY_EXPORT(relu_panel);
HWY_EXPORT(layer_norm_panel);
HWY_EXPORT(layer_norm_gradient_panel);
HWY_EXPORT(sum_of_squares);
HWY_EXPORT(adam_blocks);
HWY_EXPORT(rmsprop_blocks);

void run_tiles(const TileProblem& problem) { HWY_DYNAMIC_DISPATCH(run_tiles)(problem); }
void run_dots(const DotProblem& problem) { HWY_DYNAMIC_DISPATCH(run_dots)(problem); }
void sum_lanes(const float* x, std::int64_t channels, std::int64_t pixels, std::int64_t panels, std::int64_t panel_step,
               float* sums) {
  HWY_DYNAMIC_DISPATCH(sum_lanes)(x, channels, pixels, panels, panel_step, sums);
}
void transpose_panel(const float* in, std::int64_t features, float* out, std::int64_t out_row) {
  HWY_DYNAMIC_DISPATCH(transpose_panel)(in, features, out, out_row);
}
void gather_u8(const std::uint8_t* const* rows, std::int64_t lanes_used, std::int64_t features, float scale,
               float* out) {
  HWY_DYNAMIC_DISPATCH(gather_u8)(rows, lanes_used, features, scale, out);
}
void gather_f32(const std::byte* const* rows, std::int64_t lanes_used, std::int64_t features, float scale, float* out) {
  HWY_DYNAMIC_DISPATCH(gather_f32)(rows, lanes_used, features, scale, out);
}
void relu_panel(const float* x, std::int64_t features, float* y) { HWY_DYNAMIC_DISPATCH(relu_panel)(x, features, y); }
void layer_norm_panel(const LayerNormPanel& in, bool relu, float* y) {
  HWY_DYNAMIC_DISPATCH(layer_norm_panel)(in, relu, y);
}
void layer_norm_gradient_panel(const LayerNormPanel& in, const float* dy, float* dx, bool mask, bool add,
                               float* gain_gradient, float* bias_gradient) {
  HWY_DYNAMIC_DISPATCH(layer_norm_gradient_panel)(in, dy, dx, mask, add, gain_gradient, bias_gradient);
}
double sum_of_squares(const float* x, std::size_t count) { return HWY_DYNAMIC_DISPATCH(sum_of_squares)(x, count); }
void adam_blocks(const OptimizerBlocks& blocks, const StepScalars<float>& scalars) {
  HWY_DYNAMIC_DISPATCH(adam_blocks)(blocks, scalars);
}
void rmsprop_blocks(const OptimizerBlocks& blocks, bool centered, const StepScalars<float>& scalars) {
  HWY_DYNAMIC_DISPATCH(rmsprop_blocks)(blocks, centered, scalars);
}

}  // namespace qanat::nn::cpu
#endif  // HWY_ONCE
