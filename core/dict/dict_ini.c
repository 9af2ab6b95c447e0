/* dict_ini.c: [source ID] -> struct dict_config. Knows no other section; the file may describe a model too. */
#include "core/dict/dict_ini.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/ini.h"
#include "core/base/nearest.h"
#include "core/base/number.h"

struct section {
  const struct ini *ini;
  char name[128];
  struct dict_config *out;
};

static int wrong_value(const struct section *section, const struct ini_entry *entry, const char *expected,
                       struct error *error) {
  return error_set(error, ERROR_FORMAT, "'%s' line %d: %s is '%.60s', expected %s", ini_path(section->ini),
                   entry->line, entry->key, entry->value, expected);
}

static const struct ini_entry *find(const struct section *section, const char *key) {
  return ini_find(section->ini, section->name, key);
}

static int need(const struct section *section, const char *key, const char *expected,
                const struct ini_entry **out, struct error *error) {
  *out = find(section, key);
  if (*out && *(*out)->value) return 0;
  return error_set(error, ERROR_FORMAT, "'%s' [%s]: key '%s' is missing, expected %s", ini_path(section->ini),
                   section->name, key, expected);
}

static int get_bool(const struct section *section, const char *key, bool *out, struct error *error) {
  const struct ini_entry *entry = find(section, key);
  if (!entry) return 0;
  bool yes = !strcmp(entry->value, "yes") || !strcmp(entry->value, "true");
  if (!yes && strcmp(entry->value, "no") != 0 && strcmp(entry->value, "false") != 0)
    return wrong_value(section, entry, "yes or no", error);
  *out = yes;
  return 0;
}

/* ---- keys ------------------------------------------------------------------------------------------- */

static const char *const known_keys[] = {
    "weights", "kind", "point",      "k",           "apply_b_dec_to_input",
    "center",  "fold", "bos_counts", "prepend_bos", "context"};
#define KNOWN_KEYS \
  "weights, kind, point, k, apply_b_dec_to_input, center, fold, bos_counts, prepend_bos, context"
#define KNOWN_COUNT (sizeof known_keys / sizeof *known_keys)

static bool is_known(const char *key) {
  for (size_t i = 0; i < KNOWN_COUNT; i++)
    if (!strcmp(key, known_keys[i])) return true;
  return false;
}

static int check_keys(const struct section *section, struct error *error) {
  for (size_t i = 0; i < ini_count(section->ini); i++) {
    const struct ini_entry *entry = ini_at(section->ini, i);
    if (strcmp(entry->section, section->name) != 0 || is_known(entry->key)) continue;
    const char *near = nearest_name(entry->key, known_keys, KNOWN_COUNT);
    return error_set(error, ERROR_FORMAT, "'%s' line %d: unknown key '%.60s'%s%s%s", ini_path(section->ini),
                     entry->line, entry->key, near ? ", did you mean '" : ", expected one of " KNOWN_KEYS,
                     near ? near : "", near ? "'?" : "");
  }
  return 0;
}

static int read_weights(const struct section *section, struct error *error) {
  const struct ini_entry *entry;
  if (need(section, "weights", "a .pth or .safetensors file", &entry, error) != 0) return -1;
  return ini_value_path(section->ini, entry, section->out->weights, sizeof section->out->weights, error);
}

static int read_k(const struct section *section, struct error *error) {
  const struct ini_entry *entry = find(section, "k");
  if (section->out->kind != DICT_TOPK)
    return entry ? error_set(error, ERROR_FORMAT, "'%s' line %d: k belongs to kind 'topk', this one is '%s'",
                             ini_path(section->ini), entry->line, dict_kind_name(section->out->kind))
                 : 0;
  int64_t k;
  if (need(section, "k", "the number of features TopK keeps", &entry, error) != 0) return -1;
  if (!number_parse_int(entry->value, &k)) return wrong_value(section, entry, "an integer", error);
  return dict_config_k(section->out, k, error);
}

