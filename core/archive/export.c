/* export.c: what the store has of a source as a folder of batches. Owns the files and their numbering; what a line says
 * is in write.c. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/archive/rows.h"
#include "core/base/gzip_lines.h"

#define BATCH 1024  /* features in a file, as upstream's exports have */
#define TELL_EVERY 128

struct export {
  struct store *store;
  const struct archive_export_args *args;
  struct store_source source;
  struct gzip_writer *files[ARCHIVE_PARTS]; /* of the batch being written; NULL between batches */
  int batch, in_batch;
  struct buffer line;
  struct archive_progress progress;
  char shown[64];
};

/* ---- files ---- */

static int make_path(const struct export *export, const char *name, char out[4096], struct error *error) {
  if (snprintf(out, 4096, "%s/%s", export->args->folder, name) < 4096) return 0;
  return error_set(error, ERROR_ARGUMENT, "the path '%.200s...' is too long", export->args->folder);
}

static int make_folder(const char *path, bool may_exist, struct error *error) {
  if (mkdir(path, 0777) == 0 || (errno == EEXIST && may_exist)) return 0;
  if (errno == EEXIST)
    return error_set(error, ERROR_ARGUMENT, "'%s' is there already: an export needs a new folder", path);
  return error_set(error, ERROR_IO, "'%s' could not be made: %s", path, strerror(errno));
}

static int make_folders(const struct export *export, struct error *error) {
  char path[4096];
  if (make_folder(export->args->folder, true, error) != 0) return -1;
  for (int part = 0; part < ARCHIVE_PARTS; part++)
    if (make_path(export, archive_part_names[part], path, error) != 0 || make_folder(path, false, error) != 0) return -1;
  return 0;
}

static int open_batch(struct export *export, struct error *error) {
  char name[64], path[4096];
  for (int part = 0; part < ARCHIVE_PARTS; part++) {
    snprintf(name, sizeof name, "%s/batch-%d.jsonl.gz", archive_part_names[part], export->batch);
    if (make_path(export, name, path, error) != 0) return -1;
    export->files[part] = gzip_writer_open(path, error);
    if (!export->files[part]) return -1;
  }
  snprintf(export->shown, sizeof export->shown, "batch-%d.jsonl.gz", export->batch++);
  export->progress.file = export->shown;
  return 0;
}

static int close_batch(struct export *export, struct error *error) {
  int failed = 0;
  for (int part = 0; part < ARCHIVE_PARTS; part++) {
    if (export->files[part] && gzip_writer_close(export->files[part], error) != 0) failed = -1;
    export->files[part] = NULL;
  }
  export->in_batch = 0;
  return failed;
}

/* ---- rounding ---- */

static double round_number(double value, int digits) {
  char text[32];
  if (!isfinite(value) || value == 0) return value;
  snprintf(text, sizeof text, "%.*g", digits, value);
  return strtod(text, NULL);
}

/* Replaces *values [n] by a rounded copy. */
static int round_list(const float **values, size_t n, int digits, struct arena *arena, struct error *error) {
  float *rounded = arena_array(arena, n, sizeof *rounded, error);
  if (!rounded) return -1;
  for (size_t i = 0; i < n; i++) rounded[i] = (float)round_number((double)(*values)[i], digits);
  *values = rounded;
  return 0;
}

/* Values that become equal may move the first place of the largest. */
static int round_example(struct store_example *e, int digits, struct arena *arena, struct error *error) {
  e->max_value = (float)round_number((double)e->max_value, digits);
  e->min_value = (float)round_number((double)e->min_value, digits);
  e->bin_contains = (float)round_number((double)e->bin_contains, digits);
  if (round_list(&e->values, e->n, digits, arena, error) != 0) return -1;
  for (size_t i = e->n; i-- > 0;)
    if (e->values[i] == e->max_value) e->max_index = (int)i;
  return 0;
}

/* Counts, rates and what the bars of activations stand at stay as they are: they are short. */
static int round_feature(struct store_feature *f, int digits, struct arena *arena, struct error *error) {
  f->max = (float)round_number((double)f->max, digits);
  f->mean = round_number(f->mean, digits);
  return round_list(&f->top.values, f->top.n, digits, arena, error) != 0 ||
                 round_list(&f->bottom.values, f->bottom.n, digits, arena, error) != 0 ||
                 round_list(&f->logits.values, f->logits.n, digits, arena, error) != 0 ||
                 round_list(&f->cosines, f->n_neighbours, digits, arena, error) != 0
             ? -1
             : 0;
}

/* ---- lines ---- */

static struct json_writer begin_line(struct export *export) {
  struct json_writer w;
  export->line.length = 0;
  jw_init(&w, &export->line);
  return w;
}

static int end_line(struct export *export, enum archive_part part, struct error *error) {
  if (buffer_check(&export->line, error) != 0) return -1;
  return gzip_writer_line(export->files[part], export->line.data, export->line.length, error);
}

/* Examples come by strength; they are written in the order in which they were put. */
static int by_slot(const void *left, const void *right) {
  return ((const struct store_example *)left)->slot - ((const struct store_example *)right)->slot;
}

static int write_examples(struct export *export, const struct store_feature *feature, struct arena *arena,
                          struct error *error) {
  size_t n = feature->n_examples;
  struct store_example *rows = arena_array(arena, n, sizeof *rows, error);
  if (!rows) return -1;
  if (n) memcpy(rows, feature->examples, n * sizeof *rows);
  qsort(rows, n, sizeof *rows, by_slot);
  for (size_t i = 0; i < n; i++) {
    if (export->args->digits && round_example(&rows[i], export->args->digits, arena, error) != 0) return -1;
    struct json_writer w = begin_line(export);
    archive_write_example(&w, &export->source, feature->index, &rows[i]);
    if (end_line(export, ARCHIVE_ACTIVATIONS, error) != 0) return -1;
  }
  export->progress.examples += (int64_t)n;
  return 0;
}

