/* tokenizer.h: text to token ids and back.
 *
 * Kinds: byte-pair encoding from a Hugging Face folder (tokenizer.json; or vocab.json + merges.txt), byte-level as
 * GPT-2's and its descendants', or of characters with byte fallback as SentencePiece's; the same from SentencePiece's own
 * tokenizer.model, or llama2.c's tokenizer.bin; and characters from a text file (the workshop's scheme). docs/tokenizers.md lists what is
 * served. Immutable after loading and safe to share between threads. */
#ifndef STEERD_CORE_MODEL_TOKENIZER_H
#define STEERD_CORE_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct tokenizer;

/* From a folder: tokenizer.json if it is there, else vocab.json + merges.txt or encoder.json + vocab.bpe, else tokenizer.model. What
 * steerd does not build (Unigram, WordPiece, a normalizer that is not served ...) is refused by name. */
struct tokenizer *tokenizer_open_folder(const char *folder, struct error *error) MUST_CHECK;

/* Whether a folder has a file that tokenizer_open_folder would begin with. */
bool tokenizer_folder_has(const char *folder);

/* One id for each distinct character of a UTF-8 text file, in code-point order, behind the special tokens
 * <PAD> (0), <SOS> (1, used as BOS) and <EOS> (2). Newline and comma separate names and are no characters
 * of the vocabulary. */
struct tokenizer *tokenizer_open_characters(const char *text_path, struct error *error) MUST_CHECK;

/* llama2.c's tokenizer.bin: ids in file order, <unk> 0, <s> 1 (BOS), </s> 2 (EOS). */
struct tokenizer *tokenizer_open_llama2c(const char *path, struct error *error) MUST_CHECK;

void tokenizer_free(struct tokenizer *tokenizer); /* NULL is fine */

int32_t tokenizer_size(const struct tokenizer *t); /* ids are 0..size-1 (some may be unused) */
int32_t tokenizer_bos(const struct tokenizer *t);  /* -1 when there is none */
int32_t tokenizer_eos(const struct tokenizer *t);  /* -1 when there is none */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* The ids of BOS, EOS, PAD and SEP, those that there are, ascending and none twice: how many is the result. What a chat's template adds is
 * none of them. */
#define TOKENIZER_CONTROLS 4
size_t tokenizer_controls(const struct tokenizer *t, int32_t out[TOKENIZER_CONTROLS]);

/* What kind it is, in a few words: "byte-level BPE". Static. */
const char *tokenizer_title(const struct tokenizer *t);

/* Whether the model's habit is to begin with BOS when nothing else is said: yes where there is one, except where
 * tokenizer_config.json says otherwise or the model_type of config.json is one that TransformerLens runs without
 * (Pythia, Qwen, Phi-1 and 2, BLOOM). */
bool tokenizer_prepends_bos(const struct tokenizer *t);

enum tokenizer_flags {
  TOKENIZE_BOS = 1,    /* put BOS in front unless the text already begins with its text */
  TOKENIZE_SPECIAL = 2 /* texts of special tokens ("<|endoftext|>") become their ids */
};

/* Ids of text[0..length), valid UTF-8, into *ids (malloc'ed, caller frees; NULL when *count is 0).
 * Errors: ERROR_ARGUMENT (invalid UTF-8 with its byte offset; a character that the vocabulary lacks, named),
 * ERROR_LIMIT (more than 1 GiB), ERROR_MEMORY. Cost: O(n log n) in the longest pre-token. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t length, int flags, int32_t **ids,
                     size_t *count, struct error *error) MUST_CHECK;

/* Bytes [begin, end) of a text. */
struct tokenizer_range {
  size_t begin, end;
};

/* As tokenizer_encode with TOKENIZE_SPECIAL, but texts of special tokens stay text where they touch one of plain[0..n_plain),
 * ascending: what a stranger wrote into a text of our own. */
int tokenizer_encode_around(const struct tokenizer *t, const char *text, size_t length, const struct tokenizer_range *plain,
                            size_t n_plain, int32_t **ids, size_t *count, struct error *error) MUST_CHECK;

/* Its chat template (chat.h), as far as it is known; never NULL. */
struct chat_template;
const struct chat_template *tokenizer_chat(const struct tokenizer *t);

/* The raw bytes of one token as text shows it (" the", also where files write "▁the"; part of a character possibly; the
 * literal "<|endoftext|>" for a special one). Borrowed; *length may be 0 for unused ids. An id outside 0..size-1 gives "". */
const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *length);

#endif
