/* inspect.c: decides what a place is, opens it and lets the other inspect_*.c tell. Owns the list of facts. */
#include "core/inspect.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/mapfile.h"
#include "core/base/pool.h"
#include "core/dict/dict.h"
#include "core/dict/dict_find.h"
#include "core/inspect/inspect_int.h"
#include "core/model/model_find.h"

/* ---- facts ---- */

static struct inspect_fact *add(struct inspect_facts *facts, const char *section, const char *key, const char *text,
                                struct error *error) {
  if (facts->count == facts->capacity) {
    size_t capacity = facts->capacity ? facts->capacity * 2 : 64, bytes = capacity * sizeof *facts->list;
    struct inspect_fact *list = realloc(facts->list, bytes);
    if (!list) return error_memory(error, bytes), NULL;
    facts->list = list;
    facts->capacity = capacity;
  }
  struct inspect_fact *fact = &facts->list[facts->count];
  *fact = (struct inspect_fact){.section = section, .text = arena_text(&facts->arena, text, strlen(text), error)};
  if (key) fact->key = arena_text(&facts->arena, key, strlen(key), error);
  if (!fact->text || (key && !fact->key)) return NULL;
  facts->count++;
  return fact;
}

int fact_text(struct inspect_facts *facts, const char *section, const char *key, struct error *error, const char *format,
              ...) {
  char text[2048];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return add(facts, section, key, text, error) ? 0 : -1;
}

int fact_value(struct inspect_facts *facts, const char *section, const char *key, int64_t value, struct error *error,
               const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  struct inspect_fact *fact = add(facts, section, key, text, error);
  if (!fact) return -1;
  fact->kind = INSPECT_INT;
  fact->integer = value;
  return 0;
}

int fact_int(struct inspect_facts *facts, const char *section, const char *key, int64_t value, struct error *error) {
  return fact_value(facts, section, key, value, error, "%lld", (long long)value);
}

int fact_real(struct inspect_facts *facts, const char *section, const char *key, double value, struct error *error,
              const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  struct inspect_fact *fact = add(facts, section, key, text, error);
  if (!fact) return -1;
  fact->kind = INSPECT_REAL;
  fact->real = value;
  return 0;
}

