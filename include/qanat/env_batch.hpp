// The adapter that puts a batch of C++ environment objects behind the C interface. Part of "qanat/env.hpp", which says
// what a class must have.
//
// Slots are stepped one after the other on the caller's thread, without virtual calls or allocation; a Batch has one
// owner thread at a time. Time limits, resets at episode ends, final observations and random streams are handled here.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "qanat/env.h"
#include "qanat/env_options.hpp"
#include "qanat/env_types.hpp"
#include "qanat/random.hpp"

namespace qanat::env {

namespace detail {

template <class Env, class ActionT>
concept Steps = requires(Env env, ActionT action, Rng& rng) {
  env.step(action, rng);
}
|| requires(Env env, ActionT action) { env.step(action); };

using Numbers = std::span<const std::int32_t>;
using Reals = std::span<const float>;

template <class Env>
inline constexpr std::uint32_t action_kind = Steps<Env, Numbers> ? QANAT_ENV_MULTI_DISCRETE
                                             : Steps<Env, Reals> ? QANAT_ENV_BOX
                                                                 : QANAT_ENV_DISCRETE;

template <class Env>
concept Snapshots = requires(Env env, const Env& fixed) {
  env.set_state(fixed.state());
};

template <class Env>
concept Masks = requires(const Env& env, std::span<std::uint8_t> out) {
  env.action_mask(out);
};

template <class Env>
concept Measures = requires(const Env& env, std::span<double> out) {
  env.metrics(out);
};

template <class Env>
concept Renders = requires(const Env& env) {
  { env.render() } -> std::convertible_to<Image>;
};

inline void report(qanat_env_error* error, std::int64_t slot, const char* message) noexcept {
  if (error == nullptr) return;
  error->slot = slot;
  const std::size_t length = std::min(std::strlen(message), sizeof error->message - 1);
  std::memcpy(error->message, message, length);
  error->message[length] = '\0';
}

// Runs body(slot) and turns what it throws into an error naming the slot it had got to.
template <class Body>
std::int32_t guarded(qanat_env_error* error, std::int64_t slot, Body&& body) noexcept {
  try {
    body(slot);
    return QANAT_ENV_OK;
  } catch (const std::exception& e) {
    report(error, slot, e.what());
  } catch (...) {
    report(error, slot, "threw something that is not a std::exception");
  }
  return QANAT_ENV_FAILED;
}

// The C view of a Spec; owns what it points to, so it stays where it is.
class SpecView {
 public:
  SpecView(Spec spec, std::int64_t limit, bool can_snapshot, bool can_render) : spec_(std::move(spec)) {
    for (const Tensor& tensor : spec_.observations) {
      tensors_.push_back({tensor.name.c_str(), static_cast<std::uint32_t>(tensor.dtype),
                          static_cast<std::uint32_t>(tensor.shape.size()), tensor.shape.data(), tensor.low,
                          tensor.high});
    }
    for (const std::string& metric : spec_.metrics) metrics_.push_back(metric.c_str());
    const Action& action = spec_.action;
    view_.struct_size = sizeof view_;
    view_.observation_count = static_cast<std::uint32_t>(tensors_.size());
    view_.tensor_size = sizeof(qanat_env_tensor);
    view_.observations = tensors_.data();
    view_.action_kind = action.kind;
    view_.action_dims = static_cast<std::uint32_t>(action.dims());
    view_.action_n = action.n;
    view_.action_nvec = action.nvec.empty() ? nullptr : action.nvec.data();
    view_.action_low = action.low.empty() ? nullptr : action.low.data();
    view_.action_high = action.high.empty() ? nullptr : action.high.data();
    view_.has_action_mask = spec_.action_mask;
    view_.metric_count = static_cast<std::uint32_t>(metrics_.size());
    view_.metrics = metrics_.data();
    view_.max_episode_steps = limit;
    view_.can_snapshot = can_snapshot;
    view_.can_render = can_render;
  }
  SpecView(const SpecView&) = delete;
  SpecView& operator=(const SpecView&) = delete;

  [[nodiscard]] const Spec& spec() const { return spec_; }
  [[nodiscard]] const qanat_env_spec& view() const { return view_; }

 private:
  Spec spec_;
  std::vector<qanat_env_tensor> tensors_;
  std::vector<const char*> metrics_;
  qanat_env_spec view_{};
};

// What a snapshot starts with; the class's State follows.
struct SnapshotHead {
  std::uint32_t version = 1;
  std::uint32_t state_bytes = 0;
  std::int64_t steps = 0;
  Rng::State rng{};
};

}  // namespace detail

// The functions behind the table of Env. One owner thread at a time.
template <class Env>
class Batch {
 public:
  [[nodiscard]] static constexpr qanat_env_table table() {
    qanat_env_table table{};
    table.abi_version = QANAT_ENV_ABI_VERSION;
    table.struct_size = sizeof table;
    table.id = Env::id;
    if constexpr (requires { Env::summary; }) table.summary = Env::summary;
    if constexpr (requires { Env::options_help; }) table.options_help = Env::options_help;
    table.create = &create;
    table.destroy = &destroy;
    table.spec = &spec;
    table.reset = &reset;
    table.step = &step;
    if constexpr (detail::Snapshots<Env>) {
      table.snapshot = &snapshot;
      table.restore = &restore;
    }
    if constexpr (detail::Renders<Env>) table.render = &render;
    return table;
  }

