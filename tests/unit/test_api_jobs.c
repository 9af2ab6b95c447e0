/* test_api_jobs.c: long jobs through api_begin and api_poll: started, followed, stopped, resumed, refused to strangers, and
 * watched by clients that leave. */
#include "tests/unit/api_house.h"

#define JOB(fields) "{\"kind\":\"stats\",\"source\":\"1-res-relu\"," fields "}"

static const char *corpus(int lines) {
  static char path[96];
  snprintf(path, sizeof path, "%s/corpus-%d.txt", folder, lines);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  for (int i = 0; i < lines; i++) fprintf(file, "the %d lines of a text that says nothing\n", i);
  assert_int_equal(fclose(file), 0);
  return path;
}

static int64_t start_job(const char *path) {
  char body[300];
  snprintf(body, sizeof body, "{\"kind\":\"stats\",\"modelId\":\"tiny\",\"source\":\"2-res-jump\",\"corpus\":\"%s\","
                              "\"lines\":true,\"nTop\":2,\"n_quantile\":1,\"window\":16}", path);
  struct exchange x = expect_ok("POST", "/v1/jobs", body);
  int64_t id = json_integer_value(json_object_get(x.json, "id"));
  assert_true(id > 0);
  assert_string_equal(member(&x, "kind"), "stats");
  const char *members[] = {"state", "done", "total", "unit", "share", "rate", "secondsLeft", "message", "cancelling",
                           "error", "resumable", "notResumable", "parameters", "result", "createdAt", "startedAt", "updatedAt", "finishedAt"};
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
    if (!json_object_get(x.json, members[i])) fail_msg("a job has no '%s': %s", members[i], x.body);
  forget(&x);
  return id;
}

/* Follows a job to its end: within one unit (documents, then features) progress never goes back, and the last event
 * alone tells the end. */
static void follow_job(int64_t id, const char *end) {
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld/events", (long long)id);
  struct exchange x = expect_ok("GET", path, NULL);
  assert_string_equal(x.type, "text/event-stream; charset=utf-8");
  json_int_t before = 0;
  char unit[32] = "";
  int events = 0;
  for (char *at = x.body, *stop; (stop = strstr(at, "\n\n")); at = stop + 2, events++) {
    assert_int_equal(strncmp(at, "data: ", 6), 0);
    json_t *event = json_loadb(at + 6, (size_t)(stop - at - 6), 0, NULL);
    const char *now = json_string_value(json_object_get(event, "unit"));
    bool same = strcmp(unit, now ? now : "") == 0;
    assert_true(!same || json_integer_value(json_object_get(event, "done")) >= before);
    snprintf(unit, sizeof unit, "%s", now ? now : "");
    before = json_integer_value(json_object_get(event, "done"));
    const char *state = text_of(event, "state");
    bool open = strcmp(state, "queued") == 0 || strcmp(state, "running") == 0;
    assert_int_equal(open, stop[2] != '\0');
    if (!open) assert_string_equal(state, end);
    json_decref(event);
  }
  assert_true(events > 0);
  forget(&x);
}

static void test_jobs(void **state) {
  (void)state;
  need_house();
  int64_t id = start_job(corpus(3));
  follow_job(id, "done");
  follow_job(id, "done"); /* of a job that has ended: one event */
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  struct exchange x = expect_ok("GET", path, NULL);
  assert_string_equal(member(&x, "state"), "done");
  forget(&x);
  x = expect_ok("GET", "/v1/jobs", NULL);
  assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(x.json, "jobs"), 0), "id")), id);
  forget(&x);
  expect_error("GET", "/v1/jobs/x", NULL, 404, "not_found", "id", "no job 'x'");
  expect_error("GET", "/v1/jobs/99999", NULL, 404, "not_found", NULL, "99999");
  expect_error("GET", "/v1/jobs/99999/events", NULL, 404, "not_found", NULL, "99999");
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/none\",\"windw\":9"), 400, "argument", "windw", "did you mean 'window'");
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/none\",\"window\":7"), 400, "argument", "window", "from 8 to 256");
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/none/at/all\""), 404, "not_found", "corpus", "/none/at/all");
  expect_error("POST", "/v1/jobs", "{\"kind\":\"trian\",\"source\":\"1-res-relu\"}", 400, "argument", "kind", "'stats'");
  expect_error("POST", "/v1/jobs", "{\"kind\":\"train\",\"corpus\":\"/x\",\"source\":\"1-res-relu\"}", 400, "argument", "source", "leave it out");
  expect_error("POST", "/v1/jobs", "{\"kind\":\"train\",\"corpus\":\"/x\",\"point\":\"resid_pre.1\"}", 400, "argument", "out", "required");
  expect_error("POST", "/v1/jobs", "{\"kind\":\"stats\",\"corpus\":\"/x\"}", 400, "argument", "source", "required");
  expect_error("POST", "/v1/jobs", JOB("\"corpus\":\"/x\",\"k\":3"), 400, "argument", "k", "'train'");
}

