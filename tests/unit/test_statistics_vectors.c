/* test_statistics_vectors.c: the recorded statistics agree with themselves, and each kind of wrong figure is seen. The
 * comparison judges other tests, so it must be able to fail. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "tests/unit/statistics_vectors.h"

#define MAX_TOP 10
#define MAX_INTERVALS 16
#define MAX_WINDOW 16

/* The twin's own choice for one feature, with room for its lists. */
struct twin {
  struct figures figures;
  struct figures_example top[MAX_TOP], intervals[MAX_INTERVALS];
  int32_t tokens[MAX_WINDOW];
  float values[MAX_WINDOW];
  struct figures_ranked logits_top[FIGURES_LIST], logits_bottom[FIGURES_LIST], neighbours[FIGURES_LIST];
};

static void fill_counts(const struct statistics_vectors *want, size_t f, struct figures *out) {
  out->n_fired = (int64_t)statistics_at(want, "n_fired", "", f);
  out->mean = out->n_fired ? statistics_at(want, "sum", "", f) / (double)out->n_fired : 0;
  out->max = (float)statistics_at(want, "max", "", f);
  out->range = (float)statistics_at(want, "range", "", f);
  for (size_t b = 0; b < FIGURES_BARS; b++) out->bars[b] = (uint64_t)statistics_at(want, "bars", "", f * FIGURES_BARS + b);
}

static void fill_top(const struct statistics_vectors *want, size_t f, struct twin *twin) {
  size_t n;
  struct statistics_entry *entries = statistics_entries(want, "top", "document", f, &n);
  for (size_t e = 0; e < n && twin->figures.n_top < MAX_TOP; e++)
    if (entries[e].sure) /* a near tie inside one document is not among these vectors' first choices */
      twin->top[twin->figures.n_top++] =
          (struct figures_example){-1, -1, entries[e].group, entries[e].position, (float)entries[e].value};
  free(entries);
  twin->figures.top = twin->top;
}

static int by_value(const void *a, const void *b) {
  const struct figures_example *left = a, *right = b;
  if (left->value != right->value) return left->value < right->value ? 1 : -1;
  return left->document < right->document ? -1 : 1;
}

static void fill_intervals(const struct statistics_vectors *want, size_t f, struct twin *twin) {
  struct figures *figures = &twin->figures;
  for (int i = FIGURES_INTERVALS - 1; i >= 0; i--) {
    size_t n, first = figures->n_intervals;
    struct statistics_entry *entries = statistics_entries(want, "interval", "document", f * FIGURES_INTERVALS + (size_t)i, &n);
    double count = 0;
    for (size_t b = 0; b < 8; b++) count += (double)figures->bars[(size_t)i * 8 + b];
    for (size_t e = 0; e < n; e++)
      if (entries[e].sure)
        twin->intervals[figures->n_intervals++] = (struct figures_example){
            i, count / (double)want->n_tokens, entries[e].group, entries[e].position, (float)entries[e].value};
    qsort(twin->intervals + first, figures->n_intervals - first, sizeof *twin->intervals, by_value);
    free(entries);
  }
  figures->intervals = twin->intervals;
}

static void fill_window(const struct statistics_vectors *want, size_t f, struct twin *twin) {
  size_t row = (size_t)statistics_at(want, "window", "first", f);
  twin->figures.window_start = (int64_t)statistics_at(want, "window", "start", row);
  twin->figures.n_window = (size_t)statistics_at(want, "window", "length", row);
  for (size_t t = 0; t < twin->figures.n_window; t++) {
    twin->tokens[t] = (int32_t)statistics_at(want, "window", "tokens", row * want->window + t);
    twin->values[t] = (float)statistics_at(want, "window", "values", row * want->window + t);
  }
  twin->figures.window_tokens = twin->tokens;
  twin->figures.window_values = twin->values;
}

static size_t fill_list(const struct statistics_vectors *want, const char *part, size_t f, struct figures_ranked *out) {
  size_t n;
  struct statistics_entry *entries = statistics_entries(want, part, "id", f, &n);
  for (size_t i = 0; i < FIGURES_LIST; i++) out[i] = (struct figures_ranked){entries[i].group, (float)entries[i].value};
  free(entries);
  return FIGURES_LIST;
}

