/* dict_tensors.c: from the tensors of a file to what the formula needs: names, shapes against the description, the
 * host's widths and each other. Knows the roles, not the formats that name them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/dict/dict_internal.h"

#define NAME_BYTES 160

struct search {
  const struct tensors *tensors;
  const struct tensors *decoder; /* of W_dec; NULL: the same */
  const struct dict_config *config;
  struct dict_info *info;
  struct dict_found *found;
};

/* The name in the file. */
static const char *full_name(const struct search *search, enum dict_role role, char out[NAME_BYTES]) {
  snprintf(out, NAME_BYTES, "%s%s", search->config->prefix, search->config->tensors[role].name);
  return out;
}

/* The file that a role's tensor is in, and its path. */
static const struct tensors *file_of(const struct search *search, enum dict_role role) {
  return search->decoder && role == ROLE_W_DEC ? search->decoder : search->tensors;
}

static const char *path_of(const struct search *search, enum dict_role role) {
  return search->decoder && role == ROLE_W_DEC ? search->config->decoder : search->config->weights;
}

static const struct tensor *look_up(const struct search *search, enum dict_role role) {
  char name[NAME_BYTES];
  if (!search->config->tensors[role].name) return NULL;
  return tensors_find(file_of(search, role), full_name(search, role, name));
}

static int missing_tensor(const struct search *search, enum dict_role role, const char *shape, struct error *error) {
  struct buffer names;
  char name[NAME_BYTES];
  const struct tensors *file = file_of(search, role);
  buffer_init(&names, 200); /* the first ones are enough to see what kind of file it is */
  for (size_t i = 0; i < tensors_count(file); i++)
    buffer_printf(&names, "%s%s", i ? ", " : "", tensors_at(file, i)->name);
  error_set(error, ERROR_FORMAT, "'%s': tensor '%s' is missing, expected %s; the file has %s",
            path_of(search, role), full_name(search, role, name), shape, names.length ? names.data : "no tensor");
  buffer_clear(&names);
  return -1;
}

static int wrong_tensor(const struct search *search, enum dict_role role, const struct tensor *tensor, const char *expected,
                        enum error_code code, struct error *error) {
  char found[128];
  return error_set(error, code, "'%s': tensor '%.80s' is %s, expected %s", path_of(search, role), tensor->name,
                   tensor_describe(tensor, found), expected);
}

static const char *shape_text(const struct search *search, enum dict_role role, int64_t rows, int64_t columns,
                              char out[64]) {
  bool turned = search->config->tensors[role].transposed;
  if (columns)
    snprintf(out, 64, "[%lld, %lld]", (long long)(turned ? columns : rows), (long long)(turned ? rows : columns));
  else
    snprintf(out, 64, "[%lld]", (long long)rows);
  return out;
}

/* The file's tensor seen the way round that the formula has it. */
static struct tensor turn(struct tensor tensor, bool transposed) {
  if (!transposed) return tensor;
  int64_t rows = tensor.shape[0], stride = tensor.stride[0];
  tensor.shape[0] = tensor.shape[1];
  tensor.stride[0] = tensor.stride[1];
  tensor.shape[1] = rows;
  tensor.stride[1] = stride;
  return tensor;
}

static bool is_number(const struct tensor *tensor) {
  return tensor->n_dims == 0 || (tensor->n_dims == 1 && tensor->shape[0] == 1);
}

/* columns 0: a vector [rows]. */
static bool fits(const struct tensor *tensor, int64_t rows, int64_t columns, bool transposed) {
  if (!columns) return tensor->n_dims == 1 && tensor->shape[0] == rows;
  return tensor->n_dims == 2 && tensor->shape[transposed] == rows && tensor->shape[!transposed] == columns;
}

static bool is_narrow(const struct tensor *tensor) {
  return tensor->dtype == DTYPE_F32 || tensor->dtype == DTYPE_F16 || tensor->dtype == DTYPE_BF16;
}

static int find_role(const struct search *search, enum dict_role role, int64_t rows, int64_t columns,
                     struct error *error) {
  const struct dict_tensor *wanted = &search->config->tensors[role];
  const struct tensor *tensor = look_up(search, role);
  char expected[64];
  if (!wanted->name || (!tensor && wanted->optional)) return 0;
  shape_text(search, role, rows, columns, expected);
  if (!tensor) return missing_tensor(search, role, expected, error);
  bool one = role == ROLE_THRESHOLD && is_number(tensor);
  if (!one && !fits(tensor, rows, columns, wanted->transposed))
    return wrong_tensor(search, role, tensor, expected, ERROR_FORMAT, error);
  if (!is_narrow(tensor) && (columns || tensor->dtype != DTYPE_F64))
    return wrong_tensor(search, role, tensor, "F32, F16 or BF16", ERROR_UNSUPPORTED, error);
  search->found->of[role] = columns ? turn(*tensor, wanted->transposed) : *tensor;
  return 0;
}

