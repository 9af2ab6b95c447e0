/* numpy arrays through tensors.h: files that numpy wrote, stored and compressed, and hostile ones built here. Hostile
 * bytes are read from allocations of exactly their size, so that the sanitizer build sees a read past the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/model/npy.h"
#include "core/model/npz.h"
#include "core/model/tensors.h"
#include "tests/unit/zip_builder.h"

#define VECTORS "tests/vectors/tensor_files/"

/* ---- helpers ---- */

static float value_at(const struct tensor *tensor, size_t i) { return dtype_f32_at(tensor->data, tensor->dtype, i); }

static struct tensors *must_open(const char *path, const char *format) {
  struct error error = ERROR_INIT;
  struct tensors *tensors = tensors_open(path, &error);
  if (!tensors) fail_msg("%s", error.text);
  assert_string_equal(tensors_format(tensors), format);
  return tensors;
}

static const struct tensor *must_find(const struct tensors *tensors, const char *name) {
  const struct tensor *tensor = tensors_find(tensors, name);
  if (!tensor) fail_msg("tensor '%s' is missing", name);
  return tensor;
}

static void assert_contains(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' does not contain '%s'", text, part);
}

/* version, text length and text of an array; the elements follow it. */
static void put_header(struct buffer *out, const char *text) {
  buffer_append(out, "\x93NUMPY\1\0", 8);
  zip_put(out, strlen(text), 2);
  buffer_text(out, text);
}

static void put_zeroes(struct buffer *out, size_t n) {
  for (size_t i = 0; i < n; i++) buffer_char(out, 0);
}

/* Reads an exact copy, then unpacks what is compressed. 0 or -1; the error goes to *error. */
static int read_bytes(const void *data, size_t size, struct error *error) {
  unsigned char *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  struct mapfile file = {copy, size};
  struct tensor_list list;
  struct npz_packed_list packed = {NULL, 0};
  tensor_list_init(&list);
  int rc = npz_read("f.npz", &file, &list, &packed, error);
  for (size_t i = 0; rc == 0 && i < packed.count; i++)
    rc = npz_unpack(&packed.items[i], list.items[packed.items[i].tensor].bytes, error);
  npz_clear(&packed);
  tensor_list_clear(&list);
  free(copy);
  return rc;
}

static int read_parts(const struct zip_part *parts, size_t n, struct error *error) {
  struct buffer out;
  buffer_init(&out, 0);
  zip_build(&out, parts, n);
  int rc = read_bytes(out.data, out.length, error);
  buffer_clear(&out);
  return rc;
}

/* One stored array with this header text and so many bytes behind it. */
static int read_header(const char *text, size_t data_bytes, struct error *error) {
  struct buffer array;
  buffer_init(&array, 0);
  put_header(&array, text);
  put_zeroes(&array, data_bytes);
  struct zip_part part = {.name = "a.npy", .data = array.data, .size = array.length};
  int rc = read_parts(&part, 1, error);
  buffer_clear(&array);
  return rc;
}

static void assert_refused(const char *text, size_t data_bytes, const char *part) {
  struct error error = ERROR_INIT;
  if (read_header(text, data_bytes, &error) == 0) fail_msg("accepted: %s", text);
  assert_contains(error.text, part);
  assert_contains(error.text, "'f.npz': array 'a.npy': ");
}

static void assert_accepted(const char *text, size_t data_bytes) {
  struct error error = ERROR_INIT;
  if (read_header(text, data_bytes, &error) != 0) fail_msg("%s: %s", text, error.text);
}

/* A raw deflate stream of data, freed by the caller. */
static unsigned char *deflated(const void *data, size_t size, size_t *packed) {
  z_stream stream;
  memset(&stream, 0, sizeof stream);
  assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY), Z_OK);
  size_t room = deflateBound(&stream, size);
  unsigned char *out = malloc(room);
  assert_non_null(out);
  stream.next_in = (unsigned char *)(uintptr_t)data;
  stream.avail_in = (uInt)size;
  stream.next_out = out;
  stream.avail_out = (uInt)room;
  assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
  *packed = room - stream.avail_out;
  deflateEnd(&stream);
  return out;
}

/* ---- what must load ---- */

