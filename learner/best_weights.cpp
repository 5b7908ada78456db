#include "learner/best_weights.h"

#include "core/error.h"

namespace qanat::learner {
namespace {

constexpr Seconds retry_after{5};

}  // namespace

BestWeights::BestWeights(const Clock& clock, Logger& log, std::filesystem::path checkpoints, nn::NetworkSpec network)
    : clock_(clock), log_(log), checkpoints_(std::move(checkpoints)), network_(std::move(network)) {
  try {
    const auto found = read_best(checkpoints_);
    const auto weights = checkpoints_ / "best" / "weights.bin";
    if (!found || !std::filesystem::exists(weights)) return;
    (void)load_weights(weights, network_);
    best_ = found;
  } catch (const InputError& error) {
    log_.warn("the next evaluation counts as the best: ", error.what());
  }
}

void BestWeights::offer(const nn::WeightsView& weights, const Best& score) {
  if (best_ && score.mean < best_->mean) return;
  best_ = score;
  waiting_.emplace();
  waiting_->parameters.assign(weights.parameters.begin(), weights.parameters.end());
  waiting_->statistics.assign(weights.statistics.begin(), weights.statistics.end());
  write();
}

void BestWeights::step() {
  if (waiting_ && clock_.now() >= retry_at_) write();
}

void BestWeights::write() {
  try {
    save_best(checkpoints_, network_, waiting_->view(), *best_);
    if (said_) log_.info("the best weights are written again");
    waiting_.reset();
    said_ = false;
  } catch (const SystemError& error) {
    if (!said_) log_.error("the best weights could not be written: ", error.what(), "; it is tried again");
    said_ = true;
    retry_at_ = clock_.now() + std::chrono::duration_cast<Nanoseconds>(retry_after);
  }
}

}  // namespace qanat::learner
