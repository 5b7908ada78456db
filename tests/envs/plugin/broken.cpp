// A walk to the right end of a line, once as it should be ("sound") and once for each way to break the contract of
// qanat/env.h. Written on the C interface, since the C++ side would prevent most of them.
//
// A slot walks from 0 to 8: action 1 one cell right, action 2 two cells or none by chance, 0 not allowed at even cells
// and a step back at odd ones. Terminated at 8, truncated after 20 steps.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "qanat/env.h"
#include "qanat/random.hpp"

namespace {

using qanat::env::Rng;

constexpr const char* names[] = {"sound",          "nan-reward",     "nan-observation", "range",
                                 "flag",           "unwritten",      "final-missing",   "final-is-next",
                                 "no-metrics",     "empty-mask",     "odd-mask",        "not-repeatable",
                                 "slots-linked",   "keeps-state",    "overrun",         "underrun",
                                 "stray-reward",   "stray-row",      "late-write",      "thread-write",
                                 "slow",           "throws",         "fails",           "fails-at-reset",
                                 "no-truncation",  "limit-ignored",  "limit-unstated",  "odd-snapshot",
                                 "forgets-chance", "takes-anything", "refuses-all",     "spec-changes",
                                 "create-fails",   "no-environment", "no-shape",        "bad-render",
                                 "crash",          "hang",           "exits",           "destroy-null"};
constexpr std::size_t count = sizeof names / sizeof *names;

constexpr std::int32_t end = 8;
constexpr std::int64_t limit = 20;
constexpr std::int64_t grid_shape[] = {3, 3};
const char* const metric_names[] = {"steps"};

struct Slot {
  Rng::State rng{};
  std::int64_t steps = 0;
  std::int64_t cell = 0;
};

int calls_of_all = 0;  // shared by all batches: what makes one not repeatable

}  // namespace

struct qanat_env {
  std::string fault;
  std::vector<Slot> slots;
  std::int64_t most = limit;
  std::int64_t steps = 0;
  std::uint8_t* kept = nullptr;
  std::atomic<bool> returning = false;
  std::jthread writer;  // ends before the next step, and before the buffers do
  qanat_env_tensor tensors[2] = {};
  qanat_env_spec spec = {};
};

