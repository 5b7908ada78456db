// What `qanat env serve` is to qanat, for tests of the environments' room alone. Arguments: env serve MEMORY FROM TO.
#include <cstdlib>
#include <exception>

#include "envs/host/serve.h"

int main(int count, char** arguments) {
  if (count != 6) return 2;
  try {
    qanat::envs::host::serve(std::atoi(arguments[3]), std::atoi(arguments[4]), std::atoi(arguments[5]),
                             qanat::envs::open_requested);
  } catch (const std::exception&) {
    return 1;
  }
  return 0;
}
