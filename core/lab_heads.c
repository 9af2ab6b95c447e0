/* lab_heads.c: the verb "heads": what attention heads look at, scored on random tokens that repeat, where nothing but the
 * repetition can be known. */
#include <stdlib.h>

#include "core/base/random.h"
#include "core/lab_experiment.h"
#include "core/model/point_shape.h"

enum score { INDUCTION, PREVIOUS, DUPLICATE, SCORES };

struct heads {
  struct experiment e;
  struct lab_heads_args args;
  struct point *taps;
  double *sum[SCORES];     /* [n_layer][n_head] */
  int64_t count[SCORES];   /* tokens over which layer 0 was summed; the same for all */
  double *losses;
  float *rows;             /* scratch: a chunk of one tap */
  size_t capacity;
  struct lab_heads_result result;
};

static struct heads *heads_of(struct experiment *e) { return (struct heads *)e; }
static void clear(struct experiment *e) { free(heads_of(e)->rows); }

/* How far back a token looks for a score. */
static int64_t distance(const struct heads *heads, enum score score) {
  return score == PREVIOUS ? 1 : heads->args.length - (score == INDUCTION);
}

static int read_rows(struct heads *heads, const struct engine_tapped *tapped, struct error *error) {
  size_t floats = (size_t)tapped->n_rows * (size_t)tapped->width;
  if (floats > heads->capacity) {
    float *bigger = realloc(heads->rows, floats * sizeof *bigger);
    if (!bigger) return error_memory(error, floats * sizeof *bigger);
    heads->rows = bigger;
    heads->capacity = floats;
  }
  return tapped->backend->ops->read(tapped->backend, heads->rows, tapped->rows.at, floats * sizeof *heads->rows, error);
}

/* BOS, where there is one, neither looks nor is looked at. */
static void score_row(struct heads *heads, int layer, int64_t position, const float *row, int64_t keys) {
  int n_head = heads->result.n_head;
  for (int s = 0; s < SCORES; s++) {
    int64_t key = position - distance(heads, (enum score)s);
    if (key < heads->args.prepend_bos) continue;
    for (int h = 0; h < n_head; h++) heads->sum[s][layer * n_head + h] += (double)row[h * keys + key];
    heads->count[s] += layer == 0;
  }
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct heads *heads = heads_of(e);
  int64_t keys = tapped->width / heads->result.n_head;
  (void)pass;
  if (read_rows(heads, tapped, error) != 0) return -1;
  for (int32_t i = 0; i < tapped->n_rows; i++)
    score_row(heads, heads->taps[tapped->tap].layer, tapped->position + i, heads->rows + i * tapped->width, keys);
  return 0;
}

static int on_logits(struct experiment *e, int pass, int32_t position, const float *logits, struct error *error) {
  struct heads *heads = heads_of(e);
  const struct lab_ids *ids = &e->texts[pass];
  (void)error;
  if ((size_t)position + 1 < ids->n)
    heads->losses[position] += (double)experiment_loss(e, logits, ids->ids[position + 1]) / heads->args.batch;
  return 0;
}

static void finish(struct heads *heads) {
  for (int s = 0; s < SCORES; s++)
    for (int i = 0; i < heads->result.n_layer * heads->result.n_head; i++)
      if (heads->count[s]) heads->sum[s][i] /= (double)heads->count[s];
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct heads *heads = heads_of(e);
  if (stage > 0) finish(heads);
  if (stage > 0) return 0;
  struct pass *passes = experiment_passes(e, e->n_texts, error);
  for (size_t t = 0; passes && t < e->n_texts; t++) {
    if (experiment_plain(e, &passes[t], t, false, error) != 0) return -1;
    passes[t].taps = heads->taps;
    passes[t].n_taps = heads->result.n_layer;
    passes[t].logits = heads->args.loss ? LOGITS_ALL : LOGITS_NONE;
  }
  return passes ? 0 : -1;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .logits = on_logits, .stage = on_stage, .clear = clear};

