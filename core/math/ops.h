/* ops.h: what a compute backend does. The contract between the plan (what to compute) and the kernels (how).
 *
 * A backend owns memory, prepared weight matrices and threads. The plan and the engine hold handles (spans,
 * matrices) and never dereference them; the host reaches the content through write() and read() only, so
 * that the same plan runs on the obvious path, on fast CPU kernels and on a GPU, and a test can run two
 * backends side by side.
 *
 * Work arrives as a flat list of `struct op` with bound buffers plus one `struct step` that says which rows
 * exist in this step, what they attend to, and which edits and taps touch them. Edits and taps are data:
 * tables in the step, looked up by point. An empty table costs nothing.
 *
 * THE SUMMATION RULE (every backend but a GPU without --deterministic): the order in which an output element
 * is summed depends on the shapes of the model alone, never on the number of rows in the step, on how rows
 * are chunked into steps, or on the number of threads. Hence the same request gives the same bits at any load.
 *
 * Activations are f32, row-major; row r of a buffer starts at element r * ld. Products accumulate in f32 or
 * better; norms, softmax and dot products in f32 or better.
 *
 * IN FLIGHT. A backend that has `wait` may return from run, sample, fetch, copy, write and alloc before the work is done. What the
 * worker asks for is done in the order in which it asks, so that a read brings what the run before it made; memory of the
 * host that was handed in is free again when a verb returns, but for results of draws that are still to come. An error of such work is told by
 * any later verb of the worker, at the latest by `wait`. A step is: run, sample, fetch, wait.
 *
 * All functions that can fail return 0 or -1 with an error set (ERROR_MEMORY, ERROR_DEVICE). One thread, the
 * engine's worker, calls run/encode/sample/fetch/wait/copy/read; matrix_new may be called from another thread only while no run is
 * going on, because it uses the backend's threads. alloc, free, matrix_free and matrix_new_as with `aside` may be called
 * from any thread at any time, and so may write to memory that no run uses yet: that is how a dictionary is loaded while
 * others are served.
 *
 * GRADIENTS. vjp is the backward of one op. Whoever walks back runs the ops one by one, in memory of his own where every op finds
 * what it read when it ran: nothing that an op reads is overwritten later, but by an op that says so below. */
#ifndef STEERD_CORE_MATH_OPS_H
#define STEERD_CORE_MATH_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/math/dtype.h"
#include "core/math/point.h"
#include "core/math/sparse.h"

struct ops;
struct learn;
struct memory; /* a block that belongs to a backend; opaque */

/* The common head of every backend object. */
struct backend {
  const struct ops *ops;
};

/* A place inside backend memory. offset is in bytes and a multiple of 4. memory NULL means "not there". */
struct span {
  struct memory *memory;
  size_t offset;
};

/* ---- weights ---------------------------------------------------------------------------------------- */

/* How a matrix lies in its file. */
enum matrix_layout {
  ROWS_ARE_OUTPUTS, /* nn.Linear, embeddings: element (out, in) at out * ld + in */
  ROWS_ARE_INPUTS   /* GPT-2 Conv1D, W_enc: element (out, in) at in * ld + out */
};

/* One piece of a matrix, stacked along the outputs (so that q, k and v of three tensors become one product).
 *
 * Where the outputs of a piece do not lie side by side in the file (q, k and v interleaved head by head, or a
 * matrix for each head), they come in runs of `run`: output o is output o % run of the run that begins
 * o / run * run_stride elements after data. */
struct matrix_part {
  const void *data;  /* host memory, possibly unaligned, mapped read-only; borrowed while the matrix lives */
  enum dtype dtype;  /* DTYPE_F32, DTYPE_F16 or DTYPE_BF16 */
  enum matrix_layout layout;
  int64_t n_out;
  int64_t ld;        /* elements from one file row to the next */
  int64_t run, run_stride; /* 0: one run */
};
#define MATRIX_MAX_PARTS 4

