/* test_dict_hostile.c: descriptions and files of every format that are not what they claim: refused in one line that names
 * the file and the key; and a storm of cut and bent ones, which must neither crash nor open as something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "core/base/random.h"
#include "core/dict/dict.h"

static const struct arch toy_arch = {.n_layer = 2, .n_head = 3, .n_kv_head = 3, .d_head = 8, .d_model = 16, .d_mlp = 20,
                                     .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host toy = {"toy", &toy_arch, NULL, NULL};
static struct backend *backend;
static char top[64];

/* ---- a folder of its own for every case ------------------------------------------------------------- */

static void silent(void *context, enum log_level level, const char *text) {
  (void)context, (void)level, (void)text;
}

static int set_up(void **state) {
  (void)state;
  log_set_sink(silent, NULL);
  backend = backend_open("ref", 1, NULL);
  snprintf(top, sizeof top, "/tmp/steerd-hostile-XXXXXX");
  return backend && mkdtemp(top) ? 0 : -1;
}

static void write_bytes(const char *path, const void *data, size_t length) {
  char part[512];
  for (size_t i = strlen(top) + 1; path[i]; i++) {
    if (path[i] != '/') continue;
    snprintf(part, sizeof part, "%.*s", (int)i, path);
    if (mkdir(part, 0700) != 0 && errno != EEXIST) fail_msg("mkdir %s", part);
  }
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
}

static void drop_all(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'/*", top);
  if (system(command) != 0) fail_msg("%s", command);
}

static int tear_down(void **state) {
  (void)state;
  drop_all();
  backend_close(backend);
  log_set_sink(NULL, NULL);
  return rmdir(top);
}

/* ---- one description at a time ------------------------------------------------------------------------ */

