/* sequence.c: the life of tasks and sequences: made by the asker's thread, admitted, run and ended by the
 * worker. Knows KV blocks and prompts; which rows run when is batch.c's affair. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/engine/engine_int.h"
#include "core/model/point_shape.h"

/* The last positions first: of remembered blocks those go first too (kv.h), and a beginning is of use without its end. */
static void drop_blocks(struct sequence *s, struct runner *runner) {
  for (int32_t b = s->blocks ? s->n_blocks : 0; b-- > 0;)
    for (int32_t l = 0; l < runner->model->arch.n_layer; l++) {
      kv_block_drop(runner->kv, *sequence_block(s, l, b));
      *sequence_block(s, l, b) = -1;
    }
}

static void sequence_free(struct sequence *s, struct runner *runner) {
  drop_blocks(s, runner);
  if (s->prefix) prefix_leave(runner->prefixes, s);
  edit_list_free(s->edits, runner->backend);
  sampler_free(s->sampler);
  free(s->tokens);
  free(s->taps);
  free(s->blocks);
  memset(s, 0, sizeof *s);
}

void task_give_back(struct engine_task *task) {
  for (int i = 0; i < task->n_sequences; i++) drop_blocks(&task->sequences[i], task->runner);
}

void task_free(struct engine_task *task) {
  if (!task) return;
  if (task->kept) task->runner->reserved -= task->kept; /* of a task that never ran it is none, and this no thread of the worker's */
  for (int i = 0; i < task->n_sequences; i++) sequence_free(&task->sequences[i], task->runner);
  free(task->sequences);
  free(task);
}

/* ---- making ---- */

static int copy_tokens(struct sequence *s, const struct engine_sequence *from, struct error *error) {
  size_t n = (size_t)from->n_tokens + (size_t)from->max_new;
  s->tokens = malloc(n * sizeof *s->tokens);
  if (!s->tokens) return error_memory(error, n * sizeof *s->tokens);
  memcpy(s->tokens, from->tokens, (size_t)from->n_tokens * sizeof *s->tokens);
  s->n_prompt = s->n_tokens = from->n_tokens;
  s->max_new = from->max_new;
  s->keys = engine_keys(from->n_tokens, from->max_new);
  return 0;
}

static int copy_taps(struct sequence *s, const struct engine_sequence *from, const struct arch *arch,
                     struct error *error) {
  if (!from->n_taps) return 0;
  s->taps = malloc((size_t)from->n_taps * sizeof *s->taps);
  if (!s->taps) return error_memory(error, (size_t)from->n_taps * sizeof *s->taps);
  memcpy(s->taps, from->taps, (size_t)from->n_taps * sizeof *s->taps);
  s->n_taps = from->n_taps;
  for (int i = 0; i < s->n_taps; i++) {
    s->tap_width += point_width(arch, s->taps[i].site, s->keys);
    s->head_taps |= s->taps[i].layer == arch->n_layer;
  }
  return 0;
}

/* Every position that is ever fed in needs a place; the last generated token never is. */
static int make_block_table(struct sequence *s, const struct arch *arch, struct error *error) {
  s->n_blocks = (s->keys + KV_BLOCK - 1) / KV_BLOCK;
  size_t n = (size_t)s->n_blocks * (size_t)arch->n_layer;
  s->blocks = malloc(n * sizeof *s->blocks);
  if (!s->blocks) return error_memory(error, n * sizeof *s->blocks);
  for (size_t i = 0; i < n; i++) s->blocks[i] = -1;
  return 0;
}

static int sequence_init(struct sequence *s, struct engine_task *task, int index, const struct engine_sequence *from,
                         struct error *error) {
  const struct arch *arch = &task->runner->model->arch;
  assert(from->n_tokens >= 1 && from->n_tokens <= arch->n_ctx && from->last_layer <= arch->n_layer);
  assert(from->max_new == 0 || from->last_layer == arch->n_layer);
  assert(from->logits == LOGITS_NONE || (from->max_new == 0 && from->last_layer == arch->n_layer));
  for (int i = 0; i < from->n_taps; i++) assert(point_layers(from->taps[i]) <= from->last_layer);
  s->task = task;
  s->index = index;
  s->last = from->last_layer;
  s->eos = from->eos;
  s->n_logprobs = from->n_logprobs;
  s->logits = from->logits;
  if (from->resume_rows) {
    assert(index > 0 && from->last_layer == arch->n_layer && from->resume_layer < arch->n_layer && task->in_turn);
    s->resume_rows = from->resume_rows;
    s->resume_position = s->done = from->resume_position;
    s->first = from->resume_layer;
    task->resumes = true;
  }
  if (from->twin && index > 0) {
    assert(!task->in_turn && !from->n_taps && !from->fork && from->logits == LOGITS_NONE);
    s->twin = task->sequences[index - 1].twin ? task->sequences[index - 1].twin : &task->sequences[index - 1];
  }
  if (from->fork && index > 0) {
    s->leader = &task->sequences[0];
    s->first = edit_list_first_layer(from->edits, arch->n_layer);
    if (s->first >= arch->n_layer) s->first = arch->n_layer - 1;
  }
  if (copy_tokens(s, from, error) != 0 || copy_taps(s, from, arch, error) != 0 ||
      make_block_table(s, arch, error) != 0)
    return -1;
  if (from->max_new == 0) return 0;
  s->sampler = sampler_new(&from->sampling, arch->vocabulary, from->max_new, error);
  return s->sampler ? 0 : -1;
}

