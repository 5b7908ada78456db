// How fast this core multiplies and adds: the floor that kernels are measured against.
#pragma once

#include <string>

namespace qanat::bench {

struct Peak {
  double flops_per_second = 0;  // f32, a fused multiply-add counts two
  std::string instruction_set;
};

// Registers only, no memory: the best of several runs of a few milliseconds, in the best instruction set there is.
[[nodiscard]] Peak measure_peak();

}  // namespace qanat::bench
