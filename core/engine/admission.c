/* admission.c: the way in: the queue that any thread may join, and who of it may run.
 *
 * Owns what a task waits for and the order of those that wait. What runs, and how it ends, is engine.c's. */
#include <assert.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/engine/engine_int.h"

/* ---- the queue (any thread) ---- */

static struct runner *runner_of(struct engine *engine, const struct model *model) {
  for (size_t i = 0; i < engine->n_runners; i++)
    if (engine->runners[i].model == model) return &engine->runners[i];
  return NULL;
}

int engine_fitting(const struct engine *engine, const struct model *model, const int32_t *positions, int n) {
  const struct runner *runner = runner_of((struct engine *)(uintptr_t)engine, model);
  int64_t blocks = kv_pool_blocks(runner->kv);
  int fitting = 0;
  while (fitting < n && fitting < runner->max_sessions) {
    blocks -= (int64_t)((positions[fitting] + KV_BLOCK - 1) / KV_BLOCK) * model->arch.n_layer;
    if (blocks < 0) break;
    fitting++;
  }
  return fitting;
}

static int check_fits(const struct engine *engine, const struct engine_task *task, struct error *error) {
  for (int i = 0; i < task->n_sequences; i++) {
    int64_t width = task->sequences[i].tap_width;
    for (int k = 1; i == 0 && k < task->n_sequences; k++) /* a leader and its followers share every step of the prompt */
      if (task->sequences[k].leader) width += task->sequences[k].tap_width;
    if (width > task->runner->tap_elements)
      return error_set(error, ERROR_LIMIT,
                       "the points the request looks at have %lld numbers at each position, there is room for %lld "
                       "(ask for fewer points at once)",
                       (long long)width, (long long)task->runner->tap_elements);
  }
  if (!task->in_turn && task->n_sequences > engine->options.max_sessions)
    return error_set(error, ERROR_LIMIT, "%d sequences in one request, at most %d run at once", task->n_sequences,
                     engine->options.max_sessions);
  int32_t blocks = kv_pool_blocks(task->runner->kv);
  if (task->blocks_needed > blocks)
    return error_set(error, ERROR_LIMIT,
                     "the request needs %d blocks of key-value memory, there are %d (shorten it or raise kv_mib)",
                     task->blocks_needed, blocks);
  return 0;
}

/* ---- owners ---- */

/* Each owner's tasks stand in turns of their own, one behind the other, and lists are in the order of turns: so one of each owner comes
 * before the second of any. Whoever is new begins with the turn that is on, behind those who wait for it: nobody is passed by more
 * than one task of each other owner, however fast these come back. */
void admission_place(struct engine_task **head, struct engine_task **tail, struct engine_task *task) {
  task->turn = *head ? (*head)->turn : 0;
  for (const struct engine_task *t = *head; t; t = t->next)
    if (t->owner == task->owner && t->turn >= task->turn) task->turn = t->turn + 1;
  struct engine_task **at = head;
  if (*tail && (*tail)->turn <= task->turn) at = &(*tail)->next;
  while (*at && (*at)->turn <= task->turn) at = &(*at)->next;
  task->next = *at;
  *at = task;
  if (!task->next) *tail = task;
}

/* Under the mutex, as the two below: it waits, be it in the queue or, as work, behind other work. */
static void count(struct engine *engine, struct engine_task *task) {
  task->queued = true;
  engine->n_queued++;
  task->previous_queued = NULL;
  task->next_queued = engine->queued;
  if (engine->queued) engine->queued->previous_queued = task;
  engine->queued = task;
}

static void uncount(struct engine *engine, struct engine_task *task) {
  if (!task->queued) return;
  task->queued = false;
  engine->n_queued--;
  if (task->previous_queued)
    task->previous_queued->next_queued = task->next_queued;
  else
    engine->queued = task->next_queued;
  if (task->next_queued) task->next_queued->previous_queued = task->previous_queued;
}

