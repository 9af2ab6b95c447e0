/* lab_archive.c: the store behind the lab: opened with it, told what is loaded. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/archive.h"
#include "core/base/log.h"
#include "core/lab_int.h"

struct store *lab_store(const struct lab *lab) { return lab->store; }

int64_t lab_store_source(const struct lab *lab, const struct lab_source_info *source) {
  return lab->store ? lab_source_of(lab, source)->store_id : 0;
}

int lab_needs_store(struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED, "this needs a store: start the daemon with --store FILE");
}

/* Shape and kind; a file that was replaced by another of the same shape is not told apart. */
static void identify(const struct lab_source_info *source, char out[160]) {
  snprintf(out, 160, "%s %s %lld x %lld%s", source->kind, source->point, (long long)source->d_in,
           (long long)source->n_feat, source->folded ? " folded" : "");
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

/* A known source keeps its number and its statistics, unless another dictionary now bears its name. */
static int put_source(struct lab *lab, const struct lab_source_info *info, struct error *error) {
  struct arena arena;
  struct store_source known;
  char identity[160];
  struct lab_source *source = lab_source_of(lab, info);
  identify(info, identity);
  arena_init(&arena, 0);
  int found = store_source_find(lab->store, info->model_id, info->id, &arena, &known, error), failed = 0;
  bool same = found > 0 && known.identity && strcmp(known.identity, identity) == 0;
  if (found > 0) source->store_id = known.id;
  if (found > 0 && !same && known.identity) {
    log_warn("source %s/%s: another dictionary than the store knows (%s); its statistics are dropped", info->model_id,
             info->id, known.identity);
    failed = store_source_clear(lab->store, known.id, error);
  }
  struct store_source row = {.model = info->model_id, .name = info->id, .set = info->set, .layer = info->layer,
                             .point = info->point, .kind = info->kind, .n_features = info->n_feat,
                             .identity = identity};
  if (found < 0) failed = -1;
  if (!failed && !same) failed = store_source_put(lab->store, &row, &source->store_id, error);
  arena_clear(&arena);
  return failed;
}

int archive_open(struct lab *lab, const char *path, const char *holder, struct error *error) {
  if (!path || !*path) return 0;
  struct store_options options = {.path = path, .holder = holder, .check = STORE_CHECK_QUICK};
  lab->store = store_open(&options, error);
  if (!lab->store) return -1;
  for (size_t m = 0; m < lab->n_models; m++) {
    if (put_model(lab, &lab->infos[m], error) != 0) return -1;
    for (size_t s = 0; s < lab->infos[m].n_sources; s++)
      if (put_source(lab, &lab->infos[m].sources[s], error) != 0) return -1;
  }
  return 0;
}
