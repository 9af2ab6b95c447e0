/* test_dict.c: dictionaries against what sae_lens and an independent NumPy twin recorded, the ways to read
 * one feature against each other, and what is said about files that are not what they claim. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/dict/dict.h"
#include "core/model/points.h"
#include "core/model/tensors.h"

#define TINY "tests/vectors/tiny-gpt2"
static const struct arch tiny_arch = {.n_layer = 3, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = 48, .d_mlp = 128,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host tiny = {"tiny-gpt2", &tiny_arch, NULL};
static const struct arch villes_arch = {.n_layer = 1, .n_head = 4, .n_kv_head = 4, .d_head = 8, .d_model = 32, .d_mlp = 128,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host villes = {"villes", &villes_arch, NULL};
static const struct arch toy_arch = {.n_layer = 2, .n_head = 2, .n_kv_head = 2, .d_head = 2, .d_model = 4, .d_mlp = 16,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host toy = {"toy", &toy_arch, NULL};

static struct backend *backend;

/* ---- helpers ---------------------------------------------------------------------------------------- */

static struct dict *must_open(const char *path, const char *id, const struct dict_host *host) {
  struct error error = ERROR_INIT;
  struct dict *dict = dict_open(path, id, host, backend, &error);
  if (!dict) fail_msg("%s: %s", path, error.text);
  return dict;
}

/* A recorded f32 tensor, contiguous and aligned as numpy writes it; NULL when the file does not have it. */
static const float *recorded(const struct tensors *file, const char *source, const char *name,
                             int64_t *rows) {
  char full[128];
  snprintf(full, sizeof full, "%s%s%s", source, *source ? "/" : "", name);
  const struct tensor *tensor = tensors_find(file, full);
  if (!tensor) return NULL;
  assert_int_equal(tensor->dtype, DTYPE_F32);
  assert_true(tensor_is_contiguous(tensor) && (uintptr_t)tensor->data % 4 == 0);
  if (rows) *rows = tensor->shape[0];
  return (const float *)tensor->data;
}

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

static struct memory *upload(const float *x, size_t count) {
  struct memory *memory = NULL;
  assert_int_equal(backend->ops->alloc(backend, count * 4, &memory, NULL), 0);
  assert_int_equal(backend->ops->write(backend, (struct span){memory, 0}, x, count * 4, NULL), 0);
  return memory;
}

static void encode(const struct dict *dict, const float *x, int64_t n_rows, struct sparse *out) {
  int64_t d_in = dict_info(dict)->d_in;
  struct memory *memory = upload(x, (size_t)(n_rows * d_in));
  struct error error = ERROR_INIT;
  struct rows rows = {{memory, 0}, d_in};
  if (dict_encode(dict, rows, n_rows, out, &error) != 0) fail_msg("%s", error.text);
  backend->ops->free(backend, memory);
}

static float *dense(const struct sparse *codes, int64_t n_feat) {
  float *out = test_calloc(codes->n_rows * (size_t)n_feat, sizeof *out);
  for (size_t row = 0; row < codes->n_rows; row++)
    for (size_t e = codes->start[row]; e < codes->start[row + 1]; e++) {
      assert_true(codes->value[e] > 0);
      out[row * (size_t)n_feat + (size_t)codes->index[e]] = codes->value[e];
    }
  return out;
}

/* ---- recorded activations and reconstructions ------------------------------------------------------- */

/* Column f of [n_rows, n_feat]. */
static void column(const float *matrix, int64_t n_rows, int64_t n_feat, int64_t f, float *out) {
  for (int64_t r = 0; r < n_rows; r++) out[r] = matrix[r * n_feat + f];
}

/* Feature by feature: the host path and the vector for edits must give what the full encode gives. */
static void single_features_agree(const struct dict *dict, const float *x, int64_t n_rows,
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
  encode(dict, x, n_rows, &codes);
  assert_int_equal(codes.n_rows, n_rows);
  float *got = dense(&codes, info->n_feat), *back = test_calloc((size_t)(n_rows * info->d_out), sizeof *back);
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
  if (info->kind != DICT_TOPK) single_features_agree(dict, x, n_rows, features);
  test_free(got);
  test_free(back);
  sparse_clear(&codes);
}

