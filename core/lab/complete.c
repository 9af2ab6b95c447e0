/* complete.c: the verb "complete": prompts become sequences, tokens become text that ends at stop strings, with what the
 * model thought of each token. Knows no request and no reply: api/ shows what is read here. */
#include "core/complete.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/stops.h"
#include "core/lab/steering.h"
#include "core/model/detokenizer.h"

/* One kept token. Its likeliest stand beside it: n_top for each, in one array. */
struct kept_token {
  int32_t id;
  float logprob;
  size_t offset; /* bytes of text in front of it */
};

struct choice {
  struct detokenizer text;
  struct stops_at stop;
  int64_t n_tokens;
  const char *finish;
  struct kept_token *tokens; /* none without log-probabilities */
  struct sampler_likely *tops;
  size_t n, capacity;
};

struct prompt {
  struct lab_ids ids;
  const char *text;
  size_t length;
  struct kept_token *tokens; /* [ids.n] where they are judged */
  struct sampler_likely *tops;
  bool judged;
};

/* Whose sequence it is. */
struct owner {
  size_t prompt;
  int64_t choice; /* -1: reads the prompt, to judge it or because nothing is generated */
};

struct complete {
  struct lab_job job;
  struct arena arena;
  const struct model *model;
  struct prompt *prompts;
  struct choice *choices;
  struct owner *owners;              /* [n_sequences] */
  struct engine_sequence *sequences; /* [n_sequences] until they are handed over */
  struct steering **steerings;       /* [n_prompts]; NULL: none */
  size_t n_prompts, n_choices, n_each, n_sequences;
  bool judges, fits; /* fits: all sequences can run at once */
  int n_top;     /* of each kept token; -1: no log-probabilities */
  struct stops stops;
  int32_t ends_turn;
  float *logits; /* [vocabulary] host copy of one row, where prompts are judged */
};

static struct complete *complete_of(struct lab_job *job) { return (struct complete *)job; }

static void destroy(struct lab_job *job) {
  struct complete *c = complete_of(job);
  for (size_t i = 0; c->choices && i < c->n_choices; i++) {
    detokenizer_clear(&c->choices[i].text);
    free(c->choices[i].tokens);
    free(c->choices[i].tops);
  }
  for (size_t i = 0; c->steerings && i < c->n_prompts; i++) steering_free(c->steerings[i]);
  free(c->logits);
  arena_clear(&c->arena);
  job_clear(job);
  free(c);
}

/* ---- from the engine ---------------------------------------------------------------------------------- */

static bool make_room(struct choice *choice, size_t n_top) {
  if (choice->n < choice->capacity) return true;
  size_t capacity = size_max(16, choice->capacity * 2);
  struct kept_token *tokens = realloc(choice->tokens, capacity * sizeof *tokens);
  if (tokens) choice->tokens = tokens;
  struct sampler_likely *tops = realloc(choice->tops, (capacity * n_top + 1) * sizeof *tops);
  if (tops) choice->tops = tops;
  if (!tokens || !tops) return false;
  choice->capacity = capacity;
  return true;
}

static bool keep_token(struct choice *choice, size_t n_top, const struct engine_token *token, size_t offset) {
  if (!make_room(choice, n_top)) return false;
  choice->tokens[choice->n] = (struct kept_token){token->token, token->logprob, offset};
  if (n_top) memcpy(choice->tops + choice->n * n_top, token->top, n_top * sizeof *choice->tops);
  choice->n++;
  return true;
}

static void read_stops(const struct complete *c, struct choice *choice) {
  const struct buffer *text = &choice->text.text;
  stops_read(&c->stops, &choice->stop, text->data ? text->data : "", text->length);
}

static bool on_token(void *context, int sequence, const struct engine_token *token) {
  struct lab_job *job = context;
  struct complete *c = complete_of(job);
  struct choice *choice = &c->choices[c->owners[sequence].choice];
  bool more = token->token != c->ends_turn;
  pthread_mutex_lock(&job->mutex);
  job->state = LAB_JOB_RUNNING;
  if (more) {
    size_t offset = choice->text.text.length;
    job->new_tokens++;
    choice->n_tokens++;
    assert(c->n_top < 0 || token->n_top == c->n_top);
    /* Out of memory: the text's buffer remembers it, and reading says so. */
    if (detokenizer_push(&choice->text, token->token) != 0 ||
        (c->n_top >= 0 && !keep_token(choice, (size_t)c->n_top, token, offset)))
      choice->text.text.failed = true;
    read_stops(c, choice);
    more = !choice->stop.found;
  }
  job_wake(job);
  pthread_mutex_unlock(&job->mutex);
  return more;
}

