// Stored rows to the network's input: gather, stack, scale, and space to depth in one pass.
#include "nn/cuda/device_code.h"
#include "nn/cuda/kernels.h"

namespace qanat::nn::cuda {
namespace {

constexpr int threads = 256;

// Element `e` of a stacked sample in canonical order.
__device__ float stacked_element(const LoadRows& load, const std::byte* rows, std::int64_t sample, std::int64_t e) {
  const std::int64_t k = e / load.row_elements;
  const std::int64_t at = load.index[sample * load.stack + k] * load.row_elements + e % load.row_elements;
  return load.bytes ? static_cast<float>(reinterpret_cast<const std::uint8_t*>(rows)[at])
                    : reinterpret_cast<const float*>(rows)[at];
}

// Any layout; one thread for eight neighbouring elements of `to` [samples][width].
template <class T>
__global__ void load_any(LoadRows load, T* to) {
  const std::int64_t groups = load.width / 8;
  const std::int64_t group = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (group >= load.samples * groups) return;
  const std::int64_t sample = group / groups;
  const std::int64_t first = group % groups * 8;
  const InputLayout& in = load.input;
  const std::byte* rows = *load.rows;
  const std::int64_t pixels = in.image ? in.rows * in.columns : 1;
  const std::int64_t padded_channels = load.width / pixels;
  const std::int64_t channels = in.image ? in.channels * in.block * in.block : load.stack * load.row_elements;
  const std::int64_t pixel = first / padded_channels;
  Eight<T> out;
  bool bad = false;
  for (int i = 0; i < 8; ++i) {
    const std::int64_t channel = first % padded_channels + i;
    float value = 0;
    if (channel < channels) {
      std::int64_t element = channel;
      if (in.image) {
        const std::int64_t place = channel / in.channels;  // in the block
        const std::int64_t y = pixel / in.columns * in.block + place / in.block;
        const std::int64_t x = pixel % in.columns * in.block + place % in.block;
        element = (channel % in.channels * in.height + y) * in.width + x;
      }
      value = load.scale * stacked_element(load, rows, sample, element);
      bad = bad || !isfinite(value);
    }
    out.at[i] = narrow<T>(value);
  }
  reinterpret_cast<Eight<T>*>(to)[group] = out;
  if (bad) load.bad[sample] = 1;
}

// u8 images of one channel, stacks of 4, blocks of 4 x 4 pixels (the Nature network's first layer). One thread for one
// row of one block: it reads four neighbouring pixels of each frame as one word and writes their 16 channels,
// [x][frame].
template <class T>
__global__ void load_blocks_of_4(LoadRows load, T* to) {
  const InputLayout& in = load.input;
  const std::int64_t strips = in.rows * in.columns * 4;
  const std::int64_t strip = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  if (strip >= load.samples * strips) return;
  const std::int64_t sample = strip / strips;
  const auto rest = static_cast<std::int32_t>(strip % strips);
  const auto columns = static_cast<std::int32_t>(in.columns);
  const std::int32_t pixel = rest / 4, y_in_block = rest % 4;
  const std::int32_t y = pixel / columns * 4 + y_in_block, x = pixel % columns * 4;
  const std::byte* rows = *load.rows;
  const uint4 frames = *reinterpret_cast<const uint4*>(load.index + sample * 4);
  const std::uint32_t frame[4] = {frames.x, frames.y, frames.z, frames.w};
  uchar4 word[4];
  for (int k = 0; k < 4; ++k) {
    word[k] = *reinterpret_cast<const uchar4*>(rows + frame[k] * load.row_elements + y * in.width + x);
  }
  Eight<T> out[2];
  for (int k = 0; k < 4; ++k) {
    out[0].at[k] = narrow<T>(load.scale * static_cast<float>(word[k].x));
    out[0].at[4 + k] = narrow<T>(load.scale * static_cast<float>(word[k].y));
    out[1].at[k] = narrow<T>(load.scale * static_cast<float>(word[k].z));
    out[1].at[4 + k] = narrow<T>(load.scale * static_cast<float>(word[k].w));
  }
  auto* at = reinterpret_cast<Eight<T>*>(to + (sample * in.rows * in.columns + pixel) * 64 + y_in_block * 16);
  at[0] = out[0];
  at[1] = out[1];
}

bool is_blocks_of_4(const LoadRows& load) {
  return load.bytes && load.input.image && load.input.block == 4 && load.input.channels == 4 && load.stack == 4 &&
         load.input.width % 4 == 0 && load.row_elements == load.input.height * load.input.width;
}

}  // namespace

template <class T>
void load_rows(cudaStream_t stream, const LoadRows& load, T* to) {
  if (is_blocks_of_4(load)) {
    const std::int64_t strips = load.samples * load.input.rows * load.input.columns * 4;
    load_blocks_of_4<<<blocks_for(strips, threads), threads, 0, stream>>>(load, to);
  } else {
    load_any<<<blocks_for(load.samples * load.width / 8, threads), threads, 0, stream>>>(load, to);
  }
  QANAT_LAUNCHED("load_rows");
}

template void load_rows<__nv_bfloat16>(cudaStream_t, const LoadRows&, __nv_bfloat16*);
template void load_rows<float>(cudaStream_t, const LoadRows&, float*);

}  // namespace qanat::nn::cuda
