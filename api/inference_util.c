/* inference_util.c: what Neuronpedia's inference server tells of a dictionary: POST /v1/util/sae-vector, and similarity-matrix-pred,
 * which only dictionaries have that predict one token from those before (none is served: dict.h). Its neighbours are in cossim.c. */
#include "api/handlers.h"
#include "api/inference.h"
#include "api/tensor_reply.h"

const struct field inference_vector_fields[] = {INFERENCE_MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW, {.name = NULL}};

const struct field inference_similarity_fields[] = {
    {"modelId", "model", FIELD_TEXT, .min = 1, .max = 128, .text = "May be left out where one model is loaded."},
    SOURCE_ROW("sourceId", "source"), INDEX_ROW,
    {"text", "prompt", FIELD_TEXT, .required = true, .min = 1, .cap = CAP_PROMPT, .text = "The text."},
    {.name = NULL}};

/* npy holds one array: what steers. */
static int write_arrays(struct api_call *call, enum tensor_form form, const struct lab_feature_vectors *vectors) {
  int64_t row = (int64_t)(vectors->n_decoder * sizeof(float)), column = (int64_t)(vectors->n_encoder * sizeof(float));
  const struct tensor_shape shapes[2] = {
      {.name = "vector", .dims = {(int64_t)vectors->n_decoder}, .n_dims = 1, .bytes = row},
      {.name = "encoderVector", .dims = {(int64_t)vectors->n_encoder}, .n_dims = 1, .offset = row, .bytes = column}};
  if (form == TENSOR_NPY)
    tensor_write_npy(&call->body, &shapes[0]);
  else
    tensor_write_safetensors(&call->body, shapes, 2);
  buffer_append(&call->body, vectors->decoder, (size_t)row);
  if (form == TENSOR_SAFETENSORS) buffer_append(&call->body, vectors->encoder, (size_t)column);
  call->content_type = tensor_content_type(form);
  return 0;
}

int inference_vector_post(struct api_call *call, struct error *error) {
  struct place place;
  struct lab_feature_vectors vectors;
  int64_t index = values_int(call->values, "index");
  if (call_place(call, call->values, "model", "source", "", &place, error) != 0 ||
      call_check_index(place.source, index, "index", error) != 0 ||
      lab_feature_vectors(call->api->lab, place.source, index, &call->arena, &vectors, error) != 0)
    return -1;
  enum tensor_form form = tensor_form(call);
  if (form != TENSOR_JSON) return write_arrays(call, form, &vectors);
  struct json_writer w;
  jw_init(&w, &call->body);
  w.snake = call_speaks_snake(call);
  jw_open(&w, '{');
  jw_key(&w, "vector");
  jw_f32_array(&w, vectors.decoder, vectors.n_decoder);
  jw_key_as_it_is(&w, "hookName"); /* as it always was */
  jw_text(&w, place.source->point_out);
  jw_key(&w, "encoderVector");
  jw_f32_array(&w, vectors.encoder, vectors.n_encoder);
  jw_member_text(&w, "encoderHookName", place.source->point);
  jw_close(&w, '}');
  return 0;
}

int inference_similarity_post(struct api_call *call, struct error *error) {
  struct place place;
  int64_t index = values_int(call->values, "index");
  if (call_place(call, call->values, "modelId", "sourceId", "", &place, error) != 0 ||
      call_check_index(place.source, index, "index", error) != 0)
    return -1;
  return error_set_field(error, ERROR_ARGUMENT, "sourceId", "source '%.64s' (%.64s) is not temporal: it predicts nothing of a token from "
                         "those before; POST /v1/activation/source tells what fires", place.source->id, place.source->kind);
}
