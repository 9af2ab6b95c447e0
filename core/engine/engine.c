/* engine.c: the worker thread and its loop: admit (admission.c), step, deliver. Refuses to know who may run next. */
#include "core/engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/engine/engine_int.h"
#include "core/model/point_shape.h"

/* The running mean of service time forgets with this weight, about the last 16 tasks. */
#define SERVICE_WEIGHT (1.0 / 16)

/* Room for taps in a step: two taps of full steps at d_model; more taps mean shorter chunks. */
#define TAP_STEPS 2

/* Most bytes of edits' vectors between two steps: some milliseconds. */
#define UPLOAD_BYTES ((size_t)4 << 20)

/* Most log-probabilities one token can be asked for. */
#define MAX_LOGPROBS SAMPLE_MOST_LIKELY

/* ---- ending tasks (worker) ---- */

static void count_end(struct engine *engine, const struct engine_task *task) {
  if (task->background) return;
  if (!task->error.code)
    atomic_fetch_add(&engine->done, 1);
  else if (task->error.code == ERROR_CANCELLED)
    atomic_fetch_add(&engine->cancelled, 1);
  else
    atomic_fetch_add(&engine->failed, 1);
  if (!task->started_ns || task->error.code) return;
  double seconds = (double)(clock_ns() - task->started_ns) * 1e-9, mean = atomic_load(&engine->mean_service);
  atomic_store(&engine->mean_service, mean == 0 ? seconds : mean + SERVICE_WEIGHT * (seconds - mean));
}

/* done() may free what the asker knows of the task; the task itself goes here. */
void engine_finish(struct engine *engine, struct engine_task *task) {
  admission_uncount(engine, task);
  task_give_back(task); /* whoever hears of the end finds the memory free */
  const struct error *error = task->error.code ? &task->error : NULL;
  count_end(engine, task);
  if (task->work)
    task->work->done(task->context, error);
  else
    task->events->done(task->context, error);
  task_free(task);
}

static void remove_running(struct runner *runner, const struct engine_task *task) {
  int kept = 0;
  for (int i = 0; i < runner->n_running; i++)
    if (runner->running[i]->task != task) runner->running[kept++] = runner->running[i];
  atomic_fetch_sub(&runner->engine->running, runner->n_running - kept);
  if (task->background) runner->n_background -= runner->n_running - kept;
  runner->n_running = kept;
  runner->next = kept ? runner->next % kept : 0;
}

/* IN TURN: ended sequences leave at once, and give back what they held. */
static void release_ended(struct runner *runner, struct engine_task *task) {
  int kept = 0;
  for (int i = 0; i < runner->n_running; i++) {
    struct sequence *s = runner->running[i];
    if (s->task == task && s->ended)
      sequence_release(s);
    else
      runner->running[kept++] = s;
  }
  atomic_fetch_sub(&runner->engine->running, runner->n_running - kept);
  if (task->background) runner->n_background -= runner->n_running - kept;
  runner->n_running = kept;
  runner->next = kept ? runner->next % kept : 0;
}

/* Takes IN TURN tasks off their list that have ended, or that must fail. */
static void sweep_turns(struct runner *runner) {
  for (struct engine_task **at = &runner->turns; *at;) {
    struct engine_task *task = *at;
    release_ended(runner, task);
    if (atomic_load(&task->cancelled)) error_set(&task->error, ERROR_CANCELLED, "the request was cancelled");
    if (task->n_running > 0 && !task->error.code) {
      at = &task->next;
      continue;
    }
    *at = task->next;
    remove_running(runner, task);
    atomic_fetch_sub(&runner->engine->working, 1);
    engine_finish(runner->engine, task);
  }
}

/* Takes tasks off the running list whose sequences have all ended, or that must fail. */
static void sweep(struct runner *runner) {
  sweep_turns(runner);
  for (int i = 0; i < runner->n_running;) {
    struct engine_task *task = runner->running[i]->task;
    if (task->in_turn) {
      i++;
      continue;
    }
    if (atomic_load(&task->cancelled)) error_set(&task->error, ERROR_CANCELLED, "the request was cancelled");
    if (task->n_running > 0 && !task->error.code) {
      i++;
      continue;
    }
    remove_running(runner, task);
    engine_finish(runner->engine, task);
    i = 0;
  }
}

