/* model_tokenizer.h: the tokenizer of a model's folder. Private to model.c. */
#ifndef STEERD_CORE_MODEL_MODEL_TOKENIZER_H
#define STEERD_CORE_MODEL_MODEL_TOKENIZER_H

#include "core/base/json.h"
#include "core/model/tokenizer.h"

/* That of the folder itself; where it has none and config.json names a repository under "tokenizer_name", as
 * TransformerLens' toy models do, that of the repository in the Hugging Face cache. ERROR_NOT_FOUND says which repository is
 * missing and how to get it. */
struct tokenizer *model_tokenizer_open(const char *folder, const struct json_node *config, struct error *error) MUST_CHECK;

#endif
