/* plan.c: compiles a struct arch into ops. Every family passes through here; what differs between families is
 * in the arch, so there is no branch on a family's name. Knows no kernel and no session. */
#include "core/model/plan.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/instrument.h"
#include "core/model/rotary.h"

#define OPS_PER_LAYER 24
#define OPS_HEAD 3

/* Buffers, each [max_rows, width] f32. Row strides are rounded up to whole cache lines. */
enum buffer_name {
  BUFFER_RESID,  /* the residual stream */
  BUFFER_NORMED, /* input of the next product */
  BUFFER_QKV, BUFFER_Z,
  BUFFER_OUT,    /* output of a sublayer before it is added; before that, what q and k read where v reads less */
  BUFFER_GATE, BUFFER_HIDDEN,
  BUFFER_HEAD,   /* gathered residual, then its norm: [max_logit_rows, d_model] */
  BUFFER_LOGITS, /* [max_logit_rows, vocabulary] */
  BUFFER_COLD_SCALE, BUFFER_COLD_NORMED, BUFFER_COLD_RESID, BUFFER_COLD_HEADS, BUFFER_COLD_QKV, /* instrument.h */
  BUFFER_COUNT
};
static_assert(BUFFER_COUNT == PLAN_BUFFERS, "plan.h tells how many");

/* A table of rotary positions. Rows are written when a step first comes to their positions: the context of a model
 * may be far longer than any text it meets. */
struct turns {
  const struct rotary *rotary;
  struct span table; /* f32 [n_ctx][dims] */
  int32_t filled;    /* positions */
};
#define TURNS_AT_ONCE 64

struct plan {
  const struct model *model;
  struct plan_limits limits;
  struct memory *memory;
  size_t bytes;
  struct rows buffer[BUFFER_COUNT];
  struct turns turns[2]; /* of layers that see all and of local ones; rotary NULL where there is none */
  float *turn_rows;      /* [TURNS_AT_ONCE][at most ROTARY_MAX_DIMS] on their way to a table */
  struct op *ops;
  uint64_t number; /* of this list of ops, among all that the program has made */
  size_t n_ops;
  size_t *segment; /* [n_layer + 2]: first op of each segment, then the end */
  size_t logits;   /* the op that gives them */
  struct instrument instrument;
  struct op_list mixed; /* the list of a step with cold points: made anew for each */
};

/* ---- buffers ---- */

/* The widest row that a norm gives: d_model, or the heads of q. */
static int64_t cold_width(const struct arch *arch) {
  int64_t heads = arch_has(arch, HAS_QK_NORM) ? arch_dim(arch, DIM_ATTN) : 0;
  return heads > arch->d_model ? heads : arch->d_model;
}

static int64_t buffer_width(const struct arch *arch, enum buffer_name name) {
  switch (name) {
    case BUFFER_QKV: return arch_dim(arch, DIM_QKV);
    case BUFFER_Z: return arch_dim(arch, DIM_ATTN);
    case BUFFER_GATE: return arch->gated ? arch->d_mlp : 0;
    case BUFFER_HIDDEN: return arch->d_mlp;
    case BUFFER_LOGITS: return arch->vocabulary;
    case BUFFER_COLD_SCALE: return arch->n_head;
    case BUFFER_COLD_NORMED: return cold_width(arch);
    case BUFFER_COLD_HEADS: return arch_dim(arch, DIM_ATTN);
    case BUFFER_COLD_QKV: return arch_dim(arch, DIM_QKV);
    default: return arch->d_model;
  }
}

/* Cold points have the rows of a step or of the head. */
static int32_t buffer_rows(struct plan_limits limits, enum buffer_name name) {
  bool most = name >= BUFFER_COLD_SCALE && limits.max_logit_rows > limits.max_rows;
  return most || name == BUFFER_HEAD || name == BUFFER_LOGITS ? limits.max_logit_rows : limits.max_rows;
}

static int place_buffers(struct plan *plan, struct error *error) {
  const struct arch *arch = &plan->model->arch;
  for (int i = 0; i < BUFFER_COUNT; i++) {
    size_t rows = (size_t)buffer_rows(plan->limits, (enum buffer_name)i), bytes;
    size_t ld = size_round_up((size_t)buffer_width(arch, (enum buffer_name)i), 16);
    plan->buffer[i] = (struct rows){{NULL, plan->bytes}, (int64_t)ld};
    if (!checked_mul(rows * sizeof(float), ld, &bytes) || !checked_add(plan->bytes, bytes, &plan->bytes))
      return error_memory(error, SIZE_MAX);
  }
  return 0;
}

