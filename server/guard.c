/* Owns the rules about the shape of a request's head. Refuses to know sockets, routes and who may ask
 * (origin.c, keys.c). */
#include "server/guard.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/utf8.h"

enum { MAX_QUERY_PAIRS = 128, MAX_METHOD = 16 };

int guard_refuse(struct guard_refusal *refusal, int status, const char *word, bool close, const char *format,
                 ...) {
  if (refusal->status) return -1;
  refusal->status = status;
  refusal->word = word;
  refusal->close = close;
  va_list args;
  va_start(args, format);
  vsnprintf(refusal->text, sizeof refusal->text, format, args);
  va_end(args);
  return -1;
}

/* ---- headers ---------------------------------------------------------------------------------------- */

/* A token of RFC 9110, 5.6.2. */
static bool is_token(const char *text) {
  if (!*text) return false;
  for (const unsigned char *p = (const unsigned char *)text; *p; p++)
    if (!isalnum(*p) && !strchr("!#$%&'*+-.^_`|~", *p)) return false;
  return true;
}

/* Visible characters, blanks, tabs and bytes above ASCII. */
static bool is_field_value(const char *text) {
  for (const unsigned char *p = (const unsigned char *)text; *p; p++)
    if ((*p < 0x20 && *p != '\t') || *p == 0x7F) return false;
  return true;
}

const char *guard_header(const struct api_pair *headers, size_t count, const char *name) {
  for (size_t i = 0; i < count; i++)
    if (!strcasecmp(headers[i].name, name)) return headers[i].value;
  return NULL;
}

static size_t times(const struct guard_head *head, const char *name) {
  size_t n = 0;
  for (size_t i = 0; i < head->n_headers; i++) n += !strcasecmp(head->headers[i].name, name);
  return n;
}

static const char *value_of(const struct guard_head *head, const char *name) {
  return guard_header(head->headers, head->n_headers, name);
}

static int check_method(const char *method, struct guard_refusal *refusal) {
  size_t n = strlen(method);
  for (size_t i = 0; i < n; i++)
    if (method[i] < 'A' || method[i] > 'Z') n = 0;
  if (n == 0 || n > MAX_METHOD)
    return guard_refuse(refusal, 400, "method", true, "the method is not a word of 1 to %d capital letters",
                        MAX_METHOD);
  return 0;
}

static int check_fields(const struct guard_head *head, const struct guard_limits *limits,
                        struct guard_refusal *refusal) {
  if (head->bytes > limits->max_bytes)
    return guard_refuse(refusal, 431, "header", true,
                        "the request line and headers have %zu bytes; at most %zu are read", head->bytes,
                        limits->max_bytes);
  if (head->n_headers > limits->max_fields)
    return guard_refuse(refusal, 431, "header", true,
                        "the request has %zu header fields; at most %zu are read", head->n_headers,
                        limits->max_fields);
  for (size_t i = 0; i < head->n_headers; i++) {
    if (!is_token(head->headers[i].name))
      return guard_refuse(refusal, 400, "header", true, "header field %zu has a name that is not a token",
                          i + 1);
    if (!is_field_value(head->headers[i].value))
      return guard_refuse(refusal, 400, "header", true,
                          "header field %zu has a control character in its value", i + 1);
  }
  size_t hosts = times(head, "Host");
  if (hosts != 1)
    return guard_refuse(refusal, 400, "host", true, "the request has %zu Host headers; it needs exactly one",
                        hosts);
  return 0;
}

/* ---- framing ---------------------------------------------------------------------------------------- */

static int check_chunked(const struct guard_head *head, struct guard_refusal *refusal) {
  if (times(head, "Transfer-Encoding") > 1)
    return guard_refuse(refusal, 400, "framing", true, "Transfer-Encoding stands more than once");
  if (times(head, "Content-Length"))
    return guard_refuse(refusal, 400, "framing", true,
                        "Content-Length and Transfer-Encoding exclude each other");
  if (strcmp(head->version, "HTTP/1.1"))
    return guard_refuse(refusal, 400, "framing", true, "Transfer-Encoding needs HTTP/1.1");
  /* Compared untrimmed on purpose: the library knows exactly this word, and would wait for ever otherwise. */
  if (strcasecmp(value_of(head, "Transfer-Encoding"), "chunked"))
    return guard_refuse(refusal, 501, "framing", true, "the only transfer coding known here is 'chunked'");
  return 0;
}

static int check_length(const struct guard_head *head, uint64_t *length, struct guard_refusal *refusal) {
  if (times(head, "Content-Length") > 1)
    return guard_refuse(refusal, 400, "framing", true, "Content-Length stands more than once");
  const char *text = value_of(head, "Content-Length");
  size_t digits = text ? strspn(text, "0123456789") : 0;
  if (text && (digits == 0 || digits > 18 || text[digits]))
    return guard_refuse(refusal, 400, "framing", true, "Content-Length is not a number of 1 to 18 digits");
  *length = text ? strtoull(text, NULL, 10) : 0;
  return 0;
}

int guard_check(const struct guard_head *head, const struct guard_limits *limits, struct guard_body *body,
                struct guard_refusal *refusal) {
  memset(body, 0, sizeof *body);
  if (check_method(head->method, refusal) || check_fields(head, limits, refusal)) return -1;
  body->chunked = value_of(head, "Transfer-Encoding") != NULL;
  if (body->chunked ? check_chunked(head, refusal) : check_length(head, &body->length, refusal)) return -1;
  const char *coding = value_of(head, "Content-Encoding");
  if (coding && strcasecmp(coding, "identity") && strcasecmp(coding, "gzip"))
    return guard_refuse(refusal, 415, "header", true,
                        "the only Content-Encoding that is read is gzip, of a graph that is uploaded; send the body as it is");
  const char *expect = value_of(head, "Expect");
  body->waits = expect && !strcasecmp(expect, "100-continue") && !strcmp(head->version, "HTTP/1.1");
  return 0;
}

