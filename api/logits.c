/* logits.c: what a dictionary's rows do to the logits, all features at once:
 * GET /v1/lab/dictionaries/{model}/{source}/logit-stats, POST .../enrichment. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/rows.h"

/* ---- logit-stats --------------------------------------------------------------------------------------- */

#define LEAST_ROW(name_, what_) {name_, NULL, FIELD_NUMBER, .min = -1e300, .max = 1e300, .text = "Only features with at least this " what_ "."}
#define MOST_ROW(name_, what_) {name_, NULL, FIELD_NUMBER, .min = -1e300, .max = 1e300, .text = "Only features with at most this " what_ "."}

const struct field logit_stats_fields[] = {
    {"order", NULL, FIELD_CHOICE, .fallback = "index", .choices = "index mean std skewness kurtosis", .text = "What to sort by."},
    {"descending", NULL, FIELD_BOOL, .fallback = "false", .text = "true puts the largest first."},
    LEAST_ROW("minMean", "mean"), MOST_ROW("maxMean", "mean"), LEAST_ROW("minStd", "standard deviation"),
    MOST_ROW("maxStd", "standard deviation"), LEAST_ROW("minSkewness", "skewness"), MOST_ROW("maxSkewness", "skewness"),
    LEAST_ROW("minKurtosis", "kurtosis (3 is a normal distribution's)"), MOST_ROW("maxKurtosis", "kurtosis"),
    OFFSET_ROW("How many features to pass over."),
    {"limit", NULL, FIELD_INT, .fallback = "100", .min = 1, .max = 1e6, .text = "Features at most."},
    {.name = NULL}};

enum column { BY_INDEX, BY_MEAN, BY_STD, BY_SKEWNESS, BY_KURTOSIS, COLUMNS };
static const char *const words[COLUMNS] = {"index", "mean", "std", "skewness", "kurtosis"};
static const char *const ends[COLUMNS][2] = {[BY_MEAN] = {"minMean", "maxMean"}, [BY_STD] = {"minStd", "maxStd"},
    [BY_SKEWNESS] = {"minSkewness", "maxSkewness"}, [BY_KURTOSIS] = {"minKurtosis", "maxKurtosis"}};

static double number_of(const struct lab_moments *m, enum column column) {
  switch (column) {
    case BY_MEAN: return m->mean;
    case BY_STD: return m->std;
    case BY_SKEWNESS: return m->skewness;
    default: return m->kurtosis;
  }
}

struct keyed {
  double key;
  int64_t index;
};

