/* lab_lens.c: POST /v1/lab/lens: what each layer would predict. POST /v1/lab/components: which component wrote a logit. */
#include "api/handlers.h"
#include "api/lab_common.h"

const struct field lab_lens_fields[] = {
    MODEL_ROW,
    INPUTS_ROWS,
    EDITS_ROW,
    {"layers", NULL, FIELD_INTS, .max = 4096,
     .text = "The residual stream after so many layers: 0 is the embedding, the number of layers the model's end. Left out: all."},
    {"positions", NULL, FIELD_PLACES, .min = 1, .max = 1e6, .text = "These tokens only; -1 is the last."},
    {"topK", "k", FIELD_INT, .fallback = "5", .max = 1000, .text = "Likeliest tokens of each cell."},
    {"answers", "answer", FIELD_TEXTS, .min = 1, .max = 128, .text = "Tokens to tell rank and probability of."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true",
     .text = "A space in front of answers that do not begin with one."},
    {.name = NULL}};

const struct field lab_components_fields[] = {
    MODEL_ROW,
    INPUTS_ROWS,
    EDITS_ROW,
    {"position", NULL, FIELD_INT, .fallback = "-1", .min = -1e6, .max = 1e6, .text = "Whose prediction; -1 is the last."},
    {"answers", "answer", FIELD_TEXTS, .required = true, .min = 1, .max = 128,
     .text = "One token: its logit; two: the logit of the first less that of the second."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true",
     .text = "A space in front of answers that do not begin with one."},
    {"heads", NULL, FIELD_BOOL, .fallback = "true", .text = "Also each head of each layer."},
    {.name = NULL}};

static void write_layer(struct json_writer *w, const struct lab_lens_result *result, const struct lab_lens_text *text, size_t l) {
  size_t k = (size_t)result->top_k, answers = result->n_answers;
  jw_open(w, '{');
  jw_member_int(w, "layer", result->layers[l]);
  jw_key(w, "positions");
  jw_open(w, '[');
  for (size_t p = 0; p < text->n_positions; p++) {
    size_t cell = l * text->n_positions + p;
    jw_open(w, '{');
    jw_member_int(w, "position", text->positions[p]);
    lab_write_table(w, "top", text->top + cell * k, k);
    lab_write_table(w, "answers", text->answers + cell * answers, answers);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

static void write_lens(struct json_writer *w, const void *of, size_t t) {
  const struct lab_lens_result *result = of;
  const struct lab_lens_text *text = &result->texts[t];
  jw_open(w, '{');
  lab_write_tokens(w, text->tokens, text->ids, text->n_tokens);
  jw_key(w, "layers");
  jw_open(w, '[');
  for (size_t l = 0; l < result->n_layers; l++) write_layer(w, result, text, l);
  jw_close(w, ']');
  jw_close(w, '}');
}

static int lab_lens_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_lens_result *result = lab_lens_result(call->job);
  return lab_write_texts(call, result->n_texts, write_lens, result);
}

int lab_lens_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct lab_lens_args args = {.model = call_model(call, values, "modelId", error), .bos = lab_read_bos(values),
                               .top_k = (int)values_int(values, "topK"), .prepend_space = values_bool(values, "prependSpace")};
  struct lab_input *answers, *inputs;
  bool many;
  if (!args.model || lab_read_inputs(call, values, &inputs, &args.n_inputs, &many, error) != 0 ||
      edits_read(call, values, "edits", "", &args.edits, &args.n_edits, error) != 0 ||
      lab_read_answers(call, values, "answers", &answers, &args.n_answers, error) != 0 ||
      !(args.layers = read_integers(call, values, "layers", &args.n_layers, error)) ||
      !(args.positions = read_integers(call, values, "positions", &args.n_positions, error)))
    return -1;
  args.answers = answers;
  args.inputs = inputs;
  call->finish = lab_lens_finish;
  return lab_lens(call->api->lab, &args, call->waker, &call->job, error);
}

static void write_components(struct json_writer *w, const void *of, size_t t) {
  const struct lab_components_result *result = of;
  const struct lab_components_text *text = &result->texts[t];
  size_t n_layer = (size_t)result->n_layer, n_head = (size_t)result->n_head;
  jw_open(w, '{');
  lab_write_tokens(w, text->tokens, text->ids, text->n_tokens);
  jw_member_int(w, "position", text->position);
  lab_write_answers(w, result->answers);
  jw_member_f64(w, "total", text->total);
  jw_member_f64(w, "embedding", text->embedding);
  jw_member_f64(w, "bias", text->bias);
  lab_write_doubles(w, "attention", text->attention, n_layer);
  lab_write_doubles(w, "mlp", text->mlp, n_layer);
  jw_key(w, "heads");
  if (text->heads) jw_open(w, '[');
  for (size_t l = 0; text->heads && l < n_layer; l++) lab_write_doubles(w, NULL, text->heads + l * n_head, n_head);
  if (text->heads)
    jw_close(w, ']');
  else
    jw_null(w);
  jw_close(w, '}');
}

static int lab_components_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_components_result *result = lab_components_result(call->job);
  return lab_write_texts(call, result->n_texts, write_components, result);
}

int lab_components_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct lab_components_args args = {.model = call_model(call, values, "modelId", error), .bos = lab_read_bos(values),
                                     .position = values_int(values, "position"), .heads = values_bool(values, "heads"),
                                     .prepend_space = values_bool(values, "prependSpace")};
  struct lab_input *inputs;
  bool many;
  if (!args.model || lab_read_inputs(call, values, &inputs, &args.n_inputs, &many, error) != 0 ||
      edits_read(call, values, "edits", "", &args.edits, &args.n_edits, error) != 0 ||
      lab_read_pair(call, 1, args.answers, error) != 0)
    return -1;
  args.inputs = inputs;
  call->finish = lab_components_finish;
  return lab_components(call->api->lab, &args, call->waker, &call->job, error);
}
