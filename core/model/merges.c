/* merges.c: reads merges, half a million of them in the largest files. They are taken BPE_JOINS at a time, so that their
 * look-ups wait for memory together; a batch in which anything is wrong is read once more one by one, which finds out
 * what. Does not know how merges are kept. */
#include "core/model/merges.h"

#include <string.h>

#include "core/model/bpe_table.h"

/* ---- one by one --------------------------------------------------------------------------------- */

/* ["LEFT", "RIGHT"]: the left text is copied, since reading the right one may overwrite it. */
static int read_pair(struct tokenizer *t, struct json_reader *r, bool byte_level, uint32_t rank,
                     struct error *error) {
  char left[BPE_PIECE_BYTES];
  const char *text;
  size_t left_length, length;
  if (json_reader_open(r, '[', error) != 0)
    return -1;
  if (json_reader_item(r, NULL) <= 0 || json_reader_text(r, &text, &left_length, NULL) != 0)
    goto refuse;
  if (left_length > sizeof left)
    return error_set(error, ERROR_LIMIT, "merge %u names a piece of %zu bytes, at most %d are supported", rank,
                     left_length, BPE_PIECE_BYTES);
  memcpy(left, text, left_length);
  if (json_reader_item(r, NULL) <= 0 || json_reader_text(r, &text, &length, NULL) != 0)
    goto refuse;
  if (vocabulary_merge(t, left, left_length, text, length, byte_level, rank, error) != 0)
    return -1;
  if (json_reader_item(r, NULL) == 0)
    return 0;
refuse:
  return error_set(error, ERROR_FORMAT, "merge %u is an array, but not [\"a\", \"b\"]", rank);
}

static int read_merge(struct tokenizer *t, struct json_reader *r, bool byte_level, uint32_t rank,
                      struct error *error) {
  const char *text;
  size_t length;
  enum json_kind kind = json_reader_peek(r);
  if (kind == JSON_KIND_ARRAY)
    return read_pair(t, r, byte_level, rank, error);
  if (kind != JSON_KIND_STRING)
    return error_set(error, ERROR_FORMAT, "merge %u is %s, not \"a b\" or [\"a\", \"b\"]", rank,
                     json_kind_word(kind));
  if (json_reader_text(r, &text, &length, error) != 0)
    return -1;
  return vocabulary_merge_text(t, text, length, byte_level, rank, error);
}

/* ---- many at once ------------------------------------------------------------------------------- */

struct batch {
  struct buffer text; /* of all joins: what merging sees */
  struct bpe_join joins[BPE_JOINS];
  size_t begins[BPE_JOINS]; /* of joins in `text`, which moves while it grows */
  size_t count;
};

/* One side of the next join. False: it is nothing that merging knows. */
static bool batch_side(struct batch *batch, const char *text, size_t length, bool byte_level) {
  char bytes[BPE_PIECE_BYTES];
  if (length == 0 || length > sizeof bytes || !vocabulary_merging_text(byte_level, &text, &length, bytes)) return false;
  buffer_append(&batch->text, text, length);
  return true;
}

/* "A B" or ["A", "B"]; false when it is anything else. */
static bool batch_sides(struct batch *batch, struct json_reader *r, bool byte_level, size_t *left_end) {
  const char *text;
  size_t length;
  if (json_reader_peek(r) == JSON_KIND_ARRAY) {
    if (json_reader_open(r, '[', NULL) != 0 || json_reader_item(r, NULL) <= 0 ||
        json_reader_text(r, &text, &length, NULL) != 0 || !batch_side(batch, text, length, byte_level))
      return false;
    *left_end = batch->text.length;
    return json_reader_item(r, NULL) > 0 && json_reader_text(r, &text, &length, NULL) == 0 &&
           batch_side(batch, text, length, byte_level) && json_reader_item(r, NULL) == 0;
  }
  if (json_reader_text(r, &text, &length, NULL) != 0) return false;
  const char *space = memchr(text, ' ', length);
  size_t left = space ? (size_t)(space - text) : length;
  if (!space || memchr(space + 1, ' ', length - left - 1) || !batch_side(batch, text, left, byte_level)) return false;
  *left_end = batch->text.length;
  return batch_side(batch, space + 1, length - left - 1, byte_level);
}

/* Takes merges while there is room: 1 when there is another one behind them, 0 at the end, -1 when one is odd. */
static int batch_fill(struct batch *batch, struct json_reader *r, bool byte_level) {
  int more = 1;
  batch->count = batch->text.length = 0;
  while (more > 0 && batch->count < BPE_JOINS) {
    size_t begin = batch->text.length, left_end = begin;
    if (!batch_sides(batch, r, byte_level, &left_end) || buffer_check(&batch->text, NULL) != 0) return -1;
    batch->begins[batch->count] = begin;
    batch->joins[batch->count++] = (struct bpe_join){NULL, left_end - begin, batch->text.length - begin};
    more = json_reader_item(r, NULL);
  }
  for (size_t i = 0; i < batch->count; i++) batch->joins[i].text = batch->text.data + batch->begins[i];
  return more;
}

/* The next merges, of which there is at least one: as batch_fill, with an error. */
static int read_some(struct tokenizer *t, struct json_reader *r, struct batch *batch, bool byte_level, uint32_t *rank,
                     struct error *error) {
  size_t begin = r->at;
  int more = batch_fill(batch, r, byte_level);
  if (more >= 0 && bpe_table_merge_all(bpe_table_of(t->state), batch->joins, batch->count, *rank)) {
    *rank += (uint32_t)batch->count;
    return more;
  }
  r->at = begin;
  r->fresh = false;
  more = 1;
  for (int i = 0; i < BPE_JOINS && more > 0; i++)
    more = read_merge(t, r, byte_level, (*rank)++, error) == 0 ? json_reader_item(r, error) : -1;
  return more;
}

int merges_read(struct tokenizer *t, const char *text, size_t begin, size_t end, bool byte_level,
                struct error *error) {
  struct json_reader r;
  struct batch batch;
  uint32_t rank = 0;
  buffer_init(&batch.text, 0);
  json_reader_init(&r, text, end);
  r.at = begin;
  int more = json_reader_open(&r, '[', error) == 0 ? json_reader_item(&r, error) : -1;
  while (more > 0) more = read_some(t, &r, &batch, byte_level, &rank, error);
  if (more == 0) more = json_reader_end(&r, error);
  json_reader_clear(&r);
  buffer_clear(&batch.text);
  return more;
}
