/* process.c: folds and centres weights on their way into memory. Knows what each matrix reads and writes; where it lies in
 * a file is the reader's affair (weights.c), and what is computed with it the plan's. */
#include "core/model/process.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

struct process {
  struct weight_reader reader;
  const struct arch *arch; /* as stored */
  struct backend *backend;
  enum dtype keep;
  struct weights *out;
  size_t vector_offset; /* bytes used in out->vectors */
};

/* y = W x + b on its way: w [n_out][n_in], b [n_out] or NULL for none. */
struct product {
  float *w, *b;
  int64_t n_out, n_in;
};

/* A norm's vectors, either NULL. */
struct gains {
  float *gain, *bias;
};

/* ---- what is done ---- */

/* A norm that takes the mean away sees nothing of what is added to a whole row. */
static bool centres(const struct arch *arch) { return arch->norm == NORM_LAYER && arch->final_norm == NORM_LAYER; }

static bool folds(const struct arch *arch) { return arch_has(arch, HAS_GAINS) && arch->norm != NORM_NONE; }

int process_lines(const struct arch *stored, const char *out[PROCESS_LINES]) {
  int n = 0;
  if (folds(stored)) out[n++] = "fold_ln: gains and biases of norms are in the matrices that read them";
  if (centres(stored)) out[n++] = "center_writing_weights: what is written to the residual stream has mean zero";
  if (stored->logit_soft_cap <= 0) out[n++] = "center_unembed: logits have mean zero over the vocabulary";
  out[n++] = "fold_value_biases: biases of values are in the bias of the attention's output";
  return n;
}

static int check(const struct arch *arch, struct error *error) {
  if (arch->stream_norm != NORM_NONE || arch_has(arch, HAS_NARROW_EMBED))
    return error_set(error, ERROR_UNSUPPORTED,
                     "a model that norms the residual stream itself, or widens its embedding, is not of TransformerLens' kinds, and "
                     "nothing of it can be folded; serve it without '?process'");
  if (!arch_has(arch, HAS_PLACED_KEYS)) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "a shortformer model adds positions behind its norm, whose gains cannot be folded then; serve it without "
                   "'?process'");
}

static void describe(const struct arch *stored, struct arch *out) {
  *out = *stored;
  if (folds(stored)) out->has &= ~(uint32_t)(HAS_GAINS | HAS_FINAL_BIAS);
  out->has |= HAS_UNEMBED;
  if (arch_has(stored, HAS_QKV_BIAS)) out->has |= HAS_O_BIAS;
  if (!folds(stored) || stored->norm != NORM_LAYER) return;
  out->has |= HAS_QKV_BIAS | HAS_O_BIAS | (arch_has(stored, HAS_MLP) ? HAS_MLP_BIAS : 0);
  if (stored->final_norm == NORM_LAYER) out->has |= HAS_UNEMBED_BIAS;
}

/* ---- arithmetic ---- */

/* A bias that there was not is zero. */
static int need_bias(struct product *p, struct error *error) {
  if (!p->b) p->b = calloc((size_t)p->n_out, sizeof *p->b);
  return p->b ? 0 : error_memory(error, (size_t)p->n_out * sizeof *p->b);
}

/* W (g n + c) + b = (W g) n + (W c + b). */
static int fold_gains(struct product *p, const struct gains *norm, struct error *error) {
  if (norm->bias && need_bias(p, error) != 0) return -1;
  for (int64_t o = 0; o < p->n_out; o++) {
    float *row = p->w + o * p->n_in;
    double sum = 0;
    for (int64_t i = 0; norm->bias && i < p->n_in; i++) sum += (double)row[i] * norm->bias[i];
    if (norm->bias) p->b[o] = (float)(p->b[o] + sum);
    for (int64_t i = 0; norm->gain && i < p->n_in; i++) row[i] *= norm->gain[i];
  }
  return 0;
}

static void centre(float *x, int64_t n) {
  double mean = 0;
  for (int64_t i = 0; i < n; i++) mean += x[i];
  mean /= (double)n;
  for (int64_t i = 0; i < n; i++) x[i] = (float)(x[i] - mean);
}

