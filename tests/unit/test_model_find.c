/* Names of models, the Hugging Face cache, and what `--model` may be. The cache is built here, as the Hugging Face
 * tools lay it out, around the tiny GPT-2 of the vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/mapfile.h"
#include "core/model/model_find.h"

#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define OTHER "fedcba98"
#define MODEL "tests/vectors/tiny-gpt2/model"

static char root[256]; /* of the cache */

/* ---- helpers ---- */

static void assert_contains(const char *text, const char *part) {
  if (!strstr(text, part)) fail_msg("'%s' does not contain '%s'", text, part);
}

static const char *at(const char *rest) {
  static char path[8][512];
  static int next;
  char *out = path[next++ % 8];
  snprintf(out, sizeof path[0], "%s/%s", root, rest);
  return out;
}

static void folder(const char *rest) { assert_int_equal(mkdir(at(rest), 0700), 0); }

static void file(const char *rest, const char *text) {
  FILE *out = fopen(at(rest), "w");
  assert_non_null(out);
  fputs(text, out);
  fclose(out);
}

static void link_to(const char *target, const char *rest) { assert_int_equal(symlink(target, at(rest)), 0); }

static void copy(const char *from, const char *rest) {
  char buffer[65536];
  size_t n;
  FILE *in = fopen(from, "r"), *out = fopen(at(rest), "w");
  assert_true(in && out);
  while ((n = fread(buffer, 1, sizeof buffer, in)) > 0) fwrite(buffer, 1, n, out);
  fclose(in);
  fclose(out);
}

static void repository(const char *name, const char *commit) {
  char path[256];
  folder(name);
  snprintf(path, sizeof path, "%s/refs", name), folder(path);
  snprintf(path, sizeof path, "%s/blobs", name), folder(path);
  snprintf(path, sizeof path, "%s/snapshots", name), folder(path);
  snprintf(path, sizeof path, "%s/snapshots/%s", name, commit), folder(path);
  snprintf(path, sizeof path, "%s/refs/main", name), file(path, commit);
}

#define GPT2 "models--openai-community--gpt2"
#define DISTIL "models--distilgpt2"
#define TOY "models--NeelNanda--GELU_2L512W_C4_Code"
#define DIGITS "models--NeelNanda--digits"

static int build_cache(void **state) {
  (void)state;
  char path[] = "/tmp/steerd-hub-XXXXXX";
  assert_non_null(mkdtemp(path));
  snprintf(root, sizeof root, "%s", path);
  static const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json"};
  repository(GPT2, COMMIT);
  for (size_t i = 0; i < 3; i++) {
    char from[256], to[256], target[64];
    snprintf(from, sizeof from, MODEL "/%s", files[i]);
    snprintf(to, sizeof to, GPT2 "/blobs/hash%zu", i), copy(from, to);
    snprintf(target, sizeof target, "../../blobs/hash%zu", i);
    snprintf(to, sizeof to, GPT2 "/snapshots/" COMMIT "/%s", files[i]), link_to(target, to);
  }
  folder(GPT2 "/snapshots/" OTHER);
  folder(GPT2 "/refs/refs"), folder(GPT2 "/refs/refs/pr"), file(GPT2 "/refs/refs/pr/1", OTHER "\n");
  file(GPT2 "/refs/v1", "not a commit");
  file(GPT2 "/refs/gone", "aaaaaaaaaaaaaaaa");
  repository(DISTIL, COMMIT);
  repository("models--EleutherAI--pythia-70m", COMMIT);
  folder("datasets--not--amodel");
  link_to("/etc/passwd", DISTIL "/snapshots/" COMMIT "/config.json");
  setenv("HF_HUB_CACHE", root, 1);
  return 0;
}

static int remove_cache(void **state) {
  (void)state;
  char command[512];
  snprintf(command, sizeof command, "rm -r '%s'", root);
  return system(command);
}

static struct model_names *table(void) {
  struct error error = ERROR_INIT;
  struct model_names *names = model_names_open("config/aliases.ini", &error);
  if (!names) fail_msg("%s", error.text);
  return names;
}

/* ---- the table ---- */

