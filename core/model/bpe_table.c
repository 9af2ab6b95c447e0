/* bpe_table.c: owns the two hash tables; does not know files nor how a text is merged. */
#include "core/model/bpe_table.h"

#include <stdlib.h>
#include <string.h>

/* The three texts of a merge. */
enum { LEFT, RIGHT, RESULT, SIDES };

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

/* Texts are mostly shorter than a call of memcmp is worth. */
static bool same_text(const char *a, const char *b, size_t length) {
  uint64_t x, y;
  for (; length >= 8; a += 8, b += 8, length -= 8) {
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    if (x != y) return false;
  }
  while (length > 0 && *a == *b) a++, b++, length--;
  return length == 0;
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
    const struct bpe_entry *entry = &table->index[slot];
    if (entry->tag == tag && entry->length == length &&
        same_text(table->texts.bytes.data + entry->offset, text, length))
      break;
  }
  return &table->index[slot];
}

static size_t merge_slot(const struct bpe_table *table, int32_t left, int32_t right) {
  return (size_t)mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & table->merge_mask;
}

static struct bpe_merge *merge_find(const struct bpe_table *table, int32_t left, int32_t right) {
  size_t slot = merge_slot(table, left, right);
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
  if (pieces_set(&table->texts, id, text, length, error) != 0)
    return -1;
  if (length == 0)
    return 0; /* no text becomes it */
  uint64_t hash = text_hash(text, length);
  __builtin_prefetch(&table->index[hash & table->index_mask], 1);
  table->waiting[table->n_waiting++] = (struct bpe_waiting){hash, id};
  return table->n_waiting < BPE_JOINS ? 0 : bpe_table_settle(table, error);
}

int bpe_table_settle(struct bpe_table *table, struct error *error) {
  for (size_t i = 0; i < table->n_waiting; i++) {
    const struct bpe_waiting *piece = &table->waiting[i];
    const struct piece *text = &table->texts.at[piece->id];
    struct bpe_entry *entry =
        entry_find(table, table->texts.bytes.data + text->offset, text->length, piece->hash);
    if (entry->id >= 0)
      return error_set(error, ERROR_FORMAT, "the ids %d and %d stand for the same bytes", entry->id, piece->id);
    *entry = (struct bpe_entry){(uint32_t)(piece->hash >> 32), piece->id, text->offset, text->length};
  }
  table->n_waiting = 0;
  return 0;
}

int32_t bpe_table_find(const struct bpe_table *table, const char *text, size_t length) {
  return entry_find(table, text, length, text_hash(text, length))->id;
}

static void merge_put(struct bpe_table *table, const int32_t id[SIDES], uint32_t rank) {
  *merge_find(table, id[LEFT], id[RIGHT]) = (struct bpe_merge){id[LEFT], id[RIGHT], rank, id[RESULT]};
  table->made[id[RESULT]] = true;
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
  merge_put(table, (int32_t[]){a, b, result}, rank);
  return 0;
}

/* ---- many merges at once ---- */

/* A merge on its way: hashes of its texts first, then the ids they stand for. */
struct lookup {
  const char *text[SIDES];
  size_t length[SIDES];
  uint64_t hash[SIDES];
  int32_t id[SIDES];
};

static void lookup_begin(const struct bpe_table *table, const struct bpe_join *join, struct lookup *out) {
  *out = (struct lookup){{join->text, join->text + join->left_length, join->text},
                         {join->left_length, join->length - join->left_length, join->length}, {0}, {0}};
  for (int side = 0; side < SIDES; side++) {
    out->hash[side] = text_hash(out->text[side], out->length[side]);
    __builtin_prefetch(&table->index[out->hash[side] & table->index_mask]);
  }
}

/* What the first slot points at is nearly always what is sought. */
static void lookup_fetch_text(const struct bpe_table *table, const struct lookup *lookup) {
  for (int side = 0; side < SIDES; side++) {
    const struct bpe_entry *entry = &table->index[lookup->hash[side] & table->index_mask];
    if (entry->id >= 0) __builtin_prefetch(table->texts.bytes.data + entry->offset);
  }
}

static bool lookup_end(const struct bpe_table *table, struct lookup *lookup) {
  bool found = true;
  for (int side = 0; side < SIDES; side++) {
    lookup->id[side] = entry_find(table, lookup->text[side], lookup->length[side], lookup->hash[side])->id;
    found = found && lookup->id[side] >= 0;
  }
  if (found) __builtin_prefetch(&table->merges[merge_slot(table, lookup->id[LEFT], lookup->id[RIGHT])], 1);
  return found;
}

bool bpe_table_merge_all(struct bpe_table *table, const struct bpe_join *joins, size_t count, uint32_t rank) {
  struct lookup lookups[BPE_JOINS];
  bool found = true;
  for (size_t i = 0; i < count; i++) lookup_begin(table, &joins[i], &lookups[i]);
  for (size_t i = 0; i < count; i++) lookup_fetch_text(table, &lookups[i]);
  for (size_t i = 0; i < count; i++) found = lookup_end(table, &lookups[i]) && found;
  for (size_t i = 0; i < count && found; i++) merge_put(table, lookups[i].id, rank + (uint32_t)i);
  return found;
}

void bpe_table_find_all(const struct bpe_table *table, const struct bpe_text *texts, size_t count, int32_t *ids) {
  uint64_t hash[BPE_JOINS];
  for (size_t i = 0; i < count; i++) {
    hash[i] = text_hash(texts[i].text, texts[i].length);
    __builtin_prefetch(&table->index[hash[i] & table->index_mask]);
  }
  for (size_t i = 0; i < count; i++) {
    const struct bpe_entry *entry = &table->index[hash[i] & table->index_mask];
    if (entry->id >= 0 && entry->tag == (uint32_t)(hash[i] >> 32)) __builtin_prefetch(table->texts.bytes.data + entry->offset);
  }
  for (size_t i = 0; i < count; i++) ids[i] = entry_find(table, texts[i].text, texts[i].length, hash[i])->id;
}

/* The merges known how many, their table has its size. */
int bpe_table_set_merges(struct bpe_table *table, const struct bpe_merge *merges, size_t count, struct error *error) {
  size_t size;
  if (!table_size(count, &size))
    return error_memory(error, SIZE_MAX);
  struct bpe_merge *slots = malloc(size * sizeof *slots);
  if (!slots)
    return error_memory(error, size * sizeof *slots);
  memset(slots, 0xFF, size * sizeof *slots); /* every result -1 */
  free(table->merges);
  table->merges = slots;
  table->merge_mask = size - 1;
  for (size_t i = 0; i < count; i++) {
    size_t ahead = i + BPE_JOINS / 4;
    if (ahead < count) __builtin_prefetch(&slots[merge_slot(table, merges[ahead].left, merges[ahead].right)], 1);
    merge_put(table, (int32_t[]){merges[i].left, merges[i].right, merges[i].result}, merges[i].rank);
  }
  return 0;
}

const struct bpe_merge *bpe_table_pair(const struct bpe_table *table, int32_t left, int32_t right) {
  const struct bpe_merge *merge = merge_find(table, left, right);
  return merge->result >= 0 ? merge : NULL;
}
