/* points.c: the table of point names. Owns the spelling of every point that TransformerLens and interp-engine
 * know, served or not, so that a name that is merely not served yet is told apart from a misspelt one. Knows
 * no model beyond its number of layers. */
#include "core/model/points.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/base/nearest.h"
#include "core/base/number.h"

/* Points that others know and steerd does not serve. */
#define NOT_SERVED SITE_COUNT

/* Names as patterns: the component "N" stands for the layer; names without one are at the layer that `where` says. The
 * first name of a site is the one it is shown with. */
enum where { EACH, FIRST, LAST };
static const struct {
  const char *name;
  enum site site;
  enum where where;
} table[] = {
    {"hook_embed", SITE_EMBED, FIRST},
    {"hook_pos_embed", SITE_POS_EMBED, FIRST},
    {"blocks.N.hook_resid_pre", SITE_RESID_PRE, EACH},
    {"blocks.N.hook_attn_in", SITE_HEAD_IN, EACH},
    {"blocks.N.hook_q_input", SITE_Q_IN, EACH},
    {"blocks.N.hook_k_input", SITE_K_IN, EACH},
    {"blocks.N.hook_v_input", SITE_V_IN, EACH},
    {"blocks.N.ln1.hook_scale", SITE_LN1_SCALE, EACH},
    {"blocks.N.ln1.hook_normalized", SITE_LN1_NORMALIZED, EACH},
    {"attn_in.N", SITE_ATTN_IN, EACH},
    {"blocks.N.attn.hook_q", SITE_Q, EACH},
    {"blocks.N.attn.hook_k", SITE_K, EACH},
    {"blocks.N.attn.hook_v", SITE_V, EACH},
    {"blocks.N.attn.q_norm.hook_scale", SITE_Q_NORM_SCALE, EACH},
    {"blocks.N.attn.q_norm.hook_normalized", SITE_Q_NORM_NORMALIZED, EACH},
    {"q_norm_out.N", SITE_Q_NORM_OUT, EACH},
    {"blocks.N.attn.k_norm.hook_scale", SITE_K_NORM_SCALE, EACH},
    {"blocks.N.attn.k_norm.hook_normalized", SITE_K_NORM_NORMALIZED, EACH},
    {"k_norm_out.N", SITE_K_NORM_OUT, EACH},
    {"blocks.N.attn.hook_rot_q", SITE_ROT_Q, EACH},
    {"blocks.N.attn.hook_rot_k", SITE_ROT_K, EACH},
    {"blocks.N.attn.hook_attn_scores", SITE_SCORES, EACH},
    {"blocks.N.attn.hook_pattern", SITE_PATTERN, EACH},
    {"blocks.N.attn.hook_z", SITE_ATTN_Z, EACH},
    {"blocks.N.attn.hook_result", SITE_RESULT, EACH},
    {"attn_out.N", SITE_ATTN_RAW, EACH},
    {"blocks.N.ln1_post.hook_scale", SITE_LN1_POST_SCALE, EACH},
    {"blocks.N.ln1_post.hook_normalized", SITE_LN1_POST_NORMALIZED, EACH},
    {"blocks.N.hook_attn_out", SITE_ATTN_OUT, EACH},
    {"blocks.N.hook_resid_mid", SITE_RESID_MID, EACH},
    {"blocks.N.hook_mlp_in", SITE_MLP_RESID, EACH},
    {"blocks.N.ln2.hook_scale", SITE_LN2_SCALE, EACH},
    {"blocks.N.ln2.hook_normalized", SITE_LN2_NORMALIZED, EACH},
    {"blocks.N.mlp.hook_in", SITE_MLP_IN, EACH},
    {"blocks.N.mlp.hook_pre", SITE_MLP_PRE, EACH},
    {"blocks.N.mlp.hook_pre_linear", SITE_MLP_PRE_LINEAR, EACH},
    {"blocks.N.mlp.hook_mid", SITE_MLP_MID, EACH},
    {"blocks.N.mlp.hook_post", SITE_MLP_POST, EACH},
    {"blocks.N.mlp.hook_out", SITE_MLP_RAW, EACH},
    {"blocks.N.ln2_post.hook_scale", SITE_LN2_POST_SCALE, EACH},
    {"blocks.N.ln2_post.hook_normalized", SITE_LN2_POST_NORMALIZED, EACH},
    {"blocks.N.hook_mlp_out", SITE_MLP_OUT, EACH},
    {"blocks.N.hook_resid_post", SITE_RESID_POST, EACH},
    {"ln_final.hook_scale", SITE_FINAL_SCALE, LAST},
    {"ln_final.hook_normalized", SITE_FINAL_NORMALIZED, LAST},
    {"unembed.hook_in", SITE_FINAL_OUT, LAST},
    {"unembed.hook_out", SITE_LOGITS, LAST},
    /* interp-engine */
    {"embeddings", SITE_RESID_PRE, FIRST},
    {"resid_pre.N", SITE_RESID_PRE, EACH},
    {"q_norm_in.N", SITE_Q, EACH},
    {"k_norm_in.N", SITE_K, EACH},
    {"value.N", SITE_V, EACH},
    {"attn_scores.N", SITE_SCORES, EACH},
    {"attn_probs.N", SITE_PATTERN, EACH},
    {"z.N", SITE_ATTN_Z, EACH},
    {"attn_out_post.N", SITE_ATTN_OUT, EACH},
    {"resid_mid.N", SITE_RESID_MID, EACH},
    {"mlp_in.N", SITE_MLP_IN, EACH},
    {"mlp_pre.N", SITE_MLP_PRE, EACH},
    {"mlp_pre_linear.N", SITE_MLP_PRE_LINEAR, EACH},
    {"mlp_act.N", SITE_MLP_POST, EACH},
    {"mlp_out.N", SITE_MLP_RAW, EACH},
    {"mlp_out_post.N", SITE_MLP_OUT, EACH},
    {"resid_post.N", SITE_RESID_POST, EACH},
    {"final_norm", SITE_FINAL_OUT, LAST},
    {"lm_head", SITE_LOGITS, LAST},
    /* short forms of TransformerLens */
    {"embed", SITE_EMBED, FIRST},
    {"pos_embed", SITE_POS_EMBED, FIRST},
    {"hook_full_embed", SITE_RESID_PRE, FIRST},
    {"q_input.N", SITE_Q_IN, EACH},
    {"k_input.N", SITE_K_IN, EACH},
    {"v_input.N", SITE_V_IN, EACH},
    {"q.N", SITE_Q, EACH},
    {"k.N", SITE_K, EACH},
    {"v.N", SITE_V, EACH},
    {"rot_q.N", SITE_ROT_Q, EACH},
    {"rot_k.N", SITE_ROT_K, EACH},
    {"pattern.N", SITE_PATTERN, EACH},
    {"result.N", SITE_RESULT, EACH},
    {"pre.N", SITE_MLP_PRE, EACH},
    {"pre_linear.N", SITE_MLP_PRE_LINEAR, EACH},
    {"mid.N", SITE_MLP_MID, EACH},
    {"post.N", SITE_MLP_POST, EACH},
    {"key.N", SITE_K, EACH},
    {"query.N", SITE_Q, EACH},
    {"attn.N", SITE_PATTERN, EACH},
    {"attn_logits.N", SITE_SCORES, EACH},
    {"mlp_mid.N", SITE_MLP_MID, EACH},
    {"mlp_post.N", SITE_MLP_POST, EACH},
    {"hook_tokens", NOT_SERVED, FIRST},
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

/* What other libraries and habits call a point that has another name here. */
static const char *const habits[][2] = {
    {"logits", "unembed.hook_out"},       {"unembed", "unembed.hook_out"},     {"embed_out", "unembed.hook_out"},
    {"resid.N", "resid_post.N"},          {"residual.N", "resid_post.N"},      {"hidden_states.N", "resid_post.N"},
    {"hidden.N", "resid_post.N"},         {"resid", "resid_post.N"},           {"mlp.N", "mlp_out.N"},
    {"attention.N", "attn_out.N"},        {"scores.N", "attn_scores.N"},       {"probs.N", "pattern.N"},
    {"attention_pattern.N", "pattern.N"}, {"ln_final", "ln_final.hook_normalized"}, {"final_norm.N", "final_norm"},
    {"neurons.N", "mlp_post.N"},          {"acts.N", "mlp_post.N"},
};

/* A name without what says where it stands: "blocks.N.attn.hook_pattern" and "attn.pattern" are "attn_pattern". */
static void bare(const char *pattern, char out[NAME_BYTES]) {
  size_t used = 0;
  for (const char *at = pattern; *at;) {
    size_t length = strcspn(at, "."), skip = strncmp(at, "hook_", 5) == 0 ? 5 : 0;
    bool place = (length == 1 && *at == 'N') || (length == 6 && memcmp(at, "blocks", 6) == 0);
    if (!place && used + length - skip + 2 < NAME_BYTES)
      used += (size_t)snprintf(out + used, NAME_BYTES - used, "%s%.*s", used ? "_" : "", (int)(length - skip), at + skip);
    at += length;
    at += *at == '.';
  }
  out[used] = '\0';
}

/* The name that is most likely meant, as it stands in the table; NULL when nothing is near. */
static const char *meant(const char *pattern) {
  const char *names[TABLE_COUNT];
  char asked[NAME_BYTES], own[NAME_BYTES];
  for (size_t i = 0; i < sizeof habits / sizeof *habits; i++)
    if (strcmp(pattern, habits[i][0]) == 0) return habits[i][1];
  bare(pattern, asked);
  for (size_t i = 0; i < TABLE_COUNT; i++) {
    names[i] = table[i].name;
    bare(table[i].name, own);
    if (strcmp(own, asked) == 0) return table[i].name;
  }
  return nearest_name(pattern, names, TABLE_COUNT);
}

static int unknown_point(const char *name, const struct parts *parts, struct error *error) {
  char suggestion[NAME_BYTES];
  const char *near = parts ? meant(parts->pattern) : NULL;
  if (near)
    return error_set(error, ERROR_ARGUMENT, "unknown point '%.80s', did you mean '%s'?", name,
                     put_together(near, parts->layer, suggestion, sizeof suggestion));
  return error_set(error, ERROR_ARGUMENT,
                   "unknown point '%.80s', expected a name such as 'blocks.N.hook_resid_pre' or 'resid_pre.N' "
                   "(a running steerd lists all at /docs/points)",
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

/* The packed short forms of TransformerLens: a word without underscores, digits, and perhaps a layer type. "k6" is
 * "k.6", "scale4ln1" is "blocks.4.ln1.hook_scale". False when the name is none. */
static bool unpack(const char *name, char *out, size_t size) {
  static const char *const types[][2] = {{"a", "attn."},    {"attn", "attn."}, {"attention", "attn."},
                                         {"m", "mlp."},     {"mlp", "mlp."},   {"b", ""},
                                         {"block", ""},     {"blocks", ""},    {"ln1", "ln1."},
                                         {"ln2", "ln2."}};
  size_t word = strspn(name, "abcdefghijklmnopqrstuvwxyz"), digits = strspn(name + word, "0123456789");
  const char *type = name + word + digits, *part = NULL;
  if (!word || !digits || word > 16 || digits > 10) return false;
  if (!*type) return snprintf(out, size, "%.*s.%.*s", (int)word, name, (int)digits, name + word) > 0;
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(types[i][0], type) == 0) part = types[i][1];
  if (!part) return false;
  return snprintf(out, size, "blocks.%.*s.%shook_%.*s", (int)digits, name + word, part, (int)word, name) > 0;
}

static bool look_up(const char *name, struct parts *parts, size_t *row) {
  if (!take_apart(name, parts)) return false;
  for (*row = 0; *row < TABLE_COUNT; ++*row)
    if (strcmp(parts->pattern, table[*row].name) == 0) return true;
  return false;
}

int point_read(const char *name, int n_layer, struct point *out, struct error *error) {
  struct parts parts, packed;
  char unpacked[NAME_BYTES];
  size_t i;
  if (!look_up(name, &parts, &i)) {
    if (!unpack(name, unpacked, sizeof unpacked) || !look_up(unpacked, &packed, &i))
      return unknown_point(name, parts.pattern[0] && strlen(name) < NAME_BYTES ? &parts : NULL, error);
    parts = packed;
  }
  int layer = table[i].where == LAST ? n_layer : 0;
  if (table[i].where == EACH && check_layer(name, parts.layer, n_layer, &layer, error) != 0) return -1;
  if (table[i].site == NOT_SERVED)
    return error_set(error, ERROR_ARGUMENT, "point '%.80s' is not served: the request knows its own tokens", name);
  *out = (struct point){layer, table[i].site};
  return 0;
}

int point_parse(const char *name, int n_layer, struct point *out, struct error *error) {
  struct point point;
  if (point_read(name, n_layer, &point, error) != 0) return -1;
  if (point.site == SITE_ATTN_RAW) point.site = SITE_ATTN_OUT;
  if (point.site == SITE_MLP_RAW) point.site = SITE_MLP_OUT;
  *out = point;
  return 0;
}

const char *site_name(enum site site) {
  size_t i = 0;
  while (table[i].site != site) i++;
  return table[i].name;
}

size_t site_spellings(enum site site, const char *out[], size_t most) {
  size_t n = 0;
  for (size_t i = 0; i < TABLE_COUNT; i++)
    if (table[i].site == site && n < most) out[n++] = table[i].name;
  return n;
}

const char *point_name(struct point point, char out[POINT_NAME_BYTES]) {
  char layer[12];
  snprintf(layer, sizeof layer, "%d", point.layer);
  return put_together(site_name(point.site), layer, out, POINT_NAME_BYTES);
}

/* Greedy: the last star takes one character more whenever the rest does not fit. */
static bool matches(const char *pattern, const char *text) {
  const char *star = NULL, *from = NULL;
  while (*text) {
    if (*pattern == '*') {
      star = pattern++;
      from = text;
    } else if (*pattern == '?' || *pattern == *text) {
      pattern++;
      text++;
    } else if (star) {
      pattern = star + 1;
      text = ++from;
    } else {
      return false;
    }
  }
  return !pattern[strspn(pattern, "*")];
}

bool point_matches(struct point point, const char *pattern) {
  char layer[12], name[NAME_BYTES];
  snprintf(layer, sizeof layer, "%d", point.layer);
  for (size_t i = 0; i < TABLE_COUNT; i++) {
    bool other = table[i].where == FIRST && point.layer > 0; /* "embeddings" is resid_pre of layer 0 alone */
    if (table[i].site == point.site && !other &&
        matches(pattern, put_together(table[i].name, table[i].where == EACH ? layer : "", name, sizeof name)))
      return true;
  }
  return false;
}
