/* keep.inc.h: what an encode keeps of finished sums, and exact k-th values. Included by kernels.inc.h.
 *
 * At one feature kept in a hundred it cannot be foreseen which rows of a tile have any, so nothing branches on that: the rows that have
 * some are listed first, and only the end of a list is a surprise. */

/* How many of n values are not below the one with these bits: above the one before it. */
VF int64_t count_from(const float *value, int64_t n, uint32_t bits) {
  float limit;
  int64_t count = 0;
  bits--;
  memcpy(&limit, &bits, sizeof limit);
  vf limits = vf_set1(limit);
  for (int64_t i = 0; i < n; i += LANES) count += __builtin_popcount(vf_mask_less(limits, vf_load(value + i)));
  return count;
}

/* The largest value that at least k of n positive ones are not below, two bits at a time from the top, because each step waits for the
 * one before; bits below `last` are left 0, or nearly so. At least k values are above `known`, which is 0 or more. They are padded to a
 * whole vector by zeros. 1 <= k <= n. */
static float kth(const float *value, int64_t n, int64_t k, float known, int last) {
  float limit, lanes[LANES], top = known;
  uint32_t least, most;
  vf largest = vf_set1(0.0f);
  for (int64_t i = 0; i < n; i += LANES) largest = vf_max(largest, vf_load(value + i));
  vf_store(lanes, largest);
  for (int i = 0; i < LANES; i++) top = lanes[i] > top ? lanes[i] : top;
  memcpy(&least, &known, sizeof least);
  memcpy(&most, &top, sizeof most);
  int bit = (31 - __builtin_clz((least ^ most) | 1)) | 1; /* above it the two agree, and with them what is looked for */
  least = bit < 31 ? most >> bit >> 1 << bit << 1 : 0;
  if (bit == 31) least = (uint32_t)(count_from(value, n, UINT32_C(1) << 30) >= k) << 30; /* bit 31 is the sign */
  for (bit = bit == 31 ? 29 : bit; bit > last; bit -= 2) {
    uint32_t step = UINT32_C(1) << (bit - 1);
    uint32_t digit = (count_from(value, n, least | step) >= k) + (count_from(value, n, least | 2 * step) >= k) +
                     (count_from(value, n, least | 3 * step) >= k); /* branches could not be foreseen */
    least |= digit * step;
  }
  memcpy(&limit, &least, sizeof limit);
  return limit;
}

static float kth_largest(const float *value, int64_t n, int64_t k, float known) { return kth(value, n, k, known, 0); }

/* Enough values of a row have come together: its limit rises to one that k of them are above, and hardly more. The last bits of the
 * fraction are not worth their time. */
#define BOUND_LAST_BIT 17
static void raise_limit(const struct bounds *bounds, int64_t row) {
  float *value = bounds->value + row * bounds->room;
  int64_t n = bounds->count[row], count = 0, most = bounds->k + bounds->k / 2;
  uint32_t bits;
  vf_store(value + n, vf_set1(0.0f));
  float least = kth(value, n, bounds->k, bounds->limit[row], BOUND_LAST_BIT);
  memcpy(&bits, &least, sizeof bits);
  bits -= bits > 0;
  memcpy(&least, &bits, sizeof bits);
  if (least > bounds->limit[row]) bounds->limit[row] = least;
  vf limit = vf_set1(bounds->limit[row]);
  for (int64_t i = 0; i < n; i += LANES) {
    vf some = vf_load(value + i);
    count += vf_pack(some, vf_mask_less(limit, some), value + count);
  }
  bounds->count[row] = (int32_t)(count < most ? count : most); /* many equals: any k of them say the same */
}

/* What the sums of some panels are compared with, the same for every row of a tile. Beyond the last feature weights and bias are 0, so
 * that no sum is above. */
struct cut {
  vf bias[TILE_MAX_PANELS], limit[TILE_MAX_PANELS]; /* the threshold, or 0 */
};

VF struct cut cut_of(const int panels, const struct product *product, int64_t panel) {
  const int64_t first = panel * LANES, n = product->w->base.n_out - first;
  struct cut cut;
  UNROLL for (int p = 0; p < panels; p++) {
    int64_t at = first + p * LANES, left = n - p * LANES;
    cut.bias[p] = cut.limit[p] = vf_set1(0.0f);
    if (product->bias) cut.bias[p] = left < LANES ? vf_load_part(product->bias + at, left) : vf_load(product->bias + at);
    if (!product->threshold) continue;
    vf threshold = left < LANES ? vf_load_part(product->threshold + at, left) : vf_load(product->threshold + at);
    cut.limit[p] = vf_max(threshold, cut.limit[p]);
  }
  return cut;
}

