/* dict.c: opening a dictionary: its description, its tensors against the description and the model, what is
 * kept on the host and what goes to the backend. Owns the mapping of the weights. Knows no file format; the
 * readers of cfg.json and ini hand it a struct dict_config. */
#include "core/dict/dict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/checked.h"
#include "core/base/ini.h"
#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "core/dict/dict_config.h"
#include "core/dict/dict_ini.h"
#include "core/dict/dict_internal.h"
#include "core/dict/saelens.h"
#include "core/model/points.h"

const char *dict_kind_name(enum dict_kind kind) {
  static const char *const names[] = {
      [DICT_RELU] = "relu", [DICT_JUMPRELU] = "jumprelu", [DICT_TOPK] = "topk"};
  return names[kind];
}

const struct dict_info *dict_info(const struct dict *dict) { return &dict->info; }

/* ---- description ------------------------------------------------------------------------------------ */

static int read_config(const char *path, const char *id, const struct dict_host *host,
                       struct dict_config *config, struct error *error) {
  int64_t layer;
  if (!*id || number_parse_int(id, &layer))
    return error_set(error, ERROR_ARGUMENT,
                     "source id '%.60s' cannot name a dictionary: a bare number means the neurons of "
                     "a layer, expected an id such as '7-res-jb'",
                     id);
  if (path_is_directory(path)) return saelens_read(path, host, config, error);
  if (ini_is_path(path)) return dict_ini_read(path, id, host, config, error);
  if (path_is_file(path))
    return error_set(error, ERROR_ARGUMENT,
                     "'%s' is a file, expected a SAELens folder (cfg.json and "
                     "sae_weights.safetensors) or an .ini that describes it",
                     path);
  return error_set(error, ERROR_NOT_FOUND, "'%s' does not exist, expected a SAELens folder or an .ini file",
                   path);
}

static int check_width(const struct dict_config *config, const struct dict_host *host, struct error *error) {
  char point[POINT_NAME_BYTES];
  if (!config->d_in || config->d_in == host->d_model) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': d_in is %lld, but '%s' of model '%s' is %lld wide",
                   config->file, (long long)config->d_in, point_name(config->point, point), host->model_id,
                   (long long)host->d_model);
}

static void fill_info(const struct dict_config *config, const struct dict_host *host,
                      struct dict_info *info) {
  *info = (struct dict_info){
      .kind = config->kind,
      .in = config->point,
      .out = config->point,
      .d_in = host->d_model,
      .d_out = host->d_model,
      .n_feat = config->n_feat,
      .k = config->k,
      .apply_b_dec_to_input = config->apply_b_dec_to_input,
      .center_mean = config->center_mean,
      .folded = config->fold,
      .bos_counts = config->bos_counts,
      .prepend_bos = config->prepend_bos,
      .context = config->context,
      .format = config->format,
  };
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static int missing_tensor(const struct tensors *tensors, const char *path, const char *name,
                          const char *shape, struct error *error) {
  struct buffer names;
  buffer_init(&names, 200); /* the first ones are enough to see what kind of file it is */
  for (size_t i = 0; i < tensors_count(tensors); i++)
    buffer_printf(&names, "%s%s", i ? ", " : "", tensors_at(tensors, i)->name);
  error_set(error, ERROR_FORMAT, "'%s': tensor '%s' is missing, expected %s; the file has %s", path, name,
            shape, names.length ? names.data : "no tensor");
  buffer_clear(&names);
  return -1;
}

/* columns 0: a vector [rows]; else a matrix [rows, columns]. */
static int find_tensor(const struct tensors *tensors, const char *path, const char *name, int64_t rows,
                       int64_t columns, const struct tensor **out, struct error *error) {
  char expected[64], found[128];
  if (columns)
    snprintf(expected, sizeof expected, "[%lld, %lld]", (long long)rows, (long long)columns);
  else
    snprintf(expected, sizeof expected, "[%lld]", (long long)rows);
  const struct tensor *tensor = tensors_find(tensors, name);
  if (!tensor) return missing_tensor(tensors, path, name, expected, error);
  tensor_describe(tensor, found);
  bool fits = columns ? tensor->n_dims == 2 && tensor->shape[0] == rows && tensor->shape[1] == columns
                      : tensor->n_dims == 1 && tensor->shape[0] == rows;
  if (!fits)
    return error_set(error, ERROR_FORMAT, "'%s': tensor '%s' is %s, expected %s", path, name, found,
                     expected);
  if (tensor->dtype != DTYPE_F32 && tensor->dtype != DTYPE_F16 && tensor->dtype != DTYPE_BF16)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': tensor '%s' is %s, expected F32, F16 or BF16", path,
                     name, found);
  *out = tensor;
  return 0;
}

