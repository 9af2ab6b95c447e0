/* lab_direction.c: POST /v1/lab/direction: what leads from some texts to others, and, where a label is given, kept to steer with. */
#include <string.h>

#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/reply.h"
#include "api/steer.h"
#include "core/direction.h"

const struct field lab_direction_fields[] = {
    MODEL_ROW,
    {"positive", NULL, FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "Texts that have what is looked for."},
    {"negative", NULL, FIELD_TEXTS, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "Texts that do not."},
    {"points", NULL, FIELD_NAMES, .max = 4096,
     .text = "Names of points or globs; left out: \"blocks.*.hook_resid_post\", behind every layer."},
    {"row", NULL, FIELD_CHOICE, .fallback = "last", .choices = "last mean",
     .text = "Of each text the row of its last token, or the mean over its tokens without special ones."},
    {"method", NULL, FIELD_CHOICE, .fallback = "mean", .choices = "mean pca",
     .text = "mean: the difference of both groups' means. pca: the first principal direction of the differences of pairs, text i of both."},
    PREPEND_BOS_ROW,
    {"vectors", NULL, FIELD_BOOL, .fallback = "true", .text = "false leaves the numbers of the directions out of the reply."},
    {"vectorLabel", "label", FIELD_TEXT, .min = 1, .max = 256,
     .text = "Keeps the directions as vectors of this label, to steer with; points are then hook_resid_pre and hook_resid_post only."},
    {.name = NULL}};

struct direction_plan {
  struct lab_direction_args args;
  const char *label, *method, *row;
  bool vectors;
};

/* ---- the reply ---------------------------------------------------------------------------------------- */

static void write_direction(struct json_writer *w, const struct lab_direction_at *at, bool vectors) {
  jw_open(w, '{');
  jw_member_text(w, "point", at->point);
  jw_member_f64(w, "length", at->told.length);
  jw_member_f64(w, "separation", at->told.separation);
  jw_member_f64(w, "positiveMean", at->told.positive);
  jw_member_f64(w, "negativeMean", at->told.negative);
  jw_member_f64(w, "rowLength", at->told.row_length);
  if (vectors) {
    jw_key(w, "vector");
    jw_f32_array(w, at->values, (size_t)at->width);
  }
  jw_close(w, '}');
}

static void write_kept(struct json_writer *w, const struct direction_plan *plan, const struct store_vector *kept, size_t n) {
  jw_key(w, "kept");
  if (!plan->label) {
    jw_null(w);
    return;
  }
  jw_open(w, '{');
  jw_member_text(w, "label", plan->label);
  steer_write_kept(w, kept, n);
  jw_close(w, '}');
}

static int lab_direction_finish(struct api_call *call, struct error *error) {
  const struct direction_plan *plan = call->plan;
  const struct lab_direction_result *result = lab_direction_result(call->job);
  struct store_vector *kept = NULL;
  struct error own = ERROR_INIT;
  if (plan->label && lab_direction_keep(call->api->lab, plan->args.model, result, plan->label, &call->arena, &kept, &own) != 0)
    return error_set_field(error, own.code, own.field[0] ? own.field : "vectorLabel", "%s", own.text);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "model", plan->args.model->id);
  jw_member_int(&w, "positive", (int64_t)result->n_positive);
  jw_member_int(&w, "negative", (int64_t)result->n_negative);
  jw_member_text(&w, "method", plan->method);
  jw_member_text(&w, "row", plan->row);
  jw_key(&w, "directions");
  jw_open(&w, '[');
  for (size_t i = 0; i < result->n; i++) write_direction(&w, &result->at[i], plan->vectors);
  jw_close(&w, ']');
  write_kept(&w, plan, kept, result->n);
  jw_close(&w, '}');
  return 0;
}

/* ---- the request -------------------------------------------------------------------------------------- */

static int read_texts(struct api_call *call, const char *name, const struct lab_input **out, size_t *n, struct error *error) {
  *n = values_count(call->values, name);
  struct lab_input *inputs = arena_array(&call->arena, *n, sizeof *inputs, error);
  for (size_t i = 0; inputs && i < *n; i++) inputs[i].text = values_text_at(call->values, name, i, &inputs[i].length);
  *out = inputs;
  if (inputs && !*n) return error_set_field(error, ERROR_ARGUMENT, name, "'%s' must hold a text at least", name);
  return inputs ? 0 : -1;
}

static int read_points(struct api_call *call, struct lab_direction_args *args, struct error *error) {
  static const char *const residuals[] = {"blocks.*.hook_resid_post"};
  *args = (struct lab_direction_args){.model = args->model, .points = residuals, .n_points = 1};
  if (!values_count(call->values, "points")) return 0;
  args->points = lab_read_strings(call, call->values, "points", &args->n_points, error);
  return args->points ? 0 : -1;
}

int lab_direction_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct direction_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan) return -1;
  struct lab_direction_args *args = &plan->args;
  args->model = call_model(call, values, "modelId", error);
  plan->label = values_text(values, "vectorLabel", NULL);
  plan->method = values_text(values, "method", NULL);
  plan->row = values_text(values, "row", NULL);
  plan->vectors = values_bool(values, "vectors");
  if (!args->model || read_points(call, args, error) != 0 || read_texts(call, "positive", &args->positive, &args->n_positive, error) != 0 ||
      read_texts(call, "negative", &args->negative, &args->n_negative, error) != 0 || (plan->label && call_may_add(call, error) != 0))
    return -1;
  args->bos = lab_read_bos(values);
  args->method = strcmp(plan->method, "pca") == 0 ? LAB_DIRECTION_PRINCIPAL : LAB_DIRECTION_MEAN;
  args->row = strcmp(plan->row, "mean") == 0 ? LAB_ROW_MEAN : LAB_ROW_LAST;
  args->keep = plan->label != NULL;
  call->plan = plan;
  call->finish = lab_direction_finish;
  return lab_direction(call->api->lab, args, call->waker, &call->job, error);
}