static void fill(const struct statistics_vectors *want, size_t f, struct twin *twin) {
  struct figures *figures = &twin->figures;
  memset(twin, 0, sizeof *twin);
  fill_counts(want, f, figures);
  fill_top(want, f, twin);
  fill_intervals(want, f, twin);
  fill_window(want, f, twin);
  figures->n_logits_top = fill_list(want, "logits_top", f, twin->logits_top);
  figures->n_logits_bottom = fill_list(want, "logits_bottom", f, twin->logits_bottom);
  figures->n_neighbours = fill_list(want, "neighbours", f, twin->neighbours);
  figures->logits_top = twin->logits_top;
  figures->logits_bottom = twin->logits_bottom;
  figures->neighbours = twin->neighbours;
  figures->logits_low = (float)statistics_at(want, "logits_range", "", f * 2);
  figures->logits_high = (float)statistics_at(want, "logits_range", "", f * 2 + 1);
  for (size_t b = 0; b < FIGURES_LOGIT_BARS; b++)
    figures->logits_bars[b] = (uint64_t)statistics_at(want, "logits_bars", "", f * FIGURES_LOGIT_BARS + b);
}

static void agrees_with_itself(const char *path, int64_t n_features) {
  struct statistics_vectors want = statistics_vectors_open(path, path);
  assert_int_equal(want.n_features, n_features);
  assert_int_equal(want.n_top, MAX_TOP);
  assert_int_equal(want.n_quantile * FIGURES_INTERVALS, MAX_INTERVALS);
  assert_int_equal(want.window, MAX_WINDOW);
  for (int64_t f = 0; f < n_features; f++) {
    struct twin twin;
    fill(&want, (size_t)f, &twin);
    assert_int_equal(statistics_vectors_compare(&want, f, &twin.figures, FIGURES_ALL), 0);
  }
  statistics_vectors_close(&want);
}

static void test_each_agrees_with_itself(void **state) {
  (void)state;
  agrees_with_itself("tests/vectors/villes/statistics.safetensors", 128);
  agrees_with_itself("tests/vectors/tiny-gpt2/statistics-1-res-relu.safetensors", 96);
  agrees_with_itself("tests/vectors/tiny-gpt2/statistics-0-mlp-topk.safetensors", 96);
  agrees_with_itself("tests/vectors/tiny-gpt2/statistics-2-res-jump.safetensors", 96);
  agrees_with_itself("tests/vectors/tiny-gpt2/statistics-2-res-center.safetensors", 96);
}

/* ---- one wrong figure each ---------------------------------------------------------------------------- */

static void swap(struct figures_example *a, struct figures_example *b) {
  struct figures_example kept = *a;
  *a = *b;
  *b = kept;
}

static void one_more(struct twin *t) { t->figures.n_fired++; }
static void other_bar(struct twin *t) { t->figures.bars[1]++, t->figures.bars[2]--; }
static void other_mean(struct twin *t) { t->figures.mean *= 1.0005; }
static void other_max(struct twin *t) { t->figures.max = t->top[0].value *= 1.0001f; }
static void other_range(struct twin *t) { t->figures.range *= 2; }
static void first_two_swapped(struct twin *t) { swap(&t->top[0], &t->top[1]); }
static void first_forgotten(struct twin *t) {
  memmove(t->top, t->top + 1, sizeof t->top - sizeof t->top[0]);
  t->figures.max = t->top[0].value; /* consistent, so that the omission alone is seen */
  t->figures.n_top--;
}
static void list_shorter(struct twin *t) { t->figures.n_top--; }
static void listed_twice(struct twin *t) { t->top[9] = t->top[8]; }
static void next_position(struct twin *t) { t->top[4].position++; }
static void other_document(struct twin *t) { t->top[9].document++; }
static void other_value(struct twin *t) { t->top[9].value *= 0.9999f; }
static void other_sample(struct twin *t) { t->intervals[0].document++; }
static void sample_left_out(struct twin *t) { t->figures.n_intervals--; }
static void intervals_swapped(struct twin *t) { swap(&t->intervals[0], &t->intervals[2]); }
static void other_share(struct twin *t) { t->intervals[3].contains += 1e-3; }
static void window_later(struct twin *t) { t->figures.window_start++; }
static void window_token(struct twin *t) { t->tokens[3]++; }
static void window_value(struct twin *t) { t->values[3] += 1e-2f; }
static void logit_missed(struct twin *t) {
  memmove(t->logits_top, t->logits_top + 1, sizeof t->logits_top - sizeof t->logits_top[0]);
  t->figures.n_logits_top--;
}
static void logits_swapped(struct twin *t) {
  struct figures_ranked kept = t->logits_bottom[0];
  t->logits_bottom[0] = t->logits_bottom[1];
  t->logits_bottom[1] = kept;
}
static void logit_range(struct twin *t) { t->figures.logits_high *= 1.001f; }
static void logit_bar(struct twin *t) { t->figures.logits_bars[0]++, t->figures.logits_bars[49]--; }
static void neighbour(struct twin *t) { t->neighbours[5].id++; }
static void not_a_number(struct twin *t) { t->neighbours[5].value = NAN; }
static void mean_not_a_number(struct twin *t) { t->figures.mean = NAN; }

