// The whole update against PyTorch in float64: cases are written to a file, which torch_check.py reads. Runs where the
// environment variable QANAT_TEST_PYTHON names a Python that has torch.
#include <cstdlib>

#include "tests/nn/decisive.h"
#include "tests/nn/support.h"
#include "tests/nn/torch_script.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

using nlohmann::json;

struct TorchCase {
  std::string name;
  std::string backend;
  double tolerance = 0;
  NetworkSpec spec;
  TrainerOptions options;
  bool masked = false;
  double cosine = -1;     // least between gradients
  bool decisive = false;  // for reduced precision
};

json case_json(const TorchCase& c, std::uint64_t seed, bool forget_weights) {
  Rng rng(seed);
  RandomBatch batch(c.spec, c.options.batch, c.masked, rng);
  const auto online = c.decisive ? decisive_parameters(c.spec, seed + 1) : random_parameters(c.spec, seed + 1);
  const auto target = c.decisive ? decisive_parameters(c.spec, seed + 2) : random_parameters(c.spec, seed + 2);
  if (c.decisive) {
    one_sided(batch);
    settle_choices(c.spec, batch, online, 0.01);
  }
  const auto trainer = trainer_on(c.backend, c.spec, c.options);
  trainer->set_parameters(online, target);
  const double rate = 1e-2;
  QBatch view = batch.view;
  const std::vector<float> ones(batch.weight.size(), 1.0f);
  if (forget_weights) view.weight = ones.data();
  std::vector<float> q(batch.weight.size() * static_cast<std::size_t>(c.spec.actions));
  const auto inference = inference_on(c.backend, c.spec, c.options.batch);
  inference->set_parameters(online);
  inference->forward(batch.view.state, c.options.batch, q);
  std::vector<float> td_abs(batch.weight.size());
  trainer->submit(view, {.learning_rate = rate});
  const UpdateResult result = trainer->collect(td_abs);
  const auto gradients = copy(trainer->gradients());
  const auto after = copy(trainer->parameters());

  json out = network_json(c.spec);
  out["name"] = c.name + " on " + c.backend;
  out["tolerance"] = c.tolerance;
  out["cosine"] = c.cosine;
  out["rows"] = row_values(c.spec, batch.rows);
  out["batch"] = {{"state", batch.state_index},
                  {"next_state", batch.next_index},
                  {"action", batch.action},
                  {"returns", batch.returns},
                  {"bootstrap", batch.bootstrap},
                  {"weight", batch.weight},
                  {"next_mask", c.masked ? json(batch.mask) : json()}};
  const TrainerOptions& o = c.options;
  out["td"] = {{"double_q", o.td.double_q},
               {"huber", o.td.huber},
               {"delta", o.td.huber_delta},
               {"rescale", o.td.rescale},
               {"epsilon", o.td.rescale_epsilon}};
  out["optimizer"] = {
      {"kind", o.optimizer},  {"rate", rate},         {"beta1", o.beta1},           {"beta2", o.beta2},
      {"epsilon", o.epsilon}, {"decay", o.rms_decay}, {"centered", o.rms_centered}, {"max_grad_norm", o.max_grad_norm}};
  out["loss"] = result.loss;
  out["q"] = q;
  out["errors"] = td_abs;
  out["parameters"] = parameters_json(c.spec, online, target, gradients, after);
  return out;
}

std::vector<TorchCase> torch_cases() {
  std::vector<TorchCase> cases;
  // The double-precision oracle hands its results out as f32: 6e-8. The fast backend: as conformance.cpp argues.
  std::vector<std::pair<std::string, double>> backends = {{"reference64", 1e-6}, {"cpu", 3e-5}};
  if (gpu_usable()) backends.emplace_back("cuda:0 fp32", 1e-4);
  for (const auto& [backend, tolerance] : backends) {
    TrainerOptions options;
    options.batch = 21;
    options.epsilon = 1e-4;
    for (const auto& [name, spec] : networks()) cases.push_back({name, backend, tolerance, spec, options, false});
    for (int bits = 0; bits < 128; ++bits) {
      options.td.double_q = (bits & 1) != 0;
      options.td.huber = (bits & 2) != 0;
      options.td.huber_delta = 0.7f;
      options.td.rescale = (bits & 4) != 0;
      options.max_grad_norm = (bits & 16) != 0 ? 0.1 : 0;
      options.optimizer = (bits & 32) != 0 ? "rmsprop" : "adam";
      options.rms_centered = (bits & 64) != 0;
      const auto all = networks();
      cases.push_back(
          {"switches " + std::to_string(bits), backend, tolerance, all[bits % 4].spec, options, (bits & 8) != 0});
    }
  }
  if (gpu_usable()) {
    // A step that is nearly linear in the gradient: Adam's first is its sign.
    TrainerOptions options{.batch = 21, .optimizer = "rmsprop", .epsilon = 1, .max_grad_norm = 10};
    cases.push_back({"nature", "cuda:0 bf16 general", 2e-2, nature(), options, false, 0.999, true});
    cases.push_back({"nature", "cuda:0 tf32", 4e-3, nature(), options, true, 0.9999, true});
    if (fused_usable()) {
      cases.push_back({"nature", "cuda:0 bf16 fused", 2e-2, nature(), options, true, 0.999, true});
    }
  }
  return cases;
}

TEST_CASE(
    "torch: Q-values, loss, td errors, gradients and one step agree with PyTorch in float64, each switch on and off") {
  const char* python = std::getenv("QANAT_TEST_PYTHON");
  if (python == nullptr) {
    WARN("skipped: QANAT_TEST_PYTHON does not name a Python with torch");
    return;
  }
  json cases = json::array();
  std::uint64_t seed = 1000;
  for (const TorchCase& c : torch_cases()) cases.push_back(case_json(c, seed++, false));
  CHECK(run_script(python, "torch_check.py", cases) == 0);
  // And the check can fail: an update that forgot its importance weights, a step that is a thousandth too long.
  CHECK(run_script(python, "torch_check.py", json::array({case_json(torch_cases()[0], 1000, true)})) == disagrees);
  cases = json::array({case_json(torch_cases()[0], 1000, false)});
  CHECK(run_script(python, "torch_check.py", cases) == 0);
  cases[0]["optimizer"]["rate"] = cases[0]["optimizer"]["rate"].get<double>() / 1.001;
  CHECK(run_script(python, "torch_check.py", cases) == disagrees);
}

}  // namespace
}  // namespace qanat::nn::test
