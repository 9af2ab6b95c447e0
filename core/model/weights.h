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
  void **copies;               /* [n_copies] what matrices borrow where it is not the file (core/model/process.h) */
  size_t n_copies;
};

/* A file's tensors read slot by slot, whatever their form, layout and type. */
struct weight_reader {
  const struct arch *arch;
  const struct arch_family *family;
  const struct tensors *tensors;
  const char *prefix; /* static */
  enum dtype dtype;   /* of the first matrix in the file */
};

/* Checks all that weights_load checks. The arguments must outlive the reader, which owns nothing. */
int weight_reader_open(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                       struct weight_reader *out, struct error *error) MUST_CHECK;

/* The table has rows of this slot for the model; optional ones may still be missing. */
bool weight_reader_has(const struct weight_reader *reader, enum weight_slot slot);

/* A slot of a layer (any, for slots that are there once) as f32 in memory of the caller's to free: a matrix as
 * [outputs][inputs], a vector in the order of the model, stacked as weights_load stacks them. *out is NULL where the
 * model has none. Lets go of the file's mapped pages. */
int weight_reader_read(const struct weight_reader *reader, enum weight_slot slot, int layer, float **out,
                       struct error *error) MUST_CHECK;

/* Where the matrix of a slot lies that comes in one tensor: mapped, and borrowed from the tensors. ERROR_UNSUPPORTED where the
 * model has none, or it comes in several. */
int weight_reader_part(const struct weight_reader *reader, enum weight_slot slot, int layer, struct matrix_part *out,
                       struct error *error) MUST_CHECK;

/* Finds, checks and prepares every tensor of the table. Tensors stay mapped as long as the weights live.
 * Errors name the tensor, the shape found and the shape expected. On failure nothing is left allocated. */
int weights_load(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                 struct backend *backend, struct weights *out, struct error *error) MUST_CHECK;

/* The same with matrices rounded to `keep` (DTYPE_F16, DTYPE_BF16; DTYPE_OTHER: as in the file). */
int weights_load_as(const struct arch *arch, const struct arch_family *family, const struct tensors *tensors,
                    struct backend *backend, enum dtype keep, struct weights *out, struct error *error) MUST_CHECK;
void weights_free(struct weights *weights, struct backend *backend);

/* The weights own *w from now on, memory that a matrix borrows instead of packing it; *w is NULL then. ERROR_MEMORY leaves it with
 * the caller. */
int weights_keep_copy(struct weights *weights, float **w, struct error *error) MUST_CHECK;

#endif
