/* read.c: lines of Neuronpedia's batches as rows of the store. Knows no file and no order of lines. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "core/archive/rows.h"
#include "core/base/number.h"

const char *const archive_part_names[ARCHIVE_PARTS] = {"features", "activations", "explanations"};

/* ---- single members ---- */

static bool is_absent(const struct json_node *node) { return !node || json_kind(node) == JSON_KIND_NULL; }

static int wrong_kind(const char *key, const struct json_node *node, const char *expected, struct error *error) {
  return error_set(error, ERROR_FORMAT, "%s is %s, expected %s", key, json_kind_word(json_kind(node)), expected);
}

static int read_text(const struct json_node *line, const char *key, struct arena *arena, const char **out,
                     struct error *error) {
  const struct json_node *node = json_get(line, key);
  size_t length;
  *out = NULL;
  if (is_absent(node)) return 0;
  const char *text = json_text(node, &length);
  if (!text) return wrong_kind(key, node, "a string", error);
  *out = arena_text(arena, text, length, error);
  return *out ? 0 : -1;
}

/* NaN where there is none. */
static int read_number(const struct json_node *line, const char *key, double *out, struct error *error) {
  const struct json_node *node = json_get(line, key);
  *out = NAN;
  if (is_absent(node)) return 0;
  *out = json_number_or(node, NAN);
  return isnan(*out) ? wrong_kind(key, node, "a number", error) : 0;
}

static int read_f32(const struct json_node *line, const char *key, float *out, struct error *error) {
  double value;
  if (read_number(line, key, &value, error) != 0) return -1;
  if (fabs(value) > (double)FLT_MAX) return error_set(error, ERROR_FORMAT, "%s is %g, beyond the range of f32", key, value);
  *out = (float)value;
  return 0;
}

static int read_int(const struct json_node *line, const char *key, int64_t low, int64_t high, int64_t fallback, int64_t *out,
                    struct error *error) {
  const struct json_node *node = json_get(line, key);
  *out = fallback;
  if (is_absent(node)) return 0;
  if (json_kind(node) != JSON_KIND_INT) return wrong_kind(key, node, "an integer", error);
  *out = json_int_or(node, fallback);
  if (*out >= low && *out <= high) return 0;
  return error_set(error, ERROR_FORMAT, "%s is %lld, allowed are %lld to %lld", key, (long long)*out, (long long)low,
                   (long long)high);
}

static int read_bool(const struct json_node *line, const char *key, bool *out, struct error *error) {
  const struct json_node *node = json_get(line, key);
  if (is_absent(node)) return 0;
  if (json_kind(node) != JSON_KIND_BOOL) return wrong_kind(key, node, "a boolean", error);
  *out = json_bool_or(node, false);
  return 0;
}

/* ---- lists ---- */

/* NULL with *n 0 where there is none. */
static int find_list(const struct json_node *line, const char *key, const struct json_node **list, size_t *n,
                     struct error *error) {
  *list = json_get(line, key);
  *n = 0;
  if (is_absent(*list)) return 0;
  if (json_kind(*list) != JSON_KIND_ARRAY) return wrong_kind(key, *list, "an array", error);
  *n = json_count(*list);
  return 0;
}

static int wrong_entry(const char *key, size_t i, const struct json_node *node, const char *expected, struct error *error) {
  return error_set(error, ERROR_FORMAT, "%s[%zu] is %s, expected %s", key, i, json_kind_word(json_kind(node)), expected);
}

static int read_floats(const struct json_node *line, const char *key, struct arena *arena, const float **out, size_t *n,
                       struct error *error) {
  const struct json_node *list;
  if (find_list(line, key, &list, n, error) != 0) return -1;
  float *values = arena_array(arena, *n, sizeof *values, error);
  if (!values) return -1;
  for (size_t i = 0; i < *n; i++) {
    double value = json_number_or(json_at(list, i), NAN);
    if (isnan(value)) return wrong_entry(key, i, json_at(list, i), "a number", error);
    if (fabs(value) > (double)FLT_MAX)
      return error_set(error, ERROR_FORMAT, "%s[%zu] is %g, beyond the range of f32", key, i, value);
    values[i] = (float)value;
  }
  *out = values;
  return 0;
}

