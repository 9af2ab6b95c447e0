/* train_options.c: the kinds of training, what they take where nothing is said, what they refuse, how much memory they need. */
#include <math.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/nearest.h"
#include "core/dict/train.h"

/* ---- names ---- */

static const char *const kinds[TRAIN_KINDS] = {"relu", "topk", "batchtopk", "jumprelu"};
static const char *const l0_losses[TRAIN_L0_LOSSES] = {"step", "tanh", "quadratic"};

const char *train_kind_name(enum train_kind kind) { return kinds[kind]; }
const char *train_l0_loss_name(enum train_l0_loss loss) { return l0_losses[loss]; }

int train_kind_find(const char *name, enum train_kind *out, struct error *error) {
  for (int i = 0; i < TRAIN_KINDS; i++)
    if (!strcmp(name, kinds[i])) return *out = (enum train_kind)i, 0;
  const char *near = nearest_name(name, kinds, TRAIN_KINDS);
  if (near) return error_set_field(error, ERROR_ARGUMENT, "kind", "unknown kind '%.40s'; did you mean '%s'?", name, near);
  return error_set_field(error, ERROR_ARGUMENT, "kind", "unknown kind '%.40s'; known: relu, topk, batchtopk, jumprelu", name);
}

int train_l0_loss_find(const char *name, enum train_l0_loss *out, struct error *error) {
  for (int i = 0; i < TRAIN_L0_LOSSES; i++)
    if (!strcmp(name, l0_losses[i])) return *out = (enum train_l0_loss)i, 0;
  return error_set_field(error, ERROR_ARGUMENT, "l0Loss", "l0Loss '%.40s' is none of step, tanh, quadratic", name);
}

bool train_takes_k(enum train_kind kind) { return kind == TRAIN_TOPK || kind == TRAIN_BATCHTOPK; }

/* ---- defaults ---- */

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t train_width_out(const struct train_options *o) { return o->width_out ? o->width_out : o->width; }

int64_t train_default_k(int64_t n_feat) { return n_feat >= 256 ? 32 : (n_feat + 7) / 8; }

static void jump_defaults(struct train_options *o) {
  o->threshold = 0.01;
  o->bandwidth = 0.05;
  o->l0 = 1;
  o->l0_warm_up = o->steps / 20;
  o->l0_loss = TRAIN_L0_STEP;
  o->target_l0 = (double)train_default_k(o->n_feat);
  o->tanh_scale = 4;
  o->pre_act = 0;
  o->ste_to_input = false;
}

void train_defaults(struct train_options *o) {
  bool relu = o->kind == TRAIN_RELU, jump = o->kind == TRAIN_JUMPRELU;
  int64_t fifth = o->steps / 5, twentieth = o->steps / 20;
  o->rate = relu ? 3e-4 : 2e-4 * sqrt(16384.0 / (double)(o->n_feat > 0 ? o->n_feat : 1));
  if (o->rate > 2e-3) o->rate = 2e-3;
  o->warm_up = at_most(twentieth, 1000);
  o->decay = fifth;
  o->l1 = relu ? 5 : 0;
  o->l1_warm_up = relu ? twentieth : 0;
  o->aux = relu || jump ? 0 : 1;
  o->dead_after = at_most(o->steps / 10 > 50 ? o->steps / 10 : 50, 1000);
  o->init_norm = 0.1;
  if (jump) jump_defaults(o);
}

/* ---- refusals ---- */

static int check_count(const char *field, int64_t value, int64_t low, int64_t high, struct error *error) {
  if (value >= low && value <= high) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "%s is %lld, allowed are %lld to %lld", field, (long long)value, (long long)low,
                         (long long)high);
}

/* Positive, or 0 where that means something. */
static int check_number(const char *field, double value, bool zero, struct error *error) {
  if (isfinite(value) && (value > 0 || (zero && value == 0)) && value <= 1e6) return 0;
  return error_set_field(error, ERROR_ARGUMENT, field, "%s is %g, allowed are numbers %s 0 up to 1000000", field, value,
                         zero ? "from" : "above");
}

