/* dict_config.h: what a dictionary says about itself, whoever said it: a SAELens cfg.json or a section of an
 * ini. Private to core/dict. The readers check all that can be checked without the weights; dict.c checks the
 * rest. */
#ifndef STEERD_CORE_DICT_DICT_CONFIG_H
#define STEERD_CORE_DICT_DICT_CONFIG_H

#include "core/dict/dict.h"

#define DICT_PATH_BYTES 4096

struct dict_config {
  enum dict_kind kind;
  struct point point;
  int64_t d_in, n_feat; /* 0: not said, taken from the model and the weights */
  int32_t k;            /* TOPK: >= 1 */
  bool apply_b_dec_to_input, center_mean, fold, bos_counts, prepend_bos;
  bool selects_folded;           /* TOPK selects the k largest of p * n instead of p */
  int64_t context;               /* 0: not said */
  const char *format;            /* static */
  char file[DICT_PATH_BYTES];    /* where all this was said; for error texts */
  char weights[DICT_PATH_BYTES]; /* what tensors_open is to open */
};

/* "DIRECTORY/NAME" into out, or -1 with ERROR_ARGUMENT when it does not fit. */
int dict_path(const char *directory, const char *name, char out[DICT_PATH_BYTES],
              struct error *error) MUST_CHECK;

/* Reads a point name and refuses points that no dictionary is served on yet. Errors begin with config->file.
 */
int dict_config_point(struct dict_config *config, const char *name, const struct dict_host *host,
                      struct error *error) MUST_CHECK;

/* k of a TopK dictionary: 1 to 2^31 - 1 here, at most n_feat once that is known. */
int dict_config_k(struct dict_config *config, int64_t k, struct error *error) MUST_CHECK;

#endif
