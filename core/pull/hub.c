/* hub.c: from a name to files in the hub's cache: what is wanted, what of it is there, and bringing the rest. Knows the hub's wire format;
 * how files travel, are chosen and are kept is in fetch.h, hub_listing.h and hub_write.h. */
#include "core/pull.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buffer.h"
#include "core/base/fetch.h"
#include "core/base/json.h"
#include "core/base/mapfile.h"
#include "core/dict/releases.h"
#include "core/model/hub.h"
#include "core/model/hub_listing.h"
#include "core/model/hub_write.h"
#include "core/model/model_names.h"
#include "core/model/tokenizer.h"
#include "core/pull/pull_int.h"

#define LISTING_BYTES (64 << 20)
#define WAIT_US 200000

/* What is wished, in the hub's words. */
struct wish {
  char repository[256], revision[256];
  char path[512]; /* below it; "" of a model */
  char model[256];
  enum pull_kind kind;
  bool tokenizer; /* nothing but that: for a model whose own repository has none */
};

struct pull {
  const struct pull_options *options;
  struct wish wish;
  const char *endpoint;
  char token[512]; /* "": none */
  char root[HUB_PATH_BYTES];
  struct hub_writer writer;
  struct hub_listing listing;
  struct pull_meter meter;
};

/* ---- names ---- */

/* NAME[@REVISION] of a model, by the table or as it is. */
static int wish_model(const struct model_names *names, const char *place, struct wish *out, struct error *error) {
  size_t length = strcspn(place, "@");
  char name[256];
  if (!hub_is_repository(place, length))
    return error_set(error, ERROR_ARGUMENT,
                     "'%.200s' is no name of a model (gpt2, EleutherAI/pythia-70m, either with @REVISION) and no dictionary "
                     "(gpt2-small/7-res-jb)", place);
  snprintf(name, sizeof name, "%.*s", (int)length, place);
  const char *list = model_names_repositories(names, model_names_id(names, name));
  const char *near = list || strchr(name, '/') ? NULL : model_names_nearest(names, name);
  if (near) return error_set(error, ERROR_NOT_FOUND, "'%.100s' is no known name of a model; did you mean '%s'?", name, near);
  snprintf(out->repository, sizeof out->repository, "%.*s", (int)strcspn(list ? list : name, " "), list ? list : name);
  snprintf(out->revision, sizeof out->revision, "%s", place[length] ? place + length + 1 : "main");
  return 0;
}

/* ORG/NAME/PATH */
static bool wish_folder(const char *place, struct wish *out) {
  const char *slash = strchr(place, '/'), *second = slash ? strchr(slash + 1, '/') : NULL;
  if (!second || !second[1] || !hub_is_repository(place, (size_t)(second - place))) return false;
  size_t length = strlen(second + 1);
  while (length && second[length] == '/') length--;
  snprintf(out->repository, sizeof out->repository, "%.*s", (int)(second - place), place);
  snprintf(out->path, sizeof out->path, "%.*s", (int)length, second + 1);
  snprintf(out->revision, sizeof out->revision, "main");
  out->kind = PULL_FOLDER;
  return true;
}

/* As it is written, or with the model by its first name: gpt2/7-res-jb is gpt2-small/7-res-jb. */
static bool find_release(const struct releases *releases, const struct model_names *names, const char *place, struct release_place *out) {
  char model[256], other[1024];
  size_t length = strcspn(place, "/");
  if (releases_find(releases, place, out, NULL) == 0) return true;
  if (length >= sizeof model) return false;
  snprintf(model, sizeof model, "%.*s", (int)length, place);
  int n = snprintf(other, sizeof other, "%s%s", model_names_id(names, model), place + length);
  return n > 0 && (size_t)n < sizeof other && releases_find(releases, other, out, NULL) == 0;
}

static bool wish_dictionary(const struct releases *releases, const struct model_names *names, const char *place, struct wish *out) {
  struct release_place found;
  if (!find_release(releases, names, place, &found)) return false;
  snprintf(out->repository, sizeof out->repository, "%s", found.repository);
  snprintf(out->path, sizeof out->path, "%s", found.folder);
  snprintf(out->model, sizeof out->model, "%s", found.model);
  snprintf(out->revision, sizeof out->revision, "main");
  out->kind = PULL_DICTIONARY;
  return true;
}

