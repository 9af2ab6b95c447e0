/* next.c: the verb "next": what the model expects after a text, likeliest tokens and given answers, as it is and with
 * edits. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/experiment.h"

/* Most rows of a reply, all tables of all texts together. */
#define MOST_ROWS ((size_t)1 << 18)

struct side {
  struct lab_token *top, *answers;
  double loss;
};

struct next {
  struct experiment e;
  int top_k;
  bool loss;
  int32_t *answers;
  size_t n_answers;
  struct side *sides; /* pass by pass: text by text before, and where there are edits after */
  struct lab_next_text *texts;
  struct lab_next_result result;
};

static struct next *next_of(struct experiment *e) { return (struct next *)e; }

/* Passes, and tables, of one text. */
static size_t each_text(const struct next *next) { return next->result.edited ? 2 : 1; }

/* ---- answers ---- */

static int refuse_answer(struct experiment *e, const char *field, const int32_t *ids, size_t n, struct error *error) {
  char cut[200] = "";
  for (size_t i = 0, used = 0; i < n && used < sizeof cut; i++) {
    char *text = lab_token_text(e->model->tokenizer, ids[i], &e->arena, error);
    if (!text) return -1;
    used += (size_t)snprintf(cut + used, sizeof cut - used, "%s'%.40s'", i ? ", " : "", text);
  }
  return error_set_field(error, ERROR_ARGUMENT, field,
                         "%s must be one token, it is %zu: %.200s; prependSpace: false takes it without a space in front", field,
                         n, cut);
}

/* The token that shows as this text, or -1. Tokenizers in SentencePiece's manner put a space in front of every text, so that
 * none comes out as the token that stands for it in the middle of one. The last one counts: bytes that stand for
 * characters come before the pieces. */
static int32_t token_shown_as(const struct tokenizer *tokenizer, const char *text, size_t length) {
  for (int32_t id = tokenizer_size(tokenizer) - 1; length && id >= 0; id--) {
    size_t n;
    const char *bytes = tokenizer_bytes(tokenizer, id, &n);
    if (n == length && memcmp(bytes, text, n) == 0 && !tokenizer_is_special(tokenizer, id)) return id;
  }
  return -1;
}

static int answer_id(struct experiment *e, const struct lab_input *answer, bool space, const char *field, int32_t *out,
                     struct error *error) {
  struct lab_ids ids;
  struct lab_input input = *answer;
  if (!input.ids && space && input.length && input.text[0] != ' ') {
    char *text = arena_printf(&e->arena, error, " %s", input.text);
    if (!text) return -1;
    input.text = text;
    input.length = strlen(text);
  }
  if (lab_input_ids(e->opened, &input, LAB_BOS_NO, 0, field, &e->arena, &ids, error) != 0) return -1;
  *out = ids.n == 1 ? ids.ids[0] : input.ids ? -1 : token_shown_as(e->model->tokenizer, input.text, input.length);
  return *out >= 0 ? 0 : refuse_answer(e, field, ids.ids, ids.n, error);
}

int experiment_answers(struct experiment *e, const struct lab_input *answers, size_t n, bool space, const char *field,
                       int32_t **out, struct error *error) {
  *out = arena_array(&e->arena, n, sizeof **out, error);
  for (size_t i = 0; *out && i < n; i++) {
    char name[64];
    snprintf(name, sizeof name, "%s[%zu]", field, i);
    if (answer_id(e, &answers[i], space, name, &(*out)[i], error) != 0) return -1;
  }
  return *out ? 0 : -1;
}

/* ---- while it runs ---- */

static int on_logits(struct experiment *e, int pass, int32_t position, const float *logits, struct error *error) {
  struct next *next = next_of(e);
  struct side *side = &next->sides[pass];
  const struct lab_ids *text = &e->texts[(size_t)pass / each_text(next)];
  (void)error;
  if ((size_t)position + 1 < text->n) {
    side->loss += (double)experiment_loss(e, logits, text->ids[position + 1]) / (double)(text->n - 1);
    return 0;
  }
  experiment_likeliest(e, logits, next->top_k, side->top);
  for (size_t i = 0; i < next->n_answers; i++) side->answers[i] = experiment_judge(e, logits, next->answers[i]);
  return 0;
}

