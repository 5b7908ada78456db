// `qanat env list`.
#pragma once

namespace qanat::cli {

// Prints one line for each built-in environment: id, observations, actions, episode limit, what it is. With `options`
// its options follow, a line each.
void print_environments(bool options);

}  // namespace qanat::cli
