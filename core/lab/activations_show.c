/* activations_show.c: what the verb "activations" answers with: tokens as they are shown, values of features, rankings. Made of
 * the codes of all texts once they have run, by the thread between tasks. */
#include <stdlib.h>

#include "core/lab/activations.h"

/* ---- tokens ---- */

bool activations_show_bos(const struct activations_job *a) {
  if (a->ignore_bos == LAB_BOS_YES) return false;
  if (a->ignore_bos == LAB_BOS_NO) return true;
  for (size_t s = 0; s < a->n_sources; s++)
    if (a->infos[s]->bos_counts) return true;
  return false;
}

bool activations_begin_with_bos(const struct activations_job *a, const struct text_state *text) {
  return text->ids[0] == tokenizer_bos(a->opened->model->tokenizer);
}

/* The position's value counts as 0: a BOS that the source was not trained on, unless the asker says otherwise. */
static bool is_silent(const struct activations_job *a, const struct text_state *text, size_t source, size_t position) {
  if (text->ids[position] != tokenizer_bos(a->opened->model->tokenizer)) return false;
  return a->bos_values == LAB_BOS_DEFAULT ? !a->infos[source]->bos_counts : a->bos_values == LAB_BOS_NO;
}

static int show_tokens(struct activations_job *a, const struct text_state *text, struct lab_text_activations *out,
                       struct error *error) {
  const struct tokenizer *tokenizer = a->opened->model->tokenizer;
  size_t skip = activations_begin_with_bos(a, text) && !activations_show_bos(a) ? 1 : 0;
  size_t n = text->n_ids - skip;
  const char **tokens = arena_array(&a->arena, n, sizeof *tokens, error);
  int32_t *ids = arena_array(&a->arena, n, sizeof *ids, error);
  bool *special = arena_array(&a->arena, n, sizeof *special, error);
  if (!tokens || !ids || !special) return -1;
  for (size_t i = 0; i < n; i++) {
    ids[i] = text->ids[i + skip];
    special[i] = tokenizer_is_special(tokenizer, ids[i]);
    if (!(tokens[i] = lab_token_text(tokenizer, ids[i], &a->arena, error))) return -1;
  }
  *out = (struct lab_text_activations){.n_tokens = n, .tokens = tokens, .ids = ids, .special = special,
                                       .position_offset = (int64_t)skip};
  return 0;
}

/* ---- features ---- */

static void summarise(const struct activations_job *a, struct lab_feature_values *out, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (i && out->values[i] <= out->max) continue;
    out->max = out->values[i];
    out->max_position = (int64_t)i;
  }
  for (size_t i = 0; i < a->n_sort; i++)
    if (a->sort[i] < (int64_t)n) out->sum += out->values[a->sort[i]];
}

static int feature_values(struct activations_job *a, const struct text_state *text, size_t source, int64_t index,
                          const struct lab_text_activations *shown, struct lab_feature_values *out,
                          struct error *error) {
  size_t n = shown->n_tokens, skip = (size_t)shown->position_offset;
  float *values = arena_array(&a->arena, n, sizeof *values, error);
  if (!values) return -1;
  for (size_t i = 0; i < n; i++) {
    if (is_silent(a, text, source, i + skip)) continue;
    values[i] = text->values ? text->values[i + skip] : sparse_find(&text->codes[source], i + skip, (int32_t)index);
  }
  *out = (struct lab_feature_values){.source = a->infos[source], .index = index, .values = values};
  summarise(a, out, n);
  return 0;
}

static int show_one(struct activations_job *a, const struct text_state *text, struct lab_text_activations *out,
                    struct error *error) {
  struct lab_feature_values *values = arena_array(&a->arena, 1, sizeof *values, error);
  if (!values) return -1;
  out->features = values;
  out->n_features = 1;
  return feature_values(a, text, 0, a->index, out, values, error);
}

/* A short list of the strongest, strongest first; ties keep the order of arrival (lower source, lower index). */
struct ranked {
  float key;
  size_t source;
  int32_t index;
};

static void rank(struct ranked *list, int *count, int most, struct ranked candidate) {
  int at = *count;
  if (at == most && !(candidate.key > list[most - 1].key)) return;
  if (at == most) at--;
  else (*count)++;
  for (; at > 0 && candidate.key > list[at - 1].key; at--) list[at] = list[at - 1];
  list[at] = candidate;
}

static bool is_dense(const struct activations_job *a, size_t source, size_t index) {
  return a->dense && a->dense[source] && a->dense[source][index];
}

/* Features that do not fire, as far as there is room: with 0, or less than that, which neurons have. */
static void rank_silent(const struct activations_job *a, const struct text_state *text, size_t position, bool silent,
                        struct ranked *list, int *n) {
  for (int64_t f = 0; f < a->infos[0]->n_feat; f++) {
    if (*n == a->n_results && !(list[*n - 1].key < 0)) return; /* nothing that is silent ranks before these */
    float value = silent ? 0 : sparse_find(&text->codes[0], position, (int32_t)f);
    if (!(value > 0) && !is_dense(a, 0, (size_t)f)) rank(list, n, a->n_results, (struct ranked){value, 0, (int32_t)f});
  }
}

