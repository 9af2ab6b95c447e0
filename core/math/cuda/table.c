/* table.c: the tables of a step, gathered in one piece of locked host memory and sent to the device in one copy. */
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/math/cuda/cuda.h"

#define LEAST_BYTES ((size_t)1 << 20)

/* Cuts the block into arrays; with host NULL it only measures. */
struct cutter {
  unsigned char *host, *device;
  size_t used;
  const int32_t *const *kept; /* [n_slots] pages that are on the device (pages.c), or NULL */
};

struct place {
  void *host;
  const void *device;
};

static struct place cut(struct cutter *c, size_t bytes) {
  struct place place = {c->host ? c->host + c->used : NULL, c->device ? c->device + c->used : NULL};
  c->used += size_round_up(bytes, 16);
  return place;
}

static const void *cut_copy(struct cutter *c, const void *from, size_t bytes) {
  if (!from) return NULL;
  struct place place = cut(c, bytes);
  if (place.host) memcpy(place.host, from, bytes);
  return place.device;
}


static void put_slots(struct cutter *c, const struct step *step, struct table *t) {
  t->slots = cut_copy(c, step->n_slots ? step->slots : NULL, (size_t)step->n_slots * sizeof *step->slots);
  struct place slot = cut(c, (size_t)step->n_rows * sizeof(int32_t));
  t->slot = slot.device;
  int32_t *to = slot.host;
  for (int32_t i = 0; to && i < step->n_slots; i++)
    for (int32_t row = step->slots[i].rows.begin; row < step->slots[i].rows.end && row < step->n_rows; row++) to[row] = i;
}

/* Those that the slot has come to. */
static struct table_pages put_pages(struct cutter *c, const struct kv_pages *text, const struct step_slot *slot, int32_t n_layer) {
  int32_t last = (slot->position + slot->rows.end - slot->rows.begin - 1) / KV_BLOCK + 1, n = last < text->stride ? last : text->stride;
  struct place place = cut(c, (size_t)n_layer * (size_t)n * sizeof(int32_t));
  for (int32_t layer = 0; place.host && layer < n_layer; layer++)
    memcpy((int32_t *)place.host + (size_t)layer * (size_t)n, text->block + (size_t)layer * (size_t)text->stride, (size_t)n * sizeof(int32_t));
  return (struct table_pages){place.device, n};
}

static void put_cache(struct cutter *c, const struct step *step, struct table *t) {
  t->kv = step->kv.memory ? step->kv.memory->data + step->kv.offset : NULL;
  if (!step->kv_pages && !step->kv_table) return;
  struct place place = cut(c, (size_t)step->n_slots * sizeof(struct table_pages));
  t->pages = place.device;
  for (int32_t i = 0; i < step->n_slots; i++) {
    struct kv_pages text = kv_pages_of(step, i);
    struct table_pages pages = {c->kept[i], text.stride};
    if (!c->kept[i]) pages = put_pages(c, &text, &step->slots[i], step->n_layer);
    if (place.host) ((struct table_pages *)place.host)[i] = pages;
  }
}

static void put_edits(struct cutter *c, const struct step *step, struct table *t) {
  size_t points = (size_t)point_count(step->n_layer);
  if (!step->edit_begin || step->edit_begin[points] == step->edit_begin[0]) return;
  size_t n = (size_t)step->edit_begin[points];
  struct place edits = cut(c, n * sizeof(struct table_edit)), rows = cut(c, n * sizeof(struct row_range));
  t->edit_begin = cut_copy(c, step->edit_begin, (points + 1) * sizeof(int32_t));
  t->edits = edits.device;
  t->edit_rows = rows.device;
  for (size_t i = (size_t)step->edit_begin[0]; edits.host && i < n; i++) {
    const struct edit_item *e = &step->edits[i];
    ((struct row_range *)rows.host)[i] = e->rows;
    ((struct table_edit *)edits.host)[i] = (struct table_edit){
        (int32_t)e->kind, e->column_begin, e->column_end, e->rows.begin, e->value, e->bias, e->threshold, e->fold,
        span_floats(e->v), span_floats(e->enc)};
  }
}

static void put_taps(struct cutter *c, const struct step *step, struct table *t) {
  size_t points = (size_t)point_count(step->n_layer);
  if (!step->tap_begin || step->tap_begin[points] == step->tap_begin[0]) return;
  size_t n = (size_t)step->tap_begin[points];
  struct place taps = cut(c, n * sizeof(struct table_tap)), rows = cut(c, n * sizeof(struct row_range));
  t->tap_begin = cut_copy(c, step->tap_begin, (points + 1) * sizeof(int32_t));
  t->taps = taps.device;
  t->tap_rows = rows.device;
  for (size_t i = (size_t)step->tap_begin[0]; taps.host && i < n; i++) {
    ((struct row_range *)rows.host)[i] = step->taps[i].rows;
    ((struct table_tap *)taps.host)[i] = (struct table_tap){span_floats(step->taps[i].to), step->taps[i].ld};
  }
}