const char *bytes_text(size_t bytes, char out[32]) {
  static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = (double)bytes;
  int unit = 0;
  for (; value >= 1024 && unit < 4; unit++) value /= 1024;
  snprintf(out, 32, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return out;
}

int fact_bytes(struct inspect_facts *facts, const char *section, const char *key, size_t bytes, struct error *error) {
  char text[32];
  return fact_value(facts, section, key, (int64_t)bytes, error, "%s", bytes_text(bytes, text));
}

void inspect_clear(struct inspect_facts *facts) {
  free(facts->list);
  arena_clear(&facts->arena);
  memset(facts, 0, sizeof *facts);
}

/* ---- a file of tensors ---- */

static int list_tensors(const char *path, const struct tensors *tensors, struct inspect_facts *facts,
                        struct error *error) {
  char text[128], size[32];
  if (fact_text(facts, "file", "path", error, "%s", path) != 0 ||
      fact_text(facts, "file", "format", error, "%s", tensors_format(tensors)) != 0 ||
      fact_bytes(facts, "file", "size", tensors_bytes(tensors), error) != 0)
    return -1;
  for (size_t i = 0; i < tensors_count(tensors); i++) {
    const struct tensor *tensor = tensors_at(tensors, i);
    bool plain = tensor_is_contiguous(tensor);
    if (fact_text(facts, "tensors", tensor->name, error, "%s, %s%s%s", tensor_describe(tensor, text),
                  bytes_text(tensor->bytes, size), plain ? "" : ", transposed or a slice",
                  tensor->data || !tensor->bytes ? "" : ", compressed") != 0)
      return -1;
  }
  return 0;
}

static int inspect_file(const char *path, struct inspect_facts *facts, struct error *error) {
  struct tensors *tensors = tensors_open_lazy(path, error);
  if (!tensors) return -1;
  int failed = list_tensors(path, tensors, facts, error);
  tensors_close(tensors);
  return failed;
}

/* ---- a model ---- */

static int tell_model(const struct inspect_options *options, const struct model_place *place, struct backend *backend,
                      struct inspect_facts *facts, struct error *error) {
  struct model *model = model_open_place(NULL, place, backend, error);
  if (!model) return -1;
  int failed = inspect_model(model, facts, error);
  if (!failed && options->measure) failed = inspect_precision(model, facts, error);
  model_close(model);
  return failed;
}

/* A file that is no model of its own. */
static bool is_bare_file(const char *path) {
  if (!path_is_file(path) || ini_is_path(path)) return false;
  struct tensors *tensors = tensors_open_lazy(path, NULL);
  bool checkpoint = tensors && strcmp(tensors_format(tensors), "llama2.c") == 0;
  tensors_close(tensors);
  return !checkpoint;
}

/* A folder with weights and no config.json: its tensors are all there is to tell. */
static bool is_bare_folder(const char *path) {
  char config[HUB_PATH_BYTES];
  int n = snprintf(config, sizeof config, "%s/config.json", path);
  return path_is_directory(path) && n > 0 && n < HUB_PATH_BYTES && !path_is_file(config);
}

/* Whether the place is a dictionary's: a path that is recognised, or a name of the table that the cache has. `missing` says why
 * not where the table has the name; what no table knows may still be a model, whose reader words the error. */
static bool find_dictionary(const struct inspect_options *options, struct dict_place *out, struct error *missing) {
  struct release_place named;
  struct releases *releases = releases_open(strchr(options->place, '/') ? options->releases : NULL, missing);
  bool found = releases && dict_find(releases, options->place, (struct dict_folders){NULL, 0}, out, missing) == 0 && !ini_is_path(out->path) &&
               dict_recognises(out->path);
  if (!releases || releases_find(releases, options->place, &named, NULL) != 0) error_clear(missing);
  releases_close(releases);
  return found;
}

static int tell_dictionary(const struct dict_place *place, struct inspect_facts *facts, struct error *error) {
  const char *fence[] = {place->fence};
  if (*place->fence) mapfile_fence(fence, 1);
  int failed = inspect_dictionary(place->path, facts, error);
  if (*place->fence) mapfile_fence(NULL, 0);
  return failed;
}

static int inspect_a_model(const struct inspect_options *options, const struct model_place *place, struct inspect_facts *out,
                           struct error *error) {
  const char *name = options->backend ? options->backend : "auto";
  struct backend *backend = backend_open(name, options->threads > 0 ? options->threads : pool_processors(), error);
  if (!backend) return -1;
  int failed = tell_model(options, place, backend, out, error);
  backend_close(backend);
  return failed;
}

int inspect_place(const struct inspect_options *options, struct inspect_facts *out, struct error *error) {
  struct model_place place;
  struct dict_place dictionary;
  struct error missing = ERROR_INIT;
  memset(out, 0, sizeof *out);
  arena_init(&out->arena, 0);
  if (find_dictionary(options, &dictionary, &missing)) return tell_dictionary(&dictionary, out, error);
  struct model_names *names = model_names_open(options->names, error);
  int failed = names ? model_find(names, options->place, &place, missing.code ? NULL : error) : -1;
  model_names_close(names);
  if (failed && missing.code) return error_set(error, missing.code, "%s", missing.text);
  if (failed) return -1;
  if (is_bare_file(place.path) || is_bare_folder(place.path)) return inspect_file(place.path, out, error);
  bool model = true, described = ini_is_path(place.path);
  if (described && inspect_sources(place.path, NULL, &model, error) != 0) return -1;
  if (model && inspect_a_model(options, &place, out, error) != 0) return -1;
  return described ? inspect_sources(place.path, out, &model, error) : 0;
}
