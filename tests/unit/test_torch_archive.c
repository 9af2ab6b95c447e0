/* torch files through tensors.h: the workshop's two models, files recorded from torch, and archives built here
 * whose pickle or storages lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/model/tensors.h"
#include "core/model/torch_archive.h"
#include "tests/unit/zip_builder.h"

#define VECTORS "tests/vectors/tensor_files/"

/* ---- helpers ---- */

static const char *data_path(const char *name, char out[512]) {
  const char *root = getenv("STEERD_DATA");
  snprintf(out, 512, "%s/%s", root ? root : "../shared/data", name);
  if (access(out, R_OK) == 0) return out;
  printf("skip: %s (set STEERD_DATA)\n", name);
  return NULL;
}

static float value_at(const struct tensor *tensor, size_t i) { return dtype_f32_at(tensor->data, tensor->dtype, i); }

/* Element [i, j] by the strides. */
static float cell(const struct tensor *tensor, int64_t i, int64_t j) {
  return value_at(tensor, (size_t)(i * tensor->stride[0] + j * tensor->stride[1]));
}

static const struct tensor *must_find(const struct tensors *tensors, const char *name) {
  const struct tensor *tensor = tensors_find(tensors, name);
  if (!tensor) fail_msg("tensor '%s' is missing", name);
  return tensor;
}

static struct tensors *must_open(const char *path) {
  struct error error = ERROR_INIT;
  struct tensors *tensors = tensors_open(path, &error);
  if (!tensors) fail_msg("%s", error.text);
  assert_string_equal(tensors_format(tensors), "torch");
  return tensors;
}

static void assert_open_refused(const char *path, const char *part) {
  struct error error = ERROR_INIT;
  assert_null(tensors_open(path, &error));
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  assert_non_null(strstr(error.text, path));
}

static void check_ends(const struct tensors *tensors, const char *name, const char *shape, float first, float second,
                       float last) {
  const struct tensor *tensor = must_find(tensors, name);
  char text[128];
  assert_string_equal(tensor_describe(tensor, text), shape);
  assert_true(tensor_is_contiguous(tensor));
  assert_true(value_at(tensor, 0) == first && value_at(tensor, 1) == second);
  assert_true(value_at(tensor, tensor->bytes / 4 - 1) == last);
}

/* ---- files that torch wrote ---- */

/* Values printed by torch.load with nine digits, which is all of an f32. */
static void test_villes_model(void **state) {
  (void)state;
  char path[512];
  if (!data_path("models/villes/model_32__4_heads__1_layers.pth", path)) skip();
  struct tensors *tensors = must_open(path);
  assert_int_equal(tensors_count(tensors), 13);
  assert_string_equal(tensors_at(tensors, 1)->name, "core.PE.weight");
  check_ends(tensors, "embedding.weight", "[46, 32] F32", 0.359223932f, -0.362728268f, -0.134167209f);
  check_ends(tensors, "core.layers.0.mlp.fc_2.weight", "[32, 128] F32", -0.006846081f, -0.0458984189f,
             -0.00479885517f);
  check_ends(tensors, "out_norm.weight", "[32] F32", 1.93691301f, 1.96676576f, 1.92496157f);
  const struct tensor *head = must_find(tensors, "lm_head.weight"); /* tied */
  assert_ptr_equal(head->data, must_find(tensors, "embedding.weight")->data);
  tensors_close(tensors);
}

static void test_villes_dictionary(void **state) {
  (void)state;
  char path[512];
  if (!data_path("models/villes/sae_model_32__4_heads__1_layers.pth", path)) skip();
  struct tensors *tensors = must_open(path);
  assert_int_equal(tensors_count(tensors), 4);
  check_ends(tensors, "W_enc", "[32, 128] F32", -0.148260802f, 0.00165467581f, -0.0229189396f);
  check_ends(tensors, "b_enc", "[128] F32", -0.112032898f, -0.179584116f, -0.1864568f);
  check_ends(tensors, "W_dec", "[128, 32] F32", -0.249195114f, -0.147270188f, -0.0432671532f);
  check_ends(tensors, "b_dec", "[32] F32", 0.217718184f, 0.0547847115f, 0.220080093f);
  tensors_close(tensors);
}

