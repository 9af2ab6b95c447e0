/* sample.c: draws where the logits are, so that rows of a vocabulary need not be copied for one token each. */
#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

int cuda_sample(struct backend *backend, struct rows logits, int64_t vocabulary, const struct sample_draw *draws, int32_t n,
                int32_t *tokens, struct error *error) {
  struct cuda_backend *cuda = (struct cuda_backend *)backend;
  size_t draw_bytes = size_round_up((size_t)n * sizeof *draws, 256), token_bytes = (size_t)n * sizeof *tokens;
  if (n <= 0) return 0;
  if (cuda_enter(cuda, error) != 0) return -1;
  unsigned char *at = cuda_scratch(cuda, SCRATCH_SAMPLE, draw_bytes + token_bytes, error);
  if (!at) return -1;
  struct sample_args args = {device_rows_of(logits), vocabulary, (const struct sample_draw *)(void *)at,
                             (int32_t *)(void *)(at + draw_bytes)};
  cudaStream_t stream = cuda->stream;
  if (cuda_check(cuda, cudaMemcpyAsync(at, draws, (size_t)n * sizeof *draws, cudaMemcpyHostToDevice, stream), "a draw", error) != 0 ||
      cuda_check(cuda, launch_sample(stream, n, &args), "a draw", error) != 0 ||
      cuda_check(cuda, cudaMemcpyAsync(tokens, args.tokens, token_bytes, cudaMemcpyDeviceToHost, stream), "a draw", error) != 0)
    return -1;
  return cuda_wait(cuda, error);
}
