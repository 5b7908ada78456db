// The learner's update on a GPU: median time on the device with fresh rows every update and priorities out, what of it
// the card's floors explain, and the wall time with the batches' way over the bus. With --python the peers (PyTorch,
// JAX) in the same call, and the ratios.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "bench/learner/r2d2.h"
#include "core/error.h"
#include "nn/backend.h"
#include "nn/cuda_loader.h"

namespace {

using qanat::Rng;
using qanat::text;
namespace nn = qanat::nn;

struct Settings {
  bool json = false;
  std::string device = "cuda:0", precision = "auto", kernels = "auto";
  std::vector<std::int64_t> batches = {32, 512, 4096};
  std::string shapes = "nature,r2d2";
  std::int64_t sequences = 64;
  int updates = 400;
  bool capture = true;
  std::string python;
  std::string peers = "torch,jax";
  bool must = false;
  // What an H100 reaches: a large bf16 product, and a device-to-device copy counting bytes read and written.
  double flops_per_second = 790e12;
  double bytes_per_second = 3.0e12;
};

// The Nature network (Mnih et al., 2015) with dueling streams of 512, 18 actions.
nn::NetworkSpec nature() {
  nn::NetworkConfig config;
  config.preset = "nature";
  config.dueling = true;
  config.dueling_hidden = 512;
  const qanat::TensorSpec frame{.name = "observation", .dtype = qanat::DType::u8, .shape = {84, 84}};
  return nn::build_network(config, frame, 4, 255, 18);
}

// CartPole's: four numbers, two actions.
nn::NetworkSpec mlp() {
  nn::NetworkConfig config;
  config.hidden = {256, 256};
  const qanat::TensorSpec numbers{.name = "observation", .dtype = qanat::DType::f32, .shape = {4}};
  return nn::build_network(config, numbers, 1, 1, 2);
}

// MinAtar breakout's.
nn::NetworkSpec minatar() {
  nn::NetworkConfig config;
  config.preset = "minatar";
  const qanat::TensorSpec planes{.name = "observation", .dtype = qanat::DType::u8, .shape = {4, 10, 10}};
  return nn::build_network(config, planes, 1, 1, 3);
}

// Work of one sample's pass, counted from the description.
struct Work {
  double forward_flops = 0;
  double first_layer_flops = 0;  // has no input gradient
  double activations = 0;        // elements, the observation among them
};

Work work_of(const nn::NetworkSpec& spec) {
  const auto size = [](const std::vector<std::int64_t>& shape) {
    double out = 1;
    for (const auto side : shape) out *= static_cast<double>(side);
    return out;
  };
  Work work;
  work.activations = static_cast<double>(spec.stacked_features());
  const auto add = [&](double products) {
    if (work.forward_flops == 0) work.first_layer_flops = 2 * products;
    work.forward_flops += 2 * products;
  };
  for (const nn::Layer& layer : spec.layers) {
    if (layer.kind == nn::LayerKind::conv2d) {
      add(size(layer.out) * static_cast<double>(layer.in[0] * layer.kernel * layer.kernel));
    }
    if (layer.kind == nn::LayerKind::linear) add(size(layer.in) * size(layer.out));
    if (layer.kind != nn::LayerKind::relu) work.activations += size(layer.out);
  }
  const auto trunk = static_cast<double>(spec.trunk_features());
  const auto hidden = static_cast<double>(spec.dueling_hidden), actions = static_cast<double>(spec.actions);
  if (hidden > 0) {
    add(2 * trunk * hidden);
    add(hidden * (1 + actions));
    work.activations += 2 * hidden;
  } else {
    add(trunk * (spec.dueling ? 1 + actions : actions));
  }
  return work;
}

// A ring of batches. Rows are put where the trainer would like to find them, as a learner does with what its shards
// send, and are uploaded in each update; where that memory holds rows already they are left, since the copy into it is
// not what is timed.
class Batches {
 public:
  Batches(const nn::NetworkSpec& spec, std::int64_t size, std::size_t count) : spec_(spec), size_(size) {
    Rng rng(1);
    const std::int64_t rows = rows_a_sample() * size;
    for (std::size_t i = 0; i < count; ++i) {
      Batch batch;
      batch.rows.resize(static_cast<std::size_t>(rows) * spec.input.bytes());
      fill(batch.rows, rng);
      for (std::int64_t b = 0; b < size; ++b) {
        for (std::int64_t k = 0; k < spec_.stack; ++k) {
          batch.state.push_back(static_cast<std::uint32_t>(rows_a_sample() * b + k));
          batch.next.push_back(static_cast<std::uint32_t>(rows_a_sample() * b + n_step + k));
        }
        batch.action.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(spec.actions))));
        batch.returns.push_back(static_cast<float>(rng.normal()));
        batch.bootstrap.push_back(0.97f);
        batch.weight.push_back(static_cast<float>(rng.uniform()));
      }
      batches_.push_back(std::move(batch));
    }
  }

  nn::QBatch next(nn::QTrainer& trainer) {
    const Batch& b = batches_[turn_++ % batches_.size()];
    const std::int64_t rows = rows_a_sample() * size_;
    const std::byte* data = b.rows.data();
    if (const auto wished = trainer.row_memory(b.rows.size()); !wished.empty()) {
      if (filled_.insert(wished.data()).second) std::copy(b.rows.begin(), b.rows.end(), wished.begin());
      data = wished.data();
    }
    return {.size = size_,
            .state = {data, rows, b.state.data()},
            .next_state = {data, rows, b.next.data()},
            .action = b.action.data(),
            .returns = b.returns.data(),
            .bootstrap = b.bootstrap.data(),
            .weight = b.weight.data()};
  }
  double bytes() const { return static_cast<double>(batches_.front().rows.size()); }

 private:
  struct Batch {
    std::vector<std::byte> rows;
    std::vector<std::uint32_t> state, next;
    std::vector<std::int32_t> action;
    std::vector<float> returns, bootstrap, weight;
  };
  static constexpr std::int64_t n_step = 3;

  // A sample names stack + n rows: those of its state and of its next state overlap.
  std::int64_t rows_a_sample() const { return spec_.stack + n_step; }

  void fill(std::vector<std::byte>& rows, Rng& rng) const {
    if (spec_.input.dtype == qanat::DType::f32) {
      for (std::size_t at = 0; at + 4 <= rows.size(); at += 4) {
        const auto value = static_cast<float>(rng.normal());
        std::memcpy(&rows[at], &value, 4);
      }
      return;
    }
    for (std::size_t at = 0; at + 8 <= rows.size(); at += 8) {
      const std::uint64_t bits = rng.next();
      std::memcpy(&rows[at], &bits, 8);
    }
  }

  const nn::NetworkSpec& spec_;
  std::int64_t size_;
  std::size_t turn_ = 0;
  std::vector<Batch> batches_;
  std::set<const std::byte*> filled_;  // the trainer's memory that holds rows
};

