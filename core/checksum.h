// The 64-bit XXH3 hash (seed 0), to detect damage in files and messages. It does not protect against a forger.
//
// Not thread safe: one owner each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace qanat {

// Over several spans: the value depends on the bytes alone, not on how they were cut.
class Checksum {
 public:
  Checksum();

  void add(std::span<const std::byte> bytes);
  // Of everything added so far; more may be added after.
  [[nodiscard]] std::uint64_t value() const;
  void reset();

 private:
  // Room for the library's state, which its header would otherwise drag into ours; the .cpp asserts the size.
  alignas(64) std::byte state_[576];
};

[[nodiscard]] std::uint64_t checksum(std::span<const std::byte> bytes);

}  // namespace qanat
