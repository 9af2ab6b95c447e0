/* field.c: what a row says: its range in force, its names, its sentence. Knows nothing of JSON. */
#include "api/field.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "core/base/number.h"

double field_max(const struct field *field, const struct api_options *options) {
  switch (field->cap) {
    case CAP_NEW_TOKENS: return options->max_new_tokens;
    case CAP_FEATURES: return options->max_features;
    case CAP_PROMPT: return (double)options->max_prompt_chars;
    default: return field->max;
  }
}

double field_default(const struct field *field, const struct api_options *options) {
  double value = 0, max = field_max(field, options);
  if (!field->fallback || !number_parse_double(field->fallback, &value)) return 0;
  return value < max ? value : max;
}

int field_max_texts(const struct field *field, const struct api_options *options) {
  if (field->most > 0) return field->most;
  return options->max_texts > 0 ? options->max_texts : 1;
}

/* "of 1 to 20 objects", or nothing when neither end is set. */
static void add_count(char *out, size_t size, double min, double max, const char *things) {
  size_t used = strlen(out);
  char low[32], high[32];
  number_f64(min, low);
  number_f64(max, high);
  if (max > 0 && max == min)
    snprintf(out + used, size - used, " of %s %s", low, things);
  else if (max > 0)
    snprintf(out + used, size - used, " of %s to %s %s", low, high, things);
  else if (min > 0)
    snprintf(out + used, size - used, " of at least %s %s", low, things);
}

static void add_texts(char *out, size_t size, int most) {
  size_t used = strlen(out);
  snprintf(out + used, size - used, " up to %d strings, each", most);
}

static void add_most(char *out, size_t size, double max) {
  size_t used = strlen(out);
  snprintf(out + used, size - used, " 1 to %d of these", (int)max);
}

static void add_example(char *out, size_t size, const char *open, const char *example, const char *close) {
  size_t used = strlen(out);
  if (example) snprintf(out + used, size - used, " such as %s%s%s", open, example, close);
}

static void add_range(char *out, size_t size, double min, double max) {
  size_t used = strlen(out);
  char low[32], high[32];
  number_f64(min, low);
  number_f64(max, high);
  snprintf(out + used, size - used, " from %s to %s", low, high);
}

static void add_choices(char *out, size_t size, const char *words) {
  for (const char *word = words, *comma = " "; *word; comma = ", ") {
    int length = (int)strcspn(word, " ");
    size_t used = strlen(out);
    snprintf(out + used, size - used, "%s'%.*s'", comma, length, word);
    word += length;
    word += strspn(word, " ");
  }
}

void field_allowed(const struct field *field, const struct api_options *options, char *out, size_t size) {
  static const char *const words[] = {
      [FIELD_BOOL] = "true or false",
      [FIELD_INT] = "an integer",
      [FIELD_NUMBER] = "a number",
      [FIELD_INDEX] = "an integer, or a string of digits,",
      [FIELD_TEXT] = "a string",
      [FIELD_SOURCE] = "a string such as '7-res-jb', or the integer of a layer",
      [FIELD_SOURCES] = "a string such as '7-res-jb', the integer of a layer, or an array of",
      [FIELD_TEXTS] = "a string, or an array of",
      [FIELD_CHOICE] = "one of",
      [FIELD_CHOICES] = "an array of one or more of",
      [FIELD_NAMES] = "an array",
      [FIELD_INTS] = "an array",
      [FIELD_NUMBERS] = "an array",
      [FIELD_PLACES] = "an array of at least 1 integer",
      [FIELD_TOKENS] = "an array of at least 1 integer from 0 up, or an array of such arrays",
      [FIELD_PROMPTS] = "a string, an array of at least 1 integer from 0 up, or an array of such arrays or of",
      [FIELD_WEIGHTS] = "an object of token ids and numbers",
      [FIELD_CONTENT] = "a string, or an array of {\"type\": \"text\", \"text\": ...},",
      [FIELD_REFUSED] = "left out",
      [FIELD_ROWS] = "an array of at least 1 array of numbers, all equally long",
      [FIELD_GROUPS] = "an array of arrays of strings",
      [FIELD_OBJECT] = "an object",
      [FIELD_OBJECTS] = "an array",
  };
  double max = field_max(field, options);
  snprintf(out, size, "%s", words[field->type]);
  switch (field->type) {
    case FIELD_INT:
    case FIELD_NUMBER:
    case FIELD_WEIGHTS:
    case FIELD_INDEX: add_range(out, size, field->min, max); break;
    case FIELD_PROMPTS:
    case FIELD_TEXTS: add_texts(out, size, field_max_texts(field, options)); /* fall through */
    case FIELD_CONTENT:
    case FIELD_TEXT: add_count(out, size, field->min, max, "characters"); break;
    case FIELD_CHOICE:
    case FIELD_CHOICES: add_choices(out, size, field->choices); break;
    case FIELD_SOURCES: add_most(out, size, max); break;
    case FIELD_NAMES: add_count(out, size, field->min, max, "strings"); break;
    case FIELD_INTS: add_count(out, size, field->min, max, "integers from 0 up"); break;
    case FIELD_NUMBERS: add_count(out, size, field->min, max, "numbers"); break;
    case FIELD_PLACES:
      if (field->min > 1) {
        snprintf(out, size, "an array");
        add_count(out, size, field->min, max, "integers");
      }
      if (field->choices) {
        size_t used = strlen(out);
        snprintf(out + used, size - used, ", or one of");
        add_choices(out, size, field->choices);
      }
      break;
    case FIELD_OBJECT: add_example(out, size, "", field->example, ""); break;
    case FIELD_OBJECTS:
      add_count(out, size, field->min, max, "objects");
      add_example(out, size, "[", field->example, "]");
      break;
    default: break;
  }
}

/* The next letter of a name as if its words were joined by '_': an upper-case letter reads as '_' and then
 * its lower-case twin. `held` keeps the twin between two calls. */
static int next_letter(const char **at, int *held) {
  if (*held) {
    int letter = *held;
    *held = 0;
    return letter;
  }
  unsigned char c = (unsigned char)**at;
  if (c) (*at)++;
  if (c < 'A' || c > 'Z') return c;
  *held = tolower(c);
  return '_';
}

bool field_same_name(const char *given, const char *name) {
  if (strcmp(given, name) == 0) return true;
  int held_given = 0, held_name = 0, a, b;
  do {
    a = next_letter(&given, &held_given);
    b = next_letter(&name, &held_name);
  } while (a == b && a != 0);
  return a == b;
}

bool field_word_in(const char *words, const char *word, size_t length) {
  for (const char *at = words; *at;) {
    size_t n = strcspn(at, " ");
    if (n == length && memcmp(at, word, n) == 0) return true;
    at += n;
    at += strspn(at, " ");
  }
  return false;
}

bool field_answers(const struct field *field, const char *given) {
  if (field_same_name(given, field->name)) return true;
  for (const char *at = field->aliases; at && *at;) {
    char alias[64];
    int n = (int)strcspn(at, " ");
    snprintf(alias, sizeof alias, "%.*s", n, at);
    if (field_same_name(given, alias)) return true;
    at += n;
    at += strspn(at, " ");
  }
  return false;
}
