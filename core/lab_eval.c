/* lab_eval.c: the evaluation job: a dictionary over a text, its figures into the store. It keeps no state on the way: a job that
 * was interrupted begins again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/evaluation.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/lab_runner.h"
#include "core/lab_sources.h"

#define BATCH_DOCUMENTS 64
#define BATCH_ROWS 2048 /* positions whose rows are in memory at a time, unless a document is longer */

struct eval_job {
  struct lab_running *running;
  struct lab *lab;
  struct lab_eval_args args; /* texts in `parameters`, or the caller's */
  struct json_node *parameters;
  const struct lab_source_info *info;
  struct lab_source *source;
  struct lab_model *opened;
  struct corpus *corpus;
  struct quality *quality;
  struct evaluation_result result;
};

/* ---- parameters ---- */

static int check(struct lab *lab, const struct lab_eval_args *args, const struct lab_source_info **info,
                 struct error *error) {
  const struct lab_model_info *model = lab_find_model(lab, args->model_id, error);
  if (!model || !(*info = lab_find_source(lab, model, args->source_id, "source", error))) return -1;
  if (!args->corpus || !path_is_file(args->corpus))
    return error_set_field(error, ERROR_NOT_FOUND, "corpus", "corpus '%.200s' is not a file that can be read",
                           args->corpus ? args->corpus : "");
  if (args->max_tokens < 0)
    return error_set_field(error, ERROR_ARGUMENT, "maxTokens", "maxTokens is %lld, allowed are 0 and more",
                           (long long)args->max_tokens);
  if (args->ends && tokenizer_eos(lab_model_of(lab, model)->model->tokenizer) < 0)
    return error_set_field(error, ERROR_ARGUMENT, "ends", "model '%s' has no end-of-text token to predict", model->id);
  return 0;
}

const char *eval_job_parameters(struct lab *lab, const struct lab_eval_args *args, struct arena *arena,
                                struct error *error) {
  const struct lab_source_info *info;
  if (check(lab, args, &info, error) != 0) return NULL;
  struct buffer text;
  struct json_writer w;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", info->model_id);
  jw_member_text(&w, "source", info->id);
  jw_member_text(&w, "corpus", args->corpus);
  jw_member_bool(&w, "lines", args->lines);
  jw_member_bool(&w, "ends", args->ends);
  jw_member_int(&w, "maxTokens", args->max_tokens);
  jw_close(&w, '}');
  char *copy = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return copy;
}

static int read_parameters(struct eval_job *job, const char *text, struct error *error) {
  job->parameters = json_parse(text, strlen(text), 8, error);
  if (!job->parameters) return error_prefix(error, "the job's parameters");
  const struct json_node *p = job->parameters;
  job->args = (struct lab_eval_args){.model_id = json_text_or(json_get(p, "modelId"), ""),
                                     .source_id = json_text_or(json_get(p, "source"), ""),
                                     .corpus = json_text_or(json_get(p, "corpus"), ""),
                                     .lines = json_bool_or(json_get(p, "lines"), false),
                                     .ends = json_bool_or(json_get(p, "ends"), false),
                                     .max_tokens = json_int_or(json_get(p, "maxTokens"), 0)};
  return 0;
}

/* The source is kept, and no other one: the job may take hours. */
static int keep_source(struct eval_job *job, struct error *error) {
  struct lab_lease lease;
  lab_lease_begin(job->lab, &lease);
  int failed = check(job->lab, &job->args, &job->info, error);
  if (!failed) {
    job->source = lab_source_of(job->lab, job->info);
    job->opened = lab_model_of_source(job->lab, job->info);
    source_pin(job->lab, job->source);
  }
  lab_lease_end(job->lab, &lease);
  return failed;
}

/* ---- running ---- */

static bool should_stop(void *context) {
  struct eval_job *job = context;
  return job->running->stopping(job->running);
}

static int on_progress(void *context, int64_t document) {
  struct eval_job *job = context;
  job->running->report(job->running, document, corpus_documents(job->corpus), "documents", "evaluating");
  return should_stop(job);
}

static int open_corpus(struct eval_job *job, struct error *error) {
  const struct dict_info *info = dict_info(job->source->dict);
  int64_t model = job->opened->model->arch.n_ctx;
  struct corpus_options options = {.lines = job->args.lines,
                                   .context = info->context > 0 && info->context < model ? info->context : model,
                                   .bos = info->prepend_bos, .max_tokens = job->args.max_tokens, .stop = should_stop,
                                   .stop_context = job};
  job->running->report(job->running, 0, 0, "tokens", "reading the text");
  job->corpus = corpus_open(job->args.corpus, job->opened->model->tokenizer, &options, error);
  if (job->corpus && corpus_tokens(job->corpus) == 0)
    return error_set_field(error, ERROR_ARGUMENT, "corpus", "'%s' has no tokens", job->args.corpus);
  return job->corpus ? 0 : -1;
}

