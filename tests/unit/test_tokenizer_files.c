/* test_tokenizer_files.c: the settings beside a tokenizer's files, and every refusal by its reason. */
#include "core/base/log.h"
#include "tests/unit/tokenizer_helpers.h"

/* ---- settings of a folder ----------------------------------------------------------------------- */

/* A vocabulary of three letters, one merge and two control tokens. */
#define SMALL_VOCAB "{\"a\":0,\"b\":1,\"\xC4\xA0\":2,\"ab\":3,\"" END "\":4,\"<s>\":5}"
#define SMALL_MERGES "#version: 0.2\na b\n"

struct setting {
  const char *file, *text;
  int bos, eos;
  bool prepends;
};

static void test_settings(void **state) {
  (void)state;
  static const struct setting settings[] = {
      {"corpus.txt", "", 4, 4, true},
      {"tokenizer_config.json", "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"" END "\"}}", 5, 4,
       true},
      {"tokenizer_config.json", "{\"bos_token\":\"<s>\",\"add_bos_token\":false}", 5, 4, false},
      {"tokenizer_config.json", "{\"bos_token\":null}", -1, 4, false},
      {"special_tokens_map.json", "{\"eos_token\":\"<s>\"}", 4, 5, true},
      {"config.json", "{\"bos_token_id\":5,\"eos_token_id\":4}", 5, 4, true},
      {"config.json", "{\"bos_token_id\":50256,\"eos_token_id\":null}", 4, 4,
       true},                                                                 /* of another vocabulary */
      {"config.json", "{\"bos_token_id\":0,\"eos_token_id\":3}", 4, 4, true}, /* ordinary text */
      {"generation_config.json", "{\"eos_token_id\":[5,4]}", 4, 5, true},
  };
  for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
    const struct setting *s = &settings[i];
    char *folder = temporary_folder();
    write_file(folder, "vocab.json", SMALL_VOCAB);
    write_file(folder, "merges.txt", SMALL_MERGES);
    write_file(folder, s->file, s->text);
    struct tokenizer *t = open_folder(folder);
    if (tokenizer_bos(t) != s->bos || tokenizer_eos(t) != s->eos || tokenizer_prepends_bos(t) != s->prepends)
      fail_msg("%s %s: bos %d, eos %d, prepends %d", s->file, s->text, tokenizer_bos(t), tokenizer_eos(t),
               tokenizer_prepends_bos(t));
    EXPECT_IDS(t, "ab ba", 0, 3, 2, 1, 0);
    if (s->bos >= 0)
      assert_true(tokenizer_is_special(t, s->bos));
    expect_encode_error(t, "abc", 3, "no piece for byte 0x63 of the character U+0063 at byte 2");
    tokenizer_free(t);
    remove_folder(folder);
  }
}

static void test_prefix_space_setting(void **state) {
  (void)state;
  char *folder = temporary_folder();
  write_file(folder, "vocab.json", SMALL_VOCAB);
  write_file(folder, "merges.txt", "a b\r\n\r\n"); /* no version line, ends of the other fashion */
  write_file(folder, "tokenizer_config.json", "{\"add_prefix_space\":true}");
  struct tokenizer *t = open_folder(folder);
  EXPECT_IDS(t, "ab", 0, 2, 3);
  EXPECT_IDS(t, " ab", 0, 2, 3);
  EXPECT_IDS(t, "a" END "b", TOKENIZE_SPECIAL, 2, 0, 4, 2, 1);
  tokenizer_free(t);
  remove_folder(folder);
}

/* ---- refusals ----------------------------------------------------------------------------------- */

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define GPT2_REGEX                                                                                           \
  "\"'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| ?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+\""
#define VOCAB "{\"a\":0,\"b\":1,\"ab\":2}"
#define MODEL(vocab, merges, more)                                                                           \
  "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges more "}"
#define GOOD MODEL(VOCAB, "[\"a b\"]", "")
#define FILE_OF(model, pre, more) "{" model ",\"pre_tokenizer\":" pre more "}"
#define SPLIT(regex, behavior)                                                                               \
  "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"" behavior "\"}"