static void tiny_source(const char *id) {
  char path[128], name[64];
  struct tensors *file = tensors_open(TINY "/expected-sources.safetensors", NULL);
  assert_non_null(file);
  snprintf(path, sizeof path, TINY "/sources/%s", id);
  struct dict *dict = must_open(path, id, &tiny);
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
    struct dict *dict = must_open(path, rows[i].id, &tiny);
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
    struct dict *dict = must_open(path, ids[s], &tiny);
    struct sparse codes;
    sparse_init(&codes);
    encode(dict, x, 48, &codes);
    float *want = dense(&codes, 96), *got = test_calloc(48 * 96, sizeof *got);
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
  struct dict *dict = must_open(TINY "/sources/1-res-relu", "1-res-relu", &tiny);
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
  struct dict *dict = must_open(TINY "/sources/0-mlp-topk", "0-mlp-topk", &tiny);
  struct sparse whole, parts;
  sparse_init(&whole);
  sparse_init(&parts);
  encode(dict, x, 6, &whole);
  encode(dict, x, 2, &parts);
  encode(dict, x + 2 * 48, 4, &parts);
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
  struct dict *dict = must_open("config/models/villes.ini", "0-res-ws", &villes);
  const struct dict_info *info = dict_info(dict);
  assert_true(info->kind == DICT_RELU && info->n_feat == 128 && info->bos_counts &&
              info->apply_b_dec_to_input);
  assert_string_equal(info->format, "workshop");
  all_close("norms", dict_norms(dict), recorded(file, "", "norms", NULL), 128);
  for (int n = 0; n < 5; n++) {
    char source[8];
    int64_t n_rows;
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
  struct dict *dict = must_open("config/models/villes.ini", "0-res-ws", &villes);
  struct sparse codes;
  sparse_init(&codes);
  encode(dict, recorded(file, "n0", "blocks.0.hook_resid_post", NULL), 6, &codes);
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

/* ---- files made here -------------------------------------------------------------------------------- */

struct item {
  const char *name, *dtype;
  int n_dims, rows, columns;
  const float *data;
};

static char folder[256], cfg_path[300], weights_path[300], description_path[300];

static void write_file(const char *path, const void *data, size_t length) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
}

/* Elements are 4 bytes, whatever the header calls them. */
static void write_weights(const struct item *items, size_t n) {
  char header[4096];
  unsigned char data[4096];
  size_t used = 0, at = 8;
  header[at++] = '{';
  for (size_t i = 0; i < n; i++) {
    size_t bytes = 4 * (size_t)items[i].rows * (size_t)(items[i].n_dims == 2 ? items[i].columns : 1);
    char shape[32];
    snprintf(shape, sizeof shape, items[i].n_dims == 2 ? "%d,%d" : "%d", items[i].rows, items[i].columns);
    at += (size_t)snprintf(header + at, sizeof header - at,
                           "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
                           i ? "," : "", items[i].name, items[i].dtype, shape, used, used + bytes);
    memcpy(data + used, items[i].data, bytes);
    used += bytes;
  }
  header[at++] = '}';
  while (at % 8) header[at++] = ' ';
  for (int i = 0; i < 8; i++) header[i] = (char)((at - 8) >> 8 * i & 0xFF);
  memcpy(header + at, data, used);
  write_file(weights_path, header, at + used);
}

/* d 4, 6 features; row 5 of W_dec is zero, row 4 has length 2. */
static const float w_enc[64] = {1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 1, 1};
static const float w_dec[64] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0};
static const float unit_w_dec[64] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0, 0};
static const float zeros[64];
static const float ones[64] = {1, 1, 1, 1, 1, 1};
static const float broken[64] = {0, 0, 0, NAN, 0, 0, INFINITY};

enum { W_ENC, W_DEC, B_ENC, B_DEC, EXTRA, ITEMS };
static const struct item standard_items[ITEMS] = {{"W_enc", "F32", 2, 4, 6, w_enc},
                                                  {"W_dec", "F32", 2, 6, 4, w_dec},
                                                  {"b_enc", "F32", 1, 6, 0, zeros},
                                                  {"b_dec", "F32", 1, 4, 0, zeros},
                                                  {"threshold", "F32", 1, 6, 0, zeros}};

