/* inference_lens.c: POST /v1/lens/prompt and /api/lens/prompt: what each layer would predict at each token of a prompt and of what the
 * model writes behind it, as lines of JSON or as one object. It is the laboratory's logit lens, told per token; lenses that were
 * fitted (Jacobian) are not served. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/edits.h"
#include "api/handlers.h"
#include "api/inference.h"
#include "api/reply.h"
#include "api/steer.h"

static const struct field steer_token_rows[] = {
    {"token", NULL, FIELD_TEXT, .max = 128, .text = "A token."}, {.name = NULL}};

#define LENS_ROWS(model_, alias_, top_, temperature_, tokens_)                                                                 \
  {model_, alias_, FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."},                    \
  {"type", NULL, FIELD_CHOICES, .choices = "LOGIT_LENS JACOBIAN_LENS",                                                         \
   .text = "Which lenses; LOGIT_LENS when left out, and the only one that is served."},                                        \
  {"prompt", NULL, FIELD_TEXT, .min = 1, .cap = CAP_PROMPT, .text = "A text; or give chat, or inputTokenIds."},                \
  {"chat", NULL, FIELD_OBJECTS, .max = 1024, .inner = steer_message_rows, .text = "A chat, read up to where its answer begins."}, \
  {"inputTokenIds", NULL, FIELD_INTS, .max = 1e6, .text = "Exactly these tokens; nothing is generated."},                      \
  {"topN", NULL, FIELD_INT, .fallback = top_, .min = 1, .max = INFERENCE_RESULTS_MOST, .text = "Likeliest tokens of each cell."}, \
  {"layers", NULL, FIELD_INTS, .max = 4096, .text = "Behind these layers, and the last; [] or left out: all."},                \
  {"maxSeqLen", NULL, FIELD_INT, .min = 1, .max = 1e9, .text = "Cuts the prompt to so many tokens; left out: one that is too long is refused."}, \
  {"prependBos", NULL, FIELD_BOOL, .fallback = "true", .text = "BOS in front of a prompt, where the model has one."},          \
  {"enableThinking", NULL, FIELD_BOOL, .fallback = "false", .text = "Whether a chat's answer may begin with thoughts, where the format knows a switch."}, \
  {"numCompletionTokens", "nCompletionTokens", FIELD_INT, .fallback = tokens_, .cap = CAP_NEW_TOKENS,                          \
   .text = "Tokens to generate behind the prompt, which are looked at too."},                                                  \
  {"temperature", NULL, FIELD_NUMBER, .fallback = temperature_, .max = 2, .text = "Of these; 0 always takes the likeliest."},  \
  {"seed", NULL, FIELD_NUMBER, .fallback = "42", .min = -1e8, .max = 1e8, .text = "Of these; a fraction is cut off."},         \
  {"filterNonWordTokens", NULL, FIELD_BOOL, .fallback = "true",                                                                \
   .text = "Tells words alone (letters and numbers), but for the last layer's likeliest token."},                              \
  {"cachedTokenIds", NULL, FIELD_INTS, .max = 1e6, .text = "What was told before: tokens the prompt begins with are not told again."}, \
  {"steerTokens", NULL, FIELD_OBJECTS, .max = 1024, .inner = steer_token_rows, .text = "[] or left out: a lens is not steered here."}, \
  {"failIfBusy", NULL, FIELD_BOOL, .fallback = "false", .text = "Answers 429 instead of waiting in the queue."},               \
  {"stream", NULL, FIELD_BOOL, .fallback = "true", .text = "Lines of JSON; false: one object."}

const struct field inference_lens_fields[] = {LENS_ROWS("model", "modelId", "10", "1", "0"), {.name = NULL}};
const struct field lens_prompt_fields[] = {LENS_ROWS("modelId", "model", "8", "0", "128"), {.name = NULL}};

struct lens_plan {
  const struct lab_model_info *model;
  int64_t *layers;    /* as upstream counts: behind layer l */
  size_t n_layers;
  int64_t n_tokens;
  double temperature;
  bool bos;
};

/* ---- out ---------------------------------------------------------------------------------------------- */

