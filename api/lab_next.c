/* lab_next.c: POST /v1/lab/next: the next-token table of texts, as they are and with edits. */
#include "api/handlers.h"
#include "api/lab_common.h"

const struct field lab_next_fields[] = {
    MODEL_ROW,
    INPUTS_ROWS,
    EDITS_ROW,
    {"topK", "k", FIELD_INT, .fallback = "10", .max = 1000, .text = "Rows of the table."},
    {"answers", "answer", FIELD_TEXTS, .min = 1, .max = 128, .text = "Tokens to tell rank and probability of."},
    {"prependSpace", NULL, FIELD_BOOL, .fallback = "true",
     .text = "A space in front of answers that do not begin with one."},
    {"loss", NULL, FIELD_BOOL, .fallback = "false", .text = "Also the mean loss over the text."},
    {.name = NULL}};

static void write_side(struct json_writer *w, const char *key, const struct lab_next_table *table,
                       const struct lab_next_result *result) {
  jw_key(w, key);
  jw_open(w, '{');
  lab_write_table(w, "top", table->top, (size_t)result->top_k);
  lab_write_table(w, "answers", table->answers, result->n_answers);
  jw_member_f64(w, "loss", table->loss);
  jw_close(w, '}');
}

static void write_next(struct json_writer *w, const void *of, size_t t) {
  const struct lab_next_result *result = of;
  const struct lab_next_text *text = &result->texts[t];
  jw_open(w, '{');
  lab_write_tokens(w, text->tokens, text->ids, text->n_tokens);
  write_side(w, "before", &text->before, result);
  if (result->edited)
    write_side(w, "after", &text->after, result);
  else
    jw_member_null(w, "after");
  jw_close(w, '}');
}

int lab_next_finish(struct api_call *call, struct error *error) {
  (void)error;
  const struct lab_next_result *result = lab_next_result(call->job);
  return lab_write_texts(call, result->n_texts, write_next, result);
}

int lab_next_post(struct api_call *call, struct error *error) {
  const struct values *values = call->values;
  struct lab_next_args args = {.model = call_model(call, values, "modelId", error), .bos = lab_read_bos(values),
                               .top_k = (int)values_int(values, "topK"), .loss = values_bool(values, "loss"),
                               .prepend_space = values_bool(values, "prependSpace")};
  struct lab_input *answers, *inputs;
  bool many;
  if (!args.model || lab_read_inputs(call, values, &inputs, &args.n_inputs, &many, error) != 0 ||
      edits_read(call, values, "edits", "", &args.edits, &args.n_edits, error) != 0 ||
      lab_read_answers(call, values, "answers", &answers, &args.n_answers, error) != 0)
    return -1;
  args.answers = answers;
  args.inputs = inputs;
  call->finish = lab_next_finish;
  return lab_next(call->api->lab, &args, call->waker, &call->job, error);
}