/* How a matrix is made, where not as matrix_new makes it. */
struct matrix_wish {
  enum dtype dtype; /* as it is kept: DTYPE_F32, DTYPE_F16, DTYPE_BF16 (dtype_round), DTYPE_Q8 (blocks.h; ERROR_UNSUPPORTED on some
                     * backends); DTYPE_OTHER: as matrix_new keeps it */
  bool aside;       /* without the backend's threads, which may be at work for a step */
  bool passing;     /* it comes and goes while others are served: giving it back must not hold them up */
  bool written;     /* matrix_write will change it: f32, and the mapping is not borrowed any longer */
};

/* A prepared matrix W [n_out, n_in]. Backends embed this as the first member of their own struct. They may
 * keep a packed copy and forget the mapping, or use the mapping as it is; never both. */
struct matrix {
  int64_t n_out, n_in;
  enum dtype dtype; /* as kept */
  size_t bytes;     /* memory taken beyond the mapping */
};

/* ---- one step --------------------------------------------------------------------------------------- */

#define KV_BLOCK 64 /* positions per block; blocks align to absolute positions: block b holds 64b..64b+63 */

struct row_range {
  int32_t begin, end; /* rows [begin, end) */
};

/* A session's rows in this step. They are contiguous, their positions ascend by one, and they share one layer
 * interval. */
struct step_slot {
  struct row_range rows;
  int32_t position;    /* absolute position of the first row */
  int32_t first, last; /* layers [first, last) are computed for these rows; last = n_layer goes to the end */
};

/* Which blocks of the cache a text has. */
struct kv_pages {
  const int32_t *block; /* [n_layer][stride]: of (layer, position / 64), -1 where there is none */
  int32_t stride;
  uint64_t serial;      /* names the content, all of it: no other ever has it. 0: nothing is known of it */
};

/* Where a row's residual comes from when its first layer begins. */
enum row_origin {
  ORIGIN_EMBED, /* token and position embedding; first = 0 */
  ORIGIN_FORK,  /* copy of the residual of row `source` of this step as it is when layer `first` begins, before
                   edits at resid_pre.first; `source` must be active below `first`, reach it, and have no edit
                   at resid_pre.first */
  ORIGIN_SAVED  /* row `source` of step.saved */
};

/* What an edit does to the columns [column_begin, column_end) of each of its rows h. Vectors are f32, indexed
 * from column_begin. `u` means a unit vector: the maker of the item normalises it. */
enum edit_kind {
  EDIT_ROW_ADD,     /* h += value * v */
  EDIT_ROW_PROJECT, /* h += (value - 1) (h.u) u */
  EDIT_ROW_CAP,     /* h += (min(h.u, value) - h.u) u */
  EDIT_ROW_SCALE,   /* h *= value */
  EDIT_ROW_FILL,    /* h  = value (0: zero ablation) */
  EDIT_ROW_COPY,    /* h  = v */
  EDIT_ROW_REPLACE, /* h of row r = v[(r - rows.begin) * width ..], width = column_end - column_begin */
  EDIT_ROW_FEATURE_SET,  /* a = act(h.enc + bias); h += (value - a) * v        (clamp, ablate with error term) */
  EDIT_ROW_FEATURE_SCALE /* a = act(h.enc + bias); h += (value * a - a) * v */
};

struct edit_item {
  enum edit_kind kind;
  struct row_range rows;
  int32_t column_begin, column_end;
  float value;
  struct span v;   /* vector [column_end - column_begin], or rows of it for REPLACE */
  struct span enc; /* FEATURE kinds: encoder vector, raw units with everything before the product folded in */
  float bias;      /* FEATURE kinds: raw pre-activation bias */
  float threshold; /* FEATURE kinds: act(p) = p > threshold ? max(p, 0) * fold : 0 (ReLU: threshold 0) */
  float fold;      /* FEATURE kinds: raw to folded units (norm of the decoder row); v is the unit row */
};

