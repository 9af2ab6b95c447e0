/* decoder.c: owns the writing systems of pieces: the byte-level alphabet, <0xHH>, characters that stand for a
 * space. */
#include "core/model/decoder.h"

#include <string.h>

#include "core/base/utf8.h"

/* ---- pieces ---- */

/* GPT-2 writes bytes that print as the character of the same number and the 68 others, in order, as U+0100
 * and up. */
static int byte_of_point(uint32_t p) {
  if ((p >= 33 && p <= 126) || (p >= 161 && p <= 172) || (p >= 174 && p <= 255)) return (int)p;
  if (p >= 256 && p <= 288) return (int)p - 256; /* bytes 0..32 */
  if (p >= 289 && p <= 322) return (int)p - 289 + 127; /* bytes 127..160 */
  return p == 323 ? 173 : -1;
}

int decoder_bytes(const char *text, size_t length, char *out, size_t *out_length) {
  uint32_t point = 0;
  size_t count = 0;
  for (size_t i = 0; i < length;) {
    int n = utf8_next(text + i, length - i, &point);
    int byte = n > 0 ? byte_of_point(point) : -1;
    if (byte < 0) return -1;
    out[count++] = (char)byte;
    i += (size_t)n;
  }
  *out_length = count;
  return 0;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int decoder_fallback_byte(const char *text, size_t length) {
  if (length != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
  int high = hex_digit(text[3]), low = hex_digit(text[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* The first rule whose text stands at text[0..length). No rule's text holds another's result. */
static const struct decoder_replace *replace_at(const struct decoder *d, const char *text, size_t length) {
  for (int i = 0; i < d->n_replaces; i++) {
    const struct decoder_replace *rule = &d->replaces[i];
    if (length >= rule->from_length && memcmp(text, rule->from, rule->from_length) == 0) return rule;
  }
  return NULL;
}

static void put_replaced(const struct decoder *d, const char *text, size_t length, struct buffer *out) {
  for (size_t i = 0; i < length;) {
    const struct decoder_replace *rule = replace_at(d, text + i, length - i);
    if (rule)
      buffer_append(out, rule->to, rule->to_length);
    else
      buffer_char(out, text[i]);
    i += rule ? rule->from_length : 1;
  }
}

void decoder_piece(const struct decoder *d, const char *text, size_t length, struct buffer *out) {
  int byte = d->byte_fallback ? decoder_fallback_byte(text, length) : -1;
  if (byte >= 0)
    buffer_char(out, (char)byte);
  else
    put_replaced(d, text, length, out);
}

/* ---- reading ---- */

static const char *type_of(const struct json_node *part) {
  const char *type = json_text(json_get(part, "type"), NULL);
  return type ? type : json_kind_word(json_kind(part));
}

static int add_replace(struct decoder *d, const char *from, size_t from_length, const char *to, size_t to_length,
                       struct error *error) {
  struct decoder_replace *rule = &d->replaces[d->n_replaces];
  if (d->n_replaces == DECODER_REPLACES || from_length == 0 || from_length > sizeof rule->from ||
      to_length > sizeof rule->to)
    return error_set(error, ERROR_UNSUPPORTED, "this Replace of the decoder is not supported: %d of up to %zu bytes are",
                     DECODER_REPLACES, sizeof rule->from);
  memcpy(rule->from, from, from_length);
  memcpy(rule->to, to, to_length);
  rule->from_length = from_length;
  rule->to_length = to_length;
  d->n_replaces++;
  return 0;
}

static int read_replace(struct decoder *d, const struct json_node *part, struct error *error) {
  size_t from_length, to_length;
  const char *from = json_text(json_get(json_get(part, "pattern"), "String"), &from_length);
  const char *to = json_text(json_get(part, "content"), &to_length);
  if (!from || !to)
    return error_set(error, ERROR_UNSUPPORTED, "a Replace of the decoder by something else than Strings is not supported");
  for (int i = 0; i < d->n_replaces; i++) /* one pass over a piece must give what one pass a rule would */
    if (memmem(from, from_length, d->replaces[i].to, d->replaces[i].to_length))
      return error_set(error, ERROR_UNSUPPORTED, "a Replace of the decoder that changes another's result is not supported");
  return add_replace(d, from, from_length, to, to_length, error);
}

static int read_metaspace(struct decoder *d, const struct json_node *part, struct error *error) {
  size_t length;
  const char *space = json_text(json_get(part, "replacement"), &length);
  bool prefix = json_bool_or(json_get(part, "add_prefix_space"), true);
  const char *scheme = json_text_or(json_get(part, "prepend_scheme"), prefix ? "always" : "never");
  if (!space) return error_set(error, ERROR_FORMAT, "the replacement of a Metaspace is not one character");
  d->start.drop_first = strcmp(scheme, "never") != 0;
  return add_replace(d, space, length, " ", 1, error);
}

/* Of a text as a whole, so it stands behind Fuse. */
static int read_strip(struct decoder *d, const struct json_node *part, struct error *error) {
  const char *content = json_text_or(json_get(part, "content"), "?");
  int64_t start = json_int_or(json_get(part, "start"), -1), stop = json_int_or(json_get(part, "stop"), -1);
  if (strcmp(content, " ") != 0 || start < 0 || start > 16 || stop != 0)
    return error_set(error, ERROR_UNSUPPORTED,
                     "a Strip of '%.16s' (%lld, %lld) in the decoder is not supported; supported: spaces at the start",
                     content, (long long)start, (long long)stop);
  d->start.strip = (int)start;
  return 0;
}

/* *fused: the parts behind it see the text as a whole. */
static int read_part(struct decoder *d, const struct json_node *part, bool *fused, struct error *error) {
  const char *type = type_of(part);
  if (strcmp(type, "Fuse") == 0) return *fused = true, 0;
  if (strcmp(type, "Strip") == 0 && *fused) return read_strip(d, part, error);
  if (strcmp(type, "ByteFallback") == 0 && !*fused) return d->byte_fallback = true, 0;
  if (strcmp(type, "Replace") == 0 && !*fused && !d->byte_fallback) return read_replace(d, part, error);
  if (strcmp(type, "Metaspace") == 0 && !*fused && !d->byte_fallback) return read_metaspace(d, part, error);
  return error_set(error, ERROR_UNSUPPORTED,
                   "the decoder '%.32s' is not supported here; supported: ByteLevel, Metaspace, or a Sequence of "
                   "Replace, ByteFallback, Fuse, Strip",
                   type);
}

static int read_sequence(struct decoder *d, const struct json_node *parts, struct error *error) {
  bool fused = false;
  if (d->byte_level && json_count(parts) == 1 && strcmp(type_of(json_at(parts, 0)), "ByteLevel") == 0) return 0;
  for (size_t i = 0; i < json_count(parts); i++)
    if (read_part(d, json_at(parts, i), &fused, error) != 0) return -1;
  return 0;
}

int decoder_parse(const struct json_node *part, bool byte_level, struct decoder *d, struct error *error) {
  bool fused = false;
  memset(d, 0, sizeof *d);
  d->byte_level = byte_level;
  if (json_kind(part) == JSON_KIND_NONE || json_kind(part) == JSON_KIND_NULL) return 0;
  if (byte_level && strcmp(type_of(part), "ByteLevel") == 0) return 0;
  int failed = strcmp(type_of(part), "Sequence") == 0 ? read_sequence(d, json_get(part, "decoders"), error)
                                                      : read_part(d, part, &fused, error);
  if (!failed && byte_level && (d->n_replaces || d->byte_fallback || fused))
    return error_set(error, ERROR_UNSUPPORTED, "the decoder '%.32s' of byte-level pieces is not supported", type_of(part));
  return failed;
}
