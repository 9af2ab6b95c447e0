/* zip.h: archives as numpy and torch write them, and archives that lie. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/mapfile.h"
#include "core/model/zip.h"
#include "tests/unit/zip_builder.h"

#define VECTORS "tests/vectors/tensor_files/"

/* An exact copy, so that the sanitizer build sees a read past the end. */
static unsigned char *copy_of(const void *data, size_t size) {
  unsigned char *copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  return copy;
}

static void assert_refused_bytes(const void *data, size_t size, const char *part) {
  struct error error = ERROR_INIT;
  unsigned char *copy = copy_of(data, size);
  struct zip *zip = zip_open(copy, size, &error);
  if (zip) fail_msg("accepted, expected '%s'", part);
  assert_true(error.code == ERROR_FORMAT || error.code == ERROR_LIMIT);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  free(copy);
}

static void assert_refused(const struct zip_part *parts, size_t n, const char *part) {
  struct buffer out;
  buffer_init(&out, 0);
  zip_build(&out, parts, n);
  assert_refused_bytes(out.data, out.length, part);
  buffer_clear(&out);
}

static void assert_accepted(const struct zip_part *parts, size_t n) {
  struct buffer out;
  struct error error = ERROR_INIT;
  buffer_init(&out, 0);
  zip_build(&out, parts, n);
  struct zip *zip = zip_open((unsigned char *)out.data, out.length, &error);
  if (!zip) fail_msg("%s", error.text);
  assert_int_equal(zip_count(zip), n);
  for (size_t i = 0; i < n; i++) {
    const struct zip_member *member = zip_find(zip, parts[i].name);
    assert_non_null(member);
    assert_int_equal(member->size, parts[i].size);
    assert_memory_equal(member->data, parts[i].data, parts[i].size);
    assert_int_equal(zip_check_crc(member, &error), 0);
  }
  zip_close(zip);
  buffer_clear(&out);
}

static void test_plain(void **state) {
  (void)state;
  struct zip_part parts[] = {{.name = "b/two", .data = "22", .size = 2},
                             {.name = "a..b", .data = "", .size = 0},
                             {.name = "later", .data = "333", .size = 3, .flags = 8},
                             {.name = "wide", .data = "4444", .size = 4, .local_zip64 = 1},
                             {.name = "wider", .data = "55555", .size = 5, .central_zip64 = 1}};
  assert_accepted(parts, 0);
  assert_accepted(parts, 5);
}

static void test_numpy(void **state) {
  (void)state;
  struct mapfile file;
  struct error error = ERROR_INIT;
  assert_int_equal(mapfile_open(VECTORS "savez.npz", &file, &error), 0);
  struct zip *zip = zip_open(file.data, file.size, &error);
  if (!zip) fail_msg("%s", error.text);
  const struct zip_member *member = zip_find(zip, "a.npy");
  assert_non_null(member);
  assert_int_equal(member->size, 128 + 12); /* header and three floats */
  assert_memory_equal(member->data, "\x93NUMPY", 6);
  assert_int_equal(zip_check_stored(member, &error), 0);
  assert_int_equal(zip_check_crc(member, &error), 0);
  assert_null(zip_find(zip, "b.npy"));
  assert_null(zip_at(zip, 1));
  zip_close(zip);
  zip_close(NULL);
  mapfile_close(&file);
}

static void test_deflated(void **state) {
  (void)state;
  struct mapfile file;
  struct error error = ERROR_INIT;
  assert_int_equal(mapfile_open(VECTORS "compressed.npz", &file, &error), 0);
  struct zip *zip = zip_open(file.data, file.size, &error);
  assert_non_null(zip);
  assert_int_equal(zip_check_stored(zip_at(zip, 0), &error), -1);
  assert_int_equal(error.code, ERROR_UNSUPPORTED);
  assert_non_null(strstr(error.text, "compressed"));
  zip_close(zip);
  mapfile_close(&file);
}

static void test_damaged_member(void **state) {
  (void)state;
  struct zip_member member = {.name = "a", .data = (const unsigned char *)"abc", .size = 3, .packed = 3, .crc = 1};
  struct error error = ERROR_INIT;
  assert_int_equal(zip_check_crc(&member, &error), -1);
  assert_non_null(strstr(error.text, "is damaged: its CRC-32 is 352441c2, expected 00000001"));
}

