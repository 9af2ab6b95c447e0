/* loader.c: the thread that brings dictionaries while others are served, has them tested, and frees those that nobody uses
 * any more. It reads and packs weights by itself, beside the engine and never with its threads, so that nobody waits for a load.
 *
 * A client names a path or a published dictionary; what it may name is decided here, once by the real path and again for every
 * file that is opened (mapfile_fence). The Hugging Face cache is open to names of the table alone, never to paths. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "core/dict/dict_find.h"
#include "core/lab/sources.h"

#define MAX_QUEUE 64      /* loads that wait */
#define MAX_SOURCES 2048  /* of a model; each has a mapped file or several (core/base/mapfile.c) */

struct lab_load {
  struct lab_job job;
  struct lab_load *next;
  char *model_id, *source_id, *path; /* path is real, or what the table gives for a name */
  char *cache;                       /* of a name that the cache has: the cache's real path, the only folder to read; else NULL */
  bool fenced;
  const struct lab_source_info *result;
};

static void destroy(struct lab_job *job) {
  struct lab_load *load = (struct lab_load *)job;
  free(load->model_id);
  free(load->source_id);
  free(load->path);
  free(load->cache);
  job_clear(job);
  free(load);
}

/* ---- the thread ---- */

static bool was_cancelled(struct lab_load *load) {
  pthread_mutex_lock(&load->job.mutex);
  bool cancelled = load->job.cancelled;
  pthread_mutex_unlock(&load->job.mutex);
  return cancelled;
}

/* Before anybody can name it. */
static void plan_splices(struct lab *lab, const struct lab_source *source) {
  const struct lab_model *model = lab_model_named(lab, source->model_id);
  if (source_aside(source)) engine_make_aside(lab->engine, model->model, sources_aside(model) + source_aside(source));
}

static int bring(struct lab *lab, struct lab_load *load, struct error *error) {
  struct lab_source_spec spec = {load->model_id, load->source_id, load->path};
  int64_t begin = clock_ns();
  struct lab_source *source = source_open(lab, &spec, true, error);
  if (!source) return -1;
  if (source_check_layer(source, error) != 0) {
    source_close(source);
    return -1;
  }
  plan_splices(lab, source);
  if (archive_put_source(lab, source, lab->options.load_statistics, error) != 0 || sources_add(lab, source, error) != 0) {
    source_close(source);
    return -1;
  }
  load->result = &source->info;
  log_info("source %s/%s: loaded in %.0f ms from '%s'", source->model_id, source->id, (double)(clock_ns() - begin) * 1e-6,
           source->path);
  return 0;
}

/* A file that is not what it should be is the fault of whoever named it. */
static void blame_path(struct error *error) {
  bool file = error->code == ERROR_FORMAT || error->code == ERROR_IO || error->code == ERROR_NOT_FOUND ||
              error->code == ERROR_UNSUPPORTED || error->code == ERROR_ARGUMENT;
  if (!file) return;
  error->code = ERROR_ARGUMENT;
  if (!error->field[0]) snprintf(error->field, sizeof error->field, "path");
}

static void run_load(struct lab *lab, struct lab_load *load, bool stop) {
  struct lab_sources *s = lab->sources;
  struct error error = ERROR_INIT;
  int failed = stop ? error_set(&error, ERROR_BUSY, "the server is shutting down")
               : was_cancelled(load) ? error_set(&error, ERROR_CANCELLED, "the request was cancelled")
                                     : 0;
  if (!failed) {
    const char *cache[] = {load->cache};
    if (load->cache)
      mapfile_fence(cache, 1);
    else if (load->fenced)
      mapfile_fence((const char *const *)s->folders, s->n_folders);
    failed = bring(lab, load, &error);
    mapfile_fence(NULL, 0);
    if (failed) blame_path(&error);
  }
  pthread_mutex_lock(&s->mutex);
  s->loading = NULL;
  pthread_mutex_unlock(&s->mutex);
  job_done(&load->job, failed ? &error : NULL);
}

/* ---- dropped encoders ---- */

bool loader_cold(const struct lab *lab, struct dict *const *dicts, size_t n) {
  struct dict_budget_stats stats;
  dict_budget_stats(lab->budget, &stats);
  for (size_t i = 0; stats.limit && i < n; i++)
    if (!dict_prepared(dicts[i])) return true;
  return false;
}

