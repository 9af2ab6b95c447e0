/* tables.c: decoder rows against the unembedding and against each other, a few rows at a time, never the whole
 * product. */
#include "core/analysis/tables.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- logits ---- */

/* Inserts into a short list sorted by value descending; earlier ids stay in front of equals. */
static void keep_largest(int32_t *ids, float *values, int *n, int most, int32_t id, float value) {
  if (*n == most && !(value > values[most - 1])) return;
  int at = *n < most ? (*n)++ : most - 1;
  for (; at > 0 && value > values[at - 1]; at--) {
    ids[at] = ids[at - 1];
    values[at] = values[at - 1];
  }
  ids[at] = id;
  values[at] = value;
}

static void histogram(const float *logits, int64_t n, float low, float high, struct feature_logits *out) {
  float width = (high - low) / TABLE_LOGIT_BARS;
  for (int b = 0; b < TABLE_LOGIT_BARS; b++) {
    out->bars[b] = 0;
    out->centres[b] = low + width * ((float)b + 0.5f);
  }
  for (int64_t i = 0; i < n; i++) {
    if (!isfinite(logits[i])) continue; /* of weights that are not finite; belongs to no bar */
    float bar = width > 0 && isfinite(width) ? (logits[i] - low) / width : 0;
    out->bars[bar < TABLE_LOGIT_BARS ? (int)bar : TABLE_LOGIT_BARS - 1]++;
  }
}

static void summarise(const float *logits, int64_t n, struct feature_logits *out) {
  int top = 0, bottom = 0;
  for (int64_t i = 0; i < n; i++) {
    keep_largest(out->top, out->top_value, &top, TABLE_LOGITS, (int32_t)i, logits[i]);
    keep_largest(out->bottom, out->bottom_value, &bottom, TABLE_LOGITS, (int32_t)i, -logits[i]);
  }
  out->n = top;
  for (int i = 0; i < bottom; i++) out->bottom_value[i] = -out->bottom_value[i];
  logit_moments(logits, n, &out->moments);
  histogram(logits, n, bottom ? out->bottom_value[0] : 0, top ? out->top_value[0] : 0, out);
}

/* The weights between a point and the residual stream; NULL where it is the stream's own width. */
static const struct matrix *way_out(const struct model *model, struct point point) {
  const struct weight_set *layers = model->weights.layers;
  switch (point.site) {
    case SITE_ATTN_Z: return layers[point.layer].matrix[SLOT_O];
    case SITE_MLP_PRE:
    case SITE_MLP_PRE_LINEAR:
    case SITE_MLP_MID:
    case SITE_MLP_POST: return layers[point.layer].matrix[SLOT_OUT];
    default: return NULL;
  }
}

bool tables_has_logits(const struct dict *dict, int64_t d_model) {
  const struct dict_info *info = dict_info(dict);
  switch (info->out.site) {
    case SITE_Q: case SITE_K: case SITE_V:
    case SITE_Q_NORM_SCALE: case SITE_Q_NORM_NORMALIZED: case SITE_Q_NORM_OUT:
    case SITE_K_NORM_SCALE: case SITE_K_NORM_NORMALIZED: case SITE_K_NORM_OUT:
    case SITE_ROT_Q: case SITE_ROT_K: case SITE_SCORES: case SITE_PATTERN: return false;
    case SITE_ATTN_Z: case SITE_MLP_PRE: case SITE_MLP_PRE_LINEAR: case SITE_MLP_MID: case SITE_MLP_POST: return true;
    default: return info->d_out == d_model;
  }
}

/* What neurons write passes the norm behind the MLP, where there is one, on its way to the stream: its gain counts, its scale is
 * that of a token and changes no order. */
static int through_norm(const struct dict *dict, const struct model *model, float *rows, int n, struct error *error) {
  const struct dict_info *info = dict_info(dict);
  struct span gain = model->weights.layers[info->out.layer].vector[SLOT_POST2_GAIN];
  size_t width = (size_t)info->d_out;
  if (info->kind != DICT_NEURONS || !gain.memory) return 0;
  float *gains = malloc(width * sizeof *gains);
  if (!gains) return error_memory(error, width * sizeof *gains);
  int failed = model->backend->ops->read(model->backend, gains, gain, width * sizeof *gains, error);
  for (size_t i = 0; !failed && i < (size_t)n * width; i++) rows[i] *= gains[i % width];
  free(gains);
  return failed;
}

