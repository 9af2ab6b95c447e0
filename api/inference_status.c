/* inference_status.c: what this server can do and how busy it is, as Neuronpedia's inference server tells it:
 * GET /v1/capabilities, GET /v1/steer/health. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/handlers.h"
#include "api/inference.h"
#include "api/reply.h"
#include "core/laboratory.h"

const struct field inference_capabilities_fields[] = {
    {"model", "modelId", FIELD_TEXT, .min = 1, .max = 128,
     .text = "Of which model; left out: of the one that was loaded first."},
    {.name = NULL}};

/* ---- points ------------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* Whether a name is one word, with ".N" behind it where there is one point in each layer. */
static bool is_plain(const char *name, bool layered) {
  const char *end = layered ? ".N" : "";
  return strcmp(name + strcspn(name, "."), end) == 0;
}

/* "resid_post", as interp-engine calls a point, else the point's own name. NULL only when out of memory. */
static const char *capture_name(struct arena *arena, const struct lab_point *point, struct error *error) {
  const char *found = point->name;
  bool layered = strstr(point->name, ".N");
  for (size_t i = 0; i < point->n_spellings && !is_plain(found, layered); i++)
    if (is_plain(point->spellings[i], layered)) found = point->spellings[i];
  return arena_text(arena, found, is_plain(found, layered) ? strcspn(found, ".") : strlen(found), error);
}

static int write_points(struct api_call *call, struct json_writer *w, const struct lab_model_info *model, struct error *error) {
  const struct lab_point *points;
  size_t n, count = 0;
  if (lab_points(model, call->api->lab, &call->arena, &points, &n, error) != 0) return -1;
  const char **names = arena_array(&call->arena, n, sizeof *names, error);
  if (!names) return -1;
  for (size_t i = 0; i < n; i++)
    if (!points[i].missing && !(names[count++] = capture_name(&call->arena, &points[i], error))) return -1;
  qsort(names, count, sizeof *names, by_text);
  reply_texts(w, "capture_points", names, count);
  return 0;
}

/* ---- what is loaded ----------------------------------------------------------------------------------- */

/* Each set of the model once. */
static void write_sets(struct api_call *call, struct json_writer *w, const struct lab_model_info *model) {
  const struct lab_source_info *const *sources;
  size_t n = lab_sources(call->api->lab, model, &sources);
  jw_key(w, "sae_sets");
  jw_open(w, '[');
  for (size_t i = 0; i < n; i++) {
    size_t k = 0;
    while (strcmp(sources[k]->set, sources[i]->set) != 0) k++;
    if (k == i) jw_text(w, sources[i]->set);
  }
  jw_close(w, ']');
}

static int write_cache(struct api_call *call, struct json_writer *w, const struct lab_stats *stats, struct error *error) {
  struct lab_source_status *sources;
  size_t n, resident = 0, mapped = 0;
  if (lab_source_list(call->api->lab, &call->arena, &sources, &n, error) != 0) return -1;
  for (size_t i = 0; i < n; i++) {
    resident += sources[i].encoder_bytes > 0;
    mapped += sources[i].bytes;
  }
  jw_key(w, "sae_cache");
  jw_open(w, '{');
  jw_member_bool(w, "enabled", stats->dict_budget > 0);
  jw_member_int(w, "budget_bytes", (int64_t)stats->dict_budget);
  jw_member_int(w, "resident_bytes", (int64_t)stats->dict_encoder_bytes);
  jw_member_int(w, "resident_count", (int64_t)resident);
  jw_member_int(w, "registered_count", (int64_t)n);
  jw_member_int(w, "host_bytes", (int64_t)mapped);
  jw_member_int(w, "pinned_bytes", 0);
  jw_member_null(w, "hits"); /* nobody counts them */
  jw_member_int(w, "misses", stats->dict_encoders_prepared);
  jw_member_int(w, "evictions", stats->dict_encoders_dropped);
  jw_close(w, '}');
  return 0;
}

static void write_endpoints(struct json_writer *w, const struct lab_model_info *model, bool sources) {
  bool neurons = model->d_mlp > 0;
  sources = sources || neurons;
  const struct {
    const char *name;
    bool served;
  } endpoints[] = {{"tokenize", true}, {"activation_single", true}, {"activation_all", sources}, {"activation_source", sources},
                   {"activation_raw", true}, {"activation_topk_by_token", sources}, {"activation_attention", true}, {"dfa", true},
                   {"steer_completion", true}, {"steer_completion_chat", model->chat_format != NULL}, {"lens_logit", true},
                   {"lens_jacobian", false}, {"neurons", neurons}};
  jw_key(w, "endpoints");
  jw_open(w, '{');
  for (size_t i = 0; i < sizeof endpoints / sizeof endpoints[0]; i++) jw_member_bool(w, endpoints[i].name, endpoints[i].served);
  jw_close(w, '}');
}