static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "%s/steerd-dict-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir);
  if (!mkdtemp(folder)) return -1;
  snprintf(cfg_path, sizeof cfg_path, "%s/cfg.json", folder);
  snprintf(weights_path, sizeof weights_path, "%s/sae_weights.safetensors", folder);
  snprintf(description_path, sizeof description_path, "%s/model.ini", folder);
  backend = backend_open("ref", 1, NULL);
  return backend ? 0 : -1;
}

static int drop_folder(void **state) {
  (void)state;
  unlink(cfg_path);
  unlink(weights_path);
  unlink(description_path);
  backend_close(backend);
  return rmdir(folder);
}

/* Opening must fail with exactly `text`, in which "CFG", "WEIGHTS" or "INI" at the front stands for the
 * quoted path. */
static void refused(const char *path, const char *id, enum error_code code, const char *text) {
  char expected[1024];
  const char *file = !strncmp(text, "CFG", 3)       ? cfg_path
                     : !strncmp(text, "WEIGHTS", 7) ? weights_path
                                                    : description_path;
  size_t skipped = !strncmp(text, "CFG", 3)       ? 3
                   : !strncmp(text, "WEIGHTS", 7) ? 7
                   : !strncmp(text, "INI", 3)     ? 3
                                                  : 0;
  const char *inside = skipped ? strstr(text + skipped, "'CFG'") : NULL;
  if (inside)
    snprintf(expected, sizeof expected, "'%s'%.*s'%s'%s", file, (int)(inside - text - (ptrdiff_t)skipped), text + skipped,
             cfg_path, inside + 5);
  else if (skipped)
    snprintf(expected, sizeof expected, "'%s'%s", file, text + skipped);
  else
    snprintf(expected, sizeof expected, "%s", text);
  struct error error = ERROR_INIT;
  struct dict *dict = dict_open(path, id, &toy, backend, &error);
  if (dict) fail_msg("opened, expected: %s", expected);
  assert_string_equal(error.text, expected);
  assert_int_equal(error.code, code);
}

#define POINT "\"hook_name\":\"blocks.1.hook_resid_pre\""
#define CFG(more) "{\"d_in\":4,\"d_sae\":6," POINT more "}"

