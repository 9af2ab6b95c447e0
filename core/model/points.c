/* points.c: the table of point names. Owns the spelling of every point that TransformerLens and interp-engine
 * know, served or not, so that a name that is merely not served yet is told apart from a misspelt one. Knows
 * no model beyond its number of layers. */
#include "core/model/points.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/base/nearest.h"
#include "core/base/number.h"

#define NOT_SERVED SITE_COUNT
#define SERVED_NAMES "resid_pre.N, z.N, attn_out.N, resid_mid.N, mlp_act.N, mlp_out.N, resid_post.N"

/* Names as patterns: the component "N" stands for the layer. The served ones come first; among these the
 * TransformerLens name of a site stands before its short form (point_name takes the first). */
static const struct {
  const char *name;
  enum site site;
} table[] = {
    {"blocks.N.hook_resid_pre", SITE_RESID_PRE},
    {"blocks.N.attn.hook_z", SITE_ATTN_Z},
    {"blocks.N.hook_attn_out", SITE_ATTN_OUT},
    {"blocks.N.hook_resid_mid", SITE_RESID_MID},
    {"blocks.N.mlp.hook_post", SITE_MLP_POST},
    {"blocks.N.hook_mlp_out", SITE_MLP_OUT},
    {"blocks.N.hook_resid_post", SITE_RESID_POST},
    {"resid_pre.N", SITE_RESID_PRE},
    {"z.N", SITE_ATTN_Z},
    {"attn_out.N", SITE_ATTN_OUT},
    {"resid_mid.N", SITE_RESID_MID},
    {"mlp_act.N", SITE_MLP_POST},
    {"mlp_out.N", SITE_MLP_OUT},
    {"resid_post.N", SITE_RESID_POST},
    {"hook_embed", NOT_SERVED},
    {"hook_pos_embed", NOT_SERVED},
    {"hook_tokens", NOT_SERVED},
    {"hook_full_embed", NOT_SERVED},
    {"blocks.N.hook_attn_in", NOT_SERVED},
    {"blocks.N.hook_q_input", NOT_SERVED},
    {"blocks.N.hook_k_input", NOT_SERVED},
    {"blocks.N.hook_v_input", NOT_SERVED},
    {"blocks.N.hook_mlp_in", NOT_SERVED},
    {"blocks.N.ln1.hook_scale", NOT_SERVED},
    {"blocks.N.ln1.hook_normalized", NOT_SERVED},
    {"blocks.N.ln1_post.hook_scale", NOT_SERVED},
    {"blocks.N.ln1_post.hook_normalized", NOT_SERVED},
    {"blocks.N.ln2.hook_scale", NOT_SERVED},
    {"blocks.N.ln2.hook_normalized", NOT_SERVED},
    {"blocks.N.ln2_post.hook_scale", NOT_SERVED},
    {"blocks.N.ln2_post.hook_normalized", NOT_SERVED},
    {"blocks.N.attn.hook_q", NOT_SERVED},
    {"blocks.N.attn.hook_k", NOT_SERVED},
    {"blocks.N.attn.hook_v", NOT_SERVED},
    {"blocks.N.attn.hook_rot_q", NOT_SERVED},
    {"blocks.N.attn.hook_rot_k", NOT_SERVED},
    {"blocks.N.attn.hook_attn_scores", NOT_SERVED},
    {"blocks.N.attn.hook_pattern", NOT_SERVED},
    {"blocks.N.attn.hook_result", NOT_SERVED},
    {"blocks.N.attn.q_norm.hook_scale", NOT_SERVED},
    {"blocks.N.attn.q_norm.hook_normalized", NOT_SERVED},
    {"blocks.N.attn.k_norm.hook_scale", NOT_SERVED},
    {"blocks.N.attn.k_norm.hook_normalized", NOT_SERVED},
    {"blocks.N.mlp.hook_pre", NOT_SERVED},
    {"blocks.N.mlp.hook_pre_linear", NOT_SERVED},
    {"blocks.N.mlp.hook_mid", NOT_SERVED},
    {"blocks.N.mlp.hook_in", NOT_SERVED},
    {"blocks.N.mlp.hook_out", NOT_SERVED},
    {"ln_final.hook_scale", NOT_SERVED},
    {"ln_final.hook_normalized", NOT_SERVED},
    {"unembed.hook_in", NOT_SERVED},
    {"unembed.hook_out", NOT_SERVED},
    {"embeddings", NOT_SERVED},
    {"attn_in.N", NOT_SERVED},
    {"q_norm_in.N", NOT_SERVED},
    {"q_norm_out.N", NOT_SERVED},
    {"k_norm_in.N", NOT_SERVED},
    {"k_norm_out.N", NOT_SERVED},
    {"value.N", NOT_SERVED},
    {"attn_scores.N", NOT_SERVED},
    {"attn_probs.N", NOT_SERVED},
    {"attn_out_post.N", NOT_SERVED},
    {"mlp_in.N", NOT_SERVED},
    {"mlp_pre.N", NOT_SERVED},
    {"mlp_pre_linear.N", NOT_SERVED},
    {"mlp_out_post.N", NOT_SERVED},
    {"final_norm", NOT_SERVED},
    {"lm_head", NOT_SERVED},
};
#define TABLE_COUNT (sizeof table / sizeof *table)

