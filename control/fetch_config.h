// The first question of a process that was given nothing but the head's address.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/clock.h"
#include "core/log.h"
#include "wire/messages.h"

namespace qanat::control {

struct Patience {
  Seconds limit{120};
  Seconds say_after{5};                // without an answer for this long, and again each time, the log says so
  std::function<bool()> goes_on = {};  // false: not to be waited for any more; none: as long as the limit says
};

// Blocks until one of the addresses answers; none when patience does not go on. Throws SystemError at its limit, naming
// the addresses.
[[nodiscard]] std::optional<wire::ConfigReply> fetch_config(wire::Context& context,
                                                            const std::vector<std::string>& head,
                                                            const Patience& patience, Logger& log);

}  // namespace qanat::control