static void check_kinds(const struct tensors *tensors) {
  static const struct {
    const char *name;
    enum dtype dtype;
  } kinds[] = {{"float64", DTYPE_F64}, {"float32", DTYPE_F32}, {"float16", DTYPE_F16}, {"int64", DTYPE_I64},
               {"int32", DTYPE_I32},   {"int16", DTYPE_I16},   {"int8", DTYPE_I8},     {"uint64", DTYPE_U64},
               {"uint32", DTYPE_U32},  {"uint16", DTYPE_U16},  {"uint8", DTYPE_U8},    {"bool", DTYPE_BOOL}};
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    const struct tensor *tensor = must_find(tensors, kinds[i].name);
    assert_int_equal(tensor->dtype, kinds[i].dtype);
    assert_true(tensor->n_dims == 1 && tensor->shape[0] == 2);
    assert_true(value_at(tensor, 0) == 0.0f && value_at(tensor, 1) == 1.0f);
  }
  const struct tensor *bf16 = must_find(tensors, "bf16");
  assert_true(bf16->dtype == DTYPE_BF16 && value_at(bf16, 0) == 1.5f && value_at(bf16, 1) == -2.0f);
  assert_int_equal(must_find(tensors, "text")->dtype, DTYPE_OTHER);
  assert_int_equal(must_find(tensors, "text")->bytes, 16); /* four characters of four bytes */
  assert_int_equal(must_find(tensors, "complex")->bytes, 16);
  assert_int_equal(tensors_count(tensors), 20);
}

static void check_shapes(const struct tensors *tensors) {
  const struct tensor *rows = must_find(tensors, "rows"), *columns = must_find(tensors, "columns");
  assert_true(tensor_is_contiguous(rows) && !tensor_is_contiguous(columns));
  for (int64_t i = 0; i < 2; i++)
    for (int64_t j = 0; j < 3; j++) {
      float want = (float)(3 * i + j);
      assert_true(value_at(rows, (size_t)(i * rows->stride[0] + j * rows->stride[1])) == want);
      assert_true(value_at(columns, (size_t)(i * columns->stride[0] + j * columns->stride[1])) == want);
    }
  assert_true(must_find(tensors, "scalar")->n_dims == 0 && value_at(must_find(tensors, "scalar"), 0) == 2.5f);
  assert_int_equal(must_find(tensors, "empty")->bytes, 0);
  const struct tensor *deep = must_find(tensors, "deep/W_enc");
  assert_true(value_at(deep, 0) == 0.0f && value_at(deep, 4999) == 4999.0f);
}

static void test_stored(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "arrays.npz", "npz");
  check_kinds(tensors);
  check_shapes(tensors);
  struct error error = ERROR_INIT;
  assert_int_equal(tensors_load(tensors, must_find(tensors, "rows"), &error), 0); /* nothing to do */
  tensors_close(tensors);
}

static void test_compressed(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "arrays_compressed.npz", "npz");
  check_kinds(tensors);
  check_shapes(tensors);
  tensors_close(tensors);
}

static void test_lazy(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct tensors *tensors = tensors_open_lazy(VECTORS "arrays_compressed.npz", &error);
  assert_non_null(tensors);
  const struct tensor *rows = must_find(tensors, "rows");
  size_t before = tensors_bytes(tensors);
  assert_null(rows->data);
  assert_int_equal(tensors_load(tensors, rows, &error), 0);
  assert_int_equal(tensors_load(tensors, rows, &error), 0);
  assert_true(value_at(rows, 5) == 5.0f);
  assert_int_equal(tensors_bytes(tensors), before + 24); /* 6 elements of 4 bytes, the others not */
  assert_null(must_find(tensors, "columns")->data);
  tensors_close(tensors);
}

/* numpy.savez writes the sizes of small members into zip64 fields of the local headers only. */
static void test_savez_zip64(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "savez.npz", "npz");
  assert_true(value_at(must_find(tensors, "a"), 2) == 2.0f);
  tensors_close(tensors);
}

static void test_bare_array(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "vector.npy", "npy");
  assert_int_equal(tensors_count(tensors), 1);
  assert_true(value_at(must_find(tensors, "array"), 3) == 3.0f);
  tensors_close(tensors);
}

