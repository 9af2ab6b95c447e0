/* chat.c: the table of chat formats, and how a chat is written in one. Facts of the formats are data; a new one is a row. What
 * a template does beyond plain turns (tools, pictures, thinking aloud) is not served. */
#include "core/model/chat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/unicode.h"
#include "core/model/tokenizer_private.h"

#define BOS "\1" /* in the rows: the tokens' spelling */
#define EOS "\2"

enum { MARKS = 4 };

enum system_place {
  SYSTEM_TURN,    /* a turn of its own, anywhere */
  SYSTEM_ALWAYS,  /* one turn in front, there also when nothing is said */
  SYSTEM_IN_USER, /* the first one inside the first turn of the user */
  SYSTEM_NONE
};

enum trim { TRIM_NO, TRIM_EACH, TRIM_MERGED }; /* MERGED: the user's text with the system's in front */

struct chat_format {
  const char *name;
  const char *has[MARKS], *lacks[MARKS]; /* of the template's text, \n in it read as a line's end */
  struct turn {
    const char *before, *after;
  } turns[CHAT_ROLES]; /* SYSTEM_IN_USER: around it, in front of the user's text */
  const char *answer;  /* opens the answer */
  const char *ends;    /* ends one, beside EOS; NULL: EOS alone */
  enum system_place place;
  enum trim trim;
  bool alternates; /* user, assistant, user, ...; else any order */
  bool thinks;     /* earlier answers lose what stands before </think> */
  bool speaks;     /* the template may say something where no system message does */
};

#define IM(role) "<|im_start|>" role "\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"

