/* bpe_table.h: the pieces of a byte-pair vocabulary by their text, and which pairs of them merge. Filled once:
 * every piece first, then the merges. Immutable then and safe to share between threads. */
#ifndef STEERD_CORE_MODEL_BPE_TABLE_H
#define STEERD_CORE_MODEL_BPE_TABLE_H

#include "core/model/pieces.h"

/* Most bytes a piece may have, so that two of them stay small. */
#define BPE_PIECE_BYTES 4096

struct bpe_merge {
  int32_t left, right;
  uint32_t rank;  /* the lowest goes first */
  int32_t result; /* -1: an empty slot */
};

/* The hash's upper half spares most comparisons of texts; where the text lies is here as well, to spare a look at it. */
struct bpe_entry {
  uint32_t tag;
  int32_t id; /* -1: an empty slot */
  uint32_t offset, length; /* in texts.bytes */
};

/* Look-ups in tables of many megabytes wait for memory: that many wait together. */
#define BPE_JOINS 64

/* A piece on its way into the index. */
struct bpe_waiting {
  uint64_t hash;
  int32_t id;
};

struct bpe_table {
  struct pieces texts;      /* what merging sees: bytes, or characters as files write them */
  struct bpe_entry *index;  /* [index_mask + 1], open addressing */
  struct bpe_merge *merges; /* [merge_mask + 1], the same */
  bool *made;               /* [texts.count] the result of a merge */
  size_t index_mask, merge_mask;
  struct bpe_waiting waiting[BPE_JOINS];
  size_t n_waiting;
};

/* Room for ids 0..count-1, of which `piece_count` are added, and for `merge_count` merges. */
int bpe_table_init(struct bpe_table *table, int32_t count, size_t piece_count, size_t merge_count,
                   struct error *error) MUST_CHECK;
void bpe_table_clear(struct bpe_table *table);

/* A piece that merging can find, once bpe_table_settle was called behind the last one. The id must be free. ERROR_FORMAT,
 * perhaps only then, when another one has the same text. */
int bpe_table_add(struct bpe_table *table, int32_t id, const char *text, size_t length,
                  struct error *error) MUST_CHECK;

int bpe_table_settle(struct bpe_table *table, struct error *error) MUST_CHECK;

/* The id of the piece with this text, or -1. */
int32_t bpe_table_find(const struct bpe_table *table, const char *text, size_t length);

/* The pieces with these texts merge at this rank. ERROR_FORMAT when one of them or their join is no piece. A
 * pair that comes again takes the later rank, as in the reference. */
int bpe_table_merge(struct bpe_table *table, const char *left, size_t left_length, const char *right,
                    size_t right_length, uint32_t rank, struct error *error) MUST_CHECK;

/* A merge that is to be looked up: the text of its left piece, then that of its right one. */
struct bpe_join {
  const char *text;
  size_t left_length, length; /* of the left piece, of both; each piece has at most BPE_PIECE_BYTES */
};

/* A text that is looked up. */
struct bpe_text {
  const char *text;
  size_t length;
};

/* bpe_table_find of `count` texts, at most BPE_JOINS. */
void bpe_table_find_all(const struct bpe_table *table, const struct bpe_text *texts, size_t count, int32_t *ids);

/* All merges at once, by ids, of a table that was made for none. */
int bpe_table_set_merges(struct bpe_table *table, const struct bpe_merge *merges, size_t count, struct error *error) MUST_CHECK;

/* As bpe_table_merge, for `count` merges (at most BPE_JOINS) of the ranks from `rank` on, in their order. False when a piece is missing: bpe_table_merge says which. */
bool bpe_table_merge_all(struct bpe_table *table, const struct bpe_join *joins, size_t count, uint32_t rank) MUST_CHECK;

/* The merge of two ids, or NULL. */
const struct bpe_merge *bpe_table_pair(const struct bpe_table *table, int32_t left, int32_t right);

#endif
