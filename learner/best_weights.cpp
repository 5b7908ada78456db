#include "learner/best_weights.h"

#include <utility>

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
  waiting_ = std::make_shared<Record>();
  waiting_->weights.parameters.assign(weights.parameters.begin(), weights.parameters.end());
  waiting_->weights.statistics.assign(weights.statistics.begin(), weights.statistics.end());
  waiting_->score = score;
  step();
}

void BestWeights::step() {
  if (writing_ && disk_.idle()) note_written();
  if (writing_ || !waiting_ || clock_.now() < retry_at_) return;
  writing_ = std::exchange(waiting_, nullptr);
  disk_.give([record = writing_, checkpoints = checkpoints_, network = network_] {
    try {
      save_best(checkpoints, network, record->weights.view(), record->score);
      record->error.clear();
    } catch (const SystemError& error) {
      record->error = error.what();
    }
  });
}

void BestWeights::note_written() {
  const auto record = std::exchange(writing_, nullptr);
  if (record->error.empty()) {
    if (said_) log_.info("the best weights are written again");
    said_ = false;
    return;
  }
  if (!said_) log_.error("the best weights could not be written: ", record->error, "; it is tried again");
  said_ = true;
  retry_at_ = clock_.now() + std::chrono::duration_cast<Nanoseconds>(retry_after);
  if (!waiting_) waiting_ = record;  // better ones may have come meanwhile
}

}  // namespace qanat::learner
