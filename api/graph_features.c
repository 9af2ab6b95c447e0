/* graph_features.c: what viewers of graphs show of a node: GET /v1/graph-features/{model}/{set}/{feature}: a feature as circuit-tracer's files have it
 * and Neuronpedia's viewer reads it from `feature_json_base_url`. Features are called by one number there, layer and index paired. Of what such a file may have,
 * `quantile_values` are left out: statistics are bars, and viewers take what is there for exact. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "core/base/number.h"

enum { EXAMPLES_MOST = 200 };
#define PAIR_MOST ((int64_t)1 << 61)

/* ---- which ---- */

/* The two numbers behind one: pair = (a + b)(a + b + 1) / 2 + b. */
static void unpair(int64_t pair, int64_t *a, int64_t *b) {
  int64_t sum = (int64_t)((sqrt(8 * (double)pair + 1) - 1) / 2);
  while (sum * (sum + 1) / 2 > pair) sum--; /* a double has fewer digits than the pair */
  while ((sum + 1) * (sum + 2) / 2 <= pair) sum++;
  *b = pair - sum * (sum + 1) / 2;
  *a = sum - *b;
}

/* "781859" and "781859.json". */
static int read_pair(struct api_call *call, int64_t *layer, int64_t *index, struct error *error) {
  const char *part = call_part(call, "feature", error);
  int64_t pair;
  if (!part) return -1;
  size_t digits = strspn(part, "0123456789");
  const char *text = arena_text(&call->arena, part, digits, error);
  if (!text) return -1;
  if (digits && (!part[digits] || strcmp(part + digits, ".json") == 0) && number_parse_int(text, &pair) && pair < PAIR_MOST) return unpair(pair, layer, index), 0;
  return error_set_field(error, ERROR_NOT_FOUND, "feature", "'%.64s' is no feature of a graph: layer L and index I are (L + I)(L + I + 1) / 2 + I, with .json behind it "
                         "or without", part);
}

static int find_place(struct api_call *call, struct place *out, int64_t *index, struct error *error) {
  const char *model = call_part(call, "model", error), *set = model ? call_part(call, "set", error) : NULL;
  int64_t layer;
  if (!set || read_pair(call, &layer, index, error) != 0) return -1;
  const char *source = arena_printf(&call->arena, error, "%lld-%s", (long long)layer, set);
  if (!source || call_known_place(call, model, source, "feature", out, error) != 0) return -1;
  return call_check_known(call, out->source, *index, "feature", error);
}

/* ---- out ---- */

static void write_example(struct json_writer *w, const struct store_example *example) {
  jw_open(w, '{');
  jw_key(w, "tokens");
  jw_open(w, '[');
  for (size_t i = 0; i < example->n; i++) jw_string(w, example->tokens[i].text, example->tokens[i].length);
  jw_close(w, ']');
  jw_key(w, "tokens_acts_list");
  jw_f32_array(w, example->values, example->n);
  jw_member_int(w, "train_token_ind", example->qualifying >= 0 ? example->qualifying : example->max_index);
  jw_member_bool(w, "is_repeated_datapoint", false);
  jw_close(w, '}');
}

/* Those of the largest, and those of which nobody has said, are of no interval. */
static bool has_interval(const struct store_example *example) { return example->bin_min >= 0; }

static bool same_group(const struct store_example *a, const struct store_example *b) {
  if (!has_interval(a) || !has_interval(b)) return has_interval(a) == has_interval(b);
  return a->bin_min == b->bin_min && a->bin_max == b->bin_max;
}

static void write_group(struct json_writer *w, const struct store_feature *stored, size_t first) {
  const struct store_example *one = &stored->examples[first];
  char name[80] = "Top activations", low[24], high[24];
  number_f32(one->bin_min, low);
  number_f32(one->bin_max, high);
  if (has_interval(one)) snprintf(name, sizeof name, "Activations from %s to %s", low, high);
  jw_open(w, '{');
  jw_member_text(w, "quantile_name", name);
  jw_key(w, "examples");
  jw_open(w, '[');
  for (size_t i = first; i < stored->n_examples; i++)
    if (same_group(one, &stored->examples[i])) write_example(w, &stored->examples[i]);
  jw_close(w, ']');
  jw_close(w, '}');
}

static void write_groups(struct json_writer *w, const struct store_feature *stored) {
  jw_key(w, "examples_quantiles");
  jw_open(w, '[');
  for (size_t i = 0; i < stored->n_examples; i++) {
    size_t before = 0;
    while (before < i && !same_group(&stored->examples[before], &stored->examples[i])) before++;
    if (before == i) write_group(w, stored, i);
  }
  jw_close(w, ']');
}

static void write_tokens(struct json_writer *w, const char *key, const struct store_tokens *tokens) {
  jw_key(w, key);
  jw_open(w, '[');
  for (size_t i = 0; i < tokens->n; i++) jw_string(w, tokens->texts[i].text, tokens->texts[i].length);
  jw_close(w, ']');
}

static int write_feature(struct api_call *call, const struct lab_source_info *source, const struct store_feature *stored) {
  struct json_writer w;
  bool counted = stored->groups & STORE_STATISTICS;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "transcoder_id", source->id);
  jw_member_int(&w, "index", stored->index);
  write_groups(&w, stored);
  write_tokens(&w, "top_logits", &stored->top);
  write_tokens(&w, "bottom_logits", &stored->bottom);
  jw_member_f64(&w, "act_min", 0);
  jw_member_f64(&w, "act_max", counted && stored->max > 0 ? (double)stored->max : stored->n_examples ? (double)stored->examples[0].max_value : 1);
  jw_key(&w, "histogram");
  jw_f32_array(&w, stored->activity.heights, stored->activity.n);
  jw_member_f64(&w, "activation_frequency", counted && stored->rate >= 0 ? stored->rate : 0);
  jw_close(&w, '}');
  return 0;
}

static int finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct place *place = call->plan;
  return write_feature(call, place->source, &lab_feature_result(call->job)->stored);
}

/* A feature of which the store alone knows. */
static int write_stored(struct api_call *call, const struct place *place, uint32_t index, struct error *error) {
  struct store_feature stored;
  int found = store_feature_get(lab_store(call->api->lab), place->source->stored, index, EXAMPLES_MOST, &call->arena, &stored, error);
  if (found == 0) stored = (struct store_feature){.index = index};
  return found < 0 ? -1 : write_feature(call, place->source, &stored);
}

int graph_feature_get(struct api_call *call, struct error *error) {
  struct place *place = arena_alloc(&call->arena, sizeof *place, error);
  int64_t index;
  if (!place || find_place(call, place, &index, error) != 0) return -1;
  if (place->source->stored) return write_stored(call, place, (uint32_t)index, error);
  call->plan = place;
  call->finish = finish;
  return lab_feature(call->api->lab, place->source, index, EXAMPLES_MOST, call->waker, &call->job, error);
}
