/* edit.c: keeps edit lists and lowers them to items. Knows positions and rows, not what the formulas do. */
#include "core/engine/edit.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"

struct kept {
  struct edit edit;   /* mask and features point into owned copies; v and enc are below */
  float *v, *enc;
  uint8_t *mask;
  int32_t *rank;      /* REPLACE: [n_mask] the row of v that belongs to a position */
  struct edit_feature *features;
  bool has_v, has_enc; /* the copies go as they are uploaded */
  struct digest content; /* what it does to a row that it selects */
  int32_t n_rows;     /* of v: 1 but for REPLACE */
  size_t offset;      /* bytes of v in the list's memory; enc follows, 64-byte aligned */
};

struct edit_list {
  struct kept *edits;
  size_t count, capacity;
  struct memory *memory; /* from the first piece of the upload on */
  size_t bytes, uploaded; /* of all vectors */
  bool laid_out;
  int sharers;           /* owners beside the first */
};

struct edit_list *edit_list_new(struct error *error) {
  struct edit_list *list = calloc(1, sizeof *list);
  if (!list) error_memory(error, sizeof *list);
  return list;
}

static void kept_clear(struct kept *kept) {
  free(kept->v);
  free(kept->enc);
  free(kept->mask);
  free(kept->rank);
  free(kept->features);
}

void edit_list_free(struct edit_list *list, struct backend *backend) {
  if (!list || list->sharers-- > 0) return;
  for (size_t i = 0; i < list->count; i++) kept_clear(&list->edits[i]);
  if (list->memory) backend->ops->free(backend, list->memory);
  free(list->edits);
  free(list);
}

struct edit_list *edit_list_share(struct edit_list *list) {
  if (list) list->sharers++;
  return list;
}

/* hidden: -inf is what scores have where nothing is seen. */
static int copy_vector(const float *from, size_t n, bool hidden, float **to, struct error *error) {
  if (!from) return 0;
  for (size_t i = 0; i < n; i++)
    if (!isfinite(from[i]) && !(hidden && from[i] == -INFINITY))
      return error_set(error, ERROR_ARGUMENT, "element %zu of the vector is %s; finite numbers are needed", i,
                       isnan(from[i]) ? "NaN" : "infinite");
  *to = malloc(n * sizeof **to + 1);
  if (!*to) return error_memory(error, n * sizeof **to);
  memcpy(*to, from, n * sizeof **to);
  return 0;
}

static int copy_mask(const struct edit *edit, uint8_t **to, struct error *error) {
  if (!edit->mask) return 0;
  *to = malloc((size_t)edit->n_mask + 1);
  if (!*to) return error_memory(error, (size_t)edit->n_mask);
  memcpy(*to, edit->mask, (size_t)edit->n_mask);
  return 0;
}

/* The rows of a REPLACE belong to the selected positions in their order. */
static int rank_positions(struct kept *kept, struct error *error) {
  if (kept->edit.dict || kept->edit.kind != EDIT_ROW_REPLACE) return 0;
  assert(kept->mask);
  kept->rank = calloc((size_t)kept->edit.n_mask + 1, sizeof *kept->rank);
  if (!kept->rank) return error_memory(error, (size_t)kept->edit.n_mask * sizeof *kept->rank);
  kept->n_rows = 0;
  for (int32_t i = 0; i < kept->edit.n_mask; i++) {
    kept->rank[i] = kept->n_rows;
    kept->n_rows += kept->mask[i] != 0;
  }
  return 0;
}

/* By index, and changes of one feature in the order in which they were given: they lie in one array. */
static int by_index(const void *a, const void *b) {
  const struct edit_feature *x = *(const struct edit_feature *const *)a, *y = *(const struct edit_feature *const *)b;
  if (x->index != y->index) return x->index < y->index ? -1 : 1;
  return x < y ? -1 : x > y;
}