/* list: room for n_results, of all positions. */
static int show_top_of_token(struct activations_job *a, const struct text_state *text, size_t position, struct ranked *list,
                             const struct lab_token_feature **out, int *n_out, struct error *error) {
  const struct sparse *codes = &text->codes[0];
  struct lab_token_feature *top = arena_array(&a->arena, (size_t)a->n_results, sizeof *top, error);
  if (!top) return -1;
  int n = 0;
  bool silent = is_silent(a, text, 0, position);
  for (size_t i = codes->start[position]; !silent && i < codes->start[position + 1]; i++)
    if (codes->value[i] > 0 && !is_dense(a, 0, (size_t)codes->index[i]))
      rank(list, &n, a->n_results, (struct ranked){codes->value[i], 0, codes->index[i]});
  if (a->silent) rank_silent(a, text, position, silent, list, &n);
  for (int i = 0; i < n; i++) top[i] = (struct lab_token_feature){list[i].index, list[i].key};
  *out = top;
  *n_out = n;
  return 0;
}

static int show_all_of_token(struct activations_job *a, const struct text_state *text, size_t position,
                             const struct lab_token_feature **out, int *n_out, struct error *error) {
  const struct sparse *codes = &text->codes[0];
  size_t first = codes->start[position], end = codes->start[position + 1];
  struct lab_token_feature *all = arena_array(&a->arena, end - first, sizeof *all, error);
  if (!all) return -1;
  int n = 0;
  for (size_t i = first; i < end && !is_silent(a, text, 0, position); i++)
    if (codes->value[i] > 0) all[n++] = (struct lab_token_feature){codes->index[i], codes->value[i]};
  *out = all;
  *n_out = n;
  return 0;
}

static int show_by_token(struct activations_job *a, const struct text_state *text, struct lab_text_activations *out,
                         struct error *error) {
  const struct lab_token_feature **top = arena_array(&a->arena, out->n_tokens, sizeof *top, error);
  int *n_top = arena_array(&a->arena, out->n_tokens, sizeof *n_top, error);
  struct ranked *list = arena_array(&a->arena, (size_t)a->n_results, sizeof *list, error);
  if (!top || !n_top || !list) return -1;
  for (size_t i = 0; i < out->n_tokens; i++) {
    size_t position = i + (size_t)out->position_offset;
    if ((a->form == LAB_ALL_BY_TOKEN ? show_all_of_token(a, text, position, &top[i], &n_top[i], error)
                                     : show_top_of_token(a, text, position, list, &top[i], &n_top[i], error)) != 0)
      return -1;
  }
  out->top = top;
  out->n_top = n_top;
  return 0;
}

/* How often a position is named. */
static int sort_weight(const struct activations_job *a, int64_t position) {
  int weight = 0;
  for (size_t i = 0; i < a->n_sort; i++) weight += a->sort[i] == position;
  return weight;
}

/* Per feature its maximum over the shown tokens, or its sum over the asked ones. */
static void feature_keys(const struct activations_job *a, const struct text_state *text, size_t source,
                         const struct lab_text_activations *shown, float *key) {
  const struct sparse *codes = &text->codes[source];
  for (size_t i = 0; i < shown->n_tokens; i++) {
    size_t row = i + (size_t)shown->position_offset;
    if (is_silent(a, text, source, row)) continue;
    int weight = a->n_sort ? sort_weight(a, (int64_t)i) : 1;
    for (size_t e = codes->start[row]; weight && e < codes->start[row + 1]; e++) {
      float *k = &key[codes->index[e]];
      if (a->n_sort)
        *k += (float)weight * codes->value[e];
      else if (codes->value[e] > *k)
        *k = codes->value[e];
    }
  }
}

static int rank_source(const struct activations_job *a, const struct text_state *text, size_t source,
                       const struct lab_text_activations *shown, struct ranked *list, int *n, struct error *error) {
  size_t n_feat = (size_t)a->infos[source]->n_feat;
  float *key = calloc(n_feat, sizeof *key);
  if (!key) return error_memory(error, n_feat * sizeof *key);
  feature_keys(a, text, source, shown, key);
  for (size_t f = 0; f < n_feat; f++)
    if ((key[f] > 0 || a->silent) && !is_dense(a, source, f)) rank(list, n, a->n_results, (struct ranked){key[f], source, (int32_t)f});
  free(key);
  return 0;
}

static int show_over_text(struct activations_job *a, const struct text_state *text, struct lab_text_activations *out,
                          struct error *error) {
  struct ranked *list = arena_array(&a->arena, (size_t)a->n_results, sizeof *list, error);
  struct lab_feature_values *features = arena_array(&a->arena, (size_t)a->n_results, sizeof *features, error);
  int n = 0;
  if (!list || !features) return -1;
  for (size_t s = 0; s < a->n_sources; s++)
    if (rank_source(a, text, s, out, list, &n, error) != 0) return -1;
  for (int i = 0; i < n; i++)
    if (feature_values(a, text, list[i].source, list[i].index, out, &features[i], error) != 0) return -1;
  out->features = features;
  out->n_features = (size_t)n;
  return 0;
}

int activations_make_result(struct activations_job *a, struct error *error) {
  a->result = arena_array(&a->arena, a->n_texts, sizeof *a->result, error);
  if (!a->result) return -1;
  for (size_t t = 0; t < a->n_texts; t++) {
    const struct text_state *text = &a->texts[t];
    struct lab_text_activations *out = &a->result[t];
    if (show_tokens(a, text, out, error) != 0) return -1;
    int failed = a->form == LAB_ONE_FEATURE      ? show_one(a, text, out, error)
                 : a->form == LAB_TOP_OVER_TEXT ? show_over_text(a, text, out, error)
                                                : show_by_token(a, text, out, error);
    if (failed) return -1;
  }
  return 0;
}
