/* Bodies against tables of fields (api/parse.h) by themselves: what an error says of an element in a list or an object, names that are
 * nearly right, and what counts as the same name. No model and no route. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "api/parse.h"
#include "core/base/arena.h"

static const struct api_options settings = {.max_body = 1 << 16, .max_json_depth = 64, .max_texts = 3};

static const struct field thing_rows[] = {
    {"id", NULL, FIELD_INT, .required = true, .max = 9, .text = "x"},
    {"places", NULL, FIELD_PLACES, .min = 1, .max = 3, .choices = "all", .text = "x"},
    {.name = NULL}};

static const struct field plain_rows[] = {
    {"tokens", NULL, FIELD_TEXTS, .required = true, .text = "x"},
    {"note", NULL, FIELD_TEXT, .text = "x"},
    {"values", NULL, FIELD_NUMBERS, .required = true, .text = "x"},
    {.name = NULL}};

static const struct field strict_rows[] = {
    {"nTokens", "count", FIELD_INT, .fallback = "5", .min = 1, .max = 9, .text = "x"},
    {"sortIndexes", NULL, FIELD_INTS, .max = 3, .text = "x"},
    {"names", NULL, FIELD_NAMES, .max = 3, .text = "x"},
    {"numbers", NULL, FIELD_NUMBERS, .max = 3, .text = "x"},
    {"places", NULL, FIELD_PLACES, .min = 1, .max = 3, .choices = "all", .text = "x"},
    {"words", NULL, FIELD_CHOICES, .choices = "hot cold", .text = "x"},
    {"tokens", NULL, FIELD_TOKENS, .min = 1, .max = 9, .text = "x"},
    {"rows", NULL, FIELD_ROWS, .min = 1, .max = 9, .text = "x"},
    {"prompt", NULL, FIELD_PROMPTS, .min = 1, .max = 9, .text = "x"},
    {"texts", NULL, FIELD_TEXTS, .min = 1, .max = 5, .text = "x"},
    {"content", NULL, FIELD_CONTENT, .min = 1, .max = 9, .text = "x"},
    {"weights", NULL, FIELD_WEIGHTS, .min = -1, .max = 1, .meant = "shares rates", .text = "x"},
    {"source", NULL, FIELD_SOURCES, .max = 3, .text = "x"},
    {"plain", NULL, FIELD_OBJECTS, .max = 3, .inner = plain_rows, .text = "x"},
    {"things", NULL, FIELD_OBJECTS, .max = 3, .inner = thing_rows, .example = "{\"id\": 1}", .text = "x"},
    {.name = NULL}};

static struct values *parse_strict(const char *body, struct arena *arena, struct error *error) {
  arena_init(arena, 0);
  return parse_body(body, strlen(body), strict_rows, true, &settings, arena, error);
}

/* The error's field is the element, and its text begins with it. */
static void expect_place(const char *body, const char *field, const char *words) {
  struct arena arena;
  struct error error = ERROR_INIT;
  char text[256];
  assert_null(parse_strict(body, &arena, &error));
  snprintf(text, sizeof text, "'%s' %s", field, words);
  assert_string_equal(error.text, text);
  assert_string_equal(error.field, field);
  arena_clear(&arena);
}

static void expect_element(const char *body, const char *field, const char *must) {
  char words[256];
  snprintf(words, sizeof words, "must be %s", must);
  expect_place(body, field, words);
}

