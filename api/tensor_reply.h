/* tensor_reply.h: activations as files a notebook reads in a line: npy for one array, safetensors for several. */
#ifndef STEERD_API_TENSOR_REPLY_H
#define STEERD_API_TENSOR_REPLY_H

#include "api/call.h"

enum tensor_form { TENSOR_JSON, TENSOR_NPY, TENSOR_SAFETENSORS };

/* What the Accept header asks for; JSON unless one of the two is named. */
enum tensor_form tensor_form(const struct api_call *call);

const char *tensor_content_type(enum tensor_form form); /* not of JSON */

struct tensor_shape {
  const char *name;
  int64_t dims[5];
  int n_dims;
  int64_t offset, bytes; /* of the data */
};

/* Headers, f32 little-endian. */
void tensor_write_npy(struct buffer *out, const struct tensor_shape *shape);
void tensor_write_safetensors(struct buffer *out, const struct tensor_shape *shapes, size_t n);

/* Copies n bytes from `offset` of a job's result to `to`; 0, or -1 with an error. */
typedef int (*tensor_read)(struct lab_job *job, int64_t offset, void *to, size_t n, struct error *error);

/* Makes the reply a stream: what stands in call->body, then `bytes` that `read` gives piece by piece. */
int tensor_stream(struct api_call *call, enum tensor_form form, int64_t bytes, tensor_read read, struct error *error) MUST_CHECK;

#endif
