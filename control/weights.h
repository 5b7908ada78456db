// Weights on their way from the learner to those who act: announced to all, fetched by who is behind.
//
// Conflation, late joiners and lost announcements are one mechanism: an asker names the version it has and gets
// the newest, nothing in between. Versions are ordered by (epoch, version); an older epoch is ignored. A question
// that has no answer yet is held, and an asker has one question open at a time, so a slow link is not asked to
// carry the same weights twice. Malformed messages are dropped and counted in traffic(). Never blocks. One thread
// each.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/clock.h"
#include "wire/messages.h"

namespace qanat::control {

class Member;

class WeightPublisher {
 public:
  // Binds both services to each of `addresses` ("tcp://127.0.0.1:*", "ipc:///dir/weights" gets -get / -announce).
  WeightPublisher(wire::Context& context, const std::vector<std::string>& addresses);

  [[nodiscard]] const std::vector<wire::Endpoint>& endpoints() const { return endpoints_; }

  // `layout`: hash of names and shapes, so that another network's weights are refused. `statistics`: what its inputs
  // are normalised by, as nn::Normalization saves it; empty when nothing is.
  void publish(wire::WeightVersion version, std::uint64_t layout, std::span<const float> parameters,
               std::span<const std::byte> statistics = {});

  bool step();

  // Evaluations that came in since the last call, each with the weights it was about (empty when unknown).
  struct Evaluation {
    wire::EvaluationReport report;
    std::vector<float> parameters;
    std::vector<std::byte> statistics;
  };
  [[nodiscard]] std::vector<Evaluation> take_evaluations();

  [[nodiscard]] std::vector<wire::Socket*> sockets() { return {&serve_}; }
  [[nodiscard]] wire::Traffic traffic() const;

 private:
  void take(const wire::Incoming& message);
  void answer(const std::string& peer, bool for_evaluation);

  wire::Socket announce_;
  wire::Socket serve_;
  std::vector<wire::Endpoint> endpoints_;
  struct Published {
    wire::Weights head;
    wire::Frame parameters;
    wire::Frame statistics;
    [[nodiscard]] Published share() { return {head, parameters.share(), statistics.share()}; }
  };
  std::optional<Published> newest_;
  std::vector<Published> kept_;          // handed to evaluators, the last few
  std::map<std::string, bool> waiting_;  // askers without an answer yet: peer, for evaluation
  std::vector<Evaluation> evaluations_;
};

class WeightSubscriber {
 public:
  WeightSubscriber(wire::Context& context, const Clock& clock, std::string identity, bool for_evaluation = false);

  // Addresses of the learner's services; again with others: switches over (a new learner).
  void connect(const std::string& announce, const std::string& serve);
  // To the learner that the member's directory names, in the member's epoch.
  void follow(const Member& member);
  [[nodiscard]] bool connected() const { return !serve_address_.empty(); }

  // Takes in announcements and weights, asks when behind (and every few seconds, should an announcement be lost).
  // True when newer weights came in.
  // Throws InputError when the weights are for another network than `layout`.
  bool step(std::uint64_t layout);
  // Ignore learners of an older epoch from now on.
  void require_epoch(std::uint64_t epoch) { epoch_ = epoch; }

  [[nodiscard]] bool available() const { return have_.version > 0 || have_.epoch > 0; }
  [[nodiscard]] wire::WeightVersion version() const { return have_; }
  [[nodiscard]] std::span<const float> parameters() const;
  [[nodiscard]] std::span<const std::byte> statistics() const { return statistics_; }  // of these weights
  // For evaluators: do not fetch until asked for, and keep what is there until then.
  void fetch_when_asked(bool on) { automatic_ = !on; }
  void ask() { asked_ = true; }
  void report(const wire::EvaluationReport& report);

  [[nodiscard]] std::vector<wire::Socket*> sockets();
  [[nodiscard]] wire::Traffic traffic() const;
  // For lockstep resume: the version counts as seen, parameters and statistics as its own.
  void adopt(wire::WeightVersion version, std::span<const float> parameters,
             std::span<const std::byte> statistics = {});

 private:
  void get();
  void question_lost();
  void take_news(const wire::Incoming& message);
  bool take_weights(const wire::Incoming& message, std::uint64_t layout);

  wire::Context& context_;
  const Clock& clock_;
  std::string identity_;
  bool for_evaluation_;
  bool automatic_ = true;
  bool asked_ = false;
  std::uint64_t epoch_ = 0;
  std::string announce_address_;
  std::string serve_address_;
  std::optional<wire::Socket> announce_;
  std::optional<wire::Socket> fetch_;
  wire::Traffic closed_;
  wire::WeightVersion have_;
  wire::WeightVersion announced_;
  std::vector<float> parameters_;
  std::vector<std::byte> statistics_;
  std::uint64_t connections_ = 0;  // of fetch_, seen so far
  bool open_question_ = false;
  Nanoseconds patience_;  // before an unanswered question is put again; grows each time
  Nanoseconds next_get_{Nanoseconds::min()};
};

}  // namespace qanat::control
