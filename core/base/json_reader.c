/* json_reader.c: owns the grammar of JSON for the files that are too large for a tree; does not know what
 * they hold. */
#include "core/base/json_reader.h"

#include <string.h>

#include "core/base/utf8.h"

void json_reader_init(struct json_reader *r, const char *text, size_t length) {
  memset(r, 0, sizeof *r);
  r->text = text;
  r->length = length;
  buffer_init(&r->scratch, 0);
}

void json_reader_clear(struct json_reader *r) { buffer_clear(&r->scratch); }

static int unexpected(const struct json_reader *r, const char *wanted, struct error *error) {
  if (r->at >= r->length) return error_set(error, ERROR_FORMAT, "invalid JSON: it ends where %s is expected", wanted);
  return error_set(error, ERROR_FORMAT, "invalid JSON at byte %zu: %s is expected", r->at, wanted);
}

/* The next character that is no white space, '\0' at the end (no value begins with one). */
static char next_character(struct json_reader *r) {
  static const char blanks[] = "        "; /* large files are mostly indentation */
  for (; r->at < r->length; r->at++) {
    char c = r->text[r->at];
    if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
    while (r->length - r->at > 8 && memcmp(r->text + r->at + 1, blanks, 8) == 0) r->at += 8;
  }
  return '\0';
}

enum json_kind json_reader_peek(struct json_reader *r) {
  switch (next_character(r)) {
    case '{': return JSON_KIND_OBJECT;
    case '[': return JSON_KIND_ARRAY;
    case '"': return JSON_KIND_STRING;
    case 't':
    case 'f': return JSON_KIND_BOOL;
    case 'n': return JSON_KIND_NULL;
    case '-':
    case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': return JSON_KIND_REAL;
    default: return JSON_KIND_NONE;
  }
}

int json_reader_open(struct json_reader *r, char bracket, struct error *error) {
  if (next_character(r) != bracket) return unexpected(r, bracket == '{' ? "an object" : "an array", error);
  r->at++;
  r->fresh = true;
  return 0;
}

/* Steps over what stands between two members or elements: 1 when there is another one, 0 at the end. */
static int next_member(struct json_reader *r, char close, struct error *error) {
  bool first = r->fresh;
  char c = next_character(r);
  r->fresh = false;
  if (c == close) return r->at++, 0;
  if (first) return 1;
  if (c != ',') return unexpected(r, close == '}' ? "',' or '}'" : "',' or ']'", error);
  r->at++;
  return 1;
}

int json_reader_item(struct json_reader *r, struct error *error) { return next_member(r, ']', error); }

int json_reader_key(struct json_reader *r, const char **key, size_t *length, struct error *error) {
  int more = next_member(r, '}', error);
  if (more <= 0) return more;
  if (json_reader_text(r, key, length, error) != 0) return -1;
  if (next_character(r) != ':') return unexpected(r, "':'", error);
  r->at++;
  return 1;
}

/* ---- strings ---- */