static int read_place(const struct pull_options *options, struct wish *out, struct error *error) {
  struct releases *releases = releases_open(options->releases, error);
  struct model_names *names = releases ? model_names_open(options->models, error) : NULL;
  int failed = names ? 0 : -1;
  memset(out, 0, sizeof *out);
  if (!failed && !wish_dictionary(releases, names, options->place, out) && !wish_folder(options->place, out))
    failed = wish_model(names, options->place, out, error);
  if (!failed && !hub_is_revision(out->revision))
    failed = error_set(error, ERROR_ARGUMENT, "'%.100s' is not the name of a branch, tag or commit", out->revision);
  model_names_close(names);
  releases_close(releases);
  return failed;
}

/* ---- surroundings ---- */

static bool read_token_file(const char *folder, const char *rest, char token[512]) {
  char path[HUB_PATH_BYTES], *text = NULL;
  size_t length;
  snprintf(path, sizeof path, "%s%s", folder, rest);
  if (!path_is_file(path) || file_read(path, 511, &text, &length, NULL) != 0) return false;
  text[strcspn(text, " \r\n")] = '\0';
  snprintf(token, 512, "%s", text);
  free(text);
  return *token;
}

/* A token has no control characters: it becomes a line of a header. */
static int read_token(char token[512], struct error *error) {
  const char *given = getenv("HF_TOKEN"), *path = getenv("HF_TOKEN_PATH"), *hf = getenv("HF_HOME"), *home = getenv("HOME");
  *token = '\0';
  if (given && *given) snprintf(token, 512, "%s", given);
  else if (path && *path) read_token_file(path, "", token);
  else if (hf && *hf) read_token_file(hf, "/token", token);
  else if (home && *home) read_token_file(home, "/.cache/huggingface/token", token);
  for (const char *at = token; *at; at++)
    if (*at <= ' ' || *at > '~') return error_set(error, ERROR_ARGUMENT, "the token of the hub (HF_TOKEN) is not plain text");
  return 0;
}

static int read_surroundings(struct pull *p, struct error *error) {
  p->endpoint = pull_endpoint("HF_ENDPOINT", "https://huggingface.co", error);
  if (!p->endpoint) return -1;
  return hub_root(p->root, error) != 0 ? -1 : read_token(p->token, error);
}

/* ---- the hub ---- */

static void begin_url(const struct pull *p, const char *rest, struct buffer *url) {
  size_t length = strlen(p->endpoint);
  while (p->endpoint[length - 1] == '/') length--;
  buffer_init(url, 0);
  buffer_append(url, p->endpoint, length);
  buffer_text(url, rest);
  pull_escape(url, p->wish.repository, true);
}

/* What the hub means by a status. It says 401 of what does not exist, too, to who has no token. */
static int say_refused(const struct pull *p, int status, struct error *error) {
  const char *name = p->wish.repository;
  if (status == 401 || status == 403)
    return error_set(error, ERROR_IO,
                     "the hub refuses '%.100s' (%d): there is no such repository, or it wants to know who asks: accept its terms at "
                     "%.80s/%.100s and set HF_TOKEN to a token of yours%s", name, status, p->endpoint, name,
                     *p->token ? " (the one that is set does not do)" : "");
  if (status == 404)
    return error_set(error, ERROR_NOT_FOUND, "%.80s has no '%.100s' at the revision '%.100s' (404)", p->endpoint, name, p->wish.revision);
  return error_set(error, ERROR_IO, "%.80s answered with status %d for '%.100s'; try again later", p->endpoint, status, name);
}

/* Takes the URL: it is cleared. */
static int fetch_to(const struct pull *p, struct buffer *url, struct fetch *fetch, struct error *error) {
  int status, failed = buffer_check(url, error);
  fetch->url = url->data;
  fetch->token = *p->token ? p->token : NULL;
  if (!failed) failed = fetch_file(fetch, &status, error);
  if (!failed && status >= 300) failed = say_refused(p, status, error);
  buffer_clear(url);
  return failed;
}

