/* test_tokenizer_pieces.c: folders with a SentencePiece model against ids and texts recorded from `sentencepiece`
 * (tests/vectors/tokenizer/make_pieces.py), what the settings beside it change, and files that lie. */
#include <math.h>

#include "core/model/charsmap.h"
#include "core/model/tokenizer_private.h"
#include "tests/unit/tokenizer_cases.h"

#define PIECES(function, name)           \
  static void function(void **state) {   \
    (void)state;                         \
    expect_cases("pieces/" name);        \
  }
PIECES(test_llama, "llama")
PIECES(test_llama_new, "llama-new")
PIECES(test_gemma, "gemma")
PIECES(test_mapped, "mapped")
PIECES(test_characters, "characters")
PIECES(test_plain_spaces, "plain-spaces")

/* ---- a file of our own -------------------------------------------------------------------------- */

static void put_varint(struct buffer *out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) buffer_char(out, (char)(value | 0x80));
  buffer_char(out, (char)value);
}

static void put_number(struct buffer *out, int field, uint64_t value) {
  put_varint(out, (uint64_t)field << 3);
  put_varint(out, value);
}

static void put_bytes(struct buffer *out, int field, const char *data, size_t length) {
  put_varint(out, (uint64_t)field << 3 | 2);
  put_varint(out, length);
  buffer_append(out, data, length);
}

/* kind 0: none is written. */
static void put_piece(struct buffer *out, const char *text, float score, int kind) {
  struct buffer piece;
  buffer_init(&piece, 0);
  put_bytes(&piece, 1, text, strlen(text));
  buffer_char(&piece, 2 << 3 | 5);
  buffer_append(&piece, &score, 4); /* the tests run on little-endian machines, as steerd does */
  if (kind) put_number(&piece, 3, (uint64_t)kind);
  put_bytes(out, 1, piece.data, piece.length);
  buffer_clear(&piece);
}

static void put_message(struct buffer *out, int field, const int *fields, int count) {
  struct buffer part;
  buffer_init(&part, 0);
  for (int i = 0; i < count; i++) put_number(&part, fields[2 * i], (uint64_t)fields[2 * i + 1]);
  put_bytes(out, field, part.data ? part.data : "", part.length);
  buffer_clear(&part);
}

/* <unk> <s> </s>, U+2581, a, b, "ab", "ba", "aba": BPE without a map, without a space in front. */
static void put_small(struct buffer *out) {
  static const char *const first[] = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "ba", "aba"};
  static const float scores[] = {0, 0, 0, -9, -9, -9, -1, -1, -2};
  buffer_init(out, 0);
  for (int i = 0; i < 9; i++) put_piece(out, first[i], scores[i], i == 0 ? 2 : i < 3 ? 3 : 0);
  put_message(out, 2, (const int[]){3, 2}, 1);
  put_message(out, 3, (const int[]){3, 0, 4, 0}, 2);
}

static struct tokenizer *parse(const char *data, size_t size, struct error *error) {
  struct added_list none = {0};
  struct tokenizer *t = tokenizer_parse_sentencepiece(
      data, size, &(struct sentencepiece_settings){.added = &none, .prefix = -1}, error);
  if (t) assert_int_equal(tokenizer_finish(t, error), 0);
  return t;
}

static void expect_refused(struct buffer *model, enum error_code code, const char *reason) {
  struct error error = ERROR_INIT;
  assert_null(parse(model->data, model->length, &error));
  if (error.code != code || !strstr(error.text, reason)) fail_msg("(%d) '%s' does not say '%s'", (int)error.code, error.text, reason);
  buffer_clear(model);
}

/* Of pieces with one score the leftmost goes first, whichever way they are cut. */
static void test_order(void **state) {
  (void)state;
  struct buffer model;
  struct error error = ERROR_INIT;
  put_small(&model);
  put_piece(&model, "bb", -0.5f, 1); /* behind others, and before them */
  struct tokenizer *t = parse(model.data, model.length, &error);
  assert_non_null(t);
  EXPECT_IDS(t, "abba", 0, 4, 9, 4);
  EXPECT_IDS(t, "aba", 0, 8);
  EXPECT_IDS(t, "bab", 0, 7, 5);
  EXPECT_IDS(t, "a ab", 0, 4, 3, 6);
  EXPECT_IDS(t, "acca", 0, 4, 0, 4); /* two unknown characters are one */
  EXPECT_IDS(t, "<s>", TOKENIZE_SPECIAL, 1);
  EXPECT_IDS(t, "<s>", 0, 0);
  assert_int_equal(tokenizer_bos(t), 1);
  assert_int_equal(tokenizer_eos(t), 2);
  assert_true(tokenizer_is_special(t, 0));
  assert_string_equal(tokenizer_title(t), "BPE of characters");
  tokenizer_free(t);
  buffer_clear(&model);
}

