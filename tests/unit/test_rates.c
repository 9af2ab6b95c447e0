/* How often a client may do something, and what becomes of who guesses keys. The clock is the tests' own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "server/doors.h"
#include "server/holds.h"
#include "server/rates.h"

#define SECOND ((int64_t)1000000000)

static const int64_t begin = 5 * SECOND;

/* ---- rates ---- */

static void a_minutes_worth_at_once_then_one_by_one(void **state) {
  (void)state;
  struct rates *rates = rates_new(20, NULL); /* one in three seconds */
  for (int i = 0; i < 20; i++) assert_int_equal(rates_take(rates, 7, begin), 0);
  assert_int_equal(rates_take(rates, 7, begin), 3 * SECOND);
  assert_int_equal(rates_take(rates, 7, begin + SECOND), 2 * SECOND); /* asking in vain costs nothing */
  assert_int_equal(rates_take(rates, 8, begin), 0);                   /* nor is anybody else's */
  assert_int_equal(rates_take(rates, 7, begin + 3 * SECOND), 0);
  assert_int_equal(rates_take(rates, 7, begin + 3 * SECOND), 3 * SECOND);
  for (int i = 0; i < 20; i++) assert_int_equal(rates_take(rates, 7, begin + 100 * SECOND), 0);
  assert_true(rates_take(rates, 7, begin + 100 * SECOND) > 0); /* what was not used in two minutes is no more than one minute's */
  rates_free(rates);
}

static void waiting_is_told_without_counting(void **state) {
  (void)state;
  struct rates *rates = rates_new(1, NULL);
  for (int i = 0; i < 5; i++) assert_int_equal(rates_wait(rates, 7, begin), 0);
  assert_int_equal(rates_take(rates, 7, begin), 0);
  assert_int_equal(rates_wait(rates, 7, begin), 60 * SECOND);
  rates_free(rates);
}

static void many_clients_do_not_shut_each_other_out(void **state) {
  (void)state;
  struct rates *rates = rates_new(1, NULL);
  int refused = 0;
  for (uint64_t client = 1; client <= 100000; client++) refused += rates_take(rates, client, begin) != 0; /* far more than places */
  assert_int_equal(refused, 0);
  assert_true(rates_take(rates, 100000, begin) > 0); /* the last is still known */
  rates_free(rates);
}

static void who_owes_most_is_remembered(void **state) {
  (void)state;
  struct rates *rates = rates_new(20, NULL);
  for (int i = 0; i < 20; i++) assert_int_equal(rates_take(rates, 7, begin), 0);
  for (uint64_t client = 1000; client <= 100000; client++) assert_int_equal(rates_take(rates, client, begin), 0);
  assert_true(rates_take(rates, 7, begin) > 0);
  rates_free(rates);
}

/* ---- doors ---- */

static enum door knock(struct doors *doors, uint64_t address, bool right, int64_t now) {
  int64_t wait = -1;
  enum door door = doors_knock(doors, address, right, right ? 99 : 0, now, &wait);
  assert_int_equal(wait > 0, door == DOOR_LATER);
  return door;
}

static void guessing_is_stopped(void **state) {
  (void)state;
  struct doors *doors = doors_new(NULL);
  for (int i = 0; i < DOORS_WRONG_A_MINUTE; i++) assert_int_equal(knock(doors, 1, false, begin), DOOR_WRONG);
  assert_int_equal(knock(doors, 1, false, begin), DOOR_LATER);
  assert_int_equal(knock(doors, 1, true, begin), DOOR_LATER); /* the right guess is answered as a wrong one */
  assert_int_equal(knock(doors, 2, true, begin), DOOR_OPEN);
  assert_int_equal(knock(doors, 1, true, begin + 2 * SECOND), DOOR_OPEN); /* when a wrong one would be told so again */
  doors_free(doors);
}

static void who_was_let_in_comes_in_again(void **state) {
  (void)state;
  struct doors *doors = doors_new(NULL);
  int64_t wait;
  assert_int_equal(knock(doors, 1, true, begin), DOOR_OPEN);
  for (int i = 0; i < 2 * DOORS_WRONG_A_MINUTE; i++) knock(doors, 1, false, begin);
  assert_int_equal(knock(doors, 1, true, begin), DOOR_OPEN);
  assert_int_equal(doors_knock(doors, 1, true, 98, begin, &wait), DOOR_LATER); /* another right key, new from there */
  assert_int_equal(knock(doors, 2, true, begin), DOOR_OPEN);
  doors_free(doors);
}

/* ---- holds ---- */

enum { MIB = 1 << 20 };

static void one_client_leaves_room_for_others(void **state) {
  (void)state;
  struct holds holds;
  struct hold held[16] = {{0}};
  holds_init(&holds, 8 * MIB);
  int n = 0;
  while (n < 16 && holds_enter(&holds, &held[n], 1, MIB)) n++;
  assert_int_equal(n, 4); /* as much as stays free */
  assert_true(holds_enter(&holds, &held[5], 2, 2 * MIB));
  assert_false(holds_enter(&holds, &held[6], 2, MIB)); /* then 7 of 8 were held, and 3 by the second */
  assert_true(holds_enter(&holds, &held[7], 3, 2 * MIB));
  assert_false(holds_enter(&holds, &held[8], 4, MIB));
  assert_int_equal(holds_total(&holds), 8 * MIB);
  for (int i = 0; i < 16; i++) holds_leave(&holds, &held[i]);
  holds_leave(&holds, &held[0]); /* a second time */
  assert_int_equal(holds_total(&holds), 0);
  assert_true(holds_enter(&holds, &held[0], 1, MIB));
  holds_leave(&holds, &held[0]);
  holds_clear(&holds);
}

static void small_ones_and_the_only_one_always_go(void **state) {
  (void)state;
  struct holds holds;
  struct hold large = {0}, other = {0}, small = {0};
  holds_init(&holds, MIB);
  assert_true(holds_enter(&holds, &large, 1, 5 * MIB));
  assert_false(holds_enter(&holds, &other, 2, HOLDS_SMALL + 1));
  assert_true(holds_enter(&holds, &small, 2, HOLDS_SMALL));
  holds_leave(&holds, &small);
  assert_int_equal(holds_total(&holds), 5 * MIB);
  holds_leave(&holds, &large);
  assert_true(holds_enter(&holds, &other, 2, HOLDS_SMALL + 1));
  holds_leave(&holds, &other);
  holds_clear(&holds);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_minutes_worth_at_once_then_one_by_one), cmocka_unit_test(waiting_is_told_without_counting),
      cmocka_unit_test(many_clients_do_not_shut_each_other_out), cmocka_unit_test(who_owes_most_is_remembered),
      cmocka_unit_test(guessing_is_stopped),
      cmocka_unit_test(who_was_let_in_comes_in_again),           cmocka_unit_test(one_client_leaves_room_for_others),
      cmocka_unit_test(small_ones_and_the_only_one_always_go)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
