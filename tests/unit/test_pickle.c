/* pickle.h: what the machine builds, and everything it must refuse. Pickles are written as the bytes of their
 * opcodes (CPython's Lib/pickletools.py names them). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/pickle.h"

static const struct pickle_global globals[] = {{"collections.OrderedDict", PICKLE_CALL_DICT, 1},
                                               {"lib.build", PICKLE_CALL_OBJECT, 2},
                                               {"lib.Kind", PICKLE_CALL_REFUSE, 3}};

static struct arena arena;

static int open_arena(void **state) {
  (void)state;
  arena_init(&arena, (size_t)64 << 20);
  return 0;
}

static int close_arena(void **state) {
  (void)state;
  arena_clear(&arena);
  return 0;
}

static const struct pickle_value *read_bytes(const char *data, size_t size, struct error *error) {
  /* Of exactly the size, so that the sanitizer build sees a read past the end; values borrow it. */
  static unsigned char *copy;
  free(copy);
  copy = malloc(size ? size : 1);
  assert_non_null(copy);
  memcpy(copy, data, size);
  return pickle_read(copy, size, globals, sizeof globals / sizeof globals[0], &arena, error);
}

static const struct pickle_value *must_read(const char *data, size_t size) {
  struct error error = ERROR_INIT;
  const struct pickle_value *value = read_bytes(data, size, &error);
  if (!value) fail_msg("%s", error.text);
  return value;
}

static void must_refuse(const char *data, size_t size, const char *part) {
  struct error error = ERROR_INIT;
  if (read_bytes(data, size, &error)) fail_msg("accepted, expected '%s'", part);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
}

/* A pickle of protocol 2 around the opcodes of a literal. */
#define READ(body) must_read("\x80\2" body ".", sizeof("\x80\2" body ".") - 1)
#define REFUSE(body, part) must_refuse("\x80\2" body, sizeof("\x80\2" body) - 1, part)

static void test_constants(void **state) {
  (void)state;
  assert_int_equal(READ("N")->kind, PICKLE_NONE);
  assert_true(READ("\x88")->as.boolean);
  assert_false(READ("\x89")->as.boolean);
  assert_int_equal(READ("K\xFF")->as.integer, 255);
  assert_int_equal(READ("M\xFF\xFF")->as.integer, 65535);
  assert_true(READ("J\xFE\xFF\xFF\xFF")->as.integer == -2);
  assert_true(READ("\x8A\0")->as.integer == 0);
  assert_true(READ("\x8A\1\xFF")->as.integer == -1);
  assert_true(READ("\x8A\2\xFF\0")->as.integer == 255);
  assert_true(READ("\x8A\6\0\0\0\0\0\1")->as.integer == 1ll << 40);
  assert_true(READ("\x8A\x08\0\0\0\0\0\0\0\x80")->as.integer == INT64_MIN);
  assert_true(READ("G\x40\x04\0\0\0\0\0\0")->as.real == 2.5);
  assert_true(pickle_is_text(READ("X\3\0\0\0abc"), "abc"));
  assert_true(pickle_is_text(READ("\x8C\2\xC3\xA9"), "\xC3\xA9"));
  assert_true(pickle_is_text(READ("\x8D\1\0\0\0\0\0\0\0z"), "z"));
  assert_false(pickle_is_text(READ("X\0\0\0\0"), "abc"));
  assert_false(pickle_is_text(READ("N"), ""));
}

static void test_containers(void **state) {
  (void)state;
  assert_int_equal(READ(")")->as.items.count, 0);
  assert_int_equal(READ("K\1\x85")->as.items.count, 1);
  assert_int_equal(READ("K\1K\2K\3\x87")->as.items.list[2]->as.integer, 3);
  const struct pickle_value *value = READ("(K\1(K\2tK\3t");
  assert_int_equal(value->as.items.count, 3);
  assert_int_equal(value->as.items.list[1]->as.items.list[0]->as.integer, 2);
  value = READ("](K\1K\2eK\3a");
  assert_int_equal(value->kind, PICKLE_LIST);
  assert_int_equal(value->as.items.count, 3);
  assert_int_equal(value->as.items.list[2]->as.integer, 3);
  value = READ("}(K\1K\2K\3K\4uK\5K\6s");
  assert_int_equal(value->kind, PICKLE_DICT);
  assert_int_equal(value->as.items.count, 6);
  assert_int_equal(value->as.items.list[5]->as.integer, 6);
  value = READ("ccollections\nOrderedDict\n)R}b"); /* attributes are dropped */
  assert_int_equal(value->kind, PICKLE_DICT);
  assert_int_equal(value->as.items.count, 0);
}

