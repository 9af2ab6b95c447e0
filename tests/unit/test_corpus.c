/* Long texts are read in bounded pieces, and the pieces change no token: the ids of a corpus against those of the whole text
 * tokenised at once. A text without any place to cut is read too, in bounded steps that a stop can interrupt. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/analysis/corpus.h"
#include "core/base/buffer.h"
#include "core/base/random.h"

#define MODEL "tests/vectors/tiny-gpt2/model"
#define BYTES ((size_t)7 << 19) /* 3.5 MiB: two cuts or three */

static struct tokenizer *tokenizer;
static char path[64];

static int open_all(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  tokenizer = tokenizer_open_folder(MODEL, &error);
  snprintf(path, sizeof path, "/tmp/steerd-corpus-XXXXXX");
  int fd = mkstemp(path);
  if (fd >= 0) close(fd);
  return tokenizer && fd >= 0 ? 0 : -1;
}

static int close_all(void **state) {
  (void)state;
  tokenizer_free(tokenizer);
  return unlink(path);
}

/* Words of `letters`, between them one of `gaps`: about BYTES of them. */
static void write_words(struct buffer *out, const char *const *letters, size_t n_letters, const char *const *gaps,
                        size_t n_gaps) {
  buffer_init(out, 0);
  for (uint64_t word = 0; out->length < BYTES; word++) {
    size_t length = 1 + (size_t)(random_unit(5, 1, word) * 9);
    for (uint64_t i = 0; i < length; i++) buffer_text(out, letters[(size_t)(random_unit(5, 2, word * 16 + i) * (double)n_letters)]);
    buffer_text(out, gaps[(size_t)(random_unit(5, 3, word) * (double)n_gaps)]);
  }
}

static void write_file(const struct buffer *text) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(text->data, 1, text->length, file), text->length);
  assert_int_equal(fclose(file), 0);
}

static void check(struct buffer *text, bool lines) {
  struct error error = ERROR_INIT;
  struct corpus_options options = {.lines = lines, .context = 1 << 24};
  int32_t *want;
  size_t n;
  write_file(text);
  struct corpus *corpus = corpus_open(path, tokenizer, &options, &error);
  if (!corpus) fail_msg("%s", error.text);
  assert_int_equal(tokenizer_encode(tokenizer, text->data, text->length, 0, &want, &n, &error), 0);
  assert_int_equal(corpus_documents(corpus), 1);
  assert_int_equal(corpus_length(corpus, 0), n);
  int32_t *got = malloc(n * sizeof *got);
  corpus_ids(corpus, 0, got);
  assert_memory_equal(got, want, n * sizeof *got);
  free(got);
  free(want);
  corpus_close(corpus);
  buffer_clear(text);
}

static const char *const latin[] = {"a", "e", "t", "th", "er", "in", "S", "7", "."};
static const char *const greek[] = {"α", "ω", "δ", "一", "é"};

static void test_cuts_change_no_token(void **state) {
  (void)state;
  static const char *const lines[] = {"\n"}, *const blanks[] = {" "}, *const mixed[] = {" ", "\n", "\n\n", "  \n", "\t", ", "},
                           *const doubled[] = {"\n\n"}, *const spaced[] = {"\n\xC2\xA0", "\xE3\x80\x80\n", "\n\n"};
  struct buffer text;
  write_words(&text, latin, 9, lines, 1);
  check(&text, false);
  write_words(&text, latin, 9, blanks, 1);
  check(&text, false);
  write_words(&text, latin, 9, blanks, 1);
  check(&text, true);
  write_words(&text, latin, 9, mixed, 6);
  check(&text, false);
  write_words(&text, latin, 9, doubled, 1);
  check(&text, false);
  write_words(&text, greek, 5, lines, 1);
  check(&text, false);
  write_words(&text, greek, 5, spaced, 3);
  check(&text, false);
}

/* ---- nothing to cut at ---- */

static bool stop_at_second(void *context) { return ++*(int *)context > 2; }

static void test_no_place_to_cut(void **state) {
  (void)state;
  static const char *const nothing[] = {""};
  struct error error = ERROR_INIT;
  struct buffer text;
  int asked = 0;
  write_words(&text, greek, 5, nothing, 1);
  write_file(&text);
  struct corpus_options options = {.context = 128, .stop = stop_at_second, .stop_context = &asked};
  assert_null(corpus_open(path, tokenizer, &options, &error));
  assert_int_equal(error.code, ERROR_CANCELLED);
  assert_int_equal(asked, 3); /* two pieces were read, not the whole text */
  options.stop = NULL;
  error = (struct error)ERROR_INIT;
  struct corpus *corpus = corpus_open(path, tokenizer, &options, &error);
  if (!corpus) fail_msg("%s", error.text); /* cut inside a character it would not be UTF-8 */
  assert_true(corpus_tokens(corpus) > 0);
  corpus_close(corpus);
  buffer_clear(&text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_cuts_change_no_token), cmocka_unit_test(test_no_place_to_cut)};
  return cmocka_run_group_tests(tests, open_all, close_all);
}
