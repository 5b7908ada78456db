// How the fused Nature network lays out its parameters, its packed weights and its activations on the device.
//
// The torso (Mnih et al., 2015) maps a stack of four 84x84 frames to 3,136 features:
//   conv1 32 of 8x8, stride 4: 84x84x4 -> 20x20x32    conv2 64 of 4x4, stride 2 -> 9x9x64
//   conv3 64 of 3x3, stride 1 -> 7x7x64               each with bias and relu
// Then come one linear layer of 1,024 (dueling: value and advantage hidden side by side) or 512 features, and the head.
//
// Activations and gradients are images of planes: a plane holds eight channels of every pixel, [pixel][8] of two
// bytes, sixteen bytes a pixel. That is a core matrix of wgmma without swizzle, so a convolution tap is nothing but
// another start address, and the same image read with pixels along K feeds the weight gradients: nothing is ever
// transposed or copied into columns. A plane's pitch is an odd number of pixels: planes then start in different banks.
//
// Plain constants and pure functions, for host and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/td.h"

namespace qanat::nn::nature {

constexpr int stack = 4;
constexpr int frame_side = 84;
constexpr int frame_bytes = frame_side * frame_side;
constexpr int features = 3136;   // order of a sample's features here: [8 planes][49 pixels][8 channels]
constexpr int pixel_bytes = 16;  // eight channels of two bytes

// conv1's output, bf16: sixteen planes. conv2 has stride 2, so pixel (y, x) stands in the plane of its parity, at
// (y / 2, x / 2) of a 10x10 grid: plane = ((y & 1) * 2 + (x & 1)) * 4 + channel / 8. One pixel of padding, kept zero.
constexpr int pitch1 = 101 * pixel_bytes;
constexpr int image1_bytes = 16 * pitch1;
// conv2's output: eight planes of 9x9. conv3's output, the features: eight planes of 7x7.
constexpr int pitch2 = 81 * pixel_bytes;
constexpr int image2_bytes = 8 * pitch2;
constexpr int pitch3 = 49 * pixel_bytes;
constexpr int image3_bytes = 8 * pitch3;

// Gradients before conv3's and conv2's relu, bf16. A transposed convolution reads pixels before the first: they stand
// on the grid of their input (9 and 10 wide) after `lead` zero pixels, and all that lies between is zero too.
constexpr int lead3 = 20;
constexpr int delta_pitch3 = 83 * pixel_bytes;  // pixel (y, x) at lead3 + 9 y + x
constexpr int delta3_bytes = 8 * delta_pitch3 + 384;
constexpr int lead2 = 11;
constexpr int delta_pitch2 = 101 * pixel_bytes;  // pixel (y, x) at lead2 + 10 y + x
constexpr int delta2_bytes = 8 * delta_pitch2 + 160;
// Gradient before conv1's relu, fp16 (its partner in the product, the pixels, are exact in fp16 and not in bf16):
// [4 parities][13 groups of 8 pixels of the 10x10 grid][32 channels][8 pixels], zero beyond pixel 99.
constexpr int delta1_parity_bytes = 13 * 512;
constexpr int delta1_bytes = 4 * delta1_parity_bytes;

// One network's parameters in one flat block of f32, "the private layout". The convolutions stand as in the canonical
// layout. The linear layer is [features, hidden] in this page's order of features, the streams' columns side by side.
// The head is [rows, 512] and a bias a row; with dueling row 0 is the value and row 1 + a action a's advantage.
constexpr int conv1_weight = 0;
constexpr int conv1_weights = 32 * 256;
constexpr int conv1_bias = conv1_weight + conv1_weights;
constexpr int conv2_weight = conv1_bias + 32;
constexpr int conv2_weights = 64 * 512;
constexpr int conv2_bias = conv2_weight + conv2_weights;
constexpr int conv3_weight = conv2_bias + 64;
constexpr int conv3_weights = 64 * 576;
constexpr int conv3_bias = conv3_weight + conv3_weights;
constexpr int dense = conv3_bias + 64;  // the torso ends and the dense part (linear layer, head) begins
constexpr int most_rows = 32;           // head rows, a warp's lanes
constexpr int head_width = 512;

struct Shape {
  int actions = 0;
  bool dueling = false;

