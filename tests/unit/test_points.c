/* test_points.c: point names both ways, what is said about wrong ones, and the nearest-name helper. */
#include <stdio.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/base/nearest.h"
#include "core/model/point_shape.h"
#include "core/model/points.h"

static void parses_to(const char *name, int layer, enum site site) {
  struct error error = ERROR_INIT;
  struct point point = {-1, SITE_COUNT};
  if (point_parse(name, 12, &point, &error) != 0) fail_msg("%s: %s", name, error.text);
  if (point.layer != layer || point.site != site)
    fail_msg("%s: got layer %d site %d", name, point.layer, point.site);
}

static void both_spellings_mean_the_same_point(void **state) {
  (void)state;
  static const struct {
    const char *long_name, *short_name;
    enum site site;
  } rows[] = {
      {"blocks.7.attn.hook_q", "q7", SITE_Q},
      {"blocks.7.attn.hook_k", "k.7", SITE_K},
      {"blocks.7.attn.hook_v", "value.7", SITE_V},
      {"blocks.7.attn.hook_attn_scores", "attn_logits.7", SITE_SCORES},
      {"blocks.7.attn.hook_pattern", "attn_probs.7", SITE_PATTERN},
      {"blocks.7.ln1.hook_scale", "scale7ln1", SITE_LN1_SCALE},
      {"blocks.7.ln2.hook_normalized", "normalized7ln2", SITE_LN2_NORMALIZED},
      {"blocks.7.mlp.hook_in", "mlp_in.7", SITE_MLP_IN},
      {"blocks.7.mlp.hook_pre", "pre7m", SITE_MLP_PRE},
      {"blocks.7.mlp.hook_pre_linear", "mlp_pre_linear.7", SITE_MLP_PRE_LINEAR},
      {"blocks.7.hook_resid_pre", "resid_pre.7", SITE_RESID_PRE},
      {"blocks.7.attn.hook_z", "z.7", SITE_ATTN_Z},
      {"blocks.7.hook_attn_out", "attn_out.7", SITE_ATTN_OUT},
      {"blocks.7.hook_resid_mid", "resid_mid.7", SITE_RESID_MID},
      {"blocks.7.mlp.hook_post", "mlp_act.7", SITE_MLP_POST},
      {"blocks.7.hook_mlp_out", "mlp_out.7", SITE_MLP_OUT},
      {"blocks.7.hook_resid_post", "resid_post.7", SITE_RESID_POST},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    char name[POINT_NAME_BYTES];
    parses_to(rows[i].long_name, 7, rows[i].site);
    parses_to(rows[i].short_name, 7, rows[i].site);
    assert_string_equal(point_name((struct point){7, rows[i].site}, name), rows[i].long_name);
  }
  parses_to("blocks.0.hook_resid_pre", 0, SITE_RESID_PRE);
  parses_to("resid_post.11", 11, SITE_RESID_POST);
  parses_to("embeddings", 0, SITE_RESID_PRE);
  parses_to("hook_embed", 0, SITE_EMBED);
  parses_to("hook_pos_embed", 0, SITE_POS_EMBED);
  parses_to("ln_final.hook_scale", 12, SITE_FINAL_SCALE);
  parses_to("final_norm", 12, SITE_FINAL_OUT);
  parses_to("lm_head", 12, SITE_LOGITS);
}

static void refuses(const char *name, enum error_code code, const char *text) {
  struct error error = ERROR_INIT;
  struct point point = {-1, SITE_COUNT};
  if (point_parse(name, 12, &point, &error) == 0) fail_msg("%s was accepted", name);
  assert_string_equal(error.text, text);
  assert_int_equal(error.code, code);
  assert_int_equal(point.layer, -1); /* written on success only */
}

#define UNKNOWN(name)                                                                                        \
  "unknown point '" name                                                                                     \
  "', expected a name such as 'blocks.N.hook_resid_pre' or 'resid_pre.N' (a running steerd lists all at /docs/points)"