/* rows [n, d_out] become [n, d_model]; there is room for whichever is more. */
static int to_stream(const struct dict *dict, struct plan *plan, float *rows, int n, struct error *error) {
  const struct dict_info *info = dict_info(dict);
  const struct model *model = plan_model(plan);
  const struct matrix *w = way_out(model, info->out);
  struct backend *backend = model->backend;
  if (!w) return through_norm(dict, model, rows, n, error);
  int64_t ld_x = (w->n_in + 15) / 16 * 16, ld_y = (w->n_out + 15) / 16 * 16;
  struct memory *memory = NULL;
  if (backend->ops->alloc(backend, (size_t)((ld_x + ld_y) * n) * sizeof(float), &memory, error) != 0) return -1;
  struct rows x = {{memory, 0}, ld_x}, y = {{memory, (size_t)(ld_x * n) * sizeof(float)}, ld_y};
  int failed = 0;
  for (int i = 0; !failed && i < n; i++)
    failed = backend->ops->write(backend, span_at(x.at, (size_t)(i * ld_x + info->out_column) * sizeof(float)),
                                 rows + i * info->d_out, (size_t)info->d_out * sizeof(float), error);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT, .u.linear = {.w = w, .x = x, .y = y, .act = ACT_NONE}};
  struct step step = {.n_layer = 1, .n_rows = n, .n_logit_rows = n};
  if (!failed) failed = backend->ops->run(backend, &op, 1, &step, error);
  for (int i = 0; !failed && i < n; i++)
    failed = backend->ops->read(backend, rows + i * w->n_out, span_at(y.at, (size_t)(i * ld_y) * sizeof(float)),
                                (size_t)w->n_out * sizeof(float), error);
  backend->ops->free(backend, memory);
  return failed;
}

/* rows [n, d_model] of the stream, without the final norm, through the unembedding. */
static int each_unembedded(struct plan *plan, int64_t vocabulary, const float *rows, int n,
                           void (*see)(void *context, int i, const float *logits), void *context, struct error *error) {
  struct backend *backend = plan_backend(plan);
  float *logits = malloc((size_t)vocabulary * sizeof *logits);
  int failed = logits ? plan_unembed(plan, rows, n, error) : error_memory(error, (size_t)vocabulary * sizeof *logits);
  struct rows all = plan_logits(plan);
  for (int i = 0; !failed && i < n; i++) {
    struct span at = span_at(all.at, (size_t)i * (size_t)all.ld * sizeof(float));
    failed = backend->ops->read(backend, logits, at, (size_t)vocabulary * sizeof(float), error);
    if (!failed) see(context, i, logits);
  }
  free(logits);
  return failed;
}

int tables_each(const struct dict *dict, struct plan *plan, int64_t vocabulary, const uint32_t *features, int n,
                void (*see)(void *context, int i, const float *logits), void *context, struct error *error) {
  size_t width = (size_t)dict_info(dict)->d_out, stream = (size_t)plan_model(plan)->arch.d_model;
  assert(tables_has_logits(dict, (int64_t)stream));
  size_t bytes = (size_t)n * (width > stream ? width : stream) * sizeof(float);
  float *rows = malloc(bytes);
  int failed = rows ? 0 : error_memory(error, bytes);
  for (int i = 0; !failed && i < n; i++) dict_decoder_row(dict, features[i], rows + (size_t)i * width);
  if (!failed) failed = to_stream(dict, plan, rows, n, error);
  if (!failed) failed = each_unembedded(plan, vocabulary, rows, n, see, context, error);
  free(rows);
  return failed;
}

struct summaries {
  int64_t vocabulary;
  struct feature_logits *out;
};

static void see_summary(void *context, int i, const float *logits) {
  struct summaries *s = context;
  summarise(logits, s->vocabulary, &s->out[i]);
}

int tables_logits(const struct dict *dict, struct plan *plan, int64_t vocabulary, const uint32_t *features, int n,
                  struct feature_logits *out, struct error *error) {
  struct summaries summaries = {vocabulary, out};
  return tables_each(dict, plan, vocabulary, features, n, see_summary, &summaries, error);
}

