/* lens.c: the verb "lens": what each layer would predict: its residual stream through the final norm and the
 * unembedding. The rows are tapped in one pass, behind one that generates where that is asked for; the unembedding is work between
 * steps, a few rows at a time. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/unicode.h"
#include "core/base/utf8.h"
#include "core/lab/experiment.h"
#include "core/model/pattern.h"

enum word { WORD_UNKNOWN, WORD_YES, WORD_NO };

struct lens {
  struct experiment e;
  struct lab_lens_args args;    /* numbers only */
  int32_t room;                 /* tokens to generate; 0: none */
  size_t n_prompt;              /* of the text that is continued */
  struct pattern *pattern;      /* of words; NULL: all tokens are shown */
  unsigned char *words;         /* [vocabulary] enum word */
  struct point *taps;
  float *rows;              /* text by text: [n_layers][n_positions][d_model] */
  size_t *first;            /* [n_texts + 1] number of a text's first row */
  int32_t *answers;
  size_t next;              /* row that the next slice begins with */
  struct lab_token *top, *judged; /* [rows][top_k], [rows][n_answers] */
  struct lab_lens_text *texts;
  struct lab_lens_result result;
};

/* Most rows of a reply. */
#define MOST_CELLS ((size_t)1 << 18)

static struct lens *lens_of(struct experiment *e) { return (struct lens *)e; }
static void clear(struct experiment *e) {
  struct lens *lens = lens_of(e);
  free(lens->rows);
  free(lens->words);
  pattern_free(lens->pattern);
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct lens *lens = lens_of(e);
  const struct lab_lens_text *text = &lens->texts[pass];
  size_t width = (size_t)tapped->width;
  for (size_t k = 0; k < text->n_positions; k++) {
    int64_t i = text->positions[k] - tapped->position;
    if (i < 0 || i >= tapped->n_rows) continue;
    struct span at = span_at(tapped->rows.at, (size_t)i * (size_t)tapped->rows.ld * sizeof(float));
    float *to = lens->rows + (lens->first[pass] + (size_t)tapped->tap * text->n_positions + k) * width;
    if (tapped->backend->ops->read(tapped->backend, to, at, width * sizeof *to, error) != 0) return -1;
  }
  return 0;
}

/* ---- words ---- */

static int open_words(struct lens *lens, struct error *error) {
  size_t n = (size_t)lens->e.model->arch.vocabulary;
  lens->pattern = pattern_open("[\\p{L}\\p{N}]+(?:['\xE2\x80\x99-]+[\\p{L}\\p{N}]+)*(?!\\S)(?!\\s)", error);
  if (!lens->pattern) return -1;
  lens->words = calloc(n, sizeof *lens->words);
  return lens->words ? 0 : error_memory(error, n);
}

static bool is_word(struct lens *lens, int32_t id) {
  if (lens->words[id] == WORD_UNKNOWN) {
    size_t length;
    const char *text = tokenizer_bytes(lens->e.model->tokenizer, id, &length);
    size_t front = unicode_space_prefix(text, length);
    length -= front + unicode_space_suffix(text + front, length - front);
    bool word = length && utf8_valid(text + front, length, NULL) && pattern_begins(lens->pattern, text + front, length);
    lens->words[id] = word ? WORD_YES : WORD_NO;
  }
  return lens->words[id] == WORD_YES;
}

/* The likeliest words among the `most` likeliest tokens; `first`: that token comes in any case. How many there are. */
static int find_words(struct lens *lens, const float *logits, int most, bool first, struct lab_token *out) {
  struct lab_token likely[LAB_TOP_MOST];
  int n = experiment_likeliest(&lens->e, logits, most, likely), found = 0;
  for (int i = 0; i < n && found < lens->result.top_k; i++)
    if ((i == 0 && first) || is_word(lens, likely[i].id)) out[found++] = likely[i];
  return found;
}

static void judge_words(struct lens *lens, const float *logits, bool first, struct lab_token *out) {
  int k = lens->result.top_k, most = 4 * k + 32;
  int n = most < LAB_TOP_MOST ? find_words(lens, logits, most, first, out) : 0;
  if (n < k) n = find_words(lens, logits, LAB_TOP_MOST, first, out);
  for (; n < k; n++) out[n] = (struct lab_token){.id = -1};
}

/* Whether a row is of the end of the last layer. */
static bool is_last(const struct lens *lens, size_t row) {
  size_t t = 0;
  while (lens->first[t + 1] <= row) t++;
  size_t layer = (row - lens->first[t]) / lens->texts[t].n_positions;
  return lens->result.layers[layer] == lens->e.model->arch.n_layer;
}

static void judge(struct lens *lens, size_t row, const float *logits) {
  size_t k = (size_t)lens->result.top_k, answers = lens->result.n_answers;
  if (lens->pattern)
    judge_words(lens, logits, is_last(lens, row), lens->top + row * k);
  else
    experiment_likeliest(&lens->e, logits, (int)k, lens->top + row * k);
  for (size_t i = 0; i < answers; i++)
    lens->judged[row * answers + i] = experiment_judge(&lens->e, logits, lens->answers[i]);
}

