/* tensors.h over safetensors files and sharded sets: real files, recorded ones, and hostile ones built here.
 * Hostile bytes are read from allocations of exactly their size, so that the sanitizer build sees a read past
 * the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/buffer.h"
#include "core/model/safetensors.h"
#include "core/model/tensors.h"

#define VECTORS "tests/vectors/tensor_files/"

/* One entry of a header. */
#define TENSOR(name, type, shape, offsets) \
  "\"" name "\":{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* ---- helpers ---- */

static const char *data_path(const char *name, char out[512]) {
  const char *root = getenv("STEERD_DATA");
  snprintf(out, 512, "%s/%s", root ? root : "../shared/data", name);
  if (access(out, R_OK) == 0) return out;
  printf("skip: %s (set STEERD_DATA)\n", name);
  return NULL;
}

static float value_at(const struct tensor *tensor, size_t i) { return dtype_f32_at(tensor->data, tensor->dtype, i); }

static const struct tensor *must_find(const struct tensors *tensors, const char *name) {
  const struct tensor *tensor = tensors_find(tensors, name);
  if (!tensor) fail_msg("tensor '%s' is missing", name);
  return tensor;
}

static struct tensors *must_open(const char *path) {
  struct error error = ERROR_INIT;
  struct tensors *tensors = tensors_open(path, &error);
  if (!tensors) fail_msg("%s", error.text);
  return tensors;
}

static void assert_contains(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' does not contain '%s'", text, part);
}

/* Appends 8 + header + `data_bytes` zeroes; `claim` is the length written in front. */
static void build(struct buffer *out, uint64_t claim, const char *header, size_t data_bytes) {
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)(claim >> 8 * i);
  buffer_append(out, length, 8);
  buffer_text(out, header);
  for (size_t i = 0; i < data_bytes; i++) buffer_char(out, 0);
}

/* Reads an exact copy. 0 or -1; the error goes to *error. */
static int read_bytes(const void *data, size_t size, size_t *count, struct error *error) {
  unsigned char *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  struct mapfile file = {copy, size};
  struct tensor_list list;
  tensor_list_init(&list);
  int rc = safetensors_read("f.st", &file, &list, error);
  if (rc == 0) rc = tensor_list_index(&list, error);
  if (count) *count = list.count;
  tensor_list_clear(&list);
  free(copy);
  return rc;
}

static int read_header(const char *header, size_t data_bytes, struct error *error) {
  struct buffer out;
  buffer_init(&out, 0);
  build(&out, strlen(header), header, data_bytes);
  int rc = read_bytes(out.data, out.length, NULL, error);
  buffer_clear(&out);
  return rc;
}

static void assert_refused(const char *header, size_t data_bytes, const char *part) {
  struct error error = ERROR_INIT;
  if (read_header(header, data_bytes, &error) == 0) fail_msg("accepted: %s", header);
  assert_true(error.code == ERROR_FORMAT || error.code == ERROR_LIMIT);
  assert_contains(error.text, part);
}

static void assert_accepted(const char *header, size_t data_bytes) {
  struct error error = ERROR_INIT;
  if (read_header(header, data_bytes, &error) != 0) fail_msg("%s: %s", header, error.text);
}

/* ---- what must load ---- */

static void test_kinds(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "kinds.safetensors");
  static const struct {
    const char *name;
    enum dtype dtype;
  } kinds[] = {{"float64", DTYPE_F64}, {"float32", DTYPE_F32}, {"float16", DTYPE_F16}, {"int64", DTYPE_I64},
               {"int32", DTYPE_I32},   {"int16", DTYPE_I16},   {"int8", DTYPE_I8},     {"uint64", DTYPE_U64},
               {"uint32", DTYPE_U32},  {"uint16", DTYPE_U16},  {"uint8", DTYPE_U8},    {"bool", DTYPE_BOOL}};
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    const struct tensor *tensor = must_find(tensors, kinds[i].name);
    assert_int_equal(tensor->dtype, kinds[i].dtype);
    assert_int_equal(tensor->n_dims, 1);
    assert_int_equal(tensor->shape[0], 2);
    assert_int_equal(tensor->bytes, 2 * dtype_size(tensor->dtype));
    assert_true(value_at(tensor, 0) == 0.0f && value_at(tensor, 1) == 1.0f);
  }
  const struct tensor *french = must_find(tensors, "nom en fran\xC3\xA7" "ais \"x\"");
  assert_true(value_at(french, 2) == 2.0f);
  assert_int_equal(must_find(tensors, "scalar")->n_dims, 0);
  assert_true(value_at(must_find(tensors, "scalar"), 0) == 2.5f);
  assert_int_equal(must_find(tensors, "empty")->bytes, 0);
  assert_int_equal(tensors_count(tensors), 15);
  assert_null(tensors_find(tensors, "float"));
  assert_null(tensors_at(tensors, 15));
  assert_string_equal(tensors_format(tensors), "safetensors");
  assert_int_equal(tensors_bytes(tensors), 1098); /* the file's size */
  tensors_forget(tensors);
  assert_true(value_at(french, 1) == 1.0f);
  tensors_close(tensors);
  tensors_close(NULL);
}

