/* direct.c: vectors on their way back through a frozen model. The tapes are backward.c's; what a vector means, and what is made of
 * what comes to a layer, is the caller's.
 *
 * Between two batches all cotangents are 0: every op takes those of what it writes, and what stays (the stream where a layer begins, rows
 * that nothing goes on from) is cleared here. So no layer has to be cleared for a batch. */
#include "core/model/direct.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/backward_int.h"
#include "core/model/live.h"

#define KEPT_BYTES ((size_t)1 << 30) /* of the text's values, all lanes */

/* A layer's way back. */
struct route {
  bool *live;          /* [ops] */
  size_t read, written; /* the ops of its two points */
  size_t values;        /* the product that makes queries, keys and values, of which values alone have cotangents; LIVE_NONE: it is not one */
  int64_t values_from;  /* their first output */
};

enum stage { FORWARD, HEAD_ROUTE, LAYERS, IDLE };

struct direct {
  struct backward *b;
  struct direct_args args;
  struct point *points;  /* [2 n_layer] */
  struct route *routes;  /* [n_layer] */
  const struct direct_target *targets;
  int n_targets;
  int32_t rows;          /* of the lanes of this batch */
  int32_t last;          /* position that a vector of it begins at */
  enum stage stage;
  int32_t layer, row;
  size_t op;             /* the next one is in front of it */
  bool shown, added;     /* what the op's point is about is done */
  const struct matrix *skip; /* of the layer; NULL: none, or nothing has come to what it writes */
  float *scratch;        /* [vocabulary] */
};

static const struct backward_events no_events = {NULL, NULL};

static int32_t n_layer_of(const struct direct *d) { return backward_layers(d->b); }
static const struct backend *backend_of(const struct direct *d) { return d->b->backend; }

/* ---- opening ---- */

static size_t find_point(const struct op_list *list, enum site site) {
  for (size_t i = 0; i < list->count; i++)
    if (list->ops[i].code == OP_POINT && list->ops[i].u.point.site == site) return i;
  return LIVE_NONE;
}

/* Where queries, keys and values are one product: it need not go back from the first two, whose pattern is held. */
static void find_values(const struct op_list *list, struct route *route) {
  route->values = LIVE_NONE;
  for (size_t i = 0; i < list->count; i++) {
    if (list->ops[i].code != OP_ATTEND) continue;
    const struct rows qkv = list->ops[i].u.attend.qkv;
    int64_t from = list->ops[i].u.attend.v;
    if (from <= list->ops[i].u.attend.q || from <= list->ops[i].u.attend.k) continue;
    for (size_t j = 0; j < i; j++)
      if (list->ops[j].code == OP_LINEAR && list->ops[j].u.linear.y.at.memory == qkv.at.memory && list->ops[j].u.linear.y.at.offset == qkv.at.offset &&
          list->ops[j].u.linear.y.ld == qkv.ld)
        *route = (struct route){route->live, route->read, route->written, j, from};
  }
}

static int make_route(struct direct *d, int32_t layer, struct error *error) {
  const struct unfolded *tape = &d->b->layers[layer].tape;
  struct route *route = &d->routes[layer];
  route->read = find_point(&tape->list, d->args.layers[layer].in);
  route->written = find_point(&tape->list, d->args.layers[layer].out);
  if (route->read >= route->written || route->written == LIVE_NONE)
    return error_set(error, ERROR_UNSUPPORTED, "layer %d of this model does not read and write at the points that are asked for", (int)layer);
  find_values(&tape->list, route);
  if (!(route->live = calloc(tape->list.count, sizeof *route->live))) return error_memory(error, tape->list.count);
  struct live_ends ends = {.wall = route->written, .source = route->read, .hold_pattern = true};
  return live_ops(tape, d->b->model->arch.d_model, &ends, route->live, error);
}

static int make_routes(struct direct *d, struct error *error) {
  int32_t n_layer = n_layer_of(d);
  size_t bytes = (size_t)d->b->model->arch.vocabulary * sizeof *d->scratch;
  if (!(d->routes = calloc((size_t)n_layer, sizeof *d->routes))) return error_memory(error, (size_t)n_layer * sizeof *d->routes);
  for (int32_t l = 0; l < n_layer; l++)
    if (make_route(d, l, error) != 0) return -1;
  return (d->scratch = malloc(bytes)) ? 0 : error_memory(error, bytes);
}

