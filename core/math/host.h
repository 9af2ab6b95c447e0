/* host.h: what the backends that live in host memory share: memory blocks, and reading a step's tables.
 *
 * Private to core/math: nobody above the backends may look inside a `struct memory`. */
#ifndef STEERD_CORE_MATH_HOST_H
#define STEERD_CORE_MATH_HOST_H

#include <stddef.h>

#include "core/base/error.h"
#include "core/math/ops.h"

struct memory {
  unsigned char *data; /* aligned to 64 bytes, zeroed when it was made */
  size_t bytes;        /* as asked for */
  void *mapping;       /* of large blocks: what munmap takes; NULL for blocks from the heap */
  size_t mapped;
};

/* The memory verbs of struct ops. Blocks of HOST_HUGE bytes or more are mapped on a 2 MiB boundary and offered
 * to the kernel for huge pages; their pages come into being when they are first touched. */
#define HOST_HUGE ((size_t)2 << 20)
int host_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error) MUST_CHECK;
void host_free(struct backend *backend, struct memory *memory);
int host_write(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error);
int host_read(struct backend *backend, void *to, struct span from, size_t bytes, struct error *error);
int host_copy(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error);

/* The floats at a span, NULL when it is absent. */
static inline float *span_floats(struct span span) {
  return span.memory ? (float *)(void *)(span.memory->data + span.offset) : NULL;
}

static inline float *rows_at(struct rows rows, int64_t row) { return span_floats(rows.at) + row * rows.ld; }

/* Element (out, in) of a part, counted from its data. */
static inline int64_t part_element(const struct matrix_part *part, int64_t out, int64_t in) {
  int64_t begin = part->run ? out / part->run * part->run_stride : 0;
  if (part->run) out %= part->run;
  return begin + (part->layout == ROWS_ARE_OUTPUTS ? out * part->ld + in : in * part->ld + out);
}

/* The matrix that parts make: kept in the type they share, in f32 where they differ, or as `wished` unless that is DTYPE_OTHER. */
struct matrix parts_describe(const struct matrix_part *parts, int n_parts, int64_t n_in, enum dtype wished);

/* The rows an op works on. */
struct row_range op_rows(const struct op *op, const struct step *step);

/* The row of the step that stands in row `row` of an op's buffers: the items of points are told in rows of the step. */
static inline int32_t op_step_row(const struct op *op, const struct step *step, int32_t row) {
  return op->set == ROWS_LOGIT ? step->logit_row[row] : row;
}

/* Edits and taps of a point; counts are 0 where the step has no tables. */
struct point_items {
  const struct edit_item *edits;
  const struct tap_item *taps;
  int n_edits, n_taps;
};
struct point_items point_items(const struct step *step, int layer, enum site site);

/* The part of an edit that falls into columns [column, column + width) of its point. */
struct edit_window {
  int64_t first, n; /* elements [first, first + n) counted from `column`; n <= 0: none */
  int64_t skip;     /* elements of the item's vectors that belong to earlier columns */
};
static inline struct edit_window edit_window(const struct edit_item *item, int64_t column, int64_t width) {
  int64_t begin = item->column_begin > column ? item->column_begin : column;
  int64_t end = item->column_end < column + width ? item->column_end : column + width;
  return (struct edit_window){begin - column, end - begin, begin - item->column_begin};
}

/* Whether the way back through an edit asks what was in front of it (struct vjp). */
static inline bool edit_asks(enum edit_kind kind) {
  return kind == EDIT_ROW_CAP || kind == EDIT_ROW_FEATURE_SET || kind == EDIT_ROW_FEATURE_SCALE;
}

static inline bool row_in(struct row_range range, int32_t row) { return range.begin <= row && row < range.end; }

/* An edit of the list covers the row. */
static inline bool items_edit(const struct point_items *items, int32_t row) {
  for (int i = 0; i < items->n_edits; i++)
    if (row_in(items->edits[i].rows, row)) return true;
  return false;
}

/* The blocks of a slot, however the step tells them; block NULL: it tells none. */
static inline struct kv_pages kv_pages_of(const struct step *step, int slot) {
  if (step->kv_pages) return step->kv_pages[slot];
  size_t at = (size_t)slot * (size_t)step->n_layer * (size_t)step->kv_blocks;
  return (struct kv_pages){step->kv_table ? step->kv_table + at : NULL, step->kv_blocks, 0};
}

/* Block number of (slot, layer, block of positions). */
static inline int32_t kv_block_of(const struct step *step, int slot, int layer, int block) {
  struct kv_pages pages = kv_pages_of(step, slot);
  return pages.block[(size_t)layer * (size_t)pages.stride + (size_t)block];
}

/* A slot's rows take part in layer l. */
static inline bool slot_active(const struct step_slot *slot, int layer) {
  return slot->first <= layer && layer < slot->last;
}

/* First position that the query at `position` sees. */
static inline int32_t window_begin(int32_t position, int32_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

#endif
