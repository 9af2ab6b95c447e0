/* test_api_explanations.c: explanations through api_begin and api_poll: listed, exported, searched, made and removed. */
#include "tests/unit/api_house.h"

#define EXPORT "/api/explanation/export?modelId=tiny&saeId=2-res-jump"

/* Rows are ordered by index; each has the six columns and nothing else. */
static void check_rows(json_t *rows, size_t count) {
  size_t i;
  json_t *row;
  long before = -1;
  assert_int_equal(json_array_size(rows), count);
  json_array_foreach(rows, i, row) {
    assert_int_equal(json_object_size(row), 6);
    assert_string_equal(text_of(row, "modelId"), "tiny");
    assert_string_equal(text_of(row, "layer"), "2-res-jump");
    assert_true(json_is_string(json_object_get(row, "description")));
    long index = atol(text_of(row, "index"));
    assert_true(index >= before);
    before = index;
  }
}

static void test_export(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", EXPORT, NULL);
  assert_true(x.stream);
  assert_string_equal(x.type, "application/json");
  assert_string_equal(x.total, "1203");
  assert_string_equal(x.link, "");
  check_rows(x.json, EXPORTED);
  struct exchange page = expect_ok("GET", EXPORT "&limit=600&offset=601", NULL);
  check_rows(page.json, 600);
  for (size_t i = 0; i < 600; i++)
    assert_true(json_equal(json_array_get(page.json, i), json_array_get(x.json, i + 601)));
  assert_string_equal(page.total, "1203");
  assert_non_null(strstr(page.link, "<http://127.0.0.1:8080" EXPORT "&limit=600&offset=1201>; rel=\"next\""));
  assert_non_null(strstr(page.link, "offset=1>; rel=\"prev\""));
  forget(&x);
  forget(&page);
  x = expect_ok("GET", EXPORT "&limit=10&offset=1200", NULL);
  assert_false(x.stream);
  check_rows(x.json, 3);
  assert_null(strstr(x.link, "next"));
  forget(&x);
  x = expect_ok("GET", EXPORT "&offset=5000", NULL);
  assert_string_equal(x.body, "[]");
  forget(&x);
}

static void test_explanations(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("GET", "/explanations?saeId=2-res-jump&limit=2", NULL);
  check_rows(x.json, 2);
  forget(&x);
  x = expect_ok("GET", "/explanations", NULL); /* every source of the only model */
  assert_int_equal(json_array_size(x.json), EXPORTED + 1);
  forget(&x);
  x = expect_ok("GET", "/explanations?q=fire&saeId=1-res-relu", NULL); /* "fires" without its ending */
  assert_int_equal(json_array_size(x.json), 1);
  json_t *row = json_array_get(x.json, 0);
  assert_string_equal(text_of(row, "description"), "fires on <b>");
  assert_string_equal(text_of(row, "index"), "3");
  assert_non_null(text_of(row, "snippet"));
  forget(&x);
  x = expect_ok("GET", "/explanations?q=number&saeId=1-res-relu", NULL);
  assert_string_equal(x.body, "[]");
  forget(&x);
  x = expect_ok("GET", "/explanations?q=numb&limit=3&offset=3", NULL);
  assert_int_equal(json_array_size(x.json), 3);
  assert_non_null(strstr(x.link, "/explanations?q=numb&limit=3&offset=6>; rel=\"next\""));
  assert_string_equal(x.total, "");
  forget(&x);
  expect_error("GET", "/explanations?q=...", NULL, 400, "argument", "q", "word");
  expect_error("GET", "/explanations?saeId=none", NULL, 404, "not_found", "saeId", "none");
  expect_error("GET", "/explanations?limit=0", NULL, 400, "argument", "limit", "from 1 to 1000000000, found 0");
  expect_error("GET", "/explanations?limit=2&limit=3", NULL, 400, "argument", "limit", "given twice");
  expect_error("GET", "/explanations?saeId=2-res-jump&source=2-res-jump", NULL, 400, "argument", "saeId", "given twice");
}