static int read_vector(const struct tensors *tensors, const char *path, const char *name, int64_t length,
                       float *out, struct error *error) {
  const struct tensor *tensor;
  if (find_tensor(tensors, path, name, length, 0, &tensor, error) != 0) return -1;
  dtype_to_f32(tensor->data, tensor->dtype, (size_t)tensor->stride[0], (size_t)length, out);
  for (int64_t i = 0; i < length; i++)
    if (!isfinite(out[i]))
      return error_set(error, ERROR_FORMAT,
                       "'%s': element %lld of tensor '%s' is %g, expected a finite number", path,
                       (long long)i, name, (double)out[i]);
  return 0;
}

/* SAELens once wrote a factor per feature for its decoder, nearly always 1. */
static bool is_unused_scale(const struct tensor *tensor) {
  if (strcmp(tensor->name, "scaling_factor") != 0 && strcmp(tensor->name, "finetuning_scaling_factor") != 0)
    return false;
  if (tensor->n_dims != 1) return false;
  for (int64_t i = 0; i < tensor->shape[0]; i++)
    if (dtype_f32_at(tensor->data, tensor->dtype, (size_t)(i * tensor->stride[0])) != 1.0f) return false;
  return true;
}

/* A tensor that the formula of this kind has no place for (a threshold, a gate, a skip, a scale) means that
 * the dictionary is something else than its description says. */
static int check_no_other(const struct tensors *tensors, const char *path, enum dict_kind kind,
                          struct error *error) {
  static const char *const names[] = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"};
  char found[128];
  size_t n = kind == DICT_JUMPRELU ? 5 : 4;
  for (size_t i = 0; i < tensors_count(tensors); i++) {
    const struct tensor *tensor = tensors_at(tensors, i);
    bool known = is_unused_scale(tensor);
    for (size_t j = 0; j < n && !known; j++) known = !strcmp(tensor->name, names[j]);
    if (!known)
      return error_set(
          error, ERROR_UNSUPPORTED,
          "'%s': tensor '%.60s' %s has no place in a dictionary of kind '%s', expected W_enc, W_dec, "
          "b_enc, b_dec%s",
          path, tensor->name, tensor_describe(tensor, found), dict_kind_name(kind),
          kind == DICT_JUMPRELU ? ", threshold" : "");
  }
  return 0;
}

/* ---- host side -------------------------------------------------------------------------------------- */

static int check_features(const struct dict_config *config, int64_t n_feat, struct error *error) {
  if (n_feat < 1 || n_feat > INT32_MAX)
    return error_set(error, ERROR_FORMAT, "'%s': the dictionary has %lld features, expected 1 to %d",
                     config->weights, (long long)n_feat, INT32_MAX);
  if (config->k > n_feat)
    return error_set(error, ERROR_FORMAT, "'%s': k is %d, but the dictionary has %lld features", config->file,
                     config->k, (long long)n_feat);
  return 0;
}

