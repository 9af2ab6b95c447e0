/* lab_common.c: what the laboratory's endpoints share. Knows no verb. */
#include "api/lab_common.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/reply.h"

enum lab_bos lab_read_bos(const struct values *values) {
  return values_bool(values, "prependBos") ? LAB_BOS_YES : LAB_BOS_NO;
}

static int read_tokens(struct api_call *call, const struct values *values, size_t i, struct lab_input *out,
                       struct error *error) {
  out->n_ids = values_row_count(values, "tokens", i);
  int64_t *ids = arena_array(&call->arena, out->n_ids, sizeof *ids, error);
  for (size_t j = 0; ids && j < out->n_ids; j++) ids[j] = (int64_t)values_row_at(values, "tokens", i, j);
  out->ids = ids;
  return ids ? 0 : -1;
}

bool lab_has_list(const struct values *values) {
  return values_has(values, "text") ? values_is_list(values, "text") : values_is_nested(values, "tokens");
}

int lab_read_inputs(struct api_call *call, const struct values *values, struct lab_input **out, size_t *n, bool *many,
                    struct error *error) {
  bool text = values_has(values, "text");
  if (text == values_has(values, "tokens"))
    return error_set_field(error, ERROR_ARGUMENT, "text",
                           text ? "'text' and 'tokens' are both given; give one of them" : "'text' or 'tokens' is required");
  *n = text ? values_count(values, "text") : values_rows(values, "tokens");
  *many = lab_has_list(values);
  *out = arena_array(&call->arena, *n, sizeof **out, error);
  if (!*out) return -1;
  for (size_t i = 0; i < *n; i++) {
    if (text)
      (*out)[i].text = values_text_at(values, "text", i, &(*out)[i].length);
    else if (read_tokens(call, values, i, &(*out)[i], error) != 0)
      return -1;
  }
  return 0;
}

int lab_read_answers(struct api_call *call, const struct values *values, const char *name, struct lab_input **out, size_t *n,
                     struct error *error) {
  *n = values_count(values, name);
  *out = arena_array(&call->arena, *n, sizeof **out, error);
  if (!*out) return -1;
  for (size_t i = 0; i < *n; i++) (*out)[i].text = values_text_at(values, name, i, &(*out)[i].length);
  return 0;
}

int lab_write_texts(struct api_call *call, size_t n, void (*write)(struct json_writer *w, const void *of, size_t t),
                    const void *of) {
  struct json_writer w;
  jw_init(&w, &call->body);
  if (!lab_has_list(call->values)) {
    write(&w, of, 0);
    return 0;
  }
  jw_open(&w, '{');
  jw_key(&w, "results");
  jw_open(&w, '[');
  for (size_t t = 0; t < n; t++) write(&w, of, t);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

void lab_write_tokens(struct json_writer *w, const char *const *tokens, const int32_t *ids, size_t n) {
  reply_texts(w, "tokens", tokens, n);
  reply_ids(w, "ids", ids, n);
}

static void write_token(struct json_writer *w, const struct lab_token *token) {
  jw_open(w, '{');
  jw_member_int(w, "rank", token->rank);
  jw_member_text(w, "token", token->text);
  jw_member_int(w, "id", token->id);
  jw_member_f32(w, "logit", token->logit);
  jw_member_f32(w, "logprob", token->logprob);
  jw_member_f32(w, "probability", expf(token->logprob));
  jw_close(w, '}');
}

void lab_write_table(struct json_writer *w, const char *key, const struct lab_token *tokens, size_t n) {
  if (key) jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) write_token(w, &tokens[i]);
  jw_close(w, ']');
}

void lab_write_doubles(struct json_writer *w, const char *key, const double *values, size_t n) {
  if (key) jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) jw_f64(w, values[i]);
  jw_close(w, ']');
}