  [[nodiscard]] QANAT_HOST_DEVICE int hidden() const { return dueling ? 2 * head_width : head_width; }
  [[nodiscard]] QANAT_HOST_DEVICE int rows() const { return actions + (dueling ? 1 : 0); }
  [[nodiscard]] QANAT_HOST_DEVICE int linear_weights() const { return features * hidden(); }
  [[nodiscard]] QANAT_HOST_DEVICE int hidden_bias() const { return dense + linear_weights(); }
  [[nodiscard]] QANAT_HOST_DEVICE int head_weight() const { return hidden_bias() + hidden(); }
  [[nodiscard]] QANAT_HOST_DEVICE int head_bias() const { return head_weight() + rows() * head_width; }
  // Whole vectors of four; what pads the end is zero and stays zero.
  [[nodiscard]] QANAT_HOST_DEVICE int parameters() const { return (head_bias() + rows() + 3) / 4 * 4; }
  [[nodiscard]] QANAT_HOST_DEVICE int dense_parameters() const { return parameters() - dense; }
};

// The torso's weights as the kernels read them. Forward, one block a network: conv1 fp16, conv2 and conv3 bf16, as
// [K / 8][output channel][8 of K], a core-matrix column after another; behind them the biases.
constexpr int packed1_bytes = conv1_weights * 2;
constexpr int packed2_bytes = conv2_weights * 2;
constexpr int packed3_bytes = conv3_weights * 2;
constexpr int packed_weight_bytes = packed1_bytes + packed2_bytes + packed3_bytes;
constexpr int torso_channels = 32 + 64 + 64;
constexpr int packed_bytes = packed_weight_bytes + torso_channels * 4;
// Backward, online network only: conv3 then conv2, K running over output channels.
constexpr int packed_back_bytes = packed3_bytes + packed2_bytes;

// Where element (n, c, y, x) of a convolution's OIHW weights goes, in elements of its packed block.
QANAT_HOST_DEVICE inline int packed_conv1(int n, int frame, int y, int x) {
  // A thread of a quad reads its frame's four pixels at once; their order along K follows from wgmma's fragments.
  const int step = 2 * y + (x >> 2);
  const int half = (x >> 1) & 1;
  return ((step * 2 + half) * 32 + n) * 8 + 2 * frame + (x & 1);
}
QANAT_HOST_DEVICE inline int parity_channel(int c, int y, int x) { return (y & 1) * 64 + (x & 1) * 32 + c; }
QANAT_HOST_DEVICE inline int parity_tap(int y, int x) { return (y >> 1) * 2 + (x >> 1); }
QANAT_HOST_DEVICE inline int packed_conv2(int n, int c, int y, int x) {
  const int k = parity_channel(c, y, x);
  return ((parity_tap(y, x) * 16 + (k >> 3)) * 64 + n) * 8 + (k & 7);
}
QANAT_HOST_DEVICE inline int packed_conv3(int n, int c, int y, int x) {
  return (((y * 3 + x) * 8 + (c >> 3)) * 64 + n) * 8 + (c & 7);
}
QANAT_HOST_DEVICE inline int packed_back_conv3(int n, int c, int y, int x) {
  return (((y * 3 + x) * 8 + (n >> 3)) * 64 + c) * 8 + (n & 7);
}
QANAT_HOST_DEVICE inline int packed_back_conv2(int n, int c, int y, int x) {
  return ((parity_tap(y, x) * 8 + (n >> 3)) * 128 + parity_channel(c, y, x)) * 8 + (n & 7);
}

// torso_gradients() leaves its sums in the order of wgmma's accumulators: which OIHW element is number i?
struct Fragment {
  int row_in_quad, warp, column;  // lane / 4; column of D
  bool lower;                     // rows 8 to 15 of the warp's sixteen
};
QANAT_HOST_DEVICE inline Fragment fragment_of(int i, int columns_of_8) {
  const int thread = (i >> 2) & 127;
  return {(thread & 31) >> 2, thread >> 5, ((i >> 9) % columns_of_8) * 8 + 2 * (thread & 3) + (i & 1), (i & 2) != 0};
}
QANAT_HOST_DEVICE inline int fragment_conv1(int i) {
  const Fragment f = fragment_of(i, 4);
  const int frame = (i >> 12) * 2 + (f.warp >> 1);
  const int x = 4 * (f.warp & 1) + ((i >> 11) & 1) * 2 + (f.lower ? 1 : 0);
  return ((f.column * 4 + frame) * 8 + f.row_in_quad) * 8 + x;
}
QANAT_HOST_DEVICE inline int fragment_conv2(int i) {
  const Fragment f = fragment_of(i, 16);
  const int n = f.warp * 16 + f.row_in_quad + (f.lower ? 8 : 0);
  const int tap = i >> 13;
  const int y = 2 * (tap >> 1) + (f.column >> 6);
  const int x = 2 * (tap & 1) + ((f.column >> 5) & 1);
  return ((n * 32 + (f.column & 31)) * 4 + y) * 4 + x;
}
QANAT_HOST_DEVICE inline int fragment_conv3(int i) {
  const Fragment f = fragment_of(i, 8);
  const int n = f.warp * 16 + f.row_in_quad + (f.lower ? 8 : 0);
  return (n * 64 + f.column) * 9 + (i >> 12);
}

// Feature `c * 49 + pixel` of the canonical order in this page's order.
QANAT_HOST_DEVICE inline int feature_position(int canonical) {
  const int c = canonical / 49;
  const int pixel = canonical % 49;
  return (c >> 3) * 392 + pixel * 8 + (c & 7);
}

}  // namespace qanat::nn::nature
