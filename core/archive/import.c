/* import.c: a folder of batches into the store. Owns the walk over files and lines, the transactions and the refusals by
 * file and line; what a line means is in read.c. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/archive/rows.h"
#include "core/base/clock.h"
#include "core/base/gzip_lines.h"
#include "core/base/mapfile.h"
#include "core/base/number.h"

/* A transaction ends at so many rows or bytes, whichever comes first. */
#define MOST_ROWS 4096
#define MOST_BYTES ((size_t)16 << 20)
#define INDEX_MOST ((int64_t)1 << 24) /* features of a dictionary whose size is not known */

struct waiting_example {
  uint32_t index;
  size_t order; /* as met, for a stable sort */
  struct store_example example;
};

struct import {
  struct store *store;
  const struct archive_import_args *args;
  struct archive_progress progress;
  struct arena names, rows;    /* for the whole import; until the rows are put */
  const char *model, *source;  /* as the lines call them; NULL before the first */
  struct store_source described; /* from source.jsonl, or empty */
  struct store_model model_described;
  int64_t source_id, limit;    /* the store's number, 0 before it is known; features 0..limit - 1 */
  int64_t largest;             /* index met */
  unsigned char *seen;         /* bit per feature: its examples were replaced */
  struct store_feature *features;
  struct waiting_example *examples;
  struct store_explanation *explanations;
  size_t n; /* rows waiting, of the part that is being read */
};

/* ---- the source ---- */

static const char *store_name(const char *asked, const char *said) { return asked ? asked : said; }

static int put_model(struct import *import, const char *id, struct error *error) {
  struct store_model known, model = import->model_described;
  int found = store_model_find(import->store, id, &import->names, &known, error);
  if (found != 0) return found < 0 ? -1 : 0;
  model.id = id;
  return store_model_put(import->store, &model, error);
}

static int same_dictionary(const struct import *import, const struct store_source *known, struct error *error) {
  const char *made = import->described.identity;
  if (!made || !known->identity || archive_same_identity(made, known->identity)) return 0;
  return error_set(error, ERROR_ARGUMENT, "'%s' was made for another dictionary (%s) than %s/%s (%s)", import->args->folder,
                   made, known->model, known->name, known->identity);
}

/* "7-res-jb" is of layer 7; -1 where the name says nothing. */
static int64_t layer_of(const char *name) {
  size_t digits = strspn(name, "0123456789");
  return digits > 0 && digits < 9 ? strtol(name, NULL, 10) : -1;
}

/* Finds the source in the store, or makes it there; once the names are known. */
static int open_source(struct import *import, struct error *error) {
  struct store_source known, row = import->described;
  row.model = store_name(import->args->model_id, import->model);
  row.name = store_name(import->args->source_id, import->source);
  int found = store_source_find(import->store, row.model, row.name, &import->names, &known, error);
  if (found < 0 || (found > 0 && same_dictionary(import, &known, error) != 0)) return -1;
  row.statistics = (struct store_statistics){0}; /* when all rows are there */
  if (!import->described.name) row.layer = -1;
  if (row.layer < 0) row.layer = layer_of(row.name);
  import->source_id = known.id;
  if (!found && (put_model(import, row.model, error) != 0 ||
                 store_source_put(import->store, &row, &import->source_id, error) != 0))
    return -1;
  import->limit = found ? known.n_features : row.n_features;
  if (import->limit <= 0) import->limit = INDEX_MOST;
  size_t bytes = ((size_t)import->limit + 7) / 8;
  import->seen = calloc(bytes, 1);
  return import->seen ? 0 : error_memory(error, bytes);
}

/* The first line names model and source, all others must name the same. */
static int check_names(struct import *import, const char *model, const char *source, struct error *error) {
  if (!import->model) {
    import->model = arena_text(&import->names, model, strlen(model), error);
    import->source = arena_text(&import->names, source, strlen(source), error);
    return import->model && import->source ? 0 : -1;
  }
  if (strcmp(model, import->model) == 0 && strcmp(source, import->source) == 0) return 0;
  return error_set(error, ERROR_FORMAT, "the line is of '%.100s/%.100s', expected '%.100s/%.100s'", model, source,
                   import->model, import->source);
}

static int check_place(struct import *import, const struct json_node *line, struct archive_place *place,
                       struct error *error) {
  if (archive_read_place(line, place, error) != 0 || check_names(import, place->model, place->source, error) != 0) return -1;
  if (import->source_id == 0 && open_source(import, error) != 0) return -1;
  if (place->index > import->largest) import->largest = place->index;
  if (place->index < import->limit) return 0;
  return error_set(error, ERROR_FORMAT, "index is %u, the source has features 0 to %lld", place->index,
                   (long long)import->limit - 1);
}

