/* pieces.c: owns the bytes of tokens; knows nothing of how text becomes ids. */
#include "core/model/pieces.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

/* Offsets are 32 bits wide; vocabulary files are at most 64 MiB and decoded pieces are never longer. */
#define PIECES_BYTES_MAX ((size_t)256 << 20)

int pieces_init(struct pieces *pieces, int32_t count, struct error *error) {
  memset(pieces, 0, sizeof *pieces);
  buffer_init(&pieces->bytes, PIECES_BYTES_MAX);
  pieces->at = calloc(count > 0 ? (size_t)count : 1, sizeof *pieces->at);
  if (!pieces->at)
    return error_memory(error, (size_t)count * sizeof *pieces->at);
  pieces->count = count;
  return 0;
}

void pieces_clear(struct pieces *pieces) {
  buffer_clear(&pieces->bytes);
  free(pieces->at);
  memset(pieces, 0, sizeof *pieces);
}

int pieces_set(struct pieces *pieces, int32_t id, const char *bytes, size_t length, struct error *error) {
  struct piece *piece = &pieces->at[id];
  piece->offset = (uint32_t)pieces->bytes.length;
  piece->length = (uint32_t)length;
  piece->used = true;
  buffer_append(&pieces->bytes, bytes, length);
  return buffer_check(&pieces->bytes, error);
}

bool pieces_has(const struct pieces *pieces, int32_t id) {
  return id >= 0 && id < pieces->count && pieces->at[id].used;
}

const char *pieces_get(const struct pieces *pieces, int32_t id, size_t *length) {
  *length = 0;
  if (!pieces_has(pieces, id) || !pieces->bytes.data)
    return "";
  *length = pieces->at[id].length;
  return pieces->bytes.data + pieces->at[id].offset;
}

int32_t pieces_find(const struct pieces *pieces, const char *bytes, size_t length) {
  size_t have;
  for (int32_t id = 0; id < pieces->count; id++) {
    const char *piece = pieces_get(pieces, id, &have);
    if (pieces_has(pieces, id) && have == length && memcmp(piece, bytes, length) == 0)
      return id;
  }
  return -1;
}

int id_list_push(struct id_list *list, int32_t id, struct error *error) {
  if (list->count == list->capacity) {
    size_t capacity = size_max(64, list->capacity * 2), bytes;
    if (!checked_mul(capacity, sizeof *list->ids, &bytes))
      return error_memory(error, SIZE_MAX);
    int32_t *ids = realloc(list->ids, bytes);
    if (!ids)
      return error_memory(error, bytes);
    list->ids = ids;
    list->capacity = capacity;
  }
  list->ids[list->count++] = id;
  return 0;
}
