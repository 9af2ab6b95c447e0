/* memory.cpp: memory of the emulated device, and copies.
 *
 * Owns the blocks (full of NaN, between pages that may not be touched, gone when they are freed) and locked memory of the
 * host. What lies in memory that is not locked is read when the copy is asked for, all else when it is done. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "emulator.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

using namespace emulated;

std::atomic<unsigned long> emulated::memory_version{1};
static std::mutex guard;
static std::atomic<size_t> capacity{(size_t)4 << 30}, in_use; /* with what pools keep */

extern "C" void cuda_emulated_capacity(size_t bytes) { capacity = bytes; }
size_t emulated::memory_capacity() { return capacity; }
size_t emulated::memory_taken() { return in_use; }

static void die(const char *what) {
  fprintf(stderr, "emulated CUDA: %s\n", what);
  abort();
}

#define FENCE 0xA5
#define PAGE ((size_t)4096)
#define MOST_SPOILT ((size_t)64 << 20) /* larger blocks begin as zeros: filling them takes the time of a test */
#define FREED_KEPT 4096

struct block {
  size_t bytes;
  unsigned char *begin, *end; /* of its pages; a page before and a page behind may not be touched */
};
/* No map is ever destroyed: where a test fails, threads may still work while the program ends. */
static std::map<void *, block> &blocks = *new std::map<void *, block>();
struct cuda_pool {
  size_t used, held;
};
static std::map<void *, size_t> &locked = *new std::map<void *, size_t>();
static std::deque<std::pair<void *, size_t>> &freed = *new std::deque<std::pair<void *, size_t>>(); /* addresses that nobody gets again for a while */

static void fault(int signal, siginfo_t *info, void *) {
  const char *kernel = emulated::running_kernel();
  char text[400];
  int n = snprintf(text, sizeof text, "emulated CUDA: %s touches %p, which is not (or no longer) memory of its own\n",
                   kernel ? kernel : "the host", info->si_addr);
  if (write(2, text, (size_t)n) < 0) _exit(3);
  struct sigaction plain = {};
  plain.sa_handler = SIG_DFL;
  sigaction(signal, &plain, nullptr);
}

/* In the place of whoever watches (cmocka, anew for each test): it would go on with the next test on the thread that failed, which has
 * the device. Sanitizers say more than we could. */
static void watch_faults() {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  struct sigaction was;
  if (sigaction(SIGSEGV, nullptr, &was) != 0 || was.sa_sigaction == fault) return;
  struct sigaction mine = {};
  mine.sa_sigaction = fault;
  mine.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &mine, nullptr);
#else
  (void)fault;
#endif
}

extern "C" {

/* The block ends where its pages end, but for what makes it begin at a multiple of 16 bytes. `more`: of the device's memory. */
static cudaError_t take(void **out, size_t bytes, size_t more) { /* under the guard */
  size_t room = (bytes + PAGE - 1) / PAGE * PAGE + (bytes ? 0 : PAGE);
  if (in_use > capacity || more > capacity - in_use) return say(cudaErrorMemoryAllocation);
  unsigned char *at = (unsigned char *)mmap(nullptr, room + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED || mprotect(at + PAGE, room, PROT_READ | PROT_WRITE) != 0) return say(cudaErrorMemoryAllocation);
  watch_faults();
  block b = {bytes, at + PAGE, at + PAGE + room};
  unsigned char *place = b.end - (bytes + 15) / 16 * 16;
  memset(b.begin, FENCE, (size_t)(place - b.begin));
  if (bytes < MOST_SPOILT) memset(place, 0xFF, bytes);
  memset(place + bytes, FENCE, (size_t)(b.end - place) - bytes);
  ASAN_POISON_MEMORY_REGION(b.begin, (size_t)(place - b.begin));
  ASAN_POISON_MEMORY_REGION(place + bytes, (size_t)(b.end - place) - bytes);
  blocks[place] = b;
  memory_begins(place, bytes, false);
  in_use += more;
  *out = place;
  return cudaSuccess;
}

static void check_fences(const unsigned char *at, const block &b) {
  ASAN_UNPOISON_MEMORY_REGION(b.begin, (size_t)(b.end - b.begin));
  for (const unsigned char *p = b.begin; p < b.end; p = p + 1 == at ? at + b.bytes : p + 1)
    if (p >= at && p < at + b.bytes) p = at + b.bytes - 1;
    else if (*p != FENCE) die("a block was written beside its ends");
}

/* Gives back how large it was. */
static size_t give(void *at) {
  std::lock_guard<std::mutex> lock(guard);
  auto found = blocks.find(at);
  if (found == blocks.end()) die("what is freed was not allocated");
  block b = found->second;
  check_fences((unsigned char *)at, b);
  memory_ends(at);
  blocks.erase(found);
  memory_version++;
  size_t room = (size_t)(b.end - b.begin);
  madvise(b.begin, room, MADV_DONTNEED);
  mprotect(b.begin, room, PROT_NONE);
  freed.push_back({b.begin - PAGE, room + 2 * PAGE});
  if (freed.size() > FREED_KEPT) munmap(freed.front().first, freed.front().second), freed.pop_front();
  return b.bytes;
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
  stand_still();
  CALLED();
  UNSAFE_IN_CAPTURE();
  std::lock_guard<std::mutex> lock(guard);
  return take(out, bytes, bytes);
}
/* Waits for the device, as CUDA's does. */
cudaError_t cudaFree(void *at) {
  if (!at) return cudaSuccess;
  UNSAFE_IN_CAPTURE();
  stand_still();
  do_everything();
  size_t bytes = give(at);
  std::lock_guard<std::mutex> lock(guard);
  in_use -= bytes;
  return cudaSuccess;
}

/* Pools: blocks of their own, full of NaN again each time, which go when the stream comes to it. What is given back is kept: it is
 * nobody else's before the pool is trimmed. */
static std::map<void *, cudaMemPool_t> &pooled = *new std::map<void *, cudaMemPool_t>();
static cuda_pool default_pool;
static std::vector<cudaMemPool_t> &pools = *new std::vector<cudaMemPool_t>{&default_pool};

} // extern "C"

