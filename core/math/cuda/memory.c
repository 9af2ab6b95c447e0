/* memory.c: blocks of device memory and the ways in and out. Any thread may call: each has a stream of its own. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

int cuda_take(struct cuda_backend *cuda, size_t bytes, void **out, struct error *error) {
  size_t room = 0, total = 0;
  cudaError_t status = cudaMalloc(out, size_max(bytes, 64));
  if (status == cudaSuccess) return 0;
  *out = NULL;
  if (status != cudaErrorMemoryAllocation) return cuda_check(cuda, status, "taking memory", error);
  (void)cudaGetLastError();
  (void)cudaMemGetInfo(&room, &total);
  return error_set(error, ERROR_MEMORY, "CUDA device %d has no room for %zu MiB: %zu of its %zu MiB are free", cuda->device,
                   (bytes + (1 << 20) - 1) >> 20, room >> 20, total >> 20);
}

/* On the calling thread's own stream, and done when it returns. */
static int transfer(struct cuda_backend *cuda, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                    const char *what, struct error *error) {
  if (cuda_check(cuda, cudaMemcpyAsync(to, from, bytes, kind, cudaStreamPerThread), what, error) != 0) return -1;
  return cuda_check(cuda, cudaStreamSynchronize(cudaStreamPerThread), what, error);
}

int cuda_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  struct memory *memory = calloc(1, sizeof *memory);
  if (!memory) return error_memory(error, sizeof *memory);
  void *data = NULL;
  memory->bytes = bytes;
  if (cuda_enter(cuda, error) != 0 || cuda_take(cuda, bytes, &data, error) != 0 ||
      cuda_check(cuda, cudaMemsetAsync(data, 0, size_max(bytes, 64), cudaStreamPerThread), "clearing memory", error) != 0 ||
      cuda_check(cuda, cudaStreamSynchronize(cudaStreamPerThread), "clearing memory", error) != 0) {
    cudaFree(data);
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
  cudaSetDevice(cuda->device);
  cudaFree(memory->data); /* of a lost device it fails, and there is nothing to be done about it */
  free(memory);
}

static unsigned char *checked_place(struct span span, size_t bytes) {
  assert(span.memory && span.offset <= span.memory->bytes && bytes <= span.memory->bytes - span.offset);
  (void)bytes;
  return span.memory->data + span.offset;
}

int cuda_write(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!bytes) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  return transfer(cuda, checked_place(to, bytes), from, bytes, cudaMemcpyHostToDevice, "writing memory", error);
}

int cuda_read(struct backend *backend, void *to, struct span from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!bytes) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  return transfer(cuda, to, checked_place(from, bytes), bytes, cudaMemcpyDeviceToHost, "reading memory", error);
}

int cuda_copy(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!bytes) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  return transfer(cuda, checked_place(to, bytes), checked_place(from, bytes), bytes, cudaMemcpyDeviceToDevice,
                  "copying memory", error);
}
