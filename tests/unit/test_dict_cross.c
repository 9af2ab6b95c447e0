/* test_dict_cross.c: cross-layer transcoders in circuit-tracer's and Gemma Scope 2's files against PyTorch (tests/vectors/dict-clt): features of every
 * layer, what they write to every layer, sums and products of their rows; and what is said of files that lie. */
#include "tests/unit/dict_splices.h"

#include <unistd.h>

#include "core/analysis/tables.h"
#include "core/base/log.h"
#include "core/model/points.h"

#define FOLDER "tests/vectors/dict-clt/"
#define AFFINE "clt/width_1k_l0_small_affine" /* recorded as "affine" */
enum { D = 48, FEATURES = 40, LAYERS = 3 };
static const struct arch tiny_arch = {.n_layer = LAYERS, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = D, .d_mlp = 192,
                                      .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host tiny = {"tiny-gpt2", &tiny_arch, NULL, NULL};
static struct backend *backends[DICT_BACKENDS];
static struct tensors *file;
static char top[64];

static void silent(void *context, enum log_level level, const char *text) {
  (void)context, (void)level, (void)text;
}

static int set_up(void **state) {
  (void)state;
  log_set_sink(silent, NULL);
  open_backends(backends);
  file = tensors_open(FOLDER "expected.safetensors", NULL);
  snprintf(top, sizeof top, "/tmp/steerd-cross-XXXXXX");
  return file && mkdtemp(top) ? 0 : -1;
}

static void shell(const char *format, ...) {
  char command[1024];
  va_list args;
  va_start(args, format);
  vsnprintf(command, sizeof command, format, args);
  va_end(args);
  if (system(command) != 0) fail_msg("%s", command);
}

static int tear_down(void **state) {
  (void)state;
  shell("rm -rf '%s'", top);
  tensors_close(file);
  close_backends(backends);
  return 0;
}

static const float *recorded_at(const char *name, const char *what, int layer, int64_t *rows) {
  char key[64];
  snprintf(key, sizeof key, "%s_%d", what, layer);
  const float *found = recorded(file, name, key, rows);
  if (!found) fail_msg("%s/%s is not recorded", name, key);
  return found;
}

static struct dict *open_layer(struct backend *backend, const char *name, int layer) {
  char path[256], id[16];
  snprintf(path, sizeof path, FOLDER "%s", strcmp(name, "affine") ? name : AFFINE);
  snprintf(id, sizeof id, "%d-clt", layer);
  return must_open(backend, path, id, &tiny);
}

/* ---- what a layer is --------------------------------------------------------------------------------- */

static void a_layer_reads_one_point_and_writes_many(void **state) {
  (void)state;
  char name[POINT_NAME_BYTES], want[POINT_NAME_BYTES];
  for (int layer = 0; layer < LAYERS; layer++) {
    struct dict *dict = open_layer(backends[0], "jump", layer), *other = open_layer(backends[0], "relu", layer);
    const struct dict_info *info = dict_info(dict);
    assert_true(info->cross && info->transcoder && !info->folded && !info->apply_b_dec_to_input);
    assert_string_equal(dict_title(info), "jumprelu cross-layer transcoder");
    assert_string_equal(dict_title(dict_info(other)), "relu cross-layer transcoder");
    assert_int_equal(info->n_targets, LAYERS - layer);
    assert_int_equal(info->n_feat, FEATURES);
    snprintf(want, sizeof want, "blocks.%d.hook_resid_mid", layer);
    assert_string_equal(point_name(info->in, name), want);
    snprintf(want, sizeof want, "blocks.%d.mlp.hook_in", layer);
    assert_string_equal(point_name(dict_info(other)->in, name), want);
    for (int t = 0; t < info->n_targets; t++) {
      snprintf(want, sizeof want, "blocks.%d.hook_mlp_out", layer + t);
      assert_string_equal(point_name(dict_target(dict, t), name), want);
    }
    struct dict *first = open_layer(backends[0], "jump", 0);
    assert_true(dict_same_transcoder(dict, first));
    assert_false(dict_same_transcoder(dict, other));
    dict_close(first);
    dict_close(other);
    dict_close(dict);
  }
}

static void gemma_scope_2_is_told_by_its_folder(void **state) {
  (void)state;
  char name[POINT_NAME_BYTES];
  struct dict *dict = open_layer(backends[0], "affine", 1), *file_of = must_open(backends[0], FOLDER AFFINE "/params_layer_1.safetensors",
                                                                                "x-1", &tiny);
  assert_string_equal(dict_title(dict_info(dict)), "jumprelu cross-layer skip transcoder");
  assert_string_equal(dict_info(dict)->format, "gemma-scope-2-cross-layer");
  assert_string_equal(point_name(dict_info(dict)->in, name), "blocks.1.mlp.hook_in");
  assert_string_equal(point_name(dict_target(dict, 1), name), "blocks.2.hook_mlp_out");
  assert_int_equal(dict_info(dict)->n_targets, 2);
  assert_true(dict_same_transcoder(dict, file_of));
  dict_close(file_of);
  dict_close(dict);
}

/* The id's number says the layer of a folder; a file says it by its name. */
static void layers_are_told_by_id_or_file(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct dict *dict = must_open(backends[0], FOLDER "jump/W_enc_1.safetensors", "9-anything", &tiny);
  assert_int_equal(dict_info(dict)->in.layer, 1);
  dict_close(dict);
  assert_null(dict_open(FOLDER "jump", "clt", &tiny, backends[0], &error));
  assert_non_null(strstr(error.text, "begins with none of them"));
  assert_true(dict_recognises(FOLDER "jump") && dict_recognises(FOLDER "jump/W_enc_2.safetensors"));
  assert_false(dict_recognises(FOLDER "jump/W_dec_2.safetensors"));
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

static void encode_recorded(struct backend *backend, const char *name, const struct dict *dict, struct sparse *codes,
                            int64_t *n_rows) {
  int layer = dict_info(dict)->in.layer;
  const float *x = recorded_at(name, "x", layer, n_rows);
  sparse_init(codes);
  encode_rows(backend, dict, x, *n_rows, codes);
  float *dense = dense_of(codes, FEATURES);
  close_to(name, "features", dense, recorded_at(name, "features", layer, NULL), (size_t)*n_rows * FEATURES);
  single_features_agree(name, dict, x, *n_rows, recorded_at(name, "features", layer, NULL));
  test_free(dense);
}

/* Every layer encodes its own rows and adds what it writes to each layer: together they are the recorded reconstructions. */
static void reconstructions_are_sums_over_layers(void **state) {
  (void)state;
  static const char *const names[] = {"jump", "relu", "affine"};
  for (int b = 0; b < DICT_BACKENDS; b++)
    for (int k = 0; k < 3; k++) {
      float *y[LAYERS];
      int64_t n = 0;
      recorded_at(names[k], "x", 0, &n);
      for (int m = 0; m < LAYERS; m++) y[m] = test_calloc((size_t)n * D, sizeof(float));
      for (int layer = 0; layer < LAYERS; layer++) {
        struct dict *dict = open_layer(backends[b], names[k], layer);
        struct sparse codes;
        encode_recorded(backends[b], names[k], dict, &codes, &n);
        for (int64_t i = 0; i < n * D; i++) y[layer][i] += dict_output_bias(dict)[i % D];
        dict_skip_add(dict, recorded_at(names[k], "x", layer, NULL), (size_t)n, y[layer]);
        for (int t = 0; t < LAYERS - layer; t++) dict_target_add(dict, &codes, 0, (size_t)n, t, y[layer + t]);
        splices_agree(backends[b], names[k], dict, recorded_at(names[k], "x", layer, NULL), recorded_at(names[k], "y", layer, NULL), n);
        sparse_clear(&codes);
        dict_close(dict);
      }
      for (int m = 0; m < LAYERS; m++) {
        close_to(names[k], "reconstruction", y[m], recorded_at(names[k], "y", m, NULL), (size_t)n * D);
        test_free(y[m]);
      }
    }
}

/* The steering row is the sum of what is written, and the matrix of neighbours has those rows. */
static void rows_of_all_layers_are_summed(void **state) {
  (void)state;
  for (int b = 0; b < DICT_BACKENDS; b++) {
    struct dict *dict = open_layer(backends[b], "jump", 0);
    struct decoder_table *table = decoder_table_new(dict, 0, FEATURES, backends[b], NULL);
    assert_non_null(table);
    float sum[D], row[D], part[D];
    for (int f = 0; f < FEATURES; f++) {
      memset(sum, 0, sizeof sum);
      for (int t = 0; t < LAYERS; t++) {
        dict_target_row(dict, f, t, part);
        for (int i = 0; i < D; i++) sum[i] += part[i];
      }
      dict_decoder_row(dict, f, row);
      assert_memory_equal(row, sum, sizeof row);
      struct feature_neighbours found = {.n = 0};
      const int64_t none = -1;
      assert_int_equal(decoder_table_nearest(table, row, &none, 1, 1, &found, NULL), 0);
      assert_int_equal(found.index[0], f);
      assert_float_equal(found.cosine[0], 1, 1e-6); /* a sum of 48 f32 products, divided by its own length twice */
    }
    decoder_table_free(table);
    dict_close(dict);
  }
}

static void prints_differ(void **state) {
  (void)state;
  char a[17], b[17], again[17];
  struct dict *one = open_layer(backends[0], "jump", 0), *two = open_layer(backends[0], "jump", 1);
  dict_fingerprint(one, a);
  dict_fingerprint(two, b);
  dict_fingerprint(one, again);
  assert_string_not_equal(a, b);
  assert_string_equal(a, again);
  dict_close(one);
  dict_close(two);
}

static void a_description(void **state) {
  (void)state;
  struct buffer text;
  struct error error = ERROR_INIT;
  buffer_init(&text, 0);
  if (dict_describe(FOLDER "jump", "0-x", &text, &error) != 0) fail_msg("%s", error.text);
  static const char *const lines[] = {"kind: jumprelu cross-layer transcoder of 40 features, F32\n", "format: circuit-tracer-cross-layer\n",
                                      "reads: blocks.0.hook_resid_mid, 48 wide\n",
                                      "writes: blocks.0.hook_mlp_out, 48 wide, and the same of the 2 layers behind it\n",
                                      "field: the files say layer 0 of 0 to 2\n", "tensor: W_enc is 'W_enc_0' [40, 48] F32, transposed\n",
                                      "tensor: W_dec is 'W_dec_0' [40, 3, 48] F32\n", "step: a feature writes a row to each of its layers",
                                      "step: activations are shown as they are\n"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
    if (!strstr(text.data, lines[i])) fail_msg("no '%s' in\n%s", lines[i], text.data);
  buffer_clear(&text);
}

/* ---- what is refused --------------------------------------------------------------------------------- */

/* Opens layer `id` of a copy that a command has spoiled. */
static void refuse(const char *spoil, const char *id, const struct dict_host *host, const char *words) {
  char folder[128];
  struct error error = ERROR_INIT;
  snprintf(folder, sizeof folder, "%s/copy", top);
  shell("rm -rf '%s' && cp -r " FOLDER "jump '%s' && cd '%s' && %s", folder, folder, folder, spoil);
  struct dict *dict = dict_open(folder, id, host, backends[0], &error);
  if (dict) fail_msg("%s: opened", spoil);
  if (!strstr(error.text, words)) fail_msg("%s: wanted '%s', got '%s'", spoil, words, error.text);
  dict_close(dict);
}

static void layers_that_are_missing_or_too_many(void **state) {
  (void)state;
  static const struct arch deeper = {.n_layer = 4, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = D, .d_mlp = 192,
                                     .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
  static const struct arch flatter = {.n_layer = 2, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = D, .d_mlp = 192,
                                      .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
  static const struct dict_host four = {"deeper", &deeper, NULL, NULL}, two = {"flatter", &flatter, NULL, NULL};
  refuse("rm W_enc_1.safetensors", "0-clt", &tiny, "'W_enc_1.safetensors' is missing");
  refuse("rm W_dec_2.safetensors", "0-clt", &tiny, "'W_dec_2.safetensors' is missing");
  refuse("true", "3-clt", &tiny, "layer 3 is out of range, model 'tiny-gpt2' has layers 0 to 2");
  refuse("true", "0-clt", &four, "'W_enc_3.safetensors' is missing");
  refuse("true", "0-clt", &two, "the transcoder has layers 0 to 2, but model 'flatter' has layers 0 to 1");
  refuse("true", "4000-clt", &tiny, "begins with none of them");
}

static void files_that_are_not_what_they_are_called(void **state) {
  (void)state;
  refuse("cp W_dec_1.safetensors W_dec_0.safetensors", "0-clt", &tiny, "tensor 'W_dec_0' is missing");
  refuse("sed -i 's/W_dec_1/W_dec_0/' W_dec_1.safetensors && mv W_dec_1.safetensors W_dec_0.safetensors && cp W_dec_0.safetensors "
         "W_dec_1.safetensors", "0-clt", &tiny,
         "'W_dec_0' is [40, 2, 48] F32, expected [40, 3, 48]: features, layers from its own to the last, width");
  refuse("sed -i 's/\\[40,3,48\\]/[40,144] /' W_dec_0.safetensors", "0-clt", &tiny, "'W_dec_0' is [40, 144] F32, expected [40, 3, 48]");
  refuse("sed -i 's/\\[40,3,48\\]/[48,3,40]/' W_dec_0.safetensors", "0-clt", &tiny, "'W_dec_0' is [48, 3, 40]");
  refuse("sed -i 's/\"F32\"/\"I32\"/' W_dec_0.safetensors", "0-clt", &tiny, "expected F32, F16 or BF16");
  refuse("sed -i 's/threshold_1/thr3shold_1/' W_enc_1.safetensors && sed -i s/jump_relu/relu/ config.yaml", "1-clt", &tiny, "'thr3shold_1' [40] F32 has no place");
  refuse("sed -i 's/threshold_1/thr3shold_1/' W_enc_1.safetensors", "1-clt", &tiny, "'thr3shold_1' [40] F32 has no place");
  refuse("sed -i 's/b_dec_1/b_d3c_1/' W_enc_1.safetensors", "1-clt", &tiny, "has no place");
  refuse("truncate -s 900 W_dec_0.safetensors", "0-clt", &tiny, "W_dec_0.safetensors'");
  refuse("head -c 5000 /dev/zero > W_enc_0.safetensors", "0-clt", &tiny, "W_enc_0.safetensors'");
}

/* The same for Gemma Scope 2's, in a folder whose name is given. */
static void refuse_affine(const char *name, const char *spoil, const char *id, const char *words) {
  char folder[128];
  struct error error = ERROR_INIT;
  snprintf(folder, sizeof folder, "%s/%s/width", top, name);
  shell("rm -rf '%s' && mkdir -p '%s' && cp " FOLDER AFFINE "/* '%s' && cd '%s' && %s", folder, folder, folder, folder, spoil);
  struct dict *dict = dict_open(folder, id, &tiny, backends[0], &error);
  if (dict) fail_msg("%s: opened", spoil);
  if (!strstr(error.text, words)) fail_msg("%s: wanted '%s', got '%s'", spoil, words, error.text);
}

static void files_of_gemma_scope_2_that_lie(void **state) {
  (void)state;
  refuse_affine("clt", "rm params_layer_2.safetensors", "0-clt", "'params_layer_2.safetensors' is missing");
  refuse_affine("clt", "cp params_layer_2.safetensors params_layer_3.safetensors", "0-clt", "has layers 0 to 3, but model");
  refuse_affine("clt", "mv params_layer_1.safetensors x && mv params_layer_0.safetensors params_layer_1.safetensors && "
                "mv x params_layer_0.safetensors", "1-clt", "writes to layer 0, in front of its own");
  refuse_affine("clt", "sed -i 's/\\[40,3,48\\]/[40,2,72]/' params_layer_1.safetensors", "1-clt",
                "'w_dec' is [40, 2, 72] F32, expected [40, 3, 48]: features, all layers, width");
  refuse_affine("clt", "sed -i s/jump_relu/topk/ config.json", "1-clt", "architecture 'topk' is not served");
  refuse_affine("clt", "sed -i 's/threshold/thr3shold/' params_layer_1.safetensors", "1-clt", "has no place");
  refuse_affine("crosscoder", "true", "1-clt", "crosscoders, whose files bear the same names, are not served");
  refuse_affine("clt", "true", "clt", "begins with none of them");
}

static void descriptions_that_are_something_else(void **state) {
  (void)state;
  refuse("sed -i s/cross_layer_transcoder/transcoder_set/ config.yaml", "0-clt", &tiny, "model_kind is 'transcoder_set', expected "
                                                                                     "'cross_layer_transcoder'");
  refuse("sed -i s/jump_relu/topk/ config.yaml", "0-clt", &tiny, "activation 'topk' of a cross-layer transcoder is not served");
  refuse("sed -i s/jump_relu/tanh/ config.yaml", "0-clt", &tiny, "activation 'tanh' is not served");
  refuse("sed -i /feature_output_hook/d config.yaml", "0-clt", &tiny, "'feature_output_hook' is missing");
  refuse("sed -i s/hook_mlp_out/attn.hook_pattern/ config.yaml", "0-clt", &tiny, "are not served");
  refuse("sed -i s/hook_resid_mid/hook_nothing/ config.yaml", "0-clt", &tiny, "hook_nothing");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_layer_reads_one_point_and_writes_many), cmocka_unit_test(layers_are_told_by_id_or_file),
      cmocka_unit_test(gemma_scope_2_is_told_by_its_folder),     cmocka_unit_test(files_of_gemma_scope_2_that_lie),
      cmocka_unit_test(reconstructions_are_sums_over_layers),    cmocka_unit_test(rows_of_all_layers_are_summed),
      cmocka_unit_test(prints_differ),                           cmocka_unit_test(a_description),
      cmocka_unit_test(layers_that_are_missing_or_too_many),     cmocka_unit_test(files_that_are_not_what_they_are_called),
      cmocka_unit_test(descriptions_that_are_something_else)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
