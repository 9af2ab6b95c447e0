/* plugin.h: the one entry of steerd-cuda.so, and what the daemon and it must agree on. Private to core/math.
 *
 * The daemon is built and runs without CUDA; it opens this library where a device is asked for or may be there. Both come
 * from one tree and share the shapes of ops.h, so the sizes of the shared structs are told, and a library of another
 * build is refused. */
#ifndef STEERD_CORE_MATH_CUDA_PLUGIN_H
#define STEERD_CORE_MATH_CUDA_PLUGIN_H

#include "core/math/ops.h"

#define CUDA_PLUGIN_VERSION 7
#define CUDA_PLUGIN_ENTRY "steerd_cuda_open"

struct cuda_plugin_host {
  int version;
  size_t sizes[11]; /* cuda_plugin_sizes */
};

static inline struct cuda_plugin_host cuda_plugin_host(void) {
  return (struct cuda_plugin_host){CUDA_PLUGIN_VERSION,
                                   {sizeof(struct ops), sizeof(struct op), sizeof(struct step), sizeof(struct encode_args),
                                    sizeof(struct matrix_part), sizeof(struct sparse), sizeof(struct sample_draw),
                                    sizeof(struct sample_result), sizeof(struct splice), sizeof(struct splice_row),
                                    sizeof(struct vjp)}};
}

struct cuda_options {
  int device;         /* 0, 1, ... */
  bool deterministic; /* every result has the same bits at any load */
  bool serial;        /* no kernel begins before the one before it has ended: to measure what that is worth */
  bool apart;         /* nor does one do what two can do: the same */
  bool library;       /* products of many rows are the library's, however small the matrix is: the same */
};

/* Opens a device. ERROR_ARGUMENT when `host` is of another build or the device does not exist, ERROR_DEVICE when it (or
 * its driver) does not work. */
typedef int cuda_plugin_open(const struct cuda_plugin_host *host, const struct cuda_options *options,
                             struct backend **out, struct error *error);

#endif
