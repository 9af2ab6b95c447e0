/* bench_gpu: what a CUDA device gives, beside what it could: decode, prefill, first token and encodes of models with the shapes
 * of GPT-2 small, Gemma 2 2B and Llama 3.1 8B. Weights are random, in bf16, each matrix in its own memory; speed does not depend
 * on what they are. Prints a report in Markdown (docs/performance.md keeps the last one).
 *
 *   bench_gpu [--backend cuda:0] [--part gpt2|gemma|llama|dictionaries|draws|limits|answers] [--figures FILE] [--read BYTES/S] [--trace]
 *             [--tiny]
 *
 * --part: one program for each, so that a failure of one leaves the others; none: all that are timed; limits: what stands in front of each,
 * and nothing else; answers: whether the numbers are right at these sizes (bench_answers.h), and no time. --figures: appends `shape|what|which|number`
 * for the table of goals (goals.awk). --read: the rate at which the device reads (limits.cu), for the floors where it is higher than a
 * copy's. --trace: a few steps of each kind, each kernel timed (STEERD_CUDA_WATCH=times), instead of the report. --tiny: small
 * shapes, to see that it runs.
 *
 * Inside the timing window of a decoded token: the whole step as the engine runs it (tables, launches, waiting) and the greedy
 * draw; not the scheduler and not HTTP. (a) has no edits and no taps; (b) taps resid_post of every layer and edits it at every layer,
 * each stream and layer with a vector of its own; what is tapped stays on the device. (c) is (b) with all taps brought to the host in each
 * step. The device works for WARM seconds first, so that its clocks are up and graphs recorded. Then (a) and (b) take turns, a few
 * tokens each, every other pair the other way round; the figures are medians, (b) of (a) the median of the pairs' ratios, and what
 * stands behind +- is twice its standard error. How far (a) is from itself, measured so, is printed too.
 *
 * Floors are measured in the same run: bytes of weights (each matrix that is multiplied once, so the unembedding and not the table of
 * embeddings) and of keys and values, over the rate of a copy or of reading, whichever is higher; operations over the rate of one large product. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/random.h"
#include "tests/gpu/bench_answers.h"
#include "tests/gpu/bench_model.h"

static const struct shape real_shapes[] = {{"GPT-2 small", 12, 12, 12, 64, 768, 3072, 50257, true, false, 512},
                                           {"Gemma 2 2B", 26, 8, 4, 256, 2304, 9216, 256000, false, true, 512},
                                           {"Llama 3.1 8B", 32, 32, 8, 128, 4096, 14336, 128256, false, false, 512}};
/* Under the same names, that the table of goals is complete: the same ops and the same heads. */
static const struct shape tiny_shapes[] = {{"GPT-2 small", 1, 2, 2, 64, 64, 128, 96, true, false, 96},
                                           {"Gemma 2 2B", 2, 2, 1, 256, 48, 96, 128, false, true, 64},
                                           {"Llama 3.1 8B", 1, 4, 2, 128, 64, 80, 112, false, false, 64}};

/* How long things are measured. */
struct effort {
  double warm, time;      /* seconds of steps before, and of measuring */
  int least, most;        /* pairs, or repetitions */
  int tokens;             /* of a turn */
};
#define MOST_TURNS 63
static const struct effort real_effort = {0.4, 2.0, 9, MOST_TURNS, 16}, tiny_effort = {0, 0, 1, 1, 1};

static const char report_head[] =
    "| model | what | (a) nothing attached | (b) taps and edits at every layer | (c) taps brought to the host | floor | (a) of the floor | |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |";

static const struct effort *effort = &real_effort;
static bool tracing; /* kernels are timed, and nothing else */
static FILE *figures;
static double bandwidth, rate; /* bytes/s; operations/s of a product in bf16 */
static const uint16_t *numbers;
static size_t n_numbers;

static double seconds(int64_t from) { return (double)(clock_ns() - from) * 1e-9; }

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *values, int n) {
  qsort(values, (size_t)n, sizeof *values, ascending);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void figure(const char *shape, const char *what, const char *which, double value) {
  if (figures) fprintf(figures, "%s|%s|%s|%.6g\n", shape, what, which, value), fflush(figures);
}

/* bf16 numbers in about [-scale, scale), the same block for every matrix: some millions, again and again. */
static uint16_t *make_numbers(size_t n, float scale) {
  uint16_t *made = malloc(n * sizeof *made);
  uint64_t state = 88172645463325252u;
  size_t own = n < 8388593 ? n : 8388593; /* a prime: no two rows of a matrix are alike */
  if (!made) exit(1);
  for (size_t i = 0; i < own; i++) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    made[i] = f32_to_bf16(scale * ((float)(state >> 40) / 8388608.0f - 1));
  }
  for (size_t i = own; i < n; i += own) memcpy(made + i, made, (n - i < own ? n - i : own) * sizeof *made);
  return made;
}

