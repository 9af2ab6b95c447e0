/* lab_points.c: the verb "points": which points a model has, under which names and in what shape: what docs/points.md tells, of the
 * models that are loaded. */
#include <string.h>

#include "core/lab_int.h"
#include "core/laboratory.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

#define MOST_SPELLINGS 16

static const char *kind_of(enum point_kind kind) {
  return kind == POINT_HOT ? "hot" : kind == POINT_COLD ? "cold" : "derived";
}

/* Why no edit of the point is possible, whatever its columns. */
static const char *why_fixed(const struct arch *arch, struct point point, struct arena *arena, struct error *error) {
  struct error inner = ERROR_INIT;
  if (point_check_edit(arch, point, EDIT_ROW_FILL, 0, 1, 1, &inner) == 0) return NULL;
  return arena_text(arena, inner.text, strlen(inner.text), error);
}

static int describe(const struct arch *arch, enum site site, struct arena *arena, struct lab_point *out, struct error *error) {
  const char **names = arena_array(arena, MOST_SPELLINGS, sizeof *names, error);
  struct point_shape shape = point_shape(arch, site);
  struct point point = {site >= SITE_FINAL_SCALE ? arch->n_layer : 0, site};
  if (!names) return -1;
  size_t n = site_spellings(site, names, MOST_SPELLINGS);
  *out = (struct lab_point){.name = names[0], .spellings = names + 1, .n_spellings = n - 1, .kind = kind_of(shape.kind),
                            .heads = shape.heads, .width = shape.width, .square = shape.square,
                            .missing = point_missing(arch, site)};
  if (!out->missing) out->fixed = why_fixed(arch, point, arena, error);
  return 0;
}

int lab_points(const struct lab_model_info *model, const struct lab *lab, struct arena *arena, const struct lab_point **out, size_t *n,
               struct error *error) {
  struct lab_point *points = arena_array(arena, SITE_COUNT, sizeof *points, error);
  if (!points) return -1;
  for (int site = 0; site < SITE_COUNT; site++)
    if (describe(&lab_model_of(lab, model)->model->arch, (enum site)site, arena, &points[site], error) != 0) return -1;
  *out = points;
  *n = SITE_COUNT;
  return 0;
}
