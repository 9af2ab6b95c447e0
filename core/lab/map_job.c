/* map_job.c: the job that makes the map of one source: neighbours in the engine's background, the layout on the job's own
 * thread, everything into the store in one step at the end. It keeps no state: what was interrupted begins again. */
#include <stdlib.h>
#include <string.h>

#include "core/base/json.h"
#include "core/base/json_writer.h"
#include "core/lab/map.h"
#include "core/lab/runner.h"
#include "core/lab/sources.h"
#include "core/lab/subject.h"

struct map_job {
  struct lab_running *running;
  struct json_node *parameters;
  struct lab_map_args args; /* texts in `parameters` */
  struct lab_source *source; /* pinned */
  struct map_work work;
  struct store_place *places;
};

/* ---- parameters ---- */

/* Against what is loaded and kept. Under a lease. */
static int check(struct lab *lab, const struct lab_map_args *args, const struct lab_source_info **info, struct error *error) {
  const struct lab_model_info *model = lab_find_model(lab, args->model_id, error);
  if (!model || !(*info = lab_find_source(lab, model, args->source_id, "source", error)) || map_work_check(*info, error) != 0 ||
      subject_in_range("seed", args->seed, 0, INT64_MAX, error) != 0)
    return -1;
  int there = args->replace ? 0 : store_map_there(lab->store, lab_store_source(lab, *info), error);
  if (there <= 0) return there;
  return error_set_field(error, ERROR_CONFLICT, "replace", "source '%s' has a map already: give \"replace\": true to make it anew", (*info)->id);
}

const char *map_job_parameters(struct lab *lab, const struct lab_map_args *args, struct arena *arena, struct error *error) {
  const struct lab_source_info *info;
  struct buffer text;
  struct json_writer w;
  if (check(lab, args, &info, error) != 0) return NULL;
  buffer_init(&text, 0);
  jw_init(&w, &text);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", info->model_id);
  jw_member_text(&w, "source", info->id);
  jw_member_int(&w, "seed", args->seed);
  jw_member_bool(&w, "replace", args->replace);
  jw_close(&w, '}');
  char *copy = buffer_check(&text, error) == 0 ? arena_text(arena, text.data, text.length, error) : NULL;
  buffer_clear(&text);
  return copy;
}

static int read_parameters(struct map_job *job, const char *text, struct error *error) {
  const struct json_node *p = job->parameters = json_parse(text, strlen(text), 8, error);
  if (!p) return error_prefix(error, "the job's parameters");
  job->args = (struct lab_map_args){.model_id = json_text_or(json_get(p, "modelId"), ""), .source_id = json_text_or(json_get(p, "source"), ""),
                                    .seed = json_int_or(json_get(p, "seed"), 0), .replace = json_bool_or(json_get(p, "replace"), false)};
  return 0;
}

int map_job_check(struct lab *lab, const struct store_job *row, struct error *error) {
  struct map_job job = {0};
  const struct lab_source_info *info;
  int failed = read_parameters(&job, row->parameters, error) != 0 || check(lab, &job.args, &info, error) != 0;
  json_free(job.parameters);
  return failed ? -1 : 0;
}

/* ---- running ---- */

static int hold(struct map_job *job, struct error *error) {
  struct lab *lab = job->running->lab;
  const struct lab_source_info *info;
  struct lab_lease lease;
  lab_lease_begin(lab, &lease);
  int failed = check(lab, &job->args, &info, error);
  if (!failed) {
    job->source = lab_source_of(lab, info);
    source_pin(lab, job->source);
    job->work = (struct map_work){.lab = lab, .source = job->source, .model = lab_model_of_source(lab, info)->model,
                                  .seed = (uint64_t)job->args.seed};
  }
  lab_lease_end(lab, &lease);
  return failed;
}

static int stopped(struct map_job *job, struct error *error) {
  if (!job->running->stopping(job->running)) return 0;
  return error_set(error, ERROR_CANCELLED, "stopped; nothing of the map is kept, and one that is resumed begins again");
}

/* Until the next features have their neighbours, so that the thread of the job hears of progress and can stop. */
static int near_slice(void *context, struct plan *plan, struct error *error) {
  struct map_work *work = context;
  int64_t asked = work->asked;
  int more = map_work_near(work, plan, error);
  return more > 0 && work->asked > asked ? 0 : more;
}

static int find_neighbours(struct map_job *job, struct error *error) {
  static const struct engine_work slices = {.slice = near_slice};
  struct map_work *work = &job->work;
  int64_t n = work->source->info.n_feat;
  while (!work->live || work->decoder) {
    job->running->report(job->running, work->asked, n, "features", "finding neighbours");
    if (stopped(job, error) != 0 || table_wait(work->lab, work->model, &slices, work, error) != 0) return -1;
  }
  return 0;
}

static int lay_out(struct map_job *job, struct error *error) {
  int64_t done = 0, total = 0;
  int more = 1;
  while (more > 0) {
    if (stopped(job, error) != 0) return -1;
    more = map_work_lay(&job->work, &done, &total, error);
    job->running->report(job->running, done, total, "epochs", "laying out");
  }
  return more;
}

static int keep(struct map_job *job, struct error *error) {
  int64_t n = job->source->info.n_feat;
  struct store_job_update update = STORE_JOB_UPDATE_INIT;
  job->places = malloc((size_t)n * sizeof *job->places);
  if (!job->places) return error_memory(error, (size_t)n * sizeof *job->places);
  map_work_places(&job->work, job->places);
  if (store_map_put(job->running->lab->store, job->source->store_id, job->places, (size_t)n, error) != 0) return -1;
  update.done = update.total = n;
  update.unit = "features";
  update.message = "mapped";
  return store_job_update(job->running->lab->store, job->running->id, &update, error);
}

int map_job_run(struct lab_running *running, const char *parameters, struct error *error) {
  struct map_job job = {.running = running};
  int failed = read_parameters(&job, parameters, error) != 0 || hold(&job, error) != 0 || find_neighbours(&job, error) != 0 ||
               lay_out(&job, error) != 0 || keep(&job, error) != 0;
  if (job.work.decoder) table_free_decoder(running->lab, job.work.model, job.work.decoder);
  job.work.decoder = NULL;
  map_work_clear(&job.work);
  free(job.places);
  if (job.source) source_unpin(running->lab, job.source);
  json_free(job.parameters);
  return failed ? -1 : 0;
}
