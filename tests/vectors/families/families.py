"""The tiny models: small sizes, awkward values. Widths are no multiples of 16, heads share keys and values, a head is not
d_model / n_head wide where the family allows it, windows are shorter than the prompt, bases are odd, caps are low."""
import json
import os

import torch
import transformers as t
from safetensors.torch import load_file, save_file

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


def nest_gemma3(folder):
    """What the multimodal Gemma 3 files look like: the text model's config nested, its tensors under another name."""
    path = os.path.join(folder, "config.json")
    with open(path, encoding="utf-8") as file:
        text = json.load(file)
    text["rope_scaling"] = {"rope_type": "linear", "factor": 4.0}  # the older way of writing
    text["rope_theta"], text["rope_local_base_freq"] = 5000.0, 90.0
    del text["rope_parameters"], text["layer_types"]
    text["sliding_window_pattern"] = 2
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "text_config": text}, file, indent=1)
    path = os.path.join(folder, "model.safetensors")
    tensors = {f"language_model.{name}": value for name, value in load_file(path).items()}
    tensors["vision_tower.vision_model.embeddings.patch_embedding.bias"] = torch.zeros(3)
    save_file(tensors, path)


def toy(published, **config):
    """A TransformerLens model and the config.json that its authors published such models with."""
    def make(name, tools):
        tools.make_toy(name, dict(n_layers=2, d_model=30, d_head=7, n_heads=4, n_ctx=48, d_vocab=97, **config), published)
    return dict(make=make)


# Cold points that are outputs of modules: what products and norms give before the next op takes them.
GATED_COLD = {"attn.hook_q": ("self_attn.q_proj", "out"), "attn.hook_k": ("self_attn.k_proj", "out"),
              "attn.hook_v": ("self_attn.v_proj", "out"), "mlp.hook_pre": ("mlp.gate_proj", "out"),
              "mlp.hook_pre_linear": ("mlp.up_proj", "out")}
SANDWICH = sites("self_attn", "o_proj", "mlp", "down_proj", "pre_feedforward_layernorm", "post_attention_layernorm",
                 "post_feedforward_layernorm")
