// Settings of the replay.
#pragma once

#include <cstdint>
#include <string>

#include "core/config.h"

namespace qanat::replay {

struct ReplayConfig {
  std::int64_t shards = 2;
  std::int64_t capacity_steps = 100'000;
  std::int64_t min_size = 1'000;
  double ratio = 1;
  std::int64_t ratio_window_steps = 0;
  std::string selector = "prioritised";
  double alpha = 0.6;
  double beta_start = 0.4;
  double beta_end = 1.0;
  std::int64_t beta_updates = 100'000;
  double priority_epsilon = 1e-3;
  double silent_after_seconds = 2;
  std::int64_t max_frame_megabytes = 256;

  void describe(ConfigVisitor& v) {
    v.field("shards", shards, "Shard processes; streams are spread over them.", {.low = 1, .high = 4096});
    v.field("capacity_steps", capacity_steps,
            "Rows kept over all shards: env steps, and one more for the last observation of each episode.",
            {.low = 100});
    v.field("min_size", min_size, "Drawable items over all shards before training starts and the ratio counts.",
            {.low = 1});
    v.field("ratio", ratio, "Replay ratio: trained steps per inserted step. 0 leaves both sides running freely.",
            {.low = 0});
    v.field("ratio_window_steps", ratio_window_steps,
            "Width of the range in which ratio * inserted - drawn may move, in trained steps. 0: four times the least "
            "that cannot deadlock (batch * prefetch + ratio * chunk * streams).",
            {.low = 0});
    v.field("selector", selector, "How items are drawn.", {"prioritised", "uniform"});
    v.field("alpha", alpha, "Exponent of priorities (Schaul et al., 2016).", {.low = 0, .high = 2});
    v.field("beta_start", beta_start, "Importance exponent at the first update.", {.low = 0, .high = 1});
    v.field("beta_end", beta_end, "Importance exponent from update beta_updates on; linear in between.",
            {.low = 0, .high = 1});
    v.field("beta_updates", beta_updates, "Updates over which beta is annealed.", {.low = 1});
    v.field("priority_epsilon", priority_epsilon, "Added to |TD error|, so that no item is forgotten.", {.low = 0});
    v.field("silent_after_seconds", silent_after_seconds,
            "Silence of a shard after which the other shards draw its part of the learner's batches, until it is heard "
            "again. More than the largest reply takes over a slow link.",
            {.low = 0.1, .high = 3600});
    v.field("max_frame_megabytes", max_frame_megabytes, "Largest part of a message a shard accepts, MiB.",
            {.low = 1, .high = 2000});
  }
};

}  // namespace qanat::replay
