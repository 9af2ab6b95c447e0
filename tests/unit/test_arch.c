/* From config.json to an architecture: rotary scalings against transformers, switches that are refused by name, families
 * that are told apart, and weights that do not fit what the config describes. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/model/arch.h"
#include "core/model/model.h"
#include "core/model/rotary.h"

#define FAMILIES "tests/vectors/families/"

static int read_arch(const struct json_node *config, struct arch *arch, struct error *error) {
  memset(arch, 0, sizeof *arch);
  const struct arch_family *family = arch_find(config, error);
  if (!family || family->read_config(config, arch, error) != 0) return -1;
  return arch_check(arch, error);
}

static int read_text(const char *text, struct arch *arch, struct error *error) {
  struct json_node *config = json_parse(text, strlen(text), 16, error);
  if (!config) fail_msg("%s: %s", text, error->text);
  int result = read_arch(config, arch, error);
  json_free(config);
  return result;
}

/* ---- rotary positions ---- */

static double number(const struct json_node *list, size_t i) { return json_number_or(json_at(list, i), NAN); }

static void check_rope(const struct json_node *positions, const struct json_node *recorded) {
  struct error error = ERROR_INIT;
  struct arch arch;
  float row[ROTARY_MAX_DIMS];
  const char *what = json_text_or(json_get(recorded, "what"), "?");
  const struct json_node *frequency = json_get(recorded, "frequency"), *rows = json_get(recorded, "rows");
  if (read_arch(json_get(recorded, "config"), &arch, &error) != 0) fail_msg("%s: %s", what, error.text);
  if ((size_t)arch.rotary.dims != 2 * json_count(frequency)) fail_msg("%s: %d dims", what, arch.rotary.dims);
  /* transformers computes in f32, a power among it: a few 2^-24 */
  if (fabs(arch.rotary.factor - json_number_or(json_get(recorded, "factor"), 0)) > 1e-6) fail_msg("%s: factor %g", what, arch.rotary.factor);
  for (size_t i = 0; i < json_count(frequency); i++)
    if (!(fabs(arch.rotary.frequency[i] / number(frequency, i) - 1) < 2e-6))
      fail_msg("%s: frequency %zu is %.9g, not %.9g", what, i, arch.rotary.frequency[i], number(frequency, i));
  for (size_t p = 0; p < json_count(positions); p++) {
    int32_t position = (int32_t)json_int_or(json_at(positions, p), -1);
    rotary_row(&arch.rotary, position, row);
    for (int i = 0; i < arch.rotary.dims; i++) /* the frequency's difference times the position, and a rounding */
      if (!(fabs(row[i] - number(json_at(rows, p), (size_t)i)) <= 2e-6 * position + 2e-7))
        fail_msg("%s: position %d element %d is %.9g, not %.9g", what, position, i, row[i], number(json_at(rows, p), (size_t)i));
  }
}

static void test_rope_scalings(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct json_node *all = json_load(FAMILIES "rope.json", 1 << 20, 8, &error);
  if (!all) fail_msg("%s", error.text);
  const struct json_node *cases = json_get(all, "cases");
  assert_true(json_count(cases) >= 10);
  for (size_t i = 0; i < json_count(cases); i++) check_rope(json_get(all, "positions"), json_at(cases, i));
  json_free(all);
}

/* Beyond the short factors keys would have to be turned again: the context ends there. */
static void test_longrope_ends_the_context(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct arch arch;
  assert_int_equal(read_text("{\"model_type\": \"phi3\", \"vocab_size\": 10, \"hidden_size\": 8, \"intermediate_size\": 8,"
                             "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"max_position_embeddings\": 4096,"
                             "\"original_max_position_embeddings\": 512, \"rope_scaling\": {\"type\": \"su\","
                             "\"short_factor\": [1, 2], \"long_factor\": [3, 4]}}", &arch, &error), 0);
  assert_int_equal(arch.n_ctx, 512);
}

/* ---- what is refused ---- */

#define LLAMA "\"model_type\": \"llama\", \"vocab_size\": 10, \"hidden_size\": 8, \"intermediate_size\": 8, " \
              "\"num_hidden_layers\": 2, \"num_attention_heads\": 2"
#define AS(type) "\"model_type\": \"" type "\", \"vocab_size\": 10, \"hidden_size\": 8, \"intermediate_size\": 8, " \
                 "\"num_hidden_layers\": 2, \"num_attention_heads\": 2, \"num_key_value_heads\": 1"