static void wrong_names_are_told_apart(void **state) {
  (void)state;
  refuses("blocks.7.hook_resid_pr", ERROR_ARGUMENT,
          "unknown point 'blocks.7.hook_resid_pr', did you mean 'blocks.7.hook_resid_pre'?");
  refuses("Resid_Pre.3", ERROR_ARGUMENT, "unknown point 'Resid_Pre.3', did you mean 'resid_pre.3'?");
  refuses("mlp_cat.3", ERROR_ARGUMENT, "unknown point 'mlp_cat.3', did you mean 'mlp_act.3'?");
  refuses("blocks.07.hook_resid_pre", ERROR_ARGUMENT,
          "unknown point 'blocks.07.hook_resid_pre', did you mean 'blocks.N.hook_resid_pre'?");
  refuses("resid_pre.N", ERROR_ARGUMENT,
          "point 'resid_pre.N' names no layer, expected a number from 0 to 11 for N");
  refuses("blocks.12.hook_resid_pre", ERROR_ARGUMENT,
          "layer 12 of point 'blocks.12.hook_resid_pre' is out of range, expected 0 to 11");
  refuses("z.-1", ERROR_ARGUMENT, "layer -1 of point 'z.-1' is out of range, expected 0 to 11");
  refuses("", ERROR_ARGUMENT, UNKNOWN(""));
  refuses("7", ERROR_ARGUMENT, UNKNOWN("7"));
  refuses("...", ERROR_ARGUMENT, UNKNOWN("..."));
  refuses("banana", ERROR_ARGUMENT, UNKNOWN("banana"));
  refuses("k12", ERROR_ARGUMENT, "layer 12 of point 'k12' is out of range, expected 0 to 11");
  static const char *const meant[][2] = {
      {"logits", "unembed.hook_out"},        {"hook_mlp_post", "blocks.N.mlp.hook_post"},       {"attn.pattern", "blocks.N.attn.hook_pattern"},
      {"resid.2", "resid_post.2"},           {"blocks.1.hook_pattern", "pattern.1"}, {"blocks.0.attn.z", "blocks.0.attn.hook_z"},
      {"mlp.3", "mlp_out.3"},                {"blocks.2.ln2.scale", "blocks.2.ln2.hook_scale"}};
  for (size_t i = 0; i < sizeof meant / sizeof *meant; i++) {
    char text[160];
    snprintf(text, sizeof text, "unknown point '%s', did you mean '%s'?", meant[i][0], meant[i][1]);
    refuses(meant[i][0], ERROR_ARGUMENT, text);
  }
  refuses("hook_tokens", ERROR_ARGUMENT, "point 'hook_tokens' is not served: the request knows its own tokens");
}

/* A GPT-2 of two layers, as far as points are concerned. */
static struct arch gpt2_arch(void) {
  return (struct arch){.n_layer = 2, .n_head = 4, .n_kv_head = 4, .d_head = 12, .d_model = 48, .d_mlp = 128, .n_ctx = 160,
                       .vocabulary = 512, .norm = NORM_LAYER, .final_norm = NORM_LAYER,
                       .has = HAS_MLP | HAS_NORM2 | HAS_GAINS | HAS_POSITIONS};
}

static void finds(const struct arch *arch, const char *name, int layer, enum site site) {
  struct error error = ERROR_INIT;
  struct point point;
  if (point_find(name, arch, &point, &error) != 0) fail_msg("%s", error.text);
  if (point.layer != layer || point.site != site) fail_msg("%s: got layer %d site %d", name, point.layer, point.site);
}

static void lacks(const struct arch *arch, const char *name, const char *reason) {
  struct error error = ERROR_INIT;
  struct point point;
  if (point_find(name, arch, &point, &error) == 0) fail_msg("%s was found", name);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  if (!strstr(error.text, reason) || !strstr(error.text, "; it has hook_")) fail_msg("%s: %s", name, error.text);
}

static void models_have_their_own_points(void **state) {
  (void)state;
  struct arch arch = gpt2_arch();
  finds(&arch, "attn_out.1", 1, SITE_ATTN_OUT);
  finds(&arch, "blocks.1.mlp.hook_out", 1, SITE_MLP_OUT);
  finds(&arch, "lm_head", 2, SITE_LOGITS);
  lacks(&arch, "blocks.1.attn.hook_rot_q", "its positions are not rotary");
  lacks(&arch, "mlp_pre_linear.1", "its MLP is not gated");
  lacks(&arch, "q_norm_in.1", "it does not norm queries and keys");
  lacks(&arch, "attn_out_post.1", "no norm follows its sublayers");
  lacks(&arch, "blocks.0.ln2_post.hook_scale", "no norm follows its sublayers");
  arch.has |= HAS_POST_NORMS;
  finds(&arch, "attn_out.1", 1, SITE_ATTN_RAW);
  finds(&arch, "attn_out_post.1", 1, SITE_ATTN_OUT);
  finds(&arch, "blocks.1.hook_mlp_out", 1, SITE_MLP_OUT);
  arch.parallel = true;
  lacks(&arch, "resid_mid.0", "its attention and MLP stand side by side");
}

/* How many points a pattern stands for; the first one's name must be `first`. */
static void selects(const char *pattern, size_t count, const char *first) {
  struct error error = ERROR_INIT;
  struct arch arch = gpt2_arch();
  struct point *points = NULL;
  size_t n = 0;
  char name[POINT_NAME_BYTES];
  if (points_select(pattern, &arch, &points, &n, &error) != 0) fail_msg("%s", error.text);
  if (n != count) fail_msg("%s: %zu points", pattern, n);
  assert_string_equal(point_name(points[0], name), first);
  free(points);
}

