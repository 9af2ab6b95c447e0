/* The summation rule of the fast backends: the same bits for a row whoever stands beside it, however a prompt is
 * cut into steps, for any number of threads, and on AVX2 as on AVX-512. No tolerance anywhere. */
#include "tests/unit/ops_world.h"

/* How many threads are tried. A GPU has none (wrap.c put it in the processor's place): `there` are enough for all sizes of steps. */
static int most_threads(int there) {
  const char *instead = getenv("STEERD_TEST_BACKEND");
  if (!instead || strncmp(instead, "cuda", 4) != 0) return 3;
  printf("skip: other numbers of threads (%s has none)\n", instead);
  return there;
}

/* ---- products: 1, 2, 7, 33 and 250 rows at a time --------------------------------------------------------- */

enum { ROWS = 250, N_OUT = 150 };

struct product_case {
  enum dtype dtype;
  int n_in;
};

static void multiply(const char *name, int threads, const struct product_case *p, int at_a_time, float *y) {
  struct backend *backend = must_open(name, threads);
  struct file file = file_new(p->dtype, ROWS_ARE_INPUTS, N_OUT, p->n_in, 10, 1);
  struct matrix *w = must_matrix(backend, &file.part, 1, p->n_in);
  struct span x = put_noise(backend, (size_t)(ROWS * p->n_in), 11, 1), bias = put_noise(backend, N_OUT, 12, 1);
  struct span out = must_alloc(backend, ROWS * N_OUT);
  struct op op = {.code = OP_LINEAR, .set = ROWS_LOGIT};
  for (int row = 0; row < ROWS; row += at_a_time) {
    int n = row + at_a_time < ROWS ? at_a_time : ROWS - row;
    op.u.linear.w = w;
    op.u.linear.x = (struct rows){span_at(x, (size_t)(row * p->n_in) * 4), p->n_in};
    op.u.linear.y = (struct rows){span_at(out, (size_t)row * N_OUT * 4), N_OUT};
    op.u.linear.bias = bias;
    op.u.linear.act = ACT_GELU_TANH;
    struct step step = {.n_layer = 1, .n_rows = n, .n_logit_rows = n};
    assert_int_equal(backend->ops->run(backend, &op, 1, &step, NULL), 0);
  }
  must_read(backend, y, out, ROWS * N_OUT);
  drop(backend, x);
  drop(backend, bias);
  drop(backend, out);
  backend->ops->matrix_free(backend, w);
  backend_close(backend);
  free(file.block);
}

static void test_products(void **state) {
  (void)state;
  static const struct product_case cases[] = {{DTYPE_F32, 37}, {DTYPE_F32, 700}, {DTYPE_BF16, 300}, {DTYPE_F16, 257}};
  static const int chunks[] = {2, 7, 13, 33, ROWS};
  static float alone[ROWS * N_OUT], together[ROWS * N_OUT];
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++)
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
      multiply(names[i], 1, &cases[c], 1, alone);
      for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        multiply(names[i], 1 + (int)k % 3, &cases[c], chunks[k], together);
        same_bits(names[i], together, alone, ROWS * N_OUT);
      }
    }
}

/* ---- whole passes -------------------------------------------------------------------------------------------- */

#define PROMPT 140

/* Logits of a prompt that is computed `chunk` rows at a time, with another session's rows in front. */
static void prompt_logits(struct world *world, int chunk, int company, float *logits) {
  int n_layer = world->shape.n_layer, vocabulary = world->shape.vocabulary;
  for (int at = 0; at < PROMPT; at += chunk) {
    int n = at + chunk < PROMPT ? chunk : PROMPT - at;
    struct step_slot slots[2] = {{{0, company}, 3 * at / 4, 0, n_layer}, {{company, company + n}, at, 0, n_layer}};
    /* the company's cache is filled by itself, from position 0 on */
    slots[0].position = company ? at / chunk * company % 64 : 0;
    world_step(world, company ? slots : slots + 1, company ? 2 : 1);
    for (int row = 0; row < n; row++) world->token[company + row] = (at + row) * 5 % vocabulary;
    int slot = company ? 1 : 0;
    for (int k = 0; k < n_layer * KV_BLOCKS; k++) /* the prompt's blocks are the same ones alone or in company */
      world->kv_table[slot * n_layer * KV_BLOCKS + k] = k;
    if (company)
      for (int k = 0; k < n_layer * KV_BLOCKS; k++) world->kv_table[k] = 60 + k;
    world_run(world);
    must_read(world->backend, logits + at * vocabulary, span_at(world->logits, (size_t)(company * vocabulary) * 4),
              (size_t)(n * vocabulary));
  }
}

