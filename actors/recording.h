// Episodes as a film: an animated PNG of a random policy or of a network that plays greedily.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "actors/evaluation.h"

namespace qanat::actors {

struct RecordingOptions {
  // Which environment, and for a network how it is read; `episodes` is how many are recorded, one after the other.
  EvaluationOptions play;
  std::int64_t max_frames = 3000;  // the film stops there, in the middle of an episode if need be
  double frames_per_second = 15;
  int longest_side = 320;  // small pictures are enlarged up to this many pixels
};

struct Recording {
  std::vector<std::byte> film;  // a PNG file
  std::size_t frames = 0;
  std::string source;           // what the frames are: see envs::picture_source
  std::vector<double> returns;  // of the episodes that were recorded to their ends
  std::vector<std::int64_t> lengths;
};

// A frame for each state an action is taken from, and one for the last state where it can be seen. `weights`: the
// network's; nothing: actions are random, the allowed ones alike. The same options give the same episodes, which are
// not those of evaluations. Throws ConfigError when environment, network or settings do not fit or there is nothing to
// see; InputError and RunError as VectorEnv.
[[nodiscard]] Recording record(const RecordingOptions& options, std::optional<nn::WeightsView> weights);

}  // namespace qanat::actors
