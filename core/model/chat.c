/* chat.c: a chat written in a format of the table (chat_template.c), and as tokens. What has no place in a format is refused. */
#include "core/model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/unicode.h"
#include "core/model/chat_format.h"
#include "core/model/tokenizer_private.h"

/* ---- writing ------------------------------------------------------------------------------------------ */

struct writing {
  const struct chat_format *format;
  const char *bos, *eos;
  struct chat_text *out;
};

/* A piece of a row. */
static void put(struct writing *w, const char *piece) {
  for (size_t n; *piece; piece += n) {
    n = strcspn(piece, CHAT_BOS CHAT_EOS);
    buffer_append(&w->out->text, piece, n);
    if (!piece[n]) return;
    buffer_text(&w->out->text, piece[n] == CHAT_BOS[0] ? w->bos : w->eos);
    n++;
  }
}

/* What a message says. */
static void say(struct writing *w, const char *text, size_t length) {
  size_t begin = w->out->text.length;
  buffer_append(&w->out->text, text, length);
  w->out->plain[w->out->n_plain++] = (struct tokenizer_range){begin, begin + length};
}

static void say_trimmed(struct writing *w, const struct chat_message *message, bool front, bool back) {
  size_t from = front ? unicode_space_prefix(message->text, message->length) : 0, length = message->length - from;
  if (back) length -= unicode_space_suffix(message->text + from, length);
  say(w, message->text + from, length);
}

/* Answers given before, without their thoughts. */
static struct chat_message without_thoughts(const struct chat_message *message, bool lines) {
  static const char mark[] = "</think>";
  struct chat_message left = *message;
  for (size_t i = 0; i + sizeof mark - 1 <= message->length; i++)
    if (memcmp(message->text + i, mark, sizeof mark - 1) == 0) {
      left.text = message->text + i + sizeof mark - 1;
      left.length = message->length - i - (sizeof mark - 1);
    }
  while (lines && left.text != message->text && left.length && *left.text == '\n') left.text++, left.length--;
  return left;
}

static bool trims(const struct chat_format *format, enum chat_role role) {
  return format->trim == TRIM_EACH || format->trim == TRIM_MERGED || (format->trim == TRIM_ANSWERS && role == CHAT_ASSISTANT);
}

static void put_turn(struct writing *w, const struct chat_message *message) {
  const struct chat_format *format = w->format;
  const struct chat_turn *turn = &format->turns[message->role];
  struct chat_message said = *message;
  bool trim = trims(format, message->role);
  if (message->role == CHAT_SYSTEM && format->silent && message->length == 0) return;
  if (message->role == CHAT_ASSISTANT && format->thoughts != THOUGHTS_STAY)
    said = without_thoughts(message, format->thoughts == THOUGHTS_CUT_LINES);
  put(w, turn->before);
  say_trimmed(w, &said, trim, trim);
  put(w, turn->after);
}

/* A turn of the user with the system's text inside. */
static void put_merged(struct writing *w, const struct chat_message *system, const struct chat_message *user) {
  const struct chat_turn *turns = w->format->turns;
  put(w, turns[CHAT_USER].before);
  put(w, turns[CHAT_SYSTEM].before);
  say(w, system->text, system->length);
  put(w, turns[CHAT_SYSTEM].after);
  say_trimmed(w, user, w->format->trim == TRIM_EACH, trims(w->format, CHAT_USER));
  put(w, turns[CHAT_USER].after);
}

/* The turn in front that the template has of its own; it is no message's, but it is text. */
static void put_own_system(struct writing *w, const char *text) {
  const struct chat_message own = {CHAT_SYSTEM, text, strlen(text)};
  put_turn(w, &own);
}

static void put_chat(struct writing *w, const struct chat_template *chat, const struct chat_message *messages, size_t n,
                     bool quiet) {
  const struct chat_format *format = w->format;
  bool system = messages[0].role == CHAT_SYSTEM;
  bool inside = system && (format->place == SYSTEM_IN_USER || format->place == SYSTEM_IN_LAST);
  size_t host = !inside ? n : format->place == SYSTEM_IN_USER ? 1 : n - 1; /* the turn that has it inside */
  bool bos = chat->bos == CHAT_BOS_ALWAYS || (chat->bos == CHAT_BOS_NO_ANSWER && messages[0].role != CHAT_ASSISTANT);
  if (bos && !strstr(format->turns[CHAT_USER].before, CHAT_BOS)) put(w, CHAT_BOS);
  if (!system && format->place == SYSTEM_ALWAYS) put_own_system(w, "");
  if (!system && chat->system) put_own_system(w, chat->system);
  for (size_t i = inside; i < n; i++) {
    if (i == host) put_merged(w, &messages[0], &messages[i]);
    else put_turn(w, &messages[i]);
  }
  put(w, format->answer);
  if (quiet && format->quiet) put(w, format->quiet);
}

/* ---- what has no place in a format -------------------------------------------------------------------- */

static int refuse(struct error *error, size_t i, const char *text, const char *name) {
  char field[40];
  snprintf(field, sizeof field, "messages[%zu]", i);
  return error_set_field(error, ERROR_ARGUMENT, field, "'%s': %s (format '%s')", field, text, name);
}

static int check_system(const struct chat_format *format, const struct chat_message *messages, size_t n, size_t i,
                        struct error *error) {
  if (messages[i].role != CHAT_SYSTEM) return 0;
  if (format->place == SYSTEM_NONE)
    return refuse(error, i, "the model's chat template has no place for a system message; say it in the user's", format->name);
  if (format->place != SYSTEM_TURN && i > 0)
    return refuse(error, i, "a system message stands first in this model's chat template", format->name);
  if (format->alternates && n == 1)
    return refuse(error, i, "a message of the user is needed behind the system's", format->name);
  return 0;
}

