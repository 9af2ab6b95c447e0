/* Feature statistics against independent twins: villes over its whole corpus (NumPy) and each kind of dictionary over a
 * text of the tiny GPT-2 (PyTorch): counts, histograms, examples, windows, logits, neighbours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "core/analysis/statistics_run.h"
#include "core/analysis/tables.h"
#include "core/base/log.h"
#include "core/base/mapfile.h"
#include "tests/unit/statistics_vectors.h"

#define TINY "tests/vectors/tiny-gpt2/"
#define WINDOW_MOST 256

struct bench {
  struct backend *backend;
  struct model *model;
  struct dict *dict;
  struct corpus *corpus;
  struct statistics *statistics;
  struct feature_logits *logits;         /* [n_feat] */
  struct feature_neighbours *neighbours; /* [n_feat] */
};

static void check(int failed, const struct error *error) {
  if (failed) fail_msg("%s", error->text);
}

static void open_bench(struct bench *b, const char *model, const char *dict_path, const char *id) {
  struct error error = ERROR_INIT;
  memset(b, 0, sizeof *b);
  check(!(b->backend = backend_open("cpu", 2, &error)), &error);
  check(!(b->model = model_open("model", model, b->backend, &error)), &error);
  const struct arch *arch = &b->model->arch;
  struct dict_host host = {"tiny-gpt2", arch, NULL, NULL};
  check(!(b->dict = dict_open(dict_path, id, &host, b->backend, &error)), &error);
}

/* Before the engine owns the backend. */
static void make_tables(struct bench *b) {
  struct error error = ERROR_INIT;
  int64_t n = dict_info(b->dict)->n_feat, width = dict_info(b->dict)->d_out;
  struct plan_limits limits = {16, 16};
  struct plan *plan = plan_new(b->model, limits, &error);
  check(!plan, &error);
  b->logits = calloc((size_t)n, sizeof *b->logits);
  b->neighbours = calloc((size_t)n, sizeof *b->neighbours);
  struct decoder_table *table = decoder_table_new(b->dict, 0, dict_info(b->dict)->n_feat, b->backend, &error);
  check(!table, &error);
  float *query = malloc((size_t)width * sizeof *query);
  for (int64_t f = 0; f < n; f += 16) {
    uint32_t features[16];
    for (uint32_t i = 0; i < 16; i++) features[i] = (uint32_t)f + i;
    check(tables_logits(b->dict, plan, tokenizer_size(b->model->tokenizer), features, n - f < 16 ? (int)(n - f) : 16,
                        b->logits + f, &error), &error);
  }
  for (int64_t f = 0; f < n; f++) {
    dict_decoder_row(b->dict, f, query);
    check(decoder_table_nearest(table, query, &f, 1, TABLE_NEIGHBOURS, &b->neighbours[f], &error), &error);
  }
  free(query);
  decoder_table_free(table);
  plan_free(plan);
}

static int go_on(void *context, int64_t document) {
  (void)context;
  (void)document;
  return 0;
}

static void count(struct bench *b, const struct statistics_vectors *want, const char *corpus, bool lines,
                  int64_t context) {
  struct error error = ERROR_INIT;
  const struct model *model = b->model;
  const struct dict_info *info = dict_info(b->dict);
  struct corpus_options cut = {.lines = lines, .context = context, .bos = info->prepend_bos};
  check(!(b->corpus = corpus_open(corpus, model->tokenizer, &cut, &error)), &error);
  struct statistics_options options = {.n_feat = info->n_feat, .n_top = (int)want->n_top,
                                       .n_quantile = (int)want->n_quantile, .window = (int)want->window,
                                       .positions = info->positions};
  check(!(b->statistics = statistics_new(&options, &error)), &error);
  struct engine_options engine_options = {.max_queue = 4, .max_sessions = 32, .max_step_rows = 256};
  struct engine *engine = engine_new(b->backend, &model, 1, &engine_options, &error);
  check(!engine, &error);
  struct statistics_run run = {.engine = engine, .model = model, .dict = b->dict, .corpus = b->corpus,
                               .statistics = b->statistics, .max_sequences = 16, .max_rows = 256, .progress = go_on};
  check(statistics_run(&run, &error), &error);
  engine_free(engine);
  assert_int_equal(statistics_documents(b->statistics), want->n_documents);
  assert_int_equal(statistics_tokens(b->statistics), want->n_tokens);
}

