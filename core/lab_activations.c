/* lab_activations.c: the verb "activations": texts in, features out. Each text is a sequence that stops above the
 * highest point it needs; every chunk of rows is encoded as it comes out of its step, so that memory grows with
 * what fires, not with tokens x features. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/lab_sources.h"
#include "core/store/features.h"

/* Entries kept for one request, all of its texts and sources together, while the strongest features are looked for: 256 MiB. A
 * dictionary of 24,576 features where 100 fire at a token keeps 0.1 M for a text of 1,024 tokens. */
#define MAX_ENTRIES ((size_t)32 << 20)

struct text_state {
  int32_t *ids;
  size_t n_ids;
  struct sparse *codes; /* [n_sources]; rows are positions of the full prompt */
  float *values;        /* [n_ids] LAB_ONE_FEATURE */
};

struct activations_job {
  struct lab_job job;
  struct lab_warm warm;                 /* before the first task, where an encoder was dropped */
  struct lab_model *opened;
  enum lab_activation_form form;
  const struct lab_source_info **infos; /* [n_sources] */
  struct dict **dicts;                  /* [n_sources] */
  size_t n_sources;
  struct point *taps;                   /* distinct points of the sources */
  int *tap_of;                          /* [n_sources] */
  bool **dense;                         /* [n_sources][n_feat]: fires too often to be shown; NULL: none does */
  int n_taps;
  int64_t index;
  int n_results;
  enum lab_bos ignore_bos;
  int64_t *sort;
  size_t n_sort;
  struct text_state *texts;
  size_t n_texts;
  size_t entries;                       /* in all of their codes */
  size_t first, n_running;              /* texts of the task that runs: as many as there are sessions at most */
  struct arena arena;                   /* the result */
  struct lab_text_activations *result;
};

static struct activations_job *activations_job(struct lab_job *job) { return (struct activations_job *)job; }

static void destroy(struct lab_job *job) {
  struct activations_job *a = activations_job(job);
  for (size_t t = 0; a->texts && t < a->n_texts; t++) {
    for (size_t s = 0; a->texts[t].codes && s < a->n_sources; s++) sparse_clear(&a->texts[t].codes[s]);
    free(a->texts[t].codes);
    free(a->texts[t].ids);
    free(a->texts[t].values);
  }
  free(a->texts);
  free(a->infos);
  free(a->dicts);
  free(a->taps);
  free(a->tap_of);
  for (size_t s = 0; a->dense && s < a->n_sources; s++) free(a->dense[s]);
  free(a->dense);
  free(a->sort);
  arena_clear(&a->arena);
  job_clear(job);
  free(a);
}

/* ---- while it runs (engine's thread) ---- */

/* A feature that does not depend on the others needs its own column only. */
static int one_feature(const struct activations_job *a, struct text_state *text, const struct engine_tapped *tapped,
                       struct error *error) {
  size_t count = (size_t)tapped->n_rows * (size_t)tapped->width;
  float *rows = malloc(count * sizeof *rows);
  if (!rows) return error_memory(error, count * sizeof *rows);
  assert(tapped->rows.ld == tapped->width);
  int failed = tapped->backend->ops->read(tapped->backend, rows, tapped->rows.at, count * sizeof *rows, error);
  if (!failed)
    dict_feature_values(a->dicts[0], a->index, rows, (size_t)tapped->n_rows, text->values + tapped->position);
  free(rows);
  return failed;
}

static int all_features(struct activations_job *a, struct text_state *text, size_t source,
                        const struct engine_tapped *tapped, struct error *error) {
  struct sparse *codes = &text->codes[source];
  size_t first = codes->n_rows, before = first ? codes->start[first] : 0;
  assert(first == (size_t)tapped->position);
  if (dict_encode(a->dicts[source], tapped->rows, tapped->n_rows, codes, error) != 0) return -1;
  a->entries += codes->start[codes->n_rows] - before;
  if (a->entries > MAX_ENTRIES)
    return error_set_field(error, ERROR_LIMIT, "text",
                           "more than %zu activations in one request (now those of source '%s'); send fewer or shorter texts, "
                           "or fewer sources", MAX_ENTRIES, a->infos[source]->id);
  for (int32_t i = 0; text->values && i < tapped->n_rows; i++)
    text->values[first + (size_t)i] = sparse_find(codes, first + (size_t)i, (int32_t)a->index);
  return 0;
}

static bool needs_one_column(const struct activations_job *a) {
  return a->form == LAB_ONE_FEATURE && dict_features_independent(a->dicts[0]);
}

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct activations_job *a = activations_job(context);
  struct text_state *text = &a->texts[a->first + (size_t)sequence];
  if (needs_one_column(a)) return one_feature(a, text, tapped, error);
  for (size_t s = 0; s < a->n_sources; s++)
    if (a->tap_of[s] == tapped->tap && all_features(a, text, s, tapped, error) != 0) return -1;
  return 0;
}