static void compare_chunks(const char *name, const struct shape *shape) {
  static const int chunks[] = {PROMPT, 64, 5, 1};
  static float first[PROMPT * 64], again[PROMPT * 64];
  size_t n = (size_t)(PROMPT * shape->vocabulary);
  int most = most_threads(1);
  for (int threads = 1; threads <= most; threads++)
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
      for (int company = 0; company <= 2; company += 2) {
        if (threads > 1 && chunks[i] == 1 && company) continue; /* long under the sanitizers, and nothing new */
        struct world *world = world_new(name, threads, shape);
        prompt_logits(world, chunks[i], company, again);
        if (threads == 1 && i == 0 && company == 0) memcpy(first, again, n * sizeof *first);
        char what[96];
        snprintf(what, sizeof what, "%s: %d threads, chunks of %d, %d rows beside", name, threads, chunks[i], company);
        same_bits(what, again, first, n);
        world_free(world);
      }
}

static void test_prompts(void **state) {
  (void)state;
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++) {
    compare_chunks(names[i], &small_shape);
    compare_chunks(names[i], &gated_shape);
  }
}

static void test_avx2_is_avx512(void **state) {
  (void)state;
  static float one[PROMPT * 64], other[PROMPT * 64];
  static const struct shape *const shapes[] = {&small_shape, &gated_shape};
  const char *names[4];
  int n = fast_backends(names);
  if (n < 3) {
    printf("skip: AVX2 against AVX-512 (this machine lacks one of them)\n");
    skip();
  }
  for (int i = 0; i < 2; i++) {
    struct world *a = world_new("cpu-avx2", 2, shapes[i]), *b = world_new("cpu-avx512", 1, shapes[i]);
    prompt_logits(a, 50, 0, one);
    prompt_logits(b, PROMPT, 0, other);
    same_bits("AVX2 and AVX-512", one, other, (size_t)(PROMPT * shapes[i]->vocabulary));
    world_free(a);
    world_free(b);
  }
}

/* Edits that touch nothing leave every bit; an edited session leaves its neighbour's bits. */
static void test_empty_edits_and_neighbours(void **state) {
  (void)state;
  const char *names[4];
  int n = fast_backends(names);
  for (int i = 0; i < n; i++) {
    float plain[12 * 61], tabled[12 * 61], edited[12 * 61];
    int32_t begin[3 * SITE_COUNT + 1] = {0};
    struct world *world = world_new(names[i], 2, &small_shape);
    struct step_slot slots[] = {{{0, 6}, 0, 0, 2}, {{6, 12}, 0, 0, 2}};
    world_step(world, slots, 2);
    world_run(world);
    must_read(world->backend, plain, world->logits, 12 * 61);
    world->step.edit_begin = world->step.tap_begin = begin;
    world_run(world);
    must_read(world->backend, tabled, world->logits, 12 * 61);
    same_bits("empty tables", tabled, plain, 12 * 61);
    struct edit_item item = {.kind = EDIT_ROW_ADD, .rows = {6, 12}, .column_end = 37, .value = 1, .v = world->vectors};
    world->step.edits = &item;
    for (int p = SITE_ATTN_OUT + 1; p <= 3 * SITE_COUNT; p++) begin[p] = 1;
    world->step.tap_begin = NULL;
    world_run(world);
    must_read(world->backend, edited, world->logits, 12 * 61);
    same_bits("neighbour of an edited session", edited, plain, 6 * 61);
    assert_true(memcmp(edited + 6 * 61, plain + 6 * 61, 61 * 4) != 0);
    world_free(world);
  }
}