/* In ascending order, as activations are: a row with many of both is walked once. */
static int copy_features(const struct edit *edit, struct edit_feature **to, struct error *error) {
  if (!edit->dict || !edit->n_features) return 0;
  size_t n = (size_t)edit->n_features;
  const struct edit_feature **order = malloc(n * sizeof *order);
  *to = malloc(n * sizeof **to);
  int failed = order && *to ? 0 : error_memory(error, n * (sizeof *order + sizeof **to));
  for (size_t i = 0; !failed && i < n; i++) order[i] = &edit->features[i];
  if (!failed) qsort(order, n, sizeof *order, by_index);
  for (size_t i = 0; !failed && i < n; i++) (*to)[i] = *order[i];
  free(order);
  return failed;
}

/* Rows of other runs are as many as they like, a dictionary may go and another come to its place, and which head and key a column of
 * scores or a pattern is depends on how long the text may become. */
static bool has_name(const struct kept *kept) {
  const struct edit *e = &kept->edit;
  return !e->dict && e->kind != EDIT_ROW_REPLACE && e->point.site != SITE_SCORES && e->point.site != SITE_PATTERN;
}

static struct digest name_content(const struct kept *kept, size_t n) {
  const struct edit *e = &kept->edit;
  const int32_t place[] = {point_index(e->point), (int32_t)e->kind, e->column_begin, e->column_end, kept->has_v, kept->has_enc};
  const float numbers[] = {e->value, e->bias, e->threshold, e->fold};
  struct digester digester;
  digest_begin(&digester, NULL);
  digest_add(&digester, place, sizeof place);
  digest_add(&digester, numbers, sizeof numbers);
  if (kept->v) digest_add(&digester, kept->v, n * sizeof *kept->v);
  if (kept->enc) digest_add(&digester, kept->enc, n * sizeof *kept->enc);
  return digest_end(&digester);
}

static int make_room(struct edit_list *list, struct error *error) {
  if (list->count < list->capacity) return 0;
  size_t capacity = size_max(8, list->capacity * 2);
  struct kept *edits = realloc(list->edits, capacity * sizeof *edits);
  if (!edits) return error_memory(error, capacity * sizeof *edits);
  list->edits = edits;
  list->capacity = capacity;
  return 0;
}

int edit_list_add(struct edit_list *list, const struct edit *edit, struct error *error) {
  struct kept kept = {.edit = *edit, .n_rows = 1};
  size_t n = edit->dict ? 0 : (size_t)(edit->column_end - edit->column_begin);
  if (edit->dict) kept.edit.v = kept.edit.enc = NULL;
  if (edit->dict) kept.edit.point = dict_info(edit->dict)->in;
  if (make_room(list, error) != 0 || copy_mask(edit, &kept.mask, error) != 0 || rank_positions(&kept, error) != 0 ||
      copy_vector(kept.edit.v, n * (size_t)kept.n_rows, edit->point.site == SITE_SCORES, &kept.v, error) != 0 ||
      copy_vector(kept.edit.enc, n, false, &kept.enc, error) != 0 || copy_features(edit, &kept.features, error) != 0) {
    kept_clear(&kept);
    return -1;
  }
  kept.has_v = kept.v != NULL;
  kept.has_enc = kept.enc != NULL;
  if (has_name(&kept)) kept.content = name_content(&kept, n);
  kept.edit.v = kept.edit.enc = NULL;
  kept.edit.mask = kept.mask;
  kept.edit.features = kept.features;
  list->edits[list->count++] = kept;
  return 0;
}

size_t edit_list_count(const struct edit_list *list) { return list ? list->count : 0; }

/* One that keeps the error and changes nothing is not done at all. */
const struct dict *edit_list_dict(const struct edit_list *list, size_t i) {
  const struct edit *edit = &list->edits[i].edit;
  return edit->with_error && !edit->n_features ? NULL : edit->dict;
}

int32_t edit_list_first_layer(const struct edit_list *list, int32_t n_layer) {
  int32_t first = n_layer;
  for (size_t i = 0; i < edit_list_count(list); i++)
    if (list->edits[i].edit.point.layer < first) first = list->edits[i].edit.point.layer;
  return first;
}

