/* map.h: a map of one source under way: its dictionary's rows to neighbours in the engine's background, neighbours to places on
 * any thread. Private to core/lab/. */
#ifndef STEERD_CORE_LAB_MAP_H
#define STEERD_CORE_LAB_MAP_H

#include "core/analysis/map.h"
#include "core/lab/tables.h"

struct map_work {
  struct lab *lab;
  const struct lab_source *source;
  const struct model *model;
  uint64_t seed;
  /* private */
  struct decoder_parts *decoder;
  struct table_work table; /* of some features at a time */
  struct table_row *rows;  /* [TABLE_QUERIES] */
  int64_t n_live;          /* features with a direction */
  int32_t *live;           /* [n_feat] number of each among them; -1 */
  int64_t asked;           /* features whose neighbours are in */
  struct map_near near;    /* of live features */
  struct map *map;
};

/* ERROR_LIMIT with field "source" beyond MAP_POINTS_MOST features. */
int map_work_check(const struct lab_source_info *source, struct error *error) MUST_CHECK;

/* One slice of the neighbours (worker): 1 when there is more to do, 0 when all are known, -1. Lets go of the decoder at the end. */
int map_work_near(struct map_work *work, struct plan *plan, struct error *error) MUST_CHECK;

/* One step of the layout, as map_step, once neighbours are known. */
int map_work_lay(struct map_work *work, int64_t *done, int64_t *total, struct error *error) MUST_CHECK;

/* places [n_feat], once it is laid out. */
void map_work_places(const struct map_work *work, struct store_place *places);

/* Everything; on the worker where neighbours were begun and not ended (else table_free_decoder first, and decoder NULL). */
void map_work_clear(struct map_work *work);

#endif
