/* complete.h: a further page of the front door: texts continued, several at once and several times each, with steering.
 *
 * The rules of core.h hold. Every choice is one text drawn for one prompt: choice p * n + k is the k-th of prompt p. With
 * the same seed the k-th choice of a prompt is the same text whatever else is asked for in the request, and choice 0 is the
 * text that lab_steer gives. */
#ifndef STEERD_CORE_COMPLETE_H
#define STEERD_CORE_COMPLETE_H

#include "core/laboratory.h"

enum { LAB_STOPS_MOST = 4, LAB_CHOICES_MOST = 128, LAB_BIASES_MOST = 1024, LAB_TOP_LOGPROBS_MOST = 20 };

struct lab_bias {
  int64_t token;
  double value; /* added to its logit before every draw */
};

struct lab_complete_args {
  const struct lab_model_info *model;
  const struct lab_input *prompts; /* [n_prompts], at least 1 */
  size_t n_prompts;
  const char *const *prompt_fields; /* [n_prompts] what they are called in errors; NULL: "prompt" */
  bool listed;              /* without prompt_fields: errors name "prompt[i]" */
  enum lab_bos bos;         /* in front of texts, where the model has one; tokens are taken as they are */
  int n;                    /* choices for each prompt, 1 to LAB_CHOICES_MOST */
  struct lab_steering steering; /* of every choice */
  const bool *plain;        /* [n_prompts] prompts that are not steered; NULL: all are */
  int64_t n_tokens;         /* most tokens to generate for each choice; 0: none */
  double temperature;       /* as in lab_steer_args */
  int64_t top_k;
  double top_p, min_p;      /* min_p: keep tokens so likely as that share of the likeliest; 0: all */
  double frequency_penalty, presence_penalty;
  const struct lab_bias *bias; /* [n_bias], at most LAB_BIASES_MOST */
  size_t n_bias;
  int64_t seed;
  const char *const *stops; /* [n_stops], at most LAB_STOPS_MOST, none empty: a text ends in front of the first of them */
  size_t n_stops;
  int n_logprobs;           /* likeliest tokens to report with each token, at most LAB_TOP_LOGPROBS_MOST; -1: none at all */
  int32_t ends_turn;        /* a further token that ends a text, as EOS does; -1: none */
  bool judge_prompts;       /* with n_logprobs >= 0: also log-probabilities of the prompts' own tokens */
};

/* Fields: those of prompts, "n", "logit_bias", those of steering. */
int lab_complete(struct lab *lab, const struct lab_complete_args *args, struct lab_waker waker, struct lab_job **out,
                 struct error *error) MUST_CHECK;

struct lab_scored {
  int32_t id;
  const char *bytes;        /* raw, perhaps a part of a character; lives as long as the lab */
  size_t n_bytes;
  float logprob;            /* of the model: temperature 1, nothing filtered. NaN for the first token of a prompt */
  size_t offset;            /* bytes of text in front of it */
  const struct lab_scored *top; /* [n_top], likeliest first; id, bytes and logprob only */
  int n_top;
};

/* What is new of a choice since so much of it was read. Starts as {0}. */
struct lab_seen {
  size_t bytes, tokens;
};

struct lab_news {
  const char *text;         /* [length] whole characters from `bytes` on; never taken back later */
  size_t length;
  const struct lab_scored *scored; /* [n_scored] tokens that begin in what is shown by now; without n_logprobs none */
  size_t n_scored;
  const char *finish;       /* "stop" (EOS or a stop string), "length", "timeout"; NULL while it runs */
  int64_t n_tokens;         /* generated so far */
};

/* A consistent copy into the arena; moves *seen on. Works while the job runs and when it is done. */
int lab_complete_read(struct lab_job *job, size_t choice, struct lab_seen *seen, struct arena *arena, struct lab_news *out,
                      struct error *error) MUST_CHECK;

struct lab_prompt_read {
  const char *text;         /* as it was sent, or what its tokens show */
  size_t length;
  size_t n_tokens;
  const struct lab_scored *scored; /* [n_tokens] with judge_prompts, else NULL */
};

/* 1 with the prompt, or 0 while its tokens are not judged yet; -1 with an error. */
int lab_complete_prompt(struct lab_job *job, size_t prompt, struct arena *arena, struct lab_prompt_read *out,
                        struct error *error) MUST_CHECK;

/* ---- chats ------------------------------------------------------------------------------------------ */

struct lab_message {
  const char *role; /* "system" or "developer", "user", "assistant" or "model" */
  const char *text; /* valid UTF-8 */
  size_t length;
};

/* A chat as the model reads it, up to where its answer begins. */
struct lab_chat {
  const char *text;   /* special tokens spelled out */
  size_t length;
  const int64_t *ids; /* [n_ids], with BOS where the template has it */
  size_t n_ids;
  int32_t ends_turn;  /* for lab_complete_args */
};

/* Into the arena. quiet: the answer comes without thoughts, where the model's template knows such a switch. ERROR_ARGUMENT, fields
 * "messages", "messages[i]": the model's chat template is not known, or has no place for such a message; "enable_thinking": the
 * model always thinks aloud. */
int lab_chat(const struct lab *lab, const struct lab_model_info *model, const struct lab_message *messages, size_t n, bool quiet,
             struct arena *arena, struct lab_chat *out, struct error *error) MUST_CHECK;

#endif