/* ---- sizes ------------------------------------------------------------------------------------------- */

/* A size that nobody said, from an axis of a matrix (as the formula has it). */
static int size_from(const struct search *search, enum dict_role role, int axis, const char *expected, int64_t *size,
                     struct error *error) {
  const struct tensor *tensor = look_up(search, role);
  if (*size) return 0;
  if (!tensor) return missing_tensor(search, role, expected, error);
  if (tensor->n_dims != 2) return wrong_tensor(search, role, tensor, expected, ERROR_FORMAT, error);
  *size = tensor->shape[axis ^ (int)search->config->tensors[role].transposed];
  return 0;
}

static int check_features(const struct search *search, struct error *error) {
  const struct dict_config *config = search->config;
  int64_t n_feat = search->info->n_feat;
  if (n_feat < 1 || n_feat > INT32_MAX)
    return error_set(error, ERROR_FORMAT, "'%s': the dictionary has %lld features, expected 1 to %d",
                     config->weights, (long long)n_feat, INT32_MAX);
  if (config->k > n_feat)
    return error_set(error, ERROR_FORMAT, "'%s': k is %lld, but the dictionary has %lld features", config->file,
                     (long long)config->k, (long long)n_feat);
  if (config->kind == DICT_GROUPMAX && n_feat % config->k != 0)
    return error_set(error, ERROR_FORMAT, "'%s': %lld features cannot be cut into k = %lld groups of equal size",
                     config->file, (long long)n_feat, (long long)config->k);
  return 0;
}

/* W_dec of a cross-layer transcoder is [n_feat, n_targets, d_out]: d_out where nobody said it. */
static int find_cross_size(const struct search *search, struct error *error) {
  const struct tensor *tensor = look_up(search, ROLE_W_DEC);
  if (search->info->d_out) return 0;
  if (!tensor) return missing_tensor(search, ROLE_W_DEC, "[number of features, number of layers, width of the output]", error);
  if (tensor->n_dims == 3) search->info->d_out = tensor->shape[2];
  return 0;
}

static int find_sizes(const struct search *search, struct error *error) {
  struct dict_info *info = search->info;
  char inputs[64] = "[width of the input, number of features]", outputs[64] = "[number of features, width of the output]";
  bool turned = search->config->tensors[ROLE_W_ENC].transposed;
  if (info->d_in)
    snprintf(inputs, sizeof inputs, turned ? "[number of features, %lld]" : "[%lld, number of features]",
             (long long)info->d_in);
  if (size_from(search, ROLE_W_ENC, 0, inputs, &info->d_in, error) != 0 ||
      size_from(search, ROLE_W_ENC, 1, inputs, &info->n_feat, error) != 0 ||
      (info->cross ? find_cross_size(search, error) : size_from(search, ROLE_W_DEC, 1, outputs, &info->d_out, error)) != 0)
    return -1;
  if (info->d_in < 1 || info->d_out < 1)
    return error_set(error, ERROR_FORMAT, "'%s': the dictionary is %lld wide at its input and %lld at its output, expected 1 or more",
                     search->config->weights, (long long)info->d_in, (long long)info->d_out);
  if (info->norm == DICT_NORM_STANDARD && info->d_in < 2)
    return error_set(error, ERROR_FORMAT, "'%s': a row of one element has no standard deviation", search->config->file);
  return check_features(search, error);
}

#define SAMPLED 64 /* features whose rows in front are looked at: a file is not read as a whole */

/* Rows of layers in front of its own would be what no cross-layer transcoder writes. */
static int check_front(const struct search *search, const struct tensor *tensor, struct error *error) {
  int64_t width = search->config->first_plane * tensor->shape[2], n = tensor->shape[0], step = n > SAMPLED ? n / SAMPLED : 1;
  for (int64_t f = 0; f < n; f += step)
    for (int64_t i = 0; i < width; i++)
      if (dtype_f32_at(tensor->data, tensor->dtype, (size_t)(f * tensor->stride[0] + i)) != 0)
        return error_set(error, ERROR_UNSUPPORTED, "'%s': row %lld of tensor '%s' writes to layer %lld, in front of its own, expected 0 there",
                         path_of(search, ROLE_W_DEC), (long long)f, tensor->name, (long long)(i / tensor->shape[2]));
  return 0;
}

