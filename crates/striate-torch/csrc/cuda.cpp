// Streams and graphs of CUDA. Streams go by the interface that all devices of libtorch share, so that they need nothing of CUDA to be compiled; graphs
// need its headers, and where build.rs found none, they say so.
#include "common.h"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#ifdef STRIATE_CUDA_GRAPHS
#include <ATen/cuda/CUDAGraph.h>
#endif

namespace {

c10::impl::VirtualGuardImpl cuda() { return c10::impl::VirtualGuardImpl(at::kCUDA); }

c10::Stream& stream_of(st_stream stream) { return *static_cast<c10::Stream*>(stream); }

// What is launched on `waiting` from now on begins when what was launched on `awaited` is done.
void wait_for(const c10::Stream& waiting, const c10::Stream& awaited) {
  c10::Event event(at::kCUDA);
  event.record(awaited);
  event.block(waiting);
}

}  // namespace

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
    wait_for(next, current);
    cuda().exchangeStream(next);
    *former = new c10::Stream(current);
  });
}

char* st_copy_ahead(st_stream stream, st_tensor tensor, st_tensor* out) {
  return caught([&] {
    c10::StreamGuard guard(stream_of(stream));
    const at::Tensor pinned = tensor_of(tensor).pin_memory();
    *out = new at::Tensor(pinned.to(stream_of(stream).device(), pinned.scalar_type(), /*non_blocking=*/true));
  });
}

char* st_await_copies(st_stream stream, const st_tensor* tensors, size_t n) {
  return caught([&] {
    const c10::Stream& copies = stream_of(stream);
    const c10::Stream current = cuda().getStream(copies.device());
    wait_for(current, copies);
    // Their memory belongs to the stream of copies, which must not have it again before this one is done with it.
    for (size_t i = 0; i < n; ++i) cuda().recordDataPtrOnStream(tensor_of(tensors[i]).storage().data_ptr(), current);
  });
}

#ifdef STRIATE_CUDA_GRAPHS

char* st_graph_begin(st_graph* out) {
  return caught([&] {
    auto graph = std::make_unique<at::cuda::CUDAGraph>();
    graph->capture_begin();
    *out = graph.release();
  });
}

char* st_graph_end(st_graph graph) {
  return caught([&] { static_cast<at::cuda::CUDAGraph*>(graph)->capture_end(); });
}

char* st_graph_replay(st_graph graph) {
  return caught([&] { static_cast<at::cuda::CUDAGraph*>(graph)->replay(); });
}

void st_graph_free(st_graph graph) { delete static_cast<at::cuda::CUDAGraph*>(graph); }

#else

static char* no_graphs() { return strdup("built without CUDA graphs: libtorch is for the CPU alone, or CUDA's headers were not found"); }

char* st_graph_begin(st_graph*) { return no_graphs(); }
char* st_graph_end(st_graph) { return no_graphs(); }
char* st_graph_replay(st_graph) { return no_graphs(); }
void st_graph_free(st_graph) {}

#endif
