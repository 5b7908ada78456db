// The weights of the best periodic evaluation, in checkpoints/best.
//
// A write that fails costs nothing but time: it is said once, the weights are kept in memory, and it is tried again. A
// thread waits for the disk. One owner.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "core/clock.h"
#include "core/io_thread.h"
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
  // Writes what is to be written, and tries again what could not be, when it is time.
  void step();

  [[nodiscard]] const std::optional<Best>& best() const { return best_; }
  // The best are in their file.
  [[nodiscard]] bool written() const { return !waiting_ && !writing_; }
  [[nodiscard]] bool writing() const { return writing_ != nullptr; }
  // Waits for the disk: for an owner that has nothing else to do.
  void finish_writing() { disk_.finish(); }

 private:
  // What is to be written, and why it could not be. While the disk has it, its job alone touches the error.
  struct Record {
    nn::Weights weights;
    Best score;
    std::string error;
  };
  void note_written();

  const Clock& clock_;
  Logger& log_;
  std::filesystem::path checkpoints_;
  nn::NetworkSpec network_;
  std::optional<Best> best_;
  std::shared_ptr<Record> waiting_;
  std::shared_ptr<Record> writing_;
  bool said_ = false;
  Nanoseconds retry_at_{Nanoseconds::min()};
  IoThread disk_{"best weights", 0};  // its jobs do not throw
};

}  // namespace qanat::learner
