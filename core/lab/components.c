/* components.c: the verb "components": which part of the model wrote a logit. Everything that is added to the residual
 * stream is taken apart, divided as the final norm divides their sum, and read through the unembedding. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/experiment.h"

/* What is known of one text. */
struct parts {
  /* Rows [n_rows][d_model]: embedding, attention by layer, MLP by layer, heads by layer, the bias of the final norm. */
  float *rows;
  float *z;                  /* [n_layer][d_attn] */
  float *resid;              /* the sum */
  double *values;            /* [n_rows] */
};

struct components {
  struct experiment e;
  int32_t *answers;
  int n_answers;
  bool heads;
  struct point *taps;
  int n_taps;
  struct parts *texts;
  size_t n_rows;             /* of one text */
  struct parts *now;         /* the text that slices take apart, and how far they are: */
  int layer;                 /* whose heads come next */
  size_t next;               /* the row that comes next */
  struct lab_components_text *results;
  struct lab_components_result result;
};

static struct components *components_of(struct experiment *e) { return (struct components *)e; }

static void clear(struct experiment *e) {
  struct components *c = components_of(e);
  for (size_t t = 0; c->texts && t < c->result.n_texts; t++) {
    free(c->texts[t].rows);
    free(c->texts[t].z);
  }
}

static size_t width_of(const struct components *c) { return (size_t)c->e.model->arch.d_model; }
static size_t attn_of(const struct components *c) { return (size_t)arch_dim(&c->e.model->arch, DIM_ATTN); }

static float *row_at(const struct components *c, const struct parts *parts, size_t row) { return parts->rows + row * width_of(c); }

