/* tokenize.c: text in, tokens out. Neuronpedia's web API calls the text `prompt`, its inference server `text`. */
#include "api/call.h"
#include "api/handlers.h"
#include "api/reply.h"

#define BOS_ROW                                                                                          \
  {"prependBos", NULL, FIELD_BOOL, .text = "Whether a BOS token stands in front; left out: as the model wants it."}

const struct field tokenize_fields[] = {
    {"prompt", "text", FIELD_TEXT, .required = true, .min = 1, .max = 10000, .text = "The text to cut into tokens."},
    {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."},
    BOS_ROW, {.name = NULL}};

const struct field tokenize_v1_fields[] = {
    {"text", "prompt", FIELD_TEXT, .required = true, .max = 0, .text = "The text to cut into tokens; may be empty."},
    {"model", "modelId", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."},
    BOS_ROW, {.name = NULL}};

static void write_tokens(struct json_writer *w, const struct lab_tokens *tokens) {
  jw_open(w, '{');
  reply_ids(w, "tokens", tokens->ids, tokens->count);
  jw_key(w, "tokenStrings");
  jw_open(w, '[');
  for (size_t i = 0; i < tokens->count; i++) jw_text(w, tokens->texts[i]);
  jw_close(w, ']');
  jw_member_bool(w, "prependBos", tokens->bos);
  jw_close(w, '}');
}

static int tokenize(struct api_call *call, const char *text_field, const char *model_field, bool snake, struct error *error) {
  const struct values *values = call->values;
  const struct lab_model_info *model = call_model(call, values, model_field, error);
  if (!model) return -1;
  size_t length;
  const char *text = values_text(values, text_field, &length);
  enum lab_bos bos = LAB_BOS_DEFAULT;
  if (values_has(values, "prependBos")) bos = values_bool(values, "prependBos") ? LAB_BOS_YES : LAB_BOS_NO;
  struct lab_tokens tokens;
  if (lab_tokenize(call->api->lab, model, text, length, bos, &call->arena, &tokens, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  w.snake = snake;
  write_tokens(&w, &tokens);
  return 0;
}

int tokenize_post(struct api_call *call, struct error *error) { return tokenize(call, "prompt", "modelId", false, error); }

int tokenize_v1_post(struct api_call *call, struct error *error) {
  return tokenize(call, "text", "model", call_speaks_snake(call), error);
}