static void centre_rows(float *x, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++) centre(x + r * n, n);
}

/* Every output of the product loses the mean of all. */
static int centre_outputs(struct product *p, struct error *error) {
  double *mean = calloc((size_t)p->n_in, sizeof *mean);
  if (!mean) return error_memory(error, (size_t)p->n_in * sizeof *mean);
  for (int64_t o = 0; o < p->n_out; o++)
    for (int64_t i = 0; i < p->n_in; i++) mean[i] += p->w[o * p->n_in + i];
  for (int64_t i = 0; i < p->n_in; i++) mean[i] /= (double)p->n_out;
  for (int64_t o = 0; o < p->n_out; o++)
    for (int64_t i = 0; i < p->n_in; i++) p->w[o * p->n_in + i] = (float)(p->w[o * p->n_in + i] - mean[i]);
  if (p->b) centre(p->b, p->n_out);
  free(mean);
  return 0;
}

/* Norm and product become one; a product behind a LayerNorm cannot see the mean of its weights either, and loses it, so
 * that what reads such weights directly (a direction's logits) finds what it finds in TransformerLens. */
static int fold_norm(struct product *p, enum norm_kind kind, const struct gains *norm, struct error *error) {
  if (fold_gains(p, norm, error) != 0) return -1;
  if (kind == NORM_LAYER && norm->gain) centre_rows(p->w, p->n_out, p->n_in);
  return 0;
}

/* A pattern's row sums to one, so that a value's bias reaches the output whole: b_O += W_O b_V, each head of q reading the
 * values it shares. `values` [n_kv_head][d_head] become zero. */
static int fold_values(const struct arch *arch, struct product *o, float *values, struct error *error) {
  int64_t width = arch->d_head, share = arch->n_head / arch->n_kv_head;
  if (need_bias(o, error) != 0) return -1;
  for (int64_t r = 0; r < o->n_out; r++) {
    double sum = 0;
    for (int64_t i = 0; i < o->n_in; i++)
      sum += (double)o->w[r * o->n_in + i] * values[i / width / share * width + i % width];
    o->b[r] = (float)(o->b[r] + sum);
  }
  memset(values, 0, (size_t)arch_dim(arch, DIM_KV) * sizeof *values);
  return 0;
}

/* ---- in and out ---- */

int64_t process_vector_count(const struct arch *arch, enum weight_slot slot) {
  switch (slot) {
    case SLOT_POSITIONS: return arch->n_ctx * arch->d_model;
    case SLOT_QKV_BIAS: return arch_dim(arch, DIM_QKV);
    case SLOT_IN_BIAS: case SLOT_GATE_BIAS: return arch->d_mlp;
    case SLOT_Q_GAIN: return arch_has(arch, HAS_QK_LAYER_NORM) ? arch_dim(arch, DIM_ATTN) : arch->d_head;
    case SLOT_K_GAIN: return arch_has(arch, HAS_QK_LAYER_NORM) ? arch_dim(arch, DIM_KV) : arch->d_head;
    case SLOT_UNEMBED_BIAS: return arch->vocabulary;
    case SLOT_MLP_NORM_GAIN: case SLOT_MLP_NORM_BIAS: return arch->d_mlp;
    default: return arch->d_model;
  }
}

static int read_vector(struct process *process, enum weight_slot slot, int layer, float **out, struct error *error) {
  if (weight_reader_read(&process->reader, slot, layer, out, error) != 0) return -1;
  if (*out) process->out->parameters += process_vector_count(process->arch, slot);
  return 0;
}

static int read_gains(struct process *process, enum weight_slot gain, enum weight_slot bias, int layer, struct gains *out,
                      struct error *error) {
  *out = (struct gains){NULL, NULL};
  if (read_vector(process, gain, layer, &out->gain, error) != 0) return -1;
  return bias == SLOT_COUNT ? 0 : read_vector(process, bias, layer, &out->bias, error);
}

