/* emulator.cpp: runs what core/math/cuda asks of CUDA and cuBLAS on the processor, for the tests (cuda_runtime.h).
 *
 * Owns device memory (heap blocks full of NaN between guards that are looked at when they are freed), streams, which do
 * nothing before somebody waits for them, graphs, which are lists of recorded calls with their arguments, and failures that a test orders.
 * Knows nothing of steerd but the number formats. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cublas_v2.h"
#include "cuda_runtime.h"

extern "C" {
#include "core/math/dtype.h"
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

/* ---- ordered failures ------------------------------------------------------------------------------------- */

static std::mutex guard;
static long fail_in = -1; /* calls until the next one fails */
static cudaError_t fail_with = cudaSuccess, sticky = cudaSuccess;
static long n_calls, n_launches, n_replays, n_captures, n_waits, n_overlaps, n_nodes;
static size_t capacity = (size_t)4 << 30, in_use;

static bool is_sticky(cudaError_t error) { return error == cudaErrorIllegalAddress || error == cudaErrorLaunchFailure; }

static cudaError_t called() {
  std::lock_guard<std::mutex> lock(guard);
  n_calls++;
  if (sticky != cudaSuccess) return sticky;
  if (fail_in < 0 || fail_in-- > 0) return cudaSuccess;
  if (is_sticky(fail_with)) sticky = fail_with;
  return fail_with;
}
#define CALLED()                                        \
  do {                                                  \
    cudaError_t error_ = called();                      \
    if (error_ != cudaSuccess) return error_;           \
  } while (0)

/* For tests, by dlsym. The call after `calls` more fails; cudaSuccess mends everything. */
extern "C" void cuda_emulated_fail(long calls, int error) {
  std::lock_guard<std::mutex> lock(guard);
  fail_in = error ? calls : -1;
  fail_with = (cudaError_t)error;
  if (!error) sticky = cudaSuccess;
}
extern "C" void cuda_emulated_capacity(size_t bytes) { capacity = bytes; }
/* Calls, kernels run, graphs captured, graphs replayed so far; bytes in use; calls that waited for a stream or the device. */
extern "C" void cuda_emulated_counts(long out[6]) {
  out[0] = n_calls, out[1] = n_launches, out[2] = n_captures, out[3] = n_replays, out[4] = (long)in_use, out[5] = n_waits;
}
/* Launches so far that may begin before their turn; nodes of the graph that was captured last. */
extern "C" void cuda_emulated_launches(long out[2]) { out[0] = n_overlaps, out[1] = n_nodes; }

/* Device 1 is of an older generation than device 0. */
static thread_local int current_device;
static int device_major(int device) { return device == 0 ? 9 : 8; }

/* ---- fibers ------------------------------------------------------------------------------------------------ */

