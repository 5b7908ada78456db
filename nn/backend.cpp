#include "nn/backend.h"

#include <charconv>

#include "core/error.h"
#include "nn/cpu/backends.h"
#include "nn/cpu/matrix_units.h"
#include "nn/cuda_loader.h"
#include "nn/sequence.h"

namespace qanat::nn {
namespace {

// N of "cuda:N"; "cuda" is 0; -1 for anything else.
int gpu_of(std::string_view device) {
  if (device == "cuda") return 0;
  if (!device.starts_with("cuda:")) return -1;
  const std::string_view digits = device.substr(5);
  int gpu = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), gpu);
  return error == std::errc{} && end == digits.data() + digits.size() ? gpu : -1;
}

}  // namespace

std::unique_ptr<SequenceTrainer> Backend::sequence_trainer(const NetworkSpec&, const SequenceOptions&) {
  throw ConfigError(text("device '", name(), "' does not train recurrent networks"));
}

std::unique_ptr<Backend> make_backend(std::string_view device) {
  if (device == "cpu") return make_fast_backend();
  if (device == "reference") return make_reference_backend();
  if (device == "reference64") return make_reference64_backend();
  const int gpu = gpu_of(device);
  if (gpu < 0) {
    throw ConfigError(text("device '", device, "' is none of cpu, cuda, cuda:N, reference, reference64"));
  }
  if (const auto obstacle = device_obstacle(device); !obstacle.empty())
    throw ConfigError(text("device ", device, " cannot be used: ", obstacle));
  return find_cuda().library->make_backend(gpu);
}

std::string device_obstacle(std::string_view device) {
  const int gpu = gpu_of(device);
  if (gpu < 0) return "";
  const FoundCuda& cuda = find_cuda();
  return cuda.usable() ? cuda.obstacle_of(gpu) : cuda.obstacle();
}

bool is_device(std::string_view word) {
  return word == "auto" || word == "cpu" || word == "reference" || word == "reference64" || gpu_of(word) >= 0;
}

std::string instruction_set() { return fast_instruction_set(); }

std::string bf16_obstacle(const NetworkSpec& spec) { return matrix_obstacle(spec); }

ChosenDevice choose_device(std::string_view wanted) {
  if (wanted != "auto") return {std::string(wanted), "as set"};
  const FoundCuda& cuda = find_cuda();
  if (!cuda.usable()) return {"cpu", cuda.obstacle()};
  const int gpu = cuda.first_gpu();
  return {text("cuda:", gpu), cuda.report.gpus[static_cast<std::size_t>(gpu)].name};
}

}  // namespace qanat::nn
