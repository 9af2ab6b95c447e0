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
    "weights", "kind",        "point",   "point_out", "k",     "select", "threshold", "apply_b_dec_to_input", "normalize",
    "scale",   "center",      "fold",    "bos_counts", "prepend_bos", "context", "head", "tied", "w_enc", "w_dec",
    "b_enc",   "b_dec",       "threshold_name", "r_mag", "b_mag", "w_skip"};
#define KNOWN_KEYS                                                                                                  \
  "weights, kind, point, point_out, k, select, threshold, apply_b_dec_to_input, normalize, scale, center, fold, "    \
  "bos_counts, prepend_bos, context, head, tied, w_enc, w_dec, b_enc, b_dec, threshold_name, r_mag, b_mag, w_skip"
#define KNOWN_COUNT (sizeof known_keys / sizeof *known_keys)

static bool is_known(const char *key) {
  for (size_t i = 0; i < KNOWN_COUNT; i++)
    if (!strcmp(key, known_keys[i])) return true;
  return false;
}

static int check_keys(const struct section *section, struct error *error) {
  for (size_t i = 0; i < ini_count(section->ini); i++) {
    const struct ini_entry *entry = ini_at(section->ini, i);
    if (strcmp(entry->section, section->name) != 0) continue;
    dict_config_note(section->out, "%s = %.160s", entry->key, entry->value);
    if (is_known(entry->key)) continue;
    const char *near = nearest_name(entry->key, known_keys, KNOWN_COUNT);
    return error_set(error, ERROR_FORMAT, "'%s' line %d: unknown key '%.60s'%s%s%s", ini_path(section->ini),
                     entry->line, entry->key, near ? ", did you mean '" : ", expected one of " KNOWN_KEYS,
                     near ? near : "", near ? "'?" : "");
  }
  return 0;
}

static int read_weights(const struct section *section, struct error *error) {
  const struct ini_entry *entry;
  if (need(section, "weights", "a .pth, .npz or .safetensors file", &entry, error) != 0) return -1;
  return ini_value_path(section->ini, entry, section->out->weights, sizeof section->out->weights, error);
}

/* A key that only some kinds have: refused elsewhere. */
static int belongs(const struct section *section, const char *key, bool allowed, const char *to, struct error *error) {
  const struct ini_entry *entry = find(section, key);
  if (!entry || allowed) return 0;
  return error_set(error, ERROR_FORMAT, "'%s' line %d: %s belongs to %s, this one is '%s'", ini_path(section->ini),
                   entry->line, key, to, dict_kind_name(section->out->kind));
}

static int read_k(const struct section *section, struct error *error) {
  const struct ini_entry *entry;
  bool counts = section->out->kind == DICT_TOPK || section->out->kind == DICT_GROUPMAX;
  if (belongs(section, "k", counts, "kind 'topk' or 'groupmax'", error) != 0) return -1;
  if (!counts) return 0;
  int64_t k;
  if (need(section, "k", "the number of features TopK keeps", &entry, error) != 0) return -1;
  if (!number_parse_int(entry->value, &k)) return wrong_value(section, entry, "an integer", error);
  return dict_config_k(section->out, k, error);
}

static int read_select(const struct section *section, struct error *error) {
  const struct ini_entry *entry = find(section, "select");
  if (belongs(section, "select", section->out->kind == DICT_TOPK, "kind 'topk'", error) != 0) return -1;
  if (!entry || !strcmp(entry->value, "raw")) return 0;
  section->out->selects_folded = true;
  return !strcmp(entry->value, "folded") ? 0 : wrong_value(section, entry, "raw or folded", error);
}

static int read_kind(const struct section *section, struct error *error) {
  const struct ini_entry *entry;
  if (need(section, "kind", "relu, jumprelu, topk, gated or groupmax", &entry, error) != 0) return -1;
  for (int kind = 0; kind < DICT_KIND_COUNT; kind++)
    if (!strcmp(entry->value, dict_kind_name((enum dict_kind)kind))) {
      section->out->kind = (enum dict_kind)kind;
      dict_config_tensors(section->out);
      return read_k(section, error) == 0 ? read_select(section, error) : -1;
    }
  return error_set(error, ERROR_UNSUPPORTED,
                   "'%s' line %d: kind '%.60s' is not served (served: relu, jumprelu, topk, gated, groupmax)",
                   ini_path(section->ini), entry->line, entry->value);
}

static int read_point(const struct section *section, const struct dict_host *host, struct error *error) {
  const struct ini_entry *entry;
  struct dict_config *out = section->out;
  if (need(section, "point", "a point such as 'blocks.0.hook_resid_post'", &entry, error) != 0 ||
      dict_config_point(out, entry->value, host, error) != 0)
    return -1;
  entry = find(section, "point_out");
  out->transcoder = entry != NULL;
  out->apply_b_dec_to_input = !entry;
  return entry ? dict_config_point_out(out, entry->value, host, error) : 0;
}

static int read_flags(const struct section *section, struct error *error) {
  struct dict_config *out = section->out;
  if (get_bool(section, "apply_b_dec_to_input", &out->apply_b_dec_to_input, error) != 0 ||
      get_bool(section, "center", &out->center_mean, error) != 0 ||
      get_bool(section, "fold", &out->fold, error) != 0 ||
      get_bool(section, "bos_counts", &out->bos_counts, error) != 0)
    return -1;
  if (out->transcoder && out->apply_b_dec_to_input)
    return wrong_value(section, find(section, "apply_b_dec_to_input"), "no: b_dec of a transcoder belongs to its output",
                       error);
  return get_bool(section, "prepend_bos", &out->prepend_bos, error);
}

