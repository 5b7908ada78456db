/* An environment in plain C99: a slot counts down from 3 + seed % 4, then terminates. Observation i64 scalar. */
#include "tests/envs/plugin/countdown.h"

#include <stdio.h>
#include <stdlib.h>

struct qanat_env {
  uint64_t slots;
  int64_t* left;
  int64_t* start;
  qanat_env_tensor tensor;
  qanat_env_spec spec;
};

static int32_t create(const qanat_env_config* config, qanat_env** out, qanat_env_error* error) {
  qanat_env* env = calloc(1, sizeof *env);
  *out = NULL;
  if (config->options[0] != '\0') {
    snprintf(error->message, sizeof error->message, "no options are known, got %s", config->options);
    free(env);
    return QANAT_ENV_FAILED;
  }
  env->slots = config->slots;
  env->left = calloc((size_t)config->slots, sizeof(int64_t));
  env->start = calloc((size_t)config->slots, sizeof(int64_t));
  env->tensor.name = "left";
  env->tensor.dtype = QANAT_ENV_I64;
  env->tensor.high = 6;
  env->spec.struct_size = sizeof env->spec;
  env->spec.observation_count = 1;
  env->spec.tensor_size = sizeof env->tensor;
  env->spec.observations = &env->tensor;
  env->spec.action_kind = QANAT_ENV_DISCRETE;
  env->spec.action_n = 1;
  *out = env;
  return QANAT_ENV_OK;
}

static void destroy(qanat_env* env) {
  if (env == NULL) return;
  free(env->left);
  free(env->start);
  free(env);
}

static const qanat_env_spec* spec(const qanat_env* env) { return &env->spec; }

static int32_t reset(qanat_env* env, const uint64_t* seeds, const uint8_t* which, const qanat_env_buffers* buffers,
                     qanat_env_error* error) {
  int64_t* shown = buffers->observations[0];
  uint64_t s;
  (void)error;
  for (s = 0; s < env->slots; ++s) {
    if (which != NULL && which[s] == 0) continue;
    shown[s] = env->left[s] = env->start[s] = 3 + (int64_t)(seeds[s] % 4);
  }
  return QANAT_ENV_OK;
}

static int32_t step(qanat_env* env, const void* actions, const qanat_env_buffers* buffers, qanat_env_error* error) {
  int64_t* shown = buffers->observations[0];
  int64_t* last = buffers->final_observations[0];
  uint64_t s;
  (void)actions;
  (void)error;
  for (s = 0; s < env->slots; ++s) {
    const int ended = --env->left[s] == 0;
    buffers->rewards[s] = (float)env->left[s];
    buffers->terminated[s] = (uint8_t)ended;
    buffers->truncated[s] = 0;
    if (ended) {
      last[s] = 0;
      env->left[s] = env->start[s];
    }
    shown[s] = env->left[s];
  }
  return QANAT_ENV_OK;
}

const qanat_env_table countdown_table = {QANAT_ENV_ABI_VERSION,
                                         sizeof(qanat_env_table),
                                         "countdown",
                                         NULL,
                                         create,
                                         destroy,
                                         spec,
                                         reset,
                                         step,
                                         NULL,
                                         NULL,
                                         NULL,
                                         "counts down from a number"};
