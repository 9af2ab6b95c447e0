/* lab_token_score.c: POST /v1/lab/dictionaries/{model}/{source}/token-set-score: features that prefer some words of a text; and how
 * words and ids of a token set are read, here and in enrichment. */
#include "api/handlers.h"
#include "api/lab_common.h"
#include "api/rows.h"

/* ---- token sets ----------------------------------------------------------------------------------------- */

const char **lab_read_strings(struct api_call *call, const struct values *values, const char *name, size_t *n, struct error *error) {
  *n = values_count(values, name);
  const char **out = arena_array(&call->arena, *n, sizeof *out, error);
  for (size_t i = 0; out && i < *n; i++) out[i] = values_text_at(values, name, i, NULL);
  return out;
}

int lab_read_token_set(struct api_call *call, const struct values *values, struct lab_token_set *out, struct error *error) {
  out->prepend_space = values_bool(values, "prependSpace");
  out->words = lab_read_strings(call, values, "words", &out->n_words, error);
  out->ids = read_integers(call, values, "ids", &out->n_ids, error);
  return out->words && out->ids ? 0 : -1;
}

/* ---- the verb ------------------------------------------------------------------------------------------- */

const struct field token_score_fields[] = {
    INPUTS_ROWS_AS("texts prompt"),
    {"words", NULL, FIELD_TEXTS, .max = 200, .most = 1000, .text = "Words that features are to prefer: positions where all tokens of one stand."},
    {"ids", NULL, FIELD_INTS, .min = 1, .max = 1e6, .text = "Token ids, in place of words or besides them."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true", .text = "A space in front of words that do not begin with one."},
    {"topK", "numResults", FIELD_INT, .fallback = "20", .min = 1, .max = 100000, .text = "Features at most."},
    {.name = NULL}};

static void write_scored(struct json_writer *w, const struct lab_token_scored *one) {
  jw_open(w, '{');
  jw_member_int(w, "index", one->index);
  jw_member_f64(w, "score", one->score);
  jw_member_f64(w, "meanOn", one->mean_on);
  jw_member_f64(w, "meanElsewhere", one->mean_off);
  jw_member_int(w, "firedOn", one->n_on);
  jw_member_int(w, "firedElsewhere", one->n_off);
  jw_close(w, '}');
}

static int finish_score(struct api_call *call, struct error *error) {
  const struct place *place = call->plan;
  const struct lab_token_score_result *result = lab_token_score_result(call->job);
  (void)error;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  rows_place(&w, place->source);
  jw_key(&w, "positions");
  jw_open(&w, '{');
  jw_member_int(&w, "on", result->n_on);
  jw_member_int(&w, "elsewhere", result->n_off);
  jw_close(&w, '}');
  jw_key(&w, "missing");
  jw_open(&w, '[');
  for (size_t i = 0; i < result->n_missing; i++) jw_text(&w, result->missing[i]);
  jw_close(&w, ']');
  jw_key(&w, "features");
  jw_open(&w, '[');
  for (size_t i = 0; i < result->n_features; i++) write_scored(&w, &result->features[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int token_score_post(struct api_call *call, struct error *error) {
  struct place *place = arena_alloc(&call->arena, sizeof *place, error);
  struct lab_token_score_args args = {.bos = lab_read_bos(call->values), .top_k = (int)values_int(call->values, "topK")};
  struct lab_input *inputs;
  bool many;
  if (!place || call_path_place(call, place, error) != 0 ||
      lab_read_inputs(call, call->values, &inputs, &args.n_inputs, &many, error) != 0 ||
      lab_read_token_set(call, call->values, &args.set, error) != 0)
    return -1;
  args.model = place->model;
  args.source = place->source;
  args.inputs = inputs;
  call->plan = place;
  call->finish = finish_score;
  return lab_token_score(call->api->lab, &args, call->waker, &call->job, error);
}
