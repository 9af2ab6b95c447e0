/* origins.h: from which tokens a feature of attention's output comes: direct feature attribution. Private to core/lab/.
 *
 * At its strongest position t a feature reads what the heads bring together, z[t] = sum over s of A[h, t, s] V[s, h], and the
 * share of token s is sum over h of A[h, t, s] (V[s, h] . w[h]), w being its column of W_enc in folded units. Dictionaries that
 * read attn.hook_z, whole or one head of it, have such shares; others have none.
 *
 *   origins_layer    whether a dictionary has them
 *   origins_begin    a text's features are known: what of values and patterns is to be kept
 *   origins_tapped   worker: rows of a second pass over the text
 *   origins_finish   the shares; what was kept is freed (origins_clear frees it in any case) */
#ifndef STEERD_CORE_LAB_ORIGINS_H
#define STEERD_CORE_LAB_ORIGINS_H

#include "core/lab/lab_int.h"

/* The layer whose heads it reads, -1: it reads something else. */
int origins_layer(const struct dict *dict);

/* Taps of a layer: values, then pattern. */
enum { ORIGINS_TAPS = 2 };
void origins_taps(int layer, struct point taps[ORIGINS_TAPS]);

/* One pattern row: [n_head][n], of a layer (by its number among the layers that are tapped) at a position of the whole text. */
struct origins_row {
  int layer;
  size_t position;
  float *pattern;
};

struct origins_text {
  size_t n;                  /* tokens, BOS included */
  float **values;            /* [n_layers] [n][n_kv_head][d_head] */
  struct origins_row *rows;  /* [n_rows] each layer and position once */
  size_t n_rows;
  int n_layers;
};

/* Room for rows of features in `layers` (-1: none of them) at `positions`, each [n_features]. ERROR_LIMIT (field `field`) where the
 * patterns take too much. */
int origins_begin(struct origins_text *text, const struct arch *arch, size_t n, int n_layers, const int *layers,
                  const size_t *positions, size_t n_features, const char *field, struct error *error) MUST_CHECK;
int origins_tapped(struct origins_text *text, const struct engine_tapped *tapped, struct error *error) MUST_CHECK;

/* The shares of all tokens for one feature: out [n]. */
int origins_finish(const struct origins_text *text, const struct arch *arch, const struct dict *dict, int64_t index, int layer,
                   size_t position, float *out, struct error *error) MUST_CHECK;
void origins_clear(struct origins_text *text);

#endif
