/* encode.c: sparse codes of rows, chunk by chunk: centre and pack the rows, multiply and keep what is above the
 * limit while the sums are still in the cache, choose the k largest where asked, and append to the result.
 *
 * The k largest are found without sorting: while entries come in, each thread raises a limit that at least k entries of
 * the row are above (struct bounds), so that few beyond those are kept; among them the k-th is found exactly. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cpu/cpu.h"

#define CHUNK_ROWS 192              /* rows of a chunk: the weights are read once for each chunk */
#define CHUNK_BYTES ((size_t)48 << 20) /* and no more room for segments than this, unless one row needs it */
#define BOUND_SHARE 32 /* bounds where no more than one of so many features is wanted */

struct encoding {
  struct cpu_backend *cpu;
  const struct encode_args *args;
  struct product product;
  struct segments segments;
  int64_t first_row; /* of the chunk */
  float *centred;    /* [chunk][d_in] */
  float *scratch;    /* product_scratch_floats for each thread */
  bool bounded;      /* whether limits are raised */
  struct bounds *bounds; /* [threads] */
  uint64_t *keys;    /* [threads][room for all kept entries of a row] */
  int64_t *kept;     /* [chunk]: entries of the row, gathered at the row's first segment */
};

/* ---- products -------------------------------------------------------------------------------------------- */

/* to = x - mean; what it is to be multiplied by is the result. 1 leaves every bit as it is. */
static float shift_row(const struct encoding *e, const float *x, float *to) {
  const struct encode_args *args = e->args;
  int64_t n = args->w->n_in;
  bool standard = args->norm == ENCODE_NORM_STANDARD;
  float mean = args->center_mean || standard ? e->cpu->kernels->mean(x, n) : 0.0f;
  for (int64_t i = 0; i < n; i++) to[i] = x[i] - mean;
  if (args->norm == ENCODE_NORM_NONE) return 1;
  if (args->norm == ENCODE_NORM_SCALE) return args->scale;
  double square = e->cpu->kernels->dot(to, to, n);
  if (standard) return (float)(1 / (sqrt(square / (double)(n - 1)) + ENCODE_STANDARD_EPS));
  return square > 0 ? (float)sqrt((double)n / square) : 1;
}

static void centre_row(const struct encoding *e, int64_t row) {
  int64_t n = e->args->w->n_in;
  const float *subtract = span_floats(e->args->subtract);
  float *to = e->centred + row * n, scale = shift_row(e, rows_at(e->args->x, e->first_row + row), to);
  for (int64_t i = 0; i < n; i++) to[i] = to[i] * scale - (subtract ? subtract[i] : 0.0f);
}

static void multiply(struct pool_worker *worker, void *context) {
  struct encoding *e = context;
  struct product product = e->product;
  size_t row, end;
  if (e->bounded) {
    product.bounds = &e->bounds[worker->index];
    memset(product.bounds->limit, 0, (size_t)product.rows * sizeof *product.bounds->limit);
    memset(product.bounds->count, 0, (size_t)product.rows * sizeof *product.bounds->count);
  }
  while (pool_take(worker, (size_t)product.rows, 1, &row, &end)) centre_row(e, (int64_t)row);
  pool_barrier(worker);
  if (product.rows > 1) product_pack(&product, worker);
  product_walk(&product, worker, e->scratch + (size_t)worker->index * product_scratch_floats());
}

/* ---- choosing -------------------------------------------------------------------------------------------- */

/* Larger values first, then lower indices: the order of keys, from the largest down. Values are positive, so
 * their bits are ordered as they are. */
static uint64_t key_of(float value, int32_t index) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return (uint64_t)bits << 32 | (uint32_t)(INT32_MAX - index);
}

static void swap_keys(uint64_t *a, uint64_t *b) {
  uint64_t c = *a;
  *a = *b;
  *b = c;
}

/* The k-th largest of n different keys, 1 <= k <= n: Hoare's selection around the middle of three. */
static uint64_t select_key(uint64_t *keys, int64_t n, int64_t k) {
  int64_t low = 0, high = n - 1, want = k - 1;
  while (low < high) {
    int64_t middle = low + (high - low) / 2, i = low, j = high;
    if (keys[middle] > keys[low]) swap_keys(&keys[middle], &keys[low]);
    if (keys[high] > keys[low]) swap_keys(&keys[high], &keys[low]);
    if (keys[high] > keys[middle]) swap_keys(&keys[high], &keys[middle]);
    uint64_t pivot = keys[middle];
    while (i <= j) {
      while (keys[i] > pivot) i++;
      while (keys[j] < pivot) j--;
      if (i <= j) swap_keys(&keys[i++], &keys[j--]);
    }
    if (want <= j)
      high = j;
    else if (want >= i)
      low = i;
    else
      break;
  }
  return keys[want];
}

