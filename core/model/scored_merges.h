/* scored_merges.h: the merges of a vocabulary that has none but scores, as SentencePiece's: two neighbours merge when their
 * join is a piece, the best score first. Each way to cut a piece in two pieces is a merge, at the rank of its score. */
#ifndef STEERD_CORE_MODEL_SCORED_MERGES_H
#define STEERD_CORE_MODEL_SCORED_MERGES_H

#include "core/model/bpe_table.h"

/* Each way to cut a piece is tried, so the work is the square of its bytes. Published ones have up to some 90. */
#define SCORED_PIECE_BYTES 256

struct scored_piece {
  const char *text; /* valid UTF-8; borrowed */
  size_t length;
  float score; /* finite */
  int32_t id;
  bool merges; /* made by merging, and merges on; at most SCORED_PIECE_BYTES then */
};

/* Adds the merges of pieces[0..count), all of which that merge are in the table; their ids are 0..count-1. Of pieces with one
 * score the leftmost in a text goes first, whichever way they are cut. The table must have no merge yet. */
int scored_merges_add(struct bpe_table *table, const struct scored_piece *pieces, int32_t count, struct error *error) MUST_CHECK;

#endif
