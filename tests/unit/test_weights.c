/* Weights against the table of a family: folders whose files lie about one thing each. The files are the tiny GPT-2's with
 * names and numbers of the header or of config.json replaced by others of the same length. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/mapfile.h"
#include "core/model/model.h"

#define MODEL "tests/vectors/tiny-gpt2/model/"

static char folder[64];
static struct backend *backend;

static const char *in_folder(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static int setup(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/steerd-weights-XXXXXX");
  backend = backend_open("ref", 1, NULL);
  return mkdtemp(folder) && backend ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  unlink(in_folder("config.json"));
  unlink(in_folder("model.safetensors"));
  backend_close(backend);
  return rmdir(folder);
}

/* Writes a file of the model with the first `from` replaced by `to`, and cut by `cut` bytes. */
static void write_changed(const char *name, const char *from, const char *to, size_t cut) {
  char path[128], *data;
  size_t length, n = strlen(from);
  snprintf(path, sizeof path, MODEL "%s", name);
  assert_int_equal(file_read(path, (size_t)64 << 20, &data, &length, NULL), 0);
  char *at = n ? memmem(data, length, from, n) : NULL;
  if (n && !at) fail_msg("'%s' is not in %s", from, path);
  assert_int_equal(strlen(to), n);
  if (at) memcpy(at, to, n);
  FILE *out = fopen(in_folder(name), "wb");
  assert_int_equal(fwrite(data, 1, length - cut, out), length - cut);
  assert_int_equal(fclose(out), 0);
  free(data);
}

static void assert_refused(const char *part) {
  struct error error = ERROR_INIT;
  struct model *model = model_open_weights("tiny", folder, backend, &error);
  if (model) fail_msg("accepted, expected '%s'", part);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  assert_null(strchr(error.text, '\n'));
}

static void weights_refused(const char *from, const char *to, const char *part) {
  write_changed("config.json", "", "", 0);
  write_changed("model.safetensors", from, to, 0);
  assert_refused(part);
}

static void config_refused(const char *from, const char *to, const char *part) {
  write_changed("model.safetensors", "", "", 0);
  write_changed("config.json", from, to, 0);
  assert_refused(part);
}

static void test_sound(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  write_changed("model.safetensors", "", "", 0);
  write_changed("config.json", "", "", 0);
  struct model *model = model_open_weights("tiny", folder, backend, &error);
  if (!model) fail_msg("%s", error.text);
  model_close(model);
}

static void test_names(void **state) {
  (void)state;
  weights_refused("transformer.h.1.ln_2.bias", "transformer.h.1.lx_2.bias",
                  "tensor 'transformer.h.1.lx_2.bias' belongs to no part");
  weights_refused("transformer.h.2.ln_2.bias", "transformer.h.3.ln_2.bias",
                  "tensor 'transformer.h.3.ln_2.bias' belongs to no part"); /* a layer that config.json does not have */
  weights_refused("transformer.h.1.ln_2.bias", "transformer.h.1.attn.bias",
                  "tensor 'transformer.h.1.ln_2.bias' is missing"); /* its place is taken by a buffer that is skipped */
  weights_refused("transformer.wte.weight", "transformer.wtf.weight", "tensor 'transformer.wte.weight' is missing");
  weights_refused("transformer.h.1.ln_2.bias", "transformer.h.2.ln_2.bias", "stands twice");
}

static void test_shapes(void **state) {
  (void)state;
  weights_refused("\"dtype\":\"F32\",\"shape\":[48,144]", "\"dtype\":\"F32\",\"shape\":[144,48]",
                  "c_attn.weight' is [144, 48] F32, expected [48, 144]");
  weights_refused("\"dtype\":\"F32\",\"shape\":[144],", "\"dtype\":\"U32\",\"shape\":[144],",
                  "c_attn.bias' is of type U32; F32, F16 and BF16 are read");
  weights_refused("\"data_offsets\":[0,576]", "\"data_offsets\":[0,572]", "span 572 bytes");
  weights_refused("\"data_offsets\":[576,28224]", "\"data_offsets\":[572,28220]", "begins at data byte 572");
  config_refused("\"n_inner\": 128", "\"n_inner\": 129", "expected [48, 129]");
  config_refused("\"n_layer\": 3", "\"n_layer\": 9", "is missing");
  config_refused("\"n_layer\": 3", "\"n_layer\": 2", "belongs to no part");
}

/* 99,999 positions of width 48 would be 18 MiB; with memory bound to 8 MiB more than is used, the refusal must be about
 * the shape, not about memory. (Sanitizers need more address space than that: there only the text is checked.) */
static void test_nothing_is_allocated_for_a_claim(void **state) {
  (void)state;
  struct rlimit old, bound;
  long pages = 0;
  FILE *statm = fopen("/proc/self/statm", "r");
  assert_int_equal(fscanf(statm, "%ld", &pages), 1);
  fclose(statm);
  assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
  bound = old;
  bound.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)8 << 20);
  write_changed("model.safetensors", "", "", 0);
  write_changed("config.json", "\"n_positions\": 160,\n", "\"n_positions\":99999,", 0);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  assert_int_equal(setrlimit(RLIMIT_AS, &bound), 0);
#endif
  assert_refused("wpe.weight' is [160, 48] F32, expected [99999, 48]");
  setrlimit(RLIMIT_AS, &old);
}

static void test_truncated(void **state) {
  (void)state;
  static const size_t cuts[] = {1, 4, 1000, 100000};
  write_changed("config.json", "", "", 0);
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    write_changed("model.safetensors", "", "", cuts[i]);
    assert_refused("do not lie in the");
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sound), cmocka_unit_test(test_names), cmocka_unit_test(test_shapes),
                                     cmocka_unit_test(test_nothing_is_allocated_for_a_claim), cmocka_unit_test(test_truncated)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
