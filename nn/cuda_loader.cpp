#include "nn/cuda_loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "core/error.h"

namespace qanat::nn {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> places() {
  if (const char* named = std::getenv("QANAT_CUDA_LIBRARY")) return {named};
  std::error_code unreadable;
  const fs::path directory = fs::read_symlink("/proc/self/exe", unreadable).parent_path();
  return {(directory / "libqanat_cuda.so").string(), (directory.parent_path() / "lib" / "libqanat_cuda.so").string()};
}

// What to do where there is no such file: QANAT_CUDA_NOT_BUILT says why this build made none, or is empty.
std::string advice_without_file() {
  const std::string reason = QANAT_CUDA_NOT_BUILT;
  return (reason.empty() ? std::string("this build made one") : "this build made none: " + reason) +
         "; QANAT_CUDA_LIBRARY names it elsewhere";
}

// The library in `file`, or what is wrong with it and what to do.
const CudaLibrary* open(const std::string& file, std::string& wrong, std::string& advice) {
  if (!fs::exists(file)) {
    wrong = "no such file";
    return nullptr;
  }
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    wrong = dlerror();
    advice =
        "install what it needs (cuDNN 9, and cuBLASLt of the CUDA it was built with), or name their folder in "
        "LD_LIBRARY_PATH";
    return nullptr;
  }
  advice = "build the library and the program from one tree";
  auto* entry = reinterpret_cast<CudaLibraryFunction*>(dlsym(handle, cuda_library_symbol));
  if (entry == nullptr) {
    wrong = text("it has no ", cuda_library_symbol);
  } else if (const CudaLibrary* library = entry(); std::strcmp(library->abi, QANAT_CUDA_ABI) != 0) {
    wrong = text("it was built from another source tree: its interface is ", library->abi, ", this program's is ",
                 QANAT_CUDA_ABI);
  } else {
    return library;
  }
  dlclose(handle);
  return nullptr;
}

}  // namespace

FoundCuda open_cuda(const std::vector<std::string>& files) {
  FoundCuda found;
  found.advice = advice_without_file();
  for (const std::string& file : files) {
    std::string wrong;
    found.library = open(file, wrong, found.advice);
    if (found.library != nullptr) {
      found.path = file;
      found.report = found.library->report();
      return found;
    }
    found.tried.push_back(file + ": " + wrong);
  }
  return found;
}

const FoundCuda& find_cuda() {
  static const FoundCuda found = open_cuda(places());
  return found;
}

std::string FoundCuda::obstacle() const {
  if (library != nullptr) return report.problem;
  std::string out = "no usable libqanat_cuda.so";
  for (const std::string& one : tried) out += "; " + one;
  return out + "; " + advice;
}

int FoundCuda::first_gpu() const {
  int gpu = 0;
  while (!obstacle_of(gpu).empty()) ++gpu;
  return gpu;
}

std::string FoundCuda::obstacle_of(int gpu) const {
  if (gpu < 0 || static_cast<std::size_t>(gpu) >= report.gpus.size())
    return text("this machine has ", report.gpus.size(), " GPU(s), numbered from 0");
  const auto& info = report.gpus[static_cast<std::size_t>(gpu)];
  return info.problem.empty() ? "" : info.name + ": " + info.problem;
}

}  // namespace qanat::nn