/* Copies columns [0, width) of the point's rows out: row r goes to to + (r - rows.begin) * ld elements. */
struct tap_item {
  struct row_range rows;
  struct span to;
  int64_t ld;
};

/* What happens to the activation of one feature, in the dictionary's units. */
enum feature_change { FEATURE_SET, FEATURE_SCALE };
struct edit_feature {
  int32_t index;
  enum feature_change change;
  float value;
};

/* A row that OP_HOLD, OP_SPLICE or OP_PUT is about: row x of what the op reads becomes, or changes, row y of what it writes. */
struct splice_row {
  int32_t x, y;
  bool with_error; /* OP_SPLICE: what the dictionary does not explain stays. OP_PUT: x is added to y; else y becomes x */
  int32_t n_parts; /* OP_PUT, where rows with one y stand behind each other: how many, of the first; 0 of those behind it */
  int32_t n_changes;
  const struct edit_feature *changes; /* ascending by index; changes of one feature in their order */
};

/* All that changes from step to step. Arrays are host memory, borrowed for the call. */
struct step {
  int32_t n_layer;           /* layers of the model; a stride of kv_table */
  uint64_t plan;             /* whose buffers the ops use: a number that nobody else ever has, also when the memory is given back and
                                somebody's buffers come to the same place. 0: nobody's who goes */
  uint64_t list;             /* names what it is run with: lists under one number are parts of one array that never changes, so
                                that the same beginning and count are the same ops. 0: a list that nothing is known of */
  int32_t n_rows;
  const int32_t *token;      /* [n_rows]; 0 <= token < vocabulary for ORIGIN_EMBED */
  const int32_t *position;   /* [n_rows]; 0 <= position < n_ctx */
  const uint8_t *origin;     /* [n_rows] enum row_origin */
  const int32_t *source;     /* [n_rows]; see enum row_origin */
  struct span saved;         /* [., d_model] f32; only for ORIGIN_SAVED */

  int32_t n_slots;
  const struct step_slot *slots; /* by ascending rows; together they cover [0, n_rows) */
  const int32_t *keys;           /* [n_slots]: a row of scores or of the pattern is [n_head][keys], position j at j of
                                    each head; more than any position of the slot's rows. NULL: no edits or taps there */

  /* [n_layer + 1]: rows with first <= l < last, resp. first <= l <= last: contiguous by construction.
   * `arriving` rows get their residual and the resid_pre point of layer l; `active` rows run the layer. At
   * l = n_layer only arriving is used: the rows that came through to the end. */
  const struct row_range *active, *arriving;

  /* Key and value cache: block number of (slot, layer, position / 64), -1 where there is none. Either each slot tells its own, or one
   * table those of all. */
  struct span kv;                /* the pool: block b starts at kv.offset, a multiple of 64, + b * kv_block_bytes */
  const struct kv_pages *kv_pages; /* [n_slots]; NULL: kv_table has them */
  const int32_t *kv_table;       /* [n_slots][n_layer][kv_blocks] */
  int32_t kv_blocks;

  int32_t n_logit_rows;
  const int32_t *logit_row;      /* [n_logit_rows]: rows whose logits are wanted; each arrives at n_layer */

  /* Items of point p are [begin[p], begin[p + 1]), p = point_index; begin has point_count(n_layer) + 1 entries.
   * A row obeys the items in this order. begin NULL: no items at all. Items name rows of the step, at the points of the
   * head too. */
  const struct edit_item *edits;
  const int32_t *edit_begin;
  const struct tap_item *taps;
  const int32_t *tap_begin;

  /* Rows of group g of OP_HOLD, OP_SPLICE and OP_PUT are [splice_groups[g].begin, .end) of splices. */
  int32_t n_splice_groups;
  const struct row_range *splice_groups;
  const struct splice_row *splices;
};

/* ---- ops -------------------------------------------------------------------------------------------- */

