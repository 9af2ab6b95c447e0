/* edit.h: interventions as data. A list of edits belongs to one sequence and is applied in list order at every
 * position it selects; it is lowered, step by step, into the edit items of ops.h.
 *
 * LIFE. The asker fills a list in host memory (edit_list_add copies the vectors). The engine's worker uploads it
 * (edit_list_upload) once the sequence is admitted, a piece between two steps, lowers it for each step, and frees it with the
 * sequence. Lists are never shared between sequences.
 *
 * POSITIONS. An edit touches prompt positions (all, or those whose byte in `mask` is 1), generated positions, or
 * both. The position of a generated token counts as generated from the step that feeds it back in.
 *
 * DICTIONARY EDITS (`dict` set) need every activation of a row: splices, and changes of features that depend on each
 * other (TopK) or that leave the error term out. They are lowered to marks, one where the dictionary reads and one
 * at each point it writes; slot.c does the rest between two pieces of a pass. A layer of a cross-layer transcoder without its
 * error puts what it writes in the place of its own layer's row, and adds to the rows of the layers behind: such edits go
 * together, one for each layer from 0 on, higher layers first in the list, and write no layer that has none (n_targets).
 *
 * COST. An empty list is no items: the pass is the pass without edits, bit for bit. */
#ifndef STEERD_CORE_ENGINE_EDIT_H
#define STEERD_CORE_ENGINE_EDIT_H

#include <stdbool.h>

#include "core/base/digest.h"
#include "core/dict/dict.h"
#include "core/math/ops.h"

/* One intervention. Vectors are f32 host memory, copied by edit_list_add. */
struct edit {
  struct point point;  /* of a dictionary edit: not used, the dictionary says it */
  enum edit_kind kind;
  int32_t column_begin, column_end; /* [0, width of the point), or those of some heads where the point has heads */
  float value;
  const float *v;    /* [column_end - column_begin]; unit length for PROJECT and CAP; NULL for SCALE and FILL; for
                        REPLACE one such row for every position of the mask that takes part, in their order */
  const float *enc;  /* FEATURE kinds, same length */
  float bias, threshold, fold; /* FEATURE kinds */
  bool prompt, generated;      /* which positions */
  const uint8_t *mask;         /* [n_mask] prompt positions that take part; NULL: all. Of REPLACE generated ones too */
  int32_t n_mask;              /* such positions behind the mask do not take part */

  const struct dict *dict;     /* a dictionary edit: the fields from `kind` to `fold` are not used. Borrowed */
  bool with_error;             /* what the dictionary does not explain stays: only the changes go into the stream */
  int32_t n_targets;           /* the first so many of the points it writes; 0: all */
  const struct edit_feature *features; /* [n_features], copied; applied in order */
  int32_t n_features;
};

struct edit_list;

struct edit_list *edit_list_new(struct error *error) MUST_CHECK;
void edit_list_free(struct edit_list *list, struct backend *backend); /* NULL is fine */

/* One owner more of a list that is complete: each frees it, the last one's call does. Not thread-safe: all shares are taken
 * before one is handed over. NULL is fine. */
struct edit_list *edit_list_share(struct edit_list *list);

/* ERROR_MEMORY; ERROR_ARGUMENT when a vector has a NaN or an infinity (scores may have -inf). REPLACE needs a mask. */
int edit_list_add(struct edit_list *list, const struct edit *edit, struct error *error) MUST_CHECK;
size_t edit_list_count(const struct edit_list *list); /* 0 for NULL */

/* The dictionary whose matrices edit i, below the count, needs; NULL: none. */
const struct dict *edit_list_dict(const struct edit_list *list, size_t i);

/* The first layer that an edit of the list touches; n_layer for an empty list or NULL. */
int32_t edit_list_first_layer(const struct edit_list *list, int32_t n_layer);

/* The lowest layer above `layer` that an edit of the list touches; INT32_MAX: none. */
int32_t edit_list_next_layer(const struct edit_list *list, int32_t layer);

/* Names what the edits at layers <= `layer` do at positions [position, position + n), n <= 64, of a sequence whose prompt has n_prompt
 * tokens: lists that do the same there, bit for bit, have the same name, all zeros for nothing. False: it has none (given rows,
 * dictionary edits, and edits of scores and patterns, whose columns mean other keys in another text). */
bool edit_list_digest(const struct edit_list *list, int32_t layer, int32_t position, int32_t n, int32_t n_prompt,
                      struct digest *out);

/* Goes on copying the vectors into backend memory, at most *budget bytes of them, which it takes off *budget. Worker only, between
 * runs. */
int edit_list_upload(struct edit_list *list, struct backend *backend, size_t *budget, struct error *error) MUST_CHECK;
bool edit_list_ready(const struct edit_list *list); /* everything is there, or nothing is needed; NULL too */

/* The dictionary edit behind a mark. */
struct edit_slot {
  const struct dict *dict;
  bool with_error;
  int32_t target; /* of a mark that writes: which of its points */
  const struct edit_feature *features; /* ascending by index; changes of one feature in their order */
  int32_t n_features;
};

enum edit_mark { MARK_NONE, MARK_READ, MARK_WRITE, MARK_BOTH };

/* One lowered item and where it applies. A marked one has the rows of a dictionary edit, and no item of its own. */
struct edit_placed {
  int32_t point; /* point_index */
  enum edit_mark mark;
  struct edit_slot slot;
  struct edit_item item;
};

/* Items for rows [row, row + n) of a step that hold positions [position, position + n) of a sequence whose
 * prompt has n_prompt tokens; edits below layer `first` are left out (those rows are not computed there).
 * Appends to *out (grown with realloc), in list order. */
int edit_list_lower(const struct edit_list *list, int32_t row, int32_t position, int32_t n, int32_t n_prompt,
                    int32_t first, struct edit_placed **out, size_t *count, size_t *capacity,
                    struct error *error) MUST_CHECK;

#endif
