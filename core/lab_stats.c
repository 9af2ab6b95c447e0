/* lab_stats.c: the statistics job: a text through the engine's background into the store, in steps that a killed process
 * resumes from. Three phases: read the text (done again after a restart), count (a checkpoint now and then keeps the
 * accumulators), write the features (each batch with the number of the next one, in one transaction). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/explain.h"
#include "core/analysis/statistics_run.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/lab_runner.h"
#include "core/lab_sources.h"
#include "core/lab_tables.h"

#define CHECKPOINT_MS 20000                      /* at most so much counting is lost, unless options say otherwise */
#define BATCH 64                                 /* features written in one transaction */
#define HEAD_PART 0                              /* of the resume state; features' parts follow */
#define HEAD_VERSION 2u

enum phase { PHASE_COUNT, PHASE_WRITE };

/* The first part of the resume state; the head of the statistics follows it. */
struct saved_head {
  uint32_t version, phase;
  int64_t next_feature;
  char corpus[24], dictionary[24];
};

struct stats_job {
  struct lab_running *running;
  struct lab *lab;
  struct lab_stats_args args; /* texts in `parameters` */
  struct json_node *parameters;
  struct lab_model *opened;
  const struct lab_source_info *info;
  struct lab_source *source;
  struct corpus *corpus;
  struct statistics *statistics;
  enum phase phase;
  int64_t next_feature, saved_ns;
  struct decoder_table *decoder;
};

/* ---- parameters ---- */

static int in_range(const char *field, int64_t value, int64_t low, int64_t high, struct error *error) {
  if (value >= low && value <= high) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, allowed are %lld to %lld", field, (long long)value,
                         (long long)low, (long long)high);
}

static int check(struct lab *lab, const struct lab_stats_args *args, const struct lab_source_info **info,
                 struct error *error) {
  const struct lab_model_info *model = lab_find_model(lab, args->model_id, error);
  if (!model || !(*info = lab_find_source(lab, model, args->source_id, "source", error))) return -1;
  if (!args->corpus || !*args->corpus)
    return error_set_field(error, ERROR_ARGUMENT, "corpus", "corpus is needed: the path of a UTF-8 text file");
  if (!path_is_file(args->corpus))
    return error_set_field(error, ERROR_NOT_FOUND, "corpus", "corpus '%.200s' is not a file that can be read", args->corpus);
  if (in_range("nTop", args->n_top, 0, 100, error) != 0 || in_range("nQuantile", args->n_quantile, 0, 10, error) != 0 ||
      in_range("window", args->window, 8, 256, error) != 0 ||
      in_range("maxTokens", args->max_tokens, 0, INT64_MAX, error) != 0)
    return -1;
  return 0;
}

const char *stats_job_parameters(struct lab *lab, const struct lab_stats_args *args, struct arena *arena,
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
  jw_member_int(&w, "nTop", args->n_top);
  jw_member_int(&w, "nQuantile", args->n_quantile);
  jw_member_int(&w, "window", args->window);
  jw_member_int(&w, "maxTokens", args->max_tokens);
  jw_member_bool(&w, "logits", args->logits);
  jw_member_bool(&w, "neighbours", args->neighbours);
  jw_member_bool(&w, "explain", args->explain);
  jw_close(&w, '}');
  char *copy = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return copy;
}