/* `text` must be in the error, which is one line and names the description. */
static const struct {
  const char *folder, *description, *content, *weights; /* weights: a file that must be there to be recognised */
  const char *open;                                     /* below folder; "" the folder */
  enum error_code code;
  const char *text;
} rows[] = {
    {"gemma-scope-2b-pt-res/layer_9/width_16k/average_l0_5", "params.npz", "PK", NULL, "", ERROR_ARGUMENT, "layer 9 of point"},
    {"somewhere/layer_1", "params.npz", "PK", NULL, "", ERROR_ARGUMENT, "no folder above it says which point"},
    {"gemma-scope-2b-pt-mlp/layer_1/x", "params.npz", "PK\3\4nonsense", NULL, "", ERROR_FORMAT, "params.npz"},
    {"g2", "config.json", "{\"architecture\":\"clt\"}", "params.safetensors", "", ERROR_UNSUPPORTED, "architecture 'clt' is not served"},
    {"g2", "config.json", "{\"architecture\":\"jump_relu\"}", "params.safetensors", "", ERROR_FORMAT, "'hf_hook_point_in' is missing"},
    {"g2", "config.json", "{\"architecture\":\"jump_relu\",\"hf_hook_point_in\":\"lm_head.output\"}", "params.safetensors", "",
     ERROR_UNSUPPORTED, "hf_hook_point_in 'lm_head.output' is not served"},
    {"g2", "config.json", "{\"architecture\":\"jump_relu\",\"hf_hook_point_in\":\"model.layers.99999999999.output\"}",
     "params.safetensors", "", ERROR_UNSUPPORTED, "hf_hook_point_in"},
    {"ls", "hyperparams.json", "{\"act_fn\":\"topk\"}", NULL, "", ERROR_UNSUPPORTED, "act_fn 'topk' is not served"},
    {"ls", "hyperparams.json", "{\"hook_point_in\":\"blocks.1.hook_resid_post\",\"d_model\":16}", NULL, "", ERROR_FORMAT,
     "'jump_relu_threshold' is missing"},
    {"ls", "hyperparams.json", "{\"hook_point_in\":\"blocks.1.hook_resid_post\",\"d_model\":16,\"jump_relu_threshold\":1,"
     "\"dataset_average_activation_norm\":{\"in\":0}}", NULL, "", ERROR_FORMAT, "'dataset_average_activation_norm.in' is missing"},
    {"ls", "hyperparams.json", "{\"hook_point_in\":7}", NULL, "", ERROR_FORMAT, "'hook_point_in' is an integer, expected a string"},
    {"r1", "config.json", "{\"hook_point_in\":\"blocks.1.hook_resid_post\",\"d_model\":16,\"expansion_factor\":9223372036854775807}",
     "sae_weights.safetensors", "", ERROR_FORMAT, "expansion_factor 9223372036854775807 times d_model 16 is too large"},
    {"layers.1", "cfg.json", "{\"signed\":true,\"k\":3}", "sae.safetensors", "", ERROR_UNSUPPORTED, "signed 'true' is not served"},
    {"layers.1", "cfg.json", "{\"activation\":\"gelu\",\"k\":3}", "sae.safetensors", "", ERROR_UNSUPPORTED, "activation 'gelu'"},
    {"layers.1", "cfg.json", "{}", "sae.safetensors", "", ERROR_FORMAT, "'k' is missing"},
    {"what", "cfg.json", "{\"k\":3}", "sae.safetensors", "", ERROR_UNSUPPORTED, "its folder is called 'what'"},
    {"layers.1x", "cfg.json", "{\"k\":3}", "sae.safetensors", "", ERROR_UNSUPPORTED, "its folder is called 'layers.1x'"},
    {"layers.1", "cfg.json", "{\"k\":3,\"transcode\":true}", "sae.safetensors", "", ERROR_UNSUPPORTED, "expected the module"},
    {"dl", "config.json", "{}", "ae.pt", "", ERROR_FORMAT, "'trainer' is missing"},
    {"dl", "config.json", "{\"trainer\":{\"dict_class\":\"CrossCoder\"}}", "ae.pt", "", ERROR_UNSUPPORTED,
     "trainer.dict_class 'CrossCoder' is not served"},
    {"dl", "config.json", "{\"trainer\":{\"dict_class\":\"AutoEncoder\"}}", "ae.pt", "", ERROR_FORMAT, "'trainer.layer' is missing"},
    {"dl", "config.json", "{\"trainer\":{\"dict_class\":\"AutoEncoder\",\"layer\":-1}}", "ae.pt", "", ERROR_FORMAT, "'trainer.layer' is -1"},
    {"dl", "config.json", "{\"trainer\":{\"dict_class\":\"AutoEncoderTopK\"}}", "ae.pt", "", ERROR_FORMAT, "'trainer.k' is missing"},
    {"dl", "config.json", "{\"trainer\":{\"dict_class\":\"AutoEncoder\",\"layer\":1,\"submodule_name\":\"lm_head\"}}", "ae.pt", "",
     ERROR_UNSUPPORTED, "trainer.submodule_name 'lm_head'"},
    {"kk", "a_cfg.json", "{}", "a.pt", "a.pt", ERROR_FORMAT, "'act_name' is missing"},
    {"gpt2-small/resid_post_mlp/v5_32k/autoencoders", "1.pt", "PK", NULL, "1.pt", ERROR_FORMAT, "1.pt"},
    {"ct", "config.yaml", "feature_input_hook: mlp.hook_in\n", "layer_1.safetensors", "layer_1.safetensors", ERROR_FORMAT,
     "'feature_output_hook' is missing"},
    {"ct", "config.yaml", "model_kind: cross_layer_transcoder\n", "layer_1.safetensors", "layer_1.safetensors", ERROR_UNSUPPORTED,
     "model_kind is 'cross_layer_transcoder', expected 'transcoder_set'"},
    {"ct", "config.yaml", "feature_input_hook: [a, b]\n", "layer_1.safetensors", "layer_1.safetensors", ERROR_FORMAT,
     "'feature_input_hook' is no plain value"},
    {"ct", "config.yaml", "feature_input_hook: 'x\n", "layer_1.safetensors", "layer_1.safetensors", ERROR_FORMAT,
     "'feature_input_hook' is no plain value"},
    {"ct", "config.yaml", "feature_input_hook: a\nfeature_output_hook: b\nactivation: swish\n", "layer_1.safetensors",
     "layer_1.safetensors", ERROR_UNSUPPORTED, "activation 'swish' is not served"},
    {"ct", "config.yaml", "feature_input_hook: a\nfeature_output_hook: b\n", "layer_1.safetensors", "layer_1.safetensors",
     ERROR_ARGUMENT, "unknown point 'blocks.1.a'"},
    {"ct", "config.yaml", "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\nactivation: topk\nk: many\n",
     "layer_1.safetensors", "layer_1.safetensors", ERROR_FORMAT, "'k' is 'many'"},
};

