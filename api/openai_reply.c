/* openai_reply.c: choices as OpenAI's clients read them: one object, or a stream of chunks that ends with [DONE]. Knows
 * nothing of how a request was read. */
#include <string.h>

#include "api/openai.h"
#include "api/reply.h"

/* ---- what all objects have ---------------------------------------------------------------------------- */

static void write_head(struct json_writer *w, const struct openai_plan *plan, bool chunk) {
  jw_member_text(w, "id", plan->id);
  jw_member_text(w, "object", plan->shape == OPENAI_TEXT ? "text_completion" : chunk ? "chat.completion.chunk" : "chat.completion");
  jw_member_int(w, "created", plan->created);
  jw_member_text(w, "model", plan->args.model->id);
  jw_member_text(w, "system_fingerprint", plan->fingerprint);
}

static void write_usage(struct json_writer *w, const struct api_call *call) {
  int64_t prompt, generated;
  lab_job_usage(call->job, &prompt, &generated);
  jw_key(w, "usage");
  jw_open(w, '{');
  jw_member_int(w, "prompt_tokens", prompt);
  jw_member_int(w, "completion_tokens", generated);
  jw_member_int(w, "total_tokens", prompt + generated);
  jw_close(w, '}');
}

/* A text that ran out of time was cut like one that ran out of tokens: clients know no third reason. */
static const char *reason_of(const char *finish) { return finish && strcmp(finish, "stop") != 0 ? "length" : finish; }

/* ---- one choice, or what is new of it ----------------------------------------------------------------- */

struct piece {
  size_t index;
  struct lab_prompt_read prompt; /* text NULL: it is not shown here */
  struct lab_news news;
  size_t from;                   /* bytes of generated text that were told before */
  int64_t characters;            /* of the choice's text that were told before */
};

/* Moves on what was told of the choice. */
static int read_piece(struct api_call *call, size_t index, struct arena *arena, struct piece *piece, struct error *error) {
  struct openai_plan *plan = call->plan;
  struct openai_told *told = &plan->told[index];
  *piece = (struct piece){.index = index, .from = told->seen.bytes, .characters = told->characters};
  if (plan->echo && !told->begun) {
    int there = lab_complete_prompt(call->job, index / (size_t)plan->args.n, arena, &piece->prompt, error);
    if (there <= 0) return there;
    told->characters += openai_characters(piece->prompt.text, piece->prompt.length);
  }
  if (lab_complete_read(call->job, index, &told->seen, arena, &piece->news, error) != 0) return -1;
  told->characters += openai_characters(piece->news.text, piece->news.length);
  return 1;
}

static int write_both(struct json_writer *w, const char *key, const struct piece *piece, struct arena *arena, struct error *error) {
  size_t length = piece->prompt.length + piece->news.length;
  char *text = arena_alloc(arena, length + 1, error);
  if (!text) return -1;
  if (piece->prompt.length) memcpy(text, piece->prompt.text, piece->prompt.length);
  memcpy(text + piece->prompt.length, piece->news.text, piece->news.length);
  jw_key(w, key);
  jw_string(w, text, length);
  return 0;
}

static int write_logprobs(struct json_writer *w, const struct openai_plan *plan, const struct piece *piece,
                          struct arena *arena, struct error *error) {
  int64_t prompt = openai_characters(piece->prompt.text, piece->prompt.length);
  struct openai_scores runs[2] = {
      {piece->prompt.scored, piece->prompt.scored ? piece->prompt.n_tokens : 0, piece->prompt.text, 0, piece->characters},
      {piece->news.scored, piece->news.n_scored, piece->news.text, piece->from, piece->characters + prompt}};
  jw_key(w, "logprobs");
  if (plan->args.n_logprobs < 0) return jw_null(w), 0;
  if (plan->shape == OPENAI_TEXT) return openai_text_logprobs(w, runs, 2, arena, error);
  openai_chat_logprobs(w, &runs[1]);
  return 0;
}

static int write_message(struct json_writer *w, const struct piece *piece, struct arena *arena, struct error *error) {
  jw_key(w, "message");
  jw_open(w, '{');
  jw_member_text(w, "role", "assistant");
  if (write_both(w, "content", piece, arena, error) != 0) return -1;
  jw_member_null(w, "refusal");
  jw_close(w, '}');
  return 0;
}

/* ---- whole -------------------------------------------------------------------------------------------- */

static int write_choice(struct json_writer *w, struct api_call *call, size_t index, struct arena *arena, struct error *error) {
  const struct openai_plan *plan = call->plan;
  struct piece piece;
  if (read_piece(call, index, arena, &piece, error) < 0) return -1;
  jw_open(w, '{');
  jw_member_int(w, "index", (int64_t)index);
  if ((plan->shape == OPENAI_TEXT ? write_both(w, "text", &piece, arena, error) : write_message(w, &piece, arena, error)) != 0 ||
      write_logprobs(w, plan, &piece, arena, error) != 0)
    return -1;
  jw_member_text(w, "finish_reason", reason_of(piece.news.finish));
  jw_close(w, '}');
  return 0;
}

