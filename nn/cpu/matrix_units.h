// The processor's matrix units (Intel AMX): Q-values of a convolutional network in bf16, several times as fast as in
// f32. Products of bf16 numbers are summed in f32; weights and what passes from layer to layer are rounded to bf16; the
// last linear layers' outputs are f32. Inference alone: nn/engine.h's EngineInference runs it.
//
// Activations are panels of 16 samples. Those that products read hold bf16 numbers, [panel][feature / 2][16][2], the
// features of an image in the order [y][x][channel]; channels are padded to an even number. Then the taps of a
// convolution that stand in one row of its window are one run of features, cut into pieces of 32: a piece is a tile of
// the units, and a linear layer is a convolution of one tap. Weights are tiles of 16 outputs by 32 features.
//
// Thread safety: one thread at a time. Results do not depend on the rest of a batch, bit for bit.
#pragma once

#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <string>
#include <vector>

#include "nn/backend.h"
#include "nn/plan.h"

namespace qanat::nn {

// Why this network cannot be computed by matrix units on this processor; empty when it can.
[[nodiscard]] std::string matrix_obstacle(const NetworkSpec& spec);

class MatrixOps {
 public:
  struct Activations {
    std::size_t buffer = 0;
  };
  struct Block {};  // the packed weights: there is one set

  // `spec` and `plan` must outlive this object. Precondition: matrix_obstacle(spec) is empty.
  MatrixOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options);

  Activations activations(std::size_t buffer, std::int64_t samples, Holds holds);
  Block block() { return {}; }
  void write(Block& block, std::span<const float> canonical);
  void read(const Activations& from, std::int64_t samples, std::span<float> to) const;

  const ObservationRows& stage(const ObservationRows& rows, std::int64_t /*samples*/) { return rows; }
  std::int64_t pass_size(std::int64_t samples) const { return samples; }
  template <class Work>
  void run(Work work) {
    const Configured configured;
    work();
  }

  void load(const ObservationRows& rows, Activations& to, std::int64_t first, std::int64_t samples);
  void linear(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void conv2d(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void dueling(const Step& step, const Activations& in, Activations& out, std::int64_t samples);
  // Not in networks that it takes.
  void layer_norm(const Step& step, const Block& p, const Activations& in, Activations& out, std::int64_t samples);
  void relu(const Step& step, const Activations& in, Activations& out, std::int64_t samples);

 private:
  // While one lives, this thread's tiles are 16 rows of 64 bytes.
  struct Configured {
    Configured();
    ~Configured();
    Configured(const Configured&) = delete;
    Configured& operator=(const Configured&) = delete;
  };
  struct Free {
    void operator()(void* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
  };
  template <class T>
  using Memory = std::unique_ptr<T[], Free>;

  struct Buffer {
    std::int64_t channels = 0, pixels = 1;
    bool exact = false;          // f32, [panel][feature][16]
    std::int64_t panel = 0;      // elements from one panel to the next
    Memory<std::uint16_t> bf16;  // one of the two
    Memory<float> f32;
    std::int64_t padded_channels() const { return (channels + 1) / 2 * 2; }
  };
  // All products of a layer: out[outputs] = bias + weights * in, at each of its pixels.
  struct Product {
    std::int64_t outputs = 0, tiles = 0;      // of 16 outputs each
    std::vector<std::int64_t> pieces;         // where each tile of the input begins, from a pixel's first
    std::vector<std::int64_t> first, places;  // [pixels] in the input and in the output, elements of a panel
    Memory<std::uint16_t> weights;            // [tiles][pieces][16][32]
    Memory<float> bias;                       // [tiles][16]
  };

  template <class T>
  static Memory<T> zeros(std::int64_t count);
  Product product_of(const Step& step) const;
  void pack(const Step& step, std::span<const float> weight, std::span<const float> bias);
  void multiply(const Step& step, std::int64_t samples);

  const NetworkSpec& spec_;
  const Plan& plan_;
  std::int64_t panels_;
  std::vector<Buffer> buffers_;    // as Plan::buffers
  std::vector<Product> products_;  // by the weight's index
};

}  // namespace qanat::nn
