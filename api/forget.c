/* forget.c: taking away what was registered and uploaded: POST /api/model/delete, /api/source-set/delete, /api/feature/delete, and
 * DELETE /v1/sources of a source without a dictionary.
 *
 * Everybody may add; only this machine, or who has a key, takes away what others may have added. Lists, explanations and vectors
 * have routes of their own, where they are made. */
#include "api/handlers.h"
#include "api/reply.h"

const struct field model_delete_fields[] = {
    {"id", "modelId", FIELD_TEXT, .required = true, .min = 1, .max = 256, .text = "A model that is not loaded."}, {.name = NULL}};

const struct field source_set_delete_fields[] = {
    MODEL_ROW, {"name", NULL, FIELD_TEXT, .required = true, .min = 1, .max = 256, .text = "A set that was registered, uploaded or imported."}, {.name = NULL}};

const struct field feature_delete_fields[] = {MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW, {.name = NULL}};

/* Answers strangers; true when it did. */
static bool turn_away(struct api_call *call) {
  if (call->request->trusted) return false;
  reply_refuse(call, 403, "forbidden", TEXT_UNTRUSTED_FORGET);
  return true;
}

int model_delete_post(struct api_call *call, struct error *error) {
  if (turn_away(call)) return 0;
  if (!lab_store(call->api->lab)) return lab_needs_store(error);
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "id", NULL), "id", error);
  if (!model || lab_forget_model(call->api->lab, model, error) != 0) return -1;
  return reply_success(call);
}

int source_set_delete_post(struct api_call *call, struct error *error) {
  if (turn_away(call)) return 0;
  if (!lab_store(call->api->lab)) return lab_needs_store(error);
  const struct lab_model_info *model = call_known_model(call, values_text(call->values, "modelId", NULL), "modelId", error);
  if (!model || lab_forget_set(call->api->lab, model, values_text(call->values, "name", NULL), error) != 0) return -1;
  return reply_success(call);
}

int feature_delete_post(struct api_call *call, struct error *error) {
  struct place place;
  int64_t index = values_int(call->values, "index");
  if (turn_away(call)) return 0;
  if (!lab_store(call->api->lab)) return lab_needs_store(error);
  if (call_known_place(call, values_text(call->values, "modelId", NULL), values_text(call->values, "source", NULL), "source", &place, error) != 0)
    return -1;
  if (!place.source->stored)
    return error_set_field(error, ERROR_CONFLICT, "source", "source '%.64s' has a dictionary, whose features stay: only what was uploaded to a source without "
                           "one is deleted", place.source->id);
  if (call_check_known(call, place.source, index, "index", error) != 0 ||
      store_forget_feature(lab_store(call->api->lab), place.source->stored, (uint32_t)index, error) < 0)
    return -1;
  return reply_success(call);
}

int source_forget(struct api_call *call, const struct lab_source_info *source, struct error *error) {
  if (lab_forget_source(call->api->lab, source, error) != 0) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "modelId", source->model_id);
  jw_member_text(&w, "source", source->id);
  jw_member_text(&w, "state", "deleted");
  jw_close(&w, '}');
  return 0;
}