static void test_job_stops_and_goes_on(void **state) {
  (void)state;
  need_house();
  int64_t id = start_job(corpus(20000));
  char path[64], resume[80];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  snprintf(resume, sizeof resume, "%s/resume", path);
  for (int i = 0; i < 2; i++) {
    struct exchange x = expect_ok("DELETE", path, NULL);
    forget(&x);
    follow_job(id, "cancelled");
    if (i) break;
    x = expect_ok("POST", resume, NULL);
    assert_true(strcmp(member(&x, "state"), "queued") == 0 || strcmp(member(&x, "state"), "running") == 0);
    forget(&x);
  }
}

/* Whether job `id` says that it can be resumed, and if not why, in these words; POST does what it says. */
static void expect_resumable(int64_t id, const char *why) {
  char path[64], resume[80];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  snprintf(resume, sizeof resume, "%s/resume", path);
  struct exchange x = expect_ok("GET", path, NULL);
  const char *told = member(&x, "notResumable");
  if (json_is_true(json_object_get(x.json, "resumable")) != !why || !told != !why || (why && !strstr(told, why)))
    fail_msg("wanted '%s': %s", why ? why : "resumable", x.body);
  forget(&x);
  if (why) {
    expect_error("POST", resume, NULL, 409, "conflict", "id", why);
    return;
  }
  x = expect_ok("POST", resume, NULL);
  forget(&x);
}

/* Resuming is offered where it can lead somewhere: not to a text on which the job failed, nor to one that is gone. */
static void test_resumable(void **state) {
  (void)state;
  need_house();
  const char *empty = corpus(0);
  int64_t id = start_job(empty);
  follow_job(id, "failed");
  expect_resumable(id, "those that it failed on; start a new job");
  FILE *file = fopen(empty, "w"); /* another text in the same place */
  assert_non_null(file);
  fputs("now it says something\n", file);
  fclose(file);
  expect_resumable(id, NULL);
  follow_job(id, "done");
  struct exchange x;
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  x = expect_ok("GET", path, NULL);
  assert_true(json_is_false(json_object_get(x.json, "resumable")));
  assert_string_equal(member(&x, "notResumable"), "it is done: start a new one");
  forget(&x);
  const char *long_text = corpus(20000);
  id = start_job(long_text);
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  x = expect_ok("DELETE", path, NULL);
  forget(&x);
  follow_job(id, "cancelled");
  unlink(long_text);
  expect_resumable(id, "is not a file that can be read");
  corpus(20000);
  expect_resumable(id, NULL);
  x = expect_ok("DELETE", path, NULL);
  forget(&x);
  follow_job(id, "cancelled");
}

/* A job as an earlier process left it, which failed or was stopped. */
static int64_t left_behind(const char *kind, const char *parameters) {
  int64_t id;
  must(store_job_create(lab_store(lab), kind, parameters, &id, &error));
  must(store_job_cancel(lab_store(lab), id, &error)); /* the runner may have been quicker: then it fails */
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld", (long long)id);
  for (int i = 0; i < 10000; i++) {
    struct exchange x = expect_ok("GET", path, NULL);
    const char *now = member(&x, "state");
    bool ended = strcmp(now, "failed") == 0 || strcmp(now, "cancelled") == 0;
    forget(&x);
    if (ended) break;
    usleep(1000);
  }
  return id;
}

