// Connections that this process has no room for.
//
// ZeroMQ accepts whoever comes until no descriptor is left for anything else: a file can then not be opened, and a
// connection over ipc ends the process. It has no setting for that, so its accept4() is ours: a connection whose
// descriptor would be one of those that are kept for files (core/limits.h) is closed at once. The peer tries again with
// growing pauses.
#pragma once

#include <cstdint>

namespace qanat::wire {

// How many were closed since the start. Thread safe.
[[nodiscard]] std::uint64_t connections_refused();

}  // namespace qanat::wire
