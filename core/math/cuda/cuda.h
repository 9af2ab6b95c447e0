/* cuda.h: the CUDA backend on its host side, private to core/math/cuda.
 *
 * C, like the rest of the daemon: only the kernels (*.cu) need CUDA's compiler. All that the engine's worker asks for goes to one
 * stream of ours and stays in flight until it waits, once for a step, or reads; what other threads do (alloc, write, matrices) runs
 * on their own streams and is done when it returns, so nobody waits for a lock while the device computes. */
#ifndef STEERD_CORE_MATH_CUDA_CUDA_H
#define STEERD_CORE_MATH_CUDA_CUDA_H

#include <cublas_v2.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/math/cuda/kernels.h"
#include "core/math/cuda/plugin.h"
#include "core/math/host.h"

/* Memory that a verb works in. It grows and never shrinks; graphs hold the addresses of what stands before SCRATCH_SAMPLE, so they go
 * when that grows. */
enum scratch_name {
  SCRATCH_NARROW,  /* x of a product in the type of the weights */
  SCRATCH_NARROW_NEXT, /* that of the product behind it, which may be made while it reads its own */
  SCRATCH_SUMS,    /* sums of a product of the library */
  SCRATCH_PARTIAL, /* chunks of attention */
  SCRATCH_ARRIVED, /* blocks of a kernel that are done; begins as zeros, and every kernel leaves zeros */
  SCRATCH_PATTERN, /* rows of scores */
  SCRATCH_ENCODE,  /* of encode.c */
  SCRATCH_SAMPLE,  /* of sample.c */
  SCRATCH_CHANGES, /* penalties and biases of draws */
  SCRATCH_BACK,    /* of the way back */
  SCRATCH_COUNT
};

struct scratch {
  unsigned char *at;
  size_t bytes;
};

/* The step's tables on the device. */
struct tables {
  struct table *device;
  size_t bytes;
};

/* Locked host memory, which the device reads or writes while the host goes on. It is cut into pieces one behind the other; when
 * nothing is in flight, all of it is free again. */
struct locked {
  unsigned char *at;
  size_t bytes, used;
};

/* Device memory that comes back behind a step: a read within it is a copy of host memory. */
struct fetched {
  struct span from;
  size_t bytes;
  const unsigned char *at;
};
#define MOST_FETCHED 64

/* Results of draws that come back behind a step. */
struct awaited {
  const struct sample_result *from; /* locked */
  struct sample_result *to;
  int32_t n;
};

struct graphs;
struct pages;

#define MOST_KERNELS 256

/* What was kept, on its way back: locked host memory, and how many entries of a row the last rows with thresholds had. */
struct codes_back {
  unsigned char *host;
  size_t bytes;
  int64_t expected;
};

/* Ways of large things to the device, those that nobody uses (upload.c). */
struct upload_way;
struct uploads {
  pthread_mutex_t mutex;
  struct upload_way *free;
  atomic_bool scratched; /* some way has its scratch */
};

struct cuda_backend {
  struct backend base;
  struct ops ops; /* a copy, for the name */
  char name[48];
  int device;
  bool deterministic, serial, apart, library;
  bool overlaps;    /* kernels begin while the one before them ends: device.cuh */
  _Atomic(const void *) prepared[MOST_KERNELS]; /* kernels that launch_prepare has seen, by their addresses */
  atomic_bool lost; /* the device does not do what it is asked any more: nothing is asked of it again */
  atomic_bool hung; /* it does not even answer: calls that wait for it (freeing memory, too) would never return, and are not made */
  int wait_limit;   /* seconds that a step may take */
  _Atomic(pthread_t) worker; /* the thread that runs steps; what it asks for goes to `stream` */
  cudaStream_t stream;
  bool in_flight;            /* something of a verb that has returned has not been waited for */
  bool landing;              /* some fetch has not */
  struct locked out, in;     /* to the device and back */
  struct fetched fetched[MOST_FETCHED];
  int n_fetched;
  struct awaited awaited;
  cudaMemPool_t pool;        /* of blocks that come and go with requests */
  cudaMemPool_t lent;        /* of matrices that come and go; NULL: they are the driver's, as others are */
  cublasHandle_t blas;
  void *workspace;
  struct scratch scratch[SCRATCH_COUNT];
  bool capturing; /* nothing may be allocated */
  struct tables tables;
  struct graphs *graphs;
  struct pages *pages;
  struct watch *watch; /* NULL: nobody looks */
  struct codes_back codes;
  struct uploads uploads;
};

