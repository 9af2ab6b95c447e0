/* chat.c: the verb "chat": messages as the tokens that a model reads. */
#include "core/complete.h"

#include <stdio.h>
#include <string.h>

#include "core/lab/lab_int.h"
#include "core/model/chat.h"

static const char *format_name(const void *of, size_t i) {
  (void)of;
  return chat_known_format(i);
}

static int refuse_model(const struct lab_model_info *info, const struct chat_template *chat, struct error *error) {
  char known[256];
  if (!chat->present)
    return error_set_field(error, ERROR_ARGUMENT, "messages", "model '%.64s' has no chat template, so it reads no chats; "
                           "continue a text with /v1/completions", info->id);
  lab_list_ids(known, sizeof known, chat_known_formats(), format_name, NULL);
  return error_set_field(error, ERROR_ARGUMENT, "messages", "the chat template of model '%.64s' is of no format that is known here "
                         "(%s); write the chat as the model wants it and send it to /v1/completions", info->id, known);
}

/* Roles by their usual names; "developer" is a newer word for the system, "model" another one for the assistant. */
static int role_of(const char *word, enum chat_role *out) {
  static const struct {
    const char *word;
    enum chat_role role;
  } roles[] = {{"system", CHAT_SYSTEM}, {"developer", CHAT_SYSTEM}, {"user", CHAT_USER}, {"assistant", CHAT_ASSISTANT},
               {"model", CHAT_ASSISTANT}};
  for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
    if (strcmp(word, roles[i].word) == 0) return *out = roles[i].role, 0;
  return -1;
}

static int read_messages(const struct lab_message *messages, size_t n, struct arena *arena, struct chat_message **out,
                         struct error *error) {
  *out = arena_array(arena, n, sizeof **out, error);
  for (size_t i = 0; *out && i < n; i++) {
    char field[40];
    (*out)[i] = (struct chat_message){.text = messages[i].text, .length = messages[i].length};
    if (role_of(messages[i].role, &(*out)[i].role) == 0) continue;
    snprintf(field, sizeof field, "messages[%zu].role", i);
    return error_set_field(error, ERROR_ARGUMENT, field, "'%s' is '%.40s'; roles are system, developer, user, assistant and model",
                           field, messages[i].role);
  }
  return *out ? 0 : -1;
}

static int keep(const struct chat_text *written, const int32_t *ids, struct arena *arena, struct lab_chat *out,
                struct error *error) {
  int64_t *wide = arena_array(arena, out->n_ids, sizeof *wide, error);
  out->text = arena_text(arena, written->text.data ? written->text.data : "", written->text.length, error);
  out->length = written->text.length;
  for (size_t i = 0; wide && i < out->n_ids; i++) wide[i] = ids[i];
  out->ids = wide;
  return wide && out->text ? 0 : -1;
}

int lab_chat(const struct lab *lab, const struct lab_model_info *info, const struct lab_message *messages, size_t n, bool quiet,
             struct arena *arena, struct lab_chat *out, struct error *error) {
  const struct tokenizer *tokenizer = lab_model_of(lab, info)->model->tokenizer;
  const struct chat_template *chat = tokenizer_chat(tokenizer);
  struct chat_message *read;
  struct chat_text written = {0};
  int32_t *ids;
  if (!chat->format) return refuse_model(info, chat, error);
  if (read_messages(messages, n, arena, &read, error) != 0) return -1;
  int failed = chat_encode(tokenizer, read, n, quiet, arena, &ids, &out->n_ids, &out->ends_turn, &written, error);
  if (!failed) failed = keep(&written, ids, arena, out, error);
  buffer_clear(&written.text);
  return failed;
}
