/* arch.c: the list of families, and checks that hold for all of them. */
#include "core/model/arch.h"

#include <stdio.h>
#include <string.h>

#include "core/base/nearest.h"

static const struct arch_family *const families[] = {
    &arch_gpt2,   &arch_gpt_neo,     &arch_gpt_neox, &arch_gptj, &arch_llama, &arch_mistral, &arch_qwen2, &arch_qwen3,
    &arch_gemma,  &arch_gemma2,      &arch_gemma3,   &arch_gemma3_text,
    &arch_phi,    &arch_phi3,        &arch_stablelm, &arch_opt,  &arch_toy};
#define N_FAMILIES (sizeof families / sizeof families[0])

int64_t arch_dim(const struct arch *arch, enum dim dim) {
  int64_t attn = (int64_t)arch->n_head * arch->d_head, kv = (int64_t)arch->n_kv_head * arch->d_head;
  switch (dim) {
    case DIM_MODEL: return arch->d_model;
    case DIM_MLP: return arch->d_mlp;
    case DIM_HEAD: return arch->d_head;
    case DIM_ATTN: return attn;
    case DIM_KV: return kv;
    case DIM_QKV: return attn + 2 * kv;
    case DIM_VOCABULARY: return arch->vocabulary;
    case DIM_CONTEXT: return arch->n_ctx;
    case DIM_EMBED: return arch->d_embed;
    default: return 1;
  }
}

static int refuse_type(const char *type, const char *architecture, struct error *error) {
  const char *names[N_FAMILIES];
  char served[512] = "";
  for (size_t i = 0; i < N_FAMILIES; i++) {
    size_t at = strlen(served);
    names[i] = families[i]->model_type;
    snprintf(served + at, sizeof served - at, "%s%s", i ? ", " : "", names[i]);
  }
  const char *near = nearest_name(type, names, N_FAMILIES);
  if (near)
    return error_set(error, ERROR_UNSUPPORTED,
                     "config.json: model_type '%.60s' is not served, the nearest that is served is '%s'; served: %s", type,
                     near, served);
  return error_set(error, ERROR_UNSUPPORTED,
                   "config.json: model_type '%.60s' (architectures: %.60s) is not served; served: %s",
                   *type ? type : "not given", architecture, served);
}

/* TransformerLens writes no model_type; its words are its own. */
static bool is_toy(const struct json_node *config) {
  return !json_get(config, "model_type") && json_get(config, "n_layers") && json_get(config, "d_vocab");
}

/* Weights in blocks of few bits are other tensors under other names. */
static int refuse_quantized(const struct json_node *config, struct error *error) {
  const struct json_node *quantized = json_get(config, "quantization_config");
  if (json_kind(quantized) != JSON_KIND_OBJECT) return 0;
  return error_set(error, ERROR_UNSUPPORTED,
                   "config.json: quantization_config (quant_method '%.32s') is not served: weights must be f32, f16 or bf16; "
                   "take the repository that this one was made from",
                   json_text_or(json_get(quantized, "quant_method"), "not given"));
}

const struct arch_family *arch_find(const struct json_node *config, struct error *error) {
  if (refuse_quantized(config, error) != 0) return NULL;
  const char *type = json_text_or(json_get(config, "model_type"), "");
  if (is_toy(config)) return &arch_toy;
  for (size_t i = 0; i < N_FAMILIES; i++)
    if (strcmp(families[i]->model_type, type) == 0) return families[i];
  (void)refuse_type(type, json_text_or(json_at(json_get(config, "architectures"), 0), "not given"), error);
  return NULL;
}

int arch_check(const struct arch *arch, struct error *error) {
  const struct {
    const char *name;
    int64_t value, least, most;
  } sizes[] = {{"layers", arch->n_layer, 1, ARCH_MAX_LAYERS}, {"width", arch->d_model, 1, 1 << 16},
               {"MLP width", arch->d_mlp, arch_has(arch, HAS_MLP), 1 << 20}, {"context", arch->n_ctx, 1, 1 << 20},
               {"vocabulary", arch->vocabulary, 1, 1 << 22}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    if (sizes[i].value < sizes[i].least || sizes[i].value > sizes[i].most)
      return error_set(error, ERROR_FORMAT, "%s %lld is out of range, allowed are %lld to %lld", sizes[i].name,
                       (long long)sizes[i].value, (long long)sizes[i].least, (long long)sizes[i].most);
  if (arch->n_head < 1 || arch->d_head < 1 || (int64_t)arch->n_head * arch->d_head > ((int64_t)1 << 20))
    return error_set(error, ERROR_FORMAT, "%d heads of %d are out of range", arch->n_head, arch->d_head);
  if (arch->n_kv_head < 1 || arch->n_head % arch->n_kv_head)
    return error_set(error, ERROR_FORMAT, "%d heads cannot share %d key-value heads", arch->n_head, arch->n_kv_head);
  if (arch->rotary.dims > arch->d_head || arch->rotary_local.dims > arch->d_head)
    return error_set(error, ERROR_FORMAT, "%d elements of a head cannot turn, it has %d", arch->rotary.dims, arch->d_head);
  return 0;
}
