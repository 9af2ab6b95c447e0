/* points.c: the verb "points": which points a model has, under which names and in what shape: what docs/points.md tells, of the
 * models that are loaded. */
#include <stdio.h>
#include <string.h>

#include "core/lab/lab_int.h"
#include "core/laboratory.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

#define MOST_SPELLINGS 16

static const char *kind_of(enum point_kind kind) {
  return kind == POINT_HOT ? "hot" : kind == POINT_COLD ? "cold" : "derived";
}

/* Why no edit of the point is possible, whatever its columns; NULL: it can be edited. */
static int find_fixed(const struct arch *arch, enum site site, struct arena *arena, struct lab_point *out, struct error *error) {
  struct point point = {site >= SITE_FINAL_SCALE ? arch->n_layer : 0, site};
  struct error inner = ERROR_INIT;
  if (out->missing || point_check_edit(arch, point, EDIT_ROW_FILL, 0, 1, 1, &inner) == 0) return 0;
  out->fixed = arena_text(arena, inner.text, strlen(inner.text), error);
  return out->fixed ? 0 : -1;
}

/* What a name with "N" for the layer means in this model: "attn_out.N" is another point where norms follow sublayers. SITE_COUNT:
 * nothing. */
static enum site means(const struct arch *arch, const char *name) {
  char full[2 * POINT_NAME_BYTES];
  struct point point;
  const char *hole = strstr(name, ".N");
  if (hole)
    snprintf(full, sizeof full, "%.*s.0%s", (int)(hole - name), name, hole + 2);
  else
    snprintf(full, sizeof full, "%s", name);
  return point_find(full, arch, &point, NULL) == 0 ? point.site : SITE_COUNT;
}

static int describe(const struct arch *arch, enum site site, struct arena *arena, struct lab_point *out, struct error *error) {
  const char **names = arena_array(arena, MOST_SPELLINGS, sizeof *names, error), *all[MOST_SPELLINGS];
  struct point_shape shape = point_shape(arch, site);
  if (!names) return -1;
  *out = (struct lab_point){.name = site_name(site), .spellings = names, .kind = kind_of(shape.kind), .heads = shape.heads,
                            .width = shape.width, .square = shape.square, .missing = point_missing(arch, site)};
  for (int from = 0; from < SITE_COUNT; from++) {
    size_t n = site_spellings((enum site)from, all, MOST_SPELLINGS);
    for (size_t i = 0; i < n && out->n_spellings < MOST_SPELLINGS; i++) {
      bool own = out->missing ? from == (int)site : means(arch, all[i]) == site;
      if (own && strcmp(all[i], out->name) != 0) names[out->n_spellings++] = all[i];
    }
  }
  return find_fixed(arch, site, arena, out, error);
}

/* A name that means another point here is not missing. */
static bool stands(const struct arch *arch, const struct lab_point *point) {
  return !point->missing || means(arch, point->name) == SITE_COUNT;
}

int lab_points(const struct lab_model_info *model, const struct lab *lab, struct arena *arena, const struct lab_point **out, size_t *n,
               struct error *error) {
  const struct arch *arch = &lab_model_of(lab, model)->model->arch;
  struct lab_point *points = arena_array(arena, SITE_COUNT, sizeof *points, error);
  if (!points) return -1;
  *n = 0;
  for (int site = 0; site < SITE_COUNT; site++) {
    if (describe(arch, (enum site)site, arena, &points[*n], error) != 0) return -1;
    *n += stands(arch, &points[*n]);
  }
  *out = points;
  return 0;
}
