/* attend.inc.h: attention of a few query rows of one KV head. Included by kernels.inc.h.
 *
 * The softmax goes block by block over the positions in order, with a running maximum m and the sums so far
 * rescaled when m grows. A row sees the lanes [low, high) of a block; both depend on its position alone, keys
 * beyond are masked and values beyond are not read. Hence a row's result does not depend on which other rows
 * stand in the same step, nor on what a block holds further on.
 *
 * A unit's queries, rows times the heads of the group, are worked on ATTEND_TILE at a time, so that a key or
 * value that was loaded serves them all. */

#define BLOCK_VECTORS (KV_BLOCK / LANES)
#define ATTEND_MAX_TILE 8

/* The state of a query between blocks, in the unit's scratch. */
struct query {
  const float *q;
  float *z;         /* [value_width], not yet divided by the sum */
  float lane[LANES]; /* sums of weights by lane */
  float largest;
  int32_t position;
};
_Static_assert(sizeof(struct query) <= QUERY_FLOATS * sizeof(float), "cpu.h promises less scratch than is used");

/* Part of a block that a query sees. */
struct seen {
  int low, high;
};

static struct seen seen_of(const struct query *query, int32_t window, int block) {
  int32_t first = window_begin(query->position, window) - block * KV_BLOCK, last = query->position - block * KV_BLOCK;
  return (struct seen){first > 0 ? first : 0, last < KV_BLOCK ? last + 1 : KV_BLOCK};
}

/* s[t][64] = q[t] . keys, for `tile` queries and `vectors` vectors of positions from `from` on. */
VF void score_body(const int tile, const int vectors, int d_head, const float *keys, const struct query *query,
                   int from, float (*s)[KV_BLOCK]) {
  vf sum[ATTEND_MAX_TILE][BLOCK_VECTORS];
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++) sum[t][v] = vf_set1(0.0f);
  }
  for (int d = 0; d < d_head; d++) {
    vf key[BLOCK_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) key[v] = vf_load(keys + d * KV_BLOCK + (from + v) * LANES);
    UNROLL for (int t = 0; t < tile; t++) {
      vf value = vf_set1(query[t].q[d]);
      UNROLL for (int v = 0; v < vectors; v++) sum[t][v] = vf_fma(value, key[v], sum[t][v]);
    }
  }
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++) vf_store(s[t] + (from + v) * LANES, sum[t][v]);
  }
}

static void score_tile(int d_head, const float *keys, const struct query *query, float (*s)[KV_BLOCK]) {
  for (int from = 0; from < BLOCK_VECTORS; from += SCORE_VECTORS)
    score_body(ATTEND_TILE, SCORE_VECTORS, d_head, keys, query, from, s);
}

static void score_one(int d_head, const float *keys, const struct query *query, float (*s)[KV_BLOCK]) {
  for (int from = 0; from < BLOCK_VECTORS; from += SCORE_ONE_VECTORS)
    score_body(1, SCORE_ONE_VECTORS, d_head, keys, query, from, s);
}

/* z[t] = z[t] * factor[t] + sum over j in [low, high) of weight[t][j] values[j]. */
VF void value_body(const int tile, const int vectors, int64_t width, const float *values, struct seen seen,
                   const struct query *query, const float *factor, float (*weight)[KV_BLOCK], int64_t from) {
  vf sum[ATTEND_MAX_TILE][BLOCK_VECTORS];
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++)
      sum[t][v] = vf_mul(vf_load(query[t].z + from + v * LANES), vf_set1(factor[t]));
  }
  for (int j = seen.low; j < seen.high; j++) {
    vf value[BLOCK_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) value[v] = vf_load(values + j * width + from + v * LANES);
    UNROLL for (int t = 0; t < tile; t++) {
      vf w = vf_set1(weight[t][j]);
      UNROLL for (int v = 0; v < vectors; v++) sum[t][v] = vf_fma(w, value[v], sum[t][v]);
    }
  }
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++) vf_store(query[t].z + from + v * LANES, sum[t][v]);
  }
}

static void value_tile(int64_t width, const float *values, struct seen seen, const struct query *query,
                       const float *factor, float (*weight)[KV_BLOCK]) {
  int64_t from = 0;
  for (; from + VALUE_VECTORS * LANES <= width; from += VALUE_VECTORS * LANES)
    value_body(ATTEND_TILE, VALUE_VECTORS, width, values, seen, query, factor, weight, from);
  for (; from < width; from += LANES)
    value_body(ATTEND_TILE, 1, width, values, seen, query, factor, weight, from);
}

static void value_one(int64_t width, const float *values, struct seen seen, const struct query *query,
                      const float *factor, float (*weight)[KV_BLOCK]) {
  int64_t from = 0;
  for (; from + VALUE_ONE_VECTORS * LANES <= width; from += VALUE_ONE_VECTORS * LANES)
    value_body(1, VALUE_ONE_VECTORS, width, values, seen, query, factor, weight, from);
  for (; from < width; from += LANES) value_body(1, 1, width, values, seen, query, factor, weight, from);
}

