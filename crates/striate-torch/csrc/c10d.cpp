// PyTorch's distributed engine, c10d: the store, process groups, and DDP's Reducer. It is inside libtorch; gloo/ declares what its headers
// include and libtorch does not ship.
#include "common.h"

#include <c10/util/Logging.h>
#include <c10/util/intrusive_ptr.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/reducer.hpp>
#ifdef STRIATE_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace {

using Group = c10::intrusive_ptr<c10d::ProcessGroup>;
using std::chrono::milliseconds;

// The server beside the view of it under a prefix.
struct Store {
  c10::intrusive_ptr<c10d::TCPStore> tcp;
  c10::intrusive_ptr<c10d::Store> prefixed;
};

c10d::Store& store_of(st_store store) { return *static_cast<Store*>(store)->prefixed; }

Group& group_of(st_group group) { return *static_cast<Group*>(group); }

std::vector<uint8_t> bytes_of(const uint8_t* data, size_t len) { return std::vector<uint8_t>(data, data + len); }

// Sends gradients in a half type: the mean is taken before, so that sums do not overflow.
class HalfHook : public c10d::CppCommHookInterface<Group> {
 public:
  HalfHook(const Group& group, at::ScalarType kind) : CppCommHookInterface(group), kind_(kind) {}

  c10::intrusive_ptr<c10::ivalue::Future> runHook(c10d::GradBucket& bucket) override {
    at::Tensor buffer = bucket.getBufferRef();
    std::vector<at::Tensor> sent = {buffer.div(state_->getSize()).to(kind_)};
    auto future = state_->allreduce(sent)->getFuture();
    return future->then(
        [buffer](c10::ivalue::Future& done) {
          at::NoGradGuard no_grad;
          buffer.copy_(done.value().toTensorVector().at(0));
          return c10::IValue(std::vector<at::Tensor>{buffer});
        },
        future->elementType());
  }

 private:
  at::ScalarType kind_;
};

// PyTorch's, whose buckets stay as they are made. There they are made anew after the first step, in the order in which gradients came, and
// a sum over a bucket then has its rounding in other places than after a restart.
class Reducer : public c10d::Reducer {
 public:
  using c10d::Reducer::Reducer;
  void keep_buckets() { has_rebuilt_bucket_ = true; }
};

std::shared_ptr<Reducer>& reducer_of(st_reducer reducer) { return *static_cast<std::shared_ptr<Reducer>*>(reducer); }

// Buckets in the order in which gradients come: that of the parameters, backwards. The first is small, so that sending begins early.
std::vector<std::vector<size_t>> buckets_of(const std::vector<at::Tensor>& params, size_t first, size_t others) {
  const std::vector<at::Tensor> backwards(params.rbegin(), params.rend());
  auto buckets = std::get<0>(c10d::compute_bucket_assignment_by_size(backwards, {first, others}));
  for (auto& bucket : buckets) {
    for (size_t& index : bucket) index = params.size() - 1 - index;
  }
  return buckets;
}

}  // namespace

char* st_store_new(const char* host, uint16_t port, int listener, int64_t timeout, const char* prefix, st_store* out) {
  return caught([&] {
    c10d::TCPStoreOptions options;
    options.port = port;
    options.isServer = listener >= 0;
    if (listener >= 0) options.masterListenFd = listener;
    options.waitWorkers = false;
    options.timeout = milliseconds(timeout);
    auto tcp = c10::make_intrusive<c10d::TCPStore>(host, options);
    *out = new Store{tcp, c10::make_intrusive<c10d::PrefixStore>(prefix, tcp)};
  });
}

void st_store_free(st_store store) { delete static_cast<Store*>(store); }

char* st_store_set(st_store store, const char* key, const uint8_t* data, size_t len) {
  return caught([&] { store_of(store).set(key, bytes_of(data, len)); });
}

char* st_store_get(st_store store, const char* key, int64_t timeout, uint8_t** data, size_t* len) {
  return caught([&] {
    store_of(store).wait({key}, milliseconds(timeout));
    const std::vector<uint8_t> value = store_of(store).get(key);
    *data = static_cast<uint8_t*>(malloc(value.size() + 1));
    *len = value.size();
    std::copy(value.begin(), value.end(), *data);
  });
}