static size_t all_rows(const struct lens *lens) { return lens->first[lens->result.n_texts]; }

static int on_slice(struct experiment *e, struct plan *plan, struct error *error) {
  struct lens *lens = lens_of(e);
  size_t width = (size_t)e->model->arch.d_model, all = all_rows(lens);
  size_t most = (size_t)plan_max_logit_rows(plan), n = all - lens->next;
  struct backend *backend = plan_backend(plan);
  if (most > 16) most = 16; /* about as long as two decode steps */
  if (n > most) n = most;
  if (n && plan_lens(plan, lens->rows + lens->next * width, (int32_t)n, error) != 0) return -1;
  struct rows logits = plan_logits(plan);
  for (size_t i = 0; i < n; i++) {
    struct span at = span_at(logits.at, i * (size_t)logits.ld * sizeof(float));
    if (backend->ops->read(backend, e->logits, at, (size_t)e->model->arch.vocabulary * sizeof(float), error) != 0) return -1;
    judge(lens, lens->next + i, e->logits);
  }
  lens->next += n;
  return lens->next < all;
}

static int name_top(struct lens *lens, struct error *error) {
  for (size_t i = 0; i < all_rows(lens) * (size_t)lens->result.top_k; i++)
    if (lens->top[i].id >= 0 && experiment_name(&lens->e, &lens->top[i], 1, error) != 0) return -1;
  return experiment_name(&lens->e, lens->judged, all_rows(lens) * lens->result.n_answers, error);
}

/* ---- the stages ---- */

/* What comes behind the prompt goes to its ids, which have room for it. */
static bool on_token(struct experiment *e, int pass, int32_t token) {
  if (token == lens_of(e)->args.ends_turn) return false;
  e->texts[pass].ids[e->texts[pass].n++] = token;
  return true;
}

static int generate(struct lens *lens, struct error *error) {
  struct experiment *e = &lens->e;
  struct pass *pass = experiment_passes(e, 1, error);
  if (!pass || experiment_plain(e, pass, 0, false, error) != 0) return -1;
  pass->max_new = lens->room;
  pass->sampling = (struct sampler_options){.temperature = lens->args.temperature, .top_p = 1, .seed = lens->args.seed};
  return 0;
}

static int take_texts(struct lens *lens, const struct lab_lens_args *args, struct error *error);
static int make_room(struct lens *lens, struct error *error);

static int look(struct lens *lens, struct error *error) {
  struct experiment *e = &lens->e;
  if (lens->room && (take_texts(lens, &lens->args, error) != 0 || make_room(lens, error) != 0)) return -1;
  struct pass *passes = experiment_passes(e, e->n_texts, error);
  for (size_t t = 0; passes && t < e->n_texts; t++) {
    if (experiment_plain(e, &passes[t], t, true, error) != 0) return -1;
    passes[t].taps = lens->taps;
    passes[t].n_taps = (int)lens->result.n_layers;
  }
  return passes ? 0 : -1;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct lens *lens = lens_of(e);
  if (lens->room && stage-- == 0) return generate(lens, error);
  if (stage == 0) return look(lens, error);
  if (stage > 1) return name_top(lens, error);
  e->work = true;
  return 0;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .token = on_token, .stage = on_stage, .slice = on_slice, .clear = clear};

/* ---- the verb ---- */

static int take_layers(struct lens *lens, const struct lab_lens_args *args, struct error *error) {
  int32_t n_layer = lens->e.model->arch.n_layer;
  struct lab_lens_result *result = &lens->result;
  int64_t *layers;
  if (experiment_numbers(&lens->e, args->layers, args->n_layers, n_layer + 1, "layers", &layers, &result->n_layers, error) != 0)
    return -1;
  result->layers = layers;
  lens->taps = arena_array(&lens->e.arena, result->n_layers, sizeof *lens->taps, error);
  for (size_t l = 0; lens->taps && l < result->n_layers; l++)
    lens->taps[l] = layers[l] < n_layer ? (struct point){(int)layers[l], SITE_RESID_PRE}
                                        : (struct point){n_layer - 1, SITE_RESID_POST};
  return lens->taps ? 0 : -1;
}

static int take_text(struct lens *lens, const struct lab_lens_args *args, size_t t, struct error *error) {
  struct experiment *e = &lens->e;
  struct lab_lens_text *text = &lens->texts[t];
  int64_t *positions;
  if (experiment_positions(e, args->positions, args->n_positions, e->texts[t].n, &positions, &text->n_positions, error) != 0 ||
      experiment_tokens(e, &e->texts[t], &text->tokens, error) != 0)
    return -1;
  text->ids = e->texts[t].ids;
  text->n_tokens = e->texts[t].n;
  text->n_prompt = lens->room ? lens->n_prompt : text->n_tokens;
  text->positions = positions;
  text->completion = lab_tokens_text(e->model->tokenizer, text->ids + text->n_prompt, text->n_tokens - text->n_prompt, &e->arena, error);
  if (!text->completion ||
      lab_token_texts(e->model->tokenizer, text->ids, text->n_tokens, &e->arena, &text->shown, &text->continued, error) != 0)
    return -1;
  lens->first[t + 1] = lens->first[t] + lens->result.n_layers * text->n_positions;
  return 0;
}

