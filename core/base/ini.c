/* Keeps what inih finds, with the line it was found on. Owns the limits that inih lacks: it cuts long lines
 * and section names without a word, so lines are measured here before it sees them. */
#include "core/base/ini.h"

#include <ini.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/arena.h"
#include "core/base/mapfile.h"
#include "core/base/utf8.h"

#define INI_BYTES_MAX ((size_t)1 << 20)
#define INI_LINE_MAX 4096
#define INI_SECTION_MAX 48 /* inih holds 49 and cuts the rest: one that long may have been cut */

struct ini {
  struct arena arena;
  const char *path;
  struct ini_entry *entries;
  uint32_t *sorted; /* positions by section and key, for ini_find and duplicates */
  size_t count, capacity;
};

/* What the two callbacks share while inih runs. */
struct parse {
  struct ini *ini;
  const char *text;
  size_t length, at;
  int line; /* of the line handed out last */
  struct error *error;
};

/* Debian's inih is configured by variables of the library. */
static void configure(void) {
  ini_max_line = INI_LINE_MAX + 4; /* line feed, carriage return, NUL and one to spare */
  ini_use_stack = true;
  ini_allow_multiline = false;
  ini_allow_inline_comments = true;
  ini_stop_on_first_error = true;
}

static int fail(const struct parse *parse, const char *what) {
  return error_set(parse->error, ERROR_FORMAT, "%s:%d: %s", parse->ini->path, parse->line, what);
}

/* fgets for inih. NULL ends the reading: at the end, or after an error was set. */
static char *next_line(char *out, int room, void *context) {
  struct parse *parse = context;
  if (parse->at == parse->length) return NULL;
  const char *line = parse->text + parse->at, *end = memchr(line, '\n', parse->length - parse->at);
  size_t length = end ? (size_t)(end - line) : parse->length - parse->at;
  parse->line++;
  if (length > INI_LINE_MAX || length + 2 > (size_t)room)
    return fail(parse, "the line is longer than 4096 bytes"), NULL;
  if (memchr(line, 0, length)) return fail(parse, "the line holds a NUL character"), NULL;
  if (!utf8_valid(line, length, NULL)) return fail(parse, "the line is not UTF-8"), NULL;
  memcpy(out, line, length);
  memcpy(out + length, "\n", 2);
  parse->at += length + (end ? 1 : 0);
  return out;
}

static char *keep(struct parse *parse, const char *text) {
  return arena_text(&parse->ini->arena, text, strlen(text), parse->error);
}

static int make_room(struct parse *parse) {
  struct ini *ini = parse->ini;
  if (ini->count < ini->capacity) return 0;
  size_t capacity = ini->capacity ? ini->capacity * 2 : 64;
  struct ini_entry *entries = realloc(ini->entries, capacity * sizeof *entries);
  if (!entries) return error_memory(parse->error, capacity * sizeof *entries);
  ini->entries = entries;
  ini->capacity = capacity;
  return 0;
}

/* inih's handler: 0 stops the reading. */
static int on_entry(void *context, const char *section, const char *key, const char *value) {
  struct parse *parse = context;
  if (strlen(section) > INI_SECTION_MAX) return fail(parse, "the section name is longer than 48 bytes"), 0;
  if (!*key) return fail(parse, "there is no key before '='"), 0;
  if (make_room(parse) != 0) return 0;
  struct ini_entry entry = {keep(parse, section), keep(parse, key), keep(parse, value), parse->line};
  if (!entry.section || !entry.key || !entry.value) return 0;
  parse->ini->entries[parse->ini->count++] = entry;
  return 1;
}

/* ---- order ---- */

static int compare_entries(const struct ini_entry *a, const struct ini_entry *b) {
  int order = strcmp(a->section, b->section);
  return order ? order : strcmp(a->key, b->key);
}

static int compare_pointers(const void *a, const void *b) {
  const struct ini_entry *x = *(const struct ini_entry *const *)a, *y = *(const struct ini_entry *const *)b;
  int order = compare_entries(x, y);
  return order ? order : x->line - y->line;
}

static int check_duplicates(struct ini *ini, const struct ini_entry **sorted, struct error *error) {
  qsort(sorted, ini->count, sizeof *sorted, compare_pointers);
  for (size_t i = 0; i < ini->count; i++) {
    ini->sorted[i] = (uint32_t)(sorted[i] - ini->entries);
    if (i == 0 || compare_entries(sorted[i - 1], sorted[i]) != 0) continue;
    return error_set(error, ERROR_FORMAT, "%s:%d: '%.100s' stands twice in section '%s', first in line %d", ini->path,
                     sorted[i]->line, sorted[i]->key, sorted[i]->section, sorted[i - 1]->line);
  }
  return 0;
}

