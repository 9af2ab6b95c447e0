/* rows.c: how models, sources, features, examples and explanations are written. Knows no endpoint.
 *
 * Columns for which nothing is known are null or [] as upstream shows them, unless an imported row brought them along
 * (`extra`). Explanations and activations name model, source and index themselves: the Python client reads them
 * there. */
#include "api/rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/reply.h"
#include "core/base/json.h"

/* ---- models, sources, sets ---------------------------------------------------------------------------- */

void rows_place(struct json_writer *w, const struct lab_source_info *source) {
  jw_member_text(w, "modelId", source->model_id);
  jw_member_text(w, "source", source->id);
}

/* A number that 0 says is not known. */
static void member_count(struct json_writer *w, const char *key, int64_t value) {
  if (value > 0)
    jw_member_int(w, key, value);
  else
    jw_member_null(w, key);
}

void rows_model_members(struct json_writer *w, const struct lab_model_info *model) {
  jw_member_text(w, "id", model->id);
  jw_member_text(w, "displayName", model->display_name);
  jw_member_text(w, "displayNameShort", model->display_name);
  jw_member_int(w, "layers", model->n_layer);
  member_count(w, "neuronsPerLayer", model->d_mlp);
  member_count(w, "dimension", model->d_model);
  jw_member_text(w, "website", model->website);
  jw_member_bool(w, "inferenceEnabled", !model->stored);
  jw_member_text(w, "visibility", "PUBLIC");
}

void rows_set_members(struct json_writer *w, const struct lab_source_info *source) {
  jw_member_text(w, "modelId", source->model_id);
  jw_member_text(w, "name", source->set);
  jw_member_text(w, "visibility", "PUBLIC");
}

void rows_source(struct json_writer *w, const struct lab_source_info *source) {
  jw_open(w, '{');
  jw_member_text(w, "id", source->id);
  jw_member_text(w, "modelId", source->model_id);
  jw_member_text(w, "setName", source->set);
  jw_member_text(w, "hookName", source->point);
  jw_member_bool(w, "inferenceEnabled", !source->stored);
  jw_member_text(w, "visibility", "PUBLIC");
  jw_close(w, '}');
}

void rows_conventions(struct json_writer *w, const struct lab_source_info *source,
                      const struct store_statistics *statistics) {
  bool made = statistics->n_tokens > 0;
  jw_key(w, "conventions");
  jw_open(w, '{');
  if (source->stored && !made) { /* nobody has said */
    jw_member_null(w, "folded");
    jw_member_null(w, "bosCounted");
  } else {
    jw_member_bool(w, "folded", made ? statistics->folded : source->folded);
    jw_member_bool(w, "bosCounted", made ? statistics->bos_counted : source->bos_counts);
  }
  jw_key(w, "lines");
  if (made)
    jw_bool(w, statistics->lines);
  else
    jw_null(w);
  member_count(w, "context", statistics->context);
  member_count(w, "documents", statistics->n_documents);
  jw_member_text(w, "logits", source->promotes ? statistics->logit_convention : "none");
  jw_member_text(w, "corpus", statistics->corpus);
  jw_member_text(w, "corpusHash", statistics->corpus_hash);
  jw_member_text(w, "madeAt", statistics->made_at);
  jw_close(w, '}');
}

/* ---- columns nothing is known of ---------------------------------------------------------------------- */

struct blank {
  const char *name;
  bool list; /* [] else null */
};

/* Each blank with what an imported row has there, if it has something. */
static void write_blanks(struct json_writer *w, const struct blank *blanks, size_t n, const char *extra) {
  struct json_node *imported = extra ? json_parse(extra, strlen(extra), 64, NULL) : NULL;
  for (size_t i = 0; i < n; i++) {
    const struct json_node *node = json_get(imported, blanks[i].name);
    jw_key(w, blanks[i].name);
    if (node || !blanks[i].list) {
      jw_node(w, node);
      continue;
    }
    jw_open(w, '[');
    jw_close(w, ']');
  }
  json_free(imported);
}

/* ---- activations -------------------------------------------------------------------------------------- */

static void member_tokens(struct json_writer *w, const char *key, const struct store_text *texts, size_t n) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) jw_string(w, texts[i].text, texts[i].length);
  jw_close(w, ']');
}

static void member_values(struct json_writer *w, const char *key, const float *values, size_t n) {
  jw_key(w, key);
  jw_f32_array(w, values, n);
}

