/* uploads.c: rows of what clients register and upload, each request in one transaction. Knows which rows may be added; whether
 * an upload may go to a source at all is decided outside (core/archive/upload.c). */
#include "core/store/store_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- models and sets -------------------------------------------------------------------------------- */

static int model_add(struct connection *writer, const struct store_model *model, struct arena *arena, struct error *error) {
  struct store_model old;
  char now[25];
  int got = model_by_id(writer, model->id, arena, &old, error);
  if (got != 0) return got < 0 ? -1 : 0;
  int64_t count = rows_count(writer, "SELECT count(*) FROM models", NULL, error);
  if (count >= STORE_MODELS_MAX)
    return error_set(error, ERROR_LIMIT, "the store knows %lld models, and no more than %d may be registered", (long long)count,
                     STORE_MODELS_MAX);
  if (count < 0 || model_row_write(writer, model, time_or_now(model->created_at, now), error) != 0) return -1;
  return 1;
}

int store_model_register(struct store *store, const struct store_model *model, struct error *error) {
  struct arena arena;
  if (!model->id || !*model->id) return error_set(error, ERROR_ARGUMENT, "a model needs an id");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = model_add(writer, model, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}

static int set_by_name(struct connection *connection, const char *model, const char *name, struct arena *arena,
                       struct store_set *out, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT model, name, description, url, owner, created_at, seal FROM source_sets"
           " WHERE model = ?1 AND name = ?2", arena, error);
  row_put_text(&row, model);
  row_put_text(&row, name);
  int got = row_next(&row);
  if (got == 1) {
    *out = (struct store_set){.model = row_text(&row), .name = row_text(&row)};
    out->description = row_text(&row);
    out->url = row_text(&row);
    out->owner = row_text(&row);
    out->created_at = row_text(&row);
    if (row_check_seal(&row, "a source set") != 0) got = -1;
  }
  row_close(&row);
  return got;
}

int store_set_find(struct store *store, const char *model, const char *name, struct arena *arena, struct store_set *out,
                   struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, set_by_name(reader, model, name, arena, out, error));
}

static int set_write(struct connection *writer, const struct store_set *set, const char *created, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT INTO source_sets(model, name, description, url, owner, created_at, seal)"
           " VALUES(?,?,?,?,?,?,?)", NULL, error);
  row_put_text(&row, set->model);
  row_put_text(&row, set->name);
  row_put_text(&row, set->description);
  row_put_text(&row, set->url);
  row_put_text(&row, set->owner);
  row_put_text(&row, created);
  row_put_seal(&row);
  return row_run(&row);
}

static int room_check(struct connection *writer, const char *model, int64_t more, struct error *error) {
  int64_t count = rows_count(writer, "SELECT count(*) FROM sources WHERE identity IS NULL", NULL, error);
  int64_t sets = rows_count(writer, "SELECT count(*) FROM source_sets WHERE model = ?1", model, error);
  if (count < 0 || sets < 0) return -1;
  if (sets >= STORE_SETS_MAX)
    return error_set(error, ERROR_LIMIT, "model '%.64s' has %lld registered source sets, and may have %d", model, (long long)sets,
                     STORE_SETS_MAX);
  if (count + more <= STORE_NAMED_SOURCES_MAX) return 0;
  return error_set(error, ERROR_LIMIT, "the store has %lld sources without a dictionary, and may have %d: the set would add %lld",
                   (long long)count, STORE_NAMED_SOURCES_MAX, (long long)more);
}

/* 1, or 0 when a source of that name is there. */
static int source_add(struct connection *writer, const struct store_set *set, int64_t layer, const char *created,
                      struct arena *arena, struct error *error) {
  struct store_source old;
  const char *name = arena_printf(arena, error, "%lld-%s", (long long)layer, set->name);
  if (!name) return -1;
  int got = source_by_name(writer, set->model, name, arena, &old, error);
  if (got != 0) return got < 0 ? -1 : 0;
  int64_t number = source_number(writer, error);
  struct store_source source = {.model = set->model, .name = name, .set = set->name, .layer = layer};
  if (number < 0 || source_write(writer, &source, number, created, error) != 0) return -1;
  return 1;
}