static int place_turns(struct plan *plan, const struct rotary *rotary, struct turns *out, struct error *error) {
  size_t bytes;
  if (rotary->dims == 0) return 0;
  *out = (struct turns){rotary, {NULL, plan->bytes}, 0};
  if (!checked_mul((size_t)plan->model->arch.n_ctx * sizeof(float), (size_t)rotary->dims, &bytes) ||
      !checked_add(plan->bytes, size_round_up(bytes, 64), &plan->bytes))
    return error_memory(error, SIZE_MAX);
  return 0;
}

static bool has_local_layers(const struct arch *arch) {
  for (int32_t l = 0; l < arch->n_layer; l++)
    if (arch->local[l]) return true;
  return false;
}

static int place_memory(struct plan *plan, struct error *error) {
  const struct arch *arch = &plan->model->arch;
  struct backend *backend = plan->model->backend;
  if (place_buffers(plan, error) != 0 || place_turns(plan, &arch->rotary, &plan->turns[0], error) != 0) return -1;
  if (has_local_layers(arch) && place_turns(plan, &arch->rotary_local, &plan->turns[1], error) != 0) return -1;
  size_t turns = (size_t)TURNS_AT_ONCE * ROTARY_MAX_DIMS * sizeof(float);
  plan->turn_rows = malloc(turns);
  if (!plan->turn_rows) return error_memory(error, turns);
  if (backend->ops->alloc(backend, plan->bytes, &plan->memory, error) != 0)
    return error_prefix(error, "buffers for %d rows", plan->limits.max_rows);
  for (int i = 0; i < BUFFER_COUNT; i++) plan->buffer[i].at.memory = plan->memory;
  for (int i = 0; i < 2; i++) plan->turns[i].table.memory = plan->turns[i].rotary ? plan->memory : NULL;
  plan->instrument = (struct instrument){.arch = arch, .positions = plan->model->weights.once.vector[SLOT_POSITIONS]};
  plan->instrument.buffers = (struct instrument_buffers){.scale = plan->buffer[BUFFER_COLD_SCALE],
                                                         .normed = plan->buffer[BUFFER_COLD_NORMED],
                                                         .resid = plan->buffer[BUFFER_COLD_RESID],
                                                         .heads = plan->buffer[BUFFER_COLD_HEADS],
                                                         .qkv = plan->buffer[BUFFER_COLD_QKV]};
  return 0;
}

/* ---- ops ---- */

static struct op *add(struct plan *plan, enum op_code code, int32_t layer, int64_t width) {
  struct op *op = &plan->ops[plan->n_ops++];
  memset(op, 0, sizeof *op);
  op->code = code;
  op->set = ROWS_ACTIVE;
  op->layer = layer;
  op->width = width;
  return op;
}

/* bias: SLOT_COUNT where no family has one. site: the first of the norm's three. */
static struct norm make_norm(enum norm_kind kind, const struct arch *arch, const struct weight_set *set,
                             enum weight_slot gain, enum weight_slot bias, enum site site) {
  struct span none = {NULL, 0};
  return (struct norm){kind, arch->norm_eps, gain == SLOT_COUNT ? none : set->vector[gain], bias == SLOT_COUNT ? none : set->vector[bias], site, false};
}

static struct rows columns_from(struct rows rows, int64_t column) {
  rows.at.offset += (size_t)column * sizeof(float);
  return rows;
}

static struct op *add_linear(struct plan *plan, int32_t layer, const struct weight_set *set, enum weight_slot matrix,
                             enum weight_slot bias, enum buffer_name x, enum buffer_name y) {
  struct op *op = add(plan, OP_LINEAR, layer, 0);
  op->u.linear.w = set->matrix[matrix];
  op->u.linear.x = plan->buffer[x];
  op->u.linear.y = plan->buffer[y];
  op->u.linear.bias = set->vector[bias];
  op->u.linear.act = ACT_NONE;
  op->u.linear.room = buffer_rows(plan->limits, y); /* x and y are buffers of the step or of the head, both */
  return op;
}

static void add_begin(struct plan *plan, int32_t layer) {
  const struct arch *arch = &plan->model->arch;
  const struct weight_set *once = &plan->model->weights.once;
  struct op *op = add(plan, OP_BEGIN, layer, arch->d_model);
  op->set = ROWS_ARRIVING;
  op->u.begin.to = plan->buffer[BUFFER_RESID];
  op->u.begin.embed = once->matrix[SLOT_EMBED];
  if (!arch_has(arch, HAS_PLACED_KEYS)) op->u.begin.positions = once->vector[SLOT_POSITIONS];
  op->u.begin.embed_scale = arch->embed_scale;
}

