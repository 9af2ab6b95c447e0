/* batch.c: who runs in the next step, and the tables that say so to the backend.
 *
 * Every decoding sequence gets its row first, so that a long prompt never holds up a stream; what room is left
 * goes to prompts, in chunks. Rows are ordered so that the rows active at any layer are contiguous: sequences
 * that stop early come first (the earliest stop first), then those that run all layers, then followers, which
 * join at their first layer (the lowest first). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/engine/engine_int.h"
#include "core/model/point_shape.h"

/* While others decode, a step takes at most this share of max_rows from prompts: the wait between two tokens of
 * a stream stays within a few decode steps. */
#define PROMPT_SHARE 4

/* And background prompts, while anybody else is served, this one. */
#define BACKGROUND_SHARE 16

struct batch_tables {
  int32_t *token, *position, *source, *logit_row;
  uint8_t *origin;
  struct step_slot *slots;
  int32_t *keys;
  struct row_range *active, *arriving;
  struct kv_pages *pages;
  struct edit_placed *placed;
  size_t n_placed, placed_capacity;
  struct edit_item *edits;
  size_t edit_capacity;
  struct tap_item *taps;
  size_t tap_capacity;
  int32_t *tap_point; /* of each tap in `taps_unsorted` */
  struct tap_item *taps_unsorted;
  size_t n_taps;
  int32_t *edit_begin, *tap_begin; /* [n_points + 1] */
};

static int32_t n_points(const struct runner *runner) { return point_count(runner->model->arch.n_layer); }

#define ALLOCATE(field, count)                                             \
  do {                                                                     \
    size_t n_ = (size_t)(count);                                           \
    (field) = calloc(n_ ? n_ : 1, sizeof *(field));                        \
    if (!(field)) return error_memory(error, n_ * sizeof *(field));        \
  } while (0)

int batch_open(struct runner *runner, struct error *error) {
  const struct arch *arch = &runner->model->arch;
  struct batch_tables *t;
  ALLOCATE(runner->tables, 1);
  t = runner->tables;
  ALLOCATE(runner->batch.parts, runner->max_sessions);
  ALLOCATE(t->token, runner->max_rows);
  ALLOCATE(t->position, runner->max_rows);
  ALLOCATE(t->source, runner->max_rows);
  ALLOCATE(t->origin, runner->max_rows);
  ALLOCATE(t->logit_row, runner->max_sessions);
  ALLOCATE(t->slots, runner->max_sessions);
  ALLOCATE(t->keys, runner->max_sessions);
  ALLOCATE(t->active, arch->n_layer + 1);
  ALLOCATE(t->arriving, arch->n_layer + 1);
  ALLOCATE(t->pages, runner->max_sessions);
  ALLOCATE(t->edit_begin, n_points(runner) + 1);
  ALLOCATE(t->tap_begin, n_points(runner) + 1);
  return slots_open(&runner->slots, n_points(runner), runner->max_rows, error);
}

void batch_close(struct runner *runner) {
  struct batch_tables *t = runner->tables;
  free(runner->batch.parts);
  slots_close(&runner->slots, runner->backend);
  if (runner->saved) runner->backend->ops->free(runner->backend, runner->saved);
  if (!t) return;
  void *all[] = {t->token, t->position, t->source, t->origin, t->logit_row, t->slots, t->keys, t->active, t->arriving,
                 t->pages, t->placed, t->edits, t->taps, t->tap_point, t->taps_unsorted, t->edit_begin,
                 t->tap_begin};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
  free(t);
}

/* ---- who ---- */

static void add_part(struct batch *batch, struct sequence *s, int32_t rows) {
  batch->parts[batch->n_parts++] = (struct batch_part){.sequence = s, .n_rows = rows, .logit = -1, .draw = -1, .follower = s->leader != NULL};
  batch->n_rows += rows;
}

static struct sequence *in_turn(const struct runner *runner, int i) {
  return runner->running[(runner->next + i) % runner->n_running];
}

