/* eval.c: the evaluation job: a dictionary over a text, its figures into the store. Now and then it keeps its sums, from which
 * a killed process goes on. Of a layer of a cross-layer transcoder the layers below it take part, each a source of its own. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/evaluation.h"
#include "core/base/checked.h"
#include "core/base/clock.h"
#include "core/lab/sources.h"
#include "core/lab/caller.h"
#include "core/lab/subject.h"

#define BATCH_DOCUMENTS 64
#define BATCH_ROWS 2048 /* positions whose rows are in memory at a time, unless a document is longer */
#define STATE_PART 0
#define STATE_VERSION 2u

/* The resume state. Behind it, where there are several dictionaries, what they compute (print of each, with its NUL); then the
 * qualities. */
struct saved_head {
  uint32_t version, zero;
  struct subject_identity identity;
  struct evaluation_sums sums;
};

struct eval_job {
  struct lab_subject about;
  bool ends; /* the end of each document is predicted too */
  struct lab_source **layers; /* [n] the source, behind those of the layers below it where it is a layer of a cross-layer transcoder; pinned */
  const struct dict **dicts;  /* [n] */
  struct quality **qualities; /* [n] */
  int n;
  struct evaluation_sums sums;
  int64_t saved_ns;
  struct error error; /* of what was done while the evaluation told how far it is */
};

/* ---- parameters ---- */

static struct lab_subject_args subject_of(const struct lab_eval_args *args) {
  return (struct lab_subject_args){args->model_id, args->source_id, args->corpus, args->lines, args->max_tokens};
}

static int check_ends(bool ends, const struct lab_model *opened, const char *model_id, struct error *error) {
  if (!ends || tokenizer_eos(opened->model->tokenizer) >= 0) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "ends", "model '%s' has no end-of-text token to predict", model_id);
}

/* ---- layers that go together -------------------------------------------------------------------- */

/* The served source of a layer of the same transcoder, the first of several. */
static struct lab_source *find_layer(struct lab *lab, const struct lab_source_info *info, int layer) {
  const struct lab_source_list *list = lab_model_of_source(lab, info)->sources;
  const struct dict *dict = lab_source_of(lab, info)->dict;
  if (dict_info(dict)->in.layer == layer) return lab_source_of(lab, info);
  for (size_t i = 0; i < list->n; i++) {
    struct lab_source *source = lab_source_of(lab, list->items[i]);
    if (dict_info(source->dict)->in.layer == layer && dict_same_transcoder(source->dict, dict)) return source;
  }
  return NULL;
}

/* How many dictionaries are evaluated with a source: itself, and the layers below it that write to the same output. */
static int count_layers(const struct lab *lab, const struct lab_source_info *info) {
  const struct dict_info *d = dict_info(lab_source_of(lab, info)->dict);
  return d->cross ? d->in.layer + 1 : 1;
}

static int check_layers(struct lab *lab, const struct lab_source_info *info, struct error *error) {
  char missing[160] = "";
  size_t used = 0;
  int n = count_layers(lab, info), lacks = 0;
  for (int layer = 0; n > 1 && layer < n; layer++) {
    if (find_layer(lab, info, layer)) continue;
    if (used + 12 < sizeof missing) used += (size_t)snprintf(missing + used, sizeof missing - used, "%s%d", lacks ? ", " : "", layer);
    lacks++;
  }
  if (!lacks) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "source", "source '%s' is layer %d of a cross-layer transcoder, whose reconstructions are sums over the "
                         "layers up to it: serve the sources of its layers %s too (%d of them; --source %s/0-...=PLACE, or POST /v1/sources)",
                         info->id, n - 1, missing, lacks, info->model_id);
}

/* What reads behind what it writes cannot be spliced. */
static int check_whole(struct lab *lab, const struct lab_source_info *info, struct error *error) {
  const struct dict_info *d = dict_info(lab_source_of(lab, info)->dict);
  if (d->kind == DICT_NEURONS)
    return error_set_field(error, ERROR_ARGUMENT, "source", "source '%s' is the neurons of that layer themselves: they leave nothing out, so "
                           "there is nothing to evaluate", info->id);
  if (point_index(d->in) > point_index(d->out))
    return error_set_field(error, ERROR_UNSUPPORTED, "source", "source '%s' writes to a point in front of the one that it reads, where its "
                           "features are not known yet: it cannot be spliced, and so not be evaluated", info->id);
  return check_layers(lab, info, error);
}

