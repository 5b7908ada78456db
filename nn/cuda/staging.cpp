#include "nn/cuda/staging.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace qanat::nn::cuda {
namespace {

// Rows go up in pieces, so that the bus carries one while the processor copies the next.
constexpr std::size_t piece_bytes = 1u << 20;

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

auto Staging::layout_of(const StagingShape& s) -> Layout {
  const auto batch = static_cast<std::size_t>(s.batch);
  std::size_t end = round_up(sizeof(BatchHead));
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = end;
    end = round_up(end + bytes);
    return start;
  };
  Layout layout{};
  layout.state_index = take(4 * batch * static_cast<std::size_t>(s.stack));
  layout.next_index = take(4 * batch * static_cast<std::size_t>(s.stack));
  layout.action = take(4 * batch);
  layout.returns = take(4 * batch);
  layout.bootstrap = take(4 * batch);
  layout.weight = take(4 * batch);
  layout.next_mask = take(batch * static_cast<std::size_t>(s.actions));
  layout.bytes = end;
  return layout;
}

Staging::Staging(const StagingShape& shape) : shape_(shape), layout_(layout_of(shape)) {
  for (std::size_t set = 0; set < sets; ++set) {
    columns_host_[set] = PinnedBuffer<std::byte>(layout_.bytes);
    columns_[set] = DeviceBuffer<std::byte>(layout_.bytes);
    reports_host_[set] = PinnedBuffer<std::byte>(report_bytes());
    reports_[set] = DeviceBuffer<std::byte>(report_bytes());
    const std::byte* base = columns_[set].data();
    batches_[set] = {.head = reinterpret_cast<const BatchHead*>(base),
                     .state_index = reinterpret_cast<const std::uint32_t*>(base + layout_.state_index),
                     .next_index = reinterpret_cast<const std::uint32_t*>(base + layout_.next_index),
                     .action = reinterpret_cast<const std::int32_t*>(base + layout_.action),
                     .returns = reinterpret_cast<const float*>(base + layout_.returns),
                     .bootstrap = reinterpret_cast<const float*>(base + layout_.bootstrap),
                     .weight = reinterpret_cast<const float*>(base + layout_.weight),
                     .next_mask = reinterpret_cast<const std::uint8_t*>(base + layout_.next_mask),
                     .size = shape.batch};
    // What a state and its next state need when no two samples share a row.
    reserve_rows(set, static_cast<std::size_t>(2 * shape.batch * shape.stack * shape.row_bytes));
  }
}

std::size_t Staging::report_bytes() const {
  return sizeof(UpdateReport) + sizeof(float) * static_cast<std::size_t>(shape_.batch);
}

// Growing is safe: this set is not in use, and no graph holds the address.
void Staging::reserve_rows(std::size_t set, std::size_t bytes) {
  if (bytes <= rows_[set].host.size()) return;
  rows_[set] = {};
  rows_[set] = {PinnedBuffer<std::byte>(bytes), DeviceBuffer<std::byte>(bytes)};
}

std::span<std::byte> Staging::row_memory(std::size_t bytes) {
  reserve_rows(next_, bytes);
  return {rows_[next_].host.data(), bytes};
}

void Staging::copy_rows(std::size_t set, const std::byte* from, std::size_t offset, std::size_t bytes) {
  if (from == rows_[set].host.data()) {  // put there by whom row_memory() was given to
    upload(copy_, rows_[set].device.data(), rows_[set].host.data(), bytes);
    return;
  }
  for (std::size_t at = 0; at < bytes; at += piece_bytes) {
    const std::size_t piece = std::min(piece_bytes, bytes - at);
    std::byte* pinned = rows_[set].host.data() + offset + at;
    std::memcpy(pinned, from + at, piece);
    upload(copy_, rows_[set].device.data() + offset + at, pinned, piece);
  }
}

void Staging::copy_index(std::size_t set, std::size_t offset, const std::uint32_t* index, std::int64_t samples) {
  auto* to = column<std::uint32_t>(set, offset);
  if (index != nullptr) {
    std::copy_n(index, samples * shape_.stack, to);
  } else {
    std::iota(to, to + samples, 0u);
  }
}