enum op_code {
  OP_BEGIN,    /* arriving rows: residual from their origin, then edits and taps of resid_pre */
  OP_NORM,     /* y = norm(x); a copy for NORM_NONE; y may be x */
  OP_NORM_SCALE, /* scale = what the norm of x divides by, one value a row */
  OP_NORMALIZE,  /* y = (x - mean) / scale, x / scale for NORM_RMS; the three in a row give the bits of OP_NORM */
  OP_GAIN,       /* y = x * gain + bias of the norm; y may be x */
  OP_LINEAR,   /* y = act(x W^T + b) */
  OP_GATE,     /* y = act(x) * up, act(x) where up is absent */
  OP_SOLU,     /* y = x * softmax(x), the softmax over the row; y may be x */
  OP_PLACE,    /* y = x + row `position` of a table; y may be x */
  OP_ROTATE,   /* rotary positions: turns pairs of elements of each head, in place */
  OP_ATTEND,   /* keys and values of this step into the cache, then z = attention; edits and taps of attn_z */
  OP_SUBLAYER, /* edits and taps of the output; residual += output; edits and taps of the residual; norm */
  OP_POINT,    /* edits and taps of one point, in place */
  /* For cold points only: instrumented lists have them. */
  OP_EMBED,    /* rows of the embedding to `embedded` and of the positions to `placed`; 0 for rows of other origin */
  OP_PATTERN,  /* for rows with edits or taps at scores or pattern: both, all heads; with edits z = pattern values */
  OP_KEEP,     /* y = x in columns [begin, end), 0 elsewhere */
  OP_CAP,      /* the soft cap of a linear by itself, in place on its y */
  OP_DELTA,    /* to += x - before, in rows that an edit of the point covers */
  OP_GATHER,   /* y[i] = x[logit_row[i]] */
  OP_COPY,     /* y = x */
  /* For splices, where the backend has them (ops.splices). */
  OP_HOLD,     /* rows of a group are put aside for the OP_SPLICE that reads them */
  OP_SPLICE,   /* rows of a group through a dictionary, their codes changed on the way (struct splice) */
  OP_PUT,      /* rows of a group that were put aside come to where they are written, in the order of the group */
  OP_CODE_COUNT
};

enum row_set {
  ROWS_ARRIVING, /* step.arriving[layer] */
  ROWS_ACTIVE,   /* step.active[layer] */
  ROWS_LOGIT     /* compact rows 0..n_logit_rows-1 */
};

enum activation { ACT_NONE, ACT_RELU, ACT_GELU_TANH, ACT_GELU_ERF, ACT_SILU };

enum norm_kind {
  NORM_NONE,
  NORM_LAYER, /* (x - mean) / sqrt(mean((x - mean)^2) + eps) * gain + bias */
  NORM_RMS    /* x / sqrt(mean(x^2) + eps) * gain */
};

struct norm {
  enum norm_kind kind;
  float eps;
  struct span gain; /* f32 [width] or absent (1) */
  struct span bias; /* f32 [width] or absent */
  enum site site;   /* the first of its three sites; 0: it has none. Backends do not look at it */
  bool gain_apart;  /* the gain is another op's (OP_GAIN), which has the third site. Nor at this */
};

/* A buffer of rows. */
struct rows {
  struct span at;
  int64_t ld; /* elements from row to row */
};

/* Which elements of a head's first `dims` a rotation turns together: pair i is (i, i + dims / 2) or (2i, 2i + 1). */
enum rotary_pairing { ROTARY_HALVES, ROTARY_NEIGHBOURS };

