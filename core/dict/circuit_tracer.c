/* circuit_tracer.c: per-layer transcoders as circuit-tracer publishes them: layer_N.safetensors beside config.yaml.
 *
 * Of YAML only what these files need is read: lines "key: value" at the margin, values plain or in quotes. Lists,
 * blocks, anchors and lines further in belong to keys that are not asked for; a value that is asked for and begins like
 * one of those is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "core/dict/dict_path_words.h"
#include "core/dict/dict_readers.h"
#include "core/model/tensors.h"

#define YAML_LIMIT (1 << 20)

/* ---- config.yaml ------------------------------------------------------------------------------------- */

/* Cuts blanks, a comment and quotes; NULL when the value is no plain scalar. */
static char *plain(char *value) {
  value += strspn(value, " \t");
  char quote = *value == '"' || *value == '\'' ? *value : 0;
  if (quote) {
    char *end = strchr(++value, quote);
    if (!end || strchr(value, '\\')) return NULL;
    *end = '\0';
    return value;
  }
  char *comment = strstr(value, " #");
  if (comment) *comment = '\0';
  size_t n = strlen(value);
  while (n && strchr(" \t\r", value[n - 1])) value[--n] = '\0';
  return *value && strchr("[{&*!|>%@`", *value) ? NULL : value;
}

/* The value of a key at the margin, "" where there is none. */
static int yaml_find(const char *text, const char *key, const char *file, char out[256], struct error *error) {
  size_t length = strlen(key);
  out[0] = '\0';
  for (const char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
    if (strncmp(line, key, length) != 0 || line[length] != ':') continue;
    char copy[256];
    size_t n = strcspn(line + length + 1, "\n");
    snprintf(copy, sizeof copy, "%.*s", (int)(n < sizeof copy ? n : sizeof copy - 1), line + length + 1);
    const char *value = n < sizeof copy ? plain(copy) : NULL;
    if (!value) return error_set(error, ERROR_FORMAT, "'%s': '%s' is no plain value on one line", file, key);
    memcpy(out, value, strlen(value) + 1);
    return 0;
  }
  return 0;
}

/* ---- the reader -------------------------------------------------------------------------------------- */

static bool layer_of(const char *path, int64_t *layer) {
  struct path_words words, name;
  path_words_init(&words, path);
  snprintf(name.text, sizeof name.text, "%s", path_words_name(&words));
  return !strncmp(name.text, "layer_", 6) && strstr(name.text, ".safetensors") && path_words_number(&name, "layer_", layer);
}

static int folder_of(const char *path, char out[DICT_PATH_BYTES], struct error *error) {
  const char *slash = strrchr(path, '/');
  int n = slash ? snprintf(out, DICT_PATH_BYTES, "%.*s", (int)(slash - path), path) : snprintf(out, DICT_PATH_BYTES, ".");
  if (n < DICT_PATH_BYTES) return 0;
  return error_set(error, ERROR_ARGUMENT, "path '%.60s...' is longer than %d bytes", path, DICT_PATH_BYTES - 1);
}

bool circuit_tracer_is_at(const char *path) {
  char folder[DICT_PATH_BYTES];
  int64_t layer;
  struct error ignored = ERROR_INIT;
  return path_is_file(path) && layer_of(path, &layer) && folder_of(path, folder, &ignored) == 0 &&
         dict_has_file(folder, "config.yaml");
}

/* "mlp.hook_in" or "blocks.{layer}.mlp.hook_in" */
static const char *site_in(const char *hook) {
  if (strncmp(hook, "blocks.", 7) != 0) return hook;
  const char *dot = strchr(hook + 7, '.');
  return dot ? dot + 1 : hook;
}

