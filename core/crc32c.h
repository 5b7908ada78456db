// CRC-32C (Castagnoli), as RFC 3720 defines it: the checksum of TensorBoard's record files. For our own files and
// messages there is core/checksum.h, which is faster and longer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace qanat {

[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace qanat
