/* live.c: bytes of a row that may hold a cotangent, followed through the ops of a layer from behind. */
#include "core/model/live.h"

#include <stdlib.h>

/* Bytes [begin, end) of the first row of some rows, which stands for all of them: every place is a row's own (unfold.h). */
struct bytes {
  size_t begin, end;
};

struct live_set {
  struct bytes *at;
  size_t n, capacity;
  bool failed;
};

static struct bytes row_bytes(struct rows rows, int64_t first, int64_t width) {
  size_t begin = rows.at.offset + (size_t)first * sizeof(float);
  return rows.at.memory ? (struct bytes){begin, begin + (size_t)width * sizeof(float)} : (struct bytes){0, 0};
}

static bool meets(const struct live_set *set, struct bytes bytes) {
  for (size_t i = 0; i < set->n; i++)
    if (set->at[i].begin < bytes.end && bytes.begin < set->at[i].end) return true;
  return false;
}

static bool has_room(struct live_set *set) {
  if (set->n < set->capacity) return true;
  size_t capacity = 2 * set->capacity + 16;
  struct bytes *grown = realloc(set->at, capacity * sizeof *grown);
  set->failed |= !grown;
  if (!grown) return false;
  set->at = grown;
  set->capacity = capacity;
  return true;
}

static void add(struct live_set *set, struct bytes bytes) {
  if (bytes.begin < bytes.end && has_room(set)) set->at[set->n++] = bytes;
}

static void take(struct live_set *set, struct bytes bytes) {
  size_t n = set->n;
  for (size_t i = 0; i < n; i++) {
    struct bytes piece = set->at[i];
    if (piece.begin >= bytes.end || bytes.begin >= piece.end) continue;
    set->at[i].end = piece.begin < bytes.begin ? bytes.begin : piece.begin;
    add(set, (struct bytes){bytes.end, piece.end});
  }
}

/* ---- what ops read and write ---- */

enum { MOST_READS = 2 };

struct touched {
  struct bytes written;            /* its cotangents are taken; of an op in place those that stay, not there */
  struct bytes read[MOST_READS];   /* it is added to theirs */
  struct bytes asked;              /* whether these are live decides about the op */
};

static struct touched from_to(struct bytes read, struct bytes written) { return (struct touched){written, {read}, written}; }

static struct touched in_place(struct bytes bytes) { return (struct touched){.asked = bytes}; }

static struct touched touched_by_norm(const struct op *op) {
  int64_t parts = op->u.norm.parts ? op->u.norm.parts : 1, width = parts * op->width;
  if (op->code == OP_NORM_SCALE) return from_to((struct bytes){0, 0}, row_bytes(op->u.norm.scale, 0, parts)); /* held: taken, no more */
  struct touched touched = from_to(row_bytes(op->u.norm.x, 0, width), row_bytes(op->u.norm.y, 0, width));
  if (op->code == OP_NORMALIZE) touched.read[1] = row_bytes(op->u.norm.scale, 0, parts);
  return touched;
}

static struct touched touched_by_attention(const struct op *op, bool hold_pattern) {
  int64_t keys = (int64_t)op->u.attend.n_kv_head * op->u.attend.d_head, queries = (int64_t)op->u.attend.n_head * op->u.attend.d_head;
  struct touched touched = from_to(row_bytes(op->u.attend.qkv, op->u.attend.v, keys), row_bytes(op->u.attend.z, 0, queries));
  int64_t first = op->u.attend.q < op->u.attend.k ? op->u.attend.q : op->u.attend.k;
  if (!hold_pattern) touched.read[1] = row_bytes(op->u.attend.qkv, first, queries + keys);
  return touched;
}

static struct touched touched_by(const struct op *op, bool hold_pattern) {
  switch (op->code) {
    case OP_NORM:
    case OP_NORM_SCALE:
    case OP_NORMALIZE:
    case OP_GAIN: return touched_by_norm(op);
    case OP_LINEAR:
      return from_to(row_bytes(op->u.linear.x, 0, op->u.linear.w->n_in), row_bytes(op->u.linear.y, 0, op->u.linear.w->n_out));
    case OP_GATE: {
      struct touched touched = from_to(row_bytes(op->u.gate.x, 0, op->width), row_bytes(op->u.gate.y, 0, op->width));
      touched.read[1] = row_bytes(op->u.gate.up, 0, op->width);
      return touched;
    }
    case OP_SOLU: return from_to(row_bytes(op->u.solu.x, 0, op->width), row_bytes(op->u.solu.y, 0, op->width));
    case OP_PLACE: return from_to(row_bytes(op->u.place.x, 0, op->width), row_bytes(op->u.place.y, 0, op->width));
    case OP_GATHER:
    case OP_COPY:
    case OP_KEEP: return from_to(row_bytes(op->u.gather.x, 0, op->width), row_bytes(op->u.gather.y, 0, op->width));
    case OP_ATTEND: return touched_by_attention(op, hold_pattern);
    case OP_SUBLAYER: {
      struct touched touched = in_place(row_bytes(op->u.sublayer.resid, 0, op->width));
      touched.read[0] = row_bytes(op->u.sublayer.out, 0, op->width);
      return touched;
    }
    case OP_ROTATE: return in_place(row_bytes(op->u.rotate.x, 0, op->width * op->u.rotate.heads));
    case OP_CAP: return in_place(row_bytes(op->u.linear.y, 0, op->u.linear.w->n_out));
    case OP_POINT: return in_place(row_bytes(op->u.point.x, 0, op->width));
    case OP_BEGIN: return in_place(row_bytes(op->u.begin.to, 0, op->width));
    default: return (struct touched){0}; /* OP_EMBED, where the way ends */
  }
}

int live_ops(const struct unfolded *tape, int64_t d_model, const struct live_ends *ends, bool *live, struct error *error) {
  const struct op_list *list = &tape->list;
  struct live_set set = {0};
  add(&set, row_bytes(tape->end, 0, d_model));
  for (size_t i = list->count; i-- > 0;) {
    struct touched touched = touched_by(&list->ops[i], ends->hold_pattern);
    if (i == ends->wall) take(&set, touched.asked);
    if (i == ends->source) add(&set, touched.asked);
    live[i] = meets(&set, touched.asked);
    if (!live[i]) continue;
    take(&set, touched.written);
    for (int r = 0; r < MOST_READS; r++) add(&set, touched.read[r]);
  }
  free(set.at);
  return set.failed ? error_memory(error, 2 * set.capacity * sizeof *set.at) : 0;
}
