/* lab_common.h: what the laboratory's endpoints share: rows, inputs, tables of tokens. */
#ifndef STEERD_API_LAB_COMMON_H
#define STEERD_API_LAB_COMMON_H

#include "api/edits.h"
#include "core/base/json_writer.h"

#define PREPEND_BOS_ROW                                                                                  \
  {"prependBos", NULL, FIELD_BOOL, .fallback = "true",                                                    \
   .text = "BOS in front of texts, where the model has one. Tokens are taken as they are."}
#define INPUTS_ROWS INPUTS_ROWS_AS("texts prompt")
#define INPUTS_ROWS_AS(aliases)                                                                          \
  {"text", aliases, FIELD_TEXTS, .min = 1, .cap = CAP_PROMPT,                                      \
   .text = "One text, or an array of texts; or give tokens."},                                            \
  {"tokens", NULL, FIELD_TOKENS, .min = 1, .max = 1e6,                                                    \
   .text = "Token ids in place of texts: one array, or an array of arrays."}, PREPEND_BOS_ROW

enum lab_bos lab_read_bos(const struct values *values);

/* INPUTS_ROWS came as an array of texts, not as one. */
bool lab_has_list(const struct values *values);

/* The texts or token lists of INPUTS_ROWS; *many: they came as an array. */
int lab_read_inputs(struct api_call *call, const struct values *values, struct lab_input **out, size_t *n, bool *many,
                    struct error *error) MUST_CHECK;

/* Answers given as an array of strings. */
int lab_read_answers(struct api_call *call, const struct values *values, const char *name, struct lab_input **out, size_t *n,
                     struct error *error) MUST_CHECK;

/* The whole reply: one text is answered by what `write` writes of it, an array of texts by {"results": [...]}. */
int lab_write_texts(struct api_call *call, size_t n, void (*write)(struct json_writer *w, const void *of, size_t t),
                    const void *of);

/* "tokens" and "ids". */
void lab_write_tokens(struct json_writer *w, const char *const *tokens, const int32_t *ids, size_t n);

/* key: [{rank, token, id, logit, logprob, probability}] */
void lab_write_table(struct json_writer *w, const char *key, const struct lab_token *tokens, size_t n);

/* Numbers as an array; key NULL: an element of an array. */
void lab_write_doubles(struct json_writer *w, const char *key, const double *values, size_t n);

/* "answers" of one or two tokens, whose ids alone are known. (lab_patch.c) */
void lab_write_answers(struct json_writer *w, const struct lab_token answers[2]);

/* `answers` as one token or two; `least` of them. (lab_patch.c) */
int lab_read_pair(struct api_call *call, size_t least, struct lab_input answers[2], struct error *error) MUST_CHECK;

/* Texts of a list, in the call's arena. (lab_token_score.c) */
const char **lab_read_strings(struct api_call *call, const struct values *values, const char *name, size_t *n, struct error *error) MUST_CHECK;

/* words, ids and prependSpace of a token set. (lab_token_score.c) */
int lab_read_token_set(struct api_call *call, const struct values *values, struct lab_token_set *out, struct error *error) MUST_CHECK;

/* The reply of lab_next: both tables. (lab_next.c) */
int lab_next_finish(struct api_call *call, struct error *error);

#endif