/* ---- waiting rows ---- */

static int put_features(struct import *import, struct error *error) {
  struct store_batch batch = {.source = import->source_id, .features = import->features, .n_features = import->n};
  import->progress.features += (int64_t)import->n;
  return store_batch_put(import->store, &batch, error);
}

static int by_feature(const void *left, const void *right) {
  const struct waiting_example *a = left, *b = right;
  if (a->index != b->index) return a->index < b->index ? -1 : 1;
  return a->order < b->order ? -1 : 1;
}

/* Examples whose feature has some of this import already go behind those; the others take the place of what was there. */
static int add_examples(struct import *import, const struct store_feature *features, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++)
    if (store_examples_add(import->store, import->source_id, features[i].index, features[i].examples,
                           features[i].n_examples, error) != 0)
      return -1;
  return 0;
}

static int put_examples(struct import *import, struct error *error) {
  size_t n_new = 0, n_more = 0, n = import->n;
  struct store_example *rows = arena_array(&import->rows, n, sizeof *rows, error);
  struct store_feature *new = arena_array(&import->rows, n, sizeof *new, error);
  struct store_feature *more = arena_array(&import->rows, n, sizeof *more, error);
  if (!rows || !new || !more) return -1;
  qsort(import->examples, n, sizeof *import->examples, by_feature);
  for (size_t i = 0, end; i < n; i = end) {
    uint32_t index = import->examples[i].index;
    for (end = i; end < n && import->examples[end].index == index; end++) rows[end] = import->examples[end].example;
    bool known = import->seen[index / 8] >> index % 8 & 1;
    import->seen[index / 8] |= (unsigned char)(1u << index % 8);
    *(known ? &more[n_more++] : &new[n_new++]) = (struct store_feature){
        .index = index, .groups = STORE_EXAMPLES, .examples = rows + i, .n_examples = end - i};
  }
  struct store_batch batch = {.source = import->source_id, .features = new, .n_features = n_new};
  import->progress.examples += (int64_t)n;
  return store_batch_put(import->store, &batch, error) != 0 ? -1 : add_examples(import, more, n_more, error);
}

static bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static bool is_same(const struct store_explanation *a, const struct store_explanation *b) {
  return a->index == b->index && a->origin == b->origin && same_text(a->type, b->type) &&
         same_text(a->model_name, b->model_name) && same_text(a->author, b->author) &&
         same_text(a->description, b->description);
}

static bool is_among(const struct store_explanation *rows, size_t n, const struct store_explanation *row) {
  for (size_t i = 0; i < n; i++)
    if (is_same(&rows[i], row)) return true;
  return false;
}

/* Those that the store has already are left out. */
static int put_explanations(struct import *import, struct error *error) {
  struct store_feature stored = {0};
  size_t n = 0;
  for (size_t i = 0; i < import->n; i++) {
    const struct store_explanation *row = &import->explanations[i];
    if ((i == 0 || stored.index != row->index) &&
        store_feature_get(import->store, import->source_id, row->index, 0, &import->rows, &stored, error) < 0)
      return -1;
    if (is_among(stored.explanations, stored.n_explanations, row)) continue;
    import->explanations[n++] = *row;
  }
  struct store_batch batch = {
      .source = import->source_id, .explanations = import->explanations, .n_explanations = n};
  import->progress.explanations += (int64_t)n;
  return store_batch_put(import->store, &batch, error);
}

static int put_waiting(struct import *import, enum archive_part part, struct error *error) {
  static int (*const put[ARCHIVE_PARTS])(struct import *, struct error *) = {put_features, put_examples,
                                                                             put_explanations};
  if (import->n > 0 && put[part](import, error) != 0) return -1;
  import->n = 0;
  arena_clear(&import->rows);
  if (!import->args->tell || !import->args->tell(import->args->context, &import->progress)) return 0;
  return error_set(error, ERROR_CANCELLED, "stopped in %s; the same import begins anew", import->progress.file);
}

/* ---- lines ---- */

/* U+0000 as an escape becomes a space. A backslash that is itself escaped begins none. */
static size_t replace_nul(char *line, size_t length) {
  size_t to = 0;
  for (size_t i = 0; i < length; i++) {
    bool pair = line[i] == '\\' && i + 1 < length;
    if (pair && length - i >= 6 && memcmp(line + i, "\\u0000", 6) == 0) {
      line[to++] = ' ';
      i += 5;
      continue;
    }
    line[to++] = line[i];
    if (pair) line[to++] = line[++i];
  }
  return to;
}

