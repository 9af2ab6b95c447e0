/* test_dict.c: dictionaries against what sae_lens and an independent NumPy twin recorded, and the ways to read
 * one feature against each other. Files that are not what they claim are in test_dict_files.c. */
#include "tests/unit/dict_vectors.h"

#include "core/base/mapfile.h"
#include "core/model/points.h"

#define TINY "tests/vectors/tiny-gpt2"
static const struct arch tiny_arch = {.n_layer = 3, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = 48, .d_mlp = 128,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host tiny = {"tiny-gpt2", &tiny_arch, NULL, NULL};
static const struct arch villes_arch = {.n_layer = 1, .n_head = 4, .n_kv_head = 4, .d_head = 8, .d_model = 32, .d_mlp = 128,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host villes = {"villes", &villes_arch, NULL, NULL};

static struct backend *backend;

/* docs/decisions.md 18: what "1e-4" means for f32 results. */
static void all_close(const char *what, const float *got, const float *want, size_t count) {
  double sum = 0, worst = 0;
  size_t at = 0;
  for (size_t i = 0; i < count; i++) sum += (double)want[i] * want[i];
  double allowed = 1e-4 * fmax(1, sqrt(sum / (double)count));
  for (size_t i = 0; i < count; i++) {
    double off = fabs((double)got[i] - want[i]);
    if (off <= worst && !isnan(got[i])) continue;
    worst = isnan(got[i]) ? INFINITY : off;
    at = i;
  }
  if (worst > allowed)
    fail_msg("%s: element %zu is %.7g, expected %.7g (off by %.3g, allowed %.3g)", what, at, (double)got[at],
             (double)want[at], worst, allowed);
}

/* ---- recorded activations and reconstructions ------------------------------------------------------- */

/* Column f of [n_rows, n_feat]. */
static void column(const float *matrix, int64_t n_rows, int64_t n_feat, int64_t f, float *out) {
  for (int64_t r = 0; r < n_rows; r++) out[r] = matrix[r * n_feat + f];
}

/* Feature by feature: the host path and the vector for edits must give what the full encode gives. */
static void values_agree(const struct dict *dict, const float *x, int64_t n_rows,
                                  const float *features) {
  const struct dict_info *info = dict_info(dict);
  float *want = test_calloc((size_t)n_rows, 4), *got = test_calloc((size_t)n_rows, 4);
  float *enc = test_calloc((size_t)info->d_in, 4);
  for (int64_t f = 0; f < info->n_feat; f++) {
    column(features, n_rows, info->n_feat, f, want);
    dict_feature_values(dict, f, x, (size_t)n_rows, got);
    all_close("dict_feature_values", got, want, (size_t)n_rows);
    struct dict_encoder row = dict_encoder_row(dict, f, enc);
    for (int64_t r = 0; r < n_rows; r++) {
      double p = row.bias;
      for (int64_t i = 0; i < info->d_in; i++) p += (double)x[r * info->d_in + i] * enc[i];
      got[r] = p > row.threshold ? (float)fmax(p, 0) * row.fold : 0;
    }
    all_close("dict_encoder_row", got, want, (size_t)n_rows);
  }
  test_free(want);
  test_free(got);
  test_free(enc);
}

static void matches_recording(const struct dict *dict, const float *x, int64_t n_rows, const float *features,
                              const float *reconstruction) {
  const struct dict_info *info = dict_info(dict);
  struct sparse codes;
  sparse_init(&codes);
  encode_rows(backend, dict, x, n_rows, &codes);
  assert_int_equal(codes.n_rows, n_rows);
  float *got = dense_of(&codes, info->n_feat), *back = test_calloc((size_t)(n_rows * info->d_out), sizeof *back);
  all_close("features", got, features, (size_t)(n_rows * info->n_feat));
  for (int64_t i = 0; i < n_rows * info->n_feat && info->kind != DICT_RELU;
       i++) /* ReLU has no gap around 0 */
    if ((got[i] > 0) != (features[i] > 0))
      fail_msg("element %lld is active in one of the two only", (long long)i);
  dict_decode(dict, &codes, 0, (size_t)n_rows, NULL, back);
  all_close("reconstruction", back, reconstruction, (size_t)(n_rows * info->d_out));
  dict_decode(dict, &codes, (size_t)n_rows - 1, 1, NULL, back);
  all_close("reconstruction of the last row", back, reconstruction + (n_rows - 1) * info->d_out,
            (size_t)info->d_out);
  if (info->kind != DICT_TOPK) values_agree(dict, x, n_rows, features);
  test_free(got);
  test_free(back);
  sparse_clear(&codes);
}

static void tiny_source(const char *id) {
  char path[128], name[64];
  struct tensors *file = tensors_open(TINY "/expected-sources.safetensors", NULL);
  assert_non_null(file);
  snprintf(path, sizeof path, TINY "/sources/%s", id);
  struct dict *dict = must_open(backend, path, id, &tiny);
  all_close("norms", dict_norms(dict), recorded(file, id, "norms", NULL), 96);
  int prompts = 0;
  for (int p = 0; p < 3; p++) {
    int64_t n_rows;
    snprintf(name, sizeof name, "p%d/input", p);
    const float *x = recorded(file, id, name, &n_rows);
    if (!x) continue;
    snprintf(name, sizeof name, "p%d/features", p);
    const float *features = recorded(file, id, name, NULL);
    snprintf(name, sizeof name, "p%d/reconstruction", p);
    matches_recording(dict, x, n_rows, features, recorded(file, id, name, NULL));
    prompts++;
  }
  assert_true(prompts >= 2);
  dict_close(dict);
  tensors_close(file);
}

static void relu_as_recorded(void **state) {
  (void)state;
  tiny_source("1-res-relu");
}
static void old_layout_as_recorded(void **state) {
  (void)state;
  tiny_source("1-res-old");
}
static void jumprelu_as_recorded(void **state) {
  (void)state;
  tiny_source("2-res-jump");
}
static void topk_as_recorded(void **state) {
  (void)state;
  tiny_source("0-mlp-topk");
}
static void bf16_as_recorded(void **state) {
  (void)state;
  tiny_source("2-res-bf16");
}
static void centred_as_recorded(void **state) {
  (void)state;
  tiny_source("2-res-center");
}

static void info_tells_what_was_opened(void **state) {
  (void)state;
  static const struct {
    const char *id, *point;
    enum dict_kind kind;
    int k;
    bool apply, center;
    enum dtype dtype;
  } rows[] = {
      {"0-mlp-topk", "blocks.0.hook_mlp_out", DICT_TOPK, 8, true, false, DTYPE_F32},
      {"1-res-relu", "blocks.1.hook_resid_pre", DICT_RELU, 0, true, false, DTYPE_F32},
      {"1-res-old", "blocks.1.hook_resid_pre", DICT_RELU, 0, true, false, DTYPE_F32},
      {"2-res-jump", "blocks.2.hook_resid_post", DICT_JUMPRELU, 0, false, false, DTYPE_F32},
      {"2-res-bf16", "blocks.2.hook_resid_pre", DICT_RELU, 0, true, false, DTYPE_BF16},
      {"2-res-center", "blocks.1.hook_resid_post", DICT_RELU, 0, true, true, DTYPE_F32},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char path[128], name[POINT_NAME_BYTES];
    snprintf(path, sizeof path, TINY "/sources/%s", rows[i].id);
    struct dict *dict = must_open(backend, path, rows[i].id, &tiny);
    const struct dict_info *info = dict_info(dict);
    assert_int_equal(info->kind, rows[i].kind);
    assert_string_equal(point_name(info->in, name), rows[i].point);
    assert_int_equal(point_index(info->in), point_index(info->out));
    assert_int_equal(info->k, rows[i].k);
    assert_int_equal(info->apply_b_dec_to_input, rows[i].apply);
    assert_int_equal(info->center_mean, rows[i].center);
    assert_int_equal(info->dtype, rows[i].dtype);
    assert_true(info->d_in == 48 && info->d_out == 48 && info->n_feat == 96 && info->context == 128);
    assert_true(info->folded && info->prepend_bos && !info->bos_counts);
    assert_string_equal(info->format, "saelens");
    assert_true(info->bytes > 2 * 48 * 96 * dtype_size(info->dtype));
    dict_close(dict);
  }
}

/* ---- one feature ------------------------------------------------------------------------------------ */

/* The rows 64 e_0 .. 64 e_{d-1}: each product is then one weight, so a column or a sign mixed up shows at
 * once. 64, as most biases are made to keep features silent. */
static void encoder_rows_reproduce_one_hot_rows(void **state) {
  (void)state;
  static const char *const ids[] = {"1-res-relu", "2-res-jump", "2-res-bf16", "2-res-center"};
  float *x = test_calloc(48 * 48, sizeof *x), enc[48];
  for (int i = 0; i < 48; i++) x[i * 48 + i] = 64;
  for (size_t s = 0; s < sizeof ids / sizeof *ids; s++) {
    char path[128];
    snprintf(path, sizeof path, TINY "/sources/%s", ids[s]);
    struct dict *dict = must_open(backend, path, ids[s], &tiny);
    struct sparse codes;
    sparse_init(&codes);
    encode_rows(backend, dict, x, 48, &codes);
    float *want = dense_of(&codes, 96), *got = test_calloc(48 * 96, sizeof *got);
    for (int f = 0; f < 96; f++) {
      struct dict_encoder row = dict_encoder_row(dict, f, enc);
      for (int i = 0; i < 48; i++) {
        float p = 64 * enc[i] + row.bias;
        got[i * 96 + f] = p > row.threshold ? fmaxf(p, 0) * row.fold : 0;
      }
    }
    assert_true(codes.start[48] > 48); /* the rows do fire something */
    all_close(ids[s], got, want, 48 * 96);
    test_free(want);
    test_free(got);
    sparse_clear(&codes);
    dict_close(dict);
  }
  test_free(x);
}

static void steering_rows_have_length_one(void **state) {
  (void)state;
  struct tensors *file = tensors_open(TINY "/sources/1-res-relu/sae_weights.safetensors", NULL);
  assert_non_null(file);
  const float *w_dec = recorded(file, "", "W_dec", NULL);
  struct dict *dict = must_open(backend, TINY "/sources/1-res-relu", "1-res-relu", &tiny);
  float row[48];
  for (int f = 0; f < 96; f++) {
    double sum = 0;
    dict_decoder_row(dict, f, row);
    for (int i = 0; i < 48; i++) {
      sum += (double)row[i] * row[i];
      /* one division and one product, each rounded to f32 */
      assert_float_equal(row[i] * dict_norms(dict)[f], w_dec[f * 48 + i], 1e-6);
    }
    assert_float_equal((float)sqrt(sum), 1, 1e-6); /* 48 elements, each off by at most 2^-24 of itself */
  }
  dict_close(dict);
  tensors_close(file);
}

static void encode_appends(void **state) {
  (void)state;
  struct tensors *file = tensors_open(TINY "/expected-sources.safetensors", NULL);
  const float *x = recorded(file, "0-mlp-topk", "p0/input", NULL);
  struct dict *dict = must_open(backend, TINY "/sources/0-mlp-topk", "0-mlp-topk", &tiny);
  struct sparse whole, parts;
  sparse_init(&whole);
  sparse_init(&parts);
  encode_rows(backend, dict, x, 6, &whole);
  encode_rows(backend, dict, x, 2, &parts);
  encode_rows(backend, dict, x + 2 * 48, 4, &parts);
  assert_int_equal(parts.n_rows, 6);
  assert_memory_equal(whole.start, parts.start, 7 * sizeof *whole.start);
  assert_memory_equal(whole.index, parts.index, whole.start[6] * sizeof *whole.index);
  assert_memory_equal(whole.value, parts.value, whole.start[6] * sizeof *whole.value);
  for (size_t row = 0; row < 6; row++) assert_true(whole.start[row + 1] - whole.start[row] <= 8);
  sparse_clear(&whole);
  sparse_clear(&parts);
  dict_close(dict);
  tensors_close(file);
}

/* ---- the workshop's dictionary ---------------------------------------------------------------------- */

static const char *data_folder(void) {
  const char *data = getenv("STEERD_DATA");
  return data && *data ? data : "../shared/data";
}

static void need_villes(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s/models/villes/sae_model_32__4_heads__1_layers.pth", data_folder());
  if (path_is_file(path)) return;
  print_message("skip: the villes dictionary (set STEERD_DATA)\n");
  skip();
}

static void villes_as_recorded(void **state) {
  (void)state;
  need_villes();
  struct tensors *file = tensors_open("tests/vectors/villes/expected.safetensors", NULL);
  assert_non_null(file);
  struct dict *dict = must_open(backend, "config/models/villes.ini", "0-res-ws", &villes);
  const struct dict_info *info = dict_info(dict);
  assert_true(info->kind == DICT_RELU && info->n_feat == 128 && info->bos_counts &&
              info->apply_b_dec_to_input);
  assert_string_equal(info->format, "workshop");
  all_close("norms", dict_norms(dict), recorded(file, "", "norms", NULL), 128);
  for (int n = 0; n < 5; n++) {
    char source[8];
    int64_t n_rows = 0;
    snprintf(source, sizeof source, "n%d", n);
    const float *x = recorded(file, source, "blocks.0.hook_resid_post", &n_rows);
    matches_recording(dict, x, n_rows, recorded(file, source, "features", NULL),
                      recorded(file, source, "reconstruction", NULL));
  }
  dict_close(dict);
  tensors_close(file);
}

/* Published numbers of the model, to their last digit (and to the rows' own length, which is 1 to 5e-5). */
static void villes_golden_numbers(void **state) {
  (void)state;
  need_villes();
  static const size_t l0[] = {2, 16, 10, 19, 21, 21};
  static const struct {
    size_t row;
    int32_t feature;
    float value;
  } strongest[] = {{0, 103, 1.857592f}, {0, 2, 1.758281f},   {1, 109, .827924f}, {2, 39, .4966f},
                   {3, 10, .527248f},   {4, 120, 1.025343f}, {5, 53, .465296f}};
  struct tensors *file = tensors_open("tests/vectors/villes/expected.safetensors", NULL);
  struct dict *dict = must_open(backend, "config/models/villes.ini", "0-res-ws", &villes);
  struct sparse codes;
  sparse_init(&codes);
  encode_rows(backend, dict, recorded(file, "n0", "blocks.0.hook_resid_post", NULL), 6, &codes);
  for (size_t row = 0; row < 6; row++) assert_int_equal(codes.start[row + 1] - codes.start[row], l0[row]);
  for (size_t i = 0; i < sizeof strongest / sizeof *strongest; i++) {
    float raw =
        sparse_find(&codes, strongest[i].row, strongest[i].feature) / dict_norms(dict)[strongest[i].feature];
    assert_float_equal(raw, strongest[i].value, 2e-6);
  }
  sparse_clear(&codes);
  dict_close(dict);
  tensors_close(file);
}

static int start(void **state) {
  (void)state;
  return (backend = backend_open("ref", 1, NULL)) ? 0 : -1;
}

static int end(void **state) {
  (void)state;
  backend_close(backend);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(relu_as_recorded),
      cmocka_unit_test(old_layout_as_recorded),
      cmocka_unit_test(jumprelu_as_recorded),
      cmocka_unit_test(topk_as_recorded),
      cmocka_unit_test(bf16_as_recorded),
      cmocka_unit_test(centred_as_recorded),
      cmocka_unit_test(info_tells_what_was_opened),
      cmocka_unit_test(encoder_rows_reproduce_one_hot_rows),
      cmocka_unit_test(steering_rows_have_length_one),
      cmocka_unit_test(encode_appends),
      cmocka_unit_test(villes_as_recorded),
      cmocka_unit_test(villes_golden_numbers),
  };
  return cmocka_run_group_tests(tests, start, end);
}
