/* inference_capture.c: rows of points in the shapes of Neuronpedia's inference server: POST /v1/activation/raw, attention, and
 * /v1/activation/single with a vector. Each is one run of the laboratory (lab_run), told in another way. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/edits.h"
#include "api/handlers.h"
#include "api/inference.h"
#include "api/reply.h"
#include "api/tensor_reply.h"
#include "api/vector_run.h"

const struct field inference_raw_fields[] = {
    INFERENCE_PROMPTS_ROW, INFERENCE_MODEL_ROW,
    {"layers", NULL, FIELD_INTS, .max = 4096, .text = "Only these layers; [] or left out: all."},
    {"hookPoint", NULL, FIELD_CHOICE, .fallback = "residual_stream", .choices = "residual_stream",
     .text = "What is given: the residual stream behind a layer. POST /v1/lab/run has every other point."},
    {"type", NULL, FIELD_CHOICE, .fallback = "final_output_token", .choices = "final_output_token",
     .text = "Where: at the last token of each text."},
    {.name = NULL}};

const struct field inference_attention_fields[] = {
    INFERENCE_PROMPT_ROW, INFERENCE_MODEL_ROW,
    {"layer", NULL, FIELD_INT, .required = true, .max = 4096, .text = "The layer, from 0."},
    {"head", NULL, FIELD_INT, .required = true, .max = 65535, .text = "The head that looks, from 0."},
    {.name = NULL}};

/* ---- a run -------------------------------------------------------------------------------------------- */

/* The texts as inputs that errors call by the names they have here. */
static int read_texts(struct api_call *call, const char *texts, bool many, struct lab_run_args *args, struct error *error) {
  const struct values *values = call->values;
  size_t n = values_count(values, texts);
  struct lab_input *inputs = arena_array(&call->arena, n, sizeof *inputs, error);
  args->model = call_model(call, values, "model", error);
  if (!inputs || !args->model) return -1;
  for (size_t i = 0; i < n; i++) {
    inputs[i].text = values_text_at(values, texts, i, &inputs[i].length);
    inputs[i].field = many ? arena_printf(&call->arena, error, "%s[%zu]", texts, i) : texts;
    if (!inputs[i].field) return -1;
  }
  args->inputs = inputs;
  args->n_inputs = n;
  args->stop_at_layer = INT64_MIN;
  return 0;
}

/* One row of a point of a text, into `row`. */
static int read_row(struct api_call *call, const struct lab_run_result *result, size_t text, size_t tensor, size_t at, float *row,
                    struct error *error) {
  int64_t bytes = result->tensors[tensor].width * (int64_t)sizeof *row;
  return lab_run_read(call->job, result->texts[text].offsets[tensor] + (int64_t)at * bytes, row, (size_t)bytes, error);
}

static float *new_row(struct api_call *call, const struct lab_run_result *result, struct error *error) {
  int64_t most = 1;
  for (size_t i = 0; i < result->n_tensors; i++)
    if (result->tensors[i].width > most) most = result->tensors[i].width;
  return arena_array(&call->arena, (size_t)most, sizeof(float), error);
}

/* ---- a vector in place of a feature ------------------------------------------------------------------- */

static int write_vector(struct api_call *call, struct json_writer *w, const struct lab_run_text *text,
                        const struct lab_feature_values *values, struct error *error) {
  (void)call;
  (void)error;
  inference_write_single(w, values, text->tokens, text->special, text->n_tokens);
  return 0;
}

int inference_start_vector(struct api_call *call, const char *texts, bool many, struct error *error) {
  struct vector_run *run = arena_alloc(&call->arena, sizeof *run, error);
  size_t n = values_count(call->values, texts);
  struct lab_text *given = arena_array(&call->arena, n, sizeof *given, error);
  const struct lab_model_info *model = call_model(call, call->values, "model", error);
  if (!run || !given || !model) return -1;
  for (size_t i = 0; i < n; i++) given[i].text = values_text_at(call->values, texts, i, &given[i].length);
  bool bos = values_has(call->values, "prependBos") ? values_bool(call->values, "prependBos") : model->prepends_bos;
  *run = (struct vector_run){.model = model, .texts = given, .n_texts = n, .field = texts, .many = many,
                             .bos = bos ? LAB_BOS_YES : LAB_BOS_NO, .hook = values_text(call->values, "hook", NULL),
                             .vector_field = "vector", .hook_field = "hook", .write = write_vector};
  run->values = read_floats(call, call->values, "vector", &run->n, error);
  return run->values ? vector_run_start(call, run, error) : -1;
}