std::size_t Staging::put(const QBatch& batch, const UpdateControls& controls) {
  const std::size_t set = next_;
  next_ = (next_ + 1) % sets;
  const auto row_bytes = static_cast<std::size_t>(shape_.row_bytes);
  const bool shared = batch.state.data == batch.next_state.data;
  const std::size_t state_bytes =
      static_cast<std::size_t>(shared ? std::max(batch.state.rows, batch.next_state.rows) : batch.state.rows) *
      row_bytes;
  const std::size_t next_at = shared ? 0 : round_up(state_bytes);
  const std::size_t next_bytes = shared ? 0 : static_cast<std::size_t>(batch.next_state.rows) * row_bytes;
  reserve_rows(set, std::max(state_bytes, next_at + next_bytes));
  copy_rows(set, batch.state.data, 0, state_bytes);
  copy_rows(set, batch.next_state.data, next_at, next_bytes);

  const auto size = static_cast<std::size_t>(batch.size);
  copy_index(set, layout_.state_index, batch.state.index, batch.size);
  copy_index(set, layout_.next_index, batch.next_state.index, batch.size);
  std::copy_n(batch.action, size, column<std::int32_t>(set, layout_.action));
  std::copy_n(batch.returns, size, column<float>(set, layout_.returns));
  std::copy_n(batch.bootstrap, size, column<float>(set, layout_.bootstrap));
  std::copy_n(batch.weight, size, column<float>(set, layout_.weight));
  if (batch.next_mask != nullptr) {
    std::copy_n(batch.next_mask, size * static_cast<std::size_t>(shape_.actions),
                column<std::uint8_t>(set, layout_.next_mask));
  }
  *column<BatchHead>(set, 0) = {.state_rows = rows_[set].device.data(),
                                .next_rows = rows_[set].device.data() + next_at,
                                .learning_rate = controls.learning_rate,
                                .sync_target = controls.sync_target ? 1 : 0,
                                .masked = batch.next_mask != nullptr ? 1 : 0};
  upload(copy_, columns_[set].data(), columns_host_[set].data(), layout_.bytes);
  uploaded_[set].record(copy_);
  return set;
}

std::size_t Staging::put(const ObservationRows& rows, std::int64_t samples) {
  const std::size_t set = next_;
  next_ = (next_ + 1) % sets;
  const std::size_t bytes = static_cast<std::size_t>(rows.rows * shape_.row_bytes);
  reserve_rows(set, bytes);
  copy_rows(set, rows.data, 0, bytes);
  // A pass computes all samples of its size: those beyond `samples` read row 0.
  std::fill_n(column<std::uint32_t>(set, layout_.state_index), shape_.batch * shape_.stack, 0u);
  copy_index(set, layout_.state_index, rows.index, samples);
  *column<BatchHead>(set, 0) = {.state_rows = rows_[set].device.data(), .next_rows = rows_[set].device.data()};
  upload(copy_, columns_[set].data(), columns_host_[set].data(), layout_.bytes);
  uploaded_[set].record(copy_);
  return set;
}

UpdateReport* Staging::report(std::size_t set) const { return reinterpret_cast<UpdateReport*>(reports_[set].data()); }

float* Staging::td_abs(std::size_t set) const {
  return reinterpret_cast<float*>(reports_[set].data() + sizeof(UpdateReport));
}

void Staging::send_back(std::size_t set, cudaStream_t stream) const {
  download(stream, reports_host_[set].data(), reports_[set].data(), report_bytes());
}

const UpdateReport& Staging::reported(std::size_t set) const {
  return *reinterpret_cast<const UpdateReport*>(reports_host_[set].data());
}

const float* Staging::reported_td_abs(std::size_t set) const {
  return reinterpret_cast<const float*>(reports_host_[set].data() + sizeof(UpdateReport));
}

}  // namespace qanat::nn::cuda
