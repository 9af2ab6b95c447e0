/* forget.c: which of the store's models, sets and sources may be taken away, and that nobody loads one meanwhile. Knows no table. */
#include <string.h>

#include "core/archive.h"
#include "core/lab/sources.h"

/* ---- one at a time, and no load of the model beside it ---- */

static int begin(struct lab *lab, const char *model, struct error *error) {
  struct lab_sources *s = lab->sources;
  if (!lab->store) return lab_needs_store(error);
  pthread_mutex_lock(&s->mutex);
  bool free = !s->forgetting;
  if (free) s->forgetting = model;
  pthread_mutex_unlock(&s->mutex);
  return free ? 0 : error_set(error, ERROR_BUSY, "something else is being deleted from the store; try again in a moment");
}

static void end(struct lab *lab) {
  pthread_mutex_lock(&lab->sources->mutex);
  lab->sources->forgetting = NULL;
  pthread_mutex_unlock(&lab->sources->mutex);
}

/* ---- which sources ---- */

static bool in_set(const char *id, const char *set) {
  size_t length;
  const char *part = source_set_part(id, &length);
  return strlen(set) == length && memcmp(part, set, length) == 0;
}

/* A source that is loaded, or comes or goes, writes to its rows: one of the set, or the one called `source`. */
static int check_free(struct lab *lab, const char *model, const char *set, const char *source, struct arena *arena, struct error *error) {
  struct lab_source_status *rows;
  size_t n;
  if (lab_source_list(lab, arena, &rows, &n, error) != 0) return -1;
  for (size_t i = 0; i < n; i++)
    if (strcmp(rows[i].model_id, model) == 0 && (source ? strcmp(rows[i].source_id, source) == 0 : in_set(rows[i].source_id, set)))
      return error_set_field(error, ERROR_CONFLICT, "name", "source '%.64s' of model '%.64s' is %s: DELETE /v1/sources/%.64s/%.64s unloads it",
                             rows[i].source_id, model, rows[i].state == LAB_SOURCE_READY ? "loaded" : lab_source_word(rows[i].state), model,
                             rows[i].source_id);
  return 0;
}

/* The numbers of a model's sources, of a set or (NULL) of all. Of a set that nobody registered those that had a dictionary stay: what
 * jobs have counted of it is no upload. */
static int collect(const struct lab *lab, const char *model, const char *set, bool registered, struct arena *arena, int64_t **out, size_t *n,
                   struct error *error) {
  struct store_source *rows;
  size_t count;
  *n = 0;
  if (store_source_list(lab->store, model, arena, &rows, &count, error) != 0 || !(*out = arena_array(arena, count, sizeof **out, error)))
    return -1;
  for (size_t i = 0; i < count; i++)
    if (!set || (in_set(rows[i].name, set) && (registered || !rows[i].identity))) (*out)[(*n)++] = rows[i].id;
  return 0;
}

/* ---- verbs ---- */

static int forget_model(struct lab *lab, const char *model, struct arena *arena, struct error *error) {
  struct store_forget what = {.model = model, .whole_model = true};
  int64_t *sources;
  if (collect(lab, model, NULL, false, arena, &sources, &what.n, error) != 0) return -1;
  what.sources = sources;
  return store_forget(lab->store, &what, error);
}

int lab_forget_model(struct lab *lab, const struct lab_model_info *model, struct error *error) {
  struct arena arena;
  if (!model->stored)
    return error_set_field(error, ERROR_CONFLICT, "id", "model '%.64s' is loaded, and stays with all that is stored of it: only models without "
                           "weights are deleted", model->id);
  if (begin(lab, model->id, error) != 0) return -1;
  arena_init(&arena, 0);
  int result = forget_model(lab, model->id, &arena, error);
  arena_clear(&arena);
  end(lab);
  return result;
}

static int forget_set(struct lab *lab, const char *model, const char *set, struct arena *arena, struct error *error) {
  struct store_forget what = {.model = model, .set = set};
  struct store_set row;
  int64_t *sources;
  int registered = store_set_find(lab->store, model, set, arena, &row, error);
  if (registered < 0 || check_free(lab, model, set, NULL, arena, error) != 0 ||
      collect(lab, model, set, registered == 1, arena, &sources, &what.n, error) != 0)
    return -1;
  if (!registered && !what.n)
    return error_set_field(error, ERROR_NOT_FOUND, "name", "model '%.64s' has no source set '%.64s' that was registered, uploaded or imported", model, set);
  what.sources = sources;
  return store_forget(lab->store, &what, error);
}

int lab_forget_set(struct lab *lab, const struct lab_model_info *model, const char *set, struct error *error) {
  struct arena arena;
  if (begin(lab, model->id, error) != 0) return -1;
  arena_init(&arena, 0);
  int result = forget_set(lab, model->id, set, &arena, error);
  arena_clear(&arena);
  end(lab);
  return result;
}

int lab_forget_source(struct lab *lab, const struct lab_source_info *source, struct error *error) {
  struct arena arena;
  struct store_source row;
  struct store_forget what = {.model = source->model_id, .sources = &source->stored, .n = 1};
  if (begin(lab, source->model_id, error) != 0) return -1;
  arena_init(&arena, 0);
  int found = check_free(lab, source->model_id, NULL, source->id, &arena, error);
  if (found == 0) found = store_source_at(lab->store, source->stored, &arena, &row, error);
  int result = found < 0 ? -1 : found && !row.identity && strcmp(row.name, source->id) == 0
                   ? store_forget(lab->store, &what, error)
                   : error_set_field(error, ERROR_CONFLICT, "source", "source '%.64s' was loaded or deleted meanwhile", source->id);
  arena_clear(&arena);
  end(lab);
  return result;
}
