/* The environment of countdown.c, which proves that qanat/env.h is C99. */
#ifndef QANAT_TESTS_COUNTDOWN_H
#define QANAT_TESTS_COUNTDOWN_H

#include "qanat/env.h"

#ifdef __cplusplus
extern "C" {
#endif
extern const qanat_env_table countdown_table;
#ifdef __cplusplus
}
#endif
#endif
