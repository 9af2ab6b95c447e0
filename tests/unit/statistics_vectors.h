/* statistics_vectors.h: feature statistics that independent twins recorded (tests/vectors/counting.py says how), and whether
 * figures made here agree with them. A float32 program may decide a comparison otherwise where two values all but
 * coincide: what the vectors leave open is allowed, nothing else is. */
#ifndef STEERD_TESTS_UNIT_STATISTICS_VECTORS_H
#define STEERD_TESTS_UNIT_STATISTICS_VECTORS_H

#include "tests/unit/vectors.h"

enum { FIGURES_BARS = 64, FIGURES_INTERVALS = 8, FIGURES_LOGIT_BARS = 50, FIGURES_LIST = 10 };

/* ---- what a test fills in, one for each feature ------------------------------------------------------- */

struct figures_example {
  int interval;      /* 0..7; -1 in the top group */
  double contains;   /* bin_contains, a share of n_tokens; -1 in the top group */
  int64_t document;
  int64_t position;  /* in the document; BOS is 0 */
  float value;
};

struct figures_ranked {
  int64_t id;        /* token or feature */
  float value;
};

struct figures {
  /* FIGURES_COUNTS */
  int64_t n_fired;
  double mean;
  float max;
  float range;                    /* R of the histogram; any number for a feature that never fires */
  uint64_t bars[FIGURES_BARS];    /* those left out are 0 */
  /* FIGURES_EXAMPLES: the first n_top of the vectors or more, and all of the intervals, in the order of examples */
  const struct figures_example *top, *intervals;
  size_t n_top, n_intervals;
  /* FIGURES_WINDOW: of the first top example; made with the window of the vectors */
  int64_t window_start;           /* position of its first token */
  size_t n_window;
  const int32_t *window_tokens;
  const float *window_values;
  /* FIGURES_LOGITS: ten each, largest first and smallest first */
  const struct figures_ranked *logits_top, *logits_bottom;
  size_t n_logits_top, n_logits_bottom;
  float logits_low, logits_high;  /* ends of the histogram */
  uint64_t logits_bars[FIGURES_LOGIT_BARS];
  /* FIGURES_NEIGHBOURS: ten */
  const struct figures_ranked *neighbours;
  size_t n_neighbours;
};

enum figures_parts {
  FIGURES_COUNTS = 1, FIGURES_EXAMPLES = 2, FIGURES_WINDOW = 4, FIGURES_LOGITS = 8, FIGURES_NEIGHBOURS = 16,
  FIGURES_ALL = 31
};

/* ---- the recorded side -------------------------------------------------------------------------------- */

struct statistics_vectors {
  struct tensors *file;
  const char *name; /* for messages; borrowed */
  int64_t n_features, n_tokens, n_documents;
  size_t n_top, n_quantile, window; /* settings to make the figures with */
  int quiet; /* counts without printing */
};

/* A candidate of a ranking or an interval. */
struct statistics_entry {
  int64_t group;    /* document, token or feature */
  int64_t position;
  int64_t same;     /* equal numbers: equal in any arithmetic */
  int sure;         /* it surely fires (and lies in the interval) */
  double value, slack;
};

static inline const struct tensor *statistics_tensor(const struct statistics_vectors *want, const char *part,
                                                     const char *column) {
  char name[64];
  snprintf(name, sizeof name, "%s%s%s", part, *column ? "/" : "", column);
  const struct tensor *tensor = tensors_find(want->file, name);
  if (!tensor) {
    fprintf(stderr, "%s: vector '%s' is not recorded\n", want->name, name);
    exit(1);
  }
  return tensor;
}

/* Every recorded number is exact in f32: counts stay below 2^24. */
static inline double statistics_at(const struct statistics_vectors *want, const char *part, const char *column, size_t i) {
  const struct tensor *tensor = statistics_tensor(want, part, column);
  return (double)dtype_f32_at(tensor->data, tensor->dtype, i);
}

