/* direction.c: the verb "direction": rows of two groups of texts at points, and what leads from one to the other. One pass a text;
 * the arithmetic is contrast.h's. */
#include "core/direction.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/experiment.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

#define ROUNDING 0x1p-23 /* of a row: groups that differ by less differ by how f32 rounds */

struct direction {
  struct experiment e;
  enum lab_direction_method method;
  enum lab_direction_row row;
  struct point *points;      /* in the order of the pass */
  int n_points;
  int64_t *widths, *offsets; /* [n_points]: of a row; where a point's rows begin in `rows` */
  double *rows;              /* of each point [n_texts][width]: positive texts first */
  int64_t *counted;          /* [n_texts] tokens in a mean */
  float *host;               /* [widest] */
  struct lab_direction_at *at;
  struct lab_direction_result result;
};

static struct direction *direction_of(struct experiment *e) { return (struct direction *)e; }

static void clear(struct experiment *e) {
  free(direction_of(e)->rows);
  free(direction_of(e)->host);
}

/* ---- while it runs ---- */

static bool counts(const struct direction *d, int text, int64_t position) {
  const struct lab_ids *ids = &d->e.texts[text];
  if (d->row == LAB_ROW_LAST) return position + 1 == (int64_t)ids->n;
  return !tokenizer_is_special(d->e.model->tokenizer, ids->ids[position]);
}

static double *row_of(const struct direction *d, int point, int text) {
  return d->rows + d->offsets[point] + (int64_t)text * d->widths[point];
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct direction *d = direction_of(e);
  double *to = row_of(d, tapped->tap, pass);
  for (int32_t i = 0; i < tapped->n_rows; i++) {
    if (!counts(d, pass, tapped->position + i)) continue;
    if (experiment_read_rows(tapped->backend, tapped->rows, i, 1, tapped->width, d->host, error) != 0) return -1;
    for (int64_t c = 0; c < tapped->width; c++) to[c] += (double)d->host[c] / (double)d->counted[pass];
  }
  return 0;
}

/* ---- the result ---- */

static int make(struct direction *d, int i, double *found, struct error *error) {
  size_t width = (size_t)d->widths[i], n = d->result.n_positive;
  const struct contrast_groups groups = {row_of(d, i, 0), row_of(d, i, (int)n), n, d->result.n_negative, width};
  float *values = arena_array(&d->e.arena, width, sizeof *values, error);
  if (!values) return -1;
  if (d->method == LAB_DIRECTION_MEAN)
    contrast_mean(&groups, found);
  else if (contrast_principal(&groups, found, error) != 0)
    return -1;
  for (size_t c = 0; c < width; c++) values[c] = (float)found[c];
  d->at[i].values = values;
  return contrast_judge(&groups, found, &d->at[i].told, error);
}

static int finish(struct direction *d, struct error *error) {
  int64_t widest = 1;
  for (int i = 0; i < d->n_points; i++) widest = d->widths[i] > widest ? d->widths[i] : widest;
  double *found = arena_array(&d->e.arena, (size_t)widest, sizeof *found, error);
  if (!found) return -1;
  for (int i = 0; i < d->n_points; i++)
    if (make(d, i, found, error) != 0) return -1;
  return 0;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct direction *d = direction_of(e);
  if (stage > 0) return finish(d, error);
  struct pass *passes = experiment_passes(e, e->n_texts, error);
  for (size_t t = 0; passes && t < e->n_texts; t++) {
    if (experiment_plain(e, &passes[t], t, false, error) != 0) return -1;
    passes[t].taps = d->points;
    passes[t].n_taps = d->n_points;
    passes[t].last_layer = 0;
    for (int i = 0; i < d->n_points; i++)
      if (point_layers(d->points[i]) > passes[t].last_layer) passes[t].last_layer = point_layers(d->points[i]);
  }
  return passes ? 0 : -1;
}

static const struct experiment_verb verb = {.tapped = on_tapped, .stage = on_stage, .clear = clear};