/* The first row that fits counts. */
static const struct chat_format formats[] = {
    {"qwen-3", {"<|im_start|>", "enable_thinking", "</think>", "last_query_index"}, {"custom_instructions"},
     {{IM("system"), "<|im_end|>\n"}, {IM("user"), "<|im_end|>\n"}, {IM("assistant"), "<|im_end|>\n"}},
     .answer = IM("assistant"), .ends = "<|im_end|>", .thinks = true},
    {"phi-4", {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}, {"trim", "strip("},
     {{"<|im_start|>system<|im_sep|>", "<|im_end|>"}, {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
      {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"}},
     .answer = "<|im_start|>assistant<|im_sep|>", .ends = "<|im_end|>", .alternates = true},
    {"chatml", {"<|im_start|>", "<|im_end|>"}, {"think>", "<|im_sep|>", "trim", "strip("},
     {{IM("system"), "<|im_end|>\n"}, {IM("user"), "<|im_end|>\n"}, {IM("assistant"), "<|im_end|>\n"}},
     .answer = IM("assistant"), .ends = "<|im_end|>", .speaks = true},
    {"llama-3.1", {"<|start_header_id|>", "<|eot_id|>", "Cutting Knowledge Date: December 2023\n", "26 Jul 2024"}, {NULL},
     {{HEADER("system") "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n", "<|eot_id|>"},
      {HEADER("user"), "<|eot_id|>"}, {HEADER("assistant"), "<|eot_id|>"}},
     .answer = HEADER("assistant"), .ends = "<|eot_id|>", .place = SYSTEM_ALWAYS, .trim = TRIM_EACH},
    {"llama-3", {"<|start_header_id|>", "<|eot_id|>", "| trim"}, {"Cutting Knowledge Date", "tools"},
     {{HEADER("system"), "<|eot_id|>"}, {HEADER("user"), "<|eot_id|>"}, {HEADER("assistant"), "<|eot_id|>"}},
     .answer = HEADER("assistant"), .ends = "<|eot_id|>", .trim = TRIM_EACH},
    {"llama-2", {"<<SYS>>\n", "bos_token + '[INST] '", "content.strip() + ' [/INST]'", "' ' + eos_token"}, {"You are", "Vous"},
     {{"<<SYS>>\n", "\n<</SYS>>\n\n"}, {BOS "[INST] ", " [/INST]"}, {" ", " " EOS}},
     .answer = "", .place = SYSTEM_IN_USER, .trim = TRIM_MERGED, .alternates = true},
    {"mistral-1", {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token + ' '"}, {"SYS", "system"},
     {{NULL, NULL}, {"[INST] ", " [/INST]"}, {"", EOS " "}}, .answer = "", .place = SYSTEM_NONE, .alternates = true},
    {"mistral", {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token"}, {"SYS", "system"},
     {{NULL, NULL}, {"[INST] ", " [/INST]"}, {"", EOS}}, .answer = "", .place = SYSTEM_NONE, .alternates = true},
    {"gemma-3", {"<start_of_turn>", "<end_of_turn>\n", "first_user_prefix", "['content'] + '\n\n'"}, {NULL},
     {{"", "\n\n"}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"}},
     .answer = "<start_of_turn>model\n", .ends = "<end_of_turn>", .place = SYSTEM_IN_USER, .trim = TRIM_EACH, .alternates = true},
    {"gemma", {"<start_of_turn>", "<end_of_turn>\n", "System role not supported", "| trim"}, {NULL},
     {{NULL, NULL}, {"<start_of_turn>user\n", "<end_of_turn>\n"}, {"<start_of_turn>model\n", "<end_of_turn>\n"}},
     .answer = "<start_of_turn>model\n", .ends = "<end_of_turn>", .place = SYSTEM_NONE, .trim = TRIM_EACH, .alternates = true},
    {"phi-3", {"<|end|>\n", "<|assistant|>\n", "<|system|>"}, {"trim", "strip(", "tools"},
     {{"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}},
     .answer = "<|assistant|>\n", .ends = "<|end|>"},
    {"phi-3", {"'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n'", "<|assistant|>\n"}, {"trim", "tools"},
     {{"<|system|>\n", "<|end|>\n"}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}},
     .answer = "<|assistant|>\n", .ends = "<|end|>"},
    {"phi-3-first", {"'<|user|>' + '\n' + message['content'] + '<|end|>' + '\n' + '<|assistant|>' + '\n'"}, {"system", "tools"},
     {{NULL, NULL}, {"<|user|>\n", "<|end|>\n"}, {"<|assistant|>\n", "<|end|>\n"}},
     .answer = "<|assistant|>\n", .ends = "<|end|>", .place = SYSTEM_NONE, .alternates = true},
    {"zephyr", {"'<|user|>\n' + message['content'] + eos_token }}\n", "{{ '<|assistant|>' }}\n", "'<|system|>\n'"}, {"trim"},
     {{"<|system|>\n", EOS "\n"}, {"<|user|>\n", EOS "\n"}, {"<|assistant|>\n", EOS "\n"}}, .answer = "<|assistant|>\n"},
};

/* ---- recognising -------------------------------------------------------------------------------------- */

/* Templates spell a line's end either way. */
static char *plain_lines(const char *text, struct error *error) {
  char *out = malloc(strlen(text) + 1), *to = out;
  if (!out) return error_memory(error, strlen(text)), NULL;
  for (; *text; text++) {
    bool line = text[0] == '\\' && text[1] == 'n';
    *to++ = line ? '\n' : *text;
    text += line;
  }
  *to = '\0';
  return out;
}

static bool fits(const struct chat_format *format, const char *text) {
  for (int i = 0; i < MARKS; i++)
    if ((format->has[i] && !strstr(text, format->has[i])) || (format->lacks[i] && strstr(text, format->lacks[i]))) return false;
  return true;
}

/* What a ChatML template says where no system message does: literal text up to the end of that turn. *ok: there is none, or it
 * was found. */
static char *default_system(const char *text, bool *ok, struct error *error) {
  static const char begin[] = IM("system"), end[] = "<|im_end|>";
  for (const char *at = strstr(text, begin); at; at = strstr(at, begin)) {
    at += sizeof begin - 1;
    size_t length = strcspn(at, "'\"{<");
    if (length == 0 || strncmp(at + length, end, sizeof end - 1) != 0) continue;
    char *system = malloc(length + 1);
    if (!system) return error_memory(error, length), NULL;
    memcpy(system, at, length);
    system[length] = '\0';
    return system;
  }
  *ok = !strstr(text, "You are"); /* said in another way */
  return NULL;
}

int chat_template_read(struct chat_template *chat, const char *text, struct error *error) {
  struct error own = ERROR_INIT;
  char *plain = plain_lines(text, error);
  if (!plain) return -1;
  *chat = (struct chat_template){.present = true, .bos = strstr(plain, "bos_token") != NULL};
  for (size_t i = 0; i < sizeof formats / sizeof *formats && !chat->format; i++)
    if (fits(&formats[i], plain)) chat->format = &formats[i];
  bool ok = true;
  if (chat->format && chat->format->speaks) chat->system = default_system(plain, &ok, &own);
  if (!ok) chat->format = NULL;
  free(plain);
  return own.code ? error_set(error, own.code, "%s", own.text) : 0;
}

void chat_template_clear(struct chat_template *chat) { free(chat->system); }

const char *chat_format_name(const struct chat_template *chat) { return chat && chat->format ? chat->format->name : NULL; }

size_t chat_known_formats(void) { return sizeof formats / sizeof *formats; }
const char *chat_known_format(size_t i) { return formats[i].name; }

/* ---- writing ------------------------------------------------------------------------------------------ */

struct writing {
  const struct chat_format *format;
  const char *bos, *eos;
  struct chat_text *out;
};

/* A piece of a row. */
static void put(struct writing *w, const char *piece) {
  for (size_t n; *piece; piece += n) {
    n = strcspn(piece, BOS EOS);
    buffer_append(&w->out->text, piece, n);
    if (!piece[n]) return;
    buffer_text(&w->out->text, piece[n] == BOS[0] ? w->bos : w->eos);
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
static struct chat_message without_thoughts(const struct chat_message *message) {
  static const char mark[] = "</think>";
  struct chat_message left = *message;
  for (size_t i = 0; i + sizeof mark - 1 <= message->length; i++)
    if (memcmp(message->text + i, mark, sizeof mark - 1) == 0) {
      left.text = message->text + i + sizeof mark - 1;
      left.length = message->length - i - (sizeof mark - 1);
    }
  while (left.text != message->text && left.length && *left.text == '\n') left.text++, left.length--;
  return left;
}

static void put_turn(struct writing *w, const struct chat_message *message) {
  const struct turn *turn = &w->format->turns[message->role];
  struct chat_message said = w->format->thinks && message->role == CHAT_ASSISTANT ? without_thoughts(message) : *message;
  bool trims = w->format->trim != TRIM_NO;
  put(w, turn->before);
  say_trimmed(w, &said, trims, trims);
  put(w, turn->after);
}

/* The user's first turn with the system's text inside. */
static void put_merged(struct writing *w, const struct chat_message *system, const struct chat_message *user) {
  const struct turn *turns = w->format->turns;
  put(w, turns[CHAT_USER].before);
  put(w, turns[CHAT_SYSTEM].before);
  say(w, system->text, system->length);
  put(w, turns[CHAT_SYSTEM].after);
  say_trimmed(w, user, w->format->trim == TRIM_EACH, w->format->trim != TRIM_NO);
  put(w, turns[CHAT_USER].after);
}

/* The turn in front that the template has of its own; it is no message's, but it is text. */
static void put_own_system(struct writing *w, const char *text) {
  const struct chat_message own = {CHAT_SYSTEM, text, strlen(text)};
  put_turn(w, &own);
}

static void put_chat(struct writing *w, const struct chat_template *chat, const struct chat_message *messages, size_t n) {
  bool system = messages[0].role == CHAT_SYSTEM;
  size_t i = 0;
  if (chat->bos && !strstr(w->format->turns[CHAT_USER].before, BOS)) put(w, BOS);
  if (!system && w->format->place == SYSTEM_ALWAYS) put_own_system(w, "");
  if (!system && chat->system) put_own_system(w, chat->system);
  if (system && w->format->place == SYSTEM_IN_USER) {
    put_merged(w, &messages[0], &messages[1]);
    i = 2;
  }
  for (; i < n; i++) put_turn(w, &messages[i]);
  put(w, w->format->answer);
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

int chat_write(const struct chat_template *chat, const struct chat_message *messages, size_t n, const char *bos,
               const char *eos, struct arena *arena, struct chat_text *out, struct error *error) {
  memset(out, 0, sizeof *out);
  buffer_init(&out->text, 0);
  if (n == 0) return error_set_field(error, ERROR_ARGUMENT, "messages", "'messages' is empty, at least one message is needed");
  if (check_order(chat->format, messages, n, error) != 0) return -1;
  out->plain = arena_array(arena, n + 1, sizeof *out->plain, error);
  if (!out->plain) return -1;
  struct writing w = {chat->format, bos ? bos : "", eos ? eos : "", out};
  put_chat(&w, chat, messages, n);
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

int chat_encode(const struct tokenizer *tokenizer, const struct chat_message *messages, size_t n, struct arena *arena,
                int32_t **ids, size_t *count, int32_t *ends, struct chat_text *written, struct error *error) {
  const struct chat_template *chat = tokenizer_chat(tokenizer);
  const char *bos = spelling(tokenizer, tokenizer_bos(tokenizer), arena, error);
  const char *eos = spelling(tokenizer, tokenizer_eos(tokenizer), arena, error);
  int32_t *made = NULL;
  memset(written, 0, sizeof *written);
  if (!bos || !eos || chat_write(chat, messages, n, bos, eos, arena, written, error) != 0 ||
      tokenizer_encode_around(tokenizer, written->text.data ? written->text.data : "", written->text.length, written->plain,
                              written->n_plain, &made, count, error) != 0)
    return -1;
  int failed = keep_ids(made, *count, arena, ids, error);
  free(made);
  return failed ? failed : special_id(tokenizer, chat->format->ends, ends, error);
}
