/* releases.c: the table of names, its patterns of numbers, and the nearest name. Knows no file of a dictionary. */
#include "core/dict/releases.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/nearest.h"

struct releases {
  struct ini *ini; /* NULL: empty */
};

struct releases *releases_open(const char *path, struct error *error) {
  struct releases *releases = calloc(1, sizeof *releases);
  if (!releases) return error_memory(error, sizeof *releases), NULL;
  if (!path || !*path) return releases;
  releases->ini = ini_open(path, error);
  if (releases->ini) return releases;
  free(releases);
  return NULL;
}

void releases_close(struct releases *releases) {
  if (!releases) return;
  ini_close(releases->ini);
  free(releases);
}

static size_t count(const struct releases *releases) { return releases->ini ? ini_count(releases->ini) : 0; }

/* ---- patterns ---------------------------------------------------------------------------------------- */

/* The numbers of "{0-11,13}", one after the other: the next one above `after`, or -1. */
static long next_number(const char *set, long after) {
  for (const char *at = set + 1; *at && *at != '}';) {
    char *end;
    long first = strtol(at, &end, 10), last = first;
    if (end == at) return -1;
    if (*end == '-') last = strtol(end + 1, &end, 10);
    if (after < first) return first;
    if (after < last) return after + 1;
    at = *end == ',' ? end + 1 : end;
    if (*end != ',' && *end != '}') return -1;
  }
  return -1;
}

/* What "{5=105 6=102}" has for a number: its place and length; NULL where it has none. */
static const char *listed(const char *set, long number, size_t *length) {
  for (const char *at = set + 1; *at && *at != '}';) {
    char *end;
    long key = strtol(at, &end, 10);
    if (end == at || *end != '=') return NULL;
    *length = strcspn(end + 1, " }");
    if (key == number) return end + 1;
    at = end + 1 + *length;
    at += strspn(at, " ");
  }
  return NULL;
}

/* pattern[0..length) with every {...} filled in; false when something does not fit or is not listed. */
static bool fill(const char *pattern, size_t length, long number, char out[RELEASE_TEXT_BYTES]) {
  size_t used = 0;
  for (size_t i = 0; i < length; i++) {
    char text[24];
    const char *piece = pattern + i;
    size_t n = 1;
    if (pattern[i] == '{') {
      const char *close = memchr(pattern + i, '}', length - i);
      if (!close) return false;
      snprintf(text, sizeof text, "%ld", number);
      piece = text;
      n = strlen(text);
      if (memchr(pattern + i, '=', (size_t)(close - pattern) - i)) piece = listed(pattern + i, number, &n);
      if (!piece) return false;
      i = (size_t)(close - pattern);
    }
    if (used + n >= RELEASE_TEXT_BYTES) return false;
    memcpy(out + used, piece, n);
    used += n;
  }
  out[used] = '\0';
  return used > 0;
}

/* ---- rows -------------------------------------------------------------------------------------------- */

/* One line: ID = FOLDER | NEURONPEDIA */
struct row {
  const struct ini_entry *entry;
  const char *set; /* "{0-11}" in the key, NULL: the key is one id */
  size_t folder_length;
  const char *neuronpedia; /* "" where there is none */
};

static bool is_about(const struct ini_entry *entry) {
  return !strcmp(entry->key, "model") || !strcmp(entry->key, "repository");
}

static struct row row_of(const struct ini_entry *entry) {
  const char *bar = strstr(entry->value, " | ");
  return (struct row){entry, strchr(entry->key, '{'), bar ? (size_t)(bar - entry->value) : strlen(entry->value),
                      bar ? bar + 3 : ""};
}

static long first_of(const struct row *row) { return row->set ? next_number(row->set, -1) : 0; }
static long next_of(const struct row *row, long number) { return row->set ? next_number(row->set, number) : -1; }

static void about(const struct releases *releases, const char *release, struct release_place *out) {
  const struct ini_entry *model = ini_find(releases->ini, release, "model"),
                         *repository = ini_find(releases->ini, release, "repository");
  snprintf(out->release, sizeof out->release, "%s", release);
  snprintf(out->model, sizeof out->model, "%.255s", model ? model->value : "");
  snprintf(out->repository, sizeof out->repository, "%.255s", repository ? repository->value : "");
}

/* The dictionaries of a row, numbers spelled out. */
struct spelled {
  char id[RELEASE_TEXT_BYTES], neuronpedia[RELEASE_TEXT_BYTES], folder[RELEASE_TEXT_BYTES];
};
static bool spell(const struct row *row, long number, struct spelled *out) {
  out->neuronpedia[0] = '\0';
  return fill(row->entry->key, strlen(row->entry->key), number, out->id) &&
         fill(row->entry->value, row->folder_length, number, out->folder) &&
         (!*row->neuronpedia || fill(row->neuronpedia, strlen(row->neuronpedia), number, out->neuronpedia));
}