/* Opens a file that make_statistics.py wrote; a missing one ends the program. */
static inline struct statistics_vectors statistics_vectors_open(const char *path, const char *name) {
  struct statistics_vectors want = {.file = vectors_open(path), .name = name};
  want.n_features = statistics_tensor(&want, "n_fired", "")->shape[0];
  want.n_tokens = (int64_t)statistics_at(&want, "settings", "", 0);
  want.n_documents = (int64_t)statistics_at(&want, "settings", "", 1);
  want.n_top = (size_t)statistics_at(&want, "settings", "", 2);
  want.n_quantile = (size_t)statistics_at(&want, "settings", "", 3);
  want.window = (size_t)statistics_at(&want, "settings", "", 4);
  return want;
}

static inline void statistics_vectors_close(struct statistics_vectors *want) {
  tensors_close(want->file);
  want->file = NULL;
}

/* Candidates of one row of a part (freed by the caller), in the recorded order. `group` names their column. */
static inline struct statistics_entry *statistics_entries(const struct statistics_vectors *want, const char *part,
                                                          const char *group, size_t row, size_t *count) {
  size_t first = (size_t)statistics_at(want, part, "first", row), end = (size_t)statistics_at(want, part, "first", row + 1);
  int example = strcmp(group, "document") == 0;
  struct statistics_entry *entries = calloc(end - first + 1, sizeof *entries);
  for (size_t i = first; i < end; i++)
    entries[i - first] = (struct statistics_entry){
        (int64_t)statistics_at(want, part, group, i),
        example ? (int64_t)statistics_at(want, part, "position", i) : 0,
        (int64_t)statistics_at(want, part, "same", i),
        example ? (int)statistics_at(want, part, "sure", i) : 1,
        statistics_at(want, part, "value", i), statistics_at(want, part, "slack", i)};
  *count = end - first;
  return entries;
}

/* ---- comparisons -------------------------------------------------------------------------------------- */

/* The slacks bound what float32 may do; values and slacks themselves were rounded to f32 once. */
static inline int statistics_near(double got, double value, double slack) {
  return fabs(got - value) <= slack + 1e-6 * fabs(value); /* false for NaN */
}

static inline int statistics_tell(const struct statistics_vectors *want, int64_t feature, const char *what, size_t at,
                                  double low, double high, double got) {
  if (got >= low && got <= high) return 0;
  if (!want->quiet)
    fprintf(stderr, "%s: feature %lld: %s [%zu]: want %.9g to %.9g, got %.9g\n", want->name, (long long)feature, what, at,
            low, high, got);
  return 1;
}

static inline int statistics_fault(const struct statistics_vectors *want, int64_t feature, const char *what, size_t at,
                                   const char *fault, const struct statistics_entry *recorded, int64_t document,
                                   int64_t position, double value) {
  if (want->quiet) return 1;
  fprintf(stderr, "%s: feature %lld: %s [%zu]: %s: ", want->name, (long long)feature, what, at, fault);
  if (recorded)
    fprintf(stderr, "want %lld:%lld at %.9g, ", (long long)recorded->group, (long long)recorded->position, recorded->value);
  fprintf(stderr, "got %lld:%lld at %.9g\n", (long long)document, (long long)position, value);
  return 1;
}

/* Bars from edge b upwards, for every b: each open position moves at most once over an edge. */
static inline int statistics_compare_bars(const struct statistics_vectors *want, int64_t feature, const char *prefix,
                                          const uint64_t *got, size_t n) {
  char bars[32], rise[32], fall[32];
  snprintf(bars, sizeof bars, "%sbars", prefix);
  snprintf(rise, sizeof rise, "%srise", prefix);
  snprintf(fall, sizeof fall, "%sfall", prefix);
  double recorded = 0, counted = 0;
  int wrong = 0;
  for (size_t b = n; b-- > 0;) {
    size_t at = (size_t)feature * n + b;
    recorded += statistics_at(want, bars, "", at);
    counted += (double)got[b];
    wrong += statistics_tell(want, feature, n == FIGURES_BARS ? "activations in bars from" : "logits in bars from", b,
                             recorded - statistics_at(want, fall, "", at), recorded + statistics_at(want, rise, "", at), counted);
  }
  return wrong;
}

