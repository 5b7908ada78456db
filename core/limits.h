// How many descriptors and threads the system lets this process have: raised as far as it may be, asked before they are
// needed. ZeroMQ ends a process that gets none, so who needs many asks first.
//
// raise_limits() belongs at the very start of a program; everything else may be called from any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace qanat {

// Raises the soft limits of descriptors and of processes to the hard ones.
void raise_limits();
// Sets the soft limit of descriptors to what it was before raise_limits(), in a child between fork and exec: a program
// that knows nothing of us may use select(), which ends at 1024. Async-signal-safe.
void restore_descriptor_limit();

// Descriptors this process may have open.
[[nodiscard]] std::uint64_t descriptor_limit();
// Of these, as many are kept for files: the highest numbers, which connections do not get.
[[nodiscard]] std::uint64_t descriptor_reserve(std::uint64_t limit);

// Each tries it out, and throws ConfigError with both numbers when fewer than `wanted` more are to be had; `whose` says
// who needs them ("a learner of 2 shards and 8 actors").
void require_descriptors(std::uint64_t wanted, std::string_view whose);
void require_threads(std::uint64_t wanted, std::string_view whose);

}  // namespace qanat
