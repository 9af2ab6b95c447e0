/* steer_chat.c: POST /api/steer-chat: two chats in, the answer to one steered beside the plain answer to the other. */
#include <stdio.h>
#include <string.h>

#include "api/edits.h"
#include "api/handlers.h"
#include "api/steer.h"
#include "core/base/unicode.h"
#include "core/complete.h"

enum { STEERED, DEFAULT, SIDES };

static const struct field message_rows[] = {
    {"role", NULL, FIELD_CHOICE, .required = true, .choices = "user assistant system model developer", .text = "Who says it."},
    {"content", NULL, FIELD_TEXT, .required = true, .cap = CAP_PROMPT, .text = "What is said."},
    {.name = NULL}};

const struct field steer_chat_fields[] = {
    {"defaultChatMessages", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = 1024, .inner = message_rows,
     .text = "The chat that is answered as the model is."},
    {"steeredChatMessages", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = 1024, .inner = message_rows,
     .text = "The chat that is answered with steering."},
    MODEL_ROW,
    {"features", NULL, FIELD_OBJECTS, .unless = "edits", .cap = CAP_FEATURES, .inner = steer_feature_rows,
     .text = "What to steer with; [] answers the steered chat as the model is."},
    EDITS_ROW,
    STEER_SAMPLING_ROWS,
    {"steer_special_tokens", NULL, FIELD_BOOL, .fallback = "true",
     .text = "false leaves special tokens of the chat (turns, BOS) unsteered."},
    STEER_METHOD_ROW("steer_method", NULL),
    {"n_logprobs", "logprobs", FIELD_INT, .max = 10,
     .text = "Give the log probability of each token, with so many alternatives; left out: none are given."},
    {"stream", NULL, FIELD_BOOL, .fallback = "false",
     .text = "Server-sent events, each with all of the reply so far; only the last has an id."},
    {"isAssistantAxis", NULL, FIELD_REFUSED, .text = "it belongs to one model of Neuronpedia's; leave it out"},
    {.name = NULL}};

static const char *const lists[SIDES] = {"steeredChatMessages", "defaultChatMessages"};
static const char *const names[SIDES] = {"STEERED", "DEFAULT"};

struct chat_plan {
  struct lab_complete_args args;
  struct lab_input prompts[SIDES];
  bool plain[SIDES];
  struct lab_chat chats[SIDES];
  int64_t written[SIDES]; /* tokens in the last event, -1 before the first */
};

/* ---- in ----------------------------------------------------------------------------------------------- */

static int read_chat(struct api_call *call, struct chat_plan *plan, int side, struct error *error) {
  const struct values *values = call->values;
  size_t n = values_count(values, lists[side]);
  struct lab_message *messages = arena_array(&call->arena, n, sizeof *messages, error);
  if (!messages) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct values *one = values_at(values, lists[side], i);
    messages[i].role = values_text(one, "role", NULL);
    messages[i].text = values_text(one, "content", &messages[i].length);
  }
  struct error own = ERROR_INIT;
  if (lab_chat(call->api->lab, plan->args.model, messages, n, false, &call->arena, &plan->chats[side], &own) != 0)
    return error_set_field(error, own.code, lists[side], "%s: %s", lists[side], own.text);
  plan->prompts[side] = (struct lab_input){.ids = plan->chats[side].ids, .n_ids = plan->chats[side].n_ids};
  return 0;
}

static int read_steering(struct api_call *call, struct chat_plan *plan, struct error *error) {
  const struct values *values = call->values;
  struct lab_steering *steering = &plan->args.steering;
  *steering = (struct lab_steering){.method = steer_method(values_text(values, "steer_method", NULL)),
                                    .strength_multiplier = values_number(values, "strength_multiplier"),
                                    .special_tokens = values_bool(values, "steer_special_tokens"), .prefix = "",
                                    .source_field = "layer"};
  if (steer_features(call, values, plan->args.model, "", "layer", &steering->features, &steering->n_features, error) != 0) return -1;
  return edits_read(call, values, "edits", "", &steering->edits, &steering->n_edits, error);
}

static int read_args(struct api_call *call, struct chat_plan *plan, struct error *error) {
  const struct values *values = call->values;
  plan->plain[DEFAULT] = true;
  plan->args = (struct lab_complete_args){.model = call_model(call, values, "modelId", error), .prompts = plan->prompts,
                                          .n_prompts = SIDES, .prompt_fields = lists, .plain = plan->plain, .n = 1,
                                          .n_tokens = values_int(values, "n_tokens"),
                                          .temperature = values_number(values, "temperature"), .top_p = 1,
                                          .frequency_penalty = values_number(values, "freq_penalty"),
                                          .seed = (int64_t)values_number(values, "seed"), .n_logprobs = -1};
  if (values_has(values, "n_logprobs")) plan->args.n_logprobs = (int)values_int(values, "n_logprobs");
  if (!plan->args.model) return -1;
  for (int i = 0; i < SIDES; i++)
    if (read_chat(call, plan, i, error) != 0) return -1;
  plan->args.ends_turn = plan->chats[DEFAULT].ends_turn;
  return read_steering(call, plan, error);
}

/* ---- out ---------------------------------------------------------------------------------------------- */

