/* pages.c: which blocks of the cache hold the keys and values of a text: tables that stay on the device from step to step.
 *
 * A text's table has 4 bytes for each layer and 64 positions and changes when it begins or is forked, not while it grows. So it is sent
 * once, under the number that its content has (kv_pages.serial), and a step tells where it lies. Numbers find their place by
 * themselves: one of WAYS places, of which the one used longest ago goes. What finds none, and what has no number, is sent with the
 * step. */
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define SETS 256
#define WAYS 8       /* nine texts of one step in a set are not to be met: numbers follow each other */
#define SWEEP 16     /* places that are looked at in a step */
#define FORGET 1024  /* steps; what was not used for so long is given back */

struct kept {
  uint64_t serial; /* 0: nothing */
  uint64_t used;   /* the last step that did */
  struct memory *memory;
};

struct pages {
  struct kept kept[SETS * WAYS];
  uint64_t clock;
  unsigned next; /* to be looked at */
  const int32_t **places;
  size_t n_places;
};

struct pages *pages_new(struct error *error) {
  struct pages *pages = calloc(1, sizeof *pages);
  if (!pages) error_memory(error, sizeof *pages);
  return pages;
}

void pages_free(struct cuda_backend *cuda) {
  struct pages *pages = cuda->pages;
  if (!pages) return;
  for (int i = 0; i < SETS * WAYS; i++) cuda_free(&cuda->base, pages->kept[i].memory);
  free(pages->places);
  free(pages);
}

void pages_forget(struct cuda_backend *cuda) {
  for (int i = 0; i < SETS * WAYS; i++) cuda->pages->kept[i].serial = 0;
}

/* Where there is none, nothing is kept. */
static bool make_room(struct cuda_backend *cuda, struct kept *kept, size_t bytes) {
  kept->serial = 0;
  if (kept->memory && kept->memory->bytes >= bytes) return true;
  cuda_free(&cuda->base, kept->memory);
  kept->memory = NULL;
  return cuda_alloc(&cuda->base, bytes, &kept->memory, NULL) == 0;
}

static int send(struct cuda_backend *cuda, struct kept *kept, const struct kv_pages *text, size_t bytes, struct error *error) {
  void *staged = cuda_stage(cuda, bytes, error);
  if (!staged) return -1;
  memcpy(staged, text->block, bytes);
  cudaError_t status = cudaMemcpyAsync(kept->memory->data, staged, bytes, cudaMemcpyHostToDevice, cuda->stream);
  if (cuda_check(cuda, status, "sending the pages of a text", error) != 0) return -1;
  cuda->in_flight = true; /* staging may have waited */
  kept->serial = text->serial;
  return 0;
}

/* The place of a text; another's that this step does not use; NULL. */
static struct kept *find(struct pages *pages, uint64_t serial) {
  struct kept *set = &pages->kept[serial % SETS * WAYS], *oldest = set;
  for (int i = 0; i < WAYS; i++) {
    if (set[i].serial == serial) return &set[i];
    if (set[i].used < oldest->used) oldest = &set[i];
  }
  return oldest->used < pages->clock ? oldest : NULL;
}

static int keep(struct cuda_backend *cuda, const struct kv_pages *text, int32_t n_layer, const int32_t **place, struct error *error) {
  struct kept *kept = text->serial ? find(cuda->pages, text->serial) : NULL;
  *place = NULL;
  if (!kept) return 0;
  size_t bytes = (size_t)n_layer * (size_t)text->stride * sizeof(int32_t);
  if (kept->serial != text->serial) {
    if (!make_room(cuda, kept, bytes)) return 0;
    if (send(cuda, kept, text, bytes, error) != 0) return -1;
  }
  kept->used = cuda->pages->clock;
  *place = (const int32_t *)(const void *)kept->memory->data;
  return 0;
}

static void sweep(struct cuda_backend *cuda, struct pages *pages) {
  for (int i = 0; i < SWEEP; i++) {
    struct kept *kept = &pages->kept[pages->next++ % (SETS * WAYS)];
    if (!kept->memory || kept->used + FORGET > pages->clock) continue;
    cuda_free(&cuda->base, kept->memory);
    *kept = (struct kept){0};
  }
}

static int make_places(struct pages *pages, size_t n, struct error *error) {
  if (n <= pages->n_places) return 0;
  const int32_t **places = realloc(pages->places, n * sizeof *places);
  if (!places) return error_memory(error, n * sizeof *places);
  pages->places = places;
  pages->n_places = n;
  return 0;
}

const int32_t *const *pages_keep(struct cuda_backend *cuda, const struct step *step, struct error *error) {
  struct pages *pages = cuda->pages;
  pages->clock++;
  if (make_places(pages, size_max((size_t)step->n_slots, 1), error) != 0) return NULL;
  for (int32_t i = 0; i < step->n_slots; i++) {
    struct kv_pages text = kv_pages_of(step, i);
    if (keep(cuda, &text, step->n_layer, &pages->places[i], error) != 0) return NULL;
  }
  sweep(cuda, pages);
  return pages->places;
}
