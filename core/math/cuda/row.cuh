/* row.cuh: what is done to a row as a whole, by a block or by one warp: norms, edits, taps.
 *
 * Element i of a row is the affair of one thread: of as many threads as row_threads says, number i % threads. A block has them; a warp
 * plays them all, each lane one of every 32, and adds up as their block would: the same bits, and no barrier. So a row may be
 * worked on by a launch of its own, or on the way by every block that needs it. */
#ifndef STEERD_CORE_MATH_CUDA_ROW_CUH
#define STEERD_CORE_MATH_CUDA_ROW_CUH

#include "core/math/cuda/types.cuh"

/* ---- who works on a row ----------------------------------------------------------------------------------------------------- */

/* Elements of a thread that are read before the first of them is used. What is written might be what is read next, as far as the
 * compiler knows: a plain loop waits for memory at every lap, and beside a single row nothing else runs that could hide it. */
#define AT_ONCE 8

/* use(i, read(i)) for i = begin, begin + lap, ... below end, in this order. Rows are far from 2^31 elements wide. */
template <class READ, class USE> static __device__ __forceinline__ void each_at_once(int begin, int end, int lap, READ read, USE use) {
#pragma unroll 1
  for (; begin < end; begin += AT_ONCE * lap) {
    decltype(read(begin)) got[AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
      if (begin + i * lap < end) got[i] = read(begin + i * lap);
#pragma unroll
    for (int i = 0; i < AT_ONCE; i++)
      if (begin + i * lap < end) use(begin + i * lap, got[i]);
  }
}

/* All threads of the block, which come to every function together. */
struct block_team {
  float *shared; /* [MAX_WARPS] */
  static const bool tells = true;
  static const int WARPS = MAX_WARPS; /* at most */

  static __device__ __forceinline__ int number(void) { return (int)threadIdx.x; }

  /* The first element of this thread from `begin` on. */
  static __device__ __forceinline__ int first(int64_t begin) {
    int i = (int)((unsigned)begin / blockDim.x * blockDim.x + threadIdx.x);
    return i < (int)begin ? i + (int)blockDim.x : i;
  }

  /* use(i, read(i)) for the elements [begin, end) that are this thread's. */
  template <class READ, class USE>
  __device__ __forceinline__ void each(int64_t begin, int64_t end, READ read, USE use) const {
    each_at_once(first(begin), (int)end, (int)blockDim.x, read, use);
  }

  /* f(i) for them, where there is nothing to be read. */
  template <class F> __device__ __forceinline__ void each(int64_t begin, int64_t end, F f) const {
    for (int i = first(begin); i < (int)end; i += (int)blockDim.x) f(i);
  }

  /* The sum over the team of what s = add(s, read(i)) comes to, in every thread. */
  template <class READ, class ADD>
  __device__ __forceinline__ float sum(int64_t begin, int64_t end, READ read, ADD add) const {
    float s = 0;
    each(begin, end, read, [&](int, decltype(read(0)) own) { s = add(s, own); });
    return block_sum(s, shared);
  }

  /* f(item) for those of the items [begin, end) that cover the row, in their order: the block looks at as many at once as it
   * has threads. `known`: which of the first of them do, where that has been found (find_point). */
  template <class F>
  __device__ __forceinline__ void items(const row_range *rows, int begin, int end, int row, F f, const unsigned *known = NULL) const {
    __shared__ unsigned looked_up[MAX_WARPS];
    for (int base = begin; base < end; base += blockDim.x, known = NULL) {
      if (!known) {
        int item = base + (int)threadIdx.x;
        unsigned found = __ballot_sync(FULL_WARP, item < end && row_within(rows[item], row));
        __syncthreads();
        if (threadIdx.x % 32 == 0) looked_up[threadIdx.x / 32] = found;
        __syncthreads();
      }
      for (int warp = 0; warp < (int)blockDim.x / 32; warp++)
        for (unsigned left = known ? known[warp] : looked_up[warp]; left; left &= left - 1) f(base + warp * 32 + __ffs((int)left) - 1);
    }
  }
};

/* One warp in the place of WARPS. */
#define PLAYED_WARPS 4 /* row_threads(PLAYED_WIDTH) / 32 */
#define PLAYED_WIDTH 1024
struct warp_team {
  int lane;
  bool tells; /* what it finds at taps; others do the same row */
  static const int WARPS = 1;

  __device__ __forceinline__ int number(void) const { return lane; }

  __device__ __forceinline__ int first(int64_t begin) const {
    int i = (int)begin / 32 * 32 + lane;
    return i < (int)begin ? i + 32 : i;
  }

  template <class READ, class USE>
  __device__ __forceinline__ void each(int64_t begin, int64_t end, READ read, USE use) const {
    each_at_once(first(begin), (int)end, 32, read, use);
  }

  template <class F> __device__ __forceinline__ void each(int64_t begin, int64_t end, F f) const {
    for (int i = first(begin); i < (int)end; i += 32) f(i);
  }

  template <class READ, class ADD>
  __device__ __forceinline__ float sum(int64_t begin, int64_t end, READ read, ADD add) const {
    const int LAP = 32 * PLAYED_WARPS;
    float s[PLAYED_WARPS], total = 0;
#pragma unroll
    for (int warp = 0; warp < PLAYED_WARPS; warp++) s[warp] = 0;
#pragma unroll 2
    for (int lap = (int)begin / LAP * LAP + lane; lap < (int)end; lap += LAP)
#pragma unroll
      for (int warp = 0; warp < PLAYED_WARPS; warp++)
        if (lap + 32 * warp >= (int)begin && lap + 32 * warp < (int)end) s[warp] = add(s[warp], read(lap + 32 * warp));
#pragma unroll
    for (int warp = 0; warp < PLAYED_WARPS; warp++) s[warp] = warp_sum(s[warp]);
#pragma unroll
    for (int warp = 0; warp < PLAYED_WARPS; warp++) total += s[warp];
    return total;
  }

  template <class F>
  __device__ __forceinline__ void items(const row_range *rows, int begin, int end, int row, F f, const unsigned *known = NULL) const {
    for (int base = begin; base < end; base += 32, known = NULL) {
      int item = base + lane;
      unsigned left = known ? *known : __ballot_sync(FULL_WARP, item < end && row_within(rows[item], row));
      for (; left; left &= left - 1) f(base + __ffs((int)left) - 1);
    }
  }
};

template <class T> static __device__ __forceinline__ void copy_row(T team, const float *from, float *to, int64_t width) {
  team.each(0, width, [=](int i) { return from[i]; }, [=](int i, float x) { to[i] = x; });
}

/* sum may be one of both. */
template <class T>
static __device__ __forceinline__ void add_rows(T team, const float *x, const float *y, float *sum, int64_t width) {
  team.each(0, width, [=](int i) { return make_float2(x[i], y[i]); }, [=](int i, float2 own) { sum[i] = own.x + own.y; });
}

/* ---- norms ---------------------------------------------------------------------------------------------------------------------- */

template <class T> static __device__ __forceinline__ float norm_middle(T team, int kind, int64_t width, const float *x) {
  if (kind != NORM_LAYER) return 0;
  return team.sum(0, width, [=](int i) { return x[i]; }, [](float sum, float own) { return sum + own; }) / (float)width;
}

template <class T>
static __device__ __forceinline__ float norm_scale(T team, const device_norm &norm, int64_t width, const float *x, float middle) {
  float square = team.sum(0, width, [=](int i) { return x[i]; },
                          [=](float sum, float own) { return fmaf(own - middle, own - middle, sum); });
  return sqrtf(square / (float)width + norm.eps);
}

/* An element, and what a norm multiplies it with and adds. */
struct norm_element {
  float x, gain, bias;
};

static __device__ __forceinline__ norm_element norm_element_at(const device_norm &norm, int64_t i, float x) {
  norm_element own = {x, norm.gain ? norm.gain[i] : 1.0f, norm.bias ? norm.bias[i] : 0.0f};
  return own;
}

static __device__ __forceinline__ float gained(const norm_element &own, float x) { return fmaf(x, own.gain, own.bias); }

/* y may be x. */
template <class T>
static __device__ __forceinline__ void norm_row(T team, const device_norm &norm, int64_t width, const float *x, float *y) {
  if (norm.kind == NORM_NONE) {
    copy_row(team, x, y, width);
    return;
  }
  float middle = norm_middle(team, norm.kind, width, x), scale = norm_scale(team, norm, width, x, middle);
  team.each(0, width, [&](int i) { return norm_element_at(norm, i, x[i]); },
            [=](int i, norm_element own) { y[i] = gained(own, (own.x - middle) / scale); });
}

/* In front of grid_follow: what a norm multiplies with and adds, which nobody has read since the last step. */
static __device__ __forceinline__ void fetch_norm(const device_norm &norm, int64_t width) {
  if (threadIdx.x == 0) fetch_floats(norm.gain, width);
  if (threadIdx.x == 1) fetch_floats(norm.bias, width);
}

/* A row once more, for the product that reads it: each thread the elements that it wrote itself. */
template <class T> static __device__ __forceinline__ void narrow_row(T team, const narrow_rows &to, int64_t row, const float *y, int64_t width) {
  if (to.at) team.each(0, width, [=](int i) { return y[i]; }, [&](int i, float own) { narrow_element(to, row, i, own); });
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
  v += c.skip - c.first;
  return team.sum(c.first, c.first + c.n, [=](int i) { return make_float2(h[i], v[i]); },
                  [](float sum, float2 own) { return fmaf(own.x, own.y, sum); });
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
  float value = edit.value;
  switch (edit.kind) {
    case EDIT_ROW_SCALE: return team.each(begin, end, [=](int i) { return h[i]; }, [=](int i, float x) { h[i] = x * value; });
    case EDIT_ROW_FILL: return team.each(begin, end, [=](int i) { h[i] = value; });
    case EDIT_ROW_REPLACE: v += (int64_t)(row - edit.row_begin) * (edit.column_end - edit.column_begin); /* fall through */
    case EDIT_ROW_COPY: return team.each(begin, end, [=](int i) { return v[i]; }, [=](int i, float x) { h[i] = x; });
    default: break;
  }
  float f = edit_distance(team, edit, h, c);
  team.each(begin, end, [=](int i) { return make_float2(v[i], h[i]); },
            [=](int i, float2 own) { h[i] = fmaf(f, own.x, own.y); });
}

/* What edits [begin, end) of the step do to a row. */
template <class T, class... KNOWN>
static __device__ inline void edits_between(T team, const table *t, int begin, int end, int row, float *h, int64_t column,
                                            int64_t width, KNOWN... known) {
  team.items(t->edit_rows, begin, end, row, [&](int item) { edit_row(team, t->edits[item], row, h, column, width); }, known...);
}

template <class T, class... KNOWN>
static __device__ inline void taps_between(T team, const table *t, int begin, int end, int row, const float *h, int64_t column,
                                           int64_t width, KNOWN... known) {
  team.items(t->tap_rows, begin, end, row, [&](int item) {
    copy_row(team, h, t->taps[item].to + (int64_t)(row - t->tap_rows[item].begin) * t->taps[item].ld + column, width);
  }, known...);
}

/* What edits alone do to a row. */
template <class T>
static __device__ inline void point_edits(T team, const table *t, int point, int row, float *h, int64_t column, int64_t width) {
  if (!t->edit_begin || point < 0) return;
  edits_between(team, t, t->edit_begin[point], t->edit_begin[point + 1], row, h, column, width);
}

template <class T>
static __device__ inline void point_taps(T team, const table *t, int point, int row, const float *h, int64_t column, int64_t width) {
  if (!team.tells || !t->tap_begin || point < 0) return;
  taps_between(team, t, t->tap_begin[point], t->tap_begin[point + 1], row, h, column, width);
}

template <class T>
static __device__ inline void point_row(T team, const table *t, int point, int row, float *h, int64_t column, int64_t width) {
  point_edits(team, t, point, row, h, column, width);
  point_taps(team, t, point, row, h, column, width);
}

/* ---- items that are found before it is a block's turn ------------------------------------------------------------------------------- */

/* What is done to a row at a point: its items among those of the step, and which of the first of them, one for each thread of the team,
 * cover the row. In shared memory. */
template <class T> struct point_items {
  int32_t edits, edits_end, taps, taps_end;
  unsigned edit_mask[T::WARPS], tap_mask[T::WARPS];
};

template <class T> static __device__ __forceinline__ bool any_items(const point_items<T> &p) { return p.edits < p.edits_end || p.taps < p.taps_end; }

/* Those of one kind; `begins` is NULL where there are none. True: the one of this thread covers the row. */
template <class T>
static __device__ __forceinline__ bool look_up(T team, const int32_t *begins, const row_range *rows, int point, int row, int32_t *begin,
                                               int32_t *end, unsigned *mask) {
  int first = 0, behind = 0, number = team.number();
  if (begins) first = __ldcg(begins + point), behind = __ldcg(begins + point + 1);
  bool covers = first + number < behind && row_within(table_range(rows + first + number), row);
  unsigned found = __ballot_sync(FULL_WARP, covers);
  if (number % 32 == 0) mask[number / 32] = found;
  if (number == 0) *begin = first, *end = behind;
  return covers;
}

#define FETCHED_EDITS 8 /* of a row; more would push each other out again */

/* In front of grid_follow, and read behind a barrier: the items of a row at a point, none at -1. What edits read is asked for. */
template <class T> static __device__ inline void find_point(T team, const table *t, int point, int row, point_items<T> *p) {
  const int32_t *edits = point < 0 ? NULL : table_pointer(&t->edit_begin), *taps = point < 0 ? NULL : table_pointer(&t->tap_begin);
  bool covers = look_up(team, edits, table_pointer(&t->edit_rows), point, row, &p->edits, &p->edits_end, p->edit_mask);
  if (covers && team.tells && team.number() < FETCHED_EDITS) {
    const table_edit *edit = table_pointer(&t->edits) + __ldcg(edits + point) + team.number();
    int64_t n = __ldcg(&edit->column_end) - __ldcg(&edit->column_begin);
    if (__ldcg(&edit->kind) != EDIT_ROW_REPLACE) fetch_floats(table_pointer(&edit->v), n); /* of those the row's is far off */
    fetch_floats(table_pointer(&edit->enc), n);
  }
  look_up(team, taps, table_pointer(&t->tap_rows), point, row, &p->taps, &p->taps_end, p->tap_mask);
}

/* point_row with what was found. */
template <class T>
static __device__ inline void found_row(T team, const table *t, const point_items<T> &p, int row, float *h, int64_t width) {
  edits_between(team, t, p.edits, p.edits_end, row, h, 0, width, p.edit_mask);
  if (team.tells) taps_between(team, t, p.taps, p.taps_end, row, h, 0, width, p.tap_mask);
}

static __device__ inline bool row_is_edited(const table *t, int point, int row) {
  if (!t->edit_begin || point < 0) return false;
  for (int i = t->edit_begin[point]; i < t->edit_begin[point + 1]; i++)
    if (row_within(t->edit_rows[i], row)) return true;
  return false;
}

#endif
