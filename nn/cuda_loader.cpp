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

// The library in `file`, or what is wrong with it.
const CudaLibrary* open(const std::string& file, std::string& wrong) {
  if (!fs::exists(file)) {
    wrong = "no such file";
    return nullptr;
  }
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    wrong = dlerror();
    return nullptr;
  }
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
  for (const std::string& file : files) {
    std::string wrong;
    found.library = open(file, wrong);
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
  return out +
         "; build it with nvcc and cuDNN present (cmake -DQANAT_CUDA=on says what is missing), or name it in "
         "QANAT_CUDA_LIBRARY";
}

}  // namespace qanat::nn
