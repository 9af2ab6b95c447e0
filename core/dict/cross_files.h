/* cross_files.h: the files of a cross-layer transcoder, one or two for each layer, in one folder. Private to core/dict. */
#ifndef STEERD_CORE_DICT_CROSS_FILES_H
#define STEERD_CORE_DICT_CROSS_FILES_H

#include "core/dict/dict_config.h"

/* N of a path that ends in PREFIX N ".safetensors". */
bool cross_file_layer(const char *path, const char *prefix, int64_t *layer);

/* A layer writes to the layers behind it: the folder must have the files of all of the model's layers (prefixes, ended by NULL),
 * and of no more. Sets out->n_targets. Without a model what is there decides. */
int cross_files_check(const char *folder, const char *const *prefixes, int64_t layer, const struct dict_host *host,
                      struct dict_config *out, struct error *error) MUST_CHECK;

#endif
