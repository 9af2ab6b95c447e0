/* cossim.c: POST /api/cossim: the features whose decoder rows point the way a feature's does. The answer stands at the
 * top level, as upstream documents it, not wrapped as upstream sends it. POST /v1/util/sae-topk-by-decoder-cossim: the same with the
 * inference server's names, and for a vector. */
#include "api/edits.h"
#include "api/handlers.h"
#include "api/inference.h"
#include "api/reply.h"

const struct field cossim_fields[] = {
    MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW,
    {"targetModelId", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "Where to look; left out: in the same model."},
    {"targetSourceId", "targetSource", FIELD_SOURCE, .text = "Where to look; left out: in the same source."},
    {"numResults", NULL, FIELD_INT, .fallback = "10", .min = 1, .max = 128, .text = "Features at most."},
    {.name = NULL}};

static const struct field feature_rows[] = {INFERENCE_MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW, {.name = NULL}};

const struct field inference_cossim_fields[] = {
    {"feature", NULL, FIELD_OBJECT, .inner = feature_rows, .example = "{\"source\": \"7-res-jb\", \"index\": 6770}",
     .text = "Neighbours of its decoder row; this or vector."},
    {"vector", NULL, FIELD_NUMBERS, .min = 1, .max = 1e6, .text = "Neighbours of this."},
    INFERENCE_MODEL_ROW, SOURCE_ROW("source", "layer"),
    {"numResults", NULL, FIELD_INT, .fallback = "10", .min = 1, .max = 1e9, .text = "Features at most; never more than 128."},
    {.name = NULL}};

enum { NEIGHBOURS_MOST = 128 };

struct cossim_plan {
  struct place from, to; /* from.source NULL: a vector */
  int64_t index;
  bool snake;
};

static void write_feature(struct json_writer *w, const struct place *place, int64_t index) {
  jw_key(w, "feature");
  jw_open(w, '{');
  jw_member_text(w, "model", place->model->id);
  jw_member_text(w, "source", place->source->id);
  jw_member_int(w, "index", index);
  jw_close(w, '}');
}

static int finish_cossim(struct api_call *call, struct error *error) {
  (void)error;
  const struct cossim_plan *plan = call->plan;
  const struct lab_neighbours *found = lab_cossim_result(call->job);
  struct json_writer w;
  jw_init(&w, &call->body);
  w.snake = plan->snake;
  jw_open(&w, '{');
  if (plan->from.source)
    write_feature(&w, &plan->from, plan->index);
  else
    jw_member_null(&w, "feature");
  jw_key(&w, "topkDecoderCossimFeatures");
  jw_open(&w, '[');
  for (size_t i = 0; i < found->n; i++) {
    jw_open(&w, '{');
    write_feature(&w, &plan->to, found->indices[i]);
    jw_member_f32(&w, "cosineSimilarity", found->cosines[i]);
    jw_close(&w, '}');
  }
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}

static int read_target(struct api_call *call, struct cossim_plan *plan, struct error *error) {
  const struct values *values = call->values;
  plan->to = plan->from;
  if (values_has(values, "targetModelId")) plan->to.model = call_model(call, values, "targetModelId", error);
  if (!plan->to.model) return -1;
  const char *id = values_text(values, "targetSourceId", NULL);
  if (!id && plan->to.model == plan->from.model) return 0;
  if (!id) id = plan->from.source->id;
  plan->to.source = lab_find_source(call->api->lab, plan->to.model, id, "targetSourceId", error);
  return plan->to.source ? 0 : -1;
}

int cossim_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct cossim_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  if (!plan || call_place(call, values, "modelId", "source", "", &plan->from, error) != 0) return -1;
  plan->index = values_int(values, "index");
  if (call_check_index(plan->from.source, plan->index, "index", error) != 0 || read_target(call, plan, error) != 0) return -1;
  call->plan = plan;
  call->finish = finish_cossim;
  return lab_cossim(call->api->lab, plan->from.source, plan->index, NULL, 0, plan->to.source, (int)values_int(values, "numResults"),
                    call->waker, &call->job, error);
}

/* ---- the inference server's ---------------------------------------------------------------------------- */

/* The model may stand beside the feature alone. */
static int read_feature(struct api_call *call, const struct values *feature, struct cossim_plan *plan, struct error *error) {
  const char *id = values_text(feature, "source", NULL);
  plan->from.model = values_has(feature, "model") ? call_model(call, feature, "model", error) : plan->to.model;
  if (!plan->from.model) return -1;
  plan->from.source = lab_find_source(call->api->lab, plan->from.model, id, "feature.source", error);
  plan->index = values_int(feature, "index");
  return plan->from.source ? call_check_index(plan->from.source, plan->index, "feature.index", error) : -1;
}

int inference_cossim_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values, *feature = values_at(values, "feature", 0);
  struct cossim_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  struct error own = ERROR_INIT;
  int64_t wanted = values_int(values, "numResults");
  size_t n;
  if ((feature != NULL) == values_has(values, "vector"))
    return error_set_field(error, ERROR_ARGUMENT, feature ? "vector" : "feature", "exactly one of 'feature' and 'vector' is to be given, "
                           "found %s", feature ? "both" : "neither");
  float *vector = read_floats(call, values, "vector", &n, error);
  if (!plan || !vector || call_place(call, values, "model", "source", "", &plan->to, error) != 0 ||
      (feature && read_feature(call, feature, plan, error) != 0))
    return -1;
  plan->snake = call_speaks_snake(call);
  call->plan = plan;
  call->finish = finish_cossim;
  if (lab_cossim(call->api->lab, plan->from.source, plan->index, feature ? NULL : vector, n, plan->to.source,
                 (int)(wanted < NEIGHBOURS_MOST ? wanted : NEIGHBOURS_MOST), call->waker, &call->job, &own) == 0)
    return 0;
  return error_set_field(error, own.code, feature && own.field[0] ? "feature" : own.field, "%s", own.text);
}
