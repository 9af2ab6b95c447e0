/* edits_place.c: an edit over given tokens: which positions take part, which columns of a row, and whether all that it names is
 * there. Knows no op's formula and no run. */
#include "core/lab/edits_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/point_shape.h"

/* Runs of columns in all edits of a request over all its texts: each is an item of every step that it is in. */
#define MOST_COLUMNS 65536

/* What the engine keeps of one beside its vector and its mask of positions. */
#define PIECE_BYTES 256

/* ---- positions ---- */

int64_t edit_place(int64_t position, size_t n) {
  int64_t at = position < 0 ? position + (int64_t)n : position;
  return at >= 0 && at < (int64_t)n ? at : -1;
}

static int refuse_position(const struct resolved_edit *edit, const char *field, int64_t position, size_t n,
                           struct error *error) {
  char text[128];
  snprintf(text, sizeof text, "position %" PRId64 " is not there, the text has tokens 0 to %zu (-1 is the last)", position,
           n - 1);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

bool edit_may_touch(const struct edits_plan *plan, const struct resolved_edit *edit, int32_t id) {
  return edit->special || !tokenizer_is_special(plan->opened->model->tokenizer, id);
}

/* Rows for positions behind a prompt that is continued: of the other run what stands at the same positions, of listed or given
 * ones as many as there are. */
size_t edit_places(const struct edits_plan *plan, const struct resolved_edit *edit, size_t n) {
  bool generated = edit->where == LAB_GENERATED, listed = edit->n_from_positions > 0;
  if (edit->op != LAB_EDIT_PATCH || !plan->continues || (!generated && edit->where != LAB_EVERYWHERE)) return n;
  if (edit->has_from && !listed) return edit->from.n > n ? edit->from.n : n;
  if (!generated) return n;
  return n + (listed ? edit->n_from_positions : edit->n_rows);
}

size_t edit_select(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids, uint8_t *mask) {
  size_t count = 0, places = edit_places(plan, edit, ids->n);
  memset(mask, edit->where == LAB_EVERYWHERE || edit->where == LAB_PROMPT, ids->n);
  memset(mask + ids->n, 1, places - ids->n);
  for (size_t i = 0; edit->where == LAB_LISTED && i < edit->n_positions; i++)
    if (edit_place(edit->positions[i], ids->n) >= 0) mask[edit_place(edit->positions[i], ids->n)] = 1;
  for (size_t i = 0; i < ids->n; i++) mask[i] = mask[i] && edit_may_touch(plan, edit, ids->ids[i]);
  for (size_t i = 0; i < places; i++) count += mask[i];
  return count;
}

/* ---- columns ---- */

int64_t edit_width(const struct edits_plan *plan, const struct resolved_edit *edit, size_t n) {
  return point_width(&plan->opened->model->arch, edit->point.site, (int32_t)n);
}

static size_t count_heads(const struct resolved_edit *edit) { return (size_t)edit_selected_width(edit); }

/* Runs [begin, end) of selected keys of a text of n tokens, ascending; returns how many. out has room for n / 2 + 1. */
static size_t key_runs(const struct resolved_edit *edit, size_t n, uint8_t *mask, struct row_range *out) {
  size_t runs = 0;
  memset(mask, edit->n_keys == 0, n);
  for (size_t i = 0; i < edit->n_keys; i++) mask[edit_place(edit->keys[i], n)] = 1;
  for (size_t at = 0, end; at < n; at = end) {
    for (end = at + 1; end < n && mask[end] == mask[at];) end++;
    if (mask[at]) out[runs++] = (struct row_range){(int32_t)at, (int32_t)end};
  }
  return runs;
}

/* each: columns of a head in the row that is changed. */
static int square_columns(const struct resolved_edit *edit, size_t n, int32_t each, size_t n_from, struct columns **out, size_t *count,
                          struct error *error) {
  uint8_t *mask = malloc(n);
  struct row_range *runs = malloc((n / 2 + 1) * sizeof *runs);
  size_t n_runs = mask && runs ? key_runs(edit, n, mask, runs) : 0, used = 0;
  *count = n_runs * count_heads(edit);
  *out = malloc(*count * sizeof **out + 1);
  for (size_t c = 0; *out && c < edit->n_columns; c++)
    for (int32_t head = edit->columns[c].begin; head < edit->columns[c].end; head++)
      for (size_t r = 0; r < n_runs; r++)
        (*out)[used++] = (struct columns){head * each + runs[r].begin, head * each + runs[r].end,
                                          head * (int32_t)n_from + runs[r].begin};
  bool failed = !mask || !runs || !*out;
  free(mask);
  free(runs);
  return failed ? error_memory(error, n * sizeof *runs + *count * sizeof **out) : 0;
}

int edit_columns(const struct edits_plan *plan, const struct resolved_edit *edit, size_t n, size_t n_from, struct columns **out, size_t *count,
                 struct error *error) {
  if (edit->square) return square_columns(edit, n, (int32_t)n + plan->more, n_from, out, count, error);
  *count = edit->n_columns;
  *out = malloc(*count * sizeof **out + 1);
  if (!*out) return error_memory(error, *count * sizeof **out);
  memcpy(*out, edit->columns, *count * sizeof **out);
  return 0;
}

/* ---- checks ---- */

static int key_twice(const struct resolved_edit *edit, int64_t key, struct error *error) {
  char text[64];
  snprintf(text, sizeof text, "position %" PRId64 " is named twice", key);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, "keys", text);
}

