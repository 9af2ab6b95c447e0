/* test_tokenizer.c: ids equal to those of the `tokenizers` library (tests/vectors/tokenizer), to llama.cpp's
 * GPT-2 vectors where the data is there, and every refusal by its reason. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/buffer.h"
#include "core/base/json.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/utf8.h"
#include "core/model/detokenizer.h"
#include "core/model/tokenizer.h"
#include "core/model/tokenizer_private.h"

#define VECTORS "tests/vectors/tokenizer"
#define END "<|endoftext|>"

/* ---- helpers ---------------------------------------------------------------------------------------------
 */

static struct tokenizer *open_folder(const char *folder) {
  struct error error = ERROR_INIT;
  struct tokenizer *t = tokenizer_open_folder(folder, &error);
  if (!t)
    fail_msg("%s: %s", folder, error.text);
  return t;
}

/* A folder of the shared data, or NULL after saying that it is absent. */
static const char *data_path(const char *name) {
  static char path[4096];
  const char *root = getenv("STEERD_DATA");
  snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", name);
  if (access(path, R_OK) == 0)
    return path;
  print_message("skip: %s (set STEERD_DATA)\n", name);
  return NULL;
}

struct ids {
  int32_t *at;
  size_t count;
};

static struct ids encode(const struct tokenizer *t, const char *text, size_t length, int flags) {
  struct error error = ERROR_INIT;
  struct ids ids;
  if (tokenizer_encode(t, text, length, flags, &ids.at, &ids.count, &error) != 0)
    fail_msg("'%.60s': %s", text, error.text);
  assert_true((ids.at == NULL) == (ids.count == 0));
  return ids;
}

static void expect_ids(const struct tokenizer *t, const char *text, int flags, const int32_t *want,
                       size_t count) {
  struct ids ids = encode(t, text, strlen(text), flags);
  if (ids.count != count || (count && memcmp(ids.at, want, count * sizeof *want) != 0)) {
    for (size_t i = 0; i < ids.count; i++)
      print_message(" %d", ids.at[i]);
    fail_msg("'%s' gave the %zu ids above, not the %zu expected", text, ids.count, count);
  }
  free(ids.at);
}
#define EXPECT_IDS(t, text, flags, ...)                                                                      \
  expect_ids(t, text, flags, (const int32_t[]){__VA_ARGS__},                                                 \
             sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

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

static char *temporary_folder(void) {
  static char folder[64];
  strcpy(folder, "/tmp/test_tokenizer_XXXXXX");
  assert_non_null(mkdtemp(folder));
  return folder;
}

static void write_file(const char *folder, const char *name, const char *text) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(text, 1, strlen(text), out), strlen(text));
  assert_int_equal(fclose(out), 0);
}

static void copy_file(const char *folder, const char *name, const char *from) {
  char path[512], *text;
  size_t length;
  snprintf(path, sizeof path, "%s/%s", from, name);
  assert_int_equal(file_read(path, 1 << 24, &text, &length, NULL), 0);
  write_file(folder, name, text);
  free(text);
}

static void remove_folder(const char *folder) {
  static const char *const names[] = {
      "tokenizer.json",         "vocab.json",        "merges.txt",
      "tokenizer_config.json",  "config.json",       "special_tokens_map.json",
      "generation_config.json", "added_tokens.json", "corpus.txt"};
  char path[512];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    unlink(path);
  }
  assert_int_equal(rmdir(folder), 0);
}

/* ---- recorded ids ----------------------------------------------------------------------------------------
 */

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

/* ---- the shared data -------------------------------------------------------------------------------------
 */

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

