/* dict_path_words.h: what the names of folders and files say where nothing else does. Private to core/dict.
 *
 * Publishers put layer, site and size into names: gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71. Links are
 * followed first, so that a path inside a folder says as much as one from the root. */
#ifndef STEERD_CORE_DICT_DICT_PATH_WORDS_H
#define STEERD_CORE_DICT_DICT_PATH_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/dict/dict_config.h"

/* The absolute path without "." and ".."; of a file in a Hugging Face cache the name it is linked by, not its blob's. */
struct path_words {
  char text[DICT_PATH_BYTES];
};
void path_words_init(struct path_words *words, const char *path);

/* The number behind the last `word` that a digit follows: "layer_" in ".../layer_20/...". */
bool path_words_number(const struct path_words *words, const char *word, int64_t *out);

/* Whether a component of the path contains `word`. */
bool path_words_has(const struct path_words *words, const char *word);

/* The last component. */
const char *path_words_name(const struct path_words *words);

#endif