int releases_each(const struct releases *releases,
                  int (*each)(void *context, const struct release_place *place, const char *id, const char *neuronpedia),
                  void *context) {
  struct release_place place;
  struct spelled spelled;
  for (size_t i = 0; i < count(releases); i++) {
    const struct ini_entry *entry = ini_at(releases->ini, i);
    if (is_about(entry)) continue;
    struct row row = row_of(entry);
    about(releases, entry->section, &place);
    for (long n = first_of(&row); n >= 0; n = next_of(&row, n)) {
      bool fits = spell(&row, n, &spelled);
      snprintf(place.folder, sizeof place.folder, "%s", fits ? spelled.folder : "");
      int stop = each(context, &place, fits ? spelled.id : entry->key, fits ? spelled.neuronpedia : "");
      if (stop) return stop;
    }
  }
  return 0;
}

/* ---- finding ----------------------------------------------------------------------------------------- */

struct search {
  const char *head, *id; /* of "HEAD/ID" */
  const char *name;      /* the whole */
  struct release_place *out;
  char near[RELEASE_TEXT_BYTES]; /* the nearest so far of ids that stand behind the same head */
  size_t near_by;
};

static int compare(void *context, const struct release_place *place, const char *id, const char *neuronpedia) {
  struct search *search = context;
  bool by_release = !strcmp(search->head, place->release) && !strcmp(search->id, id);
  if (!by_release && strcmp(search->name, neuronpedia) != 0) return 0;
  *search->out = *place;
  return 1;
}

/* Keeps the id that is most like the one asked for. */
static int keep_nearest(void *context, const struct release_place *place, const char *id, const char *neuronpedia) {
  struct search *search = context;
  size_t length = strlen(search->head);
  bool named = !strncmp(neuronpedia, search->head, length) && neuronpedia[length] == '/';
  const char *candidate = !strcmp(search->head, place->release) ? id : named ? neuronpedia + length + 1 : NULL;
  const char *two[] = {candidate, search->near};
  if (candidate && nearest_name(search->id, two, *search->near ? 2 : 1) == candidate)
    snprintf(search->near, sizeof search->near, "%s", candidate);
  search->near_by += candidate != NULL;
  return 0;
}

static const char *nearest_release(const struct releases *releases, const char *word) {
  const char *best = NULL;
  for (size_t i = 0; i < count(releases); i++) {
    const struct ini_entry *entry = ini_at(releases->ini, i);
    const char *two[] = {best ? best : entry->section, entry->section};
    if (!strcmp(entry->key, "model") && nearest_name(word, two, 2)) best = nearest_name(word, two, 2);
  }
  return best;
}

static int not_found(const struct releases *releases, struct search *search, struct error *error) {
  (void)releases_each(releases, keep_nearest, search);
  if (*search->near)
    return error_set(error, ERROR_NOT_FOUND, "unknown dictionary '%.120s', did you mean '%.60s/%.120s'?", search->name,
                     search->head, search->near);
  const char *release = search->near_by ? NULL : nearest_release(releases, search->head);
  if (release)
    return error_set(error, ERROR_NOT_FOUND, "unknown dictionary '%.120s', did you mean the release '%s'?", search->name, release);
  return error_set(error, ERROR_NOT_FOUND,
                   "unknown dictionary '%.120s', expected RELEASE/ID such as 'gpt2-small-res-jb/blocks.7.hook_resid_pre' or "
                   "MODEL/SOURCE such as 'gpt2-small/7-res-jb'", search->name);
}

/* A path that stays below where it starts. */
static bool is_inside(const char *path) {
  if (!*path || *path == '/' || strlen(path) >= RELEASE_TEXT_BYTES) return false;
  for (const char *at = path; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
    if (!strncmp(at, "..", 2) && (at[2] == '/' || !at[2])) return false;
  return true;
}

int releases_find(const struct releases *releases, const char *name, struct release_place *out, struct error *error) {
  char head[RELEASE_TEXT_BYTES];
  const char *slash = strchr(name, '/');
  snprintf(head, sizeof head, "%.*s", slash ? (int)(slash - name) : (int)sizeof head - 1, name);
  struct search search = {.head = head, .id = slash ? slash + 1 : "", .name = name, .out = out};
  if (slash && releases_each(releases, compare, &search)) return 0;
  bool known = slash && releases->ini && ini_find(releases->ini, head, "repository");
  if (!known || !is_inside(search.id) || !strchr(search.id, '/')) return not_found(releases, &search, error);
  about(releases, head, out);
  snprintf(out->folder, sizeof out->folder, "%s", search.id);
  return 0;
}
