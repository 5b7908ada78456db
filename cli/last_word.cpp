#include "cli/last_word.h"

#include <algorithm>

#include "core/error.h"
#include "learner/checkpoint.h"

namespace qanat::cli {

std::optional<std::uint64_t> saved_updates(const std::filesystem::path& run) {
  try {
    const auto newest = learner::newest_checkpoint(run / "checkpoints");
    return newest ? std::optional(learner::read_manifest(*newest).updates) : std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  } catch (const std::filesystem::filesystem_error&) {
    return std::nullopt;
  }
}

std::string last_word(const Leftover& left) {
  const auto lost = left.saved ? left.updates - std::min(left.updates, *left.saved) : left.updates;
  std::string out = left.failure.empty() ? "stopped" : left.failure;
  // A failure of the learner's own says it already.
  if (!left.save_error.empty() && out.find(left.save_error) == std::string::npos)
    out += "; the last checkpoint could not be saved: " + left.save_error;
  if (left.saved && lost == 0) return text(out, "; go on with --resume (", left.run.string(), ")");
  if (left.saved) {
    return text(out, "; ", lost, " updates are lost: --resume goes on from update ", *left.saved, " (",
                left.run.string(), ")");
  }
  if (lost > 0) out += text("; there is no checkpoint, and all ", lost, " updates are lost");
  return text(out, lost > 0 ? ": " : "; there is no checkpoint yet: ", "--resume --from-scratch begins again (",
              left.run.string(), ")");
}

}  // namespace qanat::cli