/* Every key is inside, and there once, so that a few numbers say how many columns there are. */
static int check_keys(const struct resolved_edit *edit, const struct lab_ids *ids, struct error *error) {
  uint8_t *seen = calloc(ids->n, 1);
  int failed = seen ? 0 : error_memory(error, ids->n);
  for (size_t i = 0; !failed && i < edit->n_keys; i++) {
    int64_t at = edit_place(edit->keys[i], ids->n);
    if (at < 0)
      failed = refuse_position(edit, "keys", edit->keys[i], ids->n, error);
    else if (seen[at]++)
      failed = key_twice(edit, at, error);
  }
  free(seen);
  return failed;
}

static int check_lengths(const struct resolved_edit *edit, const struct lab_ids *ids, struct error *error) {
  int64_t expected = (int64_t)(count_heads(edit) * (edit->n_keys ? edit->n_keys : ids->n));
  if (edit->v && (int64_t)edit->n_v != expected) return edit_wrong_length(edit, "vector", edit->n_v, expected, error);
  if (edit->rows && (int64_t)edit->row_width != expected) return edit_wrong_length(edit, "rows", edit->row_width, expected, error);
  return 0;
}

/* A row of the other run has as many columns as that run has tokens. */
static int check_other_keys(const struct resolved_edit *edit, const struct lab_ids *ids, struct error *error) {
  char text[192];
  for (size_t i = 0; i < edit->n_keys; i++) {
    int64_t at = edit_place(edit->keys[i], ids->n);
    if (at < (int64_t)edit->from.n) continue;
    snprintf(text, sizeof text, "key %" PRId64 " is not in the run it is taken from, which has tokens 0 to %zu", at,
             edit->from.n - 1);
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "keys", text);
  }
  if (edit->n_keys || edit->from.n == ids->n) return 0;
  snprintf(text, sizeof text, "rows of all keys are taken from a run of as many tokens: it has %zu, the text %zu; name keys",
           edit->from.n, ids->n);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, "keys", text);
}

static int check_square(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                        struct error *error) {
  if (plan->continues && edit->where != LAB_PROMPT && edit->where != LAB_LISTED)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "positions", "scores and patterns have a column for every token of a text, which grows "
                         "here: say positions: \"prompt\", or list some of the prompt");
  if (check_keys(edit, ids, error) != 0 || check_lengths(edit, ids, error) != 0) return -1;
  return edit->has_from ? check_other_keys(edit, ids, error) : 0;
}

static int check_count(const struct resolved_edit *edit, const char *field, size_t found, const char *what, size_t selected,
                       struct error *error) {
  char text[160];
  if (found == selected) return 0;
  snprintf(text, sizeof text, "%zu %s for %zu selected positions", found, what, selected);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

static int check_rows(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids, uint8_t *mask,
                      struct error *error) {
  char text[160];
  size_t n = edit_select(plan, edit, ids, mask);
  if (edit->where == LAB_GENERATED && !plan->continues)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "positions", "nothing is generated here, so that no row would be put in");
  if (edit->where == LAB_GENERATED && n == 0) {
    snprintf(text, sizeof text, "the run has %zu tokens, the prompt %zu: there is no row for what is generated; say "
             "from.positions, or give rows", edit->from.n, ids->n);
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "from", text);
  }
  if (edit->rows && check_count(edit, "rows", edit->n_rows, "rows", n, error) != 0) return -1;
  if (edit->n_from_positions &&
      check_count(edit, "from.positions", edit->n_from_positions, "positions to take from", n, error) != 0)
    return -1;
  for (size_t i = 0; i < edit->n_from_positions; i++)
    if (edit_place(edit->from_positions[i], edit->from.n) < 0)
      return refuse_position(edit, "from.positions", edit->from_positions[i], edit->from.n, error);
  for (size_t i = 0; edit->has_from && !edit->n_from_positions && i < ids->n; i++)
    if (mask[i] && i >= edit->from.n) {
      snprintf(text, sizeof text, "position %zu is patched, but the run it is taken from has only %zu tokens; say "
               "from.positions", i, edit->from.n);
      return edit_at_fault(error, ERROR_ARGUMENT, edit, "from", text);
    }
  return 0;
}

