/* test_dict_formats.c: every file format that people publish, from samples as their own libraries write them, against
 * float64 recordings (tests/vectors/dict-formats); descriptions of them; and what is said of hostile ones. */
#include "tests/unit/dict_vectors.h"

#include "core/base/json.h"
#include "core/model/points.h"

#define FOLDER "tests/vectors/dict-formats"
static const struct arch toy_arch = {.n_layer = 2, .n_head = 3, .n_kv_head = 3, .d_head = 8, .d_model = 16, .d_mlp = 20,
                                     .has = HAS_MLP | HAS_NORM2, .norm = NORM_LAYER};
static const struct dict_host toy = {"toy", &toy_arch, NULL};

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

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(formats_as_recorded), cmocka_unit_test(what_was_opened_is_told)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
