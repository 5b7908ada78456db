#include "replay/lazy_array.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "core/error.h"

namespace qanat::replay {

namespace {
constexpr std::size_t large_page = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t bytes) { return (bytes + large_page - 1) / large_page * large_page; }

// Half a large page and more fill whole ones: draws look up items anywhere, and TLB misses cost more than the rest of a
// last page.
constexpr bool is_large(std::size_t bytes) { return bytes >= large_page / 2; }

constexpr std::size_t mapped(std::size_t bytes) { return is_large(bytes) ? round_up(bytes) : bytes; }

std::byte* map(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw SystemError(text("replay: cannot reserve ", bytes, " bytes: ", std::strerror(errno)));
  }
  return static_cast<std::byte*>(memory);
}

// A mapping that begins where a large page may.
std::byte* map_large(std::size_t bytes) {
  std::byte* memory = map(bytes + large_page);
  const std::size_t before =
      round_up(reinterpret_cast<std::uintptr_t>(memory)) - reinterpret_cast<std::uintptr_t>(memory);
  if (before > 0) munmap(memory, before);
  if (before < large_page) munmap(memory + before + bytes, large_page - before);
  // Advice only: a kernel without large pages refuses, and nothing is lost.
  madvise(memory + before, bytes, MADV_HUGEPAGE);
  return memory + before;
}

}  // namespace

LazyMemory::LazyMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes > 0) data_ = is_large(bytes) ? map_large(mapped(bytes)) : map(bytes);
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) munmap(data_, mapped(bytes_));
}

}  // namespace qanat::replay