/* ---- the result: tokens shown ---- */

static bool bos_is_shown(const struct activations_job *a) {
  if (a->ignore_bos == LAB_BOS_YES) return false;
  if (a->ignore_bos == LAB_BOS_NO) return true;
  for (size_t s = 0; s < a->n_sources; s++)
    if (a->infos[s]->bos_counts) return true;
  return false;
}

static bool begins_with_bos(const struct activations_job *a, const struct text_state *text) {
  return text->ids[0] == tokenizer_bos(a->opened->model->tokenizer);
}

/* The position's value counts as 0: a BOS that the source was not trained on. */
static bool is_silent(const struct activations_job *a, const struct text_state *text, size_t source, size_t position) {
  return !a->infos[source]->bos_counts && text->ids[position] == tokenizer_bos(a->opened->model->tokenizer);
}

static int show_tokens(struct activations_job *a, const struct text_state *text, struct lab_text_activations *out,
                       struct error *error) {
  const struct tokenizer *tokenizer = a->opened->model->tokenizer;
  size_t skip = begins_with_bos(a, text) && !bos_is_shown(a) ? 1 : 0;
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

/* ---- the result: features ---- */

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

static int show_top_of_token(struct activations_job *a, const struct text_state *text, size_t position,
                             const struct lab_token_feature **out, int *n_out, struct error *error) {
  const struct sparse *codes = &text->codes[0];
  struct ranked *list = arena_array(&a->arena, (size_t)a->n_results, sizeof *list, error);
  struct lab_token_feature *top = arena_array(&a->arena, (size_t)a->n_results, sizeof *top, error);
  if (!list || !top) return -1;
  int n = 0;
  bool silent = is_silent(a, text, 0, position);
  for (size_t i = codes->start[position]; !silent && i < codes->start[position + 1]; i++)
    if (!is_dense(a, 0, (size_t)codes->index[i]))
      rank(list, &n, a->n_results, (struct ranked){codes->value[i], 0, codes->index[i]});
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
    if (codes->value[i] != 0) all[n++] = (struct lab_token_feature){codes->index[i], codes->value[i]};
  *out = all;
  *n_out = n;
  return 0;
}

static int show_by_token(struct activations_job *a, const struct text_state *text, struct lab_text_activations *out,
                         struct error *error) {
  const struct lab_token_feature **top = arena_array(&a->arena, out->n_tokens, sizeof *top, error);
  int *n_top = arena_array(&a->arena, out->n_tokens, sizeof *n_top, error);
  if (!top || !n_top) return -1;
  for (size_t i = 0; i < out->n_tokens; i++) {
    size_t position = i + (size_t)out->position_offset;
    if ((a->form == LAB_ALL_BY_TOKEN ? show_all_of_token(a, text, position, &top[i], &n_top[i], error)
                                     : show_top_of_token(a, text, position, &top[i], &n_top[i], error)) != 0)
      return -1;
  }
  out->top = top;
  out->n_top = n_top;
  return 0;
}

static bool is_sort_position(const struct activations_job *a, int64_t position) {
  for (size_t i = 0; i < a->n_sort; i++)
    if (a->sort[i] == position) return true;
  return false;
}

/* Per feature its maximum over the shown tokens, or its sum over the asked ones. */
static void feature_keys(const struct activations_job *a, const struct text_state *text, size_t source,
                         const struct lab_text_activations *shown, float *key) {
  const struct sparse *codes = &text->codes[source];
  for (size_t i = 0; i < shown->n_tokens; i++) {
    size_t row = i + (size_t)shown->position_offset;
    if (is_silent(a, text, source, row)) continue;
    bool counts = a->n_sort == 0 || is_sort_position(a, (int64_t)i);
    for (size_t e = codes->start[row]; counts && e < codes->start[row + 1]; e++) {
      float *k = &key[codes->index[e]];
      if (a->n_sort)
        *k += codes->value[e];
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
    if (key[f] > 0 && !is_dense(a, source, f)) rank(list, n, a->n_results, (struct ranked){key[f], source, (int32_t)f});
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

static int make_result(struct activations_job *a, struct error *error) {
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

static int next_task(struct activations_job *a, bool continues, struct error *error);

static void on_done(void *context, const struct error *error) {
  struct activations_job *a = activations_job(context);
  struct error own = ERROR_INIT;
  a->first += a->n_running;
  if (!error && a->first < a->n_texts) {
    if (next_task(a, true, &own) == 0) return;
    error = &own;
  }
  if (!error && make_result(a, &own) != 0) error = &own;
  job_done(context, error);
}

static const struct engine_events events = {.tapped = on_tapped, .done = on_done};

/* ---- the asker's side ---- */

static int find_sources(struct lab *lab, const struct lab_activations_args *args, struct activations_job *a,
                        struct error *error) {
  a->infos = calloc(args->n_sources, sizeof *a->infos);
  a->dicts = calloc(args->n_sources, sizeof *a->dicts);
  a->taps = calloc(args->n_sources, sizeof *a->taps);
  a->tap_of = calloc(args->n_sources, sizeof *a->tap_of);
  if (!a->infos || !a->dicts || !a->taps || !a->tap_of) return error_memory(error, args->n_sources * sizeof *a->infos);
  for (size_t s = 0; s < args->n_sources; s++) {
    a->infos[s] = lab_find_source(lab, args->model, args->source_ids[s], "source", error);
    if (!a->infos[s]) return -1;
    a->dicts[s] = lab_source_of(lab, a->infos[s])->dict;
    struct point in = dict_info(a->dicts[s])->in;
    int tap = 0;
    while (tap < a->n_taps && point_index(a->taps[tap]) != point_index(in)) tap++;
    if (tap == a->n_taps) a->taps[a->n_taps++] = in;
    a->tap_of[s] = tap;
    a->n_sources++;
  }
  if (args->form != LAB_ONE_FEATURE || (args->index >= 0 && args->index < a->infos[0]->n_feat)) return 0;
  return error_set_field(error, ERROR_NOT_FOUND, "index", "index is %lld, source '%s' has features 0 to %lld",
                         (long long)args->index, a->infos[0]->id, (long long)a->infos[0]->n_feat - 1);
}

/* Read here, so that the engine's thread never waits for the store. A rate that is not known is not above anything. */
static int mark_dense(struct lab *lab, struct activations_job *a, size_t s, double most, struct error *error) {
  size_t n = (size_t)a->infos[s]->n_feat;
  float *rates = malloc(n * sizeof *rates);
  a->dense[s] = calloc(n, sizeof *a->dense[s]);
  int failed = rates && a->dense[s] ? 0 : error_memory(error, n * sizeof *rates);
  if (!failed) failed = store_density(lab->store, lab_source_of(lab, a->infos[s])->store_id, rates, n, NULL, error);
  for (size_t f = 0; !failed && f < n; f++) a->dense[s][f] = rates[f] > (float)most; /* as rates are shown */
  free(rates);
  return failed;
}

static int find_dense(struct lab *lab, struct activations_job *a, double most, struct error *error) {
  if (!(most > 0 && most < 1) || !lab->store || a->form == LAB_ONE_FEATURE) return 0;
  a->dense = calloc(a->n_sources, sizeof *a->dense);
  if (!a->dense) return error_memory(error, a->n_sources * sizeof *a->dense);
  for (size_t s = 0; s < a->n_sources; s++)
    if (mark_dense(lab, a, s, most, error) != 0) return -1;
  return 0;
}

static bool wants_bos(const struct activations_job *a) {
  for (size_t s = 0; s < a->n_sources; s++)
    if (dict_info(a->dicts[s])->prepend_bos) return true;
  return false;
}

static int prepare_text(struct activations_job *a, const struct lab_activations_args *args, size_t t,
                        struct error *error) {
  struct text_state *text = &a->texts[t];
  char field[32] = "text";
  if (args->n_texts > 1) snprintf(field, sizeof field, "text[%zu]", t);
  if (lab_encode(a->opened->model, args->texts[t].text, args->texts[t].length, wants_bos(a), 0, field, &text->ids,
                 &text->n_ids, error) != 0)
    return -1;
  a->job.prompt_tokens += (int64_t)text->n_ids;
  text->codes = calloc(a->n_sources, sizeof *text->codes);
  if (!text->codes) return error_memory(error, a->n_sources * sizeof *text->codes);
  if (a->form != LAB_ONE_FEATURE) return 0;
  text->values = calloc(text->n_ids, sizeof *text->values);
  return text->values ? 0 : error_memory(error, text->n_ids * sizeof *text->values);
}

static int check_sort(const struct activations_job *a, struct error *error) {
  for (size_t t = 0; t < a->n_texts; t++) {
    const struct text_state *text = &a->texts[t];
    int64_t shown = (int64_t)text->n_ids - (begins_with_bos(a, text) && !bos_is_shown(a) ? 1 : 0);
    for (size_t i = 0; i < a->n_sort; i++) {
      if (a->sort[i] >= 0 && a->sort[i] < shown) continue;
      char field[40];
      snprintf(field, sizeof field, "sortIndexes[%zu]", i);
      return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, the text has tokens 0 to %lld", field,
                             (long long)a->sort[i], (long long)shown - 1);
    }
  }
  return 0;
}

static int prepare(struct lab *lab, const struct lab_activations_args *args, struct activations_job *a,
                   struct error *error) {
  if (find_sources(lab, args, a, error) != 0 || find_dense(lab, a, args->most_density, error) != 0) return -1;
  a->texts = calloc(args->n_texts, sizeof *a->texts);
  a->sort = calloc(args->n_sort_positions + 1, sizeof *a->sort);
  if (!a->texts || !a->sort) return error_memory(error, args->n_texts * sizeof *a->texts);
  a->n_texts = args->n_texts;
  a->n_sort = args->n_sort_positions;
  if (a->n_sort) memcpy(a->sort, args->sort_positions, a->n_sort * sizeof *a->sort);
  for (size_t t = 0; t < a->n_texts; t++)
    if (prepare_text(a, args, t, error) != 0) return -1;
  return check_sort(a, error);
}

static int32_t layers_needed(const struct activations_job *a) {
  int32_t last = 0;
  for (int i = 0; i < a->n_taps; i++)
    if (point_layers(a->taps[i]) > last) last = point_layers(a->taps[i]);
  return last;
}

/* How many of the texts from `first` on can run together; one at least. */
static size_t count_next(const struct activations_job *a) {
  enum { MOST = 64 };
  int32_t positions[MOST];
  int n = 0;
  for (; n < MOST && a->first + (size_t)n < a->n_texts; n++)
    positions[n] = (int32_t)a->texts[a->first + (size_t)n].n_ids;
  int fitting = engine_fitting(a->job.lab->engine, a->opened->model, positions, n);
  return fitting > 0 ? (size_t)fitting : 1;
}

/* Texts from `first` on, as many as run at once. The first task makes the job the engine's too; when it cannot be
 * queued the job is gone. */
static int next_task(struct activations_job *a, bool continues, struct error *error) {
  a->n_running = count_next(a);
  struct engine_sequence *sequences = calloc(a->n_running, sizeof *sequences);
  if (!sequences) {
    if (!continues) destroy(&a->job);
    return error_memory(error, a->n_texts * sizeof *sequences);
  }
  for (size_t t = 0; t < a->n_running; t++) {
    const struct text_state *text = &a->texts[a->first + t];
    sequences[t] = (struct engine_sequence){.tokens = text->ids, .n_tokens = (int32_t)text->n_ids,
                                            .last_layer = layers_needed(a), .taps = a->taps, .n_taps = a->n_taps,
                                            .eos = -1, .n_logprobs = -1};
  }
  struct engine_task_args task = {.model = a->opened->model, .sequences = sequences,
                                  .n_sequences = (int)a->n_running, .events = &events, .context = &a->job,
                                  .continues = continues && a->first > 0};
  int failed = continues ? job_continue(&a->job, &task, error) : job_submit(&a->job, &task, error);
  free(sequences);
  return failed;
}

/* By the loader, whose share of the job goes to the engine. */
static void on_warm(struct lab_warm *warm, const struct error *error) {
  struct activations_job *a = (struct activations_job *)(void *)((char *)warm - offsetof(struct activations_job, warm));
  struct error own = ERROR_INIT;
  if (!error && next_task(a, true, &own) == 0) return;
  job_done(&a->job, error ? error : &own);
}

/* The first task, once all encoders are there. When it cannot be queued the job is gone. */
static int start(struct activations_job *a, struct error *error) {
  if (needs_one_column(a) || !loader_cold(a->job.lab, a->dicts, a->n_sources)) return next_task(a, false, error);
  a->warm = (struct lab_warm){.dicts = a->dicts, .n = a->n_sources, .ready = on_warm};
  a->job.owners = 2; /* the asker and the loader, which does not know it yet */
  if (loader_warm(a->job.lab, &a->warm, error) == 0) return 0;
  destroy(&a->job);
  return -1;
}

int lab_activations(struct lab *lab, const struct lab_activations_args *args, struct lab_waker waker,
                    struct lab_job **out, struct error *error) {
  struct activations_job *a = calloc(1, sizeof *a);
  if (!a) return error_memory(error, sizeof *a);
  assert(args->n_sources >= 1 && args->n_texts >= 1 && args->n_results >= (args->form != LAB_ONE_FEATURE));
  job_init(&a->job, lab, waker, destroy);
  arena_init(&a->arena, 0);
  a->opened = lab_model_of(lab, args->model);
  a->form = args->form;
  a->index = args->index;
  a->n_results = args->n_results;
  a->ignore_bos = args->ignore_bos;
  if (prepare(lab, args, a, error) != 0) {
    destroy(&a->job);
    return -1;
  }
  if (start(a, error) != 0) return -1;
  *out = &a->job;
  return 0;
}

const struct lab_text_activations *lab_activations_result(const struct lab_job *job, size_t *n_texts) {
  const struct activations_job *a = (const struct activations_job *)job;
  *n_texts = a->n_texts;
  return a->result;
}
