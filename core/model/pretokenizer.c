/* pretokenizer.c: owns the compiled patterns; knows nothing of vocabularies. */
#include "core/model/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

/* Unicode's White_Space, which \s means where these patterns come from. PCRE2's own \s adds U+180E. */
#define SPACES                                                                                               \
  "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Each pattern matches at every position of every text, so it is compiled anchored. */
static const struct {
  const char *name;    /* for messages */
  const char *pattern; /* as files write it */
  const char *ours;    /* the same for PCRE2 */
} known[] = {
    {"GPT-2", PRETOKENIZER_GPT2,
     "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|[" SPACES "]+(?![^" SPACES
     "])|[" SPACES "]+"},
};

/* The patterns above backtrack over one character at most, whatever the text: these are far above what they
 * need and far below what could hurt. */
#define MATCH_LIMIT 10000
#define HEAP_LIMIT_KIB 1024

struct pretokenizer {
  pcre2_code *code;
  pcre2_match_context *limits;
};

static const char *pattern_find(const char *pattern, struct error *error) {
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(pattern, known[i].pattern) == 0)
      return known[i].ours;
  error_set(error, ERROR_UNSUPPORTED, "the pre-tokenizer pattern '%.200s' is not supported; supported: %s",
            pattern, known[0].name);
  return NULL;
}

static int pattern_compile(struct pretokenizer *p, const char *pattern, struct error *error) {
  int number;
  PCRE2_SIZE at;
  p->code =
      pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
  if (!p->code)
    return error_set(error, ERROR_BUG, "PCRE2 refuses a pattern at %zu (error %d)", (size_t)at, number);
  p->limits = pcre2_match_context_create(NULL);
  if (!p->limits)
    return error_memory(error, sizeof(void *));
  pcre2_set_match_limit(p->limits, MATCH_LIMIT);
  pcre2_set_heap_limit(p->limits, HEAP_LIMIT_KIB);
  /* Where pages may not be both written and run there is no JIT: the interpreter gives the same matches. */
  (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
  return 0;
}

struct pretokenizer *pretokenizer_open(const char *pattern, struct error *error) {
  const char *ours = pattern_find(pattern, error);
  if (!ours)
    return NULL;
  struct pretokenizer *p = calloc(1, sizeof *p);
  if (!p)
    return error_memory(error, sizeof *p), NULL;
  if (pattern_compile(p, ours, error) != 0) {
    pretokenizer_free(p);
    return NULL;
  }
  return p;
}

void pretokenizer_free(struct pretokenizer *p) {
  if (!p)
    return;
  pcre2_code_free(p->code);
  pcre2_match_context_free(p->limits);
  free(p);
}

/* Length of the stretch at text[at..length), or 0 with error set. */
static size_t match_at(const struct pretokenizer *p, pcre2_match_data *data, const char *text, size_t at,
                       size_t length, struct error *error) {
  int rc = pcre2_match(p->code, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, data, p->limits);
  if (rc == PCRE2_ERROR_NOMEMORY)
    return error_memory(error, length), 0;
  size_t end = rc > 0 ? pcre2_get_ovector_pointer(data)[1] : at;
  if (end <= at)
    error_set(error, ERROR_BUG, "the pre-tokenizer stopped at byte %zu (PCRE2 %d)", at, rc);
  return end - at;
}

int pretokenizer_run(const struct pretokenizer *p, const char *text, size_t length,
                     int (*take)(void *context, const char *piece, size_t length, struct error *error),
                     void *context, struct error *error) {
  pcre2_match_data *data = pcre2_match_data_create(1, NULL);
  if (!data)
    return error_memory(error, sizeof(void *));
  int result = 0;
  for (size_t at = 0; at < length && result == 0;) {
    size_t n = match_at(p, data, text, at, length, error);
    result = n ? take(context, text + at, n, error) : -1;
    at += n;
  }
  pcre2_match_data_free(data);
  return result;
}