void st_store_free_value(uint8_t* data) { free(data); }

char* st_store_has(st_store store, const char* key, int* out) {
  return caught([&] { *out = store_of(store).check({key}); });
}

char* st_store_add(st_store store, const char* key, int64_t value, int64_t* out) {
  return caught([&] { *out = store_of(store).add(key, value); });
}

void st_c10d_quiet() { FLAGS_caffe2_log_level = 3; }

int st_has_nccl() {
#ifdef STRIATE_NCCL
  return 1;
#else
  return 0;
#endif
}

char* st_group_new(st_store store, int nccl, int rank, int size, int64_t timeout, const char* host, const char* name, st_group* out) {
  return caught([&] {
    // One store for each group, or the keys of one would be those of the other.
    auto own = c10::make_intrusive<c10d::PrefixStore>(name, static_cast<Store*>(store)->prefixed);
    auto group = c10::make_intrusive<c10d::ProcessGroup>(own, rank, size);
    const auto set = [&](c10::DeviceType device, c10d::ProcessGroup::BackendType type, const c10::intrusive_ptr<c10d::Backend>& backend) {
      group->setBackend(device, type, backend);
    };
    if (nccl) {
#ifdef STRIATE_NCCL
      auto options = c10d::ProcessGroupNCCL::Options::create();
      options->timeout = milliseconds(timeout);
      auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(own, rank, size, options);
      set(c10::kCUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
      group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
#else
      TORCH_CHECK(false, "this libtorch has no NCCL");
#endif
    } else {
      auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout));
      options->devices.push_back(host == nullptr ? c10d::ProcessGroupGloo::createDefaultDevice() : c10d::ProcessGroupGloo::createDeviceForHostname(host));
      auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(own, rank, size, options);
      for (const auto device : {c10::kCPU, c10::kCUDA}) set(device, c10d::ProcessGroup::BackendType::GLOO, backend);
      group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
    }
    group->setGroupName(name);
    *out = new Group(std::move(group));
  });
}

void st_group_free(st_group group) { delete static_cast<Group*>(group); }

char* st_group_all_reduce(st_group group, st_tensor tensor) {
  return caught([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors = {tensor_of(tensor)};
    group_of(group)->allreduce(tensors)->wait();
  });
}

char* st_group_broadcast(st_group group, st_tensor tensor, int root) {
  return caught([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> tensors = {tensor_of(tensor)};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group_of(group)->broadcast(tensors, options)->wait();
  });
}

char* st_group_all_gather(st_group group, st_tensor tensor, const st_tensor* out) {
  return caught([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> inputs = {tensor_of(tensor)};
    std::vector<std::vector<at::Tensor>> outputs = {list_of(out, group_of(group)->getSize())};
    group_of(group)->allgather(outputs, inputs)->wait();
  });
}

char* st_reducer_new(st_group group, const st_tensor* params, size_t n, size_t first_bucket, size_t bucket, int find_unused, int static_graph, int half,
                     st_reducer* out) {
  return caught([&] {
    std::vector<at::Tensor> list = list_of(params, n);
    auto buckets = buckets_of(list, first_bucket, bucket);
    auto reducer = std::make_shared<Reducer>(std::move(list), std::move(buckets), group_of(group), std::vector<bool>(n, false), bucket, find_unused != 0,
                                             /*gradient_as_bucket_view=*/true, std::unordered_map<size_t, std::string>(), first_bucket,
                                             /*skip_all_reduce_unused_params=*/false, /*use_python_reducer=*/false, std::vector<int64_t>());
    reducer->keep_buckets();
    if (static_graph) reducer->set_static_graph();
    if (half >= 0) reducer->register_comm_hook(std::make_unique<HalfHook>(group_of(group), static_cast<at::ScalarType>(half)));
    *out = new std::shared_ptr<Reducer>(std::move(reducer));
  });
}

void st_reducer_free(st_reducer reducer) {
  reducer_of(reducer)->remove_autograd_hooks();
  delete static_cast<std::shared_ptr<Reducer>*>(reducer);
}

char* st_reducer_prepare(st_reducer reducer, const st_tensor* outputs, size_t n) {
  return caught([&] { reducer_of(reducer)->prepare_for_backward(list_of(outputs, n)); });
}
