/* lab_components.c: the verb "components": which part of the model wrote a logit. Everything that is added to the residual
 * stream is taken apart, divided as the final norm divides their sum, and read through the unembedding. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab_experiment.h"

struct components {
  struct experiment e;
  int32_t *answers;
  int n_answers;
  bool heads;
  struct point *taps;
  int n_taps;
  /* Rows [n_rows][d_model]: embedding, attention by layer, MLP by layer, heads by layer, the bias of the final norm. */
  float *rows;
  size_t n_rows, next;
  float *z;                  /* [n_layer][d_attn] */
  float *resid;              /* the sum */
  int layer;                 /* whose heads the next slice takes apart */
  double *values;            /* [n_rows] */
  struct lab_components_result result;
};

static struct components *components_of(struct experiment *e) { return (struct components *)e; }

static void clear(struct experiment *e) {
  free(components_of(e)->rows);
  free(components_of(e)->z);
}

static size_t width_of(const struct components *c) { return (size_t)c->e.model->arch.d_model; }
static size_t attn_of(const struct components *c) { return (size_t)arch_dim(&c->e.model->arch, DIM_ATTN); }

static float *row_at(struct components *c, size_t row) { return c->rows + row * width_of(c); }

/* Where a tap's row is kept. */
static float *place_of(struct components *c, struct point point) {
  size_t n_layer = (size_t)c->e.model->arch.n_layer, layer = (size_t)point.layer;
  switch (point.site) {
    case SITE_RESID_PRE: return row_at(c, 0);
    case SITE_ATTN_OUT: return row_at(c, 1 + layer);
    case SITE_MLP_OUT: return row_at(c, 1 + n_layer + layer);
    case SITE_ATTN_Z: return c->z + layer * attn_of(c);
    default: return c->resid;
  }
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct components *c = components_of(e);
  int64_t i = c->result.position - tapped->position;
  (void)pass;
  if (i < 0 || i >= tapped->n_rows) return 0;
  struct span at = span_at(tapped->rows.at, (size_t)i * (size_t)tapped->rows.ld * sizeof(float));
  return tapped->backend->ops->read(tapped->backend, place_of(c, c->taps[tapped->tap]), at,
                                    (size_t)tapped->width * sizeof(float), error);
}

/* ---- between steps ---- */

/* One layer's z, a head at a time, through the output matrix. */
static int take_heads(struct components *c, struct plan *plan, struct error *error) {
  const struct arch *arch = &c->e.model->arch;
  size_t d_attn = attn_of(c), d_head = (size_t)arch->d_head, first = 1 + 2 * (size_t)arch->n_layer;
  int32_t most = plan_max_logit_rows(plan);
  float *split = calloc((size_t)most * d_attn, sizeof *split);
  int failed = split ? 0 : error_memory(error, (size_t)most * d_attn * sizeof *split);
  for (int32_t h = 0; !failed && h < arch->n_head; h += most) {
    int32_t n = arch->n_head - h < most ? arch->n_head - h : most;
    memset(split, 0, (size_t)n * d_attn * sizeof *split);
    for (int32_t i = 0; i < n; i++) {
      size_t at = (size_t)(h + i) * d_head;
      memcpy(split + (size_t)i * d_attn + at, c->z + (size_t)c->layer * d_attn + at, d_head * sizeof *split);
    }
    size_t row = first + (size_t)c->layer * (size_t)arch->n_head + (size_t)h;
    failed = plan_attention_out(plan, c->layer, split, n, row_at(c, row), error);
  }
  free(split);
  c->layer++;
  return failed;
}

static double mean_of(const float *x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += (double)x[i];
  return sum / (double)n;
}

static int read_vector(struct backend *backend, struct span span, float *out, size_t n, float fallback, struct error *error) {
  for (size_t i = 0; i < n; i++) out[i] = fallback;
  return span.memory ? backend->ops->read(backend, out, span, n * sizeof *out, error) : 0;
}

