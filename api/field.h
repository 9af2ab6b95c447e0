/* field.h: one row for each field of a request's body, or of the query of a GET.
 *
 * The rows of a route are its contract: parse.c validates with them and words its errors from them, openapi.c
 * and pages.c print them. A handler therefore never checks a type or a range again. */
#ifndef STEERD_API_FIELD_H
#define STEERD_API_FIELD_H

#include <stdbool.h>

#include "api/api.h"

enum field_type {
  FIELD_BOOL,
  FIELD_INT,     /* a JSON integer, or a number without a fraction (2.0) */
  FIELD_NUMBER,  /* a JSON integer or real */
  FIELD_INDEX,   /* a JSON integer, or a string of decimal digits */
  FIELD_TEXT,    /* a string; min and max count characters (Unicode code points) */
  FIELD_SOURCE,  /* as FIELD_TEXT, or an integer: the layer whose MLP neurons are meant */
  FIELD_SOURCES, /* as FIELD_SOURCE, or an array of these; max counts them */
  FIELD_TEXTS,   /* a string or an array of strings; min and max count the characters of each */
  FIELD_CHOICE,  /* one of `choices` */
  FIELD_CHOICES, /* an array of one or more of `choices` */
  FIELD_NAMES,   /* an array of strings or layer integers; min and max count elements */
  FIELD_INTS,    /* an array of integers, each at least 0; min and max count elements */
  FIELD_NUMBERS, /* an array of integers and reals; min and max count elements */
  FIELD_PLACES,  /* one of `choices`, or an array of integers; negative ones count from the end */
  FIELD_TOKENS,  /* an array of integers, each at least 0, or an array of such arrays; max counts elements of each */
  FIELD_PROMPTS, /* as FIELD_TEXTS, or as FIELD_TOKENS; min and max count characters or tokens of each */
  FIELD_WEIGHTS, /* an object: token ids, written as strings, to numbers from min to max */
  FIELD_CONTENT, /* a string, or an array of {type: "text", text}; min and max count characters of all together */
  FIELD_REFUSED, /* known, and not served: `text` says what to do instead; null is as good as left out */
  FIELD_ROWS,    /* an array of arrays of numbers, all of one length; min and max count the rows */
  FIELD_GROUPS,  /* an array of arrays of strings; min and max count the arrays, `most` the strings of each */
  FIELD_OBJECT,  /* an object with the rows `inner` */
  FIELD_OBJECTS  /* an array of such objects; min and max count elements */
};

/* Where the upper end of a range is a setting of the server rather than a constant of the row. */
enum field_cap { CAP_ROW, CAP_NEW_TOKENS, CAP_FEATURES, CAP_PROMPT };

/* What others call the number of a feature. */
#define INDEX_MEANT "idx feature feature_index featureIndex"

struct field {
  const char *name;         /* as documented; camelCase and snake_case spellings are the same name */
  const char *aliases;      /* other names it answers to, separated by spaces; NULL: none */
  enum field_type type;
  bool required;
  const char *unless;       /* required too, unless the field of this name is given; NULL: no other stands in for it */
  const char *fallback;     /* value when absent, as JSON without quotes; NULL: none */
  double min, max;          /* inclusive; a text or list with max 0 is bounded by the body's size only */
  enum field_cap cap;       /* replaces max */
  const char *text;         /* one sentence for the reader of the documentation */
  const char *choices;      /* words separated by spaces */
  const struct field *inner;
  const char *example;      /* of FIELD_OBJECT and FIELD_OBJECTS: one object, as JSON */
  bool strict;              /* unknown fields of `inner` are refused on every route */
  int most;                 /* FIELD_TEXTS: how many at most; 0: as many as the server's setting allows */
  bool none;                /* FIELD_TEXTS: an array of none is as good as left out */
  const char *meant;        /* words that others use for it, separated by spaces: not taken, but told as what was probably meant */
  bool bare;                /* FIELD_OBJECTS, first row only: the body may be this array itself */
};
/* An array of rows ends with one whose name is NULL. */

/* The upper end that is in force. */
double field_max(const struct field *field, const struct api_options *options);

/* The number a field has when it is left out, never beyond the upper end in force; 0 without a default. */
double field_default(const struct field *field, const struct api_options *options);

/* How many texts (or arrays of tokens) the field may hold. */
int field_max_texts(const struct field *field, const struct api_options *options);

/* What is allowed, for a reader: "an integer from 1 to 256", "one of 'STEERED', 'DEFAULT'". */
void field_allowed(const struct field *field, const struct api_options *options, char *out, size_t size);

/* Whether `given` is the same name as `name`, whichever way its words are joined ("nTokens", "n_tokens"). */
bool field_same_name(const char *given, const char *name);

/* Whether `given` is the row's name or one of its aliases. */
bool field_answers(const struct field *field, const char *given);

/* Whether word[0..length) is one of the words in `words`. */
bool field_word_in(const char *words, const char *word, size_t length);

#endif
