/* rows.cuh: the stages of a row between two products (struct row_args), for whoever does them: rows.cu by themselves,
 * rows_tensor.cu in front of a product. */
#ifndef STEERD_CORE_MATH_CUDA_ROWS_CUH
#define STEERD_CORE_MATH_CUDA_ROWS_CUH

#include "core/math/cuda/row.cuh"

/* Which of them a row goes through. */
struct row_stages {
  bool sums, arrives, norms;
  bool added; /* the sum is in h already */
};

static __device__ __forceinline__ row_stages stages_of(const row_args &a, int row) {
  const table *t = a.table;
  row_stages s;
  s.sums = a.sub_layer >= 0 && row_within(rows_of(t, a.sub_set, a.sub_layer), row);
  s.arrives = a.begin_layer >= 0 && row_within(rows_of(t, ROWS_ARRIVING, a.begin_layer), row);
  s.norms = a.norm_layer >= 0 && row_within(rows_of(t, a.norm_set, a.norm_layer), row);
  s.added = false;
  return s;
}

/* Of a row that arrives: it comes from its origin, not from the layer below. */
static __device__ __forceinline__ bool begins_here(const row_args &a, int row) {
  const step_slot *slots = table_pointer(&a.table->slots);
  return a.origins && __ldcg(&slots[__ldcg(table_pointer(&a.table->slot) + row)].first) == a.begin_layer;
}

/* A row that arrives otherwise is worked on where it has a point here; if not, others may be copying it. */
static __device__ __forceinline__ bool has_point(const row_args &a, const row_stages &stages) {
  return stages.arrives && a.begin_point >= 0;
}

template <class E> struct embedded {
  E bits;
  float place;
};

/* An embedding of 32 or of 16 bits an element, and what is added for its place; NULL: nothing. */
template <class E, class T>
static __device__ __forceinline__ void embed_row(T team, const row_args &a, int64_t token, const float *place, float *h) {
  const E *from = (const E *)a.embed.data + token * a.embed.ld;
  team.each(0, a.width,
            [=](int i) {
              embedded<E> own = {from[i], place ? place[i] : 0};
              return own;
            },
            [&](int i, embedded<E> own) {
              float x = weight_value(own.bits, a.embed.dtype) * a.embed_scale;
              h[i] = place ? x + own.place : x;
            });
}

template <class T> static __device__ __forceinline__ void begin_row(T team, const row_args &a, int row, float *h) {
  const table *t = a.table;
  int64_t source = t->source ? t->source[row] : 0;
  int origin = t->origin[row];
  if (origin == ORIGIN_FORK) {
    copy_row(team, row_at(a.resid, source), h, a.width);
  } else if (origin == ORIGIN_SAVED) {
    copy_row(team, t->saved + source * a.width, h, a.width);
  } else if (a.embedded.at && a.positions) {
    add_rows(team, row_at(a.embedded, row), row_at(a.placed, row), h, a.width);
  } else if (a.embedded.at) {
    copy_row(team, row_at(a.embedded, row), h, a.width);
  } else {
    const float *place = a.positions ? a.positions + t->position[row] * a.width : NULL;
    if (a.embed.dtype == DTYPE_F32)
      embed_row<float>(team, a, t->token[row], place, h);
    else
      embed_row<unsigned short>(team, a, t->token[row], place, h);
  }
}

/* The points of the stages, in their order. */
enum { OUT_POINT, RESID_POINT, BEGIN_POINT, ROW_POINTS };

static __device__ __forceinline__ int stage_point(const row_args &a, const row_stages &stages, int which) {
  if (which == BEGIN_POINT) return stages.arrives ? a.begin_point : -1;
  return !stages.sums ? -1 : which == OUT_POINT ? a.out_point : a.resid_point;
}

/* The row that items of these points name. */
static __device__ __forceinline__ int stage_row(const row_args &a, const row_stages &stages, int which, int row) {
  return which != BEGIN_POINT && stages.sums ? step_row(a.table, a.sub_set, row) : row;
}

/* In front of grid_follow, and read behind a barrier of the team: all of their items. */
template <class T>
static __device__ __forceinline__ void find_points(T team, const row_args &a, const row_stages &stages, int row, point_items<T> found[ROW_POINTS]) {
#pragma unroll 1
  for (int i = 0; i < ROW_POINTS; i++) find_point(team, a.table, stage_point(a, stages, i), stage_row(a, stages, i, row), &found[i]);
}

/* h, the row of the residual, as it is behind its sums and edits. `out`: what the sublayer gave, where the row sums; overwritten. */
template <class T>
static __device__ __forceinline__ void change_row(T team, const row_args &a, const row_stages &stages, int row, float *h, float *out,
                                                  const point_items<T> found[ROW_POINTS]) {
  if (stages.sums && a.out_norm.kind != NORM_NONE) norm_row(team, a.out_norm, a.width, out, out);
#pragma unroll 1 /* edits are many instructions, which have to come from somewhere too */
  for (int which = 0; which < ROW_POINTS; which++) {
    if (which == RESID_POINT && stages.sums && !stages.added) add_rows(team, h, out, h, a.width);
    if (any_items(found[which])) found_row(team, a.table, found[which], stage_row(a, stages, which, row), which == OUT_POINT ? out : h, a.width);
  }
}

#endif
