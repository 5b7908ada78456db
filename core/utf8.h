// Whether text is UTF-8: where it goes into files that must be (YAML, JSON, protocol buffers).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace qanat {

// The bytes (1 to 4) of the character at the front of `text`; 0 when no well-formed one is there.
[[nodiscard]] std::size_t utf8_length(std::string_view text);

[[nodiscard]] bool is_utf8(std::string_view text);

// The same text with every byte that is part of no character replaced by '?'.
[[nodiscard]] std::string to_utf8(std::string_view text);

}  // namespace qanat
