/* steer.c: the verb "steer": STEERED and DEFAULT become two sequences that share their prompt below the first edited
 * layer, tokens become text. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/lab/steering.h"
#include "core/model/detokenizer.h"

/* One kept log-probability: tokens are decoded when they are read. */
struct kept_logprob {
  int32_t token;
  float logprob;
};

struct output {
  bool wanted;
  struct detokenizer text;
  int64_t n_tokens;
  const char *finish;
  struct kept_logprob *logprobs; /* per token: its own, then n_top */
  size_t n_logprobs, logprob_capacity;
};

struct steer_job {
  struct lab_job job;
  const struct model *model;
  int n_top;                        /* -1: no log-probabilities */
  int64_t most;                     /* tokens of the text */
  struct output outputs[LAB_STEER_OUTPUTS];
  int output_of[LAB_STEER_OUTPUTS]; /* of sequence 0, 1 */
  bool same;                        /* no edits: STEERED is DEFAULT */
  struct steering *steering;        /* NULL: none */
  struct engine_sequence sequences[LAB_STEER_OUTPUTS];
  int n_sequences, steered;         /* steered: the one with edits; -1: none */
  int32_t *ids;                     /* the prompt */
};

static struct steer_job *steer_job(struct lab_job *job) { return (struct steer_job *)job; }

static void destroy(struct lab_job *job) {
  struct steer_job *steer = steer_job(job);
  for (int i = 0; i < LAB_STEER_OUTPUTS; i++) {
    detokenizer_clear(&steer->outputs[i].text);
    free(steer->outputs[i].logprobs);
  }
  steering_free(steer->steering);
  free(steer->ids);
  job_clear(job);
  free(steer);
}

/* ---- from the engine ---- */

static bool keep_logprobs(struct output *output, const struct engine_token *token) {
  size_t need = output->n_logprobs + 1 + (size_t)token->n_top;
  if (need > output->logprob_capacity) {
    size_t capacity = size_max(need, output->logprob_capacity * 2);
    struct kept_logprob *bigger = realloc(output->logprobs, capacity * sizeof *bigger);
    if (!bigger) return false;
    output->logprobs = bigger;
    output->logprob_capacity = capacity;
  }
  output->logprobs[output->n_logprobs++] = (struct kept_logprob){token->token, token->logprob};
  for (int i = 0; i < token->n_top; i++)
    output->logprobs[output->n_logprobs++] = (struct kept_logprob){token->top[i].token, token->top[i].logprob};
  return true;
}

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  struct lab_job *job = context;
  struct steer_job *steer = steer_job(job);
  struct output *output = &steer->outputs[steer->output_of[sequence]];
  pthread_mutex_lock(&job->mutex);
  job->state = LAB_JOB_RUNNING;
  job->new_tokens++;
  output->n_tokens++;
  /* Out of memory: the text's buffer remembers it, and reading the output says so. */
  bool shown = output->n_tokens <= steer->most;
  if ((shown && detokenizer_push(&output->text, token->token) != 0) || (steer->n_top >= 0 && !keep_logprobs(output, token)))
    output->text.text.failed = true;
  job_wake(job);
  pthread_mutex_unlock(&job->mutex);
  return true;
}

static void on_ended(void *context, int sequence, const char *finish) {
  struct lab_job *job = context;
  struct steer_job *steer = steer_job(job);
  struct output *output = &steer->outputs[steer->output_of[sequence]];
  pthread_mutex_lock(&job->mutex);
  detokenizer_finish(&output->text);
  output->finish = finish;
  job_wake(job);
  pthread_mutex_unlock(&job->mutex);
}

static const struct engine_events events = {.token = on_token, .ended = on_ended, .done = job_done};

/* ---- the verb ---- */

static int32_t room_for(const struct model *model, size_t n_prompt, int64_t wanted) {
  int64_t room = model->arch.n_ctx - (int64_t)n_prompt;
  return (int32_t)(wanted < room ? wanted : room);
}

static struct engine_sequence make_sequence(const struct lab_steer_args *args, const struct model *model,
                                            const int32_t *ids, size_t n) {
  return (struct engine_sequence){
      .tokens = ids, .n_tokens = (int32_t)n, .last_layer = model->arch.n_layer,
      .max_new = room_for(model, n, args->n_tokens + args->look_ahead), .eos = tokenizer_eos(model->tokenizer),
      .n_logprobs = args->n_logprobs,
      .sampling = {.temperature = args->temperature, .top_k = args->top_k, .top_p = args->top_p,
                   .frequency_penalty = args->frequency_penalty, .seed = args->seed}};
}

/* Sequence 0 is DEFAULT where it is wanted, so that STEERED can fork from it. */
static void make_sequences(struct steer_job *steer, const struct lab_steer_args *args, size_t n) {
  int used = 0;
  steer->steered = -1;
  if (args->want[LAB_DEFAULT] || steer->same) {
    steer->output_of[used] = LAB_DEFAULT;
    steer->sequences[used++] = make_sequence(args, steer->model, steer->ids, n);
  }
  if (args->want[LAB_STEERED] && !steer->same) {
    steer->output_of[used] = LAB_STEERED;
    steer->sequences[used] = make_sequence(args, steer->model, steer->ids, n);
    steer->sequences[used].fork = used > 0;
    steer->steered = used++;
  }
  steer->n_sequences = used;
  steer->job.prompt_tokens = (int64_t)n;
}