/* ---- cuda.c ---- */

/* -1 with an error that says what was tried, unless `status` is success. */
int cuda_check(struct cuda_backend *cuda, cudaError_t status, const char *what, struct error *error) MUST_CHECK;
/* Makes this device the calling thread's. */
cudaError_t cuda_choose(struct cuda_backend *cuda);
/* The same, for who is about to work with it; -1 when the device is lost. */
int cuda_enter(struct cuda_backend *cuda, struct error *error) MUST_CHECK;
/* Wait until a stream has nothing left to do, or comes to an event; not for ever. */
int cuda_wait_stream(struct cuda_backend *cuda, cudaStream_t stream, struct error *error) MUST_CHECK;
int cuda_wait_event(struct cuda_backend *cuda, cudaEvent_t event, struct error *error) MUST_CHECK;
/* Waits until all that was asked of the worker's stream is done, in flight or asked for by the verb that waits. */
int cuda_wait(struct cuda_backend *cuda, struct error *error) MUST_CHECK;
/* The calling thread is the worker, and is about to ask for something that changes memory of the device. -1 when the device is lost. */
int cuda_begin(struct cuda_backend *cuda, struct error *error) MUST_CHECK;
/* NULL with an error; while a graph is captured, NULL where it would have to grow. */
void *cuda_scratch(struct cuda_backend *cuda, enum scratch_name name, size_t bytes, struct error *error) MUST_CHECK;

/* ---- watch.c ---- */

/* By STEERD_CUDA_WATCH; NULL where it says nothing. */
struct watch *watch_new(void);
void watch_free(struct watch *watch); /* prints its table */
/* The calling thread's launches are this one's from now on. */
void watch_enter(struct watch *watch);
/* The same for launches that are no part of a step: failures are told, times are not. */
void watch_aside(struct watch *watch);
/* What the next launches are for; w, where there is one: the weights that they read. */
void watch_op(struct watch *watch, cudaStream_t stream, const char *what, int64_t rows, const struct matrix *w);
/* Behind a wait. */
void watch_collect(struct watch *watch);

/* ---- memory.c ---- */

int cuda_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error);
void cuda_free(struct backend *backend, struct memory *memory);
int cuda_room(struct backend *backend, size_t *left, size_t *total, struct error *error);
/* Device memory as such; ERROR_MEMORY says how much there is. */
int cuda_take(struct cuda_backend *cuda, size_t bytes, void **out, struct error *error) MUST_CHECK;
int cuda_open_pool(struct cuda_backend *cuda, struct error *error) MUST_CHECK;
/* Memory of a matrix that comes and goes: for the calling thread's own stream (cudaStreamPerThread), and for others when that has been
 * waited for. It goes back behind what cuda_stream() was asked for. */
int cuda_lend(struct cuda_backend *cuda, size_t bytes, void **out, struct error *error) MUST_CHECK;
void cuda_give_back(struct cuda_backend *cuda, void *data);

/* ---- transfer.c ---- */

int cuda_write(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error);
int cuda_read(struct backend *backend, void *to, struct span from, size_t bytes, struct error *error);
int cuda_copy(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error);
int cuda_fetch(struct backend *backend, struct span from, size_t bytes, struct error *error);
/* A piece of locked memory, for the device to read or write until the worker waits. What it is for is asked of the stream before the
 * next piece is: that may wait. NULL with an error. */
