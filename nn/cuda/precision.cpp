#include "nn/cuda/precision.h"

#include <algorithm>

#include "core/error.h"

namespace qanat::nn::cuda {

Precision precision_of(std::string_view word, const NetworkSpec& spec) {
  const bool convolves = std::any_of(spec.layers.begin(), spec.layers.end(),
                                     [](const Layer& layer) { return layer.kind == LayerKind::conv2d; });
  if (word == "auto") return convolves ? Precision::bf16 : Precision::tf32;
  if (word == "bf16") return Precision::bf16;
  if (word == "tf32") return Precision::tf32;
  if (word == "fp32") return Precision::fp32;
  throw ConfigError(text("precision '", word, "' is none of auto, bf16, tf32, fp32"));
}

const char* name_of(Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return "bf16";
    case Precision::tf32:
      return "tf32";
    case Precision::fp32:
      break;
  }
  return "fp32";
}

}  // namespace qanat::nn::cuda
