/* Instrumented plans: every point of the tiny models against TransformerLens (tests/vectors/points), edits at cold
 * points against its hooks, and the promise that looking changes nothing: the same bits with and without taps. */
#include "tests/unit/plan_bench.h"

#include "core/model/instrument.h"

#define POINTS "tests/vectors/points/"
#define FAMILIES "tests/vectors/families/"

static const char *backends[] = {"ref", "cpu-generic", "cpu-avx2", "cpu-avx512"};
#define N_BACKENDS (sizeof backends / sizeof backends[0])

static const struct {
  const char *vectors, *folder;
} models[] = {{POINTS "tiny-gpt2.safetensors", TINY "model"},
              {POINTS "llama.safetensors", FAMILIES "llama"},
              {POINTS "qwen3.safetensors", FAMILIES "qwen3"},
              {POINTS "gemma2.safetensors", FAMILIES "gemma2"},
              {POINTS "gpt_neox.safetensors", FAMILIES "gpt_neox"}};
#define N_MODELS (sizeof models / sizeof models[0])

/* The other families, for what holds without vectors: on the best instruction set, which the lists do not depend on. */
static const char *const others[] = {
    FAMILIES "gpt2-crfm", FAMILIES "gpt_neo", FAMILIES "gpt_neox-sequential", FAMILIES "gptj", FAMILIES "llama-scaled",
    FAMILIES "mistral", FAMILIES "qwen2", FAMILIES "gemma", FAMILIES "gemma3", FAMILIES "gemma3-multimodal", FAMILIES "phi",
    FAMILIES "phi3", FAMILIES "stablelm", FAMILIES "stablelm-parallel", FAMILIES "stablelm-heads", FAMILIES "opt", FAMILIES "opt-350m", FAMILIES "toy-attn-only",
    FAMILIES "toy-gelu", FAMILIES "toy-solu", FAMILIES "toy-solu-gains", FAMILIES "toy-shortformer"};

static void check_one(const char *backend, const char *folder, void (*check)(struct bench *)) {
  struct bench b;
  if (bench_open_with(&b, backend, folder, model_open_weights) != 0) return;
  check(&b);
  bench_close(&b);
}

static void check_every_family(void (*check)(struct bench *)) {
  for (size_t m = 0; m < N_MODELS; m++)
    for (size_t i = 0; i < N_BACKENDS; i++) check_one(backends[i], models[m].folder, check);
  for (size_t m = 0; m < sizeof others / sizeof *others; m++) check_one("cpu", others[m], check);
}

/* ---- values ---- */

/* A point of n rows as the vectors have it: scores and patterns as [heads, q, k], hidden scores as -1e30. */
static float *read_point(struct bench *b, struct point point, size_t n) {
  size_t width = (size_t)bench_width(b, point.site);
  float *rows = malloc(n * width * sizeof *rows);
  bench_point(b, point, (int32_t)n, rows);
  struct point_shape shape = point_shape(&b->model->arch, point.site);
  if (!shape.square) return rows;
  float *out = malloc((size_t)shape.heads * n * n * sizeof *out);
  for (size_t h = 0; h < (size_t)shape.heads; h++)
    for (size_t q = 0; q < n; q++)
      for (size_t k = 0; k < n; k++) out[(h * n + q) * n + k] = fmaxf(rows[q * width + h * BENCH_KEYS + k], -1e30f);
  free(rows);
  return out;
}

static bool is_edit(const char *name) { return strncmp(name, "edit", 4) == 0; }

static struct point must_find(const struct bench *b, const char *name) {
  struct error error = ERROR_INIT;
  struct point point;
  if (point_find(name, &b->model->arch, &point, &error) != 0) fail_msg("%s", error.text);
  return point;
}

static int compare_all(struct bench *b, const struct tensors *want, size_t n) {
  int compared = 0;
  for (size_t i = 0; i < tensors_count(want); i++) {
    const char *name = tensors_at(want, i)->name;
    if (strcmp(name, "ids") == 0 || is_edit(name)) continue;
    size_t count;
    float *recorded = vectors_f32(want, name, &count), *got = read_point(b, must_find(b, name), n);
    struct point point = must_find(b, name);
    struct point_shape shape = point_shape(&b->model->arch, point.site);
    assert_int_equal(count, n * (shape.square ? (size_t)shape.heads * n : (size_t)bench_width(b, point.site)));
    assert_true(vectors_agree(name, got, recorded, count));
    free(recorded);
    free(got);
    compared++;
  }
  return compared;
}

