/* experiment.c: runs the stages of a laboratory request one after the other. Owns nothing of what they mean. */
#include "core/lab/experiment.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

#define READ_FLOATS ((int64_t)256 << 10) /* of rows at a time */

static struct experiment *experiment_of(void *context) { return context; } /* the job is its first member */

static void drop_edits(struct experiment *e) {
  for (size_t i = 0; i < e->n_passes; i++) {
    edit_list_free(e->passes[i].edits, e->model->backend);
    e->passes[i].edits = NULL;
  }
}

static void destroy(struct lab_job *job) {
  struct experiment *e = experiment_of(job);
  if (e->verb->clear) e->verb->clear(e);
  drop_edits(e);
  free(e->logits);
  arena_clear(&e->arena);
  job_clear(job);
  free(e);
}

void experiment_free(struct experiment *e) { destroy(&e->job); }

struct experiment *experiment_new(struct lab *lab, const struct lab_model_info *model, const struct experiment_verb *verb,
                                  size_t size, struct lab_waker waker, struct error *error) {
  assert(size >= sizeof(struct experiment));
  struct experiment *e = calloc(1, size);
  if (!e) return error_memory(error, size), NULL;
  job_init(&e->job, lab, waker, destroy);
  arena_init(&e->arena, 0);
  e->verb = verb;
  e->opened = lab_model_of(lab, model);
  e->model = e->opened->model;
  size_t bytes = (size_t)e->model->arch.vocabulary * sizeof *e->logits;
  e->logits = malloc(bytes);
  if (e->logits) return e;
  error_memory(error, bytes);
  experiment_free(e);
  return NULL;
}

int experiment_texts(struct experiment *e, const struct lab_input *inputs, size_t n, enum lab_bos bos, bool list,
                     struct error *error) {
  e->texts = arena_array(&e->arena, n, sizeof *e->texts, error);
  if (!e->texts) return -1;
  for (size_t t = 0; t < n; t++) {
    char field[32];
    snprintf(field, sizeof field, list ? "%s[%zu]" : "%s", inputs[t].ids ? "tokens" : "text", t);
    const char *name = inputs[t].field ? inputs[t].field : field;
    if (lab_input_ids(e->opened, &inputs[t], bos, 0, name, &e->arena, &e->texts[t], error) != 0) return -1;
    e->job.prompt_tokens += (int64_t)e->texts[t].n;
  }
  e->n_texts = n;
  return 0;
}

int experiment_edits(struct experiment *e, struct lab *lab, const struct lab_model_info *model, const struct lab_edit *edits,
                     size_t n, enum lab_bos bos, struct error *error) {
  if (edits_resolve(lab, model, edits, n, "edits", bos, &e->arena, &e->edits, error) != 0) return -1;
  return edits_needs(&e->edits, e->texts, e->n_texts, error);
}

struct pass *experiment_passes(struct experiment *e, size_t n, struct error *error) {
  e->passes = arena_array(&e->arena, n, sizeof *e->passes, error);
  e->n_passes = e->passes ? n : 0;
  return e->passes;
}

int experiment_plain(struct experiment *e, struct pass *pass, size_t t, bool edited, struct error *error) {
  pass->ids = e->texts[t];
  pass->last_layer = e->model->arch.n_layer;
  return edited ? edits_lower(&e->edits, t, &e->texts[t], &pass->edits, error) : 0;
}

int experiment_tokens(struct experiment *e, const struct lab_ids *ids, const char *const **out, struct error *error) {
  const char **texts = arena_array(&e->arena, ids->n, sizeof *texts, error);
  if (!texts) return -1;
  for (size_t i = 0; i < ids->n; i++)
    if (!(texts[i] = lab_token_text(e->model->tokenizer, ids->ids[i], &e->arena, error))) return -1;
  *out = texts;
  return 0;
}

int experiment_tapped(struct experiment *e, const struct point *point, struct error *error) {
  struct pass *passes = experiment_passes(e, e->n_texts, error);
  for (size_t i = 0; passes && i < e->n_texts; i++) {
    if (experiment_plain(e, &passes[i], i, false, error) != 0) return -1;
    passes[i].last_layer = point_layers(*point);
    passes[i].taps = point;
    passes[i].n_taps = 1;
  }
  return passes ? 0 : -1;
}

int experiment_position(int64_t position, size_t n_tokens, const char *field, size_t i, int64_t *out, struct error *error) {
  char name[64];
  *out = position < 0 ? position + (int64_t)n_tokens : position;
  if (*out >= 0 && *out < (int64_t)n_tokens) return 0;
  snprintf(name, sizeof name, i == SIZE_MAX ? "%s" : "%s[%zu]", field, i);
  return error_set_field(error, ERROR_ARGUMENT, name, "%s is %" PRId64 ", the text has tokens 0 to %zu (-1 is the last)", name,
                         position, n_tokens - 1);
}

