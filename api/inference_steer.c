/* inference_steer.c: steering in the shapes of Neuronpedia's inference server: POST /v1/steer/completion and
 * /v1/steer/completion-chat. The texts are those of /api/steer and /api/steer-chat; here they are told in the order in which they
 * are asked for, and without the prompt. */
#include <stdio.h>
#include <string.h>

#include "api/edits.h"
#include "api/handlers.h"
#include "api/inference.h"
#include "api/steer.h"

static const struct field feature_rows[] = {STEER_FEATURE_ROWS("source", "layer"), {.name = NULL}};

static const struct field vector_rows[] = {
    {"steeringVector", "vector", FIELD_NUMBERS, .required = true, .min = 1, .max = 1e6, .text = "As many numbers as the point has columns."},
    {"strength", NULL, FIELD_NUMBER, .required = true, .min = -1e6, .max = 1e6, .text = "Times strengthMultiplier, the vector's factor."},
    {"hook", "point", FIELD_TEXT, .required = true, .min = 1, .max = 128, .text = "Where, such as \"blocks.5.hook_resid_pre\"."},
    {.name = NULL}};

#define STEERING_ROWS                                                                                                         \
  INFERENCE_MODEL_ROW,                                                                                                        \
  {"types", NULL, FIELD_CHOICES, .choices = "STEERED DEFAULT",                                                                \
   .text = "Which texts, in this order; both when left out."},                                                                \
  {"features", NULL, FIELD_OBJECTS, .cap = CAP_FEATURES, .inner = feature_rows,                                               \
   .example = "{\"source\": \"7-res-jb\", \"index\": 6770, \"strength\": 8}",                                                 \
   .text = "What to steer with; this or vectors."},                                                                           \
  {"vectors", NULL, FIELD_OBJECTS, .max = 256, .inner = vector_rows, .text = "Vectors of your own, in place of features."},   \
  STEER_METHOD_ROW("steerMethod", NULL),                                                                                      \
  {"normalizeSteering", NULL, FIELD_BOOL, .fallback = "false", .text = "Brings what is added to length 1 first."},            \
  STEER_SAMPLING_ROWS_AS("nCompletionTokens", "n_tokens", "freqPenalty", "strengthMultiplier"),                               \
  {"nLogprobs", "logprobs", FIELD_INT, .fallback = "0", .max = 10,                                                            \
   .text = "With each token its log probability and so many alternatives; 0: none of it."},                                   \
  {"stream", NULL, FIELD_BOOL, .fallback = "false", .text = "Server-sent events, each with all of the reply so far."}

const struct field inference_completion_fields[] = {
    {"prompt", NULL, FIELD_TEXT, .required = true, .cap = CAP_PROMPT, .text = "The text to continue."}, STEERING_ROWS, {.name = NULL}};

const struct field inference_completion_chat_fields[] = {
    {"prompt", "messages", FIELD_OBJECTS, .required = true, .min = 1, .max = 1024, .inner = steer_message_rows,
     .text = "The chat to answer."},
    STEERING_ROWS,
    {"steerSpecialTokens", NULL, FIELD_BOOL, .fallback = "true", .text = "false leaves special tokens of the chat (turns, BOS) unsteered."},
    {"isAssistantAxis", NULL, FIELD_BOOL, .fallback = "false", .text = "It belongs to one model of Neuronpedia's: true is refused."},
    {.name = NULL}};

struct completion_plan {
  struct steer_texts texts; /* first: call->plan is one of these too */
  struct lab_chat chat;
};

/* ---- in ----------------------------------------------------------------------------------------------- */

/* Each type once, in the order given. */
static void read_types(const struct values *values, struct steer_texts *texts) {
  static const char *const both[] = {"STEERED", "DEFAULT"};
  size_t given = values_count(values, "types"), n = 0;
  for (size_t i = 0; i < (given ? given : STEER_TEXTS_MOST) && n < STEER_TEXTS_MOST; i++) {
    bool plain = strcmp(given ? values_text_at(values, "types", i, NULL) : both[i], "DEFAULT") == 0;
    if (n && texts->plain[0] == plain) continue;
    texts->plain[n] = plain;
    texts->fields[n++] = "prompt";
  }
  texts->args.n_prompts = n;
}

static bool wants_steered(const struct steer_texts *texts) {
  return !texts->plain[0] || (texts->args.n_prompts > 1 && !texts->plain[1]);
}

static int read_vectors(struct api_call *call, struct lab_steering *steering, struct error *error) {
  steering->n_vectors = values_count(call->values, "vectors");
  struct lab_edit *vectors = arena_array(&call->arena, steering->n_vectors, sizeof *vectors, error);
  steering->vectors = vectors;
  for (size_t i = 0; vectors && i < steering->n_vectors; i++) {
    const struct values *one = values_at(call->values, "vectors", i);
    size_t n;
    float *vector = read_floats(call, one, "steeringVector", &n, error);
    if (!vector) return -1;
    vectors[i] = steer_vector(steering, values_text(one, "hook", NULL), vector, n, values_number(one, "strength"));
  }
  return vectors ? 0 : -1;
}

static int read_steering(struct api_call *call, struct steer_texts *texts, bool special, struct error *error) {
  const struct values *values = call->values;
  struct lab_steering *steering = &texts->args.steering;
  bool features = values_has(values, "features"), vectors = values_has(values, "vectors");
  if (features && vectors)
    return error_set_field(error, ERROR_ARGUMENT, "vectors", "'features' and 'vectors' are both given; give one of them");
  if (!features && !vectors && wants_steered(texts))
    return error_set_field(error, ERROR_ARGUMENT, "features", "'features' or 'vectors' is required for a STEERED text");
  *steering = (struct lab_steering){.method = steer_method(values_text(values, "steerMethod", NULL)),
                                    .strength_multiplier = values_number(values, "strengthMultiplier"), .special_tokens = special,
                                    .unit = values_bool(values, "normalizeSteering"), .prefix = "", .source_field = "source"};
  if (steer_features(call, values, texts->args.model, "", "source", &steering->features, &steering->n_features, error) != 0) return -1;
  return read_vectors(call, steering, error);
}

