/* origins.c: direct feature attribution: which tokens' value vectors a feature of attention's output comes from. Owns the rows of
 * values and patterns that this takes; knows no request. */
#include "core/lab/origins.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Values and patterns kept for one text. A pattern row of 32 heads over 8,192 tokens is 1 MiB. */
#define MOST_BYTES ((size_t)128 << 20)

int origins_layer(const struct dict *dict) {
  struct point in = dict_info(dict)->in;
  return in.site == SITE_ATTN_Z ? in.layer : -1;
}

void origins_taps(int layer, struct point taps[ORIGINS_TAPS]) {
  taps[0] = (struct point){layer, SITE_V};
  taps[1] = (struct point){layer, SITE_PATTERN};
}

static size_t value_width(const struct arch *arch) { return (size_t)arch->n_kv_head * (size_t)arch->d_head; }

void origins_clear(struct origins_text *text) {
  for (int l = 0; text->values && l < text->n_layers; l++) free(text->values[l]);
  for (size_t i = 0; i < text->n_rows; i++) free(text->rows[i].pattern);
  free(text->values);
  free(text->rows);
  *text = (struct origins_text){0};
}

static struct origins_row *find_row(const struct origins_text *text, int layer, size_t position) {
  for (size_t i = 0; i < text->n_rows; i++)
    if (text->rows[i].layer == layer && text->rows[i].position == position) return &text->rows[i];
  return NULL;
}

static int add_row(struct origins_text *text, const struct arch *arch, int layer, size_t position, struct error *error) {
  size_t floats = (size_t)arch->n_head * text->n;
  if (layer < 0 || find_row(text, layer, position)) return 0;
  float *pattern = calloc(floats, sizeof *pattern);
  if (!pattern) return error_memory(error, floats * sizeof *pattern);
  text->rows[text->n_rows++] = (struct origins_row){layer, position, pattern};
  return 0;
}

static int check_size(const struct origins_text *text, const struct arch *arch, size_t n_features, const char *field,
                      struct error *error) {
  double pattern = (double)arch->n_head * (double)text->n * sizeof(float);
  double rows = (double)n_features < (double)text->n * text->n_layers ? (double)n_features : (double)text->n * text->n_layers;
  double values = (double)value_width(arch) * (double)text->n * sizeof(float) * text->n_layers;
  if (pattern * rows + values <= (double)MOST_BYTES) return 0;
  return error_set_field(error, ERROR_LIMIT, field, "where %zu features of attention's output come from takes more than %zu MiB of "
                         "patterns over %zu tokens; ask for fewer, or of a shorter text", n_features, MOST_BYTES >> 20, text->n);
}

int origins_begin(struct origins_text *text, const struct arch *arch, size_t n, int n_layers, const int *layers,
                  const size_t *positions, size_t n_features, const char *field, struct error *error) {
  *text = (struct origins_text){.n = n, .n_layers = n_layers};
  if (check_size(text, arch, n_features, field, error) != 0) return -1;
  text->values = calloc((size_t)n_layers, sizeof *text->values);
  text->rows = calloc(n_features + 1, sizeof *text->rows);
  if (!text->values || !text->rows) return error_memory(error, n_features * sizeof *text->rows);
  for (int l = 0; l < n_layers; l++)
    if (!(text->values[l] = calloc(n * value_width(arch), sizeof(float)))) return error_memory(error, n * value_width(arch) * sizeof(float));
  for (size_t i = 0; i < n_features; i++)
    if (add_row(text, arch, layers[i], positions[i], error) != 0) return -1;
  return 0;
}

static int read_row(const struct engine_tapped *tapped, size_t i, float *to, struct error *error) {
  struct span at = span_at(tapped->rows.at, i * (size_t)tapped->rows.ld * sizeof(float));
  return tapped->backend->ops->read(tapped->backend, to, at, (size_t)tapped->width * sizeof(float), error);
}

int origins_tapped(struct origins_text *text, const struct engine_tapped *tapped, struct error *error) {
  int layer = tapped->tap / ORIGINS_TAPS;
  size_t first = (size_t)tapped->position, n = (size_t)tapped->n_rows;
  if (tapped->tap % ORIGINS_TAPS == 0) {
    for (size_t i = 0; i < n; i++)
      if (read_row(tapped, i, text->values[layer] + (first + i) * (size_t)tapped->width, error) != 0) return -1;
    return 0;
  }
  for (size_t k = 0; k < text->n_rows; k++) {
    struct origins_row *row = &text->rows[k];
    if (row->layer != layer || row->position < first || row->position >= first + n) continue;
    if (read_row(tapped, row->position - first, row->pattern, error) != 0) return -1;
  }
  return 0;
}

/* V[s, h] . w[h] over the columns that the dictionary reads of head h. */
static double product(const float *value, const float *w, int64_t begin, int64_t end, int64_t in_column) {
  double sum = 0;
  for (int64_t c = begin; c < end; c++) sum += (double)value[c - begin] * (double)w[c - in_column];
  return sum;
}

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int origins_finish(const struct origins_text *text, const struct arch *arch, const struct dict *dict, int64_t index, int layer,
                   size_t position, float *out, struct error *error) {
  const struct dict_info *info = dict_info(dict);
  const struct origins_row *row = find_row(text, layer, position);
  int64_t d_head = arch->d_head, group = arch->n_head / arch->n_kv_head;
  float *w = malloc((size_t)info->d_in * sizeof *w);
  if (!w) return error_memory(error, (size_t)info->d_in * sizeof *w);
  assert(row);
  dict_encoder_column(dict, index, w);
  for (size_t s = 0; s < text->n; s++) {
    double share = 0;
    for (int64_t h = 0; h < arch->n_head; h++) {
      int64_t begin = most(h * d_head, info->in_column), end = least((h + 1) * d_head, info->in_column + info->d_in);
      const float *value = text->values[layer] + s * value_width(arch) + (h / group) * d_head;
      if (begin >= end || row->pattern[(size_t)h * text->n + s] == 0) continue;
      share += (double)row->pattern[(size_t)h * text->n + s] * product(value + begin - h * d_head, w, begin, end, info->in_column);
    }
    out[s] = (float)share;
  }
  free(w);
  return 0;
}