/* The messages as they came, and the answer as far as there is one, without the white space around it. */
static void write_turns(struct json_writer *w, const struct values *values, int side, const struct lab_news *news) {
  size_t front = unicode_space_prefix(news->text, news->length), length = news->length - front;
  length -= unicode_space_suffix(news->text + front, length);
  jw_key(w, "chatTemplate");
  jw_open(w, '[');
  for (size_t i = 0; i < values_count(values, lists[side]); i++) {
    const struct values *one = values_at(values, lists[side], i);
    size_t n;
    jw_open(w, '{');
    jw_key(w, "content");
    const char *text = values_text(one, "content", &n);
    jw_string(w, text, n);
    jw_member_text(w, "role", values_text(one, "role", NULL));
    jw_close(w, '}');
  }
  if (length) {
    jw_open(w, '{');
    jw_key(w, "content");
    jw_string(w, news->text + front, length);
    jw_member_text(w, "role", "assistant");
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_scored(struct json_writer *w, const struct lab_scored *scored, bool with_top) {
  jw_open(w, '{');
  jw_key(w, "token");
  jw_string(w, scored->bytes, scored->n_bytes);
  jw_member_f32(w, "logprob", scored->logprob);
  if (with_top) {
    jw_key(w, "topLogprobs");
    jw_open(w, '[');
    for (int i = 0; i < scored->n_top; i++) write_scored(w, &scored->top[i], false);
    jw_close(w, ']');
  }
  jw_close(w, '}');
}

static int write_side(struct json_writer *w, const struct api_call *call, int side, const struct lab_news *news,
                      struct arena *arena, struct error *error) {
  const struct chat_plan *plan = call->plan;
  const struct lab_chat *chat = &plan->chats[side];
  char *raw = arena_alloc(arena, chat->length + news->length + 1, error);
  if (!raw) return -1;
  memcpy(raw, chat->text, chat->length);
  memcpy(raw + chat->length, news->text, news->length);
  jw_key(w, names[side]);
  jw_open(w, '{');
  jw_key(w, "raw");
  jw_string(w, raw, chat->length + news->length);
  write_turns(w, call->values, side, news);
  jw_key(w, "logprobs");
  if (plan->args.n_logprobs >= 0) {
    jw_open(w, '[');
    for (size_t i = 0; i < news->n_scored; i++) write_scored(w, &news->scored[i], true);
    jw_close(w, ']');
  } else {
    jw_null(w);
  }
  jw_close(w, '}');
  return 0;
}

static void write_settings(struct json_writer *w, const struct api_call *call) {
  const struct chat_plan *plan = call->plan;
  const struct lab_complete_args *args = &plan->args;
  jw_key(w, "settings");
  jw_open(w, '{');
  jw_member_f64(w, "temperature", args->temperature);
  jw_member_int(w, "n_tokens", args->n_tokens);
  jw_member_f64(w, "freq_penalty", args->frequency_penalty);
  jw_member_int(w, "seed", args->seed);
  jw_member_f64(w, "strength_multiplier", args->steering.strength_multiplier);
  jw_member_bool(w, "steer_special_tokens", args->steering.special_tokens);
  jw_member_text(w, "steer_method", values_text(call->values, "steer_method", NULL));
  jw_close(w, '}');
}

/* The reply as far as it is known. id stays null until it is complete. */
static int write_reply(struct api_call *call, struct buffer *out, const struct lab_news news[SIDES], bool complete,
                       struct arena *arena, struct error *error) {
  struct json_writer w;
  jw_init(&w, out);
  jw_open(&w, '{');
  for (int i = 0; i < SIDES; i++)
    if (write_side(&w, call, i, &news[i], arena, error) != 0) return -1;
  jw_member_text(&w, "id", complete ? call->request->request_id : NULL);
  jw_member_null(&w, "shareUrl");
  jw_member_null(&w, "limit");
  write_settings(&w, call);
  jw_close(&w, '}');
  return 0;
}

static int read_news(struct api_call *call, struct arena *arena, struct lab_news news[SIDES], struct error *error) {
  for (size_t i = 0; i < SIDES; i++) {
    struct lab_seen all = {0};
    if (lab_complete_read(call->job, i, &all, arena, &news[i], error) != 0) return -1;
  }
  return 0;
}

static int finish(struct api_call *call, struct error *error) {
  struct lab_news news[SIDES];
  if (read_news(call, &call->arena, news, error) != 0) return -1;
  return write_reply(call, &call->body, news, true, &call->arena, error);
}

static bool has_news(struct chat_plan *plan, const struct lab_news news[SIDES]) {
  bool any = false;
  for (int i = 0; i < SIDES; i++) {
    any = any || news[i].n_tokens != plan->written[i];
    plan->written[i] = news[i].n_tokens;
  }
  return any;
}

/* One event; its memory is its own. */
static int frame(struct api_call *call, struct buffer *out, bool last, struct error *error) {
  struct lab_news news[SIDES];
  struct arena arena;
  arena_init(&arena, call->arena.limit);
  int failed = read_news(call, &arena, news, error);
  if (!failed && (has_news(call->plan, news) || last)) {
    buffer_text(out, "data: ");
    failed = write_reply(call, out, news, last, &arena, error);
    buffer_text(out, "\n\n");
  }
  arena_clear(&arena);
  return failed;
}

int steer_chat_post(struct api_call *call, struct error *error) {
  struct chat_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || read_args(call, plan, error) != 0) return -1;
  for (int i = 0; i < SIDES; i++) plan->written[i] = -1;
  call->plan = plan;
  call->stream = values_bool(call->values, "stream");
  call->finish = finish;
  call->frame = frame;
  return lab_complete(call->api->lab, &plan->args, call->waker, &call->job, error);
}