static void test_elements(void **state) {
  (void)state;
  expect_element("{\"sort_indexes\":[1,-1]}", "sortIndexes[1]", "an integer from 0 up, found -1");
  expect_element("{\"sort_indexes\":[1,2,\"3\"]}", "sortIndexes[2]", "an integer from 0 up, found the string \"3\"");
  expect_element("{\"names\":[\"a\",1.5]}", "names[1]", "a string, or the integer of a layer, found 1.5");
  expect_element("{\"numbers\":[1,2.5,null]}", "numbers[2]", "a number, found null");
  expect_element("{\"places\":[-1,1.5]}", "places[1]", "an integer, found 1.5");
  expect_element("{\"words\":[\"hot\",\"warm\"]}", "words[1]", "one of 'hot', 'cold', found the string \"warm\"");
  expect_element("{\"tokens\":[0,1,2,[3]]}", "tokens[3]", "an integer from 0 up, found an array of 1");
  expect_element("{\"tokens\":[[0],[1,2,-3]]}", "tokens[1][2]", "an integer from 0 up, found -3");
  expect_element("{\"tokens\":[[0],7]}", "tokens[1]", "an array of 1 to 9 integers from 0 up, found 7");
  expect_element("{\"rows\":[7]}", "rows[0]", "an array of numbers, found 7");
  expect_element("{\"rows\":[[1,2],[3]]}", "rows[1]", "an array of numbers, 2 as in the first, found an array of 1");
  expect_element("{\"rows\":[[1,2],[3,true]]}", "rows[1][1]", "a number, found true");
  expect_element("{\"rows\":[[1,2],[3,4],[\"5\",6]]}", "rows[2][0]", "a number, found the string \"5\"");
  expect_element("{\"texts\":[\"a\",\"bb\",7]}", "texts[2]", "a string of 1 to 5 characters, found 7");
  expect_element("{\"texts\":[\"a\",\"\"]}", "texts[1]", "a string of 1 to 5 characters, found an empty string");
  expect_element("{\"texts\":[\"a\",\"bbbbbb\"]}", "texts[1]", "a string of 1 to 5 characters, found 6 characters");
  expect_element("{\"texts\":[\"a\",[\"b\"]]}", "texts[1]", "a string of 1 to 5 characters, found an array of 1");
  expect_element("{\"prompt\":[5,6,0.5]}", "prompt[2]", "an integer from 0 up, found 0.5");
  expect_element("{\"prompt\":[true]}", "prompt[0]", "a string, an integer from 0 up or an array of such integers, found true");
}

/* Parts of a content, members of an object of weights, objects in a list and what is in them. */
static void test_elements_of_objects(void **state) {
  (void)state;
#define PART "{\"type\":\"text\",\"text\":\"a\"}"
  expect_element("{\"content\":[" PART ",\"b\"]}", "content[1]", "{\"type\": \"text\", \"text\": ...}");
  expect_element("{\"content\":[" PART ",{\"text\":\"b\"}]}", "content[1]", "{\"type\": \"text\", \"text\": ...}");
  expect_element("{\"content\":[" PART "," PART ",{\"type\":\"text\",\"text\":1}]}", "content[2]",
                 "{\"type\": \"text\", \"text\": ...}");
  expect_place("{\"content\":[" PART ",{\"type\":\"image\",\"text\":\"b\"}]}", "content[1]",
               "is of type 'image': this server reads text only");
  expect_element("{\"weights\":{\"7\":1,\"8\":2}}", "weights[\"8\"]", "a number from -1 to 1, found 2");
  expect_element("{\"weights\":{\"7\":1,\"9\":\"x\"}}", "weights[\"9\"]", "a number from -1 to 1, found the string \"x\"");
  expect_place("{\"weights\":{\"7\":1,\"-8\":1}}", "weights[\"-8\"]",
               "does not name a token: names must be token ids, such as \"50256\"");
  expect_element("{\"things\":[{\"id\":1},7]}", "things[1]", "an object such as {\"id\": 1}, found 7");
  expect_element("{\"things\":[{\"id\":1},{\"id\":2},{\"id\":10}]}", "things[2].id", "an integer from 0 to 9, found 10");
  expect_place("{\"things\":[{\"id\":1},{}]}", "things[1].id", "is required: an integer from 0 to 9");
  expect_element("{\"things\":[{\"id\":1},{\"id\":2,\"places\":[-1,true]}]}", "things[1].places[1]", "an integer, found true");
#undef PART
}

static void expect_strict(const char *body, const char *words) {
  struct arena arena;
  struct error error = ERROR_INIT;
  assert_null(parse_strict(body, &arena, &error));
  if (!strstr(error.text, words)) fail_msg("%s: '%s' does not contain '%s'", body, error.text, words);
  arena_clear(&arena);
}

