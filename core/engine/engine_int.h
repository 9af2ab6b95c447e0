/* engine_int.h: what the files of the engine share: tasks, sequences, one runner per model, the batch.
 * Everything here belongs to the worker thread, except what the engine guards with its mutex. */
#ifndef STEERD_CORE_ENGINE_ENGINE_INT_H
#define STEERD_CORE_ENGINE_ENGINE_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/engine/engine.h"
#include "core/engine/kv.h"
#include "core/engine/prefix.h"
#include "core/engine/slot.h"
#include "core/model/plan.h"

struct runner;

struct sequence {
  struct engine_task *task;
  int index;                /* in the task */
  int32_t *tokens;          /* [n_prompt + max_new] */
  int32_t n_prompt, n_tokens, n_new, max_new;
  int32_t done;             /* positions computed: [0, done) */
  int32_t first, last;      /* layers of its next rows; first > 0 only while it follows its leader */
  struct sequence *twin;    /* whose prompt it waits for; NULL once that is read */
  struct sequence *leader;  /* whose prompt rows it forks from; NULL once the prompt is read */
  struct edit_list *edits;
  struct point *taps;
  int n_taps;
  int64_t tap_width;        /* elements of all taps of one row */
  int32_t keys;             /* positions it can ever have: engine_keys */
  bool head_taps;           /* a tap at the final norm or the logits: its rows all go through the head */
  int32_t *blocks;          /* [n_layer][n_blocks], -1: none */
  int32_t n_blocks;
  uint64_t pages;           /* names what is in `blocks` (kv_pages.serial) */
  struct prefix_cursor *prefix; /* how far it is remembered; NULL: not at all */
  struct sampler *sampler;  /* NULL: no generation */
  int32_t eos;
  int n_logprobs;
  enum engine_logits logits;
  const float *resume_rows; /* borrowed; row 0 is position resume_position */
  int32_t resume_position;
  bool ended;
  bool on_reserve;          /* runs in the blocks that its task kept back */
};

/* Whether the dictionaries of a task's edits are on the backend, as far as the queue goes. */
enum task_warmth { TASK_READY, TASK_COLD, TASK_PREPARING /* the preparer's: nobody else touches it */ };

struct engine_task {
  struct engine_task *next; /* in the queue */
  struct runner *runner;
  const struct engine_events *events; /* of sequences; NULL for work */
  const struct engine_work *work;     /* NULL for sequences */
  bool had_turn;                      /* of long work: others come first */
  void *context;
  bool queued;              /* counted among those that wait; guarded by the engine's mutex, and so are warmth and the next two */
  struct engine_task *next_queued, *previous_queued;
  uint64_t owner;
  int64_t turn;             /* its place in the list it is in: ascending, and those of one owner all differ */
  enum task_warmth warmth;
  bool background, continues;
  struct sequence *sequences;
  int n_sequences, n_running;
  int32_t blocks_needed;    /* of KV memory, at most; IN TURN: to get on, sequence 0's and its reserve */
  bool in_turn, resumes;    /* resumes: some sequence does, so sequence 0 keeps its blocks to the end */
  int n_started;            /* IN TURN: sequences [0, n_started) */
  int32_t reserve;          /* IN TURN: blocks kept back for one sequence, so that two such tasks never wait for each other */
  int32_t kept;             /* of the reserve: blocks that no sequence of the task holds; part of runner.reserved */
  bool reserve_used;
  int64_t queued_ns, started_ns;
  atomic_bool cancelled;
  struct error error;       /* set when the task must fail */
};

struct engine {
  struct backend *backend;
  struct engine_options options;
  struct runner *runners;
  size_t n_runners;
  pthread_t thread, preparer;
  bool started, prepares; /* that they run */
  pthread_mutex_t mutex; /* guards the queue, the flags below and nothing else; no callback runs under it */
  pthread_cond_t changed;    /* the worker has something to do */
  pthread_cond_t grown_cold; /* and the preparer */
  struct engine_task *queue_head, *queue_tail;
  struct engine_task *queued; /* those that are counted, in no order */
  int n_queued;
  bool stop, draining;
  bool overfull; /* dictionaries were prepared beside those that there are */
  atomic_int running, working; /* sequences; tasks that are work */
  _Atomic int64_t moved_ns;    /* when the worker last went on to the next thing; 0: it has nothing to do */
  _Atomic int64_t done, failed, cancelled, prompt_tokens, spared_tokens, new_tokens, steps, step_rows, busy_ns;
  _Atomic double mean_service;
};

/* ---- engine.c (worker) ---- */

/* Tells the asker, which may free what it knows of the task, and frees the task. */
void engine_finish(struct engine *engine, struct engine_task *task);

/* ---- admission.c (worker) ---- */

/* Starts or ends every task of the queue that can leave it. */
void admission_admit(struct engine *engine);

/* Puts the task where its owner's turn comes in a list that only this fills: of the queue (under the mutex), of the work of a runner
 * (the worker). */