int loader_warm(struct lab *lab, struct lab_warm *warm, struct error *error) {
  struct lab_sources *s = lab->sources;
  struct lab_warm **end = &s->cold;
  pthread_mutex_lock(&s->mutex);
  int failed = s->stop || !s->started ? error_set(error, ERROR_BUSY, "the server is shutting down") : 0;
  if (!failed) {
    while (*end) end = &(*end)->next;
    warm->next = NULL;
    *end = warm;
    pthread_cond_signal(&s->changed);
  }
  pthread_mutex_unlock(&s->mutex);
  return failed;
}

static void run_warm(struct lab_warm *warm, bool stop) {
  struct error error = ERROR_INIT;
  int failed = stop ? error_set(&error, ERROR_BUSY, "the server is shutting down") : 0;
  for (size_t i = 0; !failed && i < warm->n; i++) failed = dict_prepare(warm->dicts[i], &error);
  warm->ready(warm, failed ? &error : NULL);
}

/* ---- the loop ---- */

/* The next one whose test is wanted, pinned; NULL when there is none. Under the mutex. */
static struct lab_source *next_unchecked(struct lab *lab) {
  for (size_t m = 0; lab->sources->unchecked && m < lab->n_models; m++) {
    const struct lab_source_list *list = atomic_load(&lab->models[m].sources);
    for (size_t i = 0; i < list->n; i++) {
      struct lab_source *source = lab_source_of(lab, list->items[i]);
      if (source->check.state != LAB_CHECK_WANTED) continue;
      source->check.state = LAB_CHECK_NONE;
      source->pins++;
      lab->sources->unchecked--;
      return source;
    }
  }
  lab->sources->unchecked = 0; /* the rest was unloaded before its turn */
  return NULL;
}

static void *loader_main(void *argument) {
  struct lab *lab = argument;
  struct lab_sources *s = lab->sources;
  for (;;) {
    pthread_mutex_lock(&s->mutex);
    while (!s->stop && !s->queue && !s->cold && !s->unchecked && !sources_reclaimable(s))
      pthread_cond_wait(&s->changed, &s->mutex);
    struct lab_warm *cold = s->cold; /* requests come first */
    struct lab_load *load = cold ? NULL : s->queue;
    bool stop = s->stop;
    struct lab_source *unchecked = cold || load || stop ? NULL : next_unchecked(lab);
    if (cold) s->cold = cold->next;
    if (load) s->queue = load->next;
    s->loading = load;
    pthread_mutex_unlock(&s->mutex);
    sources_reclaim(lab);
    if (cold) run_warm(cold, stop);
    if (load) run_load(lab, load, stop);
    if (unchecked) {
      selftest_run(lab, unchecked);
      source_unpin(lab, unchecked);
    }
    if (stop && !load && !cold) return NULL;
  }
}

/* ---- which paths ---- */

/* The real path of `path` at the end of a list; one that does not exist is left out. */
static int add_real(char **list, size_t *n, const char *path, struct error *error) {
  char real[PATH_MAX];
  if (!realpath(path, real)) return 0;
  list[*n] = strdup(real);
  if (!list[*n]) return error_memory(error, strlen(real) + 1);
  (*n)++;
  return 0;
}

static int remember_paths(struct lab_sources *s, const struct lab_options *options, struct error *error) {
  size_t n = options->n_sources + options->n_folders;
  if (options->releases && !(s->releases = strdup(options->releases))) return error_memory(error, strlen(options->releases));
  s->folders = calloc(n ? n : 1, sizeof *s->folders);
  s->named = calloc(options->n_sources ? options->n_sources : 1, sizeof *s->named);
  if (!s->folders || !s->named) return error_memory(error, n * sizeof *s->folders);
  for (size_t i = 0; i < options->n_folders; i++) {
    size_t before = s->n_folders;
    if (add_real(s->folders, &s->n_folders, options->folders[i], error) != 0) return -1;
    if (s->n_folders == before) log_warn("dictionaries may be loaded from '%s', which does not exist", options->folders[i]);
  }
  for (size_t i = 0; i < options->n_sources; i++) {
    const char *path = options->sources[i].path;
    if (add_real(s->named, &s->n_named, path, error) != 0) return -1;
    if (path_is_directory(path) && add_real(s->folders, &s->n_folders, path, error) != 0) return -1;
  }
  return 0;
}

