#include "envs/check.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <thread>

#include "core/error.h"

namespace qanat::envs {
namespace {

// Two patterns: what both of two batches still hold after a call was not written by it.
constexpr std::uint8_t fill_a = 0xA5;
constexpr std::uint8_t fill_b = 0x5A;

constexpr std::int64_t least_steps = 20;
constexpr std::int64_t steps_between_partial_resets = 97;
constexpr std::int64_t steps_between_pauses = 16;
constexpr std::chrono::microseconds pause_for_late_writes{200};
constexpr std::int64_t short_limit = 3;
constexpr int snapshot_trials = 20;
constexpr int steps_after_snapshot = 25;

using Written = ProbeField::Written;

std::string range_text(double low, double high) { return text(low, " to ", high); }

class Check {
 public:
  Check(EnvOpener open, const EnvConfig& config, const CheckOptions& options)
      : open_(std::move(open)), config_(config), options_(options), rng_(derive_seed(options.seed, 0)) {}

  CheckReport run() {
    // Each part takes for granted what the ones before it found: a fault in one would show as others further on.
    const bool sound = part([&] { play(); }) && part([&] { reset_afresh(); }) && part([&] { slots_alone(); }) &&
                       part([&] { snapshots(); });
    if (!sound)
      skip("what follows from the last fault: play, fresh resets, slots on their own, snapshots, in this order");
    if (!has("time-limit")) part([&] { short_episodes(); });
    if (report_.faults.empty()) part([&] { picture(); });
    part([&] { make(config_, 1).table().destroy(nullptr); });
    take_notes();
    return std::move(report_);
  }

 private:
  struct Seen {
    double low = std::numeric_limits<double>::infinity();
    double high = -std::numeric_limits<double>::infinity();
  };
  struct Episodes {
    std::int64_t count = 0, terminated = 0, truncated = 0, both = 0;
    std::int64_t shortest = std::numeric_limits<std::int64_t>::max(), longest = 0;
    std::int64_t final_is_next = 0;  // ends whose final observation is the next episode's first
    std::vector<std::byte> a_first;  // a first observation
    bool firsts_vary = false;
  };

  // Runs a part; whether it came to its end.
  bool part(const std::function<void()>& body) {
    try {
      body();
      return true;
    } catch (const EnvironmentFault& fault) {
      add(fault.name(), fault.what());
      return false;
    }
  }

  [[nodiscard]] bool has(std::string_view name) const {
    return std::any_of(report_.faults.begin(), report_.faults.end(), [&](const auto& f) { return f.name == name; });
  }
  void add(const std::string& name, const std::string& what) {
    if (has(name)) return;
    report_.faults.push_back({name, what});
    if (options_.on_fault) options_.on_fault(report_.faults.back());
  }
  template <class... Parts>
  void saw(const Parts&... parts) {
    report_.seen.push_back(text(parts...));
  }
  // What was taken although it was not as it should be, once each.
  void take_notes() {
    for (const auto& events : events_) {
      for (const auto& note : events->notes) {
        auto& all = report_.warnings;
        if (std::find(all.begin(), all.end(), note) == all.end()) all.push_back(note);
      }
    }
  }
  void skip(const std::string& what) { report_.not_seen.push_back(what); }

  [[nodiscard]] EnvHandle make(const EnvConfig& config, std::size_t slots) {
    try {
      EnvHandle made = open_(config, slots);
      if (made.events) events_.push_back(made.events);
      return made;
    } catch (const ConfigError& error) {
      throw EnvironmentFault("create", error.what());
    } catch (const InputError& error) {
      throw EnvironmentFault("spec", error.what());
    }
  }
  [[nodiscard]] std::unique_ptr<Probe> open(const EnvConfig& config, std::uint8_t fill = fill_a) {
    return std::make_unique<Probe>(make(config, options_.slots), options_.slots, fill, options_.progress);
  }
  [[nodiscard]] std::vector<std::uint64_t> seeds(std::uint64_t round) const {
    std::vector<std::uint64_t> out;
    for (std::size_t slot = 0; slot < options_.slots; ++slot) out.push_back(derive_seed(options_.seed, round, slot));
    return out;
  }

  // A loop of at most `steps`, cut when the time is over.
  void steps(std::int64_t count, const std::function<void(std::int64_t)>& body) {
    const auto began = std::chrono::steady_clock::now();
    for (std::int64_t i = 0; i < count; ++i) {
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
      if (i >= least_steps && spent.count() > options_.seconds) return;
      body(i);
    }
  }