namespace emulated {
place *here;
dim3 block_index, block_size, grid_size;
unsigned char *dynamic_shared;

#define STACK_BYTES ((size_t)96 << 10)
#define MAX_THREADS 1024
#define MAX_WARPS (MAX_THREADS / 32)

struct fiber {
  place at;
  int index;
  void *sp; /* where the quick switch left it */
  unsigned char *stack;
  void *fake;
#if !defined(__x86_64__)
  ucontext_t context;
#endif
};

/* Lanes are bits. A lane is ready, waits for its warp or waits for its block; one that is none of these has ended. */
struct warp {
  uint64_t value[2][32];
  unsigned ready, at_warp, at_block, arrived, mask;
  int turn;
};

static fiber *fibers;
static warp warps[MAX_WARPS];
static fiber *current;
static int n_threads, n_warps, n_live, n_at_block;
static const std::function<void()> *body;
static const char *kernel_name;

static void fail(const char *what) {
  fprintf(stderr, "emulated CUDA: %s, block %u %u %u of a grid of %u %u %u: %s\n", kernel_name, block_index.x, block_index.y,
          block_index.z, grid_size.x, grid_size.y, grid_size.z, what);
  abort();
}

#if defined(__x86_64__)
/* Changes stacks: a call of a plain function that keeps what the ABI says a callee keeps. */
extern "C" void cuda_emulated_switch(void **from, void *to);
__asm__(".text\n.globl cuda_emulated_switch\n.hidden cuda_emulated_switch\ncuda_emulated_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp,(%rdi)\nmov %rsi,%rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
static void *scheduler_sp;
#endif
#if !defined(__x86_64__)
static ucontext_t scheduler;
#endif
#if defined(__SANITIZE_ADDRESS__)
static void *scheduler_fake;
static const void *scheduler_stack;
static size_t scheduler_stack_bytes;
#endif

static void leave(bool forever) {
  fiber *self = current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(forever ? nullptr : &self->fake, scheduler_stack, scheduler_stack_bytes);
#else
  (void)forever;
#endif
#if defined(__x86_64__)
  cuda_emulated_switch(&self->sp, scheduler_sp);
#else
  swapcontext(&self->context, &scheduler);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(self->fake, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

static void enter(fiber *next) {
  current = next;
  here = &next->at;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake, next->stack, STACK_BYTES);
#endif
#if defined(__x86_64__)
  cuda_emulated_switch(&scheduler_sp, next->sp);
#else
  swapcontext(&scheduler, &next->context);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

static void release_block() {
  if (!n_live || n_at_block < n_live) return;
  for (int i = 0; i < n_warps; i++) {
    warps[i].ready |= warps[i].at_block;
    warps[i].at_block = 0;
  }
  n_at_block = 0;
}

static void thread_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  (*body)();
  if (!here->followed) fail("a thread ends that has not waited for the grid before (grid_follow)");
  n_live--;
  release_block();
  leave(true);
}

int lane() { return current->index & 31; }

void wait_block() {
  warp *w = &warps[current->index / 32];
  unsigned own = 1u << (current->index & 31);
  w->at_block |= own;
  n_at_block++;
  release_block();
  if (w->ready & own)
    w->ready &= ~own; /* the last to come goes on at once */
  else
    leave(false);
}

const uint64_t *exchange(unsigned mask, uint64_t bits) {
  int own = current->index & 31, turn;
  warp *w = &warps[current->index / 32];
  if (!(mask >> own & 1)) fail("a lane takes part in an exchange that does not name it");
  if (!w->arrived) w->mask = mask;
  if (w->mask != mask) fail("lanes of a warp name different lanes");
  turn = w->turn;
  w->value[turn][own] = bits;
  w->arrived |= 1u << own;
  if (w->arrived == mask) {
    w->arrived = 0;
    w->turn ^= 1;
    w->ready |= w->at_warp;
    w->at_warp = 0;
  } else {
    w->at_warp |= 1u << own;
    leave(false);
  }
  return w->value[turn]; /* the other turn is written next, and this one not before every lane has been there */
}

static void make_ready(int index) {
  fiber *f = &fibers[index];
  if (!f->stack) f->stack = (unsigned char *)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  f->at.thread.x = (unsigned)index % block_size.x;
  f->at.thread.y = (unsigned)index / block_size.x % block_size.y;
  f->at.thread.z = (unsigned)index / block_size.x / block_size.y;
  f->at.followed = false;
  f->index = index;
  warps[index / 32].ready |= 1u << (index & 31);
#if defined(__x86_64__)
  void **top = (void **)(void *)(f->stack + STACK_BYTES);
  *--top = nullptr; /* where a caller of thread_main would be; keeps its stack aligned */
  *--top = (void *)thread_main;
  f->sp = top - 6;
#else
  getcontext(&f->context);
  f->context.uc_stack.ss_sp = f->stack;
  f->context.uc_stack.ss_size = STACK_BYTES;
  f->context.uc_link = nullptr;
  makecontext(&f->context, thread_main, 0);
#endif
}

/* Lanes of a warp take turns until all of them wait for others. */
static bool run_warp(warp *w, int first) {
  bool moved = w->ready != 0;
  while (w->ready) {
    int next = __builtin_ctz(w->ready);
    w->ready &= w->ready - 1;
    enter(&fibers[first + next]);
  }
  return moved;
}

static void run_block() {
  memset(warps, 0, sizeof warps);
  n_warps = (n_threads + 31) / 32;
  for (int i = 0; i < n_threads; i++) make_ready(i);
  n_live = n_threads;
  n_at_block = 0;
  while (n_live) {
    bool moved = false;
    for (int i = 0; i < n_warps; i++) moved |= run_warp(&warps[i], 32 * i);
    if (!moved) fail("its threads wait for one another for ever");
  }
}

static pthread_mutex_t one_kernel = PTHREAD_MUTEX_INITIALIZER;

static void run_grid(const char *name, const std::function<void()> &thread, dim3 grid, dim3 block, size_t shared) {
  pthread_mutex_lock(&one_kernel);
  if (!fibers) fibers = (fiber *)calloc(MAX_THREADS, sizeof *fibers);
  kernel_name = name;
  body = &thread;
  block_size = block;
  grid_size = grid;
  n_threads = (int)(block.x * block.y * block.z);
  dynamic_shared = (unsigned char *)aligned_alloc(64, (shared + 64) / 64 * 64);
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        memset(dynamic_shared, 0xFF, (shared + 64) / 64 * 64); /* NaN */
        block_index = dim3(x, y, z);
        run_block();
      }
  free(dynamic_shared);
  pthread_mutex_unlock(&one_kernel);
}
} // namespace emulated

/* ---- streams and graphs -------------------------------------------------------------------------------------- */

typedef std::vector<std::function<void()>> recorded;
struct cuda_stream {
  recorded *capturing;
  recorded late; /* what was asked and is not done yet */
};
struct cuda_graph {
  recorded list;
};
struct cuda_graph_exec {
  std::shared_ptr<recorded> list; /* may be destroyed before the stream comes to it */
};
struct cuda_event {
  int dummy;
};

/* What is asked of a stream is done when somebody waits for it, as late as a real one may do it: whoever reads too early or
 * writes too early over what was to be read gets wrong answers. */
static std::recursive_mutex doing;
static std::vector<cuda_stream *> streams;
static thread_local cuda_stream per_thread;

static cuda_stream *stream_of(cudaStream_t stream) { return stream == cudaStreamPerThread || !stream ? &per_thread : stream; }

static void catch_up(cuda_stream *stream) {
  std::lock_guard<std::recursive_mutex> lock(doing);
  recorded now;
  n_waits++;
  now.swap(stream->late);
  for (auto &work : now) work();
}

/* As cudaFree and its like wait for the whole device. Streams of other threads are their own affair. */
static void catch_up_all() {
  std::lock_guard<std::recursive_mutex> lock(doing);
  catch_up(&per_thread);
  for (cuda_stream *stream : streams) catch_up(stream);
}

/* When the stream comes to it, or when the graph that is being captured is replayed; a lost device does nothing more. */
static void submit(cudaStream_t stream, std::function<void()> work) {
  cuda_stream *to = stream_of(stream);
  std::lock_guard<std::recursive_mutex> lock(doing);
  (to->capturing ? *to->capturing : to->late).push_back([=]() {
    if (sticky == cudaSuccess) work();
  });
}

cudaError_t emulated::launch(const char *name, std::function<void()> thread, const cudaLaunchConfig_t *config) {
  CALLED();
  dim3 grid = config->gridDim, block = config->blockDim;
  size_t shared = config->dynamicSmemBytes;
  for (unsigned i = 0; i < config->numAttrs; i++) {
    if (!config->attrs[i].val.programmaticStreamSerializationAllowed) continue;
    if (device_major(current_device) < 9) return cudaErrorNotSupported; /* nobody should ask there */
    n_overlaps++;
  }
  size_t threads = (size_t)block.x * block.y * block.z;
  if (!threads || threads > MAX_THREADS || !grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535 ||
      shared > 48 * 1024)
    return cudaErrorInvalidValue;
  submit(config->stream, [=]() {
    n_launches++;
    run_grid(name, thread, grid, block, shared);
  });
  return cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
  CALLED();
  *out = new cuda_stream();
  std::lock_guard<std::recursive_mutex> lock(doing);
  streams.push_back(*out);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::lock_guard<std::recursive_mutex> lock(doing);
  catch_up(stream);
  for (size_t i = 0; i < streams.size(); i++)
    if (streams[i] == stream) streams.erase(streams.begin() + (long)i);
  delete stream;
  return cudaSuccess;
}
static bool captures(cudaStream_t stream) { return stream_of(stream)->capturing != nullptr; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CALLED();
  if (captures(stream)) return cudaErrorInvalidValue;
  catch_up(stream_of(stream));
  return cudaSuccess;
}
/* Once in a step: the place where tests of the whole server break the device, by making a file. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const char *file = getenv("STEERD_EMULATED_LOSS");
  if (file && access(file, F_OK) == 0) cuda_emulated_fail(0, cudaErrorIllegalAddress);
  return cudaStreamSynchronize(stream);
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode) {
  CALLED();
  if (captures(stream)) return cudaErrorInvalidValue;
  stream->capturing = new recorded();
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  cudaError_t error = called(); /* a failed capture ends too */
  recorded *list = stream->capturing;
  stream->capturing = nullptr;
  *out = nullptr;
  if (error == cudaSuccess && list) *out = new cuda_graph{*list};
  delete list;
  n_captures += *out != nullptr;
  if (*out) n_nodes = (long)(*out)->list.size();
  return error;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  CALLED();
  *out = new cuda_graph_exec{std::make_shared<recorded>(graph->list)};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  CALLED();
  n_replays++;
  auto list = exec->list;
  submit(stream, [=]() {
    for (auto &work : *list) work();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned) {
  *out = new cuda_event();
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 0;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

#define FENCE 64
static std::map<void *, size_t> blocks;

static size_t pool_used;

static cudaError_t take(void **out, size_t bytes) {
  std::lock_guard<std::mutex> lock(guard);
  if (bytes > capacity - in_use) return cudaErrorMemoryAllocation;
  unsigned char *at = (unsigned char *)aligned_alloc(256, (bytes + 2 * 256 + 255) / 256 * 256);
  if (!at) return cudaErrorMemoryAllocation;
  memset(at, 0xA5, 256);
  memset(at + 256, 0xFF, bytes);
  memset(at + 256 + bytes, 0xA5, FENCE);
  blocks[at + 256] = bytes;
  in_use += bytes;
  *out = at + 256;
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **out, size_t bytes) {
  CALLED();
  return take(out, bytes);
}

static void check_fences(const unsigned char *at, size_t bytes) {
  for (size_t i = 0; i < 256; i++)
    if (at[-1 - (long)i] != 0xA5 || (i < FENCE && at[bytes + i] != 0xA5)) {
      fprintf(stderr, "emulated CUDA: a block of %zu bytes was written beside its ends\n", bytes);
      abort();
    }
}

static cudaError_t give(void *at) {
  std::lock_guard<std::mutex> lock(guard);
  auto found = blocks.find(at);
  if (found == blocks.end()) {
    fprintf(stderr, "emulated CUDA: what is freed was not allocated\n");
    abort();
  }
  check_fences((unsigned char *)at, found->second);
  in_use -= found->second;
  blocks.erase(found);
  free((unsigned char *)at - 256);
  return cudaSuccess;
}

cudaError_t cudaFree(void *at) {
  if (!at) return cudaSuccess;
  catch_up_all();
  return give(at);
}

/* The pool: blocks of their own, full of NaN again each time, which go when the stream comes to it. */
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream) {
  CALLED();
  if (stream_of(stream)->capturing) return cudaErrorInvalidValue;
  cudaError_t error = take(out, bytes);
  if (error == cudaSuccess) pool_used += bytes;
  return error;
}
cudaError_t cudaFreeAsync(void *at, cudaStream_t stream) {
  if (!at) return cudaSuccess;
  {
    std::lock_guard<std::mutex> lock(guard);
    auto found = blocks.find(at);
    if (found != blocks.end()) pool_used -= found->second;
  }
  std::lock_guard<std::recursive_mutex> lock(doing);
  stream_of(stream)->late.push_back([=]() { give(at); });
  return cudaSuccess;
}
cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int) {
  CALLED();
  *out = (cudaMemPool_t)&pool_used;
  return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *) { return cudaSuccess; }
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *value) {
  *(unsigned long long *)value = pool_used; /* it keeps nothing back */
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

/* A device place must lie whole in one block. */
static bool on_device(const void *at, size_t bytes) {
  std::lock_guard<std::mutex> lock(guard);
  auto next = blocks.upper_bound((void *)(uintptr_t)at);
  if (next == blocks.begin()) return false;
  --next;
  const unsigned char *begin = (const unsigned char *)next->first, *place = (const unsigned char *)at;
  return place >= begin && place + bytes <= begin + next->second;
}
static bool kinds_fit(const void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return on_device(to, bytes) == to_device && on_device(from, bytes) == from_device;
}

static std::map<const void *, size_t> locked;

cudaError_t cudaMallocHost(void **out, size_t bytes) {
  CALLED();
  std::lock_guard<std::mutex> lock(guard);
  *out = malloc(bytes);
  if (*out) locked[*out] = bytes;
  return *out ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFreeHost(void *at) {
  if (!at) return cudaSuccess;
  catch_up_all();
  std::lock_guard<std::mutex> lock(guard);
  locked.erase(at);
  free(at);
  return cudaSuccess;
}
static bool is_locked(const void *at) {
  std::lock_guard<std::mutex> lock(guard);
  auto next = locked.upper_bound(at);
  if (next == locked.begin()) return false;
  --next;
  return (const char *)at < (const char *)next->first + next->second;
}
cudaError_t cudaMemsetAsync(void *at, int value, size_t bytes, cudaStream_t stream) {
  CALLED();
  if (!on_device(at, bytes)) return cudaErrorInvalidValue;
  submit(stream, [=]() { memset(at, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
  CALLED();
  if (!kinds_fit(to, from, bytes, kind)) return cudaErrorInvalidValue;
  bool loose = kind == cudaMemcpyHostToDevice ? !is_locked(from) : kind == cudaMemcpyDeviceToHost && !is_locked(to);
  if (loose && stream_of(stream)->capturing) return cudaErrorInvalidValue;
  if (loose) catch_up(stream_of(stream)); /* through a buffer of the driver: done when it returns */
  if (loose)
    memmove(to, from, bytes);
  else
    submit(stream, [=]() { memmove(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                              enum cudaMemcpyKind kind, cudaStream_t stream) {
  CALLED();
  if (width > to_pitch || width > from_pitch) return cudaErrorInvalidValue;
  if (!height || !width) return cudaSuccess;
  for (size_t row = 0; row < height; row += height > 1 ? height - 1 : 1)
    if (!kinds_fit((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width, kind)) return cudaErrorInvalidValue;
  catch_up(stream_of(stream));
  for (size_t row = 0; row < height; row++) memcpy((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
  return cudaSuccess;
}

/* ---- devices and errors ------------------------------------------------------------------------------------------ */

const char *cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorECCUncorrectable: return "uncorrectable ECC error encountered";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    default: return "unknown error";
  }
}
cudaError_t cudaGetLastError(void) { return sticky; }
cudaError_t cudaGetDeviceCount(int *count) {
  CALLED();
  *count = 2;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device > 1) return cudaErrorInvalidDevice;
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
  CALLED();
  memset(out, 0, sizeof *out);
  snprintf(out->name, sizeof out->name, "emulated");
  out->totalGlobalMem = capacity;
  out->major = device_major(device);
  out->multiProcessorCount = 2;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int) {
  CALLED();
  *out = attribute == cudaDevAttrMemoryPoolsSupported;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
  CALLED();
  *total = capacity;
  *free = capacity - in_use;
  return cudaSuccess;
}

/* ---- cuBLAS -------------------------------------------------------------------------------------------------------- */

struct cublas_handle {
  cudaStream_t stream;
};
cublasStatus_t cublasCreate(cublasHandle_t *out) {
  if (called() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  *out = new cublas_handle();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) { return CUBLAS_STATUS_SUCCESS; }
const char *cublasGetStatusString(cublasStatus_t status) { return status ? "the product failed" : "success"; }

static float element(const void *data, cudaDataType type, size_t i) {
  return dtype_f32_at(data, type == CUDA_R_32F ? DTYPE_F32 : type == CUDA_R_16F ? DTYPE_F16 : DTYPE_BF16, i);
}
static size_t element_bytes(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t, cublasGemmAlgo_t) {
  bool known = op_a == CUBLAS_OP_T && op_b == CUBLAS_OP_N && a_type == b_type && c_type == CUDA_R_32F &&
               *(const float *)alpha == 1 && *(const float *)beta == 0 && lda >= k && ldb >= k && ldc >= m;
  known = known && on_device(a, ((size_t)(m - 1) * lda + k) * element_bytes(a_type)) &&
          on_device(b, ((size_t)(n - 1) * ldb + k) * element_bytes(b_type)) &&
          on_device(c, ((size_t)(n - 1) * ldc + m) * sizeof(float));
  if (called() != cudaSuccess || !known) return CUBLAS_STATUS_EXECUTION_FAILED;
  submit(handle->stream, [=]() {
    n_launches++;
    for (int row = 0; row < n; row++)
      for (int out = 0; out < m; out++) {
        float sum = 0;
        for (int i = 0; i < k; i++)
          sum = fmaf(element(a, a_type, (size_t)out * lda + i), element(b, b_type, (size_t)row * ldb + i), sum);
        ((float *)c)[(size_t)row * ldc + out] = sum;
      }
  });
  return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