static inline int statistics_compare_counts(const struct statistics_vectors *want, int64_t feature, const struct figures *got) {
  size_t f = (size_t)feature;
  int wrong = statistics_compare_bars(want, feature, "", got->bars, FIGURES_BARS);
  double in_bars = 0, slack = statistics_at(want, "sum_slack", "", f), sum = statistics_at(want, "sum", "", f);
  for (size_t b = 0; b < FIGURES_BARS; b++) in_bars += (double)got->bars[b];
  wrong += statistics_tell(want, feature, "n_fired beside its bars", 0, in_bars, in_bars, (double)got->n_fired);
  slack += 1e-6 * fabs(sum);
  wrong += statistics_tell(want, feature, "mean times n_fired", 0, sum - slack, sum + slack, got->mean * (double)got->n_fired);
  if (!got->n_fired) wrong += statistics_tell(want, feature, "mean where it never fires", 0, 0, 0, got->mean);
  double low = statistics_at(want, "max_low", "", f), high = statistics_at(want, "max_high", "", f);
  wrong += statistics_tell(want, feature, "max", 0, low * (1 - 1e-6), high * (1 + 1e-6), (double)got->max);
  double range = statistics_at(want, "range", "", f);
  if (low > 0) wrong += statistics_tell(want, feature, "range", 0, range, range, (double)got->range);
  return wrong;
}

static inline const struct statistics_entry *statistics_match(const struct statistics_entry *entries, size_t n, int64_t group,
                                                              int64_t position) {
  for (size_t i = 0; i < n; i++)
    if (entries[i].group == group && entries[i].position == position) return &entries[i];
  return NULL;
}

/* May a candidate that was left out of a full list be absent, given one that is in it? sign: 1 largest first. */
static inline int statistics_may_follow(const struct statistics_entry *absent, const struct statistics_entry *listed, int sign) {
  if (absent->same == listed->same) return absent->group > listed->group;
  return sign * absent->value - absent->slack <= sign * listed->value + listed->slack;
}

/* A ranking of at most n groups: candidates only, in order by their own values, nothing better left out. */
static inline int statistics_compare_ranking(const struct statistics_vectors *want, int64_t feature, const char *what,
                                             const struct statistics_entry *entries, size_t n_entries,
                                             const struct figures_example *got, size_t n_got, size_t n, int sign) {
  const struct statistics_entry **found = calloc(n_got + 1, sizeof *found);
  int wrong = 0;
  for (size_t i = 0; i < n_got; i++) {
    const struct figures_example *g = &got[i];
    found[i] = statistics_match(entries, n_entries, g->document, g->position);
    if (!found[i] || !statistics_near((double)g->value, found[i]->value, found[i]->slack))
      wrong += statistics_fault(want, feature, what, i, found[i] ? "another value" : "not a candidate",
                                found[i] ? found[i] : i < n_entries ? &entries[i] : NULL, g->document, g->position,
                                (double)g->value);
    for (size_t j = 0; j < i; j++) {
      double ahead = sign * ((double)got[j].value - (double)g->value);
      int twins = found[i] && found[j] && found[i]->same == found[j]->same;
      if (got[j].document == g->document || ahead < 0 || (ahead == 0 && got[j].document > g->document) || (twins && ahead != 0))
        wrong += statistics_fault(want, feature, what, i, twins ? "order among equals" : "order, or listed twice", found[i],
                                  g->document, g->position, (double)g->value);
    }
  }
  for (size_t e = 0; e < n_entries; e++) {
    int listed = 0, allowed = n_got == n; /* a list with room left has everything */
    for (size_t i = 0; i < n_got; i++) {
      listed |= got[i].document == entries[e].group;
      allowed &= !found[i] || statistics_may_follow(&entries[e], found[i], sign);
    }
    allowed |= !entries[e].sure;
    if (!listed && !allowed)
      wrong += statistics_fault(want, feature, what, n_got, "left out", &entries[e], n_got ? got[n_got - 1].document : -1,
                                n_got ? got[n_got - 1].position : -1, n_got ? (double)got[n_got - 1].value : 0);
  }
  free(found);
  return wrong;
}

