/* llama2.c checkpoints: the real one gives the logits of its Hugging Face twin, and files that only look like one are
 * refused. */
#include "tests/unit/plan_bench.h"

#include <unistd.h>

#include "core/model/llama2c.h"

#define TOKENS 24

static const char *data_path(const char *name, char out[512]) {
  const char *root = getenv("STEERD_DATA");
  snprintf(out, 512, "%s/models/%s", root ? root : "../shared/data", name);
  if (access(out, R_OK) == 0) return out;
  printf("skip: models/%s (set STEERD_DATA)\n", name);
  return NULL;
}

static float *logits_of(const char *path, size_t *count) {
  struct bench b;
  int32_t ids[TOKENS];
  if (bench_open(&b, "cpu", path) != 0) return NULL;
  *count = TOKENS * (size_t)b.model->arch.vocabulary;
  float *logits = malloc(*count * sizeof *logits);
  for (int i = 0; i < TOKENS; i++) ids[i] = i ? (37 * i) % 512 : 1;
  bench_run(&b, ids, 0, TOKENS, logits);
  bench_close(&b);
  return logits;
}

/* The twin has the rows of q and k in another order, so that sums inside a head differ: decision 18's tolerance. */
static void test_same_logits_as_its_twin(void **state) {
  (void)state;
  char checkpoint[512], twin[512];
  size_t n, m;
  if (!data_path("stories260K/stories260K.bin", checkpoint) || !data_path("stories260K/hf", twin)) skip();
  float *ours = logits_of(checkpoint, &n), *theirs = logits_of(twin, &m);
  assert_true(ours && theirs && n == m);
  assert_true(vectors_agree("stories260K.bin", ours, theirs, n));
  free(ours);
  free(theirs);
}

/* ---- built here ---- */

/* Width 4, MLP width 6, 2 layers, 2 heads, 1 key-value head, vocabulary 5, context 3: counts by hand. */
#define PER_LAYER (4 + 16 + 8 + 8 + 16 + 4 + 24 + 24 + 24)
#define ELEMENTS (20 + 2 * PER_LAYER + 4 + 3 * 2)
static const int32_t header[7] = {4, 6, 2, 2, 1, 5, 3};

static size_t build(unsigned char **out, int32_t vocabulary, size_t elements) {
  size_t size = sizeof header + elements * sizeof(float);
  *out = calloc(1, size + 4);
  memcpy(*out, header, sizeof header);
  memcpy(*out + 20, &vocabulary, 4);
  for (size_t i = 0; i < elements; i++) {
    float value = (float)i;
    memcpy(*out + sizeof header + i * 4, &value, 4);
  }
  return size;
}

static void check(struct tensor_list *list, const char *name, const char *shape, float first) {
  char text[128];
  size_t at = tensor_list_find(list, name);
  if (at == SIZE_MAX) fail_msg("tensor '%s' is missing", name);
  assert_string_equal(tensor_describe(&list->items[at], text), shape);
  assert_true(dtype_f32_at(list->items[at].data, DTYPE_F32, 0) == first);
}

/* The first element of each tensor is its place in the file. */
static void test_layout(void **state) {
  (void)state;
  unsigned char *bytes;
  struct error error = ERROR_INIT;
  struct mapfile file = {NULL, build(&bytes, -5, ELEMENTS + 20)}; /* negative: an unembedding of its own */
  file.data = bytes;
  struct tensor_list list;
  tensor_list_init(&list);
  assert_true(llama2c_begins(&file));
  assert_int_equal(llama2c_read("f", &file, &list, &error), 0);
  assert_int_equal(tensor_list_index(&list, &error), 0);
  assert_int_equal(list.count, 1 + 2 * 9 + 1 + 1);
  check(&list, "model.embed_tokens.weight", "[5, 4] F32", 0);
  check(&list, "model.layers.1.input_layernorm.weight", "[4] F32", 20 + 4);
  check(&list, "model.layers.1.self_attn.q_proj.weight", "[4, 4] F32", 28 + 16);
  check(&list, "model.layers.0.self_attn.k_proj.weight", "[2, 4] F32", 60);
  check(&list, "model.layers.1.self_attn.v_proj.weight", "[2, 4] F32", 76 + 8);
  check(&list, "model.layers.0.mlp.gate_proj.weight", "[6, 4] F32", 20 + 2 * 56);
  check(&list, "model.layers.0.mlp.down_proj.weight", "[4, 6] F32", 20 + 2 * 56 + 48);
  check(&list, "model.layers.1.mlp.up_proj.weight", "[6, 4] F32", 20 + 2 * 56 + 96 + 24);
  check(&list, "model.norm.weight", "[4] F32", 20 + 2 * PER_LAYER);
  check(&list, "lm_head.weight", "[5, 4] F32", ELEMENTS);
  tensor_list_clear(&list);
  free(bytes);
}

static void assert_not_one(const unsigned char *bytes, size_t size) {
  struct mapfile file = {bytes, size};
  assert_false(llama2c_begins(&file));
}

