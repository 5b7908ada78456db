// A created environment: its C table and its handle, destroyed with it.
//
// Move only, one owner. What stands behind it may be a built-in, a plug-in, a hosted process or a wrapper around
// another handle; whoever holds one cannot tell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.h"
#include "qanat/env.h"

namespace qanat::envs {

struct EnvConfig;

// Between an environment in a process of its own and its owner; both on the owner's thread. What happened to the
// process, for the log and the metrics, is filled in by the environment and taken out by the owner.
struct HostEvents {
  std::uint64_t restarts = 0;
  bool hung = false;                    // its last failure was a call that did not come back in time
  bool given_up = false;                // it failed too often
  std::vector<std::string> lines;       // not yet taken
  std::vector<std::string> notes;       // the same, of what it gives and was taken although it was not as it should be
  std::function<void()> while_waiting;  // the owner's, or empty; see VectorEnv::while_waiting()
};

// An environment's process failed too often: what would start it again would only repeat that. Ends the run.
class EnvironmentGivenUp : public RunError {
 public:
  using RunError::RunError;
};

// How an environment was set up, field by field; printed, and stored with results.
using Protocol = std::vector<std::pair<std::string, std::string>>;
// Of Gymnasium environments: whether single slots can be reset, and have random numbers of their own. "False" for some
// vector classes.
inline constexpr std::string_view single_slot_resets = "single_slot_resets";
inline constexpr std::string_view single_slot_seeds = "single_slot_seeds";

class EnvHandle {
 public:
  // Owns `env`, which table.create() gave. The table's id and functions outlive it.
  EnvHandle(const qanat_env_table& table, qanat_env* env) : table_(table), env_(env) {}
  EnvHandle(EnvHandle&& other) noexcept
      : events(std::move(other.events)),
        protocol(std::move(other.protocol)),
        table_(other.table_),
        env_(std::exchange(other.env_, nullptr)) {}
  EnvHandle& operator=(EnvHandle&&) = delete;
  ~EnvHandle() {
    if (env_ != nullptr) table_.destroy(env_);
  }

  [[nodiscard]] const qanat_env_table& table() const { return table_; }
  [[nodiscard]] qanat_env* get() const { return env_; }

  std::shared_ptr<HostEvents> events;  // nullptr: it has no process of its own
  Protocol protocol;

 private:
  qanat_env_table table_{};
  qanat_env* env_ = nullptr;
};

// Makes a batch of `slots` of a table's environments in this process. Throws ConfigError when the environment refuses
// the options, InputError when the table is not what qanat/env.h asks for.
[[nodiscard]] EnvHandle create_env(const qanat_env_table& table, const EnvConfig& config, std::size_t slots);

}  // namespace qanat::envs
