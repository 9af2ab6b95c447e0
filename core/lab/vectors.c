/* vectors.c: directions of several layers under one label: from files into the store, and back. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/control_vector.h"
#include "core/model/points.h"
#include "core/vectors.h"

int lab_vector_place(int64_t layer, bool pre, struct arena *arena, struct store_vector *vector, struct error *error) {
  const char *word = pre ? "pre" : "post";
  vector->source = arena_printf(arena, error, "%" PRId64 "-neuronpedia-resid-%s", layer, word);
  vector->point = arena_printf(arena, error, "blocks.%" PRId64 ".hook_resid_%s", layer, word);
  return vector->source && vector->point ? 0 : -1;
}

bool lab_holds_vectors(const char *source_id) {
  const char *set = source_id + strspn(source_id, "0123456789");
  return set != source_id && (strcmp(set, "-neuronpedia-resid-pre") == 0 || strcmp(set, "-neuronpedia-resid-post") == 0);
}

struct lab_source_info lab_vector_source(const struct lab_model_info *model, const struct store_vector *vector) {
  const char *set = vector->source + strspn(vector->source, "0123456789");
  return (struct lab_source_info){.id = vector->source, .set = set + (*set == '-'), .model_id = model->id, .point = vector->point,
                                  .point_out = vector->point, .layer = atoi(vector->source), .d_in = (int64_t)vector->n,
                                  .bos_counts = true, .promotes = true};
}

double lab_vector_norm(const float *values, size_t n) {
  double square = 0;
  for (size_t i = 0; i < n; i++) square += (double)values[i] * (double)values[i];
  return sqrt(square);
}

static int take_directions(const struct control_vector *file, const struct store_vector *alike, size_t width, struct arena *arena,
                           struct lab_vector_file *out, struct error *error) {
  struct store_vector *vectors = arena_array(arena, file->n, sizeof *vectors, error);
  *out = (struct lab_vector_file){file->format, file->hint, vectors, file->n};
  for (size_t i = 0; vectors && i < file->n; i++) {
    struct point point = file->directions[i].point;
    vectors[i] = *alike;
    vectors[i].values = file->directions[i].values;
    vectors[i].n = width;
    if (lab_vector_place(point.layer, point.site == SITE_RESID_PRE, arena, &vectors[i], error) != 0) return -1;
  }
  return vectors ? 0 : -1;
}

int lab_vectors_keep_file(const struct lab *lab, const struct lab_model_info *model, const void *data, size_t size, const char *label,
                          double strength, struct arena *arena, struct lab_vector_file *out, struct error *error) {
  struct store *store = lab_store(lab);
  struct control_vector file;
  const struct store_vector alike = {.model = model->id, .label = label, .strength = strength};
  if (!store) return lab_needs_store(error);
  if (control_vector_read(data, size, model->n_layer, model->d_model, arena, &file, error) != 0 ||
      take_directions(&file, &alike, (size_t)model->d_model, arena, out, error) != 0)
    return -1;
  return store_vectors_add(store, out->vectors, out->n, error);
}

int lab_vectors_labelled(const struct lab *lab, const struct lab_model_info *model, const char *label, struct arena *arena,
                         struct store_vector **out, size_t *n, struct error *error) {
  struct store *store = lab_store(lab);
  if (!store) return lab_needs_store(error);
  if (store_vectors_labelled(store, model->id, label, arena, out, n, error) != 0) return -1;
  if (*n) return 0;
  return error_set(error, ERROR_NOT_FOUND, "model '%.64s' has no vectors labelled '%.200s'", model->id, label);
}

/* What is kept was checked when it came, but for a model that may have been another one then. */
static int read_kept(const struct lab_model_info *model, const struct store_vector *vector, struct control_direction *out,
                     struct error *error) {
  if ((int64_t)vector->n != model->d_model)
    return error_set(error, ERROR_ARGUMENT, "a vector of that label has %zu numbers, the model is %" PRId64 " wide", vector->n,
                     model->d_model);
  out->values = vector->values;
  return point_read(vector->point, model->n_layer, &out->point, error);
}

int lab_vectors_write_file(const struct lab *lab, const struct lab_model_info *model, const char *label, struct arena *arena,
                           struct buffer *to, struct error *error) {
  struct store_vector *vectors;
  size_t n;
  if (lab_vectors_labelled(lab, model, label, arena, &vectors, &n, error) != 0) return -1;
  struct control_direction *directions = arena_array(arena, n, sizeof *directions, error);
  if (!directions) return -1;
  for (size_t i = 0; i < n; i++)
    if (read_kept(model, &vectors[i], &directions[i], error) != 0) return -1;
  return control_vector_write(to, model->family, directions, n, model->d_model, error);
}
