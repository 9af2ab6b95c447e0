/* work.c: which blocks the attention of a step is cut into. Knows positions alone: neither heads nor windows nor layers.
 *
 * A row that sees several chunks of positions is walked by one block, or spread over as many as it has chunks: the same bits (attend.cu).
 * Spread, a long text is done as soon as its neighbours; but what its blocks leave for each other is written and read once more, and
 * each brings the queries for itself. Rows of prompts have one block each: there are enough of them, and mostly another kernel takes them. */
#include "core/math/cuda/cuda.h"

#define FEW_ROWS 64    /* more than these fill the device with a block each, as long as none is long */
#define SHORT_WALK 4   /* chunks: what that means */

static bool is_prompt(const struct step_slot *slot) { return slot->rows.end - slot->rows.begin >= PROMPT_ROWS; }

/* Chunks that a block walks alone where it can be helped. */
static int32_t walk_of(const struct step *step) {
  int32_t rows = 0;
  for (int32_t i = 0; i < step->n_slots; i++)
    if (!is_prompt(&step->slots[i])) rows += step->slots[i].rows.end - step->slots[i].rows.begin;
  return rows <= FEW_ROWS ? 1 : SHORT_WALK;
}

static void put(struct table_work *to, int32_t at, struct table_work work) {
  if (to) to[at] = work;
}

/* Each kind from at[kind] on, which becomes its end; `to` NULL: they are only counted. */
static void cut_work(const struct step *step, struct table_work *to, int32_t at[WORK_KINDS]) {
  int32_t places = 0, walk = walk_of(step);
  for (int32_t i = 0; i < step->n_slots; i++) {
    const struct step_slot *slot = &step->slots[i];
    bool prompt = is_prompt(slot);
    for (int32_t row = slot->rows.begin; row < slot->rows.end; row++) {
      int32_t chunks = (slot->position + row - slot->rows.begin) / ATTEND_CHUNK + 1;
      if (prompt || chunks <= walk || chunks > WORK_MOST_SPREAD - places) {
        put(to, at[prompt ? WORK_PROMPT : WORK_WALKED]++, (struct table_work){row, i, -1, 0});
        continue;
      }
      for (int32_t chunk = 0; chunk < chunks; chunk++) put(to, at[WORK_SPREAD]++, (struct table_work){row, i, chunk, places});
      places += chunks;
    }
  }
}

struct work_size cuda_work_size(const struct step *step) {
  struct work_size size = {{0}};
  cut_work(step, NULL, size.n);
  return size;
}

/* Those that take longest in front, so that the others fill what they leave. */
void cuda_work_fill(const struct step *step, const struct work_size *size, struct table_work *to) {
  int32_t at[WORK_KINDS] = {[WORK_WALKED] = size->n[WORK_PROMPT], [WORK_SPREAD] = size->n[WORK_PROMPT] + size->n[WORK_WALKED]};
  cut_work(step, to, at);
}
