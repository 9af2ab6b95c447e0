/* dict_ini.h: the section [source ID] of an ini file that describes a dictionary whose weights come without a
 * description. Private to core/dict.
 *
 *   weights = a .pth or .safetensors file                  required; a relative path starts at the folder in
 *                                                          STEERD_DATA (default ../shared/data)
 *   kind    = relu | jumprelu | topk                       required
 *   point   = blocks.0.hook_resid_post, resid_post.0       required
 *   k       = features that TopK keeps                     required for topk, refused otherwise
 *   apply_b_dec_to_input = yes | no                        yes
 *   center  = yes | no: trained on centred weights         no
 *   fold    = yes | no: activations in units of |W_dec[f]| yes
 *   bos_counts = yes | no: BOS counts in statistics        no
 *   prepend_bos = yes | no: trained on texts behind BOS    yes
 *   context = tokens it was trained on at a time           not said
 *
 * true and false are read as yes and no. Any other key is refused. */
#ifndef STEERD_CORE_DICT_DICT_INI_H
#define STEERD_CORE_DICT_DICT_INI_H

#include "core/dict/dict_config.h"

/* ERROR_NOT_FOUND when the file has no such section; errors of keys name file and line. */
int dict_ini_read(const char *path, const char *id, const struct dict_host *host, struct dict_config *out,
                  struct error *error) MUST_CHECK;

#endif
