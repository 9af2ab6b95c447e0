/* tokenizer_llama2c.c: reads the tokenizer.bin of llama2.c: the pieces of a SentencePiece vocabulary and their
 * scores, of which scored_merges.h makes merges. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/mapfile.h"
#include "core/base/utf8.h"
#include "core/model/scored_merges.h"
#include "core/model/tokenizer_bpe.h"

#define FILE_BYTES_MAX ((size_t)16 << 20)

/* SentencePiece's first three: <unk>, then these, which the file writes between line ends. */
enum { ID_UNKNOWN, ID_BOS, ID_EOS, ID_FIRST };

/* ---- the file ----------------------------------------------------------------------------------- */

struct cursor {
  const char *data;
  size_t size, at;
};

static bool take(struct cursor *c, void *out, size_t length) {
  if (c->size - c->at < length)
    return false;
  memcpy(out, c->data + c->at, length);
  c->at += length;
  return true;
}

/* A float32 score, an int32 length, the bytes. */
static int read_piece(struct cursor *c, struct scored_piece *piece, struct error *error) {
  int32_t length = 0;
  size_t begin = c->at, bad;
  if (!take(c, &piece->score, 4) || !take(c, &length, 4) || length < 0 || (size_t)length > c->size - c->at)
    return error_set(error, ERROR_FORMAT, "piece %d at byte %zu does not fit the file of %zu bytes", piece->id,
                     begin, c->size);
  if (length > SCORED_PIECE_BYTES || !isfinite(piece->score))
    return error_set(error, ERROR_FORMAT, "piece %d has %d bytes and score %g; at most %d and a number are allowed",
                     piece->id, length, (double)piece->score, SCORED_PIECE_BYTES);
  piece->text = c->data + c->at;
  piece->length = (size_t)length;
  c->at += piece->length;
  if (!utf8_valid(piece->text, piece->length, &bad))
    return error_set(error, ERROR_FORMAT, "piece %d is not valid UTF-8 at its byte %zu", piece->id, bad);
  return 0;
}

/* Behind the longest piece's length, which nobody needs, the pieces up to the end. Each has at least 8 bytes. */
static struct scored_piece *read_pieces(const char *data, size_t size, int32_t *count, struct error *error) {
  struct cursor c = {data, size, 4};
  size_t room = size / 8 + 1;
  struct scored_piece *pieces = malloc(room * sizeof *pieces);
  *count = 0;
  if (!pieces)
    return error_memory(error, room * sizeof *pieces), NULL;
  for (; c.at < c.size; ++*count) {
    pieces[*count].id = *count;
    pieces[*count].merges = *count >= ID_FIRST;
    if (read_piece(&c, &pieces[*count], error) != 0)
      goto fail;
  }
  if (*count > ID_FIRST)
    return pieces;
  error_set(error, ERROR_FORMAT, "it holds %d pieces, at least %d are needed: this is no tokenizer.bin", *count,
            ID_FIRST + 1);
fail:
  free(pieces);
  return NULL;
}

/* ---- the tokenizer ------------------------------------------------------------------------------ */

static int add_piece(struct tokenizer *t, struct bpe_table *table, const struct scored_piece *piece,
                     struct error *error) {
  static const char *const names[] = {"<unk>", "<s>", "</s>"};
  int byte = decoder_fallback_byte(piece->text, piece->length);
  char raw = (char)byte;
  if (piece->id < ID_FIRST) {
    if (pieces_set(&t->pieces, piece->id, names[piece->id], strlen(names[piece->id]), error) != 0)
      return -1;
    return tokenizer_mark_special(t, piece->id, names[piece->id], strlen(names[piece->id]), error);
  }
  if (bpe_table_add(table, piece->id, piece->text, piece->length, error) != 0)
    return -1;
  return byte < 0 ? pieces_set(&t->pieces, piece->id, piece->text, piece->length, error)
                  : pieces_set(&t->pieces, piece->id, &raw, 1, error);
}

/* A space in front of the text unless it is there already is SentencePiece's habit; llama2.c always adds one. */
static int set_options(struct tokenizer *t, struct error *error) {
  static const char prepend[] = "{\"type\": \"Prepend\", \"prepend\": \" \"}";
  struct json_node *part = json_parse(prepend, sizeof prepend - 1, 4, error);
  int failed = !part || normalizer_parse(part, &t->normalizer, error) != 0;
  json_free(part);
  if (failed)
    return -1;
  bpe_set_options(t->state, (struct bpe_options){.byte_fallback = true, .fuse_unknown = true, .unknown = ID_UNKNOWN});
  t->decoder.start.strip = 1;
  t->bos = ID_BOS;
  t->eos = ID_EOS;
  t->prepends_bos = true;
  return tokenizer_finish(t, error);
}

static int fill(struct tokenizer *t, const struct scored_piece *pieces, int32_t count, struct error *error) {
  t->state = bpe_new(&t->pieces, (size_t)count, 0, error);
  if (!t->state)
    return -1;
  t->kind = &bpe_kind;
  for (int32_t i = 0; i < count; i++)
    if (add_piece(t, bpe_table_of(t->state), &pieces[i], error) != 0)
      return -1;
  if (bpe_table_settle(bpe_table_of(t->state), error) != 0 ||
      scored_merges_add(bpe_table_of(t->state), pieces, count, error) != 0)
    return -1;
  return set_options(t, error);
}

struct tokenizer *tokenizer_parse_llama2c(const char *data, size_t size, struct error *error) {
  int32_t count;
  struct scored_piece *pieces = read_pieces(data, size, &count, error);
  if (!pieces)
    return NULL;
  struct tokenizer *t = tokenizer_new(count, error);
  if (t && fill(t, pieces, count, error) != 0) {
    tokenizer_free(t);
    t = NULL;
  }
  free(pieces);
  return t;
}

struct tokenizer *tokenizer_open_llama2c(const char *path, struct error *error) {
  char *data;
  size_t size;
  if (file_read(path, FILE_BYTES_MAX, &data, &size, error) != 0)
    return NULL;
  struct tokenizer *t = tokenizer_parse_llama2c(data, size, error);
  free(data);
  if (!t)
    error_prefix(error, "'%s'", path);
  return t;
}
