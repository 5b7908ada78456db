// The first line of a run's config.yaml: a checksum of the rest, so that a file that was cut short or damaged is
// refused and not read with defaults in place of what is missing. Files without such a line (a user's own, those of
// runs of before) are taken as they are.
#pragma once

#include <string>
#include <string_view>

namespace qanat::cli {

// `yaml` with that line before it.
[[nodiscard]] std::string seal_config(std::string_view yaml);

// Throws ConfigError, with the way out, when `content` begins as a sealed file does and is not what was sealed.
// `source` is its name for the message.
void check_seal(std::string_view content, const std::string& source);

}  // namespace qanat::cli
