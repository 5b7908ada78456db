// Plug-ins that must be refused when they are loaded, one a build of this file, as REFUSED says.
#include <stdexcept>

#include "qanat/env.h"

#define WRONG_ABI 1
#define SMALL_TABLE 2
#define NO_STEP 3
#define NONE 4
#define THROWS 5
#define SAME_ID 6
#define ENDLESS 7
#define NO_SYMBOL 8
#define UNDEFINED 9

#if REFUSED == UNDEFINED
extern "C" int defined_nowhere();
extern "C" QANAT_ENV_EXPORT int calls_it() { return defined_nowhere(); }
#endif

#if REFUSED != NO_SYMBOL
namespace {

int32_t create(const qanat_env_config*, qanat_env** env, qanat_env_error*) {
  *env = nullptr;
  return QANAT_ENV_FAILED;
}
void destroy(qanat_env*) {}
const qanat_env_spec* spec(const qanat_env*) { return nullptr; }
int32_t reset(qanat_env*, const uint64_t*, const uint8_t*, const qanat_env_buffers*, qanat_env_error*) {
  return QANAT_ENV_FAILED;
}
int32_t step(qanat_env*, const void*, const qanat_env_buffers*, qanat_env_error*) { return QANAT_ENV_FAILED; }

constexpr qanat_env_table table = {.abi_version = QANAT_ENV_ABI_VERSION + (REFUSED == WRONG_ABI),
                                   .struct_size = REFUSED == SMALL_TABLE ? 40 : sizeof(qanat_env_table),
                                   .id = "refused",
                                   .options_help = nullptr,
                                   .create = create,
                                   .destroy = destroy,
                                   .spec = spec,
                                   .reset = reset,
                                   .step = REFUSED == NO_STEP ? nullptr : step,
                                   .snapshot = nullptr,
                                   .restore = nullptr,
                                   .render = nullptr,
                                   .summary = nullptr};
}  // namespace

extern "C" QANAT_ENV_EXPORT const qanat_env_table* qanat_env_api(uint32_t index) {
  if (REFUSED == THROWS) throw std::runtime_error("no licence");
  if (REFUSED == NONE) return nullptr;
  if (REFUSED == ENDLESS) {
    static char names[2000][8];
    static qanat_env_table tables[2000];
    tables[index] = table;
    for (uint32_t digit = 0, rest = index; digit < 4; ++digit, rest /= 10) names[index][3 - digit] = '0' + rest % 10;
    tables[index].id = names[index];
    return &tables[index];
  }
  if (REFUSED == SAME_ID) return index < 2 ? &table : nullptr;
  return index == 0 ? &table : nullptr;
}
#endif
