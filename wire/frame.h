// One part of a message: bytes that travel without being copied into an archive.
//
// Owns its bytes (a ZeroMQ message underneath, so small parts live inside and large ones are handed to the
// socket by pointer). Move only. Not thread safe.
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string_view>

namespace qanat::wire {

class Frame {
 public:
  Frame();
  explicit Frame(std::size_t bytes);  // contents are not initialised
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

  // The zmq_msg_t inside; for the socket factory only.
  [[nodiscard]] void* native() { return storage_; }

 private:
  alignas(std::max_align_t) mutable std::byte storage_[64];
};

}  // namespace qanat::wire
