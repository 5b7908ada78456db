// One part of a message: bytes that travel without being copied into an archive.
//
// Owns its bytes (a ZeroMQ message underneath, so small parts live inside and large ones are handed to the
// socket by pointer). Move only. Not thread safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

namespace qanat::wire {

// Bytes of frames that are still in this process's memory. ZeroMQ's threads let them go, hence atomic.
using HeldBytes = std::atomic<std::uint64_t>;

class Frame {
 public:
  Frame();
  explicit Frame(std::size_t bytes);  // contents are not initialised
  // The same; `held`, if it is there, is larger by `bytes` until the frame and all that share its contents are gone: of
  // one that was sent over tcp or ipc, until the system has taken it.
  Frame(std::size_t bytes, std::shared_ptr<HeldBytes> held);
  ~Frame();
  Frame(Frame&& other) noexcept;
  Frame& operator=(Frame&& other) noexcept;

  [[nodiscard]] static Frame copy_of(std::span<const std::byte> bytes);
  template <class T>
  [[nodiscard]] static Frame copy_of(std::span<const T> values) {
    return copy_of(std::as_bytes(values));
  }

  [[nodiscard]] std::span<const std::byte> bytes() const;
  [[nodiscard]] std::span<std::byte> mutable_bytes();
  [[nodiscard]] std::size_t size() const { return bytes().size(); }
  // An equal frame; large contents are shared, not copied, so neither may be written to any more.
  [[nodiscard]] Frame share();

  // XXH3 of the bytes, computed when it is first asked for. Whoever writes to them later calls mutable_bytes() again.
  [[nodiscard]] std::uint64_t checksum() const;
  // Whether the bytes are those that were sent; true for a frame that came from no socket.
  [[nodiscard]] bool intact() const { return !sent_checksum_ || checksum() == *sent_checksum_; }

  // For the socket factory only: the zmq_msg_t inside, and the checksum that arrived with it.
  [[nodiscard]] void* native() { return storage_; }
  void set_sent_checksum(std::uint64_t checksum) { sent_checksum_ = checksum; }

 private:
  alignas(std::max_align_t) mutable std::byte storage_[64];
  mutable std::optional<std::uint64_t> checksum_;
  std::optional<std::uint64_t> sent_checksum_;
};

}  // namespace qanat::wire