static void check_types(const struct tensors *tensors) {
  static const struct {
    const char *name;
    enum dtype dtype;
    float first, second;
  } types[] = {{"types.f16", DTYPE_F16, 1.5f, -2}, {"types.bf16", DTYPE_BF16, 1.5f, -2},
               {"types.f64", DTYPE_F64, 1.5f, -2}, {"types.i8", DTYPE_I8, 3, -4},
               {"types.u8", DTYPE_U8, 3, 250},     {"types.i16", DTYPE_I16, 3, -4},
               {"types.i32", DTYPE_I32, 3, -4},    {"types.i64", DTYPE_I64, 3, -4},
               {"types.bool", DTYPE_BOOL, 1, 0}};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    const struct tensor *tensor = must_find(tensors, types[i].name);
    assert_int_equal(tensor->dtype, types[i].dtype);
    assert_true(value_at(tensor, 0) == types[i].first && value_at(tensor, 1) == types[i].second);
  }
}

static void check_mixed(const char *path) {
  struct tensors *tensors = must_open(path);
  assert_int_equal(tensors_count(tensors), 19); /* the numbers, strings and flags are left out */
  check_types(tensors);
  const struct tensor *transposed = must_find(tensors, "state_dict.transposed");
  assert_false(tensor_is_contiguous(transposed));
  assert_int_equal(transposed->bytes, 24);
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 2; j++) assert_true(cell(transposed, i, j) == (float)(3 * j + i));
  const struct tensor *slice = must_find(tensors, "state_dict.slice");
  assert_false(tensor_is_contiguous(slice));
  assert_true(cell(slice, 0, 0) == 5 && cell(slice, 0, 1) == 6 && cell(slice, 1, 0) == 9 && cell(slice, 1, 1) == 10);
  assert_ptr_equal(must_find(tensors, "state_dict.tied.a")->data, must_find(tensors, "state_dict.tied.b")->data);
  assert_true(value_at(must_find(tensors, "state_dict.parameter"), 1) == 1);
  assert_true(value_at(must_find(tensors, "list.1.deep"), 0) == 7);
  assert_true(value_at(must_find(tensors, "3"), 0) == 3);
  assert_int_equal(must_find(tensors, "scalar")->n_dims, 0);
  assert_true(value_at(must_find(tensors, "scalar"), 0) == 2.5f);
  assert_int_equal(must_find(tensors, "empty")->bytes, 0);
  tensors_close(tensors);
}

static void test_recorded(void **state) {
  (void)state;
  check_mixed(VECTORS "mixed.pth");
  check_mixed(VECTORS "protocol4.pth");
  struct tensors *tensors = must_open(VECTORS "no_crc.pth");
  assert_true(value_at(must_find(tensors, "x"), 2) == 2);
  tensors_close(tensors);
}

static void test_recorded_refusals(void **state) {
  (void)state;
  assert_open_refused(VECTORS "legacy.pth", "save it again with a newer torch");
  assert_open_refused(VECTORS "expanded.pth", "tensor 'x': its strides make elements overlap");
  assert_open_refused(VECTORS "names_dtype.pth", "it names 'torch.float32'");
  assert_open_refused(VECTORS "bare.pth", "a bare tensor, expected a dict of tensors");
}

/* ---- archives built here ---- */

/* Reads an exact copy, and touches the first and last element of every tensor that was accepted. */
static int read_archive(const void *data, size_t size, size_t *count, struct error *error) {
  unsigned char *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  struct mapfile file = {copy, size};
  struct tensor_list list;
  tensor_list_init(&list);
  int rc = torch_archive_read("f.pth", &file, &list, error);
  if (rc == 0) rc = tensor_list_index(&list, error);
  for (size_t i = 0; rc == 0 && i < list.count; i++) {
    const struct tensor *tensor = &list.items[i];
    size_t last = 0;
    if (tensor->bytes == 0) continue;
    for (int d = 0; d < tensor->n_dims; d++) last += (size_t)((tensor->shape[d] - 1) * tensor->stride[d]);
    assert_true(tensor->data >= copy);
    assert_true((size_t)(tensor->data - copy) + (last + 1) * dtype_size(tensor->dtype) <= size);
  }
  if (count) *count = list.count;
  tensor_list_clear(&list);
  free(copy);
  return rc;
}