/* What is left in a step besides rows. */
struct room {
  int64_t taps;   /* elements of tap memory */
  int32_t logits; /* rows of logits beyond the one that each session may need to draw */
};

/* The first in turn always has room for its taps (engine_submit saw to it), so that everybody gets on. */
static int32_t add_decoding(struct runner *runner, struct room *room) {
  int32_t n = 0;
  for (int i = 0; i < runner->n_running; i++) {
    struct sequence *s = in_turn(runner, i);
    if (!sequence_decodes(s) || s->ended || s->tap_width > room->taps) continue;
    add_part(&runner->batch, s, 1);
    room->taps -= s->tap_width;
    n++;
  }
  return n;
}

/* A leader and its followers, who must be in the same step. */
static int group_end(const struct sequence *leader) { return leader->task->in_turn ? 1 : leader->task->n_sequences; }

static int count_followers(const struct sequence *leader) {
  int n = 0;
  for (int i = 1; i < group_end(leader); i++) n += leader->task->sequences[i].leader == leader;
  return n;
}

/* Rows that the taps of the group leave room for. */
static int32_t tap_room(const struct runner *runner, const struct sequence *leader, const struct room *room) {
  int64_t width = leader->tap_width;
  int32_t rows = runner->max_rows, heads = leader->head_taps;
  for (int i = 1; i < group_end(leader); i++)
    if (leader->task->sequences[i].leader == leader) {
      width += leader->task->sequences[i].tap_width;
      heads += leader->task->sequences[i].head_taps;
    }
  if (heads) rows = 1 + room->logits / heads;
  if (width && room->taps / width < rows) rows = (int32_t)(room->taps / width);
  return rows;
}

static void take_room(const struct sequence *s, int32_t rows, struct room *room) {
  room->taps -= s->tap_width * rows;
  if (s->head_taps) room->logits -= rows - 1;
}

static void add_group(struct runner *runner, struct sequence *leader, int32_t rows, struct room *room) {
  add_part(&runner->batch, leader, rows);
  take_room(leader, rows, room);
  for (int i = 1; i < group_end(leader); i++) {
    struct sequence *s = &leader->task->sequences[i];
    if (s->leader != leader) continue;
    add_part(&runner->batch, s, rows);
    take_room(s, rows, room);
  }
}

/* Vectors of its edits, or of a follower's, are still on their way. */
static bool waits_for_edits(const struct sequence *leader) {
  bool ready = edit_list_ready(leader->edits);
  for (int i = 1; i < group_end(leader); i++)
    ready &= leader->task->sequences[i].leader != leader || edit_list_ready(leader->task->sequences[i].edits);
  return !ready;
}

static void add_prompts(struct runner *runner, bool background, int32_t budget, struct room *room) {
  for (int i = 0; i < runner->n_running && budget > 0; i++) {
    struct sequence *s = in_turn(runner, i);
    if (s->task->background != background || sequence_decodes(s) || s->leader || s->twin || s->ended || waits_for_edits(s)) continue;
    int32_t group = 1 + count_followers(s), rows = budget / group;
    if (rows > sequence_pending(s)) rows = sequence_pending(s);
    int32_t most = tap_room(runner, s, room);
    if (rows > most) rows = most;
    if (rows <= 0) continue;
    add_group(runner, s, rows, room);
    budget -= rows * group;
  }
}

static void choose(struct runner *runner) {
  struct room room = {runner->tap_elements, runner->max_sessions - runner->n_running};
  int32_t decoding = add_decoding(runner, &room), budget = runner->max_rows - runner->batch.n_rows;
  int32_t share = decoding ? runner->max_rows / PROMPT_SHARE : budget;
  add_prompts(runner, false, share < budget ? share : budget, &room);
  budget = runner->max_rows - runner->batch.n_rows;
  share = runner->n_running > runner->n_background ? runner->max_rows / BACKGROUND_SHARE : budget;
  add_prompts(runner, true, share < budget ? share : budget, &room);
}

/* ---- order ---- */