/* ---- the verb ---- */

/* Any token but a special one, each as likely as the other. */
static int32_t random_token(const struct heads *heads, int sequence, int i) {
  const struct model *model = heads->e.model;
  uint32_t words[4];
  for (uint32_t attempt = 0; attempt < 64; attempt++) {
    random_words((uint64_t)heads->args.seed, (uint64_t)sequence, (uint64_t)i * 64 + attempt, words);
    int32_t id = (int32_t)(words[0] % (uint32_t)model->arch.vocabulary);
    if (!tokenizer_is_special(model->tokenizer, id)) return id;
  }
  return 0; /* nearly all tokens are special */
}

static int make_texts(struct heads *heads, struct error *error) {
  struct experiment *e = &heads->e;
  size_t bos = heads->args.prepend_bos, length = (size_t)heads->args.length;
  e->n_texts = (size_t)heads->args.batch;
  e->texts = arena_array(&e->arena, e->n_texts, sizeof *e->texts, error);
  const int32_t **all = arena_array(&e->arena, e->n_texts, sizeof *all, error);
  if (!e->texts || !all) return -1;
  for (size_t t = 0; t < e->n_texts; t++) {
    struct lab_ids *ids = &e->texts[t];
    ids->n = bos + 2 * length;
    ids->ids = arena_array(&e->arena, ids->n, sizeof *ids->ids, error);
    if (!ids->ids) return -1;
    if (bos) ids->ids[0] = tokenizer_bos(e->model->tokenizer);
    for (size_t i = 0; i < length; i++)
      ids->ids[bos + i] = ids->ids[bos + length + i] = random_token(heads, (int)t, (int)i);
    e->job.prompt_tokens += (int64_t)ids->n;
    all[t] = ids->ids;
  }
  heads->result.ids = all;
  heads->result.n_texts = e->n_texts;
  heads->result.n_tokens = bos + 2 * length;
  return 0;
}

static int prepare(struct heads *heads, const struct lab_heads_args *args, struct error *error) {
  struct experiment *e = &heads->e;
  const struct arch *arch = &e->model->arch;
  size_t cells = (size_t)arch->n_layer * (size_t)arch->n_head;
  heads->args = *args;
  heads->result.n_layer = arch->n_layer;
  heads->result.n_head = arch->n_head;
  if (args->prepend_bos && tokenizer_bos(e->model->tokenizer) < 0)
    return error_set_field(error, ERROR_ARGUMENT, "prependBos", "this model has no BOS token");
  if (args->prepend_bos + 2 * (int64_t)args->length > arch->n_ctx)
    return error_set_field(error, ERROR_LIMIT, "length", "%d tokens twice are more than the model's context of %lld", args->length,
                           (long long)arch->n_ctx);
  heads->taps = arena_array(&e->arena, (size_t)arch->n_layer, sizeof *heads->taps, error);
  for (int l = 0; heads->taps && l < arch->n_layer; l++) heads->taps[l] = (struct point){l, SITE_PATTERN};
  for (int s = 0; s < SCORES; s++)
    if (!(heads->sum[s] = arena_array(&e->arena, cells, sizeof *heads->sum[s], error))) return -1;
  heads->result.n_losses = (size_t)args->prepend_bos + 2 * (size_t)args->length - 1;
  heads->losses = arena_array(&e->arena, heads->result.n_losses, sizeof *heads->losses, error);
  if (!heads->taps || !heads->losses) return -1;
  heads->result.induction = heads->sum[INDUCTION];
  heads->result.previous = heads->sum[PREVIOUS];
  heads->result.duplicate = heads->sum[DUPLICATE];
  heads->result.losses = args->loss ? heads->losses : NULL;
  return make_texts(heads, error);
}

int lab_heads(struct lab *lab, const struct lab_heads_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct heads), waker, error);
  if (!e) return -1;
  if (prepare(heads_of(e), args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_heads_result *lab_heads_result(const struct lab_job *job) { return &((const struct heads *)job)->result; }
