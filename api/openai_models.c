/* openai_models.c: GET /v1/models: what is loaded, as OpenAI lists it. */
#include <string.h>
#include <time.h>

#include "api/handlers.h"
#include "api/openai.h"
#include "core/base/clock.h"

/* When it was loaded: models stay as long as the daemon runs. */
static int64_t loaded_at(const struct api_call *call) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec - (clock_ns() - call->api->started_ns)) / 1000000000;
}

static void write_model(struct json_writer *w, const struct api_call *call, const struct lab_model_info *model) {
  jw_open(w, '{');
  jw_member_text(w, "id", model->id);
  jw_member_text(w, "object", "model");
  jw_member_int(w, "created", loaded_at(call));
  jw_member_text(w, "owned_by", "steerd");
  jw_member_int(w, "context_window", model->n_ctx);
  jw_member_text(w, "chat_format", model->chat_format);
  jw_close(w, '}');
}

int openai_models_get(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_model_info *models;
  size_t count = lab_models(call->api->lab, &models);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "object", "list");
  jw_key(&w, "data");
  jw_open(&w, '[');
  for (size_t i = 0; i < count; i++) write_model(&w, call, &models[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

static const struct lab_model_info *find_model(struct api_call *call, const char *id, struct error *error) {
  struct error own = ERROR_INIT;
  const struct lab_model_info *model = lab_find_model(call->api->lab, id, &own);
  if (!model) error_set_field(error, own.code, "model", "%s", own.text);
  return model;
}

/* Names of a hub have an owner in front: /v1/models/openai-community/gpt2. */
int openai_model_get(struct api_call *call, struct error *error) {
  const char *id = call_part(call, "model", error), *owner = "";
  if (id && strstr(call->route->path, "{owner}")) {
    owner = call_part(call, "owner", error);
    id = owner ? arena_printf(&call->arena, error, "%s/%s", owner, id) : NULL;
  }
  const struct lab_model_info *model = id ? find_model(call, id, error) : NULL;
  if (!model) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  write_model(&w, call, model);
  return 0;
}