static void test_names(void **state) {
  (void)state;
  struct model_names *names = table();
  static const char *const same[] = {"gpt2", "gpt2-small", "openai-community/gpt2", "GPT2-Small"};
  for (size_t i = 0; i < 4; i++) assert_string_equal(model_names_id(names, same[i]), "gpt2-small");
  assert_string_equal(model_names_id(names, "google/gemma-2-2b"), "gemma-2-2b");
  assert_string_equal(model_names_id(names, "Llama-3.2-1B"), "llama-3.2-1b");
  assert_string_equal(model_names_id(names, "tiny-stories-33M"), "tiny-stories-33m");
  assert_string_equal(model_names_id(names, "stanford-gpt2-small-a"), "stanford-gpt2-small-a");
  assert_string_equal(model_names_id(names, "mine"), "mine");
  assert_string_equal(model_names_repositories(names, "gpt2-small"), "openai-community/gpt2 gpt2");
  assert_null(model_names_repositories(names, "mine"));
  assert_string_equal(model_names_nearest(names, "gtp2"), "gpt2");
  assert_string_equal(model_names_nearest(names, "pythia-70"), "pythia-70m");
  assert_null(model_names_nearest(names, "nothing like it"));
  model_names_close(names);
  model_names_close(NULL);
}

static void test_empty_table(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct model_names *names = model_names_open(NULL, &error);
  assert_string_equal(model_names_id(names, "gpt2"), "gpt2");
  assert_null(model_names_nearest(names, "gpt2"));
  model_names_close(names);
}

static void assert_table_refused(const char *text, const char *part) {
  struct error error = ERROR_INIT;
  file("table.ini", text);
  assert_null(model_names_open(at("table.ini"), &error));
  assert_contains(error.text, part);
}

static void test_tables_refused(void **state) {
  (void)state;
  assert_table_refused("[models]\na = o/x\nb = o/X\n", ":3: 'o/X' is already a name of 'a' (line 2)");
  assert_table_refused("[models]\na = o/x\n[aliases]\nA = b\n", ":4: 'A' is already a name of 'a'");
  assert_table_refused("[model]\na = o/x\n", ":2: section [model] is unknown");
}

/* ---- the cache ---- */

static void test_root(void **state) {
  (void)state;
  char out[HUB_PATH_BYTES];
  struct error error = ERROR_INIT;
  assert_int_equal(hub_root(out, &error), 0);
  assert_string_equal(out, root);
  unsetenv("HF_HUB_CACHE");
  setenv("HF_HOME", "/h", 1);
  assert_int_equal(hub_root(out, &error), 0);
  assert_string_equal(out, "/h/hub");
  unsetenv("HF_HOME");
  setenv("XDG_CACHE_HOME", "/c", 1);
  assert_int_equal(hub_root(out, &error), 0);
  assert_string_equal(out, "/c/huggingface/hub");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/u", 1);
  assert_int_equal(hub_root(out, &error), 0);
  assert_string_equal(out, "/u/.cache/huggingface/hub");
  unsetenv("HOME");
  assert_int_not_equal(hub_root(out, &error), 0);
  setenv("HF_HUB_CACHE", root, 1);
}

static void test_repository_names(void **state) {
  (void)state;
  static const char *const good[] = {"gpt2", "openai-community/gpt2", "a/b_c.d-e", "microsoft/phi-1_5"};
  static const char *const bad[] = {"", "/", "a/", "/b", "a/b/c", "..", "a/..", "../b", "a/.b", "a--b", "a/b--c", "a b", "a/b\n",
                                    "-a", "a\\b", "a..b"};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_true(hub_is_repository(good[i], strlen(good[i])));
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    if (hub_is_repository(bad[i], strlen(bad[i]))) fail_msg("'%s' was accepted", bad[i]);
}

static void assert_snapshot(const char *revision, const char *commit) {
  char out[HUB_PATH_BYTES];
  struct error error = ERROR_INIT;
  if (hub_snapshot(root, "openai-community/gpt2", revision, out, &error) != 0) fail_msg("%s", error.text);
  assert_string_equal(strrchr(out, '/') + 1, commit);
}

static void assert_no_snapshot(const char *revision, const char *part) {
  char out[HUB_PATH_BYTES];
  struct error error = ERROR_INIT;
  assert_int_not_equal(hub_snapshot(root, "openai-community/gpt2", revision, out, &error), 0);
  assert_contains(error.text, part);
}