static int by_layers(const void *a, const void *b) {
  const struct batch_part *x = a, *y = b;
  if (x->sequence->last != y->sequence->last) return x->sequence->last < y->sequence->last ? -1 : 1;
  if (x->sequence->first != y->sequence->first) return x->sequence->first < y->sequence->first ? -1 : 1;
  return x->row < y->row ? -1 : x->row > y->row; /* row holds the order of choice: keeps qsort stable */
}

static void place(struct runner *runner) {
  struct batch *batch = &runner->batch;
  for (int i = 0; i < batch->n_parts; i++) batch->parts[i].row = i;
  qsort(batch->parts, (size_t)batch->n_parts, sizeof *batch->parts, by_layers);
  int32_t row = 0;
  for (int i = 0; i < batch->n_parts; i++) {
    batch->parts[i].row = row;
    row += batch->parts[i].n_rows;
  }
}

static const struct batch_part *part_of(const struct batch *batch, const struct sequence *s) {
  for (int i = 0; i < batch->n_parts; i++)
    if (batch->parts[i].sequence == s) return &batch->parts[i];
  return NULL;
}

/* ---- tables ---- */

/* The rows that resumed sequences begin with in this step, side by side. */
static int save_rows(struct runner *runner, const struct batch_part *part, int32_t *n_saved, struct error *error) {
  struct backend *backend = runner->backend;
  const struct sequence *s = part->sequence;
  size_t width = (size_t)runner->model->arch.d_model, row = width * sizeof(float);
  if (!s->resume_rows) return 0;
  if (!runner->saved && backend->ops->alloc(backend, (size_t)runner->max_rows * row, &runner->saved, error) != 0)
    return -1;
  for (int32_t i = 0; i < part->n_rows; i++) {
    runner->tables->origin[part->row + i] = ORIGIN_SAVED;
    runner->tables->source[part->row + i] = *n_saved + i;
  }
  const float *from = s->resume_rows + (size_t)(s->done - s->resume_position) * width;
  struct span to = {runner->saved, (size_t)*n_saved * row};
  *n_saved += part->n_rows;
  return backend->ops->write(backend, to, from, (size_t)part->n_rows * row, error);
}

static void fill_rows(struct runner *runner, const struct batch_part *part) {
  struct batch_tables *t = runner->tables;
  const struct sequence *s = part->sequence;
  /* A follower from layer 0 shares no row: both begin with the embedding. */
  const struct batch_part *leader = s->leader && s->first > 0 ? part_of(&runner->batch, s->leader) : NULL;
  for (int32_t i = 0; i < part->n_rows; i++) {
    int32_t row = part->row + i;
    t->token[row] = s->tokens[s->done + i];
    t->position[row] = s->done + i;
    t->origin[row] = leader ? ORIGIN_FORK : ORIGIN_EMBED;
    t->source[row] = leader ? leader->row + i : 0;
  }
}

static void fill_slots(struct runner *runner, struct step *step) {
  struct batch *batch = &runner->batch;
  struct batch_tables *t = runner->tables;
  for (int i = 0; i < batch->n_parts; i++) {
    const struct batch_part *part = &batch->parts[i];
    const struct sequence *s = part->sequence;
    t->keys[i] = s->keys;
    t->slots[i] = (struct step_slot){{part->row, part->row + part->n_rows}, s->done, s->first, s->last};
    t->pages[i] = (struct kv_pages){s->blocks, s->n_blocks, s->pages};
  }
  step->n_slots = batch->n_parts;
  step->slots = t->slots;
  step->keys = t->keys;
  step->kv = kv_pool_span(runner->kv);
  step->kv_pages = t->pages;
}

/* Slots are ordered by (last, first), so a layer's rows are one run of slots. */
static struct row_range rows_at(const struct step *step, int32_t layer, bool arriving) {
  struct row_range range = {0, 0};
  bool found = false;
  for (int32_t i = 0; i < step->n_slots; i++) {
    const struct step_slot *slot = &step->slots[i];
    if (slot->first > layer || slot->last < layer || (!arriving && slot->last == layer)) continue;
    assert(!found || range.end == slot->rows.begin);
    if (!found) range.begin = slot->rows.begin;
    range.end = slot->rows.end;
    found = true;
  }
  return range;
}