/* As many lanes as keep the text's values in memory. */
static int open_lanes(struct direct *d, struct plan *plan, struct error *error) {
  struct backward_args args = {.ids = {d->args.ids, NULL}, .n_tokens = d->args.n_tokens, .hold_norms = true, .hold_pattern = true,
                               .points = d->points, .n_points = 2 * plan_model(plan)->arch.n_layer, .first = d->args.n_tokens - 1,
                               .last = d->args.n_tokens - 1, .most_bytes = d->args.most_bytes, .kept_bytes = KEPT_BYTES,
                               .events = &no_events};
  for (args.copies = DIRECT_LANES; args.copies > 0; args.copies /= 2) {
    struct error inner = ERROR_INIT;
    backward_free(d->b);
    d->b = backward_new(plan, &args, &inner);
    if (d->b && d->b->keeps) return 0;
    bool limited = !d->b && (inner.code == ERROR_LIMIT || (inner.code == ERROR_MEMORY && plan_backend(plan)->ops->room));
    if (!d->b && (!limited || args.copies == 1)) return error_set(error, inner.code, "%s", inner.text);
  }
  return error_set(error, ERROR_LIMIT, "the values of %d tokens at all layers take more than can be kept (%zu MiB); give a shorter text",
                   d->args.n_tokens, size_min(KEPT_BYTES, d->args.most_bytes) >> 20);
}

struct direct *direct_new(struct plan *plan, const struct direct_args *args, struct error *error) {
  int32_t n_layer = plan_model(plan)->arch.n_layer;
  struct direct *d = calloc(1, sizeof *d);
  if (!d) return error_memory(error, sizeof *d), NULL;
  d->args = *args;
  d->points = calloc(2 * (size_t)n_layer, sizeof *d->points);
  for (int32_t l = 0; d->points && l < n_layer; l++) {
    d->points[2 * l] = (struct point){l, args->layers[l].in};
    d->points[2 * l + 1] = (struct point){l, args->layers[l].out};
  }
  int failed = d->points ? open_lanes(d, plan, error) : error_memory(error, 2 * (size_t)n_layer * sizeof *d->points);
  if (!failed && make_routes(d, error) == 0) return d;
  direct_free(d);
  return NULL;
}

void direct_free(struct direct *d) {
  if (!d) return;
  for (int32_t l = 0; d->routes && l < n_layer_of(d); l++) free(d->routes[l].live);
  free(d->routes);
  backward_free(d->b);
  free(d->points);
  free(d->scratch);
  free(d);
}

int direct_lanes(const struct direct *d) { return d->b->args.copies; }

struct rows direct_values(const struct direct *d, struct point point) { return backward_values(d->b, point); }

struct rows direct_embedded(const struct direct *d) { return d->b->layers[0].tape.begin; }

/* ---- there ---- */

static const struct unfolded *head_of(const struct direct *d) { return &d->b->layers[n_layer_of(d)].tape; }

/* The product that makes logits, in front of a cap. */
static size_t find_unembedding(const struct op_list *list) {
  size_t i = list->count;
  while (i-- > 0)
    if (list->ops[i].code == OP_LINEAR) return i;
  assert(!"a head without logits");
  return 0;
}

/* Norms for every lane, logits for one. */
static int run_head(struct direct *d, struct error *error) {
  struct backward *b = d->b;
  const struct op_list *list = &head_of(d)->list;
  size_t product = find_unembedding(list);
  for (int32_t lane = 0; lane < b->args.copies; lane++) b->logit_row[lane] = (lane + 1) * b->args.n_tokens - 1;
  b->step.n_logit_rows = b->args.copies;
  if (b->backend->ops->run(b->backend, list->ops, product, &b->step, error) != 0) return -1;
  b->step.n_logit_rows = 1;
  return b->backend->ops->run(b->backend, list->ops + product, list->count - product, &b->step, error);
}

static int there_piece(void *context, struct error *error) {
  struct direct *d = context;
  if (d->b->phase == THERE) return backward_piece(d->b, error) != 0 ? -1 : 1;
  d->stage = IDLE;
  return run_head(d, error);
}

int direct_forward(struct direct *d, struct error *error) { return backward_run_slice(d->b, there_piece, d, error); }

int direct_logits(const struct direct *d, float *out, struct error *error) {
  const struct op_list *list = &head_of(d)->list;
  const struct op *last = &list->ops[list->count - 1];
  assert(last->code == OP_LINEAR || last->code == OP_CAP);
  return backend_of(d)->ops->read(d->b->backend, out, last->u.linear.y.at, (size_t)d->b->model->arch.vocabulary * sizeof *out, error);
}

/* ---- cotangents ---- */

static struct rows cotangents(const struct direct *d, struct rows rows) { return rows_in_memory(rows, d->b->cotangents); }

static struct rows carried(const struct direct *d) {
  return (struct rows){{d->b->carry, 0}, (int64_t)d->b->model->arch.d_model};
}

