/* bench_model.h: models with random weights on a backend, and steps of them as the engine makes them. For bench_gpu.c, which times
 * them. A call that fails ends the program with what the backend said. */
#ifndef STEERD_TESTS_GPU_BENCH_MODEL_H
#define STEERD_TESTS_GPU_BENCH_MODEL_H

#include "core/model/plan.h"

#define CONTEXT 1024
#define START 128 /* positions before the first measured token */
#define MOST_STREAMS 256
#define MOST_PROMPT 512

struct shape {
  const char *name;
  int n_layer, n_head, n_kv_head, d_head, d_model, d_mlp, vocabulary;
  bool gpt2, gemma;
  int prompt; /* rows of the prompt that is timed */
};

struct bench {
  const struct shape *shape;
  struct backend *backend;
  struct model model;
  struct plan *plan;
  struct memory *kv, *taps, *vectors;
  struct span gain;
  double weight_bytes, layer_weights; /* read for each token; elements of all layers */
  const uint16_t *numbers;
  int32_t token[MOST_STREAMS + MOST_PROMPT], position[MOST_STREAMS + MOST_PROMPT], source[MOST_STREAMS + MOST_PROMPT];
  int32_t logit_row[MOST_STREAMS];
  uint8_t origin[MOST_STREAMS + MOST_PROMPT];
  struct step_slot slots[MOST_STREAMS];
  struct row_range all[ARCH_MAX_LAYERS + 1];
  int32_t *kv_table, kv_blocks;
  struct edit_item *edits;
  struct tap_item *tap_items;
  int32_t *edit_begin, *tap_begin;
  struct sample_draw draws[MOST_STREAMS];
  size_t fetched;                   /* bytes of taps that a step brings to the host */
  unsigned char *landed;            /* where */
  double launching, drawing, steps; /* seconds until the step, and then its draws, are asked for; of how many steps */
};

/* What the steps of a decode carry. */
enum load {
  NOTHING,
  TAPS_AND_EDITS, /* resid_post of every layer: tapped, and a vector of each stream's and layer's own added */
  TAPS_FETCHED,   /* the same, and all that is tapped comes to the host in each step */
  ONE_EDIT_EACH   /* each stream one edit, of its own kind, layer, vector and strength */
};

/* Ends the program where `failed`. */
void check(int failed, const struct error *error);
/* The processor's has as many threads as there are processors. */
struct backend *open_backend(const char *name);
struct memory *take(struct backend *backend, size_t bytes);
/* Memory of n floats, value(i, with) each. */
struct span put_values(struct backend *backend, size_t n, float (*value)(size_t, double), double with);
float noise_value(size_t i, double seed); /* even in [-0.5, 0.5) */
float same_value(size_t i, double value);
/* Of noise times a row of bench_gpu's numbers; and a bias that leaves about one sum in a thousand above 0. */
double sum_deviation(int64_t d_in);
double usual_bias(int64_t d_in);
/* Small numbers all over a block: bf16, and read as f32 small numbers too. At least 4 bytes. */
void fill(struct backend *backend, struct memory *memory, size_t bytes, const uint16_t *numbers, size_t n_numbers);

/* numbers: enough for the largest matrix; borrowed while the bench is open. `longest`: most tokens behind START. */
void bench_open(struct bench *b, const char *backend, const struct shape *shape, const uint16_t *numbers, size_t n_numbers, int longest);
void bench_close(struct bench *b);

size_t bench_kv_block_bytes(const struct bench *b);
/* One token of each stream, its draw, and the wait; then taps are on the host where they are fetched. */
void bench_decode(struct bench *b, int streams, int32_t position, enum load load);
/* The same without draw and wait. */
void bench_ask(struct bench *b, int streams, int32_t position, enum load load);
void bench_prompt(struct bench *b, int32_t rows);
void bench_wait(struct bench *b);

#endif
