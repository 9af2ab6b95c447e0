/* corpus.h: a text as documents of token ids, cut as docs/statistics.md says.
 *
 * The whole text is tokenised once into an unlinked temporary file that is mapped: memory stays bounded by the page cache,
 * and any document can be looked at again. Immutable once opened; any thread. */
#ifndef STEERD_CORE_ANALYSIS_CORPUS_H
#define STEERD_CORE_ANALYSIS_CORPUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "core/model/tokenizer.h"

struct corpus;

struct corpus_options {
  bool lines;      /* one document a line */
  int64_t context; /* tokens of a document at most, BOS included; >= 2 */
  bool bos;        /* documents begin with BOS */
  int64_t max_tokens; /* stop at the document that reaches this many tokens (BOS not counted); 0: the whole text */
  bool (*stop)(void *context); /* asked now and then while tokenising; NULL: never stops */
  void *stop_context;
};

/* path: a UTF-8 text file. Errors: ERROR_NOT_FOUND, ERROR_IO, ERROR_ARGUMENT (invalid UTF-8 or a character that the
 * vocabulary lacks, with its line), ERROR_CANCELLED. */
struct corpus *corpus_open(const char *path, const struct tokenizer *tokenizer, const struct corpus_options *options,
                           struct error *error) MUST_CHECK;
void corpus_close(struct corpus *corpus); /* NULL is fine */

int64_t corpus_documents(const struct corpus *corpus);
int64_t corpus_tokens(const struct corpus *corpus); /* without BOS */

/* Length of a document, BOS included; 0 for an empty line without BOS. */
int32_t corpus_length(const struct corpus *corpus, int64_t document);

/* Its ids, BOS first where there is one, into ids [corpus_length]. */
void corpus_ids(const struct corpus *corpus, int64_t document, int32_t *ids);

/* A hash of the text and of how it was cut, 16 hexadecimal digits: a job resumes only over the same. */
const char *corpus_identity(const struct corpus *corpus);

#endif
