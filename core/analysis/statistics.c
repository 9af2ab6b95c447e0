/* statistics.c: the accumulators. A document's codes are turned feature by feature once; then every feature that fired
 * takes its values in. */
#include "core/analysis/statistics.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/statistics_int.h"
#include "core/base/checked.h"
#include "core/base/random.h"

struct statistics *statistics_new(const struct statistics_options *options, struct error *error) {
  struct statistics *s = calloc(1, sizeof *s);
  if (!s) return error_memory(error, sizeof *s), NULL;
  s->options = *options;
  size_t n = (size_t)options->n_feat;
  s->per_feature = options->n_top + STATISTICS_INTERVALS * options->n_quantile;
  s->tallies = calloc(n, sizeof *s->tallies);
  s->dirty = calloc(n / STATISTICS_PART + 1, sizeof *s->dirty);
  s->first = malloc(n * sizeof *s->first);
  s->touched = malloc(n * sizeof *s->touched);
  s->out = calloc((size_t)s->per_feature + 1, sizeof *s->out);
  if (!s->tallies || !s->dirty || !s->first || !s->touched || !s->out) {
    statistics_free(s);
    return error_memory(error, n * sizeof *s->tallies), NULL;
  }
  for (size_t f = 0; f < n; f++) s->first[f] = -1;
  return s;
}

void tally_clear(struct tally *tally, int n) {
  for (int i = 0; tally->kept && i < n; i++) free(tally->kept[i].marks);
  free(tally->kept);
  memset(tally, 0, sizeof *tally);
}

void statistics_free(struct statistics *s) {
  if (!s) return;
  for (int64_t f = 0; s->tallies && f < s->options.n_feat; f++) tally_clear(&s->tallies[f], s->per_feature);
  free(s->tallies);
  free(s->dirty);
  free(s->first);
  free(s->touched);
  free(s->out);
  free(s->links);
  free(s->keys);
  free(s->mask);
  free(s);
}

int64_t statistics_tokens(const struct statistics *s) { return s->n_tokens; }
int64_t statistics_documents(const struct statistics *s) { return s->n_documents; }

/* ---- the range of a feature ---- */

/* The exponent e of the smallest power of two 2^e above value > 0. */
static int exponent_above(float value) {
  int e;
  frexpf(value, &e); /* value = m 2^e, m in [0.5, 1): so value < 2^e, and 2^(e-1) <= value */
  return e;
}

/* Bars and intervals of a doubled range: neighbours become one, exactly. */
static void double_range(struct statistics *s, struct tally *t) {
  for (int b = 0; b < STATISTICS_BARS / 2; b++) t->bars[b] = t->bars[2 * b] + t->bars[2 * b + 1];
  memset(t->bars + STATISTICS_BARS / 2, 0, STATISTICS_BARS / 2 * sizeof *t->bars);
  t->exponent++;
  int q = s->options.n_quantile;
  if (!q || !t->kept) return;
  struct kept *all = t->kept + s->options.n_top, merged[2 * 10];
  for (int i = 0; i < STATISTICS_INTERVALS / 2; i++) {
    /* Two lists sorted by key become the q smallest of both. */
    struct kept *a = all + (2 * i) * q, *b = all + (2 * i + 1) * q;
    int na = t->n_interval[2 * i], nb = t->n_interval[2 * i + 1], n = 0;
    for (int x = 0, y = 0; x < na || y < nb;)
      merged[n++] = y >= nb || (x < na && a[x].key < b[y].key) ? a[x++] : b[y++];
    for (int k = q; k < n; k++) free(merged[k].marks);
    if (n > q) n = q;
    memset(a, 0, (size_t)q * sizeof *a);
    memset(b, 0, (size_t)q * sizeof *b);
    memcpy(all + i * q, merged, (size_t)n * sizeof *merged);
    if (n < q) memset(all + i * q + n, 0, (size_t)(q - n) * sizeof *all);
    t->n_interval[i] = (uint8_t)n;
  }
  memset(t->n_interval + STATISTICS_INTERVALS / 2, 0, STATISTICS_INTERVALS / 2);
}

static void reach(struct statistics *s, struct tally *t, float value) {
  int e = exponent_above(value);
  if (t->n_fired == 0) t->exponent = e;
  while (t->exponent < e) double_range(s, t);
}

/* Which of `n` equal parts of (0, 2^exponent) holds the finite value. Exact: powers of two, in double. */
static int part_of_range(const struct tally *t, float value, int n) {
  int part = (int)(ldexp((double)value, -t->exponent) * n);
  return part < n ? part : n - 1;
}

/* ---- examples ---- */

/* Window of docs/statistics.md. */
static void place_window(const struct statistics *s, struct kept *kept, int32_t length) {
  int32_t shown = s->options.positions.skip_first ? 1 : 0, window = s->options.window;
  int32_t start = kept->position - 3 * window / 4;
  if (start > length - window) start = length - window;
  if (start < shown) start = shown;
  kept->start = start;
  kept->length = length - start < window ? length - start : window;
}