static void test_values(void **state) {
  (void)state;
  for (size_t m = 0; m < N_MODELS; m++)
    for (size_t i = 0; i < N_BACKENDS; i++) {
      struct bench b;
      if (bench_open_with(&b, backends[i], models[m].folder, model_open_weights) != 0) continue;
      struct tensors *want = vectors_open(models[m].vectors);
      size_t n;
      int32_t *ids = vectors_i32(want, "ids", &n);
      float *logits = malloc(n * (size_t)b.model->arch.vocabulary * sizeof *logits);
      bench_run(&b, ids, 0, (int32_t)n, logits);
      assert_true(compare_all(&b, want, n) >= 20 * b.model->arch.n_layer);
      free(logits);
      free(ids);
      tensors_close(want);
      bench_close(&b);
    }
}

/* Where positions are added to what queries and keys read, the point shows them all the same. */
static void test_positions_of_a_shortformer(void **state) {
  (void)state;
  for (size_t i = 0; i < N_BACKENDS; i++) {
    struct bench b;
    int32_t ids[6] = {1, 2, 3, 4, 5, 6};
    if (bench_open_with(&b, backends[i], FAMILIES "toy-shortformer", model_open_weights) != 0) continue;
    size_t n = 6 * (size_t)b.model->arch.d_model;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
    float *logits = malloc(6 * (size_t)b.model->arch.vocabulary * sizeof *logits);
    struct span table = b.model->weights.once.vector[SLOT_POSITIONS];
    assert_int_equal(b.backend->ops->read(b.backend, want, table, n * sizeof *want, NULL), 0);
    b.tapped = site_bit(SITE_POS_EMBED);
    bench_run(&b, ids, 0, 6, logits);
    bench_point(&b, (struct point){0, SITE_POS_EMBED}, 6, got);
    assert_memory_equal(got, want, n * sizeof *want);
    assert_int_equal(point_check_edit(&b.model->arch, (struct point){0, SITE_POS_EMBED}, EDIT_ROW_SCALE, 0, 1, 0, NULL), -1);
    free(want);
    free(got);
    free(logits);
    bench_close(&b);
  }
}

/* ---- edits ---- */

/* "edit3/1/0.5/5/30/blocks.1.ln1.hook_normalized": number, kind, value, columns; scores and patterns have a head and
 * keys instead. Rows 1 to 3 are edited. */
static void read_edit(const struct bench *b, const char *key, struct edit_item *item, struct point *point) {
  static const enum edit_kind kinds[] = {EDIT_ROW_ADD, EDIT_ROW_SCALE, EDIT_ROW_FILL};
  int number, kind, a, c, d = -1, used = 0;
  float value;
  if (sscanf(key, "edit%d/%d/%f/%d/%d/%n", &number, &kind, &value, &a, &c, &used) != 5 || !used)
    fail_msg("cannot read '%s'", key);
  if (key[used] >= '0' && key[used] <= '9') {
    assert_int_equal(sscanf(key + used, "%d/", &d), 1);
    used = (int)(strchr(key + used, '/') - key) + 1;
  }
  *point = must_find(b, key + used);
  *item = (struct edit_item){.kind = kinds[kind], .rows = {1, 4}, .column_begin = a, .column_end = c, .value = value};
  if (d >= 0) {
    item->column_begin = a * BENCH_KEYS + c;
    item->column_end = a * BENCH_KEYS + d;
  }
}

/* h += value * v with v of ones is the recorded "add". */
static struct span put_ones(struct bench *b) {
  struct span ones = {NULL, 0};
  float host[4096];
  for (size_t i = 0; i < 4096; i++) host[i] = 1;
  assert_int_equal(b->backend->ops->alloc(b->backend, sizeof host, &ones.memory, NULL), 0);
  assert_int_equal(b->backend->ops->write(b->backend, ones, host, sizeof host, NULL), 0);
  return ones;
}

static void check_edit(struct bench *b, const struct tensors *want, const char *key, const int32_t *ids, size_t n,
                       struct span ones) {
  struct edit_item item;
  size_t count, v = (size_t)b->model->arch.vocabulary;
  read_edit(b, key, &item, &b->edit_point);
  item.v = item.kind == EDIT_ROW_ADD ? ones : item.v;
  float *recorded = vectors_f32(want, key, &count), *logits = malloc(n * v * sizeof *logits), *got = logits;
  b->edit = &item;
  bench_run(b, ids, 0, (int32_t)n, logits);
  if (count != n * v)
    got = read_point(b, (struct point){b->model->arch.n_layer - 1, SITE_RESID_POST}, n);
  assert_true(vectors_agree(key, got, recorded, count));
  if (got != logits) free(got);
  free(logits);
  free(recorded);
  b->edit = NULL;
}