static void close_bench(struct bench *b) {
  statistics_free(b->statistics);
  corpus_close(b->corpus);
  free(b->logits);
  free(b->neighbours);
  dict_close(b->dict);
  model_close(b->model);
  backend_close(b->backend);
}

/* ---- one feature in the judge's words ---- */

struct shown {
  struct figures figures;
  struct figures_example examples[400];
  struct figures_ranked top[TABLE_LOGITS], bottom[TABLE_LOGITS], neighbours[TABLE_NEIGHBOURS];
  int32_t tokens[WINDOW_MOST];
  float values[WINDOW_MOST];
};

static void show_examples(const struct statistics_feature *feature, struct shown *out) {
  for (int i = 0; i < feature->n_examples; i++) {
    const struct statistics_example *e = &feature->examples[i];
    out->examples[i] = (struct figures_example){e->interval, (double)e->bin_contains, e->document, e->position, e->value};
    out->figures.n_top += e->interval < 0;
  }
  out->figures.top = out->examples;
  out->figures.intervals = out->examples + out->figures.n_top;
  out->figures.n_intervals = (size_t)feature->n_examples - out->figures.n_top;
}

static void show_window(const struct bench *b, const struct statistics_feature *feature, struct shown *out) {
  if (!feature->n_examples) return;
  const struct statistics_example *e = &feature->examples[0];
  int32_t *ids = malloc(((size_t)corpus_length(b->corpus, e->document) + 1) * sizeof *ids);
  corpus_ids(b->corpus, e->document, ids);
  memset(out->values, 0, sizeof out->values);
  memcpy(out->tokens, ids + e->start, (size_t)e->length * sizeof *ids);
  for (int32_t i = 0; i < e->n_marks; i++) out->values[e->marks[i].offset] = e->marks[i].value;
  out->figures.window_start = e->start;
  out->figures.n_window = (size_t)e->length;
  out->figures.window_tokens = out->tokens;
  out->figures.window_values = out->values;
  free(ids);
}

static void show_tables(const struct bench *b, int64_t f, struct shown *out) {
  const struct feature_logits *l = &b->logits[f];
  const struct feature_neighbours *n = &b->neighbours[f];
  for (int i = 0; i < l->n; i++) {
    out->top[i] = (struct figures_ranked){l->top[i], l->top_value[i]};
    out->bottom[i] = (struct figures_ranked){l->bottom[i], l->bottom_value[i]};
  }
  for (int i = 0; i < n->n; i++) out->neighbours[i] = (struct figures_ranked){n->index[i], n->cosine[i]};
  out->figures.logits_top = out->top;
  out->figures.logits_bottom = out->bottom;
  out->figures.n_logits_top = out->figures.n_logits_bottom = (size_t)l->n;
  out->figures.logits_low = l->bottom_value[0];
  out->figures.logits_high = l->top_value[0];
  for (int i = 0; i < TABLE_LOGIT_BARS; i++) out->figures.logits_bars[i] = (uint64_t)l->bars[i];
  out->figures.neighbours = out->neighbours;
  out->figures.n_neighbours = (size_t)n->n;
}

static int compare_all(struct bench *b, const struct statistics_vectors *want) {
  int faults = 0;
  struct shown *shown = malloc(sizeof *shown);
  for (int64_t f = 0; f < want->n_features; f++) {
    struct statistics_feature feature;
    statistics_feature(b->statistics, f, &feature);
    memset(shown, 0, sizeof *shown);
    shown->figures.n_fired = feature.n_fired;
    shown->figures.mean = feature.mean;
    shown->figures.max = feature.max;
    shown->figures.range = feature.range;
    memcpy(shown->figures.bars, feature.bars, sizeof shown->figures.bars);
    show_examples(&feature, shown);
    show_window(b, &feature, shown);
    show_tables(b, f, shown);
    faults += statistics_vectors_compare(want, f, &shown->figures, FIGURES_ALL);
  }
  free(shown);
  return faults;
}

/* ---- tests ---- */

static void run_tiny(const char *id, bool lines) {
  char vectors[128], dict[128];
  snprintf(vectors, sizeof vectors, TINY "statistics-%s.safetensors", id);
  snprintf(dict, sizeof dict, TINY "sources/%s", id);
  struct statistics_vectors want = statistics_vectors_open(vectors, id);
  struct bench b;
  open_bench(&b, TINY "model", dict, id);
  make_tables(&b);
  count(&b, &want, TINY "corpus.txt", lines, 128);
  assert_int_equal(compare_all(&b, &want), 0);
  close_bench(&b);
  statistics_vectors_close(&want);
}

