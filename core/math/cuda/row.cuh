/* row.cuh: what is done to a row as a whole, by a block or by one warp: norms, edits, taps.
 *
 * Element i of a row is the affair of one thread: of as many threads as row_threads says, number i % threads. A block has them; a warp
 * plays them all, each lane one of every 32, and adds up as their block would: the same bits, and no barrier. So a row may be
 * worked on by a launch of its own, or on the way by every block that needs it. */
#ifndef STEERD_CORE_MATH_CUDA_ROW_CUH
#define STEERD_CORE_MATH_CUDA_ROW_CUH

#include "core/math/cuda/device.cuh"

/* ---- who works on a row ----------------------------------------------------------------------------------------------------- */

/* All threads of the block, which come to every function together. */
struct block_team {
  float *shared; /* [MAX_WARPS] */

  /* f(i) for the elements [begin, end) that are this thread's. */
  template <class F> __device__ __forceinline__ void each(int64_t begin, int64_t end, F f) const {
    int64_t i = (unsigned)begin / blockDim.x * blockDim.x + threadIdx.x; /* rows are far from 2^31 elements wide */
    if (i < begin) i += blockDim.x;
    for (; i < end; i += blockDim.x) f(i);
  }

  /* The sum over the team of what s = f(i, s) comes to, in every thread. */
  template <class F> __device__ __forceinline__ float sum(int64_t begin, int64_t end, F f) const {
    float s = 0;
    each(begin, end, [&](int64_t i) { s = f(i, s); });
    return block_sum(s, shared);
  }

  /* f(item) for those of the items [begin, end) that cover the row, in their order: the block looks at as many at once as it
   * has threads. */
  template <class F> __device__ __forceinline__ void items(const row_range *rows, int begin, int end, int row, F f) const {
    __shared__ unsigned mask[MAX_WARPS];
    for (int base = begin; base < end; base += blockDim.x) {
      int item = base + (int)threadIdx.x;
      unsigned found = __ballot_sync(FULL_WARP, item < end && row_within(rows[item], row));
      __syncthreads();
      if (threadIdx.x % 32 == 0) mask[threadIdx.x / 32] = found;
      __syncthreads();
      for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
        for (unsigned left = mask[warp]; left; left &= left - 1) f(base + warp * 32 + __ffs((int)left) - 1);
    }
  }
};

/* One warp in the place of WARPS. */
#define PLAYED_WARPS 4 /* row_threads(PLAYED_WIDTH) / 32 */
#define PLAYED_WIDTH 1024
struct warp_team {
  int lane;

  template <class F> __device__ __forceinline__ void each(int64_t begin, int64_t end, F f) const {
    for (int i = (int)begin / 32 * 32 + lane; i < (int)end; i += 32)
      if (i >= (int)begin) f(i);
  }

  template <class F> __device__ __forceinline__ float sum(int64_t begin, int64_t end, F f) const {
    const int LAP = 32 * PLAYED_WARPS;
    float s[PLAYED_WARPS], total = 0;
#pragma unroll
    for (int warp = 0; warp < PLAYED_WARPS; warp++) s[warp] = 0;
#pragma unroll 2
    for (int lap = (int)begin / LAP * LAP + lane; lap < (int)end; lap += LAP)
#pragma unroll
      for (int warp = 0; warp < PLAYED_WARPS; warp++)
        if (lap + 32 * warp >= (int)begin && lap + 32 * warp < (int)end) s[warp] = f(lap + 32 * warp, s[warp]);
#pragma unroll
    for (int warp = 0; warp < PLAYED_WARPS; warp++) s[warp] = warp_sum(s[warp]);
#pragma unroll
    for (int warp = 0; warp < PLAYED_WARPS; warp++) total += s[warp];
    return total;
  }

  template <class F> __device__ __forceinline__ void items(const row_range *rows, int begin, int end, int row, F f) const {
    for (int base = begin; base < end; base += 32) {
      int item = base + lane;
      unsigned left = __ballot_sync(FULL_WARP, item < end && row_within(rows[item], row));
      for (; left; left &= left - 1) f(base + __ffs((int)left) - 1);
    }
  }
};

/* ---- norms ---------------------------------------------------------------------------------------------------------------------- */

template <class T> static __device__ __forceinline__ float norm_middle(T team, int kind, int64_t width, const float *x) {
  if (kind != NORM_LAYER) return 0;
  return team.sum(0, width, [&](int64_t i, float sum) { return sum + x[i]; }) / (float)width;
}

template <class T>
static __device__ __forceinline__ float norm_scale(T team, const device_norm &norm, int64_t width, const float *x, float middle) {
  float square = team.sum(0, width, [&](int64_t i, float sum) { return fmaf(x[i] - middle, x[i] - middle, sum); });
  return sqrtf(square / (float)width + norm.eps);
}

static __device__ __forceinline__ float gained(const device_norm &norm, int64_t i, float x) {
  return fmaf(x, norm.gain ? norm.gain[i] : 1.0f, norm.bias ? norm.bias[i] : 0.0f);
}

