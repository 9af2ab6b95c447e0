/* test_dict_formats.c: every file format that people publish, from samples as their own libraries write them, against
 * float64 recordings (tests/vectors/dict-formats); descriptions of them; and what is said of hostile ones. */
#include "tests/unit/dict_splices.h"

#include "core/base/json.h"
#include "core/model/points.h"

#define FOLDER "tests/vectors/dict-formats"
#define EMBEDDING "tests/vectors/dict-embed/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6"
static const struct arch toy_arch = {.n_layer = 2, .n_head = 3, .n_kv_head = 3, .d_head = 8, .d_model = 16, .d_mlp = 20,
                                     .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host toy = {"toy", &toy_arch, NULL, NULL};

static struct backend *backends[DICT_BACKENDS];
static struct tensors *file;
static struct json_node *cases; /* [name, path, title, point read, point written] */

static int set_up(void **state) {
  (void)state;
  setenv("STEERD_DATA", "tests/vectors", 1); /* for described.ini */
  open_backends(backends);
  file = tensors_open(FOLDER "/expected.safetensors", NULL);
  cases = json_load(FOLDER "/cases.json", 1 << 16, 4, NULL);
  return file && cases ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  json_free(cases);
  tensors_close(file);
  close_backends(backends);
  return 0;
}

static const char *of(size_t i, size_t field) { return json_text(json_at(json_at(cases, i), field), NULL); }

/* The id is a section's name where the path is an ini. */
static const char *id_of(size_t i) { return strstr(of(i, 1), ".ini") ? of(i, 0) : "1-test"; }

static void formats_as_recorded(void **state) {
  (void)state;
  char path[256];
  assert_true(json_count(cases) >= 28);
  for (size_t i = 0; i < json_count(cases); i++)
    for (int b = 0; b < DICT_BACKENDS; b++) {
      snprintf(path, sizeof path, FOLDER "/%s", of(i, 1));
      assert_true(dict_recognises(path));
      as_recorded(backends[b], file, of(i, 0), path, id_of(i), &toy);
      splices_as_recorded(backends[b], file, of(i, 0), path, id_of(i), &toy);
    }
}

static void what_was_opened_is_told(void **state) {
  (void)state;
  char path[256], name[POINT_NAME_BYTES];
  for (size_t i = 0; i < json_count(cases); i++) {
    snprintf(path, sizeof path, FOLDER "/%s", of(i, 1));
    struct dict *dict = dict_open(path, id_of(i), &toy, backends[0], NULL);
    assert_non_null(dict);
    assert_string_equal(dict_title(dict_info(dict)), of(i, 2));
    assert_string_equal(point_name(dict_info(dict)->in, name), of(i, 3));
    assert_string_equal(point_name(dict_info(dict)->out, name), of(i, 4));
    dict_close(dict);
  }
}

/* Gemma multiplies its embedding, the dictionary was trained on what lies in the table (tests/vectors/dict-embed). */
static void an_embedding_is_read_as_it_lies(void **state) {
  (void)state;
  static const struct arch gemma = {.n_layer = 3, .n_head = 4, .n_kv_head = 2, .d_head = 10, .d_model = 24, .d_mlp = 44,
                                    .has = HAS_MLP | HAS_NORM2 | HAS_POST_NORMS, .norm = NORM_RMS, .embed_scale = 4.89897949f};
  static const struct dict_host host = {"gemma-2-2b", &gemma, NULL, NULL};
  struct tensors *want = tensors_open("tests/vectors/dict-embed/expected.safetensors", NULL);
  assert_non_null(want);
  for (int b = 0; b < DICT_BACKENDS; b++) {
    struct dict *dict = must_open(backends[b], EMBEDDING, "e-test", &host);
    struct sparse codes;
    float *dense, back[24 * 32];
    int64_t n = 0;
    const float *x = recorded(want, "", "embed", &n);
    char name[POINT_NAME_BYTES];
    assert_string_equal(point_name(dict_info(dict)->in, name), "hook_embed");
    assert_true(dict_info(dict)->l0 == 6);
    sparse_init(&codes);
    encode_rows(backends[b], dict, x, n, &codes);
    dense = dense_of(&codes, 64);
    close_to("embedding", "features", dense, recorded(want, "", "features", NULL), (size_t)n * 64);
    dict_decode(dict, &codes, 0, (size_t)n, NULL, back);
    close_to("embedding", "reconstruction", back, recorded(want, "", "reconstruction", NULL), (size_t)n * 24);
    decoder_rows_agree("embedding", dict);
    test_free(dense);
    sparse_clear(&codes);
    dict_close(dict);
  }
  tensors_close(want);
  char *text = NULL;
  struct buffer told;
  buffer_init(&told, 0);
  assert_int_equal(dict_describe(EMBEDDING, "e-test", &told, NULL), 0);
  text = told.data;
  assert_non_null(strstr(text, "reads: hook_embed, 24 wide"));
  assert_non_null(strstr(text, "the folder says 'embedding'"));
  buffer_clear(&told);
}

/* ---- descriptions ------------------------------------------------------------------------------------- */

static char *description_of(const char *path, const char *id) {
  struct buffer text;
  struct error error = ERROR_INIT;
  buffer_init(&text, 0);
  if (dict_describe(path, id, &text, &error) != 0) fail_msg("%s: %s", path, error.text);
  return text.data;
}

/* All of them can be described without a model, and the description says what was decided. */
static void descriptions_tell_the_decision(void **state) {
  (void)state;
  char path[256], line[256];
  for (size_t i = 0; i < json_count(cases); i++) {
    snprintf(path, sizeof path, FOLDER "/%s", of(i, 1));
    char *text = description_of(path, id_of(i));
    snprintf(line, sizeof line, "kind: %s of 32 features", of(i, 2));
    if (!strstr(text, line)) fail_msg("%s: no '%s' in\n%s", path, line, text);
    snprintf(line, sizeof line, "reads: %s,", of(i, 3));
    if (!strstr(text, line) && !strstr(text, "mlp.hook_out,") /* of a model with or without a norm behind it */) fail_msg("%s: no '%s' in\n%s", path, line, text);
    assert_non_null(strstr(text, "tensor: W_enc is '"));
    free(text);
  }
}

static void a_description_in_full(void **state) {
  (void)state;
  char *text = description_of(FOLDER "/gpt2-small/resid_post_attn/v5_32k/autoencoders/1.pt", "1-x");
  assert_string_equal(text, "kind: topk of 32 features, F32\n"
                            "format: openai\n"
                            "description: " FOLDER "/gpt2-small/resid_post_attn/v5_32k/autoencoders/1.pt\n"
                            "weights: " FOLDER "/gpt2-small/resid_post_attn/v5_32k/autoencoders/1.pt\n"
                            "reads: blocks.1.hook_resid_mid, 16 wide\n"
                            "writes: blocks.1.hook_resid_mid, 16 wide\n"
                            "context: 64 tokens\n"
                            "texts begin with BOS: yes\n"
                            "field: activation = TopK\n"
                            "field: activation_state_dict.k = 4: rows are brought to mean 0 and deviation 1 first\n"
                            "field: the folders say '/resid_post_attn/', layer 1\n"
                            "tensor: W_enc is 'encoder.weight' [32, 16] F32, transposed\n"
                            "tensor: W_dec is 'decoder.weight' [16, 32] F32, transposed\n"
                            "tensor: b_enc is 'latent_bias' [32] F32\n"
                            "tensor: b_dec is 'pre_bias' [16] F32\n"
                            "tensor: 'stats_last_nonzero' is not used\n"
                            "step: each row is brought to mean 0 and deviation 1 (n - 1, 1e-5 added), and what is decoded back\n"
                            "step: b_dec is subtracted from the input\n"
                            "step: the 4 largest of each row stay, compared as they are, where they are above 0\n"
                            "step: activations are shown times the length of their decoder row, which is brought to length 1\n");
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(formats_as_recorded), cmocka_unit_test(what_was_opened_is_told),
                                     cmocka_unit_test(an_embedding_is_read_as_it_lies),
                                     cmocka_unit_test(descriptions_tell_the_decision), cmocka_unit_test(a_description_in_full)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
