/* pretokenizer.c: owns the steps of a pre-tokenizer, each of which cuts or changes the stretches of the step
 * before; knows nothing of vocabularies. */
#include "core/model/pretokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/model/pattern.h"

/* Published files have up to four. Each nests a few frames when a text runs through. */
#define STEPS_MAX 16

/* Rust's is_numeric, is_whitespace and is_punctuation (the ASCII symbols count there as punctuation), in the
 * language of pattern.h. */
#define DIGIT "\\p{N}"
#define PUNCTUATION "[\\p{P}$+<=>\\^`|~]"
#define WORD_OR_SYMBOLS "\\w+|[^\\w\\s]+"

/* Digits behind ByteLevel see bytes as the characters that stand for them: these stand for themselves. */
#define DIGIT_BYTE "[0-9\\xB2\\xB3\\xB9\\xBC-\\xBE]"

enum step_kind { STEP_CUT, STEP_PREFIX, STEP_METASPACE };
enum behavior { ISOLATED, REMOVED, CONTIGUOUS, WITH_PREVIOUS, WITH_NEXT };
enum scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct step {
  enum step_kind kind;
  struct pattern *pattern; /* STEP_CUT; owned */
  enum behavior behavior;
  bool invert;             /* gaps count as matches and matches as gaps */
  enum scheme scheme;      /* STEP_METASPACE */
  char space[8];           /* what it writes for a space */
};

struct pretokenizer {
  struct step steps[STEPS_MAX];
  int count;
  bool byte_level;
};

/* ---- running ---- */

/* The rest of the way of one stretch. */
struct run {
  const struct pretokenizer *p;
  int at; /* the step that comes next */
  pretokenizer_take *take;
  void *context;
};

static int run_steps(const struct run *run, const char *text, size_t length, bool first, struct error *error);

/* Joins and drops the matches and gaps of one text as the behavior says. */
struct cut {
  const struct run *run;
  const struct step *step;
  const char *text;
  bool first;
  bool pending, pending_match; /* [begin, end) waits for what comes next */
  size_t begin, end;
};

static int cut_flush(struct cut *c, struct error *error) {
  if (!c->pending) return 0;
  c->pending = false;
  return run_steps(c->run, c->text + c->begin, c->end - c->begin, c->first && c->begin == 0, error);
}

/* Whether what waits and what comes become one stretch. */
static bool cut_joins(const struct cut *c, bool match, enum behavior behavior) {
  if (!c->pending) return false;
  if (behavior == CONTIGUOUS) return match == c->pending_match;
  if (behavior == WITH_PREVIOUS) return match && !c->pending_match;
  return behavior == WITH_NEXT && !match && c->pending_match;
}

static int cut_take(void *context, size_t begin, size_t end, bool match, struct error *error) {
  struct cut *c = context;
  match ^= c->step->invert;
  if (c->step->behavior == REMOVED && match) return 0;
  bool joins = cut_joins(c, match, c->step->behavior);
  if (!joins && cut_flush(c, error) != 0) return -1;
  if (!joins) c->begin = begin;
  c->end = end;
  c->pending = true;
  c->pending_match = match;
  return 0;
}

static int run_cut(const struct run *run, const char *text, size_t length, bool first, struct error *error) {
  struct cut cut = {.run = run, .step = &run->p->steps[run->at - 1], .text = text, .first = first};
  if (pattern_each(cut.step->pattern, text, length, cut_take, &cut, error) != 0) return -1;
  return cut_flush(&cut, error);
}

static int run_buffer(const struct run *run, struct buffer *text, bool first, struct error *error) {
  int result = buffer_check(text, error);
  if (result == 0) result = run_steps(run, text->data, text->length, first, error);
  buffer_clear(text);
  return result;
}

static int run_prefix(const struct run *run, const char *text, size_t length, bool first, struct error *error) {
  struct buffer spaced;
  if (text[0] == ' ') return run_steps(run, text, length, first, error);
  buffer_init(&spaced, 0);
  buffer_char(&spaced, ' ');
  buffer_append(&spaced, text, length);
  return run_buffer(run, &spaced, first, error);
}

static int run_metaspace(const struct run *run, const char *text, size_t length, bool first, struct error *error) {
  const struct step *step = &run->p->steps[run->at - 1];
  struct buffer out;
  size_t space = strlen(step->space);
  bool has = text[0] == ' ' || (length >= space && memcmp(text, step->space, space) == 0);
  buffer_init(&out, 0);
  if (!has && (step->scheme == PREPEND_ALWAYS || (step->scheme == PREPEND_FIRST && first)))
    buffer_append(&out, step->space, space);
  for (size_t i = 0; i < length; i++) {
    if (text[i] == ' ')
      buffer_append(&out, step->space, space);
    else
      buffer_char(&out, text[i]);
  }
  return run_buffer(run, &out, first, error);
}