static int read_kind(const struct section *section, struct error *error) {
  const struct ini_entry *entry;
  if (need(section, "kind", "relu, jumprelu or topk", &entry, error) != 0) return -1;
  for (int kind = DICT_RELU; kind <= DICT_TOPK; kind++)
    if (!strcmp(entry->value, dict_kind_name((enum dict_kind)kind))) {
      section->out->kind = (enum dict_kind)kind;
      return read_k(section, error);
    }
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s' line %d: kind '%.60s' is not served (served: relu, jumprelu, topk)",
                   ini_path(section->ini), entry->line, entry->value);
}

static int read_point(const struct section *section, const struct dict_host *host, struct error *error) {
  const struct ini_entry *entry;
  if (need(section, "point", "a point such as 'blocks.0.hook_resid_post'", &entry, error) != 0) return -1;
  return dict_config_point(section->out, entry->value, host, error);
}

static int read_flags(const struct section *section, struct error *error) {
  struct dict_config *out = section->out;
  if (get_bool(section, "apply_b_dec_to_input", &out->apply_b_dec_to_input, error) != 0 ||
      get_bool(section, "center", &out->center_mean, error) != 0 ||
      get_bool(section, "fold", &out->fold, error) != 0 ||
      get_bool(section, "bos_counts", &out->bos_counts, error) != 0)
    return -1;
  return get_bool(section, "prepend_bos", &out->prepend_bos, error);
}

static int read_context(const struct section *section, struct error *error) {
  const struct ini_entry *entry = find(section, "context");
  if (!entry) return 0;
  int64_t context;
  if (!number_parse_int(entry->value, &context) || context < 1)
    return wrong_value(section, entry, "a number of tokens, 1 or more", error);
  section->out->context = context;
  return 0;
}

/* ---- the section ------------------------------------------------------------------------------------ */

static int no_section(const struct section *section, struct error *error) {
  char sources[256] = "";
  const char *last = "";
  size_t used = 0;
  for (size_t i = 0; i < ini_count(section->ini); i++) {
    const char *name = ini_at(section->ini, i)->section;
    if (!strcmp(name, last) || strncmp(name, "source ", 7) != 0) continue;
    last = name;
    int n = snprintf(sources + used, sizeof sources - used, "%s[%s]", used ? ", " : "", name);
    used = size_min(used + (size_t)n, sizeof sources - 1);
  }
  return error_set(error, ERROR_NOT_FOUND, "'%s' has no section [%s], it has %s", ini_path(section->ini),
                   section->name, used ? sources : "no section [source ...] at all");
}

static int read_section(const struct section *section, const struct dict_host *host, struct error *error) {
  bool found = false;
  for (size_t i = 0; i < ini_count(section->ini) && !found; i++)
    found = !strcmp(ini_at(section->ini, i)->section, section->name);
  if (!found) return no_section(section, error);
  if (check_keys(section, error) != 0 || read_weights(section, error) != 0 ||
      read_kind(section, error) != 0 || read_point(section, host, error) != 0 ||
      read_flags(section, error) != 0)
    return -1;
  return read_context(section, error);
}

int dict_ini_read(const char *path, const char *id, const struct dict_host *host, struct dict_config *out,
                  struct error *error) {
  memset(out, 0, sizeof *out);
  out->apply_b_dec_to_input = out->prepend_bos = out->fold = true;
  out->format = "workshop";
  struct section section = {NULL, "", out};
  int length = snprintf(section.name, sizeof section.name, "source %s", id);
  if (length >= (int)sizeof section.name)
    return error_set(error, ERROR_ARGUMENT, "source id '%.60s...' is longer than %zu bytes", id,
                     sizeof section.name - 8);
  if (snprintf(out->file, sizeof out->file, "%s", path) >= (int)sizeof out->file)
    return error_set(error, ERROR_ARGUMENT, "path '%.60s...' is longer than %d bytes", path,
                     DICT_PATH_BYTES - 1);
  struct ini *ini = ini_open(path, error);
  if (!ini) return -1;
  section.ini = ini;
  int result = read_section(&section, host, error);
  ini_close(ini);
  return result;
}