static void test_never_resumable(void **state) {
  (void)state;
  need_house();
  char parameters[400];
  snprintf(parameters, sizeof parameters, "{\"modelId\":\"tiny\",\"source\":\"7-res-gone\",\"corpus\":\"%s\"}", corpus(3));
  expect_resumable(left_behind("stats", parameters), "'7-res-gone'");
  expect_resumable(left_behind("eval", parameters), "'7-res-gone'");
  expect_resumable(left_behind("eval", "{\"modelId\":\"other\"}"), "other");
  expect_resumable(left_behind("paint", "{}"), "jobs of kind 'paint' are not run");
  expect_resumable(left_behind("train", "{\"architecture\":\"topk\",\"point\":\"resid_pre.9\"}"), "");
  snprintf(parameters, sizeof parameters, "{\"modelId\":\"tiny\",\"source\":\"2-res-jump\",\"corpus\":\"%s\",\"window\":7}", corpus(3));
  expect_resumable(left_behind("stats", parameters), "window is 7, allowed are 8 to 256");
}

/* Only this machine, or a client with a key, may have files read. */
static void test_strangers(void **state) {
  (void)state;
  need_house();
  const struct {
    const char *method, *path;
    int status;
  } cases[] = {{"POST", "/v1/jobs", 403}, {"DELETE", "/v1/jobs/1", 403}, {"POST", "/v1/jobs/1/resume", 403},
               {"GET", "/v1/jobs", 200}, {"GET", "/v1/jobs/1", 200}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    bool starts = i == 0;
    struct api_request request = make_request(cases[i].method, cases[i].path,
                                              starts ? JOB("\"corpus\":\"/etc/passwd\"") : NULL);
    request.trusted = false;
    struct exchange x = send_request(&request);
    assert_int_equal(x.status, cases[i].status);
    if (x.status == 403) assert_string_equal(member(&x, "code"), "forbidden");
    forget(&x);
  }
}

/* Reads what there is; -1 at the end of the stream, 0 when the next event must be waited for. */
static ssize_t read_events(struct api_call *call) {
  char window[4096];
  ssize_t n;
  while ((n = api_read(call, window, sizeof window)) > 0) continue;
  return n;
}

/* A client that leaves, and a server that stops, end the stream of a job that says nothing. */
static void test_watchers_leave(void **state) {
  (void)state;
  need_house();
  int64_t id;
  must(store_job_create(lab_store(lab), "stats", "{}", &id, &error));
  struct store_job_update running = STORE_JOB_UPDATE_INIT; /* taken from the queue by nobody: it says nothing */
  running.state = STORE_RUNNING;
  must(store_job_update(lab_store(lab), id, &running, &error));
  char path[64];
  snprintf(path, sizeof path, "/v1/jobs/%lld/events", (long long)id);
  struct bell bell = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
  struct api_request request = make_request("GET", path, NULL);
  for (int i = 0; i < 3; i++) {
    struct api_reply reply;
    struct api_call *call = api_begin(api, &request, bell_ring, &bell);
    assert_int_equal(api_poll(call, &reply), 1);
    assert_true(reply.stream);
    assert_int_equal(read_events(call), 0);
    bell.count = 0;
    if (i == 1) api_cancel(call);
    if (i == 2) api_drain(api);
    if (i > 0) bell_wait(&bell);
    if (i > 0) assert_int_equal(read_events(call), -1);
    api_end(call);
  }
  assert_int_equal(api_in_flight(api), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_jobs),
      cmocka_unit_test(test_job_stops_and_goes_on),
      cmocka_unit_test(test_resumable),
      cmocka_unit_test(test_never_resumable),
      cmocka_unit_test(test_strangers),
      cmocka_unit_test(test_watchers_leave), /* last: the house shuts down */
  };
  return cmocka_run_group_tests(tests, open_house, close_house);
}
