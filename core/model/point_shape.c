/* point_shape.c: which points an architecture has, and their shapes. Knows no name (points.c) and no op. */
#include "core/model/point_shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model/points.h"

static struct point_shape row_of(int64_t width) { return (struct point_shape){POINT_COLD, 0, width, false}; }

static struct point_shape heads_of(int32_t heads, int64_t width) {
  return (struct point_shape){POINT_COLD, heads, width, false};
}

static struct point_shape shape(const struct arch *arch, enum site site) {
  switch (site) {
    case SITE_HEAD_IN:
    case SITE_Q_IN:
    case SITE_RESULT: return heads_of(arch->n_head, arch->d_model);
    case SITE_K_IN:
    case SITE_V_IN: return heads_of(arch->n_kv_head, arch->d_model);
    case SITE_Q:
    case SITE_Q_NORM_NORMALIZED:
    case SITE_Q_NORM_OUT:
    case SITE_ROT_Q:
    case SITE_ATTN_Z: return heads_of(arch->n_head, arch->d_head);
    case SITE_K:
    case SITE_V:
    case SITE_K_NORM_NORMALIZED:
    case SITE_K_NORM_OUT:
    case SITE_ROT_K: return heads_of(arch->n_kv_head, arch->d_head);
    case SITE_Q_NORM_SCALE: return heads_of(arch->n_head, 1);
    case SITE_K_NORM_SCALE: return heads_of(arch->n_kv_head, 1);
    case SITE_LN1_SCALE:
    case SITE_LN1_POST_SCALE:
    case SITE_LN2_SCALE:
    case SITE_LN2_POST_SCALE:
    case SITE_FINAL_SCALE: return row_of(1);
    case SITE_SCORES:
    case SITE_PATTERN: return (struct point_shape){POINT_COLD, arch->n_head, 0, true};
    case SITE_MLP_PRE:
    case SITE_MLP_PRE_LINEAR:
    case SITE_MLP_MID:
    case SITE_MLP_POST: return row_of(arch->d_mlp);
    case SITE_LOGITS: return row_of(arch->vocabulary);
    default: return row_of(arch->d_model);
  }
}

#define SITES_DERIVED                                                                                       \
  (site_bit(SITE_HEAD_IN) | site_bit(SITE_Q_IN) | site_bit(SITE_K_IN) | site_bit(SITE_V_IN) |             \
   site_bit(SITE_RESULT) | site_bit(SITE_MLP_RESID))

struct point_shape point_shape(const struct arch *arch, enum site site) {
  struct point_shape out = shape(arch, site);
  if (SITES_DERIVED & site_bit(site)) out.kind = POINT_DERIVED;
  if (site_is_hot(site)) out.kind = POINT_HOT;
  return out;
}

int64_t point_width(const struct arch *arch, enum site site, int32_t keys) {
  struct point_shape s = shape(arch, site);
  return (s.heads ? s.heads : 1) * (s.square ? keys : s.width);
}