/* Rows [begin, end) of this batch: n columns of each. */
static int clear_rows(struct direct *d, struct rows rows, int32_t begin, int32_t end, int64_t width, struct error *error) {
  bool together = rows.ld == width;
  size_t each = (size_t)width * sizeof(float) * (together ? (size_t)(end - begin) : 1);
  for (int32_t row = begin; row < (together ? begin + (end > begin) : end); row++)
    for (size_t at = 0; at < each; at += ZEROS) {
      struct span to = span_at(rows.at, (size_t)row * (size_t)rows.ld * sizeof(float) + at);
      if (backend_of(d)->ops->copy(d->b->backend, to, (struct span){d->b->zeros, 0}, size_min(ZEROS, each - at), error) != 0) return -1;
    }
  return 0;
}

static int add_row(struct direct *d, struct rows rows, int32_t row, const float *more, int64_t width, struct error *error) {
  struct span at = span_at(rows.at, (size_t)row * (size_t)rows.ld * sizeof(float));
  size_t bytes = (size_t)width * sizeof(float);
  float *sum = malloc(bytes);
  if (!sum) return error_memory(error, bytes);
  int failed = backend_of(d)->ops->read(d->b->backend, sum, at, bytes, error);
  for (int64_t i = 0; i < width && !failed; i++) sum[i] += more[i];
  if (!failed) failed = backend_of(d)->ops->write(d->b->backend, at, sum, bytes, error);
  free(sum);
  return failed;
}

/* ---- the head ---- */

static int write_logit(struct direct *d, const struct op *product, int lane, struct error *error) {
  const struct direct_target *target = &d->targets[lane];
  int64_t n = d->b->model->arch.vocabulary;
  bool is_logit = target->layer == n_layer_of(d);
  for (int64_t i = 0; i < n; i++) d->scratch[i] = is_logit ? (float)(-1.0 / (double)n) : 0;
  if (is_logit) d->scratch[target->token] += 1;
  struct rows y = rows_in_memory(product->u.linear.y, d->b->head_cotangents);
  return backend_of(d)->ops->write(d->b->backend, span_at(y.at, (size_t)lane * (size_t)y.ld * sizeof(float)), d->scratch,
                                   (size_t)n * sizeof(float), error);
}

static int head_back(struct direct *d, struct error *error) {
  struct backward *b = d->b;
  const struct op_list *list = &head_of(d)->list;
  size_t product = find_unembedding(list);
  struct vjp vjp = {.values = b->head, .cotangents = b->head_cotangents, .hold_norms = true, .hold_pattern = true};
  struct rows begin = rows_in_memory(head_of(d)->begin, b->head_cotangents);
  b->step.n_logit_rows = d->n_targets;
  for (int lane = 0; lane < d->n_targets; lane++)
    if (write_logit(d, &list->ops[product], lane, error) != 0) return -1;
  for (size_t i = product + 1; i-- > 0;)
    if (b->backend->ops->vjp(b->backend, &list->ops[i], &b->step, &vjp, error) != 0) return -1;
  if (backward_copy_rows(b, carried(d), begin, d->rows, error) != 0) return -1;
  return clear_rows(d, begin, 0, d->rows, begin.ld, error);
}

/* ---- layers ---- */

/* From the end of a layer that something comes to, or from the point where vectors begin. */
static int enter_layer(struct direct *d, int32_t layer, bool comes, struct error *error) {
  const struct unfolded *tape = &d->b->layers[layer].tape;
  d->stage = LAYERS;
  d->layer = layer;
  d->row = 0;
  d->op = comes ? tape->list.count : d->routes[layer].read + 1;
  d->shown = d->added = false;
  d->skip = NULL;
  return comes ? backward_copy_rows(d->b, cotangents(d, tape->end), carried(d), d->rows, error) : 0;
}

/* Behind the first op of a layer. 1 while there is more. */
static int leave_layer(struct direct *d, struct error *error) {
  struct rows begin = cotangents(d, d->b->layers[d->layer].tape.begin);
  int64_t width = (int64_t)d->b->model->arch.d_model;
  int32_t layer = d->layer;
  if (layer == 0) {
    int more = d->args.events->wrote(d->args.context, -1, begin, width, error);
    if (more) return more;
  } else if (backward_copy_rows(d->b, carried(d), begin, d->rows, error) != 0) {
    return -1;
  }
  if (clear_rows(d, begin, 0, d->rows, width, error) != 0) return -1;
  if (layer > 0) return enter_layer(d, layer - 1, true, error) != 0 ? -1 : 1;
  d->stage = IDLE;
  return 0;
}

/* Vectors that begin here, and what goes on from the rows written. */
static int add_vectors(struct direct *d, const struct op *op, struct error *error) {
  struct rows rows = cotangents(d, op->u.point.x);
  int64_t width = op->width;
  for (int lane = 0; lane < d->n_targets; lane++) {
    const struct direct_target *target = &d->targets[lane];
    int32_t row = lane * d->b->args.n_tokens + target->position;
    if (target->layer == d->layer && add_row(d, rows, row, target->vector, width, error) != 0) return -1;
  }
  return 0;
}