static void add_attend(struct plan *plan, int32_t layer) {
  const struct arch *arch = &plan->model->arch;
  struct op *op = add(plan, OP_ATTEND, layer, arch_dim(arch, DIM_ATTN));
  op->u.attend.qkv = plan->buffer[BUFFER_QKV];
  op->u.attend.z = plan->buffer[BUFFER_Z];
  op->u.attend.q = 0;
  op->u.attend.k = arch_dim(arch, DIM_ATTN);
  op->u.attend.v = arch_dim(arch, DIM_ATTN) + arch_dim(arch, DIM_KV);
  op->u.attend.n_head = arch->n_head;
  op->u.attend.n_kv_head = arch->n_kv_head;
  op->u.attend.d_head = arch->d_head;
  op->u.attend.window = arch->local[layer] ? arch->window : 0;
  op->u.attend.scale = arch->attn_scale / (arch->scale_by_layer ? (float)(layer + 1) : 1.0f);
  op->u.attend.soft_cap = arch->attn_soft_cap;
  op->u.attend.kv = model_kv_type(plan->model);
}

static void add_sublayer(struct plan *plan, int32_t layer, enum site out, enum site resid, struct norm norm) {
  struct op *op = add(plan, OP_SUBLAYER, layer, plan->model->arch.d_model);
  op->u.sublayer.out = plan->buffer[BUFFER_OUT];
  op->u.sublayer.resid = plan->buffer[BUFFER_RESID];
  op->u.sublayer.y = plan->buffer[BUFFER_NORMED];
  op->u.sublayer.out_site = out;
  op->u.sublayer.resid_site = resid;
  op->u.sublayer.norm = norm;
}

static struct op *add_norm(struct plan *plan, int32_t layer, enum row_set set, struct norm norm, enum buffer_name x,
                           enum buffer_name y) {
  struct op *op = add(plan, OP_NORM, layer, plan->model->arch.d_model);
  op->set = set;
  op->u.norm.x = plan->buffer[x];
  op->u.norm.y = plan->buffer[y];
  op->u.norm.norm = norm;
  return op;
}

/* ---- attention ---- */

static void add_head_norm(struct plan *plan, int32_t layer, enum weight_slot gain, enum site site, int64_t column,
                          int32_t heads) {
  const struct arch *arch = &plan->model->arch;
  const struct weight_set *set = &plan->model->weights.layers[layer];
  bool apart = arch_has(arch, HAS_QK_LAYER_NORM);
  struct rows x = columns_from(plan->buffer[BUFFER_QKV], column);
  struct norm norm = make_norm(apart ? NORM_LAYER : NORM_RMS, arch, set, apart ? SLOT_COUNT : gain, SLOT_COUNT, site);
  norm.gain_apart = apart;
  struct op *op = add(plan, OP_NORM, layer, arch->d_head);
  op->u.norm.x = op->u.norm.y = x;
  op->u.norm.norm = norm;
  op->u.norm.parts = heads;
  if (!apart) return;
  norm.gain = set->vector[gain]; /* of all heads, one after the other */
  op = add(plan, OP_GAIN, layer, heads * (int64_t)arch->d_head);
  op->u.norm.x = op->u.norm.y = x;
  op->u.norm.norm = norm;
}

/* q and k stand side by side in a row, so that one op turns the heads of both. */
static void add_rotate(struct plan *plan, int32_t layer) {
  const struct arch *arch = &plan->model->arch;
  const struct turns *turns = &plan->turns[arch->local[layer]];
  if (!turns->rotary) return;
  struct op *op = add(plan, OP_ROTATE, layer, arch->d_head);
  op->u.rotate.x = plan->buffer[BUFFER_QKV];
  op->u.rotate.heads = arch->n_head + arch->n_kv_head;
  op->u.rotate.dims = turns->rotary->dims;
  op->u.rotate.pairing = turns->rotary->pairing;
  op->u.rotate.table = turns->table;
}

