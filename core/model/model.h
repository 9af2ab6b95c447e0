/* model.h: an opened model: architecture, weights on a backend, tokenizer. Immutable once opened. */
#ifndef STEERD_CORE_MODEL_MODEL_H
#define STEERD_CORE_MODEL_MODEL_H

#include "core/model/arch.h"
#include "core/model/tensors.h"
#include "core/model/tokenizer.h"
#include "core/model/weights.h"

struct model {
  char *id, *path;
  const struct arch_family *family; /* static */
  struct arch arch;   /* of the weights in memory */
  struct arch stored; /* of those in the file: another one when `processed` */
  bool processed;     /* core/model/process.h */
  enum dtype keep;    /* what its matrices were rounded to; DTYPE_OTHER: nothing */
  struct tokenizer *tokenizer;
  struct tensors *tensors;
  struct weights weights;
  struct backend *backend; /* borrowed */
};

/* path: a Hugging Face folder (config.json, weights, tokenizer, or the name of the repository in the cache that has it:
 * model_tokenizer.h), a file of weights (.safetensors, .pth, .pt) that lies in such a folder, a llama2.c checkpoint (with tokenizer.bin, or tokN.bin
 * for a vocabulary of N, beside it), or an .ini with a [model] section:
 *   family = workshop, weights = FILE.pth, vocabulary = FILE.txt, n_head = N, norm_eps = X
 * Relative paths in an ini start at the folder in STEERD_DATA (default ../shared/data).
 * NULL with an error that names the file and what is wrong with it. */
struct model *model_open(const char *id, const char *path, struct backend *backend, struct error *error) MUST_CHECK;

/* How a model is opened, where not as it is. */
struct model_wish {
  bool processed;  /* core/model/process.h */
  enum dtype keep; /* matrices are rounded to it and kept in it: DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_Q8 (ERROR_UNSUPPORTED on a CUDA
                    * device); DTYPE_OTHER: as in the file. Everything is computed as a model is whose file has the rounded values */
  bool weights;    /* a folder without its tokenizer, as model_open_weights */
};
struct model *model_open_as(const char *id, const char *path, const struct model_wish *wish, struct backend *backend,
                            struct error *error) MUST_CHECK;

/* The same folder without its tokenizer, which is NULL then: for whoever deals in token ids. */
struct model *model_open_weights(const char *id, const char *folder, struct backend *backend,
                                 struct error *error) MUST_CHECK;
struct model *model_open_weights_processed(const char *id, const char *folder, struct backend *backend,
                                           struct error *error) MUST_CHECK;

/* The type of the matrices that make its keys and values: what the cache needs no more precision than (ops.h). */
static inline enum dtype model_kv_type(const struct model *model) {
  enum dtype dtype = model->weights.layers[0].matrix[SLOT_QKV]->dtype;
  return dtype == DTYPE_Q8 ? DTYPE_F32 : dtype;
}

/* The type that most of its weights are in: `keep`, or the file's, or f32 where they are processed. */
static inline enum dtype model_kept(const struct model *model) {
  return model->keep != DTYPE_OTHER ? model->keep : model->processed ? DTYPE_F32 : model->weights.dtype;
}

/* Its weights once more, with matrices rounded to `keep` (DTYPE_OTHER: as in the file). Freed by weights_free. */
int model_load_weights(const struct model *model, enum dtype keep, struct weights *out, struct error *error) MUST_CHECK;

/* W_out of a layer's MLP, as the model computes with it: element (output, neuron) where the part says. It borrows the mapped file,
 * or *made, which is the caller's to free (NULL: the file). ERROR_UNSUPPORTED where there is no MLP. Any thread. */
int model_mlp_out(const struct model *model, int layer, struct matrix_part *part, float **made, struct error *error) MUST_CHECK;

void model_close(struct model *model); /* NULL is fine */

#endif
