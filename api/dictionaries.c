/* dictionaries.c: a dictionary as a whole: what it is, how often its features fire, lists of them.
 * GET /v1/lab/dictionaries/{model}/{source}, and .../density, .../features, .../random below it. */
#include <math.h>
#include <string.h>
#include <sys/random.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"
#include "core/base/clock.h"
#include "core/base/random.h"

const struct field dictionary_fields[] = {{.name = NULL}};

const struct field density_fields[] = {
    {"rates", NULL, FIELD_BOOL, .fallback = "true", .text = "false leaves out the rate of every single feature."},
    {.name = NULL}};

const struct field dictionary_features_fields[] = {
    {"order", NULL, FIELD_CHOICE, .fallback = "index", .choices = "index rate max mean", .text = "What to sort by."},
    {"descending", NULL, FIELD_BOOL, .fallback = "false", .text = "true puts the largest first."},
    {"alive", NULL, FIELD_BOOL, .fallback = "false", .text = "true leaves out features that never fire."},
    OFFSET_ROW("How many features to pass over."),
    {"limit", NULL, FIELD_INT, .fallback = "100", .min = 1, .max = 1000, .text = "Features at most."},
    {.name = NULL}};

/* What the store knows of a source; zeroes when it knows nothing. */
struct record {
  struct store *store;
  int64_t number;
  struct store_source row;
};

static int read_record(struct api_call *call, const struct lab_source_info *source, struct record *out,
                       struct error *error) {
  *out = (struct record){.store = lab_store(call->api->lab)};
  if (!out->store) return 0;
  out->number = lab_store_source(call->api->lab, source);
  int found = store_source_at(out->store, out->number, &call->arena, &out->row, error);
  if (found == 0) out->row = (struct store_source){0};
  return found < 0 ? -1 : 0;
}

/* ---- density ------------------------------------------------------------------------------------------ */

/* Firing rates of all features, NaN where there are none. */
static float *read_rates(struct api_call *call, const struct lab_source_info *source, const struct record *record,
                         size_t *known, struct error *error) {
  size_t n = (size_t)source->n_feat;
  float *rates = arena_array(&call->arena, n, sizeof *rates, error);
  *known = 0;
  if (!rates) return NULL;
  for (size_t i = 0; i < n; i++) rates[i] = NAN;
  if (record->store && store_density(record->store, record->number, rates, n, known, error) != 0) return NULL;
  return rates;
}

/* What density and dictionary tell of: a source with all that is stored of it. */
struct table {
  struct place place;
  struct record record;
  float *rates; /* [n_feat], in the call's arena */
  size_t known; /* rates that are */
};

static int open_table(struct api_call *call, struct table *out, struct error *error) {
  if (call_known_path(call, &out->place, error) != 0 || read_record(call, out->place.source, &out->record, error) != 0)
    return -1;
  out->rates = read_rates(call, out->place.source, &out->record, &out->known, error);
  return out->rates ? 0 : -1;
}