/* The share of an owner is as large as what is left: alone it has half of the queue, and whoever comes finds a place. */
static int check_share(const struct engine *engine, const struct engine_task *task, struct error *error) {
  int left = engine->options.max_queue - engine->n_queued, own = 0;
  if (left <= 0) return error_set(error, ERROR_BUSY, "the queue is full (%d requests wait)", engine->n_queued);
  for (const struct engine_task *t = engine->queued; t && task->owner; t = t->next_queued) own += t->owner == task->owner;
  if (own <= left) return 0;
  return error_set(error, ERROR_BUSY, "%d of your requests wait already: no client may have more in the queue than places are left (%d)",
                   own, left);
}

/* Background tasks are not counted: long jobs hand over one or two at a time. */
static int enqueue(struct engine *engine, struct engine_task *task, struct error *error) {
  int failed = 0;
  pthread_mutex_lock(&engine->mutex);
  if (engine->stop || (engine->draining && !task->continues)) {
    failed = error_set(error, ERROR_BUSY, "the server is shutting down");
  } else if (!task->background && !task->continues && check_share(engine, task, error) != 0) {
    failed = -1;
  } else {
    admission_place(&engine->queue_head, &engine->queue_tail, task);
    if (!task->background) count(engine, task);
    if (task->warmth == TASK_COLD && !preparer_start(engine)) task->warmth = TASK_READY; /* the worker brings them itself */
    pthread_cond_signal(task->warmth == TASK_COLD ? &engine->grown_cold : &engine->changed);
  }
  pthread_mutex_unlock(&engine->mutex);
  return failed;
}

int engine_submit(struct engine *engine, const struct engine_task_args *args, struct engine_task **out,
                  struct error *error) {
  struct engine_task *task;
  struct runner *runner = runner_of(engine, args->model);
  assert(runner && args->n_sequences >= 1);
  if (task_new(runner, args, &task, error) != 0) return -1;
  if (preparer_needed(task)) task->warmth = TASK_COLD;
  *out = task; /* before the worker can end it */
  if (check_fits(engine, task, error) == 0 && enqueue(engine, task, error) == 0) return 0;
  *out = NULL;
  task_free(task);
  return -1;
}

int engine_submit_work(struct engine *engine, const struct model *model, const struct engine_work *work, uint64_t owner, void *context,
                       struct engine_task **out, struct error *error) {
  struct engine_task *task;
  if (task_new_work(runner_of(engine, model), work, owner, context, &task, error) != 0) return -1;
  *out = task;
  if (enqueue(engine, task, error) == 0) return 0;
  *out = NULL;
  task_free(task);
  return -1;
}

void engine_cancel(struct engine *engine, struct engine_task *task) {
  atomic_store(&task->cancelled, true);
  pthread_mutex_lock(&engine->mutex);
  pthread_cond_signal(&engine->changed);
  pthread_mutex_unlock(&engine->mutex);
}

void engine_drain(struct engine *engine) {
  pthread_mutex_lock(&engine->mutex);
  engine->draining = true;
  pthread_mutex_unlock(&engine->mutex);
}

void admission_uncount(struct engine *engine, struct engine_task *task) {
  pthread_mutex_lock(&engine->mutex);
  uncount(engine, task);
  pthread_mutex_unlock(&engine->mutex);
}

/* ---- admitting (worker) ---- */

static bool has_room(const struct engine_task *task) {
  const struct runner *runner = task->runner;
  int32_t blocks = kv_pool_blocks_free(runner->kv) - runner->reserved;
  int32_t sessions = runner->max_sessions - runner->n_running;
  if (task->work) return true; /* takes neither a session nor a block */
  if (task->background) { /* half stays for others, unless nobody is there and the half would not do */
    if (runner->n_running == 0 && !runner->turns) return task->blocks_needed <= blocks;
    blocks -= kv_pool_blocks(runner->kv) / 2;
    sessions -= runner->max_sessions / 2;
  }
  return (task->in_turn ? 1 : task->n_sequences) <= sessions && task->blocks_needed <= blocks;
}

static bool waited_too_long(const struct engine *engine, const struct engine_task *task) {
  int64_t limit = (int64_t)engine->options.queue_timeout_ms * 1000000;
  return limit && !task->background && clock_ns() - task->queued_ns > limit;
}