static int read_product(struct process *process, enum weight_slot matrix, enum weight_slot bias, int layer, enum dim out,
                        enum dim in, struct product *p, struct error *error) {
  *p = (struct product){NULL, NULL, arch_dim(process->arch, out), arch_dim(process->arch, in)};
  if (weight_reader_read(&process->reader, matrix, layer, &p->w, error) != 0) return -1;
  if (p->w) process->out->parameters += p->n_out * p->n_in;
  return bias == SLOT_COUNT ? 0 : read_vector(process, bias, layer, &p->b, error);
}

static void free_gains(struct gains *norm) {
  free(norm->gain);
  free(norm->bias);
}

static void free_product(struct product *p) {
  free(p->w);
  free(p->b);
}

static int give_vector(struct process *process, struct weight_set *set, enum weight_slot slot, const float *x,
                       struct error *error) {
  if (!x) return 0;
  size_t bytes = (size_t)process_vector_count(process->arch, slot) * sizeof *x;
  struct span at = {process->out->vectors, process->vector_offset};
  set->vector[slot] = at;
  process->vector_offset += size_round_up(bytes, 64);
  return process->backend->ops->write(process->backend, at, x, bytes, error);
}

static int give_matrix(struct process *process, struct weight_set *set, enum weight_slot slot, struct product *p,
                       struct error *error) {
  struct matrix_part part = {.data = p->w, .dtype = DTYPE_F32, .layout = ROWS_ARE_OUTPUTS, .n_out = p->n_out, .ld = p->n_in};
  struct matrix_wish wish = {.dtype = process->keep};
  if (process->backend->ops->matrix_new_as(process->backend, &part, 1, p->n_in, &wish, &set->matrix[slot], error) != 0)
    return -1;
  process->out->bytes += set->matrix[slot]->bytes;
  if (set->matrix[slot]->bytes > 0) return 0;
  process->out->bytes += (size_t)(p->n_out * p->n_in) * sizeof *p->w;
  return weights_keep_copy(process->out, &p->w, error);
}

static int give_product(struct process *process, struct weight_set *set, enum weight_slot matrix, enum weight_slot bias,
                        struct product *p, struct error *error) {
  if (give_matrix(process, set, matrix, p, error) != 0) return -1;
  return bias == SLOT_COUNT ? 0 : give_vector(process, set, bias, p->b, error);
}

/* A vector that stays as it is. */
static int pass_vector(struct process *process, struct weight_set *set, enum weight_slot slot, int layer,
                       struct error *error) {
  float *x;
  if (read_vector(process, slot, layer, &x, error) != 0) return -1;
  int failed = give_vector(process, set, slot, x, error);
  free(x);
  return failed;
}

/* ---- a layer ---- */

static int process_attention(struct process *process, int layer, const struct gains *norm, struct error *error) {
  const struct arch *arch = process->arch;
  struct weight_set *set = &process->out->layers[layer];
  struct product qkv, o = {0};
  int failed = read_product(process, SLOT_QKV, SLOT_QKV_BIAS, layer, DIM_QKV, DIM_MODEL, &qkv, error);
  if (!failed) failed = fold_norm(&qkv, arch->norm, norm, error);
  if (!failed) failed = read_product(process, SLOT_O, SLOT_O_BIAS, layer, DIM_MODEL, DIM_ATTN, &o, error);
  if (!failed && qkv.b) failed = fold_values(arch, &o, qkv.b + arch_dim(arch, DIM_ATTN) + arch_dim(arch, DIM_KV), error);
  if (!failed && centres(arch)) failed = centre_outputs(&o, error);
  if (!failed) failed = give_product(process, set, SLOT_QKV, SLOT_QKV_BIAS, &qkv, error);
  if (!failed) failed = give_product(process, set, SLOT_O, SLOT_O_BIAS, &o, error);
  free_product(&qkv);
  free_product(&o);
  return failed;
}