/* One interval: of its members those with the smallest keys; candidates are recorded by key. */
static inline int statistics_compare_interval(const struct statistics_vectors *want, int64_t feature, int interval,
                                              const struct figures *figures) {
  size_t n = 0, listed = 0, matched = 0;
  int wrong = 0;
  struct statistics_entry *entries =
      statistics_entries(want, "interval", "document", (size_t)feature * FIGURES_INTERVALS + (size_t)interval, &n);
  double counted = 0;
  for (size_t b = 0; b < FIGURES_BARS / FIGURES_INTERVALS; b++)
    counted += (double)figures->bars[(size_t)interval * FIGURES_BARS / FIGURES_INTERVALS + b];
  for (size_t i = 0; i < figures->n_intervals; i++) {
    const struct figures_example *g = &figures->intervals[i];
    if (g->interval != interval) continue;
    const struct statistics_entry *found = statistics_match(entries, n, g->document, g->position);
    if (!found || !statistics_near((double)g->value, found->value, found->slack))
      wrong += statistics_fault(want, feature, "interval example", i, found ? "another value" : "not a candidate",
                                found ? found : listed < n ? &entries[listed] : NULL, g->document, g->position,
                                (double)g->value);
    wrong += statistics_tell(want, feature, "positions in the interval of example", i, counted - 0.5, counted + 0.5,
                             g->contains * (double)want->n_tokens); /* a share kept as f32 is off by less */
    listed++;
  }
  for (size_t e = 0; e < n; e++) {
    int in = 0;
    for (size_t i = 0; i < figures->n_intervals; i++)
      in |= figures->intervals[i].interval == interval && figures->intervals[i].document == entries[e].group &&
            figures->intervals[i].position == entries[e].position;
    if (!in && entries[e].sure && matched < want->n_quantile)
      wrong += statistics_fault(want, feature, "interval", (size_t)interval, "left out", &entries[e], -1, -1, 0);
    matched += (size_t)in;
  }
  if (listed > want->n_quantile || matched != listed)
    wrong += statistics_tell(want, feature, "examples of interval", (size_t)interval, (double)matched,
                             (double)want->n_quantile, (double)listed);
  free(entries);
  return wrong;
}

/* From the highest interval, inside one by value, document, position. */
static inline int statistics_compare_order(const struct statistics_vectors *want, int64_t feature, const struct figures *got) {
  int wrong = 0;
  for (size_t i = 1; i < got->n_intervals; i++) {
    const struct figures_example *a = &got->intervals[i - 1], *b = &got->intervals[i];
    int ordered = a->position < b->position;
    if (a->document != b->document) ordered = a->document < b->document;
    if (a->value != b->value) ordered = a->value > b->value;
    if (a->interval != b->interval) ordered = a->interval > b->interval;
    if (!ordered)
      wrong +=
          statistics_fault(want, feature, "interval example", i, "order", NULL, b->document, b->position, (double)b->value);
  }
  return wrong;
}

static inline int statistics_compare_examples(const struct statistics_vectors *want, int64_t feature, const struct figures *got) {
  size_t n = 0;
  struct statistics_entry *entries = statistics_entries(want, "top", "document", (size_t)feature, &n);
  size_t n_top = got->n_top < want->n_top ? got->n_top : want->n_top;
  int wrong = statistics_compare_ranking(want, feature, "top example", entries, n, got->top, n_top, want->n_top, 1);
  free(entries);
  if (got->n_top)
    wrong += statistics_tell(want, feature, "max beside the first example", 0, (double)got->top[0].value,
                             (double)got->top[0].value, (double)got->max);
  for (int i = 0; i < FIGURES_INTERVALS; i++) wrong += statistics_compare_interval(want, feature, i, got);
  return wrong + statistics_compare_order(want, feature, got);
}

