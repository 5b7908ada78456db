// Reads what an environment says about itself through the C interface, trusting none of it. Thread safe.
#pragma once

#include "envs/vector_env.h"
#include "qanat/env.h"

namespace qanat::envs {

// A copy of a table as far as it is filled in, the rest null. Throws InputError when its ABI version, its size or a
// function that every environment must have is wrong or missing.
[[nodiscard]] qanat_env_table read_table(const qanat_env_table& table);

// Throws InputError naming the environment, the field, what was seen and what was wanted.
[[nodiscard]] EnvSpec read_spec(const qanat_env_table& table, const qanat_env_spec* spec);

}  // namespace qanat::envs
