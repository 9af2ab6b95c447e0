/* Dictionaries inside a step: as one op of a backend that splices, beside encodes of the obvious path and sums in double; and as edits
 * of running texts, where the obvious path takes the step apart. */
#include <limits.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/laboratory.h"
#include "tests/unit/lab_waiter.h"
#include "tests/unit/ops_world.h"

/* ---- one op ------------------------------------------------------------------------------------------------------------ */

/* More features and changes of a row than a block looks at in one go. */
enum { FEATURES = 903, IN = 37, OUT = 53, LD_X = 44, LD_Y = 60, ROWS = 48, MOST_CHANGES = 4, MANY_CHANGES = 300 };

struct case_ {
  struct encode_args encode; /* what is no pointer of it */
  enum dtype dtype;
  bool own;       /* written to the rows that are read: as wide, framed */
  bool skip;      /* with a linear path beside the features */
  bool mean;      /* the mean of what is written to stays */
  int rows;       /* of the group */
  const char *name;
};

/* Rows of the group: every third of the buffer and back, with and without their errors, changed in different ways. */
static struct splice_row row_of(const struct case_ *c, int i, struct edit_feature *changes) {
  int row = i * 5 % ROWS, n = i % 7 == 6 ? MANY_CHANGES : i % (MOST_CHANGES + 1);
  static const int features[] = {3, 17, 17, FEATURES - 1};
  for (int k = 0; k < n; k++)
    changes[k] = (struct edit_feature){n > MOST_CHANGES ? 3 * k : features[k], (i + k) % 3 ? FEATURE_SET : FEATURE_SCALE, 0.5f * (float)((i + k) % 4)};
  return (struct splice_row){.x = row, .y = c->own ? row : ROWS - 1 - row, .with_error = i % 2 == 0, .n_changes = n, .changes = changes};
}

/* What is needed of both sides. */
struct sides {
  struct file enc, dec, skip;
  float x[ROWS * LD_X], y[ROWS * LD_Y], vectors[5][FEATURES], factor[FEATURES], bias[OUT], subtract[IN];
};

static void make_sides(const struct case_ *c, struct sides *s) {
  int out = c->own ? IN : OUT;
  s->enc = file_new(c->dtype, ROWS_ARE_INPUTS, FEATURES, IN, 60, 0.5f);
  s->dec = file_new(c->dtype, ROWS_ARE_OUTPUTS, FEATURES, out, 61, 1);
  s->skip = file_new(c->dtype, ROWS_ARE_INPUTS, out, IN, 74, 0.5f);
  fill(s->x, ROWS * LD_X, 62, 1);
  fill(s->y, ROWS * LD_Y, 63, 1);
  for (int v = 0; v < 5; v++) fill(s->vectors[v], FEATURES, 64 + (uint64_t)v, 0.4f);
  for (int f = 0; f < FEATURES; f++) s->vectors[2][f] = 1.5f + noise(70, (uint64_t)f); /* fold */
  fill(s->factor, FEATURES, 71, 1);
  fill(s->bias, OUT, 72, 1);
  fill(s->subtract, IN, 73, 0.2f);
}

struct spans {
  struct span x, y, bias, threshold, fold, gain, shift, subtract, factor, out_bias;
};

static struct spans put_sides(struct backend *b, struct sides *s) {
  return (struct spans){must_put(b, s->x, ROWS * LD_X), must_put(b, s->y, ROWS * LD_Y), must_put(b, s->vectors[0], FEATURES),
                        must_put(b, s->vectors[1], FEATURES), must_put(b, s->vectors[2], FEATURES),
                        must_put(b, s->vectors[3], FEATURES), must_put(b, s->vectors[4], FEATURES), must_put(b, s->subtract, IN),
                        must_put(b, s->factor, FEATURES), must_put(b, s->bias, OUT)};
}

static struct encode_args args_of(const struct case_ *c, const struct spans *at, const struct matrix *w) {
  struct encode_args args = c->encode;
  args.w = w;
  args.x = (struct rows){at->x, LD_X};
  args.bias = at->bias;
  args.threshold = at->threshold;
  args.fold = at->fold;
  args.gain = at->gain;
  args.shift = at->shift;
  args.subtract = at->subtract;
  return args;
}

