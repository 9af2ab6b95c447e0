/* tokenizer_helpers.h: what the tokenizer's test programs share. */
#ifndef STEERD_TESTS_UNIT_TOKENIZER_HELPERS_H
#define STEERD_TESTS_UNIT_TOKENIZER_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/model/tokenizer.h"

#define VECTORS "tests/vectors/tokenizer"
#define END "<|endoftext|>"

static inline struct tokenizer *open_folder(const char *folder) {
  struct error error = ERROR_INIT;
  struct tokenizer *t = tokenizer_open_folder(folder, &error);
  if (!t)
    fail_msg("%s: %s", folder, error.text);
  return t;
}

/* A folder of the shared data, or NULL after saying that it is absent. */
static inline const char *data_path(const char *name) {
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

static inline struct ids encode(const struct tokenizer *t, const char *text, size_t length, int flags) {
  struct error error = ERROR_INIT;
  struct ids ids;
  if (tokenizer_encode(t, text, length, flags, &ids.at, &ids.count, &error) != 0)
    fail_msg("'%.60s': %s", text, error.text);
  assert_true((ids.at == NULL) == (ids.count == 0));
  return ids;
}

static inline void expect_ids(const struct tokenizer *t, const char *text, int flags, const int32_t *want,
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

static inline char *temporary_folder(void) {
  static char folder[64];
  strcpy(folder, "/tmp/test_tokenizer_XXXXXX");
  assert_non_null(mkdtemp(folder));
  return folder;
}

static inline void write_file(const char *folder, const char *name, const char *text) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  assert_int_equal(fwrite(text, 1, strlen(text), out), strlen(text));
  assert_int_equal(fclose(out), 0);
}

static inline void remove_folder(const char *folder) {
  static const char *const names[] = {
      "tokenizer.json",         "vocab.json",        "merges.txt",
      "tokenizer_config.json",  "config.json",       "special_tokens_map.json",
      "generation_config.json", "added_tokens.json", "corpus.txt",
      "tokenizer.model",        "spiece.model"};
  char path[512];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    unlink(path);
  }
  assert_int_equal(rmdir(folder), 0);
}

static inline void expect_encode_error(const struct tokenizer *t, const char *text, size_t length,
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

/* Two readings of one vocabulary give the same ids. */
static inline void expect_same_ids(struct tokenizer *a, struct tokenizer *b, const char *const *texts, size_t n) {
  for (size_t i = 0; i < n; i++) {
    struct ids ids = encode(a, texts[i], strlen(texts[i]), TOKENIZE_BOS);
    expect_ids(b, texts[i], TOKENIZE_BOS, ids.at, ids.count);
    free(ids.at);
  }
}

#endif
