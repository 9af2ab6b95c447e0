/* arch_workshop.c: the character transformer of the French interpretability workshop: RMSNorm before each
 * sublayer, learned positions, SwiGLU, no bias, tied unembedding. Its file has no config: the dimensions are
 * the shapes of its tensors, the number of heads stands in the ini that describes the model (model.c). */
#include "core/model/arch.h"

static const char *const prefixes[] = {"", NULL};

static const struct weight_row rows[] = {
    {SLOT_EMBED, "embedding.weight", false, ROWS_ARE_OUTPUTS, DIM_VOCABULARY, DIM_MODEL, false},
    {SLOT_POSITIONS, "core.PE.weight", false, ROWS_ARE_OUTPUTS, DIM_CONTEXT, DIM_MODEL, false},
    {SLOT_NORM1_GAIN, "core.layers.%d.attention_norm.weight", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_QKV, "core.layers.%d.sa.query_proj.weight", true, ROWS_ARE_OUTPUTS, DIM_ATTN, DIM_MODEL, false},
    {SLOT_QKV, "core.layers.%d.sa.key_proj.weight", true, ROWS_ARE_OUTPUTS, DIM_KV, DIM_MODEL, false},
    {SLOT_QKV, "core.layers.%d.sa.value_proj.weight", true, ROWS_ARE_OUTPUTS, DIM_KV, DIM_MODEL, false},
    {SLOT_O, "core.layers.%d.sa.c_proj.weight", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_ATTN, false},
    {SLOT_NORM2_GAIN, "core.layers.%d.mlp_norm.weight", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
    {SLOT_GATE, "core.layers.%d.mlp.fc_1.weight", true, ROWS_ARE_OUTPUTS, DIM_MLP, DIM_MODEL, false},
    {SLOT_IN, "core.layers.%d.mlp.fc_3.weight", true, ROWS_ARE_OUTPUTS, DIM_MLP, DIM_MODEL, false},
    {SLOT_OUT, "core.layers.%d.mlp.fc_2.weight", true, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_MLP, false},
    {SLOT_FINAL_GAIN, "out_norm.weight", false, ROWS_ARE_OUTPUTS, DIM_MODEL, DIM_NONE, false},
};

const struct arch_family arch_workshop = {.name = "workshop",
                                          .model_type = "workshop",
                                          .prefixes = prefixes,
                                          .rows = rows,
                                          .n_rows = sizeof rows / sizeof rows[0],
                                          .read_config = NULL};
