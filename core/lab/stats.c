/* stats.c: the statistics job: a text through the engine's background into the store, in steps that a killed process
 * resumes from. Three phases: read the text (done again after a restart), count (a checkpoint now and then keeps the
 * accumulators), write the features (each batch with the number of the next one, in one transaction). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/explain.h"
#include "core/analysis/statistics_run.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/lab/subject.h"
#include "core/lab/tables.h"

#define MOST_VALUES ((int64_t)4 << 20)           /* of neurons, in a task: 32 MiB */
#define BATCH 64                                 /* features written in one transaction */
#define HEAD_PART 0                              /* of the resume state; features' parts follow */
#define HEAD_VERSION 2u

enum phase { PHASE_COUNT, PHASE_WRITE };

/* The first part of the resume state; the head of the statistics follows it. */
struct saved_head {
  uint32_t version, phase;
  int64_t next_feature;
  struct subject_identity identity;
};

struct stats_job {
  struct lab_subject about;
  struct lab_stats_args args; /* what `about` does not hold */
  struct statistics *statistics;
  enum phase phase;
  int64_t next_feature, saved_ns;
  struct decoder_parts *decoder;
};

/* ---- parameters ---- */

static struct lab_subject_args subject_of(const struct lab_stats_args *args) {
  return (struct lab_subject_args){args->model_id, args->source_id, args->corpus, args->lines, args->max_tokens};
}

static int check(const struct lab_stats_args *args, struct error *error) {
  if (subject_in_range("nTop", args->n_top, 0, 100, error) != 0 ||
      subject_in_range("nQuantile", args->n_quantile, 0, 10, error) != 0 ||
      subject_in_range("window", args->window, 8, 256, error) != 0)
    return -1;
  return 0;
}

static void write_parameters(const void *context, struct json_writer *w) {
  const struct lab_stats_args *args = context;
  jw_member_int(w, "nTop", args->n_top);
  jw_member_int(w, "nQuantile", args->n_quantile);
  jw_member_int(w, "window", args->window);
  jw_member_bool(w, "logits", args->logits);
  jw_member_bool(w, "neighbours", args->neighbours);
  jw_member_bool(w, "explain", args->explain);
}

const char *stats_job_parameters(struct lab *lab, const struct lab_stats_args *args, struct arena *arena,
                                 struct error *error) {
  const struct lab_source_info *info;
  struct lab_subject_args subject = subject_of(args);
  if (subject_check(lab, &subject, &info, error) != 0 || check(args, error) != 0) return NULL;
  return subject_write(&subject, info, write_parameters, args, arena, error);
}

/* What the text says, and nothing that is loaded. */
static int read_parameters(struct stats_job *job, const char *text, struct error *error) {
  if (subject_read(&job->about, text, error) != 0) return -1;
  const struct json_node *p = job->about.parameters;
  struct lab_stats_args defaults = LAB_STATS_DEFAULTS;
  job->args = (struct lab_stats_args){
      .n_top = (int)json_int_or(json_get(p, "nTop"), defaults.n_top),
      .n_quantile = (int)json_int_or(json_get(p, "nQuantile"), defaults.n_quantile),
      .window = (int)json_int_or(json_get(p, "window"), defaults.window),
      .logits = json_bool_or(json_get(p, "logits"), defaults.logits),
      .neighbours = json_bool_or(json_get(p, "neighbours"), defaults.neighbours),
      .explain = json_bool_or(json_get(p, "explain"), defaults.explain)};
  return check(&job->args, error);
}

int stats_job_check(struct lab *lab, const struct store_job *row, struct error *error) {
  struct stats_job job = {.about = {.lab = lab}};
  int failed = read_parameters(&job, row->parameters, error) != 0 || subject_may_go_on(&job.about, row, error) != 0;
  subject_close(&job.about);
  return failed ? -1 : 0;
}

static bool should_stop(const struct stats_job *job) { return subject_stopping(&job->about); }

static void report(const struct stats_job *job, int64_t done, int64_t total, const char *unit, const char *message) {
  job->about.running->report(job->about.running, done, total, unit, message);
}

static int make_statistics(struct stats_job *job, struct error *error) {
  struct statistics_options options = {.n_feat = job->about.info->n_feat, .n_top = job->args.n_top,
                                       .n_quantile = job->args.n_quantile, .window = job->args.window,
                                       .positions = dict_info(job->about.source->dict)->positions};
  job->statistics = statistics_new(&options, error);
  return job->statistics ? 0 : -1;
}

/* ---- the resume state ---- */

