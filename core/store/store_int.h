/* store_int.h: what the files of this room share: taking turns on the writer and the readers, keys, small queries.
 * Private to the room. */
#ifndef STEERD_CORE_STORE_STORE_INT_H
#define STEERD_CORE_STORE_STORE_INT_H

#include "core/store/connection.h"
#include "core/store/store.h"

/* The writer in an open transaction, or NULL. end commits when result >= 0, else undoes; it returns result, or -1. */
struct connection *store_writer(struct store *store, struct error *error) MUST_CHECK;
int store_writer_end(struct store *store, struct connection *writer, int result, struct error *error) MUST_CHECK;

/* Folds the log into the file and empties it, as far as readers let it. */
void store_fold(struct store *store);

/* A reader that sees one moment, or NULL. Waits for one to be free. end returns result. */
struct connection *store_reader(struct store *store, struct error *error) MUST_CHECK;
int store_reader_end(struct store *store, struct connection *reader, int result);

/* Keys are packed so that a source's rows, and a feature's, lie side by side in one b-tree:
 *   feature  source << 32 | index        example  feature << 12 | slot        explanation  source << 32 | serial
 * source is at most 2^18, so every key is positive and explanation numbers stay exact in a double. */
static inline int64_t feature_key(int64_t source, uint32_t index) { return source << 32 | (int64_t)index; }
static inline int64_t source_first(int64_t source) { return source << 32; }
static inline int64_t source_last(int64_t source) { return source << 32 | (int64_t)UINT32_MAX; }
static inline int64_t key_source(int64_t key) { return key >> 32; }
static inline uint32_t key_index(int64_t key) { return (uint32_t)key; }

/* 0, or ERROR_NOT_FOUND. */
int source_require(struct connection *connection, int64_t source, struct error *error) MUST_CHECK;

/* The row of a source: 1, 0 when there is none, -1. It is written as it stands, statistics included. */
int source_by_name(struct connection *connection, const char *model, const char *name, struct arena *arena, struct store_source *out,
                   struct error *error) MUST_CHECK;
int source_by_number(struct connection *connection, int64_t id, struct arena *arena, struct store_source *out,
                     struct error *error) MUST_CHECK;
int source_write(struct connection *writer, const struct store_source *source, int64_t id, const char *created,
                 struct error *error) MUST_CHECK;
int64_t source_number(struct connection *writer, struct error *error) MUST_CHECK; /* for a new one; -1 */

int model_by_id(struct connection *connection, const char *id, struct arena *arena, struct store_model *out,
               struct error *error) MUST_CHECK;
int model_row_write(struct connection *writer, const struct store_model *model, const char *created, struct error *error) MUST_CHECK;

/* The number of rows a counting statement gives; -1. The parameter may be NULL. */
int64_t rows_count(struct connection *reader, const char *sql, const char *parameter, struct error *error) MUST_CHECK;

/* given, or the present time in now[25]. */
const char *time_or_now(const char *given, char now[25]);

/* The parts of a batch that other files know; the connection is in a write transaction. */
int explanation_insert(struct connection *writer, const struct store_explanation *explanation, int64_t *id,
                       struct error *error) MUST_CHECK;
int explanations_of(struct connection *reader, int64_t source, uint32_t index, struct arena *arena,
                    const struct store_explanation **out, size_t *n, struct error *error) MUST_CHECK;
/* The best of a feature by its key: 1, 0 when it has none, -1. */
int explanation_best(struct connection *reader, int64_t feature, struct arena *arena, struct store_explanation *out,
                     struct error *error) MUST_CHECK;
int explanations_clear(struct connection *writer, int64_t source, struct error *error) MUST_CHECK;
/* Every origin's, of features by their keys; and everything else that is stored of these features. */
int explanations_forget(struct connection *writer, int64_t first, int64_t last, struct error *error) MUST_CHECK;
int features_forget(struct connection *writer, int64_t first, int64_t last, struct error *error) MUST_CHECK;
int features_clear(struct connection *writer, int64_t source, struct error *error) MUST_CHECK;
int evaluations_clear(struct connection *writer, int64_t source, struct error *error) MUST_CHECK;
int moments_put(struct connection *writer, int64_t feature, const struct store_moments *moments, struct error *error) MUST_CHECK;
int place_put(struct connection *writer, int64_t feature, const struct store_place *place, struct error *error) MUST_CHECK;
void place_take(struct row *row, struct store_place *out);
int job_change(struct connection *writer, int64_t id, const struct store_job_update *update,
               struct error *error) MUST_CHECK;
int job_parts_put(struct connection *writer, int64_t id, const struct store_job_part *parts, size_t n,
                  struct error *error) MUST_CHECK;
int examples_put(struct connection *writer, int64_t feature, const struct store_example *examples, size_t n,
                 struct error *error) MUST_CHECK;
int feature_put(struct connection *writer, int64_t source, const struct store_feature *feature, struct error *error) MUST_CHECK;
int feature_read(struct connection *reader, int64_t source, uint32_t index, size_t most, struct arena *arena,
                 struct store_feature *out, struct error *error) MUST_CHECK;
int examples_add(struct connection *writer, int64_t feature, const struct store_example *examples, size_t n,
                 struct error *error) MUST_CHECK;
int examples_of(struct connection *reader, int64_t feature, size_t most, struct arena *arena,
                const struct store_example **out, size_t *n, struct error *error) MUST_CHECK;

#endif