static int read_texts(const struct json_node *line, const char *key, struct arena *arena, const struct store_text **out,
                      size_t *n, struct error *error) {
  const struct json_node *list;
  if (find_list(line, key, &list, n, error) != 0) return -1;
  struct store_text *texts = arena_array(arena, *n, sizeof *texts, error);
  if (!texts) return -1;
  for (size_t i = 0; i < *n; i++) {
    const char *text = json_text(json_at(list, i), &texts[i].length);
    if (!text) return wrong_entry(key, i, json_at(list, i), "a string", error);
    texts[i].text = arena_text(arena, text, texts[i].length, error);
    if (!texts[i].text) return -1;
  }
  *out = texts;
  return 0;
}

static int read_indices(const struct json_node *line, const char *key, struct arena *arena, const uint32_t **out, size_t *n,
                        struct error *error) {
  const struct json_node *list;
  if (find_list(line, key, &list, n, error) != 0) return -1;
  uint32_t *indices = arena_array(arena, *n, sizeof *indices, error);
  if (!indices) return -1;
  for (size_t i = 0; i < *n; i++) {
    int64_t value = json_int_or(json_at(list, i), -1);
    if (value < 0 || value > UINT32_MAX)
      return error_set(error, ERROR_FORMAT, "%s[%zu] is not the index of a feature", key, i);
    indices[i] = (uint32_t)value;
  }
  *out = indices;
  return 0;
}

static int same_length(const char *left, size_t n, const char *right, size_t m, struct error *error) {
  if (n == m) return 0;
  return error_set(error, ERROR_FORMAT, "%s has %zu entries and %s %zu", left, n, right, m);
}

static int read_histogram(const struct json_node *line, const char *heights, const char *values, struct arena *arena,
                          struct store_histogram *out, struct error *error) {
  size_t n;
  if (read_floats(line, heights, arena, &out->heights, &out->n, error) != 0 ||
      read_floats(line, values, arena, &out->values, &n, error) != 0)
    return -1;
  return same_length(heights, out->n, values, n, error);
}

static int read_logits(const struct json_node *line, const char *texts, const char *values, struct arena *arena,
                       struct store_tokens *out, struct error *error) {
  size_t n;
  if (read_texts(line, texts, arena, &out->texts, &out->n, error) != 0 ||
      read_floats(line, values, arena, &out->values, &n, error) != 0)
    return -1;
  return same_length(texts, out->n, values, n, error);
}

/* ---- members without a column ---- */

static bool is_among(const char *name, const char *const *names, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (strcmp(names[i], name) == 0) return true;
  return false;
}

bool archive_feature_column(const char *name) {
  static const char *const columns[] = {
      "modelId", "layer", "index", "sourceSetName", "creatorId", "createdAt", "hasVector", "vectorDefaultSteerStrength",
      "maxActApprox", "frac_nonzero", "n_fired", "mean", "freq_hist_data_bar_heights", "freq_hist_data_bar_values",
      "pos_str", "pos_values", "neg_str", "neg_values", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
      "topkCosSimIndices", "topkCosSimValues", "umap_x", "umap_y", "umap_cluster", "umap_log_feature_sparsity"};
  return is_among(name, columns, sizeof columns / sizeof columns[0]);
}

bool archive_example_column(const char *name) {
  static const char *const columns[] = {
      "id", "modelId", "layer", "index", "tokens", "values", "maxValue", "maxValueTokenIndex", "minValue", "binMin",
      "binMax", "binContains", "qualifyingTokenIndex", "dataIndex", "dataSource", "creatorId", "createdAt", "document",
      "position"};
  return is_among(name, columns, sizeof columns / sizeof columns[0]);
}

static bool says_nothing(const struct json_node *node) {
  size_t length = 1;
  switch (json_kind(node)) {
    case JSON_KIND_NULL: return true;
    case JSON_KIND_BOOL: return !json_bool_or(node, true);
    case JSON_KIND_STRING: json_text(node, &length); return length == 0;
    case JSON_KIND_ARRAY: return json_count(node) == 0;
    default: return false;
  }
}

/* Upstream's files have the two columns of an attention pattern as one. */
static bool write_pattern(struct json_writer *w, const char *key, const struct json_node *node) {
  if (strcmp(key, "zIndices") != 0 || json_kind(node) != JSON_KIND_ARRAY || json_count(node) != 2) return false;
  jw_key(w, "zKIndices");
  jw_node(w, json_at(node, 0));
  jw_key(w, "zQIndices");
  jw_node(w, json_at(node, 1));
  return true;
}