/* What the file says later counts, and unknown fields are stepped over. */
static void test_fields(void **state) {
  (void)state;
  struct buffer model;
  struct error error = ERROR_INIT;
  put_small(&model);
  put_number(&model, 900, UINT64_MAX);
  buffer_append(&model, "\x09" "12345678", 9); /* a fixed64 of field 1, which is a message elsewhere */
  put_message(&model, 3, (const int[]){3, 1}, 1);
  put_piece(&model, "c", -9, 1);
  struct tokenizer *t = parse(model.data, model.length, &error);
  assert_non_null(t);
  EXPECT_IDS(t, "c", 0, 3, 9);
  tokenizer_free(t);
  buffer_clear(&model);
}

static void test_refused_models(void **state) {
  (void)state;
  static const struct {
    int part, field, value;
    enum error_code code;
    const char *reason;
  } parts[] = {{2, 3, 1, ERROR_UNSUPPORTED, "type Unigram"},         {2, 3, 3, ERROR_UNSUPPORTED, "type Word"},
               {2, 3, 77, ERROR_UNSUPPORTED, "this number"},         {2, 24, 1, ERROR_UNSUPPORTED, "treat_whitespace_as_suffix"},
               {2, 35, 1, ERROR_FORMAT, "0 pieces of bytes"}};
  static const struct {
    const char *text;
    float score;
    int kind;
    enum error_code code;
    const char *reason;
  } pieces[] = {{"", 0, 1, ERROR_FORMAT, "piece 9 is empty"},
                {"\xFF", 0, 1, ERROR_FORMAT, "not valid UTF-8 at its byte 0"},
                {"x", NAN, 1, ERROR_FORMAT, "score nan"},
                {"x", -INFINITY, 1, ERROR_FORMAT, "score -inf"},
                {"x", 0, 7, ERROR_FORMAT, "of kind 7"},
                {"x", 0, 5, ERROR_UNSUPPORTED, "kind 'unused'"},
                {"<0x41>", 0, 6, ERROR_FORMAT, "1 pieces of bytes"},
                {"<0x4>", 0, 6, ERROR_FORMAT, "not as '<0x41>'"},
                {"x", 0, 2, ERROR_FORMAT, "2 of its 10 pieces"},
                {"ab", 0, 1, ERROR_FORMAT, "same bytes"},
                {"axb", 0, 1, ERROR_UNSUPPORTED, "U+0078, which is no piece"},
                {"<s>", 0, 3, ERROR_FORMAT, "stands twice"}};
  struct buffer model;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
    put_small(&model);
    put_message(&model, parts[i].part, (const int[]){parts[i].field, parts[i].value}, 1);
    expect_refused(&model, parts[i].code, parts[i].reason);
  }
  for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
    struct error error = ERROR_INIT;
    struct added_list none = {0};
    put_small(&model);
    put_piece(&model, pieces[i].text, pieces[i].score, pieces[i].kind);
    struct tokenizer *t = tokenizer_parse_sentencepiece(model.data, model.length,
                                                        &(struct sentencepiece_settings){.added = &none, .prefix = -1}, &error);
    assert_true(!t || tokenizer_finish(t, &error) != 0);
    if (error.code != pieces[i].code || !strstr(error.text, pieces[i].reason))
      fail_msg("(%d) '%s' does not say '%s'", (int)error.code, error.text, pieces[i].reason);
    tokenizer_free(t);
    buffer_clear(&model);
  }
  buffer_init(&model, 0);
  buffer_text(&model, "IQ== 0\nIg== 1\n");
  expect_refused(&model, ERROR_UNSUPPORTED, "tiktoken");
  buffer_text(&model, "");
  buffer_char(&model, 0);
  expect_refused(&model, ERROR_FORMAT, "no field of a protocol buffer at byte 0 of 1");
}

/* Wherever a file ends, it is a smaller model or none, and never more. */
static void test_cut_short(void **state) {
  (void)state;
  struct buffer model;
  put_small(&model);
  for (size_t cut = 0; cut < model.length; cut++) {
    char *data = malloc(cut + 1); /* exactly as long as said: a read behind the end is seen by the sanitizer */
    assert_non_null(data);
    memcpy(data, model.data, cut);
    struct error error = ERROR_INIT;
    struct tokenizer *t = parse(data, cut, &error);
    assert_true(t || error.code == ERROR_FORMAT || error.code == ERROR_UNSUPPORTED);
    tokenizer_free(t);
    free(data);
  }
  buffer_clear(&model);
}

/* ---- the map of characters ---------------------------------------------------------------------- */

static void put_u32(char *out, uint32_t value) {
  for (int i = 0; i < 4; i++) out[i] = (char)(value >> 8 * i);
}