  void judge_time(const Probe& probe) {
    if (probe.slowest_seconds() <= options_.call_timeout_seconds) return;
    add("timeout", text(probe.slowest_call(), " took ", probe.slowest_seconds(), " s, wanted at most ",
                        options_.call_timeout_seconds, " s"));
  }

  // Two batches with the same seeds and actions: what each call leaves behind, value by value.
  void play() {
    const auto a = open(config_, fill_a);
    describe(a->spec());
    learn_what_slots_have(a->protocol());
    const auto b = open(config_, fill_b);
    seen_.resize(a->fields().size());
    const auto both = [&](const auto& call) {
      call(*a);
      call(*b);
      verify(*a, *b);
      judge_time(*a);
    };
    both([&](Probe& p) { p.reset(seeds(1)); });
    ProbeActions actions;
    std::int64_t done = 0;
    steps(options_.steps, [&](std::int64_t i) {
      a->draw(rng_, actions);
      both([&](Probe& p) { p.step(actions); });
      count_episodes(*a);
      ++done;
      if (i % steps_between_pauses == 0) {
        std::this_thread::sleep_for(pause_for_late_writes);
        a->require_unchanged();
      }
      if (resets_slots_ && i % steps_between_partial_resets == steps_between_partial_resets - 1) {
        std::vector<std::uint8_t> which(options_.slots, 0);
        which[rng_.below(options_.slots)] = 1;
        both([&](Probe& p) { p.reset(seeds(2 + static_cast<std::uint64_t>(i)), which); });
      }
    });
    a->require_same_spec();
    conclude_play(*a, done);
  }

  void describe(const EnvSpec& spec) {
    const auto& space = spec.action;
    std::string actions = text("discrete, ", space.n);
    if (space.kind == ActionSpace::Kind::multi_discrete) actions = text("multi-discrete, ", space.dims(), " numbers");
    if (space.kind == ActionSpace::Kind::box) actions = text("box, ", space.dims(), " numbers");
    saw("actions: ", actions, spec.has_action_mask ? ", with a mask" : "");
    saw("limit: ",
        spec.max_episode_steps > 0 ? text(spec.max_episode_steps, " steps an episode") : std::string("none"));
  }

  // What Gymnasium's vector classes need not have is no fault of theirs; it is left out, and told.
  void learn_what_slots_have(const Protocol& protocol) {
    for (const auto& [name, value] : protocol) {
      if (name == single_slot_resets) resets_slots_ = value != "False";
      if (name == single_slot_seeds) seeds_slots_ = value != "False";
    }
    const char* remedy =
        "; with --set env.vectorization=slots it can be tried, where the environment has a single form";
    if (!resets_slots_) skip(text("resets of single slots: its vector class resets all or none", remedy));
    if (!seeds_slots_) {
      skip(text("whether slots influence one another: its vector class has one stream of random numbers for all",
                remedy));
    }
  }

  void verify(const Probe& a, const Probe& b) {
    for (std::size_t slot = 0; slot < a.slots(); ++slot) {
      for (std::size_t f = 0; f < a.fields().size(); ++f) {
        const auto& field = a.fields()[f];
        if (!a.must_write(f, slot)) {
          // Rows that only ends write may hold anything in between.
          if (field.written != Written::at_ends) require_untouched(a, f, slot);
          continue;
        }
        if (!written_alike(a, b, f, slot)) continue;
        check_values(a, f, slot);
      }
      // A reset of other slots leaves this one's count where its last step put it.
      const bool stepped = a.must_write(0, slot);
      const auto limit = a.spec().max_episode_steps;
      if (stepped && limit > 0 && a.episode_steps(slot) >= limit && !a.ended(slot)) {
        add("time-limit", text(a.where(slot), ": the episode goes on, its limit is ", limit));
      }
    }
  }

  void require_untouched(const Probe& a, std::size_t f, std::size_t slot) {
    const auto& field = a.fields()[f];
    for (std::size_t e = 0; e < field.tensor.elements(); ++e) {
      if (a.unwritten(f, slot, e)) continue;
      add("stray-write", text("a reset that was not asked for ", field.written == Written::by_step ? "it" : "this slot",
                              " wrote ", field.describe(e), " of slot ", slot));
      return;
    }
  }

