/* model.c: opens a model from the kinds of places steerd reads: a Hugging Face folder, an ini, a llama2.c checkpoint. */
#include "core/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/ini.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/number.h"
#include "core/math/blocks.h"
#include "core/model/llama2c.h"
#include "core/model/model_tokenizer.h"
#include "core/model/process.h"

#define PATH_BYTES 4096
#define CONFIG_LIMIT ((size_t)4 << 20)
#define CONFIG_DEPTH 32

static int data_path(const struct ini *ini, const char *key, char *out, size_t size, struct error *error) {
  const struct ini_entry *entry = ini_find(ini, "model", key);
  if (entry) return ini_value_path(ini, entry, out, size, error);
  return error_set(error, ERROR_FORMAT, "'%s': section [model] needs the key '%s'", ini_path(ini), key);
}

/* ---- a Hugging Face folder, or a file in one ---- */

/* Which family it is, and its dimensions. */
static int read_config(struct model *model, const struct json_node *config, struct error *error) {
  model->family = arch_find(config, error);
  if (!model->family || model->family->read_config(config, &model->arch, error) != 0 ||
      arch_check(&model->arch, error) != 0)
    return error_prefix(error, "'%s'", model->path);
  return 0;
}

int model_load_weights(const struct model *model, enum dtype keep, struct weights *out, struct error *error) {
  struct arch arch;
  if (model->processed)
    return process_load(&model->stored, model->family, model->tensors, model->backend, keep, &arch, out, error);
  return weights_load_as(&model->arch, model->family, model->tensors, model->backend, keep, out, error);
}

static int bind_weights(struct model *model, struct error *error) {
  model->stored = model->arch;
  if (!model->processed) return model_load_weights(model, model->keep, &model->weights, error);
  return process_load(&model->stored, model->family, model->tensors, model->backend, model->keep, &model->arch,
                      &model->weights, error);
}

/* As if the file had the type that matrices are kept in. A file of 8 bits there is none. */
static enum dtype scale_type(const struct model *model) {
  return model->keep == DTYPE_OTHER || model->keep == DTYPE_Q8 ? model->weights.dtype : model->keep;
}

