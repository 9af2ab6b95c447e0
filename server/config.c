/* Owns the order of the layers and the shape of the command line. Refuses to know what a setting means. */
#include "server/config.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/mapfile.h"

/* ---- files ------------------------------------------------------------------------------------------ */

static int unknown_key(const struct ini *ini, const struct ini_entry *entry, struct error *error) {
  const char *near = option_nearest(entry->key);
  return error_set(error, ERROR_ARGUMENT, "%s:%d: unknown setting '%.100s'%s%s%s", ini_path(ini), entry->line,
                   entry->key, near ? "; did you mean '" : "; steerd help serve lists them all",
                   near ? near : "", near ? "'?" : "");
}

/* Sections only group, so the INI reader cannot see a key that stands in two of them. */
static const struct ini_entry *earlier(const struct ini *ini, size_t i) {
  for (size_t j = 0; j < i; j++)
    if (option_find(ini_at(ini, j)->key) == option_find(ini_at(ini, i)->key)) return ini_at(ini, j);
  return NULL;
}

static int read_file(struct options *options, const char *path, struct error *error) {
  struct ini *ini = ini_open(path, error);
  if (!ini) return -1;
  int rc = 0;
  for (size_t i = 0; i < ini_count(ini) && !rc; i++) {
    const struct ini_entry *entry = ini_at(ini, i);
    const struct option *option = option_find(entry->key);
    char origin[256];
    snprintf(origin, sizeof origin, "%.200s:%d", path, entry->line);
    const struct ini_entry *twice = option ? earlier(ini, i) : NULL;
    if (!option)
      rc = unknown_key(ini, entry, error);
    else if (twice)
      rc = error_set(error, ERROR_ARGUMENT, "%s: '%s' already stands in line %d", origin, entry->key,
                     twice->line);
    else
      rc = option_set(options, option, entry->value, origin, error);
  }
  ini_close(ini);
  return rc;
}

/* ---- environment ------------------------------------------------------------------------------------ */

static int read_environment(struct options *options, struct error *error) {
  for (size_t i = 0; i < option_count(); i++) {
    const struct option *option = option_at(i);
    char name[80], origin[96];
    size_t n = (size_t)snprintf(name, sizeof name, "STEERD_%s", option->name);
    for (size_t j = 0; j < n; j++) name[j] = (char)toupper((unsigned char)name[j]);
    const char *value = getenv(name);
    if (!value) continue;
    snprintf(origin, sizeof origin, "environment %s", name);
    if (option_set(options, option, value, origin, error)) return -1;
  }
  return 0;
}

/* ---- flags ------------------------------------------------------------------------------------------ */

/* One flag of the command line: "--name value" or "--name=value". */
struct flag {
  char name[64]; /* without the dashes */
  const char *value;
};

/* Reads the flag at argv[*i] and moves *i past it. */
static int next_flag(int argc, char **argv, int *i, struct flag *flag, struct error *error) {
  const char *word = argv[(*i)++];
  if (strncmp(word, "--", 2) || !word[2])
    return error_set(error, ERROR_ARGUMENT, "'%.100s' is not a flag; settings look like --max-body 1048576",
                     word);
  const char *name = word + 2, *equals = strchr(name, '=');
  size_t length = equals ? (size_t)(equals - name) : strlen(name);
  if (length >= sizeof flag->name) length = sizeof flag->name - 1;
  memcpy(flag->name, name, length);
  flag->name[length] = '\0';
  flag->value = equals ? equals + 1 : NULL;
  if (strcmp(flag->name, "config") && !option_find(flag->name)) {
    const char *near = option_nearest(flag->name);
    return error_set(error, ERROR_ARGUMENT, "unknown flag '--%s'%s%s%s", flag->name,
                     near ? "; did you mean '--" : "; steerd help serve lists them all", near ? near : "",
                     near ? "'?" : "");
  }
  if (!flag->value && *i < argc) flag->value = argv[(*i)++];
  if (!flag->value) return error_set(error, ERROR_ARGUMENT, "'--%s' needs a value behind it", flag->name);
  return 0;
}

static int read_config_flags(struct options *options, int argc, char **argv, struct error *error) {
  struct flag flag;
  for (int i = 0; i < argc;) {
    if (next_flag(argc, argv, &i, &flag, error)) return -1;
    if (strcmp(flag.name, "config")) continue;
    if (read_file(options, flag.value, error)) return -1;
  }
  return 0;
}

static int read_flags(struct options *options, int argc, char **argv, struct error *error) {
  struct flag flag;
  bool seen[OPTIONS_MOST] = {false};
  for (int i = 0; i < argc;) {
    if (next_flag(argc, argv, &i, &flag, error)) return -1;
    const struct option *option = option_find(flag.name);
    if (!option) continue; /* --config */
    char origin[80];
    snprintf(origin, sizeof origin, "--%s", flag.name);
    bool *again = &seen[option - option_at(0)];
    int rc = *again ? option_add(options, option, flag.value, origin, error)
                    : option_set(options, option, flag.value, origin, error);
    if (rc) return -1;
    *again = true;
  }
  return 0;
}

static bool asks_help(int argc, char **argv) {
  for (int i = 0; i < argc; i++)
    if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return true;
  return false;
}

bool config_knows(const char *word, char name[64]) {
  bool flag = !strncmp(word, "--", 2);
  snprintf(name, 64, "%.*s", flag ? (int)strcspn(word + 2, "=") : 0, word + (flag ? 2 : 0));
  return flag && (option_find(name) || !strcmp(name, "config") || !strcmp(name, "help"));
}

/* What single rows cannot say. */
static int check_together(const struct options *o, struct error *error) {
  if (o->max_batch_body < o->max_body)
    return error_set(error, ERROR_ARGUMENT,
                     "max_batch_body: %lld is less than max_body, %lld; raise the first or lower the second",
                     (long long)o->max_batch_body, (long long)o->max_body);
  if (!o->listen.count)
    return error_set(error, ERROR_ARGUMENT, "listen: no address to answer on; 127.0.0.1:8080 is the default");
  return 0;
}

int config_read(struct options *options, int argc, char **argv, const char *system_file, bool *help,
                struct error *error) {
  if (options_init(options, error)) return -1;
  *help = asks_help(argc, argv);
  if (*help) return 0;
  if (system_file && path_is_file(system_file) && read_file(options, system_file, error)) return -1;
  if (read_config_flags(options, argc, argv, error)) return -1;
  if (read_environment(options, error)) return -1;
  if (read_flags(options, argc, argv, error)) return -1;
  return check_together(options, error);
}