#define NEO "\"model_type\": \"gpt_neo\", \"vocab_size\": 10, \"hidden_size\": 8, \"num_layers\": 2, \"num_heads\": 2"
#define OPT "\"model_type\": \"opt\", \"vocab_size\": 10, \"hidden_size\": 8, \"ffn_dim\": 8, \"num_hidden_layers\": 2, " \
            "\"num_attention_heads\": 2"
#define GPTJ "\"model_type\": \"gptj\", \"vocab_size\": 10, \"n_embd\": 8, \"n_layer\": 2, \"n_head\": 2, \"rotary_dim\": 2"
#define TOY "\"n_layers\": 2, \"d_model\": 8, \"d_head\": 4, \"d_vocab\": 10, \"normalization\": \"LN\""

/* The error must hold both words: the key or name, and what is wrong with it or served instead. */
static const struct refusal {
  const char *config, *key, *word;
} refusals[] = {
    {"{\"model_type\": \"llame\"}", "'llame'", "'llama'"},
    {"{\"model_type\": \"falcon\"}", "'falcon'", "gpt_neox"},
    {"{\"architectures\": [\"BertModel\"]}", "BertModel", "served"},
    {"{" LLAMA ", \"quantization_config\": {\"quant_method\": \"gptq\"}}", "quant_method 'gptq'", "f32, f16 or bf16"},
    {"{" LLAMA ", \"quantization_config\": {}}", "quantization_config", "'not given'"},
    {"{" LLAMA ", \"hidden_act\": \"quick_gelu\"}", "hidden_act", "'quick_gelu'"},
    {"{" LLAMA ", \"num_key_value_heads\": 3}", "2 heads", "3 key-value heads"},
    {"{" LLAMA ", \"num_hidden_layers\": 0}", "num_hidden_layers", "1 to 1024"},
    {"{\"model_type\": \"llama\", \"vocab_size\": 10}", "num_hidden_layers", "expected an integer"},
    {"{" LLAMA ", \"attention_bias\": \"yes\"}", "attention_bias", "true or false"},
    {"{" LLAMA ", \"head_dim\": 3}", "3 of 3 elements", "even numbers"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"proportional\", \"factor\": 2}}", "'proportional'", "llama3"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\"}}", "rope_scaling.factor", "expected a number"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": -1}}", "rope_scaling.factor", "-1"},
    {"{" LLAMA ", \"rope_scaling\": {\"rope_type\": \"longrope\", \"short_factor\": [1]}}", "short_factor", "expected 2"},
    {"{" LLAMA ", \"rope_scaling\": {\"type\": \"su\", \"short_factor\": [1, 1], \"factor\": 2, "
     "\"original_max_position_embeddings\": 1}}", "rope_scaling", "not finite"},
    {"{" AS("mistral") ", \"layer_types\": [\"full_attention\", \"full_attention\"]}", "layer_types", "not served"},
    {"{" AS("qwen2") ", \"layer_types\": [\"full_attention\"]}", "layer_types", "1 entries"},
    {"{" AS("qwen3") ", \"layer_types\": [\"full_attention\", \"chunked_attention\"]}", "'chunked_attention'", "sliding_attention"},
    {"{" AS("qwen3") ", \"layer_types\": [\"full_attention\", \"sliding_attention\"]}", "sliding_attention", "sliding_window"},
    {"{" AS("gemma2") ", \"use_bidirectional_attention\": true}", "use_bidirectional_attention", "only false"},
    {"{" AS("gemma") ", \"tie_word_embeddings\": false}", "tie_word_embeddings", "only true"},
    {"{" AS("gemma3_text") ", \"rope_parameters\": {\"rope_theta\": 5}}", "rope_parameters", "full_attention"},
    {"{\"model_type\": \"gemma3\"}", "text_config", "expected an object"},
    {"{" AS("phi") ", \"qk_layernorm\": true}", "qk_layernorm", "only false"},
    {"{" NEO ", \"attention_types\": [[[\"global\"], 1]]}", "attention_types", "1 layers"},
    {"{" NEO ", \"attention_types\": [[[\"global\"], 1000000000]]}", "attention_types", "more than 2"},
    {"{" NEO ", \"attention_types\": [[[\"global\", \"sparse\"], 1]]}", "'sparse'", "local"},
    {"{" OPT ", \"_remove_final_layer_norm\": true}", "_remove_final_layer_norm", "only false"},
    {"{" OPT ", \"word_embed_proj_dim\": 0}", "word_embed_proj_dim", "1 to 65536"},
    {"{" GPTJ ", \"rotary_dim\": 6}", "rotary_dim 6", "4"},
    {"{" GPTJ ", \"tie_word_embeddings\": true}", "tie_word_embeddings", "only false"},
    {"{" TOY ", \"normalization\": \"RMS\"}", "'RMS'", "LNPre"},
    {"{" TOY ", \"positional_embedding_type\": \"rotary\"}", "'rotary'", "shortformer"},
    {"{" TOY ", \"gated_mlp\": true}", "gated_mlp", "only false"},
    {"{" TOY ", \"act_fn\": \"mish\"}", "act_fn", "'mish'"},
};

