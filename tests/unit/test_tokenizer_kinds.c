/* test_tokenizer_kinds.c: every kind of tokenizer.json steerd serves against ids and texts recorded from the
 * `tokenizers` library (tests/vectors/tokenizer/make_kinds.py), llama2.c's tokenizer.bin, and tables from files
 * that lie. */
#include "core/model/tokenizer_private.h"
#include "tests/unit/tokenizer_cases.h"

#define KIND(function, name)            \
  static void function(void **state) {  \
    (void)state;                        \
    expect_cases("kinds/" name);        \
  }
KIND(test_llama3, "llama3")
KIND(test_qwen, "qwen")
KIND(test_neox, "neox")
KIND(test_digits, "digits")
KIND(test_digits_behind, "digits-behind")
KIND(test_o200k, "o200k")
KIND(test_llama2, "llama2")
KIND(test_gemma, "gemma")
KIND(test_metaspace, "metaspace")
KIND(test_metaspace_split, "metaspace-split")
KIND(test_words, "words")
KIND(test_cuts, "cuts")

/* ---- BOS and the beginning of a text ---- */

static void test_template_bos(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/kinds/llama3");
  assert_int_equal(tokenizer_bos(t), 420);
  assert_true(tokenizer_prepends_bos(t));
  assert_true(tokenizer_is_special(t, 420));
  EXPECT_IDS(t, "", TOKENIZE_BOS, 420);
  EXPECT_IDS(t, "<|begin_of_text|>", TOKENIZE_BOS, 420);
  tokenizer_free(t);
}

/* TransformerLens runs these families without BOS; tokenizer_config.json has the last word. */
static void test_bos_habit(void **state) {
  (void)state;
  static const struct {
    const char *model, *tokenizer;
    bool prepends;
  } settings[] = {{"{\"model_type\":\"gpt2\"}", "{}", true},
                  {"{\"model_type\":\"gpt_neox\"}", "{}", false},
                  {"{\"model_type\":\"phi\"}", "{}", false},
                  {"{\"model_type\":\"gpt_neox\"}", "{\"add_bos_token\":true}", true},
                  {"{\"model_type\":\"llama\"}", "{\"add_bos_token\":false}", false}};
  char *folder = temporary_folder();
  write_file(folder, "vocab.json", "{\"a\":0,\"" END "\":1}");
  write_file(folder, "merges.txt", "");
  for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
    write_file(folder, "config.json", settings[i].model);
    write_file(folder, "tokenizer_config.json", settings[i].tokenizer);
    struct tokenizer *t = open_folder(folder);
    assert_int_equal(tokenizer_bos(t), 1);
    assert_int_equal(tokenizer_prepends_bos(t), settings[i].prepends);
    tokenizer_free(t);
  }
  remove_folder(folder);
}

/* A continuation keeps the space that the beginning of a text loses. */
static void test_beginning(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/kinds/llama2");
  struct ids ids = encode(t, "the sea", 7, 0);
  struct detokenizer d;
  for (int begin = 0; begin < 2; begin++) {
    detokenizer_init(&d, t);
    if (begin) detokenizer_begin(&d);
    for (size_t i = 0; i < ids.count; i++) assert_int_equal(detokenizer_push(&d, ids.at[i]), 0);
    assert_string_equal(d.text.data, begin ? "the sea" : " the sea");
    detokenizer_clear(&d);
  }
  free(ids.at);
  tokenizer_free(t);
}

/* Half a character is never shown: its bytes wait, and become U+FFFD when the text ends. */
static void test_partial_character(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/kinds/llama2");
  struct ids ids = encode(t, "\xF0\x9F\xA7\xBF", 4, 0);
  struct detokenizer d;
  assert_int_equal(ids.count, 5); /* the space in front, four bytes */
  detokenizer_init(&d, t);
  for (int i = 1; i < 4; i++) assert_int_equal(detokenizer_push(&d, ids.at[i]), 0);
  assert_int_equal(d.text.length, 0);
  detokenizer_finish(&d);
  assert_string_equal(d.text.data, "\xEF\xBF\xBD");
  detokenizer_clear(&d);
  free(ids.at);
  tokenizer_free(t);
}

/* ---- llama2.c ---- */

static size_t put_piece(char *out, float score, const char *text) {
  int32_t length = (int32_t)strlen(text);
  memcpy(out, &score, 4);
  memcpy(out + 4, &length, 4);
  memcpy(out + 8, text, (size_t)length);
  return 8 + (size_t)length;
}

