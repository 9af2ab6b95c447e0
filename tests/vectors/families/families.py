"""The tiny models: small sizes, awkward values. Widths are no multiples of 16, heads share keys and values, a head is not
d_model / n_head wide where the family allows it, windows are shorter than the prompt, bases are odd, caps are low."""
import transformers as t

PRE, POST = "hook_resid_pre", "hook_resid_post"
Z, ATTN, MID, MLP_ACT, MLP = "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out"


def sites(attn, o, mlp, down, mid=None, attn_out=None, mlp_out=None):
    """Where the hot points of a block are. `mid`: the norm that reads resid_mid, None in parallel blocks."""
    found = {PRE: ("", "in"), Z: (f"{attn}.{o}", "in"), ATTN: (attn_out or attn, "out"),
             MLP_ACT: (f"{mlp}.{down}".strip("."), "in"), MLP: (mlp_out or mlp, "out"), POST: ("", "out")}
    if mid:
        found[MID] = (mid, "in")
    return found


LLAMA_SITES = sites("self_attn", "o_proj", "mlp", "down_proj", "post_attention_layernorm")
SMALL = dict(vocab_size=97, hidden_size=36, intermediate_size=52, num_hidden_layers=2, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=96, bos_token_id=1, eos_token_id=2, pad_token_id=0)


def rope(theta=700.0, **more):
    return {"rope_type": "default", "rope_theta": theta, **more}


FAMILIES = {
    "llama": dict(model=t.LlamaForCausalLM, blocks="model.layers", sites=LLAMA_SITES,
                  config=lambda: t.LlamaConfig(**SMALL, head_dim=10, rope_parameters=rope(), rms_norm_eps=1e-3)),
    # Llama 3's scaling with a short original context, so that all three bands are met; every bias; tied
    "llama-scaled": dict(model=t.LlamaForCausalLM, blocks="model.layers", sites=LLAMA_SITES, dtype="bfloat16",
                         config=lambda: t.LlamaConfig(
                             **SMALL, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                             rope_parameters=rope(50.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                                  high_freq_factor=4.0, original_max_position_embeddings=40))),
}

# Real models: a prompt in token ids ("Once upon a time" in both vocabularies, behind BOS).
REAL = {"stories260K": [1, 403, 407, 261, 378], "babyllama105": [1, 3, 34, 9, 22, 4, 3, 18, 20, 7, 9, 3, 5, 3, 6, 10, 16, 4]}
