/* attribute.h: what the two files of the verb "attribute" share. Private to them. */
#ifndef STEERD_CORE_LAB_ATTRIBUTE_H
#define STEERD_CORE_LAB_ATTRIBUTE_H

#include "core/base/spool.h"
#include "core/lab/experiment.h"
#include "core/model/backward.h"

/* One source on its way: how far its rows have come, and sums over the text by feature. */
struct attributed {
  const struct dict *dict;
  struct point in, out;      /* out: where gradients are taken: of neurons the point that is read, where each is a column */
  bool neurons;
  int64_t out_width, out_column, d_out; /* of `out` */
  int64_t row;               /* of the text: what comes next */
  double *sums;              /* [n_feat] attribution over the text */
  float *largest[2];         /* [n_feat] activation in either text */
  struct lab_share *positions; /* [n_positions] */
  struct lab_attributed_source *result;
};

struct attribute {
  struct experiment e;
  struct lab_attribute_args args;     /* numbers only */
  struct lab_ids against;
  int32_t *answers;
  struct point *points, *asked;       /* points: of result.points; asked: those and what sources read and write */
  int n_asked;
  struct lab_attribution *attributions;
  double **values;                    /* of each attribution */
  struct attributed *sources;
  struct edit_list *edits;
  struct edit_placed *placed;
  struct edit_item *items;
  int32_t *begin;                     /* [points + 1] */
  struct backward *backward;
  struct spool *spool;
  float *rows[3];                     /* gradients and values of a point, [n_tokens][width] */
  int64_t widest;
  struct lab_attribute_result result;
};

/* Finds the sources and makes room for what becomes of them; result.positions are known. */
int attribute_sources(struct attribute *attribute, struct lab *lab, const struct lab_attribute_args *args, struct error *error) MUST_CHECK;
void attribute_clear_sources(struct attribute *attribute);

/* Worker: some rows of the sources that write this point; 1 while there are more. */
int attribute_features(struct attribute *attribute, const struct backward_seen *seen, struct error *error) MUST_CHECK;

/* What is left once all rows have been seen. */
int attribute_finish_sources(struct attribute *attribute, struct error *error) MUST_CHECK;

#endif