/* ---- what is asked ---- */

static int check_point(const struct direction *d, struct point point, bool keep, const char *field, struct error *error) {
  char name[POINT_NAME_BYTES];
  if (point_shape(&d->e.model->arch, point.site).square)
    return error_set_field(error, ERROR_ARGUMENT, field, "%s: rows of '%s' are as long as their text, so texts have no direction there", field,
                           point_name(point, name));
  if (keep && point.site != SITE_RESID_PRE && point.site != SITE_RESID_POST)
    return error_set_field(error, ERROR_ARGUMENT, field,
                           "%s: vectors are kept at hook_resid_pre and hook_resid_post only, '%s' is neither; leave out vectorLabel", field,
                           point_name(point, name));
  return 0;
}

/* points_select gives each point of a glob once, but two names may mean the same. */
static int add_points(struct direction *d, const char *name, bool keep, const char *field, bool *taken, struct error *error) {
  struct point *found;
  struct error inner = ERROR_INIT;
  size_t n;
  int failed = 0;
  if (points_select(name, &d->e.model->arch, &found, &n, &inner) != 0)
    return error_set_field(error, inner.code, field, "%s: %s", field, inner.text);
  for (size_t i = 0; i < n && !failed; i++) {
    failed = check_point(d, found[i], keep, field, error);
    taken[point_index(found[i])] = true;
  }
  free(found);
  return failed;
}

static int find_points(struct direction *d, const struct lab_direction_args *args, struct error *error) {
  struct arena *arena = &d->e.arena;
  int most = point_count(d->e.model->arch.n_layer);
  bool *taken = arena_array(arena, (size_t)most, sizeof *taken, error);
  d->points = arena_array(arena, (size_t)most, sizeof *d->points, error);
  if (!taken || !d->points) return -1;
  for (size_t i = 0; i < args->n_points; i++) {
    char field[32];
    snprintf(field, sizeof field, "points[%zu]", i);
    if (add_points(d, args->points[i], args->keep, field, taken, error) != 0) return -1;
  }
  for (int i = 0; i < most; i++)
    if (taken[i]) d->points[d->n_points++] = (struct point){i / SITE_COUNT, (enum site)(i % SITE_COUNT)};
  return 0;
}

static int place_rows(struct direction *d, struct error *error) {
  struct experiment *e = &d->e;
  int64_t count = 0, widest = 1;
  d->widths = arena_array(&e->arena, (size_t)d->n_points, sizeof *d->widths, error);
  d->offsets = arena_array(&e->arena, (size_t)d->n_points, sizeof *d->offsets, error);
  if (!d->widths || !d->offsets) return -1;
  for (int i = 0; i < d->n_points; i++) {
    d->widths[i] = point_width(&e->model->arch, d->points[i].site, 1);
    d->offsets[i] = count;
    widest = d->widths[i] > widest ? d->widths[i] : widest;
    count += (int64_t)e->n_texts * d->widths[i];
    if (count > LABORATORY_MAX_BYTES / (int64_t)sizeof *d->rows)
      return error_set_field(error, ERROR_LIMIT, "points", "rows of %zu texts at %d points need more than %lld bytes; name fewer points",
                             e->n_texts, d->n_points, (long long)LABORATORY_MAX_BYTES);
  }
  d->rows = calloc((size_t)count, sizeof *d->rows);
  d->host = malloc((size_t)widest * sizeof *d->host);
  return d->rows && d->host ? 0 : error_memory(error, (size_t)count * sizeof *d->rows);
}

static int count_tokens(struct direction *d, struct error *error) {
  struct experiment *e = &d->e;
  d->counted = arena_array(&e->arena, e->n_texts, sizeof *d->counted, error);
  for (size_t t = 0; d->counted && t < e->n_texts; t++) {
    for (size_t i = 0; i < e->texts[t].n; i++) d->counted[t] += counts(d, (int)t, (int64_t)i);
    if (d->counted[t]) continue;
    bool positive = t < d->result.n_positive;
    char field[32];
    snprintf(field, sizeof field, "%s[%zu]", positive ? "positive" : "negative", positive ? t : t - d->result.n_positive);
    return error_set_field(error, ERROR_ARGUMENT, field, "%s has no token but special ones, of which no mean is taken", field);
  }
  return d->counted ? 0 : -1;
}