void admission_time_out(const struct engine *engine, struct engine_task *task) {
  if (!waited_too_long(engine, task)) return;
  error_set(&task->error, ERROR_TIMEOUT, "the request waited %d ms in the queue", engine->options.queue_timeout_ms);
}

bool admission_waits(const struct engine *engine) {
  const struct engine_task *task = engine->queue_head;
  while (task && task->warmth != TASK_READY && !(task->warmth == TASK_COLD && (engine->stop || atomic_load(&task->cancelled))))
    task = task->next;
  return task != NULL;
}

/* Unlinks the first task that can leave the queue: to run, or to end. NULL when none can. A task that waits for
 * room holds back later ones of its model and kind only, so that nobody overtakes it for ever; one whose dictionaries are not there
 * holds back nobody. */
static struct engine_task *dequeue(struct engine *engine) {
  struct engine_task *before = NULL, *task;
  pthread_mutex_lock(&engine->mutex);
  for (size_t r = 0; r < engine->n_runners; r++) memset(engine->runners[r].blocked, 0, sizeof engine->runners[r].blocked);
  for (task = engine->queue_head; task; before = task, task = task->next) {
    if (task->warmth == TASK_PREPARING) continue;
    if (engine->stop) error_set(&task->error, ERROR_CANCELLED, "the server is shutting down");
    if (atomic_load(&task->cancelled)) error_set(&task->error, ERROR_CANCELLED, "the request was cancelled");
    admission_time_out(engine, task);
    bool *blocked = &task->runner->blocked[task->background];
    if (task->error.code || task->work) break; /* work waits for its slice, not for room */
    if (task->warmth == TASK_COLD) continue;
    if (!*blocked && has_room(task)) break;
    *blocked = true;
  }
  if (task) {
    if (before)
      before->next = task->next;
    else
      engine->queue_head = task->next;
    if (engine->queue_tail == task) engine->queue_tail = before;
    if (!task->work) uncount(engine, task);
    task->next = NULL;
  }
  pthread_mutex_unlock(&engine->mutex);
  return task;
}

static void admit_work(struct runner *runner, struct engine_task *task) {
  admission_place(&runner->work_head, &runner->work_tail, task);
  atomic_fetch_add(&runner->engine->working, 1);
}

void admission_start_turns(struct engine *engine, struct runner *runner) {
  pthread_mutex_lock(&engine->mutex);
  bool waiting = false;
  for (const struct engine_task *t = engine->queue_head; t; t = t->next) waiting |= t->runner == runner && !t->background;
  pthread_mutex_unlock(&engine->mutex);
  for (struct engine_task *task = runner->turns; task; task = task->next) {
    bool idle = true; /* one sequence of it must run, or it would never end */
    for (int i = 0; i < runner->n_running; i++) idle &= runner->running[i]->task != task;
    for (int more = 1; more > 0 && !task->error.code && (!waiting || idle);) {
      more = task_start_next(task, &task->error);
      if (more <= 0) break;
      atomic_fetch_add(&engine->running, 1);
      runner->n_background += task->background;
      idle = false;
    }
  }
}

static void admit_turns(struct runner *runner, struct engine_task *task) {
  struct engine_task **at = &runner->turns;
  while (*at) at = &(*at)->next;
  *at = task;
  atomic_fetch_add(&runner->engine->working, 1);
}

static void admit(struct engine *engine, struct engine_task *task) {
  struct runner *runner = task->runner;
  if (task->error.code || (!task->work && task_admit(task, &task->error) != 0)) {
    engine_finish(engine, task);
    return;
  }
  if (task->work) {
    admit_work(runner, task);
    return;
  }
  if (task->in_turn) admit_turns(runner, task);
  if (task->background) runner->n_background += task->n_started;
  for (int i = 0; i < task->n_started; i++) runner->running[runner->n_running++] = &task->sequences[i];
  atomic_fetch_add(&engine->running, task->n_started);
}

void admission_admit(struct engine *engine) {
  for (struct engine_task *task; (task = dequeue(engine));) admit(engine, task);
}