static void wrong_descriptions_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *cfg;
    enum error_code code;
    const char *text;
  } rows[] = {
      {CFG(",\"architecture\":\"gated\""), ERROR_UNSUPPORTED,
       "WEIGHTS: tensor 'b_enc' [6] F32 has no place in a dictionary of kind 'gated', expected W_enc, W_dec, b_gate, "
       "b_dec, r_mag, b_mag"},
      {CFG(",\"architecture\":\"matching_pursuit\""), ERROR_UNSUPPORTED,
       "CFG: architecture 'matching_pursuit' is not served (served: standard, gated, jumprelu, topk, batchtopk, "
       "matryoshka_batchtopk, transcoder, skip_transcoder, jumprelu_transcoder, jumprelu_skip_transcoder)"},
      {CFG(",\"architecture\":\"batchtopk\""), ERROR_FORMAT,
       "WEIGHTS: tensor 'threshold' is missing, expected [6]; the file has W_enc, W_dec, b_enc, b_dec"},
      {CFG(",\"activation_fn_str\":\"tanh-relu\""), ERROR_UNSUPPORTED,
       "CFG: activation_fn 'tanh-relu' is not served (served: relu, topk)"},
      {CFG(",\"architecture\":\"jumprelu\",\"activation_fn\":\"topk\""), ERROR_UNSUPPORTED,
       "CFG: architecture jumprelu with activation_fn 'topk' is not served (served: relu)"},
      {CFG(",\"architecture\":7"), ERROR_FORMAT, "CFG: 'architecture' is an integer, expected a string"},
      {CFG(",\"architecture\":\"topk\""), ERROR_FORMAT,
       "CFG: 'k' is missing, expected the number of features TopK keeps"},
      {CFG(",\"activation_fn_str\":\"topk\""), ERROR_FORMAT,
       "CFG: 'k' is missing, expected the number of features TopK keeps"},
      {CFG(",\"architecture\":\"topk\",\"k\":7"), ERROR_FORMAT,
       "CFG: k is 7, but the dictionary has 6 features"},
      {CFG(",\"architecture\":\"topk\",\"k\":0"), ERROR_FORMAT, "CFG: 'k' is 0, expected 1 or more"},
      {CFG(",\"architecture\":\"topk\",\"k\":3000000000"), ERROR_FORMAT,
       "CFG: k is 3000000000, expected 1 to the number of features"},
      {CFG(",\"architecture\":\"topk\",\"k\":2,\"activation_fn_kwargs\":{\"k\":3}"), ERROR_FORMAT,
       "CFG: k is 2, but activation_fn_kwargs.k is 3"},
      {CFG(",\"normalize_activations\":\"batch_norm\""), ERROR_UNSUPPORTED,
       "CFG: normalize_activations 'batch_norm' is not served (served: none, expected_average_only_in, "
       "constant_scalar_rescale, constant_norm_rescale, layer_norm)"},
      {CFG(",\"normalize_activations\":true"), ERROR_UNSUPPORTED,
       "CFG: normalize_activations is expected_average_only_in, but no scale above 0 is given: put norm_scaling_factor "
       "into it, or \"none\" where the scale was folded into the weights"},
      {CFG(",\"reshape_activations\":\"hook_z\""), ERROR_FORMAT,
       "CFG: reshape_activations is hook_z, but the point is 'blocks.1.hook_resid_pre'"},
      {CFG(",\"hook_head_index\":3"), ERROR_UNSUPPORTED,
       "CFG: hook_head_index is 3, but 'blocks.1.hook_resid_pre' has no heads (served: hook_z)"},
      {"{\"hook_head_index\":2,\"hook_point\":\"blocks.1.attn.hook_z\"}", ERROR_FORMAT,
       "CFG: head 2 is out of range, model 'toy' has heads 0 to 1"},
      {CFG(",\"hook_name_out\":\"blocks.1.hook_mlp_out\""), ERROR_FORMAT,
       "CFG: it reads 'blocks.1.hook_resid_pre' and writes 'blocks.1.hook_mlp_out', but its architecture is no "
       "transcoder's"},
      {CFG(",\"architecture\":\"transcoder\""), ERROR_FORMAT,
       "CFG: 'hook_name_out' is missing, expected the point that the transcoder writes"},
      {CFG(",\"architecture\":\"transcoder\",\"apply_b_dec_to_input\":true"), ERROR_UNSUPPORTED,
       "CFG: a transcoder with apply_b_dec_to_input is not served: its b_dec belongs to the output"},
      {"{\"hook_name\":\"blocks.1.hook_resid_prd\"}", ERROR_ARGUMENT,
       "CFG: unknown point 'blocks.1.hook_resid_prd', did you mean 'blocks.1.hook_resid_pre'?"},
      {"{\"hook_name\":\"blocks.2.hook_resid_pre\"}", ERROR_ARGUMENT,
       "CFG: layer 2 of point 'blocks.2.hook_resid_pre' is out of range, expected 0 to 1"},
      {"{\"d_in\":4}", ERROR_FORMAT,
       "CFG: 'hook_name' is missing, expected a point such as 'blocks.7.hook_resid_pre'"},
      {"{\"d_in\":768," POINT "}", ERROR_FORMAT,
       "CFG: d_in is 768, but 'blocks.1.hook_resid_pre' of model 'toy' is 4 wide"},
      {"{\"d_in\":\"4\"," POINT "}", ERROR_FORMAT, "CFG: 'd_in' is a string, expected an integer"},
      {"{\"d_in\":4,\"expansion_factor\":9223372036854775807," POINT "}", ERROR_FORMAT,
       "CFG: expansion_factor 9223372036854775807 times d_in 4 is too large"},
      {"{\"d_in\":4,\"expansion_factor\":2," POINT "}", ERROR_FORMAT,
       "WEIGHTS: tensor 'W_enc' is [4, 6] F32, expected [4, 8]"},
      {"{\"d_sae\":8," POINT "}", ERROR_FORMAT, "WEIGHTS: tensor 'W_enc' is [4, 6] F32, expected [4, 8]"},
      {"{\"d_sae\":3000000000," POINT "}", ERROR_FORMAT,
       "WEIGHTS: the dictionary has 3000000000 features, expected 1 to 2147483647"},
      {CFG(",\"model_from_pretrained_kwargs\":{\"center_writing_weights\":1}"), ERROR_FORMAT,
       "CFG: 'model_from_pretrained_kwargs.center_writing_weights' is an integer, expected true or false"},
      {CFG(",\"prepend_bos\":\"yes\""), ERROR_FORMAT,
       "CFG: 'prepend_bos' is a string, expected true or false"},
      {"[1]", ERROR_FORMAT, "CFG is an array, expected an object"},
  };
  write_weights(standard_items, EXTRA);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    write_file(cfg_path, rows[i].cfg, strlen(rows[i].cfg));
    refused(folder, "1-res-toy", rows[i].code, rows[i].text);
  }
}

