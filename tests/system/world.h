// A run of real roles over real sockets in one thread: head, shards, actors; the test is the learner. Between actors
// and shards stands an interloper that keeps a tape of all inserts.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "actors/environment.h"
#include "actors/policy.h"
#include "cli/roles.h"
#include "control/weights.h"
#include "tests/core/temporary_directory.h"
#include "tests/system/interloper.h"
#include "tests/system/tape.h"

namespace qanat::system_test {

class World {
 public:
  // `scheme`: "ipc" or "tcp", for all but the interlopers, which clients reach over tcp.
  World(cli::RunConfig config, const std::string& scheme);

  // A new process of that index: the one before, if any, is gone without a word. `tag`: of its witness observations.
  void start_actor(std::size_t index, std::int64_t tag);

  // Everybody once, actors `actor_steps` times; true when something was done.
  bool round(int actor_steps = 8);
  // Rounds until `done`; a run that hangs fails after a minute.
  template <class Done>
  void until(Done done, int actor_steps = 8) {
    const auto limit = clock.now() + std::chrono::seconds(120);
    while (!done()) {
      if (!round(actor_steps)) wire::wait({}, Milliseconds(1));
      if (clock.now() > limit) FAIL("two minutes went by");
    }
  }
  // New random parameters for the actors.
  void publish(std::uint64_t version);
  // Asks for batches and hands them to `take` as they come; 0 actor steps: nothing is inserted meanwhile.
  template <class Take>
  void draw(std::size_t batches, Take take, int actor_steps = 8) {
    std::size_t requested = 0;
    std::size_t taken = 0;
    until(
        [&] {
          while (requested < batches && client->in_flight() < 2 && client->request()) ++requested;
          while (auto batch = client->take()) {
            take(*batch);
            ++taken;
          }
          return taken == batches;
        },
        actor_steps);
  }

  [[nodiscard]] const replay::Shard& shard(std::size_t index) const { return *shards[index]->shard(); }
  [[nodiscard]] std::uint64_t stored_rows() const {
    std::uint64_t sum = 0;
    for (const auto& ring : logs) sum += ring.end();
    return sum;
  }

  test::TemporaryDirectory directory;
  cli::RunConfig config;
  wire::Context context;
  SteadyClock clock;
  Logger log;
  std::unique_ptr<control::Head> head;
  control::WeightPublisher publisher;
  std::unique_ptr<control::Member> learner;
  std::unique_ptr<replay::ReplayClient> client;
  nn::NetworkSpec network;
  wire::EnvironmentSchema schema;
  std::unique_ptr<Tape> tape;
  std::vector<std::unique_ptr<replay::ShardServer>> shards;
  std::vector<std::unique_ptr<Interloper>> registrars;  // between a shard and the head: names the interloper
  std::vector<std::unique_ptr<Interloper>> interlopers;
  std::vector<RingLog> logs;  // one a shard
  std::vector<std::unique_ptr<actors::Actor>> actors;
  std::vector<float> parameters;      // as published
  std::vector<std::byte> statistics;  // to publish with them

 private:
  std::string address(const std::string& name) const {
    return scheme_ == "tcp" ? "tcp://127.0.0.1:*" : "ipc://" + (directory / name).string();
  }
  control::MemberOptions member(wire::Role role, std::int64_t index, const std::string& head_address);
  void start_shard(std::size_t index);
  void join_learner();

  std::string scheme_;
  std::uint64_t next_incarnation_ = 1000;
};

}  // namespace qanat::system_test