/* y may be x. */
template <class T>
static __device__ __forceinline__ void norm_row(T team, const device_norm &norm, int64_t width, const float *x, float *y) {
  if (norm.kind == NORM_NONE) {
    team.each(0, width, [&](int64_t i) { y[i] = x[i]; });
    return;
  }
  float middle = norm_middle(team, norm.kind, width, x), scale = norm_scale(team, norm, width, x, middle);
  team.each(0, width, [&](int64_t i) { y[i] = gained(norm, i, (x[i] - middle) / scale); });
}

/* ---- edits and taps ---------------------------------------------------------------------------------------------------------------- */

/* Elements [first, first + n) of h belong to the edit, which has `skip` elements before them. */
struct edit_columns {
  int64_t first, n, skip;
};

static __device__ __forceinline__ edit_columns columns_of(const table_edit &edit, int64_t column, int64_t width) {
  int64_t begin = edit.column_begin > column ? edit.column_begin : column;
  int64_t end = edit.column_end < column + width ? edit.column_end : column + width;
  edit_columns c = {begin - column, end - begin, begin - edit.column_begin};
  return c;
}

template <class T> static __device__ __forceinline__ float edit_dot(T team, const float *v, const float *h, const edit_columns &c) {
  return team.sum(c.first, c.first + c.n, [&](int64_t i, float sum) { return fmaf(h[i], v[i - c.first + c.skip], sum); });
}

/* How far h goes along v, for the edits that are h += f v. */
template <class T>
static __device__ __forceinline__ float edit_distance(T team, const table_edit &edit, const float *h, const edit_columns &c) {
  if (edit.kind == EDIT_ROW_ADD) return edit.value;
  bool feature = edit.kind == EDIT_ROW_FEATURE_SET || edit.kind == EDIT_ROW_FEATURE_SCALE;
  float along = edit_dot(team, feature ? edit.enc : edit.v, h, c);
  if (edit.kind == EDIT_ROW_PROJECT) return (edit.value - 1) * along;
  if (edit.kind == EDIT_ROW_CAP) return fminf(along, edit.value) - along;
  along += edit.bias;
  along = along > fmaxf(edit.threshold, 0) ? along * edit.fold : 0;
  return (edit.kind == EDIT_ROW_FEATURE_SET ? edit.value : edit.value * along) - along;
}

template <class T>
static __device__ inline void edit_row(T team, const table_edit &edit, int row, float *h, int64_t column, int64_t width) {
  edit_columns c = columns_of(edit, column, width);
  if (c.n <= 0) return;
  int64_t begin = c.first, end = c.first + c.n;
  const float *v = edit.v ? edit.v + c.skip - c.first : NULL;
  switch (edit.kind) {
    case EDIT_ROW_SCALE: return team.each(begin, end, [&](int64_t i) { h[i] *= edit.value; });
    case EDIT_ROW_FILL: return team.each(begin, end, [&](int64_t i) { h[i] = edit.value; });
    case EDIT_ROW_REPLACE: v += (int64_t)(row - edit.row_begin) * (edit.column_end - edit.column_begin); /* fall through */
    case EDIT_ROW_COPY: return team.each(begin, end, [&](int64_t i) { h[i] = v[i]; });
    default: break;
  }
  float f = edit_distance(team, edit, h, c);
  team.each(begin, end, [&](int64_t i) { h[i] = fmaf(f, v[i], h[i]); });
}

/* What edits [begin, end) of the step do to a row. */
template <class T>
static __device__ inline void edits_between(T team, const table *t, int begin, int end, int row, float *h, int64_t column,
                                            int64_t width) {
  team.items(t->edit_rows, begin, end, row, [&](int item) { edit_row(team, t->edits[item], row, h, column, width); });
}

/* What edits alone do to a row. */
template <class T>
static __device__ inline void point_edits(T team, const table *t, int point, int row, float *h, int64_t column, int64_t width) {
  if (!t->edit_begin || point < 0) return;
  edits_between(team, t, t->edit_begin[point], t->edit_begin[point + 1], row, h, column, width);
}

template <class T>
static __device__ inline void point_taps(T team, const table *t, int point, int row, const float *h, int64_t column, int64_t width) {
  if (!t->tap_begin || point < 0) return;
  team.items(t->tap_rows, t->tap_begin[point], t->tap_begin[point + 1], row, [&](int item) {
    float *to = t->taps[item].to + (int64_t)(row - t->tap_rows[item].begin) * t->taps[item].ld + column;
    team.each(0, width, [&](int64_t i) { to[i] = h[i]; });
  });
}

template <class T>
static __device__ inline void point_row(T team, const table *t, int point, int row, float *h, int64_t column, int64_t width) {
  point_edits(team, t, point, row, h, column, width);
  point_taps(team, t, point, row, h, column, width);
}

static __device__ inline bool row_is_edited(const table *t, int point, int row) {
  if (!t->edit_begin || point < 0) return false;
  for (int i = t->edit_begin[point]; i < t->edit_begin[point + 1]; i++)
    if (row_within(t->edit_rows[i], row)) return true;
  return false;
}

#endif
