/* simd_keep.h: vf_pack and vf_keep (see simd_avx512.h) for instruction sets that cannot compress a register. */
VF int vf_keep(vf a, uint32_t mask, int32_t base, float *value, int32_t *index) {
  float lane[16];
  vf_store(lane, a);
  int n = 0;
  for (; mask; mask &= mask - 1) {
    int i = __builtin_ctz(mask);
    value[n] = lane[i];
    index[n++] = base + i;
  }
  return n;
}

VF int vf_pack(vf a, uint32_t mask, float *value) {
  float lane[16];
  vf_store(lane, a);
  int n = 0;
  for (; mask; mask &= mask - 1) value[n++] = lane[__builtin_ctz(mask)];
  return n;
}