static int finish_text(struct next *next, size_t t, struct error *error) {
  struct lab_next_text *text = &next->texts[t];
  struct lab_next_table *tables[2] = {&text->before, &text->after};
  for (size_t i = 0; i < each_text(next); i++) {
    struct side *side = &next->sides[t * each_text(next) + i];
    if (experiment_name(&next->e, side->top, (size_t)next->top_k, error) != 0 ||
        experiment_name(&next->e, side->answers, next->n_answers, error) != 0)
      return -1;
    *tables[i] = (struct lab_next_table){side->top, side->answers, next->loss && text->n_tokens > 1 ? side->loss : (double)NAN};
  }
  return 0;
}

static int finish(struct next *next, struct error *error) {
  for (size_t t = 0; t < next->result.n_texts; t++)
    if (finish_text(next, t, error) != 0) return -1;
  return 0;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct next *next = next_of(e);
  size_t each = each_text(next), n = e->n_texts * each;
  if (stage > 0) return finish(next, error);
  struct pass *passes = experiment_passes(e, n, error);
  for (size_t i = 0; passes && i < n; i++) {
    if (experiment_plain(e, &passes[i], i / each, i % each > 0, error) != 0) return -1;
    passes[i].logits = next->loss ? LOGITS_ALL : LOGITS_LAST;
  }
  return passes ? 0 : -1;
}

static const struct experiment_verb verb = {.logits = on_logits, .stage = on_stage};

/* ---- the verb ---- */

static int make_room(struct next *next, struct error *error) {
  struct experiment *e = &next->e;
  size_t tables = e->n_texts * each_text(next), rows = (size_t)next->top_k + next->n_answers;
  if (tables * (rows + 1) > MOST_ROWS)
    return error_set_field(error, ERROR_LIMIT, "topK", "%zu tables of %zu rows are more than %zu rows in all; lower topK, or send "
                           "fewer texts", tables, rows, MOST_ROWS);
  next->sides = arena_array(&e->arena, tables, sizeof *next->sides, error);
  next->texts = arena_array(&e->arena, e->n_texts, sizeof *next->texts, error);
  for (size_t i = 0; next->sides && i < tables; i++) {
    next->sides[i].top = arena_array(&e->arena, (size_t)next->top_k, sizeof *next->sides[i].top, error);
    next->sides[i].answers = arena_array(&e->arena, next->n_answers, sizeof *next->sides[i].answers, error);
    if (!next->sides[i].top || !next->sides[i].answers) return -1;
  }
  return next->sides && next->texts ? 0 : -1;
}

static int prepare(struct next *next, const struct lab_next_args *args, struct error *error) {
  struct experiment *e = &next->e;
  struct lab_next_result *result = &next->result;
  int64_t vocabulary = e->model->arch.vocabulary;
  next->top_k = result->top_k = (int)(args->top_k < vocabulary ? args->top_k : vocabulary);
  next->loss = args->loss;
  next->n_answers = result->n_answers = args->n_answers;
  result->edited = args->n_edits > 0;
  result->n_texts = e->n_texts;
  if (make_room(next, error) != 0) return -1;
  result->texts = next->texts;
  for (size_t t = 0; t < e->n_texts; t++) {
    next->texts[t].ids = e->texts[t].ids;
    next->texts[t].n_tokens = e->texts[t].n;
    if (experiment_tokens(e, &e->texts[t], &next->texts[t].tokens, error) != 0) return -1;
  }
  return 0;
}

int lab_next(struct lab *lab, const struct lab_next_args *args, struct lab_waker waker, struct lab_job **out,
             struct error *error) {
  assert(args->top_k >= 0 && args->top_k <= LAB_TOP_MOST);
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct next), waker, error);
  if (!e) return -1;
  struct next *next = next_of(e);
  if (experiment_texts(e, args->inputs, args->n_inputs, args->bos, args->n_inputs > 1, error) != 0 ||
      experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      experiment_answers(e, args->answers, args->n_answers, args->prepend_space, "answers", &next->answers, error) != 0 ||
      prepare(next, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_next_result *lab_next_result(const struct lab_job *job) { return &((const struct next *)job)->result; }
