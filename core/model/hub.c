/* Finds snapshots in the Hugging Face cache. Knows the cache's layout, nothing of what the files hold. */
#include "core/model/hub.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/base/nearest.h"

#define REPOSITORY_MAX 96
#define REVISION_MAX 255
#define REPOSITORIES_MAX 2048 /* told of */
#define FOLDER "models--"

/* ---- the root ---- */

static int put(char *out, const char *folder, const char *rest, struct error *error) {
  int n = snprintf(out, HUB_PATH_BYTES, "%s%s", folder, rest);
  if (n > 0 && n < HUB_PATH_BYTES) return 0;
  return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", folder);
}

int hub_root(char out[HUB_PATH_BYTES], struct error *error) {
  static const struct {
    const char *variable, *rest;
  } ways[] = {{"HF_HUB_CACHE", ""}, {"HF_HOME", "/hub"}, {"XDG_CACHE_HOME", "/huggingface/hub"},
              {"HOME", "/.cache/huggingface/hub"}};
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    const char *value = getenv(ways[i].variable);
    if (value && *value) return put(out, value, ways[i].rest, error);
  }
  return error_set(error, ERROR_NOT_FOUND, "there is no Hugging Face cache: neither HF_HUB_CACHE, HF_HOME nor HOME is set");
}

/* ---- repositories ---- */

static bool is_part(const char *text, size_t length) {
  static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (length == 0 || text[0] == '.' || text[0] == '-') return false;
  for (size_t i = 0; i < length; i++) {
    if (!text[i] || !strchr(allowed, text[i])) return false;
    bool doubled = i && (text[i] == '-' || text[i] == '.') && text[i - 1] == text[i];
    if (doubled) return false; /* "--" separates names in the cache, ".." leaves it */
  }
  return true;
}

bool hub_is_repository(const char *name, size_t length) {
  if (length == 0 || length > REPOSITORY_MAX) return false;
  const char *slash = memchr(name, '/', length);
  if (!slash) return is_part(name, length);
  size_t first = (size_t)(slash - name);
  return is_part(name, first) && is_part(slash + 1, length - first - 1);
}

int hub_folder(const char *root, const char *repository, char out[HUB_PATH_BYTES], struct error *error) {
  if (!hub_is_repository(repository, strlen(repository)))
    return error_set(error, ERROR_ARGUMENT, "'%.100s' is not a repository; expected ORGANISATION/NAME", repository);
  const char *slash = strchr(repository, '/');
  int first = slash ? (int)(slash - repository) : (int)strlen(repository);
  int n = snprintf(out, HUB_PATH_BYTES, "%s/" FOLDER "%.*s%s%s", root, first, repository, slash ? "--" : "",
                   slash ? slash + 1 : "");
  if (n > 0 && n < HUB_PATH_BYTES) return 0;
  return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", root);
}

bool hub_has(const char *root, const char *repository) {
  char folder[HUB_PATH_BYTES];
  return hub_folder(root, repository, folder, NULL) == 0 && path_is_directory(folder);
}

/* ---- revisions ---- */

static bool is_commit(const char *text) {
  size_t length = strspn(text, "0123456789abcdef");
  return length >= 7 && length <= 64 && !text[length];
}

bool hub_is_revision(const char *text) {
  if (strlen(text) > REVISION_MAX) return false;
  for (const char *at = text;; at++) {
    size_t length = strcspn(at, "/");
    if (!is_part(at, length)) return false;
    at += length;
    if (!*at) return true;
  }
}

/* The commit in REPOSITORY/refs/REVISION into commit[]. */
static int read_ref(const char *folder, const char *revision, char commit[72], struct error *error) {
  char path[HUB_PATH_BYTES], *text = NULL;
  size_t length;
  int n = snprintf(path, sizeof path, "%s/refs/%s", folder, revision);
  if (n < 0 || n >= HUB_PATH_BYTES) return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", folder);
  if (!path_is_file(path))
    return error_set(error, ERROR_NOT_FOUND, "'%s' has no revision '%s' (no file refs/%s)", folder, revision, revision);
  if (file_read(path, 256, &text, &length, error) != 0) return -1;
  text[strcspn(text, " \r\n")] = '\0';
  bool good = is_commit(text);
  if (good) snprintf(commit, 72, "%s", text);
  free(text);
  return good ? 0 : error_set(error, ERROR_FORMAT, "'%s' does not hold the name of a commit", path);
}

