/* backward.c: runs the unfolded layers of a plan there and back, a piece at a time. Knows ops only by what they cost; what a gradient is of,
 * and what is made of it, is its caller's. */
#include "core/model/backward_int.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/clock.h"

#define SLICE_NS 8000000             /* after which a slice ends, once its piece is done */
#define PIECE ((int64_t)1 << 28)     /* products of two numbers in a piece: some 5 ms of two processors */
#define PIECE_ROWS 16                /* or that many rows, if they cost more */
#define ATTEND_BACK 16               /* times what attention costs there: it goes pair by pair */
#define ATTEND_BACK_ASKED 3          /* the same where it goes by products */

/* Where work is in flight (ops.wait): what is asked for before it is waited for, in products of two numbers; about a millisecond of a large
 * device. There an op goes by whole texts, because steps with few of its rows would read the weights again for each. */
#define ASKED ((int64_t)1 << 34)
#define ASKED_PIECE (ASKED / 128)    /* what a piece counts for at least: what it takes to ask */

bool backward_has(enum site site) {
  static const site_set none = (site_set)1 << SITE_SCORES | (site_set)1 << SITE_PATTERN | (site_set)1 << SITE_RESULT |
                               (site_set)1 << SITE_HEAD_IN | (site_set)1 << SITE_Q_IN | (site_set)1 << SITE_K_IN | (site_set)1 << SITE_V_IN;
  return site < SITE_FINAL_SCALE && !(none & site_bit(site));
}

static size_t width_of(const struct backward *b) { return (size_t)b->model->arch.d_model; }

/* ---- opening ---- */

static struct site_sets sets_of(const struct backward *b, int32_t layer) {
  struct step edits = {.n_layer = backward_layers(b), .edits = b->args.edits, .edit_begin = b->args.edit_begin};
  struct site_sets sets = step_sites(&edits, layer);
  for (int i = 0; i < b->args.n_points; i++)
    if (b->args.points[i].layer == layer) sets.tapped |= site_bit(b->args.points[i].site);
  return sets;
}

static int unfold(struct backward *b, int32_t layer, struct memory *memory, struct error *error) {
  bool head = layer == backward_layers(b);
  return unfold_segment(b->plan, layer, sets_of(b, layer), memory, head ? HEAD_ROWS : b->rows, b->rows, &b->layers[layer].tape, error);
}

/* Lists in no memory yet: their sizes are what is asked. */
static int measure(struct backward *b, size_t *all, struct error *error) {
  struct memory *some = plan_logits(b->plan).at.memory;
  *all = 0;
  for (int32_t l = 0; l <= backward_layers(b); l++) {
    if (unfold(b, l, some, error) != 0) return -1;
    if (l == backward_layers(b)) break;
    b->most = size_max(b->most, b->layers[l].tape.bytes);
    *all += b->layers[l].tape.bytes;
  }
  return 0;
}

/* Of one layer and one text: each text's attention is done before the next one's begins. */
static size_t kv_bytes(const struct backward *b, int32_t *blocks) {
  const struct arch *arch = &b->model->arch;
  *blocks = (b->args.n_tokens + KV_BLOCK - 1) / KV_BLOCK;
  return (size_t)*blocks * b->backend->ops->kv_block_bytes(b->backend, arch->n_kv_head, arch->d_head, model_kv_type(b->model));
}

static int refuse_size(const struct backward *b, size_t bytes, struct error *error) {
  size_t each = bytes / (size_t)b->args.n_tokens + 1;
  return error_set(error, ERROR_LIMIT, "the way back through %d tokens takes %zu MiB, at most %zu are allowed, which is about %zu tokens",
                   b->args.n_tokens, bytes >> 20, b->args.most_bytes >> 20, b->args.most_bytes / each);
}

