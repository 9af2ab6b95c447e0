/* lab_run.c: POST /v1/lab/run: texts in, activations of any points, likeliest tokens and losses out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/reply.h"
#include "api/tensor_reply.h"

const struct field lab_run_fields[] = {
    MODEL_ROW,
    INPUTS_ROWS,
    {"points", NULL, FIELD_NAMES, .max = 4096,
     .text = "Names of points or globs, such as \"blocks.*.hook_resid_pre\" or \"z.3\"."},
    EDITS_ROW,
    {"stopAtLayer", NULL, FIELD_INT, .min = -4096, .max = 4096,
     .text = "Run only the layers below and give the residual stream there; negative counts from the end."},
    {"positions", NULL, FIELD_PLACES, .min = 1, .max = 1e6,
     .text = "Report these tokens only; -1 is the last. Left out: all."},
    {"heads", NULL, FIELD_INTS, .min = 1, .max = 4096, .text = "Of points with heads, report these only."},
    {"topK", NULL, FIELD_INT, .fallback = "0", .max = 1000, .text = "Likeliest next tokens at each reported position."},
    {"loss", NULL, FIELD_BOOL, .fallback = "false", .text = "The loss of each token and their mean."},
    {"sparse", NULL, FIELD_NUMBER, .max = 1,
     .text = "In JSON, give of attention patterns and scores only what is above this, as [position, head, key, value]."},
    {.name = NULL}};

struct run_plan {
  bool many, sparse;
  float above;
  const int64_t *heads; /* those asked for; NULL: all */
  enum tensor_form form;
};

/* ---- tensors ------------------------------------------------------------------------------------------ */

static bool same_length(const struct lab_run_result *result) {
  for (size_t t = 1; t < result->n_texts; t++)
    if (result->texts[t].n_positions != result->texts[0].n_positions) return false;
  return true;
}

static struct tensor_shape shape_of(const struct lab_run_result *result, size_t i, size_t first, size_t n, bool batch) {
  const struct lab_tensor *tensor = &result->tensors[i];
  struct tensor_shape shape = {.name = tensor->name, .offset = result->texts[first].offsets[i]};
  int64_t positions = (int64_t)result->texts[first].n_positions;
  if (batch) shape.dims[shape.n_dims++] = (int64_t)n;
  shape.dims[shape.n_dims++] = positions;
  for (int d = 0; d < tensor->n_dims; d++) shape.dims[shape.n_dims++] = tensor->dims[d];
  shape.bytes = (int64_t)n * positions * tensor->width * (int64_t)sizeof(float);
  return shape;
}

static int finish_npy(struct api_call *call, const struct lab_run_result *result, struct error *error) {
  const struct run_plan *plan = call->plan;
  if (result->n_tensors != 1)
    return error_set_field(error, ERROR_ARGUMENT, "points", "npy holds one array, the request gives %zu; name one point, or "
                           "accept application/vnd.safetensors", result->n_tensors);
  if (!same_length(result))
    return error_set_field(error, ERROR_ARGUMENT, "text", "npy holds one array, but the texts differ in length; accept "
                           "application/vnd.safetensors");
  struct tensor_shape shape = shape_of(result, 0, 0, result->n_texts, plan->many);
  tensor_write_npy(&call->body, &shape);
  return tensor_stream(call, TENSOR_NPY, result->bytes, lab_run_read, error);
}

/* One array per point where the texts are of one length, else one per text and point: "3/blocks.0.hook_resid_pre". */
static int finish_safetensors(struct api_call *call, const struct lab_run_result *result, struct error *error) {
  const struct run_plan *plan = call->plan;
  bool stacked = same_length(result);
  size_t each = stacked ? 1 : result->n_texts, n = 0;
  struct tensor_shape *shapes = arena_array(&call->arena, result->n_tensors * each, sizeof *shapes, error);
  if (!shapes) return -1;
  for (size_t i = 0; i < result->n_tensors; i++) {
    for (size_t t = 0; t < each; t++, n++) {
      shapes[n] = shape_of(result, i, t, stacked ? result->n_texts : 1, stacked && plan->many);
      if (!stacked && !(shapes[n].name = arena_printf(&call->arena, error, "%zu/%s", t, shapes[n].name))) return -1;
    }
  }
  tensor_write_safetensors(&call->body, shapes, n);
  return tensor_stream(call, TENSOR_SAFETENSORS, result->bytes, lab_run_read, error);
}

/* ---- JSON --------------------------------------------------------------------------------------------- */

static void write_entries(struct json_writer *w, const struct lab_tensor *tensor, int64_t position, const int64_t *heads,
                          const float *row, float above) {
  for (int64_t i = 0; i < tensor->width; i++) {
    if (!(row[i] > above)) continue;
    int64_t head = i / tensor->dims[1];
    jw_open(w, '[');
    jw_int(w, position);
    jw_int(w, heads ? heads[head] : head);
    jw_int(w, i % tensor->dims[1]);
    jw_f32(w, row[i]);
    jw_close(w, ']');
  }
}

static void write_row(struct json_writer *w, const struct lab_tensor *tensor, const float *row) {
  if (tensor->n_dims < 2) {
    jw_f32_array(w, row, (size_t)tensor->width);
    return;
  }
  jw_open(w, '[');
  for (int64_t i = 0; i < tensor->dims[0]; i++) jw_f32_array(w, row + i * tensor->dims[1], (size_t)tensor->dims[1]);
  jw_close(w, ']');
}

