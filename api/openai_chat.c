/* openai_chat.c: POST /v1/chat/completions: a chat answered, and POST /v1/apply-chat-template: a chat as the model reads it. */
#include "api/handlers.h"
#include "api/openai.h"

static const struct field message_rows[] = {
    {"role", NULL, FIELD_CHOICE, .required = true, .choices = "system developer user assistant",
     .text = "Who says it; developer is system."},
    {"content", NULL, FIELD_CONTENT, .required = true, .cap = CAP_PROMPT, .text = "What is said: a text, or text parts."},
    {.name = NULL}};

static const struct field template_rows[] = {
    {"enable_thinking", NULL, FIELD_BOOL, .fallback = "true",
     .text = "false: the answer begins behind empty thoughts (Qwen 3). Formats without thoughts are the same either way; one that "
             "always thinks refuses false."},
    {.name = NULL}};

#define TEMPLATE_ROW(name)                                                   \
  {name, NULL, FIELD_OBJECT, .inner = template_rows, .example = "{\"enable_thinking\": false}", \
   .text = "What else the chat template takes."}

#define MESSAGES_ROW                                                                        \
  {"messages", NULL, FIELD_OBJECTS, .required = true, .min = 1, .max = 1024, .inner = message_rows, \
   .text = "The chat so far. It is written as the model's chat template does; what messages say never becomes a special token."}

const struct field chat_completions_fields[] = {
    OPENAI_MODEL_ROW,
    MESSAGES_ROW,
    {"max_tokens", "max_completion_tokens", FIELD_INT, .min = 1, .cap = CAP_NEW_TOKENS,
     .text = "Most tokens to generate; left out: as many as the server and the context allow."},
    OPENAI_SAMPLING_ROWS,
    {"logprobs", NULL, FIELD_BOOL, .fallback = "false", .text = "Give the log probability of each token."},
    {"top_logprobs", NULL, FIELD_INT, .max = LAB_TOP_LOGPROBS_MOST, .text = "With so many of the likeliest tokens; needs logprobs."},
    TEMPLATE_ROW("chat_template_kwargs"),
    OPENAI_PLAIN_ROWS,
    {.name = NULL}};

const struct field apply_chat_template_fields[] = {
    OPENAI_MODEL_ROW,
    MESSAGES_ROW,
    {"addGenerationPrompt", NULL, FIELD_BOOL, .fallback = "true", .text = "The opening of an answer is always there; false is refused."},
    TEMPLATE_ROW("chatTemplateKwargs"),
    {.name = NULL}};

static int read_chat(struct api_call *call, const struct lab_model_info *model, const char *kwargs, struct lab_chat *chat,
                     struct error *error) {
  const struct values *values = call->values, *options = values_at(values, kwargs, 0);
  size_t n = values_count(values, "messages");
  struct lab_message *messages = arena_array(&call->arena, n, sizeof *messages, error);
  if (!messages) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct values *one = values_at(values, "messages", i);
    messages[i].role = values_text(one, "role", NULL);
    messages[i].text = values_text(one, "content", &messages[i].length);
  }
  return lab_chat(call->api->lab, model, messages, n, options && !values_bool(options, "enable_thinking"), &call->arena, chat,
                  error);
}

static int read_logprobs(const struct values *values, struct lab_complete_args *args, struct error *error) {
  bool wanted = values_bool(values, "logprobs"), tops = values_has(values, "top_logprobs");
  if (tops && !wanted && values_int(values, "top_logprobs") > 0)
    return error_set_field(error, ERROR_ARGUMENT, "top_logprobs", "'top_logprobs' is given without 'logprobs': true");
  args->n_logprobs = !wanted ? -1 : tops ? (int)values_int(values, "top_logprobs") : 0;
  return 0;
}

int chat_completions_post(struct api_call *call, struct error *error) {
  static const char *const field = "messages";
  const struct values *values = call->values;
  struct openai_plan *plan = openai_plan_read(call, OPENAI_CHAT, error);
  struct lab_chat *chat = arena_alloc(&call->arena, sizeof *chat, error);
  struct lab_input *prompt = arena_alloc(&call->arena, sizeof *prompt, error);
  if (!plan || !chat || !prompt || read_chat(call, plan->args.model, "chat_template_kwargs", chat, error) != 0 ||
      read_logprobs(values, &plan->args, error) != 0)
    return -1;
  *prompt = (struct lab_input){.ids = chat->ids, .n_ids = chat->n_ids};
  plan->args.prompts = prompt;
  plan->args.n_prompts = 1;
  plan->args.prompt_fields = &field;
  plan->args.ends_turn = chat->ends_turn;
  plan->args.n_tokens = values_has(values, "max_tokens") ? values_int(values, "max_tokens") : call->api->options.max_new_tokens;
  return openai_plan_start(call, plan, error);
}

/* The inference server's shape, as far as texts and tokens go. */
int apply_chat_template_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_model(call, call->values, "model", error);
  struct lab_chat chat;
  if (!values_bool(call->values, "addGenerationPrompt"))
    return error_set_field(error, ERROR_ARGUMENT, "addGenerationPrompt", "'addGenerationPrompt': false is not served: chats end with "
                           "the opening of an answer");
  if (!model || read_chat(call, model, "chatTemplateKwargs", &chat, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "prompt");
  jw_string(&w, chat.text, chat.length);
  jw_key(&w, "tokens");
  jw_open(&w, '[');
  for (size_t i = 0; i < chat.n_ids; i++) jw_int(&w, chat.ids[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}