static void wrong_weights_are_refused(void **state) {
  (void)state;
  static const char standard[] = CFG(""), jump[] = CFG(",\"architecture\":\"jumprelu\""),
                    unsized[] = "{" POINT "}";
  static const struct {
    const char *cfg;
    int changed; /* this item becomes `item` */
    struct item item;
    enum error_code code;
    const char *text;
  } rows[] = {
      {standard,
       W_ENC,
       {"W_enc", "F32", 2, 6, 4, w_enc},
       ERROR_FORMAT,
       "WEIGHTS: tensor 'W_enc' is [6, 4] F32, expected [4, 6]"},
      {unsized,
       W_ENC,
       {"W_enc", "F32", 1, 6, 0, w_enc},
       ERROR_FORMAT,
       "WEIGHTS: tensor 'W_enc' is [6] F32, expected [4, number of features]"},
      {unsized,
       W_ENC,
       {"encoder", "F32", 2, 4, 6, w_enc},
       ERROR_FORMAT,
       "WEIGHTS: tensor 'W_enc' is missing, expected [4, number of features]; the file has encoder, W_dec, b_enc, b_dec"},
      {standard,
       W_DEC,
       {"W_dec", "F32", 2, 6, 5, w_dec},
       ERROR_FORMAT,
       "WEIGHTS: tensor 'W_dec' is [6, 5] F32, expected [6, 4]"},
      {standard,
       B_ENC,
       {"b_enc", "F32", 2, 1, 6, zeros},
       ERROR_FORMAT,
       "WEIGHTS: tensor 'b_enc' is [1, 6] F32, expected [6]"},
      {standard,
       B_DEC,
       {"b_dec", "I32", 1, 4, 0, zeros},
       ERROR_UNSUPPORTED,
       "WEIGHTS: tensor 'b_dec' is [4] I32, expected F32, F16 or BF16"},
      {standard,
       B_DEC,
       {"b_dek", "F32", 1, 4, 0, zeros},
       ERROR_UNSUPPORTED,
       "WEIGHTS: tensor 'b_dek' [4] F32 has no place in a dictionary of kind 'relu', expected W_enc, W_dec, b_enc, b_dec"},
      {standard,
       B_ENC,
       {"b_enc", "F32", 1, 6, 0, broken},
       ERROR_FORMAT,
       "WEIGHTS: element 3 of tensor 'b_enc' is nan, expected a finite number"},
      {standard,
       W_DEC,
       {"W_dec", "F32", 2, 6, 4, broken},
       ERROR_FORMAT,
       "WEIGHTS: row 0 of tensor 'W_dec' has the length nan, expected a finite one"},
      {jump,
       W_ENC,
       {"W_enc", "F32", 2, 4, 6, w_enc},
       ERROR_FORMAT,
       "WEIGHTS: tensor 'threshold' is missing, expected [6]; the file has W_enc, W_dec, b_enc, b_dec"},
      {standard,
       EXTRA,
       {"threshold", "F32", 1, 6, 0, zeros},
       ERROR_UNSUPPORTED,
       "WEIGHTS: tensor 'threshold' [6] F32 has no place in a dictionary of kind 'relu', expected W_enc, W_dec, b_enc, "
       "b_dec"},
      {standard,
       EXTRA,
       {"W_skip", "F32", 2, 4, 4, zeros},
       ERROR_UNSUPPORTED,
       "WEIGHTS: tensor 'W_skip' [4, 4] F32 has no place in a dictionary of kind 'relu', expected W_enc, W_dec, b_enc, "
       "b_dec"},
      {standard,
       EXTRA,
       {"scaling_factor", "F32", 1, 6, 0, zeros},
       ERROR_FORMAT,
       "WEIGHTS: element 0 of tensor 'scaling_factor' is 0, but 'CFG' does not set finetuning_scaling_factor, expected 1 "
       "everywhere"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct item items[ITEMS];
    memcpy(items, standard_items, sizeof items);
    items[rows[i].changed] = rows[i].item;
    write_weights(items, rows[i].changed == EXTRA ? ITEMS : EXTRA);
    write_file(cfg_path, rows[i].cfg, strlen(rows[i].cfg));
    refused(folder, "1-res-toy", rows[i].code, rows[i].text);
  }
}

static void wrong_ids_and_paths_are_refused(void **state) {
  (void)state;
  const char *number =
      "source id '7' cannot name a dictionary: a bare number means the neurons of a layer, expected an id "
      "such as '7-res-jb'";
  refused(folder, "7", ERROR_ARGUMENT, number);
  struct error error = ERROR_INIT;
  assert_null(dict_open(folder, "", &toy, backend, &error));
  assert_int_equal(error.code, ERROR_ARGUMENT);
  refused("tests/vectors/none", "7-res-jb", ERROR_NOT_FOUND,
          "'tests/vectors/none' does not exist, expected a dictionary's folder or file, or an .ini that describes one");
  refused("Makefile", "7-res-jb", ERROR_FORMAT,
          "'Makefile' is no dictionary that is known by its files; describe it in an .ini with a section [source ID] "
          "(keys: weights, kind, point, ...)");
  refused("tests/vectors", "7-res-jb", ERROR_FORMAT,
          "'tests/vectors' is no dictionary that is known by its files; describe it in an .ini with a section [source ID] "
          "(keys: weights, kind, point, ...)");
}

/* ---- ini sections ----------------------------------------------------------------------------------- */

static void write_ini(const char *body) {
  char text[6000];
  snprintf(text, sizeof text, "[model]\nid = toy\n[source 1-res-toy]\n%s", body);
  write_file(description_path, text, strlen(text));
}

static void wrong_sections_are_refused(void **state) {
  (void)state;
  static const struct {
    const char *body;
    enum error_code code;
    const char *text;
  } rows[] = {
      {"kind = relu\npoint = resid_pre.1\n", ERROR_FORMAT,
       "INI [source 1-res-toy]: key 'weights' is missing, expected a .pth, .npz or .safetensors file"},
      {"weights = x\npoint = resid_pre.1\n", ERROR_FORMAT,
       "INI [source 1-res-toy]: key 'kind' is missing, expected relu, jumprelu, topk, gated or groupmax"},
      {"weights = x\nkind = relu\n", ERROR_FORMAT,
       "INI [source 1-res-toy]: key 'point' is missing, expected a point such as 'blocks.0.hook_resid_post'"},
      {"weights = x\nkind = topk\npoint = resid_pre.1\n", ERROR_FORMAT,
       "INI [source 1-res-toy]: key 'k' is missing, expected the number of features TopK keeps"},
      {"weights = x\nkind = topk\nk = few\npoint = resid_pre.1\n", ERROR_FORMAT,
       "INI line 6: k is 'few', expected an integer"},
      {"weights = x\nkind = relu\nk = 3\npoint = resid_pre.1\n", ERROR_FORMAT,
       "INI line 6: k belongs to kind 'topk' or 'groupmax', this one is 'relu'"},
      {"weights = x\nkind = gates\npoint = resid_pre.1\n", ERROR_UNSUPPORTED,
       "INI line 5: kind 'gates' is not served (served: relu, jumprelu, topk, gated, groupmax)"},
      {"weights = x\nkind = relu\npoint = resid_pre.2\n", ERROR_ARGUMENT,
       "INI: layer 2 of point 'resid_pre.2' is out of range, expected 0 to 1"},
      {"weights = x\nkind = relu\npoint = resid_pre.1\nfold = maybe\n", ERROR_FORMAT,
       "INI line 7: fold is 'maybe', expected yes or no"},
      {"weights = x\nkind = relu\npoint = resid_pre.1\nbos_count = yes\n", ERROR_FORMAT,
       "INI line 7: unknown key 'bos_count', did you mean 'bos_counts'?"},
      {"weights = x\nkind = relu\npoint = resid_pre.1\nsparsity = 3\n", ERROR_FORMAT,
       "INI line 7: unknown key 'sparsity', expected one of weights, kind, point, point_out, k, select, "
       "threshold, apply_b_dec_to_input, normalize, scale, center, fold, bos_counts, prepend_bos, context, head, tied, w_enc, "
       "w_dec, b_enc, b_dec, threshold_name, r_mag, b_mag, w_skip"},
      {"weights = x\nkind = relu\npoint = resid_pre.1\ncontext = 0\n", ERROR_FORMAT,
       "INI line 7: context is '0', expected a number of tokens, 1 or more"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    write_ini(rows[i].body);
    refused(description_path, "1-res-toy", rows[i].code, rows[i].text);
  }
  refused(description_path, "2-res-toy", ERROR_NOT_FOUND,
          "INI has no section [source 2-res-toy], it has [source 1-res-toy]");
}

static struct dict *open_described(const char *more) {
  char body[1024];
  snprintf(body, sizeof body, "weights = %s\nkind = relu\npoint = resid_pre.1\n%s", weights_path, more);
  write_ini(body);
  return must_open(description_path, "1-res-toy", &toy);
}

/* Rows of length 1, 2 (row 4) and 0 (row 5). */
static void unfolded_sources_speak_raw_units(void **state) {
  (void)state;
  static const float x[] = {1, 2, 3, 4};
  float row[4], back[2][4];
  write_weights(standard_items, EXTRA);
  struct dict *folded = open_described(""),
              *raw = open_described("fold = no\ncontext = 64\nbos_counts = true\n");
  struct sparse codes[2];
  for (int i = 0; i < 2; i++) {
    const struct dict *dict = i ? raw : folded;
    sparse_init(&codes[i]);
    encode(dict, x, 1, &codes[i]);
    dict_decode(dict, &codes[i], 0, 1, NULL, back[i]);
  }
  assert_true(dict_info(folded)->folded && !dict_info(raw)->folded);
  assert_true(dict_info(raw)->context == 64 && dict_info(raw)->bos_counts && !dict_info(folded)->bos_counts);
  assert_memory_equal(dict_norms(raw), ((const float[]){1, 1, 1, 1, 1, 1}), 24);
  assert_memory_equal(dict_norms(folded), ((const float[]){1, 1, 1, 1, 2, 1}), 24);
  /* Column 4 of w_enc is 1 1 1 1: p = 1 + 2 + 3 + 4. Small integers: exact in f32. */
  assert_true(sparse_find(&codes[1], 0, 4) == 10.0f && sparse_find(&codes[0], 0, 4) == 20.0f);
  assert_memory_equal(back[0], back[1], sizeof back[0]);
  dict_decoder_row(folded, 4, row);
  assert_memory_equal(row, ((const float[]){.5f, .5f, .5f, .5f}), 16);
  dict_decoder_row(raw, 4, row);
  assert_memory_equal(row, ((const float[]){1, 1, 1, 1}), 16);
  dict_decoder_row(folded, 5, row);
  assert_memory_equal(row, ((const float[]){0, 0, 0, 0}), 16);
  for (int i = 0; i < 2; i++) sparse_clear(&codes[i]);
  dict_close(folded);
  dict_close(raw);
}

/* The same dictionary as torch keeps it in whole rows and as transposed views. */
static void transposed_views_are_read_as_they_lie(void **state) {
  (void)state;
  static const float x[] = {1, -2, .5f, 3, -1, 1, 2, -.25f};
  static const char *const files[] = {"rows.pth", "columns.pth"};
  float rows[2][6][4], values[2][6][2];
  struct sparse codes[2];
  char here[4096], body[5000];
  assert_non_null(getcwd(here, sizeof here));
  for (int i = 0; i < 2; i++) {
    snprintf(body, sizeof body,
             "weights = %s/tests/vectors/dict-views/%s\nkind = relu\npoint = resid_pre.1\n", here, files[i]);
    write_ini(body);
    struct dict *dict = must_open(description_path, "1-res-toy", &toy);
    sparse_init(&codes[i]);
    encode(dict, x, 2, &codes[i]);
    for (int f = 0; f < 6; f++) {
      dict_decoder_row(dict, f, rows[i][f]);
      dict_feature_values(dict, f, x, 2, values[i][f]);
    }
    dict_close(dict);
  }
  assert_true(codes[0].start[2] > 2);
  assert_memory_equal(codes[0].start, codes[1].start, 3 * sizeof *codes[0].start);
  assert_memory_equal(codes[0].index, codes[1].index, codes[0].start[2] * sizeof *codes[0].index);
  assert_memory_equal(codes[0].value, codes[1].value, codes[0].start[2] * sizeof *codes[0].value);
  assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
  assert_memory_equal(values[0], values[1], sizeof values[0]);
  for (int i = 0; i < 2; i++) sparse_clear(&codes[i]);
}

/* ---- what is accepted with a word, and what without ------------------------------------------------- */

static char logged[512];
static void keep_line(void *context, enum log_level level, const char *text) {
  (void)context;
  if (level == LOG_LEVEL_WARN) snprintf(logged, sizeof logged, "%s", text);
}

static void another_model_is_only_a_warning(void **state) {
  (void)state;
  static const char cfg[] = CFG(",\"metadata\":{\"model_name\":\"gpt2-small\"}");
  write_weights(standard_items, EXTRA);
  write_file(cfg_path, cfg, strlen(cfg));
  logged[0] = '\0';
  log_set_sink(keep_line, NULL);
  dict_close(must_open(folder, "1-res-toy", &toy));
  log_set_sink(NULL, NULL);
  assert_non_null(strstr(logged, "trained on model 'gpt2-small', opened for 'toy'"));
}

static void harmless_leftovers_are_accepted(void **state) {
  (void)state;
  static const char old[] =
      CFG(",\"activation_fn_str\":\"relu\",\"normalize_activations\":false,\"hook_point_head_index\":null");
  static const char top[] =
      CFG(",\"architecture\":\"standard\",\"activation_fn_str\":\"topk\",\"activation_fn_kwargs\":{\"k\":2},"
          "\"rescale_acts_by_decoder_norm\":true");
  struct item items[ITEMS];
  memcpy(items, standard_items, sizeof items);
  items[EXTRA] = (struct item){"scaling_factor", "F32", 1, 6, 0, ones};
  write_weights(items, ITEMS);
  write_file(cfg_path, old, strlen(old));
  struct dict *dict = must_open(folder, "1-res-toy", &toy);
  assert_int_equal(dict_info(dict)->kind, DICT_RELU);
  dict_close(dict);
  items[W_DEC].data = unit_w_dec;
  write_weights(items, EXTRA);
  write_file(cfg_path, top, strlen(top));
  dict = must_open(folder, "1-res-toy", &toy);
  assert_true(dict_info(dict)->kind == DICT_TOPK && dict_info(dict)->k == 2);
  dict_close(dict);
}

static void closing_nothing_is_fine(void **state) {
  (void)state;
  dict_close(NULL);
  assert_string_equal(dict_kind_name(DICT_RELU), "relu");
  assert_string_equal(dict_kind_name(DICT_JUMPRELU), "jumprelu");
  assert_string_equal(dict_kind_name(DICT_TOPK), "topk");
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
      cmocka_unit_test(wrong_descriptions_are_refused),
      cmocka_unit_test(wrong_weights_are_refused),
      cmocka_unit_test(wrong_ids_and_paths_are_refused),
      cmocka_unit_test(wrong_sections_are_refused),
      cmocka_unit_test(unfolded_sources_speak_raw_units),
      cmocka_unit_test(transposed_views_are_read_as_they_lie),
      cmocka_unit_test(another_model_is_only_a_warning),
      cmocka_unit_test(harmless_leftovers_are_accepted),
      cmocka_unit_test(closing_nothing_is_fine),
  };
  return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