/* Under a lease; pins each. */
static int keep_layers(struct eval_job *job, struct error *error) {
  struct lab *lab = job->about.lab;
  struct lab_lease lease;
  lab_lease_begin(lab, &lease);
  int failed = check_whole(lab, job->about.info, error), n = count_layers(lab, job->about.info);
  job->layers = calloc((size_t)n, sizeof *job->layers);
  job->dicts = calloc((size_t)n, sizeof *job->dicts);
  job->qualities = calloc((size_t)n, sizeof *job->qualities);
  if (!failed && (!job->layers || !job->dicts || !job->qualities)) failed = error_memory(error, (size_t)n * sizeof *job->layers);
  for (; !failed && job->n < n; job->n++) {
    struct lab_source *source = n == 1 ? job->about.source : find_layer(lab, job->about.info, job->n);
    job->layers[job->n] = source;
    job->dicts[job->n] = source->dict;
    source_pin(lab, source);
  }
  lab_lease_end(lab, &lease);
  return failed;
}

static void drop_layers(struct eval_job *job) {
  for (int i = 0; i < job->n; i++) {
    quality_free(job->qualities[i]);
    source_unpin(job->about.lab, job->layers[i]);
  }
  free(job->layers);
  free(job->dicts);
  free(job->qualities);
}

static void write_parameters(const void *context, struct json_writer *w) {
  jw_member_bool(w, "ends", ((const struct lab_eval_args *)context)->ends);
}

const char *eval_job_parameters(struct lab *lab, const struct lab_eval_args *args, struct arena *arena,
                                struct error *error) {
  const struct lab_source_info *info;
  struct lab_subject_args subject = subject_of(args);
  if (subject_check(lab, &subject, &info, error) != 0 || check_whole(lab, info, error) != 0 ||
      check_ends(args->ends, lab_model_of_source(lab, info), info->model_id, error) != 0)
    return NULL;
  return subject_write(&subject, info, write_parameters, args, arena, error);
}

/* ---- the resume state ---- */

#define PRINT_BYTES 17

static void report(const struct eval_job *job) {
  job->about.running->report(job->about.running, job->sums.next_document, corpus_documents(job->about.corpus), "documents",
                             "evaluating");
}

/* Only of a job that the store knows. */
static int checkpoint(struct eval_job *job, struct error *error) {
  struct buffer state;
  struct saved_head head;
  if (!job->about.running->id) return 0;
  memset(&head, 0, sizeof head);
  head.version = STATE_VERSION;
  head.sums = job->sums;
  subject_identify(&job->about, &head.identity);
  buffer_init(&state, 0);
  buffer_append(&state, &head, sizeof head);
  for (int i = 0; job->n > 1 && i < job->n; i++) {
    char print[PRINT_BYTES];
    dict_fingerprint(job->dicts[i], print);
    buffer_append(&state, print, sizeof print);
  }
  for (int i = 0; i < job->n; i++) quality_save(job->qualities[i], &state);
  struct store_job_part part = {STATE_PART, state.data, state.length};
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  update.done = job->sums.next_document;
  update.total = corpus_documents(job->about.corpus);
  update.unit = "documents";
  update.message = "evaluating";
  struct store_batch batch = {.source = job->about.source->store_id, .job = job->about.running->id, .update = &update,
                              .parts = &part, .n_parts = 1};
  int failed = buffer_check(&state, error);
  if (!failed) failed = store_batch_put(job->about.lab->store, &batch, error);
  buffer_clear(&state);
  job->saved_ns = clock_ns();
  return failed;
}

static int check_prints(const struct eval_job *job, const char *data, struct error *error) {
  for (int i = 0; i < job->n; i++, data += PRINT_BYTES) {
    char print[PRINT_BYTES];
    dict_fingerprint(job->dicts[i], print);
    if (memcmp(print, data, sizeof print) != 0)
      return error_set(error, ERROR_ARGUMENT, "the dictionary '%s' is another one than when the job began; start a new job", job->layers[i]->id);
  }
  return 0;
}

