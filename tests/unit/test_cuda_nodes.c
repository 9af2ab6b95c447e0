/* How many launches a token takes: the nodes of the graph that a decode step is recorded in, for one model of each kind, so that
 * none comes back unseen. Needs the emulated library (STEERD_CUDA_LIBRARY). docs/performance.md tells these numbers. */
#include <dlfcn.h>

#include "tests/unit/plan_bench.h"

#define FAMILIES "tests/vectors/families/"

static void (*launches)(long out[2]); /* of tests/cuda_host/emulator.cpp */

static bool find_emulator(void) {
  const char *path = getenv("STEERD_CUDA_LIBRARY");
  void *library = path ? dlopen(path, RTLD_NOW) : NULL;
  void *symbol = library ? dlsym(library, "cuda_emulated_launches") : NULL;
  memcpy(&launches, &symbol, sizeof launches);
  if (!launches) printf("skip: nodes of graphs (set STEERD_CUDA_LIBRARY to the emulated library)\n");
  return launches != NULL;
}

static long nodes_of_last_graph(void) {
  long counts[2];
  launches(counts);
  return counts[1];
}

/* At most so many: a layer, and what is of none: the beginning of rows, and norm and product of the head, whose norm gathers its rows. */
enum { OF_NO_LAYER = 3 };
static const struct family {
  const char *folder;
  int per_layer;
} families[] = {
    {"gpt2-crfm", 7},  /* q k v, attention, o, rows, in, out, rows */
    {"llama", 7},      /* gate, in and the two multiplied are one */
    {"mistral", 9},    /* 16 bits, and rows that are no whole pieces of 16 bytes: three launches for that */
    {"qwen2", 9},
    {"qwen3", 7},      /* norms of q and k are attention's */
    {"gemma2", 7},     /* norms behind sublayers are done with the rows */
    {"gemma3", 5},     /* rows are done by the products behind them */
    {"gpt_neox", 8},     /* the MLP has a norm of its own beside attention */
    {"phi3", 9},
};

/* The nodes of the graph of a step with one row, once nothing is recorded any more. */
static long decode_nodes(struct bench *b, site_set tapped) {
  int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  float *logits = malloc((size_t)b->model->arch.vocabulary * 8 * sizeof *logits);
  b->tapped = tapped;
  bench_run(b, ids, 0, 4, logits);
  for (int32_t i = 4; i < 8; i++) bench_run(b, ids, i, 1, logits);
  free(logits);
  return nodes_of_last_graph();
}

static void test_nodes(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    struct bench b;
    char path[256];
    snprintf(path, sizeof path, FAMILIES "%s", families[i].folder);
    if (bench_open_with(&b, "cuda", path, model_open_weights) != 0) fail_msg("cuda");
    int32_t layers = b.model->arch.n_layer;
    long plain = decode_nodes(&b, 0), most = families[i].per_layer * layers + OF_NO_LAYER;
    printf("%-12s %ld nodes for %d layers\n", families[i].folder, plain, layers);
    if (plain > most)
      fail_msg("%s: %ld nodes; %d layers of %d and %d more are %ld", families[i].folder, plain, layers, families[i].per_layer, OF_NO_LAYER, most);
    /* Points that every layer passes through cost nothing, wherever they are looked at. */
    assert_int_equal(decode_nodes(&b, site_bit(SITE_RESID_PRE) | site_bit(SITE_RESID_POST) | site_bit(SITE_ATTN_OUT)), plain);
    assert_int_equal(decode_nodes(&b, site_bit(SITE_ATTN_Z)), plain);
    bench_close(&b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_nodes)};
  return find_emulator() ? cmocka_run_group_tests(tests, NULL, NULL) : 0;
}