/* q and k read the normed residual plus the positions, v the normed residual alone. */
static void add_placed_qkv(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  int64_t v = arch_dim(arch, DIM_ATTN) + arch_dim(arch, DIM_KV);
  struct op *place = add(plan, OP_PLACE, layer, arch->d_model);
  place->u.place.x = plan->buffer[BUFFER_NORMED];
  place->u.place.y = plan->buffer[BUFFER_OUT];
  place->u.place.table = plan->model->weights.once.vector[SLOT_POSITIONS];
  add_linear(plan, layer, set, SLOT_QKV, SLOT_QKV_BIAS, BUFFER_OUT, BUFFER_QKV)->u.linear.site = SITE_Q;
  struct op *value = add_linear(plan, layer, set, SLOT_V, SLOT_QKV_BIAS, BUFFER_NORMED, BUFFER_QKV);
  value->u.linear.site = SITE_V;
  value->u.linear.y = columns_from(value->u.linear.y, v);
  if (value->u.linear.bias.memory) value->u.linear.bias = span_at(value->u.linear.bias, (size_t)v * sizeof(float));
}

/* From the normed residual to the attention's output in BUFFER_OUT. */
static void add_attention(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  if (arch_has(arch, HAS_PLACED_KEYS))
    add_placed_qkv(plan, layer, set);
  else
    add_linear(plan, layer, set, SLOT_QKV, SLOT_QKV_BIAS, BUFFER_NORMED, BUFFER_QKV)->u.linear.site = SITE_Q;
  if (arch_has(arch, HAS_QK_NORM)) {
    add_head_norm(plan, layer, SLOT_Q_GAIN, SITE_Q_NORM_SCALE, 0, arch->n_head);
    add_head_norm(plan, layer, SLOT_K_GAIN, SITE_K_NORM_SCALE, arch_dim(arch, DIM_ATTN), arch->n_kv_head);
  }
  add_rotate(plan, layer);
  add_attend(plan, layer);
  add_linear(plan, layer, set, SLOT_O, SLOT_O_BIAS, BUFFER_Z, BUFFER_OUT)->u.linear.site = SITE_ATTN_RAW;
}

/* ---- MLP ---- */

static void add_solu(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  struct op *solu = add(plan, OP_SOLU, layer, arch->d_mlp);
  solu->u.solu.x = solu->u.solu.y = plan->buffer[BUFFER_HIDDEN];
  if (!arch_has(arch, HAS_MLP_NORM)) return;
  add_norm(plan, layer, ROWS_ACTIVE, make_norm(arch->norm, arch, set, SLOT_MLP_NORM_GAIN, SLOT_MLP_NORM_BIAS, 0),
           BUFFER_HIDDEN, BUFFER_HIDDEN)->width = arch->d_mlp;
}

static void add_gate(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  add_linear(plan, layer, set, SLOT_GATE, SLOT_GATE_BIAS, BUFFER_NORMED, BUFFER_GATE)->u.linear.site = SITE_MLP_PRE;
  struct op *gate = add(plan, OP_GATE, layer, arch->d_mlp);
  gate->u.gate.x = plan->buffer[BUFFER_GATE];
  gate->u.gate.up = gate->u.gate.y = plan->buffer[BUFFER_HIDDEN];
  gate->u.gate.act = arch->act;
}

/* From the normed residual to the MLP's output in BUFFER_OUT. */
static void add_mlp(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  struct op *in = add_linear(plan, layer, set, SLOT_IN, SLOT_IN_BIAS, BUFFER_NORMED, BUFFER_HIDDEN);
  in->u.linear.site = arch->gated ? SITE_MLP_PRE_LINEAR : SITE_MLP_PRE;
  if (arch->gated)
    add_gate(plan, layer, set);
  else if (arch->solu)
    add_solu(plan, layer, set);
  else
    in->u.linear.act = arch->act;
  struct op *point = add(plan, OP_POINT, layer, arch->d_mlp);
  point->u.point.x = plan->buffer[BUFFER_HIDDEN];
  point->u.point.site = SITE_MLP_POST;
  add_linear(plan, layer, set, SLOT_OUT, SLOT_OUT_BIAS, BUFFER_HIDDEN, BUFFER_OUT)->u.linear.site = SITE_MLP_RAW;
}

/* ---- a layer ---- */

static void add_post_norm(struct plan *plan, int32_t layer, const struct weight_set *set, enum weight_slot gain,
                          enum site site) {
  const struct arch *arch = &plan->model->arch;
  if (arch_has(arch, HAS_POST_NORMS))
    add_norm(plan, layer, ROWS_ACTIVE, make_norm(arch->norm, arch, set, gain, SLOT_COUNT, site), BUFFER_OUT, BUFFER_OUT);
}

/* The stream is normed where it lies; its point sees what goes on. */
static void add_stream_norm(struct plan *plan, int32_t layer, const struct weight_set *set, enum weight_slot gain,
                            enum weight_slot bias, enum site site) {
  const struct arch *arch = &plan->model->arch;
  if (arch->stream_norm == NORM_NONE) return;
  add_norm(plan, layer, ROWS_ACTIVE, make_norm(arch->stream_norm, arch, set, gain, bias, 0), BUFFER_RESID, BUFFER_RESID);
  struct op *point = add(plan, OP_POINT, layer, arch->d_model);
  point->u.point.x = plan->buffer[BUFFER_RESID];
  point->u.point.site = site;
}

