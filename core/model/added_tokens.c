/* added_tokens.c: owns the search for literal token texts; does not know what becomes of the rest. The sorted
 * array serves as a trie: each byte of the text narrows the range of tokens that still agree with it. */
#include "core/model/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/unicode.h"
#include "core/base/utf8.h"

static void token_clear(struct added_token *token) {
  if (token->text != token->content) free(token->text);
  free(token->content);
}

static int set_grow(struct added_tokens *set, struct error *error) {
  size_t capacity = size_max(16, set->capacity * 2);
  struct added_token *tokens = realloc(set->tokens, capacity * sizeof *tokens);
  if (!tokens) return error_memory(error, capacity * sizeof *tokens);
  set->tokens = tokens;
  set->capacity = capacity;
  return 0;
}

int added_tokens_add(struct added_tokens *set, struct added_token token, const char *content, size_t length,
                     struct error *error) {
  if (set->count == set->capacity && set_grow(set, error) != 0) return -1;
  token.content = malloc(length + 1);
  if (!token.content) return error_memory(error, length + 1);
  memcpy(token.content, content, length);
  token.content[length] = '\0';
  token.text = token.content;
  token.length = token.content_length = length;
  set->tokens[set->count++] = token;
  return 0;
}

struct added_token *added_tokens_of(const struct added_tokens *set, int32_t id) {
  for (size_t i = 0; i < set->count; i++)
    if (set->tokens[i].id == id)
      return &set->tokens[i];
  return NULL;
}

static int compare_tokens(const void *a, const void *b) {
  const struct added_token *x = a, *y = b;
  int order = memcmp(x->text, y->text, size_min(x->length, y->length));
  return order ? order : (x->length > y->length) - (x->length < y->length);
}

static int token_normalize(struct added_token *token, const struct normalizer *normalizer, struct error *error) {
  struct buffer text;
  int result = normalizer_run(normalizer, token->content, token->content_length, true, &text, error);
  if (result == 0 && text.data) {
    token->text = text.data;
    token->length = text.length;
    return 0;
  }
  buffer_clear(&text);
  token->length = 0;
  return result;
}

int added_tokens_finish(struct added_tokens *set, const struct normalizer *normalizer, struct error *error) {
  for (size_t i = 0; i < set->count; i++) {
    struct added_token *token = &set->tokens[i];
    if (normalizer && !token->exact && token_normalize(token, normalizer, error) != 0) return -1;
    if (token->length == 0 || token->length > ADDED_TOKEN_BYTES)
      return error_set(error, ERROR_FORMAT, "the added token with id %d has %zu bytes, allowed are 1 to %d",
                       token->id, token->length, ADDED_TOKEN_BYTES);
    set->starts[(unsigned char)token->text[0]] = true;
    if (token->single_word && !set->word && !(set->word = pattern_open("\\w", error))) return -1;
  }
  if (set->count)
    qsort(set->tokens, set->count, sizeof *set->tokens, compare_tokens);
  for (size_t i = 1; i < set->count; i++)
    if (compare_tokens(&set->tokens[i - 1], &set->tokens[i]) == 0)
      return error_set(error, ERROR_FORMAT, "the added token '%.*s' stands twice, with ids %d and %d",
                       (int)size_min(set->tokens[i].length, 64), set->tokens[i].text, set->tokens[i - 1].id,
                       set->tokens[i].id);
  return 0;
}

void added_tokens_clear(struct added_tokens *set) {
  for (size_t i = 0; i < set->count; i++) token_clear(&set->tokens[i]);
  pattern_free(set->word);
  free(set->tokens);
  memset(set, 0, sizeof *set);
}

/* In tokens[low..high), which agree on their first `depth` bytes: the first one whose next byte is at least
 * `byte`. A token that ends at `depth` counts as smaller than all. */
static size_t lower_bound(const struct added_tokens *set, size_t low, size_t high, size_t depth, int byte) {
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    const struct added_token *token = &set->tokens[middle];
    int here = token->length > depth ? (unsigned char)token->text[depth] : -1;
    if (here < byte)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

static const struct added_token *longest_at(const struct added_tokens *set, const char *text, size_t length) {
  const struct added_token *best = NULL;
  size_t low = 0, high = set->count;
  for (size_t depth = 0; depth < length && low < high; depth++) {
    int byte = (unsigned char)text[depth];
    low = lower_bound(set, low, high, depth, byte);
    high = lower_bound(set, low, high, depth, byte + 1);
    if (low == high)
      break;
    const struct added_token *token = &set->tokens[low]; /* the shortest of those that agree comes first */
    if (token->length == depth + 1)
      best = token;
  }
  return best;
}

size_t added_tokens_longest(const struct added_tokens *set, const char *text, size_t length) {
  const struct added_token *token =
      length > 0 && set->starts[(unsigned char)*text] ? longest_at(set, text, length) : NULL;
  return token ? token->length : 0;
}

/* Whether no character of a word touches text[begin..end). */
static bool stands_alone(const struct pattern *word, const char *text, size_t begin, size_t end, size_t length) {
  size_t before = begin;
  while (before > 0 && ((unsigned char)text[--before] & 0xC0) == 0x80) continue;
  if (begin > 0 && pattern_begins(word, text + before, begin - before)) return false;
  uint32_t point;
  int n = end < length ? utf8_next(text + end, length - end, &point) : 0;
  return n <= 0 || !pattern_begins(word, text + end, (size_t)n);
}

/* The next place where a token stands, whether it counts or not. */
static const struct added_token *search_place(const struct added_tokens *set, struct added_search *s,
                                              size_t *begin) {
  for (size_t at = s->next; at < s->length; at++) {
    const struct added_token *token =
        set->starts[(unsigned char)s->text[at]] ? longest_at(set, s->text + at, s->length - at) : NULL;
    if (!token) continue;
    *begin = at;
    s->next = at + token->length;
    return token;
  }
  return NULL;
}

bool added_tokens_next(const struct added_tokens *set, struct added_search *s) {
  size_t begin = 0;
  const struct added_token *token;
  while (set->count > 0 && (token = search_place(set, s, &begin))) {
    size_t end = begin + token->length;
    if (token->special && !s->special) continue;
    if (token->single_word && !stands_alone(set->word, s->text, begin, end, s->length)) continue;
    if (token->lstrip) begin = size_max(s->end, begin - unicode_space_suffix(s->text, begin));
    if (token->rstrip) end += unicode_space_prefix(s->text + end, s->length - end);
    s->token = token;
    s->found = s->next - token->length;
    s->match_begin = begin;
    s->match_end = s->end = end;
    return true;
  }
  return false;
}
