// One move-only type for each thing that CUDA hands out: device, stream, event, memory, captured graph.
//
// Thread safety: one thread at a time. CUDA's current device belongs to the thread: whoever owns these objects calls
// Device::use() before it touches them in a thread that may have used another.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "nn/cuda/check.h"

namespace qanat::nn::cuda {

// A GPU by its number. Copyable: it owns nothing.
class Device {
 public:
  // Throws ConfigError when there is no such GPU, naming how many there are.
  explicit Device(int index);

  void use() const { QANAT_CUDA(cudaSetDevice(index_)); }
  [[nodiscard]] int index() const { return index_; }
  [[nodiscard]] int capability() const { return capability_; }  // 90 for compute capability 9.0
  [[nodiscard]] int multiprocessors() const { return multiprocessors_; }

 private:
  int index_ = 0;
  int capability_ = 0;
  int multiprocessors_ = 0;
};

struct StreamDeleter {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct EventDeleter {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct GraphDeleter {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};

// Does not wait for the legacy default stream.
class Stream {
 public:
  Stream();
  // Stands wherever the library wants its handle.
  operator cudaStream_t() const { return stream_.get(); }  // NOLINT(google-explicit-constructor)
  void synchronize() const { QANAT_CUDA(cudaStreamSynchronize(stream_.get())); }
  // What comes after runs when `event`, as recorded last, has happened.
  void wait(cudaEvent_t event) const { QANAT_CUDA(cudaStreamWaitEvent(stream_.get(), event, 0)); }

 private:
  std::unique_ptr<CUstream_st, StreamDeleter> stream_;
};

class Event {
 public:
  enum class Kind { order, timed };
  explicit Event(Kind kind = Kind::order);
  // Stands wherever the library wants its handle.
  operator cudaEvent_t() const { return event_.get(); }  // NOLINT(google-explicit-constructor)
  void record(cudaStream_t stream) const { QANAT_CUDA(cudaEventRecord(event_.get(), stream)); }
  void synchronize() const { QANAT_CUDA(cudaEventSynchronize(event_.get())); }
  // Milliseconds from `start` to this one; both are timed and have happened.
  [[nodiscard]] float since(const Event& start) const;

 private:
  std::unique_ptr<CUevent_st, EventDeleter> event_;
};

// Records what `work` puts on a stream (and on streams that it makes wait for it) and replays it.
class Graph {
 public:
  Graph() = default;
  template <class Work>
  static Graph capture(cudaStream_t stream, Work work) {
    // Thread-local: what other threads allocate meanwhile is no business of this capture.
    QANAT_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    cudaGraph_t recorded = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream, &recorded);  // else the stream stays in capture for ever
      if (recorded != nullptr) cudaGraphDestroy(recorded);
      throw;
    }
    QANAT_CUDA(cudaStreamEndCapture(stream, &recorded));
    return Graph(recorded);
  }
  explicit operator bool() const { return graph_ != nullptr; }
  void launch(cudaStream_t stream) const { QANAT_CUDA(cudaGraphLaunch(graph_.get(), stream)); }

 private:
  explicit Graph(cudaGraph_t recorded);  // takes `recorded`
  std::unique_ptr<CUgraphExec_st, GraphDeleter> graph_;
};

// `count` elements in device memory, 256-byte aligned, zero at first.
template <class T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(std::size_t count) : count_(count) {
    if (count == 0) return;
    T* memory = nullptr;
    QANAT_CUDA(cudaMalloc(&memory, count * sizeof(T)));
    memory_.reset(memory);
    QANAT_CUDA(cudaMemset(memory, 0, count * sizeof(T)));
    QANAT_CUDA(cudaDeviceSynchronize());  // non-blocking streams do not wait for the default one
  }
  [[nodiscard]] T* data() const { return memory_.get(); }
  [[nodiscard]] std::size_t size() const { return count_; }

 private:
  struct Free {
    void operator()(T* memory) const { cudaFree(memory); }
  };
  std::unique_ptr<T, Free> memory_;
  std::size_t count_ = 0;
};

// `count` elements of page-locked host memory: copies to and from it are asynchronous.
template <class T>
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  explicit PinnedBuffer(std::size_t count) : count_(count) {
    if (count == 0) return;
    T* memory = nullptr;
    QANAT_CUDA(cudaMallocHost(&memory, count * sizeof(T)));
    memory_.reset(memory);
  }
  [[nodiscard]] T* data() const { return memory_.get(); }
  [[nodiscard]] std::size_t size() const { return count_; }

 private:
  struct Free {
    void operator()(T* memory) const { cudaFreeHost(memory); }
  };
  std::unique_ptr<T, Free> memory_;
  std::size_t count_ = 0;
};

template <class T>
void upload(cudaStream_t stream, T* to, const T* from, std::size_t count) {
  QANAT_CUDA(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyHostToDevice, stream));
}

template <class T>
void download(cudaStream_t stream, T* to, const T* from, std::size_t count) {
  QANAT_CUDA(cudaMemcpyAsync(to, from, count * sizeof(T), cudaMemcpyDeviceToHost, stream));
}

}  // namespace qanat::nn::cuda