struct op {
  enum op_code code;
  enum row_set set;
  int32_t layer; /* whose rows and whose points; n_layer for the head */
  int64_t width; /* elements of a row: d_model unless said otherwise below */
  union {
    struct { /* residual at `to`; token row of `embed` + row `position` of `positions` [n_ctx, width] */
      struct rows to;
      const struct matrix *embed;
      struct span positions; /* may be absent */
      float embed_scale;     /* token rows are multiplied by it, then rounded to f32 */
      bool bare;             /* edits and taps of resid_pre are another op's */
      struct rows embedded, placed; /* of OP_EMBED. OP_BEGIN takes the two from here where `embedded` is there */
    } begin;
    struct { /* of the four norm ops: each of `parts` pieces of `width` elements, side by side in a row, for itself */
      struct rows x, y;
      struct rows scale; /* one value a piece; not of OP_NORM */
      struct norm norm;
      int32_t parts; /* 0 means 1 */
    } norm;
    struct { /* also of OP_CAP. width unused: W says it */
      const struct matrix *w;
      struct rows x, y;
      struct span bias; /* f32 [n_out] or absent */
      enum activation act;
      enum site site;   /* of the output before act; 0: it has none. Backends do not look at it */
      float soft_cap;   /* then y = cap * tanh(y / cap); 0: none */
      int32_t room;     /* x and y have this many rows, and nobody minds what becomes of those of y that are not in the set; 0: unknown */
    } linear;
    struct { /* width = d_mlp; y may be x */
      struct rows x, up, y;
      enum activation act;
    } gate;
    struct { /* width = d_mlp */
      struct rows x, y;
    } solu;
    struct { /* table f32 [n_ctx, width] */
      struct rows x, y;
      struct span table;
    } place;
    struct { /* width = d_head; `heads` heads side by side in a row of x. Pair (a, b) of a row at position p becomes
                (a c - b s, b c + a s) with row p of the table: f32 [n_ctx][dims], dims / 2 cosines c, then the sines */
      struct rows x;
      int32_t heads, dims;
      enum rotary_pairing pairing;
      struct span table;
    } rotate;
    struct { /* also of OP_PATTERN. width = n_head * d_head. q, k, v: element offsets of their first columns inside a
                row of qkv */
      struct rows qkv, z;
      bool bare; /* edits and taps of attn_z are another op's */
      int64_t q, k, v;
      int32_t n_head, n_kv_head, d_head; /* query head h uses KV head h / (n_head / n_kv_head) */
      int32_t window;                    /* key j is seen by query i when i - window < j <= i; 0: no window */
      float scale;                       /* scores = scale * q.k */
      float soft_cap;                    /* scores = cap * tanh(scores / cap); 0: none */
      enum dtype kv;                     /* the wish that the pool's blocks were measured with (kv_block_bytes) */
    } attend;
    struct { /* site of `out`, then site of `resid` (0: they have none); y = norm(resid) unless norm.kind is
                NORM_NONE */
      struct rows out, resid, y;
      enum site out_site, resid_site;
      struct norm norm;
    } sublayer;
    struct { /* x holds columns [column, column + width) of the point */
      struct rows x;
      enum site site;
      int64_t column;
      struct rows before, to; /* of OP_DELTA */
      /* Beside splices: `part`: only the edits [first, last) of the point's, counted from its first, and its taps where `taps` */
      bool part, taps;
      int32_t first, last;
    } point;
    struct { /* of OP_HOLD, OP_SPLICE and OP_PUT. width = elements of a row of x that are read */
      const struct splice *what; /* of OP_SPLICE */
      uint64_t serial;           /* never the same for other weights */
      uint64_t aside;            /* nor this for other memory that rows are put aside in */
      struct rows x, y;          /* at the first columns that are read and written */
      int32_t group, rows;       /* rows: not fewer than the group has */
    } splice;
    struct { /* of OP_GATHER, OP_COPY and OP_KEEP */
      struct rows x, y;
      int64_t begin, end; /* of OP_KEEP */
    } gather;
  } u;
};

/* ---- dictionaries ----------------------------------------------------------------------------------- */

