// What a learner leaves on disk: weights that anyone can load, its own state, and the manifest that makes a
// checkpoint complete.
//
// runs/NAME/checkpoints/step-000012000/   manifest.json (written last), weights.bin, learner.bin, head.bin, shard-I.bin
// runs/NAME/checkpoints/best/             weights.bin, best.json
// Files are written atomically and carry a checksum; a damaged one is an InputError naming it. Files of before there
// was normalisation are read as files without statistics.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/rng.h"
#include "nn/network.h"
#include "nn/normalization.h"

namespace qanat::learner {

struct LearnerState {
  std::vector<float> online;
  std::vector<float> target;
  std::vector<std::byte> optimizer;
  std::uint64_t updates = 0;
  std::uint64_t trained_steps = 0;  // by all learners of the run so far
  std::uint64_t skipped = 0;        // updates that were not finite
  Rng::State sampling{};            // of the replay client
  double best_score = 0;
  bool has_best = false;
  std::vector<std::byte> statistics;  // of nn::Normalization
};

void save_weights(const std::filesystem::path& file, const nn::NetworkSpec& spec, const nn::WeightsView& weights);
// Throws ConfigError naming every tensor that is missing, unexpected or of another shape. Whether the statistics are
// those that a run wants is for nn::Normalization::load to say.
[[nodiscard]] nn::Weights load_weights(const std::filesystem::path& file, const nn::NetworkSpec& spec);

void save_learner(const std::filesystem::path& file, const LearnerState& state);
[[nodiscard]] LearnerState load_learner(const std::filesystem::path& file);

// What the manifest says, for people and for resuming.
struct Manifest {
  std::uint64_t updates = 0;
  std::uint64_t env_steps = 0;
  std::int64_t shards = 0;  // 0: saved without the replay
  std::string commit;
};

[[nodiscard]] std::string checkpoint_name(std::uint64_t updates);
void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);
// Throws InputError when the manifest cannot be read.
[[nodiscard]] Manifest read_manifest(const std::filesystem::path& directory);
// The complete checkpoint with the most updates; nothing when there is none.
[[nodiscard]] std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& checkpoints);
// Removes all complete checkpoints but the newest `keep`, and incomplete ones older than the newest.
void prune_checkpoints(const std::filesystem::path& checkpoints, std::size_t keep);

struct Best {
  std::uint64_t updates = 0;
  double mean = 0;
  double standard_error = 0;
  std::int64_t episodes = 0;
};
void save_best(const std::filesystem::path& checkpoints, const nn::NetworkSpec& spec, const nn::WeightsView& weights,
               const Best& best);
[[nodiscard]] std::optional<Best> read_best(const std::filesystem::path& checkpoints);

}  // namespace qanat::learner
