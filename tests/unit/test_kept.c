/* The list of finished replies: by target and generation, bounded, shared by threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/kept.h"
#include "core/base/arena.h"

static struct api_reply reply_of(const char *body) {
  static const struct api_pair headers[] = {{"X-Total-Count", "7"}, {"Link", "<a>"}};
  return (struct api_reply){.status = 200, .content_type = "application/json", .headers = headers, .n_headers = 2,
                            .body = body, .body_length = strlen(body)};
}

static void add(struct kept_replies *replies, const char *target, uint64_t generation, const char *body) {
  char copy[4096]; /* what is added may go at once */
  snprintf(copy, sizeof copy, "%s", body);
  struct api_reply reply = reply_of(copy);
  kept_add(replies, target, generation, FAMILY_LAB, NULL, &reply);
  memset(copy, 'x', sizeof copy);
}

static void expect(struct kept_replies *replies, const char *target, uint64_t generation, const char *body) {
  struct kept *kept = kept_find(replies, target, generation);
  if (!body) {
    assert_null(kept);
    return;
  }
  assert_non_null(kept);
  const struct api_reply *reply = kept_reply(kept);
  assert_int_equal(reply->body_length, strlen(body));
  assert_memory_equal(reply->body, body, strlen(body));
  assert_string_equal(reply->content_type, "application/json");
  assert_string_equal(reply->headers[0].name, "X-Total-Count");
  assert_string_equal(reply->headers[1].value, "<a>");
  assert_ptr_equal(reply->kept, kept);
  assert_int_equal(kept_family(kept), FAMILY_LAB);
  kept_release(kept);
}

static void test_by_target_and_generation(void **state) {
  (void)state;
  struct kept_replies replies;
  kept_init(&replies, 1 << 20);
  add(&replies, "/a", 1, "one");
  add(&replies, "/b", 1, "two");
  expect(&replies, "/a", 1, "one");
  expect(&replies, "/b", 1, "two");
  expect(&replies, "/a?", 1, NULL);
  expect(&replies, "/a", 2, NULL);  /* the store has moved on: gone for good */
  expect(&replies, "/a", 1, NULL);
  add(&replies, "/b", 2, "three");
  add(&replies, "/b", 2, "four"); /* two that were made at once: one stays */
  expect(&replies, "/b", 2, "four");
  struct kept_counts counts = kept_count(&replies);
  assert_int_equal(counts.hits, 3);
  assert_int_equal(counts.misses, 3);
  kept_clear(&replies);
}

static void test_bound(void **state) {
  (void)state;
  struct kept_replies replies;
  char body[1001], target[32];
  memset(body, 'a', 1000);
  body[1000] = '\0';
  kept_init(&replies, 32000);
  add(&replies, "/dear", 1, body);
  for (int i = 0; i < 100; i++) {
    expect(&replies, "/dear", 1, body); /* asked for again and again: stays */
    snprintf(target, sizeof target, "/%d", i);
    add(&replies, target, 1, body);
    assert_true(kept_count(&replies).bytes <= 32000);
  }
  expect(&replies, "/dear", 1, body);
  expect(&replies, "/99", 1, body);
  expect(&replies, "/0", 1, NULL);
  assert_true(kept_count(&replies).bytes > 16000);
  char large[2100];
  memset(large, 'b', sizeof large - 1);
  large[sizeof large - 1] = '\0';
  add(&replies, "/large", 1, large); /* more than a sixteenth */
  expect(&replies, "/large", 1, NULL);
  char *endless = malloc(KEPT_TARGET_MOST + 3);
  memset(endless, '/', KEPT_TARGET_MOST + 2);
  endless[KEPT_TARGET_MOST + 2] = '\0';
  add(&replies, endless, 1, "x");
  expect(&replies, endless, 1, NULL);
  free(endless);
  kept_clear(&replies);
  kept_init(&replies, 0);
  add(&replies, "/a", 1, "");
  expect(&replies, "/a", 1, NULL);
  kept_clear(&replies);
}

/* A share outlives its place in the list. */
static void test_share_of_a_dropped_one(void **state) {
  (void)state;
  struct kept_replies replies;
  kept_init(&replies, 1 << 20);
  add(&replies, "/a", 1, "one");
  struct kept *kept = kept_find(&replies, "/a", 1);
  expect(&replies, "/a", 2, NULL);
  assert_int_equal(kept_count(&replies).bytes, 0);
  kept_pack(&replies, kept, strdup("packed"), 6); /* counted nowhere any more */
  assert_int_equal(kept_count(&replies).bytes, 0);
  assert_memory_equal(kept_reply(kept)->body, "one", 3);
  kept_clear(&replies);
  kept_release(kept);
}