/* Memory of a device, which has no more when it is full. */
static int refuse_room(const struct backward *b, size_t bytes, size_t room, struct error *error) {
  size_t each = bytes / (size_t)b->args.n_tokens + 1;
  return error_set(error, ERROR_MEMORY, "the way back through %d tokens takes %zu MiB, of which '%s' has %zu MiB left, for about %zu tokens",
                   b->args.n_tokens, bytes >> 20, b->backend->ops->name, room >> 20, room / each);
}

static int take(struct backward *b, struct memory **out, size_t bytes, struct error *error) {
  return b->backend->ops->alloc(b->backend, size_max(bytes, 64), out, error);
}

static int take_memory(struct backward *b, struct error *error) {
  int32_t n_layer = backward_layers(b), blocks;
  size_t all, stream = (size_t)b->rows * width_of(b) * sizeof(float), kv = kv_bytes(b, &blocks);
  if (measure(b, &all, error) != 0) return -1;
  size_t head = b->layers[n_layer].tape.bytes, rest = b->most + 2 * head + ((size_t)n_layer + 2) * stream + kv + ZEROS;
  size_t room = b->backend->ops->room ? backend_room(b->backend) : SIZE_MAX;
  b->keeps = all <= (b->args.kept_bytes ? b->args.kept_bytes : BACKWARD_KEPT) && all + rest <= b->args.most_bytes && all + rest <= room / 2;
  if (rest + b->most > b->args.most_bytes) return refuse_size(b, rest + b->most, error);
  if (rest + b->most > room) return refuse_room(b, rest + b->most, room, error);
  if (!b->keeps && take(b, &b->values, b->most, error) != 0) return -1;
  if (take(b, &b->cotangents, b->most, error) != 0 || take(b, &b->head, head, error) != 0 ||
      take(b, &b->head_cotangents, head, error) != 0 || take(b, &b->streams, ((size_t)n_layer + 1) * stream, error) != 0 ||
      take(b, &b->carry, stream, error) != 0 || take(b, &b->kv, kv, error) != 0 || take(b, &b->zeros, ZEROS, error) != 0)
    return -1;
  for (int32_t l = 0; l < n_layer; l++) {
    b->layers[l].values = b->values;
    if (b->keeps && take(b, &b->layers[l].values, b->layers[l].tape.bytes, error) != 0) return -1;
    if (unfold(b, l, b->layers[l].values, error) != 0) return -1;
  }
  return unfold(b, n_layer, b->head, error);
}

static int take_tables(struct backward *b, struct error *error) {
  int32_t n_layer = backward_layers(b), blocks;
  size_t n = (size_t)b->rows, vocabulary = (size_t)b->model->arch.vocabulary;
  (void)kv_bytes(b, &blocks);
  size_t each = (size_t)n_layer * (size_t)blocks;
  b->token = calloc(n, sizeof *b->token);
  b->position = calloc(n, sizeof *b->position);
  b->source = calloc(n, sizeof *b->source);
  b->origin = calloc(n, sizeof *b->origin);
  b->active = calloc((size_t)n_layer + 1, sizeof *b->active);
  b->logits = calloc(vocabulary, sizeof *b->logits);
  b->gradient = calloc(vocabulary, sizeof *b->gradient);
  if (!b->token || !b->position || !b->source || !b->origin || !b->active || !b->logits || !b->gradient)
    return error_memory(error, vocabulary * sizeof *b->logits);
  if (!(b->blocks = calloc(each, sizeof *b->blocks))) return error_memory(error, each * sizeof *b->blocks);
  for (size_t i = 0; i < each; i++) b->blocks[i] = (int32_t)(i % (size_t)blocks);
  for (int32_t row = 0; row < b->rows; row++) {
    b->position[row] = row % b->args.n_tokens;
    b->token[row] = b->args.ids[b->args.copies ? 0 : row / b->args.n_tokens][b->position[row]];
    b->source[row] = row;
  }
  b->pages[0] = b->pages[1] = (struct kv_pages){b->blocks, blocks, 0};
  return 0;
}

