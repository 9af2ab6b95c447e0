/* kernels.h: what the host side of the CUDA backend and its kernels say to each other: the step's tables as they lie in
 * device memory, the arguments of each kernel, and one function that launches each. C and C++.
 *
 * Everything that changes from step to step is read from `struct table`, which has a fixed place, so that a launch can be
 * recorded in a graph and repeated: the arguments hold what belongs to the model (buffers, weights, points), grids
 * are sized by a bucket of rows, and threads beyond the rows of the step return at once. All pointers are device
 * pointers. Rows are those of ops.h. */
#ifndef STEERD_CORE_MATH_CUDA_KERNELS_H
#define STEERD_CORE_MATH_CUDA_KERNELS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "core/math/ops.h"

/* Whether kernels that the calling thread launches may begin before their turn (device.cuh); as cuda_enter has it. */
bool launches_overlap(void);
/* Before a kernel is launched: what helps it to begin beside the one before it. */
void launch_prepare(const void *kernel);

/* watch.c: whether the calling thread's launches are looked at, and what is to be done behind each of them: gives `status`, or how
 * the kernel ended where it was waited for. */
struct launch_size {
  unsigned x, y, z, threads;
  size_t shared;
};
bool launches_watched(void);
cudaError_t launch_watched(cudaStream_t stream, const void *kernel, const struct launch_size *size, cudaError_t status);

struct table_edit {
  int32_t kind, column_begin, column_end;
  int32_t row_begin; /* of the item, for REPLACE */
  float value, bias, threshold, fold;
  const float *v, *enc;
};

struct table_tap {
  float *to;
  int64_t ld;
};

struct table_splice {
  int32_t x, y, with_error, n_parts, n_changes;
  const struct edit_feature *changes;
};

/* Blocks of a text, as of struct kv_pages. */
struct table_pages {
  const int32_t *block;
  int32_t stride;
};

/* A part of a step's attention, for all heads: a row, or one chunk of its positions. What is found of a chunk is left at `place`
 * + chunk for who brings the row's chunks together. */
struct table_work {
  int32_t row, slot;
  int32_t chunk; /* -1: all that the row sees */
  int32_t place;
};

/* A `struct step`, at the front of the block that holds its arrays. NULL where the step has none. */
struct table {
  int32_t n_layer, n_rows, n_slots, n_logit_rows;
  const int32_t *token, *position, *source, *logit_row;
  const int32_t *slot; /* of each row */
  const uint8_t *origin;
  const struct step_slot *slots;
  const struct row_range *active, *arriving;
  const int32_t *keys;
  const struct table_pages *pages; /* of each slot */
  unsigned char *kv;
  const float *saved;
  const struct table_edit *edits;
  const struct row_range *edit_rows; /* beside edits: what is looked through for each row */
  const int32_t *edit_begin;
  const struct table_tap *taps;
  const struct row_range *tap_rows;
  const int32_t *tap_begin;
  const struct row_range *splice_groups;
  const struct table_splice *splices;
  int32_t n_prompt_work, n_work; /* those of rows of prompts stand in front (work.c) */
  const struct table_work *work;
};

/* How large a launch is made: at least the rows of the step. */
struct bucket {
  int32_t rows, logit_rows;
};
static inline int32_t bucket_rows(const struct bucket *bucket, enum row_set set) {
  return set == ROWS_LOGIT ? bucket->logit_rows : bucket->rows;
}

struct device_rows {
  float *at;
  int64_t ld;
};

/* Rows that are put down once more where they are made, in the type of the weights that they are multiplied by next. at NULL:
 * nobody asks for them. */
struct narrow_rows {
  void *at;
  int64_t ld;
  int32_t dtype; /* enum dtype: F16 or BF16 */
};

struct device_norm {
  int32_t kind; /* enum norm_kind */
  float eps;
  const float *gain, *bias;
};

struct device_matrix {
  const void *data; /* [n_out][ld], zero beyond n_in */
  int64_t n_out, n_in, ld;
  int32_t dtype; /* enum dtype: F32, F16, BF16 */
};

/* ---- rows.cu: what happens to whole rows, one block a row -------------------------------------------------------- */

/* Up to four ops that follow each other on the residual, in one launch; a stage that is not there has layer -1, a norm that is
 * not there the kind NORM_NONE. */
