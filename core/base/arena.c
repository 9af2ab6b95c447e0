#include "core/base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

#define ARENA_BLOCK ((size_t)64 * 1024)

struct arena_block {
  struct arena_block *next;
  size_t size, used;
  _Alignas(16) unsigned char data[];
};

void arena_init(struct arena *arena, size_t limit) {
  memset(arena, 0, sizeof *arena);
  arena->limit = limit;
}

void arena_clear(struct arena *arena) {
  for (struct arena_block *block = arena->head, *next; block; block = next) {
    next = block->next;
    free(block);
  }
  arena->head = NULL;
  arena->used = 0;
}

void arena_reset(struct arena *arena) {
  struct arena_block *kept = NULL;
  for (struct arena_block *block = arena->head, *next; block; block = next) {
    next = block->next;
    /* An outsized block would hold its memory for ever. */
    if (kept || block->size > ARENA_BLOCK) {
      free(block);
      continue;
    }
    kept = block;
    kept->used = 0;
    kept->next = NULL;
  }
  arena->head = kept;
  arena->used = 0;
}

static struct arena_block *block_new(size_t bytes) {
  size_t size = size_max(bytes, ARENA_BLOCK), total;
  if (!checked_add(size, sizeof(struct arena_block), &total)) return NULL;
  struct arena_block *block = malloc(total);
  if (!block) return NULL;
  block->size = size;
  block->used = 0;
  return block;
}

void *arena_alloc(struct arena *arena, size_t bytes, struct error *error) {
  if (bytes > SIZE_MAX / 2) return error_memory(error, bytes), NULL;
  size_t need = size_round_up(bytes ? bytes : 1, 16);
  if (arena->limit && (need > arena->limit || arena->used > arena->limit - need)) {
    error_set(error, ERROR_LIMIT, "more than the limit of %zu bytes of working memory is needed", arena->limit);
    return NULL;
  }
  struct arena_block *block = arena->head;
  if (!block || block->size - block->used < need) {
    block = block_new(need);
    if (!block) return error_memory(error, need), NULL;
    block->next = arena->head;
    arena->head = block;
  }
  void *memory = block->data + block->used;
  block->used += need;
  arena->used += need;
  return memset(memory, 0, need);
}

void *arena_array(struct arena *arena, size_t count, size_t size, struct error *error) {
  size_t bytes;
  if (!checked_mul(count, size, &bytes)) return error_memory(error, SIZE_MAX), NULL;
  return arena_alloc(arena, bytes, error);
}

char *arena_text(struct arena *arena, const char *text, size_t length, struct error *error) {
  size_t bytes;
  if (!checked_add(length, 1, &bytes)) return error_memory(error, SIZE_MAX), NULL;
  char *copy = arena_alloc(arena, bytes, error);
  if (copy && length) memcpy(copy, text, length);
  return copy;
}

char *arena_printf(struct arena *arena, struct error *error, const char *format, ...) {
  va_list args;
  va_start(args, format);
  int length = vsnprintf(NULL, 0, format, args);
  va_end(args);
  if (length < 0) return error_set(error, ERROR_BUG, "a format could not be printed"), NULL;
  char *text = arena_alloc(arena, (size_t)length + 1, error);
  if (!text) return NULL;
  va_start(args, format);
  vsnprintf(text, (size_t)length + 1, format, args);
  va_end(args);
  return text;
}
