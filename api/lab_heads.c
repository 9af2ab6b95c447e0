/* lab_heads.c: POST /v1/lab/heads: what attention heads look at, on random tokens that repeat. */
#include "api/handlers.h"
#include "api/lab_common.h"

const struct field lab_heads_fields[] = {
    MODEL_ROW,
    {"seed", NULL, FIELD_INT, .fallback = "0", .min = -1e8, .max = 1e8, .text = "Same seed, same tokens, same scores."},
    {"batch", NULL, FIELD_INT, .fallback = "10", .min = 1, .max = 1000, .text = "Sequences."},
    {"length", NULL, FIELD_INT, .fallback = "50", .min = 2, .max = 100000,
     .text = "Random tokens of a sequence; they come twice."},
    {"prependBos", NULL, FIELD_BOOL, .fallback = "false", .text = "BOS in front; it is left out of the scores."},
    {"loss", NULL, FIELD_BOOL, .fallback = "false", .text = "Also the mean loss at each position."},
    {.name = NULL}};

static void write_scores(struct json_writer *w, const char *key, const struct lab_heads_result *result, const double *scores) {
  jw_key(w, key);
  jw_open(w, '[');
  for (int l = 0; l < result->n_layer; l++) lab_write_doubles(w, NULL, scores + l * result->n_head, (size_t)result->n_head);
  jw_close(w, ']');
}

static int lab_heads_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_heads_result *result = lab_heads_result(call->job);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  write_scores(&w, "induction", result, result->induction);
  write_scores(&w, "previousToken", result, result->previous);
  write_scores(&w, "duplicateToken", result, result->duplicate);
  jw_key(&w, "tokens");
  jw_open(&w, '[');
  for (size_t t = 0; t < result->n_texts; t++) {
    jw_open(&w, '[');
    for (size_t i = 0; i < result->n_tokens; i++) jw_int(&w, result->ids[t][i]);
    jw_close(&w, ']');
  }
  jw_close(&w, ']');
  if (result->losses)
    lab_write_doubles(&w, "losses", result->losses, result->n_losses);
  else
    jw_member_null(&w, "losses");
  jw_close(&w, '}');
  return 0;
}

int lab_heads_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct lab_heads_args args = {.model = call_model(call, values, "modelId", error), .seed = values_int(values, "seed"),
                                .batch = (int)values_int(values, "batch"), .length = (int)values_int(values, "length"),
                                .prepend_bos = values_bool(values, "prependBos"), .loss = values_bool(values, "loss")};
  if (!args.model) return -1;
  call->finish = lab_heads_finish;
  return lab_heads(call->api->lab, &args, call->waker, &call->job, error);
}
