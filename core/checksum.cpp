#include "core/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <new>

namespace qanat {
namespace {

XXH3_state_t* state_in(std::byte* bytes) { return std::launder(reinterpret_cast<XXH3_state_t*>(bytes)); }
const XXH3_state_t* state_in(const std::byte* bytes) {
  return std::launder(reinterpret_cast<const XXH3_state_t*>(bytes));
}

}  // namespace

Checksum::Checksum() {
  static_assert(sizeof(state_) >= sizeof(XXH3_state_t) && alignof(XXH3_state_t) <= 64);
  static_assert(std::is_trivially_copyable_v<XXH3_state_t>);
  new (state_) XXH3_state_t;
  reset();
}

void Checksum::reset() { XXH3_64bits_reset(state_in(state_)); }

void Checksum::add(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_64bits_update(state_in(state_), bytes.data(), bytes.size());
}

std::uint64_t Checksum::value() const { return XXH3_64bits_digest(state_in(state_)); }

std::uint64_t checksum(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace qanat
