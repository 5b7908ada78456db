// The whole recurrent update against PyTorch in float64: cases are written to a file, which torch_sequence_check.py
// reads. Runs where the environment variable QANAT_TEST_PYTHON names a Python that has torch.
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/nn/sequence_support.h"
#include "tests/support/catch.h"

namespace qanat::nn::test {
namespace {

using nlohmann::json;

struct SequenceCase {
  std::string name;
  NetworkSpec spec;
  SequenceOptions options;
  bool masked = false;
};

std::vector<float> row_values(const NetworkSpec& spec, const std::vector<std::byte>& rows) {
  std::vector<float> values(rows.size() / size_of(spec.input.dtype));
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (spec.input.dtype == DType::u8) {
      values[i] = static_cast<float>(rows[i]);
    } else {
      std::memcpy(&values[i], &rows[4 * i], 4);
    }
  }
  return values;
}

json description(const SequenceCase& c, const RandomSequences& batch) {
  const NetworkSpec& spec = c.spec;
  json layers = json::array();
  for (const Layer& layer : spec.layers) {
    const char* names[] = {"linear", "conv2d", "relu", "layer_norm", "lstm"};
    layers.push_back({{"kind", names[static_cast<int>(layer.kind)]}, {"stride", layer.stride}});
  }
  std::vector<int> ends;
  for (const SequenceEnd end : batch.end) ends.push_back(static_cast<int>(end));
  const TdOptions& td = c.options.update.td;
  return {{"name", c.name},
          {"layers", layers},
          {"stack", spec.stack},
          {"row_shape", spec.input.shape},
          {"input_scale", spec.input_scale},
          {"dueling", spec.dueling},
          {"dueling_hidden", spec.dueling_hidden},
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
            {"weight", batch.weight}}}};
}

json case_json(const SequenceCase& c, std::uint64_t seed, bool forget_reward) {
  Rng rng(seed);
  const RandomSequences batch(c.spec, c.options, rng, c.masked);
  const auto online = random_parameters(c.spec, seed + 1);
  const auto target = random_parameters(c.spec, seed + 2);
  const auto trainer = make_backend("reference64")->sequence_trainer(c.spec, c.options);
  trainer->set_parameters(online, target);
  SequenceBatch view = batch.view;
  const std::vector<float> zeros(batch.previous_reward.size());
  if (forget_reward) view.previous_reward = zeros.data();
  const double rate = 1e-2;
  const SequenceUpdated seen = update(*trainer, view, {.learning_rate = rate});

  json out = description(c, batch);
  out["tolerance"] = 1e-6;  // results are handed out as f32
  const TrainerOptions& o = c.options.update;
  out["optimizer"] = {{"kind", o.optimizer}, {"rate", rate},         {"beta1", o.beta1},
                      {"beta2", o.beta2},    {"epsilon", o.epsilon}, {"max_grad_norm", o.max_grad_norm}};
  out["loss"] = seen.result.loss;
  out["priorities"] = seen.priorities;
  const auto cut = [](const std::vector<float>& all, const ParameterInfo& info) {
    const auto first = all.begin() + static_cast<std::ptrdiff_t>(info.offset);
    return std::vector<float>(first, first + static_cast<std::ptrdiff_t>(info.elements()));
  };
  for (const ParameterInfo& info : parameter_layout(c.spec)) {
    out["parameters"].push_back({{"name", info.name},
                                 {"shape", info.shape},
                                 {"online", cut(online, info)},
                                 {"target", cut(target, info)},
                                 {"gradient", cut(seen.gradients, info)},
                                 {"after", cut(seen.parameters, info)}});
  }
  return out;
}

int run_script(const char* python, const json& cases) {
  const auto path = std::filesystem::temp_directory_path() / ("qanat_torch_sequence_" + std::to_string(getpid()));
  std::ofstream(path) << cases;
  const char* elsewhere = std::getenv("QANAT_NN_TEST_DIR");  // where the sources are not
  const std::string directory = elsewhere != nullptr ? elsewhere : QANAT_NN_TEST_DIR;
  const std::string command = std::string(python) + " " + directory + "/torch_sequence_check.py " + path.string();
  const int status = std::system(command.c_str());
  std::filesystem::remove(path);
  return status;
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
    }
  }
  CHECK(run_script(python, cases) == 0);
  // And the check can fail: an update that forgot the last reward.
  const SequenceCase c{"forgotten", recurrent_networks()[1].spec, sequence_options(5), false};
  CHECK(run_script(python, json::array({case_json(c, 3000, true)})) != 0);
}

}  // namespace
}  // namespace qanat::nn::test
