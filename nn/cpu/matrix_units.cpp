#include "nn/cpu/matrix_units.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cassert>
#include <cstring>

#include "core/error.h"

// Functions that use more than the baseline's instructions say so each, and are called only where they can run.
#define WITH_TILES __attribute__((target("amx-tile,amx-bf16")))
#define WITH_VECTORS __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16")))

namespace qanat::nn {
namespace {

constexpr std::int64_t lanes = 16;         // samples of a panel
constexpr std::int64_t tile_rows = 16;     // outputs of a tile
constexpr std::int64_t piece = 32;         // features of a tile
constexpr std::int64_t tile = 16 * piece;  // bf16 numbers of one
constexpr std::int64_t tile_sums = tile_rows * lanes;

constexpr std::int64_t ceil_of(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

// The processor's flags, and Linux's permission for this process to use the units' state (arch_prctl(2)).
bool have_matrix_units() {
  constexpr unsigned tiles = 1U << 24, bf16_tiles = 1U << 22, bf16_vectors = 1U << 5;
  constexpr long request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tiles) == 0 || (d & bf16_tiles) == 0) return false;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & bf16_vectors) == 0) return false;
  if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) return false;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

std::uint16_t bf16_of(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return 0x7fc0;
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Where feature f of lane l stands.
std::int64_t place(std::int64_t feature, std::int64_t lane) { return feature / 2 * 2 * lanes + lane * 2 + feature % 2; }

// All eight tiles are 16 rows of 64 bytes.
WITH_TILES void configure_tiles() {
  struct alignas(64) Config {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Config) == 64);
  static constexpr Config config;  // GCC's intrinsic tells the compiler of its first bytes only
  _tile_loadconfig(&config);
}

WITH_TILES void release_tiles() { _tile_release(); }

// out[column][tile][16][16] = sum over pieces of weights * in, for one or two columns (a pixel of a panel) by one or
// two tiles of outputs.
template <int Columns, int Tiles>
WITH_TILES void multiply_block(const std::uint16_t* weights, std::span<const std::int64_t> pieces,
                               const std::array<const std::uint16_t*, 2>& in, float* out) {
  const auto count = static_cast<std::int64_t>(pieces.size());
  std::atomic_signal_fence(std::memory_order_seq_cst);  // GCC's intrinsics do not say that they read memory
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint16_t* w = weights + i * tile;
    _tile_loadd(4, w, 64);
    _tile_loadd(6, in[0] + pieces[static_cast<std::size_t>(i)], 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (Tiles == 2) {
      _tile_loadd(5, w + count * tile, 64);
      _tile_dpbf16ps(1, 5, 6);
    }
    if constexpr (Columns == 2) {
      _tile_loadd(7, in[1] + pieces[static_cast<std::size_t>(i)], 64);
      _tile_dpbf16ps(2, 4, 7);
      if constexpr (Tiles == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, 64);
  if constexpr (Tiles == 2) _tile_stored(1, out + tile_sums, 64);
  if constexpr (Columns == 2) {
    _tile_stored(2, out + 2 * tile_sums, 64);
    if constexpr (Tiles == 2) _tile_stored(3, out + 3 * tile_sums, 64);
  }
}

WITH_VECTORS __m512 with_bias(const float* sums, float bias, bool relu) {
  const __m512 value = _mm512_add_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(bias));
  return relu ? _mm512_max_ps(_mm512_setzero_ps(), value) : value;  // of a NaN the second operand is kept
}

// Two features of 16 lanes, side by side: 16-bit numbers in the lower halves of a's and b's elements.
WITH_VECTORS __m512i side_by_side(__m512i a, __m512i b) { return _mm512_or_si512(a, _mm512_slli_epi32(b, 16)); }

WITH_VECTORS __m512i rounded(__m512 value) {
  return _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
}

WITH_VECTORS void finish_bf16(const float* sums, const float* bias, bool relu, std::int64_t rows, std::uint16_t* to) {
  for (std::int64_t r = 0; r < rows; r += 2) {
    const auto a = rounded(with_bias(sums + r * lanes, bias[r], relu));
    const auto b = rounded(with_bias(sums + (r + 1) * lanes, bias[r + 1], relu));
    _mm512_storeu_si512(to + r * lanes, side_by_side(a, b));
  }
}

WITH_VECTORS void finish_f32(const float* sums, const float* bias, bool relu, std::int64_t rows, float* to) {
  for (std::int64_t r = 0; r < rows; ++r) {
    _mm512_storeu_ps(to + r * lanes, with_bias(sums + r * lanes, bias[r], relu));
  }
}

// 16 bytes of each of 16 lanes, transposed: interleaving the halves four times.
struct Square {
  __m128i row[16];
};
WITH_VECTORS Square transposed(const std::array<const std::uint8_t*, lanes>& from, std::int64_t at) {
  Square a, b;
  for (std::size_t i = 0; i < 16; ++i) a.row[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from[i] + at));
  for (int round = 0; round < 4; ++round) {
    for (std::size_t i = 0; i < 8; ++i) {
      b.row[2 * i] = _mm_unpacklo_epi8(a.row[i], a.row[i + 8]);
      b.row[2 * i + 1] = _mm_unpackhi_epi8(a.row[i], a.row[i + 8]);
    }
    a = b;
  }
  return a;
}

