/* token_classes.h: sets of tokens that follow from how a token is written: capitals, digits, a first letter. For token-set
 * enrichment (logit_shape.h). A token is judged by its text ("the" and " the" begin with the same letter), not by how a file
 * of the tokenizer spells it. */
#ifndef STEERD_CORE_ANALYSIS_TOKEN_CLASSES_H
#define STEERD_CORE_ANALYSIS_TOKEN_CLASSES_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

int token_class_count(void);
const char *token_class_name(int class_number); /* "starts_with_space", ..., "a", ..., "z" */
int token_class_find(const char *name);         /* -1: none is called so */

/* What knows letters beyond ASCII. */
struct token_judge;
struct token_judge *token_judge_new(struct error *error) MUST_CHECK;
void token_judge_free(struct token_judge *judge); /* NULL is fine */

/* Calls in(context, c) for each class c that a token with these bytes is in. One whose bytes are a part of a character only is in none
 * but starts_with_space and the brackets. */
void token_judge_classes(const struct token_judge *judge, const char *bytes, size_t n, void (*in)(void *context, int class_number),
                         void *context);

#endif
