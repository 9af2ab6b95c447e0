/* store_world.h: a store in a folder of its own, and features whose every field follows from a number. */
#ifndef STEERD_TESTS_STORE_WORLD_H
#define STEERD_TESTS_STORE_WORLD_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store/store.h"

struct world {
  char folder[64], path[96];
  struct store *store;
  struct arena arena;
};

static inline void world_init(struct world *world) {
  memset(world, 0, sizeof *world);
  strcpy(world->folder, "/tmp/steerd-store-XXXXXX");
  assert_non_null(mkdtemp(world->folder));
  snprintf(world->path, sizeof world->path, "%s/lab.db", world->folder);
  arena_init(&world->arena, 0);
}

static inline struct store *world_try(struct world *world, struct error *error) {
  struct store_options options = {.path = world->path, .holder = "test"};
  return world->store = store_open(&options, error);
}

static inline void world_open(struct world *world) {
  struct error error = ERROR_INIT;
  if (!world_try(world, &error)) fail_msg("%s", error.text);
}

static inline void world_close(struct world *world) {
  store_close(world->store);
  world->store = NULL;
}

static inline void world_end(struct world *world) {
  char command[160];
  world_close(world);
  arena_clear(&world->arena);
  snprintf(command, sizeof command, "rm -rf '%s'", world->folder);
  if (system(command) != 0) fail_msg("%s", command);
}

/* 0 and no error, or the test ends with the error's text. */
#define must(call)                                                                                             \
  do {                                                                                                         \
    struct error error = ERROR_INIT;                                                                           \
    if ((call) < 0) fail_msg("%s:%d: %s", __FILE__, __LINE__, error.text);                                     \
  } while (0)

#define must_fail(wanted, call)                                                                                \
  do {                                                                                                         \
    struct error error = ERROR_INIT;                                                                           \
    if ((call) != -1 || error.code != (wanted))                                                                \
      fail_msg("%s:%d: wanted %s, got %s: %s", __FILE__, __LINE__, error_word(wanted), error_word(error.code), \
               error.text);                                                                                    \
  } while (0)

static inline int64_t world_source(struct world *world, const char *name, int64_t n_features) {
  int64_t id = 0;
  struct store_source source = {.model = "tiny", .name = name, .layer = 7, .n_features = n_features};
  must(store_source_put(world->store, &source, &id, &error));
  return id;
}

/* ---- features made from a number -------------------------------------------------------------------- */

#define MADE_EXAMPLES 3
#define MADE_TOKENS 5

struct made {
  struct store_feature feature;
  struct store_example examples[MADE_EXAMPLES];
  struct store_text tokens[MADE_EXAMPLES][MADE_TOKENS], top[2], bottom[1];
  float values[MADE_EXAMPLES][MADE_TOKENS], top_values[2], bottom_values[1];
  float heights[4], positions[4], logit_heights[2], logit_positions[2], cosines[2];
  uint32_t neighbours[2];
  char words[MADE_EXAMPLES][MADE_TOKENS][24];
};

static inline void made_example(struct made *made, int e, uint32_t index, int seed) {
  for (int t = 0; t < MADE_TOKENS; t++) {
    int length = snprintf(made->words[e][t], sizeof made->words[e][t], " w%u.%d.%d", index, seed, e * 10 + t);
    made->tokens[e][t] = (struct store_text){made->words[e][t], (size_t)length};
    made->values[e][t] = (float)((index * 7 + (uint32_t)(seed + e * 3 + t * t)) % 11) / 4;
  }
  made->tokens[e][1] = (struct store_text){"\0\xff\"", 3}; /* any bytes */
  made->tokens[e][2] = (struct store_text){"", 0};
  made->examples[e] = (struct store_example){.tokens = made->tokens[e], .values = made->values[e], .n = MADE_TOKENS,
    .bin_min = e ? 0.5f * (float)e : -1, .bin_max = 2.5f, .bin_contains = e ? 0.125f : -1, .qualifying = e,
    .document = index + 1000, .position = 10 * e, .data_index = e == 1 ? "row 5" : NULL,
    .extra = e == 2 ? "{\"dfaValues\":[1]}" : NULL};
}

