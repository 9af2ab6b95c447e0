/* Completions at the front door: choices are the same alone, in company and in turn; pieces read while they grow are the whole;
 * a token that ends a turn; jobs that are left. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/complete.h"
#include "tests/unit/lab_waiter.h"

#define TINY "tests/vectors/tiny-gpt2/"

static const struct lab_source_spec source = {"tiny", "1-res-relu", TINY "sources/1-res-relu"};
static const struct lab_model_spec model = {"tiny", TINY "model"};
static const struct lab_input prompts[] = {{.text = "The ship turned", .length = 15}, {.text = "A letter", .length = 8}};
static const struct lab_steer_feature feature = {"1-res-relu", 3, 6};

static struct lab *open_lab(int sessions) {
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = &source, .n_sources = 1, .backend = "cpu",
                                .threads = 1, .max_queue = 32, .max_step_rows = 64, .max_sessions = sessions,
                                .queue_timeout_ms = 60000, .generation_timeout_ms = 60000};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static struct lab_complete_args some(struct lab *lab, int n, bool steered) {
  struct lab_complete_args args = {.model = lab_find_model(lab, NULL, NULL), .prompts = prompts, .n_prompts = 2, .listed = true,
                                   .n = n, .n_tokens = 20, .temperature = 0.9, .top_p = 1, .seed = 4, .n_logprobs = -1,
                                   .ends_turn = -1,
                                   .steering = {.strength_multiplier = 1, .special_tokens = true, .prefix = "", .source_field = "source"}};
  if (steered) args.steering.features = &feature, args.steering.n_features = 1;
  return args;
}

static struct lab_job *start(struct lab *lab, const struct lab_complete_args *args) {
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  if (lab_complete(lab, args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  return job;
}

/* What is new of a choice goes behind `text`. */
static const char *read_on(struct lab_job *job, size_t choice, struct lab_seen *seen, char *text, int64_t *n_tokens) {
  struct error error = ERROR_INIT;
  struct lab_news news;
  struct arena arena;
  arena_init(&arena, 0);
  assert_int_equal(lab_complete_read(job, choice, seen, &arena, &news, &error), 0);
  strncat(text, news.text, news.length);
  *n_tokens = news.n_tokens;
  const char *finish = news.finish;
  arena_clear(&arena);
  return finish;
}

static const char *whole(struct lab_job *job, size_t choice, char *text, int64_t *n_tokens) {
  struct lab_seen seen = {0};
  text[0] = '\0';
  return read_on(job, choice, &seen, text, n_tokens);
}

enum { TEXT = 2000, MOST = 16 };

static void run(struct lab *lab, const struct lab_complete_args *args, char texts[][TEXT]) {
  struct lab_job *job = start(lab, args);
  int64_t n;
  assert_int_equal(wait_for(job), LAB_JOB_DONE);
  for (size_t i = 0; i < args->n_prompts * (size_t)args->n; i++) assert_string_equal(whole(job, i, texts[i], &n), "length");
  lab_job_free(job);
}

/* Two sessions: eight choices run in turn, and share the lists of their prompts. */
static void test_in_turn(void **state) {
  (void)state;
  struct lab *wide = open_lab(16), *narrow = open_lab(2);
  for (int steered = 0; steered < 2; steered++) {
    static char a[MOST][TEXT], b[MOST][TEXT], one[MOST][TEXT];
    struct lab_complete_args args = some(wide, 4, steered);
    run(wide, &args, a);
    args = some(narrow, 4, steered);
    run(narrow, &args, b);
    for (int i = 0; i < 8; i++) assert_string_equal(a[i], b[i]);
    assert_string_not_equal(a[0], a[1]);
    args.n = 1;
    run(narrow, &args, one);
    assert_string_equal(one[0], a[0]);
    assert_string_equal(one[1], a[4]);
  }
  lab_close(wide);
  lab_close(narrow);
}

static void test_pieces(void **state) {
  (void)state;
  struct lab *lab = open_lab(16);
  struct lab_complete_args args = some(lab, 3, true);
  static const char *const stops[] = {"e ", "it"};
  args.stops = stops;
  args.n_stops = 2;
  args.n_logprobs = 2;
  struct lab_job *job = start(lab, &args);
  static char grown[6][TEXT], text[TEXT];
  struct lab_seen seen[6] = {{0}};
  int64_t n;
  memset(grown, 0, sizeof grown);
  while (lab_job_state(job) != LAB_JOB_DONE)
    for (size_t i = 0; i < 6; i++) (void)read_on(job, i, &seen[i], grown[i], &n);
  for (size_t i = 0; i < 6; i++) {
    (void)read_on(job, i, &seen[i], grown[i], &n);
    const char *finish = whole(job, i, text, &n);
    assert_string_equal(grown[i], text);
    assert_true(!strstr(text, "e ") && !strstr(text, "it"));
    assert_true(strcmp(finish, "stop") == 0 ? n <= 20 : n == 20);
  }
  lab_job_free(job);
  lab_close(lab);
}

