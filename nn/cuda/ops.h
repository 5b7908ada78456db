// The operations of nn/engine.h on a GPU, for any network: cuDNN, cuBLASLt and the kernels of nn/cuda/kernels.h. T is
// what activations, their gradients and the weights that products read are made of: __nv_bfloat16, or float (with or
// without TF32). Master weights, gradients of weights, moments and the head's outputs are f32.
//
// The first run of a size launches kernel by kernel and plans what it meets; later ones replay a captured graph, one
// for each set of staging buffers. Work goes to two lanes (streams): the second computes the target network beside the
// online one, and weight gradients beside the gradients of activations. Thread safety: one thread at a time. Views stay
// valid as long as the object that made them.
#pragma once

#include <cuda_profiler_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "nn/backend.h"
#include "nn/cuda/conv.h"
#include "nn/cuda/device.h"
#include "nn/cuda/gemm.h"
#include "nn/cuda/kernels.h"
#include "nn/cuda/layout.h"
#include "nn/cuda/precision.h"
#include "nn/cuda/staging.h"
#include "nn/plan.h"

namespace qanat::nn::cuda {

template <class T>
class CudaOps {
 public:
  static constexpr std::size_t depth = Staging::sets;

  struct Activations {
    void* data = nullptr;    // [samples][width] of T, or of f32 where the buffer holds a head's outputs
    std::int64_t width = 0;  // elements of one sample
    std::size_t element_bytes = sizeof(T);

    T* at(const ViewLayout& view) const { return static_cast<T*>(data) + view.offset; }
    float* floats() const { return static_cast<float*>(data); }
    // From sample `first` on. What has no memory stays without.
    Activations from(std::int64_t first) const {
      if (data == nullptr) return *this;
      const auto skipped = static_cast<std::size_t>(first * width) * element_bytes;
      return {static_cast<std::byte*>(data) + skipped, width, element_bytes};
    }
  };
  struct Block {
    float* master = nullptr;  // [layout.block_size()]
    T* copy = nullptr;        // the same as products read it; master itself when T is float
  };
  // Rows of a staged batch: addresses that stay.
  struct Rows {
    const std::byte* const* data = nullptr;
    const std::uint32_t* index = nullptr;
  };
  struct Batch {
    DeviceBatch device;
    Rows state, next_state;
  };

  // `spec` and `plan` must outlive this object.
  CudaOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options, const Device& device,
          Precision precision);
  // Batches are of sequences of `steps` steps, 0: of transitions; `nature_torso` as NetworkLayout has it.
  CudaOps(const NetworkSpec& spec, const Plan& plan, const TrainerOptions& options, const Device& device,
          Precision precision, std::int64_t steps, bool nature_torso);

  // Memory.
  Activations activations(std::size_t buffer, std::int64_t samples, Holds holds);
  Activations part(const Activations& whole, std::int64_t first, std::int64_t) const { return whole.from(first); }
  std::int64_t align(std::int64_t samples) const { return samples; }
  std::int64_t pass_size(std::int64_t) const { return options_.batch; }
  Block block();
  void write(Block& block, std::span<const float> canonical);
  void read(const Block& block, std::span<float> canonical) const;
  void read(const Activations& from, std::int64_t samples, std::span<float> to) const;

