/* explain.c: counts tokens among the strongest examples and says what most of them share. */
#include "core/analysis/explain.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define MAX_EXAMPLES 32
#define MAX_NAMED 3        /* tokens named */
#define MOST 0.8           /* of the examples: "fires on" a closed list */
#define OFTEN 0.1          /* of the tokens: a list of what it fires on would leave most of it out */
#define SHARED_BEFORE 0.6  /* of the examples: what stands before is worth saying */
#define PROMOTED 3

/* How often each word stands among the examples; words are compared without case and outer spaces. */
struct tally {
  const char *words[MAX_EXAMPLES];
  int counts[MAX_EXAMPLES];
  int n;
};

static const char *skip_space(const char *text) {
  const char *p = text;
  while (*p == ' ') p++;
  return *p ? p : text; /* a token of spaces stays as it is */
}

static int same_word(const char *a, const char *b) {
  a = skip_space(a);
  b = skip_space(b);
  while (*a && tolower((unsigned char)*a) == tolower((unsigned char)*b)) a++, b++;
  return *a == *b;
}

static void count(struct tally *tally, const char *word) {
  for (int i = 0; i < tally->n; i++) {
    if (!same_word(tally->words[i], word)) continue;
    tally->counts[i]++;
    return;
  }
  tally->words[tally->n] = word;
  tally->counts[tally->n++] = 1;
}

/* The commonest first; earlier ones stay in front of equals. */
static void sort(struct tally *tally) {
  for (int i = 1; i < tally->n; i++)
    for (int j = i; j > 0 && tally->counts[j] > tally->counts[j - 1]; j--) {
      const char *word = tally->words[j];
      int n = tally->counts[j];
      tally->words[j] = tally->words[j - 1];
      tally->counts[j] = tally->counts[j - 1];
      tally->words[j - 1] = word;
      tally->counts[j - 1] = n;
    }
}

/* A token in quotation marks; white space that would not be seen is named. */
static void quote(struct buffer *out, const char *token) {
  static const struct {
    const char *token, *name;
  } named[] = {{" ", "a space"}, {"\n", "a newline"}, {"\n\n", "an empty line"}, {"\t", "a tab"}};
  for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
    if (strcmp(named[i].token, token) != 0) continue;
    buffer_text(out, named[i].name);
    return;
  }
  buffer_text(out, "“");
  for (const char *p = skip_space(token); *p; p++) {
    if (*p == '\n')
      buffer_text(out, "↵"); /* as the dashboard shows it */
    else if ((unsigned char)*p < 0x20 || *p == 0x7F)
      buffer_printf(out, "\\x%02x", (unsigned char)*p); /* would not be seen either */
    else
      buffer_char(out, *p);
  }
  buffer_text(out, "”");
}

static void list(struct buffer *out, const char *const *words, int n, const char *last) {
  for (int i = 0; i < n; i++) {
    if (i) buffer_text(out, i == n - 1 ? last : ", ");
    quote(out, words[i]);
  }
}

static bool is_named(const char *const *words, int n, const char *word) {
  for (int i = 0; i < n; i++)
    if (same_word(words[i], word)) return true;
  return false;
}

/* The token of the strongest example is always named: what it fires on hardest says most, however seldom it comes. In a closed list
 * it is told as the exception that it is; else it is one of those that are named. `often`: it fires nearly everywhere, so that
 * the examples only show where it does most. */
static void say_tokens(const struct tally *tokens, int n_examples, const char *strongest, const char *often, struct buffer *out) {
  const char *words[MAX_NAMED];
  int named = tokens->n < MAX_NAMED ? tokens->n : MAX_NAMED, covered = 0;
  while (named > 1 && tokens->counts[named - 1] < tokens->counts[0] && tokens->counts[named - 1] == 1) named--;
  for (int i = 0; i < named; i++) covered += tokens->counts[i];
  bool most = covered >= MOST * n_examples;
  if (!most) named = tokens->n < MAX_NAMED ? tokens->n : MAX_NAMED;
  for (int i = 0; i < named; i++) words[i] = tokens->words[i];
  bool told = is_named(words, named, strongest), apart = !told && most && !often;
  if (!told && !apart) words[named < MAX_NAMED ? named++ : named - 1] = strongest;
  buffer_text(out, often ? often : "fires");
  buffer_text(out, most ? " on " : " on various tokens, among them ");
  list(out, words, named, most ? " or " : " and ");
  if (!apart) return;
  buffer_text(out, ", most strongly on ");
  quote(out, strongest);
}

/* NULL where what the examples show is where it fires. */
static const char *fires_often(double rate) {
  if (rate > OFTEN) return rate > 0.5 ? "fires on most tokens, most strongly" : "fires on many tokens, most strongly";
  return NULL;
}

static void say_before(const struct tally *before, int n_examples, struct buffer *out) {
  if (!before->n || before->counts[0] < SHARED_BEFORE * n_examples || before->counts[0] < 3) return;
  buffer_text(out, ", mostly after ");
  quote(out, before->words[0]);
}

static void say_promoted(const struct explain_input *input, struct buffer *out) {
  int n = (int)(input->n_promoted < PROMOTED ? input->n_promoted : PROMOTED);
  if (!n) return;
  buffer_text(out, "; promotes ");
  list(out, input->promoted, n, " and ");
}

void explain_feature(const struct explain_input *input, struct buffer *out) {
  struct tally tokens = {.n = 0}, before = {.n = 0};
  int n = (int)(input->n_examples < MAX_EXAMPLES ? input->n_examples : MAX_EXAMPLES);
  for (int i = 0; i < n; i++) {
    count(&tokens, input->examples[i].token);
    if (input->examples[i].before) count(&before, input->examples[i].before);
  }
  sort(&tokens);
  sort(&before);
  if (n) {
    say_tokens(&tokens, n, input->examples[0].token, fires_often(input->rate), out);
    say_before(&before, n, out);
  } else {
    buffer_text(out, input->rate < 0 ? "no statistics yet" : "never fired on the text of the statistics");
  }
  say_promoted(input, out);
}
