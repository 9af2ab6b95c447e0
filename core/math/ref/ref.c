/* ref.c: the obvious backend: its matrices, and one function for each op. */
#include "core/math/ref/ref.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/math/blocks.h"

static int ref_matrix_new(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                          struct matrix **out, struct error *error) {
  (void)backend;
  assert(1 <= n_parts && n_parts <= MATRIX_MAX_PARTS && n_in > 0);
  struct ref_matrix *matrix = calloc(1, sizeof *matrix);
  if (!matrix) return error_memory(error, sizeof *matrix);
  matrix->base = (struct matrix){.n_in = n_in, .dtype = parts[0].dtype};
  matrix->n_parts = n_parts;
  for (int i = 0; i < n_parts; i++) {
    matrix->part[i] = parts[i];
    matrix->base.n_out += parts[i].n_out;
  }
  *out = &matrix->base;
  return 0;
}

/* A copy of its one part, in f32. */
static int own_matrix(struct ref_matrix *matrix, struct error *error) {
  int64_t n_out = matrix->base.n_out, n_in = matrix->base.n_in;
  matrix->own = malloc((size_t)n_out * (size_t)n_in * sizeof *matrix->own);
  if (!matrix->own) return error_memory(error, (size_t)n_out * (size_t)n_in * sizeof *matrix->own);
  for (int64_t out = 0; out < n_out; out++)
    for (int64_t in = 0; in < n_in; in++) matrix->own[out * n_in + in] = (float)ref_weight(&matrix->base, out, in);
  matrix->part[0] = (struct matrix_part){.data = matrix->own, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = n_out, .ld = n_in};
  matrix->n_parts = 1;
  return 0;
}

static void round_rows(struct ref_matrix *matrix) {
  int64_t n_in = matrix->base.n_in;
  for (int64_t out = 0; out < matrix->base.n_out; out++) q8_round(matrix->own + out * n_in, n_in);
}

/* Nothing is packed and there are no threads: it is aside in any case. */
static int ref_matrix_new_as(struct backend *backend, const struct matrix_part *parts, int n_parts, int64_t n_in,
                             const struct matrix_wish *wish, struct matrix **out, struct error *error) {
  if (ref_matrix_new(backend, parts, n_parts, n_in, out, error) != 0) return -1;
  if ((wish->written || wish->dtype == DTYPE_Q8) && own_matrix((struct ref_matrix *)*out, error) != 0) return free(*out), -1;
  if (wish->dtype == DTYPE_OTHER) return 0;
  if (wish->dtype == DTYPE_Q8) round_rows((struct ref_matrix *)*out);
  (*out)->dtype = wish->dtype;
  ((struct ref_matrix *)*out)->rounded = true;
  return 0;
}

static void ref_matrix_free(struct backend *backend, struct matrix *matrix) {
  (void)backend;
  if (matrix) free(((struct ref_matrix *)matrix)->own);
  free(matrix);
}

/* The matrix was made `written`: it has memory of its own. */
static void ref_matrix_write(struct matrix *matrix, int64_t first, int64_t count, const float *rows, const float *factors) {
  float *own = ((struct ref_matrix *)matrix)->own;
  assert(own && 0 <= first && first + count <= matrix->n_out);
  for (int64_t row = 0; row < count; row++)
    for (int64_t in = 0; in < matrix->n_in; in++)
      own[(first + row) * matrix->n_in + in] = rows[row * matrix->n_in + in] * factors[row];
}

double ref_weight(const struct matrix *w, int64_t out, int64_t in) {
  const struct ref_matrix *matrix = (const struct ref_matrix *)w;
  const struct matrix_part *part = matrix->part;
  for (; out >= part->n_out; part++) out -= part->n_out;
  float weight = dtype_f32_at(part->data, part->dtype, (size_t)part_element(part, out, in));
  return matrix->rounded ? dtype_round(weight, w->dtype) : weight;
}

