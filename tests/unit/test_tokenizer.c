/* test_tokenizer.c: ids equal to those of the `tokenizers` library (tests/vectors/tokenizer) and, where the
 * data is there, to llama.cpp's GPT-2 vectors; BOS, special tokens, characters, long and invalid texts. */
#include <pthread.h>

#include "core/base/json.h"
#include "core/base/mapfile.h"
#include "core/base/utf8.h"
#include "core/model/detokenizer.h"
#include "tests/unit/tokenizer_helpers.h"

/* The text of ids pushed one by one, whole characters after each. */
static void expect_decoded(const struct tokenizer *t, struct ids ids, const char *text, size_t length) {
  struct detokenizer d;
  detokenizer_init(&d, t);
  for (size_t i = 0; i < ids.count; i++) {
    assert_int_equal(detokenizer_push(&d, ids.at[i]), 0);
    assert_true(utf8_valid(d.text.data ? d.text.data : "", d.text.length, NULL));
  }
  assert_int_equal(d.waiting_count, 0);
  assert_int_equal(d.text.length, length);
  if (length)
    assert_memory_equal(d.text.data, text, length);
  detokenizer_clear(&d);
}

static void copy_file(const char *folder, const char *name, const char *from) {
  char path[512], *text;
  size_t length;
  snprintf(path, sizeof path, "%s/%s", from, name);
  assert_int_equal(file_read(path, 1 << 24, &text, &length, NULL), 0);
  write_file(folder, name, text);
  free(text);
}

/* ---- recorded ids ------------------------------------------------------------------------------- */

static struct json_node *cases;

static int load_cases(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  cases = json_load(VECTORS "/cases.json", 1 << 22, 8, &error);
  if (!cases)
    print_error("%s\n", error.text);
  return cases ? 0 : -1;
}

static int free_cases(void **state) {
  (void)state;
  json_free(cases);
  return 0;
}

static void expect_case(const struct tokenizer *t, const struct json_node *test, const char *name,
                        int flags) {
  size_t length;
  const char *text = json_text(json_get(test, "text"), &length);
  const struct json_node *want = json_get(test, name);
  struct ids ids = encode(t, text, length, flags);
  bool equal = ids.count == json_count(want);
  for (size_t i = 0; equal && i < ids.count; i++)
    equal = ids.at[i] == json_int_or(json_at(want, i), -1);
  if (!equal) {
    for (size_t i = 0; i < ids.count; i++)
      print_message(" %d", ids.at[i]);
    print_message("\n");
    for (size_t i = 0; i < json_count(want); i++)
      print_message(" %d", (int)json_int_or(json_at(want, i), -1));
    fail_msg("%s: '%s' (flags %d) gave the first ids above, not the second", name, text, flags);
  }
  free(ids.at);
}

/* Every case with and without special tokens. */
static void expect_cases(const struct tokenizer *t, const char *name) {
  char special[64];
  snprintf(special, sizeof special, "%s_special", name);
  assert_true(json_count(cases) >= 300);
  for (size_t i = 0; i < json_count(cases); i++) {
    const struct json_node *test = json_at(cases, i);
    expect_case(t, test, name, 0);
    expect_case(t, test, json_get(test, special) ? special : name, TOKENIZE_SPECIAL);
  }
}

static void test_plain(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  assert_int_equal(tokenizer_size(t), 857);
  assert_int_equal(tokenizer_bos(t), 0);
  assert_int_equal(tokenizer_eos(t), 0);
  assert_true(tokenizer_prepends_bos(t));
  expect_cases(t, "plain");
  tokenizer_free(t);
}

static void test_vocabulary_files(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/vocabulary");
  assert_int_equal(tokenizer_size(t), 857);
  assert_int_equal(tokenizer_bos(t), 0);
  assert_true(tokenizer_is_special(t, 0));
  expect_cases(t, "plain");
  tokenizer_free(t);
}