  // False when the row was not written. Throws when the two batches differ.
  bool written_alike(const Probe& a, const Probe& b, std::size_t f, std::size_t slot) {
    const auto& field = a.fields()[f];
    const auto left = a.row(f, slot);
    const auto right = b.row(f, slot);
    if (std::equal(left.begin(), left.end(), right.begin())) return true;
    for (std::size_t e = 0; e < field.tensor.elements(); ++e) {
      const std::size_t size = size_of(field.tensor.dtype);
      if (std::memcmp(left.data() + e * size, right.data() + e * size, size) == 0) continue;
      if (a.unwritten(f, slot, e) && b.unwritten(f, slot, e)) {
        const bool final = field.tensor.name.starts_with("final_observation");
        add(final ? "final-observation" : "unwritten",
            text(a.where(slot), ": ", field.describe(e), " was not written", final ? " at the episode's end" : ""));
        return false;
      }
      throw EnvironmentFault("not-repeatable",
                             text(a.where(slot), ": the same seeds and actions gave ", field.describe(e), " as ",
                                  value_at(field.tensor.dtype, left.data(), e), " in one batch and ",
                                  value_at(field.tensor.dtype, right.data(), e), " in another"));
    }
    return true;
  }

  void check_values(const Probe& a, std::size_t f, std::size_t slot) {
    const auto& field = a.fields()[f];
    const auto row = a.row(f, slot);
    const bool real = field.tensor.dtype == DType::f32 || field.tensor.dtype == DType::f64;
    bool any_allowed = false;
    const std::size_t elements = field.tensor.elements();
    for (std::size_t e = 0; e < elements; ++e) {
      const double value = value_at(field.tensor.dtype, row.data(), e);
      if (real && !std::isfinite(value)) {
        add("not-finite", text(a.where(slot), ": ", field.describe(e), " is ", value));
        continue;
      }
      if (!(value >= field.low && value <= field.high)) {
        if (!has("range")) {
          add("range", text(a.where(slot), ": ", field.describe(e), " is ", value, ", wanted ",
                            range_text(field.low, field.high)));
        }
        continue;
      }
      seen_[f].low = std::min(seen_[f].low, value);
      seen_[f].high = std::max(seen_[f].high, value);
      any_allowed |= value == 1;
    }
    if (field.tensor.name != "action_mask") return;
    if (!any_allowed) add("empty-mask", text(a.where(slot), ": action_mask allows none of ", elements, " actions"));
    if (a.spec().action.kind == ActionSpace::Kind::multi_discrete) check_mask_parts(a, row, slot);
  }

  // Each number of a multi-discrete action needs a choice of its own.
  void check_mask_parts(const Probe& a, std::span<const std::byte> row, std::size_t slot) {
    std::size_t begin = 0;
    for (std::size_t d = 0; d < a.spec().action.nvec.size(); ++d) {
      const auto n = static_cast<std::size_t>(a.spec().action.nvec[d]);
      const auto part = row.subspan(begin, n);
      if (std::find(part.begin(), part.end(), std::byte{1}) == part.end()) {
        add("empty-mask", text(a.where(slot), ": action_mask allows none of the ", n, " choices of number ", d));
      }
      begin += n;
    }
  }

  void count_episodes(const Probe& a) {
    for (std::size_t slot = 0; slot < a.slots(); ++slot) {
      if (!a.ended(slot)) continue;
      const bool terminated = a.row(0, slot)[0] == std::byte{1};
      const bool truncated = a.row(1, slot)[0] == std::byte{1};
      ++episodes_.count;
      episodes_.terminated += terminated && !truncated;
      episodes_.truncated += truncated && !terminated;
      episodes_.both += terminated && truncated;
      episodes_.shortest = std::min(episodes_.shortest, a.episode_steps(slot));
      episodes_.longest = std::max(episodes_.longest, a.episode_steps(slot));
      std::vector<std::byte> first, last;
      for (std::size_t f = 0; f < a.fields().size(); ++f) {
        const auto row = a.row(f, slot);
        const auto& name = a.fields()[f].tensor.name;
        if (name.starts_with("observation ")) first.insert(first.end(), row.begin(), row.end());
        if (name.starts_with("final_observation ")) last.insert(last.end(), row.begin(), row.end());
      }
      if (a.begins_next(slot)) continue;  // the next episode is not there yet
      episodes_.final_is_next += first == last;
      if (episodes_.a_first.empty()) episodes_.a_first = first;
      episodes_.firsts_vary |= first != episodes_.a_first;
    }
  }