/* The feature's values inside the window, from the chain of this document. */
static int copy_marks(const struct statistics *s, int64_t feature, struct kept *kept, struct error *error) {
  int n = 0;
  for (int32_t link = s->first[feature]; link >= 0; link = s->links[link].next) {
    int32_t offset = s->links[link].position - kept->start;
    n += offset >= 0 && offset < kept->length;
  }
  kept->marks = malloc((size_t)(n ? n : 1) * sizeof *kept->marks);
  if (!kept->marks) return error_memory(error, (size_t)n * sizeof *kept->marks);
  kept->n_marks = 0;
  for (int32_t link = s->first[feature]; link >= 0; link = s->links[link].next) {
    int32_t offset = s->links[link].position - kept->start;
    if (offset < 0 || offset >= kept->length) continue;
    kept->marks[kept->n_marks++] = (struct statistics_mark){offset, s->links[link].value};
  }
  return 0;
}

static int make_room(const struct statistics *s, struct tally *t, struct error *error) {
  if (t->kept) return 0;
  t->kept = calloc((size_t)s->per_feature + 1, sizeof *t->kept);
  return t->kept ? 0 : error_memory(error, (size_t)s->per_feature * sizeof *t->kept);
}

/* Puts a new entry at `at` of a list of n (at most `most`); the last falls out when it is full. */
static void insert(struct kept *list, uint8_t *n, int most, int at, struct kept entry) {
  if (*n == most)
    free(list[most - 1].marks);
  else
    (*n)++;
  memmove(list + at + 1, list + at, (size_t)(*n - 1 - at) * sizeof *list);
  list[at] = entry;
}

/* Value descending, document ascending: later documents go behind equals. */
static int consider_top(struct statistics *s, struct tally *t, int64_t feature, struct kept entry, int32_t length,
                        struct error *error) {
  int most = s->options.n_top, n = t->n_top;
  if (most == 0 || (n == most && !(entry.value > t->kept[most - 1].value))) return 0;
  place_window(s, &entry, length);
  if (copy_marks(s, feature, &entry, error) != 0) return -1;
  int at = n == most ? most - 1 : n;
  while (at > 0 && entry.value > t->kept[at - 1].value) at--;
  insert(t->kept, &t->n_top, most, at, entry);
  return 0;
}

static int consider_interval(struct statistics *s, struct tally *t, int64_t feature, struct kept entry, int32_t length,
                             struct error *error) {
  int most = s->options.n_quantile, i = part_of_range(t, entry.value, STATISTICS_INTERVALS);
  if (most == 0) return 0;
  struct kept *list = t->kept + s->options.n_top + i * most;
  int n = t->n_interval[i];
  if (n == most && !(entry.key < list[most - 1].key)) return 0;
  place_window(s, &entry, length);
  if (copy_marks(s, feature, &entry, error) != 0) return -1;
  int at = n == most ? most - 1 : n;
  while (at > 0 && entry.key < list[at - 1].key) at--;
  insert(list, &t->n_interval[i], most, at, entry);
  return 0;
}

/* ---- a document ---- */

/* The document's entries, chained feature by feature in order of position. */
static int turn(struct statistics *s, int32_t length, const struct sparse *codes, size_t first_row, size_t *n_touched,
                struct error *error) {
  size_t begin = codes->start[first_row], count = codes->start[first_row + (size_t)length] - begin;
  if (count > s->link_capacity) {
    struct link *links = realloc(s->links, count * 2 * sizeof *links);
    if (!links) return error_memory(error, count * 2 * sizeof *links);
    s->links = links;
    s->link_capacity = count * 2;
  }
  *n_touched = 0;
  size_t used = 0;
  /* Backwards, so that each new link goes in front and chains come out in ascending position. */
  for (int32_t position = length - 1; position >= 0; position--) {
    size_t row = first_row + (size_t)position;
    if (!s->mask[position]) continue;
    for (size_t e = codes->start[row]; e < codes->start[row + 1]; e++) {
      int32_t feature = codes->index[e];
      if (s->first[feature] < 0) s->touched[(*n_touched)++] = feature;
      s->links[used] = (struct link){s->first[feature], position, codes->value[e]};
      s->first[feature] = (int32_t)used++;
    }
  }
  return 0;
}

static int make_positions(struct statistics *s, int32_t length, struct error *error) {
  if ((size_t)length <= s->capacity) return 0;
  uint8_t *mask = realloc(s->mask, (size_t)length);
  if (mask) s->mask = mask;
  uint64_t *keys = realloc(s->keys, (size_t)length * sizeof *keys);
  if (keys) s->keys = keys;
  if (!mask || !keys) return error_memory(error, (size_t)length * sizeof *keys);
  s->capacity = (size_t)length;
  return 0;
}