/* ---- raw ---------------------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

int64_t *inference_layers(struct api_call *call, const struct lab_model_info *model, bool last, size_t *n, struct error *error) {
  int64_t n_layer = model->n_layer, *given = read_integers(call, call->values, "layers", n, error);
  bool all = given && *n == 0;
  size_t count = all ? (size_t)n_layer : *n + last;
  int64_t *layers = given ? arena_array(&call->arena, count, sizeof *layers, error) : NULL;
  for (size_t i = 0; layers && i < count; i++) {
    char field[32];
    layers[i] = all ? (int64_t)i : i < *n ? given[i] : n_layer - 1;
    snprintf(field, sizeof field, "layers[%zu]", i);
    if (layers[i] < n_layer) continue;
    error_set_field(error, ERROR_ARGUMENT, field, "'%s' is %lld, the model has layers 0 to %lld", field, (long long)layers[i],
                    (long long)n_layer - 1);
    return NULL;
  }
  if (!layers) return NULL;
  qsort(layers, count, sizeof *layers, by_number);
  *n = 0;
  for (size_t i = 0; i < count; i++)
    if (!i || layers[i] != layers[*n - 1]) layers[(*n)++] = layers[i];
  return layers;
}

static int write_rows(struct api_call *call, struct json_writer *w, const struct lab_run_result *result, size_t t, float *row,
                      struct error *error) {
  const int64_t *layers = call->plan;
  const struct lab_run_text *text = &result->texts[t];
  jw_key(w, "activations");
  jw_open(w, '[');
  for (size_t i = 0; i < result->n_tensors; i++) {
    if (read_row(call, result, t, i, 0, row, error) != 0) return -1;
    jw_open(w, '{');
    jw_member_int(w, "layer", layers[i]);
    jw_key(w, "tokenIndices");
    jw_open(w, '[');
    jw_int(w, text->positions[0]);
    jw_close(w, ']');
    jw_key(w, "values");
    jw_open(w, '[');
    jw_f32_array(w, row, (size_t)result->tensors[i].width);
    jw_close(w, ']');
    jw_close(w, '}');
  }
  jw_close(w, ']');
  return 0;
}

/* One array [layer, text, column], or one of each layer [text, column], as they lie in the run's result: each text has one position. */
static int finish_arrays(struct api_call *call, enum tensor_form form, const struct lab_run_result *result, struct error *error) {
  struct tensor_shape *shapes = arena_array(&call->arena, result->n_tensors, sizeof *shapes, error);
  int64_t n_texts = (int64_t)result->n_texts, width = result->tensors[0].width, bytes = n_texts * width * (int64_t)sizeof(float);
  if (!shapes) return -1;
  for (size_t i = 0; i < result->n_tensors; i++)
    shapes[i] = (struct tensor_shape){.name = result->tensors[i].name, .dims = {n_texts, width}, .n_dims = 2, .bytes = bytes,
                                      .offset = result->texts[0].offsets[i]};
  struct tensor_shape all = {.dims = {(int64_t)result->n_tensors, n_texts, width}, .n_dims = 3, .bytes = result->bytes};
  if (form == TENSOR_NPY)
    tensor_write_npy(&call->body, &all);
  else
    tensor_write_safetensors(&call->body, shapes, result->n_tensors);
  return tensor_stream(call, form, result->bytes, lab_run_read, error);
}

