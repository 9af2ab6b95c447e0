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

/* The state of a query between blocks, in the unit's scratch. */
struct query {
  const float *q;   /* packed: element d at q[d * ATTEND_TILE] */
  float *z;         /* [value_width], not yet divided by the sum */
  float lane[LANES]; /* sums of weights by lane */
  float largest;
  int32_t position;
};
_Static_assert(ATTEND_TILE <= ATTEND_TALLEST, "cpu.h promises less scratch than is used");
_Static_assert(sizeof(struct query) <= QUERY_FLOATS * sizeof(float), "cpu.h promises less scratch than is used");

/* Part of a block that a query sees. */
struct seen {
  int low, high;
};

static struct seen seen_of(const struct query *query, int32_t window, int block) {
  int32_t first = window_begin(query->position, window) - block * KV_BLOCK, last = query->position - block * KV_BLOCK;
  return (struct seen){first > 0 ? first : 0, last < KV_BLOCK ? last + 1 : KV_BLOCK};
}

/* Vectors of a block that hold what any of n queries sees; those behind are not looked at, which changes no bit: their weights would
 * be 0. */
static int used_vectors(const struct seen *seen, int n) {
  int high = 0;
  for (int t = 0; t < n; t++) high = seen[t].high > high ? seen[t].high : high;
  return (high + LANES - 1) / LANES;
}

/* s[t][64] = q[t] . keys, for `tile` queries and `vectors` vectors of positions from `from` on. The block's values are fetched
 * meanwhile: a single query has no arithmetic to wait for them behind. */
VF void score_body(const int tile, const int vectors, int d_head, const float *keys, const float *q, float (*s)[KV_BLOCK],
                   int from) {
  const float *values = keys + (int64_t)KV_BLOCK * d_head + from * LANES;
  vf sum[ATTEND_TALLEST][BLOCK_VECTORS];
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++) sum[t][v] = vf_set1(0.0f);
  }
  keys += from * LANES;
  for (int d = 0; d < d_head; d++) {
    vf key[BLOCK_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) {
      key[v] = vf_load(keys + v * LANES);
      __builtin_prefetch(values + v * LANES, 0, 3);
    }
    UNROLL for (int t = 0; t < tile; t++) {
      vf value = vf_set1(q[t]);
      UNROLL for (int v = 0; v < vectors; v++) sum[t][v] = vf_fma(value, key[v], sum[t][v]);
    }
    keys += KV_BLOCK;
    values += KV_BLOCK;
    q += ATTEND_TILE;
  }
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++) vf_store(s[t] + (from + v) * LANES, sum[t][v]);
  }
}

/* The first `used` vectors; half as many at a time where that is enough. */
VF void score_span(const int tile, int used, int d_head, const float *keys, const float *q, float (*s)[KV_BLOCK]) {
  const int most = tile == 1 ? SCORE_ONE_VECTORS : SCORE_VECTORS, half = most > 1 ? most / 2 : 1;
  for (int from = 0; from < used;) {
    if (used - from > half) {
      score_body(tile, most, d_head, keys, q, s, from);
      from += most;
    } else {
      score_body(tile, half, d_head, keys, q, s, from);
      from += half;
    }
  }
}

/* z[t] = z[t] * factor[t] + sum over j in [low, high) of weight[t][j] values[j]. next: keys that will be wanted. */
VF void value_body(const int tile, const int vectors, int64_t width, const float *values, struct seen seen, const float *next,
                   const struct query *query, const float *factor, float (*weight)[KV_BLOCK], int64_t from) {
  vf sum[ATTEND_TALLEST][BLOCK_VECTORS];
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++)
      sum[t][v] = vf_mul(vf_load(query[t].z + from + v * LANES), vf_set1(factor[t]));
  }
  values += seen.low * width + from;
  next += seen.low * width + from;
  for (int j = seen.low; j < seen.high; j++) {
    vf value[BLOCK_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++) {
      value[v] = vf_load(values + v * LANES);
      __builtin_prefetch(next + v * LANES, 0, 3);
    }
    UNROLL for (int t = 0; t < tile; t++) {
      vf w = vf_set1(weight[t][j]);
      UNROLL for (int v = 0; v < vectors; v++) sum[t][v] = vf_fma(w, value[v], sum[t][v]);
    }
    values += width;
    next += width;
  }
  UNROLL for (int t = 0; t < tile; t++) {
    UNROLL for (int v = 0; v < vectors; v++) vf_store(query[t].z + from + v * LANES, sum[t][v]);
  }
}

VF void value_span(const int tile, int64_t width, const float *values, struct seen seen, const float *next,
                   const struct query *query, const float *factor, float (*weight)[KV_BLOCK]) {
  const int most = tile == 1 ? VALUE_ONE_VECTORS : VALUE_VECTORS;
  int64_t from = 0;
  for (; from + most * LANES <= width; from += most * LANES)
    value_body(tile, most, width, values, seen, next, query, factor, weight, from);
  for (; from < width; from += LANES) value_body(tile, 1, width, values, seen, next, query, factor, weight, from);
}