int experiment_positions(struct experiment *e, const int64_t *given, size_t n_given, size_t n, int64_t **out, size_t *n_out,
                         struct error *error) {
  int64_t context = e->model->arch.n_ctx;
  if ((int64_t)n_given > context) /* one named again is reported again, but no request grows by that without end */
    return error_set_field(error, ERROR_LIMIT, "positions", "'positions' names %zu tokens, a text has at most %" PRId64, n_given,
                           context);
  *n_out = n_given ? n_given : n;
  *out = arena_array(&e->arena, *n_out, sizeof **out, error);
  for (size_t i = 0; *out && i < *n_out; i++) {
    (*out)[i] = (int64_t)i;
    if (n_given && experiment_position(given[i], n, "positions", i, &(*out)[i], error) != 0) return -1;
  }
  return *out ? 0 : -1;
}

int experiment_numbers(struct experiment *e, const int64_t *given, size_t n_given, int64_t n, const char *field,
                       int64_t **out, size_t *n_out, struct error *error) {
  *n_out = n_given ? n_given : (size_t)n;
  *out = arena_array(&e->arena, *n_out, sizeof **out, error);
  for (size_t i = 0; *out && i < *n_out; i++) {
    char name[64];
    (*out)[i] = n_given ? given[i] : (int64_t)i;
    snprintf(name, sizeof name, "%s[%zu]", field, i);
    if ((*out)[i] < 0 || (*out)[i] >= n)
      return error_set_field(error, ERROR_ARGUMENT, name, "%s is %" PRId64 ", allowed are 0 to %" PRId64, name, (*out)[i],
                             n - 1);
  }
  return *out ? 0 : -1;
}

/* ---- logits ---- */

struct lab_token experiment_judge(const struct experiment *e, const float *logits, int32_t id) {
  int64_t vocabulary = e->model->arch.vocabulary;
  struct lab_token token = {.id = id, .logit = logits[id], .logprob = sampler_logprob(logits, vocabulary, id)};
  for (int64_t i = 0; i < vocabulary; i++) token.rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
  return token;
}

int experiment_likeliest(const struct experiment *e, const float *logits, int k, struct lab_token *out) {
  struct sampler_likely likely[LAB_TOP_MOST];
  assert(k <= LAB_TOP_MOST);
  int n = sampler_most_likely(logits, e->model->arch.vocabulary, k, likely);
  for (int i = 0; i < n; i++)
    out[i] = (struct lab_token){.id = likely[i].token, .logit = logits[likely[i].token], .logprob = likely[i].logprob, .rank = i};
  return n;
}

float experiment_loss(const struct experiment *e, const float *logits, int32_t id) {
  return -sampler_logprob(logits, e->model->arch.vocabulary, id);
}

int experiment_name(struct experiment *e, struct lab_token *tokens, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++)
    if (!(tokens[i].text = lab_token_text(e->model->tokenizer, tokens[i].id, &e->arena, error))) return -1;
  return 0;
}

/* ---- rows ---- */

/* Each read of a device is a wait: some rows together, with what stands between them. */
int experiment_read_rows(struct backend *backend, struct rows rows, int64_t first, int64_t n, int64_t width, float *to, struct error *error) {
  int64_t each = READ_FLOATS / rows.ld;
  if (rows.ld == width)
    return backend->ops->read(backend, to, span_at(rows.at, (size_t)(first * width) * sizeof *to), (size_t)(n * width) * sizeof *to, error);
  if (each < 1) each = 1;
  float *some = malloc((size_t)(each * rows.ld) * sizeof *some);
  int failed = some ? 0 : error_memory(error, (size_t)(each * rows.ld) * sizeof *some);
  for (int64_t i = 0; i < n && !failed; i += each) {
    int64_t more = n - i < each ? n - i : each;
    struct span at = span_at(rows.at, (size_t)((first + i) * rows.ld) * sizeof *some);
    failed = backend->ops->read(backend, some, at, (size_t)((more - 1) * rows.ld + width) * sizeof *some, error);
    for (int64_t k = 0; k < more && !failed; k++) memcpy(to + (i + k) * width, some + k * rows.ld, (size_t)width * sizeof *to);
  }
  free(some);
  return failed;
}

/* ---- stages ---- */

static int need_passes(struct experiment *e, struct error *error) {
  struct pass *passes = experiment_passes(e, e->edits.n_runs, error);
  for (size_t i = 0; passes && i < e->edits.n_runs; i++) {
    struct engine_sequence run;
    if (edits_run(&e->edits, i, &run, error) != 0) return -1;
    passes[i].ids = e->edits.runs[i].ids;
    passes[i].edits = run.edits;
    passes[i].taps = run.taps;
    passes[i].n_taps = run.n_taps;
    passes[i].last_layer = run.last_layer;
  }
  return passes ? 0 : -1;
}

static int count_rows(struct experiment *e, struct error *error) {
  for (size_t i = 0; i < e->n_passes; i++) e->rows += (int64_t)e->passes[i].ids.n - e->passes[i].resume_position + e->passes[i].max_new;
  if (e->rows <= LABORATORY_MAX_ROWS) return 0;
  return error_set(error, ERROR_LIMIT, "the request computes %" PRId64 " token positions in all, at most %" PRId64
                   " are allowed; take shorter or fewer texts", e->rows, LABORATORY_MAX_ROWS);
}