/* Later keys of these texts repeat earlier ones, which the parser refuses: the earlier one is cut out. */
static void cut_repeated(char *text) {
  char *last = strrchr(text, '"'), key[64];
  for (char *at = strchr(text, '"'); at && at < last; at = strchr(at + 1, '"')) {
    char *end = strchr(at + 1, '"');
    if (!end || end[1] != ':' || (size_t)(end - at) >= sizeof key - 1) continue;
    snprintf(key, sizeof key, "%.*s", (int)(end - at + 2), at);
    char *again = strstr(end, key);
    if (!again) continue;
    char *next = strstr(at, ", \"");
    memmove(at, next + 2, strlen(next + 2) + 1);
    return;
  }
}

static void test_refusals(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    struct error error = ERROR_INIT;
    struct arch arch;
    char text[1024];
    snprintf(text, sizeof text, "%s", refusals[i].config);
    cut_repeated(text);
    if (read_text(text, &arch, &error) == 0) fail_msg("%s: was taken", text);
    if (!strstr(error.text, refusals[i].key) || !strstr(error.text, refusals[i].word))
      fail_msg("%s: '%s' names not both %s and %s", text, error.text, refusals[i].key, refusals[i].word);
  }
}

/* ---- what configs mean ---- */

static void test_windows_and_caps(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct arch arch;
  /* absent: the family's own; null: none */
  assert_int_equal(read_text("{" AS("mistral") "}", &arch, &error), 0);
  assert_true(arch.window == 4096 && arch.local[0] && arch.local[1]);
  assert_int_equal(read_text("{" AS("mistral") ", \"sliding_window\": null}", &arch, &error), 0);
  assert_true(!arch.local[0] && !arch.local[1]);
  assert_int_equal(read_text("{" AS("gemma2") "}", &arch, &error), 0);
  assert_true(arch.attn_soft_cap == 50 && arch.logit_soft_cap == 30 && arch.local[0] && !arch.local[1]);
  assert_int_equal(read_text("{" AS("gemma2") ", \"attn_logit_softcapping\": null}", &arch, &error), 0);
  assert_true(arch.attn_soft_cap == 0 && arch.logit_soft_cap == 30);
  assert_int_equal(read_text("{" AS("qwen2") ", \"sliding_window\": 7, \"max_window_layers\": 1}", &arch, &error), 0);
  assert_true(!arch.local[1]); /* use_sliding_window is false */
  assert_int_equal(read_text("{" AS("qwen2") ", \"sliding_window\": 7, \"max_window_layers\": 1, \"use_sliding_window\": true}",
                             &arch, &error), 0);
  assert_true(!arch.local[0] && arch.local[1] && arch.window == 7);
  assert_int_equal(read_text("{" NEO ", \"attention_types\": [[[\"global\", \"local\"], 1]]}", &arch, &error), 0);
  assert_true(!arch.local[0] && arch.local[1] && arch.window == 256 && arch.attn_scale == 1);
}

/* A head is as wide as the family has it where config.json does not say: not always d_model / n_head. */
static void test_widths_of_heads(void **state) {
  (void)state;
  static const struct {
    const char *config;
    int32_t d_head;
  } cases[] = {{"{" AS("qwen3") "}", 128}, {"{" AS("gemma") "}", 256},  {"{" AS("gemma2") "}", 256}, {"{" AS("gemma3_text") "}", 256},
               {"{" AS("qwen2") "}", 4},   {"{" AS("llama") "}", 4},    {"{" AS("llama") ", \"head_dim\": 6}", 6},
               {"{" AS("qwen3") ", \"head_dim\": 16}", 16}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct error error = ERROR_INIT;
    struct arch arch;
    if (read_text(cases[i].config, &arch, &error) != 0) fail_msg("%s: %s", cases[i].config, error.text);
    if (arch.d_head != cases[i].d_head) fail_msg("%s: heads of %d", cases[i].config, arch.d_head);
  }
}