/* ---- numbers ---------------------------------------------------------------------------------------- */

static int get_number(const struct section *section, const char *key, double *out, struct error *error) {
  const struct ini_entry *entry = find(section, key);
  if (!entry || number_parse_double(entry->value, out)) return 0;
  return wrong_value(section, entry, "a number", error);
}

static int read_counts(const struct section *section, struct error *error) {
  const struct ini_entry *entry = find(section, "context");
  struct dict_config *out = section->out;
  if (entry && (!number_parse_int(entry->value, &out->context) || out->context < 1))
    return wrong_value(section, entry, "a number of tokens, 1 or more", error);
  entry = find(section, "head");
  if (!entry) return 0;
  if (!number_parse_int(entry->value, &out->head) || out->head < 0)
    return wrong_value(section, entry, "the number of a head, 0 or more", error);
  if (out->in.site == SITE_ATTN_Z) return 0;
  return wrong_value(section, entry, "no such key: only attn.hook_z has heads", error);
}

static int read_normalisation(const struct section *section, struct error *error) {
  static const char *const names[] = {[DICT_NORM_NONE] = "none", [DICT_NORM_SCALE] = "scale",
                                      [DICT_NORM_LENGTH] = "length", [DICT_NORM_STANDARD] = "layer_norm"};
  const struct ini_entry *entry = find(section, "normalize"), *scale = find(section, "scale");
  struct dict_config *out = section->out;
  size_t norm = 0;
  while (entry && norm < 4 && strcmp(entry->value, names[norm]) != 0) norm++;
  if (norm == 4) return wrong_value(section, entry, "none, scale, length or layer_norm", error);
  out->norm = (enum dict_norm)norm;
  if (out->norm != DICT_NORM_SCALE)
    return scale ? wrong_value(section, scale, "no such key without normalize = scale", error) : 0;
  if (need(section, "scale", "what the input is multiplied by", &scale, error) != 0 ||
      get_number(section, "scale", &out->scale, error) != 0)
    return -1;
  return out->scale > 0 ? 0 : wrong_value(section, scale, "a number above 0", error);
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static const struct {
  const char *key;
  enum dict_role role;
} tensor_keys[] = {{"w_enc", ROLE_W_ENC}, {"w_dec", ROLE_W_DEC}, {"b_enc", ROLE_B_ENC}, {"b_dec", ROLE_B_DEC},
                   {"threshold_name", ROLE_THRESHOLD}, {"r_mag", ROLE_GAIN}, {"b_mag", ROLE_SHIFT}, {"w_skip", ROLE_SKIP}};

/* "NAME" or "NAME transposed" or "none". The name is kept in the config, which outlives the ini. */
static int read_tensor(const struct section *section, size_t i, struct error *error) {
  const struct ini_entry *entry = find(section, tensor_keys[i].key);
  struct dict_config *out = section->out;
  enum dict_role role = tensor_keys[i].role;
  if (!entry) return 0;
  size_t length = strcspn(entry->value, " ");
  bool turned = !strcmp(entry->value + length, " transposed"), matrix = role == ROLE_W_ENC || role == ROLE_W_DEC || role == ROLE_SKIP;
  if (!length || length >= sizeof out->names[0] || (entry->value[length] && !(turned && matrix)))
    return wrong_value(section, entry, matrix ? "a tensor's name, and \"transposed\" where it is" : "a tensor's name", error);
  memcpy(out->names[role], entry->value, length);
  out->names[role][length] = '\0';
  bool none = !strcmp(out->names[role], "none") && (role == ROLE_B_ENC || role == ROLE_B_DEC);
  dict_config_tensor(out, role, none ? NULL : out->names[role], turned);
  return 0;
}

static int read_tensors(const struct section *section, struct error *error) {
  struct dict_config *out = section->out;
  bool jump = out->kind == DICT_JUMPRELU, gated = out->kind == DICT_GATED, tied = false;
  if (belongs(section, "threshold", jump, "kind 'jumprelu'", error) != 0 ||
      belongs(section, "threshold_name", jump, "kind 'jumprelu'", error) != 0 ||
      belongs(section, "r_mag", gated, "kind 'gated'", error) != 0 ||
      belongs(section, "b_mag", gated, "kind 'gated'", error) != 0)
    return -1;
  for (size_t i = 0; i < sizeof tensor_keys / sizeof *tensor_keys; i++)
    if (read_tensor(section, i, error) != 0) return -1;
  if (find(section, "threshold") && !find(section, "threshold_name"))
    dict_config_tensor(out, ROLE_THRESHOLD, NULL, false);
  if (get_number(section, "threshold", &out->threshold, error) != 0 ||
      get_bool(section, "tied", &tied, error) != 0)
    return -1;
  if (!tied) return 0;
  if (find(section, "w_dec")) return wrong_value(section, find(section, "tied"), "no, as w_dec is named", error);
  dict_config_tensor(out, ROLE_W_DEC, out->tensors[ROLE_W_ENC].name, !out->tensors[ROLE_W_ENC].transposed);
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
      read_flags(section, error) != 0 || read_counts(section, error) != 0 ||
      read_normalisation(section, error) != 0)
    return -1;
  return read_tensors(section, error);
}

int dict_ini_read(const char *path, const char *id, const struct dict_host *host, struct dict_config *out,
                  struct error *error) {
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
