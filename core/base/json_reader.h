/* json_reader.h: reads JSON from memory one value after the other, without building a tree: for files whose
 * tree would be many times their size (tokenizer.json of 30 MB). json.h is the place for everything else.
 *
 * Strict as json.h, except that an object may name a key twice (the caller sees both) and a text may hold
 * U+0000. Every function gives -1 with ERROR_FORMAT and the offset when the text is not what it asks for; the
 * reader must not be used after that. Not thread-safe. */
#ifndef STEERD_CORE_BASE_JSON_READER_H
#define STEERD_CORE_BASE_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "core/base/json.h"

struct json_reader {
  const char *text; /* borrowed; valid UTF-8 is the caller's promise */
  size_t length, at;
  bool fresh;            /* just behind an opening bracket */
  struct buffer scratch; /* of a text with escapes */
};

void json_reader_init(struct json_reader *reader, const char *text, size_t length);
void json_reader_clear(struct json_reader *reader);

/* What the next value is, by its first character; JSON_KIND_NONE when none can begin there. A number is
 * JSON_KIND_REAL, whole or not. */
enum json_kind json_reader_peek(struct json_reader *reader);

/* Steps into an object or an array. */
int json_reader_open(struct json_reader *reader, char bracket, struct error *error) MUST_CHECK;

/* The next member's key: 1, its value is to be read next; 0, the object has ended. The text is valid until the
 * next call of any reading function. */
int json_reader_key(struct json_reader *reader, const char **key, size_t *length, struct error *error) MUST_CHECK;

/* The next element of an array: 1, it is to be read next; 0, the array has ended. */
int json_reader_item(struct json_reader *reader, struct error *error) MUST_CHECK;

/* A string. Validity as above. */
int json_reader_text(struct json_reader *reader, const char **text, size_t *length, struct error *error) MUST_CHECK;

/* An integer without fraction and exponent that fits 64 bits. */
int json_reader_int(struct json_reader *reader, int64_t *value, struct error *error) MUST_CHECK;

/* Steps over one value of at most `depth` nested arrays and objects. */
int json_reader_skip(struct json_reader *reader, int depth, struct error *error) MUST_CHECK;

/* Steps over an array without asking whether it is one of valid JSON: only brackets and ends of strings are sought, in a
 * third of the time. *count: its elements, should it be valid, which whoever reads it afterwards finds out. */
int json_reader_leap(struct json_reader *reader, size_t *count, struct error *error) MUST_CHECK;

/* 0 when only white space is left. */
int json_reader_end(struct json_reader *reader, struct error *error) MUST_CHECK;

#endif
