/* circuit_tracer.c: transcoders as circuit-tracer publishes them, beside a config.yaml: per layer, layer_N.safetensors; across
 * layers, W_enc_N.safetensors (with both biases of layer N) and W_dec_N.safetensors, [features, layers from N on, outputs]. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "core/dict/cross_files.h"
#include "core/dict/dict_readers.h"
#include "core/dict/dict_yaml.h"
#include "core/model/tensors.h"

#define PER_LAYER "layer_"

static bool is_described_file(const char *path, const char *prefix) {
  char folder[DICT_PATH_BYTES];
  int64_t layer;
  struct error ignored = ERROR_INIT;
  return path_is_file(path) && cross_file_layer(path, prefix, &layer) && dict_folder_of(path, folder, &ignored) == 0 &&
         dict_has_file(folder, "config.yaml");
}

bool circuit_tracer_is_at(const char *path) { return is_described_file(path, PER_LAYER); }

/* ---- config.yaml ------------------------------------------------------------------------------------- */

struct described {
  char kind[DICT_YAML_BYTES], model[DICT_YAML_BYTES], in[DICT_YAML_BYTES], to[DICT_YAML_BYTES], activation[DICT_YAML_BYTES],
      k[DICT_YAML_BYTES];
};

static int find_all(const char *text, const char *file, struct described *out, struct error *error) {
  return dict_yaml_find(text, "model_kind", file, out->kind, error) != 0 ||
                 dict_yaml_find(text, "model_name", file, out->model, error) != 0 ||
                 dict_yaml_find(text, "feature_input_hook", file, out->in, error) != 0 ||
                 dict_yaml_find(text, "feature_output_hook", file, out->to, error) != 0 ||
                 dict_yaml_find(text, "activation", file, out->activation, error) != 0 ||
                 dict_yaml_find(text, "k", file, out->k, error) != 0
             ? -1
             : 0;
}

static int read_activation(const struct described *said, struct dict_config *out, struct error *error) {
  const char *activation = said->activation;
  int64_t k = 0;
  dict_config_note(out, "activation = %s", *activation ? activation : "(not said: relu)");
  if (*activation && strcmp(activation, "relu") != 0 && strcmp(activation, "topk") != 0 && strcmp(activation, "jump_relu") != 0)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': activation '%.60s' is not served (served: relu, topk, jump_relu)", out->file,
                     activation);
  out->kind = !strcmp(activation, "topk") ? DICT_TOPK : !strcmp(activation, "jump_relu") ? DICT_JUMPRELU : DICT_RELU;
  if (out->kind != DICT_TOPK) return 0;
  if (out->cross)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': activation 'topk' of a cross-layer transcoder is not served: nothing says whether "
                     "k counts in a layer or in all (served: relu, jump_relu)", out->file);
  if (!number_parse_int(said->k, &k))
    return error_set(error, ERROR_FORMAT, "'%s': 'k' is '%.60s', expected the number of features TopK keeps", out->file, said->k);
  return dict_config_k(out, k, error);
}

static int use(const struct described *said, const char *kind, int64_t layer, struct dict_config *out, const struct dict_host *host,
               struct error *error) {
  if (*said->kind && strcmp(said->kind, kind) != 0)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': model_kind is '%.60s', expected '%s' beside files of this name", out->file,
                     said->kind, kind);
  if (!*said->in || !*said->to)
    return error_set(error, ERROR_FORMAT, "'%s': '%s' is missing, expected a point such as 'mlp.hook_in'", out->file,
                     *said->in ? "feature_output_hook" : "feature_input_hook");
  dict_config_note(out, "feature_input_hook = %s", said->in);
  dict_config_note(out, "feature_output_hook = %s", said->to);
  dict_config_model(out, said->model, host);
  if (read_activation(said, out, error) != 0 || dict_config_site(out, layer, dict_site_of(said->in), host, error) != 0) return -1;
  return dict_config_site_out(out, layer, dict_site_of(said->to), host, error);
}

static int read_yaml(const char *folder, const char *kind, int64_t layer, struct dict_config *out, const struct dict_host *host,
                     struct error *error) {
  if (dict_path(folder, "config.yaml", out->file, error) != 0) return -1;
  char *text = dict_yaml_read(out->file, error);
  struct described *said = text ? calloc(1, sizeof *said) : NULL;
  int failed = said ? 0 : text ? error_memory(error, sizeof *said) : -1;
  if (!failed) failed = find_all(text, out->file, said, error);
  if (!failed) failed = use(said, kind, layer, out, host, error);
  free(said);
  free(text);
  return failed;
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
  char folder[DICT_PATH_BYTES];
  int64_t layer = 0;
  if (snprintf(out->weights, sizeof out->weights, "%s", path) >= (int)sizeof out->weights || !cross_file_layer(path, PER_LAYER, &layer))
    return error_set(error, ERROR_ARGUMENT, "path '%.60s' names no layer", path);
  out->transcoder = true;
  out->apply_b_dec_to_input = false;
  if (dict_folder_of(path, folder, error) != 0 || read_yaml(folder, "transcoder_set", layer, out, host, error) != 0) return -1;
  return read_shapes(out, error);
}

/* ---- across layers ----------------------------------------------------------------------------------- */

bool cross_layer_is_at(const char *path) {
  return is_described_file(path, "W_enc_") || (dict_has_file(path, "config.yaml") && dict_has_file(path, "W_enc_0.safetensors"));
}

/* Tensors bear their layer's number. */
static void name_tensor(struct dict_config *out, enum dict_role role, const char *name, int64_t layer, bool transposed) {
  snprintf(out->names[role], sizeof out->names[role], "%s_%lld", name, (long long)layer);
  dict_config_tensor(out, role, out->names[role], transposed);
}

static int name_tensors(struct dict_config *out, int64_t layer, struct error *error) {
  char threshold[64];
  struct tensors *tensors = tensors_open_lazy(out->weights, error);
  if (!tensors) return -1;
  snprintf(threshold, sizeof threshold, "threshold_%lld", (long long)layer);
  if (tensors_find(tensors, threshold)) out->kind = DICT_JUMPRELU;
  tensors_close(tensors);
  name_tensor(out, ROLE_W_ENC, "W_enc", layer, true);
  name_tensor(out, ROLE_W_DEC, "W_dec", layer, false);
  name_tensor(out, ROLE_B_ENC, "b_enc", layer, false);
  name_tensor(out, ROLE_B_DEC, "b_dec", layer, false);
  if (out->kind == DICT_JUMPRELU) name_tensor(out, ROLE_THRESHOLD, "threshold", layer, false);
  return 0;
}

int cross_layer_read(const char *path, const struct dict_host *host, struct dict_config *out, struct error *error) {
  static const char *const files[] = {"W_enc_", "W_dec_", NULL};
  char folder[DICT_PATH_BYTES], name[64];
  int64_t layer = 0;
  if (snprintf(out->weights, sizeof out->weights, "%s", path) >= (int)sizeof out->weights || !cross_file_layer(path, "W_enc_", &layer))
    return error_set(error, ERROR_ARGUMENT, "path '%.60s' names no layer", path);
  out->transcoder = out->cross = true;
  out->apply_b_dec_to_input = out->fold = false;
  snprintf(name, sizeof name, "W_dec_%lld.safetensors", (long long)layer);
  if (dict_folder_of(path, folder, error) != 0 || dict_path(folder, name, out->decoder, error) != 0 ||
      cross_files_check(folder, files, layer, host, out, error) != 0 ||
      read_yaml(folder, "cross_layer_transcoder", layer, out, host, error) != 0)
    return -1;
  return name_tensors(out, layer, error);
}