/* The tokens of a greedy text, one by one: a text ends in front of each. */
static void test_token_that_ends_a_turn(void **state) {
  (void)state;
  struct lab *lab = open_lab(16);
  struct lab_complete_args args = some(lab, 1, false);
  args.temperature = 0;
  args.n_prompts = 1;
  args.n_logprobs = 0;
  struct lab_job *job = start(lab, &args);
  struct error error = ERROR_INIT;
  struct lab_news news;
  struct lab_seen seen = {0};
  struct arena arena;
  arena_init(&arena, 0);
  assert_int_equal(wait_for(job), LAB_JOB_DONE);
  assert_int_equal(lab_complete_read(job, 0, &seen, &arena, &news, &error), 0);
  assert_int_equal(news.n_scored, 20);
  for (size_t i = 0; i < 6; i++) {
    size_t first = 0;
    while (news.scored[first].id != news.scored[i].id) first++;
    args.ends_turn = news.scored[i].id;
    struct lab_job *shorter = start(lab, &args);
    char text[TEXT];
    int64_t n;
    assert_int_equal(wait_for(shorter), LAB_JOB_DONE);
    assert_string_equal(whole(shorter, 0, text, &n), "stop");
    assert_int_equal(n, first);
    assert_int_equal(strlen(text), first ? news.scored[first].offset : 0);
    assert_memory_equal(text, news.text, strlen(text));
    lab_job_free(shorter);
  }
  arena_clear(&arena);
  lab_job_free(job);
  lab_close(lab);
}

static void test_nothing_to_generate(void **state) {
  (void)state;
  struct lab *lab = open_lab(2);
  struct lab_complete_args args = some(lab, 2, false);
  args.n_tokens = 0;
  args.n_logprobs = 1;
  args.judge_prompts = true;
  struct lab_job *job = start(lab, &args);
  struct error error = ERROR_INIT;
  struct lab_prompt_read prompt;
  struct arena arena;
  char text[TEXT];
  int64_t n;
  arena_init(&arena, 0);
  assert_int_equal(wait_for(job), LAB_JOB_DONE);
  for (size_t i = 0; i < 4; i++) {
    assert_string_equal(whole(job, i, text, &n), "length");
    assert_string_equal(text, "");
  }
  assert_int_equal(lab_complete_prompt(job, 1, &arena, &prompt, &error), 1);
  assert_string_equal(prompt.text, "A letter");
  assert_true(prompt.scored[0].logprob != prompt.scored[0].logprob && prompt.scored[1].logprob < 0);
  arena_clear(&arena);
  lab_job_free(job);
  lab_close(lab);
}

/* Left at any moment, also while edits still run what they need; nobody else notices. */
static void test_jobs_that_are_left(void **state) {
  (void)state;
  struct lab *lab = open_lab(3);
  static const struct lab_input from = {.text = "A ship came", .length = 11};
  static const struct lab_edit mean = {.op = LAB_EDIT_MEAN, .point = "blocks.1.hook_attn_out", .index = -1, .from = &from,
                                       .special = true, .include_error = true};
  static char want[MOST][TEXT], got[MOST][TEXT];
  struct lab_complete_args args = some(lab, 2, true);
  run(lab, &args, want);
  for (int round = 0; round < 20; round++) {
    struct lab_complete_args other = some(lab, 1 + round % 5, round % 2);
    other.steering.edits = &mean;
    other.steering.n_edits = round % 3 == 0;
    struct lab_job *job = start(lab, &other);
    usleep((useconds_t)(round * 300));
    if (round % 2) lab_job_cancel(job);
    lab_job_free(job);
    run(lab, &args, got);
    for (int i = 0; i < 4; i++) assert_string_equal(got[i], want[i]);
  }
  lab_close(lab);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_turn), cmocka_unit_test(test_pieces),
                                     cmocka_unit_test(test_token_that_ends_a_turn), cmocka_unit_test(test_nothing_to_generate),
                                     cmocka_unit_test(test_jobs_that_are_left)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