size_t emulated::memory_in_use() {
  std::lock_guard<std::mutex> lock(guard);
  size_t bytes = in_use;
  for (cudaMemPool_t pool : pools) bytes -= pool->held - pool->used;
  return bytes;
}

extern "C" {

cudaError_t cudaMallocFromPoolAsync(void **out, size_t bytes, cudaMemPool_t pool, cudaStream_t stream) {
  CALLED();
  cudaError_t error = unsafe_on(known_stream(stream));
  if (error == cudaSuccess) error = unsafe_beside();
  if (error != cudaSuccess) return error;
  std::lock_guard<std::mutex> lock(guard);
  size_t rest = pool->held - pool->used, more = bytes > rest ? bytes - rest : 0;
  error = take(out, bytes, more);
  if (error != cudaSuccess) return error;
  pooled[*out] = pool;
  pool->used += bytes;
  pool->held += more;
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream) {
  return cudaMallocFromPoolAsync(out, bytes, &default_pool, stream);
}
cudaError_t cudaFreeAsync(void *at, cudaStream_t stream) {
  if (!at) return cudaSuccess;
  cudaError_t error = unsafe_beside();
  if (error != cudaSuccess) return error;
  cudaMemPool_t pool;
  {
    std::lock_guard<std::mutex> lock(guard);
    auto found = pooled.find(at);
    if (found == pooled.end()) die("what is given back to the pool is not of the pool");
    pool = found->second;
    pooled.erase(found);
  }
  return submit_always(stream, [=]() {
    size_t bytes = give(at);
    std::lock_guard<std::mutex> lock(guard);
    pool->used -= bytes;
  });
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int) {
  CALLED();
  *out = &default_pool;
  return cudaSuccess;
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t *out, const struct cudaMemPoolProps *props) {
  CALLED();
  if (props->allocType != cudaMemAllocationTypePinned || props->location.type != cudaMemLocationTypeDevice) return say(cudaErrorInvalidValue);
  std::lock_guard<std::mutex> lock(guard);
  pools.push_back(*out = new cuda_pool());
  return cudaSuccess;
}
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool) {
  do_everything();
  cudaMemPoolTrimTo(pool, 0);
  std::lock_guard<std::mutex> lock(guard);
  if (pool->used) return cudaSuccess; /* it goes with its last block */
  pools.erase(std::find(pools.begin(), pools.end(), pool));
  delete pool;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value) {
  std::lock_guard<std::mutex> lock(guard);
  *(unsigned long long *)value = attribute == cudaMemPoolAttrUsedMemCurrent ? pool->used : pool->held;
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep) {
  std::lock_guard<std::mutex> lock(guard);
  size_t held = std::max(pool->used, std::min(pool->held, keep));
  in_use -= pool->held - held;
  pool->held = held;
  return cudaSuccess;
}

} // extern "C"

/* The bytes from `at` lie whole in one piece of the map. */
template <class B> static bool within(const std::map<void *, B> &map, const void *at, size_t bytes, size_t (*size)(const B &)) {
  std::lock_guard<std::mutex> lock(guard);
  auto next = map.upper_bound((void *)(uintptr_t)at);
  if (next == map.begin()) return false;
  --next;
  const unsigned char *begin = (const unsigned char *)next->first, *place = (const unsigned char *)at;
  return place >= begin && place + bytes <= begin + size(next->second);
}

static size_t block_size_of(const block &b) { return b.bytes; }
static size_t locked_size_of(const size_t &bytes) { return bytes; }
bool emulated::memory_around(const void *at, size_t bytes, uint64_t *begin, uint64_t *end) {
  std::lock_guard<std::mutex> lock(guard);
  auto held = blocks.upper_bound((void *)(uintptr_t)at);
  auto own = locked.upper_bound((void *)(uintptr_t)at);
  uint64_t place = (uint64_t)(uintptr_t)at;
  if (held != blocks.begin() && (--held, *begin = (uint64_t)(uintptr_t)held->first, *end = *begin + held->second.bytes, place + bytes <= *end)) return true;
  return own != locked.begin() && (--own, *begin = (uint64_t)(uintptr_t)own->first, *end = *begin + own->second, place + bytes <= *end);
}
bool emulated::on_device(const void *at, size_t bytes) { return within(blocks, at, bytes, block_size_of); }
static bool is_locked(const void *at, size_t bytes) { return within(locked, at, bytes, locked_size_of); }