static void end_choice(const struct complete *c, struct choice *choice, const char *finish) {
  detokenizer_finish(&choice->text);
  read_stops(c, choice); /* what waited for the rest of a character may be one now */
  choice->finish = choice->stop.found ? "stop" : finish;
}

static void on_ended(void *context, int sequence, const char *finish) {
  struct lab_job *job = context;
  struct complete *c = complete_of(job);
  const struct owner *owner = &c->owners[sequence];
  pthread_mutex_lock(&job->mutex);
  job->state = LAB_JOB_RUNNING;
  if (owner->choice >= 0)
    end_choice(c, &c->choices[owner->choice], finish);
  else
    c->prompts[owner->prompt].judged = true;
  job_wake(job);
  pthread_mutex_unlock(&job->mutex);
}

/* What row `position` says of the token behind it. The reader sees it once the prompt is judged. */
static void judge(struct complete *c, struct prompt *prompt, size_t position) {
  size_t next = position + 1, n_top = (size_t)c->n_top;
  int64_t vocabulary = c->model->arch.vocabulary;
  if (next >= prompt->ids.n) return;
  prompt->tokens[next].logprob = sampler_logprob(c->logits, vocabulary, prompt->ids.ids[next]);
  sampler_most_likely(c->logits, vocabulary, c->n_top, prompt->tops + next * n_top);
}

static int on_logits(void *context, int sequence, int32_t position, int32_t n_rows, struct rows logits,
                     struct backend *backend, struct error *error) {
  struct complete *c = complete_of(context);
  size_t bytes = (size_t)c->model->arch.vocabulary * sizeof *c->logits;
  for (int32_t i = 0; i < n_rows; i++) {
    struct span row = span_at(logits.at, (size_t)i * (size_t)logits.ld * sizeof *c->logits);
    if (backend->ops->read(backend, c->logits, row, bytes, error) != 0) return -1;
    judge(c, &c->prompts[c->owners[sequence].prompt], (size_t)(position + i));
  }
  return 0;
}

static const struct engine_events events = {.token = on_token, .logits = on_logits, .ended = on_ended, .done = job_done};

/* ---- prompts ------------------------------------------------------------------------------------------ */

/* The text that tokens show, and where each begins in it. BOS shows nothing. */
static int show_tokens(struct complete *c, struct prompt *prompt, struct error *error) {
  const struct tokenizer *tokenizer = c->model->tokenizer;
  struct detokenizer d;
  detokenizer_init(&d, tokenizer);
  detokenizer_begin(&d);
  int failed = 0;
  for (size_t i = 0; !failed && i < prompt->ids.n; i++) {
    if (prompt->tokens) prompt->tokens[i].offset = d.text.length;
    bool bos = i == 0 && prompt->ids.ids[0] == tokenizer_bos(tokenizer);
    if (!bos) failed = detokenizer_push(&d, prompt->ids.ids[i]);
  }
  detokenizer_finish(&d);
  if (failed || buffer_check(&d.text, error) != 0) failed = error_memory(error, d.text.length);
  if (!failed && !prompt->text) {
    prompt->text = arena_text(&c->arena, d.text.data ? d.text.data : "", d.text.length, error);
    prompt->length = d.text.length;
    failed = prompt->text ? 0 : -1;
  }
  for (size_t i = 0; !failed && prompt->tokens && i < prompt->ids.n; i++)
    prompt->tokens[i].offset = size_min(prompt->tokens[i].offset, prompt->length); /* normalised texts may be longer */
  detokenizer_clear(&d);
  return failed;
}

static int prepare_judged(struct complete *c, struct prompt *prompt, struct error *error) {
  size_t n = prompt->ids.n;
  prompt->tokens = arena_array(&c->arena, n, sizeof *prompt->tokens, error);
  prompt->tops = arena_array(&c->arena, n * (size_t)c->n_top + 1, sizeof *prompt->tops, error);
  if (!prompt->tokens || !prompt->tops) return -1;
  for (size_t i = 0; i < n; i++) prompt->tokens[i] = (struct kept_token){.id = prompt->ids.ids[i], .logprob = NAN};
  return 0;
}