static void drop_spans(struct backend *backend, const struct spans *at) {
  const struct span all[] = {at->x, at->y, at->bias, at->threshold, at->fold, at->gain, at->shift, at->subtract, at->factor, at->out_bias};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) drop(backend, all[i]);
}

/* A feature's activation after the changes. */
static double after(const struct splice_row *row, int32_t feature, double value) {
  for (int k = 0; k < row->n_changes; k++)
    if (row->changes[k].index == feature)
      value = row->changes[k].change == FEATURE_SET ? row->changes[k].value : row->changes[k].value * value;
  return value;
}

/* What a reconstruction is brought back with. */
static void frame_of(const struct case_ *c, const float *x, const double *y, double *back, double *mean) {
  double sum = 0, square = 0;
  *back = 1;
  *mean = 0;
  for (int i = 0; c->mean && i < OUT; i++) *mean += y[i] / OUT;
  if (!c->own) return;
  for (int i = 0; i < IN; i++) sum += x[i];
  if (c->encode.center_mean || c->encode.norm == ENCODE_NORM_STANDARD) *mean = sum / IN;
  for (int i = 0; i < IN; i++) square += (x[i] - *mean) * (x[i] - *mean);
  if (c->encode.norm == ENCODE_NORM_STANDARD) *back = sqrt(square / (IN - 1));
  if (c->encode.norm == ENCODE_NORM_LENGTH) *back = sqrt(square / IN);
}

/* Row y of the result, from the codes of the obvious path. */
static void expect_row(const struct case_ *c, const struct sides *s, const struct splice_row *row, const struct sparse *codes, size_t at,
                       double *y, int width) {
  double back, mean, sum[OUT] = {0};
  bool any = false;
  const float *x = s->x + row->x * LD_X;
  frame_of(c, x, y, &back, &mean);
  for (int32_t f = 0; f < FEATURES; f++) {
    double old = sparse_find(codes, at, f), value = after(row, f, old) - (row->with_error ? old : 0);
    any |= value != 0;
    for (int i = 0; value != 0 && i < width; i++)
      sum[i] += value * s->factor[f] * dtype_f32_at(s->dec.part.data, c->dtype, (size_t)(f * s->dec.part.ld + i));
  }
  for (int i = 0; i < width; i++) {
    if (!row->with_error) y[i] = (s->bias[i] + sum[i]) * back + mean;
    for (int k = 0; c->skip && !row->with_error && k < IN; k++) /* element (i, k) of W is (k, i) of the file */
      y[i] += (double)x[k] * dtype_f32_at(s->skip.part.data, c->dtype, (size_t)(k * s->skip.part.ld + i));
    if (row->with_error && any) y[i] += sum[i] * back;
  }
}

static void encode_all(const struct case_ *c, struct sides *s, struct sparse *codes) {
  struct backend *backend = must_open("ref", 1);
  struct spans at = put_sides(backend, s);
  struct matrix *w = must_matrix(backend, &s->enc.part, 1, IN);
  struct encode_args args = args_of(c, &at, w);
  args.n_rows = ROWS;
  sparse_init(codes);
  assert_int_equal(backend->ops->encode(backend, &args, codes, NULL), 0);
  backend->ops->matrix_free(backend, w);
  drop_spans(backend, &at);
  backend_close(backend);
}

