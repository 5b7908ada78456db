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

  [[nodiscard]] constexpr std::int64_t width() const { return pixels * padded_channels; }
  // Of feature f in canonical order, which is channel by channel; relative to offset.
  [[nodiscard]] constexpr std::int64_t position(std::int64_t f) const {
    return f % pixels * padded_channels + f / pixels;
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

class NetworkLayout {
 public:
  NetworkLayout(const NetworkSpec& spec, const Plan& plan);

  [[nodiscard]] const ViewLayout& view(const View& view) const { return views_.at({view.buffer, view.offset}); }
  // Elements of one sample in a buffer.
  [[nodiscard]] std::int64_t width(std::size_t buffer) const { return widths_[buffer]; }
  [[nodiscard]] const InputLayout& input() const { return input_; }
  [[nodiscard]] const ConvLayout& conv(const Step& step) const { return convs_.at(step.weight); }
  [[nodiscard]] const LinearLayout& linear(const Step& step) const { return linears_.at(step.weight); }
  // Elements from the block's start of a parameter that is no linear layer's.
  [[nodiscard]] std::size_t offset(std::size_t parameter) const { return offsets_[parameter]; }
  [[nodiscard]] std::size_t block_size() const { return block_size_; }
  // [parameter_count]: canonical element -> element of the block.
  [[nodiscard]] const std::vector<std::uint32_t>& elements() const { return elements_; }

 private:
  void lay_out_views(const NetworkSpec& spec, const Plan& plan);
  void lay_out_input(const NetworkSpec& spec, const Plan& plan);
  void lay_out_buffers();
  void lay_out_linears(const Plan& plan);
  void lay_out_parameters(const Plan& plan);
  void map_linear(const Plan& plan, const Step& step, const LinearLayout& group, std::int64_t first_column);
  void map_conv(const Plan& plan, const Step& step);
  void map_norm(const Plan& plan, const Step& step);
  std::size_t take(std::int64_t elements);

  std::map<std::pair<std::size_t, std::int64_t>, ViewLayout> views_;
  std::vector<std::int64_t> widths_;
  InputLayout input_;
  std::map<std::size_t, ConvLayout> convs_;      // by Step::weight
  std::map<std::size_t, LinearLayout> linears_;  // by Step::weight
  std::vector<std::size_t> offsets_;
  std::size_t block_size_ = 0;
  std::vector<std::uint32_t> elements_;
};

}  // namespace qanat::nn::cuda
