/* dict.c: opening a dictionary: its description, its tensors against the description and the model, what is
 * kept on the host and what goes to the backend. Owns the mapping of the weights. Knows no file format; the
 * readers hand it a struct dict_config. */
#include "core/dict/dict.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/dict_config.h"
#include "core/dict/dict_internal.h"
#include "core/dict/dict_readers.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

const char *dict_kind_name(enum dict_kind kind) {
  static const char *const names[] = {[DICT_RELU] = "relu", [DICT_JUMPRELU] = "jumprelu", [DICT_TOPK] = "topk",
                                      [DICT_GATED] = "gated", [DICT_GROUPMAX] = "groupmax", [DICT_NEURONS] = "neurons"};
  return names[kind];
}

const char *dict_title(const struct dict_info *info) {
  static const char *const names[DICT_KIND_COUNT][3] = {
      [DICT_RELU] = {"relu", "relu transcoder", "relu skip transcoder"},
      [DICT_JUMPRELU] = {"jumprelu", "jumprelu transcoder", "jumprelu skip transcoder"},
      [DICT_TOPK] = {"topk", "topk transcoder", "topk skip transcoder"},
      [DICT_GATED] = {"gated", "gated transcoder", "gated skip transcoder"},
      [DICT_GROUPMAX] = {"groupmax", "groupmax transcoder", "groupmax skip transcoder"}};
  if (info->kind == DICT_NEURONS) return "neurons";
  if (info->cross && info->skip) return "jumprelu cross-layer skip transcoder"; /* Gemma Scope 2's; no other has a skip */
  if (info->cross) return info->kind == DICT_JUMPRELU ? "jumprelu cross-layer transcoder" : "relu cross-layer transcoder";
  return names[info->kind][info->transcoder ? 1 + info->skip : 0];
}

const struct dict_info *dict_info(const struct dict *dict) { return &dict->info; }
bool dict_prepared(const struct dict *dict) { return !dict->resident || resident_bytes(dict->resident) > 0; }
size_t dict_encoder_bytes(const struct dict *dict) { return dict->resident ? resident_bytes(dict->resident) : 0; }
int dict_prepare(const struct dict *dict, struct error *error) {
  return dict->resident ? resident_prepare(dict->resident, error) : 0;
}

/* ---- description ------------------------------------------------------------------------------------ */

/* The part of a point's row that a dictionary covers: all of it, or one head. Nothing is known without a model. */
static int place(const struct dict_config *config, const struct dict_host *host, struct point point, int64_t *width,
                 int64_t *column, int64_t *d, struct error *error) {
  if (!host->arch) return 0;
  struct point_shape shape = point_shape(host->arch, point.site);
  *width = *d = point_width(host->arch, point.site, 0);
  if (config->head < 0 || !shape.heads) return 0;
  if (config->head >= shape.heads)
    return error_set(error, ERROR_FORMAT, "'%s': head %lld is out of range, model '%s' has heads 0 to %d", config->file,
                     (long long)config->head, host->model_id, shape.heads - 1);
  *column = config->head * shape.width;
  *d = shape.width;
  return 0;
}

static int check_width(const struct dict_config *config, const char *key, int64_t said, int64_t width,
                       struct point point, const struct dict_host *host, struct error *error) {
  char name[POINT_NAME_BYTES];
  if (!said || !width || said == width) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': %s is %lld, but '%s' of model '%s' is %lld wide", config->file, key,
                   (long long)said, point_name(point, name), host->model_id, (long long)width);
}

