// Random damage to every message type. Run under ASan and UBSan this is the decoders' safety net.
#include <cstring>

#include "core/error.h"
#include "random_heads.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::wire;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

void fuzz(std::uint8_t kind, std::vector<std::byte> head) {
  head.insert(head.begin(), std::byte{kind});
  LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(head.data()), head.size());
}

}  // namespace

TEST_CASE("hostile bytes: a damaged head is refused or is a head, for every type") {
  Rng rng(3);
  std::uint8_t kind = 0;
  testing::for_every_head([&]<class Head>() {
    for (int round = 0; round < 300; ++round) {
      auto head = encode(testing::random_head<Head>(rng)).head;
      if (head.empty()) continue;
      for (auto flips = 1 + rng.below(4); flips > 0; --flips) {
        head[rng.below(head.size())] ^= static_cast<std::byte>(1U << rng.below(8));
      }
      if (rng.chance(0.2)) head.resize(rng.below(head.size() + 1));
      fuzz(kind, std::move(head));
    }
    ++kind;
  });
  CHECK(kind == std::tuple_size_v<testing::AllHeads>);
}

TEST_CASE("hostile bytes: hostile lengths at every place of every head") {
  Rng rng(4);
  std::uint8_t kind = 0;
  const std::uint64_t lengths[] = {std::uint64_t{1} << 16, std::uint64_t{1} << 40, ~std::uint64_t{0},
                                   ~std::uint64_t{0} / 8};
  testing::for_every_head([&]<class Head>() {
    const auto whole = encode(testing::random_head<Head>(rng)).head;
    for (std::size_t at = 0; at + 8 <= whole.size(); ++at) {
      for (const auto length : lengths) {
        auto head = whole;
        std::memcpy(head.data() + at, &length, sizeof length);
        fuzz(kind, std::move(head));
      }
    }
    ++kind;
  });
  CHECK(kind == std::tuple_size_v<testing::AllHeads>);
}

TEST_CASE("hostile bytes: noise is refused or is a head, for every type") {
  Rng rng(5);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::byte> head(rng.below(200));
    // Mostly zeros: lengths are then small and the decoder gets further.
    for (auto& byte : head) byte = rng.chance(0.8) ? std::byte{0} : static_cast<std::byte>(rng.next());
    fuzz(static_cast<std::uint8_t>(rng.below(256)), std::move(head));
  }
  SUCCEED("nothing crashed");
}