/* The memory of a choice is given back before the next one is read. */
int openai_finish(struct api_call *call, struct error *error) {
  const struct openai_plan *plan = call->plan;
  struct json_writer w;
  struct arena arena;
  int failed = 0;
  jw_init(&w, &call->body);
  jw_open(&w, '{');
  write_head(&w, plan, false);
  jw_key(&w, "choices");
  jw_open(&w, '[');
  arena_init(&arena, call->arena.limit);
  for (size_t i = 0; !failed && i < plan->n_choices; i++) {
    failed = write_choice(&w, call, i, &arena, error);
    arena_reset(&arena);
  }
  arena_clear(&arena);
  jw_close(&w, ']');
  write_usage(&w, call);
  jw_close(&w, '}');
  return failed;
}

/* ---- streams ------------------------------------------------------------------------------------------ */

static void begin_chunk(struct json_writer *w, struct buffer *out, const struct openai_plan *plan) {
  buffer_text(out, "data: ");
  jw_init(w, out);
  jw_open(w, '{');
  write_head(w, plan, true);
  jw_key(w, "choices");
  jw_open(w, '[');
}

static void end_chunk(struct json_writer *w, struct buffer *out, const struct openai_plan *plan) {
  jw_close(w, ']');
  if (plan->usage) jw_member_null(w, "usage");
  jw_close(w, '}');
  buffer_text(out, "\n\n");
}

/* What a chunk of a chat brings: the role first, text, and nothing with the reason it ended for. */
static int write_delta(struct json_writer *w, const struct piece *piece, bool role, bool text, struct arena *arena,
                       struct error *error) {
  jw_key(w, "delta");
  jw_open(w, '{');
  if (role) jw_member_text(w, "role", "assistant");
  if (role) jw_member_text(w, "content", "");
  if (text && write_both(w, "content", piece, arena, error) != 0) return -1;
  jw_close(w, '}');
  return 0;
}

static int write_chunk(struct buffer *out, const struct openai_plan *plan, const struct piece *piece, bool role, bool text,
                       const char *finish, struct arena *arena, struct error *error) {
  struct json_writer w;
  begin_chunk(&w, out, plan);
  jw_open(&w, '{');
  jw_member_int(&w, "index", (int64_t)piece->index);
  if (plan->shape == OPENAI_CHAT) {
    if (write_delta(&w, piece, role, text, arena, error) != 0) return -1;
  } else if (text) {
    if (write_both(&w, "text", piece, arena, error) != 0) return -1;
  } else {
    jw_member_text(&w, "text", "");
  }
  if (text) {
    if (write_logprobs(&w, plan, piece, arena, error) != 0) return -1;
  } else {
    jw_member_null(&w, "logprobs");
  }
  jw_member_text(&w, "finish_reason", finish);
  jw_close(&w, '}');
  end_chunk(&w, out, plan);
  return 0;
}

static int tell_choice(struct api_call *call, struct buffer *out, size_t index, struct arena *arena, struct error *error) {
  const struct openai_plan *plan = call->plan;
  struct openai_told *told = &plan->told[index];
  struct piece piece;
  if (told->ended) return 0;
  int there = read_piece(call, index, arena, &piece, error);
  if (there <= 0) return there;
  bool role = plan->shape == OPENAI_CHAT && !told->begun, news = piece.news.length + piece.news.n_scored + piece.prompt.length > 0;
  told->begun = true;
  told->ended = piece.news.finish != NULL;
  if (role && write_chunk(out, plan, &piece, true, false, NULL, arena, error) != 0) return -1;
  if (news && write_chunk(out, plan, &piece, false, true, NULL, arena, error) != 0) return -1;
  return told->ended ? write_chunk(out, plan, &piece, false, false, reason_of(piece.news.finish), arena, error) : 0;
}

static void tell_usage(struct api_call *call, struct buffer *out) {
  const struct openai_plan *plan = call->plan;
  struct json_writer w;
  if (!plan->usage) return;
  begin_chunk(&w, out, plan);
  jw_close(&w, ']');
  write_usage(&w, call);
  jw_close(&w, '}');
  buffer_text(out, "\n\n");
}

/* Everything that is new of any choice; a reader who is slow finds more in fewer chunks. */
int openai_frame(struct api_call *call, struct buffer *out, bool last, struct error *error) {
  const struct openai_plan *plan = call->plan;
  struct arena arena;
  int failed = 0;
  arena_init(&arena, call->arena.limit);
  for (size_t i = 0; !failed && i < plan->n_choices; i++) {
    failed = tell_choice(call, out, i, &arena, error);
    arena_reset(&arena);
  }
  arena_clear(&arena);
  if (failed || !last) return failed;
  tell_usage(call, out);
  buffer_text(out, "data: [DONE]\n\n");
  return 0;
}