struct row_args {
  const struct table *table;
  int64_t width;
  struct device_rows resid;
  /* OP_SUBLAYER without its norm */
  int32_t sub_set, sub_layer, out_point, resid_point;
  struct device_rows out;
  struct device_norm out_norm; /* of `out`, in place, before anything else */
  /* OP_BEGIN; origins: rows that begin here are filled; its edits and taps */
  int32_t begin_layer, begin_point;
  bool origins;
  struct device_matrix embed;
  const float *positions;
  float embed_scale;
  struct device_rows embedded, placed;
  /* the norm of the residual, into y */
  int32_t norm_set, norm_layer;
  struct device_norm norm;
  struct device_rows y;
  struct narrow_rows narrow; /* of y */
};
cudaError_t launch_rows(cudaStream_t stream, const struct bucket *bucket, const struct row_args *args);

/* Edits and taps of columns [column, column + width) of a point. */
struct point_args {
  const struct table *table;
  int32_t set, layer, point;
  int64_t column, width;
  struct device_rows x;
  bool part, taps; /* part: the edits [first, last) of the point's, and its taps where `taps` */
  int32_t first, last;
  struct narrow_rows narrow; /* of x */
};
cudaError_t launch_point(cudaStream_t stream, const struct bucket *bucket, const struct point_args *args);

/* OP_NORM and its three parts. gathers: x are rows of the step (OP_GATHER), of which those of the set are normed. */
struct norm_args {
  const struct table *table;
  int32_t code, set, layer, parts;
  bool gathers;
  int64_t width;
  struct device_rows x, y, scale;
  struct device_norm norm;
  struct narrow_rows narrow; /* of y, of an OP_NORM of one part */
};
cudaError_t launch_norm(cudaStream_t stream, const struct bucket *bucket, const struct norm_args *args);

/* OP_SOLU. */
struct solu_args {
  const struct table *table;
  int32_t set, layer;
  int64_t width;
  struct device_rows x, y;
};
cudaError_t launch_solu(cudaStream_t stream, const struct bucket *bucket, const struct solu_args *args);

/* ---- elements.cu: what happens to single elements ------------------------------------------------------------------ */

/* OP_GATE, OP_PLACE, OP_GATHER, OP_COPY, OP_KEEP, OP_CAP, OP_DELTA, OP_EMBED. */
struct element_args {
  const struct table *table;
  int32_t code, set, layer, act, point;
  int64_t width, begin, end;
  struct device_rows x, up, y;
  const float *places;
  float scale; /* soft cap or scale of the embedding */
  struct device_matrix embed;
  struct narrow_rows narrow; /* of y, of GATE, PLACE and GATHER */
};
cudaError_t launch_elements(cudaStream_t stream, const struct bucket *bucket, const struct element_args *args);

struct rotate_args {
  const struct table *table;
  int32_t set, layer, heads, d_head, dims, pairing;
  struct device_rows x;
  const float *turns;
  bool back; /* cotangents: by the other sign */
};
cudaError_t launch_rotate(cudaStream_t stream, const struct bucket *bucket, const struct rotate_args *args);

/* ---- product.cu ----------------------------------------------------------------------------------------------------- */

/* y = cap(act(x W^T + bias)) for a set of rows, or for rows [0, n) where table is NULL. Gated (gate.data is not NULL, of the shape
 * of w): y = act(x gate^T + gate_bias) * (x W^T + bias). */
struct product_args {
  const struct table *table;
  int32_t set, layer;
  int64_t n;
  struct device_matrix w, gate;
  struct device_rows x, y;
  const float *bias, *gate_bias;
  int32_t act;
  float soft_cap;
  int32_t room; /* as of OP_LINEAR */
  struct narrow_rows narrow; /* of y */
};
/* By reading the weights once and x as it is: for few rows, and where the order of sums must not depend on how many there
 * are. _few is for weights in f32, _tensor for those of 16 bits. Both take any number of rows, some at a time. */
#define PRODUCT_FEW_F32 8
#define PRODUCT_FEW 32
cudaError_t launch_product_few(cudaStream_t stream, int64_t rows, const struct product_args *args);
cudaError_t launch_product_tensor(cudaStream_t stream, int64_t rows, const struct product_args *args);
/* Whether _tensor takes them gated, with the bits that it would give one after the other. */
static inline bool product_takes_gate(const struct device_matrix *w, const struct device_rows *x) {
  return w->dtype != DTYPE_F32 && w->n_in % 8 == 0 && x->ld % 4 == 0 && (uintptr_t)x->at % 16 == 0;
}

/* For matrices that are small beside what a launch costs, from 33 rows on: x as launch_product_narrow leaves it, all else as
 * _tensor. */
