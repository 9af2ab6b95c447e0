/* The dashboard's files in memory, the pages' rows among the API's, and who may frame a page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/route.h"
#include "api/static_files.h"

static char folder[] = "/tmp/steerd-static-XXXXXX";
static struct arena arena;

static void put(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

static void drop(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  unlink(path);
}

static int make_folder(void **state) {
  (void)state;
  arena_init(&arena, 0);
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  static const char *const names[] = {"index.html", "app.js", ".hidden.js", "Upper.js", "notes.txt", "app.js~", "linked.js"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) drop(names[i]);
  arena_clear(&arena);
  return rmdir(folder);
}

static void test_only_plain_names_are_served(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct static_files files;
  put("index.html", "<!doctype html>");
  put("app.js", "export {};");
  put(".hidden.js", "x");
  put("Upper.js", "x");
  put("notes.txt", "x");
  put("app.js~", "x");
  assert_int_equal(static_files_load(&files, folder, &arena, &error), 0);
  assert_int_equal(files.count, 2);
  const struct static_file *script = static_files_find(&files, "app.js");
  assert_non_null(script);
  assert_string_equal(script->type, "text/javascript; charset=utf-8");
  assert_int_equal(script->length, strlen("export {};"));
  assert_memory_equal(script->body, "export {};", script->length);
  static const char *const foreign[] = {"", ".", "..", "../app.js", "app", "app.js ", "notes.txt", ".hidden.js", "/etc/passwd"};
  for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) assert_null(static_files_find(&files, foreign[i]));
}

static void test_tag_follows_the_bytes(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct static_files before, same, after;
  put("index.html", "<!doctype html>");
  put("app.js", "1");
  assert_int_equal(static_files_load(&before, folder, &arena, &error), 0);
  assert_int_equal(static_files_load(&same, folder, &arena, &error), 0);
  put("app.js", "2");
  assert_int_equal(static_files_load(&after, folder, &arena, &error), 0);
  const char *tag = static_files_find(&before, "app.js")->etag;
  assert_string_equal(tag, static_files_find(&same, "app.js")->etag);
  assert_string_not_equal(tag, static_files_find(&after, "app.js")->etag);
  assert_int_equal(strlen(tag), strlen("W/\"0123456789abcdef\""));
}

static void test_refused_folders(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct static_files files;
  assert_int_equal(static_files_load(&files, "/no/such/folder", &arena, &error), -1);
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_non_null(strstr(error.text, "/no/such/folder"));
  error_clear(&error);
  drop("index.html");
  assert_int_equal(static_files_load(&files, folder, &arena, &error), -1);
  assert_non_null(strstr(error.text, "index.html"));
  error_clear(&error);
  put("index.html", "");
  char *large = malloc((1 << 20) + 2);
  memset(large, 'x', (1 << 20) + 1);
  large[(1 << 20) + 1] = '\0';
  put("app.js", large);
  free(large);
  assert_int_equal(static_files_load(&files, folder, &arena, &error), -1);
  assert_int_equal(error.code, ERROR_LIMIT);
}

static const char *row_of(const char *method, const char *path) {
  const struct route *allowed, *row = route_find(method, path, &allowed);
  return row ? row->path : allowed ? "405" : "404";
}

/* The pages' patterns fit every short path; they must hide no call and answer for no mistyped one. */
static void test_pages_hide_no_call(void **state) {
  (void)state;
  static const char *const expected[][3] = {
      {"GET", "/gpt2-small", "/{model}"},
      {"HEAD", "/gpt2-small/", "/{model}"},
      {"GET", "/gpt2-small/7-res-jb", "/{model}/{source}"},
      {"GET", "/gpt2-small/7-res-jb/0", "/{model}/{source}/{index}"},
      {"GET", "/steer", "/steer"},
      {"GET", "/steer/abc", "/steer/{share}"},
      {"POST", "/steer", "/steer"},
      {"GET", "/models", "/models"},
      {"GET", "/static/app.js", "/static/{file}"},
      {"GET", "/static", "404"},
      {"GET", "/static/a/b", "404"},
      {"GET", "/api", "404"},
      {"GET", "/api/nothing", "404"},
      {"GET", "/api/nothing/x", "404"},
      {"GET", "/v1/nothing", "404"},
      {"POST", "/gpt2-small", "404"},
      {"DELETE", "/gpt2-small/7-res-jb", "404"},
      {"GET", "/api/steer", "405"},
      {"GET", "/activations", "405"},
      {"GET", "/a/b/c/d", "404"},
  };
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
    assert_string_equal(row_of(expected[i][0], expected[i][1]), expected[i][2]);
  assert_int_equal(route_family_of("/v1/nothing"), FAMILY_LAB);
  assert_int_equal(route_family_of("/api/nothing"), FAMILY_NEURONPEDIA);
  assert_int_equal(route_family_of("/v1/embeddings"), FAMILY_OPENAI); /* not served; its clients read errors in one shape only */
  assert_int_equal(route_family_of("/v1/embeddingsx"), FAMILY_LAB);
  assert_int_equal(route_family_of("/gpt2-small"), FAMILY_OPERATIONS);
}

static void test_who_may_frame(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  const char *plain = static_embed_policy(NULL, &arena, &error);
  assert_non_null(strstr(plain, "frame-ancestors 'self' http://localhost:*"));
  assert_null(strstr(plain, "unsafe"));
  const char *with = static_embed_policy("https://notebooks.example,https://x.example; script-src *,http://[::1]:8888,https://b.example:8443",
                                         &arena, &error);
  assert_non_null(strstr(with, " https://notebooks.example https://b.example:8443"));
  assert_null(strstr(with, "script-src")); /* an origin cannot add a directive */
  assert_null(strstr(with, "["));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_only_plain_names_are_served), cmocka_unit_test(test_tag_follows_the_bytes),
      cmocka_unit_test(test_refused_folders),             cmocka_unit_test(test_pages_hide_no_call),
      cmocka_unit_test(test_who_may_frame),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