static void test_memo(void **state) {
  (void)state;
  const struct pickle_value *value = READ("K\7q\0h\0\x86");
  assert_ptr_equal(value->as.items.list[0], value->as.items.list[1]);
  value = READ("K\7r\1\0\0\0j\1\0\0\0\x86");
  assert_int_equal(value->as.items.list[1]->as.integer, 7);
  value = READ("K\5\x94K\6\x94h\0h\1\x87\x86");
  assert_int_equal(value->as.items.list[1]->as.items.list[1]->as.integer, 5);
  value = READ("]q\0h\0a"); /* a list in itself is legal here: walkers bound their depth */
  assert_ptr_equal(value->as.items.list[0], value);
  REFUSE("h\0.", "memo slot 0 is empty");
  REFUSE("K\1q\377.", "memo slot 255, at most");
  REFUSE("K\1r\377\377\377\377.", "memo slot 4294967295, at most");
  REFUSE("j\377\377\377\377.", "is empty");
}

static void test_symbols(void **state) {
  (void)state;
  const struct pickle_value *value = READ("clib\nbuild\nK\1K\2\x86R");
  assert_int_equal(value->kind, PICKLE_OBJECT);
  assert_int_equal(value->as.object.callee->tag, 2);
  assert_int_equal(value->as.object.arguments->as.items.count, 2);
  value = READ("X\3\0\0\0libX\4\0\0\0Kind\x93");
  assert_int_equal(value->kind, PICKLE_GLOBAL);
  assert_int_equal(value->as.global->tag, 3);
  value = READ("K\1Q");
  assert_int_equal(value->kind, PICKLE_PERSISTENT);
  assert_int_equal(value->as.id->as.integer, 1);
}

/* Names outside the list end the reading wherever they stand, called or not. */
static void test_names(void **state) {
  (void)state;
  REFUSE("cos\nsystem\nX\2\0\0\0id\x85R.", "names 'os.system'");
  REFUSE("}X\1\0\0\0acposix\nsystem\ns.", "names 'posix.system'");
  REFUSE("(K\1cbuiltins\neval\nt.", "names 'builtins.eval'");
  REFUSE("X\2\0\0\0osX\6\0\0\0system\x93.", "names 'os.system'");
  REFUSE("clib\nBuild\n.", "names 'lib.Build'");
  REFUSE("clib.build\n\n.", "names 'lib.build.'");
  REFUSE("c\nlib.build\n.", "names '.lib.build'");
  REFUSE("clib\nbuild\0x\n.", "names 'lib.build'"); /* equal up to a NUL */
  REFUSE("X\3\0\0\0libX\6\0\0\0build\0\x93.", "names 'lib.build'");
  REFUSE("K\1K\2\x93.", "not a string");
  REFUSE("clib\nbuil", "has no end");
}

static void test_calls(void **state) {
  (void)state;
  REFUSE("clib\nKind\n)R.", "may be named but not called");
  REFUSE("ccollections\nOrderedDict\nK\1\x85R.", "called with arguments");
  REFUSE("K\1)R.", "a call needs a name and a tuple");
  REFUSE("clib\nbuild\n]R.", "a call needs a name and a tuple");
  REFUSE("]}b.", "attributes are set on a list");
  REFUSE("clib\nbuild\n)R}b.", "attributes are set on a built object");
  REFUSE("}K\1b.", "attributes are set on a dict");
}

