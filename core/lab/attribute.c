/* attribute.c: the verb "attribute": how a number made from the logits grows with every point, times what stands there. All of it is
 * work between steps; sources are attribute_features.c's. */
#include "core/lab/attribute.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

#define UPLOAD_BYTES ((size_t)4 << 20)  /* of edits' vectors in a slice */

static struct attribute *attribute_of(struct experiment *e) { return (struct attribute *)e; }

static void clear(struct experiment *e) {
  struct attribute *a = attribute_of(e);
  backward_free(a->backward);
  edit_list_free(a->edits, e->model->backend);
  attribute_clear_sources(a);
  spool_close(a->spool);
  free(a->placed);
  free(a->items);
  free(a->begin);
  for (int i = 0; i < 3; i++) free(a->rows[i]);
}

/* ---- the metric ---- */

/* value, and how it grows with each logit where gradient is there: of the logarithm of a probability times `scale`. */
static double log_probability(const float *logits, int64_t n, int32_t id, double scale, float *gradient) {
  double largest = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, (double)logits[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)logits[i] - largest);
  for (int64_t i = 0; gradient && i < n; i++)
    gradient[i] = (float)(scale * ((i == id) - exp((double)logits[i] - largest) / sum));
  return (double)logits[id] - largest - log(sum);
}

static double measure(const struct attribute *a, const float *logits, float *gradient) {
  int64_t n = a->e.model->arch.vocabulary;
  int32_t right = a->answers[0];
  switch (a->args.metric) {
    case LAB_LOGIT_DIFFERENCE:
      if (gradient) gradient[a->answers[1]] -= 1;
      if (gradient) gradient[right] += 1;
      return (double)logits[right] - (double)logits[a->answers[1]];
    case LAB_LOGIT:
      if (gradient) gradient[right] = 1;
      return (double)logits[right];
    case LAB_PROBABILITY: {
      double p = exp(log_probability(logits, n, right, 0, NULL));
      if (gradient) log_probability(logits, n, right, p, gradient);
      return p;
    }
    default: return log_probability(logits, n, right, 1, gradient);
  }
}

static int on_logits(void *context, int text, int32_t position, const float *logits, float *gradient, struct error *error) {
  struct attribute *a = context;
  (void)error;
  if (a->args.metric != LAB_LOSS) {
    a->result.value[text] = measure(a, logits, gradient);
    return 0;
  }
  double each = 1.0 / (double)(a->result.n_tokens - 1);
  a->result.value[text] -= each * log_probability(logits, a->e.model->arch.vocabulary, a->result.ids[text][position + 1], -each, gradient);
  return 0;
}

/* ---- points on the way back ---- */

/* Gradient times what stands there, less what stands in the other text. */
static double along(const float *gradient, const float *here, const float *there, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)gradient[i] * ((double)here[i] - (there ? (double)there[i] : 0));
  return sum;
}

static int keep_gradient(struct attribute *a, const struct lab_attribution *to, struct error *error) {
  size_t width = (size_t)to->tensor.width, row = width * sizeof(float);
  struct error inner = ERROR_INIT;
  for (size_t k = 0; k < a->result.n_positions; k++)
    if (spool_write(a->spool, to->offset + (int64_t)(k * row), a->rows[0] + (size_t)a->result.positions[k] * width, row, &inner) != 0) {
      log_warn("gradients cannot be kept until they are asked for: %s", inner.text);
      return error_set_field(error, ERROR_BUSY, "gradients", "the server's disk has no room for the gradients of this request (%lld KiB); "
                             "ask for fewer points or positions, or try later", (long long)((a->result.bytes + 1023) >> 10));
    }
  return 0;
}

static int take_point(struct attribute *a, size_t i, const struct backward_seen *seen, struct error *error) {
  struct lab_attribution *to = &a->attributions[i];
  struct backend *backend = a->e.model->backend;
  int64_t n = (int64_t)a->result.n_tokens, width = seen->width, heads = to->heads ? to->heads : 1, each = width / heads;
  bool differs = a->result.differs;
  if (experiment_read_rows(backend, seen->gradients, 0, n, width, a->rows[0], error) != 0 ||
      experiment_read_rows(backend, seen->values, 0, n, width, a->rows[1], error) != 0 ||
      (differs && experiment_read_rows(backend, seen->values, n, n, width, a->rows[2], error) != 0))
    return -1;
  for (size_t k = 0; k < a->result.n_positions; k++)
    for (int64_t h = 0; h < heads; h++) {
      size_t at = (size_t)(a->result.positions[k] * width + h * each);
      a->values[i][k * (size_t)heads + (size_t)h] = along(a->rows[0] + at, a->rows[1] + at, differs ? a->rows[2] + at : NULL, each);
    }
  return a->args.gradients ? keep_gradient(a, to, error) : 0;
}

