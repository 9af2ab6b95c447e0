/* place.c: what of a request says where: the parts of its path, model and source, and which page of a list. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "api/call.h"

const char *call_part(struct api_call *call, const char *name, struct error *error) {
  size_t length = 0;
  const char *part = route_part(call->route->path, call->request->path, name, &length);
  return arena_text(&call->arena, part ? part : "", length, error);
}

static int find_place(struct api_call *call, const char *model, const char *source, const char *field,
                      struct place *out, struct error *error) {
  out->model = lab_find_model(call->api->lab, model, error);
  if (!out->model) return -1;
  out->source = lab_find_source(call->api->lab, out->model, source, field, error);
  return out->source ? 0 : -1;
}

int call_path_place(struct api_call *call, struct place *out, struct error *error) {
  const char *model = call_part(call, "model", error), *source = call_part(call, "source", error);
  if (!model || !source || find_place(call, model, source, "source", out, error) != 0) return -1;
  call->source = out->source;
  return 0;
}

int call_place(struct api_call *call, const struct values *values, const char *model_field, const char *source_field,
               const char *prefix, struct place *out, struct error *error) {
  char field[64];
  snprintf(field, sizeof field, "%s%s", prefix, source_field);
  return find_place(call, values_text(values, model_field, NULL), values_text(values, source_field, NULL), field, out,
                    error);
}

/* ---- what the store alone knows ----------------------------------------------------------------------- */

static int pass_on(const struct error *own, const char *field, struct error *error) {
  return error_set_field(error, own->code, field, "%s", own->text);
}

/* What there is beside the loaded models, which `own` names. */
static int refuse_model(struct api_call *call, const struct error *own, const char *field, struct error *error) {
  enum { NAMED = 5 };
  struct lab_model_info *models;
  size_t n, used = 0;
  char known[192] = "";
  if (lab_stored_models(call->api->lab, &call->arena, &models, &n, error) != 0) return -1;
  for (size_t i = 0; i < n && i < NAMED && used < sizeof known; i++)
    used += (size_t)snprintf(known + used, sizeof known - used, "%s'%.32s'", i ? ", " : "; registered: ", models[i].id);
  if (n > NAMED && used < sizeof known) snprintf(known + used, sizeof known - used, " and %zu more", n - NAMED);
  return error_set_field(error, own->code, field, "%s%s", own->text, known);
}

const struct lab_model_info *call_known_model(struct api_call *call, const char *id, const char *field, struct error *error) {
  struct error own = ERROR_INIT;
  const struct lab_model_info *model = lab_find_model(call->api->lab, id, &own);
  if (model) return model;
  struct lab_model_info *stored = arena_alloc(&call->arena, sizeof *stored, error);
  int found = !stored ? -1 : own.code == ERROR_NOT_FOUND ? lab_stored_model(call->api->lab, id, &call->arena, stored, error) : 0;
  if (found == 0 && id && own.code == ERROR_NOT_FOUND) return refuse_model(call, &own, field, error), NULL;
  if (found == 0 && id) (void)pass_on(&own, field, error);
  if (found == 0 && !id) error_set_field(error, own.code, field, "'%s' is required: %s", field, own.text);
  return found == 1 ? stored : NULL;
}

/* A source of a model that is known from the store alone; NULL. */
static const struct lab_source_info *stored_source(struct api_call *call, const struct lab_model_info *model, const char *id,
                                                   const struct error *own, const char *field, struct error *error) {
  struct lab_source_info *stored = arena_alloc(&call->arena, sizeof *stored, error);
  int found = stored ? lab_stored_source(call->api->lab, model, id, &call->arena, stored, error) : -1;
  if (found == 0 && own->code)
    (void)pass_on(own, field, error);
  else if (found == 0)
    error_set_field(error, ERROR_NOT_FOUND, field, "model '%.64s', which is known from the store alone, has no source '%.64s'; "
                    "POST /api/source-set/new makes a set of them", model->id, id);
  return found == 1 ? stored : NULL;
}

int call_known_place(struct api_call *call, const char *model, const char *source, const char *field, struct place *out,
                     struct error *error) {
  struct error own = ERROR_INIT;
  out->model = call_known_model(call, model, "modelId", error);
  if (!out->model) return -1;
  out->source = out->model->stored ? NULL : lab_find_source(call->api->lab, out->model, source, field, &own);
  if (out->source) return 0;
  if (own.code && own.code != ERROR_NOT_FOUND) return pass_on(&own, field, error);
  out->source = stored_source(call, out->model, source, &own, field, error);
  return out->source ? 0 : -1;
}

/* A source in the call's arena is not noted as used when the kept reply is given again. */
int call_known_path(struct api_call *call, struct place *out, struct error *error) {
  const char *model = call_part(call, "model", error), *source = call_part(call, "source", error);
  if (!model || !source || call_known_place(call, model, source, "source", out, error) != 0) return -1;
  if (!out->source->stored) call->source = out->source;
  return 0;
}

int call_check_index(const struct lab_source_info *source, int64_t index, const char *field, struct error *error) {
  if (index >= 0 && index < source->n_feat) return 0;
  if (source->n_feat == 0)
    return error_set_field(error, ERROR_NOT_FOUND, field, "source '%.64s' has no features yet; POST /api/feature/upload-batch brings "
                           "them", source->id);
  return error_set_field(error, ERROR_NOT_FOUND, field,
                         "source '%.64s' has no feature %" PRId64 "; its indices go from 0 to %" PRId64, source->id, index,
                         source->n_feat - 1);
}

