/* back.cu: the way back through ops that go by elements or by rows (struct vjp of ops.h): cotangents of what an op wrote are taken, and
 * what comes of them is added to those of what it read. Knows neither products nor attention.
 *
 * One thread owns an element of a row, as in the kernels of the way there, so nothing is added by two. */
#include "core/math/cuda/row.cuh"

#define THREADS 256

/* ---- elements ---------------------------------------------------------------------------------------------------------------- */

/* How an activation grows at x. */
static __device__ __forceinline__ float slope_of(int act, float x) {
  switch (act) {
    case ACT_RELU: return x > 0 ? 1 : 0;
    case ACT_GELU_TANH: { /* x s with s = 1 / (1 + e^-2u): s + x s (1 - s) 2u' */
      float s = 1 / (1 + expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
      return s + x * s * (1 - s) * (1.5957691216057308f * (1 + 0.134145f * x * x));
    }
    case ACT_GELU_ERF: return 0.5f * (1 + erff(x * 0.7071067811865476f)) + x * expf(-0.5f * x * x) * 0.3989422804014327f;
    case ACT_SILU: {
      float s = 1 / (1 + expf(-x));
      return s + x * s * (1 - s);
    }
    default: return 1;
  }
}

static __device__ __forceinline__ void back_gate(const back_args &a, int row, int64_t i, float g) {
  float x = row_at(a.x, row)[i];
  float grows = g * slope_of(a.act, x);
  row_at(a.to, row)[i] += a.up.at ? grows * row_at(a.up, row)[i] : grows;
  if (a.up.at) row_at(a.to_up, row)[i] += g * activate(a.act, x);
}

/* What works in place, or leaves what it read: nothing is taken. */
static __device__ __forceinline__ bool back_in_place(const back_args &a, int row, int64_t i) {
  float *y = row_at(a.y, row) + i;
  switch (a.code) {
    case OP_SUBLAYER: row_at(a.to, row)[i] += *y; return true;
    case OP_CAP: { /* y = cap tanh(x / cap) has the slope 1 - (y / cap)^2 */
      float bent = row_at(a.x, row)[i] / a.cap;
      *y *= 1 - bent * bent;
      return true;
    }
    case OP_DELTA: /* to += x - before, in rows that an edit of the point covers */
      if (!row_is_edited(a.table, a.point, step_row(a.table, a.set, row))) return true;
      row_at(a.to, row)[i] += *y;
      row_at(a.to_up, row)[i] -= *y;
      return true;
    default: return false;
  }
}

static __global__ void back_elements_kernel(back_args a) {
  int64_t i = (int64_t)blockIdx.y * blockDim.x + threadIdx.x;
  int row = a.first + (int)blockIdx.x;
  grid_follow();
  if (i >= a.width || back_in_place(a, row, i)) return;
  float *y = row_at(a.y, row) + i, g = *y;
  *y = 0;
  switch (a.code) {
    case OP_GATE: back_gate(a, row, i, g); return;
    case OP_GAIN: row_at(a.to, row)[i] += g * (a.norm.gain ? a.norm.gain[i % a.piece] : 1.0f); return;
    case OP_KEEP:
      if (i >= a.begin && i < a.end) row_at(a.to, row)[i] += g;
      return;
    case OP_BEGIN:
      if (a.to_up.at) row_at(a.to_up, row)[i] += g; /* fall through */
    case OP_NORM:                                   /* one that is none */
    case OP_PLACE:
    case OP_COPY: row_at(a.to, row)[i] += g; return;
    default: return; /* they are only cleared */
  }
}

extern "C" cudaError_t launch_back_elements(cudaStream_t stream, const back_args *args) {
  dim3 grid((unsigned)args->rows, (unsigned)((args->width + THREADS - 1) / THREADS));
  return launch(back_elements_kernel, *args, grid, THREADS, 0, stream);
}

/* A thread a column, through all rows: two of them may come from one. */
static __global__ void back_gather_kernel(back_args a) {
  int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  grid_follow();
  if (i >= a.width) return;
  for (int row = a.first; row < a.first + a.rows; row++) {
    float *y = row_at(a.y, row) + i, g = *y;
    *y = 0;
    row_at(a.to, a.table->logit_row[row])[i] += g;
  }
}

extern "C" cudaError_t launch_back_gather(cudaStream_t stream, const back_args *args) {
  return launch(back_gather_kernel, *args, dim3((unsigned)((args->width + THREADS - 1) / THREADS)), THREADS, 0, stream);
}

/* ---- norms: a block for each piece of a row --------------------------------------------------------------------------------------- */

/* An element of a norm: what was read, what comes back times the gain, what is there already. */
struct back_element {
  float x, e, to;
};

/* With h = (x - m) / s and e = g gain: to += (e - mean(e) - h mean(e h)) / s, without the first mean for RMS, without the second where s
 * is a constant. */
static __device__ void back_norm(block_team team, const back_args &a, const float *x, float *y, float *to) {
  const float *gain = a.norm.gain;
  int64_t n = a.piece;
  auto read = [=](int i) {
    back_element own = {x[i], gain ? y[i] * gain[i] : y[i], to[i]};
    return own;
  };
  float middle = norm_middle(team, a.norm.kind, n, x), scale = norm_scale(team, a.norm, n, x, middle), mean = 0, along = 0;
  if (a.norm.kind == NORM_LAYER) mean = team.sum(0, n, read, [](float sum, back_element own) { return sum + own.e; }) / (float)n;
  if (!a.hold) along = team.sum(0, n, read, [=](float sum, back_element own) { return fmaf(own.e, (own.x - middle) / scale, sum); }) / (float)n;
  team.each(0, n, read, [=](int i, back_element own) {
    to[i] = own.to + (own.e - mean - (own.x - middle) / scale * along) / scale;
    y[i] = 0;
  });
}

/* s = sqrt(mean((x - m)^2) + eps), one cotangent for all: the mean's own part is 0, because x - m adds up to 0. */
static __device__ void back_scale(block_team team, const back_args &a, const float *x, const float *scale, float *y, float *to) {
  float g = *y, middle = norm_middle(team, a.norm.kind, a.piece, x), times = g / *scale / (float)a.piece;
  __syncthreads(); /* all have read it */
  if (threadIdx.x == 0) *y = 0;
  if (a.hold) return;
  team.each(0, a.piece, [=](int i) { return make_float2(x[i], to[i]); },
            [=](int i, float2 own) { to[i] = own.y + times * (own.x - middle); });
}

/* y = (x - m) / s with s as it was read. */
static __device__ void back_normalize(block_team team, const back_args &a, const float *x, const float *scale, float *y, float *to, float *to_scale) {
  float middle = norm_middle(team, a.norm.kind, a.piece, x), mean = norm_middle(team, a.norm.kind, a.piece, y), s = *scale;
  float along = team.sum(0, a.piece, [=](int i) { return make_float2(x[i], y[i]); },
                         [=](float sum, float2 own) { return fmaf(own.y, own.x - middle, sum); });
  team.each(0, a.piece, [=](int i) { return make_float2(y[i], to[i]); },
            [=](int i, float2 own) { to[i] = own.y + (own.x - mean) / s, y[i] = 0; });
  if (threadIdx.x == 0) *to_scale -= along / (s * s);
}

template <int CODE> static __global__ void __launch_bounds__(MOST_ROW_THREADS) back_norm_kernel(back_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = a.first + (int)blockIdx.x, part = blockIdx.y;
  grid_follow();
  block_team team = {shared};
  const float *x = row_at(a.x, row) + part * a.piece;
  float *to = row_at(a.to, row) + part * a.piece;
  if (CODE == OP_NORM_SCALE)
    back_scale(team, a, x, row_at(a.up, row) + part, row_at(a.y, row) + part, to);
  else if (CODE == OP_NORMALIZE)
    back_normalize(team, a, x, row_at(a.up, row) + part, row_at(a.y, row) + part * a.piece, to, row_at(a.to_up, row) + part);
  else
    back_norm(team, a, x, row_at(a.y, row) + part * a.piece, to);
}

extern "C" cudaError_t launch_back_norm(cudaStream_t stream, const back_args *args) {
  dim3 grid((unsigned)args->rows, (unsigned)(args->width / args->piece));
  auto kernel = args->code == OP_NORM_SCALE ? back_norm_kernel<OP_NORM_SCALE>
                                            : args->code == OP_NORMALIZE ? back_norm_kernel<OP_NORMALIZE> : back_norm_kernel<OP_NORM>;
  return launch(kernel, *args, grid, row_threads(args->piece), 0, stream);
}

/* y = x p with p = softmax(x). */
static __global__ void __launch_bounds__(MOST_ROW_THREADS) back_solu_kernel(back_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = a.first + (int)blockIdx.x;
  grid_follow();
  const float *x = row_at(a.x, row);
  float *y = row_at(a.y, row), *to = row_at(a.to, row), most = -INFINITY;
  block_team team = {shared};
  auto read = [=](int i) {
    back_element own = {x[i], y[i], to[i]};
    return own;
  };
  team.each(0, a.width, read, [&](int, back_element own) { most = fmaxf(most, own.x); });
  most = block_max(most, shared);
  float total = team.sum(0, a.width, read, [=](float sum, back_element own) { return sum + expf(own.x - most); });
  float mean = team.sum(0, a.width, read, [=](float sum, back_element own) { return fmaf(own.e * own.x, expf(own.x - most) / total, sum); });
  team.each(0, a.width, read, [=](int i, back_element own) {
    to[i] = own.to + expf(own.x - most) / total * (own.e + own.e * own.x - mean);
    y[i] = 0;
  });
}

extern "C" cudaError_t launch_back_solu(cudaStream_t stream, const back_args *args) {
  return launch(back_solu_kernel, *args, dim3((unsigned)args->rows), row_threads(args->width), 0, stream);
}

/* ---- edits ------------------------------------------------------------------------------------------------------------------------ */

/* g += factor v; v counts from the edit's first column. */
static __device__ __forceinline__ void back_along(block_team team, float *g, float factor, const float *v, const edit_columns &c) {
  v += c.skip - c.first;
  team.each(c.first, c.first + c.n, [=](int i) { return make_float2(v[i], g[i]); },
            [=](int i, float2 own) { g[i] = fmaf(factor, own.x, own.y); });
}

/* a = act(h.enc + bias) * fold: with its slope, h += (value - a) v or (value - 1) a v. */
static __device__ __forceinline__ void back_feature(block_team team, const table_edit &edit, const float *h, float *g, const edit_columns &c) {
  if (!(edit_dot(team, edit.enc, h, c) + edit.bias > fmaxf(edit.threshold, 0))) return;
  float times = edit.kind == EDIT_ROW_FEATURE_SET ? -1.0f : edit.value - 1;
  back_along(team, g, times * edit_dot(team, edit.v, g, c) * edit.fold, edit.enc, c);
}

/* before(): the row in front of the edit, for the kinds that ask. */
template <class B> static __device__ __forceinline__ void back_edit(block_team team, const table_edit &edit, float *g, const edit_columns &c, B before) {
  float value = edit.value;
  switch (edit.kind) {
    case EDIT_ROW_ADD: return;
    case EDIT_ROW_PROJECT: back_along(team, g, (value - 1) * edit_dot(team, edit.v, g, c), edit.v, c); return;
    case EDIT_ROW_CAP:
      if (edit_dot(team, edit.v, before(), c) > value) back_along(team, g, -edit_dot(team, edit.v, g, c), edit.v, c);
      return;
    case EDIT_ROW_SCALE: return team.each(c.first, c.first + c.n, [=](int i) { return g[i]; }, [=](int i, float x) { g[i] = x * value; });
    case EDIT_ROW_FEATURE_SET:
    case EDIT_ROW_FEATURE_SCALE: back_feature(team, edit, before(), g, c); return;
    default: return team.each(c.first, c.first + c.n, [=](int i) { g[i] = 0; }); /* what was there is gone */
  }
}

/* The edits of a point from the last one on. What was in front of one is made again, from what was in front of all. */
static __global__ void __launch_bounds__(MOST_ROW_THREADS) back_point_kernel(back_args a) {
  __shared__ float shared[MAX_WARPS];
  int at = a.first + (int)blockIdx.x;
  grid_follow();
  const table *t = a.table;
  block_team team = {shared};
  float *g = row_at(a.y, at), *h = a.scratch + (int64_t)blockIdx.x * a.width;
  int row = step_row(t, a.set, at), begin = t->edit_begin[a.point];
  for (int i = t->edit_begin[a.point + 1] - 1; i >= begin; i--) {
    const table_edit &edit = t->edits[i];
    edit_columns c = columns_of(edit, a.begin, a.width);
    if (!row_within(t->edit_rows[i], row) || c.n <= 0) continue;
    back_edit(team, edit, g, c, [&]() {
      copy_row(team, row_at(a.up, at), h, a.width);
      edits_between(team, t, begin, i, row, h, a.begin, a.width);
      return h;
    });
  }
}

extern "C" cudaError_t launch_back_point(cudaStream_t stream, const back_args *args) {
  return launch(back_point_kernel, *args, dim3((unsigned)args->rows), row_threads(args->width), 0, stream);
}

/* ---- attention: a block for each head of a row -------------------------------------------------------------------------------------- */

/* A score as it is weighed, and how it grows with what stood there. */
static __device__ __forceinline__ float2 bent_score(float score, float cap) {
  float bent = cap > 0 ? tanhf(score / cap) : 0;
  return cap > 0 ? make_float2(cap * bent, 1 - bent * bent) : make_float2(score, 1);
}

/* Scaled products to weights p that add up to 1, and dp to the cotangents of the products: p (dp - sum of p dp), through the cap, times
 * the scale. What the row does not see becomes 0 in both. */
static __global__ void __launch_bounds__(MOST_ROW_THREADS) back_soften_kernel(back_soften_args a) {
  __shared__ float shared[MAX_WARPS];
  int row = blockIdx.x, position = a.position + row;
  int begin = (a.window > 0 && position >= a.window ? position - a.window + 1 : 0) - a.begin, end = position + 1 - a.begin;
  int64_t at = ((int64_t)blockIdx.y * a.rows + row) * a.ld;
  grid_follow();
  float *p = a.p + at, *dp = a.dp ? a.dp + at : NULL, cap = a.soft_cap, scale = a.scale, most = -INFINITY, mean = 0;
  block_team team = {shared};
  auto read = [=](int j) { return make_float2(p[j], dp ? dp[j] : 0); };
  team.each(begin, end, read, [&](int, float2 own) { most = fmaxf(most, bent_score(own.x, cap).x); });
  most = block_max(most, shared);
  float total = team.sum(begin, end, read, [=](float sum, float2 own) { return sum + expf(bent_score(own.x, cap).x - most); });
  if (dp) mean = team.sum(begin, end, read, [=](float sum, float2 own) { return fmaf(expf(bent_score(own.x, cap).x - most) / total, own.y, sum); });
  team.each(0, a.keys, read, [=](int j, float2 own) {
    bool seen = j >= begin && j < end;
    float2 score = bent_score(own.x, cap);
    float weight = seen ? expf(score.x - most) / total : 0;
    p[j] = weight;
    if (dp) dp[j] = seen ? weight * (own.y - mean) * score.y * scale : 0;
  });
}

extern "C" cudaError_t launch_back_soften(cudaStream_t stream, const back_soften_args *args) {
  dim3 grid((unsigned)args->rows, (unsigned)args->n_head);
  return launch(back_soften_kernel, *args, grid, row_threads(args->keys), 0, stream);
}

/* ---- weights in f32: what the library multiplies f32 with ----------------------------------------------------------------------------- */

struct widen_args {
  device_matrix w;
  int64_t first, pieces; /* of 8 numbers, behind each other */
  float *to;
};

static __global__ void widen_kernel(widen_args a) {
  int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  grid_follow();
  if (at >= a.pieces) return;
  float wide[8];
  if (a.w.dtype == DTYPE_F16)
    piece<DTYPE_F16>::widen(a.w.data, a.first + at, wide);
  else
    piece<DTYPE_BF16>::widen(a.w.data, a.first + at, wide);
  float4 *to = (float4 *)a.to + 2 * at;
  to[0] = make_float4(wide[0], wide[1], wide[2], wide[3]);
  to[1] = make_float4(wide[4], wide[5], wide[6], wide[7]);
}

extern "C" cudaError_t launch_widen(cudaStream_t stream, const device_matrix *w, int64_t out, int64_t n, float *to) {
  widen_args args = {*w, out * w->ld / 8, n * w->ld / 8, to};
  return launch(widen_kernel, args, dim3((unsigned)((args.pieces + THREADS - 1) / THREADS)), THREADS, 0, stream);
}