static int evaluate(struct eval_job *job, struct error *error) {
  const struct dict_info *info = dict_info(job->source->dict);
  bool bos = info->prepend_bos && tokenizer_bos(job->opened->model->tokenizer) >= 0;
  struct evaluation what = {.engine = job->lab->engine, .model = job->opened->model, .dict = job->source->dict,
                            .corpus = job->corpus, .skip_first = bos && !info->bos_counts, .ends = job->args.ends,
                            .max_documents = BATCH_DOCUMENTS, .max_rows = BATCH_ROWS, .progress = on_progress,
                            .context = job};
  job->quality = quality_new(job->source->dict, error);
  int result = job->quality ? evaluation_run(&what, job->quality, &job->result, error) : -1;
  if (result && should_stop(job)) {
    error_clear(error);
    return error_set(error, ERROR_CANCELLED, "stopped; it begins again when it is resumed");
  }
  return result ? -1 : 0;
}

static void describe(const struct eval_job *job, struct store_evaluation *out) {
  static const double ends[STORE_SHARES] = {0.1, 0.01, 0.001, 0.0001};
  const struct evaluation_result *r = &job->result;
  const int64_t *fired = quality_fired(job->quality);
  const char *slash = strrchr(job->args.corpus, '/');
  *out = (struct store_evaluation){.source = job->source->store_id, .corpus = slash ? slash + 1 : job->args.corpus,
                                   .corpus_hash = corpus_identity(job->corpus), .lines = job->args.lines,
                                   .ends = job->args.ends, .n_documents = corpus_documents(job->corpus),
                                   .n_tokens = r->quality.rows, .n_features = job->info->n_feat, .l0 = r->quality.l0,
                                   .mse = r->quality.mse, .explained = r->quality.explained,
                                   .n_predicted = r->n_predicted, .ce_raw = r->ce[EVALUATE_RAW],
                                   .ce_spliced = r->ce[EVALUATE_SPLICED], .ce_error = r->ce[EVALUATE_ERROR],
                                   .ce_zero = r->ce[EVALUATE_ZERO]};
  for (int64_t f = 0; f < job->info->n_feat; f++) {
    out->n_dead += fired[f] == 0;
    for (int i = 0; i < STORE_SHARES; i++) out->below[i] += (double)fired[f] < ends[i] * (double)r->quality.rows;
  }
}

static int store_result(struct eval_job *job, const struct store_evaluation *evaluation, struct error *error) {
  if (!job->lab->store) return 0;
  return store_evaluation_put(job->lab->store, evaluation, error);
}

static int copy_texts(struct store_evaluation *evaluation, struct arena *arena, struct error *error) {
  evaluation->corpus = arena_text(arena, evaluation->corpus, strlen(evaluation->corpus), error);
  evaluation->corpus_hash = arena_text(arena, evaluation->corpus_hash, strlen(evaluation->corpus_hash), error);
  return evaluation->corpus && evaluation->corpus_hash ? 0 : -1;
}

/* arena and out may be NULL. */
static int run(struct eval_job *job, struct arena *arena, struct store_evaluation *out, struct error *error) {
  struct store_evaluation evaluation;
  int failed = keep_source(job, error) != 0 || open_corpus(job, error) != 0 || evaluate(job, error) != 0;
  if (!failed) {
    describe(job, &evaluation);
    failed = store_result(job, &evaluation, error) != 0 || (out && copy_texts(&evaluation, arena, error) != 0);
    if (!failed && out) *out = evaluation;
  }
  quality_free(job->quality);
  corpus_close(job->corpus);
  json_free(job->parameters);
  if (job->source) source_unpin(job->lab, job->source);
  return failed ? -1 : 0;
}

int eval_job_run(struct lab_running *running, const char *parameters, struct error *error) {
  struct eval_job job = {.running = running, .lab = running->lab};
  if (read_parameters(&job, parameters, error) == 0) return run(&job, NULL, NULL, error);
  json_free(job.parameters);
  return -1;
}

/* ---- in the calling thread ---- */

struct caller {
  bool (*tell)(void *context, const struct lab_progress *progress);
  void *context;
  bool stop;
  int64_t begin_ns, told_ns;
  const char *message;
};

static bool caller_stops(struct lab_running *running) { return ((struct caller *)running->runner)->stop; }

static void caller_report(struct lab_running *running, int64_t done, int64_t total, const char *unit, const char *message) {
  struct caller *caller = running->runner;
  int64_t now = clock_ns();
  if (caller->message != message) caller->begin_ns = now; /* a new phase has its own rate */
  bool due = caller->message != message || now - caller->told_ns >= 200000000 || done == total;
  caller->message = message;
  if (!due) return;
  double seconds = (double)(now - caller->begin_ns) * 1e-9;
  struct lab_progress progress = {.job = {.kind = "eval", .state = STORE_RUNNING, .done = done, .total = total, .unit = unit,
                                          .message = message},
                                  .rate = seconds > 0 ? (double)done / seconds : 0, .seconds_left = -1};
  if (progress.rate > 0 && total > 0) progress.seconds_left = (double)(total - done) / progress.rate;
  caller->told_ns = now;
  caller->stop |= caller->tell(caller->context, &progress);
}

int lab_eval_run(struct lab *lab, const struct lab_eval_args *args,
                 bool (*tell)(void *context, const struct lab_progress *progress), void *context, struct arena *arena,
                 struct store_evaluation *out, struct error *error) {
  struct caller caller = {.tell = tell, .context = context};
  struct lab_running running = {.lab = lab, .stopping = caller_stops, .report = caller_report, .runner = &caller};
  struct eval_job job = {.running = &running, .lab = lab, .args = *args};
  return run(&job, arena, out, error);
}
