/* steer_texts.c: what answers of steered requests share that generate one or two texts (lab_complete): when there is something to
 * tell, whole or as events, and how log-probabilities and turns of chats are written. Knows no route. */
#include <string.h>

#include "api/steer.h"
#include "core/base/unicode.h"

const struct field steer_message_rows[] = {
    {"role", NULL, FIELD_CHOICE, .required = true, .choices = "user assistant system model developer", .text = "Who says it."},
    {"content", NULL, FIELD_TEXT, .required = true, .cap = CAP_PROMPT, .text = "What is said."},
    {.name = NULL}};

/* ---- in ----------------------------------------------------------------------------------------------- */

int steer_read_chat(struct api_call *call, const struct lab_model_info *model, const char *field, bool quiet, struct lab_chat *out,
                    struct error *error) {
  const struct values *values = call->values;
  size_t n = values_count(values, field);
  struct lab_message *messages = arena_array(&call->arena, n, sizeof *messages, error);
  if (!messages) return -1;
  for (size_t i = 0; i < n; i++) {
    const struct values *one = values_at(values, field, i);
    messages[i].role = values_text(one, "role", NULL);
    messages[i].text = values_text(one, "content", &messages[i].length);
  }
  struct error own = ERROR_INIT;
  if (lab_chat(call->api->lab, model, messages, n, quiet, &call->arena, out, &own) == 0) return 0;
  return error_set_field(error, own.code, field, "%s: %s", field, own.text);
}

/* ---- out ---------------------------------------------------------------------------------------------- */

static void write_scored(struct json_writer *w, const struct lab_scored *scored, bool with_top) {
  jw_open(w, '{');
  jw_key(w, "token");
  jw_string(w, scored->bytes, scored->n_bytes);
  jw_member_f32(w, "logprob", scored->logprob);
  if (with_top) {
    jw_key(w, "topLogprobs");
    jw_open(w, '[');
    for (int i = 0; i < scored->n_top; i++) write_scored(w, &scored->top[i], false);
    jw_close(w, ']');
  }
  jw_close(w, '}');
}

void steer_write_logprobs(struct json_writer *w, const struct lab_news *news) {
  jw_open(w, '[');
  for (size_t i = 0; i < news->n_scored; i++) write_scored(w, &news->scored[i], true);
  jw_close(w, ']');
}

static void write_turn(struct json_writer *w, const char *text, size_t length, const char *role) {
  jw_open(w, '{');
  jw_key(w, "content");
  jw_string(w, text, length);
  jw_member_text(w, "role", role);
  jw_close(w, '}');
}

void steer_write_turns(struct json_writer *w, const struct values *values, const char *field, const struct lab_news *news) {
  jw_key(w, "chatTemplate");
  jw_open(w, '[');
  for (size_t i = 0; i < values_count(values, field); i++) {
    const struct values *one = values_at(values, field, i);
    size_t n;
    const char *text = values_text(one, "content", &n);
    write_turn(w, text, n, values_text(one, "role", NULL));
  }
  if (news) {
    size_t front = unicode_space_prefix(news->text, news->length), length = news->length - front;
    length -= unicode_space_suffix(news->text + front, length);
    if (length) write_turn(w, news->text + front, length, "assistant");
  }
  jw_close(w, ']');
}

int steer_write_raw(struct json_writer *w, const struct lab_chat *chat, const struct lab_news *news, struct arena *arena,
                    struct error *error) {
  char *raw = arena_alloc(arena, chat->length + news->length + 1, error);
  if (!raw) return -1;
  memcpy(raw, chat->text, chat->length);
  memcpy(raw + chat->length, news->text, news->length);
  jw_key(w, "raw");
  jw_string(w, raw, chat->length + news->length);
  return 0;
}

/* ---- when the engine has something -------------------------------------------------------------------- */

static int read_news(struct api_call *call, struct arena *arena, struct lab_news *news, struct error *error) {
  const struct steer_texts *texts = call->plan;
  for (size_t i = 0; i < texts->args.n_prompts; i++) {
    struct lab_seen all = {0};
    if (lab_complete_read(call->job, i, &all, arena, &news[i], error) != 0) return -1;
  }
  return 0;
}

static int finish(struct api_call *call, struct error *error) {
  const struct steer_texts *texts = call->plan;
  struct lab_news news[STEER_TEXTS_MOST];
  if (read_news(call, &call->arena, news, error) != 0) return -1;
  return texts->write(call, &call->body, news, true, &call->arena, error);
}

static bool has_news(struct steer_texts *texts, const struct lab_news *news) {
  bool any = false;
  for (size_t i = 0; i < texts->args.n_prompts; i++) {
    any = any || news[i].n_tokens != texts->written[i];
    texts->written[i] = news[i].n_tokens;
  }
  return any;
}

/* One event; its memory is its own, so that a long stream holds one event at a time. */
static int frame(struct api_call *call, struct buffer *out, bool last, struct error *error) {
  struct steer_texts *texts = call->plan;
  struct lab_news news[STEER_TEXTS_MOST];
  struct arena arena;
  arena_init(&arena, call->arena.limit);
  int failed = read_news(call, &arena, news, error);
  if (!failed && (has_news(texts, news) || last)) {
    buffer_text(out, "data: ");
    failed = texts->write(call, out, news, last, &arena, error);
    buffer_text(out, "\n\n");
  }
  arena_clear(&arena);
  return failed;
}

int steer_texts_start(struct api_call *call, struct steer_texts *texts, struct error *error) {
  for (size_t i = 0; i < STEER_TEXTS_MOST; i++) texts->written[i] = -1;
  texts->args.prompts = texts->prompts;
  texts->args.prompt_fields = texts->fields;
  texts->args.plain = texts->plain;
  texts->args.n = 1;
  call->plan = texts;
  call->stream = values_bool(call->values, "stream");
  call->finish = finish;
  call->frame = frame;
  return lab_complete(call->api->lab, &texts->args, call->waker, &call->job, error);
}