static void write_layers(struct json_writer *w, const struct lens_plan *plan) {
  jw_open(w, '[');
  for (size_t i = 0; i < plan->n_layers; i++) jw_int(w, plan->layers[i]);
  jw_close(w, ']');
}

/* How many of the prompt's tokens the client knows already. */
static size_t count_known(const struct values *values, const struct lab_lens_text *text) {
  size_t n = 0, given = values_count(values, "cachedTokenIds");
  while (n < given && n < text->n_prompt && values_int_at(values, "cachedTokenIds", n) == text->ids[n]) n++;
  return n;
}

static void write_meta(struct json_writer *w, const struct api_call *call, const struct lab_lens_result *result, size_t known) {
  const struct lens_plan *plan = call->plan;
  jw_open(w, '{');
  jw_member_text(w, "kind", "meta");
  jw_member_text(w, "model", plan->model->id);
  jw_key(w, "types");
  jw_open(w, '[');
  jw_text(w, "LOGIT_LENS");
  jw_close(w, ']');
  jw_key(w, "layers_by_type");
  jw_open(w, '{');
  jw_key(w, "LOGIT_LENS");
  write_layers(w, plan);
  jw_close(w, '}');
  jw_member_int(w, "top_n", result->top_k);
  jw_member_int(w, "prompt_len", (int64_t)result->texts[0].n_prompt);
  jw_member_int(w, "num_completion_tokens", plan->n_tokens);
  jw_member_f64(w, "temperature", plan->temperature);
  jw_member_bool(w, "prepend_bos", plan->bos);
  jw_member_int(w, "reuse_len", (int64_t)known);
  jw_close(w, '}');
}

static void write_head(struct json_writer *w, const struct lab_lens_text *text, size_t i) {
  jw_member_int(w, "position", (int64_t)i);
  jw_member_text(w, "token", text->shown[i]);
  jw_member_int(w, "id", text->ids[i]);
  jw_member_bool(w, "is_generated", i >= text->n_prompt);
  jw_member_bool(w, "is_char_continuation", text->continued[i]);
}

/* Which message of a chat a token belongs to is not told. */
static void write_tail(struct json_writer *w) {
  static const char *const members[] = {"message_index", "role", "channel", "section"};
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) jw_member_null(w, members[i]);
}

static void write_prompt(struct json_writer *w, const struct lab_lens_text *text) {
  jw_open(w, '{');
  jw_member_text(w, "kind", "prompt");
  jw_key(w, "tokens");
  jw_open(w, '[');
  for (size_t i = 0; i < text->n_prompt; i++) {
    jw_open(w, '{');
    write_head(w, text, i);
    write_tail(w);
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

static void write_cell(struct json_writer *w, const struct lab_token *top, int n, bool probabilities) {
  jw_open(w, '[');
  for (int i = 0; i < n && top[i].id >= 0; i++) {
    if (probabilities)
      jw_f32(w, expf(top[i].logprob));
    else
      jw_text(w, top[i].text);
  }
  jw_close(w, ']');
}

static void write_cells(struct json_writer *w, const char *key, const struct lab_lens_result *result, size_t i, bool probabilities) {
  const struct lab_lens_text *text = &result->texts[0];
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t l = 0; l < result->n_layers; l++)
    write_cell(w, text->top + (l * text->n_positions + i) * (size_t)result->top_k, result->top_k, probabilities);
  jw_close(w, ']');
}

static void write_token(struct json_writer *w, const struct lab_lens_result *result, size_t i) {
  jw_open(w, '{');
  jw_member_text(w, "kind", "token");
  write_head(w, &result->texts[0], i);
  jw_key(w, "results");
  jw_open(w, '[');
  jw_open(w, '{');
  jw_member_text(w, "type", "LOGIT_LENS");
  write_cells(w, "top_tokens", result, i, false);
  write_cells(w, "top_probs", result, i, true);
  jw_close(w, '}');
  jw_close(w, ']');
  write_tail(w);
  jw_close(w, '}');
}

static void write_done(struct json_writer *w, const struct api_call *call, const struct lab_lens_text *text) {
  const struct lens_plan *plan = call->plan;
  jw_open(w, '{');
  jw_member_text(w, "kind", "done");
  jw_member_int(w, "seq_len", (int64_t)text->n_tokens);
  jw_member_int(w, "prompt_len", (int64_t)text->n_prompt);
  jw_member_int(w, "vocab_size", plan->model->vocabulary);
  jw_member_text(w, "completion", text->completion);
  jw_close(w, '}');
}

static int finish_object(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_lens_result *result = lab_lens_result(call->job);
  const struct lab_lens_text *text = &result->texts[0];
  struct json_writer w;
  size_t known = count_known(call->values, text);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "meta");
  write_meta(&w, call, result, known);
  jw_key(&w, "tokens");
  jw_open(&w, '[');
  for (size_t i = known; i < text->n_tokens; i++) write_token(&w, result, i);
  jw_close(&w, ']');
  jw_key(&w, "done");
  write_done(&w, call, text);
  jw_close(&w, '}');
  return 0;
}

