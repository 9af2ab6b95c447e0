/* vector_files.c: steering vectors as files: POST /api/vector/upload, GET /api/vector/download. What is in a file is
 * core/vectors.h's business. */
#include <math.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "api/steer.h"
#include "core/vectors.h"

const struct field vector_upload_fields[] = {
    MODEL_ROW,
    {"vectorLabel", "label", FIELD_TEXT, .required = true, .min = 1, .max = 256,
     .text = "What it is: the name that all of its vectors are found by. No other vector of the model has it yet."},
    {"vectorDefaultSteerStrength", "defaultSteerStrength", FIELD_NUMBER, .fallback = "1", .min = -300, .max = 300,
     .text = "The strength they are steered with unless another is asked for; 1 is what the file says."},
    {.name = NULL}};

const struct field vector_download_fields[] = {
    MODEL_ROW,
    {"vectorLabel", "label", FIELD_TEXT, .required = true, .min = 1, .max = 256, .text = "Their label."},
    {.name = NULL}};

/* ---- upload ------------------------------------------------------------------------------------------- */

static void write_vectors(struct json_writer *w, const struct lab_vector_file *file) {
  jw_key(w, "vectors");
  jw_open(w, '[');
  for (size_t i = 0; i < file->n; i++) {
    jw_open(w, '{');
    jw_member_text(w, "source", file->vectors[i].source);
    reply_digits(w, "index", file->vectors[i].index);
    jw_member_text(w, "hookName", file->vectors[i].point);
    jw_member_f32(w, "length", (float)lab_vector_norm(file->vectors[i].values, file->vectors[i].n));
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

void steer_write_kept(struct json_writer *w, const struct store_vector *vectors, size_t n) {
  jw_key(w, "features");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) {
    jw_open(w, '{');
    jw_member_text(w, "modelId", vectors[i].model);
    jw_member_text(w, "layer", vectors[i].source);
    reply_digits(w, "index", vectors[i].index);
    jw_member_f64(w, "strength", vectors[i].strength);
    jw_close(w, '}');
  }
  jw_close(w, ']');
}

static void write_kept(struct api_call *call, const struct lab_vector_file *file) {
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "message", "Success");
  jw_member_text(&w, "modelId", file->vectors->model);
  jw_member_text(&w, "label", file->vectors->label);
  jw_member_text(&w, "format", file->format);
  jw_member_text(&w, "modelHint", file->hint);
  write_vectors(&w, file);
  steer_write_kept(&w, file->vectors, file->n);
  jw_close(&w, '}');
}

/* The file is the client's, so whatever is wrong with it is the request's fault. */
static int blame_request(const struct error *own, struct error *error) {
  bool file = own->code == ERROR_FORMAT || own->code == ERROR_UNSUPPORTED || own->code == ERROR_LIMIT || own->code == ERROR_ARGUMENT;
  if (file) return error_set_field(error, ERROR_ARGUMENT, "body", "the file in the body: %s", own->text);
  return error_set_field(error, own->code, own->code == ERROR_CONFLICT ? "vectorLabel" : "", "%s", own->text);
}

int vector_upload_post(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_model(call, call->values, "modelId", error);
  if (!model || call_may_add(call, error) != 0) return -1;
  struct lab_vector_file file;
  struct error own = ERROR_INIT;
  if (lab_vectors_keep_file(call->api->lab, model, call->request->body, call->request->body_length,
                            values_text(call->values, "vectorLabel", NULL), values_number(call->values, "vectorDefaultSteerStrength"),
                            &call->arena, &file, &own) != 0)
    return blame_request(&own, error);
  write_kept(call, &file);
  return 0;
}

/* ---- download ----------------------------------------------------------------------------------------- */

int vector_download_get(struct api_call *call, struct error *error) {
  const struct lab_model_info *model = call_model(call, call->values, "modelId", error);
  if (!model) return -1;
  struct error own = ERROR_INIT;
  if (lab_vectors_write_file(call->api->lab, model, values_text(call->values, "vectorLabel", NULL), &call->arena, &call->body, &own) != 0)
    return error_set_field(error, own.code, "vectorLabel", "%s", own.text);
  call->content_type = "application/octet-stream";
  call_add_header(call, "Content-Disposition", "attachment; filename=\"control_vector.gguf\"");
  return 0;
}
