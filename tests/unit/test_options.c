/* Settings: the table against config/steerd.ini, single values, and the order of the layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/mapfile.h"
#include "server/config.h"
#include "server/options.h"

static char *printed(void (*print)(FILE *)) {
  char *text = NULL;
  size_t length = 0;
  FILE *out = open_memstream(&text, &length);
  assert_non_null(out);
  print(out);
  fclose(out);
  return text;
}

static void ini_equals_table(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  char *file, *table = printed(options_print_ini);
  size_t length;
  if (file_read("config/steerd.ini", 1 << 20, &file, &length, &error))
    fail_msg("%s (run from the root)", error.text);
  /* `steerd config > config/steerd.ini` mends a difference. */
  assert_string_equal(file, table);
  free(file);
  free(table);
}

static void rows_are_sound(void **state) {
  (void)state;
  for (size_t i = 0; i < option_count(); i++) {
    const struct option *o = option_at(i);
    assert_ptr_equal(option_find(o->name), o); /* no name twice */
    assert_true(strspn(o->name, "abcdefghijklmnopqrstuvwxyz_") == strlen(o->name));
    assert_true(isupper((unsigned char)o->text[0]) && o->text[strlen(o->text) - 1] == '.');
    if (o->kind == OPTION_INT || o->kind == OPTION_SECONDS) assert_true(o->min < o->max && *o->unit);
    else assert_true(*o->choices);
    assert_string_not_equal(o->name, "config"); /* a flag of its own */
    for (size_t j = 0; j < i; j++) assert_true(option_at(j)->offset != o->offset);
  }
}

/* The help's texts in one line again, after a look at how long their lines are. */
static void unwrap(char *help) {
  char *to = help;
  for (char *from = help; *from; to++) {
    if (*from == '\n') assert_true(strcspn(from + 1, "\n") <= 104); /* 100, and the names of allowed values */
    bool margin = strncmp(from, "\n      ", 7) == 0;
    *to = margin ? ' ' : *from;
    from += margin ? 7 : 1;
  }
  *to = '\0';
}

static void help_names_every_setting(void **state) {
  (void)state;
  char *help = printed(options_print_help);
  unwrap(help);
  for (size_t i = 0; i < option_count(); i++) assert_non_null(strstr(help, option_at(i)->text));
  assert_non_null(strstr(help, "--max-connections-per-address 1 to 65536 connections"));
  free(help);
}

static void defaults(void **state) {
  (void)state;
  struct options o;
  assert_int_equal(options_init(&o, NULL), 0);
  assert_int_equal(o.listen.count, 1);
  assert_string_equal(o.listen.items[0], "127.0.0.1:8080");
  assert_int_equal(o.max_body, 1048576);
  assert_int_equal(o.header_timeout, 10000); /* milliseconds */
  assert_int_equal(o.model.count, 0);
  assert_string_equal(o.store, "auto");
  assert_false(o.insecure);
  options_clear(&o);
}

static void values_in_range(void **state) {
  (void)state;
  struct options o;
  assert_int_equal(options_init(&o, NULL), 0);
  struct {
    const char *name, *value;
    int rc;
  } cases[] = {{"max_body", "1024", 0},    {"max_body", "1023", -1},     {"max_body", "1073741824", 0},
               {"max_body", "1073741825", -1}, {"max_body", "", -1},     {"max_body", "0x400", -1},
               {"max_body", "1e6", -1},    {"max_body", "99999999999999999999", -1}, {"max-body", "2048", 0},
               {"header_timeout", "0.001", 0}, {"header_timeout", "0", -1}, {"header_timeout", "-1", -1},
               {"header_timeout", "inf", -1}, {"header_timeout", "86400", 0}, {"header_timeout", "86401", -1},
               {"insecure", "yes", 0},     {"insecure", "true", -1},     {"insecure", "", -1},
               {"log_format", "json", 0},  {"log_format", "jso", -1},    {"log_format", "text|json", -1},
               {"log_format", "", -1},     {"threads", "0", 0},          {"threads", "1025", -1}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    struct error error = ERROR_INIT;
    int rc = option_set(&o, option_find(cases[i].name), cases[i].value, "here:7", &error);
    if (rc != cases[i].rc) fail_msg("%s = '%s': %d", cases[i].name, cases[i].value, rc);
    if (rc) assert_non_null(strstr(error.text, "here:7"));
    if (rc) assert_int_equal(error.code, ERROR_ARGUMENT);
  }
  assert_int_equal(o.header_timeout, 86400000);
  options_clear(&o);
}

