// The whole recurrent update against PyTorch in float64: cases are written to a file, which torch_sequence_check.py
// reads. Runs where the environment variable QANAT_TEST_PYTHON names a Python that has torch.
#include <cstdlib>

#include "tests/nn/decisive.h"
#include "tests/nn/sequence_support.h"
#include "tests/nn/torch_script.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

using nlohmann::json;

struct SequenceCase {
  std::string name;
  NetworkSpec spec;
  SequenceOptions options;
  bool masked = false;
  std::string device = "reference64";
  double tolerance = 1e-6;  // results are handed out as f32
  double cosine = -1;       // least between gradients
  bool decisive = false;    // for reduced precision
};

json description(const SequenceCase& c, const RandomSequences& batch) {
  const NetworkSpec& spec = c.spec;
  std::vector<int> ends;
  for (const SequenceEnd end : batch.end) ends.push_back(static_cast<int>(end));
  const TdOptions& td = c.options.update.td;
  json out = network_json(spec);
  out.update({{"name", c.name + " on " + c.device},
              {"actions", spec.actions},
              {"burn_in", c.options.burn_in},
              {"n_step", c.options.n_step},
              {"gamma", c.options.gamma},
              {"eta", c.options.priority_eta},
              {"td",
               {{"double_q", td.double_q},
                {"huber", td.huber},
                {"delta", td.huber_delta},
                {"rescale", td.rescale},
                {"epsilon", td.rescale_epsilon}}},
              {"rows", row_values(spec, batch.rows)},
              {"batch",
               {{"index", batch.index},
                {"previous_action", batch.previous_action},
                {"previous_reward", batch.previous_reward},
                {"action", batch.action},
                {"reward", batch.reward},
                {"mask", c.masked ? json(batch.mask) : json()},
                {"length", batch.length},
                {"end", ends},
                {"hidden", batch.hidden},
                {"cell", batch.cell},
                {"weight", batch.weight}}}});
  return out;
}

json case_json(const SequenceCase& c, std::uint64_t seed, bool forget_reward) {
  Rng rng(seed);
  RandomSequences batch(c.spec, c.options, rng, c.masked);
  if (c.decisive) allow_one(batch, c.spec, rng);
  const auto online = c.decisive ? decisive_parameters(c.spec, seed + 1) : random_parameters(c.spec, seed + 1);
  const auto target = c.decisive ? decisive_parameters(c.spec, seed + 2) : random_parameters(c.spec, seed + 2);
  const auto trainer = make_backend(c.device)->sequence_trainer(c.spec, c.options);
  trainer->set_parameters(online, target);
  SequenceBatch view = batch.view;
  const std::vector<float> zeros(batch.previous_reward.size());
  if (forget_reward) view.previous_reward = zeros.data();
  const double rate = 1e-2;
  const SequenceUpdated seen = update(*trainer, view, {.learning_rate = rate});

  json out = description(c, batch);
  out["tolerance"] = c.tolerance;
  out["cosine"] = c.cosine;
  const TrainerOptions& o = c.options.update;
  out["optimizer"] = {{"kind", o.optimizer}, {"rate", rate},         {"beta1", o.beta1},
                      {"beta2", o.beta2},    {"epsilon", o.epsilon}, {"max_grad_norm", o.max_grad_norm}};
  out["loss"] = seen.result.loss;
  out["errors"] = seen.priorities;
  out["parameters"] = parameters_json(c.spec, online, target, seen.gradients, seen.parameters);
  return out;
}

TEST_CASE("torch: loss, priorities, gradients and one step of the recurrent update agree with PyTorch in float64") {
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr) {
    WARN("skipped: QANAT_TEST_PYTHON does not name a Python with torch");
    return;
  }
  json cases = json::array();
  std::uint64_t seed = 3000;
  for (const auto& [name, spec] : recurrent_networks()) {
    for (int bits = 0; bits < 32; ++bits) {
      SequenceCase c{name + ", switches " + std::to_string(bits), spec, sequence_options(5), (bits & 8) != 0};
      c.options.update.td.double_q = (bits & 1) != 0;
      c.options.update.td.huber = (bits & 2) != 0;
      c.options.update.td.huber_delta = 0.7f;
      c.options.update.td.rescale = (bits & 4) != 0;
      c.options.update.max_grad_norm = (bits & 16) != 0 ? 0.1 : 0;
      c.options.update.epsilon = 1e-4;
      if (bits % 5 == 0) c.options.burn_in = 0;
      cases.push_back(case_json(c, seed++, false));
      if (!gpu_usable() || bits % 4 != 0) continue;
      c.device = "cuda:0";
      c.options = with(c.options, "fp32");
      c.tolerance = 1e-4;
      cases.push_back(case_json(c, seed++, false));
    }
  }
  if (gpu_usable()) {
    for (const std::string kernels : {"general", "auto"}) {
      const SequenceOptions options = with(sequence_options(8), "bf16", kernels);
      SequenceCase c{"R2D2 " + kernels, r2d2_network(), options, true, "cuda:0", 2e-2, 0.999, true};
      c.options.burn_in = 2;
      c.options.unroll = 4;
      cases.push_back(case_json(c, seed++, false));
    }
  }
  CHECK(run_script(python, "torch_sequence_check.py", cases) == 0);
  // And the check can fail: an update that forgot the last reward.
  const SequenceCase c{"forgotten", recurrent_networks()[1].spec, sequence_options(5), false};
  CHECK(run_script(python, "torch_sequence_check.py", json::array({case_json(c, 3000, true)})) == disagrees);
}

}  // namespace
}  // namespace qanat::nn::test
