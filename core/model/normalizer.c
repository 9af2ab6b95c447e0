/* normalizer.c: owns the steps of a normalizer; what Unicode says is core/base/unicode.h, what the map of a SentencePiece model
 * says charsmap.h. */
#include "core/model/normalizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/unicode.h"
#include "core/base/utf8.h"
#include "core/model/added_tokens.h"
#include "core/model/charsmap.h"
#include "core/model/pattern.h"

/* Published files have up to three. */
#define STEPS_MAX 16

/* What a text may grow to, whatever the file says. */
#define TEXT_BYTES_MAX ((size_t)1 << 30)

/* Bytes that one Replace may put for one match: enough for every character. */
#define CONTENT_BYTES 64

/* What SentencePiece writes for a space. */
#define SPACE "\xE2\x96\x81"

enum step_kind { STEP_FORM, STEP_LOWER, STEP_STRIP, STEP_PREPEND, STEP_REPLACE };

struct step {
  enum step_kind kind;
  enum unicode_form form;
  bool left, right;        /* STEP_STRIP */
  struct pattern *pattern; /* STEP_REPLACE; owned */
  char content[CONTENT_BYTES];
  size_t length; /* of content */
};

struct normalizer {
  struct step steps[STEPS_MAX];
  int count;
  bool by_rules;                 /* and not by steps */
  struct normalizer_rules rules; /* without its map */
  struct charsmap *map;          /* NULL: characters stay */
};

/* ---- running ---- */

struct replacement {
  const struct step *step;
  const char *text;
  struct buffer *out;
};

static int replace_take(void *context, size_t begin, size_t end, bool match, struct error *error) {
  struct replacement *r = context;
  if (match)
    buffer_append(r->out, r->step->content, r->step->length);
  else
    buffer_append(r->out, r->text + begin, end - begin);
  return buffer_check(r->out, error);
}

static int run_strip(const struct step *step, const char *text, size_t length, struct buffer *out) {
  size_t front = step->left ? unicode_space_prefix(text, length) : 0;
  size_t back = step->right ? unicode_space_suffix(text + front, length - front) : 0;
  buffer_append(out, text + front, length - front - back);
  return 0;
}

/* What stands at the front of text[0..length) and becomes one thing: *out. Returns how many bytes of the text it is. */
static size_t next_unit(const struct normalizer *n, const char *text, size_t length, const char **out, size_t *out_length) {
  size_t whole = n->rules.whole ? added_tokens_longest(n->rules.whole, text, length) : 0;
  size_t found = whole == 0 && n->map ? charsmap_find(n->map, text, length, out, out_length) : 0;
  uint32_t point;
  if (found > 0) return found;
  *out = text;
  *out_length = whole > 0 ? whole : (size_t)utf8_next(text, length, &point);
  return *out_length;
}

static void put_unit(const struct normalizer *n, const char *text, size_t length, struct buffer *out) {
  for (size_t i = 0; i < length; i++) {
    if (n->rules.escape && text[i] == ' ')
      buffer_text(out, SPACE);
    else
      buffer_char(out, text[i]);
  }
}

static void drop_spaces_behind(struct buffer *out, const char *space) {
  size_t length = strlen(space);
  while (out->length >= length && memcmp(out->data + out->length - length, space, length) == 0) out->length -= length;
}

/* In SentencePiece's order: a text of nothing but spaces, where they are squeezed, gets none in front; what is squeezed at the
 * end are spaces as they are written then, so U+2581 of the text as well. A text that goes on behind something, where only the
 * first one gets a space, has begun. */
static int run_rules(const struct normalizer *n, const char *text, size_t length, bool first, struct buffer *out,
                     struct error *error) {
  const char *space = n->rules.escape ? SPACE : " ", *unit;
  bool squeeze = n->rules.squeeze, begun = n->rules.prefix_first && !first, spaced = !begun;
  size_t unit_length;
  for (size_t at = 0, used; at < length && !out->failed; at += used) {
    used = next_unit(n, text + at, length - at, &unit, &unit_length);
    if (squeeze && !begun && unit_length == 1 && *unit == ' ') continue;
    if (!begun && n->rules.prefix) buffer_text(out, space);
    begun = true;
    while (squeeze && spaced && unit_length > 0 && *unit == ' ') unit++, unit_length--;
    put_unit(n, unit, unit_length, out);
    if (unit_length > 0) spaced = unit[unit_length - 1] == ' ';
  }
  if (squeeze) drop_spaces_behind(out, space);
  return buffer_check(out, error);
}

static int run_step(const struct step *step, const char *text, size_t length, struct buffer *out,
                    struct error *error) {
  struct replacement replacement = {step, text, out};
  switch (step->kind) {
    case STEP_FORM: return unicode_normalize(text, length, step->form, out), 0;
    case STEP_LOWER: return unicode_lower(text, length, out), 0;
    case STEP_STRIP: return run_strip(step, text, length, out);
    case STEP_PREPEND:
      if (length > 0) buffer_append(out, step->content, step->length);
      return buffer_append(out, text, length), 0;
    default: return pattern_each(step->pattern, text, length, replace_take, &replacement, error);
  }
}

int normalizer_run(const struct normalizer *n, const char *text, size_t length, bool first, struct buffer *out,
                   struct error *error) {
  struct buffer before;
  int result = 0;
  buffer_init(&before, 0);
  if (n->by_rules) {
    buffer_init(out, TEXT_BYTES_MAX);
    return run_rules(n, text, length, first, out, error);
  }
  for (int i = 0; i < n->count && result == 0; i++) {
    struct buffer next;
    buffer_init(&next, TEXT_BYTES_MAX);
    result = run_step(&n->steps[i], i ? before.data : text, i ? before.length : length, &next, error);
    if (result == 0) result = buffer_check(&next, error);
    buffer_clear(&before);
    before = next;
  }
  if (n->count == 0) buffer_append(&before, text, length);
  *out = before;
  return result;
}

