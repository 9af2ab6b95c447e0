/* lab_settings.c: from the option table to the lab's options; reads [ID=]PLACE and MODEL/SOURCE=PATH; finds the demo when no
 * model is named. */
#include "server/lab_settings.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/mapfile.h"
#include "server/place.h"

#define DEMO_SOURCES 32

/* PREFIX/share/steerd/demo, or config/demo of the source tree; *out NULL when there is neither. */
static int locate_demo(struct options *o, const char **out, struct error *error) {
  if (place_find("demo", &o->arena, out, error) != 0) return -1;
  return *out ? 0 : place_find("config/demo", &o->arena, out, error);
}

const char *lab_settings_place(struct options *o, const char *place, struct error *error) {
  const char *demo = NULL, *rest = place + strcspn(place, "/?");
  bool named = rest - place == 4 && strncmp(place, "demo", 4) == 0;
  if (!named || access(place, F_OK) == 0) return place;
  if (locate_demo(o, &demo, error) != 0) return NULL;
  if (!demo) return place;
  return arena_printf(&o->arena, error, "%s%s%s", demo, *rest == '/' ? "/sources" : "", rest);
}

static int split_model(struct options *o, const char *item, struct lab_model_spec *out, struct error *error) {
  const char *equals = strchr(item, '=');
  if (!equals) return out->id = NULL, out->path = lab_settings_place(o, item, error), out->path ? 0 : -1;
  if (equals == item || !equals[1])
    return error_set(error, ERROR_ARGUMENT, "model: '%.200s' is not ID=PLACE; example: gpt2-small=/models/gpt2", item);
  out->id = arena_text(&o->arena, item, (size_t)(equals - item), error);
  out->path = equals + 1;
  return out->id ? 0 : -1;
}

/* A model's id may hold slashes, a source's may not. MODEL/SOURCE alone is also where it is: as Neuronpedia calls it. */
static int split_source(struct options *o, const char *item, struct lab_source_spec *out, struct error *error) {
  const char *equals = strchrnul(item, '=');
  const char *slash = memrchr(item, '/', (size_t)(equals - item));
  if (!slash || slash == item || slash + 1 == equals || (*equals && !equals[1]))
    return error_set(error, ERROR_ARGUMENT,
                     "source: '%.200s' is not MODEL/SOURCE=PLACE; examples: gpt2-small/7-res-jb=/saes/7, or gpt2-small/7-res-jb "
                     "for what is published under that name", item);
  out->model_id = arena_text(&o->arena, item, (size_t)(slash - item), error);
  out->source_id = arena_text(&o->arena, slash + 1, (size_t)(equals - slash - 1), error);
  out->path = *equals ? equals + 1 : lab_settings_place(o, item, error);
  return out->model_id && out->source_id && out->path ? 0 : -1;
}

static int read_specs(struct options *o, struct lab_options *out, struct error *error) {
  struct lab_model_spec *models = arena_array(&o->arena, o->model.count + 1, sizeof *models, error);
  struct lab_source_spec *sources = arena_array(&o->arena, o->source.count + 1, sizeof *sources, error);
  if (!models || !sources) return -1;
  for (size_t i = 0; i < o->model.count; i++)
    if (split_model(o, o->model.items[i], &models[i], error)) return -1;
  for (size_t i = 0; i < o->source.count; i++)
    if (split_source(o, o->source.items[i], &sources[i], error)) return -1;
  out->models = models;
  out->n_models = o->model.count;
  out->sources = sources;
  out->n_sources = o->source.count;
  return 0;
}

/* ---- the demo ---- */

/* NULL with an error where it is not. */
static const char *find_demo(struct options *o, struct error *error) {
  const char *demo;
  if (locate_demo(o, &demo, error) != 0) return NULL;
  if (!demo)
    error_set(error, ERROR_ARGUMENT,
              "no model is named and the demo is not beside this program; give one with --model ID=FOLDER or --model NAME");
  return demo;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct lab_source_spec *)a)->source_id, ((const struct lab_source_spec *)b)->source_id);
}

/* Every folder below demo/sources is a source of that name; behind them stand those of --source. */
static int demo_sources(struct options *o, const char *demo, struct lab_options *out, struct error *error) {
  struct lab_source_spec *sources = arena_array(&o->arena, DEMO_SOURCES + o->source.count, sizeof *sources, error);
  const char *folder = arena_printf(&o->arena, error, "%s/sources", demo);
  DIR *list = folder ? opendir(folder) : NULL;
  struct dirent *entry;
  if (!sources || !folder) return -1;
  while (list && (entry = readdir(list)) && out->n_sources < DEMO_SOURCES) {
    const char *path = arena_printf(&o->arena, error, "%s/%s", folder, entry->d_name);
    if (entry->d_name[0] == '.' || !path || !path_is_directory(path)) continue;
    struct lab_source_spec *source = &sources[out->n_sources++];
    *source = (struct lab_source_spec){"demo", arena_text(&o->arena, entry->d_name, strlen(entry->d_name), error), path};
  }
  if (list) closedir(list);
  qsort(sources, out->n_sources, sizeof *sources, by_name);
  for (size_t i = 0; i < o->source.count; i++)
    if (split_source(o, o->source.items[i], &sources[out->n_sources++], error) != 0) return -1;
  out->sources = sources;
  return 0;
}

