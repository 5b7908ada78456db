#include "nn/cuda/gemm.h"

#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "core/error.h"
#include "nn/cuda/timing.h"

namespace qanat::nn::cuda {
namespace {

struct DescDeleter {
  void operator()(cublasLtMatmulDesc_t desc) const { cublasLtMatmulDescDestroy(desc); }
};
struct LayoutDeleter {
  void operator()(cublasLtMatrixLayout_t layout) const { cublasLtMatrixLayoutDestroy(layout); }
};
struct PreferenceDeleter {
  void operator()(cublasLtMatmulPreference_t preference) const { cublasLtMatmulPreferenceDestroy(preference); }
};

cublasLtEpilogue_t library_epilogue(Epilogue epilogue) {
  switch (epilogue) {
    case Epilogue::none:
      return CUBLASLT_EPILOGUE_DEFAULT;
    case Epilogue::bias:
      return CUBLASLT_EPILOGUE_BIAS;
    case Epilogue::bias_relu:
      return CUBLASLT_EPILOGUE_RELU_BIAS;
    case Epilogue::column_sums:
      return CUBLASLT_EPILOGUE_BGRADA;
  }
  return CUBLASLT_EPILOGUE_DEFAULT;
}

bool has_bias(Epilogue e) { return e != Epilogue::none; }

// The library counts columns first: row-major D = A B is its D' = B' A', so its first operand is our B.
class Call {
 public:
  explicit Call(const GemmShape& s) {
    cublasLtMatmulDesc_t desc = nullptr;
    QANAT_CUDA(cublasLtMatmulDescCreate(
        &desc, s.in == CUDA_R_32F && s.tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    desc_.reset(desc);
    const cublasOperation_t first = s.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = s.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, first);
    set(CUBLASLT_MATMUL_DESC_TRANSB, second);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, library_epilogue(s.epilogue));
    if (has_bias(s.epilogue)) set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, s.bias);
    b_ = layout(s.in, s.b_transposed ? s.k : s.n, s.b_transposed ? s.n : s.k, s.b_row);
    a_ = layout(s.in, s.a_transposed ? s.m : s.k, s.a_transposed ? s.k : s.m, s.a_row);
    d_ = layout(s.out, s.n, s.m, s.d_row);
  }

  void set_bias(const GemmShape& s, void* bias) {
    if (has_bias(s.epilogue)) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }

  cublasStatus_t run(const Blas& blas, cudaStream_t stream, const cublasLtMatmulAlgo_t& algorithm, const GemmShape& s,
                     const void* a, const void* b, void* d) const {
    const float one = 1;
    const float beta = s.accumulate ? 1 : 0;
    return cublasLtMatmul(blas, desc_.get(), &one, b, b_.get(), a, a_.get(), &beta, d, d_.get(), d, d_.get(),
                          &algorithm, blas.workspace(), Blas::workspace_bytes, stream);
  }

  std::vector<cublasLtMatmulHeuristicResult_t> proposals(const Blas& blas) const {
    cublasLtMatmulPreference_t made = nullptr;
    QANAT_CUDA(cublasLtMatmulPreferenceCreate(&made));
    const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t, PreferenceDeleter> preference(made);
    const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t what, const auto& value) {
      QANAT_CUDA(cublasLtMatmulPreferenceSetAttribute(made, what, &value, sizeof(value)));
    };
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, Blas::workspace_bytes);
    // Splitting k is summed up in f32 in a fixed order: deterministic, and no rounding to bf16 in between.
    const std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, reductions);
    const std::uint32_t alignment = 16;
    for (const auto what : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                            CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      prefer(what, alignment);
    }
    std::vector<cublasLtMatmulHeuristicResult_t> found(12);
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(blas, desc_.get(), b_.get(), a_.get(), d_.get(), d_.get(), preference.get(),
                                       static_cast<int>(found.size()), found.data(), &count);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED)
      count = 0;
    else
      check(status, "cublasLtMatmulAlgoGetHeuristic");
    found.resize(static_cast<std::size_t>(count));
    return found;
  }

 private:
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, LayoutDeleter>;

  template <class T>
  void set(cublasLtMatmulDescAttributes_t what, const T& value) {
    QANAT_CUDA(cublasLtMatmulDescSetAttribute(desc_.get(), what, &value, sizeof(value)));
  }
  static Layout layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t step) {
    cublasLtMatrixLayout_t made = nullptr;
    QANAT_CUDA(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), step));
    return Layout(made);
  }

  std::unique_ptr<cublasLtMatmulDescOpaque_t, DescDeleter> desc_;
  Layout a_, b_, d_;
};

