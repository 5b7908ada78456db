// Shared objects that hold environments: what qanat/env.h says under "Plug-ins". Thread safe.
//
// A plug-in runs inside this process and may do whatever it may. Once loaded it stays until the process ends: its code
// may be needed by what it left behind (thread-local objects, static ones), and tables are constant for ever.
#pragma once

#include <string>
#include <vector>

#include "qanat/env.h"

namespace qanat::envs {

// The tables at `path`, in the plug-in's order: at least one, each as read_table wants it, no id twice. A path without
// a directory is a file in the working directory, never one on the system's search path. Throws ConfigError, naming
// the path as it was looked for, when there is no such file, it cannot be loaded, lacks qanat_env_api or holds no
// environments; InputError when a table is broken or made for another version of the interface.
[[nodiscard]] std::vector<const qanat_env_table*> load_plugin(const std::string& path);

}  // namespace qanat::envs