/* The window of whichever candidate came first. Needs got->top. */
static inline int statistics_compare_window(const struct statistics_vectors *want, int64_t feature, const struct figures *got) {
  size_t row = (size_t)statistics_at(want, "window", "first", (size_t)feature);
  size_t end = (size_t)statistics_at(want, "window", "first", (size_t)feature + 1);
  if (!got->n_top) return statistics_tell(want, feature, "tokens of a window without example", 0, 0, 0, (double)got->n_window);
  while (row < end && (got->top[0].document != (int64_t)statistics_at(want, "window", "document", row) ||
                       got->top[0].position != (int64_t)statistics_at(want, "window", "position", row)))
    row++;
  if (row == end)
    return statistics_fault(want, feature, "window", 0, "not of a first example", NULL, got->top[0].document,
                            got->top[0].position, (double)got->top[0].value);
  double start = statistics_at(want, "window", "start", row), length = statistics_at(want, "window", "length", row);
  int wrong = statistics_tell(want, feature, "window start", 0, start, start, (double)got->window_start);
  wrong += statistics_tell(want, feature, "window length", 0, length, length, (double)got->n_window);
  for (size_t t = 0; t < (size_t)length && t < got->n_window; t++) {
    double token = statistics_at(want, "window", "tokens", row * want->window + t);
    double value = statistics_at(want, "window", "values", row * want->window + t);
    double slack = statistics_at(want, "window", "slacks", row * want->window + t) + 1e-6 * fabs(value);
    wrong += statistics_tell(want, feature, "window token", t, token, token, (double)got->window_tokens[t]);
    wrong += statistics_tell(want, feature, "window value", t, value - slack, value + slack, (double)got->window_values[t]);
  }
  return wrong;
}

static inline int statistics_compare_list(const struct statistics_vectors *want, int64_t feature, const char *part,
                                          const struct figures_ranked *got, size_t n_got, int sign) {
  size_t n = 0;
  struct statistics_entry *entries = statistics_entries(want, part, "id", (size_t)feature, &n);
  struct figures_example *rows = calloc(n_got + 1, sizeof *rows);
  for (size_t i = 0; i < n_got; i++) rows[i] = (struct figures_example){-1, -1, got[i].id, 0, got[i].value};
  int wrong = statistics_tell(want, feature, part, n_got, FIGURES_LIST, FIGURES_LIST, (double)n_got);
  wrong += statistics_compare_ranking(want, feature, part, entries, n, rows, n_got, FIGURES_LIST, sign);
  free(rows);
  free(entries);
  return wrong;
}

static inline int statistics_compare_logits(const struct statistics_vectors *want, int64_t feature, const struct figures *got) {
  int wrong = statistics_compare_list(want, feature, "logits_top", got->logits_top, got->n_logits_top, 1);
  wrong += statistics_compare_list(want, feature, "logits_bottom", got->logits_bottom, got->n_logits_bottom, -1);
  double slack = statistics_at(want, "logits_slack", "", 0), ends[2] = {(double)got->logits_low, (double)got->logits_high};
  for (size_t i = 0; i < 2; i++) {
    double end = statistics_at(want, "logits_range", "", (size_t)feature * 2 + i), room = slack * fmax(1, fabs(end));
    wrong += statistics_tell(want, feature, "logits range", i, end - room, end + room, ends[i]);
  }
  return wrong + statistics_compare_bars(want, feature, "logits_", got->logits_bars, FIGURES_LOGIT_BARS);
}

/* Disagreements beyond what the vectors leave open, each printed with name, feature, want and got. parts: which of `got`
 * is filled in; examples and windows need the counts, windows the examples. */
static inline int statistics_vectors_compare(const struct statistics_vectors *want, int64_t feature, const struct figures *got,
                                             unsigned parts) {
  int wrong = 0;
  if (parts & FIGURES_COUNTS) wrong += statistics_compare_counts(want, feature, got);
  if (parts & FIGURES_EXAMPLES) wrong += statistics_compare_examples(want, feature, got);
  if (parts & FIGURES_WINDOW) wrong += statistics_compare_window(want, feature, got);
  if (parts & FIGURES_LOGITS) wrong += statistics_compare_logits(want, feature, got);
  if (parts & FIGURES_NEIGHBOURS)
    wrong += statistics_compare_list(want, feature, "neighbours", got->neighbours, got->n_neighbours, 1);
  return wrong;
}

#endif
