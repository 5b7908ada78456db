#include "actors/policy.h"

#include "core/error.h"
#include "tests/support/catch.h"

using namespace qanat;
using namespace qanat::actors;

TEST_CASE("policy: which precision is meant depends on the network and the processor, unless it is named") {
  const TensorSpec frame{.name = "frame", .dtype = DType::u8, .shape = {84, 84}};
  const TensorSpec planes{.name = "planes", .dtype = DType::u8, .shape = {4, 10, 10}};
  const TensorSpec vector{.name = "vector", .dtype = DType::f32, .shape = {5000}};
  const auto images = nn::build_network({.preset = "nature"}, frame, 4, 255, 6);
  const auto small = nn::build_network({.preset = "minatar"}, planes, 1, 1, 6);
  const auto wide = nn::build_network({}, vector, 1, 1, 6);
  const bool can = nn::bf16_obstacle(images).empty();
  if (!can) WARN(nn::bf16_obstacle(images));
  CHECK(acting_precision("auto", images) == (can ? "bf16" : "fp32"));
  CHECK(acting_precision("auto", small) == "fp32");
  CHECK(acting_precision("auto", wide) == "fp32");
  for (const auto& network : {images, small, wide}) CHECK(acting_precision("fp32", network) == "fp32");
  CHECK_THROWS_WITH(acting_precision("bf16", wide), Catch::Matchers::Contains("actors.precision is bf16, but"));
  if (can) CHECK(acting_precision("bf16", small) == "bf16");
  // What is meant can be had.
  LocalPolicy policy(images, "cpu", acting_precision("auto", images), 2, 4);
}
