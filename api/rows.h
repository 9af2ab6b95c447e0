/* rows.h: Neuronpedia's rows that stand inside several replies: model, source, source set, feature, explanation.
 * Members are named as its database columns are, the old snake_case ones too. */
#ifndef STEERD_API_ROWS_H
#define STEERD_API_ROWS_H

#include "core/archive.h"
#include "core/base/json_writer.h"

struct api_call;

/* "modelId" and "source": which one a reply is about. */
void rows_place(struct json_writer *w, const struct lab_source_info *source);

/* The members of a row, without the braces. */
void rows_model_members(struct json_writer *w, const struct lab_model_info *model);
void rows_set_members(struct json_writer *w, const struct lab_source_info *source); /* of the set it is in */

/* What a source is, in our own words (GET /models, the laboratory): set, kind, layer, points, sizes. In models.c. */
void source_members(struct json_writer *w, const struct lab_source_info *source);

/* The reply that is one source set of a model, loaded or stored. In models.c. */
int source_set_write(struct api_call *call, const struct lab_model_info *model, const char *name, struct error *error) MUST_CHECK;

/* Whole rows. */
void rows_source(struct json_writer *w, const struct lab_source_info *source);

/* How the numbers of a source were made: "conventions". */
void rows_conventions(struct json_writer *w, const struct lab_source_info *source,
                      const struct store_statistics *statistics);

/* What is known of a feature, for rows_feature. */
struct rows_feature {
  const struct lab_model_info *model;
  const struct lab_source_info *source;
  const struct store_feature *stored;
  const struct store_statistics *statistics;
  float decoder_norm; /* NaN: not known */
  const struct store_vector *vector; /* that stands here in place of a feature; NULL */
  const struct store_list_place *lists; /* that it is in: [n_lists] */
  size_t n_lists;
};
void rows_feature(struct json_writer *w, const struct rows_feature *feature);

/* What stands beside a feature that a search found, as a member: its place, sizes and best explanation. */
void rows_label(struct json_writer *w, const char *key, const struct lab_source_info *source, int64_t index,
                const struct store_feature_label *label);

/* umap_x, umap_y, umap_cluster, umap_log_feature_sparsity: the last as imported, else log10 of the rate (NaN: not known). */
void rows_map_place(struct json_writer *w, const struct store_place *place, double rate);

/* What of it stands in a list of features: sizes, logits, activations, explanations. Of model and source only the ids are read. */
void rows_summary_members(struct json_writer *w, const struct rows_feature *feature);

/* One stored example of a feature. */
void rows_activation(struct json_writer *w, const struct rows_feature *feature, const struct store_example *example);

/* The six columns of the export, without the braces. */
void rows_explanation_members(struct json_writer *w, const struct store_explanation *row);
/* All that is known of an explanation. model and source replace those of the row, which only some verbs fill. */
void rows_explanation(struct json_writer *w, const struct store_explanation *row, const char *model,
                      const char *source);

#endif
