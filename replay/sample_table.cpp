#include "replay/sample_table.h"

#include "core/error.h"

namespace qanat::replay {
namespace {

template <class Table, class Visit>
void for_each_array(Table& table, Visit visit) {
  visit(table.generations);
  visit(table.slots);
  visit(table.leaves);
  visit(table.state);
  visit(table.next_state);
  visit(table.actions);
  visit(table.rewards);
  visit(table.steps);
  visit(table.terminal);
}

}  // namespace

void SampleTable::resize(std::size_t count) {
  generations.resize(count);
  slots.resize(count);
  leaves.resize(count);
  state.resize(count * stack);
  next_state.resize(count * stack);
  actions.resize(count);
  rewards.resize(count * n_step);
  steps.resize(count);
  terminal.resize(count);
}

wire::Frame SampleTable::encode(const std::shared_ptr<wire::HeldBytes>& held) const {
  std::size_t bytes = 0;
  for_each_array(*this, [&](const auto& array) { bytes += array.size() * sizeof(array[0]); });
  wire::Frame frame(bytes, held);
  auto* out = frame.mutable_bytes().data();
  for_each_array(*this, [&](const auto& array) {
    const auto size = array.size() * sizeof(array[0]);
    if (size > 0) std::memcpy(out, array.data(), size);
    out += size;
  });
  return frame;
}

void SampleTable::decode(std::span<const std::byte> bytes, std::size_t item_count, std::uint32_t rows) {
  const std::size_t each = 8 + 4 + 4 + 8UL * stack + 4 + 4UL * n_step + 1 + 1;
  if (bytes.size() != item_count * each) {
    throw InputError(text("item table: saw ", bytes.size(), " bytes, wanted ", item_count, " items of ", each));
  }
  resize(item_count);
  const auto* in = bytes.data();
  for_each_array(*this, [&](auto& array) {
    const auto size = array.size() * sizeof(array[0]);
    if (size > 0) std::memcpy(array.data(), in, size);
    in += size;
  });
  for (const auto* indices : {&state, &next_state}) {
    for (const auto index : *indices) {
      if (index >= rows) throw InputError(text("item table: row ", index, ", wanted below ", rows));
    }
  }
  for (const auto m : steps) {
    if (m < 1 || m > n_step) throw InputError(text("item table: a window of ", int{m}, " steps, wanted 1 to ", n_step));
  }
}

}  // namespace qanat::replay
