#include "bench/nn/peak.h"

#include <chrono>
#include <cstdint>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "bench/nn/peak.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace qanat::bench::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Ten chains: more than latency times issue width, fewer than sixteen registers. Returns the operations done.
double multiply_add(std::int64_t rounds, float seed, float* sink) {
  const hn::ScalableTag<float> d;
  const auto factor = hn::Set(d, 0.999f * seed);
  const auto term = hn::Set(d, 0.001f);
  auto a = term, b = term, c = term, e = term, f = term, g = term, h = term, i = term, j = term, k = term;
  for (std::int64_t round = 0; round < rounds; ++round) {
    a = hn::MulAdd(a, factor, term);
    b = hn::MulAdd(b, factor, term);
    c = hn::MulAdd(c, factor, term);
    e = hn::MulAdd(e, factor, term);
    f = hn::MulAdd(f, factor, term);
    g = hn::MulAdd(g, factor, term);
    h = hn::MulAdd(h, factor, term);
    i = hn::MulAdd(i, factor, term);
    j = hn::MulAdd(j, factor, term);
    k = hn::MulAdd(k, factor, term);
  }
  const auto all = hn::Add(hn::Add(hn::Add(a, b), hn::Add(c, e)), hn::Add(hn::Add(f, g), hn::Add(h, hn::Add(i, j))));
  *sink += hn::GetLane(hn::SumOfLanes(d, hn::Add(all, k)));
  return static_cast<double>(rounds) * 10 * 2 * static_cast<double>(hn::Lanes(d));
}

const char* instruction_set() { return hwy::TargetName(HWY_TARGET); }

}  // namespace qanat::bench::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace qanat::bench {

HWY_EXPORT(multiply_add);
HWY_EXPORT(instruction_set);

Peak measure_peak() {
  Peak peak{.flops_per_second = 0, .instruction_set = HWY_DYNAMIC_DISPATCH(instruction_set)()};
  volatile float seed = 1;  // so that nothing is known before it runs
  float sink = 0;
  for (int run = 0; run < 20; ++run) {
    const auto start = std::chrono::steady_clock::now();
    const double operations = HWY_DYNAMIC_DISPATCH(multiply_add)(1'000'000, seed, &sink);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    if (operations / time.count() > peak.flops_per_second) peak.flops_per_second = operations / time.count();
  }
  seed = sink;
  return peak;
}

}  // namespace qanat::bench
#endif  // HWY_ONCE
