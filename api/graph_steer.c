/* graph_steer.c: POST /api/steer-logits: a prompt goes on with nodes of a graph turned up or down, beside how it goes on by itself, and what was
 * expected after each token. A node becomes a feature's edit at its token, held attention a patch of patterns; the lab knows no graph. */
#include <math.h>
#include <stdio.h>

#include "api/graph.h"
#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/steer.h"

static const struct field node_rows[] = {
    {"layer", NULL, FIELD_INT, .required = true, .max = 10000, .text = "The node's layer."},
    {"index", NULL, FIELD_INDEX, .required = true, .max = 4294967295.0, .text = "Its feature's number."},
    {"token_active_position", NULL, FIELD_INT, .required = true, .max = 1e6, .text = "The token at which it is active: its place in input_tokens."},
    {"steer_position", NULL, FIELD_INT, .max = 1e6, .text = "The token of the prompt at which it is turned."},
    {"steer_generated_tokens", NULL, FIELD_BOOL, .fallback = "false", .text = "true turns it at everything that is generated, in place of steer_position."},
    {"delta", NULL, FIELD_NUMBER, .min = -1e6, .max = 1e6, .text = "Its activation becomes what it is at token_active_position without steering, plus this."},
    {"ablate", NULL, FIELD_BOOL, .fallback = "false", .text = "true: it becomes 0; delta is left out then."},
    {.name = NULL}};

const struct field steer_logits_fields[] = {
    MODEL_ROW,
    {"sourceSetName", "sourceSet", FIELD_TEXT, .min = 1, .max = 128, .text = "The graph's set of transcoders. Left out: the model's only one."},
    {"prompt", "text", FIELD_TEXT, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "The graph's prompt."},
    PREPEND_BOS_ROW,
    {"messages", NULL, FIELD_REFUSED, .text = "POST /v1/apply-chat-template writes a chat as the text that it is for the model: give that as 'prompt'"},
    {"features", NULL, FIELD_OBJECTS, .required = true, .max = 1024, .inner = node_rows,
     .example = "{\"layer\": 2, \"index\": 57, \"token_active_position\": 3, \"steer_position\": 3, \"ablate\": true}",
     .text = "The nodes; none gives the same text twice."},
    {"nTokens", "n_tokens", FIELD_INT, .fallback = "10", .min = 1, .cap = CAP_NEW_TOKENS, .text = "Most tokens to generate."},
    {"topK", "top_k", FIELD_INT, .fallback = "5", .max = 10, .text = "How many of the likeliest next tokens are told after each token."},
    {"freezeAttention", "freeze_attention", FIELD_BOOL, .fallback = "true", .text = "The tokens of the prompt look at each other as they do without steering."},
    {"temperature", NULL, FIELD_NUMBER, .fallback = "0.5", .max = 2, .text = "0 always takes the likeliest token."},
    {"freqPenalty", "freq_penalty", FIELD_NUMBER, .fallback = "0", .min = -2, .max = 2, .text = "Taken from a token's logit once for each time it was generated before."},
    {"seed", NULL, FIELD_NUMBER, .fallback = "16", .min = -1e8, .max = 1e8, .text = "Same request, same seed, same texts; a fraction is cut off."},
    {"steeredOutputOnly", NULL, FIELD_BOOL, .fallback = "false", .text = "true leaves the text without steering out: it is null, and its list empty."},
    {.name = NULL}};

struct steer_logits {
  struct lab_steer_args args;
  struct lab_tokens tokens; /* of the prompt */
  struct lab_input plain;   /* the same, as a run to take from */
  struct lab_edit *edits;
};

/* ---- in ----------------------------------------------------------------------------------------------- */

static int refuse(struct error *error, size_t i, const char *name, const char *text) {
  char field[64];
  snprintf(field, sizeof field, "features[%zu].%s", i, name);
  return error_set_field(error, ERROR_ARGUMENT, field, "%s: %s", field, text);
}

/* A position of the prompt. */
static int check_position(const struct steer_logits *plan, const struct values *node, size_t i, const char *name, struct error *error) {
  char text[128];
  int64_t at = values_int(node, name);
  if (at < (int64_t)plan->tokens.count) return 0;
  snprintf(text, sizeof text, "there is no token %lld, the prompt has tokens 0 to %zu", (long long)at, plan->tokens.count - 1);
  return refuse(error, i, name, text);
}

