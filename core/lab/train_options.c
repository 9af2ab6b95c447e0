/* train_options.c: the numbers that a training can be told, one table for the command line, HTTP, stored jobs and the checks: what
 * each may be, and which kinds of dictionary have a use for it. Knows no model and no text. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/lab/subject.h"
#include "core/lab/train.h"

/* ---- the table ---- */

#define AT(member) offsetof(struct lab_train_args, member)
#define PLAN(member) offsetof(struct train_plan, member)
#define KIND(kind) (1u << TRAIN_##kind)
#define ALL ((1u << TRAIN_KINDS) - 1)
#define SPARSE_BY_K (KIND(TOPK) | KIND(BATCHTOPK))
#define NOT_BY_L1 "topk and batchtopk keep k features of a token, jumprelu goes by l0"
#define NOT_BY_K "relu goes by l1, jumprelu by l0"
#define NOT_BY_L0 "relu goes by l1, topk and batchtopk keep k features of a token"
#define NO_JUMP "thresholds are learned by jumprelu alone"
#define NO_AUX "jumprelu has preAct, relu nothing that brings dead features back"

static const struct lab_train_option table[] = {
    /* name, where, whole, from, to, left out, kinds, what the other kinds have, settled */
    {"features", AT(features), true, 1, 1 << 24, 0, ALL, NULL, PLAN(options.n_feat)},
    {"expansion", AT(expansion), true, 1, 1 << 24, 0, ALL, NULL, 0},
    {"k", AT(k), true, 1, 1 << 24, 0, SPARSE_BY_K, NOT_BY_K, PLAN(options.k)},
    {"batch", AT(batch), true, 1, 1 << 20, 0, ALL, NULL, PLAN(options.batch)},
    {"steps", AT(steps), true, 1, 1e9, 0, ALL, NULL, PLAN(options.steps)},
    {"tokens", AT(tokens), true, 1, 1e12, 0, ALL, NULL, 0},
    {"context", AT(context), true, 8, 1e9, 0, ALL, NULL, PLAN(context)},
    {"buffer", AT(buffer), true, 1, INT32_MAX, 0, ALL, NULL, PLAN(buffer)},
    {"seed", AT(seed), true, 0, 9007199254740991.0, 0, ALL, NULL, PLAN(options.seed)},
    {"rate", AT(rate), false, 1e-9, 1e6, 0, ALL, NULL, PLAN(options.rate)},
    {"l1", AT(l1), false, 0, 1e6, -1, KIND(RELU), NOT_BY_L1, PLAN(options.l1)},
    {"l1WarmUp", AT(l1_warm_up), true, 0, 1e9, -1, KIND(RELU), NOT_BY_L1, PLAN(options.l1_warm_up)},
    {"l0", AT(l0), false, 0, 1e6, -1, KIND(JUMPRELU), NOT_BY_L0, PLAN(options.l0)},
    {"l0WarmUp", AT(l0_warm_up), true, 0, 1e9, -1, KIND(JUMPRELU), NOT_BY_L0, PLAN(options.l0_warm_up)},
    {"targetL0", AT(target_l0), false, 1e-3, 1 << 24, -1, KIND(JUMPRELU), NOT_BY_L0, PLAN(options.target_l0)},
    {"tanhScale", AT(tanh_scale), false, 1e-3, 1e6, -1, KIND(JUMPRELU), NOT_BY_L0, PLAN(options.tanh_scale)},
    {"threshold", AT(threshold), false, 0, 1e6, -1, KIND(JUMPRELU), NO_JUMP, PLAN(options.threshold)},
    {"bandwidth", AT(bandwidth), false, 1e-6, 1e6, -1, KIND(JUMPRELU), NO_JUMP, PLAN(options.bandwidth)},
    {"preAct", AT(pre_act), false, 0, 1e6, -1, KIND(JUMPRELU), "relu has nothing that brings dead features back, topk and batchtopk have aux",
     PLAN(options.pre_act)},
    {"aux", AT(aux), false, 0, 1e6, -1, SPARSE_BY_K, NO_AUX, PLAN(options.aux)},
    {"deadAfter", AT(dead_after), true, 1, 1e9, -1, SPARSE_BY_K | KIND(JUMPRELU), "nothing brings dead features of relu back",
     PLAN(options.dead_after)},
    {"warmUp", AT(warm_up), true, 0, 1e9, -1, ALL, NULL, PLAN(options.warm_up)},
    {"decay", AT(decay), true, 0, 1e9, -1, ALL, NULL, PLAN(options.decay)},
    {"checkpoint", AT(checkpoint), false, 0, 86400, -1, ALL, NULL, 0},
};

