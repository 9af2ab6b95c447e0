/* Any bytes as a torch archive; where the first byte is not 'P', the rest is the pickle of a sound archive
 * around one storage, so that the machine is reached without a zip's checksums and offsets in the way. */
#include "core/model/torch_archive.h"
#include "tests/fuzz/fuzz_tensors.h"
#include "tests/unit/zip_builder.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static const char storage[64];
  if (size == 0 || data[0] == 'P') return fuzz_reader(torch_archive_read, data, size);
  struct zip_part parts[] = {{.name = "r/data.pkl", .data = data, .size = size},
                             {.name = "r/data/0", .data = storage, .size = sizeof storage}};
  struct buffer out;
  buffer_init(&out, 0);
  zip_build(&out, parts, 2);
  int rc = fuzz_reader(torch_archive_read, (const unsigned char *)out.data, out.length);
  buffer_clear(&out);
  return rc;
}