/* A trie of 256 units for the one key "a", and the text "xy". */
static size_t make_map(char *out) {
  memset(out, 0, 4 + 4 * 256);
  put_u32(out, 4 * 256);
  put_u32(out + 4, 1u << 10);                                         /* the root's children are at 1 */
  put_u32(out + 4 + 4 * (1 ^ 'a'), (uint32_t)(128u << 10) | 1u << 8 | 'a'); /* 'a', with a value at its own offset */
  put_u32(out + 4 + 4 * ((1 ^ 'a') ^ 128), 0x80000000u | 1);          /* which is the text at 1 */
  memcpy(out + 4 + 4 * 256, "-xy", 4);
  return 4 + 4 * 256 + 4;
}

static void test_charsmap(void **state) {
  (void)state;
  char data[2048];
  const char *out = NULL;
  size_t length = make_map(data), n;
  struct error error = ERROR_INIT;
  struct charsmap *map = charsmap_open(data, length, &error);
  assert_non_null(map);
  assert_int_equal(charsmap_find(map, "ab", 2, &out, &n), 1);
  assert_int_equal(n, 2);
  assert_memory_equal(out, "xy", 2);
  assert_int_equal(charsmap_find(map, "ba", 2, &out, &n), 0);
  assert_int_equal(charsmap_find(map, "", 0, &out, &n), 0);
  charsmap_free(map);
  /* A value that points outside, a unit that is no value, an offset outside the array: no match. */
  static const uint32_t lies[] = {0x80000000u | 4, 0x80000000u | 0x7FFFFFFF, 1, 0};
  for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
    make_map(data);
    put_u32(data + 4 + 4 * ((1 ^ 'a') ^ 128), lies[i]);
    map = charsmap_open(data, length, &error);
    assert_int_equal(charsmap_find(map, "ab", 2, &out, &n), 0);
    charsmap_free(map);
  }
  make_map(data);
  put_u32(data + 4 + 4 * (1 ^ 'a'), 0x3FFFFFu << 10 | 1u << 9 | 1u << 8 | 'a');
  map = charsmap_open(data, length, &error);
  assert_int_equal(charsmap_find(map, "ab", 2, &out, &n), 0);
  charsmap_free(map);
}

static void test_refused_maps(void **state) {
  (void)state;
  char data[2048];
  size_t length = make_map(data);
  static const uint32_t sizes[] = {0, 3, 4 * 256 + 4, UINT32_MAX, UINT32_MAX - 3};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    struct error error = ERROR_INIT;
    put_u32(data, sizes[i]);
    assert_null(charsmap_open(data, length, &error));
    assert_non_null(strstr(error.text, "which does not fit"));
  }
  for (size_t cut = 0; cut < length; cut++) {
    make_map(data);
    assert_null(charsmap_open(data, cut, NULL));
  }
  struct error error = ERROR_INIT;
  make_map(data);
  data[length - 2] = (char)0xFF;
  assert_null(charsmap_open(data, length, &error));
  assert_non_null(strstr(error.text, "not valid UTF-8"));
}

/* ---- the folder --------------------------------------------------------------------------------- */

static void write_model(const char *folder) {
  struct buffer model;
  char path[512];
  put_small(&model);
  snprintf(path, sizeof path, "%s/tokenizer.model", folder);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(model.data, 1, model.length, out), model.length);
  assert_int_equal(fclose(out), 0);
  buffer_clear(&model);
}

/* Settings name BOS and EOS before the file does, and null is no token; the model's ids come last. */
static void test_bos(void **state) {
  (void)state;
  static const struct {
    const char *config, *special, *model;
    int bos, eos;
    bool prepends;
  } cases[] = {{"{}", "{}", "{\"bos_token_id\":2}", 1, 2, true},
               {"{\"bos_token\":null,\"eos_token\":\"<s>\"}", "{}", "{\"bos_token_id\":2}", -1, 1, false},
               {"{\"bos_token\":\"\",\"add_bos_token\":false}", "{\"bos_token\":{\"content\":\"</s>\"}}", "{}", 2, 2, false},
               {"{\"bos_token\":\"\"}", "{}", "{\"model_type\":\"gpt_neox\"}", 1, 2, false}};
  char *folder = temporary_folder();
  write_model(folder);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_file(folder, "tokenizer_config.json", cases[i].config);
    write_file(folder, "special_tokens_map.json", cases[i].special);
    write_file(folder, "config.json", cases[i].model);
    struct tokenizer *t = open_folder(folder);
    assert_int_equal(tokenizer_bos(t), cases[i].bos);
    assert_int_equal(tokenizer_eos(t), cases[i].eos);
    assert_int_equal(tokenizer_prepends_bos(t), cases[i].prepends);
    tokenizer_free(t);
  }
  remove_folder(folder);
}

