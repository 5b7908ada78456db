#include "cli/needs.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/error.h"
#include "core/limits.h"

namespace qanat::cli {
namespace {

// Counted in /proc while runs went on, and rounded up: files, eventfds and ZeroMQ's own, apart from connections.
constexpr std::uint64_t alone = 24;
constexpr std::uint64_t for_gpu = 40;     // a driver's devices and libraries
constexpr std::uint64_t for_hosts = 16;   // pipes and memory of processes that host environments
constexpr std::uint64_t strangers = 16;   // who asks for the configuration, or is being refused
constexpr std::uint64_t per_process = 4;  // main, ZeroMQ's two, and one of whoever works beside it
constexpr std::array roles{"head", "learner", "replay", "actor", "evaluate"};

// In a learner, each actor has a connection for weights and one for announcements, opened anew before the old is gone;
// a shard's is a socket and its connection.
constexpr std::uint64_t per_actor = 3;
constexpr std::uint64_t per_shard = 2;

std::uint64_t descriptors_of(std::string_view role, std::uint64_t shards, std::uint64_t actors, bool gpu) {
  if (role == "head") return alone + strangers + shards + actors + 3;
  if (role == "learner") return alone + per_shard * shards + per_actor * actors + (gpu ? for_gpu : 0);
  if (role == "replay") return alone + actors + 1;
  return alone + per_shard * shards + for_hosts;
}

bool may_use_gpu(const RunConfig& config) {
  return config.learner.device != "cpu" && config.learner.device != "reference";
}

std::uint64_t descriptors_of(std::string_view role, const RunConfig& config) {
  return descriptors_of(role, static_cast<std::uint64_t>(config.replay.shards),
                        static_cast<std::uint64_t>(config.actors.count), may_use_gpu(config));
}

std::string beside(std::string_view role, const RunConfig& config) {
  return text("a process of the role ", role, " beside ", config.replay.shards, " shards and ", config.actors.count,
              " actors (replay.shards, actors.count)");
}

}  // namespace

void check_needs(std::string_view role) {
  require_descriptors(alone, text("a process of the role ", role));
  require_threads(per_process, text("a process of the role ", role));
}

void check_needs(std::string_view role, const RunConfig& config) {
  require_descriptors(descriptors_of(role, config) - alone + descriptor_reserve(descriptor_limit()),
                      beside(role, config));
}

void check_needs_of_run(const RunConfig& config) {
  const auto* const most = std::max_element(roles.begin(), roles.end(), [&](const char* a, const char* b) {
    return descriptors_of(a, config) < descriptors_of(b, config);
  });
  require_descriptors(descriptors_of(*most, config) + descriptor_reserve(descriptor_limit()), beside(*most, config));
  // A trial of more would take longer than it is worth; nor does one machine hold as many.
  constexpr std::uint64_t most_tried = 20'000;
  const auto processes = static_cast<std::uint64_t>(config.replay.shards + config.actors.count + 3);
  require_threads(std::min(per_process * processes, most_tried),
                  text(processes, " processes of ", per_process, " threads (replay.shards, actors.count)"));
}

std::uint64_t most_actors(std::uint64_t descriptors, const RunConfig& config) {
  const auto own = descriptor_reserve(descriptors);
  const auto room = [&](std::string_view role, std::uint64_t each) {
    const auto shards = static_cast<std::uint64_t>(config.replay.shards);
    const auto without = descriptors_of(role, shards, 0, may_use_gpu(config)) + own;
    return descriptors > without ? (descriptors - without) / each : 0;
  };
  return std::min({room("head", 1), room("learner", per_actor), room("replay", 1)});
}

}  // namespace qanat::cli
