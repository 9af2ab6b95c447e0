/* process.h: a model's weights as TransformerLens' HookedTransformer.from_pretrained has them unless it is told otherwise:
 *
 *   fold_ln                 gains and biases of norms go into the matrices that read them; norms centre and scale only
 *   center_writing_weights  what is written to the residual stream has mean zero (LayerNorm models)
 *   center_unembed          logits have mean zero over the vocabulary (not in front of a soft cap)
 *   fold_value_biases       what values have for a bias goes through the output matrix into its bias
 *
 * The probabilities of the next token are those of the model as it is; activations and logits are not. Norms of queries
 * and keys and norms behind a sublayer keep their gains, as they do there. */
#ifndef STEERD_CORE_MODEL_PROCESS_H
#define STEERD_CORE_MODEL_PROCESS_H

#include "core/model/weights.h"

/* What is done to this model, for reports: each line in `out`, at most PROCESS_LINES of them; returns how many. */
#define PROCESS_LINES 6
int process_lines(const struct arch *stored, const char *out[PROCESS_LINES]);

/* Elements of a vector that processed weights have in this slot. */
int64_t process_vector_count(const struct arch *arch, enum weight_slot slot);

/* As weights_load_as, with the four done in f32 (sums in f64), one matrix in memory beside its packed copy. `stored` is the
 * model in its file; *arch becomes what `out` holds: biases and an unembedding that there were not, gains no longer.
 * keep: DTYPE_OTHER leaves matrices f32. ERROR_UNSUPPORTED for shortformer models, which add positions behind the norm. */
int process_load(const struct arch *stored, const struct arch_family *family, const struct tensors *tensors,
                 struct backend *backend, enum dtype keep, struct arch *arch, struct weights *out,
                 struct error *error) MUST_CHECK;

/* W_out of one layer as process_load prepares it, f32 [d_model][d_mlp], the caller's to free. The model has an MLP. */
int process_read_mlp_out(const struct arch *stored, const struct arch_family *family, const struct tensors *tensors, int layer,
                         float **out, struct error *error) MUST_CHECK;

#endif
