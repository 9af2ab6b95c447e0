/* tokenizer_cases.h: a folder with a tokenizer and the ids and texts recorded of it (tests/vectors/tokenizer). */
#ifndef STEERD_TESTS_UNIT_TOKENIZER_CASES_H
#define STEERD_TESTS_UNIT_TOKENIZER_CASES_H

#include "core/base/json_reader.h"
#include "core/base/mapfile.h"
#include "core/base/utf8.h"
#include "core/model/detokenizer.h"
#include "tests/unit/tokenizer_helpers.h"

static inline void expect_case_ids(const struct tokenizer *t, const char *name, const char *text, size_t length, int flags,
                            const struct json_node *want) {
  struct ids ids = encode(t, text, length, flags);
  bool equal = ids.count == json_count(want);
  for (size_t i = 0; equal && i < ids.count; i++) equal = ids.at[i] == json_int_or(json_at(want, i), -1);
  if (!equal) {
    for (size_t i = 0; i < ids.count; i++) print_message(" %d", ids.at[i]);
    print_message("\n");
    for (size_t i = 0; i < json_count(want); i++) print_message(" %d", (int)json_int_or(json_at(want, i), -1));
    fail_msg("%s: '%s' (flags %d) gave the first ids above, not the second", name, text, flags);
  }
  free(ids.at);
}

/* Token by token: what has been shown is whole characters and never changes. */
static inline void expect_case_text(const struct tokenizer *t, const char *name, const struct json_node *ids, const char *want,
                             size_t length) {
  struct detokenizer d;
  size_t shown = 0;
  detokenizer_init(&d, t);
  detokenizer_begin(&d);
  for (size_t i = 0; i < json_count(ids); i++) {
    assert_int_equal(detokenizer_push(&d, (int32_t)json_int_or(json_at(ids, i), -1)), 0);
    assert_true(d.text.length >= shown && utf8_valid(d.text.data + shown, d.text.length - shown, NULL));
    shown = d.text.length;
  }
  detokenizer_finish(&d);
  if (d.text.length != length || (length && memcmp(d.text.data, want, length) != 0))
    fail_msg("%s: decoded '%s', not '%s'", name, d.text.data ? d.text.data : "", want);
  detokenizer_clear(&d);
}

static inline void expect_cases(const char *name) {
  char path[256];
  struct error error = ERROR_INIT;
  snprintf(path, sizeof path, VECTORS "/%s", name);
  struct tokenizer *t = open_folder(path);
  snprintf(path, sizeof path, VECTORS "/%s/cases.json", name);
  struct json_reader reader;
  char *text;
  size_t length;
  assert_int_equal(file_read(path, 1 << 22, &text, &length, &error), 0);
  json_reader_init(&reader, text, length);
  /* jansson has no U+0000, so the texts are read with the reader and the ids, which hold none, by lines. */
  assert_int_equal(json_reader_open(&reader, '[', &error), 0);
  int count = 0;
  for (; json_reader_item(&reader, &error) > 0; count++) {
    const char *piece;
    size_t n;
    assert_int_equal(json_reader_open(&reader, '[', &error), 0);
    assert_int_equal(json_reader_item(&reader, &error), 1);
    assert_int_equal(json_reader_text(&reader, &piece, &n, &error), 0);
    char *input = memcpy(malloc(n + 1), piece, n);
    input[n] = '\0';
    struct json_node *ids[2] = {NULL, NULL};
    for (int special = 0; special < 2; special++) {
      assert_int_equal(json_reader_item(&reader, &error), 1);
      bool same = json_reader_peek(&reader) == JSON_KIND_NULL;
      size_t begin = reader.at;
      assert_int_equal(json_reader_skip(&reader, 1, &error), 0);
      if (!same) ids[special] = json_parse(text + begin, reader.at - begin, 1, &error);
      expect_case_ids(t, name, input, n, special ? TOKENIZE_SPECIAL : 0, ids[same ? 0 : special]);
    }
    assert_int_equal(json_reader_item(&reader, &error), 1);
    bool same = json_reader_peek(&reader) == JSON_KIND_NULL;
    const char *decoded = input;
    size_t decoded_length = n;
    if (same)
      assert_int_equal(json_reader_skip(&reader, 0, &error), 0);
    else
      assert_int_equal(json_reader_text(&reader, &decoded, &decoded_length, &error), 0);
    expect_case_text(t, name, ids[ids[1] ? 1 : 0], decoded, decoded_length);
    assert_int_equal(json_reader_item(&reader, &error), 0);
    json_free(ids[0]);
    json_free(ids[1]);
    free(input);
  }
  assert_int_equal(error.code, ERROR_NONE);
  assert_true(count >= 150);
  json_reader_clear(&reader);
  free(text);
  tokenizer_free(t);
}

#endif