/* What any thread has found that at least k entries of the row are above. */
static float limit_of(const struct encoding *e, int64_t row) {
  float limit = 0;
  for (int i = 0; e->bounded && i < pool_threads(e->cpu->pool); i++)
    if (e->bounds[i].limit[row] > limit) limit = e->bounds[i].limit[row];
  return limit;
}

/* The gathered entries of a row, and the place behind the last one that stays. */
static float *row_values(const struct encoding *e, int64_t row) {
  return e->segments.value + row * e->segments.row_room;
}
static int32_t *row_indices(const struct encoding *e, int64_t row) {
  return e->segments.index + row * e->segments.row_room;
}

static int64_t keep_largest(const struct encoding *e, int64_t row, int64_t kept, uint64_t *keys) {
  const float *weight = e->args->fold_selects ? span_floats(e->args->fold) : NULL;
  float *value = row_values(e, row);
  int32_t *index = row_indices(e, row);
  int64_t n = 0;
  for (int64_t i = 0; i < kept; i++) keys[i] = key_of(weight ? value[i] * weight[index[i]] : value[i], index[i]);
  uint64_t least = select_key(keys, kept, e->args->k);
  for (int64_t i = 0; i < kept; i++) {
    if (key_of(weight ? value[i] * weight[index[i]] : value[i], index[i]) < least) continue;
    value[n] = value[i];
    index[n++] = index[i];
  }
  return n;
}

/* The largest of each group of neighbours; entries come by ascending index, so the first of equals stays. */
static int64_t keep_largest_of_groups(const struct encoding *e, int64_t row, int64_t kept) {
  int64_t size = e->args->w->n_out / e->args->k, n = 0;
  float *value = row_values(e, row);
  int32_t *index = row_indices(e, row);
  for (int64_t i = 0; i < kept; i++) {
    bool same = n > 0 && index[n - 1] / size == index[i] / size;
    if (same && value[i] <= value[n - 1]) continue;
    n += !same;
    value[n - 1] = value[i];
    index[n - 1] = index[i];
  }
  return n;
}

/* Gates are open; what comes through is another line of the same product. */
static int64_t pass_gates(const struct encoding *e, int64_t row, int64_t kept) {
  const float *bias = span_floats(e->args->bias), *gain = span_floats(e->args->gain), *shift = span_floats(e->args->shift);
  float *value = row_values(e, row);
  int32_t *index = row_indices(e, row);
  int64_t n = 0;
  for (int64_t i = 0; i < kept; i++) {
    int32_t f = index[i];
    float through = fmaf(value[i] - (bias ? bias[f] : 0.0f), gain[f], shift[f]);
    if (!(through > 0)) continue;
    value[n] = through;
    index[n++] = f;
  }
  return n;
}

static void choose_row(const struct encoding *e, int64_t row, uint64_t *keys) {
  enum encode_kind kind = e->args->kind;
  int64_t k = e->args->k;
  if (kind == ENCODE_TOPK && k <= 0) {
    e->kept[row] = 0;
    return;
  }
  int64_t kept = e->cpu->kernels->gather(&e->segments, row, limit_of(e, row));
  if (kind == ENCODE_TOPK && kept > k) kept = keep_largest(e, row, kept, keys);
  if (kind == ENCODE_GROUPMAX) kept = keep_largest_of_groups(e, row, kept);
  if (kind == ENCODE_GATED) kept = pass_gates(e, row, kept);
  e->kept[row] = kept;
}

static void choose(struct pool_worker *worker, void *context) {
  const struct encoding *e = context;
  size_t row, end;
  uint64_t *keys = e->keys + (size_t)worker->index * (size_t)(e->segments.n_groups * SEGMENT);
  while (pool_take(worker, (size_t)e->product.rows, 1, &row, &end)) choose_row(e, (int64_t)row, keys);
}

static int append_row(const struct encoding *e, int64_t row, struct sparse *out, struct error *error) {
  const float *fold = span_floats(e->args->fold), *value = e->segments.value;
  const int32_t *index = e->segments.index;
  int64_t at = row * e->segments.row_room;
  if (sparse_row(out, (size_t)e->kept[row], error) != 0) return -1;
  for (int64_t i = at; i < at + e->kept[row]; i++)
    sparse_push(out, index[i], fold ? value[i] * fold[index[i]] : value[i]);
  return 0;
}

/* ---- memory ---------------------------------------------------------------------------------------------- */

/* Cuts a block into arrays: with base NULL it only measures. */
static void *cut(unsigned char *base, size_t *used, size_t count, size_t size) {
  void *at = base ? base + *used : NULL;
  *used += size_round_up(count * size, 64);
  return at;
}

