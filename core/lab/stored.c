/* stored.c: models and sources that the store knows and nobody has loaded, described as loaded ones are, so that whoever reads
 * stored rows need not ask which it is. Computes nothing with them: the verbs that would refuse them here, in words. */
#include <string.h>

#include "core/archive.h"
#include "core/lab/sources.h"
#include "core/model/model_names.h"

/* ---- descriptions ---- */

static void describe_model(const struct store_model *row, struct lab_model_info *out) {
  *out = (struct lab_model_info){.id = row->id, .website = row->website, .stored = true, .n_layer = (int)row->layers,
                                 .d_model = row->dimension, .d_mlp = row->neurons_per_layer};
  out->display_name = row->display_name ? row->display_name : row->id;
}

static int describe_source(const struct store_source *row, struct arena *arena, struct lab_source_info *out, struct error *error) {
  size_t length;
  const char *set = source_set_part(row->name, &length);
  *out = (struct lab_source_info){.id = row->name, .set = row->set, .model_id = row->model, .kind = row->kind,
                                  .point = row->point, .point_out = row->point, .layer = (int)row->layer,
                                  .n_feat = row->n_features, .folded = true, .bos_counts = row->statistics.bos_counted,
                                  .promotes = true, .stored = row->id, .counted = row->statistics.n_tokens > 0};
  if (row->statistics.made_at) out->folded = row->statistics.folded;
  if (!out->set) out->set = arena_text(arena, set, length, error);
  return out->set ? 0 : -1;
}

/* ---- one ---- */

/* By its id, else by the id that its alias stands for. */
static int find_model(const struct lab *lab, const char *id, struct arena *arena, struct store_model *out, struct error *error) {
  if (!lab->store || lab_model_named(lab, id)) return 0;
  int found = store_model_find(lab->store, id, arena, out, error);
  const char *named = model_names_id(lab->names, id);
  if (found == 0 && strcmp(named, id) != 0) found = store_model_find(lab->store, named, arena, out, error);
  return found;
}

int lab_stored_model(const struct lab *lab, const char *id, struct arena *arena, struct lab_model_info *out, struct error *error) {
  struct store_model row;
  int found = find_model(lab, id, arena, &row, error);
  if (found == 1) describe_model(&row, out);
  return found;
}

int lab_stored_source(const struct lab *lab, const struct lab_model_info *model, const char *id, struct arena *arena,
                      struct lab_source_info *out, struct error *error) {
  struct store_source row;
  int found = lab->store ? store_source_find(lab->store, model->id, id, arena, &row, error) : 0;
  if (found == 1 && row.identity) return 0;
  if (found == 1 && describe_source(&row, arena, out, error) != 0) return -1;
  return found;
}

/* ---- lists ---- */

/* Of a loaded model a bare layer is never known from the store alone: it is there as soon as somebody names it. */
static bool is_neurons(const struct lab *lab, const struct store_source *row) {
  const struct lab_model *opened = neurons_named(row->name) ? lab_model_named(lab, row->model) : NULL;
  return opened && arch_has(&opened->model->arch, HAS_MLP);
}

int lab_stored_sources(const struct lab *lab, const struct lab_model_info *model, struct arena *arena, struct lab_source_info **out,
                       size_t *n, struct error *error) {
  struct store_source *rows = NULL;
  size_t count = 0;
  *out = NULL;
  *n = 0;
  if (!lab->store) return 0;
  if (store_source_list_named(lab->store, model ? model->id : NULL, arena, &rows, &count, error) != 0 ||
      !(*out = arena_array(arena, count, sizeof **out, error)))
    return -1;
  for (size_t i = 0; i < count; i++) {
    if (is_neurons(lab, &rows[i])) continue;
    if (describe_source(&rows[i], arena, &(*out)[(*n)++], error) != 0) return -1;
  }
  return 0;
}

static bool has_source(const struct lab_source_info *sources, size_t n, const char *model) {
  for (size_t i = 0; i < n; i++)
    if (strcmp(sources[i].model_id, model) == 0) return true;
  return false;
}

int lab_stored_models(const struct lab *lab, struct arena *arena, struct lab_model_info **out, size_t *n, struct error *error) {
  struct store_model *rows;
  struct lab_source_info *sources;
  size_t count, n_sources;
  *out = NULL;
  *n = 0;
  if (!lab->store) return 0;
  if (lab_stored_sources(lab, NULL, arena, &sources, &n_sources, error) != 0 ||
      store_model_list(lab->store, arena, &rows, &count, error) != 0 || !(*out = arena_array(arena, count, sizeof **out, error)))
    return -1;
  for (size_t i = 0; i < count; i++) {
    bool never_loaded = rows[i].dimension == 0;
    if (!lab_model_named(lab, rows[i].id) && (never_loaded || has_source(sources, n_sources, rows[i].id)))
      describe_model(&rows[i], &(*out)[(*n)++]);
  }
  return 0;
}

/* ---- refusals ---- */

bool stored_refuse_model(const struct lab *lab, const char *id, struct error *error) {
  struct arena arena;
  struct store_model row;
  arena_init(&arena, 0);
  bool stored = find_model(lab, id, &arena, &row, NULL) == 1;
  if (stored)
    error_set_field(error, ERROR_NOT_FOUND, "modelId",
                    "model '%.64s' is known from the store alone: what is stored of it can be read, and nothing computed; "
                    "start the daemon with --model %.64s=PATH for that", id, id);
  arena_clear(&arena);
  return stored;
}

bool stored_refuse_source(const struct lab *lab, const char *model, const char *id, const char *field, struct error *error) {
  struct arena arena;
  struct store_source row;
  arena_init(&arena, 0);
  bool stored = lab->store && store_source_find(lab->store, model, id, &arena, &row, NULL) == 1 && !row.identity;
  if (stored)
    error_set_field(error, ERROR_NOT_FOUND, field,
                    "source '%.64s' of model '%.64s' is known from the store alone: what is stored of it can be read, and nothing "
                    "computed; load its dictionary for that (POST /v1/sources, or --source)", id, model);
  arena_clear(&arena);
  return stored;
}