/* NULL when there are none. */
static int read_extra(const struct json_node *line, bool (*is_column)(const char *), struct arena *arena, const char **out,
                      struct error *error) {
  struct buffer text;
  struct json_writer w;
  void *iterator = NULL;
  const char *key;
  const struct json_node *node;
  size_t n = 0;
  *out = NULL;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  while (json_next(line, &iterator, &key, &node)) {
    if (is_column(key) || says_nothing(node)) continue;
    n++;
    if (write_pattern(&w, key, node)) continue;
    jw_key(&w, key);
    jw_node(&w, node);
  }
  jw_close(&w, '}');
  int failed = buffer_check(&text, error);
  if (!failed && n && !(*out = arena_text(arena, text.data, text.length, error))) failed = -1;
  buffer_clear(&text);
  return failed;
}

/* A list or object as JSON text; NULL when it is absent. */
static int read_json(const struct json_node *line, const char *key, struct arena *arena, const char **out,
                     struct error *error) {
  struct buffer text;
  struct json_writer w;
  const struct json_node *node = json_get(line, key);
  *out = NULL;
  if (is_absent(node)) return 0;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_node(&w, node);
  if (buffer_check(&text, error) == 0) *out = arena_text(arena, text.data, text.length, error);
  buffer_clear(&text);
  return *out ? 0 : -1;
}

/* ---- rows ---- */

/* Upstream's converter writes the index as a number, its database as a text. */
static int read_index(const struct json_node *line, uint32_t *out, struct error *error) {
  const struct json_node *node = json_get(line, "index");
  const char *text = json_text(node, NULL);
  int64_t value = json_int_or(node, -1);
  if (text && !number_parse_int(text, &value)) value = -1;
  if (value < 0 || value > UINT32_MAX) return error_set(error, ERROR_FORMAT, "index is not that of a feature");
  *out = (uint32_t)value;
  return 0;
}

int archive_read_place(const struct json_node *line, struct archive_place *out, struct error *error) {
  if (json_kind(line) != JSON_KIND_OBJECT) return error_set(error, ERROR_FORMAT, "the line is no JSON object");
  out->model = json_text(json_get(line, "modelId"), NULL);
  out->source = json_text(json_get(line, "layer"), NULL);
  if (!out->model || !*out->model) return error_set(error, ERROR_FORMAT, "modelId is missing or no text");
  if (!out->source || !*out->source) return error_set(error, ERROR_FORMAT, "layer is missing or no text");
  return read_index(line, &out->index, error);
}

static int read_statistics(const struct json_node *line, struct arena *arena, struct store_feature *out,
                           struct error *error) {
  if (read_number(line, "frac_nonzero", &out->rate, error) != 0 || read_number(line, "mean", &out->mean, error) != 0 ||
      read_f32(line, "maxActApprox", &out->max, error) != 0 ||
      read_int(line, "n_fired", 0, INT64_MAX, -1, &out->n_fired, error) != 0 ||
      read_histogram(line, "freq_hist_data_bar_heights", "freq_hist_data_bar_values", arena, &out->activity, error) != 0)
    return -1;
  if (!isnan(out->rate) || !isnan(out->max) || out->n_fired >= 0 || out->activity.n) out->groups |= STORE_STATISTICS;
  return 0;
}

static int read_tables(const struct json_node *line, struct arena *arena, struct store_feature *out, struct error *error) {
  size_t n;
  if (read_logits(line, "pos_str", "pos_values", arena, &out->top, error) != 0 ||
      read_logits(line, "neg_str", "neg_values", arena, &out->bottom, error) != 0 ||
      read_histogram(line, "logits_hist_data_bar_heights", "logits_hist_data_bar_values", arena, &out->logits, error) != 0 ||
      read_indices(line, "topkCosSimIndices", arena, &out->neighbours, &out->n_neighbours, error) != 0 ||
      read_floats(line, "topkCosSimValues", arena, &out->cosines, &n, error) != 0 ||
      same_length("topkCosSimIndices", out->n_neighbours, "topkCosSimValues", n, error) != 0)
    return -1;
  if (out->top.n || out->bottom.n || out->logits.n) out->groups |= STORE_LOGITS;
  if (n) out->groups |= STORE_NEIGHBOURS;
  return 0;
}

