// How plans choose between calls that do the same: by the time of a captured row of them. Launched one by one, small
// kernels would all take as long as the library's call on the processor.
#pragma once

#include <algorithm>
#include <array>
#include <optional>

#include "core/error.h"
#include "nn/cuda/device.h"

namespace qanat::nn::cuda {

// Milliseconds of eight launches, the median of seven replays. Nothing when `launch` answers false, or cannot be
// captured and so is of no use to an update.
template <class Launch>
std::optional<float> time_launches(cudaStream_t stream, Launch launch) {
  if (!launch()) return std::nullopt;
  Graph row;
  try {
    row = Graph::capture(stream, [&] {
      for (int i = 0; i < 8; ++i) launch();
    });
  } catch (const SystemError&) {
    return std::nullopt;
  }
  const Event start(Event::Kind::timed), end(Event::Kind::timed);
  std::array<float, 7> times;
  row.launch(stream);
  for (float& time : times) {
    start.record(stream);
    row.launch(stream);
    end.record(stream);
    end.synchronize();
    time = end.since(start);
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace qanat::nn::cuda