// A byte is exact in bf16, whose numbers are the upper halves of f32's.
WITH_VECTORS __m512i bf16_of_bytes(__m128i bytes) {
  return _mm512_srli_epi32(_mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))), 16);
}

// Two channels' planes of `pixels` pixels, 16 at a time; `step` elements from a pixel to the next. Returns how many.
WITH_VECTORS std::int64_t load_planes(const std::array<const std::uint8_t*, lanes>& first,
                                      const std::array<const std::uint8_t*, lanes>& second, std::int64_t pixels,
                                      std::int64_t step, std::uint16_t* to) {
  std::int64_t at = 0;
  for (; at + 16 <= pixels; at += 16) {
    const auto a = transposed(first, at);
    const auto b = transposed(second, at);
    for (std::int64_t i = 0; i < 16; ++i) {
      _mm512_storeu_si512(to + (at + i) * step, side_by_side(bf16_of_bytes(a.row[i]), bf16_of_bytes(b.row[i])));
    }
  }
  return at;
}

}  // namespace

std::string matrix_obstacle(const NetworkSpec& spec) {
  static const bool usable = have_matrix_units();
  if (!usable) return "this processor has no matrix units for bf16 (Intel AMX), or the system does not grant them";
  if (spec.layers.empty() || spec.layers[0].kind != LayerKind::conv2d)
    return "matrix units are used for networks whose first layer is a convolution";
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    const auto kind = spec.layers[i].kind;
    if (kind == LayerKind::layer_norm || kind == LayerKind::lstm)
      return text("layer ", i, " is neither convolution, linear nor relu, which are all that matrix units compute");
  }
  if (spec.dueling_hidden % 2 != 0)
    return text("dueling_hidden is ", spec.dueling_hidden, ", which for matrix units must be even");
  return {};
}

template <class T>
auto MatrixOps::zeros(std::int64_t count) -> Memory<T> {
  auto* memory = static_cast<T*>(::operator new[](static_cast<std::size_t>(count) * sizeof(T), std::align_val_t{64}));
  std::fill_n(memory, count, T{});
  return Memory<T>(memory);
}

MatrixOps::MatrixOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options)
    : spec_(spec),
      plan_(plan),
      panels_(ceil_of(options.batch, lanes)),
      buffers_(plan.buffers.size()),
      products_(plan.parameters.size()) {
  const auto stacked = spec.stacked_shape();
  buffers_[0].channels = stacked[0];
  buffers_[0].pixels = stacked[1] * stacked[2];
  buffers_[plan.q.buffer].exact = true;
  for (const Step& step : plan.steps) {
    Buffer& out = buffers_[step.out.buffer];
    out.channels = plan.buffers[step.out.buffer];
    if (step.kind == StepKind::conv2d) {
      out.channels = step.conv.out_channels;
      out.pixels = step.conv.out_height * step.conv.out_width;
    }
    if (step.kind == StepKind::dueling) buffers_[step.in.buffer].exact = true;
  }
  for (const Step& step : plan.steps) {
    if (step.kind != StepKind::dueling) products_[step.weight] = product_of(step);
  }
}

