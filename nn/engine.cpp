#include "nn/engine.h"

namespace qanat::nn {

void check_size(const char* what, std::size_t seen, std::size_t wanted) {
  if (seen != wanted) throw InputError(text(what, ": ", seen, " values, wanted ", wanted));
}

void check_rows(const NetworkSpec& spec, const ObservationRows& rows, std::int64_t samples) {
  if (samples < 0) throw InputError(text("a batch of ", samples, " samples"));
  if (samples == 0) return;
  if (rows.data == nullptr) throw InputError("observation rows are missing");
  if (rows.index == nullptr) {
    if (spec.stack != 1) throw InputError(text("a stack of ", spec.stack, " needs an index of rows"));
    if (rows.rows < samples) throw InputError(text(rows.rows, " observation rows for ", samples, " samples"));
    return;
  }
  for (std::int64_t i = 0; i < samples * spec.stack; ++i) {
    if (rows.index[i] >= rows.rows) {
      throw InputError(text("index ", i, " names row ", rows.index[i], " of ", rows.rows));
    }
  }
}

void check_batch(const NetworkSpec& spec, const TrainerOptions& options, const QBatch& batch) {
  if (batch.size != options.batch) {
    throw InputError(text("a batch of ", batch.size, " for a trainer of batches of ", options.batch));
  }
  check_rows(spec, batch.state, batch.size);
  check_rows(spec, batch.next_state, batch.size);
  if (batch.action == nullptr || batch.returns == nullptr || batch.bootstrap == nullptr || batch.weight == nullptr) {
    throw InputError("a batch lacks actions, returns, bootstraps or weights");
  }
  for (std::int64_t b = 0; b < batch.size; ++b) {
    if (batch.action[b] < 0 || batch.action[b] >= spec.actions) {
      throw InputError(text("sample ", b, " took action ", batch.action[b], " of ", spec.actions));
    }
  }
}

Plan feed_forward_plan(const NetworkSpec& spec) {
  if (spec.lstm_layer()) {
    throw ConfigError(text("network layer ", *spec.lstm_layer(), " is an lstm: such a network learns from sequences"));
  }
  return make_plan(spec);
}

void check_options(const TrainerOptions& o) {
  const auto require = [](bool holds, const char* what, double value) {
    if (!holds) throw ConfigError(text("trainer option ", what, " is ", value));
  };
  require(o.batch >= 1, "batch (at least 1)", static_cast<double>(o.batch));
  require(o.beta1 >= 0 && o.beta1 < 1, "beta1 (0 to below 1)", o.beta1);
  require(o.beta2 >= 0 && o.beta2 < 1, "beta2 (0 to below 1)", o.beta2);
  require(o.epsilon > 0, "epsilon (above 0)", o.epsilon);
  require(o.rms_decay >= 0 && o.rms_decay < 1, "rms_decay (0 to below 1)", o.rms_decay);
  require(o.max_grad_norm >= 0, "max_grad_norm (0 or above)", o.max_grad_norm);
  require(o.target_tau > 0 && o.target_tau <= 1, "target_tau (above 0 to 1)", o.target_tau);
  require(o.td.huber_delta > 0, "huber_delta (above 0)", o.td.huber_delta);
  require(o.td.rescale_epsilon >= 0, "rescale_epsilon (0 or above)", o.td.rescale_epsilon);
  if (o.optimizer != "adam" && o.optimizer != "rmsprop") {
    throw ConfigError(text("optimizer '", o.optimizer, "' is neither adam nor rmsprop"));
  }
  if (o.precision != "auto" && o.precision != "bf16" && o.precision != "tf32" && o.precision != "fp32") {
    throw ConfigError(text("precision '", o.precision, "' is none of auto, bf16, tf32, fp32"));
  }
  if (o.kernels != "auto" && o.kernels != "general" && o.kernels != "fused") {
    throw ConfigError(text("kernels '", o.kernels, "' is none of auto, general, fused"));
  }
}

void check_max_batch(std::int64_t max_batch) {
  if (max_batch < 1) throw ConfigError(text("max_batch is ", max_batch, ", it must be at least 1"));
}

void check_plain(const std::string& backend, const std::string& precision, const std::string& kernels) {
  if (precision != "auto" && precision != "fp32") {
    throw ConfigError(text("precision ", precision, " needs a GPU: ", backend, " computes in fp32"));
  }
  if (kernels == "fused") throw ConfigError(text("fused kernels need a GPU: ", backend, " has none"));
}

}  // namespace qanat::nn
