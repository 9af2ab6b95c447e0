/* lab.c: opens and closes the house, and says which models are in it. The verbs are the files beside it, sources in
 * sources.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/archive.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/nearest.h"
#include "core/base/pool.h"
#include "core/dict/dict_find.h"
#include "core/lab/sources.h"
#include "core/model/chat.h"
#include "core/model/model_find.h"

#define MAX_NAMED 8 /* ids listed in an error text */

/* ---- models ---- */

static void describe_model(const struct model *model, struct lab_model_info *info) {
  const struct arch *arch = &model->arch;
  *info = (struct lab_model_info){.id = model->id, .display_name = model->id, .family = arch->family, .path = model->path,
                                  .dtype = dtype_name(model->weights.dtype), .kept = dtype_name(model_kept(model)),
                                  .n_layer = arch->n_layer,
                                  .n_head = arch->n_head, .n_kv_head = arch->n_kv_head, .d_model = arch->d_model,
                                  .d_mlp = arch->d_mlp, .n_ctx = arch->n_ctx, .vocabulary = arch->vocabulary,
                                  .parameters = model->weights.parameters, .weight_bytes = model->weights.bytes,
                                  .processed = model->processed,
                                  .prepends_bos = tokenizer_prepends_bos(model->tokenizer),
                                  .chat_format = chat_format_name(tokenizer_chat(model->tokenizer))};
}

int lab_check_id(const char *id, struct error *error) {
  size_t n = strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/");
  if (*id && !id[n] && n <= 128) return 0;
  return error_set(error, ERROR_ARGUMENT,
                   "the id '%s' must have 1 to 128 letters, digits or characters of '._-/'", id);
}

static int open_model(struct lab *lab, const struct lab_model_spec *spec, struct error *error) {
  struct model_place place;
  if (spec->id && lab_check_id(spec->id, error) != 0) return -1;
  if (model_find(lab->names, spec->path, &place, error) != 0) {
    if (spec->id) (void)error_prefix(error, "model '%s'", spec->id);
    return -1;
  }
  const char *id = spec->id ? spec->id : place.id;
  for (size_t i = 0; i < lab->n_models; i++)
    if (strcmp(lab->models[i].model->id, id) == 0)
      return error_set(error, ERROR_ARGUMENT, "model '%s' is named twice", id);
  struct lab_model *opened = &lab->models[lab->n_models];
  struct lab_source_list *none = calloc(1, sizeof *none);
  if (!none) return error_memory(error, sizeof *none);
  opened->model = model_open_place(id, &place, lab->backend, error);
  if (opened->model) opened->neurons = calloc((size_t)opened->model->arch.n_layer, sizeof *opened->neurons);
  if (opened->model && !opened->neurons) error_memory(error, (size_t)opened->model->arch.n_layer * sizeof *opened->neurons);
  if (!opened->neurons) {
    model_close(opened->model);
    free(none);
    return -1;
  }
  atomic_init(&opened->sources, none);
  describe_model(opened->model, &lab->infos[lab->n_models]);
  const struct lab_model_info *info = &lab->infos[lab->n_models++];
  log_info("model %s: %s%s, %d layers, d_model %lld, %lld parameters, weights %zu MiB in memory as %s, context %lld", info->id,
           info->family, info->processed ? ", processed" : "", info->n_layer, (long long)info->d_model, (long long)info->parameters,
           info->weight_bytes >> 20, info->kept, (long long)info->n_ctx);
  return 0;
}

struct lab_model *lab_model_named(const struct lab *lab, const char *id) {
  const char *wanted = model_names_id(lab->names, id);
  for (size_t i = 0; i < lab->n_models; i++)
    if (strcmp(model_names_id(lab->names, lab->models[i].model->id), wanted) == 0) return &lab->models[i];
  return NULL;
}

/* The table is large and rarely asked: it is read when a name needs it. */
static int find_source(const struct lab *lab, const struct lab_options *options, const struct lab_source_spec *spec,
                       struct dict_place *out, struct error *error) {
  char name[SOURCE_NAME_BYTES];
  bool here = path_is_directory(spec->path) || path_is_file(spec->path);
  const char *where = here ? spec->path : source_published_name(lab, spec, name);
  struct releases *releases = releases_open(here ? NULL : options->releases, error);
  const struct dict_folders folders = {options->folders, options->n_folders};
  int failed = releases ? dict_find(releases, where, folders, out, error) : -1;
  releases_close(releases);
  return failed;
}

