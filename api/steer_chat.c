/* steer_chat.c: POST /api/steer-chat: two chats in, the answer to one steered beside the plain answer to the other. */
#include "api/edits.h"
#include "api/handlers.h"
#include "api/steer.h"

enum { STEERED, DEFAULT, SIDES };

const struct field steer_chat_fields[] = {
    {"defaultChatMessages", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = 1024, .inner = steer_message_rows,
     .text = "The chat that is answered as the model is."},
    {"steeredChatMessages", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = 1024, .inner = steer_message_rows,
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
  struct steer_texts texts; /* first: call->plan is one of these too */
  struct lab_chat chats[SIDES];
};

/* ---- in ----------------------------------------------------------------------------------------------- */

static int read_steering(struct api_call *call, struct chat_plan *plan, struct error *error) {
  const struct values *values = call->values;
  struct lab_steering *steering = &plan->texts.args.steering;
  *steering = (struct lab_steering){.method = steer_method(values_text(values, "steer_method", NULL)),
                                    .strength_multiplier = values_number(values, "strength_multiplier"),
                                    .special_tokens = values_bool(values, "steer_special_tokens"), .prefix = "",
                                    .source_field = "layer"};
  if (steer_features(call, values, plan->texts.args.model, "", "layer", &steering->features, &steering->n_features, error) != 0) return -1;
  return edits_read(call, values, "edits", "", &steering->edits, &steering->n_edits, error);
}

static int read_args(struct api_call *call, struct chat_plan *plan, struct error *error) {
  const struct values *values = call->values;
  struct lab_complete_args *args = &plan->texts.args;
  *args = (struct lab_complete_args){.model = call_model(call, values, "modelId", error), .n_prompts = SIDES,
                                     .n_tokens = values_int(values, "n_tokens"),
                                     .temperature = values_number(values, "temperature"), .top_p = 1,
                                     .frequency_penalty = values_number(values, "freq_penalty"),
                                     .seed = (int64_t)values_number(values, "seed"), .n_logprobs = -1};
  if (values_has(values, "n_logprobs")) args->n_logprobs = (int)values_int(values, "n_logprobs");
  if (!args->model) return -1;
  for (int i = 0; i < SIDES; i++) {
    if (steer_read_chat(call, args->model, lists[i], false, &plan->chats[i], error) != 0) return -1;
    plan->texts.prompts[i] = (struct lab_input){.ids = plan->chats[i].ids, .n_ids = plan->chats[i].n_ids};
    plan->texts.fields[i] = lists[i];
  }
  plan->texts.plain[DEFAULT] = true;
  args->ends_turn = plan->chats[DEFAULT].ends_turn;
  return read_steering(call, plan, error);
}

/* ---- out ---------------------------------------------------------------------------------------------- */

static int write_side(struct json_writer *w, const struct api_call *call, int side, const struct lab_news *news,
                      struct arena *arena, struct error *error) {
  const struct chat_plan *plan = call->plan;
  jw_key(w, names[side]);
  jw_open(w, '{');
  if (steer_write_raw(w, &plan->chats[side], news, arena, error) != 0) return -1;
  steer_write_turns(w, call->values, lists[side], news);
  jw_key(w, "logprobs");
  if (plan->texts.args.n_logprobs >= 0)
    steer_write_logprobs(w, news);
  else
    jw_null(w);
  jw_close(w, '}');
  return 0;
}

static void write_settings(struct json_writer *w, const struct api_call *call) {
  const struct chat_plan *plan = call->plan;
  const struct lab_complete_args *args = &plan->texts.args;
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
static int write_reply(struct api_call *call, struct buffer *out, const struct lab_news *news, bool complete, struct arena *arena,
                       struct error *error) {
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

int steer_chat_post(struct api_call *call, struct error *error) {
  struct chat_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || read_args(call, plan, error) != 0) return -1;
  plan->texts.write = write_reply;
  return steer_texts_start(call, &plan->texts, error);
}