static int32_t blocks_of(const struct sequence *s) { return s->n_blocks * (s->last - s->first); }

/* What the task must find free to get on. A fork's layers below its first are counted: it needs them while it follows. */
static void count_blocks(struct engine_task *task) {
  for (int i = 0; i < task->n_sequences; i++) {
    const struct sequence *s = &task->sequences[i];
    if (!task->in_turn)
      task->blocks_needed += s->n_blocks * s->last;
    else if (i > 0 && blocks_of(s) > task->reserve)
      task->reserve = blocks_of(s);
  }
  if (!task->in_turn) return;
  int32_t base = blocks_of(&task->sequences[0]);
  if (task->resumes)
    task->blocks_needed = base + task->reserve;
  else
    task->blocks_needed = task->reserve = base > task->reserve ? base : task->reserve;
}

int task_new(struct runner *runner, const struct engine_task_args *args, struct engine_task **out,
             struct error *error) {
  struct engine_task *task = calloc(1, sizeof *task);
  if (task) task->sequences = calloc((size_t)args->n_sequences, sizeof *task->sequences);
  int failed = 0;
  if (task && task->sequences) {
    task->runner = runner;
    task->events = args->events;
    task->context = args->context;
    task->background = args->background;
    task->owner = args->owner;
    task->continues = args->continues;
    task->in_turn = args->in_turn;
    task->n_sequences = args->n_sequences;
    task->queued_ns = clock_ns();
    for (int i = 0; i < args->n_sequences; i++) {
      /* Taken first, so that a failure further on frees every list. */
      task->sequences[i].edits = args->sequences[i].edits;
      if (!failed) failed = sequence_init(&task->sequences[i], task, i, &args->sequences[i], error);
    }
    if (!failed) count_blocks(task);
  } else {
    for (int i = 0; i < args->n_sequences; i++) edit_list_free(args->sequences[i].edits, runner->backend);
    free(task);
    return error_memory(error, sizeof *task);
  }
  if (failed) {
    task_free(task);
    return -1;
  }
  *out = task;
  return 0;
}

int task_new_work(struct runner *runner, const struct engine_work *work, uint64_t owner, void *context, struct engine_task **out,
                  struct error *error) {
  struct engine_task *task = calloc(1, sizeof *task);
  if (!task) return error_memory(error, sizeof *task);
  task->runner = runner;
  task->work = work;
  task->owner = owner;
  task->context = context;
  task->background = !work->asked;
  task->queued_ns = clock_ns();
  *out = task;
  return 0;
}

/* ---- running ---- */

/* Its blocks are others than before. */
static void name_blocks(struct sequence *s) {
  static atomic_uint_least64_t serials;
  s->pages = atomic_fetch_add(&serials, 1) + 1;
}

/* Blocks that the task has not, and nobody else may take. */
static void keep_back(struct engine_task *task, int32_t blocks) {
  task->kept += blocks;
  task->runner->reserved += blocks;
}

/* All other blocks at once, so that a running sequence never waits for memory. */
static int take_blocks(struct sequence *s, struct error *error) {
  name_blocks(s);
  for (int32_t l = s->resume_rows ? s->first : 0; l < s->last; l++)
    for (int32_t b = 0; b < s->n_blocks; b++) {
      if (*sequence_block(s, l, b) >= 0) continue; /* a remembered one */
      int32_t block = kv_block_take(s->task->runner->kv);
      if (block < 0) return error_set(error, ERROR_BUG, "key-value memory that was kept back is not there");
      *sequence_block(s, l, b) = block;
    }
  return 0;
}

static void go_on_reserve(struct sequence *s) {
  s->task->reserve_used = s->on_reserve = true;
  keep_back(s->task, -blocks_of(s));
}

