/* learn.h: the arithmetic of training a dictionary on host memory, where codes are sparse: what a row's features make of their decoder
 * rows, what a feature's rows make of its gradients, and Adam. The dense product of a step is ops.encode.
 *
 * Every function works on what it is given, in the calling thread: whoever trains shares rows and features out among threads. Sums
 * go over entries in their order, whoever adds them; so a step has the same bits for any number of threads. A backend's ops.learn
 * has them; on a GPU there are none, and the processor trains. All arrays are f32; n, width >= 0; arrays need no alignment. */
#ifndef STEERD_CORE_MATH_LEARN_H
#define STEERD_CORE_MATH_LEARN_H

#include <stdint.h>

/* The rows in which one feature fires, ascending, and what it does there. */
struct learn_entries {
  int64_t n;
  const int32_t *row;
  const float *value; /* activations */
};

/* One feature's part of the way back. error and input are [rows, width_out] and [rows, width_in]:
 *   p_i      = scale * (error[row_i] . decoder) + penalty + each_i what the loss makes of entry i's pre-activation
 *   decoder' += sum over i of scale * value_i * error[row_i]       its gradient
 *   encoder' += sum over i of p_i * input[row_i]
 * The result is the sum of p_i, the bias's gradient. */
struct learn_feature {
  struct learn_entries entries;
  const float *error, *input, *decoder;
  int64_t width_out, width_in;
  float scale, penalty;
  const float *each; /* of each entry, or NULL: 0 */
  float *to_decoder, *to_encoder; /* [width_out], [width_in] */
};

/* Adam (Kingma and Ba 2015): m += (1 - beta1) (g - m), v = beta2 v + (1 - beta2) g^2, w -= rate m / (sqrt(v) unbias + eps), g being
 * gain times the gradient given. */
struct learn_adam {
  float beta1, beta2, eps;
  float rate;   /* learning rate / (1 - beta1^t) */
  float unbias; /* 1 / sqrt(1 - beta2^t) */
  float gain;   /* what clips gradients */
};

struct learn {
  /* y += sum over i of values[i] * rows[index[i]], rows [.., width]. */
  void (*gather)(int64_t n, const int32_t *index, const float *values, const float *rows, int64_t width, float *y);
  float (*feature)(const struct learn_feature *feature);
  /* gradient NULL: of zeros. */
  void (*adam)(const struct learn_adam *adam, int64_t n, const float *gradient, float *w, float *m, float *v);
  void (*add_scaled)(float *y, float scale, const float *x, int64_t n); /* y += scale x */
  float (*dot)(const float *a, const float *b, int64_t n);
};

#endif