bool guard_is_seamless(const char *begin, const char *end, const struct api_pair *headers, size_t count) {
  const char *at = begin;
  for (size_t i = 0; i < count; i++) {
    /* A line ends as CR LF or LF, each of them now NUL. */
    size_t zeroes = 0;
    while (at < end && *at == '\0') at++, zeroes++;
    if (zeroes < 1 || zeroes > 2 || at != headers[i].name) return false;
    at += strlen(headers[i].name) + 1; /* the colon */
    while (at < end && (*at == ' ' || *at == '\t')) at++;
    if (at > end || at != headers[i].value) return false;
    at += strlen(headers[i].value);
  }
  size_t left = at <= end ? (size_t)(end - at) : 0;
  for (size_t i = 0; i < left; i++)
    if (at[i]) return false;
  return left >= 2 && left <= 4; /* the end of the last line, and the empty one */
}

/* ---- target ----------------------------------------------------------------------------------------- */

static int bad_target(struct guard_refusal *refusal, const char *what) {
  return guard_refuse(refusal, 400, "target", true, "%s", what);
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = (char)(c | 0x20);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes text[0..length) into the arena; NULL with the refusal set. */
static const char *decode(const char *text, size_t length, bool plus_is_blank, struct arena *arena,
                          struct guard_refusal *refusal) {
  char *out = arena_alloc(arena, length + 1, NULL);
  if (!out) {
    guard_refuse(refusal, 503, "memory", true, "out of memory");
    return NULL;
  }
  size_t n = 0;
  for (size_t i = 0; i < length; i++) {
    unsigned char c = (unsigned char)text[i];
    if (c == '%') {
      bool whole = length - i > 2;
      int high = whole ? hex_digit(text[i + 1]) : -1, low = whole ? hex_digit(text[i + 2]) : -1;
      if (high < 0 || low < 0)
        return bad_target(refusal, "the target has a '%' without two hexadecimal digits"), NULL;
      c = (unsigned char)(high * 16 + low);
      i += 2;
    } else if (c == '+' && plus_is_blank) {
      c = ' ';
    }
    if (c < 0x20 || c == 0x7F) return bad_target(refusal, "the target has a control character"), NULL;
    out[n++] = (char)c;
  }
  out[n] = '\0';
  if (!utf8_valid(out, n, NULL)) return bad_target(refusal, "the target is not UTF-8"), NULL;
  return out;
}

static bool has_dot_segment(const char *path) {
  for (const char *p = path; (p = strstr(p, "/.")); p++) {
    const char *end = p + (p[2] == '.' ? 3 : 2);
    if (*end == '/' || *end == '\0') return true;
  }
  return false;
}

static int split_query(const char *query, struct arena *arena, struct guard_target *out,
                       struct guard_refusal *refusal) {
  size_t most = 1;
  for (const char *p = query; *p; p++) most += *p == '&';
  if (most > MAX_QUERY_PAIRS) return bad_target(refusal, "the query has more than 128 parts");
  out->query = arena_array(arena, most, sizeof *out->query, NULL);
  if (!out->query) return guard_refuse(refusal, 503, "memory", true, "out of memory");
  while (*query) {
    size_t length = strcspn(query, "&"), name = strcspn(query, "=&");
    size_t value = name < length ? name + 1 : length;
    if (length) {
      struct api_pair *pair = &out->query[out->n_query++];
      pair->name = decode(query, name, true, arena, refusal);
      pair->value = decode(query + value, length - value, true, arena, refusal);
      if (!pair->name || !pair->value) return -1;
    }
    query += length + (query[length] == '&');
  }
  return 0;
}

int guard_split(const char *target, struct arena *arena, struct guard_target *out,
                struct guard_refusal *refusal) {
  memset(out, 0, sizeof *out);
  if (target[0] != '/') return bad_target(refusal, "the target is not a path that begins with '/'");
  if (strchr(target, '#')) return bad_target(refusal, "the target has a fragment");
  size_t length = strcspn(target, "?");
  out->path = decode(target, length, false, arena, refusal);
  if (!out->path) return -1;
  if (has_dot_segment(out->path)) return bad_target(refusal, "the path has a '.' or '..' segment");
  return target[length] ? split_query(target + length + 1, arena, out, refusal) : 0;
}

/* ---- small texts ------------------------------------------------------------------------------------ */

bool guard_is_request_id(const char *text) {
  size_t n = strlen(text);
  return n >= 1 && n <= 64 &&
         strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == n;
}

/* The q of one coding's parameters is zero: "gzip;q=0", "gzip; q=0.000". */
static bool is_zero_quality(const char *parameters, size_t length) {
  const char *q = memmem(parameters, length, "q=", 2);
  if (!q) return false;
  const char *end = parameters + length;
  for (q += 2; q < end && *q != ' ' && *q != ';'; q++)
    if (*q >= '1' && *q <= '9') return false;
  return true;
}

bool guard_accepts_gzip(const char *accept_encoding) {
  for (const char *p = accept_encoding ? accept_encoding : ""; *p;) {
    p += strspn(p, " \t,");
    size_t length = strcspn(p, ","), name = strcspn(p, "; \t,");
    if (name == 4 && !strncasecmp(p, "gzip", 4)) return !is_zero_quality(p + name, length - name);
    p += length;
  }
  return false;
}
