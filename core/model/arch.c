/* arch.c: the list of families, and checks that hold for all of them. */
#include "core/model/arch.h"

#include <string.h>

static const struct arch_family *const families[] = {&arch_gpt2};
#define N_FAMILIES (sizeof families / sizeof families[0])

int64_t arch_dim(const struct arch *arch, enum dim dim) {
  int64_t attn = (int64_t)arch->n_head * arch->d_head, kv = (int64_t)arch->n_kv_head * arch->d_head;
  switch (dim) {
    case DIM_MODEL: return arch->d_model;
    case DIM_MLP: return arch->d_mlp;
    case DIM_ATTN: return attn;
    case DIM_KV: return kv;
    case DIM_QKV: return attn + 2 * kv;
    case DIM_VOCABULARY: return arch->vocabulary;
    case DIM_CONTEXT: return arch->n_ctx;
    default: return 1;
  }
}

const struct arch_family *arch_find(const struct json_node *config, struct error *error) {
  const char *type = json_text_or(json_get(config, "model_type"), "");
  for (size_t i = 0; i < N_FAMILIES; i++)
    if (strcmp(families[i]->model_type, type) == 0) return families[i];
  const char *first = json_text_or(json_at(json_get(config, "architectures"), 0), "not given");
  error_set(error, ERROR_UNSUPPORTED,
            "model_type '%s' (architectures: %s) is not served yet; served: gpt2 from config.json, workshop from an ini",
            *type ? type : "not given", first);
  return NULL;
}

int arch_config_int(const struct json_node *config, const char *key, int64_t low, int64_t high, int64_t fallback,
                    int64_t *out, struct error *error) {
  const struct json_node *node = json_get(config, key);
  enum json_kind kind = json_kind(node);
  if ((kind == JSON_KIND_NONE || kind == JSON_KIND_NULL) && fallback >= 0) return *out = fallback, 0;
  if (kind != JSON_KIND_INT)
    return error_set(error, ERROR_FORMAT, "config.json: '%s' is %s, an integer from %lld to %lld is needed", key,
                     json_kind_word(kind), (long long)low, (long long)high);
  *out = json_int_or(node, 0);
  if (*out >= low && *out <= high) return 0;
  return error_set(error, ERROR_FORMAT, "config.json: '%s' is %lld, allowed are %lld to %lld", key,
                   (long long)*out, (long long)low, (long long)high);
}

int arch_check(const struct arch *arch, struct error *error) {
  const struct {
    const char *name;
    int64_t value, most;
  } sizes[] = {{"layers", arch->n_layer, 1024},          {"width", arch->d_model, 1 << 16},
               {"MLP width", arch->d_mlp, 1 << 20},      {"context", arch->n_ctx, 1 << 20},
               {"vocabulary", arch->vocabulary, 1 << 22}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
      return error_set(error, ERROR_FORMAT, "%s %lld is out of range, allowed are 1 to %lld", sizes[i].name,
                       (long long)sizes[i].value, (long long)sizes[i].most);
  if ((int64_t)arch->n_head * arch->d_head > ((int64_t)1 << 20) || arch->n_head < 1 || arch->d_head < 1)
    return error_set(error, ERROR_FORMAT, "%d heads of %d are out of range", arch->n_head, arch->d_head);
  if (arch->n_kv_head < 1 || arch->n_head % arch->n_kv_head)
    return error_set(error, ERROR_FORMAT, "%d heads cannot share %d key-value heads", arch->n_head, arch->n_kv_head);
  return 0;
}
