/* tokenizer_vocabulary.c: owns the checks that make ids, pieces and merges one consistent vocabulary; does
 * not know which file they came from. */
#include "core/model/tokenizer_vocabulary.h"

#include <string.h>

/* Ids may have gaps (padding of the embedding, removed tokens), but a table must not be mostly gaps. */
#define ID_LIMIT(count) (4 * (int64_t)(count) + 1024)

/* How much of a piece a message shows, in bytes. */
#define SHOWN 64
static int shown(size_t length) { return length > SHOWN ? SHOWN : (int)length; }

/* ---- how many ids ------------------------------------------------------------------------------- */

static int refuse_id(int64_t id, const char *piece, size_t length, int64_t limit, struct error *error) {
  return error_set(error, ERROR_FORMAT,
                   "the id %lld of piece '%.*s' is outside 0 to %lld, the most this many pieces allow",
                   (long long)id, shown(length), piece, (long long)limit - 1);
}

static int scan_id(struct json_reader *r, const char *piece, size_t length, int64_t *id, struct error *error) {
  enum json_kind kind = json_reader_peek(r);
  if (kind != JSON_KIND_REAL && kind != JSON_KIND_NONE)
    return error_set(error, ERROR_FORMAT, "the id of piece '%.*s' is %s, not an integer", shown(length), piece,
                     json_kind_word(kind));
  if (json_reader_int(r, id, error) != 0)
    return -1;
  return *id >= 0 && *id < INT32_MAX ? 0 : refuse_id(*id, piece, length, INT32_MAX, error);
}

int vocabulary_scan(struct json_reader *r, struct vocabulary *v, struct error *error) {
  const char *piece;
  size_t length;
  int64_t id;
  int more;
  (void)json_reader_peek(r); /* stands on the bracket now */
  *v = (struct vocabulary){.text = r->text + r->at, .most = -1};
  if (json_reader_open(r, '{', error) != 0)
    return -1;
  while ((more = json_reader_key(r, &piece, &length, error)) > 0) {
    if (scan_id(r, piece, length, &id, error) != 0)
      return -1;
    v->most = id > v->most ? id : v->most;
    v->count++;
  }
  v->length = (size_t)(r->text + r->at - v->text);
  return more;
}

static int measure_added(const struct json_node *token, int64_t limit, int64_t *most, struct error *error) {
  const struct json_node *id = json_get(token, "id");
  const char *text = json_text_or(json_get(token, "content"), "");
  if (json_kind(id) != JSON_KIND_INT)
    return error_set(error, ERROR_FORMAT, "the id of piece '%.*s' is %s, not an integer", SHOWN, text,
                     json_kind_word(json_kind(id)));
  int64_t value = json_int_or(id, -1);
  if (value < 0 || value >= limit || value >= INT32_MAX)
    return refuse_id(value, text, strlen(text), limit, error);
  if (value > *most)
    *most = value;
  return 0;
}

/* How many ids there are: the largest one and 1. */
static int measure(const struct vocabulary *v, const struct json_node *added, const struct added_list *listed, int32_t *size,
                   struct error *error) {
  size_t count = v->count + json_count(added) + (listed ? listed->count : 0);
  int64_t limit = ID_LIMIT(count), most = listed && added_list_last(listed) > v->most ? added_list_last(listed) : v->most;
  if (most >= limit)
    return error_set(error, ERROR_FORMAT, "the id %lld is outside 0 to %lld, the most %zu pieces allow",
                     (long long)most, (long long)limit - 1, count);
  for (size_t i = 0; i < json_count(added); i++)
    if (measure_added(json_at(added, i), limit, &most, error) != 0)
      return -1;
  if (most < 0)
    return error_set(error, ERROR_FORMAT, "the vocabulary is empty");
  *size = (int32_t)most + 1;
  return 0;
}

