// Times of a double-DQN update and of a forward pass on one thread, with their share of the core's measured rate of
// multiply-adds. With --python the same in PyTorch eager, in the same run, and the ratios.
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "bench/nn/peak.h"
#include "core/error.h"
#include "nn/backend.h"

namespace {

using qanat::Rng;
namespace nn = qanat::nn;

struct Network {
  std::string name;
  nn::NetworkSpec spec;
};

std::vector<Network> networks() {
  nn::NetworkConfig minatar;
  minatar.preset = "minatar";
  const qanat::TensorSpec planes{.name = "observation", .dtype = qanat::DType::u8, .shape = {4, 10, 10}};
  const qanat::TensorSpec vector{.name = "observation", .dtype = qanat::DType::f32, .shape = {4}};
  nn::NetworkConfig nature;
  nature.preset = "nature";
  const qanat::TensorSpec frames{.name = "observation", .dtype = qanat::DType::u8, .shape = {4, 84, 84}};
  return {{"minatar", nn::build_network(minatar, planes, 1, 1, 6)},
          {"mlp", nn::build_network({}, vector, 1, 1, 2)},
          {"nature", nn::build_network(nature, frames, 1, 255, 18)}};  // forward only
}

// Products of one sample: forward, and backward (weight gradients of all layers, input gradients of all but the first).
struct Work {
  double forward = 0;
  double backward = 0;
};

Work work_of(const nn::NetworkSpec& spec) {
  std::vector<double> layers;
  for (const nn::Layer& layer : spec.layers) {
    const bool conv = layer.kind == nn::LayerKind::conv2d;
    double in = 1, out = 1;
    for (const auto side : layer.in) in *= static_cast<double>(side);
    for (const auto side : layer.out) out *= static_cast<double>(side);
    if (conv) layers.push_back(out * static_cast<double>(layer.in[0] * layer.kernel * layer.kernel));
    if (layer.kind == nn::LayerKind::linear) layers.push_back(in * out);
  }
  layers.push_back(static_cast<double>(spec.trunk_features() * spec.actions));
  Work work;
  for (const double products : layers) {
    work.forward += products;
    work.backward += 2 * products;
  }
  work.backward -= layers.front();
  return work;
}

double processor_microseconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) * 1e-3;
}

// Of processor time, so that what other programs do in between does not count. Short calls are timed several at once.
template <class Call>
double median_microseconds(Call call, double seconds) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 20; ++i) call();
  const double first = processor_microseconds();
  call();
  const int calls = std::max(1, static_cast<int>(200 / std::max(processor_microseconds() - first, 0.1)));
  std::vector<double> times;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (Clock::now() < end || times.size() < 20) {
    const double start = processor_microseconds();
    for (int i = 0; i < calls; ++i) call();
    times.push_back((processor_microseconds() - start) / calls);
  }
  std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
  return times[times.size() / 2];
}

// Rows and columns of a batch with fixed contents; 0/1 planes for u8, as MinAtar's.
struct Data {
  std::vector<std::byte> rows;
  std::vector<std::uint32_t> state, next;
  std::vector<std::int32_t> action;
  std::vector<float> returns, bootstrap, weight;

  Data(const nn::NetworkSpec& spec, std::int64_t batch) {
    Rng rng(1);
    const auto count = static_cast<std::uint64_t>(2 * batch);
    rows.resize(count * spec.input.bytes());
    for (std::size_t i = 0; i < count * spec.input.elements(); ++i) {
      const auto value = static_cast<float>(rng.uniform());
      if (spec.input.dtype == qanat::DType::u8) {
        rows[i] = static_cast<std::byte>(rng.below(2));
      } else {
        std::memcpy(&rows[4 * i], &value, 4);
      }
    }
    for (std::int64_t b = 0; b < batch; ++b) {
      state.push_back(static_cast<std::uint32_t>(rng.below(count)));
      next.push_back(static_cast<std::uint32_t>(rng.below(count)));
      action.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(spec.actions))));
      returns.push_back(static_cast<float>(rng.uniform()));
      bootstrap.push_back(0.99f);
      weight.push_back(static_cast<float>(rng.uniform()));
    }
  }

  nn::QBatch view() const {
    const auto count = static_cast<std::int64_t>(2 * action.size());
    return {.size = static_cast<std::int64_t>(action.size()),
            .state = {rows.data(), count, state.data()},
            .next_state = {rows.data(), count, next.data()},
            .action = action.data(),
            .returns = returns.data(),
            .bootstrap = bootstrap.data(),
            .weight = weight.data()};
  }
};

struct Case {
  std::string name;
  double value = 0;
  std::string unit;
  double products = 0;  // multiply-adds in the time of `value`
};

