/* lists.c: rows of lists and of the features in them. */
#include "core/store/store_int.h"

#define LIST_COLUMNS "id, name, description, test_text, owner, created_at, updated_at, seal"
#define ENTRY_COLUMNS "list, place, model, source, number, description, created_at, seal"

/* ---- reading ---------------------------------------------------------------------------------------- */

static int list_take(struct row *row, struct store_list *out) {
  *out = (struct store_list){0};
  out->id = row_int(row);
  out->name = row_text(row);
  out->description = row_text(row);
  out->test_text = row_text(row);
  out->owner = row_text(row);
  out->created_at = row_text(row);
  out->updated_at = row_text(row);
  return row_check_seal(row, "a list");
}

static int list_by_id(struct connection *connection, int64_t id, struct arena *arena, struct store_list *out, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " LIST_COLUMNS " FROM lists WHERE id = ?1", arena, error);
  row_put_int(&row, id);
  int got = row_next(&row);
  if (got == 1 && list_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

/* How many features a list has, and the place behind the last. */
static int entries_count(struct connection *connection, int64_t id, int64_t *count, int64_t *next, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT count(*), coalesce(max(place) + 1, 0) FROM list_features WHERE list = ?1", NULL, error);
  row_put_int(&row, id);
  if (row_next(&row) == 1) {
    *count = row_int(&row);
    *next = row_int(&row);
  }
  row_close(&row);
  return row.failed ? -1 : 0;
}

/* The entry's place in its list, which *list is (NULL: known already); -1. */
static int64_t entry_take(struct row *row, struct store_list_feature *out, int64_t *list) {
  int64_t number = row_int(row), place = row_int(row);
  if (list) *list = number;
  out->model = row_text(row);
  out->source = row_text(row);
  out->index = (uint32_t)row_int(row);
  out->description = row_text(row);
  out->created_at = row_text(row);
  return row_check_seal(row, "a feature of a list") != 0 ? -1 : place;
}

static int entries_read(struct connection *reader, int64_t id, struct arena *arena, struct store_list_feature **out, size_t *n,
                        struct error *error) {
  struct row row;
  int64_t count = 0, next;
  *n = 0;
  if (entries_count(reader, id, &count, &next, error) != 0 ||
      !(*out = arena_array(arena, (size_t)count, sizeof **out, error)))
    return -1;
  row_open(&row, reader, "SELECT " ENTRY_COLUMNS " FROM list_features WHERE list = ?1 ORDER BY place", arena, error);
  row_put_int(&row, id);
  while (row_next(&row) == 1 && entry_take(&row, *out + *n, NULL) >= 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

static int list_read(struct connection *reader, int64_t id, struct arena *arena, struct store_list *out,
                     struct store_list_feature **features, size_t *n, struct error *error) {
  int64_t next;
  int got = list_by_id(reader, id, arena, out, error);
  if (got != 1) return got;
  if (entries_count(reader, id, &out->n_features, &next, error) != 0) return -1;
  return !features || entries_read(reader, id, arena, features, n, error) == 0 ? 1 : -1;
}

int store_list_find(struct store *store, int64_t id, struct arena *arena, struct store_list *out,
                    struct store_list_feature **features, size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, list_read(reader, id, arena, out, features, n, error));
}

static int lists_read(struct connection *reader, struct arena *arena, struct store_list **out, size_t *n, struct error *error) {
  struct row row;
  int64_t next;
  int64_t count = rows_count(reader, "SELECT count(*) FROM lists", NULL, error);
  *n = 0;
  if (count < 0 || !(*out = arena_array(arena, (size_t)count, sizeof **out, error))) return -1;
  row_open(&row, reader, "SELECT " LIST_COLUMNS " FROM lists ORDER BY id", arena, error);
  while (row_next(&row) == 1 && list_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  if (row_check(&row) != 0) return -1;
  for (size_t i = 0; i < *n; i++)
    if (entries_count(reader, (*out)[i].id, &(*out)[i].n_features, &next, error) != 0) return -1;
  return 0;
}

int store_list_all(struct store *store, struct arena *arena, struct store_list **out, size_t *n, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, lists_read(reader, arena, out, n, error));
}

static int places_read(struct connection *reader, const struct store_list_feature *feature, size_t most, struct arena *arena,
                       struct store_list_place *out, size_t *n, struct error *error) {
  struct row row;
  row_open(&row, reader, "SELECT " ENTRY_COLUMNS " FROM list_features WHERE model = ?1 AND source = ?2 AND number = ?3 ORDER BY list"
           " LIMIT ?4", arena, error);
  row_put_text(&row, feature->model);
  row_put_text(&row, feature->source);
  row_put_int(&row, feature->index);
  row_put_int(&row, (int64_t)most);
  for (*n = 0; *n < most && row_next(&row) == 1; ++*n) {
    struct store_list_feature entry = {0};
    int64_t list;
    if (entry_take(&row, &entry, &list) < 0) break;
    out[*n] = (struct store_list_place){.list.id = list, .description = entry.description, .created_at = entry.created_at};
  }
  row_close(&row);
  return row_check(&row);
}

static int lists_of(struct connection *reader, const struct store_list_feature *feature, size_t most, struct arena *arena,
                    struct store_list_place *out, size_t *n, struct error *error) {
  if (places_read(reader, feature, most, arena, out, n, error) != 0) return -1;
  for (size_t i = 0; i < *n; i++)
    if (list_by_id(reader, out[i].list.id, arena, &out[i].list, error) < 0) return -1;
  return 0;
}

int store_lists_of(struct store *store, const char *model, const char *source, uint32_t index, size_t most, struct arena *arena,
                   struct store_list_place **out, size_t *n, struct error *error) {
  const struct store_list_feature feature = {.model = model, .source = source, .index = index};
  *n = 0;
  if (!(*out = arena_array(arena, most, sizeof **out, error))) return -1;
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, lists_of(reader, &feature, most, arena, *out, n, error));
}

/* ---- writing ---------------------------------------------------------------------------------------- */

/* id 0: a new one. */
static int list_write(struct connection *writer, const struct store_list *list, int64_t id, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO lists(" LIST_COLUMNS ") VALUES(?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_text(&row, list->name);
  row_put_text(&row, list->description);
  row_put_text(&row, list->test_text);
  row_put_text(&row, list->owner);
  row_put_text(&row, list->created_at);
  row_put_text(&row, list->updated_at);
  row_put_seal(&row);
  return row_run(&row);
}

/* Notes that what is in the list has changed. */
static int list_touch(struct connection *writer, struct store_list *list, struct error *error) {
  char now[25];
  list->updated_at = time_or_now(NULL, now);
  return list_write(writer, list, list->id, error);
}

static int entry_write(struct connection *writer, int64_t id, int64_t place, const struct store_list_feature *feature,
                       const char *created, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO list_features(" ENTRY_COLUMNS ") VALUES(?,?,?,?,?,?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_int(&row, place);
  row_put_text(&row, feature->model);
  row_put_text(&row, feature->source);
  row_put_int(&row, feature->index);
  row_put_text(&row, feature->description);
  row_put_text(&row, created);
  row_put_seal(&row);
  return row_run(&row);
}

/* Where a feature stands in the list: 1, 0 when it does not, -1. */
static int entry_find(struct connection *connection, int64_t id, const struct store_list_feature *feature, struct arena *arena,
                      struct store_list_feature *out, int64_t *place, struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " ENTRY_COLUMNS " FROM list_features WHERE list = ?1 AND model = ?2 AND source = ?3"
           " AND number = ?4", arena, error);
  row_put_int(&row, id);
  row_put_text(&row, feature->model);
  row_put_text(&row, feature->source);
  row_put_int(&row, feature->index);
  int got = row_next(&row);
  if (got == 1 && (*place = entry_take(&row, out, NULL)) < 0) got = -1;
  row_close(&row);
  return got;
}

static int entries_add(struct connection *writer, int64_t id, const struct store_list_feature *features, size_t n,
                       const char *now, struct arena *arena, struct error *error) {
  struct store_list_feature old;
  int64_t count = 0, next = 0, place;
  if (entries_count(writer, id, &count, &next, error) != 0) return -1;
  for (size_t i = 0; i < n; i++) {
    int got = entry_find(writer, id, &features[i], arena, &old, &place, error);
    if (got == 1) continue;
    if (got == 0 && count++ >= STORE_LIST_FEATURES)
      return error_set(error, ERROR_LIMIT, "a list may have %d features", STORE_LIST_FEATURES);
    if (got < 0 || entry_write(writer, id, next++, &features[i], now, error) != 0) return -1;
  }
  return 0;
}

static int list_add(struct connection *writer, const struct store_list *given, const struct store_list_feature *features,
                    size_t n, int64_t *id, struct arena *arena, struct error *error) {
  struct store_list list = *given;
  char now[25];
  int64_t count = rows_count(writer, "SELECT count(*) FROM lists", NULL, error);
  if (count >= STORE_LISTS_MAX)
    return error_set(error, ERROR_LIMIT, "there are %lld lists, and there may be %d: delete one first", (long long)count,
                     STORE_LISTS_MAX);
  *id = rows_count(writer, "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'lists'", NULL, error);
  if (count < 0 || *id < 0) return -1;
  list.created_at = list.updated_at = time_or_now(NULL, now);
  if (list_write(writer, &list, *id, error) != 0) return -1;
  return entries_add(writer, *id, features, n, list.created_at, arena, error);
}

int store_list_new(struct store *store, const struct store_list *list, const struct store_list_feature *features, size_t n,
                   int64_t *id, struct error *error) {
  struct arena arena;
  if (!list->name || !*list->name) return error_set(error, ERROR_ARGUMENT, "a list needs a name");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = list_add(writer, list, features, n, id, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}

/* What changes a list that is there. The arena is the change's own. */
struct change {
  int64_t id;
  const struct store_list *list;                 /* update */
  const struct store_list_feature *features;     /* the others */
  size_t n;
};
typedef int (*list_change)(struct connection *writer, const struct change *change, struct store_list *list, struct arena *arena,
                           struct error *error);

static int list_run(struct store *store, const struct change *change, list_change work, struct error *error) {
  struct arena arena;
  struct store_list list;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = list_by_id(writer, change->id, &arena, &list, error);
  if (result == 1) result = work(writer, change, &list, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}

static int change_add(struct connection *writer, const struct change *change, struct store_list *list, struct arena *arena,
                      struct error *error) {
  char now[25];
  if (entries_add(writer, list->id, change->features, change->n, time_or_now(NULL, now), arena, error) != 0) return -1;
  return list_touch(writer, list, error) == 0 ? 1 : -1;
}

int store_list_add(struct store *store, int64_t id, const struct store_list_feature *features, size_t n, struct error *error) {
  return list_run(store, &(struct change){.id = id, .features = features, .n = n}, change_add, error);
}

static int change_update(struct connection *writer, const struct change *change, struct store_list *list, struct arena *arena,
                         struct error *error) {
  (void)arena;
  list->name = change->list->name;
  list->description = change->list->description;
  list->test_text = change->list->test_text;
  return list_touch(writer, list, error) == 0 ? 1 : -1;
}

int store_list_update(struct store *store, const struct store_list *list, struct error *error) {
  if (!list->name || !*list->name) return error_set(error, ERROR_ARGUMENT, "a list needs a name");
  return list_run(store, &(struct change){.id = list->id, .list = list}, change_update, error);
}

static int change_describe(struct connection *writer, const struct change *change, struct store_list *list, struct arena *arena,
                           struct error *error) {
  struct store_list_feature old;
  int64_t place;
  int got = entry_find(writer, list->id, change->features, arena, &old, &place, error);
  if (got != 1) return got;
  const char *created = old.created_at;
  old.description = change->features->description;
  if (entry_write(writer, list->id, place, &old, created, error) != 0 || list_touch(writer, list, error) != 0) return -1;
  return 1;
}

int store_list_describe(struct store *store, int64_t id, const struct store_list_feature *feature, struct error *error) {
  return list_run(store, &(struct change){.id = id, .features = feature, .n = 1}, change_describe, error);
}

static int change_remove(struct connection *writer, const struct change *change, struct store_list *list, struct arena *arena,
                         struct error *error) {
  struct row row;
  struct store_list_feature old;
  int64_t place;
  int got = entry_find(writer, list->id, change->features, arena, &old, &place, error);
  if (got != 1) return got;
  row_open(&row, writer, "DELETE FROM list_features WHERE list = ?1 AND place = ?2", NULL, error);
  row_put_int(&row, list->id);
  row_put_int(&row, place);
  if (row_run(&row) != 0 || list_touch(writer, list, error) != 0) return -1;
  return 1;
}

int store_list_remove(struct store *store, int64_t id, const struct store_list_feature *feature, struct error *error) {
  return list_run(store, &(struct change){.id = id, .features = feature, .n = 1}, change_remove, error);
}

static int change_delete(struct connection *writer, const struct change *change, struct store_list *list, struct arena *arena,
                         struct error *error) {
  struct row row;
  (void)change;
  (void)arena;
  row_open(&row, writer, "DELETE FROM list_features WHERE list = ?1", NULL, error);
  row_put_int(&row, list->id);
  if (row_run(&row) != 0) return -1;
  row_open(&row, writer, "DELETE FROM lists WHERE id = ?1", NULL, error);
  row_put_int(&row, list->id);
  return row_run(&row) == 0 ? 1 : -1;
}

int store_list_delete(struct store *store, int64_t id, struct error *error) {
  return list_run(store, &(struct change){.id = id}, change_delete, error);
}