auto MatrixOps::activations(std::size_t buffer, std::int64_t, Holds) -> Activations {
  Buffer& it = buffers_[buffer];
  it.panel = it.padded_channels() * it.pixels * lanes;
  if (it.exact) {
    it.f32 = zeros<float>(panels_ * it.panel);
  } else {
    // The last piece of a run may reach over its end, where weights are zero: to what is the sample's own, or to zeros.
    it.panel += tile;
    it.bf16 = zeros<std::uint16_t>(panels_ * it.panel);
  }
  return {buffer};
}

auto MatrixOps::product_of(const Step& step) const -> Product {
  const Buffer& in = buffers_[step.in.buffer];
  const Buffer& out = buffers_[step.out.buffer];
  Product product;
  if (step.kind == StepKind::conv2d) {
    const ConvShape& c = step.conv;
    const std::int64_t channels = in.padded_channels();
    product.outputs = c.out_channels;
    for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
      for (std::int64_t at = 0; at < c.kernel * channels; at += piece) {
        product.pieces.push_back((ky * c.in_width * channels + at) * lanes);
      }
    }
    for (std::int64_t y = 0; y < c.out_height; ++y) {
      for (std::int64_t x = 0; x < c.out_width; ++x) {
        product.first.push_back((y * c.in_width + x) * c.stride * channels * lanes);
        product.places.push_back((y * c.out_width + x) * out.padded_channels() * lanes);
      }
    }
  } else {
    const std::int64_t features = in.pixels > 1 ? in.padded_channels() * in.pixels : step.in.features;
    product.outputs = step.out.features;
    for (std::int64_t at = 0; at < features; at += piece) product.pieces.push_back(at * lanes);
    product.first = {step.in.offset * lanes};
    product.places = {step.out.offset * lanes};
  }
  product.tiles = ceil_of(product.outputs, tile_rows);
  product.weights = zeros<std::uint16_t>(product.tiles * static_cast<std::int64_t>(product.pieces.size()) * tile);
  product.bias = zeros<float>(product.tiles * tile_rows);
  return product;
}

void MatrixOps::write(Block&, std::span<const float> canonical) {
  for (const Step& step : plan_.steps) {
    if (step.kind == StepKind::dueling) continue;
    const auto of = [&](std::size_t index) {
      const ParameterInfo& info = plan_.parameters[index];
      return canonical.subspan(info.offset, info.elements());
    };
    pack(step, of(step.weight), of(step.bias));
  }
}

void MatrixOps::pack(const Step& step, std::span<const float> weight, std::span<const float> bias) {
  Product& product = products_[step.weight];
  const Buffer& in = buffers_[step.in.buffer];
  const std::int64_t channels = in.padded_channels();
  const auto pieces = static_cast<std::int64_t>(product.pieces.size());
  // The observation stays as it is stored: its first layer's weights carry the scale.
  const float scale = step.in.buffer == 0 ? spec_.input_scale : 1;
  const auto put = [&](std::int64_t output, std::int64_t at, std::int64_t in_piece, std::size_t canonical) {
    const std::int64_t row = (output / tile_rows * pieces + at) * tile + output % tile_rows * piece;
    product.weights[static_cast<std::size_t>(row + in_piece)] = bf16_of(weight[canonical] * scale);
  };
  for (std::int64_t output = 0; output < product.outputs; ++output) {
    product.bias[static_cast<std::size_t>(output)] = bias[static_cast<std::size_t>(output)];
    if (step.kind == StepKind::conv2d) {
      const ConvShape& c = step.conv;
      const std::int64_t per_row = ceil_of(c.kernel * channels, piece);
      for (std::int64_t channel = 0; channel < c.in_channels; ++channel) {
        for (std::int64_t ky = 0; ky < c.kernel; ++ky) {
          for (std::int64_t kx = 0; kx < c.kernel; ++kx) {
            const std::int64_t at = kx * channels + channel;
            const std::int64_t from = ((output * c.in_channels + channel) * c.kernel + ky) * c.kernel + kx;
            put(output, ky * per_row + at / piece, at % piece, static_cast<std::size_t>(from));
          }
        }
      }
    } else {
      for (std::int64_t feature = 0; feature < step.in.features; ++feature) {
        // An image comes flat, [channel][y][x], and stands here as [y][x][channel].
        const std::int64_t at = in.pixels > 1 ? feature % in.pixels * channels + feature / in.pixels : feature;
        put(output, at / piece, at % piece, static_cast<std::size_t>(feature * product.outputs + output));
      }
    }
  }
}

