// Settings of the actors' and the evaluator's processes.
#pragma once

#include <cstdint>
#include <string>

#include "core/config.h"
#include "nn/normalization.h"
#include "nn/td.h"

namespace qanat::actors {

// How often an actor tries a random action instead of the greedy one.
struct ExplorationConfig {
  std::string kind = "ladder";
  double ladder_base = 0.4;
  double ladder_exponent = 7;
  double linear_start = 1.0;
  double linear_end = 0.05;
  std::int64_t linear_steps = 100'000;
  double constant = 0.05;

  void describe(ConfigVisitor& v) {
    v.field(
        "kind", kind,
        "ladder: slot i of N explores with base^(1 + i / (N - 1) * exponent) for ever (Horgan et al., 2018). linear: "
        "all slots alike, falling over the run. constant: all alike, for ever.",
        {"ladder", "linear", "constant"});
    v.field("ladder_base", ladder_base, "Epsilon of the ladder's first slot.", {.low = 0, .high = 1});
    v.field("ladder_exponent", ladder_exponent, "The last slot's epsilon is base^(1 + exponent).", {.low = 0});
    v.field("linear_start", linear_start, "Epsilon at the first env step.", {.low = 0, .high = 1});
    v.field("linear_end", linear_end, "Epsilon from env step linear_steps on.", {.low = 0, .high = 1});
    v.field("linear_steps", linear_steps, "Env steps of the whole run, all actors together, over which epsilon falls.",
            {.low = 1});
    v.field("constant", constant, "Epsilon of kind constant.", {.low = 0, .high = 1});
  }
};

struct ActorsConfig {
  std::int64_t count = 2;
  std::int64_t slots = 16;
  std::int64_t total_slots = 0;
  std::int64_t chunk_steps = 16;
  std::int64_t max_chunks_in_flight = 4;
  std::string precision = "auto";
  ExplorationConfig exploration;

  void describe(ConfigVisitor& v) {
    v.field("count", count, "Actor processes that train starts.", {.low = 1, .high = 65536});
    v.field("slots", slots, "Environment slots of an actor, an even number: two groups take turns.",
            {.low = 2, .high = 65536});
    v.field("total_slots", total_slots, "Slots of the epsilon ladder over all actors. 0: count * slots.", {.low = 0});
    v.field("chunk_steps", chunk_steps, "Env steps of a slot that are sent together.", {.low = 1, .high = 65536});
    v.field("max_chunks_in_flight", max_chunks_in_flight,
            "Chunks of a slot sent and not yet acknowledged before the actor waits.", {.low = 1, .high = 1024});
    v.field("precision", precision,
            "What actors compute Q-values in. bf16: by the processor's matrix units (Intel AMX), for networks of "
            "convolutions and linear layers; several times as fast. auto: bf16 where that can be had and a sample has "
            "4096 numbers or more (images), else fp32. Evaluations are always in fp32.",
            {"auto", "fp32", "bf16"});
    v.section("exploration", exploration, "How often actions are random.");
  }

  [[nodiscard]] std::int64_t ladder_slots() const { return total_slots > 0 ? total_slots : count * slots; }
};

struct EvaluationConfig {
  std::int64_t episodes = 20;
  double every_seconds = 2;
  double epsilon = 0;
  std::int64_t max_steps = 0;
  std::int64_t final_episodes = 100;
  double final_max_seconds = 600;

  void describe(ConfigVisitor& v) {
    v.field("episodes", episodes, "Episodes of a periodic evaluation.", {.low = 1, .high = 1'000'000});
    v.field("every_seconds", every_seconds, "Seconds from the end of one periodic evaluation to the next.", {.low = 0});
    v.field("epsilon", epsilon, "Share of random actions while evaluating; 0: greedy.", {.low = 0, .high = 1});
    v.field(
        "max_steps", max_steps,
        "An episode is cut after so many steps and counts with its return so far. 0: the environment's own limit, or "
        "10000 where it has none.",
        {.low = 0});
    v.field("final_episodes", final_episodes, "Episodes of the evaluation that ends a run.",
            {.low = 1, .high = 1'000'000});
    v.field(
        "final_max_seconds", final_max_seconds,
        "The evaluation that ends a run takes at most so long: episodes that still go on are cut and count with "
        "their return so far, those not begun are left out, and both are said. 0: no bound; a lockstep run has none.",
        {.low = 0});
  }
};

// What actors need to know of the agent: enough to compute the learner's own TD error.
struct AgentView {
  std::int64_t n_step = 3;
  double gamma = 0.99;
  nn::TdOptions td;
  double reward_clip = 0;  // 0: off
  double priority_epsilon = 1e-3;
  nn::NormalizationOptions normalization;
};

}  // namespace qanat::actors