#define ADDED(text) ",\"added_tokens\":[" text "]"

static void test_refused_json(void **state) {
  (void)state;
  static const struct {
    const char *text, *reason;
    enum error_code code;
  } files[] = {
      {FILE_OF(GOOD, BYTE_LEVEL, ""), NULL, ERROR_NONE},
      {"", "invalid JSON", ERROR_FORMAT},
      {"[]", "tokenizer model 'nothing'", ERROR_UNSUPPORTED},
      {"{\"model\":{\"type\":\"WordPiece\"}}", "'WordPiece' is not supported; supported: BPE",
       ERROR_UNSUPPORTED},
      {"{\"model\":{\"type\":\"Unigram\"}}", "'Unigram'", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"dropout\":0.1"), BYTE_LEVEL, ""), "dropout", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"end_of_word_suffix\":\"</w>\""), BYTE_LEVEL, ""),
       "end_of_word_suffix '</w>'", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"continuing_subword_prefix\":\"##\""), BYTE_LEVEL, ""),
       "continuing_subword_prefix '##'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"normalizer\":{\"type\":\"BertNormalizer\"}"), "normalizer 'BertNormalizer'",
       ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"decoder\":{\"type\":\"WordPiece\"}"), "decoder 'WordPiece'",
       ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"post_processor\":{\"type\":\"BertProcessing\"}"),
       "post_processor 'BertProcessing'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL,
               ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{}},"
               "{\"SpecialToken\":{\"id\":\"a\"}}]}"),
       "TemplateProcessing", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL,
               ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
               "{\"id\":\"x\"}},{\"Sequence\":{}}],\"special_tokens\":{\"x\":{\"ids\":[9]}}}"),
       "names 'x', which is no token", ERROR_FORMAT},
      {FILE_OF(GOOD, "{\"type\":\"BertPreTokenizer\"}", ""), "pre_tokenizer 'BertPreTokenizer'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Metaspace\"}", ""), "replacement of a Metaspace", ERROR_FORMAT},
      {FILE_OF(GOOD, "{\"type\":\"Sequence\",\"pretokenizers\":7}", ""), "pre_tokenizer 'Sequence'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Sequence\",\"pretokenizers\":[" BYTE_LEVEL ",{\"type\":\"Whitespace\"}]}", ""),
       "'Whitespace' behind ByteLevel", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("a", "Shredded"), ""), "behavior 'Shredded' of a Split", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("a*", "Isolated"), ""), "the pattern 'a*' is not supported: it can match the empty text",
       ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("a{2}+", "Isolated"), ""), "this repetition in a pattern, at '{2}+'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("^a", "Isolated"), ""), "an anchor in a pattern, at '^a'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("[a&&b]", "Isolated"), ""), "a class within a class", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("[\\\\Sa]", "Isolated"), ""), "this escape in a pattern, at '\\Sa]'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("[a", "Isolated"), ""), "a class without end", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("(?<n>a)", "Isolated"), ""), "this group in a pattern", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("\\\\p{Nonsense}", "Isolated"), ""), "PCRE2 refuses it", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, SPLIT("(a", "Isolated"), ""), "PCRE2 refuses it", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Split\",\"pattern\":7}", ""), "something else than a Regex", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Split\",\"pattern\":{\"String\":\"\"}}", ""), "empty pattern", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"normalizer\":{\"type\":\"Prepend\"}"), "the prepend of a normalizer 'Prepend' is nothing",
       ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"$\"},\"content\":\"\"}"),
       "an anchor", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "null", ",\"decoder\":{\"type\":\"ByteLevel\"}"), "decoder 'ByteLevel'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "null", ",\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}"), "decoder 'Strip'",
       ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"decoder\":{\"type\":\"Fuse\"}"), "of byte-level pieces", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL("[]", "[]", ""), BYTE_LEVEL, ""), "the vocabulary is an array", ERROR_FORMAT},
      {FILE_OF(MODEL("{}", "[]", ""), BYTE_LEVEL, ""), "vocabulary is empty", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":\"0\"}", "[]", ""), BYTE_LEVEL, ""), "piece 'a' is a string", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":-1}", "[]", ""), BYTE_LEVEL, ""), "id -1 of piece 'a'", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":2000}", "[]", ""), BYTE_LEVEL, ""), "outside 0 to 1027", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":99999999999999}", "[]", ""), BYTE_LEVEL, ""), "id 99999999999999", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":1,\"b\":1}", "[]", ""), BYTE_LEVEL, ""), "id 1 stands twice", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":1,\"a\":2}", "[]", ""), BYTE_LEVEL, ""), "the ids 1 and 2 stand for the same bytes", ERROR_FORMAT},
      {"{" GOOD "," GOOD "}", "duplicate object key", ERROR_FORMAT},
      {"{\"model\":{\"vocab\":" VOCAB ",\"merges\":[],\"vocab\":" VOCAB "}}", "duplicate object key", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":1e2}", "[]", ""), BYTE_LEVEL, ""), "'1e2' is no integer", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":1,}", "[]", ""), BYTE_LEVEL, ""), "invalid JSON at byte", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":99999999999999999999}", "[]", ""), BYTE_LEVEL, ""), "no integer of 64 bits", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[[[[\"a\"]]]]", ""), BYTE_LEVEL, ""), "merge 0 is an array, but not", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a b\" \"a b\"]", ""), BYTE_LEVEL, ""), "invalid JSON at byte 68: ',' or ']' is expected",
       ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a b\",]", ""), BYTE_LEVEL, ""), "merge 1 is nothing", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[,]", ""), BYTE_LEVEL, ""), "merge 0 is nothing", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a b\"}", ""), BYTE_LEVEL, ""), "',' or ']' is expected", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a b", ""), BYTE_LEVEL, ""), "it ends where the end of an array is expected", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a\\", ""), BYTE_LEVEL, ""), "it ends where the end of an array is expected", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a\\u0020b\", [\"\\u0061\", \"b\"]]", ""), BYTE_LEVEL, ""), NULL, ERROR_NONE},
      {FILE_OF(GOOD, BYTE_LEVEL, "") "x", "the end is expected", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "{}", ""), BYTE_LEVEL, ""), "merges are an object", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[7]", ""), BYTE_LEVEL, ""), "merge 0 is a number", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[[\"a\",\"b\",\"a\"]]", ""), BYTE_LEVEL, ""), "merge 0 is an array",
       ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"ab\"]", ""), BYTE_LEVEL, ""), "'ab' is not two pieces", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a b b\"]", ""), BYTE_LEVEL, ""), "not two pieces", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a x\"]", ""), BYTE_LEVEL, ""),
       "'a x': merge 0: the vocabulary lacks its right piece", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"a b\",\"x a\"]", ""), BYTE_LEVEL, ""),
       "merge 1: the vocabulary lacks its left piece", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\"b a\"]", ""), BYTE_LEVEL, ""), "lacks its result", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[\" b\"]", ""), BYTE_LEVEL, ""), "names ''", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[[\"a\",\"\xE6\xBC\xA2\"]]", ""), BYTE_LEVEL, ""),
       "not of the byte-level alphabet", ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":3}")), "no content", ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":3.5,\"content\":\"x\"}")), "piece 'x' is a number",
       ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":3,\"content\":\"\"}")), "has 0 bytes", ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":2,\"content\":\"x\"}")), "id 2, which another piece has",
       ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":3,\"content\":\"ab\"}")), "the vocabulary gives it 2",
       ERROR_FORMAT},
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":3,\"content\":\"x\"},{\"id\":4,\"content\":\"x\"}")),
       "'x' stands twice", ERROR_FORMAT},
  };
  char *folder = temporary_folder();
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    struct error error = ERROR_INIT;
    write_file(folder, "tokenizer.json", files[i].text);
    struct tokenizer *t = tokenizer_open_folder(folder, &error);
    bool good = files[i].reason == NULL;
    if ((t != NULL) != good || error.code != files[i].code || (!good && !strstr(error.text, files[i].reason)))
      fail_msg("%s: (%d) '%s' does not say '%s'", files[i].text, (int)error.code, error.text,
               files[i].reason);
    if (!good)
      assert_non_null(strstr(error.text, folder)); /* the file is named */
    tokenizer_free(t);
  }
  remove_folder(folder);
}

