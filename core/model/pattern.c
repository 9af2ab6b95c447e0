/* pattern.c: owns the translation of patterns and the search; knows nothing of tokens. */
#include "core/model/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/checked.h"

/* Unicode's White_Space, which \s means where these patterns come from. PCRE2's own \s adds U+180E. */
#define SPACES                                                                                               \
  "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

/* Word characters of Unicode's regular expressions (UTS 18, annex C). */
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}"

/* Bytes a pattern may have: published ones have a few hundred. */
#define PATTERN_BYTES 8192

/* Steps PCRE2 may take for one match. Sensible patterns look at each byte a few times; one that backtracks
 * without end is stopped where it would be felt. */
#define STEPS_PER_BYTE 64
#define STEPS_LEAST 100000
#define HEAP_LIMIT_KIB (64 * 1024)

struct pattern {
  pcre2_code *code; /* NULL: the literal */
  char *literal;
  size_t literal_length;
};

/* ---- translation ---- */

struct translation {
  const char *at; /* the rest of the pattern */
  struct buffer out;
  bool class; /* inside [...] */
};

static int refuse(const struct translation *t, const char *what, struct error *error) {
  return error_set(error, ERROR_UNSUPPORTED, "%s in a pattern, at '%.40s', is not supported", what, t->at);
}

static int put(struct translation *t, const char *text, size_t consumed) {
  buffer_text(&t->out, text);
  t->at += consumed;
  return 0;
}

static int copy(struct translation *t, size_t count) {
  buffer_append(&t->out, t->at, count);
  t->at += count;
  return 0;
}

