// A batch of environment slots as the actors use it.
//
// One owner thread at a time; several VectorEnvs are independent of each other. A VectorEnv owns its environment and
// all its buffers; spans it returns borrow from it and hold until the next call that is not const.
//
// Every environment sits behind the C interface of "qanat/env.h", the built-in ones too, so what holds for one holds
// for all. This class adds what must not depend on an environment's author: actions out of range, rewards and
// observations that are not finite and broken specs are refused with an error that names the environment, the slot,
// its seed, the step and the action; returns and lengths of episodes are counted here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/tensor.h"
#include "envs/env_handle.h"
#include "qanat/env.h"

namespace qanat::envs {

struct ObservationSpec {
  TensorSpec tensor;         // of one slot
  double low = 0, high = 0;  // bounds over all elements; may be infinite
};

struct ActionSpace {
  enum class Kind { discrete, multi_discrete, box };
  Kind kind = Kind::discrete;
  std::int64_t n = 0;              // discrete
  std::vector<std::int64_t> nvec;  // multi_discrete
  std::vector<float> low, high;    // box

  [[nodiscard]] std::size_t dims() const;     // numbers in one action; 1 for discrete
  [[nodiscard]] std::size_t choices() const;  // entries in an action mask: n, or the sum of nvec; 0 for box
};

struct EnvSpec {
  std::string id;
  std::vector<ObservationSpec> observations;  // 1 to 8
  ActionSpace action;
  bool has_action_mask = false;
  std::int64_t max_episode_steps = 0;  // the limit in force; 0: none
  std::vector<std::string> metrics;
  bool can_snapshot = false;
  bool can_render = false;
};

struct AtariConfig {
  std::string preset = "v5";
  std::int64_t threads = 1;

  void describe(ConfigVisitor& v);
};

// Names one environment: `id` alone is a built-in; with `plugin` one of those in that shared object; `gymnasium` one in
// Python.
struct EnvConfig {
  std::string id = {};                 // with plugin: may be empty when it holds one environment
  std::string plugin = {};             // path of a shared object
  std::string options = {};            // "key=value,key=value"
  std::int64_t max_episode_steps = 0;  // 0: the environment's own
  std::string gymnasium = {};
  std::string python = "python3";
  std::string python_path = {};
  std::string kwargs = {};
  std::string vectorization = "auto";
  std::string channels = "auto";
  std::vector<std::string> observations = {};
  AtariConfig atari = {};
  bool isolate = false;
  std::int64_t action_bins = 5;
  double step_timeout_seconds = 10;
  double reset_timeout_seconds = 30;
  double make_timeout_seconds = 60;
  double close_timeout_seconds = 5;
  bool evaluation = false;  // not a setting: set where whole episodes are played for their raw returns
  bool trial = false;       // nor is this: it is made to see whether it works, and its first failure is the answer
  // Not a setting: the number of the first slot among all instances of the run; see instance_index().
  std::int64_t first_index = 0;

  void describe(ConfigVisitor& v);
};

// The number of an environment's instance, unique over a run: the evaluator has 0 to slots - 1, actor `actor` what
// follows those of the actors before it. What listens at a port of its own can add it to the port.
[[nodiscard]] constexpr std::int64_t instance_index(std::int64_t actor, std::int64_t slots, std::int64_t slot) {
  return (1 + actor) * slots + slot;
}

class VectorEnv {
 public:
  // The environments of a C table, which outlives the VectorEnv. Throws ConfigError when the environment refuses
  // the options, InputError when its table or spec is not what qanat/env.h asks for.
  VectorEnv(const qanat_env_table& table, const EnvConfig& config, std::size_t slots);
  // The same for one that is made already, of `slots` slots.
  VectorEnv(EnvHandle env, std::size_t slots);
  ~VectorEnv();
  VectorEnv(const VectorEnv&) = delete;
  VectorEnv& operator=(const VectorEnv&) = delete;

  [[nodiscard]] const EnvSpec& spec() const { return spec_; }
  [[nodiscard]] std::size_t slots() const { return slots_; }

  // Starts every slot from its seed; one seed a slot. What a slot does afterwards depends on its seed, its index and
  // its actions, not on the other slots. Rewards and flags become 0.
  void reset(std::span<const std::uint64_t> seeds);
  // The same for some slots, `seeds[i]` for `slots[i]`; the others' rows stay.
  void reset_slots(std::span<const std::uint32_t> slots, std::span<const std::uint64_t> seeds);
  void reset_slot(std::uint32_t slot, std::uint64_t seed) { reset_slots({&slot, 1}, {&seed, 1}); }

  // One step of every slot: discrete [slots], multi_discrete [slots, dims], or box [slots, dims]. Throws InputError,
  // before any slot moves, when an action is out of range or their number is wrong; RunError when the environment
  // fails or gives a reward or observation that is not finite, after which only reset() is allowed; EnvironmentGivenUp
  // when its process failed too often.
  void step(std::span<const std::int32_t> actions);
  void step(std::span<const float> actions);