static int on_seen(void *context, const struct backward_seen *seen, struct error *error) {
  struct attribute *a = context;
  int more = attribute_features(a, seen, error);
  if (more) return more;
  for (size_t i = 0; i < a->result.n_points; i++)
    if (point_index(a->points[i]) == point_index(seen->point)) return take_point(a, i, seen, error);
  return 0;
}

static const struct backward_events events = {on_logits, on_seen};

/* ---- edits ---- */

static int refuse_edits(const char *what, struct error *error) {
  return error_set_field(error, ERROR_ARGUMENT, "edits", "edits: gradients do not go through %s; those that add, project, cap, set, scale, "
                         "zero or patch rows, and features of ReLU and JumpReLU dictionaries with their error, have gradients", what);
}

static int check_edits(const struct attribute *a, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++) {
    enum site site = (enum site)(a->placed[i].point % SITE_COUNT);
    if (a->placed[i].mark != MARK_NONE) return refuse_edits("splices, nor through features that need all others (TopK, no error term)", error);
    if (site == SITE_SCORES || site == SITE_PATTERN) return refuse_edits("edits of attention scores and patterns", error);
  }
  return 0;
}

/* The items of a step with all rows of the text, sorted by point, in their order at each. */
static int place_edits(struct attribute *a, struct error *error) {
  size_t n = 0, capacity = 0, points = (size_t)point_count(a->e.model->arch.n_layer);
  int32_t tokens = (int32_t)a->result.n_tokens;
  if (edit_list_lower(a->edits, 0, 0, tokens, tokens, 0, &a->placed, &n, &capacity, error) != 0 || check_edits(a, n, error) != 0) return -1;
  if (!n) return 0;
  a->items = calloc(n, sizeof *a->items);
  a->begin = calloc(points + 1, sizeof *a->begin);
  if (!a->items || !a->begin) return error_memory(error, n * sizeof *a->items);
  int32_t at = 0;
  for (size_t p = 0; p < points; p++) {
    a->begin[p] = at;
    for (size_t i = 0; i < n; i++)
      if ((size_t)a->placed[i].point == p) a->items[at++] = a->placed[i].item;
  }
  a->begin[points] = at;
  return 0;
}

/* ---- while it runs ---- */

static int begin(struct attribute *a, struct plan *plan, struct error *error) {
  int32_t last = (int32_t)a->result.n_tokens - 1;
  bool loss = a->args.metric == LAB_LOSS;
  struct error inner = ERROR_INIT;
  if (a->edits && place_edits(a, error) != 0) return -1;
  struct backward_args args = {.ids = {a->result.ids[0], a->result.ids[1]}, .n_tokens = last + 1, .edits = a->items, .edit_begin = a->begin,
                               .hold_norms = a->args.hold_norms, .hold_pattern = a->args.hold_pattern, .points = a->asked,
                               .n_points = a->n_asked, .first = loss ? 0 : (int32_t)a->result.position,
                               .last = loss ? last - 1 : (int32_t)a->result.position, .most_bytes = (size_t)LABORATORY_MAX_BYTES,
                               .events = &events, .context = a};
  a->backward = backward_new(plan, &args, &inner);
  if (a->backward) return 0;
  return inner.code == ERROR_LIMIT ? error_set_field(error, inner.code, "text", "%s", inner.text) : error_set(error, inner.code, "%s", inner.text);
}

static int on_slice(struct experiment *e, struct plan *plan, struct error *error) {
  struct attribute *a = attribute_of(e);
  size_t budget = UPLOAD_BYTES;
  if (!edit_list_ready(a->edits)) return edit_list_upload(a->edits, e->model->backend, &budget, error) != 0 ? -1 : 1;
  if (!a->backward) return begin(a, plan, error) != 0 ? -1 : 1;
  int more = backward_slice(a->backward, error);
  if (more) return more;
  backward_free(a->backward);
  a->backward = NULL;
  return 0;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct attribute *a = attribute_of(e);
  if (stage > 0) return attribute_finish_sources(a, error);
  e->work = true;
  e->rows += (int64_t)a->result.n_tokens * (a->result.differs ? 2 : 1);
  return edits_lower(&e->edits, 0, &e->texts[0], &a->edits, error);
}

