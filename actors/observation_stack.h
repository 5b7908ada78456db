// The newest observations of some slots, stacked as a network reads them.
//
// Keeps the last `depth` rows of each slot in one block; which of them make a stack is decided by replay/stack.h alone,
// as for the replay's gather. One owner. Views borrow from this object and hold until the next call that is not const.
#pragma once

#include <cstring>
#include <span>
#include <vector>

#include "core/bytes.h"
#include "nn/backend.h"
#include "replay/stack.h"

namespace qanat::actors {

class ObservationStack {
 public:
  // depth >= 1.
  ObservationStack(std::size_t slots, std::size_t depth, std::size_t row_bytes)
      : depth_(depth),
        row_bytes_(row_bytes),
        stacker_(slots, static_cast<std::uint32_t>(depth)),
        pushed_(slots, 0),
        rows_(slots * depth * row_bytes),
        index_(slots * depth) {}

  // `row`: row_bytes, copied. `first` when it begins an episode.
  void push(std::size_t slot, const std::byte* row, bool first) {
    const auto place = slot * depth_ + pushed_[slot]++ % depth_;
    std::memcpy(rows_.data() + place * row_bytes_, row, row_bytes_);
    stacker_.push(slot, static_cast<std::uint32_t>(place), first);
  }

  // The stacks of these slots, in their order: a batch of slots.size(). Each slot was pushed to.
  [[nodiscard]] nn::ObservationRows stacks(std::span<const std::uint32_t> slots) {
    std::span<std::uint32_t> out(index_);
    for (const auto slot : slots) {
      stacker_.stack(slot, out.first(depth_));
      out = out.subspan(depth_);
    }
    return {rows_.data(), static_cast<std::int64_t>(stacker_.slots() * depth_), index_.data()};
  }

  // The rows in the slots' stacks, oldest first: what was before an episode began no longer matters.
  void save(ByteWriter& out) const {
    std::vector<std::uint32_t> places(depth_);
    for (std::size_t slot = 0; slot < stacker_.slots(); ++slot) {
      stacker_.stack(slot, places);
      for (const auto place : places) out.put_raw(std::span(rows_).subspan(place * row_bytes_, row_bytes_));
    }
  }
  // Padding is loaded as if it were rows of the episode: all later stacks are the same.
  void load(ByteReader& in) {
    for (std::size_t slot = 0; slot < stacker_.slots(); ++slot) {
      for (std::size_t k = 0; k < depth_; ++k) push(slot, in.get_raw("observation", row_bytes_).data(), k == 0);
    }
  }

 private:
  std::size_t depth_;
  std::size_t row_bytes_;
  replay::Stacker<std::uint32_t> stacker_;
  std::vector<std::size_t> pushed_;  // rows of each slot so far
  std::vector<std::byte> rows_;      // [slots, depth, row_bytes]
  std::vector<std::uint32_t> index_;
};

}  // namespace qanat::actors
