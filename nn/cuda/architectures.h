// Which GPUs a build's device code runs on. Needs no CUDA.
#pragma once

#include <cctype>
#include <sstream>
#include <string>
#include <string_view>

namespace qanat::nn::cuda {

// Whether code for `architectures` runs on a GPU of compute capability `capability` (86: 8.6). They are as CMake writes
// them, with spaces: "86-real" runs on 8.6 and newer 8.x, "86-virtual" is compiled by the driver for whatever is newer,
// "86" is both. Words without a number, such as all, name more than is asked here.
[[nodiscard]] inline bool built_for(std::string_view architectures, int capability) {
  std::istringstream words{std::string(architectures)};
  for (std::string word; words >> word;) {
    if (std::isdigit(static_cast<unsigned char>(word[0])) == 0) return true;
    std::size_t digits = 0;
    const int number = std::stoi(word, &digits);
    const auto rest = std::string_view(word).substr(digits);
    if (rest.starts_with('a')) {  // for this one only
      if (number == capability) return true;
      continue;
    }
    const bool binary = !rest.ends_with("-virtual"), text = !rest.ends_with("-real");
    if (binary && number / 10 == capability / 10 && number <= capability) return true;
    if (text && number <= capability) return true;
  }
  return false;
}

}  // namespace qanat::nn::cuda
