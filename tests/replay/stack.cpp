#include "replay/stack.h"

#include <array>

#include "tests/support/catch.h"

using namespace qanat::replay;

TEST_CASE("stack: rows go oldest first and the episode's first row pads the left") {
  // Episode of rows 10.., depth 4.
  const auto stack_of = [](std::uint64_t t) {
    std::array<std::uint64_t, 4> rows{};
    for (std::uint32_t k = 0; k < 4; ++k) rows[k] = stack_row(t, 10, 4, k);
    return rows;
  };
  CHECK(stack_of(10) == std::array<std::uint64_t, 4>{10, 10, 10, 10});
  CHECK(stack_of(11) == std::array<std::uint64_t, 4>{10, 10, 10, 11});
  CHECK(stack_of(13) == std::array<std::uint64_t, 4>{10, 11, 12, 13});
  CHECK(stack_of(20) == std::array<std::uint64_t, 4>{17, 18, 19, 20});
}

TEST_CASE("stack: the stacker keeps its slots apart and starts anew at each first row") {
  Stacker<int> stacker(2, 3);
  std::array<int, 3> out{};
  stacker.push(0, 100, true);
  stacker.push(1, 200, true);
  stacker.push(0, 101, false);
  stacker.stack(0, out);
  CHECK(out == std::array<int, 3>{100, 100, 101});
  for (int row = 201; row < 206; ++row) stacker.push(1, row, false);
  stacker.stack(1, out);
  CHECK(out == std::array<int, 3>{203, 204, 205});
  stacker.push(1, 300, true);
  stacker.stack(1, out);
  CHECK(out == std::array<int, 3>{300, 300, 300});
}