static void test_stack(void **state) {
  (void)state;
  REFUSE(".", "ends with 0 values");
  REFUSE("NN.", "ends with 2 values");
  REFUSE("N(.", "1 marks");
  REFUSE("R.", "finds the stack empty");
  REFUSE("NR.", "finds the stack empty");
  REFUSE("Q.", "finds the stack empty");
  REFUSE("b.", "finds the stack empty");
  REFUSE("q\0.", "finds the stack empty");
  REFUSE("K\1\x86.", "a tuple of 2 finds 1");
  REFUSE("t.", "finds no mark");
  REFUSE("](K\1a.", "finds the stack empty");
  REFUSE("}K\1K\2(s.", "finds 0 on the stack, needs 2");
  REFUSE("K\1(K\2a.", "finds the stack empty"); /* nothing below a mark is in reach */
  REFUSE("}(K\1u.", "a key has no value");
  REFUSE("](K\1K\2u.", "finds a list where a dict is expected");
  REFUSE("(e.", "finds the stack empty");
  REFUSE("K\1K\2a.", "finds an integer where a list is expected");
}

static void test_bytes(void **state) {
  (void)state;
  must_refuse("", 0, "no protocol");
  must_refuse("\x80", 1, "no protocol");
  must_refuse("(dp0\n.", 6, "no protocol"); /* protocol 0 */
  must_refuse("\x80\1N.", 4, "protocol 1, expected 2 to 5");
  must_refuse("\x80\6N.", 4, "protocol 6, expected 2 to 5");
  REFUSE("", "has no end");
  REFUSE("N", "has no end");
  REFUSE("K", "needs 1 bytes more, the pickle has 0");
  REFUSE("X\377\377\377\377a", "needs 4294967295 bytes more");
  REFUSE("\x8D\377\377\377\377\377\377\377\377", "needs 18446744073709551615 bytes more");
  REFUSE("\x8A\x09\0\0\0\0\0\0\0\0\1.", "an integer of 9 bytes");
  REFUSE("X\1\0\0\0\377.", "not UTF-8");
  REFUSE("\x95\377\377\377\377\377\377\377\177N.", "a frame of");
  REFUSE("N\x80\2.", "named again");
  REFUSE("N.N", "1 bytes stand behind the end");
}

/* Every opcode that is not on the list is refused by its number, whatever is on the stack. */
static void test_other_opcodes(void **state) {
  (void)state;
  static const char allowed[] = "\x80\x95.N\x88\x89JKM\x8AGX\x8C\x8D)]}(t\x85\x86\x87" "aesuqr\x94hjc\x93QRb";
  int refused = 0;
  for (int code = 0; code < 256; code++) {
    char data[64] = "\x80\2NN(NN", part[64];
    struct error error = ERROR_INIT;
    if (memchr(allowed, code, sizeof allowed - 1)) continue;
    data[7] = (char)code;
    assert_null(read_bytes(data, 40, &error));
    snprintf(part, sizeof part, "pickle byte 7: opcode 0x%02x is not one", code);
    assert_non_null(strstr(error.text, part));
    refused++;
  }
  assert_int_equal(refused, 256 - 36);
}

/* 70,000 values, then 70,000 marks: more than the stack holds. */
static void test_depth(void **state) {
  (void)state;
  char *data = malloc(70002);
  assert_non_null(data);
  memset(data, 'N', 70002);
  memcpy(data, "\x80\2", 2);
  must_refuse(data, 70002, "the stack grows over 65536");
  memset(data + 2, '(', 70000);
  must_refuse(data, 70002, "more than 65536 marks");
  free(data);
}

/* One byte for each empty list, far more memory than bytes: the arena's limit ends it. */
static void test_memory(void **state) {
  (void)state;
  size_t size = 4 << 20;
  char *data = malloc(size);
  struct error error = ERROR_INIT;
  assert_non_null(data);
  memcpy(data, "\x80\2]", 3);
  for (size_t i = 3; i < size; i++) data[i] = i % 2 ? ']' : 'a';
  assert_null(read_bytes(data, size, &error));
  assert_int_equal(error.code, ERROR_LIMIT);
  free(data);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(test_constants), TEST(test_containers), TEST(test_memo),  TEST(test_symbols),       TEST(test_names),
      TEST(test_calls),     TEST(test_stack),      TEST(test_bytes), TEST(test_other_opcodes), TEST(test_depth),
      TEST(test_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
