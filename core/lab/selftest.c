/* selftest.c: a dictionary runs over a short text when it is loaded: one that sits at the wrong point, misses a threshold or
 * was trained on another model still loads and answers, and only its numbers tell. By the loader's thread, in the engine's
 * background, so that nobody waits for it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/quality.h"
#include "core/base/log.h"
#include "core/lab/sources.h"

/* Below this share of the variance a dictionary does not describe its rows: working ones explain 0.6 to 0.99 of plain text,
 * transcoders 0.5; wrong ones mostly less than nothing. */
#define LEAST_EXPLAINED 0.3

/* L0 differs from text to text by a factor of 1.5 or so; a missing threshold changes it tenfold. */
#define MOST_TIMES 3.0

/* Plain prose with names, numbers and speech, about 120 tokens; or, for a vocabulary that lacks its characters, a few names. */
static const char *const prose[] = {
    "The old stone bridge over the river was built in 1890. Every morning the children walk across it to school, and in the "
    "evening they come back, tired and hungry. \"Why is the water so brown today?\" asked Anna, the youngest of them. Her "
    "brother thought about it for a while. \"Because it rained in the mountains,\" he said, \"and the rain carries the soil "
    "down to the sea.\" Scientists from London measured 3.5 meters of rain last year, more than ever before, but the "
    "government did not believe their numbers.",
    NULL};
static const char *const names[] = {"saint-denis", "avignon",     "la rochelle",        "montreuil", "villeneuve-sur-lot",
                                    "bordeaux",    "le mans",     "aix-en-provence",    "nantes",    "champigny-sur-marne",
                                    "grenoble",    "fontainebleau", "boulogne-billancourt", "dijon",   "chartres", NULL};

struct selftest {
  struct lab *lab;
  const struct model *model;
  struct lab_source *source;
  struct quality *quality;
  struct sparse codes; /* of one text, like the rows */
  float *x, *y;        /* host rows; y = x for an SAE */
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  bool done;
  struct error error;
};

/* ---- one text ---- */

static int on_tapped(void *context, int sequence, const struct engine_tapped *tapped, struct error *error) {
  struct selftest *t = context;
  (void)sequence;
  size_t row = (size_t)tapped->width, count = (size_t)tapped->n_rows * row;
  float *to = (tapped->tap ? t->y : t->x) + (size_t)tapped->position * row;
  if (tapped->backend->ops->read(tapped->backend, to, tapped->rows.at, count * sizeof *to, error) != 0) return -1;
  return tapped->tap ? 0 : dict_encode(t->source->dict, tapped->rows, tapped->n_rows, &t->codes, error);
}

static void on_done(void *context, const struct error *error) {
  struct selftest *t = context;
  pthread_mutex_lock(&t->mutex);
  if (error) t->error = *error;
  t->done = true;
  pthread_cond_signal(&t->changed);
  pthread_mutex_unlock(&t->mutex);
}

static const struct engine_events events = {.tapped = on_tapped, .done = on_done};

static int run_ids(struct selftest *t, const int32_t *ids, int32_t n, struct error *error) {
  const struct dict_info *info = dict_info(t->source->dict);
  const struct point taps[] = {info->in, info->out};
  int32_t in = point_layers(info->in), out = point_layers(info->out);
  struct engine_sequence sequence = {.tokens = ids, .n_tokens = n, .last_layer = in > out ? in : out, .taps = taps,
                                     .n_taps = info->transcoder ? 2 : 1, .eos = -1, .n_logprobs = -1};
  struct engine_task_args args = {.model = t->model, .sequences = &sequence, .n_sequences = 1, .events = &events,
                                  .context = t, .background = true};
  struct engine_task *task;
  t->done = false;
  if (engine_submit(t->lab->engine, &args, &task, error) != 0) return -1;
  pthread_mutex_lock(&t->mutex);
  while (!t->done) pthread_cond_wait(&t->changed, &t->mutex);
  pthread_mutex_unlock(&t->mutex);
  return t->error.code ? error_set(error, t->error.code, "%s", t->error.text) : 0;
}

/* Those of the rows of a text on which the dictionary is meant to be read. */
static int add_rows(struct selftest *t, const int32_t *ids, int32_t n, struct error *error) {
  const struct dict_info *info = dict_info(t->source->dict);
  uint8_t *mask = malloc((size_t)n + 1);
  int failed = mask ? 0 : error_memory(error, (size_t)n + 1);
  if (mask) positions_mark(&info->positions, ids, n, mask);
  for (int32_t begin, end = 0; !failed && positions_next(mask, n, &begin, &end);)
    failed = quality_add(t->quality, &t->codes, (size_t)begin, (size_t)(end - begin), t->x + (size_t)begin * (size_t)info->in_width,
                         t->y + (size_t)begin * (size_t)info->out_width, error);
  free(mask);
  return failed;
}

static int run_text(struct selftest *t, const char *text, struct error *error) {
  const struct dict_info *info = dict_info(t->source->dict);
  const struct tokenizer *tokenizer = t->model->tokenizer;
  bool bos = info->prepend_bos && tokenizer_bos(tokenizer) >= 0;
  int64_t most = info->context && info->context < t->model->arch.n_ctx ? info->context : t->model->arch.n_ctx;
  int32_t *ids = NULL;
  size_t n = 0;
  if (tokenizer_encode(tokenizer, text, strlen(text), bos ? TOKENIZE_BOS : 0, &ids, &n, error) != 0) return -1;
  if (n > (size_t)most) n = (size_t)most;
  t->codes.n_rows = 0;
  t->x = malloc(n * (size_t)info->in_width * sizeof *t->x);
  t->y = info->transcoder ? malloc(n * (size_t)info->out_width * sizeof *t->y) : t->x;
  int failed = t->x && t->y ? run_ids(t, ids, (int32_t)n, error) : error_memory(error, n * (size_t)info->in_width * 4);
  if (!failed) failed = add_rows(t, ids, (int32_t)n, error);
  if (t->y != t->x) free(t->y);
  free(t->x);
  free(ids);
  return failed;
}