static void make_step(struct backward *b) {
  b->step = (struct step){.n_layer = backward_layers(b), .plan = plan_new_number(), .n_rows = b->rows, .token = b->token, .position = b->position, .origin = b->origin,
                          .source = b->source, .slots = b->slots, .active = b->active, .arriving = b->active, .kv = {b->kv, 0},
                          .kv_pages = b->pages, .logit_row = b->logit_row};
  b->plain = b->step;
  b->step.edits = b->args.edits;
  b->step.edit_begin = b->args.edit_begin;
}

struct backward *backward_new(struct plan *plan, const struct backward_args *args, struct error *error) {
  assert(args->n_points > 0 && args->n_tokens > 0 && args->first <= args->last);
  struct backward *b = calloc(1, sizeof *b);
  if (!b) return error_memory(error, sizeof *b), NULL;
  b->plan = plan;
  b->model = plan_model(plan);
  b->backend = plan_backend(plan);
  b->flies = b->backend->ops->wait != NULL;
  b->args = *args;
  b->n_texts = args->ids[1] ? 2 : 1;
  b->rows = (args->copies ? args->copies : b->n_texts) * args->n_tokens;
  b->lowest = INT32_MAX;
  for (int i = 0; i < args->n_points; i++)
    if (args->points[i].layer < b->lowest) b->lowest = args->points[i].layer;
  b->layers = calloc((size_t)backward_layers(b) + 1, sizeof *b->layers);
  int failed = b->layers ? plan_positions(plan, args->n_tokens, error) : error_memory(error, sizeof *b->layers);
  if (!failed && take_memory(b, error) == 0 && take_tables(b, error) == 0) {
    make_step(b);
    return b;
  }
  backward_free(b);
  return NULL;
}

void backward_free(struct backward *b) {
  if (!b) return;
  struct memory *all[] = {b->values, b->cotangents, b->head, b->head_cotangents, b->streams, b->carry, b->kv, b->zeros};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->backend->ops->free(b->backend, all[i]);
  for (int32_t l = 0; b->layers && l <= backward_layers(b); l++) {
    free(b->layers[l].tape.list.ops);
    if (b->keeps) b->backend->ops->free(b->backend, b->layers[l].values);
  }
  free(b->layers);
  free(b->token);
  free(b->position);
  free(b->source);
  free(b->origin);
  free(b->active);
  free(b->logits);
  free(b->gradient);
  free(b->blocks);
  free(b);
}

/* ---- rows ---- */

int backward_copy_rows(struct backward *b, struct rows to, struct rows from, int32_t n, struct error *error) {
  size_t bytes = width_of(b) * sizeof(float);
  bool together = to.ld == from.ld && (size_t)to.ld == width_of(b);
  if (together) return b->backend->ops->copy(b->backend, to.at, from.at, (size_t)n * bytes, error);
  for (int32_t row = 0; row < n; row++) {
    struct span at = span_at(to.at, (size_t)row * (size_t)to.ld * sizeof(float));
    if (b->backend->ops->copy(b->backend, at, span_at(from.at, (size_t)row * (size_t)from.ld * sizeof(float)), bytes, error) != 0)
      return -1;
  }
  return 0;
}

/* The residual stream as a layer begins, in front of its edits. */
static struct rows stream_at(const struct backward *b, int32_t layer) {
  size_t bytes = (size_t)b->rows * width_of(b) * sizeof(float);
  return (struct rows){{b->streams, (size_t)layer * bytes}, (int64_t)width_of(b)};
}

static struct rows carried(const struct backward *b) { return (struct rows){{b->carry, 0}, (int64_t)width_of(b)}; }

/* ---- pieces ---- */

static int64_t row_cost(const struct backward *b, const struct op *op) {
  if (op->code == OP_LINEAR) return op->u.linear.w->n_in * op->u.linear.w->n_out;
  if (op->code == OP_ATTEND) return 2 * b->args.n_tokens * op->width;
  return 16 * op->width; /* memory and a power or so */
}

