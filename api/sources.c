/* sources.c: dictionaries that come and go: GET, POST and DELETE /v1/sources (of what has no dictionary: forget.c). Loading reads files of this machine, so it takes
 * its owner (loopback or a key); looking is free. */
#include <string.h>
#include <time.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/rows.h"

const struct field sources_fields[] = {{.name = NULL}};

const struct field source_new_fields[] = {
    MODEL_ROW,
    {"source", "sourceId", FIELD_SOURCE, .required = true,
     .text = "What it is called from now on, LAYER-SET as in \"7-res-jb\"; a layer that is not the dictionary's is refused."},
    {"path", NULL, FIELD_TEXT, .min = 1, .max = 4096,
     .text = "A folder, a file or an ini inside one of the allowed folders (setting source_folders), where relative paths start; "
             "or a published name such as gpt2-small-res-jb/blocks.7.hook_resid_pre, which may be in the Hugging Face cache "
             "too. Left out: what is published as modelId/source."},
    {.name = NULL}};

static void member_time(struct json_writer *w, const char *key, int64_t seconds) {
  char text[32];
  struct tm utc;
  time_t at = (time_t)seconds;
  if (seconds > 0 && gmtime_r(&at, &utc) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc))
    jw_member_text(w, key, text);
  else
    jw_member_null(w, key);
}

/* `open`: paths are for those who may load from them. */
static void write_status(struct json_writer *w, const struct lab_source_status *status, bool open) {
  jw_open(w, '{');
  jw_member_text(w, "modelId", status->model_id);
  jw_member_text(w, "source", status->source_id);
  jw_member_text(w, "state", lab_source_word(status->state));
  member_time(w, "lastUsedAt", status->used_at);
  if (open) jw_member_text(w, "path", status->path);
  if (status->info)
    source_members(w, status->info);
  else
    jw_member_int(w, "bytes", (int64_t)status->bytes);
  jw_member_int(w, "encoderBytes", (int64_t)status->encoder_bytes);
  jw_close(w, '}');
}

int sources_get(struct api_call *call, struct error *error) {
  struct lab_source_status *rows;
  size_t n;
  if (lab_source_list(call->api->lab, &call->arena, &rows, &n, error) != 0) return -1;
  struct lab_stats stats;
  struct json_writer w;
  lab_stats(call->api->lab, &stats);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_int(&w, "encoderBytes", (int64_t)stats.dict_encoder_bytes);
  if (stats.dict_budget)
    jw_member_int(&w, "budget", (int64_t)stats.dict_budget);
  else
    jw_member_null(&w, "budget");
  jw_key(&w, "sources");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) write_status(&w, &rows[i], call->request->trusted);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

/* ---- load --------------------------------------------------------------------------------------------- */

/* Answers strangers; true when it did. */
static bool turn_away(struct api_call *call) {
  if (call->request->trusted) return false;
  reply_refuse(call, 403, "forbidden", TEXT_UNTRUSTED_SOURCES);
  return true;
}

static int finish_load(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_source_info *source = lab_source_load_result(call->job);
  struct json_writer w;
  call->status = 201;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", source->model_id);
  jw_member_text(&w, "source", source->id);
  jw_member_text(&w, "state", lab_source_word(LAB_SOURCE_READY));
  source_members(&w, source);
  jw_close(&w, '}');
  return 0;
}

int sources_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  if (turn_away(call)) return 0;
  const struct lab_model_info *model = call_model(call, values, "modelId", error);
  const char *source = values_text(values, "source", NULL);
  if (!model) return -1;
  if (source[strspn(source, "0123456789")] == '\0')
    return error_set_field(error, ERROR_ARGUMENT, "source", "'source' names the MLP neurons of layer %.20s, which come with the model: give the "
                           "dictionary a name such as '%.20s-res-jb'", source, source);
  struct lab_source_spec spec = {model->id, source, values_text(values, "path", NULL)};
  call->finish = finish_load;
  return lab_source_load(call->api->lab, &spec, call->waker, &call->job, error);
}

/* ---- unload ------------------------------------------------------------------------------------------- */

int source_delete(struct api_call *call, struct error *error) {
  struct place place;
  if (turn_away(call)) return 0;
  if (call_known_path(call, &place, error) != 0) return -1;
  if (place.source->stored) return source_forget(call, place.source, error);
  if (lab_source_unload(call->api->lab, place.source, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", place.source->model_id);
  jw_member_text(&w, "source", place.source->id);
  jw_member_text(&w, "state", lab_source_word(LAB_SOURCE_UNLOADING));
  jw_close(&w, '}');
  return 0;
}