/* Added tokens of every kind, ignore_merges, a Split, merges as pairs and a BOS template. */
static void test_added(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/added");
  assert_int_equal(tokenizer_size(t), 866);
  assert_int_equal(tokenizer_bos(t), 858);
  assert_int_equal(tokenizer_eos(t), 0);
  assert_true(tokenizer_is_special(t, 859));  /* <mask> */
  assert_false(tokenizer_is_special(t, 861)); /* <think> */
  expect_cases(t, "added");
  EXPECT_IDS(t, "<s><s>", TOKENIZE_BOS | TOKENIZE_SPECIAL, 858, 858);
  tokenizer_free(t);
}

static void test_prefixed(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/prefixed");
  expect_cases(t, "prefixed");
  tokenizer_free(t);
}

static void test_round_trip(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  for (size_t i = 0; i < json_count(cases); i++) {
    size_t length;
    const char *text = json_text(json_get(json_at(cases, i), "text"), &length);
    for (int flags = 0; flags <= TOKENIZE_SPECIAL; flags += TOKENIZE_SPECIAL) {
      struct ids ids = encode(t, text, length, flags);
      expect_decoded(t, ids, text, length);
      free(ids.at);
    }
  }
  tokenizer_free(t);
}

/* ---- the shared data ---------------------------------------------------------------------------- */

static size_t parse_ids(const char *line, int32_t *ids, size_t room) {
  size_t count = 0;
  char *end;
  for (long id = strtol(line, &end, 10); end != line && count < room; id = strtol(line, &end, 10)) {
    ids[count++] = (int32_t)id;
    line = end;
  }
  return count;
}

/* Texts separated by lines "__ggml_vocab_test__", ids a line each. */
static int compare_ggml(const struct tokenizer *t, char *input, char *output) {
  static const char separator[] = "\n__ggml_vocab_test__\n";
  int compared = 0;
  int32_t want[1024];
  for (char *text = input, *line = output; text && line;) {
    char *next = strstr(text, separator), *line_end = strchr(line, '\n');
    if (line_end)
      *line_end = '\0';
    if (!next)
      break; /* what stands behind the last separator is no test */
    *next = '\0';
    expect_ids(t, text, 0, want, parse_ids(line, want, 1024));
    compared++;
    text = next + sizeof separator - 1;
    line = line_end ? line_end + 1 : NULL;
  }
  return compared;
}

static void test_gpt2(void **state) {
  (void)state;
  char *input, *output;
  size_t length;
  const char *path = data_path("tokenizers/gguf-vocabs/ggml-vocab-gpt-2.gguf.inp");
  if (!path)
    skip();
  assert_int_equal(file_read(path, 1 << 20, &input, &length, NULL), 0);
  path = data_path("tokenizers/gguf-vocabs/ggml-vocab-gpt-2.gguf.out");
  assert_int_equal(file_read(path, 1 << 20, &output, &length, NULL), 0);
  if (!(path = data_path("tokenizers/gpt2")))
    skip();
  struct tokenizer *t = open_folder(path);
  assert_int_equal(tokenizer_size(t), 50257);
  assert_int_equal(tokenizer_bos(t), 50256);
  assert_int_equal(tokenizer_eos(t), 50256);
  assert_true(compare_ggml(t, input, output) >= 40);
  EXPECT_IDS(t, "Hello world", TOKENIZE_BOS, 50256, 15496, 995);
  tokenizer_free(t);
  free(input);
  free(output);
}

/* The demo's tokenizer.json and its vocab.json + merges.txt are one tokenizer. */
static void test_demo(void **state) {
  (void)state;
  const char *path = data_path("models/demo-candidate");
  if (!path)
    skip();
  struct tokenizer *a = open_folder(path);
  char *folder = temporary_folder();
  copy_file(folder, "vocab.json", path);
  copy_file(folder, "merges.txt", path);
  copy_file(folder, "config.json", path);
  struct tokenizer *b = open_folder(folder);
  assert_int_equal(tokenizer_size(a), 4096);
  assert_int_equal(tokenizer_size(b), 4096);
  assert_int_equal(tokenizer_bos(a), 4095);
  assert_int_equal(tokenizer_bos(b), 4095);
  for (size_t i = 0; i < json_count(cases); i++) {
    const char *text = json_text(json_get(json_at(cases, i), "text"), NULL);
    struct ids ids = encode(a, text, strlen(text), TOKENIZE_SPECIAL);
    expect_ids(b, text, TOKENIZE_SPECIAL, ids.at, ids.count);
    free(ids.at);
  }
  tokenizer_free(a);
  tokenizer_free(b);
  remove_folder(folder);
}