/* Where the piece ends that begins at a row, of n: pieces of nearly one size, none across two texts; copies are one where no op looks at
 * texts. */
static int32_t piece_end(const struct backward *b, const struct op *op, int32_t row, int32_t all, int times) {
  int32_t n = b->args.copies && op->code != OP_ATTEND ? all : b->args.n_tokens, text = row / n, end = (text + 1) * n;
  if (b->flies && op->code != OP_ATTEND) return all;
  int64_t cost = times * row_cost(b, op) * n, size = b->flies ? ASKED : PIECE, pieces = (cost + size - 1) / size;
  int64_t most = (n + pieces - 1) / (pieces ? pieces : 1);
  if (most < PIECE_ROWS) most = PIECE_ROWS;
  return row + most < end ? (int32_t)(row + most) : end;
}

void backward_set_rows(struct backward *b, int32_t layer, int32_t begin, int32_t end) {
  int32_t before = begin > 0;
  if (before) b->slots[0] = (struct step_slot){{0, begin}, 0, 0, 0};
  b->slots[before] = (struct step_slot){{begin, end}, b->position[begin], layer, layer + 1};
  b->active[layer] = (struct row_range){begin, end};
  b->step.n_slots = before + 1;
  b->step.n_rows = end;
}

int32_t backward_piece_end(const struct backward *b, const struct op *op, int32_t row, int32_t all, int64_t *cost) {
  int times = op->code != OP_ATTEND ? 1 : b->flies ? ATTEND_BACK_ASKED : ATTEND_BACK;
  int32_t end = piece_end(b, op, row, all, times);
  *cost = times * row_cost(b, op) * (end - row);
  return end;
}

/* Rows of all texts, for the op that brings the residual of a layer. */
static int run_begin(struct backward *b, const struct op *op, struct error *error) {
  struct step *step = &b->plain;
  memset(b->origin, op->layer == 0 ? ORIGIN_EMBED : ORIGIN_SAVED, (size_t)b->rows);
  b->slots[0] = (struct step_slot){{0, b->rows}, 0, op->layer, op->layer + 1};
  b->active[op->layer] = (struct row_range){0, b->rows};
  step->n_slots = 1;
  step->saved = stream_at(b, op->layer).at;
  return b->backend->ops->run(b->backend, op, 1, step, error);
}

/* A piece of a layer on the way there; 1 when it was the last. */
static int there(struct backward *b, struct error *error) {
  const struct unfolded *tape = &b->layers[b->layer].tape;
  const struct op *op = &tape->list.ops[b->op];
  int32_t end = b->rows;
  if (op->code == OP_BEGIN || op->code == OP_EMBED) {
    if (run_begin(b, op, error) != 0) return -1;
  } else {
    end = piece_end(b, op, b->row, b->rows, 1);
    backward_set_rows(b, b->layer, b->row, end);
    b->asked += row_cost(b, op) * (end - b->row);
    if (b->backend->ops->run(b->backend, op, 1, &b->step, error) != 0) return -1;
  }
  b->row = end < b->rows ? end : 0;
  if (b->row == 0) b->op++;
  if (b->op < tape->list.count) return 0;
  b->op = 0;
  return 1;
}

static bool is_seen(const struct backward *b, const struct op *op) {
  for (int i = 0; i < b->args.n_points; i++)
    if (b->args.points[i].layer == op->layer && b->args.points[i].site == op->u.point.site) return true;
  return false;
}

static int show(struct backward *b, const struct op *op, struct error *error) {
  struct backward_seen seen = {{op->layer, op->u.point.site}, op->u.point.x, rows_in_memory(op->u.point.x, b->cotangents), op->width};
  return is_seen(b, op) ? b->args.events->seen(b->args.context, &seen, error) : 0;
}