  void conclude_play(const Probe& a, std::int64_t done) {
    const auto& e = episodes_;
    if (e.count >= 5 && e.final_is_next == e.count && e.firsts_vary) {
      add("final-observation", text("at each of ", e.count, " ends the final observation is the first one of the next ",
                                    "episode, wanted the last one of the ended episode"));
    }
    for (std::size_t f = 0; f < a.fields().size(); ++f) {
      const auto& field = a.fields()[f];
      const auto& name = field.tensor.name;
      if (!(name.starts_with("observation ") || name == "reward" || name == "metrics")) continue;
      if (seen_[f].low > seen_[f].high) continue;
      saw(field.describe(), ": ", range_text(seen_[f].low, seen_[f].high), " seen",
          name.starts_with("observation ") ? text(", ", range_text(field.low, field.high), " stated") : "");
    }
    saw("played: ", done, " steps of ", a.slots(), " slots twice, ", e.count, " episodes",
        e.count > 0 ? text(" of ", e.shortest, " to ", e.longest, " steps: ", e.terminated, " terminated, ",
                           e.truncated, " truncated, ", e.both, " both")
                    : "");
    if (e.count == 0) skip("no episode ended: final observations and metrics");
  }

  // The first difference between two records of `probe`'s slot.
  static std::string difference(const Probe& probe, std::size_t slot, const std::vector<std::byte>& is,
                                const std::vector<std::byte>& wanted, bool state = false) {
    std::size_t begin = 0;
    for (std::size_t f = 0; f < probe.fields().size(); ++f) {
      const auto& field = probe.fields()[f];
      if (!probe.must_write(f, slot) || (state && field.written != Written::by_reset)) continue;
      const std::size_t size = size_of(field.tensor.dtype);
      for (std::size_t e = 0; e < field.tensor.elements(); ++e) {
        const std::size_t at = begin + e * size;
        if (at + size > is.size() || at + size > wanted.size()) break;
        if (std::memcmp(is.data() + at, wanted.data() + at, size) == 0) continue;
        return text(probe.where(slot), ": ", field.describe(e), " is ",
                    value_at(field.tensor.dtype, is.data() + begin, e), ", wanted ",
                    value_at(field.tensor.dtype, wanted.data() + begin, e));
      }
      begin += field.tensor.bytes();
    }
    return text(probe.where(slot), ": other rows were written than wanted");
  }

  static void require_same(const Probe& probe, std::size_t slot, const std::vector<std::byte>& wanted, const char* name,
                           const std::string& why, bool state = false) {
    const auto is = probe.record(slot, state);
    if (is == wanted) return;
    throw EnvironmentFault(name, text(difference(probe, slot, is, wanted, state), "; ", why));
  }

  // Copies the actions of one slot.
  static void copy_action(const Probe& probe, const ProbeActions& from, ProbeActions& to, std::size_t slot) {
    const std::size_t dims = probe.spec().action.dims();
    for (std::size_t d = slot * dims; d < (slot + 1) * dims; ++d) {
      if (from.real.empty()) {
        to.whole[d] = from.whole[d];
      } else {
        to.real[d] = from.real[d];
      }
    }
  }

  // A slot does the same whatever the others are told.
  void slots_alone() {
    if (options_.slots < 2) return skip("one slot only: whether slots influence one another");
    if (!seeds_slots_) return;
    for (const std::size_t watched : {std::size_t{0}, options_.slots - 1}) {
      const auto reference = open(config_);
      const auto other = open(config_);
      const auto own_seeds = seeds(4);
      auto other_seeds = seeds(5);
      other_seeds[watched] = own_seeds[watched];
      reference->reset(own_seeds);
      other->reset(other_seeds);
      ProbeActions actions, other_actions;
      steps(options_.steps / 8, [&](std::int64_t i) {
        reference->draw(rng_, actions);
        other->draw(rng_, other_actions);
        copy_action(*reference, actions, other_actions, watched);
        reference->step(actions);
        other->step(other_actions);
        require_same(*other, watched, reference->record(watched), "slots-linked",
                     "the slot's seed and actions were the same, other slots' were not");
        if (!resets_slots_ || i % 10 != 9) return;
        std::vector<std::uint8_t> which(options_.slots, 0);
        which[(watched + 1 + rng_.below(options_.slots - 1)) % options_.slots] = 1;
        other->reset(seeds(6 + static_cast<std::uint64_t>(i)), which);
      });
    }
  }

  // After a reset a batch that has played does what a new one does.
  void reset_afresh() {
    const auto used = open(config_);
    used->reset(seeds(7));
    ProbeActions actions;
    for (std::int64_t i = 0; i < 5 * least_steps; ++i) {
      used->draw(rng_, actions);
      used->step(actions);
    }
    const auto fresh = open(config_);
    const auto compare = [&] {
      for (std::size_t slot = 0; slot < options_.slots; ++slot) {
        require_same(*used, slot, fresh->record(slot), "reset-keeps-state",
                     "a batch that had played before its reset differs from a new one");
      }
    };
    fresh->reset(seeds(8));
    used->reset(seeds(8));
    compare();
    steps(options_.steps / 4, [&](std::int64_t) {
      fresh->draw(rng_, actions);
      fresh->step(actions);
      used->step(actions);
      compare();
    });
  }

