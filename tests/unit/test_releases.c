/* test_releases.c: the table of published dictionaries: names to repositories and folders, nearest names, and that every
 * line of it can be spelled out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/dict/releases.h"

static struct releases *table;

static int set_up(void **state) {
  (void)state;
  table = releases_open("config/releases.ini", NULL);
  return table ? 0 : -1;
}

static int tear_down(void **state) {
  (void)state;
  releases_close(table);
  return 0;
}

static void names_resolve(void **state) {
  (void)state;
  static const char *const rows[][3] = {
      {"gpt2-small-res-jb/blocks.7.hook_resid_pre", "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.7.hook_resid_pre"},
      {"gpt2-small/7-res-jb", "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.7.hook_resid_pre"},
      {"gpt2-small/12-res-jb", "jbloom/GPT2-Small-SAEs-Reformatted", "blocks.11.hook_resid_post"},
      {"gemma-2-2b/20-gemmascope-res-16k", "google/gemma-scope-2b-pt-res", "layer_20/width_16k/average_l0_71"},
      {"gemma-scope-2b-pt-res-canonical/layer_3/width_16k/canonical", "google/gemma-scope-2b-pt-res",
       "layer_3/width_16k/average_l0_59"},
      /* a folder that has no line of its own */
      {"gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "google/gemma-scope-2b-pt-res",
       "embedding/width_4k/average_l0_6"},
      {"gemma-scope-2b-pt-res/layer_3/width_16k/average_l0_30", "google/gemma-scope-2b-pt-res",
       "layer_3/width_16k/average_l0_30"},
      {"gemma-2-2b/7-clt-hp", "mntss/clt-gemma-2-2b-2.5M", "W_enc_7.safetensors"}, /* a layer of a cross-layer transcoder */
      {"llama3.1-8b/15-llamascope-res-32k", "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"},
      {"pythia-70m-deduped/3-res-sm", "ctigges/pythia-70m-deduped__res-sm_processed", "3-res-sm"},
      {"mistral-7b-res-wg/blocks.16.hook_resid_pre", "JoshEngels/Mistral-7B-Residual-Stream-SAEs", "mistral_7b_layer_16"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct release_place place;
    struct error error = ERROR_INIT;
    if (releases_find(table, rows[i][0], &place, &error) != 0) fail_msg("%s", error.text);
    assert_string_equal(place.repository, rows[i][1]);
    assert_string_equal(place.folder, rows[i][2]);
  }
}

static void unknown_names_answer_with_the_nearest(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"gpt2-small-res-jb/blocks.7.hook_resid_prd",
       "unknown dictionary 'gpt2-small-res-jb/blocks.7.hook_resid_prd', did you mean "
       "'gpt2-small-res-jb/blocks.7.hook_resid_pre'?"},
      {"gpt2-small-rs-jb/blocks.7.hook_resid_pre",
       "unknown dictionary 'gpt2-small-rs-jb/blocks.7.hook_resid_pre', did you mean the release 'gpt2-small-res-jb'?"},
      {"gpt2-small/7-rez-jb", "unknown dictionary 'gpt2-small/7-rez-jb', did you mean 'gpt2-small/7-res-jb'?"},
      {"gpt2-small-res-jb/blocks.12.hook_resid_pre",
       "unknown dictionary 'gpt2-small-res-jb/blocks.12.hook_resid_pre', did you mean "
       "'gpt2-small-res-jb/blocks.11.hook_resid_pre'?"},
      {"gemma-scope-2b-pt-res/../../secrets",
       "unknown dictionary 'gemma-scope-2b-pt-res/../../secrets', expected RELEASE/ID such as "
       "'gpt2-small-res-jb/blocks.7.hook_resid_pre' or MODEL/SOURCE such as 'gpt2-small/7-res-jb'"},
      {"nothing like it", "unknown dictionary 'nothing like it', expected RELEASE/ID such as "
                          "'gpt2-small-res-jb/blocks.7.hook_resid_pre' or MODEL/SOURCE such as 'gpt2-small/7-res-jb'"},
  };
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct release_place place;
    struct error error = ERROR_INIT;
    assert_int_equal(releases_find(table, rows[i][0], &place, &error), -1);
    assert_int_equal(error.code, ERROR_NOT_FOUND);
    assert_string_equal(error.text, rows[i][1]);
  }
}

static int look(void *context, const struct release_place *place, const char *id, const char *neuronpedia) {
  (*(size_t *)context)++;
  bool spelled = *place->folder && *place->repository && *place->model && !strpbrk(place->folder, "{}|") &&
                 !strpbrk(neuronpedia, "{}|") && !strpbrk(id, "{}") && strchr(place->repository, '/');
  if (!spelled) fail_msg("[%s] %s = %s | %s", place->release, id, place->folder, neuronpedia);
  return 0;
}

static void every_line_can_be_spelled_out(void **state) {
  (void)state;
  size_t n = 0;
  assert_int_equal(releases_each(table, look, &n), 0);
  assert_true(n > 2000);
}

/* Broken tables say little and never more than they have. */
static void broken_lines_name_nothing(void **state) {
  (void)state;
  char path[] = "/tmp/steerd-releases-XXXXXX";
  int fd = mkstemp(path);
  FILE *file = fdopen(fd, "w");
  fputs("[r]\nmodel = m\nrepository = a/b\n{ = x\n{5 = y\na{1-2 = z\nb{3-1} = {3=}\nc{0-3} = {0=p\nd{0-1} = q{ | e{\n", file);
  fclose(file);
  struct releases *broken = releases_open(path, NULL);
  assert_non_null(broken);
  struct release_place place;
  static const char *const names[] = {"r/{", "r/b3", "r/c0", "r/d1", "r/", "/", "", "e"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    assert_int_equal(releases_find(broken, names[i], &place, &(struct error)ERROR_INIT), -1);
  releases_close(broken);
  releases_close(NULL);
  unlink(path);
  struct releases *empty = releases_open(NULL, NULL);
  assert_int_equal(releases_find(empty, "gpt2-small/7-res-jb", &place, &(struct error)ERROR_INIT), -1);
  releases_close(empty);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(names_resolve), cmocka_unit_test(unknown_names_answer_with_the_nearest),
      cmocka_unit_test(every_line_can_be_spelled_out), cmocka_unit_test(broken_lines_name_nothing)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
