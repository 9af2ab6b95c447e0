/* maps.h: the places of features in a map of their source. Part of store.h: include that. A source has a map when any of its
 * features has a row here, imported or computed. */
#ifndef STEERD_CORE_STORE_MAPS_H
#define STEERD_CORE_STORE_MAPS_H

#include "core/store/store.h"

/* NaN in each: not known. */
struct store_place {
  double x, y;     /* in the plane, of no unit; both NaN: a feature without a direction */
  double cluster;  /* 0, 1, ...; -1: in none */
  double sparsity; /* log10 of the firing rate, as it was imported; NaN: what the statistics say */
};

/* Writes places [n] of features 0..n-1 in one transaction; what the source had is gone. ERROR_NOT_FOUND: no such source. */
int store_map_put(struct store *store, int64_t source, const struct store_place *places, size_t n, struct error *error) MUST_CHECK;

/* 1: it has a map; 0; -1. */
int store_map_there(struct store *store, int64_t source, struct error *error) MUST_CHECK;

struct store_map_row {
  uint32_t index;
  struct store_place place;
  double rate;             /* of its statistics; NaN */
  const char *description; /* of an explanation; NULL: the feature has none */
};

/* A row for each explanation of a feature of the map, best first, and one for a feature without any, by index: *out is [*n]. */
int store_map_list(struct store *store, int64_t source, struct arena *arena, struct store_map_row **out, size_t *n,
                   struct error *error) MUST_CHECK;

#endif
