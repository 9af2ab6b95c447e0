/* lab_edits.c: what a client says of an edit, resolved: names become points, dictionaries, columns, vectors. Owns the rules of
 * every op: what it works on, in which units, at which heads. Knows nothing of texts and runs. */
#include "core/lab_edits_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checked.h"
#include "core/model/point_shape.h"
#include "core/store/features.h"

int edit_at_fault(struct error *error, enum error_code code, const struct resolved_edit *edit, const char *field,
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
  if (edit->dict) return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", "the source says the columns; leave them out");
  if (!each) return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", "this point has no heads; attn.hook_z has");
  qsort(heads, from->n_heads, sizeof *heads, by_number);
  edit->n_columns = 0;
  for (size_t i = 0; i < from->n_heads; i++) {
    snprintf(text, sizeof text, "head %" PRId64 " is named twice or is not there; the model has heads 0 to %" PRId64,
             heads[i], n_heads - 1);
    if (heads[i] < 0 || heads[i] >= n_heads || (i && heads[i] == heads[i - 1]))
      return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", text);
    struct columns run = {(int32_t)(heads[i] * each), (int32_t)((heads[i] + 1) * each)};
    if (edit->n_columns && edit->columns[edit->n_columns - 1].end == run.begin)
      edit->columns[edit->n_columns - 1].end = run.end;
    else
      edit->columns[edit->n_columns++] = run;
  }
  return 0;
}

int64_t edit_selected_width(const struct resolved_edit *edit) {
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
    if (from->point) return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "the source says the point; leave one of them out");
    return resolve_heads(plan, from, edit, error);
  }
  if (!from->point) return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "a point or a source with a feature is needed");
  if (point_find(from->point, arch, &edit->point, &inner) != 0)
    return edit_at_fault(error, inner.code, edit, "point", inner.text);
  if (point_shape(arch, edit->point.site).square)
    return edit_at_fault(error, ERROR_UNSUPPORTED, edit, "point", "scores and patterns can be looked at here, not edited yet");
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
  return edit_at_fault(error, ERROR_NOT_FOUND, edit, field, text);
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
  return edit_at_fault(error, ERROR_ARGUMENT, edit, "unit",
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
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "index", "the feature's number is needed beside its source");
  if (from->index >= 0 && check_feature(edit, "index", from->index, error) != 0) return -1;
  if (from->max_unit && stored_maximum(lab, info, edit, &unit, error) != 0) return -1;
  edit->strength = (float)(from->strength * unit);
  edit->value = (float)(from->value * (from->op == LAB_EDIT_SCALE ? 1 : unit));
  return 0;
}

/* ---- resolving: vectors and rows ---- */

static int refuse_length(const struct resolved_edit *edit, const char *field, size_t found, struct error *error) {
  char text[128];
  snprintf(text, sizeof text, "%zu numbers, expected %" PRId64 " (the width of the point%s)", found, edit_selected_width(edit),
           edit->n_columns && edit->columns[0].end - edit->columns[0].begin < edit->width ? "'s chosen heads" : "");
  return edit_at_fault(error, ERROR_ARGUMENT, edit, field, text);
}

static int check_finite(const struct resolved_edit *edit, const char *field, const float *v, size_t n, struct error *error) {
  for (size_t i = 0; i < n; i++)
    if (!isfinite(v[i])) return edit_at_fault(error, ERROR_ARGUMENT, edit, field, "a number is too large for float32");
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
    return edit_at_fault(error, ERROR_ARGUMENT, edit, edit->dict ? "index" : "vector", "it is zero, so it has no direction");
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
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "vector", "the feature says the direction; leave one of them out");
  if (edit->dict) {
    dict_decoder_row(edit->dict, edit->index, edit->v + dict_info(edit->dict)->out_column);
  } else {
    if (!from->vector) return edit_at_fault(error, ERROR_ARGUMENT, edit, "vector", "a vector is needed, or source and index");
    if ((int64_t)from->n_vector != edit_selected_width(edit)) return refuse_length(edit, "vector", from->n_vector, error);
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
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "positions", "a patch has rows for positions of the prompt only");
  if (!from->from == !from->rows)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "from", "a patch takes its values from 'from' or from 'rows', one of them");
  if (!from->rows) return 0;
  if ((int64_t)from->row_width != edit_selected_width(edit)) return refuse_length(edit, "rows", from->row_width, error);
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
      return edit_at_fault(error, ERROR_ARGUMENT, &edit->from_edits->edits[i], "op",
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
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "source", "it works on a point, not on a feature; name the point");
  if (reads_features(from->op) && !needs_dict(from))
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "source", "it changes features, so a source is needed");
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
    if (resolve_one(lab, info, out, &edits[i], bos, &out->edits[i], error) != 0) return -1;
  }
  return 0;
}