static void write_head(const struct stats_job *job, struct buffer *out) {
  struct saved_head head;
  memset(&head, 0, sizeof head);
  head.version = HEAD_VERSION;
  head.phase = job->phase;
  head.next_feature = job->next_feature;
  subject_identify(&job->about, &head.identity);
  buffer_append(out, &head, sizeof head);
  statistics_save_head(job->statistics, out);
}

static int read_head(struct stats_job *job, const void *data, size_t bytes, struct error *error) {
  struct saved_head head;
  if (bytes < sizeof head) return error_set(error, ERROR_FORMAT, "the job's state is too short to go on from");
  memcpy(&head, data, sizeof head);
  if (head.version != HEAD_VERSION)
    return error_set(error, ERROR_FORMAT, "the job's state was saved by another version; start a new job");
  if (subject_is(&job->about, &head.identity, error) != 0) return -1;
  job->phase = head.phase == PHASE_WRITE ? PHASE_WRITE : PHASE_COUNT;
  job->next_feature = head.next_feature;
  if (head.next_feature < 0 || head.next_feature > job->about.info->n_feat)
    return error_set(error, ERROR_FORMAT, "the job's state is damaged; start a new job");
  return statistics_load_head(job->statistics, (const char *)data + sizeof head, bytes - sizeof head, error);
}

