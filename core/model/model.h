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
  struct arch arch;
  struct tokenizer *tokenizer;
  struct tensors *tensors;
  struct weights weights;
  struct backend *backend; /* borrowed */
};

/* path: a Hugging Face folder (config.json, weights, tokenizer), a llama2.c checkpoint (with tokenizer.bin, or tokN.bin
 * for a vocabulary of N, beside it), or an .ini with a [model] section:
 *   family = workshop, weights = FILE.pth, vocabulary = FILE.txt, n_head = N, norm_eps = X
 * Relative paths in an ini start at the folder in STEERD_DATA (default ../shared/data).
 * NULL with an error that names the file and what is wrong with it. */
struct model *model_open(const char *id, const char *path, struct backend *backend, struct error *error) MUST_CHECK;

/* The same folder without its tokenizer, which is NULL then: for whoever deals in token ids. */
struct model *model_open_weights(const char *id, const char *folder, struct backend *backend,
                                 struct error *error) MUST_CHECK;
void model_close(struct model *model); /* NULL is fine */

#endif
