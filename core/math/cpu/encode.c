/* encode.c: sparse codes of rows, chunk by chunk: centre and pack the rows, multiply and keep what is above the
 * limit while the sums are still in the cache (keep.inc.h), sort what was kept by rows, choose the k largest where asked, and append to
 * the result.
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
#define CHUNK_BYTES ((size_t)48 << 20) /* and no more room for entries than this, unless one row needs it */
#define BOUND_SHARE 32 /* bounds where no more than one of so many features is wanted */

struct encoding {
  struct cpu_backend *cpu;
  const struct encode_args *args;
  struct product product;
  int64_t n_groups;
  struct kept kept;
  int64_t first_row; /* of the chunk */
  float *centred;    /* [chunk][d_in] */
  float *scratch;    /* product_scratch_floats for each thread */
  bool bounded;      /* whether limits are raised */
  struct keeper *keepers; /* [threads] */
  float *selected;   /* [threads][room for all entries of a row]: what they are chosen by */
  size_t *place;     /* [chunk]: where the entries of a row lie in the result while it is made, ... */
  size_t *count;     /* ... and how many they are */
  struct sparse *sorted; /* the result, or where it is still to be chosen from: a result keeps its memory for long */
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

static struct keeper *begin_keeping(const struct encoding *e, int thread) {
  struct keeper *keeper = &e->keepers[thread];
  size_t rows = (size_t)e->product.rows;
  memset(keeper->total, 0, rows * sizeof *keeper->total);
  if (!e->bounded) return keeper;
  memset(keeper->bounds.limit, 0, rows * sizeof *keeper->bounds.limit);
  memset(keeper->bounds.count, 0, rows * sizeof *keeper->bounds.count);
  return keeper;
}

static void multiply(struct pool_worker *worker, void *context) {
  struct encoding *e = context;
  struct product product = e->product;
  size_t row, end;
  product.keeper = begin_keeping(e, worker->index);
  while (pool_take(worker, (size_t)product.rows, 1, &row, &end)) centre_row(e, (int64_t)row);
  pool_barrier(worker);
  if (product.rows > 1) product_pack(&product, worker);
  product_walk(&product, worker, e->scratch + (size_t)worker->index * product_scratch_floats());
}

/* ---- sorting by rows ------------------------------------------------------------------------------------- */

/* Places for all entries of the chunk behind those that are there. */
static int make_places(struct encoding *e, struct error *error) {
  struct sparse *to = e->sorted;
  size_t all = 0, used = to->n_rows ? to->start[to->n_rows] : 0;
  for (int64_t row = 0; row < e->product.rows; row++) {
    e->place[row] = used + all;
    for (int i = 0; i < pool_threads(e->cpu->pool); i++) all += (size_t)e->keepers[i].total[row];
  }
  return sparse_room(to, (size_t)e->product.rows, all, error);
}

/* What any thread has found that at least k entries of the row are above. */
static float limit_of(const struct encoding *e, int64_t row) {
  float limit = 0;
  for (int i = 0; e->bounded && i < pool_threads(e->cpu->pool); i++)
    if (e->keepers[i].bounds.limit[row] > limit) limit = e->keepers[i].bounds.limit[row];
  return limit;
}

/* Groups ascend, and so do a row's features in each of them. What is not above the limit leaves no trace: the next one is written
 * over it, and there is a place for each. */
static void sort_tile(const struct encoding *e, int64_t row, int height) {
  size_t next[TILE_ROWS];
  float limit[TILE_ROWS], *to_value = e->sorted->value;
  int32_t *to_index = e->sorted->index;
  for (int r = 0; r < height; r++) {
    next[r] = e->place[row + r];
    limit[r] = limit_of(e, row + r);
  }
  for (int64_t group = 0; group < e->n_groups; group++) {
    struct stretch stretch = e->kept.stretches[group * e->product.rows + row];
    const float *value = e->kept.value + stretch.begin;
    const int32_t *place = e->kept.place + stretch.begin;
    for (int32_t i = 0; i < stretch.count; i++) {
      uint32_t at = (uint32_t)place[i], r = at / GROUP;
      to_value[next[r]] = value[i];
      to_index[next[r]] = (int32_t)group * GROUP + (int32_t)(at % GROUP);
      next[r] += value[i] > limit[r];
    }
  }
  for (int r = 0; r < height; r++) e->count[row + r] = next[r] - e->place[row + r];
}

/* ---- choosing -------------------------------------------------------------------------------------------- */

/* Entries of a row, which choosing moves together: those that stay come first, in their order. */
struct entries {
  float *value;
  int32_t *index;
  int64_t n;
};

/* Larger values first, then lower indices. `by` has room for all entries and a vector. */
static int64_t keep_largest(const struct encoding *e, struct entries all, float limit, float *by) {
  const float *weight = e->args->fold_selects ? span_floats(e->args->fold) : NULL;
  int64_t k = e->args->k, above = 0, n = 0;
  for (int64_t i = 0; i < all.n; i++) by[i] = weight ? all.value[i] * weight[all.index[i]] : all.value[i];
  for (int64_t i = 0; i < LANES; i++) by[all.n + i] = 0;
  float least = e->cpu->kernels->kth_largest(by, all.n, k, weight ? 0 : limit);
  for (int64_t i = 0; i < all.n; i++) above += by[i] > least;
  for (int64_t i = 0, equal = k - above; i < all.n; i++) {
    bool same = by[i] == least && equal > 0;
    all.value[n] = all.value[i];
    all.index[n] = all.index[i];
    n += by[i] > least || same;
    equal -= same;
  }
  return n;
}

/* The largest of each group of neighbours; entries come by ascending index, so the first of equals stays. */
static int64_t keep_largest_of_groups(const struct encoding *e, struct entries all) {
  int64_t size = e->args->w->n_out / e->args->k, n = 0;
  for (int64_t i = 0; i < all.n; i++) {
    bool same = n > 0 && all.index[n - 1] / size == all.index[i] / size;
    if (same && all.value[i] <= all.value[n - 1]) continue;
    n += !same;
    all.value[n - 1] = all.value[i];
    all.index[n - 1] = all.index[i];
  }
  return n;
}

/* Gates are open; what comes through is another line of the same product. */
static int64_t pass_gates(const struct encoding *e, struct entries all) {
  const float *bias = span_floats(e->args->bias), *gain = span_floats(e->args->gain), *shift = span_floats(e->args->shift);
  int64_t n = 0;
  for (int64_t i = 0; i < all.n; i++) {
    int32_t f = all.index[i];
    float through = fmaf(all.value[i] - (bias ? bias[f] : 0.0f), gain[f], shift[f]);
    if (!(through > 0)) continue;
    all.value[n] = through;
    all.index[n++] = f;
  }
  return n;
}

static void choose_row(const struct encoding *e, int64_t row, float *by) {
  enum encode_kind kind = e->args->kind;
  const float *fold = span_floats(e->args->fold);
  struct entries all = {e->sorted->value + e->place[row], e->sorted->index + e->place[row], (int64_t)e->count[row]};
  if (kind == ENCODE_TOPK && e->args->k <= 0) all.n = 0;
  if (kind == ENCODE_TOPK && all.n > e->args->k) all.n = keep_largest(e, all, limit_of(e, row), by);
  if (kind == ENCODE_GROUPMAX) all.n = keep_largest_of_groups(e, all);
  if (kind == ENCODE_GATED) all.n = pass_gates(e, all);
  for (int64_t i = 0; fold && i < all.n; i++) all.value[i] *= fold[all.index[i]];
  e->count[row] = (size_t)all.n;
}

static void choose(struct pool_worker *worker, void *context) {
  const struct encoding *e = context;
  size_t tile, end;
  float *by = e->selected + (size_t)worker->index * ((size_t)e->n_groups * GROUP + LANES);
  while (pool_take(worker, (size_t)product_tiles(&e->product), 1, &tile, &end)) {
    int height;
    int64_t row = product_tile(&e->product, (int64_t)tile, &height);
    sort_tile(e, row, height);
    for (int r = 0; r < height; r++) choose_row(e, row + r, by);
  }
}

/* What was sorted into the result has its place already: nothing was chosen from it. */
static int append_row(const struct encoding *e, int64_t row, struct sparse *out, struct error *error) {
  size_t n = e->count[row], from = e->place[row];
  if (sparse_row(out, n, error) != 0) return -1;
  size_t *end = &out->start[out->n_rows];
  assert(e->sorted != out || *end == from);
  if (e->sorted != out && n) {
    memcpy(out->value + *end, e->sorted->value + from, n * sizeof *out->value);
    memcpy(out->index + *end, e->sorted->index + from, n * sizeof *out->index);
  }
  *end += n;
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
  return size_round_up(BOUND_FILL * (size_t)e->args->k + GROUP + LANES, LANES);
}

static struct bounds lay_out_bounds(const struct encoding *e, unsigned char *base, size_t *used, size_t rows) {
  if (!e->bounded) return (struct bounds){0};
  struct bounds own = {.k = e->args->k, .room = (int64_t)bound_room(e)};
  own.limit = cut(base, used, rows, sizeof *own.limit);
  own.count = cut(base, used, rows, sizeof *own.count);
  own.value = cut(base, used, rows * bound_room(e), sizeof *own.value);
  return own;
}

static void lay_out_keeper(struct encoding *e, unsigned char *base, size_t *used, size_t thread, size_t rows) {
  struct keeper own = {.kept = &e->kept};
  own.total = cut(base, used, rows, sizeof *own.total);
  own.bounds = lay_out_bounds(e, base, used, rows);
  if (base) e->keepers[thread] = own;
}

static size_t lay_out(struct encoding *e, unsigned char *base, size_t rows) {
  size_t used = 0, d_in = (size_t)e->args->w->n_in, groups = (size_t)e->n_groups;
  size_t threads = (size_t)pool_threads(e->cpu->pool);
  e->kept.value = cut(base, &used, rows * groups * GROUP, sizeof *e->kept.value);
  e->kept.place = cut(base, &used, rows * groups * GROUP, sizeof *e->kept.place);
  e->kept.stretches = cut(base, &used, rows * groups, sizeof *e->kept.stretches);
  e->centred = cut(base, &used, rows * d_in, sizeof *e->centred);
  e->product.tiles = cut(base, &used, product_tile_floats((int64_t)rows, (int64_t)d_in), sizeof *e->product.tiles);
  e->scratch = cut(base, &used, threads * product_scratch_floats(), sizeof *e->scratch);
  e->selected = cut(base, &used, threads * (groups * GROUP + LANES), sizeof *e->selected);
  e->place = cut(base, &used, rows, sizeof *e->place);
  e->count = cut(base, &used, rows, sizeof *e->count);
  e->keepers = cut(base, &used, threads, sizeof *e->keepers);
  for (size_t i = 0; i < threads; i++) lay_out_keeper(e, base, &used, i, rows);
  return used;
}

static int64_t chunk_rows(const struct encoding *e) {
  size_t row = (size_t)e->n_groups * GROUP * (sizeof(float) + sizeof(int32_t));
  if (e->bounded) row += (size_t)pool_threads(e->cpu->pool) * bound_room(e) * sizeof(float);
  int64_t fit = (int64_t)size_max(1, CHUNK_BYTES / row), rows = e->args->n_rows;
  if (rows > CHUNK_ROWS) rows = CHUNK_ROWS;
  return fit < rows ? fit : rows;
}

static int encode_chunk(struct encoding *e, struct sparse *out, struct error *error) {
  pool_run(e->cpu->pool, multiply, e);
  if (make_places(e, error) != 0) return -1;
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
  e.sorted = args->kind == ENCODE_RELU || args->kind == ENCODE_JUMPRELU ? out : &cpu->sorted;
  e.n_groups = (w->n_panels + GROUP_PANELS - 1) / GROUP_PANELS;
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
  for (; e.first_row < args->n_rows; e.first_row += chunk) {
    e.product.rows = args->n_rows - e.first_row < chunk ? args->n_rows - e.first_row : chunk;
    if (encode_chunk(&e, out, error) != 0) return -1;
  }
  return 0;
}