static void test_search(void **state) {
  (void)state;
  need_house();
  const struct {
    const char *path, *where;
    size_t count;
  } cases[] = {{"/api/explanation/search", "\"modelId\":\"tiny\",\"layers\":[\"2-res-jump\"],", 20},
               {"/api/explanation/search", "\"modelId\":\"tiny\",\"layers\":[\"1-res-relu\"],", 0},
               {"/api/explanation/search", "\"modelId\":\"tiny\",\"layers\":[],", 20},
               {"/api/explanation/search-model", "\"modelId\":\"tiny\",", 20},
               {"/api/explanation/search-release", "\"releaseName\":\"res-jump\",", 20},
               {"/api/explanation/search-release", "\"releaseName\":\"res-relu\",", 0},
               {"/api/explanation/search-all", "", 20}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char body[200];
    snprintf(body, sizeof body, "{%s\"query\":\"odd number\"}", cases[i].where);
    struct exchange x = expect_ok("POST", cases[i].path, body);
    json_t *rows = json_object_get(x.json, "results");
    assert_int_equal(json_array_size(rows), cases[i].count);
    assert_int_equal(json_integer_value(json_object_get(x.json, "resultsCount")), cases[i].count);
    assert_int_equal(json_is_true(json_object_get(x.json, "hasMore")), cases[i].count > 0);
    assert_int_equal(json_integer_value(json_object_get(x.json, "nextOffset")), cases[i].count);
    assert_string_equal(text_of(json_object_get(x.json, "request"), "query"), "odd number");
    if (cases[i].count) assert_int_equal(strncmp(text_of(json_array_get(rows, 0), "description"), "odd", 3), 0);
    forget(&x);
  }
  struct exchange x = expect_ok("POST", "/api/explanation/search-all", "{\"query\":\"odd number\",\"offset\":600}");
  assert_int_equal(json_array_size(json_object_get(x.json, "results")), 1); /* 601 of them are odd */
  assert_null(json_object_get(x.json, "nextOffset"));
  forget(&x);
  x = expect_ok("POST", "/api/explanation/search-all", "{\"query\":\"fires 1202\",\"match\":\"any\"}");
  assert_int_equal(json_array_size(json_object_get(x.json, "results")), 2);
  forget(&x);
  expect_error("POST", "/api/explanation/search-all", "{\"query\":\"ab\"}", 400, "argument", "query", "of 3 to 256");
  expect_error("POST", "/api/explanation/search-all", "{\"query\":\"...\"}", 400, "argument", "query", "");
  expect_error("POST", "/api/explanation/search-release", "{\"releaseName\":\"x\",\"query\":\"abc\"}", 404, "not_found",
               "releaseName", "no source set 'x'");
  expect_error("POST", "/api/explanation/search", "{\"layers\":[\"x-y\"],\"query\":\"abc\"}", 404, "not_found",
               "layers[0]", "x-y");
}

static void test_new_explanation(void **state) {
  (void)state;
  need_house();
  struct exchange x = expect_ok("POST", "/api/explanation/new",
                                "{\"modelId\":\"tiny\",\"layer\":\"1-res-relu\",\"index\":\"5\",\"description\":\"zebras\","
                                "\"typeName\":\"by hand\",\"authorId\":\"ada\",\"score\":0.5}");
  char path[64], gone[80];
  snprintf(path, sizeof path, "/api/explanation/%s", member(&x, "id"));
  snprintf(gone, sizeof gone, "%s/delete", path);
  struct exchange y = expect_ok("GET", path, NULL);
  assert_true(json_equal(x.json, y.json));
  assert_string_equal(member(&y, "origin"), "manual");
  assert_string_equal(member(&y, "source"), "1-res-relu");
  assert_true(json_is_null(json_object_get(y.json, "explanationModelName")));
  forget(&x);
  forget(&y);
  x = expect_ok("GET", "/explanations?q=zebra", NULL);
  assert_int_equal(json_array_size(x.json), 1);
  forget(&x);
  x = expect_ok("POST", gone, NULL);
  assert_string_equal(member(&x, "message"), "Success");
  forget(&x);
  expect_error("GET", path, NULL, 404, "not_found", "id", "no explanation");
  expect_error("POST", gone, NULL, 404, "not_found", "id", "no explanation");
  expect_error("GET", "/api/explanation/x", NULL, 404, "not_found", "id", "'x'");
  expect_error("POST", "/api/explanation/new", "{\"layer\":\"1-res-relu\",\"index\":99999,\"description\":\"a\"}", 404,
               "not_found", "index", "99999");
  expect_error("POST", "/api/explanation/new", "{\"layer\":\"1-res-relu\",\"index\":1,\"description\":\"\"}", 400,
               "argument", "description", "empty string");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_export),
      cmocka_unit_test(test_explanations),
      cmocka_unit_test(test_search),
      cmocka_unit_test(test_new_explanation),
  };
  return cmocka_run_group_tests(tests, open_house, close_house);
}