static int resume(struct stats_job *job, struct error *error) {
  struct store *store = job->about.lab->store;
  struct arena arena;
  const void *data;
  size_t bytes;
  arena_init(&arena, 0);
  int found = store_job_part(store, job->about.running->id, HEAD_PART, &arena, &data, &bytes, error), failed = 0;
  if (found > 0) failed = read_head(job, data, bytes, error);
  for (int64_t p = 0; found > 0 && !failed && p < statistics_parts(job->statistics); p++) {
    arena_clear(&arena);
    found = store_job_part(store, job->about.running->id, (int)p + 1, &arena, &data, &bytes, error);
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
  update.total = corpus_documents(job->about.corpus);
  update.unit = "documents";
  update.message = "counting";
  struct store_batch batch = {.source = job->about.source->store_id, .job = job->about.running->id, .update = &update,
                              .parts = parts, .n_parts = n};
  if (!failed) failed = store_batch_put(job->about.lab->store, &batch, error);
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
  report(job, document, corpus_documents(job->about.corpus), "documents", "counting");
  bool stop = should_stop(job);
  if (!stop && clock_ns() - job->saved_ns < subject_checkpoint_ns(&job->about)) return 0;
  if (checkpoint(job, &counting->error) != 0) return -1;
  if (stop) error_set(&counting->error, ERROR_CANCELLED, "stopped at document %lld; it can be resumed", (long long)document);
  return stop ? -1 : 0;
}

/* Of a task: every neuron has a value at every token, and those of a task are kept until they are counted. */
static int rows_of_task(const struct stats_job *job) {
  const struct dict_info *info = dict_info(job->about.source->dict);
  int64_t most = job->about.lab->options.max_step_rows, fit = MOST_VALUES / info->n_feat;
  return info->kind == DICT_NEURONS && fit < most ? (int)(fit > 1 ? fit : 1) : (int)most;
}

static int count_corpus(struct stats_job *job, struct error *error) {
  struct counting counting = {job, ERROR_INIT};
  int sessions = job->about.lab->options.max_sessions / 2;
  struct statistics_run run = {.engine = job->about.lab->engine, .model = job->about.opened->model, .dict = job->about.source->dict,
                               .corpus = job->about.corpus, .statistics = job->statistics,
                               .max_sequences = sessions > 0 ? sessions : 1,
                               .max_rows = rows_of_task(job), .progress = on_progress,
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
           job->about.info->model_id, job->about.info->id, (long long)statistics_tokens(job->statistics), seconds,
           seconds > 0 ? 100 * run.upkeep_seconds / seconds : 0);
  if (failed) return -1;
  job->phase = PHASE_WRITE;
  return checkpoint(job, error);
}

/* ---- writing features ---- */

static int example_row(const struct stats_job *job, const struct statistics_example *example, struct arena *arena,
                       struct store_example *out, struct error *error) {
  int32_t length = corpus_length(job->about.corpus, example->document);
  int32_t *ids = arena_array(arena, (size_t)length, sizeof *ids, error);
  struct store_text *tokens = arena_array(arena, (size_t)example->length, sizeof *tokens, error);
  float *values = arena_array(arena, (size_t)example->length, sizeof *values, error);
  if (!ids || !tokens || !values) return -1;
  corpus_ids(job->about.corpus, example->document, ids);
  for (int32_t i = 0; i < example->length; i++) {
    tokens[i].text = lab_token_text(job->about.opened->model->tokenizer, ids[example->start + i], arena, error);
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
  *out = (struct store_explanation){.source = job->about.source->store_id, .index = feature->index,
                                    .origin = STORE_AUTOMATIC, .description = description, .type = EXPLAIN_TYPE,
                                    .model_name = EXPLAIN_MODEL, .score = (double)__builtin_nanf("")};
  return description ? 0 : -1;
}

/* Across layers a decoder is gigabytes: who wants its neighbours asks for them (lab_cossim). */
static bool wants_neighbours(const struct stats_job *job) {
  return job->args.neighbours && !dict_info(job->about.source->dict)->cross;
}

/* Features [first, first + n) as rows of the store, all in the arena. */
static int make_rows(struct stats_job *job, int64_t first, int n, struct arena *arena, struct store_feature *features,
                     struct store_explanation *explanations, struct error *error) {
  struct table_row *rows = arena_array(arena, (size_t)n, sizeof *rows, error);
  struct table_work work = {.lab = job->about.lab, .source = job->about.source, .model = job->about.opened->model, .first = first,
                            .n = n, .logits = job->args.logits, .neighbours = wants_neighbours(job), .rows = rows,
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
  update.total = job->about.info->n_feat;
  update.unit = "features";
  update.message = "writing features";
  struct store_batch batch = {.source = job->about.source->store_id, .features = features, .n_features = (size_t)n,
                              .explanations = explanations, .n_explanations = job->args.explain ? (size_t)n : 0,
                              .job = job->about.running->id, .update = &update, .parts = &part, .n_parts = 1};
  if (!failed) failed = buffer_check(&head, error);
  if (!failed) failed = store_batch_put(job->about.lab->store, &batch, error);
  buffer_clear(&head);
  arena_clear(&arena);
  return failed;
}

static int write_features(struct stats_job *job, struct error *error) {
  int64_t all = job->about.info->n_feat;
  while (job->next_feature < all) {
    report(job, job->next_feature, all, "features", "writing features");
    if (should_stop(job))
      return error_set(error, ERROR_CANCELLED, "stopped at feature %lld; it can be resumed", (long long)job->next_feature);
    int64_t left = all - job->next_feature;
    if (write_batch(job, job->next_feature, left < BATCH ? (int)left : BATCH, error) != 0) return -1;
  }
  report(job, all, all, "features", "writing features");
  return 0;
}

/* What the numbers mean goes to the source, last: statistics without it are unfinished. */
static int describe_source(struct stats_job *job, struct error *error) {
  struct arena arena;
  struct store_source row;
  char now[25];
  clock_iso(now);
  arena_init(&arena, 0);
  int found = store_source_at(job->about.lab->store, job->about.source->store_id, &arena, &row, error);
  if (found == 0) error_set(error, ERROR_STORE, "the store has lost source %s", job->about.info->id);
  row.statistics = (struct store_statistics){.n_tokens = statistics_tokens(job->statistics),
                                             .n_documents = statistics_documents(job->statistics),
                                             .context = subject_context(&job->about), .bos_counted = job->about.info->bos_counts,
                                             .folded = job->about.info->folded, .lines = job->about.args.lines,
                                             .logit_convention = job->args.logits && job->about.info->promotes ? "raw" : NULL,
                                             .corpus = subject_corpus_name(&job->about),
                                             .corpus_hash = corpus_identity(job->about.corpus), .made_at = now};
  int failed = found > 0 ? store_source_put(job->about.lab->store, &row, NULL, error) : -1;
  arena_clear(&arena);
  return failed;
}

int stats_job_run(struct lab_running *running, const char *parameters, struct error *error) {
  struct stats_job job = {.about = {.running = running, .lab = running->lab}};
  int failed = read_parameters(&job, parameters, error) != 0 || subject_keep(&job.about, error) != 0 ||
               subject_open_corpus(&job.about, error) != 0 || make_statistics(&job, error) != 0 || resume(&job, error) != 0;
  if (!failed && job.phase == PHASE_COUNT) failed = count_corpus(&job, error);
  if (!failed) failed = write_features(&job, error);
  if (!failed) failed = describe_source(&job, error);
  if (failed) subject_keep_failure(&job.about, error);
  if (job.about.opened) table_free_decoder(job.about.lab, job.about.opened->model, job.decoder);
  statistics_free(job.statistics);
  subject_close(&job.about);
  return failed ? -1 : 0;
}