static int run_steps(const struct run *run, const char *text, size_t length, bool first, struct error *error) {
  static int (*const kinds[])(const struct run *, const char *, size_t, bool, struct error *) = {
      [STEP_CUT] = run_cut, [STEP_PREFIX] = run_prefix, [STEP_METASPACE] = run_metaspace};
  if (length == 0) return 0;
  if (run->at == run->p->count) return run->take(run->context, text, length, error);
  struct run rest = *run;
  return kinds[run->p->steps[rest.at++].kind](&rest, text, length, first, error);
}

int pretokenizer_run(const struct pretokenizer *p, const char *text, size_t length, bool first,
                     pretokenizer_take *take, void *context, struct error *error) {
  struct run run = {p, 0, take, context};
  return run_steps(&run, text, length, first, error);
}

/* ---- reading ---- */

static const char *type_of(const struct json_node *part) {
  const char *type = json_text(json_get(part, "type"), NULL);
  return type ? type : json_kind_word(json_kind(part));
}

static int add_step(struct pretokenizer *p, struct step step, struct error *error) {
  if (step.kind == STEP_CUT && !step.pattern) return -1;
  if (p->count == STEPS_MAX) {
    pattern_free(step.pattern);
    return error_set(error, ERROR_UNSUPPORTED, "more than %d pre-tokenizer steps are not supported", STEPS_MAX);
  }
  p->steps[p->count++] = step;
  return 0;
}

static int add_cut(struct pretokenizer *p, const char *regex, enum behavior behavior, bool invert,
                   struct error *error) {
  struct step step = {.kind = STEP_CUT, .behavior = behavior, .invert = invert, .pattern = pattern_open(regex, error)};
  return add_step(p, step, error);
}

static int read_behavior(const struct json_node *part, enum behavior fallback, enum behavior *behavior,
                         struct error *error) {
  static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
  const struct json_node *node = json_get(part, "behavior");
  const char *name = json_text_or(node, json_kind(node) == JSON_KIND_NONE ? names[fallback] : "?");
  for (int i = 0; i < 5; i++) {
    *behavior = (enum behavior)i;
    if (strcmp(name, names[i]) == 0) return 0;
  }
  return error_set(error, ERROR_UNSUPPORTED, "the behavior '%.32s' of a %s is not supported", name, type_of(part));
}

static int read_byte_level(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  if (json_bool_or(json_get(part, "add_prefix_space"), true) &&
      add_step(p, (struct step){.kind = STEP_PREFIX}, error) != 0)
    return -1;
  if (json_bool_or(json_get(part, "use_regex"), true) && add_cut(p, PRETOKENIZER_GPT2, ISOLATED, false, error) != 0)
    return -1;
  p->byte_level = true;
  return 0;
}

static int read_split(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  const struct json_node *pattern = json_get(part, "pattern");
  struct step step = {.kind = STEP_CUT, .invert = json_bool_or(json_get(part, "invert"), false)};
  size_t length;
  const char *text = json_text(json_get(pattern, "Regex"), NULL), *literal = json_text(pattern, &length);
  if (!literal) literal = json_text(json_get(pattern, "String"), &length);
  if (read_behavior(part, ISOLATED, &step.behavior, error) != 0) return -1;
  if (!text && !literal)
    return error_set(error, ERROR_UNSUPPORTED, "a Split by something else than a Regex or String is not supported");
  step.pattern = text ? pattern_open(text, error) : pattern_open_literal(literal, length, error);
  return add_step(p, step, error);
}

static int read_digits(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  enum behavior behavior = json_bool_or(json_get(part, "individual_digits"), false) ? ISOLATED : CONTIGUOUS;
  if (!p->byte_level) return add_cut(p, DIGIT, behavior, false, error);
  struct step step = {.kind = STEP_CUT, .behavior = behavior, .pattern = pattern_open_bytes(DIGIT_BYTE, error)};
  return add_step(p, step, error);
}

static int read_punctuation(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  enum behavior behavior;
  if (read_behavior(part, ISOLATED, &behavior, error) != 0) return -1;
  return add_cut(p, PUNCTUATION, behavior, false, error);
}

