/* activations_labels.c: what the store knows of the features that a search found, so that nobody has to ask for one after the other. */
#include <stdlib.h>

#include "api/activations.h"
#include "api/rows.h"

static int by_place(const void *a, const void *b) {
  const struct store_feature_at *x = a, *y = b;
  if (x->source != y->source) return x->source < y->source ? -1 : 1;
  return (x->index > y->index) - (x->index < y->index);
}

static struct store_feature_at place_of(const struct api_call *call, const struct lab_source_info *source, int64_t index) {
  return (struct store_feature_at){lab_store_source(call->api->lab, source), (uint32_t)index};
}

static size_t count_features(const struct lab_text_activations *text) {
  size_t n = text->n_features;
  for (size_t i = 0; text->top && i < text->n_tokens; i++) n += (size_t)text->n_top[i];
  return n;
}

/* Each feature once, in order. */
static size_t sort_out(struct store_feature_at *at, size_t n) {
  size_t kept = 0;
  qsort(at, n, sizeof *at, by_place);
  for (size_t i = 0; i < n; i++)
    if (!i || by_place(&at[i], &at[kept - 1]) != 0) at[kept++] = at[i];
  return kept;
}

int activations_labels(struct api_call *call, const struct lab_text_activations *text, const struct lab_source_info *source,
                       struct activations_labels *out, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  size_t n = 0, most = store ? count_features(text) : 0;
  *out = (struct activations_labels){0};
  if (!most) return 0;
  struct store_feature_at *at = arena_array(&call->arena, most, sizeof *at, error);
  if (!at) return -1;
  for (size_t i = 0; i < text->n_features; i++) at[n++] = place_of(call, text->features[i].source, text->features[i].index);
  for (size_t i = 0; text->top && i < text->n_tokens; i++)
    for (int k = 0; k < text->n_top[i]; k++) at[n++] = place_of(call, source, text->top[i][k].index);
  n = sort_out(at, n);
  struct store_feature_label *labels = arena_array(&call->arena, n, sizeof *labels, error);
  *out = (struct activations_labels){at, labels, n};
  return labels ? store_feature_labels(store, at, n, &call->arena, labels, error) : -1;
}

void activations_write_label(struct json_writer *w, const char *key, struct api_call *call, const struct activations_labels *labels,
                             const struct lab_source_info *source, int64_t index) {
  if (!labels->n) return;
  struct store_feature_at at = place_of(call, source, index);
  const struct store_feature_at *found = bsearch(&at, labels->at, labels->n, sizeof at, by_place);
  const struct store_feature_label *label = found ? &labels->labels[found - labels->at] : NULL;
  if (label && label->known) rows_label(w, key, source, index, label);
}