enum encode_kind {
  ENCODE_RELU,     /* keep p > 0 */
  ENCODE_JUMPRELU, /* keep p > max(threshold[f], 0) */
  ENCODE_TOPK,     /* the k largest p of the row (lower index first among equals), of these p > 0; with fold_selects
                      the k largest p * fold */
  ENCODE_GATED,    /* where p > 0: q = (p - bias) * gain + shift, kept where q > 0 */
  ENCODE_GROUPMAX  /* features in k groups of n_feat / k neighbours: the largest p of each (lower index first among
                      equals) where it is > 0 */
};

/* What the input is brought to before anything is subtracted, row by row; n elements. */
enum encode_norm {
  ENCODE_NORM_NONE,
  ENCODE_NORM_SCALE,   /* x * scale */
  ENCODE_NORM_LENGTH,  /* x * sqrt(n) / |x|; a row of zeros stays as it is */
  ENCODE_NORM_STANDARD /* (x - mean(x)) / (std(x) + 1e-5), std with n - 1 in its denominator */
};
#define ENCODE_STANDARD_EPS 1e-5

/* p = (c(x) - subtract) W^T + bias, c(x) = norm(x - mean(x)) where center_mean, else norm(x); kept entries are p * fold,
 * those of GATED q * fold. */
struct encode_args {
  enum encode_kind kind;
  const struct matrix *w;  /* [n_feat, d_in] */
  struct rows x;           /* n_rows rows of d_in */
  int64_t n_rows;
  bool center_mean;
  struct span subtract;    /* f32 [d_in] or absent */
  struct span bias;        /* f32 [n_feat] or absent */
  struct span threshold;   /* f32 [n_feat]; JUMPRELU */
  struct span fold;        /* f32 [n_feat] or absent (1) */
  int32_t k;               /* TOPK; GROUPMAX, where it divides n_feat */
  enum encode_norm norm;
  float scale;             /* ENCODE_NORM_SCALE */
  bool fold_selects;       /* TOPK */
  struct span gain, shift; /* f32 [n_feat]; GATED */
};

/* What OP_SPLICE does, the same in every step. Row by row: codes = encode(x), in which the changes of the row are made. With the error
 * y += back * sum over the changed features of (new - old) * factor * their decoder rows, and not a bit where nothing changed;
 * without it y = (bias + sum over all of value * factor * decoder row) * back + mean + x skip^T. Where the row is `framed`, back undoes the
 * encode's norm of x (|x| / sqrt(n) of LENGTH, std(x) of STANDARD, else 1), and mean is that of x where the encode takes it away; where y
 * `keeps_mean`, back = 1 and mean is that of y as it was; else back = 1, mean = 0.
 * Where rows are put `apart` y becomes what is to be added to a row, or to be in its place: with the error the sum alone, -0 where
 * nothing changed, so that no bit of what it is added to does; without it what is said above. Only then a decoder row may be longer
 * than d_out: it writes to several places, of which the first has the bias and the skip.
 * Sums begin in any order that depends on the row alone. */
struct splice {
  struct encode_args encode;    /* x and n_rows are the op's */
  const struct matrix *decoder; /* [n_feat, d_out], or some times d_out: row f is feature f's */
  const struct matrix *skip;    /* [d_out, d_in], of x as it is read; NULL: nothing is added */
  struct span factor;           /* f32 [n_feat] */
  struct span bias;             /* f32 [d_out] */
  int64_t d_out;
  bool framed, keeps_mean, apart; /* one of them at most */
};

/* ---- draws ---------------------------------------------------------------------------------------------- */

/* Added to the logit of a token. */
struct sample_change {
  int32_t token; /* each at most once in a list */
  float add;
};

/* One draw from a row of logits: after penalties, then biases, by temperature; then the k largest, then the most likely ones that
 * reach p together, the last of which is taken too, then those at least min_p times as likely as the likeliest; of equal logits
 * the lower index comes first. Several draws may be from one row. */
