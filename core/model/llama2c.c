/* Where the tensors of a llama2.c checkpoint lie. Knows no formula, and leaves what it means to arch_llama.c. */
#include "core/model/llama2c.h"

#include <stdio.h>
#include <string.h>

#define HEADER_BYTES 28

struct header {
  int64_t width, hidden, layers, heads, kv_heads, vocabulary, context;
  bool shared; /* the unembedding is the embedding */
};

/* The numbers of a header, when they can be those of a model; the limits are those of arch_check. */
static bool read_header(const struct mapfile *file, struct header *out) {
  int32_t n[7];
  if (file->size < HEADER_BYTES) return false;
  memcpy(n, file->data, sizeof n); /* little endian, as the machines this runs on */
  if (n[5] == INT32_MIN) return false;
  *out = (struct header){n[0], n[1], n[2], n[3], n[4], n[5] < 0 ? -n[5] : n[5], n[6], n[5] > 0};
  const int64_t most[] = {1 << 16, 1 << 20, 1024, 1024, 1024, 1 << 22, 1 << 20};
  const int64_t values[] = {out->width, out->hidden, out->layers, out->heads, out->kv_heads, out->vocabulary, out->context};
  for (int i = 0; i < 7; i++)
    if (values[i] < 1 || values[i] > most[i]) return false;
  return out->width % out->heads == 0 && out->heads % out->kv_heads == 0;
}

/* One kind of tensor: rows x columns f32 of each of `layers` layers, one after the other (0: once). columns 0: a vector. */
struct group {
  const char *name; /* with "%d" for the layer; NULL: not read */
  int64_t layers, rows, columns;
};
#define GROUPS 13

/* In file order. */
static int list_groups(const struct header *h, struct group out[GROUPS]) {
  int64_t d = h->width, m = h->hidden, n = h->layers, head = d / h->heads, kv = head * h->kv_heads;
  const struct group groups[GROUPS] = {{"model.embed_tokens.weight", 0, h->vocabulary, d},
                                       {"model.layers.%d.input_layernorm.weight", n, d, 0},
                                       {"model.layers.%d.self_attn.q_proj.weight", n, d, d},
                                       {"model.layers.%d.self_attn.k_proj.weight", n, kv, d},
                                       {"model.layers.%d.self_attn.v_proj.weight", n, kv, d},
                                       {"model.layers.%d.self_attn.o_proj.weight", n, d, d},
                                       {"model.layers.%d.post_attention_layernorm.weight", n, d, 0},
                                       {"model.layers.%d.mlp.gate_proj.weight", n, m, d},
                                       {"model.layers.%d.mlp.down_proj.weight", n, d, m},
                                       {"model.layers.%d.mlp.up_proj.weight", n, m, d},
                                       {"model.norm.weight", 0, d, 0},
                                       {NULL, 0, h->context, head}, /* cosines and sines, half a head each */
                                       {"lm_head.weight", 0, h->vocabulary, d}};
  memcpy(out, groups, sizeof groups);
  return h->shared ? GROUPS - 1 : GROUPS;
}

/* Elements of one layer: below 2^38, by the limits of the header. */
static int64_t group_count(const struct group *group) { return group->rows * (group->columns ? group->columns : 1); }

static size_t file_bytes(const struct header *h) {
  struct group groups[GROUPS];
  int n = list_groups(h, groups);
  size_t bytes = HEADER_BYTES;
  for (int i = 0; i < n; i++)
    bytes += (size_t)group_count(&groups[i]) * (size_t)(groups[i].layers ? groups[i].layers : 1) * sizeof(float);
  return bytes;
}

bool llama2c_begins(const struct mapfile *file) {
  struct header h;
  return read_header(file, &h) && file_bytes(&h) == file->size;
}

static int add(struct tensor_list *list, const struct group *group, int layer, const unsigned char *data,
               struct error *error) {
  char name[64];
  const char *digit = strstr(group->name, "%d");
  int n = digit ? snprintf(name, sizeof name, "%.*s%d%s", (int)(digit - group->name), group->name, layer, digit + 2)
                : snprintf(name, sizeof name, "%s", group->name);
  struct tensor *tensor = tensor_list_add(list, name, (size_t)n, error);
  if (!tensor) return -1;
  tensor->dtype = DTYPE_F32;
  tensor->n_dims = group->columns ? 2 : 1;
  tensor->shape[0] = group->rows;
  if (group->columns) tensor->shape[1] = group->columns;
  tensor_set_strides(tensor);
  tensor->bytes = (size_t)group_count(group) * sizeof(float);
  tensor->data = data;
  return 0;
}

int llama2c_read(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) {
  struct header h;
  struct group groups[GROUPS];
  if (!read_header(file, &h) || file_bytes(&h) != file->size)
    return error_set(error, ERROR_FORMAT, "'%s' is not a llama2.c checkpoint", path);
  int n = list_groups(&h, groups);
  const unsigned char *data = file->data + HEADER_BYTES;
  for (int i = 0; i < n; i++) {
    int layers = groups[i].layers ? (int)groups[i].layers : 1;
    for (int l = 0; l < layers; l++, data += (size_t)group_count(&groups[i]) * sizeof(float))
      if (groups[i].name && add(list, &groups[i], l, data, error) != 0) return -1;
  }
  return 0;
}

int llama2c_config(const char *path, char out[512], struct error *error) {
  struct mapfile file;
  struct header h;
  if (mapfile_open(path, &file, error) != 0) return -1;
  bool good = read_header(&file, &h) && file_bytes(&h) == file.size;
  mapfile_close(&file);
  if (!good)
    return error_set(error, ERROR_FORMAT,
                     "'%s' is not a llama2.c checkpoint (of version 0, whose size follows from its header); a model is a "
                     "folder, an ini or such a file",
                     path);
  snprintf(out, 512,
           "{\"model_type\": \"llama\", \"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_hidden_layers\": %lld, "
           "\"num_attention_heads\": %lld, \"num_key_value_heads\": %lld, \"vocab_size\": %lld, "
           "\"max_position_embeddings\": %lld, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
           "\"tie_word_embeddings\": %s}",
           (long long)h.width, (long long)h.hidden, (long long)h.layers, (long long)h.heads, (long long)h.kv_heads,
           (long long)h.vocabulary, (long long)h.context, h.shared ? "true" : "false");
  return 0;
}
