/* cuda.c: the CUDA backend as an object: opening a device, its errors, its scratch memory, the table of its verbs. */
#include "core/math/cuda/cuda.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/checked.h"

#define WORKSPACE_BYTES ((size_t)64 << 20) /* of the library: what it asks for on the largest devices */
#define WAIT_LIMIT_SECONDS 120             /* a step takes milliseconds: what takes so long hangs (STEERD_CUDA_WAIT says otherwise) */
#define LEAST_MAJOR 8
#define OVERLAP_MAJOR 9      /* older devices run one kernel after the other */
#define OVERLAP_DRIVER 12030 /* older drivers do not record such launches */

/* ---- errors ------------------------------------------------------------------------------------------------------ */

static int say_lost(struct error *error) {
  return error_set(error, ERROR_DEVICE, "the CUDA device has failed; the server must be started again");
}

/* After an error: does the device still do what it is asked? A failed kernel makes every later call fail, on every stream: so the
 * caller's own is asked, as the worker may be recording on its, and without waiting, as nothing may come. */
static void look_whether_lost(struct cuda_backend *cuda, cudaError_t after) {
  cudaStream_t own = cuda_stream(cuda);
  if (after == cudaErrorLaunchTimeout) atomic_store(&cuda->hung, true); /* of a watched launch: the kernel still runs */
  if (own == cuda->stream && (!own || cuda->capturing)) return;
  cudaError_t now = cudaStreamQuery(own);
  bool well = (now == cudaSuccess || now == cudaErrorNotReady) && !atomic_load(&cuda->hung);
  if (!well) atomic_store(&cuda->lost, true);
}

int cuda_check(struct cuda_backend *cuda, cudaError_t status, const char *what, struct error *error) {
  if (status == cudaSuccess) return 0;
  (void)cudaGetLastError(); /* it is told here, and not again by a later call */
  look_whether_lost(cuda, status);
  return error_set(error, ERROR_DEVICE, "CUDA device %d: %s failed: %s%s", cuda->device, what, cudaGetErrorString(status),
                   atomic_load(&cuda->lost) ? "; the server must be started again" : "");
}

/* Of the calling thread, as its current device is. */
static _Thread_local struct cuda_backend *entered;

bool launches_overlap(void) { return entered && entered->overlaps; }

/* Multiprocessors divide one memory into shared memory and a cache, and a kernel that wants another division than the one that
 * runs there cannot begin beside it. So all of ours ask for the same: as much shared memory as there is; none reads much twice. */
void launch_prepare(const void *kernel) {
  if (!launches_overlap()) return;
  for (size_t i = 0, at = (uintptr_t)kernel / 16; i < MOST_KERNELS; i++, at++) {
    const void *there = NULL;
    if (!atomic_compare_exchange_strong(&entered->prepared[at % MOST_KERNELS], &there, kernel)) {
      if (there == kernel) return;
      continue;
    }
    /* A wish: where it fails, the kernel runs all the same. */
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared) != cudaSuccess)
      (void)cudaGetLastError();
    return;
  }
}

/* The calling thread's current device, which nobody else chooses: the runtime is this library's own. To ask CUDA for what is so
 * already would cost each verb a call. */
static _Thread_local int current = -1;

cudaError_t cuda_choose(struct cuda_backend *cuda) {
  if (current == cuda->device) return cudaSuccess;
  cudaError_t status = cudaSetDevice(cuda->device);
  current = status == cudaSuccess ? cuda->device : -1;
  return status;
}

int cuda_enter(struct cuda_backend *cuda, struct error *error) {
  if (atomic_load(&cuda->lost)) return say_lost(error);
  entered = cuda;
  watch_enter(cuda->watch);
  return cuda_check(cuda, cuda_choose(cuda), "choosing it", error);
}

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int cuda_begin(struct cuda_backend *cuda, struct error *error) {
  if (cuda_enter(cuda, error) != 0) return -1;
  if (!cuda->landing) cuda->in.used = 0;
  cuda->n_fetched = 0;
  cuda->in_flight = true;
  atomic_store(&cuda->worker, pthread_self());
  return 0;
}

/* By asking again and again: the answer comes within microseconds, and a device that hangs does not hang us. `event` NULL: all of
 * the stream. Whoever waits for a copy lets others go on, who may be filling the next; short steps are not worth it. */
static int wait_for(struct cuda_backend *cuda, cudaStream_t stream, cudaEvent_t event, const char *what, struct error *error) {
  double begin = 0;
  for (unsigned turn = 1;; turn++) {
    cudaError_t status = event ? cudaEventQuery(event) : cudaStreamQuery(stream);
    if (status != cudaErrorNotReady) return cuda_check(cuda, status, what, error);
    if (stream != cuda->stream) sched_yield();
    if (turn % 1024) continue;
    sched_yield();
    double now = seconds_now();
    if (begin == 0) begin = now;
    if (now - begin < cuda->wait_limit) continue;
    atomic_store(&cuda->hung, true);
    atomic_store(&cuda->lost, true);
    return error_set(error, ERROR_DEVICE, "CUDA device %d has not answered for %d s; the server must be started again",
                     cuda->device, cuda->wait_limit);
  }
}

