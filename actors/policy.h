// Where an actor's Q-values come from.
//
// Submit and collect, so that a policy on another machine fits the same loop: the actor has two groups of slots, and
// while the values of one are under way it steps the other. One thread. Q-values are borrowed until the next call.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/backend.h"
#include "nn/normalization.h"

namespace qanat::actors {

struct QValues {
  std::span<const float> q;  // [batch, actions]
  std::uint64_t weights_version = 0;
};

class Policy {
 public:
  virtual ~Policy() = default;
  // Starts the evaluation of a group's observations, which must stay as they are until it is collected.
  virtual void submit(std::size_t group, const nn::ObservationRows& observations, std::int64_t batch) = 0;
  // The group's values, or nothing when they are not there yet. Precondition: submitted and not yet collected.
  [[nodiscard]] virtual std::optional<QValues> collect(std::size_t group) = 0;
  // Values needed now: those of last observations, from which no action is taken. A policy that would have to wait
  // answers with nothing, and their items go without a priority of their own.
  [[nodiscard]] virtual std::optional<QValues> values(const nn::ObservationRows& observations, std::int64_t batch) = 0;
};

// The precision that `wanted` (ActorsConfig::precision) means for this network. Throws ConfigError when it is bf16 and
// the processor cannot.
[[nodiscard]] std::string acting_precision(const std::string& wanted, const nn::NetworkSpec& network);

// A network in this process. Observations come raw; it normalises them where the weights want that. Evaluates when
// collected, with the weights and statistics of that moment: a request under way is fully described by its
// observations, which is what makes a saved actor resume exactly.
class LocalPolicy final : public Policy {
 public:
  // Throws ConfigError when there is no such device, or it does not have the precision.
  LocalPolicy(const nn::NetworkSpec& network, std::string_view device, const std::string& precision, std::size_t groups,
              std::int64_t max_batch);

  // Both copied. Throws InputError when the size is not the network's.
  void set_parameters(std::span<const float> parameters, const nn::Normalization& normalization, std::uint64_t version);
  [[nodiscard]] std::uint64_t version() const { return version_; }

  void submit(std::size_t group, const nn::ObservationRows& observations, std::int64_t batch) override;
  [[nodiscard]] std::optional<QValues> collect(std::size_t group) override;
  [[nodiscard]] std::optional<QValues> values(const nn::ObservationRows& observations, std::int64_t batch) override;

 private:
  struct Request {
    nn::ObservationRows observations;
    std::int64_t batch = 0;
  };

  std::int64_t actions_;
  std::unique_ptr<nn::Inference> network_;
  std::int64_t row_bytes_;
  nn::Normalization normalization_;
  std::vector<std::byte> normalized_;  // all rows of a request
  std::vector<Request> requests_;
  std::vector<float> q_;
  std::uint64_t version_ = 0;
};

}  // namespace qanat::actors