static void test_packed(void **state) {
  (void)state;
  struct kept_replies replies;
  const char *bytes;
  size_t length;
  kept_init(&replies, 1 << 20);
  add(&replies, "/a", 1, "one");
  struct kept *kept = kept_find(&replies, "/a", 1);
  int64_t before = kept_count(&replies).bytes;
  assert_false(kept_packed(&replies, kept, &bytes, &length));
  kept_pack(&replies, kept, strdup("packed"), 6);
  kept_pack(&replies, kept, strdup("again"), 5); /* the first stays: it may be on its way */
  assert_true(kept_packed(&replies, kept, &bytes, &length));
  assert_int_equal(length, 6);
  assert_memory_equal(bytes, "packed", 6);
  assert_int_equal(kept_count(&replies).bytes, before + 6);
  kept_release(kept);
  add(&replies, "/b", 1, "two");
  kept = kept_find(&replies, "/b", 1);
  kept_pack(&replies, kept, NULL, 0); /* does not pay */
  assert_true(kept_packed(&replies, kept, &bytes, &length));
  assert_null(bytes);
  kept_release(kept);
  kept_clear(&replies);
}

static int dropped;
static void drop(void *prepared) {
  (void)prepared;
  dropped++;
}

static void test_prepared(void **state) {
  (void)state;
  struct kept_replies replies;
  int things[3];
  dropped = 0;
  kept_init(&replies, 1 << 20);
  add(&replies, "/a", 1, "one");
  struct kept *kept = kept_find(&replies, "/a", 1);
  assert_null(kept_take_prepared(kept, false));
  assert_true(kept_put_prepared(kept, false, &things[0], drop));
  assert_false(kept_put_prepared(kept, false, &things[1], drop));
  assert_true(kept_put_prepared(kept, true, &things[2], drop));
  assert_ptr_equal(kept_take_prepared(kept, false), &things[0]);
  assert_null(kept_take_prepared(kept, false));
  kept_release(kept);
  kept_clear(&replies);
  assert_int_equal(dropped, 1); /* the one that lay there */
}

/* ---- threads: for the sanitizers, and for the rule that a generation never shows another's body --------- */

enum { TURNS = 20000, TARGETS = 16 };

static struct kept_replies shared;

static void *ask_and_add(void *context) {
  uint64_t seed = (uint64_t)(uintptr_t)context;
  for (int i = 0; i < TURNS; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    uint64_t generation = 1 + (uint64_t)i / 2000;
    char target[32], body[64];
    snprintf(target, sizeof target, "/%d", (int)(seed >> 33) % TARGETS);
    snprintf(body, sizeof body, "%s of %llu", target, (unsigned long long)generation);
    struct kept *kept = kept_find(&shared, target, generation);
    if (!kept) {
      add(&shared, target, generation, body);
      continue;
    }
    bool same = kept_reply(kept)->body_length == strlen(body) && !memcmp(kept_reply(kept)->body, body, strlen(body));
    if (i % 7 == 0) kept_pack(&shared, kept, strdup("packed"), 6);
    kept_release(kept);
    if (!same) return "another reply than asked for";
  }
  return NULL;
}

static void test_threads(void **state) {
  (void)state;
  pthread_t threads[4];
  kept_init(&shared, 4096); /* so that replies come and go */
  for (uintptr_t i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, ask_and_add, (void *)(i + 1)), 0);
  for (int i = 0; i < 4; i++) {
    void *wrong = NULL;
    pthread_join(threads[i], &wrong);
    assert_null(wrong);
  }
  kept_clear(&shared);
}

/* ---- what the door reuses ------------------------------------------------------------------------------ */

static void test_arena_reset(void **state) {
  (void)state;
  struct arena arena;
  arena_init(&arena, 1 << 20);
  char *first = arena_alloc(&arena, 100, NULL);
  memset(first, 'x', 100);
  assert_non_null(arena_alloc(&arena, 200000, NULL)); /* a block of its own: given back */
  arena_reset(&arena);
  assert_int_equal(arena.used, 0);
  char *again = arena_alloc(&arena, 100, NULL);
  assert_ptr_equal(again, first);
  for (int i = 0; i < 100; i++) assert_int_equal(again[i], 0);
  arena_clear(&arena);
  arena_reset(&arena);
  assert_null(arena.head);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_by_target_and_generation), cmocka_unit_test(test_bound),
      cmocka_unit_test(test_share_of_a_dropped_one),   cmocka_unit_test(test_packed),
      cmocka_unit_test(test_prepared),                 cmocka_unit_test(test_threads),
      cmocka_unit_test(test_arena_reset),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
