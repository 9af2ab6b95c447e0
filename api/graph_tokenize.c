/* graph_tokenize.c: POST /api/graph/tokenize: the tokens of a prompt, whose places steering of a graph's features names, and the next
 * tokens that a graph of it would explain. */
#include <math.h>

#include "api/graph.h"
#include "api/handlers.h"

const struct field graph_tokenize_fields[] = {
    MODEL_ROW,
    {"prompt", "text", FIELD_TEXT, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "The text."},
    {"messages", NULL, FIELD_REFUSED, .text = "POST /v1/apply-chat-template writes a chat as the text that it is for the model: give that as 'prompt'"},
    {"sourceSetName", "sourceSet", FIELD_TEXT, .max = 128, .text = "Not looked at: tokens are the model's."},
    {"maxNLogits", "maxLogits", FIELD_INT, .fallback = "10", .min = 1, .max = GRAPH_MOST_LOGITS, .text = "Next tokens at most."},
    {"desiredLogitProb", "logitProbability", FIELD_NUMBER, .fallback = "0.95", .max = 1,
     .text = "The likeliest next tokens until they have this probability together."},
    {.name = NULL}};

/* The table's rows that a graph has nodes of: until they have `wanted`, and one at least. */
static size_t count_salient(const struct lab_next_table *table, int most, double wanted, double *together) {
  size_t n = 0;
  *together = 0;
  while (n < (size_t)most && table->top[n].id >= 0 && (n == 0 || *together < wanted)) *together += exp((double)table->top[n++].logprob);
  return n;
}

static void write_salient(struct json_writer *w, const struct lab_token *tokens, size_t n) {
  jw_key(w, "salient_logits");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) {
    jw_open(w, '{');
    jw_member_text(w, "token", tokens[i].text);
    jw_member_int(w, "token_id", tokens[i].id);
    jw_member_f64(w, "probability", exp((double)tokens[i].logprob));
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static int graph_tokenize_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_next_result *result = lab_next_result(call->job);
  const struct lab_next_text *text = &result->texts[0];
  struct json_writer w;
  double together;
  size_t n = count_salient(&text->before, result->top_k, values_number(call->values, "desiredLogitProb"), &together);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "prompt", values_text(call->values, "prompt", NULL));
  jw_key(&w, "input_tokens");
  jw_open(&w, '[');
  for (size_t i = 0; i < text->n_tokens; i++) jw_text(&w, text->tokens[i]);
  jw_close(&w, ']');
  write_salient(&w, text->before.top, n);
  jw_member_int(&w, "total_salient_tokens", (int64_t)n);
  jw_member_f64(&w, "cumulative_probability", together);
  jw_close(&w, '}');
  return 0;
}

int graph_tokenize_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct lab_input *input = arena_alloc(&call->arena, sizeof *input, error);
  const struct lab_model_info *model = input ? call_model(call, values, "modelId", error) : NULL;
  if (!model) return -1;
  *input = (struct lab_input){.field = "prompt"};
  input->text = values_text(values, "prompt", &input->length);
  struct lab_next_args args = {.model = model, .inputs = input, .n_inputs = 1, .bos = LAB_BOS_DEFAULT, .top_k = (int)values_int(values, "maxNLogits")};
  call->finish = graph_tokenize_finish;
  return lab_next(call->api->lab, &args, call->waker, &call->job, error);
}