int dict_config_info(const struct dict_config *config, const struct dict_host *host, struct dict_info *info,
                     struct error *error) {
  double out_scale = config->out_scale ? config->out_scale : config->transcoder ? 1 : config->scale;
  *info = (struct dict_info){
      .kind = config->kind,
      .transcoder = config->transcoder,
      .cross = config->cross,
      .n_targets = config->cross ? config->n_targets : 1,
      .in = config->in,
      .out = config->out,
      .n_feat = config->n_feat,
      .k = (int32_t)config->k,
      .apply_b_dec_to_input = config->apply_b_dec_to_input,
      .center_mean = config->center_mean,
      .folded = config->fold,
      .selects_folded = config->selects_folded && config->kind == DICT_TOPK,
      .norm = config->norm,
      .scale = (float)config->scale,
      .out_scale = (float)out_scale,
      .bos_counts = config->bos_counts,
      .prepend_bos = config->prepend_bos,
      .context = config->context,
      .positions = {.skip_first = config->prepend_bos && !config->bos_counts && (!host->tokenizer || tokenizer_bos(host->tokenizer) >= 0),
                    .slice = config->slice},
      .l0 = config->l0,
      .format = config->format,
  };
  if (info->selects_folded && !info->folded)
    return error_set(error, ERROR_UNSUPPORTED, "'%s': a TopK that selects by folded activations is served in folded units only", config->file);
  if (place(config, host, info->in, &info->in_width, &info->in_column, &info->d_in, error) != 0 ||
      place(config, host, info->out, &info->out_width, &info->out_column, &info->d_out, error) != 0 ||
      check_width(config, "d_in", config->d_in, info->d_in, info->in, host, error) != 0 ||
      check_width(config, "d_out", config->d_out, info->d_out, info->out, host, error) != 0)
    return -1;
  if (!info->d_in) info->d_in = config->d_in;
  if (!info->d_out) info->d_out = config->d_out;
  return 0;
}

/* An SAE gives back what it reads; one that subtracts its output bias needs both to be as wide. */
static int check_shape(const struct dict_config *config, const struct dict_info *info, struct error *error) {
  if (info->d_in == info->d_out) return 0;
  if (info->transcoder && !info->apply_b_dec_to_input) return 0;
  return error_set(error, ERROR_FORMAT, "'%s': the input is %lld wide and the output %lld, expected equal widths%s", config->weights,
                   (long long)info->d_in, (long long)info->d_out,
                   info->transcoder ? " where b_dec is subtracted from the input" : " of an SAE");
}

/* ---- host side -------------------------------------------------------------------------------------- */

static int make_room(struct dict *dict, const struct dict_found *found, struct error *error) {
  size_t n_feat = (size_t)dict->info.n_feat, d_out = (size_t)dict->info.d_out, vectors = 2;
  bool gated = dict->info.kind == DICT_GATED, jump = dict->info.kind == DICT_JUMPRELU;
  bool scaled = found->of[ROLE_SCALING].data || dict->info.out_scale != 1;
  vectors += (gated ? 2 : 0) + (jump ? 1 : 0) + (scaled ? 1 : 0);
  size_t floats = vectors * n_feat + d_out; /* n_feat < 2^31, d_out is in a file */
  float *at = dict->host = calloc(floats, sizeof *dict->host);
  if (!dict->host) return error_memory(error, floats * sizeof *dict->host);
  dict->info.bytes += floats * sizeof *dict->host;
  dict->b_dec = at;
  dict->b_enc = at += d_out;
  dict->norms = at += n_feat;
  if (jump) dict->threshold = at += n_feat;
  if (gated) dict->gain = at += n_feat;
  if (gated) dict->shift = at += n_feat;
  if (scaled) dict->factor = at + n_feat;
  return 0;
}

static int read_thresholds(struct dict *dict, const struct dict_config *config, const struct tensor *tensor,
                           struct error *error) {
  int64_t n = dict->info.n_feat;
  for (int64_t f = 0; f < n; f++) dict->threshold[f] = (float)config->threshold;
  if (tensor->data && dict_read_vector(tensor, config->weights, n, dict->threshold, error) != 0) return -1;
  for (int64_t f = 0; f < n; f++) {
    double value = dict->threshold[f];
    if (config->threshold_is_log) value = exp(value);
    dict->threshold[f] = fmaxf((float)(value * config->threshold_scale), 0.0f);
  }
  return 0;
}

static int read_gates(struct dict *dict, const char *path, const struct dict_found *found, struct error *error) {
  int64_t n = dict->info.n_feat;
  if (dict_read_vector(&found->of[ROLE_GAIN], path, n, dict->gain, error) != 0 ||
      dict_read_vector(&found->of[ROLE_SHIFT], path, n, dict->shift, error) != 0)
    return -1;
  for (int64_t f = 0; f < n; f++) {
    dict->gain[f] = expf(dict->gain[f]);
    if (!isfinite(dict->gain[f]))
      return error_set(error, ERROR_FORMAT, "'%s': element %lld of tensor '%s' is too large: its exponential is no number",
                       path, (long long)f, found->of[ROLE_GAIN].name);
  }
  return 0;
}

/* Factors of decoder rows, from the file and from the scale of the input. SAELens once wrote factors of 1 with every
 * dictionary; others mean something only where the description says so. */
