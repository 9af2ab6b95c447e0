/* ini.h: what it keeps, what it refuses, and that every refusal names file and line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buffer.h"
#include "core/base/ini.h"

static struct ini *must_read(const char *text) {
  struct error error = ERROR_INIT;
  struct ini *ini = ini_open_text("a.ini", text, strlen(text), &error);
  if (!ini) fail_msg("%s", error.text);
  return ini;
}

static void assert_refused_bytes(const char *text, size_t length, enum error_code code, const char *part) {
  struct error error = ERROR_INIT;
  if (ini_open_text("a.ini", text, length, &error)) fail_msg("accepted, expected '%s'", part);
  if (!strstr(error.text, part)) fail_msg("'%s' does not contain '%s'", error.text, part);
  assert_int_equal(error.code, code);
}

static void assert_refused(const char *text, const char *part) {
  assert_refused_bytes(text, strlen(text), ERROR_FORMAT, part);
}

static const char *value_of(const struct ini *ini, const char *section, const char *key) {
  const struct ini_entry *entry = ini_find(ini, section, key);
  return entry ? entry->value : NULL;
}

static void test_entries(void **state) {
  (void)state;
  struct ini *ini = must_read("\xEF\xBB\xBF" "first = 1\n\n; a comment\n# another\n[model demo]\r\n path=a b \t\r\n"
                              "[server]\nlisten : 127.0.0.1:8080 ; behind\nempty =\nhash = a#b;c\n"
                              "name = \xC3\xA9t\xC3\xA9");
  assert_int_equal(ini_count(ini), 6);
  assert_string_equal(ini_at(ini, 0)->section, "");
  assert_string_equal(value_of(ini, "", "first"), "1");
  assert_string_equal(value_of(ini, "model demo", "path"), "a b");
  assert_int_equal(ini_find(ini, "model demo", "path")->line, 6);
  assert_string_equal(value_of(ini, "server", "listen"), "127.0.0.1:8080");
  assert_string_equal(value_of(ini, "server", "empty"), "");
  assert_string_equal(value_of(ini, "server", "hash"), "a#b;c"); /* no space in front: part of the value */
  assert_string_equal(value_of(ini, "server", "name"), "\xC3\xA9t\xC3\xA9");
  assert_int_equal(ini_at(ini, 5)->line, 11);
  assert_string_equal(ini_at(ini, 2)->key, "listen"); /* file order */
  assert_null(ini_find(ini, "server", "path"));
  assert_null(ini_find(ini, "serve", "listen"));
  assert_null(ini_at(ini, 6));
  assert_string_equal(ini_path(ini), "a.ini");
  ini_close(ini);
  ini_close(NULL);
}

static void test_nothing(void **state) {
  (void)state;
  struct ini *ini = must_read("");
  assert_int_equal(ini_count(ini), 0);
  assert_null(ini_find(ini, "", "a"));
  ini_close(ini);
  ini = must_read("; only a comment");
  assert_int_equal(ini_count(ini), 0);
  ini_close(ini);
}

/* A section may be opened again; its keys still count as one. An indented line is no continuation. */
static void test_sections(void **state) {
  (void)state;
  struct ini *ini = must_read("[a]\nx = 1\n[b]\nx = 2\n[a]\n  y = 3\n");
  assert_string_equal(value_of(ini, "a", "x"), "1");
  assert_string_equal(value_of(ini, "b", "x"), "2");
  assert_string_equal(value_of(ini, "a", "y"), "3");
  ini_close(ini);
  assert_refused("[a]\nx = 1\n[b]\n[a]\nx = 2\n", "a.ini:5: 'x' stands twice in section 'a', first in line 2");
  assert_refused("x = 1\ny = 1\nx = 1\n", "a.ini:3: 'x' stands twice in section ''");
}

static void test_refusals(void **state) {
  (void)state;
  assert_refused("[a]\nx = 1\nnonsense\ny = 2\n", "a.ini:3: expected [section], key = value or a comment");
  assert_refused("\n[a\n", "a.ini:2: expected [section]");
  assert_refused("= 1\n", "a.ini:1: there is no key");
  assert_refused("\n\nx = \xFF\n", "a.ini:3: the line is not UTF-8");
  assert_refused_bytes("x = 1\ny = a\0b\n", 14, ERROR_FORMAT, "a.ini:2: the line holds a NUL");
}