/* What a tile of n queries does, 1 <= n <= ATTEND_TILE: all loops over it are unrolled. */
struct attend_tile {
  void (*scores)(int used, int d_head, const float *keys, const float *q, float (*s)[KV_BLOCK]);
  void (*values)(int64_t width, const float *values, struct seen seen, const float *next, const struct query *query,
                 const float *factor, float (*weight)[KV_BLOCK]);
};
#define ATTEND(n)                                                                                                   \
  static void scores_##n(int used, int d_head, const float *keys, const float *q, float (*s)[KV_BLOCK]) {           \
    score_span(n, used, d_head, keys, q, s);                                                                        \
  }                                                                                                                 \
  static void values_##n(int64_t width, const float *values, struct seen seen, const float *next,                    \
                         const struct query *query, const float *factor, float (*weight)[KV_BLOCK]) {                \
    value_span(n, width, values, seen, next, query, factor, weight);                                                \
  }
ATTEND_TILES(ATTEND)
#define ATTEND_NAME(n) {scores_##n, values_##n},
static const struct attend_tile attend_tiles[] = {ATTEND_TILES(ATTEND_NAME)};

/* Scores scaled, capped, -inf where they are hidden; returns the largest. */
VF float score_row(const struct op *op, struct seen seen, const int used, float *s) {
  static const float ramp[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  vf scale = vf_set1(op->u.attend.scale), hidden = vf_set1(-__builtin_inff()), largest = hidden;
  vf low = vf_set1((float)seen.low), high = vf_set1((float)seen.high);
  const bool whole = seen.low == 0 && seen.high == used * LANES, capped = op->u.attend.soft_cap > 0;
  UNROLL for (int v = 0; v < used; v++) {
    vf score = vf_mul(vf_load(s + v * LANES), scale);
    if (capped) score = vf_soft_cap(score, op->u.attend.soft_cap);
    if (!whole) {
      vf lane = vf_add(vf_load(ramp), vf_set1((float)(v * LANES)));
      score = vf_where_less(lane, low, hidden, vf_where_less(lane, high, score, hidden));
    }
    vf_store(s + v * LANES, score);
    largest = vf_max(score, largest);
  }
  return vf_largest(largest);
}

/* Scores to weights e^(s - m), m the largest score so far; masked lanes get 0. factor: e^(old m - m). Stage by stage for all
 * queries, since each stage of one of them is a chain that the next must wait for. */
VF void soften_span(const struct op *op, struct query *query, int n, const struct seen *seen, const int used, float (*s)[KV_BLOCK],
                    float *factor) {
  float before[LANES] = {0}, now[LANES] = {0};
  for (int t = 0; t < n; t++) {
    float largest = score_row(op, seen[t], used, s[t]);
    before[t] = query[t].largest;
    query[t].largest = now[t] = largest > before[t] ? largest : before[t];
  }
  vf_store(factor, vf_exp(vf_sub(vf_load(before), vf_load(now))));
  for (int t = 0; t < n; t++) {
    vf sum = vf_mul(vf_load(query[t].lane), vf_set1(factor[t])), m = vf_set1(now[t]);
    UNROLL for (int v = 0; v < used; v++) {
      vf weight = vf_exp(vf_sub(vf_load(s[t] + v * LANES), m));
      sum = vf_add(sum, weight);
      vf_store(s[t] + v * LANES, weight);
    }
    vf_store(query[t].lane, sum);
  }
}

static void soften(const struct op *op, struct query *query, int n, const struct seen *seen, int used, float (*s)[KV_BLOCK],
                   float *factor) {
  switch (used) {
    case 1: soften_span(op, query, n, seen, 1, s, factor); return;
    case 2: soften_span(op, query, n, seen, 2, s, factor); return;
    case 3: soften_span(op, query, n, seen, 3, s, factor); return;
    default: soften_span(op, query, n, seen, BLOCK_VECTORS, s, factor); return;
  }
}

/* Values of positions that all see are loaded for all; what only some see, at either end, row by row, so that the order of a row's
 * sums is that of positions and nothing beyond its own is touched. */
static void add_values(const struct query *query, int n, const struct seen *seen, int64_t width, const float *values,
                       const float *next, float *factor, float (*weight)[KV_BLOCK]) {
  struct seen all = {0, KV_BLOCK};
  for (int t = 0; t < n; t++) {
    all.low = seen[t].low > all.low ? seen[t].low : all.low;
    all.high = seen[t].high < all.high ? seen[t].high : all.high;
  }
  const bool shared = all.low < all.high;
  for (int t = 0; t < n; t++) {
    struct seen front = {seen[t].low, shared ? all.low : seen[t].high};
    if (front.low >= front.high) continue;
    attend_tiles[0].values(width, values, front, next, query + t, factor + t, weight + t);
    factor[t] = 1.0f;
  }
  if (!shared) return;
  attend_tiles[n - 1].values(width, values, all, next, query, factor, weight);
  const float one = 1.0f;
  for (int t = 0; t < n; t++)
    if (all.high < seen[t].high)
      attend_tiles[0].values(width, values, (struct seen){all.high, seen[t].high}, next, query + t, &one, weight + t);
}

/* A block for up to ATTEND_TILE queries; next: the one that follows. */
static void attend_block(const struct attend_unit *unit, struct query *query, int n, int block, const float *keys, const float *next) {
  const struct op *op = unit->op;
  int d_head = op->u.attend.d_head, first = 0;
  float s[ATTEND_TILE][KV_BLOCK], factor[LANES];
  struct seen seen[ATTEND_TILE];
  for (int t = 0; t < n; t++) seen[t] = seen_of(&query[t], op->u.attend.window, block);
  /* Positions ascend: who sees nothing of it is at either end. */
  while (n > 0 && seen[n - 1].low >= seen[n - 1].high) n--;
  while (first < n && seen[first].low >= seen[first].high) first++;
  if (first == n) return;
  query += first;
  n -= first;
  int used = used_vectors(seen + first, n);
  attend_tiles[n - 1].scores(used, d_head, keys, query->q, s);
  soften(op, query, n, seen + first, used, s, factor);
  add_values(query, n, seen + first, value_width(d_head), keys + (int64_t)KV_BLOCK * d_head, next, factor, s);
}

static void finish_query(const struct query *query, int d_head, float *z) {
  vf total = vf_set1(vf_sum(vf_load(query->lane)));
  int i = 0;
  for (; i + LANES <= d_head; i += LANES) vf_store(z + i, vf_div(vf_load(query->z + i), total));
  if (i < d_head) vf_store_part(z + i, vf_div(vf_load(query->z + i), total), d_head - i);
}

/* The query of each of n heads and rows in turn, packed in tiles. They lie in lines that nobody has looked at since the product, so
 * all are asked for before the first is read. */
static void pack_queries(const struct attend_unit *unit, int n, struct query *query, float *z, float *packed) {
  const struct op *op = unit->op;
  const struct step_slot *slot = &unit->step->slots[unit->slot];
  int d_head = op->u.attend.d_head, group = op->u.attend.n_head / op->u.attend.n_kv_head;
  for (int i = 0; i < n; i++) {
    int32_t row = unit->rows.begin + i / group;
    query[i] = (struct query){
        .q = rows_at(op->u.attend.qkv, row) + op->u.attend.q + (unit->kv_head * group + i % group) * d_head,
        .z = z + i * value_width(d_head), .largest = -__builtin_inff(), .position = slot->position + row - slot->rows.begin};
    for (int d = 0; d < d_head; d += LANES) __builtin_prefetch(query[i].q + d, 0, 3);
  }
  int64_t ld = group > 1 ? d_head : op->u.attend.qkv.ld;
  for (int i = 0, run; i < n; i += run) { /* those of a tile that lie equally far apart */
    run = ATTEND_TILE - i % ATTEND_TILE;
    if (group > 1 && run > group - i % group) run = group - i % group;
    if (run > n - i) run = n - i;
    float *to = packed + (int64_t)(i / ATTEND_TILE) * ATTEND_TILE * d_head + i % ATTEND_TILE;
    turn_rows(query[i].q, ld, run, d_head, to, ATTEND_TILE);
    for (int r = 0; r < run; r++) query[i + r].q = to + r;
  }
}

/* scratch: attend_scratch_floats of cpu.h. */
static void attend_rows(const struct attend_unit *unit, float *scratch) {
  const struct op *op = unit->op;
  int d_head = op->u.attend.d_head, group = op->u.attend.n_head / op->u.attend.n_kv_head;
  int n = (unit->rows.end - unit->rows.begin) * group;
  int64_t width = value_width(d_head);
  struct query *query = (struct query *)(void *)scratch;
  float *z = (float *)(void *)(query + n);
  memset(z, 0, (size_t)(n * width) * sizeof *z);
  pack_queries(unit, n, query, z, z + n * width);
  int block = window_begin(query[0].position, op->u.attend.window) / KV_BLOCK, last = query[n - 1].position / KV_BLOCK;
  for (const float *keys = kv_keys(op, unit->step, unit->slot, block, unit->kv_head), *next; block <= last; block++, keys = next) {
    next = block < last ? kv_keys(op, unit->step, unit->slot, block + 1, unit->kv_head) : keys;
    for (int i = 0; i < n; i += ATTEND_TILE)
      attend_block(unit, query + i, n - i < ATTEND_TILE ? n - i : ATTEND_TILE, block, keys, next);
  }
  for (int i = 0; i < n; i++) {
    int head = unit->kv_head * group + i % group;
    finish_query(&query[i], d_head, rows_at(op->u.attend.z, unit->rows.begin + i / group) + head * d_head);
  }
}