static int sort_entries(struct ini *ini, struct error *error) {
  size_t bytes = (ini->count + 1) * sizeof(struct ini_entry *);
  const struct ini_entry **sorted = malloc(bytes);
  ini->sorted = arena_array(&ini->arena, ini->count, sizeof *ini->sorted, error);
  int rc = -1;
  if (!sorted) {
    error_memory(error, bytes);
  } else if (ini->sorted) {
    for (size_t i = 0; i < ini->count; i++) sorted[i] = &ini->entries[i];
    rc = check_duplicates(ini, sorted, error);
  }
  free(sorted);
  return rc;
}

/* ---- opening ---- */

static int read_lines(struct ini *ini, const char *text, size_t length, struct error *error) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  struct error inner = ERROR_INIT;
  struct parse parse = {.ini = ini, .text = text, .length = length, .error = &inner};
  pthread_once(&once, configure);
  int rc = ini_parse_stream(next_line, &parse, on_entry, &parse);
  if (inner.code) return error_set(error, inner.code, "%s", inner.text);
  if (rc > 0)
    return error_set(error, ERROR_FORMAT, "%s:%d: expected [section], key = value or a comment", ini->path, rc);
  return rc == 0 ? 0 : error_memory(error, INI_LINE_MAX);
}

struct ini *ini_open_text(const char *path, const char *text, size_t length, struct error *error) {
  if (length > INI_BYTES_MAX)
    return error_set(error, ERROR_LIMIT, "'%s' has %zu bytes, %zu are read", path, length, INI_BYTES_MAX), NULL;
  struct ini *ini = calloc(1, sizeof *ini);
  if (!ini) return error_memory(error, sizeof *ini), NULL;
  arena_init(&ini->arena, 0);
  ini->path = arena_text(&ini->arena, path, strlen(path), error);
  if (ini->path && read_lines(ini, text, length, error) == 0 && sort_entries(ini, error) == 0) return ini;
  ini_close(ini);
  return NULL;
}

struct ini *ini_open(const char *path, struct error *error) {
  char *text;
  size_t length;
  if (file_read(path, INI_BYTES_MAX, &text, &length, error) != 0) return NULL;
  struct ini *ini = ini_open_text(path, text, length, error);
  free(text);
  return ini;
}

void ini_close(struct ini *ini) {
  if (!ini) return;
  free(ini->entries);
  arena_clear(&ini->arena);
  free(ini);
}

size_t ini_count(const struct ini *ini) { return ini->count; }

const struct ini_entry *ini_at(const struct ini *ini, size_t i) { return i < ini->count ? &ini->entries[i] : NULL; }

const struct ini_entry *ini_find(const struct ini *ini, const char *section, const char *key) {
  struct ini_entry wanted = {.section = section, .key = key};
  size_t low = 0, high = ini->count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct ini_entry *entry = &ini->entries[ini->sorted[middle]];
    int order = compare_entries(&wanted, entry);
    if (order == 0) return entry;
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

const char *ini_path(const struct ini *ini) { return ini->path; }

int ini_value_path(const struct ini *ini, const struct ini_entry *entry, char *out, size_t size,
                   struct error *error) {
  const char *data = getenv("STEERD_DATA");
  bool absolute = *entry->value == '/', named = data && *data;
  if (!named) data = "../shared/data";
  if (!absolute && !path_is_directory(data)) /* says nothing of what the entry names, which may be a stranger's guess */
    return error_set(error, ERROR_NOT_FOUND, "'%s' line %d: the path of '%s' starts at the folder in STEERD_DATA, %s '%.200s', "
                     "and that is no folder: set STEERD_DATA, or write absolute paths",
                     ini_path(ini), entry->line, entry->key, named ? "which is" : "which is not set: it is then", data);
  int n = snprintf(out, size, "%s%s%s", absolute ? "" : data, absolute ? "" : "/", entry->value);
  if (n > 0 && (size_t)n < size) return 0;
  return error_set(error, ERROR_FORMAT, "'%s' line %d: the path of '%s' is longer than %zu bytes", ini_path(ini),
                   entry->line, entry->key, size - 1);
}

bool ini_is_path(const char *path) {
  size_t length = strlen(path);
  return length > 4 && strcmp(path + length - 4, ".ini") == 0;
}