/* Seconds of one `run`, a median: the device is warm, and nothing is made for the first time. */
static double repeat(void (*run)(void *), void *data) {
  double times[MOST_TURNS];
  int n = 0;
  for (int64_t begin = clock_ns(), turn = 0; turn < 2 || seconds(begin) < effort->warm / 4; turn++) run(data);
  for (int64_t begin = clock_ns(); n < effort->least || (n < effort->most && seconds(begin) < effort->time / 4);) {
    int64_t from = clock_ns();
    run(data);
    times[n++] = seconds(from);
  }
  return median(times, n);
}

/* ---- decode ------------------------------------------------------------------------------------------------------------- */

/* Tokens a second of all streams together. */
static double decode(struct bench *b, int streams, enum load load) {
  int64_t from = clock_ns();
  for (int32_t i = 0; i < effort->tokens; i++) bench_decode(b, streams, START + i, load);
  return streams * effort->tokens / seconds(from);
}

struct comparison {
  double a, b;         /* tokens a second */
  double ratio, noise; /* of b and a; twice its standard error */
};

/* The standard error of a median is 1.25 of a mean's; the deviation is taken from the median one, which a few slow turns do not move. */
static void take_ratio(double *ratios, int n, struct comparison *c) {
  c->ratio = median(ratios, n);
  for (int i = 0; i < n; i++) ratios[i] = fabs(ratios[i] - c->ratio);
  c->noise = 2 * 1.253 * 1.4826 * median(ratios, n) / sqrt(n);
}

static struct comparison compare(struct bench *b, int streams, enum load a_load, enum load b_load) {
  double a[MOST_TURNS], c[MOST_TURNS], ratios[MOST_TURNS];
  struct comparison result;
  int n = 0;
  /* The first step of a kind is launched op by op, the second recorded, the third repeated. */
  for (int64_t begin = clock_ns(), turn = 0; turn < 2 || seconds(begin) < effort->warm; turn++)
    bench_decode(b, streams, START, a_load), bench_decode(b, streams, START, b_load);
  for (int64_t begin = clock_ns(); n < effort->least || (n < effort->most && seconds(begin) < effort->time); n++) {
    if (n % 2) c[n] = decode(b, streams, b_load), a[n] = decode(b, streams, a_load);
    else a[n] = decode(b, streams, a_load), c[n] = decode(b, streams, b_load);
    ratios[n] = c[n] / a[n];
  }
  take_ratio(ratios, n, &result);
  result.a = median(a, n);
  result.b = median(c, n);
  return result;
}

/* Seconds of a step of so many streams, in the middle of a turn. */
static double decode_floor(const struct bench *b, int streams) {
  const struct arch *arch = &b->model.arch;
  double kv = (double)arch->n_layer * (double)bench_kv_block_bytes(b) / KV_BLOCK * (START + effort->tokens / 2.0);
  double operations = 2 * (b->weight_bytes / 2) * streams;
  return fmax((b->weight_bytes + kv * streams) / bandwidth, operations / rate);
}

static void print_comparison(const struct comparison *c) {
  printf("%.0f tok/s | %.0f tok/s (%.2f ± %.2f %% of a) |", c->a, c->b, 100 * c->ratio, 100 * c->noise);
}

static double report_streams(struct bench *b, int streams, double alone) {
  char what[32];
  double fetched[5], floor = streams / decode_floor(b, streams);
  snprintf(what, sizeof what, "decode, %d streams", streams);
  struct comparison c = compare(b, streams, NOTHING, TAPS_AND_EDITS);
  for (int i = 0; i < 5 && i <= effort->most; i++) fetched[i] = decode(b, streams, TAPS_FETCHED);
  double to_host = median(fetched, effort->most < 5 ? 1 : 5);
  printf("| %s | %s | ", b->shape->name, what);
  print_comparison(&c);
  printf(" %.0f tok/s (%.1f %%) | %.0f tok/s | %.0f %% | %.1f x one |\n", to_host, 100 * to_host / c.a, floor, 100 * c.a / floor,
         c.a / (alone > 0 ? alone : c.a));
  fflush(stdout);
  figure(b->shape->name, what, "a", c.a);
  figure(b->shape->name, what, "b", c.b);
  figure(b->shape->name, what, "ratio", c.ratio);
  figure(b->shape->name, what, "noise", c.noise);
  figure(b->shape->name, what, "c", to_host);
  figure(b->shape->name, what, "floor", floor);
  return c.a;
}

