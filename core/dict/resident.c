/* resident.c: prepared encoders and the memory they take together: one is there from its first use until others need the room.
 * Knows no formula: a matrix is a matrix.
 *
 * The lists, the counts and `matrix` are under the budget's mutex. Any thread may prepare; a matrix is used and dropped by one, the
 * engine's worker, so that nothing is dropped while it is multiplied with. A dictionary that is closed is not in use by then. */
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/checked.h"
#include "core/dict/dict_internal.h"

struct dict_budget {
  pthread_mutex_t mutex;
  struct resident *newest, *oldest; /* those prepared, by last use */
  struct dict_budget_stats stats;
};

struct resident {
  struct dict_budget *budget; /* NULL: it stays once it is prepared */
  struct backend *backend;
  struct matrix_part part;
  int64_t n_in;
  enum dtype keep;            /* DTYPE_OTHER: as in the file */
  struct matrix *matrix;      /* NULL: not prepared */
  uint64_t serial;            /* of the matrix: no other ever has it */
  int held;                   /* not dropped while more than 0 */
  struct resident *newer, *older;
  atomic_size_t bytes;        /* of the matrix */
};

/* ---- the budget ---- */

struct dict_budget *dict_budget_new(size_t limit, struct error *error) {
  struct dict_budget *budget = calloc(1, sizeof *budget);
  if (!budget) return error_memory(error, sizeof *budget), NULL;
  pthread_mutex_init(&budget->mutex, NULL);
  budget->stats.limit = limit;
  return budget;
}

void dict_budget_free(struct dict_budget *budget) {
  if (!budget) return;
  pthread_mutex_destroy(&budget->mutex);
  free(budget);
}

void dict_budget_stats(struct dict_budget *budget, struct dict_budget_stats *out) {
  pthread_mutex_lock(&budget->mutex);
  *out = budget->stats;
  pthread_mutex_unlock(&budget->mutex);
}

/* The four below: under the mutex. */

static void link_newest(struct dict_budget *budget, struct resident *r) {
  r->newer = NULL;
  r->older = budget->newest;
  *(budget->newest ? &budget->newest->newer : &budget->oldest) = r;
  budget->newest = r;
}

static void unlink_one(struct dict_budget *budget, struct resident *r) {
  *(r->newer ? &r->newer->older : &budget->newest) = r->older;
  *(r->older ? &r->older->newer : &budget->oldest) = r->newer;
}

static void count_in(struct dict_budget *budget, struct resident *r) {
  link_newest(budget, r);
  budget->stats.bytes += r->matrix->bytes;
  budget->stats.prepared++;
}

static struct matrix *take_out(struct dict_budget *budget, struct resident *r) {
  struct matrix *matrix = r->matrix;
  unlink_one(budget, r);
  budget->stats.bytes -= matrix->bytes;
  atomic_store(&r->bytes, 0);
  r->matrix = NULL;
  return matrix;
}

static atomic_uint_least64_t serials;

/* ---- one encoder ---- */

static void lock(const struct resident *r) {
  if (r->budget) pthread_mutex_lock(&r->budget->mutex);
}

static void unlock(const struct resident *r) {
  if (r->budget) pthread_mutex_unlock(&r->budget->mutex);
}

static int prepare(struct resident *r, bool aside, struct error *error) {
  const struct matrix_wish wish = {.dtype = r->keep, .aside = aside, .passing = true};
  struct matrix *matrix;
  if (r->backend->ops->matrix_new_as(r->backend, &r->part, 1, r->n_in, &wish, &matrix, error) != 0) return -1;
  lock(r);
  bool late = r->matrix != NULL; /* another thread was faster */
  if (!late) {
    r->matrix = matrix;
    r->serial = atomic_fetch_add(&serials, 1) + 1;
    atomic_store(&r->bytes, matrix->bytes);
    if (r->budget) count_in(r->budget, r);
  }
  unlock(r);
  if (late) r->backend->ops->matrix_free(r->backend, matrix);
  return 0;
}

/* The matrix, now the newest and held `hold` times more; NULL when it is not prepared. */
static struct matrix *touch(struct resident *r, int hold) {
  lock(r);
  struct matrix *matrix = r->matrix;
  if (matrix) r->held += hold;
  if (matrix && r->budget) {
    unlink_one(r->budget, r);
    link_newest(r->budget, r);
  }
  unlock(r);
  return matrix;
}

size_t resident_size(const struct resident *r) {
  size_t bytes;
  enum dtype dtype = r->keep == DTYPE_OTHER ? r->part.dtype : r->keep;
  return checked_mul((size_t)r->part.n_out * (size_t)r->n_in, dtype_size(dtype), &bytes) ? bytes : SIZE_MAX;
}

