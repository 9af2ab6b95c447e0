/* write.c: rows of the store as lines of Neuronpedia's batches. What is not known is left out; columns that upstream
 * computes from others (the largest value of an example) are written for its importer and not read back. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/archive/rows.h"

static void member_known_text(struct json_writer *w, const char *key, const char *text) {
  if (text) jw_member_text(w, key, text);
}

static void member_count(struct json_writer *w, const char *key, int64_t value) {
  if (value >= 0) jw_member_int(w, key, value);
}

static void member_real(struct json_writer *w, const char *key, double value) {
  if (!isnan(value)) jw_member_f64(w, key, value);
}

static void member_f32(struct json_writer *w, const char *key, float value) {
  if (!isnan(value)) jw_member_f32(w, key, value);
}

/* -0 is written as 0: a reader of "-0" would take it for the integer, and the same rows would be other bytes. */
static void member_floats(struct json_writer *w, const char *key, const float *values, size_t n) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) jw_f32(w, values[i] + 0.0f);
  jw_close(w, ']');
}

static void member_texts(struct json_writer *w, const char *key, const struct store_text *texts, size_t n) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) jw_string(w, texts[i].text, texts[i].length);
  jw_close(w, ']');
}

/* JSON text from the store as a value; null when it is damaged. */
static void member_json(struct json_writer *w, const char *key, const char *text) {
  if (!text) return;
  struct json_node *node = json_parse(text, strlen(text), ARCHIVE_DEPTH, NULL);
  jw_key(w, key);
  jw_node(w, node);
  json_free(node);
}

/* Members of an imported row that have no column; a name that has one would stand there twice. */
static void write_extra(struct json_writer *w, const char *extra, bool (*is_column)(const char *)) {
  struct json_node *object = extra ? json_parse(extra, strlen(extra), ARCHIVE_DEPTH, NULL) : NULL;
  void *iterator = NULL;
  const char *key;
  const struct json_node *node;
  while (object && json_next(object, &iterator, &key, &node)) {
    if (is_column(key)) continue;
    jw_key(w, key);
    jw_node(w, node);
  }
  json_free(object);
}

static void write_place(struct json_writer *w, const char *model, const char *source, uint32_t index) {
  char digits[16];
  snprintf(digits, sizeof digits, "%u", (unsigned)index);
  jw_member_text(w, "modelId", model);
  jw_member_text(w, "layer", source);
  jw_member_text(w, "index", digits);
}

/* ---- features ---- */

static void write_statistics(struct json_writer *w, const struct store_feature *feature) {
  member_f32(w, "maxActApprox", feature->max);
  member_real(w, "frac_nonzero", feature->rate);
  member_count(w, "n_fired", feature->n_fired);
  member_real(w, "mean", feature->mean);
  member_floats(w, "freq_hist_data_bar_heights", feature->activity.heights, feature->activity.n);
  member_floats(w, "freq_hist_data_bar_values", feature->activity.values, feature->activity.n);
}

static void write_logits(struct json_writer *w, const struct store_feature *feature) {
  member_texts(w, "neg_str", feature->bottom.texts, feature->bottom.n);
  member_floats(w, "neg_values", feature->bottom.values, feature->bottom.n);
  member_texts(w, "pos_str", feature->top.texts, feature->top.n);
  member_floats(w, "pos_values", feature->top.values, feature->top.n);
  member_floats(w, "logits_hist_data_bar_heights", feature->logits.heights, feature->logits.n);
  member_floats(w, "logits_hist_data_bar_values", feature->logits.values, feature->logits.n);
}

static void write_neighbours(struct json_writer *w, const struct store_feature *feature) {
  jw_key(w, "topkCosSimIndices");
  jw_open(w, '[');
  for (size_t i = 0; i < feature->n_neighbours; i++) jw_int(w, feature->neighbours[i]);
  jw_close(w, ']');
  member_floats(w, "topkCosSimValues", feature->cosines, feature->n_neighbours);
}

static void write_map_place(struct json_writer *w, const struct store_place *place) {
  member_real(w, "umap_x", place->x);
  member_real(w, "umap_y", place->y);
  member_real(w, "umap_cluster", place->cluster);
  member_real(w, "umap_log_feature_sparsity", place->sparsity);
}

void archive_write_feature(struct json_writer *w, const struct store_source *source, const struct store_feature *feature) {
  jw_open(w, '{');
  write_place(w, source->model, source->name, feature->index);
  member_known_text(w, "sourceSetName", source->set);
  if (feature->groups & STORE_STATISTICS) write_statistics(w, feature);
  if (feature->groups & STORE_LOGITS) write_logits(w, feature);
  if (feature->groups & STORE_NEIGHBOURS) write_neighbours(w, feature);
  if (feature->groups & STORE_PLACE) write_map_place(w, &feature->place);
  if (feature->groups & STORE_EXTRA) write_extra(w, feature->extra, archive_feature_column);
  jw_close(w, '}');
}