static int check_jump(const struct train_options *o, struct error *error) {
  if (check_number("threshold", o->threshold, true, error) || check_number("bandwidth", o->bandwidth, false, error) ||
      check_number("l0", o->l0, true, error) || check_count("l0WarmUp", o->l0_warm_up, 0, 1000000000, error) ||
      check_number("preAct", o->pre_act, true, error) || check_number("tanhScale", o->tanh_scale, false, error) ||
      check_number("targetL0", o->target_l0, false, error))
    return -1;
  if (o->target_l0 <= (double)o->n_feat) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "targetL0", "targetL0 is %g, but there are only %lld features", o->target_l0,
                         (long long)o->n_feat);
}

static int check_k(const struct train_options *o, struct error *error) {
  if (!train_takes_k(o->kind) && o->k)
    return error_set_field(error, ERROR_ARGUMENT, "k", "k is of the kinds topk and batchtopk: how many features %s keeps is made by %s",
                           train_kind_name(o->kind), o->kind == TRAIN_RELU ? "l1" : "l0");
  if (o->k > o->n_feat)
    return error_set_field(error, ERROR_ARGUMENT, "k", "k is %lld, but there are only %lld features", (long long)o->k, (long long)o->n_feat);
  return train_takes_k(o->kind) ? check_count("k", o->k, 1, o->n_feat, error) : 0;
}

int train_check(const struct train_options *o, struct error *error) {
  if (check_count("width", o->width, 1, 1 << 20, error) || check_count("widthOut", o->width_out, 0, 1 << 20, error) ||
      check_count("features", o->n_feat, 1, 1 << 24, error) ||
      check_count("batch", o->batch, 1, 1 << 20, error) || check_count("steps", o->steps, 1, 1000000000, error) ||
      check_count("warmUp", o->warm_up, 0, o->steps, error) || check_count("decay", o->decay, 0, o->steps, error) ||
      check_count("l1WarmUp", o->l1_warm_up, 0, 1000000000, error) || check_count("deadAfter", o->dead_after, 1, 1000000000, error) ||
      check_number("rate", o->rate, false, error) || check_number("initNorm", o->init_norm, false, error) ||
      check_number("l1", o->l1, true, error) || check_number("aux", o->aux, true, error) ||
      (o->kind == TRAIN_JUMPRELU && check_jump(o, error)))
    return -1;
  return check_k(o, error);
}

/* ---- memory ---- */

/* Entries of a row, 16 bytes each by rows and by features: half of all to begin with, and as many again that a threshold's gradient
 * looks at; of TOPK k, and those of the dead. */
static size_t entries_of_row(const struct train_options *o) {
  size_t all = (size_t)o->n_feat, some = (size_t)train_width_out(o) / 2;
  if (o->kind == TRAIN_TOPK) return (size_t)o->k + some;
  if (o->kind == TRAIN_JUMPRELU) return o->pre_act > 0 ? 2 * all : all;
  return (all + 1) / 2 + (o->kind == TRAIN_RELU ? 0 : some);
}

/* Weights, two moments, gradient, and the encoder's matrix; rows of a step, of a transcoder also those that it is to make; entries. */
size_t train_bytes(const struct train_options *o) {
  size_t weights, rows, entries, in = (size_t)o->width, out = (size_t)train_width_out(o), all = 0;
  if (!checked_mul((size_t)o->n_feat, 5 * in + 4 * out, &weights) || !checked_mul(weights, sizeof(float), &weights) ||
      !checked_mul((size_t)o->batch, 2 * in + (o->width_out ? 3 : 2) * out, &rows) || !checked_mul(rows, sizeof(float), &rows) ||
      !checked_mul((size_t)o->batch, entries_of_row(o), &entries) || !checked_mul(entries, 16, &entries) ||
      !checked_add(weights, rows, &all) || !checked_add(all, entries, &all))
    return SIZE_MAX;
  return all;
}
