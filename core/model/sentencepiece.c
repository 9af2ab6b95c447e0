/* sentencepiece.c: owns the fields of a SentencePiece model file (ModelProto) that decide about ids and texts; steps over the
 * others. Does not know what becomes of them. */
#include "core/model/sentencepiece.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"
#include "core/model/protobuf.h"

/* Numbers of fields. */
enum { MODEL_PIECE = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3, MODEL_DENORMALIZER = 5 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_KIND = 3 };
enum { TRAINER_MODEL = 3, TRAINER_SUFFIX = 24, TRAINER_BYTES = 35, TRAINER_BOS = 46, TRAINER_EOS = 47 };
enum { NORMALIZER_CHARSMAP = 2, NORMALIZER_PREFIX = 3, NORMALIZER_SQUEEZE = 4, NORMALIZER_ESCAPE = 5 };

/* Where the fields of one message go; returns 0, or -1 with an error. */
typedef int take_field(struct sentencepiece *m, const struct protobuf_field *field, struct error *error);

static int each_field(struct sentencepiece *m, const char *data, size_t length, take_field *take, struct error *error) {
  struct protobuf message = {data, length, 0};
  struct protobuf_field field;
  int more;
  while ((more = protobuf_next(&message, &field, error)) > 0)
    if (take(m, &field, error) != 0)
      return -1;
  return more;
}

/* ---- pieces ------------------------------------------------------------------------------------- */

/* Room for the next piece, which is all zero: normal, without text and score. */
static int pieces_grow(struct sentencepiece *m, size_t *capacity, struct error *error) {
  if ((size_t)m->count < *capacity)
    return 0;
  size_t wanted = size_max(4096, *capacity * 2);
  struct scored_piece *pieces = realloc(m->pieces, wanted * sizeof *pieces);
  if (pieces)
    m->pieces = pieces;
  unsigned char *kinds = realloc(m->kinds, wanted);
  if (kinds)
    m->kinds = kinds;
  if (!pieces || !kinds)
    return error_memory(error, wanted * sizeof *pieces);
  *capacity = wanted;
  return 0;
}

static int check_piece(const struct scored_piece *piece, unsigned kind, struct error *error) {
  size_t bad;
  if (piece->length == 0)
    return error_set(error, ERROR_FORMAT, "piece %d is empty", piece->id);
  if (!utf8_valid(piece->text, piece->length, &bad))
    return error_set(error, ERROR_FORMAT, "piece %d is not valid UTF-8 at its byte %zu", piece->id, bad);
  if (!isfinite(piece->score))
    return error_set(error, ERROR_FORMAT, "piece %d has score %g, which is no number", piece->id, (double)piece->score);
  if (kind < SENTENCEPIECE_NORMAL || kind > SENTENCEPIECE_BYTE)
    return error_set(error, ERROR_FORMAT, "piece %d is of kind %u, known are %d to %d", piece->id, kind,
                     SENTENCEPIECE_NORMAL, SENTENCEPIECE_BYTE);
  return 0;
}

static int read_piece(struct sentencepiece *m, const char *data, size_t length, struct error *error) {
  struct protobuf message = {data, length, 0};
  struct protobuf_field field;
  struct scored_piece *piece = &m->pieces[m->count];
  uint64_t kind = SENTENCEPIECE_NORMAL;
  int more;
  *piece = (struct scored_piece){.id = m->count};
  while ((more = protobuf_next(&message, &field, error)) > 0) {
    if (field.number == PIECE_TEXT && field.kind == PROTOBUF_BYTES) {
      piece->text = field.bytes;
      piece->length = field.length;
    } else if (field.number == PIECE_SCORE && field.kind == PROTOBUF_FIXED32) {
      piece->score = protobuf_float(&field);
    } else if (field.number == PIECE_KIND && field.kind == PROTOBUF_VARINT) {
      kind = field.value;
    }
  }
  if (more < 0)
    return error_prefix(error, "piece %d", m->count);
  if (check_piece(piece, kind > UINT8_MAX ? UINT8_MAX : (unsigned)kind, error) != 0)
    return -1;
  m->kinds[m->count++] = (unsigned char)kind;
  return 0;
}

/* ---- what it says of itself --------------------------------------------------------------------- */