/* ---- reading ---- */

static const char *type_of(const struct json_node *part) {
  const char *type = json_text(json_get(part, "type"), NULL);
  return type ? type : json_kind_word(json_kind(part));
}

static int add_step(struct normalizer *n, struct step step, struct error *error) {
  if (n->count == STEPS_MAX) {
    pattern_free(step.pattern);
    return error_set(error, ERROR_UNSUPPORTED, "more than %d normalizer steps are not supported", STEPS_MAX);
  }
  n->steps[n->count++] = step;
  return 0;
}

static int read_content(const struct json_node *part, const char *key, struct step *step, struct error *error) {
  const char *content = json_text(json_get(part, key), &step->length);
  if (!content)
    return error_set(error, ERROR_FORMAT, "the %s of a normalizer '%s' is %s, not a string", key, type_of(part),
                     json_kind_word(json_kind(json_get(part, key))));
  if (step->length > sizeof step->content)
    return error_set(error, ERROR_UNSUPPORTED, "the %s of a normalizer '%s' has %zu bytes, at most %zu are supported",
                     key, type_of(part), step->length, sizeof step->content);
  memcpy(step->content, content, step->length);
  return 0;
}

static int read_prepend(struct normalizer *n, const struct json_node *part, struct error *error) {
  struct step step = {.kind = STEP_PREPEND};
  return read_content(part, "prepend", &step, error) == 0 ? add_step(n, step, error) : -1;
}

static int read_replace(struct normalizer *n, const struct json_node *part, struct error *error) {
  const struct json_node *pattern = json_get(part, "pattern");
  struct step step = {.kind = STEP_REPLACE};
  size_t length;
  const char *regex = json_text(json_get(pattern, "Regex"), NULL);
  const char *text = json_text(json_get(pattern, "String"), &length);
  if (!regex && !text)
    return error_set(error, ERROR_UNSUPPORTED, "a Replace of something else than a Regex or String is not supported");
  if (read_content(part, "content", &step, error) != 0) return -1;
  step.pattern = regex ? pattern_open(regex, error) : pattern_open_literal(text, length, error);
  return step.pattern ? add_step(n, step, error) : -1;
}

static int read_strip(struct normalizer *n, const struct json_node *part, struct error *error) {
  struct step step = {.kind = STEP_STRIP,
                      .left = json_bool_or(json_get(part, "strip_left"), true),
                      .right = json_bool_or(json_get(part, "strip_right"), true)};
  return add_step(n, step, error);
}

static int read_part(struct normalizer *n, const struct json_node *part, int depth, struct error *error) {
  static const char *const forms[] = {[UNICODE_NFC] = "NFC", [UNICODE_NFD] = "NFD", [UNICODE_NFKC] = "NFKC",
                                      [UNICODE_NFKD] = "NFKD"};
  const struct json_node *parts = json_get(part, "normalizers");
  const char *type = type_of(part);
  for (int i = 0; i < 4; i++)
    if (strcmp(type, forms[i]) == 0)
      return add_step(n, (struct step){.kind = STEP_FORM, .form = (enum unicode_form)i}, error);
  if (strcmp(type, "Lowercase") == 0) return add_step(n, (struct step){.kind = STEP_LOWER}, error);
  if (strcmp(type, "Strip") == 0) return read_strip(n, part, error);
  if (strcmp(type, "Prepend") == 0) return read_prepend(n, part, error);
  if (strcmp(type, "Replace") == 0) return read_replace(n, part, error);
  if (strcmp(type, "Sequence") != 0 || json_kind(parts) != JSON_KIND_ARRAY || depth >= 4)
    return error_set(error, ERROR_UNSUPPORTED,
                     "the normalizer '%.32s' is not supported; supported: NFC, NFD, NFKC, NFKD, Lowercase, Strip, "
                     "Prepend, Replace, Sequence",
                     type);
  for (size_t i = 0; i < json_count(parts); i++)
    if (read_part(n, json_at(parts, i), depth + 1, error) != 0) return -1;
  return 0;
}

int normalizer_parse(const struct json_node *part, struct normalizer **out, struct error *error) {
  *out = NULL;
  if (json_kind(part) == JSON_KIND_NONE || json_kind(part) == JSON_KIND_NULL) return 0;
  struct normalizer *n = calloc(1, sizeof *n);
  if (!n) return error_memory(error, sizeof *n);
  int failed = read_part(n, part, 0, error);
  if (failed || n->count == 0)
    normalizer_free(n);
  else
    *out = n;
  return failed;
}

struct normalizer *normalizer_of_rules(const struct normalizer_rules *rules, struct error *error) {
  struct normalizer *n = calloc(1, sizeof *n);
  if (!n) return error_memory(error, sizeof *n), NULL;
  n->rules = *rules;
  n->rules.charsmap = NULL;
  n->by_rules = true;
  if (rules->charsmap_length == 0) return n;
  n->map = charsmap_open(rules->charsmap, rules->charsmap_length, error);
  if (n->map) return n;
  normalizer_free(n);
  return NULL;
}

void normalizer_free(struct normalizer *n) {
  if (!n) return;
  charsmap_free(n->map);
  for (int i = 0; i < n->count; i++) pattern_free(n->steps[i].pattern);
  free(n);
}
