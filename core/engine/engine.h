/* engine.h: the worker. One thread owns the models, the KV memory and the device; everyone else hands it a task. A second one brings the
 * dictionaries that edits of a task need, while the task waits in the queue and others run.
 *
 * A TASK is one or more sequences over one model that end together: STEERED and DEFAULT of a steer request, or the
 * texts of an activations request. A SEQUENCE is a prompt, an edit list, taps, and optionally tokens to generate.
 * Sequences of all tasks run in shared steps: a step holds decode rows of many sequences and chunks of prompts;
 * sequences join and leave between steps. What else is in a step changes no bit of an answer (ops.h).
 *
 * FORKS. Sequences of a task that say `fork` have the same prompt as sequence 0. While that prompt is read, they
 * share its rows below their first edited layer, and afterwards the keys and values made there.
 *
 * TWINS draw several texts from one prompt: it is read once, with its edits, and its keys and values are shared.
 *
 * REMEMBERED. With `remember`, a sequence that begins as an earlier one did, under the same edits, shares its keys and values and
 * reads only what follows (prefix.h). No taps, no logits of all rows, not IN TURN, not BACKGROUND.
 *
 * IN TURN. A task may hold more sequences than run at once: they then start in their order as room allows and give their
 * memory back as they end. One that RESUMES begins in the middle of sequence 0: at a layer and a position, with given
 * residual rows; what it attends to before that position is what sequence 0 left there. It costs the layers above and
 * the positions behind, no more.
 *
 * BACKGROUND. Long jobs hand over background tasks, which never hold up others: they take at most half of the sessions and
 * of the KV memory unless nothing else runs, and while others run only a few rows of a step. WORK is a function that the worker calls between
 * steps, a bounded slice at a time: tables made from a dictionary, say.
 *
 * OWNERS. Every task belongs to whoever asked for it. Those that wait take turns, one task of each owner after the other; an owner's own
 * run in the order in which they came. An owner may have no more tasks waiting than places are left in the queue, so that nobody
 * fills it alone.
 *
 * CALLBACKS come from the worker's thread, in order, without any lock of the engine held; they must not wait.
 * `done` is the last one and comes exactly once for every submitted task. */
#ifndef STEERD_CORE_ENGINE_ENGINE_H
#define STEERD_CORE_ENGINE_ENGINE_H

#include "core/engine/edit.h"
#include "core/engine/sampler.h"
#include "core/model/model.h"
#include "core/model/plan.h"

struct engine;
struct engine_task;

struct engine_options {
  int max_queue;             /* tasks waiting at most, of all owners */
  int max_sessions;          /* sequences running at once */
  int max_step_rows;         /* rows in a step, >= max_sessions */
  size_t kv_bytes;           /* per model; 0: chosen by model and by the memory that is left (core/engine/kv.h) */
  int queue_timeout_ms, generation_timeout_ms; /* 0: none */
  struct dict_budget *budget; /* of the dictionaries that edits name; NULL: none */
  const int64_t *aside;       /* [n_models] of engine_make_aside, to begin with; NULL: none. Borrowed for the call */
  bool remember;             /* what was read is not read again (core/engine/prefix.h) */
};

/* For splices that read at other points than they write: memory of the backend for so many `floats` of each row of a step, and some more.
 * Called as sources are loaded; what splices put aside beyond it goes through the host, which is slower. It never shrinks. Any thread. */
void engine_make_aside(struct engine *engine, const struct model *model, int64_t floats);

/* Starts the worker. models[0..n): borrowed, on the same backend, which from now on belongs to the worker. */
struct engine *engine_new(struct backend *backend, const struct model *const *models, size_t n_models,
                          const struct engine_options *options, struct error *error) MUST_CHECK;

/* Ends every task with ERROR_CANCELLED, stops the worker. NULL is fine. */
void engine_free(struct engine *engine);

/* Later engine_submit calls get ERROR_BUSY; running tasks go on. */
void engine_drain(struct engine *engine);

struct engine_token {
  int32_t token;
  float logprob;                     /* when n_logprobs >= 0 */
  const struct sampler_likely *top;  /* [n_top], most likely first */
  int n_top;
};

/* Rows of one tapped point, fresh from a step; in backend memory, valid during the callback. */
struct engine_tapped {
  int tap;            /* index into the sequence's taps */
  int32_t position;   /* of the first row */
  int32_t n_rows;
  int64_t width;      /* of a row; n_head * engine_keys for scores and pattern: what a row does not see is -inf, resp. 0 */
  struct rows rows;
  struct backend *backend;
};

struct engine_events {
  bool (*token)(void *context, int sequence, const struct engine_token *token); /* false: the sequence ends here, with "stop" */
  /* 0 to go on, -1 with an error to fail the task. May use the backend. */
  int (*tapped)(void *context, int sequence, const struct engine_tapped *tapped, struct error *error);
  bool reads_tapped; /* tapped reads its rows: they are brought behind the step */
  /* Logits of n_rows positions from `position` on, where a sequence asked for them; valid during the callback. As tapped. */
  int (*logits)(void *context, int sequence, int32_t position, int32_t n_rows, struct rows logits,
                struct backend *backend, struct error *error);
  void (*ended)(void *context, int sequence, const char *finish); /* "stop", "length", "timeout"; static text */
  void (*done)(void *context, const struct error *error);         /* NULL: all well */
};