static int check_patch(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                       struct error *error) {
  size_t places = edit_places(plan, edit, ids->n);
  if ((int64_t)places > plan->opened->model->arch.n_ctx)
    return edit_at_fault(error, ERROR_LIMIT, edit, edit->rows ? "rows" : "from.positions", "they reach behind the model's context");
  uint8_t *mask = malloc(places);
  int failed = mask ? check_rows(plan, edit, ids, mask, error) : error_memory(error, places);
  free(mask);
  return failed;
}

/* Means of each position by itself: every text that is averaged has it. */
static int check_texts(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                       struct error *error) {
  char text[160], field[64];
  if (edit->where == LAB_GENERATED)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "positions", plan->continues
                         ? "what is generated stands at no position of the averaged texts; leave perPosition out"
                         : "nothing is generated here");
  for (size_t i = 0; i < edit->n_texts; i++) {
    if (edit->texts[i].n == ids->n) continue;
    snprintf(field, sizeof field, "texts[%zu]", i);
    snprintf(text, sizeof text, "it has %zu tokens, the edited text %zu; with perPosition all have as many", edit->texts[i].n,
             ids->n);
    return edit_at_fault(error, ERROR_ARGUMENT, edit, field, text);
  }
  return 0;
}

/* Of the run that a mean is over. */
static int check_averaged(const struct resolved_edit *edit, struct error *error) {
  for (size_t i = 0; i < edit->n_from_positions; i++)
    if (edit_place(edit->from_positions[i], edit->from.n) < 0)
      return refuse_position(edit, "from.positions", edit->from_positions[i], edit->from.n, error);
  return 0;
}

/* What can be edited at the point, and in which columns. */
static int check_point(struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                       struct error *error) {
  struct error inner = ERROR_INIT;
  struct columns *columns;
  size_t n;
  if (edit->dict) return 0;
  if (edit_columns(plan, edit, ids->n, 0, &columns, &n, error) != 0) return -1;
  plan->n_columns += n;
  plan->bytes += (double)n * (double)(PIECE_BYTES + edit_places(plan, edit, ids->n) * (edit_has_rows(edit) ? 5 : 1));
  int failed = point_check_edit(&plan->opened->model->arch, edit->point, edit_kind_of(edit), columns[0].begin,
                                columns[n - 1].end, (int32_t)ids->n + plan->more, &inner);
  free(columns);
  if (failed) return edit_at_fault(error, inner.code, edit, "point", inner.text);
  if (plan->n_columns <= MOST_COLUMNS) return 0;
  return error_set_field(error, ERROR_LIMIT, edit->name, "%s: heads, and keys that do not follow each other, make more than %d pieces "
                         "of rows over all edits and texts; name fewer, or whole runs of keys", edit->name, MOST_COLUMNS);
}

int edits_check_place(struct edits_plan *plan, const struct lab_ids *ids, struct error *error) {
  for (size_t e = 0; e < plan->n_edits; e++) {
    const struct resolved_edit *edit = &plan->edits[e];
    for (size_t i = 0; i < edit->n_positions; i++)
      if (edit_place(edit->positions[i], ids->n) < 0)
        return refuse_position(edit, "positions", edit->positions[i], ids->n, error);
    if ((edit->square && check_square(plan, edit, ids, error) != 0) || check_point(plan, edit, ids, error) != 0 ||
        (edit->op == LAB_EDIT_PATCH && check_patch(plan, edit, ids, error) != 0) ||
        (edit->op == LAB_EDIT_MEAN && edit->has_from && check_averaged(edit, error) != 0) ||
        (edit->per_position && check_texts(plan, edit, ids, error) != 0))
      return -1;
  }
  return 0;
}