static void patterns_stand_for_points(void **state) {
  (void)state;
  selects("blocks.*.hook_resid_post", 2, "blocks.0.hook_resid_post");
  selects("resid_post.*", 2, "blocks.0.hook_resid_post");
  selects("*hook_z", 2, "blocks.0.attn.hook_z");
  selects("attn_out.*", 2, "blocks.0.hook_attn_out");
  selects("blocks.1.attn.hook_?", 4, "blocks.1.attn.hook_q");
  selects("embed*", 2, "hook_embed");
  selects("*ln*hook_scale", 5, "blocks.0.ln1.hook_scale");
  selects("z.1", 1, "blocks.1.attn.hook_z");
  selects("*", 2 + 2 * 25 + 4, "hook_embed");
  struct error error = ERROR_INIT;
  struct arch arch = gpt2_arch();
  struct point *points;
  size_t n;
  assert_int_equal(points_select("banana.*", &arch, &points, &n, &error), -1);
  assert_non_null(strstr(error.text, "no point of this model matches 'banana.*'"));
  char stars[5000];
  memset(stars, '*', sizeof stars - 1);
  stars[sizeof stars - 1] = '\0';
  error_clear(&error);
  assert_int_equal(points_select(stars, &arch, &points, &n, &error), -1);
  assert_non_null(strstr(error.text, "has 4999 characters"));
}

/* Shapes that a reply needs, and edits that make no sense. */
static void points_have_shapes(void **state) {
  (void)state;
  struct arch arch = gpt2_arch();
  struct point_shape scores = point_shape(&arch, SITE_SCORES), result = point_shape(&arch, SITE_RESULT);
  assert_true(scores.square && scores.heads == 4 && scores.kind == POINT_COLD);
  assert_true(!result.square && result.heads == 4 && result.width == 48 && result.kind == POINT_DERIVED);
  assert_int_equal(point_width(&arch, SITE_SCORES, 9), 36);
  assert_int_equal(point_width(&arch, SITE_RESULT, 0), 192);
  assert_int_equal(point_width(&arch, SITE_LN2_SCALE, 0), 1);
  assert_int_equal(point_shape(&arch, SITE_MLP_POST).kind, POINT_HOT);
  struct point at = {1, SITE_RESULT};
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_ADD, 0, 192, 0, NULL), 0);
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_ADD, 0, 193, 0, NULL), -1);
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_ADD, 5, 5, 0, NULL), -1);
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_CAP, 40, 60, 0, NULL), -1);
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_CAP, 48, 96, 0, NULL), 0);
  at.site = SITE_HEAD_IN;
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_ADD, 0, 192, 0, NULL), 0);
  arch.n_kv_head = 2;
  assert_int_equal(point_check_edit(&arch, at, EDIT_ROW_ADD, 0, 192, 0, NULL), -1);
}

static void long_names_are_refused(void **state) {
  (void)state;
  char name[5000];
  struct error error = ERROR_INIT;
  struct point point;
  memset(name, '7', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  assert_int_equal(point_parse(name, 12, &point, &error), -1);
  assert_int_equal(error.code, ERROR_ARGUMENT);
  for (size_t i = 0; i < sizeof name - 1; i++) name[i] = i % 2 ? '.' : '7';
  assert_int_equal(point_parse(name, 12, &point, NULL), -1);
}

static void nearest_finds_slips_and_nothing_else(void **state) {
  (void)state;
  const char *const names[] = {"prompt", "temperature", "n_tokens", "seed", "strength", "k"};
  const size_t n = sizeof names / sizeof *names;
  assert_string_equal(nearest_name("promt", names, n), "prompt");   /* dropped */
  assert_string_equal(nearest_name("prommpt", names, n), "prompt"); /* inserted */
  assert_string_equal(nearest_name("pronpt", names, n), "prompt");  /* replaced */
  assert_string_equal(nearest_name("sede", names, n), "seed");      /* swapped: one slip, not two */
  assert_string_equal(nearest_name("Temperature", names, n), "temperature");
  assert_string_equal(nearest_name("tempreture", names, n), "temperature");
  assert_string_equal(nearest_name("strenght", names, n), "strength");
  assert_string_equal(nearest_name("K", names, n), "k");
  assert_null(nearest_name("features", names, n));
  assert_null(nearest_name("q", names, n));
  const char *const rhymes[] = {"vector", "texts"};
  assert_null(nearest_name("factor", rhymes, 2)); /* two letters of six, the first among them */
  assert_null(nearest_name("", names, n));
  assert_null(nearest_name("seed", names, 0));
  char word[200];
  memset(word, 'a', sizeof word - 1);
  word[sizeof word - 1] = '\0';
  assert_null(nearest_name(word, names, n));
  const char *const tall[] = {word, word + 199 - 63};
  assert_ptr_equal(nearest_name(word + 199 - 63, tall, 2), tall[1]); /* 63 bytes are compared, 199 are not */
  const char *const equals[] = {"hook_k", "hook_q"};
  assert_string_equal(nearest_name("hook_x", equals, 2), "hook_k");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_spellings_mean_the_same_point),
      cmocka_unit_test(wrong_names_are_told_apart),
      cmocka_unit_test(long_names_are_refused), cmocka_unit_test(models_have_their_own_points),
      cmocka_unit_test(patterns_stand_for_points), cmocka_unit_test(points_have_shapes),
      cmocka_unit_test(nearest_finds_slips_and_nothing_else),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
