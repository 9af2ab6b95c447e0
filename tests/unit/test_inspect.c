/* steerd inspect: the facts of the tiny GPT-2 of the vectors, its loss of precision as PyTorch has it, and files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "core/inspect.h"

#define TINY "tests/vectors/tiny-gpt2/"

static const struct inspect_fact *fact(const struct inspect_facts *facts, const char *section, const char *key) {
  for (size_t i = 0; i < facts->count; i++)
    if (strcmp(facts->list[i].section, section) == 0 && facts->list[i].key && strcmp(facts->list[i].key, key) == 0)
      return &facts->list[i];
  fail_msg("no fact '%s' in section '%s'", key, section);
  return NULL;
}

static void inspect(const char *place, bool measure, struct inspect_facts *facts) {
  struct error error = ERROR_INIT;
  struct inspect_options options = {.place = place, .names = "config/aliases.ini", .threads = 1, .measure = measure};
  if (inspect_place(&options, facts, &error) != 0) fail_msg("%s", error.text);
}

static bool has_item(const struct inspect_facts *facts, const char *section, const char *part) {
  for (size_t i = 0; i < facts->count; i++)
    if (strcmp(facts->list[i].section, section) == 0 && !facts->list[i].key && strstr(facts->list[i].text, part)) return true;
  return false;
}

static void test_model(void **state) {
  (void)state;
  struct inspect_facts facts;
  inspect(TINY "model", false, &facts);
  assert_string_equal(fact(&facts, "model", "family")->text, "gpt2");
  assert_int_equal(fact(&facts, "model", "parameters")->integer, 98544);
  assert_int_equal(fact(&facts, "architecture", "layers")->integer, 3);
  assert_int_equal(fact(&facts, "architecture", "context")->integer, 160);
  assert_non_null(strstr(fact(&facts, "architecture", "positions")->text, "learned"));
  assert_non_null(strstr(fact(&facts, "architecture", "MLP")->text, "gelu (tanh)"));
  assert_true(has_item(&facts, "transformations", "h.N.attn.c_attn.weight: rows are inputs"));
  assert_true(has_item(&facts, "transformations", "the embedding is kept once"));
  assert_int_equal(fact(&facts, "tokenizer", "tokens")->integer, 512);
  assert_string_equal(fact(&facts, "tokenizer", "kind")->text, "byte-level BPE (GPT-2's)");
  assert_string_equal(fact(&facts, "tokenizer", "BOS")->text, "511 (<|endoftext|>)");
  /* 3 layers x 4 heads x 12 elements, keys and values, f32: in blocks of 64 positions, of which 160 fill 2.5 */
  assert_true(fact(&facts, "memory", "keys and values of a token")->integer >= 3 * 4 * 12 * 2 * 4);
  assert_true(fact(&facts, "memory", "weights")->integer >= 98544 * 4);
  for (size_t i = 0; i < facts.count; i++) assert_string_not_equal(facts.list[i].section, "precision");
  inspect_clear(&facts);
}

/* The parts are the whole. */
static void test_sizes(void **state) {
  (void)state;
  static const char *const names[] = {"embedding", "positions", "attention", "MLP", "norms"};
  struct inspect_facts facts;
  int64_t bytes = 0;
  inspect(TINY "model", false, &facts);
  for (size_t i = 0; i < 5; i++) bytes += fact(&facts, "sizes", names[i])->integer;
  /* Vectors are kept on multiples of 64 bytes: 8 of them in each of 3 layers, 2 norms and the positions. */
  int64_t whole = fact(&facts, "memory", "weights")->integer;
  assert_true(bytes <= whole && whole - bytes < 32 * 64);
  inspect_clear(&facts);
}

/* Figures printed by tests/vectors/tiny-gpt2/make_precision.py (float64). Ours are sums in f32: relative deviations of
 * 1e-4 leave room for that and are far below the difference between the two types. */
static void test_precision(void **state) {
  (void)state;
  static const struct {
    const char *key;
    double want;
  } figures[] = {{"bf16: relative error of logits", 0.021257789}, {"bf16: same next token", 94.0 / 96},
                 {"bf16: loss", 9.880540422},                     {"f16: relative error of logits", 0.0031455047},
                 {"f16: same next token", 1},                     {"f16: loss", 9.870188699},
                 {"q8: relative error of logits", 0.077184936},   {"q8: same next token", 87.0 / 96},
                 {"q8: loss", 9.860168818}};
  struct inspect_facts facts;
  inspect(TINY "model", true, &facts);
  assert_string_equal(fact(&facts, "precision", "measured on")->text, "96 tokens of a built-in text");
  for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
    double got = fact(&facts, "precision", figures[i].key)->real;
    if (fabs(got - figures[i].want) > 1e-4 * figures[i].want)
      fail_msg("%s: %.9g, recorded %.9g", figures[i].key, got, figures[i].want);
  }
  int64_t half = fact(&facts, "precision", "bf16: weights")->integer;
  assert_true(half < fact(&facts, "memory", "weights")->integer && fact(&facts, "precision", "q8: weights")->integer < half);
  inspect_clear(&facts);
  inspect(TINY "model-bf16", true, &facts);
  assert_non_null(strstr(fact(&facts, "precision", "weights")->text, "BF16 in the file and run as they are"));
  assert_non_null(fact(&facts, "precision", "q8: loss"));
  inspect_clear(&facts);
}

static void test_files(void **state) {
  (void)state;
  struct inspect_facts facts;
  inspect("tests/vectors/tensor_files/arrays_compressed.npz", true, &facts);
  assert_string_equal(fact(&facts, "file", "format")->text, "npz");
  assert_string_equal(fact(&facts, "tensors", "columns")->text, "[2, 3] F32, 24 bytes, transposed or a slice, compressed");
  inspect_clear(&facts);
  inspect("tests/vectors/tensor_files/mixed.pth", true, &facts);
  assert_string_equal(fact(&facts, "tensors", "state_dict.tied.a")->text, "[4] F32, 16 bytes");
  inspect_clear(&facts);
  inspect("tests/vectors/tensor_files/sharded", true, &facts); /* a folder without config.json */
  assert_string_equal(fact(&facts, "tensors", "c")->text, "[4] F32, 16 bytes");
  inspect_clear(&facts);
}

static void assert_refused(const char *place, const char *part) {
  struct error error = ERROR_INIT;
  struct inspect_facts facts;
  struct inspect_options options = {.place = place, .threads = 1};
  assert_int_not_equal(inspect_place(&options, &facts, &error), 0);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  inspect_clear(&facts);
}

static void test_refused(void **state) {
  (void)state;
  assert_refused("/nowhere", "no such file or folder");
  assert_refused("README.md", "neither safetensors");
  assert_refused("tests", "holds no weights");
  assert_refused("tests/vectors/tensor_files/legacy.pth", "a bare pickle");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_model), cmocka_unit_test(test_sizes),
                                     cmocka_unit_test(test_precision), cmocka_unit_test(test_files),
                                     cmocka_unit_test(test_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