static bool was_named(const struct lab_sources *s, const char *real) {
  for (size_t i = 0; i < s->n_named; i++)
    if (strcmp(s->named[i], real) == 0) return true;
  return false;
}

/* Where a load reads. */
struct found {
  char path[PATH_MAX];
  char cache[PATH_MAX]; /* see lab_load; "" for NULL */
  bool fenced;
};

/* A path outside is refused in the same words whether it exists or not: nobody may look around this way. */
static int resolve_path(const struct lab_sources *s, const char *path, struct found *out, struct error *error) {
  char joined[PATH_MAX];
  bool found = path[0] == '/' && realpath(path, out->path);
  for (size_t i = 0; path[0] != '/' && !found && i < s->n_folders; i++)
    found = snprintf(joined, sizeof joined, "%s/%s", s->folders[i], path) < (int)sizeof joined && realpath(joined, out->path) &&
            path_is_inside(out->path, (const char *const *)s->folders, s->n_folders);
  out->fenced = !found || !was_named(s, out->path);
  if (found && (!out->fenced || path_is_inside(out->path, (const char *const *)s->folders, s->n_folders))) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "path",
                         "'%.200s' is not there, or in none of the folders that dictionaries may be loaded from; the "
                         "setting 'source_folders' (--source-folders) names them",
                         path);
}

/* A name through the table into the allowed folders or the cache: nothing but what the table gives is looked at. */
static int resolve_name(const struct lab_sources *s, const char *name, bool *known, struct found *out, struct error *error) {
  struct dict_place place;
  struct release_place row;
  struct releases *releases = releases_open(s->releases, error);
  const struct dict_folders folders = {(const char *const *)s->folders, s->n_folders};
  int failed = releases ? dict_find_name(releases, name, folders, &place, error) : -1;
  *known = releases && releases_find(releases, name, &row, NULL) == 0;
  releases_close(releases);
  if (failed) return -1;
  out->fenced = true;
  snprintf(out->path, sizeof out->path, "%s", place.path);
  snprintf(out->cache, sizeof out->cache, "%s", place.fence);
  return 0;
}

/* Names have a slash; what begins like a path, or climbs like one, is one. */
static bool may_be_name(const char *text) {
  return strchr(text, '/') && !strchr("/.~", text[0]) && !strstr(text, "/..");
}

static int resolve(const struct lab *lab, const struct lab_source_spec *spec, struct found *out, struct error *error) {
  struct error named = ERROR_INIT;
  char own[SOURCE_NAME_BYTES];
  const char *name = source_published_name(lab, spec, own);
  memset(out, 0, sizeof *out);
  if (spec->path && resolve_path(lab->sources, spec->path, out, error) == 0) return 0;
  if (spec->path && !may_be_name(spec->path)) return -1;
  error_clear(error);
  bool known;
  if (resolve_name(lab->sources, name, &known, out, &named) == 0) return 0;
  if (!spec->path || known) return error_set_field(error, named.code, "path", "%s", named.text);
  return error_set_field(error, named.code, "path",
                         "'%.80s' is in none of the folders that dictionaries may be loaded from (setting 'source_folders'); by name: "
                         "%.340s",
                         spec->path, named.text);
}

/* ---- the asker's side ---- */

static bool is_pending(const struct lab_load *load, const struct lab_source_spec *spec) {
  return load && strcmp(load->model_id, spec->model_id) == 0 && strcmp(load->source_id, spec->source_id) == 0;
}