/* What is read may be put aside before: `held` rows, read from there. */
static void run_splice(struct backend *backend, const struct case_ *c, struct sides *s, struct splice_row *rows, bool held, float *to) {
  struct spans at = put_sides(backend, s);
  struct matrix *w = must_matrix(backend, &s->enc.part, 1, IN), *decoder = must_matrix(backend, &s->dec.part, 1, c->own ? IN : OUT);
  struct matrix *skip = c->skip ? must_matrix(backend, &s->skip.part, 1, IN) : NULL;
  struct splice what = {.encode = args_of(c, &at, w), .decoder = decoder, .skip = skip, .factor = at.factor, .bias = at.out_bias,
                        .d_out = c->own ? IN : OUT, .framed = c->own, .keeps_mean = c->mean};
  struct rows x = {at.x, LD_X}, aside = {must_alloc(backend, ROWS * LD_X), LD_X}, y = {c->own ? at.x : at.y, c->own ? LD_X : LD_Y};
  struct splice_row twice[2 * ROWS];
  struct row_range groups[] = {{0, c->rows}, {c->rows, 2 * c->rows}};
  for (int i = 0; i < c->rows; i++) {
    twice[i] = twice[c->rows + i] = rows[i];
    if (held) twice[i].y = twice[c->rows + i].x = i;
  }
  struct op list[2] = {{.code = OP_HOLD, .set = ROWS_LOGIT, .width = IN}, {.code = OP_SPLICE, .set = ROWS_LOGIT, .width = IN}};
  list[0].u.splice.x = x;
  list[0].u.splice.y = aside;
  list[1].u.splice.x = held ? aside : x;
  list[1].u.splice.y = y;
  list[1].u.splice.what = &what;
  list[1].u.splice.group = 1;
  list[0].u.splice.rows = list[1].u.splice.rows = c->rows <= 8 ? 8 : ROWS;
  struct step step = {.n_layer = 1, .n_rows = ROWS, .n_logit_rows = ROWS, .n_splice_groups = 2, .splice_groups = groups,
                      .splices = twice};
  struct error error = ERROR_INIT;
  if (backend->ops->run(backend, held ? list : list + 1, held ? 2 : 1, &step, &error) != 0) fail_msg("%s", error.text);
  must_read(backend, to, y.at, (size_t)(ROWS * y.ld));
  backend->ops->matrix_free(backend, w);
  backend->ops->matrix_free(backend, decoder);
  backend->ops->matrix_free(backend, skip);
  drop(backend, aside.at);
  drop_spans(backend, &at);
}

static void check_splice(struct backend *backend, const struct case_ *c) {
  static struct sides s;
  static float got[ROWS * LD_Y], again[ROWS * LD_Y];
  static struct edit_feature changes[ROWS][MANY_CHANGES];
  struct splice_row rows[ROWS];
  struct sparse codes;
  int width = c->own ? IN : OUT, ld = c->own ? LD_X : LD_Y;
  make_sides(c, &s);
  encode_all(c, &s, &codes);
  for (int i = 0; i < c->rows; i++) rows[i] = row_of(c, i, changes[i]);
  run_splice(backend, c, &s, rows, false, got);
  run_splice(backend, c, &s, rows, true, again);
  assert_memory_equal(got, again, (size_t)(ROWS * ld) * sizeof *got);
  const float *was = c->own ? s.x : s.y;
  for (int row = 0; row < ROWS; row++) {
    const struct splice_row *about = NULL;
    for (int i = 0; i < c->rows; i++)
      if (rows[i].y == row) about = &rows[i];
    double want[LD_Y];
    for (int i = 0; i < ld; i++) want[i] = was[row * ld + i];
    if (about) expect_row(c, &s, about, &codes, (size_t)about->x, want, width);
    bool touched = about && !(about->with_error && !about->n_changes);
    for (int i = 0; i < ld; i++) {
      /* 900 activations of up to 6 * 2.5 by rows below 1, frames below 4: decision 18's relative 1e-4 of the largest terms */
      double bound = touched && i < width ? 1e-4 * 40 : 0;
      if (!(fabs(got[row * ld + i] - want[i]) <= bound))
        fail_msg("%s, %s, %d rows: row %d element %d: %.9g, not %.9g", c->name, dtype_name(c->dtype), c->rows, row, i, got[row * ld + i],
                 want[i]);
    }
  }
  sparse_clear(&codes);
  free(s.enc.block);
  free(s.dec.block);
  free(s.skip.block);
}