  void snapshots() {
    const auto probe = open(config_);
    if (!probe->spec().can_snapshot) return skip("it has no snapshots: a resumed run begins its episodes anew");
    const auto elsewhere = open(config_);
    probe->reset(seeds(9));
    elsewhere->reset(seeds(10));
    ProbeActions actions, actions_there;
    for (int trial = 0; trial < snapshot_trials; ++trial) {
      for (std::uint64_t i = rng_.below(17) + 1; i > 0; --i) {
        probe->draw(rng_, actions);
        probe->step(actions);
      }
      const std::size_t slot = rng_.below(options_.slots);
      const auto bytes = probe->snapshot(slot);
      const auto shown = probe->record(slot, true);
      std::vector<ProbeActions> played;
      std::vector<std::vector<std::byte>> wanted;
      for (int i = 0; i < steps_after_snapshot; ++i) {
        probe->draw(rng_, actions);
        probe->step(actions);
        played.push_back(actions);
        wanted.push_back(probe->record(slot));
      }
      for (Probe* target : {probe.get(), elsewhere.get()}) {
        const char* where = target == probe.get() ? "after restore()" : "after restore() in another batch";
        if (const auto refused = target->restore(slot, bytes)) {
          throw EnvironmentFault("restore", text("slot ", slot, ": a snapshot just taken is refused: ", *refused));
        }
        require_same(*target, slot, shown, "restore", text(where, ", from what the state showed"), true);
        if (target->snapshot(slot) != bytes) {
          throw EnvironmentFault("snapshot", text("slot ", slot, ": its snapshot ", where,
                                                  " is not the one restored; equal states give equal bytes"));
        }
        for (std::size_t i = 0; i < played.size(); ++i) {
          target->draw(rng_, actions_there);
          copy_action(*target, played[i], actions_there, slot);
          target->step(actions_there);
          require_same(*target, slot, wanted[i], "restore", text(where, ", from what was played before it"));
        }
      }
    }
    auto bytes = probe->snapshot(0);
    if (bytes.empty()) throw EnvironmentFault("snapshot", "it is empty");
    bytes.pop_back();
    if (!probe->restore(0, bytes)) {
      throw EnvironmentFault(
          "restore", text("a snapshot that lacks its last byte (", bytes.size(), " left) is taken, wanted an error"));
    }
  }

  // Another limit than the environment's own.
  void short_episodes() {
    EnvConfig config = config_;
    config.max_episode_steps = short_limit;
    const auto probe = open(config);
    if (probe->spec().max_episode_steps != short_limit) {
      throw EnvironmentFault("limit-ignored", text("asked for max_episode_steps ", short_limit, ", its spec says ",
                                                   probe->spec().max_episode_steps));
    }
    probe->reset(seeds(11));
    ProbeActions actions;
    for (std::int64_t i = 0; i < 4 * short_limit; ++i) {
      probe->draw(rng_, actions);
      probe->step(actions);
      for (std::size_t slot = 0; slot < options_.slots; ++slot) {
        if (probe->episode_steps(slot) < short_limit || probe->ended(slot)) continue;
        throw EnvironmentFault("limit-ignored", text(probe->where(slot), ": asked for max_episode_steps ", short_limit,
                                                     ", the episode goes on"));
      }
    }
  }

  void picture() {
    VectorEnv env(make(config_, 1), 1);
    if (!env.spec().can_render) return skip("it has no render()");
    try {
      env.reset(std::vector<std::uint64_t>{options_.seed});
      int height = 0;
      int width = 0;
      static_cast<void>(env.render(0, height, width));
      saw("picture: ", height, " x ", width);
    } catch (const Error& error) {
      throw EnvironmentFault("render", error.what());
    }
  }

  EnvOpener open_;
  EnvConfig config_;
  CheckOptions options_;
  Rng rng_;
  CheckReport report_;
  std::vector<std::shared_ptr<HostEvents>> events_;  // of all that were made
  std::vector<Seen> seen_;
  Episodes episodes_;
  bool resets_slots_ = true;  // single ones can be reset
  bool seeds_slots_ = true;   // each has random numbers of its own
};

}  // namespace

CheckReport check_environment(const EnvOpener& open, const EnvConfig& config, const CheckOptions& options) {
  return Check(open, config, options).run();
}

}  // namespace qanat::envs