/* A place in a list or a text; -1 says it is not known. */
static void member_place(struct json_writer *w, const char *key, int64_t value) {
  if (value >= 0)
    jw_member_int(w, key, value);
  else
    jw_member_null(w, key);
}

/* modelId, layer, source, index. */
static void write_place(struct json_writer *w, const char *model, const char *source, int64_t index) {
  jw_member_text(w, "modelId", model);
  jw_member_text(w, "layer", source);
  jw_member_text(w, "source", source);
  reply_digits(w, "index", index);
}

static void write_activation_id(struct json_writer *w, const struct rows_feature *feature, int slot) {
  char id[320];
  snprintf(id, sizeof id, "%s/%s/%u/%d", feature->model->id, feature->source->id, (unsigned)feature->stored->index, slot);
  jw_member_text(w, "id", id);
}

/* The store has -1 where no interval was asked for (the top group, which binMin tells); a share is null there, because
 * Neuronpedia's own client refuses a feature with a share that is none. */
static void member_share(struct json_writer *w, const char *key, float value) {
  if (value >= 0)
    jw_member_f32(w, key, value);
  else
    jw_member_null(w, key);
}

static void write_values(struct json_writer *w, const struct store_example *example) {
  member_tokens(w, "tokens", example->tokens, example->n);
  member_values(w, "values", example->values, example->n);
  jw_member_f32(w, "maxValue", example->max_value);
  jw_member_int(w, "maxValueTokenIndex", example->max_index);
  jw_member_f32(w, "minValue", example->min_value);
  jw_member_f32(w, "binMin", example->bin_min);
  jw_member_f32(w, "binMax", example->bin_max);
  member_share(w, "binContains", example->bin_contains);
  member_place(w, "qualifyingTokenIndex", example->qualifying);
}

static void write_origin(struct json_writer *w, const struct store_example *example,
                         const struct store_statistics *statistics) {
  if (example->data_index)
    jw_member_text(w, "dataIndex", example->data_index);
  else if (example->document >= 0)
    reply_digits(w, "dataIndex", example->document);
  else
    jw_member_null(w, "dataIndex");
  jw_member_text(w, "dataSource", statistics->corpus);
  member_place(w, "document", example->document);
  member_place(w, "position", example->position);
  jw_member_null(w, "creatorId");
  jw_member_text(w, "createdAt", statistics->made_at);
}

void rows_activation(struct json_writer *w, const struct rows_feature *feature, const struct store_example *example) {
  static const struct blank blanks[] = {
      {"dfaValues", true},  {"dfaTargetIndex", false}, {"dfaMaxValue", false},      {"zQIndices", true},
      {"zKIndices", true},  {"zValues", true},         {"lossValues", true},        {"logitContributions", false},
  };
  jw_open(w, '{');
  write_activation_id(w, feature, example->slot);
  write_place(w, feature->model->id, feature->source->id, feature->stored->index);
  write_values(w, example);
  write_blanks(w, blanks, sizeof blanks / sizeof blanks[0], example->extra);
  write_origin(w, example, feature->statistics);
  jw_close(w, '}');
}

/* ---- explanations ------------------------------------------------------------------------------------- */

static void write_columns(struct json_writer *w, const struct store_explanation *row, const char *model,
                          const char *source) {
  jw_member_text(w, "modelId", model);
  jw_member_text(w, "layer", source);
  reply_digits(w, "index", row->index);
  jw_member_text(w, "description", row->description);
  jw_member_text(w, "explanationModelName", row->model_name);
  jw_member_text(w, "typeName", row->type);
}

void rows_explanation_members(struct json_writer *w, const struct store_explanation *row) {
  write_columns(w, row, row->model, row->source_name);
}

static void write_scores(struct json_writer *w, const struct store_explanation *row) {
  jw_member_f64(w, "score", row->score);
  if (row->scores) {
    reply_json(w, "scores", row->scores);
    return;
  }
  jw_key(w, "scores");
  jw_open(w, '[');
  jw_close(w, ']');
}

void rows_explanation(struct json_writer *w, const struct store_explanation *row, const char *model,
                      const char *source) {
  static const char *const origins[] = {
      [STORE_AUTOMATIC] = "automatic", [STORE_IMPORTED] = "imported", [STORE_MANUAL] = "manual"};
  jw_open(w, '{');
  reply_digits(w, "id", row->id);
  write_columns(w, row, model, source);
  jw_member_text(w, "source", source);
  write_scores(w, row);
  jw_member_text(w, "origin", origins[row->origin]);
  jw_member_text(w, "authorId", row->author);
  jw_member_text(w, "notes", row->notes);
  jw_member_null(w, "triggeredByUser");
  jw_member_text(w, "createdAt", row->created_at);
  jw_close(w, '}');
}

