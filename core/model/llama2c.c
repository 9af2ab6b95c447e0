/* Where the tensors of a llama2.c checkpoint lie. Knows no formula, and leaves what it means to arch_llama.c. */
#include "core/model/llama2c.h"

#include <stdio.h>
#include <string.h>

/* Version 0 begins with its seven numbers; later ones with a mark, their version and then the numbers, in a header that
 * is filled up. */
#define HEADER_BYTES 28
#define MARKED_BYTES 256
#define MARK 0x616b3432 /* "24ka" in the file */
#define SHARED_AT 36    /* a byte behind the numbers of a marked header */

struct header {
  int32_t version;
  int64_t width, hidden, layers, heads, kv_heads, vocabulary, context;
  bool shared; /* the unembedding is the embedding */
};

/* The mark and the version behind it; version 0 where there is no mark. */
static int32_t version_of(const struct mapfile *file) {
  int32_t head[2];
  if (file->size < sizeof head) return 0;
  memcpy(head, file->data, sizeof head); /* little endian, as the machines this runs on */
  return head[0] == MARK ? head[1] : 0;
}

static bool is_marked(const struct mapfile *file) {
  int32_t mark = 0;
  if (file->size >= MARKED_BYTES) memcpy(&mark, file->data, sizeof mark);
  return mark == MARK;
}

/* The numbers of a header, when they can be those of a model; the limits are those of arch_check. */
static bool read_header(const struct mapfile *file, struct header *out) {
  int32_t n[7];
  bool marked = is_marked(file);
  if (file->size < (marked ? MARKED_BYTES : HEADER_BYTES)) return false;
  memcpy(n, file->data + (marked ? 8 : 0), sizeof n);
  if (n[5] == INT32_MIN || (marked && n[5] < 0)) return false;
  bool shared = marked ? file->data[SHARED_AT] != 0 : n[5] > 0;
  *out = (struct header){version_of(file), n[0], n[1], n[2], n[3], n[4], n[5] < 0 ? -n[5] : n[5], n[6], shared};
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

enum { EMBED, NORM1, Q, K, V, O, NORM2, GATE, DOWN, UP, FINAL, TURNS, UNEMBED };

/* In file order: version 0 has no norms in front, and two tables of cosines and sines, half a head each. */
static int list_groups(const struct header *h, struct group out[GROUPS]) {
  static const int orders[2][GROUPS] = {{EMBED, NORM1, Q, K, V, O, NORM2, GATE, DOWN, UP, FINAL, TURNS, UNEMBED},
                                        {NORM1, NORM2, FINAL, EMBED, Q, K, V, O, GATE, DOWN, UP, UNEMBED}};
  int64_t d = h->width, m = h->hidden, n = h->layers, head = d / h->heads, kv = head * h->kv_heads;
  const struct group groups[GROUPS] = {[EMBED] = {"model.embed_tokens.weight", 0, h->vocabulary, d},
                                       [NORM1] = {"model.layers.%d.input_layernorm.weight", n, d, 0},
                                       [Q] = {"model.layers.%d.self_attn.q_proj.weight", n, d, d},
                                       [K] = {"model.layers.%d.self_attn.k_proj.weight", n, kv, d},
                                       [V] = {"model.layers.%d.self_attn.v_proj.weight", n, kv, d},
                                       [O] = {"model.layers.%d.self_attn.o_proj.weight", n, d, d},
                                       [NORM2] = {"model.layers.%d.post_attention_layernorm.weight", n, d, 0},
                                       [GATE] = {"model.layers.%d.mlp.gate_proj.weight", n, m, d},
                                       [DOWN] = {"model.layers.%d.mlp.down_proj.weight", n, d, m},
                                       [UP] = {"model.layers.%d.mlp.up_proj.weight", n, m, d},
                                       [FINAL] = {"model.norm.weight", 0, d, 0},
                                       [TURNS] = {NULL, 0, h->context, head},
                                       [UNEMBED] = {"lm_head.weight", 0, h->vocabulary, d}};
  int count = h->version == 0 ? GROUPS : GROUPS - 1;
  for (int i = 0; i < count; i++) out[i] = groups[orders[h->version != 0][i]];
  return h->shared ? count - 1 : count;
}

/* Elements of one layer: below 2^38, by the limits of the header. */
static int64_t group_count(const struct group *group) { return group->rows * (group->columns ? group->columns : 1); }

static size_t header_bytes(const struct header *h) { return h->version ? MARKED_BYTES : HEADER_BYTES; }

static size_t file_bytes(const struct header *h) {
  struct group groups[GROUPS];
  int n = list_groups(h, groups);
  size_t bytes = header_bytes(h);
  for (int i = 0; i < n; i++)
    bytes += (size_t)group_count(&groups[i]) * (size_t)(groups[i].layers ? groups[i].layers : 1) * sizeof(float);
  return bytes;
}

bool llama2c_begins(const struct mapfile *file) {
  struct header h;
  return is_marked(file) || (read_header(file, &h) && file_bytes(&h) == file->size);
}

/* The header of a file whose size it explains. */
static int read_whole(const char *path, const struct mapfile *file, struct header *out, struct error *error) {
  bool marked = is_marked(file), good = read_header(file, out);
  if (marked && version_of(file) != 1)
    return error_set(error, ERROR_UNSUPPORTED,
                     "'%s' is a llama2.c checkpoint of version %d; versions 0 and 1 are served, which hold weights in f32 (version 2 "
                     "holds them in 8 bits): export it with --version 1",
                     path, version_of(file));
  if (good && file_bytes(out) == file->size) return 0;
  if (marked && good)
    return error_set(error, ERROR_FORMAT, "'%s' has %zu bytes, a llama2.c checkpoint of its sizes has %zu", path, file->size,
                     file_bytes(out));
  return error_set(error, ERROR_FORMAT,
                   "'%s' is not a llama2.c checkpoint (of version 0, whose size follows from its header, or 1); a model is a "
                   "folder, an ini or such a file",
                   path);
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
  if (read_whole(path, file, &h, error) != 0) return -1;
  int n = list_groups(&h, groups);
  const unsigned char *data = file->data + header_bytes(&h);
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
  int failed = read_whole(path, &file, &h, error);
  mapfile_close(&file);
  if (failed) return -1;
  snprintf(out, 512,
           "{\"model_type\": \"llama\", \"hidden_size\": %lld, \"intermediate_size\": %lld, \"num_hidden_layers\": %lld, "
           "\"num_attention_heads\": %lld, \"num_key_value_heads\": %lld, \"vocab_size\": %lld, "
           "\"max_position_embeddings\": %lld, \"rms_norm_eps\": 1e-5, \"rope_theta\": 10000.0, "
           "\"tie_word_embeddings\": %s}",
           (long long)h.width, (long long)h.hidden, (long long)h.layers, (long long)h.heads, (long long)h.kv_heads,
           (long long)h.vocabulary, (long long)h.context, h.shared ? "true" : "false");
  return 0;
}
