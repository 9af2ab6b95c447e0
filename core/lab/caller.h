/* caller.h: a long job in the thread of who asked for it, without a store. Private to core/lab/. */
#ifndef STEERD_CORE_LAB_CALLER_H
#define STEERD_CORE_LAB_CALLER_H

#include "core/lab/runner.h"

/* Whom progress is told, a few times a second; made of `kind`, tell and context, else zeros. */
struct lab_caller {
  const char *kind;
  bool (*tell)(void *context, const struct lab_progress *progress);
  void *context;
  bool stop;
  bool trains;
  struct lab_train_figures training;
  int64_t begin_ns, begin_done, told_ns;
  const char *message;
};

struct lab_running caller_running(struct lab *lab, struct lab_caller *caller);

#endif
