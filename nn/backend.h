// What runs a network: inference for actors and evaluation, training for learners. One interface, several
// backends (the processor's fast one, the plain reference, CUDA), chosen by name at run time.
//
// Thread safety: a Backend's functions may be called from any thread; an Inference or a QTrainer belongs to one
// thread at a time. Each object owns its memory, all of it allocated when it is made, and outlives its Backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nn/network.h"
#include "nn/td.h"

namespace qanat::nn {

// Stored observation rows and which of them make up each sample. Borrowed for the length of the call.
struct ObservationRows {
  const std::byte* data = nullptr;  // [rows, row bytes], dense, of NetworkSpec::input's type
  std::int64_t rows = 0;
  const std::uint32_t* index = nullptr;  // [B, K] row numbers < rows, oldest first; null: row b is sample b (K == 1)
};

class Inference {
 public:
  virtual ~Inference() = default;

  // Canonical layout. Throws InputError when the size is not parameter_count().
  virtual void set_parameters(std::span<const float> parameters) = 0;

  // q: [batch, actions]. 0 <= batch <= max_batch. A sample's values do not depend on the rest of its batch, bit for
  // bit. Throws InputError when sizes do not fit or an index lies outside the rows.
  virtual void forward(const ObservationRows& observations, std::int64_t batch, std::span<float> q) = 0;
};

struct TrainerOptions {
  std::int64_t batch = 32;
  TdOptions td = {};
  std::string optimizer = "adam";  // adam | rmsprop, both as PyTorch defines them
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;  // added to the root, outside it
  double rms_decay = 0.95;
  bool rms_centered = false;  // divides by the spread around the mean gradient (Mnih et al., 2015)
  double max_grad_norm = 0;   // global norm, scaled by min(1, max / (norm + 1e-6)) as PyTorch; 0: off
  double target_tau = 1;      // < 1: target += tau (online - target) after every update

  // On a device. A processor updates in f32, one way: there "auto" and "fp32", and "auto" and "general", are the same.
  std::string precision = "auto";  // auto | bf16 | tf32 | fp32. Master weights are f32 in all of them.
  std::string kernels = "auto";    // auto | general | fused; auto: fused where the network is one of those it knows
  bool capture = true;             // false: launches each kernel instead of replaying a graph; for tests and profilers
};

// One batch, borrowed until submit() returns where depth() is above 1, else until collect() returns.
struct QBatch {
  std::int64_t size = 0;  // must be TrainerOptions::batch
  ObservationRows state = {};
  ObservationRows next_state = {};          // usually over the same rows
  const std::int32_t* action = nullptr;     // [B]
  const float* returns = nullptr;           // [B] discounted n-step return
  const float* bootstrap = nullptr;         // [B] gamma^m, or 0 at a terminal: then next_state is not looked at
  const float* weight = nullptr;            // [B] importance weights
  const std::uint8_t* next_mask = nullptr;  // [B, actions] 1 where allowed in next_state; null: all allowed
};

struct UpdateControls {
  double learning_rate = 1e-3;
  bool sync_target = false;  // after this update target := online
};

// The reals are doubles so that the reference in double precision can be differenced; fast backends fill them from
// float.
struct UpdateResult {
  double loss = 0;       // mean over the batch of weight * loss(td)
  double grad_norm = 0;  // global, before clipping
  double mean_q = 0;     // mean over the batch of Q(s, action)
  // False when the loss or the norm is not a finite number. Then parameters, target and optimiser are as before;
  // a target sync that was asked for happens with the next finite update.
  bool finite = true;
  // On a device: from the start of the update's first kernel to the end of its last; 0 on a processor.
  double device_seconds = 0;
};

// One double-DQN (or DQN) learner: online and target network, loss, backward pass, clipping, optimiser.
class QTrainer {
 public:
  virtual ~QTrainer() = default;

