/* openai_completions.c: POST /v1/completions: prompts continued, as OpenAI's older clients ask for it. */
#include "api/handlers.h"
#include "api/openai.h"

const struct field completions_fields[] = {
    OPENAI_MODEL_ROW,
    {"prompt", NULL, FIELD_PROMPTS, .required = true, .cap = CAP_PROMPT,
     .text = "A text, texts, token ids, or arrays of them. BOS goes in front of texts where the model has one."},
    {"max_tokens", NULL, FIELD_INT, .fallback = "16", .cap = CAP_NEW_TOKENS, .text = "Most tokens to generate; 0 with echo judges the prompt."},
    OPENAI_SAMPLING_ROWS,
    {"best_of", NULL, FIELD_INT, .min = 1, .max = LAB_CHOICES_MOST, .text = "No other number than n is served."},
    {"echo", NULL, FIELD_BOOL, .fallback = "false", .text = "The texts begin with their prompts."},
    {"logprobs", NULL, FIELD_INT, .max = LAB_TOP_LOGPROBS_MOST,
     .text = "Give the log probability of each token, with so many of the likeliest; with echo, of the prompt's tokens too."},
    {"suffix", NULL, FIELD_REFUSED, .text = "the models here continue a text and do not fill gaps; leave it out"},
    OPENAI_PLAIN_ROWS,
    {.name = NULL}};

static int read_tokens(struct api_call *call, size_t i, struct lab_input *out, struct error *error) {
  out->n_ids = values_row_count(call->values, "prompt", i);
  int64_t *ids = arena_array(&call->arena, out->n_ids + 1, sizeof *ids, error);
  for (size_t k = 0; ids && k < out->n_ids; k++) ids[k] = (int64_t)values_row_at(call->values, "prompt", i, k);
  out->ids = ids;
  return ids ? 0 : -1;
}

static int read_prompts(struct api_call *call, struct lab_complete_args *args, struct error *error) {
  const struct values *values = call->values;
  bool tokens = values_are_tokens(values, "prompt");
  args->listed = tokens ? values_is_nested(values, "prompt") : values_is_list(values, "prompt");
  args->n_prompts = tokens ? values_rows(values, "prompt") : values_count(values, "prompt");
  struct lab_input *prompts = arena_array(&call->arena, args->n_prompts, sizeof *prompts, error);
  args->prompts = prompts;
  for (size_t i = 0; prompts && i < args->n_prompts; i++) {
    if (!tokens)
      prompts[i].text = values_text_at(values, "prompt", i, &prompts[i].length);
    else if (read_tokens(call, i, &prompts[i], error) != 0)
      return -1;
  }
  return prompts ? 0 : -1;
}

static int check_best_of(const struct values *values, int n, struct error *error) {
  int64_t best_of = values_has(values, "best_of") ? values_int(values, "best_of") : n;
  if (best_of == n) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "best_of", "'best_of' is %lld and 'n' is %d: no text is thrown away here; ask for "
                         "as many as you want with 'n', with 'logprobs' to choose by", (long long)best_of, n);
}

int completions_post(struct api_call *call, struct error *error) {
  struct openai_plan *plan = openai_plan_read(call, OPENAI_TEXT, error);
  const struct values *values = call->values;
  if (!plan || check_best_of(values, plan->args.n, error) != 0 || read_prompts(call, &plan->args, error) != 0) return -1;
  plan->echo = values_bool(values, "echo");
  plan->args.n_tokens = values_int(values, "max_tokens");
  if (values_has(values, "logprobs")) plan->args.n_logprobs = (int)values_int(values, "logprobs");
  plan->args.judge_prompts = plan->echo;
  return openai_plan_start(call, plan, error);
}
