/* protobuf.c: owns the encoding of numbers and lengths; knows no message. */
#include "core/model/protobuf.h"

#include <string.h>

#define NUMBER_MAX ((1u << 29) - 1)

/* Seven bits a byte, the lowest first, and a bit that says whether more follow: at most ten bytes. */
static bool take_varint(struct protobuf *m, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && m->at < m->length; shift += 7) {
    uint64_t byte = (unsigned char)m->data[m->at++];
    if (shift == 63 && byte > 1)
      return false;
    *value |= (byte & 0x7F) << shift;
    if (byte < 0x80)
      return true;
  }
  return false;
}

/* Little-endian, whatever this machine is. */
static bool take_fixed(struct protobuf *m, size_t bytes, uint64_t *value) {
  *value = 0;
  if (m->length - m->at < bytes)
    return false;
  for (size_t i = 0; i < bytes; i++)
    *value |= (uint64_t)(unsigned char)m->data[m->at + i] << 8 * i;
  m->at += bytes;
  return true;
}

static bool take_bytes(struct protobuf *m, struct protobuf_field *field) {
  uint64_t length;
  if (!take_varint(m, &length) || length > m->length - m->at)
    return false;
  field->bytes = m->data + m->at;
  field->length = (size_t)length;
  m->at += field->length;
  return true;
}

static bool take_value(struct protobuf *m, struct protobuf_field *field) {
  switch (field->kind) {
    case PROTOBUF_VARINT: return take_varint(m, &field->value);
    case PROTOBUF_FIXED64: return take_fixed(m, 8, &field->value);
    case PROTOBUF_FIXED32: return take_fixed(m, 4, &field->value);
    case PROTOBUF_BYTES: return take_bytes(m, field);
    default: return false; /* groups, which nothing of today writes, and what is no kind */
  }
}

int protobuf_next(struct protobuf *m, struct protobuf_field *field, struct error *error) {
  size_t begin = m->at;
  uint64_t tag = 0;
  memset(field, 0, sizeof *field);
  if (begin == m->length)
    return 0;
  bool whole = take_varint(m, &tag) && tag >> 3 > 0 && tag >> 3 <= NUMBER_MAX;
  field->number = (uint32_t)(tag >> 3);
  field->kind = (enum protobuf_kind)(tag & 7);
  if (whole && take_value(m, field))
    return 1;
  return error_set(error, ERROR_FORMAT, "no field of a protocol buffer at byte %zu of %zu", begin, m->length);
}

float protobuf_float(const struct protobuf_field *field) {
  uint32_t bits = (uint32_t)field->value;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