/* The published text half of a multimodal Gemma 3 says little: the rest are its class's own numbers. */
static void test_gemma3_multimodal(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct arch arch;
  if (read_text("{\"model_type\": \"gemma3\", \"text_config\": {\"hidden_size\": 2560, \"intermediate_size\": 10240,"
                "\"model_type\": \"gemma3_text\", \"num_hidden_layers\": 34, \"sliding_window\": 1024,"
                "\"rope_scaling\": {\"factor\": 8.0, \"rope_type\": \"linear\"}}}", &arch, &error) != 0)
    fail_msg("%s", error.text);
  assert_true(arch.n_head == 8 && arch.n_kv_head == 4 && arch.d_head == 256 && arch.vocabulary == 262208);
  assert_true(arch.local[0] && arch.local[4] && !arch.local[5] && arch.local[6] && arch.window == 1024);
  assert_true(fabsf(arch.rotary.frequency[0] - 0.125f) < 1e-6f && arch.rotary_local.frequency[0] == 1.0f);
  assert_true(fabsf(arch.rotary.frequency[64] / 1.25e-4f - 1) < 1e-5f); /* 1e6^(-1/2) / 8 */
  assert_true(fabsf(arch.rotary_local.frequency[64] / 1e-2f - 1) < 1e-5f);
  assert_true(arch.attn_scale == 1.0f / 16 && arch.attn_soft_cap == 0);
}

/* The first Gemma files say "gelu" and mean the tanh form. */
static void test_gemma_activation(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct arch arch;
  assert_int_equal(read_text("{" AS("gemma") ", \"hidden_act\": \"gelu\"}", &arch, &error), 0);
  assert_int_equal(arch.act, ACT_GELU_TANH);
  assert_int_equal(read_text("{" AS("gemma") ", \"hidden_activation\": \"gelu\"}", &arch, &error), 0);
  assert_int_equal(arch.act, ACT_GELU_ERF);
}

/* ---- weights that do not fit ---- */

/* The folder of the tiny Llama with one number of its config replaced; opens it and returns the error's text. */
static const char *open_changed(const char *from, const char *to) {
  static struct error error;
  static const char *const files[] = {"config.json", "model.safetensors"};
  char folder[] = "/tmp/steerd-arch-XXXXXX", path[256], target[4096], text[4096];
  error = (struct error)ERROR_INIT;
  assert_non_null(mkdtemp(folder));
  FILE *file = fopen(FAMILIES "llama/config.json", "rb");
  assert_non_null(file);
  size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[n] = '\0';
  char *at = strstr(text, from);
  assert_non_null(at);
  snprintf(path, sizeof path, "%s/%s", folder, files[0]);
  file = fopen(path, "wb");
  fprintf(file, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  fclose(file);
  assert_non_null(getcwd(target, sizeof target - 64));
  strcat(target, "/" FAMILIES "llama/model.safetensors");
  snprintf(path, sizeof path, "%s/%s", folder, files[1]);
  assert_int_equal(symlink(target, path), 0);
  struct backend *backend = backend_open("ref", 1, &error);
  struct model *model = model_open_weights("llama", folder, backend, &error);
  if (model) snprintf(error.text, sizeof error.text, "taken");
  model_close(model);
  backend_close(backend);
  for (int i = 0; i < 2; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i]);
    unlink(path);
  }
  rmdir(folder);
  return error.text;
}

static void test_weights_must_fit(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *word, *other;
  } cases[] = {
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "'model.layers.1.", "1 layers"},
      {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "'model.layers.2.", "missing"},
      {"\"attention_bias\": false", "\"attention_bias\": true", "q_proj.bias", "missing"},
      {"\"head_dim\": 10", "\"head_dim\": 12", "q_proj.weight' is [60, 36] F32", "expected [72, 36]"},
      {"\"vocab_size\": 97", "\"vocab_size\": 96", "embed_tokens.weight", "expected [96, 36]"},
      {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", "taken", "taken"},
      {"\"model_type\": \"llama\"", "\"model_type\": \"qwen3\"", "q_norm.weight", "missing"},
      {"\"model_type\": \"llama\"", "\"model_type\": \"gpt_neox\", \"rotary_pct\": 1.0", "gpt_neox.embed_in.weight", "not the weights of a gpt_neox"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *text = open_changed(cases[i].from, cases[i].to);
    if (!strstr(text, cases[i].word) || !strstr(text, cases[i].other)) fail_msg("%s: %s", cases[i].to, text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rope_scalings),    cmocka_unit_test(test_longrope_ends_the_context),
      cmocka_unit_test(test_refusals),         cmocka_unit_test(test_windows_and_caps),
      cmocka_unit_test(test_gemma3_multimodal), cmocka_unit_test(test_widths_of_heads), cmocka_unit_test(test_gemma_activation),
      cmocka_unit_test(test_weights_must_fit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
