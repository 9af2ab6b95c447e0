/* test_train.c: training beside SAELens' own trainer (tests/vectors/train), beside finite differences, with other threads and
 * processors, and from what an interrupted one has kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/random.h"
#include "core/dict/train.h"
#include "tests/unit/vectors.h"

static struct error error;

static void fine(int failed) {
  if (failed) fprintf(stderr, "%s\n", error.text);
  assert_int_equal(failed, 0);
}

/* ---- beside SAELens ---- */

#define STEPS 20
static const char *const devices[] = {"ref", "cpu-generic", "cpu"};

/* As make.py has them. */
static void set_jump(const char *kind, struct train_options *o) {
  char loss[16];
  snprintf(loss, sizeof loss, "%.*s", (int)strcspn(kind + strlen("jumprelu-"), "-"), kind + strlen("jumprelu-"));
  fine(train_l0_loss_find(loss, &o->l0_loss, &error));
  bool step = o->l0_loss == TRAIN_L0_STEP, squares = o->l0_loss == TRAIN_L0_QUADRATIC, tangent = o->l0_loss == TRAIN_L0_TANH;
  o->threshold = squares ? 0.05 : 0.2;
  o->bandwidth = 0.7;
  o->l0 = squares ? 0.05 : 0.4;
  o->l0_warm_up = step ? 8 : 0;
  o->target_l0 = squares ? 24 : 1;
  o->tanh_scale = tangent ? 2.5 : 1;
  o->pre_act = tangent ? 0.3 : 0;
  o->ste_to_input = !step;
}

#define OUT 10 /* width of what transcoders make */
static bool is_transcoder(const char *kind) { return strstr(kind, "-to") != NULL; }

static struct train_options recorded_options(const char *kind) {
  static const enum train_kind kinds[] = {['r'] = TRAIN_RELU, ['t'] = TRAIN_TOPK, ['b'] = TRAIN_BATCHTOPK, ['j'] = TRAIN_JUMPRELU};
  struct train_options o = {.kind = kinds[(unsigned char)*kind], .width = 12, .n_feat = 40, .batch = 24, .steps = STEPS, .rate = 0.01, .warm_up = 4, .decay = 5,
                            .dead_after = 1000, .init_norm = 0.1, .width_out = is_transcoder(kind) ? OUT : 0};
  if (o.kind == TRAIN_JUMPRELU) {
    set_jump(kind, &o);
  } else if (o.kind == TRAIN_RELU) {
    o.l1 = 0.3;
    o.l1_warm_up = 8;
  } else {
    o.k = 5;
    o.aux = 1;
  }
  return o;
}

static float *recorded(const struct tensors *vectors, const char *kind, const char *name, size_t *n) {
  char full[64];
  snprintf(full, sizeof full, "%s%s%s", kind, *kind ? "/" : "", name);
  return vectors_f32(vectors, full, n);
}

/* The recorded numbers are float64's; Adam's first steps divide a gradient by its own size, so that a gradient near 0 turns a rounding
 * into a step: after twenty steps of 0.01 weights of about 0.2 agree within 1e-4 (vectors_agree), measured 2e-6. */
static void agree(const struct tensors *vectors, const char *kind, const char *name, const float *got) {
  size_t n;
  char label[80];
  float *want = recorded(vectors, kind, name, &n);
  snprintf(label, sizeof label, "%s/%s", kind, name);
  assert_true(vectors_agree(label, got, want, n));
  free(want);
}

static void set_start(const struct tensors *vectors, const char *kind, struct trainer *trainer) {
  bool to = is_transcoder(kind);
  const char *const names[] = {"enc", to ? "to/dec" : "dec", "b_enc", to ? "to/b_dec" : "b_dec"};
  float *start[4], *marks;
  bool silent[40];
  size_t n;
  for (int i = 0; i < 4; i++) start[i] = recorded(vectors, "", names[i], &n);
  struct train_weights weights = {start[0], start[1], start[2], start[3], 0.5, 0, NULL, 0.75};
  fine(trainer_set_weights(trainer, &weights, &error));
  marks = recorded(vectors, kind, "silent", &n);
  for (int f = 0; f < 40; f++) silent[f] = marks[f] > 0;
  trainer_set_silent(trainer, silent);
  for (int i = 0; i < 4; i++) free(start[i]);
  free(marks);
}