size_t resident_limit(const struct resident *r) {
  struct dict_budget_stats stats = {0};
  if (r->budget) dict_budget_stats(r->budget, &stats);
  return stats.limit;
}

/* Whether it is prepared at once: the room must be there without dropping another. */
static bool has_room(const struct resident *r) {
  struct dict_budget_stats stats;
  size_t bytes = resident_size(r);
  if (!r->budget) return true;
  dict_budget_stats(r->budget, &stats);
  return !stats.limit || (bytes <= stats.limit && stats.bytes <= stats.limit - bytes);
}

struct resident *resident_new(const struct dict_memory *memory, struct backend *backend, const struct matrix_part *part,
                              int64_t n_in, struct error *error) {
  static const struct dict_memory plain = {NULL, DTYPE_OTHER, false};
  struct resident *r = calloc(1, sizeof *r);
  if (!r) return error_memory(error, sizeof *r), NULL;
  if (!memory) memory = &plain;
  r->budget = memory->budget;
  r->backend = backend;
  r->part = *part;
  r->n_in = n_in;
  r->keep = memory->keep == part->dtype ? DTYPE_OTHER : memory->keep;
  if (!has_room(r) || prepare(r, memory->aside, error) == 0) return r;
  free(r);
  return NULL;
}

struct resident *resident_beside(const struct resident *like, const struct matrix_part *part, int64_t n_in, struct error *error) {
  struct resident *r = calloc(1, sizeof *r);
  if (!r) return error_memory(error, sizeof *r), NULL;
  r->budget = like->budget;
  r->backend = like->backend;
  r->part = *part;
  r->n_in = n_in;
  r->keep = DTYPE_OTHER;
  return r;
}

void resident_free(struct resident *r) {
  if (!r) return;
  assert(!r->held);
  struct matrix *matrix = r->matrix;
  if (r->budget) {
    pthread_mutex_lock(&r->budget->mutex);
    matrix = r->matrix ? take_out(r->budget, r) : NULL;
    pthread_mutex_unlock(&r->budget->mutex);
  }
  r->backend->ops->matrix_free(r->backend, matrix);
  free(r);
}

size_t resident_bytes(const struct resident *r) { return atomic_load(&((struct resident *)(uintptr_t)r)->bytes); }

/* Drops the one used longest ago; false: there is none. Neither the one in use, nor one that is held, nor the newest, which somebody
 * has just prepared to use it. */
static bool drop_oldest(struct dict_budget *budget, const struct resident *used, bool only_above) {
  struct matrix *matrix = NULL;
  struct backend *backend = NULL;
  pthread_mutex_lock(&budget->mutex);
  bool above = budget->stats.limit && budget->stats.bytes > budget->stats.limit;
  struct resident *victim = above || !only_above ? budget->oldest : NULL;
  while (victim && (victim == used || victim->held)) victim = victim->newer;
  if (victim && victim != budget->newest) {
    backend = victim->backend;
    matrix = take_out(budget, victim);
    budget->stats.dropped++;
  }
  pthread_mutex_unlock(&budget->mutex);
  if (matrix) backend->ops->matrix_free(backend, matrix);
  return matrix != NULL;
}

void dict_budget_trim(struct dict_budget *budget) {
  while (drop_oldest(budget, NULL, true)) continue;
}

bool resident_prepared(const struct resident *r) {
  lock(r);
  bool prepared = r->matrix != NULL;
  unlock(r);
  return prepared;
}

int resident_prepare(struct resident *r, struct error *error) { return touch(r, 0) ? 0 : prepare(r, true, error); }

/* Where the backend has no room, others make it, whatever the limit says. */
static int prepare_somehow(struct resident *r, struct error *error) {
  struct error why = ERROR_INIT;
  while (prepare(r, false, &why) != 0) {
    if (why.code != ERROR_MEMORY || !r->budget || !drop_oldest(r->budget, r, false)) return error_set(error, why.code, "%s", why.text);
    error_clear(&why);
  }
  return 0;
}

static int use(struct resident *r, int hold, const struct matrix **out, struct error *error) {
  while (!(*out = touch(r, hold)))
    if (prepare_somehow(r, error) != 0) return -1;
  while (r->budget && drop_oldest(r->budget, r, true)) continue;
  return 0;
}

int resident_use(struct resident *r, const struct matrix **out, struct error *error) { return use(r, 0, out, error); }

int resident_hold(struct resident *r, const struct matrix **out, uint64_t *serial, struct error *error) {
  if (use(r, 1, out, error) != 0) return -1;
  *serial = r->serial; /* it stays as it is while it is held */
  return 0;
}

void resident_release(struct resident *r) {
  lock(r);
  r->held--;
  unlock(r);
}