static void report_decode(struct bench *b) {
  double alone = report_streams(b, 1, 0);
  report_streams(b, 8, alone);
  report_streams(b, 64, alone);
  struct comparison c = compare(b, MOST_STREAMS, NOTHING, ONE_EDIT_EACH);
  double floor = MOST_STREAMS / decode_floor(b, MOST_STREAMS);
  printf("| %s | decode, 256 streams, 256 different edits | ", b->shape->name);
  print_comparison(&c);
  printf(" | %.0f tok/s | %.0f %% | %.1f x one |\n", floor, 100 * c.a / floor, c.a / alone);
  figure(b->shape->name, "256 edits", "a", c.a);
  figure(b->shape->name, "256 edits", "b", c.b);
  figure(b->shape->name, "256 edits", "ratio", c.ratio);
  figure(b->shape->name, "256 edits", "noise", c.noise);
  c = compare(b, 1, NOTHING, NOTHING);
  printf("| %s | decode, 1 stream, (a) beside itself | ", b->shape->name);
  print_comparison(&c);
  puts(" | | | |");
  fflush(stdout);
}

struct prompt {
  struct bench *b;
  int32_t rows;
};

static void run_prompt(void *data) {
  struct prompt *p = data;
  bench_prompt(p->b, p->rows);
}

static void report_prompts(struct bench *b) {
  struct prompt all = {b, b->shape->prompt}, few = {b, 16};
  double long_one = repeat(run_prompt, &all), first = repeat(run_prompt, &few), least = b->weight_bytes / bandwidth;
  double floor = fmax(2 * b->layer_weights * all.rows / rate, least);
  printf("| %s | prefill %d | %.0f tok/s (%.2f ms) | | | %.0f tok/s | %.0f %% | |\n", b->shape->name, all.rows, all.rows / long_one,
         1e3 * long_one, all.rows / floor, 100 * floor / long_one);
  printf("| %s | first token of 16 | %.2f ms | | | %.2f ms | %.0f %% | |\n", b->shape->name, 1e3 * first, 1e3 * least,
         100 * least / first);
  fflush(stdout);
  figure(b->shape->name, "prefill", "tok/s", all.rows / long_one);
  figure(b->shape->name, "first token", "s", first);
}

/* ---- where the time of a step goes ---------------------------------------------------------------------------------------- */

/* Steps behind each other with one wait at their end: what the device alone takes for each, tables on their way to it included. */
static double device_alone(struct bench *b, enum load load) {
  double times[5];
  int n = effort->most < 5 ? 1 : 5, steps = 2 * effort->tokens;
  for (int i = 0; i < n; i++) {
    int64_t from = clock_ns();
    for (int32_t k = 0; k < steps; k++) bench_ask(b, 1, START + k % effort->tokens, load);
    bench_wait(b);
    times[i] = seconds(from) / steps;
  }
  return median(times, n);
}

static void run_nothing(void *data) {
  struct bench *b = data;
  struct error error = ERROR_INIT;
  check(b->backend->ops->copy(b->backend, (struct span){b->taps, 0}, (struct span){b->vectors, 0}, 4, &error), &error);
  bench_wait(b);
}

static void report_step(struct bench *b, const char *which, enum load load) {
  for (int i = 0; i < 2; i++) bench_decode(b, 1, START, load);
  b->launching = b->drawing = b->steps = 0;
  int64_t from = clock_ns();
  for (int i = 0; i < 4 * effort->tokens; i++) bench_decode(b, 1, START + i % effort->tokens, load);
  double step = seconds(from) / b->steps, launching = b->launching / b->steps, drawing = b->drawing / b->steps;
  printf("| %s, %s, %s | %.1f | %.1f | %.1f | %.1f | %.1f |\n", b->shape->name, b->backend->ops->name, which, 1e6 * step, 1e6 * launching,
         1e6 * drawing, 1e6 * (step - launching - drawing), 1e6 * device_alone(b, load));
  fflush(stdout);
}

