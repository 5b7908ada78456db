// What `qanat env serve` and `qanat env keep` are to qanat, for tests of the environments' room alone. Arguments: env
// serve MEMORY FROM TO, or those of a keeper.
#include <cstdlib>
#include <exception>
#include <span>

#include "envs/host/keeper.h"
#include "envs/host/serve.h"

int main(int count, char** arguments) {
  const std::span<char* const> rest(arguments + 1, static_cast<std::size_t>(count - 1));
  if (qanat::envs::host::is_keeper(rest)) return qanat::envs::host::keep(rest);
  if (count != 6) return 2;
  try {
    qanat::envs::host::serve(std::atoi(arguments[3]), std::atoi(arguments[4]), std::atoi(arguments[5]),
                             qanat::envs::open_requested);
  } catch (const std::exception&) {
    return 1;
  }
  return 0;
}
