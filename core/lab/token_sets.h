/* token_sets.h: the token sets that a request names, as ids of a model's tokenizer. Private to core/lab/. */
#ifndef STEERD_CORE_LAB_TOKEN_SETS_H
#define STEERD_CORE_LAB_TOKEN_SETS_H

#include "core/analysis/logit_shape.h"
#include "core/lab/lab_int.h"
#include "core/laboratory.h"

/* Sets by name, in the order of the request; names in the arena. token_sets_clear(&out->sets) also behind a failure. */
struct named_sets {
  struct token_sets sets;
  const char *name[TOKEN_SETS_MOST];
};
int named_sets_make(const struct model *model, const struct lab_token_sets *args, struct arena *arena, struct named_sets *out,
                    struct error *error) MUST_CHECK;

/* Ids of a word as it stands in the middle of a text: with a space in front where `space` asks for one and it has none.
 * *ids in the arena. Errors carry `field`. */
int word_ids(const struct model *model, const char *word, bool space, const char *field, struct arena *arena, int32_t **ids, size_t *n,
             struct error *error) MUST_CHECK;

#endif
