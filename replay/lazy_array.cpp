#include "replay/lazy_array.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "core/error.h"

namespace qanat::replay {

namespace {
// From here on large pages save more in TLB misses (random gathers over gigabytes) than they waste at the end.
constexpr std::size_t large_page_threshold = std::size_t{16} << 20;
}  // namespace

LazyMemory::LazyMemory(std::size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    throw SystemError(text("replay: cannot reserve ", bytes, " bytes: ", std::strerror(errno)));
  }
  data_ = static_cast<std::byte*>(memory);
  // Advice only: a kernel without large pages refuses, and nothing is lost.
  if (bytes >= large_page_threshold) madvise(memory, bytes, MADV_HUGEPAGE);
}

LazyMemory::~LazyMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace qanat::replay
