/* dict_readers.h: the readers of published formats besides SAELens' (saelens.h) and ini files (dict_ini.h). Private to
 * core/dict. Each is told a path that its is_at said yes to, and an initialised config. docs/dictionaries.md says what
 * each format keeps where. */
#ifndef STEERD_CORE_DICT_DICT_READERS_H
#define STEERD_CORE_DICT_DICT_READERS_H

#include "core/dict/dict_config.h"

#define DICT_READER(name)                                                                        \
  bool name##_is_at(const char *path);                                                           \
  int name##_read(const char *path, const struct dict_host *host, struct dict_config *out,        \
                  struct error *error) MUST_CHECK;

DICT_READER(gemma_scope)         /* a folder with params.npz */
DICT_READER(gemma_scope_2)       /* a folder with params.safetensors */
DICT_READER(gemma_scope_2_cross) /* params_layer_N.safetensors below a folder clt; or the folder of them all */
DICT_READER(llama_scope)         /* hyperparams.json, checkpoints/final.safetensors */
DICT_READER(llama_scope_r1)      /* config.json with expansion_factor, sae_weights.safetensors */
DICT_READER(sparsify)            /* cfg.json, sae.safetensors */
DICT_READER(dictionary_learning) /* config.json with "trainer", ae.pt */
DICT_READER(attention_saes)      /* NAME.pt beside NAME_cfg.json */
DICT_READER(circuit_tracer)      /* layer_N.safetensors beside config.yaml */
DICT_READER(openai)              /* .../LOCATION/VERSION/autoencoders/N.pt */
DICT_READER(linear_pair)         /* one torch file of an encoder and a decoder module, its layer in its name */

DICT_READER(cross_layer)         /* W_enc_N.safetensors, W_dec_N.safetensors and config.yaml; or the folder of them all, whose
                                    layer dict_cross_layer_path says */

/* Where `path` is the folder of a cross-layer transcoder: the file of the layer that the id begins with ("7-clt"), into out,
 * and 1; 0 for any other path; -1 when the id names no layer. */
int dict_cross_layer_path(const char *path, const char *id, char out[DICT_PATH_BYTES], struct error *error) MUST_CHECK;

/* "FOLDER" of "FOLDER/NAME", "." of a bare name. */
int dict_folder_of(const char *path, char out[DICT_PATH_BYTES], struct error *error) MUST_CHECK;

/* "mlp.hook_in" of "mlp.hook_in" or "blocks.{layer}.mlp.hook_in"; a part of what was given. */
const char *dict_site_of(const char *hook);

/* FOLDER/NAME is a file. */
bool dict_has_file(const char *folder, const char *name);

/* "blocks.LAYER.SITE" as the point that is read, or written. */
int dict_config_site(struct dict_config *config, int64_t layer, const char *site, const struct dict_host *host,
                     struct error *error) MUST_CHECK;
int dict_config_site_out(struct dict_config *config, int64_t layer, const char *site, const struct dict_host *host,
                         struct error *error) MUST_CHECK;

#endif