static int set_add(struct connection *writer, const struct store_set *set, int64_t layers, struct arena *arena,
                   struct error *error) {
  struct store_set old;
  char now[25];
  const char *created = time_or_now(set->created_at, now);
  int got = set_by_name(writer, set->model, set->name, arena, &old, error);
  if (got != 0) return got < 0 ? -1 : 0;
  if (room_check(writer, set->model, layers, error) != 0 || set_write(writer, set, created, error) != 0) return -1;
  for (int64_t layer = 0; layer < layers; layer++)
    if ((got = source_add(writer, set, layer, created, arena, error)) != 1) return got;
  return 1;
}

int store_set_register(struct store *store, const struct store_set *set, int64_t layers, struct error *error) {
  struct arena arena;
  if (!set->model || !*set->model || !set->name || !*set->name)
    return error_set(error, ERROR_ARGUMENT, "a source set needs a model and a name");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = set_add(writer, set, layers, &arena, error);
  arena_clear(&arena);
  if (result != 0) return store_writer_end(store, writer, result, error);
  return store_writer_end(store, writer, -1, NULL) < 0 ? 0 : -1; /* what was written before the one that is there goes too */
}

/* ---- features --------------------------------------------------------------------------------------- */

/* The source as it is now, when it still is what the upload was judged by. */
static int upload_source(struct connection *writer, const struct store_upload *upload, struct arena *arena,
                         struct store_source *out, struct error *error) {
  int got = source_by_number(writer, upload->source, arena, out, error);
  if (got < 0) return -1;
  if (got == 0)
    return error_set(error, ERROR_NOT_FOUND, "the store knows no source with the number %lld", (long long)upload->source);
  bool same = upload->identity && out->identity ? strcmp(upload->identity, out->identity) == 0 : upload->identity == out->identity;
  if (same) return 0;
  return error_set(error, ERROR_CONFLICT, "another dictionary was loaded as '%.64s' meanwhile", out->name);
}

static int index_check(const struct store_source *source, uint32_t index, struct error *error) {
  int64_t limit = source->identity ? source->n_features : STORE_UPLOAD_FEATURES;
  if (index < limit) return 0;
  return error_set(error, ERROR_ARGUMENT, "feature %u is beyond those of source '%.64s', which go from 0 to %lld", index,
                   source->name, (long long)limit - 1);
}

/* A named source holds the features up to `largest`, and its activations are told as SAEDashboard makes them. What a dictionary
 * says of its own stays. */
static int source_grow(struct connection *writer, struct store_source *source, uint32_t largest, struct error *error) {
  char now[25];
  bool grown = largest >= source->n_features, first = !source->statistics.made_at;
  if (source->identity || (!grown && !first)) return 0;
  if (grown) source->n_features = (int64_t)largest + 1;
  if (first) {
    source->statistics.folded = true;
    source->statistics.made_at = time_or_now(NULL, now);
  }
  return source_write(writer, source, source->id, source->created_at, error);
}

static int explanations_add(struct connection *writer, int64_t source, const struct store_feature *feature, struct error *error) {
  for (size_t i = 0; i < feature->n_explanations; i++) {
    struct store_explanation row = feature->explanations[i];
    row.source = source;
    row.index = feature->index;
    if (explanation_insert(writer, &row, NULL, error) != 0) return -1;
  }
  return 0;
}

/* 1 when it was added, 0 when it was there, -1. */
static int feature_add(struct connection *writer, const struct store_source *source, const struct store_feature *feature,
                       struct error *error) {
  struct store_feature old;
  struct arena arena;
  if (index_check(source, feature->index, error) != 0) return -1;
  arena_init(&arena, 0);
  int got = feature_read(writer, source->id, feature->index, 1, &arena, &old, error);
  bool there = got > 0 && (old.groups & (STORE_STATISTICS | STORE_EXAMPLES));
  arena_clear(&arena);
  if (got < 0 || there) return got < 0 ? -1 : 0;
  if (feature_put(writer, source->id, feature, error) != 0 || explanations_add(writer, source->id, feature, error) != 0)
    return -1;
  return 1;
}

