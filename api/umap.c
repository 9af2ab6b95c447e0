/* umap.c: POST /api/umap: the maps of sources. Where a small one is missing it is made while the request waits, and kept. */
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"
#include "core/archive.h"

#define SOURCES_MOST 128

const struct field umap_fields[] = {
    MODEL_ROW,
    {"layers", "sources", FIELD_NAMES, .required = true, .min = 1, .max = 1024, .example = "[\"7-res-jb\"]", .text = "The sources."},
    {.name = NULL}};

static void write_row(struct json_writer *w, const struct lab_source_info *source, const struct store_map_row *row) {
  jw_open(w, '{');
  jw_member_text(w, "modelId", source->model_id);
  jw_member_text(w, "layer", source->id);
  reply_digits(w, "index", row->index);
  jw_member_text(w, "description", row->description ? row->description : "");
  rows_map_place(w, &row->place, row->rate);
  jw_close(w, '}');
}

static int finish_umap(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_map *maps = lab_maps_result(call->job);
  size_t n = *(const size_t *)call->plan;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  for (size_t i = 0; i < n; i++) {
    jw_key_as_it_is(&w, maps[i].source->id);
    jw_open(&w, '[');
    for (size_t r = 0; r < maps[i].n; r++) write_row(&w, maps[i].source, &maps[i].rows[r]);
    jw_close(&w, ']');
  }
  jw_close(&w, '}');
  return 0;
}

/* Each once: names are keys of the reply. */
static bool is_among(const struct lab_source_info *const *sources, size_t n, const struct lab_source_info *source) {
  for (size_t i = 0; i < n; i++)
    if (strcmp(sources[i]->id, source->id) == 0) return true;
  return false;
}

static const struct lab_source_info **read_sources(struct api_call *call, size_t *n, struct error *error) {
  char field[32];
  const char *id = values_text(call->values, "modelId", NULL);
  const struct lab_model_info *model = id ? call_known_model(call, id, "modelId", error) : call_model(call, call->values, "modelId", error);
  size_t given = values_count(call->values, "layers");
  *n = 0;
  if (!model) return NULL;
  if (given < 1 || given > SOURCES_MOST)
    return error_set_field(error, ERROR_ARGUMENT, "layers", "'layers' has %zu sources, allowed are 1 to %d", given, SOURCES_MOST), NULL;
  const struct lab_source_info **sources = arena_array(&call->arena, given, sizeof *sources, error);
  for (size_t i = 0; sources && i < given; i++) {
    snprintf(field, sizeof field, "layers[%zu]", i);
    struct place place;
    if (call_known_place(call, model->id, values_text_at(call->values, "layers", i, NULL), field, &place, error) != 0) return NULL;
    if (!is_among(sources, *n, place.source)) sources[(*n)++] = place.source;
  }
  return sources;
}

int umap_post(struct api_call *call, struct error *error) {
  size_t *n = arena_alloc(&call->arena, sizeof *n, error);
  if (!n) return -1;
  const struct lab_source_info **sources = read_sources(call, n, error);
  if (!sources) return -1;
  call->plan = n;
  call->finish = finish_umap;
  return lab_maps(call->api->lab, sources, *n, call->waker, &call->job, error);
}