static int open_source(struct lab *lab, const struct lab_options *options, const struct lab_source_spec *spec,
                       struct error *error) {
  struct dict_place place;
  if (find_source(lab, options, spec, &place, error) != 0)
    return error_prefix(error, "source '%s/%s'", spec->model_id, spec->source_id);
  struct lab_source_spec found = {spec->model_id, spec->source_id, place.path};
  const char *fence[] = {place.fence};
  if (*place.fence) mapfile_fence(fence, 1);
  struct lab_source *source = source_open(lab, &found, false, error);
  if (*place.fence) mapfile_fence(NULL, 0);
  if (!source) return -1;
  struct error misnamed = ERROR_INIT;
  if (source_check_layer(source, &misnamed) != 0) log_warn("source %s/%s: %s", source->model_id, source->id, misnamed.text);
  if (sources_add(lab, source, error) == 0) return 0;
  source_close(source);
  return -1;
}

/* ---- opening ---- */

static int open_budget(struct lab *lab, const struct lab_options *options, struct error *error) {
  static const struct {
    const char *word;
    enum dtype dtype;
  } words[] = {{"file", DTYPE_OTHER}, {"f32", DTYPE_F32}, {"f16", DTYPE_F16}, {"bf16", DTYPE_BF16}};
  const char *wanted = options->dict_dtype ? options->dict_dtype : "file";
  size_t i = 0, n = sizeof words / sizeof *words;
  while (i < n && strcmp(words[i].word, wanted) != 0) i++;
  if (i == n)
    return error_set(error, ERROR_ARGUMENT, "dict_dtype is '%.32s', allowed are file, f32, f16 and bf16", wanted);
  lab->keep = words[i].dtype;
  size_t limit = options->dict_budget, left = 0, total = 0;
  if (!limit && lab->backend->ops->room) { /* a device has what it has: encoders come and go in a quarter of it */
    if (lab->backend->ops->room(lab->backend, &left, &total, error) != 0) return -1;
    limit = total / 4;
  }
  lab->budget = dict_budget_new(limit, error);
  return lab->budget ? 0 : -1;
}

static int open_backend(struct lab *lab, const struct lab_options *options, struct error *error) {
  const char *name = options->backend ? options->backend : "auto";
  lab->threads = options->threads > 0 ? options->threads : pool_processors();
  lab->backend = backend_open(name, lab->threads, error);
  if (!lab->backend) return -1;
  log_info("backend %s, %d threads", lab->backend->ops->name, lab->threads);
  return 0;
}

static int allocate(struct lab *lab, const struct lab_options *options, struct error *error) {
  size_t n = options->n_models ? options->n_models : 1;
  lab->models = calloc(n, sizeof *lab->models);
  lab->infos = calloc(n, sizeof *lab->infos);
  if (!lab->models || !lab->infos) return error_memory(error, n * sizeof *lab->models);
  return 0;
}

static int open_all(struct lab *lab, const struct lab_options *options, struct error *error) {
  if (options->n_models == 0)
    return error_set(error, ERROR_ARGUMENT, "no model is named; give one with --model");
  for (size_t i = 0; i < options->n_models; i++)
    if (open_model(lab, &options->models[i], error) != 0) return -1;
  for (size_t i = 0; i < options->n_sources; i++)
    if (open_source(lab, options, &options->sources[i], error) != 0) return -1;
  return 0;
}

static int start_engine(struct lab *lab, const struct lab_options *options, struct error *error) {
  struct engine_options engine = {.max_queue = options->max_queue, .max_sessions = options->max_sessions,
                                  .max_step_rows = options->max_step_rows, .kv_bytes = options->kv_bytes,
                                  .queue_timeout_ms = options->queue_timeout_ms,
                                  .generation_timeout_ms = options->generation_timeout_ms, .budget = lab->budget,
                                  .remember = options->prefix_cache};
  const struct model **models = calloc(lab->n_models, sizeof *models);
  int64_t *aside = calloc(lab->n_models, sizeof *aside);
  int failed = models && aside ? 0 : error_memory(error, lab->n_models * sizeof *models);
  for (size_t i = 0; !failed && i < lab->n_models; i++) {
    models[i] = lab->models[i].model;
    aside[i] = sources_aside(&lab->models[i]);
  }
  engine.aside = aside;
  if (!failed) lab->engine = engine_new(lab->backend, models, lab->n_models, &engine, error);
  free(models);
  free(aside);
  return lab->engine ? 0 : -1;
}

struct lab *lab_open(const struct lab_options *options, struct error *error) {
  struct lab *lab = calloc(1, sizeof *lab);
  if (!lab) return error_memory(error, sizeof *lab), NULL;
  lab->options = *options;
  if (options->train_folder && !(lab->train_folder = realpath(options->train_folder, NULL)))
    log_warn("dictionaries cannot be trained into '%s', which does not exist", options->train_folder);
  if (sources_open(lab, error) != 0 || allocate(lab, options, error) != 0 ||
      !(lab->names = model_names_open(options->aliases, error)) || open_backend(lab, options, error) != 0 ||
      open_budget(lab, options, error) != 0 || open_all(lab, options, error) != 0 ||
      archive_open(lab, options, error) != 0 || stager_open(lab, error) != 0 || start_engine(lab, options, error) != 0 ||
      loader_start(lab, options, error) != 0 || runner_open_jobs(lab, options->run_jobs, error) != 0) {
    lab_close(lab);
    return NULL;
  }
  return lab;
}

