/*
 * The C interface between Qanat and an environment. C99 and C++, standard headers only.
 *
 * One handle (qanat_env) is a batch of independent slots of one environment, stepped in one call. C++ authors
 * want "qanat/env.hpp", which turns a small class into all of this.
 *
 * Plug-ins. A shared object exports qanat_env_api(index), which returns the tables of the environments it holds:
 * index 0, 1, ...; NULL past the last. Tables are constant and live as long as the shared object.
 *
 * Threads. A handle is used by one thread at a time; it may move between threads, and whoever moves it orders the
 * calls. Different handles share nothing and may be used at the same time; create() may be called from several
 * threads at once. A call may use threads of its own, but they have let go of every buffer when it returns.
 *
 * Ownership. The caller owns every buffer it passes and may pass other ones at the next call; an environment keeps
 * no pointer to them after it returns. What spec() points to belongs to the handle and is constant until destroy().
 * No C++ exception, longjmp, exit() or signal handler crosses this interface.
 *
 * Errors. Functions that can fail return QANAT_ENV_OK or QANAT_ENV_FAILED and fill in a qanat_env_error, the slot
 * included if it concerns one. After a failed reset, step or restore the buffers' contents are undefined, and the
 * handle accepts only a reset of all slots or destroy().
 *
 * Growth. Whoever fills in a struct sets struct_size to its own sizeof. Fields are only ever added at the end, and a
 * reader touches none that lies beyond struct_size. QANAT_ENV_ABI_VERSION changes when that is not enough.
 */
#ifndef QANAT_ENV_H
#define QANAT_ENV_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define QANAT_ENV_EXPORT __declspec(dllexport)
#else
#define QANAT_ENV_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define QANAT_ENV_ABI_VERSION 1u
#define QANAT_ENV_MAX_OBSERVATIONS 8

enum { QANAT_ENV_OK = 0, QANAT_ENV_FAILED = 1 };

/* Element types of observations. */
enum { QANAT_ENV_U8 = 0, QANAT_ENV_I32 = 1, QANAT_ENV_I64 = 2, QANAT_ENV_F32 = 3, QANAT_ENV_F64 = 4 };

/* Action spaces. The host refuses actions out of range before they get here. */
enum {
  QANAT_ENV_DISCRETE = 0,       /* int32 [slots], each in [0, action_n) */
  QANAT_ENV_MULTI_DISCRETE = 1, /* int32 [slots, action_dims], number d in [0, action_nvec[d]) */
  QANAT_ENV_BOX = 2             /* float [slots, action_dims], number d in [action_low[d], action_high[d]] */
};

typedef struct qanat_env qanat_env;

typedef struct qanat_env_error {
  size_t struct_size;
  int64_t slot;       /* -1: concerns no single slot */
  char message[1008]; /* NUL-terminated UTF-8; cut when longer */
} qanat_env_error;

/* One named observation. A slot's part is shape[0] * ... * shape[rank - 1] elements, in C order, without padding. */
typedef struct qanat_env_tensor {
  const char* name;
  uint32_t dtype;
  uint32_t rank; /* 0: a scalar */
  const int64_t* shape;
  double low, high; /* bounds over all elements; may be infinite */
} qanat_env_tensor;

typedef struct qanat_env_spec {
  size_t struct_size;
  uint32_t observation_count; /* 1 .. QANAT_ENV_MAX_OBSERVATIONS */
  uint32_t tensor_size;       /* sizeof(qanat_env_tensor) where it was filled in: the stride of `observations` */
  const qanat_env_tensor* observations;
  uint32_t action_kind;
  uint32_t action_dims;       /* multi-discrete and box: numbers in an action; discrete: 0 */
  int64_t action_n;           /* discrete: how many actions; else 0 */
  const int64_t* action_nvec; /* multi-discrete: [action_dims]; else NULL */
  const float* action_low;    /* box: [action_dims], finite, low < high; else NULL */
  const float* action_high;
  uint32_t has_action_mask;   /* 0 or 1; never with box */
  uint32_t metric_count;      /* numbers reported at the end of each episode */
  const char* const* metrics; /* [metric_count] names */
  int64_t max_episode_steps;  /* the limit in force; 0: none */
  uint32_t can_snapshot;      /* 0 or 1: snapshot and restore work */
  uint32_t can_render;        /* 0 or 1: render works */
} qanat_env_spec;

