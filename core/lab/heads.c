/* heads.c: the verb "heads": what attention heads look at, scored on random tokens that repeat, where nothing but the
 * repetition can be known. */
#include <stdlib.h>

#include "core/base/random.h"
#include "core/lab/experiment.h"
#include "core/model/point_shape.h"

enum score { INDUCTION, PREVIOUS, DUPLICATE, SCORES };

struct heads {
  struct experiment e;
  struct lab_heads_args args;
  struct point *taps;
  double *parts;           /* [n_texts][SCORES][n_layer][n_head]: summed text by text at the end, because texts come in any order */
  float *text_losses;      /* [n_texts][n_losses] */
  double *scores[SCORES];  /* [n_layer][n_head] */
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

static size_t cells_of(const struct heads *heads) { return (size_t)heads->result.n_layer * (size_t)heads->result.n_head; }

static double *part_of(struct heads *heads, size_t text, enum score score) {
  return heads->parts + (text * SCORES + (size_t)score) * cells_of(heads);
}

/* BOS, where there is one, neither looks nor is looked at. */
static void score_row(struct heads *heads, size_t text, int layer, int64_t position, const float *row, int64_t keys) {
  int n_head = heads->result.n_head;
  for (enum score s = 0; s < SCORES; s++) {
    int64_t key = position - distance(heads, s);
    if (key < heads->args.prepend_bos) continue;
    for (int h = 0; h < n_head; h++) part_of(heads, text, s)[layer * n_head + h] += (double)row[h * keys + key];
  }
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct heads *heads = heads_of(e);
  int64_t keys = tapped->width / heads->result.n_head;
  if (read_rows(heads, tapped, error) != 0) return -1;
  for (int32_t i = 0; i < tapped->n_rows; i++)
    score_row(heads, (size_t)pass, heads->taps[tapped->tap].layer, tapped->position + i, heads->rows + i * tapped->width, keys);
  return 0;
}

static int on_logits(struct experiment *e, int pass, int32_t position, const float *logits, struct error *error) {
  struct heads *heads = heads_of(e);
  const struct lab_ids *ids = &e->texts[pass];
  (void)error;
  if ((size_t)position + 1 < ids->n)
    heads->text_losses[(size_t)pass * heads->result.n_losses + (size_t)position] =
        experiment_loss(e, logits, ids->ids[position + 1]);
  return 0;
}

static void finish(struct heads *heads) {
  size_t n_texts = heads->e.n_texts, n_losses = heads->result.n_losses;
  for (enum score s = 0; s < SCORES; s++) {
    int64_t each = (int64_t)heads->result.n_tokens - heads->args.prepend_bos - distance(heads, s); /* tokens that look */
    for (size_t i = 0; i < cells_of(heads); i++) {
      for (size_t t = 0; t < n_texts; t++) heads->scores[s][i] += part_of(heads, t, s)[i];
      heads->scores[s][i] /= (double)each * (double)n_texts;
    }
  }
  for (size_t i = 0; heads->args.loss && i < n_losses; i++)
    for (size_t t = 0; t < n_texts; t++)
      heads->losses[i] += (double)heads->text_losses[t * n_losses + i] / (double)n_texts;
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

static int check_size(const struct heads *heads, struct error *error) {
  const struct lab_heads_args *args = &heads->args;
  const struct model *model = heads->e.model;
  int64_t tokens = args->prepend_bos + 2 * (int64_t)args->length;
  if (args->prepend_bos && tokenizer_bos(model->tokenizer) < 0)
    return error_set_field(error, ERROR_ARGUMENT, "prependBos", "this model has no BOS token");
  if (tokens > model->arch.n_ctx)
    return error_set_field(error, ERROR_LIMIT, "length", "%d tokens twice are more than the model's context of %lld", args->length,
                           (long long)model->arch.n_ctx);
  if (args->batch * tokens > LABORATORY_MAX_ROWS)
    return error_set_field(error, ERROR_LIMIT, "batch", "%d sequences of %lld tokens are more than the %lld token positions that a "
                           "request may compute; ask for fewer", args->batch, (long long)tokens, (long long)LABORATORY_MAX_ROWS);
  return 0;
}

static int make_room(struct heads *heads, struct error *error) {
  struct arena *arena = &heads->e.arena;
  size_t n_layer = (size_t)heads->result.n_layer, n_texts = (size_t)heads->args.batch, n_losses = heads->result.n_losses;
  heads->taps = arena_array(arena, n_layer, sizeof *heads->taps, error);
  heads->parts = arena_array(arena, n_texts * SCORES * cells_of(heads), sizeof *heads->parts, error);
  heads->losses = arena_array(arena, n_losses, sizeof *heads->losses, error);
  heads->text_losses = arena_array(arena, heads->args.loss ? n_texts * n_losses : 0, sizeof *heads->text_losses, error);
  if (!heads->taps || !heads->parts || !heads->losses || !heads->text_losses) return -1;
  for (size_t l = 0; l < n_layer; l++) heads->taps[l] = (struct point){(int)l, SITE_PATTERN};
  for (enum score s = 0; s < SCORES; s++)
    if (!(heads->scores[s] = arena_array(arena, cells_of(heads), sizeof *heads->scores[s], error))) return -1;
  return 0;
}

static int prepare(struct heads *heads, const struct lab_heads_args *args, struct error *error) {
  heads->args = *args;
  heads->result.n_layer = heads->e.model->arch.n_layer;
  heads->result.n_head = heads->e.model->arch.n_head;
  heads->result.n_losses = (size_t)args->prepend_bos + 2 * (size_t)args->length - 1;
  if (check_size(heads, error) != 0 || make_room(heads, error) != 0) return -1;
  heads->result.induction = heads->scores[INDUCTION];
  heads->result.previous = heads->scores[PREVIOUS];
  heads->result.duplicate = heads->scores[DUPLICATE];
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
