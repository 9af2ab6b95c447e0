/* cossim.c: POST /api/cossim: the features whose decoder rows point the way a feature's does. The answer stands at the
 * top level, as upstream documents it, not wrapped as upstream sends it. */
#include "api/handlers.h"
#include "api/reply.h"

const struct field cossim_fields[] = {
    MODEL_ROW, SOURCE_ROW("source", "layer"), INDEX_ROW,
    {"targetModelId", NULL, FIELD_TEXT, .min = 1, .max = 128, .text = "Where to look; left out: in the same model."},
    {"targetSourceId", "targetSource", FIELD_SOURCE, .text = "Where to look; left out: in the same source."},
    {"numResults", NULL, FIELD_INT, .fallback = "10", .min = 1, .max = 128, .text = "Features at most."},
    {.name = NULL}};

struct cossim_plan {
  struct place from, to;
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
  jw_open(&w, '{');
  write_feature(&w, &plan->from, values_int(call->values, "index"));
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
  if (call_check_source(id, "targetSourceId", error) != 0) return -1;
  plan->to.source = lab_find_source(call->api->lab, plan->to.model, id, "targetSourceId", error);
  return plan->to.source ? 0 : -1;
}

int cossim_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct cossim_plan *plan = arena_alloc(&call->arena, sizeof *plan, error);
  int64_t index = values_int(values, "index");
  if (!plan || call_place(call, values, "modelId", "source", "", &plan->from, error) != 0 ||
      call_check_index(plan->from.source, index, "index", error) != 0 || read_target(call, plan, error) != 0)
    return -1;
  call->plan = plan;
  call->finish = finish_cossim;
  return lab_cossim(call->api->lab, plan->from.source, index, NULL, plan->to.source, (int)values_int(values, "numResults"),
                    call->waker, &call->job, error);
}