static int read_factors(struct dict *dict, const struct dict_config *config, const struct tensor *tensor,
                        struct error *error) {
  int64_t n = dict->info.n_feat;
  for (int64_t f = 0; dict->factor && f < n; f++) dict->factor[f] = 1;
  if (tensor->data && dict_read_vector(tensor, config->weights, n, dict->factor, error) != 0) return -1;
  for (int64_t f = 0; dict->factor && f < n; f++) {
    if (!config->scales_decoder && dict->factor[f] != 1)
      return error_set(error, ERROR_FORMAT,
                       "'%s': element %lld of tensor '%s' is %g, but '%s' does not set finetuning_scaling_factor, expected 1 "
                       "everywhere", config->weights, (long long)f, tensor->name, (double)dict->factor[f], config->file);
    dict->factor[f] /= dict->info.out_scale;
  }
  return 0;
}

/* n from the lengths of W_dec's rows. A row of zeros has no direction to be a length of: its n is 1, so that nothing
 * divides by zero and its activations stay positive where the encoder fires. */
static void finish_norms(struct dict *dict) {
  for (int64_t f = 0; f < dict->info.n_feat; f++) {
    float length = dict->norms[f] * (dict->factor ? fabsf(dict->factor[f]) : 1.0f);
    dict->norms[f] = dict->info.folded && length > 0 ? length : 1.0f;
  }
}

static int read_host_side(struct dict *dict, const struct dict_config *config, const struct dict_found *found,
                          struct error *error) {
  const struct dict_info *info = &dict->info;
  const char *path = config->weights;
  const struct tensor *b_enc = &found->of[ROLE_B_ENC], *b_dec = &found->of[ROLE_B_DEC];
  if (make_room(dict, found, error) != 0 ||
      (b_enc->data && dict_read_vector(b_enc, path, info->n_feat, dict->b_enc, error) != 0) ||
      (b_dec->data && dict_read_vector(b_dec, path, info->d_out, dict->b_dec, error) != 0) ||
      (dict->threshold && read_thresholds(dict, config, &found->of[ROLE_THRESHOLD], error) != 0) ||
      (dict->gain && read_gates(dict, path, found, error) != 0) ||
      read_factors(dict, config, &found->of[ROLE_SCALING], error) != 0 ||
      (!info->cross && dict_measure_rows(&dict->w_dec, path, dict->w_dec.name, dict->norms, error) != 0))
    return -1; /* across layers there are gigabytes of rows and no length to fold by: they are read when they are used */
  finish_norms(dict);
  return 0;
}

/* ---- backend side ----------------------------------------------------------------------------------- */

static int prepare_encoder(struct dict *dict, const struct dict_host *host, const char *path, struct error *error) {
  const struct tensor *w = &dict->w_enc;
  char found[128];
  struct matrix_part part = {.data = w->data, .dtype = w->dtype, .layout = ROWS_ARE_INPUTS, .n_out = dict->info.n_feat,
                             .ld = w->stride[0]};
  if (w->stride[1] != 1) { /* as it stands in files that keep [n_feat, d_in] */
    if (w->stride[0] != 1)
      return error_set(error, ERROR_UNSUPPORTED,
                       "'%s': tensor '%s' %s is a view with gaps, expected whole rows or "
                       "columns",
                       path, w->name, tensor_describe(w, found));
    part.layout = ROWS_ARE_OUTPUTS;
    part.ld = w->stride[1];
  }
  dict->keep = host->memory && host->memory->keep != DTYPE_OTHER ? host->memory->keep : w->dtype;
  dict->resident = resident_new(host->memory, dict->backend, &part, dict->info.d_in, error);
  return dict->resident ? 0 : -1;
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
  const struct {
    const float *vector;
    int64_t count;
    struct span *to;
  } vectors[] = {{dict->b_enc, info->n_feat, &dict->bias},
                 {info->folded ? dict->norms : NULL, info->n_feat, &dict->fold},
                 {dict->threshold, info->n_feat, &dict->cut},
                 {dict->gain, info->n_feat, &dict->gain_at},
                 {dict->shift, info->n_feat, &dict->shift_at},
                 {info->apply_b_dec_to_input ? dict->b_dec : NULL, info->d_in, &dict->subtract}};
  size_t used = 0, bytes = 0, n = sizeof vectors / sizeof *vectors;
  for (size_t i = 0; i < n; i++)
    if (vectors[i].vector) bytes += size_round_up((size_t)vectors[i].count * sizeof(float), 64);
  if (dict->backend->ops->alloc(dict->backend, bytes, &dict->memory, error) != 0) return -1;
  dict->info.bytes += bytes;
  for (size_t i = 0; i < n; i++)
    if (vectors[i].vector && upload(dict, vectors[i].vector, vectors[i].count, &used, vectors[i].to, error) != 0)
      return -1;
  return 0;
}