static void test_revisions(void **state) {
  (void)state;
  assert_snapshot(NULL, COMMIT);
  assert_snapshot("main", COMMIT);
  assert_snapshot(OTHER, OTHER);
  assert_snapshot("refs/pr/1", OTHER);
  assert_no_snapshot("nope", "has no revision 'nope'");
  assert_no_snapshot("v1", "refs/v1' does not hold the name of a commit");
  assert_no_snapshot("gone", "has no folder snapshots/aaaaaaaaaaaaaaaa");
  assert_no_snapshot("../refs/main", "not the name of a branch");
  assert_no_snapshot("a//b", "not the name of a branch");
  assert_no_snapshot("", "not the name of a branch");
}

/* ---- what --model may be ---- */

static void assert_found(const char *where, const char *id, const char *end) {
  struct model_names *names = table();
  struct model_place place;
  struct error error = ERROR_INIT;
  if (model_find(names, where, &place, &error) != 0) fail_msg("%s", error.text);
  assert_string_equal(place.id, id);
  size_t n = strlen(place.path), m = strlen(end);
  if (n < m || strcmp(place.path + n - m, end) != 0) fail_msg("'%s' does not end in '%s'", place.path, end);
  model_names_close(names);
}

static void assert_not_found(const char *where, const char *part) {
  struct model_names *names = table();
  struct model_place place;
  struct error error = ERROR_INIT;
  assert_int_not_equal(model_find(names, where, &place, &error), 0);
  assert_int_equal(error.code, ERROR_NOT_FOUND);
  assert_contains(error.text, part);
  model_names_close(names);
}

static void test_find(void **state) {
  (void)state;
  assert_found("gpt2", "gpt2-small", GPT2 "/snapshots/" COMMIT);
  assert_found("openai-community/gpt2", "gpt2-small", GPT2 "/snapshots/" COMMIT);
  assert_found("gpt2@" OTHER, "gpt2-small", GPT2 "/snapshots/" OTHER);
  assert_found("gpt2@refs/pr/1", "gpt2-small", GPT2 "/snapshots/" OTHER);
  assert_found("distilbert/distilgpt2", "distilgpt2", DISTIL "/snapshots/" COMMIT); /* under its old name */
  assert_found(MODEL, "model", MODEL);
  assert_found(MODEL "/", "model", MODEL "/");
  assert_found("config/models/villes.ini", "villes", "villes.ini");
}

static void test_not_found(void **state) {
  (void)state;
  assert_not_found("/nowhere/gpt2", "'/nowhere/gpt2': no such file or folder");
  assert_not_found("mine.ini", "'mine.ini': no such file or folder");
  assert_not_found("gtp2", "no known name of a model; did you mean 'gpt2'?");
  assert_not_found("gpt2-xl", "'gpt2-xl', which is 'openai-community/gpt2-xl', is not in the Hugging Face cache");
  assert_not_found("gpt2-xl", "where there is a network: steerd pull openai-community/gpt2-xl");
  assert_not_found("EleutherAI/pythia-70n", "(the nearest there is 'EleutherAI/pythia-70m')");
  assert_not_found("qwen3-32b", "it has 'EleutherAI/pythia-70m', 'distilgpt2' and 'openai-community/gpt2'");
  assert_not_found("some model", "neither a file or folder here nor a name");
  assert_not_found("../gpt2", "no such file or folder");
}

static void test_absent_cache(void **state) {
  (void)state;
  setenv("HF_HUB_CACHE", "/nowhere", 1);
  assert_not_found("gpt2", "cache '/nowhere' (there is no such folder)");
  setenv("HF_HUB_CACHE", root, 1);
}

/* ---- opening ---- */

static struct model *open_place(const char *where, struct backend *backend, struct error *error) {
  struct model_names *names = table();
  struct model_place place;
  assert_int_equal(model_find(names, where, &place, error), 0);
  struct model *model = model_open_place(NULL, &place, backend, error);
  model_names_close(names);
  return model;
}

static void test_open(void **state) {
  (void)state;
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open("ref", 1, &error);
  struct model *model = open_place("gpt2", backend, &error);
  if (!model) fail_msg("%s", error.text);
  assert_string_equal(model->id, "gpt2-small");
  model_close(model);
  /* A link out of the cache is not followed. */
  assert_null(open_place("distilgpt2", backend, &error));
  assert_contains(error.text, "lies outside the folders that may be read here");
  model = model_open("again", MODEL, backend, &error); /* and the fence is down again */
  assert_non_null(model);
  model_close(model);
  backend_close(backend);
}