void admission_place(struct engine_task **head, struct engine_task **tail, struct engine_task *task);

/* Under the mutex: whether there is a task that is not the preparer's affair. */
bool admission_waits(const struct engine *engine);

/* Sequences of IN TURN tasks take what room is left, but never before a task that waits in the queue. */
void admission_start_turns(struct engine *engine, struct runner *runner);

/* Sets the task's error when it has waited for too long. */
void admission_time_out(const struct engine *engine, struct engine_task *task);

/* It waits no more. Work leaves the queue at once, but waits until its first slice. */
void admission_uncount(struct engine *engine, struct engine_task *task);

/* ---- preparer.c ---- */

bool preparer_needed(const struct engine_task *task); /* any thread, before the task is queued */
/* Under the mutex: there is one from now on; false: no thread is to be had. */
bool preparer_start(struct engine *engine);
void preparer_join(struct engine *engine); /* the engine stops */

/* ---- sequence.c ---- */

/* Builds the task's sequences; takes the edit lists in any case. */
int task_new(struct runner *runner, const struct engine_task_args *args, struct engine_task **out,
             struct error *error) MUST_CHECK;
int task_new_work(struct runner *runner, const struct engine_work *work, uint64_t owner, void *context, struct engine_task **out,
                  struct error *error) MUST_CHECK;
void task_give_back(struct engine_task *task); /* its KV blocks: it has ended */
void task_free(struct engine_task *task);

/* Takes KV blocks; IN TURN: of sequence 0. The caller has made sure that blocks_needed are free. */
int task_admit(struct engine_task *task, struct error *error) MUST_CHECK;

/* The prompt is read: a twin takes it over. */
int sequence_take_over(struct sequence *s, struct error *error);

/* The prompt is read: a follower becomes a sequence of its own. */
int sequence_detach(struct sequence *sequence, struct error *error) MUST_CHECK;

void sequence_end(struct sequence *sequence, const char *finish);

/* IN TURN: starts the next sequence where there is room: 1 when it did, 0 when it must wait (or none is left), -1 with
 * an error. */
int task_start_next(struct engine_task *task, struct error *error) MUST_CHECK;

/* IN TURN: an ended sequence gives back what it holds. */
void sequence_release(struct sequence *sequence);

/* The KV block of a layer that holds positions [block * KV_BLOCK, (block + 1) * KV_BLOCK). */
static inline int32_t *sequence_block(struct sequence *s, int32_t layer, int32_t block) {
  return &s->blocks[layer * s->n_blocks + block];
}

/* Rows it wants in its next step: prompt left, or 1. */
static inline int32_t sequence_pending(const struct sequence *s) { return s->n_tokens - s->done; }
static inline bool sequence_decodes(const struct sequence *s) { return s->done >= s->n_prompt; }

/* ---- batch.c ---- */

/* One sequence's share of a step. */
struct batch_part {
  struct sequence *sequence;
  int32_t n_rows;
  int32_t row;       /* first row, once placed */
  int32_t logit;     /* index of its logits, -1: none */
  int32_t draw;      /* index of the draw that the backend makes from them, -1: none */
  bool follower;     /* forks from its leader in this step */
  size_t tap_offset; /* bytes in the runner's tap memory */
};

struct batch {
  struct batch_part *parts; /* [max_sessions] */
  int n_parts;
  int32_t n_rows;
  struct step step;
};

struct runner {
  struct engine *engine;
  bool blocked[2]; /* while the queue is walked: an earlier task of it waits for room; [1] background */
  const struct model *model;
  struct backend *backend;
  struct plan *plan;
  struct kv_pool *kv;
  struct prefixes *prefixes; /* NULL: nothing is remembered */
  struct memory *tap_memory;
  int64_t tap_elements;     /* room for taps in one step */
  struct sequence **running; /* [max_sessions] */
  int n_running, n_background; /* of these in background tasks */
  struct engine_task *turns; /* admitted IN TURN tasks */
  int32_t reserved;         /* KV blocks kept back for them */
  struct engine_task *work_head, *work_tail; /* admitted work, owners in turn */
  int next;                 /* who is served first: rotates */
  int max_sessions;
  int32_t max_rows;
  struct batch batch;
  struct slots slots;       /* dictionary edits of the step */
  struct memory *saved;     /* [max_rows, d_model] rows that sequences resume from */
  struct batch_tables *tables;
  float *logits;            /* [vocabulary] host copy of one row */
  struct draw_candidate *desk; /* [vocabulary] scratch of draws */
  struct sample_draw *draws;      /* [max_sessions] for the backend, and what it drew */
  struct sample_result *drawn;
};

int batch_open(struct runner *runner, struct error *error) MUST_CHECK;
void batch_close(struct runner *runner);

/* Chooses the rows of the next step and fills every table. n_rows 0: nothing to do. */
int batch_build(struct runner *runner, struct error *error) MUST_CHECK;

#endif