static void test_families_refused(void **state) {
  (void)state;
  static const char *const folders[][2] = {{"tokenizers/pythia", "normalizer 'NFC'"},
                                           {"tokenizers/qwen3", "normalizer 'NFC'"},
                                           {"models/stories260K/hf", "byte_fallback"}};
  int seen = 0;
  for (int i = 0; i < 3; i++) {
    const char *path = data_path(folders[i][0]);
    if (!path)
      continue;
    struct error error = ERROR_INIT;
    assert_null(tokenizer_open_folder(path, &error));
    assert_int_equal(error.code, ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.text, folders[i][1]));
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

/* ---- BOS, special tokens, ids ----------------------------------------------------------------------------
 */

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

static void expect_encode_error(const struct tokenizer *t, const char *text, size_t length,
                                const char *reason) {
  struct error error = ERROR_INIT;
  int32_t *ids = (int32_t *)&error;
  size_t count = 7;
  assert_int_equal(tokenizer_encode(t, text, length, TOKENIZE_BOS, &ids, &count, &error), -1);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  if (!strstr(error.text, reason))
    fail_msg("'%s' does not say '%s'", error.text, reason);
  assert_null(ids);
  assert_int_equal(count, 0);
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

/* ---- settings of a folder --------------------------------------------------------------------------------
 */

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

/* ---- refusals --------------------------------------------------------------------------------------------
 */

#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define VOCAB "{\"a\":0,\"b\":1,\"ab\":2}"
#define MODEL(vocab, merges, more)                                                                           \
  "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges more "}"
#define GOOD MODEL(VOCAB, "[\"a b\"]", "")
#define FILE_OF(model, pre, more) "{" model ",\"pre_tokenizer\":" pre more "}"
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
      {"{\"model\":{\"type\":\"WordPiece\"}}", "'WordPiece' is not supported; supported: byte-level BPE",
       ERROR_UNSUPPORTED},
      {"{\"model\":{\"type\":\"Unigram\"}}", "'Unigram'", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"byte_fallback\":true"), BYTE_LEVEL, ""), "byte_fallback",
       ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"dropout\":0.1"), BYTE_LEVEL, ""), "dropout", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"unk_token\":\"a\""), BYTE_LEVEL, ""), "unk_token", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"end_of_word_suffix\":\"</w>\""), BYTE_LEVEL, ""),
       "end_of_word_suffix '</w>'", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL(VOCAB, "[]", ",\"continuing_subword_prefix\":\"##\""), BYTE_LEVEL, ""),
       "continuing_subword_prefix '##'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, BYTE_LEVEL, ",\"normalizer\":{\"type\":\"NFC\"}"), "normalizer 'NFC'",
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
      {FILE_OF(GOOD, "null", ""), "pre_tokenizer 'null'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Metaspace\"}", ""), "pre_tokenizer 'Metaspace'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\"}," BYTE_LEVEL "]}", ""),
       "pre_tokenizer 'Digits'", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD, "{\"type\":\"Sequence\",\"pretokenizers\":[]}", ""), "pre_tokenizer 'Sequence'",
       ERROR_UNSUPPORTED},
      {FILE_OF(
           GOOD,
           "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a+)+\"},"
           "\"behavior\":\"Isolated\"}," BYTE_LEVEL "]}",
           ""),
       "pattern '(a+)+' is not supported", ERROR_UNSUPPORTED},
      {FILE_OF(GOOD,
               "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},"
               "\"behavior\":\"Removed\"}," BYTE_LEVEL "]}",
               ""),
       "behavior 'Removed'", ERROR_UNSUPPORTED},
      {FILE_OF(MODEL("[]", "[]", ""), BYTE_LEVEL, ""), "the vocabulary is an array", ERROR_FORMAT},
      {FILE_OF(MODEL("{}", "[]", ""), BYTE_LEVEL, ""), "vocabulary is empty", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":\"0\"}", "[]", ""), BYTE_LEVEL, ""), "piece 'a' is a string", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":-1}", "[]", ""), BYTE_LEVEL, ""), "id -1 of piece 'a'", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":2000}", "[]", ""), BYTE_LEVEL, ""), "outside 0 to 1027", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":99999999999999}", "[]", ""), BYTE_LEVEL, ""), "id 99999999999999", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":1,\"b\":1}", "[]", ""), BYTE_LEVEL, ""), "id 1 stands twice", ERROR_FORMAT},
      {FILE_OF(MODEL("{\"a\":1,\"a\":2}", "[]", ""), BYTE_LEVEL, ""), "duplicate object key", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "{}", ""), BYTE_LEVEL, ""), "merges are an object", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[7]", ""), BYTE_LEVEL, ""), "a merge is an integer", ERROR_FORMAT},
      {FILE_OF(MODEL(VOCAB, "[[\"a\",\"b\",\"a\"]]", ""), BYTE_LEVEL, ""), "a merge is an array",
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
      {FILE_OF(GOOD, BYTE_LEVEL, ADDED("{\"id\":3,\"content\":\"x\",\"single_word\":true}")), "single_word",
       ERROR_UNSUPPORTED},
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

static void test_refused_folders(void **state) {
  (void)state;
  expect_folder_error("/nowhere/at/all", ERROR_NOT_FOUND, "not a folder");
  char *folder = temporary_folder();
  expect_folder_error(folder, ERROR_NOT_FOUND, "neither tokenizer.json nor vocab.json");
  write_file(folder, "vocab.json", SMALL_VOCAB);
  expect_folder_error(folder, ERROR_NOT_FOUND, "merges.txt");
  write_file(folder, "merges.txt", SMALL_MERGES);
  write_file(folder, "tokenizer_config.json", "{\"bos_token\":\"<none>\"}");
  expect_folder_error(folder, ERROR_FORMAT, "bos_token '<none>'");
  write_file(folder, "tokenizer_config.json", "{");
  expect_folder_error(folder, ERROR_FORMAT, "tokenizer_config.json");
  write_file(folder, "tokenizer_config.json", "{}");
  write_file(folder, "added_tokens.json", "{\"<x>\":6}");
  expect_folder_error(folder, ERROR_UNSUPPORTED, "added_tokens.json");
  remove_folder(folder);
}

/* ---- characters ------------------------------------------------------------------------------------------
 */

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

/* ---- detokenizer -----------------------------------------------------------------------------------------
 */

/* The id of a single byte in the plain tokenizer. */
static int32_t byte_id(const struct tokenizer *t, unsigned char byte) {
  size_t length;
  for (int32_t id = 0; id < tokenizer_size(t); id++)
    if (*tokenizer_bytes(t, id, &length) == (char)byte && length == 1)
      return id;
  fail_msg("no piece for byte %d", byte);
  return -1;
}

static void push_bytes(struct detokenizer *d, const char *bytes, size_t length) {
  for (size_t i = 0; i < length; i++)
    assert_int_equal(detokenizer_push(d, byte_id(d->tokenizer, (unsigned char)bytes[i])), 0);
}

static void test_detokenizer_waits(void **state) {
  (void)state;
  struct tokenizer *t = open_folder(VECTORS "/plain");
  struct detokenizer d;
  detokenizer_init(&d, t);
  push_bytes(&d, "a\xF0\x9F\x9A", 4);
  assert_string_equal(d.text.data, "a");
  push_bytes(&d, "\x80", 1);
  assert_string_equal(d.text.data, "a🚀");
  assert_int_equal(detokenizer_push(&d, -1), 0);
  assert_int_equal(detokenizer_push(&d, tokenizer_size(t)), 0);
  push_bytes(&d, "\xC3", 1);
  assert_string_equal(d.text.data, "a🚀");
  assert_int_equal(detokenizer_push(&d, 0), 0); /* a control token does not complete a character */
  assert_string_equal(d.text.data, "a🚀\xEF\xBF\xBD" END);
  push_bytes(&d, "\xE6\xBC", 2);
  detokenizer_finish(&d);
  detokenizer_finish(&d);
  assert_string_equal(d.text.data, "a🚀\xEF\xBF\xBD" END "\xEF\xBF\xBD");
  detokenizer_clear(&d);
  push_bytes(&d, "b", 1);
  assert_string_equal(d.text.data, "b");
  detokenizer_clear(&d);
  tokenizer_free(t);
}

/* Results of Python's bytes.decode("utf-8", "replace"). */
static void test_detokenizer_replaces(void **state) {
  (void)state;
  static const char *const texts[][2] = {
      {"\xFF", "�"},
      {"\x80\x80", "��"},
      {"\xF0\x9F"
       "A",
       "�A"},
      {"\xF0\x9F\x9F\xF0\x9F\x9A\x80", "�🚀"},
      {"\xE2\x82\xC3\xA9", "�é"},
      {"\xC0\xAF", "��"},
      {"\xED\xA0\x80", "���"},
      {"\xF4\x90\x80\x80", "����"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
       "A",
       "����A"},
      {"\xF1\xBF", "�"},
  };
  struct tokenizer *t = open_folder(VECTORS "/plain");
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    struct detokenizer d;
    detokenizer_init(&d, t);
    push_bytes(&d, texts[i][0], strlen(texts[i][0]));
    detokenizer_finish(&d);
    assert_string_equal(d.text.data, texts[i][1]);
    detokenizer_clear(&d);
  }
  tokenizer_free(t);
}