struct tokenizer *vocabulary_open(const struct vocabulary *v, const struct json_node *added,
                                  const struct added_list *listed, size_t merge_count, struct error *error) {
  int32_t size = 0;
  if (measure(v, added, listed, &size, error) != 0)
    return NULL;
  struct tokenizer *t = tokenizer_new(size, error);
  if (!t)
    return NULL;
  t->kind = &bpe_kind;
  t->state = bpe_new(&t->pieces, v->count, merge_count, error);
  if (t->state)
    return t;
  tokenizer_free(t);
  return NULL;
}

struct bpe *vocabulary_bpe(const struct tokenizer *t) {
  return t->state;
}

/* ---- pieces ------------------------------------------------------------------------------------- */

bool vocabulary_merging_text(bool byte_level, const char **text, size_t *length, char *room) {
  if (!byte_level)
    return true;
  if (decoder_bytes(*text, *length, room, length) != 0)
    return false;
  *text = room;
  return true;
}

/* What the token shows. */
static int set_piece(struct tokenizer *t, int32_t id, const char *text, size_t length,
                     const struct decoder *decoder, struct buffer *scratch, struct error *error) {
  if (decoder->byte_level || (!decoder->byte_fallback && decoder->n_replaces == 0))
    return pieces_set(&t->pieces, id, text, length, error);
  scratch->length = 0;
  decoder_piece(decoder, text, length, scratch);
  if (buffer_check(scratch, error) != 0)
    return -1;
  return pieces_set(&t->pieces, id, scratch->data ? scratch->data : "", scratch->length, error);
}

static int read_piece(struct tokenizer *t, const char *text, size_t length, int32_t id,
                      const struct decoder *decoder, struct buffer *scratch, struct error *error) {
  char bytes[BPE_PIECE_BYTES];
  if (pieces_has(&t->pieces, id))
    return error_set(error, ERROR_FORMAT, "the id %d stands twice, the second time for piece '%.*s'", id,
                     shown(length), text);
  if (length > sizeof bytes)
    return error_set(error, ERROR_LIMIT, "the piece with id %d has %zu bytes, at most %zu are supported", id,
                     length, sizeof bytes);
  bool mergeable = vocabulary_merging_text(decoder->byte_level, &text, &length, bytes);
  if (set_piece(t, id, text, length, decoder, scratch, error) != 0)
    return -1;
  return mergeable ? bpe_table_add(bpe_table_of(t->state), id, text, length, error) : 0;
}

int vocabulary_read(struct tokenizer *t, const struct vocabulary *v, const struct decoder *decoder,
                    struct error *error) {
  struct json_reader r;
  struct buffer scratch;
  const char *piece;
  size_t length;
  int64_t id = 0;
  buffer_init(&scratch, 0);
  json_reader_init(&r, v->text, v->length);
  int more = json_reader_open(&r, '{', error);
  if (more == 0)
    more = json_reader_key(&r, &piece, &length, error);
  while (more > 0) {
    if (json_reader_int(&r, &id, error) != 0 ||
        read_piece(t, piece, length, (int32_t)id, decoder, &scratch, error) != 0)
      more = -1;
    else
      more = json_reader_key(&r, &piece, &length, error);
  }
  buffer_clear(&scratch);
  json_reader_clear(&r);
  return more == 0 ? bpe_table_settle(bpe_table_of(t->state), error) : more;
}

int32_t vocabulary_find(const struct tokenizer *t, const char *text, size_t length, bool byte_level) {
  char bytes[BPE_PIECE_BYTES];
  if (length == 0 || length > sizeof bytes || !vocabulary_merging_text(byte_level, &text, &length, bytes))
    return -1;
  return bpe_table_find(bpe_table_of(t->state), text, length);
}

/* ---- merges ------------------------------------------------------------------------------------- */

/* The text of one side of a merge. */
static int merge_side(const char **text, size_t *length, bool byte_level, char bytes[BPE_PIECE_BYTES],
                      struct error *error) {
  if (*length > BPE_PIECE_BYTES)
    return error_set(error, ERROR_LIMIT, "a merge names a piece of %zu bytes, at most %d are supported",
                     *length, BPE_PIECE_BYTES);
  if (*length == 0 || !vocabulary_merging_text(byte_level, text, length, bytes))
    return error_set(error, ERROR_FORMAT, "a merge names '%.*s', which is not of the byte-level alphabet",
                     shown(*length), *text);
  return 0;
}