int task_admit(struct engine_task *task, struct error *error) {
  task->started_ns = clock_ns();
  task->n_running = task->n_sequences;
  task->n_started = task->in_turn ? 1 : task->n_sequences;
  keep_back(task, task->reserve);
  if (task->in_turn && !task->resumes) go_on_reserve(&task->sequences[0]); /* it is what is kept back, the first time */
  struct prefixes *prefixes = task->runner->prefixes;
  if (prefixes) atomic_fetch_add(&task->runner->engine->spared_tokens, prefix_begin(prefixes, task));
  for (int i = 0; i < task->n_started; i++)
    if (take_blocks(&task->sequences[i], error) != 0) return -1;
  return 0;
}

/* What sequence 0 left before the position: whole blocks are shared, the one they part in is copied. Where it runs on the reserve,
 * what it gives back stays the task's: the next one may need it. */
static int resume_blocks(struct sequence *s, struct error *error) {
  struct sequence *base = &s->task->sequences[0];
  struct kv_pool *kv = s->task->runner->kv;
  int32_t whole = s->resume_position / KV_BLOCK, rest = s->resume_position % KV_BLOCK;
  if (s->on_reserve) keep_back(s->task, whole * (s->last - s->first));
  name_blocks(s);
  for (int32_t l = s->first; l < s->last; l++) {
    for (int32_t b = 0; b < whole; b++) {
      kv_block_drop(kv, *sequence_block(s, l, b));
      *sequence_block(s, l, b) = *sequence_block(base, l, b);
      kv_block_share(kv, *sequence_block(s, l, b));
    }
    if (rest && kv_block_copy(kv, *sequence_block(s, l, whole), *sequence_block(base, l, whole), error) != 0) return -1;
  }
  return 0;
}

int task_start_next(struct engine_task *task, struct error *error) {
  struct runner *runner = task->runner;
  if (task->n_started == task->n_sequences || runner->n_running == runner->max_sessions) return 0;
  if (task->resumes && !sequence_decodes(&task->sequences[0])) return 0;
  struct sequence *s = &task->sequences[task->n_started];
  bool room = blocks_of(s) <= kv_pool_blocks_free(runner->kv) - runner->reserved;
  if (!room && task->reserve_used) return 0;
  if (!room) go_on_reserve(s);
  task->n_started++;
  if (take_blocks(s, error) != 0 || (s->resume_rows && resume_blocks(s, error) != 0)) return -1;
  runner->running[runner->n_running++] = s;
  return 1;
}

void sequence_release(struct sequence *s) {
  struct engine_task *task = s->task;
  if (s->index > 0 || !task->resumes) drop_blocks(s, task->runner);
  if (s->on_reserve) {
    task->reserve_used = s->on_reserve = false;
    keep_back(task, task->reserve - task->kept);
  }
  edit_list_free(s->edits, task->runner->backend);
  s->edits = NULL;
}

/* Whole prompt blocks of layers [0, layers) are shared with another, and its own go back; the one that both will go on
 * writing to is copied. */
static int share_prompt(struct sequence *s, struct sequence *with, int32_t layers, struct error *error) {
  struct kv_pool *kv = s->task->runner->kv;
  int32_t whole = s->n_prompt / KV_BLOCK, rest = s->n_prompt % KV_BLOCK;
  name_blocks(s);
  for (int32_t l = 0; l < layers; l++) {
    for (int32_t b = 0; b < whole; b++) {
      kv_block_drop(kv, *sequence_block(s, l, b));
      *sequence_block(s, l, b) = *sequence_block(with, l, b);
      kv_block_share(kv, *sequence_block(s, l, b));
    }
  }
  for (int32_t l = 0; rest && l < layers; l++)
    if (kv_block_copy(kv, *sequence_block(s, l, whole), *sequence_block(with, l, whole), error) != 0) return -1;
  return 0;
}

/* A follower's own begins at its first edited layer. */
int sequence_detach(struct sequence *s, struct error *error) {
  if (share_prompt(s, s->leader, s->first, error) != 0) return -1;
  s->first = 0;
  s->leader = NULL;
  return 0;
}

int sequence_take_over(struct sequence *s, struct error *error) {
  if (share_prompt(s, s->twin, s->last, error) != 0) return -1;
  s->done = s->twin->done;
  s->twin = NULL;
  return 0;
}

void sequence_end(struct sequence *s, const char *finish) {
  if (s->ended) return;
  s->ended = true;
  s->task->n_running--;
  if (s->task->events->ended) s->task->events->ended(s->task->context, s->index, finish);
}