  // One update, or one pass forward.
  std::span<std::byte> row_memory(std::size_t bytes) {
    device_.use();
    return staging_.row_memory(bytes);
  }
  Batch stage(const QBatch& batch, const UpdateControls& controls);
  Rows stage(const ObservationRows& rows, std::int64_t samples);
  template <class Update>
  void run(Update update) {
    device_.use();
    const Stream& stream = lanes_[0].stream;
    staging_.start(set_, stream);
    const auto all = [&] {
      update();
      staging_.send_back(set_, stream);
    };
    if (!planned_) {
      all();
      planned_ = true;
    } else if (!options_.capture) {
      QANAT_CUDA(cudaProfilerStart());  // `ncu --profile-from-start off` sees updates, not the planning before them
      all();
      QANAT_CUDA(cudaProfilerStop());
    } else {
      if (!graphs_[set_]) graphs_[set_] = Graph::capture(stream, all);
      graphs_[set_].launch(stream);
    }
    staging_.finish(set_, stream);
  }
  template <class Work>
  void beside(Work work) {
    fork();
    work();
    lane_ = &lanes_[0];
  }
  void join();
  void load(const Rows& rows, Activations& to, std::int64_t first, std::int64_t samples);
  void td(const Batch& batch, const Activations& q, const Activations& choosing_q, const Activations& target_q,
          Activations& delta);
  void optimise(Block& online, Block& target, Block& gradients);
  UpdateResult result(std::span<float> priorities) {
    device_.use();
    return staging_.result(priorities);
  }
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

 protected:
  // A stream with what the libraries and kernels on it need for themselves.
  struct Lane {
    Stream stream;
    Blas blas;
    Dnn dnn{stream};
    DeviceBuffer<float> scratch;     // of column sums and layer norms
    DeviceBuffer<unsigned> counter;  // of kernels whose last block does more
  };
  enum class Product { forward, weight_gradient, input_gradient };
  using PlanKey = std::tuple<std::size_t, int, std::int64_t>;  // Step::weight, what, samples

  void fork();
  bool holds_f32(std::size_t buffer, Holds holds) const;
  DuelingShape dueling_shape(const Step& step, std::int64_t in_row, std::int64_t q_row, std::int64_t samples) const;
  template <class Shape>
  const Gemm& product(const Step& step, Product what, std::int64_t samples, Shape shape);
  const Convolution& convolution(const Step& step, Convolution::Kind kind, std::int64_t samples);
  void sum_bias(const Step& step, const Activations& out_delta, std::int64_t samples);
  void finish_delta(const Step& step, const Activations& in, Activations& in_delta, std::int64_t samples);
  // Where the gradient of a layer's bias goes, and the shape of the deltas that it sums.
  float* bias_gradient(const Step& step) const;
  MaskShape delta_shape(const Step& step, std::int64_t row, std::int64_t samples) const;

  const NetworkSpec& spec_;
  const Plan& plan_;
  const TrainerOptions options_;
  const OptimizerRule rule_;
  const Device device_;
  const Precision precision_;
  const NetworkLayout layout_;
  std::array<Lane, 2> lanes_;
  Lane* lane_ = &lanes_[0];  // where work goes
  Event forked_, joined_;

  Staging staging_;
  std::array<Graph, Staging::sets> graphs_;
  std::size_t set_ = 0;   // staged last
  bool planned_ = false;  // something ran, so every product and convolution has been planned

  std::vector<DeviceBuffer<std::byte>> memory_;
  std::map<PlanKey, Gemm> products_;
  std::map<PlanKey, Convolution> convolutions_;
  DeviceBuffer<std::uint32_t> elements_;  // canonical -> block
  mutable DeviceBuffer<float> canonical_;
  mutable PinnedBuffer<float> canonical_host_;
  mutable PinnedBuffer<float> q_host_;
  DeviceBuffer<std::int32_t> bad_;  // [first, second half of the online pass]: rows that are not finite
  DeviceBuffer<double> td_partial_, norm_partial_;
  DeviceBuffer<OptimizerClock> clock_;
  NarrowSegments narrow_;
  // A step that completes the gradients of its input -> the step that made that input with a relu: the pass that masks
  // them also sums them up, which is the gradient of the maker's bias.
  std::map<const Step*, const Step*> maker_of_;
  std::set<const Step*> biases_summed_;  // the makers in it
  Block gradients_;                      // of the backward pass that runs
  Block mean_, square_;
};

extern template class CudaOps<__nv_bfloat16>;
extern template class CudaOps<float>;

}  // namespace qanat::nn::cuda
