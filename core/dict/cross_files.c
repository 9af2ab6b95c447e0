/* cross_files.c: which layers of a cross-layer transcoder lie in a folder. Knows their names, not what is in them. */
#include "core/dict/cross_files.h"

#include <stdio.h>
#include <string.h>

#include "core/dict/dict_path_words.h"
#include "core/dict/dict_readers.h"

#define MOST_LAYERS 1000

bool cross_file_layer(const char *path, const char *prefix, int64_t *layer) {
  struct path_words words, name;
  path_words_init(&words, path);
  snprintf(name.text, sizeof name.text, "%s", path_words_name(&words));
  return !strncmp(name.text, prefix, strlen(prefix)) && strstr(name.text, ".safetensors") && path_words_number(&name, prefix, layer);
}

/* The prefix of a file that layer `layer` lacks; NULL when it has all. */
static const char *lacks(const char *folder, const char *const *prefixes, int64_t layer) {
  char name[64];
  for (; *prefixes; prefixes++) {
    snprintf(name, sizeof name, "%s%lld.safetensors", *prefixes, (long long)layer);
    if (!dict_has_file(folder, name)) return *prefixes;
  }
  return NULL;
}

int cross_files_check(const char *folder, const char *const *prefixes, int64_t layer, const struct dict_host *host,
                      struct dict_config *out, struct error *error) {
  int64_t n = 0, wanted = host->arch ? host->arch->n_layer : layer + 1;
  if (layer >= wanted)
    return error_set(error, ERROR_ARGUMENT, "'%s': layer %lld is out of range, model '%s' has layers 0 to %lld", folder,
                     (long long)layer, host->model_id, (long long)wanted - 1);
  while (n < MOST_LAYERS && !lacks(folder, prefixes, n)) n++;
  if (n < wanted)
    return error_set(error, ERROR_NOT_FOUND, "'%s': '%s%lld.safetensors' is missing, a cross-layer transcoder%s%s needs the files of the "
                     "layers 0 to %lld", folder, lacks(folder, prefixes, n), (long long)n, host->arch ? " for model " : "",
                     host->arch ? host->model_id : "", (long long)wanted - 1);
  if (host->arch && n > wanted)
    return error_set(error, ERROR_FORMAT, "'%s': the transcoder has layers 0 to %lld, but model '%s' has layers 0 to %lld", folder,
                     (long long)n - 1, host->model_id, (long long)wanted - 1);
  dict_config_note(out, "the files say layer %lld of 0 to %lld", (long long)layer, (long long)n - 1);
  out->n_targets = (int32_t)(n - layer);
  return 0;
}

int dict_cross_layer_path(const char *path, const char *id, char out[DICT_PATH_BYTES], struct error *error) {
  const char *prefix = dict_has_file(path, "W_enc_0.safetensors") && dict_has_file(path, "config.yaml") ? "W_enc_"
                       : dict_has_file(path, "params_layer_0.safetensors")                              ? "params_layer_"
                                                                                                        : NULL;
  char name[64];
  size_t digits = strspn(id, "0123456789");
  if (!prefix) return 0;
  if (!digits || digits > 3)
    return error_set(error, ERROR_ARGUMENT, "'%s' holds a transcoder of many layers, and the id '%.60s' begins with none of them; call it "
                     "such as '7-clt', or name a layer's file (%s7.safetensors)", path, id, prefix);
  snprintf(name, sizeof name, "%s%.*s.safetensors", prefix, (int)digits, id);
  return dict_path(path, name, out, error) == 0 ? 1 : -1;
}
