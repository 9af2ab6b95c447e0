/* Any bytes as the description of a dictionary: the first says of which format, the weights beside it are sound samples. What is
 * accepted must be told in lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/dict/dict.h"

#define SAMPLES "tests/vectors/dict-formats/"
#define CLT "../dict-clt/"
#define CLT2 "../dict-clt/clt/width_1k_l0_small_affine/"
static const struct {
  const char *folder, *description, *weights, *sample, *open;
} formats[] = {
    {"saelens", "cfg.json", "sae_weights.safetensors", "../dict-kinds/gated/sae_weights.safetensors", ""},
    {"layers.1", "cfg.json", "sae.safetensors", "skip-toy/layers.1.mlp/sae.safetensors", ""},
    {"dl", "config.json", "ae.pt", "dictionary_learning/dl-batchtopk/trainer_0/ae.pt", ""},
    {"gemma2", "config.json", "params.safetensors", "gemma-scope-2-270m-pt/resid_post/layer_0_width_16k_l0_medium/params.safetensors", ""},
    {"llama", "hyperparams.json", "checkpoints/final.safetensors", "Llama3_1-8B-Base-L1R-8x/checkpoints/final.safetensors", ""},
    {"r1", "config.json", "sae_weights.safetensors", "r1/L1R/sae_weights.safetensors", ""},
    {"ct", "config.yaml", "layer_1.safetensors", "ct-toy/layer_1.safetensors", "layer_1.safetensors"},
    {"kk", "a_cfg.json", "a.pt", "attn-saes/gpt2-small_L1_Hcat_z_lr1.20e-03_v9.pt", "a.pt"},
    {"ini", "d.ini", "dict-formats/plain/tied.pth", "plain/tied.pth", "d.ini"},
    {"clt", "config.yaml", "W_enc_1.safetensors", CLT "relu/W_enc_1.safetensors", "W_enc_1.safetensors"},
    {"clt2", "config.json", "params_layer_1.safetensors", CLT2 "params_layer_1.safetensors", "params_layer_1.safetensors"},
};
enum { FORMATS = sizeof formats / sizeof *formats };
/* Weights that belong to a description beside the first file. */
static const struct {
  const char *path, *sample;
} others[] = {
    {"clt/W_enc_0.safetensors", CLT "relu/W_enc_0.safetensors"},
    {"clt/W_enc_2.safetensors", CLT "relu/W_enc_2.safetensors"},
    {"clt/W_dec_0.safetensors", CLT "relu/W_dec_0.safetensors"},
    {"clt/W_dec_1.safetensors", CLT "relu/W_dec_1.safetensors"},
    {"clt/W_dec_2.safetensors", CLT "relu/W_dec_2.safetensors"},
    {"clt2/params_layer_0.safetensors", CLT2 "params_layer_0.safetensors"},
    {"clt2/params_layer_2.safetensors", CLT2 "params_layer_2.safetensors"},
};
static char top[64];

static void silent(void *context, enum log_level level, const char *text) {
  (void)context, (void)level, (void)text;
}

static void make(const char *folder, const char *more) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s%s", top, folder, more);
  if (mkdir(path, 0700) != 0) abort();
}

static void clean_up(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", top);
  if (system(command) != 0) fprintf(stderr, "left behind: %s\n", top);
}

static void lay(const char *here, const char *path, const char *sample) {
  char from[2048], to[256];
  snprintf(from, sizeof from, "%s/" SAMPLES "%s", here, sample);
  snprintf(to, sizeof to, "%s/%s", top, path);
  if (symlink(from, to) != 0) abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  char here[1024], path[256];
  (void)argc, (void)argv;
  snprintf(top, sizeof top, "/tmp/steerd-fuzz-XXXXXX");
  if (!mkdtemp(top) || !getcwd(here, sizeof here)) abort();
  log_set_sink(silent, NULL);
  for (int i = 0; i < FORMATS; i++) make(formats[i].folder, "");
  make("llama", "/checkpoints");
  make("ini", "/dict-formats");
  make("ini", "/dict-formats/plain");
  for (int i = 0; i < FORMATS; i++) {
    snprintf(path, sizeof path, "%s/%s", formats[i].folder, formats[i].weights);
    lay(here, path, formats[i].sample);
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) lay(here, others[i].path, others[i].sample);
  snprintf(path, sizeof path, "%s/ini", top);
  setenv("STEERD_DATA", path, 1);
  return atexit(clean_up);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  char path[256];
  if (size < 1) return 0;
  int i = data[0] % FORMATS;
  snprintf(path, sizeof path, "%s/%s/%s", top, formats[i].folder, formats[i].description);
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(data + 1, 1, size - 1, file) != size - 1 || fclose(file) != 0) abort();
  snprintf(path, sizeof path, "%s/%s%s%s", top, formats[i].folder, *formats[i].open ? "/" : "", formats[i].open);
  struct buffer text;
  struct error error = ERROR_INIT;
  buffer_init(&text, 0);
  if (dict_describe(path, "tied", &text, &error) == 0) {
    if (strncmp(text.data, "kind: ", 6) != 0) abort();
  } else if (!*error.text || strchr(error.text, '\n')) {
    abort();
  }
  buffer_clear(&text);
  return 0;
}
