/* dict_config.h: what a dictionary says about itself, whoever said it: the description files of each format, or a
 * section of an ini. Private to core/dict. The readers check all that can be checked without the weights; dict.c checks
 * the rest. */
#ifndef STEERD_CORE_DICT_DICT_CONFIG_H
#define STEERD_CORE_DICT_DICT_CONFIG_H

#include "core/base/buffer.h"
#include "core/dict/dict.h"

#define DICT_PATH_BYTES 4096

/* What a tensor is to the formula (dict.h). */
enum dict_role {
  ROLE_W_ENC,     /* [d_in, n_feat] */
  ROLE_W_DEC,     /* [n_feat, d_out] */
  ROLE_B_ENC,     /* [n_feat]; of GATED the gate's */
  ROLE_B_DEC,     /* [d_out] */
  ROLE_THRESHOLD, /* [n_feat], or one number for all */
  ROLE_GAIN,      /* [n_feat] r_mag: gain = exp(r_mag) */
  ROLE_SHIFT,     /* [n_feat] b_mag */
  ROLE_SCALING,   /* [n_feat] factors of the decoder rows */
  ROLE_SKIP,      /* [d_in, d_out] */
  ROLE_COUNT
};

struct dict_tensor {
  const char *name; /* static or in config->names; NULL: this dictionary has none */
  bool transposed;  /* in the file the other way round */
  bool optional;    /* absent means: as if it were 0 (biases), 1 (factors) or not there (skip) */
};

struct dict_config {
  enum dict_kind kind;
  bool transcoder;
  bool cross;                   /* writes the same site of every layer from its own on; W_dec is [n_feat, layers, d_out] */
  int32_t n_targets;            /* of cross: how many layers it writes */
  int32_t first_plane;          /* of cross: which of W_dec's layers is its own; what is in front of it is 0 */
  struct point in, out;
  int64_t head;                 /* one head's slice of attn.hook_z; -1: all of the point */
  int64_t d_in, d_out, n_feat;  /* 0: not said, taken from the model and the weights */
  int64_t k;                    /* TOPK, GROUPMAX: >= 1 */
  bool apply_b_dec_to_input, center_mean, fold, bos_counts, prepend_bos;
  bool selects_folded;          /* TOPK selects the k largest of p * n instead of p */
  bool scales_decoder;          /* ROLE_SCALING means something; else it must be 1 everywhere */
  enum dict_norm norm;
  double scale, out_scale;      /* of DICT_NORM_SCALE and of what is decoded; 0 out: as in for an SAE, 1 for a transcoder */
  double threshold;             /* of all features where no tensor has it */
  double threshold_scale;       /* what thresholds are multiplied by */
  bool threshold_is_log;        /* the file keeps their logarithm */
  int64_t context;              /* 0: not said */
  struct slice slice;           /* of a context: where it is meant to be read */
  bool excludes_special;        /* and not at the tokenizer's special tokens, */
  int32_t *excluded;            /* or at those of a list: [n_excluded] ascending, none twice; owned */
  size_t n_excluded;
  double l0;                    /* features a token that its makers measured; 0: not said */
  struct dict_tensor tensors[ROLE_COUNT];
  char names[ROLE_COUNT][96];   /* those that a description gives */
  const char *const *unused;    /* names of tensors that say nothing to the formula; ends with NULL, or NULL */
  const char *prefix;           /* in front of every name ("state_dict."), or "" */
  const char *format;           /* static */
  char model[96];               /* as the description names it; "" where it does not */
  char file[DICT_PATH_BYTES];    /* where all this was said; for error texts */
  char weights[DICT_PATH_BYTES]; /* what tensors_open is to open */
  char decoder[DICT_PATH_BYTES]; /* another file, which has W_dec; "": the same */
  struct buffer notes;           /* lines: fields used and what they mean; for dict_describe */
};

/* Everything as SAELens leaves it where nothing is said; to be cleared. */
void dict_config_init(struct dict_config *config, const char *format);
void dict_config_clear(struct dict_config *config);

/* The description of the dictionary at `path`, read by the reader its content asks for. config was initialised by
 * nobody: this does it, and leaves it to be cleared, also after an error. */
int dict_config_read(const char *path, const char *id, const struct dict_host *host, struct dict_config *config,
                     struct error *error) MUST_CHECK;

/* "DIRECTORY/NAME" into out, or -1 with ERROR_ARGUMENT when it does not fit. */
int dict_path(const char *directory, const char *name, char out[DICT_PATH_BYTES],
              struct error *error) MUST_CHECK;

/* Reads a point name and refuses points that no dictionary is served on. Errors begin with config->file. `in` is
 * where the dictionary reads and, until _out is called, where it writes. */
int dict_config_point(struct dict_config *config, const char *name, const struct dict_host *host,
                      struct error *error) MUST_CHECK;
int dict_config_point_out(struct dict_config *config, const char *name, const struct dict_host *host,
                          struct error *error) MUST_CHECK;

/* Whether dictionaries that write at a site are served: rows of the residual stream's width, what W_O or W_out carries there, queries,
 * keys and values. */
bool dict_writes(const struct arch *arch, enum site site);

/* Whether the point it writes can be written; once all is read. */
int dict_config_check(const struct dict_config *config, const struct dict_host *host, struct error *error) MUST_CHECK;

/* k of a TopK dictionary: 1 to 2^31 - 1 here, at most n_feat once that is known. */
int dict_config_k(struct dict_config *config, int64_t k, struct error *error) MUST_CHECK;

/* Names the tensors of a kind as SAELens names them. */
void dict_config_tensors(struct dict_config *config);
void dict_config_tensor(struct dict_config *config, enum dict_role role, const char *name, bool transposed);

/* A line of dict_describe. */
void dict_config_note(struct dict_config *config, const char *format, ...) ERROR_PRINTF(2, 3);

/* A model other than the host's is worth a warning, not an error. */
void dict_config_model(struct dict_config *config, const char *model, const struct dict_host *host);

#endif
