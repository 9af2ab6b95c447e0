/* Means, one eigenvector of a small matrix, and ranks. */
#include "core/analysis/contrast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double dot(const double *a, const double *b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static double column_mean(const double *rows, size_t n, size_t width, size_t column) {
  double sum = 0;
  for (size_t r = 0; r < n; r++) sum += rows[r * width + column];
  return sum / (double)n;
}

/* Each mean by itself, so that equal groups have a direction of zeros and not of roundings. */
void contrast_mean(const struct contrast_groups *g, double *out) {
  for (size_t c = 0; c < g->width; c++)
    out[c] = column_mean(g->positive, g->n_positive, g->width, c) - column_mean(g->negative, g->n_negative, g->width, c);
}

/* ---- the principal direction ---- */

enum { ROUNDS_MOST = 5000 };
#define SETTLED 1e-13 /* of an entry of a unit vector between two rounds: what doubles still tell apart */

/* [n][n] products of differences: with fewer pairs than columns its eigenvectors are the short way to those of [width][width]. */
static void fill_products(const double *differences, size_t n, size_t width, double *products) {
  for (size_t i = 0; i < n; i++)
    for (size_t k = 0; k <= i; k++)
      products[i * n + k] = products[k * n + i] = dot(differences + i * width, differences + k * width, width);
}

/* One round of the power method: u = P u / |P u|; returns the largest change, or -1 where P u is zero. */
static double round_once(const double *products, size_t n, double *u, double *next) {
  double largest = 0;
  for (size_t i = 0; i < n; i++) next[i] = dot(products + i * n, u, n);
  double length = sqrt(dot(next, next, n));
  if (!(length > 0)) return -1;
  for (size_t i = 0; i < n; i++) {
    next[i] /= length;
    largest = fmax(largest, fabs(next[i] - u[i]));
    u[i] = next[i];
  }
  return largest;
}

/* The start is the row of the longest difference: it has a share of the direction sought, or that pair adds nothing to any. */
static void find_weights(const double *products, size_t n, double *u, double *next) {
  size_t longest = 0;
  for (size_t i = 1; i < n; i++)
    if (products[i * n + i] > products[longest * n + longest]) longest = i;
  for (size_t i = 0; i < n; i++) u[i] = products[longest * n + i];
  round_once(products, n, u, next);
  for (int i = 0; i < ROUNDS_MOST && round_once(products, n, u, next) > SETTLED; i++) {
  }
}

/* out = the weighted sum of differences, at length 1 times its mean product with them. */
static void combine(const double *differences, const double *weights, size_t n, size_t width, double *out) {
  double mean = 0;
  memset(out, 0, width * sizeof *out);
  for (size_t i = 0; i < n; i++)
    for (size_t c = 0; c < width; c++) out[c] += weights[i] * differences[i * width + c];
  double square = dot(out, out, width);
  for (size_t i = 0; i < n; i++) mean += dot(differences + i * width, out, width) / (double)n;
  for (size_t c = 0; c < width; c++) out[c] *= square > 0 ? mean / square : 0; /* a mean below zero turns it round */
}

int contrast_principal(const struct contrast_groups *g, double *out, struct error *error) {
  size_t n = g->n_positive, width = g->width, count = n * width + n * n + 2 * n;
  double *room = calloc(count, sizeof *room);
  if (!room) return error_memory(error, count * sizeof *room);
  double *differences = room, *products = differences + n * width, *u = products + n * n, *next = u + n;
  for (size_t i = 0; i < n * width; i++) differences[i] = g->positive[i] - g->negative[i];
  fill_products(differences, n, width, products);
  find_weights(products, n, u, next);
  combine(differences, u, n, width, out);
  free(room);
  return 0;
}

/* ---- how well it tells ---- */

static void project(const double *rows, size_t n, const struct contrast_groups *g, const double *direction, double length, double *to,
                    double *mean, double *lengths) {
  for (size_t i = 0; i < n; i++) {
    const double *row = rows + i * g->width;
    to[i] = length > 0 ? dot(row, direction, g->width) / length : 0;
    *mean += to[i] / (double)n;
    *lengths += sqrt(dot(row, row, g->width));
  }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* How many of sorted[n] are below x, equal ones by half. */
static double count_below(const double *sorted, size_t n, double x) {
  size_t below = 0, equal = 0;
  for (size_t low = 0, high = n; low < high;) {
    size_t middle = low + (high - low) / 2;
    if (sorted[middle] < x)
      below = low = middle + 1;
    else
      high = middle;
  }
  while (below + equal < n && sorted[below + equal] <= x) equal++;
  return (double)below + (double)equal / 2;
}

int contrast_judge(const struct contrast_groups *g, const double *direction, struct contrast *out, struct error *error) {
  size_t count = g->n_positive + g->n_negative;
  double *room = malloc(count * sizeof *room), lengths = 0, pairs = 0;
  if (!room) return error_memory(error, count * sizeof *room);
  double *positive = room, *negative = room + g->n_positive;
  *out = (struct contrast){.length = sqrt(dot(direction, direction, g->width))};
  project(g->positive, g->n_positive, g, direction, out->length, positive, &out->positive, &lengths);
  project(g->negative, g->n_negative, g, direction, out->length, negative, &out->negative, &lengths);
  qsort(negative, g->n_negative, sizeof *negative, ascending);
  for (size_t i = 0; i < g->n_positive; i++) pairs += count_below(negative, g->n_negative, positive[i]);
  out->separation = pairs / ((double)g->n_positive * (double)g->n_negative);
  out->row_length = lengths / (double)count;
  free(room);
  return 0;
}