  // How many updates may be submitted and not yet collected: 1 on a processor, which computes in submit; above 1 on a
  // device, where the next batch goes up while the update before it computes.
  [[nodiscard]] virtual std::size_t depth() const { return 1; }
  // Where the next submit() would like to find `bytes` bytes of observation rows: it takes them from there without a
  // copy, for state and next_state alike. Empty: it has no such wish. Valid until that submit(). Precondition: fewer
  // than depth() updates are in flight.
  [[nodiscard]] virtual std::span<std::byte> row_memory(std::size_t /*bytes*/) { return {}; }
  // Starts one update after those submitted before it. Precondition: fewer than depth() are in flight. Throws
  // InputError, with nothing changed, when the batch does not fit.
  virtual void submit(const QBatch& batch, const UpdateControls& controls) = 0;
  // Waits for the oldest update in flight. td_abs: [B] |target - Q(s, action)|, the new raw priorities.
  virtual UpdateResult collect(std::span<float> td_abs) = 0;

  // Canonical layout; valid until the next call of a member that is not const. These and all members below only when
  // no update is in flight.
  virtual std::span<const float> parameters() = 0;
  virtual std::span<const float> target_parameters() = 0;
  // The last update's gradients, before clipping. For tests and diagnosis.
  virtual std::span<const float> gradients() = 0;
  // Throws InputError when a size is not parameter_count(). The optimiser stays as it is.
  virtual void set_parameters(std::span<const float> online, std::span<const float> target) = 0;

  // Moments in canonical layout and the step count, the same bytes whichever backend wrote them.
  [[nodiscard]] virtual std::vector<std::byte> save_optimizer() const = 0;
  // Throws InputError, with nothing changed, when the bytes are not of this network and kind of optimiser.
  virtual void load_optimizer(std::span<const std::byte> bytes) = 0;
};

struct SequenceOptions;
class SequenceTrainer;

class Backend {
 public:
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string name() const = 0;
  // Parameters are zero until they are set. `precision` as TrainerOptions has it, but auto is fp32 here; "cpu" can bf16
  // where there is no bf16_obstacle(). Throws ConfigError for what it cannot.
  [[nodiscard]] virtual std::unique_ptr<Inference> inference(const NetworkSpec& spec, std::int64_t max_batch,
                                                             const std::string& precision) = 0;
  [[nodiscard]] std::unique_ptr<Inference> inference(const NetworkSpec& spec, std::int64_t max_batch) {
    return inference(spec, max_batch, "auto");
  }
  // Throws ConfigError when an option is out of range or not to be had on this backend.
  [[nodiscard]] virtual std::unique_ptr<QTrainer> trainer(const NetworkSpec& spec, const TrainerOptions& options) = 0;
  // For networks with an lstm, see nn/sequence.h. Throws ConfigError when an option is out of range, and from backends
  // that have no recurrent update.
  [[nodiscard]] virtual std::unique_ptr<SequenceTrainer> sequence_trainer(const NetworkSpec& spec,
                                                                          const SequenceOptions& options);
};

// "cpu": the fast one. "reference": plain loops in f32, the oracle. "reference64": the same in f64. "cuda:N", or "cuda"
// for the first: a GPU. Throws ConfigError for any other name, and when a GPU is asked for that cannot be used, with
// what was found and what to do.
[[nodiscard]] std::unique_ptr<Backend> make_backend(std::string_view device);

// Whether the word names a device at all: "auto", or one that make_backend() knows, there or not.
[[nodiscard]] bool is_device(std::string_view word);

// Why this GPU cannot be used here and what to do about it; empty when it can, and for every other device.
[[nodiscard]] std::string device_obstacle(std::string_view device);

// Why "cpu" cannot infer in bf16 for this network on this processor; empty when it can, by the processor's matrix
// units.
[[nodiscard]] std::string bf16_obstacle(const NetworkSpec& spec);

// The processor's instruction set for which the fast backend's kernels were chosen, such as "AVX3_SPR".
[[nodiscard]] std::string instruction_set();

// What "auto" stands for on this machine: the first GPU that can be used, else "cpu". `why`: the reason, for the log.
struct ChosenDevice {
  std::string device;
  std::string why;
};
[[nodiscard]] ChosenDevice choose_device(std::string_view wanted);

}  // namespace qanat::nn