/* NaN in each where the line has none. */
static int read_map_place(const struct json_node *line, struct store_feature *out, struct error *error) {
  struct store_place *p = &out->place;
  if (read_number(line, "umap_x", &p->x, error) != 0 || read_number(line, "umap_y", &p->y, error) != 0 ||
      read_number(line, "umap_cluster", &p->cluster, error) != 0 ||
      read_number(line, "umap_log_feature_sparsity", &p->sparsity, error) != 0)
    return -1;
  if (!isnan(p->x) || !isnan(p->y)) out->groups |= STORE_PLACE;
  return 0;
}

int archive_read_feature(const struct json_node *line, struct arena *arena, struct store_feature *out, struct error *error) {
  *out = (struct store_feature){0};
  if (read_index(line, &out->index, error) != 0 || read_statistics(line, arena, out, error) != 0 ||
      read_tables(line, arena, out, error) != 0 || read_map_place(line, out, error) != 0 ||
      read_extra(line, archive_feature_column, arena, &out->extra, error) != 0)
    return -1;
  if (out->extra) out->groups |= STORE_EXTRA;
  return 0;
}

/* A text or a number, kept as text. */
static int read_data_index(const struct json_node *line, struct arena *arena, const char **out, struct error *error) {
  const struct json_node *node = json_get(line, "dataIndex");
  if (json_kind(node) == JSON_KIND_INT) return read_json(line, "dataIndex", arena, out, error);
  return read_text(line, "dataIndex", arena, out, error);
}

int archive_read_example(const struct json_node *line, struct arena *arena, struct store_example *out, struct error *error) {
  size_t n;
  int64_t qualifying;
  *out = (struct store_example){0};
  if (read_texts(line, "tokens", arena, &out->tokens, &out->n, error) != 0 ||
      read_floats(line, "values", arena, &out->values, &n, error) != 0 ||
      same_length("tokens", out->n, "values", n, error) != 0)
    return -1;
  if (n == 0 || n > STORE_TOKENS_MAX)
    return error_set(error, ERROR_FORMAT, "tokens has %zu entries, allowed are 1 to %d", n, STORE_TOKENS_MAX);
  if (read_f32(line, "binMin", &out->bin_min, error) != 0 || read_f32(line, "binMax", &out->bin_max, error) != 0 ||
      read_f32(line, "binContains", &out->bin_contains, error) != 0 ||
      read_int(line, "qualifyingTokenIndex", 0, (int64_t)n - 1, -1, &qualifying, error) != 0 ||
      read_int(line, "document", 0, INT64_MAX, -1, &out->document, error) != 0 ||
      read_int(line, "position", 0, INT64_MAX, -1, &out->position, error) != 0)
    return -1;
  out->qualifying = (int)qualifying;
  return read_data_index(line, arena, &out->data_index, error) != 0
             ? -1
             : read_extra(line, archive_example_column, arena, &out->extra, error);
}

/* Upstream's second score, where it has none the first, whose 0 means none. */
static int read_score(const struct json_node *line, double *out, struct error *error) {
  double first;
  if (read_number(line, "scoreV2", out, error) != 0 || read_number(line, "scoreV1", &first, error) != 0) return -1;
  if (isnan(*out) && first != 0) *out = first;
  return 0;
}

static int read_origin(const struct json_node *line, enum store_origin *out, struct error *error) {
  const struct json_node *node = json_get(line, "origin");
  *out = STORE_IMPORTED;
  if (is_absent(node)) return 0;
  const char *word = json_text_or(node, "");
  for (int i = STORE_AUTOMATIC; i <= STORE_MANUAL; i++)
    if (strcmp(word, archive_origin_word((enum store_origin)i)) == 0) return *out = (enum store_origin)i, 0;
  return error_set(error, ERROR_FORMAT, "origin is '%.32s', expected automatic, imported or manual", word);
}

