/* Reads and chooses. Knows what model_open and the readers of dictionaries open by name, not what is in it. */
#include "core/model/hub_listing.h"

#include <stdio.h>
#include <string.h>

#include "core/base/json.h"

#define FILES_MAX 200000
#define PATH_MAX_BYTES 512
#define DESCRIPTION_BYTES (1 << 20)

/* ---- reading ---- */

static bool is_hexadecimal(const char *text, size_t length) {
  return strspn(text, "0123456789abcdef") == length && !text[length];
}

/* Parts between slashes that are names: not empty, no "." or "..", nothing that a shell or a terminal would stumble over. */
static bool is_plain_path(const char *path) {
  if (strlen(path) >= PATH_MAX_BYTES) return false;
  for (const char *at = path;; at++) {
    size_t length = strcspn(at, "/");
    if (length == 0 || length > 255 || (at[0] == '.' && (length == 1 || (length == 2 && at[1] == '.')))) return false;
    for (size_t i = 0; i < length; i++)
      if ((unsigned char)at[i] < ' ' || at[i] == 0x7F || at[i] == '\\') return false;
    at += length;
    if (!*at) return true;
  }
}

static int read_file(const struct json_node *node, struct hub_listing *out, struct error *error) {
  const char *path = json_text_or(json_get(node, "rfilename"), "");
  const struct json_node *lfs = json_get(node, "lfs");
  const char *hash = json_text(json_get(lfs, "sha256"), NULL);
  const char *blob = json_text_or(json_get(node, "blobId"), "");
  int64_t size = json_int_or(json_get(lfs, "size"), json_int_or(json_get(node, "size"), -1));
  if (!is_plain_path(path))
    return error_set(error, ERROR_FORMAT, "the listing has a file '%.100s', which is no plain path", path);
  if (hash ? !is_hexadecimal(hash, 64) : !is_hexadecimal(blob, 40))
    return error_set(error, ERROR_FORMAT, "the listing has no hash of '%.100s', or one of other length", path);
  if (size < 0) return error_set(error, ERROR_FORMAT, "the listing has no size of '%.100s'", path);
  struct hub_file *file = &out->files[out->n++];
  if (!hash) hash = blob;
  *file = (struct hub_file){.path = arena_text(&out->arena, path, strlen(path), error),
                            .hash = arena_text(&out->arena, hash, strlen(hash), error), .size = size};
  return file->path && file->hash ? 0 : -1;
}

static int read_listing(const struct json_node *root, struct hub_listing *out, struct error *error) {
  const struct json_node *files = json_get(root, "siblings");
  const char *commit = json_text_or(json_get(root, "sha"), "");
  size_t n = json_count(files);
  if (!is_hexadecimal(commit, 40)) return error_set(error, ERROR_FORMAT, "the listing names no commit ('sha')");
  if (json_kind(files) != JSON_KIND_ARRAY) return error_set(error, ERROR_FORMAT, "the listing has no files ('siblings')");
  if (n > FILES_MAX) return error_set(error, ERROR_LIMIT, "the repository has %zu files; at most %d are listed", n, FILES_MAX);
  snprintf(out->commit, sizeof out->commit, "%s", commit);
  out->files = arena_array(&out->arena, n ? n : 1, sizeof *out->files, error);
  if (!out->files) return -1;
  for (size_t i = 0; i < n; i++)
    if (read_file(json_at(files, i), out, error) != 0) return -1;
  return 0;
}

int hub_listing_read(const char *json, size_t length, struct hub_listing *out, struct error *error) {
  memset(out, 0, sizeof *out);
  arena_init(&out->arena, 0);
  struct json_node *root = json_parse(json, length, 32, error);
  int failed = root ? read_listing(root, out, error) : error_prefix(error, "the hub's listing");
  json_free(root);
  return failed;
}

void hub_listing_clear(struct hub_listing *listing) {
  arena_clear(&listing->arena);
  listing->files = NULL;
  listing->n = 0;
}