static int finish_lines(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_lens_result *result = lab_lens_result(call->job);
  const struct lab_lens_text *text = &result->texts[0];
  struct json_writer w;
  size_t known = count_known(call->values, text);
  call->content_type = "application/x-ndjson; charset=utf-8";
  jw_init(&w, &call->body);
  write_meta(&w, call, result, known);
  buffer_char(&call->body, '\n');
  jw_init(&w, &call->body);
  write_prompt(&w, text);
  for (size_t i = known; i < text->n_tokens; i++) {
    buffer_char(&call->body, '\n');
    jw_init(&w, &call->body);
    write_token(&w, result, i);
  }
  buffer_char(&call->body, '\n');
  jw_init(&w, &call->body);
  write_done(&w, call, text);
  buffer_char(&call->body, '\n');
  return 0;
}

/* ---- in ----------------------------------------------------------------------------------------------- */

/* As the laboratory counts: after so many layers. */
static int read_layers(struct api_call *call, struct lens_plan *plan, struct lab_lens_args *args, struct error *error) {
  plan->layers = inference_layers(call, plan->model, true, &plan->n_layers, error);
  int64_t *after = plan->layers ? arena_array(&call->arena, plan->n_layers, sizeof *after, error) : NULL;
  for (size_t i = 0; after && i < plan->n_layers; i++) after[i] = plan->layers[i] + 1;
  args->layers = after;
  args->n_layers = plan->n_layers;
  return after ? 0 : -1;
}

static int check_types(const struct values *values, struct error *error) {
  for (size_t i = 0; i < values_count(values, "type"); i++) {
    char field[32];
    snprintf(field, sizeof field, "type[%zu]", i);
    if (strcmp(values_text_at(values, "type", i, NULL), "LOGIT_LENS") != 0)
      return error_set_field(error, ERROR_ARGUMENT, field, "'%s': Jacobian lens is not available for this model, as no lens was fitted to "
                             "it; LOGIT_LENS is", field);
  }
  if (values_count(values, "steerTokens") == 0) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "steerTokens", "'steerTokens' is not served here; POST /v1/lab/lens takes edits at any point");
}

/* Exactly one of the three, unless token ids are there: they say it all. */
static int check_input(const struct values *values, struct error *error) {
  bool prompt = values_has(values, "prompt"), chat = values_count(values, "chat") > 0;
  if (values_count(values, "inputTokenIds") || prompt != chat) return 0;
  return error_set_field(error, ERROR_ARGUMENT, prompt ? "chat" : "prompt", "exactly one of 'prompt' and 'chat' (or 'inputTokenIds') is to be "
                         "given, found %s", prompt ? "both" : "neither");
}

/* Formats that always think aloud refuse to be quiet: then only who asked for it hears of that. */
static int read_chat(struct api_call *call, const struct lab_model_info *model, struct lab_input *out, int32_t *ends_turn,
                     struct error *error) {
  struct lab_chat chat;
  struct error own = ERROR_INIT;
  bool quiet = !values_bool(call->values, "enableThinking"), asked = values_has(call->values, "enableThinking");
  if (steer_read_chat(call, model, "chat", quiet, &chat, &own) != 0 &&
      (asked || !quiet || steer_read_chat(call, model, "chat", false, &chat, error) != 0))
    return error->code ? -1 : error_set_field(error, own.code, own.field, "%s", own.text);
  *out = (struct lab_input){.ids = chat.ids, .n_ids = chat.n_ids, .field = "chat"};
  *ends_turn = chat.ends_turn;
  return 0;
}