static void wrong_descriptions_are_refused(void **state) {
  (void)state;
  char path[512];
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    snprintf(path, sizeof path, "%s/%s/%s", top, rows[i].folder, rows[i].description);
    write_bytes(path, rows[i].content, strlen(rows[i].content));
    if (rows[i].weights) {
      snprintf(path, sizeof path, "%s/%s/%s", top, rows[i].folder, rows[i].weights);
      write_bytes(path, "", 0);
    }
    snprintf(path, sizeof path, "%s/%s%s%s", top, rows[i].folder, *rows[i].open ? "/" : "", rows[i].open);
    struct error error = ERROR_INIT;
    struct dict *dict = dict_open(path, "1-x", &toy, backend, &error);
    if (dict) fail_msg("row %zu opened", i);
    if (!strstr(error.text, rows[i].text)) fail_msg("row %zu: %s", i, error.text);
    if (error.code != rows[i].code) fail_msg("row %zu: code %d: %s", i, error.code, error.text);
    if (!strstr(error.text, top) || strchr(error.text, '\n')) fail_msg("row %zu names no file: %s", i, error.text);
    drop_all();
  }
}

/* ---- weights that do not belong to their description --------------------------------------------------- */

static void copy(const char *from, const char *to) {
  char *data;
  size_t length;
  assert_int_equal(file_read(from, 1 << 20, &data, &length, NULL), 0);
  write_bytes(to, data, length);
  free(data);
}

#define SAMPLES "tests/vectors/dict-formats/"
static void foreign_weights_are_refused(void **state) {
  (void)state;
  /* description and weights of two formats; what is said */
  static const char *const pairs[][4] = {
      {"dictionary_learning/dl-topk/trainer_0/config.json", "dictionary_learning/dl-jump/trainer_0/ae.pt", "config.json\0ae.pt",
       "'encoder.weight' is missing"},
      {"dictionary_learning/dl-standard/trainer_0/config.json", "dictionary_learning/dl-batchtopk/trainer_0/ae.pt",
       "config.json\0ae.pt", "has no place in a dictionary of kind 'relu'"},
      {"dictionary_learning/dl-batchtopk/trainer_0/config.json", "dictionary_learning/dl-standard/trainer_0/ae.pt",
       "config.json\0ae.pt", "has no place"},
      {"skip-toy/layers.1.mlp/cfg.json", "sae-toy/layers.1/sae.safetensors", "cfg.json\0sae.safetensors", "'W_skip' is missing"},
  };
  char path[512], folder[256];
  snprintf(folder, sizeof folder, "%s/layers.1.mlp", top);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
    char from[256];
    for (int j = 0; j < 2; j++) {
      const char *name = j ? pairs[i][2] + strlen(pairs[i][2]) + 1 : pairs[i][2];
      snprintf(from, sizeof from, SAMPLES "%s", pairs[i][j]);
      snprintf(path, sizeof path, "%s/%s", folder, name);
      copy(from, path);
    }
    struct error error = ERROR_INIT;
    struct dict *dict = dict_open(folder, "1-x", &toy, backend, &error);
    if (dict) fail_msg("pair %zu opened", i);
    if (!strstr(error.text, pairs[i][3])) fail_msg("pair %zu: %s", i, error.text);
    drop_all();
  }
}

