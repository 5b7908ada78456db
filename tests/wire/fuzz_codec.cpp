// The decoders' fuzz target, in libFuzzer's form: `clang++ -fsanitize=fuzzer,address` on this file and the room
// makes a fuzzer of it; hostile_bytes.cpp drives it with fixed seeds.
#include <cstdint>
#include <cstdlib>

#include "core/error.h"
#include "random_heads.h"

// The first byte picks the message type, the rest are its head. Anything but InputError or a head that encodes to
// the same bytes again is a bug.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace qanat::wire;
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data + 1, size - 1));
  std::size_t kind = 0;
  testing::for_every_head([&]<class Head>() {
    if (kind++ != data[0] % std::tuple_size_v<testing::AllHeads>) return;
    Message message;
    message.type = static_cast<std::uint16_t>(Head::type);
    message.head.assign(bytes.begin(), bytes.end());
    try {
      if (encode(decode<Head>(message)).head != message.head) std::abort();
    } catch (const qanat::InputError&) {
      return;  // as it should be
    }
  });
  return 0;
}
