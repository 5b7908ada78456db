// The way of a batch, of transitions or of sequences, to the device and of its results back: two sets of page-locked
// and device memory, so that one batch is uploaded while the update before it computes. Every stored row goes up once;
// the stacks are cut on the device.
//
// A set's device addresses never change, except those of the rows, which kernels read from BatchHead: a graph captured
// with a set is right for every later batch of that set. put() copies what it is given, so nothing stays borrowed.
// Thread safety: one thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nn/backend.h"
#include "nn/cuda/device.h"
#include "nn/sequence.h"

namespace qanat::nn::cuda {

// What differs between two updates beside the columns. In device memory.
struct BatchHead {
  const std::byte* state_rows = nullptr;  // [rows, row bytes] u8 or f32, device
  const std::byte* next_rows = nullptr;   // often the same
  double learning_rate = 0;
  std::int32_t sync_target = 0;
  std::int32_t masked = 0;  // whether the batch's mask holds anything
};

// One staged batch of transitions as kernels see it; every pointer is device memory.
struct DeviceBatch {
  const BatchHead* head = nullptr;
  const std::uint32_t* state_index = nullptr;  // [B, K]
  const std::uint32_t* next_index = nullptr;   // [B, K]
  const std::int32_t* action = nullptr;        // [B]
  const float* returns = nullptr;              // [B]
  const float* bootstrap = nullptr;            // [B]
  const float* weight = nullptr;               // [B]
  const std::uint8_t* next_mask = nullptr;     // [B, actions], read only when head->masked
  std::int64_t size = 0;
};

// One staged batch of sequences, shapes as SequenceBatch has them.
struct DeviceSequences {
  const BatchHead* head = nullptr;  // next_rows as state_rows
  const std::uint32_t* index = nullptr;
  const std::int32_t* previous_action = nullptr;
  const float* previous_reward = nullptr;
  const std::int32_t* action = nullptr;
  const float* reward = nullptr;
  const std::uint8_t* mask = nullptr;  // read only when head->masked
  const std::int32_t* length = nullptr;
  const SequenceEnd* end = nullptr;
  const float* hidden = nullptr;
  const float* cell = nullptr;
  const float* weight = nullptr;
};

// What an update reports, in device memory and then in page-locked host memory. Behind it stand the new priorities,
// [B]: |td| of transitions.
struct UpdateReport {
  double loss = 0;
  double grad_norm = 0;
  double mean_q = 0;
  std::int32_t finite = 1;
  std::int32_t unused = 0;
};

struct StagingShape {
  std::int64_t batch = 0;
  std::int64_t steps = 0;  // of a sequence; 0: batches are of transitions
  std::int64_t stack = 1;
  std::int64_t actions = 0;
  std::int64_t features = 0;  // of the lstm
  std::int64_t row_bytes = 0;
};

class Staging {
 public:
  static constexpr std::size_t sets = 2;

  explicit Staging(const StagingShape& shape);

  // Page-locked memory of the set that the next put() uses: rows that stand there are uploaded without a copy.
  [[nodiscard]] std::span<std::byte> row_memory(std::size_t bytes);
  // Copies a checked batch, of the shape's kind, and starts its upload; the answer is the set that holds it, each in
  // turn. Precondition: the results of the update that used this set before have been taken.
  std::size_t put(const QBatch& batch, const UpdateControls& controls);
  std::size_t put(const SequenceBatch& batch, const UpdateControls& controls);
  // The same for rows alone, `samples` of them: state_rows and state_index of transitions.
  std::size_t put(const ObservationRows& rows, std::int64_t samples);

  [[nodiscard]] const BatchHead* head(std::size_t set) const;
  [[nodiscard]] const DeviceBatch& batch(std::size_t set) const { return batches_[set]; }
  [[nodiscard]] const DeviceSequences& sequences(std::size_t set) const { return sequences_[set]; }

  // Where the update of this set leaves its report and the priorities [B]; device.
  [[nodiscard]] UpdateReport* report(std::size_t set) const;
  [[nodiscard]] float* priorities(std::size_t set) const;
  // Enqueues their way to the host. Part of what a graph captures.
  void send_back(std::size_t set, cudaStream_t stream) const;

  // Before and after what puts an update on `stream`: it begins when the set's upload is complete, and is timed. Not
  // captured.
  void start(std::size_t set, const Stream& stream) const;
  void finish(std::size_t set, const Stream& stream) const { done_[set].record(stream); }
  // Waits for the oldest update whose results have not been taken, and takes them.
  UpdateResult result(std::span<float> priorities);

 private:
  struct Memory {
    Memory() = default;
    explicit Memory(std::size_t bytes) : host(bytes), device(bytes) {}
    PinnedBuffer<std::byte> host;
    DeviceBuffer<std::byte> device;
  };

  // Gives the set's columns their places in `block`, null: nowhere; the answer is how many bytes they take.
  std::size_t place_columns(std::size_t set, const std::byte* block);
  void reserve_rows(std::size_t set, std::size_t bytes);
  void copy_rows(std::size_t set, const std::byte* from, std::size_t offset, std::size_t bytes);
  void put_rows(std::size_t set, const ObservationRows& rows);
  void put_index(std::size_t set, const std::uint32_t* column, const std::uint32_t* index, std::int64_t samples);
  std::size_t next_set();
  std::size_t upload_columns(std::size_t set, const BatchHead& head);
  // Where the host writes what goes up to `column`.
  template <class T>
  T* host(std::size_t set, const T* column) const {
    const auto offset = reinterpret_cast<const std::byte*>(column) - columns_[set].device.data();
    return reinterpret_cast<T*>(columns_[set].host.data() + offset);
  }

  const StagingShape shape_;
  Stream copy_;
  std::size_t next_ = 0;    // whose put() comes next
  std::size_t oldest_ = 0;  // whose result is taken next
  std::array<Memory, sets> rows_, columns_, reports_;
  std::array<DeviceBatch, sets> batches_;
  std::array<DeviceSequences, sets> sequences_;
  std::array<Event, sets> uploaded_;
  std::array<Event, sets> started_ = {Event(Event::Kind::timed), Event(Event::Kind::timed)};
  std::array<Event, sets> done_ = {Event(Event::Kind::timed), Event(Event::Kind::timed)};
};

}  // namespace qanat::nn::cuda
