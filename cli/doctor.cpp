#include "cli/doctor.h"

#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "cli/needs.h"
#include "cli/version.h"
#include "core/error.h"
#include "core/limits.h"
#include "core/memory.h"
#include "nn/backend.h"
#include "nn/cuda_loader.h"
#include "wire/socket.h"

namespace qanat::cli {
namespace {

void line(const char* what, const std::string& value) { std::printf("%-22s %s\n", what, value.c_str()); }

// As the kernel names it; empty where /proc does not tell.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string entry;
  while (std::getline(file, entry)) {
    if (entry.starts_with("model name")) return entry.substr(entry.find(':') + 2);
  }
  return "unknown";
}

void print_cuda(const nn::FoundCuda& cuda) {
  if (cuda.library == nullptr) {
    line("CUDA backend", "none");
    for (const std::string& one : cuda.tried) line("", one);
    line("  what to do", "without a GPU nothing; with one: " + cuda.advice);
    return;
  }
  line("CUDA backend", cuda.path);
  line("  built with", cuda.report.built_with);
  line("  driver", cuda.report.driver == "none" ? "none" : "serves CUDA " + cuda.report.driver);
  line("  cuDNN, cuBLASLt", cuda.report.cudnn + ", " + cuda.report.cublas);
  for (std::size_t gpu = 0; gpu < cuda.report.gpus.size(); ++gpu) {
    const nn::GpuInfo& info = cuda.report.gpus[gpu];
    line(text("  cuda:", gpu).c_str(),
         text(info.name, ", compute capability ", info.capability / 10, '.', info.capability % 10, ", ",
              info.memory_bytes >> 20, " MiB", info.problem.empty() ? "" : "; not usable: ", info.problem));
  }
  if (!cuda.report.problem.empty()) line("  not usable", cuda.report.problem);
}

}  // namespace

int doctor() {
  line("qanat", std::string(version) + " (" + commit + ")");
  line("compiler", text("g++ ", __VERSION__));
  line("processor", text(processor_name(), ", ", std::thread::hardware_concurrency(), " threads"));
  line("instruction set used", nn::instruction_set());
  const nn::NetworkSpec atari =
      nn::build_network({.preset = "nature"}, {.name = "frame", .dtype = DType::u8, .shape = {84, 84}}, 4, 255, 18);
  const auto obstacle = nn::bf16_obstacle(atari);
  line("matrix units", obstacle.empty() ? "Intel AMX: actors compute images in bf16" : obstacle);
  const auto memory = available_memory();
  line("memory available", text(memory.bytes >> 20, " MiB"));
  const auto descriptors = descriptor_limit();
  line("descriptors",
       text(descriptors, " (ulimit -Hn): enough for ", most_actors(descriptors, RunConfig()), " actors in a run"));
  line("ZeroMQ", wire::library_version());
  print_cuda(nn::find_cuda());
  const nn::ChosenDevice chosen = nn::choose_device("auto");
  line("learner.device: auto", chosen.device + " (" + chosen.why + ")");
  return 0;
}

}  // namespace qanat::cli
