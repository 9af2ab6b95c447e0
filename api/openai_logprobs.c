/* openai_logprobs.c: log-probabilities in both of OpenAI's shapes. A token that is a part of a character has no text of its
 * own: the older shape writes "bytes:\xf0\x9f", as OpenAI does, so that two of them are never the same name. */
#include <stdio.h>
#include <string.h>

#include "api/openai.h"
#include "core/base/utf8.h"

int64_t openai_characters(const char *text, size_t length) {
  int64_t count = 0;
  for (size_t i = 0; i < length; i++) count += ((unsigned char)text[i] & 0xC0) != 0x80;
  return count;
}

/* ---- the older shape ---------------------------------------------------------------------------------- */

/* NUL-terminated: the bytes themselves, or spelled out where they are no text. */
static const char *name_of(const struct lab_scored *scored, struct arena *arena, struct error *error) {
  bool plain = utf8_valid(scored->bytes, scored->n_bytes, NULL) && !memchr(scored->bytes, '\0', scored->n_bytes);
  if (plain) return arena_text(arena, scored->bytes, scored->n_bytes, error);
  char *name = arena_alloc(arena, 6 + 4 * scored->n_bytes + 1, error);
  if (!name) return NULL;
  memcpy(name, "bytes:", 6);
  for (size_t i = 0; i < scored->n_bytes; i++) snprintf(name + 6 + 4 * i, 5, "\\x%02x", (unsigned char)scored->bytes[i]);
  return name;
}

static bool same_bytes(const struct lab_scored *a, const struct lab_scored *b) {
  return a->n_bytes == b->n_bytes && memcmp(a->bytes, b->bytes, a->n_bytes) == 0;
}

/* A member of the object; of tokens that read the same the likeliest. */
static int write_top(struct json_writer *w, const struct lab_scored *all, size_t i, struct arena *arena, struct error *error) {
  for (size_t k = 0; k < i; k++)
    if (same_bytes(&all[k], &all[i])) return 0;
  const char *name = name_of(&all[i], arena, error);
  if (!name) return -1;
  jw_member_f32(w, name, all[i].logprob);
  return 0;
}

/* The likeliest and the token itself. */
static int write_tops(struct json_writer *w, const struct lab_scored *scored, struct arena *arena, struct error *error) {
  struct lab_scored all[LAB_TOP_LOGPROBS_MOST + 1];
  size_t n = (size_t)scored->n_top;
  if (scored->n_top == 0 && scored->logprob != scored->logprob) return jw_null(w), 0; /* the first token of a prompt */
  if (n) memcpy(all, scored->top, n * sizeof *all);
  all[n++] = *scored;
  jw_open(w, '{');
  for (size_t i = 0; i < n; i++)
    if (write_top(w, all, i, arena, error) != 0) return -1;
  jw_close(w, '}');
  return 0;
}

static int64_t character_of(const struct openai_scores *run, const struct lab_scored *scored) {
  return run->base + openai_characters(run->text, scored->offset - run->from);
}

int openai_text_logprobs(struct json_writer *w, const struct openai_scores *runs, size_t n_runs, struct arena *arena,
                         struct error *error) {
  static const char *const keys[] = {"tokens", "token_logprobs", "top_logprobs", "text_offset"};
  jw_open(w, '{');
  for (int part = 0; part < 4; part++) {
    jw_key(w, keys[part]);
    jw_open(w, '[');
    for (size_t r = 0; r < n_runs; r++)
      for (size_t i = 0; i < runs[r].n; i++) {
        const struct lab_scored *scored = &runs[r].scored[i];
        const char *name = part == 0 ? name_of(scored, arena, error) : "";
        if (!name || (part == 2 && write_tops(w, scored, arena, error) != 0)) return -1;
        if (part == 0) jw_text(w, name);
        if (part == 1) jw_f32(w, scored->logprob);
        if (part == 3) jw_int(w, character_of(&runs[r], scored));
      }
    jw_close(w, ']');
  }
  jw_close(w, '}');
  return 0;
}

/* ---- of chats ----------------------------------------------------------------------------------------- */

static void write_scored(struct json_writer *w, const struct lab_scored *scored, bool with_top) {
  jw_open(w, '{');
  jw_key(w, "token");
  jw_string(w, scored->bytes, scored->n_bytes); /* parts of characters become U+FFFD; `bytes` tells them */
  jw_member_f32(w, "logprob", scored->logprob);
  jw_key(w, "bytes");
  jw_open(w, '[');
  for (size_t i = 0; i < scored->n_bytes; i++) jw_int(w, (unsigned char)scored->bytes[i]);
  jw_close(w, ']');
  if (with_top) {
    jw_key(w, "top_logprobs");
    jw_open(w, '[');
    for (int i = 0; i < scored->n_top; i++) write_scored(w, &scored->top[i], false);
    jw_close(w, ']');
  }
  jw_close(w, '}');
}

void openai_chat_logprobs(struct json_writer *w, const struct openai_scores *scores) {
  jw_open(w, '{');
  jw_key(w, "content");
  jw_open(w, '[');
  for (size_t i = 0; i < scores->n; i++) write_scored(w, &scores->scored[i], true);
  jw_close(w, ']');
  jw_member_null(w, "refusal");
  jw_close(w, '}');
}