/* In no lane is anything behind the last position that a vector of the batch begins at. */
static struct vjp vjp_of(const struct direct *d) {
  const struct backward *b = d->b;
  return (struct vjp){b->layers[d->layer].values, b->cotangents, true, true, .period = b->args.n_tokens, .used = d->last + 1};
}

/* What has come to the rows that the layer writes is shown; it ends here, but for those that a skip takes up at the layer's `in`. */
static int show(struct direct *d, const struct op *op, struct error *error) {
  struct rows rows = cotangents(d, op->u.point.x);
  int32_t n = d->b->args.n_tokens, from = d->args.layers[d->layer].skips_from;
  int more = d->args.events->wrote(d->args.context, d->layer, rows, op->width, error);
  if (more) return more;
  d->shown = true;
  if (d->args.events->skip && d->args.events->skip(d->args.context, d->layer, &d->skip, error) != 0) return -1;
  if (!d->skip) return clear_rows(d, rows, 0, d->rows, op->width, error);
  for (int32_t lane = 0; lane < d->n_targets; lane++)
    if (clear_rows(d, rows, lane * n, lane * n + from, op->width, error) != 0) return -1;
  return 0;
}

/* A piece of the way back through the skip; 1 while there is more. Between its two points no live op has touched what came to its end. */
static int skip_back(struct direct *d, const struct op *read, struct error *error) {
  struct backward *b = d->b;
  struct rows end = b->layers[d->layer].tape.list.ops[d->routes[d->layer].written].u.point.x;
  struct op op = {.code = OP_LINEAR, .set = read->set, .layer = d->layer, .u.linear = {.w = d->skip, .x = read->u.point.x, .y = end}};
  struct vjp vjp = vjp_of(d);
  int64_t cost;
  int32_t until = backward_piece_end(b, &op, d->row, d->rows, &cost);
  backward_set_rows(b, d->layer, d->row, until);
  b->asked += cost;
  if (b->backend->ops->vjp(b->backend, &op, &b->step, &vjp, error) != 0) return -1;
  d->row = until < d->rows ? until : 0;
  if (d->row == 0) d->skip = NULL;
  return 1;
}

/* What is to be done at a point in front of its op; 1 to come again. */
static int at_point(struct direct *d, size_t i, const struct op *op, struct error *error) {
  if (i == d->routes[d->layer].written && !d->shown) return show(d, op, error);
  if (i != d->routes[d->layer].read || d->added) return 0;
  if (d->skip) return skip_back(d, op, error);
  d->added = true;
  return add_vectors(d, op, error);
}

/* A piece of an op, which d->op counts from behind. */
static int op_piece(struct direct *d, struct error *error) {
  struct backward *b = d->b;
  size_t i = d->op - 1;
  const struct op *op = &b->layers[d->layer].tape.list.ops[i];
  struct vjp vjp = vjp_of(d);
  int64_t cost;
  int more = op->code == OP_POINT ? at_point(d, i, op, error) : 0;
  if (more) return more;
  int32_t end = d->rows;
  if (d->routes[d->layer].live[i]) {
    end = backward_piece_end(b, op, d->row, d->rows, &cost);
    backward_set_rows(b, d->layer, d->row, end);
    b->asked += cost;
    if (i == d->routes[d->layer].values) vjp.outputs_from = d->routes[d->layer].values_from;
    if (b->backend->ops->vjp(b->backend, op, &b->step, &vjp, error) != 0) return -1;
  }
  d->row = end < d->rows ? end : 0;
  if (d->row == 0) d->op--;
  return 1;
}

static int back_piece(void *context, struct error *error) {
  struct direct *d = context;
  switch (d->stage) {
    case HEAD_ROUTE:
      if (head_back(d, error) != 0 || enter_layer(d, n_layer_of(d) - 1, true, error) != 0) return -1;
      return 1;
    case LAYERS: return d->op > 0 ? op_piece(d, error) : leave_layer(d, error);
    default: return 0;
  }
}

void direct_begin(struct direct *d, const struct direct_target *targets, int n) {
  assert(n > 0 && n <= direct_lanes(d) && d->stage == IDLE);
  d->targets = targets;
  d->n_targets = n;
  d->rows = n * d->b->args.n_tokens;
  int32_t top = 0;
  d->last = 0;
  for (int i = 0; i < n; i++) {
    if (targets[i].layer > top) top = targets[i].layer;
    if (targets[i].position > d->last) d->last = targets[i].position;
  }
  if (top == n_layer_of(d))
    d->stage = HEAD_ROUTE;
  else
    (void)enter_layer(d, top, false, NULL); /* nothing comes, nothing is copied */
}

int direct_back(struct direct *d, struct error *error) { return backward_run_slice(d->b, back_piece, d, error); }