static int read_prompt(struct complete *c, const struct lab_complete_args *args, size_t i, struct error *error) {
  const struct lab_input *input = &args->prompts[i];
  struct prompt *prompt = &c->prompts[i];
  char field[40] = "prompt";
  if (args->prompt_fields)
    snprintf(field, sizeof field, "%s", args->prompt_fields[i]);
  else if (args->listed)
    snprintf(field, sizeof field, "prompt[%zu]", i);
  if (lab_input_ids(lab_model_of(c->job.lab, args->model), input, args->bos, args->n_tokens > 0, field, &c->arena,
                    &prompt->ids, error) != 0)
    return -1;
  c->job.prompt_tokens += (int64_t)prompt->ids.n;
  if (!input->ids) {
    prompt->text = arena_text(&c->arena, input->text, input->length, error);
    prompt->length = input->length;
    if (!prompt->text) return -1;
  }
  if (c->judges && prepare_judged(c, prompt, error) != 0) return -1;
  return c->judges || input->ids ? show_tokens(c, prompt, error) : 0;
}

/* ---- sequences ---------------------------------------------------------------------------------------- */

static int64_t room_for(const struct complete *c, const struct prompt *prompt, int64_t wanted) {
  int64_t room = c->model->arch.n_ctx - (int64_t)prompt->ids.n;
  return wanted < room ? wanted : room;
}

static int check_rows(const struct complete *c, const struct lab_complete_args *args, struct error *error) {
  int64_t rows = 0;
  for (size_t i = 0; i < c->n_prompts; i++) {
    const struct prompt *prompt = &c->prompts[i];
    rows += (int64_t)c->n_each * ((int64_t)prompt->ids.n + room_for(c, prompt, args->n_tokens));
    rows += c->judges && args->n_tokens > 0 ? (int64_t)prompt->ids.n : 0;
  }
  if (rows <= LABORATORY_MAX_ROWS) return 0;
  return error_set_field(error, ERROR_LIMIT, "n", "the request may compute %" PRId64 " token positions (prompts and generated "
                         "tokens, n times), at most %" PRId64 " are allowed: lower n or max_tokens, or send fewer prompts",
                         rows, LABORATORY_MAX_ROWS);
}

static int read_bias(struct complete *c, const struct lab_complete_args *args, struct sampler_bias **out, struct error *error) {
  *out = arena_array(&c->arena, args->n_bias, sizeof **out, error);
  for (size_t i = 0; *out && i < args->n_bias; i++) {
    int64_t token = args->bias[i].token;
    if (token >= c->model->arch.vocabulary)
      return error_set_field(error, ERROR_ARGUMENT, "logit_bias", "logit_bias names token %" PRId64 ", the model has tokens 0 to %"
                             PRId64, token, c->model->arch.vocabulary - 1);
    (*out)[i] = (struct sampler_bias){(int32_t)token, (float)args->bias[i].value};
  }
  return *out ? 0 : -1;
}

static struct sampler_options sampling_of(const struct lab_complete_args *args, const struct sampler_bias *bias) {
  return (struct sampler_options){.temperature = args->temperature, .top_k = args->top_k, .top_p = args->top_p,
                                  .min_p = args->min_p, .frequency_penalty = args->frequency_penalty,
                                  .presence_penalty = args->presence_penalty, .bias = bias, .n_bias = args->n_bias,
                                  .seed = args->seed};
}

static struct engine_sequence reading_sequence(const struct complete *c, const struct prompt *prompt) {
  return (struct engine_sequence){.tokens = prompt->ids.ids, .n_tokens = (int32_t)prompt->ids.n,
                                  .last_layer = c->model->arch.n_layer, .eos = -1, .n_logprobs = -1,
                                  .logits = c->judges ? LOGITS_ALL : LOGITS_NONE};
}

