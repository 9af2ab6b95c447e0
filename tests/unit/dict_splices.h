/* dict_splices.h: a dictionary as an op of a backend that splices, beside what core/dict says of the same codes: whatever its kind, its
 * norm, its points and its file. */
#ifndef STEERD_TESTS_UNIT_DICT_SPLICES_H
#define STEERD_TESTS_UNIT_DICT_SPLICES_H

#include "tests/unit/dict_vectors.h"

#define SPLICED_ROWS 12
#define SPLICED_CHANGES 2

/* What is changed in row i, and whether its error stays: every combination within six rows. */
struct spliced_row {
  struct edit_feature changes[SPLICED_CHANGES];
  int32_t n;
  bool with_error;
};

static inline struct spliced_row spliced_row_of(const struct sparse *codes, int i, int64_t n_feat) {
  struct spliced_row row = {.n = i % 3, .with_error = i % 2};
  int32_t kept = codes->start[i] < codes->start[i + 1] ? codes->index[codes->start[i]] : 0;
  row.changes[0] = (struct edit_feature){kept, FEATURE_SCALE, 0.5f};
  row.changes[1] = (struct edit_feature){(int32_t)(kept + 1 + (i * 7) % (n_feat - kept > 1 ? n_feat - kept - 1 : 1)), FEATURE_SET, 1.5f};
  if (row.changes[1].index >= n_feat) row.n = row.n > 1 ? 1 : row.n;
  return row;
}

static inline void spliced_codes(const struct sparse *codes, const struct spliced_row *rows, int n, int64_t n_feat, struct sparse *out) {
  float *dense = test_calloc((size_t)n_feat, sizeof *dense);
  for (int i = 0; i < n; i++) {
    memset(dense, 0, (size_t)n_feat * sizeof *dense);
    for (size_t e = codes->start[i]; e < codes->start[i + 1]; e++) dense[codes->index[e]] = codes->value[e];
    for (int32_t k = 0; k < rows[i].n; k++) {
      float *value = &dense[rows[i].changes[k].index];
      *value = rows[i].changes[k].change == FEATURE_SET ? rows[i].changes[k].value : rows[i].changes[k].value * *value;
    }
    assert_int_equal(sparse_row(out, (size_t)n_feat, NULL), 0);
    for (int32_t f = 0; f < n_feat; f++)
      if (dense[f] != 0) sparse_push(out, f, dense[f]);
  }
  test_free(dense);
}

/* What row i of the output point of a target becomes, in its columns. */
static inline void spliced_want(const struct dict *dict, const struct sparse *was, const struct sparse *now, size_t i, bool with_error,
                                int32_t target, const float *x, const float *y, float *want) {
  const struct dict_info *info = dict_info(dict);
  size_t width = (size_t)info->d_out;
  float *a = test_calloc(width, sizeof *a), *b = test_calloc(width, sizeof *b);
  const float *own = y + info->out_column;
  if (info->cross) {
    dict_target_add(dict, now, i, 1, target, a);
    if (with_error) dict_target_add(dict, was, i, 1, target, b);
    if (!with_error && !target) dict_skip_add(dict, x, 1, a);
    for (size_t c = 0; c < width; c++) want[c] = (with_error || target ? own[c] : dict_output_bias(dict)[c]) + a[c] - b[c];
  } else if (with_error) {
    dict_decode(dict, now, i, 1, x, a);
    dict_decode(dict, was, i, 1, x, b);
    for (size_t c = 0; c < width; c++) want[c] = own[c] + a[c] - b[c];
  } else {
    dict_errors(dict, now, i, 1, x, y, a);
    for (size_t c = 0; c < width; c++) want[c] = own[c] - a[c];
  }
  test_free(a);
  test_free(b);
}