/* <unk>, <s>, </s>, " ", a, b, and further pieces with their scores; returns the size. */
static size_t make_bin(char *out, const char *const *pieces, const float *scores, int count) {
  static const char *const first[] = {"<unk>", "\n<s>\n", "\n</s>\n", " ", "a", "b"};
  size_t size = 4;
  memset(out, 0, 4);
  for (int i = 0; i < 6; i++) size += put_piece(out + size, i < 3 ? 0 : -100.0f - (float)i, first[i]);
  for (int i = 0; i < count; i++) size += put_piece(out + size, scores[i], pieces[i]);
  return size;
}

/* Of pieces with one score the leftmost goes first, whichever way they are cut. */
static void test_llama2c_order(void **state) {
  (void)state;
  static const char *const pieces[] = {"ab", "ba", "aba", "<0x0A>"};
  static const float scores[] = {-1, -1, -2, 0};
  char data[512];
  struct error error = ERROR_INIT;
  struct tokenizer *t = tokenizer_parse_llama2c(data, make_bin(data, pieces, scores, 4), &error);
  assert_non_null(t);
  assert_int_equal(tokenizer_size(t), 10);
  EXPECT_IDS(t, "aba", 0, 3, 8);
  EXPECT_IDS(t, "bab", 0, 3, 7, 5);
  EXPECT_IDS(t, "\n", TOKENIZE_BOS, 1, 3, 9);
  EXPECT_IDS(t, "<s>", TOKENIZE_BOS, 1);
  EXPECT_IDS(t, "cc", 0, 3, 0); /* two unknown characters are one */
  tokenizer_free(t);
}

static void test_llama2c_refused(void **state) {
  (void)state;
  static const char *const pieces[] = {"ab"};
  static const float scores[] = {-1};
  char data[512], changed[512];
  size_t size = make_bin(data, pieces, scores, 1);
  struct error error = ERROR_INIT;
  for (size_t cut = 0; cut < size; cut++) { /* what ends between two pieces is a smaller vocabulary */
    struct tokenizer *t = tokenizer_parse_llama2c(data, cut, NULL);
    tokenizer_free(t);
  }
  assert_null(tokenizer_parse_llama2c(data, size - 1, &error));
  assert_non_null(strstr(error.text, "piece 6 at byte"));
  static const struct {
    size_t back; /* bytes from the end */
    const char *bytes, *reason;
  } lies[] = {{6, "\xFF\xFF\xFF\xFF", "does not fit"}, {6, "\xFF\xFF\xFF\x7F", "does not fit"},
              {10, "\0\0\xC0\x7F", "score nan"},       {2, "\xFF", "not valid UTF-8"}};
  for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
    error_clear(&error);
    memcpy(changed, data, size);
    memcpy(changed + size - lies[i].back, lies[i].bytes, lies[i].back == 2 ? 1 : 4);
    assert_null(tokenizer_parse_llama2c(changed, size, &error));
    if (!strstr(error.text, lies[i].reason)) fail_msg("'%s' does not say '%s'", error.text, lies[i].reason);
  }
  static const char *const twice[] = {"ab", "ab"};
  static const float same[] = {-1, -2};
  error_clear(&error);
  assert_null(tokenizer_parse_llama2c(data, make_bin(data, twice, same, 2), &error));
  assert_non_null(strstr(error.text, "same bytes"));
}

/* The same vocabulary in two formats gives the same ids. */
static void test_stories(void **state) {
  (void)state;
  static const char *const texts[] = {"", "Once upon a time, there was a little girl.", " two  spaces ", "\n\nnew\tlines",
                                      "caf\xC3\xA9 \xF0\x9F\x9A\x80", "1234 !?", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
  const char *path = data_path("models/stories260K/tok512.bin");
  struct error error = ERROR_INIT;
  if (!path) skip();
  struct tokenizer *a = tokenizer_open_llama2c(path, &error), *b = open_folder(data_path("models/stories260K/hf"));
  assert_non_null(a);
  assert_int_equal(tokenizer_size(a), 512);
  expect_same_ids(a, b, texts, sizeof texts / sizeof texts[0]);
  tokenizer_free(a);
  tokenizer_free(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_llama3),         cmocka_unit_test(test_qwen),            cmocka_unit_test(test_neox),
      cmocka_unit_test(test_digits),         cmocka_unit_test(test_digits_behind),   cmocka_unit_test(test_o200k),
      cmocka_unit_test(test_llama2),         cmocka_unit_test(test_gemma),           cmocka_unit_test(test_metaspace),
      cmocka_unit_test(test_metaspace_split), cmocka_unit_test(test_words),          cmocka_unit_test(test_cuts),
      cmocka_unit_test(test_template_bos),   cmocka_unit_test(test_bos_habit),       cmocka_unit_test(test_beginning),
      cmocka_unit_test(test_partial_character), cmocka_unit_test(test_llama2c_order), cmocka_unit_test(test_llama2c_refused),
      cmocka_unit_test(test_stories),
  };
  return cmocka_run_group_tests_name("tokenizer_kinds", tests, NULL, NULL);
}
