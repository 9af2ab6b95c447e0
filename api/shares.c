/* shares.c: keeping a steering result, and POST /api/steer-load, which gives it back: the reply as it was, with what
 * was asked for beside it. */
#include "api/shares.h"

#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "core/base/json.h"

const struct field steer_load_fields[] = {
    {"steerOutputId", "id", FIELD_TEXT, .required = true, .min = 1, .max = 64, .text = "The id of the shared result."},
    {.name = NULL}};

int share_keep(struct api_call *call, const char *model, struct buffer *request, struct buffer *reply,
               const char **id, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  char made[STORE_SHARE_ID];
  if (!store) return lab_needs_store(error);
  if (buffer_check(request, error) != 0 || buffer_check(reply, error) != 0) return -1;
  struct store_share share = {.kind = "steer", .model = model, .request = request->data, .reply = reply->data};
  if (store_share_save(store, &share, made, error) != 0) return -1;
  *id = arena_text(&call->arena, made, strlen(made), error);
  return *id ? 0 : -1;
}

const char *share_url(struct api_call *call, const char *id, struct error *error) {
  const char *base = call_base(call, error);
  return base ? arena_printf(&call->arena, error, "%s/steer/%s", base, id) : NULL;
}

/* The members of a stored object, as members of the object that is open. */
static int write_members(struct json_writer *w, const char *text, struct error *error) {
  struct json_node *object = json_parse(text, strlen(text), 64, error);
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  while (object && json_next(object, &iterator, &key, &value)) {
    jw_key(w, key);
    jw_node(w, value);
  }
  json_free(object);
  return object ? 0 : -1;
}

int steer_load_post(struct api_call *call, struct error *error) {
  const char *id = values_text(call->values, "steerOutputId", NULL);
  struct store *store = lab_store(call->api->lab);
  struct store_share share;
  int found = store ? store_share_load(store, id, &call->arena, &share, error) : 0;
  if (found < 0) return -1;
  if (found == 0)
    return error_set_field(error, ERROR_NOT_FOUND, "steerOutputId", "there is no shared result '%.64s'", id);
  const char *url = share_url(call, share.id, error);
  if (!url) return -1;
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  if (write_members(&w, share.reply, error) != 0) return -1;
  jw_member_text(&w, "id", share.id);
  jw_member_text(&w, "shareUrl", url);
  jw_member_null(&w, "limit");
  if (write_members(&w, share.request, error) != 0) return -1;
  jw_member_text(&w, "createdAt", share.created_at);
  jw_close(&w, '}');
  return 0;
}
