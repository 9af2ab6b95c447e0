/* Other threads load, take and give back while the worker records a step: neither is refused anything for the other's sake, and nothing of theirs
 * comes into what is recorded. CUDA has rules for such calls (cudaStreamBeginCapture's modes). Needs a library (STEERD_CUDA_LIBRARY); on the
 * emulated one a call of each kind is made in the middle of every recording, on a real one when it happens so. */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/cuda_library.h"
#include "tests/unit/ops_world.h"

enum { N_OUT = 70, N_IN = 90, LARGE = 65 << 20 /* the driver's, where small blocks are a pool's */ };

/* Asks for all that others than the worker may ask for (ops.h), again and again, or once when it is told to. */
struct neighbour {
  struct backend *backend;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  int asked, done; /* rounds */
  bool over, freely;
  struct error error; /* the first */
  bool failed;
};

static int load_and_drop(struct backend *backend, const struct matrix_part *part, bool passing, struct error *error) {
  struct matrix_wish wish = {.dtype = DTYPE_BF16, .aside = true, .passing = passing};
  struct matrix *matrix = NULL;
  int failed = backend->ops->matrix_new_as(backend, part, 1, N_IN, &wish, &matrix, error);
  if (!failed) backend->ops->matrix_free(backend, matrix);
  return failed;
}

static int take_and_drop(struct backend *backend, size_t bytes, struct error *error) {
  static const float four[4] = {1, 2, 3, 4};
  struct memory *memory = NULL;
  int failed = backend->ops->alloc(backend, bytes, &memory, error);
  if (!failed) failed = backend->ops->write(backend, (struct span){memory, 16}, four, sizeof four, error);
  backend->ops->free(backend, memory);
  return failed;
}

static int one_round(struct backend *backend, const struct matrix_part *part, struct error *error) {
  size_t left, total;
  if (load_and_drop(backend, part, true, error) != 0 || load_and_drop(backend, part, false, error) != 0) return -1;
  if (take_and_drop(backend, 4096, error) != 0 || take_and_drop(backend, LARGE, error) != 0) return -1;
  return backend->ops->room(backend, &left, &total, error);
}

static void *live_beside(void *argument) {
  struct neighbour *n = argument;
  struct file file = file_new(DTYPE_F32, ROWS_ARE_INPUTS, N_OUT, N_IN, 77, 1);
  pthread_mutex_lock(&n->mutex);
  while (!n->over) {
    if (!n->freely && n->asked == n->done) {
      pthread_cond_wait(&n->changed, &n->mutex);
      continue;
    }
    pthread_mutex_unlock(&n->mutex);
    struct error error = ERROR_INIT;
    int failed = one_round(n->backend, &file.part, &error);
    pthread_mutex_lock(&n->mutex);
    if (failed && !n->failed) n->failed = true, n->error = error;
    n->done++;
    pthread_cond_broadcast(&n->changed);
  }
  pthread_mutex_unlock(&n->mutex);
  free(file.block);
  return NULL;
}

static void neighbour_begin(struct neighbour *n, struct backend *backend, bool freely) {
  *n = (struct neighbour){.backend = backend, .freely = freely};
  pthread_mutex_init(&n->mutex, NULL);
  pthread_cond_init(&n->changed, NULL);
  assert_int_equal(pthread_create(&n->thread, NULL, live_beside, n), 0);
}

static void neighbour_end(struct neighbour *n) {
  pthread_mutex_lock(&n->mutex);
  n->over = true;
  pthread_cond_broadcast(&n->changed);
  pthread_mutex_unlock(&n->mutex);
  pthread_join(n->thread, NULL);
  pthread_cond_destroy(&n->changed);
  pthread_mutex_destroy(&n->mutex);
  if (n->failed) fail_msg("beside a recording: %s", n->error.text);
}

/* Called by the worker while it records: the neighbour does a round meanwhile, in front of the first calls of each recording. */
static int rounds_left;
static void when_recording(void *context) {
  struct neighbour *n = context;
  if (rounds_left == 0) return;
  rounds_left--;
  pthread_mutex_lock(&n->mutex);
  n->asked++;
  pthread_cond_broadcast(&n->changed);
  while (n->done < n->asked) pthread_cond_wait(&n->changed, &n->mutex);
  pthread_mutex_unlock(&n->mutex);
}

/* Steps of one kind: launched, recorded and repeated; launched twice where the first one makes scratch grow, which drops what is recorded. */
static void four_times(struct world *world, const struct step_slot *slots, int n_slots) {
  float logits[4][64 * 61];
  size_t n = (size_t)slots[n_slots - 1].rows.end * (size_t)world->shape.vocabulary;
  for (int turn = 0; turn < 4; turn++) {
    world_step(world, slots, n_slots);
    rounds_left = 3;
    world_run(world);
    must_read(world->backend, logits[turn], world->logits, n);
    if (turn) same_bits("a step beside others' calls", logits[turn], logits[0], n);
  }
}

/* One row, two texts, and as many rows as go to the library. */
static void test_beside_recordings(void **state) {
  (void)state;
  static const struct shape *const shapes[] = {&small_shape, &gated_shape};
  for (int turn = 0; turn < 4; turn++) {
    struct world *world = world_new("cuda", 1, shapes[turn % 2]);
    struct neighbour n;
    long captures = emulated.counts ? count(CAPTURES) : 0, replays = emulated.counts ? count(REPLAYS) : 0;
    neighbour_begin(&n, world->backend, !emulated.recording);
    if (emulated.recording) emulated.recording(when_recording, &n);
    four_times(world, (struct step_slot[]){{{0, 1}, 3, 0, 2}}, 1);
    four_times(world, (struct step_slot[]){{{0, 1}, 3, 0, 2}, {{1, 2}, 9, 0, 2}}, 2);
    four_times(world, (struct step_slot[]){{{0, 40}, 0, 0, 2}, {{40, 41}, 9, 0, 2}}, 2);
    if (emulated.recording) emulated.recording(NULL, NULL);
    neighbour_end(&n);
    if (emulated.recording) {
      assert_int_equal(n.done, 3 * 3);
      assert_int_equal(count(CAPTURES) - captures, 3);
      assert_true(count(REPLAYS) - replays >= 3 * 2);
    }
    world_free(world);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_beside_recordings), cmocka_unit_test(test_nothing_is_left)};
  return find_library() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