static int take_texts(struct lens *lens, const struct lab_lens_args *args, struct error *error) {
  for (size_t t = 0; t < lens->result.n_texts; t++)
    if (take_text(lens, args, t, error) != 0) return -1;
  return 0;
}

static int check_cells(const struct lens *lens, size_t all, struct error *error) {
  const struct lab_lens_result *result = &lens->result;
  size_t each = (size_t)result->top_k + result->n_answers, floats = all * (size_t)lens->e.model->arch.d_model;
  if (all * (each + 1) > MOST_CELLS)
    return error_set_field(error, ERROR_LIMIT, "positions", "%zu layers at the positions of %zu texts are %zu cells with %zu rows each, "
                           "more than %zu in all; name fewer", result->n_layers, result->n_texts, all, each, MOST_CELLS);
  if (floats <= (size_t)LABORATORY_MAX_BYTES / sizeof *lens->rows) return 0;
  return error_set_field(error, ERROR_LIMIT, "positions", "the residual streams of %zu cells take more than %lld MiB; name fewer "
                         "layers or positions", all, (long long)(LABORATORY_MAX_BYTES >> 20));
}

static int make_room(struct lens *lens, struct error *error) {
  struct lab_lens_result *result = &lens->result;
  size_t all = all_rows(lens), floats = all * (size_t)lens->e.model->arch.d_model;
  if (check_cells(lens, all, error) != 0) return -1;
  lens->top = arena_array(&lens->e.arena, all * (size_t)result->top_k, sizeof *lens->top, error);
  lens->judged = arena_array(&lens->e.arena, all * result->n_answers, sizeof *lens->judged, error);
  if (!lens->top || !lens->judged) return -1;
  for (size_t t = 0; t < result->n_texts; t++) {
    lens->texts[t].top = lens->top + lens->first[t] * (size_t)result->top_k;
    lens->texts[t].answers = lens->judged + lens->first[t] * result->n_answers;
  }
  lens->rows = malloc(floats * sizeof *lens->rows);
  return lens->rows ? 0 : error_memory(error, floats * sizeof *lens->rows);
}

/* Room behind the ids of the text that is continued, as far as the context goes. */
static int prepare_completion(struct lens *lens, const struct lab_lens_args *args, struct error *error) {
  struct experiment *e = &lens->e;
  int64_t room = e->model->arch.n_ctx - (int64_t)e->texts[0].n;
  if (args->n_tokens <= 0 || room <= 0) return 0;
  assert(args->n_inputs == 1 && args->n_positions == 0 && args->n_edits == 0);
  lens->room = (int32_t)(args->n_tokens < room ? args->n_tokens : room);
  lens->n_prompt = e->texts[0].n;
  int32_t *ids = arena_array(&e->arena, lens->n_prompt + (size_t)lens->room, sizeof *ids, error);
  if (!ids) return -1;
  memcpy(ids, e->texts[0].ids, lens->n_prompt * sizeof *ids);
  e->texts[0].ids = ids;
  lens->args = (struct lab_lens_args){.temperature = args->temperature, .seed = args->seed, .ends_turn = args->ends_turn};
  return check_cells(lens, lens->result.n_layers * (lens->n_prompt + (size_t)lens->room), error);
}

static int prepare(struct lens *lens, struct lab *lab, const struct lab_lens_args *args, struct error *error) {
  struct experiment *e = &lens->e;
  struct lab_lens_result *result = &lens->result;
  if (experiment_texts(e, args->inputs, args->n_inputs, args->bos, args->n_inputs > 1, error) != 0 ||
      experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      take_layers(lens, args, error) != 0 ||
      experiment_answers(e, args->answers, args->n_answers, args->prepend_space, "answers", &lens->answers, error) != 0)
    return -1;
  result->top_k = (int)(args->top_k < e->model->arch.vocabulary ? args->top_k : e->model->arch.vocabulary);
  result->n_answers = args->n_answers;
  result->n_texts = args->n_inputs;
  result->texts = lens->texts = arena_array(&e->arena, args->n_inputs, sizeof *lens->texts, error);
  lens->first = arena_array(&e->arena, args->n_inputs + 1, sizeof *lens->first, error);
  if (!lens->texts || !lens->first || (args->words && open_words(lens, error) != 0) || prepare_completion(lens, args, error) != 0)
    return -1;
  if (lens->room) return 0; /* the rest when it is known what comes behind the prompt */
  return take_texts(lens, args, error) != 0 ? -1 : make_room(lens, error);
}

int lab_lens(struct lab *lab, const struct lab_lens_args *args, struct lab_waker waker, struct lab_job **out,
             struct error *error) {
  assert(args->top_k >= 0 && args->top_k <= LAB_TOP_MOST);
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct lens), waker, error);
  if (!e) return -1;
  if (prepare(lens_of(e), lab, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_lens_result *lab_lens_result(const struct lab_job *job) { return &((const struct lens *)job)->result; }