/* Scores to weights e^(s - m), m the largest score so far; masked lanes get 0. Returns e^(old m - m). */
static float soften(const struct op *op, struct query *query, struct seen seen, float *s) {
  static const float ramp[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vf scale = vf_set1(op->u.attend.scale), hidden = vf_set1(-__builtin_inff()), largest = hidden;
  vf low = vf_set1((float)seen.low), high = vf_set1((float)seen.high), score[BLOCK_VECTORS];
  for (int v = 0; v < BLOCK_VECTORS; v++) {
    score[v] = vf_mul(vf_load(s + v * LANES), scale);
    if (op->u.attend.soft_cap > 0) score[v] = vf_soft_cap(score[v], op->u.attend.soft_cap);
    vf lane = vf_add(vf_load(ramp), vf_set1((float)(v * LANES)));
    score[v] = vf_where_less(lane, low, hidden, vf_where_less(lane, high, score[v], hidden));
    largest = vf_max(score[v], largest);
  }
  float before = query->largest, now = vf_largest(largest);
  if (!(now > before)) now = before;
  query->largest = now;
  float factor[LANES];
  vf_store(factor, vf_exp(vf_sub(vf_set1(before), vf_set1(now))));
  vf sum = vf_mul(vf_load(query->lane), vf_set1(factor[0])), m = vf_set1(now);
  for (int v = 0; v < BLOCK_VECTORS; v++) {
    vf weight = vf_exp(vf_sub(score[v], m));
    sum = vf_add(sum, weight);
    vf_store(s + v * LANES, weight);
  }
  vf_store(query->lane, sum);
  return factor[0];
}

/* A block for up to ATTEND_TILE queries. */
static void attend_block(const struct attend_unit *unit, struct query *query, int n, int block) {
  const struct op *op = unit->op;
  const float *keys = kv_keys(op, unit->step, unit->slot, block, unit->kv_head);
  int d_head = op->u.attend.d_head;
  const float *values = keys + (int64_t)KV_BLOCK * d_head;
  int64_t width = value_width(d_head);
  float s[ATTEND_TILE][KV_BLOCK], factor[ATTEND_TILE];
  struct seen seen[ATTEND_TILE];
  bool together = n == ATTEND_TILE;
  for (int t = 0; t < n; t++) {
    seen[t] = seen_of(&query[t], op->u.attend.window, block);
    together = together && seen[t].low == seen[0].low && seen[t].high == seen[0].high;
  }
  if (n == ATTEND_TILE)
    score_tile(d_head, keys, query, s);
  else
    for (int t = 0; t < n; t++) score_one(d_head, keys, query + t, s + t);
  for (int t = 0; t < n; t++)
    if (seen[t].low < seen[t].high) factor[t] = soften(op, &query[t], seen[t], s[t]);
  if (together && seen[0].low < seen[0].high)
    value_tile(width, values, seen[0], query, factor, s);
  else
    for (int t = 0; t < n; t++)
      if (seen[t].low < seen[t].high) value_one(width, values, seen[t], query + t, factor + t, s + t);
}

static void finish_query(const struct query *query, int d_head, float *z) {
  vf total = vf_set1(vf_sum(vf_load(query->lane)));
  int i = 0;
  for (; i + LANES <= d_head; i += LANES) vf_store(z + i, vf_div(vf_load(query->z + i), total));
  if (i < d_head) vf_store_part(z + i, vf_div(vf_load(query->z + i), total), d_head - i);
}

/* scratch: attend_scratch_floats of cpu.h. */
static void attend_rows(const struct attend_unit *unit, float *scratch) {
  const struct op *op = unit->op;
  const struct step_slot *slot = &unit->step->slots[unit->slot];
  int d_head = op->u.attend.d_head, group = op->u.attend.n_head / op->u.attend.n_kv_head;
  int n = (unit->rows.end - unit->rows.begin) * group;
  int64_t width = value_width(d_head);
  struct query *query = (struct query *)(void *)scratch;
  float *z = (float *)(void *)(query + n);
  memset(z, 0, (size_t)(n * width) * sizeof *z);
  for (int i = 0; i < n; i++) {
    int32_t row = unit->rows.begin + i / group;
    int head = unit->kv_head * group + i % group;
    query[i] = (struct query){.q = rows_at(op->u.attend.qkv, row) + op->u.attend.q + head * d_head,
                              .z = z + i * width,
                              .largest = -__builtin_inff(),
                              .position = slot->position + row - slot->rows.begin};
  }
  int first = window_begin(query[0].position, op->u.attend.window) / KV_BLOCK;
  for (int block = first; block <= query[n - 1].position / KV_BLOCK; block++)
    for (int i = 0; i < n; i += ATTEND_TILE)
      attend_block(unit, query + i, n - i < ATTEND_TILE ? n - i : ATTEND_TILE, block);
  for (int i = 0; i < n; i++) {
    int head = unit->kv_head * group + i % group;
    finish_query(&query[i], d_head, rows_at(op->u.attend.z, unit->rows.begin + i / group) + head * d_head);
  }
}