GPT2_SITES = sites("attn", "c_proj", "mlp", "c_proj", "ln_2")
GPT2 = dict(vocab_size=97, n_positions=48, n_embd=36, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
GEMMA = dict(vocab_size=97, hidden_size=24, intermediate_size=44, num_attention_heads=4, num_key_value_heads=2, head_dim=10,
             max_position_embeddings=96)
GEMMA3 = dict(GEMMA, num_hidden_layers=3, query_pre_attn_scalar=7, sliding_window=5,
              layer_types=["sliding_attention", "full_attention", "sliding_attention"],
              rope_parameters={"sliding_attention": rope(90.0), "full_attention": rope(5000.0, rope_type="linear", factor=4.0)})
NEOX = dict(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=64)
STABLE = dict(SMALL, hidden_size=48, num_attention_heads=2, num_key_value_heads=1, rope_parameters=rope(900.0, partial_rotary_factor=0.25))

FAMILIES = {
    # every score divided by layer + 1 (Stanford CRFM), square MLP so that a transposed matrix still fits
    "gpt2-crfm": dict(model=t.GPT2LMHeadModel, blocks="transformer.h", sites=GPT2_SITES,
                      config=lambda: t.GPT2Config(**GPT2, n_inner=36, scale_attn_by_inverse_layer_idx=True)),
    "gpt_neo": dict(model=t.GPTNeoForCausalLM, blocks="transformer.h", sites=sites("attn.attention", "out_proj", "mlp", "c_proj", "ln_2"),
                    config=lambda: t.GPTNeoConfig(vocab_size=97, max_position_embeddings=48, hidden_size=36, num_layers=3, num_heads=4,
                                                  intermediate_size=36, window_size=5,
                                                  attention_types=[[["global", "local"], 1], [["local"], 1]])),
    "gpt_neox": dict(model=t.GPTNeoXForCausalLM, blocks="gpt_neox.layers", sites=sites("attention", "dense", "mlp", "dense_4h_to_h"),
                     config=lambda: t.GPTNeoXConfig(**NEOX, rotary_pct=0.25, rotary_emb_base=300)),
    # heads of 10, so that runs of q, k and v meet inside a panel; blocks in sequence; no attention biases
    "gpt_neox-sequential": dict(model=t.GPTNeoXForCausalLM, blocks="gpt_neox.layers", dtype="bfloat16",
                                sites=sites("attention", "dense", "mlp", "dense_4h_to_h", "post_attention_layernorm"),
                                config=lambda: t.GPTNeoXConfig(**dict(NEOX, hidden_size=30, num_attention_heads=3), rotary_pct=0.4,
                                                               use_parallel_residual=False, attention_bias=False)),
    "gptj": dict(model=t.GPTJForCausalLM, blocks="transformer.h", sites=sites("attn", "out_proj", "mlp", "fc_out"),
                 config=lambda: t.GPTJConfig(vocab_size=97, n_positions=64, n_embd=40, n_layer=2, n_head=4, rotary_dim=6, n_inner=50)),
    "llama": dict(model=t.LlamaForCausalLM, blocks="model.layers", sites=LLAMA_SITES,
                  config=lambda: t.LlamaConfig(**SMALL, head_dim=10, rope_parameters=rope(), rms_norm_eps=1e-3)),
    # Llama 3's scaling with a short original context, so that all three bands are met; every bias; tied
    "llama-scaled": dict(model=t.LlamaForCausalLM, blocks="model.layers", sites={**LLAMA_SITES, **GATED_COLD}, dtype="bfloat16",
                         config=lambda: t.LlamaConfig(
                             **SMALL, attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
                             rope_parameters=rope(50.0, rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                                  high_freq_factor=4.0, original_max_position_embeddings=40))),
    "mistral": dict(model=t.MistralForCausalLM, blocks="model.layers", sites=LLAMA_SITES, dtype="bfloat16",
                    config=lambda: t.MistralConfig(**SMALL, sliding_window=5, rope_parameters=rope())),
    "qwen2": dict(model=t.Qwen2ForCausalLM, blocks="model.layers", sites=LLAMA_SITES, dtype="float16",
                  config=lambda: t.Qwen2Config(**dict(SMALL, num_hidden_layers=3), tie_word_embeddings=True, use_sliding_window=True,
                                               sliding_window=6, max_window_layers=2, rope_parameters=rope(3000.0))),
    # heads that are wider than d_model / n_head
    "qwen3": dict(model=t.Qwen3ForCausalLM, blocks="model.layers", sites={**LLAMA_SITES, **GATED_COLD},
                  config=lambda: t.Qwen3Config(**dict(SMALL, hidden_size=30), head_dim=16, rope_parameters=rope())),
    "gemma": dict(model=t.GemmaForCausalLM, blocks="model.layers", sites=LLAMA_SITES, dtype="bfloat16",
                  config=lambda: t.GemmaConfig(**dict(GEMMA, num_key_value_heads=1), num_hidden_layers=2, rope_parameters=rope())),
    "gemma2": dict(model=t.Gemma2ForCausalLM, blocks="model.layers", sites={**SANDWICH, **GATED_COLD},
                   config=lambda: t.Gemma2Config(**GEMMA, num_hidden_layers=3, query_pre_attn_scalar=7, sliding_window=5,
                                                 attn_logit_softcapping=2.5, final_logit_softcapping=4.0, rope_parameters=rope())),
    "gemma3": dict(model=t.Gemma3ForCausalLM, blocks="model.layers", sites=SANDWICH, dtype="bfloat16",
                   config=lambda: t.Gemma3TextConfig(**GEMMA3)),
    "gemma3-multimodal": dict(model=t.Gemma3ForCausalLM, blocks="model.layers", sites=SANDWICH, dtype="bfloat16",
                              config=lambda: t.Gemma3TextConfig(**GEMMA3), rewrite=nest_gemma3),
    "phi": dict(model=t.PhiForCausalLM, blocks="model.layers", sites=sites("self_attn", "dense", "mlp", "fc2"),
                config=lambda: t.PhiConfig(**SMALL, rope_parameters=rope(partial_rotary_factor=0.67))),
    "phi3": dict(model=t.Phi3ForCausalLM, blocks="model.layers", sites=LLAMA_SITES, dtype="bfloat16",
                 config=lambda: t.Phi3Config(**SMALL, sliding_window=6, original_max_position_embeddings=48,
                                             rope_parameters=rope(rope_type="longrope", short_factor=[1.0, 1.5, 2.0],
                                                                  long_factor=[3.0, 4.0, 5.0]))),
    "stablelm": dict(model=t.StableLmForCausalLM, blocks="model.layers", sites=LLAMA_SITES,
                     config=lambda: t.StableLmConfig(**STABLE, use_qkv_bias=True)),
    "stablelm-parallel": dict(model=t.StableLmForCausalLM, blocks="model.layers", dtype="float16",
                              sites=sites("self_attn", "o_proj", "mlp", "down_proj"),
                              config=lambda: t.StableLmConfig(**STABLE, use_parallel_residual=True)),
    # each head of q and k has a LayerNorm of its own
    "stablelm-heads": dict(model=t.StableLmForCausalLM, blocks="model.layers", sites=LLAMA_SITES,
                           config=lambda: t.StableLmConfig(**dict(STABLE, num_attention_heads=4, num_key_value_heads=2,
                                                                         rope_parameters=rope(900.0, partial_rotary_factor=0.5)), qk_layernorm=True)),
    "opt": dict(model=t.OPTForCausalLM, blocks="model.decoder.layers", dtype="float16",
                sites=sites("self_attn", "out_proj", "", "fc2", "final_layer_norm", mlp_out="fc2"),
                config=lambda: t.OPTConfig(vocab_size=97, hidden_size=36, num_hidden_layers=2, ffn_dim=50, num_attention_heads=4,
                                           max_position_embeddings=40, word_embed_proj_dim=36)),
    # the 350m model: norms of the stream behind each addition, none at the end, narrow rows of tokens
    "opt-350m": dict(model=t.OPTForCausalLM, blocks="model.decoder.layers", dtype="float16",
                     sites=sites("self_attn", "out_proj", "", "fc2", "fc1", mlp_out="fc2"),
                     config=lambda: t.OPTConfig(vocab_size=97, hidden_size=36, num_hidden_layers=3, ffn_dim=50, num_attention_heads=4,
                                                max_position_embeddings=40, word_embed_proj_dim=20, do_layer_norm_before=False)),
    # the four shapes of the published toys: config.json's words are those of their time
    "toy-attn-only": toy(dict(attn_only=True, normalization="LN", shortformer_pos=False, act_fn="solu_ln", d_mlp=120),
                         attn_only=True, normalization_type="LN"),
    "toy-gelu": toy(dict(attn_only=False, normalization="LN", shortformer_pos=False, act_fn="gelu", d_mlp=41),
                    act_fn="gelu", d_mlp=41, normalization_type="LN"),
    "toy-solu": toy(dict(attn_only=False, normalization_type="LNPre", final_rms=True, act_fn="solu_ln", d_mlp=41),
                    act_fn="solu_ln", d_mlp=41, normalization_type="LNPre", final_rms=True),
    "toy-solu-gains": toy(dict(attn_only=False, normalization_type="LN", final_rms=True, act_fn="solu_ln", d_mlp=41),
                          act_fn="solu_ln", d_mlp=41, normalization_type="LN", final_rms=True),
    "toy-shortformer": toy(dict(attn_only=True, normalization=None, shortformer_pos=True),
                           attn_only=True, normalization_type=None, positional_embedding_type="shortformer"),
}

# Real models: a prompt in token ids ("Once upon a time" in both vocabularies, behind BOS).
REAL = {"stories260K": [1, 403, 407, 261, 378], "babyllama105": [1, 3, 34, 9, 22, 4, 3, 18, 20, 7, 9, 3, 5, 3, 6, 10, 16, 4]}
