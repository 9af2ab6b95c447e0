/* protobuf.h: the wire format of protocol buffers: one field after the other of a message that lies in memory.
 * Numbers of fields and what they mean are the caller's. */
#ifndef STEERD_CORE_MODEL_PROTOBUF_H
#define STEERD_CORE_MODEL_PROTOBUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* How a value is stored; the numbers are the format's. */
enum protobuf_kind { PROTOBUF_VARINT = 0, PROTOBUF_FIXED64 = 1, PROTOBUF_BYTES = 2, PROTOBUF_FIXED32 = 5 };

/* What is left of a message: set data and length, offset to 0. */
struct protobuf {
  const char *data; /* borrowed */
  size_t length, at;
};

struct protobuf_field {
  uint32_t number; /* 1 .. 2^29 - 1 */
  enum protobuf_kind kind;
  uint64_t value;    /* of a varint or a fixed one, its bits */
  const char *bytes; /* PROTOBUF_BYTES: a text or a message within the message; borrowed */
  size_t length;
};

/* The next field: 1, or 0 at the end of the message. -1 with ERROR_FORMAT: cut short, or of a kind that is none. */
int protobuf_next(struct protobuf *message, struct protobuf_field *field, struct error *error) MUST_CHECK;

/* The float of a PROTOBUF_FIXED32. */
float protobuf_float(const struct protobuf_field *field);

#endif