static int read_row(struct import *import, enum archive_part part, const struct json_node *line, struct error *error) {
  struct archive_place place;
  size_t n = import->n;
  if (check_place(import, line, &place, error) != 0) return -1;
  int failed;
  if (part == ARCHIVE_FEATURES) {
    failed = archive_read_feature(line, &import->rows, &import->features[n], error);
  } else if (part == ARCHIVE_ACTIVATIONS) {
    failed = archive_read_example(line, &import->rows, &import->examples[n].example, error);
    import->examples[n].index = place.index;
    import->examples[n].order = n;
  } else {
    struct store_explanation *row = &import->explanations[n];
    failed = archive_read_explanation(line, &import->rows, row, error);
    row->source = import->source_id;
    row->index = place.index;
    if (!failed && is_among(import->explanations, n, row)) return 0; /* twice in the files is once in the store */
  }
  if (!failed) import->n++;
  return failed;
}

static int read_line(struct import *import, enum archive_part part, char *text, size_t length, struct error *error) {
  if (strspn(text, " \t\r") == length) return 0; /* an empty line at the end is no row */
  struct json_node *line = json_parse(text, replace_nul(text, length), ARCHIVE_DEPTH, error);
  int failed = line ? read_row(import, part, line, error) : -1;
  json_free(line);
  return failed;
}

static int read_lines(struct import *import, enum archive_part part, struct gzip_lines *lines, struct error *error) {
  char *text;
  size_t length;
  int more;
  while ((more = gzip_lines_next(lines, &text, &length, error)) > 0) {
    struct error why = ERROR_INIT;
    int failed = read_line(import, part, text, length, &why);
    if (!failed && (import->n == MOST_ROWS || import->rows.used > MOST_BYTES)) failed = put_waiting(import, part, &why);
    if (failed && why.code == ERROR_CANCELLED) return error_set(error, why.code, "%s", why.text);
    if (failed)
      return error_set(error, why.code, "'%s' line %lld: %s", gzip_lines_path(lines),
                       (long long)gzip_lines_number(lines), why.text);
  }
  return more;
}

/* ---- files ---- */

static int read_file(struct import *import, enum archive_part part, const char *folder, const char *file,
                     struct error *error) {
  char path[4096], shown[512];
  if (snprintf(path, sizeof path, "%s/%s", folder, file) >= (int)sizeof path)
    return error_set(error, ERROR_ARGUMENT, "the path '%.200s...' is too long", folder);
  snprintf(shown, sizeof shown, "%s/%.300s", archive_part_names[part], file);
  struct gzip_lines *lines = gzip_lines_open(path, GZIP_LINE_MOST, error);
  if (!lines) return -1;
  import->progress.file = shown;
  int failed = read_lines(import, part, lines, error);
  if (!failed) failed = put_waiting(import, part, error);
  import->progress.file = NULL;
  gzip_lines_close(lines);
  return failed;
}

/* The number of "batch-N.jsonl" or "batch-N.jsonl.gz"; -1. */
static int64_t batch_number(const char *name) {
  char digits[24];
  int64_t number;
  if (strncmp(name, "batch-", 6) != 0) return -1;
  size_t n = strspn(name + 6, "0123456789");
  if (n == 0 || n >= sizeof digits) return -1;
  if (strcmp(name + 6 + n, ".jsonl") != 0 && strcmp(name + 6 + n, ".jsonl.gz") != 0) return -1;
  memcpy(digits, name + 6, n);
  digits[n] = '\0';
  return number_parse_int(digits, &number) ? number : -1;
}

static int is_batch(const struct dirent *entry) { return batch_number(entry->d_name) >= 0; }

static int by_number(const struct dirent **a, const struct dirent **b) {
  int64_t left = batch_number((*a)->d_name), right = batch_number((*b)->d_name);
  return left != right ? (left < right ? -1 : 1) : strcmp((*a)->d_name, (*b)->d_name);
}

/* All batches of a part, in the order of their numbers; *n_files counts on. */
static int read_part(struct import *import, enum archive_part part, size_t *n_files, struct error *error) {
  char folder[4096];
  struct dirent **entries = NULL;
  if (snprintf(folder, sizeof folder, "%s/%s", import->args->folder, archive_part_names[part]) >= (int)sizeof folder)
    return error_set(error, ERROR_ARGUMENT, "the path '%.200s...' is too long", import->args->folder);
  if (!path_is_directory(folder)) return 0;
  int n = scandir(folder, &entries, is_batch, by_number), failed = 0;
  if (n < 0) return error_set(error, ERROR_IO, "'%s' could not be listed: %s", folder, strerror(errno));
  for (int i = 0; i < n; i++) {
    if (!failed) failed = read_file(import, part, folder, entries[i]->d_name, error);
    free(entries[i]);
  }
  free(entries);
  *n_files += (size_t)n;
  return failed;
}

