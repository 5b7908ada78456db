// The lstm's cluster kernels alone, forward for two networks and back, against plain loops: few steps of one and of
// several streams, for compute-sanitizer, to which the libraries' kernels of a whole update would be a burden. Exits 1
// where a result is wrong, 0 with a word where the device has no such kernels.
#include <cmath>
#include <cstdio>
#include <vector>

#include "core/rng.h"
#include "nn/cuda/device.h"
#include "nn/cuda/sm90a/lstm_cluster.h"
#include "nn/lstm.h"

namespace {

using namespace qanat::nn::cuda;
using qanat::nn::LstmGates;
using bf16 = __nv_bfloat16;

constexpr int features = cluster_lstm_features;
constexpr int gates = 4 * features;

std::vector<bf16> random_bf16(qanat::Rng& rng, std::size_t count, double size) {
  std::vector<bf16> values(count);
  for (bf16& value : values) value = __float2bfloat16(static_cast<float>(size * rng.normal()));
  return values;
}

std::vector<float> random_f32(qanat::Rng& rng, std::size_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(rng.normal());
  return values;
}

template <class T>
DeviceBuffer<T> on_device(const std::vector<T>& values) {
  DeviceBuffer<T> buffer(values.size());
  QANAT_CUDA(cudaMemcpy(buffer.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return buffer;
}

template <class T>
std::vector<T> on_host(const DeviceBuffer<T>& buffer) {
  std::vector<T> values(buffer.size());
  QANAT_CUDA(cudaMemcpy(values.data(), buffer.data(), values.size() * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}

double real(float value) { return value; }
double real(bf16 value) { return static_cast<double>(__bfloat162float(value)); }

// |seen - wanted| / |wanted|; NaN fails every comparison.
template <class T>
double error(const std::vector<T>& seen, const std::vector<double>& wanted) {
  double difference = 0, size = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    difference += std::pow(real(seen[i]) - wanted[i], 2);
    size += std::pow(wanted[i], 2);
  }
  return std::sqrt(difference / size);
}

struct Inputs {
  std::vector<bf16> weight, sums, hidden_before, hidden_delta;
  std::vector<float> cell_before;
};

struct Wanted {
  std::vector<double> hidden, cell, sums_delta;
  std::vector<LstmGates<double>> gates;
};

Wanted forward(const Inputs& in, int steps, int batch) {
  Wanted out;
  const std::size_t row = static_cast<std::size_t>(batch) * features;
  for (std::size_t i = 0; i < static_cast<std::size_t>(steps) * row; ++i) {
    const std::size_t sample = i / features, j = i % features;
    double sums[4];
    for (std::size_t q = 0; q < 4; ++q) {
      sums[q] = real(in.sums[sample * gates + j * 4 + q]);
      for (std::size_t k = 0; k < features; ++k) {
        const double h = sample < static_cast<std::size_t>(batch) ? real(in.hidden_before[sample * features + k])
                                                                  : out.hidden[(sample - batch) * features + k];
        sums[q] += h * real(in.weight[(j * 4 + q) * features + k]);
      }
    }
    out.gates.push_back(qanat::nn::lstm_gates<double>({sums[0], sums[1], sums[2], sums[3]}));
    out.cell.push_back(qanat::nn::lstm_cell(out.gates.back(), i < row ? real(in.cell_before[i]) : out.cell[i - row]));
    out.hidden.push_back(out.gates.back().output * std::tanh(out.cell.back()));
  }
  return out;
}

void backward(const Inputs& in, int steps, int batch, Wanted& out) {
  const std::size_t row = static_cast<std::size_t>(batch) * features;
  std::vector<double> hidden_delta(row), cell_delta(row);
  out.sums_delta.resize(static_cast<std::size_t>(steps) * row * 4);
  for (std::size_t t = static_cast<std::size_t>(steps); t-- > 0;) {
    std::vector<double> before(row);
    for (std::size_t i = 0; i < row; ++i) {
      const std::size_t at = t * row + i;
      const auto g = qanat::nn::lstm_cell_gradient<double>(out.gates[at], out.cell[at],
                                                           t == 0 ? real(in.cell_before[i]) : out.cell[at - row],
                                                           real(in.hidden_delta[at]) + hidden_delta[i], cell_delta[i]);
      const double four[4] = {g.input, g.forget, g.cell, g.output};
      for (std::size_t q = 0; q < 4; ++q) {
        out.sums_delta[at * 4 + q] = four[q];
        for (std::size_t k = 0; k < features; ++k) {
          before[i / features * features + k] += four[q] * real(in.weight[(i % features * 4 + q) * features + k]);
        }
      }
    }
    hidden_delta = before;
  }
}

// Whether one shape's results are right. bf16 rounds by up to 2^-9, over a few steps.
bool check(int steps, int batch, int capacity) {
  qanat::Rng rng(static_cast<std::uint64_t>(100 * steps + batch));
  const auto samples = static_cast<std::size_t>(steps * batch), sequences = static_cast<std::size_t>(batch);
  Inputs in[2];
  DeviceBuffer<bf16> weight[2], sums[2], before[2], hidden[2];
  DeviceBuffer<float> cell_before[2];
  DeviceBuffer<bf16> kept_gates(samples * gates), sums_delta(samples * gates);
  DeviceBuffer<float> cell(samples * features);
  ClusterLstmForward both[2];
  const Stream stream;
  for (int net = 0; net < 2; ++net) {
    in[net] = {.weight = random_bf16(rng, std::size_t{gates} * features, 0.04),
               .sums = random_bf16(rng, samples * gates, 0.7),
               .hidden_before = random_bf16(rng, sequences * features, 0.3),
               .hidden_delta = random_bf16(rng, samples * features, 0.1),
               .cell_before = random_f32(rng, sequences * features)};
    weight[net] = on_device(in[net].weight);
    sums[net] = on_device(in[net].sums);
    before[net] = on_device(in[net].hidden_before);
    cell_before[net] = on_device(in[net].cell_before);
    hidden[net] = DeviceBuffer<bf16>(samples * features);
    both[net] = {.weight = weight[net].data(),
                 .sums = sums[net].data(),
                 .hidden_before = before[net].data(),
                 .cell_before = cell_before[net].data(),
                 .hidden = hidden[net].data()};
  }
  both[0].gates = kept_gates.data();
  both[0].cell = cell.data();
  cluster_lstm_forward(stream, both, 2, steps, batch, capacity);
  DeviceBuffer<uint4> packed(std::size_t{gates} * features / 8);
  const DeviceBuffer<bf16> hidden_delta = on_device(in[0].hidden_delta);
  cluster_lstm_pack(stream, weight[0].data(), packed.data());
  cluster_lstm_backward(stream,
                        {.weight = packed.data(),
                         .gates = kept_gates.data(),
                         .cell = cell.data(),
                         .cell_before = cell_before[0].data(),
                         .hidden_delta = hidden_delta.data(),
                         .sums_delta = sums_delta.data()},
                        steps, batch, capacity);
  stream.synchronize();
  Wanted wanted = forward(in[0], steps, batch);
  backward(in[0], steps, batch, wanted);
  const double errors[] = {error(on_host(hidden[0]), wanted.hidden),
                           error(on_host(hidden[1]), forward(in[1], steps, batch).hidden),
                           error(on_host(cell), wanted.cell), error(on_host(sums_delta), wanted.sums_delta)};
  bool right = true;
  for (const double e : errors) right = right && e < 1e-2;
  std::printf("%d steps of %d sequences: h %.1e, the other network's %.1e, c %.1e, d sums %.1e: %s\n", steps, batch,
              errors[0], errors[1], errors[2], errors[3], right ? "right" : "WRONG");
  return right;
}

}  // namespace

int main() {
  try {
    const int capacity = cluster_lstm_capacity();
    if (capacity == 0) {
      std::puts("this device runs no clusters of 16: nothing to check");
      return 0;
    }
    bool right = true;
    for (const auto& [steps, batch] : {std::pair{3, 8}, {2, 24}, {4, 40}})
      right = check(steps, batch, capacity) && right;
    return right ? 0 : 1;
  } catch (const std::exception& failure) {
    std::printf("lstm_kernels: %s\n", failure.what());
    return 1;
  }
}
