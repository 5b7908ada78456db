// One shard with its head, and a stranger who can talk to both of its services; and messages for it.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "cli/roles.h"
#include "replay/run_schema.h"
#include "tests/core/temporary_directory.h"
#include "tests/support/catch.h"

namespace qanat::system_test {

using replay::flag_first;
using replay::flag_last_observation;
using replay::flag_terminated;

inline constexpr std::uint64_t capacity = 400;
inline constexpr std::uint64_t actor = 70;

struct SiegeOptions {
  double ratio = 0;
  std::int64_t shards = 1;  // of which only the first is there
  std::uint64_t rows = capacity;
  std::int64_t numbers = 2;  // f32, in an observation
  bool over_ipc = false;     // the shard; else, and the head always, over inproc
  std::int64_t window = 0;   // trained steps; 0: what the configuration says
  std::int64_t stop = 0;     // env steps
};

// A head, a shard and a stranger who can talk to both of the shard's services.
struct Besieged {
  explicit Besieged(const SiegeOptions& wanted = {}) : context(wanted.over_ipc ? 1 : 0) {
    config.replay.shards = wanted.shards;
    config.replay.capacity_steps = static_cast<std::int64_t>(wanted.rows);
    config.replay.ratio = wanted.ratio;
    config.replay.ratio_window_steps = wanted.window;
    config.stop.env_steps = wanted.stop;
    config.replay.min_size = 1;
    config.agent.n_step = 1;
    auto options = cli::head_options(config, directory.path().string());
    options.bind = {"inproc://head"};
    options.schema = {{"numbers", {{{"number", DType::f32, {wanted.numbers}}, 0, 1}}, 2, false, 0}};
    options.metrics_every = Seconds(0.01);
    head = std::make_unique<control::Head>(context, clock, log, options, nullptr);
    learners.push_back(learner(1));
    const auto place = wanted.over_ipc ? "ipc://" + (directory / "shard").string() : "inproc://shard";
    server = cli::make_replay({context, clock, log, config, member(wire::Role::replay, 50), {place}});
    turn(100);
    REQUIRE(server->shard() != nullptr);
    insert.connect(place + "-insert");
    sample.connect(place + "-sample");
  }

  control::MemberOptions member(wire::Role role, std::uint64_t incarnation) {
    control::MemberOptions options;
    options.role = role;
    options.index = 0;
    options.incarnation = incarnation;
    options.head = {"inproc://head"};
    return options;
  }
  std::unique_ptr<control::Member> learner(std::uint64_t incarnation) {
    return std::make_unique<control::Member>(context, clock, member(wire::Role::learner, incarnation));
  }

  void turn(int rounds = 40) {
    for (int i = 0; i < rounds; ++i) {
      clock.advance(Milliseconds(10));
      head->step();
      for (auto& one : learners) one->step();
      server->step();
    }
  }

  // What the shard answers on that service.
  std::vector<wire::Incoming> ask(wire::Socket& service, wire::Message message) {
    REQUIRE(service.send(message) == wire::Sent::yes);
    turn(3);
    return service.receive_all();
  }
  template <class Head>
  std::vector<wire::Incoming> ask(wire::Socket& service, const Head& asked, std::vector<wire::Frame> parts = {}) {
    return ask(service, wire::encode(asked, std::move(parts)));
  }

  [[nodiscard]] const replay::Shard& shard() const { return *server->shard(); }
  // As the head hears it.
  double refused() {
    turn(60);
    for (const auto& [name, value] : head->status().metrics) {
      if (name == "refused_messages") return value;
    }
    return 0;
  }

  test::TemporaryDirectory directory;
  cli::RunConfig config;
  wire::Context context;
  VirtualClock clock;
  Logger log{{.who = "siege", .path = directory / "siege.log", .to_stderr = false}};
  std::unique_ptr<control::Head> head;
  std::vector<std::unique_ptr<control::Member>> learners;
  std::unique_ptr<replay::ShardServer> server;
  wire::Socket insert{context, wire::SocketKind::dealer, {.identity = "stranger"}};
  wire::Socket sample{context, wire::SocketKind::dealer, {.identity = "stranger"}};
};

// An insert of one chunk, right as it stands; tests spoil it.
struct Chunk {
  wire::Insert head;
  std::vector<float> numbers;
  std::vector<std::int32_t> actions;
  std::vector<float> rewards;
  std::vector<std::uint8_t> flags;

  Chunk(std::uint32_t stream, std::uint64_t sequence, std::uint64_t first_row, std::size_t rows,
        std::size_t numbers_a_row = 2) {
    wire::ChunkHead chunk;
    chunk.incarnation = actor;
    chunk.slot = stream;
    chunk.sequence = sequence;
    chunk.first_row = first_row;
    chunk.rows = static_cast<std::uint32_t>(rows);
    chunk.priority_n = 1;
    head.epoch = 1;
    head.chunks = {chunk};
    numbers.assign(rows * numbers_a_row, 0.5F);
    actions.assign(rows, 1);
    rewards.assign(rows, 1);
    flags.assign(rows, 0);
    if (first_row == 0 && rows > 0) flags[0] = flag_first;
  }
  [[nodiscard]] wire::ChunkHead& chunk() { return head.chunks[0]; }
  [[nodiscard]] std::vector<wire::Frame> parts() const {
    std::vector<wire::Frame> out;
    out.push_back(wire::Frame::copy_of(std::span<const std::uint8_t>(flags)));
    out.push_back(wire::Frame::copy_of(std::span<const float>(rewards)));
    out.push_back(wire::Frame::copy_of(std::span<const std::int32_t>(actions)));
    out.push_back(wire::Frame::copy_of(std::span<const float>(numbers)));
    return out;
  }
  [[nodiscard]] wire::Message message() const { return wire::encode(head, parts()); }
};

inline std::vector<wire::StreamAck> acks_of(const std::vector<wire::Incoming>& answers) {
  std::vector<wire::StreamAck> out;
  for (const auto& answer : answers) {
    for (const auto& ack : wire::decode<wire::InsertAck>(answer).acks) out.push_back(ack);
  }
  return out;
}

// Ten rows of stream 0, nine items.
inline void fill(Besieged& world) {
  const auto acks = acks_of(world.ask(world.insert, Chunk(0, 0, 0, 10).message()));
  REQUIRE(acks.size() == 1);
  REQUIRE(acks[0].status == wire::AckStatus::applied);
  REQUIRE(world.shard().items() == 9);
}

inline wire::SampleReply sampled(Besieged& world, std::uint32_t count, std::uint64_t epoch = 1) {
  const auto answers = world.ask(world.sample, wire::SampleRequest{epoch, 9, count, 0});
  REQUIRE(answers.size() == 1);
  return wire::decode<wire::SampleReply>(answers[0]);
}

inline wire::Frame handles(const std::vector<std::uint32_t>& slots, const std::vector<std::uint64_t>& generations) {
  wire::Frame frame(slots.size() * 4 + generations.size() * 8);
  std::memcpy(frame.mutable_bytes().data(), slots.data(), slots.size() * 4);
  std::memcpy(frame.mutable_bytes().data() + slots.size() * 4, generations.data(), generations.size() * 8);
  return frame;
}

inline std::vector<wire::Frame> update_parts(const std::vector<std::uint32_t>& slots,
                                             const std::vector<std::uint64_t>& generations,
                                             const std::vector<float>& values) {
  std::vector<wire::Frame> out;
  out.push_back(handles(slots, generations));
  out.push_back(wire::Frame::copy_of(std::span<const float>(values)));
  return out;
}

}  // namespace qanat::system_test
