/* tokenizer_bpe.c: owns the spelling of a stretch in single pieces and the merging; does not know files. A
 * stretch is a linked list of symbols, candidate pairs wait in a heap, so n bytes cost O(n log n) even when they
 * are one stretch. */
#include "core/model/tokenizer_bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/base/utf8.h"

struct bpe {
  struct bpe_table table;
  const struct pieces *shown; /* of the tokenizer */
  struct bpe_options options;
  int32_t byte_ids[256]; /* pieces of one byte, which are characters where they are ASCII; -1: no piece */
  int32_t fallback[256]; /* <0xHH>; -1: no piece */
  bool complete;         /* no character needs `unknown` */
};

/* ---- building ----------------------------------------------------------------------------------- */

static void bpe_free(void *state) {
  struct bpe *bpe = state;
  if (!bpe)
    return;
  pretokenizer_free(bpe->options.split);
  bpe_table_clear(&bpe->table);
  free(bpe);
}

struct bpe *bpe_new(const struct pieces *shown, size_t piece_count, size_t merge_count,
                    struct error *error) {
  struct bpe *bpe = calloc(1, sizeof *bpe);
  if (!bpe)
    return error_memory(error, sizeof *bpe), NULL;
  bpe->shown = shown;
  if (bpe_table_init(&bpe->table, shown->count, piece_count, merge_count, error) == 0)
    return bpe;
  bpe_free(bpe);
  return NULL;
}

struct bpe_table *bpe_table_of(struct bpe *bpe) {
  return &bpe->table;
}

static bool all_set(const int32_t ids[256]) {
  int i = 0;
  while (i < 256 && ids[i] >= 0)
    i++;
  return i == 256;
}

void bpe_set_options(struct bpe *bpe, struct bpe_options options) {
  char text[8];
  pretokenizer_free(bpe->options.split);
  bpe->options = options;
  for (int i = 0; i < 256; i++) {
    char byte = (char)i;
    bpe->byte_ids[i] = bpe_table_find(&bpe->table, &byte, 1);
    snprintf(text, sizeof text, "<0x%02X>", (unsigned)i);
    bpe->fallback[i] = options.byte_fallback ? bpe_table_find(&bpe->table, text, strlen(text)) : -1;
  }
  bpe->complete = all_set(options.byte_level ? bpe->byte_ids : bpe->fallback);
}

bool bpe_is_complete(const struct bpe *bpe) { return bpe->complete; }

bool bpe_makes(const struct bpe *bpe, int32_t id) {
  size_t length;
  uint32_t point;
  const char *text = pieces_get(&bpe->table.texts, id, &length);
  if (length == 0)
    return false;
  bool single = bpe->options.byte_level ? length == 1 : utf8_next(text, length, &point) == (int)length;
  return single || bpe->table.made[id] || (bpe->options.byte_fallback && decoder_fallback_byte(text, length) >= 0);
}

/* ---- merging ------------------------------------------------------------------------------------ */

struct symbol {
  int32_t id;         /* -1: merged into the one before */
  int32_t prev, next; /* -1: none */
};

