/* tokenizer_vocabulary.c: owns the checks that make ids, pieces and merges one consistent vocabulary; does
 * not know which file they came from. */
#include "core/model/tokenizer_vocabulary.h"

#include <string.h>

/* Ids may have gaps (padding of the embedding, removed tokens), but a table must not be mostly gaps. */
#define ID_LIMIT(count) (4 * (int64_t)(count) + 1024)

/* How much of a piece a message shows, in bytes. */
#define SHOWN 64
static int shown(size_t length) { return length > SHOWN ? SHOWN : (int)length; }

static int measure_id(const struct json_node *id, const char *piece, int64_t limit, int64_t *most,
                      struct error *error) {
  if (json_kind(id) != JSON_KIND_INT)
    return error_set(error, ERROR_FORMAT, "the id of piece '%.*s' is %s, not an integer", SHOWN, piece,
                     json_kind_word(json_kind(id)));
  int64_t value = json_int_or(id, -1);
  if (value < 0 || value >= limit || value > INT32_MAX - 1)
    return error_set(error, ERROR_FORMAT,
                     "the id %lld of piece '%.*s' is outside 0 to %lld, the most this many pieces allow",
                     (long long)value, SHOWN, piece, (long long)limit - 1);
  if (value > *most)
    *most = value;
  return 0;
}

/* How many ids there are: the largest one and 1. */
static int measure(const struct json_node *vocab, const struct json_node *added, int32_t *size,
                   struct error *error) {
  int64_t limit = ID_LIMIT(json_count(vocab) + json_count(added)), most = -1;
  const struct json_node *id;
  const char *piece;
  for (void *at = NULL; json_next(vocab, &at, &piece, &id);)
    if (measure_id(id, piece, limit, &most, error) != 0)
      return -1;
  for (size_t i = 0; i < json_count(added); i++) {
    const struct json_node *token = json_at(added, i);
    piece = json_text_or(json_get(token, "content"), "");
    if (measure_id(json_get(token, "id"), piece, limit, &most, error) != 0)
      return -1;
  }
  if (most < 0)
    return error_set(error, ERROR_FORMAT, "the vocabulary is empty");
  *size = (int32_t)most + 1;
  return 0;
}

struct tokenizer *vocabulary_open(const struct json_node *vocab, const struct json_node *added,
                                  size_t merge_count, struct error *error) {
  int32_t size = 0;
  if (json_kind(vocab) != JSON_KIND_OBJECT) {
    error_set(error, ERROR_FORMAT, "the vocabulary is %s, not an object of pieces and ids",
              json_kind_word(json_kind(vocab)));
    return NULL;
  }
  if (measure(vocab, added, &size, error) != 0)
    return NULL;
  struct tokenizer *t = tokenizer_new(size, error);
  if (!t)
    return NULL;
  t->kind = &bpe_kind;
  t->state = bpe_new(&t->pieces, json_count(vocab), merge_count, error);
  if (!t->state) {
    tokenizer_free(t);
    return NULL;
  }
  return t;
}

struct bpe *vocabulary_bpe(const struct tokenizer *t) {
  return t->state;
}

static int read_piece(struct tokenizer *t, const char *text, int32_t id, struct error *error) {
  char bytes[BPE_PIECE_BYTES];
  size_t length = strlen(text), count;
  if (pieces_has(&t->pieces, id))
    return error_set(error, ERROR_FORMAT, "the id %d stands twice, the second time for piece '%.*s'", id,
                     SHOWN, text);
  if (length > sizeof bytes)
    return error_set(error, ERROR_LIMIT, "the piece with id %d has %zu bytes, at most %zu are supported", id,
                     length, sizeof bytes);
  if (bpe_piece_bytes(text, length, bytes, &count) != 0)
    return pieces_set(&t->pieces, id, text, length, error);
  if (pieces_set(&t->pieces, id, bytes, count, error) != 0)
    return -1;
  return count ? bpe_index(t->state, id, error) : 0;
}

int vocabulary_read(struct tokenizer *t, const struct json_node *vocab, struct error *error) {
  const struct json_node *id;
  const char *piece;
  for (void *at = NULL; json_next(vocab, &at, &piece, &id);)
    if (read_piece(t, piece, (int32_t)json_int_or(id, 0), error) != 0)
      return -1;
  return 0;
}

/* The bytes of one side of a merge. */
static int merge_side(const char *text, size_t length, char bytes[BPE_PIECE_BYTES], size_t *count,
                      struct error *error) {
  if (length > BPE_PIECE_BYTES)
    return error_set(error, ERROR_LIMIT, "a merge names a piece of %zu bytes, at most %d are supported",
                     length, BPE_PIECE_BYTES);
  if (bpe_piece_bytes(text, length, bytes, count) != 0 || *count == 0)
    return error_set(error, ERROR_FORMAT, "a merge names '%.*s', which is not of the byte-level alphabet",
                     shown(length), text);
  return 0;
}

int vocabulary_merge(struct bpe *bpe, const char *left, size_t left_length, const char *right,
                     size_t right_length, struct error *error) {
  char a[BPE_PIECE_BYTES], b[BPE_PIECE_BYTES];
  size_t a_length, b_length;
  struct error inner = ERROR_INIT;
  if (merge_side(left, left_length, a, &a_length, error) != 0)
    return -1;
  if (merge_side(right, right_length, b, &b_length, error) != 0)
    return -1;
  if (bpe_merge(bpe, a, a_length, b, b_length, &inner) == 0)
    return 0;
  return error_set(error, inner.code, "the merge '%.*s %.*s': %s", shown(left_length), left,
                   shown(right_length), right, inner.text);
}

int vocabulary_merge_text(struct bpe *bpe, const char *text, size_t length, struct error *error) {
  const char *space = memchr(text, ' ', length);
  size_t left = space ? (size_t)(space - text) : length;
  if (!space || memchr(space + 1, ' ', length - left - 1))
    return error_set(error, ERROR_FORMAT, "the merge '%.*s' is not two pieces with one space between them",
                     shown(length), text);
  return vocabulary_merge(bpe, text, left, space + 1, length - left - 1, error);
}

int vocabulary_add(struct tokenizer *t, const struct json_node *vocab, const char *text, size_t length,
                   struct added_token token, bool normalized, struct error *error) {
  const struct json_node *known = json_get(vocab, text);
  if (known && json_int_or(known, -1) != token.id)
    return error_set(error, ERROR_FORMAT,
                     "the added token '%.*s' has id %d, but the vocabulary gives it %lld", shown(length),
                     text, token.id, (long long)json_int_or(known, -1));
  if (!known && pieces_has(&t->pieces, token.id))
    return error_set(error, ERROR_FORMAT, "the added token '%.*s' has id %d, which another piece has",
                     shown(length), text, token.id);
  if (pieces_set(&t->pieces, token.id, text, length, error) != 0)
    return -1;
  t->pieces.at[token.id].special = token.special;
  return added_tokens_add(&t->added[normalized ? 1 : 0], token, error);
}