/* As a rule: every row runs every layer. */
static bool runs_through(const struct step *step) {
  for (int32_t i = 0; i < step->n_slots; i++)
    if (step->slots[i].first > 0 || step->slots[i].last < step->n_layer) return false;
  return true;
}

static void fill_ranges(struct runner *runner, struct step *step) {
  struct batch_tables *t = runner->tables;
  bool through = runs_through(step);
  struct row_range all = {0, step->n_rows};
  for (int32_t l = 0; l <= step->n_layer; l++) {
    t->active[l] = through && l < step->n_layer ? all : rows_at(step, l, false);
    t->arriving[l] = through ? all : rows_at(step, l, true);
  }
  step->active = t->active;
  step->arriving = t->arriving;
}

/* The last row of a chunk that reaches the end of what is known gives the next token. Taps of the head see all rows. */
static void fill_logits(struct runner *runner, struct step *step) {
  struct batch *batch = &runner->batch;
  int32_t n = 0;
  for (int i = 0; i < batch->n_parts; i++) {
    struct batch_part *part = &batch->parts[i];
    const struct sequence *s = part->sequence;
    bool draws = (s->sampler || s->logits == LOGITS_LAST) && s->done + part->n_rows == s->n_tokens;
    for (int32_t row = 0; s->head_taps && row < part->n_rows - 1; row++) runner->tables->logit_row[n++] = part->row + row;
    if (draws) part->logit = n;
    if (draws || s->head_taps) runner->tables->logit_row[n++] = part->row + part->n_rows - 1;
  }
  step->n_logit_rows = n;
  step->logit_row = runner->tables->logit_row;
}

/* begin[p] of a stable counting sort by point: counts in, starts out. */
static void counts_to_begins(int32_t *begin, int32_t points) {
  int32_t sum = 0;
  for (int32_t p = 0; p <= points; p++) {
    int32_t count = begin[p];
    begin[p] = sum;
    sum += count;
  }
}

static int grow(void **array, size_t *capacity, size_t need, size_t size, struct error *error) {
  if (need <= *capacity) return 0;
  size_t bigger = size_max(need, *capacity * 2);
  void *memory = realloc(*array, bigger * size);
  if (!memory) return error_memory(error, bigger * size);
  *array = memory;
  *capacity = bigger;
  return 0;
}

static int fill_edits(struct runner *runner, struct step *step, struct error *error) {
  struct batch_tables *t = runner->tables;
  int32_t points = n_points(runner);
  t->n_placed = 0;
  slots_reset(&runner->slots);
  for (int i = 0; i < runner->batch.n_parts; i++) {
    const struct batch_part *part = &runner->batch.parts[i];
    const struct sequence *s = part->sequence;
    if (edit_list_lower(s->edits, part->row, s->done, part->n_rows, s->n_prompt, s->first, &t->placed, &t->n_placed,
                        &t->placed_capacity, error) != 0)
      return -1;
  }
  if (!t->n_placed) return 0;
  void *edits = t->edits;
  int failed = grow(&edits, &t->edit_capacity, t->n_placed, sizeof *t->edits, error);
  t->edits = edits;
  if (failed) return -1;
  memset(t->edit_begin, 0, ((size_t)points + 1) * sizeof *t->edit_begin);
  for (size_t i = 0; i < t->n_placed; i++) t->edit_begin[t->placed[i].point]++;
  counts_to_begins(t->edit_begin, points);
  /* Place each, advancing its point's begin; then shift back by one point. */
  for (size_t i = 0; i < t->n_placed; i++) {
    int32_t at = t->edit_begin[t->placed[i].point]++;
    t->edits[at] = t->placed[i].item;
    if (!t->placed[i].mark) continue;
    if (slots_add(&runner->slots, &t->placed[i], at, error) != 0) return -1;
    t->edits[at].rows = (struct row_range){0, 0}; /* nothing for the backend to do */
  }
  memmove(t->edit_begin + 1, t->edit_begin, (size_t)points * sizeof *t->edit_begin);
  t->edit_begin[0] = 0;
  step->edits = t->edits;
  step->edit_begin = t->edit_begin;
  return 0;
}

