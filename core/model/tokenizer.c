/* tokenizer.c: owns what all kinds share: BOS, the added tokens that are cut out of a text first, and the way
 * back to bytes. Does not know how ordinary text becomes ids (tokenizer_bpe.c, tokenizer_characters.c) nor
 * how a tokenizer is stored. */
#include "core/model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"
#include "core/model/tokenizer_private.h"

/* Positions inside a pre-token are 32 bits wide. */
#define TEXT_BYTES_MAX ((size_t)1 << 30)

struct tokenizer *tokenizer_new(int32_t count, struct error *error) {
  struct tokenizer *t = calloc(1, sizeof *t);
  if (!t)
    return error_memory(error, sizeof *t), NULL;
  t->bos = t->eos = -1;
  if (pieces_init(&t->pieces, count, error) != 0) {
    free(t);
    return NULL;
  }
  return t;
}

void tokenizer_free(struct tokenizer *t) {
  if (!t)
    return;
  if (t->kind)
    t->kind->free(t->state);
  pieces_clear(&t->pieces);
  for (int i = 0; i < 2; i++)
    added_tokens_clear(&t->added[i]);
  free(t);
}

int tokenizer_mark_special(struct tokenizer *t, int32_t id, struct error *error) {
  t->pieces.at[id].special = true;
  for (int i = 0; i < 2; i++) {
    struct added_token *token = added_tokens_of(&t->added[i], id);
    if (!token)
      continue;
    token->special = true;
    return 0;
  }
  return added_tokens_add(&t->added[0], (struct added_token){.id = id, .special = true}, error);
}

int tokenizer_finish(struct tokenizer *t, struct error *error) {
  for (int i = 0; i < 2; i++) {
    if (added_tokens_finish(&t->added[i], &t->pieces, error) != 0)
      return -1;
    const struct added_token *bos = added_tokens_of(&t->added[i], t->bos);
    if (bos)
      t->bos_token = bos;
  }
  return 0;
}

int32_t tokenizer_size(const struct tokenizer *t) { return t->pieces.count; }
int32_t tokenizer_bos(const struct tokenizer *t) { return t->bos; }
int32_t tokenizer_eos(const struct tokenizer *t) { return t->eos; }
bool tokenizer_prepends_bos(const struct tokenizer *t) { return t->prepends_bos; }

bool tokenizer_is_special(const struct tokenizer *t, int32_t id) {
  return pieces_has(&t->pieces, id) && t->pieces.at[id].special;
}

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *length) {
  return pieces_get(&t->pieces, id, length);
}

/* Ids of text[from..to): cuts out the added tokens of set `level` and gives the rest to the next level, the
 * last of which is the kind itself. */
static int encode_range(const struct tokenizer *t, int level, bool special, const char *text, size_t from,
                        size_t to, struct id_list *ids, struct error *error) {
  if (from == to)
    return 0;
  if (level == 2)
    return t->kind->encode(t->state, text, from, to, ids, error);
  struct added_match match;
  while (added_tokens_find(&t->added[level], text, from, to, special, &match)) {
    if (encode_range(t, level + 1, special, text, from, match.begin, ids, error) != 0)
      return -1;
    if (id_list_push(ids, match.token->id, error) != 0)
      return -1;
    from = match.end;
  }
  return encode_range(t, level + 1, special, text, from, to, ids, error);
}

/* How many bytes at the front of the text are the BOS token itself. */
static size_t bos_prefix(const struct tokenizer *t, const char *text, size_t length) {
  const struct added_token *bos = t->bos_token;
  if (!bos || length < bos->length || memcmp(text, bos->text, bos->length) != 0)
    return 0;
  return bos->length + (bos->rstrip ? space_prefix(text + bos->length, length - bos->length) : 0);
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, int flags, int32_t **ids,
                     size_t *count, struct error *error) {
  size_t bad, from = 0;
  *ids = NULL;
  *count = 0;
  if (length > TEXT_BYTES_MAX)
    return error_set(error, ERROR_LIMIT, "the text has %zu bytes, at most %zu become tokens", length,
                     TEXT_BYTES_MAX);
  if (!utf8_valid(text, length, &bad))
    return error_set(error, ERROR_ARGUMENT, "the text is not valid UTF-8 at byte %zu", bad);
  struct id_list list = {0};
  if ((flags & TOKENIZE_BOS) && t->bos >= 0) {
    from = bos_prefix(t, text, length);
    if (id_list_push(&list, t->bos, error) != 0)
      return -1;
  }
  if (encode_range(t, 0, (flags & TOKENIZE_SPECIAL) != 0, text, from, length, &list, error) != 0) {
    free(list.ids);
    return -1;
  }
  *ids = list.ids;
  *count = list.count;
  return 0;
}
