/* lab_compare.c: POST /v1/lab/compare: features that differ between a position of one text and one of another. */
#include "api/handlers.h"
#include "api/lab_common.h"

const struct field lab_compare_fields[] = {
    MODEL_ROW,
    SOURCE_ROW("source", "layer"),
    {"text", "texts prompts", FIELD_TEXTS, .min = 1, .cap = CAP_PROMPT, .text = "Two texts; or give tokens."},
    {"tokens", NULL, FIELD_TOKENS, .min = 1, .max = 1e6, .text = "Two arrays of token ids in place of texts."},
    PREPEND_BOS_ROW,
    {"positions", "position", FIELD_PLACES, .min = 2, .max = 2, .text = "One in each text; left out: the last of both."},
    {"numResults", "topK", FIELD_INT, .fallback = "20", .min = 1, .max = 10000, .text = "Features at most."},
    {.name = NULL}};

static int lab_compare_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_compare_result *result = lab_compare_result(call->job);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "source", result->source->id);
  jw_key(&w, "texts");
  jw_open(&w, '[');
  for (int i = 0; i < 2; i++) {
    jw_open(&w, '{');
    lab_write_tokens(&w, result->tokens[i], result->ids[i], result->n_tokens[i]);
    jw_member_int(&w, "position", result->positions[i]);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_key(&w, "features");
  jw_open(&w, '[');
  for (size_t i = 0; i < result->n_features; i++) {
    const struct lab_difference *f = &result->features[i];
    jw_open(&w, '{');
    jw_member_int(&w, "index", f->index);
    jw_member_f32(&w, "first", f->first);
    jw_member_f32(&w, "second", f->second);
    jw_member_f32(&w, "difference", f->second - f->first);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int lab_compare_post(struct api_call *call, struct error *error) {
  struct lab_compare_args args = {.bos = lab_read_bos(call->values), .positions = {-1, -1},
                                  .n_results = (int)values_int(call->values, "numResults")};
  struct lab_input *inputs;
  size_t n;
  bool many;
  args.model = call_model(call, call->values, "modelId", error);
  if (!args.model || lab_read_inputs(call, call->values, &inputs, &n, &many, error) != 0) return -1;
  if (n != 2)
    return error_set_field(error, ERROR_ARGUMENT, "text", "'text' must hold two texts to compare, found %zu", n);
  args.source_id = values_text(call->values, "source", NULL);
  for (size_t i = 0; i < 2; i++) args.inputs[i] = inputs[i];
  for (size_t i = 0; i < values_count(call->values, "positions"); i++)
    args.positions[i] = values_int_at(call->values, "positions", i);
  call->finish = lab_compare_finish;
  return lab_compare(call->api->lab, &args, call->waker, &call->job, error);
}
