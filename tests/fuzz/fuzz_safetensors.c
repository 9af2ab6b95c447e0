/* Any bytes as a safetensors file. */
#include "core/model/safetensors.h"
#include "tests/fuzz/fuzz_tensors.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  return fuzz_reader(safetensors_read, data, size);
}
