/* compare.c: the verb "compare": which features of a dictionary differ most between a position of one text and a position
 * of another. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/experiment.h"

struct compare {
  struct experiment e;
  const struct dict *dict;
  struct point point;
  struct sparse codes[2];
  int n_results;
  struct lab_compare_result result;
};

static struct compare *compare_of(struct experiment *e) { return (struct compare *)e; }

static void clear(struct experiment *e) {
  for (int i = 0; i < 2; i++) sparse_clear(&compare_of(e)->codes[i]);
}

static int on_tapped(struct experiment *e, int pass, const struct engine_tapped *tapped, struct error *error) {
  struct compare *compare = compare_of(e);
  int64_t i = compare->result.positions[pass] - tapped->position;
  if (i < 0 || i >= tapped->n_rows) return 0;
  struct rows row = {span_at(tapped->rows.at, (size_t)i * (size_t)tapped->rows.ld * sizeof(float)), tapped->rows.ld};
  return dict_encode(compare->dict, row, 1, &compare->codes[pass], error);
}

static int by_difference(const void *a, const void *b) {
  const struct lab_difference *x = a, *y = b;
  float dx = fabsf(x->second - x->first), dy = fabsf(y->second - y->first);
  if (dx != dy) return dx > dy ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* Both rows ascend by feature: one walk over both. */
static int merge(struct compare *compare, struct error *error) {
  const struct sparse *a = &compare->codes[0], *b = &compare->codes[1];
  size_t i = 0, j = 0, n = 0, na = a->start[1], nb = b->start[1];
  struct lab_difference *all = arena_array(&compare->e.arena, na + nb, sizeof *all, error);
  if (!all) return -1;
  while (i < na || j < nb) {
    bool first = j == nb || (i < na && a->index[i] <= b->index[j]), second = i == na || (j < nb && b->index[j] <= a->index[i]);
    struct lab_difference d = {first ? a->index[i] : b->index[j], first ? a->value[i] : 0, second ? b->value[j] : 0};
    i += first;
    j += second;
    if (d.first != d.second) all[n++] = d;
  }
  qsort(all, n, sizeof *all, by_difference);
  compare->result.features = all;
  compare->result.n_features = n < (size_t)compare->n_results ? n : (size_t)compare->n_results;
  return 0;
}

static int on_stage(struct experiment *e, int stage, struct error *error) {
  struct compare *compare = compare_of(e);
  if (stage > 0) return merge(compare, error);
  return experiment_tapped(e, &compare->point, error);
}

static const struct experiment_verb verb = {.tapped = on_tapped, .stage = on_stage, .clear = clear};

static int prepare(struct compare *compare, struct lab *lab, const struct lab_compare_args *args, struct error *error) {
  struct experiment *e = &compare->e;
  struct lab_compare_result *result = &compare->result;
  result->source = lab_find_source(lab, args->model, args->source_id, "source", error);
  if (!result->source || experiment_texts(e, args->inputs, 2, args->bos, true, error) != 0) return -1;
  compare->dict = lab_source_of(lab, result->source)->dict;
  compare->point = dict_info(compare->dict)->in;
  compare->n_results = args->n_results;
  for (size_t i = 0; i < 2; i++) {
    result->ids[i] = e->texts[i].ids;
    result->n_tokens[i] = e->texts[i].n;
    if (experiment_position(args->positions[i], e->texts[i].n, "positions", i, &result->positions[i], error) != 0 ||
        experiment_tokens(e, &e->texts[i], &result->tokens[i], error) != 0)
      return -1;
  }
  return 0;
}

int lab_compare(struct lab *lab, const struct lab_compare_args *args, struct lab_waker waker, struct lab_job **out,
                struct error *error) {
  struct experiment *e = experiment_new(lab, args->model, &verb, sizeof(struct compare), waker, error);
  if (!e) return -1;
  if (prepare(compare_of(e), lab, args, error) != 0) {
    experiment_free(e);
    return -1;
  }
  return experiment_start(e, out, error);
}

const struct lab_compare_result *lab_compare_result(const struct lab_job *job) {
  return &((const struct compare *)job)->result;
}