static const struct experiment_verb verb = {.stage = on_stage, .slice = on_slice, .clear = clear};

/* ---- the verb ---- */

static int refuse_point(const char *field, const char *name, enum site site, struct error *error) {
  const char *why = site >= SITE_FINAL_SCALE   ? "it lies behind the last layer"
                    : site == SITE_SCORES || site == SITE_PATTERN ? "'q', 'k' and 'v' have them"
                                               : "it is no step of the model; 'z' and 'resid_pre' have them";
  return error_set_field(error, ERROR_ARGUMENT, field, "%s: there are no gradients at '%.80s': %s. Points of layers have gradients but for "
                         "hook_attn_scores, hook_pattern, hook_result, hook_attn_in, hook_q_input, hook_k_input and hook_v_input",
                         field, name, why);
}

static bool is_asked(const struct attribute *a, struct point point) {
  for (int i = 0; i < a->n_asked; i++)
    if (point_index(a->asked[i]) == point_index(point)) return true;
  return false;
}

static int add_point(struct attribute *a, struct point point, struct error *error) {
  char name[POINT_NAME_BYTES];
  struct lab_attribution *to = &a->attributions[a->result.n_points];
  struct point_shape shape = point_shape(&a->e.model->arch, point.site);
  if (is_asked(a, point)) return 0;
  to->tensor.name = arena_text(&a->e.arena, point_name(point, name), strlen(point_name(point, name)), error);
  to->heads = shape.heads;
  to->tensor.n_dims = shape.heads ? 2 : 1;
  to->tensor.dims[0] = shape.heads ? shape.heads : shape.width;
  to->tensor.dims[1] = shape.heads ? shape.width : 1;
  to->tensor.width = to->tensor.dims[0] * to->tensor.dims[1];
  to->offset = a->result.bytes;
  size_t cells = a->result.n_positions * (size_t)(shape.heads ? shape.heads : 1);
  a->values[a->result.n_points] = arena_array(&a->e.arena, cells, sizeof(double), error);
  to->values = a->values[a->result.n_points];
  if (!to->tensor.name || !to->values) return -1;
  if (a->args.gradients) a->result.bytes += (int64_t)a->result.n_positions * to->tensor.width * (int64_t)sizeof(float);
  if (to->tensor.width > a->widest) a->widest = to->tensor.width;
  a->points[a->result.n_points++] = point;
  a->asked[a->n_asked++] = point;
  return 0;
}

/* A name is one point, which must have gradients; of those that a pattern fits the others are left out. */
static int add_named(struct attribute *a, const char *name, size_t i, struct error *error) {
  char field[32];
  struct point *points;
  struct error inner = ERROR_INIT;
  size_t n, taken = 0;
  snprintf(field, sizeof field, "points[%zu]", i);
  if (points_select(name, &a->e.model->arch, &points, &n, &inner) != 0)
    return error_set_field(error, inner.code, field, "%s: %s", field, inner.text);
  int failed = 0;
  for (size_t k = 0; k < n && !failed; k++) {
    if (!backward_has(points[k].site)) continue;
    failed = add_point(a, points[k], error);
    taken++;
  }
  if (!failed && !taken) failed = refuse_point(field, name, points[0].site, error);
  free(points);
  return failed;
}

static int take_points(struct attribute *a, const struct lab_attribute_args *args, struct error *error) {
  size_t most = (size_t)point_count(a->e.model->arch.n_layer) + 2 * args->n_sources;
  struct arena *arena = &a->e.arena;
  a->points = arena_array(arena, most, sizeof *a->points, error);
  a->asked = arena_array(arena, most, sizeof *a->asked, error);
  a->attributions = arena_array(arena, most, sizeof *a->attributions, error);
  a->values = arena_array(arena, most, sizeof *a->values, error);
  if (!a->points || !a->asked || !a->attributions || !a->values) return -1;
  a->result.points = a->attributions;
  for (size_t i = 0; i < args->n_points; i++)
    if (add_named(a, args->points[i], i, error) != 0) return -1;
  if (a->result.bytes <= LABORATORY_MAX_BYTES) return 0;
  return error_set_field(error, ERROR_LIMIT, "points", "the gradients asked for take more than %lld MiB; ask for fewer points or positions",
                         (long long)(LABORATORY_MAX_BYTES >> 20));
}

