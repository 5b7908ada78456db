// The values of a settings struct as a JSON tree: what the writer prints and where schema and reference find the
// defaults. Part of the configuration code; include it in .cpp files only.
#pragma once

#include <nlohmann/json.hpp>

#include "core/config_writer.h"

namespace qanat {

// Keys in the order described. Reals are JSON floats (also infinite ones), integers JSON integers.
[[nodiscard]] nlohmann::ordered_json config_values(const detail::Describe& describe);

// A YAML scalar or flow sequence that reads back equal: 1.0e-05, "a b", [1, 2]. Not for objects.
[[nodiscard]] std::string write_yaml_value(const nlohmann::ordered_json& value);

// The text between double quotes, with YAML's escapes.
[[nodiscard]] std::string quote_yaml(std::string_view words);

}  // namespace qanat