/* A token of the settings takes over the id of another piece, which ordinary text still becomes; names without an id are none. */
static void test_added(void **state) {
  (void)state;
  size_t length;
  char *folder = temporary_folder();
  write_model(folder);
  write_file(folder, "tokenizer_config.json",
             "{\"pad_token\":\"<nowhere>\",\"additional_special_tokens\":[\"ba\"],\"added_tokens_decoder\":{"
             "\"8\":{\"content\":\"<new>\",\"special\":true},\"11\":{\"content\":\"<more>\"}}}");
  struct tokenizer *t = open_folder(folder);
  assert_int_equal(tokenizer_size(t), 12);
  EXPECT_IDS(t, "a<new>b<more>", TOKENIZE_SPECIAL, 4, 8, 5, 11);
  EXPECT_IDS(t, "bab", TOKENIZE_SPECIAL, 7, 5);
  EXPECT_IDS(t, "<nowhere>", TOKENIZE_SPECIAL, 0);
  assert_true(tokenizer_is_special(t, 7) && tokenizer_is_special(t, 8) && !tokenizer_is_special(t, 11));
  assert_string_equal(tokenizer_bytes(t, 10, &length), "");
  tokenizer_bytes(t, 8, &length);
  assert_int_equal(length, 5);
  tokenizer_free(t);
  remove_folder(folder);
}

static void test_refused_settings(void **state) {
  (void)state;
  static const struct {
    const char *name, *text, *reason;
  } cases[] = {{"added_tokens.json", "{\"<a>\":9,\"<b>\":9}", "'<a>' and '<b>' have one id, 9"},
               {"added_tokens.json", "{\"<a>\":-1}", "'<a>' has an id that is none"},
               {"added_tokens.json", "{\"<a>\":99999}", "id 99999, outside 0 to"},
               {"added_tokens.json", "{\"\":9}", "no content"},
               {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}", "'x' has an id that is none"},
               {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"9\":{}}}", "token 9 has no content"},
               {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"9\":{\"content\":\"y\"},\"10\":{\"content\":\"y\"}}}", "'y' stands twice"},
               {"tokenizer_config.json", "{\"eos_token\":\"<none>\"}", "eos_token '<none>'"}};
  char *folder = temporary_folder();
  write_model(folder);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct error error = ERROR_INIT;
    write_file(folder, cases[i].name, cases[i].text);
    assert_null(tokenizer_open_folder(folder, &error));
    if (error.code != ERROR_FORMAT || !strstr(error.text, cases[i].reason))
      fail_msg("(%d) '%s' does not say '%s'", (int)error.code, error.text, cases[i].reason);
    write_file(folder, cases[i].name, "{}");
  }
  tokenizer_free(open_folder(folder));
  write_file(folder, "tokenizer.json", "[]"); /* which is read before the model */
  struct error error = ERROR_INIT;
  assert_null(tokenizer_open_folder(folder, &error));
  assert_non_null(strstr(error.text, "tokenizer.json"));
  remove_folder(folder);
}

/* A published file beside the same vocabulary in another format: the same ids, but where this one squeezes spaces. */
static void test_babyllama(void **state) {
  (void)state;
  static const char *const texts[] = {"", "Once upon a time, there was a little girl.", "two words \n\nnew", "1234 !?", "<s>"};
  const char *path = data_path("models/babyllama105/tok105.model");
  char *data;
  size_t size;
  struct error error = ERROR_INIT;
  if (!path) skip();
  assert_int_equal(file_read(path, 1 << 20, &data, &size, &error), 0);
  struct tokenizer *a = parse(data, size, &error), *b = open_folder(data_path("models/babyllama105/hf"));
  assert_non_null(a);
  assert_int_equal(tokenizer_size(a), 105);
  expect_same_ids(a, b, texts, sizeof texts / sizeof texts[0]);
  tokenizer_free(a);
  tokenizer_free(b);
  free(data);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_llama),          cmocka_unit_test(test_llama_new),    cmocka_unit_test(test_gemma),
      cmocka_unit_test(test_mapped),         cmocka_unit_test(test_characters),   cmocka_unit_test(test_plain_spaces),
      cmocka_unit_test(test_order),          cmocka_unit_test(test_fields),       cmocka_unit_test(test_refused_models),
      cmocka_unit_test(test_cut_short),      cmocka_unit_test(test_charsmap),     cmocka_unit_test(test_refused_maps),
      cmocka_unit_test(test_bos),            cmocka_unit_test(test_added),        cmocka_unit_test(test_refused_settings),
      cmocka_unit_test(test_babyllama),
  };
  return cmocka_run_group_tests_name("tokenizer_pieces", tests, NULL, NULL);
}