struct sample_draw {
  int32_t row;        /* of the logits */
  int32_t top_k;      /* 0: all */
  double temperature; /* <= 0: the largest logit */
  double top_p;       /* 1: all */
  double min_p;       /* 0: all */
  double unit;        /* a random number in [0, 1): how far through what is left, from the least likely one where something was
                         left out or min_p is not 0, by index where nothing was */
  const struct sample_change *penalties, *biases;
  int32_t n_penalties, n_biases;
  int32_t n_likely;   /* so many of the most likely tokens are told, before penalties and biases; -1: nothing but the token */
};
#define SAMPLE_MOST_LIKELY 64

struct sample_likely {
  int32_t token;
  float logit;
};

/* logit, top, likely: as the model gave them, before penalties and biases. */
struct sample_result {
  int32_t token;
  float logit;      /* of the token */
  int32_t n_likely; /* how many there are; the following where the draw says n_likely >= 0 */
  float top;        /* the largest logit */
  double sum;       /* of exp(logit - top) over all: the logarithm of a probability is logit - top - log(sum) */
  struct sample_likely likely[SAMPLE_MOST_LIKELY]; /* in their order */
};

/* ---- gradients ------------------------------------------------------------------------------------------ */

/* A way back through some ops. The cotangent of the float at byte b of `values` is the float at byte b of `cotangents`; all rows of the
 * ops lie in `values`, and no table or weight does. The cotangents of what an op writes are taken (they are 0 then), and what comes of
 * them is added to those of what it reads, both in the op's own rows of the step; of OP_ATTEND also in the rows of the positions that
 * these see: position p of a slot is row rows.begin + p - position, also in front of rows.begin.
 *
 * Of a product neither the activation nor the soft cap: they are ops of their own (OP_GATE without `up`, OP_CAP). Of OP_SUBLAYER the
 * addition alone: no sites, no norm. OP_ATTEND is bare. Of OP_POINT the edits; where one is not linear, u.point.before holds the rows
 * in front of them all. OP_ROTATE, OP_CAP, OP_SUBLAYER and OP_POINT work in place; the others read other rows than they write.
 * OP_BEGIN gives its cotangent to `embedded` and `placed` where these are there; else it stays. Tables end the way: OP_EMBED.
 * Not there: OP_PATTERN, OP_HOLD, OP_SPLICE, OP_PUT. */
struct vjp {
  struct memory *values, *cotangents;
  bool hold_norms;   /* what a norm divides by is a constant */
  bool hold_pattern; /* what attention looks at is: cotangents go to values only */
  /* What is 0 for certain, so that a backend may leave it out. Of every `period` rows, from row 0 of the buffers on, the cotangents behind the first
   * `used`; period 0: none. Of a product, those of the outputs in front of `outputs_from`. */
  int32_t period, used;
  int64_t outputs_from;
};

static inline bool vjp_has_row(const struct vjp *vjp, int64_t row) { return !vjp->period || row % vjp->period < vjp->used; }

/* ---- the backend ------------------------------------------------------------------------------------ */

struct ops {
  const char *name; /* "ref", "cpu-avx512", ... as /v1/capabilities and the log show it */

  /* Zeroed memory aligned to 64 bytes. */
  int (*alloc)(struct backend *backend, size_t bytes, struct memory **out, struct error *error);
  void (*free)(struct backend *backend, struct memory *memory); /* NULL is fine */
  int (*write)(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error);
  int (*read)(struct backend *backend, void *to, struct span from, size_t bytes, struct error *error);
  int (*copy)(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error);

  /* parts[0..n_parts) stacked along the outputs; every part has n_in inputs. */
  int (*matrix_new)(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                    struct matrix **out, struct error *error);
  int (*matrix_new_as)(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                       const struct matrix_wish *wish, struct matrix **out, struct error *error);
  void (*matrix_free)(struct backend *backend, struct matrix *matrix); /* NULL is fine */
  /* Optional, NULL: nobody trains on it. Outputs [first, first + count) of a matrix that was made to be `written` become rows
   * [count, n_in] times factors [count]. By any threads while no run reads it, 16 outputs that begin at a multiple of 16 by one. */
  void (*matrix_write)(struct matrix *matrix, int64_t first, int64_t count, const float *rows, const float *factors);
  const struct learn *learn; /* optional with it: learn.h */