static int read_qualities(struct eval_job *job, const char *data, size_t bytes, struct error *error) {
  size_t prints = job->n > 1 ? (size_t)job->n * PRINT_BYTES : 0;
  if (bytes < prints) return error_set(error, ERROR_FORMAT, "the job's state is too short to go on from");
  if (prints && check_prints(job, data, error) != 0) return -1;
  data += prints;
  bytes -= prints;
  for (int i = 0; i < job->n; i++) {
    size_t own = i + 1 < job->n ? size_min(bytes, quality_bytes(job->qualities[i])) : bytes;
    if (quality_load(job->qualities[i], data, own, error) != 0) return -1;
    data += own;
    bytes -= own;
  }
  return 0;
}

static int read_state(struct eval_job *job, const void *data, size_t bytes, struct error *error) {
  struct saved_head head;
  if (bytes < sizeof head) return error_set(error, ERROR_FORMAT, "the job's state is too short to go on from");
  memcpy(&head, data, sizeof head);
  if (head.version != STATE_VERSION)
    return error_set(error, ERROR_FORMAT, "the job's state was saved by another version; start a new job");
  if (subject_is(&job->about, &head.identity, error) != 0) return -1;
  if (head.sums.next_document < 0 || head.sums.next_document > corpus_documents(job->about.corpus))
    return error_set(error, ERROR_FORMAT, "the job's state is damaged; start a new job");
  job->sums = head.sums;
  return read_qualities(job, (const char *)data + sizeof head, bytes - sizeof head, error);
}

static int resume(struct eval_job *job, struct error *error) {
  struct arena arena;
  const void *data;
  size_t bytes;
  if (!job->about.running->id) return 0;
  arena_init(&arena, 0);
  int found = store_job_part(job->about.lab->store, job->about.running->id, STATE_PART, &arena, &data, &bytes, error);
  int failed = found > 0 ? read_state(job, data, bytes, error) : found;
  arena_clear(&arena);
  return failed;
}

/* ---- running ---- */

static bool should_stop(void *context) { return subject_stopping(&((const struct eval_job *)context)->about); }

static int on_progress(void *context, int64_t document) {
  struct eval_job *job = context;
  (void)document; /* sums.next_document */
  report(job);
  if (should_stop(job)) return -1; /* and is kept there */
  if (clock_ns() - job->saved_ns < subject_checkpoint_ns(&job->about)) return 0;
  return checkpoint(job, &job->error);
}

/* What was interrupted is kept as far as it came: whole batches. */
static int stopped(struct eval_job *job, struct error *error) {
  if (checkpoint(job, error) != 0) return -1;
  return error_set(error, ERROR_CANCELLED, "stopped at document %lld; it %s", (long long)job->sums.next_document,
                   job->about.running->id ? "can be resumed" : "begins again");
}

static int evaluate(struct eval_job *job, struct error *error) {
  struct error why = ERROR_INIT;
  struct evaluation what = {.engine = job->about.lab->engine, .model = job->about.opened->model,
                            .dicts = job->dicts, .n_dicts = job->n, .corpus = job->about.corpus,
                            .positions = dict_info(job->about.source->dict)->positions, .ends = job->ends,
                            .max_documents = BATCH_DOCUMENTS, .max_rows = BATCH_ROWS / job->n, .progress = on_progress,
                            .stop = should_stop, .context = job};
  job->saved_ns = clock_ns();
  report(job);
  if (evaluation_run(&what, job->qualities, &job->sums, &why) == 0) return 0;
  if (job->error.code) return error_set(error, job->error.code, "%s", job->error.text);
  return should_stop(job) ? stopped(job, error) : error_set(error, why.code, "%s", why.text);
}

static int open_job(struct eval_job *job, struct error *error) {
  if (subject_keep(&job->about, error) != 0 || keep_layers(job, error) != 0 ||
      check_ends(job->ends, job->about.opened, job->about.info->model_id, error) != 0 ||
      subject_open_corpus(&job->about, error) != 0)
    return -1;
  for (int i = 0; i < job->n; i++)
    if (!(job->qualities[i] = quality_new(job->dicts[i], error))) return -1;
  return resume(job, error);
}

/* ---- figures ---- */