static int read_texts(struct direction *d, const struct lab_direction_args *args, struct error *error) {
  size_t n = args->n_positive + args->n_negative;
  struct lab_input *inputs = arena_array(&d->e.arena, n, sizeof *inputs, error);
  for (size_t i = 0; inputs && i < n; i++) {
    bool positive = i < args->n_positive;
    size_t at = positive ? i : i - args->n_positive;
    inputs[i] = positive ? args->positive[at] : args->negative[at];
    inputs[i].field = arena_printf(&d->e.arena, error, "%s[%zu]", positive ? "positive" : "negative", at);
    if (!inputs[i].field) return -1;
  }
  return inputs ? experiment_texts(&d->e, inputs, n, args->bos, true, error) : -1;
}

static int name_points(struct direction *d, struct error *error) {
  struct arena *arena = &d->e.arena;
  d->at = arena_array(arena, (size_t)d->n_points, sizeof *d->at, error);
  for (int i = 0; d->at && i < d->n_points; i++) {
    char name[POINT_NAME_BYTES];
    point_name(d->points[i], name);
    d->at[i].width = d->widths[i];
    if (!(d->at[i].point = arena_text(arena, name, strlen(name), error))) return -1;
  }
  d->result.at = d->at;
  d->result.n = (size_t)d->n_points;
  return d->at ? 0 : -1;
}

static int prepare(struct direction *d, const struct lab_direction_args *args, struct error *error) {
  d->method = args->method;
  d->row = args->row;
  d->e.aside = true; /* principal directions of many texts take longer than a step */
  d->result.n_positive = args->n_positive;
  d->result.n_negative = args->n_negative;
  if (args->method == LAB_DIRECTION_PRINCIPAL && args->n_positive != args->n_negative)
    return error_set_field(error, ERROR_ARGUMENT, "negative", "'negative' has %zu texts, 'positive' %zu; the method takes pairs, as many of both",
                           args->n_negative, args->n_positive);
  if (read_texts(d, args, error) != 0 || find_points(d, args, error) != 0 || place_rows(d, error) != 0) return -1;
  return count_tokens(d, error) != 0 ? -1 : name_points(d, error);
}

/* ---- the verb ---- */

int lab_direction(struct lab *lab, const struct lab_direction_args *args, struct lab_waker waker, struct lab_job **out, struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct direction), waker, error);
  if (!e) return -1;
  if (prepare(direction_of(e), args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_direction_result *lab_direction_result(const struct lab_job *job) { return &((const struct direction *)job)->result; }

int lab_direction_keep(const struct lab *lab, const struct lab_model_info *model, const struct lab_direction_result *result, const char *label,
                       struct arena *arena, struct store_vector **out, struct error *error) {
  struct store *store = lab_store(lab);
  if (!store) return lab_needs_store(error);
  *out = arena_array(arena, result->n, sizeof **out, error);
  for (size_t i = 0; *out && i < result->n; i++) {
    const struct lab_direction_at *at = &result->at[i];
    struct point point;
    (*out)[i] = (struct store_vector){.model = model->id, .label = label, .strength = 1, .values = at->values, .n = (size_t)at->width};
    if (!(at->told.length > ROUNDING * at->told.row_length))
      return error_set_field(error, ERROR_ARGUMENT, "points", "at '%s' the texts do not differ, so there is no direction to keep", at->point);
    if (point_read(at->point, model->n_layer, &point, error) != 0 ||
        lab_vector_place(point.layer, point.site == SITE_RESID_PRE, arena, &(*out)[i], error) != 0)
      return -1;
  }
  return *out ? store_vectors_add(store, *out, result->n, error) : -1;
}