/* ---- delivering (worker) ---- */

static int deliver_taps(struct runner *runner, const struct batch_part *part, struct error *error) {
  const struct sequence *s = part->sequence;
  size_t offset = part->tap_offset;
  for (int i = 0; i < s->n_taps; i++) {
    int64_t width = point_width(&runner->model->arch, s->taps[i].site, s->keys);
    struct engine_tapped tapped = {.tap = i, .position = s->done, .n_rows = part->n_rows, .width = width,
                                   .rows = {{runner->tap_memory, offset}, width}, .backend = runner->backend};
    if (s->task->events->tapped(s->task->context, s->index, &tapped, error) != 0) return -1;
    offset += (size_t)width * (size_t)part->n_rows * sizeof(float);
  }
  return 0;
}

static bool too_old(const struct engine *engine, const struct engine_task *task) {
  int64_t limit = (int64_t)engine->options.generation_timeout_ms * 1000000;
  return limit && clock_ns() - task->started_ns > limit;
}

static int n_likely(const struct sequence *s) { return s->n_logprobs < MAX_LOGPROBS ? s->n_logprobs : MAX_LOGPROBS; }

/* The next token of a sequence, from its row of logits: as the backend drew it, or here. Log-probabilities are the model's own:
 * temperature 1, no penalty, no filter. */
static int take_token(struct runner *runner, const struct batch_part *part, struct engine_token *out, struct sampler_likely *likely,
                      struct error *error) {
  struct sequence *s = part->sequence;
  struct rows all = plan_logits(runner->plan);
  struct span row = span_at(all.at, (size_t)part->logit * (size_t)all.ld * sizeof(float));
  int64_t vocabulary = runner->model->arch.vocabulary;
  *out = (struct engine_token){.top = likely};
  if (part->draw >= 0) {
    const struct sample_result *drawn = &runner->drawn[part->draw];
    out->token = drawn->token;
    sampler_take(s->sampler, drawn->token);
    if (s->n_logprobs < 0) return 0;
    out->logprob = sampler_drawn_logprob(drawn);
    out->n_top = sampler_drawn_likely(drawn, likely);
    return 0;
  }
  if (runner->backend->ops->read(runner->backend, runner->logits, row, (size_t)vocabulary * sizeof(float), error) != 0) return -1;
  out->token = sampler_draw(s->sampler, runner->logits, runner->desk);
  if (s->n_logprobs < 0) return 0;
  out->logprob = sampler_logprob(runner->logits, vocabulary, out->token);
  out->n_top = sampler_most_likely(runner->logits, vocabulary, n_likely(s), likely);
  return 0;
}

static int draw(struct runner *runner, const struct batch_part *part, struct error *error) {
  struct sequence *s = part->sequence;
  struct sampler_likely likely[MAX_LOGPROBS];
  struct engine_token event;
  if (take_token(runner, part, &event, likely, error) != 0) return -1;
  if (event.token == s->eos) {
    sequence_end(s, "stop");
    return 0;
  }
  atomic_fetch_add(&runner->engine->new_tokens, 1);
  bool more = s->task->events->token(s->task->context, s->index, &event);
  s->tokens[s->n_tokens++] = event.token;
  if (!more)
    sequence_end(s, "stop");
  else if (++s->n_new >= s->max_new)
    sequence_end(s, "length");
  else if (too_old(runner->engine, s->task))
    sequence_end(s, "timeout");
  return 0;
}

static int tell_logits(struct runner *runner, const struct batch_part *part, int32_t first, int32_t n, int32_t at,
                       struct error *error) {
  const struct sequence *s = part->sequence;
  struct rows rows = plan_logits(runner->plan);
  rows.at = span_at(rows.at, (size_t)at * (size_t)rows.ld * sizeof(float));
  return s->task->events->logits(s->task->context, s->index, first, n, rows, runner->backend, error);
}

/* Logits of every row of the part, as many at a time as there is room for. Replaces the logits of the step. */
static int deliver_logits(struct runner *runner, const struct batch_part *part, struct error *error) {
  int32_t most = plan_max_logit_rows(runner->plan), rows[64];
  if (most > (int32_t)(sizeof rows / sizeof rows[0])) most = (int32_t)(sizeof rows / sizeof rows[0]);
  for (int32_t begin = 0; begin < part->n_rows; begin += most) {
    int32_t n = part->n_rows - begin < most ? part->n_rows - begin : most;
    for (int32_t i = 0; i < n; i++) rows[i] = part->row + begin + i;
    if (plan_head(runner->plan, &runner->batch.step, rows, n, error) != 0 ||
        tell_logits(runner, part, part->sequence->done + begin, n, 0, error) != 0)
      return -1;
  }
  return 0;
}