static void test_not_a_checkpoint(void **state) {
  (void)state;
  static const int32_t bad[] = {0, -1, 3, INT32_MIN, INT32_MAX};
  unsigned char *bytes;
  size_t size = build(&bytes, 5, ELEMENTS);
  struct mapfile file = {bytes, size};
  assert_true(llama2c_begins(&file));
  assert_not_one(bytes, size - 1);
  assert_not_one(bytes, size + 1);
  assert_not_one(bytes, 27);
  assert_not_one(bytes, 0);
  for (int field = 0; field < 7; field++)
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
      int32_t value = bad[i];
      if (value == header[field]) continue;
      memcpy(bytes + 4 * field, &value, 4);
      assert_not_one(bytes, size);
      memcpy(bytes + 4 * field, &header[field], 4);
    }
  free(bytes);
}

/* The same sizes behind a mark: version, header of 256 bytes, norms in front, no tables. */
static size_t build_marked(unsigned char **out, int32_t version, bool shared) {
  const int32_t head[] = {0x616b3432, version};
  size_t elements = ELEMENTS - 3 * 2 + (shared ? 0 : 20), size = 256 + elements * sizeof(float);
  *out = calloc(1, size + 4);
  memcpy(*out, head, sizeof head);
  memcpy(*out + 8, header, sizeof header);
  (*out)[36] = shared;
  for (size_t i = 0; i < elements; i++) {
    float value = (float)i;
    memcpy(*out + 256 + i * 4, &value, 4);
  }
  return size;
}

static void test_layout_of_version_1(void **state) {
  (void)state;
  unsigned char *bytes;
  struct error error = ERROR_INIT;
  struct mapfile file = {NULL, build_marked(&bytes, 1, false)};
  file.data = bytes;
  struct tensor_list list;
  tensor_list_init(&list);
  assert_true(llama2c_begins(&file));
  assert_int_equal(llama2c_read("f", &file, &list, &error), 0);
  assert_int_equal(tensor_list_index(&list, &error), 0);
  assert_int_equal(list.count, 1 + 2 * 9 + 1 + 1);
  check(&list, "model.layers.1.input_layernorm.weight", "[4] F32", 4);
  check(&list, "model.layers.0.post_attention_layernorm.weight", "[4] F32", 8);
  check(&list, "model.norm.weight", "[4] F32", 16);
  check(&list, "model.embed_tokens.weight", "[5, 4] F32", 20);
  check(&list, "model.layers.1.self_attn.q_proj.weight", "[4, 4] F32", 40 + 16);
  check(&list, "model.layers.0.mlp.gate_proj.weight", "[6, 4] F32", 40 + 2 * 48);
  check(&list, "model.layers.1.mlp.up_proj.weight", "[6, 4] F32", 136 + 2 * 48 + 24);
  check(&list, "lm_head.weight", "[5, 4] F32", 136 + 3 * 48);
  tensor_list_clear(&list);
  free(bytes);
}

static void refuses(const unsigned char *bytes, size_t size, enum error_code code, const char *text) {
  struct error error = ERROR_INIT;
  struct mapfile file = {bytes, size};
  struct tensor_list list;
  tensor_list_init(&list);
  assert_int_equal(llama2c_read("f", &file, &list, &error), -1);
  if (error.code != code || !strstr(error.text, text)) fail_msg("'%s' does not say '%s'", error.text, text);
  tensor_list_clear(&list);
}

static void test_marked_files_are_refused(void **state) {
  (void)state;
  unsigned char *bytes;
  int32_t negative = -5;
  size_t size = build_marked(&bytes, 1, true);
  refuses(bytes, size - 1, ERROR_FORMAT, "'f' has 1375 bytes, a llama2.c checkpoint of its sizes has 1376");
  refuses(bytes, size + 1, ERROR_FORMAT, "'f' has 1377 bytes");
  refuses(bytes, 255, ERROR_FORMAT, "'f' is not a llama2.c checkpoint");
  memcpy(bytes + 28, &negative, 4);
  refuses(bytes, size, ERROR_FORMAT, "'f' is not a llama2.c checkpoint");
  free(bytes);
  size = build_marked(&bytes, 2, true);
  refuses(bytes, size, ERROR_UNSUPPORTED, "'f' is a llama2.c checkpoint of version 2; versions 0 and 1 are served");
  refuses(bytes, 256, ERROR_UNSUPPORTED, "export it with --version 1");
  free(bytes);
}

static void test_errors(void **state) {
  (void)state;
  char text[512];
  struct error error = ERROR_INIT;
  assert_int_not_equal(llama2c_config("README.md", text, &error), 0);
  assert_non_null(strstr(error.text, "'README.md' is not a llama2.c checkpoint"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_logits_as_its_twin), cmocka_unit_test(test_layout),
                                     cmocka_unit_test(test_not_a_checkpoint),
                                     cmocka_unit_test(test_layout_of_version_1),
                                     cmocka_unit_test(test_marked_files_are_refused), cmocka_unit_test(test_errors)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