/* Values that wait, one more group of them, and the vector of zeros behind. */
static size_t bound_room(const struct encoding *e) {
  return size_round_up(BOUND_FILL * (size_t)e->args->k + SEGMENT + LANES, LANES);
}

static void lay_out_bounds(struct encoding *e, unsigned char *base, size_t *used, size_t thread, size_t rows) {
  struct bounds own = {.k = e->args->k, .room = (int64_t)bound_room(e)};
  own.limit = cut(base, used, rows, sizeof *own.limit);
  own.count = cut(base, used, rows, sizeof *own.count);
  own.value = cut(base, used, rows * bound_room(e), sizeof *own.value);
  if (base) e->bounds[thread] = own;
}

static size_t lay_out(struct encoding *e, unsigned char *base, size_t rows) {
  size_t used = 0, d_in = (size_t)e->args->w->n_in, groups = (size_t)e->segments.n_groups;
  size_t threads = (size_t)pool_threads(e->cpu->pool);
  e->segments.value = cut(base, &used, rows * (size_t)e->segments.row_room, sizeof *e->segments.value);
  e->segments.index = cut(base, &used, rows * (size_t)e->segments.row_room, sizeof *e->segments.index);
  e->segments.count = cut(base, &used, rows * groups, sizeof *e->segments.count);
  e->centred = cut(base, &used, rows * d_in, sizeof *e->centred);
  e->product.tiles = cut(base, &used, product_tile_floats((int64_t)rows, (int64_t)d_in), sizeof *e->product.tiles);
  e->scratch = cut(base, &used, threads * product_scratch_floats(), sizeof *e->scratch);
  e->keys = cut(base, &used, threads * groups * SEGMENT, sizeof *e->keys);
  e->kept = cut(base, &used, rows, sizeof *e->kept);
  e->bounds = cut(base, &used, threads, sizeof *e->bounds);
  for (size_t i = 0; e->bounded && i < threads; i++) lay_out_bounds(e, base, &used, i, rows);
  return used;
}

static int64_t chunk_rows(const struct encoding *e) {
  size_t row = (size_t)e->segments.row_room * (sizeof(float) + sizeof(int32_t));
  if (e->bounded) row += (size_t)pool_threads(e->cpu->pool) * bound_room(e) * sizeof(float);
  int64_t fit = (int64_t)size_max(1, CHUNK_BYTES / row), rows = e->args->n_rows;
  if (rows > CHUNK_ROWS) rows = CHUNK_ROWS;
  return fit < rows ? fit : rows;
}

static int encode_chunk(struct encoding *e, struct sparse *out, struct error *error) {
  pool_run(e->cpu->pool, multiply, e);
  pool_run(e->cpu->pool, choose, e);
  for (int64_t row = 0; row < e->product.rows; row++)
    if (append_row(e, row, out, error) != 0) return -1;
  return 0;
}

int cpu_encode(struct backend *backend, const struct encode_args *args, struct sparse *out, struct error *error) {
  struct cpu_backend *cpu = (struct cpu_backend *)backend;
  struct encoding e = {.cpu = cpu, .args = args};
  const struct cpu_matrix *w = (const struct cpu_matrix *)args->w;
  if (args->n_rows <= 0) return 0;
  e.segments.n_groups = (w->n_panels + GROUP_PANELS - 1) / GROUP_PANELS;
  /* A whole number of pages and one line: rows of a tile that lay whole pages apart would put one another out of the first cache. */
  e.segments.row_room = (int64_t)size_round_up((size_t)e.segments.n_groups * SEGMENT_ROOM, 1024) + LANES;
  /* The bounds know nothing of a fold that selects, and are worth their room where few entries are wanted. */
  e.bounded = args->kind == ENCODE_TOPK && !args->fold_selects && args->k > 0 && args->k <= w->base.n_out / BOUND_SHARE;
  int64_t chunk = chunk_rows(&e);
  unsigned char *block = (unsigned char *)cpu_scratch(cpu, lay_out(&e, NULL, (size_t)chunk) / sizeof(float), error);
  if (!block) return -1;
  lay_out(&e, block, (size_t)chunk);
  e.product.kernels = cpu->kernels;
  e.product.w = w;
  e.product.x = e.centred;
  e.product.ld_x = w->base.n_in;
  e.product.bias = span_floats(args->bias);
  e.product.finish = cpu->kernels->finish_encode;
  e.product.threshold = args->kind == ENCODE_JUMPRELU ? span_floats(args->threshold) : NULL;
  e.product.segments = &e.segments;
  for (; e.first_row < args->n_rows; e.first_row += chunk) {
    e.product.rows = args->n_rows - e.first_row < chunk ? args->n_rows - e.first_row : chunk;
    if (encode_chunk(&e, out, error) != 0) return -1;
  }
  return 0;
}
