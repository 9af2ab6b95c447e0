/* steer.h: what steering requests share, whoever's habit they follow: features, method, the shape of log-probabilities. */
#ifndef STEERD_API_STEER_H
#define STEERD_API_STEER_H

#include "api/call.h"
#include "core/complete.h"

/* Rows of one feature; `name` is what its source is called. */
#define STEER_FEATURE_ROWS(name_, alias_)                                                                                          \
  {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "If given, it must be the model of the request."},                  \
  {name_, alias_, FIELD_SOURCE, .required = true, .text = "The source, such as \"7-res-jb\"; \"7\" is the neurons of layer 7."},                                      \
  {"index", NULL, FIELD_INDEX, .required = true, .max = 1e12, .text = "The feature's number in its source."},                        \
  {"strength", NULL, FIELD_NUMBER, .required = true, .min = -1e6, .max = 1e6,                                                        \
   .text = "Times strength_multiplier, the length of what is added (or the factor or cap of the method)."}
extern const struct field steer_feature_rows[]; /* with "layer" */

#define STEER_METHOD_ROW(name_, alias_)                                      \
  {name_, alias_, FIELD_CHOICE, .fallback = "SIMPLE_ADDITIVE",               \
   .choices = "SIMPLE_ADDITIVE ORTHOGONAL_DECOMP PROJECTION_CAP",            \
   .text = "How features and vectors change the activations."}

/* How a text is drawn and how strongly it is steered. */
#define STEER_SAMPLING_ROWS STEER_SAMPLING_ROWS_AS("n_tokens", "nCompletionTokens", "freq_penalty", "strength_multiplier")
#define STEER_SAMPLING_ROWS_AS(tokens_, alias_, penalty_, multiplier_)                                              \
  {"temperature", NULL, FIELD_NUMBER, .fallback = "0.5", .max = 2, .text = "0 always takes the likeliest token."},  \
  {tokens_, alias_, FIELD_INT, .fallback = "32", .min = 1, .cap = CAP_NEW_TOKENS,                                   \
   .text = "Most tokens to generate."},                                                                             \
  {penalty_, "frequency_penalty", FIELD_NUMBER, .fallback = "0", .min = -2, .max = 2,                               \
   .text = "Taken from a token's logit once for each time it was generated before."},                               \
  {"seed", NULL, FIELD_NUMBER, .fallback = "42", .min = -1e8, .max = 1e8,                                           \
   .text = "Same request, same seed, same text; a fraction is cut off."},                                           \
  {multiplier_, NULL, FIELD_NUMBER, .fallback = "1", .max = 10, .text = "Multiplies every strength."}

enum lab_steer_method steer_method(const char *word);

/* The features of `values`, in the call's arena; each may name its model, which must be the request's. prefix: in front of
 * fields in errors, "" or "steering."; source: the name of its row. */
int steer_features(struct api_call *call, const struct values *values, const struct lab_model_info *model, const char *prefix,
                   const char *source, const struct lab_steer_feature **out, size_t *n, struct error *error) MUST_CHECK;

/* prompt [n] and the text behind it as one JSON string; null where the output was not asked for. */
int steer_write_text(struct json_writer *w, const char *prompt, size_t n, const struct lab_generated *output, struct arena *arena,
                     struct error *error) MUST_CHECK;

/* What a vector of one's own does at a point: the edit of the steering's method. With steering->unit it is brought to length 1. */
struct lab_edit steer_vector(const struct lab_steering *steering, const char *point, float *vector, size_t n, double strength);

/* ---- one or two texts (steer_texts.c) ------------------------------------------------------------------ */

enum { STEER_TEXTS_MOST = 2 };

/* What a request holds whose answer is one or two texts, each of a prompt of its own: the first member of its plan. The one who
 * starts it fills args (but for prompts, prompt_fields, plain, n), n_prompts of the arrays, and write. */
struct steer_texts {
  struct lab_complete_args args;
  struct lab_input prompts[STEER_TEXTS_MOST];
  const char *fields[STEER_TEXTS_MOST]; /* what they are called in errors */
  bool plain[STEER_TEXTS_MOST];         /* not steered */
  int64_t written[STEER_TEXTS_MOST];    /* tokens in the last event, -1 before the first */
  /* The reply as far as it is known. */
  int (*write)(struct api_call *call, struct buffer *out, const struct lab_news *news, bool complete, struct arena *arena,
               struct error *error);
};

/* The plan becomes the call's. `stream` is a row of the route. */
int steer_texts_start(struct api_call *call, struct steer_texts *texts, struct error *error) MUST_CHECK;

/* Rows of a chat's messages, and the chat of the field `field` as the model reads it. */
extern const struct field steer_message_rows[];
int steer_read_chat(struct api_call *call, const struct lab_model_info *model, const char *field, bool quiet, struct lab_chat *out,
                    struct error *error) MUST_CHECK;

/* [{token, logprob, topLogprobs}] */
void steer_write_logprobs(struct json_writer *w, const struct lab_news *news);
/* "chatTemplate": the messages as they came, and the answer as far as there is one (NULL: without), without the white space
 * around it. */
void steer_write_turns(struct json_writer *w, const struct values *values, const char *field, const struct lab_news *news);
/* "raw": the chat as the model read it with its answer. */
int steer_write_raw(struct json_writer *w, const struct lab_chat *chat, const struct lab_news *news, struct arena *arena,
                    struct error *error) MUST_CHECK;

/* "features": kept vectors as /steer takes them. (vector_files.c) */
void steer_write_kept(struct json_writer *w, const struct store_vector *vectors, size_t n);

#endif