/* A piece of a layer on the way back, which b->op counts from behind; 1 when it was the last. */
static int back(struct backward *b, struct error *error) {
  const struct layer *layer = &b->layers[b->layer];
  const struct op *op = &layer->tape.list.ops[layer->tape.list.count - 1 - b->op];
  struct vjp vjp = {layer->values, b->cotangents, b->args.hold_norms, b->args.hold_pattern, .period = 0};
  int64_t cost;
  int32_t end = backward_piece_end(b, op, b->row, b->args.n_tokens, &cost);
  int more = op->code == OP_POINT && b->row == 0 ? show(b, op, error) : 0;
  if (more) return more < 0 ? -1 : 0;
  backward_set_rows(b, b->layer, b->row, end);
  b->asked += cost;
  if (b->backend->ops->vjp(b->backend, op, &b->step, &vjp, error) != 0) return -1;
  b->row = end < b->args.n_tokens ? end : 0;
  if (b->row == 0) b->op++;
  if (b->op < layer->tape.list.count) return 0;
  b->op = 0;
  return 1;
}

/* ---- the head ---- */

static int ask_row(struct backward *b, struct rows logits, int32_t i, struct error *error) {
  size_t bytes = (size_t)b->model->arch.vocabulary * sizeof *b->logits;
  struct span at = span_at(logits.at, (size_t)i * (size_t)logits.ld * sizeof(float));
  int32_t position = b->position[b->logit_row[i]];
  memset(b->gradient, 0, bytes);
  if (b->backend->ops->read(b->backend, b->logits, at, bytes, error) != 0 ||
      b->args.events->logits(b->args.context, b->text, position, b->logits, b->text ? NULL : b->gradient, error) != 0)
    return -1;
  at.memory = b->head_cotangents;
  return b->text ? 0 : b->backend->ops->write(b->backend, at, b->gradient, bytes, error);
}

/* Some rows of logits, and what the metric says of them; their way back, for the first text, is a piece of its own. 1 when they were the
 * last. */
static int head(struct backward *b, struct error *error) {
  const struct unfolded *tape = &b->layers[backward_layers(b)].tape;
  int32_t first = b->args.first + b->row, n = b->args.last + 1 - first;
  if (n > HEAD_ROWS) n = HEAD_ROWS;
  for (int32_t i = 0; i < n; i++) b->logit_row[i] = b->text * b->args.n_tokens + first + i;
  b->step.n_logit_rows = n;
  if (b->backend->ops->run(b->backend, tape->list.ops, tape->list.count, &b->step, error) != 0) return -1;
  const struct op *last = &tape->list.ops[tape->list.count - 1]; /* a product, its cap, or their edits */
  for (int32_t i = 0; i < n; i++)
    if (ask_row(b, last->code == OP_POINT ? last->u.point.x : last->u.linear.y, i, error) != 0) return -1;
  b->row += n;
  if (b->text == 0) b->phase = HEAD_BACK;
  return b->text > 0 && b->args.first + b->row > b->args.last;
}

static int head_back(struct backward *b, struct error *error) {
  const struct unfolded *tape = &b->layers[backward_layers(b)].tape;
  struct vjp vjp = {b->head, b->head_cotangents, b->args.hold_norms, b->args.hold_pattern, .period = 0};
  for (size_t i = tape->list.count; i-- > 0;)
    if (b->backend->ops->vjp(b->backend, &tape->list.ops[i], &b->step, &vjp, error) != 0) return -1;
  b->phase = HEAD;
  if (b->args.first + b->row <= b->args.last) return 0;
  b->row = 0;
  return ++b->text == b->n_texts;
}

/* ---- phases ---- */

static int end_there(struct backward *b, struct error *error) {
  if (backward_copy_rows(b, stream_at(b, b->layer + 1), b->layers[b->layer].tape.end, b->rows, error) != 0) return -1;
  if (++b->layer < backward_layers(b)) return 0;
  b->phase = HEAD;
  return backward_copy_rows(b, b->layers[b->layer].tape.begin, stream_at(b, b->layer), b->rows, error);
}