cudaError_t launch_product_narrowed(cudaStream_t stream, int64_t rows, const struct product_args *args, const void *x);

/* Around a product of a library over rows [0, rows): x in the weights' type, zero where the step has no such row, into
 * to [rows][w.ld]; and what becomes of its sums [rows][ld]. */
cudaError_t launch_product_narrow(cudaStream_t stream, int64_t rows, const struct product_args *args, void *to);
cudaError_t launch_product_finish(cudaStream_t stream, int64_t rows, const struct product_args *args, const float *sums,
                                  int64_t ld);

/* ---- rows_tensor.cu -------------------------------------------------------------------------------------------------- */

/* The stages of rows and a product of what their norm gives (rows.y, which is written too; product.x is not read) in one launch:
 * the same bits as one behind the other. The product writes neither rows.resid nor rows.out. */
struct rows_product_args {
  struct row_args rows;
  struct product_args product;
  uint32_t *count; /* 0, and 0 again afterwards */
};
/* Whether it can, and is worth it: weights of 16 bits, few and narrow rows, no more blocks than find room at once. */
bool rows_take_product(const struct bucket *bucket, const struct rows_product_args *args);
cudaError_t launch_rows_product(cudaStream_t stream, const struct bucket *bucket, const struct rows_product_args *args);

/* ---- attend.cu ------------------------------------------------------------------------------------------------------- */

#define ATTEND_CHUNK 128 /* positions that a block weighs at a time; its threads */
#define ATTEND_POINT_WIDTH 4096

struct attend_args {
  const struct table *table;
  int32_t layer, n_head, n_kv_head, d_head, window;
  float scale, soft_cap;
  struct device_rows qkv, z;
  int64_t q, k, v;
  size_t block_bytes;
  int32_t kv_type, kv_width, kv_element; /* enum dtype of the cache, elements of a head there, bytes of one (cache.cuh) */
  int32_t work;   /* blocks for each head: at least as many as the step has for this kernel */
  float *partial; /* where rows are spread over blocks: [places][n_head] of d_head sums, the largest score and the weight */
  int32_t point;   /* attn_z, of at most ATTEND_POINT_WIDTH columns; -1: another launch's, or nobody's in this step */
  uint32_t *count; /* attend_counts of them, 0: blocks of a row that have done their part */
  bool ahead;      /* little enough is read to be asked for before it is this kernel's turn */
  /* Each text has one row. Then that row's key is kept here, with its value, and q and k are first normed and turned here. */
  bool own;
  struct device_norm q_norm, k_norm; /* RMS or NONE */
  int32_t dims, pairing;             /* as of rotate_args; at most 2 * ATTEND_CHUNK, 0: they are not turned */
  const float *turns;
  struct narrow_rows narrow;         /* of z, behind the edits of `point` */
  bool prompts;                      /* slots of PROMPT_ROWS rows and more are launch_attend_prompt's */
  /* OP_PATTERN: scratch [rows][n_head * keys] of rows [first, ...) */
  float *scratch;
  int32_t first, most_keys, scores_point, pattern_point;
};
size_t attend_partial_floats(const struct attend_args *args, int32_t places);
size_t attend_counts(const struct attend_args *args, int32_t rows);
/* Where rows are not `own`: keys and values of the step, before anybody attends to them. */
cudaError_t launch_attend_store(cudaStream_t stream, const struct bucket *bucket, const struct attend_args *args);
cudaError_t launch_attend(cudaStream_t stream, const struct attend_args *args);
/* attend_prompt.cu: for keys and values of 16 bits and heads of up to PROMPT_HEAD elements. Edits and taps are another launch's. */
#define PROMPT_ROWS 32 /* of a slot in a step: fewer have more blocks, and read no more, one by one */
#define PROMPT_HEAD 256
cudaError_t launch_attend_prompt(cudaStream_t stream, const struct bucket *bucket, const struct attend_args *args);
/* attend_pattern.cu: OP_PATTERN for `rows` rows from args->first. */
cudaError_t launch_pattern(cudaStream_t stream, int32_t rows, const struct attend_args *args);

/* ---- encode.cu ------------------------------------------------------------------------------------------------------- */

/* Rows of a group of the step's splices, from its row `first` on; table NULL: not those, but rows one after the other. */
struct group_rows {
  const struct table *table;
  int32_t group, first;
};

/* Rows brought to c(x) - subtract: one block a row. Clears the row's counters as well. Rows beyond those of the group are 0. For
 * splices also the rows as they are, and what brings a reconstruction back to a row. */
