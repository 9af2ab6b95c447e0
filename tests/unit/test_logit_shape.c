/* test_logit_shape.c: moments and token-set enrichment beside the obvious way of computing them, and which tokens are in which
 * built-in set. */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/analysis/logit_shape.h"
#include "core/analysis/token_classes.h"
#include "core/base/random.h"
#include "core/lab/token_sets.h"

/* ---- moments ---- */

static void moments_of_a_few_numbers(void **state) {
  (void)state;
  static const float numbers[] = {2, 4, 4, 4, 5, 5, 7, 9};
  struct logit_moments m;
  logit_moments(numbers, 8, &m);
  assert_true(m.mean == 5 && m.std == 2);
  /* By hand: the sum of d^3 is -27 - 3 + 8 + 64 = 42, of d^4 81 + 3 + 16 + 256 = 356. */
  assert_true(m.skewness == 42.0 / 8 / 8);
  assert_true(m.kurtosis == 356.0 / 8 / 16);
}

static void moments_without_a_shape(void **state) {
  (void)state;
  struct logit_moments m;
  logit_moments((const float[]){3, 3, 3}, 3, &m);
  assert_true(m.mean == 3 && m.std == 0 && isnan(m.skewness) && isnan(m.kurtosis));
  logit_moments((const float[]){3, INFINITY}, 2, &m);
  assert_true(isnan(m.mean) && isnan(m.std) && isnan(m.skewness));
  logit_moments((const float[]){3, NAN}, 2, &m);
  assert_true(isnan(m.mean));
}

/* ---- enrichment ---- */

enum { VOCABULARY = 997, SETS = 5 };

static int compare(const float *logits, int a, int b) { return logits[a] != logits[b] ? (logits[a] > logits[b] ? -1 : 1) : a - b; }

/* The definition: sort, walk down, look at the sum everywhere. */
static double walked(const struct token_sets *sets, int set, const float *logits, bool *top) {
  int order[VOCABULARY];
  double sum = 0, farthest = 0;
  for (int i = 0; i < VOCABULARY; i++) {
    int at = i;
    for (; at > 0 && compare(logits, i, order[at - 1]) < 0; at--) order[at] = order[at - 1];
    order[at] = i;
  }
  for (int i = 0; i < VOCABULARY; i++) {
    bool in = sets->member[order[i]] >> set & 1;
    sum += in ? 1.0 / (double)sets->size[set] : -1.0 / (double)(VOCABULARY - sets->size[set]);
    if (fabs(sum) > fabs(farthest)) farthest = sum;
  }
  *top = farthest > 0;
  return fabs(farthest);
}

struct world {
  struct token_sets sets;
  struct enrichment_room room;
};

static void world_init(struct world *world) {
  struct error error = ERROR_INIT;
  assert_int_equal(token_sets_init(&world->sets, VOCABULARY, &error), 0);
  assert_int_equal(enrichment_room_init(&world->room, VOCABULARY, &error), 0);
  world->sets.n = SETS;
  token_sets_add(&world->sets, 0, VOCABULARY - 1);
  for (int i = 0; i < VOCABULARY; i++) {
    if (random_unit(7, 1, (uint64_t)i) < 0.02) token_sets_add(&world->sets, 1, i);
    if (random_unit(7, 2, (uint64_t)i) < 0.5) token_sets_add(&world->sets, 2, i);
    if (i != 3) token_sets_add(&world->sets, 3, i);
  }
  token_sets_add(&world->sets, 3, 5); /* once more */
  assert_int_equal(world->sets.size[3], VOCABULARY - 1);
}

static void world_end(struct world *world) {
  token_sets_clear(&world->sets);
  enrichment_room_clear(&world->room);
}

static void scores_as_the_walk_gives_them(void **state) {
  (void)state;
  struct world world;
  struct enrichment found[TOKEN_SETS_MOST];
  float logits[VOCABULARY];
  world_init(&world);
  for (int round = 0; round < 20; round++) {
    /* Every second round has many equals, both zeros among them. */
    for (int i = 0; i < VOCABULARY; i++) {
      double u = random_unit(11, (uint64_t)round, (uint64_t)i) * 2 - 1;
      logits[i] = round % 2 ? (float)u * 3 : (float)(int)(u * 4) * (u < 0 ? -1.0f : 1.0f) * 0.5f;
    }
    enrichment_scores(&world.sets, logits, &world.room, found);
    for (int s = 0; s < 4; s++) {
      bool top;
      double want = walked(&world.sets, s, logits, &top);
      /* The walk adds up to 997 terms one by one: 997 times 2^-53 each. */
      assert_true(fabs(found[s].score - want) < 1e-12);
      assert_int_equal(found[s].top, top);
    }
    assert_true(isnan(found[4].score)); /* the set without tokens */
  }
  world_end(&world);
}