/* ---- open and close --------------------------------------------------------------------------------- */

/* Where the whole of a cross-layer transcoder lies, and its other file, if it has one. */
static int open_whole(struct dict *dict, const struct dict_config *config, struct error *error) {
  char folder[DICT_PATH_BYTES];
  if (!config->cross) return 0;
  if (dict_folder_of(config->weights, folder, error) != 0) return -1;
  dict->whole = realpath(folder, NULL);
  if (!dict->whole) return error_set(error, ERROR_IO, "'%s': %s", folder, strerror(errno));
  if (!*config->decoder) return 0;
  dict->decoder = tensors_open(config->decoder, error);
  if (!dict->decoder) return -1;
  dict->info.bytes += tensors_bytes(dict->decoder);
  return 0;
}

/* Which tokens are left out: those of the description's list, or the tokenizer's special ones. */
static int exclude_tokens(struct dict *dict, const struct dict_config *config, const struct dict_host *host, struct error *error) {
  int32_t special[TOKENIZER_CONTROLS];
  size_t n = config->excludes_special && host->tokenizer ? tokenizer_controls(host->tokenizer, special) : config->n_excluded;
  const int32_t *ids = config->excludes_special ? special : config->excluded;
  if (n == 0) return 0;
  dict->excluded = malloc(n * sizeof *dict->excluded);
  if (!dict->excluded) return error_memory(error, n * sizeof *dict->excluded);
  memcpy(dict->excluded, ids, n * sizeof *ids);
  dict->info.positions.excluded = dict->excluded;
  dict->info.positions.n_excluded = n;
  return 0;
}

static int load(struct dict *dict, const struct dict_config *config, const struct dict_host *host,
                struct error *error) {
  struct dict_found found;
  if (dict_config_info(config, host, &dict->info, error) != 0 || exclude_tokens(dict, config, host, error) != 0) return -1;
  dict->tensors = tensors_open(config->weights, error);
  if (!dict->tensors) return -1;
  dict->info.bytes = tensors_bytes(dict->tensors);
  if (open_whole(dict, config, error) != 0 ||
      dict_find_tensors(dict->tensors, dict->decoder, config, &dict->info, &found, error) != 0 ||
      check_shape(config, &dict->info, error) != 0)
    return -1;
  dict->w_enc = found.of[ROLE_W_ENC];
  dict->w_dec = found.of[ROLE_W_DEC];
  dict->skip = found.of[ROLE_SKIP];
  if (read_host_side(dict, config, &found, error) != 0 || prepare_encoder(dict, host, config->weights, error) != 0)
    return -1;
  return upload_vectors(dict, error) != 0 ? -1 : spliced_open(dict, error);
}

struct dict *dict_open(const char *path, const char *id, const struct dict_host *host,
                       struct backend *backend, struct error *error) {
  struct dict_config *config = malloc(sizeof *config); /* 12 KiB of paths: too much for a thread's stack */
  struct dict *dict = calloc(1, sizeof *dict);
  int result = -1;
  if (!config || !dict) {
    free(config);
    free(dict);
    return error_memory(error, sizeof *config + sizeof *dict), NULL;
  }
  dict->backend = backend;
  dict->spliced = calloc(1, sizeof *dict->spliced);
  if (!dict->spliced)
    error_memory(error, sizeof *dict->spliced);
  else if (dict_config_read(path, id, host, config, error) == 0) result = load(dict, config, host, error);
  dict_config_clear(config);
  free(config);
  if (result == 0) return dict;
  dict_close(dict);
  return NULL;
}

void dict_close(struct dict *dict) {
  if (!dict) return;
  if (dict->spliced) spliced_clear(dict->spliced, dict->backend);
  free(dict->spliced);
  if (dict->backend) dict->backend->ops->free(dict->backend, dict->memory);
  resident_free(dict->resident);
  tensors_close(dict->tensors);
  tensors_close(dict->decoder);
  free(dict->whole);
  free(dict->excluded);
  free(dict->host);
  free(dict->made);
  free(dict);
}