static int fetch_listing(struct pull *p, const char *path, struct error *error) {
  struct fetch fetch = {.path = path, .most = LISTING_BYTES};
  struct buffer url;
  char *text = NULL;
  size_t length;
  begin_url(p, "/api/models/", &url);
  buffer_text(&url, "/revision/");
  pull_escape(&url, p->wish.revision, false);
  buffer_text(&url, "?blobs=true");
  if (fetch_to(p, &url, &fetch, error) != 0 || file_read(path, LISTING_BYTES, &text, &length, error) != 0) return -1;
  int failed = hub_listing_read(text, length, &p->listing, error);
  free(text);
  return failed;
}

/* By way of a file that is gone when it was read. */
static int read_listing(struct pull *p, struct error *error) {
  char path[HUB_PATH_BYTES];
  if (pull_temporary(path, error) != 0) return -1;
  int failed = fetch_listing(p, path, error);
  unlink(path);
  return failed;
}

/* ---- choosing ---- */

/* Or a tokenizer that stands alone, to which configurations of models point. */
static bool choose_model(struct pull *p) {
  if (!p->wish.tokenizer && hub_choose_model(&p->listing) > 0) return true;
  if (hub_choose_tokenizer(&p->listing) == 0) return false;
  p->wish.kind = PULL_FOLDER;
  return true;
}

static int choose(struct pull *p, struct error *error) {
  const struct wish *wish = &p->wish;
  char there[256];
  if (wish->kind == PULL_MODEL ? choose_model(p) : hub_choose_below(&p->listing, wish->path) > 0) return 0;
  hub_listing_tell(&p->listing, there);
  if (wish->kind == PULL_MODEL)
    return error_set(error, ERROR_NOT_FOUND,
                     "'%.100s' is no model of a form that is read: at its top are no config.json and weights (model.safetensors, "
                     "pytorch_model.bin, *.pth); %s; steerd pull %.100s/FOLDER brings a folder of it", wish->repository, there,
                     wish->repository);
  return error_set(error, ERROR_NOT_FOUND, "'%.100s' has no '%.200s'; %s", wish->repository, wish->path, there);
}

static void count(struct pull *p, struct pull_report *report) {
  for (size_t i = 0; i < p->listing.n; i++) {
    const struct hub_file *file = &p->listing.files[i];
    if (!file->wanted) continue;
    report->files++;
    report->bytes += file->size;
    p->meter.total += file->size;
    p->meter.done += hub_writer_bytes(&p->writer, file);
    if (p->options->list) p->options->list(p->options->context, file->path, file->size, hub_writer_has(&p->writer, file));
  }
}

/* ---- bringing ---- */

static int bring(struct pull *p, const struct hub_file *file, struct error *error) {
  char path[HUB_PATH_BYTES];
  struct buffer url;
  if (hub_writer_partial(&p->writer, file, path, error) != 0) return -1;
  struct fetch fetch = {.path = path, .tell = pull_meter_tell, .context = &p->meter};
  begin_url(p, "/", &url);
  buffer_printf(&url, "/resolve/%s/", p->listing.commit);
  pull_escape(&url, file->path, true);
  bool whole = hub_writer_bytes(&p->writer, file) == file->size; /* it came, and whoever brought it was ended then */
  if (whole) buffer_clear(&url);
  if (!whole && fetch_to(p, &url, &fetch, error) != 0) return -1;
  return hub_writer_finish(&p->writer, file, error);
}

/* Waits for whoever else brings the same file. */
static int take_turn(struct pull *p, const struct hub_file *file, int *lock, struct error *error) {
  for (;;) {
    if (hub_writer_lock(&p->writer, file, lock, error) != 0) return -1;
    if (*lock >= 0) return 0;
    p->meter.file = "";
    if (pull_meter_tell(&p->meter, hub_writer_bytes(&p->writer, file))) return error_set(error, ERROR_CANCELLED, "stopped");
    usleep(WAIT_US);
  }
}

static int have(struct pull *p, const struct hub_file *file, struct pull_report *report, struct error *error) {
  int lock = -1, failed = 0;
  p->meter.done -= hub_writer_bytes(&p->writer, file); /* counted by its own bytes while it comes */
  if (!hub_writer_has(&p->writer, file)) failed = take_turn(p, file, &lock, error);
  if (!failed && !hub_writer_has(&p->writer, file)) {
    p->meter.file = file->path;
    report->fetched += file->size - hub_writer_bytes(&p->writer, file);
    failed = bring(p, file, error);
  }
  hub_writer_unlock(lock);
  p->meter.done += file->size;
  return failed;
}