static void agree_all(const struct tensors *vectors, const char *kind, const char *prefix, const struct train_weights *got) {
  const char *const names[] = {"enc", "dec", "b_enc", "b_dec"};
  const float *const values[] = {got->enc, got->dec, got->b_enc, got->b_dec};
  for (int i = 0; i < 4; i++) {
    char name[16];
    snprintf(name, sizeof name, "%s%s", prefix, names[i]);
    agree(vectors, kind, name, values[i]);
  }
}

/* Features that are silent have no gradient written: the recorded one is 0. */
static void clear_silent(struct train_weights *g, float *enc, float *dec, int64_t width_out) {
  for (int f = 0; f < 40; f++) {
    bool none = g->b_enc[f] == 0;
    for (int i = 0; i < 12; i++) enc[f * 12 + i] = none ? 0 : g->enc[f * 12 + i];
    for (int64_t i = 0; i < width_out; i++) dec[f * width_out + i] = none ? 0 : g->dec[f * width_out + i];
  }
  g->enc = enc;
  g->dec = dec;
}

static void follow(const struct tensors *vectors, const char *kind, const char *device) {
  struct train_options o = recorded_options(kind);
  struct trainer *trainer = trainer_new(&o, device, 2, &error);
  if (!trainer) fprintf(stderr, "%s\n", error.text);
  assert_non_null(trainer);
  size_t n;
  float *x = recorded(vectors, "", "x", &n), *y = recorded(vectors, "", "y", &n), losses[STEPS * 3], enc[480], dec[480], kept[STEPS];
  double threshold = 0, weight = 0;
  struct train_weights weights;
  set_start(vectors, kind, trainer);
  for (int s = 0; s < STEPS; s++) {
    struct train_figures figures;
    fine(trainer_step(trainer, x + s * 24 * 12, o.width_out ? y + s * 24 * OUT : NULL, &figures, &error));
    losses[3 * s] = (float)figures.mse;
    losses[3 * s + 1] = (float)figures.sparsity;
    losses[3 * s + 2] = (float)figures.aux;
    if (s > 0) continue;
    trainer_gradients(trainer, &weights);
    clear_silent(&weights, enc, dec, train_width_out(&o));
    agree_all(vectors, kind, "g_", &weights);
    if (weights.thresholds) agree(vectors, kind, "g_thresholds", weights.thresholds);
  }
  agree(vectors, kind, "loss", losses);
  trainer_weights(trainer, &weights);
  agree_all(vectors, kind, "", &weights);
  if (weights.thresholds) agree(vectors, kind, "thresholds", weights.thresholds);
  if (o.kind == TRAIN_BATCHTOPK) {
    float *least = recorded(vectors, kind, "threshold", &n);
    for (int s = 0; s < STEPS; s++) {
      threshold = 0.5 * threshold + 0.5 * least[s]; /* of a run of 20 steps */
      weight = 0.5 * weight + 0.5;
    }
    kept[0] = (float)weights.threshold;
    kept[1] = (float)(threshold / weight);
    assert_true(vectors_agree("threshold", kept, kept + 1, 1));
    free(least);
  }
  free(x);
  free(y);
  trainer_free(trainer);
}

static void test_saelens(void **state) {
  static const char *const kinds[] = {"relu", "topk", "topk-dead", "topk-few-dead", "batchtopk",
                                      "jumprelu-step", "jumprelu-tanh", "jumprelu-quadratic",
                                      "relu-to", "topk-dead-to", "batchtopk-to", "jumprelu-step-to", "jumprelu-tanh-to"};
  struct tensors *vectors = vectors_open("tests/vectors/train/train.safetensors");
  (void)state;
  for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) follow(vectors, kinds[i], devices[d]);
  tensors_close(vectors);
}

/* ---- runs ---- */

static struct train_options small(enum train_kind kind) {
  struct train_options o = {.kind = kind, .width = 37, .n_feat = 150, .k = train_takes_k(kind) ? 6 : 0, .batch = 50, .steps = 60, .seed = 3};
  train_defaults(&o);
  o.dead_after = 5; /* so that some die */
  o.rate = 3e-3;
  if (kind == TRAIN_JUMPRELU) { /* all that it can have */
    o.l0_loss = TRAIN_L0_TANH;
    o.ste_to_input = true;
    o.pre_act = 0.01;
    o.bandwidth = 0.3;
  }
  return o;
}

