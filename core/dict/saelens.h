/* saelens.h: cfg.json of a SAELens folder (SAEs, transcoders, skip transcoders). Private to core/dict.
 *
 * Two layouts are read as one. Since version 6 what concerns the model stands in an object "metadata";
 * before, all of it was flat and some keys had other names:
 *
 *   hook_point -> hook_name    hook_point_head_index -> hook_head_index    activation_fn_str -> activation_fn
 *   activation_fn "topk" + activation_fn_kwargs.k -> TopK, whatever the architecture says
 *   normalize_activations true / false -> expected_average_only_in / none
 *
 * Absent: architecture standard, activation_fn relu, apply_b_dec_to_input true (false for a transcoder) and prepend_bos
 * true, normalisation and reshaping none.
 * expected_average_only_in needs the scale that was estimated in training: scaling_factor in activation_scaler.json beside
 * cfg.json, or norm_scaling_factor in cfg.json; without it the weights cannot be told from folded ones, and they are refused.
 * What changes the numbers and is not served is refused by name; other keys are not read.
 */
#ifndef STEERD_CORE_DICT_SAELENS_H
#define STEERD_CORE_DICT_SAELENS_H

#include "core/dict/dict_config.h"
#include "core/dict/dict_json.h"

/* Reads FOLDER/cfg.json into an initialised config. A model_name other than host->model_id is only a warning in the
 * log. */
int saelens_read(const char *folder, const struct dict_host *host, struct dict_config *out,
                 struct error *error) MUST_CHECK;

/* Of saelens_read, once the context is known: seqpos_slice, absent or null or all of it for all positions; exclude_special_tokens, true
 * (BOS, EOS, PAD and SEP of the tokenizer), a list of ids, or false. */
int saelens_read_positions(const struct dict_json *cfg, struct error *error) MUST_CHECK;

#endif