static void next_back(struct backward *b) {
  b->phase = --b->layer < b->lowest ? DONE : b->keeps ? CLEAR : AGAIN;
}

static int end_head(struct backward *b, struct error *error) {
  struct rows from = rows_in_memory(b->layers[b->layer].tape.begin, b->head_cotangents);
  b->row = 0;
  next_back(b);
  return backward_copy_rows(b, carried(b), from, b->args.n_tokens, error);
}

static int begin_back(struct backward *b, struct error *error) {
  const struct unfolded *tape = &b->layers[b->layer].tape;
  size_t bytes = size_min(ZEROS, tape->bytes - b->cleared);
  if (b->backend->ops->copy(b->backend, (struct span){b->cotangents, b->cleared}, (struct span){b->zeros, 0}, bytes, error) != 0) return -1;
  b->cleared += bytes;
  if (b->cleared < tape->bytes) return 0;
  b->cleared = 0;
  b->phase = BACK;
  return backward_copy_rows(b, rows_in_memory(tape->end, b->cotangents), carried(b), b->args.n_tokens, error);
}

/* Giving back all memory at once would hold up others. */
static int end_back(struct backward *b, struct error *error) {
  struct layer *layer = &b->layers[b->layer];
  struct rows from = rows_in_memory(layer->tape.begin, b->cotangents);
  if (b->keeps) b->backend->ops->free(b->backend, layer->values);
  layer->values = NULL;
  next_back(b);
  return b->phase == DONE ? 0 : backward_copy_rows(b, carried(b), from, b->args.n_tokens, error);
}

int backward_piece(struct backward *b, struct error *error) {
  int ended;
  switch (b->phase) {
    case THERE: return (ended = there(b, error)) > 0 ? end_there(b, error) : ended;
    case HEAD: return (ended = head(b, error)) > 0 ? end_head(b, error) : ended;
    case HEAD_BACK: return (ended = head_back(b, error)) > 0 ? end_head(b, error) : ended;
    case AGAIN:
      if ((ended = there(b, error)) > 0) b->phase = CLEAR;
      return ended < 0 ? -1 : 0;
    case CLEAR: return begin_back(b, error);
    case BACK: return (ended = back(b, error)) > 0 ? end_back(b, error) : ended;
    case DONE: break;
  }
  return 0;
}

/* Until all is done that was asked for: errors are told to whom they belong, and nobody else's step waits behind more than that. */
static int settle(struct backward *b, struct error *error) {
  b->asked = 0;
  return backend_wait(b->backend, error);
}

int backward_run_slice(struct backward *b, int (*piece)(void *context, struct error *error), void *context, struct error *error) {
  int64_t until = clock_ns() + SLICE_NS;
  int more;
  do {
    more = piece(context, error);
    b->asked += ASKED_PIECE;
    if (more >= 0 && b->asked >= ASKED && settle(b, error) != 0) more = -1;
  } while (more > 0 && clock_ns() < until);
  return settle(b, more < 0 ? NULL : error) != 0 ? -1 : more;
}

static int next_piece(void *context, struct error *error) {
  struct backward *b = context;
  return backward_piece(b, error) != 0 ? -1 : b->phase != DONE;
}

int backward_slice(struct backward *b, struct error *error) { return backward_run_slice(b, next_piece, b, error); }

struct rows backward_values(const struct backward *b, struct point point) {
  const struct op_list *list = &b->layers[point.layer].tape.list;
  for (size_t i = 0; i < list->count; i++)
    if (list->ops[i].code == OP_POINT && list->ops[i].u.point.site == point.site) return list->ops[i].u.point.x;
  assert(!"a point that nobody asked to see");
  return (struct rows){{NULL, 0}, 0};
}