static void test_bf16_and_other(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "bf16.safetensors");
  assert_true(value_at(must_find(tensors, "w"), 0) == 1.5f && value_at(must_find(tensors, "w"), 1) == -2.0f);
  assert_int_equal(must_find(tensors, "f8")->dtype, DTYPE_OTHER);
  assert_int_equal(must_find(tensors, "f8")->bytes, 1);
  tensors_close(tensors);
}

static void test_sharded(void **state) {
  (void)state;
  struct tensors *tensors = must_open(VECTORS "sharded");
  assert_int_equal(tensors_count(tensors), 3);
  char text[128];
  assert_string_equal(tensor_describe(must_find(tensors, "a"), text), "[2, 3] F32");
  assert_int_equal(must_find(tensors, "a")->stride[0], 3);
  assert_true(value_at(must_find(tensors, "c"), 3) == 3.0f);
  assert_string_equal(tensors_at(tensors, 2)->name, "c");
  tensors_close(tensors);
}

/* First values read with the safetensors Python package. */
static void test_real_folders(void **state) {
  (void)state;
  char path[512];
  if (!data_path("models/stories260K/hf", path)) skip();
  struct tensors *tensors = must_open(path);
  const struct tensor *embedding = must_find(tensors, "model.embed_tokens.weight");
  assert_int_equal(tensors_count(tensors), 47);
  assert_int_equal(embedding->shape[0], 512);
  assert_int_equal(embedding->shape[1], 64);
  assert_true(value_at(embedding, 0) == -0.294748783f && value_at(embedding, 32767) == -0.424032599f);
  tensors_close(tensors);
  if (!data_path("models/demo-candidate", path)) skip();
  tensors = must_open(path);
  const struct tensor *attention = must_find(tensors, "transformer.h.0.attn.c_attn.weight");
  assert_int_equal(attention->dtype, DTYPE_BF16);
  assert_int_equal(attention->shape[1], 768);
  assert_true(value_at(attention, 0) == 0.033203125f && value_at(attention, 196607) == 0.0235595703f);
  tensors_close(tensors);
}

static void test_plain_headers(void **state) {
  (void)state;
  assert_accepted("{}", 0);
  assert_accepted("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}    ", 1);
  assert_accepted("{ \"a\" : {\"shape\":[ ],\n\"data_offsets\":[0 , 4],\t\"dtype\":\"F32\"} }", 4);
  assert_accepted("{\"__metadata__\":{}," TENSOR("\\u00e9\\ud83d\\ude00\\n", "U8", "[0]", "[0,0]") "}", 0);
  /* Order in the header need not be order in the file. */
  assert_accepted("{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]},"
                  "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 2);
  /* Two 4-bit elements make a byte. */
  assert_accepted("{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1);
}

/* ---- what must not ---- */

static void test_broken_lengths(void **state) {
  (void)state;
  static const uint64_t claims[] = {0,          1,          3,           100000001,        INT32_MAX,
                                    1ull << 31, 1ull << 32, (1ull << 42) + 1, 1ull << 63, UINT64_MAX};
  for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
    struct buffer out;
    struct error error = ERROR_INIT;
    buffer_init(&out, 0);
    build(&out, claims[i], "{}", 0);
    assert_int_equal(read_bytes(out.data, out.length, NULL, &error), -1);
    assert_int_equal(error.code, ERROR_FORMAT);
    assert_contains(error.text, "'f.st'");
    if (claims[i] >= 3) assert_contains(error.text, "the header claims");
    buffer_clear(&out);
  }
  for (size_t size = 0; size < 10; size++) { /* every truncation of the smallest file */
    struct error error = ERROR_INIT;
    assert_int_equal(read_bytes("\2\0\0\0\0\0\0\0{}", size, NULL, &error), -1);
    assert_int_equal(error.code, ERROR_FORMAT);
  }
}

static void test_ranges(void **state) {
  (void)state;
  assert_refused("{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[2]", "[1,3]") "}", 3,
                 "it overlaps 'a'");
  assert_refused("{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("b", "U8", "[1]", "[2,3]") "}", 3,
                 "a gap behind 'a'");
  assert_refused("{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("b", "U8", "[1]", "[0,1]") "}", 1, "overlaps");
  assert_refused("{" TENSOR("a", "U8", "[1]", "[1,2]") "}", 2, "a gap behind 'the header'");
  assert_refused("{" TENSOR("a", "U8", "[1]", "[0,1]") "}", 2, "2 bytes of data, the tensors cover 1");
  assert_refused("{}", 1, "1 bytes of data, the tensors cover 0");
  assert_refused("{" TENSOR("a", "U8", "[2]", "[0,2]") "}", 1, "do not lie in the 1 bytes");
  assert_refused("{" TENSOR("a", "U8", "[0]", "[1,0]") "}", 1, "do not lie in");
  /* An empty tensor inside another one would be a second name for its bytes. */
  assert_refused("{" TENSOR("a", "U8", "[2]", "[0,2]") "," TENSOR("b", "U8", "[0]", "[1,1]") "}", 2, "overlaps");
  assert_refused("{" TENSOR("a", "F32", "[2]", "[0,4]") "}", 4,
                 "span 4 bytes, dtype F32 and shape need 8 (tensor 'a')");
  assert_refused("{" TENSOR("a", "F6_E2M3", "[2]", "[0,2]") "}", 2, "not whole bytes");
}