static void test_one_op(void **state) {
  (void)state;
  static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
  static const struct case_ cases[] = {
      {.encode = {.kind = ENCODE_RELU}, .name = "relu"},
      {.encode = {.kind = ENCODE_RELU, .center_mean = true}, .own = true, .name = "centred"},
      {.encode = {.kind = ENCODE_JUMPRELU, .norm = ENCODE_NORM_SCALE, .scale = 0.7f}, .own = true, .name = "scaled"},
      {.encode = {.kind = ENCODE_TOPK, .k = 9}, .name = "top 9"},
      {.encode = {.kind = ENCODE_TOPK, .k = 1200, .fold_selects = true}, .own = true, .name = "top 1200"},
      {.encode = {.kind = ENCODE_GATED, .norm = ENCODE_NORM_LENGTH}, .own = true, .name = "gated, length"},
      {.encode = {.kind = ENCODE_GROUPMAX, .k = 43}, .name = "groups"},
      {.encode = {.kind = ENCODE_RELU, .norm = ENCODE_NORM_STANDARD}, .own = true, .name = "standard"},
      {.encode = {.kind = ENCODE_RELU, .norm = ENCODE_NORM_STANDARD}, .name = "standard transcoder"},
      {.encode = {.kind = ENCODE_JUMPRELU}, .skip = true, .name = "skip"},
      {.encode = {.kind = ENCODE_RELU, .center_mean = true}, .mean = true, .name = "centred transcoder"},
      {.encode = {.kind = ENCODE_TOPK, .k = 9, .center_mean = true, .norm = ENCODE_NORM_LENGTH}, .skip = true, .mean = true,
       .name = "centred skip transcoder"},
  };
  struct backend *backend = must_open("cpu", 1);
  if (!backend->ops->splices) printf("skip: splices as ops (backend %s takes steps apart)\n", backend->ops->name);
  for (size_t i = 0; backend->ops->splices && i < sizeof cases / sizeof *cases; i++)
    for (size_t d = 0; d < 3; d++) {
      struct case_ c = cases[i];
      c.dtype = dtypes[d];
      c.rows = 7;
      check_splice(backend, &c);
      c.rows = 45;
      if (d == 0) check_splice(backend, &c); /* of other types a library may round x */
    }
  backend_close(backend);
}

/* ---- edits of texts ------------------------------------------------------------------------------------------------------ */

#define TINY "tests/vectors/tiny-gpt2/"
#define POINTS "tests/vectors/dict-points/"
#define CROSS "tests/vectors/dict-clt/"
#define AFFINE CROSS "clt/width_1k_l0_small_affine"
static char centred[64]; /* an ini, of transcoders on centred rows */
static const struct lab_source_spec sources[] = {
    {"tiny", "0-mlp-topk", TINY "sources/0-mlp-topk"}, {"tiny", "1-res-relu", TINY "sources/1-res-relu"},
    {"tiny", "2-res-center", TINY "sources/2-res-center"}, {"tiny", "2-res-jump", TINY "sources/2-res-jump"},
    {"tiny", "1-tc", POINTS "1-tc"}, {"tiny", "2-skip", POINTS "2-skip"}, {"tiny", "2-z", POINTS "2-z"},
    {"tiny", "1-centred", centred}, {"tiny", "2-centred-skip", centred}, {"tiny", "2-back", centred},
    {"tiny", "0-jump", CROSS "jump"}, {"tiny", "1-jump", CROSS "jump"}, {"tiny", "2-jump", CROSS "jump"},
    {"tiny", "0-affine", AFFINE}, {"tiny", "1-affine", AFFINE}, {"tiny", "2-affine", AFFINE}};
static const struct lab_model_spec model = {"tiny", TINY "model"};
enum { TOKENS = 24 };

