// What a run that did not come to its end leaves, in words: what the next command is, and what is lost.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace qanat::cli {

struct Leftover {
  std::string failure;                 // why the run ended; empty: it was told to stop
  std::string save_error;              // why the last save failed; empty: it did not
  std::uint64_t updates = 0;           // done, as far as anybody heard
  std::optional<std::uint64_t> saved;  // those in the newest checkpoint; none: there is none
  std::filesystem::path run;
};

// The updates of the newest complete checkpoint; none when there is none that can be read.
[[nodiscard]] std::optional<std::uint64_t> saved_updates(const std::filesystem::path& run);

[[nodiscard]] std::string last_word(const Leftover& left);

}  // namespace qanat::cli
