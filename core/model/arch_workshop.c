/* arch_workshop.c: the character transformer of the French interpretability workshop: RMSNorm before each
 * sublayer, learned positions, SwiGLU, no bias, tied unembedding. Its file has no config: the dimensions are
 * the shapes of its tensors, the number of heads stands in the ini that describes the model (model.c). */
#include "core/model/arch.h"

static const char *const prefixes[] = {"", NULL};
static const char *const ignored[] = {"lm_head.weight", NULL}; /* the embedding once more */

static const struct weight_row rows[] = {
    WEIGHT(SLOT_EMBED, "embedding.weight", DIM_VOCABULARY, DIM_MODEL),
    WEIGHT(SLOT_POSITIONS, "core.PE.weight", DIM_CONTEXT, DIM_MODEL),
    WEIGHT(SLOT_NORM1_GAIN, "core.layers.%d.attention_norm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_QKV, "core.layers.%d.sa.query_proj.weight", DIM_ATTN, DIM_MODEL),
    WEIGHT(SLOT_QKV, "core.layers.%d.sa.key_proj.weight", DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_QKV, "core.layers.%d.sa.value_proj.weight", DIM_KV, DIM_MODEL),
    WEIGHT(SLOT_O, "core.layers.%d.sa.c_proj.weight", DIM_MODEL, DIM_ATTN),
    WEIGHT(SLOT_NORM2_GAIN, "core.layers.%d.mlp_norm.weight", DIM_MODEL, DIM_NONE),
    WEIGHT(SLOT_GATE, "core.layers.%d.mlp.fc_1.weight", DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_IN, "core.layers.%d.mlp.fc_3.weight", DIM_MLP, DIM_MODEL),
    WEIGHT(SLOT_OUT, "core.layers.%d.mlp.fc_2.weight", DIM_MODEL, DIM_MLP),
    WEIGHT(SLOT_FINAL_GAIN, "out_norm.weight", DIM_MODEL, DIM_NONE),
};

const struct arch_family arch_workshop = {.name = "workshop",
                                          .model_type = "workshop",
                                          .prefixes = prefixes,
                                          .rows = rows,
                                          .n_rows = sizeof rows / sizeof rows[0],
                                          .ignored = ignored,
                                          .read_config = NULL};
