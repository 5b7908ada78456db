// A run in miniature for tests: the real head and weight publisher, fake shards, everything over inproc, the clock
// ours.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/actor.h"
#include "actors/environment.h"
#include "actors/policy.h"
#include "control/head.h"
#include "control/weights.h"
#include "core/rng.h"
#include "tests/actors/fake_shard.h"

namespace qanat::actors {

inline control::MemberOptions member_options(wire::Role role, std::uint64_t incarnation) {
  control::MemberOptions member;
  member.role = role;
  member.incarnation = incarnation;
  member.head = {"inproc://head"};
  return member;
}

// Time goes by for a role that hears nobody. In small steps: a role that did not run for long does not count that as
// silence of the head.
template <class Role>
void hear_nobody(VirtualClock& clock, Role& role, Milliseconds time) {
  for (; time > Milliseconds(0); time -= Milliseconds(100)) {
    clock.advance(Milliseconds(100));
    role.step();
  }
}

struct SmallRun {
  struct Shard {
    FakeShard store;
    control::Member member;
  };

  wire::Context context;
  VirtualClock clock;
  Logger log{{.who = "test", .path = {}, .to_stderr = false}};
  control::Head head;
  control::WeightPublisher publisher;
  control::Member learner;
  std::vector<std::unique_ptr<Shard>> shards;

  explicit SmallRun(std::size_t shard_count = 2)
      : head(context, clock, log, head_options(shard_count), {}),
        publisher(context, {"inproc://learner"}),
        learner(context, clock, [&] {
          auto options = member_options(wire::Role::learner, 1);
          options.endpoints = publisher.endpoints();
          return options;
        }()) {
    for (std::size_t i = 0; i < shard_count; ++i) add_shard(static_cast<std::int64_t>(i), 100 + i);
  }

  void add_shard(std::int64_t index, std::uint64_t incarnation) {
    FakeShard store(context, text("inproc://shard-", incarnation), incarnation);
    auto options = member_options(wire::Role::replay, incarnation);
    options.index = index;
    options.endpoints = {{"insert", {store.address}}};
    shards.push_back(std::make_unique<Shard>(Shard{std::move(store), {context, clock, options}}));
  }

  // Everybody but the actor, once; the clock moves on by 10 ms.
  void step() {
    clock.advance(Milliseconds(10));
    (void)head.step();
    (void)learner.step();
    (void)publisher.step();
    for (auto& shard : shards) {
      (void)shard->member.step();
      (void)shard->store.step();
    }
  }

  // Steps the role and the others in turn until `done`, which must happen within `limit` rounds.
  template <class Done>
  void until(control::Role& role, Done done, int limit = 20'000) {
    for (int i = 0; i < limit && !done(); ++i) {
      step();
      (void)role.step();
    }
    REQUIRE(done());
  }

  void publish(const nn::NetworkSpec& network, std::uint64_t version, std::uint64_t seed,
               std::span<const std::byte> statistics = {}) {
    std::vector<float> parameters(nn::parameter_count(network));
    Rng rng(seed);
    nn::initialise(network, rng, parameters);
    publisher.publish({1, version}, nn::layout_hash(network), parameters, statistics);
  }

 private:
  static control::HeadOptions head_options(std::size_t shard_count) {
    control::HeadOptions options;
    options.bind = {"inproc://head"};
    options.expected_shards = static_cast<std::int64_t>(shard_count);
    return options;
  }
};

}  // namespace qanat::actors