  // Results of the last reset or step. Where an episode ended (terminated or truncated, or both: terminated wins) the
  // observation is already the first of the next episode and the final observation the last of the ended one.
  [[nodiscard]] std::span<const std::byte> observation(std::size_t column) const;        // [slots, ...]
  [[nodiscard]] std::span<const std::byte> final_observation(std::size_t column) const;  // rows valid where ended
  [[nodiscard]] std::span<const float> rewards() const { return rewards_; }              // [slots]
  [[nodiscard]] std::span<const std::uint8_t> terminated() const { return terminated_; }
  [[nodiscard]] std::span<const std::uint8_t> truncated() const { return truncated_; }
  // [slots, choices], 1 = allowed; empty when the environment has none. The final one: rows valid where ended.
  [[nodiscard]] std::span<const std::uint8_t> action_mask() const { return mask_; }
  [[nodiscard]] std::span<const std::uint8_t> final_action_mask() const { return final_mask_; }
  // [slots]. Some environments (Gymnasium's NEXT_STEP vector classes) begin an episode a call late. 1 in resetting():
  // the slot's observation is no state to act in, and its next step only begins the episode, whatever the action.
  // 0 in stepped(): the last step was such a one: no transition, nothing to record.
  [[nodiscard]] std::span<const std::uint8_t> resetting() const { return resetting_; }
  [[nodiscard]] std::span<const std::uint8_t> stepped() const { return stepped_; }
  // Of the episode that ended, in the order of spec().metrics; valid where ended.
  [[nodiscard]] std::span<const double> episode_metrics(std::size_t slot) const;
  // Sum of raw rewards and number of steps of the episode that ended; [slots], valid where ended.
  [[nodiscard]] std::span<const double> episode_returns() const { return ended_returns_; }
  [[nodiscard]] std::span<const std::int64_t> episode_lengths() const { return ended_lengths_; }

  // The whole state of a slot, its random stream and its return so far included: a slot restored from it goes on
  // bit for bit. restore() refreshes the slot's row of observation() and action_mask() and clears its reward and flags.
  // Both throw RunError when the environment cannot (spec().can_snapshot), restore() InputError on bytes that no
  // snapshot of this environment gave.
  [[nodiscard]] std::vector<std::byte> snapshot(std::size_t slot) const;
  void restore(std::size_t slot, std::span<const std::byte> bytes);

  // How often the environment's process was started again, and what there is to say of it since the last call.
  [[nodiscard]] std::uint64_t restarts() const { return env_.events ? env_.events->restarts : 0; }
  [[nodiscard]] std::vector<std::string> take_events();
  // `call` is called, on this thread, about every 100 ms while one of ours waits for the environment's process. It must
  // not use the environment; what it throws ends the call under way as a failure of the environment. An environment
  // without a process of its own never calls it.
  void while_waiting(std::function<void()> call);
  // How it was set up, field by field; empty for most.
  [[nodiscard]] const Protocol& protocol() const { return env_.protocol; }

  // RGB [height, width, 3]. Throws RunError when the environment cannot (spec().can_render).
  [[nodiscard]] std::vector<std::uint8_t> render(std::size_t slot, int& height, int& width) const;

 private:
  struct Column {
    std::vector<std::byte> current, final;
    std::size_t row_bytes = 0;
  };

  void allocate();
  void step_raw(const void* actions);
  void count_episodes();
  void check_results() const;
  void check_finite_observations() const;
  void check_resetting() const;
  void require_slot(std::size_t slot) const;
  void require_started() const;
  void clear_results(std::size_t slot);
  [[noreturn]] void fail(const char* doing, const qanat_env_error& error) const;
  // "environment witness, slot 3 (seed 7), step 12 of its episode, action 1"
  [[nodiscard]] std::string where(std::int64_t slot) const;

  EnvHandle env_;
  EnvSpec spec_;
  std::size_t slots_ = 0;
  bool started_ = false;  // false: only reset() is allowed

  qanat_env_buffers buffers_{};
  std::vector<Column> columns_;
  std::vector<float> rewards_;
  std::vector<std::uint8_t> terminated_, truncated_, mask_, final_mask_, resetting_, stepped_;
  std::vector<double> metrics_;
  std::vector<double> returns_, ended_returns_;
  std::vector<std::int64_t> lengths_, ended_lengths_;
  std::vector<std::uint64_t> seeds_;
  const void* actions_ = nullptr;  // of the step under way, for error texts
};

// The environment that config names, as it is: its actions may be several numbers. Throws ConfigError naming the
// nearest id and all there are when it is unknown, when none is named or two are; as load_plugin (envs/plugin.h),
// create_env and the Python host do (envs/host/launch.h).
[[nodiscard]] EnvHandle open_env(const EnvConfig& config, std::size_t slots);

// open_env with its actions numbered (envs/discrete_actions.h), as agents want them. Throws as both.
[[nodiscard]] EnvHandle open_numbered_env(const EnvConfig& config, std::size_t slots);
[[nodiscard]] std::unique_ptr<VectorEnv> make(const EnvConfig& config, std::size_t slots);

[[nodiscard]] std::vector<std::string> builtin_ids();

// The C table of a built-in, nullptr when unknown.
[[nodiscard]] const qanat_env_table* builtin_table(std::string_view id);

}  // namespace qanat::envs
