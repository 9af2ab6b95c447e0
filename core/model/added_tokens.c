/* added_tokens.c: owns the search for literal token texts; does not know what becomes of the rest. The sorted
 * array serves as a trie: each byte of the text narrows the range of tokens that still agree with it. */
#include "core/model/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

int added_tokens_add(struct added_tokens *set, struct added_token token, struct error *error) {
  if (set->count == set->capacity) {
    size_t capacity = size_max(16, set->capacity * 2);
    struct added_token *tokens = realloc(set->tokens, capacity * sizeof *tokens);
    if (!tokens)
      return error_memory(error, capacity * sizeof *tokens);
    set->tokens = tokens;
    set->capacity = capacity;
  }
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

int added_tokens_finish(struct added_tokens *set, const struct pieces *pieces, struct error *error) {
  for (size_t i = 0; i < set->count; i++) {
    struct added_token *token = &set->tokens[i];
    token->text = pieces_get(pieces, token->id, &token->length);
    if (token->length == 0 || token->length > ADDED_TOKEN_BYTES)
      return error_set(error, ERROR_FORMAT, "the added token with id %d has %zu bytes, allowed are 1 to %d",
                       token->id, token->length, ADDED_TOKEN_BYTES);
    set->starts[(unsigned char)token->text[0]] = true;
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

static const struct added_token *longest_at(const struct added_tokens *set, const char *text, size_t length,
                                            bool special) {
  const struct added_token *best = NULL;
  size_t low = 0, high = set->count;
  for (size_t depth = 0; depth < length && low < high; depth++) {
    int byte = (unsigned char)text[depth];
    low = lower_bound(set, low, high, depth, byte);
    high = lower_bound(set, low, high, depth, byte + 1);
    if (low == high)
      break;
    const struct added_token *token = &set->tokens[low]; /* the shortest of those that agree comes first */
    if (token->length == depth + 1 && (special || !token->special))
      best = token;
  }
  return best;
}

static bool is_space(uint32_t p) {
  return (p >= 0x09 && p <= 0x0D) || p == 0x20 || p == 0x85 || p == 0xA0 || p == 0x1680 ||
         (p >= 0x2000 && p <= 0x200A) || p == 0x2028 || p == 0x2029 || p == 0x202F || p == 0x205F ||
         p == 0x3000;
}

size_t space_prefix(const char *text, size_t length) {
  uint32_t point;
  size_t at = 0;
  while (at < length) {
    int n = utf8_next(text + at, length - at, &point);
    if (n <= 0 || !is_space(point))
      break;
    at += (size_t)n;
  }
  return at;
}

/* Where the white space that ends text[from..to) begins. */
static size_t space_suffix(const char *text, size_t from, size_t to) {
  uint32_t point;
  while (to > from) {
    size_t at = to - 1;
    while (at > from && ((unsigned char)text[at] & 0xC0) == 0x80)
      at--;
    if (utf8_next(text + at, to - at, &point) != (int)(to - at) || !is_space(point))
      break;
    to = at;
  }
  return to;
}

bool added_tokens_find(const struct added_tokens *set, const char *text, size_t from, size_t to, bool special,
                       struct added_match *match) {
  if (set->count == 0)
    return false;
  for (size_t at = from; at < to; at++) {
    if (!set->starts[(unsigned char)text[at]])
      continue;
    const struct added_token *token = longest_at(set, text + at, to - at, special);
    if (!token)
      continue;
    match->token = token;
    match->begin = token->lstrip ? space_suffix(text, from, at) : at;
    match->end = at + token->length;
    if (token->rstrip)
      match->end += space_prefix(text + match->end, to - match->end);
    return true;
  }
  return false;
}