static int read_pickle(const void *pickle, size_t size, size_t *count, struct error *error) {
  static const float storage[4] = {0, 1, 2, 3};
  struct zip_part parts[] = {{.name = "r/data.pkl", .data = pickle, .size = size},
                             {.name = "r/byteorder", .data = "little", .size = 6},
                             {.name = "r/data/0", .data = storage, .size = sizeof storage}};
  struct buffer out;
  buffer_init(&out, 0);
  zip_build(&out, parts, 3);
  int rc = read_archive(out.data, out.length, count, error);
  buffer_clear(&out);
  return rc;
}

static void assert_pickle_refused(const void *pickle, size_t size, const char *part) {
  struct error error = ERROR_INIT;
  if (read_pickle(pickle, size, NULL, &error) == 0) fail_msg("accepted, expected '%s'", part);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  assert_memory_equal(error.text, "'f.pth': ", 9);
}

/* {"w": a view of storage 0}; every number is eight bytes of LONG1. */
struct view {
  const char *class, *key;
  int64_t numel, offset, size[2], stride[2];
};
static const struct view good = {"FloatStorage", "0", 4, 0, {2, 2}, {2, 1}};

static void put_long(struct buffer *out, int64_t value) {
  buffer_append(out, "\x8A\10", 2);
  zip_put(out, (uint64_t)value, 8);
}

static void put_text(struct buffer *out, const char *text) {
  buffer_char(out, 'X');
  zip_put(out, strlen(text), 4);
  buffer_text(out, text);
}