const struct lab_train_option *lab_train_options(size_t *n) { return *n = sizeof table / sizeof *table, table; }

double lab_train_get(const struct lab_train_args *args, const struct lab_train_option *option) {
  const char *at = (const char *)args + option->offset;
  return option->whole ? (double)*(const int64_t *)(const void *)at : *(const double *)(const void *)at;
}

void lab_train_set(struct lab_train_args *args, const struct lab_train_option *option, double value) {
  char *at = (char *)args + option->offset;
  if (option->whole)
    *(int64_t *)(void *)at = (int64_t)value;
  else
    *(double *)(void *)at = value;
}

bool lab_train_given(const struct lab_train_args *args, const struct lab_train_option *option) {
  return lab_train_get(args, option) != option->left_out; /* NaN too, which is then refused */
}

/* What one of the L0 losses has no use for. */
static bool is_of_loss(const struct lab_train_option *option, enum train_l0_loss loss) {
  if (!strcmp(option->name, "targetL0")) return loss == TRAIN_L0_QUADRATIC;
  return strcmp(option->name, "tanhScale") != 0 || loss == TRAIN_L0_TANH;
}

/* Schedules follow from the number of steps, where they are not given. */
static bool is_open(const struct train_plan *plan, const struct lab_train_option *option) {
  if (plan->options.steps) return false;
  return !strcmp(option->name, "steps") || (option->whole && option->left_out < 0);
}

double train_plan_value(const struct train_plan *plan, const struct lab_train_option *option) {
  const char *at = (const char *)plan + option->settled;
  if (!option->settled || !train_option_is_of(option, plan->options.kind) || !is_of_loss(option, plan->options.l0_loss)) return (double)NAN;
  if (is_open(plan, option)) return lab_train_given(&plan->args, option) ? lab_train_get(&plan->args, option) : (double)NAN;
  return option->whole ? (double)*(const int64_t *)(const void *)at : *(const double *)(const void *)at;
}

void train_plan_tell(const struct train_plan *plan, struct lab_train_args *out) {
  *out = plan->args;
  out->expansion = out->tokens = 0;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    double value = train_plan_value(plan, &table[i]);
    if (!isnan(value)) lab_train_set(out, &table[i], value);
  }
  out->l0_loss = plan->options.kind == TRAIN_JUMPRELU ? train_l0_loss_name(plan->options.l0_loss) : NULL;
}

const char *lab_train_kind(int kind) { return kind >= 0 && kind < TRAIN_KINDS ? train_kind_name((enum train_kind)kind) : NULL; }

bool train_option_is_of(const struct lab_train_option *option, enum train_kind kind) { return option->kinds >> kind & 1; }

/* ---- checks ---- */

/* "topk and batchtopk" */
static void name_kinds(unsigned kinds, char out[128]) {
  size_t length = 0;
  *out = '\0';
  for (int kind = 0; kind < TRAIN_KINDS && length < 100; kind++) {
    if (!(kinds >> kind & 1)) continue;
    kinds &= ~(1u << kind);
    length += (size_t)snprintf(out + length, 128 - length, "%s%s", length == 0 ? "" : kinds ? ", " : " and ", train_kind_name((enum train_kind)kind));
  }
}

static int check_use(const struct lab_train_option *option, enum train_kind kind, struct error *error) {
  char kinds[128];
  if (train_option_is_of(option, kind)) return 0;
  name_kinds(option->kinds, kinds);
  return error_set_field(error, ERROR_ARGUMENT, option->name, "%s is an option of %s, not of %s: leave it out (%s)", option->name, kinds,
                         train_kind_name(kind), option->instead);
}

