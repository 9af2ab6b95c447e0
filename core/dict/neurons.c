/* neurons.c: the neurons of a layer's MLP as a dictionary: the point's row is its activations, the rows of W_out are its decoder. Keeps
 * no copy of either and no matrix of its own, but where a processed model's W_out is in no file. */
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"
#include "core/model/model.h"

/* Texts are cut to so many tokens for statistics: every neuron has a value at every token, and those of a text are kept together. */
#define CONTEXT 1024

/* W_out [outputs][neurons] seen as the rows that neurons write. */
static struct tensor decoder_of(const struct matrix_part *part, int64_t d_mlp) {
  bool neurons_first = part->layout == ROWS_ARE_INPUTS;
  return (struct tensor){.name = "W_out", .dtype = part->dtype, .n_dims = 2, .shape = {d_mlp, part->n_out},
                         .stride = {neurons_first ? part->ld : 1, neurons_first ? 1 : part->ld}, .data = part->data,
                         .bytes = (size_t)d_mlp * (size_t)part->n_out * dtype_size(part->dtype)};
}

static struct dict_info describe(const struct model *model, int32_t layer, enum dtype dtype) {
  const struct arch *arch = &model->arch;
  enum site out = arch_has(arch, HAS_POST_NORMS) ? SITE_MLP_RAW : SITE_MLP_OUT;
  return (struct dict_info){.kind = DICT_NEURONS,
                            .transcoder = true,
                            .n_targets = 1,
                            .in = {layer, SITE_MLP_POST},
                            .out = {layer, out},
                            .d_in = arch->d_mlp,
                            .d_out = arch->d_model,
                            .n_feat = arch->d_mlp,
                            .in_width = arch->d_mlp,
                            .out_width = arch->d_model,
                            .norm = DICT_NORM_NONE,
                            .scale = 1,
                            .out_scale = 1,
                            .prepend_bos = true,
                            .context = CONTEXT,
                            .positions = {.skip_first = model->tokenizer && tokenizer_bos(model->tokenizer) >= 0},
                            .dtype = dtype,
                            .format = "model",
                            .bytes = (size_t)arch->d_mlp * sizeof(float)};
}

struct dict *dict_open_neurons(const struct model *model, int32_t layer, struct error *error) {
  struct matrix_part part;
  float *made;
  if (model_mlp_out(model, layer, &part, &made, error) != 0) return NULL;
  struct dict *dict = calloc(1, sizeof *dict);
  size_t n = (size_t)model->arch.d_mlp;
  float *norms = malloc(n * sizeof *norms);
  if (!dict || !norms) {
    error_memory(error, n * sizeof *norms);
    free(made);
    free(norms);
    free(dict);
    return NULL;
  }
  for (size_t f = 0; f < n; f++) norms[f] = 1;
  dict->info = describe(model, layer, part.dtype);
  dict->w_dec = decoder_of(&part, model->arch.d_mlp);
  dict->made = made;
  if (made) dict->info.bytes += dict->w_dec.bytes;
  dict->host = dict->norms = norms;
  dict->backend = model->backend;
  return dict;
}

/* ---- activations ---- */

int neurons_encode(const struct dict *dict, struct rows x, int64_t n_rows, struct sparse *out, struct error *error) {
  size_t width = (size_t)dict->info.d_in, rows = (size_t)n_rows, ld = (size_t)x.ld;
  if (rows == 0) return 0;
  size_t count = (rows - 1) * ld + width;
  float *values = malloc(count * sizeof *values);
  if (!values) return error_memory(error, count * sizeof *values);
  int failed = dict->backend->ops->read(dict->backend, values, x.at, count * sizeof *values, error);
  for (size_t r = 0; !failed && r < rows; r++) {
    const float *row = values + r * ld;
    if ((failed = sparse_row(out, width, error)) != 0) break;
    for (size_t i = 0; i < width; i++)
      if (row[i] != 0) sparse_push(out, (int32_t)i, row[i]);
  }
  free(values);
  return failed;
}

void neurons_values(const struct dict *dict, int64_t index, const float *x, size_t n_rows, float *out) {
  for (size_t r = 0; r < n_rows; r++) {
    float value = x[r * (size_t)dict->info.in_width + (size_t)index];
    out[r] = value != 0 ? value : 0; /* of what is not in the codes, no sign */
  }
}

void neurons_encoder_column(const struct dict *dict, int64_t index, float *out) {
  memset(out, 0, (size_t)dict->info.d_in * sizeof *out);
  out[index] = 1;
}