/* Merges are taken many at a time; the wrong one is named all the same, in whatever batch and form it comes. */
static void test_wrong_merge_among_many(void **state) {
  (void)state;
  static const struct {
    const char *good, *wrong, *reason;
  } files[] = {{"\"a b\"", "\"b a\"", "the merge 'b a': merge %d: the vocabulary lacks its result"},
               {"[\"a\",\"b\"]", "[\"b\",\"a\"]", "the merge 'b a': merge %d: the vocabulary lacks its result"},
               {"\"a b\"", "7", "merge %d is a number"},
               {"[\"a\", \"b\"]", "[\"a\"]", "merge %d is an array, but not"}};
  static const int places[] = {0, 63, 64, 200};
  char *folder = temporary_folder(), *text = malloc(8192), reason[96];
  assert_non_null(text);
  for (size_t i = 0; i < 16; i++) {
    struct error error = ERROR_INIT;
    int place = places[i % 4];
    char *at = text + sprintf(text, "{\"model\":{\"type\":\"BPE\",\"vocab\":" VOCAB ",\"merges\":[");
    for (int n = 0; n < place; n++) at += sprintf(at, "%s,", files[i / 4].good);
    sprintf(at, "%s,%s]},\"pre_tokenizer\":" BYTE_LEVEL "}", files[i / 4].wrong, files[i / 4].good);
    snprintf(reason, sizeof reason, files[i / 4].reason, place);
    write_file(folder, "tokenizer.json", text);
    assert_null(tokenizer_open_folder(folder, &error));
    if (!strstr(error.text, reason)) fail_msg("'%s' does not say '%s'", error.text, reason);
  }
  free(text);
  remove_folder(folder);
}

