/* The table of names. Owns its texts; knows nothing of folders and caches. */
#include "core/model/model_names.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/arena.h"
#include "core/base/ini.h"
#include "core/base/nearest.h"

struct row {
  const char *name, *id;
  const char *repositories; /* of the row whose name is the id; NULL in others */
  int line;
};

struct model_names {
  struct row *rows; /* by name, case ignored */
  const char **by_name; /* the same names, for nearest_name */
  size_t count, capacity;
  struct arena arena;
};

static int compare_rows(const void *a, const void *b) {
  const struct row *x = a, *y = b;
  int order = strcasecmp(x->name, y->name);
  return order ? order : x->line - y->line;
}

static const struct row *find(const struct model_names *names, const char *name) {
  size_t low = 0, high = names->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcasecmp(name, names->rows[middle].name);
    if (order == 0) return &names->rows[middle];
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

static int add(struct model_names *names, const char *name, size_t length, const char *id, const char *repositories,
               int line, struct error *error) {
  if (names->count == names->capacity) {
    size_t capacity = names->capacity ? names->capacity * 2 : 256, bytes = capacity * sizeof *names->rows;
    struct row *rows = realloc(names->rows, bytes);
    if (!rows) return error_memory(error, bytes);
    names->rows = rows;
    names->capacity = capacity;
  }
  const char *copy = arena_text(&names->arena, name, length, error);
  if (!copy) return -1;
  names->rows[names->count++] = (struct row){copy, id ? id : copy, repositories, line};
  return 0;
}

/* ID = REPOSITORY ...: the id, and each repository as a name of it. */
static int add_model(struct model_names *names, const struct ini_entry *entry, struct error *error) {
  const char *list = arena_text(&names->arena, entry->value, strlen(entry->value), error);
  if (!list || add(names, entry->key, strlen(entry->key), NULL, list, entry->line, error) != 0) return -1;
  const char *id = names->rows[names->count - 1].name;
  for (const char *at = list + strspn(list, " "); *at; at += strspn(at, " ")) {
    size_t length = strcspn(at, " ");
    bool same = length == strlen(id) && strncasecmp(at, id, length) == 0;
    if (!same && add(names, at, length, id, NULL, entry->line, error) != 0) return -1;
    at += length;
  }
  return 0;
}

static int add_entry(struct model_names *names, const struct ini *ini, const struct ini_entry *entry,
                     struct error *error) {
  if (strcmp(entry->section, "models") == 0) return add_model(names, entry, error);
  if (strcmp(entry->section, "aliases") != 0)
    return error_set(error, ERROR_FORMAT, "'%s':%d: section [%s] is unknown; expected [models] or [aliases]",
                     ini_path(ini), entry->line, entry->section);
  const char *id = arena_text(&names->arena, entry->value, strlen(entry->value), error);
  return id ? add(names, entry->key, strlen(entry->key), id, NULL, entry->line, error) : -1;
}

static int sort(struct model_names *names, const struct ini *ini, struct error *error) {
  if (names->count) qsort(names->rows, names->count, sizeof *names->rows, compare_rows);
  names->by_name = arena_array(&names->arena, names->count + 1, sizeof *names->by_name, error);
  if (!names->by_name) return -1;
  for (size_t i = 0; i < names->count; i++) {
    const struct row *row = &names->rows[i];
    names->by_name[i] = row->name;
    if (i && strcasecmp(row[-1].name, row->name) == 0)
      return error_set(error, ERROR_FORMAT, "'%s':%d: '%s' is already a name of '%s' (line %d)", ini_path(ini),
                       row->line, row->name, row[-1].id, row[-1].line);
  }
  return 0;
}

struct model_names *model_names_open(const char *path, struct error *error) {
  struct model_names *names = calloc(1, sizeof *names);
  if (!names) return error_memory(error, sizeof *names), NULL;
  arena_init(&names->arena, 0);
  if (!path || !*path) return names;
  struct ini *ini = ini_open(path, error);
  int failed = ini ? 0 : -1;
  for (size_t i = 0; !failed && i < ini_count(ini); i++) failed = add_entry(names, ini, ini_at(ini, i), error);
  if (!failed) failed = sort(names, ini, error);
  ini_close(ini);
  if (!failed) return names;
  model_names_close(names);
  return NULL;
}

void model_names_close(struct model_names *names) {
  if (!names) return;
  free(names->rows);
  arena_clear(&names->arena);
  free(names);
}

const char *model_names_id(const struct model_names *names, const char *name) {
  const struct row *row = find(names, name);
  return row ? row->id : name;
}

const char *model_names_repositories(const struct model_names *names, const char *id) {
  const struct row *row = find(names, id);
  return row ? row->repositories : NULL;
}

const char *model_names_nearest(const struct model_names *names, const char *word) {
  return names->count ? nearest_name(word, names->by_name, names->count) : NULL;
}