/* The oldest first, so that they get their numbers in the same order again. */
static int by_id(const void *left, const void *right) {
  int64_t a = ((const struct store_explanation *)left)->id, b = ((const struct store_explanation *)right)->id;
  return a < b ? -1 : a > b;
}

static int write_explanations(struct export *export, const struct store_feature *feature, struct arena *arena,
                              struct error *error) {
  size_t n = feature->n_explanations;
  struct store_explanation *rows = arena_array(arena, n, sizeof *rows, error);
  if (!rows) return -1;
  if (n) memcpy(rows, feature->explanations, n * sizeof *rows);
  qsort(rows, n, sizeof *rows, by_id);
  for (size_t i = 0; i < n; i++) {
    struct json_writer w = begin_line(export);
    archive_write_explanation(&w, &rows[i]);
    if (end_line(export, ARCHIVE_EXPLANATIONS, error) != 0) return -1;
  }
  export->progress.explanations += (int64_t)n;
  return 0;
}

static int write_feature(struct export *export, struct store_feature *feature, struct arena *arena, struct error *error) {
  if (export->args->digits && round_feature(feature, export->args->digits, arena, error) != 0) return -1;
  if (export->in_batch == BATCH && close_batch(export, error) != 0) return -1;
  if (export->in_batch++ == 0 && open_batch(export, error) != 0) return -1;
  if (feature->groups & ~(unsigned)STORE_EXAMPLES) { /* examples and explanations can stand alone */
    struct json_writer w = begin_line(export);
    archive_write_feature(&w, &export->source, feature);
    if (end_line(export, ARCHIVE_FEATURES, error) != 0) return -1;
    export->progress.features++;
  }
  return write_examples(export, feature, arena, error) != 0 ? -1 : write_explanations(export, feature, arena, error);
}

static int write_index(struct export *export, uint32_t index, struct error *error) {
  struct arena arena;
  struct store_feature feature;
  arena_init(&arena, 0);
  int found = store_feature_get(export->store, export->source.id, index, STORE_SLOT_MAX, &arena, &feature, error);
  int failed = found < 0 ? -1 : found == 0 ? 0 : write_feature(export, &feature, &arena, error);
  arena_clear(&arena);
  return failed;
}

static int write_features(struct export *export, struct error *error) {
  for (int64_t i = 0; i < export->source.n_features; i++) {
    if (write_index(export, (uint32_t)i, error) != 0) return -1;
    if (i % TELL_EVERY == 0 && export->args->tell && export->args->tell(export->args->context, &export->progress))
      return error_set(error, ERROR_CANCELLED, "stopped at feature %lld; '%s' is not complete", (long long)i,
                       export->args->folder);
  }
  export->progress.file = NULL;
  return close_batch(export, error);
}

/* ---- the single rows ---- */

/* A file of one line, as it stands in export->line. */
static int write_single(struct export *export, const char *name, struct error *error) {
  char path[4096];
  if (buffer_check(&export->line, error) != 0 || make_path(export, name, path, error) != 0) return -1;
  FILE *file = fopen(path, "we");
  bool written = file && fwrite(export->line.data, 1, export->line.length, file) == export->line.length &&
                 fputc('\n', file) != EOF;
  if (file && fclose(file) != 0) written = false;
  return written ? 0 : error_set(error, ERROR_IO, "'%s' could not be written: %s", path, strerror(errno));
}

static int write_model(struct export *export, struct arena *arena, struct error *error) {
  struct store_model model;
  int found = store_model_find(export->store, export->source.model, arena, &model, error);
  if (found <= 0) return found;
  struct json_writer w = begin_line(export);
  archive_write_model(&w, &model);
  return write_single(export, "model.jsonl", error);
}

static int write_descriptions(struct export *export, struct arena *arena, struct error *error) {
  if (write_model(export, arena, error) != 0) return -1;
  struct json_writer w = begin_line(export);
  archive_write_source(&w, &export->source);
  if (write_single(export, "source.jsonl", error) != 0) return -1;
  if (!export->source.set) return 0;
  w = begin_line(export);
  archive_write_set(&w, &export->source);
  return write_single(export, "sourceset.jsonl", error);
}

/* ---- the whole ---- */

static int write_all(struct export *export, struct arena *arena, struct error *error) {
  const struct archive_export_args *args = export->args;
  int found = store_source_find(export->store, args->model_id, args->source_id, arena, &export->source, error);
  if (found == 0)
    error_set(error, ERROR_NOT_FOUND, "the store knows no source '%s/%s'", args->model_id, args->source_id);
  if (found <= 0 || make_folders(export, error) != 0 || write_features(export, error) != 0) return -1;
  return write_descriptions(export, arena, error);
}

int archive_export(struct store *store, const struct archive_export_args *args, struct archive_progress *done,
                   struct error *error) {
  struct export export = {.store = store, .args = args};
  struct arena arena;
  arena_init(&arena, 0);
  buffer_init(&export.line, 0);
  int failed = write_all(&export, &arena, error);
  for (int part = 0; part < ARCHIVE_PARTS; part++) gzip_writer_abandon(export.files[part]);
  if (!failed && done) *done = export.progress;
  buffer_clear(&export.line);
  arena_clear(&arena);
  return failed;
}