/* ---- the verdict ---- */

static void judge(const struct lab_source *source, const struct quality_figures *f, struct lab_source_check *out) {
  const struct dict_info *info = dict_info(source->dict);
  double promised = info->k ? info->k : info->l0;
  *out = (struct lab_source_check){.state = LAB_CHECK_DONE, .tokens = f->rows, .l0 = f->l0, .promised_l0 = promised,
                                   .explained = f->explained};
  if (info->cross) { /* one layer stands for no rows by itself */
    if (f->l0 == 0)
      snprintf(out->text, sizeof out->text, "none of its features fires on plain text: is it for this model and this point (%s)?",
               source->point);
  } else if (!(f->explained >= LEAST_EXPLAINED))
    snprintf(out->text, sizeof out->text,
             "it explains %.2f of the variance of plain text (working dictionaries 0.6 and more): is it for this model, this "
             "point (%s) and this normalisation?",
             f->explained, source->point);
  else if (promised > 0 && (f->l0 > promised * MOST_TIMES || f->l0 < promised / MOST_TIMES))
    snprintf(out->text, sizeof out->text,
             "%.1f of its features fire at a token, and its configuration promises %.1f: is its activation function (%s) the one "
             "it was trained with?",
             f->l0, promised, source->info.kind);
}

static void tell(const struct lab_source *source, const struct lab_source_check *check) {
  char promised[48] = "", explained[48] = "";
  if (check->state == LAB_CHECK_FAILED) {
    log_info("source %s/%s: no self-test: %s", source->model_id, source->id, check->text);
    return;
  }
  if (check->promised_l0 > 0) snprintf(promised, sizeof promised, " (promised %.1f)", check->promised_l0);
  if (isfinite(check->explained)) snprintf(explained, sizeof explained, ", explained variance %.3f", check->explained);
  log_info("source %s/%s: self-test over %lld tokens: %.1f features a token%s%s", source->model_id, source->id,
           (long long)check->tokens, check->l0, promised, explained);
  if (check->text[0])
    log_warn("source %s/%s: SELF-TEST: %s Self-tests are turned off with self_test = no", source->model_id, source->id,
             check->text);
}

static int run_all(struct selftest *t, const char *const *texts, struct error *error) {
  for (; *texts; texts++)
    if (run_text(t, *texts, error) != 0) return -1;
  return 0;
}

/* The text has about 120 tokens, and a slice may begin behind them. */
static int check_counted(const struct selftest *t, struct error *error) {
  struct quality_figures figures;
  quality_read(t->quality, &figures);
  if (figures.rows > 0) return 0;
  return error_set(error, ERROR_ARGUMENT, "its text has no position on which the dictionary is read (seqposSlice, excludedTokens)");
}

/* An encoder that found no room in the budget is not brought in for this: it would drive out one that is used. */
static int measure(struct selftest *t, struct error *error) {
  struct dict_budget_stats budget;
  dict_budget_stats(t->lab->budget, &budget);
  if (budget.limit && dict_encoder_bytes(t->source->dict) == 0)
    return error_set(error, ERROR_BUSY, "its encoder is not prepared (dict_budget)");
  t->quality = quality_new(t->source->dict, error);
  if (!t->quality) return -1;
  struct error own = ERROR_INIT;
  if (run_all(t, prose, &own) == 0) return check_counted(t, error);
  if (own.code == ERROR_ARGUMENT) return run_all(t, names, error) != 0 ? -1 : check_counted(t, error); /* a character that the vocabulary lacks */
  return error_set(error, own.code, "%s", own.text);
}

void selftest_run(struct lab *lab, struct lab_source *source) {
  struct selftest t = {.lab = lab, .source = source, .model = lab_model_named(lab, source->model_id)->model};
  struct lab_source_check check = {.state = LAB_CHECK_FAILED};
  struct quality_figures figures;
  struct error error = ERROR_INIT;
  pthread_mutex_init(&t.mutex, NULL);
  pthread_cond_init(&t.changed, NULL);
  sparse_init(&t.codes);
  if (measure(&t, &error) == 0) {
    quality_read(t.quality, &figures);
    judge(source, &figures, &check);
  } else {
    snprintf(check.text, sizeof check.text, "%.*s", (int)sizeof check.text - 1, error.text);
  }
  tell(source, &check);
  pthread_mutex_lock(&lab->sources->mutex);
  source->check = check;
  atomic_fetch_add(&lab->sources->changes, 1); /* replies that were kept say nothing of it */
  pthread_mutex_unlock(&lab->sources->mutex);
  quality_free(t.quality);
  sparse_clear(&t.codes);
  pthread_cond_destroy(&t.changed);
  pthread_mutex_destroy(&t.mutex);
}

void lab_source_check(const struct lab *lab, const struct lab_source_info *source, struct lab_source_check *out) {
  pthread_mutex_lock(&lab->sources->mutex);
  *out = lab_source_of(lab, source)->check;
  pthread_mutex_unlock(&lab->sources->mutex);
}