/* A residual's site is the addition's own, unless the stream is normed behind it. */
static enum site added_site(const struct arch *arch, enum site site) { return arch->stream_norm == NORM_NONE ? site : 0; }

/* The MLP follows attention: its norm reads the residual that attention has been added to, in the same op. */
static void add_mlp_after(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  struct norm norm2 = make_norm(arch->norm, arch, set, SLOT_NORM2_GAIN, SLOT_NORM2_BIAS, SITE_LN2_SCALE);
  add_sublayer(plan, layer, SITE_ATTN_OUT, added_site(arch, SITE_RESID_MID), norm2);
  add_stream_norm(plan, layer, set, SLOT_NORM1_GAIN, SLOT_NORM1_BIAS, SITE_RESID_MID);
  if (norm2.kind == NORM_NONE) add_norm(plan, layer, ROWS_ACTIVE, norm2, BUFFER_RESID, BUFFER_NORMED);
  add_mlp(plan, layer, set);
}

/* The MLP stands beside attention: it reads the block's input, by the first norm or by one of its own, which must be
 * taken before attention is added. */
static void add_mlp_beside(struct plan *plan, int32_t layer, const struct weight_set *set) {
  const struct arch *arch = &plan->model->arch;
  if (arch_has(arch, HAS_NORM2))
    add_norm(plan, layer, ROWS_ACTIVE,
             make_norm(arch->norm, arch, set, SLOT_NORM2_GAIN, SLOT_NORM2_BIAS, SITE_LN2_SCALE), BUFFER_RESID,
             BUFFER_NORMED);
  add_sublayer(plan, layer, SITE_ATTN_OUT, 0, (struct norm){.kind = NORM_NONE});
  add_mlp(plan, layer, set);
}

static void add_layer(struct plan *plan, int32_t layer) {
  const struct arch *arch = &plan->model->arch;
  const struct weight_set *set = &plan->model->weights.layers[layer];
  struct norm none = {.kind = NORM_NONE};
  add_begin(plan, layer);
  add_norm(plan, layer, ROWS_ACTIVE, make_norm(arch->norm, arch, set, SLOT_NORM1_GAIN, SLOT_NORM1_BIAS, SITE_LN1_SCALE),
           BUFFER_RESID, BUFFER_NORMED);
  add_attention(plan, layer, set);
  add_post_norm(plan, layer, set, SLOT_POST1_GAIN, SITE_LN1_POST_SCALE);
  if (!arch_has(arch, HAS_MLP)) {
    add_sublayer(plan, layer, SITE_ATTN_OUT, SITE_RESID_POST, none);
    return;
  }
  (arch->parallel ? add_mlp_beside : add_mlp_after)(plan, layer, set);
  add_post_norm(plan, layer, set, SLOT_POST2_GAIN, SITE_LN2_POST_SCALE);
  add_sublayer(plan, layer, SITE_MLP_OUT, added_site(arch, SITE_RESID_POST), none);
  add_stream_norm(plan, layer, set, SLOT_NORM2_GAIN, SLOT_NORM2_BIAS, SITE_RESID_POST);
}

static void add_head(struct plan *plan) {
  const struct arch *arch = &plan->model->arch;
  const struct weight_set *once = &plan->model->weights.once;
  struct op *gather = add(plan, OP_GATHER, arch->n_layer, arch->d_model);
  gather->set = ROWS_LOGIT;
  gather->u.gather.x = plan->buffer[BUFFER_RESID];
  gather->u.gather.y = plan->buffer[BUFFER_HEAD];
  add_norm(plan, arch->n_layer, ROWS_LOGIT,
           make_norm(arch->final_norm, arch, once, SLOT_FINAL_GAIN, SLOT_FINAL_BIAS, SITE_FINAL_SCALE), BUFFER_HEAD,
           BUFFER_HEAD);
  plan->logits = plan->n_ops;
  struct op *logits = add_linear(plan, arch->n_layer, once, SLOT_UNEMBED, SLOT_UNEMBED_BIAS, BUFFER_HEAD,
                                 BUFFER_LOGITS);
  logits->set = ROWS_LOGIT;
  logits->u.linear.site = SITE_LOGITS;
  logits->u.linear.soft_cap = arch->logit_soft_cap;
}

