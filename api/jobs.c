/* jobs.c: work that outlives a request: start, list, watch, cancel, resume: /v1/jobs.
 *
 * A job reads files of this machine, so it is started and changed from here or with a key only; watching is free. The
 * stream of progress has no lab_job of its own: the lab wakes it, and it ends with the job. */
#include <math.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "core/base/number.h"
#include "core/base/clock.h"
#include "core/training.h"

const struct field jobs_fields[] = {
    {"kind", NULL, FIELD_CHOICE, .required = true, .choices = "stats eval train map",
     .text = "stats: statistics of every feature of a source over a text. eval: how well the source does over it; takes corpus, "
             "lines, ends and maxTokens. train: a dictionary on the activations of a point over it (docs/training.md). map: a map of a source's features, for "
             "/api/umap; takes seed and replace."},
    MODEL_ROW,
    {"source", "sourceId", FIELD_SOURCE, .text = "stats, eval, map: the source, such as \"7-res-jb\"; \"7\" is the neurons of layer 7."},
    {"corpus", NULL, FIELD_TEXT, .min = 1, .max = 4096, .text = "All but map: a UTF-8 text file on the server's machine."},
    {"lines", NULL, FIELD_BOOL, .fallback = "false", .text = "All but map: true takes every line for a document of its own."},
    {"ends", NULL, FIELD_BOOL, .fallback = "false", .text = "eval: the end of each document is predicted too."},
    {"nTop", NULL, FIELD_INT, .fallback = "20", .max = 100, .text = "stats: top examples of a feature."},
    {"nQuantile", NULL, FIELD_INT, .fallback = "2", .max = 10,
     .text = "stats: examples from each of the 8 intervals of activation."},
    {"window", NULL, FIELD_INT, .fallback = "64", .min = 8, .max = 256, .text = "stats: tokens of an example at most."},
    {"maxTokens", NULL, FIELD_INT, .fallback = "0", .max = 1e15,
     .text = "All but map: stop with the document that reaches so many tokens (it is read to its end); 0: the whole text."},
    {"logits", NULL, FIELD_BOOL, .fallback = "true", .text = "stats: also the tokens each feature promotes."},
    {"neighbours", NULL, FIELD_BOOL, .fallback = "true", .text = "stats: also the nearest decoder rows."},
    {"explain", NULL, FIELD_BOOL, .fallback = "true", .text = "stats: also an automatic explanation of each feature."},
    {"point", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "train: where, as \"blocks.7.hook_resid_pre\" or \"resid_pre.7\"."},
    {"to", NULL, FIELD_TEXT, .min = 1, .max = 128,
     .text = "train: a transcoder: the point whose rows are made of those of `point`, as \"blocks.7.hook_mlp_out\" for the point "
             "\"blocks.7.ln2.hook_normalized\"; left out: an autoencoder."},
    {"out", NULL, FIELD_TEXT, .min = 1, .max = 100,
     .text = "train: the name of the dictionary's folder, in the first of the setting's source_folders; then a \"path\" of /v1/sources."},
    {"architecture", NULL, FIELD_CHOICE, .fallback = "topk", .choices = "relu topk batchtopk jumprelu", .text = "train: the kind of dictionary."},
    {"features", NULL, FIELD_INT, .min = 1, .max = 16777216, .text = "train: how many; left out: `expansion` times the point's width."},
    {"expansion", NULL, FIELD_INT, .min = 1, .max = 16777216, .text = "train: features as a multiple of the point's width, in place of `features`; left out: 8."},
    {"k", NULL, FIELD_INT, .min = 1, .max = 16777216, .text = "train: features a token, of topk and batchtopk; left out: 32."},
    {"batch", NULL, FIELD_INT, .fallback = "1024", .min = 1, .max = 1048576, .text = "train: tokens of a step; left out: 1024."},
    {"steps", NULL, FIELD_INT, .min = 1, .max = 1e9, .text = "train: how many; left out: as many as the text has batches, at least 500."},
    {"tokens", NULL, FIELD_INT, .min = 1, .max = 1e12, .text = "train: in place of steps."},
    {"context", NULL, FIELD_INT, .min = 8, .max = 1e9, .text = "train: tokens of a document; left out: 128, or what the model has."},
    {"buffer", NULL, FIELD_INT, .min = 1, .max = 2147483647, .text = "train: tokens that are shuffled together; left out: 32 batches."},
    {"seed", NULL, FIELD_INT, .fallback = "0", .max = 9007199254740991.0, .text = "train: the same seed and settings give the same bytes; a map's too."},
    {"replace", NULL, FIELD_BOOL, .fallback = "false", .text = "map: true makes the map of a source anew that has one, imported or made."},
    {"rate", NULL, FIELD_NUMBER, .min = 1e-9, .max = 1e6, .text = "train: the learning rate; left out: by architecture and features."},
    {"l1", NULL, FIELD_NUMBER, .max = 1e6, .text = "train: coefficient of relu; left out: 5."},
    {"aux", NULL, FIELD_NUMBER, .max = 1e6, .text = "train: coefficient of what brings dead features of topk and batchtopk back; left out: 1."},
    {"warmUp", NULL, FIELD_INT, .max = 1e9, .text = "train: steps over which the rate grows; left out: a twentieth of them, at most 1000."},
    {"decay", NULL, FIELD_INT, .max = 1e9, .text = "train: the last steps, over which it falls to 0; left out: a fifth."},
    {"l1WarmUp", NULL, FIELD_INT, .max = 1e9, .text = "train: steps over which l1 grows, of relu; left out: a twentieth."},
    {"deadAfter", NULL, FIELD_INT, .min = 1, .max = 1e9, .text = "train: steps of silence, of all but relu; left out: a tenth, 50 to 1000."},
    {"checkpoint", NULL, FIELD_NUMBER, .max = 86400,
     .text = "train: seconds between the states that a killed or cancelled run goes on from; left out: 20. Where writing one takes long they come "
             "less often."},
    {"l0", NULL, FIELD_NUMBER, .max = 1e6, .text = "train: coefficient of what jumprelu's features cost; left out: 1."},
    {"l0WarmUp", NULL, FIELD_INT, .max = 1e9, .text = "train: steps over which l0 grows, of jumprelu; left out: a twentieth."},
    {"l0Loss", NULL, FIELD_CHOICE, .choices = "step tanh quadratic",
     .text = "train: what a feature of jumprelu costs: 1, the tanh of its activation, or the square of how far its token is from targetL0; "
             "left out: tanh or quadratic where tanhScale or targetL0 is given, else step."},
    {"targetL0", NULL, FIELD_NUMBER, .min = 1e-3, .max = 16777216, .text = "train: features a token that quadratic aims at; left out: 32."},
    {"tanhScale", NULL, FIELD_NUMBER, .min = 1e-3, .max = 1e6, .text = "train: what tanh multiplies activations by; left out: 4."},
    {"threshold", NULL, FIELD_NUMBER, .max = 1e6, .text = "train: of jumprelu, what every feature's is to begin with; left out: 0.01."},
    {"bandwidth", NULL, FIELD_NUMBER, .min = 1e-6, .max = 1e6,
     .text = "train: of jumprelu, how wide the window around a threshold is in which it learns; left out: 0.05."},
    {"preAct", NULL, FIELD_NUMBER, .max = 1e6,
     .text = "train: coefficient of what brings dead features of jumprelu nearer to their thresholds; left out: 0."},
    {"steToInput", NULL, FIELD_BOOL, .fallback = "false", .text = "train: of jumprelu, encoders learn in that window too."},
    {.name = NULL}};