static void report_time(struct bench *b) {
  puts("\n| one stream, us a step | all of it | tables, launch | asking for the draw | waiting, the rest | on the device alone, without the draw |\n"
       "| --- | --- | --- | --- | --- | --- |");
  report_step(b, "(a)", NOTHING);
  report_step(b, "(b)", TAPS_AND_EDITS);
  printf("| a copy of 4 bytes, and the wait for it | %.1f | | | | |\n\n", 1e6 * repeat(run_nothing, b));
  fflush(stdout);
}

/* ---- dictionaries ----------------------------------------------------------------------------------------------------------- */

struct encoding {
  struct backend *backend;
  struct encode_args args;
  size_t kept;
};

static void run_encode(void *data) {
  struct encoding *e = data;
  struct error error = ERROR_INIT;
  struct sparse codes;
  sparse_init(&codes);
  check(e->backend->ops->encode(e->backend, &e->args, &codes, &error), &error);
  e->kept = codes.start[codes.n_rows];
  sparse_clear(&codes);
}

static void report_encoding(struct encoding *e) {
  double d_in = (double)e->args.w->n_in, n_feat = (double)e->args.w->n_out, rows = (double)e->args.n_rows;
  double time = repeat(run_encode, e), floor = fmax(2 * d_in * n_feat / bandwidth, 2 * d_in * n_feat * rows / rate);
  const char *how = e->args.kind == ENCODE_TOPK ? "top 64" : "relu";
  char name[48], what[48];
  snprintf(name, sizeof name, "dictionary %.0f x %.0f", d_in, n_feat);
  snprintf(what, sizeof what, "encode %.0f row(s), %s", rows, how);
  if (tracing) return; /* the table of kernels says it */
  printf("| %s | %s | %.3f ms | | | %.3f ms | %.0f %% | %.1f kept a row |\n", name, what, 1e3 * time, 1e3 * floor, 100 * floor / time,
         (double)e->kept / rows);
  fflush(stdout);
  figure(name, what, "s", time);
  figure(name, what, "floor", floor);
}

static void report_dictionary(const char *name, int64_t d_in, int64_t n_feat) {
  static const int64_t rows[] = {1, 128};
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, 1, &error);
  struct matrix *w = NULL;
  struct matrix_part part = {.data = numbers, .dtype = DTYPE_BF16, .n_out = n_feat, .ld = d_in};
  check(!backend || backend->ops->matrix_new(backend, &part, 1, d_in, &w, &error), &error);
  struct span x = put_values(backend, (size_t)(128 * d_in), noise_value, 5);
  struct span bias = put_values(backend, (size_t)n_feat, same_value, usual_bias(d_in));
  for (int k = 0; k < 4; k++) {
    struct encoding e = {backend, {.kind = k % 2 ? ENCODE_TOPK : ENCODE_RELU, .w = w, .x = {x, d_in}, .n_rows = rows[k / 2], .k = 64,
                                   .bias = bias}, 0};
    report_encoding(&e);
  }
  backend->ops->matrix_free(backend, w);
  backend->ops->free(backend, x.memory);
  backend->ops->free(backend, bias.memory);
  backend_close(backend);
}

/* ---- draws ---- */

struct drawing {
  struct backend *backend;
  struct rows logits;
  struct sample_draw draws[64];
  int32_t n;
};

static void run_draws(void *data) {
  static struct sample_result results[64];
  struct drawing *d = data;
  struct error error = ERROR_INIT;
  check(d->backend->ops->sample(d->backend, d->logits, d->logits.ld, d->draws, d->n, results, &error) != 0 ||
            backend_wait(d->backend, &error) != 0, &error);
}

static double time_draws(struct drawing *d, int32_t n, struct sample_draw like) {
  d->n = n;
  for (int32_t i = 0; i < n; i++) d->draws[i] = like, d->draws[i].row = i, d->draws[i].unit = (i + 0.5) / n;
  return repeat(run_draws, d);
}

/* Of twelve numbers: nearly normal. */
static float logit_value(size_t i, double deviation) {
  float sum = -6;
  for (uint64_t k = 0; k < 12; k++) sum += (float)random_unit(9, k, i);
  return (float)deviation * sum;
}