/* A matrix of the MLP that reads the residual. */
static int process_reading(struct process *process, int layer, enum weight_slot matrix, enum weight_slot bias,
                           const struct gains *norm, struct error *error) {
  struct product in;
  int failed = read_product(process, matrix, bias, layer, DIM_MLP, DIM_MODEL, &in, error);
  if (!failed && in.w) failed = fold_norm(&in, process->arch->norm, norm, error);
  if (!failed && in.w) failed = give_product(process, &process->out->layers[layer], matrix, bias, &in, error);
  free_product(&in);
  return failed;
}

/* What the neurons of the MLP write. */
static int make_writing(struct process *process, int layer, struct product *out, struct error *error) {
  struct gains norm;
  int failed = read_gains(process, SLOT_MLP_NORM_GAIN, SLOT_MLP_NORM_BIAS, layer, &norm, error);
  if (!failed) failed = read_product(process, SLOT_OUT, SLOT_OUT_BIAS, layer, DIM_MODEL, DIM_MLP, out, error);
  if (!failed) failed = fold_norm(out, process->arch->norm, &norm, error);
  if (!failed && centres(process->arch)) failed = centre_outputs(out, error);
  free_gains(&norm);
  return failed;
}

static int process_writing(struct process *process, int layer, struct error *error) {
  struct product out = {0};
  int failed = make_writing(process, layer, &out, error);
  if (!failed) failed = give_product(process, &process->out->layers[layer], SLOT_OUT, SLOT_OUT_BIAS, &out, error);
  free_product(&out);
  return failed;
}

static int process_mlp(struct process *process, int layer, const struct gains *norm, struct error *error) {
  if (process_reading(process, layer, SLOT_GATE, SLOT_GATE_BIAS, norm, error) != 0 ||
      process_reading(process, layer, SLOT_IN, SLOT_IN_BIAS, norm, error) != 0)
    return -1;
  return process_writing(process, layer, error);
}

static int process_layer(struct process *process, int layer, struct error *error) {
  static const enum weight_slot kept[] = {SLOT_POST1_GAIN, SLOT_POST2_GAIN, SLOT_Q_GAIN, SLOT_K_GAIN};
  const struct arch *arch = process->arch;
  bool shared = arch->parallel && !arch_has(arch, HAS_NORM2);
  struct gains first, second = {0};
  int failed = read_gains(process, SLOT_NORM1_GAIN, SLOT_NORM1_BIAS, layer, &first, error);
  if (!failed && !shared) failed = read_gains(process, SLOT_NORM2_GAIN, SLOT_NORM2_BIAS, layer, &second, error);
  if (!failed) failed = process_attention(process, layer, &first, error);
  if (!failed && arch_has(arch, HAS_MLP)) failed = process_mlp(process, layer, shared ? &first : &second, error);
  for (size_t i = 0; i < sizeof kept / sizeof *kept && !failed; i++)
    failed = pass_vector(process, &process->out->layers[layer], kept[i], layer, error);
  free_gains(&first);
  free_gains(&second);
  return failed;
}

/* ---- both ends ---- */

static int process_begin(struct process *process, struct error *error) {
  const struct arch *arch = process->arch;
  struct product embed;
  float *positions = NULL;
  int failed = read_product(process, SLOT_EMBED, SLOT_COUNT, 0, DIM_VOCABULARY, DIM_MODEL, &embed, error);
  if (!failed && centres(arch)) centre_rows(embed.w, embed.n_out, embed.n_in);
  if (!failed) failed = give_matrix(process, &process->out->once, SLOT_EMBED, &embed, error);
  if (!failed) failed = read_vector(process, SLOT_POSITIONS, 0, &positions, error);
  if (!failed && positions && centres(arch)) centre_rows(positions, arch->n_ctx, arch->d_model);
  if (!failed) failed = give_vector(process, &process->out->once, SLOT_POSITIONS, positions, error);
  free_product(&embed);
  free(positions);
  return failed;
}

/* A tied unembedding is a matrix of its own from here on: the embedding as stored, which counts once. */
static int read_unembedding(struct process *process, struct product *p, struct error *error) {
  bool tied = !weight_reader_has(&process->reader, SLOT_UNEMBED);
  if (read_product(process, tied ? SLOT_EMBED : SLOT_UNEMBED, SLOT_UNEMBED_BIAS, 0, DIM_VOCABULARY, DIM_MODEL, p, error) != 0)
    return -1;
  if (tied) process->out->parameters -= p->n_out * p->n_in;
  return 0;
}