static void test_shapes(void **state) {
  (void)state;
  assert_refused("{" TENSOR("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "overflows");
  assert_refused("{" TENSOR("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 0, "overflows");
  assert_refused("{" TENSOR("a", "F64", "[4611686018427387904]", "[0,0]") "}", 0, "overflows");
  assert_refused("{" TENSOR("a", "U8", "[9223372036854775808]", "[0,0]") "}", 0, "not below 2^63");
  assert_refused("{" TENSOR("a", "U8", "[99999999999999999999]", "[0,0]") "}", 0, "not below 2^63");
  assert_refused("{" TENSOR("a", "U8", "[-1]", "[0,0]") "}", 0, "not a whole number");
  assert_refused("{" TENSOR("a", "U8", "[1e3]", "[0,1000]") "}", 1000, "not a whole number");
  assert_refused("{" TENSOR("a", "U8", "[1.0]", "[0,1]") "}", 1, "not a whole number");
  assert_refused("{" TENSOR("a", "U8", "[01]", "[0,1]") "}", 1, "not a whole number");
  assert_refused("{" TENSOR("a", "U8", "[true]", "[0,1]") "}", 1, "not a whole number");
  assert_refused("{" TENSOR("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "more than 8 dimensions");
  assert_refused("{" TENSOR("a", "U8", "[[[[[[[[[1]]]]]]]]]", "[0,1]") "}", 1, "not a whole number");
  assert_refused("{" TENSOR("a", "U8", "[1", "[0,1]") "}", 1, "not a whole number");
}

static void test_headers(void **state) {
  (void)state;
  assert_refused("{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("a", "U8", "[1]", "[1,2]") "}", 2,
                 "'a' stands twice");
  assert_refused("{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("\\u0061", "U8", "[1]", "[1,2]") "}", 2,
                 "stands twice");
  assert_refused("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
                 "'dtype' stands twice");
  assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "lacks one of");
  assert_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"strides\":[1]}}", 1,
                 "unknown member 'strides'");
  assert_refused("{\"a\":{}}", 0, "is empty");
  assert_refused("{" TENSOR("a", "Q4_K", "[1]", "[0,1]") "}", 1, "unknown dtype 'Q4_K' (tensor 'a')");
  assert_refused("{\"__metadata__\":{\"a\":1}}", 0, "where '\"' is expected");
  assert_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "stands twice");
  assert_refused("{\"a\":[]}", 0, "where '{' is expected");
  assert_refused("{\"a\":{{{{{{{{{{", 0, "expected");
  assert_refused("[]", 0, "does not begin with '{'");
  assert_refused(" {}", 0, "does not begin with '{'");
  assert_refused("{} x", 0, "behind the end");
  assert_refused("{\"a\":{\"dtype\":\"F32gggggggggggggg", 0, "longer than 15 bytes"); /* ends with the file */
  assert_refused("{\"a", 0, "ends inside a string");
  assert_refused("{\"a\\", 0, "unknown escape");
  assert_refused("{\"\\ud800\":", 0, "surrogate stands alone");
  assert_refused("{\"\\u00g0\":", 0, "hexadecimal");
  assert_refused("{\"a\tb\":", 0, "control character");
  assert_refused("{\"a\xFF\":", 0, "not UTF-8");
  assert_refused("{,}", 0, "expected");
  assert_refused("{" TENSOR("a", "U8", "[1]", "[0,1]") ",}", 1, "expected");
  assert_refused("{" TENSOR("", "U8", "[1]", "[0,1]") "}", 1, "empty name");
  assert_refused("{" TENSOR("a\\u0000b", "U8", "[1]", "[0,1]") "}", 1, "NUL");
}

static void test_name_length(void **state) {
  (void)state;
  char name[1100], header[1300];
  struct error error = ERROR_INIT;
  memset(name, 'n', sizeof name);
  for (int length = 1023; length <= 1025; length++) {
    snprintf(header, sizeof header, "{\"%.*s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", length,
             name);
    assert_int_equal(read_header(header, 1, &error), length <= 1024 ? 0 : -1);
  }
  assert_contains(error.text, "longer than 1024 bytes");
}

/* The list checks names again for every reader. */
static void test_list_names(void **state) {
  (void)state;
  char name[1025];
  struct error error = ERROR_INIT;
  struct tensor_list list;
  memset(name, 'n', sizeof name);
  tensor_list_init(&list);
  assert_non_null(tensor_list_add(&list, name, 1024, &error));
  assert_null(tensor_list_add(&list, name, 1025, &error));
  assert_contains(error.text, "has 1025 bytes, at most 1024");
  tensor_list_clear(&list);
}

/* Every combination of the numbers at which size arithmetic has gone wrong in other readers, in two dimensions
 * and both offsets of a U8 tensor over one byte of data: one file of the 4,096 is true. */
static void test_boundaries(void **state) {
  (void)state;
  static const char *const values[] = {"0",          "1",             "2147483647",          "2147483648",
                                       "4294967296", "4398046511105", "9223372036854775808", "18446744073709551615"};
  int accepted = 0;
  for (int i = 0; i < 8 * 8 * 8 * 8; i++) {
    char header[256];
    struct error error = ERROR_INIT;
    snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"U8\",\"shape\":[%s,%s],\"data_offsets\":[%s,%s]}}",
             values[i & 7], values[i >> 3 & 7], values[i >> 6 & 7], values[i >> 9]);
    if (read_header(header, 1, &error) == 0)
      accepted++;
    else
      assert_true(error.code == ERROR_FORMAT && strstr(error.text, "'f.st'"));
  }
  assert_int_equal(accepted, 1);
}

