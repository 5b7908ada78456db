#include "envs/discrete_actions.h"

#include <memory>
#include <utility>
#include <vector>

#include "core/error.h"
#include "envs/abi.h"

namespace qanat::envs {
namespace {

class Numbered {
 public:
  Numbered(EnvHandle inner, ActionSpace space, bool masked, std::vector<std::int64_t> radix, std::size_t slots)
      : inner_(std::move(inner)), space_(std::move(space)), radix_(std::move(radix)), slots_(slots) {
    spec_ = *table().spec(inner_.get());
    total_ = 1;
    for (const auto n : radix_) total_ *= n;
    spec_.action_kind = QANAT_ENV_DISCRETE;
    spec_.action_dims = 0;
    spec_.action_n = total_;
    spec_.action_nvec = nullptr;
    spec_.action_low = spec_.action_high = nullptr;
    const std::size_t dims = radix_.size();
    whole_.resize(slots * dims);
    real_.resize(slots * dims);
    if (masked) {
      mask_.resize(slots * space_.choices());
      final_mask_.resize(mask_.size());
    }
  }

  [[nodiscard]] const qanat_env_table& table() const { return inner_.table(); }
  [[nodiscard]] qanat_env* inner() const { return inner_.get(); }
  [[nodiscard]] const qanat_env_spec* spec() const { return &spec_; }

  [[nodiscard]] qanat_env_buffers redirect(const qanat_env_buffers& buffers) {
    qanat_env_buffers own = buffers;
    if (!mask_.empty()) {
      own.action_mask = mask_.data();
      own.final_action_mask = final_mask_.data();
    }
    return own;
  }

  // Precondition: each action is in [0, total).
  [[nodiscard]] const void* split(const std::int32_t* actions) {
    const std::size_t dims = radix_.size();
    for (std::size_t s = 0; s < slots_; ++s) {
      std::int64_t rest = actions[s];
      for (std::size_t d = dims; d-- > 0;) {
        const auto part = rest % radix_[d];
        rest /= radix_[d];
        whole_[s * dims + d] = static_cast<std::int32_t>(part);
        if (space_.kind == ActionSpace::Kind::box) real_[s * dims + d] = value_of(d, part);
      }
    }
    return space_.kind == ActionSpace::Kind::box ? static_cast<const void*>(real_.data()) : whole_.data();
  }

  void join_masks(const qanat_env_buffers& buffers, const std::uint8_t* which, bool ends) {
    if (mask_.empty()) return;
    for (std::size_t s = 0; s < slots_; ++s) {
      if (which == nullptr || which[s] != 0) join_mask(buffers, s);
      if (ends && (buffers.terminated[s] | buffers.truncated[s]) != 0) join(final_mask_, buffers.final_action_mask, s);
    }
  }

  void join_mask(const qanat_env_buffers& buffers, std::size_t slot) const {
    if (!mask_.empty()) join(mask_, buffers.action_mask, slot);
  }

 private:
  // The bounds themselves at both ends, not what rounding makes of them: beyond them an action is refused.
  [[nodiscard]] float value_of(std::size_t d, std::int64_t bin) const {
    const auto last = radix_[d] - 1;
    if (bin == 0) return space_.low[d];
    if (bin == last) return space_.high[d];
    const auto part = static_cast<double>(bin) / static_cast<double>(last);
    return static_cast<float>(space_.low[d] * (1 - part) + space_.high[d] * part);
  }

  void join(const std::vector<std::uint8_t>& parts, std::uint8_t* out, std::size_t slot) const {
    const std::uint8_t* mask = parts.data() + slot * space_.choices();
    for (std::int64_t a = 0; a < total_; ++a) {
      std::int64_t rest = a;
      std::uint8_t allowed = 1;
      std::size_t begin = space_.choices();
      for (std::size_t d = radix_.size(); d-- > 0;) {
        begin -= static_cast<std::size_t>(radix_[d]);
        allowed = static_cast<std::uint8_t>(allowed & mask[begin + static_cast<std::size_t>(rest % radix_[d])]);
        rest /= radix_[d];
      }
      out[slot * static_cast<std::size_t>(total_) + static_cast<std::size_t>(a)] = allowed;
    }
  }