/* Every hot point takes edits and taps: an edit of resid_post.0 is seen by the tap of resid_pre.1, and so on. */
static void test_points_are_where_they_should_be(void **state) {
  (void)state;
  static const struct {
    enum site edit_site, tap_site; /* of layer 0, and of the layer that follows when the tap stands before */
    int tap_layer;
  } pairs[] = {{SITE_RESID_PRE, SITE_RESID_PRE, 0},   {SITE_ATTN_Z, SITE_ATTN_OUT, 0},
               {SITE_ATTN_OUT, SITE_RESID_MID, 0},    {SITE_RESID_MID, SITE_MLP_POST, 0},
               {SITE_MLP_POST, SITE_MLP_OUT, 0},      {SITE_MLP_OUT, SITE_RESID_POST, 0},
               {SITE_RESID_POST, SITE_RESID_PRE, 1}};
  const char *names[4] = {"ref"};
  int n = 1 + fast_backends(names + 1);
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < sizeof pairs / sizeof *pairs; k++) {
      struct world *world = world_new(names[i], 2, &small_shape);
      struct span to = must_alloc(world->backend, 3 * 64);
      struct edit_item edit = {.kind = EDIT_ROW_SCALE, .rows = {1, 2}, .column_end = 36, .value = 0.5f};
      struct tap_item tap = {{0, 3}, to, 64};
      int32_t edit_begin[3 * SITE_COUNT + 1] = {0}, tap_begin[3 * SITE_COUNT + 1] = {0};
      int edit_at = (int)pairs[k].edit_site, tap_at = pairs[k].tap_layer * SITE_COUNT + (int)pairs[k].tap_site;
      for (int p = edit_at + 1; p <= 3 * SITE_COUNT; p++) edit_begin[p] = 1;
      for (int p = tap_at + 1; p <= 3 * SITE_COUNT; p++) tap_begin[p] = 1;
      float plain[3 * 64], edited[3 * 64];
      world_step(world, (struct step_slot[]){{{0, 3}, 0, 0, 2}}, 1);
      world->step.taps = &tap;
      world->step.tap_begin = tap_begin;
      world_run(world);
      must_read(world->backend, plain, to, 3 * 64);
      world->step.edits = &edit;
      world->step.edit_begin = edit_begin;
      world_run(world);
      must_read(world->backend, edited, to, 3 * 64);
      same_bits("rows before the edited one", edited, plain, 64);
      assert_true(memcmp(edited + 64, plain + 64, 36 * 4) != 0);
      drop(world->backend, to);
      world_free(world);
    }
}

/* ---- dictionaries ---------------------------------------------------------------------------------------------- */

static void encode_some(struct backend *backend, struct encode_args args, int at_a_time, struct sparse *out) {
  int64_t total = args.n_rows;
  struct span x = args.x.at;
  sparse_init(out);
  for (int64_t row = 0; row < total; row += at_a_time) {
    args.n_rows = row + at_a_time < total ? at_a_time : total - row;
    args.x.at = span_at(x, (size_t)(row * args.x.ld) * 4);
    assert_int_equal(backend->ops->encode(backend, &args, out, NULL), 0);
  }
}

static void test_codes(void **state) {
  (void)state;
  const char *names[4];
  int n = fast_backends(names), most = most_threads(2);
  for (int i = 0; i < n; i++)
    for (int kind = ENCODE_RELU; kind <= ENCODE_GROUPMAX; kind++) {
      struct file file = file_new(DTYPE_BF16, ROWS_ARE_INPUTS, 1000, 300, 30, 1);
      struct sparse first, again;
      for (int threads = 1; threads <= most; threads++) {
        struct backend *backend = must_open(names[i], threads);
        struct matrix *w = must_matrix(backend, &file.part, 1, 300);
        struct span x = put_noise(backend, 200 * 300, 31, 1), bias = put_noise(backend, 1000, 32, 1);
        struct encode_args args = {.kind = (enum encode_kind)kind, .w = w, .x = {x, 300}, .n_rows = 200, .center_mean = true,
                                   .subtract = bias, .bias = bias, .threshold = bias, .k = 20, .gain = bias, .shift = bias,
                                   .norm = kind % 2 ? ENCODE_NORM_STANDARD : ENCODE_NORM_NONE};
        if (threads == 1) encode_some(backend, args, 1, &first);
        for (int at_a_time = threads == 1 ? 200 : 1; at_a_time <= 200; at_a_time += 10 * threads + 2) {
          encode_some(backend, args, at_a_time, &again);
          size_t entries = first.start[200];
          assert_int_equal(again.start[200], entries);
          assert_memory_equal(again.index, first.index, entries * sizeof *first.index);
          same_bits(names[i], again.value, first.value, entries);
          sparse_clear(&again);
        }
        drop(backend, x);
        drop(backend, bias);
        backend->ops->matrix_free(backend, w);
        backend_close(backend);
      }
      sparse_clear(&first);
      free(file.block);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_products),
      cmocka_unit_test(test_prompts),
      cmocka_unit_test(test_avx2_is_avx512),
      cmocka_unit_test(test_empty_edits_and_neighbours),
      cmocka_unit_test(test_points_are_where_they_should_be),
      cmocka_unit_test(test_codes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