Case bench_update(nn::Backend& backend, const Network& network, std::int64_t batch, double seconds) {
  nn::TrainerOptions options;
  options.batch = batch;
  options.max_grad_norm = 10;
  const auto trainer = backend.trainer(network.spec, options);
  std::vector<float> parameters(nn::parameter_count(network.spec));
  Rng rng(2);
  nn::initialise(network.spec, rng, parameters);
  trainer->set_parameters(parameters, parameters);
  const Data data(network.spec, batch);
  std::vector<float> td_abs(static_cast<std::size_t>(batch));
  const double value = median_microseconds(
      [&] {
        trainer->submit(data.view(), {});
        trainer->collect(td_abs);
      },
      seconds);
  const Work work = work_of(network.spec);
  return {"update/" + network.name + "/batch_" + std::to_string(batch), value, "us",
          static_cast<double>(batch) * (3 * work.forward + work.backward)};
}

Case bench_forward(nn::Backend& backend, const Network& network, const std::string& precision, std::int64_t batch,
                   double seconds) {
  const auto inference = backend.inference(network.spec, batch, precision);
  std::vector<float> parameters(nn::parameter_count(network.spec));
  Rng rng(2);
  nn::initialise(network.spec, rng, parameters);
  inference->set_parameters(parameters);
  const Data data(network.spec, batch);
  std::vector<float> q(static_cast<std::size_t>(batch * network.spec.actions));
  const double value = median_microseconds([&] { inference->forward(data.view().state, batch, q); }, seconds) /
                       static_cast<double>(batch);
  const std::string name = network.name + (precision == "bf16" ? "_bf16" : "");
  // The rate that shares are of is that of f32 vectors.
  return {"forward/" + name + "/batch_" + std::to_string(batch), value, "us/observation",
          precision == "bf16" ? 0 : work_of(network.spec).forward};
}

// The peer's values by name. Its lines are its own, one flat JSON object each: {"name": "...", "value": 1.5, ...}.
std::map<std::string, double> run_peer(const std::string& python) {
  const std::string command = "'" + python + "' '" QANAT_NN_TORCH_PEER "'";
  const auto close = [](FILE* stream) { pclose(stream); };
  const std::unique_ptr<FILE, decltype(close)> stream(popen(command.c_str(), "r"), close);
  if (!stream) throw qanat::SystemError("cannot start " + command);
  std::map<std::string, double> values;
  char line[512];
  while (std::fgets(line, sizeof line, stream.get()) != nullptr) {
    char name[128];
    double value = 0;
    if (std::sscanf(line, "{\"name\": \"%127[^\"]\", \"value\": %lf", name, &value) == 2) values[name] = value;
  }
  if (values.empty()) throw qanat::SystemError("no result from " + command);
  return values;
}

void print(const Case& c, double share, const std::map<std::string, double>& peers, bool json) {
  const auto peer = peers.find(c.name);
  std::ostringstream out;
  out.precision(4);
  if (json) {
    out << R"({"name": ")" << c.name << R"(", "value": )" << c.value << R"(, "unit": ")" << c.unit << '"';
    if (share > 0) out << R"(, "share_of_peak": )" << share;
    if (peer != peers.end()) {
      out << R"(, "torch_eager": )" << peer->second << R"(, "times_as_fast": )" << peer->second / c.value;
    }
    out << '}';
  } else {
    out << c.name << ": " << c.value << ' ' << c.unit;
    if (share > 0) out << ", " << 100 * share << "% of the core's multiply-add rate";
    if (peer != peers.end()) out << "; torch eager " << peer->second << ", " << peer->second / c.value << " x";
  }
  std::cout << out.str() << std::endl;
}

int run(int argc, char** argv) {
  CLI::App app("Double-DQN update and forward pass on one thread");
  bool json = false;
  std::string python, device = "cpu";
  double seconds = 1;
  app.add_flag("--json", json, "One JSON object a case");
  app.add_option("--python", python, "A Python that has torch: its eager times and the ratios are printed too");
  app.add_option("--device", device, "Backend")->capture_default_str();
  app.add_option("--seconds", seconds, "Time a case")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const qanat::bench::Peak peak = qanat::bench::measure_peak();
  print({"peak/" + peak.instruction_set, peak.flops_per_second * 1e-9, "GFLOP/s"}, 0, {}, json);
  const auto backend = nn::make_backend(device);
  std::vector<Case> cases;
  for (const Network& network : networks()) {
    if (network.name != "nature") {
      for (const std::int64_t batch : {32, 512}) cases.push_back(bench_update(*backend, network, batch, seconds));
    }
    for (const std::string precision : {"auto", "bf16"}) {
      if (precision == "bf16" && (device != "cpu" || !nn::bf16_obstacle(network.spec).empty())) continue;
      for (const std::int64_t batch : {1, 4, 16, 256})
        cases.push_back(bench_forward(*backend, network, precision, batch, seconds));
    }
  }
  const auto peers = python.empty() ? std::map<std::string, double>{} : run_peer(python);
  for (const Case& c : cases) print(c, 2 * c.products / (c.value * 1e-6) / peak.flops_per_second, peers, json);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "bench_nn: " << error.what() << '\n';
    return 1;
  }
}
