// Memory that stays in the process: an allocator for large tensors, and glibc's settings for everything else.
#include "shim.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <sys/mman.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <mutex>
#include <set>
#include <utility>

namespace {

const size_t PAGE = static_cast<size_t>(sysconf(_SC_PAGESIZE));
// Smaller allocations are left to the former allocator.
constexpr size_t LARGE = size_t{1} << 20;
// A rest that is smaller stays with the block that it would be cut from.
constexpr size_t SMALLEST_REST = size_t{1} << 18;

// By which share the memory that is held may exceed the most that was in use at one time: a fourth. Free blocks never fit exactly.
// With less a step of VGG-16, whose first dense layer's gradient is a fifth of all memory, unmaps and faults in as much each time.
constexpr size_t SLACK = 4;

// Keeps freed blocks, and holds little more memory than was in use at one time: what is kept beyond that and some slack is unmapped
// before anything new is mapped. So keeping costs a fourth of the peak at most, and a step that asks for what the former one asked for faults in nothing.
class WarmAllocator final : public c10::Allocator {
 public:
  explicit WarmAllocator(c10::Allocator* small) : small_(small) {}

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes < LARGE) return small_->allocate(bytes);
    void* start = take((bytes + PAGE - 1) / PAGE * PAGE);
    return {start, start, &WarmAllocator::release, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &WarmAllocator::release; }

  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  // Unmaps all that is free.
  void trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    shed(0);
  }

 private:
  struct Block {
    size_t size;
    bool live;
  };
  using Blocks = std::map<char*, Block>;

  // The former allocator's pointers come here too, by way of raw_deallocate.
  static void release(void* pointer);

  void* take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = free_.lower_bound({size, nullptr});
    if (found == free_.end()) return map(size);
    auto block = blocks_.find(found->second);
    free_.erase(found);
    size_t rest = block->second.size - size;
    if (rest >= SMALLEST_REST) {
      block->second.size = size;
      auto cut = blocks_.emplace(block->first + size, Block{rest, false}).first;
      free_.emplace(rest, cut->first);
    }
    block->second.live = true;
    count(block->second.size);
    return block->first;
  }

  // Of what is free, as much is unmapped first as would otherwise be held beyond the most that was ever live and its slack.
  void* map(size_t size) {
    size_t most = std::max(peak_, live_ + size);
    most += most / SLACK;
    if (mapped_ + size > most) {
      size_t free = mapped_ - live_;
      shed(free - std::min(free, mapped_ + size - most));
    }
    void* start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(start != MAP_FAILED, "not enough memory: you tried to allocate ", size, " bytes");
#ifdef MADV_HUGEPAGE
    madvise(start, size, MADV_HUGEPAGE);  // best effort: fewer faults, and fewer misses of the TLB
#endif
    mapped_ += size;
    blocks_.emplace(static_cast<char*>(start), Block{size, true});
    count(size);
    return start;
  }

  void count(size_t size) {
    live_ += size;
    peak_ = std::max(peak_, live_);
  }

  bool give_back(void* pointer) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto block = blocks_.find(static_cast<char*>(pointer));
    if (block == blocks_.end()) return false;
    live_ -= block->second.size;
    block->second.live = false;
    auto next = std::next(block);
    if (next != blocks_.end()) join(block, next);
    if (block != blocks_.begin()) {
      auto former = std::prev(block);
      if (join(former, block)) block = former;
    }
    free_.emplace(block->second.size, block->first);
    return true;
  }

  // Makes one block of two neighbours that are free; the second is listed as free, and so is the first unless it is just becoming so.
  bool join(Blocks::iterator first, Blocks::iterator second) {
    if (first->second.live || second->second.live || first->first + first->second.size != second->first) return false;
    free_.erase({first->second.size, first->first});
    free_.erase({second->second.size, second->first});
    first->second.size += second->second.size;
    blocks_.erase(second);
    return true;
  }

  // Unmaps free memory, the largest blocks first and of the last one the end, until at most `kept` bytes of it are left.
  void shed(size_t kept) {
    while (mapped_ - live_ > kept && !free_.empty()) {
      size_t excess = mapped_ - live_ - kept;
      auto largest = std::prev(free_.end());
      auto [size, start] = *largest;
      size_t cut = std::min(size, (excess + PAGE - 1) / PAGE * PAGE);
      munmap(start + (size - cut), cut);
      mapped_ -= cut;
      free_.erase(largest);
      if (cut == size) {
        blocks_.erase(start);
      } else {
        blocks_[start].size = size - cut;
        free_.emplace(size - cut, start);
      }
    }
  }

  c10::Allocator* small_;
  std::mutex mutex_;
  Blocks blocks_;                           // all that is mapped, by address
  std::set<std::pair<size_t, char*>> free_;  // those that are free, by size
  size_t mapped_ = 0;
  size_t live_ = 0;
  size_t peak_ = 0;  // the most that was live at one time
};

// Never destroyed: tensors may outlive static objects.
WarmAllocator* warm = nullptr;

void WarmAllocator::release(void* pointer) {
  if (pointer != nullptr && !warm->give_back(pointer)) warm->small_->raw_deallocate(pointer);
}

}  // namespace

void st_keep_memory() {
  warm = new WarmAllocator(c10::GetCPUAllocator());
  c10::SetCPUAllocator(warm, /*priority=*/1);
#ifdef __GLIBC__
  // For the working memory of kernels: no block of any size is mapped on its own, and little is given back.
  mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
#endif
}

void st_release_memory() {
  if (warm != nullptr) warm->trim();
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}