/* A toy of TransformerLens as it is published: one torch file beside checkpoints, and the tokenizer in a repository of its own. */
static void build_toy(void) {
  repository(TOY, COMMIT);
  copy("tests/vectors/families/toy-gelu/gelu_2l_final.pth", TOY "/snapshots/" COMMIT "/gelu_2l_final.pth");
  file(TOY "/snapshots/" COMMIT "/gelu_2l_000100.pth", "not read");
  file(TOY "/snapshots/" COMMIT "/config.json",
       "{\"n_layers\": 2, \"d_model\": 30, \"d_head\": 7, \"n_heads\": 4, \"n_ctx\": 48, \"d_vocab\": 97, \"normalization\": \"LN\", "
       "\"act_fn\": \"gelu\", \"d_mlp\": 41, \"tokenizer_name\": \"NeelNanda/digits\"}");
  repository(DIGITS, COMMIT);
  file(DIGITS "/snapshots/" COMMIT "/tokenizer.json",
       "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}, "
       "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}}");
}

static void test_open_a_toy(void **state) {
  (void)state;
  build_toy();
  struct error error = ERROR_INIT;
  struct backend *backend = backend_open("ref", 1, &error);
  struct model *model = open_place("gelu-2l", backend, &error);
  if (!model) fail_msg("%s", error.text);
  assert_int_equal(tokenizer_size(model->tokenizer), 3);
  model_close(model);
  /* As a folder that somebody names, which sets no fence of its own. */
  model = model_open("toy", at(TOY "/snapshots/" COMMIT), backend, &error);
  if (!model) fail_msg("%s", error.text);
  model_close(model);
  /* And as a file in it. */
  struct model_place place;
  struct model_names *names = table();
  assert_int_equal(model_find(names, at(TOY "/snapshots/" COMMIT "/gelu_2l_final.pth"), &place, &error), 0);
  assert_string_equal(place.id, "gelu_2l_final");
  model_names_close(names);
  model = model_open_place(NULL, &place, backend, &error);
  if (!model) fail_msg("%s", error.text);
  model_close(model);
  file("alone.pt", "");
  assert_null(model_open("alone", at("alone.pt"), backend, &error));
  assert_contains(error.text, "holds weights alone: the config.json that says what model they are must lie beside it");
  unlink(at("alone.pt"));
  error_clear(&error);
  link_to("/etc/hostname", DIGITS "/snapshots/" COMMIT "/tokenizer_config.json");
  assert_null(model_open("toy", at(TOY "/snapshots/" COMMIT), backend, &error));
  assert_contains(error.text, "tokenizer_config.json' lies outside the folders that may be read here");
  assert_false(mapfile_is_fenced());
  unlink(at(DIGITS "/snapshots/" COMMIT "/tokenizer_config.json"));
  error_clear(&error);
  file(TOY "/snapshots/" COMMIT "/gelu_2l_0_final.pth", "");
  assert_null(open_place("gelu-2l", backend, &error));
  assert_contains(error.text, "holds 3 files that end in .pth, 2 of them in final.pth");
  unlink(at(TOY "/snapshots/" COMMIT "/gelu_2l_0_final.pth"));
  error_clear(&error);
  assert_int_equal(rename(at(DIGITS), at("elsewhere")), 0);
  assert_null(open_place("gelu-2l", backend, &error));
  assert_contains(error.text, "names 'NeelNanda/digits' (tokenizer_name in config.json)");
  assert_contains(error.text, "steerd pull NeelNanda/digits");
  backend_close(backend);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_names),          cmocka_unit_test(test_empty_table), cmocka_unit_test(test_tables_refused),
      cmocka_unit_test(test_repository_names), cmocka_unit_test(test_revisions), cmocka_unit_test(test_find),
      cmocka_unit_test(test_not_found),      cmocka_unit_test(test_absent_cache), cmocka_unit_test(test_open),
      cmocka_unit_test(test_open_a_toy),
      cmocka_unit_test(test_root), /* last: it changes where home is */
  };
  return cmocka_run_group_tests(tests, build_cache, remove_cache);
}