double ref_product(const struct matrix *w, int64_t out, const float *x) {
  double sum = 0;
  for (int64_t in = 0; in < w->n_in; in++) sum += x[in] * ref_weight(w, out, in);
  return sum;
}

/* Element i of a token's row, from the tables or from where OP_EMBED has put it. */
static float embedded(const struct op *op, const struct step *step, int32_t row, int64_t i) {
  if (op->code == OP_BEGIN && op->u.begin.embedded.at.memory) return rows_at(op->u.begin.embedded, row)[i];
  return (float)(ref_weight(op->u.begin.embed, step->token[row], i) * op->u.begin.embed_scale);
}

static const float *positions_of(const struct op *op, const struct step *step, int32_t row) {
  const float *table = span_floats(op->u.begin.positions);
  if (!table) return NULL;
  bool given = op->code == OP_BEGIN && op->u.begin.embedded.at.memory;
  return given ? rows_at(op->u.begin.placed, row) : table + (int64_t)step->position[row] * op->width;
}

static void run_embed(const struct op *op, const struct step *step, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++) {
    bool here = step->origin[row] == ORIGIN_EMBED;
    const float *positions = positions_of(op, step, row);
    for (int64_t i = 0; i < op->width; i++) {
      rows_at(op->u.begin.embedded, row)[i] = here ? embedded(op, step, row, i) : 0;
      rows_at(op->u.begin.placed, row)[i] = here && positions ? positions[i] : 0;
    }
  }
}

static void begin_row(const struct op *op, const struct step *step, int32_t row) {
  float *to = rows_at(op->u.begin.to, row);
  int32_t source = step->source ? step->source[row] : 0;
  switch ((enum row_origin)step->origin[row]) {
    case ORIGIN_EMBED: {
      const float *positions = positions_of(op, step, row);
      for (int64_t i = 0; i < op->width; i++) to[i] = embedded(op, step, row, i) + (positions ? positions[i] : 0);
      return;
    }
    case ORIGIN_FORK: memcpy(to, rows_at(op->u.begin.to, source), (size_t)op->width * sizeof *to); return;
    case ORIGIN_SAVED:
      memcpy(to, span_floats(step->saved) + (int64_t)source * op->width, (size_t)op->width * sizeof *to);
      return;
  }
  assert(!"unknown row origin");
}

/* All residuals first, edits after: a fork copies its source as it was before any edit of this point. */
static void run_begin(const struct op *op, const struct step *step, struct row_range rows) {
  for (int i = 0; i < step->n_slots; i++)
    if (step->slots[i].first == op->layer)
      for (int32_t row = step->slots[i].rows.begin; row < step->slots[i].rows.end; row++)
        begin_row(op, step, row);
  ref_point(op, step, SITE_RESID_PRE, op->u.begin.to, rows);
}

static float capped(float y, double cap) { return (float)(cap * tanh(y / cap)); }

static void run_cap(const struct op *op, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int64_t i = 0; i < op->u.linear.w->n_out; i++) {
      float *y = rows_at(op->u.linear.y, row) + i;
      *y = capped(*y, op->u.linear.soft_cap);
    }
}

static void run_linear(const struct op *op, struct row_range rows) {
  const struct matrix *w = op->u.linear.w;
  const float *bias = span_floats(op->u.linear.bias);
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *x = rows_at(op->u.linear.x, row);
    float *y = rows_at(op->u.linear.y, row);
    for (int64_t out = 0; out < w->n_out; out++) {
      y[out] = ref_activate(op->u.linear.act, (float)(ref_product(w, out, x) + (bias ? bias[out] : 0.0)));
      if (op->u.linear.soft_cap > 0) y[out] = capped(y[out], op->u.linear.soft_cap);
    }
  }
}