/* Of every kind, then a transcoder of every kind. */
static struct train_options small_of(int number) {
  struct train_options o = small((enum train_kind)(number % TRAIN_KINDS));
  if (number >= TRAIN_KINDS) o.width_out = 29;
  return o;
}

/* Rows of a few directions each; which, and how much of them, does not depend on where they point. */
static float *make_rows_in(uint64_t directions, int64_t n, int64_t width) {
  float *x = calloc((size_t)(n * width), sizeof *x);
  for (int64_t row = 0; row < n; row++)
    for (int j = 0; j < 4; j++) {
      uint64_t which = (uint64_t)(random_unit(5, 0, (uint64_t)(row * 4 + j)) * 60);
      double much = random_unit(5, 1, (uint64_t)(row * 4 + j)) * 3;
      for (int64_t i = 0; i < width; i++) x[row * width + i] += (float)(much * (random_unit(directions, which, (uint64_t)i) - 0.4));
    }
  return x;
}

static float *make_rows(int64_t n, int64_t width) { return make_rows_in(6, n, width); }

/* All rows of a run: what is read, and what a transcoder makes of it. */
struct rows {
  float *x, *y;
};

static struct rows rows_for(const struct train_options *o) {
  int64_t n = o->batch * o->steps;
  return (struct rows){make_rows(n, o->width), o->width_out ? make_rows_in(7, n, o->width_out) : NULL};
}

static void rows_free(struct rows *rows) {
  free(rows->x);
  free(rows->y);
}

struct run {
  struct trainer *trainer;
  struct train_figures first, last;
};

static struct run start_run(const struct train_options *o, const char *device, int threads, struct rows rows) {
  struct run run = {.trainer = trainer_new(o, device, threads, &error)};
  assert_non_null(run.trainer);
  fine(trainer_begin(run.trainer, rows.x, rows.y, o->batch * 4, &error));
  return run;
}

static void go_on(struct run *run, struct rows rows, int64_t until) {
  const struct train_options *o = trainer_options(run->trainer);
  while (trainer_steps(run->trainer) < until) {
    int64_t at = trainer_steps(run->trainer) * o->batch;
    bool first = at == 0;
    fine(trainer_step(run->trainer, rows.x + at * o->width, rows.y ? rows.y + at * o->width_out : NULL, &run->last, &error));
    if (first) run->first = run->last;
  }
}

static void same_bits(const struct trainer *a, const struct trainer *b) {
  struct train_weights p, q;
  const struct train_options *o = trainer_options(a);
  trainer_weights(a, &p);
  trainer_weights(b, &q);
  assert_memory_equal(p.enc, q.enc, (size_t)(o->n_feat * o->width) * sizeof(float));
  assert_memory_equal(p.dec, q.dec, (size_t)(o->n_feat * train_width_out(o)) * sizeof(float));
  assert_memory_equal(p.b_enc, q.b_enc, (size_t)o->n_feat * sizeof(float));
  assert_memory_equal(p.b_dec, q.b_dec, (size_t)train_width_out(o) * sizeof(float));
  assert_true(p.scale == q.scale && p.scale_out == q.scale_out && p.threshold == q.threshold && !p.thresholds == !q.thresholds);
  if (p.thresholds) assert_memory_equal(p.thresholds, q.thresholds, (size_t)o->n_feat * sizeof(float));
}

static void test_threads(void **state) {
  (void)state;
  for (int kind = 0; kind < 2 * TRAIN_KINDS; kind++) {
    struct train_options o = small_of(kind);
    struct rows x = rows_for(&o);
    struct run one = start_run(&o, "cpu", 1, x), three = start_run(&o, "cpu", 3, x);
    go_on(&one, x, o.steps);
    go_on(&three, x, o.steps);
    same_bits(one.trainer, three.trainer);
    trainer_free(one.trainer);
    trainer_free(three.trainer);
    rows_free(&x);
  }
}