/* ---- examples ---- */

static void write_id(struct json_writer *w, const struct store_source *source, uint32_t index, int slot) {
  char id[400];
  snprintf(id, sizeof id, "%s/%s/%u/%d", source->model, source->name, (unsigned)index, slot);
  jw_member_text(w, "id", id);
}

void archive_write_example(struct json_writer *w, const struct store_source *source, uint32_t index,
                           const struct store_example *example) {
  jw_open(w, '{');
  write_id(w, source, index, example->slot);
  write_place(w, source->model, source->name, index);
  member_texts(w, "tokens", example->tokens, example->n);
  member_floats(w, "values", example->values, example->n);
  member_f32(w, "maxValue", example->max_value);
  jw_member_int(w, "maxValueTokenIndex", example->max_index);
  member_f32(w, "minValue", example->min_value);
  member_f32(w, "binMin", example->bin_min);
  member_f32(w, "binMax", example->bin_max);
  member_f32(w, "binContains", example->bin_contains);
  member_count(w, "qualifyingTokenIndex", example->qualifying);
  member_known_text(w, "dataIndex", example->data_index);
  member_count(w, "document", example->document);
  member_count(w, "position", example->position);
  write_extra(w, example->extra, archive_example_column);
  jw_close(w, '}');
}

/* ---- explanations ---- */

const char *archive_origin_word(enum store_origin origin) {
  static const char *const words[] = {
      [STORE_AUTOMATIC] = "automatic", [STORE_IMPORTED] = "imported", [STORE_MANUAL] = "manual"};
  return words[origin];
}

void archive_write_explanation(struct json_writer *w, const struct store_explanation *row) {
  char id[32];
  snprintf(id, sizeof id, "%lld", (long long)row->id);
  jw_open(w, '{');
  jw_member_text(w, "id", id);
  write_place(w, row->model, row->source_name, row->index);
  jw_member_text(w, "description", row->description);
  member_known_text(w, "typeName", row->type);
  member_known_text(w, "explanationModelName", row->model_name);
  member_known_text(w, "authorId", row->author);
  member_known_text(w, "notes", row->notes);
  member_real(w, "scoreV2", row->score);
  member_json(w, "scores", row->scores);
  jw_member_text(w, "origin", archive_origin_word(row->origin));
  member_known_text(w, "createdAt", row->created_at);
  jw_close(w, '}');
}

/* ---- models and sources ---- */

void archive_write_model(struct json_writer *w, const struct store_model *model) {
  jw_open(w, '{');
  jw_member_text(w, "id", model->id);
  member_known_text(w, "displayName", model->display_name);
  jw_member_int(w, "layers", model->layers);
  jw_member_int(w, "dimension", model->dimension);
  jw_member_int(w, "neuronsPerLayer", model->neurons_per_layer);
  member_known_text(w, "owner", model->owner);
  member_known_text(w, "website", model->website);
  member_known_text(w, "defaultSourceId", model->default_source);
  member_known_text(w, "identity", model->identity);
  member_known_text(w, "createdAt", model->created_at);
  jw_close(w, '}');
}

static void write_conventions(struct json_writer *w, const struct store_statistics *statistics) {
  jw_key(w, "conventions");
  jw_open(w, '{');
  jw_member_bool(w, "folded", statistics->folded);
  jw_member_bool(w, "bosCounted", statistics->bos_counted);
  jw_member_bool(w, "lines", statistics->lines);
  member_known_text(w, "logits", statistics->logit_convention);
  member_known_text(w, "corpusHash", statistics->corpus_hash);
  member_known_text(w, "madeAt", statistics->made_at);
  jw_close(w, '}');
}

void archive_write_source(struct json_writer *w, const struct store_source *source) {
  const struct store_statistics *statistics = &source->statistics;
  jw_open(w, '{');
  jw_member_text(w, "modelId", source->model);
  jw_member_text(w, "id", source->name);
  member_known_text(w, "setName", source->set);
  jw_member_int(w, "hookLayer", source->layer);
  member_known_text(w, "hookName", source->point);
  member_known_text(w, "kind", source->kind);
  jw_member_int(w, "nFeatures", source->n_features);
  member_known_text(w, "identity", source->identity);
  member_json(w, "saelensConfig", source->config);
  member_known_text(w, "notes", source->description);
  member_known_text(w, "url", source->url);
  member_known_text(w, "createdAt", source->created_at);
  jw_member_int(w, "num_prompts", statistics->n_documents);
  jw_member_int(w, "num_tokens_in_prompt", statistics->context);
  jw_member_int(w, "n_tokens", statistics->n_tokens);
  member_known_text(w, "dataset", statistics->corpus);
  write_conventions(w, statistics);
  jw_close(w, '}');
}

void archive_write_set(struct json_writer *w, const struct store_source *source) {
  jw_open(w, '{');
  jw_member_text(w, "modelId", source->model);
  jw_member_text(w, "name", source->set);
  jw_close(w, '}');
}
