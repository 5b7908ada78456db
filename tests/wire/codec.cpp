// The codec: what goes in comes out, and nothing else gets through.
#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "core/error.h"
#include "random_heads.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::wire;

namespace {

// Writes a head by hand, field by field, to say what no encoder would.
class Bytes {
 public:
  template <class T>
  Bytes& put(T value) {
    const auto* first = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), first, first + sizeof value);
    return *this;
  }
  Bytes& put_string(std::string_view value) {
    put<std::uint64_t>(value.size());
    for (const char c : value) put(c);
    return *this;
  }
  template <class Head>
  Head decoded() const {
    Message message;
    message.type = static_cast<std::uint16_t>(Head::type);
    message.head = bytes_;
    return decode<Head>(message);
  }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

TEST_CASE("codec: every message type comes back as it was sent, whatever it holds") {
  Rng rng(1);
  testing::for_every_head([&]<class Head>() {
    INFO("type " << static_cast<int>(Head::type));
    for (int round = 0; round < 200; ++round) {
      const auto sent = encode(testing::random_head<Head>(rng));
      REQUIRE(sent.type == static_cast<std::uint16_t>(Head::type));
      REQUIRE(encode(decode<Head>(sent)).head == sent.head);
    }
  });
}

TEST_CASE("codec: fields keep their values, not only their bytes") {
  Join join;
  join.role = Role::replay;
  join.index = -1;
  join.incarnation = 0xfedcba9876543210;
  join.host = std::string("a\0b", 3);
  join.endpoints = {{"insert", {"tcp://127.0.0.1:5", "ipc:///tmp/x"}}, {"sample", {}}};
  EnvironmentSchema schema{"catch", {{{"board", DType::u8, {10, 5}}, 0, 255}}, 3, true, 100};
  join.schema = {schema};
  const auto back = decode<Join>(encode(join));
  CHECK(back.role == Role::replay);
  CHECK(back.index == -1);
  CHECK(back.incarnation == 0xfedcba9876543210);
  CHECK(back.host == std::string("a\0b", 3));
  CHECK(back.endpoints == join.endpoints);
  REQUIRE(back.schema.size() == 1);
  CHECK(back.schema.front() == schema);

  Heartbeat beat;
  beat.metrics = {{"loss", 0.25}};
  beat.episodes = {{-1.5, 7}};
  beat.traffic = {1, 2, 3, 4, 5};
  const auto beat_back = decode<Heartbeat>(encode(beat));
  CHECK(beat_back.metrics == beat.metrics);
  CHECK(beat_back.episodes == beat.episodes);
  CHECK(beat_back.traffic == beat.traffic);
}

TEST_CASE("codec: message types have numbers of their own") {
  std::set<std::uint16_t> seen;
  testing::for_every_head([&]<class Head>() { seen.insert(static_cast<std::uint16_t>(Head::type)); });
  CHECK(seen.size() == std::tuple_size_v<testing::AllHeads>);
}

TEST_CASE("codec: parts travel beside the head, untouched") {
  std::vector<Frame> parts;
  const std::vector<float> values{1, 2, 3};
  parts.push_back(Frame::copy_of(std::span<const float>(values)));
  parts.emplace_back();
  const auto message = encode(Weights{{1, 2}, 3, 4}, std::move(parts));
  REQUIRE(message.parts.size() == 2);
  CHECK(message.parts[0].size() == 12);
  CHECK(message.parts[1].size() == 0);
  CHECK(decode<Weights>(message).version == WeightVersion{1, 2});
}

TEST_CASE("codec: a message of another type is refused, even when its bytes would fit") {
  auto message = encode(Leave{1, "bye"});
  message.type = static_cast<std::uint16_t>(MessageType::join);
  CHECK_THROWS_AS(decode<Leave>(message), InputError);
  message.type = 0xffff;
  CHECK_THROWS_AS(decode<Leave>(message), InputError);
}

