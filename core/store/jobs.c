/* jobs.c: rows of jobs and of their resume state. A change reads the row, applies itself and writes the row whole, so
 * that the seal covers it. Knows the order of states and not what a job does. */
#include "core/store/store_int.h"

#define JOB_COLUMNS \
  "id, kind, state, done, total, unit, message, parameters, result, error, cancel, created_at, started_at," \
  "updated_at, finished_at, seal"

const char *store_job_word(enum store_job_state state) {
  static const char *const words[] = {"queued", "running", "done", "failed", "cancelled"};
  return (unsigned)state <= STORE_CANCELLED ? words[state] : "unknown";
}

static bool state_ended(int state) { return state >= STORE_DONE; }

/* ---- rows ------------------------------------------------------------------------------------------- */

static int job_take(struct row *row, struct store_job *out) {
  *out = (struct store_job){0};
  out->id = row_int(row);
  out->kind = row_text(row);
  out->state = (enum store_job_state)row_int(row);
  out->done = row_int(row);
  out->total = row_int(row);
  out->unit = row_text(row);
  out->message = row_text(row);
  out->parameters = row_text(row);
  out->result = row_text(row);
  out->error = row_text(row);
  out->cancel = row_int(row) != 0;
  out->created_at = row_text(row);
  out->started_at = row_text(row);
  out->updated_at = row_text(row);
  out->finished_at = row_text(row);
  return row_check_seal(row, "a job's entry");
}

static int job_write(struct connection *writer, const struct store_job *job, struct error *error) {
  struct row row;
  row_open(&row, writer, "INSERT OR REPLACE INTO jobs(" JOB_COLUMNS ") VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", NULL,
           error);
  row_put_int(&row, job->id);
  row_put_text(&row, job->kind);
  row_put_int(&row, job->state);
  row_put_int(&row, job->done);
  row_put_int(&row, job->total);
  row_put_text(&row, job->unit);
  row_put_text(&row, job->message);
  row_put_text(&row, job->parameters);
  row_put_text(&row, job->result);
  row_put_text(&row, job->error);
  row_put_int(&row, job->cancel);
  row_put_text(&row, job->created_at);
  row_put_text(&row, job->started_at);
  row_put_text(&row, job->updated_at);
  row_put_text(&row, job->finished_at);
  row_put_seal(&row);
  return row_run(&row);
}

static int job_by_id(struct connection *connection, int64_t id, struct arena *arena, struct store_job *out,
                     struct error *error) {
  struct row row;
  row_open(&row, connection, "SELECT " JOB_COLUMNS " FROM jobs WHERE id = ?1", arena, error);
  row_put_int(&row, id);
  int got = row_next(&row);
  if (got == 1 && job_take(&row, out) != 0) got = -1;
  row_close(&row);
  return got;
}

static int job_require(struct connection *connection, int64_t id, struct arena *arena, struct store_job *out,
                       struct error *error) {
  int got = job_by_id(connection, id, arena, out, error);
  if (got == 0) return error_set_field(error, ERROR_NOT_FOUND, "id", "there is no job %lld", (long long)id);
  return got == 1 ? 0 : -1;
}

static int parts_drop(struct connection *writer, int64_t id, struct error *error) {
  struct row row;
  row_open(&row, writer, "DELETE FROM job_parts WHERE job = ?1", NULL, error);
  row_put_int(&row, id);
  return row_run(&row);
}

/* ---- the life of a job ------------------------------------------------------------------------------ */

int store_job_create(struct store *store, const char *kind, const char *parameters, int64_t *id,
                     struct error *error) {
  char now[25];
  struct row row;
  struct store_job job = {.kind = kind, .state = STORE_QUEUED, .parameters = parameters};
  job.created_at = job.updated_at = time_or_now(NULL, now);
  if (!kind || !parameters) return error_set(error, ERROR_ARGUMENT, "a job needs a kind and parameters");
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  row_open(&row, writer, "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'jobs'", NULL, error);
  if (row_next(&row) == 1) job.id = row_int(&row);
  row_close(&row);
  int result = row_check(&row);
  if (result == 0) result = job_write(writer, &job, error);
  result = store_writer_end(store, writer, result, error);
  if (result == 0) *id = job.id;
  return result;
}

