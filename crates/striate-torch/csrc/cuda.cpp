// Streams and graphs of CUDA. Streams go by the interface that all devices of libtorch share, so that they need nothing of CUDA to be compiled; graphs
// need its headers, and where build.rs found none, they say so.
#include "common.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#ifdef STRIATE_CUDA_GRAPHS
#include <cuda.h>
// The graph's class has another layout with older headers than libtorch was built with.
#if CUDA_VERSION < 12040
#undef STRIATE_CUDA_GRAPHS
#else
#include <ATen/cuda/CUDAGraph.h>
#endif
#endif

#include <map>
#include <mutex>
#include <tuple>

namespace {

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(at::kCUDA); }

c10::Stream& stream_of(st_stream stream) { return *static_cast<c10::Stream*>(stream); }

// What is launched on `waiting` from now on begins when what was launched on `awaited` is done.
void wait_for(const c10::Stream& waiting, const c10::Stream& awaited) {
  c10::Event event(at::kCUDA);
  event.record(awaited);
  event.block(waiting);
}

// The one stream of a device that copies to it go by: libtorch keeps freed memory for each stream apart. Its streams come round again after 32, and what is
// copied must not get onto one that is recorded, so this is one of those of high priority, on which nothing is.
c10::Stream copies_to(c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = streams.find(device.index());
  return found != streams.end() ? found->second : streams.emplace(device.index(), cuda().getStreamFromGlobalPool(device, /*isHighPriority=*/true)).first->second;
}

}  // namespace

char* st_cuda_trouble() {
#ifdef STRIATE_CUDA
  return caught([] {
    if (cuda().deviceCount() > 0) return;
    cuda().getDevice();
    TORCH_CHECK(false, "there is none");
  });
#else
  return nullptr;
#endif
}

char* st_stream_new(int device, st_stream* out) {
  return caught([&] {
    const at::Device place(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    *out = new c10::Stream(cuda().getStreamFromGlobalPool(place));
  });
}

void st_stream_free(st_stream stream) { delete &stream_of(stream); }

char* st_stream_switch(st_stream stream, st_stream* former) {
  return caught([&] {
    const c10::Stream& next = stream_of(stream);
    const c10::Stream current = cuda().getStream(next.device());
    cuda().exchangeStream(next);
    *former = new c10::Stream(current);
    wait_for(next, current);
  });
}

char* st_copy_ahead(int device, st_tensor tensor, st_tensor* out) {
  return caught([&] {
    const c10::Device place(at::kCUDA, static_cast<c10::DeviceIndex>(device));
    c10::StreamGuard guard(copies_to(place));
    const at::Tensor& source = tensor_of(tensor);
    const at::Tensor pinned = source.is_pinned() ? source : source.pin_memory();
    *out = new at::Tensor(pinned.to(place, pinned.scalar_type(), /*non_blocking=*/true));
  });
}

char* st_pinned_bytes(const int64_t* size, size_t dimensions, st_tensor* out) {
  return caught([&] { *out = new at::Tensor(at::empty({size, dimensions}, at::TensorOptions().dtype(at::kByte).pinned_memory(true))); });
}

char* st_await_copy(st_tensor tensor) {
  return caught([&] {
    const at::Tensor& copy = tensor_of(tensor);
    const c10::Stream current = cuda().getStream(copy.device());
    wait_for(current, copies_to(copy.device()));
    // Its memory belongs to the stream of copies, which must not have it again before this one is done with it.
    cuda().recordDataPtrOnStream(copy.storage().data_ptr(), current);
  });
}

#ifdef STRIATE_CUDA_GRAPHS

int st_has_graphs() { return 1; }

void st_graph_pool(uint64_t* pool) { std::tie(pool[0], pool[1]) = at::cuda::graph_pool_handle(); }

char* st_graph_begin(st_stream stream, const uint64_t* pool, st_graph* out) {
  return caught([&] {
    // Recording is of the current stream of the current device, which switching streams does not set.
    const c10::DeviceGuard device(stream_of(stream).device());
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    // Other threads may go on using CUDA meanwhile.
    graph->capture_begin(pool == nullptr ? at::cuda::MempoolId_t{0, 0} : at::cuda::MempoolId_t{pool[0], pool[1]}, cudaStreamCaptureModeThreadLocal);
    *out = graph.release();
  });
}

char* st_graph_end(st_stream stream, st_graph graph) {
  return caught([&] {
    const c10::DeviceGuard device(stream_of(stream).device());
    static_cast<at::cuda::CUDAGraph*>(graph)->capture_end();
  });
}

char* st_graph_replay(st_graph graph) {
  return caught([&] { static_cast<at::cuda::CUDAGraph*>(graph)->replay(); });
}

void st_graph_free(st_graph graph) { delete static_cast<at::cuda::CUDAGraph*>(graph); }

#else

static char* no_graphs() { return strdup("built without CUDA graphs: libtorch is for the CPU alone, or CUDA's headers were not found"); }

int st_has_graphs() { return 0; }
void st_graph_pool(uint64_t* pool) { pool[0] = pool[1] = 0; }
char* st_graph_begin(st_stream, const uint64_t*, st_graph*) { return no_graphs(); }
char* st_graph_end(st_stream, st_graph) { return no_graphs(); }
char* st_graph_replay(st_graph) { return no_graphs(); }
void st_graph_free(st_graph) {}

#endif
