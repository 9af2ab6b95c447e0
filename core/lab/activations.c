/* activations.c: the verb "activations": texts in, features out. Each text is a sequence that stops above the
 * highest point it needs; every chunk of rows is encoded as it comes out of its step, so that memory grows with
 * what fires, not with tokens x features. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/lab/activations.h"
#include "core/store/features.h"

/* Entries kept for one request, all of its texts and sources together, while the strongest features are looked for: 256 MiB. A
 * dictionary of 24,576 features where 100 fire at a token keeps 0.1 M for a text of 1,024 tokens. */
#define MAX_ENTRIES ((size_t)32 << 20)
#define MAX_RESULT ((size_t)128 << 20) /* bytes of values in the results of all texts */

static struct activations_job *activations_job(struct lab_job *job) { return (struct activations_job *)job; }

static void destroy(struct lab_job *job) {
  struct activations_job *a = activations_job(job);
  for (size_t t = 0; a->texts && t < a->n_texts; t++) {
    for (size_t s = 0; a->texts[t].codes && s < a->n_sources; s++) sparse_clear(&a->texts[t].codes[s]);
    free(a->texts[t].codes);
    free(a->texts[t].ids);
    free(a->texts[t].values);
    origins_clear(&a->texts[t].origins);
  }
  free(a->layer_of);
  free(a->origin_layers);
  free(a->origin_taps);
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
    return error_set_field(error, ERROR_LIMIT, a->text_field,
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

/* ---- between tasks ---- */

static int next_task(struct activations_job *a, bool continues, struct error *error);

/* The result, or what a second pass over some texts adds to it. */
static int take(struct activations_job *a, struct error *error) {
  if (a->origins) return activations_take_origins(a, error);
  a->origins = a->n_origin_layers > 0;
  a->first = 0;
  return activations_make_result(a, error);
}

static int finish(struct lab_job *job, struct error *error) {
  struct activations_job *a = activations_job(job);
  if (take(a, error) != 0) return -1;
  if (a->origins && a->first < a->n_texts) return next_task(a, true, error);
  job_done(job, NULL);
  return 0;
}

/* What is made of many texts may take longer than a step: not the engine's thread. */
static void on_done(void *context, const struct error *error) {
  struct activations_job *a = activations_job(context);
  struct error own = ERROR_INIT;
  if (!error && !a->origins && a->first + a->n_running < a->n_texts) {
    a->first += a->n_running;
    if (next_task(a, true, &own) == 0) return;
    error = &own;
  }
  if (error)
    job_done(context, error);
  else
    stager_put(&a->job, finish);
}

static const struct engine_events events = {.tapped = on_tapped, .done = on_done};

static int on_origins_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct activations_job *a = activations_job(context);
  return origins_tapped(&a->texts[a->first + (size_t)sequence].origins, tapped, error);
}

static const struct engine_events origins_events = {.tapped = on_origins_tapped, .reads_tapped = true, .done = on_done};

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
  char field[64];
  snprintf(field, sizeof field, args->n_texts > 1 ? "%.40s[%zu]" : "%.40s", a->text_field, t);
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
    int64_t shown = (int64_t)text->n_ids - (activations_begin_with_bos(a, text) && !activations_show_bos(a) ? 1 : 0);
    for (size_t i = 0; i < a->n_sort; i++) {
      if (a->sort[i] >= 0 && a->sort[i] < shown) continue;
      char field[64];
      snprintf(field, sizeof field, "%.40s[%zu]", a->sort_field, i);
      return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, the text has tokens 0 to %lld", field,
                             (long long)a->sort[i], (long long)shown - 1);
    }
  }
  return 0;
}

static int check_size(const struct activations_job *a, struct error *error) {
  size_t each = a->form == LAB_TOP_OVER_TEXT ? sizeof(float) : sizeof(struct lab_token_feature), tokens = 0;
  for (size_t t = 0; t < a->n_texts; t++) tokens += a->texts[t].n_ids;
  size_t most = MAX_RESULT / each / size_max(tokens, 1);
  if ((a->form != LAB_TOP_OVER_TEXT && a->form != LAB_TOP_BY_TOKEN) || (size_t)a->n_results <= most) return 0;
  return error_set_field(error, ERROR_LIMIT, a->count_field, "%d results of texts with %zu tokens in all are more than one reply holds; "
                         "at most %zu of them", a->n_results, tokens, most);
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
  if (args->origins && activations_find_origins(a, error) != 0) return -1;
  return check_sort(a, error) != 0 ? -1 : check_size(a, error);
}

static int32_t layers_needed(const struct point *taps, int n_taps) {
  int32_t last = 0;
  for (int i = 0; i < n_taps; i++)
    if (point_layers(taps[i]) > last) last = point_layers(taps[i]);
  return last;
}

/* How many of the texts from `first` on can run together; one at least. Second passes keep patterns. */
static size_t count_next(const struct activations_job *a) {
  enum { MOST = 64, MOST_ORIGINS = 4 };
  int32_t positions[MOST];
  int n = 0, most = a->origins ? MOST_ORIGINS : MOST;
  for (; n < most && a->first + (size_t)n < a->n_texts; n++)
    positions[n] = (int32_t)a->texts[a->first + (size_t)n].n_ids;
  int fitting = engine_fitting(a->job.lab->engine, a->opened->model, positions, n);
  return fitting > 0 ? (size_t)fitting : 1;
}

/* Texts from `first` on, as many as run at once. The first task makes the job the engine's too; when it cannot be
 * queued the job is gone. */
static int next_task(struct activations_job *a, bool continues, struct error *error) {
  const struct point *taps = a->origins ? a->origin_taps : a->taps;
  int n_taps = a->origins ? a->n_origin_layers * ORIGINS_TAPS : a->n_taps;
  a->n_running = count_next(a);
  for (size_t t = a->first; a->origins && t < a->first + a->n_running; t++)
    if (activations_begin_origins(a, t, error) != 0) return -1;
  struct engine_sequence *sequences = calloc(a->n_running, sizeof *sequences);
  if (!sequences) {
    if (!continues) destroy(&a->job);
    return error_memory(error, a->n_texts * sizeof *sequences);
  }
  for (size_t t = 0; t < a->n_running; t++) {
    const struct text_state *text = &a->texts[a->first + t];
    sequences[t] = (struct engine_sequence){.tokens = text->ids, .n_tokens = (int32_t)text->n_ids,
                                            .last_layer = layers_needed(taps, n_taps), .taps = taps, .n_taps = n_taps,
                                            .eos = -1, .n_logprobs = -1};
  }
  struct engine_task_args task = {.model = a->opened->model, .sequences = sequences,
                                  .n_sequences = (int)a->n_running, .events = a->origins ? &origins_events : &events,
                                  .context = &a->job, .continues = continues && (a->first > 0 || a->origins)};
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
  a->bos_values = args->bos_values;
  a->silent = args->silent;
  a->text_field = args->text_field ? args->text_field : "text";
  a->sort_field = args->sort_field ? args->sort_field : "sortIndexes";
  a->count_field = args->count_field ? args->count_field : "numResults";
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
