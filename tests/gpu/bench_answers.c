/* bench_answers.c: see bench_answers.h. The tests of the backend are of small matrices, for the sake of the emulator; here are those that models
 * have: every number of tiles, grids of several turns, places beyond 2^31 bytes. Knows nothing of time. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/bench_answers.h"

#define LAYERS 2
#define LONGEST 80 /* positions behind START: those of the prompt and three more have blocks of their own */

/* Of the deviation of what is compared. Deterministic: x as it is; tensor cores cut sums off at 2^-23 for each of n / 8 + 8 sums of n terms,
 * 2e-4 for the 14,336 of the widest product if all were off to one side. Plain: keys, values and, in more than 32 rows, x are rounded to
 * 2^-9 of each term, by ten products one behind the other, so sqrt(10) 2^-9 / sqrt(3) = 0.004 as a deviation; the largest of 256,000 logits
 * is five of those, and as much again for what norms and activations make of it. A block of outputs that is lost or in a wrong place is
 * off by about one. */
#define EXACT 1e-3
#define ROUNDED 0.05

/* ---- models --------------------------------------------------------------------------------------------------------------- */

/* Three steps of each: launched, recorded, repeated; the last one counts. */
static const struct {
  const char *what;
  int streams; /* 0: a prompt */
} kinds[] = {{"prompt", 0}, {"1 row behind it", 1}, {"8 rows", 8}, {"64 rows", 64}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int32_t prompt_rows(const struct shape *shape) { return shape->prompt < 200 ? shape->prompt : 200; }

/* Logits of the first and the last row of the step. */
static void take_logits(struct bench *b, int rows, float *to) {
  struct error error = ERROR_INIT;
  struct rows logits = plan_logits(b->plan);
  size_t words = (size_t)b->shape->vocabulary;
  for (int i = 0; i < 2; i++) {
    struct span from = span_at(logits.at, (size_t)(i ? rows - 1 : 0) * (size_t)logits.ld * sizeof(float));
    check(b->backend->ops->read(b->backend, to + (size_t)i * words, from, words * sizeof *to, &error), &error);
  }
}

/* All kinds of a backend, [KINDS][2][vocabulary]. */
static float *make_logits(const char *name, const struct shape *shape, const uint16_t *numbers, size_t n_numbers) {
  static struct bench b;
  size_t words = (size_t)shape->vocabulary;
  float *all = malloc(KINDS * 2 * words * sizeof *all);
  if (!all) exit(1);
  bench_open(&b, name, shape, numbers, n_numbers, LONGEST);
  for (int k = 0; k < KINDS; k++) {
    int32_t begin = kinds[k].streams == 1 ? prompt_rows(shape) : 0;
    for (int32_t turn = 0; turn < 3; turn++) {
      if (kinds[k].streams) bench_decode(&b, kinds[k].streams, begin + turn, NOTHING);
      else bench_prompt(&b, prompt_rows(shape));
    }
    take_logits(&b, kinds[k].streams ? kinds[k].streams : 1, all + 2 * (size_t)k * words);
  }
  bench_close(&b);
  return all;
}

static double deviation(const float *x, size_t n) {
  double sum = 0, square = 0;
  for (size_t i = 0; i < n; i++) sum += x[i], square += (double)x[i] * x[i];
  return sqrt(square / (double)n - sum / (double)n * (sum / (double)n));
}

/* The largest difference, in deviations; NaN where there is one. */
static double off_by(const float *got, const float *want, size_t n) {
  double most = 0;
  for (size_t i = 0; i < n; i++) {
    double off = fabs((double)got[i] - want[i]);
    if (!(off <= most)) most = off;
    if (isnan(off)) break;
  }
  return most / deviation(want, n);
}

/* One row of the table; whether it is wrong. */
static int say(const char *shape, const char *what, const char *name, double off, double limit) {
  bool right = off <= limit;
  printf("%s| %s | %s | %s | %.1e | %.0e | %s |\n", right ? "" : "FAIL  ", shape, what, name, off, limit, right ? "right" : "**wrong**");
  fflush(stdout);
  return !right;
}

static double limit_of(const char *name) { return strstr(name, "+deterministic") ? EXACT : ROUNDED; }

static int check_shape(const char *name, const char *mode, const struct shape *shape, const float *want, const uint16_t *numbers,
                       size_t n_numbers) {
  char whole[64];
  int wrong = 0;
  size_t words = (size_t)shape->vocabulary;
  snprintf(whole, sizeof whole, "%s%s", name, mode);
  float *got = make_logits(whole, shape, numbers, n_numbers);
  for (int k = 0; k < KINDS; k++)
    wrong += say(shape->name, kinds[k].what, whole, off_by(got + 2 * (size_t)k * words, want + 2 * (size_t)k * words, 2 * words), limit_of(whole));
  free(got);
  return wrong;
}

static int check_model(const char *name, struct shape shape, const uint16_t *numbers, size_t n_numbers) {
  static const char *const others[] = {"+serial", "+apart", "+library"};
  if (shape.n_layer > LAYERS) shape.n_layer = LAYERS;
  float *want = make_logits("cpu", &shape, numbers, n_numbers);
  int wrong = check_shape(name, "+deterministic", &shape, want, numbers, n_numbers) + check_shape(name, "", &shape, want, numbers, n_numbers);
  for (size_t i = 0; i < sizeof others / sizeof *others && wrong; i++) check_shape(name, others[i], &shape, want, numbers, n_numbers);
  free(want);
  return wrong;
}

/* ---- a dictionary ----------------------------------------------------------------------------------------------------------- */

static struct sparse make_codes(const char *name, struct encode_args args, struct matrix_part part) {
  struct error error = ERROR_INIT;
  struct backend *backend = open_backend(name);
  struct matrix *w = NULL;
  struct sparse codes;
  sparse_init(&codes);
  check(backend->ops->matrix_new(backend, &part, 1, part.ld, &w, &error), &error);
  struct span x = put_values(backend, (size_t)(args.n_rows * part.ld), noise_value, 5);
  args.bias = put_values(backend, (size_t)part.n_out, same_value, usual_bias(part.ld));
  args.w = w;
  args.x = (struct rows){x, part.ld};
  check(backend->ops->encode(backend, &args, &codes, &error), &error);
  backend->ops->matrix_free(backend, w);
  backend->ops->free(backend, x.memory);
  backend->ops->free(backend, args.bias.memory);
  backend_close(backend);
  return codes;
}

static float least_of(const struct sparse *codes, size_t row) {
  float least = codes->start[row] < codes->start[row + 1] ? codes->value[codes->start[row]] : 0;
  for (size_t i = codes->start[row]; i < codes->start[row + 1]; i++) least = fminf(least, codes->value[i]);
  return least;
}

/* How far the values of a are from those in b. What b has not kept was about as large as the least of those it has, or, where everything
 * above 0 is kept, as 0. */
static double codes_off(const struct sparse *a, const struct sparse *b, bool bounded) {
  double most = a->n_rows == b->n_rows ? 0 : INFINITY;
  for (size_t row = 0; row < a->n_rows && isfinite(most); row++)
    for (size_t i = a->start[row]; i < a->start[row + 1]; i++) {
      float other = sparse_find(b, row, a->index[i]);
      double off = fabs((double)a->value[i] - (other != 0 ? other : bounded ? least_of(b, row) : 0));
      if (!(off <= most)) most = off;
    }
  return most;
}

static int check_dictionary(const char *name, const uint16_t *numbers, bool tiny) {
  static const int64_t rows[] = {2, 40}; /* x as it is, and rounded */
  int64_t d_in = tiny ? 32 : 4096, n_feat = tiny ? 256 : 131072;
  struct matrix_part part = {.data = numbers, .dtype = DTYPE_BF16, .n_out = n_feat, .ld = d_in};
  char shape[48], what[48];
  int wrong = 0;
  snprintf(shape, sizeof shape, "dictionary %lld x %lld", (long long)d_in, (long long)n_feat);
  for (int i = 0; i < 4; i++) {
    struct encode_args args = {.kind = i % 2 ? ENCODE_TOPK : ENCODE_RELU, .n_rows = rows[i / 2], .k = 64};
    struct sparse want = make_codes("cpu", args, part), got = make_codes(name, args, part);
    double off = fmax(codes_off(&got, &want, i % 2), codes_off(&want, &got, i % 2)) / sum_deviation(d_in);
    snprintf(what, sizeof what, "%lld rows, %s", (long long)args.n_rows, i % 2 ? "top 64" : "relu");
    wrong += say(shape, what, name, off, args.n_rows > 32 ? ROUNDED : EXACT);
    sparse_clear(&want);
    sparse_clear(&got);
  }
  return wrong;
}

int bench_answers(const char *name, const struct shape *shapes, int n_shapes, const uint16_t *numbers, size_t n_numbers, bool tiny) {
  int wrong = 0;
  puts("| shape | step | device | off by, in deviations of logits or sums | at most | |\n| --- | --- | --- | --- | --- | --- |");
  for (int i = 0; i < n_shapes; i++) wrong += check_model(name, shapes[i], numbers, n_numbers);
  return wrong + check_dictionary(name, numbers, tiny);
}
