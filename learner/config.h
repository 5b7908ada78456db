// Settings of the agent and of the learner's process.
#pragma once

#include <cstdint>
#include <string>

#include "core/config.h"
#include "nn/backend.h"
#include "nn/normalization.h"

namespace qanat::learner {

// What is learned: the heads' meaning, the target, the loss. Shared with actors, which compute first priorities.
struct AgentConfig {
  std::int64_t stack = 1;
  std::int64_t n_step = 3;
  double gamma = 0.99;
  bool double_q = true;
  bool huber = true;
  double huber_delta = 1;
  double reward_clip = 0;
  bool normalize_observations = false;
  bool normalize_rewards = false;
  double normalization_clip = 10;
  bool value_rescale = false;
  double rescale_epsilon = 1e-3;

  void describe(ConfigVisitor& v) {
    v.field("stack", stack, "Observations that make one input, oldest first; the first of an episode is repeated.",
            {.low = 1, .high = 64});
    v.field("n_step", n_step, "Rewards in a target before it bootstraps.", {.low = 1, .high = 200});
    v.field("gamma", gamma, "Discount per env step.", {.low = 0, .high = 1});
    v.field("double_q", double_q, "Choose the next action by the online network (van Hasselt et al., 2016).");
    v.field("huber", huber, "Huber loss; false: squared error.");
    v.field("huber_delta", huber_delta, "Where the Huber loss turns linear, in units of the target.", {.low = 1e-6});
    v.field("reward_clip", reward_clip, "Clip rewards to [-x, x] when training; 0: off. Reported returns stay raw.",
            {.low = 0});
    v.field("normalize_observations", normalize_observations,
            "f32 observations: subtract the running mean of each element and divide by its running deviation "
            "(docs/normalization.md). Not for u8 observations.");
    v.field("normalize_rewards", normalize_rewards,
            "Divide rewards by the running deviation of the discounted return when training; in place of reward_clip. "
            "Reported returns stay raw.");
    v.field("normalization_clip", normalization_clip,
            "Clip normalised observations and normalised rewards to [-x, x]; 0: off.", {.low = 0});
    v.field("value_rescale", value_rescale, "Learn h(value) instead of the value (Pohlen et al., 2018).");
    v.field("rescale_epsilon", rescale_epsilon, "Epsilon of h.", {.low = 0});
  }

  [[nodiscard]] nn::NormalizationOptions normalization() const {
    return {normalize_observations, normalize_rewards, normalization_clip};
  }
  [[nodiscard]] nn::TdOptions td() const {
    return {double_q, huber, static_cast<float>(huber_delta), value_rescale, static_cast<float>(rescale_epsilon)};
  }
};

struct OptimizerConfig {
  std::string kind = "adam";
  double learning_rate = 1e-3;
  double final_learning_rate = -1;
  std::int64_t anneal_updates = 0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double rms_decay = 0.95;
  bool rms_centered = false;
  double max_grad_norm = 10;

  void describe(ConfigVisitor& v) {
    v.field("kind", kind, "Both as PyTorch defines them.", {"adam", "rmsprop"});
    v.field("learning_rate", learning_rate, "Step size at the first update.", {.low = 0});
    v.field("final_learning_rate", final_learning_rate,
            "Step size after anneal_updates, linear in between. -1: constant.");
    v.field("anneal_updates", anneal_updates, "Updates over which the step size is annealed. 0: constant.", {.low = 0});
    v.field("beta1", beta1, "Adam: decay of the first moment.", {.low = 0, .high = 1});
    v.field("beta2", beta2, "Adam: decay of the second moment.", {.low = 0, .high = 1});
    v.field("epsilon", epsilon, "Added to the root.", {.low = 0});
    v.field("rms_decay", rms_decay, "RMSprop: decay of the squared gradient.", {.low = 0, .high = 1});
    v.field("rms_centered", rms_centered, "RMSprop: subtract the mean gradient's square.");
    v.field("max_grad_norm", max_grad_norm, "Clip the global gradient norm; 0: off.", {.low = 0});
  }
};

struct LearnerConfig {
  std::string device = "auto";
  std::string precision = "auto";
  std::string kernels = "auto";
  std::int64_t batch = 32;
  std::int64_t prefetch = 2;
  std::int64_t target_update_every = 500;
  double target_tau = 1;
  std::int64_t publish_every = 50;
  OptimizerConfig optimizer;

  void describe(ConfigVisitor& v) {
    v.field(
        "device", device,
        "Where updates run: cpu; cuda:N for a GPU by its number; auto for the first GPU where one can be used, else "
        "cpu (`qanat doctor` tells which and why); reference for the plain loops that the tests trust.");
    v.field("precision", precision,
            "On a GPU, what activations and products are computed in; auto: bf16 for networks with convolutions, else "
            "tf32. "
            "Weights and the optimiser stay f32. A processor computes in fp32.",
            {"auto", "bf16", "tf32", "fp32"});
    v.field("kernels", kernels,
            "On a GPU: general runs any network on cuDNN and cuBLASLt, fused are own kernels for networks they know; "
            "auto: fused where they fit.",
            {"auto", "general", "fused"});
    v.field("batch", batch, "Items an update.", {.low = 1, .high = 65536});
    v.field("prefetch", prefetch,
            "Batches requested ahead. Small ones travel several at a time when this is 4 or more.",
            {.low = 1, .high = 64});
    v.field("target_update_every", target_update_every, "Updates between hard copies to the target network; 0: none.",
            {.low = 0});
    v.field("target_tau", target_tau, "Soft target update each update: target += tau (online - target). 1: off.",
            {.low = 0, .high = 1});
    v.field("publish_every", publish_every, "Updates between two weight versions for the actors.", {.low = 1});
    v.section("optimizer", optimizer, "The optimiser.");
  }
};

struct CheckpointConfig {
  std::int64_t every_updates = 0;
  double every_seconds = 60;
  std::int64_t keep = 2;
  bool replay = true;
  double give_up_seconds = 600;

  void describe(ConfigVisitor& v) {
    v.field("every_updates", every_updates, "Updates between checkpoints; 0: only by time and at the end.", {.low = 0});
    v.field("every_seconds", every_seconds, "Seconds between checkpoints; 0: never by time.", {.low = 0});
    v.field("keep", keep, "Complete checkpoints kept, besides the best weights.", {.low = 1, .high = 1000});
    v.field("replay", replay, "Save the replay too, so that a resumed run goes on with it.");
    v.field("give_up_seconds", give_up_seconds,
            "A save that fails is tried again while training goes on. When none has succeeded for so many seconds, the "
            "run ends with the cause; 0: it goes on.",
            {.low = 0});
  }
};

struct StopConfig {
  std::int64_t env_steps = 0;
  std::int64_t updates = 0;
  double wall_seconds = 0;
  bool at_target_score = false;
  double target_score = 0;

  void describe(ConfigVisitor& v) {
    v.field("env_steps", env_steps, "End after so many env steps; 0: never.", {.low = 0});
    v.field("updates", updates, "End after so many updates; 0: never.", {.low = 0});
    v.field("wall_seconds", wall_seconds, "End after so many seconds of training, over all resumptions; 0: never.",
            {.low = 0});
    v.field("at_target_score", at_target_score, "End when a periodic evaluation's mean reaches target_score.");
    v.field("target_score", target_score, "See at_target_score; raw return.");
  }
};

}  // namespace qanat::learner