static void test_headers_that_load(void **state) {
  (void)state;
  assert_accepted("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }    \n", 24);
  assert_accepted("{\"shape\":(5,),\"descr\":\"|u1\",\"fortran_order\":True}", 5);
  assert_accepted("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L)}", 24); /* Python 2 */
  assert_accepted("{'descr': '<M8[ns]', 'fortran_order': False, 'shape': ()}", 8);
  assert_accepted("{'descr': '>i1', 'fortran_order': False, 'shape': (0, 99)}", 0);
}

static void test_other_members_are_left_out(void **state) {
  (void)state;
  struct buffer array;
  struct error error = ERROR_INIT;
  buffer_init(&array, 0);
  put_header(&array, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}");
  put_zeroes(&array, 4);
  struct zip_part parts[] = {{.name = "a.npy", .data = array.data, .size = array.length},
                             {.name = "readme.txt", .data = "x", .size = 1},
                             {.name = ".npy", .data = "x", .size = 1}};
  if (read_parts(parts, 3, &error) != 0) fail_msg("%s", error.text);
  buffer_clear(&array);
}

/* ---- what must not ---- */

static void test_files_refused(void **state) {
  (void)state;
  static const struct {
    const char *path, *part;
  } files[] = {{VECTORS "objects.npz", "array 'o.npy': its elements are Python objects"},
               {VECTORS "big_endian.npz", "array 'b.npy': its elements '>f4' are big endian; save them as '<f4'"},
               {VECTORS "records.npz", "array 'r.npy': its elements are records"}};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    struct error error = ERROR_INIT;
    assert_null(tensors_open(files[i].path, &error));
    assert_contains(error.text, files[i].part);
    assert_contains(error.text, files[i].path);
  }
}

static void test_header_text_refused(void **state) {
  (void)state;
  assert_refused("{'descr': '<f4', 'fortran_order': False}", 4, "lacks one of");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'shape': (1,)}", 4, "'shape' twice");
  assert_refused("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}", 4, "neither True nor False");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1)}", 4, "expected ','");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}", 4, "not a tuple of whole numbers");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,)}", 4, "expected ','");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': [1]}", 4, "expected '('");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", 4, "has 'more'");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} + x", 4, "goes on behind the dict");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)", 4, "expected ','");
  assert_refused("{'descr': '<f\\x34', 'fortran_order': False, 'shape': (1,)}", 4, "not plain ASCII");
  assert_refused("{'descr': 'f4', 'fortran_order': False, 'shape': (1,)}", 4, "not one that numpy writes");
  assert_refused("{'descr': '<q4', 'fortran_order': False, 'shape': (1,)}", 4, "not one that numpy writes");
  assert_refused("{'descr': '<f', 'fortran_order': False, 'shape': (1,)}", 4, "not one that numpy writes");
  assert_refused("{'descr': '', 'fortran_order': False, 'shape': (1,)}", 4, "not one that numpy writes");
  assert_refused("{'descr': '|V99999999999', 'fortran_order': False, 'shape': ()}", 4, "not one that numpy writes");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", 4, "more than 8 dimensions");
  assert_refused("", 4, "expected '{'");
}

static void test_sizes_refused(void **state) {
  (void)state;
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 4, "need 8 bytes, 4 stand behind");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", 9, "need 8 bytes, 9 stand behind");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}", 4, "need 4000000000000 bytes");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808,)}", 4, "not below 2^63");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}", 4, "overflows");
  assert_refused("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4294967296, 4294967296)}", 0, "overflows");
  assert_refused("{'descr': '<f4', 'fortran_order': True, 'shape': (4611686018427387904,)}", 0, "overflows");
}

static void test_front_refused(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    size_t size;
    const char *part;
  } fronts[] = {{"", 0, "does not begin as a numpy array"},
                {"\x93NUMPX\1\0\0\0", 10, "does not begin as a numpy array"},
                {"\x93NUMPY\1\0\0", 9, "does not begin as a numpy array"},
                {"\x93NUMPY\4\0\0\0", 10, "version 4.0"},
                {"\x93NUMPY\1\1\0\0", 10, "version 1.1"},
                {"\x93NUMPY\2\0\0\0\0", 11, "cut short"},
                {"\x93NUMPY\1\0\5\0{}", 12, "claims 5 bytes, 2 are there"},
                {"\x93NUMPY\2\0\xff\xff\xff\x7f{}", 14, "claims 2147483647 bytes, at most 16000"}};
  for (size_t i = 0; i < sizeof fronts / sizeof fronts[0]; i++) {
    struct error error = ERROR_INIT;
    struct zip_part part = {.name = "a.npy", .data = fronts[i].bytes, .size = fronts[i].size};
    assert_int_not_equal(read_parts(&part, 1, &error), 0);
    assert_contains(error.text, fronts[i].part);
  }
}

