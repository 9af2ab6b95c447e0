/* lab_edits.c: from what a client says of an edit to what the engine does. Owns the rules of every op: what it works on,
 * in which units, at which positions and heads. Knows nothing of runs beyond the list of those that must come first. */
#include "core/lab_edits.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/point_shape.h"
#include "core/store/features.h"

struct columns {
  int32_t begin, end;
};

struct resolved_edit {
  enum lab_edit_op op;
  size_t number;             /* in its list */
  char name[64];             /* "edits[3]" */
  struct point point;
  int64_t width;             /* of the point */
  struct columns *columns;   /* runs of selected columns; one of all without heads */
  size_t n_columns;
  enum lab_where where;
  int64_t *positions;
  size_t n_positions;
  bool special, include_error;
  float strength, value;
  float *v;                  /* [width], or the selected columns one behind the other for SET */
  const struct dict *dict;   /* feature edits and splices */
  int64_t index;             /* -1: no feature of its own */
  struct edit_feature *features;
  size_t n_features;
  float *rows;               /* PATCH: [n_rows][width of the selected columns] */
  size_t n_rows;
  bool has_from;
  struct lab_ids from;
  struct edits_plan *from_edits;
  int64_t *from_positions;
  size_t n_from_positions;
  enum lab_over over;
  size_t first_need, n_needs;
};

static int at_fault(struct error *error, enum error_code code, const struct resolved_edit *edit, const char *field,
                    const char *text) {
  char name[80];
  snprintf(name, sizeof name, "%.44s.%.32s", edit->name, field);
  return error_set_field(error, code, name, "%s: %s", name, text);
}

static void *keep(struct arena *arena, const void *from, size_t count, size_t size, struct error *error) {
  void *to = arena_array(arena, count, size, error);
  if (to && count) memcpy(to, from, count * size);
  return to;
}

/* ---- tokens ---- */

static int check_ids(const struct lab_model *opened, const struct lab_input *input, int64_t room, const char *field,
                     struct error *error) {
  int64_t context = opened->model->arch.n_ctx - room, vocabulary = opened->model->arch.vocabulary;
  if (input->n_ids == 0)
    return error_set_field(error, ERROR_ARGUMENT, field, "%s: it has no tokens, at least 1 is needed", field);
  if ((int64_t)input->n_ids > context)
    return error_set_field(error, ERROR_LIMIT, field, "%s: it has %zu tokens, the model takes %" PRId64, field,
                           input->n_ids, context);
  for (size_t i = 0; i < input->n_ids; i++)
    if (input->ids[i] < 0 || input->ids[i] >= vocabulary)
      return error_set_field(error, ERROR_ARGUMENT, field, "%s[%zu] is %" PRId64 ", the model has tokens 0 to %" PRId64,
                             field, i, input->ids[i], vocabulary - 1);
  return 0;
}

int lab_input_ids(const struct lab_model *opened, const struct lab_input *input, enum lab_bos bos, int64_t room,
                  const char *field, struct arena *arena, struct lab_ids *out, struct error *error) {
  if (input->ids) {
    if (check_ids(opened, input, room, field, error) != 0) return -1;
    out->n = input->n_ids;
    out->ids = arena_array(arena, out->n, sizeof *out->ids, error);
    for (size_t i = 0; out->ids && i < out->n; i++) out->ids[i] = (int32_t)input->ids[i];
    return out->ids ? 0 : -1;
  }
  int32_t *ids = NULL;
  if (lab_encode(opened->model, input->text, input->length, bos != LAB_BOS_NO, room, field, &ids, &out->n, error) != 0) return -1;
  out->ids = keep(arena, ids, out->n, sizeof *ids, error);
  free(ids);
  return out->ids ? 0 : -1;
}

/* ---- resolving: where ---- */