namespace {

bool is(const qanat_env* env, const char* fault) { return env->fault == fault; }

template <std::size_t index>
std::int32_t create(const qanat_env_config* config, qanat_env** out, qanat_env_error* error) {
  const std::string fault = names[index];
  *out = nullptr;
  if (fault == "create-fails") {
    std::strcpy(error->message, "the level file is missing");
    return QANAT_ENV_FAILED;
  }
  if (fault == "no-environment") return QANAT_ENV_OK;
  if (fault == "exits") std::exit(0);
  auto* env = new qanat_env;
  env->fault = fault;
  env->slots.resize(config->slots);
  if (config->max_episode_steps > 0 && fault != "limit-ignored") env->most = config->max_episode_steps;
  env->tensors[0] = {"cell", QANAT_ENV_F32, 0, nullptr, 0, end};
  env->tensors[1] = {"grid", QANAT_ENV_U8, 2, fault == "no-shape" ? nullptr : grid_shape, 0, 1};
  env->spec.struct_size = sizeof env->spec;
  env->spec.observation_count = 2;
  env->spec.tensor_size = sizeof(qanat_env_tensor);
  env->spec.observations = env->tensors;
  env->spec.action_kind = QANAT_ENV_DISCRETE;
  env->spec.action_n = 3;
  env->spec.has_action_mask = 1;
  env->spec.metric_count = 1;
  env->spec.metrics = metric_names;
  env->spec.max_episode_steps = fault == "limit-unstated" ? limit : env->most;
  if (fault == "limit-ignored")
    env->spec.max_episode_steps = config->max_episode_steps > 0 ? config->max_episode_steps : limit;
  env->spec.can_snapshot = 1;
  env->spec.can_render = fault == "sound" || fault == "bad-render";
  *out = env;
  return QANAT_ENV_OK;
}

void destroy(qanat_env* env) {
  if (env == nullptr) return;
  delete env;
}
// Reads through the null pointer that destroy() must allow.
void destroy_carelessly(qanat_env* env) {
  volatile std::int64_t* steps = &env->steps;
  *steps = 0;
  delete env;
}

const qanat_env_spec* spec(const qanat_env* env) { return &env->spec; }

void show(const qanat_env* env, std::size_t s, void* const* columns, std::uint8_t* mask, bool final) {
  const Slot& slot = env->slots[s];
  auto* cell = static_cast<float*>(columns[0]) + s;
  auto* grid = static_cast<std::uint8_t*>(columns[1]) + 9 * s;
  *cell = static_cast<float>(slot.cell);
  for (std::int64_t i = 0; i < 9; ++i) {
    if (is(env, "unwritten") && !final && i == 5) continue;
    grid[i] = i == slot.cell;
  }
  if (is(env, "nan-observation") && slot.cell == 3) *cell = std::nanf("");
  if (is(env, "range") && slot.cell == 5) grid[7] = 7;
  if (mask == nullptr) return;
  mask += 3 * s;
  mask[0] = slot.cell % 2 != 0;
  mask[1] = mask[2] = 1;
  if (is(env, "odd-mask") && slot.cell == 2) mask[1] = 255;
  if (is(env, "empty-mask") && !final && slot.cell == 4) mask[0] = mask[1] = mask[2] = 0;
}

void begin(qanat_env* env, std::size_t s) {
  Slot& slot = env->slots[s];
  Rng rng;
  rng.set_state(slot.rng);
  slot.steps = 0;
  slot.cell = static_cast<std::int64_t>(rng.below(3));
  if (is(env, "keeps-state")) slot.cell = env->steps < 50 ? 1 : 2;
  slot.rng = rng.state();
}

std::int32_t reset(qanat_env* env, const std::uint64_t* seeds, const std::uint8_t* which,
                   const qanat_env_buffers* buffers, qanat_env_error* error) {
  for (std::size_t s = 0; s < env->slots.size(); ++s) {
    if (is(env, "stray-reward")) buffers->rewards[s] = 0;
    if (which != nullptr && which[s] == 0) {
      if (is(env, "stray-row")) show(env, s, buffers->observations, buffers->action_mask, false);
      continue;
    }
    if (is(env, "fails-at-reset")) {
      error->slot = static_cast<std::int64_t>(s);
      std::strcpy(error->message, "no start in the maze");
      return QANAT_ENV_FAILED;
    }
    env->slots[s].rng = Rng(seeds[s]).state();
    begin(env, s);
    show(env, s, buffers->observations, buffers->action_mask, false);
  }
  return QANAT_ENV_OK;
}

// What concerns the whole batch; false: the step failed.
bool strike(qanat_env* env, const qanat_env_buffers* buffers, qanat_env_error* error) {
  const std::size_t n = env->slots.size();
  ++env->steps;
  if (is(env, "overrun")) buffers->rewards[n] = 0;
  if (is(env, "underrun")) buffers->terminated[-1] = 0;
  if (is(env, "slow") && env->steps == 10) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  if (is(env, "throws") && env->steps == 10) throw std::runtime_error("the dragon is loose");
  if (is(env, "crash") && env->steps == 10) std::abort();
  if (is(env, "hang") && env->steps == 10) std::this_thread::sleep_for(std::chrono::hours(1));
  if (is(env, "spec-changes") && env->steps == 10) env->spec.action_n = 4;
  if (is(env, "late-write") && env->kept != nullptr) env->kept[4] = static_cast<std::uint8_t>(2 - env->kept[4]);
  if (is(env, "thread-write")) {
    env->writer = {};
    env->returning = false;
    env->writer = std::jthread([env, at = static_cast<std::uint8_t*>(buffers->observations[1]) + 4] {
      env->returning.wait(false);
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      *at = 9;
    });
  }
  env->kept = static_cast<std::uint8_t*>(buffers->observations[1]);
  if (is(env, "fails") && env->steps == 10) {
    error->slot = 2;
    std::strcpy(error->message, "the physics blew up");
    return false;
  }
  return true;
}

void move(qanat_env* env, std::size_t s, std::int32_t action) {
  // Of slots that are linked all use the first one's chance.
  Slot& slot = env->slots[s];
  Slot& chance = env->slots[is(env, "slots-linked") ? 0 : s];
  Rng rng;
  rng.set_state(chance.rng);
  bool two = rng.chance(0.5);
  chance.rng = rng.state();
  if (is(env, "not-repeatable") && env->steps > 12) two = ++calls_of_all % 3 == 0;
  const std::int64_t by[] = {-1, 1, two ? 2 : 0};
  slot.cell = std::min<std::int64_t>(end, slot.cell + by[action]);
  ++slot.steps;
}

std::int32_t step(qanat_env* env, const void* actions, const qanat_env_buffers* buffers, qanat_env_error* error) {
  if (!strike(env, buffers, error)) return QANAT_ENV_FAILED;
  for (std::size_t s = 0; s < env->slots.size(); ++s) {
    Slot& slot = env->slots[s];
    move(env, s, static_cast<const std::int32_t*>(actions)[s]);
    const bool terminated = slot.cell == end;
    const bool truncated = slot.steps >= env->most && !is(env, "no-truncation");
    buffers->rewards[s] = terminated ? 1.0f : 0.0f;
    if (is(env, "nan-reward") && slot.cell == 6) buffers->rewards[s] = std::numeric_limits<float>::infinity();
    buffers->terminated[s] = static_cast<std::uint8_t>(terminated);
    buffers->truncated[s] = static_cast<std::uint8_t>(truncated);
    if (is(env, "flag") && terminated) buffers->terminated[s] = 255;
    if (terminated || truncated) {
      if (!is(env, "no-metrics")) buffers->metrics[s] = static_cast<double>(slot.steps);
      if (!is(env, "final-missing")) show(env, s, buffers->final_observations, buffers->final_action_mask, true);
      begin(env, s);
      if (is(env, "final-is-next")) show(env, s, buffers->final_observations, buffers->final_action_mask, true);
      if (is(env, "final-missing")) std::memset(buffers->final_action_mask + 3 * s, 1, 3);
    }
    show(env, s, buffers->observations, buffers->action_mask, false);
  }
  env->returning = true;
  env->returning.notify_one();
  return QANAT_ENV_OK;
}

std::int32_t snapshot(const qanat_env* env, std::uint64_t s, void* out, std::size_t capacity, std::size_t* size,
                      qanat_env_error*) {
  Slot slot = env->slots[s];
  // Something that is no part of the state.
  if (is(env, "odd-snapshot")) slot.steps |= ++calls_of_all << 8;
  *size = sizeof slot;
  if (capacity >= sizeof slot) std::memcpy(out, &slot, sizeof slot);
  return QANAT_ENV_OK;
}

std::int32_t restore(qanat_env* env, std::uint64_t s, const void* bytes, std::size_t size,
                     const qanat_env_buffers* buffers, qanat_env_error* error) {
  if ((size != sizeof(Slot) && !is(env, "takes-anything")) || is(env, "refuses-all")) {
    std::strcpy(error->message, "wrong size");
    return QANAT_ENV_FAILED;
  }
  const auto chance = env->slots[s].rng;
  std::memcpy(&env->slots[s], bytes, size);
  env->slots[s].steps &= 255;
  if (is(env, "forgets-chance")) env->slots[s].rng = chance;
  show(env, s, buffers->observations, buffers->action_mask, false);
  return QANAT_ENV_OK;
}

std::int32_t render(const qanat_env* env, std::uint64_t, std::uint8_t* out, std::size_t capacity, std::int32_t* height,
                    std::int32_t* width, qanat_env_error*) {
  *height = *width = is(env, "bad-render") ? 0 : 4;
  if (capacity >= 48) std::memset(out, 128, 48);
  return QANAT_ENV_OK;
}

template <std::size_t index>
constexpr qanat_env_table table = {.abi_version = QANAT_ENV_ABI_VERSION,
                                   .struct_size = sizeof(qanat_env_table),
                                   .id = names[index],
                                   .options_help = nullptr,
                                   .create = create<index>,
                                   .destroy = index + 1 == count ? destroy_carelessly : destroy,
                                   .spec = spec,
                                   .reset = reset,
                                   .step = step,
                                   .snapshot = snapshot,
                                   .restore = restore,
                                   .render = render,
                                   .summary = nullptr};

template <std::size_t... indices>
const qanat_env_table* table_at(std::uint32_t index, std::index_sequence<indices...>) {
  static constexpr const qanat_env_table* tables[] = {&table<indices>...};
  return index < count ? tables[index] : nullptr;
}

}  // namespace

extern "C" QANAT_ENV_EXPORT const qanat_env_table* qanat_env_api(std::uint32_t index) {
  return table_at(index, std::make_index_sequence<count>());
}
