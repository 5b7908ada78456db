// Finds and opens libqanat_cuda.so, so that the program itself needs no CUDA library and runs without a driver.
//
// Thread safe. The library stays open for the process's life.
#pragma once

#include <string>
#include <vector>

#include "nn/cuda_library.h"

namespace qanat::nn {

struct FoundCuda {
  const CudaLibrary* library = nullptr;  // null: there is none to use
  std::string path;                      // of what was opened
  std::vector<std::string> tried;        // "PATH: what was wrong with it"
  std::string advice;                    // what to do when there is none to use
  CudaReport report;                     // when there is a library

  [[nodiscard]] bool usable() const { return library != nullptr && report.problem.empty(); }
  // Why not, and what to do about it; empty when usable.
  [[nodiscard]] std::string obstacle() const;
  // The lowest number of a GPU that can be used. Precondition: usable().
  [[nodiscard]] int first_gpu() const;
  // What stands in the way of this GPU alone; empty when nothing does. Precondition: usable().
  [[nodiscard]] std::string obstacle_of(int gpu) const;
};

// The file that $QANAT_CUDA_LIBRARY names, else libqanat_cuda.so beside the executable, else in ../lib of it. Looked
// for once.
[[nodiscard]] const FoundCuda& find_cuda();

// The same search over the given files, every time anew.
[[nodiscard]] FoundCuda open_cuda(const std::vector<std::string>& files);

}  // namespace qanat::nn