/* Each processor's kernels add in their own way: what twenty steps make of that stays within the recordings' bound (measured 1e-6). */
static void test_processors(void **state) {
  (void)state;
  for (int kind = 0; kind < 2 * TRAIN_KINDS; kind++) {
    struct train_options o = small_of(kind);
    struct rows x = rows_for(&o);
    struct run obvious = start_run(&o, "ref", 1, x), fast = start_run(&o, "cpu", 2, x);
    struct train_weights p, q;
    go_on(&obvious, x, 20);
    go_on(&fast, x, 20);
    trainer_weights(obvious.trainer, &p);
    trainer_weights(fast.trainer, &q);
    assert_true(vectors_agree("enc", q.enc, p.enc, (size_t)(o.n_feat * o.width)));
    assert_true(vectors_agree("dec", q.dec, p.dec, (size_t)(o.n_feat * train_width_out(&o))));
    trainer_free(obvious.trainer);
    trainer_free(fast.trainer);
    rows_free(&x);
  }
}

/* It learns: less than half of the error that it began with, where it began with all of it (the decoder's rows are short). */
static void test_learns(void **state) {
  (void)state;
  for (int kind = 0; kind < 2 * TRAIN_KINDS; kind++) {
    struct train_options o = small_of(kind);
    o.steps = 300;
    o.l1 /= 10;
    o.l0 /= 10;
    struct rows x = rows_for(&o);
    struct run run = start_run(&o, "cpu", 2, x);
    go_on(&run, x, o.steps);
    if (!(run.last.mse < run.first.mse / 2)) fprintf(stderr, "%s: %g to %g\n", train_kind_name(o.kind), run.first.mse, run.last.mse);
    assert_true(run.last.mse < run.first.mse / 2 && run.last.explained > 0.5);
    if (o.k) assert_true(run.last.l0 <= (double)o.k && run.last.l0 > (double)o.k / 2);
    trainer_free(run.trainer);
    rows_free(&x);
  }
}

static void test_resumes(void **state) {
  (void)state;
  for (int kind = 0; kind < 2 * TRAIN_KINDS; kind++) {
    struct train_options o = small_of(kind);
    struct rows x = rows_for(&o);
    struct run whole = start_run(&o, "cpu", 2, x), begun = start_run(&o, "cpu", 2, x), rest = {.trainer = trainer_new(&o, "cpu", 1, &error)};
    FILE *file = tmpfile();
    go_on(&whole, x, o.steps);
    go_on(&begun, x, 23);
    fine(trainer_save(begun.trainer, file, &error));
    rewind(file);
    fine(trainer_load(rest.trainer, file, &error));
    assert_int_equal(trainer_steps(rest.trainer), 23);
    go_on(&rest, x, o.steps);
    same_bits(whole.trainer, rest.trainer);
    fclose(file);
    trainer_free(whole.trainer);
    trainer_free(begun.trainer);
    trainer_free(rest.trainer);
    rows_free(&x);
  }
}

/* What is cut short or of other options is refused. */
static void test_refuses_states(void **state) {
  (void)state;
  struct train_options o = small(TRAIN_TOPK), other = o;
  other.seed++;
  struct trainer *a = trainer_new(&o, "cpu", 1, &error), *b = trainer_new(&other, "cpu", 1, &error);
  FILE *file = tmpfile();
  fine(trainer_save(a, file, &error));
  rewind(file);
  assert_int_equal(trainer_load(b, file, &error), -1);
  assert_non_null(strstr(error.text, "other options"));
  error_clear(&error);
  fine(ftruncate(fileno(file), ftell(file) + 4000));
  rewind(file);
  assert_int_equal(trainer_load(a, file, &error), -1);
  assert_non_null(strstr(error.text, "cut short"));
  error_clear(&error);
  fclose(file);
  trainer_free(a);
  trainer_free(b);
}

/* ---- gradients beside differences of the loss ---- */

/* The loss over x with other weights: the figures of a first step of a trainer of its own. */
static double loss_of(const struct train_options *o, const struct train_weights *weights, const float *x) {
  struct trainer *trainer = trainer_new(o, "ref", 1, &error);
  struct train_figures figures;
  fine(trainer_set_weights(trainer, weights, &error));
  fine(trainer_step(trainer, x, NULL, &figures, &error));
  trainer_free(trainer);
  return figures.mse + figures.sparsity;
}

