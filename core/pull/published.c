/* published.c: what Neuronpedia publishes of a dictionary's features, brought into a folder that an import reads. Knows the bucket's layout,
 * v1/MODEL/SOURCE/{explanations,features,activations}/batch-N.jsonl.gz, and not what a line says. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "core/base/fetch.h"
#include "core/base/folder.h"
#include "core/base/mapfile.h"
#include "core/base/nearest.h"
#include "core/dict/releases.h"
#include "core/model/hub.h"
#include "core/model/model_names.h"
#include "core/pull/bucket_listing.h"
#include "core/pull/pull_int.h"

#define ENDPOINT "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
#define PAGE_BYTES (16 << 20)
#define PAGES_MAX 100
#define WAIT_US 200000

struct published {
  const struct pull_options *options;
  bool statistics;
  const char *endpoint;
  char name[600];   /* MODEL/SOURCE */
  char prefix[620]; /* v1/MODEL/SOURCE/ */
  char folder[PULL_PATH_BYTES];
  struct bucket_listing listing;
  struct pull_meter meter;
};

/* ---- names ---- */

struct search {
  const char *wanted;
  char *out;
  size_t size;
};

/* Of the table's RELEASE/ID: what Neuronpedia calls it. */
static int match_release(void *context, const struct release_place *place, const char *id, const char *neuronpedia) {
  struct search *search = context;
  size_t n = strlen(place->release);
  const char *wanted = search->wanted;
  if (!*neuronpedia || strncmp(wanted, place->release, n) != 0 || wanted[n] != '/' || strcmp(wanted + n + 1, id) != 0) return 0;
  snprintf(search->out, search->size, "%s", neuronpedia);
  return 1;
}

/* MODEL/SOURCE with the model by its first name. */
static int spell_name(const struct model_names *names, const char *place, struct published *p, struct error *error) {
  const char *slash = strchr(place, '/');
  char model[256];
  if (!slash || !hub_is_repository(place, strlen(place)))
    return error_set(error, ERROR_ARGUMENT, "'%.200s' is no MODEL/SOURCE, such as gpt2-small/7-res-jb: only of a dictionary are labels and "
                     "statistics published", place);
  snprintf(model, sizeof model, "%.*s", (int)(slash - place), place);
  snprintf(p->name, sizeof p->name, "%s%s", model_names_id(names, model), slash);
  return 0;
}

static int read_name(struct published *p, struct error *error) {
  const struct pull_options *o = p->options;
  struct releases *releases = releases_open(o->releases, error);
  struct model_names *names = releases ? model_names_open(o->models, error) : NULL;
  struct search search = {o->place, p->name, sizeof p->name};
  int failed = names ? 0 : -1;
  if (!failed && releases_each(releases, match_release, &search) == 0) failed = spell_name(names, o->place, p, error);
  snprintf(p->prefix, sizeof p->prefix, "v1/%s/", p->name);
  model_names_close(names);
  releases_close(releases);
  return failed;
}

static int find_folder(struct published *p, struct error *error) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  bool given = cache && *cache;
  if (!given && (!home || !*home)) return error_set(error, ERROR_NOT_FOUND, "there is no folder for what comes: neither XDG_CACHE_HOME nor HOME is set");
  int n = snprintf(p->folder, sizeof p->folder, "%s%s/steerd/published/%s", given ? cache : home, given ? "" : "/.cache", p->name);
  return n < PULL_PATH_BYTES - 200 ? 0 : error_set(error, ERROR_LIMIT, "the path '%.100s...' is too long", p->folder);
}

/* ---- the bucket ---- */

static int say_refused(const struct published *p, int status, struct error *error) {
  if (status == 404) return error_set(error, ERROR_NOT_FOUND, "%.200s has no such file (404); it may have changed just now: try again", p->endpoint);
  return error_set(error, ERROR_IO, "%.200s answered with status %d; try again later", p->endpoint, status);
}