static void run_gate(const struct op *op, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *x = rows_at(op->u.gate.x, row), *up = op->u.gate.up.at.memory ? rows_at(op->u.gate.up, row) : NULL;
    float *y = rows_at(op->u.gate.y, row);
    for (int64_t i = 0; i < op->width; i++) y[i] = ref_activate(op->u.gate.act, x[i]) * (up ? up[i] : 1);
  }
}

static void run_norm(const struct norm *norm, struct rows x, struct rows y, struct row_range rows, int64_t width,
                     int parts) {
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int part = 0; part < (parts ? parts : 1); part++)
      ref_norm_row(norm, width, rows_at(x, row) + part * width, rows_at(y, row) + part * width);
}

static void run_place(const struct op *op, const struct step *step, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *x = rows_at(op->u.place.x, row);
    const float *place = span_floats(op->u.place.table) + step->position[row] * op->width;
    float *y = rows_at(op->u.place.y, row);
    for (int64_t i = 0; i < op->width; i++) y[i] = x[i] + place[i];
  }
}

static void rotate_head(const struct op *op, const float *cosine, float *x) {
  int half = op->u.rotate.dims / 2;
  bool halves = op->u.rotate.pairing == ROTARY_HALVES;
  for (int i = 0; i < half; i++) {
    float *a = halves ? x + i : x + 2 * i, *b = halves ? a + half : a + 1;
    double c = cosine[i], s = cosine[half + i], was = *a;
    *a = (float)(was * c - *b * s);
    *b = (float)(*b * c + was * s);
  }
}

static void run_rotate(const struct op *op, const struct step *step, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++) {
    const float *cosine = span_floats(op->u.rotate.table) + (int64_t)step->position[row] * op->u.rotate.dims;
    for (int head = 0; head < op->u.rotate.heads; head++)
      rotate_head(op, cosine, rows_at(op->u.rotate.x, row) + head * op->width);
  }
}

static void run_norm_part(const struct op *op, struct row_range rows) {
  const struct norm *norm = &op->u.norm.norm;
  int parts = op->u.norm.parts ? op->u.norm.parts : 1;
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int part = 0; part < parts; part++) {
      const float *x = rows_at(op->u.norm.x, row) + part * op->width;
      if (op->code == OP_NORM_SCALE)
        rows_at(op->u.norm.scale, row)[part] = ref_norm_scale(norm, op->width, x);
      else if (op->code == OP_NORMALIZE)
        ref_normalize_row(norm, op->width, x, rows_at(op->u.norm.scale, row)[part],
                          rows_at(op->u.norm.y, row) + part * op->width);
      else
        ref_gain_row(norm, op->width, x, rows_at(op->u.norm.y, row) + part * op->width);
    }
}

static void run_copy(const struct op *op, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++)
    memcpy(rows_at(op->u.gather.y, row), rows_at(op->u.gather.x, row), (size_t)op->width * sizeof(float));
}

static void run_sublayer(const struct op *op, const struct step *step, struct row_range rows) {
  if (op->u.sublayer.out_site) ref_point(op, step, op->u.sublayer.out_site, op->u.sublayer.out, rows);
  for (int32_t row = rows.begin; row < rows.end; row++) {
    float *resid = rows_at(op->u.sublayer.resid, row);
    const float *out = rows_at(op->u.sublayer.out, row);
    for (int64_t i = 0; i < op->width; i++) resid[i] += out[i];
  }
  if (op->u.sublayer.resid_site) ref_point(op, step, op->u.sublayer.resid_site, op->u.sublayer.resid, rows);
  if (op->u.sublayer.norm.kind == NORM_NONE) return;
  run_norm(&op->u.sublayer.norm, op->u.sublayer.resid, op->u.sublayer.y, rows, op->width, 1);
}

static void run_keep(const struct op *op, struct row_range rows) {
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int64_t i = 0; i < op->width; i++)
      rows_at(op->u.gather.y, row)[i] =
          i >= op->u.gather.begin && i < op->u.gather.end ? rows_at(op->u.gather.x, row)[i] : 0;
}

