/* logits.c: the verbs "logit stats" and "enrichment": every feature's row against the whole vocabulary, some features a slice of
 * the engine's background. Moments are kept in the store; enrichment depends on sets that are the request's own. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/lab/tables.h"
#include "core/lab/token_sets.h"

#define SLICE_ROWS 16 /* a slice is a reading of the unembedding and as many sorts: about two decode steps */

struct scan {
  struct lab_job job;
  struct arena arena;
  const struct lab_source *source;
  const struct model *model;
  int64_t vocabulary;
  const uint32_t *features; /* [n] */
  int64_t n, done;
  void (*see)(struct scan *scan, int64_t i, const float *logits); /* of the i-th feature */

  struct lab_moments *moments; /* [n] of logit stats */

  struct named_sets sets;      /* of enrichment */
  struct enrichment_room room;
  float *scores;               /* [sets][n] */
  int top_k;
  enum lab_end end;
  struct lab_enrichment_result result;
};

static void destroy(struct lab_job *job) {
  struct scan *scan = (struct scan *)job;
  token_sets_clear(&scan->sets.sets);
  enrichment_room_clear(&scan->room);
  free(scan->scores);
  arena_clear(&scan->arena);
  job_clear(job);
  free(scan);
}

static int refuse_silent(const struct lab_source_info *source, struct error *error) {
  return error_set_field(error, ERROR_ARGUMENT, "source", "source '%s' writes to %s, which does not reach the logits by itself", source->id,
                         source->point_out);
}

/* All features, or the listed ones. */
static int list_features(struct scan *scan, const int64_t *given, size_t n_given, struct error *error) {
  int64_t n_feat = scan->source->info.n_feat;
  scan->n = n_given ? (int64_t)n_given : n_feat;
  uint32_t *features = arena_array(&scan->arena, (size_t)scan->n, sizeof *features, error);
  if (!features) return -1;
  for (int64_t i = 0; i < scan->n; i++) {
    int64_t index = n_given ? given[i] : i;
    if (index < 0 || index >= n_feat)
      return error_set_field(error, ERROR_ARGUMENT, "features", "features[%lld] is %lld, source '%s' has features 0 to %lld", (long long)i,
                             (long long)index, scan->source->info.id, (long long)n_feat - 1);
    features[i] = (uint32_t)index;
  }
  scan->features = features;
  return 0;
}

static struct scan *scan_new(struct lab *lab, const struct lab_source_info *info, struct lab_waker waker, struct error *error) {
  struct scan *scan = calloc(1, sizeof *scan);
  if (!scan) return error_memory(error, sizeof *scan), NULL;
  job_init(&scan->job, lab, waker, destroy);
  arena_init(&scan->arena, 0);
  scan->source = lab_source_of(lab, info);
  scan->model = lab_model_of_source(lab, info)->model;
  scan->vocabulary = tokenizer_size(scan->model->tokenizer);
  return scan;
}

/* ---- slices (worker) ---- */

static void see_row(void *context, int i, const float *logits) {
  struct scan *scan = context;
  scan->see(scan, scan->done + i, logits);
}

static int scan_slice(void *context, struct plan *plan, struct error *error) {
  struct scan *scan = context;
  int64_t left = scan->n - scan->done;
  int most = plan_max_logit_rows(plan) < SLICE_ROWS ? plan_max_logit_rows(plan) : SLICE_ROWS, n = left < most ? (int)left : most;
  if (tables_each(scan->source->dict, plan, scan->vocabulary, scan->features + scan->done, n, see_row, scan, error) != 0) return -1;
  scan->done += n;
  return scan->done < scan->n;
}

/* ---- moments ---- */

static void see_moments(struct scan *scan, int64_t i, const float *logits) {
  struct logit_moments m;
  logit_moments(logits, scan->vocabulary, &m);
  scan->moments[i] = (struct lab_moments){m.mean, m.std, m.skewness, m.kurtosis};
}

