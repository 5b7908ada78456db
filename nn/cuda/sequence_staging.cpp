#include "nn/cuda/sequence_staging.h"

#include <algorithm>
#include <cstring>

namespace qanat::nn::cuda {
namespace {

// Rows go up in pieces, so that the bus carries one while the processor copies the next.
constexpr std::size_t piece_bytes = 1u << 20;

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

template <class T>
void store(std::byte* to, const T* from, std::size_t count) {
  std::memcpy(to, from, count * sizeof(T));
}

}  // namespace

auto SequenceStaging::layout_of(const SequenceStagingShape& s) -> Layout {
  const auto batch = static_cast<std::size_t>(s.batch);
  const std::size_t samples = batch * static_cast<std::size_t>(s.steps);
  std::size_t end = round_up(sizeof(BatchHead));
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = end;
    end = round_up(end + bytes);
    return start;
  };
  Layout layout{};
  layout.index = take(4 * samples * static_cast<std::size_t>(s.stack));
  layout.previous_action = take(4 * samples);
  layout.previous_reward = take(4 * samples);
  layout.action = take(4 * samples);
  layout.reward = take(4 * samples);
  layout.mask = take(samples * static_cast<std::size_t>(s.actions));
  layout.length = take(4 * batch);
  layout.end = take(batch);
  layout.hidden = take(4 * batch * static_cast<std::size_t>(s.features));
  layout.cell = take(4 * batch * static_cast<std::size_t>(s.features));
  layout.weight = take(4 * batch);
  layout.bytes = end;
  return layout;
}

SequenceStaging::SequenceStaging(const SequenceStagingShape& shape) : shape_(shape), layout_(layout_of(shape)) {
  for (std::size_t set = 0; set < sets; ++set) {
    columns_host_[set] = PinnedBuffer<std::byte>(layout_.bytes);
    columns_[set] = DeviceBuffer<std::byte>(layout_.bytes);
    reports_host_[set] = PinnedBuffer<std::byte>(report_bytes());
    reports_[set] = DeviceBuffer<std::byte>(report_bytes());
    const std::byte* base = columns_[set].data();
    const auto floats = [&](std::size_t offset) { return reinterpret_cast<const float*>(base + offset); };
    const auto words = [&](std::size_t offset) { return reinterpret_cast<const std::int32_t*>(base + offset); };
    batches_[set] = {.head = reinterpret_cast<const BatchHead*>(base),
                     .index = reinterpret_cast<const std::uint32_t*>(base + layout_.index),
                     .previous_action = words(layout_.previous_action),
                     .previous_reward = floats(layout_.previous_reward),
                     .action = words(layout_.action),
                     .reward = floats(layout_.reward),
                     .mask = reinterpret_cast<const std::uint8_t*>(base + layout_.mask),
                     .length = words(layout_.length),
                     .end = reinterpret_cast<const SequenceEnd*>(base + layout_.end),
                     .hidden = floats(layout_.hidden),
                     .cell = floats(layout_.cell),
                     .weight = floats(layout_.weight)};
  }
}

std::size_t SequenceStaging::report_bytes() const {
  return sizeof(UpdateReport) + sizeof(float) * static_cast<std::size_t>(shape_.batch);
}

// Growing is safe: this set is not in use, and no graph holds the address.
void SequenceStaging::reserve_rows(std::size_t set, std::size_t bytes) {
  if (bytes <= rows_[set].size()) return;
  rows_[set] = {};
  rows_host_[set] = {};
  rows_[set] = DeviceBuffer<std::byte>(bytes);
  rows_host_[set] = PinnedBuffer<std::byte>(bytes);
}

std::span<std::byte> SequenceStaging::row_memory(std::size_t bytes) {
  reserve_rows(next_, bytes);
  return {rows_host_[next_].data(), bytes};
}

void SequenceStaging::put_rows(std::size_t set, const ObservationRows& rows) {
  const auto bytes = static_cast<std::size_t>(rows.rows * shape_.row_bytes);
  reserve_rows(set, bytes);
  if (rows.data == rows_host_[set].data()) {  // put there by whom row_memory() was given to
    upload(copy_, rows_[set].data(), rows_host_[set].data(), bytes);
    return;
  }
  for (std::size_t at = 0; at < bytes; at += piece_bytes) {
    const std::size_t piece = std::min(piece_bytes, bytes - at);
    std::memcpy(rows_host_[set].data() + at, rows.data + at, piece);
    upload(copy_, rows_[set].data() + at, rows_host_[set].data() + at, piece);
  }
}

std::size_t SequenceStaging::put(const SequenceBatch& batch, const UpdateControls& controls) {
  const std::size_t set = next_;
  next_ = (next_ + 1) % sets;
  put_rows(set, batch.observations);
  const auto size = static_cast<std::size_t>(shape_.batch);
  const std::size_t samples = size * static_cast<std::size_t>(shape_.steps);
  std::byte* to = columns_host_[set].data();
  if (batch.observations.index != nullptr) {
    store(to + layout_.index, batch.observations.index, samples * static_cast<std::size_t>(shape_.stack));
  } else {
    for (std::size_t i = 0; i < samples; ++i)
      reinterpret_cast<std::uint32_t*>(to + layout_.index)[i] = static_cast<std::uint32_t>(i);
  }
  store(to + layout_.previous_action, batch.previous_action, samples);
  store(to + layout_.previous_reward, batch.previous_reward, samples);
  store(to + layout_.action, batch.action, samples);
  store(to + layout_.reward, batch.reward, samples);
  if (batch.mask != nullptr) store(to + layout_.mask, batch.mask, samples * static_cast<std::size_t>(shape_.actions));
  store(to + layout_.length, batch.length, size);
  store(to + layout_.end, batch.end, size);
  store(to + layout_.hidden, batch.hidden, size * static_cast<std::size_t>(shape_.features));
  store(to + layout_.cell, batch.cell, size * static_cast<std::size_t>(shape_.features));
  store(to + layout_.weight, batch.weight, size);
  const BatchHead head{.state_rows = rows_[set].data(),
                       .next_rows = rows_[set].data(),
                       .learning_rate = controls.learning_rate,
                       .sync_target = controls.sync_target ? 1 : 0,
                       .masked = batch.mask != nullptr ? 1 : 0};
  std::memcpy(to, &head, sizeof(head));
  upload(copy_, columns_[set].data(), to, layout_.bytes);
  uploaded_[set].record(copy_);
  return set;
}

UpdateReport* SequenceStaging::report(std::size_t set) const {
  return reinterpret_cast<UpdateReport*>(reports_[set].data());
}

float* SequenceStaging::priorities(std::size_t set) const {
  return reinterpret_cast<float*>(reports_[set].data() + sizeof(UpdateReport));
}

void SequenceStaging::send_back(std::size_t set, cudaStream_t stream) const {
  download(stream, reports_host_[set].data(), reports_[set].data(), report_bytes());
}

const UpdateReport& SequenceStaging::reported(std::size_t set) const {
  return *reinterpret_cast<const UpdateReport*>(reports_host_[set].data());
}

const float* SequenceStaging::reported_priorities(std::size_t set) const {
  return reinterpret_cast<const float*>(reports_host_[set].data() + sizeof(UpdateReport));
}

}  // namespace qanat::nn::cuda