/* The twin behind `s`, or behind the last such; NULL: none. */
static struct sequence *twin_behind(struct sequence *s, const struct sequence *last) {
  int next = (last ? last->index : s->index) + 1;
  bool is = next < s->task->n_sequences && s->task->sequences[next].twin == s;
  return is ? &s->task->sequences[next] : NULL;
}

/* A prompt is read: its twins draw from the same row. Their draws stand behind the first one's. */
static int draw_twins(struct runner *runner, const struct batch_part *part, struct error *error) {
  struct batch_part twin = *part;
  struct sequence *next = twin_behind(part->sequence, NULL);
  while (next) {
    struct sequence *behind = twin_behind(part->sequence, next); /* asked now: a twin that has taken over is none any more */
    twin.sequence = next;
    if (twin.draw >= 0) twin.draw++;
    if (sequence_take_over(next, error) != 0 || draw(runner, &twin, error) != 0) return -1;
    next = behind;
  }
  return 0;
}

/* What one sequence gets out of a step. */
static int deliver(struct runner *runner, const struct batch_part *part, struct error *error) {
  struct sequence *s = part->sequence;
  bool prompt = !sequence_decodes(s);
  if (s->n_taps && deliver_taps(runner, part, error) != 0) return -1;
  if (s->logits == LOGITS_ALL && deliver_logits(runner, part, error) != 0) return -1;
  if (s->logits == LOGITS_LAST && part->logit >= 0 &&
      tell_logits(runner, part, s->n_tokens - 1, 1, part->logit, error) != 0)
    return -1;
  s->done += part->n_rows;
  if (prompt && !s->leader) atomic_fetch_add(&runner->engine->prompt_tokens, part->n_rows);
  if (prompt && sequence_decodes(s)) {
    if ((s->leader && sequence_detach(s, error) != 0) || draw_twins(runner, part, error) != 0) return -1;
    if (!s->sampler) sequence_end(s, "length");
  }
  if (runner->prefixes && !s->leader) prefix_remember(runner->prefixes, s);
  return s->sampler && part->logit >= 0 ? draw(runner, part, error) : 0;
}

/* ---- stepping (worker) ---- */

static void fail_all(struct runner *runner, const struct error *error) {
  for (int i = 0; i < runner->batch.n_parts; i++) {
    struct engine_task *task = runner->batch.parts[i].sequence->task;
    error_set(&task->error, error->code, "%s", error->text);
  }
}

/* Followers copy from their leader's blocks when they detach, so they are delivered before it can end. Those that want
 * the logits of all their rows come last: theirs take the place of the step's. */
static int deliver_pass(const struct batch_part *part) {
  return part->sequence->logits == LOGITS_ALL ? 2 : part->follower ? 0 : 1;
}

static void add_draw(struct runner *runner, const struct batch_part *part, const struct sequence *s, int32_t *n) {
  struct sample_draw *draw = &runner->draws[(*n)++];
  *draw = sampler_describe(s->sampler);
  draw->row = part->logit;
  if (s->n_logprobs >= 0) draw->n_likely = n_likely(s);
}

/* All draws at once, where the logits are. */
static int draw_together(struct runner *runner, struct error *error) {
  struct backend *backend = runner->backend;
  int32_t n = 0;
  for (int i = 0; backend->ops->sample && i < runner->batch.n_parts; i++) {
    struct batch_part *part = &runner->batch.parts[i];
    struct sequence *s = part->sequence;
    if (!s->sampler || part->logit < 0) continue;
    part->draw = n;
    add_draw(runner, part, s, &n);
    if (sequence_decodes(s)) continue;
    for (struct sequence *twin = twin_behind(s, NULL); twin; twin = twin_behind(s, twin)) add_draw(runner, part, twin, &n);
  }
  if (!n) return 0;
  return backend->ops->sample(backend, plan_logits(runner->plan), runner->model->arch.vocabulary, runner->draws, n, runner->drawn,
                              error);
}

