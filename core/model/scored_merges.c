/* scored_merges.c: owns the ranks that come of scores and the cuts of pieces; does not know which file they are from. */
#include "core/model/scored_merges.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

/* One way to cut a piece. */
struct cut {
  struct bpe_text left, right;
  int32_t result;
  uint32_t rank;
};

struct cutter {
  struct bpe_table *table;
  const struct scored_piece *pieces; /* by id */
  struct cut cuts[BPE_JOINS];
  size_t n_cuts;
  struct bpe_merge *merges; /* owned */
  size_t count, capacity;
};

static int by_score(const void *a, const void *b) {
  const struct scored_piece *x = *(const struct scored_piece *const *)a, *y = *(const struct scored_piece *const *)b;
  return x->score != y->score ? (x->score < y->score ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

static int push(struct cutter *c, struct bpe_merge merge, struct error *error) {
  if (c->count == c->capacity) {
    size_t capacity = size_max(1024, c->capacity * 2);
    struct bpe_merge *merges = realloc(c->merges, capacity * sizeof *merges);
    if (!merges)
      return error_memory(error, capacity * sizeof *merges);
    c->merges = merges;
    c->capacity = capacity;
  }
  c->merges[c->count++] = merge;
  return 0;
}

/* Looks up the sides of the cuts that wait; right ones only where the left one is a piece, which most are not. */
static int flush(struct cutter *c, struct error *error) {
  struct bpe_text texts[BPE_JOINS];
  int32_t left[BPE_JOINS], right[BPE_JOINS];
  size_t kept = 0;
  for (size_t i = 0; i < c->n_cuts; i++)
    texts[i] = c->cuts[i].left;
  bpe_table_find_all(c->table, texts, c->n_cuts, left);
  for (size_t i = 0; i < c->n_cuts; i++)
    if (left[i] >= 0 && c->pieces[left[i]].merges) {
      left[kept] = left[i];
      texts[kept] = c->cuts[i].right;
      c->cuts[kept++] = c->cuts[i];
    }
  bpe_table_find_all(c->table, texts, kept, right);
  c->n_cuts = 0;
  for (size_t i = 0; i < kept; i++)
    if (right[i] >= 0 && c->pieces[right[i]].merges &&
        push(c, (struct bpe_merge){left[i], right[i], c->cuts[i].rank, c->cuts[i].result}, error) != 0)
      return -1;
  return 0;
}

/* A piece is never half a character. */
static int cut_piece(struct cutter *c, const struct scored_piece *piece, uint32_t rank, struct error *error) {
  for (size_t at = 1; at < piece->length; at++) {
    if (((unsigned char)piece->text[at] & 0xC0) == 0x80)
      continue;
    c->cuts[c->n_cuts++] =
        (struct cut){{piece->text, at}, {piece->text + at, piece->length - at}, piece->id, rank};
    if (c->n_cuts == BPE_JOINS && flush(c, error) != 0)
      return -1;
  }
  return 0;
}

static int cut_all(struct cutter *c, const struct scored_piece *const *order, size_t count, struct error *error) {
  uint32_t rank = 0;
  for (size_t i = 0; i < count; i++) {
    rank += i > 0 && order[i]->score < order[i - 1]->score;
    if (cut_piece(c, order[i], rank, error) != 0)
      return -1;
  }
  return flush(c, error);
}

/* Files are nearly always in the order of their scores already. */
static bool is_sorted(const struct scored_piece *const *order, size_t count) {
  for (size_t i = 1; i < count; i++)
    if (by_score(&order[i - 1], &order[i]) > 0)
      return false;
  return true;
}

int scored_merges_add(struct bpe_table *table, const struct scored_piece *pieces, int32_t count, struct error *error) {
  struct cutter c = {.table = table, .pieces = pieces};
  size_t n = 0;
  const struct scored_piece **order = malloc((size_t)count * sizeof *order);
  if (!order)
    return error_memory(error, (size_t)count * sizeof *order);
  for (int32_t i = 0; i < count; i++)
    if (pieces[i].merges)
      order[n++] = &pieces[i];
  if (!is_sorted(order, n))
    qsort(order, n, sizeof *order, by_score);
  int result = cut_all(&c, order, n, error);
  if (result == 0)
    result = bpe_table_set_merges(table, c.merges, c.count, error);
  free(order);
  free(c.merges);
  return result;
}
