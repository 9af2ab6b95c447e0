/* vector_run.c: dot products of one vector with the rows of a point over texts. One run of the laboratory; who asks says how it is told. */
#include "api/vector_run.h"

#include <string.h>

/* The row at token `at` of a text. */
static int read_row(struct api_call *call, const struct lab_run_text *text, size_t at, float *row, size_t n, struct error *error) {
  size_t bytes = n * sizeof *row;
  return lab_run_read(call->job, text->offsets[0] + (int64_t)(at * bytes), row, bytes, error);
}

static int write_products(struct api_call *call, struct json_writer *w, const struct lab_run_text *text, float *row,
                          struct error *error) {
  const struct vector_run *run = call->plan;
  float *values = arena_array(&call->arena, text->n_tokens, sizeof *values, error);
  struct lab_feature_values out = {.values = values};
  if (!values) return -1;
  for (size_t i = 0; i < text->n_tokens; i++) {
    double sum = 0;
    if (read_row(call, text, i, row, run->n, error) != 0) return -1;
    for (size_t k = 0; k < run->n; k++) sum += (double)row[k] * (double)run->values[k];
    values[i] = (float)sum;
    if (i && values[i] <= out.max) continue;
    out.max = values[i];
    out.max_position = (int64_t)i;
  }
  return run->write(call, w, text, &out, error);
}

static int write_all(struct api_call *call, struct json_writer *w, const struct lab_run_result *result, struct error *error) {
  const struct vector_run *run = call->plan;
  float *row = arena_array(&call->arena, run->n, sizeof *row, error);
  if (!row) return -1;
  for (size_t t = 0; t < result->n_texts; t++)
    if (write_products(call, w, &result->texts[t], row, error) != 0) return -1;
  return 0;
}

static int finish(struct api_call *call, struct error *error) {
  const struct vector_run *run = call->plan;
  const struct lab_run_result *result = lab_run_result(call->job);
  if ((size_t)result->tensors[0].width != run->n || result->tensors[0].square)
    return error_set_field(error, ERROR_ARGUMENT, run->vector_field, "'%s' has %zu numbers, a row of '%s' %lld", run->vector_field, run->n,
                           result->tensors[0].name, (long long)result->tensors[0].width);
  struct json_writer w;
  jw_init(&w, &call->body);
  w.snake = call_speaks_snake(call);
  if (run->many && !run->rows) {
    jw_open(&w, '{');
    jw_key(&w, "results");
  }
  if (run->many) jw_open(&w, '[');
  if (write_all(call, &w, result, error) != 0) return -1;
  if (run->many) jw_close(&w, ']');
  if (run->many && !run->rows) jw_close(&w, '}');
  return 0;
}

/* The texts as inputs that errors call by the names they have here. */
static struct lab_input *name_texts(struct api_call *call, const struct vector_run *run, struct error *error) {
  struct lab_input *inputs = arena_array(&call->arena, run->n_texts, sizeof *inputs, error);
  for (size_t i = 0; inputs && i < run->n_texts; i++) {
    inputs[i].text = run->texts[i].text;
    inputs[i].length = run->texts[i].length;
    inputs[i].field = run->many ? arena_printf(&call->arena, error, "%s[%zu]", run->field, i) : run->field;
    if (!inputs[i].field) return NULL;
  }
  return inputs;
}

int vector_run_start(struct api_call *call, struct vector_run *run, struct error *error) {
  const char *const *points = &run->hook;
  if (strpbrk(run->hook, "*?"))
    return error_set_field(error, ERROR_ARGUMENT, run->hook_field, "'%s' must be one point, found '%.64s'", run->hook_field, run->hook);
  struct lab_input *inputs = name_texts(call, run, error);
  if (!inputs) return -1;
  struct lab_run_args args = {.model = run->model, .inputs = inputs, .n_inputs = run->n_texts, .points = points, .n_points = 1,
                              .bos = run->bos, .stop_at_layer = INT64_MIN};
  call->plan = run;
  call->finish = finish;
  struct error own = ERROR_INIT;
  if (lab_run(call->api->lab, &args, call->waker, &call->job, &own) == 0) return 0;
  bool point = strncmp(own.field, "points", 6) == 0;
  return error_set_field(error, own.code, point ? run->hook_field : own.field, "%s", own.text);
}
