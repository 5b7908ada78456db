// What a learner leaves on disk: weights that anyone can load, its own state, and the manifest that makes a
// checkpoint complete.
//
// runs/NAME/checkpoints/step-000012000/   manifest.json (written last), weights.bin, learner.bin, head.bin, shard-I.bin
// runs/NAME/checkpoints/best/             weights.bin, best.json
// Files are written atomically. Weights and the learner's state carry a checksum; a damaged one is an InputError naming
// it. The manifest carries one of its own and those of all the checkpoint's files, so that a whole checkpoint can be
// verified whoever wrote its parts. Files of earlier versions are read too: without statistics, and manifests as
// lists of no file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "core/rng.h"
#include "nn/network.h"
#include "nn/normalization.h"

namespace qanat::learner {

struct LearnerState {
  std::vector<float> online;
  std::vector<float> target;
  std::vector<std::byte> optimizer;
  std::uint64_t updates = 0;
  std::uint64_t trained_steps = 0;    // by all learners of the run so far
  std::uint64_t skipped = 0;          // updates that were not finite
  Rng::State sampling{};              // of the replay client
  std::vector<std::byte> statistics;  // of nn::Normalization
};

WrittenFile save_weights(const std::filesystem::path& file, const nn::NetworkSpec& spec,
                         const nn::WeightsView& weights);
// Throws ConfigError naming every tensor that is missing, unexpected or of another shape. Whether the statistics are
// those that a run wants is for nn::Normalization::load to say.
[[nodiscard]] nn::Weights load_weights(const std::filesystem::path& file, const nn::NetworkSpec& spec);

WrittenFile save_learner(const std::filesystem::path& file, const LearnerState& state);
[[nodiscard]] LearnerState load_learner(const std::filesystem::path& file);

// What the manifest says, for people and for resuming.
struct Manifest {
  std::uint64_t updates = 0;
  std::uint64_t env_steps = 0;
  std::int64_t shards = 0;  // 0: saved without the replay
  std::string commit;
  std::vector<WrittenFile> files;      // all but the manifest
  std::vector<std::string> missing{};  // parts of the replay that it had to do without, and why
};

[[nodiscard]] std::string checkpoint_name(std::uint64_t updates);
// Where a checkpoint at `updates` is to be written: never over the newest complete one, which may be at the same
// update.
[[nodiscard]] std::filesystem::path new_checkpoint(const std::filesystem::path& checkpoints, std::uint64_t updates);
// Writes the manifest into what new_checkpoint named. The checkpoint takes the place of an earlier one at the same
// update. Returns where it lies then.
std::filesystem::path complete_checkpoint(const std::filesystem::path& directory, const Manifest& manifest);
// Throws InputError when the manifest is damaged, SystemError when it cannot be read.
[[nodiscard]] Manifest read_manifest(const std::filesystem::path& directory);
// The complete checkpoint with the most updates; nothing when there is none.
[[nodiscard]] std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& checkpoints);

// Throws InputError or SystemError naming the first file that is not as it was written. A shard's snapshot that was
// taken away is no damage: the shard starts empty and says so.
void verify_checkpoint(const std::filesystem::path& directory);

struct VerifiedCheckpoint {
  struct Damaged {
    std::filesystem::path directory;
    std::string why;  // names the file
  };
  std::filesystem::path directory;
  std::vector<Damaged> newer;  // passed over, newest first
};
// The newest complete checkpoint that is as it was written; nothing when there is no complete one. Throws InputError
// naming each and why when all are damaged, SystemError when one cannot be read, which is no reason to pass over it.
[[nodiscard]] std::optional<VerifiedCheckpoint> newest_verified_checkpoint(const std::filesystem::path& checkpoints);
// Renames a damaged checkpoint so that it is no checkpoint any more: it does not count among those kept, its name is
// free, and it stays until somebody removes it. Returns where it lies then. Throws SystemError.
std::filesystem::path set_aside(const std::filesystem::path& directory);

// Removes all complete checkpoints but the newest `keep`, and incomplete ones older than the newest.
void prune_checkpoints(const std::filesystem::path& checkpoints, std::size_t keep);
// Removes what saves left that did not come to an end. None may be under way.
void remove_incomplete(const std::filesystem::path& checkpoints);
// Removes one, whatever is in it. What cannot be removed stays, but is no checkpoint.
void discard_checkpoint(const std::filesystem::path& directory);
// Removes all files of an incomplete one but `files`: what parts left that it does without. Throws SystemError when it
// cannot be read.
void keep_only(const std::filesystem::path& directory, const std::vector<WrittenFile>& files);

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
