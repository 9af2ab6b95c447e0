/* test_dict_files.c: dictionaries made here, byte by byte: what is said about files that are not what they claim, what is
 * accepted with a word, and what without. */
#include "tests/unit/dict_vectors.h"

#include <unistd.h>

#include "core/base/log.h"

static const struct arch toy_arch = {.n_layer = 2, .n_head = 2, .n_kv_head = 2, .d_head = 2, .d_model = 4, .d_mlp = 16,
                                        .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host toy = {"toy", &toy_arch, NULL, NULL};

static struct backend *backend;

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
  return backend && setenv("STEERD_DATA", folder, 1) == 0 ? 0 : -1; /* where relative paths of an ini start */
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
       "matryoshka_batchtopk, transcoder, skip_transcoder, topk_transcoder, jumprelu_transcoder, "
       "jumprelu_skip_transcoder)"},
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
#define SLICE "a list of 1 to 3 integers or nulls, as Python's slice(...) takes them, such as [5, -5]"
      {CFG(",\"seqpos_slice\":5"), ERROR_FORMAT, "CFG: 'seqpos_slice' is an integer, expected " SLICE},
      {CFG(",\"seqpos_slice\":[]"), ERROR_FORMAT, "CFG: 'seqpos_slice' has 0 elements, expected " SLICE},
      {CFG(",\"metadata\":{\"seqpos_slice\":[1,2,3,4]}"), ERROR_FORMAT, "CFG: 'seqpos_slice' has 4 elements, expected " SLICE},
      {CFG(",\"seqpos_slice\":[5,\"-5\"]"), ERROR_FORMAT,
       "CFG: element 1 of 'seqpos_slice' is a string, expected an integer or null"},
      {CFG(",\"seqpos_slice\":[1.0]"), ERROR_FORMAT, "CFG: element 0 of 'seqpos_slice' is a number, expected an integer or null"},
      {CFG(",\"seqpos_slice\":[true,3]"), ERROR_FORMAT, "CFG: element 0 of 'seqpos_slice' is a boolean, expected an integer or null"},
      {CFG(",\"seqpos_slice\":[null,-2147483648]"), ERROR_FORMAT,
       "CFG: element 1 of 'seqpos_slice' is -2147483648, expected -2147483647 to 2147483647, or null"},
      {CFG(",\"seqpos_slice\":[0,9223372036854775807,1]"), ERROR_FORMAT,
       "CFG: element 1 of 'seqpos_slice' is 9223372036854775807, expected -2147483647 to 2147483647, or null"},
      {CFG(",\"seqpos_slice\":[1,5,0]"), ERROR_FORMAT, "CFG: the step of 'seqpos_slice' is 0, expected another integer or null"},
      {CFG(",\"context_size\":8,\"seqpos_slice\":[5,-5]"), ERROR_FORMAT,
       "CFG: 'seqpos_slice' leaves no position of a context of context_size 8"},
      {CFG(",\"seqpos_slice\":[1,5],\"metadata\":{\"seqpos_slice\":[1,6]}"), ERROR_FORMAT,
       "CFG: 'seqpos_slice' inside 'metadata' is another than beside it: keep the one that is right"},
      {CFG(",\"exclude_special_tokens\":\"all\""), ERROR_FORMAT,
       "CFG: 'exclude_special_tokens' is a string, expected true, false or a list of token ids"},
      {CFG(",\"metadata\":{\"exclude_special_tokens\":[3,-1]}"), ERROR_FORMAT,
       "CFG: element 1 of 'exclude_special_tokens' is -1, expected a token id, 0 to 2147483647"},
      {CFG(",\"exclude_special_tokens\":[2147483648]"), ERROR_FORMAT,
       "CFG: element 0 of 'exclude_special_tokens' is 2147483648, expected a token id, 0 to 2147483647"},
      {CFG(",\"exclude_special_tokens\":[3,null]"), ERROR_FORMAT,
       "CFG: element 1 of 'exclude_special_tokens' is null, expected a token id"},
      {CFG(",\"exclude_special_tokens\":true,\"metadata\":{\"exclude_special_tokens\":false}"), ERROR_FORMAT,
       "CFG: 'exclude_special_tokens' inside 'metadata' is another than beside it: keep the one that is right"},
  };
  write_weights(standard_items, EXTRA);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    write_file(cfg_path, rows[i].cfg, strlen(rows[i].cfg));
    refused(folder, "1-res-toy", rows[i].code, rows[i].text);
  }
}

/* ---- where it is read ---- */

static struct dict *open_cfg(const char *cfg) {
  struct error error = ERROR_INIT;
  write_file(cfg_path, cfg, strlen(cfg));
  struct dict *dict = dict_open(folder, "1-res-toy", &toy, backend, &error);
  if (!dict) fail_msg("%s: %s", cfg, error.text);
  return dict;
}