static void make_keys(struct statistics *s, int64_t document, int32_t length) {
  for (int32_t p = 0; s->options.n_quantile && p < length; p++) {
    uint32_t words[4];
    random_words(0, (uint64_t)document, (uint64_t)p, words);
    s->keys[p] = (uint64_t)words[0] << 32 | words[1];
  }
}

static int take_in(struct statistics *s, int64_t document, int32_t length, int64_t feature, struct error *error) {
  struct tally *t = &s->tallies[feature];
  struct kept best = {.document = document, .value = 0};
  if (make_room(s, t, error) != 0) return -1;
  for (int32_t at = s->first[feature]; at >= 0; at = s->links[at].next) {
    const struct link *link = &s->links[at];
    if (!isfinite(link->value))
      return error_set(error, ERROR_FORMAT, "feature %lld is not finite at position %d of document %lld",
                       (long long)feature, link->position, (long long)document);
    if (!(link->value > 0)) continue; /* of a neuron: shown in examples, but it does not fire */
    reach(s, t, link->value);
    t->n_fired++;
    t->sum += link->value;
    if (link->value > t->max) t->max = link->value;
    t->bars[part_of_range(t, link->value, STATISTICS_BARS)]++;
    if (link->value > best.value) {
      best.value = link->value;
      best.position = link->position;
    }
    struct kept entry = {.document = document, .position = link->position, .value = link->value,
                         .key = s->options.n_quantile ? s->keys[link->position] : 0};
    if (consider_interval(s, t, feature, entry, length, error) != 0) return -1;
  }
  if (!(best.value > 0)) return 0;
  return consider_top(s, t, feature, best, length, error);
}

int statistics_add(struct statistics *s, int64_t document, const int32_t *ids, int32_t length, const struct sparse *codes,
                   size_t first_row, struct error *error) {
  size_t n = 0;
  if (make_positions(s, length, error) != 0) return -1;
  int32_t counted = positions_mark(&s->options.positions, ids, length, s->mask);
  make_keys(s, document, length);
  int failed = turn(s, length, codes, first_row, &n, error);
  for (size_t i = 0; i < n; i++) {
    int64_t feature = s->touched[i];
    if (!failed) failed = take_in(s, document, length, feature, error);
    s->dirty[feature / STATISTICS_PART] = true;
    s->first[feature] = -1;
  }
  if (failed) return -1;
  s->n_tokens += counted;
  s->n_documents++;
  return 0;
}

/* ---- the result ---- */

static int by_value(const void *a, const void *b) {
  const struct statistics_example *x = a, *y = b;
  if (x->value != y->value) return x->value < y->value ? 1 : -1;
  if (x->document != y->document) return x->document < y->document ? -1 : 1;
  return x->position < y->position ? -1 : x->position > y->position;
}

static struct statistics_example show(const struct kept *kept, int interval) {
  return (struct statistics_example){.interval = interval, .document = kept->document, .position = kept->position,
                                     .start = kept->start, .length = kept->length, .value = kept->value,
                                     .marks = kept->marks, .n_marks = kept->n_marks};
}

static int show_interval(const struct statistics *s, const struct tally *t, int interval,
                         struct statistics_example *out) {
  const struct kept *list = t->kept + s->options.n_top + interval * s->options.n_quantile;
  float width = ldexpf(1.0f / STATISTICS_INTERVALS, t->exponent);
  uint64_t inside = 0;
  int bars = STATISTICS_BARS / STATISTICS_INTERVALS;
  for (int b = 0; b < bars; b++) inside += t->bars[interval * bars + b];
  for (int i = 0; i < t->n_interval[interval]; i++) {
    out[i] = show(&list[i], interval);
    out[i].bin_min = width * (float)interval;
    out[i].bin_max = width * (float)(interval + 1);
    out[i].bin_contains = (float)((double)inside / (double)s->n_tokens);
  }
  qsort(out, t->n_interval[interval], sizeof *out, by_value);
  return t->n_interval[interval];
}

void statistics_feature(struct statistics *s, int64_t index, struct statistics_feature *out) {
  assert(index >= 0 && index < s->options.n_feat);
  const struct tally *t = &s->tallies[index];
  int n = 0;
  for (int i = 0; i < t->n_top; i++) {
    s->out[n] = show(&t->kept[i], -1);
    s->out[n].bin_min = s->out[n].bin_contains = -1;
    s->out[n++].bin_max = t->max;
  }
  for (int i = STATISTICS_INTERVALS - 1; t->kept && i >= 0; i--) n += show_interval(s, t, i, s->out + n);
  *out = (struct statistics_feature){.n_fired = t->n_fired, .mean = t->n_fired ? t->sum / (double)t->n_fired : 0,
                                     .max = t->max, .range = t->n_fired ? ldexpf(1.0f, t->exponent) : 0,
                                     .bars = t->bars, .examples = s->out, .n_examples = n};
}
