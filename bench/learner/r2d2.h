// The recurrent update as R2D2 does it: 64 sequences of 40 burn-in and 80 learnt steps, Nature torso, linear 512, lstm
// 512, dueling streams of 512, 18 actions.
#pragma once

#include <cstdint>
#include <string>

#include "nn/backend.h"

struct R2d2Settings {
  std::int64_t sequences = 64;
  std::string precision = "auto", kernels = "auto";
  bool capture = true;
  int updates = 100;
};

struct R2d2Times {
  double device_ms = 0;  // median over updates
  double wall_ms = 0;    // mean, batches uploaded from the host meanwhile
  double samples = 0;    // steps of one update, burn-in included
  double flops = 0;      // of one update
  double bytes = 0;      // least traffic with device memory of one update
  double bus_bytes = 0;  // host to device
  double loss = 0;       // of the last update
};

// Throws RunError when an update was not finite.
[[nodiscard]] R2d2Times bench_r2d2(qanat::nn::Backend& backend, const R2d2Settings& settings);