void MatrixOps::multiply(const Step& step, std::int64_t samples) {
  const Product& product = products_[step.weight];
  const Buffer& in = buffers_[step.in.buffer];
  Buffer& out = buffers_[step.out.buffer];
  const auto pixels = static_cast<std::int64_t>(product.first.size());
  const auto pieces = static_cast<std::int64_t>(product.pieces.size());
  const std::int64_t columns = ceil_of(samples, lanes) * pixels;
  alignas(64) std::array<float, 4 * tile_sums> sums;
  for (std::int64_t column = 0; column < columns; column += 2) {
    const std::int64_t wide = std::min<std::int64_t>(2, columns - column);
    std::array<const std::uint16_t*, 2> from{};
    std::array<std::int64_t, 2> to{};
    for (std::int64_t i = 0; i < wide; ++i) {
      const auto pixel = static_cast<std::size_t>((column + i) % pixels);
      const std::int64_t panel = (column + i) / pixels;
      from[static_cast<std::size_t>(i)] = in.bf16.get() + panel * in.panel + product.first[pixel];
      to[static_cast<std::size_t>(i)] = panel * out.panel + product.places[pixel];
    }
    for (std::int64_t t = 0; t < product.tiles; t += 2) {
      const std::int64_t high = std::min<std::int64_t>(2, product.tiles - t);
      const auto* weights = product.weights.get() + t * pieces * tile;
      const auto kernel = wide == 2 ? (high == 2 ? multiply_block<2, 2> : multiply_block<2, 1>)
                                    : (high == 2 ? multiply_block<1, 2> : multiply_block<1, 1>);
      kernel(weights, product.pieces, from, sums.data());
      for (std::int64_t i = 0; i < wide; ++i) {
        for (std::int64_t j = 0; j < high; ++j) {
          const std::int64_t first = (t + j) * tile_rows;
          const std::int64_t rows = std::min(tile_rows, product.outputs - first);
          const float* seen = sums.data() + (2 * i + j) * tile_sums;
          const float* bias = product.bias.get() + first;
          const std::int64_t at = to[static_cast<std::size_t>(i)] + first * lanes;
          if (out.exact) {
            finish_f32(seen, bias, step.relu, rows, out.f32.get() + at);
          } else {
            finish_bf16(seen, bias, step.relu, rows, out.bf16.get() + at);
          }
        }
      }
    }
  }
}

void MatrixOps::linear(const Step& step, const Block&, const Activations&, Activations&, std::int64_t samples) {
  multiply(step, samples);
}

void MatrixOps::conv2d(const Step& step, const Block&, const Activations&, Activations&, std::int64_t samples) {
  multiply(step, samples);
}

void MatrixOps::layer_norm(const Step&, const Block&, const Activations&, Activations&, std::int64_t) { assert(false); }
void MatrixOps::relu(const Step&, const Activations&, Activations&, std::int64_t) { assert(false); }