static int set_up(void **state) {
  (void)state;
  char here[PATH_MAX];
  snprintf(centred, sizeof centred, "/tmp/steerd-splice-XXXXXX.ini");
  int fd = mkstemps(centred, 4);
  FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
  if (!file || !realpath(POINTS, here)) return -1;
  fprintf(file, "[source 1-centred]\nweights = %s/1-tc/sae_weights.safetensors\nkind = topk\nk = 6\n"
                "point = blocks.1.ln2.hook_normalized\npoint_out = mlp_out.1\ncenter = yes\n", here);
  fprintf(file, "[source 2-centred-skip]\nweights = %s/2-skip/sae_weights.safetensors\nkind = relu\npoint = mlp_in.2\n"
                "point_out = mlp_out.2\ncenter = yes\nnormalize = length\nw_skip = W_skip transposed\n", here);
  fprintf(file, "[source 2-back]\nweights = %s/1-tc/sae_weights.safetensors\nkind = topk\nk = 6\n"
                "point = mlp_in.2\npoint_out = mlp_out.1\n", here);
  return fclose(file);
}

static int tear_down(void **state) {
  (void)state;
  return unlink(centred);
}

static struct lab *open_lab_of(const char *backend, size_t budget, int rows) {
  struct error error = ERROR_INIT;
  struct lab_options options = {.models = &model, .n_models = 1, .sources = sources, .n_sources = sizeof sources / sizeof *sources,
                                .backend = backend, .dict_budget = budget, .threads = 2, .max_queue = 64, .max_step_rows = rows, .max_sessions = 16,
                                .queue_timeout_ms = 60000, .generation_timeout_ms = 60000};
  struct lab *lab = lab_open(&options, &error);
  if (!lab) fail_msg("%s", error.text);
  return lab;
}

static struct lab *open_lab(const char *backend, size_t budget) { return open_lab_of(backend, budget, 64); }

static struct lab_job *start(struct lab *lab, const struct lab_edit *edits, size_t n_edits) {
  static int64_t tokens[TOKENS];
  static const char *const points[] = {"resid_post.1", "resid_post.2"};
  struct error error = ERROR_INIT;
  struct lab_job *job = NULL;
  for (int i = 0; i < TOKENS; i++) tokens[i] = i ? (i * 37 + 11) % 500 : 511;
  struct lab_input input = {.ids = tokens, .n_ids = TOKENS};
  struct lab_run_args args = {.model = lab_find_model(lab, NULL, NULL), .inputs = &input, .n_inputs = 1, .points = points,
                              .n_points = 2, .edits = edits, .n_edits = n_edits, .stop_at_layer = INT64_MIN, .loss = true};
  if (lab_run(lab, &args, waker, &job, &error) != 0) fail_msg("%s", error.text);
  return job;
}

static float *rows_of(struct lab_job *job, size_t *n) {
  struct error error = ERROR_INIT;
  if (wait_for(job) != LAB_JOB_DONE) {
    lab_job_error(job, &error);
    fail_msg("%s", error.text);
  }
  const struct lab_run_result *result = lab_run_result(job);
  *n = (size_t)result->bytes / sizeof(float);
  float *rows = malloc((size_t)result->bytes);
  assert_int_equal(lab_run_read(job, 0, rows, (size_t)result->bytes, &error), 0);
  lab_job_free(job);
  return rows;
}

#define SPLICE(id, error) {.op = LAB_EDIT_SPLICE, .source_id = id, .index = -1, .special = true, .include_error = error}
#define CLAMP(id, feature, to, error) \
  {.op = LAB_EDIT_CLAMP, .source_id = id, .index = feature, .value = to, .special = true, .include_error = error}
#define MEAN_OF_NOTHING(at) {.op = LAB_EDIT_ZERO, .point = at, .index = -1, .special = false}
#define MOST_EDITS 4

