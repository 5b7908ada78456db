#include "nn/optimizer.h"

#include <bit>
#include <cstring>

#include "core/error.h"

namespace qanat::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "saved optimiser state is little-endian");

// Fixed head of the saved form. `kind` separates Adam's moments from RMSprop's: the same bytes would mean something
// else.
struct Head {
  std::uint32_t magic = 0x54504f51;  // "QOPT"
  std::uint32_t kind = 0;
  std::uint64_t steps = 0;
  std::uint64_t parameters = 0;
};

std::uint32_t kind_of(const TrainerOptions& options) {
  if (options.optimizer == "adam") return 1;
  return options.rms_centered ? 3 : 2;
}

}  // namespace

OptimizerRule optimizer_rule(const TrainerOptions& options) {
  return {.adam = options.optimizer == "adam",
          .centered = options.rms_centered,
          .beta1 = options.beta1,
          .beta2 = options.beta2,
          .rms_decay = options.rms_decay,
          .epsilon = options.epsilon,
          .max_grad_norm = options.max_grad_norm,
          .target_tau = options.target_tau};
}

std::vector<std::byte> pack_optimizer(const TrainerOptions& options, const OptimizerState& state) {
  const Head head{
      .kind = kind_of(options), .steps = static_cast<std::uint64_t>(state.steps), .parameters = state.mean.size()};
  const std::size_t block = state.mean.size() * sizeof(float);
  std::vector<std::byte> bytes(sizeof(Head) + 2 * block);
  std::memcpy(bytes.data(), &head, sizeof(Head));
  std::memcpy(bytes.data() + sizeof(Head), state.mean.data(), block);
  std::memcpy(bytes.data() + sizeof(Head) + block, state.square.data(), block);
  return bytes;
}

OptimizerState unpack_optimizer(const TrainerOptions& options, std::span<const std::byte> bytes,
                                std::size_t parameters) {
  const std::size_t block = parameters * sizeof(float);
  const std::size_t wanted = sizeof(Head) + 2 * block;
  if (bytes.size() != wanted) {
    throw InputError(
        text("optimiser state of ", bytes.size(), " bytes, wanted ", wanted, " for ", parameters, " parameters"));
  }
  Head head;
  std::memcpy(&head, bytes.data(), sizeof(Head));
  if (head.magic != Head{}.magic || head.parameters != parameters) throw InputError("not a saved optimiser state");
  if (head.kind != kind_of(options)) {
    throw InputError(text("optimiser state of kind ", head.kind, ", wanted ", kind_of(options),
                          " (1 adam, 2 rmsprop, 3 centred rmsprop)"));
  }
  OptimizerState state{.steps = static_cast<std::int64_t>(head.steps), .mean = {}, .square = {}};
  state.mean.resize(parameters);
  state.square.resize(parameters);
  std::memcpy(state.mean.data(), bytes.data() + sizeof(Head), block);
  std::memcpy(state.square.data(), bytes.data() + sizeof(Head) + block, block);
  return state;
}

}  // namespace qanat::nn
