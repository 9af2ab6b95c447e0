/* token_sets.c: words, ids and built-in classes become sets of a tokenizer's ids. */
#include "core/lab/token_sets.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/analysis/token_classes.h"

/* ---- words ---- */

static bool spells(const struct tokenizer *tokenizer, const int32_t *ids, size_t n, const char *text) {
  size_t at = 0, length = strlen(text);
  for (size_t i = 0; i < n; i++) {
    size_t bytes;
    const char *part = tokenizer_bytes(tokenizer, ids[i], &bytes);
    if (bytes > length - at || memcmp(text + at, part, bytes) != 0) return false;
    at += bytes;
  }
  return at == length;
}

static int encode(const struct model *model, const char *text, const char *field, struct arena *arena, int32_t **ids, size_t *n,
                  struct error *error) {
  int32_t *made = NULL;
  if (lab_encode(model, text, strlen(text), false, 0, field, &made, n, error) != 0) return -1;
  *ids = arena_array(arena, *n, sizeof **ids, error);
  if (*ids) memcpy(*ids, made, *n * sizeof **ids);
  free(made);
  return *ids ? 0 : -1;
}

/* Tokenizers in SentencePiece's manner put a space in front of every text: for them " word" is what "word" gives. */
int word_ids(const struct model *model, const char *word, bool space, const char *field, struct arena *arena, int32_t **ids, size_t *n,
             struct error *error) {
  const char *text = space && word[0] != ' ' ? arena_printf(arena, error, " %s", word) : word;
  int32_t *other;
  size_t n_other;
  if (!text || encode(model, text, field, arena, ids, n, error) != 0) return -1;
  if (text[0] != ' ' || !text[1] || spells(model->tokenizer, *ids, *n, text)) return 0;
  if (encode(model, text + 1, field, arena, &other, &n_other, error) != 0) return -1;
  if (!spells(model->tokenizer, other, n_other, text)) return 0;
  *ids = other;
  *n = n_other;
  return 0;
}

/* ---- sets ---- */

static int refuse_class(const char *name, size_t i, struct error *error) {
  char field[32];
  snprintf(field, sizeof field, "builtin[%zu]", i);
  return error_set_field(error, ERROR_ARGUMENT, field, "there is no built-in token set '%.40s'; there are 'all', %s, %s ... %s, and "
                         "the letters 'a' to 'z' (docs/api.md lists them)", name, token_class_name(0), token_class_name(1),
                         token_class_name(token_class_count() - 27));
}

static int add_set(struct named_sets *out, const char *name, const char *field, struct error *error) {
  if (out->sets.n == TOKEN_SETS_MOST)
    return error_set_field(error, ERROR_LIMIT, field, "more than %d token sets in one request, the built-in ones included",
                           TOKEN_SETS_MOST);
  for (int s = 0; s < out->sets.n; s++)
    if (strcmp(out->name[s], name) == 0)
      return error_set_field(error, ERROR_ARGUMENT, field, "the token set '%.80s' comes twice", name);
  out->name[out->sets.n++] = name;
  return 0;
}

struct gathering {
  struct token_sets *sets;
  int set_of[TOKEN_SETS_MOST]; /* by class; -1: not asked for */
  int64_t id;
};
_Static_assert(TOKEN_SETS_MOST >= 43, "all classes fit into a request");

static void gather(void *context, int class_number) {
  struct gathering *g = context;
  if (g->set_of[class_number] >= 0) token_sets_add(g->sets, g->set_of[class_number], g->id);
}

/* One walk over the vocabulary for all classes. Special tokens are written like nothing: they are in none. */
static int gather_classes(const struct tokenizer *tokenizer, struct gathering *g, struct error *error) {
  struct token_judge *judge = token_judge_new(error);
  if (!judge) return -1;
  for (g->id = 0; g->id < g->sets->vocabulary; g->id++) {
    size_t n;
    const char *bytes = tokenizer_bytes(tokenizer, (int32_t)g->id, &n);
    if (!tokenizer_is_special(tokenizer, (int32_t)g->id)) token_judge_classes(judge, bytes, n, gather, g);
  }
  token_judge_free(judge);
  return 0;
}

static int add_classes(const struct model *model, const struct lab_token_sets *args, struct named_sets *out, struct error *error) {
  struct gathering g = {.sets = &out->sets};
  for (int c = 0; c < TOKEN_SETS_MOST; c++) g.set_of[c] = -1;
  for (size_t i = 0; i < args->n_classes; i++) {
    bool all = strcmp(args->classes[i], "all") == 0;
    int one = all ? 0 : token_class_find(args->classes[i]);
    if (one < 0) return refuse_class(args->classes[i], i, error);
    for (int c = one; c < (all ? token_class_count() : one + 1); c++) {
      g.set_of[c] = out->sets.n;
      if (add_set(out, token_class_name(c), "builtin", error) != 0) return -1;
    }
  }
  return args->n_classes ? gather_classes(model->tokenizer, &g, error) : 0;
}

static int add_given(const struct model *model, const struct lab_token_set *set, size_t i, struct arena *arena, struct named_sets *out,
                     struct error *error) {
  char field[64];
  snprintf(field, sizeof field, "sets[%zu].name", i);
  int number = out->sets.n;
  if (add_set(out, set->name, field, error) != 0) return -1;
  for (size_t w = 0; w < set->n_words; w++) {
    int32_t *ids;
    size_t n;
    snprintf(field, sizeof field, "sets[%zu].words[%zu]", i, w);
    if (word_ids(model, set->words[w], set->prepend_space, field, arena, &ids, &n, error) != 0) return -1;
    for (size_t k = 0; k < n; k++) token_sets_add(&out->sets, number, ids[k]);
  }
  for (size_t k = 0; k < set->n_ids; k++) {
    if (set->ids[k] < 0 || set->ids[k] >= out->sets.vocabulary) {
      snprintf(field, sizeof field, "sets[%zu].ids[%zu]", i, k);
      return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, the vocabulary has ids 0 to %lld", field,
                             (long long)set->ids[k], (long long)out->sets.vocabulary - 1);
    }
    token_sets_add(&out->sets, number, set->ids[k]);
  }
  return 0;
}

/* A set that says nothing of the order of tokens. Of a built-in one the vocabulary just has none: its scores are NaN. */
static int check_size(const struct named_sets *out, int set, size_t i, struct error *error) {
  char field[32];
  int64_t size = out->sets.size[set];
  if (size > 0 && size < out->sets.vocabulary) return 0;
  snprintf(field, sizeof field, "sets[%zu]", i);
  return error_set_field(error, ERROR_ARGUMENT, field, "the token set '%.80s' has %s; give it some of the %lld tokens as 'words' or 'ids'",
                         out->name[set], size ? "all tokens" : "no token", (long long)out->sets.vocabulary);
}

int named_sets_make(const struct model *model, const struct lab_token_sets *args, struct arena *arena, struct named_sets *out,
                    struct error *error) {
  *out = (struct named_sets){0};
  if (args->n_sets + args->n_classes == 0)
    return error_set_field(error, ERROR_ARGUMENT, "sets", "give token sets: 'builtin' names ([\"all\"]), 'sets' of your own "
                           "([{\"name\": ..., \"words\": [...]}]), or both");
  if (token_sets_init(&out->sets, tokenizer_size(model->tokenizer), error) != 0 || add_classes(model, args, out, error) != 0) return -1;
  for (size_t i = 0; i < args->n_sets; i++) {
    int set = out->sets.n;
    if (add_given(model, &args->sets[i], i, arena, out, error) != 0 || check_size(out, set, i, error) != 0) return -1;
  }
  return 0;
}
