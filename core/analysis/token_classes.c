/* token_classes.c: what a token looks like, and the classes that follow from it. */
#include "core/analysis/token_classes.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/utf8.h"
#include "core/model/pattern.h"

/* Of a token without the spaces in front. */
struct shape {
  bool space, open, close;            /* of all its bytes */
  size_t chars;                       /* 0: nothing but spaces, or no whole characters */
  char first;                         /* of an ASCII letter, else 0 */
  bool digits, letters, word, marks, capitals; /* all its characters are; word: letters, digits or '_' */
};

struct token_judge {
  struct pattern *digits, *letters, *word, *marks;
};

/* ---- classes ---- */

enum { LENGTHS = 5, DIGIT_COUNTS = 4 };

static const char *const names[] = {
    "starts_with_space", "starts_with_capital", "starts_with_lower", "all_digits", "is_punctuation", "contains_close_bracket",
    "contains_open_bracket", "all_caps", "1_digit", "2_digits", "3_digits", "4_digits", "length_1", "length_2", "length_3",
    "length_4", "length_5", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t",
    "u", "v", "w", "x", "y", "z"};
enum {
  STARTS_WITH_SPACE, STARTS_WITH_CAPITAL, STARTS_WITH_LOWER, ALL_DIGITS, IS_PUNCTUATION, CLOSE_BRACKET, OPEN_BRACKET, ALL_CAPS,
  DIGITS_1, LENGTH_1 = DIGITS_1 + DIGIT_COUNTS, LETTER_A = LENGTH_1 + LENGTHS, CLASSES = LETTER_A + 26
};
_Static_assert(sizeof names / sizeof *names == CLASSES, "a name for each class");

int token_class_count(void) { return CLASSES; }
const char *token_class_name(int class_number) { return names[class_number]; }

int token_class_find(const char *name) {
  for (int c = 0; c < CLASSES; c++)
    if (strcmp(names[c], name) == 0) return c;
  return -1;
}

static bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
static char lower(char c) { return is_upper(c) ? (char)(c - 'A' + 'a') : c; }

static bool is_in(const struct shape *s, int c) {
  switch (c) {
    case STARTS_WITH_SPACE: return s->space;
    case STARTS_WITH_CAPITAL: return s->first && is_upper(s->first);
    case STARTS_WITH_LOWER: return s->first && !is_upper(s->first);
    case ALL_DIGITS: return s->digits;
    case IS_PUNCTUATION: return s->marks && !s->space;
    case CLOSE_BRACKET: return s->close;
    case OPEN_BRACKET: return s->open;
    case ALL_CAPS: return s->capitals;
    default: break;
  }
  if (c < LENGTH_1) return s->digits && s->chars == (size_t)(c - DIGITS_1 + 1);
  if (c < LETTER_A) return s->word && s->chars == (size_t)(c - LENGTH_1 + 1);
  return s->letters && s->first && lower(s->first) == 'a' + (c - LETTER_A);
}

/* ---- shapes ---- */

static int take_match(void *context, size_t begin, size_t end, bool match, struct error *error) {
  (void)error;
  if (match && begin == 0) *(size_t *)context = end;
  return 0;
}

/* Whether all of it is one match. */
static bool is_whole(const struct pattern *pattern, const char *text, size_t n) {
  struct error error = ERROR_INIT;
  size_t end = 0;
  return pattern_each(pattern, text, n, take_match, &end, &error) == 0 && end == n;
}

static size_t count_chars(const char *text, size_t n) {
  size_t chars = 0;
  for (size_t i = 0; i < n; i++) chars += ((unsigned char)text[i] & 0xC0) != 0x80;
  return chars;
}

static void judge_ascii(const char *text, size_t n, struct shape *s) {
  s->digits = s->letters = s->word = s->marks = true;
  for (size_t i = 0; i < n; i++) {
    char c = text[i];
    bool digit = c >= '0' && c <= '9', letter = is_upper(c) || (c >= 'a' && c <= 'z'), space = c == ' ' || (c >= '\t' && c <= '\r');
    space |= c >= 0x1C && c <= 0x1F; /* as Python's \s has it */
    s->digits &= digit;
    s->letters &= letter;
    s->word &= digit || letter || c == '_';
    s->marks &= !digit && !letter && c != '_' && !space;
  }
}

static bool is_ascii(const char *text, size_t n) {
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)text[i] >= 0x80) return false;
  return true;
}

static bool all_capitals(const char *text, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!is_upper(text[i])) return false;
  return n > 0;
}

static struct shape shape_of(const struct token_judge *judge, const char *bytes, size_t n) {
  struct shape s = {.space = n && bytes[0] == ' ', .open = memchr(bytes, '(', n) != NULL, .close = memchr(bytes, ')', n) != NULL};
  while (n && bytes[0] == ' ') bytes++, n--;
  if (n == 0 || !utf8_valid(bytes, n, NULL)) return s;
  s.chars = count_chars(bytes, n);
  s.first = is_upper(bytes[0]) || (bytes[0] >= 'a' && bytes[0] <= 'z') ? bytes[0] : 0;
  s.capitals = all_capitals(bytes, n);
  if (is_ascii(bytes, n)) {
    judge_ascii(bytes, n, &s);
    return s;
  }
  s.digits = is_whole(judge->digits, bytes, n);
  s.letters = is_whole(judge->letters, bytes, n);
  s.word = is_whole(judge->word, bytes, n);
  s.marks = is_whole(judge->marks, bytes, n);
  return s;
}

void token_judge_classes(const struct token_judge *judge, const char *bytes, size_t n, void (*in)(void *context, int class_number),
                         void *context) {
  if (n == 0) return; /* an id that is not used */
  struct shape s = shape_of(judge, bytes, n);
  for (int c = 0; c < CLASSES; c++)
    if (is_in(&s, c)) in(context, c);
}

struct token_judge *token_judge_new(struct error *error) {
  struct token_judge *judge = calloc(1, sizeof *judge);
  if (!judge) return error_memory(error, sizeof *judge), NULL;
  if ((judge->digits = pattern_open("\\p{Nd}+", error)) && (judge->letters = pattern_open("\\p{L}+", error)) &&
      (judge->word = pattern_open("[\\p{L}\\p{N}_]+", error)) && (judge->marks = pattern_open("[^\\p{L}\\p{N}_\\s]+", error)))
    return judge;
  token_judge_free(judge);
  return NULL;
}

void token_judge_free(struct token_judge *judge) {
  if (!judge) return;
  pattern_free(judge->digits);
  pattern_free(judge->letters);
  pattern_free(judge->word);
  pattern_free(judge->marks);
  free(judge);
}