static struct engine_sequence drawing_sequence(const struct complete *c, const struct lab_complete_args *args,
                                               const struct prompt *prompt, const struct sampler_options *sampling, size_t k) {
  struct engine_sequence s = reading_sequence(c, prompt);
  s.logits = LOGITS_NONE;
  s.max_new = (int32_t)room_for(c, prompt, args->n_tokens);
  s.eos = tokenizer_eos(c->model->tokenizer);
  s.n_logprobs = c->n_top;
  s.sampling = *sampling;
  s.sampling.stream = k;
  return s;
}

/* Those of one prompt from *at on: it is read once for all its texts. */
static void add_sequences(struct complete *c, const struct lab_complete_args *args, const struct sampler_options *sampling,
                          size_t p, size_t *at) {
  const struct prompt *prompt = &c->prompts[p];
  if (c->judges || args->n_tokens == 0) {
    c->owners[*at] = (struct owner){p, -1};
    c->sequences[(*at)++] = reading_sequence(c, prompt);
  }
  for (size_t k = 0; args->n_tokens > 0 && k < c->n_each; k++) {
    c->owners[*at] = (struct owner){p, (int64_t)(p * c->n_each + k)};
    c->sequences[*at] = drawing_sequence(c, args, prompt, sampling, k);
    c->sequences[(*at)++].twin = k > 0;
  }
}

/* Those that cannot run all at once run in turn; each reads its prompt. */
static int check_fits(struct complete *c, struct error *error) {
  int32_t *positions = arena_array(&c->arena, c->n_sequences, sizeof *positions, error);
  int n = (int)c->n_sequences;
  if (!positions) return -1;
  for (int i = 0; i < n; i++) positions[i] = engine_keys(c->sequences[i].n_tokens, c->sequences[i].max_new);
  c->fits = engine_fitting(c->job.lab->engine, c->model, positions, n) == n;
  for (int i = 0; i < n; i++) c->sequences[i].twin &= c->fits;
  return 0;
}

static int make_sequences(struct complete *c, const struct lab_complete_args *args, struct error *error) {
  struct sampler_bias *bias;
  size_t n = 0;
  c->owners = arena_array(&c->arena, c->n_sequences, sizeof *c->owners, error);
  c->sequences = arena_array(&c->arena, c->n_sequences, sizeof *c->sequences, error);
  if (!c->owners || !c->sequences || read_bias(c, args, &bias, error) != 0) return -1;
  struct sampler_options sampling = sampling_of(args, bias);
  for (size_t p = 0; p < c->n_prompts; p++) add_sequences(c, args, &sampling, p, &n);
  assert(n == c->n_sequences);
  return check_fits(c, error);
}

/* ---- steering ----------------------------------------------------------------------------------------- */

static int make_steerings(struct complete *c, const struct lab_complete_args *args, struct error *error) {
  size_t bytes = 0;
  if (steering_none(&args->steering)) return 0;
  c->steerings = arena_array(&c->arena, c->n_prompts, sizeof *c->steerings, error);
  for (size_t i = 0; c->steerings && i < c->n_prompts; i++) {
    if (args->plain && args->plain[i]) continue;
    const struct lab_ids *ids = &c->prompts[i].ids;
    if (steering_new(c->job.lab, args->model, &args->steering, ids->ids, ids->n, &c->steerings[i], error) != 0) return -1;
    bytes += steering_bytes(c->steerings[i]);
    if (bytes > (size_t)LABORATORY_MAX_BYTES)
      return error_set_field(error, ERROR_LIMIT, "steering", "steering: it takes more than %" PRId64 " MiB over all prompts; give "
                             "fewer of them, or less to steer with", LABORATORY_MAX_BYTES >> 20);
  }
  return c->steerings ? 0 : -1;
}

static bool waits(const struct complete *c) {
  bool any = false;
  for (size_t i = 0; c->steerings && i < c->n_prompts; i++) any |= c->steerings[i] && steering_waits(c->steerings[i]);
  return any;
}

/* Sequences of a prompt share its list, those that are only read apart. */
static int make_lists(struct complete *c, struct error *error) {
  struct edit_list *list = NULL;
  for (size_t i = 0; c->steerings && i < c->n_sequences; i++) {
    if (!c->steerings[c->owners[i].prompt]) continue;
    int32_t max_new = c->sequences[i].max_new;
    bool same = i > 0 && c->owners[i].prompt == c->owners[i - 1].prompt && max_new == c->sequences[i - 1].max_new;
    list = same ? edit_list_share(list) : steering_list(c->steerings[c->owners[i].prompt], max_new, error);
    c->sequences[i].edits = list;
    if (list) continue;
    for (size_t k = 0; k < i; k++) edit_list_free(c->sequences[k].edits, c->model->backend);
    return -1;
  }
  return 0;
}