/* Into `got`: [n_targets][n][out_width], which holds the rows y that are written to. */
static inline void spliced_run(struct backend *backend, const struct dict *dict, const float *x, const struct spliced_row *about, int n,
                               float *got) {
  const struct dict_info *info = dict_info(dict);
  const struct ops *ops = backend->ops;
  struct error error = ERROR_INIT;
  float *stale = test_calloc((size_t)n * (size_t)(info->n_targets * info->d_out), 4);
  size_t x_bytes = (size_t)n * (size_t)info->in_width * 4, y_bytes = (size_t)n * (size_t)info->out_width * 4;
  size_t targets = (size_t)info->n_targets, row_floats = targets * (size_t)info->d_out;
  bool one = point_index(info->in) == point_index(info->out);
  struct memory *from = NULL, *to = NULL, *aside = NULL;
  struct row_range *groups = test_calloc(targets + 1, sizeof *groups);
  struct splice_row *all = test_calloc((targets + 1) * (size_t)n, sizeof *all);
  struct op *list = test_calloc(targets + 1, sizeof *list);
  assert_int_equal(ops->alloc(backend, x_bytes, &from, NULL), 0);
  assert_int_equal(ops->alloc(backend, targets * y_bytes, &to, NULL), 0);
  assert_int_equal(ops->alloc(backend, (size_t)n * row_floats * 4, &aside, NULL), 0);
  assert_int_equal(ops->write(backend, (struct span){from, 0}, x, x_bytes, NULL), 0);
  assert_int_equal(ops->write(backend, (struct span){to, 0}, got, targets * y_bytes, NULL), 0);
  for (size_t i = 0; i < (size_t)n * row_floats; i++) stale[i] = 7; /* as a step before left it */
  assert_int_equal(ops->write(backend, (struct span){aside, 0}, stale, (size_t)n * row_floats * 4, NULL), 0);
  test_free(stale);
  const struct splice *what;
  uint64_t serial;
  if (dict_splice_hold(dict, &what, &serial, &error) != 0) fail_msg("%s", error.text);
  struct rows in = {{from, (size_t)info->in_column * 4}, info->in_width}, out = {{to, (size_t)info->out_column * 4}, info->out_width};
  if (one) in = (struct rows){{to, (size_t)info->in_column * 4}, info->in_width};
  for (size_t g = 0; g <= (info->cross ? targets : 0); g++) {
    struct op *op = &list[g];
    groups[g] = (struct row_range){(int32_t)g * n, (int32_t)(g + 1) * n};
    *op = (struct op){.code = g ? OP_PUT : OP_SPLICE, .set = ROWS_LOGIT, .width = g ? info->d_out : info->d_in};
    op->u.splice.what = g ? NULL : what;
    op->u.splice.serial = g ? 0 : serial;
    op->u.splice.group = (int32_t)g;
    op->u.splice.rows = SPLICED_ROWS + 4;
    op->u.splice.x = g ? (struct rows){{aside, 0}, 1} : in;
    op->u.splice.y = info->cross && !g ? (struct rows){{aside, 0}, 1} : out;
    if (g) op->u.splice.y.at.offset += (g - 1) * y_bytes;
    for (int i = 0; i < n; i++) {
      int32_t put_aside = i * (int32_t)row_floats;
      all[(int)g * n + i] = g ? (struct splice_row){.x = put_aside + (int32_t)(g - 1) * (int32_t)info->d_out, .y = i, .n_parts = 1,
                                                    .with_error = about[i].with_error || g > 1}
                              : (struct splice_row){.x = i, .y = info->cross ? put_aside : i, .with_error = about[i].with_error,
                                                    .n_changes = about[i].n, .changes = about[i].changes};
    }
  }
  size_t n_ops = info->cross ? targets + 1 : 1;
  struct step step = {.n_layer = 1, .n_rows = n, .n_logit_rows = n, .n_splice_groups = (int32_t)n_ops, .splice_groups = groups, .splices = all};
  if (ops->run(backend, list, n_ops, &step, &error) != 0 || backend_wait(backend, &error) != 0) fail_msg("%s", error.text);
  assert_int_equal(ops->read(backend, got, (struct span){to, 0}, targets * y_bytes, NULL), 0);
  dict_splice_release(dict);
  ops->free(backend, from);
  ops->free(backend, to);
  ops->free(backend, aside);
  test_free(groups);
  test_free(all);
  test_free(list);
}