static int wait_for_stream(struct cuda_backend *cuda, struct error *error) { return wait_for(cuda, cuda->stream, NULL, "a step", error); }

int cuda_wait_stream(struct cuda_backend *cuda, cudaStream_t stream, struct error *error) {
  return atomic_load(&cuda->lost) ? say_lost(error) : wait_for(cuda, stream, NULL, "writing memory", error);
}

int cuda_wait_event(struct cuda_backend *cuda, cudaEvent_t event, struct error *error) {
  return atomic_load(&cuda->lost) ? say_lost(error) : wait_for(cuda, NULL, event, "writing memory", error);
}

/* After a failure nothing is in flight either: the device goes on or is lost, and then nobody asks it again. */
int cuda_wait(struct cuda_backend *cuda, struct error *error) {
  int failed = atomic_load(&cuda->lost) ? say_lost(error) : wait_for_stream(cuda, error);
  if (!failed && cuda->watch) watch_collect(cuda->watch);
  cuda->in_flight = cuda->landing = false;
  cuda->out.used = 0;
  if (failed) cuda->n_fetched = cuda->awaited.n = 0;
  if (failed) pages_forget(cuda);
  cuda_sample_take(&cuda->awaited);
  return failed;
}

static int cuda_finish(struct backend *backend, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  return cuda->in_flight ? cuda_wait(cuda, error) : 0;
}

/* ---- scratch ------------------------------------------------------------------------------------------------------- */

void *cuda_scratch(struct cuda_backend *cuda, enum scratch_name name, size_t bytes, struct error *error) {
  struct scratch *scratch = &cuda->scratch[name];
  if (bytes <= scratch->bytes && scratch->at) return scratch->at;
  if (cuda->capturing) return error_set(error, ERROR_BUG, "scratch of a captured step grew"), NULL;
  if (wait_for_stream(cuda, error) != 0) return NULL; /* a step in flight works in it */
  if (name < SCRATCH_SAMPLE) graphs_drop(cuda);
  cudaFree(scratch->at);
  scratch->at = NULL;
  scratch->bytes = 0;
  size_t rounded = size_round_up(bytes + bytes / 4, 256); /* a little more: it grows with the rows of a step */
  void *at;
  if (cuda_take(cuda, rounded, &at, error) != 0) return NULL;
  if (name == SCRATCH_ARRIVED && cuda_check(cuda, cudaMemsetAsync(at, 0, rounded, cuda->stream), "clearing memory", error) != 0) {
    cudaFree(at);
    return NULL;
  }
  scratch->at = at;
  scratch->bytes = rounded;
  return at;
}

/* ---- opening and closing -------------------------------------------------------------------------------------------- */

static void cuda_close(struct backend *backend) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (entered == cuda) entered = NULL;
  if (atomic_load(&cuda->hung)) return; /* whatever is asked now waits for ever; the process is about to end */
  (void)cuda_choose(cuda);
  watch_free(cuda->watch);
  graphs_free(cuda);
  pages_free(cuda);
  for (int i = 0; i < SCRATCH_COUNT; i++) cudaFree(cuda->scratch[i].at);
  cudaFree(cuda->tables.device);
  cuda_free_locked(cuda);
  cuda_encode_close(cuda);
  uploads_close(cuda);
  if (cuda->lent) cudaMemPoolDestroy(cuda->lent);
  if (cuda->blas) cublasDestroy(cuda->blas);
  cudaFree(cuda->workspace);
  if (cuda->stream) cudaStreamDestroy(cuda->stream);
  free(cuda);
}

static bool cuda_lost(struct backend *backend) { return atomic_load(&((struct cuda_backend *)backend)->lost); }

static const struct ops cuda_ops = {
    .alloc = cuda_alloc,
    .free = cuda_free,
    .write = cuda_write,
    .read = cuda_read,
    .copy = cuda_copy,
    .fetch = cuda_fetch,
    .wait = cuda_finish,
    .matrix_new = cuda_matrix_new,
    .matrix_new_as = cuda_matrix_new_as,
    .matrix_free = cuda_matrix_free,
    .kv_block_bytes = cuda_kv_block_bytes,
    .run = cuda_run,
    .encode = cuda_encode,
    .sample = cuda_sample,
    .splices = true,
    .vjp = cuda_vjp,
    .room = cuda_room,
    .lost = cuda_lost,
    .close = cuda_close,
};