static void write_limits(struct json_writer *w, const struct lab_model_info *model, const struct lab_stats *stats) {
  jw_member_int(w, "max_concurrent_requests", stats->max_sessions);
  jw_member_int(w, "max_tokens", model->n_ctx);
  jw_member_int(w, "token_limit", model->n_ctx);
  jw_member_int(w, "lens_token_limit", model->n_ctx);
  jw_member_int(w, "activation_token_limit", model->n_ctx);
  jw_member_int(w, "vram_budget_bytes", (int64_t)stats->kv_bytes);
  jw_member_int(w, "vram_budget_available_bytes", (int64_t)(stats->kv_bytes - stats->kv_used_bytes));
  jw_member_int(w, "max_num_results", INFERENCE_RESULTS_MOST);
}

/* Every point is read and written as the model runs: nothing is recorded beforehand. */
static void write_hooks(struct json_writer *w, const struct lab_model_info *model) {
  static const char *const lists[] = {"static_points", "static_writes", "frozen_points", "writes_available"};
  jw_member_text(w, "grad_support", "POST /v1/lab/attribute: gradients of a metric at points and features");
  jw_member_bool(w, "hooks_available", true);
  jw_member_bool(w, "graph_replay", false);
  jw_member_bool(w, "generation_only", false);
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) reply_texts(w, lists[i], NULL, 0);
  jw_member_int(w, "num_layers", model->n_layer);
}

int inference_capabilities_get(struct api_call *call, struct error *error) {
  const struct lab_model_info *models;
  const struct lab_source_info *const *sources;
  struct lab_stats stats;
  struct json_writer w;
  size_t n = lab_models(call->api->lab, &models);
  const struct lab_model_info *model = n ? &models[0] : NULL;
  if (!model || values_has(call->values, "model")) model = call_model(call, call->values, "model", error);
  if (!model) return -1;
  lab_stats(call->api->lab, &stats);
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "model", model->id);
  jw_key(&w, "models");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) jw_text(&w, models[i].id);
  jw_close(&w, ']');
  jw_member_text(&w, "backend", "steerd");
  jw_member_text(&w, "device", stats.backend);
  write_limits(&w, model, &stats);
  write_hooks(&w, model);
  write_sets(call, &w, model);
  write_endpoints(&w, model, lab_sources(call->api->lab, model, &sources) > 0);
  if (write_cache(call, &w, &stats, error) != 0 || write_points(call, &w, model, error) != 0) return -1;
  jw_close(&w, '}');
  return 0;
}

/* ---- how busy it is ----------------------------------------------------------------------------------- */

int inference_health_get(struct api_call *call, struct error *error) {
  struct lab_stats stats;
  struct json_writer w;
  lab_stats(call->api->lab, &stats);
  const char *summary = arena_printf(&call->arena, error, "%d running, %d waiting; keys and values take %lld of %lld MiB",
                                     stats.running, stats.queued, (long long)(stats.kv_used_bytes >> 20),
                                     (long long)(stats.kv_bytes >> 20));
  if (!summary) return -1;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_key(&w, "stats");
  jw_open(&w, '{');
  jw_member_text(&w, "backend", stats.backend);
  jw_member_int(&w, "threads", stats.threads);
  jw_member_int(&w, "running_requests", stats.running);
  jw_member_int(&w, "waiting_requests", stats.queued);
  jw_member_int(&w, "max_running", stats.max_sessions);
  jw_member_int(&w, "max_waiting", stats.max_queue);
  jw_member_int(&w, "kv_cache_bytes", (int64_t)stats.kv_bytes);
  jw_member_int(&w, "kv_cache_used_bytes", (int64_t)stats.kv_used_bytes);
  jw_member_int(&w, "prompt_tokens", stats.prompt_tokens);
  jw_member_int(&w, "generated_tokens", stats.new_tokens);
  jw_close(&w, '}');
  jw_member_text(&w, "summary", summary);
  jw_close(&w, '}');
  return 0;
}
