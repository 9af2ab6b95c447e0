/* cpu.h: the fast CPU backend, private to core/math/cpu.
 *
 * Two halves. The drivers (cpu.c, run.c, product.c, pack.c, points.c, attend.c, encode.c) are plain C compiled for the
 * baseline: they cut work into units for the thread pool. The kernels (*.inc.h, compiled as kernels_*.c for
 * each instruction set) do the arithmetic of one unit and are reached through `struct kernels`.
 *
 * What keeps the summation rule: a lane of a vector is an output element, so the products of one output are
 * added by one chain of fused multiply-adds in the order of the inputs, whatever rows, tiles, blocks or threads
 * surround it. Blocking over the inputs stores the partial sums in f32, which is what the lanes hold anyway, and
 * loads them again: the chain goes on unchanged. Sums across lanes (norms, dot products, softmax) are taken in
 * sixteen lanes and folded by one fixed tree. */
#ifndef STEERD_CORE_MATH_CPU_CPU_H
#define STEERD_CORE_MATH_CPU_CPU_H

#include "core/base/pool.h"
#include "core/math/blocks.h"
#include "core/math/host.h"
#include "core/math/learn.h"
#include "core/math/sparse.h"
#include "core/math/vjp.h"

#define LANES 16 /* outputs of a panel, floats of a `vf` */

/* W in panels of 16 outputs: panel p holds [n_in][16] in the dtype of the file, zero beyond n_out. Of Q8 it holds blocks of Q8_INPUTS
 * inputs, the last one whole too: 16 scales in f16, then [Q8_INPUTS][16] numbers. */
struct cpu_matrix {
  struct matrix base;
  struct memory *memory;
  const unsigned char *data;
  int64_t n_panels;
  size_t panel_bytes; /* from panel to panel; a little more than the panel where that would be a power of two */
};

#define Q8_BLOCK (LANES * (2 + Q8_INPUTS)) /* bytes */

/* Bytes of an input of a panel. Of Q8 its share of a block, so that there the lines of multiples of Q8_INPUTS alone have a place. */
static inline size_t panel_line(enum dtype dtype) {
  return dtype == DTYPE_Q8 ? Q8_BLOCK / Q8_INPUTS : LANES * dtype_size(dtype);
}

/* The way back through attention: some rows of a text, all heads of one KV head. */
struct attend_back {
  const struct op *op;
  const struct vjp *vjp;
  int32_t first; /* row of position 0 */
  struct row_range rows;
  int kv_head;
  int64_t room;  /* floats of each of the three parts of scratch: for all that a row sees, whole vectors */
  bool hold_pattern;
};

/* ---- kernels ----------------------------------------------------------------------------------------- */

#define TILE_ROWS 12   /* most rows of a tile on any instruction set */
#define STREAM_PANELS 4 /* panels that a single row meets at once, at most */

struct product;

/* Memory that will be wanted soon: one stream for each panel of a tile, `stride` bytes apart, fetched `step`
 * bytes further with each input. */
struct ahead {
  const unsigned char *at;
  size_t stride, step;
};

/* c[r][0 .. 16 panels) (+)= sum over k < n of x[k][r] w[k], for a tile of rows packed as x [n][rows]; weights as they are
 * kept, from a multiple of Q8_INPUTS on, panel_bytes from panel to panel. `add`: go on from what c holds, else from zero. wide, not for F32: the weights in f32 are
 * written there too, panels WIDE_FLOATS apart, n <= BLOCK_INPUTS; may be NULL. */
#define BLOCK_INPUTS 128 /* inputs of a block that several tiles share */
#define WIDE_FLOATS (BLOCK_INPUTS * LANES)
typedef void tile_fn(int64_t n, const unsigned char *w, size_t panel_bytes, const float *x, float *c, bool add, float *wide,
                     const struct ahead *ahead);

struct attend_unit {
  const struct op *op;
  const struct step *step;
  int slot, kv_head;
  struct row_range rows; /* of the step, inside the slot */
};

struct kernels {
  const char *name;
  /* tile[dtype of the weights][i][rows - 1]: kernel of 2^i panels; tile_rows[i]: the tallest there is, 0 when none. */
  tile_fn *const *tile[DTYPE_Q8 + 1][3];
  int tile_rows[3];
  int many; /* the i for more rows than any tile holds */
  /* c[0 .. 16 panels) = x W^T of one row, weights as they are kept; 1 <= panels <= STREAM_PANELS. next: panels
   * that will be wanted after these. */
  void (*stream)(enum dtype dtype, int64_t n, const unsigned char *w, size_t panel_bytes, int panels,
                 const unsigned char *next, const float *x, float *c);
  /* sums[r] += sum over k < n of x[r * ld + k] w[k], for each of some rows; the bits of a product's output. */
  void (*chain)(int64_t n, const float *w, const float *x, int64_t ld, int64_t rows, float *sums);
  /* What becomes of finished sums c [rows][16 panels]: see struct product. */
  void (*finish_linear)(const struct product *product, int64_t row, int rows, int64_t panel, int panels, const float *c);
  void (*finish_encode)(const struct product *product, int64_t row, int rows, int64_t panel, int panels, const float *c);