void lab_close(struct lab *lab) {
  if (!lab) return;
  runner_close_jobs(lab);
  loader_close(lab);
  stager_stop(lab);
  engine_free(lab->engine);
  stager_close(lab);
  store_close(lab->store);
  sources_close(lab);
  dict_budget_free(lab->budget);
  for (size_t i = 0; i < lab->n_models; i++) model_close(lab->models[i].model);
  free(lab->models);
  free(lab->infos);
  free(lab->train_folder);
  model_names_close(lab->names);
  backend_close(lab->backend);
  free(lab);
}

void lab_drain(struct lab *lab) {
  runner_stop_jobs(lab); /* first, so that a job knows why the engine refuses it */
  loader_stop(lab);
  engine_drain(lab->engine);
}

/* ---- what is here ---- */

size_t lab_models(const struct lab *lab, const struct lab_model_info **out) {
  *out = lab->infos;
  return lab->n_models;
}

struct lab_model *lab_model_of(const struct lab *lab, const struct lab_model_info *info) {
  return &lab->models[info - lab->infos];
}

struct lab_model *lab_model_of_source(const struct lab *lab, const struct lab_source_info *info) {
  return lab_model_named(lab, info->model_id);
}

void lab_list_ids(char *out, size_t size, size_t n, const char *(*id)(const void *of, size_t i), const void *of) {
  size_t used = 0;
  out[0] = '\0';
  for (size_t i = 0; i < n && i < MAX_NAMED && used < size; i++)
    used += (size_t)snprintf(out + used, size - used, "%s'%s'", i ? ", " : "", id(of, i));
  if (n > MAX_NAMED && used < size) snprintf(out + used, size - used, " and %zu more", n - MAX_NAMED);
}

static const char *model_id(const void *of, size_t i) { return ((const struct lab_model_info *)of)[i].id; }

/* The loaded model that was probably meant; NULL when none is near. */
static const char *nearest_model(const struct lab *lab, const char *id) {
  const char *names[64];
  size_t n = lab->n_models < 64 ? lab->n_models : 64;
  for (size_t i = 0; i < n; i++) names[i] = lab->infos[i].id;
  return nearest_name(id, names, n);
}

const struct lab_model_info *lab_find_model(const struct lab *lab, const char *id, struct error *error) {
  char known[256];
  lab_list_ids(known, sizeof known, lab->n_models, model_id, lab->infos);
  if (!id || !*id) {
    if (lab->n_models == 1) return &lab->infos[0];
    error_set_field(error, ERROR_ARGUMENT, "modelId", "several models are loaded (%s): name one of them", known);
    return NULL;
  }
  struct lab_model *model = lab_model_named(lab, id);
  if (model) return &lab->infos[model - lab->models];
  if (stored_refuse_model(lab, id, error)) return NULL;
  const char *near = nearest_model(lab, id);
  error_set_field(error, ERROR_NOT_FOUND, "modelId", "no model '%.64s' is loaded%s%.64s%s; loaded: %s", id,
                  near ? "; did you mean '" : "", near ? near : "", near ? "'" : "", known);
  return NULL;
}

void lab_stats(const struct lab *lab, struct lab_stats *out) {
  struct engine_stats e;
  struct dict_budget_stats d;
  engine_stats(lab->engine, &e);
  dict_budget_stats(lab->budget, &d);
  *out = (struct lab_stats){.ready = true, .draining = e.draining,
                            .lost = lab->backend->ops->lost && lab->backend->ops->lost(lab->backend),
                            .backend = lab->backend->ops->name,
                            .threads = lab->threads, .queued = e.queued, .running = e.running,
                            .max_queue = lab->options.max_queue, .max_sessions = lab->options.max_sessions,
                            .requests_done = e.tasks_done, .requests_failed = e.tasks_failed,
                            .requests_cancelled = e.tasks_cancelled, .prompt_tokens = e.prompt_tokens, .spared_tokens = e.spared_tokens,
                            .new_tokens = e.new_tokens, .steps = e.steps, .step_rows = e.step_rows,
                            .busy_seconds = e.busy_seconds, .mean_service_seconds = e.mean_service_seconds,
                            .still_seconds = e.still_seconds,
                            .kv_bytes = e.kv_bytes, .kv_used_bytes = e.kv_used_bytes,
                            .dict_budget = d.limit, .dict_encoder_bytes = d.bytes,
                            .dict_encoders_prepared = d.prepared, .dict_encoders_dropped = d.dropped};
}
