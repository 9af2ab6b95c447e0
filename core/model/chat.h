/* chat.h: a chat as the model reads it: which format a tokenizer's chat template has, and messages written in it.
 *
 * Templates are programs (Jinja). They are not run: a table of the formats that are in use says for each by which marks its
 * templates are known and what they write. A template without a row is not guessed at; the model then has no chats. The marks
 * are whole expressions of the program, whatever way it is spaced and quoted, so that a template which does something else with
 * the same words is not taken for a known one. */
#ifndef STEERD_CORE_MODEL_CHAT_H
#define STEERD_CORE_MODEL_CHAT_H

#include "core/base/arena.h"
#include "core/base/buffer.h"
#include "core/model/tokenizer.h"

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_ROLES };

struct chat_message {
  enum chat_role role;
  const char *text; /* valid UTF-8 */
  size_t length;
};

struct chat_format;

enum chat_bos { CHAT_BOS_NEVER, CHAT_BOS_ALWAYS, CHAT_BOS_NO_ANSWER }; /* NO_ANSWER: not in front of an answer */

/* What a template was recognised as. */
struct chat_template {
  bool present;                     /* there is one */
  const struct chat_format *format; /* NULL: of no known format */
  enum chat_bos bos;                /* when it begins with BOS */
  char *system;                     /* what it says where no message does; NULL: nothing */
};

/* Reads the template of a tokenizer. Only memory can fail. */
int chat_template_read(struct chat_template *chat, const char *text, struct error *error) MUST_CHECK;
void chat_template_clear(struct chat_template *chat);

/* "chatml", "llama-3", ...; NULL for NULL and for an unknown one. */
const char *chat_format_name(const struct chat_template *chat);

/* The names of all formats: how many there are, and that of number i (below that). */
size_t chat_known_formats(void);
const char *chat_known_format(size_t i);

/* A chat written out. Special tokens are spelled in the text. */
struct chat_text {
  struct buffer text;
  struct tokenizer_range *plain; /* [n_plain] what messages say: special tokens spelled there are plain text */
  size_t n_plain;
};

/* The messages and the opening of the answer, into *out, whose arrays lie in the arena (the buffer is to be cleared). quiet: the
 * answer is to come without thoughts; formats of models that have none are the same then. Errors: ERROR_ARGUMENT with field
 * "messages" or "messages[i]": what the format has no place for; "enable_thinking": quiet, and the format always thinks. `bos`,
 * `eos`: their spelling, or NULL. */
int chat_write(const struct chat_template *chat, const struct chat_message *messages, size_t n, bool quiet, const char *bos,
               const char *eos, struct arena *arena, struct chat_text *out, struct error *error) MUST_CHECK;

/* The same as ids (in the arena), with the token that ends an answer beside EOS, -1: none. The tokenizer must have a known
 * template. */
int chat_encode(const struct tokenizer *tokenizer, const struct chat_message *messages, size_t n, bool quiet,
                struct arena *arena, int32_t **ids, size_t *count, int32_t *ends, struct chat_text *written,
                struct error *error) MUST_CHECK;

#endif