int tables_row_logits(struct plan *plan, int64_t vocabulary, const float *row, struct feature_logits *out, struct error *error) {
  struct summaries summaries = {vocabulary, out};
  return each_unembedded(plan, vocabulary, row, 1, see_summary, &summaries, error);
}

/* ---- neighbours ---- */

struct decoder_table {
  const struct dict *dict;
  int64_t first, count;    /* which rows */
  struct backend *backend;
  struct matrix *decoder;  /* [count, d_out] */
  float *made;             /* its rows, where they do not lie in the file so */
  struct memory *memory;   /* queries, then products */
  struct rows x, y;
  float *products;         /* [count] host copy of one row */
  float *inverse;          /* [count] what makes a unit row of the row in the file */
};

static int measure(struct decoder_table *table, struct error *error) {
  const struct dict_info *info = dict_info(table->dict);
  size_t n = (size_t)table->count, width = (size_t)info->d_out;
  table->products = malloc(n * sizeof *table->products);
  table->inverse = malloc(n * sizeof *table->inverse);
  float *row = malloc(width * sizeof *row);
  if (!table->products || !table->inverse || !row) {
    free(row);
    return error_memory(error, n * sizeof *table->products);
  }
  for (size_t f = 0; f < n; f++) {
    double sum = 0;
    dict_decoder_row(table->dict, table->first + (int64_t)f, row);
    for (size_t i = 0; i < width; i++) sum += (double)row[i] * row[i];
    table->inverse[f] = sum > 0 ? (float)(dict_decoder_factor(table->dict, table->first + (int64_t)f) / sqrt(sum)) : 0;
  }
  free(row);
  return 0;
}

static int place(struct decoder_table *table, struct error *error) {
  const struct dict_info *info = dict_info(table->dict);
  int64_t ld_x = (info->d_out + 15) / 16 * 16, ld_y = (table->count + 15) / 16 * 16;
  size_t bytes = (size_t)(ld_x + ld_y) * TABLE_QUERIES * sizeof(float);
  if (table->backend->ops->alloc(table->backend, bytes, &table->memory, error) != 0) return -1;
  table->x = (struct rows){{table->memory, 0}, ld_x};
  table->y = (struct rows){{table->memory, (size_t)ld_x * TABLE_QUERIES * sizeof(float)}, ld_y};
  return 0;
}

struct decoder_table *decoder_table_new(const struct dict *dict, int64_t first, int64_t count, struct backend *backend,
                                        struct error *error) {
  struct decoder_table *table = calloc(1, sizeof *table);
  if (!table) return error_memory(error, sizeof *table), NULL;
  table->dict = dict;
  table->first = first;
  table->count = count;
  table->backend = backend;
  if (dict_decoder_matrix(dict, first, count, &table->decoder, &table->made, error) != 0 || measure(table, error) != 0 ||
      place(table, error) != 0) {
    decoder_table_free(table);
    return NULL;
  }
  return table;
}

void decoder_table_free(struct decoder_table *table) {
  if (!table) return;
  table->backend->ops->matrix_free(table->backend, table->decoder);
  table->backend->ops->free(table->backend, table->memory);
  free(table->made);
  free(table->products);
  free(table->inverse);
  free(table);
}

bool decoder_table_has_direction(const struct decoder_table *table, int64_t i) { return table->inverse[i - table->first] > 0; }

static void nearest(const struct decoder_table *table, float query_inverse, int64_t skip, int most,
                    struct feature_neighbours *out) {
  int32_t ids[TABLE_NEIGHBOURS_MOST];
  for (int i = 0; i < out->n; i++) ids[i] = (int32_t)out->index[i];
  for (int64_t f = 0; f < table->count; f++)
    if (table->first + f != skip)
      keep_largest(ids, out->cosine, &out->n, most, (int32_t)(table->first + f),
                   table->products[f] * table->inverse[f] * query_inverse);
  for (int i = 0; i < out->n; i++) out->index[i] = (uint32_t)ids[i];
}

static float inverse_length(const float *v, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)v[i] * v[i];
  return sum > 0 ? (float)(1 / sqrt(sum)) : 0;
}