void MatrixOps::dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples) {
  const Buffer& from = buffers_[in.buffer];
  Buffer& to = buffers_[out.buffer];
  const std::int64_t actions = step.out.features;
  for (std::int64_t b = 0; b < samples; ++b) {
    const float* x = from.f32.get() + b / lanes * from.panel + step.in.offset * lanes + b % lanes;
    float* q = to.f32.get() + b / lanes * to.panel + step.out.offset * lanes + b % lanes;
    float mean = 0;
    for (std::int64_t a = 1; a <= actions; ++a) mean += x[a * lanes];
    mean /= static_cast<float>(actions);
    for (std::int64_t a = 0; a < actions; ++a) q[a * lanes] = x[0] + (x[(a + 1) * lanes] - mean);
  }
}

void MatrixOps::read(const Activations& from, std::int64_t samples, std::span<float> to) const {
  const Buffer& buffer = buffers_[from.buffer];
  for (std::int64_t b = 0; b < samples; ++b) {
    const float* q = buffer.f32.get() + b / lanes * buffer.panel + b % lanes;
    for (std::int64_t a = 0; a < buffer.channels; ++a)
      to[static_cast<std::size_t>(b * buffer.channels + a)] = q[a * lanes];
  }
}

void MatrixOps::load(const ObservationRows& rows, Activations& to, std::int64_t /*first: 0*/, std::int64_t samples) {
  Buffer& buffer = buffers_[to.buffer];
  const bool bytes = spec_.input.dtype == DType::u8;
  const auto row_bytes = static_cast<std::int64_t>(spec_.input.bytes());
  const std::int64_t plane = row_bytes * buffer.pixels / static_cast<std::int64_t>(spec_.input.elements());  // bytes
  const std::int64_t planes = buffer.channels / spec_.stack;                                                 // of a row
  const std::int64_t step = buffer.padded_channels() * lanes;
  const auto plane_of = [&](std::int64_t sample, std::int64_t channel) {
    const std::int64_t k = channel / planes;
    const auto row = rows.index != nullptr ? rows.index[sample * spec_.stack + k] : static_cast<std::uint64_t>(sample);
    return rows.data + static_cast<std::int64_t>(row) * row_bytes + channel % planes * plane;
  };
  for (std::int64_t start = 0; start < samples; start += lanes) {
    auto* panel = buffer.bf16.get() + start / lanes * buffer.panel;
    const std::int64_t used = std::min(lanes, samples - start);
    std::int64_t done = 0;
    if (bytes && buffer.channels % 2 == 0) {
      for (std::int64_t channel = 0; channel < buffer.channels; channel += 2) {
        std::array<std::array<const std::uint8_t*, lanes>, 2> from;
        for (std::int64_t i = 0; i < 2 * lanes; ++i) {
          // Lanes beyond the batch read what the last one reads.
          const auto* bytes_of = plane_of(start + std::min(i % lanes, used - 1), channel + i / lanes);
          from[static_cast<std::size_t>(i / lanes)][static_cast<std::size_t>(i % lanes)] =
              reinterpret_cast<const std::uint8_t*>(bytes_of);
        }
        done = load_planes(from[0], from[1], buffer.pixels, step, panel + channel * lanes);
      }
    }
    for (std::int64_t lane = 0; lane < used; ++lane) {
      for (std::int64_t channel = 0; channel < buffer.channels; ++channel) {
        const auto* from = plane_of(start + lane, channel);
        for (std::int64_t pixel = done; pixel < buffer.pixels; ++pixel) {
          float value = 0;
          if (bytes) {
            value = static_cast<float>(std::to_integer<int>(from[pixel]));
          } else {
            std::memcpy(&value, from + pixel * 4, 4);
          }
          panel[pixel * step + place(channel, lane)] = bf16_of(value);
        }
      }
    }
  }
}

MatrixOps::Configured::Configured() { configure_tiles(); }
MatrixOps::Configured::~Configured() { release_tiles(); }

}  // namespace qanat::nn

#else

namespace qanat::nn {

std::string matrix_obstacle(const NetworkSpec&) { return "this processor has no matrix units that are known here"; }

}  // namespace qanat::nn

#endif
