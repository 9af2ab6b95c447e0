/* direct.h: direct effects in the local replacement model of a text: what attention looks at and what norms divide by are constants, and so
 * is what each MLP writes. Then a vector at any place goes back linearly through the residual stream and attention's values to every
 * place that is written earlier, and its product with what stands there is how much of it comes from there. Attribution graphs are made of
 * that.
 *
 * The text is run once, side by side in as many lanes as fit; then up to that many vectors go back together, again and again. All of it
 * in slices; behind each nothing is in flight. Worker thread only. */
#ifndef STEERD_CORE_MODEL_DIRECT_H
#define STEERD_CORE_MODEL_DIRECT_H

#include "core/model/backward.h"

#define DIRECT_LANES 8

/* Where the MLP of a layer is read and written: what a transcoder there does. */
struct direct_layer {
  enum site in, out; /* in: of vectors that begin in this layer; in front of `out` */
  int32_t skips_from; /* the first position that a linear path beside the MLP counts at */
};

/* The way of a batch; errors of both end it. */
struct direct_events {
  /* What came to the rows that a layer writes at `out`, or to the residual stream where layer 0 begins (layer -1): row `lane * n_tokens +
   * position`, of `width`, in backend memory, valid during the call. 0; 1 to be called once more, in a piece to come; -1 with an error. */
  int (*wrote)(void *context, int32_t layer, struct rows gradients, int64_t width, struct error *error);
  /* Behind `wrote` of the same layer: *out becomes the matrix of a linear path (a skip connection) from `in` to `out`, all of their columns; it stays
   * until the next call, before which nothing of the layer is in flight any more. NULL: there is none. 0; -1 with an error. May be NULL: never. */
  int (*skip)(void *context, int32_t layer, const struct matrix **out, struct error *error);
};

struct direct_args {
  const int32_t *ids; /* [n_tokens] */
  int32_t n_tokens;
  const struct direct_layer *layers; /* [n_layer] */
  size_t most_bytes;                 /* that all of this may take */
  const struct direct_events *events;
  void *context;
};

/* What goes back: a vector at a layer's `in`, or a token's logit less the mean of all (layer n_layer). */
struct direct_target {
  int32_t layer, position;
  int32_t token;       /* of a logit */
  const float *vector; /* [width of in]; of a logit NULL */
};

struct direct;

/* Everything in args is borrowed until direct_free. ERROR_LIMIT where the text is too long for most_bytes. */
struct direct *direct_new(struct plan *plan, const struct direct_args *args, struct error *error) MUST_CHECK;
void direct_free(struct direct *direct); /* NULL is fine */

/* The text there: 1 while there is more to do, 0 when values and logits are there, -1 with an error. */
int direct_forward(struct direct *direct, struct error *error) MUST_CHECK;

/* Behind it. Rows [n_tokens] of a layer's `in` or `out`; logits of the last position, [vocabulary], as the model gives them. */
struct rows direct_values(const struct direct *direct, struct point point);
/* The residual stream where layer 0 begins. */
struct rows direct_embedded(const struct direct *direct);
int direct_logits(const struct direct *direct, float *out, struct error *error) MUST_CHECK;

int direct_lanes(const struct direct *direct);

/* A batch: target i in lane i, 1 <= n <= direct_lanes. Borrowed until direct_back has said 0. */
void direct_begin(struct direct *direct, const struct direct_target *targets, int n);
/* 1 while there is more to do, 0 when the batch is done, -1 with an error. */
int direct_back(struct direct *direct, struct error *error) MUST_CHECK;

#endif