#define NAME_BYTES 64

/* A name taken apart: "blocks.7.hook_resid_pre" is "blocks.N.hook_resid_pre" and "7". */
struct parts {
  char pattern[NAME_BYTES];
  char layer[12]; /* "" when no component is a number */
};

/* One spelling a layer: no plus sign, no leading zeros. */
static bool is_layer(const char *text, size_t length) {
  size_t sign = length > 0 && *text == '-';
  if (length == sign || length >= sizeof((struct parts *)0)->layer) return false;
  if (length > sign + 1 && text[sign] == '0') return false;
  return strspn(text + sign, "0123456789") >= length - sign;
}

/* False when the name is longer than any known one. */
static bool take_apart(const char *name, struct parts *out) {
  size_t used = 0;
  memset(out, 0, sizeof *out);
  for (const char *at = name;; at++) {
    size_t length = strcspn(at, "."), copied = length;
    const char *text = at;
    if (!out->layer[0] && is_layer(at, length)) {
      memcpy(out->layer, at, length);
      text = "N";
      copied = 1;
    }
    if (used + copied + 2 > sizeof out->pattern) return false;
    memcpy(out->pattern + used, text, copied);
    used += copied;
    at += length;
    if (!*at) return true;
    out->pattern[used++] = '.';
  }
}

/* The pattern with a layer put in ("N" stays where there is none). */
static const char *put_together(const char *pattern, const char *layer, char *out, size_t size) {
  const char *hole = strchr(pattern, 'N');
  if (!hole || !*layer)
    snprintf(out, size, "%s", pattern);
  else
    snprintf(out, size, "%.*s%s%s", (int)(hole - pattern), pattern, layer, hole + 1);
  return out;
}

static int unknown_point(const char *name, const struct parts *parts, struct error *error) {
  const char *names[TABLE_COUNT];
  char suggestion[NAME_BYTES];
  for (size_t i = 0; i < TABLE_COUNT; i++) names[i] = table[i].name;
  const char *near = parts ? nearest_name(parts->pattern, names, TABLE_COUNT) : NULL;
  if (near)
    return error_set(error, ERROR_ARGUMENT, "unknown point '%.80s', did you mean '%s'?", name,
                     put_together(near, parts->layer, suggestion, sizeof suggestion));
  return error_set(
      error, ERROR_ARGUMENT,
      "unknown point '%.80s', expected a name such as 'blocks.N.hook_resid_pre' or 'resid_pre.N' "
      "(served: " SERVED_NAMES ")",
      name);
}

static int check_layer(const char *name, const char *layer, int n_layer, int *out, struct error *error) {
  int64_t value;
  if (!*layer)
    return error_set(error, ERROR_ARGUMENT,
                     "point '%.80s' names no layer, expected a number from 0 to %d for N", name, n_layer - 1);
  if (!number_parse_int(layer, &value) || value < 0 || value >= n_layer)
    return error_set(error, ERROR_ARGUMENT, "layer %s of point '%.80s' is out of range, expected 0 to %d",
                     layer, name, n_layer - 1);
  *out = (int)value;
  return 0;
}

int point_parse(const char *name, int n_layer, struct point *out, struct error *error) {
  struct parts parts;
  size_t i = 0;
  if (!take_apart(name, &parts)) return unknown_point(name, NULL, error);
  while (i < TABLE_COUNT && strcmp(parts.pattern, table[i].name) != 0) i++;
  if (i == TABLE_COUNT) return unknown_point(name, &parts, error);
  int layer = 0;
  if (strchr(table[i].name, 'N') && check_layer(name, parts.layer, n_layer, &layer, error) != 0) return -1;
  if (table[i].site == NOT_SERVED)
    return error_set(error, ERROR_UNSUPPORTED, "point '%.80s' is not served yet (served: " SERVED_NAMES ")",
                     name);
  *out = (struct point){layer, table[i].site};
  return 0;
}

const char *point_name(struct point point, char out[POINT_NAME_BYTES]) {
  size_t i = 0;
  char layer[12];
  while (table[i].site != point.site) i++;
  snprintf(layer, sizeof layer, "%d", point.layer);
  return put_together(table[i].name, layer, out, POINT_NAME_BYTES);
}
