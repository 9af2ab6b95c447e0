/* operations.c: what the people who run the daemon ask for: health, readiness, version, metrics. */
#include <inttypes.h>
#include <stdio.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "core/archive.h"
#include "core/base/clock.h"
#include "core/base/number.h"

/* From a cached page to a long generation; doubling or so between them. */
const double api_bucket_ends[API_BUCKETS - 1] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                                 0.25,  0.5,    1,     5,    30,    120};

void count_reply(struct api *api, enum route_family family, int status, int64_t took) {
  struct api_counts *counts = &api->counts[stripe_own()];
  int bucket = 0, hundred = status / 100;
  while (bucket < API_BUCKETS - 1 && (double)took / 1e9 > api_bucket_ends[bucket]) bucket++;
  atomic_fetch_add(&counts->buckets[family][bucket], 1);
  atomic_fetch_add(&counts->nanoseconds[family], took);
  if (hundred >= 1 && hundred <= 5) atomic_fetch_add(&counts->replies[hundred], 1);
}

void count_call(struct api_call *call) {
  count_reply(call->api, call->family, call->replied ? call->status : 0, clock_ns() - call->began_ns);
}

static int write_word(struct api_call *call, const char *key, const char *value) {
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, key, value);
  jw_close(&w, '}');
  return 0;
}

/* Alive is whoever answers, unless those who wait for the engine wait for nothing. */
int health_get(struct api_call *call, struct error *error) {
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  int64_t most = call->api->options.stuck_ms;
  if (most && stats.still_seconds * 1e3 > (double)most)
    return error_set(error, ERROR_BUSY, "the engine has work and has not moved for %.3g seconds (setting 'stuck_timeout')",
                     stats.still_seconds);
  return write_word(call, "status", "healthy");
}

int ready_get(struct api_call *call, struct error *error) {
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  if (stats.draining || atomic_load(&call->api->draining)) return error_set(error, ERROR_BUSY, TEXT_CLOSING);
  if (!stats.ready) return error_set(error, ERROR_BUSY, "the models are not loaded yet");
  return write_word(call, "status", "ready");
}

int version_get(struct api_call *call, struct error *error) {
  (void)error;
  struct lab_stats stats;
  lab_stats(call->api->lab, &stats);
  struct json_writer w;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "name", "steerd");
  jw_member_text(&w, "version", STEERD_VERSION);
  jw_member_text(&w, "commit", STEERD_COMMIT);
  jw_member_text(&w, "backend", stats.backend);
  jw_member_int(&w, "threads", stats.threads);
  jw_close(&w, '}');
  return 0;
}

/* ---- /metrics: Prometheus' text format ---------------------------------------------------------------- */

static void metric(struct buffer *out, const char *name, const char *type, const char *help, double value) {
  char number[32];
  number_f64(value, number);
  buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n%s %s\n", name, help, name, type, name, number);
}

static void write_engine(struct buffer *out, const struct lab_stats *s) {
  metric(out, "steerd_ready", "gauge", "1 when requests are served.", s->ready && !s->draining);
  metric(out, "steerd_queue_length", "gauge", "Requests waiting for the engine.", s->queued);
  metric(out, "steerd_queue_limit", "gauge", "Requests that may wait.", s->max_queue);
  metric(out, "steerd_sessions_running", "gauge", "Sequences in the batch.", s->running);
  metric(out, "steerd_sessions_limit", "gauge", "Sequences that may run at once.", s->max_sessions);
  metric(out, "steerd_engine_done_total", "counter", "Engine requests that finished.", (double)s->requests_done);
  metric(out, "steerd_engine_failed_total", "counter", "Engine requests that failed.", (double)s->requests_failed);
  metric(out, "steerd_engine_cancelled_total", "counter", "Engine requests whose client went away.",
         (double)s->requests_cancelled);
  metric(out, "steerd_prompt_tokens_total", "counter", "Tokens read.", (double)s->prompt_tokens);
  metric(out, "steerd_spared_tokens_total", "counter", "Tokens of prompts that were remembered, and not read again.",
         (double)s->spared_tokens);
  metric(out, "steerd_new_tokens_total", "counter", "Tokens generated.", (double)s->new_tokens);
  metric(out, "steerd_steps_total", "counter", "Batches computed.", (double)s->steps);
  metric(out, "steerd_step_rows_total", "counter", "Rows computed in them.", (double)s->step_rows);
  metric(out, "steerd_busy_seconds_total", "counter", "Time inside batches.", s->busy_seconds);
  metric(out, "steerd_service_seconds_mean", "gauge", "Mean time of recent engine requests.", s->mean_service_seconds);
  metric(out, "steerd_kv_bytes", "gauge", "Memory for keys and values.", (double)s->kv_bytes);
  metric(out, "steerd_kv_used_bytes", "gauge", "Of it, in use.", (double)s->kv_used_bytes);
  metric(out, "steerd_dict_budget_bytes", "gauge", "Memory that prepared encoders may take; 0: no limit.",
         (double)s->dict_budget);
  metric(out, "steerd_dict_encoder_bytes", "gauge", "What they take.", (double)s->dict_encoder_bytes);
  metric(out, "steerd_dict_prepared_total", "counter", "Encoders prepared.", (double)s->dict_encoders_prepared);
  metric(out, "steerd_dict_dropped_total", "counter", "Of them, dropped for others.", (double)s->dict_encoders_dropped);
}