const struct field jobs_list_fields[] = {{.name = NULL}};

/* ---- out ---------------------------------------------------------------------------------------------- */

static void write_numbers(struct json_writer *w, const struct lab_progress *progress) {
  const struct store_job *job = &progress->job;
  jw_member_int(w, "done", job->done);
  if (job->total > 0)
    jw_member_int(w, "total", job->total);
  else
    jw_member_null(w, "total");
  jw_member_text(w, "unit", job->unit);
  jw_member_f64(w, "share", job->total > 0 ? (double)job->done / (double)job->total : NAN);
  jw_member_f64(w, "rate", progress->rate);
  jw_member_f64(w, "secondsLeft", progress->seconds_left < 0 ? NAN : progress->seconds_left);
}

static void write_training(struct json_writer *w, const struct lab_train_figures *now) {
  jw_key(w, "training");
  jw_open(w, '{');
  jw_member_f64(w, "loss", now->mse + now->sparsity + now->aux);
  jw_member_f64(w, "mse", now->mse);
  jw_member_f64(w, "sparsity", now->sparsity);
  jw_member_f64(w, "aux", now->aux);
  jw_member_f64(w, "l0", now->l0);
  jw_member_f64(w, "explainedVariance", now->explained);
  jw_member_int(w, "dead", now->dead);
  jw_member_int(w, "features", now->features);
  jw_member_int(w, "tokens", now->tokens);
  jw_close(w, '}');
}

