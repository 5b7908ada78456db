// What every process of a run is made of: a state machine that never blocks.
//
// A role owns its sockets and does, at each step(), whatever can be done now. A real process
// (cli/roles.cpp) sleeps on the sockets when there is nothing to do; lockstep mode calls step() on all roles in turn.
// That both drive the same code is what makes lockstep runs meaningful. One thread at a time.
#pragma once

#include <string>
#include <vector>

#include "core/clock.h"
#include "wire/socket.h"

namespace qanat::control {

class Role {
 public:
  virtual ~Role() = default;
  // Returns true when something was done, so that calling again at once may be worth it.
  virtual bool step() = 0;
  // Sockets whose messages this role waits for.
  [[nodiscard]] virtual std::vector<wire::Socket*> sockets() = 0;
  [[nodiscard]] virtual bool finished() const = 0;
  // Asks the role to save what it must and leave (SIGTERM). It is finished some steps later.
  virtual void request_stop(const std::string& cause) = 0;
};

}  // namespace qanat::control