static void write_shares(struct json_writer *w, const float *rates, size_t n, size_t known) {
  static const double ends[] = {0.1, 0.01, 0.001, 0.0001};
  jw_key(w, "shares");
  jw_open(w, '[');
  for (size_t k = 0; k < sizeof ends / sizeof ends[0]; k++) {
    int64_t below = 0;
    for (size_t i = 0; i < n; i++) below += rates[i] < (float)ends[k]; /* false for NaN; 0.1f is not below 0.1 */
    jw_open(w, '{');
    jw_member_f64(w, "below", ends[k]);
    jw_member_int(w, "features", below);
    jw_member_f64(w, "share", known ? (double)below / (double)known : NAN);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

/* Decimal logarithms of rates above 0, four bars a decade. The first bar also has everything below it. */
enum { BARS_A_DECADE = 4, DECADES = 8, BARS = BARS_A_DECADE * DECADES };

/* A float32 may lie a little below the decimal it stands for: 1e-6 of a bar is more than that. */
static void count_bars(const float *rates, size_t n, int64_t bars[BARS]) {
  for (size_t i = 0; i < n; i++) {
    if (!(rates[i] > 0)) continue;
    double at = floor((log10((double)rates[i]) + DECADES) * BARS_A_DECADE + 1e-6);
    bars[at < 0 ? 0 : at >= BARS ? BARS - 1 : (int)at]++;
  }
}

static void write_bars(struct json_writer *w, const float *rates, size_t n) {
  int64_t bars[BARS] = {0};
  count_bars(rates, n, bars);
  jw_key(w, "log10Histogram");
  jw_open(w, '{');
  jw_key(w, "edges");
  jw_open(w, '[');
  for (int i = 0; i <= BARS; i++) jw_f64(w, (double)i / BARS_A_DECADE - DECADES);
  jw_close(w, ']');
  jw_key(w, "counts");
  jw_open(w, '[');
  for (int i = 0; i < BARS; i++) jw_int(w, bars[i]);
  jw_close(w, ']');
  jw_close(w, '}');
}

static void write_density(struct json_writer *w, const float *rates, size_t n, size_t known) {
  int64_t dead = 0;
  for (size_t i = 0; i < n; i++) dead += rates[i] == 0;
  jw_member_int(w, "featuresWithStatistics", (int64_t)known);
  jw_member_int(w, "dead", dead);
  write_shares(w, rates, n, known);
}

static void member_tokens_counted(struct json_writer *w, const struct record *record) {
  if (record->row.statistics.n_tokens > 0)
    jw_member_int(w, "nTokens", record->row.statistics.n_tokens);
  else
    jw_member_null(w, "nTokens");
}

int density_get(struct api_call *call, struct error *error) {
  struct table t;
  if (open_table(call, &t, error) != 0) return -1;
  size_t n = (size_t)t.place.source->n_feat;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_place(&w, t.place.source);
  jw_member_int(&w, "features", t.place.source->n_feat);
  member_tokens_counted(&w, &t.record);
  write_density(&w, t.rates, n, t.known);
  write_bars(&w, t.rates, n);
  if (values_bool(call->values, "rates")) {
    jw_key(&w, "rates");
    jw_f32_array(&w, t.rates, n);
  }
  jw_close(&w, '}');
  return 0;
}

/* ---- what it is --------------------------------------------------------------------------------------- */

/* known: features with statistics. */
static void write_shape(struct json_writer *w, const struct lab_source_info *source, size_t known) {
  struct lab_source_info counted = *source;
  if (source->stored && known) counted.n_feat = (int64_t)known;
  rows_place(w, source);
  source_members(w, &counted);
  if (source->stored) jw_member_int(w, "indices", source->n_feat);
}

static void write_provenance(struct json_writer *w, const struct store_source *row) {
  jw_key(w, "provenance");
  jw_open(w, '{');
  jw_member_text(w, "identity", row->identity);
  reply_json(w, "config", row->config);
  jw_member_text(w, "description", row->description);
  jw_member_text(w, "url", row->url);
  jw_member_text(w, "createdAt", row->created_at);
  jw_close(w, '}');
}

static void write_check(struct json_writer *w, const struct lab *lab, const struct lab_source_info *source) {
  struct lab_source_check check;
  check.state = LAB_CHECK_NONE;
  if (!source->stored) lab_source_check(lab, source, &check);
  jw_key(w, "selfTest");
  if (check.state != LAB_CHECK_DONE) {
    jw_null(w);
    return;
  }
  jw_open(w, '{');
  jw_member_int(w, "tokens", check.tokens);
  jw_member_f64(w, "l0", check.l0);
  jw_member_f64(w, "promisedL0", check.promised_l0 > 0 ? check.promised_l0 : NAN);
  jw_member_f64(w, "explainedVariance", check.explained);
  jw_member_text(w, "warning", check.text[0] ? check.text : NULL);
  jw_close(w, '}');
}

/* What /v1/jobs of kind eval has left, newest first. */
static void write_evaluation(struct json_writer *w, const struct store_evaluation *e) {
  static const double ends[STORE_SHARES] = {0.1, 0.01, 0.001, 0.0001};
  double gap = e->ce_zero - e->ce_raw;
  jw_open(w, '{');
  jw_member_text(w, "corpus", e->corpus);
  jw_member_text(w, "corpusHash", e->corpus_hash);
  jw_member_bool(w, "lines", e->lines);
  jw_member_bool(w, "ends", e->ends);
  jw_member_int(w, "documents", e->n_documents);
  jw_member_int(w, "tokens", e->n_tokens);
  jw_member_f64(w, "l0", e->l0);
  jw_member_f64(w, "mse", e->mse);
  jw_member_f64(w, "explainedVariance", e->explained);
  jw_member_f64(w, "fvu", 1 - e->explained);
  jw_member_f64(w, "cosine", e->cosine);
  jw_member_f64(w, "l2Ratio", e->l2_ratio);
  jw_member_f64(w, "relativeReconstructionBias", e->bias);
  jw_key(w, "crossEntropy");
  jw_open(w, '{');
  jw_member_int(w, "tokens", e->n_predicted);
  jw_member_f64(w, "raw", e->ce_raw);
  jw_member_f64(w, "spliced", e->ce_spliced);
  jw_member_f64(w, "withError", e->ce_error);
  jw_member_f64(w, "zero", e->ce_zero);
  jw_member_f64(w, "kept", gap != 0 ? (e->ce_zero - e->ce_spliced) / gap : NAN);
  jw_close(w, '}');
  jw_key(w, "klDivergence");
  jw_open(w, '{');
  jw_member_f64(w, "spliced", e->kl_spliced);
  jw_member_f64(w, "zero", e->kl_zero);
  jw_member_f64(w, "kept", e->kl_zero > 0 ? (e->kl_zero - e->kl_spliced) / e->kl_zero : NAN);
  jw_close(w, '}');
  jw_member_int(w, "dead", e->n_dead);
  jw_key(w, "shares");
  jw_open(w, '[');
  for (int i = 0; i < STORE_SHARES; i++) {
    jw_open(w, '{');
    jw_member_f64(w, "below", ends[i]);
    jw_member_int(w, "features", e->below[i]);
    jw_member_f64(w, "share", e->n_features ? (double)e->below[i] / (double)e->n_features : NAN);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_member_text(w, "madeAt", e->made_at);
  jw_close(w, '}');
}

static int write_evaluations(struct api_call *call, struct json_writer *w, const struct record *record, struct error *error) {
  struct store_evaluation *rows = NULL;
  size_t n = 0;
  if (record->store && store_evaluation_list(record->store, record->number, &call->arena, &rows, &n, error) != 0) return -1;
  jw_key(w, "evaluations");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) write_evaluation(w, &rows[i]);
  jw_close(w, ']');
  return 0;
}

int dictionary_get(struct api_call *call, struct error *error) {
  struct table t;
  if (open_table(call, &t, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  write_shape(&w, t.place.source, t.known);
  write_check(&w, call->api->lab, t.place.source);
  write_provenance(&w, &t.record.row);
  jw_key(&w, "statistics");
  jw_open(&w, '{');
  member_tokens_counted(&w, &t.record);
  write_density(&w, t.rates, (size_t)t.place.source->n_feat, t.known);
  rows_conventions(&w, t.place.source, &t.record.row.statistics);
  jw_close(&w, '}');
  if (write_evaluations(call, &w, &t.record, error) != 0) return -1;
  jw_close(&w, '}');
  return 0;
}

/* ---- lists -------------------------------------------------------------------------------------------- */

static enum store_order order_of(const char *word) {
  static const char *const words[] = {
      [STORE_BY_INDEX] = "index", [STORE_BY_RATE] = "rate", [STORE_BY_MAX] = "max", [STORE_BY_MEAN] = "mean"};
  int order = STORE_BY_INDEX;
  while (strcmp(words[order], word) != 0) order++;
  return (enum store_order)order;
}

static void write_row(struct json_writer *w, const struct store_feature_row *row) {
  jw_open(w, '{');
  jw_member_int(w, "index", row->index);
  jw_member_f64(w, "rate", row->rate);
  if (row->n_fired >= 0) jw_member_int(w, "nFired", row->n_fired);
  else jw_member_null(w, "nFired");
  jw_member_f32(w, "max", row->max);
  jw_member_f64(w, "mean", row->mean);
  jw_member_text(w, "description", row->description);
  jw_close(w, '}');
}

static void write_list(struct api_call *call, const struct lab_source_info *source, const struct page *page,
                       const struct store_feature_row *rows, size_t n) {
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_place(&w, source);
  jw_member_int(&w, "total", page->total);
  jw_member_int(&w, "offset", page->offset);
  jw_key(&w, "features");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) write_row(&w, &rows[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
}

int dictionary_features_get(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct place place;
  struct store_feature_row *rows = NULL;
  size_t n = 0;
  struct page page = {.offset = values_int(values, "offset"), .limit = values_int(values, "limit")};
  struct store *store = lab_store(call->api->lab);
  if (call_known_path(call, &place, error) != 0) return -1;
  struct store_feature_query query = {.order = order_of(values_text(values, "order", NULL)),
                                      .source = lab_store_source(call->api->lab, place.source),
                                      .descending = values_bool(values, "descending"),
                                      .alive = values_bool(values, "alive"), .offset = page.offset,
                                      .limit = page.limit};
  if (store && store_feature_list(store, &query, &call->arena, &rows, &n, &page.total, error) != 0) return -1;
  if (call_add_page(call, &page, error) != 0) return -1;
  write_list(call, place.source, &page, rows, n);
  return 0;
}

/* ---- random ------------------------------------------------------------------------------------------- */

static double any_unit(void) {
  uint64_t seed = (uint64_t)clock_ns();
  if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) < 0) seed ^= 1; /* the clock is random enough for a look around */
  return random_unit(seed, 0, 0);
}

/* One that fires; where no statistics are, any one. */
int dictionary_random_get(struct api_call *call, struct error *error) {
  struct place place;
  if (call_known_path(call, &place, error) != 0) return -1;
  struct store *store = lab_store(call->api->lab);
  double unit = any_unit();
  uint32_t index = (uint32_t)(unit * (double)place.source->n_feat);
  int64_t number = lab_store_source(call->api->lab, place.source);
  if (store && store_feature_random(store, number, unit, &index, error) < 0) return -1;
  call_add_header(call, "Cache-Control", "no-store");
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_place(&w, place.source);
  jw_member_int(&w, "index", index);
  jw_close(&w, '}');
  return 0;
}
