// What a slot looks like.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "core/animation.h"
#include "envs/vector_env.h"

namespace qanat::envs {

// Where a picture comes from: "render()" or "observation board u8 [4, 10, 10]". Throws ConfigError, saying what was
// wanted, when the environment has neither render() nor an observation that is a picture: its first one, [H, W] or
// [planes, H, W] with finite bounds and at most 8 planes.
[[nodiscard]] std::string picture_source(const EnvSpec& spec);

// The present state. From an observation: each plane in a colour of its own (one plane: grey), the brightest on top.
// Throws as picture_source, and RunError when render() fails.
[[nodiscard]] Picture picture_of(const VectorEnv& env, std::size_t slot);

// The last state of an episode that ended in the last step. Environments show it as an observation alone: nothing when
// the picture would come from render(), which has gone on to the next episode.
[[nodiscard]] std::optional<Picture> final_picture_of(const VectorEnv& env, std::size_t slot);

}  // namespace qanat::envs