static void test_disagreement(void **state) {
  (void)state;
  const char *text = "local header and the central directory disagree";
  struct zip_part part = {.name = "a", .data = "1234", .size = 4, .local_size = 3};
  assert_refused(&part, 1, text);
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_size = 3};
  assert_refused(&part, 1, text);
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .local_name = "b"};
  assert_refused(&part, 1, text);
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .local_zip64 = 1, .local_size = 5};
  assert_refused(&part, 1, text);
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .flags = 8, .descriptor_size = 5};
  assert_refused(&part, 1, "data descriptor");
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_offset = 1};
  assert_refused(&part, 1, "no local header");
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_offset = 0x7FFFFFFF};
  assert_refused(&part, 1, "outside the file");
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_offset = 0xFFFFFFFF};
  assert_refused(&part, 1, "zip64 field lacks");
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_zip64 = 2};
  assert_refused(&part, 1, "zip64 field lacks");
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_zip64 = 1, .central_size = 3};
  assert_refused(&part, 1, text);
  part = (struct zip_part){.name = "a", .data = "1234", .size = 4, .central_size = 0x7FFFFFFF};
  assert_refused(&part, 1, "does not end before the central directory");
}

static void test_kinds(void **state) {
  (void)state;
  struct zip_part part = {.name = "a", .data = "1234", .size = 4, .flags = 1};
  assert_refused(&part, 1, "encrypted");
  part.flags = 64;
  assert_refused(&part, 1, "encrypted");
  part.flags = 32;
  assert_refused(&part, 1, "patch");
  part.flags = 0;
  part.unpacked_size = 400; /* a stored member that claims more than lies there */
  assert_refused(&part, 1, "its two sizes differ");
  part.method = 12;
  assert_refused(&part, 1, "neither stored nor deflate");
}

static void test_names(void **state) {
  (void)state;
  static const char *const names[] = {"/a", "..", "../a", "a/..", "a/../b", "a\\b", "\xFF"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    struct zip_part part = {.name = names[i], .data = "1", .size = 1};
    assert_refused(&part, 1, "not a relative path");
  }
  struct zip_part part = {.name = "a\0b", .name_length = 3, .data = "1", .size = 1};
  assert_refused(&part, 1, "not a relative path");
  char longer[514];
  memset(longer, 'a', sizeof longer);
  longer[513] = '\0';
  part = (struct zip_part){.name = longer, .data = "1", .size = 1};
  assert_refused(&part, 1, "not a relative path");
  longer[512] = '\0';
  assert_accepted(&part, 1);
  struct zip_part twice[] = {{.name = "a", .data = "1", .size = 1}, {.name = "a", .data = "2", .size = 1}};
  assert_refused(twice, 2, "stands twice");
}

/* Two directory entries for the same bytes. */
static void test_overlap(void **state) {
  (void)state;
  struct buffer out;
  buffer_init(&out, 0);
  struct zip_part part = {.name = "a", .data = "12", .size = 2};
  put_local(&out, &part);
  size_t begin = out.length;
  put_central(&out, &part, 0);
  put_central(&out, &part, 0);
  put_end(&out, 2, begin, out.length - begin);
  assert_refused_bytes(out.data, out.length, "overlaps");
  buffer_clear(&out);
}

static void test_end_record(void **state) {
  (void)state;
  struct buffer out;
  struct zip_part part = {.name = "a", .data = "12", .size = 2};
  buffer_init(&out, 0);
  zip_build(&out, &part, 1);
  for (size_t size = 0; size < out.length; size++) assert_refused_bytes(out.data, size, ""); /* cut at every byte */
  size_t end = out.length - 22;
  static const struct {
    int at; /* in the end record */
    unsigned char value;
    const char *part;
  } lies[] = {{4, 1, "several disks"},         {8, 2, "several disks"},  {12, 1, "does not end at byte"},
              {16, 1, "does not end at byte"}, {20, 1, "no end record"}, {0, 0, "no end record"}};
  for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
    char old = out.data[end + (size_t)lies[i].at];
    out.data[end + (size_t)lies[i].at] = (char)lies[i].value;
    assert_refused_bytes(out.data, out.length, lies[i].part);
    out.data[end + (size_t)lies[i].at] = old;
  }
  out.data[end + 8] = out.data[end + 10] = 0; /* fewer entries than the directory holds */
  assert_refused_bytes(out.data, out.length, "behind the last entry");
  out.data[end + 8] = out.data[end + 10] = 2;
  assert_refused_bytes(out.data, out.length, "no entry of the central directory");
  out.data[end + 9] = out.data[end + 11] = 0x7F;
  assert_refused_bytes(out.data, out.length, "at most 4096");
  buffer_clear(&out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plain),       cmocka_unit_test(test_numpy),        cmocka_unit_test(test_deflated),
      cmocka_unit_test(test_kinds),       cmocka_unit_test(test_disagreement), cmocka_unit_test(test_names),
      cmocka_unit_test(test_overlap),     cmocka_unit_test(test_end_record),   cmocka_unit_test(test_damaged_member),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
