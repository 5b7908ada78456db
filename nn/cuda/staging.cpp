#include "nn/cuda/staging.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

namespace qanat::nn::cuda {
namespace {

// Rows go up in pieces, so that the bus carries one while the processor copies the next.
constexpr std::size_t piece_bytes = 1u << 20;

std::size_t round_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

Staging::Staging(const StagingShape& shape) : shape_(shape) {
  const std::size_t column_bytes = place_columns(0, nullptr);
  for (std::size_t set = 0; set < sets; ++set) {
    columns_[set] = Memory(column_bytes);
    reports_[set] = Memory(sizeof(UpdateReport) + sizeof(float) * static_cast<std::size_t>(shape.batch));
    place_columns(set, columns_[set].device.data());
    // What a state and its next state need when no two samples share a row; sequences need more from the first put().
    reserve_rows(set, static_cast<std::size_t>(2 * shape.batch * shape.stack * shape.row_bytes));
  }
}

std::size_t Staging::place_columns(std::size_t set, const std::byte* block) {
  std::size_t end = 0;
  const auto take = [&]<class T>(const T*& column, std::int64_t count) {
    if (block != nullptr) column = reinterpret_cast<const T*>(block + end);
    end = round_up(end + sizeof(T) * static_cast<std::size_t>(count));
  };
  const StagingShape& s = shape_;
  if (s.steps == 0) {
    DeviceBatch& batch = batches_[set];
    take(batch.head, 1);
    take(batch.state_index, s.batch * s.stack);
    take(batch.next_index, s.batch * s.stack);
    take(batch.action, s.batch);
    take(batch.returns, s.batch);
    take(batch.bootstrap, s.batch);
    take(batch.weight, s.batch);
    take(batch.next_mask, s.batch * s.actions);
    batch.size = s.batch;
  } else {
    DeviceSequences& batch = sequences_[set];
    const std::int64_t samples = s.steps * s.batch;
    take(batch.head, 1);
    take(batch.index, samples * s.stack);
    take(batch.previous_action, samples);
    take(batch.previous_reward, samples);
    take(batch.action, samples);
    take(batch.reward, samples);
    take(batch.mask, samples * s.actions);
    take(batch.length, s.batch);
    take(batch.end, s.batch);
    take(batch.hidden, s.batch * s.features);
    take(batch.cell, s.batch * s.features);
    take(batch.weight, s.batch);
  }
  return end;
}

// Growing is safe: this set is not in use, and no graph holds the address.
void Staging::reserve_rows(std::size_t set, std::size_t bytes) {
  if (bytes <= rows_[set].host.size()) return;
  rows_[set] = {};
  rows_[set] = Memory(bytes);
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

void Staging::put_rows(std::size_t set, const ObservationRows& rows) {
  const auto bytes = static_cast<std::size_t>(rows.rows * shape_.row_bytes);
  reserve_rows(set, bytes);
  copy_rows(set, rows.data, 0, bytes);
}

void Staging::put_index(std::size_t set, const std::uint32_t* column, const std::uint32_t* index,
                        std::int64_t samples) {
  std::uint32_t* to = host(set, column);
  if (index != nullptr) {
    std::copy_n(index, samples * shape_.stack, to);
  } else {
    std::iota(to, to + samples, 0u);
  }
}

std::size_t Staging::next_set() { return std::exchange(next_, (next_ + 1) % sets); }

std::size_t Staging::upload_columns(std::size_t set, const BatchHead& head) {
  const Memory& columns = columns_[set];
  *reinterpret_cast<BatchHead*>(columns.host.data()) = head;
  upload(copy_, columns.device.data(), columns.host.data(), columns.host.size());
  uploaded_[set].record(copy_);
  return set;
}

std::size_t Staging::put(const QBatch& batch, const UpdateControls& controls) {
  const std::size_t set = next_set();
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

  const DeviceBatch& to = batches_[set];
  put_index(set, to.state_index, batch.state.index, batch.size);
  put_index(set, to.next_index, batch.next_state.index, batch.size);
  std::copy_n(batch.action, batch.size, host(set, to.action));
  std::copy_n(batch.returns, batch.size, host(set, to.returns));
  std::copy_n(batch.bootstrap, batch.size, host(set, to.bootstrap));
  std::copy_n(batch.weight, batch.size, host(set, to.weight));
  if (batch.next_mask != nullptr) {
    std::copy_n(batch.next_mask, batch.size * shape_.actions, host(set, to.next_mask));
  }
  return upload_columns(set, {.state_rows = rows_[set].device.data(),
                              .next_rows = rows_[set].device.data() + next_at,
                              .learning_rate = controls.learning_rate,
                              .sync_target = controls.sync_target ? 1 : 0,
                              .masked = batch.next_mask != nullptr ? 1 : 0});
}

std::size_t Staging::put(const SequenceBatch& batch, const UpdateControls& controls) {
  const std::size_t set = next_set();
  put_rows(set, batch.observations);
  const DeviceSequences& to = sequences_[set];
  const std::int64_t samples = shape_.steps * batch.size;
  put_index(set, to.index, batch.observations.index, samples);
  std::copy_n(batch.previous_action, samples, host(set, to.previous_action));
  std::copy_n(batch.previous_reward, samples, host(set, to.previous_reward));
  std::copy_n(batch.action, samples, host(set, to.action));
  std::copy_n(batch.reward, samples, host(set, to.reward));
  if (batch.mask != nullptr) std::copy_n(batch.mask, samples * shape_.actions, host(set, to.mask));
  std::copy_n(batch.length, batch.size, host(set, to.length));
  std::copy_n(batch.end, batch.size, host(set, to.end));
  std::copy_n(batch.hidden, batch.size * shape_.features, host(set, to.hidden));
  std::copy_n(batch.cell, batch.size * shape_.features, host(set, to.cell));
  std::copy_n(batch.weight, batch.size, host(set, to.weight));
  return upload_columns(set, {.state_rows = rows_[set].device.data(),
                              .next_rows = rows_[set].device.data(),
                              .learning_rate = controls.learning_rate,
                              .sync_target = controls.sync_target ? 1 : 0,
                              .masked = batch.mask != nullptr ? 1 : 0});
}

std::size_t Staging::put(const ObservationRows& rows, std::int64_t samples) {
  const std::size_t set = next_set();
  put_rows(set, rows);
  // A pass computes all samples of its size: those beyond `samples` read row 0.
  std::fill_n(host(set, batches_[set].state_index), shape_.batch * shape_.stack, 0u);
  put_index(set, batches_[set].state_index, rows.index, samples);
  return upload_columns(set, {.state_rows = rows_[set].device.data(), .next_rows = rows_[set].device.data()});
}

const BatchHead* Staging::head(std::size_t set) const {
  return reinterpret_cast<const BatchHead*>(columns_[set].device.data());
}

UpdateReport* Staging::report(std::size_t set) const {
  return reinterpret_cast<UpdateReport*>(reports_[set].device.data());
}

float* Staging::priorities(std::size_t set) const {
  return reinterpret_cast<float*>(reports_[set].device.data() + sizeof(UpdateReport));
}

void Staging::send_back(std::size_t set, cudaStream_t stream) const {
  const Memory& reports = reports_[set];
  download(stream, reports.host.data(), reports.device.data(), reports.host.size());
}

void Staging::start(std::size_t set, const Stream& stream) const {
  stream.wait(uploaded_[set]);
  started_[set].record(stream);
}

UpdateResult Staging::result(std::span<float> priorities) {
  const std::size_t set = std::exchange(oldest_, (oldest_ + 1) % sets);
  done_[set].synchronize();
  const std::byte* reported = reports_[set].host.data();
  std::copy_n(reinterpret_cast<const float*>(reported + sizeof(UpdateReport)), priorities.size(), priorities.begin());
  const auto& report = *reinterpret_cast<const UpdateReport*>(reported);
  return {.loss = report.loss,
          .grad_norm = report.grad_norm,
          .mean_q = report.mean_q,
          .finite = report.finite != 0,
          .device_seconds = 1e-3 * static_cast<double>(done_[set].since(started_[set]))};
}

}  // namespace qanat::nn::cuda