/* Where the description does not say how many features there are, the encoder does. */
static int count_features(struct dict *dict, const struct dict_config *config, struct error *error) {
  const struct tensor *w_enc = tensors_find(dict->tensors, "W_enc");
  char expected[64], found[128];
  if (!dict->info.n_feat) {
    snprintf(expected, sizeof expected, "[%lld, number of features]", (long long)dict->info.d_in);
    if (!w_enc) return missing_tensor(dict->tensors, config->weights, "W_enc", expected, error);
    if (w_enc->n_dims != 2)
      return error_set(error, ERROR_FORMAT, "'%s': tensor 'W_enc' is %s, expected %s", config->weights,
                       tensor_describe(w_enc, found), expected);
    dict->info.n_feat = w_enc->shape[1];
  }
  return check_features(config, dict->info.n_feat, error);
}

static int find_weights(struct dict *dict, const struct dict_config *config, struct error *error) {
  struct dict_info *info = &dict->info;
  const char *path = config->weights;
  if (count_features(dict, config, error) != 0 ||
      find_tensor(dict->tensors, path, "W_enc", info->d_in, info->n_feat, &dict->w_enc, error) != 0 ||
      find_tensor(dict->tensors, path, "W_dec", info->n_feat, info->d_out, &dict->w_dec, error) != 0)
    return -1;
  info->dtype = dict->w_enc->dtype;
  return check_no_other(dict->tensors, path, info->kind, error);
}

static int make_room(struct dict *dict, struct error *error) {
  size_t n_feat = (size_t)dict->info.n_feat, d_out = (size_t)dict->info.d_out;
  size_t floats =
      (dict->info.kind == DICT_JUMPRELU ? 3 : 2) * n_feat + d_out; /* n_feat < 2^31, d_out is in a file */
  dict->host = malloc(floats * sizeof *dict->host);
  if (!dict->host) return error_memory(error, floats * sizeof *dict->host);
  dict->info.bytes += floats * sizeof *dict->host;
  dict->b_enc = dict->host;
  dict->norms = dict->b_enc + n_feat;
  dict->b_dec = dict->norms + n_feat;
  if (dict->info.kind == DICT_JUMPRELU) dict->threshold = dict->b_dec + d_out;
  return 0;
}

/* Selecting on p * n is selecting on p where all rows have length 1, as SAELens leaves them when it saves for
 * inference. 2^-8: a unit row rounded to bf16 is off by at most 2^-9 of each element, hence of its length. */
static int check_selection(const struct dict *dict, const struct dict_config *config, struct error *error) {
  if (!config->selects_folded) return 0;
  for (int64_t f = 0; f < dict->info.n_feat; f++)
    if (fabsf(dict->norms[f] - 1.0f) > 0x1p-8f)
      return error_set(
          error, ERROR_UNSUPPORTED,
          "'%s': rescale_acts_by_decoder_norm with decoder rows of other length than 1 is not served (row "
          "%lld has %g); SAELens folds the lengths when it saves for inference",
          config->file, (long long)f, (double)dict->norms[f]);
  return 0;
}

static int read_host_side(struct dict *dict, const struct dict_config *config, struct error *error) {
  const struct dict_info *info = &dict->info;
  const char *path = config->weights;
  if (make_room(dict, error) != 0 ||
      read_vector(dict->tensors, path, "b_enc", info->n_feat, dict->b_enc, error) != 0 ||
      read_vector(dict->tensors, path, "b_dec", info->d_out, dict->b_dec, error) != 0)
    return -1;
  if (dict->threshold) {
    if (read_vector(dict->tensors, path, "threshold", info->n_feat, dict->threshold, error) != 0) return -1;
    for (int64_t f = 0; f < info->n_feat; f++) dict->threshold[f] = fmaxf(dict->threshold[f], 0.0f);
  }
  if (dict_measure_rows(dict->w_dec, path, dict->norms, error) != 0 ||
      check_selection(dict, config, error) != 0)
    return -1;
  for (int64_t f = 0; f < info->n_feat && !info->folded; f++) dict->norms[f] = 1.0f;
  return 0;
}

/* ---- backend side ----------------------------------------------------------------------------------- */

