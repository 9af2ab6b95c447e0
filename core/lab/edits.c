/* edits.c: what a client says of an edit, resolved: names become points, columns, further texts. Owns the rules of
 * every op: what it works on, at which heads and keys, from where. Knows nothing of the texts that are edited. */
#include "core/lab/edits_int.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/point_shape.h"

int edit_at_fault(struct error *error, enum error_code code, const struct resolved_edit *edit, const char *field,
                  const char *text) {
  char name[80];
  snprintf(name, sizeof name, "%.44s.%.32s", edit->name, field);
  return error_set_field(error, code, name, "%s: %s", name, text);
}

void *edits_keep(struct arena *arena, const void *from, size_t count, size_t size, struct error *error) {
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
  if ((int64_t)input->n_ids > context && room)
    return error_set_field(error, ERROR_LIMIT, field, "%s: it has %zu tokens, the model's context of %" PRId64
                           " leaves no room to generate; shorten it to %" PRId64, field, input->n_ids, context + room, context);
  if ((int64_t)input->n_ids > context)
    return error_set_field(error, ERROR_LIMIT, field, "%s: it has %zu tokens, the model takes %" PRId64, field,
                           input->n_ids, context);
  for (size_t i = 0; i < input->n_ids; i++) {
    if (input->ids[i] >= 0 && input->ids[i] < vocabulary) continue;
    char element[64];
    snprintf(element, sizeof element, "%.40s[%zu]", field, i);
    return error_set_field(error, ERROR_ARGUMENT, element, "%s is %" PRId64 ", the model has tokens 0 to %" PRId64, element,
                           input->ids[i], vocabulary - 1);
  }
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
  out->ids = edits_keep(arena, ids, out->n, sizeof *ids, error);
  free(ids);
  return out->ids ? 0 : -1;
}

/* ---- resolving: where ---- */

static int by_number(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return x < y ? -1 : x > y;
}

/* One at a time, so that the error can say which of the two it is. */
static int check_head(const struct resolved_edit *edit, const int64_t *heads, size_t i, int64_t n_heads, struct error *error) {
  char text[128];
  if (heads[i] < 0 || heads[i] >= n_heads) {
    snprintf(text, sizeof text, "there is no head %" PRId64 ", the point has heads 0 to %" PRId64, heads[i], n_heads - 1);
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", text);
  }
  if (i == 0 || heads[i] != heads[i - 1]) return 0;
  snprintf(text, sizeof text, "head %" PRId64 " is named twice", heads[i]);
  return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", text);
}

static int resolve_heads(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                         struct error *error) {
  struct point_shape shape = point_shape(&plan->opened->model->arch, edit->point.site);
  int64_t each = shape.square ? 1 : shape.heads ? shape.width : 0;
  edit->columns = arena_array(plan->arena, from->n_heads + 1, sizeof *edit->columns, error);
  int64_t *heads = edits_keep(plan->arena, from->heads, from->n_heads, sizeof *heads, error);
  if (!edit->columns || !heads) return -1;
  edit->columns[0] = (struct columns){0, shape.square ? shape.heads : (int32_t)edit->width, 0};
  edit->n_columns = 1;
  if (!from->n_heads) return 0;
  if (edit->dict) return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", "the source says the columns; leave them out");
  if (!each) return edit_at_fault(error, ERROR_ARGUMENT, edit, "heads", "this point has no heads; attn.hook_z has");
  qsort(heads, from->n_heads, sizeof *heads, by_number);
  edit->n_columns = 0;
  for (size_t i = 0; i < from->n_heads; i++) {
    if (check_head(edit, heads, i, shape.heads, error) != 0) return -1;
    int32_t begin = (int32_t)(heads[i] * each), end = (int32_t)((heads[i] + 1) * each);
    if (edit->n_columns && edit->columns[edit->n_columns - 1].end == begin)
      edit->columns[edit->n_columns - 1].end = end;
    else
      edit->columns[edit->n_columns++] = (struct columns){begin, end, begin};
  }
  return 0;
}