static int take_texts(struct attribute *a, const struct lab_attribute_args *args, struct error *error) {
  struct experiment *e = &a->e;
  struct lab_attribute_result *result = &a->result;
  const struct lab_input *against = &args->against;
  if (experiment_texts(e, &args->input, 1, args->bos, false, error) != 0 || experiment_tokens(e, &e->texts[0], &result->tokens[0], error) != 0)
    return -1;
  result->ids[0] = e->texts[0].ids;
  result->n_tokens = e->texts[0].n;
  result->differs = against->text || against->ids;
  if (!result->differs) return 0;
  if (lab_input_ids(e->opened, against, args->bos, 0, against->ids ? "against.tokens" : "against.text", &e->arena, &a->against, error) != 0 ||
      experiment_tokens(e, &a->against, &result->tokens[1], error) != 0)
    return -1;
  result->ids[1] = a->against.ids;
  e->job.prompt_tokens += (int64_t)a->against.n;
  if (a->against.n == result->n_tokens) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "against", "against has %zu tokens, the text has %zu; they must have as many, so that "
                         "positions correspond", a->against.n, result->n_tokens);
}

static int take_metric(struct attribute *a, const struct lab_attribute_args *args, struct error *error) {
  size_t n = args->metric == LAB_LOSS ? 0 : args->metric == LAB_LOGIT_DIFFERENCE ? 2 : 1;
  struct lab_attribute_result *result = &a->result;
  if (args->metric == LAB_LOSS && result->n_tokens < 2)
    return error_set_field(error, ERROR_ARGUMENT, "text", "one token has no loss: nothing predicts it; give at least two, or 'answers'");
  result->position = -1;
  if (n && experiment_position(args->position, result->n_tokens, "position", SIZE_MAX, &result->position, error) != 0) return -1;
  if (experiment_answers(&a->e, args->answers, n, args->prepend_space, "answers", &a->answers, error) != 0) return -1;
  for (size_t i = 0; i < 2; i++) result->answers[i].id = i < n ? a->answers[i] : -1;
  return experiment_name(&a->e, result->answers, n, error);
}

static int make_room(struct attribute *a, struct error *error) {
  struct error inner = ERROR_INIT;
  size_t floats = a->result.n_tokens * (size_t)a->widest;
  if (floats > (size_t)LABORATORY_MAX_BYTES / sizeof(float) / 3) /* and the way back would need more */
    return error_set_field(error, ERROR_LIMIT, "text", "gradients of %zu tokens take more than %lld MiB; give a shorter text", a->result.n_tokens,
                           (long long)(LABORATORY_MAX_BYTES >> 20));
  for (int i = 0; i < 3; i++)
    if (floats && !(a->rows[i] = malloc(floats * sizeof(float)))) return error_memory(error, floats * sizeof(float));
  if (!a->args.gradients) return 0;
  a->spool = spool_open(&inner);
  if (a->spool) return 0;
  log_warn("gradients cannot be kept until they are asked for: %s", inner.text);
  return error_set_field(error, ERROR_BUSY, "gradients", "the server's disk has no room for gradients; try later, or without 'gradients'");
}

static int prepare(struct attribute *a, struct lab *lab, const struct lab_attribute_args *args, struct error *error) {
  struct experiment *e = &a->e;
  int64_t *positions;
  a->args = (struct lab_attribute_args){.metric = args->metric, .top_k = args->top_k, .gradients = args->gradients,
                                        .hold_norms = args->hold_norms, .hold_pattern = args->hold_pattern};
  if (take_texts(a, args, error) != 0 || experiment_edits(e, lab, args->model, args->edits, args->n_edits, args->bos, error) != 0 ||
      take_metric(a, args, error) != 0 ||
      experiment_positions(e, args->positions, args->n_positions, a->result.n_tokens, &positions, &a->result.n_positions, error) != 0)
    return -1;
  a->result.positions = positions;
  if (take_points(a, args, error) != 0 || attribute_sources(a, lab, args, error) != 0) return -1;
  return make_room(a, error);
}

int lab_attribute(struct lab *lab, const struct lab_attribute_args *args, struct lab_waker waker, struct lab_job **out,
                  struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct attribute), waker, error);
  if (!e) return -1;
  if (prepare(attribute_of(e), lab, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_attribute_result *lab_attribute_result(const struct lab_job *job) { return &((const struct attribute *)job)->result; }

int lab_attribute_read(struct lab_job *job, int64_t offset, void *to, size_t n, struct error *error) {
  return spool_read(((struct attribute *)job)->spool, offset, to, n, error);
}