void *cuda_stage(struct cuda_backend *cuda, size_t bytes, struct error *error) MUST_CHECK;
void cuda_free_locked(struct cuda_backend *cuda);

/* ---- upload.c ---- */

#define UPLOAD_BYTES ((size_t)8 << 20) /* of a stage: what the bus takes in a sixth of a millisecond */
#define UPLOAD_STAGES 2

/* One piece on its way. */
struct upload_stage {
  unsigned char *host;   /* locked */
  unsigned char *device; /* scratch of the same size; NULL: not taken yet */
  cudaEvent_t taken;     /* the device has done with both */
  bool full;             /* and that has not been waited for */
};

struct upload_way {
  struct upload_way *next;
  struct upload_stage stages[UPLOAD_STAGES];
  size_t bytes; /* of each */
  unsigned turn;
  struct pool *pool; /* who fills it beside the calling thread; NULL: nobody */
};

/* A way for the calling thread, on cudaStreamPerThread, until upload_end. `bytes`: of what is sent; `least`: of a stage. */
struct upload_way *upload_begin(struct cuda_backend *cuda, size_t bytes, size_t least, struct error *error) MUST_CHECK;
/* Waits until all of it has arrived, also after a failure. */
int upload_end(struct cuda_backend *cuda, struct upload_way *way, struct error *error) MUST_CHECK;
/* The next stage, free to be filled; and when the stream has been asked for all that it is for. */
struct upload_stage *upload_stage(struct cuda_backend *cuda, struct upload_way *way, struct error *error) MUST_CHECK;
int upload_sent(struct cuda_backend *cuda, struct upload_stage *stage, struct error *error) MUST_CHECK;
/* NULL: there is no room for it. */
void *upload_scratch(struct cuda_backend *cuda, const struct upload_way *way, struct upload_stage *stage);
/* Lines of bytes, `pitch` bytes from one to the next, one behind the other. */
void upload_fill(struct upload_way *way, void *to, const void *from, size_t lines, size_t length, size_t pitch);
void uploads_close(struct cuda_backend *cuda);
/* Of the device's memory: what the first way will yet take. */
size_t uploads_to_come(struct cuda_backend *cuda);

/* ---- matrix.c ---- */

struct cuda_matrix {
  struct matrix base;
  bool lent;  /* its memory (memory.c) */
  void *data; /* [n_out][ld], zero beyond n_in */
  int64_t ld; /* a multiple of 8 elements: pieces of 16 bytes, and what tensor cores ask for */
};
int cuda_matrix_new(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                    struct matrix **out, struct error *error);
int cuda_matrix_new_as(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                       const struct matrix_wish *wish, struct matrix **out, struct error *error);
void cuda_matrix_free(struct backend *backend, struct matrix *matrix);
struct device_matrix cuda_matrix_view(const struct matrix *matrix);

/* ---- table.c ---- */

int cuda_tables_fill(struct cuda_backend *cuda, const struct step *step, struct error *error) MUST_CHECK;

/* ---- work.c ---- */

#define WORK_MOST_SPREAD 8192 /* chunks of a step that go to blocks of their own: as much as they leave needs room */
enum work_kind { WORK_PROMPT, WORK_WALKED, WORK_SPREAD, WORK_KINDS }; /* rows of prompts, other rows, chunks of other rows */
struct work_size {
  int32_t n[WORK_KINDS];
};
struct work_size cuda_work_size(const struct step *step);
void cuda_work_fill(const struct step *step, const struct work_size *size, struct table_work *to);

/* ---- pages.c ---- */

struct pages *pages_new(struct error *error) MUST_CHECK;
void pages_free(struct cuda_backend *cuda);
/* Where the pages of each slot lie on the device, NULL for those that go along with the step; until the next call. NULL with an error. */
const int32_t *const *pages_keep(struct cuda_backend *cuda, const struct step *step, struct error *error) MUST_CHECK;
void pages_forget(struct cuda_backend *cuda); /* what was sent may not have arrived */