static void write_store(struct buffer *out, struct store *store) {
  if (!store) return;
  metric(out, "steerd_store_writable", "gauge", "0 when the last write to the store failed, or its file is not in its place.", !store_degraded(store));
}

static void write_porch(struct buffer *out, const struct api *api) {
  if (!api->read_porch) return;
  struct api_porch porch = {0};
  api->read_porch(api->porch_context, &porch);
  metric(out, "steerd_connections", "gauge", "Open connections.", (double)porch.connections);
  metric(out, "steerd_http_requests_total", "counter", "HTTP requests received.", (double)porch.requests);
  metric(out, "steerd_http_refused_total", "counter", "Requests turned away before their body.", (double)porch.refused);
  metric(out, "steerd_http_bytes_in_total", "counter", "Bytes of bodies received.", (double)porch.bytes_in);
  metric(out, "steerd_http_bytes_out_total", "counter", "Bytes of bodies sent.", (double)porch.bytes_out);
  metric(out, "steerd_http_held_bytes", "gauge", "Bytes of large replies that wait for their clients.", (double)porch.held);
  metric(out, "steerd_http_too_many_total", "counter", "Requests refused because their client sent too many (429).", (double)porch.too_many);
  metric(out, "steerd_http_wrong_keys_total", "counter", "Requests refused for their key.", (double)porch.wrong_keys);
}

static void write_kept(struct buffer *out, struct api *api) {
  struct kept_counts kept = kept_count(&api->kept);
  metric(out, "steerd_kept_bytes", "gauge", "Finished replies in memory.", (double)kept.bytes);
  metric(out, "steerd_kept_hits_total", "counter", "Requests answered with one.", (double)kept.hits);
  metric(out, "steerd_kept_misses_total", "counter", "GETs for which none was there.", (double)kept.misses);
}

/* Of a counter in the first stripe, with the same one of all others. */
static int64_t sum(const _Atomic int64_t *counter) {
  const size_t stride = sizeof(struct api_counts) / sizeof *counter;
  int64_t total = 0;
  for (size_t i = 0; i < STRIPES; i++) total += atomic_load(counter + i * stride);
  return total;
}

static void write_replies(struct buffer *out, const struct api_counts *counts) {
  buffer_text(out, "# HELP steerd_replies_total Replies by class of status.\n# TYPE steerd_replies_total counter\n");
  for (int i = 1; i <= 5; i++)
    buffer_printf(out, "steerd_replies_total{class=\"%dxx\"} %" PRId64 "\n", i, sum(&counts->replies[i]));
}

static void write_latency(struct buffer *out, const struct api_counts *counts, enum route_family family) {
  const char *word = route_family_word(family);
  int64_t total = 0;
  char number[32];
  for (int i = 0; i < API_BUCKETS; i++) {
    total += sum(&counts->buckets[family][i]);
    if (i < API_BUCKETS - 1)
      number_f64(api_bucket_ends[i], number);
    else
      snprintf(number, sizeof number, "+Inf");
    buffer_printf(out, "steerd_request_seconds_bucket{family=\"%s\",le=\"%s\"} %" PRId64 "\n", word, number, total);
  }
  number_f64((double)sum(&counts->nanoseconds[family]) / 1e9, number);
  buffer_printf(out, "steerd_request_seconds_sum{family=\"%s\"} %s\n", word, number);
  buffer_printf(out, "steerd_request_seconds_count{family=\"%s\"} %" PRId64 "\n", word, total);
}

int metrics_get(struct api_call *call, struct error *error) {
  (void)error;
  struct api *api = call->api;
  struct lab_stats stats;
  lab_stats(api->lab, &stats);
  call->content_type = "text/plain; version=0.0.4; charset=utf-8";
  struct buffer *out = &call->body;
  metric(out, "steerd_uptime_seconds", "gauge", "Since the start.", (double)(clock_ns() - api->started_ns) / 1e9);
  metric(out, "steerd_requests_in_flight", "gauge", "Calls begun and not ended.", api_in_flight(api));
  write_engine(out, &stats);
  write_porch(out, api);
  write_kept(out, api);
  write_store(out, lab_store(api->lab));
  write_replies(out, api->counts);
  buffer_text(out, "# HELP steerd_request_seconds From the whole request to the end of its reply.\n"
                   "# TYPE steerd_request_seconds histogram\n");
  for (int family = 0; family < FAMILY_COUNT; family++) write_latency(out, api->counts, family);
  return 0;
}