static int have_all(struct pull *p, struct pull_report *report, struct error *error) {
  pull_meter_begin(&p->meter);
  for (size_t i = 0; i < p->listing.n; i++)
    if (p->listing.files[i].wanted && have(p, &p->listing.files[i], report, error) != 0) return -1;
  /* Linked when all are there: a snapshot is never half of what was wished. Files that an older commit brought and that are the same here
   * come along, or they would be out of reach once the revision is noted as this commit. */
  for (size_t i = 0; i < p->listing.n; i++) {
    const struct hub_file *file = &p->listing.files[i];
    if ((file->wanted || hub_writer_has(&p->writer, file)) && hub_writer_link(&p->writer, p->listing.commit, file, error) != 0) return -1;
  }
  return hub_writer_set(&p->writer, p->wish.revision, p->listing.commit, error);
}

/* ---- the whole ---- */

static void report_place(const struct pull *p, struct pull_report *out) {
  const struct wish *wish = &p->wish;
  out->kind = wish->kind;
  snprintf(out->repository, sizeof out->repository, "%s", wish->repository);
  snprintf(out->model, sizeof out->model, "%s", wish->model);
  snprintf(out->commit, sizeof out->commit, "%s", p->listing.commit);
  int n = snprintf(out->path, sizeof out->path, "%s/snapshots/%s%s%s", p->writer.folder, p->listing.commit, *wish->path ? "/" : "",
                   wish->path);
  if (n < 0 || (size_t)n >= sizeof out->path) out->path[0] = '\0';
}

static int pull_wish(struct pull *p, struct pull_report *out, struct error *error) {
  p->meter.total = p->meter.done = 0;
  int failed = read_listing(p, error);
  if (!failed) failed = choose(p, error);
  if (!failed) failed = hub_writer_open(p->root, p->wish.repository, !p->options->list_only, &p->writer, error);
  if (!failed) count(p, out);
  if (!failed && !p->options->list_only) failed = pull_check_room(p->root, p->meter.total - p->meter.done, "HF_HUB_CACHE", error) || have_all(p, out, error) ? -1 : 0;
  return failed;
}

/* The repository that a model's config.json names for a tokenizer, where the model's own has none; "" for no such. */
static void find_tokenizer(struct pull *p, const char *snapshot, char out[256]) {
  char path[HUB_PATH_BYTES];
  *out = '\0';
  if (p->wish.kind != PULL_MODEL || p->options->list_only || tokenizer_folder_has(snapshot)) return;
  snprintf(path, sizeof path, "%.4000s/config.json", snapshot);
  struct json_node *config = json_load(path, LISTING_BYTES, 64, NULL);
  const char *name = json_text_or(json_get(config, "tokenizer_name"), "");
  if (hub_is_repository(name, strlen(name))) snprintf(out, 256, "%s", name);
  json_free(config);
}

static int pull_tokenizer(struct pull *p, const char *name, struct pull_report *out, struct error *error) {
  hub_listing_clear(&p->listing);
  memset(&p->wish, 0, sizeof p->wish);
  p->wish.tokenizer = true;
  snprintf(p->wish.repository, sizeof p->wish.repository, "%s", name);
  snprintf(p->wish.revision, sizeof p->wish.revision, "main");
  return pull_wish(p, out, error) == 0 ? 0 : error_prefix(error, "the model's tokenizer");
}

int pull(const struct pull_options *options, struct pull_report *out, struct error *error) {
  struct pull p = {.options = options, .meter = {.tell = options->tell, .context = options->context}};
  char tokenizer[256];
  memset(out, 0, sizeof *out);
  if (read_place(options, &p.wish, error) != 0 || read_surroundings(&p, error) != 0) return -1;
  int failed = pull_wish(&p, out, error);
  if (!failed) {
    report_place(&p, out);
    find_tokenizer(&p, out->path, tokenizer);
    if (*tokenizer) failed = pull_tokenizer(&p, tokenizer, out, error);
  }
  hub_listing_clear(&p.listing);
  return failed;
}
