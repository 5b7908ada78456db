// The maths of one temporal-difference sample: target, loss, gradient. Host and device code: every backend
// uses it for the update, and actors use it for initial priorities, so the two cannot disagree.
//
// Pure functions, no state. Real is float or double.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define QANAT_HOST_DEVICE __host__ __device__
#else
#define QANAT_HOST_DEVICE
#endif

namespace qanat::nn {

struct TdOptions {
  bool double_q = true;  // a* from the online network (van Hasselt et al., 2016), else from the target network
  bool huber = true;     // else td^2 / 2, which is Huber's loss with an infinite delta
  float huber_delta = 1;
  bool rescale = false;  // values are learned as h(value)
  float rescale_epsilon = 1e-3f;
};

// h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x   (Pohlen et al., "Observe and Look Further", 2018, prop. A.2),
// written without the difference of nearly equal numbers that loses all digits of small x.
template <class Real>
QANAT_HOST_DEVICE Real rescale_value(Real x, Real epsilon) {
  using std::abs;
  using std::sqrt;
  return x / (sqrt(abs(x) + Real(1)) + Real(1)) + epsilon * x;
}

// The inverse: sign(x) (u^2 - 1) with u = (sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1) / (2 epsilon). Computed from
// u - 1, again without cancellation; holds for epsilon = 0 too.
template <class Real>
QANAT_HOST_DEVICE Real unrescale_value(Real x, Real epsilon) {
  using std::abs;
  using std::sqrt;
  const Real size = abs(x);
  const Real s = sqrt(Real(1) + Real(4) * epsilon * (size + Real(1) + epsilon));
  const Real u_minus_1 =
      Real(2) * size * (Real(1) - Real(2) * epsilon / (s + Real(1) + Real(2) * epsilon)) / (s + Real(1));
  const Real value = u_minus_1 * (u_minus_1 + Real(2));
  return x < Real(0) ? -value : value;
}

// The first of the largest values among the allowed actions: mask[a] != 0, or all when mask is null. `stride` is
// the distance between two actions' values. With no action allowed the answer is 0.
template <class Real>
QANAT_HOST_DEVICE std::int64_t masked_argmax(const Real* q, std::int64_t stride, const std::uint8_t* mask,
                                             std::int64_t actions) {
  std::int64_t best = -1;
  for (std::int64_t a = 0; a < actions; ++a) {
    if (mask != nullptr && mask[a] == 0) continue;
    if (best < 0 || q[a * stride] > q[best * stride]) best = a;
  }
  return best < 0 ? 0 : best;
}

// The value Q(s, a) is pulled towards: h(returns + bootstrap * h^-1(next_q)). bootstrap == 0 selects the return
// alone, so that whatever stands in next_q (NaN of a state that does not exist) never leaks.
template <class Real>
QANAT_HOST_DEVICE Real td_target(Real returns, Real bootstrap, Real next_q, const TdOptions& options) {
  const Real epsilon = static_cast<Real>(options.rescale_epsilon);
  Real value = returns;
  if (bootstrap != Real(0)) value += bootstrap * (options.rescale ? unrescale_value(next_q, epsilon) : next_q);
  return options.rescale ? rescale_value(value, epsilon) : value;
}

template <class Real>
struct TdTerms {
  Real td;        // target - q; its absolute value is the new priority
  Real loss;      // unweighted
  Real gradient;  // d loss / d q
};

template <class Real>
QANAT_HOST_DEVICE TdTerms<Real> td_terms(Real q, Real target, const TdOptions& options) {
  using std::abs;
  const Real td = target - q;
  const Real delta = static_cast<Real>(options.huber_delta);
  if (options.huber && abs(td) > delta) {
    return {td, delta * (abs(td) - Real(0.5) * delta), td > Real(0) ? -delta : delta};
  }
  return {td, Real(0.5) * td * td, -td};  // NaN comes here and stays NaN
}

}  // namespace qanat::nn
