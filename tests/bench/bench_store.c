/* bench_store.c: the store's speed, as CSV on standard output: name, value, unit, what is timed.
 *
 *   bench_store [FOLDER]     where the file is made and removed again; default the current folder
 *
 * Content: 24,576 features with 20 examples of 64 tokens, 25,000 explanations of 3 to 12 words. Batches are of 64
 * features in one durable transaction each (fsync inside the window). Every figure is of one run in one process. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/random.h"
#include "core/store/store.h"

#define FEATURES 24576
#define EXPLANATIONS 25000
#define EXAMPLES 20
#define TOKENS 64
#define BATCH 64
#define LOOKUPS 20000
#define SEARCHES 2000

static const char *const vocabulary[] = {
    "references", "to", "the", "words", "related", "names", "of", "people", "phrases", "code", "numbers", "dates", "in",
    "legal", "text", "French", "cities", "function", "music", "animals", "government", "verbs", "past", "tense",
    "question", "marks", "sports", "teams", "chemistry", "biology", "war", "love", "rivers", "capital", "Python", "years"};
#define VOCABULARY (sizeof vocabulary / sizeof *vocabulary)

static void stop(const char *what, const struct error *error) {
  fprintf(stderr, "bench_store: %s: %s\n", what, error->text);
  exit(1);
}

static uint32_t draw(uint64_t stream, uint64_t position, uint32_t below) {
  uint32_t words[4];
  random_words(1, stream, position, words);
  return words[0] % below;
}

/* Common words are common: the square of a uniform draw leans to the front of the list. */
static const char *draw_word(uint64_t stream, uint64_t position) {
  double unit = random_unit(2, stream, position);
  return vocabulary[(size_t)(unit * unit * VOCABULARY)];
}

static void sentence(char *out, size_t size, uint64_t stream) {
  uint32_t n = 3 + draw(3, stream, 10);
  size_t used = 0;
  for (uint32_t i = 0; i < n && used < size - 32; i++)
    used += (size_t)snprintf(out + used, size - used, "%s%s", i ? " " : "", draw_word(stream, i));
  snprintf(out + used, size - used, " %u", draw(4, stream, 5000)); /* and something rare */
}

/* ---- writing ---------------------------------------------------------------------------------------- */

struct block {
  struct store_feature features[BATCH];
  struct store_example examples[BATCH][EXAMPLES];
  float values[TOKENS];
  struct store_text tokens[TOKENS], logits[10];
  float bars[50], logit_values[10];
  uint32_t neighbours[10];
};

static void block_make(struct block *block) {
  for (int t = 0; t < TOKENS; t++) {
    block->tokens[t] = (struct store_text){vocabulary[t % (int)VOCABULARY], strlen(vocabulary[t % (int)VOCABULARY])};
    block->values[t] = t % 9 ? 0 : (float)t;
  }
  for (int i = 0; i < 10; i++) block->logits[i] = block->tokens[i];
  struct store_histogram bars = {block->bars, block->bars, 50};
  struct store_tokens logits = {block->logits, block->logit_values, 10};
  for (int f = 0; f < BATCH; f++) {
    for (int e = 0; e < EXAMPLES; e++)
      block->examples[f][e] = (struct store_example){.tokens = block->tokens, .values = block->values, .n = TOKENS,
                                                     .document = e, .qualifying = 3};
    block->features[f] = (struct store_feature){
        .groups = STORE_STATISTICS | STORE_LOGITS | STORE_NEIGHBOURS | STORE_EXAMPLES, .activity = bars, .top = logits,
        .bottom = logits, .logits = bars, .neighbours = block->neighbours, .cosines = block->logit_values,
        .n_neighbours = 10, .examples = block->examples[f], .n_examples = EXAMPLES};
  }
}

static void write_features(struct store *store, int64_t source) {
  struct error error = ERROR_INIT;
  struct block *block = calloc(1, sizeof *block);
  if (!block) exit(1);
  block_make(block);
  int64_t begin = clock_ns();
  for (uint32_t first = 0; first < FEATURES; first += BATCH) {
    for (uint32_t f = 0; f < BATCH; f++) {
      block->features[f].index = first + f;
      block->features[f].rate = random_unit(5, 0, first + f);
      block->features[f].max = (float)random_unit(5, 1, first + f);
    }
    struct store_batch batch = {.source = source, .features = block->features, .n_features = BATCH};
    if (store_batch_put(store, &batch, &error) != 0) stop("batch", &error);
  }
  double seconds = (double)(clock_ns() - begin) / 1e9;
  printf("feature batches,%.0f,features/s,64 features x 20 examples in a durable transaction\n", FEATURES / seconds);
  printf("example rows,%.0f,rows/s,the same with %d examples a feature\n", FEATURES * EXAMPLES / seconds, EXAMPLES);
  free(block);
}

static void write_explanations(struct store *store, int64_t source) {
  struct error error = ERROR_INIT;
  struct store_explanation rows[500];
  static char texts[500][256];
  int64_t begin = clock_ns();
  for (uint32_t first = 0; first < EXPLANATIONS; first += 500) {
    for (uint32_t i = 0; i < 500; i++) {
      sentence(texts[i], sizeof texts[i], first + i);
      rows[i] = (struct store_explanation){.source = source, .index = (first + i) % FEATURES, .origin = STORE_IMPORTED,
                                           .description = texts[i], .score = NAN};
    }
    struct store_batch batch = {.source = source, .explanations = rows, .n_explanations = 500};
    if (store_batch_put(store, &batch, &error) != 0) stop("explanations", &error);
  }
  printf("explanations,%.0f,rows/s,500 in a durable transaction with their words\n",
         EXPLANATIONS / ((double)(clock_ns() - begin) / 1e9));
}

