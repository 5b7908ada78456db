// While one lives, numbers below the normal range count as zero on this thread. An optimiser's moments of a unit that
// fell silent decay through that range for hundreds of updates, and each operation there costs a hundred others.
//
// Not copyable; restores what was set before. On processors without the switch it does nothing.
#pragma once

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace qanat::nn {

class FlushDenormals {
 public:
#if defined(__SSE__)
  FlushDenormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | flush_results | flush_operands); }
  ~FlushDenormals() { _mm_setcsr(before_); }

 private:
  static constexpr unsigned flush_results = 0x8000;
  static constexpr unsigned flush_operands = 0x0040;
  unsigned before_;

 public:
#else
  FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;
};

}  // namespace qanat::nn