static int read_args(struct api_call *call, struct steer_texts *texts, bool special, struct error *error) {
  const struct values *values = call->values;
  int n_logprobs = (int)values_int(values, "nLogprobs");
  texts->args = (struct lab_complete_args){.model = call_model(call, values, "model", error), .bos = LAB_BOS_DEFAULT,
                                           .n_tokens = values_int(values, "nCompletionTokens"),
                                           .temperature = values_number(values, "temperature"), .top_p = 1,
                                           .frequency_penalty = values_number(values, "freqPenalty"),
                                           .seed = (int64_t)values_number(values, "seed"),
                                           .n_logprobs = n_logprobs > 0 ? n_logprobs : -1, .ends_turn = -1};
  read_types(values, texts);
  return texts->args.model ? read_steering(call, texts, special, error) : -1;
}

/* Errors of vectors by the names they have here. */
static int start(struct api_call *call, struct steer_texts *texts, struct error *error) {
  static const struct {
    const char *there, *here;
  } names[] = {{"].point", "].hook"}, {"].vector", "].steeringVector"}};
  struct error own = ERROR_INIT;
  char field[sizeof own.field];
  if (steer_texts_start(call, texts, &own) == 0) return 0;
  snprintf(field, sizeof field, "%s", own.field);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *end = strstr(own.field, names[i].there);
    if (strncmp(own.field, "vectors[", 8) == 0 && end)
      snprintf(field, sizeof field, "%.*s%s", (int)(end - own.field), own.field, names[i].here);
  }
  bool named = own.field[0] && strncmp(own.text, own.field, strlen(own.field)) == 0;
  return error_set_field(error, own.code, field, "%s%s", named ? field : "", own.text + (named ? strlen(own.field) : 0));
}

/* ---- out ---------------------------------------------------------------------------------------------- */

static void write_end(struct json_writer *w, const struct steer_texts *texts, size_t i, const struct lab_news *news) {
  jw_member_text(w, "type", texts->plain[i] ? "DEFAULT" : "STEERED");
  if (texts->args.n_logprobs < 0) return;
  jw_key(w, "logprobs");
  steer_write_logprobs(w, news);
}

static struct json_writer open_outputs(const struct api_call *call, struct buffer *out) {
  struct json_writer w;
  jw_init(&w, out);
  w.snake = call_speaks_snake(call);
  jw_open(&w, '{');
  jw_key(&w, "outputs");
  jw_open(&w, '[');
  return w;
}

static int write_outputs(struct api_call *call, struct buffer *out, const struct lab_news *news, bool complete, struct arena *arena,
                         struct error *error) {
  (void)complete, (void)arena, (void)error;
  const struct steer_texts *texts = call->plan;
  struct json_writer w = open_outputs(call, out);
  for (size_t i = 0; i < texts->args.n_prompts; i++) {
    jw_open(&w, '{');
    jw_key(&w, "output");
    jw_string(&w, news[i].text, news[i].length);
    write_end(&w, texts, i, &news[i]);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

static int write_chats(struct api_call *call, struct buffer *out, const struct lab_news *news, bool complete, struct arena *arena,
                       struct error *error) {
  (void)complete;
  const struct completion_plan *plan = call->plan;
  struct json_writer w = open_outputs(call, out);
  for (size_t i = 0; i < plan->texts.args.n_prompts; i++) {
    jw_open(&w, '{');
    if (steer_write_raw(&w, &plan->chat, &news[i], arena, error) != 0) return -1;
    steer_write_turns(&w, call->values, "prompt", &news[i]);
    write_end(&w, &plan->texts, i, &news[i]);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_key(&w, "input");
  jw_open(&w, '{');
  jw_key(&w, "raw");
  jw_string(&w, plan->chat.text, plan->chat.length);
  steer_write_turns(&w, call->values, "prompt", NULL);
  jw_close(&w, '}');
  jw_close(&w, '}');
  return 0;
}

/* ---- the two routes ----------------------------------------------------------------------------------- */

int inference_completion_post(struct api_call *call, struct error *error) {
  struct steer_texts *texts = arena_alloc(&call->arena, sizeof *texts, error);
  if (!texts || read_args(call, texts, true, error) != 0) return -1;
  for (size_t i = 0; i < texts->args.n_prompts; i++)
    texts->prompts[i].text = values_text(call->values, "prompt", &texts->prompts[i].length);
  texts->write = write_outputs;
  return start(call, texts, error);
}

int inference_completion_chat_post(struct api_call *call, struct error *error) {
  struct completion_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || read_args(call, &plan->texts, values_bool(call->values, "steerSpecialTokens"), error) != 0) return -1;
  if (values_bool(call->values, "isAssistantAxis"))
    return error_set_field(error, ERROR_ARGUMENT, "isAssistantAxis", "'isAssistantAxis' belongs to one model of Neuronpedia's; leave it out");
  if (steer_read_chat(call, plan->texts.args.model, "prompt", false, &plan->chat, error) != 0) return -1;
  for (size_t i = 0; i < plan->texts.args.n_prompts; i++)
    plan->texts.prompts[i] = (struct lab_input){.ids = plan->chat.ids, .n_ids = plan->chat.n_ids};
  plan->texts.args.ends_turn = plan->chat.ends_turn;
  plan->texts.write = write_chats;
  return start(call, &plan->texts, error);
}