typedef struct qanat_env_config {
  size_t struct_size;
  uint64_t slots;            /* at least 1 */
  const char* options;       /* never NULL. By convention "key=value,key=value"; see the environment's options_help */
  int64_t max_episode_steps; /* above 0: replaces the environment's own limit; 0: its own */
} qanat_env_config;

/* Where results go, row s for slot s. Pointers are aligned to their element type. Those of an optional part
 * (mask, metrics) are NULL when the spec does not have it, those of columns beyond observation_count too. */
typedef struct qanat_env_buffers {
  size_t struct_size;
  void* observations[QANAT_ENV_MAX_OBSERVATIONS];       /* [slots, shape...] */
  void* final_observations[QANAT_ENV_MAX_OBSERVATIONS]; /* [slots, shape...]; rows written only where ended */
  float* rewards;                                       /* [slots] */
  uint8_t* terminated;                                  /* [slots], 0 or 1 */
  uint8_t* truncated;                                   /* [slots], 0 or 1 */
  uint8_t* action_mask;       /* [slots, actions], 1 = allowed; actions = action_n or the sum of action_nvec */
  uint8_t* final_action_mask; /* [slots, actions]; rows written only where ended */
  double* metrics;            /* [slots, metric_count]; rows written only where ended */
  /* [slots]; 0 when a call begins. An environment that cannot begin the next episode within the step that ended one
   * sets 1 there: the slot's row of observations and action_mask then hold anything valid, its next step only begins
   * the episode (the action is ignored, reward and flags are 0), and nobody may take that step for one of an episode.
   * Most environments never touch it. */
  uint8_t* resetting;
} qanat_env_buffers;

typedef struct qanat_env_table {
  uint32_t abi_version; /* QANAT_ENV_ABI_VERSION */
  uint32_t struct_size;
  const char* id;           /* "CartPole-v1" */
  const char* options_help; /* text for people, one option a line; may be NULL */

  /* Makes a batch. On failure *env is NULL. Slots hold nothing until the first reset. */
  int32_t (*create)(const qanat_env_config* config, qanat_env** env, qanat_env_error* error);
  /* NULL is allowed. */
  void (*destroy)(qanat_env* env);
  const qanat_env_spec* (*spec)(const qanat_env* env);

  /* Starts a new episode from seeds[s] in each slot s whose which[s] is not 0 (which NULL: in all). What a slot does
   * from here on is a function of its seed, its index, the options and its actions alone. Writes the rows of
   * observations and action_mask of those slots, nothing else. */
  int32_t (*reset)(qanat_env* env, const uint64_t* seeds, const uint8_t* which, const qanat_env_buffers* buffers,
                   qanat_env_error* error);

  /* One step of every slot. Writes every row of observations, action_mask, rewards, terminated and truncated.
   * The two flags are independent: both are set when the environment ends in the very step of its time limit; it is
   * the consumer's rule that terminated wins. Where either is set the slot has been reset within this step (from its
   * own random stream): observations and action_mask hold the first of the new episode, final_observations and
   * final_action_mask the last of the ended one, metrics the ended one's. reward, terminated and truncated belong
   * to the ended one. */
  int32_t (*step)(qanat_env* env, const void* actions, const qanat_env_buffers* buffers, qanat_env_error* error);

  /* Optional (NULL): the whole state of a slot, random stream included, as bytes that mean something only to the same
   * environment with the same options. Sets *size to the bytes needed and writes them if capacity suffices; out may
   * be NULL when capacity is 0. Equal states give equal bytes. */
  int32_t (*snapshot)(const qanat_env* env, uint64_t slot, void* out, size_t capacity, size_t* size,
                      qanat_env_error* error);
  /* Optional (NULL): the reverse. Bytes that no snapshot gave are refused with an error. Writes the slot's rows of
   * observations and action_mask. */
  int32_t (*restore)(qanat_env* env, uint64_t slot, const void* bytes, size_t size, const qanat_env_buffers* buffers,
                     qanat_env_error* error);

  /* Optional (NULL): the slot as a picture, RGB u8 [height, width, 3]. Sets *height and *width and writes the picture
   * if capacity (bytes) suffices; out may be NULL when capacity is 0. */
  int32_t (*render)(const qanat_env* env, uint64_t slot, uint8_t* out, size_t capacity, int32_t* height, int32_t* width,
                    qanat_env_error* error);

  /* What the environment is, in one line for people; may be NULL. */
  const char* summary;
} qanat_env_table;

/* What a plug-in exports under this name. */
QANAT_ENV_EXPORT const qanat_env_table* qanat_env_api(uint32_t index);

#ifdef __cplusplus
}
#endif
#endif