static void job_enter(struct store_job *job, int state, const char *now) {
  job->state = (enum store_job_state)state;
  if (state == STORE_RUNNING && !job->started_at) job->started_at = now;
  job->finished_at = state_ended(state) ? now : NULL;
}

static void job_apply(struct store_job *job, const struct store_job_update *update, const char *now) {
  if (update->state >= 0 && update->state != (int)job->state) job_enter(job, update->state, now);
  if (update->done >= 0) job->done = update->done;
  if (update->total >= 0) job->total = update->total;
  if (update->unit) job->unit = update->unit;
  if (update->message) job->message = update->message;
  if (update->result) job->result = update->result;
  if (update->error) job->error = update->error;
  job->updated_at = now;
}

static int job_change_checked(struct connection *writer, struct store_job *job, const struct store_job_update *update,
                              struct error *error) {
  char now[25];
  if (update->state > STORE_CANCELLED) return error_set(error, ERROR_ARGUMENT, "a job has no state %d", update->state);
  if (state_ended(job->state) && update->state >= 0 && update->state != (int)job->state)
    return error_set(error, ERROR_ARGUMENT, "job %lld has ended (%s) and cannot be %s", (long long)job->id,
                     store_job_word(job->state), store_job_word((enum store_job_state)update->state));
  job_apply(job, update, time_or_now(NULL, now));
  if (update->state == STORE_DONE && parts_drop(writer, job->id, error) != 0) return -1;
  return job_write(writer, job, error);
}

int job_change(struct connection *writer, int64_t id, const struct store_job_update *update, struct error *error) {
  struct store_job job;
  struct arena arena;
  arena_init(&arena, 0);
  int result = job_require(writer, id, &arena, &job, error);
  if (result == 0) result = job_change_checked(writer, &job, update, error);
  arena_clear(&arena);
  return result;
}

int store_job_update(struct store *store, int64_t id, const struct store_job_update *update, struct error *error) {
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  return store_writer_end(store, writer, job_change(writer, id, update, error), error);
}

/* 1 when the job was still to end. */
static int job_cancel(struct connection *writer, int64_t id, struct arena *arena, struct error *error) {
  struct store_job job;
  char now[25];
  if (job_require(writer, id, arena, &job, error) != 0) return -1;
  if (state_ended(job.state)) return 0;
  job.cancel = true;
  job.updated_at = time_or_now(NULL, now);
  if (job.state == STORE_QUEUED) job_enter(&job, STORE_CANCELLED, now);
  return job_write(writer, &job, error) == 0 ? 1 : -1;
}

int store_job_cancel(struct store *store, int64_t id, struct error *error) {
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int got = job_cancel(writer, id, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, got, error);
}

static int job_resume(struct connection *writer, int64_t id, struct arena *arena, struct error *error) {
  struct store_job job;
  char now[25];
  if (job_require(writer, id, arena, &job, error) != 0) return -1;
  if (job.state == STORE_DONE)
    return error_set_field(error, ERROR_ARGUMENT, "id", "job %lld is done: start a new one", (long long)id);
  job_enter(&job, STORE_QUEUED, NULL);
  job.cancel = false;
  job.error = NULL;
  job.updated_at = time_or_now(NULL, now);
  return job_write(writer, &job, error);
}

int store_job_resume(struct store *store, int64_t id, struct error *error) {
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int result = job_resume(writer, id, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, result, error);
}

static int job_delete(struct connection *writer, int64_t id, struct arena *arena, struct error *error) {
  struct store_job job;
  struct row row;
  int got = job_by_id(writer, id, arena, &job, error);
  if (got != 1) return got;
  if (!state_ended(job.state))
    return error_set(error, ERROR_ARGUMENT, "job %lld is %s: cancel it first", (long long)id,
                     store_job_word(job.state));
  if (parts_drop(writer, id, error) != 0) return -1;
  row_open(&row, writer, "DELETE FROM jobs WHERE id = ?1", NULL, error);
  row_put_int(&row, id);
  return row_run(&row) == 0 ? 1 : -1;
}

