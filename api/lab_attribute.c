/* lab_attribute.c: POST /v1/lab/attribute: gradients of a metric, and what they make of points and features. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/reply.h"
#include "api/tensor_reply.h"

static const struct field against_rows[] = {
    {"text", NULL, FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "The text; or give tokens."},
    {"tokens", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids in place of a text."},
    {.name = NULL}};

const struct field lab_attribute_fields[] = {
    MODEL_ROW,
    {"text", "prompt", FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "The text; or give tokens."},
    {"tokens", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids in place of a text."},
    PREPEND_BOS_ROW,
    {"answers", "answer", FIELD_TEXTS, .min = 1, .max = 128,
     .text = "The token whose prediction is measured; for logit-difference the right one and the wrong one."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true",
     .text = "A space in front of answers that do not begin with one."},
    {"metric", NULL, FIELD_CHOICE, .choices = "logit logit-difference logprob probability loss",
     .text = "What is differentiated. Left out: logit of one answer, logit-difference of two, loss (the mean over the text's own tokens) "
             "without answers."},
    {"position", NULL, FIELD_INT, .fallback = "-1", .min = -1e6, .max = 1e6,
     .text = "Whose prediction is measured; -1 is the last. Not for loss."},
    {"points", NULL, FIELD_NAMES, .max = 4096,
     .text = "Names of points or globs, such as \"blocks.*.hook_resid_pre\" or \"z.3\"."},
    {"sources", "source", FIELD_SOURCES, .max = 64,
     .text = "Dictionaries, or layers for their neurons: attributions of their features, their bias and their error."},
    {"topK", NULL, FIELD_INT, .fallback = "10", .max = 1000, .text = "Features of each source, at each position and over the text."},
    {"against", NULL, FIELD_OBJECT, .inner = against_rows, .example = "{\"text\": \"...\"}",
     .text = "Another text of as many tokens: gradients are multiplied with the difference to its activations (attribution patching)."},
    {"stopGradients", NULL, FIELD_TEXTS, .min = 1, .max = 16, .most = 2,
     .text = "Constants: \"norm\" (what norms divide by), \"pattern\" (what attention looks at)."},
    {"gradients", NULL, FIELD_BOOL, .fallback = "false", .text = "The gradients themselves, too."},
    {"positions", NULL, FIELD_PLACES, .min = 1, .max = 1e6, .text = "Report these tokens only; -1 is the last. Left out: all."},
    EDITS_ROW,
    {.name = NULL}};

struct attribute_plan {
  const char *metric;
  bool gradients;
  enum tensor_form form;
};

/* ---- arrays ------------------------------------------------------------------------------------------- */

static struct tensor_shape shape_of(const struct lab_attribute_result *result, size_t i) {
  const struct lab_attribution *point = &result->points[i];
  struct tensor_shape shape = {.name = point->tensor.name, .offset = point->offset};
  shape.dims[shape.n_dims++] = (int64_t)result->n_positions;
  for (int d = 0; d < point->tensor.n_dims; d++) shape.dims[shape.n_dims++] = point->tensor.dims[d];
  shape.bytes = (int64_t)result->n_positions * point->tensor.width * (int64_t)sizeof(float);
  return shape;
}

static int finish_arrays(struct api_call *call, const struct lab_attribute_result *result, enum tensor_form form, struct error *error) {
  if (form == TENSOR_NPY && result->n_points != 1)
    return error_set_field(error, ERROR_ARGUMENT, "points", "npy holds one array, the request gives %zu; name one point, or "
                           "accept application/vnd.safetensors", result->n_points);
  struct tensor_shape *shapes = arena_array(&call->arena, result->n_points, sizeof *shapes, error);
  if (!shapes) return -1;
  for (size_t i = 0; i < result->n_points; i++) shapes[i] = shape_of(result, i);
  if (form == TENSOR_NPY)
    tensor_write_npy(&call->body, shapes);
  else
    tensor_write_safetensors(&call->body, shapes, result->n_points);
  return tensor_stream(call, form, result->bytes, lab_attribute_read, error);
}

/* ---- JSON --------------------------------------------------------------------------------------------- */

/* [position], or [position][head]; each divided by `whole`. */
static void write_values(struct json_writer *w, const struct lab_attribute_result *result, const struct lab_attribution *point, double whole) {
  size_t heads = point->heads ? (size_t)point->heads : 1;
  jw_key(w, point->tensor.name);
  jw_open(w, '[');
  for (size_t k = 0; k < result->n_positions; k++) {
    if (point->heads) jw_open(w, '[');
    for (size_t h = 0; h < heads; h++) jw_f64(w, whole == 0 ? (double)NAN : point->values[k * heads + h] / whole);
    if (point->heads) jw_close(w, ']');
  }
  jw_close(w, ']');
}