int64_t edit_selected_width(const struct resolved_edit *edit) {
  int64_t width = 0;
  for (size_t i = 0; i < edit->n_columns; i++) width += edit->columns[i].end - edit->columns[i].begin;
  return width;
}

/* What may be done to a row that has a column for every key. Those that measure along a vector would need one of each length. */
static int check_square(const struct resolved_edit *edit, struct error *error) {
  if (edit->op == LAB_EDIT_PROJECT || edit->op == LAB_EDIT_CAP)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "op", "scores and patterns take add, set, scale, zero, knockout, mean with "
                         "perPosition and patch: their rows have as many columns as a text has tokens, no direction");
  if (edit->op == LAB_EDIT_MEAN && !edit->per_position)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "perPosition", "at scores and patterns the mean is that of each position by "
                         "itself over several texts, because rows see different keys: say perPosition: true");
  if (edit->op == LAB_EDIT_KNOCKOUT && edit->point.site != SITE_SCORES)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "a knockout hides keys before the softmax: name attn_scores; at the "
                         "pattern, 'zero' takes weights away and leaves the others as they are");
  return 0;
}

static int resolve_keys(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                        struct error *error) {
  edit->keys = edits_keep(plan->arena, from->keys, from->n_keys, sizeof *edit->keys, error);
  edit->n_keys = from->n_keys;
  if (!edit->keys) return -1;
  if (edit->square) return check_square(edit, error);
  if (edit->n_keys)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "keys", "this point has no keys; attn_scores and pattern have");
  if (edit->op == LAB_EDIT_KNOCKOUT)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "a knockout hides keys from attention: name attn_scores");
  return 0;
}

static bool reads_features(enum lab_edit_op op) {
  return op == LAB_EDIT_CLAMP || op == LAB_EDIT_ABLATE || op == LAB_EDIT_SPLICE;
}

static int resolve_point(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                         struct error *error) {
  const struct arch *arch = &plan->opened->model->arch;
  struct error inner = ERROR_INIT;
  if (edit->dict && from->point)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "the source says the point; leave one of them out");
  if (edit->dict) {
    const struct dict_info *info = dict_info(edit->dict);
    bool neurons = info->kind == DICT_NEURONS; /* changed where they are read */
    edit->point = neurons ? info->in : info->out;
    edit->width = neurons ? info->in_width : info->out_width;
    edit->n_targets = info->n_targets;
    if (reads_features(from->op) && point_index(info->in) > point_index(info->out))
      return edit_at_fault(error, ERROR_ARGUMENT, edit, "source", "it writes to a point in front of the one that it reads, where its "
                           "features are not known yet; add, project and cap take their directions");
  } else {
    if (!from->point) return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "a point or a source with a feature is needed");
    if (strpbrk(from->point, "*?"))
      return edit_at_fault(error, ERROR_ARGUMENT, edit, "point", "an edit takes one point and no pattern; give an edit for each point");
    if (point_find(from->point, arch, &edit->point, &inner) != 0)
      return edit_at_fault(error, inner.code, edit, "point", inner.text);
    edit->square = point_shape(arch, edit->point.site).square;
    edit->width = point_width(arch, edit->point.site, 0);
  }
  if (resolve_heads(plan, from, edit, error) != 0) return -1;
  return resolve_keys(plan, from, edit, error);
}

static int resolve_positions(const struct edits_plan *plan, const struct lab_edit *from, struct resolved_edit *edit,
                             struct error *error) {
  edit->where = from->where;
  edit->special = from->special;
  edit->n_positions = from->n_positions;
  edit->positions = edits_keep(plan->arena, from->positions, from->n_positions, sizeof *edit->positions, error);
  edit->n_from_positions = from->n_from_positions;
  edit->from_positions = edits_keep(plan->arena, from->from_positions, from->n_from_positions, sizeof *edit->from_positions, error);
  return edit->positions && edit->from_positions ? 0 : -1;
}