static int snapshot_of(const char *folder, const char *commit, char out[HUB_PATH_BYTES], struct error *error) {
  int n = snprintf(out, HUB_PATH_BYTES, "%s/snapshots/%s", folder, commit);
  if (n < 0 || n >= HUB_PATH_BYTES) return error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", folder);
  if (path_is_directory(out)) return 0;
  return error_set(error, ERROR_NOT_FOUND, "'%s' has no folder snapshots/%s", folder, commit);
}

int hub_snapshot(const char *root, const char *repository, const char *revision, char out[HUB_PATH_BYTES],
                 struct error *error) {
  char folder[HUB_PATH_BYTES], commit[72];
  if (hub_folder(root, repository, folder, error) != 0) return -1;
  if (!revision) revision = "main";
  if (!hub_is_revision(revision))
    return error_set(error, ERROR_ARGUMENT, "'%.100s' is not the name of a branch, tag or commit", revision);
  if (!path_is_directory(folder)) return error_set(error, ERROR_NOT_FOUND, "'%s' is not in '%s'", repository, root);
  if (is_commit(revision) && snapshot_of(folder, revision, out, NULL) == 0) return 0;
  return read_ref(folder, revision, commit, error) == 0 ? snapshot_of(folder, commit, out, error) : -1;
}

/* ---- what is there ---- */

/* "models--ORG--NAME" as ORG/NAME, in place; NULL for anything else. */
static char *repository_of(char *entry) {
  size_t prefix = strlen(FOLDER);
  if (strncmp(entry, FOLDER, prefix) != 0) return NULL;
  char *name = entry + prefix, *dashes = strstr(name, "--");
  if (dashes) {
    *dashes = '/';
    memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
  }
  return hub_is_repository(name, strlen(name)) ? name : NULL;
}

static const char *nearest_of(const char *word, const char **names, size_t n) {
  const char *short_names[REPOSITORIES_MAX];
  if (strchr(word, '/')) return nearest_name(word, names, n);
  for (size_t i = 0; i < n; i++) {
    const char *slash = strchr(names[i], '/');
    short_names[i] = slash ? slash + 1 : names[i];
  }
  const char *found = nearest_name(word, short_names, n);
  for (size_t i = 0; found && i < n; i++)
    if (short_names[i] == found) return names[i];
  return NULL;
}

static void tell(const char *word, const char **names, size_t n, char out[256]) {
  const char *near = nearest_of(word, names, n);
  size_t used = 0, shown = n > 4 ? 3 : n;
  if (near)
    snprintf(out, 256, "the nearest there is '%s'", near);
  else if (n == 0)
    snprintf(out, 256, "it is empty");
  for (size_t i = 0; !near && i < shown && used < 256; i++)
    used += (size_t)snprintf(out + used, 256 - used, "%s'%.60s'", i == 0 ? "it has " : i + 1 == n ? " and " : ", ", names[i]);
  if (!near && n > shown && used < 256) snprintf(out + used, 256 - used, " and %zu more", n - shown);
}

void hub_tell(const char *root, const char *word, char out[256]) {
  struct dirent **list = NULL;
  const char *names[REPOSITORIES_MAX];
  size_t n = 0;
  int count = scandir(root, &list, NULL, alphasort);
  for (int i = 0; i < count; i++) {
    char *name = n < REPOSITORIES_MAX ? repository_of(list[i]->d_name) : NULL;
    if (name) names[n++] = name;
  }
  if (count < 0)
    snprintf(out, 256, "there is no such folder");
  else
    tell(word, names, n, out);
  for (int i = 0; i < count; i++) free(list[i]);
  free(list);
}