int call_check_known(struct api_call *call, const struct lab_source_info *source, int64_t index, const char *field, struct error *error) {
  struct store_feature feature;
  int64_t count = 0;
  struct store *store = lab_store(call->api->lab);
  if (call_check_index(source, index, field, error) != 0) return -1;
  if (!source->stored) return 0;
  int found = store_feature_get(store, source->stored, (uint32_t)index, 1, &call->arena, &feature, error);
  if (found != 0) return found > 0 ? 0 : -1;
  if (store_feature_count(store, source->stored, &count, error) != 0) return -1;
  return error_set_field(error, ERROR_NOT_FOUND, field, "nothing is known of feature %" PRId64 " of source '%.64s': %" PRId64 " %s", index, source->id, count,
                         count == 1 ? "feature was uploaded, and it is another one" : "features were uploaded, and it is none of them");
}

/* ---- room ---------------------------------------------------------------------------------------------- */

int call_may_add(struct api_call *call, struct error *error) {
  struct store *store = lab_store(call->api->lab);
  int64_t bytes = 0, most = call->api->options.max_store;
  if (!store) return lab_needs_store(error);
  if (most == 0) return 0;
  if (store_bytes(store, &bytes, error) != 0) return -1;
  if (bytes + (int64_t)call->request->body_length <= most) return 0;
  return error_set(error, ERROR_FULL, "the store has %" PRId64 " bytes, and clients may add to it up to %" PRId64 " (setting 'max_store'): something has "
                   "to be deleted first, or the setting raised by whoever runs the server", bytes, most);
}

/* ---- pages -------------------------------------------------------------------------------------------- */

/* Everything but the letters that are safe in any part of a URL is written as %XX. */
static void add_encoded(struct buffer *out, const char *text, const char *safe) {
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || strchr(safe, c);
    if (plain)
      buffer_char(out, (char)c);
    else
      buffer_printf(out, "%%%02X", c);
  }
}

/* The request's own address with another offset. */
static void add_link(const struct api_request *request, const char *base, struct buffer *out, const char *rel, int64_t offset) {
  buffer_printf(out, "%s<%s", out->length ? ", " : "", base);
  add_encoded(out, request->path, "-._~/");
  char mark = '?';
  for (size_t i = 0; i < request->n_query; i++) {
    if (field_same_name(request->query[i].name, "offset")) continue;
    buffer_char(out, mark);
    add_encoded(out, request->query[i].name, "-._~");
    buffer_char(out, '=');
    add_encoded(out, request->query[i].value, "-._~");
    mark = '&';
  }
  buffer_printf(out, "%coffset=%" PRId64 ">; rel=\"%s\"", mark, offset, rel);
}

static int add_links(struct api_call *call, const struct page *page, struct error *error) {
  const char *base = call_base(call, error);
  struct buffer links;
  if (!base) return -1;
  buffer_init(&links, 16384);
  int64_t next = page->offset + page->limit, back = page->offset - page->limit;
  if (page->offset > 0) add_link(call->request, base, &links, "first", 0);
  if (page->offset > 0) add_link(call->request, base, &links, "prev", back > 0 ? back : 0);
  if (page->total >= 0 ? next < page->total : page->more) add_link(call->request, base, &links, "next", next);
  int result = buffer_check(&links, error);
  if (result == 0 && links.length) {
    const char *text = arena_text(&call->arena, links.data, links.length, error);
    if (text) call_add_header(call, "Link", text);
    result = text ? 0 : -1;
  }
  buffer_clear(&links);
  return result;
}

int call_add_page(struct api_call *call, const struct page *page, struct error *error) {
  if (page->total >= 0) {
    const char *total = arena_printf(&call->arena, error, "%" PRId64, page->total);
    if (!total) return -1;
    call_add_header(call, "X-Total-Count", total);
  }
  return page->limit > 0 ? add_links(call, page, error) : 0;
}

/* ---- sets ---- */

static int refuse_set(struct api_call *call, const struct lab_model_info *model, const char *set, const char *field, struct error *error) {
  char sets[256] = "";
  const struct lab_source_info *const *items;
  size_t n = lab_sources(call->api->lab, model, &items);
  for (size_t i = 0; i < n; i++) {
    size_t k = 0, used = strlen(sets);
    while (strcmp(items[k]->set, items[i]->set) != 0) k++;
    if (k == i) snprintf(sets + used, sizeof sets - used, "%s'%s'", used ? ", " : "", items[i]->set);
  }
  size_t used = strlen(sets);
  if (model->d_mlp > 0) snprintf(sets + used, sizeof sets - used, "%s'" LAB_NEURONS "'", used ? ", " : "");
  return error_set_field(error, ERROR_NOT_FOUND, field, "model '%.64s' has no source set '%.64s'; it has %s",
                         model->id, set, sets[0] ? sets : "none");
}

int call_source_set(struct api_call *call, const struct lab_model_info *model, const char *set, const char *field,
                    const struct lab_source_info ***out, size_t *n, struct error *error) {
  if (lab_source_set(call->api->lab, model, set, &call->arena, out, n, error) != 0) return -1;
  return *n ? 0 : refuse_set(call, model, set, field, error);
}