static int features_add(struct connection *writer, const struct store_upload *upload, const struct store_feature *features,
                        size_t n, bool *added, struct arena *arena, struct error *error) {
  struct store_source source;
  uint32_t largest = 0;
  bool any = false;
  if (upload_source(writer, upload, arena, &source, error) != 0) return -1;
  for (size_t i = 0; i < n; i++) {
    int got = feature_add(writer, &source, &features[i], error);
    if (got < 0) return -1;
    added[i] = got;
    if (got && features[i].index > largest) largest = features[i].index;
    any |= got;
  }
  return any ? source_grow(writer, &source, largest, error) : 0;
}

int store_upload_features(struct store *store, const struct store_upload *upload, const struct store_feature *features, size_t n,
                          bool *added, struct error *error) {
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = features_add(writer, upload, features, n, added, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}

/* ---- examples --------------------------------------------------------------------------------------- */

static bool same_tokens(const struct store_example *a, const struct store_example *b) {
  for (size_t i = 0; i < a->n; i++)
    if (a->tokens[i].length != b->tokens[i].length || memcmp(a->tokens[i].text, b->tokens[i].text, a->tokens[i].length) != 0)
      return false;
  return true;
}

static bool is_among(const struct store_example *rows, size_t n, const struct store_example *row) {
  for (size_t i = 0; i < n; i++)
    if (rows[i].n == row->n && memcmp(rows[i].values, row->values, row->n * sizeof *row->values) == 0 && same_tokens(&rows[i], row))
      return true;
  return false;
}

/* Those of `examples` that are not among the feature's, nor twice. */
static struct store_example *examples_new(const struct store_feature *old, const struct store_example *examples, size_t n,
                                          size_t *n_new, struct arena *arena, struct error *error) {
  struct store_example *new = arena_array(arena, n, sizeof *new, error);
  *n_new = 0;
  for (size_t i = 0; new && i < n; i++)
    if (!is_among(old->examples, old->n_examples, &examples[i]) && !is_among(new, *n_new, &examples[i]))
      new[(*n_new)++] = examples[i];
  return new;
}

/* The statistics with the largest activation of both; those that were counted over a text stay. */
static int maximum_raise(struct connection *writer, int64_t source, struct store_feature *old, const struct store_example *new,
                         size_t n, struct error *error) {
  bool counted = old->groups & STORE_STATISTICS;
  if (counted && old->n_fired >= 0) return 0;
  float max = counted ? old->max : NAN;
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k < new[i].n; k++)
      if (!(max >= new[i].values[k])) max = new[i].values[k];
  if (!counted) old->n_fired = -1, old->rate = old->mean = NAN;
  if (counted && max == old->max) return 0;
  old->max = max;
  old->groups = STORE_STATISTICS;
  return feature_put(writer, source, old, error);
}

static int upload_examples(struct connection *writer, const struct store_upload *upload, uint32_t index,
                           const struct store_example *examples, size_t n, size_t *added, struct arena *arena,
                           struct error *error) {
  struct store_source source;
  struct store_feature old;
  if (upload_source(writer, upload, arena, &source, error) != 0 || index_check(&source, index, error) != 0 ||
      feature_read(writer, source.id, index, STORE_SLOT_MAX, arena, &old, error) < 0)
    return -1;
  struct store_example *new = examples_new(&old, examples, n, added, arena, error);
  if (!new) return -1;
  if (*added == 0) return 0;
  if (examples_add(writer, feature_key(source.id, index), new, *added, error) != 0 ||
      maximum_raise(writer, source.id, &old, new, *added, error) != 0)
    return -1;
  return source_grow(writer, &source, index, error);
}

int store_upload_examples(struct store *store, const struct store_upload *upload, uint32_t index,
                          const struct store_example *examples, size_t n, size_t *added, struct error *error) {
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = upload_examples(writer, upload, index, examples, n, added, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}
