// The tables of the built-in environments, one function a game. Thread safe; the tables are constant.
#pragma once

#include "qanat/env.h"

namespace qanat::envs {

const qanat_env_table& catch_table();
const qanat_env_table& catch_pixels_table();
const qanat_env_table& cartpole_table();
const qanat_env_table& mountain_car_table();
const qanat_env_table& acrobot_table();
const qanat_env_table& asterix_table();
const qanat_env_table& breakout_table();
const qanat_env_table& freeway_table();
const qanat_env_table& seaquest_table();
const qanat_env_table& space_invaders_table();
const qanat_env_table& deep_sea_table();
const qanat_env_table& memory_chain_table();
const qanat_env_table& witness_table();

}  // namespace qanat::envs