static void describe(const struct eval_job *job, struct store_evaluation *out) {
  static const double ends[STORE_SHARES] = {0.1, 0.01, 0.001, 0.0001};
  struct evaluation_result result;
  const struct evaluation_result *r = &result;
  const struct quality *quality = job->qualities[job->n - 1];
  const int64_t *fired = quality_fired(quality);
  evaluation_read(&job->sums, quality, &result);
  *out = (struct store_evaluation){.source = job->about.source->store_id, .corpus = subject_corpus_name(&job->about),
                                   .corpus_hash = corpus_identity(job->about.corpus), .lines = job->about.args.lines,
                                   .ends = job->ends, .n_documents = corpus_documents(job->about.corpus),
                                   .n_tokens = r->quality.rows, .n_features = job->about.info->n_feat, .l0 = r->quality.l0,
                                   .mse = r->quality.mse, .explained = r->quality.explained,
                                   .n_predicted = r->n_predicted, .ce_raw = r->ce[EVALUATE_RAW],
                                   .ce_spliced = r->ce[EVALUATE_SPLICED], .ce_error = r->ce[EVALUATE_ERROR],
                                   .ce_zero = r->ce[EVALUATE_ZERO], .cosine = r->quality.cosine, .l2_ratio = r->quality.l2_ratio,
                                   .bias = r->quality.bias, .kl_spliced = r->kl[EVALUATE_SPLICED], .kl_zero = r->kl[EVALUATE_ZERO]};
  for (int64_t f = 0; f < job->about.info->n_feat; f++) {
    out->n_dead += fired[f] == 0;
    for (int i = 0; i < STORE_SHARES; i++) out->below[i] += (double)fired[f] < ends[i] * (double)r->quality.rows;
  }
}

/* What is known of each layer of a cross-layer transcoder; NULL, with *n 0, of any other dictionary, or with an error. */
static struct lab_eval_layer *describe_layers(const struct eval_job *job, struct arena *arena, size_t *n, struct error *error) {
  *n = dict_info(job->dicts[0])->cross ? (size_t)job->n : 0;
  struct lab_eval_layer *layers = *n ? arena_array(arena, *n, sizeof *layers, error) : NULL;
  for (size_t i = 0; layers && i < *n; i++) {
    struct quality_figures figures;
    const int64_t *fired = quality_fired(job->qualities[i]);
    quality_read(job->qualities[i], &figures);
    layers[i] = (struct lab_eval_layer){.layer = (int)i, .n_features = dict_info(job->dicts[i])->n_feat, .l0 = figures.l0,
                                        .mse = figures.mse, .explained = figures.explained, .cosine = figures.cosine,
                                        .l2_ratio = figures.l2_ratio, .bias = figures.bias};
    layers[i].source_id = arena_text(arena, job->layers[i]->id, strlen(job->layers[i]->id), error);
    for (int64_t f = 0; f < layers[i].n_features; f++) layers[i].n_dead += fired[f] == 0;
    if (!layers[i].source_id) return NULL;
  }
  return layers;
}

static void write_layer(const struct lab_eval_layer *layer, struct json_writer *w) {
  jw_open(w, '{');
  jw_member_int(w, "layer", layer->layer);
  jw_member_text(w, "source", layer->source_id);
  jw_member_f64(w, "l0", layer->l0);
  jw_member_f64(w, "mse", layer->mse);
  jw_member_f64(w, "explainedVariance", layer->explained);
  jw_member_f64(w, "fvu", 1 - layer->explained);
  jw_member_f64(w, "cosine", layer->cosine);
  jw_member_f64(w, "l2Ratio", layer->l2_ratio);
  jw_member_f64(w, "relativeReconstructionBias", layer->bias);
  jw_member_int(w, "dead", layer->n_dead);
  jw_close(w, '}');
}

/* For whoever looks at the job; everything but the layers stands with the source. */
static void write_result(const struct store_evaluation *e, const struct lab_eval_layer *layers, size_t n_layers,
                         struct buffer *out) {
  struct json_writer w;
  double gap = e->ce_zero - e->ce_raw;
  jw_init(&w, out);
  jw_open(&w, '{');
  jw_member_int(&w, "tokens", e->n_tokens);
  jw_member_f64(&w, "l0", e->l0);
  jw_member_f64(&w, "explainedVariance", e->explained);
  jw_member_f64(&w, "raw", e->ce_raw);
  jw_member_f64(&w, "spliced", e->ce_spliced);
  jw_member_f64(&w, "kept", gap != 0 ? (e->ce_zero - e->ce_spliced) / gap : (double)NAN);
  if (n_layers) {
    jw_key(&w, "layers");
    jw_open(&w, '[');
    for (size_t i = 0; i < n_layers; i++) write_layer(&layers[i], &w);
    jw_close(&w, ']');
  }
  jw_close(&w, '}');
}