static const struct lab_edit lists[][MOST_EDITS] = {
    {SPLICE("1-res-relu", false)},
    {SPLICE("1-res-relu", true)},
    {SPLICE("2-res-center", false)},
    {SPLICE("2-res-jump", false), CLAMP("2-res-jump", 3, 2, false)},
    {CLAMP("0-mlp-topk", 7, 3, true), CLAMP("0-mlp-topk", 7, 3, false)},
    {CLAMP("0-mlp-topk", 9, 3, true)},
    {SPLICE("1-tc", false)},
    {CLAMP("1-tc", 5, 2, true)},
    {SPLICE("2-z", false)},
    {SPLICE("2-skip", false)},
    {SPLICE("1-res-relu", false), SPLICE("2-res-center", false), SPLICE("1-tc", false), SPLICE("2-z", false)},
    {MEAN_OF_NOTHING("resid_pre.1"), SPLICE("1-res-relu", false), MEAN_OF_NOTHING("resid_pre.1"), CLAMP("0-mlp-topk", 9, 3, true)},
    {MEAN_OF_NOTHING("z.2"), SPLICE("2-z", false)},
    {CLAMP("2-skip", 4, 3, false)},
    {SPLICE("1-centred", false)},
    {CLAMP("1-centred", 7, 3, true), CLAMP("1-centred", 8, 2, true), SPLICE("2-centred-skip", false)},
    {SPLICE("0-jump", false), SPLICE("1-jump", false), SPLICE("2-jump", false)},
    {SPLICE("1-affine", false), SPLICE("0-affine", false)},
    {CLAMP("0-jump", 5, 2, true), CLAMP("0-jump", 6, 1, true), MEAN_OF_NOTHING("resid_pre.1"), CLAMP("1-jump", 7, 3, true)},
    {CLAMP("0-jump", 5, 2, false), MEAN_OF_NOTHING("mlp_out.1"), SPLICE("1-jump", false)},
    {SPLICE("0-affine", false), SPLICE("1-affine", false), SPLICE("2-affine", false), CLAMP("0-mlp-topk", 9, 3, true)},
    {SPLICE("0-jump", false), SPLICE("1-jump", false), CLAMP("1-affine", 3, 2, true), CLAMP("1-tc", 5, 2, true)},
};
enum { LISTS = sizeof lists / sizeof *lists };

static size_t length_of(const struct lab_edit *list) {
  size_t n = 0;
  while (n < MOST_EDITS && (list[n].source_id || list[n].point)) n++;
  return n;
}

static void check_list(struct lab *fast, struct lab *plain, const struct lab_edit *edits, size_t n_edits, int k) {
  size_t n, m;
  float *got = rows_of(start(fast, edits, n_edits), &n), *want = rows_of(start(plain, edits, n_edits), &m);
  double most = 0;
  assert_int_equal(n, m);
  for (size_t i = 0; i < n; i++) most = fmax(most, fabs(want[i]));
  for (size_t i = 0; i < n; i++)
    if (!(fabs(got[i] - want[i]) <= 1e-4 * fmax(1, most))) /* docs/decisions.md 18 */
      fail_msg("list %d: element %zu: %.9g, not %.9g", k, i, got[i], want[i]);
  free(got);
  free(want);
}

static void test_the_obvious_path_agrees(void **state) {
  (void)state;
  struct lab *fast = open_lab("cpu", 0), *plain = open_lab("ref", 0);
  for (int k = 0; k < LISTS; k++) check_list(fast, plain, lists[k], length_of(lists[k]), k);
  lab_close(fast);
  lab_close(plain);
}

/* What it reads comes up behind what it would write. */
static void test_no_splice_in_front_of_what_is_read(void **state) {
  (void)state;
  struct lab *lab = open_lab("cpu", 0);
  const struct lab_edit edits[] = {SPLICE("2-back", false), CLAMP("2-back", 3, 2, true)};
  static const int64_t tokens[] = {511, 3, 4};
  struct lab_input input = {.ids = tokens, .n_ids = 3};
  for (int i = 0; i < 2; i++) {
    struct error error = ERROR_INIT;
    struct lab_job *job = NULL;
    struct lab_run_args args = {.model = lab_find_model(lab, NULL, NULL), .inputs = &input, .n_inputs = 1, .edits = &edits[i], .n_edits = 1,
                                .stop_at_layer = INT64_MIN, .loss = true};
    assert_int_equal(lab_run(lab, &args, waker, &job, &error), -1);
    assert_int_equal(error.code, ERROR_ARGUMENT);
    assert_non_null(strstr(error.text, "in front of the one that it reads"));
  }
  lab_close(lab);
}

