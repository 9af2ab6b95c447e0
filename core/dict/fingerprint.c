/* fingerprint.c: a short name for what a dictionary computes and where, so that what was counted with one is never taken for another's. */
#include <stdio.h>

#include "core/dict/dict_internal.h"

#define SAMPLES 1024 /* weights of each matrix that are looked at: training moves all of them */

/* FNV-1a: meant to notice another dictionary, not an enemy's. */
static uint64_t mix(uint64_t hash, const void *data, size_t bytes) {
  const unsigned char *p = data;
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * 0x100000001B3u;
  return hash;
}

static uint64_t mix_vector(uint64_t hash, const float *vector, int64_t n) {
  return vector ? mix(hash, vector, (size_t)n * sizeof *vector) : mix(hash, "-", 1);
}

static uint64_t mix_matrix(uint64_t hash, const struct tensor *w) {
  if (w->n_dims != 2) return mix(hash, "-", 1);
  int64_t count = w->shape[0] * w->shape[1], step = count > SAMPLES ? count / SAMPLES : 1;
  for (int64_t at = 0; at < count; at += step) {
    float weight = tensor_f32(w, at / w->shape[1], at % w->shape[1]);
    hash = mix(hash, &weight, sizeof weight);
  }
  return hash;
}

void dict_fingerprint(const struct dict *dict, char out[17]) {
  const struct dict_info *info = &dict->info;
  uint64_t hash = 0xCBF29CE484222325u;
  const double plain[] = {info->kind, info->k, info->apply_b_dec_to_input, info->center_mean, info->folded,
                          info->selects_folded, info->norm, info->scale, info->out_scale};
  hash = mix(hash, plain, sizeof plain);
  uint32_t positions = positions_print(&info->positions);
  if (positions) hash = mix(hash, &positions, sizeof positions);
  if (info->cross) hash = mix(hash, &info->n_targets, sizeof info->n_targets);
  hash = mix_vector(hash, dict->b_enc, info->n_feat);
  hash = mix_vector(hash, dict->b_dec, info->d_out);
  hash = mix_vector(hash, dict->norms, info->n_feat);
  hash = mix_vector(hash, dict->threshold, info->n_feat);
  hash = mix_vector(hash, dict->gain, info->n_feat);
  hash = mix_vector(hash, dict->shift, info->n_feat);
  hash = mix_vector(hash, dict->factor, info->n_feat);
  hash = mix_matrix(hash, &dict->w_enc);
  hash = mix_matrix(hash, &dict->w_dec);
  hash = mix_matrix(hash, &dict->skip);
  snprintf(out, 17, "%016llx", (unsigned long long)hash);
}
