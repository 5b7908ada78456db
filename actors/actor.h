// An actor's process: steps environments with the newest weights and streams what happens to the replay shards.
//
// A control::Role: one thread, never blocks. Two groups of slots take turns; each step() moves at most one group by one
// env step. It waits (and says so in its metrics) for the run to start, for the first weights, for a shard, and for
// credits: chunks in flight are bounded. When the run drains it sends what it has, waits for acknowledgements and
// leaves. An actor that the head gave up on, or that hears no head for too long, ends with an error.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "actors/config.h"
#include "actors/experience_writer.h"
#include "actors/observation_stack.h"
#include "actors/policy.h"
#include "actors/priority_window.h"
#include "control/member.h"
#include "control/role.h"
#include "control/weights.h"
#include "core/rng.h"
#include "envs/vector_env.h"

namespace qanat::actors {

struct ActorOptions {
  control::MemberOptions member;
  ActorsConfig actors;
  envs::EnvConfig environment;
  AgentView agent;
  nn::NetworkConfig network;
  std::int64_t stack = 1;
  std::string device = "cpu";
  std::uint64_t seed = 0;                                // the run's
  Milliseconds resend_after{2000};                       // see ShardLink
  std::size_t most_part_bytes = std::size_t{256} << 20;  // that a shard accepts
};

class Actor : public control::Role {
 public:
  // Makes the environments. Throws ConfigError when they, the network or the settings do not fit.
  Actor(wire::Context& context, const Clock& clock, Logger& log, ActorOptions options);
  ~Actor() override;

  // Throws RunError when no head was heard for too long or a shard refuses our data, ConfigError when the head refuses
  // us, InputError when the weights are another network's.
  bool step() override;
  [[nodiscard]] std::vector<wire::Socket*> sockets() override;
  [[nodiscard]] bool finished() const override { return finished_; }
  void request_stop(const std::string& cause) override;

  [[nodiscard]] std::uint64_t env_restarts() const;             // of hosted environments' processes
  [[nodiscard]] std::uint64_t steps() const { return steps_; }  // env steps of this process
  [[nodiscard]] std::uint64_t weights_version() const { return policy_ ? policy_->version() : 0; }
  [[nodiscard]] const ExperienceWriter& writer() const { return *writer_; }

  // Lockstep: quiesce() ends stepping; quiet() holds once everything sent is acknowledged. Then save() may be called,
  // and resume() goes on. Chunks not full yet are part of the state rather than sent early, so that a run that saves
  // cuts its streams into the same chunks as one that does not.
  void quiesce() { quiescing_ = true; }
  [[nodiscard]] bool quiet() const { return quiescing_ && writer_->all_acked(); }
  void resume() { quiescing_ = false; }

  // Everything that decides what comes next: environments, random numbers, streams, windows, stacks, weights. load() is
  // for a fresh actor of the same options, before its first step(). Where the environment cannot be saved, episodes
  // begin anew and the log says so. Throws InputError.
  void save(ByteWriter& out) const;
  void load(ByteReader& in);

 private:
  struct Group {
    std::size_t first_slot = 0;
    std::unique_ptr<envs::VectorEnv> env;
    std::optional<ObservationStack> stack;
    std::size_t steps_in_chunk = 0;
    bool submitted = false;
    std::vector<std::int32_t> actions;
    std::vector<float> best_q, taken_q;
    std::vector<std::uint32_t> all;  // 0 .. slots-1
  };
  // Values that truncated episodes bootstrap from.
  struct LastObservations {
    std::vector<std::uint32_t> slots;  // truncated and not terminated in this step
    std::vector<float> best_q;         // [slots of a group]: of those slots; the others' are not looked at
  };
  // Of the time since the last metrics. By the wall clock: asking for a thread's processor time is a system call, as
  // dear as several steps of a small environment.
  struct Times {
    Nanoseconds since{0};
    Nanoseconds busy{0};
    Nanoseconds env{0};
    Nanoseconds inference{0};
    Nanoseconds blocked{0};
  };

  bool serve();
  void start();
  void start_episodes(Group& group);
  void follow_directory();
  void use_weights();
  void restart_windows();
  bool step_groups();
  bool step_group(std::size_t index);
  void choose_actions(Group& group, const QValues& values);
  void value_last_observations(Group& group);
  void record(Group& group, std::uint64_t weights_version);
  void record_end(Group& group, std::size_t slot);
  Nanoseconds uninterrupted(Nanoseconds pass);
  void submit(std::size_t index);
  void drain();
  void measure();
  void report_environments();
  void report_traffic();
  // The slot's current or last observation; views hold until the next call of this or of the environment.
  [[nodiscard]] Observation observation_of(const Group& group, std::size_t slot, bool last);
  [[nodiscard]] const std::uint8_t* mask_of(const Group& group, std::size_t slot, bool last) const;
  void update_epsilons();

  const Clock& clock_;
  Logger& log_;
  ActorOptions options_;
  std::array<Group, 2> groups_;
  wire::EnvironmentSchema schema_;
  nn::NetworkSpec network_;
  nn::Normalization normalization_;
  std::uint64_t layout_;
  std::size_t group_slots_;
  std::string precision_;
  std::unique_ptr<LocalPolicy> policy_;
  control::Member member_;
  control::WeightSubscriber weights_;
  std::unique_ptr<ExperienceWriter> writer_;
  PriorityWindows windows_;
  Rng rng_;

  std::vector<const std::byte*> columns_;
  std::vector<double> epsilons_;  // [slots]
  LastObservations last_;
  std::vector<PricedItem> priced_;
  std::vector<std::size_t> restarted_;
  std::size_t turn_ = 0;
  std::uint64_t steps_ = 0;
  std::uint64_t directory_seen_ = 0;
  Nanoseconds served_{0};
  bool stepped_ = false;
  bool started_ = false;
  Nanoseconds started_at_{0};
  bool acting_ = false;  // weights have come
  bool loaded_ = false;
  bool environments_loaded_ = false;
  bool quiescing_ = false;
  bool stopping_ = false;
  bool flushed_ = false;
  bool finished_ = false;
  std::string stop_cause_;
  Nanoseconds drain_since_{0};
  std::optional<Nanoseconds> blocked_since_;
  Times times_;
  Nanoseconds typical_pass_{0};
};

}  // namespace qanat::actors