static void test_edits(void **state) {
  (void)state;
  for (size_t m = 0; m < N_MODELS; m++)
    for (size_t i = 0; i < N_BACKENDS; i++) {
      struct bench b;
      if (bench_open_with(&b, backends[i], models[m].folder, model_open_weights) != 0) continue;
      struct tensors *want = vectors_open(models[m].vectors);
      size_t n;
      int32_t *ids = vectors_i32(want, "ids", &n);
      struct span ones = put_ones(&b);
      b.tapped = site_bit(SITE_RESID_POST);
      for (size_t t = 0; t < tensors_count(want); t++)
        if (is_edit(tensors_at(want, t)->name)) check_edit(&b, want, tensors_at(want, t)->name, ids, n, ones);
      b.backend->ops->free(b.backend, ones.memory);
      free(ids);
      tensors_close(want);
      bench_close(&b);
    }
}

/* ---- looking changes nothing ---- */

#define SOME 70 /* rows at most: across a block of keys where the context is that long */

static int32_t some(const struct bench *b) {
  return b->model->arch.n_ctx < SOME ? (int32_t)b->model->arch.n_ctx : SOME;
}

static void make_ids(const struct bench *b, int32_t *ids) {
  for (int i = 0; i < SOME; i++) ids[i] = (i * 37 + 11) % (int32_t)b->model->arch.vocabulary;
}

/* Prefill in two chunks, then decode: logits of all rows. */
static void run_some(struct bench *b, const int32_t *ids, float *logits) {
  size_t v = (size_t)b->model->arch.vocabulary;
  int32_t n = some(b), first = n - 9;
  bench_run(b, ids, 0, first, logits);
  bench_run(b, ids, first, 2, logits + (size_t)first * v);
  for (int32_t i = first + 2; i < n; i++) bench_run(b, ids, i, 1, logits + (size_t)i * v);
}

/* Hot points as the hot plan gives them, in all layers. */
static void read_hot(struct bench *b, float *out) {
  for (int p = 0; p < point_count(b->model->arch.n_layer); p++) {
    struct point point = {p / SITE_COUNT, (enum site)(p % SITE_COUNT)};
    if (!site_is_hot(point.site) || point.layer == b->model->arch.n_layer) continue;
    bench_point(b, point, some(b), out);
    out += some(b) * bench_width(b, point.site);
  }
}

static size_t hot_floats(const struct bench *b) {
  size_t n = 0;
  for (int site = 0; site < SITE_COUNT; site++)
    if (site_is_hot((enum site)site)) n += (size_t)bench_width(b, (enum site)site);
  return n * (size_t)some(b) * (size_t)b->model->arch.n_layer;
}

static void check_bits(struct bench *b) {
  int32_t ids[SOME];
  size_t n = (size_t)some(b) * (size_t)b->model->arch.vocabulary, hot = hot_floats(b);
  float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got);
  float *hot_want = malloc(hot * sizeof *want), *hot_got = malloc(hot * sizeof *got);
  make_ids(b, ids);
  b->tapped = SITES_HOT;
  run_some(b, ids, want);
  read_hot(b, hot_want);
  b->tapped = ~(site_set)0;
  run_some(b, ids, got);
  read_hot(b, hot_got);
  assert_memory_equal(got, want, n * sizeof *want);
  assert_memory_equal(hot_got, hot_want, hot * sizeof *want);
  for (int site = 0; site < SITE_COUNT; site++) {
    b->tapped = site_bit((enum site)site);
    run_some(b, ids, got);
    if (memcmp(got, want, n * sizeof *want) != 0)
      fail_msg("%s on %s: a tap at %s changes bits", b->model->path, b->backend->ops->name, site_name((enum site)site));
  }
  free(want);
  free(got);
  free(hot_want);
  free(hot_got);
}

static void test_taps_change_no_bit(void **state) {
  (void)state;
  check_every_family(check_bits);
}

/* Edits that multiply by 1, at every site of layer 1 (and of the embedding and the head): the split path with an edit has
 * the bits of the fused one. Not so for scores and pattern, whose edited rows are computed in another way. */
