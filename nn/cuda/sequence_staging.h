// The way of a batch of sequences to the device and of its results back, as nn/cuda/staging.h does for transitions: two
// sets of memory, so that one batch is uploaded while the update before it computes. Every stored row goes up once; the
// stacks are cut on the device.
//
// A set's device addresses never change, except that of the rows, which kernels read from BatchHead: a graph captured
// with a set is right for every later batch of that set. Thread safety: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nn/cuda/device.h"
#include "nn/cuda/staging.h"
#include "nn/sequence.h"

namespace qanat::nn::cuda {

// One staged batch as kernels see it; every pointer is device memory, shapes as SequenceBatch has them.
struct DeviceSequences {
  const BatchHead* head = nullptr;  // next_rows as state_rows; masked: whether mask holds anything
  const std::uint32_t* index = nullptr;
  const std::int32_t* previous_action = nullptr;
  const float* previous_reward = nullptr;
  const std::int32_t* action = nullptr;
  const float* reward = nullptr;
  const std::uint8_t* mask = nullptr;
  const std::int32_t* length = nullptr;
  const SequenceEnd* end = nullptr;
  const float* hidden = nullptr;
  const float* cell = nullptr;
  const float* weight = nullptr;
};

struct SequenceStagingShape {
  std::int64_t batch = 0;
  std::int64_t steps = 0;
  std::int64_t stack = 1;
  std::int64_t actions = 0;
  std::int64_t features = 0;  // of the lstm
  std::int64_t row_bytes = 0;
};

class SequenceStaging {
 public:
  static constexpr std::size_t sets = 2;

  explicit SequenceStaging(const SequenceStagingShape& shape);

  // Page-locked memory of the set that the next put() uses: rows that stand there are uploaded without a copy.
  [[nodiscard]] std::span<std::byte> row_memory(std::size_t bytes);
  // Copies a checked batch and starts its upload; the answer is the set that holds it, each in turn. Precondition: the
  // results of the update that used this set before have been taken.
  std::size_t put(const SequenceBatch& batch, const UpdateControls& controls);

  // Makes `stream` wait until the set's upload is complete.
  void wait(std::size_t set, const Stream& stream) const { stream.wait(uploaded_[set]); }
  [[nodiscard]] const DeviceSequences& batch(std::size_t set) const { return batches_[set]; }

  // Where the update of this set leaves its report and the priorities [B]; device.
  [[nodiscard]] UpdateReport* report(std::size_t set) const;
  [[nodiscard]] float* priorities(std::size_t set) const;
  // Enqueues their way to the host. Part of what a graph captures.
  void send_back(std::size_t set, cudaStream_t stream) const;
  // Valid once what send_back() put on the stream is done.
  [[nodiscard]] const UpdateReport& reported(std::size_t set) const;
  [[nodiscard]] const float* reported_priorities(std::size_t set) const;

 private:
  // Offsets of the columns in a set's block.
  struct Layout {
    std::size_t index, previous_action, previous_reward, action, reward, mask, length, end, hidden, cell, weight, bytes;
  };
  static Layout layout_of(const SequenceStagingShape& shape);
  [[nodiscard]] std::size_t report_bytes() const;
  void reserve_rows(std::size_t set, std::size_t bytes);
  void put_rows(std::size_t set, const ObservationRows& rows);

  const SequenceStagingShape shape_;
  const Layout layout_;
  Stream copy_;
  std::array<PinnedBuffer<std::byte>, sets> columns_host_, rows_host_, reports_host_;
  std::array<DeviceBuffer<std::byte>, sets> columns_, rows_, reports_;
  std::array<DeviceSequences, sets> batches_;
  std::array<Event, sets> uploaded_;
  std::size_t next_ = 0;
};

}  // namespace qanat::nn::cuda
