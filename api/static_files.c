/* static_files.c: the dashboard's files in memory, and the routes that give them out: /static/NAME, and for every
 * page the one shell. Refuses to know what the pages show: they are clients of the API like others. */
#include "api/static_files.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/call.h"
#include "api/handlers.h"
#include "api/vector_features.h"
#include "core/base/mapfile.h"

enum { FILES_MOST = 128, FILE_BYTES_MOST = 1 << 20, SEGMENT_BYTES = 256 };

/* ---- reading ------------------------------------------------------------------------------------------ */

static const char *type_of(const char *name) {
  static const struct {
    const char *ending, *type;
  } types[] = {{".html", "text/html; charset=utf-8"},
               {".css", "text/css; charset=utf-8"},
               {".js", "text/javascript; charset=utf-8"},
               {".svg", "image/svg+xml"},
               {".png", "image/png"}};
  const char *ending = strrchr(name, '.');
  for (size_t i = 0; ending && i < sizeof types / sizeof types[0]; i++)
    if (strcmp(ending, types[i].ending) == 0) return types[i].type;
  return NULL;
}

/* Hidden files, editors' copies and folders have other names. */
static bool is_served(const char *name) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
  return isalnum((unsigned char)name[0]) && name[strspn(name, letters)] == '\0' && type_of(name);
}

/* FNV-1a, 64 bits: tells versions of a file apart, and guards nothing. */
static uint64_t hash_bytes(const char *data, size_t length) {
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < length; i++) hash = (hash ^ (unsigned char)data[i]) * UINT64_C(0x100000001b3);
  return hash;
}

static int load_file(struct static_file *out, const char *folder, const char *name, struct arena *arena,
                     struct error *error) {
  const char *path = arena_printf(arena, error, "%s/%s", folder, name);
  char *data = NULL;
  if (!path || file_read(path, FILE_BYTES_MOST, &data, &out->length, error) != 0) return -1;
  out->body = arena_text(arena, data, out->length, error);
  out->etag = arena_printf(arena, error, "W/\"%016llx\"", (unsigned long long)hash_bytes(data, out->length));
  out->name = arena_text(arena, name, strlen(name), error);
  out->type = type_of(name);
  free(data);
  return out->body && out->etag && out->name ? 0 : -1;
}

static int by_name(const void *a, const void *b) {
  const struct static_file *x = a, *y = b;
  return strcmp(x->name, y->name);
}

static int load_all(struct static_files *out, DIR *directory, const char *folder, struct arena *arena,
                    struct error *error) {
  for (struct dirent *entry; (entry = readdir(directory));) {
    if (!is_served(entry->d_name)) continue;
    if (out->count == FILES_MOST)
      return error_set(error, ERROR_LIMIT, "'%s' has more than %d files", folder, FILES_MOST);
    if (load_file(&out->files[out->count], folder, entry->d_name, arena, error) != 0) return -1;
    out->count++;
  }
  qsort(out->files, out->count, sizeof *out->files, by_name);
  if (static_files_find(out, STATIC_SHELL)) return 0;
  return error_set(error, ERROR_NOT_FOUND, "'%s' has no %s: it is not the dashboard's folder", folder, STATIC_SHELL);
}

int static_files_load(struct static_files *out, const char *folder, struct arena *arena, struct error *error) {
  *out = (struct static_files){arena_array(arena, FILES_MOST, sizeof *out->files, error), 0};
  if (!out->files) return -1;
  DIR *directory = opendir(folder);
  if (!directory)
    return error_set(error, errno == ENOENT ? ERROR_NOT_FOUND : ERROR_IO, "'%s': %s", folder, strerror(errno));
  int result = load_all(out, directory, folder, arena, error);
  closedir(directory);
  return result;
}

const struct static_file *static_files_find(const struct static_files *files, const char *name) {
  struct static_file wanted = {.name = name};
  return files->count ? bsearch(&wanted, files->files, files->count, sizeof wanted, by_name) : NULL;
}

/* ---- giving out --------------------------------------------------------------------------------------- */

/* Whether If-None-Match names this version: '*', or a list of tags, compared weakly. */
static bool is_known(const struct api_call *call, const char *etag) {
  const char *tags = request_header(call->request, "If-None-Match");
  const char *opaque = strchr(etag, '"');
  return tags && (strcmp(tags, "*") == 0 || strstr(tags, opaque));
}

static int send_file(struct api_call *call, const struct static_file *file, int status) {
  call_add_header(call, "Cache-Control", "no-cache");
  call_add_header(call, "ETag", file->etag);
  call->content_type = file->type;
  call->status = status == 200 && is_known(call, file->etag) ? 304 : status;
  if (call->status != 304) buffer_append(&call->body, file->body, file->length);
  return 0;
}