static int fetch_tap_bytes(struct runner *runner, size_t begin, size_t end, struct error *error) {
  if (begin == end) return 0;
  return runner->backend->ops->fetch(runner->backend, (struct span){runner->tap_memory, begin}, end - begin, error);
}

/* Taps that somebody will read come back behind the step. They lie in the order of their parts: neighbours come in one piece. */
static int fetch_taps(struct runner *runner, struct error *error) {
  size_t begin = 0, end = 0;
  for (int i = 0; runner->backend->ops->fetch && i < runner->batch.n_parts; i++) {
    const struct batch_part *part = &runner->batch.parts[i];
    if (!part->sequence->n_taps || !part->sequence->task->events->reads_tapped) continue;
    if (part->tap_offset != end) {
      if (fetch_tap_bytes(runner, begin, end, error) != 0) return -1;
      begin = part->tap_offset;
    }
    end = part->tap_offset + (size_t)(part->sequence->tap_width * part->n_rows) * sizeof(float);
  }
  return fetch_tap_bytes(runner, begin, end, error);
}

static void deliver_all(struct runner *runner) {
  for (int pass = 0; pass < 3; pass++) {
    for (int i = 0; i < runner->batch.n_parts; i++) {
      struct batch_part *part = &runner->batch.parts[i];
      struct engine_task *task = part->sequence->task;
      if (deliver_pass(part) != pass || task->error.code) continue;
      if (deliver(runner, part, &task->error) != 0 && !task->error.code)
        error_set(&task->error, ERROR_BUG, "a step failed without saying why");
    }
  }
}

static void step(struct runner *runner) {
  struct error error = ERROR_INIT;
  struct engine *engine = runner->engine;
  int64_t begin = clock_ns();
  int failed = batch_build(runner, &error);
  if (!failed && !runner->batch.n_parts) return; /* everybody waits for edits */
  if (!failed && runner->slots.n_marks)
    failed = slots_run(&runner->slots, runner->plan, &runner->batch.step, &error);
  else if (!failed)
    failed = plan_run(runner->plan, &runner->batch.step, &error);
  if (!failed) failed = draw_together(runner, &error);
  if (!failed) failed = fetch_taps(runner, &error);
  /* Also after a failure: memory of what failed is given to others. */
  if (backend_wait(runner->backend, failed ? NULL : &error) != 0) failed = -1;
  if (failed)
    fail_all(runner, &error);
  else
    deliver_all(runner);
  atomic_fetch_add(&engine->steps, 1);
  atomic_fetch_add(&engine->step_rows, runner->batch.n_rows);
  atomic_fetch_add(&engine->busy_ns, clock_ns() - begin);
}

/* The first work that waits. Long work that has had its turn goes behind the others first: now, not behind its slice, when those who were asked
 * for meanwhile have not been let in yet. */
static struct engine_task *next_work(struct runner *runner) {
  struct engine_task *task = runner->work_head;
  if (!task || !task->had_turn || !task->next) return task;
  const struct engine_task *behind = runner->work_tail;
  runner->work_head = task->next;
  runner->work_tail->next = task;
  runner->work_tail = task;
  task->next = NULL;
  task->had_turn = false;
  task->turn = behind->turn > task->turn ? behind->turn : task->turn;
  return runner->work_head;
}

/* One slice of the first work that waits. */
static void slice(struct runner *runner) {
  struct engine_task *task = next_work(runner);
  if (!task) return;
  int64_t begin = clock_ns();
  if (atomic_load(&task->cancelled)) error_set(&task->error, ERROR_CANCELLED, "the request was cancelled");
  if (task->queued) admission_time_out(runner->engine, task);
  if (task->queued) admission_uncount(runner->engine, task);
  int more = task->error.code ? -1 : task->work->slice(task->context, runner->plan, &task->error);
  atomic_fetch_add(&runner->engine->busy_ns, clock_ns() - begin);
  task->had_turn = task->work->long_one;
  if (more > 0) return;
  if (more < 0 && !task->error.code) error_set(&task->error, ERROR_BUG, "work failed without saying why");
  runner->work_head = task->next;
  if (!runner->work_head) runner->work_tail = NULL;
  atomic_fetch_sub(&runner->engine->working, 1);
  engine_finish(runner->engine, task);
}

