/* sample.c: draws where the logits are, so that rows of a vocabulary need not be copied for one token each. */
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

/* The kernel reads the draws and writes the tokens where they lie on the host: a copy there and one back would each cost more
 * than the bytes take. */
int cuda_sample(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
                int32_t *tokens, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  size_t draw_bytes = size_round_up((size_t)n * sizeof *draws, 256), token_bytes = (size_t)n * sizeof *tokens;
  if (n <= 0) return 0;
  if (cuda_enter(cuda, error) != 0 || (cuda->awaited.n && cuda_wait(cuda, error) != 0)) return -1;
  unsigned char *at = cuda_stage(cuda, draw_bytes + token_bytes, error);
  if (!at || cuda_begin(cuda, error) != 0) return -1;
  memcpy(at, draws, (size_t)n * sizeof *draws);
  struct sample_args args = {device_rows_of(logits), vocabulary, (const struct sample_draw *)(void *)at,
                             (int32_t *)(void *)(at + draw_bytes)};
  cuda->awaited = (struct awaited){args.tokens, tokens, n};
  return cuda_check(cuda, launch_sample(cuda->stream, n, &args), "a draw", error);
}