static void drop_line(void *context, enum log_level level, const char *text) {
  (void)context;
  (void)level;
  (void)text;
}

int main(void) {
  log_set_sink(drop_line, NULL);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),
      cmocka_unit_test(test_vocabulary_files),
      cmocka_unit_test(test_added),
      cmocka_unit_test(test_prefixed),
      cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_gpt2),
      cmocka_unit_test(test_demo),
      cmocka_unit_test(test_families_refused),
      cmocka_unit_test(test_villes),
      cmocka_unit_test(test_bos),
      cmocka_unit_test(test_bos_overlap),
      cmocka_unit_test(test_bytes),
      cmocka_unit_test(test_unused_ids),
      cmocka_unit_test(test_invalid_text),
      cmocka_unit_test(test_long_stretches),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_settings),
      cmocka_unit_test(test_prefix_space_setting),
      cmocka_unit_test(test_refused_json),
      cmocka_unit_test(test_refused_merges),
      cmocka_unit_test(test_refused_folders),
      cmocka_unit_test(test_characters),
      cmocka_unit_test(test_refused_characters),
      cmocka_unit_test(test_detokenizer_waits),
      cmocka_unit_test(test_detokenizer_replaces),
  };
  return cmocka_run_group_tests_name("tokenizer", tests, load_cases, free_cases);
}