/* NaN behind everything, whichever way; the lower index first among equals. */
static int by_key(const void *a, const void *b) {
  const struct keyed *x = a, *y = b;
  bool none = isnan(x->key), other_none = isnan(y->key);
  if (none != other_none) return none ? 1 : -1;
  if (!none && x->key != y->key) return x->key < y->key ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* NaN passes no limit. */
static bool passes(const struct values *values, const struct lab_moments *m) {
  for (enum column c = BY_MEAN; c < COLUMNS; c++) {
    double number = number_of(m, c);
    if (values_has(values, ends[c][0]) && !(number >= values_number(values, ends[c][0]))) return false;
    if (values_has(values, ends[c][1]) && !(number <= values_number(values, ends[c][1]))) return false;
  }
  return true;
}

static enum column column_of(const char *word) {
  int column = BY_INDEX;
  while (strcmp(words[column], word) != 0) column++;
  return (enum column)column;
}

/* Those that pass, in the order that was asked for; *n of them. */
static struct keyed *select_rows(struct api_call *call, const struct lab_moments *moments, int64_t n_feat, size_t *n, struct error *error) {
  const struct values *values = call->values;
  enum column column = column_of(values_text(values, "order", NULL));
  double sign = values_bool(values, "descending") ? -1 : 1;
  struct keyed *rows = arena_array(&call->arena, (size_t)n_feat, sizeof *rows, error);
  *n = 0;
  for (int64_t i = 0; rows && i < n_feat; i++)
    if (passes(values, &moments[i]))
      rows[(*n)++] = (struct keyed){sign * (column == BY_INDEX ? (double)i : number_of(&moments[i], column)), i};
  if (rows) qsort(rows, *n, sizeof *rows, by_key);
  return rows;
}

static void write_moments(struct json_writer *w, int64_t index, const struct lab_moments *m, float rate) {
  jw_open(w, '{');
  jw_member_int(w, "index", index);
  for (enum column c = BY_MEAN; c < COLUMNS; c++) jw_member_f64(w, words[c], number_of(m, c));
  jw_member_f32(w, "rate", rate);
  jw_close(w, '}');
}

/* How often features fire, where statistics say so: [n_feat], NaN elsewhere. */
static float *read_rates(struct api_call *call, const struct lab_source_info *source, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  size_t n = (size_t)source->n_feat;
  float *rates = arena_array(&call->arena, n, sizeof *rates, error);
  for (size_t i = 0; rates && i < n; i++) rates[i] = NAN;
  if (rates && store && store_density(store, lab_store_source(call->api->lab, source), rates, n, NULL, error) != 0) return NULL;
  return rates;
}

static int finish_stats(struct api_call *call, struct error *error) {
  const struct place *place = call->plan;
  const struct lab_moments *moments = lab_logit_stats_result(call->job);
  struct page page = {.offset = values_int(call->values, "offset"), .limit = values_int(call->values, "limit")};
  size_t n;
  struct keyed *rows = select_rows(call, moments, place->source->n_feat, &n, error);
  float *rates = rows ? read_rates(call, place->source, error) : NULL;
  page.total = (int64_t)n;
  if (!rates || call_add_page(call, &page, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_place(&w, place->source);
  jw_member_int(&w, "features", place->source->n_feat);
  jw_member_int(&w, "total", page.total);
  jw_member_int(&w, "offset", page.offset);
  jw_key(&w, "rows");
  jw_open(&w, '[');
  for (int64_t i = page.offset; i < page.total && i - page.offset < page.limit; i++)
    write_moments(&w, rows[i].index, &moments[rows[i].index], rates[rows[i].index]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int logit_stats_get(struct api_call *call, struct error *error) {
  struct place *place = arena_alloc(&call->arena, sizeof *place, error);
  if (!place || call_path_place(call, place, error) != 0) return -1;
  call->plan = place;
  call->finish = finish_stats;
  return lab_logit_stats(call->api->lab, place->source, call->waker, &call->job, error);
}

/* ---- enrichment ---------------------------------------------------------------------------------------- */

#define MOST_SCORES 4000000 /* numbers of one reply */

static const struct field set_rows[] = {
    {"name", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 80, .text = "What to call it in the answer."},
    {"words", NULL, FIELD_TEXTS, .max = 200, .most = 10000, .text = "Words: all tokens of each are in the set."},
    {"ids", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true", .text = "A space in front of words that do not begin with one."},
    {.name = NULL}};

const struct field enrichment_fields[] = {
    {"builtin", NULL, FIELD_TEXTS, .min = 1, .max = 80, .most = 64, .text = "Sets by how tokens are written, such as \"all_digits\"; \"all\" for every one."},
    {"sets", NULL, FIELD_OBJECTS, .min = 1, .max = 64, .inner = set_rows, .strict = true,
     .example = "{\"name\": \"colours\", \"words\": [\"red\", \"green\"]}", .text = "Sets of your own."},
    {"features", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Which features to look at; left out: all."},
    {"topK", "numResults", FIELD_INT, .fallback = "10", .max = 1000, .text = "Features of each set, highest score first."},
    {"end", NULL, FIELD_CHOICE, .fallback = "any", .choices = "any top bottom",
     .text = "Of these only features where the set stands with the largest logits (top), or the smallest (bottom)."},
    {"scores", NULL, FIELD_BOOL, .fallback = "false", .text = "Also the score of every feature that was looked at."},
    {.name = NULL}};

static int read_sets(struct api_call *call, struct lab_token_sets *out, struct error *error) {
  size_t n = values_count(call->values, "sets");
  struct lab_token_set *sets = arena_array(&call->arena, n, sizeof *sets, error);
  if (!sets || !(out->classes = lab_read_strings(call, call->values, "builtin", &out->n_classes, error))) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct values *set = values_at(call->values, "sets", i);
    sets[i].name = values_text(set, "name", NULL);
    if (lab_read_token_set(call, set, &sets[i], error) != 0) return -1;
  }
  out->sets = sets;
  out->n_sets = n;
  return 0;
}

static void write_enriched(struct json_writer *w, const struct lab_enriched *one) {
  double score = fabs((double)one->score);
  jw_open(w, '{');
  jw_member_int(w, "index", one->index);
  jw_member_f64(w, "score", score);
  jw_member_f64(w, "enrichment", -log1p(-score)); /* of 1: infinite, which JSON has as null */
  jw_member_text(w, "end", one->score >= 0 ? "top" : "bottom");
  jw_close(w, '}');
}

static void write_scores(struct json_writer *w, const float *scores, size_t n) {
  jw_key(w, "scores");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) jw_f32(w, fabsf(scores[i]));
  jw_close(w, ']');
}

static void write_set(struct json_writer *w, const struct lab_enrichment_set *set, const float *scores, size_t n) {
  jw_open(w, '{');
  jw_member_text(w, "name", set->name);
  jw_member_int(w, "tokens", set->size);
  jw_key(w, "examples");
  jw_open(w, '[');
  for (size_t i = 0; i < set->n_examples; i++) jw_text(w, set->examples[i]);
  jw_close(w, ']');
  jw_key(w, "top");
  jw_open(w, '[');
  for (size_t i = 0; i < set->n_top; i++) write_enriched(w, &set->top[i]);
  jw_close(w, ']');
  if (scores) write_scores(w, scores, n);
  jw_close(w, '}');
}

static int finish_enrichment(struct api_call *call, struct error *error) {
  const struct place *place = call->plan;
  const struct lab_enrichment_result *result = lab_enrichment_result(call->job);
  bool scores = values_bool(call->values, "scores");
  (void)error;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_place(&w, place->source);
  jw_member_int(&w, "vocabulary", result->vocabulary);
  jw_member_int(&w, "features", (int64_t)result->n_features);
  jw_key(&w, "sets");
  jw_open(&w, '[');
  for (size_t s = 0; s < result->n_sets; s++)
    write_set(&w, &result->sets[s], scores ? result->sets[s].scores : NULL, result->n_features);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

static int check_scores(const struct api_call *call, const struct lab_enrichment_args *args, struct error *error) {
  int64_t features = args->n_features ? (int64_t)args->n_features : args->source->n_feat;
  int64_t sets = (int64_t)(args->sets.n_sets + args->sets.n_classes);
  for (size_t i = 0; i < args->sets.n_classes; i++) sets += strcmp(args->sets.classes[i], "all") == 0 ? 64 : 0;
  if (!values_bool(call->values, "scores") || features * sets <= MOST_SCORES) return 0;
  return error_set_field(error, ERROR_LIMIT, "scores", "%lld features times up to %lld sets are more than %d scores; ask for fewer 'features' or "
                         "sets, or without 'scores'", (long long)features, (long long)sets, MOST_SCORES);
}

static enum lab_end end_of(const char *word) {
  return strcmp(word, "top") == 0 ? LAB_TOP_END : strcmp(word, "bottom") == 0 ? LAB_BOTTOM_END : LAB_EITHER_END;
}

int enrichment_post(struct api_call *call, struct error *error) {
  struct place *place = arena_alloc(&call->arena, sizeof *place, error);
  struct lab_enrichment_args args = {.top_k = (int)values_int(call->values, "topK"), .end = end_of(values_text(call->values, "end", NULL))};
  if (!place || call_path_place(call, place, error) != 0 || read_sets(call, &args.sets, error) != 0) return -1;
  args.source = place->source;
  args.features = read_integers(call, call->values, "features", &args.n_features, error);
  if (!args.features || check_scores(call, &args, error) != 0) return -1;
  call->plan = place;
  call->finish = finish_enrichment;
  return lab_enrichment(call->api->lab, &args, call->waker, &call->job, error);
}