/* A prompt as tokens, where it is to be cut; a length that nobody asked for is refused by whoever runs it. */
static int read_cut(struct api_call *call, const struct lens_plan *plan, struct lab_input *input, struct error *error) {
  struct lab_tokens tokens;
  if (!values_has(call->values, "maxSeqLen")) return 0;
  size_t most = (size_t)values_int(call->values, "maxSeqLen");
  if (!input->ids) {
    if (lab_tokenize(call->api->lab, plan->model, input->text, input->length, plan->bos ? LAB_BOS_YES : LAB_BOS_NO, &call->arena, &tokens,
                     error) != 0)
      return -1;
    int64_t *ids = arena_array(&call->arena, tokens.count, sizeof *ids, error);
    if (!ids) return -1;
    for (size_t i = 0; i < tokens.count; i++) ids[i] = tokens.ids[i];
    input->ids = ids;
    input->n_ids = tokens.count;
  }
  if (input->n_ids > most) input->n_ids = most;
  return 0;
}

static int read_input_of(struct api_call *call, const struct lens_plan *plan, struct lab_input *input, struct lab_lens_args *args,
                         struct error *error) {
  const struct values *values = call->values;
  if (check_input(values, error) != 0) return -1;
  if (values_count(values, "inputTokenIds")) {
    input->ids = read_integers(call, values, "inputTokenIds", &input->n_ids, error);
    input->field = "inputTokenIds";
    return input->ids ? 0 : -1;
  }
  args->n_tokens = values_int(values, "numCompletionTokens");
  if (values_has(values, "prompt")) {
    input->text = values_text(values, "prompt", &input->length);
    input->field = "prompt";
  } else if (read_chat(call, plan->model, input, &args->ends_turn, error) != 0) {
    return -1;
  }
  return read_cut(call, plan, input, error);
}

static bool is_busy(struct api_call *call) {
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  return stats.queued > 0 || stats.running >= stats.max_sessions;
}

static int start(struct api_call *call, const char *model, struct error *error) {
  const struct values *values = call->values;
  struct lens_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  struct lab_input input = {0};
  if (!plan || check_types(values, error) != 0) return -1;
  *plan = (struct lens_plan){.model = call_model(call, values, model, error), .temperature = values_number(values, "temperature"),
                             .bos = values_bool(values, "prependBos")};
  struct lab_lens_args args = {.model = plan->model, .inputs = &input, .n_inputs = 1, .bos = plan->bos ? LAB_BOS_YES : LAB_BOS_NO,
                               .top_k = (int)values_int(values, "topN"), .temperature = plan->temperature,
                               .seed = (int64_t)values_number(values, "seed"), .ends_turn = -1,
                               .words = values_bool(values, "filterNonWordTokens")};
  if (!plan->model || read_layers(call, plan, &args, error) != 0 || read_input_of(call, plan, &input, &args, error) != 0) return -1;
  if (values_bool(values, "failIfBusy") && is_busy(call)) {
    reply_refuse(call, 429, "busy", "the server is busy with other requests, and 'failIfBusy' says not to wait");
    return 0;
  }
  plan->n_tokens = args.n_tokens;
  call->plan = plan;
  call->finish = values_bool(values, "stream") ? finish_lines : finish_object;
  struct error own = ERROR_INIT;
  if (lab_lens(call->api->lab, &args, call->waker, &call->job, &own) == 0) return 0;
  bool cells = strcmp(own.field, "positions") == 0; /* which nobody names here: there are too many at all layers */
  return error_set_field(error, own.code, cells ? "layers" : own.field, "%s", own.text);
}

int inference_lens_post(struct api_call *call, struct error *error) { return start(call, "model", error); }
int lens_prompt_post(struct api_call *call, struct error *error) { return start(call, "modelId", error); }
