/* weights.h: a model's weights bound to a backend, by the table of its family. */
#ifndef STEERD_CORE_MODEL_WEIGHTS_H
#define STEERD_CORE_MODEL_WEIGHTS_H

#include "core/model/arch.h"
#include "core/model/tensors.h"

struct weight_set {
  struct matrix *matrix[SLOT_MATRICES]; /* NULL where the family has none */
  struct span vector[SLOT_COUNT];       /* f32 in backend memory; memory NULL where there is none */
};

struct weights {
  struct weight_set once;      /* embedding, positions, final norm; once.matrix[SLOT_UNEMBED] may be the embedding */
  struct weight_set *layers;   /* [n_layer] */
  struct memory *vectors;      /* every vector of the model */
  int32_t n_layer;
  int64_t parameters;          /* elements read, tied ones once */
  size_t bytes;                /* prepared matrices + vectors */
  enum dtype dtype;            /* of the first matrix in the file */
};

/* Finds, checks and prepares every tensor of the table. Tensors stay mapped as long as the weights live.
 * Errors name the tensor, the shape found and the shape expected. On failure nothing is left allocated. */
int weights_load(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                 struct backend *backend, struct weights *out, struct error *error) MUST_CHECK;

/* The same with matrices rounded to `keep` (DTYPE_F16, DTYPE_BF16; DTYPE_OTHER: as in the file). */
int weights_load_as(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                    struct backend *backend, enum dtype keep, struct weights *out, struct error *error) MUST_CHECK;
void weights_free(struct weights *weights, struct backend *backend);

#endif