static int write_tensor(struct api_call *call, struct json_writer *w, const struct lab_tensor *tensor, int64_t offset,
                        const struct lab_run_text *text, struct error *error) {
  const struct run_plan *plan = call->plan;
  size_t bytes = (size_t)tensor->width * sizeof(float);
  float *row = malloc(bytes);
  int failed = row ? 0 : error_memory(error, bytes);
  jw_key(w, tensor->name);
  jw_open(w, '[');
  for (size_t r = 0; !failed && !w->out->failed && r < text->n_positions; r++) {
    failed = lab_run_read(call->job, offset + (int64_t)(r * bytes), row, bytes, error);
    if (failed) break;
    if (plan->sparse && tensor->square)
      write_entries(w, tensor, text->positions[r], plan->heads, row, plan->above);
    else
      write_row(w, tensor, row);
  }
  jw_close(w, ']');
  free(row);
  return failed;
}

static void write_top(struct json_writer *w, const struct lab_run_text *text, int top_k) {
  jw_key(w, "top");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_positions; i++) lab_write_table(w, NULL, text->top + i * (size_t)top_k, (size_t)top_k);
  jw_close(w, ']');
}

static int write_text(struct api_call *call, struct json_writer *w, const struct lab_run_result *result, size_t t,
                      struct error *error) {
  const struct lab_run_text *text = &result->texts[t];
  jw_open(w, '{');
  lab_write_tokens(w, text->tokens, text->ids, text->n_tokens);
  jw_key(w, "positions");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_positions; i++) jw_int(w, text->positions[i]);
  jw_close(w, ']');
  if (text->losses) {
    jw_member_f64(w, "loss", text->loss);
    jw_key(w, "tokenLosses");
    jw_f32_array(w, text->losses, text->n_tokens - 1);
  }
  if (text->top) write_top(w, text, result->top_k);
  jw_key(w, "activations");
  jw_open(w, '{');
  for (size_t i = 0; i < result->n_tensors; i++)
    if (write_tensor(call, w, &result->tensors[i], text->offsets[i], text, error) != 0) return -1;
  jw_close(w, '}');
  jw_close(w, '}');
  return 0;
}

static int finish_json(struct api_call *call, const struct lab_run_result *result, struct error *error) {
  const struct run_plan *plan = call->plan;
  struct json_writer w;
  jw_init(&w, &call->body);
  if (plan->many) {
    jw_open(&w, '{');
    jw_key(&w, "results");
    jw_open(&w, '[');
  }
  for (size_t t = 0; t < result->n_texts; t++)
    if (write_text(call, &w, result, t, error) != 0) return -1;
  if (plan->many) {
    jw_close(&w, ']');
    jw_close(&w, '}');
  }
  if (!call->body.failed) return 0;
  return error_set_field(error, ERROR_LIMIT, "points", "as JSON the reply is larger than this server gives; accept "
                         "application/vnd.safetensors, or ask for fewer points or positions");
}

static int lab_run_finish(struct api_call *call, struct error *error) {
  const struct run_plan *plan = call->plan;
  const struct lab_run_result *result = lab_run_result(call->job);
  if (plan->form == TENSOR_NPY) return finish_npy(call, result, error);
  return plan->form == TENSOR_SAFETENSORS ? finish_safetensors(call, result, error) : finish_json(call, result, error);
}

/* ---- in ----------------------------------------------------------------------------------------------- */

static int read_points(struct api_call *call, struct lab_run_args *args, struct error *error) {
  const char **points = arena_array(&call->arena, values_count(call->values, "points"), sizeof *points, error);
  if (!points) return -1;
  args->n_points = values_count(call->values, "points");
  for (size_t i = 0; i < args->n_points; i++) points[i] = values_text_at(call->values, "points", i, NULL);
  args->points = points;
  return 0;
}

static int read_args(struct api_call *call, struct lab_run_args *args, bool *many, struct error *error) {
  const struct values *values = call->values;
  struct lab_input *inputs;
  args->model = call_model(call, values, "modelId", error);
  if (!args->model || lab_read_inputs(call, values, &inputs, &args->n_inputs, many, error) != 0) return -1;
  args->inputs = inputs;
  args->bos = lab_read_bos(values);
  args->stop_at_layer = values_has(values, "stopAtLayer") ? values_int(values, "stopAtLayer") : INT64_MIN;
  args->top_k = (int)values_int(values, "topK");
  args->loss = values_bool(values, "loss");
  if (read_points(call, args, error) != 0 ||
      !(args->positions = read_integers(call, values, "positions", &args->n_positions, error)) ||
      !(args->heads = read_integers(call, values, "heads", &args->n_heads, error)))
    return -1;
  if (!args->n_points && !args->top_k && !args->loss && args->stop_at_layer == INT64_MIN)
    return error_set_field(error, ERROR_ARGUMENT, "points", "nothing is asked for: give 'points', 'topK', 'loss' or "
                           "'stopAtLayer'");
  return edits_read(call, values, "edits", "", &args->edits, &args->n_edits, error);
}

int lab_run_post(struct api_call *call, struct error *error) {
  struct lab_run_args args = {0};
  struct run_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || read_args(call, &args, &plan->many, error) != 0) return -1;
  plan->form = tensor_form(call);
  plan->sparse = values_has(call->values, "sparse");
  plan->above = (float)values_number(call->values, "sparse");
  plan->heads = args.n_heads ? args.heads : NULL;
  call->plan = plan;
  call->finish = lab_run_finish;
  return lab_run(call->api->lab, &args, call->waker, &call->job, error);
}
