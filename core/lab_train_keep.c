/* lab_train_keep.c: the folder of a training run while it is not finished: one file, `training`, that has everything it goes on from.
 * Knows no job. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/lab_train.h"

#define MAGIC "steerd training 1"
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

int train_folder_check(const char *folder, struct error *error) {
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

int train_folder_make(const char *folder, struct error *error) {
  if (mkdir(folder, 0777) == 0 || errno == EEXIST) return 0;
  return error_set_field(error, ERROR_IO, "out", "the folder '%.200s' could not be made: %s", folder, strerror(errno));
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

int train_state_keep(const struct train_plan *plan, const struct trainer *trainer, const struct feed_state *feed, struct error *error) {
  char path[TRAIN_PATH_BYTES], part[TRAIN_PATH_BYTES];
  if (path_of(plan->args.out, "training", path, error) != 0 || path_of(plan->args.out, "training.part", part, error) != 0) return -1;
  FILE *file = fopen(part, "wbe");
  if (!file) return error_set(error, ERROR_IO, "'%.200s' could not be made: %s", part, strerror(errno));
  int failed = put_state(plan, trainer, feed, file, error);
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
  return json_number_or(a, -1) == json_number_or(b, -1);
}

static void spell(const struct json_node *node, char out[48]) {
  const char *text = json_text(node, NULL);
  if (text)
    snprintf(out, 48, "'%.40s'", text);
  else
    snprintf(out, 48, "%.10g", json_number_or(node, 0));
}

/* The first thing that differs between what was and what is to be. */
static int tell_difference(const struct train_plan *plan, const struct json_node *was, const struct json_node *is, struct error *error) {
  void *iterator = NULL;
  const char *key;
  const struct json_node *value;
  char then[48], now[48];
  while (json_next(is, &iterator, &key, &value)) {
    if (same_value(value, json_get(was, key))) continue;
    spell(json_get(was, key), then);
    spell(value, now);
    if (!strcmp(key, "corpus")) snprintf(now, sizeof now, "another one now");
    if (!strcmp(key, "corpus")) snprintf(then, sizeof then, "a text that is");
    return error_set_field(error, ERROR_CONFLICT, "out",
                           "the folder '%.160s' holds a training that was begun with other settings: its %s is %s, not %s; go on with those, or name "
                           "another folder",
                           plan->args.out, key, then, now);
  }
  return error_set_field(error, ERROR_CONFLICT, "out", "the folder '%.160s' holds another training: name another folder", plan->args.out);
}

static int check_identity(const struct train_plan *plan, const char *saved, struct error *error) {
  struct buffer identity;
  buffer_init(&identity, 0);
  int failed = train_plan_identity(plan, &identity, error);
  if (!failed && strcmp(identity.data, saved) != 0) {
    struct json_node *was = json_parse(saved, strlen(saved), 4, error), *is = json_parse(identity.data, identity.length, 4, error);
    failed = was && is ? tell_difference(plan, was, is, error) : -1;
    json_free(was);
    json_free(is);
  }
  buffer_clear(&identity);
  return failed;
}

static bool sane(const struct feed_state *feed, const struct train_plan *plan) {
  return feed->buffers >= 0 && feed->document >= 0 && feed->dealt >= 0 && feed->dealt < plan->buffer_batches;
}

static int get_state(const struct train_plan *plan, struct trainer *trainer, struct feed_state *feed, FILE *file, struct error *error) {
  char magic[sizeof MAGIC], *identity;
  uint64_t length;
  if (fread(magic, sizeof magic, 1, file) != 1 || memcmp(magic, MAGIC, sizeof magic) != 0 || fread(&length, sizeof length, 1, file) != 1 ||
      length > MOST_IDENTITY)
    return error_set(error, ERROR_FORMAT, "it is not what a training keeps");
  identity = calloc(length + 1, 1);
  if (!identity) return error_memory(error, length + 1);
  int failed = fread(identity, 1, length, file) == length && fread(feed, sizeof *feed, 1, file) == 1 && sane(feed, plan)
                   ? check_identity(plan, identity, error)
                   : error_set(error, ERROR_FORMAT, "the training's state is damaged");
  free(identity);
  return failed ? -1 : trainer_load(trainer, file, error);
}

int train_state_find(const struct train_plan *plan, struct trainer *trainer, struct feed_state *feed, struct error *error) {
  char path[TRAIN_PATH_BYTES];
  if (path_of(plan->args.out, "training", path, error) != 0) return -1;
  FILE *file = fopen(path, "rbe");
  if (!file && errno == ENOENT) return 0;
  if (!file) return error_set(error, ERROR_IO, "'%.200s' could not be read: %s", path, strerror(errno));
  int failed = get_state(plan, trainer, feed, file, error);
  fclose(file);
  if (failed && error->code == ERROR_FORMAT) error_prefix(error, "'%.200s'", path);
  return failed ? -1 : 1;
}

/* And what a kill has left of one that was being written. */
void train_state_drop(const char *folder) {
  static const char *const names[] = {"training.part", "training"};
  char path[TRAIN_PATH_BYTES];
  for (size_t i = 0; i < 2; i++)
    if (path_of(folder, names[i], path, NULL) == 0) unlink(path);
}