static int check_order(const struct chat_format *format, const struct chat_message *messages, size_t n, struct error *error) {
  size_t skip = messages[0].role == CHAT_SYSTEM;
  for (size_t i = 0; i < n; i++) {
    if (check_system(format, messages, n, i, error) != 0) return -1;
    enum chat_role due = (i - skip) % 2 ? CHAT_ASSISTANT : CHAT_USER;
    if (format->alternates && i >= skip && messages[i].role != due)
      return refuse(error, i, due == CHAT_USER ? "a message of the user is due here: roles take turns in this model's chat template"
                                               : "one of the assistant is due here: roles take turns in this model's chat template",
                    format->name);
  }
  if (messages[n - 1].role == CHAT_ASSISTANT)
    return refuse(error, n - 1, "the last message is the assistant's, so there is nothing to answer", format->name);
  return 0;
}

static bool contains(const struct chat_message *message, const char *words) {
  return message->length && memmem(message->text, message->length, words, strlen(words));
}

/* Where thoughts are cut with their lines, answers behind the user's last question keep theirs, dressed anew: tools are being
 * called. A message that may be a tool's reply is no question. */
static int check_questions(const struct chat_format *format, const struct chat_message *messages, size_t n, struct error *error) {
  bool users = false;
  size_t behind = 0; /* the last question, counted from 1 */
  for (size_t i = 0; i < n && format->thoughts == THOUGHTS_CUT_LINES; i++) {
    users |= messages[i].role == CHAT_USER;
    if (messages[i].role == CHAT_USER && !contains(&messages[i], "<tool_response>")) behind = i + 1;
  }
  for (size_t i = behind; users && i < n; i++)
    if (messages[i].role == CHAT_ASSISTANT)
      return refuse(error, i, "behind the user's last question no answer is taken in this model's chat template: a system message or "
                              "the reply of a tool is none", format->name);
  return 0;
}

static int check_quiet(const struct chat_format *format, bool quiet, struct error *error) {
  if (!quiet || !format->muses) return 0;
  return error_set_field(error, ERROR_ARGUMENT, "enable_thinking", "'enable_thinking' is false, but models of the chat format '%s' "
                         "always think aloud", format->name);
}

int chat_write(const struct chat_template *chat, const struct chat_message *messages, size_t n, bool quiet, const char *bos,
               const char *eos, struct arena *arena, struct chat_text *out, struct error *error) {
  memset(out, 0, sizeof *out);
  buffer_init(&out->text, 0);
  if (n == 0) return error_set_field(error, ERROR_ARGUMENT, "messages", "'messages' is empty, at least one message is needed");
  if (check_order(chat->format, messages, n, error) != 0 || check_questions(chat->format, messages, n, error) != 0 ||
      check_quiet(chat->format, quiet, error) != 0)
    return -1;
  out->plain = arena_array(arena, n + 1, sizeof *out->plain, error);
  if (!out->plain) return -1;
  struct writing w = {chat->format, bos ? bos : "", eos ? eos : "", out};
  put_chat(&w, chat, messages, n, quiet);
  return buffer_check(&out->text, error);
}

/* ---- tokens ------------------------------------------------------------------------------------------- */

/* The spelling of a token, in the arena. */
static const char *spelling(const struct tokenizer *tokenizer, int32_t id, struct arena *arena, struct error *error) {
  size_t length = 0;
  const char *bytes = id >= 0 ? tokenizer_bytes(tokenizer, id, &length) : "";
  return arena_text(arena, bytes, length, error);
}

/* The id of a special token's spelling, or -1. */
static int special_id(const struct tokenizer *tokenizer, const char *text, int32_t *id, struct error *error) {
  int32_t *ids = NULL;
  size_t n = 0;
  *id = -1;
  if (!text) return 0;
  if (tokenizer_encode(tokenizer, text, strlen(text), TOKENIZE_SPECIAL, &ids, &n, error) != 0) return -1;
  if (n == 1 && tokenizer_is_special(tokenizer, ids[0])) *id = ids[0];
  free(ids);
  return 0;
}

static int keep_ids(const int32_t *from, size_t n, struct arena *arena, int32_t **out, struct error *error) {
  *out = arena_array(arena, n, sizeof **out, error);
  if (!*out) return -1;
  if (n) memcpy(*out, from, n * sizeof **out);
  return 0;
}

int chat_encode(const struct tokenizer *tokenizer, const struct chat_message *messages, size_t n, bool quiet,
                struct arena *arena, int32_t **ids, size_t *count, int32_t *ends, struct chat_text *written,
                struct error *error) {
  const struct chat_template *chat = tokenizer_chat(tokenizer);
  const char *bos = spelling(tokenizer, tokenizer_bos(tokenizer), arena, error);
  const char *eos = spelling(tokenizer, tokenizer_eos(tokenizer), arena, error);
  int32_t *made = NULL;
  memset(written, 0, sizeof *written);
  if (!bos || !eos || chat_write(chat, messages, n, quiet, bos, eos, arena, written, error) != 0 ||
      tokenizer_encode_around(tokenizer, written->text.data ? written->text.data : "", written->text.length, written->plain,
                              written->n_plain, &made, count, error) != 0)
    return -1;
  int failed = keep_ids(made, *count, arena, ids, error);
  free(made);
  return failed ? failed : special_id(tokenizer, chat->format->ends, ends, error);
}