int32_t edit_list_next_layer(const struct edit_list *list, int32_t layer) {
  int32_t next = INT32_MAX;
  for (size_t i = 0; i < edit_list_count(list); i++) {
    int32_t at = list->edits[i].edit.point.layer;
    if (at > layer && at < next) next = at;
  }
  return next;
}

/* ---- upload ---- */

static size_t width_bytes(const struct kept *kept) {
  return (size_t)(kept->edit.column_end - kept->edit.column_begin) * sizeof(float);
}

/* Of v, up to where enc begins. */
static size_t vector_bytes(const struct kept *kept) {
  return size_round_up(width_bytes(kept) * (size_t)kept->n_rows, 64);
}

static void lay_out(struct edit_list *list) {
  for (size_t i = 0; i < list->count; i++) {
    struct kept *kept = &list->edits[i];
    kept->offset = list->bytes;
    if (kept->has_v) list->bytes += vector_bytes(kept);
    if (kept->has_enc) list->bytes += size_round_up(width_bytes(kept), 64);
  }
  list->laid_out = true;
}

/* What of a vector, whose place in the list's memory is `offset`, lies in [begin, end) of it. */
static void gather(const float *vector, size_t offset, size_t bytes, size_t begin, size_t end, unsigned char *to) {
  size_t first = offset > begin ? offset : begin, last = offset + bytes < end ? offset + bytes : end;
  if (vector && first < last) memcpy(to + (first - begin), (const unsigned char *)vector + (first - offset), last - first);
}

/* Copies that are uploaded as a whole go: freeing all of them at once would take long too. */
static void gather_edit(struct kept *kept, size_t begin, size_t end, unsigned char *to) {
  size_t v_bytes = width_bytes(kept) * (size_t)kept->n_rows, enc = kept->offset + vector_bytes(kept);
  gather(kept->v, kept->offset, v_bytes, begin, end, to);
  gather(kept->enc, enc, width_bytes(kept), begin, end, to);
  if (kept->v && kept->offset + v_bytes <= end) {
    free(kept->v);
    kept->v = NULL;
  }
  if (kept->enc && enc + width_bytes(kept) <= end) {
    free(kept->enc);
    kept->enc = NULL;
  }
}

/* In one block, and a piece by one write: between two steps of others, a device counts writes, and a processor bytes. */
int edit_list_upload(struct edit_list *list, struct backend *backend, size_t *budget, struct error *error) {
  if (!list->laid_out) lay_out(list);
  size_t begin = list->uploaded, n = list->bytes - begin;
  if (n > *budget) n = *budget;
  if (!n) return 0; /* or a sharer was here before */
  if (!list->memory && backend->ops->alloc(backend, list->bytes, &list->memory, error) != 0) return -1;
  unsigned char *piece = calloc(1, n);
  if (!piece) return error_memory(error, n);
  for (size_t i = 0; i < list->count; i++) gather_edit(&list->edits[i], begin, begin + n, piece);
  int failed = backend->ops->write(backend, (struct span){list->memory, begin}, piece, n, error);
  free(piece);
  list->uploaded += n;
  *budget -= n;
  return failed;
}

bool edit_list_ready(const struct edit_list *list) { return !list || (list->laid_out && list->uploaded == list->bytes); }

/* ---- lowering ---- */

/* The rows of a REPLACE are one for each position of the mask, generated ones too. */
static bool selects(const struct kept *kept, int32_t position, int32_t n_prompt) {
  const struct edit *edit = &kept->edit;
  bool generated = position >= n_prompt;
  if (!(generated ? edit->generated : edit->prompt)) return false;
  if (!edit->mask || (generated && !kept->rank)) return true;
  return position < edit->n_mask && edit->mask[position];
}