TEST_CASE("codec: a byte too many or too few is refused") {
  Rng rng(2);
  testing::for_every_head([&]<class Head>() {
    INFO("type " << static_cast<int>(Head::type));
    for (int round = 0; round < 5; ++round) {
      const auto whole = encode(testing::random_head<Head>(rng)).head;
      Message message;
      message.type = static_cast<std::uint16_t>(Head::type);
      for (std::size_t size = 0; size < whole.size(); ++size) {
        message.head.assign(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        REQUIRE_THROWS_AS(decode<Head>(message), InputError);
      }
      message.head = whole;
      message.head.push_back(std::byte{0});
      REQUIRE_THROWS_AS(decode<Head>(message), InputError);
    }
  });
}

TEST_CASE("codec: a length that the message cannot hold is refused before memory is taken for it") {
  const std::uint64_t lengths[] = {1000, std::uint64_t{1} << 32, std::uint64_t{1} << 61, ~std::uint64_t{0}};
  for (const auto length : lengths) {
    CHECK_THROWS_AS(Bytes().put<std::uint64_t>(1).put(length).decoded<Leave>(), InputError);   // a string
    CHECK_THROWS_AS(Bytes().put<std::uint64_t>(1).put(length).decoded<Insert>(), InputError);  // a list of structs
  }
}

TEST_CASE("codec: a list that claims more structs than its bytes hold costs what the bytes hold, not what it claims") {
  // 32 MiB of zeros that claim to be as many chunks. A chunk of zeros has 60 bytes, so half a million are read and
  // the refusal comes at the end; making room for all at once would take 3 GiB, which the limit does not allow.
  const std::uint64_t claimed = 32 << 20;
  Message message;
  message.type = static_cast<std::uint16_t>(Insert::type);
  message.head.assign(16 + claimed, std::byte{0});
  std::memcpy(message.head.data() + 8, &claimed, sizeof claimed);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // their shadow memory needs address space
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
  rlimit limited = before;
  limited.rlim_cur = std::min<rlim_t>(before.rlim_max, 2UL << 30);
  REQUIRE(setrlimit(RLIMIT_AS, &limited) == 0);
#endif
  CHECK_THROWS_AS(decode<Insert>(message), InputError);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  REQUIRE(setrlimit(RLIMIT_AS, &before) == 0);
#endif
}

TEST_CASE("codec: enumerations and booleans without meaning are refused, the last valid ones are not") {
  const auto leaving = [](std::uint8_t status) {
    return Bytes()
        .put<std::uint64_t>(1)
        .put<std::uint64_t>(1)
        .put<std::uint64_t>(2)
        .put<std::uint32_t>(3)
        .put<std::uint64_t>(4)
        .put(status)
        .put_string("")
        .put<std::uint64_t>(3)
        .decoded<InsertAck>();
  };
  CHECK(leaving(3).acks.front().status == AckStatus::unwanted);
  for (const std::uint8_t bad : {4, 128, 255}) CHECK_THROWS_AS(leaving(bad), InputError);

  const auto set_first = [](auto head, std::uint8_t byte) {
    auto message = encode(head);
    message.head.front() = std::byte{byte};
    return decode<decltype(head)>(message);
  };
  CHECK(set_first(Join{}, 5).role == Role::supervisor);
  CHECK_THROWS_AS(set_first(Join{}, 6), InputError);
  CHECK(set_first(HeartbeatReply{}, 0).known == false);
  CHECK_THROWS_AS(set_first(HeartbeatReply{}, 2), InputError);

  const auto state = [](std::uint8_t byte) {
    auto message = encode(HeartbeatReply{});
    message.head[9] = std::byte{byte};  // after known (1) and epoch (8)
    return decode<HeartbeatReply>(message);
  };
  CHECK(state(4).state == RunState::ended);
  CHECK_THROWS_AS(state(5), InputError);

  const auto member = [](std::uint8_t byte) {
    HeartbeatReply reply;
    reply.directory = {{1, {MemberInfo{Role::actor, 0, 1, MemberState::alive, 2, {}}}}};
    auto message = encode(reply);
    // known, epoch, state, an empty cause, one directory, its version, one member: role, index, incarnation
    message.head[1 + 8 + 1 + 8 + 8 + 8 + 8 + 1 + 8 + 8] = std::byte{byte};
    return decode<HeartbeatReply>(message);
  };
  CHECK(member(2).directory.front().members.front().state == MemberState::lost);
  CHECK_THROWS_AS(member(3), InputError);

  const auto dtype = [](std::uint8_t byte) {
    HeartbeatReply reply;
    reply.schema = {{"e", {{{"o", DType::u8, {}}, 0, 1}}, 1, false, 0}};
    auto message = encode(reply);
    // known, epoch, state, cause, directory, one schema: id of one letter, one observation: name of one letter
    message.head[1 + 8 + 1 + 8 + 8 + 8 + 9 + 8 + 9] = std::byte{byte};
    return decode<HeartbeatReply>(message);
  };
  CHECK(dtype(4).schema.front().observations.front().tensor.dtype == DType::f64);
  CHECK_THROWS_AS(dtype(5), InputError);
}

TEST_CASE("names: every role and state has one, and what is none says so") {
  CHECK(name_of(Role::supervisor) == "supervisor");
  CHECK(name_of(RunState::ended) == "ended");
  CHECK(name_of(static_cast<Role>(200)) == "unknown");
  CHECK(name_of(static_cast<RunState>(200)) == "unknown");
}