/* Differences over +-h of a loss of about 30 in f32 weights: rounding 1e-6 * 30 / h = 0.003, the third derivative h^2, kinks where a
 * feature comes or goes; with h = 0.01 the worst of these is 0.02 of gradients of about 1. */
static void check_difference(const struct train_options *o, const struct train_weights *weights, const float *x, float *values, int64_t n,
                             const float *gradient) {
  const float h = 0.01f;
  for (int64_t i = 0; i < n; i += n / 7 + 1) {
    float was = values[i];
    values[i] = was + h;
    double up = loss_of(o, weights, x);
    values[i] = was - h;
    double down = loss_of(o, weights, x);
    values[i] = was;
    double difference = (up - down) / (2 * (double)h);
    if (fabs(difference - gradient[i]) > 0.03 * fmax(1, fabs(difference)))
      fprintf(stderr, "element %lld: %g, by differences %g\n", (long long)i, (double)gradient[i], difference);
    assert_true(fabs(difference - gradient[i]) <= 0.03 * fmax(1, fabs(difference)));
  }
}

static void test_differences(void **state) {
  (void)state;
  struct train_options o = {.kind = TRAIN_RELU, .width = 9, .n_feat = 14, .batch = 12, .steps = 5, .rate = 1e-3, .l1 = 0.7, .dead_after = 9,
                            .init_norm = 0.8, .seed = 11};
  float *x = make_rows(o.batch, o.width), *copies[4];
  struct trainer *trainer = trainer_new(&o, "ref", 1, &error);
  struct train_weights weights, gradients;
  struct train_figures figures;
  const int64_t sizes[] = {o.n_feat * o.width, o.n_feat * o.width, o.n_feat, o.width};
  fine(trainer_begin(trainer, x, NULL, o.batch, &error));
  trainer_weights(trainer, &weights);
  const float *const values[] = {weights.enc, weights.dec, weights.b_enc, weights.b_dec};
  for (int i = 0; i < 4; i++) {
    copies[i] = malloc((size_t)sizes[i] * sizeof(float));
    memcpy(copies[i], values[i], (size_t)sizes[i] * sizeof(float));
  }
  struct train_weights moved = {copies[0], copies[1], copies[2], copies[3], weights.scale, 0, NULL, 0};
  fine(trainer_step(trainer, x, NULL, &figures, &error));
  trainer_gradients(trainer, &gradients);
  const float *const slopes[] = {gradients.enc, gradients.dec, gradients.b_enc, gradients.b_dec};
  for (int i = 0; i < 4; i++) check_difference(&o, &moved, x, copies[i], sizes[i], slopes[i]);
  for (int i = 0; i < 4; i++) free(copies[i]);
  trainer_free(trainer);
  free(x);
}

/* ---- blocks ---- */

/* Shapes at which neither the rows nor the features of a step fit a block of the caches: the gradients of W_dec and of W_enc, summed here as
 * they are defined. */
#define WIDE 700
#define MANY 260
#define ROWS 120

static void define_gradients(const struct train_weights *w, const float *c, float *g_enc, float *g_dec) {
  float *a = calloc(MANY, sizeof *a);
  double *e = calloc(WIDE, sizeof *e);
  for (int row = 0; row < ROWS; row++) {
    const float *x = c + row * WIDE;
    for (int i = 0; i < WIDE; i++) e[i] = -x[i];
    for (int f = 0; f < MANY; f++) {
      double p = w->b_enc[f];
      for (int i = 0; i < WIDE; i++) p += (double)x[i] * w->enc[f * WIDE + i];
      a[f] = p > 0 ? (float)p : 0;
      for (int i = 0; i < WIDE && p > 0; i++) e[i] += p * w->dec[f * WIDE + i];
    }
    for (int f = 0; f < MANY; f++) {
      double slope = 0;
      for (int i = 0; i < WIDE; i++) slope += e[i] * w->dec[f * WIDE + i];
      for (int i = 0; i < WIDE && a[f] > 0; i++) {
        g_dec[f * WIDE + i] += (float)(2.0 / ROWS * a[f] * e[i]);
        g_enc[f * WIDE + i] += (float)(2.0 / ROWS * slope * x[i]);
      }
    }
  }
  free(a);
  free(e);
}