static void test_refused_merges(void **state) {
  (void)state;
  static const struct {
    const char *vocab, *merges, *reason;
  } files[] = {
      {SMALL_VOCAB, "#version: 0.2\na b\nb a\n",
       "line 3: the merge 'b a': merge 1: the vocabulary lacks its result"},
      {SMALL_VOCAB, "a\n", "line 1: the merge 'a' is not two pieces"},
      {SMALL_VOCAB, "a b\n#version: 0.2\n", "line 2"},
      {SMALL_VOCAB, "a b\n\xFF\n", "not valid UTF-8 at byte 4"},
      {"{\"a\":[]}", "", "vocab.json: the id of piece 'a' is an array"},
      {"{\"a\":{\"b\":[1]}}", "", "the id of piece 'a' is an object"},
      {"[1]", "", "the vocabulary is an array"},
  };
  char *folder = temporary_folder();
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    struct error error = ERROR_INIT;
    write_file(folder, "vocab.json", files[i].vocab);
    write_file(folder, "merges.txt", files[i].merges);
    assert_null(tokenizer_open_folder(folder, &error));
    assert_int_equal(error.code, ERROR_FORMAT);
    if (!strstr(error.text, files[i].reason))
      fail_msg("'%s' does not say '%s'", error.text, files[i].reason);
  }
  struct error error = ERROR_INIT;
  char *line = malloc(20002);
  assert_non_null(line);
  memset(line, 'a', 20000);
  memcpy(line + 20000, "\n", 2);
  write_file(folder, "vocab.json", SMALL_VOCAB);
  write_file(folder, "merges.txt", line);
  assert_null(tokenizer_open_folder(folder, &error));
  assert_non_null(strstr(error.text, "line 1 has 20000 bytes"));
  free(line);
  remove_folder(folder);
}

static void expect_folder_error(const char *folder, enum error_code code, const char *reason) {
  struct error error = ERROR_INIT;
  assert_null(tokenizer_open_folder(folder, &error));
  if (error.code != code || !strstr(error.text, reason))
    fail_msg("(%d) '%s' does not say '%s'", (int)error.code, error.text, reason);
}

