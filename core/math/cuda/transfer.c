/* transfer.c: the ways in and out of device memory. What the worker sends is copied into locked memory and goes its way behind the
 * step in flight; what it reads was fetched behind the step, or is waited for. Other threads' transfers are done when they
 * return. */
#include <assert.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define LEAST_LOCKED ((size_t)1 << 20)
#define MOST_STAGED ((size_t)8 << 20)   /* of one write: what is larger is sent from where it lies */
#define MOST_LANDING ((size_t)16 << 20) /* of one fetch */

/* ---- locked memory ------------------------------------------------------------------------------------------------- */

/* Nothing in flight uses it. */
static int grow(struct cuda_backend *cuda, struct locked *locked, size_t bytes, struct error *error) {
  void *at = NULL;
  size_t room = size_max(LEAST_LOCKED, bytes + bytes / 2);
  cudaFreeHost(locked->at);
  *locked = (struct locked){0};
  if (cuda_check(cuda, cudaMallocHost(&at, room), "taking locked memory", error) != 0) return -1;
  *locked = (struct locked){at, room, 0};
  return 0;
}

static void *cut(struct locked *locked, size_t bytes) {
  void *at = locked->at + locked->used;
  locked->used += size_round_up(bytes, 256);
  return at;
}

static bool fits(const struct locked *locked, size_t bytes) {
  return locked->at && size_round_up(bytes, 256) <= locked->bytes - size_min(locked->used, locked->bytes);
}

void *cuda_stage(struct cuda_backend *cuda, size_t bytes, struct error *error) {
  if (!fits(&cuda->out, bytes)) {
    if (cuda_wait(cuda, error) != 0) return NULL;
    cuda->out.used = 0;
  }
  if (!fits(&cuda->out, bytes) && grow(cuda, &cuda->out, size_round_up(bytes, 256), error) != 0) return NULL;
  return cut(&cuda->out, bytes);
}

void cuda_free_locked(struct cuda_backend *cuda) {
  cudaFreeHost(cuda->out.at);
  cudaFreeHost(cuda->in.at);
}

/* ---- there and back --------------------------------------------------------------------------------------------------- */

static unsigned char *checked_place(struct span span, size_t bytes) {
  assert(span.memory && span.offset <= span.memory->bytes && bytes <= span.memory->bytes - span.offset);
  (void)bytes;
  return span.memory->data + span.offset;
}

/* From or to memory of the host that is not locked: done when it returns. The worker waits for its step first, by asking, so that
 * a device that hangs does not hang us in a copy. */
static int transfer(struct cuda_backend *cuda, void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                    const char *what, struct error *error) {
  cudaStream_t stream = cuda_stream(cuda);
  if (stream == cuda->stream && cuda_wait(cuda, error) != 0) return -1;
  if (cuda_check(cuda, cudaMemcpyAsync(to, from, bytes, kind, stream), what, error) != 0) return -1;
  return cuda_check(cuda, cudaStreamSynchronize(stream), what, error);
}

int cuda_write(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  unsigned char *place;
  if (!bytes) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  place = checked_place(to, bytes);
  if (cuda_stream(cuda) != cuda->stream || bytes > MOST_STAGED)
    return transfer(cuda, place, from, bytes, cudaMemcpyHostToDevice, "writing memory", error);
  void *staged = cuda_stage(cuda, bytes, error);
  if (!staged || cuda_begin(cuda, error) != 0) return -1;
  memcpy(staged, from, bytes);
  return cuda_check(cuda, cudaMemcpyAsync(place, staged, bytes, cudaMemcpyHostToDevice, cuda->stream), "writing memory", error);
}

int cuda_copy(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!bytes) return 0;
  if (cuda_begin(cuda, error) != 0) return -1;
  return cuda_check(cuda, cudaMemcpyAsync(checked_place(to, bytes), checked_place(from, bytes), bytes, cudaMemcpyDeviceToDevice,
                                          cuda->stream), "copying memory", error);
}

/* ---- behind a step ---------------------------------------------------------------------------------------------------- */

/* One that finds no room is no error: the read will go its own way. */
int cuda_fetch(struct backend *backend, struct span from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  struct locked *in = &cuda->in;
  if (!bytes || bytes > MOST_LANDING || cuda->n_fetched == MOST_FETCHED) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  if (!fits(in, bytes) && (in->used || grow(cuda, in, size_round_up(bytes, 256), error) != 0)) return in->used ? 0 : -1;
  void *at = cut(in, bytes);
  cuda->in_flight = cuda->landing = true;
  if (cuda_check(cuda, cudaMemcpyAsync(at, checked_place(from, bytes), bytes, cudaMemcpyDeviceToHost, cuda->stream), "fetching memory",
                 error) != 0)
    return -1;
  cuda->fetched[cuda->n_fetched++] = (struct fetched){from, bytes, at};
  return 0;
}

static const unsigned char *find_fetched(const struct cuda_backend *cuda, struct span from, size_t bytes) {
  for (int i = 0; i < cuda->n_fetched; i++) {
    const struct fetched *f = &cuda->fetched[i];
    if (f->from.memory == from.memory && f->from.offset <= from.offset && from.offset + bytes <= f->from.offset + f->bytes)
      return f->at + (from.offset - f->from.offset);
  }
  return NULL;
}

int cuda_read(struct backend *backend, void *to, struct span from, size_t bytes, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  if (!bytes) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  const unsigned char *place = checked_place(from, bytes), *here = find_fetched(cuda, from, bytes);
  if (!here) return transfer(cuda, to, place, bytes, cudaMemcpyDeviceToHost, "reading memory", error);
  if (cuda->landing && cuda_wait(cuda, error) != 0) return -1;
  memcpy(to, here, bytes);
  return 0;
}
