#include "envs/bench.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "core/clock.h"
#include "core/error.h"
#include "core/rng.h"
#include "envs/abi.h"

namespace qanat::envs {
namespace {

constexpr std::size_t drawn_batches = 64;
constexpr int turns = 10;
constexpr int steps_between_looks = 16;  // at the clock

// Actions of a batch, over and over; with a mask the first allowed one from the drawn one on.
class Actions {
 public:
  Actions(const EnvSpec& spec, std::size_t slots, std::uint64_t seed) : space_(spec.action), slots_(slots) {
    Rng rng(seed);
    const std::size_t count = drawn_batches * slots * space_.dims();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t d = i % space_.dims();
      if (space_.kind == ActionSpace::Kind::box) {
        const float value = static_cast<float>(rng.uniform(space_.low[d], space_.high[d]));
        real_.push_back(std::clamp(value, space_.low[d], space_.high[d]));
      } else {
        whole_.push_back(static_cast<std::int32_t>(rng.below(static_cast<std::uint64_t>(limit(d)))));
      }
    }
    allowed_.resize(slots * space_.dims());
  }

  [[nodiscard]] bool real() const { return !real_.empty(); }
  [[nodiscard]] std::span<const float> next_real() {
    return std::span(real_).subspan(advance(), slots_ * space_.dims());
  }
  [[nodiscard]] std::span<const std::int32_t> next_whole(std::span<const std::uint8_t> mask) {
    const auto drawn = std::span(whole_).subspan(advance(), slots_ * space_.dims());
    if (mask.empty()) return drawn;
    for (std::size_t i = 0; i < drawn.size(); ++i) {
      const std::int64_t n = limit(i % space_.dims());
      std::int64_t action = drawn[i];
      for (std::int64_t tried = 0; tried < n && mask[static_cast<std::size_t>(action)] != 1; ++tried) {
        action = (action + 1) % n;
      }
      allowed_[i] = static_cast<std::int32_t>(action);
      mask = mask.subspan(static_cast<std::size_t>(n));
    }
    return allowed_;
  }

 private:
  [[nodiscard]] std::int64_t limit(std::size_t d) const {
    return space_.kind == ActionSpace::Kind::discrete ? space_.n : space_.nvec[d];
  }
  std::size_t advance() {
    batch_ = (batch_ + 1) % drawn_batches;
    return batch_ * slots_ * space_.dims();
  }

  ActionSpace space_;
  std::size_t slots_;
  std::size_t batch_ = 0;
  std::vector<float> real_;
  std::vector<std::int32_t> whole_, allowed_;
};

// The table and its buffers, with nothing in between.
class BareBatch {
 public:
  BareBatch(EnvHandle env, std::size_t slots)
      : env_(std::move(env)), spec_(read_spec(env_.table(), env_.table().spec(env_.get()))), slots_(slots) {
    buffers_.struct_size = sizeof buffers_;
    for (std::size_t i = 0; i < spec_.observations.size(); ++i) {
      const std::size_t bytes = slots * spec_.observations[i].tensor.bytes();
      buffers_.observations[i] = room<std::byte>(bytes);
      buffers_.final_observations[i] = room<std::byte>(bytes);
    }
    buffers_.rewards = room<float>(slots);
    buffers_.terminated = room<std::uint8_t>(slots);
    buffers_.truncated = room<std::uint8_t>(slots);
    mask_bytes_ = spec_.has_action_mask ? slots * spec_.action.choices() : 0;
    if (mask_bytes_ > 0) {
      buffers_.action_mask = room<std::uint8_t>(mask_bytes_);
      buffers_.final_action_mask = room<std::uint8_t>(mask_bytes_);
    }
    buffers_.resetting = room<std::uint8_t>(slots);
    if (!spec_.metrics.empty()) buffers_.metrics = room<double>(slots * spec_.metrics.size());
  }

  [[nodiscard]] std::span<const std::uint8_t> mask() const { return {buffers_.action_mask, mask_bytes_}; }
  void reset(const std::vector<std::uint64_t>& seeds) {
    require(env_.table().reset(env_.get(), seeds.data(), nullptr, &buffers_, &error_), "reset");
  }
  void step(const void* actions) {
    std::fill_n(buffers_.resetting, slots_, std::uint8_t{0});
    require(env_.table().step(env_.get(), actions, &buffers_, &error_), "step");
  }

 private:
  template <class T>
  T* room(std::size_t count) {
    return reinterpret_cast<T*>(storage_.emplace_back(count * sizeof(T)).data());
  }
  void require(std::int32_t status, const char* doing) {
    if (status == QANAT_ENV_OK) return;
    error_.message[sizeof error_.message - 1] = '\0';
    throw RunError(text("environment ", spec_.id, ": ", doing, " failed: ", error_.message));
  }

  EnvHandle env_;
  EnvSpec spec_;
  std::size_t slots_;
  qanat_env_error error_ = {sizeof(qanat_env_error), -1, {}};
  std::vector<std::vector<std::byte>> storage_;
  qanat_env_buffers buffers_{};
  std::size_t mask_bytes_ = 0;
};

// Batches stepped, and how long that took.
struct Count {
  std::int64_t batches = 0;
  double seconds = 0, cpu_seconds = 0;

  template <class Step>
  void run(double limit, Step&& step) {
    const SteadyClock clock;
    const Nanoseconds began = clock.now();
    const Nanoseconds cpu = thread_cpu_time();
    double spent = 0;
    do {
      for (int i = 0; i < steps_between_looks; ++i) step();
      batches += steps_between_looks;
      spent = qanat::seconds(clock.now() - began);
    } while (spent < limit);
    seconds += spent;
    cpu_seconds += qanat::seconds(thread_cpu_time() - cpu);
  }
  [[nodiscard]] BenchRate rate(std::size_t slots) const {
    const double steps = static_cast<double>(batches) * static_cast<double>(slots);
    return {steps / seconds, steps / cpu_seconds};
  }
};

}  // namespace

BenchResult bench_environment(const EnvConfig& config, const BenchOptions& options) {
  VectorEnv env(open_env(config, options.slots), options.slots);
  BareBatch bare(open_env(config, options.slots), options.slots);
  std::vector<std::uint64_t> seeds;
  for (std::size_t slot = 0; slot < options.slots; ++slot) seeds.push_back(derive_seed(options.seed, slot));
  env.reset(seeds);
  bare.reset(seeds);
  Actions for_env(env.spec(), options.slots, options.seed);
  Actions for_bare = for_env;
  Count env_count, bare_count;
  for (int turn = 0; turn < turns; ++turn) {
    bare_count.run(options.seconds / turns, [&] {
      bare.step(for_bare.real() ? static_cast<const void*>(for_bare.next_real().data())
                                : static_cast<const void*>(for_bare.next_whole(bare.mask()).data()));
    });
    env_count.run(options.seconds / turns, [&] {
      if (for_env.real()) {
        env.step(for_env.next_real());
      } else {
        env.step(for_env.next_whole(env.action_mask()));
      }
    });
  }
  return {env.spec().id, bare_count.rate(options.slots), env_count.rate(options.slots)};
}

}  // namespace qanat::envs
