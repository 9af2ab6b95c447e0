/* bpe_table.c: owns the two hash tables; does not know files nor how a text is merged. */
#include "core/model/bpe_table.h"

#include <stdlib.h>
#include <string.h>

/* The finalizer of SplitMix64 (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

/* Eight bytes at a time; the length keeps texts apart that differ in trailing NULs. */
static uint64_t text_hash(const char *text, size_t length) {
  uint64_t hash = length, word;
  for (; length >= 8; text += 8, length -= 8) {
    memcpy(&word, text, 8);
    hash = mix(hash ^ word);
  }
  word = 0;
  memcpy(&word, text, length);
  return mix(hash ^ word ^ 0x9E3779B97F4A7C15u);
}

/* A power of two at least twice `count`, so that probes stay short. */
static bool table_size(size_t count, size_t *size) {
  if (count > SIZE_MAX / 64)
    return false;
  *size = 16;
  while (*size < count * 2)
    *size *= 2;
  return true;
}

/* The slot of the piece with this text, or the empty one where it would stand. */
static struct bpe_entry *entry_find(const struct bpe_table *table, const char *text, size_t length,
                                    uint64_t hash) {
  size_t slot = (size_t)hash & table->index_mask;
  uint32_t tag = (uint32_t)(hash >> 32);
  for (; table->index[slot].id >= 0; slot = (slot + 1) & table->index_mask) {
    if (table->index[slot].tag != tag)
      continue;
    const struct piece *piece = &table->texts.at[table->index[slot].id];
    if (piece->length == length && memcmp(table->texts.bytes.data + piece->offset, text, length) == 0)
      break;
  }
  return &table->index[slot];
}

static struct bpe_merge *merge_find(const struct bpe_table *table, int32_t left, int32_t right) {
  size_t slot = (size_t)mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & table->merge_mask;
  for (; table->merges[slot].result >= 0; slot = (slot + 1) & table->merge_mask)
    if (table->merges[slot].left == left && table->merges[slot].right == right)
      break;
  return &table->merges[slot];
}

int bpe_table_init(struct bpe_table *table, int32_t count, size_t piece_count, size_t merge_count,
                   struct error *error) {
  size_t index_size, merge_size;
  memset(table, 0, sizeof *table);
  if (!table_size(piece_count, &index_size) || !table_size(merge_count, &merge_size))
    return error_memory(error, SIZE_MAX);
  if (pieces_init(&table->texts, count, error) != 0)
    return -1;
  table->index_mask = index_size - 1;
  table->merge_mask = merge_size - 1;
  table->index = malloc(index_size * sizeof *table->index);
  table->merges = malloc(merge_size * sizeof *table->merges);
  table->made = calloc(count > 0 ? (size_t)count : 1, sizeof *table->made);
  if (!table->index || !table->merges || !table->made)
    return error_memory(error, merge_size * sizeof *table->merges);
  memset(table->index, 0xFF, index_size * sizeof *table->index); /* every id and result -1 */
  memset(table->merges, 0xFF, merge_size * sizeof *table->merges);
  return 0;
}

void bpe_table_clear(struct bpe_table *table) {
  pieces_clear(&table->texts);
  free(table->index);
  free(table->merges);
  free(table->made);
  memset(table, 0, sizeof *table);
}

int bpe_table_add(struct bpe_table *table, int32_t id, const char *text, size_t length,
                  struct error *error) {
  if (length == 0)
    return pieces_set(&table->texts, id, text, length, error); /* no text becomes it */
  uint64_t hash = text_hash(text, length);
  struct bpe_entry *entry = entry_find(table, text, length, hash);
  if (entry->id >= 0)
    return error_set(error, ERROR_FORMAT, "the ids %d and %d stand for the same bytes", entry->id, id);
  if (pieces_set(&table->texts, id, text, length, error) != 0)
    return -1;
  *entry = (struct bpe_entry){(uint32_t)(hash >> 32), id};
  return 0;
}

int32_t bpe_table_find(const struct bpe_table *table, const char *text, size_t length) {
  return entry_find(table, text, length, text_hash(text, length))->id;
}

int bpe_table_merge(struct bpe_table *table, const char *left, size_t left_length, const char *right,
                    size_t right_length, uint32_t rank, struct error *error) {
  char joined[2 * BPE_PIECE_BYTES];
  if (left_length > BPE_PIECE_BYTES || right_length > BPE_PIECE_BYTES)
    return error_set(error, ERROR_LIMIT, "merge %u names a piece of %zu bytes, at most %d are supported", rank,
                     left_length > right_length ? left_length : right_length, BPE_PIECE_BYTES);
  memcpy(joined, left, left_length);
  memcpy(joined + left_length, right, right_length);
  int32_t a = bpe_table_find(table, left, left_length), b = bpe_table_find(table, right, right_length);
  int32_t result = bpe_table_find(table, joined, left_length + right_length);
  if (a < 0 || b < 0 || result < 0)
    return error_set(error, ERROR_FORMAT, "merge %u: the vocabulary lacks its %s", rank,
                     a < 0   ? "left piece"
                     : b < 0 ? "right piece"
                             : "result");
  *merge_find(table, a, b) = (struct bpe_merge){a, b, rank, result};
  table->made[result] = true;
  return 0;
}

const struct bpe_merge *bpe_table_pair(const struct bpe_table *table, int32_t left, int32_t right) {
  const struct bpe_merge *merge = merge_find(table, left, right);
  return merge->result >= 0 ? merge : NULL;
}
