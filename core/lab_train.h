/* lab_train.h: what the files of a training run share (lab_train*.c). Private to core/lab*.c. */
#ifndef STEERD_CORE_LAB_TRAIN_H
#define STEERD_CORE_LAB_TRAIN_H

#include "core/analysis/feed.h"
#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/dict/train.h"
#include "core/lab_runner.h"
#include "core/training.h"

#define TRAIN_PATH_BYTES 4096
#define TRAIN_BATCH 1024 /* rows of a step, where nothing is said */

/* A run, settled as far as it is known: first by the model, then by the text. */
struct train_plan {
  struct lab_train_args args;    /* texts are somebody else's */
  struct lab_model *opened;
  struct point point;
  bool heads;                    /* the point is a row of heads */
  int64_t context, buffer_batches;
  bool bos;                      /* documents begin with BOS, which is not trained on */
  struct train_options options;  /* steps and what follows from them: 0 before the text is read */
  struct corpus *corpus;
  int64_t trained, held_out;     /* documents: the first ones; the last ones */
};

/* ---- lab_train_options.c ---- */

bool train_option_is_of(const struct lab_train_option *option, enum train_kind kind);
/* Kind and options by themselves: the part of lab_train_check that looks at no file. */
int train_options_check(const struct lab_train_args *args, struct error *error) MUST_CHECK;

/* ---- lab_train_plan.c ---- */

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
/* What a kept state belongs to, as JSON text: all that changes a bit of the result, the text's identity included. */
int train_plan_identity(const struct train_plan *plan, struct buffer *out, struct error *error) MUST_CHECK;

/* ---- lab_train_keep.c ---- */

/* Looks at the folder, and makes it where it is not: ERROR_CONFLICT where it holds anything but a training that was begun. */
int train_folder_check(const char *folder, struct error *error) MUST_CHECK;
int train_folder_make(const char *folder, struct error *error) MUST_CHECK;
/* The state of trainer and feed into the folder, whole or not at all; and back: 1, or 0 when there is none. ERROR_CONFLICT naming what is
 * set otherwise than when it began. */
int train_state_keep(const struct train_plan *plan, const struct trainer *trainer, const struct feed_state *feed, struct error *error) MUST_CHECK;
int train_state_find(const struct train_plan *plan, struct trainer *trainer, struct feed_state *feed, struct error *error) MUST_CHECK;
void train_state_drop(const char *folder);

/* ---- lab_train_judge.c ---- */

/* The dictionary in the folder over what was held out. */
int train_judge(const struct lab *lab, const struct train_plan *plan, struct lab_train_found *out, struct error *error) MUST_CHECK;

#endif
