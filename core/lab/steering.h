/* steering.h: what steering comes down to: features and edits as lists for the engine. Private to core/lab/.
 *
 *   steering_new     asker: everything resolved over one prompt; what is wrong is said here
 *   steering_start   asker, where steering_waits says so: the runs that edits take rows or means from, as the job's first task
 *   steering_list    what applies to the prompt and to what is generated; a list of its own each time
 *
 * A verb that generates keeps the steering of each of its prompts in its job, and frees it with the job. */
#ifndef STEERD_CORE_LAB_STEERING_H
#define STEERD_CORE_LAB_STEERING_H

#include "core/lab/edits.h"

struct steering;

/* Whether it changes anything at all. */
bool steering_none(const struct lab_steering *asked);

/* ids [n]: the prompt, copied; nothing is borrowed from `asked`. Errors name prefix + "features[i].index" and so on. */
int steering_new(struct lab *lab, const struct lab_model_info *model, const struct lab_steering *asked, const int32_t *ids,
                 size_t n, struct steering **out, struct error *error) MUST_CHECK;
void steering_free(struct steering *steering); /* NULL is fine */
size_t steering_bytes(const struct steering *steering); /* what it takes, without its lists */

/* Whether runs must come before steering_list. NULL: no. */
bool steering_waits(const struct steering *steering);

/* Queues the runs of all of them (those that wait) as the job's first task; when it cannot be queued the job is destroyed, as by
 * job_submit. `then` comes from the engine's thread and hands over the job's next task (job_continue); what it fails with
 * ends the job. The array lives as long as the job. */
int steering_start(struct steering *const *steerings, size_t n, struct lab_job *job,
                   int (*then)(struct lab_job *job, struct error *error), struct error *error);

/* Features first, then edits, in their order, for a sequence that may generate max_new tokens and no other. The caller frees it with
 * edit_list_free, or the engine takes it. Any thread, once the runs are done. */
struct edit_list *steering_list(const struct steering *steering, int32_t max_new, struct error *error) MUST_CHECK;

#endif