  /* Bytes of one KV block: keys and values of all KV heads of one layer over KV_BLOCK positions. What lies
   * where inside is the backend's own affair; whole blocks may be copied.
   * `wish` (F32, F16, BF16) is the type that the model's keys and values need no more precision than: the one that the
   * matrices which make them are kept in. A backend may keep them in it, to nearest and ties to even (dtype_round), or in f32;
   * every op that reads the cache, in the step that made a key or in a later one, sees what was kept. */
  size_t (*kv_block_bytes)(struct backend *backend, int32_t n_kv_head, int32_t d_head, enum dtype wish);

  /* Runs the list over the step. The step's tables were built for the model of the list; no op names a layer beyond
   * step.n_layer. */
  int (*run)(struct backend *backend, const struct op *list, size_t count, const struct step *step,
             struct error *error);

  /* Appends n_rows rows to `out` (host). */
  int (*encode)(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error);

  /* Optional, NULL: nothing is ever in flight. Returns when nothing is; -1 with an error of what was. */
  int (*wait)(struct backend *backend, struct error *error);
  /* Optional, NULL: it would help nobody. The worker will read within these bytes behind the next wait, and before it asks for
   * anything that writes: reads of them then find them here. */
  int (*fetch)(struct backend *backend, struct span from, size_t bytes, struct error *error);

  /* Optional, NULL: whoever wants a token reads the logits. Draws from rows of logits [., vocabulary], as many results, which are
   * there behind the next wait. Within rounding of probabilities, the tokens that core/math/draw.c draws. */
  int (*sample)(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
                struct sample_result *results, struct error *error);

  /* Whether run knows OP_HOLD, OP_SPLICE, OP_PUT and what stands beside them in ops (`part` of points, `bare` of OP_BEGIN, an OP_SUBLAYER
   * without sites); where not, whoever splices takes the step apart. */
  bool splices;

  /* The backward of one op (struct vjp). Sums begin in an order that depends on the shapes of the model and of the step alone. */
  int (*vjp)(struct backend *backend, const struct op *op, const struct step *step, const struct vjp *vjp, struct error *error);

  /* Optional, NULL: the host's memory. Bytes that may still be had, of how many. Any thread. */
  int (*room)(struct backend *backend, size_t *left, size_t *total, struct error *error);
  /* Optional, NULL: never. It has failed for good: every verb but free and close fails from now on. Any thread. */
  bool (*lost)(struct backend *backend);

  void (*close)(struct backend *backend);
};

/* Opens a backend by name: "ref", "cpu" (best instruction set of this machine), "cpu-avx512", "cpu-avx2", "cpu-generic", "cuda"
 * (the first device), "cuda:N", "auto" (the first CUDA device where there is one, else "cpu"; the log says which and why).
 * "+deterministic" behind a CUDA device or auto asks for the summation rule there too. threads >= 1, for processors. NULL with
 * ERROR_ARGUMENT naming what a user may ask for, or an error that says why the device cannot be had. */
struct backend *backend_open(const char *name, int threads, struct error *error) MUST_CHECK;
void backend_close(struct backend *backend); /* NULL is fine */

/* ops.wait, where there is one. */
int backend_wait(struct backend *backend, struct error *error) MUST_CHECK;

/* Bytes that may still be had where the backend keeps its memory; SIZE_MAX when nothing tells. */
size_t backend_room(struct backend *backend);

/* A span `bytes` further on. */
static inline struct span span_at(struct span span, size_t bytes) {
  span.offset += bytes;
  return span;
}

#endif
