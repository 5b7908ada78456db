// What Qanat and the process that hosts an environment say to each other.
//
// Three descriptors are inherited by the child: a memory file (memfd; it does not count against /dev/shm), a pipe to
// it and a pipe from it. Set-up goes through the pipes as messages, a u64 length and as many bytes:
//
//   child <- Request: what to make, as named strings
//   child -> an empty message for each environment of several that is made: each has the time limit for itself
//   child -> Description: the environment's spec, or why there is none
//   child <- Layout: where each buffer lies in the memory file, which by now has its final size (sealed: the child
//            cannot shrink it, so that no read of ours can fault)
//   child -> one byte: it has mapped the file
//
// From then on a call is: arguments and the call's number in the control block, one byte to the child; results in the
// buffers, the number back, one byte from the child. The bytes order memory: whoever has read one sees all that the
// other wrote before. Looking first whether one is there ("spinning", on a number
// that is written after the byte: before it, the look would succeed and the read still sleep) only saves the sleep.
//
// Every byte from the child is hostile. Lengths, kinds and extents are checked here; values (flags, rewards,
// observations) by who copies them out of the buffers and by VectorEnv. python/qanat_env_host/protocol.py is the other
// implementation of the child's side; both name the same version.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "envs/env_handle.h"
#include "envs/vector_env.h"

namespace qanat::envs::host {

inline constexpr std::uint64_t protocol_magic = 0x74736f6874616e71;  // "qnathost" in memory
inline constexpr std::uint32_t protocol_version = 2;
inline constexpr std::size_t max_message_bytes = 1 << 20;
inline constexpr std::uint64_t max_shared_bytes = std::uint64_t{16} << 30;
// Room for one snapshot or picture. The file is sparse: what is not used costs nothing.
inline constexpr std::uint64_t scratch_bytes = std::uint64_t{64} << 20;

enum class Command : std::uint32_t { reset = 1, step = 2, snapshot = 3, restore = 4, render = 5, close = 6 };
// What the child is at within a call: a step may begin episodes, and that is timed as a reset.
enum class Phase : std::uint32_t { in_call = 0, in_reset = 1 };

// The first page of the memory file. Each side writes its own cache lines only.
struct Control {
  static constexpr std::size_t error_bytes = 3072;
  static constexpr std::size_t note_bytes = 768;
  // written by Qanat
  alignas(64) std::atomic<std::uint32_t> request;
  std::uint32_t command;
  std::uint64_t slot;               // snapshot, restore, render
  std::uint64_t size;               // restore: bytes in the scratch area
  std::uint32_t some;               // reset: 1 when only the slots marked in `which`
  std::uint32_t think_ns;           // from the last answer to this call: whether the next one is worth spinning for
  std::atomic<std::uint32_t> rung;  // the call's number again, once its byte is in the pipe
  // written by the child
  alignas(64) std::atomic<std::uint32_t> response;
  std::uint32_t failed;      // 0 or 1; then `error` holds why
  std::int64_t error_slot;   // -1: no single slot
  std::uint64_t error_size;  // bytes of UTF-8 in `error`
  std::uint64_t result_size;
  std::int32_t height, width;
  std::uint32_t work_ns;                           // what this call took the child, its waking up apart
  std::atomic<std::uint32_t> answered;             // the number again, once the byte is in the pipe
  std::uint32_t note_size;                         // bytes of UTF-8 in `note`; 0: there is none
  alignas(64) std::atomic<std::int64_t> progress;  // the slot being worked on; -1: none in particular
  std::atomic<std::uint32_t> phase;                // a Phase
  alignas(64) std::array<char, error_bytes> error;
  std::array<char, note_bytes> note;  // what is taken although it was not as it should be, said once
};
// As python/qanat_env_host/protocol.py has them.
static_assert(offsetof(Control, some) == 24 && offsetof(Control, think_ns) == 28 && offsetof(Control, rung) == 32 &&
              offsetof(Control, work_ns) == 104 && offsetof(Control, answered) == 108 &&
              offsetof(Control, response) == 64 && offsetof(Control, height) == 96 &&
              offsetof(Control, note_size) == 112 && offsetof(Control, progress) == 128 &&
              offsetof(Control, phase) == 136 && offsetof(Control, error) == 192 && offsetof(Control, note) == 3264);
inline constexpr std::uint64_t control_bytes = 4096;
static_assert(sizeof(Control) <= control_bytes && std::atomic<std::uint32_t>::is_always_lock_free &&
              std::atomic<std::int64_t>::is_always_lock_free);

// Byte offsets in the memory file, each a multiple of 64. Parts that the environment does not have are empty.
struct Layout {
  std::uint64_t slots = 0;
  std::uint64_t seeds = 0;                                     // u64 [slots]
  std::uint64_t which = 0;                                     // u8 [slots]
  std::uint64_t actions = 0;                                   // i32 or f32 [slots, dims]
  std::uint64_t rewards = 0;                                   // f32 [slots]
  std::uint64_t terminated = 0, truncated = 0, resetting = 0;  // u8 [slots]
  std::uint64_t mask = 0, final_mask = 0;                      // u8 [slots, choices]
  std::uint64_t metrics = 0;                                   // f64 [slots, metrics]
  std::vector<std::uint64_t> observations, final_observations;
  std::uint64_t scratch = 0;
  std::uint64_t total = 0;
};

// A spec with the storage its pointers need.
class OwnedSpec {
 public:
  [[nodiscard]] const qanat_env_spec* get() const { return &spec_; }
  // Points everything at this object's own storage; call after the fields were filled in.
  void link();

