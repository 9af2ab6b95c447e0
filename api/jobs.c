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

const struct field jobs_fields[] = {
    {"kind", NULL, FIELD_CHOICE, .required = true, .choices = "stats eval",
     .text = "stats: statistics of every feature of a source over a text. eval: how well the source does over it; takes corpus, "
             "lines, ends and maxTokens."},
    MODEL_ROW, SOURCE_ROW("source", "sourceId"),
    {"corpus", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 4096,
     .text = "A UTF-8 text file on the server's machine."},
    {"lines", NULL, FIELD_BOOL, .fallback = "false", .text = "true takes every line for a document of its own."},
    {"ends", NULL, FIELD_BOOL, .fallback = "false", .text = "eval: the end of each document is predicted too."},
    {"nTop", NULL, FIELD_INT, .fallback = "20", .max = 100, .text = "stats: top examples of a feature."},
    {"nQuantile", NULL, FIELD_INT, .fallback = "2", .max = 10,
     .text = "stats: examples from each of the 8 intervals of activation."},
    {"window", NULL, FIELD_INT, .fallback = "64", .min = 8, .max = 256, .text = "stats: tokens of an example at most."},
    {"maxTokens", NULL, FIELD_INT, .fallback = "0", .max = 1e15,
     .text = "Stop with the document that reaches so many tokens (it is read to its end); 0: the whole text."},
    {"logits", NULL, FIELD_BOOL, .fallback = "true", .text = "stats: also the tokens each feature promotes."},
    {"neighbours", NULL, FIELD_BOOL, .fallback = "true", .text = "stats: also the nearest decoder rows."},
    {"explain", NULL, FIELD_BOOL, .fallback = "true", .text = "stats: also an automatic explanation of each feature."},
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

static void write_job(struct json_writer *w, const struct lab_progress *progress) {
  const struct store_job *job = &progress->job;
  jw_open(w, '{');
  jw_member_int(w, "id", job->id);
  jw_member_text(w, "kind", job->kind);
  jw_member_text(w, "state", store_job_word(job->state));
  write_numbers(w, progress);
  jw_member_text(w, "message", job->message);
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

/* What the other kind of job alone has a use for. */
static int check_kind(const struct values *values, bool eval, struct error *error) {
  static const char *const of_stats[] = {"nTop", "nQuantile", "window", "logits", "neighbours", "explain", NULL};
  static const char *const of_eval[] = {"ends", NULL};
  for (const char *const *name = eval ? of_stats : of_eval; *name; name++)
    if (values_has(values, *name))
      return error_set_field(error, ERROR_ARGUMENT, *name, "'%s' has a meaning with kind '%s' only: leave it out", *name,
                             eval ? "stats" : "eval");
  return 0;
}

int jobs_post(struct api_call *call, struct error *error) {
  struct place place;
  int64_t id;
  if (turn_away(call)) return 0;
  bool eval = strcmp(values_text(call->values, "kind", NULL), "eval") == 0;
  if (check_kind(call->values, eval, error) != 0) return -1;
  if (call_place(call, call->values, "modelId", "source", "", &place, error) != 0) return -1;
  if ((eval ? start_eval : start_stats)(call, &place, &id, error) != 0) return -1;
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