int decoder_table_nearest(struct decoder_table *table, const float *queries, const int64_t *skip, int n, int most,
                          struct feature_neighbours *out, struct error *error) {
  const struct dict_info *info = dict_info(table->dict);
  struct backend *backend = table->backend;
  size_t width = (size_t)info->d_out * sizeof(float);
  assert(n >= 1 && n <= TABLE_QUERIES && most >= 1 && most <= TABLE_NEIGHBOURS_MOST);
  for (int i = 0; i < n; i++)
    if (backend->ops->write(backend, span_at(table->x.at, (size_t)i * (size_t)table->x.ld * sizeof(float)),
                            queries + (size_t)i * (size_t)info->d_out, width, error) != 0)
      return -1;
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT,
                  .u.linear = {.w = table->decoder, .x = table->x, .y = table->y, .act = ACT_NONE}};
  struct step step = {.n_layer = 1, .n_rows = n, .n_logit_rows = n};
  if (backend->ops->run(backend, &op, 1, &step, error) != 0) return -1;
  for (int i = 0; i < n; i++) {
    struct span at = span_at(table->y.at, (size_t)i * (size_t)table->y.ld * sizeof(float));
    if (backend->ops->read(backend, table->products, at, (size_t)table->count * sizeof(float), error) != 0) return -1;
    nearest(table, inverse_length(queries + (size_t)i * (size_t)info->d_out, info->d_out), skip[i], most,
            &out[i]);
  }
  return 0;
}

/* Rows of a part of so many bytes. */
static int64_t part_rows(const struct dict *dict, int64_t bytes) {
  const struct dict_info *info = dict_info(dict);
  int64_t fit = bytes / ((int64_t)sizeof(float) * info->d_out);
  return fit < 1 ? 1 : fit < info->n_feat ? fit : info->n_feat;
}

int decoder_nearest_part(const struct dict *dict, struct backend *backend, const float *query, int64_t skip, int most,
                         int64_t *next, struct feature_neighbours *out, struct error *error) {
  int64_t fit = part_rows(dict, TABLE_PART_BYTES), left = dict_info(dict)->n_feat - *next;
  int64_t count = fit < left ? fit : left;
  struct decoder_table *table = decoder_table_new(dict, *next, count, backend, error);
  int failed = table ? decoder_table_nearest(table, query, &skip, 1, most, out, error) : -1;
  decoder_table_free(table);
  *next += count;
  return failed ? -1 : *next < dict_info(dict)->n_feat;
}

/* ---- all parts ---- */

struct decoder_parts {
  const struct dict *dict;
  struct backend *backend;
  int64_t rows; /* of each part but the last */
  int64_t n, prepared;
  struct decoder_table *tables[]; /* [n] */
};

struct decoder_parts *decoder_parts_new(const struct dict *dict, struct backend *backend, int64_t part_bytes,
                                        struct error *error) {
  int64_t rows = part_rows(dict, part_bytes), n = (dict_info(dict)->n_feat + rows - 1) / rows;
  size_t bytes = sizeof(struct decoder_parts) + (size_t)n * sizeof(struct decoder_table *);
  struct decoder_parts *parts = calloc(1, bytes);
  if (!parts) return error_memory(error, bytes), NULL;
  parts->dict = dict;
  parts->backend = backend;
  parts->rows = rows;
  parts->n = n;
  return parts;
}

void decoder_parts_free(struct decoder_parts *parts) {
  for (int64_t i = 0; parts && i < parts->prepared; i++) decoder_table_free(parts->tables[i]);
  free(parts);
}

int64_t decoder_parts_count(const struct decoder_parts *parts) { return parts->n; }

int decoder_parts_prepare(struct decoder_parts *parts, struct error *error) {
  if (parts->prepared == parts->n) return 0;
  int64_t first = parts->prepared * parts->rows, left = dict_info(parts->dict)->n_feat - first;
  struct decoder_table *table =
      decoder_table_new(parts->dict, first, parts->rows < left ? parts->rows : left, parts->backend, error);
  if (!table) return -1;
  parts->tables[parts->prepared++] = table;
  return 1;
}

struct decoder_table *decoder_parts_table(struct decoder_parts *parts, int64_t part) {
  assert(part >= 0 && part < parts->prepared);
  return parts->tables[part];
}

bool decoder_parts_has_direction(const struct decoder_parts *parts, int64_t i) {
  return decoder_table_has_direction(parts->tables[i / parts->rows], i);
}