static int compile(struct plan *plan, struct error *error) {
  int32_t n_layer = plan->model->arch.n_layer;
  size_t most = (size_t)n_layer * OPS_PER_LAYER + OPS_HEAD;
  plan->ops = calloc(most, sizeof *plan->ops);
  plan->segment = calloc((size_t)n_layer + 2, sizeof *plan->segment);
  if (!plan->ops || !plan->segment) return error_memory(error, most * sizeof *plan->ops);
  for (int32_t l = 0; l < n_layer; l++) {
    plan->segment[l] = plan->n_ops;
    add_layer(plan, l);
  }
  plan->segment[n_layer] = plan->n_ops;
  add_head(plan);
  plan->segment[n_layer + 1] = plan->n_ops;
  assert(plan->n_ops <= most);
  return 0;
}

uint64_t plan_new_number(void) {
  static atomic_uint_fast64_t numbers;
  return atomic_fetch_add(&numbers, 1) + 1;
}

struct plan *plan_new(const struct model *model, struct plan_limits limits, struct error *error) {
  struct plan *plan = calloc(1, sizeof *plan);
  if (!plan) return error_memory(error, sizeof *plan), NULL;
  plan->model = model;
  plan->limits = limits;
  plan->number = plan_new_number();
  if (place_memory(plan, error) != 0 || compile(plan, error) != 0) {
    plan_free(plan);
    return NULL;
  }
  return plan;
}

void plan_free(struct plan *plan) {
  if (!plan) return;
  plan->model->backend->ops->free(plan->model->backend, plan->memory);
  free(plan->ops);
  free(plan->segment);
  free(plan->mixed.ops);
  free(plan->turn_rows);
  free(plan);
}

/* ---- running ---- */

/* The layers that any row of the step runs: [*first, *last). Rows may arrive at *last and stop there. */
static void step_layers(const struct step *step, int32_t *first, int32_t *last) {
  *first = INT32_MAX;
  *last = 0;
  for (int32_t i = 0; i < step->n_slots; i++) {
    if (step->slots[i].first < *first) *first = step->slots[i].first;
    if (step->slots[i].last > *last) *last = step->slots[i].last;
  }
}

/* Where the ops of a segment end in a step whose rows go no further than layer `last`: rows that stop there need its
 * BEGIN, for resid_pre, and nothing more. */
static size_t segment_end(const struct plan *plan, int32_t segment, int32_t last) {
  bool stop = segment == last && last < plan->model->arch.n_layer;
  return stop ? plan->segment[segment] + 1 : plan->segment[segment + 1];
}

/* The list of a step with cold points: segments with one are instrumented, the others are as they were. */
static int mix(struct plan *plan, const struct step *step, int32_t first, int32_t segments, int32_t last,
               struct error *error) {
  plan->mixed.count = 0;
  for (int32_t l = first; l < segments; l++) {
    const struct op *hot = plan->ops + plan->segment[l];
    size_t count = segment_end(plan, l, last) - plan->segment[l];
    struct site_sets sets = step_sites(step, l);
    if ((site_sets_cold(sets) ? instrument_segment(&plan->instrument, hot, count, sets, &plan->mixed, error)
                              : op_list_append(&plan->mixed, hot, count, error)) != 0)
      return -1;
  }
  return 0;
}

/* The next rows of the table, up to where whole numbers of them are. */
static int write_turns(struct plan *plan, struct turns *turns, struct error *error) {
  struct backend *backend = plan->model->backend;
  int32_t end = turns->filled / TURNS_AT_ONCE * TURNS_AT_ONCE + TURNS_AT_ONCE, n_ctx = (int32_t)plan->model->arch.n_ctx;
  size_t dims = (size_t)turns->rotary->dims, row_bytes = dims * sizeof(float);
  if (end > n_ctx) end = n_ctx;
  for (int32_t p = turns->filled; p < end; p++)
    rotary_row(turns->rotary, p, plan->turn_rows + (size_t)(p - turns->filled) * dims);
  struct span at = span_at(turns->table, (size_t)turns->filled * row_bytes);
  if (backend->ops->write(backend, at, plan->turn_rows, (size_t)(end - turns->filled) * row_bytes, error) != 0) return -1;
  turns->filled = end;
  return 0;
}

/* Rows of the table up to `position`, and a few more. */
static int fill_turns(struct plan *plan, struct turns *turns, int32_t position, struct error *error) {
  while (turns->rotary && position >= turns->filled)
    if (write_turns(plan, turns, error) != 0) return -1;
  return 0;
}