/* Where a tap's row is kept. */
static float *place_of(const struct components *c, const struct parts *parts, struct point point) {
  size_t n_layer = (size_t)c->e.model->arch.n_layer, layer = (size_t)point.layer;
  switch (point.site) {
    case SITE_RESID_PRE: return row_at(c, parts, 0);
    case SITE_ATTN_OUT: return row_at(c, parts, 1 + layer);
    case SITE_MLP_OUT: return row_at(c, parts, 1 + n_layer + layer);
    case SITE_ATTN_Z: return parts->z + layer * attn_of(c);
    default: return parts->resid;
  }
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct components *c = components_of(e);
  int64_t i = c->results[pass].position - tapped->position;
  if (i < 0 || i >= tapped->n_rows) return 0;
  struct span at = span_at(tapped->rows.at, (size_t)i * (size_t)tapped->rows.ld * sizeof(float));
  return tapped->backend->ops->read(tapped->backend, place_of(c, &c->texts[pass], c->taps[tapped->tap]), at,
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
      memcpy(split + (size_t)i * d_attn + at, c->now->z + (size_t)c->layer * d_attn + at, d_head * sizeof *split);
    }
    size_t row = first + (size_t)c->layer * (size_t)arch->n_head + (size_t)h;
    failed = plan_attention_out(plan, c->layer, split, n, row_at(c, c->now, row), error);
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
  double mean = centred ? mean_of(c->now->resid, n) : 0, square = 0;
  for (size_t i = 0; i < n; i++) square += ((double)c->now->resid[i] - mean) * ((double)c->now->resid[i] - mean);
  double scale = norm->kind == NORM_NONE ? 1 : sqrt(square / (double)n + (double)norm->eps);
  int failed = read_vector(plan_backend(plan), norm->gain, gain, n, 1, error);
  for (size_t row = 0; !failed && row + 1 < c->n_rows; row++) {
    float *x = row_at(c, c->now, row);
    double own = centred ? mean_of(x, n) : 0;
    for (size_t i = 0; i < n; i++) x[i] = (float)(((double)x[i] - own) / scale * (double)gain[i]);
  }
  if (!failed) failed = read_vector(plan_backend(plan), norm->bias, row_at(c, c->now, c->n_rows - 1), n, 0, error);
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

/* The unembedding's own bias, into the last row. */
static int add_bias(struct components *c, struct plan *plan, struct error *error) {
  struct span bias = c->e.model->weights.once.vector[SLOT_UNEMBED_BIAS];
  for (int k = 0; bias.memory && k < c->n_answers; k++) {
    float b;
    struct span at = span_at(bias, (size_t)c->answers[k] * sizeof b);
    if (plan_backend(plan)->ops->read(plan_backend(plan), &b, at, sizeof b, error) != 0) return -1;
    c->now->values[c->n_rows - 1] += k ? -(double)b : (double)b;
  }
  return 0;
}

/* Some rows of the text that is taken apart. */
static int slice_rows(struct components *c, struct plan *plan, struct error *error) {
  int32_t most = plan_max_logit_rows(plan) < 16 ? plan_max_logit_rows(plan) : 16;
  if (c->next == 0 && divide(c, plan, error) != 0) return -1;
  int32_t n = c->n_rows - c->next < (size_t)most ? (int32_t)(c->n_rows - c->next) : most;
  if (plan_unembed(plan, row_at(c, c->now, c->next), n, error) != 0) return -1;
  for (int32_t i = 0; i < n; i++)
    if (read_row(c, plan, i, &c->now->values[c->next + (size_t)i], error) != 0) return -1;
  c->next += (size_t)n;
  return c->next < c->n_rows ? 0 : add_bias(c, plan, error);
}

static int on_slice(struct experiment *e, struct plan *plan, struct error *error) {
  struct components *c = components_of(e);
  bool heads = c->heads && c->layer < e->model->arch.n_layer;
  if ((heads ? take_heads : slice_rows)(c, plan, error) != 0) return -1;
  if (heads || c->next < c->n_rows) return 1;
  c->layer = 0;
  c->next = 0;
  return ++c->now < c->texts + c->result.n_texts;
}

static void finish_text(struct components *c, size_t t) {
  struct lab_components_text *result = &c->results[t];
  const double *values = c->texts[t].values;
  size_t n_layer = (size_t)c->result.n_layer;
  result->embedding = values[0];
  result->attention = values + 1;
  result->mlp = values + 1 + n_layer;
  result->heads = c->heads ? values + 1 + 2 * n_layer : NULL;
  result->bias = values[c->n_rows - 1];
  result->total = result->embedding + result->bias;
  for (size_t l = 0; l < n_layer; l++) result->total += result->attention[l] + result->mlp[l];
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct components *c = components_of(e);
  if (stage == 1) e->work = true;
  for (size_t t = 0; stage > 1 && t < e->n_texts; t++) finish_text(c, t);
  if (stage > 0) return 0;
  struct pass *passes = experiment_passes(e, e->n_texts, error);
  for (size_t t = 0; passes && t < e->n_texts; t++) {
    if (experiment_plain(e, &passes[t], t, true, error) != 0) return -1;
    passes[t].taps = c->taps;
    passes[t].n_taps = c->n_taps;
  }
  return passes ? 0 : -1;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .stage = on_stage, .slice = on_slice, .clear = clear};

/* ---- the verb ---- */

static int take_points(struct components *c, struct error *error) {
  const struct arch *arch = &c->e.model->arch;
  c->taps = arena_array(&c->e.arena, 3 * (size_t)arch->n_layer + 2, sizeof *c->taps, error);
  if (!c->taps) return -1;
  c->taps[c->n_taps++] = (struct point){0, SITE_RESID_PRE};
  c->taps[c->n_taps++] = (struct point){arch->n_layer - 1, SITE_RESID_POST};
  for (int l = 0; l < arch->n_layer; l++) {
    c->taps[c->n_taps++] = (struct point){l, SITE_ATTN_OUT};
    if (arch_has(arch, HAS_MLP)) c->taps[c->n_taps++] = (struct point){l, SITE_MLP_OUT};
    if (c->heads) c->taps[c->n_taps++] = (struct point){l, SITE_ATTN_Z};
  }
  return 0;
}

static int make_room(struct components *c, struct error *error) {
  const struct arch *arch = &c->e.model->arch;
  size_t n_layer = (size_t)arch->n_layer, n_texts = c->result.n_texts;
  c->n_rows = 1 + 2 * n_layer + (c->heads ? n_layer * (size_t)arch->n_head : 0) + 1;
  double bytes = (double)n_texts * (double)(c->n_rows * width_of(c) + n_layer * attn_of(c)) * sizeof(float);
  if (bytes > (double)LABORATORY_MAX_BYTES)
    return error_set_field(error, ERROR_LIMIT, "text", "what %zu texts are made of takes more than %lld MiB; give fewer, or \"heads\": "
                           "false", n_texts, (long long)(LABORATORY_MAX_BYTES >> 20));
  c->now = c->texts = arena_array(&c->e.arena, n_texts, sizeof *c->texts, error);
  for (size_t t = 0; c->texts && t < n_texts; t++) {
    struct parts *parts = &c->texts[t];
    parts->resid = arena_array(&c->e.arena, width_of(c), sizeof *parts->resid, error);
    parts->values = arena_array(&c->e.arena, c->n_rows, sizeof *parts->values, error);
    if (!parts->resid || !parts->values) return -1;
    parts->rows = calloc(c->n_rows * width_of(c), sizeof *parts->rows);
    parts->z = calloc(n_layer * attn_of(c), sizeof *parts->z);
    if (!parts->rows || !parts->z) return error_memory(error, c->n_rows * width_of(c) * sizeof *parts->rows);
  }
  return c->texts ? 0 : -1;
}

static int take_texts(struct components *c, const struct lab_components_args *args, struct error *error) {
  struct experiment *e = &c->e;
  c->result.texts = c->results = arena_array(&e->arena, args->n_inputs, sizeof *c->results, error);
  if (!c->results) return -1;
  c->result.n_texts = args->n_inputs;
  for (size_t t = 0; t < args->n_inputs; t++) {
    struct lab_components_text *text = &c->results[t];
    text->ids = e->texts[t].ids;
    text->n_tokens = e->texts[t].n;
    if (experiment_position(args->position, e->texts[t].n, "position", SIZE_MAX, &text->position, error) != 0 ||
        experiment_tokens(e, &e->texts[t], &text->tokens, error) != 0)
      return -1;
  }
  return 0;
}

static int prepare(struct components *c, struct lab *lab, const struct lab_components_args *args, struct error *error) {
  struct experiment *e = &c->e;
  struct lab_components_result *result = &c->result;
  c->n_answers = args->answers[1].text || args->answers[1].ids ? 2 : 1;
  c->heads = args->heads;
  if (e->model->arch.stream_norm != NORM_NONE)
    return error_set(error, ERROR_ARGUMENT, "this model norms the residual stream behind each addition, so its logits are no sum of "
                     "what the layers add");
  if (args->heads && arch_has(&e->model->arch, HAS_POST_NORMS))
    return error_set_field(error, ERROR_ARGUMENT, "heads", "a norm follows this model's attention, so its output is no sum of "
                           "heads; say \"heads\": false");
  if (experiment_texts(e, args->inputs, args->n_inputs, args->bos, args->n_inputs > 1, error) != 0 ||
      experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      take_texts(c, args, error) != 0 ||
      experiment_answers(e, args->answers, (size_t)c->n_answers, args->prepend_space, "answers", &c->answers, error) != 0)
    return -1;
  result->answers[1].id = -1;
  for (int i = 0; i < c->n_answers; i++) result->answers[i].id = c->answers[i];
  result->n_layer = e->model->arch.n_layer;
  result->n_head = e->model->arch.n_head;
  if (experiment_name(e, result->answers, (size_t)c->n_answers, error) != 0) return -1;
  return take_points(c, error) != 0 ? -1 : make_room(c, error);
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
