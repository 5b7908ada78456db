// The evaluator's process: now and then asks the learner for its newest weights, plays episodes with them, and reports.
//
// A control::Role: one thread, never blocks (a step() plays at most one env step of all its slots). Its episodes begin
// from seeds that neither training nor the final evaluation use, others in each round.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "actors/evaluation.h"
#include "control/member.h"
#include "control/role.h"
#include "control/weights.h"

namespace qanat::actors {

struct EvaluatorOptions {
  control::MemberOptions member;  // role evaluate
  EvaluationConfig evaluation;
  envs::EnvConfig environment;
  nn::NetworkConfig network;
  std::int64_t stack = 1;
  nn::NormalizationOptions normalization;
  std::string device = "cpu";
  std::uint64_t seed = 0;  // the run's
  std::size_t slots = 0;   // of environments, at most; see EvaluationOptions
};

class Evaluator : public control::Role {
 public:
  // Throws ConfigError when environment, network or settings do not fit.
  Evaluator(wire::Context& context, const Clock& clock, Logger& log, EvaluatorOptions options);

  // Throws RunError when no head was heard for too long, ConfigError when the head refuses us, InputError when the
  // weights are another network's.
  bool step() override;
  [[nodiscard]] std::vector<wire::Socket*> sockets() override;
  [[nodiscard]] bool finished() const override { return finished_; }
  void request_stop(const std::string& cause) override;

  [[nodiscard]] std::uint64_t evaluations() const { return rounds_; }  // done by this process
  // Lockstep: nothing is being played.
  [[nodiscard]] bool quiet() const { return !playing_; }

 private:
  void follow_directory();
  void begin();
  void report();
  void measure();
  void report_environment();
  void report_traffic();

  const Clock& clock_;
  Logger& log_;
  EvaluatorOptions options_;
  EpisodePlayer player_;
  std::uint64_t layout_;
  control::Member member_;
  control::WeightSubscriber weights_;
  wire::WeightVersion version_;  // of the weights being played
  std::uint64_t directory_seen_ = 0;
  std::uint64_t rounds_ = 0;
  bool playing_ = false;
  bool asked_ = false;
  bool finished_ = false;
  Nanoseconds next_;
  Nanoseconds measured_;
  Nanoseconds busy_{0};
};

}  // namespace qanat::actors
