/* encode.h: codes of rows that stay on the device: what encodes and splices share. Private to core/math/cuda. */
#ifndef STEERD_CORE_MATH_CUDA_ENCODE_H
#define STEERD_CORE_MATH_CUDA_ENCODE_H

#include "core/math/cuda/cuda.h"

/* The scratch of some rows on the device (SCRATCH_ENCODE), and how they are encoded. */
struct encoding {
  struct cuda_backend *cuda;
  const struct encode_args *args;
  struct group_rows of; /* of splices; table NULL: args->x */
  bool framed;          /* frame is wanted */
  struct device_rows kept; /* at not NULL: frame is that of these rows, kept_width wide (struct centre_args) */
  int64_t kept_width;
  int64_t skip_width;   /* of what is added beside the features; 0: nothing */
  int64_t chunk;        /* rows at a time */
  int64_t ld;           /* of a row of features */
  float *centred;       /* NULL where rows are multiplied as they are */
  float *frame, *raw, *skip; /* NULL where nobody asked */
  struct choose_args choose; /* start, index and value are what was kept */
  size_t expected;           /* entries of a row that lie in the first part of it */
  size_t back_bytes;         /* of start and that first part, which lie together */
};

/* With cuda, args, of, framed and expected set: room for as many rows at a time as are sensible. */
int encoding_open(struct encoding *e, struct error *error) MUST_CHECK;
/* Rows [first, first + rows) of them, rows <= chunk: on the stream. */
int encoding_run(struct encoding *e, int64_t first, int64_t rows, struct error *error) MUST_CHECK;

#endif