static int read_whitespace(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  (void)part;
  return add_cut(p, WORD_OR_SYMBOLS, REMOVED, true, error);
}

static int read_whitespace_split(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  (void)part;
  return add_cut(p, "\\s", REMOVED, false, error);
}

/* "prepend_scheme", or the "add_prefix_space" of older files. */
static int read_scheme(const struct json_node *part, enum scheme *scheme, struct error *error) {
  static const char *const names[] = {"always", "first", "never"};
  bool prefix = json_bool_or(json_get(part, "add_prefix_space"), true);
  const char *name = json_text_or(json_get(part, "prepend_scheme"), prefix ? "always" : "never");
  for (int i = 0; i < 3; i++) {
    *scheme = (enum scheme)i;
    if (strcmp(name, names[i]) == 0) return 0;
  }
  return error_set(error, ERROR_UNSUPPORTED, "the prepend_scheme '%.32s' is not supported", name);
}

static int read_metaspace(struct pretokenizer *p, const struct json_node *part, struct error *error) {
  struct step step = {.kind = STEP_METASPACE};
  size_t length;
  const char *space = json_text(json_get(part, "replacement"), &length);
  if (!space || length == 0 || length > 4)
    return error_set(error, ERROR_FORMAT, "the replacement of a Metaspace is not one character");
  memcpy(step.space, space, length);
  if (read_scheme(part, &step.scheme, error) != 0 || add_step(p, step, error) != 0) return -1;
  if (!json_bool_or(json_get(part, "split"), true)) return 0;
  struct step split = {.kind = STEP_CUT, .behavior = WITH_NEXT, .pattern = pattern_open_literal(space, length, error)};
  return add_step(p, split, error);
}

static const struct {
  const char *type;
  int (*read)(struct pretokenizer *p, const struct json_node *part, struct error *error);
} readers[] = {
    {"ByteLevel", read_byte_level},   {"Split", read_split},           {"Digits", read_digits},
    {"Metaspace", read_metaspace},    {"Punctuation", read_punctuation}, {"Whitespace", read_whitespace},
    {"WhitespaceSplit", read_whitespace_split},
};

static int read_part(struct pretokenizer *p, const struct json_node *part, int depth, struct error *error) {
  const struct json_node *parts = json_get(part, "pretokenizers");
  const char *type = type_of(part);
  if (strcmp(type, "Sequence") == 0 && json_kind(parts) == JSON_KIND_ARRAY && depth < 4) {
    for (size_t i = 0; i < json_count(parts); i++)
      if (read_part(p, json_at(parts, i), depth + 1, error) != 0) return -1;
    return 0;
  }
  /* Its characters stand for bytes from there on, where only Digits means what it says. */
  if (p->byte_level && strcmp(type, "Digits") != 0)
    return error_set(error, ERROR_UNSUPPORTED, "the pre_tokenizer '%.32s' behind ByteLevel is not supported", type);
  for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++)
    if (strcmp(type, readers[i].type) == 0) return readers[i].read(p, part, error);
  return error_set(error, ERROR_UNSUPPORTED,
                   "the pre_tokenizer '%.32s' is not supported; supported: ByteLevel, Split, Digits, Metaspace, "
                   "Punctuation, Whitespace, WhitespaceSplit, Sequence",
                   type);
}

struct pretokenizer *pretokenizer_parse(const struct json_node *part, struct error *error) {
  struct pretokenizer *p = calloc(1, sizeof *p);
  if (!p) return error_memory(error, sizeof *p), NULL;
  bool absent = json_kind(part) == JSON_KIND_NONE || json_kind(part) == JSON_KIND_NULL;
  if (absent || read_part(p, part, 0, error) == 0) return p;
  pretokenizer_free(p);
  return NULL;
}

struct pretokenizer *pretokenizer_gpt2(bool prefix_space, struct error *error) {
  struct pretokenizer *p = calloc(1, sizeof *p);
  if (!p) return error_memory(error, sizeof *p), NULL;
  p->byte_level = true;
  if (prefix_space) p->steps[p->count++] = (struct step){.kind = STEP_PREFIX};
  if (add_cut(p, PRETOKENIZER_GPT2, ISOLATED, false, error) == 0) return p;
  pretokenizer_free(p);
  return NULL;
}

bool pretokenizer_is_byte_level(const struct pretokenizer *p) { return p->byte_level; }

void pretokenizer_free(struct pretokenizer *p) {
  if (!p) return;
  for (int i = 0; i < p->count; i++) pattern_free(p->steps[i].pattern);
  free(p);
}
