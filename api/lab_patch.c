/* lab_patch.c: POST /v1/lab/patch: the matrix of activation patching. */
#include <string.h>

#include "api/handlers.h"
#include "api/lab_common.h"

static const struct field prompt_rows[] = {
    {"text", NULL, FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "The text; or give tokens."},
    {"tokens", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids in place of a text."},
    {.name = NULL}};

#define PROMPT_EXAMPLE "{\"text\": \"...\"}"

const struct field lab_patch_fields[] = {
    MODEL_ROW,
    {"clean", NULL, FIELD_OBJECT, .required = true, .inner = prompt_rows, .example = PROMPT_EXAMPLE,
     .text = "The run that is taken from."},
    {"corrupted", NULL, FIELD_OBJECT, .required = true, .inner = prompt_rows, .example = PROMPT_EXAMPLE,
     .text = "The run that is patched; as many tokens as the clean one."},
    PREPEND_BOS_ROW,
    {"point", NULL, FIELD_TEXT, .fallback = "resid_pre", .min = 1, .max = 128,
     .text = "The kind of point, at every layer: resid_pre, attn_out, mlp_out, z, ..."},
    {"axes", NULL, FIELD_CHOICE, .fallback = "layer-position", .choices = "layer-position layer-head layer",
     .text = "What one cell puts in: one position of one layer, one head of it at all positions, or all of the layer."},
    {"metric", NULL, FIELD_CHOICE, .fallback = "logit-difference", .choices = "logit-difference logprob probability",
     .text = "Of the token after the text."},
    {"answers", "answer", FIELD_TEXTS, .required = true, .min = 1, .max = 128,
     .text = "The right token, and for logit-difference the wrong one."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true",
     .text = "A space in front of answers that do not begin with one."},
    {"layers", NULL, FIELD_INTS, .max = 4096, .text = "These layers only."},
    {"positions", NULL, FIELD_PLACES, .min = 1, .max = 1e6, .text = "These positions only; -1 is the last."},
    {.name = NULL}};

static void write_matrix(struct json_writer *w, const char *key, const double *values, size_t rows, size_t columns) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < rows; i++) lab_write_doubles(w, NULL, values + i * columns, columns);
  jw_close(w, ']');
}

static void write_numbers(struct json_writer *w, const char *key, const int64_t *numbers, size_t n) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) jw_int(w, numbers[i]);
  jw_close(w, ']');
}

static void write_run(struct json_writer *w, const char *key, const struct lab_patch_result *result, int run, double value) {
  jw_key(w, key);
  jw_open(w, '{');
  lab_write_tokens(w, result->tokens[run], result->ids[run], result->n_tokens);
  jw_member_f64(w, "value", value);
  jw_close(w, '}');
}

void lab_write_answers(struct json_writer *w, const struct lab_token answers[2]) {
  jw_key(w, "answers");
  jw_open(w, '[');
  for (int i = 0; i < 2 && answers[i].id >= 0; i++) {
    jw_open(w, '{');
    jw_member_text(w, "token", answers[i].text);
    jw_member_int(w, "id", answers[i].id);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static int lab_patch_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_patch_result *result = lab_patch_result(call->job);
  const char *axes = values_text(call->values, "axes", NULL);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "point", result->point);
  jw_member_text(&w, "axes", axes);
  lab_write_answers(&w, result->answers);
  write_run(&w, "clean", result, 0, result->clean);
  write_run(&w, "corrupted", result, 1, result->corrupted);
  write_numbers(&w, "layers", result->layers, result->n_layers);
  if (strcmp(axes, "layer") != 0)
    write_numbers(&w, strcmp(axes, "layer-head") == 0 ? "heads" : "positions", result->columns, result->n_columns);
  write_matrix(&w, "matrix", result->matrix, result->n_layers, result->n_columns);
  write_matrix(&w, "values", result->values, result->n_layers, result->n_columns);
  jw_close(&w, '}');
  return 0;
}

int lab_read_pair(struct api_call *call, size_t least, struct lab_input answers[2], struct error *error) {
  struct lab_input *all;
  size_t n;
  if (lab_read_answers(call, call->values, "answers", &all, &n, error) != 0) return -1;
  if (n < least || n > 2)
    return error_set_field(error, ERROR_ARGUMENT, "answers", "'answers' must hold %s, found %zu",
                           least == 2 ? "the right token and the wrong one" : "one token, or two for their difference", n);
  for (size_t i = 0; i < n; i++) answers[i] = all[i];
  return 0;
}

static int read_args(struct api_call *call, struct lab_patch_args *args, struct error *error) {
  const struct values *values = call->values;
  const char *axes = values_text(values, "axes", NULL), *metric = values_text(values, "metric", NULL);
  args->model = call_model(call, values, "modelId", error);
  args->bos = lab_read_bos(values);
  args->point = values_text(values, "point", NULL);
  args->axes = strcmp(axes, "layer") == 0 ? LAB_LAYER : strcmp(axes, "layer-head") == 0 ? LAB_LAYER_HEAD : LAB_LAYER_POSITION;
  args->metric = strcmp(metric, "logprob") == 0       ? LAB_LOGPROB
                 : strcmp(metric, "probability") == 0 ? LAB_PROBABILITY
                                                      : LAB_LOGIT_DIFFERENCE;
  args->prepend_space = values_bool(values, "prependSpace");
  if (!args->model || read_input(call, values_at(values, "clean", 0), "text", "tokens", "clean.", &args->clean, error) != 0 ||
      read_input(call, values_at(values, "corrupted", 0), "text", "tokens", "corrupted.", &args->corrupted, error) != 0 ||
      !(args->layers = read_integers(call, values, "layers", &args->n_layers, error)) ||
      !(args->positions = read_integers(call, values, "positions", &args->n_positions, error)))
    return -1;
  return lab_read_pair(call, args->metric == LAB_LOGIT_DIFFERENCE ? 2 : 1, args->answers, error);
}

int lab_patch_post(struct api_call *call, struct error *error) {
  struct lab_patch_args args = {0};
  if (read_args(call, &args, error) != 0) return -1;
  call->finish = lab_patch_finish;
  return lab_patch(call->api->lab, &args, call->waker, &call->job, error);
}