/* Under the mutex. */
static int check_new(struct lab *lab, const struct lab_source_spec *spec, struct error *error) {
  struct lab_sources *s = lab->sources;
  const struct lab_source_list *list = atomic_load(&lab_model_named(lab, spec->model_id)->sources);
  size_t waiting = 0;
  bool pending = is_pending(s->loading, spec), there = false;
  for (const struct lab_load *load = s->queue; load; load = load->next, waiting++) pending |= is_pending(load, spec);
  for (size_t i = 0; i < list->n; i++) there |= strcmp(list->items[i]->id, spec->source_id) == 0;
  if (s->stop || !s->started) return error_set(error, ERROR_BUSY, "the server is shutting down");
  if (pending || there)
    return error_set_field(error, ERROR_CONFLICT, "source", "source '%s/%s' is %s already", spec->model_id, spec->source_id,
                           pending ? "being loaded" : "loaded");
  if (s->forgetting && strcmp(s->forgetting, spec->model_id) == 0)
    return error_set(error, ERROR_BUSY, "sources of model '%s' are being deleted from the store", spec->model_id);
  if (waiting >= MAX_QUEUE) return error_set(error, ERROR_BUSY, "%d dictionaries wait to be loaded", MAX_QUEUE);
  if (list->n >= MAX_SOURCES)
    return error_set(error, ERROR_LIMIT, "model '%s' has %d sources, which is the most", spec->model_id, MAX_SOURCES);
  return 0;
}

static int check_name(const char *id, struct error *error) {
  int64_t number;
  if (source_check_id(id, error) != 0 || strchr(id, '/') || number_parse_int(id, &number))
    return error->code ? -1
                       : error_set(error, ERROR_ARGUMENT,
                                   "the id '%s' cannot name a source: it needs a letter and no slash, such as '7-res-jb'", id);
  return 0;
}

static struct lab_load *new_load(struct lab *lab, const struct lab_source_spec *spec, const struct found *found,
                                 struct lab_waker waker, struct error *error) {
  struct lab_load *load = calloc(1, sizeof *load);
  if (!load) return error_memory(error, sizeof *load), NULL;
  job_init(&load->job, lab, waker, destroy);
  load->fenced = found->fenced;
  load->model_id = strdup(spec->model_id);
  load->source_id = strdup(spec->source_id);
  load->path = strdup(found->path);
  if (*found->cache) load->cache = strdup(found->cache);
  if (load->model_id && load->source_id && load->path && (load->cache || !*found->cache)) return load;
  error_memory(error, sizeof *found);
  destroy(&load->job);
  return NULL;
}

static int enqueue(struct lab *lab, struct lab_load *load, const struct lab_source_spec *spec, struct error *error) {
  struct lab_sources *s = lab->sources;
  struct lab_load **end = &s->queue;
  pthread_mutex_lock(&s->mutex);
  int failed = check_new(lab, spec, error);
  if (!failed) {
    load->job.owners = 2; /* the asker and the loader, which does not know it yet */
    while (*end) end = &(*end)->next;
    *end = load;
    pthread_cond_signal(&s->changed);
  }
  pthread_mutex_unlock(&s->mutex);
  return failed;
}

/* Before anything is looked up: what is there already needs no place. */
static int check_early(struct lab *lab, const struct lab_source_spec *spec, struct error *error) {
  pthread_mutex_lock(&lab->sources->mutex);
  int failed = check_new(lab, spec, error);
  pthread_mutex_unlock(&lab->sources->mutex);
  return failed;
}

int lab_source_load(struct lab *lab, const struct lab_source_spec *spec, struct lab_waker waker, struct lab_job **out,
                    struct error *error) {
  struct found found;
  const struct lab_model_info *model = lab_find_model(lab, spec->model_id, error);
  if (!model) return -1;
  struct lab_source_spec named = {model->id, spec->source_id, spec->path};
  if (check_name(spec->source_id, error) != 0) {
    if (!error->field[0]) snprintf(error->field, sizeof error->field, "source");
    return -1;
  }
  if (check_early(lab, &named, error) != 0 || resolve(lab, &named, &found, error) != 0) return -1;
  struct lab_load *load = new_load(lab, &named, &found, waker, error);
  if (!load) return -1;
  if (enqueue(lab, load, &named, error) != 0) {
    destroy(&load->job);
    return -1;
  }
  *out = &load->job;
  return 0;
}

const struct lab_source_info *lab_source_load_result(const struct lab_job *job) {
  return ((const struct lab_load *)job)->result;
}

/* ---- the list ---- */

