/* attribute_features.c: gradients at the point that a source writes, taken apart into its features, what it makes without them, and what
 * it leaves out. Knows nothing of how gradients come about. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/attribute.h"
#include "core/model/points.h"

#define ENCODE_COST ((int64_t)1 << 28) /* products of two numbers in a piece: some 5 ms of two processors */
#define MOST_CELLS ((size_t)1 << 18)   /* rows of a reply */

/* ---- opening ---- */

static int refuse(const char *field, const char *id, const char *why, struct error *error) {
  return error_set_field(error, ERROR_ARGUMENT, field, "%s: attributions of '%.80s' are not there: %s", field, id, why);
}

static int check_source(const struct dict_info *info, const char *field, const char *id, struct error *error) {
  if (info->cross) return refuse(field, id, "it is a layer of a cross-layer transcoder, which writes to many points", error);
  if (info->in.layer != info->out.layer) return refuse(field, id, "it writes to another layer than it reads", error);
  if (!backward_has(info->out.site) || !backward_has(info->in.site)) return refuse(field, id, "there are no gradients at its point", error);
  return 0;
}

static void ask(struct attribute *a, struct point point) {
  for (int i = 0; i < a->n_asked; i++)
    if (point_index(a->asked[i]) == point_index(point)) return;
  a->asked[a->n_asked++] = point;
}

static int open_source(struct attribute *a, size_t i, const struct lab_source_info *info, const char *field, struct error *error) {
  struct attributed *s = &a->sources[i];
  s->dict = lab_source_of(a->e.job.lab, info)->dict;
  s->result = (struct lab_attributed_source *)(uintptr_t)&a->result.sources[i];
  const struct dict_info *dict = dict_info(s->dict);
  char name[POINT_NAME_BYTES];
  if (check_source(dict, field, info->id, error) != 0) return -1;
  s->neurons = dict->kind == DICT_NEURONS;
  s->in = dict->in;
  s->out = s->neurons ? dict->in : dict->out;
  s->out_width = s->neurons ? dict->in_width : dict->out_width;
  s->out_column = s->neurons ? dict->in_column : dict->out_column;
  s->d_out = s->neurons ? dict->d_in : dict->d_out;
  s->result->source = info;
  s->result->point = arena_text(&a->e.arena, point_name(s->out, name), strlen(point_name(s->out, name)), error);
  s->result->positions = s->positions = arena_array(&a->e.arena, a->result.n_positions, sizeof *s->positions, error);
  size_t n = (size_t)dict->n_feat;
  s->sums = calloc(n, sizeof *s->sums);
  for (int t = 0; t < 2; t++) s->largest[t] = calloc(n, sizeof **s->largest);
  if (!s->sums || !s->largest[0] || !s->largest[1]) return error_memory(error, n * sizeof *s->sums);
  for (size_t k = 0; s->positions && k < a->result.n_positions; k++) s->positions[k].position = a->result.positions[k];
  s->result->text.position = -1;
  ask(a, s->in);
  ask(a, s->out);
  return s->result->point && s->positions ? 0 : -1;
}

int attribute_sources(struct attribute *a, struct lab *lab, const struct lab_attribute_args *args, struct error *error) {
  size_t n = args->n_sources;
  a->result.sources = arena_array(&a->e.arena, n, sizeof *a->result.sources, error);
  a->sources = arena_array(&a->e.arena, n, sizeof *a->sources, error);
  if (!a->result.sources || !a->sources) return -1;
  if (n * (a->result.n_positions + 1) * (size_t)(args->top_k + 1) > MOST_CELLS)
    return error_set_field(error, ERROR_LIMIT, "topK", "%zu sources at %zu positions with topK %d are more than %zu rows; name fewer of either",
                           n, a->result.n_positions, args->top_k, MOST_CELLS);
  for (size_t i = 0; i < n; i++) {
    char field[32];
    snprintf(field, sizeof field, "sources[%zu]", i);
    const struct lab_source_info *info = lab_find_source(lab, args->model, args->sources[i], field, error);
    if (!info) return -1;
    a->result.n_sources = i + 1; /* what attribute_clear_sources frees */
    if (open_source(a, i, info, field, error) != 0) return -1;
  }
  return 0;
}

void attribute_clear_sources(struct attribute *a) {
  for (size_t i = 0; a->sources && i < a->result.n_sources; i++) {
    free(a->sources[i].sums);
    for (int t = 0; t < 2; t++) free(a->sources[i].largest[t]);
  }
}

/* ---- the largest ---- */