static struct store_moments stored(const struct lab_moments *m) {
  return (struct store_moments){m->mean, m->std, m->skewness, m->kurtosis};
}

/* On the thread between tasks: a write waits for the disk. A store that cannot take it now is no reason to refuse the answer. */
static int keep_moments(struct lab_job *job, struct error *error) {
  struct scan *scan = (struct scan *)job;
  struct error own = ERROR_INIT;
  struct store_moments *rows = arena_array(&scan->arena, (size_t)scan->n, sizeof *rows, error);
  if (!rows) return -1;
  for (int64_t i = 0; i < scan->n; i++) rows[i] = stored(&scan->moments[i]);
  if (store_moments_put(job->lab->store, scan->source->store_id, rows, (size_t)scan->n, &own) != 0)
    log_warn("logit statistics of %s/%s could not be kept: %s", scan->source->model_id, scan->source->id, own.text);
  job_done(job, NULL);
  return 0;
}

static void moments_done(void *context, const struct error *error) {
  struct scan *scan = context;
  if (!error && scan->job.lab->store && scan->source->store_id)
    stager_put(&scan->job, keep_moments);
  else
    job_done(context, error);
}

/* 1: the store has all of them. */
static int read_moments(struct scan *scan, struct error *error) {
  struct store *store = scan->job.lab->store;
  size_t n = (size_t)scan->n, known = 0;
  struct store_moments *rows = arena_array(&scan->arena, n, sizeof *rows, error);
  bool *has = arena_array(&scan->arena, n, sizeof *has, error);
  if (!rows || !has) return -1;
  if (!store || !scan->source->store_id) return 0;
  if (store_moments_list(store, scan->source->store_id, rows, has, n, &known, error) != 0) return -1;
  for (size_t i = 0; i < n; i++)
    scan->moments[i] = (struct lab_moments){rows[i].mean, rows[i].std, rows[i].skewness, rows[i].kurtosis};
  return known == n;
}

int lab_logit_stats(struct lab *lab, const struct lab_source_info *source, struct lab_waker waker, struct lab_job **out,
                    struct error *error) {
  static const struct engine_work work = {.slice = scan_slice, .done = moments_done, .asked = true, .long_one = true};
  if (!source->promotes) return refuse_silent(source, error);
  struct scan *scan = scan_new(lab, source, waker, error);
  if (!scan) return -1;
  scan->see = see_moments;
  int known = list_features(scan, NULL, 0, error);
  if (known == 0) scan->moments = arena_array(&scan->arena, (size_t)scan->n, sizeof *scan->moments, error);
  if (known == 0) known = scan->moments ? read_moments(scan, error) : -1;
  if (known < 0) return destroy(&scan->job), -1;
  if (known)
    job_finish_now(&scan->job);
  else if (job_submit_work(&scan->job, scan->model, &work, error) != 0)
    return -1;
  *out = &scan->job;
  return 0;
}

const struct lab_moments *lab_logit_stats_result(const struct lab_job *job) { return ((const struct scan *)job)->moments; }

/* ---- enrichment ---- */

static void see_sets(struct scan *scan, int64_t i, const float *logits) {
  struct enrichment found[TOKEN_SETS_MOST];
  enrichment_scores(&scan->sets.sets, logits, &scan->room, found);
  for (int s = 0; s < scan->sets.sets.n; s++)
    scan->scores[(int64_t)s * scan->n + i] = (float)(found[s].top ? found[s].score : -found[s].score);
}

/* Before a, where both are in the list. */
static bool ranks_above(const struct lab_enriched *a, const struct lab_enriched *b) {
  float x = fabsf(a->score), y = fabsf(b->score);
  return x != y ? x > y : a->index < b->index;
}

static bool is_wanted(const struct scan *scan, float score) {
  if (isnan(score)) return false;
  return scan->end == LAB_EITHER_END || (scan->end == LAB_TOP_END) == (score >= 0);
}