static struct engine_task_args task_of(struct complete *c, bool continues) {
  return (struct engine_task_args){.model = c->model, .sequences = c->sequences, .n_sequences = (int)c->n_sequences,
                                   .events = &events, .context = &c->job, .in_turn = !c->fits, .continues = continues};
}

/* Between two tasks: the runs that the edits needed are done. */
static int go_on(struct lab_job *job, struct error *error) {
  struct complete *c = complete_of(job);
  if (make_lists(c, error) != 0) return -1;
  struct engine_task_args task = task_of(c, true);
  return job_continue(job, &task, error);
}

/* ---- the verb ----------------------------------------------------------------------------------------- */

static int open_choices(struct complete *c, struct error *error) {
  c->choices = arena_array(&c->arena, c->n_choices, sizeof *c->choices, error);
  for (size_t i = 0; c->choices && i < c->n_choices; i++) detokenizer_init(&c->choices[i].text, c->model->tokenizer);
  return c->choices ? 0 : -1;
}

static int open_stops(struct complete *c, const struct lab_complete_args *args, struct error *error) {
  size_t lengths[STOPS_MOST] = {0};
  assert(args->n_stops <= STOPS_MOST);
  for (size_t i = 0; i < args->n_stops; i++) lengths[i] = strlen(args->stops[i]);
  return stops_make(&c->stops, args->stops, lengths, args->n_stops, &c->arena, error);
}

static int prepare(struct complete *c, const struct lab_complete_args *args, struct error *error) {
  size_t bytes = (size_t)c->model->arch.vocabulary * sizeof *c->logits;
  c->prompts = arena_array(&c->arena, c->n_prompts, sizeof *c->prompts, error);
  if (!c->prompts || open_choices(c, error) != 0 || open_stops(c, args, error) != 0) return -1;
  if (c->judges && !(c->logits = malloc(bytes))) return error_memory(error, bytes);
  for (size_t i = 0; i < c->n_prompts; i++)
    if (read_prompt(c, args, i, error) != 0) return -1;
  if (check_rows(c, args, error) != 0 || make_steerings(c, args, error) != 0) return -1;
  return make_sequences(c, args, error);
}

static struct complete *complete_new(struct lab *lab, const struct lab_complete_args *args, struct lab_waker waker,
                                     struct error *error) {
  struct complete *c = calloc(1, sizeof *c);
  if (!c) return error_memory(error, sizeof *c), NULL;
  job_init(&c->job, lab, waker, destroy);
  arena_init(&c->arena, 0);
  c->model = lab_model_of(lab, args->model)->model;
  c->n_top = args->n_logprobs;
  if (c->n_top > c->model->arch.vocabulary) c->n_top = (int)c->model->arch.vocabulary;
  c->judges = args->judge_prompts && c->n_top >= 0;
  c->n_prompts = args->n_prompts;
  c->n_each = (size_t)args->n;
  c->n_choices = c->n_prompts * c->n_each;
  c->n_sequences = args->n_tokens > 0 ? c->n_choices + (c->judges ? c->n_prompts : 0) : c->n_prompts;
  c->ends_turn = args->ends_turn;
  return c;
}