/* ---- compressed members that lie ---- */

/* An array of `n` zeroes, compressed; `claim` replaces its unpacked size when not 0. */
static int read_zeroes(size_t n, uint32_t claim, size_t cut, struct error *error) {
  struct buffer array;
  size_t packed;
  char text[96];
  buffer_init(&array, 0);
  snprintf(text, sizeof text, "{'descr': '|u1', 'fortran_order': False, 'shape': (%zu,)}", n);
  put_header(&array, text);
  put_zeroes(&array, n);
  unsigned char *stream = deflated(array.data, array.length, &packed);
  struct zip_part part = {.name = "a.npy", .data = stream, .size = packed - cut, .method = 8,
                          .unpacked_size = claim ? claim : (uint32_t)array.length,
                          .crc = (uint32_t)crc32(0, (const unsigned char *)array.data, (uInt)array.length)};
  int rc = read_parts(&part, 1, error);
  buffer_clear(&array);
  free(stream);
  return rc;
}

static void assert_zeroes_refused(size_t n, uint32_t claim, size_t cut, const char *part) {
  struct error error = ERROR_INIT;
  assert_int_not_equal(read_zeroes(n, claim, cut, &error), 0);
  assert_contains(error.text, part);
}

static void test_compressed_lies(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  if (read_zeroes(1000, 0, 0, &error) != 0) fail_msg("%s", error.text);
  if (read_zeroes(0, 0, 0, &error) != 0) fail_msg("%s", error.text);
  assert_zeroes_refused(1000, 2000, 0, "need 1000 bytes");
  assert_zeroes_refused(1000, 4000000000u, 0, "more than deflate can hold");
  assert_zeroes_refused(100000, 0, 3, "damaged");
}

/* The elements are there, the checksum is of others. */
static void test_checksum(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct buffer array;
  size_t packed;
  buffer_init(&array, 0);
  put_header(&array, "{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}");
  buffer_append(&array, "abcd", 4);
  unsigned char *stream = deflated(array.data, array.length, &packed);
  struct zip_part part = {.name = "a.npy", .data = stream, .size = packed, .method = 8,
                          .unpacked_size = (uint32_t)array.length, .crc = 1};
  assert_int_not_equal(read_parts(&part, 1, &error), 0);
  assert_contains(error.text, "its CRC-32 is");
  buffer_clear(&array);
  free(stream);
}

/* 80 MB of zeroes in 80 KB are more than 64 MiB and more than a hundred times the file: refused before a byte of
 * them is unpacked. 60 MB are let through: what is allocated stays in proportion. */
static void test_bomb(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  assert_zeroes_refused(80000000, 0, 0, "save it uncompressed (numpy.savez)");
  if (read_zeroes(60000000, 0, 0, &error) != 0) fail_msg("%s", error.text);
}

static void test_archive_errors_name_the_file(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  assert_int_not_equal(read_bytes("PK\3\4", 4, &error), 0);
  assert_contains(error.text, "'f.npz': no end record");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_stored),
      cmocka_unit_test(test_compressed),
      cmocka_unit_test(test_lazy),
      cmocka_unit_test(test_savez_zip64),
      cmocka_unit_test(test_bare_array),
      cmocka_unit_test(test_headers_that_load),
      cmocka_unit_test(test_other_members_are_left_out),
      cmocka_unit_test(test_files_refused),
      cmocka_unit_test(test_header_text_refused),
      cmocka_unit_test(test_sizes_refused),
      cmocka_unit_test(test_front_refused),
      cmocka_unit_test(test_compressed_lies),
      cmocka_unit_test(test_checksum),
      cmocka_unit_test(test_bomb),
      cmocka_unit_test(test_archive_errors_name_the_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
