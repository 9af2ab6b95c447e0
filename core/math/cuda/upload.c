/* upload.c: ways from the host's memory to the device for what is large: two pieces of locked memory in turn, so that one is filled
 * while the device fetches the other. Knows no matrix.
 *
 * A copy out of memory that is not locked goes through locked memory of the driver's, which one thread fills; a file is read from memory
 * at several times that speed by a few. A way belongs to one upload at a time and waits for nobody: who comes while all are
 * taken gets a new one. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/pool.h"
#include "core/math/cuda/cuda.h"

#define SMALL_BYTES ((size_t)256 << 10)     /* of a stage; those of small models need no more */
#define ALONE_BYTES ((size_t)1 << 20)       /* less is not worth waking others for */
#define TOGETHER_BYTES ((size_t)256 << 10)  /* that a thread copies at a time */
#define MOST_THREADS 4                      /* together they read faster than the bus takes it */

/* ---- filling ------------------------------------------------------------------------------------------------------- */

struct fill {
  unsigned char *to;
  const unsigned char *from;
  size_t lines, length, pitch, together; /* bytes; lines that are copied at a time */
};

static void fill_lines(const struct fill *f, size_t begin, size_t end) {
  if (f->pitch == f->length) {
    memcpy(f->to + begin * f->length, f->from + begin * f->length, (end - begin) * f->length);
    return;
  }
  for (size_t i = begin; i < end; i++) memcpy(f->to + i * f->length, f->from + i * f->pitch, f->length);
}

static void fill_together(struct pool_worker *worker, void *context) {
  const struct fill *f = context;
  size_t begin, end;
  while (pool_take(worker, f->lines, f->together, &begin, &end)) fill_lines(f, begin, end);
}

void upload_fill(struct upload_way *way, void *to, const void *from, size_t lines, size_t length, size_t pitch) {
  struct fill f = {to, from, lines, length, pitch, 0};
  if (length == pitch) f = (struct fill){to, from, lines * length, 1, 1, 0}; /* one line: cut anywhere */
  f.together = size_max(TOGETHER_BYTES / f.length, 1);
  if (way->pool && lines * length >= ALONE_BYTES)
    pool_run(way->pool, fill_together, &f);
  else
    fill_lines(&f, 0, f.lines);
}

/* ---- stages --------------------------------------------------------------------------------------------------------- */

static void clear_stages(struct upload_way *way) {
  for (int i = 0; i < UPLOAD_STAGES; i++) {
    struct upload_stage *stage = &way->stages[i];
    cudaFreeHost(stage->host);
    cudaFree(stage->device);
    if (stage->taken) cudaEventDestroy(stage->taken);
    *stage = (struct upload_stage){0};
  }
  way->bytes = 0;
}

/* Nothing of it is in use. */
static int make_stages(struct cuda_backend *cuda, struct upload_way *way, size_t bytes, struct error *error) {
  clear_stages(way);
  for (int i = 0; i < UPLOAD_STAGES; i++) {
    void *host = NULL;
    if (cuda_check(cuda, cudaMallocHost(&host, bytes), "taking locked memory", error) != 0) return -1;
    way->stages[i].host = host;
    if (cuda_check(cuda, cudaEventCreateWithFlags(&way->stages[i].taken, cudaEventDisableTiming), "making an event", error) != 0)
      return -1;
  }
  way->bytes = bytes;
  return 0;
}

/* Waits until the device has taken what was in it. */
struct upload_stage *upload_stage(struct cuda_backend *cuda, struct upload_way *way, struct error *error) {
  struct upload_stage *stage = &way->stages[way->turn++ % UPLOAD_STAGES];
  if (!stage->full) return stage;
  stage->full = false;
  return cuda_wait_event(cuda, stage->taken, error) != 0 ? NULL : stage;
}

int upload_sent(struct cuda_backend *cuda, struct upload_stage *stage, struct error *error) {
  if (cuda_check(cuda, cudaEventRecord(stage->taken, cudaStreamPerThread), "writing a matrix", error) != 0) return -1;
  stage->full = true;
  return 0;
}

void *upload_scratch(struct cuda_backend *cuda, const struct upload_way *way, struct upload_stage *stage) {
  void *device;
  if (!stage->device && cuda_take(cuda, way->bytes, &device, NULL) == 0) stage->device = device;
  if (stage->device && way->bytes >= UPLOAD_BYTES) atomic_store(&cuda->uploads.scratched, true);
  return stage->device;
}

size_t uploads_to_come(struct cuda_backend *cuda) { return atomic_load(&cuda->uploads.scratched) ? 0 : UPLOAD_STAGES * UPLOAD_BYTES; }

/* ---- ways ----------------------------------------------------------------------------------------------------------- */

static struct upload_way *take_free(struct cuda_backend *cuda) {
  pthread_mutex_lock(&cuda->uploads.mutex);
  struct upload_way *way = cuda->uploads.free;
  if (way) cuda->uploads.free = way->next;
  pthread_mutex_unlock(&cuda->uploads.mutex);
  return way;
}

static void give_free(struct cuda_backend *cuda, struct upload_way *way) {
  pthread_mutex_lock(&cuda->uploads.mutex);
  way->next = cuda->uploads.free;
  cuda->uploads.free = way;
  pthread_mutex_unlock(&cuda->uploads.mutex);
}

/* On a small machine the calling thread is enough: others have work of their own. */
static struct upload_way *new_way(struct error *error) {
  struct upload_way *way = calloc(1, sizeof *way);
  int threads = pool_processors() / 4;
  if (!way) return error_memory(error, sizeof *way), NULL;
  if (threads > 1) way->pool = pool_new(threads < MOST_THREADS ? threads : MOST_THREADS, NULL);
  return way;
}

struct upload_way *upload_begin(struct cuda_backend *cuda, size_t bytes, size_t least, struct error *error) {
  size_t stage = size_max(bytes <= SMALL_BYTES ? SMALL_BYTES : UPLOAD_BYTES, size_round_up(least, 256));
  struct upload_way *way = take_free(cuda);
  watch_aside(cuda->watch);
  if (!way && !(way = new_way(error))) return NULL;
  if (stage <= way->bytes || make_stages(cuda, way, stage, error) == 0) return way;
  clear_stages(way);
  give_free(cuda, way);
  return NULL;
}

int upload_end(struct cuda_backend *cuda, struct upload_way *way, struct error *error) {
  int failed = cuda_wait_stream(cuda, cudaStreamPerThread, error);
  for (int i = 0; i < UPLOAD_STAGES; i++) way->stages[i].full = false;
  give_free(cuda, way);
  return failed;
}

void uploads_close(struct cuda_backend *cuda) {
  for (struct upload_way *way; (way = take_free(cuda));) {
    clear_stages(way);
    pool_free(way->pool);
    free(way);
  }
  pthread_mutex_destroy(&cuda->uploads.mutex);
}