const char *point_missing(const struct arch *arch, enum site site) {
  static const char none[] = "it has no norms", stream[] = "its norms are of the residual stream, behind each addition", no_post[] = "no norm follows its sublayers",
                    no_heads_norm[] = "it does not norm queries and keys", no_mlp[] = "it has no MLP",
                    no_middle[] = "its attention and MLP stand side by side";
  const char *no_norm = arch->stream_norm == NORM_NONE ? none : stream;
  bool mlp = arch_has(arch, HAS_MLP), norms = arch->norm != NORM_NONE, post = arch_has(arch, HAS_POST_NORMS);
  switch (site) {
    case SITE_POS_EMBED: return arch_has(arch, HAS_POSITIONS) ? NULL : "its positions are not learned";
    case SITE_LN1_SCALE:
    case SITE_LN1_NORMALIZED: return norms ? NULL : no_norm;
    case SITE_FINAL_SCALE:
    case SITE_FINAL_NORMALIZED: return arch->final_norm == NORM_NONE ? no_norm : NULL;
    case SITE_RESID_MID:
    case SITE_MLP_RESID: return !mlp ? no_mlp : arch->parallel ? no_middle : NULL;
    case SITE_LN2_SCALE:
    case SITE_LN2_NORMALIZED:
      if (!mlp || !norms) return mlp ? no_norm : no_mlp;
      return arch_has(arch, HAS_NORM2) ? NULL : "its MLP reads the first norm";
    case SITE_MLP_IN:
      if (!mlp) return no_mlp;
      return arch_has(arch, HAS_NORM2) ? NULL : "its MLP reads the first norm: attn_in";
    case SITE_MLP_PRE:
    case SITE_MLP_POST:
    case SITE_MLP_OUT: return mlp ? NULL : no_mlp;
    case SITE_Q_NORM_SCALE:
    case SITE_Q_NORM_NORMALIZED:
    case SITE_Q_NORM_OUT:
    case SITE_K_NORM_SCALE:
    case SITE_K_NORM_NORMALIZED:
    case SITE_K_NORM_OUT: return arch_has(arch, HAS_QK_NORM) ? NULL : no_heads_norm;
    case SITE_ROT_Q:
    case SITE_ROT_K: return arch->rotary.dims ? NULL : "its positions are not rotary";
    case SITE_ATTN_RAW:
    case SITE_LN1_POST_SCALE:
    case SITE_LN1_POST_NORMALIZED: return post ? NULL : no_post;
    case SITE_MLP_RAW:
    case SITE_LN2_POST_SCALE:
    case SITE_LN2_POST_NORMALIZED: return !mlp ? no_mlp : post ? NULL : no_post;
    case SITE_MLP_PRE_LINEAR: return !mlp ? no_mlp : arch->gated ? NULL : "its MLP is not gated";
    case SITE_MLP_MID: return !mlp ? no_mlp : arch_has(arch, HAS_MLP_NORM) ? NULL : "its MLP has no norm of its own";
    default: return NULL;
  }
}

/* Room for the points of a model in an error: what does not fit is at /docs/points. */
#define LIST_BYTES 240

/* The short names of the sites a model has, one blank before each, as many as fit. */
static void list_sites(const struct arch *arch, char out[LIST_BYTES + 40]) {
  size_t used = 0;
  *out = '\0';
  for (int site = 0; site < SITE_COUNT; site++) {
    if (point_missing(arch, (enum site)site)) continue;
    const char *name = site_name((enum site)site), *dot = strncmp(name, "blocks.N.", 9) == 0 ? name + 9 : name;
    if (used + strlen(dot) + 1 >= LIST_BYTES) {
      snprintf(out + used, 40, " and more (/docs/points has all)");
      return;
    }
    used += (size_t)snprintf(out + used, LIST_BYTES - used, " %s", dot);
  }
}

/* Names that only make sense beside another one, which such models lack. */
static const char *name_missing(const struct arch *arch, const char *name) {
  enum site beside = strstr(name, "_norm_in.") ? SITE_Q_NORM_OUT : strstr(name, "_out_post.") ? SITE_ATTN_RAW : SITE_RESID_PRE;
  return point_missing(arch, beside);
}

int point_find(const char *name, const struct arch *arch, struct point *out, struct error *error) {
  struct point point;
  char all[LIST_BYTES + 40];
  if (point_read(name, arch->n_layer, &point, error) != 0) return -1;
  if (point.site == SITE_ATTN_RAW && point_missing(arch, point.site)) point.site = SITE_ATTN_OUT;
  if (point.site == SITE_MLP_RAW && point_missing(arch, point.site)) point.site = SITE_MLP_OUT;
  const char *why = point_missing(arch, point.site);
  if (!why) why = name_missing(arch, name);
  if (why) {
    list_sites(arch, all);
    return error_set(error, ERROR_ARGUMENT, "this model has no point '%.60s': %s; it has%s", name, why, all);
  }
  *out = point;
  return 0;
}

/* The model has the point at this layer. */
static bool stands_at(const struct arch *arch, struct point point) {
  bool first = point.site <= SITE_POS_EMBED, last = point.site >= SITE_FINAL_SCALE;
  if (point_missing(arch, point.site)) return false;
  return first ? point.layer == 0 : last == (point.layer == arch->n_layer);
}

