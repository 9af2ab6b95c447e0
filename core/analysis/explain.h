/* explain.h: a short honest sentence about a feature from what was seen: the tokens it fires on (the commonest of the examples, and
 * always that of the strongest), what stands before them, what it promotes. By rule, without any model; says nothing that the examples do not show. */
#ifndef STEERD_CORE_ANALYSIS_EXPLAIN_H
#define STEERD_CORE_ANALYSIS_EXPLAIN_H

#include <stddef.h>

#include "core/base/buffer.h"

#define EXPLAIN_TYPE "steerd-auto"
#define EXPLAIN_MODEL "rules-1"

struct explain_example {
  const char *token;  /* on which it fires most in this example; NUL-terminated UTF-8 */
  const char *before; /* the token before it; NULL at the beginning */
};

struct explain_input {
  const struct explain_example *examples; /* top examples, strongest first */
  size_t n_examples;
  const char *const *promoted; /* texts of the largest logits, largest first */
  size_t n_promoted;
  double rate; /* share of positions it fires on; < 0: no statistics */
};

/* Appends one sentence without a full stop. */
void explain_feature(const struct explain_input *input, struct buffer *out);

#endif