static void write_job(struct json_writer *w, const struct lab_progress *progress) {
  const struct store_job *job = &progress->job;
  jw_open(w, '{');
  jw_member_int(w, "id", job->id);
  jw_member_text(w, "kind", job->kind);
  jw_member_text(w, "state", store_job_word(job->state));
  write_numbers(w, progress);
  jw_member_text(w, "message", job->message);
  if (progress->trains) write_training(w, &progress->training);
  jw_member_bool(w, "cancelling", job->cancel && job->state == STORE_RUNNING);
  jw_member_text(w, "error", job->error);
  jw_member_bool(w, "resumable", !progress->refusal);
  jw_member_text(w, "notResumable", progress->refusal);
  reply_json(w, "parameters", job->parameters);
  reply_json(w, "result", job->result);
  jw_member_text(w, "createdAt", job->created_at);
  jw_member_text(w, "startedAt", job->started_at);
  jw_member_text(w, "updatedAt", job->updated_at);
  jw_member_text(w, "finishedAt", job->finished_at);
  jw_close(w, '}');
}

static int answer_job(struct api_call *call, int64_t id, struct error *error) {
  struct lab_progress progress;
  if (lab_long_job(call->api->lab, id, &call->arena, &progress, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  write_job(&w, &progress);
  return 0;
}

/* ---- in ----------------------------------------------------------------------------------------------- */

static int path_job(struct api_call *call, int64_t *id, struct error *error) {
  const char *text = call_part(call, "id", error);
  if (!text) return -1;
  if (text[strspn(text, "0123456789")] == '\0' && number_parse_int(text, id) && *id > 0) return 0; /* they count from 1 */
  return error_set_field(error, ERROR_NOT_FOUND, "id", "there is no job '%.32s'", text);
}

/* Answers strangers; true when it did. */
static bool turn_away(struct api_call *call) {
  if (call->request->trusted) return false;
  reply_refuse(call, 403, "forbidden", TEXT_UNTRUSTED);
  return true;
}

static struct lab_stats_args read_args(const struct values *values, const struct place *place) {
  return (struct lab_stats_args){.model_id = place->model->id, .source_id = place->source->id,
                                 .corpus = values_text(values, "corpus", NULL), .lines = values_bool(values, "lines"),
                                 .n_top = (int)values_int(values, "nTop"),
                                 .n_quantile = (int)values_int(values, "nQuantile"),
                                 .window = (int)values_int(values, "window"),
                                 .max_tokens = values_int(values, "maxTokens"),
                                 .logits = values_bool(values, "logits"),
                                 .neighbours = values_bool(values, "neighbours"),
                                 .explain = values_bool(values, "explain")};
}

static int start_eval(struct api_call *call, const struct place *place, int64_t *id, struct error *error) {
  const struct values *values = call->values;
  struct lab_eval_args args = {.model_id = place->model->id, .source_id = place->source->id,
                               .corpus = values_text(values, "corpus", NULL), .lines = values_bool(values, "lines"),
                               .ends = values_bool(values, "ends"), .max_tokens = values_int(values, "maxTokens")};
  return lab_eval_start(call->api->lab, &args, id, error);
}

static int start_stats(struct api_call *call, const struct place *place, int64_t *id, struct error *error) {
  struct lab_stats_args args = read_args(call->values, place);
  return lab_stats_start(call->api->lab, &args, id, error);
}

/* What is left out stays at what stands for that. */
static void read_options(const struct values *values, struct lab_train_args *args) {
  size_t n;
  const struct lab_train_option *options = lab_train_options(&n);
  for (size_t i = 0; i < n; i++) {
    const char *name = options[i].name;
    double given = !values_has(values, name) ? options[i].left_out : options[i].whole ? (double)values_int(values, name) : values_number(values, name);
    lab_train_set(args, &options[i], given);
  }
}

static int start_train(struct api_call *call, int64_t *id, struct error *error) {
  const struct values *values = call->values;
  const struct lab_model_info *model = call_model(call, values, "modelId", error);
  if (!model) return -1;
  struct lab_train_args args = {.model_id = model->id, .point = values_text(values, "point", NULL), .to = values_text(values, "to", NULL),
                                .out = values_text(values, "out", NULL),
                                .corpus = values_text(values, "corpus", NULL), .lines = values_bool(values, "lines"),
                                .max_tokens = values_int(values, "maxTokens"), .kind = values_text(values, "architecture", NULL),
                                .l0_loss = values_text(values, "l0Loss", NULL), .ste_to_input = values_bool(values, "steToInput")};
  read_options(values, &args);
  return lab_train_start(call->api->lab, &args, id, error);
}

static int start_map(struct api_call *call, const struct place *place, int64_t *id, struct error *error) {
  const struct values *values = call->values;
  struct lab_map_args args = {.model_id = place->model->id, .source_id = place->source->id, .seed = values_int(values, "seed"),
                              .replace = values_bool(values, "replace")};
  return lab_map_start(call->api->lab, &args, id, error);
}

/* Which kinds have a use for a field that not all have; `needed` by those that cannot do without. */
enum { STATS = 1, EVAL = 2, TRAIN = 4, MAP = 8, OVER_A_TEXT = STATS | EVAL | TRAIN };
static const struct use {
  const char *name;
  int kinds, needed;
} uses[] = {{"source", STATS | EVAL | MAP, STATS | EVAL | MAP}, {"corpus", OVER_A_TEXT, OVER_A_TEXT}, {"lines", OVER_A_TEXT, 0},
            {"maxTokens", OVER_A_TEXT, 0}, {"replace", MAP, 0}, {"ends", EVAL, 0}, {"nTop", STATS, 0}, {"nQuantile", STATS, 0}, {"window", STATS, 0},
            {"logits", STATS, 0}, {"neighbours", STATS, 0}, {"explain", STATS, 0}, {"point", TRAIN, TRAIN}, {"to", TRAIN, 0}, {"out", TRAIN, TRAIN},
            {"architecture", TRAIN, 0}, {"features", TRAIN, 0}, {"expansion", TRAIN, 0}, {"k", TRAIN, 0}, {"batch", TRAIN, 0},
            {"steps", TRAIN, 0}, {"tokens", TRAIN, 0}, {"context", TRAIN, 0}, {"buffer", TRAIN, 0}, {"seed", TRAIN | MAP, 0}, {"rate", TRAIN, 0},
            {"l1", TRAIN, 0}, {"aux", TRAIN, 0}, {"warmUp", TRAIN, 0}, {"decay", TRAIN, 0}, {"l1WarmUp", TRAIN, 0}, {"deadAfter", TRAIN, 0},
            {"checkpoint", TRAIN, 0},
            {"l0", TRAIN, 0}, {"l0WarmUp", TRAIN, 0}, {"l0Loss", TRAIN, 0}, {"targetL0", TRAIN, 0}, {"tanhScale", TRAIN, 0},
            {"threshold", TRAIN, 0}, {"bandwidth", TRAIN, 0}, {"preAct", TRAIN, 0}, {"steToInput", TRAIN, 0}};

static const char *words_of(int kinds) {
  static const struct {
    int kinds;
    const char *words;
  } all[] = {{STATS, "'stats'"}, {EVAL, "'eval'"}, {TRAIN, "'train'"}, {MAP, "'map'"}, {TRAIN | MAP, "'train' and 'map'"},
             {STATS | EVAL | MAP, "'stats', 'eval' and 'map'"}, {OVER_A_TEXT, "'stats', 'eval' and 'train'"}};
  size_t i = 0;
  while (all[i].kinds != kinds) i++;
  return all[i].words;
}

static int check_kind(const struct values *values, int kind, struct error *error) {
  for (size_t i = 0; i < sizeof uses / sizeof *uses; i++) {
    const struct use *use = &uses[i];
    if (values_has(values, use->name) && !(use->kinds & kind))
      return error_set_field(error, ERROR_ARGUMENT, use->name, "'%s' has a meaning with kind %s only: leave it out", use->name,
                             words_of(use->kinds));
    if (!values_has(values, use->name) && (use->needed & kind))
      return error_set_field(error, ERROR_ARGUMENT, use->name, "'%s' is required with kind %s", use->name, words_of(use->needed));
  }
  return 0;
}

static int start(struct api_call *call, int kind, int64_t *id, struct error *error) {
  struct place place;
  if (kind == TRAIN) return start_train(call, id, error);
  if (call_place(call, call->values, "modelId", "source", "", &place, error) != 0) return -1;
  return (kind == EVAL ? start_eval : kind == MAP ? start_map : start_stats)(call, &place, id, error);
}

int jobs_post(struct api_call *call, struct error *error) {
  int64_t id;
  if (turn_away(call)) return 0;
  const char *word = values_text(call->values, "kind", NULL);
  int kind = !strcmp(word, "eval") ? EVAL : !strcmp(word, "train") ? TRAIN : !strcmp(word, "map") ? MAP : STATS;
  if (check_kind(call->values, kind, error) != 0 || start(call, kind, &id, error) != 0) return -1;
  return answer_job(call, id, error);
}

int jobs_get(struct api_call *call, struct error *error) {
  struct lab_progress *jobs = NULL;
  size_t n = 0;
  if (lab_long_jobs(call->api->lab, &call->arena, &jobs, &n, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "jobs");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) write_job(&w, &jobs[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

int job_get(struct api_call *call, struct error *error) {
  int64_t id;
  return path_job(call, &id, error) != 0 ? -1 : answer_job(call, id, error);
}

int job_delete(struct api_call *call, struct error *error) {
  int64_t id;
  if (turn_away(call)) return 0;
  if (path_job(call, &id, error) != 0 || lab_long_job_cancel(call->api->lab, id, error) != 0) return -1;
  return answer_job(call, id, error);
}

int job_resume_post(struct api_call *call, struct error *error) {
  int64_t id;
  if (turn_away(call)) return 0;
  if (path_job(call, &id, error) != 0 || lab_long_job_resume(call->api->lab, id, error) != 0) return -1;
  return answer_job(call, id, error);
}

/* ---- progress as a stream ----------------------------------------------------------------------------- */

struct events_plan {
  int64_t id;
  struct lab_watch *watch;
  enum store_job_state state; /* of the event before, ... */
  int64_t done, sent_ns;      /* ... so that none is said twice, and few a second */
  bool any;
};

/* Progress is told at most this often; a watcher is woken no oftener either, so nothing stays unsaid. */
#define EVENT_NS 150000000

static void write_event(struct buffer *out, const struct lab_progress *progress) {
  struct json_writer w;
  buffer_text(out, "data: ");
  jw_init(&w, out);
  write_job(&w, progress);
  buffer_text(out, "\n\n");
}

static bool is_news(struct events_plan *plan, const struct lab_progress *progress) {
  bool moved = progress->job.done != plan->done && clock_ns() - plan->sent_ns >= EVENT_NS;
  if (plan->any && progress->job.state == plan->state && !moved) return false;
  plan->any = true;
  plan->state = progress->job.state;
  plan->done = progress->job.done;
  plan->sent_ns = clock_ns();
  return true;
}

static int pull_event(struct api_call *call, struct buffer *out, struct error *error) {
  struct events_plan *plan = call->plan;
  struct lab_progress progress;
  struct arena arena;
  arena_init(&arena, call->arena.limit);
  int result = lab_long_job(call->api->lab, plan->id, &arena, &progress, error);
  if (result == 0) {
    call->ended = progress.job.state != STORE_QUEUED && progress.job.state != STORE_RUNNING;
    if (is_news(plan, &progress) || call->ended) write_event(out, &progress);
  }
  arena_clear(&arena);
  return result;
}

static void leave_events(struct api_call *call) {
  struct events_plan *plan = call->plan;
  lab_unwatch(call->api->lab, plan->watch);
}

/* Watches before the first look, so that nothing is missed between the two. */
int job_events_get(struct api_call *call, struct error *error) {
  struct events_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || path_job(call, &plan->id, error) != 0) return -1;
  if (!lab_store(call->api->lab))
    return error_set_field(error, ERROR_NOT_FOUND, "id", "there is no job %lld: jobs need a store (--store FILE)",
                           (long long)plan->id);
  plan->watch = lab_watch(call->api->lab, call->waker);
  if (!plan->watch) return error_memory(error, sizeof *plan);
  call->plan = plan;
  call->leave = leave_events;
  if (pull_event(call, &call->body, error) != 0) return -1;
  call->pull = pull_event;
  call_begin_events(call);
  lab_lease_end(call->api->lab, &call->lease); /* it goes on for hours and looks at no source */
  return 0;
}