/* ---- features ----------------------------------------------------------------------------------------- */

/* The largest activation known: over the whole text, else over the examples. */
static float largest(const struct store_feature *stored) {
  if (stored->groups & STORE_STATISTICS) return stored->max;
  return stored->n_examples ? stored->examples[0].max_value : NAN;
}

static void write_head(struct json_writer *w, const struct rows_feature *feature) {
  jw_member_text(w, "modelId", feature->model->id);
  jw_member_text(w, "layer", feature->source->id);
  reply_digits(w, "index", feature->stored->index);
  jw_member_text(w, "sourceSetName", feature->source->set);
  jw_member_null(w, "creatorId");
  const struct store_vector *vector = feature->vector;
  jw_member_text(w, "createdAt", vector ? vector->created_at : feature->statistics->made_at);
  jw_member_f32(w, "maxActApprox", largest(feature->stored));
  jw_member_bool(w, "hasVector", vector != NULL);
  member_values(w, "vector", vector ? vector->values : NULL, vector ? vector->n : 0);
  jw_member_text(w, "vectorLabel", vector ? vector->label : NULL);
  jw_member_f64(w, "vectorDefaultSteerStrength", vector ? vector->strength : 10);
  jw_member_text(w, "hookName", feature->source->point);
}

/* steerd's own members. */
static void write_counts(struct json_writer *w, const struct rows_feature *feature) {
  const struct store_feature *stored = feature->stored;
  bool counted = stored->groups & STORE_STATISTICS;
  jw_member_f64(w, "frac_nonzero", counted ? stored->rate : NAN);
  member_count(w, "n_tokens", feature->statistics->n_tokens);
  member_place(w, "n_fired", counted ? stored->n_fired : -1);
  jw_member_f64(w, "mean", counted ? stored->mean : NAN);
  jw_member_f32(w, "decoder_norm", feature->decoder_norm);
  rows_conventions(w, feature->source, feature->statistics);
}

static void write_neighbours(struct json_writer *w, const struct store_feature *stored) {
  jw_key(w, "topkCosSimIndices");
  jw_open(w, '[');
  for (size_t i = 0; i < stored->n_neighbours; i++) jw_int(w, stored->neighbours[i]);
  jw_close(w, ']');
  member_values(w, "topkCosSimValues", stored->cosines, stored->n_neighbours);
}

static void write_charts(struct json_writer *w, const struct store_feature *stored) {
  member_tokens(w, "neg_str", stored->bottom.texts, stored->bottom.n);
  member_values(w, "neg_values", stored->bottom.values, stored->bottom.n);
  member_tokens(w, "pos_str", stored->top.texts, stored->top.n);
  member_values(w, "pos_values", stored->top.values, stored->top.n);
  member_values(w, "freq_hist_data_bar_heights", stored->activity.heights, stored->activity.n);
  member_values(w, "freq_hist_data_bar_values", stored->activity.values, stored->activity.n);
  member_values(w, "logits_hist_data_bar_heights", stored->logits.heights, stored->logits.n);
  member_values(w, "logits_hist_data_bar_values", stored->logits.values, stored->logits.n);
}

static void write_imported(struct json_writer *w, const struct store_feature *stored) {
  static const struct blank blanks[] = {
      {"neuron_alignment_indices", true},    {"neuron_alignment_values", true},     {"neuron_alignment_l1", true},
      {"correlated_neurons_indices", true},  {"correlated_neurons_pearson", true},  {"correlated_neurons_l1", true},
      {"correlated_features_indices", true}, {"correlated_features_pearson", true}, {"correlated_features_l1", true},
      {"decoder_weights_dist", true},
  };
  write_blanks(w, blanks, sizeof blanks / sizeof blanks[0], stored->groups & STORE_EXTRA ? stored->extra : NULL);
}

void rows_map_place(struct json_writer *w, const struct store_place *place, double rate) {
  double least = -10; /* of a feature that never fires, as SAELens writes it */
  jw_member_f64(w, "umap_cluster", place->cluster);
  jw_member_f64(w, "umap_log_feature_sparsity", !isnan(place->sparsity) ? place->sparsity : rate > 0 ? log10(rate) : rate == 0 ? least : NAN);
  jw_member_f64(w, "umap_x", place->x);
  jw_member_f64(w, "umap_y", place->y);
}

