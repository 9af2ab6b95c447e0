/* dict_ini.h: the section [source ID] of an ini file that describes a dictionary whose weights come without a
 * description. Private to core/dict.
 *
 *   weights = a .pth, .npz or .safetensors file            required; a relative path starts at the folder in
 *                                                          STEERD_DATA (default ../shared/data)
 *   kind    = relu | jumprelu | topk | gated | groupmax    required; BatchTopK and Matryoshka are jumprelu at inference
 *   point   = blocks.0.hook_resid_post, resid_post.0       required: what it reads
 *   point_out = blocks.0.hook_mlp_out                      a transcoder, and what it writes; absent: an SAE
 *   k       = features that TopK keeps, groups of groupmax required for these, refused otherwise
 *   select  = raw | folded: what TopK compares             raw
 *   threshold = one number for all features                jumprelu whose file has no such tensor
 *   apply_b_dec_to_input = yes | no                        yes; no for a transcoder, where yes is refused
 *   normalize = none | scale | length | layer_norm         none (dict.h has the formulas)
 *   scale   = what the input is multiplied by              required for normalize = scale
 *   center  = yes | no: trained on centred weights         no
 *   fold    = yes | no: activations in units of |W_dec[f]| yes
 *   bos_counts = yes | no: BOS counts in statistics        no
 *   prepend_bos = yes | no: trained on texts behind BOS    yes
 *   context = tokens it was trained on at a time           not said
 *   head    = number: one head's part of attn.hook_z       all heads
 *   tied    = yes | no: W_dec is W_enc transposed          no
 *   w_enc, w_dec, b_enc, b_dec, threshold_name, r_mag, b_mag, w_skip = the tensor's name in the file, with a following
 *             "transposed" where it lies the other way round than [inputs, features], [features, outputs], [inputs,
 *             outputs]; "none" for a b_enc or b_dec that is 0. Absent: W_enc, W_dec, b_enc (gated: b_gate), b_dec,
 *             threshold, r_mag, b_mag; no skip
 *
 * true and false are read as yes and no. Any other key is refused. */
#ifndef STEERD_CORE_DICT_DICT_INI_H
#define STEERD_CORE_DICT_DICT_INI_H

#include "core/dict/dict_config.h"

/* Into an initialised config. ERROR_NOT_FOUND when the file has no such section; errors of keys name file and line. */
int dict_ini_read(const char *path, const char *id, const struct dict_host *host, struct dict_config *out,
                  struct error *error) MUST_CHECK;

#endif