static int finish_raw(struct api_call *call, struct error *error) {
  const struct lab_run_result *result = lab_run_result(call->job);
  enum tensor_form form = tensor_form(call);
  if (form != TENSOR_JSON) return finish_arrays(call, form, result, error);
  float *row = new_row(call, result, error);
  if (!row) return -1;
  struct json_writer w;
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  jw_init(&w, &call->body);
  w.snake = call_speaks_snake(call);
  jw_open(&w, '{');
  jw_member_text(&w, "hookPoint", values_text(call->values, "hookPoint", NULL));
  jw_member_text(&w, "type", values_text(call->values, "type", NULL));
  jw_member_text(&w, "dtype", "float32");
  jw_member_text(&w, "device", stats.backend);
  jw_key(&w, "results");
  jw_open(&w, '[');
  for (size_t t = 0; t < result->n_texts; t++) {
    const struct lab_run_text *text = &result->texts[t];
    jw_open(&w, '{');
    reply_texts(&w, "tokenStrings", text->tokens, text->n_tokens);
    reply_ids(&w, "tokenIds", text->ids, text->n_tokens);
    if (write_rows(call, &w, result, t, row, error) != 0) return -1;
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int inference_raw_post(struct api_call *call, struct error *error) {
  static const int64_t last = -1;
  struct lab_run_args args = {.positions = &last, .n_positions = 1};
  if (read_texts(call, "prompts", true, &args, error) != 0) return -1;
  int64_t *layers = inference_layers(call, args.model, false, &args.n_points, error);
  const char **points = layers ? arena_array(&call->arena, args.n_points, sizeof *points, error) : NULL;
  if (!points) return -1;
  for (size_t i = 0; i < args.n_points; i++)
    if (!(points[i] = arena_printf(&call->arena, error, "blocks.%d.hook_resid_post", (int)layers[i]))) return -1;
  args.points = points;
  call->plan = layers;
  call->finish = finish_raw;
  return lab_run(call->api->lab, &args, call->waker, &call->job, error);
}

/* ---- attention ---------------------------------------------------------------------------------------- */

enum { KEYS_MOST = 8 };       /* of one row that are told */
#define WEIGHT_LEAST 0.005f   /* what is below is left out */

struct weights {
  int64_t *indices;
  float *values;
  size_t n;
  float most;
};

/* Key k of a row into the list of its strongest, strongest first; of equals the earlier key. */
static void rank_key(size_t strongest[KEYS_MOST], int *n, const float *row, size_t k) {
  if (*n == KEYS_MOST && !(row[k] > row[strongest[KEYS_MOST - 1]])) return;
  int at = *n < KEYS_MOST ? (*n)++ : KEYS_MOST - 1;
  for (; at > 0 && row[k] > row[strongest[at - 1]]; at--) strongest[at] = strongest[at - 1];
  strongest[at] = k;
}

/* Row q of the pattern: its strongest keys in their order, and the maximum without BOS. */
static void take_row(struct weights *weights, const float *row, size_t q, size_t n) {
  size_t strongest[KEYS_MOST], last = 0;
  int count = 0;
  for (size_t k = 0; k <= q; k++) {
    if (q && k && row[k] > weights->most) weights->most = row[k];
    if (row[k] >= WEIGHT_LEAST) rank_key(strongest, &count, row, k);
  }
  for (int i = 0; i < count; i++) {
    size_t next = SIZE_MAX;
    for (int j = 0; j < count; j++)
      if ((!i || strongest[j] > last) && strongest[j] < next) next = strongest[j];
    weights->indices[weights->n] = (int64_t)(q * n + next);
    weights->values[weights->n++] = row[next];
    last = next;
  }
}

static int finish_attention(struct api_call *call, struct error *error) {
  const struct lab_run_result *result = lab_run_result(call->job);
  const struct lab_run_text *text = &result->texts[0];
  size_t n = text->n_tokens;
  struct weights weights = {.indices = arena_array(&call->arena, n * KEYS_MOST, sizeof *weights.indices, error),
                            .values = arena_array(&call->arena, n * KEYS_MOST, sizeof *weights.values, error)};
  float *row = new_row(call, result, error);
  if (!weights.indices || !weights.values || !row) return -1;
  for (size_t q = 0; q < n; q++) {
    if (read_row(call, result, 0, 0, q, row, error) != 0) return -1;
    take_row(&weights, row, q, n);
  }
  struct json_writer w;
  jw_init(&w, &call->body);
  w.snake = call_speaks_snake(call);
  jw_open(&w, '{');
  jw_member_int(&w, "seqLen", (int64_t)n);
  jw_key(&w, "attentionIndices");
  jw_open(&w, '[');
  for (size_t i = 0; i < weights.n; i++) jw_int(&w, weights.indices[i]);
  jw_close(&w, ']');
  jw_key(&w, "attentionValues");
  jw_f32_array(&w, weights.values, weights.n);
  jw_member_f32(&w, "maxActivation", weights.most);
  reply_texts(&w, "tokens", text->tokens, n);
  jw_close(&w, '}');
  return 0;
}

static int check_below(int64_t number, int64_t end, const char *field, struct error *error) {
  if (number < end) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "'%s' is %lld, the model has %ss 0 to %lld", field, (long long)number, field,
                         (long long)end - 1);
}

int inference_attention_post(struct api_call *call, struct error *error) {
  int64_t layer = values_int(call->values, "layer"), head = values_int(call->values, "head");
  struct lab_run_args args = {.n_points = 1, .heads = &head, .n_heads = 1};
  if (read_texts(call, "prompt", false, &args, error) != 0 || check_below(layer, args.model->n_layer, "layer", error) != 0 ||
      check_below(head, args.model->n_head, "head", error) != 0)
    return -1;
  const char *point = arena_printf(&call->arena, error, "blocks.%d.attn.hook_pattern", (int)layer);
  if (!point) return -1;
  args.points = &point;
  call->finish = finish_attention;
  return lab_run(call->api->lab, &args, call->waker, &call->job, error);
}