/* Vectors of edits go to the backend a piece between two steps. */
static void upload(struct runner *runner) {
  size_t budget = UPLOAD_BYTES;
  for (int i = 0; i < runner->n_running && budget > 0; i++) {
    struct sequence *s = runner->running[i];
    if (edit_list_ready(s->edits) || s->task->error.code) continue;
    if (edit_list_upload(s->edits, runner->backend, &budget, &s->task->error) != 0 && !s->task->error.code)
      error_set(&s->task->error, ERROR_BUG, "edits could not be uploaded, without a reason");
  }
}

/* ---- the worker ---- */

static void cancel_all(struct runner *runner) {
  for (struct engine_task *task = runner->turns; task; task = task->next)
    error_set(&task->error, ERROR_CANCELLED, "the server is shutting down");
  for (int i = 0; i < runner->n_running; i++)
    error_set(&runner->running[i]->task->error, ERROR_CANCELLED, "the server is shutting down");
  for (struct engine_task *task = runner->work_head; task; task = task->next)
    error_set(&task->error, ERROR_CANCELLED, "the server is shutting down");
}

/* Under the mutex. */
static bool is_idle(const struct engine *engine) {
  return !admission_waits(engine) && !engine->overfull && atomic_load(&engine->running) + atomic_load(&engine->working) == 0;
}

/* Sleeps until there is something to do; false when the engine stops and nothing is left. */
static bool wait_for_work(struct engine *engine) {
  pthread_mutex_lock(&engine->mutex);
  while (is_idle(engine) && !(engine->stop && !engine->queue_head)) {
    atomic_store(&engine->moved_ns, 0);
    pthread_cond_wait(&engine->changed, &engine->mutex);
  }
  atomic_store(&engine->moved_ns, clock_ns());
  bool go_on = !engine->stop || engine->queue_head || atomic_load(&engine->running) + atomic_load(&engine->working) > 0;
  bool stop = engine->stop, overfull = engine->overfull;
  engine->overfull = false;
  pthread_mutex_unlock(&engine->mutex);
  if (overfull && engine->options.budget) dict_budget_trim(engine->options.budget);
  for (size_t r = 0; stop && r < engine->n_runners; r++) cancel_all(&engine->runners[r]);
  return go_on;
}

/* What a sleeping worker asked for is over, also for those who were cancelled before their step: others give memory back meanwhile, and
 * do not know what reads it. */
static void settle(struct engine *engine) {
  for (size_t r = 0; r < engine->n_runners; r++) {
    int over = backend_wait(engine->runners[r].backend, NULL); /* an error of work that nobody wants is nobody's */
    (void)over;
  }
}

static void *worker(void *argument) {
  struct engine *engine = argument;
  while (wait_for_work(engine)) {
    admission_admit(engine);
    for (size_t r = 0; r < engine->n_runners; r++) {
      struct runner *runner = &engine->runners[r];
      atomic_store(&engine->moved_ns, clock_ns());
      slice(runner);
      atomic_store(&engine->moved_ns, clock_ns());
      sweep(runner);
      admission_start_turns(engine, runner);
      if (!runner->n_running) {
        sweep(runner); /* a sequence that could not start ends its task */
        continue;
      }
      upload(runner);
      atomic_store(&engine->moved_ns, clock_ns());
      step(runner);
      sweep(runner);
    }
    if (atomic_load(&engine->running) == 0) settle(engine);
  }
  return NULL;
}

/* ---- opening and closing ---- */

/* The pool, and a word where a text could be longer than it holds, or it larger than memory. */
static int open_kv(struct runner *runner, size_t room, struct error *error) {
  const struct arch *arch = &runner->model->arch;
  size_t bytes = runner->engine->options.kv_bytes;
  if (bytes > room)
    log_warn("model %s: kv_mib is %zu, and its share of the memory that is left now is %zu MiB: where texts fill more, the "
             "system may end the process", runner->model->id, bytes >> 20, room >> 20);
  if (!bytes) bytes = kv_pool_choose(runner->model, room);
  if (!(runner->kv = kv_pool_new(runner->model, bytes, error)))
    return error_prefix(error, "%zu MiB for keys and values (setting kv_mib)", bytes >> 20);
  int64_t positions = kv_pool_positions(runner->kv);
  if (positions < arch->n_ctx)
    log_warn("model %s: %zu MiB for keys and values hold %lld tokens of all texts together, the context is %lld; kv_mib sets it, "
             "and one context needs %zu MiB",
             runner->model->id, bytes >> 20, (long long)positions, (long long)arch->n_ctx,
             (kv_sequence_bytes(runner->model, arch->n_ctx) >> 20) + 1);
  return 0;
}