/* Where the string that goes on at `at` ends, is escaped or is broken by a control character. */
static size_t plain_end(const struct json_reader *r, size_t at) {
  while (at < r->length && r->text[at] != '"' && r->text[at] != '\\' && (unsigned char)r->text[at] >= 0x20) at++;
  return at;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The four digits behind \u, or -1. */
static int32_t hex_unit(const struct json_reader *r, size_t at) {
  int32_t unit = 0;
  if (r->length - at < 4) return -1;
  for (size_t i = 0; i < 4; i++) {
    int digit = hex_digit(r->text[at + i]);
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

/* The character of \uXXXX, whose digits begin at r->at: two such escapes where the first is a high surrogate. */
static int unicode_escape(struct json_reader *r, struct error *error) {
  char bytes[4];
  int32_t point = hex_unit(r, r->at);
  if (point < 0) return unexpected(r, "four hexadecimal digits", error);
  r->at += 4;
  if (point >= 0xD800 && point < 0xDC00 && r->length - r->at >= 6 && memcmp(r->text + r->at, "\\u", 2) == 0) {
    int32_t low = hex_unit(r, r->at + 2);
    if (low >= 0xDC00 && low < 0xE000) {
      point = 0x10000 + ((point - 0xD800) << 10) + (low - 0xDC00);
      r->at += 6;
    }
  }
  if (point >= 0xD800 && point < 0xE000) return unexpected(r, "the other half of a surrogate pair", error);
  buffer_append(&r->scratch, bytes, (size_t)utf8_put((uint32_t)point, bytes));
  return 0;
}

/* The character behind a backslash; r->at stands on it. */
static int escape(struct json_reader *r, struct error *error) {
  static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  if (r->at >= r->length) return unexpected(r, "an escaped character", error);
  if (r->text[r->at] == 'u') return r->at++, unicode_escape(r, error);
  const char *known = memchr(names, r->text[r->at], sizeof names - 1);
  if (!known) return unexpected(r, "an escaped character", error);
  buffer_char(&r->scratch, values[known - names]);
  r->at++;
  return 0;
}

/* The text that begins at r->at and has escapes, as characters in r->scratch; r->at moves to its end. */
static int text_with_escapes(struct json_reader *r, struct error *error) {
  r->scratch.length = 0;
  for (;;) {
    size_t end = plain_end(r, r->at);
    buffer_append(&r->scratch, r->text + r->at, end - r->at);
    r->at = end;
    if (end >= r->length || r->text[end] != '\\') return buffer_check(&r->scratch, error);
    r->at++;
    if (escape(r, error) != 0) return -1;
  }
}

int json_reader_text(struct json_reader *r, const char **text, size_t *length, struct error *error) {
  r->fresh = false;
  if (next_character(r) != '"') return unexpected(r, "a string", error);
  size_t begin = ++r->at, end = plain_end(r, begin);
  *text = r->text + begin;
  *length = end - begin;
  r->at = end;
  if (end < r->length && r->text[end] == '\\') {
    r->at = begin;
    if (text_with_escapes(r, error) != 0) return -1;
    *text = r->scratch.data ? r->scratch.data : "";
    *length = r->scratch.length;
  }
  if (r->at >= r->length || r->text[r->at] != '"') return unexpected(r, "the end of a string", error);
  r->at++;
  return 0;
}

/* ---- numbers and words ---- */

static bool is_digit(const struct json_reader *r) {
  return r->at < r->length && r->text[r->at] >= '0' && r->text[r->at] <= '9';
}

static int skip_digits(struct json_reader *r, struct error *error) {
  if (!is_digit(r)) return unexpected(r, "a digit", error);
  while (is_digit(r)) r->at++;
  return 0;
}

static bool skip_character(struct json_reader *r, char a, char b) {
  if (r->at >= r->length || (r->text[r->at] != a && r->text[r->at] != b)) return false;
  r->at++;
  return true;
}

/* *whole: neither fraction nor exponent. */
static int skip_number(struct json_reader *r, bool *whole, struct error *error) {
  r->fresh = false;
  skip_character(r, '-', '-');
  bool zero = skip_character(r, '0', '0');
  if (!zero && skip_digits(r, error) != 0) return -1;
  if (zero && is_digit(r)) return unexpected(r, "no digit behind a leading 0", error);
  *whole = true;
  if (skip_character(r, '.', '.')) {
    *whole = false;
    if (skip_digits(r, error) != 0) return -1;
  }
  if (skip_character(r, 'e', 'E')) {
    *whole = false;
    skip_character(r, '+', '-');
    return skip_digits(r, error);
  }
  return 0;
}

int json_reader_int(struct json_reader *r, int64_t *value, struct error *error) {
  bool whole;
  if (json_reader_peek(r) != JSON_KIND_REAL) return unexpected(r, "an integer", error);
  size_t begin = r->at;
  bool negative = r->text[begin] == '-';
  if (skip_number(r, &whole, error) != 0) return -1;
  *value = 0;
  for (size_t i = begin + negative; whole && i < r->at; i++) {
    int digit = r->text[i] - '0';
    if (__builtin_mul_overflow(*value, 10, value) ||
        __builtin_add_overflow(*value, negative ? -digit : digit, value))
      whole = false;
  }
  if (whole) return 0;
  return error_set(error, ERROR_FORMAT, "invalid JSON at byte %zu: '%.*s' is no integer of 64 bits", begin,
                   r->at - begin > 32 ? 32 : (int)(r->at - begin), r->text + begin);
}

static int skip_word(struct json_reader *r, const char *word, struct error *error) {
  size_t length = strlen(word);
  r->fresh = false;
  if (r->length - r->at < length || memcmp(r->text + r->at, word, length) != 0)
    return unexpected(r, "a value", error);
  r->at += length;
  return 0;
}

/* ---- whole values ---- */

static int skip_members(struct json_reader *r, char bracket, int depth, struct error *error) {
  const char *key;
  size_t length;
  int more;
  if (depth < 1)
    return error_set(error, ERROR_FORMAT, "invalid JSON at byte %zu: it nests deeper than is allowed here", r->at);
  if (json_reader_open(r, bracket, error) != 0) return -1;
  do {
    more = bracket == '{' ? json_reader_key(r, &key, &length, error) : json_reader_item(r, error);
    if (more > 0 && json_reader_skip(r, depth - 1, error) != 0) return -1;
  } while (more > 0);
  r->fresh = false;
  return more;
}

int json_reader_skip(struct json_reader *r, int depth, struct error *error) {
  const char *text;
  size_t length;
  bool whole;
  switch (json_reader_peek(r)) {
    case JSON_KIND_OBJECT: return skip_members(r, '{', depth, error);
    case JSON_KIND_ARRAY: return skip_members(r, '[', depth, error);
    case JSON_KIND_STRING: return json_reader_text(r, &text, &length, error);
    case JSON_KIND_REAL: return skip_number(r, &whole, error);
    case JSON_KIND_BOOL: return skip_word(r, r->text[r->at] == 't' ? "true" : "false", error);
    case JSON_KIND_NULL: return skip_word(r, "null", error);
    default: return unexpected(r, "a value", error);
  }
}

/* Behind the string that begins at `at`, a quotation mark; the text's length when it has no end. */
static size_t string_end(const struct json_reader *r, size_t at) {
  for (at++; at < r->length && r->text[at] != '"'; at++)
    if (r->text[at] == '\\') at++;
  return at < r->length ? at + 1 : r->length;
}

int json_reader_leap(struct json_reader *r, size_t *count, struct error *error) {
  size_t depth = 1, commas = 0;
  bool any = false;
  if (json_reader_open(r, '[', error) != 0) return -1;
  r->fresh = false;
  for (char c; (c = next_character(r)) != '\0'; any = true) {
    size_t at = r->at++;
    if (c == '"') r->at = string_end(r, at);
    else if (c == '[' || c == '{') depth++;
    else if ((c == ']' || c == '}') && --depth == 0) return *count = any ? commas + 1 : 0, 0;
    else if (c == ',') commas += depth == 1;
  }
  return unexpected(r, "the end of an array", error);
}

int json_reader_end(struct json_reader *r, struct error *error) {
  return next_character(r) == '\0' && r->at >= r->length ? 0 : unexpected(r, "the end", error);
}