/* Working memory of one encode call, kept from stretch to stretch. */
struct merger {
  const struct bpe *bpe;
  const struct text_part *part;
  struct id_list *ids;
  struct symbol *symbols;
  int32_t count;  /* symbols of this stretch */
  bool unknown;   /* an `unknown` is due before the next known character */
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
static const struct bpe_merge *merge_at(const struct merger *m, int32_t at) {
  const struct symbol *symbol = &m->symbols[at];
  if (symbol->id < 0 || symbol->next < 0)
    return NULL;
  return bpe_table_pair(&m->bpe->table, symbol->id, m->symbols[symbol->next].id);
}

static void offer(struct merger *m, int32_t at) {
  const struct bpe_merge *merge = at >= 0 ? merge_at(m, at) : NULL;
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

/* Every join takes a pair and offers at most two, so the heap holds less than 2 entries a symbol. */
static int make_room(struct merger *m, size_t length, struct error *error) {
  if (length <= m->room)
    return 0;
  size_t room = size_max(length, 256);
  free(m->symbols);
  free(m->heap);
  m->room = 0;
  m->symbols = malloc(room * sizeof *m->symbols);
  m->heap = malloc(room * 2 * sizeof *m->heap);
  if (!m->symbols || !m->heap)
    return error_memory(error, room * 2 * sizeof *m->heap);
  m->room = room;
  return 0;
}

static void merge_all(struct merger *m) {
  m->heap_count = 0;
  for (int32_t i = 0; i < m->count; i++) {
    m->symbols[i].prev = i - 1;
    m->symbols[i].next = i + 1 < m->count ? i + 1 : -1;
  }
  for (int32_t i = 0; i < m->count; i++)
    offer(m, i);
  while (m->heap_count > 0) {
    uint64_t key = heap_pop(m);
    const struct bpe_merge *merge = merge_at(m, (int32_t)(uint32_t)key);
    /* A pair that changed since it was offered has another rank: it was offered again then. */
    if (merge && merge->rank == (uint32_t)(key >> 32))
      join(m, (int32_t)(uint32_t)key, merge->result);
  }
}

/* ---- spelling ----------------------------------------------------------------------------------- */

static void put_symbol(struct merger *m, int32_t id) { m->symbols[m->count++].id = id; }

static void put_unknown(struct merger *m) {
  if (m->unknown)
    put_symbol(m, m->bpe->options.unknown);
  m->unknown = false;
}

/* " at byte 7" of the whole text, where the stretch at `text` is a part of what the caller gave. */
static void show_place(const struct merger *m, const char *text, char *out, size_t size) {
  uintptr_t at = (uintptr_t)text, begin = (uintptr_t)m->part->text;
  bool inside = at >= begin && at < begin + m->part->length;
  if (inside && !m->part->changed)
    snprintf(out, size, " at byte %zu", m->part->offset + (size_t)(at - begin));
  else
    snprintf(out, size, " of the text as the tokenizer sees it");
}

/* text[at..) begins with a character, or is a byte of one, that has no piece. */
static int refuse_character(const struct merger *m, const char *text, size_t at, size_t length,
                            struct error *error) {
  char place[64], byte[32] = "";
  uint32_t point = 0;
  size_t begin = at;
  while (begin > 0 && ((unsigned char)text[begin] & 0xC0) == 0x80)
    begin--;
  if (m->bpe->options.byte_level)
    snprintf(byte, sizeof byte, "byte 0x%02x of ", (unsigned char)text[at]);
  show_place(m, text + begin, place, sizeof place);
  utf8_next(text + begin, length - begin, &point);
  return error_set(error, ERROR_ARGUMENT, "the vocabulary has no piece for %sthe character U+%04X%s", byte,
                   (unsigned)point, place);
}

/* The bytes of a character that has no piece; false when one of them has no <0xHH>. */
static bool spell_bytes(struct merger *m, const char *text, size_t length) {
  for (size_t i = 0; i < length; i++)
    if (m->bpe->fallback[(unsigned char)text[i]] < 0)
      return false;
  for (size_t i = 0; i < length; i++)
    put_symbol(m, m->bpe->fallback[(unsigned char)text[i]]);
  return true;
}

/* One character, or one byte of a byte-level vocabulary. As in the reference, bytes of the fallback do not end
 * a run of unknown characters: their `unknown` comes behind them. False: it has no piece. */
static bool spell_one(struct merger *m, const char *text, size_t length) {
  const struct bpe *bpe = m->bpe;
  int32_t id = length == 1 ? bpe->byte_ids[(unsigned char)text[0]] : bpe_table_find(&bpe->table, text, length);
  if (id >= 0) {
    put_unknown(m);
    put_symbol(m, id);
    return true;
  }
  if (bpe->options.byte_fallback && spell_bytes(m, text, length))
    return true;
  if (bpe->options.unknown < 0)
    return false;
  if (!bpe->options.fuse_unknown)
    put_unknown(m);
  m->unknown = true;
  return true;
}

static int spell(struct merger *m, const char *text, size_t length, struct error *error) {
  uint32_t point;
  m->count = 0;
  m->unknown = false;
  for (size_t at = 0; at < length;) {
    int n = m->bpe->options.byte_level ? 1 : utf8_next(text + at, length - at, &point);
    if (n <= 0)
      return error_set(error, ERROR_BUG, "a stretch is not UTF-8 at byte %zu", at);
    if (!spell_one(m, text + at, (size_t)n))
      return refuse_character(m, text, at, length, error);
    at += (size_t)n;
  }
  put_unknown(m);
  return 0;
}

/* The id of a stretch that is a piece as a whole, when that goes before the merges, else -1. */
static int32_t whole_piece(const struct bpe *bpe, const char *text, size_t length) {
  if (!bpe->options.ignore_merges)
    return -1;
  int32_t id = bpe_table_find(&bpe->table, text, length);
  return id >= 0 && bpe->shown->at[id].special ? -1 : id;
}

static int encode_stretch(void *context, const char *text, size_t length, struct error *error) {
  struct merger *m = context;
  int32_t id = whole_piece(m->bpe, text, length);
  if (id >= 0)
    return id_list_push(m->ids, id, error);
  if (make_room(m, length, error) != 0 || spell(m, text, length, error) != 0)
    return -1;
  merge_all(m);
  for (int32_t at = m->count > 0 ? 0 : -1; at >= 0; at = m->symbols[at].next)
    if (id_list_push(m->ids, m->symbols[at].id, error) != 0)
      return -1;
  return 0;
}

/* ---- texts -------------------------------------------------------------------------------------- */

static int bpe_encode(const void *state, const struct text_part *part, struct id_list *ids,
                      struct error *error) {
  const struct bpe *bpe = state;
  struct merger m = {.bpe = bpe, .ids = ids, .part = part};
  int result = bpe->options.split ? pretokenizer_run(bpe->options.split, part->text, part->length,
                                                     part->offset == 0, encode_stretch, &m, error)
                                  : encode_stretch(&m, part->text, part->length, error);
  free(m.symbols);
  free(m.heap);
  return result;
}

static const char *bpe_title(const void *state) {
  const struct bpe_options *options = &((const struct bpe *)state)->options;
  if (options->byte_level) return "byte-level BPE (GPT-2's)";
  return options->byte_fallback ? "BPE of characters with byte fallback (SentencePiece's)" : "BPE of characters";
}

const struct tokenizer_kind bpe_kind = {bpe_encode, bpe_free, bpe_title};