static int prepare_positions(struct plan *plan, const struct step *step, struct error *error) {
  int32_t last = 0;
  for (int32_t i = 0; i < step->n_slots; i++) {
    const struct step_slot *slot = &step->slots[i];
    int32_t end = slot->position + slot->rows.end - slot->rows.begin;
    if (end - 1 > last) last = end - 1;
  }
  assert(last < plan->model->arch.n_ctx);
  return fill_turns(plan, &plan->turns[0], last, error) != 0 ? -1 : fill_turns(plan, &plan->turns[1], last, error);
}

/* Somebody sees or changes something in this op. What follows the last such op of a step whose rows all stop below the
 * head is not run: nobody will read it, not even the keys and values, because such rows are never generated from. */
static bool serves(const struct step *step, const struct op *op) {
  struct site_sets sets = step_sites(step, op->layer);
  site_set sites = sets.edited | sets.tapped;
  switch (op->code) {
    case OP_BEGIN: return (sites & site_bit(SITE_RESID_PRE)) != 0;
    case OP_ATTEND: return !op->u.attend.bare && (sites & site_bit(SITE_ATTN_Z));
    case OP_SUBLAYER:
      if (op->u.sublayer.resid_site && (sites & site_bit(op->u.sublayer.resid_site))) return true;
      return (sites & site_bit(op->u.sublayer.out_site)) != 0;
    case OP_POINT: return (sites & site_bit(op->u.point.site)) != 0;
    case OP_PATTERN: return true;
    default: return false;
  }
}

int plan_ops(struct plan *plan, const struct step *step, const struct op **ops, size_t *count, struct error *error) {
  int32_t n_layer = plan->model->arch.n_layer, first, last;
  if (prepare_positions(plan, step, error) != 0) return -1;
  step_layers(step, &first, &last);
  int32_t segments = last + (last < n_layer || step->n_logit_rows > 0);
  bool cold = false;
  for (int32_t l = first; l < segments && !cold; l++) cold = site_sets_cold(step_sites(step, l));
  *ops = plan->ops + plan->segment[first];
  *count = segment_end(plan, segments - 1, last) - plan->segment[first];
  if (cold) {
    if (mix(plan, step, first, segments, last, error) != 0) return -1;
    *ops = plan->mixed.ops;
    *count = plan->mixed.count;
  }
  while (last < n_layer && *count > 0 && !serves(step, &(*ops)[*count - 1])) --*count;
  return 0;
}

int plan_run(struct plan *plan, const struct step *step, struct error *error) {
  assert(step->n_rows <= plan->limits.max_rows && step->n_logit_rows <= plan->limits.max_logit_rows);
  if (step->n_rows == 0) return 0;
  const struct op *ops;
  size_t count;
  if (plan_ops(plan, step, &ops, &count, error) != 0) return -1;
  struct backend *backend = plan->model->backend;
  struct step numbered = *step;
  numbered.plan = plan->number;
  numbered.list = ops == plan->mixed.ops ? 0 : plan->number;
  return count ? backend->ops->run(backend, ops, count, &numbered, error) : 0;
}

int plan_head(struct plan *plan, const struct step *step, const int32_t *rows, int32_t n, struct error *error) {
  assert(n >= 1 && n <= plan->limits.max_logit_rows);
  int32_t head_segment = plan->model->arch.n_layer;
  struct step head = *step;
  head.plan = plan->number;
  head.n_logit_rows = n;
  head.logit_row = rows;
  if (mix(plan, &head, head_segment, head_segment + 1, head_segment, error) != 0) return -1;
  struct backend *backend = plan->model->backend;
  return backend->ops->run(backend, plan->mixed.ops, plan->mixed.count, &head, error);
}

static int write_rows(struct plan *plan, struct rows to, const float *x, int32_t n, size_t width, struct error *error) {
  struct backend *backend = plan->model->backend;
  for (int32_t i = 0; i < n; i++) {
    struct span at = span_at(to.at, (size_t)i * (size_t)to.ld * sizeof(float));
    if (backend->ops->write(backend, at, x + (size_t)i * width, width * sizeof(float), error) != 0) return -1;
  }
  return 0;
}

int plan_unembed(struct plan *plan, const float *x, int32_t n, struct error *error) {
  assert(n >= 1 && n <= plan->limits.max_logit_rows);
  struct backend *backend = plan->model->backend;
  struct rows to = plan->buffer[BUFFER_HEAD];
  size_t width = (size_t)plan->model->arch.d_model;
  if (write_rows(plan, to, x, n, width, error) != 0) return -1;
  struct step step = {.n_layer = plan->model->arch.n_layer, .n_rows = n, .n_logit_rows = n};
  struct op op = plan->ops[plan->logits];
  op.u.linear.bias.memory = NULL;
  op.u.linear.soft_cap = 0;
  return backend->ops->run(backend, &op, 1, &step, error);
}

