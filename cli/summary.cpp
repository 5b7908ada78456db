#include "cli/summary.h"

#include <nlohmann/json.hpp>

#include "cli/version.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

nlohmann::ordered_json fields_of(const envs::Protocol& protocol) {
  auto json = nlohmann::ordered_json::object();
  for (const auto& [name, value] : protocol) json[name] = value;
  return json;
}

// Empty when the head never came to write it, or a power cut took it.
nlohmann::ordered_json read_status(const std::filesystem::path& run_dir) {
  if (!std::filesystem::exists(run_dir / "status.json")) return nlohmann::ordered_json::object();
  auto written = nlohmann::ordered_json::parse(read_text_file(run_dir / "status.json"), nullptr, false);
  return written.is_object() ? std::move(written) : nlohmann::ordered_json::object();
}

// Causes and names may come from a plug-in or a peer: what is no UTF-8 is replaced, where dump() would throw.
std::string in_lines(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

std::uint64_t updates_of_status(const std::filesystem::path& run_dir) {
  return read_status(run_dir).value("updates", std::uint64_t{0});
}

void write_status(const std::filesystem::path& run_dir, const control::HeadStatus& status) {
  nlohmann::ordered_json json;
  json["state"] = wire::name_of(status.state);
  json["stop_cause"] = status.stop_cause;
  json["epoch"] = status.epoch;
  json["env_steps"] = status.env_steps;
  json["updates"] = status.updates;
  json["env_restarts"] = status.env_restarts;
  json["wall_seconds"] = status.wall_seconds;
  json["checkpoint"] = status.checkpoint;
  json["save_error"] = status.save_error;
  for (const auto& [name, value] : status.metrics) json["metrics"][name] = value;
  json["processes"] = nlohmann::ordered_json::array();
  for (const auto& member : status.members) {
    json["processes"].push_back({{"role", wire::name_of(member.role)},
                                 {"index", member.index},
                                 {"pid", member.pid},
                                 {"starts", member.starts},
                                 {"messages_in", member.traffic[0]},
                                 {"messages_out", member.traffic[1]},
                                 {"bytes_in", member.traffic[2]},
                                 {"bytes_out", member.traffic[3]},
                                 {"refused", member.traffic[4]}});
  }
  replace_file(run_dir / "status.json", in_lines(json));
}

MetricsRow metrics_row(const control::HeadStatus& status, std::uint64_t failed_writes) {
  MetricsRow row;
  row.time_seconds = status.wall_seconds;
  row.env_steps = static_cast<std::int64_t>(status.env_steps);
  row.updates = static_cast<std::int64_t>(status.updates);
  for (const auto& [name, value] : status.metrics) row.values.push_back({name, value});
  row.values.push_back({"env_restarts", static_cast<double>(status.env_restarts)});
  row.values.push_back({"failed_writes", static_cast<double>(failed_writes)});
  return row;
}

std::string write_summary(const std::filesystem::path& run_dir, const RunOutcome& outcome) {
  const auto status = read_status(run_dir);
  nlohmann::ordered_json json;
  if (outcome.evaluation) {
    const auto& evaluation = *outcome.evaluation;
    json["evaluation"] = {{"mean", evaluation.mean},          {"standard_error", evaluation.standard_error},
                          {"episodes", evaluation.episodes},  {"cut", evaluation.cut},
                          {"not_begun", evaluation.left_out}, {"weights", outcome.evaluated}};
    if (!evaluation.environment.empty()) json["evaluation"]["environment"] = fields_of(evaluation.environment);
  }
  if (!outcome.environment.empty()) json["environment"] = fields_of(outcome.environment);
  json["env_steps"] = status.value("env_steps", 0);
  json["updates"] = status.value("updates", 0);
  json["wall_seconds"] = status.value("wall_seconds", 0.0);
  json["command_seconds"] = outcome.command_seconds;
  json["seed"] = outcome.seed;
  json["commit"] = commit;
  json["stop_cause"] = outcome.stop_cause.empty() ? status.value("stop_cause", std::string()) : outcome.stop_cause;
  json["restarts"] = outcome.restarts;
  json["env_restarts"] = status.value("env_restarts", 0);
  json["epoch"] = status.value("epoch", 0);
  json["checkpoint"] = status.value("checkpoint", std::string());
  json["save_error"] = status.value("save_error", std::string());
  json["metrics"] = status.value("metrics", nlohmann::ordered_json::object());
  json["processes"] = status.value("processes", nlohmann::ordered_json::array());
  auto out = in_lines(json);
  write_file_atomically(run_dir / "summary.json", out);
  return out;
}

}  // namespace qanat::cli