static int store_job_result(const struct eval_job *job, const struct lab_eval_found *found, struct error *error) {
  const struct store_evaluation *evaluation = &found->evaluation;
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  struct buffer text;
  buffer_init(&text, 0);
  write_result(evaluation, found->layers, found->n_layers, &text);
  update.done = update.total = evaluation->n_documents;
  update.unit = "documents";
  update.message = "evaluated";
  update.result = text.data;
  int failed = buffer_check(&text, error);
  if (!failed) failed = store_job_update(job->about.lab->store, job->about.running->id, &update, error);
  buffer_clear(&text);
  return failed;
}

static int store_result(const struct eval_job *job, const struct lab_eval_found *found, struct error *error) {
  if (!job->about.lab->store) return 0;
  if (store_evaluation_put(job->about.lab->store, &found->evaluation, error) != 0) return -1;
  return job->about.running->id ? store_job_result(job, found, error) : 0;
}

static int copy_texts(struct store_evaluation *evaluation, struct arena *arena, struct error *error) {
  evaluation->corpus = arena_text(arena, evaluation->corpus, strlen(evaluation->corpus), error);
  evaluation->corpus_hash = arena_text(arena, evaluation->corpus_hash, strlen(evaluation->corpus_hash), error);
  return evaluation->corpus && evaluation->corpus_hash ? 0 : -1;
}

static int find(struct eval_job *job, struct arena *arena, struct lab_eval_found *found, struct error *error) {
  describe(job, &found->evaluation);
  found->layers = describe_layers(job, arena, &found->n_layers, error);
  if (found->n_layers && !found->layers) return -1;
  return store_result(job, found, error) != 0 || copy_texts(&found->evaluation, arena, error) != 0 ? -1 : 0;
}

static int run(struct eval_job *job, struct arena *arena, struct lab_eval_found *out, struct error *error) {
  int failed = open_job(job, error) != 0 || evaluate(job, error) != 0 || find(job, arena, out, error) != 0;
  drop_layers(job);
  return failed ? -1 : 0;
}

int eval_job_check(struct lab *lab, const struct store_job *row, struct error *error) {
  struct lab_subject about = {.lab = lab};
  int failed = subject_read(&about, row->parameters, error) != 0 || subject_may_go_on(&about, row, error) != 0;
  if (!failed) failed = check_whole(lab, about.info, error);
  if (!failed)
    failed = check_ends(json_bool_or(json_get(about.parameters, "ends"), false), lab_model_of_source(lab, about.info),
                        about.info->model_id, error);
  subject_close(&about);
  return failed ? -1 : 0;
}

int eval_job_run(struct lab_running *running, const char *parameters, struct error *error) {
  struct eval_job job = {.about = {.running = running, .lab = running->lab}, .error = ERROR_INIT};
  struct lab_eval_found found = {0};
  struct arena arena;
  arena_init(&arena, 0);
  int failed = subject_read(&job.about, parameters, error);
  job.ends = json_bool_or(json_get(job.about.parameters, "ends"), false);
  if (!failed) failed = run(&job, &arena, &found, error);
  arena_clear(&arena);
  if (failed) subject_keep_failure(&job.about, error);
  subject_close(&job.about);
  return failed;
}

/* ---- in the calling thread ---- */

int lab_eval_run(struct lab *lab, const struct lab_eval_args *args,
                 bool (*tell)(void *context, const struct lab_progress *progress), void *context, struct arena *arena,
                 struct lab_eval_found *out, struct error *error) {
  struct lab_caller caller = {.kind = "eval", .tell = tell, .context = context};
  struct lab_running running = caller_running(lab, &caller);
  struct eval_job job = {.about = {.running = &running, .lab = lab, .args = subject_of(args)}, .ends = args->ends,
                         .error = ERROR_INIT};
  int failed = run(&job, arena, out, error);
  subject_close(&job.about);
  return failed;
}
