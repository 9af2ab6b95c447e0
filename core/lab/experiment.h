/* experiment.h: a request of the laboratory: stages of runs ("passes"), each stage one task of the engine. Private to
 * core/lab/.
 *
 * A verb makes an experiment, gives it the tokens of its texts and its edits, and says what to do with taps and logits.
 * Stage 0, where edits need it, runs what they patch from or average; then the verb's own stages follow. */
#ifndef STEERD_CORE_LAB_EXPERIMENT_H
#define STEERD_CORE_LAB_EXPERIMENT_H

#include "core/lab/edits.h"

enum { LAB_TOP_MOST = 1000 }; /* likeliest tokens in one table */

/* One run. Everything but `edits` lies in the experiment's arena. */
struct pass {
  struct lab_ids ids;
  struct edit_list *edits; /* taken by the engine */
  const struct point *taps;
  int n_taps;
  int32_t last_layer;
  enum engine_logits logits;
  const float *resume_rows;
  int32_t resume_layer, resume_position;
  int32_t max_new;         /* tokens to generate, told to verb->token; only where nothing is tapped and no logits are asked for */
  struct sampler_options sampling;
};

struct experiment;
struct experiment_verb {
  /* Worker. Rows and logits of the passes of the verb's own stages. */
  int (*tapped)(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error);
  int (*logits)(struct experiment *e, int pass, int32_t position, const float *logits, struct error *error);
  bool (*token)(struct experiment *e, int pass, int32_t token); /* worker; false: the text ends in front of it */
  /* Worker (where e->aside the thread between tasks), or for stage 0 the asker or that thread: fills passes for stage 0, 1, ...; none (n_passes 0): the result stands. */
  int (*stage)(struct experiment *e, int stage, struct error *error);
  /* A slice of work between two stages, in place of a task, when the stage set e->work; 1 while there is more. */
  int (*slice)(struct experiment *e, struct plan *plan, struct error *error);
  void (*clear)(struct experiment *e); /* what is not in the arena; may be NULL */
};

struct experiment {
  struct lab_job job;
  struct arena arena;
  const struct experiment_verb *verb;
  struct lab_model *opened;
  const struct model *model;
  struct lab_ids *texts;     /* what edits apply to */
  size_t n_texts;
  struct edits_plan edits;
  struct pass *passes;       /* of the stage that comes next or runs */
  size_t n_passes;
  bool work;                 /* the next stage is work, not a task */
  bool aside;                /* stages but the first take longer than a step: they are the stager's thread's, not the worker's */
  int stage;                 /* -1: the runs that edits need */
  int64_t rows;              /* computed so far, against LABORATORY_MAX_ROWS */
  float *logits;             /* [vocabulary] host copy */
};

/* size: of the verb's own struct, whose first member is the experiment. */
struct experiment *experiment_new(struct lab *lab, const struct lab_model_info *model, const struct experiment_verb *verb,
                                  size_t size, struct lab_waker waker, struct error *error) MUST_CHECK;

/* Reads inputs into e->texts. field: "text" for one; of several "text[i]". */
int experiment_texts(struct experiment *e, const struct lab_input *inputs, size_t n, enum lab_bos bos, bool list,
                     struct error *error) MUST_CHECK;

int experiment_edits(struct experiment *e, struct lab *lab, const struct lab_model_info *model, const struct lab_edit *edits,
                     size_t n, enum lab_bos bos, struct error *error) MUST_CHECK;

/* Starts it: on failure it is gone. */
int experiment_start(struct experiment *e, struct lab_job **out, struct error *error) MUST_CHECK;
void experiment_free(struct experiment *e); /* one that was never started */

/* Room for n passes of the next stage. */
struct pass *experiment_passes(struct experiment *e, size_t n, struct error *error) MUST_CHECK;

/* A pass over text t from the first layer to the last, without taps; edited or as it is. */
int experiment_plain(struct experiment *e, struct pass *pass, size_t t, bool edited, struct error *error) MUST_CHECK;

/* The passes of a stage: each text as it is, as far as a point that stays where it is, tapped there. */
int experiment_tapped(struct experiment *e, const struct point *point, struct error *error) MUST_CHECK;

/* A position counted from either end: -1 is the last. ERROR_ARGUMENT with `field`[i], or `field` for SIZE_MAX, when
 * it is outside. */
int experiment_position(int64_t position, size_t n_tokens, const char *field, size_t i, int64_t *out,
                        struct error *error) MUST_CHECK;

/* A token with what the logits say of it; `text` is left to experiment_name. */
struct lab_token experiment_judge(const struct experiment *e, const float *logits, int32_t id);
/* The k likeliest, likeliest first; returns how many there are. */
int experiment_likeliest(const struct experiment *e, const float *logits, int k, struct lab_token *out);
int experiment_name(struct experiment *e, struct lab_token *tokens, size_t n, struct error *error) MUST_CHECK;
/* -log p of a token. */
float experiment_loss(const struct experiment *e, const float *logits, int32_t id);

/* All of [0, n) when none is named; else the named ones, checked: layers, heads. */
int experiment_numbers(struct experiment *e, const int64_t *given, size_t n_given, int64_t n, const char *field,
                       int64_t **out, size_t *n_out, struct error *error) MUST_CHECK;

/* The same for positions of a text of n tokens, counted from either end. */
int experiment_positions(struct experiment *e, const int64_t *given, size_t n_given, size_t n, int64_t **out, size_t *n_out,
                         struct error *error) MUST_CHECK;

/* Answers of one token each. Errors name `field`[i]. (next.c) */
int experiment_answers(struct experiment *e, const struct lab_input *answers, size_t n, bool space, const char *field,
                       int32_t **out, struct error *error) MUST_CHECK;

/* Rows [first, first + n) of a point's values or gradients into host memory [n][width]. Worker. */
int experiment_read_rows(struct backend *backend, struct rows rows, int64_t first, int64_t n, int64_t width, float *to,
                         struct error *error) MUST_CHECK;

/* Tokens for a reply: each decoded alone. */
int experiment_tokens(struct experiment *e, const struct lab_ids *ids, const char *const **out, struct error *error) MUST_CHECK;

#endif