/* What the final norm does to the sum, done to each part: the centring and the gain are linear, the scale is the sum's. The
 * last row becomes the norm's bias. */
static int divide(struct components *c, struct plan *plan, struct error *error) {
  const struct norm *norm = plan_final_norm(plan);
  size_t n = width_of(c);
  float *gain = malloc(n * sizeof *gain);
  if (!gain) return error_memory(error, n * sizeof *gain);
  bool centred = norm->kind == NORM_LAYER;
  double mean = centred ? mean_of(c->resid, n) : 0, square = 0;
  for (size_t i = 0; i < n; i++) square += ((double)c->resid[i] - mean) * ((double)c->resid[i] - mean);
  double scale = norm->kind == NORM_NONE ? 1 : sqrt(square / (double)n + (double)norm->eps);
  int failed = read_vector(plan_backend(plan), norm->gain, gain, n, 1, error);
  for (size_t row = 0; !failed && row + 1 < c->n_rows; row++) {
    float *x = row_at(c, row);
    double own = centred ? mean_of(x, n) : 0;
    for (size_t i = 0; i < n; i++) x[i] = (float)(((double)x[i] - own) / scale * (double)gain[i]);
  }
  if (!failed) failed = read_vector(plan_backend(plan), norm->bias, row_at(c, c->n_rows - 1), n, 0, error);
  free(gain);
  return failed;
}

static int read_row(struct components *c, struct plan *plan, int32_t i, double *out, struct error *error) {
  struct rows logits = plan_logits(plan);
  *out = 0;
  for (int k = 0; k < c->n_answers; k++) {
    float logit;
    struct span at = span_at(logits.at, ((size_t)i * (size_t)logits.ld + (size_t)c->answers[k]) * sizeof(float));
    if (plan_backend(plan)->ops->read(plan_backend(plan), &logit, at, sizeof logit, error) != 0) return -1;
    *out += k ? -(double)logit : (double)logit;
  }
  return 0;
}

static int on_slice(struct experiment *e, struct plan *plan, struct error *error) {
  struct components *c = components_of(e);
  int32_t most = plan_max_logit_rows(plan) < 16 ? plan_max_logit_rows(plan) : 16;
  if (c->heads && c->layer < e->model->arch.n_layer) return take_heads(c, plan, error) != 0 ? -1 : 1;
  if (c->next == 0 && divide(c, plan, error) != 0) return -1;
  int32_t n = c->n_rows - c->next < (size_t)most ? (int32_t)(c->n_rows - c->next) : most;
  if (plan_unembed(plan, row_at(c, c->next), n, error) != 0) return -1;
  for (int32_t i = 0; i < n; i++)
    if (read_row(c, plan, i, &c->values[c->next + (size_t)i], error) != 0) return -1;
  c->next += (size_t)n;
  if (c->next < c->n_rows) return 1;
  /* The unembedding's own bias. */
  struct span bias = e->model->weights.once.vector[SLOT_UNEMBED_BIAS];
  for (int k = 0; bias.memory && k < c->n_answers; k++) {
    float b;
    struct span at = span_at(bias, (size_t)c->answers[k] * sizeof b);
    if (plan_backend(plan)->ops->read(plan_backend(plan), &b, at, sizeof b, error) != 0) return -1;
    c->values[c->n_rows - 1] += k ? -(double)b : (double)b;
  }
  return 0;
}