/* A million entries and one more: refused by count, and quickly. The bound is loose, a quadratic reader would
 * take minutes. */
static void test_many_tensors(void **state) {
  (void)state;
  struct buffer out;
  struct error error = ERROR_INIT;
  size_t count = 0;
  buffer_init(&out, 0);
  build(&out, 0, "{", 0);
  for (int i = 0; i <= 1000000; i++)
    buffer_printf(&out, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "", i);
  buffer_text(&out, "}");
  uint64_t length = out.length - 8;
  memcpy(out.data, &length, 8); /* the machines this runs on are little endian */
  clock_t start = clock();
  assert_int_equal(read_bytes(out.data, out.length, &count, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
  assert_contains(error.text, "more than 1000000 tensors");
  assert_int_equal(count, 1000000);
  assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 20);
  buffer_clear(&out);
}

/* ---- sets and dispatch ---- */

static char folder[64];

static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/steerd-tensors-XXXXXX");
  return mkdtemp(folder) ? 0 : -1;
}

static const char *in_folder(const char *name) {
  static char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static int remove_folder(void **state) {
  (void)state;
  static const char *const names[] = {"model.safetensors.index.json", "model.safetensors", "one", "two", "file",
                                      "pytorch_model.bin.index.json", "pytorch_model.bin", "part.bin", "array.npz"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(in_folder(names[i]));
  return rmdir(folder);
}

static void write_file(const char *name, const void *data, size_t length) {
  FILE *file = fopen(in_folder(name), "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, length, file), length);
  assert_int_equal(fclose(file), 0);
}

static void write_tensors(const char *name, const char *header, size_t data_bytes) {
  struct buffer out;
  buffer_init(&out, 0);
  build(&out, strlen(header), header, data_bytes);
  write_file(name, out.data, out.length);
  buffer_clear(&out);
}

static void assert_open_refused(const char *path, enum error_code code, const char *part) {
  struct error error = ERROR_INIT;
  assert_null(tensors_open(path, &error));
  assert_contains(error.text, part);
  assert_int_equal(error.code, code);
}

static void copy_file(const char *from, const char *name) {
  char bytes[65536];
  FILE *in = fopen(from, "r");
  assert_non_null(in);
  size_t n = fread(bytes, 1, sizeof bytes, in);
  fclose(in);
  write_file(name, bytes, n);
}

/* The set of one ("a", 1 byte) and two ("b", 2 bytes) under the index `map`. */
static void assert_set(const char *index, const char *part) {
  write_tensors("one", "{" TENSOR("a", "U8", "[1]", "[0,1]") "}", 1);
  write_tensors("two", "{" TENSOR("b", "U8", "[2]", "[0,2]") "}", 2);
  write_file("model.safetensors.index.json", index, strlen(index));
  if (part) {
    assert_open_refused(folder, ERROR_FORMAT, part);
    return;
  }
  struct tensors *tensors = must_open(folder);
  assert_int_equal(tensors_count(tensors), 2);
  tensors_close(tensors);
}

static void test_index(void **state) {
  (void)state;
  assert_set("{\"metadata\":{\"total_size\":3},\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", NULL);
  assert_set("{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", NULL);
  assert_set("{\"metadata\":{\"total_size\":4},\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}", NULL); /* tied ones counted twice */
  assert_set("{\"weight_map\":{\"a\":\"../one\",\"b\":\"two\"}}", "expected the name of a file");
  assert_set("{\"weight_map\":{\"a\":\"/etc/passwd\",\"b\":\"two\"}}", "expected the name of a file");
  assert_set("{\"weight_map\":{\"a\":\"x\\\\one\",\"b\":\"two\"}}", "expected the name of a file");
  assert_set("{\"weight_map\":{\"a\":\"..\",\"b\":\"two\"}}", "expected the name of a file");
  assert_set("{\"weight_map\":{\"a\":\"\",\"b\":\"two\"}}", "expected the name of a file");
  assert_set("{\"weight_map\":{\"a\":1,\"b\":\"two\"}}", "an integer, expected a file name");
  assert_set("{\"weight_map\":{\"a\":\"two\",\"b\":\"one\"}}", "but in another shard");
  assert_set("{\"weight_map\":{\"a\":\"one\",\"b\":\"two\",\"c\":\"two\"}}", "'c' is not in 'two' nor in any other");
}

static void test_index_files(void **state) {
  (void)state;
  const char *index = "{\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}";
  write_tensors("one", "{" TENSOR("a", "U8", "[1]", "[0,1]") "," TENSOR("x", "U8", "[1]", "[1,2]") "}", 2);
  write_tensors("two", "{" TENSOR("b", "U8", "[2]", "[0,2]") "}", 2);
  write_file("model.safetensors.index.json", index, strlen(index));
  assert_open_refused(folder, ERROR_FORMAT, "'x' is in a shard but not in weight_map");
  write_tensors("two", "{" TENSOR("a", "U8", "[2]", "[0,2]") "}", 2);
  assert_open_refused(folder, ERROR_FORMAT, "tensor 'a' stands twice");
  unlink(in_folder("two"));
  assert_open_refused(folder, ERROR_NOT_FOUND, "two");
  write_file("model.safetensors.index.json", "{}", 2);
  assert_open_refused(folder, ERROR_FORMAT, "'weight_map' is missing or empty");
  write_file("model.safetensors.index.json", "[[[[[[[[[[", 10);
  assert_open_refused(folder, ERROR_FORMAT, "nests deeper");
}

/* pytorch_model.bin, alone and in shards; safetensors of the same folder come first. */
static void test_torch_folders(void **state) {
  (void)state;
  const char *index = "{\"weight_map\":{\"x\":\"part.bin\"}}", *other = "{\"weight_map\":{\"x\":\"array.npz\"}}";
  copy_file(VECTORS "no_crc.pth", "pytorch_model.bin");
  struct tensors *tensors = must_open(folder);
  assert_string_equal(tensors_format(tensors), "torch");
  assert_true(value_at(must_find(tensors, "x"), 2) == 2.0f);
  tensors_close(tensors);
  copy_file(VECTORS "no_crc.pth", "part.bin");
  write_file("pytorch_model.bin.index.json", index, strlen(index));
  tensors = must_open(folder);
  assert_true(value_at(must_find(tensors, "x"), 1) == 1.0f);
  tensors_close(tensors);
  copy_file(VECTORS "savez.npz", "array.npz");
  write_file("pytorch_model.bin.index.json", other, strlen(other));
  assert_open_refused(folder, ERROR_FORMAT, "neither from torch.save");
  write_tensors("model.safetensors", "{" TENSOR("a", "U8", "[1]", "[0,1]") "}", 1);
  tensors = must_open(folder);
  assert_string_equal(tensors_format(tensors), "safetensors");
  tensors_close(tensors);
}

static void test_dispatch(void **state) {
  (void)state;
  assert_open_refused(folder, ERROR_NOT_FOUND, "holds no weights");
  assert_open_refused(in_folder("none"), ERROR_NOT_FOUND, "none");
  write_file("file", "", 0);
  assert_open_refused(in_folder("file"), ERROR_FORMAT, "is empty");
  write_file("file", "GGUF\3\0\0\0\0\0\0\0", 12);
  assert_open_refused(in_folder("file"), ERROR_FORMAT, "GGUF");
  write_file("file", "version https://git-lfs.github.com/spec/v1\n", 43);
  assert_open_refused(in_folder("file"), ERROR_FORMAT, "git lfs pull");
  write_file("file", "hello", 5);
  assert_open_refused(in_folder("file"), ERROR_FORMAT, "neither safetensors, a torch archive nor .npz: 5 bytes");
  assert_open_refused("/dev/null", ERROR_FORMAT, "not a regular file");
  write_tensors("model.safetensors", "{" TENSOR("a", "U8", "[1]", "[0,1]") "}", 1);
  struct tensors *tensors = must_open(folder);
  assert_int_equal(tensors_count(tensors), 1);
  tensors_close(tensors);
}

/* ---- the small verbs ---- */

static void test_contiguous(void **state) {
  (void)state;
  struct tensor t = {.n_dims = 2, .shape = {2, 3}, .stride = {3, 1}, .bytes = 24};
  assert_true(tensor_is_contiguous(&t));
  t = (struct tensor){.n_dims = 2, .shape = {2, 3}, .stride = {1, 2}, .bytes = 24};
  assert_false(tensor_is_contiguous(&t));
  t = (struct tensor){.n_dims = 2, .shape = {1, 3}, .stride = {77, 1}, .bytes = 12}; /* never walked */
  assert_true(tensor_is_contiguous(&t));
  t = (struct tensor){.n_dims = 2, .shape = {2, 0}, .stride = {5, 5}, .bytes = 0};
  assert_true(tensor_is_contiguous(&t));
  t = (struct tensor){.n_dims = 0, .bytes = 4};
  assert_true(tensor_is_contiguous(&t));
}

static void test_describe(void **state) {
  (void)state;
  char text[128];
  struct tensor t = {.n_dims = 2, .shape = {768, 24576}, .dtype = DTYPE_F32};
  assert_string_equal(tensor_describe(&t, text), "[768, 24576] F32");
  t = (struct tensor){.n_dims = 0, .dtype = DTYPE_BF16};
  assert_string_equal(tensor_describe(&t, text), "[] BF16");
  t = (struct tensor){.n_dims = 8, .dtype = DTYPE_OTHER};
  for (int i = 0; i < 8; i++) t.shape[i] = INT64_MAX;
  assert_true(strlen(tensor_describe(&t, text)) < 128);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_kinds),
      cmocka_unit_test(test_bf16_and_other),
      cmocka_unit_test(test_sharded),
      cmocka_unit_test(test_real_folders),
      cmocka_unit_test(test_plain_headers),
      cmocka_unit_test(test_broken_lengths),
      cmocka_unit_test(test_ranges),
      cmocka_unit_test(test_shapes),
      cmocka_unit_test(test_headers),
      cmocka_unit_test(test_name_length),
      cmocka_unit_test(test_list_names),
      cmocka_unit_test(test_boundaries),
      cmocka_unit_test(test_many_tensors),
      cmocka_unit_test_setup_teardown(test_index, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_index_files, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_torch_folders, make_folder, remove_folder),
      cmocka_unit_test_setup_teardown(test_dispatch, make_folder, remove_folder),
      cmocka_unit_test(test_contiguous),
      cmocka_unit_test(test_describe),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