/* The source is kept, and no other one: the job may take hours. */
static int keep_source(struct stats_job *job, struct error *error) {
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

static int read_parameters(struct stats_job *job, const char *text, struct error *error) {
  job->parameters = json_parse(text, strlen(text), 8, error);
  if (!job->parameters) return error_prefix(error, "the job's parameters");
  const struct json_node *p = job->parameters;
  struct lab_stats_args defaults = LAB_STATS_DEFAULTS;
  job->args = (struct lab_stats_args){
      .model_id = json_text_or(json_get(p, "modelId"), ""), .source_id = json_text_or(json_get(p, "source"), ""),
      .corpus = json_text_or(json_get(p, "corpus"), ""), .lines = json_bool_or(json_get(p, "lines"), defaults.lines),
      .n_top = (int)json_int_or(json_get(p, "nTop"), defaults.n_top),
      .n_quantile = (int)json_int_or(json_get(p, "nQuantile"), defaults.n_quantile),
      .window = (int)json_int_or(json_get(p, "window"), defaults.window),
      .max_tokens = json_int_or(json_get(p, "maxTokens"), defaults.max_tokens),
      .logits = json_bool_or(json_get(p, "logits"), defaults.logits),
      .neighbours = json_bool_or(json_get(p, "neighbours"), defaults.neighbours),
      .explain = json_bool_or(json_get(p, "explain"), defaults.explain)};
  return keep_source(job, error);
}

/* ---- the text ---- */

static bool should_stop(void *context) {
  struct stats_job *job = context;
  return job->running->stopping(job->running);
}

static int64_t context_of(const struct stats_job *job) {
  int64_t model = job->opened->model->arch.n_ctx, dict = dict_info(job->source->dict)->context;
  return dict > 0 && dict < model ? dict : model;
}

static int open_corpus(struct stats_job *job, struct error *error) {
  struct corpus_options options = {.lines = job->args.lines, .context = context_of(job),
                                   .bos = dict_info(job->source->dict)->prepend_bos,
                                   .max_tokens = job->args.max_tokens, .stop = should_stop, .stop_context = job};
  job->running->report(job->running, 0, 0, "tokens", "reading the text");
  job->corpus = corpus_open(job->args.corpus, job->opened->model->tokenizer, &options, error);
  if (job->corpus && corpus_tokens(job->corpus) == 0)
    return error_set_field(error, ERROR_ARGUMENT, "corpus", "'%s' has no tokens: nothing was counted or replaced",
                           job->args.corpus);
  return job->corpus ? 0 : -1;
}

static int make_statistics(struct stats_job *job, struct error *error) {
  bool bos = dict_info(job->source->dict)->prepend_bos && tokenizer_bos(job->opened->model->tokenizer) >= 0;
  struct statistics_options options = {.n_feat = job->info->n_feat, .n_top = job->args.n_top,
                                       .n_quantile = job->args.n_quantile, .window = job->args.window,
                                       .skip_first = bos && !job->info->bos_counts};
  job->statistics = statistics_new(&options, error);
  return job->statistics ? 0 : -1;
}

/* ---- the resume state ---- */

/* What it computes, how its encoder is kept, and whether the model it reads is processed. */
static void name_dictionary(const struct stats_job *job, char out[24]) {
  char print[17];
  dict_fingerprint(job->source->dict, print);
  memset(out, 0, 24);
  bool processed = lab_model_of_source(job->lab, job->info)->model->processed;
  snprintf(out, 24, "%s %d%s", print, (int)job->lab->keep, processed ? " p" : "");
}

static void write_head(const struct stats_job *job, struct buffer *out) {
  struct saved_head head;
  memset(&head, 0, sizeof head);
  head.version = HEAD_VERSION;
  head.phase = job->phase;
  head.next_feature = job->next_feature;
  snprintf(head.corpus, sizeof head.corpus, "%s", corpus_identity(job->corpus));
  name_dictionary(job, head.dictionary);
  buffer_append(out, &head, sizeof head);
  statistics_save_head(job->statistics, out);
}

static int read_head(struct stats_job *job, const void *data, size_t bytes, struct error *error) {
  struct saved_head head;
  char dictionary[sizeof head.dictionary];
  if (bytes < sizeof head) return error_set(error, ERROR_FORMAT, "the job's state is too short to go on from");
  memcpy(&head, data, sizeof head);
  head.corpus[sizeof head.corpus - 1] = '\0';
  if (head.version != HEAD_VERSION)
    return error_set(error, ERROR_FORMAT, "the job's state was saved by another version; start a new job");
  if (strcmp(head.corpus, corpus_identity(job->corpus)) != 0)
    return error_set(error, ERROR_ARGUMENT, "'%s' has changed since the job began; start a new job", job->args.corpus);
  name_dictionary(job, dictionary);
  if (memcmp(head.dictionary, dictionary, sizeof dictionary) != 0)
    return error_set(error, ERROR_ARGUMENT, "the dictionary '%s' is another one than when the job began; start a new job",
                     job->info->id);
  job->phase = head.phase == PHASE_WRITE ? PHASE_WRITE : PHASE_COUNT;
  job->next_feature = head.next_feature;
  if (head.next_feature < 0 || head.next_feature > job->info->n_feat)
    return error_set(error, ERROR_FORMAT, "the job's state is damaged; start a new job");
  return statistics_load_head(job->statistics, (const char *)data + sizeof head, bytes - sizeof head, error);
}

static int resume(struct stats_job *job, struct error *error) {
  struct store *store = job->lab->store;
  struct arena arena;
  const void *data;
  size_t bytes;
  arena_init(&arena, 0);
  int found = store_job_part(store, job->running->id, HEAD_PART, &arena, &data, &bytes, error), failed = 0;
  if (found > 0) failed = read_head(job, data, bytes, error);
  for (int64_t p = 0; found > 0 && !failed && p < statistics_parts(job->statistics); p++) {
    arena_clear(&arena);
    found = store_job_part(store, job->running->id, (int)p + 1, &arena, &data, &bytes, error);
    if (found > 0) failed = statistics_load_part(job->statistics, p, data, bytes, error);
    if (found == 0) found = 1; /* a part in which nothing has fired yet was never saved */
  }
  arena_clear(&arena);
  return found < 0 || failed ? -1 : 0;
}

/* Everything that changed since the last checkpoint, in one transaction. */
static int checkpoint(struct stats_job *job, struct error *error) {
  int64_t n_parts = statistics_parts(job->statistics);
  size_t n = 0;
  struct buffer *buffers = calloc((size_t)n_parts + 1, sizeof *buffers);
  struct store_job_part *parts = calloc((size_t)n_parts + 1, sizeof *parts);
  int failed = buffers && parts ? 0 : error_memory(error, (size_t)n_parts * sizeof *buffers);
  for (int64_t p = -1; !failed && p < n_parts; p++) {
    if (p >= 0 && !statistics_part_dirty(job->statistics, p)) continue;
    buffer_init(&buffers[n], 0);
    if (p < 0)
      write_head(job, &buffers[n]);
    else
      statistics_save_part(job->statistics, p, &buffers[n]);
    failed = buffer_check(&buffers[n], error);
    parts[n] = (struct store_job_part){(int)p + 1, buffers[n].data, buffers[n].length};
    n++;
  }
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.done = statistics_documents(job->statistics);
  update.total = corpus_documents(job->corpus);
  update.unit = "documents";
  update.message = "counting";
  struct store_batch batch = {.source = job->source->store_id, .job = job->running->id, .update = &update,
                              .parts = parts, .n_parts = n};
  if (!failed) failed = store_batch_put(job->lab->store, &batch, error);
  for (size_t i = 0; buffers && i < n; i++) buffer_clear(&buffers[i]);
  free(buffers);
  free(parts);
  job->saved_ns = clock_ns();
  return failed;
}

/* ---- counting ---- */

struct counting {
  struct stats_job *job;
  struct error error;
};

static int on_progress(void *context, int64_t document) {
  struct counting *counting = context;
  struct stats_job *job = counting->job;
  job->running->report(job->running, document, corpus_documents(job->corpus), "documents", "counting");
  bool stop = should_stop(job);
  int64_t every = job->lab->options.checkpoint_ms ? job->lab->options.checkpoint_ms : CHECKPOINT_MS;
  if (!stop && clock_ns() - job->saved_ns < every * 1000000) return 0;
  if (checkpoint(job, &counting->error) != 0) return -1;
  if (stop) error_set(&counting->error, ERROR_CANCELLED, "stopped at document %lld; it can be resumed", (long long)document);
  return stop ? -1 : 0;
}

static int count_corpus(struct stats_job *job, struct error *error) {
  struct counting counting = {job, ERROR_INIT};
  int sessions = job->lab->options.max_sessions / 2;
  struct statistics_run run = {.engine = job->lab->engine, .model = job->opened->model, .dict = job->source->dict,
                               .corpus = job->corpus, .statistics = job->statistics,
                               .max_sequences = sessions > 0 ? sessions : 1,
                               .max_rows = job->lab->options.max_step_rows, .progress = on_progress,
                               .context = &counting};
  job->saved_ns = clock_ns();
  int64_t begin = clock_ns();
  struct error why = ERROR_INIT;
  int failed = statistics_run(&run, &why);
  if (failed && counting.error.code) {
    error_set(error, counting.error.code, "%s", counting.error.text);
  } else if (failed && should_stop(job)) {
    /* A draining engine refuses work before the next report: what is counted is whole documents, and is kept. */
    if (checkpoint(job, error) == 0) error_set(error, ERROR_CANCELLED, "stopped; it can be resumed");
  } else if (failed) {
    error_set(error, why.code, "%s", why.text);
  }
  double seconds = (double)(clock_ns() - begin) * 1e-9;
  log_info("statistics of %s/%s: %lld tokens in %.1f s, %.1f %% of it spent on upkeep beside the engine",
           job->info->model_id, job->info->id, (long long)statistics_tokens(job->statistics), seconds,
           seconds > 0 ? 100 * run.upkeep_seconds / seconds : 0);
  if (failed) return -1;
  job->phase = PHASE_WRITE;
  return checkpoint(job, error);
}

/* ---- writing features ---- */

static int example_row(const struct stats_job *job, const struct statistics_example *example, struct arena *arena,
                       struct store_example *out, struct error *error) {
  int32_t length = corpus_length(job->corpus, example->document);
  int32_t *ids = arena_array(arena, (size_t)length, sizeof *ids, error);
  struct store_text *tokens = arena_array(arena, (size_t)example->length, sizeof *tokens, error);
  float *values = arena_array(arena, (size_t)example->length, sizeof *values, error);
  if (!ids || !tokens || !values) return -1;
  corpus_ids(job->corpus, example->document, ids);
  for (int32_t i = 0; i < example->length; i++) {
    tokens[i].text = lab_token_text(job->opened->model->tokenizer, ids[example->start + i], arena, error);
    if (!tokens[i].text) return -1;
    tokens[i].length = strlen(tokens[i].text);
  }
  for (int32_t i = 0; i < example->n_marks; i++) values[example->marks[i].offset] = example->marks[i].value;
  *out = (struct store_example){.tokens = tokens, .values = values, .n = (size_t)example->length,
                                .bin_min = example->bin_min, .bin_max = example->bin_max,
                                .bin_contains = example->bin_contains,
                                .qualifying = example->position - example->start, .document = example->document,
                                .position = example->start};
  return 0;
}

/* Bars up to the one that holds the maximum. */
static int histogram_row(const struct statistics_feature *feature, struct arena *arena, struct store_histogram *out,
                         struct error *error) {
  size_t n = 0;
  for (size_t b = 0; b < STATISTICS_BARS; b++)
    if (feature->n_fired && feature->bars[b]) n = b + 1;
  float *heights = arena_array(arena, n, sizeof *heights, error), *values = arena_array(arena, n, sizeof *values, error);
  if (!heights || !values) return -1;
  for (size_t b = 0; b < n; b++) {
    heights[b] = (float)feature->bars[b];
    values[b] = feature->range / STATISTICS_BARS * ((float)b + 0.5f);
  }
  *out = (struct store_histogram){heights, values, n};
  return 0;
}

static int statistics_row(struct stats_job *job, int64_t index, struct arena *arena, struct store_feature *out,
                          struct error *error) {
  struct statistics_feature feature;
  statistics_feature(job->statistics, index, &feature);
  int64_t n_tokens = statistics_tokens(job->statistics);
  out->index = (uint32_t)index;
  out->groups = STORE_STATISTICS | STORE_EXAMPLES;
  out->n_fired = feature.n_fired;
  out->rate = n_tokens ? (double)feature.n_fired / (double)n_tokens : 0;
  out->mean = feature.mean;
  out->max = feature.max;
  if (histogram_row(&feature, arena, &out->activity, error) != 0) return -1;
  struct store_example *examples = arena_array(arena, (size_t)feature.n_examples, sizeof *examples, error);
  if (!examples) return -1;
  for (int i = 0; i < feature.n_examples; i++)
    if (example_row(job, &feature.examples[i], arena, &examples[i], error) != 0) return -1;
  out->examples = examples;
  out->n_examples = (size_t)feature.n_examples;
  return 0;
}

/* Examples of the top group only: intervals would blur what it is about. */
static int explanation_row(const struct stats_job *job, const struct store_feature *feature, struct arena *arena,
                           struct store_explanation *out, struct error *error) {
  size_t n = 0, n_promoted = feature->top.n;
  struct explain_example *examples = arena_array(arena, feature->n_examples, sizeof *examples, error);
  const char **promoted = arena_array(arena, n_promoted, sizeof *promoted, error);
  if (!examples || !promoted) return -1;
  for (size_t i = 0; i < feature->n_examples; i++) {
    const struct store_example *e = &feature->examples[i];
    if (e->bin_min != -1) continue;
    examples[n++] = (struct explain_example){e->tokens[e->qualifying].text,
                                             e->qualifying > 0 ? e->tokens[e->qualifying - 1].text : NULL};
  }
  for (size_t i = 0; i < n_promoted; i++) promoted[i] = feature->top.texts[i].text;
  struct explain_input input = {examples, n, promoted, n_promoted, feature->rate};
  struct buffer text;
  buffer_init(&text, 0);
  explain_feature(&input, &text);
  char *description = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  *out = (struct store_explanation){.source = job->source->store_id, .index = feature->index,
                                    .origin = STORE_AUTOMATIC, .description = description, .type = EXPLAIN_TYPE,
                                    .model_name = EXPLAIN_MODEL, .score = (double)__builtin_nanf("")};
  return description ? 0 : -1;
}

/* Features [first, first + n) as rows of the store, all in the arena. */
static int make_rows(struct stats_job *job, int64_t first, int n, struct arena *arena, struct store_feature *features,
                     struct store_explanation *explanations, struct error *error) {
  struct table_row *rows = arena_array(arena, (size_t)n, sizeof *rows, error);
  struct table_work work = {.lab = job->lab, .source = job->source, .model = job->opened->model, .first = first,
                            .n = n, .logits = job->args.logits, .neighbours = job->args.neighbours, .rows = rows,
                            .decoder = &job->decoder};
  if (!rows) return -1;
  if ((work.logits || work.neighbours) && table_run(&work, error) != 0) return -1;
  for (int i = 0; i < n; i++) {
    if (statistics_row(job, first + i, arena, &features[i], error) != 0 ||
        table_store(&work, &rows[i], arena, &features[i], error) != 0 ||
        (job->args.explain && explanation_row(job, &features[i], arena, &explanations[i], error) != 0))
      return -1;
  }
  return 0;
}

static int write_batch(struct stats_job *job, int64_t first, int n, struct error *error) {
  struct arena arena;
  struct buffer head;
  struct store_feature *features;
  struct store_explanation *explanations;
  arena_init(&arena, 0);
  buffer_init(&head, 0);
  features = arena_array(&arena, (size_t)n, sizeof *features, error);
  explanations = arena_array(&arena, (size_t)n, sizeof *explanations, error);
  int failed = features && explanations ? make_rows(job, first, n, &arena, features, explanations, error) : -1;
  job->next_feature = first + n;
  write_head(job, &head);
  struct store_job_part part = {HEAD_PART, head.data, head.length};
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.done = job->next_feature;
  update.total = job->info->n_feat;
  update.unit = "features";
  update.message = "writing features";
  struct store_batch batch = {.source = job->source->store_id, .features = features, .n_features = (size_t)n,
                              .explanations = explanations, .n_explanations = job->args.explain ? (size_t)n : 0,
                              .job = job->running->id, .update = &update, .parts = &part, .n_parts = 1};
  if (!failed) failed = buffer_check(&head, error);
  if (!failed) failed = store_batch_put(job->lab->store, &batch, error);
  buffer_clear(&head);
  arena_clear(&arena);
  return failed;
}

static int write_features(struct stats_job *job, struct error *error) {
  int64_t all = job->info->n_feat;
  while (job->next_feature < all) {
    job->running->report(job->running, job->next_feature, all, "features", "writing features");
    if (should_stop(job))
      return error_set(error, ERROR_CANCELLED, "stopped at feature %lld; it can be resumed", (long long)job->next_feature);
    int64_t left = all - job->next_feature;
    if (write_batch(job, job->next_feature, left < BATCH ? (int)left : BATCH, error) != 0) return -1;
  }
  job->running->report(job->running, all, all, "features", "writing features");
  return 0;
}

/* What the numbers mean goes to the source, last: statistics without it are unfinished. */
static int describe_source(struct stats_job *job, struct error *error) {
  struct arena arena;
  struct store_source row;
  char now[25];
  const char *slash = strrchr(job->args.corpus, '/');
  clock_iso(now);
  arena_init(&arena, 0);
  int found = store_source_at(job->lab->store, job->source->store_id, &arena, &row, error);
  if (found == 0) error_set(error, ERROR_STORE, "the store has lost source %s", job->info->id);
  row.statistics = (struct store_statistics){.n_tokens = statistics_tokens(job->statistics),
                                             .n_documents = statistics_documents(job->statistics),
                                             .context = context_of(job), .bos_counted = job->info->bos_counts,
                                             .folded = job->info->folded, .lines = job->args.lines,
                                             .logit_convention = job->args.logits ? "raw" : NULL,
                                             .corpus = slash ? slash + 1 : job->args.corpus,
                                             .corpus_hash = corpus_identity(job->corpus), .made_at = now};
  int failed = found > 0 ? store_source_put(job->lab->store, &row, NULL, error) : -1;
  arena_clear(&arena);
  return failed;
}

int stats_job_run(struct lab_running *running, const char *parameters, struct error *error) {
  struct stats_job job = {.running = running, .lab = running->lab};
  int failed = read_parameters(&job, parameters, error) != 0 || open_corpus(&job, error) != 0 ||
               make_statistics(&job, error) != 0 || resume(&job, error) != 0;
  if (!failed && job.phase == PHASE_COUNT) failed = count_corpus(&job, error);
  if (!failed) failed = write_features(&job, error);
  if (!failed) failed = describe_source(&job, error);
  if (job.opened) table_free_decoder(job.lab, job.opened->model, job.decoder);
  statistics_free(job.statistics);
  corpus_close(job.corpus);
  json_free(job.parameters);
  if (job.source) source_unpin(job.lab, job.source);
  return failed ? -1 : 0;
}
