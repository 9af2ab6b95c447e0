/* edit.h: interventions as data. A list of edits belongs to one sequence and is applied in list order at every
 * position it selects; it is lowered, step by step, into the edit items of ops.h.
 *
 * LIFE. The asker fills a list in host memory (edit_list_add copies the vectors). The engine's worker uploads it
 * once (edit_list_upload) when the sequence is admitted, lowers it for each step, and frees it with the
 * sequence. Lists are never shared between sequences.
 *
 * POSITIONS. An edit touches prompt positions (all, or those whose byte in `mask` is 1), generated positions, or
 * both. The position of a generated token counts as generated from the step that feeds it back in.
 *
 * COST. An empty list is no items: the pass is the pass without edits, bit for bit. */
#ifndef STEERD_CORE_ENGINE_EDIT_H
#define STEERD_CORE_ENGINE_EDIT_H

#include <stdbool.h>

#include "core/math/ops.h"

/* One intervention. Vectors are f32 host memory, copied by edit_list_add. */
struct edit {
  struct point point;
  enum edit_kind kind;
  int32_t column_begin, column_end; /* [0, width of the point), or the columns of some heads at attn_z */
  float value;
  const float *v;    /* [column_end - column_begin]; unit length for PROJECT and CAP. NULL for SCALE and FILL */
  const float *enc;  /* FEATURE kinds, same length */
  float bias, threshold, fold; /* FEATURE kinds */
  bool prompt, generated;      /* which positions */
  const uint8_t *mask;         /* [n_mask] prompt positions that take part; NULL: all */
  int32_t n_mask;              /* positions behind the mask do not take part */
};

struct edit_list;

struct edit_list *edit_list_new(struct error *error) MUST_CHECK;
void edit_list_free(struct edit_list *list, struct backend *backend); /* NULL is fine */

/* ERROR_MEMORY; ERROR_ARGUMENT when a vector has a NaN or an infinity. EDIT_ROW_REPLACE is not taken here. */
int edit_list_add(struct edit_list *list, const struct edit *edit, struct error *error) MUST_CHECK;
size_t edit_list_count(const struct edit_list *list); /* 0 for NULL */

/* The first layer that an edit of the list touches; n_layer for an empty list or NULL. */
int32_t edit_list_first_layer(const struct edit_list *list, int32_t n_layer);

/* Copies the vectors into backend memory. Worker only, between runs. */
int edit_list_upload(struct edit_list *list, struct backend *backend, struct error *error) MUST_CHECK;

/* One lowered item and where it applies. */
struct edit_placed {
  int32_t point; /* point_index */
  struct edit_item item;
};

/* Items for rows [row, row + n) of a step that hold positions [position, position + n) of a sequence whose
 * prompt has n_prompt tokens; edits below layer `first` are left out (those rows are not computed there).
 * Appends to *out (grown with realloc), in list order. */
int edit_list_lower(const struct edit_list *list, int32_t row, int32_t position, int32_t n, int32_t n_prompt,
                    int32_t first, struct edit_placed **out, size_t *count, size_t *capacity,
                    struct error *error) MUST_CHECK;

#endif