/* Rows in which nothing changes: no bit of what is written to does. */
static inline bool stays(const struct dict_info *info, const struct spliced_row *row) {
  return row->with_error && !row->n && point_index(info->in) != point_index(info->out);
}

/* x, y: rows of the two points; y may be NULL where they are the same. */
static inline void splices_agree(struct backend *backend, const char *source, const struct dict *dict, const float *x, const float *y,
                                 int64_t n_rows) {
  const struct dict_info *info = dict_info(dict);
  struct spliced_row about[SPLICED_ROWS];
  struct sparse was, now;
  int n = n_rows < SPLICED_ROWS ? (int)n_rows : SPLICED_ROWS;
  size_t in = (size_t)info->in_width, out = (size_t)info->out_width, rows = (size_t)info->n_targets * (size_t)n;
  if (!backend->ops->splices) return;
  if (!dict_splices(dict)) fail_msg("%s is not spliced on %s", source, backend->ops->name);
  float *got = test_calloc(rows * out, sizeof *got), *want = test_calloc((size_t)info->d_out, sizeof *want);
  sparse_init(&was);
  sparse_init(&now);
  encode_rows(backend, dict, x, n, &was);
  for (int i = 0; i < n; i++) about[i] = spliced_row_of(&was, i, info->n_feat);
  spliced_codes(&was, about, n, info->n_feat, &now);
  if (!y) y = x;
  for (size_t r = 0; r < rows; r++) {
    float *row = got + r * out;
    memcpy(row, y + r % (size_t)n * out, out * sizeof *got);
    for (size_t c = 0; stays(info, &about[r % (size_t)n]) && c < out; c++) row[c] = -0.0f; /* which adding 0 would change */
  }
  spliced_run(backend, dict, x, about, n, got);
  for (size_t r = 0; r < rows; r++) {
    size_t i = r % (size_t)n;
    double most = 1;
    bool kept = stays(info, &about[i]);
    for (size_t c = 0; kept && c < out; c++) assert_true(got[r * out + c] == 0 && signbit(got[r * out + c]));
    if (kept) continue;
    spliced_want(dict, &was, &now, i, about[i].with_error, (int32_t)(r / (size_t)n), x + i * in, y + i * out, want);
    for (int64_t c = 0; c < info->d_out; c++) most = fmax(most, fabs((double)want[c]));
    for (int64_t c = 0; c < info->d_out; c++) {
      float is = got[r * out + (size_t)(info->out_column + c)];
      if (!(fabs((double)is - want[c]) <= 1e-4 * most)) /* decision 18 */
        fail_msg("%s: row %zu of target %zu, element %lld: %.9g, not %.9g", source, i, r / (size_t)n, (long long)c, (double)is, (double)want[c]);
    }
    for (int64_t c = 0; c < info->out_width; c++) /* other heads keep their bits */
      if (c < info->out_column || c >= info->out_column + info->d_out) assert_true(got[r * out + (size_t)c] == y[i * out + (size_t)c]);
  }
  sparse_clear(&was);
  sparse_clear(&now);
  test_free(got);
  test_free(want);
}

/* On the rows that were recorded for `source`. */
static inline void splices_as_recorded(struct backend *backend, const struct tensors *file, const char *source, const char *path,
                                       const char *id, const struct dict_host *host) {
  int64_t n_rows = 0;
  struct dict *dict = must_open(backend, path, id, host);
  const float *x = recorded(file, source, "x", &n_rows);
  splices_agree(backend, source, dict, x, recorded(file, source, "y", NULL), n_rows);
  dict_close(dict);
}

#endif
