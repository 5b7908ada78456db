// Our own generator and distributions, so that a seed gives the same draws with every standard library.
//
// Generator: xoshiro256++ 1.0 (Blackman & Vigna, "Scrambled linear pseudorandom number generators", 2019),
// seeded through splitmix64. Not for cryptography. Not thread safe: one owner each.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace qanat {

// One step of splitmix64; also used to mix several numbers into one seed.
[[nodiscard]] constexpr std::uint64_t splitmix64(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15ULL;
  std::uint64_t z = state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// A seed that depends on every argument and their order: derive_seed(run_seed, role, index, ...).
template <class... Numbers>
[[nodiscard]] constexpr std::uint64_t derive_seed(Numbers... numbers) {
  std::uint64_t mixed = 0;
  ((mixed =
        [&] {
          std::uint64_t state = mixed ^ static_cast<std::uint64_t>(numbers);
          return splitmix64(state);
        }()),
   ...);
  return mixed;
}

class Rng {
 public:
  using State = std::array<std::uint64_t, 4>;

  explicit Rng(std::uint64_t seed = 0) {
    for (auto& word : state_) word = splitmix64(seed);
  }

  [[nodiscard]] std::uint64_t next() {
    const std::uint64_t result = rotl(state_[0] + state_[3], 23) + state_[0];
    const std::uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = rotl(state_[3], 45);
    return result;
  }

  // Uniform in [0, n), without bias (Lemire, "Fast random integer generation in an interval", 2019). n > 0.
  [[nodiscard]] std::uint64_t below(std::uint64_t n) {
    unsigned __int128 product = static_cast<unsigned __int128>(next()) * n;
    auto low = static_cast<std::uint64_t>(product);
    if (low < n) {
      const std::uint64_t threshold = (0 - n) % n;
      while (low < threshold) {
        product = static_cast<unsigned __int128>(next()) * n;
        low = static_cast<std::uint64_t>(product);
      }
    }
    return static_cast<std::uint64_t>(product >> 64);
  }

  // Uniform in [0, 1) with 53 random bits.
  [[nodiscard]] double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  [[nodiscard]] double uniform(double low, double high) { return low + (high - low) * uniform(); }
  [[nodiscard]] bool chance(double probability) { return uniform() < probability; }

  // Standard normal, by the polar method (Marsaglia & Bray, 1964); the spare value is dropped so that
  // the state is the four words and nothing else.
  [[nodiscard]] double normal() {
    double u = 0;
    double s = 0;
    do {
      u = uniform(-1, 1);
      const double v = uniform(-1, 1);
      s = u * u + v * v;
    } while (s >= 1 || s == 0);
    return u * std::sqrt(-2 * std::log(s) / s);
  }

  [[nodiscard]] const State& state() const { return state_; }
  void set_state(const State& state) { state_ = state; }

 private:
  static std::uint64_t rotl(std::uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

  State state_{};
};

}  // namespace qanat