static void test_lengths(void **state) {
  (void)state;
  struct buffer text;
  buffer_init(&text, 0);
  buffer_text(&text, "k=");
  while (text.length < 4096) buffer_char(&text, 'v');
  struct ini *ini = must_read(text.data);
  assert_int_equal(strlen(value_of(ini, "", "k")), 4094);
  ini_close(ini);
  buffer_char(&text, 'v');
  assert_refused(text.data, "a.ini:1: the line is longer than 4096 bytes");
  buffer_clear(&text);

  char section[128];
  snprintf(section, sizeof section, "[%048d]\nk = 1\n", 0);
  ini = must_read(section);
  assert_int_equal(strlen(ini_at(ini, 0)->section), 48);
  ini_close(ini);
  snprintf(section, sizeof section, "[%049d]\nk = 1\n", 0);
  assert_refused(section, "a.ini:2: the section name is longer than 48 bytes");

  while (text.length <= 1 << 20) buffer_text(&text, "# comment\n");
  assert_refused_bytes(text.data, text.length, ERROR_LIMIT, "'a.ini' has");
  buffer_clear(&text);
}

static void test_many(void **state) {
  (void)state;
  struct buffer text;
  struct error error = ERROR_INIT;
  buffer_init(&text, 0);
  for (int i = 0; i < 5000; i++) buffer_printf(&text, "key%d = %d\n", i, i);
  struct ini *ini = ini_open_text("a.ini", text.data, text.length, &error);
  assert_non_null(ini);
  assert_int_equal(ini_count(ini), 5000);
  assert_string_equal(value_of(ini, "", "key4999"), "4999");
  assert_int_equal(ini_find(ini, "", "key17")->line, 18);
  ini_close(ini);
  buffer_clear(&text);
}

static void test_files(void **state) {
  (void)state;
  char path[] = "/tmp/steerd-ini-XXXXXX";
  struct error error = ERROR_INIT;
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, "[s]\nk = v\n", 10), 10);
  close(fd);
  struct ini *ini = ini_open(path, &error);
  assert_non_null(ini);
  assert_string_equal(value_of(ini, "s", "k"), "v");
  assert_string_equal(ini_path(ini), path);
  ini_close(ini);
  unlink(path);
  assert_null(ini_open(path, &error));
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_non_null(strstr(error.text, path));
}

/* Relative paths, and the words of a newcomer's first mistake. */
static void test_value_paths(void **state) {
  (void)state;
  char folder[] = "/tmp/steerd-ini-XXXXXX", want[64], path[64];
  assert_non_null(mkdtemp(folder));
  struct error error = ERROR_INIT;
  struct ini *ini = must_read("weights = w.pth\nwhole = /nowhere/w.pth\n");
  const struct ini_entry *relative = ini_find(ini, "", "weights"), *absolute = ini_find(ini, "", "whole");
  setenv("STEERD_DATA", folder, 1);
  assert_int_equal(ini_value_path(ini, relative, path, sizeof path, &error), 0);
  snprintf(want, sizeof want, "%s/w.pth", folder);
  assert_string_equal(path, want);
  rmdir(folder);
  assert_int_equal(ini_value_path(ini, relative, path, sizeof path, &error), -1);
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_non_null(strstr(error.text, "STEERD_DATA, which is '/tmp/steerd-ini-"));
  assert_int_equal(ini_value_path(ini, absolute, path, sizeof path, &error), 0);
  assert_string_equal(path, "/nowhere/w.pth");
  unsetenv("STEERD_DATA");
  assert_int_equal(chdir("/"), 0); /* no ../shared/data there */
  error = (struct error)ERROR_INIT;
  assert_int_equal(ini_value_path(ini, relative, path, sizeof path, &error), -1);
  assert_non_null(strstr(error.text, "'a.ini' line 1: the path of 'weights' starts at the folder in STEERD_DATA, which is not set"));
  ini_close(ini);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_entries),  cmocka_unit_test(test_nothing), cmocka_unit_test(test_sections),
      cmocka_unit_test(test_refusals), cmocka_unit_test(test_lengths), cmocka_unit_test(test_many),
      cmocka_unit_test(test_files),    cmocka_unit_test(test_value_paths),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