/* Without norms after sublayers, what is before such a norm is what is added. */
static bool selects(const struct arch *arch, struct point point, const char *pattern) {
  struct point raw = point;
  if (point_matches(point, pattern)) return true;
  if (point.site == SITE_ATTN_OUT) raw.site = SITE_ATTN_RAW;
  if (point.site == SITE_MLP_OUT) raw.site = SITE_MLP_RAW;
  return raw.site != point.site && point_missing(arch, raw.site) && point_matches(raw, pattern);
}

static int select_one(const char *name, const struct arch *arch, struct point **out, size_t *count, struct error *error) {
  struct point point;
  if (point_find(name, arch, &point, error) != 0) return -1;
  *out = malloc(sizeof **out);
  if (!*out) return error_memory(error, sizeof **out);
  **out = point;
  *count = 1;
  return 0;
}

int points_select(const char *pattern, const struct arch *arch, struct point **out, size_t *count,
                  struct error *error) {
  char all[LIST_BYTES + 40];
  if (!strpbrk(pattern, "*?")) return select_one(pattern, arch, out, count, error);
  if (strlen(pattern) > 2 * POINT_NAME_BYTES) /* each name is tried against it, so it must not be long */
    return error_set(error, ERROR_ARGUMENT, "pattern '%.40s...' has %zu characters, no point's name has more than %d", pattern,
                     strlen(pattern), POINT_NAME_BYTES - 1);
  size_t most = (size_t)point_count(arch->n_layer), n = 0;
  struct point *found = malloc(most * sizeof *found);
  if (!found) return error_memory(error, most * sizeof *found);
  for (int p = 0; p < (int)most; p++) {
    struct point point = {p / SITE_COUNT, (enum site)(p % SITE_COUNT)};
    if (stands_at(arch, point) && selects(arch, point, pattern)) found[n++] = point;
  }
  if (n) {
    *out = found;
    *count = n;
    return 0;
  }
  free(found);
  list_sites(arch, all);
  return error_set(error, ERROR_ARGUMENT, "no point of this model matches '%.60s'; it has%s", pattern, all);
}

/* Kinds that look along a vector before they change the row: over several heads of a derived point, which come up one by
 * one, they would see a part of it each time. */
static bool looks_along(enum edit_kind kind) {
  return kind == EDIT_ROW_PROJECT || kind == EDIT_ROW_CAP || kind == EDIT_ROW_FEATURE_SET || kind == EDIT_ROW_FEATURE_SCALE;
}

int point_check_edit(const struct arch *arch, struct point point, enum edit_kind kind, int64_t column_begin,
                     int64_t column_end, int32_t keys, struct error *error) {
  char name[POINT_NAME_BYTES];
  struct point_shape s = point_shape(arch, point.site);
  int64_t width = point_width(arch, point.site, keys);
  point_name(point, name);
  if (column_begin < 0 || column_begin >= column_end || column_end > width)
    return error_set(error, ERROR_ARGUMENT, "columns %lld to %lld of '%s' are out of range, it has %lld",
                     (long long)column_begin, (long long)column_end, name, (long long)width);
  if (point.site == SITE_HEAD_IN && arch->n_kv_head != arch->n_head)
    return error_set(error, ERROR_ARGUMENT,
                     "'%s' cannot be edited: %d query heads share %d key-value heads (edit hook_q_input, hook_k_input or "
                     "hook_v_input)",
                     name, arch->n_head, arch->n_kv_head);
  bool inputs = point.site == SITE_HEAD_IN || point.site == SITE_Q_IN || point.site == SITE_K_IN || point.site == SITE_V_IN;
  if (arch_has(arch, HAS_PLACED_KEYS) && (inputs || point.site == SITE_POS_EMBED))
    return error_set(error, ERROR_ARGUMENT,
                     "'%s' cannot be edited: this model adds positions to what queries and keys read, in every layer", name);
  if (s.kind == POINT_DERIVED && s.heads && looks_along(kind) && column_begin / s.width != (column_end - 1) / s.width)
    return error_set(error, ERROR_ARGUMENT, "an edit of '%s' that measures along a vector must stay inside one head (%lld columns); "
                     "name it in 'heads'", name, (long long)s.width);
  return 0;
}