static int find_device(struct cuda_backend *cuda, struct error *error) {
  struct cudaDeviceProp found;
  int count = 0, driver = 0;
  cudaDriverGetVersion(&driver);
  cudaError_t status = cudaGetDeviceCount(&count);
  if (driver == 0) return error_set(error, ERROR_DEVICE, "there is no NVIDIA driver");
  if (status == cudaErrorInsufficientDriver)
    return error_set(error, ERROR_DEVICE, "the NVIDIA driver is too old: it knows CUDA %d.%d", driver / 1000, driver % 1000 / 10);
  if (status != cudaSuccess) return error_set(error, ERROR_DEVICE, "the NVIDIA driver finds no device: %s", cudaGetErrorString(status));
  if (cuda->device >= count)
    return error_set(error, ERROR_ARGUMENT, "CUDA device %d does not exist, there are %d (counted from 0)", cuda->device, count);
  if (cuda_check(cuda, cudaGetDeviceProperties(&found, cuda->device), "asking what it is", error) != 0) return -1;
  if (found.major < LEAST_MAJOR)
    return error_set(error, ERROR_DEVICE, "CUDA device %d (%s) has compute capability %d.%d, needed is %d.0 or newer", cuda->device,
                     found.name, found.major, found.minor, LEAST_MAJOR);
  cuda->overlaps = found.major >= OVERLAP_MAJOR && driver >= OVERLAP_DRIVER && !cuda->serial;
  return cuda_check(cuda, cuda_choose(cuda), "choosing it", error);
}

static int blas_check(cublasStatus_t status, const char *what, struct error *error) {
  if (status == CUBLAS_STATUS_SUCCESS) return 0;
  return error_set(error, ERROR_DEVICE, "cuBLAS: %s failed: %s", what, cublasGetStatusString(status));
}

/* A workspace of ours: products that a graph repeats must not share one that the library gives to somebody else, and the
 * same workspace makes the same choices. */
static int open_library(struct cuda_backend *cuda, struct error *error) {
  if (cuda_check(cuda, cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking), "making a stream", error) != 0 ||
      cuda_open_pool(cuda, error) != 0 ||
      cuda_take(cuda, WORKSPACE_BYTES, &cuda->workspace, error) != 0 ||
      blas_check(cublasCreate(&cuda->blas), "opening it", error) != 0 ||
      blas_check(cublasSetStream(cuda->blas, cuda->stream), "setting its stream", error) != 0 ||
      blas_check(cublasSetWorkspace(cuda->blas, cuda->workspace, WORKSPACE_BYTES), "setting its workspace", error) != 0)
    return -1;
  cublasMath_t exact = (cublasMath_t)(CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
  return blas_check(cublasSetMathMode(cuda->blas, exact), "setting its precision", error);
}

static int wait_limit(void) {
  const char *said = getenv("STEERD_CUDA_WAIT");
  int seconds = said ? atoi(said) : 0;
  return seconds > 0 ? seconds : WAIT_LIMIT_SECONDS;
}

static struct backend *cuda_open(const struct cuda_options *options, struct error *error) {
  struct cuda_backend *cuda = calloc(1, sizeof *cuda);
  if (!cuda) return error_memory(error, sizeof *cuda), NULL;
  pthread_mutex_init(&cuda->uploads.mutex, NULL);
  cuda->device = options->device;
  cuda->wait_limit = wait_limit();
  cuda->deterministic = options->deterministic;
  cuda->serial = options->serial;
  cuda->apart = options->apart;
  cuda->library = options->library;
  snprintf(cuda->name, sizeof cuda->name, "cuda:%d%s%s%s%s", options->device, options->deterministic ? "+deterministic" : "",
           options->serial ? "+serial" : "", options->apart ? "+apart" : "", options->library ? "+library" : "");
  cuda->ops = cuda_ops;
  cuda->ops.name = cuda->name;
  cuda->base.ops = &cuda->ops;
  cuda->watch = watch_new();
  if (find_device(cuda, error) == 0 && (cuda->graphs = graphs_new(error)) && (cuda->pages = pages_new(error)) && open_library(cuda, error) == 0) return &cuda->base;
  cuda_close(&cuda->base);
  return NULL;
}

#pragma GCC visibility push(default)
int steerd_cuda_open(const struct cuda_plugin_host *host, const struct cuda_options *options, struct backend **out,
                     struct error *error);
#pragma GCC visibility pop

int steerd_cuda_open(const struct cuda_plugin_host *host, const struct cuda_options *options, struct backend **out,
                     struct error *error) {
  struct cuda_plugin_host own = cuda_plugin_host();
  if (host->version != own.version || memcmp(host->sizes, own.sizes, sizeof own.sizes) != 0)
    return error_set(error, ERROR_ARGUMENT, "it is of another build than the server; build both with `make build cuda`");
  *out = cuda_open(options, error);
  return *out ? 0 : -1;
}