struct centre_args {
  struct group_rows of;
  struct device_rows x;
  float *to; /* [rows][width] */
  const float *subtract;
  int64_t width;
  int32_t norm; /* enum encode_norm */
  bool center_mean;
  float scale;
  int32_t *counters; /* [rows][n_counters] */
  int32_t n_counters;
  float *raw;             /* [rows][width]; NULL: not asked for */
  float *frame;           /* [rows][2]: factor and mean (struct splice); NULL: not asked for */
  struct device_rows kept; /* at not NULL: then these are 1 and the mean of kept_width elements of row y here */
  int64_t kept_width;
};
cudaError_t launch_centre(cudaStream_t stream, int64_t rows, const struct centre_args *args);

#define CHOOSE_PIECE 4096 /* features of a row that a block looks at */
#define CHOOSE_BINS 2048
static inline int64_t choose_pieces(int64_t n_feat) { return (n_feat + CHOOSE_PIECE - 1) / CHOOSE_PIECE; }
/* Of a row: how many are kept (TOPK: fire), and for TOPK the histogram. Cleared before. */
static inline int32_t choose_counters(int32_t kind) { return kind == ENCODE_TOPK ? 1 + CHOOSE_BINS : 1; }

/* What is kept of rows p + bias and the values it gets: rows behind each other, ascending features in each. */
struct choose_args {
  float *p;   /* [rows][ld], without their bias; overwritten */
  int64_t ld; /* of p, feature and order: a multiple of 4, not less than n_feat */
  int64_t n_feat;
  int32_t kind; /* enum encode_kind */
  int32_t k;    /* >= 1 where the kind has one */
  bool fold_selects;
  const float *bias, *threshold, *fold, *gain, *shift;
  int32_t *counters; /* [rows][n_counters] of choose_counters, all 0 */
  int32_t n_counters;
  int32_t *counts;  /* [rows][choose_pieces] scratch */
  int32_t *feature; /* [rows][ld] scratch */
  int32_t *order;   /* [rows][ld] scratch; TOPK */
  int32_t *start;   /* [rows + 1] where the entries of each row begin, and the end of the last */
  int32_t *index;   /* [first] entries, and those behind them */
  float *value;
  int64_t first;
  int32_t *more_index;
  float *more_value;
};
cudaError_t launch_choose(cudaStream_t stream, int64_t rows, const struct choose_args *args);

/* ---- splice.cu ------------------------------------------------------------------------------------------------------- */

/* Row x of each row of the group to row y of `to`. */
struct hold_args {
  struct group_rows of;
  struct device_rows x, to;
  int64_t width;
};
cudaError_t launch_hold(cudaStream_t stream, int64_t rows, const struct hold_args *args);

/* Kept features, changed as the step says, times their rows of the decoder, into rows y (struct splice). */
struct decode_args {
  struct group_rows of;
  const int32_t *start, *index; /* of choose_args: the codes of the rows from of.first on */
  const float *value;
  struct device_matrix w; /* a row for each feature */
  const float *factor, *bias, *frame; /* frame NULL: nothing is brought back */
  const float *skip;                  /* [rows][d_out]: what is added where the error is not kept; NULL: nothing */
  int64_t d_out;                      /* columns that have a bias and a skip */
  bool apart;                         /* rows y are not read: they become what is to be added or put elsewhere */
  struct device_rows y;
};
cudaError_t launch_decode(cudaStream_t stream, int64_t rows, const struct decode_args *args);

/* Rows x that were put aside to rows y, or added to them: OP_PUT. */
struct put_args {
  struct group_rows of;
  struct device_rows x, to;
  int64_t width;
};
cudaError_t launch_put(cudaStream_t stream, int64_t rows, const struct put_args *args);

/* ---- back.cu: the way back (struct vjp of ops.h) ---------------------------------------------------------------------- */