bool edit_list_digest(const struct edit_list *list, int32_t layer, int32_t position, int32_t n, int32_t n_prompt,
                      struct digest *out) {
  struct digester digester;
  assert(n <= 64);
  digest_begin(&digester, NULL);
  for (size_t i = 0; i < edit_list_count(list); i++) {
    const struct kept *kept = &list->edits[i];
    uint64_t where = 0;
    for (int32_t at = 0; kept->edit.point.layer <= layer && at < n; at++)
      where |= (uint64_t)selects(kept, position + at, n_prompt) << at;
    if (!where) continue;
    if (!has_name(kept)) return false;
    digest_add(&digester, &where, sizeof where);
    digest_add(&digester, &kept->content, sizeof kept->content);
  }
  *out = digester.length ? digest_end(&digester) : (struct digest){{0, 0}};
  return true;
}

static struct edit_item make_item(const struct edit_list *list, const struct kept *kept, struct row_range rows,
                                  int32_t position) {
  const struct edit *e = &kept->edit;
  struct span v = {list->memory, kept->offset};
  struct span none = {NULL, 0};
  if (kept->rank) v = span_at(v, (size_t)kept->rank[position] * width_bytes(kept));
  return (struct edit_item){.kind = e->kind, .rows = rows, .column_begin = e->column_begin,
                            .column_end = e->column_end, .value = e->value, .v = kept->has_v ? v : none,
                            .enc = kept->has_enc ? span_at(v, vector_bytes(kept)) : none, .bias = e->bias,
                            .threshold = e->threshold, .fold = e->fold};
}

static int append(struct edit_placed placed, struct edit_placed **out, size_t *count, size_t *capacity,
                  struct error *error) {
  if (*count == *capacity) {
    size_t bigger = size_max(32, *capacity * 2);
    struct edit_placed *items = realloc(*out, bigger * sizeof *items);
    if (!items) return error_memory(error, bigger * sizeof *items);
    *out = items;
    *capacity = bigger;
  }
  (*out)[(*count)++] = placed;
  return 0;
}

static int append_slot(const struct edit *e, struct row_range rows, struct edit_placed **out, size_t *count,
                       size_t *capacity, struct error *error) {
  const struct dict_info *info = dict_info(e->dict);
  int32_t in = point_index(info->in), n = e->n_targets ? e->n_targets : info->n_targets;
  bool one = n == 1 && in == point_index(info->out);
  struct edit_placed placed = {in, one ? MARK_BOTH : MARK_READ, {e->dict, e->with_error, 0, e->features, e->n_features},
                               {.rows = rows}};
  if (append(placed, out, count, capacity, error) != 0) return -1;
  placed.mark = MARK_WRITE;
  for (int32_t t = 0; !one && t < n; t++) {
    placed.slot.target = t;
    placed.point = point_index(dict_target(e->dict, t));
    if (append(placed, out, count, capacity, error) != 0) return -1;
  }
  return 0;
}

int edit_list_lower(const struct edit_list *list, int32_t row, int32_t position, int32_t n, int32_t n_prompt,
                    int32_t first, struct edit_placed **out, size_t *count, size_t *capacity,
                    struct error *error) {
  for (size_t i = 0; i < edit_list_count(list); i++) {
    const struct kept *kept = &list->edits[i];
    if (kept->edit.point.layer < first) continue;
    /* Runs of selected positions become one item each. */
    for (int32_t at = 0, end; at < n; at = end) {
      bool on = selects(kept, position + at, n_prompt);
      for (end = at + 1; end < n && selects(kept, position + end, n_prompt) == on;) end++;
      if (!on) continue;
      struct row_range rows = {row + at, row + end};
      struct edit_placed placed = {.point = point_index(kept->edit.point)};
      if (!kept->edit.dict) placed.item = make_item(list, kept, rows, position + at);
      if (kept->edit.dict ? append_slot(&kept->edit, rows, out, count, capacity, error)
                          : append(placed, out, count, capacity, error))
        return -1;
    }
  }
  return 0;
}