/* Either of two, for each of the two questions: what it becomes, and where. */
static int check_node(const struct steer_logits *plan, const struct values *node, size_t i, struct error *error) {
  bool ablate = values_bool(node, "ablate"), delta = values_has(node, "delta");
  bool generated = values_bool(node, "steer_generated_tokens"), placed = values_has(node, "steer_position");
  if (ablate == delta)
    return refuse(error, i, "delta", ablate ? "a feature that is ablated becomes 0: leave delta out" : "say by how much it is turned, or \"ablate\": true");
  if (generated == placed)
    return refuse(error, i, "steer_position", generated ? "what is generated stands at no position of the prompt: leave it out"
                                                        : "say which token, or \"steer_generated_tokens\": true");
  if (placed && check_position(plan, node, i, "steer_position", error) != 0) return -1;
  return check_position(plan, node, i, "token_active_position", error);
}

static const struct lab_source_info *source_at(const struct lab_source_info *const *sources, size_t n, int64_t layer) {
  for (size_t i = 0; i < n; i++)
    if (sources[i]->layer == layer) return sources[i];
  return NULL;
}

static int find_source(const struct values *node, size_t i, const struct lab_source_info *const *sources, size_t n,
                       const struct lab_source_info **out, struct error *error) {
  char text[160], field[64];
  int64_t layer = values_int(node, "layer");
  *out = source_at(sources, n, layer);
  if (!*out) {
    snprintf(text, sizeof text, "the set '%.64s' has no layer %lld; its first is %d, its last %d", sources[0]->set, (long long)layer, sources[0]->layer,
             sources[n - 1]->layer);
    return refuse(error, i, "layer", text);
  }
  snprintf(field, sizeof field, "features[%zu].index", i);
  return call_check_index(*out, values_int(node, "index"), field, error);
}

/* `positions` [2]: where it is active, and where it is turned. */
static struct lab_edit edit_of(const struct steer_logits *plan, const struct values *node, const struct lab_source_info *source,
                               int64_t positions[2]) {
  bool ablate = values_bool(node, "ablate"), generated = values_bool(node, "steer_generated_tokens");
  positions[0] = values_int(node, "token_active_position");
  positions[1] = generated ? 0 : values_int(node, "steer_position");
  struct lab_edit edit = {.op = ablate ? LAB_EDIT_ABLATE : LAB_EDIT_MEAN, .source_id = source->id, .index = values_int(node, "index"),
                          .where = generated ? LAB_GENERATED : LAB_LISTED, .special = true, .include_error = true};
  if (!generated) edit.positions = &positions[1], edit.n_positions = 1;
  if (ablate) return edit;
  edit.value = values_number(node, "delta");
  edit.from = &plan->plain;
  edit.from_positions = &positions[0];
  edit.n_from_positions = 1;
  return edit;
}

/* Above the lowest layer at which the prompt is changed: below it everything looks as it does anyway. */
static int hold_attention(struct api_call *call, struct steer_logits *plan, int lowest, struct error *error) {
  for (int layer = lowest + 1; layer < plan->args.model->n_layer; layer++) {
    const char *point = arena_printf(&call->arena, error, "pattern.%d", layer);
    if (!point) return -1;
    plan->edits[plan->args.n_edits++] =
        (struct lab_edit){.op = LAB_EDIT_PATCH, .point = point, .index = -1, .where = LAB_PROMPT, .special = true, .include_error = true, .from = &plan->plain};
  }
  return 0;
}

static int read_nodes(struct api_call *call, struct steer_logits *plan, struct error *error) {
  const struct lab_model_info *model = plan->args.model;
  const struct lab_source_info **sources;
  size_t n_sources, n = values_count(call->values, "features");
  int lowest = model->n_layer;
  plan->edits = arena_array(&call->arena, n + (size_t)model->n_layer, sizeof *plan->edits, error);
  int64_t *positions = arena_array(&call->arena, 2 * n, sizeof *positions, error);
  if (!plan->edits || !positions || graph_transcoders(call, model, "sourceSetName", &sources, &n_sources, error) != 0) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct values *node = values_at(call->values, "features", i);
    const struct lab_source_info *source;
    if (check_node(plan, node, i, error) != 0 || find_source(node, i, sources, n_sources, &source, error) != 0) return -1;
    plan->edits[plan->args.n_edits++] = edit_of(plan, node, source, &positions[2 * i]);
    if (!values_bool(node, "steer_generated_tokens") && source->layer < lowest) lowest = source->layer;
  }
  return values_bool(call->values, "freezeAttention") ? hold_attention(call, plan, lowest, error) : 0;
}