int plan_lens(struct plan *plan, const float *x, int32_t n, struct error *error) {
  int32_t rows[64];
  assert(n >= 1 && n <= plan->limits.max_logit_rows && n <= (int32_t)(sizeof rows / sizeof rows[0]));
  for (int32_t i = 0; i < n; i++) rows[i] = i;
  struct step step = {.n_layer = plan->model->arch.n_layer, .n_rows = n};
  if (write_rows(plan, plan->buffer[BUFFER_RESID], x, n, (size_t)plan->model->arch.d_model, error) != 0) return -1;
  return plan_head(plan, &step, rows, n, error);
}

int plan_attention_out(struct plan *plan, int32_t layer, const float *z, int32_t n, float *out, struct error *error) {
  assert(n >= 1 && n <= plan->limits.max_logit_rows);
  const struct arch *arch = &plan->model->arch;
  struct backend *backend = plan->model->backend;
  struct rows from = plan->buffer[BUFFER_OUT];
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT, .layer = layer};
  op.u.linear.w = plan->model->weights.layers[layer].matrix[SLOT_O];
  op.u.linear.x = plan->buffer[BUFFER_Z];
  op.u.linear.y = from;
  struct step step = {.n_layer = arch->n_layer, .n_rows = n, .n_logit_rows = n};
  if (write_rows(plan, op.u.linear.x, z, n, (size_t)arch_dim(arch, DIM_ATTN), error) != 0 ||
      backend->ops->run(backend, &op, 1, &step, error) != 0)
    return -1;
  for (int32_t i = 0; i < n; i++) {
    struct span at = span_at(from.at, (size_t)i * (size_t)from.ld * sizeof(float));
    size_t width = (size_t)arch->d_model;
    if (backend->ops->read(backend, out + (size_t)i * width, at, width * sizeof(float), error) != 0) return -1;
  }
  return 0;
}

const struct norm *plan_final_norm(const struct plan *plan) {
  static const struct norm none = {.kind = NORM_NONE};
  size_t count;
  const struct op *head = plan_segment(plan, plan->model->arch.n_layer, &count);
  for (size_t i = 0; i < count; i++)
    if (head[i].code == OP_NORM) return &head[i].u.norm.norm;
  return &none;
}

int32_t plan_max_logit_rows(const struct plan *plan) { return plan->limits.max_logit_rows; }
struct backend *plan_backend(const struct plan *plan) { return plan->model->backend; }
const struct model *plan_model(const struct plan *plan) { return plan->model; }

struct rows plan_logits(const struct plan *plan) { return plan->buffer[BUFFER_LOGITS]; }

const struct op *plan_segment(const struct plan *plan, int32_t segment, size_t *count) {
  *count = plan->segment[segment + 1] - plan->segment[segment];
  return plan->ops + plan->segment[segment];
}

int plan_instrumented(const struct plan *plan, int32_t segment, struct site_sets sets, struct op_list *list, struct error *error) {
  size_t count;
  const struct op *hot = plan_segment(plan, segment, &count);
  if (!site_sets_cold(sets)) return op_list_append(list, hot, count, error);
  return instrument_segment(&plan->instrument, hot, count, sets, list, error);
}

/* Buffers lie one behind the other, in their order; some models have no use for some of them. */
struct plan_place plan_place(const struct plan *plan, struct rows rows) {
  int buffer = BUFFER_COUNT - 1;
  while (buffer > 0 && (plan->buffer[buffer].ld == 0 || plan->buffer[buffer].at.offset > rows.at.offset)) buffer--;
  assert(rows.at.memory == plan->memory && rows.ld == plan->buffer[buffer].ld);
  return (struct plan_place){buffer, (int64_t)((rows.at.offset - plan->buffer[buffer].at.offset) / sizeof(float)),
                             buffer_width(&plan->model->arch, (enum buffer_name)buffer)};
}

int plan_positions(struct plan *plan, int32_t n, struct error *error) {
  assert(n >= 1 && n <= plan->model->arch.n_ctx);
  return fill_turns(plan, &plan->turns[0], n - 1, error) != 0 ? -1 : fill_turns(plan, &plan->turns[1], n - 1, error);
}

uint64_t plan_number(const struct plan *plan) { return plan->number; }
size_t plan_bytes(const struct plan *plan) { return plan->bytes; }