/* \p{Name} or \P{Name}. */
static int translate_property(struct translation *t, struct error *error) {
  size_t name = strspn(t->at + 3, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_^");
  if (t->at[2] != '{' || name == 0 || t->at[3 + name] != '}') return refuse(t, "this property", error);
  return copy(t, name + 4);
}

static int translate_hex(struct translation *t, struct error *error) {
  static const char digits[] = "0123456789abcdefABCDEF";
  bool braced = t->at[1] == 'x' && t->at[2] == '{';
  size_t count = strspn(t->at + (braced ? 3 : 2), digits), want = t->at[1] == 'u' ? 4 : 2;
  if (braced ? count < 1 || count > 6 || t->at[3 + count] != '}' : count < want)
    return refuse(t, "this escape", error);
  if (braced) return copy(t, count + 4);
  buffer_printf(&t->out, "\\x{%.*s}", (int)want, t->at + 2);
  t->at += 2 + want;
  return 0;
}

static int translate_escape(struct translation *t, struct error *error) {
  char c = t->at[1];
  if (c == 's') return put(t, t->class ? SPACES : "[" SPACES "]", 2);
  if (c == 'w') return put(t, t->class ? WORDS : "[" WORDS "]", 2);
  if (c == 'S' && !t->class) return put(t, "[^" SPACES "]", 2);
  if (c == 'W' && !t->class) return put(t, "[^" WORDS "]", 2);
  if (c == 'd') return put(t, "\\p{Nd}", 2);
  if (c == 'p' || c == 'P') return translate_property(t, error);
  if (c == 'x' || c == 'u') return translate_hex(t, error);
  if (c == 'r' || c == 'n' || c == 't') return copy(t, 2);
  if (c != '\0' && strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", c)) return copy(t, 2);
  return refuse(t, "this escape", error);
}

static int translate_class(struct translation *t, struct error *error) {
  t->class = true;
  copy(t, t->at[1] == '^' ? 2 : 1);
  if (*t->at == ']') return refuse(t, "an empty class", error);
  while (*t->at != ']') {
    if (*t->at == '\0') return refuse(t, "a class without end", error);
    if (*t->at == '[' || strncmp(t->at, "&&", 2) == 0) return refuse(t, "a class within a class", error);
    if (*t->at == '\\' ? translate_escape(t, error) != 0 : copy(t, 1) != 0) return -1;
  }
  t->class = false;
  return copy(t, 1);
}

static int translate_group(struct translation *t, struct error *error) {
  static const char *const kinds[] = {"(?:", "(?i:", "(?!", "(?=", "(?<!", "(?<=", "(?>"};
  if (t->at[1] != '?') return copy(t, 1);
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
    if (strncmp(t->at, kinds[i], strlen(kinds[i])) == 0) return copy(t, strlen(kinds[i]));
  return refuse(t, "this group", error);
}

/* {m}, {m,} or {m,n}. Behind one of them a '+' repeats again in Oniguruma but is possessive in PCRE2. */
static int translate_count(struct translation *t, struct error *error) {
  size_t digits = strspn(t->at + 1, "0123456789"), length = digits + 1;
  if (t->at[length] == ',') length += 1 + strspn(t->at + length + 1, "0123456789");
  if (digits == 0 || t->at[length] != '}' || t->at[length + 1] == '+') return refuse(t, "this repetition", error);
  return copy(t, length + 1);
}

static int translate_part(struct translation *t, struct error *error) {
  switch (*t->at) {
    case '\\': return translate_escape(t, error);
    case '[': return translate_class(t, error);
    case '(': return translate_group(t, error);
    case '{': return translate_count(t, error);
    case '.': return put(t, "[^\\n]", 1);
    case '^':
    case '$': return refuse(t, "an anchor", error);
    default: return copy(t, 1);
  }
}

/* ---- opening ---- */

static struct pattern *pattern_new(struct error *error) {
  struct pattern *p = calloc(1, sizeof *p);
  if (!p) error_memory(error, sizeof *p);
  return p;
}

static int pattern_compile(struct pattern *p, const char *regex, uint32_t options, struct error *error) {
  int number;
  uint32_t empty = 0;
  PCRE2_SIZE at;
  char why[128];
  p->code = pcre2_compile((PCRE2_SPTR)regex, PCRE2_ZERO_TERMINATED,
                          options | PCRE2_NO_AUTO_CAPTURE | PCRE2_NEVER_BACKSLASH_C, &number, &at, NULL);
  if (!p->code) {
    pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
    return error_set(error, ERROR_UNSUPPORTED, "PCRE2 refuses it at byte %zu: %s", (size_t)at, why);
  }
  pcre2_pattern_info(p->code, PCRE2_INFO_MATCHEMPTY, &empty);
  if (empty) return error_set(error, ERROR_UNSUPPORTED, "it can match the empty text");
  /* Where pages may not be both written and run there is no JIT: the interpreter gives the same matches. */
  (void)pcre2_jit_compile(p->code, PCRE2_JIT_COMPLETE);
  return 0;
}

static int translate(const char *regex, struct translation *t, struct error *error) {
  if (strlen(regex) > PATTERN_BYTES)
    return error_set(error, ERROR_UNSUPPORTED, "it has %zu bytes, at most %d are supported", strlen(regex),
                     PATTERN_BYTES);
  while (*t->at)
    if (translate_part(t, error) != 0) return -1;
  buffer_char(&t->out, '\0');
  return buffer_check(&t->out, error);
}

struct pattern *pattern_open(const char *regex, struct error *error) {
  struct translation t = {.at = regex};
  struct error inner = ERROR_INIT;
  buffer_init(&t.out, 0);
  struct pattern *p = pattern_new(&inner);
  bool failed = !p || translate(regex, &t, &inner) != 0 ||
                pattern_compile(p, t.out.data, PCRE2_UTF | PCRE2_UCP, &inner) != 0;
  buffer_clear(&t.out);
  if (!failed) return p;
  error_set(error, inner.code, "the pattern '%.100s' is not supported: %s", regex, inner.text);
  pattern_free(p);
  return NULL;
}

struct pattern *pattern_open_bytes(const char *regex, struct error *error) {
  struct pattern *p = pattern_new(error);
  if (p && pattern_compile(p, regex, 0, error) == 0) return p;
  pattern_free(p);
  return NULL;
}

struct pattern *pattern_open_literal(const char *text, size_t length, struct error *error) {
  if (length == 0) return error_set(error, ERROR_UNSUPPORTED, "an empty pattern is not supported"), NULL;
  struct pattern *p = pattern_new(error);
  if (!p) return NULL;
  p->literal = malloc(length);
  p->literal_length = length;
  if (p->literal) return memcpy(p->literal, text, length), p;
  error_memory(error, length);
  pattern_free(p);
  return NULL;
}

void pattern_free(struct pattern *p) {
  if (!p) return;
  pcre2_code_free(p->code);
  free(p->literal);
  free(p);
}

/* ---- search ---- */

/* One search of one text. */
struct search {
  const struct pattern *pattern;
  const char *text;
  size_t length;
  pcre2_match_data *data;
  pcre2_match_context *limits;
};

static int search_open(struct search *s, struct error *error) {
  if (!s->pattern->code) return 0;
  size_t steps = size_min(UINT32_MAX, s->length * STEPS_PER_BYTE + STEPS_LEAST);
  s->data = pcre2_match_data_create(1, NULL);
  s->limits = pcre2_match_context_create(NULL);
  if (!s->data || !s->limits) return error_memory(error, sizeof(void *));
  pcre2_set_match_limit(s->limits, (uint32_t)steps);
  pcre2_set_heap_limit(s->limits, HEAP_LIMIT_KIB);
  return 0;
}

static bool find_literal(const struct search *s, size_t from, size_t *begin, size_t *end) {
  const char *found = memmem(s->text + from, s->length - from, s->pattern->literal, s->pattern->literal_length);
  if (!found) return false;
  *begin = (size_t)(found - s->text);
  *end = *begin + s->pattern->literal_length;
  return true;
}

/* The first match at or behind `from`: 1, or 0 when there is none. */
static int find(const struct search *s, size_t from, size_t *begin, size_t *end, struct error *error) {
  if (!s->pattern->code) return find_literal(s, from, begin, end);
  int rc = pcre2_match(s->pattern->code, (PCRE2_SPTR)s->text, s->length, from, PCRE2_NO_UTF_CHECK, s->data, s->limits);
  if (rc == PCRE2_ERROR_NOMATCH) return 0;
  if (rc == PCRE2_ERROR_NOMEMORY) return error_memory(error, s->length);
  if (rc < 0)
    return error_set(error, ERROR_LIMIT, "the tokenizer's pattern gave up at byte %zu of %zu (PCRE2 %d)", from,
                     s->length, rc);
  *begin = pcre2_get_ovector_pointer(s->data)[0];
  *end = pcre2_get_ovector_pointer(s->data)[1];
  return *end > *begin && *begin >= from ? 1 : error_set(error, ERROR_BUG, "an empty match at byte %zu", from);
}

int pattern_each(const struct pattern *pattern, const char *text, size_t length, pattern_take *take, void *context,
                 struct error *error) {
  struct search s = {.pattern = pattern, .text = text, .length = length};
  size_t at = 0, begin = 0, end = 0;
  int found = search_open(&s, error) == 0 ? 1 : -1;
  while (found > 0 && at < length) {
    found = find(&s, at, &begin, &end, error);
    if (found < 0) break;
    if (found == 0) begin = end = length;
    if (begin > at && take(context, at, begin, false, error) != 0) found = -1;
    if (found > 0 && take(context, begin, end, true, error) != 0) found = -1;
    at = end;
  }
  pcre2_match_data_free(s.data);
  pcre2_match_context_free(s.limits);
  return found < 0 ? -1 : 0;
}

bool pattern_begins(const struct pattern *pattern, const char *text, size_t length) {
  struct search s = {.pattern = pattern, .text = text, .length = length};
  size_t begin = 0, end = 0;
  bool found = search_open(&s, NULL) == 0 && find(&s, 0, &begin, &end, NULL) > 0 && begin == 0;
  pcre2_match_data_free(s.data);
  pcre2_match_context_free(s.limits);
  return found;
}