/* Alone, with the launches and the wait that a step hides or shares. Logits as models have them, roughly: a deviation of 3. */
static void report_draws(const char *name, int32_t words) {
  static const struct sample_draw kinds[] = {{.top_p = 1, .n_likely = -1},
                                             {.temperature = 1, .top_p = 1, .n_likely = -1},
                                             {.temperature = 1, .top_p = 0.9, .n_likely = -1},
                                             {.top_p = 1, .n_likely = 20}};
  static const char *const names[] = {"greedy", "temperature 1", "top_p 0.9", "greedy, 20 log-probabilities"};
  static struct drawing d;
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open(name, 1, &error);
  check(!backend, &error);
  struct span at = backend->ops->sample ? put_values(backend, (size_t)64 * (size_t)words, logit_value, 3) : (struct span){0};
  d.backend = backend;
  d.logits = (struct rows){at, words};
  for (size_t k = 0; backend->ops->sample && k < sizeof kinds / sizeof *kinds; k++) {
    double one = time_draws(&d, 1, kinds[k]), many = time_draws(&d, 64, kinds[k]);
    if (tracing) continue;
    printf("| draws from %d logits | %s | 1 row %.1f us | 64 rows %.1f us | | | | |\n", words, names[k], 1e6 * one, 1e6 * many);
    fflush(stdout);
  }
  backend->ops->free(backend, at.memory);
  backend_close(backend);
}

/* ---- limits ------------------------------------------------------------------------------------------------------------------ */

struct limit {
  struct backend *backend;
  struct span from, to;
  size_t bytes;
  struct op op;
  struct step step;
};

static void run_copy(void *data) {
  struct limit *l = data;
  struct error error = ERROR_INIT;
  check(l->backend->ops->copy(l->backend, l->to, l->from, l->bytes, &error) != 0 || backend_wait(l->backend, &error) != 0, &error);
}

static void run_product(void *data) {
  struct limit *l = data;
  struct error error = ERROR_INIT;
  check(l->backend->ops->run(l->backend, &l->op, 1, &l->step, &error) != 0 || backend_wait(l->backend, &error) != 0, &error);
}

static void measure_limits(const char *name, double read, bool tiny) {
  struct error error = ERROR_INIT;
  int64_t n = tiny ? 64 : 8192;
  struct limit l = {.backend = backend_open(name, 1, &error), .bytes = tiny ? (size_t)1 << 20 : (size_t)2 << 30};
  check(!l.backend, &error);
  l.from.memory = take(l.backend, l.bytes);
  l.to.memory = take(l.backend, l.bytes);
  fill(l.backend, l.from.memory, l.bytes, numbers, n_numbers); /* zeros would be multiplied faster */
  double copied = 2.0 * (double)l.bytes / repeat(run_copy, &l);
  struct matrix *w = NULL;
  struct matrix_part part = {.data = numbers, .dtype = DTYPE_BF16, .n_out = n, .ld = n};
  check(l.backend->ops->matrix_new(l.backend, &part, 1, n, &w, &error), &error);
  l.op = (struct op){.code = OP_LINEAR, .set = ROWS_LOGIT};
  l.op.u.linear.w = w;
  l.op.u.linear.x = (struct rows){l.from, n};
  l.op.u.linear.y = (struct rows){l.to, n};
  l.step = (struct step){.n_layer = 1, .n_rows = (int32_t)n, .n_logit_rows = (int32_t)n};
  rate = 2.0 * (double)(n * n) * (double)n / repeat(run_product, &l);
  bandwidth = fmax(copied, read);
  printf("limits on %s: %.0f GB/s copied (read and written)", l.backend->ops->name, copied * 1e-9);
  if (read > 0) printf(", %.0f GB/s read; floors are those of the higher", read * 1e-9);
  printf("; %.1f TFLOP/s in a product of %lld cubed (bf16, with rounding its input and writing f32)\n\n", rate * 1e-12, (long long)n);
  fflush(stdout);
  figure("device", "limits", "copied", copied);
  figure("device", "limits", "operations", rate);
  l.backend->ops->matrix_free(l.backend, w);
  l.backend->ops->free(l.backend, l.from.memory);
  l.backend->ops->free(l.backend, l.to.memory);
  backend_close(l.backend);
}

/* ---- which part ---------------------------------------------------------------------------------------------------------------- */

/* Steps enough for a median of each kernel; rows tell the kinds of steps apart in the table that the backend prints. */
static void trace(struct bench *b, bool tiny) {
  static const int counts[] = {1, 8, 64, MOST_STREAMS};
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    for (int turn = 0; turn < (tiny ? 2 : 6); turn++) bench_decode(b, counts[i], START, turn % 2 ? TAPS_AND_EDITS : NOTHING);
  bench_prompt(b, b->shape->prompt);
}

/* What something is worth that a device's name switches off: +serial, that kernels begin before their turn; +apart, that rows
 * and the product behind them are one launch; +library, that small matrices have a kernel of ours for 33 rows and more. */
