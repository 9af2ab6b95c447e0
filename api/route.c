/* route.c: which row a path means. Knows nothing of what the rows do. */
#include "api/route.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* Length of the segment at `path`; a slash that ends the path ends its last segment. */
static size_t segment(const char *path) {
  size_t n = 0;
  while (path[n] && path[n] != '/') n++;
  return n;
}

static const char *skip_slash(const char *path) { return *path == '/' ? path + 1 : path; }

bool route_matches(const char *pattern, const char *path) {
  if (*pattern != '/' || *path != '/') return false;
  pattern++, path++;
  while (*pattern && *path) {
    bool placeholder = *pattern == '{';
    if (!placeholder && *pattern != *path) return false; /* nearly every row that is not meant ends here */
    size_t want = segment(pattern), have = segment(path);
    if (have == 0) return false;
    if (!placeholder && (want != have || memcmp(pattern, path, want) != 0)) return false;
    pattern = skip_slash(pattern + want);
    path = skip_slash(path + have);
  }
  return *pattern == '\0' && *path == '\0';
}

bool route_takes_query(const struct route *row) { return strcmp(row->method, "GET") == 0 || (row->flags & ROUTE_FILE); }

static bool is_placeholder(const char *pattern, const char *name) {
  size_t n = strlen(name);
  return *pattern == '{' && segment(pattern) == n + 2 && memcmp(pattern + 1, name, n) == 0;
}

const char *route_part(const char *pattern, const char *path, const char *name, size_t *length) {
  pattern++, path++;
  while (*pattern && *path) {
    *length = segment(path);
    if (is_placeholder(pattern, name)) return path;
    pattern = skip_slash(pattern + segment(pattern));
    path = skip_slash(path + *length);
  }
  return NULL;
}

/* A page such as /{model}: its pattern fits every path of that length, so it must not answer for mistyped calls. */
static bool is_page(const struct route *row) { return strncmp(row->path, "/{", 2) == 0; }

static bool begins(const char *path, const char *prefix) {
  size_t length = strlen(prefix);
  return strncmp(path, prefix, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static bool row_answers(const struct route *row, const char *method, const char *path) {
  if (!route_matches(row->path, path)) return false;
  if (!is_page(row)) return true;
  return strcmp(method, row->method) == 0 && !begins(path, "/api") && !begins(path, "/v1") && !begins(path, "/static");
}

const struct route *route_find(const char *method, const char *path, const struct route **allowed) {
  *allowed = NULL;
  const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
  for (size_t i = 0; i < n_routes; i++) {
    const struct route *row = &routes[i];
    if (!row_answers(row, wanted, path) || (*allowed && is_page(row))) continue;
    if (strcmp(row->method, wanted) == 0) return row;
    if (!*allowed) *allowed = row;
  }
  return NULL;
}

void route_allow(const struct route *row, char *out, size_t size) {
  out[0] = '\0';
  for (size_t i = 0; i < n_routes; i++) {
    if (strcmp(routes[i].path, row->path) != 0) continue;
    const char *method = routes[i].method;
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%s%s", used ? ", " : "", method,
             strcmp(method, "GET") == 0 ? ", HEAD" : "");
  }
}

void route_id(const struct route *row, char *out) {
  size_t n = 0;
  for (const char *c = row->method; *c && n + 1 < ROUTE_ID_BYTES; c++) out[n++] = (char)tolower((unsigned char)*c);
  for (const char *c = row->path; *c && n + 1 < ROUTE_ID_BYTES; c++)
    if (isalnum((unsigned char)*c) || out[n - 1] != '_') out[n++] = isalnum((unsigned char)*c) ? *c : '_';
  while (n > 0 && out[n - 1] == '_') n--;
  out[n] = '\0';
}

/* Paths of OpenAI's clients, what is not served here too: they show an error's text only in their own shape. The last two are
 * those of a client whose base URL lacks /v1. */
static bool is_openai(const char *path) {
  static const char *const all[] = {
      "/v1/models",      "/v1/completions", "/v1/chat",       "/v1/embeddings", "/v1/responses", "/v1/conversations",
      "/v1/moderations", "/v1/images",      "/v1/audio",      "/v1/files",      "/v1/uploads",   "/v1/batches",
      "/v1/fine_tuning", "/v1/assistants",  "/v1/threads",    "/v1/videos",     "/v1/vector_stores", "/v1/evals",
      "/v1/edits",       "/v1/engines",     "/v1/containers", "/completions",   "/chat",
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (begins(path, all[i])) return true;
  return false;
}

enum route_family route_family_of(const char *path) {
  for (size_t i = 0; i < n_routes; i++)
    if (!is_page(&routes[i]) && route_matches(routes[i].path, path)) return routes[i].family;
  if (begins(path, "/api") || begins(path, "/v1/activation") || begins(path, "/v1/steer")) return FAMILY_NEURONPEDIA;
  if (is_openai(path)) return FAMILY_OPENAI;
  if (begins(path, "/v1")) return FAMILY_LAB;
  return FAMILY_OPERATIONS;
}

const char *route_family_word(enum route_family family) {
  static const char *const words[FAMILY_COUNT] = {"short", "neuronpedia", "openai", "lab", "operations"};
  return words[family];
}
