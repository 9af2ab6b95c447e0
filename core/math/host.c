/* host.c: memory of the host backends, and the look-ups in a step that both need. Knows no formula. */
#include "core/math/host.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/checked.h"

static int map_block(struct memory *memory, size_t bytes, struct error *error) {
  size_t total;
  if (!checked_add(bytes, 2 * HOST_HUGE, &total)) return error_memory(error, SIZE_MAX);
  total = size_round_up(total - HOST_HUGE, HOST_HUGE);
  void *mapping = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return error_memory(error, bytes);
  memory->mapping = mapping;
  memory->mapped = total;
  memory->data = (unsigned char *)size_round_up((size_t)mapping, HOST_HUGE);
  madvise(memory->data, size_round_up(bytes, 4096), MADV_HUGEPAGE); /* a wish: small pages work as well */
  return 0;
}

static int take_block(struct memory *memory, size_t bytes, struct error *error) {
  size_t rounded = size_round_up(size_max(bytes, 1), 64);
  memory->data = aligned_alloc(64, rounded);
  if (!memory->data) return error_memory(error, bytes);
  memset(memory->data, 0, rounded);
  return 0;
}

int host_alloc(struct backend *backend, size_t bytes, struct memory **out, struct error *error) {
  (void)backend;
  struct memory *memory = calloc(1, sizeof *memory);
  if (!memory) return error_memory(error, sizeof *memory);
  memory->bytes = bytes;
  if ((bytes >= HOST_HUGE ? map_block(memory, bytes, error) : take_block(memory, bytes, error)) != 0) {
    free(memory);
    return -1;
  }
  *out = memory;
  return 0;
}

void host_free(struct backend *backend, struct memory *memory) {
  (void)backend;
  if (!memory) return;
  if (memory->mapping)
    munmap(memory->mapping, memory->mapped);
  else
    free(memory->data);
  free(memory);
}

static unsigned char *checked_place(struct span span, size_t bytes) {
  assert(span.memory && span.offset <= span.memory->bytes && bytes <= span.memory->bytes - span.offset);
  (void)bytes;
  return span.memory->data + span.offset;
}

int host_write(struct backend *backend, struct span to, const void *from, size_t bytes, struct error *error) {
  (void)backend, (void)error;
  if (bytes) memcpy(checked_place(to, bytes), from, bytes);
  return 0;
}

int host_read(struct backend *backend, void *to, struct span from, size_t bytes, struct error *error) {
  (void)backend, (void)error;
  if (bytes) memcpy(to, checked_place(from, bytes), bytes);
  return 0;
}

int host_copy(struct backend *backend, struct span to, struct span from, size_t bytes, struct error *error) {
  (void)backend, (void)error;
  if (bytes) memmove(checked_place(to, bytes), checked_place(from, bytes), bytes);
  return 0;
}

struct matrix parts_describe(const struct matrix_part *parts, int n_parts, int64_t n_in, enum dtype wished) {
  struct matrix whole = {.n_in = n_in, .dtype = parts[0].dtype};
  for (int i = 0; i < n_parts; i++) {
    assert(parts[i].dtype == DTYPE_F32 || parts[i].dtype == DTYPE_F16 || parts[i].dtype == DTYPE_BF16);
    assert(parts[i].n_out > 0);
    whole.n_out += parts[i].n_out;
    if (parts[i].dtype != whole.dtype) whole.dtype = DTYPE_F32;
  }
  if (wished != DTYPE_OTHER) whole.dtype = wished;
  return whole;
}

struct row_range op_rows(const struct op *op, const struct step *step) {
  assert(op->layer >= 0 && op->layer <= step->n_layer);
  switch (op->set) {
    case ROWS_ARRIVING: return step->arriving[op->layer];
    case ROWS_ACTIVE: return step->active[op->layer];
    default: return (struct row_range){0, step->n_logit_rows};
  }
}

struct point_items point_items(const struct step *step, int layer, enum site site) {
  struct point_items items = {0};
  assert(layer >= 0 && layer <= step->n_layer);
  int point = point_index((struct point){layer, site});
  if (step->edit_begin) {
    items.edits = step->edits + step->edit_begin[point];
    items.n_edits = step->edit_begin[point + 1] - step->edit_begin[point];
  }
  if (step->tap_begin) {
    items.taps = step->taps + step->tap_begin[point];
    items.n_taps = step->tap_begin[point + 1] - step->tap_begin[point];
  }
  return items;
}