int archive_read_explanation(const struct json_node *line, struct arena *arena, struct store_explanation *out,
                             struct error *error) {
  *out = (struct store_explanation){0};
  if (read_text(line, "description", arena, &out->description, error) != 0 ||
      read_text(line, "typeName", arena, &out->type, error) != 0 ||
      read_text(line, "explanationModelName", arena, &out->model_name, error) != 0 ||
      read_text(line, "authorId", arena, &out->author, error) != 0 ||
      read_text(line, "notes", arena, &out->notes, error) != 0 ||
      read_text(line, "createdAt", arena, &out->created_at, error) != 0 || read_score(line, &out->score, error) != 0 ||
      read_json(line, "scores", arena, &out->scores, error) != 0 || read_origin(line, &out->origin, error) != 0)
    return -1;
  return out->description ? 0 : error_set(error, ERROR_FORMAT, "description is missing");
}

int archive_read_model(const struct json_node *line, struct arena *arena, struct store_model *out, struct error *error) {
  *out = (struct store_model){0};
  if (read_text(line, "id", arena, &out->id, error) != 0 ||
      read_text(line, "displayName", arena, &out->display_name, error) != 0 ||
      read_int(line, "layers", 0, INT64_MAX, 0, &out->layers, error) != 0 ||
      read_int(line, "dimension", 0, INT64_MAX, 0, &out->dimension, error) != 0 ||
      read_int(line, "neuronsPerLayer", 0, INT64_MAX, 0, &out->neurons_per_layer, error) != 0 ||
      read_text(line, "owner", arena, &out->owner, error) != 0 ||
      read_text(line, "website", arena, &out->website, error) != 0 ||
      read_text(line, "defaultSourceId", arena, &out->default_source, error) != 0 ||
      read_text(line, "identity", arena, &out->identity, error) != 0)
    return -1;
  return read_text(line, "createdAt", arena, &out->created_at, error);
}

static int read_conventions(const struct json_node *line, struct arena *arena, struct store_statistics *out,
                            struct error *error) {
  const struct json_node *c = json_get(line, "conventions");
  out->folded = true;
  if (is_absent(c)) return 0;
  if (read_bool(c, "folded", &out->folded, error) != 0 || read_bool(c, "bosCounted", &out->bos_counted, error) != 0 ||
      read_bool(c, "lines", &out->lines, error) != 0 ||
      read_text(c, "logits", arena, &out->logit_convention, error) != 0 ||
      read_text(c, "corpusHash", arena, &out->corpus_hash, error) != 0)
    return -1;
  return read_text(c, "madeAt", arena, &out->made_at, error);
}

static int read_source_statistics(const struct json_node *line, struct arena *arena, struct store_statistics *out,
                                  struct error *error) {
  int64_t product = 0;
  if (read_int(line, "num_prompts", 0, INT64_MAX, 0, &out->n_documents, error) != 0 ||
      read_int(line, "num_tokens_in_prompt", 0, INT64_MAX, 0, &out->context, error) != 0)
    return -1;
  if (__builtin_mul_overflow(out->n_documents, out->context, &product)) product = 0;
  if (read_int(line, "n_tokens", 0, INT64_MAX, product, &out->n_tokens, error) != 0 ||
      read_text(line, "dataset", arena, &out->corpus, error) != 0)
    return -1;
  return read_conventions(line, arena, out, error);
}

int archive_read_source(const struct json_node *line, struct arena *arena, struct store_source *out, struct error *error) {
  *out = (struct store_source){0};
  if (read_text(line, "modelId", arena, &out->model, error) != 0 || read_text(line, "id", arena, &out->name, error) != 0 ||
      read_text(line, "setName", arena, &out->set, error) != 0 ||
      read_int(line, "hookLayer", -1, INT32_MAX, -1, &out->layer, error) != 0 ||
      read_text(line, "hookName", arena, &out->point, error) != 0 ||
      read_text(line, "kind", arena, &out->kind, error) != 0 ||
      read_int(line, "nFeatures", 0, UINT32_MAX, 0, &out->n_features, error) != 0 ||
      read_text(line, "identity", arena, &out->identity, error) != 0 ||
      read_json(line, "saelensConfig", arena, &out->config, error) != 0 ||
      read_text(line, "notes", arena, &out->description, error) != 0 ||
      read_text(line, "url", arena, &out->url, error) != 0 ||
      read_text(line, "createdAt", arena, &out->created_at, error) != 0)
    return -1;
  return read_source_statistics(line, arena, &out->statistics, error);
}
