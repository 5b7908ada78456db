#include "nn/sequence.h"

#include "core/error.h"
#include "nn/engine.h"

namespace qanat::nn {

void check_sequence_options(const NetworkSpec& spec, const SequenceOptions& o) {
  if (!spec.lstm_layer()) throw ConfigError("a network without an lstm is not trained on sequences");
  check_options(o.update);
  const auto require = [](bool holds, const char* what, double value) {
    if (!holds) throw ConfigError(text("sequence option ", what, " is ", value));
  };
  require(o.burn_in >= 0, "burn_in (0 or above)", static_cast<double>(o.burn_in));
  require(o.n_step >= 1, "n_step (at least 1)", static_cast<double>(o.n_step));
  require(o.unroll > o.n_step, "unroll (above n_step)", static_cast<double>(o.unroll));
  require(o.gamma > 0 && o.gamma <= 1, "gamma (above 0 to 1)", o.gamma);
  require(o.priority_eta >= 0 && o.priority_eta <= 1, "priority_eta (0 to 1)", o.priority_eta);
}

namespace {

void check_lengths(const SequenceOptions& options, const SequenceBatch& batch) {
  for (std::int64_t b = 0; b < batch.size; ++b) {
    const std::int64_t length = batch.length[b];
    if (length < 1 || length > options.steps()) {
      throw InputError(text("sequence ", b, " has ", length, " observations, wanted 1 to ", options.steps()));
    }
    if (batch.end[b] > SequenceEnd::truncated) {
      throw InputError(text("sequence ", b, " ends in way ", static_cast<int>(batch.end[b]), ", known are 0 to 2"));
    }
    // Windows only get shorter with t: the first step after the burn-in has one or none has.
    if (sequence_window(options.burn_in, length, batch.end[b], options.n_step).steps == 0) {
      throw InputError(text("sequence ", b, " of ", length,
                            " observations has no step to learn from after a burn-in of ", options.burn_in, " with ",
                            options.n_step, "-step returns"));
    }
  }
}

}  // namespace

void check_sequence_batch(const NetworkSpec& spec, const SequenceOptions& options, const SequenceBatch& batch) {
  if (batch.size != options.update.batch) {
    throw InputError(text("a batch of ", batch.size, " sequences for a trainer of ", options.update.batch));
  }
  const std::int64_t samples = options.steps() * batch.size;
  check_rows(spec, batch.observations, samples);
  if (batch.previous_action == nullptr || batch.previous_reward == nullptr || batch.action == nullptr ||
      batch.reward == nullptr || batch.length == nullptr || batch.end == nullptr || batch.hidden == nullptr ||
      batch.cell == nullptr || batch.weight == nullptr) {
    throw InputError("a batch of sequences lacks a column");
  }
  for (std::int64_t i = 0; i < samples; ++i) {
    if (batch.action[i] < 0 || batch.action[i] >= spec.actions) {
      throw InputError(text("step ", i / batch.size, " of sequence ", i % batch.size, " took action ", batch.action[i],
                            " of ", spec.actions));
    }
    if (batch.previous_action[i] < -1 || batch.previous_action[i] >= spec.actions) {
      throw InputError(text("step ", i / batch.size, " of sequence ", i % batch.size, " follows action ",
                            batch.previous_action[i], " of ", spec.actions));
    }
  }
  check_lengths(options, batch);
}

}  // namespace qanat::nn