int lab_complete(struct lab *lab, const struct lab_complete_args *args, struct lab_waker waker, struct lab_job **out,
                 struct error *error) {
  assert(args->n_prompts >= 1 && args->n >= 1 && args->n <= LAB_CHOICES_MOST && args->n_bias <= LAB_BIASES_MOST);
  struct complete *c = complete_new(lab, args, waker, error);
  if (!c) return -1;
  bool later = false;
  int failed = prepare(c, args, error);
  if (!failed) later = waits(c);
  if (!failed && !later) failed = make_lists(c, error);
  if (failed) {
    destroy(&c->job);
    return -1;
  }
  struct engine_task_args task = task_of(c, false);
  failed = later ? steering_start(c->steerings, c->n_prompts, &c->job, go_on, error) : job_submit(&c->job, &task, error);
  if (!failed) *out = &c->job;
  return failed;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static void score(const struct complete *c, const struct kept_token *kept, const struct sampler_likely *tops,
                  struct lab_scored *top, struct lab_scored *out) {
  const struct tokenizer *tokenizer = c->model->tokenizer;
  *out = (struct lab_scored){.id = kept->id, .logprob = kept->logprob, .offset = kept->offset, .top = top};
  out->bytes = tokenizer_bytes(tokenizer, kept->id, &out->n_bytes);
  for (int i = 0; i < c->n_top; i++) {
    top[i] = (struct lab_scored){.id = tops[i].token, .logprob = tops[i].logprob};
    top[i].bytes = tokenizer_bytes(tokenizer, tops[i].token, &top[i].n_bytes);
  }
  out->n_top = isnan(kept->logprob) ? 0 : c->n_top;
}

static int score_all(const struct complete *c, const struct kept_token *tokens, const struct sampler_likely *tops, size_t n,
                     struct arena *arena, const struct lab_scored **out, struct error *error) {
  size_t n_top = (size_t)c->n_top;
  struct lab_scored *scored = arena_array(arena, n, sizeof *scored, error);
  struct lab_scored *top = arena_array(arena, n * n_top, sizeof *top, error);
  if (!scored || !top) return -1;
  for (size_t i = 0; i < n; i++) score(c, &tokens[i], tops + i * n_top, top + i * n_top, &scored[i]);
  *out = scored;
  return 0;
}

/* Bytes of a choice that may be shown. */
static size_t shown_bytes(const struct choice *choice) {
  return choice->stop.found || !choice->finish ? choice->stop.certain : choice->text.text.length;
}

/* Tokens that begin in front of `bytes`; all of them, where the text ended by itself. */
static size_t shown_tokens(const struct choice *choice, size_t bytes) {
  size_t n = choice->n;
  bool whole = choice->finish && !choice->stop.found;
  while (!whole && n > 0 && choice->tokens[n - 1].offset >= bytes) n--;
  return n;
}

static int read_choice(const struct complete *c, const struct choice *choice, struct lab_seen *seen, struct arena *arena,
                       struct lab_news *out, struct error *error) {
  const struct buffer *text = &choice->text.text;
  if (buffer_check(text, error) != 0) return -1;
  size_t bytes = shown_bytes(choice), tokens = shown_tokens(choice, bytes);
  out->length = bytes - seen->bytes;
  out->n_scored = tokens - seen->tokens;
  out->text = arena_text(arena, text->data ? text->data + seen->bytes : "", out->length, error);
  out->finish = choice->finish;
  out->n_tokens = choice->n_tokens;
  if (!out->text) return -1;
  if (c->n_top >= 0 && score_all(c, choice->tokens + seen->tokens, choice->tops + seen->tokens * (size_t)c->n_top, out->n_scored,
                                 arena, &out->scored, error) != 0)
    return -1;
  *seen = (struct lab_seen){bytes, tokens};
  return 0;
}

int lab_complete_read(struct lab_job *job, size_t choice, struct lab_seen *seen, struct arena *arena, struct lab_news *out,
                      struct error *error) {
  struct complete *c = complete_of(job);
  memset(out, 0, sizeof *out);
  assert(choice < c->n_choices);
  pthread_mutex_lock(&job->mutex);
  int failed = read_choice(c, &c->choices[choice], seen, arena, out, error);
  if (job->state == LAB_JOB_DONE && !out->finish) out->finish = "length"; /* nothing was to be generated */
  pthread_mutex_unlock(&job->mutex);
  return failed;
}

int lab_complete_prompt(struct lab_job *job, size_t prompt, struct arena *arena, struct lab_prompt_read *out,
                        struct error *error) {
  struct complete *c = complete_of(job);
  const struct prompt *from = &c->prompts[prompt];
  pthread_mutex_lock(&job->mutex);
  bool there = !c->judges || from->judged;
  pthread_mutex_unlock(&job->mutex);
  *out = (struct lab_prompt_read){.text = from->text, .length = from->length, .n_tokens = from->ids.n};
  if (!there || !c->judges) return there;
  return score_all(c, from->tokens, from->tops, from->ids.n, arena, &out->scored, error) == 0 ? 1 : -1;
}
