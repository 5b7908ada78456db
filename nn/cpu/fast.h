// The operations of nn/engine.h on the kernels of nn/cpu/kernels.h, f32. Activations are panels of 32 samples,
// [panel][feature][32]; the lanes of the last panel beyond the batch hold zeros in gradients, so they add nothing, and
// finite numbers of no meaning elsewhere. Blocks are the canonical tensors, each from an aligned start, linear rows
// padded.
//
// Thread safety: one thread at a time. Views stay valid as long as the object that made them. Results are the same bit
// for bit in every run on one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "nn/backend.h"
#include "nn/cpu/flush_denormals.h"
#include "nn/cpu/kernels.h"
#include "nn/cpu/update.h"
#include "nn/plan.h"

namespace qanat::nn {

class FastOps : public CpuUpdate<float> {
 public:
  struct Activations {
    float* data = nullptr;  // [panel][feature][32]
    std::int64_t features = 0;

    std::int64_t panel_step() const { return features * cpu::panel_lanes; }
    float* at(std::int64_t panel, const View& view) const {
      return data + panel * panel_step() + view.offset * cpu::panel_lanes;
    }
  };
  struct Block {
    float* data = nullptr;  // [block_size_]
  };

  // `spec` and `plan` must outlive this object.
  FastOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options);

  // Memory.
  Activations activations(std::size_t buffer, std::int64_t samples, Holds holds);
  // `first` must be a multiple of the 32 lanes, as align() makes it.
  Activations part(const Activations& whole, std::int64_t first, std::int64_t samples) const;
  std::int64_t align(std::int64_t samples) const;
  Block block();
  void write(Block& block, std::span<const float> canonical);
  void read(const Block& block, std::span<float> canonical) const;
  void read(const Activations& from, std::int64_t samples, std::span<float> to) const;

  // One update, beside what CpuUpdate does.
  template <class Update>
  void run(Update update) {
    const FlushDenormals flush;
    update();
  }
  void load(const ObservationRows& rows, Activations& to, std::int64_t first, std::int64_t samples);
  void td(const QBatch& batch, const Activations& q, const Activations& choosing_q, const Activations& target_q,
          Activations& delta);
  void optimise(Block& online, Block& target, Block& gradients);
  std::vector<std::byte> save_optimizer() const;
  void load_optimizer(std::span<const std::byte> bytes);

  // Layers, forward.
  void linear(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void conv2d(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void layer_norm(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void relu(const Step& step, const Activations& in, Activations& out, std::int64_t samples);
  void dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples);

  // Layers, backward.
  void linear_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta, Block& gradients,
                              std::int64_t samples);
  void linear_input_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                             Activations& in_delta, std::int64_t samples);
  void conv2d_weight_gradient(const Step& step, const Activations& in, const Activations& out_delta, Block& gradients,
                              std::int64_t samples);
  void conv2d_input_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                             Activations& in_delta, std::int64_t samples);
  void layer_norm_gradient(const Step& step, const Block& p, const Activations& in, const Activations& out_delta,
                           Activations& in_delta, Block& gradients, std::int64_t samples);
  void dueling_gradient(const Step& step, const Activations& out_delta, Activations& in_delta, std::int64_t samples);

 private:
  // Up to so many samples a wide layer's outputs, not its samples, fill the vectors. Images have more to
  // turn over: at 12 both ways take the same time (within 5%, with AVX-512 and with AVX2).
  static constexpr std::int64_t few_samples = 16;
  static constexpr std::int64_t few_images = 12;

  struct Free {
    void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
  };
  // Where one canonical tensor lies in a block: `rows` rows of `columns`, `row` apart.
  struct Slot {
    std::size_t offset = 0;
    std::int64_t rows = 1;
    std::int64_t columns = 0;
    std::int64_t row = 0;
  };
  // Offsets of a convolution's taps, made once.
  struct ConvTables {
    std::vector<std::int64_t> in_pixel, out_pixel;    // [out pixels] first tap's input, and the output
    std::vector<std::int64_t> tap_weight, tap_in;     // [in_channels * kernel] rows of taps, forward
    std::vector<std::int64_t> tap_each;               // [in_channels * kernel * kernel] single taps, weight gradient
    std::vector<std::size_t> first;                   // [in pixels + 1] into the two below, input gradient
    std::vector<std::int64_t> back_weight, back_out;  // taps through which a pixel of the input reaches the output
    std::vector<std::int64_t> few_in, few_weight;     // [in_channels * kernel] rows of taps, for few images
  };
  static ConvTables conv_tables(const ConvShape& conv);

  void linear_of_few(const Step& step, const Block& p, const float* in, float* out, std::int64_t samples);
  void conv2d_of_few(const Step& step, const Block& p, const float* in, float* out, std::int64_t samples);
  // Both begin with the bias in `count` rows of few_outputs_, and end with [sample][pixel] rows going to a panel.
  void begin_few(const float* bias, std::int64_t outputs, std::int64_t row, std::int64_t count);
  void end_few(std::int64_t outputs, std::int64_t pixels, std::int64_t row, std::int64_t samples, float* out);

  float* allocate(std::size_t count);  // zeros, aligned to 64 bytes
  float* parameter(const Block& block, std::size_t index) const { return block.data + slots_[index].offset; }
  const ConvTables& tables(const Step& step) const { return conv_tables_[step.weight]; }

  const NetworkSpec& spec_;
  const Plan& plan_;
  std::vector<Slot> slots_;              // as Plan::parameters
  std::vector<ConvTables> conv_tables_;  // by the weight's index; empty for other layers
  std::size_t block_size_ = 0;           // a multiple of cpu::max_vector
  std::vector<std::unique_ptr<float[], Free>> memory_;
  float* transposed_ = nullptr;   // [group of 32 outputs][panel][32][32]: a layer's deltas, samples first
  float* few_outputs_ = nullptr;  // [few_samples][padded features]; [few_images][pixels][padded channels]
  float* few_weights_ = nullptr;  // a convolution's weights turned over, [tap][padded channels]
  float* few_inputs_ = nullptr;   // [few_images][features]
  Block mean_, square_;           // the optimiser's moments
};

}  // namespace qanat::nn