static void test_each_wrong_figure_is_seen(void **state) {
  (void)state;
  static const struct {
    const char *name;
    void (*spoil)(struct twin *);
    unsigned parts;
  } cases[] = {
#define CASE(spoil, parts) {#spoil, spoil, parts}
      CASE(one_more, FIGURES_COUNTS), CASE(other_bar, FIGURES_COUNTS), CASE(other_mean, FIGURES_COUNTS),
      CASE(other_max, FIGURES_COUNTS), CASE(other_range, FIGURES_COUNTS), CASE(mean_not_a_number, FIGURES_COUNTS),
      CASE(first_two_swapped, FIGURES_EXAMPLES), CASE(first_forgotten, FIGURES_EXAMPLES), CASE(list_shorter, FIGURES_EXAMPLES),
      CASE(listed_twice, FIGURES_EXAMPLES), CASE(next_position, FIGURES_EXAMPLES), CASE(other_document, FIGURES_EXAMPLES),
      CASE(other_value, FIGURES_EXAMPLES), CASE(other_sample, FIGURES_EXAMPLES), CASE(sample_left_out, FIGURES_EXAMPLES),
      CASE(intervals_swapped, FIGURES_EXAMPLES), CASE(other_share, FIGURES_EXAMPLES), CASE(window_later, FIGURES_WINDOW),
      CASE(window_token, FIGURES_WINDOW), CASE(window_value, FIGURES_WINDOW), CASE(logit_missed, FIGURES_LOGITS),
      CASE(logits_swapped, FIGURES_LOGITS), CASE(logit_range, FIGURES_LOGITS), CASE(logit_bar, FIGURES_LOGITS),
      CASE(neighbour, FIGURES_NEIGHBOURS), CASE(not_a_number, FIGURES_NEIGHBOURS),
#undef CASE
  };
  struct statistics_vectors want = statistics_vectors_open("tests/vectors/tiny-gpt2/statistics-2-res-jump.safetensors", "jump");
  want.quiet = 1;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct twin twin;
    fill(&want, 10, &twin);
    cases[i].spoil(&twin);
    if (!statistics_vectors_compare(&want, 10, &twin.figures, cases[i].parts)) fail_msg("%s was not seen", cases[i].name);
  }
  statistics_vectors_close(&want);
}

/* Names that begin alike have the same values there, bit for bit: the earlier line comes first. */
static void test_equal_prefixes_keep_their_order(void **state) {
  (void)state;
  struct statistics_vectors want = statistics_vectors_open("tests/vectors/villes/statistics.safetensors", "villes");
  int seen = 0;
  want.quiet = 1;
  for (int64_t f = 0; f < want.n_features && seen < 5; f++) {
    struct twin twin;
    fill(&want, (size_t)f, &twin);
    if (twin.top[0].value != twin.top[1].value) continue;
    struct figures_example later = twin.top[1];
    twin.top[1].document = twin.top[0].document, twin.top[0].document = later.document;
    assert_int_not_equal(statistics_vectors_compare(&want, f, &twin.figures, FIGURES_EXAMPLES), 0);
    fill(&want, (size_t)f, &twin);
    twin.top[0].value = twin.figures.max = nextafterf(twin.top[0].value, INFINITY); /* equal, so never by a bit */
    assert_int_not_equal(statistics_vectors_compare(&want, f, &twin.figures, FIGURES_EXAMPLES), 0);
    seen++;
  }
  assert_int_equal(seen, 5);
  statistics_vectors_close(&want);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_each_agrees_with_itself),
      cmocka_unit_test(test_each_wrong_figure_is_seen),
      cmocka_unit_test(test_equal_prefixes_keep_their_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
