#include "envs/trial.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"

namespace qanat::envs {
namespace {

constexpr std::uint8_t fill = 0xA5;

class Player {
 public:
  Player(EnvHandle env, const TrialOptions& options)
      : options_(options), probe_(std::move(env), 1, fill, options.progress) {
    trial_.spec = probe_.spec();
    trial_.protocol = probe_.protocol();
  }

  TrialResult play() {
    const std::uint64_t seed = options_.seed;
    probe_.reset({&seed, 1});
    check();
    Rng rng(options_.seed);
    ProbeActions actions;
    const auto began = std::chrono::steady_clock::now();
    const auto spent = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count(); };
    std::int64_t after = 0;
    while (trial_.steps < options_.most_steps && after < options_.steps_after_an_end && spent() < options_.seconds) {
      probe_.draw(rng, actions);
      probe_.step(actions);
      ++trial_.steps;
      after += trial_.episodes > 0 ? 1 : 0;
      check();
      if (probe_.ended(0)) ++trial_.episodes;
    }
    probe_.require_unchanged();
    return std::move(trial_);
  }

 private:
  void check() {
    for (std::size_t f = 0; f < probe_.fields().size(); ++f) {
      // What an environment reports of itself may be anything.
      if (probe_.must_write(f, 0) && probe_.fields()[f].tensor.name != "metrics") check(f);
    }
    const auto limit = trial_.spec.max_episode_steps;
    if (limit > 0 && trial_.steps > 0 && probe_.episode_steps(0) >= limit && !probe_.ended(0)) {
      throw EnvironmentFault("time-limit", text(probe_.where(0), ": the episode goes on, its limit is ", limit));
    }
  }

  void check(std::size_t f) {
    const auto& field = probe_.fields()[f];
    const auto row = probe_.row(f, 0);
    const auto& name = field.tensor.name;
    const bool observation = name.find("observation") != std::string::npos;
    bool any_allowed = false;
    for (std::size_t e = 0; e < field.tensor.elements(); ++e) {
      const double value = value_at(field.tensor.dtype, row.data(), e);
      any_allowed |= value == 1;
      const auto seen = [&] { return text(probe_.where(0), ": ", field.describe(e), " is ", value); };
      if (!std::isfinite(value)) throw EnvironmentFault("not-finite", seen());
      if (value >= field.low && value <= field.high) continue;
      const std::string what = text(seen(), ", wanted ", field.low, " to ", field.high);
      if (!observation) throw EnvironmentFault("range", what);
      if (trial_.out_of_bounds.empty()) trial_.out_of_bounds = what;
    }
    if (name == "action_mask" && !any_allowed) {
      throw EnvironmentFault(
          "empty-mask", text(probe_.where(0), ": action_mask allows none of ", field.tensor.elements(), " actions"));
    }
  }

  const TrialOptions& options_;
  Probe probe_;
  TrialResult trial_;
};

}  // namespace

TrialResult try_environment(const EnvConfig& config, const TrialOptions& options) {
  EnvConfig once = config;
  once.trial = true;
  const auto refuse = [](const std::string& name, const char* what) {
    throw ConfigError(text("the environment fails at once (", name, "): ", what));
  };
  try {
    return Player(open_numbered_env(once, 1), options).play();
  } catch (const ConfigError&) {
    throw;
  } catch (const EnvironmentFault& fault) {
    refuse(fault.name(), fault.what());
  } catch (const InputError& error) {
    refuse("spec", error.what());
  } catch (const RunError& error) {
    refuse("create", error.what());
  }
  return {};
}

}  // namespace qanat::envs
