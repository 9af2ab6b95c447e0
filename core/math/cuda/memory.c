/* memory.c: blocks of device memory. Any thread may call.
 *
 * Blocks of some size come from CUDA's pool for this device, which keeps what is given back: taking and giving one costs no
 * conversation with the driver and stops no stream, and a block that a step in flight still reads is not given to others before
 * the step is done, because the worker gives it back on the step's stream. Larger ones belong to models and are the driver's.
 * Matrices of dictionaries, which come and go, have a pool of their own, so that no vector settles where the next one should
 * have room. */
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define POOLED_BYTES ((size_t)64 << 20)

/* What a pool holds and nobody uses. */
static size_t rest_of(cudaMemPool_t pool) {
  unsigned long long held = 0, used = 0; /* cuuint64_t */
  if (!pool || cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &held) != cudaSuccess ||
      cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used) != cudaSuccess)
    return 0;
  return held > used ? (size_t)(held - used) : 0;
}

static size_t pool_rest(const struct cuda_backend *cuda) { return rest_of(cuda->pool) + rest_of(cuda->lent); }

/* After a call that found no room: what the pools have kept may be enough, with what the worker has given back behind its step. */
static void empty_pools(struct cuda_backend *cuda) {
  (void)cudaGetLastError();
  bool over = cuda_stream(cuda) != cuda->stream || cuda_wait_stream(cuda, cuda->stream, NULL) == 0;
  (void)over; /* what failed is told by whatever it asks for next */
  if (cuda->pool) (void)cudaMemPoolTrimTo(cuda->pool, 0);
  if (cuda->lent) (void)cudaMemPoolTrimTo(cuda->lent, 0);
}

/* Where there is none, it is gone without. */
static void open_lent(struct cuda_backend *cuda, unsigned long long keep) {
  struct cudaMemPoolProps props = {.allocType = cudaMemAllocationTypePinned,
                                   .location = {.type = cudaMemLocationTypeDevice, .id = cuda->device}};
  if (cudaMemPoolCreate(&cuda->lent, &props) == cudaSuccess &&
      cudaMemPoolSetAttribute(cuda->lent, cudaMemPoolAttrReleaseThreshold, &keep) == cudaSuccess)
    return;
  (void)cudaGetLastError();
  if (cuda->lent) cudaMemPoolDestroy(cuda->lent);
  cuda->lent = NULL;
}

/* Devices without pools (there are virtual ones) go without, and so do those that only say they had one. */
int cuda_open_pool(struct cuda_backend *cuda, struct error *error) {
  void *trial = NULL;
  int has = 0;
  unsigned long long keep = ~0ull;
  if (cuda_check(cuda, cudaDeviceGetAttribute(&has, cudaDevAttrMemoryPoolsSupported, cuda->device), "asking what it can", error) != 0)
    return -1;
  if (!has) return 0;
  if (cudaMallocAsync(&trial, 64, cudaStreamPerThread) != cudaSuccess || cudaFreeAsync(trial, cudaStreamPerThread) != cudaSuccess) {
    (void)cudaGetLastError();
    return 0;
  }
  if (cuda_check(cuda, cudaDeviceGetDefaultMemPool(&cuda->pool, cuda->device), "opening its pool", error) != 0) return -1;
  open_lent(cuda, keep);
  return cuda_check(cuda, cudaMemPoolSetAttribute(cuda->pool, cudaMemPoolAttrReleaseThreshold, &keep), "opening its pool", error);
}

int cuda_room(struct backend *backend, size_t *left, size_t *total, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (cuda_enter(cuda, error) != 0 || cuda_check(cuda, cudaMemGetInfo(left, total), "asking for its memory", error) != 0) return -1;
  *left += pool_rest(cuda);
  *left -= size_min(*left, uploads_to_come(cuda));
  return 0;
}

static int say_full(struct cuda_backend *cuda, size_t bytes, struct error *error) {
  size_t room = 0, total = 0;
  (void)cudaGetLastError();
  (void)cudaMemGetInfo(&room, &total);
  room += pool_rest(cuda);
  return error_set(error, ERROR_MEMORY, "CUDA device %d has no room for %zu MiB: %zu of its %zu MiB are free", cuda->device,
                   (bytes + (1 << 20) - 1) >> 20, room >> 20, total >> 20);
}