static void put_view(struct buffer *out, const struct view *view) {
  buffer_text(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
  put_text(out, "storage");
  buffer_printf(out, "ctorch\n%s\n", view->class);
  put_text(out, view->key);
  put_text(out, "cpu");
  put_long(out, view->numel);
  buffer_text(out, "tQ");
  put_long(out, view->offset);
  for (int i = 0; i < 2; i++) {
    put_long(out, i ? view->stride[0] : view->size[0]);
    put_long(out, i ? view->stride[1] : view->size[1]);
    buffer_text(out, "\x86");
  }
  buffer_text(out, "\x89NtR");
}

static int read_view(const struct view *view, struct error *error) {
  struct buffer out;
  buffer_init(&out, 0);
  buffer_text(&out, "\x80\2}");
  put_text(&out, "w");
  put_view(&out, view);
  buffer_text(&out, "s.");
  int rc = read_pickle(out.data, out.length, NULL, error);
  buffer_clear(&out);
  return rc;
}

static void assert_view(struct view view, const char *part) {
  struct error error = ERROR_INIT;
  int rc = read_view(&view, &error);
  if (!part && rc != 0) fail_msg("%s", error.text);
  if (!part) return;
  if (rc == 0) fail_msg("accepted, expected '%s'", part);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  assert_non_null(strstr(error.text, "'f.pth': tensor 'w': "));
}

#define VIEW(...) (struct view){"FloatStorage", "0", __VA_ARGS__}

static void test_views(void **state) {
  (void)state;
  assert_view(good, NULL);
  assert_view(VIEW(4, 0, {2, 2}, {1, 2}), NULL);      /* transposed */
  assert_view(VIEW(4, 3, {1, 1}, {99, 99}), NULL);    /* strides that are never walked */
  assert_view(VIEW(4, 4, {0, 3}, {3, 1}), NULL);      /* empty at the end */
  assert_view(VIEW(4, 1, {2, 2}, {2, 1}), "it reaches over 4 elements from offset 1, its storage has 4");
  assert_view(VIEW(4, 0, {2, 2}, {3, 1}), "it reaches over 5 elements");
  assert_view(VIEW(4, 5, {0, 3}, {3, 1}), "it reaches over 0 elements from offset 5");
  assert_view(VIEW(4, -1, {2, 2}, {2, 1}), "from offset -1");
  assert_view(VIEW(4, 0, {-2, 2}, {2, 1}), "its size[0] is not an integer of 0 or more");
  assert_view(VIEW(4, 0, {2, 2}, {-2, 1}), "its stride[0] is not an integer of 0 or more");
  assert_view(VIEW(4, 0, {1000000, 4}, {0, 1}), "elements overlap (dimension 0, stride 0)");
  assert_view(VIEW(4, 0, {2, 2}, {1, 1}), "elements overlap");
  assert_view(VIEW(4, 0, {2, 3}, {2, 1}), "elements overlap");
  assert_view(VIEW(3, 0, {1, 1}, {1, 1}), "claims 3 elements of F32, 'r/data/0' has 16 bytes");
  assert_view(VIEW(-4, 0, {1, 1}, {1, 1}), "claims -4 elements");
  assert_view(VIEW(INT64_MAX, 0, {1, 1}, {1, 1}), "claims 9223372036854775807");
  assert_view((struct view){"HalfStorage", "0", 4, 0, {1, 1}, {1, 1}}, "claims 4 elements of F16");
  assert_view((struct view){"FloatStorage", "1", 4, 0, {1, 1}, {1, 1}}, "its storage 'data/1' is not in the file");
  assert_view((struct view){"FloatStorage", "../data.pkl", 4, 0, {1, 1}, {1, 1}}, "is not in the file");
}

/* The numbers at which size arithmetic goes wrong, in every combination of offset, sizes and strides. Accepted
 * is only what lies inside four floats, as read_archive checks by itself. */
static void test_boundaries(void **state) {
  (void)state;
  static const int64_t values[] = {0, 1, INT32_MAX, 1ll << 31, 1ll << 32, (1ll << 42) + 1, INT64_MIN, -1};
  for (int i = 0; i < 8 * 8 * 8 * 8 * 8; i++) {
    struct error error = ERROR_INIT;
    struct view view = VIEW(4, values[i & 7], {values[i >> 3 & 7], values[i >> 6 & 7]},
                            {values[i >> 9 & 7], values[i >> 12]});
    if (read_view(&view, &error) == 0) {
      assert_true(view.offset <= 4 && view.size[0] * view.size[1] <= 4);
    } else {
      assert_int_equal(error.code, ERROR_FORMAT);
      assert_non_null(strstr(error.text, "'f.pth': tensor 'w': "));
    }
  }
}

#define REFUSE(body, part) assert_pickle_refused("\x80\2" body, sizeof("\x80\2" body) - 1, part)

static void test_pickles(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  size_t count = 1;
  assert_int_equal(read_pickle("\x80\2}.", 4, &count, &error), 0);
  assert_int_equal(count, 0);
  REFUSE("cos\nsystem\nX\2\0\0\0id\x85R.", "it names 'os.system'");
  REFUSE("].", "the pickle holds a list, expected a dict");
  REFUSE("}(NK\1u.", "is None, expected a string or an integer");
  REFUSE("}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n)Rs.", "tensor 'a': it is rebuilt from 0 arguments");
  REFUSE("}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtRs.", "its storage is not given as");
  REFUSE("}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(K\1QK\0))\x89NtRs.", "its storage is not given as");
  REFUSE("}X\1\0\0\0actorch._utils\n_rebuild_parameter\n)Rs.", "parameter 'a' is rebuilt from nothing");
  REFUSE("}X\1\0\0\0actorch\nFloatStorage\n)Rs.", "may be named but not called");
  REFUSE("}X\3\0\0\0a\0bK\1s.", "NUL");
  REFUSE("}q\0X\1\0\0\0ah\0s.", "'a.a.a.a.a.a.a.a' nests deeper than 8 levels"); /* a dict in itself */
  REFUSE("}X\1\0\0\0aK\1", "has no end");
}

/* Two names that flatten to one. */
static void test_twice(void **state) {
  (void)state;
  struct buffer out;
  struct error error = ERROR_INIT;
  buffer_init(&out, 0);
  buffer_text(&out, "\x80\2}");
  put_text(&out, "a.b");
  put_view(&out, &good);
  buffer_char(&out, 's');
  put_text(&out, "a");
  buffer_char(&out, '}');
  put_text(&out, "b");
  put_view(&out, &good);
  buffer_text(&out, "ss.");
  assert_int_equal(read_pickle(out.data, out.length, NULL, &error), -1);
  assert_non_null(strstr(error.text, "tensor 'a.b' stands twice"));
  buffer_clear(&out);
}

/* Seven dicts, each holding the one before it under ten names: a million tensors from a kilobyte. */
static void test_multiplied(void **state) {
  (void)state;
  struct buffer out;
  struct error error = ERROR_INIT;
  buffer_init(&out, 0);
  buffer_text(&out, "\x80\2}(");
  put_text(&out, "leaf");
  buffer_text(&out, "}q");
  buffer_char(&out, 0);
  put_text(&out, "w");
  put_view(&out, &good);
  buffer_char(&out, 's');
  for (int level = 1; level <= 6; level++) {
    char name[2] = {(char)('a' + level), 0};
    put_text(&out, name);
    buffer_printf(&out, "}q%c(", level);
    for (char digit = '0'; digit <= '9'; digit++) {
      char text[2] = {digit, 0};
      put_text(&out, text);
      buffer_char(&out, 'h');
      buffer_char(&out, (char)(level - 1));
    }
    buffer_char(&out, 'u');
  }
  buffer_text(&out, "u.");
  assert_int_equal(read_pickle(out.data, out.length, NULL, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_non_null(strstr(error.text, "more tensors than a pickle of"));
  buffer_clear(&out);
}

static void assert_members_refused(const struct zip_part *parts, size_t n, const char *part) {
  struct buffer out;
  struct error error = ERROR_INIT;
  buffer_init(&out, 0);
  zip_build(&out, parts, n);
  assert_int_equal(read_archive(out.data, out.length, NULL, &error), -1);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  buffer_clear(&out);
}

static void test_members(void **state) {
  (void)state;
  struct zip_part big[] = {{.name = "r/data.pkl", .data = "\x80\2}.", .size = 4},
                           {.name = "r/byteorder", .data = "big", .size = 3}};
  assert_members_refused(big, 2, "its byteorder is 'big', expected 'little'");
  struct zip_part two[] = {{.name = "r/data.pkl", .data = "\x80\2}.", .size = 4},
                           {.name = "s/data.pkl", .data = "\x80\2}.", .size = 4}};
  assert_members_refused(two, 2, "two files named data.pkl");
  struct zip_part deep = {.name = "r/s/data.pkl", .data = "\x80\2}.", .size = 4};
  assert_members_refused(&deep, 1, "no member ends in");
  struct zip_part packed = {.name = "r/data.pkl", .data = "\x80\2}.", .size = 4, .method = 8};
  assert_members_refused(&packed, 1, "is compressed");
  assert_members_refused(NULL, 0, "no member ends in");
}

/* Every byte of a real file, changed in four ways: refused with a text, or read without leaving the file (which
 * read_archive and the sanitizers check). */
static void test_mutations(void **state) {
  (void)state;
  struct mapfile file;
  struct error open_error = ERROR_INIT;
  assert_int_equal(mapfile_open(VECTORS "no_crc.pth", &file, &open_error), 0);
  unsigned char *copy = malloc(file.size);
  assert_non_null(copy);
  memcpy(copy, file.data, file.size);
  for (size_t i = 0; i < file.size; i++) {
    const unsigned char changes[] = {0x00, 0xFF, (unsigned char)(copy[i] ^ 1), (unsigned char)(copy[i] + 0x80)};
    for (size_t k = 0; k < sizeof changes; k++) {
      struct error error = ERROR_INIT;
      unsigned char old = copy[i];
      copy[i] = changes[k];
      if (read_archive(copy, file.size, NULL, &error) != 0) assert_true(error.code && error.text[0]);
      copy[i] = old;
    }
  }
  struct error disks = ERROR_INIT; /* the zip64 locator's number of disks, right before the end record */
  copy[file.size - 22 - 4] = 2;
  assert_int_equal(read_archive(copy, file.size, NULL, &disks), -1);
  assert_non_null(strstr(disks.text, "several disks"));
  for (size_t size = 0; size < file.size; size++) {
    struct error error = ERROR_INIT;
    assert_int_equal(read_archive(copy, size, NULL, &error), -1);
  }
  free(copy);
  mapfile_close(&file);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_villes_model), cmocka_unit_test(test_villes_dictionary),
      cmocka_unit_test(test_recorded),     cmocka_unit_test(test_recorded_refusals),
      cmocka_unit_test(test_views),        cmocka_unit_test(test_boundaries),
      cmocka_unit_test(test_pickles),      cmocka_unit_test(test_twice),
      cmocka_unit_test(test_multiplied),   cmocka_unit_test(test_members),
      cmocka_unit_test(test_mutations),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