static int read_prompt(struct api_call *call, struct steer_logits *plan, struct error *error) {
  struct lab_steer_args *args = &plan->args;
  args->prompt = values_text(call->values, "prompt", &args->prompt_length);
  args->bos = lab_read_bos(call->values);
  if (lab_tokenize(call->api->lab, args->model, args->prompt, args->prompt_length, args->bos, &call->arena, &plan->tokens, error) != 0) return -1;
  int64_t *ids = arena_array(&call->arena, plan->tokens.count, sizeof *ids, error);
  if (!ids) return -1;
  for (size_t i = 0; i < plan->tokens.count; i++) ids[i] = plan->tokens.ids[i];
  plan->plain = (struct lab_input){.ids = ids, .n_ids = plan->tokens.count, .field = "prompt"};
  return 0;
}

static void read_sampling(const struct values *values, struct lab_steer_args *args) {
  args->strength_multiplier = 1;
  args->steer_special_tokens = true;
  args->want[LAB_STEERED] = true;
  args->want[LAB_DEFAULT] = !values_bool(values, "steeredOutputOnly");
  args->n_tokens = values_int(values, "nTokens");
  args->temperature = values_number(values, "temperature");
  args->top_p = 1;
  args->frequency_penalty = values_number(values, "freqPenalty");
  args->seed = (int64_t)values_number(values, "seed");
  args->n_logprobs = (int)values_int(values, "topK");
  args->look_ahead = true;
}

/* ---- out ---------------------------------------------------------------------------------------------- */

static void write_token(struct json_writer *w, const char *token, const struct lab_logprob *next) {
  jw_open(w, '{');
  jw_member_text(w, "token", token);
  jw_key(w, "top_logits");
  jw_open(w, '[');
  for (int i = 0; next && i < next->n_top; i++) {
    jw_open(w, '{');
    jw_member_text(w, "token", next->top[i].token);
    jw_member_f64(w, "prob", exp((double)next->top[i].logprob));
    jw_close(w, '}');
  }
  jw_close(w, ']');
  jw_close(w, '}');
}

/* Every token with what was expected behind it; behind all tokens of the prompt but the last nobody asks. */
static void write_list(struct json_writer *w, const struct steer_logits *plan, const char *key, const struct lab_generated *output) {
  size_t n = output->n_logprob_tokens, shown = n < (size_t)plan->args.n_tokens ? n : (size_t)plan->args.n_tokens;
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; output->text && i < plan->tokens.count; i++)
    write_token(w, plan->tokens.texts[i], i + 1 == plan->tokens.count && n > 0 ? &output->logprobs[0] : NULL);
  for (size_t i = 0; output->text && i < shown; i++) write_token(w, output->logprobs[i].token, i + 1 < n ? &output->logprobs[i + 1] : NULL);
  jw_close(w, ']');
}

static int write_text(struct api_call *call, struct json_writer *w, const char *key, const struct lab_generated *output, struct error *error) {
  const struct steer_logits *plan = call->plan;
  jw_key(w, key);
  return steer_write_text(w, plan->args.prompt, plan->args.prompt_length, output, &call->arena, error);
}

static int steer_logits_finish(struct api_call *call, struct error *error) {
  struct lab_generated outputs[LAB_STEER_OUTPUTS];
  struct json_writer w;
  for (int i = 0; i < LAB_STEER_OUTPUTS; i++)
    if (lab_steer_read(call->job, i, &call->arena, &outputs[i], error) != 0) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  if (write_text(call, &w, "DEFAULT_GENERATION", &outputs[LAB_DEFAULT], error) != 0 ||
      write_text(call, &w, "STEERED_GENERATION", &outputs[LAB_STEERED], error) != 0)
    return -1;
  write_list(&w, call->plan, "DEFAULT_LOGITS_BY_TOKEN", &outputs[LAB_DEFAULT]);
  write_list(&w, call->plan, "STEERED_LOGITS_BY_TOKEN", &outputs[LAB_STEERED]);
  jw_close(&w, '}');
  return 0;
}

int steer_logits_post(struct api_call *call, struct error *error) {
  struct steer_logits *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan) return -1;
  plan->args.model = call_model(call, call->values, "modelId", error);
  if (!plan->args.model || read_prompt(call, plan, error) != 0 || read_nodes(call, plan, error) != 0) return -1;
  read_sampling(call->values, &plan->args);
  plan->args.edits = plan->edits;
  call->plan = plan;
  call->finish = steer_logits_finish;
  return lab_steer(call->api->lab, &plan->args, call->waker, &call->job, error);
}
