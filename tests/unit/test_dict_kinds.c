/* test_dict_kinds.c: every kind of dictionary in SAELens' files against float64 recordings (tests/vectors/dict-kinds):
 * features, reconstructions, error terms, one feature at a time, steering rows. */
#include "tests/unit/dict_splices.h"

#include "core/model/points.h"

#define FOLDER "tests/vectors/dict-kinds"
static const struct arch toy_arch = {.n_layer = 2, .n_head = 3, .n_kv_head = 3, .d_head = 8, .d_model = 16, .d_mlp = 20,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host toy = {"toy", &toy_arch, NULL, NULL};

static const struct {
  const char *name, *title, *in, *out;
} dictionaries[] = {
    {"relu", "relu", "blocks.1.hook_resid_pre", NULL},
    {"gated", "gated", "blocks.1.hook_resid_pre", NULL},
    {"gated-plain", "gated", "blocks.1.hook_resid_pre", NULL},
    {"jumprelu", "jumprelu", "blocks.1.hook_resid_pre", NULL},
    {"batchtopk", "jumprelu", "blocks.1.hook_resid_pre", NULL},
    {"matryoshka", "jumprelu", "blocks.1.hook_resid_pre", NULL},
    {"topk", "topk", "blocks.1.hook_resid_pre", NULL},
    {"topk-rescaled", "topk", "blocks.1.hook_resid_pre", NULL},
    {"scaled", "relu", "blocks.1.hook_resid_pre", NULL},
    {"scaled-beside", "relu", "blocks.1.hook_resid_pre", NULL},
    {"scaled-jumprelu", "jumprelu", "blocks.1.hook_resid_pre", NULL},
    {"length", "relu", "blocks.1.hook_resid_pre", NULL},
    {"length-topk", "topk", "blocks.1.hook_resid_pre", NULL},
    {"layernorm", "relu", "blocks.1.hook_resid_pre", NULL},
    {"layernorm-topk", "topk", "blocks.1.hook_resid_pre", NULL},
    {"layernorm-gated", "gated", "blocks.1.hook_resid_pre", NULL},
    {"center-length", "relu", "blocks.1.hook_resid_pre", NULL},
    {"center-layernorm", "jumprelu", "blocks.1.hook_resid_pre", NULL},
    {"hook-z", "relu", "blocks.1.attn.hook_z", NULL},
    {"one-head", "relu", "blocks.1.attn.hook_z", NULL},
    {"finetuned", "relu", "blocks.1.hook_resid_pre", NULL},
    {"transcoder", "relu transcoder", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"},
    {"transcoder-topk", "topk transcoder", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"},
    {"transcoder-z", "relu transcoder", "blocks.1.attn.hook_z", "blocks.0.hook_attn_out"},
    {"transcoder-jumprelu", "jumprelu transcoder", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"},
    {"transcoder-skip", "relu skip transcoder", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"},
};
#define COUNT (sizeof dictionaries / sizeof *dictionaries)

static struct backend *backends[DICT_BACKENDS];
static struct tensors *file;

static int set_up(void **state) {
  (void)state;
  open_backends(backends);
  file = tensors_open(FOLDER "/expected.safetensors", NULL);
  return file ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  tensors_close(file);
  close_backends(backends);
  return 0;
}

static void kinds_as_recorded(void **state) {
  (void)state;
  char path[128];
  for (size_t i = 0; i < COUNT; i++)
    for (int b = 0; b < DICT_BACKENDS; b++) {
      snprintf(path, sizeof path, FOLDER "/%s", dictionaries[i].name);
      as_recorded(backends[b], file, dictionaries[i].name, path, "1-test", &toy);
      splices_as_recorded(backends[b], file, dictionaries[i].name, path, "1-test", &toy);
    }
}

static void what_was_opened_is_told(void **state) {
  (void)state;
  char path[128], name[POINT_NAME_BYTES];
  for (size_t i = 0; i < COUNT; i++) {
    snprintf(path, sizeof path, FOLDER "/%s", dictionaries[i].name);
    struct dict *dict = dict_open(path, "1-test", &toy, backends[0], NULL);
    assert_non_null(dict);
    const struct dict_info *info = dict_info(dict);
    assert_string_equal(dict_title(info), dictionaries[i].title);
    assert_string_equal(point_name(info->in, name), dictionaries[i].in);
    assert_string_equal(point_name(info->out, name), dictionaries[i].out ? dictionaries[i].out : dictionaries[i].in);
    assert_int_equal(info->transcoder, dictionaries[i].out != NULL);
    bool z = info->in.site == SITE_ATTN_Z;
    assert_int_equal(info->in_width, z ? 24 : 16);
    if (!strcmp(dictionaries[i].name, "one-head")) {
      assert_true(info->d_in == 8 && info->in_column == 16 && info->out_column == 16 && info->out_width == 24);
    } else {
      assert_true(info->d_in == info->in_width && info->in_column == 0);
    }
    dict_close(dict);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(kinds_as_recorded), cmocka_unit_test(what_was_opened_is_told)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