int static_get(struct api_call *call, struct error *error) {
  char name[SEGMENT_BYTES];
  const char *sent = call->request->path + strlen("/static/");
  snprintf(name, sizeof name, "%.*s", (int)strcspn(sent, "/"), sent);
  const struct static_file *file = static_files_find(&call->api->files, name);
  return file ? send_file(call, file, 200) : error_set(error, ERROR_NOT_FOUND, TEXT_MISSING);
}

/* ---- pages -------------------------------------------------------------------------------------------- */

static const char *query_value(const struct api_request *request, const char *name) {
  for (size_t i = 0; i < request->n_query; i++)
    if (strcmp(request->query[i].name, name) == 0) return request->query[i].value;
  return NULL;
}

/* Copies the next segment out of *path. */
static void take_segment(const char **path, char out[SEGMENT_BYTES]) {
  *path += **path == '/';
  size_t length = strcspn(*path, "/");
  snprintf(out, SEGMENT_BYTES, "%.*s", (int)length, *path);
  *path += length;
}

static bool is_index(const char *text, int64_t count) {
  size_t length = strlen(text);
  return length > 0 && length < 13 && strspn(text, "0123456789") == length && atoll(text) < count;
}

static int check_vector(struct api_call *call, const struct lab_model_info *model, const char *source, const char *index,
                        struct error *error) {
  struct store_vector vector;
  int found = is_index(index, INT64_MAX) ? vector_find(call, model, source, atoll(index), &vector, error) : 0;
  return found < 0 ? -1 : found ? 0 : vector_refuse(model, source, index, "index", error);
}

/* Whether /model[/source[/index or map]] names something that is loaded, or known from the store. */
static int check_subject(struct api_call *call, struct error *error) {
  char model_id[SEGMENT_BYTES], source_id[SEGMENT_BYTES], index[SEGMENT_BYTES];
  const char *path = call->request->path;
  take_segment(&path, model_id);
  take_segment(&path, source_id);
  take_segment(&path, index);
  struct place place;
  const struct lab_model_info *model = call_known_model(call, model_id, "modelId", NULL);
  if (!model) return error_set(error, ERROR_NOT_FOUND, TEXT_MISSING);
  if (!*source_id) return 0;
  if (*index && lab_holds_vectors(source_id)) return check_vector(call, model, source_id, index, error);
  if (call_known_place(call, model_id, source_id, "source", &place, NULL) != 0)
    return error_set(error, ERROR_NOT_FOUND, "model '%.64s' has no source '%.64s'; GET /models lists them", model->id, source_id);
  if (!*index || strcmp(index, "map") == 0) return 0;
  if (is_index(index, place.source->n_feat)) return call_check_known(call, place.source, atoll(index), "index", error);
  return error_set(error, ERROR_NOT_FOUND, "'%.64s' is no feature of '%.64s', which has %lld, from 0", index, place.source->id,
                   (long long)place.source->n_feat);
}

static int send_shell(struct api_call *call, int status, struct error *error) {
  const struct static_file *shell = static_files_find(&call->api->files, STATIC_SHELL);
  if (shell) return send_file(call, shell, status);
  return error_set(error, ERROR_NOT_FOUND,
                   "the dashboard's files were not found; the setting 'static' names their folder");
}

int home_get(struct api_call *call, struct error *error) {
  return call->api->files.count ? send_shell(call, 200, error) : root_get(call, error);
}

int page_get(struct api_call *call, struct error *error) { return send_shell(call, 200, error); }

/* A reader who mistypes an address gets a page that says so; a program gets JSON as everywhere else. */
int subject_page_get(struct api_call *call, struct error *error) {
  struct error missing = ERROR_INIT;
  int status = check_subject(call, &missing) == 0 ? 200 : 404;
  const char *accept = request_header(call->request, "Accept");
  bool reader = accept && strstr(accept, "text/html");
  if (status == 404 && !(reader && call->api->files.count)) return error_set(error, missing.code, "%s", missing.text);
  const char *embed = query_value(call->request, "embed");
  if (embed && strcmp(embed, "true") == 0) call_add_header(call, "Content-Security-Policy", call->api->embed_policy);
  return send_shell(call, status, error);
}

/* ---- who may frame ------------------------------------------------------------------------------------ */

/* One word of a policy: an origin with anything else in it could end the directive. CSP cannot name IPv6. */
static bool is_plain_origin(const char *text, size_t length) {
  static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:/-*";
  return length > 0 && strspn(text, letters) >= length;
}

const char *static_embed_policy(const char *origins, struct arena *arena, struct error *error) {
  const char *policy =
      "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self' http://localhost:* "
      "https://localhost:* http://127.0.0.1:* https://127.0.0.1:* vscode-webview: vscode-file:";
  for (const char *at = origins ? origins : ""; policy && *at;) {
    size_t length = strcspn(at, ",");
    if (is_plain_origin(at, length)) policy = arena_printf(arena, error, "%s %.*s", policy, (int)length, at);
    at += length + (at[length] == ',');
  }
  return policy;
}