int vocabulary_merge(struct tokenizer *t, const char *left, size_t left_length, const char *right,
                     size_t right_length, bool byte_level, uint32_t rank, struct error *error) {
  char a[BPE_PIECE_BYTES], b[BPE_PIECE_BYTES];
  const char *from = left, *with = right;
  size_t from_length = left_length, with_length = right_length;
  struct error inner = ERROR_INIT;
  if (merge_side(&from, &from_length, byte_level, a, error) != 0)
    return -1;
  if (merge_side(&with, &with_length, byte_level, b, error) != 0)
    return -1;
  if (bpe_table_merge(bpe_table_of(t->state), from, from_length, with, with_length, rank, &inner) == 0)
    return 0;
  return error_set(error, inner.code, "the merge '%.*s %.*s': %s", shown(left_length), left,
                   shown(right_length), right, inner.text);
}

int vocabulary_merge_text(struct tokenizer *t, const char *text, size_t length, bool byte_level, uint32_t rank,
                          struct error *error) {
  const char *space = memchr(text, ' ', length);
  size_t left = space ? (size_t)(space - text) : length;
  if (!space || memchr(space + 1, ' ', length - left - 1))
    return error_set(error, ERROR_FORMAT, "the merge '%.*s' is not two pieces with one space between them",
                     shown(length), text);
  return vocabulary_merge(t, text, left, space + 1, length - left - 1, byte_level, rank, error);
}

/* ---- added tokens ------------------------------------------------------------------------------- */

/* Whether the vocabulary's piece of this id is this text. */
static bool is_piece(const struct tokenizer *t, int32_t id, const char *text, size_t length, bool byte_level) {
  char bytes[BPE_PIECE_BYTES];
  size_t have;
  const char *merging = text, *known = pieces_get(&bpe_table_of(t->state)->texts, id, &have);
  size_t merging_length = length;
  if (length <= sizeof bytes && vocabulary_merging_text(byte_level, &merging, &merging_length, bytes) && have > 0)
    return have == merging_length && memcmp(known, merging, have) == 0;
  known = pieces_get(&t->pieces, id, &have); /* not of the alphabet: it is shown as it is written */
  return have == length && memcmp(known, text, length) == 0;
}

int vocabulary_add(struct tokenizer *t, const char *text, size_t length, struct added_token token,
                   bool normalized, const struct decoder *decoder, struct error *error) {
  int32_t known = vocabulary_find(t, text, length, decoder->byte_level);
  struct buffer scratch;
  if (known >= 0 && known != token.id)
    return error_set(error, ERROR_FORMAT,
                     "the added token '%.*s' has id %d, but the vocabulary gives it %d", shown(length), text,
                     token.id, known);
  if (pieces_has(&t->pieces, token.id) && !is_piece(t, token.id, text, length, decoder->byte_level))
    return error_set(error, ERROR_FORMAT, "the added token '%.*s' has id %d, which another piece has",
                     shown(length), text, token.id);
  buffer_init(&scratch, 0);
  int result = set_piece(t, token.id, text, length, decoder, &scratch, error);
  buffer_clear(&scratch);
  if (result != 0)
    return -1;
  t->pieces.at[token.id].special = token.special;
  return added_tokens_add(&t->added[normalized ? 1 : 0], token, text, length, error);
}

int vocabulary_add_list(struct tokenizer *t, struct added_list *list, const struct decoder *decoder, struct error *error) {
  for (size_t i = 0; i < list->count; i++) /* those that are named only */
    if (list->at[i].token.id < 0)
      list->at[i].token.id = vocabulary_find(t, list->at[i].text, list->at[i].length, decoder->byte_level);
  if (added_list_settle(list, error) != 0)
    return -1;
  for (size_t i = 0; i < list->count; i++)
    if (vocabulary_add(t, list->at[i].text, list->at[i].length, list->at[i].token, false, decoder, error) != 0)
      return -1;
  return 0;
}