static inline void made_fill(struct made *made, uint32_t index, int seed) {
  memset(made, 0, sizeof *made);
  float x = (float)((index * 31 + (uint32_t)seed) % 17);
  for (int e = 0; e < MADE_EXAMPLES; e++) made_example(made, e, index, seed);
  for (int i = 0; i < 4; i++) made->heights[i] = x + (float)i, made->positions[i] = 0.25f * (float)i;
  for (int i = 0; i < 2; i++) {
    made->logit_heights[i] = 3 * x;
    made->logit_positions[i] = -x;
    made->top[i] = made->tokens[0][i];
    made->top_values[i] = 1.1f * x;
    made->neighbours[i] = 0xffffff00u + index + (uint32_t)i;
    made->cosines[i] = 1.0f / (1 + x);
  }
  made->bottom[0] = made->tokens[1][0];
  made->bottom_values[0] = -0.1f;
  made->feature = (struct store_feature){.index = index,
    .groups = STORE_STATISTICS | STORE_LOGITS | STORE_NEIGHBOURS | STORE_PLACE | STORE_EXTRA | STORE_EXAMPLES,
    .n_fired = (int64_t)index << 33, .rate = x / 17, .mean = x * 0.3, .max = x,
    .activity = {made->heights, made->positions, 4}, .top = {made->top, made->top_values, 2},
    .bottom = {made->bottom, made->bottom_values, 1}, .logits = {made->logit_heights, made->logit_positions, 2},
    .neighbours = made->neighbours, .cosines = made->cosines, .n_neighbours = 2, .extra = "{\"corr\":1}",
    .place = {.x = 0.1 * (double)x, .y = -3, .cluster = x > 8 ? (double)NAN : (double)(index % 5) - 1, .sparsity = -2.5},
    .examples = made->examples, .n_examples = MADE_EXAMPLES};
}

static inline bool same_text(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static inline bool same_texts(const struct store_text *a, const struct store_text *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (a[i].length != b[i].length || memcmp(a[i].text, b[i].text, a[i].length) != 0) return false;
  return true;
}

static inline bool same_tokens(const struct store_tokens *a, const struct store_tokens *b) {
  return a->n == b->n && same_texts(a->texts, b->texts, a->n) &&
         (a->n == 0 || memcmp(a->values, b->values, 4 * a->n) == 0);
}

static inline bool same_real(double a, double b) { return isnan(a) ? isnan(b) : a == b; }

static inline bool same_place(const struct store_place *a, const struct store_place *b) {
  return same_real(a->x, b->x) && same_real(a->y, b->y) && same_real(a->cluster, b->cluster) && same_real(a->sparsity, b->sparsity);
}

static inline bool same_histogram(const struct store_histogram *a, const struct store_histogram *b) {
  return a->n == b->n && (a->n == 0 || (memcmp(a->heights, b->heights, 4 * a->n) == 0 &&
                                        memcmp(a->values, b->values, 4 * a->n) == 0));
}

static inline bool same_example(const struct store_example *got, const struct store_example *want) {
  return got->n == want->n && same_texts(got->tokens, want->tokens, got->n) &&
         memcmp(got->values, want->values, 4 * got->n) == 0 && got->bin_min == want->bin_min &&
         got->bin_max == want->bin_max && got->bin_contains == want->bin_contains &&
         got->qualifying == want->qualifying && got->document == want->document &&
         got->position == want->position && same_text(got->data_index, want->data_index) &&
         same_text(got->extra, want->extra);
}

/* Every field of what was put, and examples in the order the contract promises. */
static inline bool same_feature(const struct store_feature *got, const struct store_feature *want) {
  if (got->index != want->index || got->groups != want->groups || got->n_fired != want->n_fired ||
      got->rate != want->rate || got->mean != want->mean || got->max != want->max ||
      !same_histogram(&got->activity, &want->activity) || !same_histogram(&got->logits, &want->logits) ||
      !same_tokens(&got->top, &want->top) || !same_tokens(&got->bottom, &want->bottom) ||
      got->n_neighbours != want->n_neighbours || !same_text(got->extra, want->extra) || !same_place(&got->place, &want->place) ||
      memcmp(got->neighbours, want->neighbours, 4 * got->n_neighbours) != 0 ||
      memcmp(got->cosines, want->cosines, 4 * got->n_neighbours) != 0 || got->n_examples != want->n_examples)
    return false;
  for (size_t i = 0; i < got->n_examples; i++) {
    const struct store_example *example = got->examples + i, *before = i ? example - 1 : NULL;
    if (!same_example(example, want->examples + example->slot)) return false;
    if (before && (before->max_value < example->max_value ||
                   (before->max_value == example->max_value && before->slot >= example->slot)))
      return false;
    float max = example->values[0], min = max;
    for (size_t t = 0; t < example->n; t++) max = fmaxf(max, example->values[t]), min = fminf(min, example->values[t]);
    int first = 0;
    while (example->values[first] != max) first++;
    if (example->max_value != max || example->min_value != min || example->max_index != first) return false;
  }
  return true;
}

#endif