static int read_yaml(const char *text, int64_t layer, struct dict_config *out, const struct dict_host *host,
                     struct error *error) {
  char kind[256], model[256], in[256], to[256], activation[256], k_text[256];
  int64_t k = 0;
  if (yaml_find(text, "model_kind", out->file, kind, error) != 0 ||
      yaml_find(text, "model_name", out->file, model, error) != 0 ||
      yaml_find(text, "feature_input_hook", out->file, in, error) != 0 ||
      yaml_find(text, "feature_output_hook", out->file, to, error) != 0 ||
      yaml_find(text, "activation", out->file, activation, error) != 0 ||
      yaml_find(text, "k", out->file, k_text, error) != 0)
    return -1;
  if (*kind && strcmp(kind, "transcoder_set") != 0)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': model_kind '%.60s' is not served (served: transcoder_set)", out->file, kind);
  if (!*in || !*to)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' is missing, expected a point such as 'mlp.hook_in'", out->file,
                     *in ? "feature_output_hook" : "feature_input_hook");
  dict_config_note(out, "feature_input_hook = %s", in);
  dict_config_note(out, "feature_output_hook = %s", to);
  dict_config_note(out, "activation = %s", *activation ? activation : "(not said: relu)");
  if (*activation && strcmp(activation, "relu") != 0 && strcmp(activation, "topk") != 0 && strcmp(activation, "jump_relu") != 0)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': activation '%.60s' is not served (served: relu, topk, jump_relu)", out->file,
                     activation);
  out->kind = !strcmp(activation, "topk") ? DICT_TOPK : !strcmp(activation, "jump_relu") ? DICT_JUMPRELU : DICT_RELU;
  dict_config_model(out, model, host);
  if (out->kind == DICT_TOPK && !number_parse_int(k_text, &k))
    return error_set(error, ERROR_FORMAT, "'%s': 'k' is '%.60s', expected the number of features TopK keeps", out->file, k_text);
  if ((out->kind == DICT_TOPK && dict_config_k(out, k, error) != 0) ||
      dict_config_site(out, layer, site_in(in), host, error) != 0)
    return -1;
  return dict_config_site_out(out, layer, site_in(to), host, error);
}

/* W_enc lies [features, inputs]. W_dec was [outputs, features] in older revisions: the biases tell which. A threshold in
 * the file makes it a JumpReLU whatever the description leaves out. */
static int read_shapes(struct dict_config *out, struct error *error) {
  struct tensors *tensors = tensors_open_lazy(out->weights, error);
  if (!tensors) return -1;
  const struct tensor *w_dec = tensors_find(tensors, "W_dec"), *b_dec = tensors_find(tensors, "b_dec");
  bool old = w_dec && b_dec && w_dec->n_dims == 2 && b_dec->n_dims == 1 && w_dec->shape[0] == b_dec->shape[0] &&
             w_dec->shape[1] != b_dec->shape[0];
  if (tensors_find(tensors, "threshold") && out->kind == DICT_RELU) out->kind = DICT_JUMPRELU;
  tensors_close(tensors);
  dict_config_tensors(out);
  dict_config_tensor(out, ROLE_W_ENC, "W_enc", true);
  dict_config_tensor(out, ROLE_W_DEC, "W_dec", old);
  dict_config_tensor(out, ROLE_SKIP, "W_skip", true);
  out->tensors[ROLE_SKIP].optional = true;
  return 0;
}

int circuit_tracer_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  char folder[DICT_PATH_BYTES], *text = NULL;
  size_t length;
  int64_t layer = 0;
  if (snprintf(out->weights, sizeof out->weights, "%s", path) >= (int)sizeof out->weights || !layer_of(path, &layer))
    return error_set(error, ERROR_ARGUMENT, "path '%.60s' names no layer", path);
  if (folder_of(path, folder, error) != 0 || dict_path(folder, "config.yaml", out->file, error) != 0 ||
      file_read(out->file, YAML_LIMIT, &text, &length, error) != 0)
    return -1;
  out->transcoder = true;
  out->apply_b_dec_to_input = false;
  int result = -1;
  if (strlen(text) != length)
    error_set(error, ERROR_FORMAT, "'%s' holds a NUL byte", out->file);
  else if (read_yaml(text, layer, out, host, error) == 0)
    result = read_shapes(out, error);
  free(text);
  return result;
}