static void test_blocks(void **state) {
  (void)state;
  struct train_options o = {.kind = TRAIN_RELU, .width = WIDE, .n_feat = MANY, .batch = ROWS, .steps = 3, .rate = 1e-3, .dead_after = 9,
                            .init_norm = 0.8, .seed = 4};
  float *x = make_rows(ROWS, WIDE), *c = malloc(ROWS * WIDE * sizeof *c);
  float *g_enc = calloc(MANY * WIDE, sizeof *g_enc), *g_dec = calloc(MANY * WIDE, sizeof *g_dec);
  struct trainer *trainer = trainer_new(&o, "cpu", 2, &error);
  struct train_weights weights, gradients;
  struct train_figures figures;
  fine(trainer_begin(trainer, x, NULL, ROWS, &error));
  trainer_weights(trainer, &weights);
  for (int i = 0; i < ROWS * WIDE; i++) c[i] = x[i] * (float)weights.scale - weights.b_dec[i % WIDE];
  define_gradients(&weights, c, g_enc, g_dec);
  fine(trainer_step(trainer, x, NULL, &figures, &error));
  assert_true(figures.l0 > MANY / 4.0); /* else nothing is taken in blocks */
  trainer_gradients(trainer, &gradients);
  assert_true(vectors_agree("encoder", gradients.enc, g_enc, MANY * WIDE));
  assert_true(vectors_agree("decoder", gradients.dec, g_dec, MANY * WIDE));
  free(x);
  free(c);
  free(g_enc);
  free(g_dec);
  trainer_free(trainer);
}

/* ---- refusals ---- */

static void refused(struct train_options o, const char *field, const char *text) {
  assert_int_equal(train_check(&o, &error), -1);
  assert_string_equal(error.field, field);
  if (!strstr(error.text, text)) fprintf(stderr, "%s\n", error.text);
  assert_non_null(strstr(error.text, text));
  error_clear(&error);
}

static void test_refusals(void **state) {
  (void)state;
  enum train_kind kind;
  struct train_options good = small(TRAIN_TOPK), o;
  fine(train_check(&good, &error));
  assert_int_equal(train_kind_find("tokp", &kind, &error), -1);
  assert_non_null(strstr(error.text, "did you mean 'topk'"));
  error_clear(&error);
  assert_int_equal(train_kind_find("gated", &kind, &error), -1);
  error_clear(&error);
  o = good, o.k = 151, refused(o, "k", "only 150 features");
  o = good, o.k = 0, refused(o, "k", "1 to 150");
  o = good, o.kind = TRAIN_RELU, refused(o, "k", "made by l1");
  o = good, o.kind = TRAIN_JUMPRELU, o.bandwidth = 1, o.tanh_scale = 1, o.target_l0 = 1, refused(o, "k", "made by l0");
  o = small(TRAIN_JUMPRELU), o.bandwidth = 0, refused(o, "bandwidth", "above 0");
  o = small(TRAIN_JUMPRELU), o.target_l0 = 151, refused(o, "targetL0", "only 150 features");
  o = good, o.rate = (double)NAN, refused(o, "rate", "nan");
  o = good, o.rate = 0, refused(o, "rate", "above 0");
  o = good, o.batch = 0, refused(o, "batch", "allowed");
  o = good, o.warm_up = 61, refused(o, "warmUp", "0 to 60");
  struct trainer *trainer = trainer_new(&good, "cpu", 1, &error);
  float *x = calloc((size_t)(good.batch * good.width), sizeof *x);
  assert_int_equal(trainer_begin(trainer, x, NULL, good.batch, &error), -1);
  assert_non_null(strstr(error.text, "all 0"));
  error_clear(&error);
  x[5] = INFINITY;
  assert_int_equal(trainer_begin(trainer, x, NULL, good.batch, &error), -1);
  error_clear(&error);
  free(x);
  trainer_free(trainer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_saelens), cmocka_unit_test(test_threads), cmocka_unit_test(test_processors), cmocka_unit_test(test_learns),
      cmocka_unit_test(test_resumes), cmocka_unit_test(test_refuses_states), cmocka_unit_test(test_differences), cmocka_unit_test(test_blocks),
      cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