static void extremes_have_the_largest_score(void **state) {
  (void)state;
  struct world world;
  struct enrichment found[TOKEN_SETS_MOST];
  float logits[VOCABULARY];
  world_init(&world);
  for (int i = 0; i < VOCABULARY; i++) logits[i] = world.sets.member[i] & 2 ? 1e30f : -1e-30f * (float)(i + 1);
  enrichment_scores(&world.sets, logits, &world.room, found);
  assert_true(found[1].score > 1 - 1e-12 && found[1].score <= 1 && found[1].top);
  for (int i = 0; i < VOCABULARY; i++) logits[i] = -logits[i];
  enrichment_scores(&world.sets, logits, &world.room, found);
  assert_true(found[1].score > 1 - 1e-12 && found[1].score <= 1 && !found[1].top);
  logits[500] = NAN;
  enrichment_scores(&world.sets, logits, &world.room, found);
  assert_true(isnan(found[1].score));
  logits[500] = -INFINITY;
  enrichment_scores(&world.sets, logits, &world.room, found);
  assert_false(isnan(found[1].score));
  world_end(&world);
}

/* ---- classes ---- */

static void note(void *context, int class_number) {
  char *out = context;
  if (*out) strcat(out, " ");
  strcat(out, token_class_name(class_number));
}

static void classes_of_tokens(void **state) {
  (void)state;
  static const struct {
    const char *token, *classes;
  } cases[] = {
      {" The", "starts_with_space starts_with_capital length_3 t"},
      {"the", "starts_with_lower length_3 t"},
      {" U", "starts_with_space starts_with_capital all_caps length_1 u"},
      {"USA", "starts_with_capital all_caps length_3 u"},
      {" 42", "starts_with_space all_digits 2_digits length_2"},
      {"2024", "all_digits 4_digits length_4"},
      {"12345", "all_digits length_5"},
      {"1st", "length_3"},
      {"?!", "is_punctuation"},
      {" -", "starts_with_space"},
      {").", "is_punctuation contains_close_bracket"},
      {" f(x)", "starts_with_space starts_with_lower contains_close_bracket contains_open_bracket"},
      {"a_1", "starts_with_lower length_3"},
      {"\n", ""},
      {" ", "starts_with_space"},
      {"", ""},
      {"\xc3\xa9t\xc3\xa9", "length_3"},                        /* "été": letters, of no ASCII letter's set */
      {"na\xc3\xafve", "starts_with_lower length_5 n"},
      {"\xe2\x80\xa6", "is_punctuation"},                       /* an ellipsis */
      {"\xd9\xa3", "all_digits 1_digit length_1"},              /* an Arabic digit */
      {" \xc3", "starts_with_space"},                           /* a part of a character */
      {"(\xc3", "contains_open_bracket"},
  };
  struct error error = ERROR_INIT;
  struct token_judge *judge = token_judge_new(&error);
  if (!judge) fail_msg("%s", error.text);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char found[1024] = "";
    token_judge_classes(judge, cases[i].token, strlen(cases[i].token), note, found);
    if (strcmp(found, cases[i].classes) != 0) fail_msg("'%s' is in '%s', not in '%s'", cases[i].token, found, cases[i].classes);
  }
  token_judge_free(judge);
}

static void classes_are_found_by_name(void **state) {
  (void)state;
  for (int c = 0; c < token_class_count(); c++) assert_int_equal(token_class_find(token_class_name(c)), c);
  assert_int_equal(token_class_find("A"), -1);
  assert_true(token_class_count() <= TOKEN_SETS_MOST);
}

/* ---- words ---- */

/* What the tokens of a word show as, with '|' between them. */
static void expect_word(const struct model *model, const char *word, bool space, const char *want) {
  struct error error = ERROR_INIT;
  struct arena arena;
  int32_t *ids;
  size_t n;
  char found[256] = "";
  arena_init(&arena, 0);
  if (word_ids(model, word, space, "words[0]", &arena, &ids, &n, &error) != 0) fail_msg("%s", error.text);
  for (size_t i = 0; i < n; i++) {
    size_t length;
    const char *bytes = tokenizer_bytes(model->tokenizer, ids[i], &length);
    strcat(found, i ? "|" : "");
    strncat(found, bytes, length);
  }
  if (strcmp(found, want) != 0) fail_msg("'%s' became '%s', not '%s'", word, found, want);
  arena_clear(&arena);
}

/* A SentencePiece tokenizer puts a space in front by itself: one more would be a token of its own. */
static void words_stand_in_the_middle_of_a_text(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  static const char *const folders[] = {"tests/vectors/tokenizer/pieces/llama", "tests/vectors/tiny-gpt2/model"};
  for (int i = 0; i < 2; i++) {
    struct model model = {.tokenizer = tokenizer_open_folder(folders[i], &error), .arch.n_ctx = 100};
    if (!model.tokenizer) fail_msg("%s", error.text);
    expect_word(&model, "the", true, " the");
    expect_word(&model, " the", true, " the");
    if (i) expect_word(&model, "the", false, "the");
    tokenizer_free(model.tokenizer);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(moments_of_a_few_numbers),     cmocka_unit_test(moments_without_a_shape),
      cmocka_unit_test(scores_as_the_walk_gives_them), cmocka_unit_test(extremes_have_the_largest_score),
      cmocka_unit_test(classes_of_tokens),            cmocka_unit_test(classes_are_found_by_name),
      cmocka_unit_test(words_stand_in_the_middle_of_a_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
