/* tokenizer_bpe.c: owns the merge table, the index from bytes to ids and the merging itself; does not know
 * files. A stretch is a linked list of symbols, candidate pairs wait in a heap, so n bytes cost O(n log n)
 * even when they are one stretch. */
#include "core/model/tokenizer_bpe.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

struct merge {
  int32_t left, right;
  uint32_t rank;
  int32_t result; /* -1: an empty slot */
};

struct bpe {
  const struct pieces *pieces;
  struct bpe_options options;
  int32_t byte_ids[256]; /* -1: no piece */
  struct merge *merges;  /* [merge_mask + 1], open addressing */
  size_t merge_mask;
  uint32_t merge_count;
  int32_t *index; /* [index_mask + 1] ids by the hash of their bytes, -1 empty */
  size_t index_mask;
  bool *made;    /* [pieces->count] a byte or the result of a merge */
  bool complete; /* every byte has a piece */
};

/* ---- tables ------------------------------------------------------------------------------------- */

/* The finalizer of SplitMix64 (Steele, Lea and Flood, 2014). */
static uint64_t mix(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

static size_t pair_slot(const struct bpe *bpe, int32_t left, int32_t right) {
  return (size_t)mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & bpe->merge_mask;
}

/* FNV-1a, mixed because its low bits are weak. */
static size_t bytes_slot(const struct bpe *bpe, const char *bytes, size_t length) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (size_t i = 0; i < length; i++)
    hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001B3u;
  return (size_t)mix(hash) & bpe->index_mask;
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

static struct merge *merge_find(const struct bpe *bpe, int32_t left, int32_t right) {
  size_t slot = pair_slot(bpe, left, right);
  while (bpe->merges[slot].result >= 0) {
    struct merge *merge = &bpe->merges[slot];
    if (merge->left == left && merge->right == right)
      return merge;
    slot = (slot + 1) & bpe->merge_mask;
  }
  return &bpe->merges[slot];
}

/* The slot of the piece with these bytes, or the empty one where it would stand. */
static int32_t *index_find(const struct bpe *bpe, const char *bytes, size_t length) {
  size_t slot = bytes_slot(bpe, bytes, length), have;
  while (bpe->index[slot] >= 0) {
    const char *piece = pieces_get(bpe->pieces, bpe->index[slot], &have);
    if (have == length && memcmp(piece, bytes, length) == 0)
      break;
    slot = (slot + 1) & bpe->index_mask;
  }
  return &bpe->index[slot];
}

/* ---- building ----------------------------------------------------------------------------------- */

static void bpe_free(void *state) {
  struct bpe *bpe = state;
  if (!bpe)
    return;
  pretokenizer_free(bpe->options.split);
  free(bpe->merges);
  free(bpe->index);
  free(bpe->made);
  free(bpe);
}

static int tables_new(struct bpe *bpe, size_t piece_count, size_t merge_count, struct error *error) {
  size_t index_size, merge_size;
  if (!table_size(piece_count, &index_size) || !table_size(merge_count, &merge_size))
    return error_memory(error, SIZE_MAX);
  bpe->index_mask = index_size - 1;
  bpe->merge_mask = merge_size - 1;
  bpe->index = malloc(index_size * sizeof *bpe->index);
  bpe->merges = malloc(merge_size * sizeof *bpe->merges);
  bpe->made = calloc(bpe->pieces->count > 0 ? (size_t)bpe->pieces->count : 1, sizeof *bpe->made);
  if (!bpe->index || !bpe->merges || !bpe->made)
    return error_memory(error, merge_size * sizeof *bpe->merges);
  memset(bpe->index, 0xFF, index_size * sizeof *bpe->index); /* every id -1 */
  for (size_t i = 0; i < merge_size; i++)
    bpe->merges[i].result = -1;
  memset(bpe->byte_ids, 0xFF, sizeof bpe->byte_ids);
  return 0;
}

struct bpe *bpe_new(const struct pieces *pieces, size_t piece_count, size_t merge_count,
                    struct error *error) {
  struct bpe *bpe = calloc(1, sizeof *bpe);
  if (!bpe)
    return error_memory(error, sizeof *bpe), NULL;
  bpe->pieces = pieces;
  if (tables_new(bpe, piece_count, merge_count, error) != 0) {
    bpe_free(bpe);
    return NULL;
  }
  return bpe;
}

void bpe_set_options(struct bpe *bpe, struct bpe_options options) {
  pretokenizer_free(bpe->options.split);
  bpe->options = options;
  bpe->complete = bpe_missing_byte(bpe) < 0;
}

int bpe_index(struct bpe *bpe, int32_t id, struct error *error) {
  size_t length;
  const char *bytes = pieces_get(bpe->pieces, id, &length);
  int32_t *slot = index_find(bpe, bytes, length);
  if (*slot >= 0)
    return error_set(error, ERROR_FORMAT, "the ids %d and %d stand for the same bytes", *slot, id);
  *slot = id;
  if (length == 1) {
    bpe->byte_ids[(unsigned char)bytes[0]] = id;
    bpe->made[id] = true;
  }
  return 0;
}

int bpe_merge(struct bpe *bpe, const char *left, size_t left_length, const char *right, size_t right_length,
              struct error *error) {
  char joined[2 * BPE_PIECE_BYTES];
  if (left_length + right_length > sizeof joined)
    return error_set(error, ERROR_LIMIT, "merge %u joins %zu bytes, at most %zu are supported",
                     bpe->merge_count, left_length + right_length, sizeof joined);
  memcpy(joined, left, left_length);
  memcpy(joined + left_length, right, right_length);
  int32_t a = *index_find(bpe, left, left_length), b = *index_find(bpe, right, right_length);
  int32_t result = *index_find(bpe, joined, left_length + right_length);
  if (a < 0 || b < 0 || result < 0)
    return error_set(error, ERROR_FORMAT, "merge %u: the vocabulary lacks its %s", bpe->merge_count,
                     a < 0   ? "left piece"
                     : b < 0 ? "right piece"
                             : "result");
  *merge_find(bpe, a, b) = (struct merge){a, b, bpe->merge_count++, result};
  bpe->made[result] = true;
  return 0;
}

bool bpe_makes(const struct bpe *bpe, int32_t id) { return bpe->made[id]; }

int bpe_missing_byte(const struct bpe *bpe) {
  for (int i = 0; i < 256; i++)
    if (bpe->byte_ids[i] < 0)
      return i;
  return -1;
}

/* GPT-2 writes bytes that print as the character of the same number and the 68 others, in order, as U+0100
 * and up. */
static int byte_of_point(uint32_t p) {
  if ((p >= 33 && p <= 126) || (p >= 161 && p <= 172) || (p >= 174 && p <= 255))
    return (int)p;
  if (p >= 256 && p <= 288)
    return (int)p - 256; /* bytes 0..32 */
  if (p >= 289 && p <= 322)
    return (int)p - 289 + 127; /* bytes 127..160 */
  return p == 323 ? 173 : -1;
}

int bpe_piece_bytes(const char *text, size_t length, char *out, size_t *out_length) {
  uint32_t point;
  size_t count = 0;
  for (size_t i = 0; i < length;) {
    int n = utf8_next(text + i, length - i, &point);
    int byte = n > 0 ? byte_of_point(point) : -1;
    if (byte < 0)
      return -1;
    out[count++] = (char)byte;
    i += (size_t)n;
  }
  *out_length = count;
  return 0;
}

/* ---- merging ------------------------------------------------------------------------------------ */

struct symbol {
  int32_t id;         /* -1: merged into the one before */
  int32_t prev, next; /* -1: none */
};

/* Working memory of one encode call, kept from stretch to stretch. */
struct merger {
  const struct bpe *bpe;
  struct id_list *ids;
  struct symbol *symbols;
  uint64_t *heap; /* rank in the high half, position in the low: the smallest is the next to merge */
  size_t heap_count;
  size_t room; /* bytes of the longest stretch there is room for */
};

static void heap_push(struct merger *m, uint64_t key) {
  size_t at = m->heap_count++;
  while (at > 0) {
    size_t parent = (at - 1) / 2;
    if (m->heap[parent] <= key)
      break;
    m->heap[at] = m->heap[parent];
    at = parent;
  }
  m->heap[at] = key;
}

static uint64_t heap_pop(struct merger *m) {
  uint64_t top = m->heap[0], key = m->heap[--m->heap_count];
  size_t at = 0, child;
  while ((child = 2 * at + 1) < m->heap_count) {
    if (child + 1 < m->heap_count && m->heap[child + 1] < m->heap[child])
      child++;
    if (key <= m->heap[child])
      break;
    m->heap[at] = m->heap[child];
    at = child;
  }
  m->heap[at] = key;
  return top;
}

/* The merge of the symbol at `at` with its right neighbour, or NULL. */
static const struct merge *merge_at(const struct merger *m, int32_t at) {
  const struct symbol *symbol = &m->symbols[at];
  if (symbol->id < 0 || symbol->next < 0)
    return NULL;
  const struct merge *merge = merge_find(m->bpe, symbol->id, m->symbols[symbol->next].id);
  return merge->result >= 0 ? merge : NULL;
}

static void offer(struct merger *m, int32_t at) {
  const struct merge *merge = at >= 0 ? merge_at(m, at) : NULL;
  if (merge)
    heap_push(m, (uint64_t)merge->rank << 32 | (uint32_t)at);
}

static void join(struct merger *m, int32_t at, int32_t result) {
  struct symbol *symbol = &m->symbols[at], *gone = &m->symbols[symbol->next];
  symbol->id = result;
  symbol->next = gone->next;
  gone->id = -1;
  if (symbol->next >= 0)
    m->symbols[symbol->next].prev = at;
  offer(m, symbol->prev);
  offer(m, at);
}

/* Every join offers at most two pairs, so the heap holds less than 3 entries a byte. */
static int make_room(struct merger *m, size_t length, struct error *error) {
  if (length <= m->room)
    return 0;
  size_t room = size_max(length, 256);
  free(m->symbols);
  free(m->heap);
  m->room = 0;
  m->symbols = malloc(room * sizeof *m->symbols);
  m->heap = malloc(room * 3 * sizeof *m->heap);
  if (!m->symbols || !m->heap)
    return error_memory(error, room * 3 * sizeof *m->heap);
  m->room = room;
  return 0;
}

static void merge_all(struct merger *m, const char *piece, int32_t length) {
  for (int32_t i = 0; i < length; i++)
    m->symbols[i] =
        (struct symbol){m->bpe->byte_ids[(unsigned char)piece[i]], i - 1, i + 1 < length ? i + 1 : -1};
  m->heap_count = 0;
  for (int32_t i = 0; i < length; i++)
    offer(m, i);
  while (m->heap_count > 0) {
    uint64_t key = heap_pop(m);
    const struct merge *merge = merge_at(m, (int32_t)(uint32_t)key);
    /* A pair that changed since it was offered has another rank: it was offered again then. */
    if (merge && merge->rank == (uint32_t)(key >> 32))
      join(m, (int32_t)(uint32_t)key, merge->result);
  }
}

/* The id of a stretch that is a piece as a whole, when that goes before the merges, else -1. */
static int32_t whole_piece(const struct bpe *bpe, const char *piece, size_t length) {
  if (!bpe->options.ignore_merges)
    return -1;
  int32_t id = *index_find(bpe, piece, length);
  return id >= 0 && bpe->pieces->at[id].special ? -1 : id;
}

static int encode_stretch(void *context, const char *piece, size_t length, struct error *error) {
  struct merger *m = context;
  int32_t id = whole_piece(m->bpe, piece, length);
  if (id >= 0)
    return id_list_push(m->ids, id, error);
  if (make_room(m, length, error) != 0)
    return -1;
  merge_all(m, piece, (int32_t)length);
  for (int32_t at = 0; at >= 0; at = m->symbols[at].next)
    if (id_list_push(m->ids, m->symbols[at].id, error) != 0)
      return -1;
  return 0;
}

/* Vocabularies made without the whole alphabet cannot spell every text. */
static int check_bytes(const struct bpe *bpe, const char *text, size_t from, size_t to, struct error *error) {
  uint32_t point = 0;
  for (size_t at = from; at < to && !bpe->complete;) {
    int n = utf8_next(text + at, to - at, &point);
    for (int i = 0; i < n; i++)
      if (bpe->byte_ids[(unsigned char)text[at + (size_t)i]] < 0)
        return error_set(error, ERROR_ARGUMENT,
                         "the vocabulary has no piece for byte 0x%02x of the character U+%04X at byte %zu",
                         (unsigned char)text[at + (size_t)i], (unsigned)point, at);
    at += n > 0 ? (size_t)n : 1;
  }
  return 0;
}

static int encode_text(struct merger *m, const char *text, size_t length, struct error *error) {
  if (!m->bpe->options.split)
    return encode_stretch(m, text, length, error);
  return pretokenizer_run(m->bpe->options.split, text, length, encode_stretch, m, error);
}

static int encode_prefixed(struct merger *m, const char *text, size_t length, struct error *error) {
  char *spaced = malloc(length + 1);
  if (!spaced)
    return error_memory(error, length + 1);
  spaced[0] = ' ';
  memcpy(spaced + 1, text, length);
  int result = encode_text(m, spaced, length + 1, error);
  free(spaced);
  return result;
}

static int bpe_encode(const void *state, const char *text, size_t from, size_t to, struct id_list *ids,
                      struct error *error) {
  const struct bpe *bpe = state;
  struct merger m = {.bpe = bpe, .ids = ids};
  bool prefix = bpe->options.prefix_space && text[from] != ' ';
  if (prefix && check_bytes(bpe, " ", 0, 1, error) != 0)
    return -1;
  if (check_bytes(bpe, text, from, to, error) != 0)
    return -1;
  int result = (prefix ? encode_prefixed : encode_text)(&m, text + from, to - from, error);
  free(m.symbols);
  free(m.heap);
  return result;
}

const struct tokenizer_kind bpe_kind = {bpe_encode, bpe_free};
