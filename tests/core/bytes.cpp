#include "core/bytes.h"

#include <limits>

#include "core/checksum.h"
#include "core/rng.h"
#include "tests/support/catch.h"

using namespace qanat;
using Catch::Matchers::Contains;

namespace {

struct Sample {
  std::uint8_t small = 7;
  std::int64_t large = std::numeric_limits<std::int64_t>::min();
  double real = -0.1;
  bool flag = true;
  std::string name = std::string("a\0b\n", 4);
  std::vector<float> values{1.5F, -2.5F, 0.0F};
  Rng::State state{1, 2, 3, 4};
  friend bool operator==(const Sample&, const Sample&) = default;
};

std::vector<std::byte> save(const Sample& s) {
  ByteWriter out;
  out.put(s.small);
  out.put(s.large);
  out.put(s.real);
  out.put(s.flag);
  out.put_string(s.name);
  out.put_vector(s.values);
  out.put(s.state);
  return out.take();
}

Sample load(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "state.bin");
  Sample s;
  s.small = in.get<std::uint8_t>("small");
  s.large = in.get<std::int64_t>("large");
  s.real = in.get<double>("real");
  s.flag = in.get<bool>("flag");
  s.name = in.get_string("name", 16);
  s.values = in.get_vector<float>("values", 8);
  s.state = in.get<Rng::State>("state");
  in.expect_end();
  return s;
}

}  // namespace

TEST_CASE("bytes: what was written reads back equal") { CHECK(load(save(Sample{})) == Sample{}); }

TEST_CASE("bytes: numbers are little-endian and lengths are 64 bits") {
  ByteWriter out;
  out.put<std::uint32_t>(0x01020304);
  out.put_string("x");
  const std::vector<std::byte> wanted{std::byte{4}, std::byte{3}, std::byte{2},  std::byte{1}, std::byte{1},
                                      std::byte{0}, std::byte{0}, std::byte{0},  std::byte{0}, std::byte{0},
                                      std::byte{0}, std::byte{0}, std::byte{'x'}};
  CHECK(out.take() == wanted);
  CHECK(out.bytes().empty());
}

TEST_CASE("bytes: every truncation is refused, and one byte too many") {
  auto bytes = save(Sample{});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    CAPTURE(size);
    CHECK_THROWS_AS(load(std::span(bytes).first(size)), InputError);
  }
  bytes.push_back(std::byte{0});
  CHECK_THROWS_WITH(load(bytes), Contains("state.bin: end at byte") && Contains("1 bytes too many"));
}

TEST_CASE("bytes: flipped bits are read as other values or refused, never as other memory") {
  // The sanitizer build is what makes this test sharp. 20,000 is about 25 trials a bit.
  const auto good = save(Sample{});
  Rng rng(1);
  int refused = 0;
  for (int trial = 0; trial < 20'000; ++trial) {
    auto bytes = good;
    for (std::uint64_t flips = 1 + rng.below(4); flips > 0; --flips) {
      bytes[rng.below(bytes.size())] ^= static_cast<std::byte>(1 << rng.below(8));
    }
    try {
      const Sample seen = load(bytes);
      CHECK(seen.name.size() <= 16);
      CHECK(seen.values.size() <= 8);
    } catch (const InputError&) {
      ++refused;
    }
  }
  CHECK(refused > 1000);  // 17 of the 88 bytes are lengths or the flag, so about a third of the trials
}

TEST_CASE("bytes: a huge length is refused before memory is taken") {
  ByteWriter out;
  out.put<std::uint64_t>(std::numeric_limits<std::uint64_t>::max() / 2);
  const auto bytes = out.take();
  const auto any = std::numeric_limits<std::uint64_t>::max();
  CHECK_THROWS_WITH(ByteReader(bytes, "f").get_string("name", 100), Contains("name") && Contains("at most 100"));
  CHECK_THROWS_WITH(ByteReader(bytes, "f").get_string("name", any), Contains("only 0 bytes are left"));
  // 2^63 - 1 doubles: the product with 8 would overflow to a small number.
  CHECK_THROWS_AS(ByteReader(bytes, "f").get_vector<double>("values", any), InputError);
}

TEST_CASE("bytes: a flag that is neither 0 nor 1 is refused, by name") {
  const std::vector<std::byte> bytes{std::byte{2}};
  CHECK_THROWS_WITH(ByteReader(bytes, "f").get<bool>("terminated"), Contains("f: terminated") && Contains("saw 2"));
}

TEST_CASE("bytes: reading into the caller's memory wants the exact count") {
  ByteWriter out;
  out.put_vector(std::vector<std::int32_t>{1, 2, 3});
  const auto bytes = out.take();
  std::array<std::int32_t, 3> three{};
  ByteReader(bytes, "f").get_vector_into<std::int32_t>("rows", three);
  CHECK(three == std::array<std::int32_t, 3>{1, 2, 3});
  std::array<std::int32_t, 4> four{};
  CHECK_THROWS_WITH(ByteReader(bytes, "f").get_vector_into<std::int32_t>("rows", four),
                    Contains("saw 3 elements, wanted 4"));
}

TEST_CASE("checksum: the published value of no bytes, and independence from how bytes are cut") {
  CHECK(checksum({}) == 0x2d06800538d394c2ULL);  // XXH3_64bits of the empty input, xxHash specification
  std::vector<std::byte> bytes(5000);
  Rng rng(3);
  for (auto& byte : bytes) byte = static_cast<std::byte>(rng.next());
  const auto whole = checksum(bytes);
  for (int trial = 0; trial < 200; ++trial) {
    Checksum pieces;
    std::span<const std::byte> rest = bytes;
    while (!rest.empty()) {
      const auto size = std::min<std::size_t>(rest.size(), rng.below(700));
      pieces.add(rest.first(size));
      rest = rest.subspan(size);
    }
    CHECK(pieces.value() == whole);
  }
  bytes[2500] ^= std::byte{1};
  CHECK(checksum(bytes) != whole);
}