static int process_end(struct process *process, struct error *error) {
  const struct arch *arch = process->arch;
  struct product unembed = {0};
  struct gains norm;
  int failed = read_gains(process, SLOT_FINAL_GAIN, SLOT_FINAL_BIAS, 0, &norm, error);
  if (!failed) failed = read_unembedding(process, &unembed, error);
  if (!failed) failed = fold_norm(&unembed, arch->final_norm, &norm, error);
  if (!failed && arch->logit_soft_cap <= 0) failed = centre_outputs(&unembed, error);
  if (!failed) failed = give_product(process, &process->out->once, SLOT_UNEMBED, SLOT_UNEMBED_BIAS, &unembed, error);
  free_gains(&norm);
  free_product(&unembed);
  return failed;
}

/* ---- all of it ---- */

/* Room for every vector there may be in the end. */
static int allocate(struct process *process, struct error *error) {
  static const enum weight_slot each[] = {SLOT_QKV_BIAS, SLOT_O_BIAS, SLOT_IN_BIAS, SLOT_GATE_BIAS, SLOT_OUT_BIAS,
                                          SLOT_POST1_GAIN, SLOT_POST2_GAIN, SLOT_Q_GAIN, SLOT_K_GAIN};
  const struct arch *arch = process->arch;
  size_t layer = 0, n_layer = (size_t)arch->n_layer, bytes, once;
  for (size_t i = 0; i < sizeof each / sizeof *each; i++)
    layer += size_round_up((size_t)process_vector_count(process->arch, each[i]) * sizeof(float), 64);
  once = size_round_up((size_t)arch->vocabulary * sizeof(float), 64);
  if (weight_reader_has(&process->reader, SLOT_POSITIONS))
    once += size_round_up((size_t)process_vector_count(arch, SLOT_POSITIONS) * sizeof(float), 64);
  if (!checked_mul(layer, n_layer, &bytes) || !checked_add(bytes, once, &bytes)) return error_memory(error, SIZE_MAX);
  process->out->layers = calloc(n_layer, sizeof *process->out->layers);
  if (!process->out->layers) return error_memory(error, n_layer * sizeof *process->out->layers);
  return process->backend->ops->alloc(process->backend, bytes, &process->out->vectors, error);
}

int process_load(const struct arch *stored, const struct arch_family *family, const struct tensors *tensors,
                 struct backend *backend, enum dtype keep, struct arch *arch, struct weights *out, struct error *error) {
  struct process process = {.arch = stored, .backend = backend, .keep = keep, .out = out};
  memset(out, 0, sizeof *out);
  out->n_layer = stored->n_layer;
  int failed = check(stored, error);
  if (!failed) failed = weight_reader_open(stored, family, tensors, &process.reader, error);
  if (!failed) failed = allocate(&process, error);
  if (!failed) failed = process_begin(&process, error);
  for (int l = 0; l < stored->n_layer && !failed; l++) failed = process_layer(&process, l, error);
  if (!failed) failed = process_end(&process, error);
  if (failed) {
    weights_free(out, backend);
    return -1;
  }
  out->dtype = process.reader.dtype;
  out->bytes += process.vector_offset;
  describe(stored, arch);
  return 0;
}

int process_read_mlp_out(const struct arch *stored, const struct arch_family *family, const struct tensors *tensors, int layer,
                         float **out, struct error *error) {
  struct weights unused = {0}; /* counts what is read */
  struct process process = {.arch = stored, .keep = DTYPE_OTHER, .out = &unused};
  struct product product = {0};
  *out = NULL;
  if (weight_reader_open(stored, family, tensors, &process.reader, error) != 0) return -1;
  int failed = make_writing(&process, layer, &product, error);
  if (!failed) {
    *out = product.w;
    product.w = NULL;
  }
  free_product(&product);
  return failed;
}