static int rank_set(struct scan *scan, int s, struct lab_enrichment_set *out, struct error *error) {
  size_t most = (size_t)scan->top_k < (size_t)scan->n ? (size_t)scan->top_k : (size_t)scan->n;
  struct lab_enriched *top = arena_array(&scan->arena, most, sizeof *top, error);
  if (!top) return -1;
  out->scores = scan->scores + (int64_t)s * scan->n;
  for (int64_t i = 0; i < scan->n && most; i++) {
    struct lab_enriched one = {scan->features[i], out->scores[i]};
    if (!is_wanted(scan, one.score) || (out->n_top == most && !ranks_above(&one, &top[most - 1]))) continue;
    size_t at = out->n_top < most ? out->n_top++ : most - 1;
    for (; at > 0 && ranks_above(&one, &top[at - 1]); at--) top[at] = top[at - 1];
    top[at] = one;
  }
  out->top = top;
  return 0;
}

enum { EXAMPLES = 10 };

static int name_set(struct scan *scan, int s, struct lab_enrichment_set *out, struct error *error) {
  const char **examples = arena_array(&scan->arena, EXAMPLES, sizeof *examples, error);
  if (!examples) return -1;
  for (int64_t id = 0; id < scan->vocabulary && out->n_examples < EXAMPLES; id++)
    if (scan->sets.sets.member[id] >> s & 1 &&
        !(examples[out->n_examples++] = lab_token_text(scan->model->tokenizer, (int32_t)id, &scan->arena, error)))
      return -1;
  out->name = scan->sets.name[s];
  out->size = scan->sets.sets.size[s];
  out->examples = examples;
  return 0;
}

static int make_result(struct scan *scan, struct error *error) {
  int n_sets = scan->sets.sets.n;
  struct lab_enrichment_set *sets = arena_array(&scan->arena, (size_t)n_sets, sizeof *sets, error);
  if (!sets) return -1;
  for (int s = 0; s < n_sets; s++)
    if (name_set(scan, s, &sets[s], error) != 0 || rank_set(scan, s, &sets[s], error) != 0) return -1;
  scan->result = (struct lab_enrichment_result){sets, (size_t)n_sets, scan->features, (size_t)scan->n, scan->vocabulary};
  return 0;
}

static void enrichment_done(void *context, const struct error *error) {
  struct error own = ERROR_INIT;
  if (!error && make_result(context, &own) != 0) error = &own;
  job_done(context, error);
}

static int prepare(struct scan *scan, const struct lab_enrichment_args *args, struct error *error) {
  if (list_features(scan, args->features, args->n_features, error) != 0 ||
      named_sets_make(scan->model, &args->sets, &scan->arena, &scan->sets, error) != 0 ||
      enrichment_room_init(&scan->room, scan->vocabulary, error) != 0)
    return -1;
  size_t n = (size_t)scan->sets.sets.n * (size_t)scan->n;
  scan->scores = calloc(n, sizeof *scan->scores);
  scan->top_k = args->top_k;
  scan->end = args->end;
  scan->see = see_sets;
  return scan->scores ? 0 : error_memory(error, n * sizeof *scan->scores);
}

int lab_enrichment(struct lab *lab, const struct lab_enrichment_args *args, struct lab_waker waker, struct lab_job **out,
                   struct error *error) {
  static const struct engine_work work = {.slice = scan_slice, .done = enrichment_done, .asked = true, .long_one = true};
  if (!args->source->promotes) return refuse_silent(args->source, error);
  struct scan *scan = scan_new(lab, args->source, waker, error);
  if (!scan) return -1;
  if (prepare(scan, args, error) != 0) return destroy(&scan->job), -1;
  if (job_submit_work(&scan->job, scan->model, &work, error) != 0) return -1;
  *out = &scan->job;
  return 0;
}

const struct lab_enrichment_result *lab_enrichment_result(const struct lab_job *job) { return &((const struct scan *)job)->result; }