/* A row that puts aside more than its part of the memory for it: the edits behind go through the host, between those before. */
static void test_more_than_may_wait_aside(void **state) {
  (void)state;
  enum { MANY = 24, STEP_ROWS = 16384 }; /* sources of 800 floats are loaded: room for twice as many of each row, and each edit takes 144 */
  struct lab *fast = open_lab_of("cpu", 0, STEP_ROWS), *plain = open_lab("ref", 0);
  struct lab_edit edits[MANY];
  for (int i = 0; i < MANY; i++) edits[i] = (struct lab_edit)CLAMP("0-jump", i, 1 + 0.25 * i, true);
  check_list(fast, plain, edits, MANY, -1);
  lab_close(fast);
  lab_close(plain);
}

/* Requests whose rows go through the same dictionaries together, each with its own changes. */
static void test_the_same_bits_in_any_company(void **state) {
  (void)state;
  struct lab *lab = open_lab("cpu", 0);
  float *alone[LISTS];
  size_t n[LISTS], m;
  for (int k = 0; k < LISTS; k++) alone[k] = rows_of(start(lab, lists[k], length_of(lists[k])), &n[k]);
  for (int turn = 0; turn < 2; turn++) {
    struct lab_job *jobs[LISTS];
    for (int k = 0; k < LISTS; k++) jobs[k] = start(lab, lists[k], length_of(lists[k]));
    for (int k = 0; k < LISTS; k++) {
      float *rows = rows_of(jobs[k], &m);
      assert_int_equal(m, n[k]);
      if (memcmp(rows, alone[k], m * sizeof *rows) != 0) fail_msg("list %d: other bits in company", k);
      free(rows);
    }
  }
  for (int k = 0; k < LISTS; k++) free(alone[k]);
  lab_close(lab);
}

/* Memory for some of the matrices that the lists need: they come and go between steps and in the middle of them, where what was
 * recorded with those that went must not be repeated. */
static void test_the_same_bits_in_little_memory(void **state) {
  (void)state;
  static const size_t budgets[] = {20 << 10, 40 << 10}; /* a matrix takes 12 or 18 KiB, and there are two of each */
  enum { BOTH_FIT = 1, TURNS = 4, FIRST = 9, LAST = 10 }; /* lists of a skip transcoder, and of four dictionaries */
  struct lab *lab = open_lab("cpu", 0);
  float *want[LISTS];
  size_t n[LISTS], m;
  for (int k = FIRST; k <= LAST; k++) want[k] = rows_of(start(lab, lists[k], length_of(lists[k])), &n[k]);
  lab_close(lab);
  for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
    lab = open_lab("cpu", budgets[b]);
    struct lab_stats stats;
    for (int turn = 0; turn < TURNS; turn++) /* often enough to be recorded and repeated */
      for (int k = FIRST; k <= LAST; k++) {
        float *rows = rows_of(start(lab, lists[k], length_of(lists[k])), &m);
        bool same = memcmp(rows, want[k], m * sizeof *rows) == 0;
        assert_int_equal(m, n[k]);
        double most = 0;
        for (size_t i = 0; i < m; i++) most = fmax(most, fabs(want[k][i]));
        for (size_t i = 0; !same && i < m; i++) assert_true(fabs(rows[i] - want[k][i]) <= 1e-4 * fmax(1, most)); /* decision 18 */
        /* a step is taken apart for a dictionary that is never whole: other sums */
        if (!same && b >= BOTH_FIT) fail_msg("list %d, turn %d: other bits in %zu bytes", k, turn, budgets[b]);
        free(rows);
      }
    lab_stats(lab, &stats);
    assert_true(stats.dict_encoders_dropped > 0);
    lab_close(lab);
  }
  for (int k = FIRST; k <= LAST; k++) free(want[k]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_op), cmocka_unit_test(test_the_obvious_path_agrees),
                                     cmocka_unit_test(test_no_splice_in_front_of_what_is_read),
                                     cmocka_unit_test(test_more_than_may_wait_aside),
                                     cmocka_unit_test(test_the_same_bits_in_any_company),
                                     cmocka_unit_test(test_the_same_bits_in_little_memory)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
