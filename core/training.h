/* training.h: dictionaries trained on a served model (docs/training.md). A page of the front door, beside archive.h. */
#ifndef STEERD_CORE_TRAINING_H
#define STEERD_CORE_TRAINING_H

#include <stddef.h>

#include "core/archive.h"

/* What a run is told. 0 where a default follows from the rest, but where said otherwise. */
struct lab_train_args {
  const char *model_id, *point; /* "blocks.7.hook_resid_pre", "resid_pre.7" */
  const char *to;               /* the point whose rows a transcoder makes of those of `point`; NULL: an autoencoder */
  const char *corpus;           /* path of a UTF-8 text */
  bool lines;                   /* one document a line; else chunks of the context */
  int64_t max_tokens;           /* of the text; 0: all of it */
  const char *out;              /* the folder; over HTTP a name in the first of the folders that dictionaries are loaded from */
  const char *kind;             /* "relu", "topk", "batchtopk", "jumprelu" */
  int64_t features, expansion;  /* expansion: times the point's width, instead; both 0: 8 times */
  int64_t k;                    /* 0: 32, or an eighth of fewer features; none of relu and jumprelu */
  int64_t batch;                /* rows of a step; 0: 1024 */
  int64_t steps, tokens;        /* tokens: rows, instead; both 0: as many as the text has, at least 500 steps */
  int64_t context;              /* tokens of a document; 0: 128, or what the model has */
  int64_t buffer;               /* rows that are shuffled together; 0: 32 batches, less where they would take more than 512 MiB */
  int64_t seed;                 /* below 2^53 */
  double rate, l1, aux;         /* rate 0, the others -1: by the kind */
  int64_t warm_up, decay, l1_warm_up, dead_after; /* steps; -1: by the number of steps */
  double checkpoint;            /* seconds between states that are kept, at least; -1: 20 */
  /* Of jumprelu; -1: SAELens' */
  const char *l0_loss;          /* "step", "tanh", "quadratic"; NULL: by target_l0 or tanh_scale where given, else "step" */
  double l0, threshold, bandwidth, target_l0, tanh_scale, pre_act;
  int64_t l0_warm_up;
  bool ste_to_input;
};
#define LAB_TRAIN_DEFAULTS \
  {.kind = "topk", .l1 = -1, .aux = -1, .warm_up = -1, .decay = -1, .l1_warm_up = -1, .dead_after = -1, .l0 = -1, .threshold = -1, \
   .bandwidth = -1, .target_l0 = -1, .tanh_scale = -1, .pre_act = -1, .l0_warm_up = -1, .checkpoint = -1}

/* A number among them. Everybody who reads or writes one goes by this table (train_options.c). */
struct lab_train_option {
  const char *name;    /* as JSON spells it, "l1WarmUp"; the flag is --l1-warm-up */
  size_t offset;       /* in struct lab_train_args, of an int64_t where it is whole, else of a double */
  bool whole;
  double low, high;    /* allowed */
  double left_out;     /* what stands there when nothing is said */
  unsigned kinds;      /* of dictionary, that have a use for it: bits of enum train_kind; others refuse it */
  const char *instead; /* what the others have, for that refusal; NULL where all kinds take it */
  size_t settled;      /* in struct train_plan, what it comes to; 0: other options stand for it. Private to core/lab_train*.c */
};

const struct lab_train_option *lab_train_options(size_t *n); /* [*n], static */
double lab_train_get(const struct lab_train_args *args, const struct lab_train_option *option);
void lab_train_set(struct lab_train_args *args, const struct lab_train_option *option, double value); /* a whole number where it is whole */
bool lab_train_given(const struct lab_train_args *args, const struct lab_train_option *option);

/* Name of a kind by its number, 0 and up, as `kind` and the bits of `kinds` have it; NULL behind the last. Static. */
const char *lab_train_kind(int kind);

/* Why no client of this server can train anything, whatever it asks for: the end of an error, without a stop. NULL: one can. Static. */
const char *lab_train_refusal(const struct lab *lab);

/* What can be said against a run before a model is loaded or a text is read: its kind, its options, whether the text is there. Texts of
 * errors begin with the option's name where one is at fault, which is then the error's field too. ERROR_ARGUMENT, ERROR_NOT_FOUND. */
int lab_train_check(const struct lab_train_args *args, struct error *error) MUST_CHECK;

struct lab_train_found {
  const char *folder;
  const char *point, *to;      /* their full names; to NULL where it is no transcoder */
  int layer;
  int64_t width, features, steps, tokens; /* tokens: rows trained on */
  int64_t held_out;            /* rows that were not; 0: the text is too short to hold any out, and the following are NaN */
  double l0, mse, explained;   /* of these, by the dictionary as it is served */
  int64_t dead;                /* features that none of these made fire */
};

/* Creates the job and starts it. Its steps take place beside what is served, on threads of their own that give way to others; the
 * folder holds what a killed run goes on from. ERROR_UNSUPPORTED without a store; ERROR_NOT_FOUND, ERROR_ARGUMENT with
 * field; ERROR_CONFLICT where the folder has a dictionary or a training with other settings, or where somebody else trains into it. */
int lab_train_start(struct lab *lab, const struct lab_train_args *args, int64_t *id, struct error *error) MUST_CHECK;

/* The same in the calling thread, for the command line, without a store: goes on with what the folder holds. `tell` as in lab_stats_run; texts
 * of *out in the arena. ERROR_CANCELLED says what was kept. */
int lab_train_run(struct lab *lab, const struct lab_train_args *args, bool (*tell)(void *context, const struct lab_progress *progress),
                  void *context, struct arena *arena, struct lab_train_found *out, struct error *error) MUST_CHECK;

#endif
