// A shard under messages that no honest actor or learner sends: it goes on, says no, counts them, and what it holds
// stays as it was.
#include <filesystem>
#include <limits>

#include "tests/system/besieged.h"

namespace qanat::system_test {

TEST_CASE("hostile: inserts whose parts do not fit their head are dropped without an answer and counted", "[hostile]") {
  Besieged world;
  fill(world);
  std::vector<wire::Message> messages;
  const auto spoil = [&](auto how) {
    Chunk chunk(1, 0, 0, 4);
    how(chunk);
    messages.push_back(chunk.message());
  };
  spoil([](Chunk& c) { c.numbers.pop_back(); });
  spoil([](Chunk& c) { c.flags.push_back(0); });
  spoil([](Chunk& c) { c.actions.clear(); });
  spoil([](Chunk& c) { c.head.chunks.clear(); });
  spoil([](Chunk& c) { c.chunk().rows = 0; });
  spoil([](Chunk& c) { c.chunk().rows = std::numeric_limits<std::uint32_t>::max(); });
  spoil([](Chunk& c) { c.chunk().item_starts = {0, 1}; });
  // Two chunks whose rows add up in 32 bits only.
  spoil([](Chunk& c) {
    c.head.chunks.push_back(c.chunk());
    c.head.chunks[1].rows = std::numeric_limits<std::uint32_t>::max() - 3 + 4;
  });
  {
    Chunk chunk(1, 0, 0, 4);
    auto parts = chunk.parts();
    parts.pop_back();
    messages.push_back(wire::encode(chunk.head, std::move(parts)));
  }
  for (std::size_t cut : {0, 1, 9, 20}) {
    auto message = Chunk(1, 0, 0, 4).message();
    message.head.resize(cut);
    messages.push_back(std::move(message));
  }
  messages.push_back(wire::encode(wire::SampleRequest{1, 1, 1, 0}));  // a question to the wrong service
  messages.push_back({999, {}, {}});
  const auto count = messages.size();
  for (auto& message : messages) CHECK(world.ask(world.insert, std::move(message)).empty());
  CHECK(world.refused() == static_cast<double>(count));
  CHECK(world.shard().items() == 9);
  CHECK(world.shard().resident_rows() == 10);
  CHECK(acks_of(world.ask(world.insert, Chunk(1, 0, 0, 4).message())).at(0).status == wire::AckStatus::applied);
}

TEST_CASE("hostile: chunks that make no stream are refused with the reason, and nothing of them is kept", "[hostile]") {
  Besieged world;
  fill(world);
  std::vector<std::pair<std::string, Chunk>> cases;
  const auto add = [&](const std::string& reason, Chunk chunk, auto how) {
    how(chunk);
    cases.emplace_back(reason, std::move(chunk));
  };
  constexpr auto most = std::numeric_limits<std::uint64_t>::max();
  const auto infinite = std::numeric_limits<float>::infinity();
  add("wanted 1", Chunk(0, 5, 10, 2), [](Chunk&) {});
  add("wanted 1", Chunk(0, most, 10, 2), [](Chunk&) {});
  add("wanted 10", Chunk(0, 1, 11, 2), [](Chunk&) {});
  add("wanted 10", Chunk(0, 1, most, 2), [](Chunk&) {});
  add("rows, wanted 1 to", Chunk(0, 1, 10, capacity / 2 + 1), [](Chunk&) {});
  add("bits 0 to 3", Chunk(0, 1, 10, 2), [](Chunk& c) { c.flags[1] = 255; });
  add("no first-row flag", Chunk(0, 1, 10, 2), [](Chunk& c) { c.flags[0] = flag_first; });
  add("after an episode's end", Chunk(0, 1, 10, 2), [](Chunk& c) { c.flags[0] = flag_last_observation; });
  add("the last observation alone", Chunk(0, 1, 10, 2), [](Chunk& c) { c.flags[0] = flag_terminated; });
  const auto price = [](std::uint64_t row, float value) {
    return [row, value](Chunk& c) {
      c.chunk().item_starts = {row};
      c.chunk().item_priorities = {value};
    };
  };
  add("finite", Chunk(0, 1, 10, 2), price(10, std::numeric_limits<float>::quiet_NaN()));
  add("finite", Chunk(0, 1, 10, 2), price(10, infinite));
  add("finite", Chunk(0, 1, 10, 2), price(10, -1));
  add("does not complete", Chunk(0, 1, 10, 2), price(3, 1));
  add("does not complete", Chunk(0, 1, 10, 2), price(most, 1));
  for (const auto& [reason, chunk] : cases) {
    const auto acks = acks_of(world.ask(world.insert, chunk.message()));
    REQUIRE(acks.size() == 1);
    INFO(acks[0].reason << " should say: " << reason);
    CHECK(acks[0].status == wire::AckStatus::refused);
    CHECK(acks[0].reason.find(reason) != std::string::npos);
    CHECK(acks[0].next_sequence == 1);
  }
  CHECK(world.refused() == static_cast<double>(cases.size()));
  CHECK(world.shard().items() == 9);
  CHECK(world.shard().resident_rows() == 10);
  CHECK(world.shard().counters().refused_chunks == cases.size());
  CHECK(acks_of(world.ask(world.insert, Chunk(0, 1, 10, 2).message())).at(0).status == wire::AckStatus::applied);
}

TEST_CASE("hostile: a chunk that no lease would ever cover is refused at once instead of holding up the others",
          "[hostile]") {
  Besieged world({.ratio = 1});
  fill(world);
  // The ledger counts and nobody draws, so no lease for as many steps as the shard holds could come.
  const auto acks = acks_of(world.ask(world.insert, Chunk(2, 0, 0, capacity).message()));
  REQUIRE(acks.size() == 1);
  CHECK(acks[0].status == wire::AckStatus::refused);
  CHECK(world.server->quiet());
  CHECK(acks_of(world.ask(world.insert, Chunk(2, 0, 0, 4).message())).at(0).status == wire::AckStatus::applied);
}

TEST_CASE("hostile: a message that is refused, or was large once, does not make a shard ask for the others' credits",
          "[hostile]") {
  Besieged world({.ratio = 1, .shards = 2, .rows = 4 * capacity});
  auto other_options = world.member(wire::Role::replay, 51);
  other_options.index = 1;
  control::Member other(world.context, world.clock, other_options);
  const auto turn = [&](int rounds) {
    for (int i = 0; i < rounds; ++i) {
      world.turn(1);
      other.step();
    }
  };
  turn(20);
  REQUIRE(other.joined());
  fill(world);
  // Longer than half of a shard, and nobody draws: the ledger's window is all that both shards have.
  const auto refused = acks_of(world.ask(world.insert, Chunk(2, 0, 0, 30'000).message()));
  REQUIRE(refused.at(0).status == wire::AckStatus::refused);
  turn(50);
  other.use(0, 100, 0);
  turn(20);
  CHECK(other.granted() == 100);

  // A large one that is taken is forgotten after some dozen small ones.
  std::uint64_t rows = 10;
  std::uint64_t sequence = 1;
  const auto insert = [&](std::size_t size) {
    const auto acks = acks_of(world.ask(world.insert, Chunk(0, sequence++, rows, size).message()));
    REQUIRE(acks.size() == 1);
    REQUIRE(acks[0].status == wire::AckStatus::applied);
    rows += size;
  };
  insert(100);
  for (int i = 0; i < 250; ++i) insert(1);
  const auto left = static_cast<std::uint64_t>(world.config.ratio_window() / 2) - (rows - 10);
  other.use(0, 100'000, 0);
  turn(20);
  CHECK(other.granted() <= left);
  CHECK(other.granted() + 40 >= left);
}

TEST_CASE("hostile: a chunk that is longer than the ratio's window is refused with the sum, and later ones go on",
          "[hostile]") {
  Besieged world({.ratio = 1, .rows = 4000, .window = 400});
  fill(world);
  const auto acks = acks_of(world.ask(world.insert, Chunk(1, 0, 0, 1000).message()));
  REQUIRE(acks.size() == 1);
  CHECK(acks[0].status == wire::AckStatus::refused);
  CHECK(acks[0].reason.find("1 * 1000 + 32 = 1032 trained steps, and the ratio's window is 400") != std::string::npos);
  for (std::uint32_t stream = 2; stream < 22; ++stream) {
    const auto later = acks_of(world.ask(world.insert, Chunk(stream, 0, 0, 5).message()));
    REQUIRE(later.size() == 1);
    CHECK(later[0].status == wire::AckStatus::applied);
  }
}

TEST_CASE("hostile: at stop.env_steps a flood ends within a chunk, and what it sent more is answered", "[hostile]") {
  Besieged world({.ratio = 0, .rows = 4000, .stop = 100});
  // 50 chunks of 16 steps at once; the run's own chunks have as many.
  for (std::uint32_t stream = 0; stream < 50; ++stream) {
    auto message = Chunk(stream, 0, 0, 16).message();
    REQUIRE(world.insert.send(message) == wire::Sent::yes);
  }
  world.turn(100);
  CHECK(world.head->status().env_steps >= 100);
  CHECK(world.head->status().env_steps <= 116);
  CHECK(world.shard().counters().inserted_steps <= 116);
  std::size_t applied = 0;
  std::size_t unwanted = 0;
  for (const auto& ack : acks_of(world.insert.receive_all())) {
    applied += ack.status == wire::AckStatus::applied ? 1 : 0;
    unwanted += ack.status == wire::AckStatus::unwanted ? 1 : 0;
    CHECK(ack.next_sequence == 1);
  }
  CHECK(applied == 7);
  CHECK(unwanted == 43);
  CHECK(world.server->quiet());
}

TEST_CASE("hostile: while inserts are held, what a flood may pile up in the shard is bounded", "[hostile]") {
  Besieged world({.ratio = 1});
  fill(world);
  std::uint64_t sequence = 0;
  std::uint64_t unsent = 0;
  for (int i = 0; i < 20'000 && unsent < 100; ++i) {
    auto message = Chunk(1, sequence, sequence * 50, 50).message();
    if (world.insert.send(message) == wire::Sent::yes) {
      ++sequence;
    } else {
      ++unsent;  // the flood waits at its source
    }
    if (i % 10 == 0) world.turn(1);
  }
  CHECK(unsent == 100);
  // Reads go on meanwhile.
  CHECK(sampled(world, 5).count == 5);
  CHECK(world.server->sockets().size() == 2);  // the inserts' socket does not wake the shard
}

TEST_CASE("hostile: requests of another epoch, of impossible sizes or cut short are dropped and counted", "[hostile]") {
  Besieged world;
  fill(world);
  std::vector<wire::Message> messages;
  constexpr auto most = std::numeric_limits<std::uint32_t>::max();
  messages.push_back(wire::encode(wire::SampleRequest{0, 1, 4, 0}));
  messages.push_back(wire::encode(wire::SampleRequest{2, 1, 4, 0}));
  messages.push_back(wire::encode(wire::SampleRequest{1, 1, (1 << 20) + 1, 0}));
  messages.push_back(wire::encode(wire::SampleRequest{1, 1, most, 0}));
  messages.push_back(wire::encode(wire::SampleRequest{1, 1, 4, 0, 0, 3}));  // more draws than strata
  messages.push_back(wire::encode(wire::SampleRequest{1, 1, 4, 0, 4, 4}));  // from the fifth of four
  messages.push_back(wire::encode(wire::SampleRequest{1, 1, 4, 0, 1, 0}));
  auto cut = wire::encode(wire::SampleRequest{1, 1, 4, 0});
  cut.head.resize(5);
  messages.push_back(std::move(cut));
  messages.push_back(Chunk(1, 0, 0, 4).message());  // an insert to the wrong service
  messages.push_back({999, {}, {}});
  const auto priorities = [&](wire::PriorityUpdate head, std::vector<wire::Frame> parts) {
    messages.push_back(wire::encode(head, std::move(parts)));
  };
  priorities({0, 50, 1}, update_parts({0}, {0}, {5}));
  priorities({1, 51, 1}, update_parts({0}, {0}, {5}));  // another shard's life
  priorities({1, 50, most}, update_parts({0}, {0}, {5}));
  priorities({1, 50, 2}, update_parts({0}, {0}, {5}));
  priorities({1, 50, 1}, update_parts({0}, {0}, {5, 5}));
  priorities({1, 50, 1}, {});
  messages.push_back(wire::encode(wire::SaveRequest{7, (world.directory / "elsewhere").string()}));
  const auto before = world.shard().item({actor, 0}, 0)->priority;
  const auto count = messages.size();
  for (auto& message : messages) CHECK(world.ask(world.sample, std::move(message)).empty());
  CHECK(world.refused() == static_cast<double>(count));
  CHECK(world.shard().items() == 9);
  CHECK(world.shard().item({actor, 0}, 0)->priority == before);
  CHECK_FALSE(std::filesystem::exists(world.directory / "elsewhere"));
  CHECK(sampled(world, 1 << 16).count == 1 << 16);
}

TEST_CASE("hostile: priorities that are no numbers, or of handles that never were, change nothing", "[hostile]") {
  Besieged world;
  fill(world);
  const auto before = world.shard().mass();
  constexpr auto far_slot = std::numeric_limits<std::uint32_t>::max();
  constexpr auto far_generation = std::numeric_limits<std::uint64_t>::max();
  const auto nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<std::uint32_t> slots = {0, 1, 2, 3, far_slot, capacity, 4, 9, 300};
  const std::vector<std::uint64_t> generations = {0, 1, 2, 3 + capacity, 0, 0, far_generation, 9, 300};
  const std::vector<float> values = {nan, -1, std::numeric_limits<float>::infinity(), 7, 7, 7, 7, 7, 7};
  (void)world.ask(world.sample, wire::PriorityUpdate{1, 50, static_cast<std::uint32_t>(slots.size())},
                  update_parts(slots, generations, values));
  CHECK(world.shard().mass() == before);
  CHECK(world.shard().counters().refused_updates == 3);
  CHECK(world.shard().counters().stale_updates == 6);
  (void)world.ask(world.sample, wire::PriorityUpdate{1, 50, 1}, update_parts({0}, {0}, {7}));
  CHECK(world.shard().item({actor, 0}, 0)->priority == 7);
}

TEST_CASE("hostile: a checkpoint is not written outside of the run's directory", "[hostile]") {
  Besieged world;
  fill(world);
  const test::TemporaryDirectory outside;
  for (const auto& directory : {(outside / "x").string(), (world.directory / "..").string() + "/qanat-outside",
                                std::string("relative"), std::string("/"), std::string()}) {
    const auto answers = world.ask(world.sample, wire::SaveRequest{1, directory});
    REQUIRE(answers.size() == 1);
    CHECK_FALSE(wire::decode<wire::SaveReply>(answers[0]).error.empty());
  }
  CHECK_FALSE(std::filesystem::exists(outside / "x"));
  auto answers = world.ask(world.sample, wire::SaveRequest{1, (world.directory / "checkpoints/a").string()});
  for (int i = 0; answers.empty() && i < 10'000; ++i) {
    wire::wait({}, Milliseconds(1));  // a thread writes it
    world.turn(1);
    answers = world.sample.receive_all();
  }
  REQUIRE(answers.size() == 1);
  CHECK(wire::decode<wire::SaveReply>(answers[0]).error.empty());
  CHECK(std::filesystem::exists(world.directory / "checkpoints/a/shard-0.bin"));
}

TEST_CASE("hostile: a learner that was replaced is refused by the shards", "[hostile]") {
  Besieged world;
  fill(world);
  CHECK(sampled(world, 3, 1).count == 3);
  world.learners.push_back(world.learner(2));  // takes the place of the first, which is stopped and knows nothing of it
  std::swap(world.learners[0], world.learners[1]);
  world.learners.pop_back();
  world.turn(400);  // until the head takes the silent one for dead
  REQUIRE(world.head->status().epoch == 2);
  CHECK(world.ask(world.sample, wire::SampleRequest{1, 9, 3, 0}).empty());
  (void)world.ask(world.sample, wire::PriorityUpdate{1, 50, 1}, update_parts({0}, {0}, {7}));
  CHECK(world.shard().item({actor, 0}, 0)->priority != 7);
  CHECK(world.refused() == 2);
  CHECK(sampled(world, 3, 2).count == 3);
}

TEST_CASE("hostile: thousands of damaged messages leave a shard that works", "[hostile]") {
  Besieged world;
  fill(world);
  Rng rng(5);
  const auto damage = [&](wire::Message message) {
    for (auto flips = 1 + rng.below(4); flips > 0; --flips) {
      std::span<std::byte> bytes = message.head;
      const auto part = rng.below(message.parts.size() + 2);
      if (part < message.parts.size()) bytes = message.parts[part].mutable_bytes();
      if (!bytes.empty()) bytes[rng.below(bytes.size())] ^= std::byte{static_cast<unsigned char>(1U << rng.below(8))};
    }
    if (rng.below(4) == 0 && !message.head.empty()) message.head.resize(rng.below(message.head.size()));
    if (rng.below(8) == 0 && !message.parts.empty()) message.parts.pop_back();
    return message;
  };
  // Right in all but the damage, so that it gets as far as it can; streams that no chunk belongs to yet.
  for (std::uint32_t i = 0; i < 4000; ++i) {
    Chunk chunk(100 + i, 0, 0, 4);
    chunk.chunk().item_starts = {0, 1, 2};
    chunk.chunk().item_priorities = {1, 2, 3};
    auto insert = damage(chunk.message());
    auto request = damage(wire::encode(wire::SampleRequest{1, i, 4, 1}));
    auto update = damage(wire::encode(wire::PriorityUpdate{1, 50, 2}, update_parts({0, 1}, {0, 1}, {1, 2})));
    (void)world.insert.send(insert);
    (void)world.sample.send(request);
    (void)world.sample.send(update);
    if (i % 8 == 0) world.turn(1);
    (void)world.insert.receive_all();
    (void)world.sample.receive_all();
  }
  world.turn(20);
  (void)world.insert.receive_all();
  (void)world.sample.receive_all();
  CHECK(world.refused() > 1000);
  CHECK(world.shard().resident_rows() <= capacity);
  CHECK(acks_of(world.ask(world.insert, Chunk(1, 0, 0, 4).message())).at(0).status == wire::AckStatus::applied);
  CHECK(sampled(world, 50).count == 50);
}

}  // namespace qanat::system_test
