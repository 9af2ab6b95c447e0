/* edits_cross.c: the layers of a cross-layer transcoder that are spliced without their error. What stands for the output of
 * layer M is written by the features of all layers up to M, so such edits mean something together only: one for each layer from
 * 0 on, at the same positions. Owns that rule and the order in which the engine wants them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/lab/edits_int.h"

static bool is_direction(enum lab_edit_op op) {
  return op == LAB_EDIT_ADD || op == LAB_EDIT_PROJECT || op == LAB_EDIT_CAP;
}

static bool stands_alone(const struct resolved_edit *edit) {
  return !edit->dict || !dict_info(edit->dict)->cross || edit->include_error || is_direction(edit->op);
}

static int layer_of(const struct resolved_edit *edit) { return dict_info(edit->dict)->in.layer; }

/* Higher layers first: a layer's own edit puts its row away before those below it add to it. */
static int by_layer(const void *a, const void *b) { return layer_of(b) - layer_of(a); }

static bool same_positions(const struct resolved_edit *a, const struct resolved_edit *b) {
  return a->where == b->where && a->special == b->special && a->n_positions == b->n_positions &&
         (!a->n_positions || memcmp(a->positions, b->positions, a->n_positions * sizeof *a->positions) == 0);
}

/* By falling layer, as they are sorted. */
static int check_twins(const struct resolved_edit *group, size_t n, struct error *error) {
  char text[64];
  for (size_t i = 1; i < n; i++) {
    if (!same_positions(&group[i], &group[0]))
      return edit_at_fault(error, ERROR_ARGUMENT, &group[i], "positions", "the layers of a cross-layer transcoder that are spliced without "
                           "their error must be so at the same positions");
    if (layer_of(&group[i - 1]) != layer_of(&group[i])) continue;
    snprintf(text, sizeof text, "layer %d is spliced twice without its error", layer_of(&group[i]));
    return edit_at_fault(error, ERROR_ARGUMENT, &group[i], "source", text);
  }
  return 0;
}

/* No two are of one layer, so they are whole if the highest layer is n - 1. */
static int check_group(const struct resolved_edit *group, size_t n, struct error *error) {
  char text[320];
  if (check_twins(group, n, error) != 0) return -1;
  if (layer_of(&group[0]) == (int)n - 1) return 0;
  snprintf(text, sizeof text, "without its error a cross-layer transcoder stands for the outputs of layers from 0 on, each of which is "
           "a sum over the layers up to it: splice the sources of the layers 0 to %d together, or keep the error (includeError)",
           layer_of(&group[0]));
  return edit_at_fault(error, ERROR_ARGUMENT, &group[0], "source", text);
}

/* The edits that go with plan->edits[first], in their slots by falling layer. */
static int order_group(struct edits_plan *plan, size_t first, struct error *error) {
  size_t n = 0, *slots = calloc(plan->n_edits, sizeof *slots);
  struct resolved_edit *group = calloc(plan->n_edits, sizeof *group);
  int failed = slots && group ? 0 : error_memory(error, plan->n_edits * (sizeof *slots + sizeof *group));
  for (size_t i = first; !failed && i < plan->n_edits; i++) {
    const struct resolved_edit *edit = &plan->edits[i];
    if (stands_alone(edit) || !dict_same_transcoder(edit->dict, plan->edits[first].dict)) continue;
    slots[n] = i;
    group[n++] = *edit;
  }
  if (!failed) {
    qsort(group, n, sizeof *group, by_layer);
    failed = check_group(group, n, error);
  }
  for (size_t i = 0; !failed && i < n; i++) {
    plan->edits[slots[i]] = group[i];
    plan->edits[slots[i]].n_targets = (int32_t)(i + 1); /* its own layer and those of the group behind it */
  }
  free(group);
  free(slots);
  return failed;
}

int edits_order_layers(struct edits_plan *plan, struct error *error) {
  for (size_t i = 0; i < plan->n_edits; i++) {
    if (stands_alone(&plan->edits[i])) continue;
    bool ordered = false;
    for (size_t k = 0; k < i; k++)
      ordered |= !stands_alone(&plan->edits[k]) && dict_same_transcoder(plan->edits[k].dict, plan->edits[i].dict);
    if (!ordered && order_group(plan, i, error) != 0) return -1;
  }
  return 0;
}
