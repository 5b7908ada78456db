// How the C interface grows: a table that was built before its newest field.
#include "envs/abi.h"

#include <cstddef>
#include <string_view>
#include <vector>

#include "tests/envs/plugin/countdown.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::envs;

TEST_CASE("C interface: a table from before the summary was added is taken as it is") {
  qanat_env_table table = countdown_table;
  table.struct_size = offsetof(qanat_env_table, summary);
  table.summary = reinterpret_cast<const char*>(1);  // beyond the table's end: not to be read
  VectorEnv env(table, {.id = "countdown"}, 1);
  env.reset(std::vector<std::uint64_t>{3});
  env.step(std::vector<std::int32_t>{0});
  CHECK(read_table(table).summary == nullptr);
  CHECK(read_table(countdown_table).summary == std::string_view("counts down from a number"));
}