static int add_taps(struct runner *runner, struct batch_part *part, size_t *offset, struct error *error) {
  struct batch_tables *t = runner->tables;
  const struct sequence *s = part->sequence;
  part->tap_offset = *offset;
  size_t need = t->n_taps + (size_t)s->n_taps, capacity = t->tap_capacity;
  void *items = t->taps_unsorted, *points = t->tap_point, *sorted = t->taps;
  size_t c1 = capacity, c2 = capacity, c3 = capacity;
  int failed = grow(&items, &c1, need, sizeof *t->taps, error);
  t->taps_unsorted = items;
  if (!failed) failed = grow(&points, &c2, need, sizeof *t->tap_point, error);
  t->tap_point = points;
  if (!failed) failed = grow(&sorted, &c3, need, sizeof *t->taps, error);
  t->taps = sorted;
  if (failed) return -1;
  t->tap_capacity = c1;
  for (int i = 0; i < s->n_taps; i++) {
    int64_t width = point_width(&runner->model->arch, s->taps[i].site, s->keys);
    t->tap_point[t->n_taps] = point_index(s->taps[i]);
    t->taps_unsorted[t->n_taps++] = (struct tap_item){
        {part->row, part->row + part->n_rows}, {runner->tap_memory, *offset}, width};
    *offset += (size_t)width * (size_t)part->n_rows * sizeof(float);
  }
  return 0;
}

static int fill_taps(struct runner *runner, struct step *step, struct error *error) {
  struct batch_tables *t = runner->tables;
  int32_t points = n_points(runner);
  size_t offset = 0;
  t->n_taps = 0;
  for (int i = 0; i < runner->batch.n_parts; i++)
    if (runner->batch.parts[i].sequence->n_taps &&
        add_taps(runner, &runner->batch.parts[i], &offset, error) != 0)
      return -1;
  if (!t->n_taps) return 0;
  memset(t->tap_begin, 0, ((size_t)points + 1) * sizeof *t->tap_begin);
  for (size_t i = 0; i < t->n_taps; i++) t->tap_begin[t->tap_point[i]]++;
  counts_to_begins(t->tap_begin, points);
  for (size_t i = 0; i < t->n_taps; i++) t->taps[t->tap_begin[t->tap_point[i]]++] = t->taps_unsorted[i];
  memmove(t->tap_begin + 1, t->tap_begin, (size_t)points * sizeof *t->tap_begin);
  t->tap_begin[0] = 0;
  step->taps = t->taps;
  step->tap_begin = t->tap_begin;
  return 0;
}

int batch_build(struct runner *runner, struct error *error) {
  struct batch *batch = &runner->batch;
  batch->n_parts = 0;
  batch->n_rows = 0;
  memset(&batch->step, 0, sizeof batch->step);
  if (!runner->n_running) return 0;
  choose(runner);
  runner->next = (runner->next + 1) % runner->n_running;
  place(runner);
  int32_t n_saved = 0;
  for (int i = 0; i < batch->n_parts; i++) {
    fill_rows(runner, &batch->parts[i]);
    if (save_rows(runner, &batch->parts[i], &n_saved, error) != 0) return -1;
  }
  struct step *step = &batch->step;
  struct batch_tables *t = runner->tables;
  step->plan = plan_number(runner->plan);
  step->n_layer = runner->model->arch.n_layer;
  step->n_rows = batch->n_rows;
  step->token = t->token;
  step->position = t->position;
  step->origin = t->origin;
  step->source = t->source;
  step->saved = (struct span){runner->saved, 0};
  fill_slots(runner, step);
  fill_ranges(runner, step);
  fill_logits(runner, step);
  return fill_edits(runner, step, error) != 0 || fill_taps(runner, step, error) != 0 ? -1 : 0;
}