static void test_sources(void **state) {
  (void)state;
  static const struct {
    const char *body, *texts[3];
  } good[] = {{"{\"source\":\"2-res\"}", {"2-res"}}, {"{\"source\":0}", {"0"}}, {"{\"source\":2.0}", {"2"}},
              {"{\"source\":[0,\"1-x\",2]}", {"0", "1-x", "2"}}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct arena arena;
    struct error error = ERROR_INIT;
    struct values *values = parse_strict(good[i].body, &arena, &error);
    if (!values) fail_msg("%s: %s", good[i].body, error.text);
    size_t n = values_count(values, "source");
    assert_int_equal(n, good[i].texts[1] ? 3 : 1);
    for (size_t k = 0; k < n; k++) assert_string_equal(values_text_at(values, "source", k, NULL), good[i].texts[k]);
    parse_free(values);
    arena_clear(&arena);
  }
  expect_strict("{\"source\":[]}", "'source' must be a string such as '7-res-jb', the integer of a layer, or an array of 1 to 3 of these, found an array of 0");
  expect_strict("{\"source\":[0,1,2,3]}", "an array of 1 to 3 of these, found an array of 4");
  expect_element("{\"source\":[0,-1]}", "source[1]", "a string, or the integer of a layer, found -1");
  expect_element("{\"source\":[\"\"]}", "source[0]", "a string such as '7-res-jb', or the integer of a layer, found the string \"\"");
  expect_strict("{\"source\":true}", "'source' must be a string such as '7-res-jb', the integer of a layer, or an array of 1 to 3 of these, found true");
}

static void test_strict(void **state) {
  (void)state;
  expect_strict("{\"n_token\":1}", "unknown field 'n_token': did you mean 'nTokens'");
  expect_strict("{\"things\":[{\"id\":1,\"place\":[1]}]}", "unknown field 'things[0].place': did you mean 'places'");
  expect_strict("{\"shares\":1}", "unknown field 'shares': did you mean 'weights'");
  expect_strict("{\"share\":1}", "unknown field 'share': GET /docs"); /* such words are taken as they are */
  expect_strict("{\"prose\":1}", "unknown field 'prose': GET /docs"); /* no "prompt" */
  expect_strict("{\"plain\":[4]}", "'plain[0]' must be an object with 'tokens' and 'values', found 4");
  expect_strict("{\"zzzzzzzz\":1}", "unknown field 'zzzzzzzz': GET /docs");
  expect_strict("{\"count\":3,\"n_tokens\":3}", "'nTokens' is given twice, as 'count' and as 'n_tokens'");
  expect_strict("{\"sortIndexes\":[1,2,3,4]}", "'sortIndexes' must be an array of 0 to 3 integers from 0 up, found an array of 4");
  struct arena arena;
  struct error error = ERROR_INIT;
  struct values *values = parse_strict("{\"n_tokens\":null,\"names\":[\"a\",12],\"sort_indexes\":[4]}", &arena, &error);
  assert_non_null(values);
  assert_false(values_has(values, "nTokens"));
  assert_int_equal(values_int(values, "nTokens"), 5);
  assert_string_equal(values_text_at(values, "names", 1, NULL), "12");
  assert_int_equal(values_int_at(values, "sortIndexes", 0), 4);
  parse_free(values);
  arena_clear(&arena);
  /* what JavaScript and others write for a whole number */
  values = parse_strict("{\"n_tokens\":3.0,\"names\":[\"a\",12.0],\"sort_indexes\":[4.0]}", &arena, &error);
  assert_non_null(values);
  assert_int_equal(values_int(values, "nTokens"), 3);
  assert_string_equal(values_text_at(values, "names", 1, NULL), "12");
  assert_int_equal(values_int_at(values, "sortIndexes", 0), 4);
  parse_free(values);
  arena_clear(&arena);
}

static void test_names(void **state) {
  (void)state;
  assert_true(field_same_name("nTokens", "n_tokens"));
  assert_true(field_same_name("model_id", "modelId"));
  assert_false(field_same_name("ntokens", "n_tokens"));
  assert_false(field_same_name("n_tokens_", "n_tokens"));
  assert_false(field_same_name("n_token", "n_tokens"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_strict), cmocka_unit_test(test_sources), cmocka_unit_test(test_elements), cmocka_unit_test(test_elements_of_objects),
      cmocka_unit_test(test_names),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