/* ---- resolving: further runs ---- */

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
    if (edit->from_edits->edits[i].has_from || (edit->from_edits->edits[i].op == LAB_EDIT_MEAN && !edit->from_edits->edits[i].known))
      return edit_at_fault(error, ERROR_ARGUMENT, &edit->from_edits->edits[i], "op",
                      "an edit of a run that is patched from cannot need a further run");
  return edits_needs(edit->from_edits, &edit->from, 1, error);
}

/* The texts of a mean over a corpus. */
static int resolve_texts(const struct edits_plan *plan, const struct lab_edit *from, enum lab_bos bos, struct resolved_edit *edit,
                         struct error *error) {
  char field[96];
  if (from->op != LAB_EDIT_MEAN) return 0;
  if (from->from && (from->n_texts || from->over != LAB_OVER_POSITIONS || from->per_position))
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "from", "the mean of one run is over its positions; leave 'from' out, or "
                         "'over', 'texts' and 'perPosition'");
  if (from->n_texts && from->over != LAB_OVER_CORPUS)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "texts", "they are what the mean is over: say over: \"corpus\", or leave "
                         "'over' out");
  if (from->over == LAB_OVER_CORPUS && !from->n_texts && !edit->known)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "texts", "a mean over a corpus needs its texts, an array of strings");
  if (from->per_position && (edit->dict || from->over == LAB_OVER_POSITIONS))
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "perPosition", edit->dict
                         ? "it works on a point, not on a feature"
                         : "each position by itself is averaged over several texts: give 'texts', or over: \"batch\"");
  edit->texts = arena_array(plan->arena, from->n_texts, sizeof *edit->texts, error);
  for (size_t i = 0; edit->texts && i < from->n_texts; i++) {
    snprintf(field, sizeof field, "%s.texts[%zu]", edit->name, i);
    if (lab_input_ids(plan->opened, &from->texts[i], bos, 0, field, plan->arena, &edit->texts[i], error) != 0) return -1;
  }
  edit->n_texts = from->n_texts;
  return edit->texts ? 0 : -1;
}

static int resolve_one(struct lab *lab, const struct lab_model_info *model, struct edits_plan *plan,
                       const struct lab_edit *from, enum lab_bos bos, struct resolved_edit *edit, struct error *error) {
  edit->op = from->op;
  edit->index = from->source_id ? from->index : -1;
  edit->strength = (float)from->strength;
  edit->value = (float)from->value;
  edit->include_error = from->include_error;
  edit->over = from->over;
  edit->n_targets = 1;
  edit->per_position = from->per_position;
  edit->uniform = from->uniform;
  if (from->source_id && (from->op == LAB_EDIT_SET || from->op == LAB_EDIT_ZERO || from->op == LAB_EDIT_PATCH ||
                           from->op == LAB_EDIT_KNOCKOUT))
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "source", "it works on a point, not on a feature; name the point");
  if (from->op == LAB_EDIT_MEAN && !from->source_id && from->value != 0)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "value", "it is added to the mean of a feature; the mean of a point takes none");
  if (reads_features(from->op) && !from->source_id)
    return edit_at_fault(error, ERROR_ARGUMENT, edit, "source", "it changes features, so a source is needed");
  if (resolve_dict(lab, model, from, edit, error) != 0 || resolve_point(plan, from, edit, error) != 0 ||
      resolve_positions(plan, from, edit, error) != 0 || resolve_vector(plan, from, edit, error) != 0 ||
      resolve_rows(plan, from, edit, error) != 0)
    return -1;
  if (edit->dict && resolve_features(plan, from, edit, error) != 0) return -1;
  if (resolve_texts(plan, from, bos, edit, error) != 0) return -1;
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
  return edits_order_layers(out, error);
}