static bool kinds_fit(const void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return true;
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return emulated::on_device(to, bytes) == to_device && emulated::on_device(from, bytes) == from_device;
}

/* Bytes that were sent to the device so far. */
static std::atomic<long> bytes_sent;
extern "C" long cuda_emulated_sent(void) { return bytes_sent; }

/* What lies in memory that is not locked is taken now; what is to go there is there when the call returns. */
static cudaError_t copy(unsigned char *to, size_t to_pitch, const unsigned char *from, size_t from_pitch, size_t width, size_t height,
                        cudaStream_t which) {
  cudaStream_t stream = known_stream(which);
  size_t to_bytes = (height - 1) * to_pitch + width, from_bytes = (height - 1) * from_pitch + width;
  bool into_pages = !emulated::on_device(to, to_bytes) && !is_locked(to, to_bytes);
  bool from_pages = !emulated::on_device(from, from_bytes) && !is_locked(from, from_bytes);
  if (into_pages || from_pages) {
    cudaError_t error = unsafe_on(stream);
    if (error != cudaSuccess) return error;
  }
  if (emulated::on_device(to, to_bytes) && !emulated::on_device(from, from_bytes)) bytes_sent += (long)(width * height);
  std::shared_ptr<std::vector<unsigned char>> taken;
  if (from_pages && !into_pages) {
    taken = std::make_shared<std::vector<unsigned char>>(from, from + from_bytes);
    from = taken->data();
  }
  cudaError_t error = submit(which, [=]() {
    (void)taken;
    for (size_t row = 0; row < height; row++) memmove(to + row * to_pitch, from + row * from_pitch, width), memory_written(to + row * to_pitch, width);
  });
  if (error == cudaSuccess && into_pages) do_all(stream);
  return error;
}

extern "C" {

cudaError_t cudaMallocHost(void **out, size_t bytes) {
  CALLED();
  UNSAFE_IN_CAPTURE();
  *out = aligned_alloc(PAGE, (bytes + PAGE) / PAGE * PAGE);
  if (!*out) return say(cudaErrorMemoryAllocation);
  std::lock_guard<std::mutex> lock(guard);
  memset(*out, 0xFF, bytes);
  locked[*out] = bytes;
  memory_begins(*out, bytes, true);
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) { return cudaMallocHost(out, bytes); }
cudaError_t cudaFreeHost(void *at) {
  if (!at) return cudaSuccess;
  UNSAFE_IN_CAPTURE();
  stand_still();
  do_everything();
  std::lock_guard<std::mutex> lock(guard);
  if (!locked.erase(at)) die("what is freed was not locked memory");
  memory_ends(at);
  memory_version++;
  free(at);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
  CALLED();
  if (!emulated::on_device(at, bytes)) return say(cudaErrorInvalidValue);
  return submit(stream, [=]() { memset(at, value, bytes), memory_written(at, bytes); });
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  CALLED();
  if (!bytes) return cudaSuccess;
  if (!kinds_fit(to, from, bytes, kind)) return say(cudaErrorInvalidValue);
  return copy((unsigned char *)to, bytes, (const unsigned char *)from, bytes, bytes, 1, stream);
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                              enum cudaMemcpyKind kind, cudaStream_t stream) {
  CALLED();
  if (width > to_pitch || width > from_pitch) return say(cudaErrorInvalidValue);
  if (!height || !width) return cudaSuccess;
  for (size_t row = 0; row < height; row += height > 1 ? height - 1 : 1)
    if (!kinds_fit((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width, kind)) return say(cudaErrorInvalidValue);
  return copy((unsigned char *)to, to_pitch, (const unsigned char *)from, from_pitch, width, height, stream);
}

} // extern "C"

/* ---- all of it, for a kernel that runs twice ----------------------------------------------------------------------- */

#define TWICE_MOST ((size_t)8 << 20) /* larger blocks are left out: weights, pools and stages */

snapshot emulated::snapshot_take() {
  snapshot all;
  std::lock_guard<std::mutex> lock(guard);
  for (auto &b : blocks)
    if (b.second.bytes < TWICE_MOST) all[b.first].assign((unsigned char *)b.first, (unsigned char *)b.first + b.second.bytes);
  return all;
}
void emulated::snapshot_put_back(const snapshot &all) {
  for (auto &b : all) memcpy(b.first, b.second.data(), b.second.size());
}
void emulated::snapshot_compare(const snapshot &first, const char *name) {
  for (auto &b : first)
    for (size_t i = 0; i < b.second.size(); i += 4)
      if (memcmp((unsigned char *)b.first + i, &b.second[i], b.second.size() - i < 4 ? b.second.size() - i : 4) != 0) {
        fprintf(stderr, "emulated CUDA: %s gives other results in another order of its threads: word %zu of a block of %zu bytes\n", name, i / 4,
                b.second.size());
        abort();
      }
}