/* ---- product.c ---- */

/* Whether a product of so many rows is one of our kernels, not the library. */
bool cuda_product_few(const struct cuda_backend *cuda, int64_t rows, int32_t dtype);
/* Whether so many rows go to our kernel for small matrices (launch_product_narrowed): only where they are not few. */
bool cuda_product_small(const struct cuda_backend *cuda, int64_t rows, const struct device_matrix *w);
/* Where a product of rows [0, rows) that are not few reads them in the type of its weights. */
int cuda_narrow_rows(struct cuda_backend *cuda, enum scratch_name in, int64_t rows, const struct device_matrix *w, struct narrow_rows *out,
                     struct error *error) MUST_CHECK;
/* x as cuda_narrow_rows has it; there: it has been put there, else the product sees to it where it must. */
struct narrow_x {
  enum scratch_name in;
  bool there;
};
/* y = cap(act(x W^T + bias)) for at most `rows` rows. */
int cuda_product(struct cuda_backend *cuda, int64_t rows, const struct product_args *args, struct narrow_x narrowed,
                 struct error *error) MUST_CHECK;

/* ---- run.c ---- */

size_t cuda_kv_block_bytes(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish);
int cuda_run(struct backend *backend, const struct op *list, size_t count, const struct step *step,
             struct error *error);

/* What launches depend on beside the list: a recorded graph serves every step with the same shape. */
struct shape {
  struct bucket bucket;
  int32_t work;    /* blocks of attention for each head, but for rows of prompts */
  bool spread;     /* some of them have a chunk each */
  bool prompts;    /* slots of PROMPT_ROWS rows and more */
  bool arrivals;   /* rows that begin above layer 0 */
  bool single;     /* one row for each text */
  bool z_items, mlp_items; /* edits or taps at attn_z, at mlp_post, of any layer */
};
/* Launches the list on the stream. */
int cuda_launch_list(struct cuda_backend *cuda, const struct op *list, size_t count, const struct step *step,
                     const struct shape *shape, struct error *error) MUST_CHECK;

/* ---- graph.c ---- */

/* Runs the list by a graph where one is recorded, or is now: 1. 0: it is to be launched op by op. -1 with an error. */
int graphs_run(struct cuda_backend *cuda, const struct op *list, size_t count, const struct step *step,
               const struct shape *shape, struct error *error) MUST_CHECK;
void graphs_drop(struct cuda_backend *cuda); /* all of them: an address that they hold has changed */
struct graphs *graphs_new(struct error *error) MUST_CHECK;
void graphs_free(struct cuda_backend *cuda);

/* ---- encode.c ---- */

int cuda_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error);
void cuda_encode_close(struct cuda_backend *cuda);

/* ---- splice.c ---- */

int cuda_hold(struct cuda_backend *cuda, const struct table *table, const struct op *op, struct error *error) MUST_CHECK;
int cuda_splice(struct cuda_backend *cuda, const struct table *table, const struct op *op, struct error *error) MUST_CHECK;
int cuda_put(struct cuda_backend *cuda, const struct table *table, const struct op *op, struct error *error) MUST_CHECK;

/* ---- vjp.c ---- */

int cuda_vjp(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error);

/* ---- sample.c ---- */

int cuda_sample(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
                struct sample_result *results, struct error *error);
/* They are there. */
void cuda_sample_take(struct awaited *awaited);

/* Where the calling thread's transfers go. */
static inline cudaStream_t cuda_stream(struct cuda_backend *cuda) {
  return pthread_equal(atomic_load(&cuda->worker), pthread_self()) ? cuda->stream : cudaStreamPerThread;
}

static inline struct device_rows device_rows_of(struct rows rows) {
  return (struct device_rows){span_floats(rows.at), rows.ld};
}

#endif