struct Case {
  std::string name;
  double device_ms = 0;  // median over updates
  double wall_ms = 0;    // mean, batches uploaded from the host meanwhile
  double samples = 0;    // of one update
  double flops = 0;      // of one update
  double bytes = 0;      // least traffic with device memory of one update
  double bus_bytes = 0;  // host to device
  double loss = 0;       // of the last update: a number that is not finite would make the time worthless
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

Case bench_update(nn::Backend& backend, const std::string& shape, const nn::NetworkSpec& spec, std::int64_t size,
                  const Settings& settings) {
  using Clock = std::chrono::steady_clock;
  nn::TrainerOptions options{.batch = size,
                             .epsilon = 1e-3,
                             .max_grad_norm = 40,
                             .precision = settings.precision,
                             .kernels = settings.kernels,
                             .capture = settings.capture};
  const auto trainer = backend.trainer(spec, options);
  std::vector<float> parameters(nn::parameter_count(spec));
  Rng rng(2);
  nn::initialise(spec, rng, parameters);
  trainer->set_parameters(parameters, parameters);
  Batches batches(spec, size, size > 1000 ? 3 : 6);
  std::vector<float> td_abs(static_cast<std::size_t>(size));
  std::vector<double> times;
  nn::UpdateResult result;
  std::size_t in_flight = 0;
  const auto take = [&] {
    result = trainer->collect(td_abs);
    if (!result.finite) throw qanat::RunError("an update was not finite");
    times.push_back(1e3 * result.device_seconds);
    --in_flight;
  };
  const auto run = [&](int updates) {
    for (int i = 0; i < updates; ++i) {
      trainer->submit(batches.next(*trainer), {.learning_rate = 1e-4});
      if (++in_flight == trainer->depth()) take();
    }
    while (in_flight > 0) take();
  };
  run(std::min(20, settings.updates));
  times.clear();
  const int updates = size > 1000 ? std::max(1, settings.updates / 4) : settings.updates;
  const auto start = Clock::now();
  run(updates);
  const double wall = std::chrono::duration<double, std::milli>(Clock::now() - start).count() / updates;

  const Work work = work_of(spec);
  const auto samples = static_cast<double>(size);
  // Three passes forward and one back; back, each activation and its gradient move once. Adam reads and writes
  // parameter and both moments, writes what products read, and reads a gradient that was written in bf16.
  return {.name = text("update/", shape, "/batch_", size),
          .device_ms = median(times),
          .wall_ms = wall,
          .samples = samples,
          .flops = samples * (5 * work.forward_flops - work.first_layer_flops),
          .bytes = samples * 5 * work.activations * 2 + 30 * static_cast<double>(parameters.size()),
          .bus_bytes = batches.bytes(),
          .loss = result.loss};
}

// R2D2's update of 64 sequences.
Case bench_recurrent(nn::Backend& backend, const Settings& settings) {
  const R2d2Settings how{.sequences = settings.sequences,
                         .precision = settings.precision,
                         .kernels = settings.kernels,
                         .capture = settings.capture,
                         .updates = std::max(1, settings.updates / 4)};
  const R2d2Times times = bench_r2d2(backend, how);
  return {.name = text("update/r2d2/sequences_", how.sequences),
          .device_ms = times.device_ms,
          .wall_ms = times.wall_ms,
          .samples = times.samples,
          .flops = times.flops,
          .bytes = times.bytes,
          .bus_bytes = times.bus_bytes,
          .loss = times.loss};
}

struct PeerTime {
  std::string peer, name;
  double ms = 0;
};

// The peers' lines are flat JSON objects: {"peer": "...", "name": "...", "ms": 1.5}.
std::vector<PeerTime> run_peer(const std::string& python, const std::string& script) {
  const std::string command = "'" + python + "' '" + script + "'";
  const auto close = [](FILE* stream) { pclose(stream); };
  const std::unique_ptr<FILE, decltype(close)> stream(popen(command.c_str(), "r"), close);
  if (!stream) throw qanat::SystemError("cannot start " + command);
  std::vector<PeerTime> times;
  char line[512];
  while (std::fgets(line, sizeof line, stream.get()) != nullptr) {
    char peer[128], name[128];
    double ms = 0;
    if (std::sscanf(line, "{\"peer\": \"%127[^\"]\", \"name\": \"%127[^\"]\", \"ms\": %lf", peer, name, &ms) == 3) {
      times.push_back({peer, name, ms});
    }
  }
  if (times.empty()) std::cerr << "no result from " << command << '\n';
  return times;
}

void print(const Case& c, const Settings& settings) {
  const double seconds = 1e-3 * c.device_ms;
  const double floor_ms = 1e3 * std::max(c.flops / settings.flops_per_second, c.bytes / settings.bytes_per_second);
  std::ostringstream out;
  out.precision(4);
  if (settings.json) {
    out << R"({"name": ")" << c.name << R"(", "device_ms": )" << c.device_ms << R"(, "wall_ms": )" << c.wall_ms
        << R"(, "tflops": )" << c.flops / seconds * 1e-12 << R"(, "tb_per_second": )" << c.bytes / seconds * 1e-12
        << R"(, "floor_ms": )" << floor_ms << R"(, "samples_per_second": )" << c.samples / c.wall_ms * 1e3
        << R"(, "bus_gb_per_second": )" << c.bus_bytes / c.wall_ms * 1e-6 << R"(, "loss": )" << c.loss << '}';
  } else {
    out << c.name << ": " << c.device_ms << " ms on the device, " << c.flops / seconds * 1e-12 << " TFLOP/s, "
        << c.bytes / seconds * 1e-12 << " TB/s, floor " << floor_ms << " ms; from the host " << c.wall_ms << " ms, "
        << c.samples / c.wall_ms * 1e3 << " samples/s, " << c.bus_bytes / c.wall_ms * 1e-6 << " GB/s over the bus";
  }
  std::cout << out.str() << std::endl;
}

void print_ratios(const std::vector<Case>& cases, const std::vector<PeerTime>& peers, bool json) {
  for (const PeerTime& peer : peers) {
    const auto own = std::find_if(cases.begin(), cases.end(), [&](const Case& c) { return c.name == peer.name; });
    if (own == cases.end()) continue;
    std::ostringstream out;
    out.precision(4);
    if (json) {
      out << R"({"name": ")" << peer.name << R"(", "peer": ")" << peer.peer << R"(", "ms": )" << peer.ms
          << R"(, "times_as_fast": )" << peer.ms / own->device_ms << '}';
    } else {
      out << peer.name << ": " << peer.peer << ' ' << peer.ms << " ms, ours is " << peer.ms / own->device_ms
          << " times as fast";
    }
    std::cout << out.str() << std::endl;
  }
}

// How many times as fast as the best peer an update should be at least; 0: nothing is asked.
double wanted_ratio(const std::string& name) {
  static const std::map<std::string, double> wanted = {{"update/nature/batch_32", 3},
                                                       {"update/nature/batch_512", 3},
                                                       {"update/nature/batch_4096", 2},
                                                       {"update/r2d2/sequences_64", 3}};
  const auto found = wanted.find(name);
  return found == wanted.end() ? 0 : found->second;
}

// Whether each case that something is asked of has a peer and is fast enough beside the best one. Says what is not.
bool fast_enough(const std::vector<Case>& cases, const std::vector<PeerTime>& peers) {
  bool all = true;
  for (const Case& c : cases) {
    const double wanted = wanted_ratio(c.name);
    if (wanted == 0) continue;
    double best = std::numeric_limits<double>::infinity();
    for (const PeerTime& peer : peers) {
      if (peer.name == c.name) best = std::min(best, peer.ms);
    }
    if (std::isfinite(best) && best >= wanted * c.device_ms) continue;
    all = false;
    std::cerr << c.name << ": "
              << (std::isfinite(best) ? text(best / c.device_ms, " times as fast as the best peer") : "no peer's time")
              << ", wanted " << wanted << " times\n";
  }
  return all;
}

int run(int argc, char** argv) {
  CLI::App app("The double-DQN update, of the Nature network and small ones, and the recurrent one of R2D2 on a GPU");
  Settings settings;
  app.add_flag("--json", settings.json, "One JSON object a line");
  app.add_option("--device", settings.device, "Backend")->capture_default_str();
  app.add_option("--precision", settings.precision, "auto, bf16, tf32 or fp32")->capture_default_str();
  app.add_option("--kernels", settings.kernels, "auto, general or fused")->capture_default_str();
  app.add_option("--batches", settings.batches, "Batch sizes")->delimiter(',')->capture_default_str();
  app.add_option("--shapes", settings.shapes, "Of nature, r2d2, mlp (4 inputs, 2 actions), minatar, by comma")
      ->capture_default_str();
  app.add_option("--sequences", settings.sequences, "Sequences of the r2d2 shape")->capture_default_str();
  app.add_option("--updates", settings.updates, "Updates timed for each")->capture_default_str();
  app.add_option("--capture", settings.capture, "0: launch each kernel instead of replaying a graph, for profilers")
      ->capture_default_str();
  app.add_option("--python", settings.python, "A Python that has PyTorch or JAX: the peers run in the same call");
  app.add_option("--peers", settings.peers, "Which peers: torch, jax or both")->capture_default_str();
  app.add_flag("--must", settings.must,
               "Exit code 1 when an update is not as many times as fast as the best peer as it must be");
  app.add_option("--flops", settings.flops_per_second, "Matrix rate for the floor, FLOP/s")->capture_default_str();
  app.add_option("--bytes", settings.bytes_per_second, "Memory rate for the floor, bytes/s")->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto backend = nn::make_backend(settings.device);
  if (settings.device.starts_with("cuda")) {
    const nn::CudaReport& report = nn::find_cuda().report;
    std::cerr << report.gpus.front().name << ", driver for CUDA " << report.driver << ", cuDNN " << report.cudnn
              << ", cuBLASLt " << report.cublas << '\n';
  }
  const auto asked = [&](const char* shape) { return settings.shapes.find(shape) != std::string::npos; };
  const bool recurrent = asked("r2d2");
  std::vector<Case> cases;
  const auto add = [&](const Case& made) {
    cases.push_back(made);
    print(made, settings);
  };
  for (const auto& [shape, make] : {std::pair{"nature", &nature}, {"mlp", &mlp}, {"minatar", &minatar}}) {
    if (!asked(shape)) continue;
    const nn::NetworkSpec spec = make();
    for (const std::int64_t batch : settings.batches) add(bench_update(*backend, shape, spec, batch, settings));
  }
  if (recurrent) add(bench_recurrent(*backend, settings));
  if (settings.python.empty()) return 0;
  const char* elsewhere = std::getenv("QANAT_LEARNER_BENCH_DIR");  // where the sources are not
  const std::string scripts = elsewhere != nullptr ? elsewhere : QANAT_LEARNER_BENCH_DIR;
  std::vector<PeerTime> peers;
  const auto run_script = [&](const char* peer, const char* script) {
    if (settings.peers.find(peer) == std::string::npos) return;
    const auto times = run_peer(settings.python, scripts + "/" + script);
    print_ratios(cases, times, settings.json);
    peers.insert(peers.end(), times.begin(), times.end());
  };
  if (asked("nature")) {
    run_script("torch", "torch_peer.py");
    run_script("jax", "jax_peer.py");
  }
  if (recurrent) run_script("torch", "r2d2_peer.py");
  return settings.must && !fast_enough(cases, peers) ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "bench_learner: " << error.what() << '\n';
    return 1;
  }
}