static int load_weights(struct model *model, struct error *error) {
  model->tensors = tensors_open(model->path, error);
  if (!model->tensors) return -1;
  if (bind_weights(model, error) != 0) return error_prefix(error, "'%s'", model->path);
  if (model->arch.embed_scale_rounds)
    model->arch.embed_scale = dtype_round(model->arch.embed_scale, scale_type(model));
  return 0;
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

/* A file of weights, which says nothing of the model: config.json and tokenizer lie beside it. */
static bool is_weights_file(const char *path) {
  return path_is_file(path) && (ends_with(path, ".pth") || ends_with(path, ".pt") || ends_with(path, ".safetensors"));
}

static void folder_of(const struct model *model, char out[PATH_BYTES]) {
  snprintf(out, PATH_BYTES, "%s", model->path);
  if (!is_weights_file(model->path)) return;
  char *slash = strrchr(out, '/');
  if (slash)
    slash[slash == out] = '\0'; /* the root stays what it is */
  else
    snprintf(out, PATH_BYTES, ".");
}

static struct json_node *load_config(const struct model *model, struct error *error) {
  char folder[PATH_BYTES], path[PATH_BYTES + 16];
  folder_of(model, folder);
  snprintf(path, sizeof path, "%s/config.json", folder);
  if (!is_weights_file(model->path) || path_is_file(path)) return json_load(path, CONFIG_LIMIT, CONFIG_DEPTH, error);
  error_set(error, ERROR_NOT_FOUND,
            "'%.300s' holds weights alone: the config.json that says what model they are must lie beside it", model->path);
  return NULL;
}

static int open_folder_weights(struct model *model, struct error *error) {
  struct json_node *config = load_config(model, error);
  if (!config) return -1;
  int failed = read_config(model, config, error);
  json_free(config);
  return failed ? -1 : load_weights(model, error);
}

static int open_folder(struct model *model, struct error *error) {
  char folder[PATH_BYTES];
  if (open_folder_weights(model, error) != 0) return -1;
  struct json_node *config = load_config(model, error);
  if (!config) return -1;
  folder_of(model, folder);
  model->tokenizer = model_tokenizer_open(folder, config, error);
  json_free(config);
  return model->tokenizer ? 0 : -1;
}

/* ---- a llama2.c checkpoint ---- */

/* tokenizer.bin beside it, or tokN.bin for a vocabulary of N. */
static int open_llama2c_tokenizer(struct model *model, struct error *error) {
  char path[PATH_BYTES];
  const char *slash = strrchr(model->path, '/');
  int folder = slash ? (int)(slash - model->path) : 1;
  const char *where = slash ? model->path : ".";
  long long n = (long long)model->arch.vocabulary;
  snprintf(path, sizeof path, "%.*s/tokenizer.bin", folder, where);
  if (!path_is_file(path)) snprintf(path, sizeof path, "%.*s/tok%lld.bin", folder, where, n);
  if (!path_is_file(path))
    return error_set(error, ERROR_NOT_FOUND, "'%s' has no tokenizer beside it: neither tokenizer.bin nor tok%lld.bin",
                     model->path, n);
  model->tokenizer = tokenizer_open_llama2c(path, error);
  return model->tokenizer ? 0 : -1;
}

static int open_llama2c(struct model *model, struct error *error) {
  char text[512];
  if (llama2c_config(model->path, text, error) != 0) return -1;
  struct json_node *config = json_parse(text, strlen(text), CONFIG_DEPTH, error);
  if (!config) return -1;
  int failed = read_config(model, config, error);
  json_free(config);
  if (failed) return -1;
  model->arch.rotary.pairing = model->arch.rotary_local.pairing = ROTARY_NEIGHBOURS;
  return load_weights(model, error) == 0 ? open_llama2c_tokenizer(model, error) : -1;
}

/* ---- an ini ---- */

static int read_number(const struct ini *ini, const char *key, double low, double high, double *out,
                       struct error *error) {
  const struct ini_entry *entry = ini_find(ini, "model", key);
  if (!entry) return error_set(error, ERROR_FORMAT, "'%s': section [model] needs the key '%s'", ini_path(ini), key);
  if (number_parse_double(entry->value, out) && *out >= low && *out <= high) return 0;
  return error_set(error, ERROR_FORMAT, "'%s':%d: '%s' is '%s', allowed are %g to %g", ini_path(ini), entry->line, key,
                   entry->value, low, high);
}

static int matrix_shape(const struct tensors *tensors, const char *name, int64_t *rows, int64_t *columns,
                        struct error *error) {
  const struct tensor *tensor = tensors_find(tensors, name);
  if (!tensor || tensor->n_dims != 2)
    return error_set(error, ERROR_FORMAT, "tensor '%s' is missing or no matrix: these are not workshop weights", name);
  *rows = tensor->shape[0];
  *columns = tensor->shape[1];
  return 0;
}

static int count_layers(const struct tensors *tensors) {
  char name[96];
  int n = 0;
  do snprintf(name, sizeof name, "core.layers.%d.attention_norm.weight", n);
  while (tensors_find(tensors, name) && ++n < 1024);
  return n;
}

/* The dimensions stand in the tensors' shapes, except the number of heads and the norm's epsilon. */
static int workshop_arch(const struct ini *ini, const struct tensors *tensors, struct arch *arch, struct error *error) {
  double heads, eps;
  int64_t columns;
  memset(arch, 0, sizeof *arch);
  if (read_number(ini, "n_head", 1, 1024, &heads, error) != 0 ||
      read_number(ini, "norm_eps", 0, 1, &eps, error) != 0 ||
      matrix_shape(tensors, "embedding.weight", &arch->vocabulary, &arch->d_model, error) != 0 ||
      matrix_shape(tensors, "core.PE.weight", &arch->n_ctx, &columns, error) != 0 ||
      matrix_shape(tensors, "core.layers.0.mlp.fc_1.weight", &arch->d_mlp, &columns, error) != 0)
    return -1;
  arch->family = "workshop";
  arch->n_layer = count_layers(tensors);
  arch->n_head = arch->n_kv_head = (int32_t)heads;
  arch->d_head = (int32_t)(arch->d_model / arch->n_head);
  if ((int64_t)arch->d_head * arch->n_head != arch->d_model)
    return error_set(error, ERROR_FORMAT, "'%s': n_head %d does not divide the width %lld of the embedding",
                     ini_path(ini), arch->n_head, (long long)arch->d_model);
  arch->has = HAS_MLP | HAS_NORM2 | HAS_GAINS | HAS_POSITIONS;
  arch->norm = arch->final_norm = NORM_RMS;
  arch->norm_eps = (float)eps;
  arch->act = ACT_SILU;
  arch->gated = true;
  arch->embed_scale = 1.0f;
  arch->attn_scale = 1.0f / sqrtf((float)arch->d_head);
  return arch_check(arch, error);
}

static int check_vocabulary(const struct model *model, const char *path, struct error *error) {
  int32_t size = tokenizer_size(model->tokenizer);
  if (size == model->arch.vocabulary) return 0;
  return error_set(error, ERROR_FORMAT, "'%s' gives %d tokens, the embedding has %lld rows", path, size,
                   (long long)model->arch.vocabulary);
}

static int open_workshop(struct model *model, const struct ini *ini, struct error *error) {
  char weights[PATH_BYTES], vocabulary[PATH_BYTES];
  if (data_path(ini, "weights", weights, sizeof weights, error) != 0 ||
      data_path(ini, "vocabulary", vocabulary, sizeof vocabulary, error) != 0)
    return -1;
  model->family = &arch_workshop;
  model->tensors = tensors_open(weights, error);
  if (!model->tensors) return -1;
  if (workshop_arch(ini, model->tensors, &model->arch, error) != 0 ||
      bind_weights(model, error) != 0)
    return error_prefix(error, "'%s'", weights);
  model->tokenizer = tokenizer_open_characters(vocabulary, error);
  return model->tokenizer ? check_vocabulary(model, vocabulary, error) : -1;
}

static int open_ini(struct model *model, struct error *error) {
  struct ini *ini = ini_open(model->path, error);
  if (!ini) return -1;
  const struct ini_entry *family = ini_find(ini, "model", "family");
  int failed;
  if (family && strcmp(family->value, "workshop") == 0)
    failed = open_workshop(model, ini, error);
  else
    failed = error_set(error, ERROR_FORMAT, "'%s': section [model] needs 'family = workshop', found '%s'", model->path,
                       family ? family->value : "nothing");
  ini_close(ini);
  return failed;
}

/* ---- both ---- */

/* A folder's vocabulary may be padded (more rows than tokens), never smaller than its tokens. */
static int check_tokens(const struct model *model, struct error *error) {
  int32_t size = tokenizer_size(model->tokenizer);
  if (size <= model->arch.vocabulary) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': the tokenizer has %d tokens, the embedding only %lld rows", model->path,
                   size, (long long)model->arch.vocabulary);
}

