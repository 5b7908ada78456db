#include "core/edit_distance.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace qanat {

EditDistance edit_distance(std::string_view word, std::string_view whole) {
  std::vector<std::size_t> before(whole.size() + 1);  // row i - 2
  std::vector<std::size_t> above(whole.size() + 1);   // row i - 1
  std::vector<std::size_t> row(whole.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (std::size_t i = 1; i <= word.size(); ++i) {
    before = above;
    above = row;
    row[0] = i;
    for (std::size_t j = 1; j <= whole.size(); ++j) {
      const std::size_t replaced = above[j - 1] + (word[i - 1] == whole[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, above[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && word[i - 1] == whole[j - 2] && word[i - 2] == whole[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return {row.back(), *std::min_element(row.begin(), row.end())};
}

}  // namespace qanat
