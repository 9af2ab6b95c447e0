/* progress.h: a long job's progress on standard error, for the verbs of the command line. */
#ifndef STEERD_SERVER_PROGRESS_H
#define STEERD_SERVER_PROGRESS_H

#include <stdbool.h>

#include "core/archive.h"
#include "core/pull.h"

/* From here on SIGINT and SIGTERM ask the job to stop in place of ending the process. */
void progress_catch_signals(void);

/* True once one came. */
bool progress_stopped(void);

/* `tell` of lab_stats_run and lab_eval_run: a bar that is drawn anew on a terminal, a line each elsewhere. True once a
 * signal came. */
bool progress_tell(void *context, const struct lab_progress *progress);

/* The same with what the job says of itself behind it. */
bool progress_tell_with(const char *figures, const struct lab_progress *progress);

/* `tell` of pull. */
bool progress_pull(void *context, const struct pull_progress *progress);

/* Ends the bar, if there is one. */
void progress_end(void);

#endif