/* ---- choosing ---- */

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static size_t want(struct hub_file *file) {
  if (file->wanted) return 0;
  file->wanted = true;
  return 1;
}

static size_t want_named(struct hub_listing *listing, const char *name) {
  for (size_t i = 0; i < listing->n; i++)
    if (strcmp(listing->files[i].path, name) == 0) return want(&listing->files[i]);
  return 0;
}

/* At the top of the repository: PREFIX...END */
static size_t want_like(struct hub_listing *listing, const char *prefix, const char *end) {
  size_t n = 0;
  for (size_t i = 0; i < listing->n; i++) {
    const char *path = listing->files[i].path;
    if (!strchr(path, '/') && strncmp(path, prefix, strlen(prefix)) == 0 && ends_with(path, end)) n += want(&listing->files[i]);
  }
  return n;
}

size_t hub_choose_tokenizer(struct hub_listing *listing) {
  static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe",
                                      "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                                      "added_tokens.json", "chat_template.jinja"};
  size_t n = 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) n += want_named(listing, names[i]);
  return n;
}

/* One form of weights only: repositories have the same numbers in several. */
static size_t choose_weights(struct hub_listing *listing) {
  size_t n = want_named(listing, "model.safetensors.index.json");
  if (n) return n + want_like(listing, "model-", ".safetensors");
  if ((n = want_named(listing, "model.safetensors"))) return n;
  if ((n = want_named(listing, "pytorch_model.bin.index.json"))) return n + want_like(listing, "pytorch_model-", ".bin");
  if ((n = want_named(listing, "pytorch_model.bin"))) return n;
  if ((n = want_like(listing, "", "final.pth"))) return n;
  return want_like(listing, "", ".pth");
}

size_t hub_choose_model(struct hub_listing *listing) {
  size_t n = want_named(listing, "config.json"), weights = n ? choose_weights(listing) : 0;
  if (!weights) return 0;
  return n + weights + want_named(listing, "generation_config.json") + hub_choose_tokenizer(listing);
}

static bool is_description(const struct hub_file *file) {
  return file->size <= DESCRIPTION_BYTES &&
         (ends_with(file->path, ".json") || ends_with(file->path, ".yaml") || ends_with(file->path, ".yml"));
}

/* Whether the file lies in the very folder of `path`. */
static bool is_beside(const char *path, const char *file) {
  const char *slash = strrchr(path, '/');
  size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
  return strncmp(path, file, folder) == 0 && !strchr(file + folder, '/');
}

size_t hub_choose_below(struct hub_listing *listing, const char *path) {
  size_t n = want_named(listing, path), length = strlen(path);
  bool is_file = n > 0;
  for (size_t i = 0; i < listing->n; i++) {
    struct hub_file *file = &listing->files[i];
    bool below = !length || (strncmp(file->path, path, length) == 0 && file->path[length] == '/');
    if (is_file ? is_description(file) && is_beside(path, file->path) : below) n += want(file);
  }
  return n;
}

/* ---- telling ---- */

void hub_listing_tell(const struct hub_listing *listing, char out[256]) {
  const char *shown[4] = {NULL};
  size_t n_shown = 0, n = 0, used = 0, lengths[4] = {0};
  for (size_t i = 0; i < listing->n; i++) {
    const char *path = listing->files[i].path;
    size_t length = strcspn(path, "/");
    bool again = i && strncmp(path, listing->files[i - 1].path, length) == 0 && strcspn(listing->files[i - 1].path, "/") == length;
    if (path[0] == '.' || again) continue;
    if (n_shown < 4) shown[n_shown] = path, lengths[n_shown++] = length;
    n++;
  }
  if (!n) snprintf(out, 256, "it is empty");
  for (size_t i = 0; i < n_shown && used < 256; i++)
    used += (size_t)snprintf(out + used, 256 - used, "%s'%.*s'", i ? ", " : "it has ", (int)(lengths[i] < 40 ? lengths[i] : 40), shown[i]);
  if (n > n_shown && used < 256) snprintf(out + used, 256 - used, " and %zu more", n - n_shown);
}