/* Rows that have the same changes share a copy of them. */
static void put_splices(struct cutter *c, const struct step *step, struct table *t) {
  if (!step->n_splice_groups) return;
  size_t n = (size_t)step->splice_groups[step->n_splice_groups - 1].end;
  struct place place = cut(c, n * sizeof(struct table_splice));
  const void *changes = NULL;
  t->splices = place.device;
  t->splice_groups = cut_copy(c, step->splice_groups, (size_t)step->n_splice_groups * sizeof *step->splice_groups);
  for (size_t i = 0; i < n; i++) {
    const struct splice_row *row = &step->splices[i];
    bool same = i && row[-1].changes == row->changes && row[-1].n_changes == row->n_changes;
    if (!same) changes = cut_copy(c, row->n_changes ? row->changes : NULL, (size_t)row->n_changes * sizeof *row->changes);
    if (place.host)
      ((struct table_splice *)place.host)[i] = (struct table_splice){row->x, row->y, row->with_error, row->n_parts,
                                                                        row->n_changes, changes};
  }
}

static void put_work(struct cutter *c, const struct step *step, struct table *t) {
  struct work_size size = cuda_work_size(step);
  t->n_prompt_work = size.n[WORK_PROMPT];
  t->n_work = size.n[WORK_PROMPT] + size.n[WORK_WALKED] + size.n[WORK_SPREAD];
  struct place place = cut(c, (size_t)t->n_work * sizeof(struct table_work));
  t->work = place.device;
  if (place.host) cuda_work_fill(step, &size, place.host);
}

/* The same cuts in the same order, whether it measures or fills. */
static void lay_out(struct cutter *c, const struct step *step, struct table *t) {
  size_t rows = (size_t)step->n_rows, layers = (size_t)step->n_layer + 1;
  cut(c, sizeof *t);
  *t = (struct table){.n_layer = step->n_layer, .n_rows = step->n_rows, .n_slots = step->n_slots,
                      .n_logit_rows = step->n_logit_rows, .saved = span_floats(step->saved)};
  t->token = cut_copy(c, step->token, rows * sizeof(int32_t));
  t->position = cut_copy(c, step->position, rows * sizeof(int32_t));
  t->source = cut_copy(c, step->source, rows * sizeof(int32_t));
  t->origin = cut_copy(c, step->origin, rows);
  t->logit_row = cut_copy(c, step->logit_row, (size_t)step->n_logit_rows * sizeof(int32_t));
  t->active = cut_copy(c, step->active, layers * sizeof *step->active);
  t->arriving = cut_copy(c, step->arriving, layers * sizeof *step->arriving);
  t->keys = cut_copy(c, step->keys, (size_t)step->n_slots * sizeof(int32_t));
  put_slots(c, step, t);
  put_work(c, step, t);
  put_cache(c, step, t);
  put_edits(c, step, t);
  put_taps(c, step, t);
  put_splices(c, step, t);
}

/* On the device: at one place, which graphs know. */
static int make_room(struct cuda_backend *cuda, size_t bytes, struct error *error) {
  struct tables *tables = &cuda->tables;
  if (bytes <= tables->bytes) return 0;
  if (cuda_wait(cuda, error) != 0) return -1;
  graphs_drop(cuda);
  cudaFree(tables->device);
  *tables = (struct tables){0};
  size_t room = size_max(LEAST_BYTES, bytes + bytes / 2);
  void *device = NULL;
  if (cuda_take(cuda, room, &device, error) != 0) return -1;
  *tables = (struct tables){device, room};
  return 0;
}

int cuda_tables_fill(struct cuda_backend *cuda, const struct step *step, struct error *error) {
  const int32_t *const *kept = pages_keep(cuda, step, error);
  if (!kept) return -1;
  struct cutter measure = {NULL, NULL, 0, kept};
  struct table table;
  lay_out(&measure, step, &table);
  if (make_room(cuda, measure.used, error) != 0) return -1;
  unsigned char *staged = cuda_stage(cuda, measure.used, error);
  if (!staged) return -1;
  struct cutter fill = {staged, (unsigned char *)cuda->tables.device, 0, kept};
  lay_out(&fill, step, &table);
  memcpy(staged, &table, sizeof table);
  cuda->in_flight = true; /* making room may have waited */
  return cuda_check(cuda, cudaMemcpyAsync(cuda->tables.device, staged, fill.used, cudaMemcpyHostToDevice, cuda->stream),
                    "sending a step", error);
}
