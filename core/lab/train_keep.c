/* train_keep.c: the folder of a training run while it is not finished: a lock on it, and one file, `training`, that has everything it goes
 * on from: what it belongs to, where the text is, the trainer, and a checksum of all that. Knows no job. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/digest.h"
#include "core/base/log.h"
#include "core/lab/train.h"

#define FAMILY "steerd training " /* and a version */
#define MAGIC FAMILY "4"
#define REMEDY "remove that file to begin anew, or name another folder"
#define PATIENCE_NS 500000000 /* whoever only looks whether a folder is held holds it for a moment */
#define MOST_IDENTITY 65536

static int path_of(const char *folder, const char *name, char out[TRAIN_PATH_BYTES], struct error *error) {
  if (snprintf(out, TRAIN_PATH_BYTES, "%s/%s", folder, name) < TRAIN_PATH_BYTES) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "out", "the path '%.80s...' is too long", folder);
}

/* ---- the folder ---- */

static bool is_ours(const char *name) {
  static const char *const names[] = {".", "..", "training", "training.part", "cfg.json", "cfg.json.part", "sae_weights.safetensors",
                                      "sae_weights.safetensors.part"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(name, names[i])) return true;
  return false;
}

/* A dictionary beside a state is one that was written by a run which was then stopped. */
static int check_content(const char *folder, DIR *list, struct error *error) {
  struct dirent *entry;
  bool begun = false, finished = false;
  while ((entry = readdir(list))) {
    if (!is_ours(entry->d_name))
      return error_set_field(error, ERROR_CONFLICT, "out", "the folder '%.200s' has other files in it, such as '%.60s': name a new one", folder,
                             entry->d_name);
    begun |= !strcmp(entry->d_name, "training");
    finished |= !strcmp(entry->d_name, "cfg.json");
  }
  if (begun || !finished) return 0;
  return error_set_field(error, ERROR_CONFLICT, "out", "the folder '%.200s' holds a dictionary already: name another one", folder);
}

static int check_folder(const char *folder, struct error *error) {
  struct stat about;
  if (!folder || !*folder) return error_set_field(error, ERROR_ARGUMENT, "out", "out is needed: the folder of the dictionary");
  if (lstat(folder, &about) != 0) {
    if (errno == ENOENT) return 0;
    return error_set_field(error, ERROR_IO, "out", "'%.200s' could not be looked at: %s", folder, strerror(errno));
  }
  if (!S_ISDIR(about.st_mode)) return error_set_field(error, ERROR_CONFLICT, "out", "'%.200s' is there and is no folder", folder);
  DIR *list = opendir(folder);
  if (!list) return error_set_field(error, ERROR_IO, "out", "'%.200s' could not be looked at: %s", folder, strerror(errno));
  int failed = check_content(folder, list, error);
  closedir(list);
  return failed;
}

/* ---- its lock ---- */

/* On the folder itself: no file comes and goes, and the kernel lets go of it with the process. 0: locked, or the file system has no locks
 * (*none); 1: somebody else has it; -1. */
