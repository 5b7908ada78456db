#include "control/role.h"

namespace qanat::control {

void run(Role& role, const std::atomic<bool>& stop, Milliseconds idle_wait) {
  bool asked = false;
  while (!role.finished()) {
    if (stop.load(std::memory_order_relaxed) && !asked) {
      asked = true;
      role.request_stop("terminated");
    }
    if (!role.step()) {
      const auto sockets = role.sockets();
      wire::wait(sockets, idle_wait);
    }
  }
}

}  // namespace qanat::control