  struct Tensor {
    std::string name;
    std::uint32_t dtype = 0;
    std::vector<std::int64_t> shape;
    double low = 0, high = 0;
  };
  std::string id;
  std::vector<Tensor> observations;
  std::uint32_t action_kind = 0;
  std::int64_t action_n = 0;
  std::vector<std::int64_t> nvec;
  std::vector<float> low, high;
  bool has_action_mask = false;
  std::vector<std::string> metrics;
  std::int64_t max_episode_steps = 0;
  bool can_snapshot = false, can_render = false;

 private:
  qanat_env_spec spec_{};
  std::vector<qanat_env_tensor> tensors_;
  std::vector<const char*> metric_names_;
};

using Request = std::map<std::string, std::string>;

struct Description {
  std::string error;  // not empty: there is no environment, and why
  OwnedSpec spec;
  Protocol protocol;
};

// Throws ConfigError when the buffers would not fit in max_shared_bytes.
[[nodiscard]] Layout layout_of(const EnvSpec& spec, std::size_t slots);

[[nodiscard]] std::vector<std::byte> encode(const Request& request);
[[nodiscard]] std::vector<std::byte> encode(const Description& description);
[[nodiscard]] std::vector<std::byte> encode(const Layout& layout);
// Throw InputError when the bytes are not such a message.
[[nodiscard]] Request decode_request(std::span<const std::byte> bytes);
[[nodiscard]] Description decode_description(std::span<const std::byte> bytes, const std::string& from);
[[nodiscard]] Layout decode_layout(std::span<const std::byte> bytes);

// The memory file, mapped. Move only.
class SharedMemory {
 public:
  SharedMemory() = default;
  // Throws SystemError when it cannot be mapped.
  SharedMemory(int file, std::uint64_t bytes);
  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  [[nodiscard]] std::byte* at(std::uint64_t offset) const { return base_ + offset; }
  template <class T>
  [[nodiscard]] T* at(std::uint64_t offset) const {
    return reinterpret_cast<T*>(base_ + offset);
  }
  [[nodiscard]] Control& control() const { return *at<Control>(0); }
  explicit operator bool() const { return base_ != nullptr; }

 private:
  std::byte* base_ = nullptr;
  std::uint64_t bytes_ = 0;
};

}  // namespace qanat::envs::host
