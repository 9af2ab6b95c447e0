/* control_vector.h: files that hold one direction for each of several layers, to be added to the residual stream together: what
 * repeng trains and llama.cpp calls a control vector.
 *
 * Read are GGUF files (architecture "controlvector"), and safetensors and .npz files. Names in them say where:
 *   direction.N                                    behind layer N, as llama.cpp adds it: blocks.N.hook_resid_post
 *   blocks.N.hook_resid_pre, resid_post.N, ...     that point, in any spelling of points.h
 * Files come from clients: they are read from memory, and nothing is allocated for what they claim. */
#ifndef STEERD_CORE_MODEL_CONTROL_VECTOR_H
#define STEERD_CORE_MODEL_CONTROL_VECTOR_H

#include "core/base/arena.h"
#include "core/base/buffer.h"
#include "core/math/point.h"

struct control_direction {
  struct point point;  /* SITE_RESID_PRE or SITE_RESID_POST of a layer of the model; each point at most once */
  const float *values; /* f32 [width], finite */
};

struct control_vector {
  const char *format;                   /* "gguf", "safetensors" or "npz"; static */
  const char *hint;                     /* the kind of model that a GGUF file says it is for, printable ASCII; NULL: none */
  const struct control_direction *directions; /* in the file's order, at least one */
  size_t n;
};

/* Reads a file's bytes for a model of n_layer layers that is `width` wide; the result lies in the arena and borrows nothing.
 * ERROR_FORMAT, ERROR_ARGUMENT (a name, a layer, a length, a value), ERROR_UNSUPPORTED, ERROR_LIMIT, ERROR_MEMORY; texts name the
 * tensor and leave naming the file to the caller. */
int control_vector_read(const void *data, size_t size, int n_layer, int64_t width, struct arena *arena, struct control_vector *out,
                        struct error *error) MUST_CHECK;

/* Appends a GGUF file, version 3, that llama.cpp reads: the directions of each layer summed, a point resid_pre.N being resid_post.N-1.
 * hint: the kind of model. ERROR_ARGUMENT where something would be added in front of layer 0 or behind it, which such files
 * cannot say, or nothing is given; a buffer that does not fit is left to buffer_check. */
int control_vector_write(struct buffer *to, const char *hint, const struct control_direction *directions, size_t n, int64_t width,
                         struct error *error) MUST_CHECK;

#endif