static int take_trainer(struct sentencepiece *m, const struct protobuf_field *field, struct error *error) {
  bool number = field->kind == PROTOBUF_VARINT, text = field->kind == PROTOBUF_BYTES;
  struct sentencepiece_text bytes = {field->bytes, field->length};
  (void)error;
  switch (field->number) {
    case TRAINER_MODEL: if (number) m->model = field->value > INT32_MAX ? 0 : (enum sentencepiece_model)field->value; break;
    case TRAINER_SUFFIX: if (number) m->suffix = field->value != 0; break;
    case TRAINER_BYTES: if (number) m->byte_fallback = field->value != 0; break;
    case TRAINER_BOS: if (text) m->bos = bytes; break;
    case TRAINER_EOS: if (text) m->eos = bytes; break;
    default: break;
  }
  return 0;
}

static int take_normalizer(struct sentencepiece *m, const struct protobuf_field *field, struct error *error) {
  bool number = field->kind == PROTOBUF_VARINT, on = field->value != 0;
  (void)error;
  switch (field->number) {
    case NORMALIZER_CHARSMAP:
      if (field->kind == PROTOBUF_BYTES) m->charsmap = (struct sentencepiece_text){field->bytes, field->length};
      break;
    case NORMALIZER_PREFIX: if (number) m->prefix = on; break;
    case NORMALIZER_SQUEEZE: if (number) m->squeeze = on; break;
    case NORMALIZER_ESCAPE: if (number) m->escape = on; break;
    default: break;
  }
  return 0;
}

static int take_denormalizer(struct sentencepiece *m, const struct protobuf_field *field, struct error *error) {
  (void)error;
  if (field->number == NORMALIZER_CHARSMAP && field->kind == PROTOBUF_BYTES)
    m->charsmap_back = (struct sentencepiece_text){field->bytes, field->length};
  return 0;
}

static int take_part(struct sentencepiece *m, const struct protobuf_field *field, struct error *error) {
  take_field *take = field->number == MODEL_TRAINER        ? take_trainer
                     : field->number == MODEL_NORMALIZER   ? take_normalizer
                     : field->number == MODEL_DENORMALIZER ? take_denormalizer
                                                           : NULL;
  return take && field->kind == PROTOBUF_BYTES ? each_field(m, field->bytes, field->length, take, error) : 0;
}

/* ---- the whole ---------------------------------------------------------------------------------- */

static int find_unknown(struct sentencepiece *m, struct error *error) {
  int found = 0;
  for (int32_t i = 0; i < m->count; i++)
    if (m->kinds[i] == SENTENCEPIECE_UNKNOWN) {
      m->unknown = i;
      found++;
    }
  return found == 1 ? 0 : error_set(error, ERROR_FORMAT, "%d of its %d pieces are the unknown one, not 1", found, m->count);
}

static int read_model(struct sentencepiece *m, const char *data, size_t size, struct error *error) {
  struct protobuf message = {data, size, 0};
  struct protobuf_field field;
  size_t capacity = 0;
  int more;
  while ((more = protobuf_next(&message, &field, error)) > 0) {
    bool piece = field.number == MODEL_PIECE && field.kind == PROTOBUF_BYTES;
    if (piece && m->count == INT32_MAX)
      return error_set(error, ERROR_LIMIT, "more than %d pieces", INT32_MAX);
    if (piece ? pieces_grow(m, &capacity, error) != 0 || read_piece(m, field.bytes, field.length, error) != 0
              : take_part(m, &field, error) != 0)
      return -1;
  }
  return more < 0 ? -1 : find_unknown(m, error);
}

/* What stands where a file is silent: the format's defaults. */
int sentencepiece_read(const char *data, size_t size, struct sentencepiece *out, struct error *error) {
  *out = (struct sentencepiece){.model = SENTENCEPIECE_UNIGRAM, .bos = {"<s>", 3}, .eos = {"</s>", 4}, .prefix = true,
                                .squeeze = true, .escape = true};
  if (read_model(out, data, size, error) == 0)
    return 0;
  sentencepiece_clear(out);
  return -1;
}

void sentencepiece_clear(struct sentencepiece *m) {
  free(m->pieces);
  free(m->kinds);
  memset(m, 0, sizeof *m);
}

int32_t sentencepiece_control(const struct sentencepiece *m, struct sentencepiece_text name) {
  for (int32_t i = 0; i < m->count; i++)
    if (m->kinds[i] == SENTENCEPIECE_CONTROL && m->pieces[i].length == name.length &&
        memcmp(m->pieces[i].text, name.text, name.length) == 0)
      return i;
  return -1;
}