static void lists(void **state) {
  (void)state;
  struct options o;
  const struct option *model = option_find("model");
  assert_int_equal(options_init(&o, NULL), 0);
  assert_int_equal(option_set(&o, model, "a=/x , b=/y\\,z,,", "here", NULL), 0);
  assert_int_equal(o.model.count, 2);
  assert_string_equal(o.model.items[0], "a=/x");
  assert_string_equal(o.model.items[1], "b=/y,z");
  assert_int_equal(option_add(&o, model, "c=/w", "here", NULL), 0);
  assert_int_equal(o.model.count, 3);
  assert_string_equal(o.model.items[0], "a=/x");
  assert_string_equal(o.model.items[2], "c=/w");
  assert_int_equal(option_set(&o, model, "", "here", NULL), 0);
  assert_int_equal(o.model.count, 0);
  options_clear(&o);
}

static void nearest_names(void **state) {
  (void)state;
  assert_string_equal(option_nearest("lisen"), "listen");
  assert_string_equal(option_nearest("max-bdy"), "max_body");
  assert_string_equal(option_nearest("header_timout"), "header_timeout");
  assert_null(option_nearest("colour"));
  assert_null(option_nearest(""));
  assert_null(option_nearest("a-name-that-is-longer-than-any-setting-could-ever-sensibly-be"));
}

/* ---- layers ------------------------------------------------------------------------------------------- */

/* A file under a fresh name; the caller unlinks it. */
static void write_file(char path[64], const char *text) {
  snprintf(path, 64, "/tmp/steerd-test-options-XXXXXX");
  int fd = mkstemp(path);
  assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

static int read_with(struct options *o, const char *system_file, struct error *error, int argc,
                     const char **argv) {
  bool help;
  return config_read(o, argc, (char **)(uintptr_t)argv, system_file, &help, error);
}

static void later_layers_win(void **state) {
  (void)state;
  char first[64], second[64];
  struct options o;
  write_file(first, "max_queue = 1\nmax_sessions = 1\nmax_texts = 1\nmax_features = 1\nhosts = a, b\n");
  write_file(second, "[any]\nmax_sessions = 2\nmax_texts = 2\nmax_features = 2\n");
  setenv("STEERD_MAX_TEXTS", "3", 1);
  setenv("STEERD_MAX_FEATURES", "3", 1);
  const char *argv[] = {"--max-features", "4", "--config", second, "--hosts=c", "--hosts", "d"};
  assert_int_equal(read_with(&o, first, NULL, 7, argv), 0);
  assert_int_equal(o.max_queue, 1);
  assert_int_equal(o.max_sessions, 2);
  assert_int_equal(o.max_texts, 3);
  assert_int_equal(o.max_features, 4);
  assert_int_equal(o.hosts.count, 2); /* the flags' own */
  assert_string_equal(o.hosts.items[1], "d");
  options_clear(&o);
  unsetenv("STEERD_MAX_TEXTS");
  unsetenv("STEERD_MAX_FEATURES");
  unlink(first);
  unlink(second);
}

static void expect_refusal(const char *ini, int argc, const char **argv, const char *word) {
  char path[64];
  struct options o;
  struct error error = ERROR_INIT;
  write_file(path, ini);
  assert_int_equal(read_with(&o, path, &error, argc, argv), -1);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  if (!strstr(error.text, word)) fail_msg("no '%s' in: %s", word, error.text);
  options_clear(&o);
  unlink(path);
}

static void mistakes_are_named(void **state) {
  (void)state;
  expect_refusal("\nmax_queue = x\n", 0, NULL, ":2)");
  expect_refusal("max_quue = 1\n", 0, NULL, "did you mean 'max_queue'?");
  expect_refusal("[a]\nmax_queue = 1\n[b]\nmax_queue = 2\n", 0, NULL, "already stands in line 2");
  const char *unknown[] = {"--max-quue", "1"}, *bare[] = {"max_queue"}, *empty[] = {"--max-queue"},
             *dashes[] = {"--"}, *batch[] = {"--max-batch-body=2048", "--max-body=4096"},
             *none[] = {"--listen="};
  expect_refusal("", 2, unknown, "did you mean '--max_queue'?");
  expect_refusal("", 1, bare, "is not a flag");
  expect_refusal("", 1, empty, "needs a value");
  expect_refusal("", 1, dashes, "is not a flag");
  expect_refusal("", 2, batch, "max_batch_body");
  expect_refusal("", 1, none, "listen");
}

static void help_reads_nothing_else(void **state) {
  (void)state;
  struct options o;
  bool help = false;
  char *argv[] = {(char *)(uintptr_t) "--nonsense", (char *)(uintptr_t) "--help"};
  assert_int_equal(config_read(&o, 2, argv, NULL, &help, NULL), 0);
  assert_true(help);
  options_clear(&o);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ini_equals_table), cmocka_unit_test(rows_are_sound),
      cmocka_unit_test(help_names_every_setting), cmocka_unit_test(defaults),
      cmocka_unit_test(values_in_range), cmocka_unit_test(lists),
      cmocka_unit_test(nearest_names), cmocka_unit_test(later_layers_win),
      cmocka_unit_test(mistakes_are_named), cmocka_unit_test(help_reads_nothing_else)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
