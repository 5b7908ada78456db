// An environment of a C table with buffers that notice what is done to them: what the check (envs/check.h) plays with.
//
// Every call gets buffers filled with a pattern and fenced by guard bytes; those of the call before are kept and must
// stay as they are. One owner thread.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/rng.h"
#include "core/tensor.h"
#include "envs/env_handle.h"
#include "envs/vector_env.h"
#include "qanat/env.h"

namespace qanat::envs {

// A fault found, under one of the names that docs/environments.md lists.
class EnvironmentFault : public Error {
 public:
  EnvironmentFault(std::string name, const std::string& what) : Error(what), name_(std::move(name)) {}
  [[nodiscard]] const std::string& name() const { return name_; }

 private:
  std::string name_;
};

// The call under way, readable from another thread or, in shared memory, from a parent process of the same program:
// who watches can tell a call that hangs from one that never was.
struct ProbeProgress {
  std::atomic<const char*> call{nullptr};  // "step"; nullptr: none. A string literal of the program
  std::atomic<std::int64_t> entered{0};    // steady clock, ns
  std::atomic<std::int64_t> step{0};       // of the batch, from 1
  std::atomic<bool> finished{false};       // for who checks: that it came to its end
};

// One array of results.
struct ProbeField {
  enum class Written { by_reset, by_step, at_ends };  // by_reset: by step too
  TensorSpec tensor;                                  // name "observation board" and what one slot holds
  double low = 0, high = 0;                           // bounds that hold; may be infinite. NaN is always out of them
  Written written = Written::by_step;

  [[nodiscard]] std::string describe() const;  // "reward f32", "observation board u8 [4, 10, 10]"
  // "observation board u8 [4, 10, 10] at [2, 0, 3]"
  [[nodiscard]] std::string describe(std::size_t element) const;
};

// Actions of all slots, of the kind that the space wants.
struct ProbeActions {
  std::vector<std::int32_t> whole;  // [slots, dims]
  std::vector<float> real;
  [[nodiscard]] const void* data() const {
    return real.empty() ? static_cast<const void*>(whole.data()) : static_cast<const void*>(real.data());
  }
};

class Probe {
 public:
  // `env` has `slots` slots. Throws EnvironmentFault "spec". `fill` is the pattern's byte. `progress` may be null.
  Probe(EnvHandle env, std::size_t slots, std::uint8_t fill, ProbeProgress* progress);
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  [[nodiscard]] const EnvSpec& spec() const { return spec_; }
  [[nodiscard]] std::size_t slots() const { return slots_; }
  [[nodiscard]] const Protocol& protocol() const { return env_.protocol; }
  [[nodiscard]] std::span<const ProbeField> fields() const { return fields_; }
  // Throws EnvironmentFault "spec" when it is no longer what it was at first.
  void require_same_spec() const;

  // Throw EnvironmentFault: "reset" or "step" when the call fails, "exception" when it throws, "overrun" when it wrote
  // beyond a buffer, "changed-after-return" when it wrote into those of the call before. which: empty for all slots.
  void reset(std::span<const std::uint64_t> seeds, std::span<const std::uint8_t> which = {});
  void step(const ProbeActions& actions);
  // Throws "changed-after-return" when the buffers of the last call are no longer what it left.
  void require_unchanged() const;

  // Of the last reset or step.
  [[nodiscard]] std::span<const std::byte> row(std::size_t field, std::size_t slot) const;
  [[nodiscard]] bool unwritten(std::size_t field, std::size_t slot, std::size_t element) const;
  [[nodiscard]] bool ended(std::size_t slot) const;
  // Its next step only begins an episode (qanat_env_buffers::resetting).
  [[nodiscard]] bool begins_next(std::size_t slot) const { return pending_[slot] != 0; }
  // The rows of a slot that the last call had to write, one after the other; `state`: only those that show its state.
  [[nodiscard]] std::vector<std::byte> record(std::size_t slot, bool state = false) const;
  [[nodiscard]] bool must_write(std::size_t field, std::size_t slot) const;

  // Allowed actions for the present state; a twentieth of box actions are a bound.
  void draw(Rng& rng, ProbeActions& out) const;

  // Throw EnvironmentFault "snapshot"; restore() gives false and the reason when the environment refuses the bytes.
  [[nodiscard]] std::vector<std::byte> snapshot(std::size_t slot);
  [[nodiscard]] std::optional<std::string> restore(std::size_t slot, std::span<const std::byte> bytes);

  // "step 17, slot 2 (seed 5, step 3 of its episode), action 1"
  [[nodiscard]] std::string where(std::size_t slot) const;
  [[nodiscard]] std::int64_t steps() const { return steps_; }
  [[nodiscard]] std::int64_t episode_steps(std::size_t slot) const { return episode_steps_[slot]; }
  // The longest call so far.
  [[nodiscard]] double slowest_seconds() const { return slowest_seconds_; }
  [[nodiscard]] const std::string& slowest_call() const { return slowest_call_; }

 private:
  // A buffer between two guards.
  struct Buffer {
    std::vector<std::byte> bytes;
    std::size_t size = 0;
  };
  struct BufferSet {
    std::vector<Buffer> buffers;               // one a field
    std::vector<std::vector<std::byte>> kept;  // as the call left them
    std::vector<std::uint8_t> resetting;
    qanat_env_buffers view{};
  };

  void describe_fields();
  void allocate(BufferSet& set) const;
  void prepare(BufferSet& set) const;
  void require_unchanged(const BufferSet& set) const;
  void require_guards(const BufferSet& set, const char* call) const;
  void finish(const char* call);
  void remember_masks();
  template <class Call>
  bool call(const char* name, Call&& body);
  [[nodiscard]] std::size_t find(std::string_view name) const;
  [[noreturn]] void fail(const char* call, const qanat_env_error& error) const;

  EnvHandle env_;
  EnvSpec spec_;
  std::size_t slots_;
  std::byte fill_;
  ProbeProgress* progress_;
  std::vector<ProbeField> fields_;
  std::size_t terminated_ = 0, truncated_ = 0, mask_ = 0;  // which field; mask_: fields_.size() when there is none
  std::array<BufferSet, 2> sets_;
  std::size_t current_ = 0;
  bool stepped_ = false;             // the last call was a step
  std::vector<std::uint8_t> reset_;  // slots of the last reset
  std::vector<std::uint8_t> masks_;  // [slots, choices], as the state of now has them
  std::vector<std::uint64_t> seeds_;
  std::vector<std::int64_t> episode_steps_;
  std::vector<std::uint8_t> pending_;  // see begins_next()
  std::vector<std::uint8_t> late_;     // the step under way only begins an episode in this slot
  std::vector<std::uint8_t> over_;     // the episode of this slot ended in the last step; the next one begins another
  ProbeActions actions_;
  std::int64_t steps_ = 0;
  double slowest_seconds_ = 0;
  std::string slowest_call_;
};

}  // namespace qanat::envs