/* ---- bent files ---------------------------------------------------------------------------------------- */

static const char *const bent[][2] = {
    {"gemma-scope-2b-pt-res/layer_1/width_16k/average_l0_71/", "params.npz"},
    {"gemma-scope-2-270m-pt/transcoder/layer_1_width_16k_l0_small_affine/", "config.json"},
    {"Llama3_1-8B-Base-L1R-8x/", "hyperparams.json"},
    {"skip-toy/layers.1.mlp/", "cfg.json"},
    {"dictionary_learning/dl-gated/trainer_0/", "config.json"},
    {"dictionary_learning/dl-gated/trainer_0/", "ae.pt"},
    {"gpt2-small/resid_post_attn/v5_32k/autoencoders/", "1.pt"},
    {"ct-toy/", "config.yaml"},
    {"", "described.ini"},
};

/* Every byte of a description, or of the first kilobytes of an archive, replaced or the rest cut off, one at a time and at
 * random. Whatever is said, nothing may be read that is not there (ASan) and nothing hang. */
static void bent_files_are_survived(void **state) {
  (void)state;
  setenv("STEERD_DATA", "tests/vectors", 1);
  for (size_t i = 0; i < sizeof bent / sizeof *bent; i++) {
    char from[512], path[512], open[512], *data;
    size_t length;
    snprintf(from, sizeof from, "mkdir -p '%s/%s' && cp -r " SAMPLES "%s. '%s/%s'", top, bent[i][0],
             *bent[i][0] ? bent[i][0] : "plain/", top, bent[i][0]);
    assert_int_equal(system(from), 0);
    snprintf(from, sizeof from, SAMPLES "%s%s", bent[i][0], bent[i][1]);
    assert_int_equal(file_read(from, 1 << 20, &data, &length, NULL), 0);
    snprintf(path, sizeof path, "%s/%s%s", top, bent[i][0], bent[i][1]);
    bool whole = strstr(bent[i][1], ".pt") || strstr(bent[i][1], ".ini");
    snprintf(open, sizeof open, "%s/%s%s", top, bent[i][0], strstr(bent[i][1], ".yaml") ? "layer_1.safetensors" : whole && !strstr(bent[i][1], "ae") ? bent[i][1] : "");
    size_t reach = length < 3000 ? length : 3000;
    for (uint64_t n = 0; n < 150; n++) {
      char *copied = malloc(length);
      memcpy(copied, data, length);
      size_t at = (size_t)(random_unit(11, i, 2 * n) * (double)reach), cut = n % 5 ? length : at;
      copied[at < length ? at : 0] = (char)(random_unit(11, i, 2 * n + 1) * 256);
      write_bytes(path, copied, cut);
      free(copied);
      struct error error = ERROR_INIT;
      struct buffer text;
      buffer_init(&text, 0);
      struct dict *dict = dict_open(open, "tied", &toy, backend, &error);
      if (!dict && !*error.text) fail_msg("%s: refused without a word", bent[i][1]);
      if (!dict && strchr(error.text, '\n')) fail_msg("%s: more than a line: %s", bent[i][1], error.text);
      dict_close(dict);
      if (n % 8 == 0) (void)!dict_describe(open, "tied", &text, &(struct error)ERROR_INIT);
      buffer_clear(&text);
    }
    free(data);
    drop_all();
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(wrong_descriptions_are_refused),
                                     cmocka_unit_test(foreign_weights_are_refused),
                                     cmocka_unit_test(bent_files_are_survived)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