static int by_size(const void *a, const void *b) {
  const struct lab_feature_share *x = a, *y = b;
  double dx = fabs(x->attribution), dy = fabs(y->attribution);
  if (dx != dy) return dx > dy ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* The largest of `all`, which is put in order, copied into the arena. */
static int keep_top(struct attribute *a, struct lab_feature_share *all, size_t n, struct lab_share *share, struct error *error) {
  qsort(all, n, sizeof *all, by_size);
  share->n_active = n;
  share->n_top = n < (size_t)a->args.top_k ? n : (size_t)a->args.top_k;
  struct lab_feature_share *top = arena_array(&a->e.arena, share->n_top, sizeof *top, error);
  if (!top) return -1;
  if (share->n_top) memcpy(top, all, share->n_top * sizeof *top);
  share->top = top;
  return 0;
}

/* ---- rows ---- */

/* Some rows of a source: of both texts, one behind the other. */
struct piece {
  const struct attributed *s;
  int64_t first, n;
  int texts;
  float *g, *x[2], *y[2], *left[2]; /* gradients, rows read, rows written, errors */
  float *decoder;                   /* [d_out] */
  struct sparse codes[2];
  struct lab_feature_share *all;    /* of one row */
};

static void piece_clear(struct piece *p) {
  float *all[] = {p->g, p->x[0], p->x[1], p->y[0], p->y[1], p->left[0], p->left[1], p->decoder};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
  for (int t = 0; t < 2; t++) sparse_clear(&p->codes[t]);
  free(p->all);
}

static int64_t rows_of_piece(const struct attribute *a, const struct attributed *s) {
  const struct dict_info *info = dict_info(s->dict);
  int64_t rows = ENCODE_COST / (info->d_in * info->n_feat) + 1, left = (int64_t)a->result.n_tokens - s->row;
  if (rows > 64) rows = 64; /* of which each may have many features */
  return rows < left ? rows : left;
}

static int take_floats(float **out, int64_t n, struct error *error) {
  *out = malloc((size_t)n * sizeof **out);
  return *out ? 0 : error_memory(error, (size_t)n * sizeof **out);
}

/* What stands in the rows of one text, its codes, and what these leave out. */
static int read_text(struct attribute *a, struct piece *p, int text, const struct backward_seen *seen, struct error *error) {
  const struct dict_info *info = dict_info(p->s->dict);
  const struct attributed *s = p->s;
  struct backend *backend = a->e.model->backend;
  int64_t first = text * (int64_t)a->result.n_tokens + p->first;
  struct rows in = backward_values(a->backward, p->s->in);
  if (take_floats(&p->x[text], p->n * info->in_width, error) != 0 || take_floats(&p->y[text], p->n * s->out_width, error) != 0 ||
      take_floats(&p->left[text], p->n * s->d_out, error) != 0 ||
      experiment_read_rows(backend, in, first, p->n, info->in_width, p->x[text], error) != 0 ||
      experiment_read_rows(backend, seen->values, first, p->n, s->out_width, p->y[text], error) != 0)
    return -1;
  in.at = span_at(in.at, (size_t)(first * in.ld) * sizeof(float));
  if (dict_encode(p->s->dict, in, p->n, &p->codes[text], error) != 0) return -1;
  if (s->neurons)
    memset(p->left[text], 0, (size_t)(p->n * s->d_out) * sizeof *p->left[text]); /* they leave nothing out */
  else
    dict_errors(s->dict, &p->codes[text], 0, (size_t)p->n, p->x[text], p->y[text], p->left[text]);
  return 0;
}

static int read_piece(struct attribute *a, struct piece *p, const struct backward_seen *seen, struct error *error) {
  if (take_floats(&p->g, p->n * p->s->out_width, error) != 0 || take_floats(&p->decoder, p->s->d_out, error) != 0 ||
      experiment_read_rows(a->e.model->backend, seen->gradients, p->first, p->n, p->s->out_width, p->g, error) != 0)
    return -1;
  for (int t = 0; t < p->texts; t++)
    if (read_text(a, p, t, seen, error) != 0) return -1;
  size_t most = 1;
  for (int64_t r = 0; r < p->n; r++) {
    size_t n = 0;
    for (int t = 0; t < p->texts; t++) n += p->codes[t].start[r + 1] - p->codes[t].start[r];
    most = n > most ? n : most;
  }
  p->all = calloc(most, sizeof *p->all);
  return p->all ? 0 : error_memory(error, most * sizeof *p->all);
}

static double dot(const float *a, const float *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += (double)a[i] * (double)b[i];
  return sum;
}

/* The features of a row in either text, ascending, each with its activations: one walk over both. */
static size_t merge(const struct piece *p, int64_t r) {
  const struct sparse *here = &p->codes[0], *there = &p->codes[1];
  size_t i = here->start[r], i_end = here->start[r + 1], j = 0, j_end = 0, n = 0;
  if (p->texts > 1) j = there->start[r], j_end = there->start[r + 1];
  while (i < i_end || j < j_end) {
    bool first = j == j_end || (i < i_end && here->index[i] <= there->index[j]);
    bool second = i == i_end || (j < j_end && there->index[j] <= here->index[i]);
    p->all[n++] = (struct lab_feature_share){first ? here->index[i] : there->index[j], first ? here->value[i] : 0, second ? there->value[j] : 0, 0};
    i += first;
    j += second;
  }
  return n;
}

/* What a unit of a feature's activation is worth at a row. */
static double worth(const struct attributed *s, const struct piece *p, int32_t index, const float *g) {
  if (s->neurons) return (double)g[index];
  dict_decoder_row(s->dict, index, p->decoder);
  return dot(g, p->decoder, s->d_out);
}

/* Row r of the piece: what each feature has of it, and the rest. */
static int take_row(struct attribute *a, struct attributed *s, const struct piece *p, int64_t r, struct error *error) {
  const struct dict_info *info = dict_info(s->dict);
  const float *g = p->g + r * s->out_width + s->out_column;
  double scale[2] = {1, 1};
  struct lab_share share = {.position = p->first + r};
  for (int t = 0; t < p->texts; t++) {
    double sign = t ? -1 : 1;
    scale[t] = dict_decode_scale(s->dict, p->x[t] + r * info->in_width);
    share.total += sign * dot(g, p->y[t] + r * s->out_width + s->out_column, s->d_out);
    share.error += sign * dot(g, p->left[t] + r * s->d_out, s->d_out);
  }
  size_t n = merge(p, r);
  for (size_t k = 0; k < n; k++) {
    struct lab_feature_share *f = &p->all[k];
    f->attribution = worth(s, p, f->index, g) * ((double)f->activation * scale[0] - (double)f->against * scale[1]);
    share.features += f->attribution;
    s->sums[f->index] += f->attribution;
    s->largest[0][f->index] = fmaxf(s->largest[0][f->index], f->activation);
    s->largest[1][f->index] = fmaxf(s->largest[1][f->index], f->against);
  }
  share.bias = share.total - share.features - share.error;
  struct lab_share *text = &s->result->text;
  text->total += share.total;
  text->features += share.features;
  text->bias += share.bias;
  text->error += share.error;
  bool kept = false;
  for (size_t k = 0; k < a->result.n_positions; k++) {
    if (a->result.positions[k] != share.position) continue;
    if (!kept && keep_top(a, p->all, n, &share, error) != 0) return -1;
    kept = true;
    s->positions[k] = share;
  }
  return 0;
}

static int take_rows(struct attribute *a, struct attributed *s, const struct backward_seen *seen, struct error *error) {
  struct piece p = {.s = s, .first = s->row, .n = rows_of_piece(a, s), .texts = a->result.differs ? 2 : 1};
  for (int t = 0; t < 2; t++) sparse_init(&p.codes[t]);
  int failed = read_piece(a, &p, seen, error);
  for (int64_t r = 0; r < p.n && !failed; r++) failed = take_row(a, s, &p, r, error);
  s->row += p.n;
  piece_clear(&p);
  return failed;
}

int attribute_features(struct attribute *a, const struct backward_seen *seen, struct error *error) {
  for (size_t i = 0; i < a->result.n_sources; i++) {
    struct attributed *s = &a->sources[i];
    if (point_index(s->out) != point_index(seen->point) || s->row >= (int64_t)a->result.n_tokens) continue;
    return take_rows(a, s, seen, error) != 0 ? -1 : 1;
  }
  return 0;
}

/* ---- over the text ---- */

/* A neuron may take part without ever being above 0. */
static bool takes_part(const struct attributed *s, int64_t f) {
  return s->largest[0][f] > 0 || s->largest[1][f] > 0 || s->sums[f] != 0;
}

static int finish_source(struct attribute *a, struct attributed *s, struct error *error) {
  int64_t n_feat = dict_info(s->dict)->n_feat;
  size_t n = 0;
  for (int64_t f = 0; f < n_feat; f++) n += takes_part(s, f);
  struct lab_feature_share *all = calloc(n ? n : 1, sizeof *all);
  if (!all) return error_memory(error, n * sizeof *all);
  n = 0;
  for (int64_t f = 0; f < n_feat; f++)
    if (takes_part(s, f))
      all[n++] = (struct lab_feature_share){(int32_t)f, s->largest[0][f], s->largest[1][f], s->sums[f]};
  int failed = keep_top(a, all, n, &s->result->text, error);
  free(all);
  return failed;
}

int attribute_finish_sources(struct attribute *a, struct error *error) {
  for (size_t i = 0; i < a->result.n_sources; i++)
    if (finish_source(a, &a->sources[i], error) != 0) return -1;
  return 0;
}