static int open_any(struct model *model, struct error *error) {
  bool folder = !path_is_file(model->path) || is_weights_file(model->path);
  int (*open)(struct model *, struct error *) = ini_is_path(model->path) ? open_ini : folder ? open_folder : open_llama2c;
  if (open(model, error) != 0) return -1;
  return check_tokens(model, error);
}

struct model *model_open_as(const char *id, const char *path, const struct model_wish *wish, struct backend *backend,
                            struct error *error) {
  struct model *model = calloc(1, sizeof *model);
  if (!model) return error_memory(error, sizeof *model), NULL;
  model->backend = backend;
  model->processed = wish->processed;
  model->keep = wish->keep;
  model->id = strdup(id);
  model->path = strdup(path);
  int failed = !model->id || !model->path ? error_memory(error, strlen(path))
               : wish->weights            ? open_folder_weights(model, error)
                                          : open_any(model, error);
  if (failed) {
    error_prefix(error, "model '%s'", id);
    model_close(model);
    return NULL;
  }
  tensors_forget(model->tensors);
  return model;
}

struct model *model_open(const char *id, const char *path, struct backend *backend, struct error *error) {
  return model_open_as(id, path, &(struct model_wish){.keep = DTYPE_OTHER}, backend, error);
}

struct model *model_open_weights(const char *id, const char *folder, struct backend *backend, struct error *error) {
  return model_open_as(id, folder, &(struct model_wish){.keep = DTYPE_OTHER, .weights = true}, backend, error);
}

struct model *model_open_weights_processed(const char *id, const char *folder, struct backend *backend,
                                           struct error *error) {
  return model_open_as(id, folder, &(struct model_wish){.processed = true, .keep = DTYPE_OTHER, .weights = true}, backend, error);
}

/* What `keep` has made of a matrix [n_out][n_in]. */
static void round_matrix(enum dtype keep, float *w, int64_t n_out, int64_t n_in) {
  for (int64_t out = 0; keep == DTYPE_Q8 && out < n_out; out++) q8_round(w + out * n_in, n_in);
  for (int64_t i = 0; keep != DTYPE_Q8 && i < n_out * n_in; i++) w[i] = dtype_round(w[i], keep);
}

int model_mlp_out(const struct model *model, int layer, struct matrix_part *part, float **made, struct error *error) {
  struct weight_reader reader;
  *made = NULL;
  if (!arch_has(&model->arch, HAS_MLP)) return error_set(error, ERROR_UNSUPPORTED, "model '%s' has no MLP", model->id);
  if (!model->processed && weight_reader_open(&model->arch, model->family, model->tensors, &reader, error) != 0) return -1;
  if (!model->processed && model->keep == DTYPE_OTHER) return weight_reader_part(&reader, SLOT_OUT, layer, part, error);
  int failed = model->processed ? process_read_mlp_out(&model->stored, model->family, model->tensors, layer, made, error)
                                : weight_reader_read(&reader, SLOT_OUT, layer, made, error);
  if (failed) return -1;
  if (model->keep != DTYPE_OTHER) round_matrix(model->keep, *made, model->arch.d_model, model->arch.d_mlp);
  *part = (struct matrix_part){.data = *made, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = model->arch.d_model,
                               .ld = model->arch.d_mlp};
  return 0;
}

void model_close(struct model *model) {
  if (!model) return;
  weights_free(&model->weights, model->backend);
  tensors_close(model->tensors);
  tokenizer_free(model->tokenizer);
  free(model->id);
  free(model->path);
  free(model);
}
