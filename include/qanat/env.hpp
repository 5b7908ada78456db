// Environments in C++: a small class becomes a batch behind the C interface of "qanat/env.h".
//
//   class Coin {                                              // one slot; no base class
//    public:
//     static constexpr const char* id = "coin";
//     qanat::env::Spec spec() const {
//       return {.observations = {{.name = "guess", .dtype = qanat::env::DType::f32, .shape = {1}}},
//               .action = qanat::env::Action::discrete(2),
//               .max_episode_steps = 10};
//     }
//     void reset(qanat::env::Rng& rng) { coin_ = rng.below(2); }
//     qanat::env::Outcome step(std::int32_t action, qanat::env::Rng& rng) {
//       const float reward = action == coin_ ? 1.0f : 0.0f;
//       coin_ = rng.below(2);
//       return {.reward = reward};
//     }
//     void observe(const qanat::env::Row& row) const { row.at<float>()[0] = static_cast<float>(coin_); }
//    private:
//     std::int64_t coin_ = 0;
//   };
//   QANAT_EXPORT_ENVIRONMENTS(Coin)                           // makes this shared object a plug-in
//
// What the class has:
//   static constexpr const char* id;
//   a constructor from nothing, from (const Options&), or from (const Options&, std::size_t slot); every slot is built
//     from the same options, and an option that none asks for is refused
//   Spec spec() const                             may depend on the options, not on the slot
//   void reset(Rng&)                              starts an episode
//   Outcome step(ACTION, Rng&) or step(ACTION)    ACTION is std::int32_t, std::span<const std::int32_t>
//                                                 (multi-discrete) or std::span<const float> (box)
//   void observe(const Row&) const                writes every element of every observation
// and, if it wants:
//   static constexpr const char* summary          what it is, in one line
//   static constexpr const char* options_help     one option a line
//   void seed(std::uint64_t)                      called before reset() when the host seeds the slot; clear here what
//                                                 outlives an episode, so that the seed decides everything
//   void action_mask(std::span<std::uint8_t>) const   with Spec::action_mask
//   void metrics(std::span<double>) const         at an episode's end, before reset(); with Spec::metrics
//   State state() const; void set_state(const State&)   snapshots: State is trivially copyable and has no padding;
//                                                 set_state throws when handed what cannot be (bytes of a broken file)
//   Image render() const
// Exceptions become error texts with the slot's number; none crosses the C interface.
//
// Time limits, episode resets, the final observation and the random stream of each slot are done here. Slots are
// stepped one after the other on the caller's thread, without virtual calls or allocation.
#pragma once

#include <cstdint>

#include "qanat/env.h"
#include "qanat/env_batch.hpp"
#include "qanat/env_options.hpp"
#include "qanat/env_types.hpp"
#include "qanat/random.hpp"

namespace qanat::env {

// The C table of Env, for use within the same program.
template <class Env>
inline constexpr qanat_env_table table_of = Batch<Env>::table();

// Entry `index` of a plug-in's list of tables; nullptr past its end.
template <class... Envs>
const qanat_env_table* nth_table(std::uint32_t index) {
  static constexpr const qanat_env_table* tables[] = {&table_of<Envs>...};
  return index < sizeof...(Envs) ? tables[index] : nullptr;
}

}  // namespace qanat::env

// Exports the classes named as the environments of a plug-in. Once in a shared object, outside any namespace.
#define QANAT_EXPORT_ENVIRONMENTS(...)                                                    \
  extern "C" QANAT_ENV_EXPORT const qanat_env_table* qanat_env_api(std::uint32_t index) { \
    return ::qanat::env::nth_table<__VA_ARGS__>(index);                                   \
  }                                                                                       \
  static_assert(true, "a semicolon may follow")