const char *lab_settings_demo_store(struct options *o, struct error *error) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if ((!cache || !*cache) && (!home || !*home)) return "";
  char *top = cache && *cache ? arena_printf(&o->arena, error, "%s", cache)
                              : arena_printf(&o->arena, error, "%s/.cache", home);
  char *folder = top ? arena_printf(&o->arena, error, "%s/steerd", top) : NULL;
  if (!folder || (mkdir(top, 0700) && errno != EEXIST) || (mkdir(folder, 0700) && errno != EEXIST)) return "";
  return arena_printf(&o->arena, error, "%s/demo.sqlite", folder);
}

static int serve_demo(struct options *o, struct lab_options *out, struct error *error) {
  const char *demo = find_demo(o, error);
  if (!demo) return -1;
  struct lab_model_spec *model = arena_array(&o->arena, 1, sizeof *model, error);
  if (!model) return -1;
  *model = (struct lab_model_spec){"demo", demo};
  out->models = model;
  out->n_models = 1;
  return demo_sources(o, demo, out, error);
}

/* ---- where from ---- */

/* Those of the setting, and the demo's where it is. */
static int find_folders(struct options *o, struct lab_options *out, struct error *error) {
  const char *demo = NULL;
  const char **folders = arena_array(&o->arena, o->source_folders.count + 1, sizeof *folders, error);
  if (!folders || locate_demo(o, &demo, error) != 0) return -1;
  for (size_t i = 0; i < o->source_folders.count; i++) folders[out->n_folders++] = o->source_folders.items[i];
  if (demo) folders[out->n_folders++] = demo;
  out->folders = folders;
  if (o->source_folders.count) out->train_folder = o->source_folders.items[0];
  return 0;
}

/* A table of names: that of the setting, or the one that came with the program. */
static int find_table(struct options *o, const char *setting, const char *name, const char **out, struct error *error) {
  *out = *setting ? setting : NULL;
  if (strcmp(setting, "auto") != 0) return 0;
  const char *in_tree = arena_printf(&o->arena, error, "config/%s", name);
  if (!in_tree || place_find(name, &o->arena, out, error) != 0) return -1;
  return *out ? 0 : place_find(in_tree, &o->arena, out, error);
}

int lab_settings_names(struct options *o, const char **models, const char **dictionaries, struct error *error) {
  if (find_table(o, o->aliases, "aliases.ini", models, error) != 0) return -1;
  return find_table(o, o->releases, "releases.ini", dictionaries, error);
}

/* As backend_open takes it; processors need not be asked for what they always do. */
const char *lab_settings_device(struct options *o, struct error *error) {
  bool asked = o->deterministic && strncmp(o->device, "cpu", 3) != 0 && strcmp(o->device, "ref") != 0;
  return arena_printf(&o->arena, error, "%s%s", o->device, asked ? "+deterministic" : "");
}

bool lab_settings_is_demo(const struct options *o) {
  bool all = o->model.count == 0;
  for (size_t i = 0; i < o->source.count; i++) all = all && strncmp(o->source.items[i], "demo/", 5) == 0;
  return all;
}

int lab_settings(struct options *o, struct lab_options *out, struct error *error) {
  *out = (struct lab_options){.store = strcmp(o->store, "auto") == 0 ? "" : o->store,
                              .backend = lab_settings_device(o, error),
                              .threads = (int)o->threads,
                              .max_queue = (int)o->max_queue,
                              .max_step_rows = (int)o->max_step_rows,
                              .max_sessions = (int)o->max_sessions,
                              .kv_bytes = (size_t)o->kv_mib << 20,
                              .dict_budget = (size_t)o->dict_budget,
                              .dict_dtype = o->dict_dtype,
                              .queue_timeout_ms = (int)o->queue_timeout,
                              .generation_timeout_ms = (int)o->generation_timeout,
                              .prefix_cache = o->prefix_cache,
                              .set_aside = o->set_aside};
  if (!out->backend || find_folders(o, out, error) != 0 || lab_settings_names(o, &out->aliases, &out->releases, error) != 0) return -1;
  return lab_settings_is_demo(o) ? serve_demo(o, out, error) : read_specs(o, out, error);
}