/* Takes what `url` has: it is cleared. */
static int fetch_from(const struct published *p, struct buffer *url, struct fetch *fetch, struct error *error) {
  int status = 0, failed = buffer_check(url, error);
  fetch->url = url->data;
  if (!failed) failed = fetch_file(fetch, &status, error);
  if (!failed && status >= 300) failed = say_refused(p, status, error);
  buffer_clear(url);
  return failed;
}

static void begin_url(const struct published *p, struct buffer *url) {
  size_t length = strlen(p->endpoint);
  while (p->endpoint[length - 1] == '/') length--;
  buffer_init(url, 0);
  buffer_append(url, p->endpoint, length);
  buffer_char(url, '/');
}

static int fetch_page(const struct published *p, const char *path, const char *prefix, const char *delimiter, struct bucket_listing *out,
                      struct error *error) {
  struct fetch fetch = {.path = path, .most = PAGE_BYTES};
  struct buffer url;
  char *text = NULL;
  size_t length;
  begin_url(p, &url);
  buffer_text(&url, "?list-type=2&prefix=");
  pull_escape(&url, prefix, false);
  if (*delimiter) buffer_printf(&url, "&delimiter=%%%02X", (unsigned char)*delimiter);
  if (out->next[0]) {
    buffer_text(&url, "&continuation-token=");
    pull_escape(&url, out->next, false);
  }
  if (fetch_from(p, &url, &fetch, error) != 0 || file_read(path, PAGE_BYTES, &text, &length, error) != 0) return -1;
  int failed = bucket_listing_add(out, text, length, prefix, error);
  free(text);
  return failed;
}

/* All pages below a prefix. */
static int list(const struct published *p, const char *prefix, const char *delimiter, struct bucket_listing *out, struct error *error) {
  char path[PULL_PATH_BYTES];
  for (int page = 0; page == 0 || out->next[0]; page++) {
    if (page == PAGES_MAX) return error_set(error, ERROR_LIMIT, "the listing of '%.200s' goes on after %d pages", prefix, PAGES_MAX);
    if (pull_temporary(path, error) != 0) return -1;
    int failed = fetch_page(p, path, prefix, delimiter, out, error);
    unlink(path);
    if (failed) return -1;
  }
  return 0;
}

/* ---- choosing ---- */

/* batch-N.jsonl or batch-N.jsonl.gz */
static bool is_batch(const char *name) {
  if (strncmp(name, "batch-", 6) != 0) return false;
  size_t digits = strspn(name + 6, "0123456789");
  const char *end = name + 6 + digits;
  return digits > 0 && digits < 10 && (strcmp(end, ".jsonl") == 0 || strcmp(end, ".jsonl.gz") == 0);
}

/* The folders that are wished, explanations first. */
static const char *const parts[] = {"explanations", "features", "activations"};
static size_t count_parts(const struct published *p) { return p->statistics ? 3 : 1; }

/* Nothing else becomes a path on this machine, whatever a bucket calls its files. */
static bool is_wanted(const struct published *p, const char *path) {
  if (strcmp(path, "source.jsonl") == 0 || strcmp(path, "model.jsonl") == 0) return true;
  for (size_t i = 0; i < count_parts(p); i++) {
    size_t n = strlen(parts[i]);
    if (strncmp(path, parts[i], n) == 0 && path[n] == '/' && is_batch(path + n + 1)) return true;
  }
  return false;
}

/* What there is of the model instead. */
static int say_nothing(const struct published *p, struct error *error) {
  struct bucket_listing listing;
  char prefix[620], hint[300] = "there is nothing of that model";
  const char *source = strchr(p->name, '/') + 1;
  bucket_listing_init(&listing);
  snprintf(prefix, sizeof prefix, "v1/%.*s", (int)(source - p->name), p->name);
  if (list(p, prefix, "/", &listing, NULL) == 0 && listing.n_folders > 0) {
    const char *near = nearest_name(source, listing.folders, listing.n_folders);
    snprintf(hint, sizeof hint, "of %.*s there are %zu sources, such as '%.100s'", (int)(source - p->name - 1), p->name, listing.n_folders,
             near ? near : listing.folders[0]);
  }
  bucket_listing_clear(&listing);
  return error_set(error, ERROR_NOT_FOUND, "nothing is published of '%.200s': %s", p->name, hint);
}