static void test_chunks(void **state) {
  (void)state;
  run_tiny("1-res-relu", false);
}

static void test_lines(void **state) {
  (void)state;
  run_tiny("0-mlp-topk", true);
  run_tiny("2-res-jump", true);
  run_tiny("2-res-center", true);
}

static void test_villes(void **state) {
  (void)state;
  const char *data = getenv("STEERD_DATA");
  char corpus[1024];
  snprintf(corpus, sizeof corpus, "%s/models/villes/villes.txt", data ? data : "../shared/data");
  if (!path_is_file(corpus)) {
    printf("skip: statistics of villes (set STEERD_DATA)\n");
    skip();
  }
  struct statistics_vectors want = statistics_vectors_open("tests/vectors/villes/statistics.safetensors", "villes");
  struct bench b;
  open_bench(&b, "config/models/villes.ini", "config/models/villes.ini", "0-res-ws");
  make_tables(&b);
  count(&b, &want, corpus, true, 46);
  assert_int_equal(compare_all(&b, &want), 0);
  close_bench(&b);
  statistics_vectors_close(&want);
}

/* ---- the state ---- */

static struct sparse random_codes(unsigned seed, int32_t length, int64_t n_feat) {
  struct sparse codes;
  struct error error = ERROR_INIT;
  sparse_init(&codes);
  srand(seed);
  for (int32_t p = 0; p < length; p++) {
    check(sparse_row(&codes, (size_t)n_feat, &error), &error);
    for (int32_t f = 0; f < n_feat; f++)
      if (rand() % 3 == 0) sparse_push(&codes, f, (float)(rand() % 1000 + 1) * (float)(1 << rand() % 8) / 512.0f);
  }
  return codes;
}

static void save_all(struct statistics *s, struct buffer *out) {
  statistics_save_head(s, out);
  for (int64_t p = 0; p < statistics_parts(s); p++) statistics_save_part(s, p, out);
}

/* Saved and loaded after every document or never: the same bytes at the end. */
static void test_saved_state(void **state) {
  (void)state;
  struct statistics_options options = {.n_feat = 700, .n_top = 4, .n_quantile = 2, .window = 8, .positions = {.skip_first = true}};
  struct error error = ERROR_INIT;
  struct statistics *whole = statistics_new(&options, &error), *broken = statistics_new(&options, &error);
  for (unsigned d = 0; d < 12; d++) {
    struct sparse codes = random_codes(d, 5 + (int32_t)d, 700);
    check(statistics_add(whole, d, NULL, 5 + (int32_t)d, &codes, 0, &error), &error);
    check(statistics_add(broken, d, NULL, 5 + (int32_t)d, &codes, 0, &error), &error);
    sparse_clear(&codes);
    struct statistics *next = statistics_new(&options, &error);
    struct buffer part;
    buffer_init(&part, 0);
    statistics_save_head(broken, &part);
    check(statistics_load_head(next, part.data, part.length, &error), &error);
    for (int64_t p = 0; p < statistics_parts(broken); p++) {
      buffer_clear(&part);
      statistics_save_part(broken, p, &part);
      check(statistics_load_part(next, p, part.data, part.length, &error), &error);
      if (d == 5 && p == 1) { /* torn in the middle: refused, by name */
        struct statistics *torn = statistics_new(&options, &error);
        struct error why = ERROR_INIT;
        assert_int_equal(statistics_load_part(torn, p, part.data, part.length / 2, &why), -1);
        assert_non_null(strstr(why.text, "damaged"));
        statistics_free(torn);
      }
    }
    buffer_clear(&part);
    statistics_free(broken);
    broken = next;
  }
  struct buffer a, b;
  buffer_init(&a, 0);
  buffer_init(&b, 0);
  save_all(whole, &a);
  save_all(broken, &b);
  assert_int_equal(a.length, b.length);
  assert_memory_equal(a.data, b.data, a.length);
  buffer_clear(&a);
  buffer_clear(&b);
  statistics_free(whole);
  statistics_free(broken);
}

int main(void) {
  log_set_level(LOG_LEVEL_ERROR);
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_chunks), cmocka_unit_test(test_lines),
                                     cmocka_unit_test(test_villes), cmocka_unit_test(test_saved_state)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
