/* tables.h: logits and neighbours of some features as rows of the store, made in the engine's background. Private to
 * core/lab/. */
#ifndef STEERD_CORE_LAB_TABLES_H
#define STEERD_CORE_LAB_TABLES_H

#include "core/analysis/tables.h"
#include "core/archive.h"
#include "core/lab/lab_int.h"

/* What is made for one feature. */
struct table_row {
  struct feature_logits logits;
  struct feature_neighbours neighbours;
};

/* Features [first, first + n) of a source, made slice by slice. */
struct table_work {
  struct lab *lab;
  const struct lab_source *source;
  const struct model *model;
  int64_t first, n;
  bool logits, neighbours;
  int nearest;                    /* neighbours of each, to TABLE_NEIGHBOURS_MOST; 0: TABLE_NEIGHBOURS */
  struct table_row *rows;         /* [n], given */
  struct decoder_parts **decoder; /* kept between works of one job, freed by table_free_decoder; NULL: of one feature only */
  int64_t done_logits, done_neighbours, next_row, next_part; /* private */
};

/* engine_work.slice for a table_work. */
int table_slice(void *context, struct plan *plan, struct error *error);

/* Blocks the calling thread (never the worker) until the work is done. *cancel, when not NULL, is watched. */
int table_run(struct table_work *work, struct error *error) MUST_CHECK;

/* The same for any work: its `slice` with this context; `done` is not called. */
int table_wait(struct lab *lab, const struct model *model, const struct engine_work *work, void *context, struct error *error) MUST_CHECK;

/* Frees a decoder on the worker, which owns the backend. */
void table_free_decoder(struct lab *lab, const struct model *model, struct decoder_parts *decoder);

/* Fills the STORE_LOGITS and STORE_NEIGHBOURS groups of `out` from a row; arrays in the arena. */
int table_store(const struct table_work *work, const struct table_row *row, struct arena *arena,
                struct store_feature *out, struct error *error) MUST_CHECK;

/* The STORE_LOGITS and STORE_MOMENTS groups alone. Token texts in the arena; the histogram is borrowed. */
int table_store_logits(const struct model *model, const struct feature_logits *logits, struct arena *arena, struct store_feature *out,
                       struct error *error) MUST_CHECK;

#endif