/* Tokens of added_tokens.json, or of the settings, stand beside the vocabulary; what is named without an id is its piece. */
static void test_added_tokens(void **state) {
  (void)state;
  char *folder = temporary_folder();
  write_file(folder, "vocab.json", SMALL_VOCAB);
  write_file(folder, "merges.txt", SMALL_MERGES);
  write_file(folder, "added_tokens.json", "{\"<x>\":8,\"<y>\":6}");
  write_file(folder, "special_tokens_map.json", "{\"pad_token\":\"<x>\",\"sep_token\":\"<s>\",\"unk_token\":\"" END "\",\"mask_token\":\"<m>\"}");
  struct tokenizer *t = open_folder(folder);
  assert_int_equal(tokenizer_size(t), 9);
  EXPECT_IDS(t, "ab<x>b<y><s>" END, TOKENIZE_SPECIAL, 3, 8, 1, 6, 5, 4);
  assert_true(tokenizer_is_special(t, 8) && tokenizer_is_special(t, 5) && tokenizer_is_special(t, 4) && !tokenizer_is_special(t, 6));
  expect_encode_error(t, "<x>", 3, "U+003C"); /* special ones stay text */
  tokenizer_free(t);
  write_file(folder, "tokenizer_config.json", "{\"added_tokens_decoder\":{\"7\":{\"content\":\"<x>\",\"lstrip\":true}}}");
  t = open_folder(folder); /* which takes the place of the older files */
  assert_int_equal(tokenizer_size(t), 8);
  EXPECT_IDS(t, "ab  <x>b", TOKENIZE_SPECIAL, 3, 7, 1);
  assert_false(tokenizer_is_special(t, 7));
  tokenizer_free(t);
  remove_folder(folder);
}

static void test_refused_folders(void **state) {
  (void)state;
  expect_folder_error("/nowhere/at/all", ERROR_NOT_FOUND, "not a folder");
  char *folder = temporary_folder();
  expect_folder_error(folder, ERROR_NOT_FOUND, "neither tokenizer.json nor vocab.json");
  write_file(folder, "spiece.model", "");
  expect_folder_error(folder, ERROR_UNSUPPORTED, "a SentencePiece model of the name spiece.model and no tokenizer.json");
  expect_folder_error(folder, ERROR_UNSUPPORTED, "save_pretrained(FOLDER)");
  write_file(folder, "tokenizer.model", "");
  expect_folder_error(folder, ERROR_FORMAT, "tokenizer.model': 0 of its 0 pieces");
  write_file(folder, "tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n");
  expect_folder_error(folder, ERROR_FORMAT, "tokenizer.model' is a Git LFS pointer");
  write_file(folder, "vocab.json", SMALL_VOCAB);
  expect_folder_error(folder, ERROR_NOT_FOUND, "merges.txt");
  write_file(folder, "merges.txt", SMALL_MERGES);
  write_file(folder, "tokenizer_config.json", "{\"bos_token\":\"<none>\"}");
  expect_folder_error(folder, ERROR_FORMAT, "bos_token '<none>'");
  write_file(folder, "tokenizer_config.json", "{");
  expect_folder_error(folder, ERROR_FORMAT, "tokenizer_config.json");
  write_file(folder, "tokenizer_config.json", "{}");
  write_file(folder, "added_tokens.json", "{\"<x>\":3}");
  expect_folder_error(folder, ERROR_FORMAT, "'<x>' has id 3, which another piece has");
  write_file(folder, "added_tokens.json", "[1]");
  tokenizer_free(open_folder(folder));
  remove_folder(folder);
}

static void drop_line(void *context, enum log_level level, const char *text) {
  (void)context;
  (void)level;
  (void)text;
}

int main(void) {
  log_set_sink(drop_line, NULL);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_settings),        cmocka_unit_test(test_prefix_space_setting),
      cmocka_unit_test(test_refused_json),    cmocka_unit_test(test_refused_merges),
      cmocka_unit_test(test_wrong_merge_among_many),
      cmocka_unit_test(test_added_tokens),
      cmocka_unit_test(test_refused_folders),
  };
  return cmocka_run_group_tests_name("tokenizer_files", tests, NULL, NULL);
}
