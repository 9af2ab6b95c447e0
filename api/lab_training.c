/* lab_training.c: GET /v1/lab/training: what can be trained here: which kinds of dictionary, which options each takes, or why nothing. */
#include <string.h>

#include "api/handlers.h"
#include "api/reply.h"
#include "core/training.h"

const struct field lab_training_fields[] = {{.name = NULL}};

/* What POST /v1/jobs says of its field, without the kind of job in front. */
static const char *text_of(const char *name) {
  static const char kind[] = "train: ";
  for (const struct field *field = jobs_fields; field->name; field++)
    if (!strcmp(field->name, name)) return field->text + (strncmp(field->text, kind, strlen(kind)) ? 0 : strlen(kind));
  return "";
}

static void write_kinds(struct json_writer *w, unsigned kinds) {
  jw_key(w, "architectures");
  jw_open(w, '[');
  for (int kind = 0; lab_train_kind(kind); kind++)
    if (kinds >> kind & 1) jw_text(w, lab_train_kind(kind));
  jw_close(w, ']');
}

static void write_option(struct json_writer *w, const struct lab_train_option *option) {
  jw_open(w, '{');
  jw_member_text(w, "name", option->name);
  jw_member_text(w, "type", option->whole ? "integer" : "number");
  jw_member_f64(w, "minimum", option->low);
  jw_member_f64(w, "maximum", option->high);
  write_kinds(w, option->kinds);
  jw_member_text(w, "text", text_of(option->name));
  jw_close(w, '}');
}

int lab_training_get(struct api_call *call, struct error *error) {
  struct json_writer w;
  size_t n;
  const struct lab_train_option *options = lab_train_options(&n);
  (void)error;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  jw_member_text(&w, "refused", call->request->trusted ? lab_train_refusal(call->api->lab) : TEXT_UNTRUSTED);
  write_kinds(&w, ~0u);
  jw_key(&w, "options");
  jw_open(&w, '[');
  for (size_t i = 0; i < n; i++) write_option(&w, &options[i]);
  jw_close(&w, ']');
  jw_close(&w, '}');
  return 0;
}