static int check_range(const struct lab_train_option *option, double value, struct error *error) {
  if (option->whole) return subject_in_range(option->name, (int64_t)value, (int64_t)option->low, (int64_t)option->high, error);
  if (value >= option->low && value <= option->high) return 0;
  return error_set_field(error, ERROR_ARGUMENT, option->name, "%s is %.10g, allowed are %.10g to %.10g", option->name, value, option->low, option->high);
}

static int check_either(const char *a, int64_t a_value, const char *b, int64_t b_value, struct error *error) {
  if (!a_value || !b_value) return 0;
  return error_set_field(error, ERROR_ARGUMENT, b, "%s and %s say the same: give one of them", b, a);
}

/* What two options say together, where both are given. */
static int check_together(const struct lab_train_args *args, struct error *error) {
  const struct {
    const char *field, *whole;
    int64_t value, most;
  } pairs[] = {{"k", "features", args->k, args->features}, {"warmUp", "steps", args->warm_up, args->steps},
               {"decay", "steps", args->decay, args->steps}};
  int64_t batch = args->batch ? args->batch : TRAIN_BATCH;
  if (args->buffer && args->buffer < batch)
    return error_set_field(error, ERROR_ARGUMENT, "buffer", "buffer is %lld tokens, a batch alone has %lld", (long long)args->buffer, (long long)batch);
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    if (pairs[i].most && pairs[i].value > pairs[i].most)
      return error_set_field(error, ERROR_ARGUMENT, pairs[i].field, "%s is %lld, but there are only %lld %s", pairs[i].field,
                             (long long)pairs[i].value, (long long)pairs[i].most, pairs[i].whole);
  return check_either("features", args->features, "expansion", args->expansion, error) != 0 ||
                 check_either("steps", args->steps, "tokens", args->tokens, error) != 0
             ? -1
             : 0;
}

int train_l0_loss_of(const struct lab_train_args *args, enum train_l0_loss *out, struct error *error) {
  if (args->l0_loss) return train_l0_loss_find(args->l0_loss, out, error);
  *out = args->target_l0 != -1 ? TRAIN_L0_QUADRATIC : args->tanh_scale != -1 ? TRAIN_L0_TANH : TRAIN_L0_STEP;
  return 0;
}

/* The two that are no numbers, and the numbers that only one loss has a use for. */
static int check_l0_loss(const struct lab_train_args *args, enum train_kind kind, struct error *error) {
  static const struct lab_train_option loss = {.name = "l0Loss", .kinds = KIND(JUMPRELU), .instead = NOT_BY_L0},
                                       input = {.name = "steToInput", .kinds = KIND(JUMPRELU), .instead = NO_JUMP};
  enum train_l0_loss found = TRAIN_L0_STEP;
  if ((args->l0_loss && check_use(&loss, kind, error) != 0) || (args->ste_to_input && check_use(&input, kind, error) != 0) ||
      train_l0_loss_of(args, &found, error) != 0)
    return -1;
  if (args->target_l0 != -1 && found != TRAIN_L0_QUADRATIC)
    return error_set_field(error, ERROR_ARGUMENT, "targetL0", "targetL0 is what l0Loss quadratic aims at, %s has none", train_l0_loss_name(found));
  if (args->tanh_scale != -1 && found != TRAIN_L0_TANH)
    return error_set_field(error, ERROR_ARGUMENT, "tanhScale", "tanhScale is of l0Loss tanh, %s has none", train_l0_loss_name(found));
  return 0;
}

int train_options_check(const struct lab_train_args *args, struct error *error) {
  enum train_kind kind;
  if (train_kind_find(args->kind, &kind, error) != 0) return -1;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    if (!lab_train_given(args, &table[i])) continue;
    if (check_use(&table[i], kind, error) != 0 || check_range(&table[i], lab_train_get(args, &table[i]), error) != 0) return -1;
  }
  return check_l0_loss(args, kind, error) != 0 || check_together(args, error) != 0 ? -1 : 0;
}