static int choose(struct published *p, struct error *error) {
  size_t batches = 0;
  for (size_t i = 0; i < p->listing.n; i++) {
    struct bucket_file *file = &p->listing.files[i];
    file->wanted = file->size > 0 && is_wanted(p, file->path);
    batches += file->wanted && strchr(file->path, '/');
  }
  if (batches) return 0;
  if (!p->listing.n) return say_nothing(p, error);
  return error_set(error, ERROR_NOT_FOUND, "no %s of '%.200s' are published%s", p->statistics ? "statistics" : "labels", p->name,
                   p->statistics ? "" : "; --statistics brings its features and their examples");
}

/* ---- files ---- */

static void path_of(const struct published *p, const struct bucket_file *file, bool whole, char out[PULL_PATH_BYTES]) {
  snprintf(out, PULL_PATH_BYTES, "%.3800s/%.120s%s%s%s", p->folder, file->path, whole ? "" : ".", whole ? "" : file->tag, whole ? "" : ".incomplete");
}

static bool has(const struct published *p, const struct bucket_file *file) {
  char path[PULL_PATH_BYTES];
  path_of(p, file, true, path);
  return file_bytes(path) == file->size;
}

static int64_t bytes_of(const struct published *p, const struct bucket_file *file) {
  char path[PULL_PATH_BYTES];
  if (has(p, file)) return file->size;
  path_of(p, file, false, path);
  int64_t size = file_bytes(path);
  return size > 0 ? size : 0;
}

static void count(struct published *p, struct pull_report *report) {
  const struct pull_options *o = p->options;
  for (size_t i = 0; i < p->listing.n; i++) {
    const struct bucket_file *file = &p->listing.files[i];
    if (!file->wanted) continue;
    report->files++;
    report->bytes += file->size;
    p->meter.total += file->size;
    p->meter.done += bytes_of(p, file);
    if (o->list) o->list(o->context, file->path, file->size, has(p, file));
  }
}

static int finish(const struct bucket_file *file, const char *from, const char *to, struct error *error) {
  int64_t size = file_bytes(from);
  if (size == file->size) return file_settle(from, to, error);
  unlink(from);
  return error_set(error, ERROR_FORMAT, "'%.200s' came with %lld bytes where the listing tells of %lld", file->path, (long long)size,
                   (long long)file->size);
}

static int bring(struct published *p, const struct bucket_file *file, struct pull_report *report, struct error *error) {
  char from[PULL_PATH_BYTES], to[PULL_PATH_BYTES];
  struct fetch fetch = {.path = from, .tell = pull_meter_tell, .context = &p->meter};
  struct buffer url;
  int64_t before = bytes_of(p, file);
  p->meter.done -= before; /* counted by its own bytes while it comes */
  p->meter.file = file->path;
  report->fetched += file->size - before;
  path_of(p, file, false, from);
  path_of(p, file, true, to);
  begin_url(p, &url);
  pull_escape(&url, p->prefix, true);
  pull_escape(&url, file->path, true);
  bool whole = before == file->size; /* it came, and whoever brought it was ended then */
  if (whole) buffer_clear(&url);
  if (!whole && fetch_from(p, &url, &fetch, error) != 0) return -1;
  p->meter.done += file->size;
  return finish(file, from, to, error);
}