/* Ids of the `tokenizers` library for one text that the three cut differently. */
static void test_families(void **state) {
  (void)state;
  static const char text[] = "Cafe\xCC\x81  12345 \xF0\x9F\x9A\x80\n";
  static const struct {
    const char *folder;
    int bos, count;
    int32_t ids[20];
  } families[] = {
      {"tokenizers/pythia", 0, 9, {36, 2320, 860, 50276, 42594, 22692, 237, 211, 187}},
      {"tokenizers/qwen3", -1, 14, {34, 2577, 963, 220, 220, 16, 17, 18, 19, 20, 11162, 248, 222, 198}},
      {"models/stories260K/hf", 1, 20, {410, 457, 412, 431, 411, 207, 132, 410, 410, 475, 479, 472, 484, 480, 410, 243, 162, 157, 131, 13}}};
  int seen = 0;
  for (int i = 0; i < 3; i++) {
    const char *path = data_path(families[i].folder);
    if (!path)
      continue;
    struct tokenizer *t = open_folder(path);
    assert_int_equal(tokenizer_bos(t), families[i].bos);
    expect_ids(t, text, 0, families[i].ids, (size_t)families[i].count);
    tokenizer_free(t);
    seen++;
  }
  if (!seen)
    skip();
}

static void test_villes(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  const char *path = data_path("models/villes/villes.txt");
  if (!path)
    skip();
  struct tokenizer *t = tokenizer_open_characters(path, &error);
  assert_non_null(t);
  assert_int_equal(tokenizer_size(t), 46);
  EXPECT_IDS(t, "paris", TOKENIZE_BOS, 1, 21, 6, 23, 14, 24);
  EXPECT_IDS(t, "a z", 0, 6, 3, 31);
  tokenizer_free(t);
}

/* ---- BOS, special tokens, ids ------------------------------------------------------------------- */

static void test_bos(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  struct ids a = encode(t, "a", 1, 0), end = encode(t, END, strlen(END), 0);
  assert_int_equal(a.count, 1);
  assert_true(end.count > 1); /* ordinary text */
  EXPECT_IDS(t, "", TOKENIZE_BOS, 0);
  EXPECT_IDS(t, "a", TOKENIZE_BOS, 0, a.at[0]);
  EXPECT_IDS(t, END, TOKENIZE_BOS, 0);
  EXPECT_IDS(t, END "a", TOKENIZE_BOS, 0, a.at[0]);
  EXPECT_IDS(t, END "a", TOKENIZE_BOS | TOKENIZE_SPECIAL, 0, a.at[0]);
  EXPECT_IDS(t, END END "a", TOKENIZE_BOS | TOKENIZE_SPECIAL, 0, 0, a.at[0]);
  EXPECT_IDS(t, "a" END, TOKENIZE_SPECIAL, a.at[0], 0);
  struct ids second = encode(t, END END, 2 * strlen(END), TOKENIZE_BOS);
  assert_int_equal(second.count, 1 + end.count); /* only the first is BOS */
  assert_memory_equal(second.at + 1, end.at, end.count * sizeof *end.at);
  free(a.at);
  free(end.at);
  free(second.at);
  tokenizer_free(t);
}

/* A longer token that begins like BOS does not hide it, and BOS swallows the spaces it is set to swallow. */
static void test_bos_overlap(void **state) {
  (void)state;
  char *folder = temporary_folder();
  write_file(folder, "tokenizer.json",
             "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"pre_tokenizer\":{\"type\":"
             "\"ByteLevel\","
             "\"add_prefix_space\":false},\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"rstrip\":true},"
             "{\"id\":2,\"content\":\"<s><s>\"}]}");
  write_file(folder, "tokenizer_config.json", "{\"bos_token\":\"<s>\"}");
  struct tokenizer *t = open_folder(folder);
  EXPECT_IDS(t, "<s><s>a", TOKENIZE_SPECIAL, 2, 0);
  EXPECT_IDS(t, "<s><s>a", TOKENIZE_BOS | TOKENIZE_SPECIAL, 1, 1, 0);
  EXPECT_IDS(t, "<s> \n a", TOKENIZE_BOS, 1, 0);
  tokenizer_free(t);
  remove_folder(folder);
}

