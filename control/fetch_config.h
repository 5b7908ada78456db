// The first question of a process that was given nothing but the head's address.
#pragma once

#include <string>
#include <vector>

#include "core/clock.h"
#include "wire/messages.h"

namespace qanat::control {

// Blocks until one of the addresses answers. Throws SystemError after `timeout`, naming the addresses.
[[nodiscard]] wire::ConfigReply fetch_config(wire::Context& context, const std::vector<std::string>& head,
                                             Seconds timeout);

}  // namespace qanat::control