/* ---- reading ---------------------------------------------------------------------------------------- */

struct reading {
  struct store *store;
  int64_t source;
  uint64_t stream;
};

static void *read_features(void *context) {
  struct reading *reading = context;
  struct error error = ERROR_INIT;
  struct store_feature feature;
  struct arena arena;
  arena_init(&arena, 0);
  for (uint64_t i = 0; i < LOOKUPS; i++) {
    if (store_feature_get(reading->store, reading->source, draw(reading->stream, i, FEATURES), EXAMPLES, &arena, &feature,
                          &error) != 1)
      stop("feature", &error);
    arena_clear(&arena);
  }
  return NULL;
}

static void bench_lookups(struct store *store, int64_t source, int threads) {
  pthread_t thread[8];
  struct reading reading[8];
  int64_t begin = clock_ns();
  for (int i = 0; i < threads; i++) {
    reading[i] = (struct reading){store, source, 10 + (uint64_t)i};
    if (pthread_create(thread + i, NULL, read_features, reading + i) != 0) exit(1);
  }
  for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
  printf("feature lookups %d threads,%.0f,features/s,all groups, 20 examples and the explanations into an arena\n",
         threads, threads * LOOKUPS / ((double)(clock_ns() - begin) / 1e9));
}

static int by_time(const void *left, const void *right) {
  int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
  return (a > b) - (a < b);
}

static void print_times(const char *name, int64_t *times, size_t n, const char *what) {
  qsort(times, n, sizeof *times, by_time);
  printf("%s p50,%.3f,ms,%s\n", name, (double)times[n / 2] / 1e6, what);
  printf("%s p99,%.3f,ms,%s\n", name, (double)times[n * 99 / 100] / 1e6, what);
}

/* Queries of `words` words drawn as the descriptions are: mostly common ones. */
static void bench_search(struct store *store, int words, bool any) {
  struct error error = ERROR_INIT;
  static int64_t times[SEARCHES];
  struct arena arena;
  char query[128], name[64];
  arena_init(&arena, 0);
  for (uint64_t i = 0; i < SEARCHES; i++) {
    struct store_hit *hits;
    size_t n, used = 0;
    for (int w = 0; w < words; w++)
      used += (size_t)snprintf(query + used, sizeof query - used, "%s ", draw_word(1000000 + i, (uint64_t)w));
    struct store_search search = {.query = query, .query_length = used, .limit = 20, .any = any};
    int64_t begin = clock_ns();
    if (store_explanation_search(store, &search, &arena, &hits, &n, NULL, &error) != 0) stop("search", &error);
    times[i] = clock_ns() - begin;
    arena_clear(&arena);
  }
  snprintf(name, sizeof name, "search %d %s", words, any ? "any" : "all");
  print_times(name, times, SEARCHES, "ranked top 20 of 25000 with snippets and rows");
}

static void bench_lists(struct store *store, int64_t source) {
  struct error error = ERROR_INIT;
  static float rates[FEATURES];
  static int64_t times[200];
  struct store_feature_row *rows;
  struct arena arena;
  size_t n;
  int64_t total;
  arena_init(&arena, 0);
  for (uint64_t i = 0; i < 200; i++) {
    struct store_feature_query query = {source, STORE_BY_RATE, true, false, (int64_t)draw(7, i, FEATURES), 25};
    int64_t begin = clock_ns();
    if (store_feature_list(store, &query, &arena, &rows, &n, &total, &error) != 0) stop("list", &error);
    times[i] = clock_ns() - begin;
    arena_clear(&arena);
  }
  print_times("page by rate", times, 200, "25 rows at a random offset and the total");
  for (int i = 0; i < 200; i++) {
    int64_t begin = clock_ns();
    if (store_density(store, source, rates, FEATURES, NULL, &error) != 0) stop("density", &error);
    times[i] = clock_ns() - begin;
  }
  print_times("density", times, 200, "firing rate of 24576 features");
}

int main(int argc, char **argv) {
  struct error error = ERROR_INIT;
  char path[512], command[1200];
  int64_t source;
  snprintf(path, sizeof path, "%s/bench-store-%ld.db", argc > 1 ? argv[1] : ".", (long)getpid());
  struct store *store = store_open(&(struct store_options){.path = path, .holder = "bench"}, &error);
  if (!store) stop("open", &error);
  struct store_source row = {.model = "bench", .name = "7-res", .n_features = FEATURES};
  if (store_source_put(store, &row, &source, &error) != 0) stop("source", &error);
  printf("name,value,unit,timed\n");
  write_features(store, source);
  write_explanations(store, source);
  bench_lookups(store, source, 1);
  bench_lookups(store, source, 2);
  for (int words = 1; words <= 3; words++) bench_search(store, words, false);
  bench_search(store, 3, true);
  bench_lists(store, source);
  store_close(store);
  int64_t begin = clock_ns();
  store = store_open(&(struct store_options){.path = path}, &error);
  if (!store) stop("open again", &error);
  printf("open,%.1f,ms,with the quick check\n", (double)(clock_ns() - begin) / 1e6);
  store_close(store);
  snprintf(command, sizeof command, "rm -f '%s' '%s.lock'", path, path);
  return system(command) != 0;
}
