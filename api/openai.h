/* openai.h: what OpenAI's two generating routes share: rows, how they are read, and how choices are written, whole or as a
 * stream. Private to api/openai*.c. */
#ifndef STEERD_API_OPENAI_H
#define STEERD_API_OPENAI_H

#include "api/edits.h"
#include "core/complete.h"

extern const struct field steering_fields[], stream_options_fields[], response_format_fields[];

#define OPENAI_MODEL_ROW \
  {"model", "modelId", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."}
#define OPENAI_SAMPLING_ROWS                                                                                              \
  {"temperature", NULL, FIELD_NUMBER, .fallback = "1", .max = 2, .text = "0 always takes the likeliest token."},           \
  {"top_p", NULL, FIELD_NUMBER, .fallback = "1", .max = 1,                                                                 \
   .text = "Draw from the likeliest tokens that together reach this probability."},                                        \
  {"top_k", NULL, FIELD_INT, .fallback = "0", .min = -1, .max = 1e6, .text = "Draw from the k likeliest tokens; 0 or -1 from all."}, \
  {"min_p", NULL, FIELD_NUMBER, .fallback = "0", .max = 1,                                                                 \
   .text = "Draw from tokens at least so likely as this share of the likeliest one."},                                     \
  {"frequency_penalty", NULL, FIELD_NUMBER, .fallback = "0", .min = -2, .max = 2,                                          \
   .text = "Taken from a token's logit once for each time it was generated before."},                                      \
  {"presence_penalty", NULL, FIELD_NUMBER, .fallback = "0", .min = -2, .max = 2,                                           \
   .text = "Taken from the logit of a token that was generated before."},                                                  \
  {"logit_bias", NULL, FIELD_WEIGHTS, .min = -100, .max = 100, .text = "Added to the logits of these token ids."},         \
  {"seed", NULL, FIELD_INT, .min = -9e15, .max = 9e15,                                                                     \
   .text = "Same request, same seed, same texts; left out: a new one for each request."},                                  \
  {"stop", NULL, FIELD_TEXTS, .min = 1, .max = 256, .most = LAB_STOPS_MOST, .none = true,                                  \
   .text = "A text ends in front of the first of these; up to 4."},                                                        \
  {"n", NULL, FIELD_INT, .fallback = "1", .min = 1, .max = LAB_CHOICES_MOST, .text = "Texts drawn for each prompt."},      \
  {"stream", NULL, FIELD_BOOL, .fallback = "false", .text = "Server-sent events, each with what is new."},                 \
  {"stream_options", NULL, FIELD_OBJECT, .inner = stream_options_fields, .text = "Of a stream."},                          \
  {"steering", NULL, FIELD_OBJECT, .inner = steering_fields, .strict = true,                                               \
   .text = "What to steer with; unknown fields inside are refused."}
/* What would make of an answer something else than text. */
#define OPENAI_PLAIN_ROWS                                                                                                  \
  {"response_format", NULL, FIELD_OBJECT, .inner = response_format_fields, .text = "Text is what there is."},              \
  {"tools", NULL, FIELD_REFUSED, .text = "the models here call no tools; leave it out"},                                   \
  {"functions", NULL, FIELD_REFUSED, .text = "the models here call no functions; leave it out"}

enum openai_shape { OPENAI_TEXT, OPENAI_CHAT };

/* How far one choice was told in a stream. */
struct openai_told {
  struct lab_seen seen;
  int64_t characters; /* of the choice's text, the echoed prompt included */
  bool begun, ended;
};

struct openai_plan {
  enum openai_shape shape;
  struct lab_complete_args args;
  bool echo, usage;          /* usage: a last event of a stream tells it */
  char *id;
  const char *fingerprint;
  int64_t created;           /* seconds since 1970 */
  size_t n_choices;
  struct openai_told *told;  /* [n_choices] */
};

/* A plan with everything but prompts, log-probabilities and the number of tokens. */
struct openai_plan *openai_plan_read(struct api_call *call, enum openai_shape shape, struct error *error) MUST_CHECK;

/* Starts it: prompts and the rest stand in plan->args. */
int openai_plan_start(struct api_call *call, struct openai_plan *plan, struct error *error) MUST_CHECK;

/* Tokens with their log-probabilities, and where they stand: `text` is what the choice's text has from byte `from` of its
 * part (prompt or answer) on, and `base` characters of the choice stand in front of it. */
struct openai_scores {
  const struct lab_scored *scored;
  size_t n;
  const char *text;
  size_t from;
  int64_t base;
};

/* In the shape of completions, runs one after the other; in that of chats (openai_logprobs.c). */
int openai_text_logprobs(struct json_writer *w, const struct openai_scores *runs, size_t n_runs, struct arena *arena,
                         struct error *error) MUST_CHECK;
void openai_chat_logprobs(struct json_writer *w, const struct openai_scores *scores);

/* Unicode code points of text[0..length). */
int64_t openai_characters(const char *text, size_t length);

/* call->finish and call->frame (openai_reply.c). */
int openai_finish(struct api_call *call, struct error *error) MUST_CHECK;
int openai_frame(struct api_call *call, struct buffer *out, bool last, struct error *error) MUST_CHECK;

#endif