static int by_number(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

static int resolve_heads(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                         struct error *error) {
  const struct arch *arch = &plan->opened->model->arch;
  struct point_shape shape = point_shape(arch, edit->point.site);
  int64_t each = shape.heads ? shape.width : 0, n_heads = shape.heads;
  edit->columns = arena_array(plan->arena, from->n_heads + 1, sizeof *edit->columns, error);
  int64_t *heads = keep(plan->arena, from->heads, from->n_heads, sizeof *heads, error);
  char text[128];
  if (!edit->columns || !heads) return -1;
  edit->columns[0] = (struct columns){0, (int32_t)edit->width};
  edit->n_columns = 1;
  if (!from->n_heads) return 0;
  if (edit->dict) return at_fault(error, ERROR_ARGUMENT, edit, "heads", "the source says the columns; leave them out");
  if (!each) return at_fault(error, ERROR_ARGUMENT, edit, "heads", "this point has no heads; attn.hook_z has");
  qsort(heads, from->n_heads, sizeof *heads, by_number);
  edit->n_columns = 0;
  for (size_t i = 0; i < from->n_heads; i++) {
    snprintf(text, sizeof text, "head %" PRId64 " is named twice or is not there; the model has heads 0 to %" PRId64,
             heads[i], n_heads - 1);
    if (heads[i] < 0 || heads[i] >= n_heads || (i && heads[i] == heads[i - 1]))
      return at_fault(error, ERROR_ARGUMENT, edit, "heads", text);
    struct columns run = {(int32_t)(heads[i] * each), (int32_t)((heads[i] + 1) * each)};
    if (edit->n_columns && edit->columns[edit->n_columns - 1].end == run.begin)
      edit->columns[edit->n_columns - 1].end = run.end;
    else
      edit->columns[edit->n_columns++] = run;
  }
  return 0;
}

static int64_t selected_width(const struct resolved_edit *edit) {
  int64_t width = 0;
  for (size_t i = 0; i < edit->n_columns; i++) width += edit->columns[i].end - edit->columns[i].begin;
  return width;
}

static int resolve_point(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                         struct error *error) {
  const struct arch *arch = &plan->opened->model->arch;
  struct error inner = ERROR_INIT;
  if (edit->dict) {
    const struct dict_info *info = dict_info(edit->dict);
    edit->point = info->out;
    edit->width = info->out_width;
    if (from->point) return at_fault(error, ERROR_ARGUMENT, edit, "point", "the source says the point; leave one of them out");
    return resolve_heads(plan, from, edit, error);
  }
  if (!from->point) return at_fault(error, ERROR_ARGUMENT, edit, "point", "a point or a source with a feature is needed");
  if (point_find(from->point, arch, &edit->point, &inner) != 0)
    return at_fault(error, inner.code, edit, "point", inner.text);
  if (point_shape(arch, edit->point.site).square)
    return at_fault(error, ERROR_UNSUPPORTED, edit, "point", "scores and patterns can be looked at here, not edited yet");
  edit->width = point_width(arch, edit->point.site, 0);
  return resolve_heads(plan, from, edit, error);
}

static int resolve_positions(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                             struct error *error) {
  edit->where = from->where;
  edit->special = from->special;
  edit->n_positions = from->n_positions;
  edit->positions = keep(plan->arena, from->positions, from->n_positions, sizeof *edit->positions, error);
  edit->n_from_positions = from->n_from_positions;
  edit->from_positions = keep(plan->arena, from->from_positions, from->n_from_positions, sizeof *edit->from_positions, error);
  return edit->positions && edit->from_positions ? 0 : -1;
}

/* ---- resolving: dictionaries and features ---- */

static bool needs_dict(const struct lab_edit *edit) { return edit->source_id != NULL; }

static int check_feature(const struct resolved_edit *edit, const char *field, int64_t index, struct error *error) {
  char text[128];
  const struct dict_info *info = dict_info(edit->dict);
  if (index >= 0 && index < info->n_feat) return 0;
  snprintf(text, sizeof text, "there is no feature %" PRId64 ", the source has 0 to %" PRId64, index, info->n_feat - 1);
  return at_fault(error, ERROR_NOT_FOUND, edit, field, text);
}

/* The largest activation that the statistics have seen. */
static int stored_maximum(struct lab *lab, const struct lab_source_info *info, const struct resolved_edit *edit, double *out,
                          struct error *error) {
  struct arena arena;
  struct store_feature feature;
  struct lab_source *source = lab_source_of(lab, info);
  arena_init(&arena, 0);
  int found = lab->store && source->store_id
                  ? store_feature_get(lab->store, source->store_id, (uint32_t)edit->index, 0, &arena, &feature, error)
                  : 0;
  *out = found > 0 && (feature.groups & STORE_STATISTICS) ? (double)feature.max : 0;
  arena_clear(&arena);
  if (found < 0) return -1;
  if (*out > 0) return 0;
  return at_fault(error, ERROR_ARGUMENT, edit, "unit",
                  "no largest activation of this feature is stored, so 'max' has no meaning; collect statistics (POST "
                  "/v1/jobs), or use 'raw'");
}

static int resolve_splice(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                          struct error *error) {
  bool own = edit->index >= 0 && (from->op == LAB_EDIT_CLAMP || from->op == LAB_EDIT_ABLATE || from->op == LAB_EDIT_SCALE ||
                                  from->op == LAB_EDIT_MEAN);
  edit->features = arena_array(plan->arena, from->n_features + 1, sizeof *edit->features, error);
  if (!edit->features) return -1;
  for (size_t i = 0; i < from->n_features; i++) {
    const struct lab_feature_edit *f = &from->features[i];
    char field[48];
    snprintf(field, sizeof field, "features[%zu].index", i);
    if (check_feature(edit, field, f->index, error) != 0) return -1;
    edit->features[edit->n_features++] =
        (struct edit_feature){(int32_t)f->index, f->op == LAB_EDIT_SCALE ? FEATURE_SCALE : FEATURE_SET,
                              f->op == LAB_EDIT_ABLATE ? 0 : (float)f->value};
  }
  if (own)
    edit->features[edit->n_features++] =
        (struct edit_feature){(int32_t)edit->index, from->op == LAB_EDIT_SCALE ? FEATURE_SCALE : FEATURE_SET,
                              from->op == LAB_EDIT_ABLATE ? 0 : edit->value};
  return 0;
}

static int resolve_dict(struct lab *lab, const struct lab_model_info *model, const struct lab_edit *from,
                        struct resolved_edit *edit, struct error *error) {
  char field[80];
  double unit = 1;
  snprintf(field, sizeof field, "%s.source", edit->name);
  if (!needs_dict(from)) return 0;
  const struct lab_source_info *info = lab_find_source(lab, model, from->source_id, field, error);
  if (!info) return -1;
  edit->dict = lab_source_of(lab, info)->dict;
  if (from->op != LAB_EDIT_SPLICE && from->index < 0)
    return at_fault(error, ERROR_ARGUMENT, edit, "index", "the feature's number is needed beside its source");
  if (from->index >= 0 && check_feature(edit, "index", from->index, error) != 0) return -1;
  if (from->max_unit && stored_maximum(lab, info, edit, &unit, error) != 0) return -1;
  edit->strength = (float)(from->strength * unit);
  edit->value = (float)(from->value * (from->op == LAB_EDIT_SCALE ? 1 : unit));
  return 0;
}

/* ---- resolving: vectors and rows ---- */

static int refuse_length(const struct resolved_edit *edit, const char *field, size_t found, struct error *error) {
  char text[128];
  snprintf(text, sizeof text, "%zu numbers, expected %" PRId64 " (the width of the point%s)", found, selected_width(edit),
           edit->n_columns && edit->columns[0].end - edit->columns[0].begin < edit->width ? "'s chosen heads" : "");
  return at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

static int check_finite(const struct resolved_edit *edit, const char *field, const float *v, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(v[i])) return at_fault(error, ERROR_ARGUMENT, edit, field, "a number is too large for float32");
  return 0;
}

/* Spread over the whole width, zero outside of the chosen heads: so that a direction stays one direction. */
static void spread(const struct resolved_edit *edit, const float *from, float *to) {
  for (size_t c = 0; c < edit->n_columns; c++) {
    size_t n = (size_t)(edit->columns[c].end - edit->columns[c].begin);
    memcpy(to + edit->columns[c].begin, from, n * sizeof *to);
    from += n;
  }
}

static int make_unit(const struct resolved_edit *edit, struct error *error) {
  double square = 0;
  for (int64_t i = 0; i < edit->width; i++) square += (double)edit->v[i] * edit->v[i];
  if (square == 0)
    return at_fault(error, ERROR_ARGUMENT, edit, edit->dict ? "index" : "vector", "it is zero, so it has no direction");
  for (int64_t i = 0; i < edit->width; i++) edit->v[i] = (float)(edit->v[i] / sqrt(square));
  return 0;
}

/* ADD, PROJECT, CAP: a full-width direction. SET: the chosen columns. */
static int resolve_vector(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                          struct error *error) {
  bool direction = from->op == LAB_EDIT_ADD || from->op == LAB_EDIT_PROJECT || from->op == LAB_EDIT_CAP;
  if (!direction && from->op != LAB_EDIT_SET) return 0;
  edit->v = arena_array(plan->arena, (size_t)edit->width, sizeof *edit->v, error);
  if (!edit->v) return -1;
  if (edit->dict && from->vector)
    return at_fault(error, ERROR_ARGUMENT, edit, "vector", "the feature says the direction; leave one of them out");
  if (edit->dict) {
    dict_decoder_row(edit->dict, edit->index, edit->v + dict_info(edit->dict)->out_column);
  } else {
    if (!from->vector) return at_fault(error, ERROR_ARGUMENT, edit, "vector", "a vector is needed, or source and index");
    if ((int64_t)from->n_vector != selected_width(edit)) return refuse_length(edit, "vector", from->n_vector, error);
    if (check_finite(edit, "vector", from->vector, from->n_vector, error) != 0) return -1;
    if (direction)
      spread(edit, from->vector, edit->v);
    else
      memcpy(edit->v, from->vector, from->n_vector * sizeof *edit->v);
  }
  return from->op == LAB_EDIT_PROJECT || from->op == LAB_EDIT_CAP ? make_unit(edit, error) : 0;
}

static int resolve_rows(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                        struct error *error) {
  if (from->op != LAB_EDIT_PATCH) return 0;
  if (from->where == LAB_GENERATED)
    return at_fault(error, ERROR_ARGUMENT, edit, "positions", "a patch has rows for positions of the prompt only");
  if (!from->from == !from->rows)
    return at_fault(error, ERROR_ARGUMENT, edit, "from", "a patch takes its values from 'from' or from 'rows', one of them");
  if (!from->rows) return 0;
  if ((int64_t)from->row_width != selected_width(edit)) return refuse_length(edit, "rows", from->row_width, error);
  edit->n_rows = from->n_rows;
  edit->rows = keep(plan->arena, from->rows, from->n_rows * from->row_width, sizeof *edit->rows, error);
  return edit->rows ? check_finite(edit, "rows", edit->rows, from->n_rows * from->row_width, error) : -1;
}

static int resolve_from(struct lab *lab, const struct lab_model_info *model, struct edits_plan *plan,
                        const struct lab_edit *from, enum lab_bos bos, struct resolved_edit *edit, struct error *error) {
  char field[80];
  if (!from->from) return 0;
  snprintf(field, sizeof field, "%s.from.%s", edit->name, from->from->ids ? "tokens" : "text");
  edit->has_from = true;
  if (lab_input_ids(plan->opened, from->from, bos, 0, field, plan->arena, &edit->from, error) != 0) return -1;
  if (!from->n_from_edits) return 0;
  edit->from_edits = arena_alloc(plan->arena, sizeof *edit->from_edits, error);
  snprintf(field, sizeof field, "%s.from.edits", edit->name);
  if (!edit->from_edits ||
      edits_resolve(lab, model, from->from_edits, from->n_from_edits, field, bos, plan->arena, edit->from_edits, error) != 0)
    return -1;
  for (size_t i = 0; i < edit->from_edits->n_edits; i++)
    if (edit->from_edits->edits[i].has_from || edit->from_edits->edits[i].op == LAB_EDIT_MEAN)
      return at_fault(error, ERROR_ARGUMENT, &edit->from_edits->edits[i], "op",
                      "an edit of a run that is patched from cannot need a further run");
  return edits_needs(edit->from_edits, &edit->from, 1, error);
}

static bool reads_features(enum lab_edit_op op) {
  return op == LAB_EDIT_CLAMP || op == LAB_EDIT_ABLATE || op == LAB_EDIT_SPLICE;
}

static int resolve_one(struct lab *lab, const struct lab_model_info *model, struct edits_plan *plan,
                       const struct lab_edit *from, enum lab_bos bos, struct resolved_edit *edit, struct error *error) {
  edit->op = from->op;
  edit->index = needs_dict(from) ? from->index : -1;
  edit->strength = (float)from->strength;
  edit->value = (float)from->value;
  edit->include_error = from->include_error;
  edit->over = from->over;
  if (needs_dict(from) && (from->op == LAB_EDIT_SET || from->op == LAB_EDIT_ZERO || from->op == LAB_EDIT_PATCH))
    return at_fault(error, ERROR_ARGUMENT, edit, "source", "it works on a point, not on a feature; name the point");
  if (reads_features(from->op) && !needs_dict(from))
    return at_fault(error, ERROR_ARGUMENT, edit, "source", "it changes features, so a source is needed");
  if (resolve_dict(lab, model, from, edit, error) != 0 || resolve_point(plan, from, edit, error) != 0 ||
      resolve_positions(plan, from, edit, error) != 0 || resolve_vector(plan, from, edit, error) != 0 ||
      resolve_rows(plan, from, edit, error) != 0)
    return -1;
  if (edit->dict && resolve_splice(plan, from, edit, error) != 0) return -1;
  return resolve_from(lab, model, plan, from, bos, edit, error);
}

int edits_resolve(struct lab *lab, const struct lab_model_info *info, const struct lab_edit *edits, size_t n,
                  const char *prefix, enum lab_bos bos, struct arena *arena, struct edits_plan *out,
                  struct error *error) {
  *out = (struct edits_plan){.lab = lab, .opened = lab_model_of(lab, info), .arena = arena, .n_edits = n};
  out->edits = arena_array(arena, n, sizeof *out->edits, error);
  if (!out->edits) return -1;
  for (size_t i = 0; i < n; i++) {
    snprintf(out->edits[i].name, sizeof out->edits[i].name, "%.40s[%zu]", prefix, i);
    out->edits[i].number = i;
    if (resolve_one(lab, info, out, &edits[i], bos, &out->edits[i], error) != 0) return -1;
  }
  return 0;
}

/* ---- positions ---- */

static int refuse_position(const struct resolved_edit *edit, const char *field, int64_t position, size_t n,
                           struct error *error) {
  char text[128];
  snprintf(text, sizeof text, "position %" PRId64 " is not there, the text has tokens 0 to %zu (-1 is the last)", position,
           n - 1);
  return at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

/* A position counted from either end; -1 when it is outside. */
static int64_t place(int64_t position, size_t n) {
  int64_t at = position < 0 ? position + (int64_t)n : position;
  return at >= 0 && at < (int64_t)n ? at : -1;
}

static bool may_touch(const struct edits_plan *plan, const struct resolved_edit *edit, int32_t id) {
  return edit->special || !tokenizer_is_special(plan->opened->model->tokenizer, id);
}

/* mask [n] of prompt positions that take part; returns how many. */
static size_t select_positions(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                               uint8_t *mask) {
  size_t count = 0;
  memset(mask, edit->where == LAB_EVERYWHERE || edit->where == LAB_PROMPT, ids->n);
  for (size_t i = 0; edit->where == LAB_LISTED && i < edit->n_positions; i++)
    if (place(edit->positions[i], ids->n) >= 0) mask[place(edit->positions[i], ids->n)] = 1;
  for (size_t i = 0; i < ids->n; i++) count += mask[i] = mask[i] && may_touch(plan, edit, ids->ids[i]);
  return count;
}

static int check_patch(const struct edits_plan *plan, const struct resolved_edit *edit, const struct lab_ids *ids,
                       struct error *error) {
  char text[160];
  uint8_t *mask = arena_alloc(plan->arena, ids->n, error);
  if (!mask) return -1;
  size_t n = select_positions(plan, edit, ids, mask);
  if (edit->rows && edit->n_rows != n) {
    snprintf(text, sizeof text, "%zu rows for %zu selected positions", edit->n_rows, n);
    return at_fault(error, ERROR_ARGUMENT, edit, "rows", text);
  }
  if (edit->n_from_positions && edit->n_from_positions != n) {
    snprintf(text, sizeof text, "%zu positions to take from for %zu selected ones", edit->n_from_positions, n);
    return at_fault(error, ERROR_ARGUMENT, edit, "from.positions", text);
  }
  for (size_t i = 0; i < edit->n_from_positions; i++)
    if (place(edit->from_positions[i], edit->from.n) < 0)
      return refuse_position(edit, "from.positions", edit->from_positions[i], edit->from.n, error);
  for (size_t i = 0; edit->has_from && !edit->n_from_positions && i < ids->n; i++)
    if (mask[i] && i >= edit->from.n) {
      snprintf(text, sizeof text, "position %zu is patched, but the run it is taken from has only %zu tokens; say "
               "from.positions", i, edit->from.n);
      return at_fault(error, ERROR_ARGUMENT, edit, "from", text);
    }
  return 0;
}

static int check_positions(const struct edits_plan *plan, const struct lab_ids *ids, struct error *error) {
  for (size_t e = 0; e < plan->n_edits; e++) {
    const struct resolved_edit *edit = &plan->edits[e];
    for (size_t i = 0; i < edit->n_positions; i++)
      if (place(edit->positions[i], ids->n) < 0) return refuse_position(edit, "positions", edit->positions[i], ids->n, error);
    if (edit->op == LAB_EDIT_PATCH && check_patch(plan, edit, ids, error) != 0) return -1;
  }
  return 0;
}

/* ---- needs ---- */

static int add_need(struct edits_plan *plan, struct resolved_edit *edit, const struct lab_ids *ids, struct error *error) {
  struct edit_need *need = &plan->needs[plan->n_needs++];
  bool patch = edit->op == LAB_EDIT_PATCH, feature = edit->dict && !patch;
  need->edit = edit;
  need->ids = *ids;
  need->edits = edit->from_edits;
  need->owner = plan;
  need->point = feature ? dict_info(edit->dict)->in : edit->point;
  need->width = feature ? 1 : edit->width;
  if (patch)
    need->rows = arena_array(plan->arena, ids->n * (size_t)edit->width, sizeof *need->rows, error);
  else
    need->sum = arena_array(plan->arena, (size_t)need->width, sizeof *need->sum, error);
  edit->n_needs++;
  return need->rows || need->sum ? 0 : -1;
}

int edits_needs(struct edits_plan *plan, const struct lab_ids *texts, size_t n_texts, struct error *error) {
  for (size_t t = 0; t < n_texts; t++)
    if (check_positions(plan, &texts[t], error) != 0) return -1;
  plan->needs = arena_array(plan->arena, plan->n_edits * n_texts, sizeof *plan->needs, error);
  if (!plan->needs) return -1;
  for (size_t e = 0; e < plan->n_edits; e++) {
    struct resolved_edit *edit = &plan->edits[e];
    edit->first_need = plan->n_needs;
    edit->n_needs = 0;
    if (edit->has_from && add_need(plan, edit, &edit->from, error) != 0) return -1;
    for (size_t t = 0; edit->op == LAB_EDIT_MEAN && !edit->has_from && t < n_texts; t++)
      if (add_need(plan, edit, &texts[t], error) != 0) return -1;
  }
  return 0;
}

static int sum_features(struct edit_need *need, const struct engine_tapped *tapped, const uint8_t *counts,
                        struct error *error) {
  struct sparse codes;
  sparse_init(&codes);
  int failed = dict_encode(need->edit->dict, tapped->rows, tapped->n_rows, &codes, error);
  for (int32_t i = 0; !failed && i < tapped->n_rows; i++)
    if (counts[i]) need->sum[0] += (double)sparse_find(&codes, (size_t)i, (int32_t)need->edit->index);
  sparse_clear(&codes);
  return failed;
}

static int take_rows(struct edit_need *need, const struct engine_tapped *tapped, const uint8_t *counts, float *rows,
                     struct error *error) {
  size_t n = (size_t)tapped->n_rows * (size_t)tapped->width;
  if (tapped->backend->ops->read(tapped->backend, rows, tapped->rows.at, n * sizeof *rows, error) != 0) return -1;
  for (int32_t i = 0; need->sum && i < tapped->n_rows; i++)
    for (int64_t c = 0; counts[i] && c < tapped->width; c++) need->sum[c] += (double)rows[i * tapped->width + c];
  return 0;
}

int need_tapped(struct edit_need *need, const struct engine_tapped *tapped, struct error *error) {
  bool feature = need->edit->dict && !need->rows;
  size_t n = (size_t)tapped->n_rows;
  uint8_t *counts = malloc(n);
  float *rows = need->rows ? need->rows + (size_t)tapped->position * (size_t)need->width
                           : malloc(n * (size_t)tapped->width * sizeof *rows);
  int failed = counts && rows ? 0 : error_memory(error, n * (size_t)tapped->width * sizeof *rows);
  for (size_t i = 0; !failed && i < n; i++) {
    counts[i] = may_touch(need->owner, need->edit, need->ids.ids[(size_t)tapped->position + i]);
    need->count += counts[i];
  }
  if (!failed) failed = feature ? sum_features(need, tapped, counts, error) : take_rows(need, tapped, counts, rows, error);
  if (!need->rows) free(rows);
  free(counts);
  return failed;
}

/* ---- lowering ---- */

static void add_mean(const struct edit_need *need, double *sum, int64_t *count) {
  for (int64_t c = 0; c < need->width; c++) sum[c] += need->sum[c];
  *count += need->count;
}

/* The mean that is put in place: of the run it is taken from, of this text, or of all. */
static int mean_values(const struct edits_plan *plan, const struct resolved_edit *edit, size_t text, float *out,
                       struct error *error) {
  const struct edit_need *needs = plan->needs + edit->first_need;
  int64_t width = needs[0].width, count = 0;
  double *sum = calloc((size_t)width, sizeof *sum);
  if (!sum) return error_memory(error, (size_t)width * sizeof *sum);
  bool all = edit->has_from || edit->over == LAB_OVER_BATCH;
  for (size_t i = 0; i < edit->n_needs; i++)
    if (all || i == text) add_mean(&needs[i], sum, &count);
  for (int64_t c = 0; c < width; c++) out[c] = count ? (float)(sum[c] / (double)count) : 0;
  free(sum);
  return 0;
}

/* The rows of a patch: [count][width], for the positions of the mask in their order. */
static void patch_rows(const struct edits_plan *plan, const struct resolved_edit *edit, const uint8_t *mask, size_t n,
                       const struct columns *columns, size_t offset, float *out) {
  size_t width = (size_t)(columns->end - columns->begin), k = 0;
  const struct edit_need *need = edit->has_from ? plan->needs + edit->first_need : NULL;
  for (size_t i = 0; i < n; i++) {
    if (!mask[i]) continue;
    size_t from = edit->n_from_positions ? (size_t)place(edit->from_positions[k], edit->from.n) : i;
    const float *row = need ? need->rows + from * (size_t)edit->width + columns->begin
                            : edit->rows + k * (size_t)selected_width(edit) + offset;
    memcpy(out + k++ * width, row, width * sizeof *out);
  }
}

/* A rank-1 edit does where a feature depends on itself alone, at the point it is read from. */
static bool is_rank_one(const struct resolved_edit *edit) {
  const struct dict_info *info = dict_info(edit->dict);
  return edit->op != LAB_EDIT_SPLICE && edit->include_error && dict_has_encoder_row(edit->dict) && info->d_in == info->d_out &&
         point_index(info->in) == point_index(info->out) && info->in_column == info->out_column;
}

static int lower_feature(const struct resolved_edit *edit, float value, struct edit *e, struct edit_list *list,
                         struct error *error) {
  const struct dict_info *info = dict_info(edit->dict);
  struct edit_feature *features = NULL;
  float *v = NULL, *enc = NULL;
  int failed = 0;
  if (is_rank_one(edit)) {
    v = malloc((size_t)info->d_out * sizeof *v);
    enc = malloc((size_t)info->d_in * sizeof *enc);
    if (!v || !enc) failed = error_memory(error, (size_t)(info->d_in + info->d_out) * sizeof *v);
    if (!failed) dict_decoder_row(edit->dict, edit->index, v);
    struct dict_encoder row = {0, 0, 0};
    if (!failed) row = dict_encoder_row(edit->dict, edit->index, enc);
    e->kind = edit->op == LAB_EDIT_SCALE ? EDIT_ROW_FEATURE_SCALE : EDIT_ROW_FEATURE_SET;
    e->value = value;
    e->column_begin = (int32_t)info->out_column;
    e->column_end = (int32_t)(info->out_column + info->d_out);
    e->v = v;
    e->enc = enc;
    e->bias = row.bias;
    e->threshold = row.threshold;
    e->fold = row.fold;
  } else {
    features = malloc((edit->n_features + 1) * sizeof *features);
    if (!features) failed = error_memory(error, edit->n_features * sizeof *features);
    for (size_t i = 0; !failed && i < edit->n_features; i++) features[i] = edit->features[i];
    if (!failed && edit->op == LAB_EDIT_MEAN) features[edit->n_features - 1].value = value;
    e->dict = edit->dict;
    e->with_error = edit->include_error;
    e->features = features;
    e->n_features = (int32_t)edit->n_features;
  }
  if (!failed) failed = edit_list_add(list, e, error);
  free(features);
  free(v);
  free(enc);
  return failed;
}

static int lower_columns(const struct edits_plan *plan, const struct resolved_edit *edit, const float *mean,
                         const uint8_t *mask, size_t n, const struct columns *columns, size_t offset, struct edit *e,
                         struct edit_list *list, struct error *error) {
  float *rows = NULL;
  e->column_begin = columns->begin;
  e->column_end = columns->end;
  if (edit->op == LAB_EDIT_SET) e->v = edit->v + offset;
  if (edit->op == LAB_EDIT_MEAN) e->v = mean + columns->begin;
  if (edit->op == LAB_EDIT_PATCH) {
    size_t floats = n * (size_t)(columns->end - columns->begin);
    rows = malloc(floats * sizeof *rows + 1);
    if (!rows) return error_memory(error, floats * sizeof *rows);
    patch_rows(plan, edit, mask, n, columns, offset, rows);
    e->v = rows;
  }
  int failed = edit_list_add(list, e, error);
  free(rows);
  return failed;
}

static enum edit_kind kind_of(enum lab_edit_op op) {
  switch (op) {
    case LAB_EDIT_ADD: return EDIT_ROW_ADD;
    case LAB_EDIT_PROJECT: return EDIT_ROW_PROJECT;
    case LAB_EDIT_CAP: return EDIT_ROW_CAP;
    case LAB_EDIT_SCALE: return EDIT_ROW_SCALE;
    case LAB_EDIT_ZERO: return EDIT_ROW_FILL;
    case LAB_EDIT_PATCH: return EDIT_ROW_REPLACE;
    default: return EDIT_ROW_COPY; /* SET and MEAN */
  }
}

static bool is_direction(enum lab_edit_op op) {
  return op == LAB_EDIT_ADD || op == LAB_EDIT_PROJECT || op == LAB_EDIT_CAP;
}

static int lower_one(const struct edits_plan *plan, const struct resolved_edit *edit, size_t text,
                     const struct lab_ids *ids, uint8_t *mask, float *mean, struct edit_list *list, struct error *error) {
  size_t selected = select_positions(plan, edit, ids, mask), offset = 0;
  bool generated = edit->where == LAB_EVERYWHERE || edit->where == LAB_GENERATED;
  if (edit->op == LAB_EDIT_PATCH) generated = false;
  if (!selected && !generated) return 0;
  if (edit->op == LAB_EDIT_MEAN && mean_values(plan, edit, text, mean, error) != 0) return -1;
  struct edit e = {.point = edit->point, .kind = kind_of(edit->op), .column_end = (int32_t)edit->width,
                   .prompt = selected > 0, .generated = generated, .mask = mask, .n_mask = (int32_t)ids->n};
  e.value = is_direction(edit->op) ? edit->strength : edit->op == LAB_EDIT_SCALE ? edit->value : 0;
  if (edit->dict && !is_direction(edit->op))
    return lower_feature(edit, edit->op == LAB_EDIT_MEAN ? mean[0] : edit->op == LAB_EDIT_ABLATE ? 0 : edit->value, &e, list,
                         error);
  if (!edit->dict && point_check_edit(&plan->opened->model->arch, edit->point, e.kind, edit->columns[0].begin,
                                      edit->columns[edit->n_columns - 1].end, 0, error) != 0)
    return -1;
  if (is_direction(edit->op)) {
    e.v = edit->v;
    return edit_list_add(list, &e, error);
  }
  for (size_t c = 0; c < edit->n_columns; c++) {
    if (lower_columns(plan, edit, mean, mask, ids->n, &edit->columns[c], offset, &e, list, error) != 0) return -1;
    offset += (size_t)(edit->columns[c].end - edit->columns[c].begin);
  }
  return 0;
}

int edits_append(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list *list,
                 struct error *error) {
  int64_t widest = 1;
  for (size_t e = 0; e < plan->n_edits; e++)
    if (plan->edits[e].width > widest) widest = plan->edits[e].width;
  uint8_t *mask = malloc(ids->n + 1);
  float *mean = malloc((size_t)widest * sizeof *mean);
  int failed = mask && mean ? 0 : error_memory(error, ids->n + (size_t)widest * sizeof *mean);
  for (size_t e = 0; !failed && e < plan->n_edits; e++)
    failed = lower_one(plan, &plan->edits[e], text, ids, mask, mean, list, error);
  free(mask);
  free(mean);
  return failed;
}

int edits_lower(const struct edits_plan *plan, size_t text, const struct lab_ids *ids, struct edit_list **out,
                struct error *error) {
  *out = NULL;
  if (!plan || !plan->n_edits) return 0;
  struct edit_list *list = edit_list_new(error);
  int failed = list ? edits_append(plan, text, ids, list, error) : -1;
  if (failed || !edit_list_count(list)) {
    edit_list_free(list, plan->opened->model->backend);
    list = NULL;
  }
  *out = list;
  return failed;
}