/* Batches that are no longer published, and what came of others: an import would take them for part of it. */
static void sweep(const struct published *p, const char *part) {
  char path[PULL_PATH_BYTES];
  snprintf(path, sizeof path, "%.3800s/%s", p->folder, part);
  DIR *folder = opendir(path);
  for (struct dirent *entry; folder && (entry = readdir(folder));) {
    bool known = entry->d_name[0] == '.';
    for (size_t i = 0; i < p->listing.n && !known; i++) {
      const char *listed = p->listing.files[i].path;
      size_t n = strlen(part);
      known = p->listing.files[i].wanted && strncmp(listed, part, n) == 0 && listed[n] == '/' && strcmp(listed + n + 1, entry->d_name) == 0;
    }
    snprintf(path, sizeof path, "%.3800s/%s/%.255s", p->folder, part, entry->d_name);
    if (!known) unlink(path);
  }
  if (folder) closedir(folder);
}

static int make_folders(const struct published *p, struct error *error) {
  char path[PULL_PATH_BYTES];
  for (size_t i = 0; i < count_parts(p); i++) {
    snprintf(path, sizeof path, "%.3800s/%s", p->folder, parts[i]);
    if (folder_make(path, error) != 0) return -1;
  }
  return 0;
}

/* Waits for whoever else brings the same; the lock goes with the descriptor in *lock. */
static int take_turn(struct published *p, int *lock, struct error *error) {
  char path[PULL_PATH_BYTES];
  snprintf(path, sizeof path, "%.4000s/.lock", p->folder);
  *lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (*lock < 0) return error_set(error, ERROR_IO, "cannot open '%.300s': %s", path, strerror(errno));
  p->meter.file = "";
  pull_meter_begin(&p->meter);
  while (flock(*lock, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return error_set(error, ERROR_IO, "cannot lock '%.300s': %s", path, strerror(errno));
    if (pull_meter_tell(&p->meter, 0)) return error_set(error, ERROR_CANCELLED, "stopped");
    usleep(WAIT_US);
  }
  return 0;
}

static int bring_all(struct published *p, struct pull_report *report, struct error *error) {
  p->meter.done = 0; /* somebody else may have brought some of it meanwhile */
  for (size_t i = 0; i < p->listing.n; i++) p->meter.done += p->listing.files[i].wanted ? bytes_of(p, &p->listing.files[i]) : 0;
  pull_meter_begin(&p->meter);
  for (size_t i = 0; i < p->listing.n; i++) {
    const struct bucket_file *file = &p->listing.files[i];
    if (file->wanted && !has(p, file) && bring(p, file, report, error) != 0) return -1;
  }
  for (size_t i = 0; i < count_parts(p); i++) sweep(p, parts[i]);
  return 0;
}

static int have_all(struct published *p, struct pull_report *report, struct error *error) {
  int lock = -1;
  if (make_folders(p, error) != 0 || pull_check_room(p->folder, p->meter.total - p->meter.done, "XDG_CACHE_HOME", error) != 0) return -1;
  int failed = take_turn(p, &lock, error) || bring_all(p, report, error) ? -1 : 0;
  if (lock >= 0) close(lock);
  return failed;
}

int pull_published(const struct pull_options *options, bool statistics, struct pull_report *out, struct error *error) {
  struct published p = {.options = options, .statistics = statistics, .meter = {.tell = options->tell, .context = options->context}};
  memset(out, 0, sizeof *out);
  out->kind = PULL_PUBLISHED;
  p.endpoint = pull_endpoint("NEURONPEDIA_DATASETS", ENDPOINT, error);
  if (!p.endpoint || read_name(&p, error) != 0 || find_folder(&p, error) != 0) return -1;
  bucket_listing_init(&p.listing);
  int failed = list(&p, p.prefix, "", &p.listing, error) || choose(&p, error) ? -1 : 0;
  if (!failed) count(&p, out);
  if (!failed && !options->list_only) failed = have_all(&p, out, error);
  bucket_listing_clear(&p.listing);
  snprintf(out->repository, sizeof out->repository, "%.255s", p.name);
  snprintf(out->path, sizeof out->path, "%s", p.folder);
  return failed;
}