/* The first line of a file, if there is such a file, as JSON: *line is NULL otherwise. */
static int read_first(const char *path, struct json_node **line, struct error *error) {
  char *text;
  size_t length;
  struct error why = ERROR_INIT;
  *line = NULL;
  if (!path_is_file(path)) return 0;
  struct gzip_lines *lines = gzip_lines_open(path, GZIP_LINE_MOST, error);
  if (!lines) return -1;
  int more = gzip_lines_next(lines, &text, &length, error);
  if (more > 0) *line = json_parse(text, replace_nul(text, length), ARCHIVE_DEPTH, &why);
  gzip_lines_close(lines);
  if (more > 0 && !*line) return error_set(error, why.code, "'%s' line 1: %s", path, why.text);
  return more < 0 ? -1 : 0;
}

/* What source.jsonl and model.jsonl say, where they are. */
static int read_descriptions(struct import *import, struct error *error) {
  char path[4096];
  struct json_node *line;
  snprintf(path, sizeof path, "%s/model.jsonl", import->args->folder);
  if (read_first(path, &line, error) != 0) return -1;
  int failed = line ? archive_read_model(line, &import->names, &import->model_described, error) : 0;
  json_free(line);
  if (failed) return error_prefix(error, "'%s' line 1", path);
  snprintf(path, sizeof path, "%s/source.jsonl", import->args->folder);
  if (read_first(path, &line, error) != 0) return -1;
  if (!line) return 0;
  failed = archive_read_source(line, &import->names, &import->described, error);
  json_free(line);
  if (!failed && (!import->described.model || !import->described.name))
    failed = error_set(error, ERROR_FORMAT, "modelId or id is missing");
  if (!failed) failed = check_names(import, import->described.model, import->described.name, error);
  return failed ? error_prefix(error, "'%s' line 1", path) : 0;
}

/* ---- the whole ---- */

/* How the statistics were made, and how many features there are where nobody knew. Explanations alone are no statistics. */
static int describe_source(struct import *import, struct error *error) {
  struct store_source row;
  char now[25];
  int found = store_source_at(import->store, import->source_id, &import->names, &row, error);
  if (found <= 0) return found < 0 ? -1 : error_set(error, ERROR_STORE, "the store has lost its source %s", import->source);
  if (row.n_features == 0) row.n_features = import->largest + 1;
  if (!row.config) row.config = import->described.config;
  if (!row.description) row.description = import->described.description;
  if (!row.url) row.url = import->described.url;
  if (import->progress.features > 0) {
    clock_iso(now);
    row.statistics = import->described.statistics;
    if (!import->described.name) row.statistics.folded = true;
    if (!row.statistics.made_at) row.statistics.made_at = now;
  }
  return store_source_put(import->store, &row, NULL, error);
}

static int read_all(struct import *import, struct error *error) {
  size_t n_files = 0;
  if (!path_is_directory(import->args->folder))
    return error_set(error, ERROR_NOT_FOUND, "'%s' is not a folder", import->args->folder);
  if (strlen(import->args->folder) > 4000) return error_set(error, ERROR_ARGUMENT, "the folder's path is too long");
  if (read_descriptions(import, error) != 0) return -1;
  for (int part = 0; part < ARCHIVE_PARTS; part++)
    if (read_part(import, (enum archive_part)part, &n_files, error) != 0) return -1;
  if (import->source_id) return describe_source(import, error);
  return error_set(error, ERROR_NOT_FOUND, "'%s' holds %s: expected features/batch-0.jsonl.gz and the like",
                   import->args->folder, n_files ? "batches without a line" : "no batches");
}

int archive_import(struct store *store, const struct archive_import_args *args, struct archive_progress *done,
                   struct error *error) {
  struct import import = {.store = store, .args = args};
  arena_init(&import.names, 0);
  arena_init(&import.rows, 0);
  import.features = calloc(MOST_ROWS, sizeof *import.features);
  import.examples = calloc(MOST_ROWS, sizeof *import.examples);
  import.explanations = calloc(MOST_ROWS, sizeof *import.explanations);
  int failed = -1;
  if (!args->model_id != !args->source_id)
    error_set(error, ERROR_ARGUMENT, "an import needs both a model and a source, or neither");
  else if (!import.features || !import.examples || !import.explanations)
    error_memory(error, MOST_ROWS * sizeof *import.features);
  else
    failed = read_all(&import, error);
  if (!failed && done) *done = import.progress;
  free(import.features);
  free(import.examples);
  free(import.explanations);
  free(import.seen);
  arena_clear(&import.rows);
  arena_clear(&import.names);
  return failed;
}
