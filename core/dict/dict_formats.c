/* dict_formats.c: the formats, in the order in which they are looked for, and the way from a path to a description. */
#include "core/dict/dict_formats.h"

#include <stdio.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "core/dict/dict_ini.h"
#include "core/dict/dict_readers.h"
#include "core/dict/saelens.h"

bool dict_has_file(const char *folder, const char *name) {
  char path[DICT_PATH_BYTES];
  struct error ignored = ERROR_INIT;
  return dict_path(folder, name, path, &ignored) == 0 && path_is_file(path);
}

int dict_folder_of(const char *path, char out[DICT_PATH_BYTES], struct error *error) {
  const char *slash = strrchr(path, '/');
  int n = slash ? snprintf(out, DICT_PATH_BYTES, "%.*s", (int)(slash - path), path) : snprintf(out, DICT_PATH_BYTES, ".");
  if (n < DICT_PATH_BYTES) return 0;
  return error_set(error, ERROR_ARGUMENT, "path '%.60s...' is longer than %d bytes", path, DICT_PATH_BYTES - 1);
}

const char *dict_site_of(const char *hook) {
  if (strncmp(hook, "blocks.", 7) != 0) return hook;
  const char *dot = strchr(hook + 7, '.');
  return dot ? dot + 1 : hook;
}

static bool saelens_is_at(const char *path) {
  return dict_has_file(path, "cfg.json") && !dict_has_file(path, "sae.safetensors");
}

/* Folders first, by the files they hold; then single files, the most particular first. */
static const struct dict_format formats[] = {
    {"saelens", saelens_is_at, saelens_read},
    {"gemma-scope", gemma_scope_is_at, gemma_scope_read},
    {"gemma-scope-2", gemma_scope_2_is_at, gemma_scope_2_read},
    {"llama-scope", llama_scope_is_at, llama_scope_read},
    {"sparsify", sparsify_is_at, sparsify_read},
    {"dictionary-learning", dictionary_learning_is_at, dictionary_learning_read},
    {"llama-scope-r1", llama_scope_r1_is_at, llama_scope_r1_read},
    {"circuit-tracer", circuit_tracer_is_at, circuit_tracer_read},
    {"circuit-tracer-cross-layer", cross_layer_is_at, cross_layer_read},
    {"gemma-scope-2-cross-layer", gemma_scope_2_cross_is_at, gemma_scope_2_cross_read},
    {"attention-saes", attention_saes_is_at, attention_saes_read},
    {"openai", openai_is_at, openai_read},
    {"encoder-decoder", linear_pair_is_at, linear_pair_read},
};
#define FORMAT_COUNT (sizeof formats / sizeof *formats)

const struct dict_format *dict_format_of(const char *path) {
  for (size_t i = 0; i < FORMAT_COUNT; i++)
    if (formats[i].is_at(path)) return &formats[i];
  return NULL;
}

bool dict_recognises(const char *path) { return ini_is_path(path) || dict_format_of(path) != NULL; }

static int nothing_known(const char *path, struct error *error) {
  if (!path_is_file(path) && !path_is_directory(path))
    return error_set(error, ERROR_NOT_FOUND, "'%s' does not exist, expected a dictionary's folder or file, or an .ini that "
                     "describes one", path);
  return error_set(error, ERROR_FORMAT,
                   "'%s' is no dictionary that is known by its files; describe it in an .ini with a section [source ID] "
                   "(keys: weights, kind, point, ...)", path);
}

int dict_config_read(const char *path, const char *id, const struct dict_host *host, struct dict_config *config,
                     struct error *error) {
  int64_t layer;
  dict_config_init(config, "");
  if (!*id || number_parse_int(id, &layer))
    return error_set(error, ERROR_ARGUMENT,
                     "source id '%.60s' cannot name a dictionary: a bare number means the neurons of "
                     "a layer, expected an id such as '7-res-jb'",
                     id);
  if (ini_is_path(path)) {
    if (dict_ini_read(path, id, host, config, error) != 0) return -1;
    return dict_config_check(config, host, error);
  }
  const struct dict_format *format = dict_format_of(path);
  if (!format) return nothing_known(path, error);
  config->format = format->name;
  char layer_path[DICT_PATH_BYTES];
  int folder = dict_cross_layer_path(path, id, layer_path, error);
  if (folder < 0 || format->read(folder ? layer_path : path, host, config, error) != 0) return -1;
  return dict_config_check(config, host, error);
}
