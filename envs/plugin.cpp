#include "envs/plugin.h"

#include <dlfcn.h>

#include <exception>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "core/error.h"
#include "envs/abi.h"

namespace qanat::envs {
namespace {

namespace fs = std::filesystem;

// More tables than this are a list that never ends.
constexpr std::uint32_t most_environments = 1024;

using Api = const qanat_env_table* (*)(std::uint32_t);

Api load_api(const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw ConfigError(text("plug-in ", path, ": there is no such file"));
  if (!fs::is_regular_file(path, ignored)) throw ConfigError(text("plug-in ", path, ": wanted a shared object (.so)"));
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (library == nullptr) {
    // dlerror() begins with the path too.
    std::string_view why = dlerror();
    if (why.starts_with(path + ": ")) why.remove_prefix(path.size() + 2);
    throw ConfigError(text("plug-in ", path, " cannot be loaded: ", why));
  }
  void* symbol = dlsym(library, "qanat_env_api");
  dlclose(library);  // it stays: RTLD_NODELETE
  if (symbol == nullptr) {
    throw ConfigError(text("plug-in ", path, ": it exports no qanat_env_api, which a C++ one gets by ",
                           "QANAT_EXPORT_ENVIRONMENTS(Class, ...) and a C one by defining it (qanat/env.h)"));
  }
  return reinterpret_cast<Api>(symbol);
}

const qanat_env_table* ask(Api api, std::uint32_t index, const std::string& path) {
  try {
    return api(index);
  } catch (const std::exception& error) {
    throw InputError(text("plug-in ", path, ": its qanat_env_api(", index, ") threw: ", error.what()));
  } catch (...) {
    throw InputError(text("plug-in ", path, ": its qanat_env_api(", index, ") threw what is no std::exception"));
  }
}

}  // namespace

std::vector<const qanat_env_table*> load_plugin(const std::string& given) {
  const std::string path = fs::absolute(given).lexically_normal().string();
  const Api api = load_api(path);
  std::vector<const qanat_env_table*> tables;
  while (const qanat_env_table* table = ask(api, static_cast<std::uint32_t>(tables.size()), path)) {
    if (tables.size() == most_environments) {
      throw InputError(text("plug-in ", path, ": more than ", most_environments,
                            " environments: its qanat_env_api must give NULL past the last"));
    }
    try {
      static_cast<void>(read_table(*table));
    } catch (const InputError& error) {
      throw InputError(text("plug-in ", path, ", environment ", tables.size(), ": ", error.what()));
    }
    for (const auto* other : tables) {
      if (std::string_view(other->id) == table->id) {
        throw InputError(text("plug-in ", path, ": two of its environments are called ", table->id));
      }
    }
    tables.push_back(table);
  }
  if (tables.empty()) throw ConfigError(text("plug-in ", path, ": it holds no environments"));
  return tables;
}

}  // namespace qanat::envs
