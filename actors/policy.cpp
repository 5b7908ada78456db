#include "actors/policy.h"

#include <string>

#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::actors {

std::string acting_precision(const std::string& wanted, const nn::NetworkSpec& network) {
  const auto obstacle = nn::bf16_obstacle(network);
  if (wanted == "bf16" && !obstacle.empty()) throw ConfigError("actors.precision is bf16, but " + obstacle);
  if (wanted != "auto") return wanted;
  // Small networks cost little beside the rest of a step.
  constexpr std::int64_t image = 4096;
  return network.stacked_features() >= image && obstacle.empty() ? "bf16" : "fp32";
}

LocalPolicy::LocalPolicy(const nn::NetworkSpec& network, std::string_view device, const std::string& precision,
                         std::size_t groups, std::int64_t max_batch)
    : actions_(network.actions),
      network_(nn::make_backend(device)->inference(network, max_batch, precision)),
      row_bytes_(static_cast<std::int64_t>(network.input.bytes())),
      requests_(groups),
      q_(static_cast<std::size_t>(max_batch * network.actions)) {}

void LocalPolicy::set_parameters(std::span<const float> parameters, const nn::Normalization& normalization,
                                 std::uint64_t version) {
  network_->set_parameters(parameters);
  normalization_ = normalization;
  version_ = version;
}

void LocalPolicy::submit(std::size_t group, const nn::ObservationRows& observations, std::int64_t batch) {
  requests_[group] = {observations, batch};
}

std::optional<QValues> LocalPolicy::collect(std::size_t group) {
  return values(requests_[group].observations, requests_[group].batch);
}

std::optional<QValues> LocalPolicy::values(const nn::ObservationRows& observations, std::int64_t batch) {
  const auto q = std::span(q_).first(static_cast<std::size_t>(batch * actions_));
  auto rows = observations;
  if (normalization_.observations()) {
    const std::span raw(rows.data, static_cast<std::size_t>(rows.rows * row_bytes_));
    normalized_.resize(raw.size());
    normalization_.normalize(raw, normalized_.data());
    rows.data = normalized_.data();
  }
  network_->forward(rows, batch, q);
  return QValues{q, version_};
}

}  // namespace qanat::actors