static struct steer_job *make_job(struct lab *lab, const struct lab_steer_args *args, struct lab_waker waker,
                                  struct error *error) {
  struct steer_job *steer = calloc(1, sizeof *steer);
  if (!steer) return error_memory(error, sizeof *steer), NULL;
  job_init(&steer->job, lab, waker, destroy);
  steer->model = lab_model_of(lab, args->model)->model;
  steer->n_top = args->n_logprobs;
  steer->most = args->n_tokens;
  steer->same = args->n_features + args->n_edits == 0;
  for (int i = 0; i < LAB_STEER_OUTPUTS; i++) {
    steer->outputs[i].wanted = args->want[i];
    detokenizer_init(&steer->outputs[i].text, steer->model->tokenizer);
  }
  return steer;
}

static int prepare(struct steer_job *steer, const struct lab_steer_args *args, struct error *error) {
  struct lab *lab = steer->job.lab;
  size_t n = 0;
  struct lab_steering asked = {.features = args->features, .n_features = args->n_features, .edits = args->edits,
                               .n_edits = args->n_edits, .method = args->method,
                               .strength_multiplier = args->strength_multiplier,
                               .special_tokens = args->steer_special_tokens, .prefix = "", .source_field = "layer"};
  if (lab_encode(steer->model, args->prompt, args->prompt_length, args->bos != LAB_BOS_NO, 1, "prompt", &steer->ids, &n, error) != 0) return -1;
  if (!steer->same && steering_new(lab, args->model, &asked, steer->ids, n, &steer->steering, error) != 0) return -1;
  make_sequences(steer, args, n);
  return 0;
}

static int make_list(struct steer_job *steer, struct error *error) {
  if (steer->steered < 0) return 0;
  struct engine_sequence *steered = &steer->sequences[steer->steered];
  steered->edits = steering_list(steer->steering, steered->max_new, error);
  return steered->edits ? 0 : -1;
}

static struct engine_task_args make_task(struct steer_job *steer) {
  return (struct engine_task_args){.model = steer->model, .sequences = steer->sequences, .n_sequences = steer->n_sequences,
                                   .events = &events, .context = &steer->job};
}

/* Between two tasks: the runs that the edits needed are done. */
static int go_on(struct lab_job *job, struct error *error) {
  struct steer_job *steer = steer_job(job);
  if (make_list(steer, error) != 0) return -1;
  struct engine_task_args task = make_task(steer);
  task.continues = true;
  return job_continue(job, &task, error);
}

int lab_steer(struct lab *lab, const struct lab_steer_args *args, struct lab_waker waker, struct lab_job **out,
              struct error *error) {
  assert(args->want[LAB_STEERED] || args->want[LAB_DEFAULT]);
  struct steer_job *steer = make_job(lab, args, waker, error);
  if (!steer) return -1;
  bool waits = false;
  int failed = prepare(steer, args, error);
  if (!failed) waits = steer->steered >= 0 && steering_waits(steer->steering);
  if (!failed && !waits) failed = make_list(steer, error);
  if (failed) {
    destroy(&steer->job);
    return -1;
  }
  struct engine_task_args task = make_task(steer);
  failed = waits ? steering_start(&steer->steering, 1, &steer->job, go_on, error) : job_submit(&steer->job, &task, error);
  if (!failed) *out = &steer->job;
  return failed;
}

/* ---- reading ---- */

static int read_logprob(const struct steer_job *steer, const struct kept_logprob *kept, struct arena *arena,
                        struct lab_logprob *out, struct error *error) {
  out->token = lab_token_text(steer->model->tokenizer, kept->token, arena, error);
  out->logprob = kept->logprob;
  return out->token ? 0 : -1;
}

/* Kept entries come in groups of 1 + n_top; n_top is the same for every token. */
static int read_logprobs(const struct steer_job *steer, const struct output *output, struct arena *arena,
                         struct lab_generated *out, struct error *error) {
  if (steer->n_top < 0 || output->n_tokens == 0) return 0;
  size_t group = output->n_logprobs / (size_t)output->n_tokens, n = (size_t)output->n_tokens;
  out->logprobs = arena_array(arena, n, sizeof *out->logprobs, error);
  if (!out->logprobs) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct kept_logprob *kept = output->logprobs + i * group;
    struct lab_logprob *top = arena_array(arena, group, sizeof *top, error);
    if (!top || read_logprob(steer, kept, arena, &out->logprobs[i], error) != 0) return -1;
    for (size_t k = 1; k < group; k++)
      if (read_logprob(steer, &kept[k], arena, &top[k - 1], error) != 0) return -1;
    out->logprobs[i].top = top;
    out->logprobs[i].n_top = (int)group - 1;
  }
  out->n_logprob_tokens = n;
  return 0;
}

static int read_output(const struct steer_job *steer, const struct output *output, struct arena *arena,
                       struct lab_generated *out, struct error *error) {
  const struct buffer *text = &output->text.text;
  if (buffer_check(text, error) != 0) return -1;
  out->text = arena_text(arena, text->data ? text->data : "", text->length, error);
  out->length = text->length;
  out->finish = output->finish;
  out->n_tokens = output->n_tokens;
  return out->text ? read_logprobs(steer, output, arena, out, error) : -1;
}

int lab_steer_read(struct lab_job *job, int output, struct arena *arena, struct lab_generated *out,
                   struct error *error) {
  struct steer_job *steer = steer_job(job);
  memset(out, 0, sizeof *out);
  if (!steer->outputs[output].wanted) return 0;
  pthread_mutex_lock(&job->mutex);
  int failed = read_output(steer, &steer->outputs[steer->same ? LAB_DEFAULT : output], arena, out, error);
  pthread_mutex_unlock(&job->mutex);
  return failed;
}
