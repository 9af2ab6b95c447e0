/* Any bytes as an .npz; where the first byte is not 'P', they are one array of a sound archive: stored when that byte
 * is even, else a deflate stream that claims to unpack to as much as it does, so that headers are reached without a
 * zip's offsets in the way. What is compressed is unpacked. */
#include "core/model/npz.h"
#include "tests/fuzz/fuzz_tensors.h"
#include "tests/unit/zip_builder.h"

static int read_all(const char *path, const struct mapfile *file, struct tensor_list *list, struct error *error) {
  struct npz_packed_list packed = {NULL, 0};
  int rc = npz_read(path, file, list, &packed, error);
  for (size_t i = 0; rc == 0 && i < packed.count; i++) {
    struct tensor *tensor = &list->items[packed.items[i].tensor];
    if (tensor->data || packed.items[i].tensor >= list->count) abort();
    rc = npz_unpack(&packed.items[i], tensor->bytes, error);
    if (rc == 0 && tensor->bytes) fuzz_sink = packed.items[i].elements[tensor->bytes - 1];
    tensor->data = file->data; /* what fuzz_check_tensor may look at instead */
    tensor->bytes = 0;
    tensor->dtype = DTYPE_OTHER;
  }
  npz_clear(&packed);
  return rc;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  unsigned char packed[4200];
  if (size < 2 || data[0] == 'P' || size > 4096) return fuzz_reader(read_all, data, size);
  struct zip_part part = {.name = "a.npy", .data = data + 1, .size = size - 1};
  uLongf length = sizeof packed;
  if (data[0] & 1 && compress2(packed, &length, data + 1, size - 1, 1) == Z_OK)
    part = (struct zip_part){.name = "a.npy", .data = packed + 2, .size = length - 6, /* without zlib's frame */
                             .method = 8, .unpacked_size = (uint32_t)size - 1,
                             .crc = (uint32_t)crc32(0, data + 1, (uInt)size - 1)};
  struct buffer out;
  buffer_init(&out, 0);
  zip_build(&out, &part, 1);
  int rc = fuzz_reader(read_all, (const unsigned char *)out.data, out.length);
  buffer_clear(&out);
  return rc;
}