/* From the map; what was imported before stores had maps is with the extra columns. */
static void write_place_in_map(struct json_writer *w, const struct store_feature *stored) {
  static const struct blank blanks[] = {{"umap_cluster", false}, {"umap_log_feature_sparsity", false}, {"umap_x", false}, {"umap_y", false}};
  if (stored->groups & STORE_PLACE)
    rows_map_place(w, &stored->place, stored->groups & STORE_STATISTICS ? stored->rate : NAN);
  else
    write_blanks(w, blanks, sizeof blanks / sizeof blanks[0], stored->groups & STORE_EXTRA ? stored->extra : NULL);
}

static void write_lists(struct json_writer *w, const struct rows_feature *feature) {
  const struct store_feature *stored = feature->stored;
  jw_key(w, "activations");
  jw_open(w, '[');
  for (size_t i = 0; i < stored->n_examples; i++) rows_activation(w, feature, &stored->examples[i]);
  jw_close(w, ']');
  jw_key(w, "explanations");
  jw_open(w, '[');
  for (size_t i = 0; i < stored->n_explanations; i++)
    rows_explanation(w, &stored->explanations[i], feature->model->id, feature->source->id);
  jw_close(w, ']');
}

void rows_summary_members(struct json_writer *w, const struct rows_feature *feature) {
  const struct store_feature *stored = feature->stored;
  jw_member_f32(w, "maxActApprox", largest(stored));
  jw_member_f64(w, "frac_nonzero", stored->groups & STORE_STATISTICS ? stored->rate : NAN);
  member_tokens(w, "neg_str", stored->bottom.texts, stored->bottom.n);
  member_values(w, "neg_values", stored->bottom.values, stored->bottom.n);
  member_tokens(w, "pos_str", stored->top.texts, stored->top.n);
  member_values(w, "pos_values", stored->top.values, stored->top.n);
  write_lists(w, feature);
}

void rows_label(struct json_writer *w, const char *key, const struct lab_source_info *source, int64_t index,
                const struct store_feature_label *label) {
  jw_key(w, key);
  jw_open(w, '{');
  jw_member_text(w, "modelId", source->model_id);
  jw_member_text(w, "layer", source->id);
  reply_digits(w, "index", index);
  jw_member_f32(w, "maxActApprox", label->max);
  jw_member_f64(w, "frac_nonzero", label->rate);
  jw_key(w, "explanations");
  jw_open(w, '[');
  if (label->best) {
    jw_open(w, '{');
    rows_explanation_members(w, label->best);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

/* As upstream's rows that join features and lists. */
static void write_places(struct json_writer *w, const struct rows_feature *feature) {
  jw_key(w, "lists");
  jw_open(w, '[');
  for (size_t i = 0; i < feature->n_lists; i++) {
    const struct store_list_place *place = &feature->lists[i];
    jw_open(w, '{');
    reply_digits(w, "listId", place->list.id);
    write_place(w, feature->model->id, feature->source->id, feature->stored->index);
    jw_member_text(w, "description", place->description);
    jw_member_text(w, "addedAt", place->created_at);
    jw_key(w, "list");
    jw_open(w, '{');
    reply_digits(w, "id", place->list.id);
    jw_member_text(w, "name", place->list.name);
    jw_member_text(w, "description", place->list.description);
    jw_close(w, '}');
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_embedded(struct json_writer *w, const struct rows_feature *feature) {
  jw_key(w, "model");
  jw_open(w, '{');
  rows_model_members(w, feature->model);
  jw_close(w, '}');
  jw_key(w, "source");
  rows_source(w, feature->source);
  jw_key(w, "sourceSet");
  jw_open(w, '{');
  rows_set_members(w, feature->source);
  jw_close(w, '}');
  jw_member_null(w, "creator");
  write_places(w, feature);
  member_values(w, "comments", NULL, 0);
}

void rows_feature(struct json_writer *w, const struct rows_feature *feature) {
  jw_open(w, '{');
  write_head(w, feature);
  write_counts(w, feature);
  write_neighbours(w, feature->stored);
  write_charts(w, feature->stored);
  write_imported(w, feature->stored);
  write_place_in_map(w, feature->stored);
  write_lists(w, feature);
  write_embedded(w, feature);
  jw_close(w, '}');
}
