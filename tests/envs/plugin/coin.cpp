// A plug-in as a user writes it: the public headers and nothing else. The example of qanat/env.hpp.
#include "qanat/env.hpp"

class Coin {
 public:
  static constexpr const char* id = "coin";
  static constexpr const char* options_help = "sides=2: how many the coin has";

  explicit Coin(const qanat::env::Options& options) : sides_(options.integer("sides", 2, 2, 6)) {}

  qanat::env::Spec spec() const {
    return {.observations = {{.name = "guess", .dtype = qanat::env::DType::f32, .shape = {1}, .low = 0, .high = 5}},
            .action = qanat::env::Action::discrete(sides_),
            .max_episode_steps = 10};
  }
  void reset(qanat::env::Rng& rng) { flip(rng); }
  qanat::env::Outcome step(std::int32_t action, qanat::env::Rng& rng) {
    const float reward = action == coin_ ? 1.0f : 0.0f;
    flip(rng);
    return {.reward = reward};
  }
  void observe(const qanat::env::Row& row) const { row.at<float>()[0] = static_cast<float>(coin_); }

 private:
  void flip(qanat::env::Rng& rng) { coin_ = static_cast<std::int64_t>(rng.below(static_cast<std::uint64_t>(sides_))); }

  std::int64_t sides_;
  std::int64_t coin_ = 0;
};

class SixSided : public Coin {
 public:
  static constexpr const char* id = "six-sided";
  SixSided() : Coin(qanat::env::Options("sides=6")) {}
};

QANAT_EXPORT_ENVIRONMENTS(Coin, SixSided);