int store_job_delete(struct store *store, int64_t id, struct error *error) {
  struct arena arena;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  arena_init(&arena, 0);
  int got = job_delete(writer, id, &arena, error);
  arena_clear(&arena);
  return store_writer_end(store, writer, got, error);
}

/* ---- reading ---------------------------------------------------------------------------------------- */

int store_job_find(struct store *store, int64_t id, struct arena *arena, struct store_job *out, struct error *error) {
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, job_by_id(reader, id, arena, out, error));
}

#define LIST_WHERE " FROM jobs WHERE (?1 < 0 OR state = ?1) AND (?2 IS NULL OR kind = ?2)"

static int jobs_read(struct connection *reader, int state, const char *kind, int64_t offset, int64_t limit,
                     struct arena *arena, struct store_job **out, size_t *n, struct error *error) {
  struct row row;
  if (!(*out = arena_array(arena, (size_t)limit, sizeof **out, error))) return -1;
  *n = 0;
  row_open(&row, reader, "SELECT " JOB_COLUMNS LIST_WHERE " ORDER BY id DESC LIMIT ?3 OFFSET ?4", arena, error);
  row_put_int(&row, state);
  row_put_text(&row, kind);
  row_put_int(&row, limit);
  row_put_int(&row, offset);
  while (row_next(&row) == 1 && job_take(&row, *out + *n) == 0) ++*n;
  row_close(&row);
  return row_check(&row);
}

int store_job_list(struct store *store, int state, const char *kind, int64_t offset, int64_t limit,
                   struct arena *arena, struct store_job **out, size_t *n, struct error *error) {
  if (offset < 0 || limit < 0 || limit > STORE_JOB_PAGE)
    return error_set(error, ERROR_ARGUMENT, "a page of jobs has an offset of 0 or more and a limit of 0 to %d",
                     STORE_JOB_PAGE);
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  return store_reader_end(store, reader, jobs_read(reader, state, kind, offset, limit, arena, out, n, error));
}

/* ---- resume state ----------------------------------------------------------------------------------- */

static int part_put(struct connection *writer, int64_t id, const struct store_job_part *part, struct error *error) {
  struct row row;
  if (!part->data) {
    row_open(&row, writer, "DELETE FROM job_parts WHERE job = ?1 AND part = ?2", NULL, error);
    row_put_int(&row, id);
    row_put_int(&row, part->part);
    return row_run(&row);
  }
  if (part->part < 0 || part->bytes > STORE_PART_MAX)
    return error_set(error, ERROR_LIMIT, "part %d of a job's state has %zu bytes, and may have %zu", part->part,
                     part->bytes, STORE_PART_MAX);
  row_open(&row, writer, "INSERT OR REPLACE INTO job_parts(job, part, data, seal) VALUES(?,?,?,?)", NULL, error);
  row_put_int(&row, id);
  row_put_int(&row, part->part);
  row_put_blob(&row, part->data, part->bytes);
  row_put_seal(&row);
  return row_run(&row);
}

int job_parts_put(struct connection *writer, int64_t id, const struct store_job_part *parts, size_t n,
                  struct error *error) {
  for (size_t i = 0; i < n; i++)
    if (part_put(writer, id, parts + i, error) != 0) return -1;
  return 0;
}

int store_job_part(struct store *store, int64_t id, int part, struct arena *arena, const void **data, size_t *bytes,
                   struct error *error) {
  struct row row;
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  row_open(&row, reader, "SELECT job, part, data, seal FROM job_parts WHERE job = ?1 AND part = ?2", arena, error);
  row_put_int(&row, id);
  row_put_int(&row, part);
  int got = row_next(&row);
  if (got == 1) {
    row_int(&row);
    row_int(&row);
    *data = row_blob(&row, bytes);
    if (row_check_seal(&row, "the state of a job") != 0) got = -1;
  }
  row_close(&row);
  return store_reader_end(store, reader, got);
}
