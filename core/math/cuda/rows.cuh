/* rows.cuh: the stages of a row between two products (struct row_args), for whoever does them: rows.cu by themselves,
 * rows_tensor.cu in front of a product. */
#ifndef STEERD_CORE_MATH_CUDA_ROWS_CUH
#define STEERD_CORE_MATH_CUDA_ROWS_CUH

#include "core/math/cuda/row.cuh"

/* Which of them a row goes through. */
struct row_stages {
  bool sums, arrives, norms;
};

static __device__ __forceinline__ row_stages stages_of(const row_args &a, int row) {
  const table *t = a.table;
  row_stages s;
  s.sums = a.sub_layer >= 0 && row_within(rows_of(t, a.sub_set, a.sub_layer), row);
  s.arrives = a.begin_layer >= 0 && row_within(rows_of(t, ROWS_ARRIVING, a.begin_layer), row);
  s.norms = a.norm_layer >= 0 && row_within(rows_of(t, a.norm_set, a.norm_layer), row);
  return s;
}

/* Of a row that arrives: it comes from its origin, not from the layer below. */
static __device__ __forceinline__ bool begins_here(const row_args &a, int row) {
  return a.origins && a.table->slots[a.table->slot[row]].first == a.begin_layer;
}

/* A row that arrives otherwise is worked on where it has a point here; if not, others may be copying it. */
static __device__ __forceinline__ bool has_point(const row_args &a, const row_stages &stages) {
  return stages.arrives && a.begin_point >= 0;
}

template <class T> static __device__ __forceinline__ void begin_row(T team, const row_args &a, int row, float *h) {
  const table *t = a.table;
  int64_t source = t->source ? t->source[row] : 0;
  int origin = t->origin[row], token = t->token[row], position = t->position[row];
  team.each(0, a.width, [&](int64_t i) {
    if (origin == ORIGIN_FORK) {
      h[i] = row_at(a.resid, source)[i];
    } else if (origin == ORIGIN_SAVED) {
      h[i] = t->saved[source * a.width + i];
    } else {
      h[i] = a.embedded.at ? row_at(a.embedded, row)[i] : weight_at(a.embed, token, i) * a.embed_scale;
      if (a.positions) h[i] += a.embedded.at ? row_at(a.placed, row)[i] : a.positions[position * a.width + i];
    }
  });
}

/* h, the row of the residual, as it is behind its sums and edits. `out`: what the sublayer gave, where the row sums; overwritten. */
template <class T>
static __device__ __forceinline__ void change_row(T team, const row_args &a, const row_stages &stages, int row, float *h, float *out) {
  if (stages.sums) {
    int item_row = step_row(a.table, a.sub_set, row);
    if (a.out_norm.kind != NORM_NONE) norm_row(team, a.out_norm, a.width, out, out);
    point_row(team, a.table, a.out_point, item_row, out, 0, a.width);
    team.each(0, a.width, [&](int64_t i) { h[i] += out[i]; });
    point_row(team, a.table, a.resid_point, item_row, h, 0, a.width);
  }
  if (stages.arrives) point_row(team, a.table, a.begin_point, row, h, 0, a.width);
}

#endif
