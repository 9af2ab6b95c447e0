/* tensor_reply.c: the headers of npy and safetensors, and the stream behind them. Knows no verb. */
#include "api/tensor_reply.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/base/json_writer.h"

#define PIECE ((size_t)64 << 10)

enum tensor_form tensor_form(const struct api_call *call) {
  const char *accept = request_header(call->request, "Accept");
  if (accept && strcasestr(accept, "application/x-npy")) return TENSOR_NPY;
  return accept && strcasestr(accept, "application/vnd.safetensors") ? TENSOR_SAFETENSORS : TENSOR_JSON;
}

const char *tensor_content_type(enum tensor_form form) {
  return form == TENSOR_NPY ? "application/x-npy" : "application/vnd.safetensors";
}

/* Version 1.0: magic, length of the dictionary, the dictionary padded so that data begins at a multiple of 64. */
void tensor_write_npy(struct buffer *out, const struct tensor_shape *shape) {
  char text[512];
  int n = snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
  for (int i = 0; i < shape->n_dims; i++)
    n += snprintf(text + n, sizeof text - (size_t)n, "%lld,%s", (long long)shape->dims[i], i + 1 < shape->n_dims ? " " : "");
  n += snprintf(text + n, sizeof text - (size_t)n, "), }");
  int padded = (10 + n + 1 + 63) / 64 * 64 - 10;
  unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(padded & 255), (unsigned char)(padded >> 8)};
  buffer_append(out, head, sizeof head);
  buffer_append(out, text, (size_t)n);
  for (int i = n; i < padded - 1; i++) buffer_char(out, ' ');
  buffer_char(out, '\n');
}

static void write_entry(struct json_writer *w, const struct tensor_shape *shape) {
  jw_key(w, shape->name);
  jw_open(w, '{');
  jw_member_text(w, "dtype", "F32");
  jw_key(w, "shape");
  jw_open(w, '[');
  for (int i = 0; i < shape->n_dims; i++) jw_int(w, shape->dims[i]);
  jw_close(w, ']');
  jw_key(w, "data_offsets");
  jw_open(w, '[');
  jw_int(w, shape->offset);
  jw_int(w, shape->offset + shape->bytes);
  jw_close(w, ']');
  jw_close(w, '}');
}

/* Eight bytes of length, a JSON object padded to a multiple of eight, the data. */
void tensor_write_safetensors(struct buffer *out, const struct tensor_shape *shapes, size_t n) {
  struct buffer head;
  struct json_writer w;
  buffer_init(&head, out->limit);
  jw_init(&w, &head);
  jw_open(&w, '{');
  for (size_t i = 0; i < n; i++) write_entry(&w, &shapes[i]);
  jw_close(&w, '}');
  while (head.length % 8 && !head.failed) buffer_char(&head, ' ');
  unsigned char length[8];
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)head.length >> (8 * i));
  buffer_append(out, length, sizeof length);
  buffer_append(out, head.data, head.length);
  out->failed |= head.failed;
  buffer_clear(&head);
}

/* ---- the stream --------------------------------------------------------------------------------------- */

struct tensor_plan {
  tensor_read read;
  int64_t at, bytes;
  char *piece;
};

static int pull(struct api_call *call, struct buffer *out, struct error *error) {
  struct tensor_plan *plan = call->plan;
  size_t n = (size_t)(plan->bytes - plan->at) < PIECE ? (size_t)(plan->bytes - plan->at) : PIECE;
  if (n && plan->read(call->job, plan->at, plan->piece, n, error) != 0) return -1;
  buffer_append(out, plan->piece, n);
  plan->at += (int64_t)n;
  call->ended = plan->at == plan->bytes;
  return 0;
}

int tensor_stream(struct api_call *call, enum tensor_form form, int64_t bytes, tensor_read read, struct error *error) {
  struct tensor_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  char *piece = arena_alloc(&call->arena, PIECE, error);
  if (!plan || !piece) return -1;
  *plan = (struct tensor_plan){read, 0, bytes, piece};
  call->plan = plan;
  call->pull = pull;
  call->stream = true;
  call->held = bytes;
  call->content_type = tensor_content_type(form);
  return 0;
}