int cuda_take(struct cuda_backend *cuda, size_t bytes, void **out, struct error *error) {
  cudaError_t status = cudaMalloc(out, size_max(bytes, 64));
  if (status == cudaErrorMemoryAllocation && cuda->pool) {
    empty_pools(cuda);
    status = cudaMalloc(out, size_max(bytes, 64));
  }
  if (status == cudaSuccess) return 0;
  *out = NULL;
  return status == cudaErrorMemoryAllocation ? say_full(cuda, bytes, error) : cuda_check(cuda, status, "taking memory", error);
}

static int take_of(struct cuda_backend *cuda, cudaMemPool_t pool, cudaStream_t stream, size_t bytes, void **out, struct error *error) {
  cudaError_t status = cudaMallocFromPoolAsync(out, size_max(bytes, 64), pool, stream);
  if (status == cudaErrorMemoryAllocation) {
    empty_pools(cuda);
    status = cudaMallocFromPoolAsync(out, size_max(bytes, 64), pool, stream);
  }
  if (status == cudaSuccess) return 0;
  *out = NULL;
  return status == cudaErrorMemoryAllocation ? say_full(cuda, bytes, error) : cuda_check(cuda, status, "taking memory", error);
}

int cuda_lend(struct cuda_backend *cuda, size_t bytes, void **out, struct error *error) {
  return cuda->lent ? take_of(cuda, cuda->lent, cudaStreamPerThread, bytes, out, error) : cuda_take(cuda, bytes, out, error);
}

/* Of a lost device it fails, and there is nothing to be done about it; of one that hangs it is not asked. */
void cuda_give_back(struct cuda_backend *cuda, void *data) {
  if (atomic_load(&cuda->hung)) return;
  if (data && cuda->lent)
    cudaFreeAsync(data, cuda_stream(cuda));
  else
    cudaFree(data);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

static bool is_pooled(const struct cuda_backend *cuda, size_t bytes) { return cuda->pool && bytes <= POOLED_BYTES; }

static int take_block(struct cuda_backend *cuda, size_t bytes, void **out, struct error *error) {
  return is_pooled(cuda, bytes) ? take_of(cuda, cuda->pool, cuda_stream(cuda), bytes, out, error) : cuda_take(cuda, bytes, out, error);
}

/* As with cuda_give_back. */
static void give_block(struct cuda_backend *cuda, size_t bytes, void *data) {
  if (!data || atomic_load(&cuda->hung)) return;
  if (is_pooled(cuda, bytes))
    cudaFreeAsync(data, cuda_stream(cuda));
  else
    cudaFree(data);
}

/* The worker's next step comes behind the clearing anyway; for others it is done. */
static int clear(struct cuda_backend *cuda, void *data, size_t bytes, struct error *error) {
  cudaStream_t stream = cuda_stream(cuda);
  if (cuda_check(cuda, cudaMemsetAsync(data, 0, bytes, stream), "clearing memory", error) != 0) return -1;
  if (stream != cuda->stream) return cuda_check(cuda, cudaStreamSynchronize(stream), "clearing memory", error);
  cuda->in_flight = true;
  return 0;
}

int cuda_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  struct memory *memory = calloc(1, sizeof *memory);
  void *data = NULL;
  if (!memory) return error_memory(error, sizeof *memory);
  memory->bytes = bytes;
  if (cuda_enter(cuda, error) != 0 || take_block(cuda, bytes, &data, error) != 0 ||
      clear(cuda, data, size_max(bytes, 64), error) != 0) {
    give_block(cuda, bytes, data);
    free(memory);
    return -1;
  }
  memory->data = data;
  *out = memory;
  return 0;
}

void cuda_free(struct backend *backend, struct memory *memory) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!memory) return;
  (void)cuda_choose(cuda);
  give_block(cuda, memory->bytes, memory->data);
  free(memory);
}
