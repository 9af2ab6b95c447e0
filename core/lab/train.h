/* train.h: what the files of a training run share (train*.c). Private to core/lab/. */
#ifndef STEERD_CORE_LAB_TRAIN_H
#define STEERD_CORE_LAB_TRAIN_H

#include "core/analysis/feed.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/dict/train.h"
#include "core/lab/runner.h"
#include "core/training.h"

#define TRAIN_PATH_BYTES 4096
#define TRAIN_BATCH 1024 /* rows of a step, where nothing is said */

/* A run, settled as far as it is known: first by the model, then by the text. */
struct train_plan {
  struct lab_train_args args;    /* texts are somebody else's */
  struct lab_model *opened;
  struct point points[FEED_POINTS]; /* what is read; what a transcoder makes */
  int n_points;                  /* 2: a transcoder */
  bool heads;                    /* the point is a row of heads */
  int64_t context, buffer, buffer_batches; /* tokens, tokens, the same in batches */
  bool bos;                      /* documents begin with BOS, which is not trained on */
  struct train_options options;  /* steps: 0 before the text is read, unless they are asked for; what follows from them is then still open */
  struct corpus *corpus;
  int64_t trained, held_out;     /* documents: the first ones; the last ones */
};

/* ---- train_options.c ---- */

bool train_option_is_of(const struct lab_train_option *option, enum train_kind kind);
/* What an option comes to: NaN where its kind has no use for it, where others stand for it, and where the text's length decides and is not
 * known. */
double train_plan_value(const struct train_plan *plan, const struct lab_train_option *option);
/* The plan's arguments with all that is known about what was left out: they make the same plan. Texts are the plan's. */
void train_plan_tell(const struct train_plan *plan, struct lab_train_args *out);
/* Of jumprelu: where none is named, the one whose option is given. ERROR_ARGUMENT with field. */
int train_l0_loss_of(const struct lab_train_args *args, enum train_l0_loss *out, struct error *error) MUST_CHECK;
/* Kind and options by themselves: the part of lab_train_check that looks at no file. */
int train_options_check(const struct lab_train_args *args, struct error *error) MUST_CHECK;

/* ---- train_plan.c ---- */

/* Against the model: everything but what the text's length decides. Errors carry fields. */
int train_plan_make(struct lab *lab, const struct lab_train_args *args, struct train_plan *out, struct error *error) MUST_CHECK;
/* The text's part: holds documents out, settles the steps, looks whether there is memory. plan.corpus is open. */
int train_plan_settle(struct train_plan *plan, struct error *error) MUST_CHECK;
/* Schedules and coefficients, once the steps are known. */
void train_plan_schedule(struct train_plan *plan);
struct feed_options train_plan_feed(const struct lab *lab, const struct train_plan *plan);
/* Arguments as JSON text in the arena, and back; texts belong to the node. */
const char *train_args_write(const struct lab_train_args *args, struct arena *arena, struct error *error) MUST_CHECK;
void train_args_read(const struct json_node *node, struct lab_train_args *out);
/* What a kept state belongs to, as JSON text: all that changes a bit of the result and is known, the text's identity last. */
int train_plan_identity(const struct train_plan *plan, struct buffer *out, struct error *error) MUST_CHECK;

/* ---- train_keep.c ---- */

/* A folder that one run alone writes into. */
struct train_hold {
  int descriptor; /* -1: not held */
  bool made;      /* it was not there */
};

/* Looks at the folder: ERROR_CONFLICT where it holds anything but a training that was begun, or where somebody trains into it. */
int train_folder_check(const char *folder, struct error *error) MUST_CHECK;
/* Makes the folder where it is not there, and takes it for this run: ERROR_CONFLICT where somebody else has it. Where the file system has no
 * locks, that is logged and nobody is kept out. Letting go takes away an empty folder that was made here. */
int train_folder_hold(const char *folder, struct train_hold *out, struct error *error) MUST_CHECK;
void train_folder_release(const char *folder, struct train_hold *hold);
/* The state of trainer and feed into the folder, whole or not at all; and back: 1, or 0 when there is none. ERROR_FORMAT naming the file where
 * it is damaged, or is of another version; ERROR_CONFLICT with the option as field that is set otherwise than when it began. */
int train_state_keep(const struct train_plan *plan, const struct trainer *trainer, const struct feed_state *feed, struct error *error) MUST_CHECK;
int train_state_find(const struct train_plan *plan, struct trainer *trainer, struct feed_state *feed, struct error *error) MUST_CHECK;
/* Whether a state in the folder, if there is one, was begun with these settings, as far as they are known before the text is read; its weights
 * are not looked at. ERROR_CONFLICT, ERROR_FORMAT. */
int train_state_check(const struct train_plan *plan, struct error *error) MUST_CHECK;
bool train_state_is_there(const char *folder);
void train_state_drop(const char *folder);

/* ---- train_judge.c ---- */

/* The dictionary in the folder over what was held out. */
int train_judge(const struct lab *lab, const struct train_plan *plan, struct lab_train_found *out, struct error *error) MUST_CHECK;

#endif