static int try_lock(int descriptor, int how, bool *none) {
  while (flock(descriptor, how | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return 1;
    if (errno != EINTR) return *none = true, 0;
  }
  return 0;
}

static int tell_held(const char *folder, struct error *error) {
  return error_set_field(error, ERROR_CONFLICT, "out",
                         "a dictionary is being trained into the folder '%.200s' already: wait until that ends, or name another folder", folder);
}

int train_folder_check(const char *folder, struct error *error) {
  bool none = false;
  if (check_folder(folder, error) != 0) return -1;
  int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return 0; /* it is not there */
  int held = try_lock(descriptor, LOCK_SH, &none);
  close(descriptor);
  return held ? tell_held(folder, error) : 0;
}

static int take_lock(const char *folder, int descriptor, struct error *error) {
  int64_t end = clock_ns() + PATIENCE_NS;
  bool none = false;
  while (try_lock(descriptor, LOCK_EX, &none) != 0) {
    if (clock_ns() >= end) return tell_held(folder, error);
    usleep(5000);
  }
  if (none) log_warn("the file system of '%s' has no locks: nobody else may train into that folder meanwhile", folder);
  return 0;
}

/* What stands in it is looked at again once nobody else can change it. */
int train_folder_hold(const char *folder, struct train_hold *out, struct error *error) {
  *out = (struct train_hold){.descriptor = -1};
  if (check_folder(folder, error) != 0) return -1;
  out->made = mkdir(folder, 0777) == 0;
  if (!out->made && errno != EEXIST)
    return error_set_field(error, ERROR_IO, "out", "the folder '%.200s' could not be made: %s", folder, strerror(errno));
  out->descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (out->descriptor < 0)
    return error_set_field(error, ERROR_IO, "out", "the folder '%.200s' could not be opened: %s", folder, strerror(errno));
  if (take_lock(folder, out->descriptor, error) == 0 && check_folder(folder, error) == 0) return 0;
  close(out->descriptor);
  *out = (struct train_hold){.descriptor = -1};
  return -1;
}

void train_folder_release(const char *folder, struct train_hold *hold) {
  if (hold->descriptor < 0) return;
  if (hold->made && rmdir(folder) != 0) { /* it is not empty, as it should be */
  }
  close(hold->descriptor);
  *hold = (struct train_hold){.descriptor = -1};
}

/* ---- the state ---- */

static int put_state(const struct train_plan *plan, const struct trainer *trainer, const struct feed_state *feed, FILE *file, struct error *error) {
  struct buffer identity;
  buffer_init(&identity, 0);
  int failed = train_plan_identity(plan, &identity, error);
  uint64_t length = identity.length;
  if (!failed) {
    fwrite(MAGIC, sizeof MAGIC, 1, file);
    fwrite(&length, sizeof length, 1, file);
    fwrite(identity.data, 1, identity.length, file);
    fwrite(feed, sizeof *feed, 1, file);
    failed = trainer_save(trainer, file, error);
  }
  buffer_clear(&identity);
  return failed;
}

/* Of the first `bytes` of a file: for what disks and copies do to it, not against enemies. */
static int sum_file(FILE *file, int64_t bytes, struct digest *out, struct error *error) {
  static const uint64_t key[2] = {0x7472616967u, 0x6b656570u}; /* the same for ever */
  size_t most = 1 << 20, n = 0;
  char *piece = malloc(most);
  struct digester digester;
  if (!piece) return error_memory(error, most);
  digest_begin(&digester, key);
  rewind(file);
  for (; bytes > 0; bytes -= (int64_t)n) {
    n = fread(piece, 1, bytes < (int64_t)most ? (size_t)bytes : most, file);
    if (n == 0) break;
    digest_add(&digester, piece, n);
  }
  free(piece);
  *out = digest_end(&digester);
  return bytes == 0 ? 0 : error_set(error, ERROR_IO, "the training's state could not be read: %s", ferror(file) ? strerror(errno) : "it is cut short");
}

/* Behind what was put there. */
static int put_sum(FILE *file, struct error *error) {
  struct digest sum;
  if (fflush(file) != 0) return error_set(error, ERROR_IO, "the training's state could not be written: %s", strerror(errno));
  if (sum_file(file, ftello(file), &sum, error) != 0) return -1;
  if (fseeko(file, 0, SEEK_END) == 0 && fwrite(&sum, sizeof sum, 1, file) == 1) return 0;
  return error_set(error, ERROR_IO, "the training's state could not be written: %s", strerror(errno));
}

int train_state_keep(const struct train_plan *plan, const struct trainer *trainer, const struct feed_state *feed, struct error *error) {
  char path[TRAIN_PATH_BYTES], part[TRAIN_PATH_BYTES];
  if (path_of(plan->args.out, "training", path, error) != 0 || path_of(plan->args.out, "training.part", part, error) != 0) return -1;
  FILE *file = fopen(part, "w+be");
  if (!file) return error_set(error, ERROR_IO, "'%.200s' could not be made: %s", part, strerror(errno));
  int failed = put_state(plan, trainer, feed, file, error) != 0 || put_sum(file, error) != 0 ? -1 : 0;
  if (!failed && (fflush(file) != 0 || ferror(file) || fsync(fileno(file)) != 0))
    failed = error_set(error, ERROR_IO, "'%.200s' could not be written: %s", part, strerror(errno));
  fclose(file);
  if (!failed && rename(part, path) != 0) failed = error_set(error, ERROR_IO, "'%.200s' could not be named: %s", path, strerror(errno));
  if (failed) unlink(part);
  return failed;
}

static bool same_value(const struct json_node *a, const struct json_node *b) {
  const char *text = json_text(a, NULL), *other = json_text(b, NULL);
  if (text || other) return text && other && strcmp(text, other) == 0;
  if (json_kind(a) == JSON_KIND_BOOL && json_kind(b) == JSON_KIND_BOOL) return json_bool_or(a, false) == json_bool_or(b, false);
  return json_number_or(a, -1) == json_number_or(b, -1);
}

static void spell(const struct json_node *node, char out[64]) {
  const char *text = json_text(node, NULL);
  if (text)
    snprintf(out, 64, "'%.60s'", text);
  else if (json_kind(node) == JSON_KIND_NONE || json_kind(node) == JSON_KIND_NULL)
    snprintf(out, 64, "none");
  else if (json_kind(node) == JSON_KIND_BOOL)
    snprintf(out, 64, "%s", json_bool_or(node, false) ? "true" : "false");
  else
    snprintf(out, 64, "%.10g", json_number_or(node, 0));
}

static int tell_difference(const struct train_plan *plan, const char *key, const struct json_node *was, const struct json_node *is,
                           struct error *error) {
  char then[64], now[64];
  if (!strcmp(key, "corpus"))
    return error_set_field(error, ERROR_CONFLICT, key,
                           "corpus '%.100s' is not the text that the training in '%.160s' was begun with, or is cut into other documents: go on "
                           "with the same text, or name another folder", plan->args.corpus, plan->args.out);
  spell(was, then);
  spell(is, now);
  return error_set_field(error, ERROR_CONFLICT, key,
                         "%s is %s, but the training in '%.160s' was begun with %s: go on with that, or name another folder", key, now, plan->args.out,
                         then);
}

/* The first thing that differs between what was and what is to be. */
static int compare(const struct train_plan *plan, const struct json_node *was, const struct json_node *is, struct error *error) {
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  while (json_next(is, &iterator, &key, &value))
    if (!same_value(value, json_get(was, key))) return tell_difference(plan, key, json_get(was, key), value, error);
  return 0;
}

static int check_identity(const struct train_plan *plan, const char *saved, struct error *error) {
  struct buffer identity;
  buffer_init(&identity, 0);
  int failed = train_plan_identity(plan, &identity, error);
  if (!failed && strcmp(identity.data, saved) != 0) {
    struct json_node *was = json_parse(saved, strlen(saved), 4, error), *is = json_parse(identity.data, identity.length, 4, error);
    failed = was && is ? compare(plan, was, is, error) : -1;
    json_free(was);
    json_free(is);
  }
  buffer_clear(&identity);
  return failed;
}

/* A right checksum does not make it true: what is counted on from here must not overflow. */
static bool sane(const struct feed_state *feed, const struct train_plan *plan) {
  const int64_t most = INT64_MAX / 4;
  return feed->buffers >= 0 && feed->buffers < most && feed->document >= 0 && feed->document < most && feed->dealt >= 0 &&
         feed->dealt < plan->buffer_batches;
}

static int tell_damaged(struct error *error) {
  return error_set(error, ERROR_FORMAT, "this training's state is damaged and nothing goes on from it: " REMEDY);
}

/* What the state belongs to, to be freed; the file then stands behind it. */
static char *get_identity(FILE *file, struct error *error) {
  char magic[sizeof MAGIC] = "", *identity;
  uint64_t length;
  rewind(file);
  size_t n = fread(magic, 1, sizeof magic, file);
  if (n < sizeof FAMILY || strncmp(magic, FAMILY, sizeof FAMILY - 1) != 0)
    return error_set(error, ERROR_FORMAT, "this is not what a training keeps: " REMEDY), NULL;
  if (n != sizeof magic || memcmp(magic, MAGIC, sizeof magic) != 0)
    return error_set(error, ERROR_FORMAT, "this training's state is of another version of steerd: finish it with that one, or " REMEDY), NULL;
  if (fread(&length, sizeof length, 1, file) != 1 || length > MOST_IDENTITY) return tell_damaged(error), NULL;
  identity = calloc(length + 1, 1);
  if (!identity) return error_memory(error, length + 1), NULL;
  if (fread(identity, 1, length, file) == length) return identity;
  free(identity);
  return tell_damaged(error), NULL;
}

static int check_sum(FILE *file, struct error *error) {
  struct digest sum, saved;
  struct stat about;
  if (fstat(fileno(file), &about) != 0) return error_set(error, ERROR_IO, "it could not be looked at: %s", strerror(errno));
  if (about.st_size < (off_t)sizeof sum) return tell_damaged(error);
  if (sum_file(file, about.st_size - (off_t)sizeof sum, &sum, error) != 0) return -1;
  return fread(&saved, sizeof saved, 1, file) == 1 && digest_equal(sum, saved) ? 0 : tell_damaged(error);
}

/* Whether it is whole comes before what it says: a damaged one may say anything. */
static int get_state(const struct train_plan *plan, struct trainer *trainer, struct feed_state *feed, FILE *file, struct error *error) {
  char *identity = get_identity(file, error);
  free(identity);
  if (!identity || check_sum(file, error) != 0 || !(identity = get_identity(file, error))) return -1;
  int failed = check_identity(plan, identity, error);
  free(identity);
  if (failed) return -1;
  if (fread(feed, sizeof *feed, 1, file) != 1 || !sane(feed, plan)) return tell_damaged(error);
  return trainer_load(trainer, file, error);
}

/* NULL without an error: there is none. */
static FILE *open_state(const struct train_plan *plan, char path[TRAIN_PATH_BYTES], struct error *error) {
  struct stat about;
  if (path_of(plan->args.out, "training", path, error) != 0) return NULL;
  if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) /* opening a pipe would wait for its writer */
    return error_set(error, ERROR_IO, "'%.200s' is not a regular file: take it away, or name another folder", path), NULL;
  FILE *file = fopen(path, "rbe");
  if (!file && errno != ENOENT) error_set(error, ERROR_IO, "'%.200s' could not be read: %s", path, strerror(errno));
  return file;
}