static void write_attributions(struct json_writer *w, const char *key, const struct lab_attribute_result *result, double whole) {
  jw_key(w, key);
  jw_open(w, '{');
  for (size_t i = 0; i < result->n_points; i++) write_values(w, result, &result->points[i], whole);
  jw_close(w, '}');
}

static void write_features(struct json_writer *w, const struct lab_share *share, bool differs) {
  jw_key(w, "top");
  jw_open(w, '[');
  for (size_t i = 0; i < share->n_top; i++) {
    jw_open(w, '{');
    jw_member_int(w, "index", share->top[i].index);
    jw_member_f32(w, "activation", share->top[i].activation);
    if (differs) jw_member_f32(w, "against", share->top[i].against);
    jw_member_f64(w, "attribution", share->top[i].attribution);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

/* The members of an open object. */
static void write_share(struct json_writer *w, const struct lab_share *share, bool differs) {
  jw_member_f64(w, "total", share->total);
  jw_member_f64(w, "features", share->features);
  jw_member_f64(w, "bias", share->bias);
  jw_member_f64(w, "error", share->error);
  jw_member_int(w, "active", (int64_t)share->n_active);
  write_features(w, share, differs);
}

static void write_source(struct json_writer *w, const struct lab_attribute_result *result, const struct lab_attributed_source *source) {
  jw_open(w, '{');
  jw_member_text(w, "source", source->source->id);
  jw_member_text(w, "point", source->point);
  write_share(w, &source->text, result->differs);
  jw_key(w, "positions");
  jw_open(w, '[');
  for (size_t k = 0; k < result->n_positions; k++) {
    jw_open(w, '{');
    jw_member_int(w, "position", source->positions[k].position);
    write_share(w, &source->positions[k], result->differs);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

static int write_gradient(struct api_call *call, struct json_writer *w, const struct lab_attribute_result *result, size_t i,
                          struct error *error) {
  const struct lab_attribution *point = &result->points[i];
  size_t bytes = (size_t)point->tensor.width * sizeof(float), each = (size_t)point->tensor.dims[point->tensor.n_dims - 1];
  float *row = malloc(bytes);
  int failed = row ? 0 : error_memory(error, bytes);
  jw_key(w, point->tensor.name);
  jw_open(w, '[');
  for (size_t k = 0; !failed && !w->out->failed && k < result->n_positions; k++) {
    failed = lab_attribute_read(call->job, point->offset + (int64_t)(k * bytes), row, bytes, error);
    if (failed) break;
    if (point->tensor.n_dims > 1) jw_open(w, '[');
    for (size_t at = 0; at < (size_t)point->tensor.width; at += each) jw_f32_array(w, row + at, each);
    if (point->tensor.n_dims > 1) jw_close(w, ']');
  }
  jw_close(w, ']');
  free(row);
  return failed;
}

static void write_other(struct json_writer *w, const struct lab_attribute_result *result) {
  jw_key(w, "against");
  if (!result->differs) {
    jw_null(w);
    return;
  }
  jw_open(w, '{');
  lab_write_tokens(w, result->tokens[1], result->ids[1], result->n_tokens);
  jw_member_f64(w, "value", result->value[1]);
  jw_close(w, '}');
}

static void write_head(struct json_writer *w, const struct attribute_plan *plan, const struct lab_attribute_result *result) {
  lab_write_tokens(w, result->tokens[0], result->ids[0], result->n_tokens);
  jw_member_text(w, "metric", plan->metric);
  if (result->position < 0)
    jw_member_null(w, "position");
  else
    jw_member_int(w, "position", result->position);
  lab_write_answers(w, result->answers);
  jw_member_f64(w, "value", result->value[0]);
  write_other(w, result);
  jw_key(w, "positions");
  jw_open(w, '[');
  for (size_t k = 0; k < result->n_positions; k++) jw_int(w, result->positions[k]);
  jw_close(w, ']');
}

static int finish_json(struct api_call *call, const struct lab_attribute_result *result, struct error *error) {
  const struct attribute_plan *plan = call->plan;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  write_head(&w, plan, result);
  write_attributions(&w, "attributions", result, 1);
  if (result->differs) write_attributions(&w, "normalized", result, result->value[0] - result->value[1]);
  if (plan->gradients) {
    jw_key(&w, "gradients");
    jw_open(&w, '{');
    for (size_t i = 0; i < result->n_points; i++)
      if (write_gradient(call, &w, result, i, error) != 0) return -1;
    jw_close(&w, '}');
  }
  jw_key(&w, "sources");
  jw_open(&w, '[');
  for (size_t i = 0; i < result->n_sources; i++) write_source(&w, result, &result->sources[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  if (!call->body.failed) return 0;
  return error_set_field(error, ERROR_LIMIT, "points", "as JSON the reply is larger than this server gives; ask for fewer points or "
                         "positions, or accept application/vnd.safetensors for gradients");
}

static int lab_attribute_finish(struct api_call *call, struct error *error) {
  const struct attribute_plan *plan = call->plan;
  const struct lab_attribute_result *result = lab_attribute_result(call->job);
  return plan->form == TENSOR_JSON ? finish_json(call, result, error) : finish_arrays(call, result, plan->form, error);
}

/* ---- in ----------------------------------------------------------------------------------------------- */

static int read_list(struct api_call *call, const char *name, const char *const **out, size_t *n, struct error *error) {
  const char **all = arena_array(&call->arena, values_count(call->values, name), sizeof *all, error);
  *n = values_count(call->values, name);
  for (size_t i = 0; all && i < *n; i++) all[i] = values_text_at(call->values, name, i, NULL);
  *out = all;
  return all ? 0 : -1;
}

static enum lab_metric metric_of(const char *name) {
  static const char *const names[] = {[LAB_LOGIT_DIFFERENCE] = "logit-difference", [LAB_LOGPROB] = "logprob", [LAB_PROBABILITY] = "probability",
                                      [LAB_LOGIT] = "logit"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(names[i], name) == 0) return (enum lab_metric)i;
  return LAB_LOSS;
}

/* What is measured, by what is given. */
static int read_metric(struct api_call *call, struct attribute_plan *plan, struct lab_attribute_args *args, struct error *error) {
  const struct values *values = call->values;
  size_t answers = values_count(values, "answers");
  plan->metric = values_text(values, "metric", NULL);
  if (!plan->metric) plan->metric = answers > 1 ? "logit-difference" : answers ? "logit" : "loss";
  args->metric = metric_of(plan->metric);
  args->position = values_int(values, "position");
  args->prepend_space = values_bool(values, "prependSpace");
  if (args->metric != LAB_LOSS) {
    if (answers > 1 && args->metric != LAB_LOGIT_DIFFERENCE)
      return error_set_field(error, ERROR_ARGUMENT, "answers", "'%s' is of one answer, found %zu", plan->metric, answers);
    return lab_read_pair(call, args->metric == LAB_LOGIT_DIFFERENCE ? 2 : 1, args->answers, error);
  }
  static const char *const unused[] = {"answers", "position"};
  for (size_t i = 0; i < 2; i++)
    if (values_has(values, unused[i]))
      return error_set_field(error, ERROR_ARGUMENT, unused[i], "'%s' has no meaning for the loss of a text", unused[i]);
  return 0;
}

static int read_stops(const struct values *values, struct lab_attribute_args *args, struct error *error) {
  for (size_t i = 0; i < values_count(values, "stopGradients"); i++) {
    const char *name = values_text_at(values, "stopGradients", i, NULL);
    if (strcmp(name, "norm") == 0)
      args->hold_norms = true;
    else if (strcmp(name, "pattern") == 0)
      args->hold_pattern = true;
    else
      return error_set_field(error, ERROR_ARGUMENT, "stopGradients", "stopGradients[%zu] is '%.40s', allowed are 'norm' and 'pattern'", i, name);
  }
  return 0;
}

static int read_args(struct api_call *call, struct attribute_plan *plan, struct lab_attribute_args *args, struct error *error) {
  const struct values *values = call->values;
  args->model = call_model(call, values, "modelId", error);
  args->bos = lab_read_bos(values);
  args->top_k = (int)values_int(values, "topK");
  args->gradients = plan->gradients = values_bool(values, "gradients") || plan->form != TENSOR_JSON;
  if (!args->model || read_input(call, values, "text", "tokens", "", &args->input, error) != 0 ||
      (values_has(values, "against") &&
       read_input(call, values_at(values, "against", 0), "text", "tokens", "against.", &args->against, error) != 0) ||
      read_metric(call, plan, args, error) != 0 || read_stops(values, args, error) != 0 ||
      read_list(call, "points", &args->points, &args->n_points, error) != 0 ||
      read_list(call, "sources", &args->sources, &args->n_sources, error) != 0 ||
      !(args->positions = read_integers(call, values, "positions", &args->n_positions, error)))
    return -1;
  if (!args->n_points && (!args->n_sources || plan->gradients))
    return error_set_field(error, ERROR_ARGUMENT, "points", "nothing is asked for: give 'points'%s", plan->gradients ? "" : " or 'sources'");
  return edits_read(call, values, "edits", "", &args->edits, &args->n_edits, error);
}

int lab_attribute_post(struct api_call *call, struct error *error) {
  struct lab_attribute_args args = {0};
  struct attribute_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan) return -1;
  plan->form = tensor_form(call);
  if (read_args(call, plan, &args, error) != 0) return -1;
  call->plan = plan;
  call->finish = lab_attribute_finish;
  return lab_attribute(call->api->lab, &args, call->waker, &call->job, error);
}
