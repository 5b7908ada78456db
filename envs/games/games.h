// The tables of the built-in environments, one function a game. Thread safe; the tables are constant.
#pragma once

#include "qanat/env.h"

namespace qanat::envs {

const qanat_env_table& catch_table();
const qanat_env_table& catch_pixels_table();
const qanat_env_table& cartpole_table();

}  // namespace qanat::envs
