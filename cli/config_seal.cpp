#include "cli/config_seal.h"

#include <cstdio>

#include "core/checksum.h"
#include "core/error.h"
#include "core/files.h"

namespace qanat::cli {
namespace {

// By this a sealed file is known, also one whose first line was cut short or damaged behind it.
constexpr std::string_view sign = "# qanat run,";
constexpr std::string_view mark = "# qanat run, do not edit by hand (or take this line out): checksum ";

std::string first_line(std::string_view rest) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(checksum(bytes_of(rest))));
  return text(mark, digits, '\n');
}

}  // namespace

std::string seal_config(std::string_view yaml) { return text(first_line(yaml), yaml); }

void check_seal(std::string_view content, const std::string& source) {
  if (content.empty()) return;  // all defaults: it names no environment, which --resume refuses
  if (!content.starts_with(sign) && !sign.starts_with(content)) return;
  const auto end = content.find('\n');
  if (end != std::string_view::npos && content.substr(0, end + 1) == first_line(content.substr(end + 1))) return;
  throw ConfigError(text(source, ": it is not as it was written (", content.size(),
                         " bytes): cut short, damaged, or edited by hand. If you edited it, take out its first line; "
                         "otherwise put a copy in its place, or what `qanat config show CONFIG --set seed=N` prints: N "
                         "was said when the run began, and stands in its summary.json"));
}

}  // namespace qanat::cli