static void make_aside(struct runner *runner, int64_t floats) {
  struct error error = ERROR_INIT;
  size_t bytes = 0;
  if (splices_make_aside(&runner->slots.spliced, runner->backend, floats, &bytes, &error) != 0)
    log_warn("model %s: splices of some sources go through the host, which is slow: rows of theirs would wait between two points, and %s "
             "(a smaller kv_mib or max_step_rows leaves more room)", runner->model->id, error.text);
  else if (bytes)
    log_info("model %s: %zu MiB for rows that wait between the points of splices", runner->model->id, bytes >> 20);
}

void engine_make_aside(struct engine *engine, const struct model *model, int64_t floats) {
  for (size_t i = 0; i < engine->n_runners; i++)
    if (engine->runners[i].model == model) make_aside(&engine->runners[i], floats);
}

/* What is taken before the rest is shared out. */
static int runner_begin(struct runner *runner, struct engine *engine, const struct model *model, int64_t aside, struct error *error) {
  runner->engine = engine;
  runner->model = model;
  runner->backend = engine->backend;
  runner->max_sessions = engine->options.max_sessions;
  runner->max_rows = engine->options.max_step_rows;
  if (batch_open(runner, error) != 0) return -1;
  make_aside(runner, aside);
  return 0;
}

static int runner_open(struct runner *runner, size_t kv_room, struct error *error) {
  const struct model *model = runner->model;
  struct backend *backend = runner->backend;
  const struct arch *arch = &model->arch;
  int64_t widest = arch->d_mlp > arch->d_model ? arch->d_mlp : arch->d_model;
  runner->tap_elements = TAP_STEPS * (int64_t)runner->max_rows * widest;
  for (int site = 0; site < SITE_COUNT; site++) { /* any one point can be looked at */
    int64_t width = point_width(arch, (enum site)site, (int32_t)arch->n_ctx);
    if (width > runner->tap_elements) runner->tap_elements = width;
  }
  struct plan_limits limits = {runner->max_rows, runner->max_sessions};
  runner->running = calloc((size_t)runner->max_sessions, sizeof *runner->running);
  runner->logits = malloc((size_t)arch->vocabulary * sizeof(float));
  runner->desk = malloc((size_t)arch->vocabulary * sizeof *runner->desk);
  runner->draws = calloc((size_t)runner->max_sessions, sizeof *runner->draws);
  runner->drawn = calloc((size_t)runner->max_sessions, sizeof *runner->drawn);
  if (!runner->running || !runner->logits || !runner->desk || !runner->draws || !runner->drawn)
    return error_memory(error, (size_t)arch->vocabulary * sizeof(float));
  if (!(runner->plan = plan_new(model, limits, error)) || open_kv(runner, kv_room, error) != 0) return -1;
  if (runner->engine->options.remember && !(runner->prefixes = prefixes_new(runner->kv, (int32_t)arch->n_layer, error))) return -1;
  size_t tap_bytes = (size_t)runner->tap_elements * sizeof(float);
  if (backend->ops->alloc(backend, tap_bytes, &runner->tap_memory, error) != 0) return -1;
  log_info("model %s: buffers %zu MiB, keys and values %zu MiB, taps %zu MiB", model->id,
           plan_bytes(runner->plan) >> 20, kv_pool_bytes(runner->kv) >> 20, tap_bytes >> 20);
  return 0;
}

static void runner_close(struct runner *runner) {
  if (!runner->backend) return;
  batch_close(runner);
  runner->backend->ops->free(runner->backend, runner->tap_memory);
  prefixes_free(runner->prefixes);
  kv_pool_free(runner->kv);
  plan_free(runner->plan);
  free(runner->running);
  free(runner->logits);
  free(runner->desk);
  free(runner->draws);
  free(runner->drawn);
}