static void run_delta(const struct op *op, const struct step *step, struct row_range rows) {
  struct point_items items = point_items(step, op->layer, op->u.point.site);
  for (int32_t row = rows.begin; row < rows.end; row++)
    for (int64_t i = 0; i < op->width && items_edit(&items, op_step_row(op, step, row)); i++)
      rows_at(op->u.point.to, row)[i] += rows_at(op->u.point.x, row)[i] - rows_at(op->u.point.before, row)[i];
}

static void run_gather(const struct op *op, const struct step *step) {
  for (int32_t i = 0; i < step->n_logit_rows; i++)
    memcpy(rows_at(op->u.gather.y, i), rows_at(op->u.gather.x, step->logit_row[i]),
           (size_t)op->width * sizeof(float));
}

int ref_run_op(const struct op *op, const struct step *step, struct error *error) {
  struct row_range rows = op_rows(op, step);
  switch (op->code) {
    case OP_BEGIN: run_begin(op, step, rows); return 0;
    case OP_NORM:
      run_norm(&op->u.norm.norm, op->u.norm.x, op->u.norm.y, rows, op->width, op->u.norm.parts);
      return 0;
    case OP_NORM_SCALE:
    case OP_NORMALIZE:
    case OP_GAIN: run_norm_part(op, rows); return 0;
    case OP_LINEAR: run_linear(op, rows); return 0;
    case OP_GATE: run_gate(op, rows); return 0;
    case OP_SOLU:
      for (int32_t row = rows.begin; row < rows.end; row++)
        ref_solu_row(op->width, rows_at(op->u.solu.x, row), rows_at(op->u.solu.y, row));
      return 0;
    case OP_PLACE: run_place(op, step, rows); return 0;
    case OP_ROTATE: run_rotate(op, step, rows); return 0;
    case OP_ATTEND: ref_attend(op, step); return 0;
    case OP_SUBLAYER: run_sublayer(op, step, rows); return 0;
    case OP_POINT: ref_point(op, step, op->u.point.site, op->u.point.x, rows); return 0;
    case OP_GATHER: run_gather(op, step); return 0;
    case OP_COPY: run_copy(op, rows); return 0;
    case OP_EMBED: run_embed(op, step, rows); return 0;
    case OP_PATTERN: return ref_pattern(op, step, error);
    case OP_KEEP: run_keep(op, rows); return 0;
    case OP_CAP: run_cap(op, rows); return 0;
    case OP_DELTA: run_delta(op, step, rows); return 0;
    case OP_HOLD:
    case OP_SPLICE:
    case OP_PUT: /* only where ops.splices */
    case OP_CODE_COUNT: break;
  }
  assert(!"unknown op");
  return 0;
}

static int ref_run(struct backend *backend, const struct op *list, size_t count, const struct step *step,
                   struct error *error) {
  (void)backend;
  assert(step->n_layer > 0);
  for (size_t i = 0; i < count; i++)
    if (ref_run_op(&list[i], step, error) != 0) return -1;
  return 0;
}

static void ref_close(struct backend *backend) { free(backend); }

static const struct ops ref_ops = {
    .name = "ref",
    .alloc = host_alloc,
    .free = host_free,
    .write = host_write,
    .read = host_read,
    .copy = host_copy,
    .matrix_new = ref_matrix_new,
    .matrix_new_as = ref_matrix_new_as,
    .matrix_free = ref_matrix_free,
    .matrix_write = ref_matrix_write,
    .learn = &ref_learn,
    .kv_block_bytes = ref_kv_block_bytes,
    .run = ref_run,
    .encode = ref_encode,
    .vjp = ref_vjp,
    .close = ref_close,
};

struct backend *ref_open(struct error *error) {
  struct backend *backend = calloc(1, sizeof *backend);
  if (!backend) return error_memory(error, sizeof *backend), NULL;
  backend->ops = &ref_ops;
  return backend;
}
