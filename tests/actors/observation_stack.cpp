#include "actors/observation_stack.h"

#include <array>
#include <cstdint>

#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;

namespace {

std::vector<std::uint32_t> stack_of(ObservationStack& stack, std::uint32_t slot, std::size_t depth) {
  const std::array<std::uint32_t, 1> slots{slot};
  const auto rows = stack.stacks(slots);
  std::vector<std::uint32_t> out(depth);
  for (std::size_t k = 0; k < depth; ++k) std::memcpy(&out[k], rows.data + rows.index[k] * sizeof(std::uint32_t), 4);
  return out;
}

void push(ObservationStack& stack, std::uint32_t slot, std::uint32_t value, bool first) {
  stack.push(slot, reinterpret_cast<const std::byte*>(&value), first);
}

}  // namespace

TEST_CASE("observation stack: the episode's first row is repeated on the left, then rows move up") {
  ObservationStack stack(2, 3, sizeof(std::uint32_t));
  push(stack, 1, 10, true);
  CHECK(stack_of(stack, 1, 3) == std::vector<std::uint32_t>{10, 10, 10});
  push(stack, 1, 11, false);
  CHECK(stack_of(stack, 1, 3) == std::vector<std::uint32_t>{10, 10, 11});
  for (std::uint32_t value = 12; value < 20; ++value) {
    push(stack, 1, value, false);
    CHECK(stack_of(stack, 1, 3) == std::vector<std::uint32_t>{value - 2, value - 1, value});
  }
}

TEST_CASE("observation stack: a new episode takes nothing from the one before") {
  ObservationStack stack(1, 4, sizeof(std::uint32_t));
  for (std::uint32_t value = 0; value < 6; ++value) push(stack, 0, value, value == 0);
  push(stack, 0, 50, true);
  CHECK(stack_of(stack, 0, 4) == std::vector<std::uint32_t>{50, 50, 50, 50});
  push(stack, 0, 51, false);
  CHECK(stack_of(stack, 0, 4) == std::vector<std::uint32_t>{50, 50, 50, 51});
}

TEST_CASE("observation stack: a loaded one gives the same stacks from then on, at every age of an episode") {
  for (std::uint32_t age = 0; age < 6; ++age) {
    ObservationStack straight(1, 4, sizeof(std::uint32_t));
    for (std::uint32_t value = 0; value <= age; ++value) push(straight, 0, value, value == 0);
    ByteWriter bytes;
    straight.save(bytes);
    ObservationStack loaded(1, 4, sizeof(std::uint32_t));
    ByteReader in(bytes.bytes(), "test");
    loaded.load(in);
    in.expect_end();
    for (std::uint32_t value = age + 1; value < age + 8; ++value) {
      CHECK(stack_of(straight, 0, 4) == stack_of(loaded, 0, 4));
      push(straight, 0, value, false);
      push(loaded, 0, value, false);
    }
  }
}