static void report_without(struct bench *b, const char *name, const char *mode, int streams, const struct shape *shape) {
  char other[64];
  snprintf(other, sizeof other, "%s%s", name, mode);
  bench_open(b, other, shape, numbers, n_numbers, effort->tokens);
  struct comparison c = compare(b, streams, NOTHING, TAPS_AND_EDITS);
  puts(report_head);
  printf("| %s | decode, %d stream%s, %s | ", shape->name, streams, streams > 1 ? "s" : "", mode);
  print_comparison(&c);
  puts(" | | | |");
  if (streams == 1) report_time(b);
  bench_close(b);
}

/* What tables of kernels stand below. */
static void say_part(const char *what) {
  printf("\n## %s, kernel by kernel\n\n", what);
  fflush(stdout);
}

static void run_model(const char *name, const struct shape *shape, bool tiny) {
  static struct bench b;
  if (tracing) say_part(shape->name);
  bench_open(&b, name, shape, numbers, n_numbers, effort->tokens);
  if (tracing) trace(&b, tiny);
  else report_decode(&b), report_prompts(&b), report_time(&b);
  bench_close(&b);
  static const struct {
    const char *mode;
    int streams;
  } without[] = {{"+serial", 1}, {"+apart", 1}, {"+library", 64}};
  for (size_t i = 0; i < sizeof without / sizeof *without; i++)
    if (!tracing && shape->gpt2 && !strncmp(name, "cuda", 4) && !strchr(name, '+'))
      report_without(&b, name, without[i].mode, without[i].streams, shape);
}

static void run_dictionaries(const char *name, bool tiny) {
  if (tracing) say_part("Dictionaries");
  if (tiny) report_dictionary(name, 32, 256);
  else report_dictionary(name, 2304, 16384), report_dictionary(name, 4096, 131072);
}

static void run_draw_part(const char *name, bool tiny) {
  if (tracing) say_part("Draws");
  report_draws(name, tiny ? 500 : 50257);
  report_draws(name, tiny ? 9000 : 256000);
}

int main(int argc, char **argv) {
  static const char *const parts[] = {"gpt2", "gemma", "llama", "dictionaries", "draws", "limits", "answers"};
  const char *name = "cuda:0", *part = NULL;
  bool tiny = false;
  double read = 0;
  for (int i = 1; i < argc; i++) {
    if (!strcmp(argv[i], "--tiny")) tiny = true;
    else if (!strcmp(argv[i], "--trace")) tracing = true;
    else if (!strcmp(argv[i], "--backend") && i + 1 < argc) name = argv[++i];
    else if (!strcmp(argv[i], "--part") && i + 1 < argc) part = argv[++i];
    else if (!strcmp(argv[i], "--read") && i + 1 < argc) read = atof(argv[++i]);
    else if (!strcmp(argv[i], "--figures") && i + 1 < argc) figures = fopen(argv[++i], "a");
    else return fprintf(stderr, "usage: bench_gpu [--backend NAME] [--part NAME] [--figures FILE] [--read BYTES/S] [--trace] [--tiny]\n"), 2;
  }
  bool known = !part;
  for (size_t i = 0; part && i < sizeof parts / sizeof *parts; i++) known |= !strcmp(part, parts[i]);
  if (!known) return fprintf(stderr, "bench_gpu: no part '%s'\n", part), 2;
  if (tiny || tracing) effort = &tiny_effort;
  n_numbers = tiny ? (size_t)1 << 18 : (size_t)256000 * 2304;
  uint16_t *made = make_numbers(n_numbers, 0.02f);
  numbers = made;
  if (part && !strcmp(part, "answers")) return bench_answers(name, tiny ? tiny_shapes : real_shapes, 3, numbers, n_numbers, tiny) ? 1 : 0;
  measure_limits(name, read, tiny);
  if (tracing) setenv("STEERD_CUDA_WATCH", "times", 1);
  bool all = !part;
  if (!tracing && (all || strcmp(part, "limits"))) puts(report_head);
  for (int i = 0; i < 3; i++)
    if (all || !strcmp(part, parts[i])) run_model(name, tiny ? &tiny_shapes[i] : &real_shapes[i], tiny);
  if (all || !strcmp(part, parts[3])) run_dictionaries(name, tiny);
  if (all || !strcmp(part, parts[4])) run_draw_part(name, tiny);
  free(made);
  if (figures) fclose(figures);
  return 0;
}
