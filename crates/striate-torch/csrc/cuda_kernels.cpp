// Our kernels for NVIDIA GPUs: loaded and launched by the driver, which is opened at first use, so that programs run and compile without it.
#include "cuda_kernels.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>

namespace {

// Of <cuda.h>, which need not be there.
class Driver {
 public:
  int (*get_device)(int*, int);
  int (*get_attribute)(int*, int, int);
  int (*retain_context)(void**, int);
  int (*get_context)(void**);
  int (*set_context)(void*);
  int (*load)(void**, const void*);
  int (*get_function)(void**, void*, const char*);
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);

  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

  void check(int result, const char* what) const {
    if (result == 0) return;
    const char* name = nullptr;
    get_name_(result, &name);
    throw std::runtime_error(std::string(what) + ": " + (name != nullptr ? name : "an unknown error") + " (" + std::to_string(result) + ")");
  }

 private:
  int (*initialise_)(unsigned);
  int (*get_name_)(int, const char**);

  Driver() {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == nullptr) throw std::runtime_error("NVIDIA's driver (libcuda.so.1) is not there");
    const auto find = [&](const char* name, auto& function) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      if (function == nullptr) throw std::runtime_error(std::string("NVIDIA's driver is too old: it has no ") + name);
    };
    find("cuInit", initialise_);
    find("cuGetErrorName", get_name_);
    find("cuDeviceGet", get_device);
    find("cuDeviceGetAttribute", get_attribute);
    find("cuDevicePrimaryCtxRetain", retain_context);
    find("cuCtxGetCurrent", get_context);
    find("cuCtxSetCurrent", set_context);
    find("cuModuleLoadData", load);
    find("cuModuleGetFunction", get_function);
    find("cuLaunchKernel", launch);
    check(initialise_(0), "NVIDIA's driver cannot be used");
  }
};

int attribute(int number, int which) {
  const Driver& driver = Driver::get();
  int device = 0, value = 0;
  driver.check(driver.get_device(&device, number), "there is no such CUDA device");
  driver.check(driver.get_attribute(&value, which, device), "the driver does not describe the device");
  return value;
}

constexpr int kMultiprocessors = 16, kCapabilityMajor = 75, kCapabilityMinor = 76;

// While it lives, the device's context is this thread's: threads of the autograd engine may have none yet.
class InContext {
 public:
  InContext(const Driver& driver, void* context) : driver_(driver) {
    driver_.check(driver_.get_context(&former_), "the driver has no context");
    if (former_ == context) return;
    driver_.check(driver_.set_context(context), "the context of the device cannot be used");
    changed_ = true;
  }
  ~InContext() {
    if (changed_ && former_ != nullptr) driver_.set_context(former_);
  }
  InContext(const InContext&) = delete;
  InContext& operator=(const InContext&) = delete;

 private:
  const Driver& driver_;
  void* former_ = nullptr;
  bool changed_ = false;
};

class CudaCard : public Card {
 public:
  CudaCard(int number, const void* program) : device_(at::kCUDA, static_cast<c10::DeviceIndex>(number)), multiprocessors_(attribute(number, kMultiprocessors)) {
    int device = 0;
    driver_.check(driver_.get_device(&device, number), "there is no such CUDA device");
    driver_.check(driver_.retain_context(&context_, device), "the device has no context");
    const InContext in_context(driver_, context_);
    void* module = nullptr;
    driver_.check(driver_.load(&module, program), "NVIDIA's driver does not take the kernels, perhaps since it is older than NVRTC");
    for (int i = 0; i < kKernels; ++i) driver_.check(driver_.get_function(&functions_[i], module, kKernelNames[i]), kKernelNames[i]);
  }

  int multiprocessors() const override { return multiprocessors_; }

  void launch(const Launch& launch) const override {
    const InContext in_context(driver_, context_);
    // The driver only reads them.
    void* parameters[] = {const_cast<void*>(launch.parameters)};
    void* stream = c10::impl::VirtualGuardImpl(at::kCUDA).getStream(device_).native_handle();
    driver_.check(driver_.launch(functions_[static_cast<int>(launch.kernel)], launch.blocks[0], launch.blocks[1], 1, launch.threads[0], launch.threads[1], 1,
                                 launch.shared, stream, parameters, nullptr),
                  kKernelNames[static_cast<int>(launch.kernel)]);
  }

 private:
  const Driver& driver_ = Driver::get();
  const c10::Device device_;
  const int multiprocessors_;
  void* context_ = nullptr;
  void* functions_[kKernels] = {};
};

// The kernels on the CPU, for tests (cuda/host.cpp).
class HostCard : public Card {
 public:
  HostCard(st_host_launch launch, int element) : launch_(launch), element_(element) {}
  int multiprocessors() const override { return 3; }
  void launch(const Launch& launch) const override { launch_(element_, &launch); }

 private:
  st_host_launch launch_;
  int element_;
};

constexpr int kElements = 3;

// STRIATE_ELEMENT of kernels.cu.
int element_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return 0;
    case at::kBFloat16: return 1;
    case at::kHalf: return 2;
    default: return -1;
  }
}

struct Cards {
  std::mutex mutex;
  std::map<std::pair<int, int>, std::unique_ptr<Card>> of;  // device and element
};

// Never freed: streams may run when the program ends.
Cards& cards() {
  static Cards& cards = *new Cards;
  return cards;
}

thread_local std::vector<HostCard> host_cards;

}  // namespace

const Card* card_of(const at::Tensor& tensor) {
  const int element = element_of(tensor);
  if (element < 0) return nullptr;
  if (tensor.is_cpu()) return host_cards.empty() ? nullptr : &host_cards[element];
  if (!tensor.is_cuda()) return nullptr;
  const std::lock_guard<std::mutex> lock(cards().mutex);
  const auto found = cards().of.find({tensor.device().index(), element});
  return found != cards().of.end() ? found->second.get() : nullptr;
}

char* st_cuda_capability(int device, int* out) {
  return caught([&] { *out = 10 * attribute(device, kCapabilityMajor) + attribute(device, kCapabilityMinor); });
}

char* st_cuda_load(int device, int element, const void* program) {
  return caught([&] {
    auto card = std::make_unique<CudaCard>(device, program);
    const std::lock_guard<std::mutex> lock(cards().mutex);
    cards().of[{device, element}] = std::move(card);
  });
}

void st_host_kernels(st_host_launch launch) {
  host_cards.clear();
  for (int element = 0; launch != nullptr && element < kElements; ++element) host_cards.emplace_back(launch, element);
}