int train_state_find(const struct train_plan *plan, struct trainer *trainer, struct feed_state *feed, struct error *error) {
  char path[TRAIN_PATH_BYTES];
  FILE *file = open_state(plan, path, error);
  if (!file) return error->code ? -1 : 0;
  int failed = get_state(plan, trainer, feed, file, error);
  fclose(file);
  if (failed && error->code == ERROR_FORMAT) error_prefix(error, "'%.200s'", path);
  return failed ? -1 : 1;
}

int train_state_check(const struct train_plan *plan, struct error *error) {
  char path[TRAIN_PATH_BYTES];
  FILE *file = open_state(plan, path, error);
  if (!file) return error->code ? -1 : 0;
  char *identity = get_identity(file, error);
  fclose(file);
  int failed = identity ? check_identity(plan, identity, error) : -1;
  if (failed && error->code == ERROR_FORMAT) error_prefix(error, "'%.200s'", path);
  free(identity);
  return failed;
}

bool train_state_is_there(const char *folder) {
  char path[TRAIN_PATH_BYTES];
  return path_of(folder, "training", path, NULL) == 0 && access(path, F_OK) == 0;
}

/* And what a kill has left of one that was being written. */
void train_state_drop(const char *folder) {
  static const char *const names[] = {"training.part", "training"};
  char path[TRAIN_PATH_BYTES];
  for (size_t i = 0; i < 2; i++)
    if (path_of(folder, names[i], path, NULL) == 0) unlink(path);
}