const char *lab_source_word(enum lab_source_state state) {
  static const char *const words[] = {
      [LAB_SOURCE_LOADING] = "loading", [LAB_SOURCE_READY] = "ready", [LAB_SOURCE_UNLOADING] = "unloading"};
  return words[state];
}

/* Adds a row; texts are copied, because what is loading or unloading may be gone when they are read. */
static int add_status(struct arena *arena, struct lab_source_status *row, const char *model, const char *id, const char *path,
                      enum lab_source_state state, struct error *error) {
  *row = (struct lab_source_status){.model_id = arena_text(arena, model, strlen(model), error),
                                    .source_id = arena_text(arena, id, strlen(id), error),
                                    .path = arena_text(arena, path, strlen(path), error), .state = state};
  return row->model_id && row->source_id && row->path ? 0 : -1;
}

static int add_source(struct arena *arena, struct lab_source_status *row, struct lab_source *source,
                      enum lab_source_state state, struct error *error) {
  if (add_status(arena, row, source->model_id, source->id, source->path, state, error) != 0) return -1;
  row->used_at = atomic_load_explicit(&source->used_at, memory_order_relaxed);
  row->bytes = source->info.bytes;
  row->encoder_bytes = dict_encoder_bytes(source->dict);
  if (state == LAB_SOURCE_READY) row->info = &source->info;
  return 0;
}

/* Under the mutex. */
static size_t count_all(const struct lab *lab) {
  const struct lab_sources *s = lab->sources;
  size_t n = s->loading != NULL;
  for (const struct lab_load *load = s->queue; load; load = load->next) n++;
  for (const struct lab_retired *r = s->retired; r; r = r->next) n += r->source != NULL;
  for (size_t m = 0; m < lab->n_models; m++) n += atomic_load(&lab->models[m].sources)->n;
  return n;
}

static int list_all(const struct lab *lab, struct arena *arena, struct lab_source_status *rows, size_t *n,
                    struct error *error) {
  const struct lab_sources *s = lab->sources;
  int failed = 0;
  for (size_t m = 0; m < lab->n_models; m++) {
    const struct lab_source_list *list = atomic_load(&lab->models[m].sources);
    for (size_t i = 0; i < list->n; i++)
      failed |= add_source(arena, &rows[(*n)++], lab_source_of(lab, list->items[i]), LAB_SOURCE_READY, error);
  }
  for (const struct lab_load *load = s->loading ? s->loading : s->queue; load; load = load == s->loading ? s->queue : load->next)
    failed |= add_status(arena, &rows[(*n)++], load->model_id, load->source_id, load->path, LAB_SOURCE_LOADING, error);
  for (const struct lab_retired *r = s->retired; r; r = r->next)
    if (r->source) failed |= add_source(arena, &rows[(*n)++], r->source, LAB_SOURCE_UNLOADING, error);
  return failed;
}

int lab_source_list(struct lab *lab, struct arena *arena, struct lab_source_status **out, size_t *n, struct error *error) {
  *n = 0;
  pthread_mutex_lock(&lab->sources->mutex);
  *out = arena_array(arena, count_all(lab) + 1, sizeof **out, error);
  int failed = *out ? list_all(lab, arena, *out, n, error) : -1;
  pthread_mutex_unlock(&lab->sources->mutex);
  return failed ? -1 : 0;
}

/* ---- opening and closing ---- */

int loader_start(struct lab *lab, const struct lab_options *options, struct error *error) {
  struct lab_sources *s = lab->sources;
  if (remember_paths(s, options, error) != 0) return -1;
  if (pthread_create(&s->thread, NULL, loader_main, lab) != 0)
    return error_set(error, ERROR_IO, "the thread that loads dictionaries could not be started");
  s->started = true;
  return 0;
}

void loader_stop(struct lab *lab) {
  struct lab_sources *s = lab->sources;
  if (!s) return;
  pthread_mutex_lock(&s->mutex);
  s->stop = true;
  pthread_cond_signal(&s->changed);
  pthread_mutex_unlock(&s->mutex);
}

void loader_close(struct lab *lab) {
  struct lab_sources *s = lab->sources;
  if (!s || !s->started) return;
  loader_stop(lab);
  pthread_join(s->thread, NULL);
  s->started = false;
}