/* What comes next: the runs that edits need, then the verb's own stages. n_passes 0 and no work: nothing. */
static int next_stage(struct experiment *e, struct error *error) {
  e->n_passes = 0;
  e->work = false;
  int failed = e->stage < 0 ? need_passes(e, error) : e->verb->stage(e, e->stage, error);
  return failed ? -1 : count_rows(e, error);
}

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct experiment *e = experiment_of(context);
  if (e->stage < 0) return edits_tapped(&e->edits, (size_t)sequence, tapped, error);
  return e->verb->tapped(e, sequence, tapped, error);
}

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  struct experiment *e = experiment_of(context);
  pthread_mutex_lock(&e->job.mutex);
  e->job.new_tokens++;
  pthread_mutex_unlock(&e->job.mutex);
  return e->verb->token(e, sequence, token->token);
}

/* Row by row through host memory, so that it takes one vocabulary at a time. */
static int on_logits(void *context, int sequence, int32_t position, int32_t n, struct rows logits, struct backend *backend,
                     struct error *error) {
  struct experiment *e = experiment_of(context);
  size_t bytes = (size_t)e->model->arch.vocabulary * sizeof *e->logits;
  for (int32_t i = 0; i < n; i++) {
    struct span row = span_at(logits.at, (size_t)i * (size_t)logits.ld * sizeof(float));
    if (backend->ops->read(backend, e->logits, row, bytes, error) != 0 ||
        e->verb->logits(e, sequence, position + i, e->logits, error) != 0)
      return -1;
  }
  return 0;
}

static int submit(struct experiment *e, bool continues, struct error *error);

static int go_on(struct lab_job *job, struct error *error) {
  struct experiment *e = experiment_of(job);
  if (next_stage(e, error) != 0) return -1;
  if (e->n_passes || e->work) return submit(e, true, error);
  job_done(job, NULL);
  return 0;
}

/* What edits take from the runs before may be gigabytes: that is put together elsewhere, as is what takes longer than a step. */
static void on_done(void *context, const struct error *error) {
  struct experiment *e = experiment_of(context);
  struct error own = ERROR_INIT;
  bool edits = e->stage++ < 0;
  if (!error && (edits || e->aside))
    stager_put(context, go_on);
  else if (error || go_on(context, &own) != 0)
    job_done(context, error ? error : &own);
}

static const struct engine_events events = {.token = on_token, .tapped = on_tapped, .reads_tapped = true, .logits = on_logits, .done = on_done};

static int on_slice(void *context, struct plan *plan, struct error *error) {
  struct experiment *e = experiment_of(context);
  return e->verb->slice(e, plan, error);
}

static const struct engine_work work = {.slice = on_slice, .done = on_done};

/* The first task makes the job the engine's too; when it cannot be queued the job is gone. */
static int submit_work(struct experiment *e, bool continues, struct error *error) {
  return continues ? job_continue_work(&e->job, e->model, &work, error) : job_submit_work(&e->job, e->model, &work, error);
}

static int submit(struct experiment *e, bool continues, struct error *error) {
  if (e->work) return submit_work(e, continues, error);
  struct engine_sequence *sequences = calloc(e->n_passes, sizeof *sequences);
  if (!sequences) {
    if (!continues) experiment_free(e);
    return error_memory(error, e->n_passes * sizeof *sequences);
  }
  for (size_t i = 0; i < e->n_passes; i++) {
    struct pass *p = &e->passes[i];
    sequences[i] = (struct engine_sequence){.tokens = p->ids.ids, .n_tokens = (int32_t)p->ids.n, .edits = p->edits,
                                            .last_layer = p->last_layer, .taps = p->taps, .n_taps = p->n_taps,
                                            .logits = p->logits, .resume_rows = p->resume_rows,
                                            .resume_layer = p->resume_layer, .resume_position = p->resume_position,
                                            .max_new = p->max_new, .sampling = p->sampling, .n_logprobs = -1,
                                            .eos = p->max_new ? tokenizer_eos(e->model->tokenizer) : -1};
    p->edits = NULL;
  }
  struct engine_task_args task = {.model = e->model, .sequences = sequences, .n_sequences = (int)e->n_passes,
                                  .events = &events, .context = &e->job, .continues = continues, .in_turn = true};
  int failed = continues ? job_continue(&e->job, &task, error) : job_submit(&e->job, &task, error);
  free(sequences);
  return failed;
}

int experiment_start(struct experiment *e, struct lab_job **out, struct error *error) {
  e->stage = e->edits.n_runs ? -1 : 0;
  if (next_stage(e, error) != 0) {
    experiment_free(e);
    return -1;
  }
  if (!e->n_passes && !e->work)
    job_finish_now(&e->job);
  else if (submit(e, false, error) != 0)
    return -1;
  *out = &e->job;
  return 0;
}