static void test_bytes(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/added");
  static const int32_t unused[] = {-1, 866, INT32_MAX, INT32_MIN};
  size_t length = 9;
  for (size_t i = 0; i < sizeof unused / sizeof unused[0]; i++) {
    assert_string_equal(tokenizer_bytes(t, unused[i], &length), "");
    assert_int_equal(length, 0);
    assert_false(tokenizer_is_special(t, unused[i]));
  }
  assert_memory_equal(tokenizer_bytes(t, 0, &length), END, strlen(END));
  assert_int_equal(length, strlen(END));
  struct ids ids = encode(t, " the", 4, 0);
  assert_int_equal(ids.count, 1);
  assert_memory_equal(tokenizer_bytes(t, ids.at[0], &length), " the", 4);
  assert_int_equal(length, 4);
  free(ids.at);
  tokenizer_free(t);
}

/* Ids may have gaps: padded vocabularies, removed tokens. */
static void test_unused_ids(void **state) {
  (void)state;
  char *folder = temporary_folder();
  size_t length;
  write_file(folder, "vocab.json", "{\"a\":3,\"b\":1000}");
  write_file(folder, "merges.txt", "");
  struct tokenizer *t = open_folder(folder);
  assert_int_equal(tokenizer_size(t), 1001);
  assert_int_equal(tokenizer_bos(t), -1);
  assert_false(tokenizer_prepends_bos(t));
  assert_string_equal(tokenizer_bytes(t, 500, &length), "");
  assert_int_equal(length, 0);
  EXPECT_IDS(t, "ba", TOKENIZE_BOS, 1000, 3);
  tokenizer_free(t);
  remove_folder(folder);
}

static void test_invalid_text(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  expect_encode_error(t, "ab\xFFzz", 5, "not valid UTF-8 at byte 2");
  expect_encode_error(t, "\xED\xA0\x80", 3, "at byte 0"); /* a surrogate */
  expect_encode_error(t, "abc\xF0\x9F\x9A", 6, "at byte 3");
  struct ids ids = encode(t, "a\0b", 3, 0); /* NUL is a character like another */
  expect_decoded(t, ids, "a\0b", 3);
  free(ids.at);
  assert_int_equal(tokenizer_encode(t, "\xFF", 1, 0, &ids.at, &ids.count, NULL), -1);
  tokenizer_free(t);
}

/* Long stretches must not cost the square of their length: 64 KiB squared, a heap operation each, would take
 * minutes. */
static void test_long_stretches(void **state) {
  (void)state;
  enum { LONG = 64 * 1024 };
  static const char *const folders[] = {VECTORS "/plain", VECTORS "/prefixed"};
  static const char *const units[] = {"a",    " ", "\n", "ab", "e\xCC\x81", "\xF0\x9F\x9A\x80",
                                      "the ", "1", "!",  "<"};
  char *text = malloc(LONG);
  assert_non_null(text);
  for (int f = 0; f < 2; f++) {
    struct tokenizer *t = open_folder(folders[f]);
    for (size_t u = 0; u < sizeof units / sizeof units[0]; u++) {
      size_t unit = strlen(units[u]), length = LONG / unit * unit;
      for (size_t i = 0; i < length; i++)
        text[i] = units[u][i % unit];
      struct ids ids = encode(t, text, length, TOKENIZE_SPECIAL);
      assert_true(ids.count > 0 && ids.count <= length + 1);
      free(ids.at);
    }
    tokenizer_free(t);
  }
  free(text);
}

