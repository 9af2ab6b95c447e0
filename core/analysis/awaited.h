/* awaited.h: a task of the engine's background that another thread asks for and later waits for. */
#ifndef STEERD_CORE_ANALYSIS_AWAITED_H
#define STEERD_CORE_ANALYSIS_AWAITED_H

#include <pthread.h>
#include <stdbool.h>

#include "core/engine/engine.h"

struct awaited {
  struct engine *engine;    /* borrowed */
  struct engine_task *task; /* while the engine has it */
  bool under_way;           /* asked for, and not waited for yet */
  bool done;
  struct error error;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
};

void awaited_open(struct awaited *awaited, struct engine *engine);
/* Cancels what is under way, and waits until nobody touches it any more. */
void awaited_close(struct awaited *awaited);

/* Asks for it; its `done` has to call awaited_done. Nothing may be under way. */
int awaited_submit(struct awaited *awaited, const struct engine_task_args *args, struct error *error) MUST_CHECK;
/* From the task's event. */
void awaited_done(struct awaited *awaited, const struct error *error);
/* The task's end, and its error; 0 at once where nothing is under way. */
int awaited_wait(struct awaited *awaited, struct error *error) MUST_CHECK;

#endif
