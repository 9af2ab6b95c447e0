/* lab_lens.c: the verb "lens": what each layer would predict: its residual stream through the final norm and the
 * unembedding. The rows are tapped in one pass; the unembedding is work between steps, a few rows at a time. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab_experiment.h"

struct lens {
  struct experiment e;
  struct point *taps;
  float *rows;              /* [n_layers][n_positions][d_model] */
  int32_t *answers;
  size_t next;              /* row that the next slice begins with */
  struct lab_token *top, *judged;
  struct lab_lens_result result;
};

/* Most rows of a reply. */
#define MOST_CELLS ((size_t)1 << 18)

static struct lens *lens_of(struct experiment *e) { return (struct lens *)e; }
static void clear(struct experiment *e) { free(lens_of(e)->rows); }

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct lens *lens = lens_of(e);
  size_t width = (size_t)tapped->width;
  (void)pass;
  for (size_t k = 0; k < lens->result.n_positions; k++) {
    int64_t i = lens->result.positions[k] - tapped->position;
    if (i < 0 || i >= tapped->n_rows) continue;
    struct span at = span_at(tapped->rows.at, (size_t)i * (size_t)tapped->rows.ld * sizeof(float));
    float *to = lens->rows + ((size_t)tapped->tap * lens->result.n_positions + k) * width;
    if (tapped->backend->ops->read(tapped->backend, to, at, width * sizeof *to, error) != 0) return -1;
  }
  return 0;
}

static void judge(struct lens *lens, size_t row, const float *logits) {
  size_t k = (size_t)lens->result.top_k, answers = lens->result.n_answers;
  experiment_likeliest(&lens->e, logits, (int)k, lens->top + row * k);
  for (size_t i = 0; i < answers; i++)
    lens->judged[row * answers + i] = experiment_judge(&lens->e, logits, lens->answers[i]);
}

static int on_slice(struct experiment *e, struct plan *plan, struct error *error) {
  struct lens *lens = lens_of(e);
  size_t width = (size_t)e->model->arch.d_model, all = lens->result.n_layers * lens->result.n_positions;
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

static int name_all(struct lens *lens, struct error *error) {
  size_t all = lens->result.n_layers * lens->result.n_positions;
  if (experiment_name(&lens->e, lens->top, all * (size_t)lens->result.top_k, error) != 0) return -1;
  return experiment_name(&lens->e, lens->judged, all * lens->result.n_answers, error);
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct lens *lens = lens_of(e);
  if (stage == 1) e->work = true;
  if (stage == 1) return 0;
  if (stage > 1) return name_all(lens, error);
  struct pass *pass = experiment_passes(e, 1, error);
  if (!pass || experiment_plain(e, pass, 0, true, error) != 0) return -1;
  pass->taps = lens->taps;
  pass->n_taps = (int)lens->result.n_layers;
  return 0;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .stage = on_stage, .slice = on_slice, .clear = clear};

/* ---- the verb ---- */

static int make_room(struct lens *lens, struct error *error) {
  struct lab_lens_result *result = &lens->result;
  struct arena *arena = &lens->e.arena;
  int32_t n_layer = lens->e.model->arch.n_layer;
  size_t all = result->n_layers * result->n_positions, floats = all * (size_t)lens->e.model->arch.d_model;
  if (all * ((size_t)result->top_k + result->n_answers + 1) > MOST_CELLS)
    return error_set_field(error, ERROR_LIMIT, "positions", "%zu layers, %zu positions and %zu rows each are more than %zu in all; "
                           "name fewer", result->n_layers, result->n_positions, (size_t)result->top_k + result->n_answers,
                           MOST_CELLS);
  lens->taps = arena_array(arena, result->n_layers, sizeof *lens->taps, error);
  result->top = lens->top = arena_array(arena, all * (size_t)result->top_k, sizeof *lens->top, error);
  result->answers = lens->judged = arena_array(arena, all * result->n_answers, sizeof *lens->judged, error);
  if (!lens->taps || !lens->top || !lens->judged) return -1;
  for (size_t l = 0; l < result->n_layers; l++)
    lens->taps[l] = result->layers[l] < n_layer ? (struct point){(int)result->layers[l], SITE_RESID_PRE}
                                                : (struct point){n_layer - 1, SITE_RESID_POST};
  lens->rows = malloc(floats * sizeof *lens->rows);
  return lens->rows ? 0 : error_memory(error, floats * sizeof *lens->rows);
}

static int prepare(struct lens *lens, struct lab *lab, const struct lab_lens_args *args, struct error *error) {
  struct experiment *e = &lens->e;
  struct lab_lens_result *result = &lens->result;
  int64_t *layers, *positions;
  if (experiment_texts(e, &args->input, 1, args->bos, false, error) != 0 ||
      experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      experiment_numbers(e, args->layers, args->n_layers, e->model->arch.n_layer + 1, "layers", &layers, &result->n_layers,
                         error) != 0 ||
      experiment_positions(e, args->positions, args->n_positions, e->texts[0].n, &positions, &result->n_positions, error) != 0 ||
      experiment_answers(e, args->answers, args->n_answers, args->prepend_space, "answers", &lens->answers, error) != 0 ||
      experiment_tokens(e, &e->texts[0], &result->tokens, error) != 0)
    return -1;
  result->ids = e->texts[0].ids;
  result->n_tokens = e->texts[0].n;
  result->layers = layers;
  result->positions = positions;
  result->top_k = (int)(args->top_k < e->model->arch.vocabulary ? args->top_k : e->model->arch.vocabulary);
  result->n_answers = args->n_answers;
  return make_room(lens, error);
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
