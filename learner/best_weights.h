// The weights of the best periodic evaluation, in checkpoints/best.
//
// A write that fails costs nothing but time: it is said once, the weights are kept in memory, and it is tried again.
// Not thread safe: one owner.
#pragma once

#include <filesystem>
#include <optional>

#include "core/clock.h"
#include "core/log.h"
#include "learner/checkpoint.h"

namespace qanat::learner {

class BestWeights {
 public:
  // Finds what an earlier process left, which a worse evaluation must not replace, whichever checkpoint the run goes on
  // from. What cannot be read is nobody's best.
  BestWeights(const Clock& clock, Logger& log, std::filesystem::path checkpoints, nn::NetworkSpec network);

  // Takes these weights if they are as good as the best so far or better.
  void offer(const nn::WeightsView& weights, const Best& score);
  // Tries again what could not be written, when it is time.
  void step();

  [[nodiscard]] const std::optional<Best>& best() const { return best_; }
  [[nodiscard]] bool written() const { return !waiting_; }

 private:
  void write();

  const Clock& clock_;
  Logger& log_;
  std::filesystem::path checkpoints_;
  nn::NetworkSpec network_;
  std::optional<Best> best_;
  std::optional<nn::Weights> waiting_;  // of best_, when they are not in the file yet
  bool said_ = false;
  Nanoseconds retry_at_{0};
};

}  // namespace qanat::learner