 private:
  struct Slot {
    Env env;
    Rng rng;
    std::int64_t steps = 0;  // of the episode
  };

  explicit Batch(const qanat_env_config& config) {
    if (config.slots == 0) throw std::invalid_argument("a batch needs at least one slot");
    if (config.max_episode_steps < 0) throw std::invalid_argument("max_episode_steps is negative");
    const Options options(config.options);
    slots_.reserve(config.slots);
    for (std::size_t i = 0; i < config.slots; ++i) {
      slots_.push_back(Slot{construct(options, i), Rng(), 0});
      if (i == 0) options.refuse_unknown();
    }
    Spec spec = slots_[0].env.spec();
    const std::int64_t limit = config.max_episode_steps > 0 ? config.max_episode_steps : spec.max_episode_steps;
    limit_ = limit > 0 ? limit : std::numeric_limits<std::int64_t>::max();
    spec_ = std::make_unique<detail::SpecView>(std::move(spec), limit, detail::Snapshots<Env>, detail::Renders<Env>);
    check();
  }

  // The parts of the spec that must fit the class; ranges and names are the host's to check, for C environments too.
  void check() {
    const Spec& spec = spec_->spec();
    if (spec.observations.empty() || spec.observations.size() > QANAT_ENV_MAX_OBSERVATIONS) {
      throw std::invalid_argument("spec: 1 to 8 observations wanted");
    }
    for (std::size_t i = 0; i < spec.observations.size(); ++i) {
      std::size_t elements = 1;
      for (const std::int64_t extent : spec.observations[i].shape) elements *= static_cast<std::size_t>(extent);
      columns_[i] = {spec.observations[i].dtype, elements};
    }
    if (spec.action.kind != detail::action_kind<Env>) {
      throw std::invalid_argument("spec: the action space is not what step() takes");
    }
    if (spec.action_mask && !detail::Masks<Env>) throw std::invalid_argument("spec: no action_mask() in the class");
    if (!spec.metrics.empty() && !detail::Measures<Env>) throw std::invalid_argument("spec: no metrics() in the class");
  }

  static Env construct(const Options& options, std::size_t slot) {
    if constexpr (std::is_constructible_v<Env, const Options&, std::size_t>) {
      return Env(options, slot);
    } else if constexpr (std::is_constructible_v<Env, const Options&>) {
      static_cast<void>(slot);
      return Env(options);
    } else {
      static_cast<void>(options);
      static_cast<void>(slot);
      return Env();
    }
  }

  static Batch& of(qanat_env* handle) { return *reinterpret_cast<Batch*>(handle); }
  static const Batch& of(const qanat_env* handle) { return *reinterpret_cast<const Batch*>(handle); }

  static std::int32_t create(const qanat_env_config* config, qanat_env** handle, qanat_env_error* error) {
    *handle = nullptr;
    return detail::guarded(error, -1,
                           [&](std::int64_t&) { *handle = reinterpret_cast<qanat_env*>(new Batch(*config)); });
  }

  static void destroy(qanat_env* handle) { delete reinterpret_cast<Batch*>(handle); }

  static const qanat_env_spec* spec(const qanat_env* handle) { return &of(handle).spec_->view(); }

  static std::int32_t reset(qanat_env* handle, const std::uint64_t* seeds, const std::uint8_t* which,
                            const qanat_env_buffers* buffers, qanat_env_error* error) {
    Batch& self = of(handle);
    return detail::guarded(error, 0, [&](std::int64_t& at) {
      for (std::size_t i = 0; i < self.slots_.size(); ++i) {
        if (which != nullptr && which[i] == 0) continue;
        at = static_cast<std::int64_t>(i);
        Slot& slot = self.slots_[i];
        slot.rng = Rng(seeds[i]);
        slot.steps = 0;
        if constexpr (requires { slot.env.seed(std::uint64_t{}); }) slot.env.seed(seeds[i]);
        slot.env.reset(slot.rng);
        self.observe(slot.env, i, buffers->observations, buffers->action_mask);
      }
    });
  }

  static std::int32_t step(qanat_env* handle, const void* actions, const qanat_env_buffers* buffers,
                           qanat_env_error* error) {
    Batch& self = of(handle);
    return detail::guarded(error, 0, [&](std::int64_t& at) {
      const qanat_env_buffers out = *buffers;
      const std::size_t count = self.slots_.size();
      for (std::size_t i = 0; i < count; ++i) {
        at = static_cast<std::int64_t>(i);
        Slot& slot = self.slots_[i];
        const Outcome outcome = self.play(slot, actions, i);
        const bool truncated = (++slot.steps >= self.limit_) | outcome.truncated;
        out.rewards[i] = outcome.reward;
        out.terminated[i] = outcome.terminated;
        out.truncated[i] = truncated;
        if (outcome.terminated | truncated) self.finish(slot, i, out);
        self.observe(slot.env, i, out.observations, out.action_mask);
      }
    });
  }

