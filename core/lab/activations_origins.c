/* activations_origins.c: the second pass of the verb "activations": from which tokens the features come that read attention's
 * output. What it does with values and patterns is origins.c's. */
#include <stdlib.h>
#include <string.h>

#include "core/lab/activations.h"

static size_t source_of(const struct activations_job *a, const struct lab_feature_values *feature) {
  size_t s = 0;
  while (a->infos[s] != feature->source) s++;
  return s;
}

/* What the second pass over a text is to keep. */
int activations_begin_origins(struct activations_job *a, size_t t, struct error *error) {
  const struct lab_text_activations *shown = &a->result[t];
  const struct arch *arch = &a->opened->model->arch;
  int *layers = calloc(shown->n_features + 1, sizeof *layers);
  size_t *positions = calloc(shown->n_features + 1, sizeof *positions);
  int failed = layers && positions ? 0 : error_memory(error, shown->n_features * sizeof *positions);
  for (size_t i = 0; !failed && i < shown->n_features; i++) {
    layers[i] = a->layer_of[source_of(a, &shown->features[i])];
    positions[i] = (size_t)(shown->features[i].max_position + shown->position_offset);
  }
  if (!failed)
    failed = origins_begin(&a->texts[t].origins, arch, a->texts[t].n_ids, a->n_origin_layers, layers, positions, shown->n_features,
                           a->form == LAB_ONE_FEATURE ? a->text_field : a->count_field, error);
  free(layers);
  free(positions);
  return failed;
}

static int find_origins(struct activations_job *a, size_t t, struct lab_feature_values *feature, float *all, struct error *error) {
  const struct lab_text_activations *shown = &a->result[t];
  size_t source = source_of(a, feature), skip = (size_t)shown->position_offset;
  if (a->layer_of[source] < 0 || !shown->n_tokens) return 0;
  float *origins = arena_array(&a->arena, shown->n_tokens, sizeof *origins, error);
  if (!origins || origins_finish(&a->texts[t].origins, &a->opened->model->arch, a->dicts[source], feature->index,
                                 a->layer_of[source], (size_t)feature->max_position + skip, all, error) != 0)
    return -1;
  memcpy(origins, all + skip, shown->n_tokens * sizeof *origins);
  feature->origins_max = origins[0];
  for (size_t i = 1; i < shown->n_tokens; i++)
    if (origins[i] > feature->origins_max) feature->origins_max = origins[i];
  feature->origins = origins;
  return 0;
}

int activations_take_origins(struct activations_job *a, struct error *error) {
  for (size_t t = a->first; t < a->first + a->n_running; t++) {
    const struct lab_text_activations *shown = &a->result[t];
    float *all = malloc(a->texts[t].n_ids * sizeof *all);
    int failed = all ? 0 : error_memory(error, a->texts[t].n_ids * sizeof *all);
    for (size_t i = 0; !failed && i < shown->n_features; i++)
      failed = find_origins(a, t, (struct lab_feature_values *)(uintptr_t)&shown->features[i], all, error);
    free(all);
    origins_clear(&a->texts[t].origins);
    if (failed) return -1;
  }
  a->first += a->n_running;
  return 0;
}

/* Which layers' heads the sources read; none of them, and no second pass is run. */
int activations_find_origins(struct activations_job *a, struct error *error) {
  a->layer_of = calloc(a->n_sources, sizeof *a->layer_of);
  a->origin_layers = calloc(a->n_sources, sizeof *a->origin_layers);
  a->origin_taps = calloc(a->n_sources * ORIGINS_TAPS, sizeof *a->origin_taps);
  if (!a->layer_of || !a->origin_layers || !a->origin_taps) return error_memory(error, a->n_sources * sizeof *a->origin_taps);
  for (size_t s = 0; s < a->n_sources; s++) {
    int layer = origins_layer(a->dicts[s]), at = 0;
    a->layer_of[s] = -1;
    if (layer < 0) continue;
    while (at < a->n_origin_layers && a->origin_layers[at] != layer) at++;
    a->layer_of[s] = at;
    if (at < a->n_origin_layers) continue;
    origins_taps(layer, &a->origin_taps[at * ORIGINS_TAPS]);
    a->origin_layers[a->n_origin_layers++] = layer;
  }
  return 0;
}