  float (*dot)(const float *a, const float *b, int64_t n);
  float (*mean)(const float *x, int64_t n);
  void (*add_scaled)(float *h, float scale, const float *v, int64_t n); /* h += scale v */
  void (*norm)(const struct norm *norm, int64_t n, const float *x, float *y);
  /* The same in three pieces, with the same bits. */
  float (*norm_scale)(const struct norm *norm, int64_t n, const float *x);
  void (*normalize)(const struct norm *norm, int64_t n, const float *x, float scale, float *y);
  void (*gain)(const struct norm *norm, int64_t n, const float *x, float *y);
  void (*cap)(float cap, int64_t n, float *y); /* y = cap tanh(y / cap) */
  void (*gate)(enum activation act, int64_t n, const float *x, const float *up, float *y); /* up may be NULL */
  void (*solu)(int64_t n, const float *x, float *y);
  /* Turns the pairs of one head; table: dims / 2 cosines, then the sines. */
  void (*rotate)(enum rotary_pairing pairing, int64_t dims, const float *table, float *x);
  void (*attend)(const struct attend_unit *unit, float *scratch);
  /* The k-th largest of n values >= 0, padded to a whole vector by zeros; 1 <= k <= n. known: at least k are not below it; 0 will do. */
  float (*kth_largest)(const float *value, int64_t n, int64_t k, float known);

  /* Ways back (back.inc.h). g: the cotangents of what the op has written, which norm_back changes. */
  void (*gate_back)(enum activation act, int64_t n, const float *x, const float *up, const float *g, float *to, float *to_up);
  void (*norm_back)(const struct norm *norm, int64_t n, const float *x, float *g, bool hold, float *to);
  void (*attend_back)(const struct attend_back *unit, float *scratch);
  void (*add_lanes)(int64_t n, const float *g, const float *w, float *sums); /* sums[i][lane] += g[lane] w[i][lane], i < n */
  void (*widen)(enum dtype dtype, const unsigned char *panel, int64_t first, int64_t n, float *to); /* n inputs from `first` on: [n][LANES] */

  struct learn learn; /* ops.learn */
};

extern const struct kernels kernels_generic, kernels_avx2, kernels_avx512;

/* ---- products ---------------------------------------------------------------------------------------- */

/* y = x W^T over some rows, and what to do with the sums. */
struct product {
  const struct kernels *kernels;
  const struct cpu_matrix *w;
  const float *x; /* row 0 */
  int64_t ld_x, rows;
  float *tiles;   /* x packed by product_pack; not needed for one row */
  /* Of the way back: of every `period` rows of x the first `used` are those that count (0: all), the product's first one being number `first` of
   * them; and inputs in front of `begin`, whole lanes, are 0. */
  int64_t period, used, first, begin;
  const float *bias;
  void (*finish)(const struct product *product, int64_t row, int rows, int64_t panel, int panels, const float *c);
  /* finish_linear */
  float *y;
  int64_t ld_y;
  enum activation act;
  float soft_cap;
  /* finish_encode: what is above the limit is kept */
  const float *threshold;
  struct keeper *keeper; /* of the calling thread; NULL: no encode */
};

/* Where row i of a product lies in x. */
static inline int64_t product_row(const struct product *product, int64_t i) {
  i += product->first;
  return product->period ? i / product->used * product->period + i % product->used : i;
}

/* Floats of product.tiles, and of a thread's scratch. */
size_t product_tile_floats(int64_t rows, int64_t n_in);
size_t product_scratch_floats(void);

/* Both are called by all threads of a run. pack ends with a barrier; walk does not. */
void product_pack(const struct product *product, struct pool_worker *worker);
void product_walk(const struct product *product, struct pool_worker *worker, float *scratch);

/* to [rows][n_in] += g W, where product->x is g [rows][n_out] and product->w holds W; floats of tiles as for rows of n_out, of scratch
 * as for walk. All threads; both as pack and walk. (product_back.c) */
void product_back_pack(const struct product *product, struct pool_worker *worker);
void product_back_walk(const struct product *product, float *to, int64_t ld, struct pool_worker *worker, float *scratch);

/* The tiles that rows are cut into. */
int64_t product_tiles(const struct product *product);
int64_t product_tile(const struct product *product, int64_t tile, int *height); /* its first row */