static void slices_are_read(void **state) {
  (void)state;
  static const struct {
    const char *cfg;
    struct slice slice;
  } rows[] = {
      {CFG(""), {0}},
      {CFG(",\"seqpos_slice\":null"), {0}},
      {CFG(",\"seqpos_slice\":[null]"), {0}}, /* what SAELens writes where nothing was said */
      {CFG(",\"seqpos_slice\":[0,null,1]"), {0}},
      {CFG(",\"seqpos_slice\":[null,null,-1]"), {0}},
      {CFG(",\"seqpos_slice\":[5]"), {true, SLICE_OPEN, 5, 1}}, /* slice(5) ends at 5 */
      {CFG(",\"seqpos_slice\":[5,-5],\"context_size\":11"), {true, 5, -5, 1}},
      {CFG(",\"seqpos_slice\":[5,null]"), {true, 5, SLICE_OPEN, 1}},
      {CFG(",\"seqpos_slice\":[null,-3,2]"), {true, SLICE_OPEN, -3, 2}},
      {CFG(",\"seqpos_slice\":[9,3,null]"), {true, 9, 3, 1}}, /* no context is said for which it would be empty */
      {CFG(",\"seqpos_slice\":[9,3,-2]"), {true, 9, 3, -2}},
      {CFG(",\"metadata\":{\"seqpos_slice\":[1,null]}"), {true, 1, SLICE_OPEN, 1}},
      {CFG(",\"seqpos_slice\":[1,5],\"metadata\":{\"seqpos_slice\":[1,5]}"), {true, 1, 5, 1}},
      {CFG(",\"seqpos_slice\":[1,5],\"metadata\":{\"seqpos_slice\":null}"), {true, 1, 5, 1}},
  };
  write_weights(standard_items, EXTRA);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct dict *dict = open_cfg(rows[i].cfg);
    const struct slice *got = &dict_info(dict)->positions.slice, *want = &rows[i].slice;
    if (got->given != want->given || (want->given && (got->start != want->start || got->stop != want->stop || got->step != want->step)))
      fail_msg("%s: %d %lld %lld %lld", rows[i].cfg, got->given, (long long)got->start, (long long)got->stop, (long long)got->step);
    dict_close(dict);
  }
}

static void excluded_tokens_are_read(void **state) {
  (void)state;
  static const int32_t want[] = {0, 3, 9};
  write_weights(standard_items, EXTRA);
  struct dict *dict = open_cfg(CFG(",\"metadata\":{\"exclude_special_tokens\":[9,3,0,9]}"));
  const struct positions *positions = &dict_info(dict)->positions;
  assert_int_equal(positions->n_excluded, 3);
  assert_memory_equal(positions->excluded, want, sizeof want);
  assert_true(positions->skip_first && !positions->slice.given);
  dict_close(dict);
  static const char *const nothing[] = {CFG(",\"exclude_special_tokens\":false"), CFG(",\"exclude_special_tokens\":null"),
                                        CFG(",\"exclude_special_tokens\":[]"), CFG(",\"prepend_bos\":false")};
  for (int i = 0; i < 4; i++) {
    dict = open_cfg(nothing[i]);
    assert_int_equal(dict_info(dict)->positions.n_excluded, 0);
    assert_int_equal(dict_info(dict)->positions.skip_first, i < 3);
    dict_close(dict);
  }
}

/* What was counted at other positions is not taken for this one's; a dictionary that says nothing keeps the name it had. */
static void a_fingerprint_says_where(void **state) {
  (void)state;
  static const char *const cfgs[] = {CFG(""), CFG(",\"seqpos_slice\":[null]"), CFG(",\"seqpos_slice\":[1,null]"),
                                     CFG(",\"seqpos_slice\":[2,null]"), CFG(",\"exclude_special_tokens\":[3]")};
  char prints[5][17];
  write_weights(standard_items, EXTRA);
  for (int i = 0; i < 5; i++) {
    struct dict *dict = open_cfg(cfgs[i]);
    dict_fingerprint(dict, prints[i]);
    dict_close(dict);
  }
  assert_string_equal(prints[0], prints[1]);
  for (int i = 1; i < 5; i++)
    for (int k = 1; k < i; k++) assert_string_not_equal(prints[i], prints[k]);
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
  return must_open(backend, description_path, "1-res-toy", &toy);
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
    encode_rows(backend, dict, x, 1, &codes[i]);
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
    struct dict *dict = must_open(backend, description_path, "1-res-toy", &toy);
    sparse_init(&codes[i]);
    encode_rows(backend, dict, x, 2, &codes[i]);
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
  dict_close(must_open(backend, folder, "1-res-toy", &toy));
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
  struct dict *dict = must_open(backend, folder, "1-res-toy", &toy);
  assert_int_equal(dict_info(dict)->kind, DICT_RELU);
  dict_close(dict);
  items[W_DEC].data = unit_w_dec;
  write_weights(items, EXTRA);
  write_file(cfg_path, top, strlen(top));
  dict = must_open(backend, folder, "1-res-toy", &toy);
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
      cmocka_unit_test(wrong_descriptions_are_refused),
      cmocka_unit_test(slices_are_read),
      cmocka_unit_test(excluded_tokens_are_read),
      cmocka_unit_test(a_fingerprint_says_where),
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