static int open_runners(struct engine *engine, const struct model *const *models, size_t n_models, struct error *error) {
  const int64_t *aside = engine->options.aside;
  int failed = 0;
  for (size_t i = 0; i < n_models && !failed; i++) {
    engine->n_runners++;
    failed = runner_begin(&engine->runners[i], engine, models[i], aside ? aside[i] : 0, error);
  }
  /* half of what is left for keys and values of all models; the rest is for requests and the pages of files */
  size_t kv_room = backend_room(engine->backend) / 2 / (n_models ? n_models : 1);
  for (size_t i = 0; i < n_models && !failed; i++) {
    failed = runner_open(&engine->runners[i], kv_room, error);
    if (failed) error_prefix(error, "model '%s'", models[i]->id);
  }
  engine->options.aside = NULL; /* borrowed for the call */
  return failed;
}

struct engine *engine_new(struct backend *backend, const struct model *const *models, size_t n_models,
                          const struct engine_options *options, struct error *error) {
  struct engine *engine = calloc(1, sizeof *engine);
  if (!engine) return error_memory(error, sizeof *engine), NULL;
  pthread_mutex_init(&engine->mutex, NULL);
  pthread_cond_init(&engine->changed, NULL);
  pthread_cond_init(&engine->grown_cold, NULL);
  engine->backend = backend;
  engine->options = *options;
  if (engine->options.max_step_rows < engine->options.max_sessions)
    engine->options.max_step_rows = engine->options.max_sessions;
  engine->runners = calloc(n_models ? n_models : 1, sizeof *engine->runners);
  int failed = engine->runners ? open_runners(engine, models, n_models, error) : error_memory(error, n_models * sizeof *engine->runners);
  /* A model that is computed with while it is loaded (a table with a factor) makes the opening thread the worker until now. */
  if (!failed && backend->ops->wait) failed = backend->ops->wait(backend, error);
  if (!failed && pthread_create(&engine->thread, NULL, worker, engine) != 0)
    failed = error_set(error, ERROR_IO, "the engine's thread could not be started");
  engine->started = !failed;
  if (!failed) return engine;
  engine_free(engine);
  return NULL;
}

void engine_free(struct engine *engine) {
  if (!engine) return;
  pthread_mutex_lock(&engine->mutex);
  engine->stop = true;
  pthread_cond_signal(&engine->changed);
  pthread_cond_signal(&engine->grown_cold);
  pthread_mutex_unlock(&engine->mutex);
  preparer_join(engine);
  if (engine->started) pthread_join(engine->thread, NULL);
  for (size_t i = 0; i < engine->n_runners; i++) runner_close(&engine->runners[i]);
  free(engine->runners);
  pthread_cond_destroy(&engine->changed);
  pthread_cond_destroy(&engine->grown_cold);
  pthread_mutex_destroy(&engine->mutex);
  free(engine);
}

void engine_stats(struct engine *engine, struct engine_stats *out) {
  memset(out, 0, sizeof *out);
  pthread_mutex_lock(&engine->mutex);
  out->queued = engine->n_queued;
  out->draining = engine->draining || engine->stop;
  pthread_mutex_unlock(&engine->mutex);
  out->running = atomic_load(&engine->running);
  out->tasks_done = atomic_load(&engine->done);
  out->tasks_failed = atomic_load(&engine->failed);
  out->tasks_cancelled = atomic_load(&engine->cancelled);
  out->prompt_tokens = atomic_load(&engine->prompt_tokens);
  out->spared_tokens = atomic_load(&engine->spared_tokens);
  out->new_tokens = atomic_load(&engine->new_tokens);
  out->steps = atomic_load(&engine->steps);
  out->step_rows = atomic_load(&engine->step_rows);
  out->busy_seconds = (double)atomic_load(&engine->busy_ns) * 1e-9;
  out->mean_service_seconds = atomic_load(&engine->mean_service);
  int64_t moved = atomic_load(&engine->moved_ns), now = clock_ns();
  out->still_seconds = moved && now > moved ? (double)(now - moved) * 1e-9 : 0;
  for (size_t i = 0; i < engine->n_runners; i++) {
    const struct kv_pool *kv = engine->runners[i].kv;
    int32_t blocks = kv_pool_blocks(kv), used = blocks - kv_pool_blocks_free(kv);
    out->kv_bytes += kv_pool_bytes(kv);
    out->kv_used_bytes += kv_pool_bytes(kv) / (size_t)blocks * (size_t)used;
  }
}