/* Kept pre-activations of a chunk of rows. Each unit of work, some tiles by a group of panels, has a log of them in the order in which
 * they are found: tile by tile, so that what a tile has of a group is a stretch, in which the features of each row ascend. Logs are
 * dense, since what is kept is little: a hundredth of the room, in the first lines of it. */
#define GROUP_PANELS 8 /* panels of a unit of work, at most; exactly so in an encode */
#define GROUP (GROUP_PANELS * LANES)
struct stretch {
  int32_t begin, count; /* entries */
};
struct kept {
  float *value;     /* [groups][rows][GROUP]: a log begins where its first row has its place, and cannot outgrow its rows' */
  int32_t *place;   /* the same: row in the tile * GROUP + feature in the group */
  struct stretch *stretches; /* [groups][rows], at the first row of each tile */
};

/* Where only the k largest of a row are wanted: what a thread knows about how large they are. At least k entries of the row are
 * above its limit, so others need not be kept. Each thread has its own and learns from what it has kept itself: which entries are kept
 * in vain depends on threads, the k largest do not. */
#define BOUND_FILL 2 /* a limit rises when so many times k values have come together */
struct bounds {
  int64_t k, room; /* k 0: all is wanted, and nothing of this is there */
  float *limit;    /* [rows]; 0 at first */
  int32_t *count;  /* [rows]: how many values are there */
  float *value;    /* [rows][room]: entries of the row, of which those above the limit are not more than room */
};

/* A thread that keeps. */
struct keeper {
  const struct kept *kept;
  int64_t at;      /* where its next entry goes */
  int32_t *total;  /* [rows]: entries it has kept of each */
  struct bounds bounds;
};

/* ---- the rest ---------------------------------------------------------------------------------------- */

struct cpu_backend {
  struct backend base;
  struct ops ops; /* a copy, for the name */
  const struct kernels *kernels;
  struct pool *pool;
  /* Scratch of a run, grown when a step needs more: packed rows, then a part for each thread. */
  struct memory *scratch;
  struct sparse sorted; /* entries of a chunk of an encode that are still to be chosen from */
};

struct backend *cpu_open(const struct kernels *kernels, int threads, struct error *error) MUST_CHECK;

/* Scratch of at least so many floats; what was in it is lost. */
float *cpu_scratch(struct cpu_backend *cpu, size_t floats, struct error *error) MUST_CHECK;

int cpu_matrix_new(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                   struct matrix **out, struct error *error);
int cpu_matrix_new_as(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                      const struct matrix_wish *wish, struct matrix **out, struct error *error);
void cpu_matrix_free(struct backend *backend, struct matrix *matrix);
void cpu_matrix_write(struct matrix *matrix, int64_t first, int64_t count, const float *rows, const float *factors);
/* row[k] = W(out, k) * scale. W(out, k) is an f32. */
void cpu_matrix_row(const struct matrix *matrix, int64_t out, float scale, float *row);

int cpu_run(struct backend *backend, const struct op *list, size_t count, const struct step *step,
            struct error *error);
int cpu_sample(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
               struct sample_result *results, struct error *error);
int cpu_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error);
int cpu_vjp(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error);

/* Edits and taps of columns [column, column + width) of a point on row `row`; these elements are at h. */
void point_row(const struct kernels *kernels, const struct point_items *items, int32_t row, float *h, int64_t column,
               int64_t width);

/* A KV block of one layer: for each KV head the keys, transposed [d_head][64] so that a vector of scores is a
 * vector of positions, then the values [64][value_width]. */
static inline int64_t value_width(int32_t d_head) { return (d_head + LANES - 1) / LANES * LANES; }
static inline int64_t kv_head_floats(int32_t d_head) { return KV_BLOCK * (d_head + value_width(d_head)); }
size_t cpu_kv_block_bytes(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish); /* f32 always */

/* Keys of (slot, layer, block, KV head); the values are KV_BLOCK * d_head floats further on. NULL where the
 * table has no block. */
float *kv_keys(const struct op *op, const struct step *step, int slot, int block, int kv_head);

/* Floats of scratch of a unit of attention: a struct query, a row of values and the query's elements for each of its queries,
 * the last in tiles. */
#define QUERY_FLOATS 24
#define ATTEND_TALLEST 8 /* queries of a tile, at most */
size_t attend_scratch_floats(const struct op *op);
/* The two phases of OP_ATTEND; a barrier belongs between them. */
void attend_store(const struct op *op, const struct step *step, struct pool_worker *worker);
void attend_walk(const struct op *op, const struct step *step, const struct kernels *kernels,
                 struct pool_worker *worker, float *scratch);
/* OP_PATTERN for some rows; scratch of explicit_scratch_floats. */
void attend_explicit(const struct op *op, const struct step *step, const struct kernels *kernels, struct row_range rows,
                     float *scratch);

#endif