/* Which lanes are kept: bit l of 16 p + l is lane l of panel p. Where only the k largest are wanted there is no threshold, but `least`. */
VF uint64_t above(const int panels, const bool bounded, const struct cut *cut, const float *c, const float *least) {
  uint64_t mask = 0;
  vf limit = vf_set1(bounded ? *least : 0.0f);
  UNROLL for (int p = 0; p < panels; p++) {
    vf sum = vf_add(vf_load(c + p * LANES), cut->bias[p]);
    mask |= (uint64_t)vf_mask_less(bounded ? limit : cut->limit[p], sum) << p * LANES;
  }
  return mask;
}

/* Entries of one row; `place` is that of its first lane. */
VF void keep(const int panels, const bool bounded, struct keeper *keeper, const struct cut *cut, int64_t row, const float *c,
             uint64_t mask, int32_t place) {
  const struct bounds *bounds = &keeper->bounds;
  float *value = keeper->kept->value + keeper->at, *seen = NULL;
  int32_t *places = keeper->kept->place + keeper->at;
  int n = 0;
  if (bounded) seen = bounds->value + row * bounds->room + bounds->count[row];
  UNROLL for (int p = 0; p < panels; p++) {
    vf sum = vf_add(vf_load(c + p * LANES), cut->bias[p]);
    uint32_t lanes = (uint32_t)(mask >> p * LANES) & 0xffff;
    if (bounded) vf_pack(sum, lanes, seen + n); /* once more: what was just stored in pieces cannot be loaded soon */
    n += vf_keep(sum, lanes, place + p * LANES, value + n, places + n);
  }
  keeper->at += n;
  keeper->total[row] += n;
  if (bounded && (bounds->count[row] += n) >= BOUND_FILL * bounds->k) raise_limit(bounds, row);
}

VF void keep_panels(const int panels, const bool bounded, const struct product *product, int64_t row, int rows, int64_t panel,
                    const float *c) {
  struct keeper *keeper = product->keeper;
  const float *least = bounded ? keeper->bounds.limit + row : NULL;
  const int32_t lane = (int32_t)((uint64_t)panel % GROUP_PANELS * LANES);
  const struct cut cut = cut_of(panels, product, panel);
  uint64_t mask[TILE_ROWS];
  int list[TILE_ROWS], n = 0;
  if (rows == 1) {
    uint64_t some = above(panels, bounded, &cut, c, least);
    if (some) keep(panels, bounded, keeper, &cut, row, c, some, lane);
    return;
  }
  for (int r = 0; r < rows; r++) {
    mask[r] = above(panels, bounded, &cut, c + r * panels * LANES, bounded ? least + r : NULL);
    list[n] = r;
    n += mask[r] != 0;
  }
  for (int i = 0; i < n; i++) {
    int r = list[i];
    keep(panels, bounded, keeper, &cut, row + r, c + r * panels * LANES, mask[r], r * GROUP + lane);
  }
}

#define KEEP(panels)                                                                                       \
  if (keeper->bounds.k)                                                                                    \
    keep_panels(panels, true, product, row, rows, panel, c);                                               \
  else                                                                                                     \
    keep_panels(panels, false, product, row, rows, panel, c)

static void finish_encode(const struct product *product, int64_t row, int rows, int64_t panel, int panels,
                          const float *c) {
  struct keeper *keeper = product->keeper;
  struct stretch *stretch = &keeper->kept->stretches[(int64_t)((uint64_t)panel / GROUP_PANELS) * product->rows + row];
  if ((uint64_t)panel % GROUP_PANELS == 0) stretch->begin = (int32_t)keeper->at;
  const bool ends = (uint64_t)(panel + panels) % GROUP_PANELS == 0 || panel + panels == product->w->n_panels;
  if (panels == 2) {
    KEEP(2);
  } else if (panels == 4) {
    KEEP(4);
  } else { /* one panel, or what is left for a single row */
    for (; panels > 0; panels--, panel++, c += LANES) KEEP(1);
  }
  if (ends) stretch->count = (int32_t)keeper->at - stretch->begin;
}
