// CartPole in units that no network likes: place and speed in millimetres, the angle and its speed in kiloradians.
#include "envs/games/cartpole.h"

namespace {

class ScaledCartPole : public qanat::envs::CartPole {
 public:
  static constexpr const char* id = "scaled-CartPole";

  void observe(const qanat::env::Row& row) const {
    const auto out = row.at<float>();
    out[0] = static_cast<float>(state().x * 1e3);
    out[1] = static_cast<float>(state().x_dot * 1e3);
    out[2] = static_cast<float>(state().angle * 1e-3);
    out[3] = static_cast<float>(state().angle_dot * 1e-3);
  }
};

}  // namespace

QANAT_EXPORT_ENVIRONMENTS(ScaledCartPole);