  Outcome play(Slot& slot, const void* actions, std::size_t i) const {
    const auto act = [&](auto action) -> Outcome {
      if constexpr (requires { slot.env.step(action, slot.rng); }) {
        return slot.env.step(action, slot.rng);
      } else {
        return slot.env.step(action);
      }
    };
    if constexpr (detail::action_kind<Env> == QANAT_ENV_DISCRETE) {
      return act(static_cast<const std::int32_t*>(actions)[i]);
    } else {
      const std::size_t dims = spec_->view().action_dims;
      if constexpr (detail::action_kind<Env> == QANAT_ENV_BOX) {
        return act(detail::Reals(static_cast<const float*>(actions) + i * dims, dims));
      } else {
        return act(detail::Numbers(static_cast<const std::int32_t*>(actions) + i * dims, dims));
      }
    }
  }

  // The end of an episode: its last observation and metrics go to their own buffers, then the slot starts anew.
  void finish(Slot& slot, std::size_t i, const qanat_env_buffers& out) {
    observe(slot.env, i, out.final_observations, out.final_action_mask);
    if constexpr (detail::Measures<Env>) {
      const std::size_t count = spec_->view().metric_count;
      if (count > 0) slot.env.metrics(std::span<double>(out.metrics + i * count, count));
    }
    slot.steps = 0;
    slot.env.reset(slot.rng);
  }

  void observe(const Env& env, std::size_t i, void* const* bases, std::uint8_t* mask) const {
    env.observe(Row(bases, columns_.data(), i));
    if constexpr (detail::Masks<Env>) {
      if (spec_->spec().action_mask) {
        const std::size_t choices = spec_->spec().action.choices();
        env.action_mask(std::span<std::uint8_t>(mask + i * choices, choices));
      }
    }
  }

  static std::int32_t snapshot(const qanat_env* handle, std::uint64_t index, void* out, std::size_t capacity,
                               std::size_t* size, qanat_env_error* error) {
    const Batch& self = of(handle);
    return detail::guarded(error, static_cast<std::int64_t>(index), [&](std::int64_t&) {
      const Slot& slot = self.slots_.at(index);
      const auto state = slot.env.state();
      static_assert(std::is_trivially_copyable_v<decltype(state)>);
      detail::SnapshotHead head;
      head.state_bytes = sizeof state;
      head.steps = slot.steps;
      head.rng = slot.rng.state();
      *size = sizeof head + sizeof state;
      if (capacity < *size) return;
      std::memcpy(out, &head, sizeof head);
      std::memcpy(static_cast<std::byte*>(out) + sizeof head, &state, sizeof state);
    });
  }

  static std::int32_t restore(qanat_env* handle, std::uint64_t index, const void* bytes, std::size_t size,
                              const qanat_env_buffers* buffers, qanat_env_error* error) {
    Batch& self = of(handle);
    return detail::guarded(error, static_cast<std::int64_t>(index), [&](std::int64_t&) {
      Slot& slot = self.slots_.at(index);
      auto state = slot.env.state();
      detail::SnapshotHead head;
      if (size != sizeof head + sizeof state) throw std::invalid_argument("not a snapshot of this environment: size");
      std::memcpy(&head, bytes, sizeof head);
      if (head.version != detail::SnapshotHead{}.version || head.state_bytes != sizeof state) {
        throw std::invalid_argument("not a snapshot of this environment: head");
      }
      if (head.steps < 0 || head.steps >= self.limit_ || head.rng == Rng::State{}) {
        throw std::invalid_argument("not a snapshot of this environment: step count or random stream");
      }
      std::memcpy(&state, static_cast<const std::byte*>(bytes) + sizeof head, sizeof state);
      slot.env.set_state(state);
      slot.steps = head.steps;
      slot.rng.set_state(head.rng);
      self.observe(slot.env, index, buffers->observations, buffers->action_mask);
    });
  }

  static std::int32_t render(const qanat_env* handle, std::uint64_t index, std::uint8_t* out, std::size_t capacity,
                             std::int32_t* height, std::int32_t* width, qanat_env_error* error) {
    const Batch& self = of(handle);
    return detail::guarded(error, static_cast<std::int64_t>(index), [&](std::int64_t&) {
      const Image image = self.slots_.at(index).env.render();
      *height = image.height;
      *width = image.width;
      if (capacity >= image.rgb.size()) std::copy(image.rgb.begin(), image.rgb.end(), out);
    });
  }

  std::vector<Slot> slots_;
  std::unique_ptr<detail::SpecView> spec_;
  std::array<Row::Column, QANAT_ENV_MAX_OBSERVATIONS> columns_{};
  std::int64_t limit_ = 0;
};

}  // namespace qanat::env