  EnvHandle inner_;
  ActionSpace space_;
  std::vector<std::int64_t> radix_;
  std::int64_t total_ = 1;
  std::size_t slots_;
  qanat_env_spec spec_{};
  std::vector<std::int32_t> whole_;
  std::vector<float> real_;
  std::vector<std::uint8_t> mask_, final_mask_;
};

Numbered& numbered(qanat_env* env) { return *reinterpret_cast<Numbered*>(env); }
const Numbered& numbered(const qanat_env* env) { return *reinterpret_cast<const Numbered*>(env); }

// Every wrapped environment is made already.
std::int32_t create(const qanat_env_config*, qanat_env** env, qanat_env_error*) {
  *env = nullptr;
  return QANAT_ENV_FAILED;
}

void destroy(qanat_env* env) { delete reinterpret_cast<Numbered*>(env); }

const qanat_env_spec* spec(const qanat_env* env) { return numbered(env).spec(); }

std::int32_t reset(qanat_env* env, const std::uint64_t* seeds, const std::uint8_t* which,
                   const qanat_env_buffers* buffers, qanat_env_error* error) {
  Numbered& it = numbered(env);
  const qanat_env_buffers own = it.redirect(*buffers);
  const auto result = it.table().reset(it.inner(), seeds, which, &own, error);
  if (result == QANAT_ENV_OK) it.join_masks(*buffers, which, false);
  return result;
}

std::int32_t step(qanat_env* env, const void* actions, const qanat_env_buffers* buffers, qanat_env_error* error) {
  Numbered& it = numbered(env);
  const qanat_env_buffers own = it.redirect(*buffers);
  const auto result = it.table().step(it.inner(), it.split(static_cast<const std::int32_t*>(actions)), &own, error);
  if (result == QANAT_ENV_OK) it.join_masks(*buffers, nullptr, true);
  return result;
}

std::int32_t snapshot(const qanat_env* env, std::uint64_t slot, void* out, std::size_t capacity, std::size_t* size,
                      qanat_env_error* error) {
  const Numbered& it = numbered(env);
  return it.table().snapshot(it.inner(), slot, out, capacity, size, error);
}

std::int32_t restore(qanat_env* env, std::uint64_t slot, const void* bytes, std::size_t size,
                     const qanat_env_buffers* buffers, qanat_env_error* error) {
  Numbered& it = numbered(env);
  const qanat_env_buffers own = it.redirect(*buffers);
  const auto result = it.table().restore(it.inner(), slot, bytes, size, &own, error);
  if (result != QANAT_ENV_OK) return result;
  it.join_mask(*buffers, slot);
  return result;
}

std::int32_t render(const qanat_env* env, std::uint64_t slot, std::uint8_t* out, std::size_t capacity,
                    std::int32_t* height, std::int32_t* width, qanat_env_error* error) {
  const Numbered& it = numbered(env);
  return it.table().render(it.inner(), slot, out, capacity, height, width, error);
}

}  // namespace

EnvHandle with_discrete_actions(EnvHandle env, std::int64_t bins, std::size_t slots) {
  const EnvSpec inner = read_spec(env.table(), env.table().spec(env.get()));
  if (inner.action.kind == ActionSpace::Kind::discrete) return env;
  std::vector<std::int64_t> radix = inner.action.nvec;
  if (inner.action.kind == ActionSpace::Kind::box) radix.assign(inner.action.dims(), bins);
  std::int64_t total = 1;
  for (const auto n : radix) {
    if (n > most_product_actions / total) {
      const bool box = inner.action.kind == ActionSpace::Kind::box;
      throw ConfigError(text("environment ", inner.id, ": its ", box ? "Box" : "MultiDiscrete", " actions of ",
                             radix.size(), " numbers", box ? text(", env.action_bins = ", bins, " values each,") : "",
                             " make more than ", most_product_actions, " combinations, at most so many wanted",
                             box ? "; fewer env.action_bins help" : ""));
    }
    total *= n;
  }
  qanat_env_table table = env.table();
  auto events = env.events;
  auto protocol = env.protocol;
  auto wrapped =
      std::make_unique<Numbered>(std::move(env), inner.action, inner.has_action_mask, std::move(radix), slots);
  table.create = create;
  table.destroy = destroy;
  table.spec = spec;
  table.reset = reset;
  table.step = step;
  if (table.snapshot != nullptr) table.snapshot = snapshot;
  if (table.restore != nullptr) table.restore = restore;
  if (table.render != nullptr) table.render = render;
  EnvHandle out(table, reinterpret_cast<qanat_env*>(wrapped.release()));
  out.events = std::move(events);
  out.protocol = std::move(protocol);
  return out;
}

}  // namespace qanat::envs