static void *encode_cases(void *context) {
  const struct tokenizer *t = context;
  for (size_t i = 0; i < json_count(cases); i++) {
    const struct json_node *test = json_at(cases, i), *want = json_get(test, "plain");
    const char *text = json_text(json_get(test, "text"), NULL);
    int32_t *ids;
    size_t count;
    if (tokenizer_encode(t, text, strlen(text), 0, &ids, &count, NULL) != 0)
      return "failed";
    bool equal = count == json_count(want);
    for (size_t j = 0; equal && j < count; j++)
      equal = ids[j] == json_int_or(json_at(want, j), -1);
    free(ids);
    if (!equal)
      return "differs";
  }
  return NULL;
}

static void test_threads(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, encode_cases, t), 0);
  for (int i = 0; i < 4; i++) {
    void *result;
    assert_int_equal(pthread_join(threads[i], &result), 0);
    assert_null(result);
  }
  tokenizer_free(t);
}

/* ---- characters --------------------------------------------------------------------------------- */

static struct tokenizer *open_characters(const char *corpus, struct error *error) {
  char *folder = temporary_folder(), path[128];
  write_file(folder, "corpus.txt", corpus);
  snprintf(path, sizeof path, "%s/corpus.txt", folder);
  struct tokenizer *t = tokenizer_open_characters(path, error);
  remove_folder(folder);
  return t;
}

static void test_characters(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct tokenizer *t = open_characters("abbé,saint-c\r\nd b\n", &error);
  size_t length;
  /* space - a b c d i n s t é from id 3 on */
  assert_int_equal(tokenizer_size(t), 14);
  assert_int_equal(tokenizer_bos(t), 1);
  assert_int_equal(tokenizer_eos(t), 2);
  assert_true(tokenizer_prepends_bos(t));
  assert_true(tokenizer_is_special(t, 0));
  assert_false(tokenizer_is_special(t, 3));
  EXPECT_IDS(t, "a é-t", TOKENIZE_BOS, 1, 5, 3, 13, 4, 12);
  EXPECT_IDS(t, "<SOS>ab", TOKENIZE_BOS, 1, 5, 6);
  EXPECT_IDS(t, "<SOS>a<EOS>", TOKENIZE_BOS | TOKENIZE_SPECIAL, 1, 5, 2);
  assert_memory_equal(tokenizer_bytes(t, 13, &length), "é", 2);
  assert_int_equal(length, 2);
  expect_encode_error(
      t, "abA", 3,
      "the character 'A' (U+0041) at byte 2 is not in the vocabulary; it has: space - a-d i n s t é");
  expect_encode_error(t, "é\n", 3, "the character 'U+000A' (U+000A) at byte 2");
  expect_encode_error(t, "a,b", 3, "',' (U+002C) at byte 1");
  expect_encode_error(t, "a<EOS>", 6, "'<'");
  tokenizer_free(t);
}

static void test_refused_characters(void **state) {
  (void)state;
  static const char *const corpora[][2] = {
      {"", "no character"}, {",,\n", "no character"}, {"ab\xC3", "UTF-8 at byte 2"}};
  for (int i = 0; i < 3; i++) {
    struct error error = ERROR_INIT;
    assert_null(open_characters(corpora[i][0], &error));
    assert_int_equal(error.code, ERROR_FORMAT);
    if (!strstr(error.text, corpora[i][1]))
      fail_msg("'%s'", error.text);
  }
  struct error error = ERROR_INIT;
  assert_null(tokenizer_open_characters("/nowhere/corpus.txt", &error));
  assert_int_equal(error.code, ERROR_NOT_FOUND);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),          cmocka_unit_test(test_vocabulary_files),
      cmocka_unit_test(test_added),          cmocka_unit_test(test_prefixed),
      cmocka_unit_test(test_round_trip),     cmocka_unit_test(test_gpt2),
      cmocka_unit_test(test_demo),           cmocka_unit_test(test_families),
      cmocka_unit_test(test_villes),         cmocka_unit_test(test_bos),
      cmocka_unit_test(test_bos_overlap),    cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_unused_ids),     cmocka_unit_test(test_invalid_text),
      cmocka_unit_test(test_long_stretches), cmocka_unit_test(test_threads),
      cmocka_unit_test(test_characters),     cmocka_unit_test(test_refused_characters),
  };
  return cmocka_run_group_tests_name("tokenizer", tests, load_cases, free_cases);
}
