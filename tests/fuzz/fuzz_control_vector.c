/* Any bytes as a file of directions that a client sends: GGUF, safetensors and .npz, read for a model of 3 layers and width 48. What
 * is accepted is written as GGUF, where that can be, and read again. */
#include <math.h>
#include <stdlib.h>

#include "core/model/control_vector.h"

#define LAYERS 3
#define WIDTH 48

static void check(const struct control_vector *vector) {
  if (vector->n < 1 || vector->n > 2 * LAYERS) abort();
  for (size_t i = 0; i < vector->n; i++) {
    const struct control_direction *d = &vector->directions[i];
    if ((d->point.site != SITE_RESID_PRE && d->point.site != SITE_RESID_POST) || d->point.layer < 0 || d->point.layer >= LAYERS) abort();
    for (int c = 0; c < WIDTH; c++)
      if (!isfinite(d->values[c])) abort();
  }
}

static void read_again(const struct control_vector *vector, struct arena *arena) {
  struct buffer file;
  struct control_vector again;
  struct error error = ERROR_INIT;
  buffer_init(&file, 0);
  if (control_vector_write(&file, "m", vector->directions, vector->n, WIDTH, &error) == 0 &&
      control_vector_read(file.data, file.length, LAYERS, WIDTH, arena, &again, &error) != 0 && error.code != ERROR_ARGUMENT)
    abort(); /* ERROR_ARGUMENT: two directions of one layer may sum to infinity */
  buffer_clear(&file);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static const unsigned char nothing[1];
  struct arena arena;
  struct control_vector vector;
  struct error error = ERROR_INIT;
  arena_init(&arena, 1 << 20);
  if (control_vector_read(size ? data : nothing, size, LAYERS, WIDTH, &arena, &vector, &error) == 0) {
    check(&vector);
    read_again(&vector, &arena);
  } else if (!error.code || !error.text[0]) {
    abort();
  }
  arena_clear(&arena);
  return 0;
}