static void finish(struct components *c) {
  struct lab_components_result *result = &c->result;
  size_t n_layer = (size_t)result->n_layer;
  result->embedding = c->values[0];
  result->attention = c->values + 1;
  result->mlp = c->values + 1 + n_layer;
  result->heads = c->heads ? c->values + 1 + 2 * n_layer : NULL;
  result->bias = c->values[c->n_rows - 1];
  result->total = result->embedding + result->bias;
  for (size_t l = 0; l < n_layer; l++) result->total += result->attention[l] + result->mlp[l];
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct components *c = components_of(e);
  if (stage == 1) e->work = true;
  if (stage > 1) finish(c);
  if (stage > 0) return 0;
  struct pass *pass = experiment_passes(e, 1, error);
  if (!pass || experiment_plain(e, pass, 0, true, error) != 0) return -1;
  pass->taps = c->taps;
  pass->n_taps = c->n_taps;
  return 0;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .stage = on_stage, .slice = on_slice, .clear = clear};

/* ---- the verb ---- */

static int make_room(struct components *c, struct error *error) {
  const struct arch *arch = &c->e.model->arch;
  size_t n_layer = (size_t)arch->n_layer;
  c->n_rows = 1 + 2 * n_layer + (c->heads ? n_layer * (size_t)arch->n_head : 0) + 1;
  c->taps = arena_array(&c->e.arena, 3 * n_layer + 2, sizeof *c->taps, error);
  c->resid = arena_array(&c->e.arena, width_of(c), sizeof *c->resid, error);
  c->values = arena_array(&c->e.arena, c->n_rows, sizeof *c->values, error);
  if (!c->taps || !c->resid || !c->values) return -1;
  c->taps[c->n_taps++] = (struct point){0, SITE_RESID_PRE};
  c->taps[c->n_taps++] = (struct point){arch->n_layer - 1, SITE_RESID_POST};
  for (int l = 0; l < arch->n_layer; l++) {
    c->taps[c->n_taps++] = (struct point){l, SITE_ATTN_OUT};
    if (arch_has(arch, HAS_MLP)) c->taps[c->n_taps++] = (struct point){l, SITE_MLP_OUT};
    if (c->heads) c->taps[c->n_taps++] = (struct point){l, SITE_ATTN_Z};
  }
  c->rows = calloc(c->n_rows * width_of(c), sizeof *c->rows);
  c->z = calloc(n_layer * attn_of(c), sizeof *c->z);
  return c->rows && c->z ? 0 : error_memory(error, c->n_rows * width_of(c) * sizeof *c->rows);
}

static int prepare(struct components *c, struct lab *lab, const struct lab_components_args *args, struct error *error) {
  struct experiment *e = &c->e;
  struct lab_components_result *result = &c->result;
  c->n_answers = args->answers[1].text || args->answers[1].ids ? 2 : 1;
  c->heads = args->heads;
  if (args->heads && arch_has(&e->model->arch, HAS_POST_NORMS))
    return error_set_field(error, ERROR_ARGUMENT, "heads", "a norm follows this model's attention, so its output is no sum of "
                           "heads; say \"heads\": false");
  if (experiment_texts(e, &args->input, 1, args->bos, false, error) != 0 ||
      experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      experiment_position(args->position, e->texts[0].n, "position", SIZE_MAX, &result->position, error) != 0 ||
      experiment_answers(e, args->answers, (size_t)c->n_answers, args->prepend_space, "answers", &c->answers, error) != 0 ||
      experiment_tokens(e, &e->texts[0], &result->tokens, error) != 0)
    return -1;
  result->answers[1].id = -1;
  for (int i = 0; i < c->n_answers; i++) result->answers[i].id = c->answers[i];
  result->ids = e->texts[0].ids;
  result->n_tokens = e->texts[0].n;
  result->n_layer = e->model->arch.n_layer;
  result->n_head = e->model->arch.n_head;
  if (experiment_name(e, result->answers, (size_t)c->n_answers, error) != 0) return -1;
  return make_room(c, error);
}

int lab_components(struct lab *lab, const struct lab_components_args *args, struct lab_waker waker, struct lab_job **out,
                   struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct components), waker, error);
  if (!e) return -1;
  if (prepare(components_of(e), lab, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_components_result *lab_components_result(const struct lab_job *job) {
  return &((const struct components *)job)->result;
}