std::size_t bytes_of(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : 2; }

std::string describe(const GemmShape& s) {
  return text("a product of [", s.m, ", ", s.k, "] and [", s.k, ", ", s.n, "], operands of type ",
              static_cast<int>(s.in), ", result ", static_cast<int>(s.out), ", epilogue ",
              static_cast<int>(s.epilogue));
}

// Of the library's proposals; nothing when none runs.
std::optional<cublasLtMatmulAlgo_t> fastest(const Blas& blas, cudaStream_t stream, const GemmShape& s) {
  Call call(s);
  const auto proposals = call.proposals(blas);
  if (proposals.empty()) return std::nullopt;
  const auto rows = [](std::int64_t outer, std::int64_t step) { return static_cast<std::size_t>(outer * step); };
  const DeviceBuffer<std::byte> a(rows(s.a_transposed ? s.k : s.m, s.a_row) * bytes_of(s.in));
  const DeviceBuffer<std::byte> b(rows(s.b_transposed ? s.n : s.k, s.b_row) * bytes_of(s.in));
  const DeviceBuffer<std::byte> d(rows(s.m, s.d_row) * bytes_of(s.out));
  const DeviceBuffer<std::byte> bias(static_cast<std::size_t>(s.n) * 4);
  call.set_bias(s, bias.data());
  const cublasLtMatmulAlgo_t* best = nullptr;
  float best_time = 0;
  for (const auto& proposal : proposals) {
    if (proposal.state != CUBLAS_STATUS_SUCCESS) continue;
    const auto time = time_launches(stream, [&] {
      return call.run(blas, stream, proposal.algo, s, a.data(), b.data(), d.data()) == CUBLAS_STATUS_SUCCESS;
    });
    if (!time || (best != nullptr && *time >= best_time)) continue;
    best = &proposal.algo;
    best_time = *time;
  }
  if (best == nullptr) return std::nullopt;
  return *best;
}

auto key_of(const GemmShape& s) {
  return std::tuple(s.m, s.n, s.k, s.a_row, s.b_row, s.d_row, s.a_transposed, s.b_transposed, static_cast<int>(s.in),
                    static_cast<int>(s.out), s.tf32, s.epilogue, static_cast<int>(s.bias), s.accumulate);
}

// One choice a shape and process: timings differ from run to run, and with them the order of sums.
class Choices {
 public:
  std::optional<cublasLtMatmulAlgo_t> of(const Blas& blas, cudaStream_t stream, const GemmShape& shape) {
    int device = 0;
    QANAT_CUDA(cudaGetDevice(&device));
    const std::lock_guard lock(mutex_);
    const auto key = std::pair(device, key_of(shape));
    const auto known = chosen_.find(key);
    if (known != chosen_.end()) return known->second;
    return chosen_.emplace(key, fastest(blas, stream, shape)).first->second;
  }

 private:
  std::mutex mutex_;
  std::map<std::pair<int, decltype(key_of(GemmShape{}))>, std::optional<cublasLtMatmulAlgo_t>>
      chosen_;  // guarded by mutex_
};

}  // namespace

Blas::Blas() : workspace_(workspace_bytes) {
  cublasLtHandle_t handle = nullptr;
  QANAT_CUDA(cublasLtCreate(&handle));
  handle_.reset(handle);
}

std::optional<Gemm> Gemm::plan(const Blas& blas, cudaStream_t stream, const GemmShape& shape) {
  static Choices choices;
  const auto algorithm = choices.of(blas, stream, shape);
  if (!algorithm) return std::nullopt;
  return Gemm(shape, *algorithm);
}

Gemm::Gemm(const Blas& blas, cudaStream_t stream, const GemmShape& shape) : shape_(shape) {
  const auto planned = plan(blas, stream, shape);
  if (!planned) throw SystemError(text("cuBLASLt has no algorithm for ", describe(shape)));
  algorithm_ = planned->algorithm_;
}

void Gemm::run(const Blas& blas, cudaStream_t stream, const void* a, const void* b, void* d, void* bias) const {
  Call call(shape_);
  call.set_bias(shape_, bias);
  check(call.run(blas, stream, algorithm_, shape_, a, b, d), "cublasLtMatmul");
}

}  // namespace qanat::nn::cuda
