/* lab_settings.c: from the option table to the lab's options; reads ID=PATH and MODEL/SOURCE=PATH. */
#include "server/lab_settings.h"

#include <string.h>

static int split_model(struct options *o, const char *item, struct lab_model_spec *out, struct error *error) {
  const char *equals = strchr(item, '=');
  if (!equals || equals == item || !equals[1])
    return error_set(error, ERROR_ARGUMENT, "model: '%.200s' is not ID=PATH; example: gpt2-small=/models/gpt2", item);
  out->id = arena_text(&o->arena, item, (size_t)(equals - item), error);
  out->path = equals + 1;
  return out->id ? 0 : -1;
}

/* A model's id may hold slashes, a source's may not. */
static int split_source(struct options *o, const char *item, struct lab_source_spec *out, struct error *error) {
  const char *equals = strchr(item, '=');
  const char *slash = equals ? memrchr(item, '/', (size_t)(equals - item)) : NULL;
  if (!slash || slash == item || slash + 1 == equals || !equals[1])
    return error_set(error, ERROR_ARGUMENT,
                     "source: '%.200s' is not MODEL/SOURCE=PATH; example: gpt2-small/7-res-jb=/saes/7", item);
  out->model_id = arena_text(&o->arena, item, (size_t)(slash - item), error);
  out->source_id = arena_text(&o->arena, slash + 1, (size_t)(equals - slash - 1), error);
  out->path = equals + 1;
  return out->model_id && out->source_id ? 0 : -1;
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

int lab_settings(struct options *o, struct lab_options *out, struct error *error) {
  *out = (struct lab_options){.store = o->store,
                              .aliases = *o->aliases ? o->aliases : NULL,
                              .backend = o->backend,
                              .threads = (int)o->threads,
                              .max_queue = (int)o->max_queue,
                              .max_step_rows = (int)o->max_step_rows,
                              .max_sessions = (int)o->max_sessions,
                              .kv_bytes = (size_t)o->kv_mib << 20,
                              .queue_timeout_ms = (int)o->queue_timeout,
                              .generation_timeout_ms = (int)o->generation_timeout};
  return read_specs(o, out, error);
}