static int prepare_encoder(struct dict *dict, const char *path, struct error *error) {
  const struct tensor *w = dict->w_enc;
  char found[128];
  struct matrix_part part = {w->data, w->dtype, ROWS_ARE_INPUTS, dict->info.n_feat, w->stride[0]};
  if (w->stride[1] != 1) { /* a .pth may hold the transposed view of [n_feat, d_in] */
    if (w->stride[0] != 1)
      return error_set(error, ERROR_UNSUPPORTED,
                       "'%s': tensor 'W_enc' %s is a view with gaps, expected whole rows or "
                       "columns",
                       path, tensor_describe(w, found));
    part.layout = ROWS_ARE_OUTPUTS;
    part.ld = w->stride[1];
  }
  const struct ops *ops = dict->backend->ops;
  if ((dict->aside ? ops->matrix_new_aside : ops->matrix_new)(dict->backend, &part, 1, dict->info.d_in, &dict->encoder,
                                                              error) != 0)
    return -1;
  dict->info.bytes += dict->encoder->bytes;
  return 0;
}

/* One vector to the next free place of the block. */
static int upload(struct dict *dict, const float *vector, int64_t count, size_t *used, struct span *out,
                  struct error *error) {
  size_t bytes = (size_t)count * sizeof *vector;
  struct span at = {dict->memory, *used};
  if (dict->backend->ops->write(dict->backend, at, vector, bytes, error) != 0) return -1;
  *out = at;
  *used += size_round_up(bytes, 64);
  return 0;
}

static int upload_vectors(struct dict *dict, struct error *error) {
  const struct dict_info *info = &dict->info;
  size_t used = 0,
         bytes = 3 * size_round_up((size_t)info->n_feat * 4, 64) + size_round_up((size_t)info->d_in * 4, 64);
  if (dict->backend->ops->alloc(dict->backend, bytes, &dict->memory, error) != 0) return -1;
  dict->info.bytes += bytes;
  if (upload(dict, dict->b_enc, info->n_feat, &used, &dict->bias, error) != 0) return -1;
  if (info->folded && upload(dict, dict->norms, info->n_feat, &used, &dict->fold, error) != 0) return -1;
  if (dict->threshold && upload(dict, dict->threshold, info->n_feat, &used, &dict->cut, error) != 0)
    return -1;
  if (!info->apply_b_dec_to_input) return 0;
  return upload(dict, dict->b_dec, info->d_in, &used, &dict->subtract, error);
}

/* ---- open and close --------------------------------------------------------------------------------- */

static int load(struct dict *dict, const struct dict_config *config, const struct dict_host *host,
                struct error *error) {
  if (check_width(config, host, error) != 0) return -1;
  fill_info(config, host, &dict->info);
  dict->tensors = tensors_open(config->weights, error);
  if (!dict->tensors) return -1;
  dict->info.bytes = tensors_bytes(dict->tensors);
  if (find_weights(dict, config, error) != 0 || read_host_side(dict, config, error) != 0 ||
      prepare_encoder(dict, config->weights, error) != 0)
    return -1;
  return upload_vectors(dict, error);
}

struct dict *dict_open(const char *path, const char *id, const struct dict_host *host,
                       struct backend *backend, struct error *error) {
  struct dict_config *config = malloc(sizeof *config); /* 8 KiB of paths: too much for a thread's stack */
  struct dict *dict = calloc(1, sizeof *dict);
  int result = -1;
  if (!config || !dict) {
    error_memory(error, sizeof *config + sizeof *dict);
    goto out;
  }
  dict->backend = backend;
  dict->aside = host->aside;
  if (read_config(path, id, host, config, error) == 0) result = load(dict, config, host, error);
out:
  free(config);
  if (result == 0) return dict;
  dict_close(dict);
  return NULL;
}

void dict_close(struct dict *dict) {
  if (!dict) return;
  if (dict->backend) {
    dict->backend->ops->free(dict->backend, dict->memory);
    dict->backend->ops->matrix_free(dict->backend, dict->encoder);
  }
  tensors_close(dict->tensors);
  free(dict->host);
  free(dict);
}