static void check_idle_edits(struct bench *b) {
  int32_t ids[SOME];
  const struct arch *arch = &b->model->arch;
  size_t bytes = (size_t)some(b) * (size_t)arch->vocabulary * sizeof(float);
  float *want = malloc(bytes), *got = malloc(bytes);
  make_ids(b, ids);
  b->tapped = 0;
  run_some(b, ids, want);
  for (int s = 0; s < SITE_COUNT; s++) {
    enum site site = (enum site)s;
    int32_t layer = site <= SITE_POS_EMBED ? 0 : site >= SITE_FINAL_SCALE ? arch->n_layer : 1;
    struct edit_item item = {.kind = EDIT_ROW_SCALE, .rows = {0, SOME}, .column_end = (int32_t)bench_width(b, site), .value = 1};
    if (point_missing(arch, site) || site == SITE_SCORES || site == SITE_PATTERN) continue;
    if (point_check_edit(arch, (struct point){layer, site}, item.kind, 0, item.column_end, 0, NULL) != 0) continue;
    b->edit = &item;
    b->edit_point = (struct point){layer, site};
    run_some(b, ids, got);
    if (memcmp(got, want, bytes) != 0)
      fail_msg("%s on %s: an idle edit at %s changes bits", b->model->path, b->backend->ops->name, site_name(site));
  }
  free(want);
  free(got);
}

static void test_idle_edits_change_no_bit(void **state) {
  (void)state;
  check_every_family(check_idle_edits);
}

/* ---- lists ---- */

/* A segment without cold points is the hot list, op for op; one with a cold point has ops of that point and no other. */
static void test_lists_hold_no_more_than_is_asked(void **state) {
  (void)state;
  struct bench b;
  assert_int_equal(bench_open(&b, "ref", TINY "model"), 0);
  struct instrument instrument = {.arch = &b.model->arch};
  size_t count;
  const struct op *hot = plan_segment(b.plan, 1, &count);
  for (int s = 0; s < SITE_COUNT; s++) {
    enum site site = (enum site)s;
    struct op_list list = {0};
    assert_int_equal(instrument_segment(&instrument, hot, count, (struct site_sets){0, site_bit(site)}, &list, NULL), 0);
    if (site_is_hot(site)) {
      assert_int_equal(list.count, count);
      assert_memory_equal(list.ops, hot, count * sizeof *hot);
    }
    for (size_t i = 0; i < list.count; i++)
      if (list.ops[i].code == OP_POINT && list.ops[i].u.point.site != site)
        assert_true(site_is_hot(list.ops[i].u.point.site)); /* a part of a fused op that was split */
    free(list.ops);
  }
  bench_close(&b);
}

/* The first 4-byte word of a layer's first block of keys: written or not. */
static bool has_keys(struct bench *b, int32_t layer) {
  size_t bytes = b->backend->ops->kv_block_bytes(b->backend, b->model->arch.n_kv_head, b->model->arch.d_head,
                                                  model_kv_type(b->model));
  float key;
  assert_int_equal(b->backend->ops->read(b->backend, &key, (struct span){b->kv, (size_t)b->table[layer * 4] * bytes}, 4, NULL), 0);
  return key != 0;
}

/* A pass that stops at layer 2 with its last tap in front of attention computes no keys there; and what the tap shows is
 * what a whole pass shows. */
static void test_nothing_behind_the_last_point_runs(void **state) {
  (void)state;
  for (size_t i = 0; i < N_BACKENDS; i++) {
    struct bench b;
    int32_t ids[SOME];
    float early[8 * 48], whole[8 * 48];
    if (bench_open(&b, backends[i], TINY "model") != 0) continue;
    float *logits = malloc(8 * (size_t)b.model->arch.vocabulary * sizeof *logits);
    make_ids(&b, ids);
    b.tapped = site_bit(SITE_LN1_NORMALIZED);
    b.last = 2;
    bench_run(&b, ids, 0, 8, NULL);
    bench_point(&b, (struct point){1, SITE_LN1_NORMALIZED}, 8, early);
    assert_true(has_keys(&b, 0) && !has_keys(&b, 1) && !has_keys(&b, 2));
    b.tapped = site_bit(SITE_ATTN_Z);
    bench_run(&b, ids, 0, 8, NULL);
    assert_true(has_keys(&b, 1) && !has_keys(&b, 2));
    b.tapped = site_bit(SITE_LN1_NORMALIZED);
    b.last = 0;
    bench_run(&b, ids, 0, 8, logits);
    bench_point(&b, (struct point){1, SITE_LN1_NORMALIZED}, 8, whole);
    assert_true(has_keys(&b, 2));
    assert_memory_equal(early, whole, sizeof early);
    free(logits);
    bench_close(&b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_values), cmocka_unit_test(test_positions_of_a_shortformer),
                                     cmocka_unit_test(test_edits),
                                     cmocka_unit_test(test_taps_change_no_bit),
                                     cmocka_unit_test(test_idle_edits_change_no_bit),
                                     cmocka_unit_test(test_lists_hold_no_more_than_is_asked),
                                     cmocka_unit_test(test_nothing_behind_the_last_point_runs)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
