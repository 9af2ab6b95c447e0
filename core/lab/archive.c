/* archive.c: the store behind the lab: opened with it, told what is loaded, filled with the statistics that came along. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/archive.h"
#include "core/archive/rows.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/lab/sources.h"

struct store *lab_store(const struct lab *lab) { return lab->store; }

int64_t lab_store_source(const struct lab *lab, const struct lab_source_info *source) {
  if (source->stored) return source->stored;
  return lab->store ? lab_source_of(lab, source)->store_id : 0;
}

uint64_t lab_generation(const struct lab *lab) {
  return (lab->store ? store_generation(lab->store) : 0) + atomic_load(&lab->sources->changes);
}

int lab_needs_store(struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED, "this needs a store: start the daemon with --store FILE");
}

/* Shape and kind, whether the model's weights are processed, which gives it other activations, and behind "#" the fingerprint
 * of what it computes. */
static void identify(const struct lab *lab, struct lab_source *source, char out[160]) {
  const struct lab_source_info *info = &source->info;
  dict_fingerprint(source->dict, source->print);
  bool processed = lab_model_named(lab, info->model_id)->model->processed;
  snprintf(out, 160, "%s %s %lld x %lld%s%s #%s", info->kind, info->point, (long long)info->d_in, (long long)info->n_feat,
           info->folded ? " folded" : "", processed ? " processed" : "", source->print);
}

/* One that was written without a fingerprint (before there were any) agrees with every dictionary of its shape. */
bool archive_same_identity(const char *a, const char *b) {
  size_t shape_a = strcspn(a, "#"), shape_b = strcspn(b, "#");
  if (a[shape_a] && b[shape_b]) return strcmp(a, b) == 0;
  while (shape_a > 0 && a[shape_a - 1] == ' ') shape_a--;
  while (shape_b > 0 && b[shape_b - 1] == ' ') shape_b--;
  return shape_a == shape_b && memcmp(a, b, shape_a) == 0;
}

static int put_model(struct lab *lab, const struct lab_model_info *info, struct error *error) {
  struct arena arena;
  struct store_model known;
  arena_init(&arena, 0);
  int found = store_model_find(lab->store, info->id, &arena, &known, error);
  struct store_model model = {.id = info->id, .display_name = info->id, .layers = info->n_layer,
                              .dimension = info->d_model, .neurons_per_layer = info->d_mlp};
  int failed = found < 0 ? -1 : found ? 0 : store_model_put(lab->store, &model, error);
  arena_clear(&arena);
  return failed;
}

/* Whether what the store has of a source may be of the dictionary that is loaded now. One without identity was imported or
 * uploaded before any dictionary was loaded under its name, and is taken to be of the one that bears it now, where that has
 * as many features. */
static bool may_be(const struct store_source *known, const struct lab_source_info *info, const char *identity) {
  if (!known->identity) return known->n_features <= info->n_feat;
  return archive_same_identity(known->identity, identity);
}

/* A known source keeps its number and its statistics, unless another dictionary now bears its name. */
static int put_source(const struct lab *lab, struct lab_source *source, struct error *error) {
  struct arena arena;
  struct store_source known;
  char identity[160];
  const struct lab_source_info *info = &source->info;
  identify(lab, source, identity);
  arena_init(&arena, 0);
  int found = store_source_find(lab->store, info->model_id, info->id, &arena, &known, error), failed = 0;
  bool same = found > 0 && known.identity && strcmp(known.identity, identity) == 0;
  bool agrees = found > 0 && may_be(&known, info, identity);
  if (found > 0) source->store_id = known.id;
  if (found > 0 && !agrees) {
    log_warn("source %s/%s: another dictionary than the store knows (%s, %lld features); its statistics are dropped",
             info->model_id, info->id, known.identity ? known.identity : "imported", (long long)known.n_features);
    failed = store_source_clear(lab->store, known.id, error);
  }
  struct store_source row = {.model = info->model_id, .name = info->id, .set = info->set, .layer = info->layer,
                             .point = info->point, .kind = info->kind, .n_features = info->n_feat,
                             .identity = identity};
  if (agrees) {
    row.statistics = known.statistics;
    row.config = known.config;
    row.description = known.description;
    row.url = known.url;
  }
  if (found < 0) failed = -1;
  if (!failed && !same) failed = store_source_put(lab->store, &row, &source->store_id, error);
  arena_clear(&arena);
  return failed;
}

/* ---- statistics that came with a dictionary ---- */

static bool has_statistics(const struct lab *lab, int64_t source) {
  struct arena arena;
  struct store_source row;
  arena_init(&arena, 0);
  bool has = store_source_at(lab->store, source, &arena, &row, NULL) != 1 || row.statistics.made_at;
  arena_clear(&arena);
  return has;
}

static void load_statistics(const struct lab *lab, const struct lab_source_info *info, const char *folder) {
  struct error error = ERROR_INIT;
  struct archive_progress done;
  struct archive_import_args args = {.folder = folder, .model_id = info->model_id, .source_id = info->id};
  int64_t begin = clock_ns();
  if (archive_import(lab->store, &args, &done, &error) != 0)
    log_warn("source %s/%s: the statistics in its folder are not loaded: %s", info->model_id, info->id, error.text);
  else
    log_info("source %s/%s: loaded %lld features, %lld examples and %lld explanations from its folder in %.1f s",
             info->model_id, info->id, (long long)done.features, (long long)done.examples, (long long)done.explanations,
             (double)(clock_ns() - begin) * 1e-9);
}

int archive_put_source(const struct lab *lab, struct lab_source *source, bool statistics, struct error *error) {
  char folder[4096];
  if (!lab->store) return 0;
  if (put_source(lab, source, error) != 0) return -1;
  bool fits = snprintf(folder, sizeof folder, "%s/statistics", source->path) < (int)sizeof folder;
  if (statistics && fits && path_is_directory(folder) && !has_statistics(lab, source->store_id))
    load_statistics(lab, &source->info, folder);
  return 0;
}

/* ---- opening ---- */

/* What has to be decided by whoever started it: nothing is begun anew in place of weeks of counting. */
static int refuse_damaged(const struct error *own, struct error *error) {
  return error_set(error, own->code, "%s (%s)", own->text, "--set-aside yes renames the file to PATH.corrupt-TIME and begins a new one; "
                   "`sqlite3 PATH .recover` may save rows of it");
}

int archive_open(struct lab *lab, const struct lab_options *options, struct error *error) {
  if (!options->store || !*options->store) return 0;
  struct store_options store = {.path = options->store, .holder = options->holder, .check = STORE_CHECK_QUICK,
                                .set_aside = options->set_aside};
  struct error own = ERROR_INIT;
  lab->store = store_open(&store, &own);
  if (!lab->store && own.code == ERROR_STORE) return refuse_damaged(&own, error);
  if (!lab->store) return error_set(error, own.code, "%s", own.text);
  for (size_t m = 0; m < lab->n_models; m++) {
    const struct lab_source_info *const *sources;
    size_t n = lab_sources(lab, &lab->infos[m], &sources);
    if (put_model(lab, &lab->infos[m], error) != 0) return -1;
    for (size_t s = 0; s < n; s++)
      if (archive_put_source(lab, lab_source_of(lab, sources[s]), options->load_statistics, error) != 0) return -1;
  }
  return 0;
}
