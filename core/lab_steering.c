/* lab_steering.c: steering lowered: a feature is its decoder row at the dictionary's output point, an edit is what
 * lab_edits*.c makes of it. Knows no request and no sampling: whoever generates text calls it. */
#include "core/lab_steering.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double vector_norm(const float *v, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)v[i] * v[i];
  return sqrt(sum);
}

/* PROJECT and CAP need a direction; ADD takes the row as it is (unit length where folding is on). */
static int prepare_vector(const struct lab_steering *steering, const char *field, float *v, int64_t n,
                          struct error *error) {
  if (steering->method == LAB_STEER_ADD) return 0;
  double norm = vector_norm(v, n);
  if (norm == 0)
    return error_set_field(error, ERROR_ARGUMENT, field,
                           "%s: this feature's decoder row is zero, so it has no direction to project on", field);
  for (int64_t i = 0; i < n; i++) v[i] = (float)(v[i] / norm);
  return 0;
}

static enum edit_kind kind_of(enum lab_steer_method method) {
  if (method == LAB_STEER_ORTHOGONAL) return EDIT_ROW_PROJECT;
  return method == LAB_STEER_CAP ? EDIT_ROW_CAP : EDIT_ROW_ADD;
}

static int check_index(const struct lab_steering *steering, const struct lab_source_info *source, size_t i,
                       struct error *error) {
  int64_t index = steering->features[i].index;
  char field[64];
  if (index >= 0 && index < source->n_feat) return 0;
  snprintf(field, sizeof field, "%sfeatures[%zu].index", steering->prefix, i);
  return error_set_field(error, ERROR_NOT_FOUND, field, "%s is %lld, source '%s' has features 0 to %lld", field,
                         (long long)index, source->id, (long long)source->n_feat - 1);
}

static int add_feature(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *steering, size_t i,
                       const uint8_t *mask, int32_t n_mask, struct edit_list *list, struct error *error) {
  const struct lab_steer_feature *feature = &steering->features[i];
  char field[64];
  snprintf(field, sizeof field, "%sfeatures[%zu].%s", steering->prefix, i, steering->source_field);
  const struct lab_source_info *info = lab_find_source(lab, model, feature->source_id, field, error);
  if (!info || check_index(steering, info, i, error) != 0) return -1;
  const struct dict *dict = lab_source_of(lab, info)->dict;
  const struct dict_info *shape = dict_info(dict);
  float *v = malloc((size_t)shape->d_out * sizeof *v);
  if (!v) return error_memory(error, (size_t)shape->d_out * sizeof *v);
  dict_decoder_row(dict, feature->index, v);
  snprintf(field, sizeof field, "%sfeatures[%zu]", steering->prefix, i);
  int failed = prepare_vector(steering, field, v, shape->d_out, error);
  struct edit edit = {.point = shape->out, .kind = kind_of(steering->method), .column_begin = (int32_t)shape->out_column,
                      .column_end = (int32_t)(shape->out_column + shape->d_out),
                      .value = (float)(feature->strength * steering->strength_multiplier), .v = v, .prompt = true,
                      .generated = true, .mask = mask, .n_mask = n_mask};
  if (!failed) failed = edit_list_add(list, &edit, error);
  free(v);
  return failed;
}

/* 1 for every prompt token that may be edited. */
static uint8_t *make_mask(const struct model *model, const int32_t *ids, size_t n, struct error *error) {
  uint8_t *mask = malloc(n + 1);
  if (!mask) return error_memory(error, n), NULL;
  for (size_t i = 0; i < n; i++) mask[i] = !tokenizer_is_special(model->tokenizer, ids[i]);
  return mask;
}

/* The laboratory's edits, where they need no run of their own. name: of their field. */
static int add_edits(struct lab *lab, const struct lab_model_info *model, const struct lab_edit *edits, size_t n_edits,
                     const char *name, const struct lab_ids *text, struct arena *arena, struct edit_list *list,
                     struct error *error) {
  struct edits_plan plan;
  if (n_edits == 0) return 0;
  if (edits_resolve(lab, model, edits, n_edits, name, LAB_BOS_DEFAULT, arena, &plan, error) != 0 ||
      edits_needs(&plan, text, 1, error) != 0)
    return -1;
  if (plan.n_needs)
    return error_set_field(error, ERROR_UNSUPPORTED, name, "edits that need a run of their own (mean, patch with "
                           "'from') are served by /v1/lab only; give 'rows' or a vector");
  return edits_append(&plan, 0, text, list, error);
}

static int add_all(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *steering,
                   const struct lab_ids *text, struct arena *arena, struct edit_list *list, struct error *error) {
  uint8_t *mask = NULL;
  char vectors[32], edits[32];
  int failed = 0;
  snprintf(vectors, sizeof vectors, "%svectors", steering->prefix);
  snprintf(edits, sizeof edits, "%sedits", steering->prefix);
  if (!steering->special_tokens)
    failed = (mask = make_mask(lab_model_of(lab, model)->model, text->ids, text->n, error)) ? 0 : -1;
  for (size_t i = 0; !failed && i < steering->n_features; i++)
    failed = add_feature(lab, model, steering, i, mask, (int32_t)text->n, list, error);
  free(mask);
  if (!failed) failed = add_edits(lab, model, steering->vectors, steering->n_vectors, vectors, text, arena, list, error);
  if (!failed) failed = add_edits(lab, model, steering->edits, steering->n_edits, edits, text, arena, list, error);
  return failed;
}

bool steering_none(const struct lab_steering *steering) {
  return steering->n_features + steering->n_vectors + steering->n_edits == 0;
}

struct edit_list *steering_lower(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *steering,
                                 const int32_t *ids, size_t n, struct error *error) {
  struct edit_list *list = edit_list_new(error);
  struct arena arena;
  if (!list) return NULL;
  arena_init(&arena, 0);
  struct lab_ids text = {arena_array(&arena, n, sizeof *ids, error), n};
  int failed = text.ids ? 0 : -1;
  if (!failed) {
    memcpy(text.ids, ids, n * sizeof *ids);
    failed = add_all(lab, model, steering, &text, &arena, list, error);
  }
  arena_clear(&arena);
  if (!failed) return list;
  edit_list_free(list, lab_model_of(lab, model)->model->backend);
  return NULL;
}