enum engine_logits { LOGITS_NONE, LOGITS_LAST, LOGITS_ALL };

/* Positions of a sequence with so many tokens and so many to generate: the length of a head's part in a row of scores or
 * of the pattern. Column head * engine_keys + j of these points is position j of that head. */
static inline int32_t engine_keys(int32_t n_tokens, int32_t max_new) { return n_tokens + (max_new > 0 ? max_new - 1 : 0); }

struct engine_sequence {
  const int32_t *tokens;    /* prompt, copied; 1..n_ctx ids below the vocabulary */
  int32_t n_tokens;
  struct edit_list *edits;  /* taken, also when submit fails; NULL: none */
  bool fork;                /* same tokens as sequence 0 (which has no edit at or below this one's first) */
  bool twin;                /* same tokens and edits as the nearest sequence before it that is no twin: takes over what that one
                               has read, and draws its first token from the same row. No taps, no logits, not IN TURN */
  int32_t last_layer;       /* layers [0, last_layer) are computed; n_layer for all. Below n_layer: no tokens */
  const struct point *taps; /* copied; points that the model has, point_layers of each <= last_layer */
  int n_taps;
  enum engine_logits logits; /* of the prompt, for events->logits; only with max_new 0 and last_layer n_layer */
  /* RESUMES when not NULL (sequence 0 never does, and no other may fork then): rows of the residual stream as layer
   * resume_layer begins, before edits at its resid_pre, [n_tokens - resume_position, d_model] f32, borrowed until the
   * task is done. 0 <= resume_layer < n_layer, last_layer = n_layer; tokens before resume_position as sequence 0's. */
  const float *resume_rows;
  int32_t resume_layer, resume_position;
  int32_t max_new;          /* tokens to generate; 0: read the prompt only */
  int32_t eos;              /* generation ends at this id; -1: none */
  int n_logprobs;           /* -1: no log-probabilities */
  struct sampler_options sampling;
};

struct engine_task_args {
  const struct model *model;
  const struct engine_sequence *sequences;
  int n_sequences;
  const struct engine_events *events; /* static */
  void *context;
  bool background;
  bool in_turn;   /* n_sequences may be more than run at once; no sequence forks or is a twin */
  uint64_t owner; /* whoever asks; 0: nobody in particular, who is one owner in the order and may fill the queue */
  bool continues; /* the next part of a request that was let in before: a full queue does not refuse it */
};

/* How many of the first of n sequences, which take positions[i] positions each, can run together in one task: at least
 * 1 when each fits the model's context. Any thread. */
int engine_fitting(const struct engine *engine, const struct model *model, const int32_t *positions, int n);

/* Queues a task. ERROR_BUSY when the queue or the owner's share of it is full or the engine drains; ERROR_LIMIT when the task could never
 * run (more sequences or KV memory than there is). *out is valid until `done` returns. */
int engine_submit(struct engine *engine, const struct engine_task_args *args, struct engine_task **out,
                  struct error *error) MUST_CHECK;

struct engine_work {
  /* One slice, about as long as two decode steps: 1 when there is more to do, 0 when finished, -1 with an error. The plan
   * and its backend belong to the caller for the slice. */
  int (*slice)(void *context, struct plan *plan, struct error *error);
  void (*done)(void *context, const struct error *error); /* as engine_events.done */
  bool asked; /* by a request: it waits in the queue until its first slice, is refused when that is full, and times out there */
  bool long_one; /* behind each of its slices the work that waits comes first; other work is done one after the other */
};

/* Queues work on a model; ends like a task, with engine_cancel or done. work is static; owner as engine_task_args.owner. */
int engine_submit_work(struct engine *engine, const struct model *model, const struct engine_work *work, uint64_t owner, void *context,
                       struct engine_task **out, struct error *error) MUST_CHECK;

/* Ends the task with ERROR_CANCELLED at the next step. Any thread, before `done` has returned. */
void engine_cancel(struct engine *engine, struct engine_task *task);

struct engine_stats {
  int queued, running;           /* tasks waiting, sequences running */
  int64_t tasks_done, tasks_failed, tasks_cancelled;
  int64_t prompt_tokens; /* read */
  int64_t spared_tokens; /* of prompts, not read because they were remembered */
  int64_t new_tokens, steps, step_rows;
  double busy_seconds, mean_service_seconds;
  size_t kv_bytes, kv_used_bytes;
  double still_seconds; /* since the worker last went on, though it has work: as a rule less than a step; 0 while it has none */
  bool draining;
};
void engine_stats(struct engine *engine, struct engine_stats *out); /* any thread */

#endif