/* As [n_feat, n_targets * d_out]. */
static int find_cross_decoder(const struct search *search, struct error *error) {
  const struct dict_info *info = search->info;
  const struct tensor *tensor = look_up(search, ROLE_W_DEC);
  struct tensor *out = &search->found->of[ROLE_W_DEC];
  int64_t front = search->config->first_plane, n = front + info->n_targets;
  char expected[96];
  snprintf(expected, sizeof expected, "[%lld, %lld, %lld]: features, %slayers%s, width", (long long)info->n_feat, (long long)n,
           (long long)info->d_out, front ? "all " : "", front ? "" : " from its own to the last");
  if (!tensor) return missing_tensor(search, ROLE_W_DEC, expected, error);
  if (tensor->n_dims != 3 || tensor->shape[0] != info->n_feat || tensor->shape[1] != n || tensor->shape[2] != info->d_out)
    return wrong_tensor(search, ROLE_W_DEC, tensor, expected, ERROR_FORMAT, error);
  if (!is_narrow(tensor)) return wrong_tensor(search, ROLE_W_DEC, tensor, "F32, F16 or BF16", ERROR_UNSUPPORTED, error);
  if (!tensor_is_contiguous(tensor)) return wrong_tensor(search, ROLE_W_DEC, tensor, "whole rows", ERROR_UNSUPPORTED, error);
  if (check_front(search, tensor, error) != 0) return -1;
  *out = *tensor;
  out->data += (size_t)(front * info->d_out) * dtype_size(tensor->dtype);
  out->n_dims = 2;
  out->shape[1] = info->n_targets * info->d_out;
  out->stride[1] = 1;
  return 0;
}

/* ---- what else is there ------------------------------------------------------------------------------ */

static bool is_named(const struct search *search, const char *name) {
  const struct dict_config *config = search->config;
  size_t prefix = strlen(config->prefix);
  if (strncmp(name, config->prefix, prefix) != 0) return true; /* beside the dictionary, not of it */
  name += prefix;
  for (int role = 0; role < ROLE_COUNT; role++)
    if (config->tensors[role].name && !strcmp(config->tensors[role].name, name)) return true;
  for (const char *const *unused = config->unused; unused && *unused; unused++)
    if (!strcmp(*unused, name)) return true;
  return false;
}

/* A tensor that the formula of this kind has no place for (a threshold, a gate, a skip, a scale) means that
 * the dictionary is something else than its description says. */
static int check_no_other(const struct search *search, const struct tensors *file, const char *path, struct error *error) {
  char found[128];
  for (size_t i = 0; file && i < tensors_count(file); i++) {
    const struct tensor *tensor = tensors_at(file, i);
    if (is_named(search, tensor->name)) continue;
    struct buffer names;
    buffer_init(&names, 200);
    for (int role = 0; role < ROLE_COUNT; role++)
      if (search->config->tensors[role].name && !search->config->tensors[role].optional)
        buffer_printf(&names, "%s%s", names.length ? ", " : "", search->config->tensors[role].name);
    error_set(error, ERROR_UNSUPPORTED,
              "'%s': tensor '%.60s' %s has no place in a dictionary of kind '%s', expected %s", path, tensor->name,
              tensor_describe(tensor, found), dict_title(search->info), names.data ? names.data : "none");
    buffer_clear(&names);
    return -1;
  }
  return 0;
}

/* ---- the parts --------------------------------------------------------------------------------------- */

int dict_find_tensors(const struct tensors *tensors, const struct tensors *decoder, const struct dict_config *config,
                      struct dict_info *info, struct dict_found *out, struct error *error) {
  struct search search = {tensors, decoder, config, info, out};
  memset(out, 0, sizeof *out);
  if (find_sizes(&search, error) != 0) return -1;
  int64_t n = info->n_feat;
  if (find_role(&search, ROLE_W_ENC, info->d_in, n, error) != 0 ||
      (info->cross ? find_cross_decoder(&search, error) : find_role(&search, ROLE_W_DEC, n, info->d_out, error)) != 0 ||
      find_role(&search, ROLE_SKIP, info->d_in, info->d_out, error) != 0)
    return -1;
  info->dtype = out->of[ROLE_W_ENC].dtype;
  info->skip = out->of[ROLE_SKIP].data != NULL;
  if (check_no_other(&search, tensors, config->weights, error) != 0 ||
      check_no_other(&search, decoder, config->decoder, error) != 0)
    return -1;
  static const enum dict_role vectors[] = {ROLE_B_ENC, ROLE_THRESHOLD, ROLE_GAIN, ROLE_SHIFT, ROLE_SCALING};
  for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
    if (find_role(&search, vectors[i], n, 0, error) != 0) return -1;
  return find_role(&search, ROLE_B_DEC, info->d_out, 0, error);
}

int dict_read_vector(const struct tensor *tensor, const char *path, int64_t length, float *out,
                     struct error *error) {
  bool one = is_number(tensor);
  dtype_to_f32(tensor->data, tensor->dtype, one ? 0 : (size_t)tensor->stride[0], (size_t)length, out);
  for (int64_t i = 0; i < length; i++)
    if (!isfinite(out[i]))
      return error_set(error, ERROR_FORMAT,
                       "'%s': element %lld of tensor '%s' is %g, expected a finite number", path,
                       (long long)i, tensor->name, (double)out[i]);
  return 0;
}
