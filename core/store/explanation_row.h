/* explanation_row.h: an explanation as a row, for explanations.c and search.c. Private to the room. */
#ifndef STEERD_CORE_STORE_EXPLANATION_ROW_H
#define STEERD_CORE_STORE_EXPLANATION_ROW_H

#include "core/store/store_int.h"

#define EXPLANATION_COLUMNS \
  "e.id, e.feature, e.origin, e.description, e.type, e.model_name, e.author, e.notes, e.score, e.scores," \
  "e.created_at, e.seal, s.model, s.name"
#define EXPLANATION_FROM " FROM explanations e JOIN sources s ON s.id = e.feature >> 32"

/* Takes the columns above. */
int explanation_take(struct row *row, struct store_explanation *out) MUST_CHECK;

/* 1, 0 when there is none, -1. */
int explanation_by_id(struct connection *connection, int64_t id, struct arena *arena, struct store_explanation *out,
                      struct error *error) MUST_CHECK;

#endif