/* Rows [first, first + rows) of an op's buffers. Of OP_CODE_COUNT they are cleared. */
struct back_args {
  const struct table *table; /* of OP_GATHER, OP_POINT and OP_DELTA; else it may be NULL */
  int32_t code, set, layer, act, point, first, rows;
  int64_t width, piece;        /* of a row, and of what a norm takes for itself */
  int64_t begin, end;          /* columns of OP_KEEP; of OP_POINT the first one's number at its point */
  struct device_rows x, up;    /* what the op read; up: the gate's other, a norm's scale, rows in front of edits; of OP_CAP x is y */
  struct device_rows y;        /* cotangents of what it wrote */
  struct device_rows to, to_up; /* those of what it read */
  struct device_norm norm;
  bool hold;      /* what a norm divides by is a constant */
  float cap;
  float *scratch; /* of OP_POINT, where an edit asks what was in front of it: [rows][width] */
};
/* OP_GATE, OP_GAIN, OP_KEEP, OP_BEGIN, OP_NORM of the kind NONE, OP_PLACE, OP_COPY, OP_SUBLAYER, OP_CAP, OP_DELTA. */
cudaError_t launch_back_elements(cudaStream_t stream, const struct back_args *args);
cudaError_t launch_back_gather(cudaStream_t stream, const struct back_args *args);
cudaError_t launch_back_rotate(cudaStream_t stream, int32_t rows, const struct rotate_args *args); /* rows: [0, rows) has them */
/* OP_NORM, OP_NORM_SCALE, OP_NORMALIZE. */
cudaError_t launch_back_norm(cudaStream_t stream, const struct back_args *args);
cudaError_t launch_back_solu(cudaStream_t stream, const struct back_args *args);
cudaError_t launch_back_point(cudaStream_t stream, const struct back_args *args);

/* Of attention written out: rows at positions [position, position + rows), which see some of the keys at [begin, begin + keys). */
struct back_soften_args {
  float *p, *dp; /* [n_head][rows][ld]: scaled products, which become weights, and cotangents of weights, which become those of products
                    before they were scaled; dp NULL: nobody asks for them */
  int64_t ld;
  int32_t n_head, rows, position, begin, keys, window;
  float scale, soft_cap;
};
cudaError_t launch_back_soften(cudaStream_t stream, const struct back_soften_args *args);

/* Outputs [out, out + n) of a matrix of 16 bits in f32, [n][w->ld]. */
cudaError_t launch_widen(cudaStream_t stream, const struct device_matrix *w, int64_t out, int64_t n, float *to);

/* ---- arrange.cu ------------------------------------------------------------------------------------------------------ */

/* Lines of a file, one behind the other, into rows of a matrix: number j of line i to row i, column j; turned: to row j, column i. At
 * most 2^31 numbers. */
struct arrange_args {
  const void *from;
  int64_t lines, length; /* numbers of a line */
  int32_t from_dtype, to_dtype;
  bool turned;
  void *to;       /* where number 0 of line 0 goes */
  int64_t ld;     /* of `to` */
  int32_t across; /* launch_arrange's own */
};
cudaError_t launch_arrange(cudaStream_t stream, const struct arrange_args *args);

/* ---- sample.cu ------------------------------------------------------------------------------------------------------- */

#define SAMPLE_PART 4096   /* logits that a block reads */
#define SAMPLE_BINS 1024   /* by distance from the largest logit */
#define SAMPLE_SEGMENT 512 /* tokens that are gathered of a part */
#define SAMPLE_MOST_JOBS 72 /* of a launch: arguments have room for 4 KiB */

enum sample_kind {
  SAMPLE_GREEDY,
  SAMPLE_BY_INDEX, /* at random, nothing left out */
  SAMPLE_ORDERED,  /* at random, from what filters leave */
  SAMPLE_LIKELY    /* not a draw: the top_k most likely ones, and what log-probabilities take */
};

/* A draw, or the log-probabilities that go with one. Numbers as in struct sample_draw. Small, so that the draws of 64
 * texts go together. */
struct sample_job {
  int32_t kind : 8, row : 24, result; /* result: index into results */
  int32_t top_k, n_penalties, n_biases;
  int32_t changes; /* where its penalties begin in the changes; its biases stand behind them */
  double temperature, top_p, min_p, unit;
};

struct sample_args {
  struct device_rows logits;
  int64_t vocabulary;
  const struct sample_change *changes;
  unsigned char *scratch; /* [n_jobs] of job_bytes */
  size_t job_bytes;
  struct sample_result *results; /* may be memory of the host */
  int32_t parts, n_jobs;
  struct sample_job jobs[SAMPLE_MOST_JOBS];
};
#ifdef __cplusplus
static_assert(sizeof(struct sample_args) <= 4096, "arguments of a kernel");
#endif
static inline int32_t sample_parts(int64_t vocabulary) { return (int32_t)((vocabulary + SAMPLE_PART - 1) / SAMPLE_PART); }
size_t sample_job_bytes(int64_t vocabulary, bool changed);
cudaError_t launch_sample(cudaStream_t stream, const struct sample_args *args);

#ifdef __cplusplus
}
#endif
#endif
