// How the general path lays out activations and parameters: pixels outside, channels inside (NHWC), every width a
// multiple of 8 elements, so that each row starts at 16 bytes. What stands in the padding is zero and stays zero: it
// has no gradient.
//
// A convolution of the observation whose kernel is a multiple of its stride becomes one of stride 1 over blocks of
// stride x stride pixels (space to depth): the Nature network's first layer reads 64 channels instead of 4.
// Values and pure functions. Thread safe.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "nn/network.h"
#include "nn/plan.h"

namespace qanat::nn::cuda {

constexpr std::int64_t pad_to = 8;
[[nodiscard]] constexpr std::int64_t padded(std::int64_t n) { return (n + pad_to - 1) / pad_to * pad_to; }

// Where a view's features lie in one sample: [pixels][padded_channels].
struct ViewLayout {
  std::int64_t offset = 0;  // elements from the sample's start
  std::int64_t pixels = 1;
  std::int64_t channels = 0;
  std::int64_t padded_channels = 0;
  bool planes = false;  // [padded_channels / 8][pixels][8] instead: what the fused Nature torso writes

  [[nodiscard]] constexpr std::int64_t width() const { return pixels * padded_channels; }
  // Of feature f in canonical order, which is channel by channel; relative to offset.
  [[nodiscard]] constexpr std::int64_t position(std::int64_t f) const {
    const std::int64_t channel = f / pixels, pixel = f % pixels;
    return planes ? (channel / 8 * pixels + pixel) * 8 + channel % 8 : pixel * padded_channels + channel;
  }
};

// A convolution as it is computed.
struct ConvLayout {
  std::int64_t in_height = 0, in_width = 0, in_channels = 0;  // channels padded
  std::int64_t out_height = 0, out_width = 0, out_channels = 0;
  std::int64_t kernel = 0, stride = 1;
};

// How stacked rows become buffer 0. Element (y, x, channel) of the stack goes to pixel (y / block, x / block), channel
// ((y % block) * block + x % block) * channels + channel; pixels beyond height and width are not read by anybody.
struct InputLayout {
  bool image = false;                  // else the features stand in canonical order
  std::int64_t channels = 0;           // of the stack: rows * channels of a row
  std::int64_t height = 0, width = 0;  // of the stored image
  std::int64_t block = 1;              // side of the blocks
  std::int64_t rows = 0, columns = 0;  // pixels of buffer 0
};

// Several linear steps that read one view and write neighbouring views are one product: dueling's two streams.
struct LinearLayout {
  std::size_t weight = 0;   // elements from the block's start, [in width][out width]
  std::size_t bias = 0;     // [out width]
  ViewLayout in, out;       // out: all of them together
  bool absorbed = false;    // this step is computed with the first of its group
  bool accumulate = false;  // of the whole group's input gradient
};

// Rows of an lstm's input weight: the layer below, the last action, the last reward, and a row for each bias (their
// inputs are 1, so the products of the weights compute the biases' gradients too).
[[nodiscard]] constexpr std::int64_t lstm_input_rows(std::int64_t below, std::int64_t actions) {
  return (below + actions + 3 + 31) / 32 * 32;
}

// Gates are feature * 4 + gate.
struct LstmLayout {
  std::size_t input = 0;      // elements from the block's start, [lstm_input_rows][4 row]
  std::size_t recurrent = 0;  // [4 row][row]
  ViewLayout in;
  std::int64_t features = 0;
  std::int64_t row = 0;  // features, padded
};

class NetworkLayout {
 public:
  // `nature_torso`: the first three convolutions are those of nn/cuda/nature. Then the block begins with their
  // parameters in canonical order, and their output is in planes.
  NetworkLayout(const NetworkSpec& spec, const Plan& plan, bool nature_torso = false);

  [[nodiscard]] const ViewLayout& view(const View& view) const { return views_.at({view.buffer, view.offset}); }
  // Elements of one sample in a buffer.
  [[nodiscard]] std::int64_t width(std::size_t buffer) const { return widths_[buffer]; }
  [[nodiscard]] const InputLayout& input() const { return input_; }
  [[nodiscard]] const ConvLayout& conv(const Step& step) const { return convs_.at(step.weight); }
  [[nodiscard]] const LinearLayout& linear(const Step& step) const { return linears_.at(step.weight); }
  // Of the network's only lstm.
  [[nodiscard]] const LstmLayout& lstm() const { return lstm_; }
  // Elements from the block's start of a convolution's or layer norm's parameter.
  [[nodiscard]] std::size_t offset(std::size_t parameter) const { return offsets_[parameter]; }
  [[nodiscard]] std::size_t block_size() const { return block_size_; }
  // [parameter_count]: canonical element -> element of the block.
  [[nodiscard]] const std::vector<std::uint32_t>& elements() const { return elements_; }

 private:
  void lay_out_views(const NetworkSpec& spec, const Plan& plan);
  void lay_out_input(const NetworkSpec& spec, const Plan& plan);
  void lay_out_buffers();
  void lay_out_linears(const Plan& plan);
  void lay_out_parameters(const NetworkSpec& spec, const Plan& plan);
  void map_linear(const Plan& plan, const Step& step, const LinearLayout& group, std::int64_t first_column);
  void map_conv(const Plan& plan, const Step& step);
  void lay_out_lstm(const NetworkSpec& spec, const Plan& plan, const Step& step);
  void map_norm(const Plan& plan, const Step& step);
  std::size_t take(std::int64_t elements);

  const bool nature_torso_;
  std::map<std::pair<std::size_t, std::int64_t>, ViewLayout> views_;
  std::vector<std::int64_t> widths_;
  InputLayout input_;
  std::map<std::size_t, ConvLayout> convs_;      // by Step::weight
  std::map<std::size_t, LinearLayout> linears_;  // by Step::weight
  LstmLayout lstm_;
  std::vector<std::size_t> offsets_;
  std::size_t block_size_ = 0;
  std::vector<std::uint32_t> elements_;
};

}  // namespace qanat::nn::cuda
